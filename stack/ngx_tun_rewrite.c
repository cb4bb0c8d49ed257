
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_rewrite.h>


#define NGX_TUN_REWRITE_IP_SUM         10
#define NGX_TUN_REWRITE_TCP_SUM        16
#define NGX_TUN_REWRITE_ICMP_SUM       2

#define NGX_TUN_REWRITE_ICMP_LEN       8
#define NGX_TUN_REWRITE_PORTS_LEN      8     /* of TCP, RFC 792 */

#define NGX_TUN_REWRITE_UNREACHABLE    3
#define NGX_TUN_REWRITE_TIME_EXCEEDED  11
#define NGX_TUN_REWRITE_PARAMETER      12

#define NGX_TUN_REWRITE_6_UNREACHABLE  1
#define NGX_TUN_REWRITE_6_PARAMETER    4


/* what sums that have both change by; zero is 0 or 0xffff */

#define ngx_tun_rewrite_add(one, two)                                         \
    ngx_tun_packet_fold((uint32_t) (one) + (two))


static uint16_t ngx_tun_rewrite_bytes(u_char *p, u_char *with, size_t len);
static uint16_t ngx_tun_rewrite_addresses(u_char *src, size_t addr_len,
    ngx_tun_rewrite_t *to);
static uint16_t ngx_tun_rewrite_ports(u_char *tcp, ngx_tun_rewrite_t *to);
static uint16_t ngx_tun_rewrite_sum(u_char *p, uint16_t change);


void
ngx_tun_rewrite_tcp(ngx_tun_packet_t *pkt, ngx_tun_rewrite_t *to,
    ngx_uint_t partial)
{
    u_char    *tcp;
    uint16_t   change, sum;

    tcp = pkt->payload;

    change = ngx_tun_rewrite_addresses(pkt->src, pkt->addr_len, to);

    if (pkt->addr_len == 4) {
        (void) ngx_tun_rewrite_sum(pkt->start + NGX_TUN_REWRITE_IP_SUM,
                                   change);
    }

    if (partial) {
        (void) ngx_tun_rewrite_ports(tcp, to);

        ngx_memcpy(&sum, tcp + NGX_TUN_REWRITE_TCP_SUM, 2);
        sum = ngx_tun_rewrite_add(sum, change);
        ngx_memcpy(tcp + NGX_TUN_REWRITE_TCP_SUM, &sum, 2);

        return;
    }

    change = ngx_tun_rewrite_add(change, ngx_tun_rewrite_ports(tcp, to));

    (void) ngx_tun_rewrite_sum(tcp + NGX_TUN_REWRITE_TCP_SUM, change);
}


/* returns what the sum of the bytes changes by */

static uint16_t
ngx_tun_rewrite_bytes(u_char *p, u_char *with, size_t len)
{
    uint16_t  old, new;

    old = ~ngx_tun_packet_fold(ngx_tun_packet_sum(p, len, 0));
    new = ngx_tun_packet_fold(ngx_tun_packet_sum(with, len, 0));

    ngx_memcpy(p, with, len);

    return ngx_tun_rewrite_add(old, new);
}


static uint16_t
ngx_tun_rewrite_addresses(u_char *src, size_t addr_len, ngx_tun_rewrite_t *to)
{
    uint16_t  one, two;

    one = ngx_tun_rewrite_bytes(src, to->src, addr_len);
    two = ngx_tun_rewrite_bytes(src + addr_len, to->dst, addr_len);

    return ngx_tun_rewrite_add(one, two);
}


static uint16_t
ngx_tun_rewrite_ports(u_char *tcp, ngx_tun_rewrite_t *to)
{
    uint16_t  ports[2];

    ports[0] = htons(to->src_port);
    ports[1] = htons(to->dst_port);

    return ngx_tun_rewrite_bytes(tcp, (u_char *) ports, sizeof(ports));
}


/* RFC 1624, 3; returns what the sum of the field changes by */

static uint16_t
ngx_tun_rewrite_sum(u_char *p, uint16_t change)
{
    uint16_t  old, new;

    ngx_memcpy(&old, p, 2);

    old = ~old;
    new = ~ngx_tun_rewrite_add(old, change);

    ngx_memcpy(p, &new, 2);

    return ngx_tun_rewrite_add(old, new);
}


