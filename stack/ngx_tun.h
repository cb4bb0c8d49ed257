
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_H_INCLUDED_
#define _NGX_TUN_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_device.h>
#include <ngx_tun_guard.h>
#include <ngx_tun_handoff.h>
#include <ngx_tun_icmp_socket.h>
#include <ngx_tun_inherit.h>
#include <ngx_tun_limit.h>
#include <ngx_tun_nat.h>


/*
 * A TUN device accepts packets and yields connections.  Which ones, is told
 * by its listens: as with a socket, a connection gets the ngx_listening_t of
 * the listen that took it, and ls->handler(c) is called.
 *
 * Such a connection has recv, send and send_chain of its own, is never in
 * epoll (read->active and write->active are set), and its c->fd is only there
 * for nginx to peek at and to close.  Its addresses are the application's and
 * the ones that the application asked for.
 *
 * With the system stack it is an accepted one of the kernel, by a listener of
 * the caller; ngx_tun_system_accept() gives it those addresses.
 */


#define NGX_TUN_STACK_LWIP    0
#define NGX_TUN_STACK_SYSTEM  1

/* what becomes of a ping */
#define NGX_TUN_ICMP_REPLY    0
#define NGX_TUN_ICMP_FORWARD  1
#define NGX_TUN_ICMP_DROP     2          /* and no errors are sent */


typedef struct ngx_tun_s    ngx_tun_t;


typedef struct {
    u_char                  addr[16];
    size_t                  addr_len;    /* 4, 16, or 0: any address */
    ngx_uint_t              prefix;      /* bits */
    in_port_t               first;       /* host order, 0 to 65535: any port */
    in_port_t               last;
    int                     type;        /* SOCK_STREAM or SOCK_DGRAM */
    ngx_uint_t              early;       /* answer a SYN at once */
    ngx_uint_t              relay;       /* one connection for each source */

    ngx_listening_t        *ls[2];       /* for IPv4 and IPv6 connections */
    void                   *data;        /* the caller's */
} ngx_tun_listen_t;


/* why fragments were dropped */

typedef enum {
    NGX_TUN_FRAGMENT_DROP_LIMIT = 0,
    NGX_TUN_FRAGMENT_DROP_TIMEOUT,
    NGX_TUN_FRAGMENT_DROP_OVERLAP,
    NGX_TUN_FRAGMENT_DROP_INVALID,
    NGX_TUN_FRAGMENT_DROP_N
} ngx_tun_fragment_drop_e;


/* turns that read 1, 2-7, 8-31, 32-63 packets, and as many as they may */
#define NGX_TUN_READS  5


/* what a device does, in each worker; in shared memory */

typedef struct {
    ngx_atomic_t            packets_in;
    ngx_atomic_t            bytes_in;
    ngx_atomic_t            packets_out;
    ngx_atomic_t            bytes_out;
    ngx_atomic_t            write_errors;
    ngx_atomic_t            reads[NGX_TUN_READS];

    ngx_atomic_t            invalid;       /* not a valid IP packet */
    ngx_atomic_t            checksum;      /* wrong, of TCP or ICMP */
    ngx_atomic_t            unsupported;   /* fragments, other protocols */
    ngx_atomic_t            unknown;       /* segments without a flow */
    ngx_atomic_t            unacceptable;  /* of a flow, but not now */
    ngx_atomic_t            retransmits;   /* lwIP's */

    ngx_atomic_t            flows;         /* accepted */
    ngx_atomic_t            active;        /* in the table now */
    ngx_atomic_t            pending;       /* of these, without an ACK */
    ngx_atomic_t            half_open;     /* and without a session */
    ngx_atomic_t            refused;       /* no listen took them */
    ngx_atomic_t            looped;        /* of a socket of ours */
    ngx_atomic_t            early;         /* answered before a session */

    ngx_atomic_t            udp_flows;     /* accepted */
    ngx_atomic_t            udp_active;
    ngx_atomic_t            udp_evicted;   /* gave way to others */
    ngx_atomic_t            udp_oversized; /* larger than who reads it takes */
    ngx_atomic_t            udp_dropped;   /* nobody read them in time */
    ngx_atomic_t            datagrams_in;
    ngx_atomic_t            datagrams_out;

    ngx_atomic_t            reassembled;   /* datagrams, of fragments */
    ngx_atomic_t            reassembling;  /* wait for fragments now */
    ngx_atomic_t            fragments[NGX_TUN_FRAGMENT_DROP_N];

    ngx_atomic_t            icmp_echo;     /* pings answered */
    ngx_atomic_t            icmp_forwarded; /* and passed on */
    ngx_atomic_t            icmp_errors;   /* sent */
    ngx_atomic_t            limited_icmp;  /* not answered, or not sent */
    ngx_atomic_t            limited_resets; /* of unknown, not answered */

    ngx_atomic_t            handshakes_ok; /* with proxies, of sessions */
    ngx_atomic_t            handshakes_refused;
    ngx_atomic_t            handshakes_failed;

    ngx_atomic_t            limits[NGX_TUN_LIMIT_N];
} ngx_tun_stat_t;


