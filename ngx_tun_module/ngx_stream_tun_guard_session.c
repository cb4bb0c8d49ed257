
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_fakeip.h>
#include <ngx_stream_tun_upstream.h>


/*
 * A session of a device must not come back into one, nor go to an address that
 * stands for a name: it would go round until descriptors run out.  What was
 * connected is found when it comes back, by ngx_tun_looped().
 */


/* while nginx connects for a session */

typedef struct {
    ngx_stream_tun_main_conf_t    *main;

    /* as it was before */

    ngx_stream_session_t          *session;
    ngx_peer_connection_t         *peer;
    ngx_stream_tun_upstream_conf_t  *socket;
    ngx_int_t                    (*add_conn)(ngx_connection_t *c);
} ngx_stream_tun_guard_scope_t;


static ngx_int_t ngx_stream_tun_guard_init_zone(ngx_shm_zone_t *zone,
    void *data);
static void ngx_stream_tun_guard_enter(ngx_stream_tun_guard_scope_t *scope,
    ngx_stream_session_t *s, ngx_peer_connection_t *pc,
    ngx_stream_tun_upstream_conf_t *tucf);
static void ngx_stream_tun_guard_leave(ngx_stream_tun_guard_scope_t *scope);
static ngx_int_t ngx_stream_tun_guard_add_conn(ngx_connection_t *c);
static void ngx_stream_tun_guard_connecting(ngx_stream_session_t *s,
    ngx_peer_connection_t *pc);
static void ngx_stream_tun_guard_watch(ngx_stream_session_t *s);
static void ngx_stream_tun_guard_resolved(ngx_resolver_ctx_t *rctx);
static ngx_int_t ngx_stream_tun_guard_get_peer(ngx_peer_connection_t *pc,
    void *data);
static void ngx_stream_tun_guard_post(ngx_stream_session_t *s,
    ngx_stream_tun_ctx_t *ctx);
static void ngx_stream_tun_guard_wait_handler(ngx_event_t *ev);
static void ngx_stream_tun_guard_connected(ngx_stream_session_t *s);
static void ngx_stream_tun_guard_wait(ngx_stream_session_t *s);
static void ngx_stream_tun_guard_socket(ngx_stream_session_t *s,
    ngx_tun_guard_entry_t *entry, ngx_socket_t fd, int type,
    struct sockaddr *peer);
static ngx_int_t ngx_stream_tun_guard_key(ngx_tun_flow_key_t *key, int type,
    struct sockaddr *local, struct sockaddr *peer);
static ngx_stream_tun_ctx_t *ngx_stream_tun_guard_ctx(
    ngx_stream_session_t *s);
static void ngx_stream_tun_guard_cleanup(void *data);
static void ngx_stream_tun_guard_connect_handler(ngx_event_t *ev);
static size_t ngx_stream_tun_guard_address(struct sockaddr *sa, u_char *addr);


#define ngx_stream_tun_guard_main(s)                                          \
    ((ngx_stream_tun_main_conf_t *)                                           \
         ngx_stream_get_module_main_conf(s, ngx_stream_tun_module))


