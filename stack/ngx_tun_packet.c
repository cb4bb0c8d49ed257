
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_packet.h>
#include <ngx_tun_packet_bytes.h>


#define NGX_TUN_PACKET_TCP_LEN       20

#define NGX_TUN_PACKET_IPV6_CHAIN    8

#define NGX_TUN_PACKET_IPV4_DF       0x4000
#define NGX_TUN_PACKET_IPV4_MF       0x2000
#define NGX_TUN_PACKET_IPV4_OFFSET   0x1fff

#define NGX_TUN_PACKET_OPT_END       0
#define NGX_TUN_PACKET_OPT_NOP       1
#define NGX_TUN_PACKET_OPT_LSRR      131
#define NGX_TUN_PACKET_OPT_SSRR      137

#define NGX_TUN_PACKET_TCP_OPT_MSS   2

#define NGX_TUN_PACKET_ICMP_LEN      8
#define NGX_TUN_PACKET_ICMP_UNREACH  3
#define NGX_TUN_PACKET_ICMP_TOO_BIG  4       /* the code of it */
#define NGX_TUN_PACKET_ICMP6_TOO_BIG 2

/* less is no path that exists, but somebody's wish: RFC 1191, 7 */
#define NGX_TUN_PACKET_MTU_MIN       552
#define NGX_TUN_PACKET_MTU6_MIN      1280


static ngx_tun_packet_e ngx_tun_packet_parse_ipv4(ngx_tun_packet_t *pkt,
    u_char *p, u_char *end);
static ngx_tun_packet_e ngx_tun_packet_parse_ipv4_options(u_char *p,
    u_char *end);
static ngx_tun_packet_e ngx_tun_packet_parse_ipv6(ngx_tun_packet_t *pkt,
    u_char *p, u_char *end);
static ngx_tun_packet_e ngx_tun_packet_parse_ipv6_chain(ngx_tun_packet_t *pkt,
    u_char *p, ngx_uint_t next);
static uint16_t ngx_tun_packet_tcp_mss(u_char *p, u_char *end);
static uint32_t ngx_tun_packet_addresses_sum(u_char *src, u_char *dst,
    size_t addr_len, size_t len);
static void ngx_tun_packet_finish_ip(u_char *p, size_t total);
static void ngx_tun_packet_finish_sum(u_char *p, size_t ip_len, size_t total);


ngx_tun_packet_e
ngx_tun_packet_parse(ngx_tun_packet_t *pkt, u_char *p, u_char *end)
{
    if (p == end) {
        return NGX_TUN_PACKET_SHORT;
    }

    pkt->start = p;
    pkt->fragment = 0;

    switch (p[0] >> 4) {

    case 4:
        return ngx_tun_packet_parse_ipv4(pkt, p, end);

    case 6:
        return ngx_tun_packet_parse_ipv6(pkt, p, end);

    default:
        return NGX_TUN_PACKET_VERSION;
    }
}


static ngx_tun_packet_e
ngx_tun_packet_parse_ipv4(ngx_tun_packet_t *pkt, u_char *p, u_char *end)
{
    size_t      header_len, total;
    ngx_uint_t  offset;

    if (end - p < NGX_TUN_PACKET_IPV4_MIN) {
        return NGX_TUN_PACKET_SHORT;
    }

    header_len = (p[0] & 0x0f) * 4;
    total = ngx_tun_packet_get16(p + 2);

    if (header_len < NGX_TUN_PACKET_IPV4_MIN) {
        return NGX_TUN_PACKET_HEADER;
    }

    if (total < header_len || total > (size_t) (end - p)) {
        return NGX_TUN_PACKET_SHORT;
    }

    if (ngx_tun_packet_fold(ngx_tun_packet_sum(p, header_len, 0)) != 0xffff) {
        return NGX_TUN_PACKET_CHECKSUM;
    }

    offset = ngx_tun_packet_get16(p + 6);

    pkt->end = p + total;
    pkt->src = p + 12;
    pkt->dst = p + 16;
    pkt->addr_len = 4;
    pkt->protocol = p[9];
    pkt->payload = p + header_len;
    pkt->fragment = (offset & (NGX_TUN_PACKET_IPV4_MF
                               |NGX_TUN_PACKET_IPV4_OFFSET)) != 0;

    if (pkt->fragment) {
        pkt->frag_header = pkt->payload;
        pkt->frag_id = ngx_tun_packet_get16(p + 4);
        pkt->frag_offset = (offset & NGX_TUN_PACKET_IPV4_OFFSET) * 8;
        pkt->frag_more = (offset & NGX_TUN_PACKET_IPV4_MF) != 0;
    }

    if (header_len == NGX_TUN_PACKET_IPV4_MIN) {
        return NGX_TUN_PACKET_OK;
    }

    return ngx_tun_packet_parse_ipv4_options(p + NGX_TUN_PACKET_IPV4_MIN,
                                             pkt->payload);
}


