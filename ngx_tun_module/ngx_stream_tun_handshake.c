
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_upstream.h>


#define NGX_STREAM_TUN_HANDSHAKE_BUFFER  4096


typedef enum {
    NGX_STREAM_TUN_FAIL_TIMEOUT = 0,
    NGX_STREAM_TUN_FAIL_CLOSED,
    NGX_STREAM_TUN_FAIL_RESET,
    NGX_STREAM_TUN_FAIL_GARBAGE,
    NGX_STREAM_TUN_FAIL_MEMORY
} ngx_stream_tun_fail_e;


static void ngx_stream_tun_handshake_handler(ngx_event_t *ev);
static ngx_uint_t ngx_stream_tun_handshake_connected(
    ngx_stream_tun_peer_t *tp, ngx_event_t *ev);
static void ngx_stream_tun_handshake_begin(ngx_stream_tun_peer_t *tp);
static void ngx_stream_tun_handshake_run(ngx_stream_tun_peer_t *tp);
static ngx_int_t ngx_stream_tun_handshake_send(ngx_stream_tun_peer_t *tp);
static ngx_int_t ngx_stream_tun_handshake_reply(ngx_stream_tun_peer_t *tp);
static void ngx_stream_tun_handshake_refused(ngx_stream_tun_peer_t *tp,
    ngx_uint_t code);
static const char *ngx_stream_tun_handshake_text(ngx_stream_tun_peer_t *tp,
    ngx_uint_t code);
static ngx_uint_t ngx_stream_tun_handshake_final(ngx_stream_tun_peer_t *tp,
    ngx_uint_t code);
static void ngx_stream_tun_handshake_fail(ngx_stream_tun_peer_t *tp,
    ngx_stream_tun_fail_e how);
static void ngx_stream_tun_handshake_done(ngx_stream_tun_peer_t *tp);
static void ngx_stream_tun_handshake_count(ngx_stream_tun_peer_t *tp,
    size_t offset);
static void ngx_stream_tun_handshake_try(ngx_stream_tun_peer_t *tp,
    const char *fmt, ngx_uint_t code);
static ssize_t ngx_stream_tun_handshake_recv(ngx_connection_t *pc,
    u_char *buf, size_t size);

static ngx_int_t ngx_stream_tun_filter_hold(ngx_stream_tun_peer_t *tp,
    ngx_chain_t *in);
static void ngx_stream_tun_filter_begin(ngx_stream_tun_peer_t *tp);
static void ngx_stream_tun_filter_handler(ngx_event_t *ev);
static ngx_int_t ngx_stream_tun_filter_release(ngx_stream_tun_peer_t *tp,
    ngx_stream_filter_pt next);


void
ngx_stream_tun_start_handshake(ngx_stream_tun_peer_t *tp)
{
    ngx_connection_t  *pc;

    pc = tp->session->upstream->peer.connection;

    pc->read->handler = ngx_stream_tun_handshake_handler;
    pc->write->handler = ngx_stream_tun_handshake_handler;
}


static void
ngx_stream_tun_handshake_handler(ngx_event_t *ev)
{
    ngx_connection_t       *pc;
    ngx_stream_session_t   *s;
    ngx_stream_tun_peer_t  *tp;

    pc = ev->data;
    s = pc->data;
    tp = ngx_stream_tun_peer(s);

    if (tp->state == NGX_STREAM_TUN_HANDSHAKE_IDLE) {

        if (!ngx_stream_tun_handshake_connected(tp, ev)) {
            return;
        }

        ngx_stream_tun_handshake_begin(tp);

    } else if (ev->timedout) {
        ngx_stream_tun_handshake_fail(tp, NGX_STREAM_TUN_FAIL_TIMEOUT);
        return;
    }

    ngx_stream_tun_handshake_run(tp);
}


/* what is not connected is left to the proxy module, errors and all */

static ngx_uint_t
ngx_stream_tun_handshake_connected(ngx_stream_tun_peer_t *tp, ngx_event_t *ev)
{
    socklen_t           socklen;
    ngx_sockaddr_t      sa;
    ngx_connection_t   *pc;

    pc = ev->data;
    socklen = sizeof(ngx_sockaddr_t);

    if (!ev->timedout && getpeername(pc->fd, &sa.sockaddr, &socklen) == 0) {
        return 1;
    }

    pc->read->handler = tp->connect;
    pc->write->handler = tp->connect;

    tp->connect(pc->write);

    return 0;
}


