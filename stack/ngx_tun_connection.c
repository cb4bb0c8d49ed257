
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
#include <ngx_tun_udp.h>


/* left to upstreams, resolvers, logs, and what else a worker opens */
#define NGX_TUN_CONNECTION_FREE   16
#define NGX_TUN_CONNECTION_FILES  32


typedef struct {
    ngx_sockaddr_t            src;
    ngx_sockaddr_t            dst;
    ngx_log_t                 log;
    u_char                    text[NGX_SOCKADDR_STRLEN];
} ngx_tun_connection_t;


static ngx_connection_t *ngx_tun_connection_get(ngx_tun_t *tun, int type);
static ngx_socket_t ngx_tun_connection_fd(ngx_tun_t *tun, int type);
static ngx_int_t ngx_tun_connection_init(ngx_connection_t *c, ngx_tun_t *tun,
    ngx_tun_flow_key_t *key);
static void ngx_tun_connection_addresses(ngx_connection_t *c,
    ngx_tun_flow_key_t *key, ngx_tun_connection_t *tc);


ngx_connection_t *
ngx_tun_connection_create(ngx_tun_t *tun, ngx_listening_t *ls,
    ngx_tun_flow_key_t *key)
{
    ngx_connection_t  *c;

    c = ngx_tun_connection_get(tun, ls->type);
    if (c == NULL) {
        return NULL;
    }

    c->type = ls->type;
    c->shared = (ls->type == SOCK_DGRAM);
    c->listening = ls;

    if (ngx_tun_connection_init(c, tun, key) != NGX_OK) {
        ngx_tun_connection_discard(c);
        return NULL;
    }

    c->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);
    c->start_time = ngx_current_msec;

#if (NGX_STAT_STUB)
    (void) ngx_atomic_fetch_add(ngx_stat_accepted, 1);
    (void) ngx_atomic_fetch_add(ngx_stat_handled, 1);
    (void) ngx_atomic_fetch_add(ngx_stat_active, 1);
#endif

    return c;
}


void
ngx_tun_connection_discard(ngx_connection_t *c)
{
    ngx_pool_t  *pool;

    pool = c->pool;

#if (NGX_STAT_STUB)
    if (c->start_time != 0) {
        (void) ngx_atomic_fetch_add(ngx_stat_active, -1);
    }
#endif

    ngx_close_connection(c);

    if (pool != NULL) {
        ngx_destroy_pool(pool);
    }
}


static ngx_connection_t *
ngx_tun_connection_get(ngx_tun_t *tun, int type)
{
    ngx_socket_t       fd;
    ngx_connection_t  *c;

    /* one for the upstream too; asked for more, nginx would log an alert */

    if (ngx_cycle->free_connection_n < NGX_TUN_CONNECTION_FREE) {
        ngx_tun_limited(tun, NGX_TUN_LIMIT_CONNECTIONS);
        return NULL;
    }

    fd = ngx_tun_connection_fd(tun, type);

    if (fd == (ngx_socket_t) -1) {
        ngx_tun_limited(tun, NGX_TUN_LIMIT_DESCRIPTORS);
        return NULL;
    }

    c = ngx_get_connection(fd, tun->log);

    if (c == NULL && type == SOCK_STREAM) {
        (void) ngx_close_socket(fd);
    }

    return c;
}


static ngx_socket_t
ngx_tun_connection_fd(ngx_tun_t *tun, int type)
{
    ngx_uint_t    n;
    ngx_socket_t  fd;

    if (type == SOCK_DGRAM) {

        /* no more descriptors than connections and held sockets */

        n = ngx_cycle->connection_n - ngx_cycle->free_connection_n
            + tun->udp.held_n;

        return (n + NGX_TUN_CONNECTION_FILES > tun->max_files)
               ? (ngx_socket_t) -1 : tun->sockets[0];
    }

    fd = fcntl(tun->sockets[0], F_DUPFD_CLOEXEC, 0);

    /* the lowest free one tells how many are in use */

    if (fd != (ngx_socket_t) -1
        && (ngx_uint_t) fd + NGX_TUN_CONNECTION_FILES > tun->max_files)
    {
        (void) ngx_close_socket(fd);
        return (ngx_socket_t) -1;
    }

    return fd;
}


