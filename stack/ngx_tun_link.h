
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_LINK_H_INCLUDED_
#define _NGX_TUN_LINK_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_device.h>

#include <net/if.h>


/*
 * The interface of a device as rtnetlink shows and changes it: its link here,
 * its addresses in ngx_tun_address.c.  What fails is one line in the log.
 */


/* what the kernel knows of an interface */

typedef struct {
    u_char                    name[IFNAMSIZ];
    ngx_uint_t                index;       /* 0: there is none */
    ngx_uint_t                mtu;
    ngx_uint_t                txqlen;
    ngx_uint_t                group;
    ngx_uint_t                owner;       /* a user, or -1 */
    unsigned                  up:1;
    unsigned                  tun:1;
    unsigned                  tap:1;
    unsigned                  multi_queue:1;
    unsigned                  in_use:1;    /* by any process */
} ngx_tun_link_t;


/* By index, or with 0 by the device's name; link->index 0: there is none. */
ngx_int_t ngx_tun_link_get(ngx_tun_device_t *dev, ngx_uint_t index,
    ngx_tun_link_t *link, ngx_log_t *log);

ngx_int_t ngx_tun_link_set(ngx_tun_device_t *dev, ngx_uint_t mtu,
    ngx_uint_t txqlen, ngx_uint_t up, ngx_log_t *log);

ngx_int_t ngx_tun_link_set_group(ngx_tun_device_t *dev, ngx_uint_t group,
    ngx_log_t *log);

/* The configured ones that are missing; those that were, are in dev->added. */
ngx_int_t ngx_tun_address_add(ngx_tun_device_t *dev, ngx_tun_device_t *old,
    ngx_log_t *log);

/* Those in dev->added. */
void ngx_tun_address_delete(ngx_tun_device_t *dev, ngx_log_t *log);

/* What old added is dev's now, or is removed. */
void ngx_tun_address_take(ngx_tun_device_t *dev, ngx_tun_device_t *old,
    ngx_log_t *log);


#endif /* _NGX_TUN_LINK_H_INCLUDED_ */
