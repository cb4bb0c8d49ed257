
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_LWIP_H_INCLUDED_
#define _NGX_TUN_LWIP_H_INCLUDED_


#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>


/*
 * The seam to lwIP's TCP in plain C, for its headers and nginx's do not go
 * together.  A flow is one end of one connection; the caller finds it, lwIP
 * does what the RFCs say of it.
 *
 * Every pcb is kept out of lwIP's lists, which are searched linearly; one pcb
 * is linked in around each call.  Only flows that wait for something are in
 * the list that ticks see, so an idle flow costs nothing.
 *
 * No function calls back but for output() and closed(), and neither may call
 * anything here.  What else happened to a flow stands in its fields after the
 * call: readable bytes, acked, established, eof, reset.
 */


#define NGX_TUN_LWIP_TICK     50      /* ms */
#define NGX_TUN_LWIP_WINDOW   (256 * 1024)


typedef struct ngx_tun_lwip_s       ngx_tun_lwip_t;
typedef struct ngx_tun_lwip_flow_s  ngx_tun_lwip_flow_t;
typedef struct ngx_tun_lwip_buf_s   ngx_tun_lwip_buf_t;


/* a packet read from the device; TCP keeps it as long as it has its payload */

struct ngx_tun_lwip_buf_s {
    uint64_t               pbuf[6];
    ngx_tun_lwip_t        *lwip;
    ngx_tun_lwip_buf_t    *next;
    uint8_t                data[];    /* NGX_TUN_LWIP_BUF_SIZE */
};


/*
 * lwIP reads up to 2 bytes past a malformed option list, so some bytes after
 * the longest packet stay readable.  That is one of IPv6 whose payload came in
 * fragments.
 */

#define NGX_TUN_LWIP_BUF_HEAD  16
#define NGX_TUN_LWIP_BUF_MAX   (40 + 65535)
#define NGX_TUN_LWIP_BUF_SIZE                                                 \
    (NGX_TUN_LWIP_BUF_HEAD + NGX_TUN_LWIP_BUF_MAX + 17)


struct ngx_tun_lwip_flow_s {
    void                  *pcb;       /* NULL: none yet, or none any more */
    ngx_tun_lwip_t        *lwip;

    ngx_tun_lwip_flow_t   *prev;      /* of the hot or the TIME-WAIT list */
    ngx_tun_lwip_flow_t   *next;

    void                  *rx;        /* payload in order, not read yet */
    void                  *rx_last;
    uint32_t               rx_offset;
    uint32_t               rx_window; /* of receive credit, grows with use */
    uint32_t               rx_grown;  /* bytes read since it grew */

    uint32_t               readable;
    uint32_t               tx_base;   /* first byte that lwIP may send again */
    uint32_t               acked;     /* the caller takes and zeroes it */
    uint32_t               ack_sent;  /* the last ACK that went out */
    uint32_t               challenged; /* ms, when one was sent last */
    uint16_t               mss;       /* payload of a packet to the peer */

    unsigned               hot:1;
    unsigned               time_wait:1;
    unsigned               established:1;
    unsigned               eof:1;     /* FIN received */
    unsigned               reset:1;   /* RST received, or given up */
    unsigned               fin:1;     /* our FIN is queued */
    unsigned               ack_due:1; /* held back for the flush */
    unsigned               dropped:1; /* a segment was not acceptable */
    unsigned               starved:1; /* dropped for want of memory */
    unsigned               squeezed:1; /* no window before the next read */
    unsigned               draining:1; /* closed, its last bytes on the way */
};


/* one segment; the addresses point into the packet, ports are in its header */

typedef struct {
    uint8_t               *src;
    uint8_t               *dst;
    uint32_t               addr_len;  /* 4 or 16 */
    uint8_t               *ip;
    uint8_t               *tcp;
    uint32_t               len;       /* TCP header and payload */

    uint32_t               seq;       /* of its header, in host order */
    uint32_t               ack;
    uint32_t               data_len;
    uint16_t               mss;       /* option, or 0 */
    uint8_t                flags;

    uint32_t               now;       /* ms */
    uint32_t               full;      /* no memory for what can come again */
    ngx_tun_lwip_buf_t    *buf;       /* that holds it, or NULL: copied */
} ngx_tun_lwip_segment_t;


