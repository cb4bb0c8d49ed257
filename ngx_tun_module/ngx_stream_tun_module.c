
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>

#include <net/if.h>


#define NGX_STREAM_TUN_ZONE_SIZE  (64 * 4096)


typedef struct {
    ngx_atomic_t             generation;
    ngx_tun_stat_t           stat[NGX_MAX_PROCESSES];
} ngx_stream_tun_shared_t;


static void *ngx_stream_tun_create_main_conf(ngx_conf_t *cf);
static void *ngx_stream_tun_create_srv_conf(ngx_conf_t *cf);
static char *ngx_stream_tun_merge_srv_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_stream_tun_postconfiguration(ngx_conf_t *cf);

static char *ngx_stream_tun_block(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_stream_tun_name(ngx_conf_t *cf, ngx_stream_tun_main_conf_t
    *tmcf, ngx_stream_tun_t *st);
static char *ngx_stream_tun_parse_block(ngx_conf_t *cf, ngx_stream_tun_t *st);
static char *ngx_stream_tun_check(ngx_conf_t *cf, ngx_stream_tun_t *st);
static ngx_int_t ngx_stream_tun_add_zone(ngx_conf_t *cf, ngx_stream_tun_t *st);
static char *ngx_stream_tun_address(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_stream_tun_parse_address(ngx_conf_t *cf, ngx_str_t *value,
    ngx_tun_address_t *addr);
static char *ngx_stream_tun_queues(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

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

static ngx_int_t ngx_stream_tun_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_stream_tun_init_process(ngx_cycle_t *cycle);
static void ngx_stream_tun_exit_process(ngx_cycle_t *cycle);
static ngx_stream_tun_main_conf_t *ngx_stream_tun_cycle_conf(
    ngx_cycle_t *cycle);


static ngx_conf_enum_t  ngx_stream_tun_stacks[] = {
    { ngx_string("lwip"), NGX_TUN_STACK_LWIP },
    { ngx_null_string, 0 }
};


static ngx_conf_enum_t  ngx_stream_tun_accepts[] = {
    { ngx_string("connected"), NGX_STREAM_TUN_CONNECTED },
    { ngx_string("early"), NGX_STREAM_TUN_EARLY },
    { ngx_null_string, 0 }
};


static ngx_conf_num_bounds_t  ngx_stream_tun_mtu_bounds = {
    ngx_conf_check_num_bounds, 576, 65535
};


static ngx_conf_num_bounds_t  ngx_stream_tun_number_bounds = {
    ngx_conf_check_num_bounds, 1, 1048576
};


static ngx_command_t  ngx_stream_tun_commands[] = {

    { ngx_string("tun"),
      NGX_STREAM_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_stream_tun_block,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tun_listen"),
      NGX_STREAM_SRV_CONF|NGX_CONF_1MORE,
      ngx_stream_tun_listen,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tun_accept"),
      NGX_STREAM_MAIN_CONF|NGX_STREAM_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_STREAM_SRV_CONF_OFFSET,
      offsetof(ngx_stream_tun_srv_conf_t, accept),
      &ngx_stream_tun_accepts },

    { ngx_string("address"),
      NGX_STREAM_TUN_CONF|NGX_CONF_1MORE,
      ngx_stream_tun_address,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("mtu"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.device.mtu),
      &ngx_stream_tun_mtu_bounds },

    { ngx_string("offload"),
      NGX_STREAM_TUN_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.device.offload),
      NULL },

    { ngx_string("stack"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.stack),
      &ngx_stream_tun_stacks },

    { ngx_string("queues"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_stream_tun_queues,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("netns"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.device.netns),
      NULL },

    { ngx_string("max_flows"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.max_flows),
      NULL },

    { ngx_string("max_pending"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.max_pending),
      &ngx_stream_tun_number_bounds },

    { ngx_string("max_half_open"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.max_half_open),
      &ngx_stream_tun_number_bounds },

    { ngx_string("max_memory"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.max_memory),
      NULL },

      ngx_null_command
};


static ngx_stream_module_t  ngx_stream_tun_module_ctx = {
    ngx_stream_tun_add_variables,          /* preconfiguration */
    ngx_stream_tun_postconfiguration,      /* postconfiguration */

    ngx_stream_tun_create_main_conf,       /* create main configuration */
    NULL,                                  /* init main configuration */

    ngx_stream_tun_create_srv_conf,        /* create server configuration */
    ngx_stream_tun_merge_srv_conf          /* merge server configuration */
};


ngx_module_t  ngx_stream_tun_module = {
    NGX_MODULE_V1,
    &ngx_stream_tun_module_ctx,            /* module context */
    ngx_stream_tun_commands,               /* module directives */
    NGX_STREAM_MODULE,                     /* module type */
    NULL,                                  /* init master */
    ngx_stream_tun_init_module,            /* init module */
    ngx_stream_tun_init_process,           /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_stream_tun_exit_process,           /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_stream_tun_create_main_conf(ngx_conf_t *cf)
{
    ngx_stream_tun_main_conf_t  *tmcf;

    tmcf = ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_main_conf_t));
    if (tmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&tmcf->tuns, cf->pool, 1, sizeof(ngx_stream_tun_t *))
        != NGX_OK)
    {
        return NULL;
    }

    if (ngx_array_init(&tmcf->listens, cf->pool, 4,
                       sizeof(ngx_stream_tun_listen_t *))
        != NGX_OK)
    {
        return NULL;
    }

    return tmcf;
}


static void *
ngx_stream_tun_create_srv_conf(ngx_conf_t *cf)
{
    ngx_stream_tun_srv_conf_t  *tscf;

    tscf = ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_srv_conf_t));
    if (tscf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     tscf->listen = 0;
     *     tscf->content_handler = NULL;
     */

    tscf->accept = NGX_CONF_UNSET_UINT;

    return tscf;
}


