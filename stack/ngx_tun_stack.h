
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_STACK_H_INCLUDED_
#define _NGX_TUN_STACK_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun.h>
#include <ngx_tun_packet.h>
#include <ngx_tun_queue.h>
#include <ngx_tun_flow.h>
#include <ngx_tun_fragment.h>
#include <ngx_tun_tx.h>
#include <ngx_tun_limit.h>
#include <ngx_tun_lwip.h>


/*
 * The way of a packet:
 *
 *   ngx_tun_queue_read()       from the kernel
 *   ngx_tun_packet_parse()     IP headers
 *   ngx_tun_input()            by protocol
 *   ngx_tun_tcp_input()        TCP header, checksum, its flow or a new one
 *   ngx_tun_lwip_input()       lwIP: sequence, windows, queues
 *   c->read->handler           the session reads by ngx_tun_tcp_recv()
 *
 * and back:
 *
 *   ngx_tun_tcp_send_chain()   from the session
 *   ngx_tun_tx_append()        copied into the flow's queue, but for full
 *                              buffers of the proxy: ngx_tun_lend()
 *   ngx_tun_lwip_send()        lwIP: segments of up to 64 KB
 *   ngx_tun_flush_handler()    after all events of a turn: output, ACKs
 *   ngx_tun_tcp_output()       checksums
 *   ngx_tun_queue_write_tcp()  to the kernel, which cuts them to the MSS
 *
 * With the system stack a TCP packet is rewritten and goes back at once:
 *
 *   ngx_tun_system_input()     between a client and its destination, there
 *   ngx_tun_nat_lookup()       between a tuple and our listener, here
 *   ngx_tun_rewrite_tcp()
 *   ngx_tun_queue_forward()
 *   ngx_tun_system_accept()    the kernel's connection, as if it were ours
 *
 * A packet of a flow that another worker has goes to that one by
 * ngx_tun_hand_over(), and enters there as one from the kernel.
 *
 * lwIP never calls into a session: what it did is seen after the call.
 *
 * UDP has a way of its own: ngx_tun_udp_input() gives a datagram to the read
 * handler of its session at once, and ngx_tun_udp_output() builds the packet
 * of an answer; ICMP is answered by ngx_tun_icmp_input().  What comes in
 * fragments goes through ngx_tun_fragment_input() first.
 */


typedef struct ngx_tun_tcp_s  ngx_tun_tcp_t;
typedef struct ngx_tun_udp_s  ngx_tun_udp_t;


/* datagrams for a client that go to the kernel together */

typedef struct {
    ngx_tun_flow_key_t          key;
    u_char                     *data;
    size_t                      len;
    size_t                      size;        /* of each but the last */
    ngx_uint_t                  n;
    unsigned                    open:1;
} ngx_tun_udp_batch_t;


/* a flow that has ended */

typedef struct {
    uint64_t                    hash;
    ngx_msec_t                  time;
} ngx_tun_udp_gone_t;


#define NGX_TUN_UDP_GONE  1024


/* what was last asked about the route to a client */

typedef struct {
    time_t                      time;
    u_char                      addr[16];
    ngx_uint_t                  yes;
} ngx_tun_udp_returns_t;


typedef struct {
    ngx_tun_flow_table_t        flows;
    ngx_tun_udp_gone_t         *gone;        /* NGX_TUN_UDP_GONE, by hash */
    ngx_tun_udp_returns_t       returns;
    ngx_uint_t                  sessions;
    ngx_uint_t                  opened;      /* since memory was given back */
    ngx_tun_udp_t              *current;     /* whose session is called */
    size_t                      memory;      /* of datagrams that wait */

    ngx_queue_t                 ended;       /* flows that have all answers */
    ngx_queue_t                 held;        /* sockets */
    ngx_uint_t                  held_n;

    ngx_tun_udp_batch_t         batch;
    uint16_t                    id;          /* of the next IPv4 datagram */

    ngx_event_t                 tick;
    ngx_msec_t                  retired;
    unsigned                    leaving:1;   /* another worker reads now */
} ngx_tun_udp_side_t;
typedef struct ngx_tun_icmp_s  ngx_tun_icmp_t;


/* of packets in a turn, then other events have theirs */
#define NGX_TUN_READ_PACKETS   64


