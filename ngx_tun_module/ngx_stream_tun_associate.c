
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_relay.h>
#include <ngx_stream_tun_upstream.h>


/* datagrams that wait for the association */
#define NGX_STREAM_TUN_ASSOCIATE_WAITING  16


/* a datagram with its header */

typedef struct {
    ngx_queue_t                      queue;
    ngx_tun_datagram_t               datagram;   /* of the client, its data */
    u_char                          *data;
    size_t                           len;
} ngx_stream_tun_associate_wait_t;


struct ngx_stream_tun_associate_s {
    ngx_stream_tun_relay_t          *relay;
    ngx_stream_upstream_srv_conf_t  *upstream;
    ngx_stream_tun_peer_t           *peer;

    ngx_sockaddr_t                   sa;         /* of the proxy's socket */
    socklen_t                        socklen;
    ngx_queue_t                      waiting;
    ngx_uint_t                       nwaiting;
    unsigned                         ready:1;
};


static ngx_int_t ngx_stream_tun_associate_init(
    ngx_stream_tun_associate_t *as);
static ngx_int_t ngx_stream_tun_associate_connect(
    ngx_stream_tun_associate_t *as);
static ngx_int_t ngx_stream_tun_associate_state(ngx_stream_session_t *s);
static void ngx_stream_tun_associate_handler(ngx_event_t *ev);
static void ngx_stream_tun_associate_unconnected(ngx_connection_t *pc);
static ngx_int_t ngx_stream_tun_associate_next(ngx_stream_tun_associate_t *as);
static void ngx_stream_tun_associate_free(ngx_stream_tun_associate_t *as,
    ngx_uint_t state);
static void ngx_stream_tun_associate_refuse(ngx_stream_tun_associate_t *as);
static void ngx_stream_tun_associate_done(ngx_stream_tun_associate_t *as);
static ngx_int_t ngx_stream_tun_associate_address(
    ngx_stream_tun_associate_t *as);
static ngx_int_t ngx_stream_tun_associate_open(ngx_stream_tun_associate_t *as);
static void ngx_stream_tun_associate_read_handler(ngx_event_t *rev);
static void ngx_stream_tun_associate_write_handler(ngx_event_t *wev);

static void ngx_stream_tun_associate_wait(ngx_stream_tun_associate_t *as,
    ngx_stream_tun_destination_t *dst, ngx_tun_datagram_t *datagram);
static void ngx_stream_tun_associate_output(ngx_stream_tun_associate_t *as,
    u_char *data, size_t len);
static ngx_int_t ngx_stream_tun_associate_source(
    ngx_stream_tun_associate_t *as, ngx_tun_datagram_t *datagram,
    ngx_stream_tun_destination_t *src);
static ngx_stream_tun_relay_name_t *ngx_stream_tun_associate_name(
    ngx_stream_tun_relay_t *relay, ngx_str_t *text, in_port_t port);


ngx_int_t
ngx_stream_tun_associate(ngx_stream_tun_relay_t *relay,
    ngx_stream_upstream_srv_conf_t *uscf)
{
    ngx_stream_session_t            *s;
    ngx_stream_tun_associate_t      *as;
    ngx_stream_tun_upstream_conf_t  *tucf;

    s = relay->session;
    tucf = ngx_stream_conf_upstream_srv_conf(uscf,
                                             ngx_stream_tun_upstream_module);

    if (tucf->handshake->no_udp) {
        ngx_log_error(NGX_LOG_INFO, s->connection->log, 0,
                      "no UDP by upstream \"%V\"", &uscf->host);
        return NGX_ERROR;
    }

    as = ngx_pcalloc(s->connection->pool, sizeof(ngx_stream_tun_associate_t));
    if (as == NULL) {
        return NGX_ERROR;
    }

    as->relay = relay;
    as->upstream = uscf;
    ngx_queue_init(&as->waiting);

    as->peer = ngx_stream_tun_create_peer(s, tucf);

    if (as->peer == NULL || ngx_stream_tun_associate_init(as) != NGX_OK) {
        return NGX_ERROR;
    }

    relay->associate = as;

    return ngx_stream_tun_associate_connect(as);
}


/* what the proxy module has for a balancer, and for its variables */