static void
ngx_stream_tun_handshake_begin(ngx_stream_tun_peer_t *tp)
{
    ngx_connection_t  *pc;

    pc = tp->session->upstream->peer.connection;

    tp->session->connection->log->action = "handshaking with upstream";

    tp->state = NGX_STREAM_TUN_HANDSHAKE_RUN;
    tp->start = ngx_current_msec;
    tp->step = 0;
    tp->sent = 0;

    if (tp->in != NULL) {
        tp->in->pos = tp->in->start;
        tp->in->last = tp->in->start;
    }

    /* what fails is in a line of ours */

    pc->log_error = NGX_ERROR_INFO;

    ngx_add_timer(pc->write, tp->conf->handshake->timeout);
}


static void
ngx_stream_tun_handshake_run(ngx_stream_tun_peer_t *tp)
{
    ngx_int_t  rc;

    while (tp->step < tp->nsteps) {

        rc = ngx_stream_tun_handshake_send(tp);

        if (rc == NGX_ERROR) {
            ngx_stream_tun_handshake_fail(tp, NGX_STREAM_TUN_FAIL_RESET);
            return;
        }

        if (rc == NGX_AGAIN) {
            return;
        }

        if (tp->steps[tp->step].parse != NULL) {
            rc = ngx_stream_tun_handshake_reply(tp);

            if (rc != NGX_OK) {
                return;
            }
        }

        tp->step++;
        tp->sent = 0;
    }

    ngx_stream_tun_handshake_done(tp);
}


static ngx_int_t
ngx_stream_tun_handshake_send(ngx_stream_tun_peer_t *tp)
{
    ssize_t            n;
    ngx_str_t         *out;
    ngx_connection_t  *pc;

    pc = tp->session->upstream->peer.connection;
    out = &tp->steps[tp->step].out;

    while (tp->sent < out->len) {

        n = pc->send(pc, out->data + tp->sent, out->len - tp->sent);

        if (n == NGX_AGAIN) {
            return (ngx_handle_write_event(pc->write, 0) == NGX_OK)
                   ? NGX_AGAIN : NGX_ERROR;
        }

        if (n < 0) {
            return NGX_ERROR;
        }

        tp->sent += n;
    }

    return NGX_OK;
}


/* NGX_OK, or something else when there is nothing to do for now or ever */

static ngx_int_t
ngx_stream_tun_handshake_reply(ngx_stream_tun_peer_t *tp)
{
    ssize_t            n;
    ngx_int_t          rc;
    ngx_buf_t         *b;
    ngx_uint_t         code;
    ngx_connection_t  *pc;

    pc = tp->session->upstream->peer.connection;

    if (tp->in == NULL) {
        tp->in = ngx_create_temp_buf(pc->pool, NGX_STREAM_TUN_HANDSHAKE_BUFFER);
        if (tp->in == NULL) {
            ngx_stream_tun_handshake_fail(tp, NGX_STREAM_TUN_FAIL_MEMORY);
            return NGX_ERROR;
        }
    }

    b = tp->in;

    for ( ;; ) {

        rc = tp->steps[tp->step].parse(&b->pos, b->last, &code);

        if (rc == NGX_OK) {
            return NGX_OK;
        }

        if (rc == NGX_DECLINED) {
            ngx_stream_tun_handshake_refused(tp, code);
            return NGX_ERROR;
        }

        if (rc == NGX_ERROR || b->last == b->end) {
            ngx_stream_tun_handshake_fail(tp, NGX_STREAM_TUN_FAIL_GARBAGE);
            return NGX_ERROR;
        }

        n = pc->recv(pc, b->last, b->end - b->last);

        if (n == NGX_AGAIN) {
            if (ngx_handle_read_event(pc->read, 0) == NGX_OK) {
                return NGX_AGAIN;
            }

            n = NGX_ERROR;
        }

        if (n <= 0) {
            ngx_stream_tun_handshake_fail(tp, (n == 0)
                                              ? NGX_STREAM_TUN_FAIL_CLOSED
                                              : NGX_STREAM_TUN_FAIL_RESET);
            return NGX_ERROR;
        }

        b->last += n;
    }
}


static void
ngx_stream_tun_handshake_refused(ngx_stream_tun_peer_t *tp, ngx_uint_t code)
{
    ngx_uint_t                        final, level;
    ngx_stream_session_t             *s;
    ngx_stream_tun_handshake_conf_t  *thcf;

    s = tp->session;
    thcf = tp->conf->handshake;

    tp->code = code;

    final = tp->step == tp->nsteps - 1
            && ngx_stream_tun_handshake_final(tp, code);

    /* about the destination: it is not the proxy that has failed */

    level = final ? NGX_LOG_INFO : NGX_LOG_WARN;

    ngx_log_error(level, s->connection->log, 0, "%V proxy %V said %ui (%s)",
                  thcf->name, s->upstream->peer.name, code,
                  ngx_stream_tun_handshake_text(tp, code));

    ngx_stream_tun_handshake_try(tp, "%ui", code);
    ngx_stream_tun_handshake_count(tp, offsetof(ngx_tun_stat_t,
                                                handshakes_refused));

    ngx_stream_tun_fail_peer(tp, final);
}