struct ngx_tun_s {
    ngx_tun_conf_t             *conf;
    ngx_tun_device_t           *device;
    ngx_tun_stat_t             *stat;
    ngx_tun_gauge_t            *gauge;
    ngx_cycle_t                *cycle;
    ngx_log_t                  *log;

    ngx_tun_queue_t             queue;
    ngx_connection_t           *connection;  /* of the queue */

    ngx_tun_inherit_state_t    *state;
    ngx_tun_owner_t            *owner;       /* this process as an owner */
    ngx_tun_handoff_t          *handoff;
    ngx_connection_t           *box;         /* where others hand over */
    ngx_uint_t                  number;      /* of the queue */
    ngx_atomic_uint_t           own_cycle;   /* its generation */
    ngx_atomic_uint_t           own_generation; /* it reads the queue in */
    ngx_uint_t                  orphaned;    /* the queue is, so many checks */
    ngx_tun_packet_t           *packet;      /* in hand */
    ngx_tun_queue_info_t       *info;        /* of it */
    unsigned                    lost:1;      /* the interface */
    unsigned                    retired:1;
    unsigned                    handed:1;    /* the packet came over */
    ngx_socket_t                sockets[2];  /* what c->fd is a dup of */

    ngx_tun_lwip_t             *lwip;
    ngx_tun_lwip_buf_t         *buf;         /* the next packet goes there */

    ngx_tun_flow_table_t        flows;       /* of TCP */
    ngx_tun_udp_side_t          udp;
    ngx_tun_fragments_t         fragments;
    ngx_queue_t                 dirty;       /* ngx_tun_tcp_t to be flushed */

    ngx_tun_limits_t            limits;
    ngx_uint_t                  max_flows;   /* this worker's part */
    size_t                      max_memory;
    ngx_uint_t                  max_files;

    ngx_tun_tx_pool_t           tx_pool;

    ngx_tun_icmp_t             *icmp;
    ngx_tun_guard_t            *guard;       /* or NULL */

    ngx_event_t                 flush;
    ngx_event_t                 tick;
    ngx_event_t                 expire;      /* fragments */
    ngx_event_t                 linger;      /* for those before us */

    ngx_tun_system_t           *system;      /* or NULL */
    ngx_event_t                 sweep;       /* of its tables */
};


/* Frees a connection whose descriptor is the cycle's. */
void ngx_tun_close_connection(ngx_connection_t *c);

/* Posts the flush so that it runs after all that is posted now. */
void ngx_tun_post_flush(ngx_tun_t *tun);

/* ngx_tun_count.c */

/* A turn has read so much. */
void ngx_tun_count_read(ngx_tun_t *tun, ngx_uint_t packets, size_t bytes);

/* Adds up what was counted without atomics since the last time. */
void ngx_tun_count(ngx_tun_t *tun);
void ngx_tun_count_fragments(ngx_tun_t *tun);

/* Takes back what stands in the gauges, before the end. */
void ngx_tun_count_done(ngx_tun_t *tun);

/* Makes sure of tun->buf. */
ngx_int_t ngx_tun_get_buf(ngx_tun_t *tun);

/* A packet of len bytes in buf.  NGX_DONE if buf is used further. */
ngx_int_t ngx_tun_input(ngx_tun_t *tun, ngx_tun_lwip_buf_t *buf, size_t len,
    ngx_tun_queue_info_t *info);

/* Reads the packets of a turn: NGX_OK, or NGX_AGAIN when there may be more. */
ngx_int_t ngx_tun_read(ngx_tun_t *tun);

/* ngx_tun_handover.c */

/* Listens to the box. */
ngx_int_t ngx_tun_open_box(ngx_tun_t *tun);

/*
 * The packet in hand is of a flow that this process does not have.  NGX_OK: it
 * went to the one that has it, or, if it opens the flow and this process is
 * about to leave, to one that stays.  NGX_DECLINED: it is to be treated here.
 */
ngx_int_t ngx_tun_hand_over(ngx_tun_t *tun, uint64_t hash, ngx_uint_t opens);

/* ngx_tun_successor.c */

/* The generation has changed: leaves the queue to others, or not yet. */
void ngx_tun_retire(ngx_tun_t *tun);

