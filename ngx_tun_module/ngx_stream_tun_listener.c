
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>


/* a dead client is found before its tuple is somebody else's */
#define NGX_STREAM_TUN_LISTENER_IDLE  3600


static void ngx_stream_tun_listener_handler(ngx_connection_t *c);
static ngx_int_t ngx_stream_tun_listener_keep(ngx_stream_tun_t *st);
static ngx_int_t ngx_stream_tun_listener_share(ngx_stream_tun_t *st,
    ngx_uint_t first);
static ngx_uint_t ngx_stream_tun_listener_inherited(ngx_stream_tun_t *st,
    ngx_listening_t *ls);
static ngx_int_t ngx_stream_tun_listener_socket(ngx_stream_tun_t *st,
    ngx_listening_t *ls, ngx_log_t *log);


ngx_int_t
ngx_stream_tun_listener_add(ngx_conf_t *cf, ngx_stream_tun_t *st,
    ngx_uint_t family)
{
    socklen_t               socklen;
    ngx_sockaddr_t          sa;
    ngx_listening_t        *ls;
    ngx_tun_system_conf_t  *sys;

    sys = &st->conf.system[family];

    ngx_memzero(&sa, sizeof(ngx_sockaddr_t));

#if (NGX_HAVE_INET6)
    if (family) {
        sa.sockaddr_in6.sin6_family = AF_INET6;
        sa.sockaddr_in6.sin6_port = htons(sys->port);
        ngx_memcpy(&sa.sockaddr_in6.sin6_addr, sys->addr, 16);
        socklen = sizeof(struct sockaddr_in6);

    } else
#endif
    {
        sa.sockaddr_in.sin_family = AF_INET;
        sa.sockaddr_in.sin_port = htons(sys->port);
        ngx_memcpy(&sa.sockaddr_in.sin_addr, sys->addr, 4);
        socklen = sizeof(struct sockaddr_in);
    }

    ls = ngx_create_listening(cf, &sa.sockaddr, socklen);
    if (ls == NULL) {
        return NGX_ERROR;
    }

    ls->addr_ntop = 1;
    ls->handler = ngx_stream_tun_listener_handler;
    ls->pool_size = 256;

    ls->logp = &cf->cycle->new_log;
    ls->log.data = &ls->addr_text;
    ls->log.handler = ngx_accept_log_error;

    ls->backlog = 65535;
    ls->rcvbuf = -1;
    ls->sndbuf = -1;

    ls->keepalive = 1;
#if (NGX_HAVE_KEEPALIVE_TUNABLE)
    ls->keepidle = NGX_STREAM_TUN_LISTENER_IDLE;
#endif

#if (NGX_HAVE_INET6)
    ls->ipv6only = 1;
#endif

#if (NGX_HAVE_REUSEPORT)
    ls->reuseport = 1;
#endif

    ls->servers = st;

    return NGX_OK;
}


static void
ngx_stream_tun_listener_handler(ngx_connection_t *c)
{
    ngx_pool_t        *pool;
    ngx_stream_tun_t  *st;

    st = c->listening->servers;

    if (st->system != NULL && ngx_tun_system_accept(st->system, c) == NGX_OK) {
        c->listening->handler(c);
        return;
    }

#if (NGX_STAT_STUB)
    (void) ngx_atomic_fetch_add(ngx_stat_active, -1);
#endif

    pool = c->pool;

    ngx_close_connection(c);

    ngx_destroy_pool(pool);
}


void
ngx_stream_tun_listener_ignore(ngx_stream_tun_t *st)
{
    ngx_uint_t        i;
    ngx_listening_t  *ls;

    ls = st->cycle->listening.elts;

    for (i = 0; i < st->cycle->listening.nelts; i++) {
        if (ls[i].handler == ngx_stream_tun_listener_handler) {
            ls[i].ignore = 1;
        }
    }
}