/*
 * What a process adds to the gauges, in shared memory too: if it is killed,
 * the next one subtracts it.
 */

typedef struct {
    ngx_atomic_t            pid;           /* 0: free */
    ngx_uint_t              worker;        /* whose gauges */
    ngx_int_t               active;
    ngx_int_t               udp_active;
    ngx_uint_t              pending;
    ngx_uint_t              half_open;
    ngx_uint_t              reassembling;
} ngx_tun_gauge_t;


/* of a flow, by what has stat, gauge and owner of its process */

#define ngx_tun_gauge_add(process, name, n)                                   \
    (void) ngx_atomic_fetch_add(&(process)->stat->name, n);                   \
    (process)->gauge->name += (n);                                            \
    ngx_tun_owner_count((process)->owner, n)


/* what waits of fragments, of each source */

typedef struct {
    ngx_uint_t              datagrams;
    size_t                  memory;
    ngx_msec_t              timeout;
} ngx_tun_fragments_conf_t;


#define NGX_TUN_SYSTEM_SOURCES  4096


/* the system stack of one family: a listener, and tuples that connect to it */

typedef struct {
    ngx_tun_nat_conf_t      nat;
    u_char                  addr[16];      /* of the listener */
    in_port_t               port;          /* 0: the family is not served */
    void                   *memory;        /* of the table, shared */
} ngx_tun_system_conf_t;


typedef struct {
    ngx_tun_device_conf_t   device;
    ngx_uint_t              stack;         /* NGX_TUN_STACK_* */
    ngx_uint_t              icmp;          /* NGX_TUN_ICMP_* */
    ngx_int_t               max_flows;     /* 0: no limit */
    ngx_int_t               max_pending;
    ngx_int_t               max_half_open;
    size_t                  max_memory;

    ngx_int_t               max_udp_flows; /* 0: what descriptors allow */
    ngx_int_t               max_udp_source_flows;  /* 0: half of them */
    ngx_msec_t              udp_timeout;
    ngx_tun_fragments_conf_t  fragments;
    ngx_tun_system_conf_t   system[2];     /* of IPv4 and IPv6 */

    ngx_array_t             listens;       /* ngx_tun_listen_t, sorted */
} ngx_tun_conf_t;


/*
 * Orders the listens of a device, the most specific first: longer prefix, then
 * fewer ports.  Returns NGX_OK, or NGX_DECLINED when two of them, put into
 * *one and *other, could take the same flow with equal right.
 */
ngx_int_t ngx_tun_sort_listens(ngx_array_t *listens, ngx_tun_listen_t **one,
    ngx_tun_listen_t **other);

/* the system stack of a device in this process */

