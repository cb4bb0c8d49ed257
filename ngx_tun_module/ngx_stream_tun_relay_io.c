
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_relay.h>
#include <ngx_stream_tun_wire.h>

#include <linux/errqueue.h>
#include <netinet/udp.h>


#ifndef UDP_SEGMENT
#define UDP_SEGMENT  103
#endif

#ifndef UDP_GRO
#define UDP_GRO      104
#endif


#define NGX_STREAM_TUN_RELAY_MSGS    16      /* datagrams read at once */
#define NGX_STREAM_TUN_RELAY_ROUNDS  8       /* of that, in a turn */
#define NGX_STREAM_TUN_RELAY_BUFFER  65536

#define NGX_STREAM_TUN_RELAY_BATCH   64000   /* bytes */
#define NGX_STREAM_TUN_RELAY_MAX     64      /* the kernel's UDP_MAX_SEGMENTS */

/* more does not go out in one packet, so not with others */
#define NGX_STREAM_TUN_RELAY_SMALL   1452


typedef union {
    struct cmsghdr            cmsg;
    u_char                    buf[CMSG_SPACE(sizeof(int))];
} ngx_stream_tun_relay_cmsg_t;


typedef union {
    struct cmsghdr            cmsg;
    u_char                    buf[CMSG_SPACE(sizeof(struct sock_extended_err)
                                             + sizeof(ngx_sockaddr_t))];
} ngx_stream_tun_relay_err_t;


/* datagrams of a relay to one address, of one size but for the last */

struct ngx_stream_tun_batch_s {
    ngx_stream_tun_relay_t   *relay;
    ngx_sockaddr_t            to;
    socklen_t                 socklen;
    ngx_tun_datagram_t        target;
    size_t                    len;
    size_t                    size;
    ngx_uint_t                n;
    unsigned                  open:1;
    unsigned                  plain:1;       /* no UDP_SEGMENT here */

    ngx_event_t               event;
    u_char                    data[NGX_STREAM_TUN_RELAY_BATCH];

    u_char                    scratch[NGX_STREAM_TUN_SOCKS5_HEADER
                                      + NGX_STREAM_TUN_RELAY_BUFFER];

    /* what is read into */
    u_char                    in[NGX_STREAM_TUN_RELAY_MSGS]
                                [NGX_STREAM_TUN_RELAY_BUFFER];
};


static ngx_stream_tun_batch_t *ngx_stream_tun_relay_batch(
    ngx_stream_tun_relay_t *relay);
static ngx_int_t ngx_stream_tun_relay_append(ngx_stream_tun_batch_t *batch,
    ngx_stream_tun_relay_t *relay, ngx_tun_datagram_t *datagram);
static void ngx_stream_tun_relay_flush_handler(ngx_event_t *ev);
static void ngx_stream_tun_relay_flush(ngx_stream_tun_batch_t *batch);
static ngx_int_t ngx_stream_tun_relay_send_segments(
    ngx_stream_tun_batch_t *batch);
static void ngx_stream_tun_relay_send_one(ngx_stream_tun_relay_t *relay,
    struct sockaddr *sa, socklen_t socklen, u_char *data, size_t len);
static socklen_t ngx_stream_tun_relay_sockaddr(ngx_stream_tun_relay_t *relay,
    ngx_sockaddr_t *sa, ngx_tun_datagram_t *datagram);
static void ngx_stream_tun_relay_datagram(ngx_tun_datagram_t *datagram,
    ngx_sockaddr_t *sa);

static void ngx_stream_tun_relay_read_handler(ngx_event_t *rev);
static ngx_int_t ngx_stream_tun_relay_read(ngx_stream_tun_relay_t *relay);
static void ngx_stream_tun_relay_received(ngx_stream_tun_relay_t *relay,
    struct msghdr *msg, size_t len);
static size_t ngx_stream_tun_relay_segment(struct msghdr *msg);
static void ngx_stream_tun_relay_errors(ngx_stream_tun_relay_t *relay);
static ngx_int_t ngx_stream_tun_relay_reason(struct msghdr *msg,
    ngx_tun_icmp_error_e *reason);
static void ngx_stream_tun_relay_dummy_handler(ngx_event_t *ev);


