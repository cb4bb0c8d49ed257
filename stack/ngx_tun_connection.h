
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_CONNECTION_H_INCLUDED_
#define _NGX_TUN_CONNECTION_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>


/*
 * What the connections of all kinds of flows have in common: addresses, log
 * and pool, and events that are never in epoll.
 */


/*
 * A connection is known by its flow in a place that neither core nor modules
 * use where events come from epoll, and that stays when TLS replaces c->recv.
 */

#define ngx_tun_connection_flow(c)         ((void *) (c)->write->index)
#define ngx_tun_connection_set_flow(c, f)  (c)->write->index = (ngx_uint_t) (f)


/*
 * A connection for a flow of the listening's type; the functions and the flow
 * are set by the caller.  Its c->fd is a dup of a socket of the device, or,
 * of datagrams, that socket itself (c->shared).  NULL: a limit was met, and
 * counted.
 */
ngx_connection_t *ngx_tun_connection_create(ngx_tun_t *tun,
    ngx_listening_t *ls, ngx_tun_flow_key_t *key);

/* Takes it back before its handler was called; runs its cleanups. */
void ngx_tun_connection_discard(ngx_connection_t *c);


#endif /* _NGX_TUN_CONNECTION_H_INCLUDED_ */