ngx_int_t
ngx_stream_tun_guard_init(ngx_conf_t *cf, ngx_stream_tun_main_conf_t *tmcf)
{
    ngx_str_t        name;
    ngx_shm_zone_t  *zone;

    ngx_str_set(&name, "tun_guard");

    /* and what the slab allocator needs: of each page its place in a list */

    zone = ngx_shared_memory_add(cf, &name, NGX_TUN_GUARD_SIZE
                                            + NGX_TUN_GUARD_SIZE / 64
                                            + 16 * ngx_pagesize,
                                 &ngx_stream_tun_module);
    if (zone == NULL) {
        return NGX_ERROR;
    }

    zone->init = ngx_stream_tun_guard_init_zone;
    zone->data = tmcf;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_guard_init_zone(ngx_shm_zone_t *zone, void *data)
{
    ngx_slab_pool_t             *shpool;
    ngx_stream_tun_main_conf_t  *tmcf;

    tmcf = zone->data;
    shpool = (ngx_slab_pool_t *) zone->shm.addr;

    if (shpool->data == NULL) {

        /* of new memory, which is zeroed: pages that are not used cost none */

        shpool->data = ngx_slab_alloc(shpool, NGX_TUN_GUARD_SIZE);

        if (shpool->data == NULL
            || ngx_tun_guard_init(shpool->data) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    ngx_tun_guard_attach(&tmcf->guard, shpool->data);

    return NGX_OK;
}


void
ngx_stream_tun_guard_handler(ngx_stream_session_t *s,
    ngx_stream_content_handler_pt handler)
{
    ngx_connection_t              *c;
    ngx_atomic_uint_t              number;
    ngx_stream_tun_guard_scope_t   scope;

    c = s->connection;
    number = c->number;

    ngx_stream_tun_guard_enter(&scope, s, NULL, ngx_stream_tun_socket_conf(s));

    handler(s);

    if (ngx_stream_tun_alive(c, number)) {
        ngx_stream_tun_guard_watch(s);
    }

    ngx_stream_tun_guard_leave(&scope);
}


ngx_uint_t
ngx_stream_tun_guard_fake(ngx_stream_session_t *s, struct sockaddr *sockaddr,
    ngx_str_t *name)
{
    ngx_uint_t  n;

    if (!ngx_stream_tun_session(s)
        || !ngx_stream_tun_fakeip_is_fake(s, sockaddr))
    {
        return 0;
    }

    n = ngx_tun_guard_log(&ngx_stream_tun_guard_main(s)->guard);

    if (n != 0) {
        ngx_log_error(NGX_LOG_WARN, s->connection->log, 0,
                      "a loop, the upstream %V is an address of a fake-IP "
                      "zone, refused; %ui since the last line", name, n);
    }

    return 1;
}


/* between its socket() and its connect(), nginx adds the events */

static void
ngx_stream_tun_guard_enter(ngx_stream_tun_guard_scope_t *scope,
    ngx_stream_session_t *s, ngx_peer_connection_t *pc,
    ngx_stream_tun_upstream_conf_t *tucf)
{
    ngx_stream_tun_main_conf_t  *tmcf;

    tmcf = ngx_stream_cycle_get_module_main_conf(ngx_cycle,
                                                 ngx_stream_tun_module);

    scope->main = tmcf;
    scope->session = tmcf->guarded;
    scope->peer = tmcf->peer;
    scope->socket = tmcf->socket;
    scope->add_conn = ngx_event_actions.add_conn;

    tmcf->guarded = s;
    tmcf->peer = pc;
    tmcf->socket = tucf;

    if (scope->add_conn != ngx_stream_tun_guard_add_conn) {
        tmcf->add_conn = scope->add_conn;
        ngx_event_actions.add_conn = ngx_stream_tun_guard_add_conn;
    }
}


static void
ngx_stream_tun_guard_leave(ngx_stream_tun_guard_scope_t *scope)
{
    ngx_stream_tun_main_conf_t  *tmcf;

    tmcf = scope->main;

    tmcf->guarded = scope->session;
    tmcf->peer = scope->peer;
    tmcf->socket = scope->socket;

    ngx_event_actions.add_conn = scope->add_conn;

    ngx_tun_guard_connecting(&tmcf->guard, ngx_worker, NULL);
}


static ngx_int_t
ngx_stream_tun_guard_add_conn(ngx_connection_t *c)
{
    ngx_stream_session_t        *s;
    ngx_peer_connection_t       *pc;
    ngx_stream_tun_main_conf_t  *tmcf;

    tmcf = ngx_stream_cycle_get_module_main_conf(ngx_cycle,
                                                 ngx_stream_tun_module);
    s = tmcf->guarded;
    pc = tmcf->peer;

    if (pc == NULL && s->upstream != NULL) {
        pc = &s->upstream->peer;
    }

    /* what else is connected in the meantime is not ours */

    if (pc == NULL || pc->connection != c) {
        return tmcf->add_conn(c);
    }

    if (tmcf->socket != NULL
        && pc->sockaddr->sa_family != AF_UNIX
        && ngx_stream_tun_set_socket(tmcf->socket, c->fd, c->log) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (s != NULL && ngx_stream_tun_session(s)) {

        if (ngx_stream_tun_guard_fake(s, pc->sockaddr, pc->name)) {
            return NGX_ERROR;
        }

        ngx_stream_tun_guard_connecting(s, pc);
    }

    return tmcf->add_conn(c);
}


static void
ngx_stream_tun_guard_connecting(ngx_stream_session_t *s,
    ngx_peer_connection_t *pc)
{
    ngx_tun_flow_key_t  key;

    if (ngx_stream_tun_guard_key(&key, pc->type, NULL, pc->sockaddr)
        == NGX_OK)
    {
        ngx_tun_guard_connecting(&ngx_stream_tun_guard_main(s)->guard,
                                 ngx_worker, &key);
    }
}


/* the session's upstream, as it is now and as it will be */

static void
ngx_stream_tun_guard_watch(ngx_stream_session_t *s)
{
    ngx_resolver_ctx_t     *rctx;
    ngx_stream_upstream_t  *u;
    ngx_stream_tun_ctx_t   *ctx;

    u = s->upstream;

    if (u == NULL) {
        return;
    }

    ctx = ngx_stream_tun_guard_ctx(s);
    if (ctx == NULL) {
        return;
    }

    rctx = (u->resolved != NULL) ? u->resolved->ctx : NULL;

    if (rctx != NULL) {
        ctx->resolved = rctx->handler;
        rctx->handler = ngx_stream_tun_guard_resolved;
        return;
    }

    if (u->peer.get == NULL) {
        return;
    }

    ctx->get = u->peer.get;
    u->peer.get = ngx_stream_tun_guard_get_peer;

    ngx_stream_tun_guard_connected(s);
    ngx_stream_tun_guard_wait(s);
}


static void
ngx_stream_tun_guard_resolved(ngx_resolver_ctx_t *rctx)
{
    ngx_connection_t              *c;
    ngx_atomic_uint_t              number;
    ngx_stream_session_t          *s;
    ngx_stream_tun_ctx_t          *ctx;
    ngx_stream_tun_guard_scope_t   scope;

    s = rctx->data;
    c = s->connection;
    number = c->number;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_module);

    ngx_stream_tun_guard_enter(&scope, s, NULL, ngx_stream_tun_socket_conf(s));

    ctx->resolved(rctx);

    if (ngx_stream_tun_alive(c, number)) {
        ngx_stream_tun_guard_watch(s);
    }

    ngx_stream_tun_guard_leave(&scope);
}


/* another peer: ngx_event_connect_peer() gets a connection that is there */

static ngx_int_t
ngx_stream_tun_guard_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_int_t              rc;
    ngx_stream_session_t  *s;
    ngx_stream_tun_ctx_t  *ctx;

    s = pc->log->data;
    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_module);

    pc->get = ctx->get;

    rc = ngx_stream_tun_guard_connect(s, NULL);

    ctx->get = pc->get;
    pc->get = ngx_stream_tun_guard_get_peer;

    if (rc == NGX_AGAIN) {
        ngx_stream_tun_guard_post(s, ctx);
    }

    return (rc == NGX_OK) ? NGX_DONE : rc;
}


/* the proxy module sets its handlers before this event comes */

static void
ngx_stream_tun_guard_post(ngx_stream_session_t *s, ngx_stream_tun_ctx_t *ctx)
{
    if (ctx->event == NULL) {
        ctx->event = ngx_pcalloc(s->connection->pool, sizeof(ngx_event_t));
        if (ctx->event == NULL) {
            return;
        }

        ctx->event->data = s;
        ctx->event->log = s->connection->log;
        ctx->event->handler = ngx_stream_tun_guard_wait_handler;
    }

    ngx_post_event(ctx->event, &ngx_posted_events);
}


static void
ngx_stream_tun_guard_wait_handler(ngx_event_t *ev)
{
    ngx_stream_tun_guard_wait(ev->data);
}


ngx_int_t
ngx_stream_tun_guard_connect(ngx_stream_session_t *s,
    ngx_stream_tun_upstream_conf_t *tucf)
{
    ngx_int_t                      rc;
    ngx_stream_tun_ctx_t          *ctx;
    ngx_peer_connection_t         *pc;
    ngx_stream_tun_guard_scope_t   scope;

    pc = &s->upstream->peer;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_module);

    if (ctx != NULL) {
        ngx_tun_guard_delete(&ctx->entry);
    }

    if (tucf == NULL) {
        tucf = ngx_stream_tun_socket_conf(s);
    }

    ngx_stream_tun_guard_enter(&scope, s, pc, tucf);

    rc = ngx_event_connect_peer(pc);

    if (rc == NGX_OK || rc == NGX_AGAIN || rc == NGX_DONE) {
        ngx_stream_tun_guard_connected(s);
    }

    ngx_stream_tun_guard_leave(&scope);

    return rc;
}


