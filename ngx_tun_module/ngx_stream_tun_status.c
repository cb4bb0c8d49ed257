
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_status.h>


typedef struct {
    ngx_atomic_t             queues;
    ngx_atomic_t             nat_slots;
    ngx_atomic_t             nat_used_ipv4;
    ngx_atomic_t             nat_used_ipv6;
} ngx_stream_tun_device_stat_t;


static ngx_int_t ngx_stream_tun_status_device(ngx_stream_tun_group_t *group,
    ngx_stream_tun_t *st, ngx_pool_t *pool);
static ngx_atomic_uint_t ngx_stream_tun_status_nat(
    ngx_tun_system_conf_t *system);


#define counter(name, help)  ngx_stream_tun_counter(ngx_tun_stat_t, name, help)
#define gauge(name, help)    ngx_stream_tun_gauge(ngx_tun_stat_t, name, help)

#define element(name, array, n, help)                                         \
    ngx_stream_tun_element(ngx_tun_stat_t, name, array, n, help)

#define device(name, help)                                                    \
    ngx_stream_tun_gauge(ngx_stream_tun_device_stat_t, name, help)


static const ngx_stream_tun_metric_t  ngx_stream_tun_device_metrics[] = {
    device(queues, "Queues of the device, one for each of the first workers"),
    device(nat_slots, "Connections that the system stack can translate"),
    device(nat_used_ipv4, "Slots of IPv4 that hold a tuple"),
    device(nat_used_ipv6, "Slots of IPv6 that hold a tuple")
};


/* all of ngx_tun_stat_t, which has nothing else */

static const ngx_stream_tun_metric_t  ngx_stream_tun_metrics[] = {
    counter(packets_in, "Packets read from the device"),
    counter(bytes_in, "Bytes read from the device"),
    counter(packets_out, "Packets written to the device"),
    counter(bytes_out, "Bytes written to the device"),
    counter(write_errors, "Packets that could not be written"),

    element(reads_1, reads, 0, "Turns that read one packet"),
    element(reads_2_7, reads, 1, "Turns that read 2 to 7 packets"),
    element(reads_8_31, reads, 2, "Turns that read 8 to 31 packets"),
    element(reads_32_63, reads, 3, "Turns that read 32 to 63 packets"),
    element(reads_64, reads, 4, "Turns that read as many as a turn may"),

    counter(invalid, "Packets dropped: not valid"),
    counter(checksum, "Packets dropped: a wrong checksum"),
    counter(unsupported, "Packets dropped: another protocol"),
    counter(unknown, "TCP segments of no flow"),
    counter(unacceptable, "TCP segments that their flow cannot take"),
    counter(retransmits, "TCP segments sent again to clients"),

    counter(flows, "TCP sessions started"),
    gauge(active, "TCP flows that there are"),
    gauge(pending, "TCP flows with a session and without the client's ACK"),
    gauge(half_open, "TCP flows answered without a session, and not yet"
                     " acknowledged"),
    counter(refused, "Flows that nothing listens for"),
    counter(looped, "Flows refused: sent here, and come back"),
    counter(early, "TCP flows answered before they had a session"),

    counter(udp_flows, "UDP sessions started"),
    gauge(udp_active, "UDP flows that there are"),
    counter(udp_evicted, "UDP flows that gave way to others"),
    counter(udp_oversized, "Datagrams dropped: larger than the buffer"),
    counter(udp_dropped, "Datagrams dropped: nobody read them in time"),
    counter(datagrams_in, "Datagrams from clients"),
    counter(datagrams_out, "Datagrams to clients"),

    counter(reassembled, "Packets put together of fragments"),
    gauge(reassembling, "Packets that wait for fragments"),
    element(fragments_limited, fragments, NGX_TUN_FRAGMENT_DROP_LIMIT,
            "Fragments dropped: over the limits"),
    element(fragments_timed_out, fragments, NGX_TUN_FRAGMENT_DROP_TIMEOUT,
            "Fragments dropped: too old"),
    element(fragments_overlapping, fragments, NGX_TUN_FRAGMENT_DROP_OVERLAP,
            "Fragments dropped: overlapping"),
    element(fragments_invalid, fragments, NGX_TUN_FRAGMENT_DROP_INVALID,
            "Fragments dropped: malformed"),

    counter(icmp_echo, "Pings answered"),
    counter(icmp_forwarded, "Pings passed on"),
    counter(icmp_errors, "ICMP errors sent"),
    counter(limited_icmp, "ICMP messages not sent: over the limits"),
    counter(limited_resets, "Segments of no flow not answered: over the limit"),

    counter(handshakes_ok, "Handshakes with proxies that succeeded"),
    counter(handshakes_refused, "Handshakes that a proxy refused"),
    counter(handshakes_failed, "Handshakes that a proxy did not finish"),

    element(limited_flows, limits, NGX_TUN_LIMIT_FLOWS,
            "Flows that met max_flows"),
    element(limited_pending, limits, NGX_TUN_LIMIT_PENDING,
            "Flows that met max_pending"),
    element(limited_half_open, limits, NGX_TUN_LIMIT_HALF_OPEN,
            "Flows that met max_half_open"),
    element(limited_udp_flows, limits, NGX_TUN_LIMIT_UDP_FLOWS,
            "Flows that met max_udp_flows"),
    element(limited_memory, limits, NGX_TUN_LIMIT_MEMORY,
            "Times that max_memory was met"),
    element(limited_connections, limits, NGX_TUN_LIMIT_CONNECTIONS,
            "Flows for which worker_connections were not enough"),
    element(limited_descriptors, limits, NGX_TUN_LIMIT_DESCRIPTORS,
            "Flows for which worker_rlimit_nofile was not enough"),
    element(limited_tuples, limits, NGX_TUN_LIMIT_TUPLES,
            "Flows of the system stack without a free tuple")
};


