
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_FRAGMENT_H_INCLUDED_
#define _NGX_TUN_FRAGMENT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_flow.h>
#include <ngx_tun_packet.h>


/*
 * Puts fragments of IPv4 (RFC 791) and IPv6 (RFC 8200, 4.5) together.  What
 * waits is limited by source, an IPv4 address or an IPv6 /64, and for all of
 * them to NGX_TUN_FRAGMENT_SOURCES times as much; over a limit the oldest
 * datagram of the source gives way, over that of all the oldest of the source
 * that holds most.
 */


/* defaults of the limits, by source */
#define NGX_TUN_FRAGMENT_DATAGRAMS  256
#define NGX_TUN_FRAGMENT_BYTES      (1024 * 1024)
#define NGX_TUN_FRAGMENT_TIMEOUT    15000

#define NGX_TUN_FRAGMENT_SOURCES    16

/* of sources, by the binary logarithm of what they hold */
#define NGX_TUN_FRAGMENT_LEVELS     32


typedef struct {
    ngx_uint_t              max_datagrams;   /* of a source */
    size_t                  max_bytes;       /* of a source, as allocated */
    ngx_msec_t              timeout;         /* since the first piece came */

    ngx_uint_t              datagrams;       /* that wait */
    size_t                  bytes;

    ngx_uint_t              reassembled;     /* datagrams */
    ngx_uint_t              dropped;         /* over a limit, or no memory */
    ngx_uint_t              timed_out;
    ngx_uint_t              overlapping;
    ngx_uint_t              invalid;         /* pieces, or wholes of them */

    ngx_tun_flow_table_t    table;           /* of datagrams */
    ngx_tun_flow_table_t    sources;
    ngx_queue_t             queue;           /* of datagrams, oldest first */
    ngx_queue_t             levels[NGX_TUN_FRAGMENT_LEVELS];
    u_char                 *buf;             /* the last whole datagram */
    ngx_log_t              *log;
} ngx_tun_fragments_t;


/*
 * The limits are set and not 0, the rest is zeroed.  NGX_OK, or NGX_ERROR
 * without memory or random bytes: ngx_tun_fragments_done() is called anyway.
 */
ngx_int_t ngx_tun_fragments_init(ngx_tun_fragments_t *frags, ngx_log_t *log);
void ngx_tun_fragments_done(ngx_tun_fragments_t *frags);

/*
 * Takes a copy of a parsed packet with pkt->fragment set; now is in ms and
 * does not go back.
 *
 * NGX_OK        pkt is the whole datagram, parsed, not a fragment; its bytes
 *               live until the next call, its upper-layer checksum is yet to
 *               be verified, whatever was known of the pieces
 * NGX_AGAIN     kept, or there already; pkt as it was; a timer is needed
 * NGX_DECLINED  dropped and counted; pkt is of no use
 */
ngx_int_t ngx_tun_fragment_input(ngx_tun_fragments_t *frags,
    ngx_tun_packet_t *pkt, ngx_msec_t now);

/*
 * Drops what is too old, a bounded number of datagrams at once.  Returns the
 * milliseconds after which to call again, or 0: nothing waits, no timer is
 * needed.
 */
ngx_msec_t ngx_tun_fragment_expire(ngx_tun_fragments_t *frags, ngx_msec_t now);


#endif /* _NGX_TUN_FRAGMENT_H_INCLUDED_ */
