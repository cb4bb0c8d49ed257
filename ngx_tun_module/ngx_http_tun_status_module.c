
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_http.h>


typedef struct {
    ngx_str_t                name;
    size_t                   offset;
} ngx_http_tun_status_counter_t;


/* how many workers of each device are shown */

typedef struct {
    ngx_uint_t               ntuns;
    ngx_stream_tun_t       **tuns;
    ngx_uint_t              *workers;
} ngx_http_tun_status_ctx_t;


#define ngx_http_tun_status_counter(name)                                     \
    { ngx_string(#name), offsetof(ngx_tun_stat_t, name) }

#define ngx_http_tun_status_limit(name, reason)                               \
    { ngx_string(name),                                                       \
      offsetof(ngx_tun_stat_t, limits)                                        \
      + (reason) * sizeof(ngx_atomic_t) }


static char *ngx_http_tun_status(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_tun_status_handler(ngx_http_request_t *r);
static ngx_stream_tun_main_conf_t *ngx_http_tun_status_conf(void);
static ngx_int_t ngx_http_tun_status_count(ngx_http_request_t *r,
    ngx_http_tun_status_ctx_t *ctx);
static size_t ngx_http_tun_status_size(ngx_http_tun_status_ctx_t *ctx);
static u_char *ngx_http_tun_status_json(u_char *p,
    ngx_http_tun_status_ctx_t *ctx);
static u_char *ngx_http_tun_status_tun(u_char *p, ngx_stream_tun_t *st,
    ngx_uint_t n);
static u_char *ngx_http_tun_status_stat(u_char *p, ngx_tun_stat_t *stat);
static void ngx_http_tun_status_add(ngx_tun_stat_t *sum, ngx_tun_stat_t *stat);
static ngx_uint_t ngx_http_tun_status_workers(ngx_stream_tun_t *st);


/* all of ngx_tun_stat_t, which has nothing else */

static const ngx_http_tun_status_counter_t  ngx_http_tun_status_counters[] = {
    ngx_http_tun_status_counter(packets_in),
    ngx_http_tun_status_counter(bytes_in),
    ngx_http_tun_status_counter(packets_out),
    ngx_http_tun_status_counter(bytes_out),
    ngx_http_tun_status_counter(write_errors),
    ngx_http_tun_status_counter(invalid),
    ngx_http_tun_status_counter(checksum),
    ngx_http_tun_status_counter(unsupported),
    ngx_http_tun_status_counter(unknown),
    ngx_http_tun_status_counter(flows),
    ngx_http_tun_status_counter(active),
    ngx_http_tun_status_counter(refused),
    ngx_http_tun_status_counter(early),
    ngx_http_tun_status_limit("limited_flows", NGX_TUN_LIMIT_FLOWS),
    ngx_http_tun_status_limit("limited_half_open", NGX_TUN_LIMIT_HALF_OPEN),
    ngx_http_tun_status_limit("limited_memory", NGX_TUN_LIMIT_MEMORY),
    ngx_http_tun_status_limit("limited_connections",
                              NGX_TUN_LIMIT_CONNECTIONS),
    ngx_http_tun_status_limit("limited_descriptors",
                              NGX_TUN_LIMIT_DESCRIPTORS)
};


#define NGX_HTTP_TUN_STATUS_N                                                 \
    (sizeof(ngx_http_tun_status_counters)                                     \
     / sizeof(ngx_http_tun_status_counter_t))

typedef char  ngx_http_tun_status_complete_t
    [NGX_HTTP_TUN_STATUS_N * sizeof(ngx_atomic_t) == sizeof(ngx_tun_stat_t)
     ? 1 : -1];


static ngx_command_t  ngx_http_tun_status_commands[] = {

    { ngx_string("tun_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_tun_status,
      0,
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

    NULL,                                  /* create location configuration */
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


static char *
ngx_http_tun_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_tun_status_handler;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_tun_status_handler(ngx_http_request_t *r)
{
    ngx_int_t                    rc;
    ngx_buf_t                   *b;
    ngx_chain_t                  out;
    ngx_table_elt_t             *h;
    ngx_http_tun_status_ctx_t    ctx;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_tun_status_count(r, &ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b = ngx_create_temp_buf(r->pool, ngx_http_tun_status_size(&ctx));
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->last = ngx_http_tun_status_json(b->last, &ctx);
    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));
    h->hash = 1;
    ngx_str_set(&h->key, "Cache-Control");
    ngx_str_set(&h->value, "no-store");

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = b->last - b->pos;
    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


static ngx_stream_tun_main_conf_t *
ngx_http_tun_status_conf(void)
{
    if (ngx_get_conf(ngx_cycle->conf_ctx, ngx_stream_module) == NULL) {
        return NULL;
    }

    return ngx_stream_cycle_get_module_main_conf(ngx_cycle,
                                                 ngx_stream_tun_module);
}


static ngx_int_t
ngx_http_tun_status_count(ngx_http_request_t *r,
    ngx_http_tun_status_ctx_t *ctx)
{
    ngx_uint_t                   i;
    ngx_stream_tun_main_conf_t  *tmcf;

    tmcf = ngx_http_tun_status_conf();

    if (tmcf == NULL) {
        ctx->ntuns = 0;
        return NGX_OK;
    }

    ctx->ntuns = tmcf->tuns.nelts;
    ctx->tuns = tmcf->tuns.elts;

    ctx->workers = ngx_palloc(r->pool, ctx->ntuns * sizeof(ngx_uint_t));
    if (ctx->workers == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < ctx->ntuns; i++) {
        ctx->workers[i] = ngx_http_tun_status_workers(ctx->tuns[i]);
    }

    return NGX_OK;
}


static size_t
ngx_http_tun_status_size(ngx_http_tun_status_ctx_t *ctx)
{
    size_t      size, stat;
    ngx_uint_t  i;

    size = sizeof("{\"tun\":[]}" CRLF);
    stat = sizeof("{},");

    for (i = 0; i < NGX_HTTP_TUN_STATUS_N; i++) {
        stat += ngx_http_tun_status_counters[i].name.len
                + sizeof("\"\":,") + NGX_ATOMIC_T_LEN;
    }

    for (i = 0; i < ctx->ntuns; i++) {
        size += sizeof("{\"name\":\"\",\"stack\":\"lwip\",\"total\":,"
                       "\"workers\":[]},")
                + 2 * ctx->tuns[i]->conf.device.name.len
                + (1 + ctx->workers[i]) * stat;
    }

    return size;
}


static u_char *
ngx_http_tun_status_json(u_char *p, ngx_http_tun_status_ctx_t *ctx)
{
    ngx_uint_t  i;

    p = ngx_cpymem(p, "{\"tun\":[", sizeof("{\"tun\":[") - 1);

    for (i = 0; i < ctx->ntuns; i++) {
        if (i != 0) {
            *p++ = ',';
        }

        p = ngx_http_tun_status_tun(p, ctx->tuns[i], ctx->workers[i]);
    }

    return ngx_cpymem(p, "]}" CRLF, sizeof("]}" CRLF) - 1);
}


static u_char *
ngx_http_tun_status_tun(u_char *p, ngx_stream_tun_t *st, ngx_uint_t n)
{
    ngx_str_t       *name;
    ngx_uint_t       i;
    ngx_tun_stat_t   sum;

    name = &st->conf.device.name;

    p = ngx_cpymem(p, "{\"name\":\"", sizeof("{\"name\":\"") - 1);
    p = (u_char *) ngx_escape_json(p, name->data, name->len);
    p = ngx_cpymem(p, "\",\"stack\":\"lwip\",\"total\":",
                   sizeof("\",\"stack\":\"lwip\",\"total\":") - 1);

    ngx_memzero(&sum, sizeof(ngx_tun_stat_t));

    for (i = 0; i < n; i++) {
        ngx_http_tun_status_add(&sum, &st->stat[i]);
    }

    p = ngx_http_tun_status_stat(p, &sum);

    p = ngx_cpymem(p, ",\"workers\":[", sizeof(",\"workers\":[") - 1);

    for (i = 0; i < n; i++) {
        if (i != 0) {
            *p++ = ',';
        }

        p = ngx_http_tun_status_stat(p, &st->stat[i]);
    }

    return ngx_cpymem(p, "]}", sizeof("]}") - 1);
}


static u_char *
ngx_http_tun_status_stat(u_char *p, ngx_tun_stat_t *stat)
{
    ngx_uint_t                            i;
    ngx_atomic_t                         *value;
    const ngx_http_tun_status_counter_t  *counter;

    *p++ = '{';

    for (i = 0; i < NGX_HTTP_TUN_STATUS_N; i++) {
        counter = &ngx_http_tun_status_counters[i];
        value = (ngx_atomic_t *) ((u_char *) stat + counter->offset);

        if (i != 0) {
            *p++ = ',';
        }

        p = ngx_sprintf(p, "\"%V\":%uA", &counter->name, *value);
    }

    *p++ = '}';

    return p;
}


static void
ngx_http_tun_status_add(ngx_tun_stat_t *sum, ngx_tun_stat_t *stat)
{
    size_t         offset;
    ngx_uint_t     i;
    ngx_atomic_t  *value;

    for (i = 0; i < NGX_HTTP_TUN_STATUS_N; i++) {
        offset = ngx_http_tun_status_counters[i].offset;
        value = (ngx_atomic_t *) ((u_char *) sum + offset);

        *value += *(ngx_atomic_t *) ((u_char *) stat + offset);
    }
}


/* those that are, and those that were before a reload made them less */

static ngx_uint_t
ngx_http_tun_status_workers(ngx_stream_tun_t *st)
{
    ngx_uint_t  n;

    for (n = NGX_MAX_PROCESSES; n > st->conf.device.queues; n--) {
        if (st->stat[n - 1].packets_in != 0) {
            break;
        }
    }

    return n;
}
