
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_STREAM_TUN_RELAY_H_INCLUDED_
#define _NGX_STREAM_TUN_RELAY_H_INCLUDED_


#include <ngx_stream_tun.h>


/*
 * A relay has one socket for a source, from which datagrams go to all
 * destinations, and so one port that all of them see: endpoint-independent
 * mapping, RFC 4787, 4.1.
 */


/* a destination that the client has sent to */

typedef struct {
    ngx_rbtree_node_t         node;
    ngx_queue_t               queue;      /* least recently used first */
    u_char                    addr[16];
    uint16_t                  port;       /* host order, 0: all ports */
} ngx_stream_tun_relay_peer_t;


struct ngx_stream_tun_relay_s {
    ngx_stream_session_t     *session;
    ngx_connection_t         *upstream;
    ngx_uint_t                filtering;  /* ngx_stream_tun_filtering_e */

    ngx_rbtree_t              rbtree;     /* of peers */
    ngx_rbtree_node_t         sentinel;
    ngx_queue_t               peers;
    ngx_uint_t                npeers;     /* in the tree */
    ngx_uint_t                peers_seen; /* ever */
    ngx_tun_datagram_t        last;       /* whose peer was used last */

    ngx_uint_t                sent;       /* datagrams */
    ngx_uint_t                received;
    ngx_uint_t                filtered;
};


/* ngx_stream_tun_relay.c */

/* May what comes from there reach the client? */
ngx_uint_t ngx_stream_tun_relay_accepts(ngx_stream_tun_relay_t *relay,
    ngx_tun_datagram_t *datagram);

/* ngx_stream_tun_relay_io.c */

/* Opens the socket of a relay; NGX_OK or NGX_ERROR after a line in the log. */
ngx_int_t ngx_stream_tun_relay_open(ngx_stream_tun_relay_t *relay);
void ngx_stream_tun_relay_close(ngx_stream_tun_relay_t *relay);

/* Sends to the datagram's address, now or at the end of the turn. */
void ngx_stream_tun_relay_send(ngx_stream_tun_relay_t *relay,
    ngx_tun_datagram_t *datagram);


#endif /* _NGX_STREAM_TUN_RELAY_H_INCLUDED_ */