static ngx_tun_packet_e
ngx_tun_packet_parse_ipv4_options(u_char *p, u_char *end)
{
    while (p < end) {

        switch (*p) {

        case NGX_TUN_PACKET_OPT_END:
            return NGX_TUN_PACKET_OK;

        case NGX_TUN_PACKET_OPT_NOP:
            p++;
            continue;

        case NGX_TUN_PACKET_OPT_LSRR:
        case NGX_TUN_PACKET_OPT_SSRR:
            return NGX_TUN_PACKET_ROUTE;
        }

        if (end - p < 2 || p[1] < 2 || p[1] > end - p) {
            return NGX_TUN_PACKET_HEADER;
        }

        p += p[1];
    }

    return NGX_TUN_PACKET_OK;
}


static ngx_tun_packet_e
ngx_tun_packet_parse_ipv6(ngx_tun_packet_t *pkt, u_char *p, u_char *end)
{
    size_t  len;

    if (end - p < NGX_TUN_PACKET_IPV6_LEN) {
        return NGX_TUN_PACKET_SHORT;
    }

    len = ngx_tun_packet_get16(p + 4);

    if (len > (size_t) (end - p) - NGX_TUN_PACKET_IPV6_LEN) {
        return NGX_TUN_PACKET_SHORT;
    }

    pkt->end = p + NGX_TUN_PACKET_IPV6_LEN + len;
    pkt->src = p + 8;
    pkt->dst = p + 24;
    pkt->addr_len = 16;

    return ngx_tun_packet_parse_ipv6_chain(pkt, p + NGX_TUN_PACKET_IPV6_LEN,
                                           p[6]);
}


static ngx_tun_packet_e
ngx_tun_packet_parse_ipv6_chain(ngx_tun_packet_t *pkt, u_char *p,
    ngx_uint_t next)
{
    size_t      len;
    ngx_uint_t  n;

    for (n = 0; n <= NGX_TUN_PACKET_IPV6_CHAIN; n++) {

        switch (next) {

        case IPPROTO_HOPOPTS:
        case IPPROTO_DSTOPTS:
        case IPPROTO_ROUTING:
        case IPPROTO_FRAGMENT:
        case IPPROTO_AH:
            break;

        default:
            pkt->payload = p;
            pkt->protocol = (uint8_t) next;
            return NGX_TUN_PACKET_OK;
        }

        if (pkt->end - p < 8) {
            return NGX_TUN_PACKET_SHORT;
        }

        len = (p[1] + 1) * 8;

        if (next == IPPROTO_AH) {
            len = (p[1] + 2) * 4;

        } else if (next == IPPROTO_FRAGMENT) {
            len = 8;

            /* RFC 6946: what is whole is not a fragment */

            if (ngx_tun_packet_get16(p + 2) & 0xfff9) {
                pkt->fragment = 1;
                pkt->frag_header = p;
                pkt->frag_id = ngx_tun_packet_get32(p + 4);
                pkt->frag_offset = ngx_tun_packet_get16(p + 2) & 0xfff8;
                pkt->frag_more = p[3] & 1;
                pkt->payload = p + len;
                pkt->protocol = p[0];
                return NGX_TUN_PACKET_OK;
            }

        } else if (next == IPPROTO_ROUTING && (p[2] == 0 || p[3] != 0)) {

            /* RFC 5095; others may be passed when no segments are left */
            return NGX_TUN_PACKET_ROUTE;
        }

        if (len > (size_t) (pkt->end - p)) {
            return NGX_TUN_PACKET_SHORT;
        }

        next = p[0];
        p += len;
    }

    return NGX_TUN_PACKET_HEADER;
}