typedef struct {

    /*
     * An IP packet goes out: iov[1] to iov[n - 1], len bytes, IP and TCP
     * headers together at the head of iov[1]; iov[0] is the callee's.  Its
     * checksums, IPv4 id and flags are not set.  0, or -1 if it could not be
     * sent: lwIP tries again later.
     */
    int                  (*output)(ngx_tun_lwip_flow_t *flow,
                                   struct iovec *iov, unsigned n, size_t len);

    /*
     * The pcb is gone, for whatever reason, and with it all references to
     * sent data.  The flow must outlive the call that led here.
     */
    void                 (*closed)(ngx_tun_lwip_flow_t *flow);

} ngx_tun_lwip_ops_t;


/* The lwIP side of a device, or NULL.  ops and data live as long. */
ngx_tun_lwip_t *ngx_tun_lwip_create(const ngx_tun_lwip_ops_t *ops, void *data,
    uint32_t mtu);

/* All its flows must be closed. */
void ngx_tun_lwip_destroy(ngx_tun_lwip_t *lwip);

void *ngx_tun_lwip_data(ngx_tun_lwip_t *lwip);

/* Bytes of memory that received segments hold. */
size_t ngx_tun_lwip_memory(ngx_tun_lwip_t *lwip);

/* A buffer to read a packet into, or NULL. */
ngx_tun_lwip_buf_t *ngx_tun_lwip_buf_alloc(ngx_tun_lwip_t *lwip);
void ngx_tun_lwip_buf_free(ngx_tun_lwip_buf_t *buf);

/*
 * Opens a flow (zeroed by the caller) by its SYN and answers SYN|ACK with the
 * given initial sequence number.  0, or -1: no memory.
 */
int ngx_tun_lwip_open(ngx_tun_lwip_t *lwip, ngx_tun_lwip_flow_t *flow,
    ngx_tun_lwip_segment_t *seg, uint32_t isn);

/*
 * A segment of the flow, checked as RFC 9293, 3.10.7.4, and RFC 5961 say where
 * lwIP does not.  1 if seg->buf was kept, then it must not be used
 * again, else 0.  Afterwards flow->pcb may be NULL.
 */
int ngx_tun_lwip_input(ngx_tun_lwip_flow_t *flow, ngx_tun_lwip_segment_t *seg);

/* May a SYN with this sequence number open the tuple anew (RFC 6191)? */
int ngx_tun_lwip_reusable(ngx_tun_lwip_flow_t *flow, uint32_t seq);

/*
 * A router, or who says so, had no room for the packet with this sequence
 * number: later ones have mss bytes of payload.  Returns 0, or -1 if no such
 * packet is on the way.
 */
int ngx_tun_lwip_shrink(ngx_tun_lwip_flow_t *flow, uint32_t seq, uint16_t mss);

/* Reads up to size bytes and returns their number; gives back the credit. */
size_t ngx_tun_lwip_recv(ngx_tun_lwip_flow_t *flow, uint8_t *buf, size_t size);

/*
 * Queues bytes, which must stay where they are until acked counted them or
 * closed() was called.  Returns how many were taken.
 */
size_t ngx_tun_lwip_send(ngx_tun_lwip_flow_t *flow, uint8_t *buf, size_t size);

/* The bytes that the path holds at once, as congestion control sees it. */
size_t ngx_tun_lwip_cwnd(ngx_tun_lwip_flow_t *flow);

/* Sends what is queued, an ACK that is due, a window update that matters. */
void ngx_tun_lwip_flush(ngx_tun_lwip_flow_t *flow);

/* Sends what is queued but for a last segment that more bytes would fill. */
void ngx_tun_lwip_flush_full(ngx_tun_lwip_flow_t *flow);

/* FIN after what is queued; reading goes on. */
void ngx_tun_lwip_shutdown(ngx_tun_lwip_flow_t *flow);

/*
 * Orderly end: FIN after what is queued, what comes in is discarded.  closed()
 * follows, at once or later.
 */
void ngx_tun_lwip_close(ngx_tun_lwip_flow_t *flow);

/* RST; closed() is called before it returns. */
void ngx_tun_lwip_abort(ngx_tun_lwip_flow_t *flow);

/* The same without a word to the peer. */
void ngx_tun_lwip_drop(ngx_tun_lwip_flow_t *flow);

/* To be called every NGX_TUN_LWIP_TICK while ngx_tun_lwip_busy(). */
void ngx_tun_lwip_tick(uint32_t now);

/* The number of flows that wait for a tick, and of those in TIME-WAIT. */
uint32_t ngx_tun_lwip_busy(uint32_t *time_wait);

/* Segments that were sent again, since the last call. */
uint32_t ngx_tun_lwip_retransmits(ngx_tun_lwip_t *lwip);

/* How often lwIP's asserts failed: 0 in the release build, which has none. */
uint32_t ngx_tun_lwip_asserts(void);


#endif /* _NGX_TUN_LWIP_H_INCLUDED_ */
