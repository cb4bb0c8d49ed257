
/*
 * Copyright (C) the nginx-tun authors
 */


/* link: stack/ngx_tun_packet.c stack/ngx_tun_packet_udp.c */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_packet.h>
#include <ngx_tun_packet_bytes.h>

#include "lib/tap.h"


static u_char  src[16] = { 10, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2 };
static u_char  dst[16] = { 10, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3 };


/* a datagram of len bytes, in three parts at odd places, as one packet */

static u_char *
build(size_t addr_len, size_t len, size_t *total)
{
    u_char                *p, header[NGX_TUN_PACKET_UDP_MAX], *data;
    size_t                 i, n;
    struct iovec           iov[3];
    ngx_tun_packet_udp_t   udp;

    udp.src_port = 53;
    udp.dst_port = 40000;

    n = ngx_tun_packet_build_udp(header, src, dst, addr_len, &udp, len, 7);

    p = malloc(n + len);
    data = p + n;

    for (i = 0; i < len; i++) {
        data[i] = (u_char) (i * 7 + 1);
    }

    iov[0].iov_base = data;
    iov[0].iov_len = len / 3;
    iov[1].iov_base = data + len / 3;
    iov[1].iov_len = len / 5;
    iov[2].iov_base = data + len / 3 + len / 5;
    iov[2].iov_len = len - len / 3 - len / 5;

    ngx_tun_packet_sum_udp(header, n, iov, 3);

    memcpy(p, header, n);
    *total = n + len;

    return p;
}


static void
test_build(size_t addr_len, size_t len)
{
    u_char                *p;
    size_t                 total;
    ngx_tun_packet_t       pkt;
    ngx_tun_packet_udp_t   udp;

    p = build(addr_len, len, &total);

    ok(ngx_tun_packet_parse(&pkt, p, p + total) == NGX_TUN_PACKET_OK
       && pkt.protocol == IPPROTO_UDP
       && pkt.addr_len == addr_len
       && !pkt.fragment
       && memcmp(pkt.src, src, addr_len) == 0
       && memcmp(pkt.dst, dst, addr_len) == 0
       && ngx_tun_packet_parse_udp(&pkt, &udp) == NGX_TUN_PACKET_OK
       && udp.src_port == 53 && udp.dst_port == 40000
       && (size_t) (udp.end - udp.data) == len,
       "%d bytes, address of %d", (int) len, (int) addr_len);

    ok(ngx_tun_packet_check_udp(&pkt, &udp) == NGX_TUN_PACKET_OK, "checksum");

    p[total - 1] ^= 1;

    ok(ngx_tun_packet_check_udp(&pkt, &udp) == NGX_TUN_PACKET_CHECKSUM,
       "wrong checksum");

    free(p);
}


static void
test_zero(size_t addr_len, ngx_tun_packet_e expected)
{
    u_char                *p;
    size_t                 total;
    ngx_tun_packet_t       pkt;
    ngx_tun_packet_udp_t   udp;

    p = build(addr_len, 10, &total);

    (void) ngx_tun_packet_parse(&pkt, p, p + total);
    (void) ngx_tun_packet_parse_udp(&pkt, &udp);

    pkt.payload[6] = 0;
    pkt.payload[7] = 0;

    ok(ngx_tun_packet_check_udp(&pkt, &udp) == expected,
       "no checksum, address of %d", (int) addr_len);

    free(p);
}


/* RFC 768: a sum of zero is sent as all ones */

static void
test_all_ones(void)
{
    u_char                 header[NGX_TUN_PACKET_UDP_MAX], data[2];
    size_t                 n;
    uint16_t               sum;
    struct iovec           iov;
    ngx_tun_packet_udp_t   udp;

    udp.src_port = 1;
    udp.dst_port = 2;

    n = ngx_tun_packet_build_udp(header, src, dst, 4, &udp, 2, 0);

    iov.iov_base = data;
    iov.iov_len = 2;

    /* bytes that make the sum what it must not be */

    ngx_memzero(data, 2);
    sum = ~ngx_tun_packet_fold(ngx_tun_packet_sum(header + n - 8, 8, 0));
    memcpy(data, &sum, 2);

    ngx_tun_packet_sum_udp(header, n, &iov, 1);

    ok(ngx_tun_packet_get16(header + n - 2) == 0xffff, "never zero");
}


static void
test_lengths(size_t addr_len)
{
    u_char                *p;
    size_t                 total;
    ngx_tun_packet_t       pkt;
    ngx_tun_packet_udp_t   udp;

    p = build(addr_len, 20, &total);

    (void) ngx_tun_packet_parse(&pkt, p, p + total);

    ngx_tun_packet_put16(pkt.payload + 4, 7);
    ok(ngx_tun_packet_parse_udp(&pkt, &udp) == NGX_TUN_PACKET_SHORT,
       "shorter than its header");

    ngx_tun_packet_put16(pkt.payload + 4, 29);
    ok(ngx_tun_packet_parse_udp(&pkt, &udp) == NGX_TUN_PACKET_SHORT,
       "longer than its packet");

    ngx_tun_packet_put16(pkt.payload + 4, 8);
    ok(ngx_tun_packet_parse_udp(&pkt, &udp) == NGX_TUN_PACKET_OK
       && udp.data == udp.end, "the rest of the packet is not of it");

    pkt.end = pkt.payload + 7;
    ok(ngx_tun_packet_parse_udp(&pkt, &udp) == NGX_TUN_PACKET_SHORT,
       "no room for a header");

    free(p);
}


int
main(void)
{
    size_t      i;
    ngx_uint_t  k;

    static size_t  lens[] = { 1, 2, 3, 10, 31, 32, 33, 1471, 1472, 65507 };

    for (i = 4; i <= 16; i += 12) {

        for (k = 0; k < sizeof(lens) / sizeof(size_t); k++) {
            test_build(i, lens[k]);
        }

        test_lengths(i);
    }

    test_zero(4, NGX_TUN_PACKET_OK);
    test_zero(16, NGX_TUN_PACKET_CHECKSUM);
    test_all_ones();

    return done();
}
