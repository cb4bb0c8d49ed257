
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_wire.h>


static ngx_int_t ngx_stream_tun_parse_port(u_char *p, u_char *last,
    in_port_t *port);
static ngx_int_t ngx_stream_tun_parse_host(ngx_stream_tun_destination_t *dst,
    ngx_uint_t brackets);


ngx_int_t
ngx_stream_tun_parse_destination(ngx_str_t *text,
    ngx_stream_tun_destination_t *dst)
{
    u_char      *p, *last;
    ngx_uint_t   brackets;

    if (text->len == 0) {
        return NGX_ERROR;
    }

    last = text->data + text->len;

    for (p = last - 1; p > text->data && *p != ':'; p--) { /* void */ }

    if (p == text->data
        || ngx_stream_tun_parse_port(p + 1, last, &dst->port) != NGX_OK)
    {
        return NGX_ERROR;
    }

    dst->host.data = text->data;
    dst->host.len = p - text->data;

    brackets = (dst->host.data[0] == '[');

    if (brackets) {
        if (dst->host.len < 4 || p[-1] != ']') {
            return NGX_ERROR;
        }

        dst->host.data++;
        dst->host.len -= 2;
    }

    if (ngx_stream_tun_check_value(&dst->host, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_stream_tun_parse_host(dst, brackets);
}


static ngx_int_t
ngx_stream_tun_parse_port(u_char *p, u_char *last, in_port_t *port)
{
    ngx_uint_t  n;

    if (p == last || last - p > 5) {
        return NGX_ERROR;
    }

    for (n = 0; p < last; p++) {
        if (*p < '0' || *p > '9') {
            return NGX_ERROR;
        }

        n = n * 10 + (*p - '0');
    }

    if (n == 0 || n > 65535) {
        return NGX_ERROR;
    }

    *port = (in_port_t) n;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_parse_host(ngx_stream_tun_destination_t *dst,
    ngx_uint_t brackets)
{
    size_t  i;
    char    text[INET6_ADDRSTRLEN];

    dst->family = 0;

    if (dst->host.len < sizeof(text)) {
        ngx_memcpy(text, dst->host.data, dst->host.len);
        text[dst->host.len] = '\0';

        if (!brackets && inet_pton(AF_INET, text, dst->addr) == 1) {
            dst->family = AF_INET;
            return NGX_OK;
        }

        if (brackets && inet_pton(AF_INET6, text, dst->addr) == 1) {
            dst->family = AF_INET6;
            return NGX_OK;
        }
    }

    if (brackets) {
        return NGX_ERROR;
    }

    /* what would be something else in a request line or to another parser */

    for (i = 0; i < dst->host.len; i++) {
        switch (dst->host.data[i]) {
        case ':': case '/': case '@': case '?': case '#': case '[': case ']':
        case '\\': case '%':
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_stream_tun_check_value(ngx_str_t *value, ngx_uint_t spaces)
{
    size_t  i;

    if (value->len > NGX_STREAM_TUN_VALUE_MAX) {
        return NGX_ERROR;
    }

    for (i = 0; i < value->len; i++) {
        if (value->data[i] < ' ' || value->data[i] == 0x7f
            || (value->data[i] == ' ' && !spaces))
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}
