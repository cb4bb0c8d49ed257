
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_system.h>

#include <linux/sockios.h>


/* how often a connection is looked at that is to be reset, and how long */
#define NGX_TUN_SYSTEM_DRAIN    50       /* ms */
#define NGX_TUN_SYSTEM_DRAINED  60000


/* a socket that its session has left: reset when all is acknowledged */

typedef struct {
    ngx_connection_t          connection; /* of the event, for its log */
    ngx_event_t               event;
    ngx_msec_t                start;
} ngx_tun_system_drain_t;


static ngx_int_t ngx_tun_system_limit(ngx_tun_system_t *sys, ngx_log_t *log);
static void ngx_tun_system_addresses(ngx_connection_t *c,
    ngx_tun_flow_key_t *key, ngx_tun_system_connection_t *sc);
static void ngx_tun_system_cleanup(void *data);
static ssize_t ngx_tun_system_recv_handler(ngx_connection_t *c, u_char *buf,
    size_t size);
static void ngx_tun_system_linger(ngx_tun_system_connection_t *sc,
    ngx_uint_t on);
static ngx_uint_t ngx_tun_system_drained(ngx_socket_t s);
static void ngx_tun_system_drain(ngx_connection_t *c);
static void ngx_tun_system_drain_handler(ngx_event_t *ev);


ngx_int_t
ngx_tun_system_accept(ngx_tun_system_t *sys, ngx_connection_t *c)
{
    u_char                       *addr;
    uint16_t                      port;
    ngx_int_t                     rc;
    ngx_uint_t                    family;
    ngx_tun_listen_t             *listen;
    ngx_pool_cleanup_t           *cln;
    ngx_tun_nat_entry_t           entry;
    ngx_tun_system_connection_t  *sc;

    port = ngx_inet_get_port(c->sockaddr);

#if (NGX_HAVE_INET6)
    if (c->sockaddr->sa_family == AF_INET6) {
        addr = (u_char *) &((struct sockaddr_in6 *) c->sockaddr)->sin6_addr;
        family = 1;

    } else
#endif
    {
        addr = (u_char *) &((struct sockaddr_in *) c->sockaddr)->sin_addr;
        family = 0;
    }

    rc = ngx_tun_nat_accept(&sys->nat[family], addr, port,
                            ngx_tun_system_now(), &entry);
    if (rc != NGX_OK) {
        return NGX_DECLINED;
    }

    listen = ngx_tun_conf_find_listen(sys->conf, &entry.key, SOCK_STREAM);

    if (listen == NULL
        || ngx_tun_system_limit(sys, c->log) != NGX_OK)
    {
        goto failed;
    }

    sc = ngx_pcalloc(c->pool, sizeof(ngx_tun_system_connection_t));
    if (sc == NULL) {
        goto failed;
    }

    cln = ngx_pool_cleanup_add(c->pool, 0);
    if (cln == NULL) {
        goto failed;
    }

    cln->handler = ngx_tun_system_cleanup;
    cln->data = sc;

    sc->system = sys;
    sc->connection = c;
    sc->slot = entry.slot;
    sc->generation = entry.generation;
    sc->family = family;

    ngx_tun_system_addresses(c, &entry.key, sc);
    ngx_tun_system_set(c, sc);

    c->recv = ngx_tun_system_recv_handler;
    c->listening = listen->ls[family];

    sys->flows++;
    ngx_queue_insert_tail(&sys->connections, &sc->queue);

    (void) ngx_atomic_fetch_add(&sys->stat->flows, 1);
    ngx_tun_gauge_add(sys, active, 1);
    (void) ngx_atomic_fetch_add(&sys->stat->early, 1);

    return NGX_OK;

failed:

    ngx_tun_nat_release(&sys->nat[family], entry.slot, entry.generation,
                        ngx_tun_system_now());

    return NGX_DECLINED;
}


