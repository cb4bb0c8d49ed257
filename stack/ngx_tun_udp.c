
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>
#include <ngx_tun_connection.h>
#include <ngx_tun_icmp.h>
#include <ngx_tun_udp.h>


/* with fewer free ones a flow gives way */
#define NGX_TUN_UDP_CONNECTIONS  32


static ngx_int_t ngx_tun_udp_datagram(ngx_tun_t *tun, ngx_tun_flow_key_t *key,
    u_char *data, size_t len);
static ngx_tun_udp_t *ngx_tun_udp_lookup(ngx_tun_t *tun,
    ngx_tun_flow_key_t *key);
static ngx_int_t ngx_tun_udp_hand_over(ngx_tun_t *tun,
    ngx_tun_flow_key_t *key, ngx_uint_t opens);
static ngx_int_t ngx_tun_udp_relay(ngx_tun_t *tun, ngx_tun_listen_t *listen,
    ngx_tun_flow_key_t *key, u_char *data, size_t len);
static ngx_int_t ngx_tun_udp_open(ngx_tun_t *tun, ngx_tun_listen_t *listen,
    ngx_tun_flow_key_t *key, ngx_tun_flow_key_t *target, u_char *data,
    size_t len);
static ngx_int_t ngx_tun_udp_claim(ngx_tun_t *tun, ngx_tun_claim_t *claim,
    ngx_tun_flow_key_t *key);
static void ngx_tun_udp_deliver(ngx_tun_udp_t *udp, ngx_tun_flow_key_t *target,
    u_char *data, size_t len);
static void ngx_tun_udp_wait(ngx_tun_udp_t *udp, u_char *data, size_t len);