ngx_int_t
ngx_stream_tun_guard_connect_peer(ngx_peer_connection_t *pc, void *options)
{
    ngx_int_t                      rc;
    ngx_stream_tun_guard_scope_t   scope;

    ngx_stream_tun_guard_enter(&scope, NULL, pc, options);

    rc = ngx_event_connect_peer(pc);

    ngx_stream_tun_guard_leave(&scope);

    return rc;
}


static void
ngx_stream_tun_guard_connected(ngx_stream_session_t *s)
{
    ngx_stream_tun_ctx_t   *ctx;
    ngx_peer_connection_t  *pc;

    pc = &s->upstream->peer;

    if (pc->connection == NULL || !ngx_stream_tun_session(s)) {
        return;
    }

    ctx = ngx_stream_tun_guard_ctx(s);

    if (ctx != NULL) {
        ngx_stream_tun_guard_socket(s, &ctx->entry, pc->connection->fd,
                                    pc->type, pc->sockaddr);
    }
}


/* what waits for its connect() is told that it was refused as a loop */

static void
ngx_stream_tun_guard_wait(ngx_stream_session_t *s)
{
    ngx_connection_t       *pc;
    ngx_stream_tun_ctx_t   *ctx;
    ngx_stream_upstream_t  *u;

    u = s->upstream;
    pc = u->peer.connection;

    if (pc == NULL
        || pc->type != SOCK_STREAM
        || !pc->write->timer_set
        || pc->write->handler == ngx_stream_tun_guard_connect_handler
        || u->connected)
    {
        return;
    }

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_module);

    ctx->connect = pc->write->handler;

    pc->read->handler = ngx_stream_tun_guard_connect_handler;
    pc->write->handler = ngx_stream_tun_guard_connect_handler;
}


