
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>


static char *ngx_stream_tun_parse_address(ngx_conf_t *cf, ngx_str_t *value,
    ngx_tun_address_t *addr);


char *
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
