
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>
#include <ngx_tun_tcp.h>


/* left to upstreams, resolvers, logs, and what else a worker opens */
#define NGX_TUN_TCP_CONNECTIONS  16
#define NGX_TUN_TCP_FILES        32


typedef struct {
    ngx_sockaddr_t            src;
    ngx_sockaddr_t            dst;
    ngx_log_t                 log;
    u_char                    text[NGX_SOCKADDR_STRLEN];
} ngx_tun_tcp_connection_t;


static ngx_connection_t *ngx_tun_tcp_get_connection(ngx_tun_t *tun);
static ngx_int_t ngx_tun_tcp_init_connection(ngx_connection_t *c,
    ngx_tun_tcp_t *tcp);
static void ngx_tun_tcp_init_addresses(ngx_connection_t *c,
    ngx_tun_flow_key_t *key, ngx_tun_tcp_connection_t *tc);
static socklen_t ngx_tun_tcp_sockaddr(ngx_sockaddr_t *sa, u_char *addr,
    size_t addr_len, uint16_t port);
static void ngx_tun_tcp_cleanup(void *data);

static ssize_t ngx_tun_tcp_recv(ngx_connection_t *c, u_char *buf, size_t size);
static ssize_t ngx_tun_tcp_recv_chain(ngx_connection_t *c, ngx_chain_t *in,
    off_t limit);
static ssize_t ngx_tun_tcp_send(ngx_connection_t *c, u_char *buf, size_t size);
static ngx_chain_t *ngx_tun_tcp_send_chain(ngx_connection_t *c,
    ngx_chain_t *in, off_t limit);
static void ngx_tun_tcp_last(ngx_tun_tcp_t *tcp);
static ngx_uint_t ngx_tun_tcp_dead(ngx_tun_tcp_t *tcp);


ngx_connection_t *
ngx_tun_tcp_connection(ngx_tun_tcp_t *tcp)
{
    ngx_pool_t        *pool;
    ngx_connection_t  *c;

    c = ngx_tun_tcp_get_connection(tcp->tun);
    if (c == NULL) {
        return NULL;
    }

    c->listening = tcp->listening;

    if (ngx_tun_tcp_init_connection(c, tcp) != NGX_OK) {
        pool = c->pool;

        ngx_close_connection(c);

        if (pool != NULL) {
            ngx_destroy_pool(pool);
        }

        return NULL;
    }

    c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);
    c->start_time = ngx_current_msec;

#if (NGX_STAT_STUB)
    (void) ngx_atomic_fetch_add(ngx_stat_accepted, 1);
    (void) ngx_atomic_fetch_add(ngx_stat_handled, 1);
    (void) ngx_atomic_fetch_add(ngx_stat_active, 1);
#endif

    ngx_tun_tcp_set(c, tcp);
    tcp->connection = c;

    return c;
}


static ngx_connection_t *
ngx_tun_tcp_get_connection(ngx_tun_t *tun)
{
    ngx_socket_t       fd;
    ngx_connection_t  *c;

    /* one for the upstream too; asked for more, nginx would log an alert */

    if (ngx_cycle->free_connection_n < NGX_TUN_TCP_CONNECTIONS) {
        ngx_tun_limited(tun, NGX_TUN_LIMIT_CONNECTIONS);
        return NULL;
    }

    fd = fcntl(tun->sockets[0], F_DUPFD_CLOEXEC, 0);

    /* the lowest free one tells how many are in use */

    if (fd == (ngx_socket_t) -1
        || (ngx_uint_t) fd + NGX_TUN_TCP_FILES > tun->max_files)
    {
        if (fd != (ngx_socket_t) -1) {
            (void) ngx_close_socket(fd);
        }

        ngx_tun_limited(tun, NGX_TUN_LIMIT_DESCRIPTORS);
        return NULL;
    }

    c = ngx_get_connection(fd, tun->log);

    if (c == NULL) {
        (void) ngx_close_socket(fd);
    }

    return c;
}