ngx_int_t
ngx_tun_udp_init(ngx_tun_t *tun)
{
    ngx_queue_init(&tun->udp.ended);
    ngx_queue_init(&tun->udp.held);

    tun->udp.tick.data = tun->connection;
    tun->udp.tick.log = tun->log;
    tun->udp.tick.handler = ngx_tun_udp_tick_handler;
    tun->udp.tick.cancelable = 1;

    tun->udp.id = (uint16_t) tun->flows.secret[0];

    tun->udp.batch.data = ngx_alloc(NGX_TUN_UDP_BATCH, tun->log);
    tun->udp.gone = ngx_calloc(NGX_TUN_UDP_GONE * sizeof(ngx_tun_udp_gone_t),
                               tun->log);

    if (tun->udp.batch.data == NULL || tun->udp.gone == NULL) {
        return NGX_ERROR;
    }

    if (ngx_tun_flow_table_init(&tun->udp.flows, tun->log) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_tun_flow_table_share(&tun->udp.flows, tun->owner->shared->secret);

    return NGX_OK;
}


void
ngx_tun_udp_done(ngx_tun_t *tun)
{
    if (tun->udp.flows.buckets == NULL) {
        return;
    }

    ngx_tun_udp_release_held(tun, 0);

    if (tun->udp.tick.timer_set) {
        ngx_del_timer(&tun->udp.tick);
    }

    ngx_free(tun->udp.batch.data);
    ngx_free(tun->udp.gone);

    ngx_tun_flow_table_done(&tun->udp.flows);
}


void
ngx_tun_udp_input(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_queue_info_t *info)
{
    u_char                *p;
    size_t                 len, size;
    ngx_tun_flow_key_t     key;
    ngx_tun_packet_udp_t   uh;

    if (ngx_tun_packet_parse_udp(pkt, &uh) != NGX_TUN_PACKET_OK
        || uh.src_port == 0
        || uh.dst_port == 0)
    {
        (void) ngx_atomic_fetch_add(&tun->stat->invalid, 1);
        return;
    }

    if (!info->trusted
        && ngx_tun_packet_check_udp(pkt, &uh) != NGX_TUN_PACKET_OK)
    {
        (void) ngx_atomic_fetch_add(&tun->stat->checksum, 1);
        return;
    }

    ngx_tun_flow_key(&key, pkt, uh.src_port, uh.dst_port);

    p = uh.data;
    len = uh.end - p;
    size = info->datagram ? info->datagram : len;

    do {
        size = ngx_min(size, len);

        if (ngx_tun_udp_datagram(tun, &key, p, size) == NGX_DONE) {
            return;
        }

        p += size;
        len -= size;

    } while (len != 0);
}


/* NGX_OK, or NGX_DONE: all of the packet went to another worker */

static ngx_int_t
ngx_tun_udp_datagram(ngx_tun_t *tun, ngx_tun_flow_key_t *key, u_char *data,
    size_t len)
{
    ngx_tun_udp_t     *udp;
    ngx_tun_listen_t  *listen;

    (void) ngx_atomic_fetch_add(&tun->stat->datagrams_in, 1);

    udp = ngx_tun_udp_lookup(tun, key);

    if (udp != NULL) {

        /* the proxy module ends a session that is used in an exiting worker */

        if (ngx_exiting
            && tun->udp.leaving
            && ngx_tun_udp_hand_over(tun, key, 1) == NGX_OK)
        {
            return NGX_DONE;
        }

        ngx_tun_udp_deliver(udp, key, data, len);
        return NGX_OK;
    }

    if (ngx_tun_own_address(tun, key)) {
        (void) ngx_atomic_fetch_add(&tun->stat->invalid, 1);
        return NGX_OK;
    }

    if (ngx_tun_udp_is_answer(tun, key)) {
        ngx_tun_returned(tun, key);
        return NGX_OK;
    }

    listen = ngx_tun_find_listen(tun, key, SOCK_DGRAM);

    if (listen == NULL) {
        (void) ngx_atomic_fetch_add(&tun->stat->refused, 1);
        ngx_tun_icmp_error(tun, NGX_TUN_ICMP_PORT_UNREACHABLE, key, len);
        return NGX_OK;
    }

    if (ngx_tun_looped(tun, key)) {
        ngx_tun_icmp_looped(tun, key, len);
        return NGX_OK;
    }

    return listen->relay
           ? ngx_tun_udp_relay(tun, listen, key, data, len)
           : ngx_tun_udp_open(tun, listen, key, key, data, len);
}


static ngx_int_t
ngx_tun_udp_hand_over(ngx_tun_t *tun, ngx_tun_flow_key_t *key,
    ngx_uint_t opens)
{
    return ngx_tun_hand_over(tun, ngx_tun_flow_hash(&tun->udp.flows, key, 0),
                             opens);
}


static ngx_tun_udp_t *
ngx_tun_udp_lookup(ngx_tun_t *tun, ngx_tun_flow_key_t *key)
{
    uint64_t        hash;
    ngx_tun_udp_t  *udp;

    hash = ngx_tun_flow_hash(&tun->udp.flows, key, 0);

    udp = (ngx_tun_udp_t *) ngx_tun_flow_lookup(&tun->udp.flows, key, hash);

    if (udp != NULL && udp->connection->udp == NULL) {
        ngx_tun_udp_detach(udp);
        return NULL;
    }

    return udp;
}


/* one flow for all destinations of a source: RFC 4787, 4.1 */

static ngx_int_t
ngx_tun_udp_relay(ngx_tun_t *tun, ngx_tun_listen_t *listen,
    ngx_tun_flow_key_t *key, u_char *data, size_t len)
{
    ngx_tun_udp_t       *udp;
    ngx_tun_flow_key_t   source;

    source = *key;
    ngx_tun_udp_source_key(&source);

    udp = ngx_tun_udp_lookup(tun, &source);

    if (udp == NULL) {
        return ngx_tun_udp_open(tun, listen, &source, key, data, len);
    }

    ngx_tun_udp_deliver(udp, key, data, len);

    return NGX_OK;
}


void
ngx_tun_udp_source_key(ngx_tun_flow_key_t *key)
{
    key->dst_port = 0;
    ngx_memzero(key->dst, 16);
}


static ngx_int_t
ngx_tun_udp_open(ngx_tun_t *tun, ngx_tun_listen_t *listen,
    ngx_tun_flow_key_t *key, ngx_tun_flow_key_t *target, u_char *data,
    size_t len)
{
    ngx_tun_udp_t     *udp;
    ngx_tun_claim_t    claim;
    ngx_connection_t  *c;

    if (ngx_tun_udp_hand_over(tun, key, 1) == NGX_OK) {
        return NGX_DONE;
    }

    ngx_memzero(&claim, sizeof(ngx_tun_claim_t));

    if (ngx_tun_udp_claim(tun, &claim, key) != NGX_OK) {
        ngx_tun_limited(tun, NGX_TUN_LIMIT_UDP_FLOWS);
        return NGX_OK;
    }

    udp = ngx_tun_udp_create(tun, listen->ls[key->addr_len == 16], target,
                             data, len);
    if (udp == NULL) {
        ngx_tun_limit_release(&tun->limits, &claim);
        return NGX_OK;
    }

    ngx_tun_limit_move(&udp->claim, &claim);

    udp->relay = listen->relay;
    udp->asked = *target;
    udp->flow.key = *key;
    udp->flow.hash = ngx_tun_flow_hash(&tun->udp.flows, key, 0);

    ngx_tun_flow_insert(&tun->udp.flows, &udp->flow);
    ngx_tun_owner_insert(tun->owner, udp->flow.hash);
    udp->inserted = 1;

    udp->requests = 1;
    udp->last_len = len;

    tun->udp.sessions++;
    tun->udp.opened++;

    /* handed over by one that leaves to this one, which did */

    if (!ngx_exiting) {
        tun->udp.leaving = 0;
    }

    if (!tun->udp.tick.timer_set) {
        ngx_add_timer(&tun->udp.tick, NGX_TUN_UDP_TICK);
    }

    (void) ngx_atomic_fetch_add(&tun->stat->udp_flows, 1);
    ngx_tun_gauge_add(tun, udp_active, 1);

    c = udp->connection;

    c->listening->handler(c);

    return NGX_OK;
}


static ngx_int_t
ngx_tun_udp_claim(ngx_tun_t *tun, ngx_tun_claim_t *claim,
    ngx_tun_flow_key_t *key)
{
    ngx_int_t         rc;
    ngx_queue_t      *q;
    ngx_tun_claim_t  *oldest;

    if (ngx_cycle->free_connection_n < NGX_TUN_UDP_CONNECTIONS
        && !ngx_queue_empty(&tun->limits.udp))
    {
        q = ngx_queue_head(&tun->limits.udp);
        (void) ngx_tun_udp_make_room(tun, ngx_queue_data(q, ngx_tun_claim_t,
                                                         all));
    }

    rc = ngx_tun_limit_udp(&tun->limits, claim, key, &oldest, tun->log);

    if (rc == NGX_BUSY && ngx_tun_udp_make_room(tun, oldest) == NGX_OK) {
        rc = ngx_tun_limit_udp(&tun->limits, claim, key, &oldest, tun->log);
    }

    return rc;
}


ngx_int_t
ngx_tun_udp_input_too_big(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_packet_too_big_t *big)
{
    ngx_tun_udp_t       *udp;
    ngx_tun_packet_t     client;
    ngx_tun_flow_key_t   key;

    client.src = big->dst;
    client.dst = big->src;
    client.addr_len = pkt->addr_len;
    client.protocol = IPPROTO_UDP;

    ngx_tun_flow_key(&key, &client, big->dst_port, big->src_port);

    udp = ngx_tun_udp_lookup(tun, &key);

    if (udp == NULL) {

        if (ngx_tun_udp_hand_over(tun, &key, 0) == NGX_OK) {
            return NGX_OK;
        }

        ngx_tun_udp_source_key(&key);
        udp = ngx_tun_udp_lookup(tun, &key);
    }

    if (udp == NULL) {
        return ngx_tun_udp_hand_over(tun, &key, 0);
    }

    udp->narrow = 1;

    return NGX_OK;
}


static void
ngx_tun_udp_deliver(ngx_tun_udp_t *udp, ngx_tun_flow_key_t *target,
    u_char *data, size_t len)
{
    ngx_tun_t    *tun;
    ngx_event_t  *rev;

    tun = udp->tun;

    ngx_tun_udp_used(udp);

    udp->requests++;
    udp->last_len = len;
    udp->target = target;

    if (udp->waiting_n != 0) {
        ngx_tun_udp_wait(udp, data, len);

    } else {
        udp->data = data;
        udp->len = len;
    }

    tun->udp.current = udp;

    rev = udp->connection->read;
    rev->ready = 1;

    rev->handler(rev);

    /* it is NULL when the session has ended */

    if (tun->udp.current != NULL && udp->data != NULL) {
        udp->data = NULL;
        ngx_tun_udp_wait(udp, data, len);
    }

    tun->udp.current = NULL;
}


static void
ngx_tun_udp_wait(ngx_tun_udp_t *udp, u_char *data, size_t len)
{
    ngx_tun_udp_waiting_t  *waiting;

    if (udp->relay
        || udp->waiting_n == NGX_TUN_UDP_WAITING
        || udp->waiting_bytes + len > NGX_TUN_UDP_WAITING_BYTES
        || ngx_tun_full(udp->tun))
    {
        goto failed;
    }

    waiting = ngx_alloc(sizeof(ngx_tun_udp_waiting_t) + len, udp->tun->log);
    if (waiting == NULL) {
        goto failed;
    }

    waiting->len = len;
    ngx_memcpy(waiting->data, data, len);

    ngx_queue_insert_tail(&udp->waiting, &waiting->queue);

    udp->waiting_n++;
    udp->waiting_bytes += len;
    udp->tun->udp.memory += len;

    return;

failed:

    udp->requests--;

    (void) ngx_atomic_fetch_add(&udp->tun->stat->udp_dropped, 1);
}


void
ngx_tun_udp_used(ngx_tun_udp_t *udp)
{
    udp->used = ngx_current_msec;

    if (udp->claim.udp) {
        ngx_tun_limit_udp_used(&udp->tun->limits, &udp->claim);
    }
}


void
ngx_tun_udp_end_later(ngx_tun_udp_t *udp)
{
    if (!udp->in_end) {
        udp->in_end = 1;
        ngx_queue_insert_tail(&udp->tun->udp.ended, &udp->ended);

        ngx_tun_post_flush(udp->tun);
    }
}


void
ngx_tun_udp_flush(ngx_tun_t *tun)
{
    ngx_queue_t    *q;
    ngx_tun_udp_t  *udp;

    while (!ngx_queue_empty(&tun->udp.ended)) {
        q = ngx_queue_head(&tun->udp.ended);
        udp = ngx_queue_data(q, ngx_tun_udp_t, ended);

        ngx_queue_remove(q);
        udp->in_end = 0;

        /* the client may have asked again */

        if (!ngx_tun_udp_outstanding(udp)) {
            ngx_tun_udp_end(udp);
        }
    }

    ngx_tun_udp_write_batch(tun);
}


void
ngx_tun_udp_detach(ngx_tun_udp_t *udp)
{
    if (udp->inserted) {
        udp->inserted = 0;
        ngx_tun_udp_gone(udp);
        ngx_tun_flow_delete(&udp->tun->udp.flows, &udp->flow);
        ngx_tun_owner_delete(udp->tun->owner, udp->flow.hash);
    }
}


void
ngx_tun_refuse(ngx_connection_t *c, ngx_tun_icmp_error_e reason)
{
    ngx_tun_udp_t  *udp;

    if (c->type != SOCK_DGRAM) {
        return;
    }

    udp = ngx_tun_connection_flow(c);

    ngx_tun_icmp_error(udp->tun, reason, &udp->asked, udp->last_len);
}


void
ngx_tun_refuse_datagram(ngx_connection_t *c, ngx_tun_datagram_t *datagram,
    ngx_tun_icmp_error_e reason)
{
    ngx_tun_udp_t       *udp;
    ngx_tun_flow_key_t   key;

    udp = ngx_tun_connection_flow(c);

    key = udp->flow.key;
    key.dst_port = datagram->port;
    ngx_memcpy(key.dst, datagram->addr, 16);

    ngx_tun_icmp_error(udp->tun, reason, &key, datagram->len);
}


void
ngx_tun_oversized(ngx_connection_t *c)
{
    ngx_tun_udp_t  *udp;

    udp = ngx_tun_connection_flow(c);

    (void) ngx_atomic_fetch_add(&udp->tun->stat->udp_oversized, 1);
}


void
ngx_tun_dropped(ngx_connection_t *c)
{
    ngx_tun_udp_t  *udp;

    udp = ngx_tun_connection_flow(c);

    (void) ngx_atomic_fetch_add(&udp->tun->stat->udp_dropped, 1);
}
