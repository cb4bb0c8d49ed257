
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_handoff.h>


/*
 * Boxes that nobody has, for each worker: for itself, for the one of a new
 * binary, for the one that comes if that one goes, and for a reload of it.
 */
#define NGX_TUN_HANDOFF_FREE    4

/* on the way to a process: some 64 packets of the largest size */
#define NGX_TUN_HANDOFF_BUFFER  (4 * 1024 * 1024)


static ngx_int_t ngx_tun_handoff_dup(ngx_tun_handoff_t *handoff,
    ngx_tun_handoff_t *old);
static ngx_int_t ngx_tun_handoff_pair(ngx_tun_handoff_pair_t *pair);


ngx_int_t
ngx_tun_handoff_open(ngx_tun_handoff_t *handoff, ngx_tun_handoff_t *old,
    ngx_tun_owners_t *owners, ngx_uint_t n, ngx_log_t *log)
{
    ngx_uint_t  free;

    if (old != NULL && ngx_tun_handoff_dup(handoff, old) != NGX_OK) {
        goto failed;
    }

    free = handoff->n - ngx_tun_owners_taken(owners, handoff->n);

    while (free < NGX_TUN_HANDOFF_FREE * n && handoff->n < NGX_TUN_OWNER_BOXES)
    {

        if (ngx_tun_handoff_pair(&handoff->pairs[handoff->n]) != NGX_OK) {
            goto failed;
        }

        handoff->n++;
        free++;
    }

    return NGX_OK;

failed:

    ngx_log_error(NGX_LOG_EMERG, log, ngx_socket_errno,
                  "socketpair() or fcntl(F_DUPFD_CLOEXEC) for tun failed");

    ngx_tun_handoff_close(handoff);

    return NGX_ERROR;
}


static ngx_int_t
ngx_tun_handoff_dup(ngx_tun_handoff_t *handoff, ngx_tun_handoff_t *old)
{
    ngx_uint_t               i;
    ngx_tun_handoff_pair_t  *pair;

    for (i = 0; i < old->n; i++) {
        pair = &handoff->pairs[i];

        pair->read = fcntl(old->pairs[i].read, F_DUPFD_CLOEXEC, 0);

        if (pair->read == (ngx_socket_t) -1) {
            return NGX_ERROR;
        }

        pair->write = fcntl(old->pairs[i].write, F_DUPFD_CLOEXEC, 0);

        if (pair->write == (ngx_socket_t) -1) {
            (void) ngx_close_socket(pair->read);
            return NGX_ERROR;
        }

        handoff->n++;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_tun_handoff_pair(ngx_tun_handoff_pair_t *pair)
{
    int           size;
    ngx_socket_t  s[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET|SOCK_NONBLOCK|SOCK_CLOEXEC, 0, s)
        == -1)
    {
        return NGX_ERROR;
    }

    pair->read = s[0];
    pair->write = s[1];

    size = NGX_TUN_HANDOFF_BUFFER;

    if (setsockopt(s[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(int)) == -1)
    {
        (void) setsockopt(s[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(int));
    }

    return NGX_OK;
}


void
ngx_tun_handoff_close(ngx_tun_handoff_t *handoff)
{
    ngx_uint_t  i;

    for (i = 0; i < handoff->n; i++) {
        (void) ngx_close_socket(handoff->pairs[i].read);
        (void) ngx_close_socket(handoff->pairs[i].write);
    }

    handoff->n = 0;
}


ngx_int_t
ngx_tun_handoff_send(ngx_tun_handoff_t *handoff, ngx_uint_t box, u_char *p,
    size_t len, ngx_tun_handoff_info_t *info)
{
    struct iovec   iov[2];
    struct msghdr  msg;

    if (box >= handoff->n) {
        return NGX_DECLINED;
    }

    iov[0].iov_base = (void *) info;
    iov[0].iov_len = sizeof(ngx_tun_handoff_info_t);
    iov[1].iov_base = (void *) p;
    iov[1].iov_len = len;

    ngx_memzero(&msg, sizeof(struct msghdr));

    msg.msg_iov = iov;
    msg.msg_iovlen = 2;

    /* a full queue is a lost packet, which is what TCP is made for */

    return (sendmsg(handoff->pairs[box].write, &msg, MSG_NOSIGNAL) != -1
            || ngx_socket_errno == NGX_EAGAIN)
           ? NGX_OK : NGX_DECLINED;
}


ssize_t
ngx_tun_handoff_recv(ngx_tun_handoff_t *handoff, ngx_uint_t box, u_char *p,
    size_t size, ngx_tun_handoff_info_t *info)
{
    ssize_t        n;
    struct iovec   iov[2];
    struct msghdr  msg;

    iov[0].iov_base = (void *) info;
    iov[0].iov_len = sizeof(ngx_tun_handoff_info_t);
    iov[1].iov_base = (void *) p;
    iov[1].iov_len = size;

    ngx_memzero(&msg, sizeof(struct msghdr));

    msg.msg_iov = iov;
    msg.msg_iovlen = 2;

    n = recvmsg(handoff->pairs[box].read, &msg, 0);

    if (n == -1) {
        return (ngx_socket_errno == NGX_EAGAIN) ? NGX_AGAIN : NGX_ERROR;
    }

    n -= sizeof(ngx_tun_handoff_info_t);

    return (n > 0) ? n : NGX_ERROR;
}
