
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: stack/ngx_tun_rewrite.c stack/ngx_tun_packet.c */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_rewrite.h>


static ngx_uint_t  tests;


static void
ok(ngx_uint_t good, const char *what, ngx_uint_t n)
{
    printf("%sok %d - %s, %d\n", good ? "" : "not ", (int) ++tests, what,
           (int) n);
}


/* sums as a textbook has them, in big-endian words */

static uint32_t
naive(u_char *p, size_t len, uint32_t sum)
{
    size_t  i;

    for (i = 0; i < len; i++) {
        sum += (i & 1) ? p[i] : (uint32_t) p[i] << 8;
    }

    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }

    return sum;
}


static uint32_t
pseudo(u_char *ip, size_t l4_len, ngx_uint_t protocol)
{
    uint32_t  sum;

    sum = ((ip[0] >> 4) == 4) ? naive(ip + 12, 8, 0) : naive(ip + 8, 32, 0);

    sum += protocol + l4_len;

    return naive(NULL, 0, sum);
}


static void
put16(u_char *p, ngx_uint_t n)
{
    p[0] = (u_char) (n >> 8);
    p[1] = (u_char) n;
}


/* all sums of a packet anew: of IP, and of TCP or ICMP behind ip_len bytes */

static void
complete(u_char *ip, size_t ip_len, size_t len, ngx_uint_t protocol,
    ngx_uint_t partial)
{
    u_char    *field;
    uint32_t   sum;

    if ((ip[0] >> 4) == 4) {
        put16(ip + 10, 0);
        put16(ip + 10, ~naive(ip, ip_len, 0));
    }

    field = ip + ip_len + ((protocol == IPPROTO_TCP) ? 16 : 2);

    sum = (protocol == IPPROTO_ICMP) ? 0 : pseudo(ip, len - ip_len, protocol);

    put16(field, 0);
    put16(field, partial ? sum : ~naive(ip + ip_len, len - ip_len, sum));
}


/* an IP header, for IPv4 with options and for IPv6 with a chain if asked */

static size_t
header(u_char *p, size_t addr_len, ngx_uint_t more, ngx_uint_t protocol,
    size_t payload)
{
    size_t  i, ip_len;

    for (i = 0; i < 80; i++) {
        p[i] = (u_char) random();
    }

    if (addr_len == 4) {
        ip_len = more ? 32 : 20;

        p[0] = (u_char) (0x40 | ip_len / 4);
        put16(p + 2, ip_len + payload);
        put16(p + 6, 0x4000);
        p[9] = (u_char) protocol;

        memset(p + 20, 1, ip_len - 20);

        return ip_len;
    }

    ip_len = more ? 48 : 40;

    p[0] = 0x60;
    put16(p + 4, ip_len - 40 + payload);
    p[6] = (u_char) (more ? 0 : protocol);

    if (more) {
        memcpy(p + 40, "\6\0\1\4\0\0\0\0", 8);
        p[40] = (u_char) protocol;
    }

    return ip_len;
}


static size_t
tcp_packet(u_char *p, size_t addr_len, ngx_uint_t more, size_t data)
{
    size_t  i, ip_len;

    ip_len = header(p, addr_len, more, IPPROTO_TCP, 20 + data);

    for (i = ip_len; i < ip_len + 20 + data; i++) {
        p[i] = (u_char) random();
    }

    p[ip_len + 12] = 0x50;

    return ip_len;
}


static void
target(ngx_tun_rewrite_t *to, u_char *bytes, ngx_uint_t how)
{
    size_t  i;

    for (i = 0; i < 36; i++) {
        bytes[i] = (how == 0) ? 0 : (how == 1) ? 0xff : (u_char) random();
    }

    to->src = bytes;
    to->dst = bytes + 16;
    to->src_port = (uint16_t) (bytes[32] << 8 | bytes[33]);
    to->dst_port = (uint16_t) (bytes[34] << 8 | bytes[35]);
}


static void
test_tcp(size_t addr_len, ngx_uint_t more, ngx_uint_t partial)
{
    u_char              p[2100], q[2100], want[2100], *ip, bytes[36];
    size_t              ip_len, len, data;
    ngx_uint_t          i, bad, lost;
    ngx_tun_packet_t    pkt;
    ngx_tun_rewrite_t   to, back;
    u_char              src[16], dst[16];

    bad = 0;
    lost = 0;

    for (i = 0; i < 20000; i++) {
        data = random() % 2000;
        ip = p + random() % 4;

        ip_len = tcp_packet(ip, addr_len, more, data);
        len = ip_len + 20 + data;

        complete(ip, ip_len, len, IPPROTO_TCP, partial);

        if (ngx_tun_packet_parse(&pkt, ip, ip + len) != NGX_TUN_PACKET_OK
            || pkt.payload != ip + ip_len)
        {
            bad++;
            continue;
        }

        memcpy(src, pkt.src, addr_len);
        memcpy(dst, pkt.dst, addr_len);

        back.src = src;
        back.dst = dst;
        back.src_port = (uint16_t) (pkt.payload[0] << 8 | pkt.payload[1]);
        back.dst_port = (uint16_t) (pkt.payload[2] << 8 | pkt.payload[3]);

        memcpy(q, ip, len);

        target(&to, bytes, i & 3);
        ngx_tun_rewrite_tcp(&pkt, &to, partial);

        lost += (memcmp(pkt.src, to.src, addr_len) != 0
                 || memcmp(pkt.dst, to.dst, addr_len) != 0
                 || memcmp(q + ip_len + 4, ip + ip_len + 4, 12) != 0
                 || memcmp(q + ip_len + 18, ip + ip_len + 18, len - ip_len - 18)
                    != 0);

        memcpy(want, ip, len);
        complete(want, ip_len, len, IPPROTO_TCP, partial);
        bad += (memcmp(want, ip, len) != 0);

        ngx_tun_rewrite_tcp(&pkt, &back, partial);
        lost += (memcmp(q, ip, len) != 0);
    }

    ok(bad == 0, partial ? "sums of the pseudo header" : "sums of TCP",
       addr_len + more);
    ok(lost == 0, "the rest, and the way back", lost);
}


