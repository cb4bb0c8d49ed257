
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_packet.h>
#include <ngx_tun_packet_bytes.h>


#define NGX_TUN_PACKET_ICMP_LEN         8
#define NGX_TUN_PACKET_UDP_LEN          8

#define NGX_TUN_PACKET_IPV4_DF          0x4000
#define NGX_TUN_PACKET_TTL              64

#define NGX_TUN_PACKET_ICMP_ECHO        8
#define NGX_TUN_PACKET_ICMP_ECHOREPLY   0
#define NGX_TUN_PACKET_ICMP6_ECHO       128
#define NGX_TUN_PACKET_ICMP6_ECHOREPLY  129
#define NGX_TUN_PACKET_ICMP6_REDIRECT   137


typedef struct {
    u_char                  type;
    u_char                  code;
    u_char                  type6;
    u_char                  code6;
} ngx_tun_packet_icmp_code_t;


static ngx_tun_packet_icmp_e ngx_tun_packet_icmp_kind(ngx_tun_packet_t *pkt);
static ngx_uint_t ngx_tun_packet_icmp_query(u_char type);
static void ngx_tun_packet_finish_icmp(ngx_tun_packet_t *pkt, u_char *src,
    u_char *dst);
static void ngx_tun_packet_ip_header(u_char *p, ngx_uint_t protocol,
    u_char *src, u_char *dst, size_t addr_len, size_t total);
static void ngx_tun_packet_ip_sum(u_char *p);


/* by ngx_tun_icmp_error_e */

static const ngx_tun_packet_icmp_code_t  ngx_tun_packet_icmp_codes[] = {
    { 3,  3, 1, 4 },
    { 3,  1, 1, 3 },
    { 3, 13, 1, 1 },
    { 11, 0, 3, 0 },
    { 3,  4, 2, 0 }
};


ngx_tun_packet_e
ngx_tun_packet_parse_icmp(ngx_tun_packet_t *pkt, ngx_tun_packet_icmp_t *icmp)
{
    u_char  *p;

    p = pkt->payload;

    if (pkt->protocol != ((pkt->addr_len == 4) ? IPPROTO_ICMP
                                               : IPPROTO_ICMPV6))
    {
        return NGX_TUN_PACKET_HEADER;
    }

    if (pkt->end - p < NGX_TUN_PACKET_ICMP_LEN) {
        return NGX_TUN_PACKET_SHORT;
    }

    icmp->kind = ngx_tun_packet_icmp_kind(pkt);
    icmp->id = ngx_tun_packet_get16(p + 4);
    icmp->seq = ngx_tun_packet_get16(p + 6);

    return NGX_TUN_PACKET_OK;
}


static ngx_tun_packet_icmp_e
ngx_tun_packet_icmp_kind(ngx_tun_packet_t *pkt)
{
    u_char  type, code;

    type = pkt->payload[0];
    code = pkt->payload[1];

    if (pkt->addr_len == 16) {

        if (type < 128 || type == NGX_TUN_PACKET_ICMP6_REDIRECT) {
            return NGX_TUN_PACKET_ICMP_ERROR;
        }

        type -= NGX_TUN_PACKET_ICMP6_ECHO;

        if (type > 1 || code != 0) {
            return NGX_TUN_PACKET_ICMP_OTHER;
        }

        return (type == 0) ? NGX_TUN_PACKET_ICMP_REQUEST
                           : NGX_TUN_PACKET_ICMP_REPLY;
    }

    if (!ngx_tun_packet_icmp_query(type)) {
        return NGX_TUN_PACKET_ICMP_ERROR;
    }

    if (type == NGX_TUN_PACKET_ICMP_ECHO && code == 0) {
        return NGX_TUN_PACKET_ICMP_REQUEST;
    }

    if (type == NGX_TUN_PACKET_ICMP_ECHOREPLY && code == 0) {
        return NGX_TUN_PACKET_ICMP_REPLY;
    }

    return NGX_TUN_PACKET_ICMP_OTHER;
}


/* RFC 1122 3.2.2; what nobody knows may be an error */

static ngx_uint_t
ngx_tun_packet_icmp_query(u_char type)
{
    return type == NGX_TUN_PACKET_ICMP_ECHOREPLY
           || (type >= NGX_TUN_PACKET_ICMP_ECHO && type <= 10)
           || (type >= 13 && type <= 18);
}