static ngx_int_t
ngx_tun_system_limit(ngx_tun_system_t *sys, ngx_log_t *log)
{
    ngx_uint_t  n;

    n = sys->conf->device.queues;

    if (sys->conf->max_flows == 0
        || sys->flows < (sys->conf->max_flows + n - 1) / n)
    {
        return NGX_OK;
    }

    (void) ngx_atomic_fetch_add(&sys->stat->limits[NGX_TUN_LIMIT_FLOWS], 1);

    if (sys->logged != ngx_time()) {
        sys->logged = ngx_time();
        ngx_log_error(NGX_LOG_WARN, log, 0, "tun \"%V\": max_flows reached",
                      &sys->conf->device.name);
    }

    return NGX_DECLINED;
}


static void
ngx_tun_system_addresses(ngx_connection_t *c, ngx_tun_flow_key_t *key,
    ngx_tun_system_connection_t *sc)
{
    c->sockaddr = &sc->src.sockaddr;
    c->socklen = ngx_tun_sockaddr(&sc->src, key->src, key->addr_len,
                                  key->src_port);

    c->local_sockaddr = &sc->dst.sockaddr;
    c->local_socklen = ngx_tun_sockaddr(&sc->dst, key->dst, key->addr_len,
                                        key->dst_port);

    c->addr_text.data = sc->text;
    c->addr_text.len = ngx_sock_ntop(c->sockaddr, c->socklen, sc->text,
                                     NGX_SOCKADDR_STRLEN, 0);
}


/* the socket is closed already: the kernel has its last say */

static void
ngx_tun_system_cleanup(void *data)
{
    ngx_tun_system_connection_t *sc = data;

    ngx_tun_system_t  *sys;

    sys = sc->system;

    ngx_tun_nat_release(&sys->nat[sc->family], sc->slot, sc->generation,
                        ngx_tun_system_now());

    sys->flows--;
    ngx_queue_remove(&sc->queue);

    ngx_tun_gauge_add(sys, active, -1);
}


void
ngx_tun_system_abort(ngx_tun_system_t *sys)
{
    ngx_queue_t                  *q;
    struct sockaddr               sa;
    ngx_tun_system_connection_t  *sc;

    ngx_memzero(&sa, sizeof(struct sockaddr));
    sa.sa_family = AF_UNSPEC;

    for (q = ngx_queue_head(&sys->connections);
         q != ngx_queue_sentinel(&sys->connections);
         q = ngx_queue_next(q))
    {
        sc = ngx_queue_data(q, ngx_tun_system_connection_t, queue);

        /* a disconnect is a reset, with the socket left to be closed */

        (void) connect(sc->connection->fd, &sa, sizeof(struct sockaddr));
    }
}


/* the client's FIN makes an orderly end, as with lwIP */

static ssize_t
ngx_tun_system_recv_handler(ngx_connection_t *c, u_char *buf, size_t size)
{
    ssize_t                       n;
    ngx_tun_system_connection_t  *sc;

    n = ngx_io.recv(c, buf, size);

    if (n == 0 && size != 0) {
        sc = ngx_tun_system_get(c);
        ngx_tun_system_finish_after(sc);
    }

    return n;
}


void
ngx_tun_system_reset_after(ngx_tun_system_connection_t *sc)
{
    sc->reset = 1;

    if (sc->finish) {
        sc->finish = 0;
        ngx_tun_system_linger(sc, 1);
    }
}


void
ngx_tun_system_finish_after(ngx_tun_system_connection_t *sc)
{
    if (!sc->finish && !sc->reset) {
        sc->finish = 1;
        ngx_tun_system_linger(sc, 0);
    }
}


