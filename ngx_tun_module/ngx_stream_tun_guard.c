
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_upstream.h>
#include <ngx_tun_netlink.h>


static const char *ngx_stream_tun_guard_special(struct sockaddr *sockaddr);
static const char *ngx_stream_tun_guard_inet(u_char *addr);
static const char *ngx_stream_tun_guard_own(struct sockaddr *sockaddr,
    ngx_stream_tun_upstream_conf_t *tucf, ngx_log_t *log);
static ngx_int_t ngx_stream_tun_guard_route(struct nlmsghdr *header,
    void *data);


ngx_uint_t
ngx_stream_tun_guarded(ngx_stream_tun_upstream_conf_t *tucf, ngx_addr_t *addr,
    ngx_log_t *log)
{
    const char  *what;

    if (ngx_cidr_match(addr->sockaddr, tucf->direct->allow) == NGX_OK) {
        return 0;
    }

    what = ngx_stream_tun_guard_special(addr->sockaddr);

    if (what == NULL) {
        what = ngx_stream_tun_guard_own(addr->sockaddr, tucf, log);
    }

    if (what == NULL) {
        return 0;
    }

    ngx_log_error(NGX_LOG_WARN, log, 0,
                  "\"tun_direct\" refuses %V, %s address", &addr->name, what);

    return 1;
}


static const char *
ngx_stream_tun_guard_special(struct sockaddr *sockaddr)
{
    struct in6_addr  *addr6;

    if (sockaddr->sa_family == AF_INET) {
        return ngx_stream_tun_guard_inet((u_char *)
                                &((struct sockaddr_in *) sockaddr)->sin_addr);
    }

    addr6 = &((struct sockaddr_in6 *) sockaddr)->sin6_addr;

    if (IN6_IS_ADDR_UNSPECIFIED(addr6)) {
        return "an unspecified";
    }

    if (IN6_IS_ADDR_LOOPBACK(addr6)) {
        return "a loopback";
    }

    if (IN6_IS_ADDR_LINKLOCAL(addr6)) {
        return "a link-local";
    }

    if (IN6_IS_ADDR_MULTICAST(addr6)) {
        return "a multicast";
    }

    /* RFC 4291, 2.5.5 */

    if (IN6_IS_ADDR_V4MAPPED(addr6) || IN6_IS_ADDR_V4COMPAT(addr6)) {
        return ngx_stream_tun_guard_inet(&addr6->s6_addr[12]);
    }

    return NULL;
}


static const char *
ngx_stream_tun_guard_inet(u_char *addr)
{
    if (addr[0] == 0) {
        return "an unspecified";
    }

    if (addr[0] == 127) {
        return "a loopback";
    }

    if (addr[0] == 169 && addr[1] == 254) {
        return "a link-local";
    }

    if (addr[0] >= 224 && addr[0] < 240) {
        return "a multicast";
    }

    if (addr[0] == 255 && addr[1] == 255 && addr[2] == 255 && addr[3] == 255) {
        return "a broadcast";
    }

    return NULL;
}


/* the kernel knows which addresses are its own, and where they are local */

static const char *
ngx_stream_tun_guard_own(struct sockaddr *sockaddr,
    ngx_stream_tun_upstream_conf_t *tucf, ngx_log_t *log)
{
    void                   *addr;
    size_t                  len;
    ngx_int_t               rc;
    ngx_uint_t              type;
    ngx_socket_t            s;
    struct rtmsg           *rtm;
    struct in6_addr        *addr6;
    ngx_tun_netlink_msg_t   msg;

    if (sockaddr->sa_family == AF_INET6) {
        addr6 = &((struct sockaddr_in6 *) sockaddr)->sin6_addr;

        addr = addr6;
        len = 16;

        if (IN6_IS_ADDR_V4MAPPED(addr6)) {
            addr = &addr6->s6_addr[12];
            len = 4;
        }

    } else {
        addr = &((struct sockaddr_in *) sockaddr)->sin_addr;
        len = 4;
    }

    s = ngx_tun_netlink_open();
    if (s == (ngx_socket_t) -1) {
        ngx_log_error(NGX_LOG_ERR, log, ngx_socket_errno,
                      "socket(AF_NETLINK) failed");
        return "an unchecked";
    }

    rtm = ngx_tun_netlink_init(&msg, RTM_GETROUTE, 0, sizeof(struct rtmsg));

    rtm->rtm_family = (len == 16) ? AF_INET6 : AF_INET;
    rtm->rtm_dst_len = (u_char) (len * 8);

    ngx_tun_netlink_add(&msg, RTA_DST, addr, len);

    if (tucf->marked) {
        ngx_tun_netlink_add_u32(&msg, RTA_MARK, tucf->mark);
    }

    type = RTN_UNSPEC;

    rc = ngx_tun_netlink_talk(s, &msg, ngx_stream_tun_guard_route, &type);

    ngx_close_socket(s);

    /* no route: that is for connect() to say */

    if (rc != NGX_OK) {
        return NULL;
    }

    switch (type) {

    case RTN_LOCAL:
    case RTN_ANYCAST:
        return "the machine's own";

    case RTN_BROADCAST:
        return "a broadcast";

    default:
        return NULL;
    }
}


static ngx_int_t
ngx_stream_tun_guard_route(struct nlmsghdr *header, void *data)
{
    ngx_uint_t *type = data;

    struct rtmsg  *rtm;

    if (header->nlmsg_type == RTM_NEWROUTE) {
        rtm = NLMSG_DATA(header);
        *type = rtm->rtm_type;
    }

    return NGX_OK;
}
