
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_fakeip.h>


#define NGX_STREAM_TUN_FAKEIP_LEASE  30  /* seconds */


/* a session to an address of a pool */

typedef struct {
    ngx_queue_t                    queue;
    ngx_stream_tun_fakeip_zone_t  *zone;
    uint32_t                       index;
    ngx_str_t                      name;     /* empty: it has none */
} ngx_stream_tun_fakeip_ctx_t;


static ngx_uint_t ngx_stream_tun_fakeip_is_reserved(
    ngx_stream_tun_fakeip_main_conf_t *fmcf, u_char *addr, size_t addr_len);
static ngx_int_t ngx_stream_tun_fakeip_lookup(ngx_stream_session_t *s,
    ngx_stream_tun_fakeip_zone_t *zone, u_char *addr, size_t addr_len);
static ngx_int_t ngx_stream_tun_fakeip_begin(ngx_stream_session_t *s,
    ngx_stream_tun_fakeip_zone_t *zone, u_char *name, size_t len,
    uint32_t index);
static void ngx_stream_tun_fakeip_end(void *data);
static ngx_msec_t ngx_stream_tun_fakeip_interval(
    ngx_stream_tun_fakeip_zone_t *zone);


ngx_int_t
ngx_stream_tun_fakeip_handler(ngx_stream_session_t *s)
{
    u_char                              *addr;
    size_t                               len;
    ngx_int_t                            rc;
    ngx_uint_t                           i;
    struct sockaddr                     *sa;
    ngx_stream_tun_fakeip_zone_t       **zonep;
    ngx_stream_tun_fakeip_srv_conf_t    *fscf;
    ngx_stream_tun_fakeip_main_conf_t   *fmcf;

    if (!ngx_stream_tun_session(s)) {
        return NGX_DECLINED;
    }

    sa = s->connection->local_sockaddr;

    switch (sa->sa_family) {

#if (NGX_HAVE_INET6)
    case AF_INET6:
        addr = ((struct sockaddr_in6 *) sa)->sin6_addr.s6_addr;
        len = 16;
        break;
#endif

    default: /* AF_INET */
        addr = (u_char *) &((struct sockaddr_in *) sa)->sin_addr;
        len = 4;
        break;
    }

    fmcf = ngx_stream_get_module_main_conf(s, ngx_stream_tun_fakeip_module);
    zonep = fmcf->zones.elts;

    rc = NGX_DECLINED;

    for (i = 0; i < fmcf->zones.nelts && rc == NGX_DECLINED; i++) {
        rc = ngx_stream_tun_fakeip_lookup(s, zonep[i], addr, len);
    }

    if (rc != NGX_ABORT) {
        return (rc == NGX_ERROR) ? NGX_ERROR : NGX_DECLINED;
    }

    if (ngx_stream_tun_fakeip_is_reserved(fmcf, addr, len)) {
        ngx_stream_set_ctx(s, NULL, ngx_stream_tun_fakeip_module);
        return NGX_DECLINED;
    }

    fscf = ngx_stream_get_module_srv_conf(s, ngx_stream_tun_fakeip_module);

    if (fscf->miss == NGX_STREAM_TUN_FAKEIP_SNIFF) {
        return NGX_DECLINED;
    }

    ngx_log_error(NGX_LOG_INFO, s->connection->log, 0,
                  "fake-IP address without a name, refused");

    /* a datagram is answered with port unreachable then */

    return NGX_STREAM_BAD_GATEWAY;
}


/* a server's address of the prefix may be beyond what the pool gives away */

