
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_INHERIT_H_INCLUDED_
#define _NGX_TUN_INHERIT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_device.h>
#include <ngx_tun_handoff.h>
#include <ngx_tun_owner.h>
#include <ngx_tun_share.h>


/*
 * What a new binary gets from the one before: descriptors, and their numbers
 * in an environment variable, as nginx does it with listening sockets.
 *
 * "2 tun0:number,...,number tun1:..." with a number for each member of
 * ngx_tun_inherit_e, then the queues, then two sockets for each box.
 */


#define NGX_TUN_INHERIT_VAR      "NGX_TUN"
#define NGX_TUN_INHERIT_VERSION  "2 "
#define NGX_TUN_INHERIT_QUEUES   256


typedef enum {
    NGX_TUN_INHERIT_QUEUE_N = 0,
    NGX_TUN_INHERIT_BOX_N,
    NGX_TUN_INHERIT_STATE,                /* descriptors, -1: there is none */
    NGX_TUN_INHERIT_TABLE,
    NGX_TUN_INHERIT_TABLE6,
    NGX_TUN_INHERIT_STACK,                /* as configured, as it runs */
    NGX_TUN_INHERIT_STACK_IN_FORCE,
    NGX_TUN_INHERIT_FLAGS,
    NGX_TUN_INHERIT_MTU_FOUND,
    NGX_TUN_INHERIT_TXQLEN_FOUND,
    NGX_TUN_INHERIT_N
} ngx_tun_inherit_e;


#define NGX_TUN_INHERIT_EXISTED  1
#define NGX_TUN_INHERIT_WAS_UP   2
#define NGX_TUN_INHERIT_OFFLOAD  4
#define NGX_TUN_INHERIT_USO      8
#define NGX_TUN_INHERIT_ADDED    16        /* all addresses were */

#define NGX_TUN_INHERIT_MAX      (NGX_TUN_INHERIT_N                           \
                                  + NGX_TUN_INHERIT_QUEUES                    \
                                  + 2 * NGX_TUN_OWNER_BOXES)


typedef struct {
    ngx_str_t                      name;      /* of the device */
    ngx_int_t                      numbers[NGX_TUN_INHERIT_MAX];
} ngx_tun_inherit_t;


/*
 * Of a device, in an ngx_tun_share_t of all binaries that serve it; the owners
 * of its flows are behind it.
 */

typedef struct {
    ngx_atomic_t                   size;      /* of this struct */
    ngx_atomic_t                   masters;   /* there were, each a number */
    ngx_atomic_t                   master;    /* the last that took over */
    ngx_atomic_t                   pid;       /* its */
    ngx_atomic_t                   generation; /* counts the cycles */
    ngx_atomic_t                   queues;    /* of the latest */

    /* of each queue: the process that reads it, or is about to */
    ngx_atomic_t                   reader[NGX_TUN_INHERIT_QUEUES];
} ngx_tun_inherit_state_t;


#define NGX_TUN_INHERIT_OWNERS                                                \
    ngx_align(sizeof(ngx_tun_inherit_state_t), 64)

#define ngx_tun_inherit_owners(state)                                         \
    ((ngx_tun_owners_t *) ((u_char *) (state) + NGX_TUN_INHERIT_OWNERS))


/*
 * The memory of a new device, with room for so many flows (0: a usual number).
 * NULL after a line in the log.
 */
ngx_tun_share_t *ngx_tun_inherit_create(ngx_uint_t flows, ngx_log_t *log);

/* Is it memory of a device? */
ngx_uint_t ngx_tun_inherit_valid(ngx_tun_share_t *share);


/*
 * The next device of the variable's value at *p, which is moved.  NGX_OK,
 * NGX_DONE at the end, or NGX_ERROR: no binary wrote that.
 */
ngx_int_t ngx_tun_inherit_parse(u_char **p, ngx_tun_inherit_t *inherit);

/*
 * Are the descriptors what they should be?  NULL, or what is wrong.  Nothing
 * is closed or changed.
 */
char *ngx_tun_inherit_check(ngx_tun_inherit_t *inherit);

/* The room that a device needs at most, and its text; returns the end. */
size_t ngx_tun_inherit_len(ngx_tun_inherit_t *inherit);
u_char *ngx_tun_inherit_print(u_char *p, ngx_tun_inherit_t *inherit);

/* Sets whether the next program has the descriptors, or closes them. */
void ngx_tun_inherit_keep(ngx_tun_inherit_t *inherit, ngx_uint_t keep);
void ngx_tun_inherit_close(ngx_tun_inherit_t *inherit);

/* The same for the boxes: fills in, and takes, their sockets. */
void ngx_tun_handoff_describe(ngx_tun_handoff_t *handoff,
    ngx_tun_inherit_t *inherit);
void ngx_tun_handoff_inherit(ngx_tun_handoff_t *handoff,
    ngx_tun_inherit_t *inherit);

/*
 * Fills in what is of the device, and makes one of it that
 * can be the old one of ngx_tun_device_open().  dev->conf is the caller's and
 * gets the number of queues; the descriptors stay in inherit.
 */
void ngx_tun_device_describe(ngx_tun_device_t *dev,
    ngx_tun_inherit_t *inherit);
ngx_int_t ngx_tun_device_inherit(ngx_tun_device_t *dev,
    ngx_tun_inherit_t *inherit, ngx_pool_t *pool);


#endif /* _NGX_TUN_INHERIT_H_INCLUDED_ */
