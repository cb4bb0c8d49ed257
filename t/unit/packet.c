
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: stack/ngx_tun_packet.c */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_packet.h>


static ngx_uint_t  tests;


static void
ok(ngx_uint_t good, const char *what, ngx_uint_t n)
{
    printf("%sok %d - %s, %d\n", good ? "" : "not ", (int) ++tests, what,
           (int) n);
}


/* a block that ends where the bytes end, so that a read beyond is seen */

static u_char *
exact(u_char *p, size_t len)
{
    u_char  *block;

    block = malloc(len ? len : 1);
    memcpy(block, p, len);

    return block;
}


static uint16_t
naive_sum(u_char *p, size_t len)
{
    size_t    i;
    uint32_t  sum;

    for (sum = 0, i = 0; i + 1 < len; i += 2) {
        sum += p[i] << 8 | p[i + 1];
    }

    if (len & 1) {
        sum += p[len - 1] << 8;
    }

    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }

    return (uint16_t) sum;
}


static void
test_sum(void)
{
    size_t      len, off;
    u_char      buf[3000];
    uint16_t    sum;
    ngx_uint_t  bad;

    for (len = 0; len < sizeof(buf); len++) {
        buf[len] = (u_char) random();
    }

    bad = 0;

    for (off = 0; off < 16; off++) {
        for (len = 0; len < 300; len++) {
            sum = htons(ngx_tun_packet_fold(ngx_tun_packet_sum(buf + off, len,
                                                               0)));
            bad += (sum != naive_sum(buf + off, len));
        }
    }

    ok(bad == 0, "sum at all alignments and lengths", bad);

    sum = htons(ngx_tun_packet_fold(
              ngx_tun_packet_sum(buf + 1000, 2000,
                                 ngx_tun_packet_sum(buf, 1000, 0))));
    ok(sum == naive_sum(buf, 3000), "sum of pieces", sum);

    memset(buf, 0xff, sizeof(buf));
    sum = ngx_tun_packet_fold(ngx_tun_packet_sum(buf, 3000, 0xffff));
    ok(sum == 0xffff, "sum of ones", sum);
}


static size_t
build(u_char *buf, size_t addr_len, ngx_uint_t flags)
{
    ngx_tun_packet_tcp_t  tcp;
    static u_char         src[16] = { 0x20, 1, 0xd, 0xb8, 5 };
    static u_char         dst[16] = { 0x20, 1, 0xd, 0xb8, 6 };

    memset(&tcp, 0, sizeof(tcp));

    tcp.src_port = 12345;
    tcp.dst_port = 80;
    tcp.seq = 0x01020304;
    tcp.ack = 0x05060708;
    tcp.window = 1000;
    tcp.flags = (uint8_t) flags;

    return ngx_tun_packet_build_tcp(buf, src, dst, addr_len, &tcp);
}


static void
test_build(size_t addr_len)
{
    size_t                len, n;
    u_char                buf[128], *p;
    ngx_uint_t            bad;
    ngx_tun_packet_t      pkt;
    ngx_tun_packet_tcp_t  th;

    len = build(buf, addr_len, NGX_TUN_PACKET_TCP_SYN);

    ok(len == addr_len * 2 + ((addr_len == 4) ? 12 : 8) + 20, "length", len);
    ok(ngx_tun_packet_parse(&pkt, buf, buf + len) == NGX_TUN_PACKET_OK,
       "what is built is parsed", addr_len);
    ok(pkt.addr_len == addr_len && pkt.protocol == IPPROTO_TCP
       && !pkt.fragment && pkt.end == buf + len, "fields", addr_len);
    ok(ngx_tun_packet_parse_tcp(&pkt, &th) == NGX_TUN_PACKET_OK
       && th.src_port == 12345 && th.dst_port == 80 && th.seq == 0x01020304
       && th.ack == 0x05060708 && th.window == 1000
       && th.flags == NGX_TUN_PACKET_TCP_SYN && th.data == pkt.end
       && th.mss == 0, "TCP fields", addr_len);
    ok(ngx_tun_packet_check_tcp(&pkt) == NGX_TUN_PACKET_OK, "checksum",
       addr_len);

    buf[len - 1] ^= 1;
    ok(ngx_tun_packet_check_tcp(&pkt) == NGX_TUN_PACKET_CHECKSUM,
       "wrong checksum", addr_len);
    buf[len - 1] ^= 1;

    for (bad = 0, n = 0; n < len; n++) {
        p = exact(buf, n);
        bad += (ngx_tun_packet_parse(&pkt, p, p + n) == NGX_TUN_PACKET_OK);
        free(p);
    }

    ok(bad == 0, "truncated anywhere", bad);

    p = exact(buf, len + 20);
    ok(ngx_tun_packet_parse(&pkt, p, p + len + 20) == NGX_TUN_PACKET_OK
       && pkt.end == p + len, "bytes after the packet", addr_len);
    free(p);
}


