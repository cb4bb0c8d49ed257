
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_SHARE_H_INCLUDED_
#define _NGX_TUN_SHARE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * Memory that a new binary can have along with a descriptor, unlike a zone of
 * nginx, which ends with its master.  Counted by the cycles that use it.
 */


typedef struct {
    u_char                        *memory;
    size_t                         size;
    ngx_socket_t                   fd;
    ngx_uint_t                     refs;
} ngx_tun_share_t;


/* Zeroed memory, with no reference.  NULL after a line in the log. */
ngx_tun_share_t *ngx_tun_share_create(size_t size, ngx_log_t *log);

/*
 * The memory behind a descriptor that another process made by the function
 * above, which stays the caller's.  NULL if it is something else.
 */
ngx_tun_share_t *ngx_tun_share_attach(ngx_socket_t fd, ngx_log_t *log);

/* The last reference frees it. */
void ngx_tun_share_release(ngx_tun_share_t *share);


#endif /* _NGX_TUN_SHARE_H_INCLUDED_ */