ngx_tun_packet_e
ngx_tun_packet_check_icmp(ngx_tun_packet_t *pkt)
{
    size_t    len;
    uint32_t  sum;

    len = pkt->end - pkt->payload;

    sum = (pkt->addr_len == 4) ? 0 : ngx_tun_packet_pseudo_sum(pkt, len);
    sum = ngx_tun_packet_sum(pkt->payload, len, sum);

    return (ngx_tun_packet_fold(sum) == 0xffff) ? NGX_TUN_PACKET_OK
                                                : NGX_TUN_PACKET_CHECKSUM;
}


void
ngx_tun_packet_echo_reply(ngx_tun_packet_t *pkt)
{
    u_char    *p, *start, src[16], dst[16];
    uint16_t   id, df, sum, old, new;

    p = pkt->payload;

    ngx_memcpy(&old, p, 2);
    p[0] = (pkt->addr_len == 4) ? NGX_TUN_PACKET_ICMP_ECHOREPLY
                                : NGX_TUN_PACKET_ICMP6_ECHOREPLY;
    ngx_memcpy(&new, p, 2);

    /* RFC 1624; zero would be wrong where all else is zero */

    ngx_memcpy(&sum, p + 2, 2);

    sum = ~ngx_tun_packet_fold((uint16_t) ~sum + (uint16_t) ~old + new);

    if (sum == 0) {
        sum = 0xffff;
    }

    ngx_memcpy(p + 2, &sum, 2);

    /* the reply may be cut on its way where the request was allowed to be */

    id = ngx_tun_packet_get16(pkt->start + 4);
    df = ngx_tun_packet_get16(pkt->start + 6) & NGX_TUN_PACKET_IPV4_DF;

    ngx_memcpy(src, pkt->src, pkt->addr_len);
    ngx_memcpy(dst, pkt->dst, pkt->addr_len);

    start = p - ngx_tun_packet_ip_len(pkt->addr_len);

    ngx_tun_packet_ip_header(start, pkt->protocol, dst, src, pkt->addr_len,
                             pkt->end - start);

    if (pkt->addr_len == 4) {
        ngx_tun_packet_put16(start + 4, id);
        ngx_tun_packet_put16(start + 6, df);
        ngx_tun_packet_ip_sum(start);
    }

    pkt->start = start;
    pkt->src = p - pkt->addr_len * 2;
    pkt->dst = p - pkt->addr_len;
}


ngx_uint_t
ngx_tun_packet_may_error(ngx_tun_packet_t *pkt)
{
    if (pkt->fragment
        || ngx_tun_packet_check_addresses(pkt) != NGX_TUN_PACKET_OK)
    {
        return 0;
    }

    if (pkt->protocol != IPPROTO_ICMP && pkt->protocol != IPPROTO_ICMPV6) {
        return 1;
    }

    return pkt->end - pkt->payload >= 2
           && ngx_tun_packet_icmp_kind(pkt) != NGX_TUN_PACKET_ICMP_ERROR;
}


size_t
ngx_tun_packet_build_icmp_error(u_char *buf, ngx_tun_icmp_error_e error,
    u_char *src, ngx_tun_packet_t *pkt, size_t mtu)
{
    u_char                            *p;
    size_t                             len, max;
    ngx_tun_packet_t                   out;
    const ngx_tun_packet_icmp_code_t  *code;

    code = &ngx_tun_packet_icmp_codes[error];

    p = buf + ngx_tun_packet_ip_len(pkt->addr_len);

    ngx_memzero(p, NGX_TUN_PACKET_ICMP_LEN);

    if (pkt->addr_len == 4) {
        p[0] = code->type;
        p[1] = code->code;
        max = NGX_TUN_PACKET_ICMP_ERROR_MAX;

    } else {
        p[0] = code->type6;
        p[1] = code->code6;
        max = NGX_TUN_PACKET_ICMP6_ERROR_MAX;
    }

    /* RFC 1191, 4: the upper half of the field is unused */

    if (error == NGX_TUN_ICMP_TOO_BIG) {
        ngx_tun_packet_put32(p + 4, mtu);
    }

    p += NGX_TUN_PACKET_ICMP_LEN;

    len = ngx_min((size_t) (pkt->end - pkt->start), max - (p - buf));

    out.payload = p - NGX_TUN_PACKET_ICMP_LEN;
    out.end = ngx_cpymem(p, pkt->start, len);
    out.addr_len = pkt->addr_len;

    ngx_tun_packet_finish_icmp(&out, src, pkt->src);

    return out.end - buf;
}