ngx_int_t
ngx_stream_tun_relay_open(ngx_stream_tun_relay_t *relay, int family)
{
    int                on;
    ngx_socket_t       fd;
    ngx_connection_t  *c, *pc;

    c = relay->session->connection;

    fd = socket(family, SOCK_DGRAM|SOCK_NONBLOCK|SOCK_CLOEXEC, 0);

    if (fd == (ngx_socket_t) -1) {
        ngx_log_error(NGX_LOG_ERR, c->log, ngx_socket_errno,
                      ngx_socket_n " failed");
        return NGX_ERROR;
    }

    on = 1;

    /* without these datagrams come one by one, and errors do not come */

    (void) setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(int));

#if (NGX_HAVE_INET6)
    if (family == AF_INET6) {
        (void) setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof(int));

    } else
#endif
    {
        (void) setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(int));
    }

    if (ngx_stream_tun_guard_bind(relay->session, fd, family) != NGX_OK) {
        (void) ngx_close_socket(fd);
        return NGX_ERROR;
    }

    pc = ngx_get_connection(fd, c->log);

    if (pc == NULL) {
        (void) ngx_close_socket(fd);
        return NGX_ERROR;
    }

    pc->data = relay;
    pc->log = c->log;
    pc->read->log = c->log;
    pc->write->log = c->log;
    pc->log_error = NGX_ERROR_INFO;
    pc->type = SOCK_DGRAM;

    pc->read->handler = ngx_stream_tun_relay_read_handler;
    pc->write->handler = ngx_stream_tun_relay_dummy_handler;

    relay->upstream = pc;

    if (ngx_stream_tun_relay_batch(relay) == NULL
        || ngx_add_event(pc->read, NGX_READ_EVENT, NGX_CLEAR_EVENT) != NGX_OK)
    {
        ngx_close_connection(pc);
        relay->upstream = NULL;
        return NGX_ERROR;
    }

    return NGX_OK;
}


void
ngx_stream_tun_relay_close(ngx_stream_tun_relay_t *relay)
{
    ngx_stream_tun_batch_t  *batch;

    if (relay->upstream == NULL) {
        return;
    }

    batch = ngx_stream_tun_relay_batch(relay);

    if (batch->relay == relay) {
        ngx_stream_tun_relay_flush(batch);
        batch->relay = NULL;
    }

    ngx_tun_hold(relay->session->connection, relay->upstream->fd);

    ngx_close_connection(relay->upstream);
}


/* one for all relays of a worker: it is empty after each turn */

static ngx_stream_tun_batch_t *
ngx_stream_tun_relay_batch(ngx_stream_tun_relay_t *relay)
{
    ngx_stream_tun_batch_t      *batch;
    ngx_stream_tun_main_conf_t  *tmcf;

    tmcf = ngx_stream_get_module_main_conf(relay->session,
                                           ngx_stream_tun_module);
    batch = tmcf->batch;

    if (batch == NULL) {
        batch = ngx_pcalloc(ngx_cycle->pool, sizeof(ngx_stream_tun_batch_t));
        if (batch == NULL) {
            return NULL;
        }

        batch->event.data = batch;
        batch->event.log = ngx_cycle->log;
        batch->event.handler = ngx_stream_tun_relay_flush_handler;

        tmcf->batch = batch;
    }

    return batch;
}


u_char *
ngx_stream_tun_relay_scratch(ngx_stream_tun_relay_t *relay)
{
    return ngx_stream_tun_relay_batch(relay)->scratch;
}


void
ngx_stream_tun_relay_send(ngx_stream_tun_relay_t *relay,
    ngx_tun_datagram_t *datagram)
{
    socklen_t                socklen;
    ngx_sockaddr_t           sa;
    ngx_stream_tun_batch_t  *batch;

    batch = ngx_stream_tun_relay_batch(relay);

    if (ngx_stream_tun_relay_append(batch, relay, datagram) == NGX_OK) {
        return;
    }

    ngx_stream_tun_relay_flush(batch);

    if (batch->plain
        || datagram->len == 0
        || datagram->len > NGX_STREAM_TUN_RELAY_SMALL)
    {
        socklen = ngx_stream_tun_relay_sockaddr(relay, &sa, datagram);

        ngx_stream_tun_relay_send_one(relay, &sa.sockaddr, socklen,
                                      datagram->data, datagram->len);
        return;
    }

    batch->relay = relay;
    batch->target = *datagram;
    batch->socklen = ngx_stream_tun_relay_sockaddr(relay, &batch->to,
                                                   datagram);
    batch->size = datagram->len;
    batch->open = 1;

    (void) ngx_stream_tun_relay_append(batch, relay, datagram);

    if (!batch->event.posted) {
        ngx_post_event(&batch->event, &ngx_posted_events);
    }
}