static char *
ngx_stream_tun_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_stream_tun_srv_conf_t *prev = parent;
    ngx_stream_tun_srv_conf_t *conf = child;

    ngx_conf_merge_uint_value(conf->accept, prev->accept,
                              NGX_STREAM_TUN_CONNECTED);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_stream_tun_postconfiguration(ngx_conf_t *cf)
{
    ngx_stream_tun_main_conf_t  *tmcf;

    tmcf = ngx_stream_conf_get_module_main_conf(cf, ngx_stream_tun_module);

    if (tmcf->listens.nelts == 0) {
        return NGX_OK;
    }

    ngx_stream_tun_init_sessions(cf, tmcf);

    return ngx_stream_tun_init_listens(cf, tmcf);
}


static char *
ngx_stream_tun_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_main_conf_t *tmcf = conf;

    char                    *rv;
    ngx_stream_tun_t        *st, **stp;
    ngx_tun_device_conf_t   *dcf;

    st = ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_t));
    if (st == NULL) {
        return NGX_CONF_ERROR;
    }

    st->cycle = cf->cycle;
    st->file = cf->conf_file->file.name.data;
    st->line = cf->conf_file->line;
    st->queues = NGX_CONF_UNSET;
    st->conf.stack = NGX_CONF_UNSET_UINT;
    st->conf.max_flows = NGX_CONF_UNSET;
    st->conf.max_pending = NGX_CONF_UNSET;
    st->conf.max_half_open = NGX_CONF_UNSET;
    st->conf.max_memory = NGX_CONF_UNSET_SIZE;

    dcf = &st->conf.device;
    dcf->mtu = NGX_CONF_UNSET_UINT;
    dcf->offload = NGX_CONF_UNSET;

    if (ngx_array_init(&dcf->addresses, cf->pool, 2, sizeof(ngx_tun_address_t))
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    if (ngx_array_init(&st->conf.listens, cf->pool, 4,
                       sizeof(ngx_tun_listen_t))
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    rv = ngx_stream_tun_name(cf, tmcf, st);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    rv = ngx_stream_tun_parse_block(cf, st);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    ngx_conf_init_uint_value(dcf->mtu, 1500);
    ngx_conf_init_value(dcf->offload, 1);
    ngx_conf_init_uint_value(st->conf.stack, NGX_TUN_STACK_LWIP);
    ngx_conf_init_value(st->conf.max_flows, 0);
    ngx_conf_init_value(st->conf.max_pending, 1024);
    ngx_conf_init_value(st->conf.max_half_open, 16384);
    ngx_conf_init_size_value(st->conf.max_memory, 256 * 1024 * 1024);

    rv = ngx_stream_tun_check(cf, st);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    stp = ngx_array_push(&tmcf->tuns);
    if (stp == NULL) {
        return NGX_CONF_ERROR;
    }

    *stp = st;

    return (ngx_stream_tun_add_zone(cf, st) == NGX_OK) ? NGX_CONF_OK
                                                       : NGX_CONF_ERROR;
}


static char *
ngx_stream_tun_name(ngx_conf_t *cf, ngx_stream_tun_main_conf_t *tmcf,
    ngx_stream_tun_t *st)
{
    u_char            *p;
    ngx_str_t         *value, *name;
    ngx_uint_t         i;
    ngx_stream_tun_t  **stp;

    value = cf->args->elts;
    name = &value[1];

    if (name->len == 0 || name->len >= IFNAMSIZ) {
        goto invalid;
    }

    for (p = name->data; p < name->data + name->len; p++) {
        if (*p <= ' ' || *p == '/' || *p == ':' || *p == '%' || *p > '~') {
            goto invalid;
        }
    }

    if (ngx_strcmp(name->data, ".") == 0 || ngx_strcmp(name->data, "..") == 0)
    {
        goto invalid;
    }

    stp = tmcf->tuns.elts;

    for (i = 0; i < tmcf->tuns.nelts; i++) {
        if (stp[i]->conf.device.name.len == name->len
            && ngx_strncmp(stp[i]->conf.device.name.data, name->data,
                           name->len)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate tun \"%V\", the first is in %s:%ui",
                               name, stp[i]->file, stp[i]->line);
            return NGX_CONF_ERROR;
        }
    }

    st->conf.device.name = *name;

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid device name \"%V\"", name);

    return NGX_CONF_ERROR;
}