static const char *
ngx_stream_tun_handshake_text(ngx_stream_tun_peer_t *tp, ngx_uint_t code)
{
    ngx_stream_tun_parse_pt  parse;

    parse = tp->steps[tp->step].parse;

    if (parse == ngx_stream_tun_socks5_parse_reply) {
        return ngx_stream_tun_socks5_text(code);
    }

    if (parse == ngx_stream_tun_socks5_parse_password) {
        return "user or password not accepted";
    }

    if (parse == ngx_stream_tun_http_parse) {
        return (code == 407) ? "proxy authentication required"
                             : "status of the response to CONNECT";
    }

    return "authentication method not accepted";
}


static ngx_uint_t
ngx_stream_tun_handshake_final(ngx_stream_tun_peer_t *tp, ngx_uint_t code)
{
    ngx_uint_t    i, *final;
    ngx_array_t  *codes;

    codes = tp->conf->handshake->final;

    if (codes == NULL) {
        return 0;
    }

    final = codes->elts;

    for (i = 0; i < codes->nelts; i++) {
        if (final[i] == code) {
            return 1;
        }
    }

    return 0;
}


static void
ngx_stream_tun_handshake_fail(ngx_stream_tun_peer_t *tp,
    ngx_stream_tun_fail_e how)
{
    ngx_stream_session_t  *s;

    static const char  *status[] = {
        "timeout", "closed", "reset", "garbage", "memory"
    };

    static const char  *text[] = {
        "timed out in the handshake",
        "closed the connection in the handshake",
        "reset the connection in the handshake",
        "answered what is no answer in the handshake",
        "had no memory for the handshake"
    };

    s = tp->session;

    ngx_log_error(NGX_LOG_WARN, s->connection->log, 0,
                  "%V proxy %V %s", tp->conf->handshake->name,
                  s->upstream->peer.name, text[how]);

    ngx_stream_tun_handshake_try(tp, status[how], 0);
    ngx_stream_tun_handshake_count(tp, offsetof(ngx_tun_stat_t,
                                                handshakes_failed));

    ngx_stream_tun_fail_peer(tp, 0);
}


static void
ngx_stream_tun_handshake_done(ngx_stream_tun_peer_t *tp)
{
    ngx_connection_t  *pc;

    pc = tp->session->upstream->peer.connection;

    ngx_stream_tun_handshake_try(tp, "ok", 0);
    ngx_stream_tun_handshake_count(tp, offsetof(ngx_tun_stat_t,
                                                handshakes_ok));

    pc->log_error = tp->session->upstream->peer.log_error;

    /* what came behind the answer is the destination's */

    if (tp->in != NULL && tp->in->pos < tp->in->last) {
        tp->recv = pc->recv;
        pc->recv = ngx_stream_tun_handshake_recv;
        pc->read->ready = 1;
    }

    if (!tp->ssl) {
        tp->state = NGX_STREAM_TUN_HANDSHAKE_DONE;

        pc->read->handler = tp->connect;
        pc->write->handler = tp->connect;

        tp->connect(pc->write);
        return;
    }

    tp->state = NGX_STREAM_TUN_HANDSHAKE_READY;

    ngx_del_timer(pc->write);

    pc->read->delayed = 0;
    pc->read->handler = tp->read_handler;
    pc->write->handler = tp->write_handler;

    if (pc->read->ready) {
        ngx_post_event(pc->read, &ngx_posted_events);
    }

    /* the connection is "buffered": the proxy module calls the filter */

    pc->write->handler(pc->write);
}


/* of sessions that came through a device */

static void
ngx_stream_tun_handshake_count(ngx_stream_tun_peer_t *tp, size_t offset)
{
    u_char                *stat;
    ngx_stream_session_t  *s;

    s = tp->session;

    if (ngx_stream_tun_session(s)) {
        stat = (u_char *) ngx_tun_connection_stat(s->connection);

        (void) ngx_atomic_fetch_add((ngx_atomic_t *) (stat + offset), 1);
    }
}


static void
ngx_stream_tun_handshake_try(ngx_stream_tun_peer_t *tp, const char *fmt,
    ngx_uint_t code)
{
    ngx_stream_tun_try_t  *try;

    try = tp->tries.elts;
    try += tp->tries.nelts - 1;

    try->len = ngx_snprintf(try->status, sizeof(try->status), fmt, code)
               - try->status;
    try->time = ngx_current_msec - tp->start;
}


