
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>

#include <ngx_tun_fragment.h>

#include <net/if.h>


static char *ngx_stream_tun_name(ngx_conf_t *cf, ngx_stream_tun_main_conf_t
    *tmcf, ngx_stream_tun_t *st);
static char *ngx_stream_tun_parse_block(ngx_conf_t *cf, ngx_stream_tun_t *st);
static char *ngx_stream_tun_check(ngx_conf_t *cf, ngx_stream_tun_t *st);


char *
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
    st->conf.icmp = NGX_CONF_UNSET_UINT;
    st->conf.max_flows = NGX_CONF_UNSET;
    st->conf.max_pending = NGX_CONF_UNSET;
    st->conf.max_half_open = NGX_CONF_UNSET;
    st->conf.max_memory = NGX_CONF_UNSET_SIZE;
    st->conf.max_udp_flows = NGX_CONF_UNSET;
    st->conf.udp_timeout = NGX_CONF_UNSET_MSEC;

    dcf = &st->conf.device;
    dcf->mtu = NGX_CONF_UNSET_UINT;
    dcf->offload = NGX_CONF_UNSET;

    if (ngx_array_init(&dcf->addresses, cf->pool, 2, sizeof(ngx_tun_address_t))
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    if (ngx_stream_tun_create_route(cf, st) != NGX_OK) {
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
    ngx_conf_init_uint_value(st->conf.icmp, NGX_TUN_ICMP_REPLY);
    ngx_conf_init_value(st->conf.max_flows, 0);
    ngx_conf_init_value(st->conf.max_pending, 1024);
    ngx_conf_init_value(st->conf.max_half_open, 16384);
    ngx_conf_init_size_value(st->conf.max_memory, 256 * 1024 * 1024);
    ngx_conf_init_value(st->conf.max_udp_flows, 0);
    ngx_conf_init_msec_value(st->conf.udp_timeout, 300000);

    if (st->conf.fragments.datagrams == 0) {
        st->conf.fragments.datagrams = NGX_TUN_FRAGMENT_DATAGRAMS;
        st->conf.fragments.memory = NGX_TUN_FRAGMENT_BYTES;
        st->conf.fragments.timeout = NGX_TUN_FRAGMENT_TIMEOUT;
    }

    rv = ngx_stream_tun_check(cf, st);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    stp = ngx_array_push(&tmcf->tuns);
    if (stp == NULL) {
        return NGX_CONF_ERROR;
    }

    *stp = st;

    rv = ngx_stream_tun_init_route(cf, st, tmcf);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

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

    if (st->socket != NULL && st->conf.icmp != NGX_TUN_ICMP_FORWARD) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"tun_socket\" of tun \"%V\" is for "
                           "\"icmp forward\"", &dcf->name);
        return NGX_CONF_ERROR;
    }

    return ngx_stream_tun_system_check(cf, st);
}


char *
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


char *
ngx_stream_tun_max_udp_flows(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_t *st = conf;

    ngx_str_t   *value;
    ngx_int_t    n[2];
    ngx_uint_t   i;

    if (st->conf.max_udp_flows != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    value = cf->args->elts;
    n[1] = 0;

    for (i = 1; i < cf->args->nelts; i++) {
        n[i - 1] = ngx_atoi(value[i].data, value[i].len);

        if (n[i - 1] <= 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid number of flows \"%V\"", &value[i]);
            return NGX_CONF_ERROR;
        }
    }

    st->conf.max_udp_flows = n[0];
    st->conf.max_udp_source_flows = n[1];

    return NGX_CONF_OK;
}


char *
ngx_stream_tun_fragments(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_t *st = conf;

    ssize_t                    size;
    ngx_int_t                  n;
    ngx_str_t                 *value, s;
    ngx_uint_t                 i;
    ngx_tun_fragments_conf_t  *fcf;

    fcf = &st->conf.fragments;

    if (fcf->datagrams != 0) {
        return "is duplicate";
    }

    fcf->datagrams = NGX_TUN_FRAGMENT_DATAGRAMS;
    fcf->memory = NGX_TUN_FRAGMENT_BYTES;
    fcf->timeout = NGX_TUN_FRAGMENT_TIMEOUT;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "datagrams=", 10) == 0) {
            n = ngx_atoi(value[i].data + 10, value[i].len - 10);

            if (n <= 0 || n > 65535) {
                goto invalid;
            }

            fcf->datagrams = n;
            continue;
        }

        if (ngx_strncmp(value[i].data, "memory=", 7) == 0) {
            s.data = value[i].data + 7;
            s.len = value[i].len - 7;

            size = ngx_parse_size(&s);

            if (size < 65536) {
                goto invalid;
            }

            fcf->memory = size;
            continue;
        }

        if (ngx_strncmp(value[i].data, "timeout=", 8) == 0) {
            s.data = value[i].data + 8;
            s.len = value[i].len - 8;

            n = ngx_parse_time(&s, 0);

            if (n <= 0) {
                goto invalid;
            }

            fcf->timeout = n;
            continue;
        }

        goto invalid;
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"",
                       &value[i]);

    return NGX_CONF_ERROR;
}