ngx_tun_packet_e
ngx_tun_rewrite_parse_error(ngx_tun_packet_t *pkt,
    ngx_tun_rewrite_error_t *error)
{
    u_char      *p;
    size_t       ip_len, len;
    uint16_t     ports[2];
    ngx_uint_t   type, protocol, version;

    p = pkt->payload;
    len = pkt->end - p;

    ip_len = (pkt->addr_len == 4) ? 20 : 40;

    if (pkt->fragment || len < NGX_TUN_REWRITE_ICMP_LEN + ip_len) {
        return NGX_TUN_PACKET_SHORT;
    }

    type = p[0];

    p += NGX_TUN_REWRITE_ICMP_LEN;

    error->start = p;

    if (pkt->protocol == IPPROTO_ICMP && pkt->addr_len == 4) {

        if (type != NGX_TUN_REWRITE_UNREACHABLE
            && type != NGX_TUN_REWRITE_TIME_EXCEEDED
            && type != NGX_TUN_REWRITE_PARAMETER)
        {
            return NGX_TUN_PACKET_HEADER;
        }

        version = 4;
        ip_len = (p[0] & 0x0f) * 4;
        protocol = p[9];
        error->src = p + 12;

        /* only a first fragment has ports */

        if (ip_len < 20 || (p[6] & 0x1f) != 0 || p[7] != 0) {
            return NGX_TUN_PACKET_HEADER;
        }

    } else if (pkt->protocol == IPPROTO_ICMPV6 && pkt->addr_len == 16) {

        if (type < NGX_TUN_REWRITE_6_UNREACHABLE
            || type > NGX_TUN_REWRITE_6_PARAMETER)
        {
            return NGX_TUN_PACKET_HEADER;
        }

        version = 6;
        protocol = p[6];
        error->src = p + 8;

    } else {
        return NGX_TUN_PACKET_HEADER;
    }

    if ((ngx_uint_t) (p[0] >> 4) != version || protocol != IPPROTO_TCP
        || len < NGX_TUN_REWRITE_ICMP_LEN + ip_len + NGX_TUN_REWRITE_PORTS_LEN)
    {
        return NGX_TUN_PACKET_HEADER;
    }

    error->dst = error->src + pkt->addr_len;
    error->tcp = p + ip_len;

    ngx_memcpy(ports, error->tcp, sizeof(ports));

    error->src_port = ntohs(ports[0]);
    error->dst_port = ntohs(ports[1]);

    return NGX_TUN_PACKET_OK;
}


void
ngx_tun_rewrite_error(ngx_tun_packet_t *pkt, ngx_tun_rewrite_error_t *error,
    ngx_tun_rewrite_t *to)
{
    u_char             *p;
    uint16_t            addresses, change, sum;
    ngx_tun_rewrite_t   outer;

    addresses = ngx_tun_rewrite_addresses(error->src, pkt->addr_len, to);

    sum = ngx_tun_rewrite_ports(error->tcp, to);
    sum = ngx_tun_rewrite_add(sum, addresses);

    change = sum;

    p = error->tcp + NGX_TUN_REWRITE_TCP_SUM;

    if (p + 2 <= pkt->end) {
        change = ngx_tun_rewrite_add(change, ngx_tun_rewrite_sum(p, sum));
    }

    if (pkt->addr_len == 4) {
        p = error->start + NGX_TUN_REWRITE_IP_SUM;
        sum = ngx_tun_rewrite_sum(p, addresses);
        change = ngx_tun_rewrite_add(change, sum);
    }

    outer.src = to->dst;
    outer.dst = to->src;

    addresses = ngx_tun_rewrite_addresses(pkt->src, pkt->addr_len, &outer);

    if (pkt->addr_len == 4) {
        (void) ngx_tun_rewrite_sum(pkt->start + NGX_TUN_REWRITE_IP_SUM,
                                   addresses);

    } else {
        /* the pseudo header is in the sum of ICMPv6 only */
        change = ngx_tun_rewrite_add(change, addresses);
    }

    (void) ngx_tun_rewrite_sum(pkt->payload + NGX_TUN_REWRITE_ICMP_SUM,
                               change);
}
