
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_STEERING_H_INCLUDED_
#define _NGX_TUN_STEERING_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * Before a queue is detached its flows have to be elsewhere: until all
 * processors know that it is gone, milliseconds later, the kernel still picks
 * it for flows that were answered there, and drops their packets.
 */


/*
 * In the master, with its rights: a program of BPF that picks queue 0, or -1
 * where there is none.  The descriptor is closed at exec().
 */
int ngx_tun_steering_open(void);

/*
 * In a worker: the program picks the queue of all packets of the device that
 * fd is of; -1: the kernel does it again.  NGX_OK, or NGX_DECLINED.
 */
ngx_int_t ngx_tun_steering_set(ngx_socket_t fd, int program);


#endif /* _NGX_TUN_STEERING_H_INCLUDED_ */