ngx_tun_packet_e
ngx_tun_packet_parse_first(ngx_tun_packet_t *pkt)
{
    if (pkt->addr_len == 4) {
        return NGX_TUN_PACKET_OK;
    }

    pkt->fragment = 0;

    return ngx_tun_packet_parse_ipv6_chain(pkt, pkt->payload, pkt->protocol);
}


ngx_tun_packet_e
ngx_tun_packet_check_addresses(ngx_tun_packet_t *pkt)
{
    ngx_uint_t             i;
    u_char                *src, *dst;
    static const u_char    zero[16];

    src = pkt->src;
    dst = pkt->dst;

    if (ngx_memcmp(dst, zero, pkt->addr_len) == 0) {
        return NGX_TUN_PACKET_ADDRESS;
    }

    if (pkt->addr_len == 4) {

        if (src[0] == 0 || src[0] == 127 || src[0] >= 224) {
            /* 240.0.0.0/4 is no multicast, and in use as a private pool */
            if (src[0] < 240 || ngx_tun_packet_get32(src) == 0xffffffff) {
                return NGX_TUN_PACKET_ADDRESS;
            }
        }

        if ((dst[0] & 0xf0) == 224
            || ngx_tun_packet_get32(dst) == 0xffffffff)
        {
            return NGX_TUN_PACKET_ADDRESS;
        }

        return NGX_TUN_PACKET_OK;
    }

    if (src[0] == 0xff || dst[0] == 0xff) {
        return NGX_TUN_PACKET_ADDRESS;
    }

    /* :: and ::1 */

    for (i = 0; i < 15; i++) {
        if (src[i] != 0) {
            return NGX_TUN_PACKET_OK;
        }
    }

    return (src[15] <= 1) ? NGX_TUN_PACKET_ADDRESS : NGX_TUN_PACKET_OK;
}


ngx_tun_packet_e
ngx_tun_packet_parse_tcp(ngx_tun_packet_t *pkt, ngx_tun_packet_tcp_t *tcp)
{
    u_char  *p;
    size_t   len;

    p = pkt->payload;

    if (pkt->end - p < NGX_TUN_PACKET_TCP_LEN) {
        return NGX_TUN_PACKET_SHORT;
    }

    len = (p[12] >> 4) * 4;

    if (len < NGX_TUN_PACKET_TCP_LEN) {
        return NGX_TUN_PACKET_HEADER;
    }

    if (len > (size_t) (pkt->end - p)) {
        return NGX_TUN_PACKET_SHORT;
    }

    tcp->src_port = ngx_tun_packet_get16(p);
    tcp->dst_port = ngx_tun_packet_get16(p + 2);
    tcp->seq = ngx_tun_packet_get32(p + 4);
    tcp->ack = ngx_tun_packet_get32(p + 8);
    tcp->flags = p[13];
    tcp->window = ngx_tun_packet_get16(p + 14);
    tcp->data = p + len;

    tcp->mss = (tcp->flags & NGX_TUN_PACKET_TCP_SYN)
               ? ngx_tun_packet_tcp_mss(p + NGX_TUN_PACKET_TCP_LEN, tcp->data)
               : 0;

    return NGX_TUN_PACKET_OK;
}


static uint16_t
ngx_tun_packet_tcp_mss(u_char *p, u_char *end)
{
    while (p < end) {

        if (*p == NGX_TUN_PACKET_OPT_END) {
            return 0;
        }

        if (*p == NGX_TUN_PACKET_OPT_NOP) {
            p++;
            continue;
        }

        if (end - p < 2 || p[1] < 2 || p[1] > end - p) {
            return 0;
        }

        if (*p == NGX_TUN_PACKET_TCP_OPT_MSS && p[1] == 4) {
            return ngx_tun_packet_get16(p + 2);
        }

        p += p[1];
    }

    return 0;
}