static ngx_uint_t
ngx_stream_tun_fakeip_is_reserved(ngx_stream_tun_fakeip_main_conf_t *fmcf,
    u_char *addr, size_t addr_len)
{
    ngx_uint_t              i;
    ngx_tun_fakeip_host_t  *host;

    host = fmcf->reserved.elts;

    for (i = 0; i < fmcf->reserved.nelts; i++) {
        if (host[i].addr_len == addr_len
            && ngx_memcmp(host[i].addr, addr, addr_len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ngx_stream_tun_fakeip_lookup(ngx_stream_session_t *s,
    ngx_stream_tun_fakeip_zone_t *zone, u_char *addr, size_t addr_len)
{
    u_char     name[NGX_TUN_FAKEIP_NAME_MAX];
    size_t     len;
    uint32_t   index;
    ngx_int_t  rc;

    rc = ngx_tun_fakeip_name(&zone->fip, addr, addr_len, name, &len);

    if (rc == NGX_DECLINED) {
        return NGX_DECLINED;
    }

    if (rc == NGX_ABORT) {
        len = 0;
    }

    if (ngx_tun_fakeip_index(&zone->fip, addr, addr_len, &index) != NGX_OK
        || ngx_stream_tun_fakeip_begin(s, zone, name, len, index) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return rc;
}


static ngx_int_t
ngx_stream_tun_fakeip_begin(ngx_stream_session_t *s,
    ngx_stream_tun_fakeip_zone_t *zone, u_char *name, size_t len,
    uint32_t index)
{
    u_char                        text[NGX_TUN_FAKEIP_TEXT_MAX], *last;
    ngx_pool_cleanup_t           *cln;
    ngx_stream_tun_fakeip_ctx_t  *ctx;

    cln = ngx_pool_cleanup_add(s->connection->pool,
                               sizeof(ngx_stream_tun_fakeip_ctx_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    ctx = cln->data;
    ngx_memzero(ctx, sizeof(ngx_stream_tun_fakeip_ctx_t));

    ctx->zone = zone;
    ctx->index = index;
    ngx_str_set(&ctx->name, "");

    if (len != 0) {
        last = ngx_tun_fakeip_text(text, name, len);

        ctx->name.len = last - text;
        ctx->name.data = ngx_pnalloc(s->connection->pool, ctx->name.len);
        if (ctx->name.data == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(ctx->name.data, text, ctx->name.len);

        cln->handler = ngx_stream_tun_fakeip_end;
        ngx_queue_insert_tail(&zone->sessions, &ctx->queue);

        if (!zone->lease.timer_set) {
            ngx_add_timer(&zone->lease, ngx_stream_tun_fakeip_interval(zone));
        }
    }

    ngx_stream_set_ctx(s, ctx, ngx_stream_tun_fakeip_module);

    return NGX_OK;
}


static void
ngx_stream_tun_fakeip_end(void *data)
{
    ngx_stream_tun_fakeip_ctx_t *ctx = data;

    ngx_queue_remove(&ctx->queue);

    ngx_tun_fakeip_touch(&ctx->zone->fip, ctx->index);
}


/* often enough for a short "hold" too, with a worker that was busy before */

static ngx_msec_t
ngx_stream_tun_fakeip_interval(ngx_stream_tun_fakeip_zone_t *zone)
{
    time_t  hold;

    hold = ngx_min(zone->fip.conf.hold, NGX_STREAM_TUN_FAKEIP_LEASE * 3);

    return (ngx_msec_t) hold * 1000 / 3;
}


void
ngx_stream_tun_fakeip_lease(ngx_event_t *ev)
{
    ngx_queue_t                   *q;
    ngx_stream_tun_fakeip_ctx_t   *ctx;
    ngx_stream_tun_fakeip_zone_t  *zone;

    zone = ev->data;

    if (ngx_queue_empty(&zone->sessions)) {
        return;
    }

    for (q = ngx_queue_head(&zone->sessions);
         q != ngx_queue_sentinel(&zone->sessions);
         q = ngx_queue_next(q))
    {
        ctx = ngx_queue_data(q, ngx_stream_tun_fakeip_ctx_t, queue);

        ngx_tun_fakeip_touch(&zone->fip, ctx->index);
    }

    ngx_add_timer(ev, ngx_stream_tun_fakeip_interval(zone));
}


ngx_uint_t
ngx_stream_tun_fakeip_is_fake(ngx_stream_session_t *s, struct sockaddr *sa)
{
    u_char                               *addr;
    size_t                                len;
    uint32_t                              index;
    ngx_uint_t                            i;
    ngx_stream_tun_fakeip_zone_t        **zonep;
    ngx_stream_tun_fakeip_main_conf_t    *fmcf;

    switch (sa->sa_family) {

    case AF_INET:
        addr = (u_char *) &((struct sockaddr_in *) sa)->sin_addr;
        len = 4;
        break;

#if (NGX_HAVE_INET6)
    case AF_INET6:
        addr = (u_char *) &((struct sockaddr_in6 *) sa)->sin6_addr;
        len = 16;
        break;
#endif

    default: /* AF_UNIX */
        return 0;
    }

    fmcf = ngx_stream_get_module_main_conf(s, ngx_stream_tun_fakeip_module);
    zonep = fmcf->zones.elts;

    for (i = 0; i < fmcf->zones.nelts; i++) {

        if (ngx_tun_fakeip_index(&zonep[i]->fip, addr, len, &index) == NGX_OK
            && !ngx_stream_tun_fakeip_is_reserved(fmcf, addr, len))
        {
            return 1;
        }
    }

    return 0;
}


ngx_str_t *
ngx_stream_tun_fakeip_name(ngx_stream_session_t *s)
{
    ngx_stream_tun_fakeip_ctx_t  *ctx;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_fakeip_module);

    return (ctx != NULL) ? &ctx->name : NULL;
}


ngx_int_t
ngx_stream_tun_fakeip_find(ngx_stream_session_t *s, u_char *addr,
    size_t addr_len, ngx_str_t *name, ngx_tun_fakeip_t **fip, uint32_t *index)
{
    u_char                               wire[NGX_TUN_FAKEIP_NAME_MAX];
    u_char                               text[NGX_TUN_FAKEIP_TEXT_MAX];
    size_t                               len;
    ngx_int_t                            rc;
    ngx_uint_t                           i;
    ngx_stream_tun_fakeip_zone_t       **zonep;
    ngx_stream_tun_fakeip_main_conf_t   *fmcf;

    fmcf = ngx_stream_get_module_main_conf(s, ngx_stream_tun_fakeip_module);
    zonep = fmcf->zones.elts;

    rc = NGX_DECLINED;

    for (i = 0; i < fmcf->zones.nelts && rc == NGX_DECLINED; i++) {
        *fip = &zonep[i]->fip;
        rc = ngx_tun_fakeip_name(*fip, addr, addr_len, wire, &len);
    }

    if (rc == NGX_ABORT && ngx_stream_tun_fakeip_is_reserved(fmcf, addr,
                                                             addr_len))
    {
        return NGX_DECLINED;
    }

    if (rc != NGX_OK
        || ngx_tun_fakeip_index(*fip, addr, addr_len, index) != NGX_OK)
    {
        return (rc == NGX_OK) ? NGX_ERROR : rc;
    }

    name->len = ngx_tun_fakeip_text(text, wire, len) - text;
    name->data = ngx_pnalloc(s->connection->pool, name->len);

    if (name->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(name->data, text, name->len);

    return NGX_OK;
}