static void
test_wrong_sum(size_t addr_len)
{
    u_char              p[200], bytes[36];
    size_t              ip_len, len;
    ngx_uint_t          i, good;
    ngx_tun_packet_t    pkt;
    ngx_tun_rewrite_t   to;

    good = 0;

    for (i = 0; i < 1000; i++) {
        ip_len = tcp_packet(p, addr_len, 0, 30);
        len = ip_len + 50;

        complete(p, ip_len, len, IPPROTO_TCP, 0);
        p[ip_len + 20 + i % 30] ^= (u_char) (1 + random() % 255);

        (void) ngx_tun_packet_parse(&pkt, p, p + len);

        target(&to, bytes, 2);
        ngx_tun_rewrite_tcp(&pkt, &to, 0);

        good += (ngx_tun_packet_check_tcp(&pkt) == NGX_TUN_PACKET_OK);
    }

    ok(good == 0, "a wrong sum stays wrong", addr_len);
}


static void
test_error(size_t addr_len, size_t quoted)
{
    u_char                    p[400], q[400], want[400], *ip, bytes[36];
    size_t                    ip_len, inner_len, len;
    ngx_uint_t                i, bad, lost, protocol, refused;
    ngx_tun_packet_t          pkt;
    ngx_tun_rewrite_t         to;
    ngx_tun_rewrite_error_t   error;

    bad = 0;
    lost = 0;
    refused = 0;
    protocol = (addr_len == 4) ? IPPROTO_ICMP : IPPROTO_ICMPV6;

    for (i = 0; i < 20000; i++) {
        ip = p + random() % 4;

        ip_len = header(ip, addr_len, i & 4, protocol, 0);

        inner_len = tcp_packet(ip + ip_len + 8, addr_len, 0, 100);

        len = ip_len + 8 + inner_len + quoted;

        (void) complete(ip + ip_len + 8, inner_len, inner_len + 120,
                        IPPROTO_TCP, 0);

        put16(ip + ((addr_len == 4) ? 2 : 4), len - ((addr_len == 4) ? 0 : 40));

        ip[ip_len] = (addr_len == 4) ? (i & 1 ? 3 : 11) : (u_char) (1 + i % 4);
        ip[ip_len + 1] = 4;
        put16(ip + ip_len + 4, 0);
        put16(ip + ip_len + 6, 1400);

        complete(ip, ip_len, len, protocol, 0);

        memcpy(q, ip, len);

        if (ngx_tun_packet_parse(&pkt, ip, ip + len) != NGX_TUN_PACKET_OK
            || ngx_tun_rewrite_parse_error(&pkt, &error) != NGX_TUN_PACKET_OK)
        {
            refused++;
            continue;
        }

        target(&to, bytes, i & 3);
        ngx_tun_rewrite_error(&pkt, &error, &to);

        /* outside */

        memcpy(want, ip, len);
        complete(want, ip_len, len, protocol, 0);
        bad += (memcmp(want, ip, len) != 0);

        lost += (memcmp(pkt.src, to.dst, addr_len) != 0
                 || memcmp(pkt.dst, to.src, addr_len) != 0
                 || memcmp(error.src, to.src, addr_len) != 0
                 || memcmp(error.dst, to.dst, addr_len) != 0
                 || error.tcp[0] != to.src_port >> 8
                 || error.tcp[3] != (to.dst_port & 0xff)
                 || memcmp(q + ip_len + 4, ip + ip_len + 4, 4) != 0);

        /* inside, as far as it is there */

        memcpy(want, error.start, inner_len);

        if (addr_len == 4) {
            put16(want + 10, 0);
            put16(want + 10, ~naive(want, inner_len, 0));
            bad += (memcmp(want + 10, error.start + 10, 2) != 0);
        }

        if (quoted == 120) {
            memcpy(want, error.start, inner_len + quoted);
            complete(want, inner_len, inner_len + quoted, IPPROTO_TCP, 0);
            bad += (memcmp(want, error.start, inner_len + quoted) != 0);
        }
    }

    ok(refused == 0, "an error is one", refused);
    ok(bad == 0, "sums of ICMP", bad);
    ok(lost == 0, "its addresses", lost);
}


