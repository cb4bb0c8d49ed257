
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>
#include <ngx_tun_tcp.h>


/* that many bytes go out at once, fewer, and a rest, with the flush */
#define NGX_TUN_TCP_FLUSH  65536


#define ngx_tun_tcp_from_lwip(f)                                              \
    ((ngx_tun_tcp_t *) ((u_char *) (f) - offsetof(ngx_tun_tcp_t, lwip)))

/* a connection from an address and port to itself */

#define ngx_tun_tcp_is_land(key)                                              \
    ((key)->src_port == (key)->dst_port                                       \
     && ngx_memcmp((key)->src, (key)->dst, 16) == 0)


static ngx_uint_t ngx_tun_tcp_is_ours(ngx_tun_t *tun, ngx_tun_flow_key_t *key);
static void ngx_tun_tcp_input_unknown(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th, ngx_tun_flow_key_t *key, uint64_t hash);
static void ngx_tun_tcp_dropped(ngx_tun_tcp_t *tcp);
static void ngx_tun_tcp_input_syn(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th, ngx_tun_flow_key_t *key, uint64_t hash);
static ngx_int_t ngx_tun_tcp_half_open(ngx_tun_tcp_t *tcp,
    ngx_tun_packet_t *pkt, ngx_tun_packet_tcp_t *th);
static ngx_tun_tcp_t *ngx_tun_tcp_create(ngx_tun_t *tun,
    ngx_tun_flow_key_t *key, uint64_t hash);
static void ngx_tun_tcp_segment(ngx_tun_lwip_segment_t *seg,
    ngx_tun_packet_t *pkt, ngx_tun_packet_tcp_t *th, ngx_tun_lwip_buf_t *buf);

static void ngx_tun_tcp_update(ngx_tun_tcp_t *tcp);
static void ngx_tun_tcp_established(ngx_tun_tcp_t *tcp);
static void ngx_tun_tcp_finish(ngx_tun_tcp_t *tcp);
static void ngx_tun_tcp_disown(ngx_tun_tcp_t *tcp);
static void ngx_tun_tcp_remove(ngx_tun_tcp_t *tcp);
static void ngx_tun_tcp_free(ngx_tun_tcp_t *tcp);

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

    if (tcp != NULL
        && ngx_tun_tcp_is_syn(&th)
        && ngx_tun_lwip_reusable(&tcp->lwip, th.seq))
    {
        ngx_tun_lwip_abort(&tcp->lwip);
        tcp = NULL;
    }

    if (tcp == NULL) {

        if (ngx_tun_hand_over(tun, hash, ngx_tun_tcp_is_syn(&th)) != NGX_OK) {
            ngx_tun_tcp_input_unknown(tun, pkt, &th, &key, hash);
        }

        return NGX_OK;
    }

    if (tcp->lwip.pcb == NULL) {
        ngx_tun_tcp_pending_input(tcp, pkt, &th);
        return NGX_OK;
    }

    ngx_tun_tcp_segment(&seg, pkt, &th, buf);
    seg.full = ngx_tun_full(tun);

    kept = ngx_tun_lwip_input(&tcp->lwip, &seg);

    if (tcp->lwip.dropped) {
        ngx_tun_tcp_dropped(tcp);
    }

    ngx_tun_tcp_update(tcp);

    return kept ? NGX_DONE : NGX_OK;
}


static void
ngx_tun_tcp_input_unknown(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th, ngx_tun_flow_key_t *key, uint64_t hash)
{
    if (!ngx_tun_tcp_is_syn(th)) {

        if (ngx_tun_tcp_is_ours(tun, key)) {
            ngx_tun_returned(tun, key);
            return;
        }

        (void) ngx_atomic_fetch_add(&tun->stat->unknown, 1);
        ngx_tun_tcp_refuse(tun, pkt, th);

    } else if (!ngx_exiting || !tun->handed) {
        ngx_tun_tcp_input_syn(tun, pkt, th, key, hash);
    }

    /* else the sender did not see yet that we leave, the next SYN finds it */
}


/* a segment that we have sent must not be answered by a reset of its flow */