static char *
ngx_stream_tun_parse_block(ngx_conf_t *cf, ngx_stream_tun_t *st)
{
    char                   *rv;
    void                  **main_conf;
    ngx_conf_t              save;
    ngx_stream_conf_ctx_t  *ctx, *stream_ctx;

    /* inside the block the main configuration of this module is the device's */

    stream_ctx = cf->ctx;

    ctx = ngx_pcalloc(cf->pool, sizeof(ngx_stream_conf_ctx_t));
    if (ctx == NULL) {
        return NGX_CONF_ERROR;
    }

    main_conf = ngx_palloc(cf->pool, sizeof(void *) * ngx_stream_max_module);
    if (main_conf == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memcpy(main_conf, stream_ctx->main_conf,
               sizeof(void *) * ngx_stream_max_module);

    main_conf[ngx_stream_tun_module.ctx_index] = st;

    ctx->main_conf = main_conf;
    ctx->srv_conf = stream_ctx->srv_conf;

    save = *cf;
    cf->ctx = ctx;
    cf->cmd_type = NGX_STREAM_TUN_CONF;

    rv = ngx_conf_parse(cf, NULL);

    *cf = save;

    return rv;
}


static char *
ngx_stream_tun_check(ngx_conf_t *cf, ngx_stream_tun_t *st)
{
    ngx_uint_t              i;
    ngx_tun_address_t      *addr;
    ngx_tun_device_conf_t  *dcf;

    dcf = &st->conf.device;

    if (dcf->addresses.nelts == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no \"address\" in tun \"%V\"", &dcf->name);
        return NGX_CONF_ERROR;
    }

    addr = dcf->addresses.elts;

    for (i = 0; i < dcf->addresses.nelts; i++) {

        /* RFC 8200, 5 */

        if (addr[i].addr_len == 16 && dcf->mtu < 1280) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"mtu\" of tun \"%V\" must be at least 1280 "
                               "with an IPv6 address", &dcf->name);
            return NGX_CONF_ERROR;
        }
    }

    if (st->conf.max_flows < 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid \"max_flows\" of tun \"%V\"", &dcf->name);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
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


