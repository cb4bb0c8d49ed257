
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_HANDOFF_H_INCLUDED_
#define _NGX_TUN_HANDOFF_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_owner.h>


/*
 * The boxes of ngx_tun_owner.h: a socket pair for each, made by the master and
 * inherited by all workers.  There are always more than the processes that
 * are there will need, so that those can send to the ones that come next.
 */


typedef struct {
    ngx_socket_t                   read;      /* of the box's process */
    ngx_socket_t                   write;     /* of all others */
} ngx_tun_handoff_pair_t;


typedef struct {
    ngx_uint_t                     n;
    ngx_tun_handoff_pair_t         pairs[NGX_TUN_OWNER_BOXES];
} ngx_tun_handoff_t;


/* what is told of a packet */

typedef struct {
    ngx_uint_t                     trusted;   /* its checksum */
    size_t                         datagram;  /* as of the kernel, or 0 */
} ngx_tun_handoff_info_t;


/*
 * In the master: the pairs of the previous cycle (old, or NULL), and more of
 * them, so that n processes and those that come after them find boxes that
 * nobody has.  handoff is zeroed.  NGX_OK, or NGX_ERROR after a line.
 */
ngx_int_t ngx_tun_handoff_open(ngx_tun_handoff_t *handoff,
    ngx_tun_handoff_t *old, ngx_tun_owners_t *owners, ngx_uint_t n,
    ngx_log_t *log);
void ngx_tun_handoff_close(ngx_tun_handoff_t *handoff);

/*
 * NGX_OK: sent, or lost since the box is full.  NGX_DECLINED: its process came
 * so much later than this one that there is no way to it.
 */
ngx_int_t ngx_tun_handoff_send(ngx_tun_handoff_t *handoff, ngx_uint_t box,
    u_char *p, size_t len, ngx_tun_handoff_info_t *info);

/* The length of a packet read to p, NGX_AGAIN, or NGX_ERROR. */
ssize_t ngx_tun_handoff_recv(ngx_tun_handoff_t *handoff, ngx_uint_t box,
    u_char *p, size_t size, ngx_tun_handoff_info_t *info);


#endif /* _NGX_TUN_HANDOFF_H_INCLUDED_ */