static ngx_uint_t
ngx_tun_tcp_is_ours(ngx_tun_t *tun, ngx_tun_flow_key_t *key)
{
    uint64_t            hash;
    ngx_tun_flow_key_t  sent;

    ngx_tun_flow_reverse(key, &sent);
    hash = ngx_tun_flow_hash(&tun->flows, &sent, 0);

    return ngx_tun_flow_lookup(&tun->flows, &sent, hash) != NULL
           || ngx_tun_owner_find(tun->owner, hash) != NGX_TUN_OWNER_NONE;
}


static void
ngx_tun_tcp_dropped(ngx_tun_tcp_t *tcp)
{
    tcp->lwip.dropped = 0;

    if (tcp->lwip.starved) {
        tcp->lwip.starved = 0;
        ngx_tun_limited(tcp->tun, NGX_TUN_LIMIT_MEMORY);
        return;
    }

    (void) ngx_atomic_fetch_add(&tcp->tun->stat->unacceptable, 1);
}


static void
ngx_tun_tcp_input_syn(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th, ngx_tun_flow_key_t *key, uint64_t hash)
{
    ngx_int_t          rc;
    ngx_tun_tcp_t     *tcp;
    ngx_tun_listen_t  *listen;

    if (ngx_tun_tcp_is_land(key) || ngx_tun_own_address(tun, key)) {
        (void) ngx_atomic_fetch_add(&tun->stat->invalid, 1);
        return;
    }

    listen = ngx_tun_find_listen(tun, key, SOCK_STREAM);

    if (listen == NULL || ngx_exiting) {
        (void) ngx_atomic_fetch_add(&tun->stat->refused, 1);
        ngx_tun_tcp_refuse(tun, pkt, th);
        return;
    }

    if (ngx_tun_looped(tun, key)) {
        ngx_tun_tcp_refuse(tun, pkt, th);
        return;
    }

    if (tun->max_flows != 0 && tun->flows.nflows >= tun->max_flows) {
        ngx_tun_limited(tun, NGX_TUN_LIMIT_FLOWS);
        ngx_tun_tcp_refuse(tun, pkt, th);
        return;
    }

    tcp = ngx_tun_tcp_create(tun, key, hash);
    if (tcp == NULL) {
        return;
    }

    tcp->listening = listen->ls[key->addr_len == 16];

    if (listen->early) {
        rc = ngx_tun_tcp_half_open(tcp, pkt, th);

    } else if (ngx_tun_limit_pend(&tun->limits, &tcp->claim, key, tun->log)
               == NGX_OK)
    {
        rc = ngx_tun_tcp_pending_open(tcp, pkt, th);

    } else {
        ngx_tun_limited(tun, NGX_TUN_LIMIT_PENDING);
        rc = ngx_tun_tcp_half_open(tcp, pkt, th);
    }

    if (rc != NGX_OK) {
        ngx_tun_tcp_free(tcp);
        ngx_tun_tcp_refuse(tun, pkt, th);
    }
}


/* answers first, and gives a session to who answers that */

static ngx_int_t
ngx_tun_tcp_half_open(ngx_tun_tcp_t *tcp, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th)
{
    ngx_int_t         rc;
    ngx_tun_t        *tun;
    ngx_tun_tcp_t    *oldest;
    ngx_tun_claim_t  *claim;

    tun = tcp->tun;

    rc = ngx_tun_limit_half_open(&tun->limits, &tcp->claim, &tcp->flow.key,
                                 tun->log);

    if (rc == NGX_BUSY) {
        ngx_tun_limited(tun, NGX_TUN_LIMIT_HALF_OPEN);

        claim = ngx_tun_limit_oldest(&tun->limits);
        oldest = (ngx_tun_tcp_t *) ((u_char *) claim
                                    - offsetof(ngx_tun_tcp_t, claim));

        ngx_tun_lwip_drop(&oldest->lwip);
        ngx_tun_tcp_free(oldest);

        rc = ngx_tun_limit_half_open(&tun->limits, &tcp->claim,
                                     &tcp->flow.key, tun->log);
    }

    if (rc != NGX_OK) {
        return NGX_DECLINED;
    }

    (void) ngx_atomic_fetch_add(&tun->stat->early, 1);

    return ngx_tun_tcp_open(tcp, pkt, th);
}