static char *
ngx_stream_tun_address(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_t *st = conf;

    char               *rv;
    ngx_str_t          *value;
    ngx_uint_t          i, k;
    ngx_array_t        *addresses;
    ngx_tun_address_t  *addr, *other;

    value = cf->args->elts;
    addresses = &st->conf.device.addresses;

    for (i = 1; i < cf->args->nelts; i++) {

        addr = ngx_array_push(addresses);
        if (addr == NULL) {
            return NGX_CONF_ERROR;
        }

        ngx_memzero(addr, sizeof(ngx_tun_address_t));

        rv = ngx_stream_tun_parse_address(cf, &value[i], addr);
        if (rv != NGX_CONF_OK) {
            return rv;
        }

        other = addresses->elts;

        for (k = 0; k < addresses->nelts - 1; k++) {
            if (other[k].addr_len == addr->addr_len
                && ngx_memcmp(other[k].addr, addr->addr, addr->addr_len) == 0)
            {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "duplicate address \"%V\"", &value[i]);
                return NGX_CONF_ERROR;
            }
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_stream_tun_parse_address(ngx_conf_t *cf, ngx_str_t *value,
    ngx_tun_address_t *addr)
{
    u_char     *p, *last;
    size_t      len;
    in_addr_t   inaddr;
    ngx_int_t   prefix;

    last = value->data + value->len;
    p = ngx_strlchr(value->data, last, '/');
    len = (p == NULL) ? value->len : (size_t) (p - value->data);

    inaddr = ngx_inet_addr(value->data, len);

    if (inaddr != INADDR_NONE) {
        addr->addr_len = 4;
        ngx_memcpy(addr->addr, &inaddr, 4);

#if (NGX_HAVE_INET6)
    } else if (ngx_inet6_addr(value->data, len, addr->addr) == NGX_OK) {
        addr->addr_len = 16;
#endif

    } else {
        goto invalid;
    }

    addr->prefix = addr->addr_len * 8;

    if (p != NULL) {
        prefix = ngx_atoi(p + 1, last - p - 1);

        if (prefix <= 0 || prefix > (ngx_int_t) addr->prefix) {
            goto invalid;
        }

        addr->prefix = prefix;
    }

    /* unspecified, multicast */

    if (addr->addr_len == 4) {
        if (addr->addr[0] != 0 && addr->addr[0] < 224) {
            return NGX_CONF_OK;
        }

    } else if (addr->addr[0] != 0 && addr->addr[0] != 0xff) {
        return NGX_CONF_OK;
    }

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid address \"%V\"", value);

    return NGX_CONF_ERROR;
}


static char *
ngx_stream_tun_queues(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_t *st = conf;

    ngx_str_t  *value;

    if (st->queues != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "auto") == 0) {
        st->queues = 0;
        return NGX_CONF_OK;
    }

    /* the kernel's MAX_TAP_QUEUES is 256 */

    st->queues = ngx_atoi(value[1].data, value[1].len);

    if (st->queues <= 0 || st->queues > 256) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid number of queues \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
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
        return NGX_OK;
    }

    if (ngx_stream_tun_init_stat(st, zone) != NGX_OK) {
        return NGX_ERROR;
    }

    if (old != NULL
        && (old->conf.device.netns.len != st->conf.device.netns.len
            || ngx_memcmp(old->conf.device.netns.data,
                          st->conf.device.netns.data,
                          st->conf.device.netns.len)
               != 0))
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

    st->handoff = ngx_tun_handoff_open(st->conf.device.queues,
                                       (old != NULL) ? old->handoff : NULL,
                                       (old != NULL) ? old->conf.device.queues
                                                     : 0,
                                       st->cycle->pool, log);

    return (st->handoff != NULL) ? NGX_OK : NGX_ERROR;
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
    st->generation = &shared->generation;

    return NGX_OK;
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

    if (st->handoff != NULL) {
        ngx_tun_handoff_close(st->handoff, st->conf.device.queues);
    }

    ngx_tun_device_close(&st->device,
                         ngx_process == NGX_PROCESS_MASTER
                         || ngx_process == NGX_PROCESS_SINGLE,
                         ngx_cycle->log);
}


