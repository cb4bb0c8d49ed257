
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_DNS_H_INCLUDED_
#define _NGX_TUN_DNS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_dns_wire.h>
#include <ngx_tun_fakeip.h>


/* what the servers of a zone do, all workers together; in shared memory */

typedef struct {
    ngx_atomic_t             queries;
    ngx_atomic_t             tcp;             /* of these, over TCP */
    ngx_atomic_t             connections;     /* TCP */

    ngx_atomic_t             faked;           /* answers with an address */
    ngx_atomic_t             empty;           /* of other types of such names */
    ngx_atomic_t             reverse;         /* names of addresses */
    ngx_atomic_t             special;         /* localhost and the like */
    ngx_atomic_t             exhausted;       /* no address was free */

    ngx_atomic_t             forwarded;       /* to a resolver */
    ngx_atomic_t             cached;          /* answered without one */
    ngx_atomic_t             joined;          /* waited for another's answer */
    ngx_atomic_t             failed;          /* no answer, SERVFAIL */
    ngx_atomic_t             upstream_queries;
    ngx_atomic_t             upstream_tcp;    /* of these, over TCP */
    ngx_atomic_t             upstream_timeouts;
    ngx_atomic_t             upstream_invalid; /* messages that fit nothing */

    ngx_atomic_t             malformed;       /* answered by an error */
    ngx_atomic_t             refused;
    ngx_atomic_t             dropped;         /* not to be answered */
    ngx_atomic_t             foreign;         /* sources that are not near */
    ngx_atomic_t             looped;          /* our own, come back */
    ngx_atomic_t             limited_queries;
    ngx_atomic_t             limited_names;
    ngx_atomic_t             limited_connections;
    ngx_atomic_t             limited_forwards;
} ngx_tun_dns_stat_t;


#define ngx_tun_dns_count(stat, name)                                         \
    (void) ngx_atomic_fetch_add(&(stat)->name, 1)


/*
 * What one client may do.  A client is an IPv4 address, or an IPv6 /64.
 */

typedef struct {
    ngx_uint_t               qps;             /* 0: no limit, each */
    ngx_uint_t               burst;
    ngx_uint_t               names;           /* a minute */
    ngx_uint_t               tcp;
} ngx_tun_dns_limit_conf_t;


#define NGX_TUN_DNS_LIMIT_CLIENTS  16384
#define NGX_TUN_DNS_LIMIT_TCP      4096
#define NGX_TUN_DNS_LIMIT_WAYS     8


/* a bucket holds the time of its last drop, and how full it was then */

typedef struct {
    ngx_atomic_t             client;
    ngx_atomic_t             queries;
    ngx_atomic_t             names;
} ngx_tun_dns_limit_client_t;


typedef struct {
    ngx_atomic_t             client;
    ngx_atomic_t             pid;             /* whose entry it is */
    ngx_atomic_t             n;
} ngx_tun_dns_limit_tcp_t;


/* in shared memory, zeroed; the key makes clients meet by chance only */

typedef struct {
    u_char                       key[NGX_TUN_FAKEIP_KEY_LEN];
    ngx_tun_dns_limit_client_t   clients[NGX_TUN_DNS_LIMIT_CLIENTS];
    ngx_tun_dns_limit_tcp_t      tcp[NGX_TUN_DNS_LIMIT_TCP];
} ngx_tun_dns_limit_t;


/* The client behind an address, a number other than 0. */
ngx_atomic_uint_t ngx_tun_dns_limit_client(ngx_tun_dns_limit_t *limit,
    u_char *addr, size_t addr_len);

/* NGX_OK, or NGX_BUSY: it is too much.  now is in milliseconds. */
ngx_int_t ngx_tun_dns_limit_query(ngx_tun_dns_limit_t *limit,
    ngx_tun_dns_limit_conf_t *conf, ngx_atomic_uint_t client, ngx_msec_t now);
ngx_int_t ngx_tun_dns_limit_name(ngx_tun_dns_limit_t *limit,
    ngx_tun_dns_limit_conf_t *conf, ngx_atomic_uint_t client, ngx_msec_t now);

/*
 * NGX_OK, and *entry is to be given back when the connection ends, where it
 * is not NULL; NGX_BUSY.  What a dead process had is found to be free.
 */
ngx_int_t ngx_tun_dns_limit_open(ngx_tun_dns_limit_t *limit,
    ngx_tun_dns_limit_conf_t *conf, ngx_atomic_uint_t client,
    ngx_tun_dns_limit_tcp_t **entry);
void ngx_tun_dns_limit_close(ngx_tun_dns_limit_tcp_t *entry);


/*
 * Sources that are near: loopback, private, link-local, and of the networks
 * that interfaces of this machine are in.
 */

typedef struct {
    u_char                   addr[16];
    size_t                   addr_len;
    ngx_uint_t               bits;
} ngx_tun_dns_prefix_t;


#define NGX_TUN_DNS_PREFIXES  64

/* of a process; zeroed before its first use */

typedef struct {
    ngx_uint_t               n;
    ngx_uint_t               known;
    time_t                   read;            /* when they were read */
    ngx_tun_dns_prefix_t     prefixes[NGX_TUN_DNS_PREFIXES];
} ngx_tun_dns_near_t;


ngx_uint_t ngx_tun_dns_is_near(ngx_tun_dns_near_t *near, u_char *addr,
    size_t addr_len, time_t now);

ngx_uint_t ngx_tun_dns_is_loopback(u_char *addr, size_t addr_len);

/* Is the address in one of n prefixes? */
ngx_uint_t ngx_tun_dns_match(const ngx_tun_dns_prefix_t *prefix, ngx_uint_t n,
    u_char *addr, size_t addr_len);

/* Bytes of an address, of IPv4 where it is mapped into IPv6; or NULL. */
u_char *ngx_tun_dns_address(struct sockaddr *sa, size_t *addr_len);


#endif /* _NGX_TUN_DNS_H_INCLUDED_ */
