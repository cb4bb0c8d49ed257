
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_dns.h>
#include <ngx_stream_tun_status.h>


#define counter(name, help)                                                   \
    ngx_stream_tun_counter(ngx_tun_dns_stat_t, name, help)


/* all of ngx_tun_dns_stat_t, which has nothing else */

static const ngx_stream_tun_metric_t  ngx_stream_tun_dns_metrics[] = {
    counter(queries, "Questions"),
    counter(tcp, "Questions over TCP"),
    counter(connections, "TCP connections"),
    counter(faked, "Answers with an address of the pool"),
    counter(empty, "Empty answers for types that a faked name has not"),
    counter(reverse, "Names of addresses of the pool"),
    counter(special, "Answers for names that are special"),
    counter(exhausted, "Questions for which no address was free"),
    counter(forwarded, "Questions passed on to a resolver"),
    counter(cached, "Answers from the cache"),
    counter(joined, "Questions that waited for another's answer"),
    counter(failed, "Questions that no resolver answered"),
    counter(upstream_queries, "Queries sent to resolvers"),
    counter(upstream_tcp, "Queries sent to resolvers over TCP"),
    counter(upstream_timeouts, "Queries that a resolver did not answer"),
    counter(upstream_invalid, "Messages of resolvers that fit no query"),
    counter(malformed, "Messages answered with FORMERR or NOTIMP"),
    counter(refused, "Questions refused"),
    counter(dropped, "Messages not to be answered"),
    counter(foreign, "Questions from sources that are not near"),
    counter(looped, "Our own queries, come back"),
    counter(limited_queries, "Questions dropped: over qps of a client"),
    counter(limited_names, "Questions refused: over names of a client"),
    counter(limited_connections, "Connections closed: over tcp of a client"),
    counter(limited_forwards, "Questions not passed on: too many wait")
};


#undef counter


#define NGX_STREAM_TUN_DNS_N                                                  \
    (sizeof(ngx_stream_tun_dns_metrics) / sizeof(ngx_stream_tun_metric_t))

typedef char  ngx_stream_tun_dns_complete_t
    [NGX_STREAM_TUN_DNS_N * sizeof(ngx_atomic_t) == sizeof(ngx_tun_dns_stat_t)
     ? 1 : -1];


ngx_int_t
ngx_stream_tun_dns_status(ngx_stream_tun_group_t *group, ngx_pool_t *pool)
{
    ngx_uint_t                       i;
    ngx_stream_tun_object_t         *object;
    ngx_stream_tun_dns_zone_t      **zonep;
    ngx_stream_tun_dns_main_conf_t  *dmcf;

    ngx_str_set(&group->key, "dns");
    ngx_str_set(&group->prefix, "nginx_tun_dns_");
    ngx_str_set(&group->label, "zone");

    group->title = "DNS of";
    group->metrics = ngx_stream_tun_dns_metrics;
    group->nmetrics = NGX_STREAM_TUN_DNS_N;
    group->size = sizeof(ngx_tun_dns_stat_t);

    dmcf = ngx_stream_cycle_get_module_main_conf(ngx_cycle,
                                                 ngx_stream_tun_dns_module);
    if (dmcf == NULL) {
        return NGX_OK;
    }

    zonep = dmcf->zones.elts;

    for (i = 0; i < dmcf->zones.nelts; i++) {
        object = ngx_array_push(&group->objects);
        if (object == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(object, sizeof(ngx_stream_tun_object_t));
        object->name = zonep[i]->name;

        if (ngx_stream_tun_status_copy(group, object, zonep[i]->shared->stat,
                                       NGX_STREAM_TUN_DNS_WORKERS, pool)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}