static void
test_reset(size_t addr_len)
{
    size_t                len, n;
    u_char                buf[128], rst[128];
    ngx_tun_packet_t      pkt;
    ngx_tun_packet_tcp_t  th;

    static const struct {
        ngx_uint_t        flags;
        uint32_t          seq;
        uint32_t          ack;
        ngx_uint_t        reply;
    } cases[] = {
        { NGX_TUN_PACKET_TCP_SYN, 0, 0x01020305,
          NGX_TUN_PACKET_TCP_RST|NGX_TUN_PACKET_TCP_ACK },
        { NGX_TUN_PACKET_TCP_FIN, 0, 0x01020305,
          NGX_TUN_PACKET_TCP_RST|NGX_TUN_PACKET_TCP_ACK },
        { 0, 0, 0x01020304, NGX_TUN_PACKET_TCP_RST|NGX_TUN_PACKET_TCP_ACK },
        { NGX_TUN_PACKET_TCP_ACK, 0x05060708, 0, NGX_TUN_PACKET_TCP_RST },
        { NGX_TUN_PACKET_TCP_SYN|NGX_TUN_PACKET_TCP_ACK, 0x05060708, 0,
          NGX_TUN_PACKET_TCP_RST }
    };

    for (n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
        len = build(buf, addr_len, cases[n].flags);
        ngx_tun_packet_parse(&pkt, buf, buf + len);
        ngx_tun_packet_parse_tcp(&pkt, &th);

        len = ngx_tun_packet_build_reset(rst, &pkt, &th);

        ok(ngx_tun_packet_parse(&pkt, rst, rst + len) == NGX_TUN_PACKET_OK
           && ngx_tun_packet_check_tcp(&pkt) == NGX_TUN_PACKET_OK
           && ngx_tun_packet_parse_tcp(&pkt, &th) == NGX_TUN_PACKET_OK
           && th.seq == cases[n].seq && th.ack == cases[n].ack
           && th.flags == cases[n].reply
           && th.src_port == 80 && th.dst_port == 12345, "reset", n);
    }

    len = build(buf, addr_len, NGX_TUN_PACKET_TCP_RST);
    ngx_tun_packet_parse(&pkt, buf, buf + len);
    ngx_tun_packet_parse_tcp(&pkt, &th);
    ok(ngx_tun_packet_build_reset(rst, &pkt, &th) == 0, "no reset of a reset",
       addr_len);
}


