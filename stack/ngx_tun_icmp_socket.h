
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_ICMP_SOCKET_H_INCLUDED_
#define _NGX_TUN_ICMP_SOCKET_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * Raw sockets for pings that are passed on.  The master opens them, in its own
 * network namespace, and each queue has its own: all of them see all answers.
 */


typedef struct {
    ngx_socket_t            fds[2];      /* for IPv4 and IPv6, or -1 */
} ngx_tun_icmp_sockets_t;


/*
 * For n queues, in memory of the pool.  NULL after a line in the log; a family
 * that the kernel does not have is no error.
 */
ngx_tun_icmp_sockets_t *ngx_tun_icmp_sockets_open(ngx_uint_t n,
    ngx_pool_t *pool, ngx_log_t *log);
void ngx_tun_icmp_sockets_close(ngx_tun_icmp_sockets_t *sockets,
    ngx_uint_t n);

/*
 * In the worker of a queue: nothing but echo replies of these identifiers, and
 * errors about their requests, are to come to its socket.  NGX_OK or NGX_ERROR
 * with errno set.
 */
ngx_int_t ngx_tun_icmp_socket_ids(ngx_socket_t s, int family,
    ngx_uint_t first, ngx_uint_t n);


#endif /* _NGX_TUN_ICMP_SOCKET_H_INCLUDED_ */
