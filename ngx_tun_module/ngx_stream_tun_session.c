
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_upstream.h>


static void ngx_stream_tun_content_handler(ngx_stream_session_t *s);
static ngx_int_t ngx_stream_tun_filter(ngx_stream_session_t *s,
    ngx_chain_t *in, ngx_uint_t from_upstream);
static ngx_int_t ngx_stream_tun_preread_phase(ngx_stream_session_t *s,
    ngx_stream_phase_handler_t *ph);
static ngx_int_t ngx_stream_tun_send(ngx_stream_session_t *s, ngx_chain_t *in,
    ngx_uint_t from_upstream);
static u_char *ngx_stream_tun_lend(ngx_stream_session_t *s, ngx_chain_t *in);
static ngx_int_t ngx_stream_tun_sent(ngx_stream_session_t *s,
    ngx_uint_t last, ngx_uint_t from_upstream, ngx_int_t rc);


void
ngx_stream_tun_init_connection(ngx_connection_t *c)
{
    ngx_stream_init_connection(c);
}


void
ngx_stream_tun_init_sessions(ngx_conf_t *cf, ngx_stream_tun_main_conf_t *tmcf)
{
    ngx_uint_t                       i;
    ngx_stream_tun_srv_conf_t       *tscf;
    ngx_stream_core_srv_conf_t     **cscfp;
    ngx_stream_core_main_conf_t     *cmcf;
    ngx_stream_tun_upstream_conf_t  *tucf;

    cmcf = ngx_stream_conf_get_module_main_conf(cf, ngx_stream_core_module);
    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        tscf = cscfp[i]->ctx->srv_conf[ngx_stream_tun_module.ctx_index];

        tucf = cscfp[i]->ctx->srv_conf[ngx_stream_tun_upstream_module.
                                                                   ctx_index];

        if ((tscf->listen || tucf->socket) && cscfp[i]->handler != NULL) {
            tscf->content_handler = cscfp[i]->handler;
            cscfp[i]->handler = ngx_stream_tun_content_handler;
        }
    }

    if (tmcf->listens.nelts != 0) {
        tmcf->next_filter = ngx_stream_top_filter;
        ngx_stream_top_filter = ngx_stream_tun_filter;
    }
}


void
ngx_stream_tun_init_phases(ngx_cycle_t *cycle)
{
    ngx_stream_phase_handler_t   *ph;
    ngx_stream_core_main_conf_t  *cmcf;

    cmcf = ngx_stream_cycle_get_module_main_conf(cycle,
                                                 ngx_stream_core_module);

    for (ph = cmcf->phase_engine.handlers; ph->checker != NULL; ph++) {
        if (ph->checker == ngx_stream_core_preread_phase) {
            ph->checker = ngx_stream_tun_preread_phase;
        }
    }
}


/*
 * A SYN is answered when the upstream is connected.  The proxy passes the
 * client's bytes to the filters then, if only an empty buffer.
 */

static void
ngx_stream_tun_content_handler(ngx_stream_session_t *s)
{
    ngx_connection_t           *c;
    ngx_atomic_uint_t           number;
    ngx_stream_tun_srv_conf_t  *tscf;

    tscf = ngx_stream_get_module_srv_conf(s, ngx_stream_tun_module);

    c = s->connection;
    number = c->number;

    if (!ngx_stream_tun_session(s)
        || c->type == SOCK_DGRAM
        || tscf->accept == NGX_STREAM_TUN_EARLY
        || ngx_stream_tun_by_kernel(c))
    {
        ngx_stream_tun_guard_handler(s, tscf->content_handler);
        return;
    }

    if (c->buffer == NULL) {
        c->buffer = ngx_create_temp_buf(c->pool, 1);

        if (c->buffer == NULL) {
            ngx_stream_finalize_session(s, NGX_STREAM_INTERNAL_SERVER_ERROR);
            return;
        }
    }

    ngx_stream_tun_guard_handler(s, tscf->content_handler);

    /* a handler that waits without an upstream waits for the client */

    if (ngx_stream_tun_alive(c, number) && s->upstream == NULL) {
        ngx_tun_answer(c);
    }
}


