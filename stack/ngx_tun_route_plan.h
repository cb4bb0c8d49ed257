
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_ROUTE_PLAN_H_INCLUDED_
#define _NGX_TUN_ROUTE_PLAN_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_device.h>

#include <net/if.h>


/*
 * Rules and routes as lists: those that a configuration wants are made here,
 * those of the kernel are read, and both are compared, in ngx_tun_route.c.
 */


#define NGX_TUN_ROUTE_NO_UID   0xffffffff

/* of the device, where a rule has to know whether it is there */
#define NGX_TUN_ROUTE_GROUP    177


/* without padding, to be compared as bytes */

typedef struct {
    uint32_t               family;
    uint32_t               preference;
    uint32_t               table;
    uint32_t               invert;
    uint32_t               suppress;   /* prefix length, or -1 */
    uint32_t               group;      /* of devices suppressed, or -1 */
    uint32_t               prefix;     /* of src */
    ngx_tun_route_pair_t   mark;
    ngx_tun_route_pair_t   uid;        /* NGX_TUN_ROUTE_NO_UID: none */
    u_char                 src[16];
    u_char                 iif[IFNAMSIZ];
} ngx_tun_route_rule_t;


typedef struct {
    uint32_t               family;
    uint32_t               type;       /* RTN_* */
    uint32_t               prefix;
    uint32_t               metric;
    uint32_t               oif;        /* of RTN_UNICAST */
    u_char                 dst[16];
} ngx_tun_route_entry_t;


typedef struct {
    ngx_tun_device_t      *dev;
    ngx_tun_device_conf_t *conf;
    ngx_pool_t            *pool;
    ngx_log_t             *log;
    ngx_array_t            rules;
    ngx_array_t            routes;
    ngx_uint_t             foreign;    /* the table is another device's */
    ngx_uint_t             failed;     /* out of memory */
} ngx_tun_route_ctx_t;


/* Empty lists in the pool; conf may be NULL if nothing is wanted. */
ngx_int_t ngx_tun_route_init(ngx_tun_route_ctx_t *ctx,
    ngx_tun_device_t *dev, ngx_tun_device_conf_t *conf, ngx_pool_t *pool,
    ngx_log_t *log);

/* Fills the lists with what ctx->conf wants; ctx->failed: out of memory. */
void ngx_tun_route_want(ngx_tun_route_ctx_t *ctx);

/* Does it need a device of NGX_TUN_ROUTE_GROUP? */
ngx_uint_t ngx_tun_route_grouped(ngx_tun_device_conf_t *conf);

/*
 * Push an element that is zeroed but for the arguments, where preference is
 * counted from that of the table.  NULL, and ctx->failed set: out of memory.
 */
ngx_tun_route_rule_t *ngx_tun_route_rule(ngx_tun_route_ctx_t *ctx,
    int family, ngx_uint_t preference, ngx_uint_t table, char *iif);
ngx_tun_route_entry_t *ngx_tun_route_entry(ngx_tun_route_ctx_t *ctx,
    int family, ngx_uint_t type, ngx_uint_t metric);


#endif /* _NGX_TUN_ROUTE_PLAN_H_INCLUDED_ */
