
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <sys/random.h>

#include <ngx_tun_dns_forward.h>


#define NGX_TUN_DNS_RANDOM  512


static ngx_tun_dns_exchange_t *ngx_tun_dns_find_exchange(
    ngx_tun_dns_forwarder_t *fwd, ngx_tun_dns_query_t *query, uint64_t hash);
static ngx_tun_dns_exchange_t *ngx_tun_dns_create_exchange(
    ngx_tun_dns_forwarder_t *fwd, ngx_tun_dns_query_t *query, uint64_t hash);
static ngx_int_t ngx_tun_dns_ask(ngx_tun_dns_exchange_t *ex);
static ngx_int_t ngx_tun_dns_ask_peer(ngx_tun_dns_exchange_t *ex);
static void ngx_tun_dns_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static void ngx_tun_dns_leave_peer(ngx_tun_dns_exchange_t *ex,
    ngx_uint_t state);
static ngx_int_t ngx_tun_dns_random_id(ngx_tun_dns_forwarder_t *fwd,
    ngx_uint_t *id);
static void ngx_tun_dns_udp_handler(ngx_event_t *rev);
static void ngx_tun_dns_failed(ngx_tun_dns_exchange_t *ex,
    ngx_connection_t *c);
static void ngx_tun_dns_empty_handler(ngx_event_t *wev);
static void ngx_tun_dns_done(ngx_tun_dns_exchange_t *ex, u_char *p,
    size_t len);
static ngx_uint_t ngx_tun_dns_is_fake(void *data, u_char *addr,
    size_t addr_len);


