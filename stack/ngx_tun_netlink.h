
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_NETLINK_H_INCLUDED_
#define _NGX_TUN_NETLINK_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <linux/netlink.h>
#include <linux/rtnetlink.h>


/*
 * rtnetlink, one request at a time: built in a ngx_tun_netlink_msg_t, sent,
 * and its answer awaited for at most a second.
 */


typedef struct {
    union {
        struct nlmsghdr        header;
        u_char                 data[1024];
    } u;
    ngx_uint_t                 overflow;   /* an attribute did not fit */
    u_char                     error[256]; /* the kernel's own words, or "" */
} ngx_tun_netlink_msg_t;


typedef ngx_int_t (*ngx_tun_netlink_pt)(struct nlmsghdr *header, void *data);


/* A socket in the namespace that the process is in now, or -1 and errno. */
ngx_socket_t ngx_tun_netlink_open(void);

/* Begins a request; returns its family header of size bytes, zeroed. */
void *ngx_tun_netlink_init(ngx_tun_netlink_msg_t *msg, ngx_uint_t type,
    ngx_uint_t flags, size_t size);

void ngx_tun_netlink_add(ngx_tun_netlink_msg_t *msg, ngx_uint_t type,
    void *data, size_t len);
void ngx_tun_netlink_add_u32(ngx_tun_netlink_msg_t *msg, ngx_uint_t type,
    uint32_t value);

/*
 * Sends the request; handler, if not NULL, gets each message of the answer.
 * NGX_OK, or NGX_ERROR with errno set and msg->error filled.
 */
ngx_int_t ngx_tun_netlink_talk(ngx_socket_t s, ngx_tun_netlink_msg_t *msg,
    ngx_tun_netlink_pt handler, void *data);

/* The attribute of the type among those after size bytes, or NULL. */
struct rtattr *ngx_tun_netlink_attr(struct nlmsghdr *header, size_t size,
    ngx_uint_t type);
struct rtattr *ngx_tun_netlink_nested(struct rtattr *rta, ngx_uint_t type);


#endif /* _NGX_TUN_NETLINK_H_INCLUDED_ */
