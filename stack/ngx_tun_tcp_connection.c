
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>
#include <ngx_tun_connection.h>
#include <ngx_tun_system.h>
#include <ngx_tun_tcp.h>


/* to swap a smaller buffer takes more time than to copy it */
#define NGX_TUN_TCP_LENT_MIN  32768


static void ngx_tun_tcp_cleanup(void *data);

static ssize_t ngx_tun_tcp_recv(ngx_connection_t *c, u_char *buf, size_t size);
static ssize_t ngx_tun_tcp_recv_chain(ngx_connection_t *c, ngx_chain_t *in,
    off_t limit);
static ssize_t ngx_tun_tcp_send(ngx_connection_t *c, u_char *buf, size_t size);
static ngx_chain_t *ngx_tun_tcp_send_chain(ngx_connection_t *c,
    ngx_chain_t *in, off_t limit);
static void ngx_tun_tcp_last(ngx_tun_tcp_t *tcp);
static ngx_uint_t ngx_tun_tcp_dead(ngx_tun_tcp_t *tcp);


ngx_connection_t *
ngx_tun_tcp_connection(ngx_tun_tcp_t *tcp)
{
    ngx_connection_t    *c;
    ngx_pool_cleanup_t  *cln;

    c = ngx_tun_connection_create(tcp->tun, tcp->listening, &tcp->flow.key);
    if (c == NULL) {
        return NULL;
    }

    cln = ngx_pool_cleanup_add(c->pool, 0);

    if (cln == NULL) {
        ngx_tun_connection_discard(c);
        return NULL;
    }

    cln->handler = ngx_tun_tcp_cleanup;
    cln->data = tcp;

    c->recv = ngx_tun_tcp_recv;
    c->recv_chain = ngx_tun_tcp_recv_chain;
    c->send = ngx_tun_tcp_send;
    c->send_chain = ngx_tun_tcp_send_chain;

    /* an empty last buffer reaches send_chain(): it is our FIN */
    c->need_last_buf = 1;

    c->read->ready = (tcp->lwip.readable != 0 || tcp->lwip.eof);

    ngx_tun_connection_set_flow(c, tcp);
    tcp->connection = c;

    return c;
}


/* the connection is free already, and with it all but the flow */

static void
ngx_tun_tcp_cleanup(void *data)
{
    ngx_tun_tcp_t *tcp = data;

    if (tcp->finish) {
        tcp->shutdown = 1;
    }

    if (tcp->lent != NULL) {
        ngx_tun_tx_return(tcp->tx.pool, tcp->lent);
        tcp->lent = NULL;
    }

    ngx_tun_tcp_end(tcp);
}


void
ngx_tun_answer(ngx_connection_t *c)
{
    if (ngx_tun_system_get(c) == NULL) {
        ngx_tun_tcp_pending_answer(ngx_tun_connection_flow(c));
    }
}


void
ngx_tun_reset_after(ngx_connection_t *c)
{
    ngx_tun_tcp_t                *tcp;
    ngx_tun_system_connection_t  *sc;

    sc = ngx_tun_system_get(c);

    if (sc != NULL) {
        ngx_tun_system_reset_after(sc);
        return;
    }

    tcp = ngx_tun_connection_flow(c);
    tcp->reset = 1;
}


void
ngx_tun_finish_after(ngx_connection_t *c)
{
    ngx_tun_tcp_t                *tcp;
    ngx_tun_system_connection_t  *sc;

    sc = ngx_tun_system_get(c);

    if (sc != NULL) {
        ngx_tun_system_finish_after(sc);
        return;
    }

    tcp = ngx_tun_connection_flow(c);
    tcp->finish = 1;
}


ngx_int_t
ngx_tun_sent(ngx_connection_t *c, ngx_uint_t last, ngx_uint_t all)
{
    ngx_tun_system_connection_t  *sc;

    sc = ngx_tun_system_get(c);

    return (sc != NULL) ? ngx_tun_system_sent(sc, last, all) : NGX_OK;
}


ssize_t
ngx_tun_recv(ngx_connection_t *c, u_char *buf, size_t size)
{
    size_t          n;
    ngx_tun_tcp_t  *tcp;

    if (ngx_tun_system_get(c) != NULL) {
        return ngx_tun_system_recv(c, buf, size);
    }

    tcp = ngx_tun_connection_flow(c);

    n = ngx_tun_lwip_recv(&tcp->lwip, buf, size);

    if (n != 0) {
        ngx_tun_tcp_dirty(tcp);
        return n;
    }

    if (tcp->lwip.eof) {
        return 0;
    }

    return ngx_tun_tcp_dead(tcp) ? NGX_ERROR : NGX_AGAIN;
}


ssize_t
ngx_tun_send(ngx_connection_t *c, u_char *buf, size_t size)
{
    size_t          n;
    ngx_tun_tcp_t  *tcp;

    if (ngx_tun_system_get(c) != NULL) {
        return ngx_tun_system_send(c, buf, size);
    }

    tcp = ngx_tun_connection_flow(c);

    if (ngx_tun_tcp_dead(tcp) || tcp->shutdown) {
        return NGX_ERROR;
    }

    /* who sends before it is asked to is there */
    ngx_tun_tcp_pending_answer(tcp);

    n = ngx_min(size, ngx_tun_tcp_space(tcp));

    if (tcp->spare != NULL
        && tcp->lent != NULL
        && tcp->lent->pos == buf
        && n == size)
    {
        ngx_tun_tx_append_lent(&tcp->tx, tcp->lent, size);
        tcp->lent = NULL;
        tcp->given = 1;

    } else {
        n = ngx_tun_tx_append(&tcp->tx, buf, n);
    }

    if (n == 0 && size != 0) {
        return NGX_AGAIN;
    }

    ngx_tun_tcp_push(tcp);
    ngx_tun_tcp_dirty(tcp);

    return n;
}