typedef struct {
    ngx_tun_conf_t         *conf;
    ngx_tun_stat_t         *stat;          /* of this worker */
    ngx_tun_gauge_t        *gauge;         /* of this process */
    ngx_tun_owner_t        *owner;         /* too */
    ngx_tun_nat_t           nat[2];
    ngx_uint_t              flows;         /* of this worker */
    ngx_queue_t             connections;   /* as many */
    time_t                  logged;        /* that max_flows was met */

    /* until when a source has spent its resets; those of one hash share it */
    ngx_msec_t              resets[NGX_TUN_SYSTEM_SOURCES];
} ngx_tun_system_t;


/* what a process needs to serve one queue; all of it lives until the close */

typedef struct {
    ngx_tun_conf_t         *conf;
    ngx_tun_device_t       *device;
    ngx_uint_t              queue;
    ngx_tun_stat_t         *stat;          /* of this worker */
    ngx_tun_gauge_t        *gauge;         /* of this process */
    ngx_tun_inherit_state_t *state;        /* of the device, shared */
    ngx_tun_owner_t        *owner;         /* this process in it */
    ngx_tun_handoff_t      *handoff;       /* to the others, and from them */
    ngx_atomic_uint_t       cycle;         /* its generation at the start */
    ngx_uint_t              waits;         /* another binary has the queue */
    ngx_tun_system_t       *system;        /* NULL with another stack */
    ngx_tun_guard_t        *guard;         /* or NULL */

    ngx_tun_icmp_sockets_t *icmp;          /* where pings are forwarded */
    ngx_uint_t              part;          /* of all queues of all devices */
    ngx_uint_t              parts;
} ngx_tun_options_t;


/*
 * Starts to serve a queue in this process, until a later cycle changes the
 * generation: then flows that are there go on with what is handed over.  If
 * the one that has the queue dies, and this process stays, it takes it again.
 * Returns NULL after a line in the log.
 */
ngx_tun_t *ngx_tun_open(ngx_tun_options_t *options, ngx_cycle_t *cycle);

/* Attaches to the tables of conf; for each worker, with a queue or without. */
void ngx_tun_system_init(ngx_tun_system_t *sys, ngx_tun_conf_t *conf,
    ngx_tun_stat_t *stat);

/*
 * A connection that a listener of the system stack accepted.  NGX_OK: it has
 * the addresses of the flow and c->listening of the listen that took it, whose
 * handler is to be called.  NGX_DECLINED: it came from elsewhere, or nobody
 * takes it; the caller closes it, which is a reset.
 */
ngx_int_t ngx_tun_system_accept(ngx_tun_system_t *sys, ngx_connection_t *c);

/* Resets all connections that are left, before ngx_tun_close(). */
void ngx_tun_system_abort(ngx_tun_system_t *sys);

/*
 * Does the kernel answer a SYN that comes out of the device to the listener?
 * In the master, while nobody else reads the device.  NGX_OK, or NGX_DECLINED
 * when there is no answer.
 */
ngx_int_t ngx_tun_system_test(ngx_tun_conf_t *conf, ngx_tun_device_t *dev,
    ngx_uint_t family, ngx_log_t *log);

/* Resets all connections that are left and frees everything. */
void ngx_tun_close(ngx_tun_t *tun);

/*
 * Of connections that ngx_tun_open() yielded, while they are open:
 */

ngx_tun_conf_t *ngx_tun_connection_conf(ngx_connection_t *c);

/* The counters of its device in this worker. */
ngx_tun_stat_t *ngx_tun_connection_stat(ngx_connection_t *c);

/*
 * Answers the client's SYN, where it still waits (a listen that is not early):
 * there is something for the client to talk to.  Sending does so by itself.
 * A connection closed before is refused with RST, as if nothing listened.
 */
void ngx_tun_answer(ngx_connection_t *c);

/*
 * What is sent until the close arrives, and then RST instead of FIN.  Without
 * it a close is an orderly end only after a last buffer went to send_chain(),
 * or after the client's own FIN.
 */
