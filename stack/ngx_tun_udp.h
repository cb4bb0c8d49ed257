
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_UDP_H_INCLUDED_
#define _NGX_TUN_UDP_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>


/*
 * A UDP flow is a session: it lives in the pool of its connection, from the
 * first datagram to the end of the session.  Each datagram is given to the
 * session at once, by its read handler; one that the session does not take
 * waits in a short queue.
 *
 * A flow that has used up its requests (proxy_requests) is detached: replies
 * go on, the next datagram makes a new one.
 */


/* bytes of answers that go to the kernel together */
#define NGX_TUN_UDP_BATCH          65000

/* of what a session does not read now */
#define NGX_TUN_UDP_WAITING        64
#define NGX_TUN_UDP_WAITING_BYTES  (256 * 1024)


/* a datagram that waits */

typedef struct {
    ngx_queue_t               queue;
    size_t                    len;
    u_char                    data[];
} ngx_tun_udp_waiting_t;


struct ngx_tun_udp_s {
    ngx_tun_flow_t            flow;
    ngx_rbtree_node_t         node;      /* what c->udp points to */

    ngx_tun_t                *tun;
    ngx_connection_t         *connection;

    ngx_tun_claim_t           claim;
    ngx_msec_t                used;
    ngx_queue_t               ended;     /* to be ended by the flush */

    ngx_tun_flow_key_t       *target;    /* of the datagram, if a relay's */
    u_char                   *data;      /* that is given right now, or NULL */
    size_t                    len;
    ngx_queue_t               waiting;
    ngx_uint_t                waiting_n;
    size_t                    waiting_bytes;

    ngx_tun_flow_key_t        asked;     /* of the first datagram */
    size_t                    last_len;  /* of the last one */
    ngx_uint_t                requests;
    ngx_uint_t                responses;

    unsigned                  inserted:1;
    unsigned                  in_end:1;
    unsigned                  narrow:1;  /* the path is, RFC 8201 */
    unsigned                  relay:1;   /* the key has no destination */
};


/* something was asked and not answered */
#define ngx_tun_udp_outstanding(udp)  ((udp)->responses < (udp)->requests)


/* ngx_tun_udp_connection.c */

/*
 * Makes flow and connection for a first datagram, which is c->buffer then.
 * NULL: a limit was met, or no memory.
 */
ngx_tun_udp_t *ngx_tun_udp_create(ngx_tun_t *tun, ngx_listening_t *ls,
    ngx_tun_flow_key_t *key, u_char *data, size_t len);

/* ngx_tun_udp.c */

/* The flow is in use. */
void ngx_tun_udp_used(ngx_tun_udp_t *udp);

/* Ends the session with the flush, if nothing was asked until then. */
void ngx_tun_udp_end_later(ngx_tun_udp_t *udp);

/* The flow is not found any more. */
void ngx_tun_udp_detach(ngx_tun_udp_t *udp);

/* Leaves the source, the key of a relay. */
void ngx_tun_udp_source_key(ngx_tun_flow_key_t *key);

/* ngx_tun_udp_expire.c */

#define NGX_TUN_UDP_TICK  1000       /* ms */

/* Ends flows, and releases sockets, that have had their time. */
void ngx_tun_udp_tick_handler(ngx_event_t *ev);

/* Ends the oldest for a new one.  NGX_OK, or NGX_DECLINED: it is in use. */
ngx_int_t ngx_tun_udp_make_room(ngx_tun_t *tun, ngx_tun_claim_t *oldest);

/* Ends the session, as nginx does when its worker has no more time for it. */
void ngx_tun_udp_end(ngx_tun_udp_t *udp);

/* Closes the sockets that were held for so many milliseconds, or more. */
void ngx_tun_udp_release_held(ngx_tun_t *tun, ngx_msec_t age);

/* ngx_tun_udp_answer.c */

/*
 * A new flow: is it an answer of ours, whose client's address is routed into
 * the device?
 */
ngx_uint_t ngx_tun_udp_is_answer(ngx_tun_t *tun, ngx_tun_flow_key_t *key);

/* Notes that a flow was there. */
void ngx_tun_udp_gone(ngx_tun_udp_t *udp);

/* ngx_tun_udp_output.c */

/*
 * A datagram for the client, from the destination of the key: iov[2] to
 * iov[n - 1], len bytes.  The first two are used here.
 */
void ngx_tun_udp_output(ngx_tun_udp_t *udp, ngx_tun_flow_key_t *key,
    struct iovec *iov, ngx_uint_t n, size_t len);

/* Writes what is held back. */
void ngx_tun_udp_write_batch(ngx_tun_t *tun);


#endif /* _NGX_TUN_UDP_H_INCLUDED_ */
