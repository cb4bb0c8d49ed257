
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_dns.h>


#define NGX_STREAM_TUN_DNS_FIRST      5000   /* ms for the first question */
#define NGX_STREAM_TUN_DNS_IDLE      10000   /* ms between them */
#define NGX_STREAM_TUN_DNS_PENDING      64   /* questions without answers */
#define NGX_STREAM_TUN_DNS_QUESTIONS  1000   /* of one connection */

#define NGX_STREAM_TUN_DNS_IN  (2 + NGX_TUN_DNS_QUERY_MAX)


/* bytes that the client has not taken yet */

struct ngx_stream_tun_dns_out_s {
    ngx_stream_tun_dns_out_t    *next;
    u_char                      *pos;
    u_char                      *last;
};


static void ngx_stream_tun_dns_tcp_cleanup(void *data);
static void ngx_stream_tun_dns_tcp_read_handler(ngx_event_t *rev);
static void ngx_stream_tun_dns_tcp_write_handler(ngx_event_t *wev);
static ngx_int_t ngx_stream_tun_dns_tcp_read(ngx_stream_tun_dns_ctx_t *ctx);
static ngx_int_t ngx_stream_tun_dns_tcp_questions(
    ngx_stream_tun_dns_ctx_t *ctx);
static ngx_int_t ngx_stream_tun_dns_tcp_flush(ngx_stream_tun_dns_ctx_t *ctx);
static void ngx_stream_tun_dns_tcp_end(ngx_stream_tun_dns_ctx_t *ctx,
    ngx_uint_t rc);


#define ngx_stream_tun_dns_tcp_full(ctx)                                      \
    ((ctx)->waiting + (ctx)->nout >= NGX_STREAM_TUN_DNS_PENDING)


void
ngx_stream_tun_dns_tcp(ngx_stream_tun_dns_ctx_t *ctx)
{
    ngx_buf_t                      *b;
    ngx_connection_t               *c;
    ngx_pool_cleanup_t             *cln;
    ngx_stream_tun_dns_srv_conf_t  *dscf;

    c = ctx->session->connection;

    dscf = ngx_stream_get_module_srv_conf(ctx->session,
                                          ngx_stream_tun_dns_module);

    ngx_tun_dns_count(ctx->zone->stat, connections);

    cln = ngx_pool_cleanup_add(c->pool, 0);
    ctx->in = ngx_palloc(c->pool, NGX_STREAM_TUN_DNS_IN);

    if (cln == NULL || ctx->in == NULL) {
        ngx_stream_finalize_session(ctx->session,
                                    NGX_STREAM_INTERNAL_SERVER_ERROR);
        return;
    }

    if (ngx_tun_dns_limit_open(&ctx->zone->shared->limit, &dscf->limit,
                               ctx->client, &ctx->limit)
        != NGX_OK)
    {
        ngx_tun_dns_count(ctx->zone->stat, limited_connections);
        ngx_stream_finalize_session(ctx->session,
                                    NGX_STREAM_SERVICE_UNAVAILABLE);
        return;
    }

    cln->handler = ngx_stream_tun_dns_tcp_cleanup;
    cln->data = ctx;

    /* what a preread module has read */

    b = c->buffer;

    if (b != NULL && b->last > b->pos) {

        if (b->last - b->pos > NGX_STREAM_TUN_DNS_IN) {
            ngx_stream_finalize_session(ctx->session, NGX_STREAM_BAD_REQUEST);
            return;
        }

        ctx->in_len = b->last - b->pos;
        ngx_memcpy(ctx->in, b->pos, ctx->in_len);
        b->pos = b->last;
    }

    c->read->handler = ngx_stream_tun_dns_tcp_read_handler;
    c->write->handler = ngx_stream_tun_dns_tcp_write_handler;

    ngx_add_timer(c->read, NGX_STREAM_TUN_DNS_FIRST);

    ngx_stream_tun_dns_tcp_go_on(ctx);
}


