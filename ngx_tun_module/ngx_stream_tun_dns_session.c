
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_dns.h>


static ngx_int_t ngx_stream_tun_dns_access(ngx_stream_tun_dns_ctx_t *ctx);
static ngx_uint_t ngx_stream_tun_dns_on_device(ngx_stream_session_t *s,
    u_char *addr, size_t addr_len);
static void ngx_stream_tun_dns_udp(ngx_stream_tun_dns_ctx_t *ctx);
static void ngx_stream_tun_dns_udp_read_handler(ngx_event_t *rev);
static ngx_int_t ngx_stream_tun_dns_udp_answer(ngx_stream_tun_dns_ctx_t *ctx,
    u_char *p, u_char *end);
static void ngx_stream_tun_dns_empty_handler(ngx_event_t *wev);


void
ngx_stream_tun_dns_handler(ngx_stream_session_t *s)
{
    ngx_int_t                        rc;
    ngx_connection_t                *c;
    ngx_stream_tun_dns_ctx_t        *ctx;
    ngx_stream_tun_dns_main_conf_t  *dmcf;

    c = s->connection;
    c->log->action = "answering DNS queries";

    ctx = ngx_palloc(c->pool, sizeof(ngx_stream_tun_dns_ctx_t));
    if (ctx == NULL) {
        ngx_stream_finalize_session(s, NGX_STREAM_INTERNAL_SERVER_ERROR);
        return;
    }

    rc = ngx_stream_tun_dns_init_ctx(ctx, s);

    if (rc != NGX_OK) {
        ngx_stream_finalize_session(s, s->status);
        return;
    }

    dmcf = ngx_stream_get_module_main_conf(s, ngx_stream_tun_dns_module);

    ctx->batch = 0;
    ctx->again = dmcf->again;

    if (c->type == SOCK_DGRAM) {
        ngx_stream_tun_dns_udp(ctx);
        return;
    }

    ngx_stream_tun_dns_tcp(ctx);
}


