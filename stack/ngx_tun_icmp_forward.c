
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_icmp_forward.h>
#include <ngx_tun_icmp_ping.h>


#define NGX_TUN_ICMP_PACKETS  64         /* answers read in a turn */

#define NGX_TUN_ICMP_HEAD     64         /* room for an IPv6 header */
#define NGX_TUN_ICMP_LEN      8


struct ngx_tun_icmp_forward_s {
    ngx_tun_t                *tun;
    ngx_connection_t         *connections[2];

    ngx_tun_pings_t           pings;
    u_char                   *buf;
};


static ngx_connection_t *ngx_tun_icmp_forward_connection(
    ngx_tun_icmp_forward_t *fwd, ngx_socket_t s);
static ngx_int_t ngx_tun_icmp_forward_sendmsg(ngx_socket_t s,
    ngx_tun_packet_t *pkt, uint16_t id);
static void ngx_tun_icmp_forward_control(struct msghdr *msg,
    ngx_tun_packet_t *pkt);
static socklen_t ngx_tun_icmp_forward_sockaddr(ngx_sockaddr_t *sa,
    ngx_tun_packet_t *pkt);
static ngx_int_t ngx_tun_icmp_forward_failed(ngx_tun_icmp_forward_t *fwd,
    ngx_err_t err, ngx_tun_icmp_error_e *error);
static void ngx_tun_icmp_forward_handler(ngx_event_t *rev);
static ssize_t ngx_tun_icmp_forward_recv(ngx_tun_icmp_forward_t *fwd,
    ngx_socket_t s, u_char *addr, ngx_uint_t *ttl);
static void ngx_tun_icmp_forward_input(ngx_tun_icmp_forward_t *fwd,
    ngx_tun_packet_t *pkt, ngx_uint_t ttl);


ngx_tun_icmp_forward_t *
ngx_tun_icmp_forward_open(ngx_tun_t *tun, ngx_tun_icmp_sockets_t *sockets,
    ngx_uint_t part, ngx_uint_t parts)
{
    ngx_uint_t               i;
    ngx_tun_icmp_forward_t  *fwd;

    fwd = ngx_calloc(sizeof(ngx_tun_icmp_forward_t), tun->log);
    if (fwd == NULL) {
        return NULL;
    }

    fwd->tun = tun;

    if (ngx_tun_pings_init(&fwd->pings, part, parts, tun->log) != NGX_OK) {
        goto failed;
    }

    fwd->buf = ngx_alloc(NGX_TUN_ICMP_HEAD + 65535, tun->log);
    if (fwd->buf == NULL) {
        goto failed;
    }

    for (i = 0; i < 2; i++) {

        if (sockets->fds[i] == (ngx_socket_t) -1) {
            continue;
        }

        if (ngx_tun_icmp_socket_ids(sockets->fds[i],
                                    (i == 0) ? AF_INET : AF_INET6,
                                    fwd->pings.first, fwd->pings.nids)
            != NGX_OK)
        {
            ngx_log_error(NGX_LOG_EMERG, tun->log, ngx_socket_errno,
                          "setsockopt(SO_ATTACH_FILTER) failed");
            goto failed;
        }

        fwd->connections[i] = ngx_tun_icmp_forward_connection(fwd,
                                                          sockets->fds[i]);
        if (fwd->connections[i] == NULL) {
            goto failed;
        }
    }

    return fwd;

failed:

    ngx_tun_icmp_forward_close(fwd);

    return NULL;
}


static ngx_connection_t *
ngx_tun_icmp_forward_connection(ngx_tun_icmp_forward_t *fwd, ngx_socket_t s)
{
    ngx_connection_t  *c;

    c = ngx_get_connection(s, fwd->tun->log);
    if (c == NULL) {
        return NULL;
    }

    c->data = fwd;
    c->log = fwd->tun->log;
    c->read->log = c->log;
    c->write->log = c->log;
    c->read->handler = ngx_tun_icmp_forward_handler;
    c->read->channel = 1;

    if (ngx_add_event(c->read, NGX_READ_EVENT, NGX_CLEAR_EVENT) != NGX_OK) {
        ngx_tun_close_connection(c);
        return NULL;
    }

    return c;
}


void
ngx_tun_icmp_forward_close(ngx_tun_icmp_forward_t *fwd)
{
    ngx_uint_t  i;

    for (i = 0; i < 2; i++) {
        if (fwd->connections[i] != NULL) {
            ngx_tun_close_connection(fwd->connections[i]);
        }
    }

    ngx_tun_pings_done(&fwd->pings);

    if (fwd->buf != NULL) {
        ngx_free(fwd->buf);
    }

    ngx_free(fwd);
}


