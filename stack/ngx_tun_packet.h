
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

#define NGX_TUN_PACKET_IPV4_MIN    20
#define NGX_TUN_PACKET_IPV6_LEN    40
#define NGX_TUN_PACKET_UDP_LEN     8

#define NGX_TUN_PACKET_TTL         64

/* IPv6 and TCP headers with all TCP options: what a reply may need */
#define NGX_TUN_PACKET_HEADER_MAX  (40 + 60)

/* TCP without options over IPv6: the size of what build_tcp() makes */
#define NGX_TUN_PACKET_TCP_MIN     (40 + 20)

/* the size of what build_udp() makes */
#define NGX_TUN_PACKET_UDP_MAX     (40 + 8)


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


typedef struct {
    uint16_t                       src_port;  /* host order */
    uint16_t                       dst_port;
    u_char                        *data;
    u_char                        *end;       /* of the data */
} ngx_tun_packet_udp_t;


/* "fragmentation needed" or "packet too big", about TCP or UDP */

typedef struct {
    u_char                        *src;       /* of the packet in question */
    u_char                        *dst;
    uint16_t                       src_port;
    uint16_t                       dst_port;
    uint32_t                       seq;
    size_t                         mss;       /* TCP payload that fits */
    uint8_t                        protocol;
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


/* a message of ICMP (RFC 792) or ICMPv6 (RFC 4443), as far as it concerns us */

typedef enum {
    NGX_TUN_PACKET_ICMP_OTHER = 0,
    NGX_TUN_PACKET_ICMP_REQUEST,   /* echo request */
    NGX_TUN_PACKET_ICMP_REPLY,     /* echo reply */
    NGX_TUN_PACKET_ICMP_ERROR      /* about a packet, which is quoted */
} ngx_tun_packet_icmp_e;


typedef struct {
    ngx_tun_packet_icmp_e          kind;
    uint16_t                       id;        /* of an echo, host order */
    uint16_t                       seq;
} ngx_tun_packet_icmp_t;


/* the TTL or hop limit */

#define ngx_tun_packet_ttl(pkt)                                               \
    (pkt)->start[((pkt)->addr_len == 4) ? 8 : 7]


/* the errors that we send */

typedef enum {
    NGX_TUN_ICMP_PORT_UNREACHABLE = 0,
    NGX_TUN_ICMP_HOST_UNREACHABLE,
    NGX_TUN_ICMP_PROHIBITED,       /* by policy */
    NGX_TUN_ICMP_TIME_EXCEEDED,    /* TTL or hop limit */
    NGX_TUN_ICMP_TOO_BIG           /* fragmentation needed */
} ngx_tun_icmp_error_e;


/* the longest of them: RFC 1812 4.3.2.3, RFC 4443 2.4c */
#define NGX_TUN_PACKET_ICMP_ERROR_MAX   576
#define NGX_TUN_PACKET_ICMP6_ERROR_MAX  1280

/* what ngx_tun_packet_quote_udp() makes */
#define NGX_TUN_PACKET_QUOTE_MAX        (40 + 8)


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
 * Parses the UDP header of a whole datagram, RFC 768; checksum not looked at.
 * What the IP packet has after the UDP length is ignored.
 */
ngx_tun_packet_e ngx_tun_packet_parse_udp(ngx_tun_packet_t *pkt,
    ngx_tun_packet_udp_t *udp);

/*
 * Verifies the UDP checksum.  Zero is none with IPv4 (RFC 768), and an error
 * with IPv6 (RFC 8200, 8.1).
 */
ngx_tun_packet_e ngx_tun_packet_check_udp(ngx_tun_packet_t *pkt,
    ngx_tun_packet_udp_t *udp);

/*
 * Parses an ICMP (RFC 1191) or ICMPv6 (RFC 8201) message, its checksum too,
 * that a TCP or UDP packet was too big.  NGX_TUN_PACKET_OK, or any error: it
 * is not such a message, or not a valid one.
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
 * Builds the IP and UDP headers of a datagram with len bytes of data in buf
 * (of at least NGX_TUN_PACKET_UDP_MAX bytes) and returns their length.  id is
 * of IPv4, whose routers may cut it.  The UDP checksum field is left as
 * ngx_tun_packet_finish_tcp() leaves that of TCP.
 */
size_t ngx_tun_packet_build_udp(u_char *buf, u_char *src, u_char *dst,
    size_t addr_len, ngx_tun_packet_udp_t *udp, size_t len, uint16_t id);

/*
 * Completes the UDP checksum of these headers, of header_len bytes, for the
 * data in iov.
 */
void ngx_tun_packet_sum_udp(u_char *header, size_t header_len,
    struct iovec *iov, ngx_uint_t n);

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

/*
 * ngx_tun_packet_icmp.c
 */

/*
 * Parses the ICMP or ICMPv6 header of a whole datagram of the one or the other
 * family.  The checksum is not looked at.
 */
ngx_tun_packet_e ngx_tun_packet_parse_icmp(ngx_tun_packet_t *pkt,
    ngx_tun_packet_icmp_t *icmp);

/* verifies its checksum: NGX_TUN_PACKET_OK or NGX_TUN_PACKET_CHECKSUM */
ngx_tun_packet_e ngx_tun_packet_check_icmp(ngx_tun_packet_t *pkt);

/*
 * Turns an echo request, whose checksum is right, into its reply in place.
 * IP options and extension headers are not repeated: pkt->start moves.
 */
void ngx_tun_packet_echo_reply(ngx_tun_packet_t *pkt);

/*
 * May an error be sent about this packet (RFC 1122 3.2.2, RFC 4443 2.4e)?  Not
 * about an error, a fragment, or what did not go from one host to another; the
 * broadcast addresses of networks are not known here.
 */
ngx_uint_t ngx_tun_packet_may_error(ngx_tun_packet_t *pkt);

/*
 * Builds an error about the packet, from src to who sent it, in buf of at
 * least NGX_TUN_PACKET_ICMP_ERROR_MAX or _ICMP6_ERROR_MAX bytes, and returns
 * its length.  mtu is that of NGX_TUN_ICMP_TOO_BIG.
 */
size_t ngx_tun_packet_build_icmp_error(u_char *buf, ngx_tun_icmp_error_e error,
    u_char *src, ngx_tun_packet_t *pkt, size_t mtu);

/*
 * What is to be quoted of a UDP datagram that is gone: its IP header and its
 * UDP header, in buf of at least NGX_TUN_PACKET_QUOTE_MAX bytes.  len is that
 * of the payload.  pkt refers to buf then.
 */
void ngx_tun_packet_quote_udp(ngx_tun_packet_t *pkt, u_char *buf, u_char *src,
    u_char *dst, size_t addr_len, uint16_t src_port, uint16_t dst_port,
    size_t len);

/* Changes the id of an echo message, whose checksum stays as right as it is. */
void ngx_tun_packet_echo_id(u_char *p, uint16_t id);

/*
 * Parses the echo request, put into *quote, that an error is about.  It ends
 * where the error ends, and is known to have an IP and an ICMP header.
 * NGX_TUN_PACKET_OK, or anything else: it is no such error, or not for the one
 * who sent the request.
 */
ngx_tun_packet_e ngx_tun_packet_parse_quoted_echo(ngx_tun_packet_t *pkt,
    ngx_tun_packet_t *quote, ngx_tun_packet_icmp_t *icmp);

/* Gives it another source and id; its checksums stay as right as they are. */
void ngx_tun_packet_requote_echo(ngx_tun_packet_t *quote, u_char *src,
    uint16_t id);

/*
 * Puts an IP header in front of the ICMP message from pkt->payload to
 * pkt->end, where there is room for it, and the checksum into the message.
 */
void ngx_tun_packet_finish_icmp(ngx_tun_packet_t *pkt, u_char *src,
    u_char *dst, ngx_uint_t ttl);


#endif /* _NGX_TUN_PACKET_H_INCLUDED_ */
