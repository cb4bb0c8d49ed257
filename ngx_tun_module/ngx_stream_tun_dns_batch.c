
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_dns.h>


/*
 * A listening socket is read in batches, and questions are answered without
 * a connection of nginx each: the phases, the variables and the log see a
 * session that is made once.  What has to wait for a resolver gets a session
 * of its own, as it would have without all this.
 */


#define NGX_STREAM_TUN_DNS_BATCH   64
#define NGX_STREAM_TUN_DNS_ROUNDS  8
#define NGX_STREAM_TUN_DNS_QUERY   2048


struct ngx_stream_tun_dns_batch_s {
    ngx_connection_t             c;
    ngx_event_t                  read;
    ngx_event_t                  write;
    ngx_log_t                    log;
    ngx_stream_session_t         s;
    ngx_stream_tun_dns_ctx_t     dns;
    void                       **ctx;
    ngx_stream_variable_value_t *variables;
    u_char                       addr_text[NGX_SOCKADDR_STRLEN];
    ngx_sockaddr_t               last;       /* whose text it is */

    ngx_uint_t                   n;          /* answers */
    struct mmsghdr               in[NGX_STREAM_TUN_DNS_BATCH];
    struct mmsghdr               out[NGX_STREAM_TUN_DNS_BATCH];
    struct iovec                 in_iov[NGX_STREAM_TUN_DNS_BATCH];
    struct iovec                 out_iov[NGX_STREAM_TUN_DNS_BATCH];
    ngx_sockaddr_t               sockaddr[NGX_STREAM_TUN_DNS_BATCH];
    u_char                       query[NGX_STREAM_TUN_DNS_BATCH]
                                      [NGX_STREAM_TUN_DNS_QUERY];
    u_char                       answer[NGX_STREAM_TUN_DNS_BATCH]
                                       [2 + NGX_TUN_DNS_UDP_MAX];
};


static ngx_uint_t ngx_stream_tun_dns_known_modules(ngx_cycle_t *cycle);
static ngx_stream_addr_conf_t *ngx_stream_tun_dns_addr_conf(
    ngx_listening_t *ls);
static ngx_stream_tun_dns_batch_t *ngx_stream_tun_dns_create_batch(
    ngx_cycle_t *cycle);
static void ngx_stream_tun_dns_batch_handler(ngx_event_t *ev);
static void ngx_stream_tun_dns_batch_begin(ngx_stream_tun_dns_batch_t *batch,
    ngx_connection_t *lc);
static void ngx_stream_tun_dns_batch_answer(ngx_stream_tun_dns_batch_t *batch,
    ngx_connection_t *lc, ngx_uint_t i);
static void ngx_stream_tun_dns_batch_session(
    ngx_stream_tun_dns_batch_t *batch, struct mmsghdr *msg);
static ngx_int_t ngx_stream_tun_dns_batch_phases(ngx_stream_session_t *s);
static void ngx_stream_tun_dns_batch_log(ngx_stream_session_t *s);
static void ngx_stream_tun_dns_batch_end(ngx_stream_tun_dns_batch_t *batch);
static void ngx_stream_tun_dns_batch_send(ngx_stream_tun_dns_batch_t *batch,
    ngx_socket_t fd);
static void ngx_stream_tun_dns_batch_connection(ngx_connection_t *lc,
    struct mmsghdr *msg);
static ssize_t ngx_stream_tun_dns_recv(ngx_connection_t *c, u_char *buf,
    size_t size);
static u_char *ngx_stream_tun_dns_log_error(ngx_log_t *log, u_char *buf,
    size_t len);


/* modules that never wait before the content: others need a session */

static const char  *const ngx_stream_tun_dns_modules[] = {
    "ngx_stream_core_module",
    "ngx_stream_log_module",
    "ngx_stream_proxy_module",
    "ngx_stream_upstream_",
    "ngx_stream_write_filter_module",
    "ngx_stream_ssl_module",
    "ngx_stream_ssl_preread_module",
    "ngx_stream_limit_conn_module",
    "ngx_stream_access_module",
    "ngx_stream_geo_module",
    "ngx_stream_geoip_module",
    "ngx_stream_map_module",
    "ngx_stream_split_clients_module",
    "ngx_stream_return_module",
    "ngx_stream_pass_module",
    "ngx_stream_set_module",
    "ngx_stream_realip_module",
    "ngx_stream_tun_",
    NULL
};


