
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_http_tun_status.h>


#define NGX_HTTP_TUN_PAGE_BUF   16384
#define NGX_HTTP_TUN_PAGE_TEXT  1024


void
ngx_http_tun_page_add(ngx_http_tun_page_t *page, const u_char *data,
    size_t len)
{
    size_t        n;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    while (len != 0 && !page->failed) {

        b = (page->last != NULL) ? page->last->buf : NULL;

        if (b == NULL || b->last == b->end) {
            cl = ngx_alloc_chain_link(page->pool);
            b = ngx_create_temp_buf(page->pool, NGX_HTTP_TUN_PAGE_BUF);

            if (cl == NULL || b == NULL) {
                page->failed = 1;
                return;
            }

            cl->buf = b;
            cl->next = NULL;

            if (page->last != NULL) {
                page->last->next = cl;

            } else {
                page->first = cl;
            }

            page->last = cl;
        }

        n = ngx_min(len, (size_t) (b->end - b->last));

        b->last = ngx_cpymem(b->last, data, n);
        page->len += n;
        data += n;
        len -= n;
    }
}


void ngx_cdecl
ngx_http_tun_page(ngx_http_tun_page_t *page, const char *fmt, ...)
{
    u_char   *p, text[NGX_HTTP_TUN_PAGE_TEXT];
    va_list   args;

    va_start(args, fmt);
    p = ngx_vslprintf(text, text + NGX_HTTP_TUN_PAGE_TEXT, fmt, args);
    va_end(args);

    ngx_http_tun_page_add(page, text, p - text);
}
