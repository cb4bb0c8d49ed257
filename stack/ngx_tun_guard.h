
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_GUARD_H_INCLUDED_
#define _NGX_TUN_GUARD_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_flow.h>


/*
 * The sockets that sessions of a device have to their upstreams, of all
 * workers, in shared memory.  A flow out of a device that is of one of them
 * is a loop: what it stands for is looked up once for each new flow, without
 * a lock.
 *
 * A socket that is connected is known by both of its sides, one that is not
 * by its port; then the flow's source has to be an address of this machine.
 * One that finds no place is not known.  That is no harm: each turn of a loop
 * has a socket of its own, and one of them is enough.
 */


typedef struct {
    ngx_atomic_t              tag;       /* of the key; 0: free */
    ngx_atomic_t              owner;     /* pid, and NGX_TUN_GUARD_LOOPED */
} ngx_tun_guard_slot_t;


#define NGX_TUN_GUARD_SLOTS    262144
#define NGX_TUN_GUARD_WORKERS  64


typedef struct {
    uint64_t                  secret[2];
    ngx_atomic_t              logged;    /* a time in seconds */
    ngx_atomic_t              unlogged;
    ngx_atomic_t              workers;
    ngx_atomic_t              connecting[NGX_TUN_GUARD_WORKERS];
    ngx_tun_guard_slot_t      slots[1];
} ngx_tun_guard_shared_t;


/* an address that was the source of a flow */

typedef struct {
    time_t                    until;     /* it is known */
    u_char                    addr[16];
    ngx_uint_t                yes;       /* it is this machine's */
} ngx_tun_guard_local_t;


#define NGX_TUN_GUARD_LOCAL    64


/* of a cycle */

typedef struct {
    ngx_tun_guard_local_t     local[NGX_TUN_GUARD_LOCAL];
    ngx_tun_guard_shared_t   *shared;
    ngx_tun_flow_table_t      hash;      /* its secret only */
} ngx_tun_guard_t;


/* a socket in it; zeroed at first */

typedef struct {
    ngx_tun_guard_slot_t     *slot;
    ngx_atomic_uint_t         tag;
} ngx_tun_guard_entry_t;


#define NGX_TUN_GUARD_SIZE                                                    \
    (sizeof(ngx_tun_guard_shared_t)                                           \
     + NGX_TUN_GUARD_SLOTS * sizeof(ngx_tun_guard_slot_t))


/* Memory that is new, zeroed, of NGX_TUN_GUARD_SIZE; NGX_OK or NGX_ERROR. */
ngx_int_t ngx_tun_guard_init(ngx_tun_guard_shared_t *shared);
void ngx_tun_guard_attach(ngx_tun_guard_t *guard,
    ngx_tun_guard_shared_t *shared);

/*
 * A worker is about to connect there: flows to it that others find wait until
 * the socket is added, a moment later, or the worker calls with NULL.
 */
void ngx_tun_guard_connecting(ngx_tun_guard_t *guard, ngx_uint_t worker,
    ngx_tun_flow_key_t *key);

/*
 * Adds a socket; the key is that of a flow which it would be the client of.
 * A dst_port of 0: it is not connected, and only src_port counts.
 */
void ngx_tun_guard_add(ngx_tun_guard_t *guard, ngx_tun_guard_entry_t *entry,
    ngx_tun_flow_key_t *key);
void ngx_tun_guard_delete(ngx_tun_guard_entry_t *entry);

/* Has a flow of the socket been found? */
ngx_uint_t ngx_tun_guard_looped(ngx_tun_guard_entry_t *entry);

/* Is it the flow of such a socket?  One line a second in the log says so. */
ngx_uint_t ngx_tun_guard_find(ngx_tun_guard_t *guard, ngx_tun_flow_key_t *key,
    ngx_str_t *device, ngx_log_t *log);

/* Is what comes out of a device, by its index, routed back into it? */
ngx_uint_t ngx_tun_guard_returns(ngx_tun_flow_key_t *key, ngx_uint_t device);

/* Is it time for that line?  Returns how many there were, or 0. */
ngx_uint_t ngx_tun_guard_log(ngx_tun_guard_t *guard);


#endif /* _NGX_TUN_GUARD_H_INCLUDED_ */
