
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _PEER_H_INCLUDED_
#define _PEER_H_INCLUDED_


#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <ngx_tun_lwip.h>


/*
 * The other end of a flow, for tests of the seam to lwIP: it makes segments
 * and looks at what comes out.  All bytes of both directions follow a pattern
 * of their place in the stream, so that each one is checked.
 *
 * What is sent is held in pieces of their own, which are freed as soon as
 * the contract of ngx_tun_lwip_send() allows it.
 */


#define PEER_OPTIONS_MAX  40


typedef struct peer_piece_s  peer_piece_t;

struct peer_piece_s {
    peer_piece_t           *next;
    uint32_t                len;
    uint32_t                released;
    uint8_t                *data;
};


/* the last packet that came out */

typedef struct {
    uint32_t                seq;
    uint32_t                ack;
    uint32_t                len;       /* of its payload */
    uint32_t                window;    /* scaled */
    uint32_t                noptions;
    uint8_t                 options[PEER_OPTIONS_MAX];
    uint8_t                 flags;
} peer_packet_t;


typedef struct {
    ngx_tun_lwip_flow_t     flow;      /* the first member */
    ngx_tun_lwip_t         *lwip;

    uint32_t                addr_len;
    uint8_t                 src[16];
    uint8_t                 dst[16];
    uint16_t                src_port;
    uint16_t                dst_port;

    /* what the next segments say */

    uint32_t                isn;
    uint32_t                seq;
    uint32_t                ack;       /* follows what comes in order */
    uint32_t                now;
    uint32_t                full;
    uint16_t                window;    /* as it stands in the header */
    uint8_t                 scale;
    uint8_t                 noptions;
    uint8_t                 options[PEER_OPTIONS_MAX];
    unsigned                bufs:1;    /* segments come in buffers */
    unsigned                deaf:1;    /* ack does not follow */
    unsigned                refuse:1;  /* output() fails */

    /* what was seen */

    uint32_t                iss;       /* of the flow */
    uint32_t                packets;
    uint32_t                bytes;     /* of payload, repeated or not */
    uint32_t                repeated;  /* packets with payload seen before */
    uint32_t                high;      /* after the last byte seen */
    uint32_t                resets;
    uint32_t                closed;
    uint32_t                bad;       /* what must not have happened */
    uint32_t                bad_line;  /* the last of it, in peer.c */
    uint8_t                 our_scale;
    peer_packet_t           last;

    uint32_t                received;  /* in order, by peer_read() */
    uint32_t                written;
    uint32_t                released;
    peer_piece_t           *pieces;
} peer_t;


extern const ngx_tun_lwip_ops_t  peer_ops;

/* what peers that are not told otherwise start with */
#define PEER_ISN  0xfffff000
#define PEER_ISS  0xffffe000


/* A peer of its own address and port by its number; zeroes it. */
void peer_init(peer_t *peer, ngx_tun_lwip_t *lwip, uint32_t n,
    uint32_t addr_len);

/* Options of a SYN; a scale of 255 and a MSS of 0 mean none. */
void peer_options(peer_t *peer, uint16_t mss, uint8_t scale, int sack);

/* The SYN, with the options that are set, which are removed then. */
int peer_open(peer_t *peer);

/* The whole handshake. */
int peer_connect(peer_t *peer);

/* A segment; fields of the peer that are not given follow from it. */
void peer_segment(peer_t *peer, uint8_t flags, uint32_t seq, uint32_t ack,
    uint32_t len);

/* Segments in order, which count. */
void peer_ack(peer_t *peer);
void peer_data(peer_t *peer, uint32_t len);
void peer_fin(peer_t *peer);

/* The application's side; both return bytes. */
uint32_t peer_read(peer_t *peer, uint32_t size);
uint32_t peer_send(peer_t *peer, uint32_t size);

/* Frees what is left of a peer whose flow is closed. */
void peer_done(peer_t *peer);

/* Ticks, and then what is due; the time is one for all peers. */
void peer_ticks(uint32_t n);


#endif /* _PEER_H_INCLUDED_ */