ngx_int_t
ngx_tun_tcp_input_too_big(ngx_tun_t *tun, ngx_tun_packet_t *pkt)
{
    uint64_t                   hash;
    ngx_tun_tcp_t             *tcp;
    ngx_tun_packet_t           client;
    ngx_tun_flow_key_t         key;
    ngx_tun_packet_too_big_t   big;

    if (ngx_tun_packet_parse_too_big(pkt, &big) != NGX_TUN_PACKET_OK) {
        return NGX_DECLINED;
    }

    if (big.protocol == IPPROTO_UDP) {
        return ngx_tun_udp_input_too_big(tun, pkt, &big);
    }

    /* the packet in question was ours, the flow is the client's */

    client.src = big.dst;
    client.dst = big.src;
    client.addr_len = pkt->addr_len;
    client.protocol = IPPROTO_TCP;

    ngx_tun_flow_key(&key, &client, big.dst_port, big.src_port);
    hash = ngx_tun_flow_hash(&tun->flows, &key, 0);

    tcp = (ngx_tun_tcp_t *) ngx_tun_flow_lookup(&tun->flows, &key, hash);

    if (tcp == NULL) {
        return ngx_tun_hand_over(tun, hash, 0);
    }

    return (ngx_tun_lwip_shrink(&tcp->lwip, big.seq, (uint16_t) big.mss) == 0)
           ? NGX_OK : NGX_DECLINED;
}


static ngx_tun_tcp_t *
ngx_tun_tcp_create(ngx_tun_t *tun, ngx_tun_flow_key_t *key, uint64_t hash)
{
    ngx_tun_tcp_t  *tcp;

    tcp = ngx_calloc(sizeof(ngx_tun_tcp_t), tun->log);
    if (tcp == NULL) {
        return NULL;
    }

    tcp->tun = tun;
    tcp->tx.pool = &tun->tx_pool;
    tcp->flow.key = *key;
    tcp->flow.hash = hash;

    ngx_tun_flow_insert(&tun->flows, &tcp->flow);
    ngx_tun_owner_insert(tun->owner, hash);
    tcp->inserted = 1;

    ngx_tun_gauge_add(tun, active, 1);

    return tcp;
}


ngx_int_t
ngx_tun_tcp_open(ngx_tun_tcp_t *tcp, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th)
{
    uint32_t                 isn;
    ngx_tun_t               *tun;
    ngx_tun_lwip_segment_t   seg;

    tun = tcp->tun;

    /* RFC 6528: a keyed hash of the tuple, and a clock of 4 us */

    isn = (uint32_t) ngx_tun_flow_hash(&tun->flows, &tcp->flow.key, 1)
          + (uint32_t) ngx_current_msec * 250;

    ngx_tun_tcp_segment(&seg, pkt, th, NULL);

    if (ngx_tun_lwip_open(tun->lwip, &tcp->lwip, &seg, isn) != 0) {
        return NGX_ERROR;
    }

    tcp->state = NGX_TUN_TCP_OPENED;

    ngx_tun_tcp_dirty(tcp);

    return NGX_OK;
}


void
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
    ngx_tun_packet_tcp_t *th, ngx_tun_lwip_buf_t *buf)
{
    seg->src = pkt->src;
    seg->dst = pkt->dst;
    seg->addr_len = (uint32_t) pkt->addr_len;
    seg->ip = pkt->start;
    seg->tcp = pkt->payload;
    seg->len = (uint32_t) (pkt->end - pkt->payload);

    seg->seq = th->seq;
    seg->ack = th->ack;
    seg->data_len = (uint32_t) (pkt->end - th->data);
    seg->mss = th->mss;
    seg->flags = th->flags;

    seg->full = 0;
    seg->now = (uint32_t) ngx_current_msec;
    seg->buf = buf;
}


/* what happened to a flow inside lwIP, seen from outside */

static void
ngx_tun_tcp_update(ngx_tun_tcp_t *tcp)
{
    ngx_connection_t     *c;
    ngx_tun_lwip_flow_t  *flow;

    flow = &tcp->lwip;

    ngx_tun_tcp_dirty(tcp);

    if (flow->established && tcp->claim.source != NULL) {
        /* its session may have ended before */
        ngx_tun_limit_release(&tcp->tun->limits, &tcp->claim);
    }

    if (tcp->state == NGX_TUN_TCP_OPENED && flow->established) {
        ngx_tun_tcp_established(tcp);
    }

    if (flow->acked != 0 || tcp->state == NGX_TUN_TCP_CLOSING) {
        ngx_tun_tx_acked(&tcp->tx, flow->acked);
        flow->acked = 0;

        ngx_tun_tcp_push(tcp);
    }

    c = tcp->connection;

    if (c == NULL) {
        return;
    }

    if ((flow->eof && !tcp->eof) || (flow->readable != 0 && !c->read->ready)) {
        tcp->eof = flow->eof;
        ngx_tun_tcp_wake(c->read);
    }

    if (!c->write->ready && ngx_tun_tcp_space(tcp) >= NGX_TUN_TCP_TX_MIN / 2)
    {
        ngx_tun_tcp_wake(c->write);
    }
}


