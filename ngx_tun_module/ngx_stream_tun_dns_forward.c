
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_dns.h>
#include <ngx_stream_tun_upstream.h>


/* a question of a client that waits for a resolver */

typedef struct {
    ngx_tun_dns_waiter_t         waiter;
    ngx_queue_t                  queue;      /* of the session */
    ngx_stream_tun_dns_ctx_t    *ctx;
    ngx_tun_dns_query_t          query;
    ngx_uint_t                   strip;
    ngx_uint_t                   faked;
    u_char                       question[NGX_TUN_DNS_NAME_MAX + 4];
} ngx_stream_tun_dns_request_t;


static size_t ngx_stream_tun_dns_rewrite(ngx_stream_tun_dns_ctx_t *ctx,
    ngx_tun_dns_rewrite_t *rw, u_char *p, size_t len);
static ngx_stream_tun_dns_request_t *ngx_stream_tun_dns_create_request(
    ngx_stream_tun_dns_ctx_t *ctx, ngx_uint_t faked, ngx_uint_t strip);
static void ngx_stream_tun_dns_cleanup(void *data);
static ngx_int_t ngx_stream_tun_dns_peer(ngx_tun_dns_exchange_t *ex,
    void *data);
static void ngx_stream_tun_dns_reply(ngx_tun_dns_waiter_t *waiter, u_char *p,
    size_t len);


ngx_stream_tun_upstream_conf_t *
ngx_stream_tun_dns_upstream_conf(ngx_stream_tun_dns_srv_conf_t *dscf)
{
    /* a `tun_dns_pass host:port` has no directives */

    if (dscf->upstream->srv_conf == NULL) {
        return NULL;
    }

    return ngx_stream_conf_upstream_srv_conf(dscf->upstream,
                                             ngx_stream_tun_upstream_module);
}


void *
ngx_stream_tun_dns_options(ngx_stream_core_srv_conf_t *cscf,
    ngx_stream_tun_dns_srv_conf_t *dscf)
{
    ngx_stream_tun_upstream_conf_t  *tucf;

    tucf = ngx_stream_tun_dns_upstream_conf(dscf);

    if (tucf == NULL || !tucf->socket) {
        tucf = cscf->ctx->srv_conf[ngx_stream_tun_upstream_module.ctx_index];
    }

    return tucf->socket ? tucf : NULL;
}


