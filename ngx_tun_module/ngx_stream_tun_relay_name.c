
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_relay.h>


/* datagrams to a name that is not known yet */
#define NGX_STREAM_TUN_RELAY_WAITING  8

/* how often a name in use is leased, in seconds */
#define NGX_STREAM_TUN_RELAY_LEASE    30


static ngx_int_t ngx_stream_tun_relay_ask(ngx_stream_tun_relay_name_t *name);
static void ngx_stream_tun_relay_resolve_handler(ngx_resolver_ctx_t *ctx);
static ngx_int_t ngx_stream_tun_relay_choose(ngx_stream_tun_relay_name_t *name,
    ngx_resolver_ctx_t *ctx);
static void ngx_stream_tun_relay_wait(ngx_stream_tun_relay_name_t *name,
    ngx_tun_datagram_t *datagram);
static void ngx_stream_tun_relay_refuse(ngx_stream_tun_relay_name_t *name,
    ngx_tun_datagram_t *datagram);


#define ngx_stream_tun_relay_addr_len(relay)                                  \
    (((relay)->session->connection->sockaddr->sa_family == AF_INET) ? 4 : 16)


ngx_int_t
ngx_stream_tun_relay_resolve(ngx_stream_tun_relay_t *relay,
    ngx_stream_tun_relay_peer_t *peer, ngx_tun_datagram_t *datagram)
{
    size_t                        addr_len;
    uint32_t                      index;
    ngx_int_t                     rc;
    ngx_str_t                     text;
    ngx_tun_fakeip_t             *fip;
    ngx_stream_session_t         *s;
    ngx_stream_tun_relay_name_t  *name;

    s = relay->session;
    addr_len = ngx_stream_tun_relay_addr_len(relay);

    rc = ngx_stream_tun_fakeip_find(s, datagram->addr, addr_len, &text, &fip,
                                    &index);

    if (rc == NGX_DECLINED) {
        return NGX_OK;
    }

    if (rc != NGX_OK) {
        return NGX_ABORT;
    }

    name = ngx_pcalloc(s->connection->pool,
                       sizeof(ngx_stream_tun_relay_name_t));
    if (name == NULL) {
        return NGX_ABORT;
    }

    name->relay = relay;
    name->name = text;
    name->fip = fip;
    name->index = index;
    ngx_memcpy(name->fake, datagram->addr, 16);

    ngx_queue_insert_tail(&relay->names, &name->queue);

    peer->name = name;

    /* a proxy is given the name */

    if (relay->associate == NULL && ngx_stream_tun_relay_ask(name) != NGX_OK) {
        name->failed = 1;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_relay_ask(ngx_stream_tun_relay_name_t *name)
{
    ngx_resolver_ctx_t          *ctx;
    ngx_stream_session_t        *s;
    ngx_stream_core_srv_conf_t  *cscf;

    s = name->relay->session;

    cscf = ngx_stream_get_module_srv_conf(s, ngx_stream_core_module);

    ctx = ngx_resolve_start(cscf->resolver, NULL);

    if (ctx == NULL || ctx == NGX_NO_RESOLVER) {
        ngx_log_error(NGX_LOG_ERR, s->connection->log, 0,
                      "no resolver defined to resolve %V", &name->name);
        return NGX_ERROR;
    }

    ctx->name = name->name;
    ctx->handler = ngx_stream_tun_relay_resolve_handler;
    ctx->data = name;
    ctx->timeout = cscf->resolver_timeout;

    name->resolve = ctx;

    if (ngx_resolve_name(ctx) != NGX_OK) {
        name->resolve = NULL;
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_stream_tun_relay_resolve_handler(ngx_resolver_ctx_t *ctx)
{
    ngx_buf_t                    *b;
    ngx_chain_t                  *cl;
    ngx_tun_datagram_t            datagram;
    ngx_stream_tun_relay_name_t  *name;

    name = ctx->data;
    name->resolve = NULL;

    if (ngx_stream_tun_relay_choose(name, ctx) != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, name->relay->session->connection->log, 0,
                      "%V could not be resolved (%i: %s)", &name->name,
                      ctx->state, ngx_resolver_strerror(ctx->state));
        name->failed = 1;
    }

    ngx_resolve_name_done(ctx);

    for (cl = name->waiting; cl != NULL; cl = cl->next) {
        b = cl->buf;

        datagram.data = b->pos;
        datagram.len = b->last - b->pos;
        datagram.port = (uint16_t) b->num;
        ngx_memcpy(datagram.addr, name->fake, 16);

        ngx_stream_tun_relay_send_name(name, &datagram);
    }

    name->waiting = NULL;
    name->nwaiting = 0;
}


/* the first one of the family that the client has chosen */

static ngx_int_t
ngx_stream_tun_relay_choose(ngx_stream_tun_relay_name_t *name,
    ngx_resolver_ctx_t *ctx)
{
    ngx_uint_t        i;
    struct sockaddr  *sa;

    if (ctx->state) {
        return NGX_ERROR;
    }

    for (i = 0; i < ctx->naddrs; i++) {
        sa = ctx->addrs[i].sockaddr;

        if (sa->sa_family
            != name->relay->session->connection->sockaddr->sa_family)
        {
            continue;
        }

#if (NGX_HAVE_INET6)
        if (sa->sa_family == AF_INET6) {
            ngx_memcpy(name->addr, &((struct sockaddr_in6 *) sa)->sin6_addr,
                       16);
            name->known = 1;
            return NGX_OK;
        }
#endif

        ngx_memcpy(name->addr, &((struct sockaddr_in *) sa)->sin_addr, 4);
        name->known = 1;

        return NGX_OK;
    }

    return NGX_ERROR;
}


void
ngx_stream_tun_relay_touch(ngx_stream_tun_relay_name_t *name)
{
    if (ngx_time() - name->touched >= NGX_STREAM_TUN_RELAY_LEASE) {
        name->touched = ngx_time();
        ngx_tun_fakeip_touch(name->fip, name->index);
    }
}


void
ngx_stream_tun_relay_send_name(ngx_stream_tun_relay_name_t *name,
    ngx_tun_datagram_t *datagram)
{
    ngx_tun_datagram_t  out;

    ngx_stream_tun_relay_touch(name);

    if (name->failed) {
        ngx_stream_tun_relay_refuse(name, datagram);
        return;
    }

    if (!name->known) {
        ngx_stream_tun_relay_wait(name, datagram);
        return;
    }

    ngx_stream_tun_relay_alias(name->relay, name, datagram->port);

    out = *datagram;
    ngx_memcpy(out.addr, name->addr, 16);

    ngx_stream_tun_relay_send(name->relay, &out);
}


static void
ngx_stream_tun_relay_wait(ngx_stream_tun_relay_name_t *name,
    ngx_tun_datagram_t *datagram)
{
    ngx_buf_t     *b;
    ngx_pool_t    *pool;
    ngx_chain_t   *cl, **ll;

    if (name->nwaiting == NGX_STREAM_TUN_RELAY_WAITING) {
        ngx_tun_dropped(name->relay->session->connection);
        return;
    }

    pool = name->relay->session->connection->pool;

    b = ngx_create_temp_buf(pool, ngx_max(datagram->len, 1));
    cl = ngx_alloc_chain_link(pool);

    if (b == NULL || cl == NULL) {
        return;
    }

    b->last = ngx_cpymem(b->last, datagram->data, datagram->len);
    b->num = datagram->port;

    cl->buf = b;
    cl->next = NULL;

    for (ll = &name->waiting; *ll != NULL; ll = &(*ll)->next) {
        /* void */
    }

    *ll = cl;
    name->nwaiting++;
}


static void
ngx_stream_tun_relay_refuse(ngx_stream_tun_relay_name_t *name,
    ngx_tun_datagram_t *datagram)
{
    ngx_tun_refuse_datagram(name->relay->session->connection, datagram,
                            NGX_TUN_ICMP_PORT_UNREACHABLE);
}


void
ngx_stream_tun_relay_forget_names(ngx_stream_tun_relay_t *relay)
{
    ngx_queue_t                  *q;
    ngx_stream_tun_relay_name_t  *name;

    for (q = ngx_queue_head(&relay->names);
         q != ngx_queue_sentinel(&relay->names);
         q = ngx_queue_next(q))
    {
        name = ngx_queue_data(q, ngx_stream_tun_relay_name_t, queue);

        if (name->resolve != NULL) {
            ngx_resolve_name_done(name->resolve);
            name->resolve = NULL;
        }
    }
}
