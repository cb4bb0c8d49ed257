
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_HTTP_TUN_STATUS_H_INCLUDED_
#define _NGX_HTTP_TUN_STATUS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_stream_tun_status.h>


#define NGX_HTTP_TUN_STATUS_GROUPS  3


/* a page that grows; zeroed but for the pool */

typedef struct {
    ngx_pool_t                *pool;
    ngx_chain_t               *first;
    ngx_chain_t               *last;
    off_t                      len;
    ngx_uint_t                 failed;   /* no memory, what follows is lost */
} ngx_http_tun_page_t;


typedef void (*ngx_http_tun_status_pt)(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *groups);


void ngx_http_tun_page_add(ngx_http_tun_page_t *page, const u_char *data,
    size_t len);

/* Up to 1 KB, as ngx_sprintf() has it. */
void ngx_cdecl ngx_http_tun_page(ngx_http_tun_page_t *page, const char *fmt,
    ...);

/* The formats: they end what they add with a newline. */
void ngx_http_tun_status_json(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *groups);
void ngx_http_tun_status_prometheus(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *groups);
void ngx_http_tun_status_html(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *groups);


#endif /* _NGX_HTTP_TUN_STATUS_H_INCLUDED_ */