ngx_int_t
ngx_tun_system_sent(ngx_tun_system_connection_t *sc, ngx_uint_t last,
    ngx_uint_t all)
{
    if (last) {
        sc->last = 1;
    }

    if (!all || !sc->last) {
        return NGX_OK;
    }

    if (!sc->reset) {
        ngx_tun_system_finish_after(sc);
        return NGX_OK;
    }

    /* a close would throw away what the kernel has */

    if (!ngx_tun_system_drained(sc->connection->fd)) {
        ngx_tun_system_drain(sc->connection);
    }

    return NGX_ERROR;
}


static ngx_uint_t
ngx_tun_system_drained(ngx_socket_t s)
{
    int        n, error;
    socklen_t  len;

    len = sizeof(int);

    return ioctl(s, SIOCOUTQ, &n) == -1 || n == 0
           || getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &len) == -1
           || error != 0;
}


static void
ngx_tun_system_drain(ngx_connection_t *c)
{
    ngx_event_t             *ev;
    ngx_tun_system_drain_t  *drain;

    drain = ngx_calloc(sizeof(ngx_tun_system_drain_t), ngx_cycle->log);
    if (drain == NULL) {
        return;
    }

    drain->connection.fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 0);

    if (drain->connection.fd == (ngx_socket_t) -1) {
        ngx_free(drain);
        return;
    }

    drain->start = ngx_current_msec;

    ev = &drain->event;

    ev->data = drain;
    ev->log = ngx_cycle->log;
    ev->handler = ngx_tun_system_drain_handler;

    ngx_add_timer(ev, NGX_TUN_SYSTEM_DRAIN);
}


static void
ngx_tun_system_drain_handler(ngx_event_t *ev)
{
    ngx_tun_system_drain_t  *drain;

    drain = ev->data;

    if (!ngx_tun_system_drained(drain->connection.fd)
        && ngx_current_msec - drain->start < NGX_TUN_SYSTEM_DRAINED)
    {
        ngx_add_timer(ev, NGX_TUN_SYSTEM_DRAIN);
        return;
    }

    (void) ngx_close_socket(drain->connection.fd);

    ngx_free(drain);
}


/* on, as the listener has it: the close is a reset */

static void
ngx_tun_system_linger(ngx_tun_system_connection_t *sc, ngx_uint_t on)
{
    struct linger      linger;
    ngx_connection_t  *c;

    c = sc->connection;

    linger.l_onoff = (int) on;
    linger.l_linger = 0;

    if (setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger,
                   sizeof(struct linger))
        == -1)
    {
        ngx_log_error(NGX_LOG_WARN, c->log, ngx_socket_errno,
                      "setsockopt(SO_LINGER) failed");
    }
}


ssize_t
ngx_tun_system_recv(ngx_connection_t *c, u_char *buf, size_t size)
{
    ssize_t  n;

    do {
        n = recv(c->fd, buf, size, 0);
    } while (n == -1 && ngx_socket_errno == NGX_EINTR);

    if (n == -1) {
        return (ngx_socket_errno == NGX_EAGAIN) ? NGX_AGAIN : NGX_ERROR;
    }

    return n;
}


ssize_t
ngx_tun_system_send(ngx_connection_t *c, u_char *buf, size_t size)
{
    ssize_t  n;

    do {
        n = send(c->fd, buf, size, MSG_NOSIGNAL);
    } while (n == -1 && ngx_socket_errno == NGX_EINTR);

    if (n == -1) {
        return (ngx_socket_errno == NGX_EAGAIN) ? NGX_AGAIN : NGX_ERROR;
    }

    return n;
}


ssize_t
ngx_tun_system_send_last(ngx_tun_system_connection_t *sc, u_char *buf,
    size_t size)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = sc->connection;

    if (sc->reset) {
        return size;
    }

    n = ngx_tun_system_send(c, buf, size);

    if (n != (ssize_t) size) {
        sc->reset = 1;
        return NGX_ERROR;
    }

    ngx_tun_system_finish_after(sc);

    (void) ngx_shutdown_socket(c->fd, NGX_WRITE_SHUTDOWN);

    return n;
}
