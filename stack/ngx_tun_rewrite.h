
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_REWRITE_H_INCLUDED_
#define _NGX_TUN_REWRITE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_packet.h>


/*
 * Other addresses and ports for a packet that goes on otherwise as it came:
 * checksums are changed by the difference (RFC 1624), and never looked at, so
 * that one that was wrong stays wrong.
 */


typedef struct {
    u_char                        *src;       /* addr_len bytes each */
    u_char                        *dst;
    uint16_t                       src_port;  /* host order, as all here */
    uint16_t                       dst_port;
} ngx_tun_rewrite_t;


/* the TCP packet that an ICMP error is about, as far as it is there */

typedef struct {
    u_char                        *start;     /* its IP header */
    u_char                        *src;
    u_char                        *dst;
    u_char                        *tcp;       /* at least 8 bytes */
    uint16_t                       src_port;
    uint16_t                       dst_port;
} ngx_tun_rewrite_error_t;


/*
 * Rewrites a whole TCP packet that ngx_tun_packet_parse_tcp() took.  With
 * partial set the checksum field holds the folded sum of the pseudo header
 * alone, which has no ports, as offloads have it (NEEDS_CSUM).
 */
void ngx_tun_rewrite_tcp(ngx_tun_packet_t *pkt, ngx_tun_rewrite_t *to,
    ngx_uint_t partial);

/*
 * Parses an ICMP (RFC 792) or ICMPv6 (RFC 4443) error about a TCP packet.
 * NGX_TUN_PACKET_OK, or another value: it is not one.
 */
ngx_tun_packet_e ngx_tun_rewrite_parse_error(ngx_tun_packet_t *pkt,
    ngx_tun_rewrite_error_t *error);

/*
 * Rewrites the packet in the error, and the error so that it comes from where
 * that packet goes to, and goes to where it came from.
 */
void ngx_tun_rewrite_error(ngx_tun_packet_t *pkt,
    ngx_tun_rewrite_error_t *error, ngx_tun_rewrite_t *to);


#endif /* _NGX_TUN_REWRITE_H_INCLUDED_ */