static void
test_segment(size_t addr_len, size_t mss)
{
    size_t                     len, header_len, total, n, packets;
    u_char                     header[128], *payload, *got, *buf;
    ngx_uint_t                 bad;
    struct iovec               iov[4];
    ngx_tun_packet_t           pkt;
    ngx_tun_packet_tcp_t       th;
    ngx_tun_packet_segment_t   seg;

    total = 5003;
    payload = malloc(total);
    got = malloc(total);

    for (n = 0; n < total; n++) {
        payload[n] = (u_char) random();
    }

    header_len = build(header, addr_len, NGX_TUN_PACKET_TCP_ACK
                       |NGX_TUN_PACKET_TCP_PSH|NGX_TUN_PACKET_TCP_FIN
                       |NGX_TUN_PACKET_TCP_CWR);

    buf = malloc(header_len + mss);

    memset(&seg, 0, sizeof(seg));

    iov[0].iov_base = payload;
    iov[0].iov_len = 0;
    iov[1].iov_base = payload;
    iov[1].iov_len = 1001;
    iov[2].iov_base = payload + 1001;
    iov[2].iov_len = 3;
    iov[3].iov_base = payload + 1004;
    iov[3].iov_len = total - 1004;

    seg.header = header;
    seg.header_len = header_len;
    seg.iov = iov;
    seg.niov = 4;
    seg.mss = mss;

    bad = 0;
    packets = 0;
    n = 0;

    while ((len = ngx_tun_packet_segment(&seg, buf)) != 0) {
        packets++;

        if (ngx_tun_packet_parse(&pkt, buf, buf + len) != NGX_TUN_PACKET_OK
            || ngx_tun_packet_check_tcp(&pkt) != NGX_TUN_PACKET_OK
            || ngx_tun_packet_parse_tcp(&pkt, &th) != NGX_TUN_PACKET_OK
            || pkt.end != buf + len
            || th.seq != 0x01020304 + n
            || n + (pkt.end - th.data) > total)
        {
            bad++;
            break;
        }

        memcpy(got + n, th.data, pkt.end - th.data);
        n += pkt.end - th.data;

        bad += ((th.flags & NGX_TUN_PACKET_TCP_CWR) != 0) != (packets == 1);
        bad += ((th.flags & NGX_TUN_PACKET_TCP_FIN) != 0) != (n == total);
        bad += ((th.flags & NGX_TUN_PACKET_TCP_PSH) != 0) != (n == total);
    }

    ok(bad == 0, "packets of a segment", mss);
    ok(n == total && memcmp(got, payload, total) == 0, "and their bytes", mss);
    ok(packets == (total + mss - 1) / mss, "and their number", packets);

    /* without payload there is one packet */

    memset(&seg, 0, sizeof(seg));

    iov[0].iov_len = 0;
    seg.header = header;
    seg.header_len = header_len;
    seg.iov = iov;
    seg.niov = 1;
    seg.mss = mss;

    len = ngx_tun_packet_segment(&seg, buf);
    ok(len == header_len && ngx_tun_packet_segment(&seg, buf) == 0,
       "a segment without payload", len);

    free(payload);
    free(got);
    free(buf);
}


static void
test_finish(size_t addr_len)
{
    size_t            len, ip_len;
    u_char            buf[128];
    uint16_t          sum;
    ngx_tun_packet_t  pkt;

    len = build(buf, addr_len, NGX_TUN_PACKET_TCP_ACK);
    ip_len = len - 20;

    /* what a checksum offload does */

    ngx_tun_packet_finish_tcp(buf, len);
    sum = ~ngx_tun_packet_fold(ngx_tun_packet_sum(buf + ip_len, 20, 0));
    memcpy(buf + ip_len + 16, &sum, 2);

    ok(ngx_tun_packet_parse(&pkt, buf, buf + len) == NGX_TUN_PACKET_OK
       && ngx_tun_packet_check_tcp(&pkt) == NGX_TUN_PACKET_OK,
       "a sum that is finished by others", addr_len);
}


static void
fix_ipv4(u_char *p)
{
    uint16_t  sum;

    p[10] = 0;
    p[11] = 0;

    sum = ~ngx_tun_packet_fold(ngx_tun_packet_sum(p, (p[0] & 15) * 4, 0));
    memcpy(p + 10, &sum, 2);
}


static void
test_ipv4(void)
{
    size_t            len, i;
    u_char            buf[256], save[256], *p;
    ngx_tun_packet_e  rc;
    ngx_tun_packet_t  pkt;

    static const struct {
        const char        *name;
        ngx_uint_t         offset;
        u_char             value;
        ngx_tun_packet_e   rc;
    } cases[] = {
        { "version", 0, 0x55, NGX_TUN_PACKET_VERSION },
        { "header length", 0, 0x44, NGX_TUN_PACKET_HEADER },
        { "header length beyond", 0, 0x4f, NGX_TUN_PACKET_SHORT },
        { "total length", 3, 200, NGX_TUN_PACKET_SHORT },
        { "total length below", 3, 10, NGX_TUN_PACKET_SHORT },
        { "more fragments", 6, 0x20, NGX_TUN_PACKET_OK },
        { "offset", 7, 1, NGX_TUN_PACKET_OK }
    };

    len = build(save, 4, NGX_TUN_PACKET_TCP_SYN);

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memcpy(buf, save, len);
        buf[cases[i].offset] = cases[i].value;

        if ((buf[0] >> 4) == 4 && (buf[0] & 15) == 5) {
            fix_ipv4(buf);
        }

        p = exact(buf, len);
        rc = ngx_tun_packet_parse(&pkt, p, p + len);
        ok(rc == cases[i].rc, cases[i].name, rc);

        if (rc == NGX_TUN_PACKET_OK) {
            ok(pkt.fragment, "is a fragment", i);
        }

        free(p);
    }

    memcpy(buf, save, len);
    buf[8]--;
    ok(ngx_tun_packet_parse(&pkt, buf, buf + len) == NGX_TUN_PACKET_CHECKSUM,
       "header checksum", 0);

    /* options: skipped, malformed, source routes */

    static const struct {
        u_char             options[4];
        ngx_tun_packet_e   rc;
    } options[] = {
        { { 1, 1, 1, 0 }, NGX_TUN_PACKET_OK },
        { { 148, 4, 0, 0 }, NGX_TUN_PACKET_OK },
        { { 148, 5, 0, 0 }, NGX_TUN_PACKET_HEADER },
        { { 148, 1, 0, 0 }, NGX_TUN_PACKET_HEADER },
        { { 1, 1, 1, 148 }, NGX_TUN_PACKET_HEADER },
        { { 131, 3, 4, 0 }, NGX_TUN_PACKET_ROUTE },
        { { 1, 137, 3, 4 }, NGX_TUN_PACKET_ROUTE }
    };

    for (i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        memcpy(buf, save, 20);
        memcpy(buf + 20, options[i].options, 4);
        memcpy(buf + 24, save + 20, 20);
        buf[0] = 0x46;
        buf[3] = 44;
        fix_ipv4(buf);

        p = exact(buf, 44);
        rc = ngx_tun_packet_parse(&pkt, p, p + 44);
        ok(rc == options[i].rc, "options", i);
        free(p);
    }
}