ngx_int_t
ngx_tun_dns_init_forwarder(ngx_tun_dns_forwarder_t *fwd, ngx_pool_t *pool)
{
    ngx_uint_t  i;

    fwd->asked = ngx_palloc(pool, NGX_TUN_DNS_BUCKETS * sizeof(ngx_queue_t));
    fwd->kept = ngx_palloc(pool, NGX_TUN_DNS_BUCKETS * sizeof(ngx_queue_t));
    fwd->random = ngx_palloc(pool, NGX_TUN_DNS_RANDOM);

    if (fwd->asked == NULL || fwd->kept == NULL || fwd->random == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < NGX_TUN_DNS_BUCKETS; i++) {
        ngx_queue_init(&fwd->asked[i]);
        ngx_queue_init(&fwd->kept[i]);
    }

    ngx_queue_init(&fwd->lru);

    if (getrandom(fwd->key, NGX_TUN_FAKEIP_KEY_LEN, 0)
        != NGX_TUN_FAKEIP_KEY_LEN)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_int_t
ngx_tun_dns_forward(ngx_tun_dns_forwarder_t *fwd, ngx_tun_dns_query_t *query,
    ngx_tun_dns_waiter_t *waiter, ngx_tun_dns_peer_pt init, void *data)
{
    uint64_t                 hash;
    ngx_tun_dns_exchange_t  *ex;

    hash = ngx_tun_dns_hash(fwd, query);

    ex = ngx_tun_dns_find_exchange(fwd, query, hash);

    if (ex != NULL) {
        ngx_tun_dns_count(fwd->stat, joined);
        ngx_queue_insert_tail(&ex->waiters, &waiter->queue);
        return NGX_OK;
    }

    if (fwd->n >= fwd->max) {
        ngx_tun_dns_count(fwd->stat, limited_forwards);
        return NGX_BUSY;
    }

    ex = ngx_tun_dns_create_exchange(fwd, query, hash);
    if (ex == NULL) {
        return NGX_ERROR;
    }

    if (init(ex, data) != NGX_OK) {
        ngx_tun_dns_done(ex, NULL, 0);
        return NGX_ERROR;
    }

    ex->peer->log = &ex->log;
    ex->peer->log_error = NGX_ERROR_INFO;
    ex->peer->start_time = ngx_current_msec;

    if (ngx_tun_dns_ask(ex) != NGX_OK) {
        ngx_tun_dns_done(ex, NULL, 0);
        return NGX_ERROR;
    }

    ngx_queue_insert_tail(&ex->waiters, &waiter->queue);

    return NGX_OK;
}


void
ngx_tun_dns_leave(ngx_tun_dns_waiter_t *waiter)
{
    ngx_queue_remove(&waiter->queue);
}


static ngx_tun_dns_exchange_t *
ngx_tun_dns_find_exchange(ngx_tun_dns_forwarder_t *fwd,
    ngx_tun_dns_query_t *query, uint64_t hash)
{
    ngx_queue_t             *q, *bucket;
    ngx_tun_dns_exchange_t  *ex;

    bucket = &fwd->asked[hash % NGX_TUN_DNS_BUCKETS];

    for (q = ngx_queue_head(bucket);
         q != ngx_queue_sentinel(bucket);
         q = ngx_queue_next(q))
    {
        ex = ngx_queue_data(q, ngx_tun_dns_exchange_t, queue);

        if (ex->hash == hash && ngx_tun_dns_same(&ex->query, query)) {
            return ex;
        }
    }

    return NULL;
}


static ngx_tun_dns_exchange_t *
ngx_tun_dns_create_exchange(ngx_tun_dns_forwarder_t *fwd,
    ngx_tun_dns_query_t *query, uint64_t hash)
{
    ngx_pool_t              *pool;
    ngx_tun_dns_exchange_t  *ex;

    pool = ngx_create_pool(2048, fwd->log);
    if (pool == NULL) {
        return NULL;
    }

    ex = ngx_pcalloc(pool, sizeof(ngx_tun_dns_exchange_t));
    if (ex == NULL) {
        ngx_destroy_pool(pool);
        return NULL;
    }

    ex->log = *fwd->log;
    ex->log.action = "asking a resolver";
    pool->log = &ex->log;

    ex->fwd = fwd;
    ex->pool = pool;
    ex->hash = hash;
    ex->query = *query;

    ngx_queue_init(&ex->waiters);
    ngx_queue_insert_head(&fwd->asked[hash % NGX_TUN_DNS_BUCKETS],
                          &ex->queue);
    fwd->n++;

    return ex;
}


/* the next server that can be asked; NGX_ERROR: there is none */

static ngx_int_t
ngx_tun_dns_ask(ngx_tun_dns_exchange_t *ex)
{
    ngx_int_t  rc;

    while (ex->tries++ < NGX_TUN_DNS_TRIES) {

        /* all were asked: the last one again, without a note in its record */

        if (ex->peer->tries == 0 && ex->socklen != 0) {
            ex->peer->get = ngx_event_get_peer;
            ex->peer->free = ngx_tun_dns_free_peer;
            ex->peer->sockaddr = &ex->sockaddr.sockaddr;
            ex->peer->socklen = ex->socklen;
        }

        rc = ngx_tun_dns_ask_peer(ex);

        if (rc != NGX_DECLINED) {
            return rc;
        }

        ngx_tun_dns_leave_peer(ex, NGX_PEER_FAILED);
    }

    return NGX_ERROR;
}


static void
ngx_tun_dns_free_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    pc->tries = 0;
}


static void
ngx_tun_dns_leave_peer(ngx_tun_dns_exchange_t *ex, ngx_uint_t state)
{
    ngx_peer_connection_t  *pc;

    pc = ex->peer;

    if (pc == NULL) {
        return;
    }

    if (pc->sockaddr != NULL) {

        if (pc->sockaddr != &ex->sockaddr.sockaddr
            && pc->socklen <= (socklen_t) sizeof(ngx_sockaddr_t))
        {
            ngx_memcpy(&ex->sockaddr, pc->sockaddr, pc->socklen);
            ex->socklen = pc->socklen;
        }

        pc->free(pc, pc->data, state);
        pc->sockaddr = NULL;
    }

    ngx_tun_dns_close(ex);
}


/* NGX_DECLINED: this one cannot be asked */

