
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_DEVICE_H_INCLUDED_
#define _NGX_TUN_DEVICE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * The kernel's network interface: made or taken, configured by netlink, and
 * left as it was found.  All of it runs in the master (or the only) process;
 * workers get the descriptors of the queues.
 */


typedef struct {
    u_char                         addr[16];
    size_t                         addr_len;  /* 4 or 16 */
    ngx_uint_t                     prefix;    /* bits */
} ngx_tun_address_t;


#define NGX_TUN_ROUTE_FAKEIP   0      /* the device's own networks only */
#define NGX_TUN_ROUTE_GATEWAY  1      /* what comes from some interfaces */
#define NGX_TUN_ROUTE_GLOBAL   2      /* everything */
#define NGX_TUN_ROUTE_OFF      3      /* not even the own networks */


/* first and last user, or a mark and its mask */

typedef struct {
    uint32_t                       first;
    uint32_t                       second;
} ngx_tun_route_pair_t;


typedef struct {
    ngx_uint_t                     mode;      /* NGX_TUN_ROUTE_* */
    ngx_uint_t                     table;     /* and first preference */
    ngx_array_t                    interfaces; /* ngx_str_t, terminated */
    ngx_array_t                    bypass;    /* ngx_tun_address_t */
    ngx_array_t                    uids;      /* ngx_tun_route_pair_t */
    ngx_array_t                    marks;     /* ngx_tun_route_pair_t */
    ngx_flag_t                     fail_closed;
} ngx_tun_route_conf_t;


typedef struct {
    ngx_str_t                      name;      /* null-terminated too */
    ngx_str_t                      netns;     /* name or path, or empty */
    ngx_array_t                    addresses; /* of ngx_tun_address_t */
    ngx_uint_t                     mtu;
    ngx_uint_t                     queues;
    ngx_flag_t                     offload;   /* TSO from the kernel */
    ngx_tun_route_conf_t           route;
} ngx_tun_device_conf_t;


typedef struct {
    ngx_tun_device_conf_t         *conf;      /* lives as long as this */
    ngx_socket_t                  *fds;       /* conf->queues descriptors */
    ngx_socket_t                   netlink;   /* in the device's namespace */
    int                            steering;  /* a program, or -1 */
    ngx_uint_t                     index;     /* of the interface */
    size_t                         vnet_len;  /* virtio_net_hdr, 10 or 0 */

    ngx_tun_device_conf_t         *former;    /* of old, until the commit */
    ngx_array_t                    added;     /* ngx_tun_address_t of ours */
    ngx_uint_t                     mtu_found; /* before ours, to restore */
    ngx_uint_t                     txqlen_found;
    ngx_uint_t                     group_found;
    ngx_uint_t                     mtu_raised; /* from it, before the commit */

    unsigned                       offload:1; /* the kernel took TSO4 and 6 */
    unsigned                       uso:1;     /* and USO4 and 6 */
    unsigned                       existed:1; /* persistent, made by others */
    unsigned                       was_up:1;
    unsigned                       reused:1;  /* the queues are old's */
    unsigned                       committed:1;
    unsigned                       superseded:1; /* a later one took over */
    unsigned                       inherited:1; /* old is another binary's */
} ngx_tun_device_t;


/*
 * Opens the device of a new cycle.  old is the device of the same name that
 * the previous cycle runs, or NULL: then its queues are used further (dup'ed,
 * never opened twice), and only what differs is changed.  dev->conf is set by
 * the caller, the rest is zeroed; memory comes from pool.
 *
 * NGX_OK, or NGX_ERROR after one line [emerg] that says what could not be had,
 * with nothing left changed.
 */
ngx_int_t ngx_tun_device_open(ngx_tun_device_t *dev, ngx_tun_device_t *old,
    ngx_pool_t *pool, ngx_log_t *log);

/*
 * The new cycle is in force: addresses that only old had are removed, the
 * MTU and offloads of dev are set.  What fails is logged and does no more
 * harm, for the master cannot go back here.
 */
void ngx_tun_device_commit(ngx_tun_device_t *dev, ngx_tun_device_t *old,
    ngx_log_t *log);

/* A socket in the network namespace of the device, or -1 after a line. */
ngx_socket_t ngx_tun_device_socket(ngx_tun_device_t *dev, int family, int type,
    ngx_log_t *log);

/*
 * Closes the descriptors.  With restore set, as the process that configured
 * the device passes and workers do not: an uncommitted device takes back what
 * it changed, a committed one that no later one superseded leaves the
 * interface as it was found (a device made by us vanishes by itself).
 */
void ngx_tun_device_close(ngx_tun_device_t *dev, ngx_uint_t restore,
    ngx_log_t *log);


#endif /* _NGX_TUN_DEVICE_H_INCLUDED_ */
