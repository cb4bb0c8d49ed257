
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>


/* of bytes that wait to be acknowledged; twice the congestion window */
#define NGX_TUN_TCP_TX_MIN    (256 * 1024)
#define NGX_TUN_TCP_TX_MAX    (8 * 1024 * 1024)

/* that many bytes go out at once, fewer with the flush */
#define NGX_TUN_TCP_TX_FLUSH  65536

/* a flow that has sent that much gets large chunks */
#define NGX_TUN_TCP_TX_SMALL  8192


struct ngx_tun_chunk_s {
    ngx_tun_chunk_t          *next;
    ngx_tun_chunks_t         *chunks;
    u_char                   *pos;       /* not acknowledged from here on */
    u_char                   *send;      /* not given to lwIP */
    u_char                   *last;      /* not filled */
    u_char                   *end;
};


struct ngx_tun_tcp_s {
    ngx_tun_flow_t            flow;
    ngx_tun_lwip_flow_t       lwip;

    ngx_tun_t                *tun;
    ngx_listening_t          *listening;
    ngx_connection_t         *connection;

    ngx_queue_t               queue;     /* of dirty flows */

    ngx_tun_chunk_t          *tx;        /* chunks in order */
    ngx_tun_chunk_t          *tx_last;
    ngx_tun_chunk_t          *tx_send;   /* the one to give to lwIP next */
    size_t                    tx_len;    /* bytes not acknowledged */
    size_t                    tx_unsent; /* given to lwIP, not flushed */
    size_t                    tx_total;

    unsigned                  dirty:1;
    unsigned                  inserted:1;
    unsigned                  eof:1;     /* the session was woken for it */
    unsigned                  shutdown:1; /* FIN after what is queued */
    unsigned                  closing:1; /* the session is over */
};


typedef struct {
    ngx_sockaddr_t            src;
    ngx_sockaddr_t            dst;
    ngx_log_t                 log;
    u_char                    text[NGX_SOCKADDR_STRLEN];
} ngx_tun_tcp_connection_t;


#define ngx_tun_tcp_lwip(f)                                                   \
    ((ngx_tun_tcp_t *) ((u_char *) (f) - offsetof(ngx_tun_tcp_t, lwip)))

/*
 * The place in a connection that neither core nor modules use where events
 * come from epoll, and that stays when TLS replaces c->recv.
 */

#define ngx_tun_tcp_get(c)     ((ngx_tun_tcp_t *) (c)->write->index)
#define ngx_tun_tcp_set(c, t)  (c)->write->index = (ngx_uint_t) (t)


static ngx_tun_tcp_t *ngx_tun_tcp_create(ngx_tun_t *tun,
    ngx_tun_flow_key_t *key, uint64_t hash);
static ngx_int_t ngx_tun_tcp_syn(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_flow_key_t *key, uint64_t hash);
static ngx_int_t ngx_tun_tcp_open(ngx_tun_tcp_t *tcp, ngx_tun_packet_t *pkt);
static void ngx_tun_tcp_refuse(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th);
static void ngx_tun_tcp_segment(ngx_tun_lwip_segment_t *seg,
    ngx_tun_packet_t *pkt, ngx_tun_lwip_buf_t *buf);
static void ngx_tun_tcp_remove(ngx_tun_tcp_t *tcp);
static void ngx_tun_tcp_free(ngx_tun_tcp_t *tcp);
static void ngx_tun_tcp_dirty(ngx_tun_tcp_t *tcp);

static ngx_int_t ngx_tun_tcp_accept(ngx_tun_tcp_t *tcp);
static ngx_connection_t *ngx_tun_tcp_connection(ngx_tun_tcp_t *tcp);
static ngx_int_t ngx_tun_tcp_addresses(ngx_connection_t *c,
    ngx_tun_tcp_t *tcp, ngx_tun_tcp_connection_t *tc);
