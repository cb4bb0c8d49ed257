
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>


#if (nginx_version >= 1025005)
typedef ngx_stream_ssl_srv_conf_t  ngx_stream_tun_ssl_conf_t;
#else
typedef ngx_stream_ssl_conf_t      ngx_stream_tun_ssl_conf_t;
#endif


static ngx_int_t ngx_stream_tun_ssl_check(ngx_conf_t *cf,
    ngx_stream_tun_main_conf_t *tmcf);
static ngx_int_t ngx_stream_tun_ssl_create_method(ngx_conf_t *cf,
    ngx_stream_tun_main_conf_t *tmcf);
static void ngx_stream_tun_ssl_cleanup(void *data);

static ngx_int_t ngx_stream_tun_ssl_handler(ngx_stream_session_t *s);
static ngx_int_t ngx_stream_tun_ssl_set_bio(ngx_stream_session_t *s);
static void ngx_stream_tun_ssl_handshake_handler(ngx_connection_t *c);
static void ngx_stream_tun_ssl_handshake_failed(ngx_connection_t *c);
static void ngx_stream_tun_ssl_handshake_done(ngx_connection_t *c);
static ssize_t ngx_stream_tun_ssl_recv(ngx_connection_t *c, u_char *buf,
    size_t size);
static ngx_chain_t *ngx_stream_tun_ssl_send_chain(ngx_connection_t *c,
    ngx_chain_t *in, off_t limit);

static int ngx_stream_tun_bio_read(BIO *bio, char *buf, int size);
static int ngx_stream_tun_bio_write(BIO *bio, const char *buf, int size);
static long ngx_stream_tun_bio_ctrl(BIO *bio, int cmd, long num, void *ptr);


void
ngx_stream_tun_ssl_listen(ngx_conf_t *cf, ngx_stream_tun_listen_t *stl)
{
#if (nginx_version < 1025005)
    ngx_stream_tun_ssl_conf_t  *sslcf;

    /* without a listen of its own the module makes no SSL_CTX */

    sslcf = ngx_stream_conf_get_module_srv_conf(cf, ngx_stream_ssl_module);

    sslcf->listen = 1;
    sslcf->file = stl->file;
    sslcf->line = stl->line;
#endif

    stl->ssl = 1;
}


ngx_int_t
ngx_stream_tun_init_ssl(ngx_conf_t *cf, ngx_stream_tun_main_conf_t *tmcf)
{
    ngx_int_t                     rc;
    ngx_stream_handler_pt        *h;
    ngx_stream_core_main_conf_t  *cmcf;

    rc = ngx_stream_tun_ssl_check(cf, tmcf);

    if (rc != NGX_OK) {
        return (rc == NGX_DECLINED) ? NGX_OK : NGX_ERROR;
    }

    if (ngx_stream_tun_ssl_create_method(cf, tmcf) != NGX_OK) {
        return NGX_ERROR;
    }

    cmcf = ngx_stream_conf_get_module_main_conf(cf, ngx_stream_core_module);

    /* what is added later runs earlier, here than the stream_ssl module's */

    h = ngx_array_push(&cmcf->phases[NGX_STREAM_SSL_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_stream_tun_ssl_handler;

    return NGX_OK;
}


/* NGX_DECLINED: no listen has "ssl" */

static ngx_int_t
ngx_stream_tun_ssl_check(ngx_conf_t *cf, ngx_stream_tun_main_conf_t *tmcf)
{
    ngx_int_t                   rc;
    ngx_uint_t                  i;
    ngx_stream_tun_listen_t   **stl;
    ngx_stream_tun_ssl_conf_t  *sslcf;

    rc = NGX_DECLINED;
    stl = tmcf->listens.elts;

    for (i = 0; i < tmcf->listens.nelts; i++) {

        if (!stl[i]->ssl) {
            continue;
        }

        sslcf = stl[i]->ctx->srv_conf[ngx_stream_ssl_module.ctx_index];

        if (sslcf->ssl.ctx == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "no \"ssl_certificate\" is defined for "
                          "the \"tun_listen ... ssl\" directive in %s:%ui",
                          stl[i]->file, stl[i]->line);
            return NGX_ERROR;
        }

        rc = NGX_OK;
    }

    return rc;
}


static ngx_int_t
ngx_stream_tun_ssl_create_method(ngx_conf_t *cf,
    ngx_stream_tun_main_conf_t *tmcf)
{
    BIO_METHOD          *method;
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "tun");
    if (method == NULL) {
        ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0, "BIO_meth_new() failed");
        return NGX_ERROR;
    }

    cln->handler = ngx_stream_tun_ssl_cleanup;
    cln->data = method;

    if (BIO_meth_set_read(method, ngx_stream_tun_bio_read) == 0
        || BIO_meth_set_write(method, ngx_stream_tun_bio_write) == 0
        || BIO_meth_set_ctrl(method, ngx_stream_tun_bio_ctrl) == 0)
    {
        ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0, "BIO_meth_set() failed");
        return NGX_ERROR;
    }

    tmcf->bio_method = method;

    return NGX_OK;
}


static void
ngx_stream_tun_ssl_cleanup(void *data)
{
    BIO_meth_free(data);
}


/*
 * The handshake over bytes of ours, where the stream_ssl module would take
 * c->fd.  It does the rest: it finds c->ssl, and verifies the client.
 */