void ngx_tun_reset_after(ngx_connection_t *c);

/* The other way round: from now on a close is an orderly end. */
void ngx_tun_finish_after(ngx_connection_t *c);

/*
 * Of a connection of datagrams, before its end: the client is told by ICMP
 * that there is nothing, or that it may not.
 */
void ngx_tun_refuse(ngx_connection_t *c, ngx_tun_icmp_error_e reason);

/*
 * A connection of a listen with "relay" has the datagrams of a source to all
 * destinations that the listen takes; the first one is c->buffer, and went to
 * c->local_sockaddr.
 */

typedef struct {
    u_char                 *data;
    size_t                  len;
    u_char                  addr[16];      /* of the other side */
    uint16_t                port;          /* host order */
} ngx_tun_datagram_t;


/*
 * To be called by the read handler: NGX_OK, with data that lives until the
 * handler returns, or NGX_AGAIN.
 */
ngx_int_t ngx_tun_recv_datagram(ngx_connection_t *c,
    ngx_tun_datagram_t *datagram);

/* An answer from any address of the connection's family. */
void ngx_tun_send_datagram(ngx_connection_t *c, ngx_tun_datagram_t *datagram);

/* As ngx_tun_refuse(), about a datagram to that address. */
void ngx_tun_refuse_datagram(ngx_connection_t *c, ngx_tun_datagram_t *datagram,
    ngx_tun_icmp_error_e reason);

/* Counts an answer that was dropped, for nobody had a buffer as large. */
void ngx_tun_oversized(ngx_connection_t *c);

/* Counts a datagram that was dropped, for too many wait. */
void ngx_tun_dropped(ngx_connection_t *c);

/*
 * Of a connection of datagrams whose socket to an upstream is about to be
 * closed: where answers are to come yet, the port stays taken for some time,
 * so that they do not reach who gets it next.
 */
void ngx_tun_hold(ngx_connection_t *c, ngx_socket_t fd);

/*
 * After what went through the filters to the client: is it the last, and has
 * the connection taken everything?  NGX_OK, or NGX_ERROR: the reset that was
 * asked for is on its way, and the session is to be ended.
 */
ngx_int_t ngx_tun_sent(ngx_connection_t *c, ngx_uint_t last, ngx_uint_t all);

/*
 * The bytes of the connection, for a layer such as TLS that puts functions of
 * its own into c->recv and c->send.  Events, c->sent and the log are left to
 * the caller.  ngx_tun_recv() returns 0 after the client's FIN; both return
 * NGX_AGAIN when the event comes again, and NGX_ERROR when the connection is
 * no more or has been ended.
 */
ssize_t ngx_tun_recv(ngx_connection_t *c, u_char *buf, size_t size);
ssize_t ngx_tun_send(ngx_connection_t *c, u_char *buf, size_t size);

/*
 * Memory of size bytes that a session may have instead of the buffer which it
 * is about to send from, or NULL: it goes on with what it has.  After the call
 * that sends, sent tells whether all was taken.  NGX_OK: the memory replaces
 * that of the buffer, from now on until the connection is closed or the next
 * is had.  What it replaces is the caller's, if it is not of an earlier call:
 * then it went into the send queue without a copy.  NGX_DECLINED: it is not to
 * be used.
 */
u_char *ngx_tun_lend(ngx_connection_t *c, size_t size);
ngx_int_t ngx_tun_lent(ngx_connection_t *c, ngx_uint_t sent);

/*
 * Takes all of what the layer says at its end, however much is queued, and
 * sends FIN after it; the client's bytes still come.  After a call of
 * ngx_tun_reset_after() they are not sent.  Returns size or NGX_ERROR.
 */
ssize_t ngx_tun_send_last(ngx_connection_t *c, u_char *buf, size_t size);


#endif /* _NGX_TUN_H_INCLUDED_ */