static socklen_t ngx_tun_tcp_sockaddr(ngx_sockaddr_t *sa, u_char *addr,
    size_t addr_len, uint16_t port);
static void ngx_tun_tcp_cleanup(void *data);
static void ngx_tun_tcp_update(ngx_tun_tcp_t *tcp);
static void ngx_tun_tcp_wake(ngx_event_t *ev);

static ssize_t ngx_tun_tcp_recv(ngx_connection_t *c, u_char *buf, size_t size);
static ssize_t ngx_tun_tcp_recv_chain(ngx_connection_t *c, ngx_chain_t *in,
    off_t limit);
static ssize_t ngx_tun_tcp_send(ngx_connection_t *c, u_char *buf, size_t size);
static ngx_chain_t *ngx_tun_tcp_send_chain(ngx_connection_t *c,
    ngx_chain_t *in, off_t limit);
static size_t ngx_tun_tcp_space(ngx_tun_tcp_t *tcp);
static size_t ngx_tun_tcp_append(ngx_tun_tcp_t *tcp, u_char *p, size_t size);
static void ngx_tun_tcp_push(ngx_tun_tcp_t *tcp);
static void ngx_tun_tcp_acked(ngx_tun_tcp_t *tcp, size_t n);
static ngx_tun_chunk_t *ngx_tun_tcp_alloc_chunk(ngx_tun_tcp_t *tcp,
    size_t size);
static void ngx_tun_tcp_free_chunk(ngx_tun_chunk_t *chunk);
static void ngx_tun_tcp_free_tx(ngx_tun_tcp_t *tcp);

static int ngx_tun_tcp_output(ngx_tun_lwip_flow_t *flow, struct iovec *iov,
    unsigned n, size_t len);
static void ngx_tun_tcp_closed(ngx_tun_lwip_flow_t *flow);


const ngx_tun_lwip_ops_t  ngx_tun_tcp_ops = {
    ngx_tun_tcp_output,
    ngx_tun_tcp_closed
};


ngx_int_t
ngx_tun_tcp_input(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_lwip_buf_t *buf, ngx_uint_t trusted)
{
    int                      kept;
    uint64_t                 hash;
    ngx_tun_tcp_t           *tcp;
    ngx_tun_flow_key_t       key;
    ngx_tun_packet_tcp_t     th;
    ngx_tun_lwip_segment_t   seg;

    if (ngx_tun_packet_parse_tcp(pkt, &th) != NGX_TUN_PACKET_OK) {
        (void) ngx_atomic_fetch_add(&tun->stat->invalid, 1);
        return NGX_OK;
    }

    if (!trusted && ngx_tun_packet_check_tcp(pkt) != NGX_TUN_PACKET_OK) {
        (void) ngx_atomic_fetch_add(&tun->stat->checksum, 1);
        return NGX_OK;
    }

    ngx_tun_flow_key(&key, pkt, th.src_port, th.dst_port);
    hash = ngx_tun_flow_hash(&tun->flows, &key, 0);

    tcp = (ngx_tun_tcp_t *) ngx_tun_flow_lookup(&tun->flows, &key, hash);

    if ((th.flags & (NGX_TUN_PACKET_TCP_SYN
                     |NGX_TUN_PACKET_TCP_ACK
                     |NGX_TUN_PACKET_TCP_RST))
        == NGX_TUN_PACKET_TCP_SYN)
    {
        if (tcp != NULL && ngx_tun_lwip_reusable(&tcp->lwip, th.seq)) {
            ngx_tun_lwip_abort(&tcp->lwip);
            tcp = NULL;
        }

        if (tcp == NULL) {
            return ngx_tun_tcp_syn(tun, pkt, &key, hash);
        }
    }

    if (tcp == NULL) {
        (void) ngx_atomic_fetch_add(&tun->stat->unknown, 1);
        ngx_tun_tcp_refuse(tun, pkt, &th);
        return NGX_OK;
    }

    ngx_tun_tcp_segment(&seg, pkt, buf);

    kept = ngx_tun_lwip_input(&tcp->lwip, &seg);

    ngx_tun_tcp_update(tcp);

    return kept ? NGX_DONE : NGX_OK;
}


