
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_netlink.h>


#define NGX_TUN_NETLINK_BUFFER   32768
#define NGX_TUN_NETLINK_TIMEOUT  1           /* second */


static ssize_t ngx_tun_netlink_recv(ngx_socket_t s, u_char *buf, size_t size);
static ngx_int_t ngx_tun_netlink_answer(ngx_tun_netlink_msg_t *msg,
    u_char *buf, size_t size, ngx_tun_netlink_pt handler, void *data);
static ngx_int_t ngx_tun_netlink_error(ngx_tun_netlink_msg_t *msg,
    struct nlmsghdr *header);
static struct rtattr *ngx_tun_netlink_find(struct rtattr *rta, int len,
    ngx_uint_t type);


ngx_socket_t
ngx_tun_netlink_open(void)
{
    int             on;
    ngx_socket_t    s;
    struct timeval  tv;

    s = socket(AF_NETLINK, SOCK_RAW|SOCK_CLOEXEC, NETLINK_ROUTE);
    if (s == (ngx_socket_t) -1) {
        return s;
    }

    tv.tv_sec = NGX_TUN_NETLINK_TIMEOUT;
    tv.tv_usec = 0;

    (void) setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));

    /* older kernels have no words for errors, then there are none */

    on = 1;

    (void) setsockopt(s, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
    (void) setsockopt(s, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));

    return s;
}


void *
ngx_tun_netlink_init(ngx_tun_netlink_msg_t *msg, ngx_uint_t type,
    ngx_uint_t flags, size_t size)
{
    struct nlmsghdr  *header;

    ngx_memzero(msg, sizeof(ngx_tun_netlink_msg_t));

    header = &msg->u.header;

    header->nlmsg_len = NLMSG_LENGTH(size);
    header->nlmsg_type = (uint16_t) type;
    header->nlmsg_flags = (uint16_t) (NLM_F_REQUEST | flags);

    return NLMSG_DATA(header);
}


void
ngx_tun_netlink_add(ngx_tun_netlink_msg_t *msg, ngx_uint_t type, void *data,
    size_t len)
{
    size_t            offset;
    struct rtattr    *rta;
    struct nlmsghdr  *header;

    header = &msg->u.header;
    offset = NLMSG_ALIGN(header->nlmsg_len);

    if (offset + RTA_SPACE(len) > sizeof(msg->u.data)) {
        msg->overflow = 1;
        return;
    }

    rta = (struct rtattr *) (msg->u.data + offset);
    rta->rta_type = (uint16_t) type;
    rta->rta_len = (uint16_t) RTA_LENGTH(len);

    ngx_memcpy(RTA_DATA(rta), data, len);

    header->nlmsg_len = offset + rta->rta_len;
}


void
ngx_tun_netlink_add_u32(ngx_tun_netlink_msg_t *msg, ngx_uint_t type,
    uint32_t value)
{
    ngx_tun_netlink_add(msg, type, &value, sizeof(uint32_t));
}


