
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_http_tun_status.h>
#include <ngx_http.h>


typedef struct {
    ngx_str_t                name;       /* of the parameter and argument */
    ngx_str_t                type;       /* Content-Type */
    ngx_http_tun_status_pt   write;
} ngx_http_tun_status_format_t;


typedef struct {
    const ngx_http_tun_status_format_t  *format;
} ngx_http_tun_status_conf_t;


static void *ngx_http_tun_status_create_conf(ngx_conf_t *cf);
static char *ngx_http_tun_status(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static const ngx_http_tun_status_format_t *ngx_http_tun_status_find(
    ngx_str_t *name);
static ngx_int_t ngx_http_tun_status_handler(ngx_http_request_t *r);
static const ngx_http_tun_status_format_t *ngx_http_tun_status_format(
    ngx_http_request_t *r);
static ngx_int_t ngx_http_tun_status_read(ngx_stream_tun_group_t *groups,
    ngx_pool_t *pool);
static ngx_int_t ngx_http_tun_status_send(ngx_http_request_t *r,
    ngx_http_tun_page_t *page, const ngx_http_tun_status_format_t *format);


/* the first one is the default */

static const ngx_http_tun_status_format_t  ngx_http_tun_status_formats[] = {

    { ngx_string("json"), ngx_string("application/json"),
      ngx_http_tun_status_json },

    { ngx_string("prometheus"),
      ngx_string("text/plain; version=0.0.4; charset=utf-8"),
      ngx_http_tun_status_prometheus },

    { ngx_string("html"), ngx_string("text/html; charset=utf-8"),
      ngx_http_tun_status_html },

    { ngx_null_string, ngx_null_string, NULL }
};


static ngx_command_t  ngx_http_tun_status_commands[] = {

    { ngx_string("tun_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_tun_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_tun_status_module_ctx = {
    NULL,                                  /* preconfiguration */
    NULL,                                  /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_tun_status_create_conf,       /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_tun_status_module = {
    NGX_MODULE_V1,
    &ngx_http_tun_status_module_ctx,       /* module context */
    ngx_http_tun_status_commands,          /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_http_tun_status_create_conf(ngx_conf_t *cf)
{
    /* set by ngx_pcalloc(): conf->format = NULL; */

    return ngx_pcalloc(cf->pool, sizeof(ngx_http_tun_status_conf_t));
}


static char *
ngx_http_tun_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_tun_status_conf_t *tscf = conf;

    ngx_str_t                 *value;
    ngx_http_core_loc_conf_t  *clcf;

    if (tscf->format != NULL) {
        return "is duplicate";
    }

    tscf->format = &ngx_http_tun_status_formats[0];

    if (cf->args->nelts == 2) {
        value = cf->args->elts;

        tscf->format = ngx_http_tun_status_find(&value[1]);

        if (tscf->format == NULL) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid format \"%V\", it must be \"json\", "
                               "\"prometheus\" or \"html\"", &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_tun_status_handler;

    return NGX_CONF_OK;
}


static const ngx_http_tun_status_format_t *
ngx_http_tun_status_find(ngx_str_t *name)
{
    const ngx_http_tun_status_format_t  *format;

    for (format = ngx_http_tun_status_formats; format->name.len; format++) {
        if (format->name.len == name->len
            && ngx_strncmp(format->name.data, name->data, name->len) == 0)
        {
            return format;
        }
    }

    return NULL;
}


static ngx_int_t
ngx_http_tun_status_handler(ngx_http_request_t *r)
{
    ngx_int_t                            rc;
    ngx_http_tun_page_t                  page;
    ngx_stream_tun_group_t               groups[NGX_HTTP_TUN_STATUS_GROUPS];
    const ngx_http_tun_status_format_t  *format;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    format = ngx_http_tun_status_format(r);
    if (format == NULL) {
        return NGX_HTTP_BAD_REQUEST;
    }

    if (ngx_http_tun_status_read(groups, r->pool) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memzero(&page, sizeof(ngx_http_tun_page_t));
    page.pool = r->pool;

    format->write(&page, groups);

    if (page.failed) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_tun_status_send(r, &page, format);
}


static const ngx_http_tun_status_format_t *
ngx_http_tun_status_format(ngx_http_request_t *r)
{
    ngx_str_t                    name;
    ngx_http_tun_status_conf_t  *tscf;

    if (ngx_http_arg(r, (u_char *) "format", 6, &name) == NGX_OK) {
        return ngx_http_tun_status_find(&name);
    }

    tscf = ngx_http_get_module_loc_conf(r, ngx_http_tun_status_module);

    return tscf->format;
}


static ngx_int_t
ngx_http_tun_status_read(ngx_stream_tun_group_t *groups, ngx_pool_t *pool)
{
    ngx_uint_t  i;

    ngx_memzero(groups, NGX_HTTP_TUN_STATUS_GROUPS
                        * sizeof(ngx_stream_tun_group_t));

    for (i = 0; i < NGX_HTTP_TUN_STATUS_GROUPS; i++) {
        if (ngx_array_init(&groups[i].objects, pool, 1,
                           sizeof(ngx_stream_tun_object_t))
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ngx_stream_tun_status(&groups[0], pool) != NGX_OK
        || ngx_stream_tun_fakeip_status(&groups[1], pool) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_stream_tun_dns_status(&groups[2], pool);
}


static ngx_int_t
ngx_http_tun_status_send(ngx_http_request_t *r, ngx_http_tun_page_t *page,
    const ngx_http_tun_status_format_t *format)
{
    ngx_int_t         rc;
    ngx_buf_t        *b;
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));
    h->hash = 1;
    ngx_str_set(&h->key, "Cache-Control");
    ngx_str_set(&h->value, "no-store");

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = page->len;
    r->headers_out.content_type = format->type;
    r->headers_out.content_type_len = format->type.len;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    if (page->last == NULL) {
        return ngx_http_send_special(r, NGX_HTTP_LAST);
    }

    b = page->last->buf;
    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    return ngx_http_output_filter(r, page->first);
}
