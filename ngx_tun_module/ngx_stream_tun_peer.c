
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_upstream.h>


static void ngx_stream_tun_cleanup_peer(void *data);
static ngx_uint_t ngx_stream_tun_peer_ssl(ngx_stream_session_t *s);
static ngx_int_t ngx_stream_tun_get_peer(ngx_peer_connection_t *pc,
    void *data);
static void ngx_stream_tun_taken_handler(ngx_event_t *ev);


#define ngx_stream_tun_upstream_main(s)                                       \
    ((ngx_stream_tun_upstream_main_conf_t *)                                  \
         ngx_stream_get_module_main_conf(s, ngx_stream_tun_upstream_module))


ngx_int_t
ngx_stream_tun_init_peer(ngx_stream_session_t *s,
    ngx_stream_upstream_srv_conf_t *uscf)
{
    ngx_connection_t                *c;
    ngx_stream_tun_peer_t           *tp;
    ngx_stream_tun_upstream_conf_t  *tucf;

    c = s->connection;

    tucf = ngx_stream_conf_upstream_srv_conf(uscf,
                                             ngx_stream_tun_upstream_module);

    if (tucf->handshake != NULL && c->type != SOCK_STREAM) {
        ngx_log_error(NGX_LOG_INFO, c->log, 0,
                      "no UDP by \"tun_handshake %V\"", tucf->handshake->name);
        return NGX_ERROR;
    }

    tp = ngx_stream_tun_create_peer(s, tucf);
    if (tp == NULL) {
        return NGX_ERROR;
    }

    if (tucf->init(s, uscf) != NGX_OK) {
        return NGX_ERROR;
    }

    tp->get = s->upstream->peer.get;
    s->upstream->peer.get = ngx_stream_tun_get_peer;

    return NGX_OK;
}


ngx_stream_tun_peer_t *
ngx_stream_tun_create_peer(ngx_stream_session_t *s,
    ngx_stream_tun_upstream_conf_t *tucf)
{
    ngx_connection_t       *c;
    ngx_pool_cleanup_t     *cln;
    ngx_stream_tun_peer_t  *tp;

    c = s->connection;

    cln = ngx_pool_cleanup_add(c->pool, sizeof(ngx_stream_tun_peer_t));
    if (cln == NULL) {
        return NULL;
    }

    tp = cln->data;
    ngx_memzero(tp, sizeof(ngx_stream_tun_peer_t));

    cln->handler = ngx_stream_tun_cleanup_peer;

    tp->session = s;
    tp->conf = tucf;
    tp->last = &tp->held;
    tp->ssl = ngx_stream_tun_peer_ssl(s);
    tp->event.data = tp;
    tp->event.log = c->log;

    if (ngx_array_init(&tp->tries, c->pool, 1, sizeof(ngx_stream_tun_try_t))
        != NGX_OK)
    {
        return NULL;
    }

    ngx_stream_set_ctx(s, tp, ngx_stream_tun_upstream_module);

    if (tucf->handshake != NULL
        && ngx_stream_tun_build_handshake(tp) != NGX_OK)
    {
        return NULL;
    }

    return tp;
}