static ngx_int_t
ngx_stream_tun_ssl_handler(ngx_stream_session_t *s)
{
    ngx_int_t                   rc;
    ngx_connection_t           *c;
    ngx_stream_tun_ssl_conf_t  *sslcf;

    c = s->connection;

    if (!s->ssl || c->ssl != NULL || !ngx_stream_tun_session(s)) {
        return NGX_DECLINED;
    }

    c->log->action = "SSL handshaking";

    sslcf = ngx_stream_get_module_srv_conf(s, ngx_stream_ssl_module);

    if (ngx_ssl_create_connection(&sslcf->ssl, c, 0) != NGX_OK
        || ngx_stream_tun_ssl_set_bio(s) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_tun_answer(c);

    rc = ngx_ssl_handshake(c);

    if (rc == NGX_AGAIN) {
        ngx_add_timer(c->read, sslcf->handshake_timeout);
        c->ssl->handler = ngx_stream_tun_ssl_handshake_handler;
        return NGX_AGAIN;
    }

    if (rc == NGX_ERROR) {
        ngx_stream_tun_ssl_handshake_failed(c);
        return NGX_ERROR;
    }

    ngx_stream_tun_ssl_handshake_done(c);

    return NGX_DECLINED;
}


static ngx_int_t
ngx_stream_tun_ssl_set_bio(ngx_stream_session_t *s)
{
    BIO                         *bio;
    ngx_connection_t            *c;
    ngx_stream_tun_main_conf_t  *tmcf;

    c = s->connection;

    tmcf = ngx_stream_get_module_main_conf(s, ngx_stream_tun_module);

    bio = BIO_new(tmcf->bio_method);
    if (bio == NULL) {
        ngx_ssl_error(NGX_LOG_ALERT, c->log, 0, "BIO_new() failed");
        return NGX_ERROR;
    }

    BIO_set_data(bio, c);
    BIO_set_init(bio, 1);

    /* it is freed with the SSL */

    SSL_set_bio(c->ssl->connection, bio, bio);

    return NGX_OK;
}


static void
ngx_stream_tun_ssl_handshake_handler(ngx_connection_t *c)
{
    ngx_stream_session_t  *s;

    s = c->data;

    if (!c->ssl->handshaked) {
        ngx_stream_tun_ssl_handshake_failed(c);
        ngx_stream_finalize_session(s, NGX_STREAM_INTERNAL_SERVER_ERROR);
        return;
    }

    if (c->read->timer_set) {
        ngx_del_timer(c->read);
    }

    ngx_stream_tun_ssl_handshake_done(c);

    ngx_stream_core_run_phases(s);
}


static void
ngx_stream_tun_ssl_handshake_failed(ngx_connection_t *c)
{
    /* an alert that told why is followed by FIN, silence by RST */

    if (!c->read->timedout) {
        ngx_tun_finish_after(c);
    }
}


static void
ngx_stream_tun_ssl_handshake_done(ngx_connection_t *c)
{
    c->need_last_buf = 1;

    c->recv = ngx_stream_tun_ssl_recv;
    c->send_chain = ngx_stream_tun_ssl_send_chain;

    /*
     * A close_notify says that there is no more (RFC 8446, 6.1), which only
     * the last buffer knows; where the session ends without one there is RST.
     */

    c->ssl->no_send_shutdown = 1;
    c->ssl->no_wait_shutdown = 1;
}


static ssize_t
ngx_stream_tun_ssl_recv(ngx_connection_t *c, u_char *buf, size_t size)
{
    ssize_t  n;

    n = ngx_ssl_recv(c, buf, size);

    if (n == 0) {

        /* the client has ended, with or without FIN */

        ngx_tun_finish_after(c);
    }

    return n;
}


static ngx_chain_t *
ngx_stream_tun_ssl_send_chain(ngx_connection_t *c, ngx_chain_t *in,
    off_t limit)
{
    ngx_uint_t       last;
    ngx_chain_t     *cl;
    ngx_ssl_conn_t  *ssl;

    last = 0;

    for (cl = in; cl != NULL; cl = cl->next) {
        last |= cl->buf->last_buf;
    }

    cl = ngx_ssl_send_chain(c, in, limit);

    if (cl != NULL || !last) {
        return cl;
    }

    ssl = c->ssl->connection;

    if (SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN) {
        return NULL;
    }

    if (SSL_shutdown(ssl) < 0) {

        /* not an orderly end then */

        ERR_clear_error();
        ngx_tun_reset_after(c);
    }

    return NULL;
}


static int
ngx_stream_tun_bio_read(BIO *bio, char *buf, int size)
{
    ssize_t  n;

    BIO_clear_flags(bio, BIO_FLAGS_IN_EOF);
    BIO_clear_retry_flags(bio);

    n = ngx_tun_recv(BIO_get_data(bio), (u_char *) buf, size);

    if (n == 0) {
        BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
        ngx_set_errno(0);
        return 0;
    }

    if (n == NGX_AGAIN) {
        BIO_set_retry_read(bio);
        return -1;
    }

    if (n == NGX_ERROR) {
        ngx_set_errno(NGX_ECONNRESET);
        return -1;
    }

    return n;
}


static int
ngx_stream_tun_bio_write(BIO *bio, const char *buf, int size)
{
    ssize_t            n;
    ngx_connection_t  *c;

    BIO_clear_retry_flags(bio);

    c = BIO_get_data(bio);

    /* once it is said to be sent, what is written is the close_notify */

    if (SSL_get_shutdown(c->ssl->connection) & SSL_SENT_SHUTDOWN) {
        n = ngx_tun_send_last(c, (u_char *) buf, size);

    } else {
        n = ngx_tun_send(c, (u_char *) buf, size);
    }

    if (n == NGX_AGAIN) {
        BIO_set_retry_write(bio);
        return -1;
    }

    if (n == NGX_ERROR) {
        ngx_set_errno(NGX_ECONNRESET);
        return -1;
    }

    return n;
}


static long
ngx_stream_tun_bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    switch (cmd) {

    case BIO_CTRL_EOF:
        return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;

    case BIO_CTRL_FLUSH:
        return 1;

    default:
        return 0;
    }
}
