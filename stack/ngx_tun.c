
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>
#include <ngx_tun_icmp.h>

#include <net/if.h>
#include <linux/if_tun.h>


/* in a turn, then other events have theirs */
#define NGX_TUN_READ_BYTES     (512 * 1024)

#define NGX_TUN_EXPIRE         1000         /* ms */


static ngx_int_t ngx_tun_init_limits(ngx_tun_t *tun);
static void ngx_tun_init_udp_limits(ngx_tun_t *tun);
static ngx_int_t ngx_tun_open_queue(ngx_tun_t *tun, ngx_uint_t queue);
static void ngx_tun_reset_flows(ngx_tun_t *tun);
static void ngx_tun_abort_flows(ngx_tun_t *tun);
static void ngx_tun_read_handler(ngx_event_t *rev);
static void ngx_tun_read_failed(ngx_tun_t *tun, ngx_err_t err);
static ngx_int_t ngx_tun_input_fragment(ngx_tun_t *tun,
    ngx_tun_packet_t *pkt);
static ngx_int_t ngx_tun_input_packet(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_lwip_buf_t *buf, ngx_tun_queue_info_t *info);
static void ngx_tun_flush_handler(ngx_event_t *ev);
static void ngx_tun_tick_handler(ngx_event_t *ev);
static void ngx_tun_expire_handler(ngx_event_t *ev);


ngx_tun_t *
ngx_tun_open(ngx_tun_options_t *options, ngx_cycle_t *cycle)
{
    ngx_tun_t  *tun;

    tun = ngx_calloc(sizeof(ngx_tun_t), cycle->log);
    if (tun == NULL) {
        return NULL;
    }

    tun->conf = options->conf;
    tun->device = options->device;
    tun->owner = options->owner;
    tun->handoff = options->handoff;
    tun->stat = options->stat;
    tun->gauge = options->gauge;
    tun->state = options->state;
    tun->number = options->queue;
    tun->own_cycle = options->cycle;
    tun->system = options->system;
    tun->guard = options->guard;
    tun->own_generation = options->waits ? 0 : options->state->generation;
    tun->cycle = cycle;
    tun->log = cycle->log;

    tun->sockets[0] = (ngx_socket_t) -1;
    tun->sockets[1] = (ngx_socket_t) -1;

    ngx_queue_init(&tun->dirty);

    tun->tx_pool.log = cycle->log;

    if (ngx_tun_flow_table_init(&tun->flows, cycle->log) != NGX_OK) {
        goto failed;
    }

    ngx_tun_flow_table_share(&tun->flows, tun->owner->shared->secret);

    if (ngx_tun_init_limits(tun) != NGX_OK
        || ngx_tun_icmp_open(tun, options) != NGX_OK)
    {
        goto failed;
    }

    /* a connected stream socket, for nginx may peek at it or shut it down */

    if (socketpair(AF_UNIX, SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC, 0,
                   tun->sockets)
        == -1)
    {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_socket_errno,
                      "socketpair() failed");
        goto failed;
    }

    tun->lwip = ngx_tun_lwip_create(&ngx_tun_tcp_ops, tun,
                                    tun->conf->device.mtu);
    if (tun->lwip == NULL) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, ngx_errno,
                      "tun \"%V\": no memory for lwIP",
                      &tun->conf->device.name);
        goto failed;
    }

    if (ngx_tun_open_queue(tun, options->queue) != NGX_OK
        || ngx_tun_fragments_init(&tun->fragments, tun->log) != NGX_OK
        || ngx_tun_udp_init(tun) != NGX_OK
        || ngx_tun_open_box(tun) != NGX_OK)
    {
        goto failed;
    }

    ngx_tun_owner_ready(tun->owner, tun->own_cycle);

    if (options->waits) {
        ngx_tun_linger_handler(&tun->linger);
    }

    if (tun->system != NULL) {
        ngx_tun_system_open(tun);
    }

    return tun;

failed:

    ngx_tun_close(tun);

    return NULL;
}


/* the limits of a device are shared out among its queues */

static ngx_int_t
ngx_tun_init_limits(ngx_tun_t *tun)
{
    ngx_uint_t       n;
    struct rlimit    rlmt;
    ngx_tun_conf_t  *conf;

    conf = tun->conf;
    n = conf->device.queues;

    tun->fragments.max_datagrams = conf->fragments.datagrams;
    tun->fragments.max_bytes = conf->fragments.memory;
    tun->fragments.timeout = conf->fragments.timeout;

    tun->max_flows = (conf->max_flows + n - 1) / n;
    tun->max_memory = conf->max_memory / n;

    tun->limits.max_pending = (conf->max_pending + n - 1) / n;
    tun->limits.max_half_open = (conf->max_half_open + n - 1) / n;

    if (getrlimit(RLIMIT_NOFILE, &rlmt) == -1) {
        ngx_log_error(NGX_LOG_EMERG, tun->log, ngx_errno,
                      "getrlimit(RLIMIT_NOFILE) failed");
        return NGX_ERROR;
    }

    tun->max_files = rlmt.rlim_cur;

    ngx_tun_init_udp_limits(tun);

    return ngx_tun_limits_init(&tun->limits, tun->flows.secret[0], tun->log);
}


