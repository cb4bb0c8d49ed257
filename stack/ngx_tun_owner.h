
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_OWNER_H_INCLUDED_
#define _NGX_TUN_OWNER_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * Which process has a flow.  The kernel may give a packet to any queue of a
 * device: after a reload its reader is another one, and with another number of
 * queues it is another queue.  So all workers of a device, those of earlier
 * cycles and of other binaries among them, share a table of the hashes of
 * their flows, and each has a box, a socket where the others put what is its.
 *
 * An entry is a word: 48 bits of the hash, 8 of the box's epoch, 8 of the box.
 * Those that a killed process left are of an epoch that has ended, or of a
 * process that there is not.  A flow that finds no room in its two buckets is
 * not in the table: it is lost if its packets come to another worker.
 */


#define NGX_TUN_OWNER_BOXES   256
#define NGX_TUN_OWNER_NONE    NGX_TUN_OWNER_BOXES

#define NGX_TUN_OWNER_BUCKET  8               /* entries, a line of the cache */


typedef struct {
    ngx_atomic_t                   pid;       /* whose the box is, or 0 */
    ngx_atomic_t                   epoch;     /* counts those whose it was */
    ngx_atomic_t                   flows;     /* that process has */
    ngx_atomic_t                   ready;     /* the generation that it opens
                                                 flows for, 0: for none */
} ngx_tun_owner_box_t;


/* in shared memory, the entries behind it */

typedef struct {
    uint64_t                       secret[2]; /* of the hashes */
    ngx_uint_t                     mask;      /* of buckets */
    ngx_tun_owner_box_t            boxes[NGX_TUN_OWNER_BOXES];
} ngx_tun_owners_t;


/* of a process */

typedef struct {
    ngx_tun_owners_t              *shared;
    ngx_atomic_t                  *entries;
    ngx_uint_t                     box;       /* NGX_TUN_OWNER_NONE without */
    uint64_t                       mark;      /* the low bits of its entries */
} ngx_tun_owner_t;


/* Adds n to the flows that a process has. */
#define ngx_tun_owner_count(owner, n)                                         \
    if ((owner)->box != NGX_TUN_OWNER_NONE) {                                 \
        (owner)->shared->boxes[(owner)->box].flows += (n);                    \
    }


/* The memory for a table that so many flows have room in; 0: 65536. */
size_t ngx_tun_owners_size(ngx_uint_t flows);

/* In zeroed memory of that size: NGX_OK, or NGX_ERROR after a line. */
ngx_int_t ngx_tun_owners_init(ngx_tun_owners_t *shared, ngx_uint_t flows,
    ngx_log_t *log);

/* Is memory of that size what was initialized above? */
ngx_uint_t ngx_tun_owners_valid(ngx_tun_owners_t *shared, size_t size);

/* How many of the first n boxes are of processes that there are. */
ngx_uint_t ngx_tun_owners_taken(ngx_tun_owners_t *shared, ngx_uint_t n);

/*
 * Gives this process one of the first n boxes, or NGX_TUN_OWNER_NONE if they
 * are all taken: then nothing below finds it, and it finds the others.
 */
void ngx_tun_owner_open(ngx_tun_owner_t *owner, ngx_tun_owners_t *shared,
    ngx_uint_t n);
void ngx_tun_owner_close(ngx_tun_owner_t *owner);

/* This process opens flows for that generation from now on, 0: for none. */
void ngx_tun_owner_ready(ngx_tun_owner_t *owner, ngx_atomic_uint_t generation);

/* The hash of a flow is that of its key by the shared secret. */
void ngx_tun_owner_insert(ngx_tun_owner_t *owner, uint64_t hash);
void ngx_tun_owner_delete(ngx_tun_owner_t *owner, uint64_t hash);

/* The box of another process that has the flow, or NGX_TUN_OWNER_NONE. */
ngx_uint_t ngx_tun_owner_find(ngx_tun_owner_t *owner, uint64_t hash);

/*
 * The box of a process that opens flows for another generation than the given
 * one, the latest if there are several, or NGX_TUN_OWNER_NONE.
 */
ngx_uint_t ngx_tun_owner_next(ngx_tun_owner_t *owner,
    ngx_atomic_uint_t generation);

/* Do other processes have flows? */
ngx_uint_t ngx_tun_owner_others(ngx_tun_owner_t *owner);

/* Is there a process of that number? */
ngx_uint_t ngx_tun_process_alive(ngx_atomic_uint_t pid);


#endif /* _NGX_TUN_OWNER_H_INCLUDED_ */