ngx_int_t
ngx_stream_tun_dns_init_ctx(ngx_stream_tun_dns_ctx_t *ctx,
    ngx_stream_session_t *s)
{
    ngx_stream_tun_dns_srv_conf_t  *dscf;

    dscf = ngx_stream_get_module_srv_conf(s, ngx_stream_tun_dns_module);

    ngx_memzero(ctx, sizeof(ngx_stream_tun_dns_ctx_t));

    ctx->session = s;
    ctx->zone = dscf->zone;
    ctx->out_last = &ctx->out;
    ctx->fd = (ngx_socket_t) -1;
    ctx->batch = 1;

    ngx_stream_set_ctx(s, ctx, ngx_stream_tun_dns_module);

    if (ngx_stream_tun_dns_access(ctx) != NGX_OK) {
        ngx_tun_dns_count(ctx->zone->stat, foreign);
        s->status = NGX_STREAM_FORBIDDEN;
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/* a source that is not near may be one that was forged */

static ngx_int_t
ngx_stream_tun_dns_access(ngx_stream_tun_dns_ctx_t *ctx)
{
    u_char                          *addr;
    size_t                           addr_len;
    ngx_connection_t                *c;
    ngx_stream_tun_dns_srv_conf_t   *dscf;
    ngx_stream_tun_dns_main_conf_t  *dmcf;

    c = ctx->session->connection;

    dscf = ngx_stream_get_module_srv_conf(ctx->session,
                                          ngx_stream_tun_dns_module);
    dmcf = ngx_stream_get_module_main_conf(ctx->session,
                                           ngx_stream_tun_dns_module);

    addr = ngx_tun_dns_address(c->sockaddr, &addr_len);

    /* of a UNIX socket; the permissions of its file tell who may */

    if (addr == NULL) {
        ctx->client = 1;
        return NGX_OK;
    }

    ctx->client = ngx_tun_dns_limit_client(&ctx->zone->shared->limit, addr,
                                           addr_len);

    if (ngx_inet_get_port(c->sockaddr) == 0) {
        return NGX_DECLINED;
    }

    if (dscf->public
        || ngx_tun_dns_is_near(dmcf->near, addr, addr_len, ngx_time())
        || ngx_stream_tun_dns_on_device(ctx->session, addr, addr_len))
    {
        return NGX_OK;
    }

    return NGX_DECLINED;
}


/* the device may be in another namespace, where we cannot look */

static ngx_uint_t
ngx_stream_tun_dns_on_device(ngx_stream_session_t *s, u_char *addr,
    size_t addr_len)
{
    ngx_uint_t             i;
    ngx_array_t           *addresses;
    ngx_tun_address_t     *ta;
    ngx_tun_dns_prefix_t   prefix;

    if (!ngx_stream_tun_session(s)) {
        return 0;
    }

    addresses = &ngx_tun_connection_conf(s->connection)->device.addresses;
    ta = addresses->elts;

    for (i = 0; i < addresses->nelts; i++) {
        ngx_memcpy(prefix.addr, ta[i].addr, 16);
        prefix.addr_len = ta[i].addr_len;
        prefix.bits = ta[i].prefix;

        if (ngx_tun_dns_match(&prefix, 1, addr, addr_len)) {
            return 1;
        }
    }

    return 0;
}


static void
ngx_stream_tun_dns_udp(ngx_stream_tun_dns_ctx_t *ctx)
{
    ngx_buf_t         *b;
    ngx_connection_t  *c;

    c = ctx->session->connection;
    b = c->buffer;

    if (b != NULL) {

        if (ngx_stream_tun_dns_udp_answer(ctx, b->pos, b->last) != NGX_OK) {
            ngx_stream_finalize_session(ctx->session,
                                        NGX_STREAM_INTERNAL_SERVER_ERROR);
            return;
        }

        b->pos = b->last;
    }

    /* more may come from the same port meanwhile */

    c->read->handler = ngx_stream_tun_dns_udp_read_handler;
    c->write->handler = ngx_stream_tun_dns_empty_handler;

    ngx_stream_tun_dns_udp_done(ctx);
}


static void
ngx_stream_tun_dns_udp_read_handler(ngx_event_t *rev)
{
    ssize_t                    n;
    u_char                     buf[NGX_TUN_DNS_QUERY_MAX];
    ngx_connection_t          *c;
    ngx_stream_session_t      *s;
    ngx_stream_tun_dns_ctx_t  *ctx;

    c = rev->data;
    s = c->data;
    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_dns_module);

    if (c->close || rev->timedout) {
        ngx_stream_finalize_session(s, NGX_STREAM_OK);
        return;
    }

    for ( ;; ) {
        n = c->recv(c, buf, NGX_TUN_DNS_QUERY_MAX);

        if (n == NGX_AGAIN) {
            break;
        }

        if (n == NGX_ERROR || rev->eof) {
            ngx_stream_finalize_session(s, NGX_STREAM_OK);
            return;
        }

        s->received += n;

        if (ngx_stream_tun_dns_udp_answer(ctx, buf, buf + n) != NGX_OK) {
            ngx_stream_finalize_session(s, NGX_STREAM_INTERNAL_SERVER_ERROR);
            return;
        }

        /* of a listening socket there is one at a time */

        if (!rev->ready) {
            break;
        }
    }

    ngx_stream_tun_dns_udp_done(ctx);
}


static ngx_int_t
ngx_stream_tun_dns_udp_answer(ngx_stream_tun_dns_ctx_t *ctx, u_char *p,
    u_char *end)
{
    size_t     len;
    u_char    *answer, buf[2 + NGX_TUN_DNS_ANSWER_MAX];
    ngx_int_t  rc;

    rc = ngx_stream_tun_dns_answer(ctx, p, end, buf, &answer, &len);

    if (rc == NGX_OK) {
        ngx_stream_tun_dns_udp_send(ctx, answer, len);
    }

    return (rc == NGX_ERROR) ? NGX_ERROR : NGX_OK;
}


/* by a chain: a socket of any address answers from the one it was asked at */

void
ngx_stream_tun_dns_udp_send(ngx_stream_tun_dns_ctx_t *ctx, u_char *buf,
    size_t len)
{
    ngx_buf_t          b;
    ngx_chain_t        out;
    ngx_socket_t       fd;
    ngx_connection_t  *c;

    c = ctx->session->connection;
    fd = c->fd;

    ngx_memzero(&b, sizeof(ngx_buf_t));

    b.start = b.pos = buf;
    b.end = b.last = buf + len;
    b.memory = 1;
    b.flush = 1;
    b.last_buf = 1;

    out.buf = &b;
    out.next = NULL;

    if (ctx->fd != (ngx_socket_t) -1) {
        c->fd = ctx->fd;

    } else if (c->shared && ngx_exiting) {
        return;
    }

    /* what cannot be sent now is lost, as any datagram may be */

    (void) c->send_chain(c, &out, 0);

    c->fd = fd;
    c->write->ready = 1;
}


/* a session ends with its last answer, unless there is another question */

void
ngx_stream_tun_dns_udp_done(ngx_stream_tun_dns_ctx_t *ctx)
{
    ngx_connection_t  *c;

    c = ctx->session->connection;

    if (c->read->ready) {
        ngx_post_event(c->read, &ngx_posted_events);
        return;
    }

    if (ctx->waiting == 0) {
        ngx_stream_finalize_session(ctx->session, NGX_STREAM_OK);
    }
}


static void
ngx_stream_tun_dns_empty_handler(ngx_event_t *wev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_EVENT, wev->log, 0, "tun dns empty handler");
}