ngx_tun_packet_e
ngx_tun_packet_parse_too_big(ngx_tun_packet_t *pkt,
    ngx_tun_packet_too_big_t *big)
{
    u_char      *p, *tcp;
    size_t       ip_len, len, mtu;
    uint32_t     sum;

    p = pkt->payload;
    len = pkt->end - p;

    if (len < NGX_TUN_PACKET_ICMP_LEN + NGX_TUN_PACKET_IPV4_MIN) {
        return NGX_TUN_PACKET_SHORT;
    }

    sum = 0;

    if (pkt->addr_len == 4) {

        if (p[0] != NGX_TUN_PACKET_ICMP_UNREACH
            || p[1] != NGX_TUN_PACKET_ICMP_TOO_BIG)
        {
            return NGX_TUN_PACKET_HEADER;
        }

        mtu = ngx_tun_packet_get16(p + 6);
        mtu = ngx_max(mtu, NGX_TUN_PACKET_MTU_MIN);

        p += NGX_TUN_PACKET_ICMP_LEN;

        ip_len = (p[0] & 0x0f) * 4;
        big->protocol = p[9];
        big->src = p + 12;

    } else {

        if (p[0] != NGX_TUN_PACKET_ICMP6_TOO_BIG
            || len < NGX_TUN_PACKET_ICMP_LEN + NGX_TUN_PACKET_IPV6_LEN)
        {
            return NGX_TUN_PACKET_HEADER;
        }

        mtu = ngx_tun_packet_get32(p + 4);
        mtu = ngx_max(mtu, NGX_TUN_PACKET_MTU6_MIN);
        mtu = ngx_min(mtu, 65535);

        sum = ngx_tun_packet_pseudo_sum(pkt, len);

        p += NGX_TUN_PACKET_ICMP_LEN;

        ip_len = NGX_TUN_PACKET_IPV6_LEN;
        big->protocol = p[6];
        big->src = p + 8;
    }

    big->dst = big->src + pkt->addr_len;

    tcp = p + ip_len;

    if ((p[0] >> 4) != ((pkt->addr_len == 4) ? 4 : 6)
        || ip_len < NGX_TUN_PACKET_IPV4_MIN
        || (big->protocol != IPPROTO_TCP && big->protocol != IPPROTO_UDP)
        || ip_len + 8 > (size_t) (pkt->end - p))
    {
        return NGX_TUN_PACKET_HEADER;
    }

    sum = ngx_tun_packet_sum(pkt->payload, len, sum);

    if (ngx_tun_packet_fold(sum) != 0xffff) {
        return NGX_TUN_PACKET_CHECKSUM;
    }

    big->src_port = ngx_tun_packet_get16(tcp);
    big->dst_port = ngx_tun_packet_get16(tcp + 2);
    big->seq = ngx_tun_packet_get32(tcp + 4);
    big->mss = mtu - ip_len - NGX_TUN_PACKET_TCP_LEN;

    return NGX_TUN_PACKET_OK;
}


uint32_t
ngx_tun_packet_sum(u_char *p, size_t len, uint32_t sum)
{
    uint16_t  w;
    uint64_t  s, v[4];

    s = sum;

    while (len >= 32) {
        ngx_memcpy(v, p, 32);

        /* carries of 32-bit halves stay in the upper ones */

        s += (v[0] & 0xffffffff) + (v[0] >> 32);
        s += (v[1] & 0xffffffff) + (v[1] >> 32);
        s += (v[2] & 0xffffffff) + (v[2] >> 32);
        s += (v[3] & 0xffffffff) + (v[3] >> 32);

        p += 32;
        len -= 32;
    }

    while (len >= 2) {
        ngx_memcpy(&w, p, 2);
        s += w;
        p += 2;
        len -= 2;
    }

    if (len != 0) {
        w = 0;
        ngx_memcpy(&w, p, 1);
        s += w;
    }

    /* to 32 bits that are far from an overflow */

    s = (s & 0xffffffff) + (s >> 32);
    s = (s & 0xffff) + ((s >> 16) & 0xffff) + (s >> 32);

    return (uint32_t) s;
}


uint16_t
ngx_tun_packet_fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);

    return (uint16_t) sum;
}


