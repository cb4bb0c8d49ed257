
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_wire.h>


#define NGX_STREAM_TUN_HTTP_VERSION  "HTTP/1."


static u_char *ngx_stream_tun_http_authority(u_char *p,
    ngx_stream_tun_destination_t *dst);
static ngx_int_t ngx_stream_tun_http_status(u_char *p, u_char *last,
    ngx_uint_t *status);
static u_char *ngx_stream_tun_http_end(u_char *p, u_char *last);


u_char *
ngx_stream_tun_http_connect(u_char *p, ngx_stream_tun_destination_t *dst,
    ngx_str_t *headers)
{
    p = ngx_cpymem(p, "CONNECT ", sizeof("CONNECT ") - 1);
    p = ngx_stream_tun_http_authority(p, dst);
    p = ngx_cpymem(p, " HTTP/1.1" CRLF "Host: ",
                   sizeof(" HTTP/1.1" CRLF "Host: ") - 1);
    p = ngx_stream_tun_http_authority(p, dst);
    p = ngx_cpymem(p, CRLF, sizeof(CRLF) - 1);

    if (headers->len) {
        p = ngx_cpymem(p, headers->data, headers->len);
    }

    return ngx_cpymem(p, CRLF, sizeof(CRLF) - 1);
}


static u_char *
ngx_stream_tun_http_authority(u_char *p, ngx_stream_tun_destination_t *dst)
{
    ngx_uint_t  n;

    if (dst->family == AF_INET6) {
        *p++ = '[';
    }

    p = ngx_cpymem(p, dst->host.data, dst->host.len);

    if (dst->family == AF_INET6) {
        *p++ = ']';
    }

    *p++ = ':';

    for (n = 10000; n > dst->port; n /= 10) { /* void */ }

    for ( /* void */ ; n; n /= 10) {
        *p++ = (u_char) ('0' + dst->port / n % 10);
    }

    return p;
}


ngx_int_t
ngx_stream_tun_http_parse(u_char **pos, u_char *last, ngx_uint_t *code)
{
    u_char     *p;
    ngx_int_t   rc;

    /* RFC 9110, 15.2.  1xx are followed by the response that counts */

    p = *pos;

    do {
        rc = ngx_stream_tun_http_status(p, last, code);
        if (rc != NGX_OK) {
            return rc;
        }

        p = ngx_stream_tun_http_end(p, last);
        if (p == NULL) {
            return NGX_AGAIN;
        }

    } while (*code < 200 && *code != 101);

    *pos = p;

    return (*code / 100 == 2) ? NGX_OK : NGX_DECLINED;
}


static ngx_int_t
ngx_stream_tun_http_status(u_char *p, u_char *last, ngx_uint_t *status)
{
    size_t  len, version;

    version = sizeof(NGX_STREAM_TUN_HTTP_VERSION) - 1;
    len = last - p;

    if (ngx_memcmp(p, NGX_STREAM_TUN_HTTP_VERSION, ngx_min(len, version))
        != 0)
    {
        return NGX_ERROR;
    }

    /* "HTTP/1.1 200 ", the last of them may be an end of line */

    if (len < version + 6) {
        return NGX_AGAIN;
    }

    p += version;

    if (p[0] < '0' || p[0] > '9' || p[1] != ' '
        || p[2] < '1' || p[2] > '5'
        || p[3] < '0' || p[3] > '9' || p[4] < '0' || p[4] > '9'
        || (p[5] != ' ' && p[5] != CR && p[5] != LF))
    {
        return NGX_ERROR;
    }

    *status = (p[2] - '0') * 100 + (p[3] - '0') * 10 + (p[4] - '0');

    return NGX_OK;
}


/* the end of the empty line after the header */

static u_char *
ngx_stream_tun_http_end(u_char *p, u_char *last)
{
    ngx_uint_t  empty;

    for (empty = 0; p < last; p++) {

        if (*p == LF) {
            if (empty) {
                return p + 1;
            }

            empty = 1;

        } else if (*p != CR) {
            empty = 0;
        }
    }

    return NULL;
}
