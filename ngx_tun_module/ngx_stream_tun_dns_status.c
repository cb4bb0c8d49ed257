
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_dns.h>


typedef struct {
    ngx_str_t                name;
    size_t                   offset;
} ngx_stream_tun_dns_counter_t;


#define ngx_stream_tun_dns_counter(name)                                      \
    { ngx_string(#name), offsetof(ngx_tun_dns_stat_t, name) }

#define ngx_stream_tun_dns_value(stat, i)                                     \
    *(ngx_atomic_t *)                                                         \
        ((u_char *) (stat) + ngx_stream_tun_dns_counters[i].offset)


static ngx_array_t *ngx_stream_tun_dns_status_zones(ngx_cycle_t *cycle);
static ngx_uint_t ngx_stream_tun_dns_status_workers(
    ngx_stream_tun_dns_zone_t *zone);
static u_char *ngx_stream_tun_dns_json_zone(u_char *p,
    ngx_stream_tun_dns_zone_t *zone);
static u_char *ngx_stream_tun_dns_json_stat(u_char *p,
    ngx_tun_dns_stat_t *stat);


/* all of ngx_tun_dns_stat_t, which has nothing else */

static const ngx_stream_tun_dns_counter_t  ngx_stream_tun_dns_counters[] = {
    ngx_stream_tun_dns_counter(queries),
    ngx_stream_tun_dns_counter(tcp),
    ngx_stream_tun_dns_counter(connections),
    ngx_stream_tun_dns_counter(faked),
    ngx_stream_tun_dns_counter(empty),
    ngx_stream_tun_dns_counter(reverse),
    ngx_stream_tun_dns_counter(special),
    ngx_stream_tun_dns_counter(exhausted),
    ngx_stream_tun_dns_counter(forwarded),
    ngx_stream_tun_dns_counter(cached),
    ngx_stream_tun_dns_counter(joined),
    ngx_stream_tun_dns_counter(failed),
    ngx_stream_tun_dns_counter(upstream_queries),
    ngx_stream_tun_dns_counter(upstream_tcp),
    ngx_stream_tun_dns_counter(upstream_timeouts),
    ngx_stream_tun_dns_counter(upstream_invalid),
    ngx_stream_tun_dns_counter(malformed),
    ngx_stream_tun_dns_counter(refused),
    ngx_stream_tun_dns_counter(dropped),
    ngx_stream_tun_dns_counter(foreign),
    ngx_stream_tun_dns_counter(looped),
    ngx_stream_tun_dns_counter(limited_queries),
    ngx_stream_tun_dns_counter(limited_names),
    ngx_stream_tun_dns_counter(limited_connections),
    ngx_stream_tun_dns_counter(limited_forwards)
};


#define NGX_STREAM_TUN_DNS_N                                                  \
    (sizeof(ngx_stream_tun_dns_counters)                                      \
     / sizeof(ngx_stream_tun_dns_counter_t))

typedef char  ngx_stream_tun_dns_complete_t
    [NGX_STREAM_TUN_DNS_N * sizeof(ngx_atomic_t) == sizeof(ngx_tun_dns_stat_t)
     ? 1 : -1];


size_t
ngx_stream_tun_dns_json_size(ngx_cycle_t *cycle)
{
    size_t                       size, stat;
    ngx_str_t                   *name;
    ngx_uint_t                   i;
    ngx_array_t                 *zones;
    ngx_stream_tun_dns_zone_t  **zonep;

    size = sizeof("[]");
    zones = ngx_stream_tun_dns_status_zones(cycle);

    if (zones == NULL) {
        return size;
    }

    stat = sizeof("{},");

    for (i = 0; i < NGX_STREAM_TUN_DNS_N; i++) {
        stat += ngx_stream_tun_dns_counters[i].name.len
                + sizeof("\"\":,") + NGX_ATOMIC_T_LEN;
    }

    zonep = zones->elts;

    for (i = 0; i < zones->nelts; i++) {
        name = &zonep[i]->name;
        size += sizeof("{\"name\":\"\",\"total\":,\"workers\":[]},")
                + name->len + ngx_escape_json(NULL, name->data, name->len)
                + stat * (1 + NGX_STREAM_TUN_DNS_WORKERS);
    }

    return size;
}


u_char *
ngx_stream_tun_dns_json(u_char *p, ngx_cycle_t *cycle)
{
    ngx_uint_t                   i;
    ngx_array_t                 *zones;
    ngx_stream_tun_dns_zone_t  **zonep;

    zones = ngx_stream_tun_dns_status_zones(cycle);

    *p++ = '[';

    if (zones != NULL) {
        zonep = zones->elts;

        for (i = 0; i < zones->nelts; i++) {
            if (i != 0) {
                *p++ = ',';
            }

            p = ngx_stream_tun_dns_json_zone(p, zonep[i]);
        }
    }

    *p++ = ']';

    return p;
}


static ngx_array_t *
ngx_stream_tun_dns_status_zones(ngx_cycle_t *cycle)
{
    ngx_stream_tun_dns_main_conf_t  *dmcf;

    dmcf = ngx_stream_cycle_get_module_main_conf(cycle,
                                                 ngx_stream_tun_dns_module);

    return (dmcf != NULL) ? &dmcf->zones : NULL;
}


/* those that are, and those that were before a reload made them less */

static ngx_uint_t
ngx_stream_tun_dns_status_workers(ngx_stream_tun_dns_zone_t *zone)
{
    ngx_uint_t        n, first;
    ngx_atomic_t     *value;
    ngx_core_conf_t  *ccf;

    ccf = (ngx_core_conf_t *) ngx_get_conf(zone->cycle->conf_ctx,
                                           ngx_core_module);

    first = ccf->master ? (ngx_uint_t) ccf->worker_processes : 1;
    first = ngx_min(first, NGX_STREAM_TUN_DNS_WORKERS) * NGX_STREAM_TUN_DNS_N;

    value = (ngx_atomic_t *) zone->shared->stat;
    n = NGX_STREAM_TUN_DNS_WORKERS * NGX_STREAM_TUN_DNS_N;

    while (n > first && value[n - 1] == 0) {
        n--;
    }

    return (n + NGX_STREAM_TUN_DNS_N - 1) / NGX_STREAM_TUN_DNS_N;
}


/* each counter is read once, so that the total is the sum of what is shown */

static u_char *
ngx_stream_tun_dns_json_zone(u_char *p, ngx_stream_tun_dns_zone_t *zone)
{
    ngx_uint_t          i, n, workers;
    ngx_tun_dns_stat_t  total, stat[NGX_STREAM_TUN_DNS_WORKERS];

    workers = ngx_stream_tun_dns_status_workers(zone);

    ngx_memzero(&total, sizeof(ngx_tun_dns_stat_t));

    for (n = 0; n < workers; n++) {
        for (i = 0; i < NGX_STREAM_TUN_DNS_N; i++) {
            ngx_stream_tun_dns_value(&stat[n], i) =
                     ngx_stream_tun_dns_value(&zone->shared->stat[n], i);
            ngx_stream_tun_dns_value(&total, i) +=
                     ngx_stream_tun_dns_value(&stat[n], i);
        }
    }

    p = ngx_sprintf(p, "{\"name\":\"");
    p = (u_char *) ngx_escape_json(p, zone->name.data, zone->name.len);
    p = ngx_sprintf(p, "\",\"total\":");
    p = ngx_stream_tun_dns_json_stat(p, &total);
    p = ngx_sprintf(p, ",\"workers\":[");

    for (n = 0; n < workers; n++) {
        if (n != 0) {
            *p++ = ',';
        }

        p = ngx_stream_tun_dns_json_stat(p, &stat[n]);
    }

    return ngx_sprintf(p, "]}");
}


static u_char *
ngx_stream_tun_dns_json_stat(u_char *p, ngx_tun_dns_stat_t *stat)
{
    ngx_uint_t  i;

    *p++ = '{';

    for (i = 0; i < NGX_STREAM_TUN_DNS_N; i++) {
        if (i != 0) {
            *p++ = ',';
        }

        p = ngx_sprintf(p, "\"%V\":%uA",
                        &ngx_stream_tun_dns_counters[i].name,
                        ngx_stream_tun_dns_value(stat, i));
    }

    *p++ = '}';

    return p;
}