ngx_int_t
ngx_stream_tun_listeners_open(ngx_stream_tun_t *st, ngx_log_t *log)
{
    ngx_uint_t        i, k, n;
    ngx_listening_t  *ls;

    if (ngx_stream_tun_listener_keep(st) != NGX_OK) {
        return NGX_ERROR;
    }

    /*
     * The sockets belong to the device and its network namespace, so they are
     * made here.  Those that there are nginx finds by itself, in their order.
     */

    ls = st->cycle->listening.elts;

    for (i = 0; i < st->cycle->listening.nelts; i++) {

        if (ls[i].handler != ngx_stream_tun_listener_handler
            || ls[i].servers != st)
        {
            continue;
        }

        for (n = 0, k = 0; k < i; k++) {
            n += (ls[k].handler == ls[i].handler && ls[k].servers == st
                  && ls[k].sockaddr->sa_family == ls[i].sockaddr->sa_family);
        }

        if (n >= ngx_stream_tun_listener_inherited(st, &ls[i])
            && ngx_stream_tun_listener_socket(st, &ls[i], log) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/*
 * A socket that is closed resets who waits in it to be accepted.  So those of
 * more workers than there are now stay, and are shared out among these.
 */

static ngx_int_t
ngx_stream_tun_listener_keep(ngx_stream_tun_t *st)
{
    ngx_uint_t        i, n;
    ngx_listening_t  *ls;

    n = st->cycle->listening.nelts;

    for (i = 0; i < n; i++) {
        ls = st->cycle->listening.elts;

        if (ls[i].handler == ngx_stream_tun_listener_handler
            && ls[i].servers == st
#if (NGX_HAVE_REUSEPORT)
            && ls[i].worker == 0
#endif
            && ngx_stream_tun_listener_share(st, i) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_listener_share(ngx_stream_tun_t *st, ngx_uint_t first)
{
    ngx_uint_t        i, n, inherited;
    ngx_listening_t  *ls, *copy;

    ls = st->cycle->listening.elts;
    inherited = ngx_stream_tun_listener_inherited(st, &ls[first]);

    for (n = 0, i = 0; i < st->cycle->listening.nelts; i++) {
        n += (ls[i].handler == ls[first].handler && ls[i].servers == st
              && ls[i].sockaddr->sa_family == ls[first].sockaddr->sa_family);
    }

    for (i = n; i < inherited; i++) {

        copy = ngx_array_push(&st->cycle->listening);
        if (copy == NULL) {
            return NGX_ERROR;
        }

        /* the array may be at another place now */

        ls = st->cycle->listening.elts;

        *copy = ls[first];
#if (NGX_HAVE_REUSEPORT)
        copy->worker = i % n;
#endif
    }

    return NGX_OK;
}


/* how many sockets of the address does the cycle in force have? */

static ngx_uint_t
ngx_stream_tun_listener_inherited(ngx_stream_tun_t *st, ngx_listening_t *ls)
{
    ngx_uint_t        i, n;
    ngx_listening_t  *old;

    old = ngx_cycle->listening.elts;
    n = 0;

    for (i = 0; i < ngx_cycle->listening.nelts; i++) {

        if (!old[i].ignore && old[i].type == SOCK_STREAM
            && old[i].fd != (ngx_socket_t) -1
            && ngx_cmp_sockaddr(old[i].sockaddr, old[i].socklen,
                                ls->sockaddr, ls->socklen, 1)
               == NGX_OK)
        {
            if (st->device.reused) {
                n++;
                continue;
            }

            /* bound to an interface that is no more: nginx is to close it */
            old[i].ignore = 1;
        }
    }

    return n;
}


static ngx_int_t
ngx_stream_tun_listener_socket(ngx_stream_tun_t *st, ngx_listening_t *ls,
    ngx_log_t *log)
{
    int             on;
    char           *what;
    ngx_str_t      *name;
    ngx_socket_t    s;
    struct linger   linger;

    name = &st->conf.device.name;

    s = ngx_tun_device_socket(&st->device, ls->sockaddr->sa_family,
                              SOCK_STREAM, log);
    if (s == (ngx_socket_t) -1) {
        return NGX_ERROR;
    }

    on = 1;
    what = "setsockopt()";

    /* a connection ends by a reset if nobody says that it is an orderly end */

    linger.l_onoff = 1;
    linger.l_linger = 0;

    if (setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(int)) == -1
        || setsockopt(s, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(int)) == -1
        || setsockopt(s, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == -1
        || setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, name->data, name->len)
           == -1)
    {
        goto failed;
    }

#if (NGX_HAVE_INET6)
    if (ls->sockaddr->sa_family == AF_INET6
        && setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(int)) == -1)
    {
        goto failed;
    }
#endif

    what = "bind()";

    if (bind(s, ls->sockaddr, ls->socklen) == -1) {
        goto failed;
    }

    what = "listen()";

    if (listen(s, ls->backlog) == -1) {
        goto failed;
    }

    /* a new binary inherits it, like any listening socket of nginx */

    (void) fcntl(s, F_SETFD, 0);

    ls->fd = s;
    ls->open = 1;

    return NGX_OK;

failed:

    ngx_log_error(NGX_LOG_EMERG, log, ngx_socket_errno,
                  "tun \"%V\": %s of the listener %V failed",
                  name, what, &ls->addr_text);

    (void) ngx_close_socket(s);

    return NGX_ERROR;
}