uint32_t
ngx_tun_packet_pseudo_sum(ngx_tun_packet_t *pkt, size_t len)
{
    u_char    p[4];
    uint32_t  sum;

    sum = ngx_tun_packet_addresses_sum(pkt->src, pkt->dst, pkt->addr_len, len);

    ngx_tun_packet_put16(p, 0);
    ngx_tun_packet_put16(p + 2, (uint16_t) pkt->protocol);

    return ngx_tun_packet_sum(p, 4, sum);
}


static uint32_t
ngx_tun_packet_addresses_sum(u_char *src, u_char *dst, size_t addr_len,
    size_t len)
{
    u_char    p[4];
    uint32_t  sum;

    ngx_tun_packet_put32(p, (uint32_t) len);

    sum = ngx_tun_packet_sum(p, 4, 0);
    sum = ngx_tun_packet_sum(src, addr_len, sum);

    return ngx_tun_packet_sum(dst, addr_len, sum);
}


ngx_tun_packet_e
ngx_tun_packet_check_tcp(ngx_tun_packet_t *pkt)
{
    size_t    len;
    uint32_t  sum;

    len = pkt->end - pkt->payload;

    sum = ngx_tun_packet_pseudo_sum(pkt, len);
    sum = ngx_tun_packet_sum(pkt->payload, len, sum);

    return (ngx_tun_packet_fold(sum) == 0xffff) ? NGX_TUN_PACKET_OK
                                                : NGX_TUN_PACKET_CHECKSUM;
}


static void
ngx_tun_packet_finish_ip(u_char *p, size_t total)
{
    uint16_t  sum;

    if ((p[0] >> 4) == 6) {
        total -= NGX_TUN_PACKET_IPV6_LEN;
        ngx_tun_packet_put16(p + 4, total);
        return;
    }

    ngx_tun_packet_put16(p + 2, total);

    /* RFC 6864: an atomic datagram needs no id */

    ngx_tun_packet_put16(p + 4, 0);
    ngx_tun_packet_put16(p + 6, NGX_TUN_PACKET_IPV4_DF);
    ngx_tun_packet_put16(p + 10, 0);

    sum = ~ngx_tun_packet_fold(ngx_tun_packet_sum(p, NGX_TUN_PACKET_IPV4_MIN,
                                                  0));
    ngx_memcpy(p + 10, &sum, 2);
}


void
ngx_tun_packet_finish_tcp(u_char *p, size_t total)
{
    size_t            ip_len;
    uint16_t          sum;
    ngx_tun_packet_t  pkt;

    if ((p[0] >> 4) == 4) {
        ip_len = NGX_TUN_PACKET_IPV4_MIN;
        pkt.addr_len = 4;
        pkt.src = p + 12;

    } else {
        ip_len = NGX_TUN_PACKET_IPV6_LEN;
        pkt.addr_len = 16;
        pkt.src = p + 8;
    }

    pkt.dst = pkt.src + pkt.addr_len;
    pkt.protocol = IPPROTO_TCP;

    ngx_tun_packet_finish_ip(p, total);

    sum = ngx_tun_packet_fold(ngx_tun_packet_pseudo_sum(&pkt, total - ip_len));
    ngx_memcpy(p + ip_len + 16, &sum, 2);
}


/* the field holds what ngx_tun_packet_finish_tcp() left there */

static void
ngx_tun_packet_finish_sum(u_char *p, size_t ip_len, size_t total)
{
    uint16_t  sum;

    sum = ~ngx_tun_packet_fold(ngx_tun_packet_sum(p + ip_len, total - ip_len,
                                                  0));
    ngx_memcpy(p + ip_len + 16, &sum, 2);
}


