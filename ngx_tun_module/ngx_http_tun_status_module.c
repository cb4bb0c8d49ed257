
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_dns.h>
#include <ngx_stream_tun_fakeip.h>
#include <ngx_http.h>


typedef struct {
    ngx_str_t                name;
    size_t                   offset;
} ngx_http_tun_status_counter_t;


/* a device, as it was at one moment */

typedef struct {
    ngx_str_t               *name;
    ngx_uint_t               stack;
    ngx_uint_t               workers;
    ngx_tun_stat_t          *stat;       /* one for each of them */
    ngx_tun_stat_t           total;
} ngx_http_tun_status_t;


#define ngx_http_tun_status_value(stat, i)                                    \
    *(ngx_atomic_t *)                                                         \
        ((u_char *) (stat) + ngx_http_tun_status_counters[i].offset)


#define ngx_http_tun_status_counter(name)                                     \
    { ngx_string(#name), offsetof(ngx_tun_stat_t, name) }

#define ngx_http_tun_status_fragments(name, reason)                           \
    { ngx_string(#name), offsetof(ngx_tun_stat_t, fragments[reason]) }

#define ngx_http_tun_status_limit(name, reason)                               \
    { ngx_string(#name), offsetof(ngx_tun_stat_t, limits[reason]) }


static char *ngx_http_tun_status(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_tun_status_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_tun_status_send(ngx_http_request_t *r, ngx_buf_t *b);
static ngx_array_t *ngx_http_tun_status_read(ngx_pool_t *pool);
static ngx_int_t ngx_http_tun_status_read_tun(ngx_http_tun_status_t *status,
    ngx_stream_tun_t *st, ngx_pool_t *pool);
static ngx_uint_t ngx_http_tun_status_workers(ngx_stream_tun_t *st);
static size_t ngx_http_tun_status_size(ngx_array_t *tuns);
static u_char *ngx_http_tun_status_json(u_char *p, ngx_array_t *tuns);
static u_char *ngx_http_tun_status_tun(u_char *p, ngx_http_tun_status_t *tun);
static u_char *ngx_http_tun_status_stat(u_char *p, ngx_tun_stat_t *stat);


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
    ngx_http_tun_status_counter(unacceptable),
    ngx_http_tun_status_counter(flows),
    ngx_http_tun_status_counter(active),
    ngx_http_tun_status_counter(refused),
    ngx_http_tun_status_counter(looped),
    ngx_http_tun_status_counter(early),
    ngx_http_tun_status_counter(udp_flows),
    ngx_http_tun_status_counter(udp_active),
    ngx_http_tun_status_counter(udp_evicted),
    ngx_http_tun_status_counter(udp_oversized),
    ngx_http_tun_status_counter(udp_dropped),
    ngx_http_tun_status_counter(datagrams_in),
    ngx_http_tun_status_counter(datagrams_out),
    ngx_http_tun_status_counter(reassembled),
    ngx_http_tun_status_fragments(fragments_limited,
                                  NGX_TUN_FRAGMENT_DROP_LIMIT),
    ngx_http_tun_status_fragments(fragments_timed_out,
                                  NGX_TUN_FRAGMENT_DROP_TIMEOUT),
    ngx_http_tun_status_fragments(fragments_overlapping,
                                  NGX_TUN_FRAGMENT_DROP_OVERLAP),
    ngx_http_tun_status_fragments(fragments_invalid,
                                  NGX_TUN_FRAGMENT_DROP_INVALID),
    ngx_http_tun_status_counter(icmp_echo),
    ngx_http_tun_status_counter(icmp_forwarded),
    ngx_http_tun_status_counter(icmp_errors),
    ngx_http_tun_status_counter(limited_icmp),
    ngx_http_tun_status_limit(limited_flows, NGX_TUN_LIMIT_FLOWS),
    ngx_http_tun_status_limit(limited_pending, NGX_TUN_LIMIT_PENDING),
    ngx_http_tun_status_limit(limited_half_open, NGX_TUN_LIMIT_HALF_OPEN),
    ngx_http_tun_status_limit(limited_udp_flows, NGX_TUN_LIMIT_UDP_FLOWS),
    ngx_http_tun_status_limit(limited_memory, NGX_TUN_LIMIT_MEMORY),
    ngx_http_tun_status_limit(limited_connections, NGX_TUN_LIMIT_CONNECTIONS),
    ngx_http_tun_status_limit(limited_descriptors, NGX_TUN_LIMIT_DESCRIPTORS),
    ngx_http_tun_status_limit(limited_tuples, NGX_TUN_LIMIT_TUPLES)
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
    ngx_int_t     rc;
    ngx_buf_t    *b;
    ngx_array_t  *tuns;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    tuns = ngx_http_tun_status_read(r->pool);
    if (tuns == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b = ngx_create_temp_buf(r->pool, ngx_http_tun_status_size(tuns));
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->last = ngx_http_tun_status_json(b->last, tuns);
    b->last_buf = (r == r->main) ? 1 : 0;
    b->last_in_chain = 1;

    return ngx_http_tun_status_send(r, b);
}


static ngx_int_t
ngx_http_tun_status_send(ngx_http_request_t *r, ngx_buf_t *b)
{
    ngx_int_t         rc;
    ngx_chain_t       out;
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


static ngx_array_t *
ngx_http_tun_status_read(ngx_pool_t *pool)
{
    ngx_uint_t                   i;
    ngx_array_t                 *tuns;
    ngx_stream_tun_t           **stp;
    ngx_http_tun_status_t       *status;
    ngx_stream_tun_main_conf_t  *tmcf;

    tuns = ngx_array_create(pool, 1, sizeof(ngx_http_tun_status_t));
    if (tuns == NULL) {
        return NULL;
    }

    tmcf = ngx_stream_cycle_get_module_main_conf(ngx_cycle,
                                                 ngx_stream_tun_module);
    if (tmcf == NULL) {
        return tuns;
    }

    stp = tmcf->tuns.elts;

    for (i = 0; i < tmcf->tuns.nelts; i++) {
        status = ngx_array_push(tuns);
        if (status == NULL) {
            return NULL;
        }

        if (ngx_http_tun_status_read_tun(status, stp[i], pool) != NGX_OK) {
            return NULL;
        }
    }

    return tuns;
}


/* each counter is read once, so that the total is the sum of what is shown */

static ngx_int_t
ngx_http_tun_status_read_tun(ngx_http_tun_status_t *status,
    ngx_stream_tun_t *st, ngx_pool_t *pool)
{
    ngx_uint_t         i, n;
    ngx_atomic_uint_t  value;

    status->name = &st->conf.device.name;
    status->stack = st->conf.stack;
    status->workers = ngx_http_tun_status_workers(st);

    status->stat = ngx_palloc(pool, status->workers * sizeof(ngx_tun_stat_t));
    if (status->stat == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(&status->total, sizeof(ngx_tun_stat_t));

    for (n = 0; n < status->workers; n++) {
        for (i = 0; i < NGX_HTTP_TUN_STATUS_N; i++) {
            value = ngx_http_tun_status_value(&st->stat[n], i);
            ngx_http_tun_status_value(&status->stat[n], i) = value;
            ngx_http_tun_status_value(&status->total, i) += value;
        }
    }

    return NGX_OK;
}


/* those that are, and those that were before a reload made them less */

static ngx_uint_t
ngx_http_tun_status_workers(ngx_stream_tun_t *st)
{
    ngx_uint_t        n, first;
    ngx_atomic_t     *value;
    ngx_core_conf_t  *ccf;

    ccf = (ngx_core_conf_t *) ngx_get_conf(ngx_cycle->conf_ctx,
                                           ngx_core_module);

    first = (ccf->master ? ccf->worker_processes : 1) * NGX_HTTP_TUN_STATUS_N;
    value = (ngx_atomic_t *) st->stat;

    n = NGX_MAX_PROCESSES * NGX_HTTP_TUN_STATUS_N;

    while (n > first && value[n - 1] == 0) {
        n--;
    }

    return (n + NGX_HTTP_TUN_STATUS_N - 1) / NGX_HTTP_TUN_STATUS_N;
}


static size_t
ngx_http_tun_status_size(ngx_array_t *tuns)
{
    size_t                  size, stat;
    ngx_uint_t              i;
    ngx_http_tun_status_t  *status;

    stat = sizeof("{},");

    for (i = 0; i < NGX_HTTP_TUN_STATUS_N; i++) {
        stat += ngx_http_tun_status_counters[i].name.len
                + sizeof("\"\":,") + NGX_ATOMIC_T_LEN;
    }

    status = tuns->elts;
    size = sizeof("{\"tun\":[],\"fakeip\":,\"dns\":}" CRLF)
           + ngx_stream_tun_fakeip_json_size((ngx_cycle_t *) ngx_cycle)
           + ngx_stream_tun_dns_json_size((ngx_cycle_t *) ngx_cycle);

    for (i = 0; i < tuns->nelts; i++) {
        size += sizeof("{\"name\":\"\",\"stack\":\"system\",\"total\":,"
                       "\"workers\":[]},")
                + status[i].name->len
                + ngx_escape_json(NULL, status[i].name->data,
                                  status[i].name->len)
                + (1 + status[i].workers) * stat;
    }

    return size;
}


static u_char *
ngx_http_tun_status_json(u_char *p, ngx_array_t *tuns)
{
    ngx_uint_t              i;
    ngx_http_tun_status_t  *status;

    status = tuns->elts;

    p = ngx_sprintf(p, "{\"tun\":[");

    for (i = 0; i < tuns->nelts; i++) {
        if (i != 0) {
            *p++ = ',';
        }

        p = ngx_http_tun_status_tun(p, &status[i]);
    }

    p = ngx_sprintf(p, "],\"fakeip\":");
    p = ngx_stream_tun_fakeip_json(p, (ngx_cycle_t *) ngx_cycle);
    p = ngx_sprintf(p, ",\"dns\":");
    p = ngx_stream_tun_dns_json(p, (ngx_cycle_t *) ngx_cycle);

    return ngx_sprintf(p, "}" CRLF);
}


static u_char *
ngx_http_tun_status_tun(u_char *p, ngx_http_tun_status_t *tun)
{
    ngx_uint_t  i;

    p = ngx_sprintf(p, "{\"name\":\"");
    p = (u_char *) ngx_escape_json(p, tun->name->data, tun->name->len);
    p = ngx_sprintf(p, "\",\"stack\":\"%s\",\"total\":",
                    (tun->stack == NGX_TUN_STACK_SYSTEM) ? "system" : "lwip");
    p = ngx_http_tun_status_stat(p, &tun->total);
    p = ngx_sprintf(p, ",\"workers\":[");

    for (i = 0; i < tun->workers; i++) {
        if (i != 0) {
            *p++ = ',';
        }

        p = ngx_http_tun_status_stat(p, &tun->stat[i]);
    }

    return ngx_sprintf(p, "]}");
}


static u_char *
ngx_http_tun_status_stat(u_char *p, ngx_tun_stat_t *stat)
{
    ngx_uint_t  i;

    *p++ = '{';

    for (i = 0; i < NGX_HTTP_TUN_STATUS_N; i++) {
        if (i != 0) {
            *p++ = ',';
        }

        p = ngx_sprintf(p, "\"%V\":%uA",
                        &ngx_http_tun_status_counters[i].name,
                        ngx_http_tun_status_value(stat, i));
    }

    *p++ = '}';

    return p;
}
