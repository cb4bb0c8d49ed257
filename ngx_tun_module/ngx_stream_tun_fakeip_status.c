
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_fakeip.h>


typedef struct {
    ngx_str_t                name;
    size_t                   offset;
} ngx_stream_tun_fakeip_counter_t;


#define ngx_stream_tun_fakeip_counter(name)                                   \
    { ngx_string(#name), offsetof(ngx_tun_fakeip_stat_t, name) }


static ngx_array_t *ngx_stream_tun_fakeip_status_zones(ngx_cycle_t *cycle);
static u_char *ngx_stream_tun_fakeip_json_zone(u_char *p,
    ngx_stream_tun_fakeip_zone_t *zone);


/* all of ngx_tun_fakeip_stat_t, which has nothing else */

static const ngx_stream_tun_fakeip_counter_t
    ngx_stream_tun_fakeip_counters[] =
{
    ngx_stream_tun_fakeip_counter(hits),
    ngx_stream_tun_fakeip_counter(assigned),
    ngx_stream_tun_fakeip_counter(evicted),
    ngx_stream_tun_fakeip_counter(exhausted),
    ngx_stream_tun_fakeip_counter(unknown),
    ngx_stream_tun_fakeip_counter(found),
    ngx_stream_tun_fakeip_counter(missed),
    ngx_stream_tun_fakeip_counter(dropped),
    ngx_stream_tun_fakeip_counter(recovered)
};


#define NGX_STREAM_TUN_FAKEIP_N                                               \
    (sizeof(ngx_stream_tun_fakeip_counters)                                   \
     / sizeof(ngx_stream_tun_fakeip_counter_t))

typedef char  ngx_stream_tun_fakeip_complete_t
    [NGX_STREAM_TUN_FAKEIP_N * sizeof(ngx_atomic_t)
     == sizeof(ngx_tun_fakeip_stat_t) ? 1 : -1];


size_t
ngx_stream_tun_fakeip_json_size(ngx_cycle_t *cycle)
{
    size_t                          size, zone;
    ngx_str_t                      *name;
    ngx_uint_t                      i;
    ngx_array_t                    *zones;
    ngx_stream_tun_fakeip_zone_t  **zonep;

    size = sizeof("[]");
    zones = ngx_stream_tun_fakeip_status_zones(cycle);

    if (zones == NULL) {
        return size;
    }

    zone = sizeof("{\"name\":\"\",\"names\":,\"capacity\":},")
           + 2 * NGX_INT32_LEN;

    for (i = 0; i < NGX_STREAM_TUN_FAKEIP_N; i++) {
        zone += ngx_stream_tun_fakeip_counters[i].name.len
                + sizeof("\"\":,") + NGX_ATOMIC_T_LEN;
    }

    zonep = zones->elts;

    for (i = 0; i < zones->nelts; i++) {
        name = &zonep[i]->name;
        size += zone + name->len
                + ngx_escape_json(NULL, name->data, name->len);
    }

    return size;
}


u_char *
ngx_stream_tun_fakeip_json(u_char *p, ngx_cycle_t *cycle)
{
    ngx_uint_t                      i;
    ngx_array_t                    *zones;
    ngx_stream_tun_fakeip_zone_t  **zonep;

    zones = ngx_stream_tun_fakeip_status_zones(cycle);

    *p++ = '[';

    if (zones != NULL) {
        zonep = zones->elts;

        for (i = 0; i < zones->nelts; i++) {
            if (i != 0) {
                *p++ = ',';
            }

            p = ngx_stream_tun_fakeip_json_zone(p, zonep[i]);
        }
    }

    *p++ = ']';

    return p;
}


static ngx_array_t *
ngx_stream_tun_fakeip_status_zones(ngx_cycle_t *cycle)
{
    ngx_stream_tun_fakeip_main_conf_t  *fmcf;

    fmcf = ngx_stream_cycle_get_module_main_conf(cycle,
                                                 ngx_stream_tun_fakeip_module);

    return (fmcf != NULL) ? &fmcf->zones : NULL;
}


static u_char *
ngx_stream_tun_fakeip_json_zone(u_char *p, ngx_stream_tun_fakeip_zone_t *zone)
{
    ngx_uint_t              i;
    ngx_tun_fakeip_stat_t   stat;

    p = ngx_sprintf(p, "{\"name\":\"");
    p = (u_char *) ngx_escape_json(p, zone->name.data, zone->name.len);
    p = ngx_sprintf(p, "\",\"names\":%uD,\"capacity\":%uD",
                    ngx_tun_fakeip_names(&zone->fip),
                    ngx_tun_fakeip_capacity(&zone->fip));

    ngx_tun_fakeip_stat(&zone->fip, &stat);

    for (i = 0; i < NGX_STREAM_TUN_FAKEIP_N; i++) {
        p = ngx_sprintf(p, ",\"%V\":%uA",
                        &ngx_stream_tun_fakeip_counters[i].name,
                        *(ngx_atomic_t *) ((u_char *) &stat
                                + ngx_stream_tun_fakeip_counters[i].offset));
    }

    *p++ = '}';

    return p;
}