static void
test_ipv6(void)
{
    size_t            len, i;
    u_char            buf[512], save[128], *p;
    ngx_tun_packet_e  rc;
    ngx_tun_packet_t  pkt;

    static const struct {
        const char        *name;
        u_char             next;
        u_char             header[8];
        ngx_uint_t         fragment;
        ngx_tun_packet_e   rc;
    } cases[] = {
        { "hop by hop", 0, { 6, 0, 1, 4 }, 0, NGX_TUN_PACKET_OK },
        { "destination options", 60, { 6, 0, 1, 4 }, 0, NGX_TUN_PACKET_OK },
        { "options beyond", 60, { 6, 9, 1, 4 }, 0, NGX_TUN_PACKET_SHORT },
        { "routing type 0", 43, { 6, 0, 0, 0 }, 0, NGX_TUN_PACKET_ROUTE },
        { "routing, segments left", 43, { 6, 0, 4, 1 }, 0,
          NGX_TUN_PACKET_ROUTE },
        { "routing, none left", 43, { 6, 0, 4, 0 }, 0, NGX_TUN_PACKET_OK },
        { "fragment", 44, { 6, 0, 0, 1 }, 1, NGX_TUN_PACKET_OK },
        { "fragment, offset", 44, { 6, 0, 1, 0 }, 1, NGX_TUN_PACKET_OK },
        { "atomic fragment", 44, { 6, 0, 0, 0 }, 0, NGX_TUN_PACKET_OK },
        { "authentication", 51, { 6, 0 }, 0, NGX_TUN_PACKET_OK }
    };

    len = build(save, 16, NGX_TUN_PACKET_TCP_SYN);

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memcpy(buf, save, 40);
        memcpy(buf + 40, cases[i].header, 8);
        memcpy(buf + 48, save + 40, 20);
        buf[6] = cases[i].next;
        buf[5] = 28;

        p = exact(buf, len + 8);
        rc = ngx_tun_packet_parse(&pkt, p, p + len + 8);

        ok(rc == cases[i].rc, cases[i].name, rc);

        if (rc == NGX_TUN_PACKET_OK) {
            ok(pkt.fragment == cases[i].fragment
               && pkt.protocol == IPPROTO_TCP && pkt.payload == p + 48,
               "and what follows", i);
        }

        free(p);
    }

    /* a chain that does not end */

    memcpy(buf, save, 40);
    buf[6] = 60;
    buf[4] = 0;
    buf[5] = 200;

    for (i = 0; i < 25; i++) {
        memset(buf + 40 + i * 8, 0, 8);
        buf[40 + i * 8] = 60;
    }

    ok(ngx_tun_packet_parse(&pkt, buf, buf + 240) == NGX_TUN_PACKET_HEADER,
       "a long chain", 0);
}