ngx_int_t
ngx_stream_tun_dns_forward(ngx_stream_tun_dns_ctx_t *ctx, ngx_uint_t faked,
    ngx_uint_t strip, u_char **answer, size_t *answer_len)
{
    size_t                          len;
    u_char                         *p;
    uint32_t                        age;
    ngx_int_t                       rc;
    ngx_tun_dns_rewrite_t           rw;
    ngx_stream_tun_dns_request_t   *req;
    ngx_stream_tun_dns_srv_conf_t  *dscf;

    dscf = ngx_stream_get_module_srv_conf(ctx->session,
                                          ngx_stream_tun_dns_module);

    if (ngx_tun_dns_recall(dscf->forwarder, &ctx->query, &p, &len, &age)
        == NGX_OK)
    {
        ngx_tun_dns_count(ctx->zone->stat, forwarded);
        ngx_tun_dns_count(ctx->zone->stat, cached);

        rw.query = &ctx->query;
        rw.age = age;
        rw.faked = faked;
        rw.strip = strip;

        *answer_len = ngx_stream_tun_dns_rewrite(ctx, &rw, p, len);
        *answer = dscf->buffer + 2;

        return NGX_OK;
    }

    if (ctx->batch) {
        return NGX_DONE;
    }

    ngx_tun_dns_count(ctx->zone->stat, forwarded);

    req = ngx_stream_tun_dns_create_request(ctx, faked, strip);
    if (req == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_tun_dns_forward(dscf->forwarder, &req->query, &req->waiter,
                             ngx_stream_tun_dns_peer, ctx);

    if (rc != NGX_OK) {
        ngx_queue_remove(&req->queue);
        ngx_free(req);
        return NGX_ERROR;
    }

    ctx->waiting++;

    return NGX_AGAIN;
}


/* into the buffer of the server, after two bytes for TCP */

static size_t
ngx_stream_tun_dns_rewrite(ngx_stream_tun_dns_ctx_t *ctx,
    ngx_tun_dns_rewrite_t *rw, u_char *p, size_t len)
{
    size_t                          n;
    ngx_stream_tun_dns_srv_conf_t  *dscf;

    dscf = ngx_stream_get_module_srv_conf(ctx->session,
                                          ngx_stream_tun_dns_module);

    rw->ttl = ngx_tun_fakeip_ttl(ctx->zone->fip);
    rw->limit = (ctx->session->connection->type == SOCK_DGRAM)
                ? ngx_tun_dns_udp_limit(rw->query) : NGX_TUN_DNS_MESSAGE_MAX;

    n = 0;

    if (p != NULL) {
        n = ngx_tun_dns_rewrite(rw, p, p + len, dscf->buffer + 2,
                                NGX_TUN_DNS_MESSAGE_MAX);
    }

    if (n == 0) {
        ngx_tun_dns_count(ctx->zone->stat, failed);
        n = ngx_tun_dns_build_error(rw->query, dscf->buffer + 2,
                                    NGX_TUN_DNS_MESSAGE_MAX,
                                    NGX_TUN_DNS_SERVFAIL);
    }

    return n;
}


static ngx_stream_tun_dns_request_t *
ngx_stream_tun_dns_create_request(ngx_stream_tun_dns_ctx_t *ctx,
    ngx_uint_t faked, ngx_uint_t strip)
{
    ngx_connection_t              *c;
    ngx_pool_cleanup_t            *cln;
    ngx_stream_tun_dns_request_t  *req;

    c = ctx->session->connection;

    if (ctx->requests.next == NULL) {
        cln = ngx_pool_cleanup_add(c->pool, 0);
        if (cln == NULL) {
            return NULL;
        }

        cln->handler = ngx_stream_tun_dns_cleanup;
        cln->data = ctx;

        ngx_queue_init(&ctx->requests);

        /* the listening socket is closed at a reload, its number used again */

        if (c->shared) {
            ctx->fd = dup(c->fd);
        }
    }

    req = ngx_alloc(sizeof(ngx_stream_tun_dns_request_t), c->log);
    if (req == NULL) {
        return NULL;
    }

    req->waiter.handler = ngx_stream_tun_dns_reply;
    req->ctx = ctx;
    req->faked = faked;
    req->strip = strip;

    req->query = ctx->query;
    req->query.question = req->question;
    ngx_memcpy(req->question, ctx->query.question, ctx->query.question_len);

    ngx_queue_insert_tail(&ctx->requests, &req->queue);

    return req;
}


/* the session ends before its answers */

static void
ngx_stream_tun_dns_cleanup(void *data)
{
    ngx_stream_tun_dns_ctx_t *ctx = data;

    ngx_queue_t                   *q;
    ngx_stream_tun_dns_request_t  *req;

    while (!ngx_queue_empty(&ctx->requests)) {
        q = ngx_queue_head(&ctx->requests);
        ngx_queue_remove(q);

        req = ngx_queue_data(q, ngx_stream_tun_dns_request_t, queue);
        ngx_tun_dns_leave(&req->waiter);
        ngx_free(req);
    }

    if (ctx->fd != (ngx_socket_t) -1) {
        (void) close(ctx->fd);
    }
}


/*
 * The balancers know sessions only.  This one is a copy, for the question may
 * outlive the session; what is evaluated, is so before this returns.
 */

static ngx_int_t
ngx_stream_tun_dns_peer(ngx_tun_dns_exchange_t *ex, void *data)
{
    ngx_stream_tun_dns_ctx_t *ctx = data;

    size_t                             size;
    ngx_connection_t                  *c;
    ngx_stream_session_t              *s;
    ngx_stream_upstream_t             *u;
    ngx_stream_core_main_conf_t       *cmcf;
    ngx_stream_tun_dns_srv_conf_t     *dscf;
    ngx_stream_tun_upstream_conf_t    *tucf;
    ngx_stream_upstream_init_peer_pt   init;

    cmcf = ngx_stream_get_module_main_conf(ctx->session,
                                           ngx_stream_core_module);
    dscf = ngx_stream_get_module_srv_conf(ctx->session,
                                          ngx_stream_tun_dns_module);

    s = ngx_palloc(ex->pool, sizeof(ngx_stream_session_t));
    c = ngx_palloc(ex->pool, sizeof(ngx_connection_t));
    u = ngx_pcalloc(ex->pool, sizeof(ngx_stream_upstream_t));

    size = cmcf->variables.nelts * sizeof(ngx_stream_variable_value_t);

    if (s == NULL || c == NULL || u == NULL) {
        return NGX_ERROR;
    }

    *s = *ctx->session;
    *c = *ctx->session->connection;

    c->pool = ex->pool;
    c->log = &ex->log;
    c->data = s;

    s->connection = c;
    s->upstream = u;
    s->upstream_states = NULL;
    s->variables = ngx_palloc(ex->pool, size);

    if (s->variables == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(s->variables, ctx->session->variables, size);

    u->upstream = dscf->upstream;
    u->peer.log = &ex->log;
    u->peer.type = SOCK_DGRAM;

    /* the options of sockets are not of this session, but of the forwarder */

    tucf = ngx_stream_tun_dns_upstream_conf(dscf);
    init = (tucf != NULL && tucf->init != NULL) ? tucf->init
                                                : dscf->upstream->peer.init;

    if (init(s, dscf->upstream) != NGX_OK) {
        return NGX_ERROR;
    }

    ex->peer = &u->peer;

    return NGX_OK;
}


static void
ngx_stream_tun_dns_reply(ngx_tun_dns_waiter_t *waiter, u_char *p, size_t len)
{
    size_t                          n;
    ngx_int_t                       rc;
    ngx_stream_session_t           *s;
    ngx_tun_dns_rewrite_t           rw;
    ngx_stream_tun_dns_ctx_t       *ctx;
    ngx_stream_tun_dns_request_t   *req;
    ngx_stream_tun_dns_srv_conf_t  *dscf;

    req = (ngx_stream_tun_dns_request_t *) waiter;
    ctx = req->ctx;
    s = ctx->session;

    dscf = ngx_stream_get_module_srv_conf(s, ngx_stream_tun_dns_module);

    rw.query = &req->query;
    rw.age = 0;
    rw.faked = req->faked;
    rw.strip = req->strip;

    n = ngx_stream_tun_dns_rewrite(ctx, &rw, p, len);

    ctx->query = req->query;
    ctx->rcode = dscf->buffer[2 + 3] & 0x0f;
    ctx->asked = 1;
    ctx->answered = 1;
    ctx->waiting--;

    ngx_queue_remove(&req->queue);
    ngx_free(req);

    if (s->connection->type == SOCK_DGRAM) {
        ngx_stream_tun_dns_udp_send(ctx, dscf->buffer + 2, n);
        ngx_stream_tun_dns_udp_done(ctx);
        return;
    }

    rc = ngx_stream_tun_dns_tcp_send(ctx, dscf->buffer, n);

    if (rc != NGX_OK) {
        ngx_stream_finalize_session(s, NGX_STREAM_OK);
        return;
    }

    ngx_stream_tun_dns_tcp_go_on(ctx);
}
