
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>


typedef struct {
    ngx_tun_stat_t           stat[NGX_MAX_PROCESSES];
    ngx_tun_gauge_t          gauges[NGX_MAX_PROCESSES];
} ngx_stream_tun_shared_t;


/* pages, and what the slab allocator needs for them */
#define NGX_STREAM_TUN_ZONE_SIZE                                              \
    (sizeof(ngx_stream_tun_shared_t) + 16 * 4096)


static ngx_int_t ngx_stream_tun_init_zone(ngx_shm_zone_t *zone, void *data);
static ngx_int_t ngx_stream_tun_check_abi(ngx_log_t *log);
static ngx_int_t ngx_stream_tun_init_stat(ngx_stream_tun_t *st,
    ngx_shm_zone_t *zone);
static ngx_int_t ngx_stream_tun_init_queues(ngx_stream_tun_t *st,
    ngx_log_t *log);
static void ngx_stream_tun_ignore_listenings(ngx_stream_tun_t *st);
static ngx_uint_t ngx_stream_tun_own_address(ngx_stream_tun_t *st,
    struct sockaddr *sa);
static void ngx_stream_tun_cleanup(void *data);


ngx_int_t
ngx_stream_tun_add_zone(ngx_conf_t *cf, ngx_stream_tun_t *st)
{
    ngx_str_t        name;
    ngx_shm_zone_t  *zone;

    name.len = sizeof("tun:") - 1 + st->conf.device.name.len;

    name.data = ngx_pnalloc(cf->pool, name.len + 1);
    if (name.data == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_sprintf(name.data, "tun:%V%Z", &st->conf.device.name);

    /*
     * The init handler of a zone is where a cycle can still be given up, and
     * runs before nginx binds to the device's addresses.
     */

    zone = ngx_shared_memory_add(cf, &name, NGX_STREAM_TUN_ZONE_SIZE,
                                 &ngx_stream_tun_module);
    if (zone == NULL) {
        return NGX_ERROR;
    }

    zone->init = ngx_stream_tun_init_zone;
    zone->data = st;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_init_zone(ngx_shm_zone_t *zone, void *data)
{
    ngx_stream_tun_t *old = data;

    ngx_log_t           *log;
    ngx_stream_tun_t    *st;
    ngx_pool_cleanup_t  *cln;

    st = zone->data;
    log = st->cycle->log;

    if (ngx_stream_tun_check_abi(log) != NGX_OK
        || ngx_stream_tun_init_queues(st, log) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_test_config) {
        ngx_stream_tun_ignore_listenings(st);
        ngx_stream_tun_listener_ignore(st);
        return NGX_OK;
    }

    if (old == NULL) {
        old = ngx_stream_tun_inherit(st, log);
    }

    if (ngx_stream_tun_init_stat(st, zone) != NGX_OK
        || ngx_stream_tun_init_state(st, old, log) != NGX_OK
        || ngx_stream_tun_system_reload(st, old, log) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (old != NULL
        && (old->conf.device.netns.len != st->conf.device.netns.len
            || (st->conf.device.netns.len != 0
                && ngx_memcmp(old->conf.device.netns.data,
                              st->conf.device.netns.data,
                              st->conf.device.netns.len)
                   != 0)))
    {
        old = NULL;
    }

    cln = ngx_pool_cleanup_add(st->cycle->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    st->device.conf = &st->conf.device;
    st->old = (old != NULL) ? &old->device : NULL;

    if (ngx_tun_device_open(&st->device, st->old, st->cycle->pool, log)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    cln->handler = ngx_stream_tun_cleanup;
    cln->data = st;

    if (ngx_tun_handoff_open(&st->handoff,
                             (old != NULL) ? &old->handoff : NULL,
                             ngx_tun_inherit_owners(st->state),
                             st->conf.device.queues, log)
        != NGX_OK
        || ngx_stream_tun_system_open(st, old, log) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (st->conf.icmp != NGX_TUN_ICMP_FORWARD) {
        return NGX_OK;
    }

    st->icmp = ngx_tun_icmp_sockets_open(st->conf.device.queues,
                                         st->cycle->pool, log);

    return (st->icmp != NULL) ? ngx_stream_tun_set_icmp_sockets(st, log)
                              : NGX_ERROR;
}


/*
 * Distributions move bits inside of ngx_connection_t without a change of the
 * signature that nginx compares.  So let it set one, and look where it is.
 */

static ngx_int_t
ngx_stream_tun_check_abi(ngx_log_t *log)
{
    ngx_uint_t         good;
    ngx_queue_t       *q;
    ngx_connection_t   c;

    q = (ngx_queue_t *) &ngx_cycle->reusable_connections_queue;

    if (q->next == NULL) {
        /* nginx starts, there is no cycle yet */
        ngx_queue_init(q);
    }

    ngx_memzero(&c, sizeof(ngx_connection_t));
    c.log = log;

    ngx_reusable_connection(&c, 1);

    good = c.reusable && !c.idle && !c.close && !c.shared
           && !c.error && !c.timedout;

    ngx_reusable_connection(&c, 0);

    if (good && !c.reusable) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_EMERG, log, 0,
                  "the tun module was built for another build of nginx %s, "
                  "build it again for this one", NGINX_VERSION);

    return NGX_ERROR;
}


static ngx_int_t
ngx_stream_tun_init_stat(ngx_stream_tun_t *st, ngx_shm_zone_t *zone)
{
    ngx_slab_pool_t          *shpool;
    ngx_stream_tun_shared_t  *shared;

    shpool = (ngx_slab_pool_t *) zone->shm.addr;

    if (shpool->data == NULL) {
        shpool->data = ngx_slab_calloc(shpool, sizeof(ngx_stream_tun_shared_t));
        if (shpool->data == NULL) {
            return NGX_ERROR;
        }
    }

    shared = shpool->data;

    st->stat = shared->stat;
    st->gauges = shared->gauges;

    return NGX_OK;
}


void
ngx_stream_tun_claim_gauge(ngx_stream_tun_t *st)
{
    ngx_uint_t          i;
    ngx_tun_stat_t     *stat;
    ngx_tun_gauge_t    *gauge;
    ngx_atomic_uint_t   pid;

    for (i = 0; i < NGX_MAX_PROCESSES; i++) {
        gauge = &st->gauges[i];
        pid = gauge->pid;

        if (pid == 0 && st->gauge != NULL) {
            continue;
        }

        /* a number that is ours now was of one that is gone */

        if ((pid != 0
             && pid != (ngx_atomic_uint_t) ngx_pid
             && (kill((ngx_pid_t) pid, 0) == 0 || ngx_errno != ESRCH))
            || !ngx_atomic_cmp_set(&gauge->pid, pid,
                                   (ngx_atomic_uint_t) ngx_pid))
        {
            continue;
        }

        stat = &st->stat[gauge->worker];

        (void) ngx_atomic_fetch_add(&stat->active, -gauge->active);
        (void) ngx_atomic_fetch_add(&stat->udp_active, -gauge->udp_active);
        (void) ngx_atomic_fetch_add(&stat->pending, -gauge->pending);
        (void) ngx_atomic_fetch_add(&stat->half_open, -gauge->half_open);
        (void) ngx_atomic_fetch_add(&stat->reassembling,
                                    -gauge->reassembling);

        gauge->worker = ngx_worker;
        gauge->active = 0;
        gauge->udp_active = 0;
        gauge->pending = 0;
        gauge->half_open = 0;
        gauge->reassembling = 0;

        if (st->gauge == NULL) {
            st->gauge = gauge;

        } else {
            gauge->pid = 0;
        }
    }
}


static ngx_int_t
ngx_stream_tun_init_queues(ngx_stream_tun_t *st, ngx_log_t *log)
{
    ngx_int_t         workers;
    ngx_core_conf_t  *ccf;

    ccf = (ngx_core_conf_t *) ngx_get_conf(st->cycle->conf_ctx,
                                           ngx_core_module);

    workers = ccf->master ? ccf->worker_processes : 1;

    if (st->queues <= 0) {
        st->conf.device.queues = ngx_min(workers, 256);
        return NGX_OK;
    }

    if (st->queues > workers) {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "tun \"%V\" has %i queues for %i worker processes "
                      "in %s:%ui", &st->conf.device.name, st->queues, workers,
                      st->file, st->line);
        return NGX_ERROR;
    }

    st->conf.device.queues = st->queues;

    return NGX_OK;
}


/* a test of the configuration binds to addresses that do not exist yet */

static void
ngx_stream_tun_ignore_listenings(ngx_stream_tun_t *st)
{
    ngx_uint_t        i;
    ngx_listening_t  *ls;

    if (st->conf.device.netns.len != 0) {
        return;
    }

    ls = st->cycle->listening.elts;

    for (i = 0; i < st->cycle->listening.nelts; i++) {
        if (ngx_stream_tun_own_address(st, ls[i].sockaddr)) {
            ls[i].ignore = 1;
        }
    }
}


static ngx_uint_t
ngx_stream_tun_own_address(ngx_stream_tun_t *st, struct sockaddr *sa)
{
    void                *p;
    size_t               len;
    ngx_uint_t           i;
    ngx_tun_address_t   *addr;

    switch (sa->sa_family) {

#if (NGX_HAVE_INET6)
    case AF_INET6:
        p = &((struct sockaddr_in6 *) sa)->sin6_addr;
        len = 16;
        break;
#endif

    case AF_INET:
        p = &((struct sockaddr_in *) sa)->sin_addr;
        len = 4;
        break;

    default:
        return 0;
    }

    addr = st->conf.device.addresses.elts;

    for (i = 0; i < st->conf.device.addresses.nelts; i++) {
        if (addr[i].addr_len == len && ngx_memcmp(addr[i].addr, p, len) == 0) {
            return 1;
        }
    }

    return 0;
}


static void
ngx_stream_tun_cleanup(void *data)
{
    ngx_stream_tun_t *st = data;

    ngx_uint_t  restore;

    ngx_tun_handoff_close(&st->handoff);

    if (st->icmp != NULL) {
        ngx_tun_icmp_sockets_close(st->icmp, st->conf.device.queues);
    }

    restore = (ngx_process == NGX_PROCESS_MASTER
               || ngx_process == NGX_PROCESS_SINGLE);

    if (restore
        && (ngx_stream_tun_passed_on(st) || ngx_stream_tun_pass_back(st)))
    {
        st->device.superseded = 1;
    }

    ngx_tun_device_close(&st->device, restore, ngx_cycle->log);
}
