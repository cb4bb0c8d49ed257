
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_rewrite.h>
#include <ngx_tun_system.h>

#include <poll.h>


#define NGX_TUN_SYSTEM_SWEEP   1000      /* ms */

/* the last packets of a worker: how long it waits for one, and for how many */
#define NGX_TUN_SYSTEM_LINGER  20        /* ms */
#define NGX_TUN_SYSTEM_LAST    65536


/* what a reset costs of a source's second, ms */
#define NGX_TUN_SYSTEM_SECOND  1000
#define NGX_TUN_SYSTEM_RESET   5

#define NGX_TUN_SYSTEM_DOMAIN  3         /* of the tuples' hash */


/* a packet that is looked at */

typedef struct {
    ngx_tun_packet_t         *pkt;
    ngx_tun_system_conf_t    *conf;
    ngx_tun_nat_t            *nat;
    ngx_tun_packet_tcp_t      th;
} ngx_tun_system_packet_t;


static ngx_int_t ngx_tun_system_input_tcp(ngx_tun_t *tun,
    ngx_tun_system_packet_t *sp, ngx_tun_rewrite_t *to,
    ngx_tun_nat_entry_t *entry);
static ngx_int_t ngx_tun_system_from_client(ngx_tun_t *tun,
    ngx_tun_system_packet_t *sp, ngx_tun_nat_entry_t *entry);
static ngx_int_t ngx_tun_system_syn(ngx_tun_t *tun,
    ngx_tun_system_packet_t *sp, ngx_tun_flow_key_t *key,
    ngx_tun_nat_entry_t *entry);
static ngx_int_t ngx_tun_system_input_error(ngx_tun_t *tun,
    ngx_tun_system_packet_t *sp);
static void ngx_tun_system_to_client(ngx_tun_rewrite_t *to,
    ngx_tun_nat_entry_t *entry, ngx_uint_t back);
static void ngx_tun_system_to_listener(ngx_tun_rewrite_t *to,
    ngx_tun_system_conf_t *conf, ngx_tun_nat_entry_t *entry, ngx_uint_t back);
static ngx_uint_t ngx_tun_system_limited(ngx_tun_t *tun,
    ngx_tun_system_packet_t *sp);
static void ngx_tun_system_refuse(ngx_tun_t *tun, ngx_tun_system_packet_t *sp);
static void ngx_tun_system_evict(ngx_tun_t *tun, ngx_tun_system_packet_t *sp,
    ngx_tun_nat_entry_t *entry);
static ngx_int_t ngx_tun_system_last(ngx_tun_t *tun);
static void ngx_tun_system_sweep_handler(ngx_event_t *ev);


void
ngx_tun_system_init(ngx_tun_system_t *sys, ngx_tun_conf_t *conf,
    ngx_tun_stat_t *stat)
{
    ngx_uint_t  i;

    ngx_memzero(sys, sizeof(ngx_tun_system_t));

    sys->conf = conf;
    sys->stat = stat;

    ngx_queue_init(&sys->connections);

    for (i = 0; i < 2; i++) {
        if (conf->system[i].port != 0) {
            ngx_tun_nat_attach(&sys->nat[i], conf->system[i].memory);
        }
    }
}


void
ngx_tun_system_open(ngx_tun_t *tun)
{
    tun->sweep.data = tun->connection;
    tun->sweep.log = tun->log;
    tun->sweep.handler = ngx_tun_system_sweep_handler;
    tun->sweep.cancelable = 1;

    ngx_add_timer(&tun->sweep, NGX_TUN_SYSTEM_SWEEP);
}


void
ngx_tun_system_close(ngx_tun_t *tun)
{
    ngx_uint_t     packets;
    struct pollfd  pfd;

    if (tun->sweep.timer_set) {
        ngx_del_timer(&tun->sweep);
    }

    if (tun->system == NULL
        || tun->state->generation != tun->own_generation
        || ngx_tun_owner_next(tun->owner, tun->own_cycle)
           != NGX_TUN_OWNER_NONE
        || tun->buf == NULL)
    {
        return;
    }

    /* resets of connections that were closed with their worker */

    pfd.fd = tun->queue.fd;
    pfd.events = POLLIN;

    for (packets = 0; packets < NGX_TUN_SYSTEM_LAST; packets++) {

        if (poll(&pfd, 1, NGX_TUN_SYSTEM_LINGER) != 1
            || ngx_tun_system_last(tun) != NGX_OK)
        {
            break;
        }
    }
}


