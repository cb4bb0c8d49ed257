
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_STREAM_TUN_RELAY_H_INCLUDED_
#define _NGX_STREAM_TUN_RELAY_H_INCLUDED_


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_fakeip.h>


/*
 * A relay has one socket for a source, from which datagrams go to all
 * destinations, and so one port that all of them see: endpoint-independent
 * mapping, RFC 4787, 4.1.
 */


typedef struct ngx_stream_tun_associate_s  ngx_stream_tun_associate_t;


/* of a relay to a name: where it leads to */

typedef struct {
    ngx_queue_t               queue;      /* of the relay */
    ngx_stream_tun_relay_t   *relay;
    ngx_resolver_ctx_t       *resolve;    /* while it is under way */
    ngx_tun_fakeip_t         *fip;
    uint32_t                  index;      /* in the pool */
    time_t                    touched;
    ngx_str_t                 name;

    u_char                    fake[16];
    u_char                    addr[16];   /* when it is known */
    in_port_t                 port;       /* last, through a proxy */
    ngx_chain_t              *waiting;    /* datagrams, with their port */
    ngx_uint_t                nwaiting;
    unsigned                  known:1;
    unsigned                  failed:1;
} ngx_stream_tun_relay_name_t;


/* a destination that the client has sent to */

typedef struct {
    ngx_rbtree_node_t         node;
    ngx_queue_t               queue;      /* least recently used first */
    u_char                    addr[16];
    uint16_t                  port;       /* host order, 0: all ports */
    ngx_stream_tun_relay_name_t  *name;   /* what the address stands for */
} ngx_stream_tun_relay_peer_t;


struct ngx_stream_tun_relay_s {
    ngx_stream_session_t     *session;
    ngx_connection_t         *upstream;   /* NULL: not open yet */
    ngx_stream_tun_associate_t  *associate; /* through a proxy */
    ngx_uint_t                filtering;  /* ngx_stream_tun_filtering_e */

    ngx_rbtree_t              rbtree;     /* of peers */
    ngx_rbtree_node_t         sentinel;
    ngx_queue_t               peers;
    ngx_queue_t               names;
    ngx_uint_t                npeers;     /* in the tree */
    ngx_uint_t                peers_seen; /* ever */
    ngx_tun_datagram_t        last;       /* to whom the client sent last */
    ngx_stream_tun_relay_peer_t  *last_peer;

    ngx_uint_t                sent;       /* datagrams */
    ngx_uint_t                received;
    ngx_uint_t                filtered;
};


/* ngx_stream_tun_relay.c */

/*
 * May what comes from there reach the client?  The address becomes the one that
 * the client knows it by.
 */
ngx_uint_t ngx_stream_tun_relay_accepts(ngx_stream_tun_relay_t *relay,
    ngx_tun_datagram_t *datagram);

/* Lets the address be known as that of a name. */
void ngx_stream_tun_relay_alias(ngx_stream_tun_relay_t *relay,
    ngx_stream_tun_relay_name_t *name, uint16_t port);

/* Has the client sent there?  Or is it known as the address of a name? */
ngx_uint_t ngx_stream_tun_relay_known(ngx_stream_tun_relay_t *relay,
    ngx_tun_datagram_t *datagram);

/* Ends the relay and its session. */
void ngx_stream_tun_relay_finalize(ngx_stream_tun_relay_t *relay,
    ngx_uint_t rc);

/* ngx_stream_tun_relay_name.c */

/*
 * Finds out whether the destination of a new peer is a name's, and asks the
 * resolver.  NGX_OK, or NGX_ABORT: nothing can be sent there.
 */
ngx_int_t ngx_stream_tun_relay_resolve(ngx_stream_tun_relay_t *relay,
    ngx_stream_tun_relay_peer_t *peer, ngx_tun_datagram_t *datagram);

/* Keeps the name while it is in use. */
void ngx_stream_tun_relay_touch(ngx_stream_tun_relay_name_t *name);

/* Sends to a name: now, when it is known, or not at all. */
void ngx_stream_tun_relay_send_name(ngx_stream_tun_relay_name_t *name,
    ngx_tun_datagram_t *datagram);

/* The relay ends. */
void ngx_stream_tun_relay_forget_names(ngx_stream_tun_relay_t *relay);

/* ngx_stream_tun_relay_io.c */

/* Opens the socket of a relay; NGX_OK or NGX_ERROR after a line in the log. */
ngx_int_t ngx_stream_tun_relay_open(ngx_stream_tun_relay_t *relay, int family);
void ngx_stream_tun_relay_close(ngx_stream_tun_relay_t *relay);

/* Sends to the datagram's address, now or at the end of the turn. */
void ngx_stream_tun_relay_send(ngx_stream_tun_relay_t *relay,
    ngx_tun_datagram_t *datagram);

/* Room for the largest datagram and its header, until the next call. */
u_char *ngx_stream_tun_relay_scratch(ngx_stream_tun_relay_t *relay);

/* ngx_stream_tun_associate.c */

/*
 * A relay through a SOCKS5 proxy: UDP ASSOCIATE, RFC 1928, 4 and 7.  The
 * upstream's balancer chooses the proxy, and another one where that fails.
 * Until the proxy has agreed, some datagrams wait; with no proxy left they are
 * refused, and the session ends.  NGX_ERROR: no proxy can be asked.
 */
ngx_int_t ngx_stream_tun_associate(ngx_stream_tun_relay_t *relay,
    ngx_stream_upstream_srv_conf_t *uscf);
void ngx_stream_tun_associate_close(ngx_stream_tun_relay_t *relay);

/* Where all datagrams of the relay go to. */
struct sockaddr *ngx_stream_tun_associate_sockaddr(
    ngx_stream_tun_associate_t *as, socklen_t *socklen);

/* Sends to the datagram's address, or to the name that it stands for. */
void ngx_stream_tun_associate_send(ngx_stream_tun_relay_t *relay,
    ngx_stream_tun_relay_name_t *name, ngx_tun_datagram_t *datagram);

/*
 * Takes the proxy's header off, and sets the datagram's address to what it
 * says; NGX_ERROR for what is no datagram, counted.
 */
ngx_int_t ngx_stream_tun_associate_received(ngx_stream_tun_relay_t *relay,
    ngx_tun_datagram_t *datagram);


#endif /* _NGX_STREAM_TUN_RELAY_H_INCLUDED_ */