void
ngx_tun_packet_quote_udp(ngx_tun_packet_t *pkt, u_char *buf, u_char *src,
    u_char *dst, size_t addr_len, uint16_t src_port, uint16_t dst_port,
    size_t len)
{
    u_char  *p;

    p = buf + ngx_tun_packet_ip_len(addr_len);
    len += NGX_TUN_PACKET_UDP_LEN;

    ngx_tun_packet_ip_header(buf, IPPROTO_UDP, src, dst, addr_len,
                             p - buf + len);

    ngx_tun_packet_put16(p, src_port);
    ngx_tun_packet_put16(p + 2, dst_port);
    ngx_tun_packet_put16(p + 4, len);
    ngx_tun_packet_put16(p + 6, 0);

    pkt->start = buf;
    pkt->end = p + NGX_TUN_PACKET_UDP_LEN;
    pkt->src = p - addr_len * 2;
    pkt->dst = p - addr_len;
    pkt->payload = p;
    pkt->addr_len = addr_len;
    pkt->protocol = IPPROTO_UDP;
    pkt->fragment = 0;
}


/* puts the IP header in front of the message, and the checksum into it */

static void
ngx_tun_packet_finish_icmp(ngx_tun_packet_t *pkt, u_char *src, u_char *dst)
{
    u_char    *p;
    size_t     len;
    uint16_t   sum;
    uint32_t   pseudo;

    p = pkt->payload;
    len = pkt->end - p;

    pkt->start = p - ngx_tun_packet_ip_len(pkt->addr_len);
    pkt->protocol = (pkt->addr_len == 4) ? IPPROTO_ICMP : IPPROTO_ICMPV6;
    pkt->fragment = 0;

    ngx_tun_packet_ip_header(pkt->start, pkt->protocol, src, dst,
                             pkt->addr_len, pkt->end - pkt->start);

    pkt->src = p - pkt->addr_len * 2;
    pkt->dst = p - pkt->addr_len;

    ngx_tun_packet_put16(p + 2, 0);

    pseudo = (pkt->addr_len == 4) ? 0 : ngx_tun_packet_pseudo_sum(pkt, len);

    sum = ~ngx_tun_packet_fold(ngx_tun_packet_sum(p, len, pseudo));
    ngx_memcpy(p + 2, &sum, 2);
}


/* src and dst do not point to where the header goes */

static void
ngx_tun_packet_ip_header(u_char *p, ngx_uint_t protocol, u_char *src,
    u_char *dst, size_t addr_len, size_t total)
{
    size_t  len;

    len = ngx_tun_packet_ip_len(addr_len);

    ngx_memzero(p, len);
    ngx_memcpy(p + len - addr_len * 2, src, addr_len);
    ngx_memcpy(p + len - addr_len, dst, addr_len);

    if (addr_len == 16) {
        p[0] = 0x60;
        ngx_tun_packet_put16(p + 4, total - len);
        p[6] = (u_char) protocol;
        p[7] = NGX_TUN_PACKET_TTL;
        return;
    }

    /* RFC 6864: an atomic datagram needs no id */

    p[0] = 0x45;
    ngx_tun_packet_put16(p + 2, total);
    ngx_tun_packet_put16(p + 6, NGX_TUN_PACKET_IPV4_DF);
    p[8] = NGX_TUN_PACKET_TTL;
    p[9] = (u_char) protocol;

    ngx_tun_packet_ip_sum(p);
}


static void
ngx_tun_packet_ip_sum(u_char *p)
{
    uint16_t  sum;

    ngx_tun_packet_put16(p + 10, 0);

    sum = ~ngx_tun_packet_fold(ngx_tun_packet_sum(p, 20, 0));
    ngx_memcpy(p + 10, &sum, 2);
}
