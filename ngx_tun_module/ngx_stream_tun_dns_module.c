
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_dns.h>
#include <ngx_stream_tun_upstream.h>

#include <sys/random.h>


static void *ngx_stream_tun_dns_create_main_conf(ngx_conf_t *cf);
static void *ngx_stream_tun_dns_create_srv_conf(ngx_conf_t *cf);
static char *ngx_stream_tun_dns_merge_srv_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_stream_tun_dns(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_stream_tun_dns_zone_t *ngx_stream_tun_dns_zone(ngx_conf_t *cf,
    ngx_str_t *name);
static ngx_int_t ngx_stream_tun_dns_init_zone(ngx_shm_zone_t *shm_zone,
    void *data);
static char *ngx_stream_tun_dns_upstream(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_stream_tun_dns_cache(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_stream_tun_dns_limit(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_stream_tun_dns_limit_param(ngx_str_t *value,
    ngx_tun_dns_limit_conf_t *limit);
static ngx_int_t ngx_stream_tun_dns_init_process(ngx_cycle_t *cycle);
static ngx_int_t ngx_stream_tun_dns_init_forwarder(ngx_cycle_t *cycle,
    ngx_stream_core_srv_conf_t *cscf, ngx_stream_tun_dns_srv_conf_t *dscf);


static ngx_conf_enum_t  ngx_stream_tun_dns_https[] = {
    { ngx_string("empty"), NGX_STREAM_TUN_DNS_EMPTY },
    { ngx_string("strip"), NGX_STREAM_TUN_DNS_STRIP },
    { ngx_null_string, 0 }
};


static ngx_conf_enum_t  ngx_stream_tun_dns_other[] = {
    { ngx_string("forward"), NGX_STREAM_TUN_DNS_FORWARD },
    { ngx_string("nodata"), NGX_STREAM_TUN_DNS_NODATA },
    { ngx_null_string, 0 }
};


static ngx_conf_bitmask_t  ngx_stream_tun_dns_special[] = {
    { ngx_string("localhost"), NGX_TUN_DNS_SPECIAL_LOCALHOST },
    { ngx_string("reserved"), NGX_TUN_DNS_SPECIAL_RESERVED },
    { ngx_string("local"), NGX_TUN_DNS_SPECIAL_LOCAL },
    { ngx_string("home"), NGX_TUN_DNS_SPECIAL_HOME },
    { ngx_string("nat64"), NGX_TUN_DNS_SPECIAL_NAT64 },
    { ngx_string("doh"), NGX_TUN_DNS_SPECIAL_DOH },
    { ngx_string("off"), NGX_STREAM_TUN_DNS_NONE },
    { ngx_null_string, 0 }
};


static ngx_command_t  ngx_stream_tun_dns_commands[] = {

    { ngx_string("tun_dns"),
      NGX_STREAM_SRV_CONF|NGX_CONF_TAKE12,
      ngx_stream_tun_dns,
      NGX_STREAM_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tun_dns_pass"),
      NGX_STREAM_SRV_CONF|NGX_CONF_TAKE1,
      ngx_stream_tun_dns_upstream,
      NGX_STREAM_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tun_dns_cache"),
      NGX_STREAM_MAIN_CONF|NGX_STREAM_SRV_CONF|NGX_CONF_TAKE1,
      ngx_stream_tun_dns_cache,
      NGX_STREAM_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tun_dns_fake"),
      NGX_STREAM_MAIN_CONF|NGX_STREAM_SRV_CONF|NGX_CONF_TAKE1,
      ngx_stream_set_complex_value_slot,
      NGX_STREAM_SRV_CONF_OFFSET,
      offsetof(ngx_stream_tun_dns_srv_conf_t, fake),
      NULL },

    { ngx_string("tun_dns_special"),
      NGX_STREAM_MAIN_CONF|NGX_STREAM_SRV_CONF|NGX_CONF_1MORE,
      ngx_conf_set_bitmask_slot,
      NGX_STREAM_SRV_CONF_OFFSET,
      offsetof(ngx_stream_tun_dns_srv_conf_t, special),
      &ngx_stream_tun_dns_special },

    { ngx_string("tun_dns_https"),
      NGX_STREAM_MAIN_CONF|NGX_STREAM_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_STREAM_SRV_CONF_OFFSET,
      offsetof(ngx_stream_tun_dns_srv_conf_t, https),
      &ngx_stream_tun_dns_https },

    { ngx_string("tun_dns_other"),
      NGX_STREAM_MAIN_CONF|NGX_STREAM_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_STREAM_SRV_CONF_OFFSET,
      offsetof(ngx_stream_tun_dns_srv_conf_t, other),
      &ngx_stream_tun_dns_other },

    { ngx_string("tun_dns_limit"),
      NGX_STREAM_MAIN_CONF|NGX_STREAM_SRV_CONF|NGX_CONF_1MORE,
      ngx_stream_tun_dns_limit,
      NGX_STREAM_SRV_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_stream_module_t  ngx_stream_tun_dns_module_ctx = {
    ngx_stream_tun_dns_add_variables,      /* preconfiguration */
    NULL,                                  /* postconfiguration */

    ngx_stream_tun_dns_create_main_conf,   /* create main configuration */
    NULL,                                  /* init main configuration */

    ngx_stream_tun_dns_create_srv_conf,    /* create server configuration */
    ngx_stream_tun_dns_merge_srv_conf      /* merge server configuration */
};


ngx_module_t  ngx_stream_tun_dns_module = {
    NGX_MODULE_V1,
    &ngx_stream_tun_dns_module_ctx,        /* module context */
    ngx_stream_tun_dns_commands,           /* module directives */
    NGX_STREAM_MODULE,                     /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_stream_tun_dns_init_process,       /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_stream_tun_dns_create_main_conf(ngx_conf_t *cf)
{
    ngx_stream_tun_dns_main_conf_t  *dmcf;

    dmcf = ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_dns_main_conf_t));
    if (dmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&dmcf->zones, cf->pool, 1,
                       sizeof(ngx_stream_tun_dns_zone_t *))
        != NGX_OK)
    {
        return NULL;
    }

    dmcf->near = ngx_pcalloc(cf->pool, sizeof(ngx_tun_dns_near_t));
    if (dmcf->near == NULL) {
        return NULL;
    }

    return dmcf;
}


static void *
ngx_stream_tun_dns_create_srv_conf(ngx_conf_t *cf)
{
    ngx_stream_tun_dns_srv_conf_t  *dscf;

    dscf = ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_dns_srv_conf_t));
    if (dscf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     dscf->zone = NULL;
     *     dscf->public = 0;
     *     dscf->fake = NULL;
     *     dscf->special = 0;
     *     dscf->upstream = NULL;
     *     dscf->forwarder = NULL;
     *     dscf->buffer = NULL;
     */

    dscf->cache = NGX_CONF_UNSET_SIZE;
    dscf->https = NGX_CONF_UNSET_UINT;
    dscf->other = NGX_CONF_UNSET_UINT;
    dscf->limit.qps = NGX_CONF_UNSET_UINT;
    dscf->limit.burst = NGX_CONF_UNSET_UINT;
    dscf->limit.names = NGX_CONF_UNSET_UINT;
    dscf->limit.tcp = NGX_CONF_UNSET_UINT;

    return dscf;
}


static char *
ngx_stream_tun_dns_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_stream_tun_dns_srv_conf_t *prev = parent;
    ngx_stream_tun_dns_srv_conf_t *conf = child;

    if (conf->upstream != NULL && conf->zone == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "a server has \"tun_dns_pass\", but no \"tun_dns\"");
        return NGX_CONF_ERROR;
    }

    if (conf->fake == NULL) {
        conf->fake = prev->fake;
    }

    ngx_conf_merge_bitmask_value(conf->special, prev->special,
                                 NGX_CONF_BITMASK_SET|NGX_TUN_DNS_SPECIAL_ALL);
    ngx_conf_merge_uint_value(conf->https, prev->https,
                              NGX_STREAM_TUN_DNS_EMPTY);
    ngx_conf_merge_uint_value(conf->other, prev->other,
                              NGX_STREAM_TUN_DNS_FORWARD);

    ngx_conf_merge_size_value(conf->cache, prev->cache, 1024 * 1024);

    ngx_conf_merge_uint_value(conf->limit.qps, prev->limit.qps, 1000);
    ngx_conf_merge_uint_value(conf->limit.burst, prev->limit.burst, 2000);
    ngx_conf_merge_uint_value(conf->limit.names, prev->limit.names, 1000);
    ngx_conf_merge_uint_value(conf->limit.tcp, prev->limit.tcp, 32);

    return NGX_CONF_OK;
}


static char *
ngx_stream_tun_dns(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_dns_srv_conf_t *dscf = conf;

    ngx_str_t                         *value;
    ngx_stream_core_srv_conf_t        *cscf;
    ngx_stream_tun_fakeip_srv_conf_t  *fscf;

    if (dscf->zone != NULL) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (cf->args->nelts == 3) {

        if (ngx_strcmp(value[2].data, "public") != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\"", &value[2]);
            return NGX_CONF_ERROR;
        }

        dscf->public = 1;
    }

    dscf->zone = ngx_stream_tun_dns_zone(cf, &value[1]);

    if (dscf->zone == NULL) {
        return NGX_CONF_ERROR;
    }

    cscf = ngx_stream_conf_get_module_srv_conf(cf, ngx_stream_core_module);
    cscf->handler = ngx_stream_tun_dns_handler;

    /* it answers at any address, one of the pool without a name too */

    fscf = ngx_stream_conf_get_module_srv_conf(cf,
                                               ngx_stream_tun_fakeip_module);

    if (fscf->miss == NGX_CONF_UNSET_UINT) {
        fscf->miss = NGX_STREAM_TUN_FAKEIP_SNIFF;
    }

    return NGX_CONF_OK;
}


