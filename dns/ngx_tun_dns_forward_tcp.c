
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_dns_forward.h>


static void ngx_tun_dns_tcp_write_handler(ngx_event_t *wev);
static void ngx_tun_dns_tcp_read_handler(ngx_event_t *rev);
static ngx_int_t ngx_tun_dns_tcp_read(ngx_tun_dns_exchange_t *ex);


/* the same server, whose answer was too long for UDP */

ngx_int_t
ngx_tun_dns_ask_tcp(ngx_tun_dns_exchange_t *ex)
{
    size_t                  len;
    ngx_int_t               rc;
    ngx_connection_t       *c;
    ngx_event_get_peer_pt   get;

    ngx_tun_dns_close(ex);

    get = ex->peer->get;

    ex->peer->get = ngx_event_get_peer;
    ex->peer->type = SOCK_STREAM;

    rc = ex->fwd->connect(ex->peer, ex->fwd->options);

    ex->peer->get = get;

    if (rc != NGX_OK && rc != NGX_AGAIN) {
        return NGX_ERROR;
    }

    c = ex->peer->connection;

    c->data = ex;
    c->log = &ex->log;
    c->read->log = c->log;
    c->write->log = c->log;
    c->read->handler = ngx_tun_dns_tcp_read_handler;
    c->write->handler = ngx_tun_dns_tcp_write_handler;

    if (ex->out == NULL) {
        ex->out = ngx_pnalloc(ex->pool, 2 + NGX_TUN_DNS_UPSTREAM_MAX);
        if (ex->out == NULL) {
            return NGX_ERROR;
        }
    }

    len = ngx_tun_dns_build_query(&ex->query, ex->out + 2, ex->id,
                                  ex->fwd->tag);
    (void) ngx_tun_dns_put16(ex->out, len);

    ex->out_len = 2 + len;
    ex->in = NULL;
    ex->in_len = 0;

    ngx_tun_dns_count(ex->fwd->stat, upstream_queries);
    ngx_tun_dns_count(ex->fwd->stat, upstream_tcp);

    ngx_add_timer(c->read, NGX_TUN_DNS_TCP_TIMEOUT);

    if (rc == NGX_OK) {
        ngx_post_event(c->write, &ngx_posted_events);
    }

    return NGX_OK;
}


static void
ngx_tun_dns_tcp_write_handler(ngx_event_t *wev)
{
    ssize_t                  n;
    ngx_connection_t        *c;
    ngx_tun_dns_exchange_t  *ex;

    c = wev->data;
    ex = c->data;

    if (ex->out_len != 0) {
        n = c->send(c, ex->out, ex->out_len);

        if (n == NGX_ERROR) {
            ngx_tun_dns_next(ex, NGX_PEER_FAILED);
            return;
        }

        if (n > 0) {
            ex->out_len -= n;
            ngx_memmove(ex->out, ex->out + n, ex->out_len);
        }
    }

    if (ngx_handle_write_event(wev, 0) != NGX_OK
        || ngx_handle_read_event(c->read, 0) != NGX_OK)
    {
        ngx_tun_dns_next(ex, NGX_PEER_FAILED);
    }
}


static void
ngx_tun_dns_tcp_read_handler(ngx_event_t *rev)
{
    ngx_int_t                rc;
    ngx_connection_t        *c;
    ngx_tun_dns_exchange_t  *ex;

    c = rev->data;
    ex = c->data;

    if (rev->timedout) {
        ngx_tun_dns_count(ex->fwd->stat, upstream_timeouts);
        ngx_tun_dns_next(ex, NGX_PEER_FAILED);
        return;
    }

    rc = ngx_tun_dns_tcp_read(ex);

    if (rc == NGX_AGAIN) {

        if (ngx_handle_read_event(rev, 0) == NGX_OK) {
            return;
        }

        rc = NGX_ERROR;
    }

    if (rc == NGX_OK
        && ngx_tun_dns_answered(ex, c, ex->in,
                                ngx_tun_dns_get16(ex->prefix))
           == NGX_OK)
    {
        return;
    }

    if (rc == NGX_OK) {
        ngx_tun_dns_count(ex->fwd->stat, upstream_invalid);
    }

    ngx_tun_dns_next(ex, NGX_PEER_FAILED);
}


/* NGX_OK: the message is whole */

static ngx_int_t
ngx_tun_dns_tcp_read(ngx_tun_dns_exchange_t *ex)
{
    size_t             len;
    ssize_t            n;
    ngx_connection_t  *c;

    c = ex->peer->connection;

    for ( ;; ) {

        if (ex->in_len < 2) {
            n = c->recv(c, ex->prefix + ex->in_len, 2 - ex->in_len);

        } else {
            len = ngx_tun_dns_get16(ex->prefix);

            if (ex->in_len == 2 + len) {
                return NGX_OK;
            }

            if (ex->in == NULL) {
                ex->in = ngx_pnalloc(ex->pool, len);
                if (ex->in == NULL) {
                    return NGX_ERROR;
                }
            }

            n = c->recv(c, ex->in + ex->in_len - 2, 2 + len - ex->in_len);
        }

        if (n == NGX_AGAIN) {
            return NGX_AGAIN;
        }

        if (n <= 0) {
            return NGX_ERROR;
        }

        ex->in_len += n;
    }
}