/* what is said of a loop is in the log already */

static void
ngx_stream_tun_guard_connect_handler(ngx_event_t *ev)
{
    ngx_log_t             *log;
    ngx_connection_t      *pc;
    ngx_stream_session_t  *s;
    ngx_stream_tun_ctx_t  *ctx;

    pc = ev->data;
    s = pc->data;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_module);

    pc->read->handler = ctx->connect;
    pc->write->handler = ctx->connect;

    if (ngx_tun_guard_looped(&ctx->entry)) {

        log = ngx_palloc(s->connection->pool, sizeof(ngx_log_t));

        if (log != NULL) {
            *log = *pc->log;
            log->log_level = 0;

            pc->log = log;
        }
    }

    ctx->connect(ev);
}


static void
ngx_stream_tun_guard_socket(ngx_stream_session_t *s,
    ngx_tun_guard_entry_t *entry, ngx_socket_t fd, int type,
    struct sockaddr *peer)
{
    socklen_t           len;
    ngx_sockaddr_t      sa;
    ngx_tun_flow_key_t  key;

    if (entry->slot != NULL) {
        return;
    }

    len = sizeof(ngx_sockaddr_t);

    if (getsockname(fd, &sa.sockaddr, &len) != -1
        && ngx_stream_tun_guard_key(&key, type, &sa.sockaddr, peer) == NGX_OK)
    {
        ngx_tun_guard_add(&ngx_stream_tun_guard_main(s)->guard, entry, &key);
    }
}


