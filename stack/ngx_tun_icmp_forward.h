
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_ICMP_FORWARD_H_INCLUDED_
#define _NGX_TUN_ICMP_FORWARD_H_INCLUDED_


#include <ngx_tun_stack.h>
#include <ngx_tun_icmp_socket.h>


/* Pings passed on by raw sockets, and their answers. */


typedef struct ngx_tun_icmp_forward_s  ngx_tun_icmp_forward_t;


/*
 * part of parts is this worker's share of the identifiers: no other worker and
 * no other device has the same.  NULL without memory or connections.
 */
ngx_tun_icmp_forward_t *ngx_tun_icmp_forward_open(ngx_tun_t *tun,
    ngx_tun_icmp_sockets_t *sockets, ngx_uint_t part, ngx_uint_t parts);
void ngx_tun_icmp_forward_close(ngx_tun_icmp_forward_t *fwd);

/*
 * Sends an echo request to its target.  NGX_OK, also when it was lost; or
 * NGX_DECLINED: *error is to be sent about it.
 */
ngx_int_t ngx_tun_icmp_forward_send(ngx_tun_icmp_forward_t *fwd,
    ngx_tun_packet_t *pkt, ngx_tun_packet_icmp_t *icmp,
    ngx_tun_icmp_error_e *error);


#endif /* _NGX_TUN_ICMP_FORWARD_H_INCLUDED_ */
