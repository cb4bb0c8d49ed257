
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <nginx.h>

#include <ngx_tun_stack.h>
#include <ngx_tun_connection.h>
#include <ngx_tun_udp.h>


#define NGX_TUN_UDP_IOVS  64


static ngx_int_t ngx_tun_udp_init_flow(ngx_connection_t *c, ngx_tun_t *tun,
    ngx_tun_flow_key_t *key);
static void ngx_tun_udp_cleanup(void *data);
static void ngx_tun_udp_forget(void *data);

static ssize_t ngx_tun_udp_recv(ngx_connection_t *c, u_char *buf, size_t size);
static ssize_t ngx_tun_udp_take(ngx_tun_udp_t *udp, u_char *buf, size_t size);
static ssize_t ngx_tun_udp_recv_chain(ngx_connection_t *c, ngx_chain_t *in,
    off_t limit);
static ssize_t ngx_tun_udp_send(ngx_connection_t *c, u_char *buf, size_t size);
static ngx_chain_t *ngx_tun_udp_send_chain(ngx_connection_t *c,
    ngx_chain_t *in, off_t limit);


ngx_tun_udp_t *
ngx_tun_udp_create(ngx_tun_t *tun, ngx_listening_t *ls,
    ngx_tun_flow_key_t *key, u_char *data, size_t len)
{
    ngx_buf_t         *b;
    ngx_connection_t  *c;

    c = ngx_tun_connection_create(tun, ls, key);
    if (c == NULL) {
        return NULL;
    }

    b = ngx_create_temp_buf(c->pool, ngx_max(len, 1));

    if (b == NULL || ngx_tun_udp_init_flow(c, tun, key) != NGX_OK) {
        ngx_tun_connection_discard(c);
        return NULL;
    }

    b->last = ngx_cpymem(b->last, data, len);

    c->buffer = b;

    return ngx_tun_connection_flow(c);
}


static ngx_int_t
ngx_tun_udp_init_flow(ngx_connection_t *c, ngx_tun_t *tun,
    ngx_tun_flow_key_t *key)
{
    ngx_tun_udp_t       *udp;
    ngx_pool_cleanup_t  *cln, *forget;

    udp = ngx_pcalloc(c->pool, sizeof(ngx_tun_udp_t));
    cln = ngx_pool_cleanup_add(c->pool, 0);
    forget = ngx_pool_cleanup_add(c->pool, 0);

    if (udp == NULL || cln == NULL || forget == NULL) {
        return NGX_ERROR;
    }

    udp->tun = tun;
    udp->connection = c;
    udp->flow.key = *key;
    udp->used = ngx_current_msec;

    ngx_queue_init(&udp->waiting);

    /* what follows "proxy_requests" deletes c->udp, and so tells of it */

    udp->node.key = (ngx_rbtree_key_t) c->number;
    ngx_rbtree_insert(&c->listening->rbtree, &udp->node);

    c->udp = (ngx_udp_connection_t *) &udp->node;

    c->recv = ngx_tun_udp_recv;
    c->recv_chain = ngx_tun_udp_recv_chain;
    c->send = ngx_tun_udp_send;
    c->send_chain = ngx_tun_udp_send_chain;

#if (nginx_version >= 1025000)
    c->need_flush_buf = 1;
#endif

    cln->handler = ngx_tun_udp_cleanup;
    cln->data = udp;

    forget->handler = ngx_tun_udp_forget;
    forget->data = c;

    ngx_tun_connection_set_flow(c, udp);

    return NGX_OK;
}


/* as ngx_delete_udp_connection(), which not all builds export */

static void
ngx_tun_udp_forget(void *data)
{
    ngx_connection_t *c = data;

    if (c->udp != NULL) {
        ngx_rbtree_delete(&c->listening->rbtree, (ngx_rbtree_node_t *) c->udp);
        c->udp = NULL;
    }
}


static void
ngx_tun_udp_cleanup(void *data)
{
    ngx_tun_udp_t *udp = data;

    ngx_tun_t              *tun;
    ngx_queue_t            *q;
    ngx_tun_udp_waiting_t  *waiting;

    tun = udp->tun;

    while (!ngx_queue_empty(&udp->waiting)) {
        q = ngx_queue_head(&udp->waiting);
        ngx_queue_remove(q);

        waiting = ngx_queue_data(q, ngx_tun_udp_waiting_t, queue);
        tun->udp.memory -= waiting->len;

        ngx_free(waiting);
    }

    ngx_tun_udp_detach(udp);

    ngx_tun_limit_release(&tun->limits, &udp->claim);

    if (udp->in_end) {
        ngx_queue_remove(&udp->ended);
    }

    if (tun->udp.current == udp) {
        tun->udp.current = NULL;
    }

    tun->udp.sessions--;

    ngx_tun_gauge_add(tun, udp_active, -1);
}