static ngx_stream_tun_dns_zone_t *
ngx_stream_tun_dns_zone(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_str_t                        shm_name;
    ngx_uint_t                       i;
    ngx_stream_tun_dns_zone_t       *zone, **zonep;
    ngx_stream_tun_dns_main_conf_t  *dmcf;

    dmcf = ngx_stream_conf_get_module_main_conf(cf, ngx_stream_tun_dns_module);
    zonep = dmcf->zones.elts;

    for (i = 0; i < dmcf->zones.nelts; i++) {

        if (zonep[i]->name.len == name->len
            && ngx_strncmp(zonep[i]->name.data, name->data, name->len) == 0)
        {
            return zonep[i];
        }
    }

    zone = ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_dns_zone_t));
    zonep = ngx_array_push(&dmcf->zones);
    shm_name.data = ngx_pnalloc(cf->pool, sizeof("tun_dns:") - 1 + name->len);

    if (zone == NULL || zonep == NULL || shm_name.data == NULL) {
        return NULL;
    }

    *zonep = zone;
    zone->name = *name;
    zone->cycle = cf->cycle;

    zone->fip = ngx_stream_tun_fakeip_pool(cf, name);
    if (zone->fip == NULL) {
        return NULL;
    }

    shm_name.len = ngx_sprintf(shm_name.data, "tun_dns:%V", name)
                   - shm_name.data;

    zone->shm_zone = ngx_shared_memory_add(cf, &shm_name,
                                  sizeof(ngx_stream_tun_dns_shared_t) / 64 * 65
                                  + 16 * ngx_pagesize,
                                  &ngx_stream_tun_dns_module);
    if (zone->shm_zone == NULL) {
        return NULL;
    }

    zone->shm_zone->init = ngx_stream_tun_dns_init_zone;
    zone->shm_zone->data = zone;

    return zone;
}


