
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_fakeip.h>


#define NGX_STREAM_TUN_FAKEIP_SYNC  60000


static void *ngx_stream_tun_fakeip_create_main_conf(ngx_conf_t *cf);
static void *ngx_stream_tun_fakeip_create_srv_conf(ngx_conf_t *cf);
static char *ngx_stream_tun_fakeip_merge_srv_conf(ngx_conf_t *cf,
    void *parent, void *child);
static ngx_int_t ngx_stream_tun_fakeip_postconfiguration(ngx_conf_t *cf);

static ngx_int_t ngx_stream_tun_fakeip_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_stream_tun_fakeip_init_process(ngx_cycle_t *cycle);
static void ngx_stream_tun_fakeip_sync(ngx_event_t *ev);
static ngx_array_t *ngx_stream_tun_fakeip_zones(ngx_cycle_t *cycle);


static ngx_conf_enum_t  ngx_stream_tun_fakeip_misses[] = {
    { ngx_string("refuse"), NGX_STREAM_TUN_FAKEIP_REFUSE },
    { ngx_string("sniff"), NGX_STREAM_TUN_FAKEIP_SNIFF },
    { ngx_null_string, 0 }
};


static ngx_command_t  ngx_stream_tun_fakeip_commands[] = {

    { ngx_string("tun_fakeip_zone"),
      NGX_STREAM_MAIN_CONF|NGX_CONF_2MORE,
      ngx_stream_tun_fakeip_zone,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tun_fakeip_host"),
      NGX_STREAM_MAIN_CONF|NGX_CONF_TAKE3,
      ngx_stream_tun_fakeip_host,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tun_fakeip_miss"),
      NGX_STREAM_MAIN_CONF|NGX_STREAM_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_STREAM_SRV_CONF_OFFSET,
      offsetof(ngx_stream_tun_fakeip_srv_conf_t, miss),
      &ngx_stream_tun_fakeip_misses },

      ngx_null_command
};


static ngx_stream_module_t  ngx_stream_tun_fakeip_module_ctx = {
    NULL,                                    /* preconfiguration */
    ngx_stream_tun_fakeip_postconfiguration, /* postconfiguration */

    ngx_stream_tun_fakeip_create_main_conf,  /* create main configuration */
    NULL,                                    /* init main configuration */

    ngx_stream_tun_fakeip_create_srv_conf,   /* create server configuration */
    ngx_stream_tun_fakeip_merge_srv_conf     /* merge server configuration */
};


ngx_module_t  ngx_stream_tun_fakeip_module = {
    NGX_MODULE_V1,
    &ngx_stream_tun_fakeip_module_ctx,     /* module context */
    ngx_stream_tun_fakeip_commands,        /* module directives */
    NGX_STREAM_MODULE,                     /* module type */
    NULL,                                  /* init master */
    ngx_stream_tun_fakeip_init_module,     /* init module */
    ngx_stream_tun_fakeip_init_process,    /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_stream_tun_fakeip_create_main_conf(ngx_conf_t *cf)
{
    ngx_stream_tun_fakeip_main_conf_t  *fmcf;

    fmcf = ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_fakeip_main_conf_t));
    if (fmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&fmcf->zones, cf->pool, 1,
                       sizeof(ngx_stream_tun_fakeip_zone_t *))
        != NGX_OK)
    {
        return NULL;
    }

    return fmcf;
}


static void *
ngx_stream_tun_fakeip_create_srv_conf(ngx_conf_t *cf)
{
    ngx_stream_tun_fakeip_srv_conf_t  *fscf;

    fscf = ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_fakeip_srv_conf_t));
    if (fscf == NULL) {
        return NULL;
    }

    fscf->miss = NGX_CONF_UNSET_UINT;

    return fscf;
}


static char *
ngx_stream_tun_fakeip_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_stream_tun_fakeip_srv_conf_t *prev = parent;
    ngx_stream_tun_fakeip_srv_conf_t *conf = child;

    ngx_conf_merge_uint_value(conf->miss, prev->miss,
                              NGX_STREAM_TUN_FAKEIP_REFUSE);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_stream_tun_fakeip_postconfiguration(ngx_conf_t *cf)
{
    ngx_stream_handler_pt              *h;
    ngx_stream_core_main_conf_t        *cmcf;
    ngx_stream_tun_fakeip_main_conf_t  *fmcf;

    fmcf = ngx_stream_conf_get_module_main_conf(cf,
                                                ngx_stream_tun_fakeip_module);

    if (fmcf->zones.nelts == 0) {
        return NGX_OK;
    }

    cmcf = ngx_stream_conf_get_module_main_conf(cf, ngx_stream_core_module);

    h = ngx_array_push(
                 &cmcf->phases[NGX_STREAM_POST_ACCEPT_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_stream_tun_fakeip_handler;

    return ngx_stream_tun_fakeip_check(cf, fmcf);
}


static ngx_int_t
ngx_stream_tun_fakeip_init_module(ngx_cycle_t *cycle)
{
    ngx_uint_t                      i;
    ngx_array_t                    *zones;
    ngx_stream_tun_fakeip_zone_t  **zonep;

    zones = ngx_stream_tun_fakeip_zones(cycle);

    if (zones == NULL || ngx_test_config) {
        return NGX_OK;
    }

    zonep = zones->elts;

    for (i = 0; i < zones->nelts; i++) {
        ngx_stream_tun_fakeip_commit(zonep[i]);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_fakeip_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                      i;
    ngx_array_t                    *zones;
    ngx_stream_tun_fakeip_zone_t  **zonep, *zone;

    zones = ngx_stream_tun_fakeip_zones(cycle);

    if (zones == NULL
        || (ngx_process != NGX_PROCESS_WORKER
            && ngx_process != NGX_PROCESS_SINGLE))
    {
        return NGX_OK;
    }

    zonep = zones->elts;

    for (i = 0; i < zones->nelts; i++) {
        zone = zonep[i];

        ngx_tun_fakeip_init_worker(&zone->fip, ngx_worker);

        if (zone->fip.file != NULL && ngx_worker == 0) {
            zone->sync.handler = ngx_stream_tun_fakeip_sync;
            zone->sync.data = zone;
            zone->sync.log = cycle->log;
            zone->sync.cancelable = 1;

            ngx_add_timer(&zone->sync, NGX_STREAM_TUN_FAKEIP_SYNC);
        }
    }

    return NGX_OK;
}


static void
ngx_stream_tun_fakeip_sync(ngx_event_t *ev)
{
    ngx_stream_tun_fakeip_zone_t  *zone;

    zone = ev->data;

    ngx_tun_fakeip_file_sync(&zone->fip);

    if (!ngx_exiting) {
        ngx_add_timer(ev, NGX_STREAM_TUN_FAKEIP_SYNC);
    }
}


static ngx_array_t *
ngx_stream_tun_fakeip_zones(ngx_cycle_t *cycle)
{
    ngx_stream_tun_fakeip_main_conf_t  *fmcf;

    if (cycle->conf_ctx == NULL
        || ngx_get_conf(cycle->conf_ctx, ngx_stream_module) == NULL)
    {
        return NULL;
    }

    fmcf = ngx_stream_cycle_get_module_main_conf(cycle,
                                                 ngx_stream_tun_fakeip_module);

    return &fmcf->zones;
}
