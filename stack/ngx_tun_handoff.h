
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_HANDOFF_H_INCLUDED_
#define _NGX_TUN_HANDOFF_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * After a reload the queues of a device belong to the new workers, and the
 * flows that the old ones had still come out of them.  A new worker hands a
 * segment that it does not know to the worker that had its queue before, over
 * a socket pair of the master's; that one to its own predecessor, and so on.
 */


typedef struct {
    ngx_socket_t                   read;      /* for the worker of a queue */
    ngx_socket_t                   write;     /* for its successor */
    ngx_socket_t                   previous;  /* to its predecessor, or -1 */
} ngx_tun_handoff_t;


/*
 * In the master: n socket pairs, in memory of the pool, and the n_old write
 * ends of the previous cycle.  NULL after a line in the log.
 */
ngx_tun_handoff_t *ngx_tun_handoff_open(ngx_uint_t n, ngx_tun_handoff_t *old,
    ngx_uint_t n_old, ngx_pool_t *pool, ngx_log_t *log);
void ngx_tun_handoff_close(ngx_tun_handoff_t *handoff, ngx_uint_t n);

/* NGX_OK, or NGX_DECLINED: there is no predecessor, or no room. */
ngx_int_t ngx_tun_handoff_send(ngx_tun_handoff_t *handoff, u_char *p,
    size_t len, ngx_uint_t trusted);

/* The predecessor is the process that reads the same pair, or nobody. */
ngx_int_t ngx_tun_handoff_own(ngx_tun_handoff_t *handoff, ngx_uint_t own);

/* Is the predecessor there?  Finds out when it has gone. */
ngx_uint_t ngx_tun_handoff_alive(ngx_tun_handoff_t *handoff);

/* The length of a packet read to p, NGX_AGAIN, or NGX_ERROR. */
ssize_t ngx_tun_handoff_recv(ngx_tun_handoff_t *handoff, u_char *p,
    size_t size, ngx_uint_t *trusted);


#endif /* _NGX_TUN_HANDOFF_H_INCLUDED_ */