static ngx_int_t
ngx_stream_tun_associate_init(ngx_stream_tun_associate_t *as)
{
    ngx_connection_t       *c;
    ngx_stream_session_t   *s;
    ngx_stream_upstream_t  *u;

    s = as->relay->session;
    c = s->connection;

    u = ngx_pcalloc(c->pool, sizeof(ngx_stream_upstream_t));
    if (u == NULL) {
        return NGX_ERROR;
    }

    s->upstream = u;

    s->upstream_states = ngx_array_create(c->pool, 1,
                                          sizeof(ngx_stream_upstream_state_t));
    if (s->upstream_states == NULL) {
        return NGX_ERROR;
    }

    u->peer.log = c->log;
    u->peer.log_error = NGX_ERROR_ERR;
    u->peer.type = SOCK_STREAM;
    u->peer.start_time = ngx_current_msec;
    u->start_sec = ngx_time();
    u->upstream = as->upstream;

    if (as->peer->conf->init(s, as->upstream) != NGX_OK) {
        return NGX_ERROR;
    }

    as->peer->get = u->peer.get;

    return NGX_OK;
}


/* NGX_ERROR: there is no peer left */

static ngx_int_t
ngx_stream_tun_associate_connect(ngx_stream_tun_associate_t *as)
{
    ngx_int_t              rc;
    ngx_connection_t      *c, *pc;
    ngx_stream_session_t  *s;

    s = as->relay->session;
    c = s->connection;

    if (ngx_stream_tun_next_try(as->peer) != NGX_OK
        || ngx_stream_tun_associate_state(s) != NGX_OK)
    {
        return NGX_ERROR;
    }

    c->log->action = "connecting to upstream";

    rc = ngx_stream_tun_connect_peer(as->peer);

    s->upstream->state->peer = s->upstream->peer.name;

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_BUSY) {
        ngx_log_error(NGX_LOG_ERR, c->log, 0, "no live upstreams");
        return NGX_ERROR;
    }

    if (rc == NGX_DECLINED) {
        return ngx_stream_tun_associate_next(as);
    }

    pc = s->upstream->peer.connection;

    pc->data = s;
    pc->log = c->log;
    pc->pool = c->pool;
    pc->read->log = c->log;
    pc->write->log = c->log;

    as->peer->connect = ngx_stream_tun_associate_handler;

    ngx_stream_tun_start_handshake(as->peer);

    ngx_add_timer(pc->write, as->peer->conf->handshake->timeout);

    if (rc == NGX_OK) {
        ngx_post_event(pc->write, &ngx_posted_events);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_associate_state(ngx_stream_session_t *s)
{
    ngx_stream_upstream_state_t  *state;

    state = ngx_array_push(s->upstream_states);
    if (state == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(state, sizeof(ngx_stream_upstream_state_t));

    state->connect_time = (ngx_msec_t) -1;
    state->first_byte_time = (ngx_msec_t) -1;
    state->response_time = ngx_current_msec;

    s->upstream->state = state;

    return NGX_OK;
}


/* called by the handshake, when it is done, and when the peer has failed */

static void
ngx_stream_tun_associate_handler(ngx_event_t *ev)
{
    ngx_connection_t            *pc;
    ngx_stream_session_t        *s;
    ngx_stream_tun_ctx_t        *ctx;
    ngx_stream_tun_associate_t  *as;

    pc = ev->data;
    s = pc->data;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_module);
    as = ctx->relay->associate;

    if (as->peer->state == NGX_STREAM_TUN_HANDSHAKE_DONE) {
        ngx_stream_tun_associate_done(as);
        return;
    }

    ngx_stream_tun_associate_unconnected(pc);

    if (ngx_stream_tun_associate_next(as) != NGX_OK) {
        ngx_stream_tun_associate_refuse(as);
    }
}


/* what failed in the handshake is in the log already */

static void
ngx_stream_tun_associate_unconnected(ngx_connection_t *pc)
{
    int        err;
    socklen_t  len;

    if (pc->write->timedout) {
        ngx_log_error(NGX_LOG_ERR, pc->log, NGX_ETIMEDOUT,
                      "upstream timed out");
        return;
    }

    err = 0;
    len = sizeof(int);

    if (getsockopt(pc->fd, SOL_SOCKET, SO_ERROR, &err, &len) == -1) {
        err = ngx_socket_errno;
    }

    (void) ngx_connection_error(pc, err, "connect() failed");
}


static ngx_int_t
ngx_stream_tun_associate_next(ngx_stream_tun_associate_t *as)
{
    ngx_uint_t              state;
    ngx_stream_upstream_t  *u;

    /* who takes no datagrams is good for connections */

    state = (as->peer->code == NGX_STREAM_TUN_SOCKS5_UNSUPPORTED)
            ? 0 : NGX_PEER_FAILED;

    ngx_stream_tun_associate_free(as, state);

    u = as->relay->session->upstream;

    return (u->peer.tries == 0) ? NGX_ERROR
                                : ngx_stream_tun_associate_connect(as);
}


static void
ngx_stream_tun_associate_free(ngx_stream_tun_associate_t *as, ngx_uint_t state)
{
    ngx_stream_upstream_t  *u;

    u = as->relay->session->upstream;

    if (u->state != NULL && u->peer.connection != NULL) {
        u->state->response_time = ngx_current_msec - u->state->response_time;
        u->state = NULL;
    }

    if (u->peer.sockaddr != NULL) {
        u->peer.free(&u->peer, u->peer.data, state);
        u->peer.sockaddr = NULL;
    }

    if (u->peer.connection != NULL) {
        ngx_close_connection(u->peer.connection);
        u->peer.connection = NULL;
    }
}


static void
ngx_stream_tun_associate_refuse(ngx_stream_tun_associate_t *as)
{
    ngx_queue_t                      *q;
    ngx_stream_session_t             *s;
    ngx_stream_tun_ctx_t             *ctx;
    ngx_stream_tun_associate_wait_t  *wait;

    s = as->relay->session;
    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_module);

    for (q = ngx_queue_head(&as->waiting);
         q != ngx_queue_sentinel(&as->waiting);
         q = ngx_queue_next(q))
    {
        wait = ngx_queue_data(q, ngx_stream_tun_associate_wait_t, queue);

        ngx_tun_refuse_datagram(s->connection, &wait->datagram,
                                NGX_TUN_ICMP_PORT_UNREACHABLE);
        ctx->refused = 1;
    }

    ngx_stream_tun_relay_finalize(as->relay, NGX_STREAM_BAD_GATEWAY);
}