/* idle flows give way before connections or descriptors run out */

static void
ngx_tun_init_udp_limits(ngx_tun_t *tun)
{
    ngx_uint_t         n, max;
    ngx_tun_conf_t    *conf;
    ngx_tun_limits_t  *limits;

    conf = tun->conf;
    limits = &tun->limits;
    n = conf->device.queues;

    max = ngx_min(tun->max_files, tun->cycle->connection_n / 2) / 4 * 3;

    if (conf->max_udp_flows != 0) {
        max = (conf->max_udp_flows + n - 1) / n;
    }

    limits->max_udp_flows = max;
    limits->max_udp_source_flows = (max + 1) / 2;

    if (conf->max_udp_source_flows != 0) {
        limits->max_udp_source_flows = (conf->max_udp_source_flows + n - 1) / n;
    }
}


void
ngx_tun_limited(ngx_tun_t *tun, ngx_tun_limit_e reason)
{
    (void) ngx_atomic_fetch_add(&tun->stat->limits[reason], 1);

    ngx_tun_limit_log(&tun->limits, reason, &tun->conf->device.name, tun->log);
}


ngx_uint_t
ngx_tun_full(ngx_tun_t *tun)
{
    return ngx_tun_lwip_memory(tun->lwip) + tun->tx_pool.memory
           + tun->udp.memory > tun->max_memory;
}


