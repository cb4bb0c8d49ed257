
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>

#include <net/if.h>
#include <pwd.h>


/* without `route_table` a device has a place of its own by its name */

#define NGX_STREAM_TUN_ROUTE_FIRST   10000
#define NGX_STREAM_TUN_ROUTE_PLACES  1000
#define NGX_STREAM_TUN_ROUTE_LAST    32000
#define NGX_STREAM_TUN_ROUTE_SPAN    16


static char *ngx_stream_tun_route_pair(ngx_conf_t *cf, ngx_array_t *pairs,
    u_char separator, ngx_uint_t last);
static ngx_int_t ngx_stream_tun_route_user(ngx_conf_t *cf, ngx_str_t *name,
    ngx_tun_route_pair_t *pair);
static ngx_int_t ngx_stream_tun_route_number(u_char *p, u_char *last,
    uint32_t *number);


ngx_int_t
ngx_stream_tun_create_route(ngx_conf_t *cf, ngx_stream_tun_t *st)
{
    ngx_tun_route_conf_t  *rcf;

    rcf = &st->conf.device.route;

    rcf->mode = NGX_CONF_UNSET_UINT;
    rcf->table = NGX_CONF_UNSET_UINT;
    rcf->fail_closed = NGX_CONF_UNSET;

    if (ngx_array_init(&rcf->interfaces, cf->pool, 1, sizeof(ngx_str_t))
        != NGX_OK
        || ngx_array_init(&rcf->bypass, cf->pool, 1, sizeof(ngx_tun_address_t))
           != NGX_OK
        || ngx_array_init(&rcf->uids, cf->pool, 1,
                          sizeof(ngx_tun_route_pair_t))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_array_init(&rcf->marks, cf->pool, 1,
                          sizeof(ngx_tun_route_pair_t));
}


char *
ngx_stream_tun_route(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_t *st = conf;

    ngx_str_t             *value, *name;
    ngx_uint_t             i;
    ngx_tun_route_conf_t  *rcf;

    rcf = &st->conf.device.route;
    value = cf->args->elts;

    if (rcf->mode != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    if (ngx_strcmp(value[1].data, "gateway") == 0) {
        rcf->mode = NGX_TUN_ROUTE_GATEWAY;

        if (cf->args->nelts == 2) {
            return "gateway needs the names of interfaces";
        }

        for (i = 2; i < cf->args->nelts; i++) {

            if (value[i].len == 0
                || value[i].len >= IFNAMSIZ
                || ngx_strcmp(value[i].data, st->conf.device.name.data) == 0)
            {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "invalid interface \"%V\"", &value[i]);
                return NGX_CONF_ERROR;
            }

            name = ngx_array_push(&rcf->interfaces);
            if (name == NULL) {
                return NGX_CONF_ERROR;
            }

            *name = value[i];
        }

        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "fakeip") == 0) {
        rcf->mode = NGX_TUN_ROUTE_FAKEIP;

    } else if (ngx_strcmp(value[1].data, "global") == 0) {
        rcf->mode = NGX_TUN_ROUTE_GLOBAL;

    } else if (ngx_strcmp(value[1].data, "off") == 0) {
        rcf->mode = NGX_TUN_ROUTE_OFF;
    }

    if (rcf->mode == NGX_CONF_UNSET_UINT || cf->args->nelts != 2) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid route \"%V\"",
                           &value[cf->args->nelts - 1]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


char *
ngx_stream_tun_bypass(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_t *st = conf;

    ngx_int_t           rc;
    ngx_str_t          *value;
    ngx_cidr_t          cidr;
    ngx_uint_t          i, bits;
    ngx_tun_address_t  *addr;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        rc = ngx_ptocidr(&value[i], &cidr);

        if (rc == NGX_ERROR || cidr.family == AF_UNIX) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid prefix \"%V\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        if (rc == NGX_DONE) {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "low address bits of %V are meaningless",
                               &value[i]);
        }

        addr = ngx_array_push(&st->conf.device.route.bypass);
        if (addr == NULL) {
            return NGX_CONF_ERROR;
        }

        ngx_memzero(addr, sizeof(ngx_tun_address_t));

        if (cidr.family == AF_INET) {
            addr->addr_len = 4;
            ngx_memcpy(addr->addr, &cidr.u.in.addr, 4);

            for (bits = ntohl(cidr.u.in.mask); bits & 0xffffffff; bits <<= 1) {
                addr->prefix++;
            }

            continue;
        }

        addr->addr_len = 16;
        ngx_memcpy(addr->addr, cidr.u.in6.addr.s6_addr, 16);

        for (bits = 0; bits < 128; bits++) {
            addr->prefix += cidr.u.in6.mask.s6_addr[bits / 8] >> (7 - bits % 8)
                            & 1;
        }
    }

    return NGX_CONF_OK;
}


char *
ngx_stream_tun_bypass_uid(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_t *st = conf;

    return ngx_stream_tun_route_pair(cf, &st->conf.device.route.uids, '-', 0);
}


char *
ngx_stream_tun_bypass_mark(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_t *st = conf;

    return ngx_stream_tun_route_pair(cf, &st->conf.device.route.marks, '/', 1);
}


