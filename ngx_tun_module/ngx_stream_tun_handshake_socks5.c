
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_wire.h>


#define NGX_STREAM_TUN_SOCKS5_VERSION    5
#define NGX_STREAM_TUN_SOCKS5_PVERSION   1     /* of RFC 1929 */

#define NGX_STREAM_TUN_SOCKS5_IPV4       1
#define NGX_STREAM_TUN_SOCKS5_NAME       3
#define NGX_STREAM_TUN_SOCKS5_IPV6       4


static u_char *ngx_stream_tun_socks5_address(u_char *p,
    ngx_stream_tun_destination_t *dst);
static ngx_int_t ngx_stream_tun_socks5_pair(u_char **pos, u_char *last,
    ngx_uint_t version, ngx_uint_t good, ngx_uint_t *code);


u_char *
ngx_stream_tun_socks5_methods(u_char *p, ngx_uint_t method)
{
    *p++ = NGX_STREAM_TUN_SOCKS5_VERSION;
    *p++ = 1;
    *p++ = (u_char) method;

    return p;
}


u_char *
ngx_stream_tun_socks5_password(u_char *p, ngx_str_t *user, ngx_str_t *password)
{
    *p++ = NGX_STREAM_TUN_SOCKS5_PVERSION;

    *p++ = (u_char) user->len;
    p = ngx_cpymem(p, user->data, user->len);

    *p++ = (u_char) password->len;

    if (password->len) {
        p = ngx_cpymem(p, password->data, password->len);
    }

    return p;
}


u_char *
ngx_stream_tun_socks5_request(u_char *p, ngx_uint_t command,
    ngx_stream_tun_destination_t *dst)
{
    *p++ = NGX_STREAM_TUN_SOCKS5_VERSION;
    *p++ = (u_char) command;
    *p++ = 0;

    return ngx_stream_tun_socks5_address(p, dst);
}


u_char *
ngx_stream_tun_socks5_datagram(u_char *p, ngx_stream_tun_destination_t *dst)
{
    /* reserved, and no fragment */

    *p++ = 0;
    *p++ = 0;
    *p++ = 0;

    return ngx_stream_tun_socks5_address(p, dst);
}


static u_char *
ngx_stream_tun_socks5_address(u_char *p, ngx_stream_tun_destination_t *dst)
{
    switch (dst->family) {

    case AF_INET:
        *p++ = NGX_STREAM_TUN_SOCKS5_IPV4;
        p = ngx_cpymem(p, dst->addr, 4);
        break;

    case AF_INET6:
        *p++ = NGX_STREAM_TUN_SOCKS5_IPV6;
        p = ngx_cpymem(p, dst->addr, 16);
        break;

    default:
        *p++ = NGX_STREAM_TUN_SOCKS5_NAME;
        *p++ = (u_char) dst->host.len;
        p = ngx_cpymem(p, dst->host.data, dst->host.len);
        break;
    }

    *p++ = (u_char) (dst->port >> 8);
    *p++ = (u_char) dst->port;

    return p;
}


ngx_int_t
ngx_stream_tun_socks5_parse_none(u_char **pos, u_char *last, ngx_uint_t *code)
{
    return ngx_stream_tun_socks5_pair(pos, last, NGX_STREAM_TUN_SOCKS5_VERSION,
                                      NGX_STREAM_TUN_SOCKS5_NONE, code);
}


ngx_int_t
ngx_stream_tun_socks5_parse_method(u_char **pos, u_char *last,
    ngx_uint_t *code)
{
    return ngx_stream_tun_socks5_pair(pos, last, NGX_STREAM_TUN_SOCKS5_VERSION,
                                      NGX_STREAM_TUN_SOCKS5_PASSWORD, code);
}


ngx_int_t
ngx_stream_tun_socks5_parse_password(u_char **pos, u_char *last,
    ngx_uint_t *code)
{
    return ngx_stream_tun_socks5_pair(pos, last,
                                      NGX_STREAM_TUN_SOCKS5_PVERSION, 0, code);
}


static ngx_int_t
ngx_stream_tun_socks5_pair(u_char **pos, u_char *last, ngx_uint_t version,
    ngx_uint_t good, ngx_uint_t *code)
{
    u_char  *p;

    p = *pos;

    if (p < last && p[0] != version) {
        return NGX_ERROR;
    }

    if (last - p < 2) {
        return NGX_AGAIN;
    }

    *code = p[1];
    *pos = p + 2;

    return (*code == good) ? NGX_OK : NGX_DECLINED;
}


ngx_int_t
ngx_stream_tun_socks5_parse_reply(u_char **pos, u_char *last, ngx_uint_t *code)
{
    u_char                        *p;
    ngx_int_t                      rc;
    ngx_stream_tun_destination_t   dst;

    p = *pos;

    if (p < last && p[0] != NGX_STREAM_TUN_SOCKS5_VERSION) {
        return NGX_ERROR;
    }

    /* a proxy that refuses may close before it has said where it is bound */

    if (last - p >= 2 && p[1] != 0) {
        *code = p[1];
        *pos = last;
        return NGX_DECLINED;
    }

    if (last - p < 3) {
        return NGX_AGAIN;
    }

    p += 3;

    rc = ngx_stream_tun_socks5_parse_address(&p, last, &dst);

    if (rc == NGX_OK) {
        *code = 0;
        *pos = p;
    }

    return rc;
}


ngx_int_t
ngx_stream_tun_socks5_parse_datagram(u_char **pos, u_char *last,
    ngx_stream_tun_destination_t *dst)
{
    u_char  *p;

    p = *pos;

    if (last - p < 3 || p[2] != 0) {
        return NGX_ERROR;
    }

    p += 3;

    if (ngx_stream_tun_socks5_parse_address(&p, last, dst) != NGX_OK) {
        return NGX_ERROR;
    }

    *pos = p;

    return NGX_OK;
}


ngx_int_t
ngx_stream_tun_socks5_parse_address(u_char **pos, u_char *last,
    ngx_stream_tun_destination_t *dst)
{
    u_char  *p;

    p = *pos;

    if (last - p < 2) {
        return NGX_AGAIN;
    }

    ngx_memzero(dst, sizeof(ngx_stream_tun_destination_t));

    switch (*p++) {

    case NGX_STREAM_TUN_SOCKS5_IPV4:
        dst->family = AF_INET;
        dst->host.len = 4;
        break;

    case NGX_STREAM_TUN_SOCKS5_IPV6:
        dst->family = AF_INET6;
        dst->host.len = 16;
        break;

    case NGX_STREAM_TUN_SOCKS5_NAME:
        dst->host.len = *p++;
        break;

    default:
        return NGX_ERROR;
    }

    if ((size_t) (last - p) < dst->host.len + 2) {
        return NGX_AGAIN;
    }

    dst->host.data = p;
    p += dst->host.len;

    if (dst->family != 0) {
        ngx_memcpy(dst->addr, dst->host.data, dst->host.len);
        ngx_str_null(&dst->host);
    }

    dst->port = (in_port_t) (p[0] << 8 | p[1]);
    *pos = p + 2;

    return NGX_OK;
}


const char *
ngx_stream_tun_socks5_text(ngx_uint_t code)
{
    static const char  *text[] = {
        "succeeded",
        "general failure",
        "not allowed",
        "network unreachable",
        "host unreachable",
        "connection refused",
        "TTL expired",
        "command not supported",
        "address type not supported"
    };

    if (code >= sizeof(text) / sizeof(text[0])) {
        return "unassigned";
    }

    return text[code];
}