static ngx_int_t
ngx_tun_system_last(ngx_tun_t *tun)
{
    u_char                *p;
    ssize_t                n;
    ngx_tun_packet_t       pkt;
    ngx_tun_queue_info_t   info;

    n = ngx_tun_queue_read(&tun->queue, tun->buf->data, 65535, &info);

    if (n < 0) {
        return n;
    }

    p = tun->buf->data + NGX_TUN_QUEUE_HEAD;

    if (ngx_tun_packet_parse(&pkt, p, p + n) == NGX_TUN_PACKET_OK) {
        (void) ngx_tun_system_input(tun, &pkt, tun->buf->data, n,
                                    info.trusted);
    }

    return NGX_OK;
}


static void
ngx_tun_system_sweep_handler(ngx_event_t *ev)
{
    ngx_tun_t         *tun;
    ngx_uint_t         i;
    ngx_connection_t  *c;

    c = ev->data;
    tun = c->data;

    for (i = 0; i < 2; i++) {
        if (tun->conf->system[i].port != 0) {
            ngx_tun_nat_sweep(&tun->system->nat[i], ngx_tun_system_now());
        }
    }

    ngx_add_timer(ev, NGX_TUN_SYSTEM_SWEEP);
}


ngx_int_t
ngx_tun_system_input(ngx_tun_t *tun, ngx_tun_packet_t *pkt, u_char *buf,
    size_t len, ngx_uint_t trusted)
{
    ngx_uint_t                family;
    ngx_tun_rewrite_t         to;
    ngx_tun_nat_entry_t       entry;
    ngx_tun_system_packet_t   sp;

    family = (pkt->addr_len == 16);

    sp.pkt = pkt;
    sp.conf = &tun->conf->system[family];
    sp.nat = &tun->system->nat[family];

    if (pkt->fragment) {
        return NGX_DECLINED;
    }

    if (pkt->protocol != IPPROTO_TCP) {

        if (ngx_tun_system_input_error(tun, &sp) != NGX_OK) {
            return NGX_DECLINED;
        }

        (void) ngx_tun_queue_forward(&tun->queue, buf, len);

        return NGX_OK;
    }

    if (ngx_tun_packet_parse_tcp(pkt, &sp.th) != NGX_TUN_PACKET_OK) {
        (void) ngx_atomic_fetch_add(&tun->stat->invalid, 1);
        return NGX_OK;
    }

    /* what goes on is checked by the kernel */

    switch (ngx_tun_system_input_tcp(tun, &sp, &to, &entry)) {

    case NGX_OK:
        ngx_tun_rewrite_tcp(pkt, &to, ngx_tun_queue_partial(&tun->queue, buf));
        (void) ngx_tun_queue_forward(&tun->queue, buf, len);

        return NGX_OK;

    case NGX_DECLINED:

        if (trusted || ngx_tun_packet_check_tcp(pkt) == NGX_TUN_PACKET_OK) {
            ngx_tun_system_refuse(tun, &sp);

        } else {
            (void) ngx_atomic_fetch_add(&tun->stat->checksum, 1);
        }

        return NGX_OK;

    default: /* NGX_ERROR */
        return NGX_OK;
    }
}


/* NGX_OK, NGX_DECLINED: is refused, or NGX_ERROR: is dropped */

static ngx_int_t
ngx_tun_system_input_tcp(ngx_tun_t *tun, ngx_tun_system_packet_t *sp,
    ngx_tun_rewrite_t *to, ngx_tun_nat_entry_t *entry)
{
    ngx_int_t          rc;
    ngx_uint_t         flags;
    ngx_tun_packet_t  *pkt;

    pkt = sp->pkt;

    if (sp->conf->port == 0) {
        (void) ngx_atomic_fetch_add(&tun->stat->unsupported, 1);
        return NGX_DECLINED;
    }

    if (sp->th.src_port == sp->conf->port
        && ngx_memcmp(pkt->src, sp->conf->addr, pkt->addr_len) == 0)
    {
        flags = 0;

        if (sp->th.flags & NGX_TUN_PACKET_TCP_FIN) {
            flags |= NGX_TUN_NAT_FIN_L;
        }

        if (sp->th.flags & NGX_TUN_PACKET_TCP_RST) {
            flags |= NGX_TUN_NAT_RST_L;
        }

        rc = ngx_tun_nat_reverse(sp->nat, pkt->dst, sp->th.dst_port, flags,
                                 ngx_tun_system_now(), entry);

        if (rc != NGX_OK) {

            /* of a connection that an earlier process had */

            (void) ngx_atomic_fetch_add(&tun->stat->unknown, 1);
            return NGX_DECLINED;
        }

        ngx_tun_system_to_client(to, entry, 0);

        return NGX_OK;
    }

    rc = ngx_tun_system_from_client(tun, sp, entry);

    if (rc == NGX_OK) {
        ngx_tun_system_to_listener(to, sp->conf, entry, 0);
    }

    return rc;
}