/* a flow that the socket would be the client of */

static ngx_int_t
ngx_stream_tun_guard_key(ngx_tun_flow_key_t *key, int type,
    struct sockaddr *local, struct sockaddr *peer)
{
    size_t  len;

    ngx_memzero(key, sizeof(ngx_tun_flow_key_t));

    len = ngx_stream_tun_guard_address(peer, key->dst);

    key->dst_port = ngx_inet_get_port(peer);

    if (local != NULL) {

        /* what stands for a connection while a name is looked up is local */

        if (ngx_stream_tun_guard_address(local, key->src) != len) {
            return NGX_DECLINED;
        }

        key->src_port = ngx_inet_get_port(local);
    }

    key->addr_len = (uint16_t) len;
    key->protocol = (type == SOCK_DGRAM) ? IPPROTO_UDP : IPPROTO_TCP;

    return (len != 0) ? NGX_OK : NGX_DECLINED;
}


ngx_int_t
ngx_stream_tun_guard_bind(ngx_stream_session_t *s, ngx_socket_t fd,
    int family)
{
    socklen_t                        len;
    ngx_sockaddr_t                   sa;
    ngx_stream_tun_ctx_t            *ctx;
    ngx_stream_tun_upstream_conf_t  *tucf;

    tucf = ngx_stream_tun_socket_conf(s);

    if (tucf != NULL
        && ngx_stream_tun_set_socket(tucf, fd, s->connection->log) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memzero(&sa, sizeof(ngx_sockaddr_t));

    sa.sockaddr.sa_family = (sa_family_t) family;

    len = (family == AF_INET) ? sizeof(struct sockaddr_in)
                              : sizeof(struct sockaddr_in6);

    /* what is not bound now, is so when it sends */

    ctx = ngx_stream_tun_guard_ctx(s);

    if (ctx != NULL && bind(fd, &sa.sockaddr, len) != -1) {
        ngx_tun_guard_delete(&ctx->bound);
        ngx_stream_tun_guard_socket(s, &ctx->bound, fd, SOCK_DGRAM,
                                    &sa.sockaddr);
    }

    return NGX_OK;
}


static ngx_stream_tun_ctx_t *
ngx_stream_tun_guard_ctx(ngx_stream_session_t *s)
{
    ngx_pool_cleanup_t    *cln;
    ngx_stream_tun_ctx_t  *ctx;

    ctx = ngx_stream_tun_get_ctx(s);

    if (ctx == NULL || ctx->guarded) {
        return ctx;
    }

    cln = ngx_pool_cleanup_add(s->connection->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_stream_tun_guard_cleanup;
    cln->data = ctx;

    ctx->guarded = 1;

    return ctx;
}


static void
ngx_stream_tun_guard_cleanup(void *data)
{
    ngx_stream_tun_ctx_t *ctx = data;

    ngx_tun_guard_delete(&ctx->entry);
    ngx_tun_guard_delete(&ctx->bound);

    if (ctx->event != NULL && ctx->event->posted) {
        ngx_delete_posted_event(ctx->event);
    }
}


/* what goes by IPv4 is not seen as IPv6 */

static size_t
ngx_stream_tun_guard_address(struct sockaddr *sa, u_char *addr)
{
#if (NGX_HAVE_INET6)
    struct in6_addr  *addr6;
#endif

    if (sa->sa_family == AF_UNIX) {
        return 0;
    }

#if (NGX_HAVE_INET6)
    if (sa->sa_family == AF_INET6) {
        addr6 = &((struct sockaddr_in6 *) sa)->sin6_addr;

        if (IN6_IS_ADDR_V4MAPPED(addr6)) {
            ngx_memcpy(addr, &addr6->s6_addr[12], 4);
            return 4;
        }

        ngx_memcpy(addr, addr6, 16);
        return 16;
    }
#endif

    ngx_memcpy(addr, &((struct sockaddr_in *) sa)->sin_addr, 4);

    return 4;
}
