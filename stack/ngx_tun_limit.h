
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_LIMIT_H_INCLUDED_
#define _NGX_TUN_LIMIT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_flow.h>


/*
 * What a device gives to clients that have not shown yet that they are there.
 * A flow is pending while it has a session but no ACK of the client, and half
 * open while it has neither.  Both are counted by source: an IPv4 address, or
 * an IPv6 /64.  So are UDP flows, whose clients never show it.
 */


/* why a flow, or a part of it, was not served */

typedef enum {
    NGX_TUN_LIMIT_FLOWS = 0,
    NGX_TUN_LIMIT_PENDING,
    NGX_TUN_LIMIT_HALF_OPEN,
    NGX_TUN_LIMIT_UDP_FLOWS,
    NGX_TUN_LIMIT_MEMORY,
    NGX_TUN_LIMIT_CONNECTIONS,
    NGX_TUN_LIMIT_DESCRIPTORS,
    NGX_TUN_LIMIT_TUPLES,
    NGX_TUN_LIMIT_N
} ngx_tun_limit_e;


typedef struct ngx_tun_source_s  ngx_tun_source_t;


struct ngx_tun_source_s {
    ngx_tun_source_t       *next;        /* in the bucket */
    uint64_t                addr;
    ngx_uint_t              pending;
    ngx_uint_t              half_open;
    ngx_uint_t              udp_flows;
    ngx_queue_t             flows;       /* half open ones, the oldest first */
    ngx_queue_t             udp;         /* least recently used first */
    ngx_queue_t             queue;       /* of sources with as many */
};


typedef struct {
    ngx_uint_t              max_pending;
    ngx_uint_t              max_half_open;
    ngx_uint_t              pending;
    ngx_uint_t              half_open;
    ngx_uint_t              max_udp_flows;
    ngx_uint_t              max_udp_source_flows;
    ngx_uint_t              udp_flows;
    ngx_queue_t             udp;         /* least recently used first */

    ngx_tun_source_t      **buckets;
    ngx_queue_t            *levels;      /* of sources, by half open flows */
    ngx_uint_t              top;         /* the highest level in use */
    uint64_t                secret;

    ngx_uint_t              unlogged[NGX_TUN_LIMIT_N];
    time_t                  logged[NGX_TUN_LIMIT_N];
} ngx_tun_limits_t;


/* what a flow holds of it; zeroed at first */

typedef struct {
    ngx_tun_source_t       *source;
    ngx_queue_t             queue;       /* of those of the source */
    ngx_queue_t             all;         /* of all, UDP only */
    unsigned                pending:1;
    unsigned                half_open:1;
    unsigned                udp:1;
    unsigned                held:1;      /* of a socket, not of a flow */
} ngx_tun_claim_t;


/* NGX_OK, or NGX_ERROR without memory; the max_ are set. */
ngx_int_t ngx_tun_limits_init(ngx_tun_limits_t *limits, uint64_t secret,
    ngx_log_t *log);
void ngx_tun_limits_done(ngx_tun_limits_t *limits);

/* NGX_OK, or NGX_DECLINED: too many, of all or of the source. */
ngx_int_t ngx_tun_limit_pend(ngx_tun_limits_t *limits, ngx_tun_claim_t *claim,
    ngx_tun_flow_key_t *key, ngx_log_t *log);

/*
 * NGX_OK, or NGX_BUSY: first ngx_tun_limit_oldest() has to give way, or
 * NGX_ERROR without memory.
 */
ngx_int_t ngx_tun_limit_half_open(ngx_tun_limits_t *limits,
    ngx_tun_claim_t *claim, ngx_tun_flow_key_t *key, ngx_log_t *log);

/* The oldest half open flow of the source that has most of them. */
ngx_tun_claim_t *ngx_tun_limit_oldest(ngx_tun_limits_t *limits);

/*
 * NGX_OK, NGX_ERROR without memory, or NGX_BUSY: first *oldest, the least
 * recently used flow of all or of the source, has to give way.
 */
ngx_int_t ngx_tun_limit_udp(ngx_tun_limits_t *limits, ngx_tun_claim_t *claim,
    ngx_tun_flow_key_t *key, ngx_tun_claim_t **oldest, ngx_log_t *log);

/* The claim of a UDP flow becomes another's. */
void ngx_tun_limit_move(ngx_tun_claim_t *to, ngx_tun_claim_t *from);

/* A UDP flow was used. */
void ngx_tun_limit_udp_used(ngx_tun_limits_t *limits, ngx_tun_claim_t *claim);

/* The flow is established, or gone. */
void ngx_tun_limit_release(ngx_tun_limits_t *limits, ngx_tun_claim_t *claim);

/* Notes it in the log, at most once a second for each reason. */
void ngx_tun_limit_log(ngx_tun_limits_t *limits, ngx_tun_limit_e reason,
    ngx_str_t *name, ngx_log_t *log);


#endif /* _NGX_TUN_LIMIT_H_INCLUDED_ */