static ngx_int_t
ngx_tun_connection_init(ngx_connection_t *c, ngx_tun_t *tun,
    ngx_tun_flow_key_t *key)
{
    ngx_log_t             *log;
    ngx_tun_connection_t  *tc;

    c->pool = ngx_create_pool(c->listening->pool_size, tun->log);
    if (c->pool == NULL) {
        return NGX_ERROR;
    }

    tc = ngx_palloc(c->pool, sizeof(ngx_tun_connection_t));
    if (tc == NULL) {
        return NGX_ERROR;
    }

    ngx_tun_connection_addresses(c, key, tc);

    log = &tc->log;

    *log = *tun->log;
    log->data = NULL;
    log->handler = NULL;

    c->log = log;
    c->pool->log = log;
    c->read->log = log;
    c->write->log = log;

    c->log_error = NGX_ERROR_INFO;

    /* nginx sets no options of c->fd, and never adds it to epoll */

    c->tcp_nodelay = NGX_TCP_NODELAY_DISABLED;
    c->tcp_nopush = NGX_TCP_NOPUSH_DISABLED;
    c->read->active = 1;
    c->write->active = 1;

    c->write->ready = 1;

    return NGX_OK;
}


static void
ngx_tun_connection_addresses(ngx_connection_t *c, ngx_tun_flow_key_t *key,
    ngx_tun_connection_t *tc)
{
    c->sockaddr = &tc->src.sockaddr;
    c->socklen = ngx_tun_sockaddr(&tc->src, key->src, key->addr_len,
                                  key->src_port);

    c->local_sockaddr = &tc->dst.sockaddr;
    c->local_socklen = ngx_tun_sockaddr(&tc->dst, key->dst, key->addr_len,
                                        key->dst_port);

    c->addr_text.data = tc->text;
    c->addr_text.len = ngx_sock_ntop(c->sockaddr, c->socklen, tc->text,
                                     NGX_SOCKADDR_STRLEN, 0);
}


socklen_t
ngx_tun_sockaddr(ngx_sockaddr_t *sa, u_char *addr, size_t addr_len,
    uint16_t port)
{
    ngx_memzero(sa, sizeof(ngx_sockaddr_t));

#if (NGX_HAVE_INET6)
    if (addr_len == 16) {
        sa->sockaddr_in6.sin6_family = AF_INET6;
        sa->sockaddr_in6.sin6_port = htons(port);
        ngx_memcpy(&sa->sockaddr_in6.sin6_addr, addr, 16);
        return sizeof(struct sockaddr_in6);
    }
#endif

    sa->sockaddr_in.sin_family = AF_INET;
    sa->sockaddr_in.sin_port = htons(port);
    ngx_memcpy(&sa->sockaddr_in.sin_addr, addr, 4);
    return sizeof(struct sockaddr_in);
}


ngx_tun_conf_t *
ngx_tun_connection_conf(ngx_connection_t *c)
{
    ngx_tun_tcp_t                *tcp;
    ngx_tun_udp_t                *udp;
    ngx_tun_system_connection_t  *sc;

    if (c->type == SOCK_DGRAM) {
        udp = ngx_tun_connection_flow(c);
        return udp->tun->conf;
    }

    sc = ngx_tun_system_get(c);

    if (sc != NULL) {
        return sc->system->conf;
    }

    tcp = ngx_tun_connection_flow(c);
    return tcp->tun->conf;
}


ngx_tun_stat_t *
ngx_tun_connection_stat(ngx_connection_t *c)
{
    ngx_tun_tcp_t                *tcp;
    ngx_tun_udp_t                *udp;
    ngx_tun_system_connection_t  *sc;

    if (c->type == SOCK_DGRAM) {
        udp = ngx_tun_connection_flow(c);
        return udp->tun->stat;
    }

    sc = ngx_tun_system_get(c);

    if (sc != NULL) {
        return sc->system->stat;
    }

    tcp = ngx_tun_connection_flow(c);
    return tcp->tun->stat;
}
