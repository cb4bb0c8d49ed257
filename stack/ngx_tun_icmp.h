
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_ICMP_H_INCLUDED_
#define _NGX_TUN_ICMP_H_INCLUDED_


#include <ngx_tun_stack.h>


/*
 * Pings answered, and errors sent: no more of each than a second's worth to
 * one source, an IPv4 address or an IPv6 /64.
 */


/* NGX_OK, or NGX_ERROR without memory or connections. */
ngx_int_t ngx_tun_icmp_open(ngx_tun_t *tun, ngx_tun_options_t *options);

/* No more pings come, a later cycle has identifiers and sockets of its own. */
void ngx_tun_icmp_retire(ngx_tun_t *tun);

void ngx_tun_icmp_close(ngx_tun_t *tun);

/*
 * A whole ICMP or ICMPv6 packet that is no matter of TCP.  It is answered in
 * place.
 */
void ngx_tun_icmp_input(ngx_tun_t *tun, ngx_tun_packet_t *pkt);

/*
 * Tells the client of a UDP flow about a datagram of len bytes that it sent,
 * where that is allowed, not limited, and not forbidden by "icmp drop".
 */
void ngx_tun_icmp_error(ngx_tun_t *tun, ngx_tun_icmp_error_e error,
    ngx_tun_flow_key_t *key, size_t len);

/* Tells a socket of our own that has met a loop, without any limit. */
void ngx_tun_icmp_looped(ngx_tun_t *tun, ngx_tun_flow_key_t *key, size_t len);

/* As ngx_tun_icmp_error(), about a packet of any protocol that is there. */
void ngx_tun_icmp_error_about_packet(ngx_tun_t *tun,
    ngx_tun_icmp_error_e error, ngx_tun_packet_t *pkt);


#endif /* _NGX_TUN_ICMP_H_INCLUDED_ */
