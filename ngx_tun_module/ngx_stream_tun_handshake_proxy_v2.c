
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_wire.h>


#define NGX_STREAM_TUN_PROXY_V2_SIGNATURE                                     \
    "\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"

#define NGX_STREAM_TUN_PROXY_V2_PROXY  0x21    /* version 2, command PROXY */


static void ngx_stream_tun_proxy_v2_length(u_char *start, u_char *end);


u_char *
ngx_stream_tun_proxy_v2_header(u_char *p, ngx_uint_t type,
    struct sockaddr *src, struct sockaddr *dst)
{
    u_char               *start;
    ngx_uint_t            family, transport;
    struct sockaddr_in   *sin, *sin_dst;
    struct sockaddr_in6  *sin6, *sin6_dst;

    start = p;
    p = ngx_cpymem(p, NGX_STREAM_TUN_PROXY_V2_SIGNATURE,
                   sizeof(NGX_STREAM_TUN_PROXY_V2_SIGNATURE) - 1);

    transport = (type == SOCK_DGRAM) ? 2 : 1;
    family = (src->sa_family == dst->sa_family) ? src->sa_family : AF_UNSPEC;

    *p++ = NGX_STREAM_TUN_PROXY_V2_PROXY;

    switch (family) {

    case AF_INET:
        *p++ = (u_char) (0x10 | transport);
        p += 2;

        sin = (struct sockaddr_in *) src;
        sin_dst = (struct sockaddr_in *) dst;

        p = ngx_cpymem(p, &sin->sin_addr, 4);
        p = ngx_cpymem(p, &sin_dst->sin_addr, 4);
        p = ngx_cpymem(p, &sin->sin_port, 2);
        p = ngx_cpymem(p, &sin_dst->sin_port, 2);
        break;

    case AF_INET6:
        *p++ = (u_char) (0x20 | transport);
        p += 2;

        sin6 = (struct sockaddr_in6 *) src;
        sin6_dst = (struct sockaddr_in6 *) dst;

        p = ngx_cpymem(p, &sin6->sin6_addr, 16);
        p = ngx_cpymem(p, &sin6_dst->sin6_addr, 16);
        p = ngx_cpymem(p, &sin6->sin6_port, 2);
        p = ngx_cpymem(p, &sin6_dst->sin6_port, 2);
        break;

    default:
        *p++ = 0;
        p += 2;
        break;
    }

    ngx_stream_tun_proxy_v2_length(start, p);

    return p;
}


u_char *
ngx_stream_tun_proxy_v2_tlv(u_char *start, u_char *p, ngx_uint_t type,
    ngx_str_t *value)
{
    *p++ = (u_char) type;
    *p++ = (u_char) (value->len >> 8);
    *p++ = (u_char) value->len;

    p = ngx_cpymem(p, value->data, value->len);

    ngx_stream_tun_proxy_v2_length(start, p);

    return p;
}


static void
ngx_stream_tun_proxy_v2_length(u_char *start, u_char *end)
{
    size_t  len;

    len = end - start - 16;

    start[14] = (u_char) (len >> 8);
    start[15] = (u_char) len;
}
