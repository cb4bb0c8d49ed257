
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>


static ngx_uint_t ngx_tun_broadcast_address(ngx_tun_address_t *addr,
    u_char *dst);
static ngx_uint_t ngx_tun_match_prefix(u_char *addr, u_char *prefix,
    ngx_uint_t bits);
static ngx_int_t ngx_libc_cdecl ngx_tun_cmp_listens(const void *one,
    const void *two);
static ngx_uint_t ngx_tun_listens_conflict(ngx_tun_listen_t *one,
    ngx_tun_listen_t *other);


ngx_tun_listen_t *
ngx_tun_conf_find_listen(ngx_tun_conf_t *conf, ngx_tun_flow_key_t *key,
    int type)
{
    ngx_uint_t         i;
    ngx_tun_listen_t  *listen;

    listen = conf->listens.elts;

    for (i = 0; i < conf->listens.nelts; i++) {

        if (listen[i].type != type
            || key->dst_port < listen[i].first
            || key->dst_port > listen[i].last)
        {
            continue;
        }

        if (listen[i].addr_len == 0
            || (listen[i].addr_len == key->addr_len
                && ngx_tun_match_prefix(key->dst, listen[i].addr,
                                        listen[i].prefix)))
        {
            return &listen[i];
        }
    }

    return NULL;
}


static ngx_uint_t
ngx_tun_match_prefix(u_char *addr, u_char *prefix, ngx_uint_t bits)
{
    u_char  mask;

    if (ngx_memcmp(addr, prefix, bits / 8) != 0) {
        return 0;
    }

    mask = (u_char) (0xff00 >> (bits % 8));

    return mask == 0 || ((addr[bits / 8] ^ prefix[bits / 8]) & mask) == 0;
}


ngx_int_t
ngx_tun_sort_listens(ngx_array_t *listens, ngx_tun_listen_t **one,
    ngx_tun_listen_t **other)
{
    ngx_uint_t         i, k;
    ngx_tun_listen_t  *listen;

    listen = listens->elts;

    ngx_sort(listen, listens->nelts, sizeof(ngx_tun_listen_t),
             ngx_tun_cmp_listens);

    for (i = 0; i < listens->nelts; i++) {
        for (k = i + 1; k < listens->nelts; k++) {

            if (ngx_tun_cmp_listens(&listen[i], &listen[k]) != 0) {
                break;
            }

            if (ngx_tun_listens_conflict(&listen[i], &listen[k])) {
                *one = &listen[i];
                *other = &listen[k];
                return NGX_DECLINED;
            }
        }
    }

    return NGX_OK;
}


static ngx_int_t ngx_libc_cdecl
ngx_tun_cmp_listens(const void *one, const void *two)
{
    ngx_int_t                diff;
    const ngx_tun_listen_t  *first, *second;

    first = one;
    second = two;

    diff = (ngx_int_t) second->prefix - (ngx_int_t) first->prefix;

    if (diff == 0) {
        diff = (first->last - first->first) - (second->last - second->first);
    }

    return (diff > 0) - (diff < 0);
}


static ngx_uint_t
ngx_tun_listens_conflict(ngx_tun_listen_t *one, ngx_tun_listen_t *other)
{
    if (one->type != other->type
        || one->first > other->last
        || other->first > one->last)
    {
        return 0;
    }

    if (one->addr_len != other->addr_len) {
        return one->prefix == 0 && other->prefix == 0
               && (one->addr_len == 0 || other->addr_len == 0);
    }

    return ngx_tun_match_prefix(one->addr, other->addr, one->prefix);
}


ngx_uint_t
ngx_tun_own_address(ngx_tun_t *tun, ngx_tun_flow_key_t *key)
{
    ngx_uint_t          i;
    ngx_tun_address_t  *addr;

    addr = tun->conf->device.addresses.elts;

    for (i = 0; i < tun->conf->device.addresses.nelts; i++) {

        if (addr[i].addr_len == key->addr_len
            && ngx_memcmp(addr[i].addr, key->dst, key->addr_len) == 0)
        {
            return 1;
        }
    }

    return ngx_tun_broadcast(tun, key->dst, key->addr_len);
}


ngx_uint_t
ngx_tun_broadcast(ngx_tun_t *tun, u_char *dst, size_t addr_len)
{
    ngx_uint_t          i;
    ngx_tun_address_t  *addr;

    addr = tun->conf->device.addresses.elts;

    for (i = 0; i < tun->conf->device.addresses.nelts; i++) {

        if (addr[i].addr_len == addr_len
            && ngx_tun_broadcast_address(&addr[i], dst))
        {
            return 1;
        }
    }

    return 0;
}


static ngx_uint_t
ngx_tun_broadcast_address(ngx_tun_address_t *addr, u_char *dst)
{
    uint32_t  a, d, host;

    /* RFC 3021: two addresses are no network with one for all */

    if (addr->addr_len != 4 || addr->prefix > 30) {
        return 0;
    }

    ngx_memcpy(&a, addr->addr, 4);
    ngx_memcpy(&d, dst, 4);

    host = 0xffffffff >> addr->prefix;

    return ((ntohl(a) ^ ntohl(d)) & ~host) == 0
           && (ntohl(d) & host) == host;
}
