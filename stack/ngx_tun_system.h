
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_SYSTEM_H_INCLUDED_
#define _NGX_TUN_SYSTEM_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>


/* what belongs to an accepted connection, in its pool */

typedef struct {
    ngx_tun_system_t         *system;
    ngx_connection_t         *connection;
    ngx_queue_t               queue;     /* of system->connections */
    uint32_t                  slot;
    uint32_t                  generation;
    ngx_uint_t                family;    /* 0, or 1 for IPv6 */

    ngx_sockaddr_t            src;
    ngx_sockaddr_t            dst;
    u_char                    text[NGX_SOCKADDR_STRLEN];

    unsigned                  last:1;    /* the end is on its way */
    unsigned                  reset:1;
    unsigned                  finish:1;  /* the kernel sends FIN at the close */
} ngx_tun_system_connection_t;


/* where the flow of lwIP is kept; pointers are even */

#define ngx_tun_system_set(c, sc)                                             \
    (c)->write->index = (ngx_uint_t) (sc) | 1

#define ngx_tun_system_get(c)                                                 \
    (((c)->write->index & 1)                                                  \
     ? (ngx_tun_system_connection_t *) ((c)->write->index & ~(ngx_uint_t) 1)  \
     : NULL)

/* seconds that all workers have */

#define ngx_tun_system_now()  ((uint32_t) (ngx_current_msec / 1000))


/* of accepted connections, what ngx_tun.h says of these names */

void ngx_tun_system_reset_after(ngx_tun_system_connection_t *sc);
ngx_int_t ngx_tun_system_sent(ngx_tun_system_connection_t *sc,
    ngx_uint_t last, ngx_uint_t all);
void ngx_tun_system_finish_after(ngx_tun_system_connection_t *sc);
ssize_t ngx_tun_system_recv(ngx_connection_t *c, u_char *buf, size_t size);
ssize_t ngx_tun_system_send(ngx_connection_t *c, u_char *buf, size_t size);
ssize_t ngx_tun_system_send_last(ngx_tun_system_connection_t *sc, u_char *buf,
    size_t size);


#endif /* _NGX_TUN_SYSTEM_H_INCLUDED_ */