static ngx_int_t
ngx_tun_dns_ask_peer(ngx_tun_dns_exchange_t *ex)
{
    size_t             len;
    u_char             buf[NGX_TUN_DNS_UPSTREAM_MAX];
    ngx_int_t          rc;
    ngx_connection_t  *c;

    ex->peer->type = SOCK_DGRAM;
    ex->peer->connection = NULL;
    ex->invalid = 0;

    rc = ex->fwd->connect(ex->peer, ex->fwd->options);

    if (rc == NGX_ERROR || rc == NGX_BUSY) {
        return NGX_ERROR;
    }

    if (rc == NGX_DECLINED) {
        return NGX_DECLINED;
    }

    c = ex->peer->connection;

    c->data = ex;
    c->log = &ex->log;
    c->read->log = c->log;
    c->write->log = c->log;
    c->read->handler = ngx_tun_dns_udp_handler;
    c->write->handler = ngx_tun_dns_empty_handler;

    if (ngx_tun_dns_random_id(ex->fwd, &ex->id) != NGX_OK) {
        return NGX_ERROR;
    }

    len = ngx_tun_dns_build_query(&ex->query, buf, ex->id, ex->fwd->tag);

    ngx_tun_dns_count(ex->fwd->stat, upstream_queries);

    if (c->send(c, buf, len) == NGX_ERROR) {
        return NGX_DECLINED;
    }

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_add_timer(c->read, (ex->tries == 1) ? NGX_TUN_DNS_FIRST_TIMEOUT
                                            : NGX_TUN_DNS_NEXT_TIMEOUT);

    return NGX_OK;
}


static ngx_int_t
ngx_tun_dns_random_id(ngx_tun_dns_forwarder_t *fwd, ngx_uint_t *id)
{
    if (fwd->nrandom == 0) {

        if (getrandom(fwd->random, NGX_TUN_DNS_RANDOM, 0)
            != NGX_TUN_DNS_RANDOM)
        {
            return NGX_ERROR;
        }

        fwd->nrandom = NGX_TUN_DNS_RANDOM;
    }

    fwd->nrandom -= 2;
    *id = ngx_tun_dns_get16(fwd->random + fwd->nrandom);

    return NGX_OK;
}


static void
ngx_tun_dns_udp_handler(ngx_event_t *rev)
{
    ssize_t                  n;
    u_char                   buf[NGX_TUN_DNS_MESSAGE_MAX];
    ngx_connection_t        *c;
    ngx_tun_dns_exchange_t  *ex;

    c = rev->data;
    ex = c->data;

    if (rev->timedout) {
        ngx_tun_dns_count(ex->fwd->stat, upstream_timeouts);
        ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT,
                      "resolver %V timed out", ex->peer->name);

        /* it may answer while the next one is asked */

        if (ngx_cycle->free_connection_n > ngx_cycle->connection_n / 4) {
            rev->timedout = 0;

            ex->late[ex->nlate] = c;
            ex->late_ids[ex->nlate] = ex->id;
            ex->nlate++;

            ex->peer->connection = NULL;
        }

        ngx_tun_dns_next(ex, NGX_PEER_FAILED);
        return;
    }

    for ( ;; ) {
        n = c->recv(c, buf, NGX_TUN_DNS_MESSAGE_MAX);

        if (n == NGX_AGAIN) {

            if (ngx_handle_read_event(rev, 0) != NGX_OK) {
                ngx_tun_dns_failed(ex, c);
            }

            return;
        }

        if (n == NGX_ERROR) {
            ngx_tun_dns_failed(ex, c);
            return;
        }

        if (ngx_tun_dns_answered(ex, c, buf, n) == NGX_OK) {
            return;
        }

        /* a guess of somebody else, unless there are too many */

        ngx_tun_dns_count(ex->fwd->stat, upstream_invalid);

        if (++ex->invalid == NGX_TUN_DNS_INVALID) {
            ngx_tun_dns_failed(ex, c);
            return;
        }
    }
}


static void
ngx_tun_dns_failed(ngx_tun_dns_exchange_t *ex, ngx_connection_t *c)
{
    ngx_uint_t  i;

    if (c == ex->peer->connection) {
        ngx_tun_dns_next(ex, NGX_PEER_FAILED);
        return;
    }

    for (i = 0; i < ex->nlate; i++) {

        if (ex->late[i] == c) {
            ngx_close_connection(c);
            ex->late[i] = NULL;
        }
    }
}


static void
ngx_tun_dns_empty_handler(ngx_event_t *wev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_EVENT, wev->log, 0, "tun dns empty handler");
}