static ngx_int_t
ngx_tun_system_from_client(ngx_tun_t *tun, ngx_tun_system_packet_t *sp,
    ngx_tun_nat_entry_t *entry)
{
    ngx_uint_t             flags;
    ngx_tun_flow_key_t     key, sent;
    ngx_tun_packet_tcp_t  *th;

    th = &sp->th;

    ngx_tun_flow_key(&key, sp->pkt, th->src_port, th->dst_port);

    if (ngx_tun_own_address(tun, &key)
        || (th->src_port == th->dst_port
            && ngx_memcmp(key.src, key.dst, 16) == 0))
    {
        (void) ngx_atomic_fetch_add(&tun->stat->invalid, 1);
        return NGX_ERROR;
    }

    if ((th->flags & (NGX_TUN_PACKET_TCP_SYN
                      |NGX_TUN_PACKET_TCP_ACK
                      |NGX_TUN_PACKET_TCP_RST))
        == NGX_TUN_PACKET_TCP_SYN)
    {
        return ngx_tun_system_syn(tun, sp, &key, entry);
    }

    flags = 0;

    if (th->flags & NGX_TUN_PACKET_TCP_FIN) {
        flags |= NGX_TUN_NAT_FIN_C;
    }

    if (th->flags & NGX_TUN_PACKET_TCP_RST) {
        flags |= NGX_TUN_NAT_RST_C;
    }

    if (ngx_tun_nat_lookup(sp->nat, &key, flags, ngx_tun_system_now(), entry)
        == NGX_OK)
    {
        return NGX_OK;
    }

    /* a segment that we have sent must not be answered by a reset */

    ngx_tun_flow_reverse(&key, &sent);

    if (ngx_tun_nat_lookup(sp->nat, &sent, 0, ngx_tun_system_now(), entry)
        == NGX_OK)
    {
        ngx_tun_returned(tun, &key);
        return NGX_ERROR;
    }

    (void) ngx_atomic_fetch_add(&tun->stat->unknown, 1);

    return ngx_tun_system_limited(tun, sp) ? NGX_ERROR : NGX_DECLINED;
}


static ngx_int_t
ngx_tun_system_syn(ngx_tun_t *tun, ngx_tun_system_packet_t *sp,
    ngx_tun_flow_key_t *key, ngx_tun_nat_entry_t *entry)
{
    ngx_int_t  rc;

    if (ngx_tun_find_listen(tun, key, SOCK_STREAM) == NULL) {
        (void) ngx_atomic_fetch_add(&tun->stat->refused, 1);
        return NGX_DECLINED;
    }

    if (ngx_tun_looped(tun, key)) {
        return NGX_DECLINED;
    }

    rc = ngx_tun_nat_insert(sp->nat, key, sp->th.seq, ngx_tun_system_now(),
                            entry);

    switch (rc) {

    case NGX_OK:

        if (entry->evicted) {
            ngx_tun_limited(tun, NGX_TUN_LIMIT_HALF_OPEN);
            ngx_tun_system_evict(tun, sp, entry);
        }

        return NGX_OK;

    case NGX_DONE:
        return NGX_OK;

    case NGX_BUSY:

        /* the client tries again */
        return NGX_ERROR;

    default: /* NGX_DECLINED, NGX_ERROR */
        ngx_tun_limited(tun, NGX_TUN_LIMIT_TUPLES);
        return NGX_DECLINED;
    }
}


/* an ICMP error about a packet between a tuple and the listener, or outside */