static void
ngx_stream_tun_associate_done(ngx_stream_tun_associate_t *as)
{
    ngx_queue_t                      *q;
    ngx_connection_t                 *pc;
    ngx_stream_upstream_t            *u;
    ngx_stream_tun_associate_wait_t  *wait;

    u = as->relay->session->upstream;
    pc = u->peer.connection;

    if (ngx_stream_tun_associate_address(as) != NGX_OK) {

        if (ngx_stream_tun_associate_next(as) != NGX_OK) {
            ngx_stream_tun_associate_refuse(as);
        }

        return;
    }

    if (ngx_stream_tun_associate_open(as) != NGX_OK) {
        ngx_stream_tun_associate_refuse(as);
        return;
    }

    u->connected = 1;
    u->state->connect_time = ngx_current_msec - u->state->response_time;

    if (pc->write->timer_set) {
        ngx_del_timer(pc->write);
    }

    pc->read->handler = ngx_stream_tun_associate_read_handler;
    pc->write->handler = ngx_stream_tun_associate_write_handler;

    as->relay->session->connection->log->action = "relaying datagrams";
    as->ready = 1;

    while (!ngx_queue_empty(&as->waiting)) {
        q = ngx_queue_head(&as->waiting);
        wait = ngx_queue_data(q, ngx_stream_tun_associate_wait_t, queue);

        ngx_queue_remove(q);

        ngx_stream_tun_associate_output(as, wait->data, wait->len);
    }

    if (pc->read->ready) {
        ngx_post_event(pc->read, &ngx_posted_events);
    }
}


/* where the proxy takes datagrams: the last thing that it has said */

static ngx_int_t
ngx_stream_tun_associate_address(ngx_stream_tun_associate_t *as)
{
    u_char                        *p;
    ngx_buf_t                     *b;
    ngx_uint_t                     any;
    ngx_stream_upstream_t         *u;
    ngx_stream_tun_destination_t   dst;

    static const u_char  zero[16];

    u = as->relay->session->upstream;
    b = as->peer->in;

    p = b->start + 2 * (as->peer->nsteps - 1) + 3;

    if (ngx_stream_tun_socks5_parse_address(&p, b->last, &dst) != NGX_OK
        || dst.family == 0
        || dst.port == 0)
    {
        ngx_log_error(NGX_LOG_WARN, as->relay->session->connection->log, 0,
                      "socks5 proxy %V takes datagrams at no address",
                      u->peer.name);
        return NGX_ERROR;
    }

    any = (ngx_memcmp(dst.addr, zero, 16) == 0);

    if (any && u->peer.sockaddr->sa_family != AF_UNIX) {
        as->socklen = u->peer.socklen;
        ngx_memcpy(&as->sa, u->peer.sockaddr, as->socklen);
        ngx_inet_set_port(&as->sa.sockaddr, dst.port);
        return NGX_OK;
    }

    ngx_memzero(&as->sa, sizeof(ngx_sockaddr_t));

#if (NGX_HAVE_INET6)
    if (dst.family == AF_INET6) {
        as->socklen = sizeof(struct sockaddr_in6);
        as->sa.sockaddr_in6.sin6_family = AF_INET6;
        ngx_memcpy(&as->sa.sockaddr_in6.sin6_addr, dst.addr, 16);

    } else
#endif
    {
        as->socklen = sizeof(struct sockaddr_in);
        as->sa.sockaddr_in.sin_family = AF_INET;
        ngx_memcpy(&as->sa.sockaddr_in.sin_addr, dst.addr, 4);
    }

    ngx_inet_set_port(&as->sa.sockaddr, dst.port);

    return NGX_OK;
}