static ngx_int_t
ngx_tun_tcp_syn(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_flow_key_t *key, uint64_t hash)
{
    ngx_tun_tcp_t         *tcp;
    ngx_listening_t       *ls;
    ngx_tun_packet_tcp_t   th;

    if (ngx_exiting) {
        return NGX_OK;
    }

    ls = ngx_tun_find_listening(tun, key, SOCK_STREAM);

    if (ls == NULL) {
        (void) ngx_atomic_fetch_add(&tun->stat->refused, 1);
        goto refuse;
    }

    if (tun->conf->max_flows != 0
        && tun->flows.nflows >= (ngx_uint_t) tun->conf->max_flows)
    {
        (void) ngx_atomic_fetch_add(&tun->stat->limited, 1);
        goto refuse;
    }

    tcp = ngx_tun_tcp_create(tun, key, hash);
    if (tcp == NULL) {
        return NGX_OK;
    }

    tcp->listening = ls;

    if (ngx_tun_tcp_open(tcp, pkt) != NGX_OK) {
        (void) ngx_atomic_fetch_add(&tun->stat->limited, 1);
        ngx_tun_tcp_dirty(tcp);
    }

    return NGX_OK;

refuse:

    (void) ngx_tun_packet_parse_tcp(pkt, &th);
    ngx_tun_tcp_refuse(tun, pkt, &th);

    return NGX_OK;
}


static ngx_tun_tcp_t *
ngx_tun_tcp_create(ngx_tun_t *tun, ngx_tun_flow_key_t *key, uint64_t hash)
{
    ngx_tun_tcp_t  *tcp;

    tcp = ngx_calloc(sizeof(ngx_tun_tcp_t), tun->log);
    if (tcp == NULL) {
        (void) ngx_atomic_fetch_add(&tun->stat->limited, 1);
        return NULL;
    }

    tcp->tun = tun;
    tcp->flow.key = *key;
    tcp->flow.hash = hash;

    ngx_tun_flow_insert(&tun->flows, &tcp->flow);
    tcp->inserted = 1;

    (void) ngx_atomic_fetch_add(&tun->stat->active, 1);

    return tcp;
}