static void
test_addresses(void)
{
    size_t            i, len;
    u_char            buf[128];
    ngx_tun_packet_t  pkt;

    static const struct {
        u_char             src[4];
        u_char             dst[4];
        ngx_tun_packet_e   rc;
    } cases[] = {
        { { 10, 0, 0, 1 }, { 8, 8, 8, 8 }, NGX_TUN_PACKET_OK },
        { { 240, 0, 0, 1 }, { 240, 1, 8, 8 }, NGX_TUN_PACKET_OK },
        { { 10, 0, 0, 1 }, { 198, 18, 0, 2 }, NGX_TUN_PACKET_OK },
        { { 0, 0, 0, 0 }, { 8, 8, 8, 8 }, NGX_TUN_PACKET_ADDRESS },
        { { 127, 0, 0, 1 }, { 8, 8, 8, 8 }, NGX_TUN_PACKET_ADDRESS },
        { { 224, 0, 0, 1 }, { 8, 8, 8, 8 }, NGX_TUN_PACKET_ADDRESS },
        { { 255, 255, 255, 255 }, { 8, 8, 8, 8 }, NGX_TUN_PACKET_ADDRESS },
        { { 10, 0, 0, 1 }, { 0, 0, 0, 0 }, NGX_TUN_PACKET_ADDRESS },
        { { 10, 0, 0, 1 }, { 239, 1, 1, 1 }, NGX_TUN_PACKET_ADDRESS },
        { { 10, 0, 0, 1 }, { 255, 255, 255, 255 }, NGX_TUN_PACKET_ADDRESS }
    };

    len = build(buf, 4, NGX_TUN_PACKET_TCP_SYN);

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memcpy(buf + 12, cases[i].src, 4);
        memcpy(buf + 16, cases[i].dst, 4);
        fix_ipv4(buf);
        ngx_tun_packet_parse(&pkt, buf, buf + len);
        ok(ngx_tun_packet_check_addresses(&pkt) == cases[i].rc, "addresses",
           i);
    }

    len = build(buf, 16, NGX_TUN_PACKET_TCP_SYN);
    ngx_tun_packet_parse(&pkt, buf, buf + len);
    ok(ngx_tun_packet_check_addresses(&pkt) == NGX_TUN_PACKET_OK,
       "IPv6 addresses", 0);

    buf[24] = 0xff;
    ok(ngx_tun_packet_check_addresses(&pkt) == NGX_TUN_PACKET_ADDRESS,
       "IPv6 multicast", 0);

    buf[24] = 0x20;
    memset(buf + 8, 0, 16);
    ok(ngx_tun_packet_check_addresses(&pkt) == NGX_TUN_PACKET_ADDRESS,
       "IPv6 from nowhere", 0);

    buf[23] = 1;
    ok(ngx_tun_packet_check_addresses(&pkt) == NGX_TUN_PACKET_ADDRESS,
       "IPv6 loopback", 0);
}


static void
test_random(void)
{
    size_t                     len, i, n;
    u_char                     buf[256], out[256], *p;
    ngx_tun_packet_t           pkt;
    ngx_tun_packet_tcp_t       th;
    ngx_tun_packet_too_big_t   big;

    for (i = 0; i < 200000; i++) {
        len = build(buf, (i & 1) ? 4 : 16, random() & 0xff);

        for (n = random() % 4; n != 0; n--) {
            buf[random() % len] = (u_char) random();
        }

        if ((i & 1) && (buf[0] & 15) == 5) {
            fix_ipv4(buf);
        }

        n = (i & 2) ? len : random() % (len + 1);
        p = exact(buf, n);

        if (ngx_tun_packet_parse(&pkt, p, p + n) == NGX_TUN_PACKET_OK) {
            (void) ngx_tun_packet_check_addresses(&pkt);
            (void) ngx_tun_packet_parse_too_big(&pkt, &big);

            if (ngx_tun_packet_parse_tcp(&pkt, &th) == NGX_TUN_PACKET_OK) {
                (void) ngx_tun_packet_check_tcp(&pkt);
                (void) ngx_tun_packet_build_reset(out, &pkt, &th);
            }
        }

        free(p);
    }

    ok(1, "anything", 0);
}


int
main(void)
{
    size_t  addr_len;

    srandom(1);

    test_sum();

    for (addr_len = 4; addr_len <= 16; addr_len += 12) {
        test_build(addr_len);
        test_reset(addr_len);
        test_finish(addr_len);
        test_segment(addr_len, 1);
        test_segment(addr_len, 536);
        test_segment(addr_len, 1001);
        test_segment(addr_len, 1460);
        test_segment(addr_len, 65000);
    }

    test_ipv4();
    test_ipv6();
    test_addresses();
    test_random();

    printf("1..%d\n", (int) tests);

    return 0;
}
