
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_PACKET_H_INCLUDED_
#define _NGX_TUN_PACKET_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * IPv4 and IPv6 datagrams as bytes: parse, check, build.  Nothing here holds
 * a connection, allocates or logs; addresses stay where they are in the
 * packet and have addr_len (4 or 16) bytes, so both families are one path.
 */


#define NGX_TUN_PACKET_TCP_FIN     0x01
#define NGX_TUN_PACKET_TCP_SYN     0x02
#define NGX_TUN_PACKET_TCP_RST     0x04
#define NGX_TUN_PACKET_TCP_PSH     0x08
#define NGX_TUN_PACKET_TCP_ACK     0x10
#define NGX_TUN_PACKET_TCP_URG     0x20
#define NGX_TUN_PACKET_TCP_ECE     0x40
#define NGX_TUN_PACKET_TCP_CWR     0x80

/* IPv6 and TCP headers with all TCP options: what a reply may need */
#define NGX_TUN_PACKET_HEADER_MAX  (40 + 60)

/* TCP without options over IPv6: the size of what build_tcp() makes */
#define NGX_TUN_PACKET_TCP_MIN     (40 + 20)


#define ngx_tun_packet_get16(p)                                               \
    ((uint16_t) ((p)[0] << 8 | (p)[1]))

#define ngx_tun_packet_get32(p)                                               \
    ((uint32_t) (p)[0] << 24 | (uint32_t) (p)[1] << 16                        \
     | (uint32_t) (p)[2] << 8 | (p)[3])

#define ngx_tun_packet_put16(p, v)                                            \
    (p)[0] = (u_char) ((v) >> 8);                                             \
    (p)[1] = (u_char) (v)

#define ngx_tun_packet_put32(p, v)                                            \
    (p)[0] = (u_char) ((v) >> 24);                                            \
    (p)[1] = (u_char) ((v) >> 16);                                            \
    (p)[2] = (u_char) ((v) >> 8);                                             \
    (p)[3] = (u_char) (v)


typedef enum {
    NGX_TUN_PACKET_OK = 0,
    NGX_TUN_PACKET_SHORT,          /* truncated, or lengths disagree */
    NGX_TUN_PACKET_VERSION,        /* neither 4 nor 6 */
    NGX_TUN_PACKET_HEADER,         /* a header length or chain is invalid */
    NGX_TUN_PACKET_CHECKSUM,       /* of the IPv4 or the TCP header */
    NGX_TUN_PACKET_ROUTE,          /* source route or routing header */
    NGX_TUN_PACKET_ADDRESS         /* an address that no flow may have */
} ngx_tun_packet_e;


typedef struct {
    u_char                        *start;     /* the IP header */
    u_char                        *end;       /* of the datagram */
    u_char                        *src;
    u_char                        *dst;
    u_char                        *payload;   /* after all IP headers */
    size_t                         addr_len;  /* 4 or 16 */
    uint8_t                        protocol;  /* IPPROTO_* of the payload */

    /* of a fragment only; what precedes frag_header is in all of them */

    u_char                        *frag_header;  /* IPv4: the payload */
    uint32_t                       frag_id;
    uint16_t                       frag_offset;  /* bytes */

    unsigned                       fragment:1;
    unsigned                       frag_more:1;
} ngx_tun_packet_t;


typedef struct {
    uint32_t                       seq;       /* host order, as all here */
    uint32_t                       ack;
    uint16_t                       src_port;
    uint16_t                       dst_port;
    uint16_t                       window;    /* not scaled */
    uint16_t                       mss;       /* option of a SYN, or 0 */
    uint8_t                        flags;     /* NGX_TUN_PACKET_TCP_* */
    u_char                        *data;      /* up to pkt->end */
} ngx_tun_packet_tcp_t;


/* "fragmentation needed" or "packet too big", about a TCP packet */

typedef struct {
    u_char                        *src;       /* of the packet in question */
    u_char                        *dst;
    uint16_t                       src_port;
    uint16_t                       dst_port;
    uint32_t                       seq;
    size_t                         mss;       /* TCP payload that fits */
} ngx_tun_packet_too_big_t;


/*
 * A TCP super-segment to be cut: the first header_len bytes are its IP and
 * TCP headers, the rest of the iovecs its payload.  Set hdr, header_len, iov,
 * niov and mss; zero the rest.
 */

typedef struct {
    u_char                        *header;
    size_t                         header_len;
    struct iovec                  *iov;       /* payload only */
    ngx_uint_t                     niov;
    size_t                         mss;       /* payload bytes per packet */

    size_t                         offset;    /* payload bytes already cut */
    size_t                         iov_offset;
    unsigned                       cut:1;     /* the first packet is out */
} ngx_tun_packet_segment_t;


/*
 * A datagram to be cut to the MTU: the first header_len bytes are an IP header
 * without options or extension headers and, if it is longer, the first of the
 * payload; the iovecs are the rest.  Set header, header_len, iov, niov, mtu
 * and id; zero the rest.  The mtu is at least 68 and header_len + 16.
 */

typedef struct {
    u_char                        *header;
    size_t                         header_len;
    struct iovec                  *iov;
    ngx_uint_t                     niov;
    size_t                         mtu;
    uint32_t                       id;        /* of it 16 bits in IPv4 */

    size_t                         offset;    /* payload bytes already cut */
    size_t                         iov_offset;
    unsigned                       cut:1;     /* the first packet is out */
} ngx_tun_packet_fragment_t;