static void
ngx_tun_tcp_established(ngx_tun_tcp_t *tcp)
{
    ngx_connection_t  *c;

    tcp->state = NGX_TUN_TCP_ESTABLISHED;

    if (tcp->connection != NULL) {
        ngx_tun_tcp_push(tcp);
        return;
    }

    c = ngx_tun_tcp_connection(tcp);

    if (c == NULL) {
        ngx_tun_lwip_abort(&tcp->lwip);
        return;
    }

    (void) ngx_atomic_fetch_add(&tcp->tun->stat->flows, 1);

    c->listening->handler(c);
}


void
ngx_tun_tcp_wake(ngx_event_t *ev)
{
    ev->ready = 1;
    ngx_post_event(ev, &ngx_posted_events);
}


void
ngx_tun_tcp_push(ngx_tun_tcp_t *tcp)
{
    u_char  *p;
    size_t   n, size;

    if (tcp->lwip.pcb == NULL || !tcp->lwip.established) {
        return;
    }

    for ( ;; ) {
        size = ngx_tun_tx_next(&tcp->tx, &p);
        if (size == 0) {
            break;
        }

        n = ngx_tun_lwip_send(&tcp->lwip, p, size);

        ngx_tun_tx_given(&tcp->tx, n);
        tcp->unflushed += n;

        if (n != size) {
            break;
        }
    }

    if (tcp->unflushed >= NGX_TUN_TCP_FLUSH) {
        ngx_tun_lwip_flush_full(&tcp->lwip);
        tcp->unflushed = 0;
    }

    if (size == 0) {
        ngx_tun_tcp_finish(tcp);
    }
}


/* all bytes are given: is there an end to give? */

static void
ngx_tun_tcp_finish(ngx_tun_tcp_t *tcp)
{
    if (tcp->state != NGX_TUN_TCP_CLOSING && !tcp->shutdown) {
        return;
    }

    if (tcp->reset) {

        /* not before the client has all that was sent */

        if (tcp->tx.len == 0) {
            ngx_tun_lwip_abort(&tcp->lwip);
        }

        return;
    }

    if (tcp->state == NGX_TUN_TCP_CLOSING) {
        ngx_tun_lwip_close(&tcp->lwip);

    } else {
        ngx_tun_lwip_shutdown(&tcp->lwip);
    }
}


size_t
ngx_tun_tcp_space(ngx_tun_tcp_t *tcp)
{
    size_t  limit;

    /* without memory one chunk after the other */

    if (tcp->tx.len != 0 && ngx_tun_full(tcp->tun)) {
        return 0;
    }

    limit = 2 * ngx_tun_lwip_cwnd(&tcp->lwip);

    limit = ngx_min(limit, NGX_TUN_TCP_TX_MAX);
    limit = ngx_max(limit, NGX_TUN_TCP_TX_MIN);

    return (limit > tcp->tx.len) ? limit - tcp->tx.len : 0;
}


void
ngx_tun_tcp_end(ngx_tun_tcp_t *tcp)
{
    ngx_tun_tcp_dirty(tcp);

    tcp->connection = NULL;

    switch (tcp->state) {

    case NGX_TUN_TCP_PENDING:

        if (!tcp->gone && tcp->syn != NULL) {
            ngx_tun_tcp_pending_refuse(tcp);
        }

        ngx_tun_tcp_remove(tcp);
        break;

    case NGX_TUN_TCP_OPENED:

        if (!tcp->shutdown) {
            ngx_tun_lwip_abort(&tcp->lwip);
            break;
        }

        /* a server that has said all before the client's ACK came */
        /* fall through */

    default:

        /*
         * An end that the upstream did not make is not an orderly one, but
         * where the client itself has ended.
         */

        if (!tcp->shutdown && !tcp->lwip.eof) {
            tcp->reset = 1;
        }

        tcp->state = NGX_TUN_TCP_CLOSING;
        ngx_tun_tcp_push(tcp);
    }
}


