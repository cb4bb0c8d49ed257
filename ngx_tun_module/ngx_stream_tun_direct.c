
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_upstream.h>


struct ngx_stream_tun_direct_s {
    ngx_stream_tun_peer_t          *tp;
    ngx_str_t                       text;          /* "host:port" */
    ngx_stream_tun_destination_t    dst;

    ngx_resolver_ctx_t             *ctx;
    ngx_addr_t                     *addrs;
    ngx_uint_t                      naddrs;
    ngx_uint_t                      next;

    unsigned                        resolved:1;
    unsigned                        waits:1;
};


static ngx_int_t ngx_stream_tun_init_direct(ngx_conf_t *cf,
    ngx_stream_upstream_srv_conf_t *uscf);
static ngx_int_t ngx_stream_tun_init_direct_peer(ngx_stream_session_t *s,
    ngx_stream_upstream_srv_conf_t *uscf);
static ngx_stream_tun_direct_t *ngx_stream_tun_create_direct(
    ngx_stream_session_t *s);
static void ngx_stream_tun_cleanup_direct(void *data);
static ngx_int_t ngx_stream_tun_direct_add(ngx_stream_tun_direct_t *direct,
    struct sockaddr *sockaddr, socklen_t socklen);
static ngx_int_t ngx_stream_tun_get_direct_peer(ngx_peer_connection_t *pc,
    void *data);
static void ngx_stream_tun_free_direct_peer(ngx_peer_connection_t *pc,
    void *data, ngx_uint_t state);
static ngx_int_t ngx_stream_tun_set_direct_session(ngx_peer_connection_t *pc,
    void *data);
static void ngx_stream_tun_save_direct_session(ngx_peer_connection_t *pc,
    void *data);
static ngx_int_t ngx_stream_tun_direct_resolve(
    ngx_stream_tun_direct_t *direct);
static void ngx_stream_tun_direct_resolved(ngx_resolver_ctx_t *ctx);
static ngx_int_t ngx_stream_tun_direct_stand_in(
    ngx_stream_tun_direct_t *direct, ngx_peer_connection_t *pc);
static void ngx_stream_tun_direct_connect(ngx_stream_tun_direct_t *direct);


char *
ngx_stream_tun_direct(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_upstream_conf_t *tucf = conf;

    ngx_int_t                        rc;
    ngx_str_t                       *value, text;
    ngx_uint_t                       i;
    ngx_cidr_t                      *cidr;
    ngx_stream_upstream_server_t    *us;
    ngx_stream_tun_direct_conf_t    *tdcf;
    ngx_stream_upstream_srv_conf_t  *uscf;

    if (tucf->direct != NULL) {
        return "is duplicate";
    }

    tdcf = ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_direct_conf_t));
    if (tdcf == NULL) {
        return NGX_CONF_ERROR;
    }

    tdcf->allow = ngx_array_create(cf->pool, 2, sizeof(ngx_cidr_t));
    if (tdcf->allow == NULL) {
        return NGX_CONF_ERROR;
    }

    tucf->direct = tdcf;

    ngx_str_set(&text, "$tun_target");
    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "destination=", 12) == 0
            && value[i].len > 12)
        {
            text.data = value[i].data + 12;
            text.len = value[i].len - 12;
            continue;
        }

        if (ngx_strncmp(value[i].data, "allow=", 6) != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        value[i].data += 6;
        value[i].len -= 6;

        cidr = ngx_array_push(tdcf->allow);
        if (cidr == NULL) {
            return NGX_CONF_ERROR;
        }

        rc = ngx_ptocidr(&value[i], cidr);

        if (rc == NGX_ERROR) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid network \"%V\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        if (rc == NGX_DONE) {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "low address bits of \"%V\" are meaningless",
                               &value[i]);
        }
    }

    tdcf->destination = ngx_stream_tun_compile_value(cf, &text);
    if (tdcf->destination == NULL) {
        return NGX_CONF_ERROR;
    }

    uscf = ngx_stream_conf_get_module_srv_conf(cf, ngx_stream_upstream_module);

    if (uscf->peer.init_upstream != NULL) {
        return "is not a method beside another one";
    }

    uscf->peer.init_upstream = ngx_stream_tun_init_direct;

    /* nginx wants a server */

    us = ngx_array_push(uscf->servers);
    if (us == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(us, sizeof(ngx_stream_upstream_server_t));

    return NGX_CONF_OK;
}