static ngx_int_t
ngx_tun_tcp_open(ngx_tun_tcp_t *tcp, ngx_tun_packet_t *pkt)
{
    uint32_t                 isn;
    ngx_tun_t               *tun;
    ngx_tun_lwip_segment_t   seg;

    tun = tcp->tun;

    /* RFC 6528: a keyed hash of the tuple, and a clock of 4 us */

    isn = (uint32_t) ngx_tun_flow_hash(&tun->flows, &tcp->flow.key, 1)
          + (uint32_t) ngx_current_msec * 250;

    ngx_tun_tcp_segment(&seg, pkt, NULL);

    if (ngx_tun_lwip_open(tun->lwip, &tcp->lwip, &seg, isn) != 0) {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_tun_tcp_refuse(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th)
{
    size_t  len;
    u_char  buf[NGX_TUN_PACKET_TCP_MIN];

    len = ngx_tun_packet_build_reset(buf, pkt, th);

    if (len != 0) {
        (void) ngx_tun_queue_write(&tun->queue, buf, len);
    }
}


static void
ngx_tun_tcp_segment(ngx_tun_lwip_segment_t *seg, ngx_tun_packet_t *pkt,
    ngx_tun_lwip_buf_t *buf)
{
    seg->src = pkt->src;
    seg->dst = pkt->dst;
    seg->addr_len = (uint32_t) pkt->addr_len;
    seg->ip = pkt->start;
    seg->tcp = pkt->payload;
    seg->len = (uint32_t) (pkt->end - pkt->payload);
    seg->buf = buf;
}


void
ngx_tun_tcp_reset(ngx_tun_tcp_t *tcp)
{
    ngx_tun_lwip_abort(&tcp->lwip);

    if (tcp->connection == NULL) {
        ngx_tun_tcp_free(tcp);
        return;
    }

    /* the session is not told, the process ends */

    ngx_tun_tcp_remove(tcp);
}


static void
ngx_tun_tcp_remove(ngx_tun_tcp_t *tcp)
{
    if (tcp->inserted) {
        tcp->inserted = 0;
        ngx_tun_flow_delete(&tcp->tun->flows, &tcp->flow);

        (void) ngx_atomic_fetch_add(&tcp->tun->stat->active, -1);
    }
}


static void
ngx_tun_tcp_free(ngx_tun_tcp_t *tcp)
{
    ngx_tun_tcp_remove(tcp);

    if (tcp->dirty) {
        ngx_queue_remove(&tcp->queue);
    }

    ngx_tun_lwip_abort(&tcp->lwip);
    ngx_tun_tcp_free_tx(tcp);

    ngx_free(tcp);
}


static void
ngx_tun_tcp_dirty(ngx_tun_tcp_t *tcp)
{
    ngx_tun_t  *tun;

    if (tcp->dirty) {
        return;
    }

    tun = tcp->tun;

    tcp->dirty = 1;
    ngx_queue_insert_tail(&tun->dirty, &tcp->queue);

    if (!tun->flush.posted) {
        ngx_tun_post_flush(tun);
    }
}


ngx_tun_tcp_t *
ngx_tun_tcp_from_queue(ngx_queue_t *q)
{
    return ngx_queue_data(q, ngx_tun_tcp_t, queue);
}


void
ngx_tun_tcp_flush(ngx_tun_tcp_t *tcp)
{
    tcp->dirty = 0;

    if (tcp->lwip.pcb != NULL) {
        ngx_tun_lwip_flush(&tcp->lwip);
        tcp->tx_unsent = 0;

    } else if (tcp->connection == NULL) {
        ngx_tun_tcp_free(tcp);
    }
}


/* what happened to a flow inside lwIP, seen from outside */

static void
ngx_tun_tcp_update(ngx_tun_tcp_t *tcp)
{
    ngx_connection_t     *c;
    ngx_tun_lwip_flow_t  *flow;

    flow = &tcp->lwip;

    if (flow->acked != 0) {
        ngx_tun_tcp_acked(tcp, flow->acked);
        flow->acked = 0;

        ngx_tun_tcp_push(tcp);
    }

    ngx_tun_tcp_dirty(tcp);

    c = tcp->connection;

    if (c == NULL) {
        if (flow->established && flow->pcb != NULL && !tcp->closing) {
            if (ngx_tun_tcp_accept(tcp) != NGX_OK) {
                ngx_tun_lwip_abort(flow);
            }
        }

        return;
    }

    if ((flow->eof && !tcp->eof) || (flow->readable != 0 && !c->read->ready)) {
        tcp->eof = flow->eof;
        ngx_tun_tcp_wake(c->read);
    }

    if (!c->write->ready
        && ngx_tun_tcp_space(tcp) >= NGX_TUN_TCP_TX_MIN / 2)
    {
        ngx_tun_tcp_wake(c->write);
    }
}


static void
ngx_tun_tcp_wake(ngx_event_t *ev)
{
    ev->ready = 1;
    ngx_post_event(ev, &ngx_posted_events);
}


static ngx_int_t
ngx_tun_tcp_accept(ngx_tun_tcp_t *tcp)
{
    ngx_connection_t  *c;

    c = ngx_tun_tcp_connection(tcp);

    if (c == NULL) {
        (void) ngx_atomic_fetch_add(&tcp->tun->stat->limited, 1);
        return NGX_ERROR;
    }

    (void) ngx_atomic_fetch_add(&tcp->tun->stat->flows, 1);

    c->listening->handler(c);

    return NGX_OK;
}


static ngx_connection_t *
ngx_tun_tcp_connection(ngx_tun_tcp_t *tcp)
{
    ngx_tun_t                 *tun;
    ngx_pool_t                *pool;
    ngx_socket_t               fd;
    ngx_listening_t           *ls;
    ngx_connection_t          *c;
    ngx_pool_cleanup_t        *cln;
    ngx_tun_tcp_connection_t  *tc;

    tun = tcp->tun;
    ls = tcp->listening;

    /* one for the upstream too; asked for more, nginx would log an alert */

    if (ngx_cycle->free_connection_n < 2) {
        return NULL;
    }

    fd = fcntl(tun->sockets[0], F_DUPFD_CLOEXEC, 0);

    if (fd == (ngx_socket_t) -1) {
        ngx_log_error(NGX_LOG_ERR, tun->log, ngx_socket_errno,
                      "tun \"%V\": fcntl(F_DUPFD_CLOEXEC) failed",
                      &tun->conf->device.name);
        return NULL;
    }

    c = ngx_get_connection(fd, tun->log);

    if (c == NULL) {
        (void) ngx_close_socket(fd);
        return NULL;
    }

    c->type = SOCK_STREAM;
    c->listening = ls;
    c->log_error = NGX_ERROR_INFO;

    c->recv = ngx_tun_tcp_recv;
    c->recv_chain = ngx_tun_tcp_recv_chain;
    c->send = ngx_tun_tcp_send;
    c->send_chain = ngx_tun_tcp_send_chain;

    c->pool = ngx_create_pool(ls->pool_size, tun->log);
    if (c->pool == NULL) {
        goto failed;
    }

    tc = ngx_palloc(c->pool, sizeof(ngx_tun_tcp_connection_t));
    cln = ngx_pool_cleanup_add(c->pool, 0);

    if (tc == NULL || cln == NULL
        || ngx_tun_tcp_addresses(c, tcp, tc) != NGX_OK)
    {
        goto failed;
    }

    tc->log = *tun->log;
    tc->log.data = NULL;
    tc->log.handler = NULL;

    c->log = &tc->log;
    c->pool->log = &tc->log;
    c->read->log = &tc->log;
    c->write->log = &tc->log;

    /* nginx sets no options of c->fd, and never adds it to epoll */

    c->tcp_nodelay = NGX_TCP_NODELAY_DISABLED;
    c->tcp_nopush = NGX_TCP_NOPUSH_DISABLED;
    c->read->active = 1;
    c->write->active = 1;

    /* an empty last buffer reaches send_chain(): it is our FIN */
    c->need_last_buf = 1;

    c->write->ready = 1;
    c->read->ready = (tcp->lwip.readable != 0 || tcp->lwip.eof);

    c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);
    c->start_time = ngx_current_msec;

#if (NGX_STAT_STUB)
    (void) ngx_atomic_fetch_add(ngx_stat_accepted, 1);
    (void) ngx_atomic_fetch_add(ngx_stat_handled, 1);
    (void) ngx_atomic_fetch_add(ngx_stat_active, 1);
#endif

    cln->handler = ngx_tun_tcp_cleanup;
    cln->data = tcp;

    ngx_tun_tcp_set(c, tcp);
    tcp->connection = c;

    return c;

failed:

    pool = c->pool;
    ngx_close_connection(c);

    if (pool != NULL) {
        ngx_destroy_pool(pool);
    }

    return NULL;
}


static ngx_int_t
ngx_tun_tcp_addresses(ngx_connection_t *c, ngx_tun_tcp_t *tcp,
    ngx_tun_tcp_connection_t *tc)
{
    ngx_tun_flow_key_t  *key;

    key = &tcp->flow.key;

    c->sockaddr = &tc->src.sockaddr;
    c->socklen = ngx_tun_tcp_sockaddr(&tc->src, key->src, key->addr_len,
                                      key->src_port);

    c->local_sockaddr = &tc->dst.sockaddr;
    c->local_socklen = ngx_tun_tcp_sockaddr(&tc->dst, key->dst, key->addr_len,
                                            key->dst_port);

    c->addr_text.data = tc->text;
    c->addr_text.len = ngx_sock_ntop(c->sockaddr, c->socklen, tc->text,
                                     NGX_SOCKADDR_STRLEN, 0);

    return (c->addr_text.len == 0) ? NGX_ERROR : NGX_OK;
}


static socklen_t
ngx_tun_tcp_sockaddr(ngx_sockaddr_t *sa, u_char *addr, size_t addr_len,
    uint16_t port)
{
    ngx_memzero(sa, sizeof(ngx_sockaddr_t));

#if (NGX_HAVE_INET6)
    if (addr_len == 16) {
        sa->sockaddr_in6.sin6_family = AF_INET6;
        sa->sockaddr_in6.sin6_port = htons(port);
        ngx_memcpy(&sa->sockaddr_in6.sin6_addr, addr, 16);
        return sizeof(struct sockaddr_in6);
    }
#endif

    sa->sockaddr_in.sin_family = AF_INET;
    sa->sockaddr_in.sin_port = htons(port);
    ngx_memcpy(&sa->sockaddr_in.sin_addr, addr, 4);
    return sizeof(struct sockaddr_in);
}


ngx_tun_t *
ngx_tun_tcp_tun(ngx_connection_t *c)
{
    return ngx_tun_tcp_get(c)->tun;
}


/* the connection is free already, and with it all but the flow */

static void
ngx_tun_tcp_cleanup(void *data)
{
    ngx_tun_tcp_t *tcp = data;

    tcp->connection = NULL;
    tcp->closing = 1;

    ngx_tun_tcp_push(tcp);
    ngx_tun_tcp_dirty(tcp);
}


static ssize_t
ngx_tun_tcp_recv(ngx_connection_t *c, u_char *buf, size_t size)
{
    size_t                n;
    ngx_event_t          *rev;
    ngx_tun_tcp_t        *tcp;
    ngx_tun_lwip_flow_t  *flow;

    rev = c->read;
    tcp = ngx_tun_tcp_get(c);
    flow = &tcp->lwip;

    n = ngx_tun_lwip_recv(flow, buf, size);

    if (n != 0) {
        ngx_tun_tcp_dirty(tcp);

        if (flow->readable == 0 && !flow->eof && !flow->reset) {
            rev->ready = 0;
        }

        return n;
    }

    rev->ready = 0;

    if (flow->eof) {
        rev->eof = 1;
        return 0;
    }

    if (flow->reset || (flow->established && flow->pcb == NULL)) {
        rev->error = 1;
        ngx_set_socket_errno(NGX_ECONNRESET);
        return ngx_connection_error(c, NGX_ECONNRESET, "recv() failed");
    }

    return NGX_AGAIN;
}


static ssize_t
ngx_tun_tcp_recv_chain(ngx_connection_t *c, ngx_chain_t *in, off_t limit)
{
    return ngx_tun_tcp_recv(c, in->buf->last, in->buf->end - in->buf->last);
}


static ssize_t
ngx_tun_tcp_send(ngx_connection_t *c, u_char *buf, size_t size)
{
    size_t          n;
    ngx_tun_tcp_t  *tcp;

    tcp = ngx_tun_tcp_get(c);

    if (tcp->lwip.reset || (tcp->lwip.established && tcp->lwip.pcb == NULL)) {
        c->write->error = 1;
        ngx_set_socket_errno(NGX_ECONNRESET);
        return ngx_connection_error(c, NGX_ECONNRESET, "send() failed");
    }

    n = ngx_tun_tcp_append(tcp, buf, size);

    if (n < size) {
        c->write->ready = 0;
    }

    if (n == 0 && size != 0) {
        return NGX_AGAIN;
    }

    c->sent += n;

    ngx_tun_tcp_push(tcp);
    ngx_tun_tcp_dirty(tcp);

    return n;
}


static ngx_chain_t *
ngx_tun_tcp_send_chain(ngx_connection_t *c, ngx_chain_t *in, off_t limit)
{
    ssize_t         n;
    ngx_buf_t      *b;
    ngx_tun_tcp_t  *tcp;

    tcp = ngx_tun_tcp_get(c);

    for ( /* void */ ; in != NULL; in = in->next) {
        b = in->buf;

        if (ngx_buf_in_memory(b) && b->last != b->pos) {

            n = ngx_tun_tcp_send(c, b->pos, b->last - b->pos);

            if (n == NGX_ERROR) {
                return NGX_CHAIN_ERROR;
            }

            if (n == NGX_AGAIN) {
                return in;
            }

            b->pos += n;

            if (b->pos != b->last) {
                return in;
            }
        }

        if (b->last_buf) {
            tcp->shutdown = 1;
            ngx_tun_tcp_push(tcp);
            ngx_tun_tcp_dirty(tcp);
        }
    }

    return NULL;
}


static size_t
ngx_tun_tcp_space(ngx_tun_tcp_t *tcp)
{
    size_t  limit;

    limit = 2 * ngx_tun_lwip_cwnd(&tcp->lwip);

    limit = ngx_min(limit, NGX_TUN_TCP_TX_MAX);
    limit = ngx_max(limit, NGX_TUN_TCP_TX_MIN);

    return (limit > tcp->tx_len) ? limit - tcp->tx_len : 0;
}


static size_t
ngx_tun_tcp_append(ngx_tun_tcp_t *tcp, u_char *p, size_t size)
{
    size_t            n, left;
    ngx_tun_chunk_t  *chunk;

    size = ngx_min(size, ngx_tun_tcp_space(tcp));

    for (left = size; left != 0; left -= n) {

        chunk = tcp->tx_last;

        if (chunk == NULL || chunk->last == chunk->end) {
            chunk = ngx_tun_tcp_alloc_chunk(tcp, left);
            if (chunk == NULL) {
                break;
            }
        }

        n = ngx_min(left, (size_t) (chunk->end - chunk->last));

        chunk->last = ngx_cpymem(chunk->last, p, n);
        p += n;
    }

    size -= left;

    tcp->tx_len += size;
    tcp->tx_total += size;

    return size;
}


/* gives lwIP what it takes, and the end of it when all is given */

static void
ngx_tun_tcp_push(ngx_tun_tcp_t *tcp)
{
    size_t            n;
    ngx_tun_chunk_t  *chunk;

    if (tcp->lwip.pcb == NULL || !tcp->lwip.established) {

        if (tcp->closing) {
            ngx_tun_lwip_abort(&tcp->lwip);
        }

        return;
    }

    while (tcp->tx_send != NULL) {
        chunk = tcp->tx_send;

        n = ngx_tun_lwip_send(&tcp->lwip, chunk->send,
                              chunk->last - chunk->send);
        chunk->send += n;
        tcp->tx_unsent += n;

        if (chunk->send != chunk->last) {
            break;
        }

        if (chunk->next == NULL) {
            break;
        }

        tcp->tx_send = chunk->next;
    }

    if (tcp->tx_unsent >= NGX_TUN_TCP_TX_FLUSH) {
        ngx_tun_lwip_flush(&tcp->lwip);
        tcp->tx_unsent = 0;
    }

    if (tcp->tx_send != NULL && tcp->tx_send->send != tcp->tx_send->last) {
        return;
    }

    if (tcp->closing) {
        ngx_tun_lwip_close(&tcp->lwip);

    } else if (tcp->shutdown) {
        ngx_tun_lwip_shutdown(&tcp->lwip);
    }
}


static void
ngx_tun_tcp_acked(ngx_tun_tcp_t *tcp, size_t n)
{
    size_t            k;
    ngx_tun_chunk_t  *chunk;

    /* a FIN has a number too */
    n = ngx_min(n, tcp->tx_len);

    tcp->tx_len -= n;

    while (n != 0) {
        chunk = tcp->tx;

        k = ngx_min(n, (size_t) (chunk->send - chunk->pos));
        chunk->pos += k;
        n -= k;

        if (chunk->pos != chunk->last || chunk->next == NULL) {
            break;
        }

        if (tcp->tx_send == chunk) {
            tcp->tx_send = chunk->next;
        }

        tcp->tx = chunk->next;
        ngx_tun_tcp_free_chunk(chunk);
    }

    if (tcp->tx_len == 0) {
        ngx_tun_tcp_free_tx(tcp);
    }
}


static ngx_tun_chunk_t *
ngx_tun_tcp_alloc_chunk(ngx_tun_tcp_t *tcp, size_t size)
{
    ngx_tun_chunk_t   *chunk;
    ngx_tun_chunks_t  *chunks;

    chunks = (tcp->tx_total + size <= NGX_TUN_TCP_TX_SMALL) ? &tcp->tun->small
                                                            : &tcp->tun->large;
    chunk = chunks->free;

    if (chunk != NULL) {
        chunks->free = chunk->next;
        chunks->nfree--;

    } else {
        chunk = ngx_alloc(chunks->size, tcp->tun->log);
        if (chunk == NULL) {
            return NULL;
        }
    }

    chunk->next = NULL;
    chunk->chunks = chunks;
    chunk->pos = (u_char *) chunk + sizeof(ngx_tun_chunk_t);
    chunk->send = chunk->pos;
    chunk->last = chunk->pos;
    chunk->end = (u_char *) chunk + chunks->size;

    if (tcp->tx_last == NULL) {
        tcp->tx = chunk;
        tcp->tx_send = chunk;

    } else {
        tcp->tx_last->next = chunk;
    }

    tcp->tx_last = chunk;

    return chunk;
}


static void
ngx_tun_tcp_free_chunk(ngx_tun_chunk_t *chunk)
{
    ngx_tun_chunks_t  *chunks;

    chunks = chunk->chunks;

    if (chunks->nfree == chunks->max) {
        ngx_free(chunk);
        return;
    }

    chunk->next = chunks->free;
    chunks->free = chunk;
    chunks->nfree++;
}


static void
ngx_tun_tcp_free_tx(ngx_tun_tcp_t *tcp)
{
    ngx_tun_chunk_t  *chunk;

    while (tcp->tx != NULL) {
        chunk = tcp->tx;
        tcp->tx = chunk->next;
        ngx_tun_tcp_free_chunk(chunk);
    }

    tcp->tx_last = NULL;
    tcp->tx_send = NULL;
    tcp->tx_len = 0;
}


static int
ngx_tun_tcp_output(ngx_tun_lwip_flow_t *flow, struct iovec *iov, unsigned n,
    size_t len)
{
    size_t          mss;
    ngx_tun_tcp_t  *tcp;

    tcp = ngx_tun_tcp_lwip(flow);

    ngx_tun_packet_finish_tcp(iov[1].iov_base, len);

    /* before it is established it sends no data */
    mss = flow->established ? flow->mss : len;

    return (ngx_tun_queue_write_tcp(&tcp->tun->queue, iov, n, len, mss)
            == NGX_OK)
           ? 0 : -1;
}


static void
ngx_tun_tcp_closed(ngx_tun_lwip_flow_t *flow)
{
    ngx_connection_t  *c;
    ngx_tun_tcp_t     *tcp;

    tcp = ngx_tun_tcp_lwip(flow);

    ngx_tun_tcp_remove(tcp);
    ngx_tun_tcp_free_tx(tcp);
    ngx_tun_tcp_dirty(tcp);

    c = tcp->connection;

    if (c != NULL) {
        ngx_tun_tcp_wake(c->read);

        if (!c->write->ready) {
            ngx_tun_tcp_wake(c->write);
        }
    }
}
