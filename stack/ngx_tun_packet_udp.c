
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_packet.h>
#include <ngx_tun_packet_bytes.h>


static uint32_t ngx_tun_packet_sum_odd(u_char *p, size_t len, uint32_t sum,
    size_t offset);


ngx_tun_packet_e
ngx_tun_packet_parse_udp(ngx_tun_packet_t *pkt, ngx_tun_packet_udp_t *udp)
{
    u_char  *p;
    size_t   len;

    p = pkt->payload;

    if (pkt->end - p < NGX_TUN_PACKET_UDP_LEN) {
        return NGX_TUN_PACKET_SHORT;
    }

    len = ngx_tun_packet_get16(p + 4);

    if (len < NGX_TUN_PACKET_UDP_LEN || len > (size_t) (pkt->end - p)) {
        return NGX_TUN_PACKET_SHORT;
    }

    udp->src_port = ngx_tun_packet_get16(p);
    udp->dst_port = ngx_tun_packet_get16(p + 2);
    udp->data = p + NGX_TUN_PACKET_UDP_LEN;
    udp->end = p + len;

    return NGX_TUN_PACKET_OK;
}


ngx_tun_packet_e
ngx_tun_packet_check_udp(ngx_tun_packet_t *pkt, ngx_tun_packet_udp_t *udp)
{
    size_t    len;
    uint32_t  sum;

    if (ngx_tun_packet_get16(pkt->payload + 6) == 0) {
        return (pkt->addr_len == 4) ? NGX_TUN_PACKET_OK
                                    : NGX_TUN_PACKET_CHECKSUM;
    }

    len = udp->end - pkt->payload;

    sum = ngx_tun_packet_pseudo_sum(pkt, len);
    sum = ngx_tun_packet_sum(pkt->payload, len, sum);

    return (ngx_tun_packet_fold(sum) == 0xffff) ? NGX_TUN_PACKET_OK
                                                : NGX_TUN_PACKET_CHECKSUM;
}


size_t
ngx_tun_packet_build_udp(u_char *buf, u_char *src, u_char *dst,
    size_t addr_len, ngx_tun_packet_udp_t *udp, size_t len, uint16_t id)
{
    u_char            *p;
    size_t             ip_len;
    uint16_t           sum;
    ngx_tun_packet_t   pkt;

    ip_len = (addr_len == 4) ? NGX_TUN_PACKET_IPV4_MIN
                             : NGX_TUN_PACKET_IPV6_LEN;
    p = buf + ip_len;
    len += NGX_TUN_PACKET_UDP_LEN;

    ngx_memzero(buf, ip_len);

    ngx_memcpy(p - addr_len * 2, src, addr_len);
    ngx_memcpy(p - addr_len, dst, addr_len);

    if (addr_len == 4) {
        buf[0] = 0x45;
        ngx_tun_packet_put16(buf + 2, ip_len + len);
        ngx_tun_packet_put16(buf + 4, id);
        buf[8] = NGX_TUN_PACKET_TTL;
        buf[9] = IPPROTO_UDP;

        sum = ~ngx_tun_packet_fold(ngx_tun_packet_sum(buf, ip_len, 0));
        ngx_memcpy(buf + 10, &sum, 2);

    } else {
        buf[0] = 0x60;
        ngx_tun_packet_put16(buf + 4, len);
        buf[6] = IPPROTO_UDP;
        buf[7] = NGX_TUN_PACKET_TTL;
    }

    pkt.src = src;
    pkt.dst = dst;
    pkt.addr_len = addr_len;
    pkt.protocol = IPPROTO_UDP;

    sum = ngx_tun_packet_fold(ngx_tun_packet_pseudo_sum(&pkt, len));

    ngx_tun_packet_put16(p, udp->src_port);
    ngx_tun_packet_put16(p + 2, udp->dst_port);
    ngx_tun_packet_put16(p + 4, len);
    ngx_memcpy(p + 6, &sum, 2);

    return ip_len + NGX_TUN_PACKET_UDP_LEN;
}


void
ngx_tun_packet_sum_udp(u_char *header, size_t header_len, struct iovec *iov,
    ngx_uint_t n)
{
    u_char      *p;
    size_t       offset;
    uint16_t     field;
    uint32_t     sum;
    ngx_uint_t   i;

    p = header + header_len - NGX_TUN_PACKET_UDP_LEN;

    sum = ngx_tun_packet_sum(p, NGX_TUN_PACKET_UDP_LEN, 0);

    for (i = 0, offset = 0; i < n; i++) {
        sum = ngx_tun_packet_sum_odd(iov[i].iov_base, iov[i].iov_len, sum,
                                     offset);
        offset += iov[i].iov_len;
    }

    /* RFC 768: zero would say that there is none */

    field = ~ngx_tun_packet_fold(sum);

    if (field == 0) {
        field = 0xffff;
    }

    ngx_memcpy(p + 6, &field, 2);
}


/* of bytes at an odd offset the halves change places: RFC 1071, 2.(B) */

static uint32_t
ngx_tun_packet_sum_odd(u_char *p, size_t len, uint32_t sum, size_t offset)
{
    uint16_t  part;

    if (offset % 2 == 0) {
        return ngx_tun_packet_sum(p, len, sum);
    }

    part = ngx_tun_packet_fold(ngx_tun_packet_sum(p, len, 0));

    return sum + (uint16_t) (part << 8 | part >> 8);
}