ngx_int_t
ngx_tun_icmp_forward_send(ngx_tun_icmp_forward_t *fwd, ngx_tun_packet_t *pkt,
    ngx_tun_packet_icmp_t *icmp, ngx_tun_icmp_error_e *error)
{
    ngx_tun_ping_t    *ping;
    ngx_connection_t  *c;

    if (ngx_tun_packet_ttl(pkt) <= 1) {
        *error = NGX_TUN_ICMP_TIME_EXCEEDED;
        return NGX_DECLINED;
    }

    c = fwd->connections[(pkt->addr_len == 4) ? 0 : 1];

    /* nginx's own loopback is no place to be reached from elsewhere */

    if (c == NULL || (pkt->addr_len == 4 && pkt->dst[0] == 127)) {
        *error = NGX_TUN_ICMP_HOST_UNREACHABLE;
        return NGX_DECLINED;
    }

    ping = ngx_tun_ping_sent(&fwd->pings, pkt, icmp);

    if (ngx_tun_icmp_forward_sendmsg(c->fd, pkt, ping->id) != NGX_OK) {
        return ngx_tun_icmp_forward_failed(fwd, ngx_socket_errno, error);
    }

    (void) ngx_atomic_fetch_add(&fwd->tun->stat->icmp_forwarded, 1);

    return NGX_OK;
}


/* the packet itself stays as it is, for an error may be about it */

static ngx_int_t
ngx_tun_icmp_forward_sendmsg(ngx_socket_t s, ngx_tun_packet_t *pkt,
    uint16_t id)
{
    u_char            head[NGX_TUN_ICMP_LEN];
    ssize_t           n;
    struct iovec      iov[2];
    struct msghdr     msg;
    ngx_sockaddr_t    sa;
    union {
        struct cmsghdr  align;
        u_char          data[CMSG_SPACE(sizeof(int))];
    } control;

    ngx_memcpy(head, pkt->payload, NGX_TUN_ICMP_LEN);
    ngx_tun_packet_echo_id(head, id);

    iov[0].iov_base = head;
    iov[0].iov_len = NGX_TUN_ICMP_LEN;
    iov[1].iov_base = pkt->payload + NGX_TUN_ICMP_LEN;
    iov[1].iov_len = pkt->end - pkt->payload - NGX_TUN_ICMP_LEN;

    ngx_memzero(&msg, sizeof(struct msghdr));
    ngx_memzero(&control, sizeof(control));

    msg.msg_name = &sa;
    msg.msg_namelen = ngx_tun_icmp_forward_sockaddr(&sa, pkt);
    msg.msg_iov = iov;
    msg.msg_iovlen = 2;
    msg.msg_control = &control;
    msg.msg_controllen = sizeof(control.data);

    ngx_tun_icmp_forward_control(&msg, pkt);

    do {
        n = sendmsg(s, &msg, 0);
    } while (n == -1 && ngx_socket_errno == NGX_EINTR);

    return (n != -1) ? NGX_OK : NGX_ERROR;
}


static void
ngx_tun_icmp_forward_control(struct msghdr *msg, ngx_tun_packet_t *pkt)
{
    int              ttl;
    struct cmsghdr  *cmsg;

    ttl = ngx_tun_packet_ttl(pkt) - 1;

    cmsg = CMSG_FIRSTHDR(msg);
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));

    if (pkt->addr_len == 4) {
        cmsg->cmsg_level = IPPROTO_IP;
        cmsg->cmsg_type = IP_TTL;

    } else {
        cmsg->cmsg_level = IPPROTO_IPV6;
        cmsg->cmsg_type = IPV6_HOPLIMIT;
    }

    ngx_memcpy(CMSG_DATA(cmsg), &ttl, sizeof(int));
}


static socklen_t
ngx_tun_icmp_forward_sockaddr(ngx_sockaddr_t *sa, ngx_tun_packet_t *pkt)
{
    ngx_memzero(sa, sizeof(ngx_sockaddr_t));

    if (pkt->addr_len == 4) {
        sa->sockaddr_in.sin_family = AF_INET;
        ngx_memcpy(&sa->sockaddr_in.sin_addr, pkt->dst, 4);

        return sizeof(struct sockaddr_in);
    }

    sa->sockaddr_in6.sin6_family = AF_INET6;
    ngx_memcpy(&sa->sockaddr_in6.sin6_addr, pkt->dst, 16);

    return sizeof(struct sockaddr_in6);
}


static ngx_int_t
ngx_tun_icmp_forward_failed(ngx_tun_icmp_forward_t *fwd, ngx_err_t err,
    ngx_tun_icmp_error_e *error)
{
    switch (err) {

    case NGX_EACCES:
    case NGX_EPERM:
        *error = NGX_TUN_ICMP_PROHIBITED;
        return NGX_DECLINED;

    case NGX_EHOSTUNREACH:
    case NGX_ENETUNREACH:
    case NGX_ENETDOWN:
    case EADDRNOTAVAIL:
    case NGX_EINVAL:
        *error = NGX_TUN_ICMP_HOST_UNREACHABLE;
        return NGX_DECLINED;

    default:

        /* NGX_EAGAIN, ENOBUFS: the kernel has no room */

        (void) ngx_atomic_fetch_add(&fwd->tun->stat->limited_icmp, 1);

        return NGX_OK;
    }
}