static ngx_tun_packet_e
parse_error(u_char *ip, size_t len)
{
    u_char                   *block;
    ngx_tun_packet_e          rc;
    ngx_tun_packet_t          pkt;
    ngx_tun_rewrite_error_t   error;

    /* of its own, so that a read beyond the end is seen */

    block = malloc(len);
    memcpy(block, ip, len);

    rc = ngx_tun_packet_parse(&pkt, block, block + len);

    if (rc == NGX_TUN_PACKET_OK) {
        rc = ngx_tun_rewrite_parse_error(&pkt, &error);
    }

    free(block);

    return rc;
}


static void
test_no_error(size_t addr_len)
{
    u_char      p[300], q[300];
    size_t      ip_len, len, inner_len;
    ngx_uint_t  protocol, n, taken;

    protocol = (addr_len == 4) ? IPPROTO_ICMP : IPPROTO_ICMPV6;

    ip_len = header(p, addr_len, 0, protocol, 0);
    inner_len = tcp_packet(p + ip_len + 8, addr_len, 0, 0);

    p[ip_len] = 3;

    taken = 0;
    len = 0;

    for (n = 0; n < 8 + inner_len + 20; n++) {
        len = ip_len + n;

        memcpy(q, p, sizeof(p));
        put16(q + ((addr_len == 4) ? 2 : 4), len - ((addr_len == 4) ? 0 : 40));

        if (addr_len == 4) {
            put16(q + 10, 0);
            put16(q + 10, ~naive(q, ip_len, 0));
        }

        taken += (parse_error(q, len) == NGX_TUN_PACKET_OK);
    }

    /* 8 bytes of TCP are enough, 7 are not */

    ok(taken == 12, "as short as it may be", taken);

    ok(parse_error(q, len) == NGX_TUN_PACKET_OK, "a good one", addr_len);

    q[ip_len] = (addr_len == 4) ? 8 : 128;
    ok(parse_error(q, len) != NGX_TUN_PACKET_OK, "an echo", addr_len);
    q[ip_len] = 3;

    q[ip_len + 8] ^= 0x20;
    ok(parse_error(q, len) != NGX_TUN_PACKET_OK, "another family", addr_len);
    q[ip_len + 8] ^= 0x20;

    n = ip_len + 8 + ((addr_len == 4) ? 9 : 6);
    q[n] = IPPROTO_UDP;
    ok(parse_error(q, len) != NGX_TUN_PACKET_OK, "about UDP", addr_len);
    q[n] = IPPROTO_TCP;

    if (addr_len == 4) {
        q[ip_len + 8 + 7] = 1;
        ok(parse_error(q, len) != NGX_TUN_PACKET_OK, "about a fragment",
           addr_len);
        q[ip_len + 8 + 7] = 0;

        q[ip_len + 8] = 0x44;
        ok(parse_error(q, len) != NGX_TUN_PACKET_OK, "a short header",
           addr_len);

        q[ip_len + 8] = 0x4f;
        ok(parse_error(q, len) != NGX_TUN_PACKET_OK, "a header too long",
           addr_len);
    }
}


static void
test_speed(size_t addr_len)
{
    u_char             *p, bytes[36];
    size_t              ip_len;
    ngx_uint_t          i, n;
    struct timespec     t0, t1;
    ngx_tun_packet_t    pkt;
    ngx_tun_rewrite_t   to;

    p = malloc(1500);
    ip_len = tcp_packet(p, addr_len, 0, 1400);
    complete(p, ip_len, ip_len + 1420, IPPROTO_TCP, 0);

    target(&to, bytes, 2);
    n = 1000000;

    clock_gettime(CLOCK_MONOTONIC, &t0);

    for (i = 0; i < n; i++) {
        (void) ngx_tun_packet_parse(&pkt, p, p + ip_len + 1420);
        to.src_port = (uint16_t) i;
        ngx_tun_rewrite_tcp(&pkt, &to, 0);
    }

    clock_gettime(CLOCK_MONOTONIC, &t1);

    ok(ngx_tun_packet_check_tcp(&pkt) == NGX_TUN_PACKET_OK,
       "a million times", addr_len);

    printf("# ns to parse and rewrite: %.0f\n",
           ((t1.tv_sec - t0.tv_sec) * 1e9 + t1.tv_nsec - t0.tv_nsec) / n);

    free(p);
}


int
main(void)
{
    size_t  len;

    srandom(7);

    for (len = 4; len <= 16; len += 12) {
        test_tcp(len, 0, 0);
        test_tcp(len, 1, 0);
        test_tcp(len, 0, 1);
        test_tcp(len, 1, 1);
        test_wrong_sum(len);
        test_error(len, 8);
        test_error(len, 17);
        test_error(len, 18);
        test_error(len, 120);
        test_no_error(len);
        test_speed(len);
    }

    printf("1..%d\n", (int) tests);

    return 0;
}