static ngx_int_t
ngx_stream_tun_dns_init_zone(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_stream_tun_dns_zone_t *old = data;

    ngx_slab_pool_t              *shpool;
    ngx_stream_tun_dns_zone_t    *zone;
    ngx_stream_tun_dns_shared_t  *shared;

    zone = shm_zone->data;

    if (ngx_stream_tun_dns_check_loops(zone->cycle, zone) != NGX_OK) {
        return NGX_ERROR;
    }

    if (old != NULL) {
        zone->shared = old->shared;
        return NGX_OK;
    }

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (shm_zone->shm.exists) {
        zone->shared = shpool->data;
        return NGX_OK;
    }

    shared = ngx_slab_calloc(shpool, sizeof(ngx_stream_tun_dns_shared_t));
    if (shared == NULL) {
        return NGX_ERROR;
    }

    shpool->data = shared;
    zone->shared = shared;

    if (getrandom(shared->tag, NGX_TUN_DNS_TAG_LEN, 0) != NGX_TUN_DNS_TAG_LEN
        || getrandom(shared->limit.key, NGX_TUN_FAKEIP_KEY_LEN, 0)
           != NGX_TUN_FAKEIP_KEY_LEN)
    {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, ngx_errno,
                      "getrandom() failed");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static char *
ngx_stream_tun_dns_upstream(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_dns_srv_conf_t *dscf = conf;

    ngx_url_t   u;
    ngx_str_t  *value;

    if (dscf->upstream != NULL) {
        return "is duplicate";
    }

    value = cf->args->elts;

    dscf->file = cf->conf_file->file.name.data;
    dscf->line = cf->conf_file->line;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = value[1];
    u.no_resolve = 1;

    dscf->upstream = ngx_stream_upstream_add(cf, &u, 0);

    return (dscf->upstream == NULL) ? NGX_CONF_ERROR : NGX_CONF_OK;
}


static char *
ngx_stream_tun_dns_cache(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_dns_srv_conf_t *dscf = conf;

    ssize_t     size;
    ngx_str_t  *value;

    if (dscf->cache != NGX_CONF_UNSET_SIZE) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        dscf->cache = 0;
        return NGX_CONF_OK;
    }

    size = ngx_parse_size(&value[1]);

    if (size == NGX_ERROR || size < 64 * 1024) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid size \"%V\", it must be at least 64k",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    dscf->cache = size;

    return NGX_CONF_OK;
}