static void
ngx_tun_icmp_forward_handler(ngx_event_t *rev)
{
    u_char                  *p, addr[16];
    ssize_t                  n;
    ngx_uint_t               i, ttl;
    ngx_tun_packet_t         pkt;
    ngx_connection_t        *c;
    ngx_tun_icmp_forward_t  *fwd;

    c = rev->data;
    fwd = c->data;

    p = fwd->buf + NGX_TUN_ICMP_HEAD;
    ttl = 64;

    for (i = 0; i < NGX_TUN_ICMP_PACKETS; i++) {

        n = ngx_tun_icmp_forward_recv(fwd, c->fd, addr, &ttl);

        if (n == NGX_AGAIN) {
            break;
        }

        if (c == fwd->connections[1]) {

            /* without its header, and checked by the kernel */

            pkt.payload = p;
            pkt.end = p + n;
            pkt.src = addr;
            pkt.addr_len = 16;
            pkt.protocol = IPPROTO_ICMPV6;

        } else if (ngx_tun_packet_parse(&pkt, p, p + n) == NGX_TUN_PACKET_OK
                   && ngx_tun_packet_check_icmp(&pkt) == NGX_TUN_PACKET_OK)
        {
            ttl = ngx_tun_packet_ttl(&pkt);

        } else {
            continue;
        }

        ngx_tun_icmp_forward_input(fwd, &pkt, ngx_max(ttl, 2) - 1);
    }

    if (i == NGX_TUN_ICMP_PACKETS) {
        ngx_post_event(rev, &ngx_posted_next_events);
    }

    ngx_tun_post_flush(fwd->tun);
}


/* ttl and addr are set by what comes from an IPv6 socket */

static ssize_t
ngx_tun_icmp_forward_recv(ngx_tun_icmp_forward_t *fwd, ngx_socket_t s,
    u_char *addr, ngx_uint_t *ttl)
{
    int              value;
    ssize_t          n;
    struct iovec     iov;
    struct msghdr    msg;
    ngx_sockaddr_t   sa;
    struct cmsghdr  *cmsg;
    union {
        struct cmsghdr  align;
        u_char          data[CMSG_SPACE(sizeof(int))];
    } control;

    iov.iov_base = fwd->buf + NGX_TUN_ICMP_HEAD;
    iov.iov_len = 65535;

    ngx_memzero(&msg, sizeof(struct msghdr));

    msg.msg_name = &sa;
    msg.msg_namelen = sizeof(ngx_sockaddr_t);
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = &control;
    msg.msg_controllen = sizeof(control.data);

    do {
        n = recvmsg(s, &msg, 0);
    } while (n == -1 && ngx_socket_errno == NGX_EINTR);

    if (n == -1) {
        if (ngx_socket_errno != NGX_EAGAIN) {
            ngx_log_error(NGX_LOG_ERR, fwd->tun->log, ngx_socket_errno,
                          "recvmsg() of a raw socket failed");
        }

        return NGX_AGAIN;
    }

    if (sa.sockaddr.sa_family != AF_INET6) {
        return n;
    }

    ngx_memcpy(addr, &sa.sockaddr_in6.sin6_addr, 16);

    for (cmsg = CMSG_FIRSTHDR(&msg);
         cmsg != NULL;
         cmsg = CMSG_NXTHDR(&msg, cmsg))
    {
        if (cmsg->cmsg_level == IPPROTO_IPV6
            && cmsg->cmsg_type == IPV6_HOPLIMIT)
        {
            ngx_memcpy(&value, CMSG_DATA(cmsg), sizeof(int));
            *ttl = value;
        }
    }

    return n;
}


static void
ngx_tun_icmp_forward_input(ngx_tun_icmp_forward_t *fwd, ngx_tun_packet_t *pkt,
    ngx_uint_t ttl)
{
    ngx_tun_t              *tun;
    ngx_tun_ping_t         *ping;
    ngx_tun_packet_t        quote;
    ngx_tun_packet_icmp_t   icmp;

    if (ngx_tun_packet_parse_icmp(pkt, &icmp) != NGX_TUN_PACKET_OK) {
        return;
    }

    switch (icmp.kind) {

    case NGX_TUN_PACKET_ICMP_REPLY:

        ping = ngx_tun_ping_lookup(&fwd->pings, &icmp, pkt->src, pkt->addr_len);
        if (ping == NULL) {
            return;
        }

        ngx_tun_packet_echo_id(pkt->payload, ping->flow.key.src_port);

        break;

    case NGX_TUN_PACKET_ICMP_ERROR:

        if (ngx_tun_packet_parse_quoted_echo(pkt, &quote, &icmp)
            != NGX_TUN_PACKET_OK)
        {
            return;
        }

        ping = ngx_tun_ping_lookup(&fwd->pings, &icmp, quote.dst,
                                   pkt->addr_len);
        if (ping == NULL) {
            return;
        }

        ngx_tun_packet_requote_echo(&quote, ping->flow.key.src,
                                    ping->flow.key.src_port);

        break;

    default:
        return;
    }

    ngx_tun_packet_finish_icmp(pkt, pkt->src, ping->flow.key.src, ttl);

    tun = fwd->tun;

    (void) ngx_tun_queue_write(&tun->queue, pkt->start, pkt->end - pkt->start);
}