static ngx_int_t
ngx_stream_tun_relay_append(ngx_stream_tun_batch_t *batch,
    ngx_stream_tun_relay_t *relay, ngx_tun_datagram_t *datagram)
{
    if (!batch->open
        || batch->relay != relay
        || datagram->len == 0
        || datagram->len > batch->size
        || datagram->len > NGX_STREAM_TUN_RELAY_BATCH - batch->len
        || datagram->port != batch->target.port
        || ngx_memcmp(datagram->addr, batch->target.addr, 16) != 0)
    {
        return NGX_DECLINED;
    }

    ngx_memcpy(batch->data + batch->len, datagram->data, datagram->len);

    batch->len += datagram->len;
    batch->n++;

    if (datagram->len != batch->size
        || batch->n == NGX_STREAM_TUN_RELAY_MAX)
    {
        batch->open = 0;
    }

    return NGX_OK;
}


static void
ngx_stream_tun_relay_flush_handler(ngx_event_t *ev)
{
    ngx_stream_tun_relay_flush(ev->data);
}


static void
ngx_stream_tun_relay_flush(ngx_stream_tun_batch_t *batch)
{
    u_char  *p;
    size_t   len, size;

    if (batch->n == 0) {
        return;
    }

    if (batch->n == 1
        || ngx_stream_tun_relay_send_segments(batch) != NGX_OK)
    {
        p = batch->data;

        for (len = batch->len; len != 0; len -= size) {
            size = ngx_min(len, batch->size);

            ngx_stream_tun_relay_send_one(batch->relay, &batch->to.sockaddr,
                                          batch->socklen, p, size);
            p += size;
        }
    }

    batch->n = 0;
    batch->len = 0;
    batch->open = 0;
}


static ngx_int_t
ngx_stream_tun_relay_send_segments(ngx_stream_tun_batch_t *batch)
{
    ssize_t                        n;
    uint16_t                       size;
    struct iovec                   iov;
    struct msghdr                  msg;
    ngx_stream_tun_relay_cmsg_t    control;

    iov.iov_base = batch->data;
    iov.iov_len = batch->len;

    ngx_memzero(&msg, sizeof(struct msghdr));
    ngx_memzero(&control, sizeof(ngx_stream_tun_relay_cmsg_t));

    msg.msg_name = &batch->to;
    msg.msg_namelen = batch->socklen;
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = &control;
    msg.msg_controllen = CMSG_SPACE(sizeof(uint16_t));

    control.cmsg.cmsg_level = IPPROTO_UDP;
    control.cmsg.cmsg_type = UDP_SEGMENT;
    control.cmsg.cmsg_len = CMSG_LEN(sizeof(uint16_t));

    size = (uint16_t) batch->size;
    ngx_memcpy(CMSG_DATA(&control.cmsg), &size, sizeof(uint16_t));

    do {
        n = sendmsg(batch->relay->upstream->fd, &msg, 0);
    } while (n == -1 && ngx_socket_errno == NGX_EINTR);

    if (n != -1 || ngx_socket_errno == NGX_EAGAIN) {
        return NGX_OK;
    }

    /* EIO is of a device that sums nothing, and ENOPROTOOPT of a kernel */

    if (ngx_socket_errno == EIO || ngx_socket_errno == NGX_ENOPROTOOPT) {
        batch->plain = 1;
    }

    return NGX_ERROR;
}


static void
ngx_stream_tun_relay_send_one(ngx_stream_tun_relay_t *relay,
    struct sockaddr *sa, socklen_t socklen, u_char *data, size_t len)
{
    ssize_t     n;
    ngx_err_t   err;
    ngx_uint_t  tries;

    /* an error may be that of an earlier datagram, to another address */

    for (tries = 0; tries < 2; tries++) {

        n = sendto(relay->upstream->fd, data, len, 0, sa, socklen);

        if (n != -1) {
            return;
        }

        err = ngx_socket_errno;

        if (err == NGX_EAGAIN || err == ENOBUFS) {
            return;
        }
    }

    ngx_log_error(NGX_LOG_INFO, relay->upstream->log, err,
                  "sendto() failed");
}