static char *
ngx_stream_tun_dns_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_dns_srv_conf_t *dscf = conf;

    ngx_str_t                 *value;
    ngx_uint_t                 i;
    ngx_tun_dns_limit_conf_t  *limit;

    limit = &dscf->limit;
    value = cf->args->elts;

    if (limit->qps != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        ngx_memzero(limit, sizeof(ngx_tun_dns_limit_conf_t));
        return NGX_CONF_OK;
    }

    limit->qps = 1000;
    limit->burst = 2000;
    limit->names = 1000;
    limit->tcp = 32;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_stream_tun_dns_limit_param(&value[i], limit) != NGX_OK) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\"", &value[i]);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_stream_tun_dns_limit_param(ngx_str_t *value,
    ngx_tun_dns_limit_conf_t *limit)
{
    size_t       len;
    u_char      *p;
    ngx_int_t    n;
    ngx_uint_t  *field;

    p = value->data;
    len = value->len;

    if (ngx_strncmp(p, "qps=", 4) == 0) {
        field = &limit->qps;
        p += 4;

    } else if (ngx_strncmp(p, "burst=", 6) == 0) {
        field = &limit->burst;
        p += 6;

    } else if (ngx_strncmp(p, "names=", 6) == 0) {
        field = &limit->names;
        p += 6;

        if (len < 9 || ngx_strcmp(value->data + len - 3, "r/m") != 0) {
            return NGX_ERROR;
        }

        len -= 3;

    } else if (ngx_strncmp(p, "tcp=", 4) == 0) {
        field = &limit->tcp;
        p += 4;

    } else {
        return NGX_ERROR;
    }

    n = ngx_atoi(p, value->data + len - p);

    if (n == NGX_ERROR || n > 1000000) {
        return NGX_ERROR;
    }

    *field = n;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_dns_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                        i;
    ngx_stream_core_srv_conf_t      **cscfp;
    ngx_stream_core_main_conf_t      *cmcf;
    ngx_stream_tun_dns_zone_t       **zonep;
    ngx_stream_tun_dns_srv_conf_t    *dscf;
    ngx_stream_tun_dns_main_conf_t   *dmcf;

    dmcf = ngx_stream_cycle_get_module_main_conf(cycle,
                                                 ngx_stream_tun_dns_module);
    if (dmcf == NULL) {
        return NGX_OK;
    }

    zonep = dmcf->zones.elts;

    for (i = 0; i < dmcf->zones.nelts; i++) {
        zonep[i]->stat = &zonep[i]->shared->stat[ngx_worker
                                                 % NGX_STREAM_TUN_DNS_WORKERS];
    }

    cmcf = ngx_stream_cycle_get_module_main_conf(cycle,
                                                 ngx_stream_core_module);
    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        dscf = cscfp[i]->ctx->srv_conf[ngx_stream_tun_dns_module.ctx_index];

        if (dscf->zone != NULL && dscf->upstream != NULL
            && ngx_stream_tun_dns_init_forwarder(cycle, cscfp[i], dscf)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return ngx_stream_tun_dns_init_batches(cycle, dmcf);
}


static ngx_int_t
ngx_stream_tun_dns_init_forwarder(ngx_cycle_t *cycle,
    ngx_stream_core_srv_conf_t *cscf, ngx_stream_tun_dns_srv_conf_t *dscf)
{
    ngx_tun_dns_forwarder_t  *fwd;

    fwd = ngx_pcalloc(cycle->pool, sizeof(ngx_tun_dns_forwarder_t));
    dscf->buffer = ngx_palloc(cycle->pool, 2 + NGX_TUN_DNS_MESSAGE_MAX);

    if (fwd == NULL || dscf->buffer == NULL) {
        return NGX_ERROR;
    }

    fwd->fip = dscf->zone->fip;
    fwd->stat = dscf->zone->stat;
    fwd->tag = dscf->zone->shared->tag;
    fwd->log = cycle->log;
    fwd->connect = ngx_stream_tun_guard_connect_peer;
    fwd->options = ngx_stream_tun_dns_options(cscf, dscf);

    /* each takes a connection, or some, and so does who waits for it */

    fwd->max = ngx_min(NGX_STREAM_TUN_DNS_FORWARDS, cycle->connection_n / 4);
    fwd->max_size = dscf->cache;

    dscf->forwarder = fwd;

    return ngx_tun_dns_init_forwarder(fwd, cycle->pool);
}