/* what is connected takes nothing from anybody else */

static ngx_int_t
ngx_stream_tun_associate_open(ngx_stream_tun_associate_t *as)
{
    ngx_log_t     *log;
    ngx_socket_t   fd;

    log = as->relay->session->connection->log;

    if (ngx_stream_tun_relay_open(as->relay, as->sa.sockaddr.sa_family)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    fd = as->relay->upstream->fd;

    if (as->peer->conf->socket
        && ngx_stream_tun_set_socket(as->peer->conf, fd, log) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (connect(fd, &as->sa.sockaddr, as->socklen) == -1) {
        ngx_log_error(NGX_LOG_ERR, log, ngx_socket_errno,
                      "connect() of datagrams to socks5 proxy %V failed",
                      as->relay->session->upstream->peer.name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* the association lives as long as the connection, RFC 1928, 6 */

static void
ngx_stream_tun_associate_read_handler(ngx_event_t *rev)
{
    u_char                 buf[256];
    ssize_t                n;
    ngx_connection_t      *pc;
    ngx_stream_session_t  *s;
    ngx_stream_tun_ctx_t  *ctx;

    pc = rev->data;
    s = pc->data;

    do {
        n = pc->recv(pc, buf, sizeof(buf));
    } while (n > 0);

    if (n == NGX_AGAIN && ngx_handle_read_event(rev, 0) == NGX_OK) {
        return;
    }

    ngx_log_error(NGX_LOG_INFO, s->connection->log, 0,
                  "socks5 proxy %V ended the association",
                  s->upstream->peer.name);

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_module);

    ngx_stream_tun_relay_finalize(ctx->relay, NGX_STREAM_OK);
}


static void
ngx_stream_tun_associate_write_handler(ngx_event_t *wev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_STREAM, wev->log, 0,
                   "stream tun associate write handler");
}


void
ngx_stream_tun_associate_close(ngx_stream_tun_relay_t *relay)
{
    if (relay->associate != NULL) {
        ngx_stream_tun_associate_free(relay->associate, 0);
    }
}


struct sockaddr *
ngx_stream_tun_associate_sockaddr(ngx_stream_tun_associate_t *as,
    socklen_t *socklen)
{
    *socklen = as->socklen;

    return &as->sa.sockaddr;
}


void
ngx_stream_tun_associate_send(ngx_stream_tun_relay_t *relay,
    ngx_stream_tun_relay_name_t *name, ngx_tun_datagram_t *datagram)
{
    u_char                        *p, *start;
    ngx_stream_tun_associate_t    *as;
    ngx_stream_tun_destination_t   dst;

    as = relay->associate;

    ngx_memzero(&dst, sizeof(ngx_stream_tun_destination_t));
    dst.port = datagram->port;

    if (name != NULL) {
        ngx_stream_tun_relay_touch(name);
        name->port = datagram->port;
        dst.host = name->name;

    } else {
        dst.family = relay->session->connection->sockaddr->sa_family;
        ngx_memcpy(dst.addr, datagram->addr, 16);
    }

    if (!as->ready) {
        ngx_stream_tun_associate_wait(as, &dst, datagram);
        return;
    }

    start = ngx_stream_tun_relay_scratch(relay);

    p = ngx_stream_tun_socks5_datagram(start, &dst);
    p = ngx_cpymem(p, datagram->data, datagram->len);

    ngx_stream_tun_associate_output(as, start, p - start);
}


static void
ngx_stream_tun_associate_wait(ngx_stream_tun_associate_t *as,
    ngx_stream_tun_destination_t *dst, ngx_tun_datagram_t *datagram)
{
    u_char                           *p;
    ngx_pool_t                       *pool;
    ngx_connection_t                 *c;
    ngx_stream_tun_associate_wait_t  *wait;

    c = as->relay->session->connection;
    pool = c->pool;

    if (as->nwaiting == NGX_STREAM_TUN_ASSOCIATE_WAITING) {
        ngx_tun_dropped(c);
        return;
    }

    wait = ngx_palloc(pool, sizeof(ngx_stream_tun_associate_wait_t));
    p = ngx_pnalloc(pool, NGX_STREAM_TUN_SOCKS5_HEADER + datagram->len);

    if (wait == NULL || p == NULL) {
        return;
    }

    wait->data = p;
    wait->datagram = *datagram;
    wait->datagram.data = ngx_stream_tun_socks5_datagram(p, dst);

    p = ngx_cpymem(wait->datagram.data, datagram->data, datagram->len);
    wait->len = p - wait->data;

    ngx_queue_insert_tail(&as->waiting, &wait->queue);
    as->nwaiting++;
}


/* to the proxy's address, whatever the datagram's is */

static void
ngx_stream_tun_associate_output(ngx_stream_tun_associate_t *as, u_char *data,
    size_t len)
{
    ngx_tun_datagram_t  out;

    ngx_memzero(&out, sizeof(ngx_tun_datagram_t));

    out.data = data;
    out.len = len;

    ngx_stream_tun_relay_send(as->relay, &out);
}


ngx_int_t
ngx_stream_tun_associate_received(ngx_stream_tun_relay_t *relay,
    ngx_tun_datagram_t *datagram)
{
    u_char                        *p, *last;
    ngx_stream_tun_destination_t   src;

    p = datagram->data;
    last = p + datagram->len;

    if (ngx_stream_tun_socks5_parse_datagram(&p, last, &src) != NGX_OK) {
        ngx_tun_dropped(relay->session->connection);
        return NGX_ERROR;
    }

    datagram->data = p;
    datagram->len = last - p;
    datagram->port = src.port;

    if (ngx_stream_tun_associate_source(relay->associate, datagram, &src)
        != NGX_OK)
    {
        relay->filtered++;
        return NGX_ERROR;
    }

    return NGX_OK;
}


/*
 * A proxy that was given a name answers with an address that nobody has heard
 * of: it is that of the name that was asked at this port.
 */

static ngx_int_t
ngx_stream_tun_associate_source(ngx_stream_tun_associate_t *as,
    ngx_tun_datagram_t *datagram, ngx_stream_tun_destination_t *src)
{
    ngx_stream_tun_relay_t       *relay;
    ngx_stream_tun_relay_name_t  *name;

    relay = as->relay;

    ngx_memcpy(datagram->addr, src->addr, 16);

    if (src->family != 0 && ngx_stream_tun_relay_known(relay, datagram)) {
        return NGX_OK;
    }

    name = ngx_stream_tun_associate_name(relay,
                                         src->family ? NULL : &src->host,
                                         src->port);

    if (name == NULL) {
        return (src->family
                == (ngx_uint_t) relay->session->connection->sockaddr->sa_family)
               ? NGX_OK : NGX_ERROR;
    }

    name->known = 1;

    if (src->family == 0) {
        ngx_memcpy(datagram->addr, name->fake, 16);
        return NGX_OK;
    }

    ngx_memcpy(name->addr, src->addr, 16);
    ngx_stream_tun_relay_alias(relay, name, src->port);

    return NGX_OK;
}


/* the first one that has had no answer, or else the last one */

static ngx_stream_tun_relay_name_t *
ngx_stream_tun_associate_name(ngx_stream_tun_relay_t *relay, ngx_str_t *text,
    in_port_t port)
{
    ngx_queue_t                  *q;
    ngx_stream_tun_relay_name_t  *name, *last;

    last = NULL;

    for (q = ngx_queue_head(&relay->names);
         q != ngx_queue_sentinel(&relay->names);
         q = ngx_queue_next(q))
    {
        name = ngx_queue_data(q, ngx_stream_tun_relay_name_t, queue);

        if (text != NULL) {

            if (name->name.len == text->len
                && ngx_strncasecmp(name->name.data, text->data, text->len)
                   == 0)
            {
                return name;
            }

            continue;
        }

        if (name->port != port) {
            continue;
        }

        last = name;

        if (!name->known) {
            break;
        }
    }

    return last;
}
