
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
static ngx_uint_t ngx_tun_packet_icmp_passed(ngx_tun_packet_t *pkt);
static void ngx_tun_packet_ip_header(u_char *p, ngx_uint_t protocol,
    u_char *src, u_char *dst, size_t addr_len, size_t total, ngx_uint_t ttl);
static void ngx_tun_packet_ip_sum(u_char *p, size_t len);
static void ngx_tun_packet_replace(u_char *sum, u_char *old, u_char *new,
    size_t len);


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
    u_char    *p, *start, type[2], src[16], dst[16];
    uint16_t   id, df;

    p = pkt->payload;

    type[0] = (pkt->addr_len == 4) ? NGX_TUN_PACKET_ICMP_ECHOREPLY
                                   : NGX_TUN_PACKET_ICMP6_ECHOREPLY;
    type[1] = 0;

    ngx_tun_packet_replace(p + 2, p, type, 2);

    /* the reply may be cut on its way where the request was allowed to be */

    id = ngx_tun_packet_get16(pkt->start + 4);
    df = ngx_tun_packet_get16(pkt->start + 6) & NGX_TUN_PACKET_IPV4_DF;

    ngx_memcpy(src, pkt->src, pkt->addr_len);
    ngx_memcpy(dst, pkt->dst, pkt->addr_len);

    start = p - ngx_tun_packet_ip_len(pkt->addr_len);

    ngx_tun_packet_ip_header(start, pkt->protocol, dst, src, pkt->addr_len,
                             pkt->end - start, NGX_TUN_PACKET_TTL);

    if (pkt->addr_len == 4) {
        ngx_tun_packet_put16(start + 4, id);
        ngx_tun_packet_put16(start + 6, df);
        ngx_tun_packet_ip_sum(start, 20);
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

    ngx_tun_packet_finish_icmp(&out, src, pkt->src, NGX_TUN_PACKET_TTL);

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
                             p - buf + len, NGX_TUN_PACKET_TTL);

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


void
ngx_tun_packet_echo_id(u_char *p, uint16_t id)
{
    u_char  new[2];

    ngx_tun_packet_put16(new, id);
    ngx_tun_packet_replace(p + 2, p + 4, new, 2);
}


ngx_tun_packet_e
ngx_tun_packet_parse_quoted_echo(ngx_tun_packet_t *pkt,
    ngx_tun_packet_t *quote, ngx_tun_packet_icmp_t *icmp)
{
    u_char      *p;
    size_t       len, ip_len;
    ngx_uint_t   version, type;

    p = pkt->payload + NGX_TUN_PACKET_ICMP_LEN;
    ip_len = ngx_tun_packet_ip_len(pkt->addr_len);

    if (pkt->end - pkt->payload
        < (ssize_t) (NGX_TUN_PACKET_ICMP_LEN * 2 + ip_len))
    {
        return NGX_TUN_PACKET_SHORT;
    }

    if (!ngx_tun_packet_icmp_passed(pkt)) {
        return NGX_TUN_PACKET_HEADER;
    }

    len = pkt->end - p;

    quote->start = p;
    quote->end = pkt->end;
    quote->addr_len = pkt->addr_len;
    quote->fragment = 0;

    if (pkt->addr_len == 4) {
        version = 4;
        type = NGX_TUN_PACKET_ICMP_ECHO;
        quote->fragment = (ngx_tun_packet_get16(p + 6) & 0x1fff) != 0;
        quote->protocol = p[9];
        quote->src = p + 12;
        ip_len = (p[0] & 0x0f) * 4;

    } else {
        version = 6;
        type = NGX_TUN_PACKET_ICMP6_ECHO;
        quote->protocol = p[6];
        quote->src = p + 8;
    }

    quote->dst = quote->src + pkt->addr_len;
    quote->payload = p + ip_len;

    if ((ngx_uint_t) (p[0] >> 4) != version
        || quote->fragment
        || quote->protocol != pkt->protocol
        || ip_len < (size_t) ngx_tun_packet_ip_len(pkt->addr_len)
        || len < ip_len + NGX_TUN_PACKET_ICMP_LEN
        || quote->payload[0] != type)
    {
        return NGX_TUN_PACKET_HEADER;
    }

    return ngx_tun_packet_parse_icmp(quote, icmp);
}


/* a redirect or a source quench are for the host that gets it */

static ngx_uint_t
ngx_tun_packet_icmp_passed(ngx_tun_packet_t *pkt)
{
    u_char  type;

    type = pkt->payload[0];

    if (pkt->addr_len == 4) {
        return type == 3 || type == 11 || type == 12;
    }

    return type >= 1 && type <= 4;
}


void
ngx_tun_packet_requote_echo(ngx_tun_packet_t *quote, u_char *src, uint16_t id)
{
    ngx_tun_packet_echo_id(quote->payload, id);

    if (quote->addr_len == 4) {
        ngx_tun_packet_replace(quote->start + 10, quote->src, src, 4);

    } else {
        ngx_tun_packet_replace(quote->payload + 2, quote->src, src, 16);
    }
}


void
ngx_tun_packet_finish_icmp(ngx_tun_packet_t *pkt, u_char *src, u_char *dst,
    ngx_uint_t ttl)
{
    u_char    *p, addr[32];
    size_t     len;
    uint16_t   sum;
    uint32_t   pseudo;

    p = pkt->payload;
    len = pkt->end - p;

    /* they may be where the header goes */

    ngx_memcpy(addr, src, pkt->addr_len);
    ngx_memcpy(addr + 16, dst, pkt->addr_len);

    pkt->start = p - ngx_tun_packet_ip_len(pkt->addr_len);
    pkt->protocol = (pkt->addr_len == 4) ? IPPROTO_ICMP : IPPROTO_ICMPV6;
    pkt->fragment = 0;

    ngx_tun_packet_ip_header(pkt->start, pkt->protocol, addr, addr + 16,
                             pkt->addr_len, pkt->end - pkt->start, ttl);

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
    u_char *dst, size_t addr_len, size_t total, ngx_uint_t ttl)
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
        p[7] = (u_char) ttl;
        return;
    }

    /* RFC 6864: an atomic datagram needs no id */

    p[0] = 0x45;
    ngx_tun_packet_put16(p + 2, total);
    ngx_tun_packet_put16(p + 6, NGX_TUN_PACKET_IPV4_DF);
    p[8] = (u_char) ttl;
    p[9] = (u_char) protocol;

    ngx_tun_packet_ip_sum(p, len);
}


static void
ngx_tun_packet_ip_sum(u_char *p, size_t len)
{
    uint16_t  sum;

    ngx_tun_packet_put16(p + 10, 0);

    sum = ~ngx_tun_packet_fold(ngx_tun_packet_sum(p, len, 0));
    ngx_memcpy(p + 10, &sum, 2);
}


/* of what has the checksum at sum, len bytes, which is even; RFC 1624 */

static void
ngx_tun_packet_replace(u_char *sum, u_char *old, u_char *new, size_t len)
{
    uint16_t  s, o, n;

    ngx_memcpy(&s, sum, 2);

    o = ngx_tun_packet_fold(ngx_tun_packet_sum(old, len, 0));
    n = ngx_tun_packet_fold(ngx_tun_packet_sum(new, len, 0));

    s = ~ngx_tun_packet_fold((uint32_t) (uint16_t) ~s + (uint16_t) ~o + n);

    /* zero would be wrong where all else is zero */

    if (s == 0) {
        s = 0xffff;
    }

    ngx_memcpy(sum, &s, 2);
    ngx_memcpy(old, new, len);
}