/*
 * Parses the IP headers of the datagram in [p, end): version, lengths, the
 * IPv4 header checksum and options (RFC 791), the IPv6 extension header chain
 * (RFC 8200; at most 8 headers).  Bytes of [p, end) after the total length
 * are ignored.  Source routes and routing headers give NGX_TUN_PACKET_ROUTE
 * (RFC 7126, RFC 5095).  A fragment is not an error: pkt->fragment is set, and
 * for all but the first one payload is not an upper-layer header.
 */
ngx_tun_packet_e ngx_tun_packet_parse(ngx_tun_packet_t *pkt, u_char *p,
    u_char *end);

/*
 * Goes on behind the fragment header of a first fragment (frag_offset is 0),
 * as if there were none: payload and protocol become those of the upper layer,
 * unless pkt->fragment is set again.  Nothing changes for IPv4.
 */
ngx_tun_packet_e ngx_tun_packet_parse_first(ngx_tun_packet_t *pkt);

/*
 * Is either address one that a TCP or UDP flow cannot have: source or
 * destination unspecified (0.0.0.0/8 as source), source multicast, limited
 * broadcast, destination multicast or limited broadcast, source loopback,
 * or source and destination equal with equal family (land, checked by the
 * caller with ports)?  NGX_TUN_PACKET_OK or NGX_TUN_PACKET_ADDRESS.
 */
ngx_tun_packet_e ngx_tun_packet_check_addresses(ngx_tun_packet_t *pkt);

/*
 * Parses the TCP header of a whole (not fragmented) datagram, RFC 9293 3.1.
 * The checksum is not looked at.  Options are walked with bounds; a malformed
 * option list ends the walk and is no error, as kernels do.
 */
ngx_tun_packet_e ngx_tun_packet_parse_tcp(ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *tcp);

/*
 * Parses an ICMP (RFC 1191) or ICMPv6 (RFC 8201) message, its checksum too,
 * that a TCP packet was too big.  NGX_TUN_PACKET_OK, or any error: it is not
 * such a message, or not a valid one.
 */
ngx_tun_packet_e ngx_tun_packet_parse_too_big(ngx_tun_packet_t *pkt,
    ngx_tun_packet_too_big_t *big);

/* the ones' complement sum of RFC 1071, not folded, not complemented */
uint32_t ngx_tun_packet_sum(u_char *p, size_t len, uint32_t sum);

/* folds to 16 bits, host order as summed in memory order: store as is */
uint16_t ngx_tun_packet_fold(uint32_t sum);

/* the sum of the pseudo header (RFC 9293 3.1, RFC 8200 8.1) for len bytes */
uint32_t ngx_tun_packet_pseudo_sum(ngx_tun_packet_t *pkt, size_t len);

/* verifies the TCP checksum: NGX_TUN_PACKET_OK or NGX_TUN_PACKET_CHECKSUM */
ngx_tun_packet_e ngx_tun_packet_check_tcp(ngx_tun_packet_t *pkt);

/*
 * Completes the headers of an outgoing TCP packet in place: p is an IP header
 * without options or extension headers, followed at once by the TCP header;
 * total is the length of the whole packet, whose payload need not follow.
 * Sets for IPv4 total length, DF, id 0 (RFC 6864: atomic) and the header
 * checksum, for IPv6 the payload length, and the TCP checksum field to the
 * folded pseudo-header sum, not complemented, as a checksum offload wants it
 * (NEEDS_CSUM).
 */
void ngx_tun_packet_finish_tcp(u_char *p, size_t total);

/*
 * Builds a TCP packet without options or data in buf (of at least
 * NGX_TUN_PACKET_TCP_MIN bytes), with the complete checksum, and returns its
 * length.  src and dst may point into another packet, not into buf.
 */
size_t ngx_tun_packet_build_tcp(u_char *buf, u_char *src, u_char *dst,
    size_t addr_len, ngx_tun_packet_tcp_t *tcp);

/*
 * Builds the reset that answers a segment without a connection, RFC 9293
 * 3.10.7.1.  Returns its length, or 0 where none may be sent (to a reset).
 */
size_t ngx_tun_packet_build_reset(u_char *buf, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *tcp);

/*
 * Writes the next packet of a super-segment, headers and complete checksums
 * included, to buf (of at least header_len + mss bytes) and returns its
 * length, or 0 when all is cut.  FIN and PSH go to the last packet only, CWR
 * to the first; a segment without payload yields one packet.
 */
size_t ngx_tun_packet_segment(ngx_tun_packet_segment_t *seg, u_char *buf);

/*
 * Writes the next fragment of a datagram with complete IP headers (IPv4: the
 * id, no DF) to buf of mtu bytes and returns its length, or 0 when all is cut,
 * or when it is more than IP can carry.  The upper-layer checksum is in the
 * payload already.  What is not larger than the mtu is not fragmented.
 */
size_t ngx_tun_packet_fragment(ngx_tun_packet_fragment_t *f, u_char *buf);


#endif /* _NGX_TUN_PACKET_H_INCLUDED_ */