void
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


void
ngx_tun_tcp_flush(ngx_queue_t *q)
{
    ngx_tun_tcp_t  *tcp;

    tcp = ngx_queue_data(q, ngx_tun_tcp_t, queue);

    ngx_queue_remove(q);
    tcp->dirty = 0;

    if (tcp->lwip.pcb != NULL) {
        ngx_tun_lwip_flush(&tcp->lwip);
        tcp->unflushed = 0;

        if (tcp->tun->retired) {
            ngx_tun_tcp_disown(tcp);
        }

    } else if (tcp->connection == NULL) {
        ngx_tun_tcp_free(tcp);
    }
}


static void
ngx_tun_tcp_disown(ngx_tun_tcp_t *tcp)
{
    if (tcp->lwip.time_wait) {
        ngx_tun_owner_delete(tcp->tun->owner, tcp->flow.hash);
    }
}


void
ngx_tun_tcp_retire(ngx_tun_t *tun)
{
    ngx_uint_t       i;
    ngx_tun_flow_t  *flow;

    for (i = 0; i < tun->flows.nbuckets; i++) {
        for (flow = tun->flows.buckets[i]; flow != NULL; flow = flow->next) {
            ngx_tun_tcp_disown((ngx_tun_tcp_t *) flow);
        }
    }
}


void
ngx_tun_tcp_abort(ngx_tun_flow_t *flow)
{
    ngx_tun_tcp_t  *tcp;

    tcp = (ngx_tun_tcp_t *) flow;

    if (tcp->lwip.pcb != NULL) {
        ngx_tun_lwip_abort(&tcp->lwip);
    }
}


void
ngx_tun_tcp_reset(ngx_tun_flow_t *flow)
{
    ngx_tun_tcp_t *tcp = (ngx_tun_tcp_t *) flow;

    if (tcp->state == NGX_TUN_TCP_PENDING && tcp->connection != NULL) {
        ngx_tun_tcp_pending_refuse(tcp);
    }

    ngx_tun_tcp_free(tcp);
}


static void
ngx_tun_tcp_remove(ngx_tun_tcp_t *tcp)
{
    ngx_tun_limit_release(&tcp->tun->limits, &tcp->claim);

    if (tcp->inserted) {
        tcp->inserted = 0;
        ngx_tun_flow_delete(&tcp->tun->flows, &tcp->flow);
        ngx_tun_owner_delete(tcp->tun->owner, tcp->flow.hash);

        ngx_tun_gauge_add(tcp->tun, active, -1);
    }
}


static void
ngx_tun_tcp_free(ngx_tun_tcp_t *tcp)
{
    ngx_tun_lwip_abort(&tcp->lwip);
    ngx_tun_tx_free(&tcp->tx);

    ngx_tun_tcp_remove(tcp);

    if (tcp->dirty) {
        ngx_queue_remove(&tcp->queue);
    }

    ngx_free(tcp);
}


static int
ngx_tun_tcp_output(ngx_tun_lwip_flow_t *flow, struct iovec *iov, unsigned n,
    size_t len)
{
    size_t          mss;
    ngx_int_t       rc;
    ngx_tun_tcp_t  *tcp;

    tcp = ngx_tun_tcp_from_lwip(flow);

    ngx_tun_packet_finish_tcp(iov[1].iov_base, len);

    /* before it is established it sends no data */
    mss = flow->established ? flow->mss : len;

    rc = ngx_tun_queue_write_tcp(&tcp->tun->queue, iov, n, len, mss);

    return (rc == NGX_OK) ? 0 : -1;
}


static void
ngx_tun_tcp_closed(ngx_tun_lwip_flow_t *flow)
{
    ngx_connection_t  *c;
    ngx_tun_tcp_t     *tcp;

    tcp = ngx_tun_tcp_from_lwip(flow);

    ngx_tun_tcp_remove(tcp);
    ngx_tun_tx_free(&tcp->tx);
    ngx_tun_tcp_dirty(tcp);

    c = tcp->connection;

    if (c == NULL) {
        return;
    }

    ngx_tun_tcp_wake(c->read);

    if (!c->write->ready) {
        ngx_tun_tcp_wake(c->write);
    }
}