static void
ngx_stream_tun_dns_tcp_cleanup(void *data)
{
    ngx_stream_tun_dns_ctx_t *ctx = data;

    ngx_stream_tun_dns_out_t  *out, *next;

    if (ctx->limit != NULL) {
        ngx_tun_dns_limit_close(ctx->limit);
    }

    for (out = ctx->out; out != NULL; out = next) {
        next = out->next;
        ngx_free(out);
    }
}


static void
ngx_stream_tun_dns_tcp_read_handler(ngx_event_t *rev)
{
    ngx_connection_t          *c;
    ngx_stream_session_t      *s;
    ngx_stream_tun_dns_ctx_t  *ctx;

    c = rev->data;
    s = c->data;
    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_dns_module);

    if (c->close) {
        ctx->eof = 1;
    }

    if (rev->timedout) {
        rev->timedout = 0;

        /* with answers to come it is not idle */

        if (ctx->waiting == 0 && ctx->out == NULL) {
            ngx_stream_tun_dns_tcp_end(ctx, NGX_STREAM_OK);
            return;
        }

        ngx_add_timer(rev, NGX_STREAM_TUN_DNS_IDLE);
    }

    ngx_stream_tun_dns_tcp_go_on(ctx);
}


static void
ngx_stream_tun_dns_tcp_write_handler(ngx_event_t *wev)
{
    ngx_connection_t          *c;
    ngx_stream_session_t      *s;
    ngx_stream_tun_dns_ctx_t  *ctx;

    c = wev->data;
    s = c->data;
    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_dns_module);

    if (wev->timedout) {
        ngx_stream_finalize_session(s, NGX_STREAM_OK);
        return;
    }

    ngx_stream_tun_dns_tcp_go_on(ctx);
}


/* answers go first: they make room for questions */

void
ngx_stream_tun_dns_tcp_go_on(ngx_stream_tun_dns_ctx_t *ctx)
{
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = ctx->session->connection;

    do {

        if (ngx_stream_tun_dns_tcp_flush(ctx) != NGX_OK) {
            ngx_stream_finalize_session(ctx->session, NGX_STREAM_OK);
            return;
        }

        rc = ngx_stream_tun_dns_tcp_questions(ctx);

        if (rc == NGX_OK) {
            rc = ngx_stream_tun_dns_tcp_read(ctx);
        }

        if (rc == NGX_ERROR) {
            ngx_stream_tun_dns_tcp_end(ctx, NGX_STREAM_BAD_REQUEST);
            return;
        }

    } while (rc == NGX_OK);

    if (ctx->eof && ctx->waiting == 0 && ctx->out == NULL) {
        ngx_stream_tun_dns_tcp_end(ctx, NGX_STREAM_OK);
        return;
    }

    if (ngx_handle_read_event(c->read, 0) != NGX_OK
        || ngx_handle_write_event(c->write, 0) != NGX_OK)
    {
        ngx_stream_finalize_session(ctx->session,
                                    NGX_STREAM_INTERNAL_SERVER_ERROR);
    }
}


/* NGX_OK: there is something new; NGX_AGAIN: an event will tell */

static ngx_int_t
ngx_stream_tun_dns_tcp_read(ngx_stream_tun_dns_ctx_t *ctx)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = ctx->session->connection;

    if (ctx->eof) {
        return NGX_AGAIN;
    }

    n = c->recv(c, ctx->in + ctx->in_len, NGX_STREAM_TUN_DNS_IN - ctx->in_len);

    if (n == NGX_AGAIN) {
        return NGX_AGAIN;
    }

    if (n == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (n == 0) {
        ctx->eof = 1;
        return NGX_AGAIN;
    }

    ctx->in_len += n;
    ctx->session->received += n;

    return NGX_OK;
}


/* NGX_AGAIN: no more of them now, answers must go first */

