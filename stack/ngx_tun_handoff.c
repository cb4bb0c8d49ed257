
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_handoff.h>

#include <poll.h>


/* on the way to a predecessor: some 64 packets of the largest size */
#define NGX_TUN_HANDOFF_BUFFER  (4 * 1024 * 1024)


static ngx_int_t ngx_tun_handoff_pair(ngx_tun_handoff_t *handoff);


ngx_tun_handoff_t *
ngx_tun_handoff_open(ngx_uint_t n, ngx_tun_handoff_t *old, ngx_uint_t n_old,
    ngx_pool_t *pool, ngx_log_t *log)
{
    ngx_uint_t          i;
    ngx_tun_handoff_t  *handoff;

    handoff = ngx_palloc(pool, n * sizeof(ngx_tun_handoff_t));
    if (handoff == NULL) {
        return NULL;
    }

    for (i = 0; i < n; i++) {
        handoff[i].read = (ngx_socket_t) -1;
        handoff[i].write = (ngx_socket_t) -1;
        handoff[i].previous = (ngx_socket_t) -1;
    }

    for (i = 0; i < n; i++) {

        if (ngx_tun_handoff_pair(&handoff[i]) != NGX_OK) {
            goto failed;
        }

        if (i >= n_old) {
            continue;
        }

        handoff[i].previous = fcntl(old[i].write, F_DUPFD_CLOEXEC, 0);

        if (handoff[i].previous == (ngx_socket_t) -1) {
            goto failed;
        }
    }

    return handoff;

failed:

    ngx_log_error(NGX_LOG_EMERG, log, ngx_socket_errno,
                  "socketpair() or fcntl(F_DUPFD_CLOEXEC) for tun failed");

    ngx_tun_handoff_close(handoff, n);

    return NULL;
}


static ngx_int_t
ngx_tun_handoff_pair(ngx_tun_handoff_t *handoff)
{
    int           size;
    ngx_socket_t  s[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET|SOCK_NONBLOCK|SOCK_CLOEXEC, 0, s)
        == -1)
    {
        return NGX_ERROR;
    }

    handoff->read = s[0];
    handoff->write = s[1];

    size = NGX_TUN_HANDOFF_BUFFER;

    if (setsockopt(s[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(int)) == -1)
    {
        (void) setsockopt(s[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(int));
    }

    return NGX_OK;
}


void
ngx_tun_handoff_close(ngx_tun_handoff_t *handoff, ngx_uint_t n)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {

        if (handoff[i].read != (ngx_socket_t) -1) {
            (void) ngx_close_socket(handoff[i].read);
            (void) ngx_close_socket(handoff[i].write);
        }

        if (handoff[i].previous != (ngx_socket_t) -1) {
            (void) ngx_close_socket(handoff[i].previous);
        }
    }
}


ngx_int_t
ngx_tun_handoff_send(ngx_tun_handoff_t *handoff, u_char *p, size_t len,
    ngx_uint_t trusted)
{
    u_char         flag;
    struct iovec   iov[2];
    struct msghdr  msg;

    if (handoff->previous == (ngx_socket_t) -1) {
        return NGX_DECLINED;
    }

    flag = (u_char) trusted;

    iov[0].iov_base = (void *) &flag;
    iov[0].iov_len = 1;
    iov[1].iov_base = (void *) p;
    iov[1].iov_len = len;

    ngx_memzero(&msg, sizeof(struct msghdr));

    msg.msg_iov = iov;
    msg.msg_iovlen = 2;

    if (sendmsg(handoff->previous, &msg, MSG_NOSIGNAL) != -1) {
        return NGX_OK;
    }

    /* a full queue is a lost packet, which is what TCP is made for */

    if (ngx_socket_errno == NGX_EAGAIN) {
        return NGX_OK;
    }

    (void) ngx_close_socket(handoff->previous);
    handoff->previous = (ngx_socket_t) -1;

    return NGX_DECLINED;
}


ngx_int_t
ngx_tun_handoff_own(ngx_tun_handoff_t *handoff, ngx_uint_t own)
{
    if (handoff->previous != (ngx_socket_t) -1) {
        (void) ngx_close_socket(handoff->previous);
    }

    handoff->previous = (ngx_socket_t) -1;

    if (!own) {
        return NGX_OK;
    }

    handoff->previous = fcntl(handoff->write, F_DUPFD_CLOEXEC, 0);

    return (handoff->previous != (ngx_socket_t) -1) ? NGX_OK : NGX_ERROR;
}


ngx_uint_t
ngx_tun_handoff_alive(ngx_tun_handoff_t *handoff)
{
    struct pollfd  pfd;

    if (handoff->previous == (ngx_socket_t) -1) {
        return 0;
    }

    pfd.fd = handoff->previous;
    pfd.events = 0;

    if (poll(&pfd, 1, 0) == 0) {
        return 1;
    }

    (void) ngx_close_socket(handoff->previous);
    handoff->previous = (ngx_socket_t) -1;

    return 0;
}


ssize_t
ngx_tun_handoff_recv(ngx_tun_handoff_t *handoff, u_char *p, size_t size,
    ngx_uint_t *trusted)
{
    u_char         flag;
    ssize_t        n;
    struct iovec   iov[2];
    struct msghdr  msg;

    iov[0].iov_base = (void *) &flag;
    iov[0].iov_len = 1;
    iov[1].iov_base = (void *) p;
    iov[1].iov_len = size;

    ngx_memzero(&msg, sizeof(struct msghdr));

    msg.msg_iov = iov;
    msg.msg_iovlen = 2;

    n = recvmsg(handoff->read, &msg, 0);

    if (n == -1) {
        return (ngx_socket_errno == NGX_EAGAIN) ? NGX_AGAIN : NGX_ERROR;
    }

    *trusted = flag;

    return (n > 1) ? n - 1 : NGX_ERROR;
}