static ngx_int_t
ngx_tun_system_input_error(ngx_tun_t *tun, ngx_tun_system_packet_t *sp)
{
    ngx_tun_packet_t          about;
    ngx_tun_rewrite_t         to;
    ngx_tun_flow_key_t        key;
    ngx_tun_nat_entry_t       entry;
    ngx_tun_rewrite_error_t   error;

    if (sp->conf->port == 0
        || ngx_tun_rewrite_parse_error(sp->pkt, &error) != NGX_TUN_PACKET_OK)
    {
        return NGX_DECLINED;
    }

    if (error.dst_port == sp->conf->port
        && ngx_memcmp(error.dst, sp->conf->addr, sp->pkt->addr_len) == 0)
    {
        /* the kernel's, about what the client sent */

        if (ngx_tun_nat_peek(sp->nat, error.src, error.src_port, &entry)
            != NGX_OK)
        {
            return NGX_DECLINED;
        }

        ngx_tun_system_to_client(&to, &entry, 1);

    } else {

        /* from the client or on the way to it, about what we sent */

        about = *sp->pkt;
        about.src = error.dst;
        about.dst = error.src;
        about.protocol = IPPROTO_TCP;

        ngx_tun_flow_key(&key, &about, error.dst_port, error.src_port);

        if (ngx_tun_nat_lookup(sp->nat, &key, 0, ngx_tun_system_now(), &entry)
            != NGX_OK)
        {
            return NGX_DECLINED;
        }

        ngx_tun_system_to_listener(&to, sp->conf, &entry, 1);
    }

    ngx_tun_rewrite_error(sp->pkt, &error, &to);

    return NGX_OK;
}


/* what a packet becomes, or with back one that it is an answer to */

static void
ngx_tun_system_to_client(ngx_tun_rewrite_t *to, ngx_tun_nat_entry_t *entry,
    ngx_uint_t back)
{
    to->src = back ? entry->key.src : entry->key.dst;
    to->dst = back ? entry->key.dst : entry->key.src;
    to->src_port = back ? entry->key.src_port : entry->key.dst_port;
    to->dst_port = back ? entry->key.dst_port : entry->key.src_port;
}


static void
ngx_tun_system_to_listener(ngx_tun_rewrite_t *to, ngx_tun_system_conf_t *conf,
    ngx_tun_nat_entry_t *entry, ngx_uint_t back)
{
    to->src = back ? conf->addr : entry->addr;
    to->dst = back ? entry->addr : conf->addr;
    to->src_port = back ? conf->port : entry->port;
    to->dst_port = back ? entry->port : conf->port;
}


/* who sends segments of no flow gets some resets a second, see ICMP */

static ngx_uint_t
ngx_tun_system_limited(ngx_tun_t *tun, ngx_tun_system_packet_t *sp)
{
    uint64_t             hash;
    ngx_msec_t          *spent;
    ngx_msec_int_t       ahead;
    ngx_tun_flow_key_t   key;

    ngx_memzero(&key, sizeof(ngx_tun_flow_key_t));
    ngx_memcpy(key.src, sp->pkt->src, ngx_min(sp->pkt->addr_len, 8));
    key.addr_len = (uint16_t) sp->pkt->addr_len;

    hash = ngx_tun_flow_hash(&sp->nat->keyed, &key, NGX_TUN_SYSTEM_DOMAIN);
    spent = &tun->system->resets[hash % NGX_TUN_SYSTEM_SOURCES];

    ahead = (ngx_msec_int_t) (*spent - ngx_current_msec);

    if (ahead < 0 || ahead > NGX_TUN_SYSTEM_SECOND) {
        ahead = 0;
    }

    if (ahead + NGX_TUN_SYSTEM_RESET > NGX_TUN_SYSTEM_SECOND) {
        (void) ngx_atomic_fetch_add(&tun->stat->limited_resets, 1);
        return 1;
    }

    *spent = ngx_current_msec + ahead + NGX_TUN_SYSTEM_RESET;

    return 0;
}


static void
ngx_tun_system_refuse(ngx_tun_t *tun, ngx_tun_system_packet_t *sp)
{
    size_t  len;
    u_char  buf[NGX_TUN_PACKET_TCP_MIN];

    len = ngx_tun_packet_build_reset(buf, sp->pkt, &sp->th);

    if (len != 0) {
        (void) ngx_tun_queue_write(&tun->queue, buf, len);
    }
}


/* the kernel may wait for the ACK of a SYN that had the tuple */

static void
ngx_tun_system_evict(ngx_tun_t *tun, ngx_tun_system_packet_t *sp,
    ngx_tun_nat_entry_t *entry)
{
    size_t                len;
    u_char                buf[NGX_TUN_PACKET_TCP_MIN];
    ngx_tun_packet_tcp_t  rst;

    ngx_memzero(&rst, sizeof(ngx_tun_packet_tcp_t));

    rst.src_port = entry->port;
    rst.dst_port = sp->conf->port;
    rst.seq = entry->isn + 1;
    rst.flags = NGX_TUN_PACKET_TCP_RST;

    len = ngx_tun_packet_build_tcp(buf, entry->addr, sp->conf->addr,
                                   sp->pkt->addr_len, &rst);

    (void) ngx_tun_queue_write(&tun->queue, buf, len);
}