static ngx_int_t
ngx_stream_tun_filter(ngx_stream_session_t *s, ngx_chain_t *in,
    ngx_uint_t from_upstream)
{
    ngx_int_t               rc;
    ngx_uint_t              last;
    ngx_chain_t            *cl;
    ngx_stream_upstream_t  *u;

    if (!ngx_stream_tun_session(s)) {
        return ngx_stream_tun_next_filter(s, in, from_upstream);
    }

    if (s->connection->type == SOCK_DGRAM) {
        u = s->upstream;

        return (u != NULL && u->connected)
               ? ngx_stream_tun_udp_filter(s, in, from_upstream)
               : ngx_stream_tun_next_filter(s, in, from_upstream);
    }

    for (last = 0, cl = in; cl != NULL; cl = cl->next) {
        last |= cl->buf->last_buf;
    }

    u = s->upstream;

    if (u != NULL && u->connected) {

        ngx_tun_answer(s->connection);

        /* the upstream ended by a reset, and so does the client */

        if (from_upstream && last && u->peer.connection->read->error) {
            ngx_tun_reset_after(s->connection);
        }
    }

    rc = ngx_stream_tun_send(s, in, from_upstream);

    return ngx_stream_tun_sent(s, last, from_upstream, rc);
}


/* a full buffer of the proxy is not copied: it goes, and another one comes */

static ngx_int_t
ngx_stream_tun_send(ngx_stream_session_t *s, ngx_chain_t *in,
    ngx_uint_t from_upstream)
{
    size_t             size;
    u_char            *p;
    ngx_buf_t         *b;
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = s->connection;

    p = from_upstream ? ngx_stream_tun_lend(s, in) : NULL;

    rc = ngx_stream_tun_next_filter(s, in, from_upstream);

    if (p != NULL && ngx_tun_lent(c, rc == NGX_OK) == NGX_OK) {
        b = &s->upstream->downstream_buf;
        size = b->end - b->start;

        /* of the pool the first one was */
        (void) ngx_pfree(c->pool, b->start);

        b->start = p;
        b->pos = p;
        b->last = p;
        b->end = p + size;
    }

    return rc;
}


static u_char *
ngx_stream_tun_lend(ngx_stream_session_t *s, ngx_chain_t *in)
{
    size_t             size;
    ngx_buf_t         *b;
    ngx_connection_t  *c;

    c = s->connection;

    if (s->upstream == NULL || in == NULL || in->next != NULL || c->buffered) {
        return NULL;
    }

#if (NGX_STREAM_SSL)
    if (c->ssl) {
        return NULL;
    }
#endif

    b = &s->upstream->downstream_buf;
    size = b->end - b->start;

    return (in->buf->pos == b->start
            && (size_t) (in->buf->last - in->buf->pos) > size / 2)
           ? ngx_tun_lend(c, size) : NULL;
}


static ngx_int_t
ngx_stream_tun_sent(ngx_stream_session_t *s, ngx_uint_t last,
    ngx_uint_t from_upstream, ngx_int_t rc)
{
    ngx_connection_t  *c;

    c = s->connection;

    if (from_upstream) {
        return (ngx_tun_sent(c, last, rc == NGX_OK) == NGX_OK) ? rc
                                                               : NGX_ERROR;
    }

    if (last && !c->read->error && ngx_stream_tun_by_kernel(c)) {
        ngx_tun_finish_after(c);
    }

    return rc;
}


/*
 * A session that must read before it knows its upstream is answered first.
 * Since nginx 1.25.5 the phase peeks at c->fd when it may, where ours has no
 * data.
 */

static ngx_int_t
ngx_stream_tun_preread_phase(ngx_stream_session_t *s,
    ngx_stream_phase_handler_t *ph)
{
    ngx_int_t           rc;
    ngx_uint_t          rdhup;
    ngx_connection_t   *c;
    ngx_atomic_uint_t   number;

    if (!ngx_stream_tun_session(s)) {
        return ngx_stream_core_preread_phase(s, ph);
    }

    c = s->connection;
    number = c->number;

    rdhup = ngx_use_epoll_rdhup;
    ngx_use_epoll_rdhup = 0;

    rc = ngx_stream_core_preread_phase(s, ph);

    ngx_use_epoll_rdhup = rdhup;

    if (rc == NGX_OK && ngx_stream_tun_alive(c, number)) {
        ngx_tun_answer(c);
    }

    return rc;
}


ngx_stream_tun_ctx_t *
ngx_stream_tun_get_ctx(ngx_stream_session_t *s)
{
    ngx_stream_tun_ctx_t  *ctx;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_module);

    if (ctx == NULL) {
        ctx = ngx_pcalloc(s->connection->pool,
                          sizeof(ngx_stream_tun_ctx_t));
        if (ctx == NULL) {
            return NULL;
        }

        ngx_stream_set_ctx(s, ctx, ngx_stream_tun_module);
    }

    return ctx;
}
