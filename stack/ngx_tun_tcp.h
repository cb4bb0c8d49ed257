
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_TCP_H_INCLUDED_
#define _NGX_TUN_TCP_H_INCLUDED_


#include <ngx_tun_stack.h>
#include <ngx_tun_tx.h>


#define NGX_TUN_TCP_SYN_MAX  128     /* of a SYN's packet kept: all headers */

/* bytes held for the client: twice the congestion window between these */
#define NGX_TUN_TCP_TX_MIN   (256 * 1024)
#define NGX_TUN_TCP_TX_MAX   (8 * 1024 * 1024)


/*
 * A TCP flow has a session (connection), an lwIP pcb (lwip.pcb), or both.
 *
 *   pending      a session, and the SYN that waits for an answer
 *   opened       a pcb in SYN-RECEIVED, with or without a session
 *   established  both
 *   closing      a pcb that still has bytes to send, or FINs to see
 *
 * With neither it is freed, by the flush.
 */

typedef enum {
    NGX_TUN_TCP_PENDING = 0,
    NGX_TUN_TCP_OPENED,
    NGX_TUN_TCP_ESTABLISHED,
    NGX_TUN_TCP_CLOSING
} ngx_tun_tcp_state_e;


struct ngx_tun_tcp_s {
    ngx_tun_flow_t            flow;
    ngx_tun_lwip_flow_t       lwip;
    ngx_tun_tcp_state_e       state;

    ngx_tun_t                *tun;
    ngx_listening_t          *listening;
    ngx_connection_t         *connection;

    ngx_queue_t               queue;     /* of dirty flows */
    ngx_tun_claim_t           claim;
    ngx_tun_tx_t              tx;
    size_t                    unflushed; /* bytes given to lwIP */
    ngx_tun_tx_chunk_t       *lent;      /* the session's buffer, or NULL */
    ngx_tun_tx_chunk_t       *spare;     /* its next one, during a call */

    u_char                   *syn;       /* while it is pending */
    size_t                    syn_len;
    size_t                    syn_tcp;   /* offset of the TCP header */

    unsigned                  dirty:1;
    unsigned                  inserted:1;
    unsigned                  eof:1;     /* the session was woken for it */
    unsigned                  shutdown:1; /* FIN after what is queued */
    unsigned                  reset:1;   /* RST after what is queued */
    unsigned                  finish:1;  /* FIN when the session is over */
    unsigned                  gone:1;    /* the client gave up */
    unsigned                  given:1;   /* what was lent is the queue's */
};


/* a SYN that opens, not one that answers */

#define ngx_tun_tcp_is_syn(th)                                                \
    (((th)->flags & (NGX_TUN_PACKET_TCP_SYN                                   \
                     |NGX_TUN_PACKET_TCP_ACK                                  \
                     |NGX_TUN_PACKET_TCP_RST))                                \
     == NGX_TUN_PACKET_TCP_SYN)

/* ngx_tun_tcp.c */

/* Gives the SYN to lwIP, which answers it.  NGX_OK or NGX_ERROR. */
ngx_int_t ngx_tun_tcp_open(ngx_tun_tcp_t *tcp, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th);

/* Answers a segment with RST. */
void ngx_tun_tcp_refuse(ngx_tun_t *tun, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th);

/* Makes the event ready, and posts it. */
void ngx_tun_tcp_wake(ngx_event_t *ev);

/* Lets the flush see the flow. */
void ngx_tun_tcp_dirty(ngx_tun_tcp_t *tcp);

/* Gives lwIP what it takes, and the end of it when all is given. */
void ngx_tun_tcp_push(ngx_tun_tcp_t *tcp);

/* How many bytes may be appended to the send queue now. */
size_t ngx_tun_tcp_space(ngx_tun_tcp_t *tcp);

/* The session is over: what is queued goes on, then FIN or RST. */
void ngx_tun_tcp_end(ngx_tun_tcp_t *tcp);

/* ngx_tun_tcp_pending.c */

/*
 * The flow gets a session, and the SYN waits until that knows whether there is
 * something to answer.  NGX_OK: flow and session may be gone; NGX_DECLINED.
 */
ngx_int_t ngx_tun_tcp_pending_open(ngx_tun_tcp_t *tcp, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th);

/* A segment of a flow whose SYN waits. */
void ngx_tun_tcp_pending_input(ngx_tun_tcp_t *tcp, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th);

/* Answers the SYN of a pending flow; does nothing in another state. */
void ngx_tun_tcp_pending_answer(ngx_tun_tcp_t *tcp);

/* Answers it with RST. */
void ngx_tun_tcp_pending_refuse(ngx_tun_tcp_t *tcp);

/* ngx_tun_tcp_connection.c */

/* Makes the connection of a flow, or returns NULL: a limit was met. */
ngx_connection_t *ngx_tun_tcp_connection(ngx_tun_tcp_t *tcp);


#endif /* _NGX_TUN_TCP_H_INCLUDED_ */