/* The process exits: it opens no flows, and others do not look for it. */
void ngx_tun_leave(ngx_tun_t *tun);

/* Looks after the queue of a process that does not read it, now and then. */
void ngx_tun_linger_handler(ngx_event_t *ev);

/* Counts and logs that a limit was met. */
void ngx_tun_limited(ngx_tun_t *tun, ngx_tun_limit_e reason);

/* Do the queues of all flows hold more than max_memory? */
ngx_uint_t ngx_tun_full(ngx_tun_t *tun);

/* A new flow: is it that of a socket of ours?  Counted and logged. */
ngx_uint_t ngx_tun_looped(ngx_tun_t *tun, ngx_tun_flow_key_t *key);

/* What we sent to a client comes out of the device: counted and logged. */
void ngx_tun_returned(ngx_tun_t *tun, ngx_tun_flow_key_t *key);

/* The listen that takes a flow, or NULL. */
#define ngx_tun_find_listen(tun, key, type)                                   \
    ngx_tun_conf_find_listen((tun)->conf, key, type)

ngx_tun_listen_t *ngx_tun_conf_find_listen(ngx_tun_conf_t *conf,
    ngx_tun_flow_key_t *key, int type);

/* The address of one side of a flow; returns its length. */
socklen_t ngx_tun_sockaddr(ngx_sockaddr_t *sa, u_char *addr, size_t addr_len,
    uint16_t port);

/* Does the flow go to an address of the device itself, or to all of them? */
ngx_uint_t ngx_tun_own_address(ngx_tun_t *tun, ngx_tun_flow_key_t *key);

/* Is it the address for all of a network of the device? */
ngx_uint_t ngx_tun_broadcast(ngx_tun_t *tun, u_char *addr, size_t addr_len);

extern const ngx_tun_lwip_ops_t  ngx_tun_tcp_ops;

/* A TCP packet in buf.  NGX_DONE if buf is used further, else NGX_OK. */
ngx_int_t ngx_tun_tcp_input(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_lwip_buf_t *buf, ngx_uint_t trusted);

/* An ICMP packet: NGX_OK if it told a TCP or UDP flow of its path's MTU. */
ngx_int_t ngx_tun_tcp_input_too_big(ngx_tun_t *tun, ngx_tun_packet_t *pkt);

/* ngx_tun_udp.c */

ngx_int_t ngx_tun_udp_init(ngx_tun_t *tun);
void ngx_tun_udp_done(ngx_tun_t *tun);

/* A UDP packet, or several of a flow that the kernel gave together. */
void ngx_tun_udp_input(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_queue_info_t *info);

/* A message that a datagram for a client was too big; NGX_OK: of a flow. */
ngx_int_t ngx_tun_udp_input_too_big(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_packet_too_big_t *big);

/* Ends flows that are done, and writes what is held back. */
void ngx_tun_udp_flush(ngx_tun_t *tun);

/* ngx_tun_udp_expire.c */

/* Lets the sessions end: another worker has the queue now. */
void ngx_tun_udp_retire(ngx_tun_t *tun);

/* ngx_tun_system.c */

/*
 * With the system stack: a packet in buf, as it was read, of len bytes.
 * NGX_OK, or NGX_DECLINED: it is neither TCP nor an ICMP error about it.
 */
ngx_int_t ngx_tun_system_input(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    u_char *buf, size_t len, ngx_uint_t trusted);

/* Starts and stops to look after its tables. */
void ngx_tun_system_open(ngx_tun_t *tun);
void ngx_tun_system_close(ngx_tun_t *tun);

/* Takes a flow from the dirty queue: sends what is due, or frees it. */
void ngx_tun_tcp_flush(ngx_queue_t *q);

/* Another process may have the addresses of what is in TIME-WAIT. */
void ngx_tun_tcp_retire(ngx_tun_t *tun);

/* Resets a flow, as its client might have done it. */
void ngx_tun_tcp_abort(ngx_tun_flow_t *flow);

/* Resets and frees a flow without a word to its session. */
void ngx_tun_tcp_reset(ngx_tun_flow_t *flow);


#endif /* _NGX_TUN_STACK_H_INCLUDED_ */