static char *
ngx_stream_tun_route_pair(ngx_conf_t *cf, ngx_array_t *pairs,
    u_char separator, ngx_uint_t mask)
{
    u_char                *p, *last;
    ngx_str_t             *value;
    ngx_uint_t             i;
    ngx_tun_route_pair_t  *pair;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        pair = ngx_array_push(pairs);
        if (pair == NULL) {
            return NGX_CONF_ERROR;
        }

        last = value[i].data + value[i].len;

        if (!mask && (value[i].len == 0 || value[i].data[0] < '0'
                      || value[i].data[0] > '9'))
        {
            if (ngx_stream_tun_route_user(cf, &value[i], pair) != NGX_OK) {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        p = ngx_strlchr(value[i].data, last, separator);

        if (ngx_stream_tun_route_number(value[i].data, p ? p : last,
                                        &pair->first)
            != NGX_OK)
        {
            goto invalid;
        }

        pair->second = mask ? 0xffffffff : pair->first;

        if (p != NULL
            && ngx_stream_tun_route_number(p + 1, last, &pair->second)
               != NGX_OK)
        {
            goto invalid;
        }

        /* a mark of 0 is that of everyone, and user -1 is nobody */

        if (mask ? (pair->first == 0 || (pair->first & ~pair->second) != 0)
                 : (pair->second < pair->first || pair->second == 0xffffffff))
        {
            goto invalid;
        }
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid %s \"%V\"",
                       mask ? "mark" : "users", &value[i]);

    return NGX_CONF_ERROR;
}


/* a name may hold the separator, but does not begin with a digit */

static ngx_int_t
ngx_stream_tun_route_user(ngx_conf_t *cf, ngx_str_t *name,
    ngx_tun_route_pair_t *pair)
{
    struct passwd  *pwd;

    ngx_set_errno(0);
    pwd = getpwnam((const char *) name->data);

    if (pwd == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           "there is no user \"%V\"", name);
        return NGX_ERROR;
    }

    pair->first = (uint32_t) pwd->pw_uid;
    pair->second = (uint32_t) pwd->pw_uid;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_route_number(u_char *p, u_char *last, uint32_t *number)
{
    ngx_int_t  n;

    if (last - p > 2 && p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
        n = ngx_hextoi(p + 2, last - p - 2);

    } else {
        n = ngx_atoi(p, last - p);
    }

    if (n < 0 || (uint64_t) n > 0xffffffff) {
        return NGX_ERROR;
    }

    *number = (uint32_t) n;

    return NGX_OK;
}


char *
ngx_stream_tun_route_table(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_t *st = conf;

    ngx_int_t   n;
    ngx_str_t  *value;

    if (st->conf.device.route.table != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;
    n = ngx_atoi(value[1].data, value[1].len);

    /* 253 to 255 are the kernel's own tables */

    if (n < 256 || n > NGX_STREAM_TUN_ROUTE_LAST) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid table \"%V\", it may be 256 to %d",
                           &value[1], NGX_STREAM_TUN_ROUTE_LAST);
        return NGX_CONF_ERROR;
    }

    st->conf.device.route.table = n;

    return NGX_CONF_OK;
}


char *
ngx_stream_tun_init_route(ngx_conf_t *cf, ngx_stream_tun_t *st,
    ngx_stream_tun_main_conf_t *tmcf)
{
    ngx_str_t              *name;
    ngx_uint_t              i, place;
    ngx_stream_tun_t      **stp;
    ngx_tun_route_conf_t   *rcf, *other;

    rcf = &st->conf.device.route;
    name = &st->conf.device.name;

    ngx_conf_init_uint_value(rcf->mode, NGX_TUN_ROUTE_FAKEIP);
    ngx_conf_init_value(rcf->fail_closed, 0);

    place = ngx_crc32_short(name->data, name->len)
            % NGX_STREAM_TUN_ROUTE_PLACES;

    ngx_conf_init_uint_value(rcf->table, NGX_STREAM_TUN_ROUTE_FIRST
                                         + NGX_STREAM_TUN_ROUTE_SPAN * place);

    if ((rcf->mode == NGX_TUN_ROUTE_FAKEIP || rcf->mode == NGX_TUN_ROUTE_OFF)
        && (rcf->bypass.nelts != 0 || rcf->uids.nelts != 0
            || rcf->marks.nelts != 0 || rcf->fail_closed))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"bypass\" and \"fail_closed\" of tun \"%V\" need "
                           "\"route gateway\" or \"route global\"", name);
        return NGX_CONF_ERROR;
    }

    stp = tmcf->tuns.elts;

    for (i = 0; i < tmcf->tuns.nelts; i++) {
        other = &stp[i]->conf.device.route;

        if (stp[i] != st
            && rcf->table < other->table + NGX_STREAM_TUN_ROUTE_SPAN
            && other->table < rcf->table + NGX_STREAM_TUN_ROUTE_SPAN)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "the routing tables of tun \"%V\" and \"%V\" "
                               "are less than %d apart, set \"route_table\"",
                               &stp[i]->conf.device.name, name,
                               NGX_STREAM_TUN_ROUTE_SPAN);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}