size_t
ngx_tun_packet_build_tcp(u_char *buf, u_char *src, u_char *dst,
    size_t addr_len, ngx_tun_packet_tcp_t *tcp)
{
    u_char  *p;
    size_t   ip_len, total;

    ip_len = (addr_len == 4) ? NGX_TUN_PACKET_IPV4_MIN
                             : NGX_TUN_PACKET_IPV6_LEN;
    total = ip_len + NGX_TUN_PACKET_TCP_LEN;

    ngx_memzero(buf, total);

    if (addr_len == 4) {
        buf[0] = 0x45;
        buf[8] = NGX_TUN_PACKET_TTL;
        buf[9] = IPPROTO_TCP;

    } else {
        buf[0] = 0x60;
        buf[6] = IPPROTO_TCP;
        buf[7] = NGX_TUN_PACKET_TTL;
    }

    p = buf + ip_len;

    ngx_memcpy(p - addr_len * 2, src, addr_len);
    ngx_memcpy(p - addr_len, dst, addr_len);

    ngx_tun_packet_put16(p, tcp->src_port);
    ngx_tun_packet_put16(p + 2, tcp->dst_port);
    ngx_tun_packet_put32(p + 4, tcp->seq);
    ngx_tun_packet_put32(p + 8, tcp->ack);
    p[12] = (NGX_TUN_PACKET_TCP_LEN / 4) << 4;
    p[13] = tcp->flags;
    ngx_tun_packet_put16(p + 14, tcp->window);

    ngx_tun_packet_finish_tcp(buf, total);
    ngx_tun_packet_finish_sum(buf, ip_len, total);

    return total;
}


size_t
ngx_tun_packet_build_reset(u_char *buf, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *tcp)
{
    uint32_t              len;
    ngx_tun_packet_tcp_t  rst;

    if (tcp->flags & NGX_TUN_PACKET_TCP_RST) {
        return 0;
    }

    ngx_memzero(&rst, sizeof(ngx_tun_packet_tcp_t));

    rst.src_port = tcp->dst_port;
    rst.dst_port = tcp->src_port;
    rst.flags = NGX_TUN_PACKET_TCP_RST;

    if (tcp->flags & NGX_TUN_PACKET_TCP_ACK) {
        rst.seq = tcp->ack;

    } else {
        len = (uint32_t) (pkt->end - tcp->data);
        len += (tcp->flags & NGX_TUN_PACKET_TCP_SYN) ? 1 : 0;
        len += (tcp->flags & NGX_TUN_PACKET_TCP_FIN) ? 1 : 0;

        rst.ack = tcp->seq + len;
        rst.flags |= NGX_TUN_PACKET_TCP_ACK;
    }

    return ngx_tun_packet_build_tcp(buf, pkt->dst, pkt->src, pkt->addr_len,
                                    &rst);
}


size_t
ngx_tun_packet_segment(ngx_tun_packet_segment_t *seg, u_char *buf)
{
    u_char    *p, *tcp;
    size_t     n, left, ip_len;
    uint32_t   seq;

    if (seg->niov == 0 && seg->cut) {
        return 0;
    }

    ip_len = ((seg->header[0] >> 4) == 4) ? NGX_TUN_PACKET_IPV4_MIN
                                          : NGX_TUN_PACKET_IPV6_LEN;

    p = ngx_cpymem(buf, seg->header, seg->header_len);
    tcp = buf + ip_len;

    seq = ngx_tun_packet_get32(tcp + 4) + (uint32_t) seg->offset;
    ngx_tun_packet_put32(tcp + 4, seq);

    for (left = seg->mss; seg->niov != 0; /* void */ ) {

        n = ngx_min(left, seg->iov->iov_len - seg->iov_offset);

        p = ngx_cpymem(p, (u_char *) seg->iov->iov_base + seg->iov_offset, n);

        left -= n;
        seg->offset += n;
        seg->iov_offset += n;

        if (seg->iov_offset != seg->iov->iov_len) {
            break;
        }

        seg->iov++;
        seg->niov--;
        seg->iov_offset = 0;
    }

    if (seg->cut) {
        tcp[13] &= ~NGX_TUN_PACKET_TCP_CWR;
    }

    if (seg->niov != 0) {
        tcp[13] &= ~(NGX_TUN_PACKET_TCP_FIN|NGX_TUN_PACKET_TCP_PSH);
    }

    seg->cut = 1;

    ngx_tun_packet_finish_tcp(buf, p - buf);
    ngx_tun_packet_finish_sum(buf, ip_len, p - buf);

    return p - buf;
}
