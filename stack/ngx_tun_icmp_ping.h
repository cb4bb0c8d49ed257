
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_ICMP_PING_H_INCLUDED_
#define _NGX_TUN_ICMP_PING_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_flow.h>


/*
 * Who waits for which answer.  A client's identifier and target get an
 * identifier of ours; its sequence numbers are kept.  An answer has to be of
 * that identifier and of a number that was sent not long ago, and is either
 * from the target or an error about what went there.
 */


#define NGX_TUN_PING_MAX     4096
#define NGX_TUN_PING_IDLE    10000       /* ms */
#define NGX_TUN_PING_WINDOW  1024        /* sequence numbers under way */


typedef struct {
    ngx_tun_flow_t          flow;        /* the client's id is src_port */
    ngx_queue_t             queue;
    ngx_msec_t              used;        /* when it was, last */
    uint16_t                id;          /* ours */
    uint16_t                seq;         /* the highest one sent */
    uint16_t                window;      /* those up to it */
} ngx_tun_ping_t;


typedef struct {
    ngx_tun_flow_table_t    table;
    ngx_queue_t             queue;       /* the oldest first */
    ngx_tun_ping_t         *pings;
    ngx_uint_t              npings;      /* taken once */
    ngx_uint_t              max;

    ngx_uint_t              first;       /* of our identifiers */
    ngx_uint_t              nids;
    ngx_uint_t              shift;       /* who has the first is not known */
} ngx_tun_pings_t;


/*
 * part of parts is a share of the identifiers, which no other has.  pings is
 * zeroed; NGX_OK, or NGX_ERROR without memory.
 */
ngx_int_t ngx_tun_pings_init(ngx_tun_pings_t *pings, ngx_uint_t part,
    ngx_uint_t parts, ngx_log_t *log);

/* Also after ngx_tun_pings_init() has failed. */
void ngx_tun_pings_done(ngx_tun_pings_t *pings);

/* A request that is sent: the oldest ping gives way to a new one. */
ngx_tun_ping_t *ngx_tun_ping_sent(ngx_tun_pings_t *pings,
    ngx_tun_packet_t *pkt, ngx_tun_packet_icmp_t *icmp);

/* The ping that an answer from, or an error about, the target is for. */
ngx_tun_ping_t *ngx_tun_ping_lookup(ngx_tun_pings_t *pings,
    ngx_tun_packet_icmp_t *icmp, u_char *target, size_t addr_len);


#endif /* _NGX_TUN_ICMP_PING_H_INCLUDED_ */