u_char *
ngx_tun_lend(ngx_connection_t *c, size_t size)
{
    ngx_tun_tcp_t  *tcp;

    if (size < NGX_TUN_TCP_LENT_MIN
        || size > NGX_TUN_TX_LENT
        || ngx_tun_system_get(c) != NULL)
    {
        return NULL;
    }

    tcp = ngx_tun_connection_flow(c);

    tcp->spare = ngx_tun_tx_lend(tcp->tx.pool);

    return (tcp->spare != NULL) ? tcp->spare->pos : NULL;
}


ngx_int_t
ngx_tun_lent(ngx_connection_t *c, ngx_uint_t sent)
{
    ngx_tun_tcp_t  *tcp;

    tcp = ngx_tun_connection_flow(c);

    if (tcp->given || (tcp->lent == NULL && sent)) {
        tcp->given = 0;
        tcp->lent = tcp->spare;
        tcp->spare = NULL;

        return NGX_OK;
    }

    ngx_tun_tx_return(tcp->tx.pool, tcp->spare);
    tcp->spare = NULL;

    return NGX_DECLINED;
}


ssize_t
ngx_tun_send_last(ngx_connection_t *c, u_char *buf, size_t size)
{
    ngx_tun_tcp_t  *tcp;

    if (ngx_tun_system_get(c) != NULL) {
        return ngx_tun_system_send_last(ngx_tun_system_get(c), buf, size);
    }

    tcp = ngx_tun_connection_flow(c);

    if (ngx_tun_tcp_dead(tcp) || tcp->shutdown) {
        return NGX_ERROR;
    }

    if (tcp->reset) {
        return size;
    }

    if (ngx_tun_tx_append(&tcp->tx, buf, size) != size) {
        tcp->reset = 1;
        return NGX_ERROR;
    }

    ngx_tun_tcp_last(tcp);

    return size;
}


static void
ngx_tun_tcp_last(ngx_tun_tcp_t *tcp)
{
    tcp->shutdown = 1;

    ngx_tun_tcp_push(tcp);
    ngx_tun_tcp_dirty(tcp);
}


static ssize_t
ngx_tun_tcp_recv(ngx_connection_t *c, u_char *buf, size_t size)
{
    ssize_t         n;
    ngx_event_t    *rev;
    ngx_tun_tcp_t  *tcp;

    n = ngx_tun_recv(c, buf, size);

    rev = c->read;

    if (n > 0) {
        tcp = ngx_tun_connection_flow(c);

        if (tcp->lwip.readable == 0
            && !tcp->lwip.eof
            && !ngx_tun_tcp_dead(tcp))
        {
            rev->ready = 0;
        }

        return n;
    }

    rev->ready = 0;

    if (n == 0) {
        rev->eof = 1;
    }

    if (n == NGX_ERROR) {
        rev->error = 1;
        (void) ngx_connection_error(c, NGX_ECONNRESET, "recv() failed");
    }

    return n;
}


static ssize_t
ngx_tun_tcp_recv_chain(ngx_connection_t *c, ngx_chain_t *in, off_t limit)
{
    return ngx_tun_tcp_recv(c, in->buf->last, in->buf->end - in->buf->last);
}


static ssize_t
ngx_tun_tcp_send(ngx_connection_t *c, u_char *buf, size_t size)
{
    ssize_t  n;

    n = ngx_tun_send(c, buf, size);

    if (n == NGX_ERROR) {
        c->write->error = 1;
        (void) ngx_connection_error(c, NGX_ECONNRESET, "send() failed");
        return NGX_ERROR;
    }

    if (n < (ssize_t) size) {
        c->write->ready = 0;
    }

    if (n > 0) {
        c->sent += n;
    }

    return n;
}


static ngx_chain_t *
ngx_tun_tcp_send_chain(ngx_connection_t *c, ngx_chain_t *in, off_t limit)
{
    ssize_t     n;
    ngx_buf_t  *b;

    for ( /* void */ ; in != NULL; in = in->next) {
        b = in->buf;

        if (ngx_buf_in_memory(b) && b->last != b->pos) {

            n = ngx_tun_tcp_send(c, b->pos, b->last - b->pos);

            if (n == NGX_ERROR) {
                return NGX_CHAIN_ERROR;
            }

            if (n == NGX_AGAIN) {
                return in;
            }

            b->pos += n;

            if (b->pos != b->last) {
                return in;
            }
        }

        if (b->last_buf) {
            ngx_tun_tcp_last(ngx_tun_connection_flow(c));
        }
    }

    return NULL;
}


static ngx_uint_t
ngx_tun_tcp_dead(ngx_tun_tcp_t *tcp)
{
    return tcp->gone
           || (tcp->lwip.pcb == NULL && tcp->state != NGX_TUN_TCP_PENDING);
}