char *
ngx_stream_tun_check_direct(ngx_conf_t *cf,
    ngx_stream_upstream_srv_conf_t *uscf,
    ngx_stream_tun_upstream_conf_t *tucf)
{
    if (tucf->direct == NULL) {
        return NGX_CONF_OK;
    }

    if (uscf->servers->nelts != 1
#if (NGX_STREAM_UPSTREAM_ZONE)
        || uscf->shm_zone != NULL
#endif
        || uscf->peer.init != ngx_stream_tun_init_direct_peer)
    {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"tun_direct\" has neither \"server\", \"zone\" nor a "
                      "balancing method beside it in upstream \"%V\" in %s:%ui",
                      &uscf->host, uscf->file_name, uscf->line);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_stream_tun_init_direct(ngx_conf_t *cf,
    ngx_stream_upstream_srv_conf_t *uscf)
{
    uscf->peer.init = ngx_stream_tun_init_direct_peer;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_init_direct_peer(ngx_stream_session_t *s,
    ngx_stream_upstream_srv_conf_t *uscf)
{
    ngx_sockaddr_t            sa;
    ngx_peer_connection_t    *pc;
    ngx_stream_tun_direct_t  *direct;

    direct = ngx_stream_tun_create_direct(s);
    if (direct == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(&sa, sizeof(ngx_sockaddr_t));
    sa.sockaddr.sa_family = direct->dst.family;

    switch (direct->dst.family) {

    case AF_INET:
        ngx_memcpy(&sa.sockaddr_in.sin_addr, direct->dst.addr, 4);
        break;

    case AF_INET6:
        ngx_memcpy(&sa.sockaddr_in6.sin6_addr, direct->dst.addr, 16);
        break;
    }

    if (direct->dst.family != 0
        && ngx_stream_tun_direct_add(direct, &sa.sockaddr,
                                     sizeof(ngx_sockaddr_t))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    pc = &s->upstream->peer;

    pc->data = direct;
    pc->get = ngx_stream_tun_get_direct_peer;
    pc->free = ngx_stream_tun_free_direct_peer;
    pc->tries = direct->dst.family ? 1 : 16;
    pc->set_session = ngx_stream_tun_set_direct_session;
    pc->save_session = ngx_stream_tun_save_direct_session;

    return NGX_OK;
}


static ngx_stream_tun_direct_t *
ngx_stream_tun_create_direct(ngx_stream_session_t *s)
{
    ngx_pool_cleanup_t       *cln;
    ngx_stream_tun_peer_t    *tp;
    ngx_stream_tun_direct_t  *direct;

    tp = ngx_stream_tun_peer(s);

    cln = ngx_pool_cleanup_add(s->connection->pool,
                               sizeof(ngx_stream_tun_direct_t));
    if (cln == NULL) {
        return NULL;
    }

    direct = cln->data;
    ngx_memzero(direct, sizeof(ngx_stream_tun_direct_t));

    cln->handler = ngx_stream_tun_cleanup_direct;

    direct->tp = tp;
    tp->direct = direct;

    if (ngx_stream_complex_value(s, tp->conf->direct->destination,
                                 &direct->text)
        != NGX_OK)
    {
        return NULL;
    }

    if (ngx_stream_tun_parse_destination(&direct->text, &direct->dst)
        != NGX_OK)
    {
        ngx_log_error(NGX_LOG_WARN, s->connection->log, 0,
                      "the destination of \"tun_direct\" is no \"host:port\", "
                      "or more than 255 bytes");
        return NULL;
    }

    return direct;
}


static void
ngx_stream_tun_cleanup_direct(void *data)
{
    ngx_stream_tun_direct_t *direct = data;

    if (direct->ctx != NULL) {
        ngx_resolve_name_done(direct->ctx);
        direct->ctx = NULL;
    }
}


static ngx_int_t
ngx_stream_tun_direct_add(ngx_stream_tun_direct_t *direct,
    struct sockaddr *sockaddr, socklen_t socklen)
{
    u_char      *p;
    ngx_addr_t  *addr;
    ngx_pool_t  *pool;

    pool = direct->tp->session->connection->pool;

    if (direct->addrs == NULL) {
        direct->addrs = ngx_palloc(pool, 16 * sizeof(ngx_addr_t));
        if (direct->addrs == NULL) {
            return NGX_ERROR;
        }
    }

    if (direct->naddrs == 16) {
        return NGX_OK;
    }

    addr = &direct->addrs[direct->naddrs];

    addr->socklen = (sockaddr->sa_family == AF_INET)
                    ? sizeof(struct sockaddr_in)
                    : sizeof(struct sockaddr_in6);
    addr->sockaddr = ngx_palloc(pool, addr->socklen);

    p = ngx_pnalloc(pool, NGX_SOCKADDR_STRLEN);

    if (addr->sockaddr == NULL || p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(addr->sockaddr, sockaddr, ngx_min(socklen, addr->socklen));
    ngx_inet_set_port(addr->sockaddr, direct->dst.port);

    addr->name.data = p;
    addr->name.len = ngx_sock_ntop(addr->sockaddr, addr->socklen, p,
                                   NGX_SOCKADDR_STRLEN, 1);
    direct->naddrs++;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_get_direct_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_stream_tun_direct_t *direct = data;

    ngx_int_t    rc;
    ngx_addr_t  *addr;

    pc->cached = 0;
    pc->connection = NULL;

    if (direct->dst.family == 0 && !direct->resolved) {

        rc = ngx_stream_tun_direct_resolve(direct);

        if (rc == NGX_AGAIN) {
            return ngx_stream_tun_direct_stand_in(direct, pc);
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    while (direct->next < direct->naddrs) {

        addr = &direct->addrs[direct->next++];

        if (!ngx_stream_tun_guarded(direct->tp->conf, addr, pc->log)
            && !ngx_stream_tun_guard_fake(direct->tp->session, addr->sockaddr,
                                          &addr->name))
        {
            pc->sockaddr = addr->sockaddr;
            pc->socklen = addr->socklen;
            pc->name = &addr->name;

            return NGX_OK;
        }
    }

    return NGX_BUSY;
}


static void
ngx_stream_tun_free_direct_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state)
{
    ngx_stream_tun_direct_t *direct = data;

    ngx_stream_tun_cleanup_direct(direct);

    direct->waits = 0;
    direct->resolved = 1;

    if (pc->tries > 0) {
        pc->tries--;
    }

    if (direct->next >= direct->naddrs) {
        pc->tries = 0;
    }
}


static ngx_int_t
ngx_stream_tun_set_direct_session(ngx_peer_connection_t *pc, void *data)
{
    return NGX_OK;
}


static void
ngx_stream_tun_save_direct_session(ngx_peer_connection_t *pc, void *data)
{
    return;
}


/* NGX_OK when the name was known already, NGX_AGAIN, or NGX_ERROR */

static ngx_int_t
ngx_stream_tun_direct_resolve(ngx_stream_tun_direct_t *direct)
{
    ngx_resolver_ctx_t          *ctx, temp;
    ngx_stream_session_t        *s;
    ngx_stream_core_srv_conf_t  *cscf;

    s = direct->tp->session;
    cscf = ngx_stream_get_module_srv_conf(s, ngx_stream_core_module);

    ngx_memzero(&temp, sizeof(ngx_resolver_ctx_t));
    temp.name = direct->dst.host;

    ctx = ngx_resolve_start(cscf->resolver, &temp);
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    if (ctx == NGX_NO_RESOLVER) {
        ngx_log_error(NGX_LOG_ERR, s->connection->log, 0,
                      "no resolver defined to resolve %V", &direct->dst.host);
        return NGX_ERROR;
    }

    ctx->name = direct->dst.host;
    ctx->handler = ngx_stream_tun_direct_resolved;
    ctx->data = direct;
    ctx->timeout = cscf->resolver_timeout;

    direct->ctx = ctx;

    if (ngx_resolve_name(ctx) != NGX_OK) {
        direct->ctx = NULL;
        return NGX_ERROR;
    }

    return direct->resolved ? NGX_OK : NGX_AGAIN;
}


static void
ngx_stream_tun_direct_resolved(ngx_resolver_ctx_t *ctx)
{
    ngx_uint_t                i;
    ngx_stream_tun_peer_t    *tp;
    ngx_peer_connection_t    *pc;
    ngx_stream_tun_direct_t  *direct;

    direct = ctx->data;
    tp = direct->tp;
    pc = &tp->session->upstream->peer;

    if (ctx->state) {
        ngx_log_error(NGX_LOG_WARN, tp->session->connection->log, 0,
                      "%V could not be resolved (%i: %s)", &ctx->name,
                      ctx->state, ngx_resolver_strerror(ctx->state));

    } else {
        for (i = 0; i < ctx->naddrs; i++) {
            if (ngx_stream_tun_direct_add(direct, ctx->addrs[i].sockaddr,
                                          ctx->addrs[i].socklen)
                != NGX_OK)
            {
                break;
            }
        }
    }

    direct->resolved = 1;

    ngx_stream_tun_cleanup_direct(direct);

    pc->tries = ngx_min(pc->tries, ngx_max(direct->naddrs, 1));

    if (direct->waits && tp->connect != NULL) {
        ngx_stream_tun_direct_connect(direct);
    }
}


/* the proxy module gets a connection that nothing happens on but its timer */

static ngx_int_t
ngx_stream_tun_direct_stand_in(ngx_stream_tun_direct_t *direct,
    ngx_peer_connection_t *pc)
{
    ngx_socket_t       fd;
    ngx_connection_t  *c;

    fd = ngx_socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd == (ngx_socket_t) -1) {
        ngx_log_error(NGX_LOG_ERR, pc->log, ngx_socket_errno,
                      ngx_socket_n " failed");
        return NGX_ERROR;
    }

    c = ngx_get_connection(fd, pc->log);
    if (c == NULL) {
        ngx_close_socket(fd);
        return NGX_ERROR;
    }

    c->type = SOCK_STREAM;
    c->log_error = pc->log_error;
    c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);

    pc->connection = c;
    pc->sockaddr = direct->tp->session->connection->sockaddr;
    pc->socklen = direct->tp->session->connection->socklen;
    pc->name = &direct->text;

    direct->waits = 1;

    return NGX_AGAIN;
}


ngx_uint_t
ngx_stream_tun_direct_waits(ngx_stream_tun_peer_t *tp)
{
    return tp->direct != NULL && tp->direct->waits;
}


void
ngx_stream_tun_direct_taken(ngx_stream_tun_peer_t *tp)
{
    if (tp->direct->resolved) {
        ngx_stream_tun_direct_connect(tp->direct);
    }
}


/* a real connection in the place of the other one */

static void
ngx_stream_tun_direct_connect(ngx_stream_tun_direct_t *direct)
{
    ngx_int_t               rc;
    ngx_connection_t       *c, *pc, *stand_in;
    ngx_stream_tun_peer_t  *tp;
    ngx_stream_upstream_t  *u;

    tp = direct->tp;
    c = tp->session->connection;
    u = tp->session->upstream;

    direct->waits = 0;
    stand_in = u->peer.connection;

    rc = ngx_stream_tun_connect_peer(tp);

    u->state->peer = u->peer.name;

    if (rc != NGX_OK && rc != NGX_AGAIN) {
        u->peer.connection = stand_in;
        ngx_stream_tun_fail_peer(tp, rc != NGX_DECLINED);
        return;
    }

    ngx_close_connection(stand_in);

    pc = u->peer.connection;

    pc->data = tp->session;
    pc->log = c->log;
    pc->pool = c->pool;
    pc->read->log = c->log;
    pc->write->log = c->log;
    pc->read->handler = tp->connect;
    pc->write->handler = tp->connect;

    ngx_add_timer(pc->write, tp->timeout);

    if (tp->conf->handshake != NULL && !tp->ssl) {
        ngx_stream_tun_start_handshake(tp);
    }

    if (rc == NGX_OK) {
        ngx_post_event(pc->write, &ngx_posted_events);
    }
}