ngx_int_t
ngx_stream_tun_dns_init_batches(ngx_cycle_t *cycle,
    ngx_stream_tun_dns_main_conf_t *dmcf)
{
    ngx_uint_t                      i;
    ngx_listening_t                *ls;
    ngx_stream_addr_conf_t         *addr_conf;
    ngx_stream_conf_ctx_t          *ctx;
    ngx_stream_tun_dns_srv_conf_t  *dscf;

    if (!ngx_stream_tun_dns_known_modules(cycle)) {
        return NGX_OK;
    }

    ls = cycle->listening.elts;

    for (i = 0; i < cycle->listening.nelts; i++) {

        /* one of any address has to answer from the one that was asked */

        if (ls[i].type != SOCK_DGRAM || ls[i].wildcard
            || ls[i].handler != ngx_stream_init_connection
            || ls[i].connection == NULL)
        {
            continue;
        }

        addr_conf = ngx_stream_tun_dns_addr_conf(&ls[i]);

        if (addr_conf == NULL || addr_conf->proxy_protocol) {
            continue;
        }

        ctx = ngx_stream_tun_dns_conf_ctx(addr_conf);
        dscf = ctx->srv_conf[ngx_stream_tun_dns_module.ctx_index];

        if (dscf->zone == NULL) {
            continue;
        }

        if (dmcf->batch == NULL) {
            dmcf->batch = ngx_stream_tun_dns_create_batch(cycle);
            if (dmcf->batch == NULL) {
                return NGX_ERROR;
            }
        }

        ls[i].connection->read->handler = ngx_stream_tun_dns_batch_handler;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_stream_tun_dns_known_modules(ngx_cycle_t *cycle)
{
    size_t       len;
    ngx_uint_t   i, n;
    const char  *name;

    for (i = 0; cycle->modules[i] != NULL; i++) {

        if (cycle->modules[i]->type != NGX_STREAM_MODULE) {
            continue;
        }

        for (n = 0; ngx_stream_tun_dns_modules[n] != NULL; n++) {
            name = ngx_stream_tun_dns_modules[n];
            len = ngx_strlen(name);

            if (ngx_strncmp(cycle->modules[i]->name, name,
                            (name[len - 1] == '_') ? len : len + 1)
                == 0)
            {
                break;
            }
        }

        if (ngx_stream_tun_dns_modules[n] == NULL) {
            ngx_log_error(NGX_LOG_INFO, cycle->log, 0,
                          "module \"%s\" needs a session for each DNS query",
                          cycle->modules[i]->name);
            return 0;
        }
    }

    return 1;
}


static ngx_stream_addr_conf_t *
ngx_stream_tun_dns_addr_conf(ngx_listening_t *ls)
{
    ngx_stream_port_t     *port;
    ngx_stream_in_addr_t  *addr;
#if (NGX_HAVE_INET6)
    ngx_stream_in6_addr_t *addr6;
#endif

    port = ls->servers;

    if (port->naddrs != 1) {
        return NULL;
    }

#if (NGX_HAVE_INET6)

    if (ls->sockaddr->sa_family == AF_INET6) {
        addr6 = port->addrs;
        return &addr6->conf;
    }

#endif

    if (ls->sockaddr->sa_family != AF_INET) {
        return NULL;
    }

    addr = port->addrs;

    return &addr->conf;
}


static ngx_stream_tun_dns_batch_t *
ngx_stream_tun_dns_create_batch(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i;
    ngx_stream_core_main_conf_t  *cmcf;
    ngx_stream_tun_dns_batch_t   *batch;

    cmcf = ngx_stream_cycle_get_module_main_conf(cycle,
                                                 ngx_stream_core_module);

    batch = ngx_pcalloc(cycle->pool, sizeof(ngx_stream_tun_dns_batch_t));
    if (batch == NULL) {
        return NULL;
    }

    batch->ctx = ngx_palloc(cycle->pool,
                            sizeof(void *) * ngx_stream_max_module);
    batch->variables = ngx_palloc(cycle->pool, cmcf->variables.nelts
                                         * sizeof(ngx_stream_variable_value_t));

    if (batch->ctx == NULL || batch->variables == NULL) {
        return NULL;
    }

    for (i = 0; i < NGX_STREAM_TUN_DNS_BATCH; i++) {
        batch->in_iov[i].iov_base = batch->query[i];
        batch->in_iov[i].iov_len = NGX_STREAM_TUN_DNS_QUERY;
        batch->in[i].msg_hdr.msg_iov = &batch->in_iov[i];
        batch->in[i].msg_hdr.msg_iovlen = 1;
        batch->in[i].msg_hdr.msg_name = &batch->sockaddr[i];

        batch->out[i].msg_hdr.msg_iov = &batch->out_iov[i];
        batch->out[i].msg_hdr.msg_iovlen = 1;
    }

    return batch;
}


static void
ngx_stream_tun_dns_batch_handler(ngx_event_t *ev)
{
    int                              n;
    ngx_err_t                        err;
    ngx_uint_t                       i, round;
    ngx_connection_t                *lc;
    ngx_stream_tun_dns_batch_t      *batch;
    ngx_stream_tun_dns_main_conf_t  *dmcf;

    lc = ev->data;
    ev->ready = 0;

    dmcf = ngx_stream_cycle_get_module_main_conf(ngx_cycle,
                                                 ngx_stream_tun_dns_module);
    batch = dmcf->batch;

    for (round = 0; round < NGX_STREAM_TUN_DNS_ROUNDS; round++) {

        for (i = 0; i < NGX_STREAM_TUN_DNS_BATCH; i++) {
            batch->in[i].msg_hdr.msg_namelen = sizeof(ngx_sockaddr_t);
        }

        n = recvmmsg(lc->fd, batch->in, NGX_STREAM_TUN_DNS_BATCH, 0, NULL);

        if (n == -1) {
            err = ngx_socket_errno;

            if (err != NGX_EAGAIN) {
                ngx_log_error(NGX_LOG_INFO, ev->log, err,
                              "recvmmsg() failed");
            }

            return;
        }

        ngx_stream_tun_dns_batch_begin(batch, lc);

        for (i = 0; i < (ngx_uint_t) n; i++) {
            ngx_stream_tun_dns_batch_answer(batch, lc, i);
        }

        ngx_stream_tun_dns_batch_send(batch, lc->fd);

        if (n < NGX_STREAM_TUN_DNS_BATCH) {
            return;
        }
    }
}


/* what is the same for all that came to a socket */

static void
ngx_stream_tun_dns_batch_begin(ngx_stream_tun_dns_batch_t *batch,
    ngx_connection_t *lc)
{
    ngx_connection_t            *c;
    ngx_listening_t             *ls;
    ngx_stream_session_t        *s;
    ngx_stream_conf_ctx_t       *ctx;
    ngx_stream_core_srv_conf_t  *cscf;

    ls = lc->listening;
    c = &batch->c;
    s = &batch->s;

    ctx = ngx_stream_tun_dns_conf_ctx(ngx_stream_tun_dns_addr_conf(ls));

    ngx_memzero(c, offsetof(ngx_connection_t, pool));

    c->data = s;
    c->read = &batch->read;
    c->write = &batch->write;
    c->fd = lc->fd;
    c->listening = ls;
    c->type = SOCK_DGRAM;
    c->shared = 1;
    c->local_sockaddr = ls->sockaddr;
    c->local_socklen = ls->socklen;
    c->addr_text.data = batch->addr_text;
    c->log = &batch->log;

    batch->log = ls->log;
    batch->read.log = c->log;
    batch->write.log = c->log;
    batch->read.data = c;
    batch->write.data = c;

    s->signature = NGX_STREAM_MODULE;
    s->main_conf = ctx->main_conf;
    s->srv_conf = ctx->srv_conf;
    s->ctx = batch->ctx;
    s->variables = batch->variables;
    s->connection = c;

    cscf = ngx_stream_get_module_srv_conf(s, ngx_stream_core_module);

    ngx_set_connection_log(c, cscf->error_log);

    batch->log.handler = ngx_stream_tun_dns_log_error;
    batch->log.data = c;
    batch->log.action = "answering DNS queries";
}


static void
ngx_stream_tun_dns_batch_answer(ngx_stream_tun_dns_batch_t *batch,
    ngx_connection_t *lc, ngx_uint_t i)
{
    size_t                  len;
    u_char                 *answer, *buf;
    ngx_int_t               rc;
    struct msghdr          *out;
    ngx_stream_session_t   *s;

    s = &batch->s;

    if (batch->in[i].msg_hdr.msg_flags & MSG_TRUNC) {
        return;
    }

    if (batch->c.pool == NULL) {
        batch->c.pool = ngx_create_pool(4096, &batch->log);

        if (batch->c.pool == NULL) {
            return;
        }
    }

    ngx_stream_tun_dns_batch_session(batch, &batch->in[i]);

    len = 0;
    rc = ngx_stream_tun_dns_batch_phases(s);

    if (rc == NGX_OK) {
        rc = ngx_stream_tun_dns_init_ctx(&batch->dns, s);
    }

    if (rc == NGX_OK) {
        s->status = NGX_STREAM_OK;
        buf = batch->answer[batch->n];

        rc = ngx_stream_tun_dns_answer(&batch->dns, batch->query[i],
                                       batch->query[i] + batch->in[i].msg_len,
                                       buf, &answer, &len);

        if (rc == NGX_DONE) {
            ngx_stream_tun_dns_batch_end(batch);
            ngx_stream_tun_dns_batch_connection(lc, &batch->in[i]);
            return;
        }

        if (rc == NGX_OK && len <= NGX_TUN_DNS_UDP_MAX) {

            if (answer != buf + 2) {
                ngx_memcpy(buf + 2, answer, len);
            }

            out = &batch->out[batch->n].msg_hdr;
            out->msg_name = batch->in[i].msg_hdr.msg_name;
            out->msg_namelen = batch->in[i].msg_hdr.msg_namelen;

            batch->out_iov[batch->n].iov_base = buf + 2;
            batch->out_iov[batch->n].iov_len = len;
            batch->n++;

            batch->c.sent = len;
        }
    }

    ngx_stream_tun_dns_batch_log(s);
    ngx_stream_tun_dns_batch_end(batch);
}


static void
ngx_stream_tun_dns_batch_session(ngx_stream_tun_dns_batch_t *batch,
    struct mmsghdr *msg)
{
    ngx_time_t                   *tp;
    ngx_connection_t             *c;
    ngx_stream_session_t         *s;
    ngx_stream_core_main_conf_t  *cmcf;

    c = &batch->c;
    s = &batch->s;
    tp = ngx_timeofday();

    c->sockaddr = msg->msg_hdr.msg_name;
    c->socklen = msg->msg_hdr.msg_namelen;
    c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);
    c->start_time = ngx_current_msec;
    c->sent = 0;
    c->log->connection = c->number;

    if (ngx_memcmp(&batch->last, c->sockaddr, c->socklen) != 0) {
        c->addr_text.len = ngx_sock_ntop(c->sockaddr, c->socklen,
                                         batch->addr_text,
                                         NGX_SOCKADDR_STRLEN, 0);
        ngx_memcpy(&batch->last, c->sockaddr, c->socklen);
    }

    cmcf = ngx_stream_get_module_main_conf(s, ngx_stream_core_module);

    ngx_memzero(s->ctx, sizeof(void *) * ngx_stream_max_module);
    ngx_memzero(s->variables,
                cmcf->variables.nelts * sizeof(ngx_stream_variable_value_t));

    s->received = msg->msg_len;
    s->start_sec = tp->sec;
    s->start_msec = tp->msec;
    s->status = 0;
    s->limit_conn_status = 0;
    s->upstream = NULL;
    s->upstream_states = NULL;

#if (NGX_PCRE)
    s->ncaptures = 0;
    s->captures = NULL;
#endif
}


/* as ngx_stream_core_run_phases() does, up to the content */

static ngx_int_t
ngx_stream_tun_dns_batch_phases(ngx_stream_session_t *s)
{
    ngx_int_t                     rc;
    ngx_uint_t                    i, n;
    ngx_stream_handler_pt        *h;
    ngx_stream_core_main_conf_t  *cmcf;

    cmcf = ngx_stream_get_module_main_conf(s, ngx_stream_core_module);

    for (i = NGX_STREAM_POST_ACCEPT_PHASE; i <= NGX_STREAM_ACCESS_PHASE; i++) {
        h = cmcf->phases[i].handlers.elts;

        for (n = cmcf->phases[i].handlers.nelts; n; n--) {
            rc = h[n - 1](s);

            if (rc == NGX_OK) {
                break;
            }

            if (rc != NGX_DECLINED) {
                s->status = (rc > 0) ? rc : NGX_STREAM_INTERNAL_SERVER_ERROR;
                return NGX_DECLINED;
            }
        }
    }

    return NGX_OK;
}


static void
ngx_stream_tun_dns_batch_log(ngx_stream_session_t *s)
{
    ngx_uint_t                    i;
    ngx_stream_handler_pt        *h;
    ngx_stream_core_main_conf_t  *cmcf;

    cmcf = ngx_stream_get_module_main_conf(s, ngx_stream_core_module);
    h = cmcf->phases[NGX_STREAM_LOG_PHASE].handlers.elts;

    for (i = 0; i < cmcf->phases[NGX_STREAM_LOG_PHASE].handlers.nelts; i++) {
        (void) h[i](s);
    }
}


/* limits hold a client by a cleanup, as long as its session */

static void
ngx_stream_tun_dns_batch_end(ngx_stream_tun_dns_batch_t *batch)
{
    ngx_pool_t  *pool;

    pool = batch->c.pool;

    if (pool->cleanup != NULL || pool->d.next != NULL) {
        ngx_destroy_pool(pool);
        batch->c.pool = NULL;
        return;
    }

    ngx_reset_pool(pool);
}


/* what cannot be sent now is lost, as any datagram may be */

static void
ngx_stream_tun_dns_batch_send(ngx_stream_tun_dns_batch_t *batch,
    ngx_socket_t fd)
{
    int         n;
    ngx_uint_t  sent;

    for (sent = 0; sent < batch->n; /* void */ ) {
        n = sendmmsg(fd, batch->out + sent, batch->n - sent, 0);

        /* an error is of the first one */

        sent += (n > 0) ? n : 1;
    }

    batch->n = 0;
}


/* a question that has to wait */

static void
ngx_stream_tun_dns_batch_connection(ngx_connection_t *lc, struct mmsghdr *msg)
{
    ngx_log_t                       *log;
    ngx_listening_t                 *ls;
    ngx_connection_t                *c;
    ngx_stream_tun_dns_main_conf_t  *dmcf;

    ls = lc->listening;

    dmcf = ngx_stream_cycle_get_module_main_conf(ngx_cycle,
                                                 ngx_stream_tun_dns_module);

    /* as when connections are accepted, some are left for upstreams */

    if (ngx_cycle->free_connection_n < ngx_cycle->connection_n / 8) {
        ngx_tun_dns_count(dmcf->batch->dns.zone->stat, limited_forwards);
        return;
    }

    c = ngx_get_connection(lc->fd, &ls->log);
    if (c == NULL) {
        return;
    }

    c->shared = 1;
    c->type = SOCK_DGRAM;
    c->socklen = msg->msg_hdr.msg_namelen;

    c->pool = ngx_create_pool(ls->pool_size, &ls->log);
    if (c->pool == NULL) {
        goto failed;
    }

    log = ngx_palloc(c->pool, sizeof(ngx_log_t));
    c->sockaddr = ngx_palloc(c->pool, c->socklen);
    c->buffer = ngx_create_temp_buf(c->pool, ngx_max(msg->msg_len, 1));
    c->addr_text.data = ngx_pnalloc(c->pool, ls->addr_text_max_len);

    if (log == NULL || c->sockaddr == NULL || c->buffer == NULL
        || c->addr_text.data == NULL)
    {
        goto failed;
    }

    *log = ls->log;
    log->data = NULL;
    log->handler = NULL;

    ngx_memcpy(c->sockaddr, msg->msg_hdr.msg_name, c->socklen);
    c->buffer->last = ngx_cpymem(c->buffer->last,
                                 msg->msg_hdr.msg_iov->iov_base, msg->msg_len);
    c->addr_text.len = ngx_sock_ntop(c->sockaddr, c->socklen,
                                     c->addr_text.data,
                                     ls->addr_text_max_len, 0);

    c->recv = ngx_stream_tun_dns_recv;
    c->send = ngx_udp_send;
    c->send_chain = ngx_udp_send_chain;
    c->log = log;
    c->pool->log = log;
    c->listening = ls;
    c->local_sockaddr = ls->sockaddr;
    c->local_socklen = ls->socklen;
    c->read->active = 1;
    c->write->ready = 1;
    c->read->log = log;
    c->write->log = log;
    c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);
    c->start_time = ngx_current_msec;

#if (NGX_STAT_STUB)
    (void) ngx_atomic_fetch_add(ngx_stat_accepted, 1);
    (void) ngx_atomic_fetch_add(ngx_stat_active, 1);
    (void) ngx_atomic_fetch_add(ngx_stat_handled, 1);
#endif

    /* it was counted, and limited */

    dmcf->again = 1;

    ls->handler(c);

    dmcf->again = 0;

    return;

failed:

    if (c->pool != NULL) {
        ngx_destroy_pool(c->pool);
    }

    ngx_free_connection(c);
    c->fd = (ngx_socket_t) -1;
}


/* what comes from the same port is not for this session */

static ssize_t
ngx_stream_tun_dns_recv(ngx_connection_t *c, u_char *buf, size_t size)
{
    return NGX_AGAIN;
}


static u_char *
ngx_stream_tun_dns_log_error(ngx_log_t *log, u_char *buf, size_t len)
{
    ngx_connection_t  *c;

    c = log->data;

    return ngx_snprintf(buf, len, " while %s, udp client: %V, server: %V",
                        log->action, &c->addr_text, &c->listening->addr_text);
}