static ssize_t
ngx_tun_udp_recv(ngx_connection_t *c, u_char *buf, size_t size)
{
    ssize_t         n;
    ngx_tun_udp_t  *udp;

    udp = ngx_tun_connection_flow(c);

    do {
        n = ngx_tun_udp_take(udp, buf, size);
    } while (n == NGX_DECLINED);

    c->read->ready = (udp->data != NULL || udp->waiting_n != 0);

    return n;
}


/* what does not fit is dropped, never cut */

static ssize_t
ngx_tun_udp_take(ngx_tun_udp_t *udp, u_char *buf, size_t size)
{
    size_t                  len;
    ngx_queue_t            *q;
    ngx_tun_udp_waiting_t  *waiting;

    if (udp->waiting_n == 0) {

        if (udp->data == NULL) {
            return NGX_AGAIN;
        }

        len = udp->len;

        if (len <= size) {
            ngx_memcpy(buf, udp->data, len);
        }

        udp->data = NULL;

    } else {
        q = ngx_queue_head(&udp->waiting);
        ngx_queue_remove(q);

        waiting = ngx_queue_data(q, ngx_tun_udp_waiting_t, queue);
        len = waiting->len;

        if (len <= size) {
            ngx_memcpy(buf, waiting->data, len);
        }

        udp->waiting_n--;
        udp->waiting_bytes -= len;
        udp->tun->udp.memory -= len;

        ngx_free(waiting);
    }

    if (len > size) {
        udp->requests--;
        (void) ngx_atomic_fetch_add(&udp->tun->stat->udp_oversized, 1);
        return NGX_DECLINED;
    }

    return len;
}


static ssize_t
ngx_tun_udp_recv_chain(ngx_connection_t *c, ngx_chain_t *in, off_t limit)
{
    return ngx_tun_udp_recv(c, in->buf->last, in->buf->end - in->buf->last);
}


static ssize_t
ngx_tun_udp_send(ngx_connection_t *c, u_char *buf, size_t size)
{
    struct iovec    iov[3];
    ngx_tun_udp_t  *udp;

    udp = ngx_tun_connection_flow(c);

    iov[2].iov_base = buf;
    iov[2].iov_len = size;

    ngx_tun_udp_output(udp, &udp->flow.key, iov, 3, size);

    c->sent += size;

    return size;
}


/* a datagram is all up to a buffer with "flush" */

static ngx_chain_t *
ngx_tun_udp_send_chain(ngx_connection_t *c, ngx_chain_t *in, off_t limit)
{
    size_t          len, size;
    ngx_buf_t      *b;
    ngx_uint_t      n;
    struct iovec    iov[2 + NGX_TUN_UDP_IOVS];
    ngx_tun_udp_t  *udp;

    udp = ngx_tun_connection_flow(c);

    n = 2;
    len = 0;

    for ( /* void */ ; in != NULL; in = in->next) {
        b = in->buf;

        if (ngx_buf_in_memory(b) && b->last != b->pos) {

            if (n == 2 + NGX_TUN_UDP_IOVS) {
                return NGX_CHAIN_ERROR;
            }

            size = b->last - b->pos;

            iov[n].iov_base = b->pos;
            iov[n].iov_len = size;
            n++;

            len += size;
            b->pos = b->last;
        }

        if (!b->flush && !b->last_buf) {
            continue;
        }

        /* the end of an upstream is no empty datagram */

        if (n != 2 || !b->last_buf) {
            ngx_tun_udp_output(udp, &udp->flow.key, iov, n, len);
            c->sent += len;
        }

        n = 2;
        len = 0;
    }

    return NULL;
}


ngx_int_t
ngx_tun_recv_datagram(ngx_connection_t *c, ngx_tun_datagram_t *datagram)
{
    ngx_tun_udp_t  *udp;

    udp = ngx_tun_connection_flow(c);

    c->read->ready = 0;

    if (udp->data == NULL) {
        return NGX_AGAIN;
    }

    datagram->data = udp->data;
    datagram->len = udp->len;
    datagram->port = udp->target->dst_port;
    ngx_memcpy(datagram->addr, udp->target->dst, 16);

    udp->data = NULL;

    return NGX_OK;
}


void
ngx_tun_send_datagram(ngx_connection_t *c, ngx_tun_datagram_t *datagram)
{
    struct iovec         iov[3];
    ngx_tun_udp_t       *udp;
    ngx_tun_flow_key_t   key;

    udp = ngx_tun_connection_flow(c);

    key = udp->flow.key;
    key.dst_port = datagram->port;
    ngx_memcpy(key.dst, datagram->addr, 16);

    iov[2].iov_base = datagram->data;
    iov[2].iov_len = datagram->len;

    ngx_tun_udp_output(udp, &key, iov, 3, datagram->len);

    c->sent += datagram->len;
}