static ngx_int_t
ngx_stream_tun_dns_tcp_questions(ngx_stream_tun_dns_ctx_t *ctx)
{
    size_t             len, n;
    u_char            *p, *last, *answer, buf[2 + NGX_TUN_DNS_ANSWER_MAX];
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = ctx->session->connection;
    p = ctx->in;
    last = p + ctx->in_len;
    rc = NGX_OK;

    while (last - p >= 2) {

        if (ngx_stream_tun_dns_tcp_full(ctx)
            || ctx->questions == NGX_STREAM_TUN_DNS_QUESTIONS)
        {
            break;
        }

        len = ngx_tun_dns_get16(p);

        if (len == 0 || len > NGX_TUN_DNS_QUERY_MAX) {
            return NGX_ERROR;
        }

        if ((size_t) (last - p) < 2 + len) {
            break;
        }

        p += 2;
        ngx_tun_dns_count(ctx->zone->stat, tcp);
        ngx_add_timer(c->read, NGX_STREAM_TUN_DNS_IDLE);

        rc = ngx_stream_tun_dns_answer(ctx, p, p + len, buf, &answer, &n);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        p += len;

        if (rc == NGX_OK
            && ngx_stream_tun_dns_tcp_send(ctx, answer - 2, n) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    ctx->in_len = last - p;
    ngx_memmove(ctx->in, p, ctx->in_len);

    if (ctx->questions == NGX_STREAM_TUN_DNS_QUESTIONS) {
        ctx->eof = 1;
    }

    return ngx_stream_tun_dns_tcp_full(ctx) ? NGX_AGAIN : NGX_OK;
}


ngx_int_t
ngx_stream_tun_dns_tcp_send(ngx_stream_tun_dns_ctx_t *ctx, u_char *buf,
    size_t len)
{
    u_char                    *p;
    ssize_t                    n;
    ngx_connection_t          *c;
    ngx_stream_tun_dns_out_t  *out;

    c = ctx->session->connection;

    (void) ngx_tun_dns_put16(buf, len);
    p = buf;
    len += 2;

    if (ctx->out == NULL) {
        n = c->send(c, p, len);

        if (n == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (n > 0) {
            p += n;
            len -= n;
        }

        if (len == 0) {
            return NGX_OK;
        }

        ngx_add_timer(c->write, NGX_STREAM_TUN_DNS_IDLE);
    }

    out = ngx_alloc(sizeof(ngx_stream_tun_dns_out_t) + len, c->log);
    if (out == NULL) {
        return NGX_ERROR;
    }

    out->next = NULL;
    out->pos = (u_char *) out + sizeof(ngx_stream_tun_dns_out_t);
    out->last = ngx_cpymem(out->pos, p, len);

    *ctx->out_last = out;
    ctx->out_last = &out->next;
    ctx->nout++;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_dns_tcp_flush(ngx_stream_tun_dns_ctx_t *ctx)
{
    ssize_t                    n;
    ngx_connection_t          *c;
    ngx_stream_tun_dns_out_t  *out;

    c = ctx->session->connection;

    while (ctx->out != NULL) {
        out = ctx->out;

        n = c->send(c, out->pos, out->last - out->pos);

        if (n == NGX_AGAIN) {
            return NGX_OK;
        }

        if (n == NGX_ERROR) {
            return NGX_ERROR;
        }

        out->pos += n;

        if (out->pos != out->last) {
            continue;
        }

        ctx->out = out->next;
        ctx->nout--;
        ngx_free(out);

        if (ctx->out == NULL) {
            ctx->out_last = &ctx->out;
            ngx_del_timer(c->write);

        } else {
            ngx_add_timer(c->write, NGX_STREAM_TUN_DNS_IDLE);
        }
    }

    return NGX_OK;
}


/* what was answered before must arrive */

static void
ngx_stream_tun_dns_tcp_end(ngx_stream_tun_dns_ctx_t *ctx, ngx_uint_t rc)
{
    if (ngx_stream_tun_session(ctx->session)) {
        ngx_tun_finish_after(ctx->session->connection);
    }

    ngx_stream_finalize_session(ctx->session, rc);
}