ngx_int_t
ngx_tun_netlink_talk(ngx_socket_t s, ngx_tun_netlink_msg_t *msg,
    ngx_tun_netlink_pt handler, void *data)
{
    u_char           *buf;
    ssize_t           n;
    ngx_int_t         rc;
    ngx_err_t         err;
    struct nlmsghdr  *header;

    header = &msg->u.header;

    if (msg->overflow) {
        ngx_set_errno(EMSGSIZE);
        return NGX_ERROR;
    }

    if ((header->nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP) {
        header->nlmsg_flags |= NLM_F_ACK;
    }

    /* an answer that comes too late is not taken for another */
    header->nlmsg_seq = (uint32_t) ngx_random();

    if (send(s, header, header->nlmsg_len, 0) == -1) {
        return NGX_ERROR;
    }

    buf = malloc(NGX_TUN_NETLINK_BUFFER);
    if (buf == NULL) {
        return NGX_ERROR;
    }

    do {
        n = ngx_tun_netlink_recv(s, buf, NGX_TUN_NETLINK_BUFFER);

        rc = (n == -1) ? NGX_ERROR
                       : ngx_tun_netlink_answer(msg, buf, n, handler, data);

    } while (rc == NGX_AGAIN);

    err = ngx_errno;
    free(buf);
    ngx_set_errno(err);

    return rc;
}


static ssize_t
ngx_tun_netlink_recv(ngx_socket_t s, u_char *buf, size_t size)
{
    ssize_t             n;
    struct iovec        iov;
    struct msghdr       msg;
    struct sockaddr_nl  sa;

    iov.iov_base = buf;
    iov.iov_len = size;

    ngx_memzero(&sa, sizeof(struct sockaddr_nl));
    ngx_memzero(&msg, sizeof(struct msghdr));

    msg.msg_name = &sa;
    msg.msg_namelen = sizeof(struct sockaddr_nl);
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;

    do {
        n = recvmsg(s, &msg, 0);
    } while (n == -1 && ngx_errno == NGX_EINTR);

    if (n == -1) {
        return -1;
    }

    if (msg.msg_flags & MSG_TRUNC) {
        ngx_set_errno(EMSGSIZE);
        return -1;
    }

    /* only the kernel is listened to */

    return (sa.nl_pid == 0) ? n : 0;
}


static ngx_int_t
ngx_tun_netlink_answer(ngx_tun_netlink_msg_t *msg, u_char *buf, size_t size,
    ngx_tun_netlink_pt handler, void *data)
{
    size_t            len;
    struct nlmsghdr  *header;

    len = size;
    header = (struct nlmsghdr *) buf;

    for ( /* void */ ; NLMSG_OK(header, len); header = NLMSG_NEXT(header, len))
    {
        if (header->nlmsg_seq != msg->u.header.nlmsg_seq) {
            continue;
        }

        switch (header->nlmsg_type) {

        /* both have an error code first, it ends a dump that failed too */

        case NLMSG_DONE:
        case NLMSG_ERROR:
            return ngx_tun_netlink_error(msg, header);

        default:
            if (handler != NULL && handler(header, data) != NGX_OK) {
                return NGX_ERROR;
            }
        }
    }

    return NGX_AGAIN;
}


static ngx_int_t
ngx_tun_netlink_error(ngx_tun_netlink_msg_t *msg, struct nlmsghdr *header)
{
    int             error;
    size_t          size;
    struct rtattr  *rta;

    size = (header->nlmsg_type == NLMSG_DONE) ? sizeof(int)
                                              : sizeof(struct nlmsgerr);

    if (header->nlmsg_len < NLMSG_LENGTH(size)) {
        ngx_set_errno(EBADMSG);
        return NGX_ERROR;
    }

    error = *(int *) NLMSG_DATA(header);

    if (error == 0) {
        return NGX_OK;
    }

    if (header->nlmsg_flags & NLM_F_ACK_TLVS) {
        rta = ngx_tun_netlink_attr(header, size, NLMSGERR_ATTR_MSG);
        if (rta != NULL) {
            (void) ngx_snprintf(msg->error, sizeof(msg->error), "%*s%Z",
                                ngx_min(RTA_PAYLOAD(rta),
                                        sizeof(msg->error) - 1),
                                RTA_DATA(rta));
        }
    }

    ngx_set_errno(-error);

    return NGX_ERROR;
}


struct rtattr *
ngx_tun_netlink_attr(struct nlmsghdr *header, size_t size, ngx_uint_t type)
{
    u_char  *p;

    p = (u_char *) NLMSG_DATA(header) + NLMSG_ALIGN(size);

    return ngx_tun_netlink_find((struct rtattr *) p,
                                (int) header->nlmsg_len
                                - (int) NLMSG_SPACE(size), type);
}


struct rtattr *
ngx_tun_netlink_nested(struct rtattr *rta, ngx_uint_t type)
{
    return ngx_tun_netlink_find(RTA_DATA(rta), (int) RTA_PAYLOAD(rta), type);
}


static struct rtattr *
ngx_tun_netlink_find(struct rtattr *rta, int len, ngx_uint_t type)
{
    for ( /* void */ ; RTA_OK(rta, len); rta = RTA_NEXT(rta, len)) {
        if ((rta->rta_type & NLA_TYPE_MASK) == type) {
            return rta;
        }
    }

    return NULL;
}