/* NGX_DECLINED: it is no answer, and nothing has happened */

ngx_int_t
ngx_tun_dns_answered(ngx_tun_dns_exchange_t *ex, ngx_connection_t *c,
    u_char *p, size_t len)
{
    ngx_uint_t                i, id, good, late;
    ngx_tun_dns_reply_t       reply;
    ngx_tun_dns_forwarder_t  *fwd;

    fwd = ex->fwd;
    id = ex->id;
    late = 0;

    for (i = 0; i < ex->nlate; i++) {

        if (ex->late[i] == c) {
            id = ex->late_ids[i];
            late = 1;
        }
    }

    if (ngx_tun_dns_check_reply(&reply, &ex->query, id, p, p + len,
                                ngx_tun_dns_is_fake, fwd)
        != NGX_OK)
    {
        return NGX_DECLINED;
    }

    good = (reply.rcode == NGX_TUN_DNS_NOERROR
            || reply.rcode == NGX_TUN_DNS_NXDOMAIN);

    if (late && (!good || reply.truncated)) {
        return NGX_DECLINED;
    }

    if (reply.truncated) {

        if (ex->peer->type == SOCK_STREAM) {
            return NGX_DECLINED;
        }

        if (ngx_tun_dns_ask_tcp(ex) != NGX_OK) {
            ngx_tun_dns_next(ex, NGX_PEER_FAILED);
        }

        return NGX_OK;
    }

    if (reply.fake && fwd->warned != ngx_time()) {
        fwd->warned = ngx_time();
        ngx_log_error(NGX_LOG_WARN, &ex->log, 0,
                      "resolver %V answered with an address of the fake-IP "
                      "zone, is it behind this server?", ex->peer->name);
    }

    /* another server may know better */

    if (!good && ex->peer->tries > 1 && ex->tries < NGX_TUN_DNS_TRIES) {
        ex->answer = ngx_pnalloc(ex->pool, len);

        if (ex->answer != NULL) {
            ngx_memcpy(ex->answer, p, len);
            ex->answer_len = len;
        }

        ngx_tun_dns_next(ex, NGX_PEER_NEXT);
        return NGX_OK;
    }

    ngx_tun_dns_keep(fwd, &ex->query, p, len, reply.ttl);
    ngx_tun_dns_done(ex, p, len);

    return NGX_OK;
}


void
ngx_tun_dns_next(ngx_tun_dns_exchange_t *ex, ngx_uint_t state)
{
    ngx_tun_dns_leave_peer(ex, state);

    if (ngx_tun_dns_ask(ex) != NGX_OK) {
        ngx_tun_dns_done(ex, ex->answer, ex->answer_len);
    }
}


void
ngx_tun_dns_close(ngx_tun_dns_exchange_t *ex)
{
    if (ex->peer->connection != NULL) {
        ngx_close_connection(ex->peer->connection);
        ex->peer->connection = NULL;
    }
}


/* from now on it is not known any more, whatever the waiters do */

static void
ngx_tun_dns_done(ngx_tun_dns_exchange_t *ex, u_char *p, size_t len)
{
    ngx_uint_t             i;
    ngx_queue_t           *q;
    ngx_tun_dns_waiter_t  *waiter;

    ngx_tun_dns_leave_peer(ex, 0);

    for (i = 0; i < ex->nlate; i++) {

        if (ex->late[i] != NULL) {
            ngx_close_connection(ex->late[i]);
        }
    }

    ngx_queue_remove(&ex->queue);
    ex->fwd->n--;

    while (!ngx_queue_empty(&ex->waiters)) {
        q = ngx_queue_head(&ex->waiters);
        ngx_queue_remove(q);

        waiter = ngx_queue_data(q, ngx_tun_dns_waiter_t, queue);
        waiter->handler(waiter, p, len);
    }

    ngx_destroy_pool(ex->pool);
}


static ngx_uint_t
ngx_tun_dns_is_fake(void *data, u_char *addr, size_t addr_len)
{
    ngx_tun_dns_forwarder_t *fwd = data;

    uint32_t  index;

    return ngx_tun_fakeip_index(fwd->fip, addr, addr_len, &index) == NGX_OK;
}