static ngx_int_t
ngx_stream_tun_init_module(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i;
    ngx_stream_tun_t            **stp;
    ngx_stream_tun_main_conf_t   *tmcf;

    tmcf = ngx_stream_tun_cycle_conf(cycle);

    if (tmcf == NULL || tmcf->tuns.nelts == 0 || ngx_test_config) {
        return NGX_OK;
    }

    stp = tmcf->tuns.elts;

    for (i = 0; i < tmcf->tuns.nelts; i++) {
        ngx_tun_device_commit(&stp[i]->device, stp[i]->old, cycle->log);
        stp[i]->old = NULL;

        /* the workers of the previous cycle stop to read */
        (void) ngx_atomic_fetch_add(stp[i]->generation, 1);
    }

    ngx_stream_tun_init_phases(cycle);

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i;
    ngx_stream_tun_t            **stp, *st;
    ngx_tun_options_t             options;
    ngx_stream_tun_main_conf_t   *tmcf;

    tmcf = ngx_stream_tun_cycle_conf(cycle);

    if (tmcf == NULL
        || tmcf->tuns.nelts == 0
        || (ngx_process != NGX_PROCESS_WORKER
            && ngx_process != NGX_PROCESS_SINGLE))
    {
        return NGX_OK;
    }

    if ((ngx_event_flags & NGX_USE_CLEAR_EVENT) == 0) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "\"tun\" works with \"use epoll\" only");
        return NGX_ERROR;
    }

    stp = tmcf->tuns.elts;

    for (i = 0; i < tmcf->tuns.nelts; i++) {
        st = stp[i];

        if (ngx_worker >= st->conf.device.queues) {
            continue;
        }

        options.conf = &st->conf;
        options.device = &st->device;
        options.queue = ngx_worker;
        options.handoff = &st->handoff[ngx_worker];
        options.stat = &st->stat[ngx_worker];
        options.generation = st->generation;

        st->tun = ngx_tun_open(&options, cycle);
        if (st->tun == NULL) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static void
ngx_stream_tun_exit_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i;
    ngx_stream_tun_t            **stp;
    ngx_stream_tun_main_conf_t   *tmcf;

    tmcf = ngx_stream_tun_cycle_conf(cycle);

    if (tmcf == NULL) {
        return;
    }

    stp = tmcf->tuns.elts;

    for (i = 0; i < tmcf->tuns.nelts; i++) {
        if (stp[i]->tun != NULL) {
            ngx_tun_close(stp[i]->tun);
            stp[i]->tun = NULL;
        }
    }
}


static ngx_stream_tun_main_conf_t *
ngx_stream_tun_cycle_conf(ngx_cycle_t *cycle)
{
    if (cycle->conf_ctx == NULL
        || ngx_get_conf(cycle->conf_ctx, ngx_stream_module) == NULL)
    {
        return NULL;
    }

    return ngx_stream_cycle_get_module_main_conf(cycle, ngx_stream_tun_module);
}
