
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_fakeip.h>
#include <ngx_stream_tun_status.h>


typedef struct {
    ngx_atomic_t             names;
    ngx_atomic_t             capacity;
    ngx_tun_fakeip_stat_t    stat;
} ngx_stream_tun_fakeip_stat_t;


static ngx_int_t ngx_stream_tun_fakeip_status_zone(
    ngx_stream_tun_group_t *group, ngx_stream_tun_fakeip_zone_t *zone,
    ngx_pool_t *pool);


#define pool(name, help)                                                      \
    ngx_stream_tun_gauge(ngx_stream_tun_fakeip_stat_t, name, help)

#define counter(name, help)                                                   \
    { ngx_string(#name), help,                                                \
      offsetof(ngx_stream_tun_fakeip_stat_t, stat.name), 0 }


/* all of ngx_tun_fakeip_stat_t, which has nothing else */

static const ngx_stream_tun_metric_t  ngx_stream_tun_fakeip_metrics[] = {
    pool(names, "Names that have an address"),
    pool(capacity, "Addresses that may be given to names"),
    counter(hits, "Questions for a name that had an address"),
    counter(assigned, "Names that got an address"),
    counter(evicted, "Addresses taken from idle names"),
    counter(exhausted, "Names that got none, for nothing was free"),
    counter(unknown, "Names that were only looked for"),
    counter(found, "Addresses that had a name"),
    counter(missed, "Addresses that had no name"),
    counter(dropped, "Damaged entries of the file"),
    counter(recovered, "Locks taken from workers that died")
};


#undef pool
#undef counter


#define NGX_STREAM_TUN_FAKEIP_N                                               \
    (sizeof(ngx_stream_tun_fakeip_metrics) / sizeof(ngx_stream_tun_metric_t))

typedef char  ngx_stream_tun_fakeip_complete_t
    [NGX_STREAM_TUN_FAKEIP_N * sizeof(ngx_atomic_t)
     == sizeof(ngx_stream_tun_fakeip_stat_t) ? 1 : -1];


ngx_int_t
ngx_stream_tun_fakeip_status(ngx_stream_tun_group_t *group, ngx_pool_t *pool)
{
    ngx_uint_t                          i;
    ngx_stream_tun_fakeip_zone_t      **zonep;
    ngx_stream_tun_fakeip_main_conf_t  *fmcf;

    ngx_str_set(&group->key, "fakeip");
    ngx_str_set(&group->prefix, "nginx_tun_fakeip_");
    ngx_str_set(&group->label, "zone");

    group->title = "Names of";
    group->own = ngx_stream_tun_fakeip_metrics;
    group->nown = NGX_STREAM_TUN_FAKEIP_N;

    fmcf = ngx_stream_cycle_get_module_main_conf(ngx_cycle,
                                                 ngx_stream_tun_fakeip_module);
    if (fmcf == NULL) {
        return NGX_OK;
    }

    zonep = fmcf->zones.elts;

    for (i = 0; i < fmcf->zones.nelts; i++) {
        if (ngx_stream_tun_fakeip_status_zone(group, zonep[i], pool)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_fakeip_status_zone(ngx_stream_tun_group_t *group,
    ngx_stream_tun_fakeip_zone_t *zone, ngx_pool_t *pool)
{
    ngx_stream_tun_object_t       *object;
    ngx_stream_tun_fakeip_stat_t  *own;

    object = ngx_array_push(&group->objects);
    if (object == NULL) {
        return NGX_ERROR;
    }

    own = ngx_pcalloc(pool, sizeof(ngx_stream_tun_fakeip_stat_t));
    if (own == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(object, sizeof(ngx_stream_tun_object_t));

    object->name = zone->name;
    object->own = own;

    own->names = ngx_tun_fakeip_names(&zone->fip);
    own->capacity = ngx_tun_fakeip_capacity(&zone->fip);

    ngx_tun_fakeip_stat(&zone->fip, &own->stat);

    return NGX_OK;
}
