
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>


static void ngx_stream_tun_udp_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static void ngx_stream_tun_udp_proxy_handler(ngx_event_t *ev);
static ssize_t ngx_stream_tun_udp_recv(ngx_connection_t *c, u_char *buf,
    size_t size);
static void ngx_stream_tun_udp_refuse(ngx_stream_session_t *s,
    ngx_tun_icmp_error_e reason);
static ngx_int_t ngx_stream_tun_udp_log_handler(ngx_stream_session_t *s);


ngx_int_t
ngx_stream_tun_init_udp(ngx_conf_t *cf)
{
    ngx_stream_handler_pt        *h;
    ngx_stream_core_main_conf_t  *cmcf;

    cmcf = ngx_stream_conf_get_module_main_conf(cf, ngx_stream_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_STREAM_LOG_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_stream_tun_udp_log_handler;

    return NGX_OK;
}


ngx_int_t
ngx_stream_tun_udp_filter(ngx_stream_session_t *s, ngx_chain_t *in,
    ngx_uint_t from_upstream)
{
    ngx_int_t               rc;
    ngx_connection_t       *pc;
    ngx_stream_tun_ctx_t   *ctx;
    ngx_stream_upstream_t  *u;

    u = s->upstream;

    ctx = ngx_stream_tun_get_ctx(s);
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    if (u->peer.free != NULL && u->peer.free != ngx_stream_tun_udp_free_peer) {
        ctx->free = u->peer.free;
        u->peer.free = ngx_stream_tun_udp_free_peer;
    }

    pc = u->peer.connection;

    pc->recv = ngx_stream_tun_udp_recv;

    if (pc->read->handler != ngx_stream_tun_udp_proxy_handler) {
        ctx->upstream = pc->read->handler;
        pc->read->handler = ngx_stream_tun_udp_proxy_handler;
        pc->write->handler = ngx_stream_tun_udp_proxy_handler;

        ctx->downstream = s->connection->read->handler;
        s->connection->read->handler = ngx_stream_tun_udp_proxy_handler;
    }

    if (from_upstream && pc->read->error) {

        /* ICMP said so, of a socket that is connected */

        ngx_stream_tun_udp_refuse(s, NGX_TUN_ICMP_PORT_UNREACHABLE);
    }

    rc = ngx_stream_tun_next_filter(s, in, from_upstream);

    if (rc == NGX_ERROR && !from_upstream) {
        ngx_stream_tun_udp_refuse(s, NGX_TUN_ICMP_PORT_UNREACHABLE);
    }

    return rc;
}


static void
ngx_stream_tun_udp_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state)
{
    ngx_stream_session_t      *s;
    ngx_stream_tun_ctx_t  *ctx;

    s = pc->log->data;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_module);

    /* nothing comes back from a loop */

    if (pc->connection != NULL && !ngx_tun_guard_looped(&ctx->entry)) {
        ngx_tun_hold(s->connection, pc->connection->fd);
    }

    ctx->free(pc, data, state);
}


/*
 * The proxy module ends a session whose worker exits, and what has come for it
 * is lost: its listening socket is closed then.  Ours can still send.
 */

static void
ngx_stream_tun_udp_proxy_handler(ngx_event_t *ev)
{
    ngx_uint_t             exiting;
    ngx_connection_t      *c;
    ngx_stream_session_t  *s;
    ngx_stream_tun_ctx_t  *ctx;

    c = ev->data;
    s = c->data;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_module);

    exiting = ngx_exiting;
    ngx_exiting = 0;

    if (c == s->connection) {
        ctx->downstream(ev);

    } else {
        ctx->upstream(ev);
    }

    ngx_exiting = exiting;
}


/* as ngx_udp_recv(), but what does not fit is dropped, not cut */

static ssize_t
ngx_stream_tun_udp_recv(ngx_connection_t *c, u_char *buf, size_t size)
{
    ssize_t                n;
    ngx_err_t              err;
    ngx_stream_session_t  *s;
    ngx_stream_tun_ctx_t  *ctx;

    for ( ;; ) {
        n = recv(c->fd, buf, size, MSG_TRUNC);

        if (n >= 0 && (size_t) n <= size) {
            return n;
        }

        if (n > 0) {
            s = c->data;
            ngx_tun_oversized(s->connection);
            continue;
        }

        err = ngx_socket_errno;

        if (err == NGX_EINTR) {
            continue;
        }

        c->read->ready = 0;

        if (err == NGX_EAGAIN) {
            return NGX_AGAIN;
        }

        c->read->error = 1;

        /* a loop is in the log already */

        s = c->data;
        ctx = ngx_stream_tun_get_ctx(s);

        if (ctx != NULL && ngx_tun_guard_looped(&ctx->entry)) {
            return NGX_ERROR;
        }

        return ngx_connection_error(c, err, "recv() failed");
    }
}


static void
ngx_stream_tun_udp_refuse(ngx_stream_session_t *s, ngx_tun_icmp_error_e reason)
{
    ngx_stream_tun_ctx_t  *ctx;

    ctx = ngx_stream_tun_get_ctx(s);

    if (ctx != NULL && !ctx->refused) {
        ctx->refused = 1;
        ngx_tun_refuse(s->connection, reason);
    }
}


/* a session that got no upstream, and by its status: why */

static ngx_int_t
ngx_stream_tun_udp_log_handler(ngx_stream_session_t *s)
{
    if (s->connection->type != SOCK_DGRAM || !ngx_stream_tun_session(s)) {
        return NGX_OK;
    }

    switch (s->status) {

    case NGX_STREAM_FORBIDDEN:
    case NGX_STREAM_SERVICE_UNAVAILABLE:
        ngx_stream_tun_udp_refuse(s, NGX_TUN_ICMP_PROHIBITED);
        break;

    case NGX_STREAM_BAD_GATEWAY:
    case NGX_STREAM_INTERNAL_SERVER_ERROR:

        if (s->upstream == NULL || !s->upstream->connected) {
            ngx_stream_tun_udp_refuse(s, NGX_TUN_ICMP_PORT_UNREACHABLE);
        }
    }

    return NGX_OK;
}