static socklen_t
ngx_stream_tun_relay_sockaddr(ngx_stream_tun_relay_t *relay,
    ngx_sockaddr_t *sa, ngx_tun_datagram_t *datagram)
{
    socklen_t          socklen;
    struct sockaddr   *proxy;
    ngx_connection_t  *c;

    if (relay->associate != NULL) {
        proxy = ngx_stream_tun_associate_sockaddr(relay->associate, &socklen);
        ngx_memcpy(sa, proxy, socklen);
        return socklen;
    }

    c = relay->session->connection;

    ngx_memcpy(sa, c->local_sockaddr, c->local_socklen);
    ngx_inet_set_port(&sa->sockaddr, datagram->port);

#if (NGX_HAVE_INET6)
    if (sa->sockaddr.sa_family == AF_INET6) {
        ngx_memcpy(&sa->sockaddr_in6.sin6_addr, datagram->addr, 16);

    } else
#endif
    {
        ngx_memcpy(&sa->sockaddr_in.sin_addr, datagram->addr, 4);
    }

    return c->local_socklen;
}


static void
ngx_stream_tun_relay_datagram(ngx_tun_datagram_t *datagram, ngx_sockaddr_t *sa)
{
    ngx_memzero(datagram->addr, 16);

    datagram->port = ngx_inet_get_port(&sa->sockaddr);

#if (NGX_HAVE_INET6)
    if (sa->sockaddr.sa_family == AF_INET6) {
        ngx_memcpy(datagram->addr, &sa->sockaddr_in6.sin6_addr, 16);

    } else
#endif
    {
        ngx_memcpy(datagram->addr, &sa->sockaddr_in.sin_addr, 4);
    }
}


static void
ngx_stream_tun_relay_read_handler(ngx_event_t *rev)
{
    ngx_uint_t         i;
    ngx_connection_t  *pc;

    pc = rev->data;

    for (i = 0; i < NGX_STREAM_TUN_RELAY_ROUNDS; i++) {
        if (ngx_stream_tun_relay_read(pc->data) != NGX_OK) {
            return;
        }
    }

    ngx_post_event(rev, &ngx_posted_next_events);
}


/* NGX_OK: there may be more */

static ngx_int_t
ngx_stream_tun_relay_read(ngx_stream_tun_relay_t *relay)
{
    int                           n;
    ngx_int_t                     i;
    struct iovec                  iov[NGX_STREAM_TUN_RELAY_MSGS];
    struct mmsghdr                msgs[NGX_STREAM_TUN_RELAY_MSGS];
    ngx_sockaddr_t                from[NGX_STREAM_TUN_RELAY_MSGS];
    ngx_stream_tun_batch_t       *batch;
    ngx_stream_tun_relay_cmsg_t   control[NGX_STREAM_TUN_RELAY_MSGS];

    batch = ngx_stream_tun_relay_batch(relay);

    ngx_memzero(msgs, sizeof(msgs));

    for (i = 0; i < NGX_STREAM_TUN_RELAY_MSGS; i++) {
        iov[i].iov_base = batch->in[i];
        iov[i].iov_len = NGX_STREAM_TUN_RELAY_BUFFER;

        msgs[i].msg_hdr.msg_name = &from[i];
        msgs[i].msg_hdr.msg_namelen = sizeof(ngx_sockaddr_t);
        msgs[i].msg_hdr.msg_iov = &iov[i];
        msgs[i].msg_hdr.msg_iovlen = 1;
        msgs[i].msg_hdr.msg_control = &control[i];
        msgs[i].msg_hdr.msg_controllen = sizeof(ngx_stream_tun_relay_cmsg_t);
    }

    n = recvmmsg(relay->upstream->fd, msgs, NGX_STREAM_TUN_RELAY_MSGS, 0,
                 NULL);

    if (n == -1) {

        if (ngx_socket_errno == NGX_EAGAIN) {
            return NGX_DONE;
        }

        if (ngx_socket_errno != NGX_EINTR) {
            ngx_stream_tun_relay_errors(relay);
        }

        return NGX_OK;
    }

    for (i = 0; i < n; i++) {
        ngx_stream_tun_relay_received(relay, &msgs[i].msg_hdr,
                                      msgs[i].msg_len);
    }

    return (n == NGX_STREAM_TUN_RELAY_MSGS) ? NGX_OK : NGX_DONE;
}