static ngx_int_t
ngx_tun_tcp_init_connection(ngx_connection_t *c, ngx_tun_tcp_t *tcp)
{
    ngx_log_t                 *log;
    ngx_pool_cleanup_t        *cln;
    ngx_tun_tcp_connection_t  *tc;

    c->pool = ngx_create_pool(c->listening->pool_size, tcp->tun->log);
    if (c->pool == NULL) {
        return NGX_ERROR;
    }

    tc = ngx_palloc(c->pool, sizeof(ngx_tun_tcp_connection_t));
    if (tc == NULL) {
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(c->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    ngx_tun_tcp_init_addresses(c, &tcp->flow.key, tc);

    log = &tc->log;

    *log = *tcp->tun->log;
    log->data = NULL;
    log->handler = NULL;

    c->log = log;
    c->pool->log = log;
    c->read->log = log;
    c->write->log = log;

    c->type = SOCK_STREAM;
    c->log_error = NGX_ERROR_INFO;

    c->recv = ngx_tun_tcp_recv;
    c->recv_chain = ngx_tun_tcp_recv_chain;
    c->send = ngx_tun_tcp_send;
    c->send_chain = ngx_tun_tcp_send_chain;

    /* nginx sets no options of c->fd, and never adds it to epoll */

    c->tcp_nodelay = NGX_TCP_NODELAY_DISABLED;
    c->tcp_nopush = NGX_TCP_NOPUSH_DISABLED;
    c->read->active = 1;
    c->write->active = 1;

    /* an empty last buffer reaches send_chain(): it is our FIN */
    c->need_last_buf = 1;

    c->write->ready = 1;
    c->read->ready = (tcp->lwip.readable != 0 || tcp->lwip.eof);

    cln->handler = ngx_tun_tcp_cleanup;
    cln->data = tcp;

    return NGX_OK;
}


static void
ngx_tun_tcp_init_addresses(ngx_connection_t *c, ngx_tun_flow_key_t *key,
    ngx_tun_tcp_connection_t *tc)
{
    c->sockaddr = &tc->src.sockaddr;
    c->socklen = ngx_tun_tcp_sockaddr(&tc->src, key->src, key->addr_len,
                                      key->src_port);

    c->local_sockaddr = &tc->dst.sockaddr;
    c->local_socklen = ngx_tun_tcp_sockaddr(&tc->dst, key->dst, key->addr_len,
                                            key->dst_port);

    c->addr_text.data = tc->text;
    c->addr_text.len = ngx_sock_ntop(c->sockaddr, c->socklen, tc->text,
                                     NGX_SOCKADDR_STRLEN, 0);
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


/* the connection is free already, and with it all but the flow */

static void
ngx_tun_tcp_cleanup(void *data)
{
    ngx_tun_tcp_t *tcp = data;

    if (tcp->finish) {
        tcp->shutdown = 1;
    }

    ngx_tun_tcp_end(tcp);
}


ngx_tun_conf_t *
ngx_tun_connection_conf(ngx_connection_t *c)
{
    return ngx_tun_tcp_get(c)->tun->conf;
}


void
ngx_tun_answer(ngx_connection_t *c)
{
    ngx_tun_tcp_pending_answer(ngx_tun_tcp_get(c));
}


void
ngx_tun_reset_after(ngx_connection_t *c)
{
    ngx_tun_tcp_get(c)->reset = 1;
}


void
ngx_tun_finish_after(ngx_connection_t *c)
{
    ngx_tun_tcp_get(c)->finish = 1;
}


ssize_t
ngx_tun_recv(ngx_connection_t *c, u_char *buf, size_t size)
{
    size_t          n;
    ngx_tun_tcp_t  *tcp;

    tcp = ngx_tun_tcp_get(c);

    n = ngx_tun_lwip_recv(&tcp->lwip, buf, size);

    if (n != 0) {
        ngx_tun_tcp_dirty(tcp);
        return n;
    }

    if (tcp->lwip.eof) {
        return 0;
    }

    return ngx_tun_tcp_dead(tcp) ? NGX_ERROR : NGX_AGAIN;
}


ssize_t
ngx_tun_send(ngx_connection_t *c, u_char *buf, size_t size)
{
    size_t          n;
    ngx_tun_tcp_t  *tcp;

    tcp = ngx_tun_tcp_get(c);

    if (ngx_tun_tcp_dead(tcp) || tcp->shutdown) {
        return NGX_ERROR;
    }

    /* who sends before it is asked to is there */
    ngx_tun_tcp_pending_answer(tcp);

    n = ngx_min(size, ngx_tun_tcp_space(tcp));
    n = ngx_tun_tx_append(&tcp->tx, buf, n);

    if (n == 0 && size != 0) {
        return NGX_AGAIN;
    }

    ngx_tun_tcp_push(tcp);
    ngx_tun_tcp_dirty(tcp);

    return n;
}


ssize_t
ngx_tun_send_last(ngx_connection_t *c, u_char *buf, size_t size)
{
    ngx_tun_tcp_t  *tcp;

    tcp = ngx_tun_tcp_get(c);

    if (ngx_tun_tcp_dead(tcp) || tcp->shutdown) {
        return NGX_ERROR;
    }

    if (tcp->reset) {
        return size;
    }

    if (ngx_tun_tx_append(&tcp->tx, buf, size) != size) {
        tcp->reset = 1;
        return NGX_ERROR;
    }

    ngx_tun_tcp_last(tcp);

    return size;
}


static void
ngx_tun_tcp_last(ngx_tun_tcp_t *tcp)
{
    tcp->shutdown = 1;

    ngx_tun_tcp_push(tcp);
    ngx_tun_tcp_dirty(tcp);
}


static ssize_t
ngx_tun_tcp_recv(ngx_connection_t *c, u_char *buf, size_t size)
{
    ssize_t         n;
    ngx_event_t    *rev;
    ngx_tun_tcp_t  *tcp;

    n = ngx_tun_recv(c, buf, size);

    rev = c->read;

    if (n > 0) {
        tcp = ngx_tun_tcp_get(c);

        if (tcp->lwip.readable == 0
            && !tcp->lwip.eof
            && !ngx_tun_tcp_dead(tcp))
        {
            rev->ready = 0;
        }

        return n;
    }

    rev->ready = 0;

    if (n == 0) {
        rev->eof = 1;
    }

    if (n == NGX_ERROR) {
        rev->error = 1;
        (void) ngx_connection_error(c, NGX_ECONNRESET, "recv() failed");
    }

    return n;
}


static ssize_t
ngx_tun_tcp_recv_chain(ngx_connection_t *c, ngx_chain_t *in, off_t limit)
{
    return ngx_tun_tcp_recv(c, in->buf->last, in->buf->end - in->buf->last);
}


static ssize_t
ngx_tun_tcp_send(ngx_connection_t *c, u_char *buf, size_t size)
{
    ssize_t  n;

    n = ngx_tun_send(c, buf, size);

    if (n == NGX_ERROR) {
        c->write->error = 1;
        (void) ngx_connection_error(c, NGX_ECONNRESET, "send() failed");
        return NGX_ERROR;
    }

    if (n < (ssize_t) size) {
        c->write->ready = 0;
    }

    if (n > 0) {
        c->sent += n;
    }

    return n;
}


static ngx_chain_t *
ngx_tun_tcp_send_chain(ngx_connection_t *c, ngx_chain_t *in, off_t limit)
{
    ssize_t     n;
    ngx_buf_t  *b;

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
            ngx_tun_tcp_last(ngx_tun_tcp_get(c));
        }
    }

    return NULL;
}


static ngx_uint_t
ngx_tun_tcp_dead(ngx_tun_tcp_t *tcp)
{
    return tcp->gone
           || (tcp->lwip.pcb == NULL && tcp->state != NGX_TUN_TCP_PENDING);
}