static ssize_t
ngx_stream_tun_handshake_recv(ngx_connection_t *pc, u_char *buf, size_t size)
{
    ngx_buf_t              *b;
    ngx_stream_session_t   *s;
    ngx_stream_tun_peer_t  *tp;

    s = pc->data;
    tp = ngx_stream_tun_peer(s);
    b = tp->in;

    size = ngx_min(size, (size_t) (b->last - b->pos));

    ngx_memcpy(buf, b->pos, size);
    b->pos += size;

    if (b->pos == b->last) {
        pc->recv = tp->recv;
    }

    return size;
}


ngx_int_t
ngx_stream_tun_upstream_filter(ngx_stream_session_t *s, ngx_chain_t *in,
    ngx_uint_t from_upstream)
{
    ngx_stream_filter_pt                  next;
    ngx_stream_tun_peer_t                *tp;
    ngx_stream_tun_upstream_main_conf_t  *tumcf;

    tumcf = ngx_stream_get_module_main_conf(s, ngx_stream_tun_upstream_module);

    next = tumcf->next_filter;
    tp = ngx_stream_tun_peer(s);

    if (tp == NULL || from_upstream || !tp->ssl
        || tp->conf->handshake == NULL
        || tp->state == NGX_STREAM_TUN_HANDSHAKE_DONE)
    {
        return next(s, in, from_upstream);
    }

    if (ngx_stream_tun_filter_hold(tp, in) != NGX_OK) {
        return NGX_ERROR;
    }

    if (tp->state == NGX_STREAM_TUN_HANDSHAKE_READY) {
        return ngx_stream_tun_filter_release(tp, next);
    }

    if (tp->state == NGX_STREAM_TUN_HANDSHAKE_IDLE) {
        ngx_stream_tun_filter_begin(tp);
    }

    return NGX_AGAIN;
}


/* the bytes stay where they are until they are sent, the links are ours */

static ngx_int_t
ngx_stream_tun_filter_hold(ngx_stream_tun_peer_t *tp, ngx_chain_t *in)
{
    ngx_chain_t  *cl;

    for ( /* void */ ; in != NULL; in = in->next) {

        if (in->buf->last_buf) {
            tp->eof = 1;
        }

        if (ngx_buf_size(in->buf) == 0) {
            continue;
        }

        cl = ngx_alloc_chain_link(tp->session->connection->pool);
        if (cl == NULL) {
            return NGX_ERROR;
        }

        cl->buf = in->buf;
        cl->next = NULL;

        *tp->last = cl;
        tp->last = &cl->next;
    }

    return NGX_OK;
}


/*
 * Inside of the filter the proxy module cannot be told that the peer fails,
 * so the handshake begins by an event.
 */

static void
ngx_stream_tun_filter_begin(ngx_stream_tun_peer_t *tp)
{
    ngx_connection_t  *pc;

    pc = tp->session->upstream->peer.connection;

    tp->read_handler = pc->read->handler;
    tp->write_handler = pc->write->handler;

    pc->read->handler = ngx_stream_tun_handshake_handler;
    pc->write->handler = ngx_stream_tun_handshake_handler;

    /* the proxy module neither ends the connection nor reads from it */

    pc->buffered |= NGX_STREAM_TUN_BUFFERED;
    pc->read->delayed = 1;

    ngx_stream_tun_handshake_begin(tp);

    tp->event.handler = ngx_stream_tun_filter_handler;
    ngx_post_event(&tp->event, &ngx_posted_events);
}


static void
ngx_stream_tun_filter_handler(ngx_event_t *ev)
{
    ngx_stream_tun_peer_t  *tp;

    tp = ev->data;

    if (tp->state == NGX_STREAM_TUN_HANDSHAKE_RUN) {
        ngx_stream_tun_handshake_run(tp);
    }
}


static ngx_int_t
ngx_stream_tun_filter_release(ngx_stream_tun_peer_t *tp,
    ngx_stream_filter_pt next)
{
    ngx_int_t              rc;
    ngx_buf_t             *b;
    ngx_chain_t           *in, *cl, end;
    ngx_stream_session_t  *s;

    s = tp->session;

    /* a client that was silent is told by the filters that it is connected */

    b = ngx_calloc_buf(s->connection->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->flush = 1;
    b->last_buf = tp->eof;

    end.buf = b;
    end.next = NULL;

    *tp->last = &end;
    in = tp->held;

    tp->held = NULL;
    tp->last = &tp->held;
    tp->state = NGX_STREAM_TUN_HANDSHAKE_DONE;

    s->upstream->peer.connection->buffered &= ~NGX_STREAM_TUN_BUFFERED;

    rc = next(s, in, 0);

    while (in != &end) {
        cl = in;
        in = cl->next;
        ngx_free_chain(s->connection->pool, cl);
    }

    return rc;
}