static void
ngx_stream_tun_relay_received(ngx_stream_tun_relay_t *relay,
    struct msghdr *msg, size_t len)
{
    u_char              *data;
    size_t               size;
    ngx_tun_datagram_t   datagram;

    ngx_stream_tun_relay_datagram(&datagram, msg->msg_name);

    data = msg->msg_iov->iov_base;
    size = ngx_stream_tun_relay_segment(msg);

    if (size == 0) {
        size = len;
    }

    do {
        datagram.data = data;
        datagram.len = ngx_min(size, len);

        data += datagram.len;
        len -= datagram.len;

        if (relay->associate != NULL
            && ngx_stream_tun_associate_received(relay, &datagram) != NGX_OK)
        {
            continue;
        }

        if (ngx_stream_tun_relay_accepts(relay, &datagram)) {
            ngx_tun_send_datagram(relay->session->connection, &datagram);
        }

    } while (len != 0);
}


/* the size of datagrams that came together, or 0 */

static size_t
ngx_stream_tun_relay_segment(struct msghdr *msg)
{
    int              size;
    struct cmsghdr  *cmsg;

    for (cmsg = CMSG_FIRSTHDR(msg);
         cmsg != NULL;
         cmsg = CMSG_NXTHDR(msg, cmsg))
    {
        if (cmsg->cmsg_level == IPPROTO_UDP && cmsg->cmsg_type == UDP_GRO) {
            ngx_memcpy(&size, CMSG_DATA(cmsg), sizeof(int));
            return size;
        }
    }

    return 0;
}


/* ICMP about what was sent; the destination is that of the datagram */

static void
ngx_stream_tun_relay_errors(ngx_stream_tun_relay_t *relay)
{
    u_char                      data[16];
    ssize_t                     n;
    ngx_int_t                   rc;
    ngx_uint_t                  i;
    struct iovec                iov;
    struct msghdr               msg;
    ngx_sockaddr_t              to;
    ngx_tun_datagram_t          datagram;
    ngx_tun_icmp_error_e        reason;
    ngx_stream_tun_relay_err_t  control;

    for (i = 0; i < NGX_STREAM_TUN_RELAY_MSGS; i++) {

        ngx_memzero(&msg, sizeof(struct msghdr));

        iov.iov_base = data;
        iov.iov_len = sizeof(data);

        msg.msg_name = &to;
        msg.msg_namelen = sizeof(ngx_sockaddr_t);
        msg.msg_iov = &iov;
        msg.msg_iovlen = 1;
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(ngx_stream_tun_relay_err_t);

        n = recvmsg(relay->upstream->fd, &msg, MSG_ERRQUEUE|MSG_TRUNC);

        if (n == -1) {
            return;
        }

        rc = ngx_stream_tun_relay_reason(&msg, &reason);

        /* of a proxy's socket it tells the client nothing */

        if (rc != NGX_OK
            || msg.msg_namelen == 0
            || relay->associate != NULL)
        {
            continue;
        }

        ngx_stream_tun_relay_datagram(&datagram, &to);
        datagram.len = n;

        ngx_tun_refuse_datagram(relay->session->connection, &datagram, reason);
    }
}


static ngx_int_t
ngx_stream_tun_relay_reason(struct msghdr *msg, ngx_tun_icmp_error_e *reason)
{
    struct cmsghdr            *cmsg;
    struct sock_extended_err   err;

    cmsg = CMSG_FIRSTHDR(msg);

    if (cmsg == NULL
        || cmsg->cmsg_len < CMSG_LEN(sizeof(struct sock_extended_err)))
    {
        return NGX_DECLINED;
    }

    ngx_memcpy(&err, CMSG_DATA(cmsg), sizeof(struct sock_extended_err));

    switch (err.ee_errno) {

    case NGX_ECONNREFUSED:
        *reason = NGX_TUN_ICMP_PORT_UNREACHABLE;
        return NGX_OK;

    case NGX_EHOSTUNREACH:
    case NGX_ENETUNREACH:
        *reason = NGX_TUN_ICMP_HOST_UNREACHABLE;
        return NGX_OK;

    default:
        return NGX_DECLINED;
    }
}


static void
ngx_stream_tun_relay_dummy_handler(ngx_event_t *ev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_STREAM, ev->log, 0,
                   "stream tun relay dummy handler");
}