static ngx_int_t
ngx_tun_open_queue(ngx_tun_t *tun, ngx_uint_t queue)
{
    ngx_event_t       *rev;
    ngx_connection_t  *c;

    tun->queue.fd = tun->device->fds[queue];
    tun->queue.vnet_len = tun->device->vnet_len;
    tun->queue.mtu = tun->conf->device.mtu;
    tun->queue.offload = tun->device->offload;
    tun->queue.uso = tun->device->uso;

    tun->queue.packet = ngx_alloc(tun->queue.mtu, tun->log);
    if (tun->queue.packet == NULL) {
        return NGX_ERROR;
    }

    c = ngx_get_connection(tun->queue.fd, tun->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    tun->connection = c;

    c->data = tun;
    c->log = tun->log;

    rev = c->read;
    rev->log = tun->log;
    rev->handler = ngx_tun_read_handler;

    c->write->log = tun->log;

    /* a worker that exits tells by c->close, and does not miss it then */

    c->idle = 1;
    rev->channel = 1;

    tun->flush.data = c;
    tun->flush.log = tun->log;
    tun->flush.handler = ngx_tun_flush_handler;

    tun->tick.data = c;
    tun->tick.log = tun->log;
    tun->tick.handler = ngx_tun_tick_handler;

    tun->expire.data = c;
    tun->expire.log = tun->log;
    tun->expire.handler = ngx_tun_expire_handler;
    tun->expire.cancelable = 1;

    tun->linger.data = c;
    tun->linger.log = tun->log;
    tun->linger.handler = ngx_tun_linger_handler;

    if (tun->own_generation == 0) {
        return NGX_OK;
    }

    tun->state->reader[queue] = ngx_pid;

    return ngx_add_event(rev, NGX_READ_EVENT, NGX_CLEAR_EVENT);
}


void
ngx_tun_close_connection(ngx_connection_t *c)
{
    /* the descriptor is the cycle's */

    if (c->read->active) {
        ngx_del_event(c->read, NGX_READ_EVENT, 0);
    }

    if (c->read->posted) {
        ngx_delete_posted_event(c->read);
    }

    ngx_free_connection(c);
    c->fd = (ngx_socket_t) -1;
}


void
ngx_tun_close(ngx_tun_t *tun)
{
    (void) ngx_atomic_cmp_set(&tun->state->reader[tun->number],
                              (ngx_atomic_uint_t) ngx_pid, 0);

    ngx_tun_owner_ready(tun->owner, 0);

    if (tun->connection != NULL) {
        ngx_tun_reset_flows(tun);
        ngx_tun_system_close(tun);
        ngx_tun_count(tun);

        if (tun->flush.posted) {
            ngx_delete_posted_event(&tun->flush);
        }

        if (tun->tick.timer_set) {
            ngx_del_timer(&tun->tick);
        }

        if (tun->expire.timer_set) {
            ngx_del_timer(&tun->expire);
        }

        if (tun->linger.timer_set) {
            ngx_del_timer(&tun->linger);
        }

        ngx_tun_close_connection(tun->connection);
    }

    if (tun->box != NULL) {
        ngx_tun_close_connection(tun->box);
    }

    if (tun->lwip != NULL) {
        if (tun->buf != NULL) {
            ngx_tun_lwip_buf_free(tun->buf);
        }

        ngx_tun_lwip_destroy(tun->lwip);
    }

    ngx_tun_tx_pool_done(&tun->tx_pool);

    ngx_tun_icmp_close(tun);

    /* it gives back what it holds of the limits */
    ngx_tun_udp_done(tun);

    ngx_tun_count_done(tun);

    ngx_tun_limits_done(&tun->limits);

    ngx_tun_fragments_done(&tun->fragments);

    if (tun->flows.buckets != NULL) {
        ngx_tun_flow_table_done(&tun->flows);
    }

    if (tun->sockets[0] != (ngx_socket_t) -1) {
        (void) ngx_close_socket(tun->sockets[0]);
        (void) ngx_close_socket(tun->sockets[1]);
    }

    if (tun->queue.packet != NULL) {
        ngx_free(tun->queue.packet);
    }

    ngx_free(tun);
}


static void
ngx_tun_reset_flows(ngx_tun_t *tun)
{
    ngx_uint_t       i;
    ngx_tun_flow_t  *flow, *next;

    for (i = 0; i < tun->flows.nbuckets; i++) {
        for (flow = tun->flows.buckets[i]; flow != NULL; flow = next) {
            next = flow->next;
            ngx_tun_tcp_reset(flow);
        }
    }
}


static void
ngx_tun_read_handler(ngx_event_t *rev)
{
    ngx_tun_t         *tun;
    ngx_connection_t  *c;

    c = rev->data;
    tun = c->data;

    if (c->close) {

        /* the worker is exiting: without a successor it reads on */

        c->close = 0;
        c->idle = 0;

        ngx_tun_leave(tun);
    }

    if (tun->state->generation != tun->own_generation) {
        ngx_tun_retire(tun);

        if (tun->retired) {
            return;
        }
    }

    if (ngx_tun_read(tun) == NGX_AGAIN) {
        ngx_post_event(rev, &ngx_posted_next_events);
    }
}


ngx_int_t
ngx_tun_read(ngx_tun_t *tun)
{
    size_t                 bytes;
    ssize_t                n;
    ngx_uint_t             packets;
    ngx_tun_queue_info_t   info;

    bytes = 0;

    for (packets = 0; packets < NGX_TUN_READ_PACKETS; packets++) {

        if (ngx_tun_get_buf(tun) != NGX_OK) {
            break;
        }

        n = ngx_tun_queue_read(&tun->queue, tun->buf->data, 65535, &info);

        if (n == NGX_AGAIN) {
            break;
        }

        if (n == NGX_ERROR) {
            ngx_tun_read_failed(tun, ngx_errno);
            break;
        }

        bytes += n;

        if (ngx_tun_input(tun, tun->buf, n, &info) == NGX_DONE) {
            tun->buf = NULL;
        }

        if (bytes >= NGX_TUN_READ_BYTES) {
            break;
        }
    }

    if (packets != 0) {
        ngx_tun_count_read(tun, packets, bytes);
        ngx_tun_post_flush(tun);
    }

    return (packets == NGX_TUN_READ_PACKETS || bytes >= NGX_TUN_READ_BYTES
            || tun->buf == NULL)
           ? NGX_AGAIN : NGX_OK;
}


ngx_int_t
ngx_tun_get_buf(ngx_tun_t *tun)
{
    if (tun->buf == NULL) {
        tun->buf = ngx_tun_lwip_buf_alloc(tun->lwip);
    }

    return (tun->buf != NULL) ? NGX_OK : NGX_ERROR;
}


static void
ngx_tun_abort_flows(ngx_tun_t *tun)
{
    ngx_uint_t       i;
    ngx_tun_flow_t  *flow, *next;

    for (i = 0; i < tun->flows.nbuckets; i++) {
        for (flow = tun->flows.buckets[i]; flow != NULL; flow = next) {
            next = flow->next;
            ngx_tun_tcp_abort(flow);
        }
    }
}


static void
ngx_tun_read_failed(ngx_tun_t *tun, ngx_err_t err)
{
    struct ifreq  ifr;

    /* the interface is down, an event tells when it is up again */

    ngx_memzero(&ifr, sizeof(struct ifreq));

    if (ioctl(tun->queue.fd, TUNGETIFF, &ifr) == 0) {
        ngx_log_error(NGX_LOG_WARN, tun->log, err,
                      "tun \"%V\": read() failed", &tun->conf->device.name);
        return;
    }

    /* it was deleted: the descriptor is of no use, and would be ready always */

    ngx_log_error(NGX_LOG_ERR, tun->log, err,
                  "tun \"%V\": the interface was deleted, a reload makes it "
                  "again", &tun->conf->device.name);

    ngx_del_event(tun->connection->read, NGX_READ_EVENT, 0);

    tun->lost = 1;

    ngx_tun_abort_flows(tun);

    if (tun->system != NULL) {
        ngx_tun_system_abort(tun->system);
    }

    ngx_tun_udp_retire(tun);
    ngx_tun_post_flush(tun);
}


ngx_int_t
ngx_tun_input(ngx_tun_t *tun, ngx_tun_lwip_buf_t *buf, size_t len,
    ngx_tun_queue_info_t *info)
{
    u_char            *p;
    ngx_tun_packet_t   pkt;

    p = buf->data + NGX_TUN_QUEUE_HEAD;

    tun->packet = &pkt;
    tun->info = info;

    if (ngx_tun_packet_parse(&pkt, p, p + len) != NGX_TUN_PACKET_OK
        || ngx_tun_packet_check_addresses(&pkt) != NGX_TUN_PACKET_OK)
    {
        (void) ngx_atomic_fetch_add(&tun->stat->invalid, 1);
        return NGX_OK;
    }

    if (tun->system != NULL
        && ngx_tun_system_input(tun, &pkt, buf->data, len, info->trusted)
           == NGX_OK)
    {
        return NGX_OK;
    }

    if (pkt.fragment) {

        if (ngx_tun_input_fragment(tun, &pkt) != NGX_OK) {
            return NGX_OK;
        }

        /* it is in other memory now, and its pieces had no checksums */

        buf = NULL;
        info->trusted = 0;
    }

    return ngx_tun_input_packet(tun, &pkt, buf, info);
}


static ngx_int_t
ngx_tun_input_fragment(ngx_tun_t *tun, ngx_tun_packet_t *pkt)
{
    ngx_int_t  rc;

    rc = ngx_tun_fragment_input(&tun->fragments, pkt, ngx_current_msec);

    if (rc == NGX_AGAIN && !tun->expire.timer_set) {
        ngx_add_timer(&tun->expire, NGX_TUN_EXPIRE);
    }

    return rc;
}


static ngx_int_t
ngx_tun_input_packet(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_lwip_buf_t *buf, ngx_tun_queue_info_t *info)
{
    switch (pkt->protocol) {

    case IPPROTO_TCP:

        if (tun->system != NULL) {
            /* it came in fragments, and the kernel gets what was read */
            break;
        }

        return ngx_tun_tcp_input(tun, pkt, buf, info->trusted);

    case IPPROTO_UDP:
        ngx_tun_udp_input(tun, pkt, info);
        return NGX_OK;

    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        if (ngx_tun_tcp_input_too_big(tun, pkt) != NGX_OK) {
            ngx_tun_icmp_input(tun, pkt);
        }

        return NGX_OK;
    }

    (void) ngx_atomic_fetch_add(&tun->stat->unsupported, 1);

    return NGX_OK;
}


void
ngx_tun_post_flush(ngx_tun_t *tun)
{
    if (tun->flush.posted) {
        ngx_delete_posted_event(&tun->flush);
    }

    ngx_post_event(&tun->flush, &ngx_posted_events);
}


static void
ngx_tun_flush_handler(ngx_event_t *ev)
{
    uint32_t           hot, time_wait;
    ngx_tun_t         *tun;
    ngx_connection_t  *c;

    c = ev->data;
    tun = c->data;

    while (!ngx_queue_empty(&tun->dirty)) {
        ngx_tun_tcp_flush(ngx_queue_head(&tun->dirty));
    }

    ngx_tun_udp_flush(tun);

    ngx_tun_count(tun);

    hot = ngx_tun_lwip_busy(&time_wait);

    if ((hot != 0 || time_wait != 0) && !tun->tick.timer_set) {
        ngx_add_timer(&tun->tick, NGX_TUN_LWIP_TICK);
    }

    /* an exiting worker stays for last bytes, not for TIME-WAIT */
    tun->tick.cancelable = (hot == 0);
}


static void
ngx_tun_tick_handler(ngx_event_t *ev)
{
    ngx_tun_t         *tun;
    ngx_connection_t  *c;

    c = ev->data;
    tun = c->data;

    ngx_tun_lwip_tick((uint32_t) ngx_current_msec);

    ngx_tun_post_flush(tun);
}


static void
ngx_tun_expire_handler(ngx_event_t *ev)
{
    ngx_tun_t         *tun;
    ngx_msec_t         next;
    ngx_connection_t  *c;

    c = ev->data;
    tun = c->data;

    next = ngx_tun_fragment_expire(&tun->fragments, ngx_current_msec);

    ngx_tun_count_fragments(tun);

    if (next != 0) {
        ngx_add_timer(ev, next);
    }
}