ngx_int_t
ngx_stream_tun_next_try(ngx_stream_tun_peer_t *tp)
{
    ngx_stream_tun_try_t  *try;

    try = ngx_array_push(&tp->tries);
    if (try == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(try, sizeof(ngx_stream_tun_try_t));

    tp->state = NGX_STREAM_TUN_HANDSHAKE_IDLE;
    tp->code = 0;

    return NGX_OK;
}


static void
ngx_stream_tun_cleanup_peer(void *data)
{
    ngx_stream_tun_peer_t *tp = data;

    if (tp->event.posted) {
        ngx_delete_posted_event(&tp->event);
    }
}


/* is there "proxy_ssl on"? */

static ngx_uint_t
ngx_stream_tun_peer_ssl(ngx_stream_session_t *s)
{
    u_char                               *pscf;
    ngx_stream_tun_upstream_main_conf_t  *tumcf;

    tumcf = ngx_stream_tun_upstream_main(s);

    if (tumcf->ssl == -1 || s->connection->type != SOCK_STREAM) {
        return 0;
    }

    pscf = ngx_stream_get_module_srv_conf(s, ngx_stream_proxy_module);

    return *(ngx_flag_t *) (pscf + tumcf->ssl) == 1;
}


/*
 * ngx_event_connect_peer() calls this, and gets a connection that is there
 * already.
 */

static ngx_int_t
ngx_stream_tun_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_int_t               rc;
    ngx_stream_session_t   *s;
    ngx_stream_tun_peer_t  *tp;

    s = pc->log->data;
    tp = ngx_stream_tun_peer(s);

    if (ngx_stream_tun_next_try(tp) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_stream_tun_connect_peer(tp);

    if (rc != NGX_OK && rc != NGX_AGAIN) {
        return rc;
    }

    if (tp->conf->handshake == NULL && !ngx_stream_tun_direct_waits(tp)) {
        return (rc == NGX_OK) ? NGX_DONE : NGX_AGAIN;
    }

    tp->immediate = (rc == NGX_OK);
    tp->event.handler = ngx_stream_tun_taken_handler;

    ngx_post_event(&tp->event, &ngx_posted_events);

    return NGX_AGAIN;
}


ngx_int_t
ngx_stream_tun_connect_peer(ngx_stream_tun_peer_t *tp)
{
    ngx_int_t               rc;
    ngx_event_get_peer_pt   get;
    ngx_peer_connection_t  *pc;

    pc = &tp->session->upstream->peer;

    get = pc->get;
    pc->get = tp->get;

    rc = ngx_stream_tun_guard_connect(tp->session,
                                      tp->conf->socket ? tp->conf : NULL);

    pc->get = get;

    return rc;
}


static void
ngx_stream_tun_taken_handler(ngx_event_t *ev)
{
    ngx_connection_t       *pc;
    ngx_stream_tun_peer_t  *tp;

    tp = ev->data;
    pc = tp->session->upstream->peer.connection;

    tp->connect = pc->write->handler;
    tp->timeout = pc->write->timer.key - ngx_current_msec;

    if (ngx_stream_tun_direct_waits(tp)) {
        ngx_stream_tun_direct_taken(tp);
        return;
    }

    if (!tp->ssl) {
        ngx_stream_tun_start_handshake(tp);
    }

    if (tp->immediate) {
        ngx_post_event(pc->write, &ngx_posted_events);
    }
}


void
ngx_stream_tun_fail_peer(ngx_stream_tun_peer_t *tp, ngx_uint_t final)
{
    ngx_connection_t       *c, *pc;
    ngx_stream_session_t   *s;
    ngx_stream_upstream_t  *u;

    s = tp->session;
    u = s->upstream;
    c = s->connection;
    pc = u->peer.connection;

    if (final && u->peer.sockaddr != NULL) {
        u->peer.free(&u->peer, u->peer.data, 0);
        u->peer.sockaddr = NULL;
    }

    if (final) {
        u->peer.tries = 0;
    }

    tp->state = NGX_STREAM_TUN_HANDSHAKE_IDLE;

    if (tp->ssl && u->connected) {
        pc->buffered &= ~NGX_STREAM_TUN_BUFFERED;

        if (c->write->timer_set) {
            ngx_del_timer(c->write);
        }

        /* the proxy module adds this again, the bytes are held already */

        c->buffer = ngx_create_temp_buf(c->pool, 1);

        if (c->buffer == NULL) {
            u->peer.tries = 0;
        }
    }

    c->log->action = "connecting to upstream";

    /* what has really happened is in the log */

    tp->quiet = *c->log;
    tp->quiet.log_level = 0;

    pc->log = &tp->quiet;
    pc->read->handler = tp->connect;
    pc->write->handler = tp->connect;
    pc->write->timedout = 1;

    tp->connect(pc->write);
}