#undef counter
#undef gauge
#undef element
#undef device


#define NGX_STREAM_TUN_METRICS                                                \
    (sizeof(ngx_stream_tun_metrics) / sizeof(ngx_stream_tun_metric_t))

typedef char  ngx_stream_tun_metrics_complete_t
    [NGX_STREAM_TUN_METRICS * sizeof(ngx_atomic_t) == sizeof(ngx_tun_stat_t)
     ? 1 : -1];


ngx_int_t
ngx_stream_tun_status(ngx_stream_tun_group_t *group, ngx_pool_t *pool)
{
    ngx_uint_t                   i;
    ngx_stream_tun_t           **stp;
    ngx_stream_tun_main_conf_t  *tmcf;

    ngx_str_set(&group->key, "tun");
    ngx_str_set(&group->prefix, "nginx_tun_");
    ngx_str_set(&group->label, "device");

    group->title = "Device";
    group->own = ngx_stream_tun_device_metrics;
    group->nown = sizeof(ngx_stream_tun_device_metrics)
                  / sizeof(ngx_stream_tun_metric_t);
    group->metrics = ngx_stream_tun_metrics;
    group->nmetrics = NGX_STREAM_TUN_METRICS;
    group->size = sizeof(ngx_tun_stat_t);

    tmcf = ngx_stream_cycle_get_module_main_conf(ngx_cycle,
                                                 ngx_stream_tun_module);
    if (tmcf == NULL) {
        return NGX_OK;
    }

    stp = tmcf->tuns.elts;

    for (i = 0; i < tmcf->tuns.nelts; i++) {
        if (ngx_stream_tun_status_device(group, stp[i], pool) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_status_device(ngx_stream_tun_group_t *group,
    ngx_stream_tun_t *st, ngx_pool_t *pool)
{
    ngx_stream_tun_object_t       *object;
    ngx_stream_tun_device_stat_t  *own;

    object = ngx_array_push(&group->objects);
    if (object == NULL) {
        return NGX_ERROR;
    }

    own = ngx_pcalloc(pool, sizeof(ngx_stream_tun_device_stat_t));
    if (own == NULL) {
        return NGX_ERROR;
    }

    own->queues = st->conf.device.queues;

    object->name = st->conf.device.name;
    object->stack = "lwip";
    object->own = own;

    if (st->conf.stack == NGX_TUN_STACK_SYSTEM) {
        object->stack = "system";

        own->nat_slots = st->conf.system[0].nat.slots
                         + st->conf.system[1].nat.slots;
        own->nat_used_ipv4 = ngx_stream_tun_status_nat(&st->conf.system[0]);
        own->nat_used_ipv6 = ngx_stream_tun_status_nat(&st->conf.system[1]);
    }

    return ngx_stream_tun_status_copy(group, object, st->stat,
                                      NGX_MAX_PROCESSES, pool);
}


static ngx_atomic_uint_t
ngx_stream_tun_status_nat(ngx_tun_system_conf_t *system)
{
    ngx_uint_t             i;
    ngx_atomic_uint_t      used;
    ngx_tun_nat_shared_t  *shared;

    shared = system->memory;

    if (shared == NULL) {
        return 0;
    }

    used = 0;

    for (i = 0; i < NGX_TUN_NAT_LEVELS; i++) {
        used += *(volatile uint32_t *) &shared->used[i];
    }

    return used;
}


ngx_int_t
ngx_stream_tun_status_copy(ngx_stream_tun_group_t *group,
    ngx_stream_tun_object_t *object, void *stats, ngx_uint_t max,
    ngx_pool_t *pool)
{
    u_char                         *to, *from;
    ngx_uint_t                      i, n, first, words;
    ngx_atomic_t                   *value;
    ngx_core_conf_t                *ccf;
    ngx_atomic_uint_t               v;
    const ngx_stream_tun_metric_t  *metric;

    ccf = (ngx_core_conf_t *) ngx_get_conf(ngx_cycle->conf_ctx,
                                           ngx_core_module);

    words = group->size / sizeof(ngx_atomic_t);
    first = ccf->master ? (ngx_uint_t) ccf->worker_processes : 1;
    first = ngx_min(first, max) * words;

    value = stats;
    n = max * words;

    while (n > first && value[n - 1] == 0) {
        n--;
    }

    object->workers = (n + words - 1) / words;
    object->total = ngx_pcalloc(pool, group->size);
    object->stats = ngx_palloc(pool, object->workers * group->size);

    if (object->total == NULL || object->stats == NULL) {
        return NGX_ERROR;
    }

    to = object->stats;
    from = stats;

    for (n = 0; n < object->workers; n++) {
        for (i = 0; i < group->nmetrics; i++) {
            metric = &group->metrics[i];

            v = ngx_stream_tun_metric(from, metric);
            ngx_stream_tun_metric(to, metric) = v;
            ngx_stream_tun_metric(object->total, metric) += v;
        }

        to += group->size;
        from += group->size;
    }

    return NGX_OK;
}
