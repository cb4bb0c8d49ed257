
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: stack/ngx_tun_packet.c stack/ngx_tun_packet_icmp.c */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_packet.h>

#include "lib/tap.h"


static u_char  v4_src[] = { 10, 0, 0, 1 };
static u_char  v4_dst[] = { 192, 0, 2, 9 };
static u_char  v4_own[] = { 198, 18, 0, 1 };

static u_char  v6_src[] = { 0xfd, 0, 0, 1, 0, 0, 0, 0,
                            0, 0, 0, 0, 0, 0, 0, 1 };
static u_char  v6_dst[] = { 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0,
                            0, 0, 0, 0, 0, 0, 0, 9 };
static u_char  v6_own[] = { 0xfd, 0, 0, 9, 0, 0, 0, 0,
                            0, 0, 0, 0, 0, 0, 0, 7 };


/* the sum as RFC 1071 says it, of what is right: 0xffff */

static uint16_t
naive(u_char *p, size_t len, uint32_t sum)
{
    size_t  i;

    for (i = 0; i + 1 < len; i += 2) {
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


static uint16_t
naive_icmp(u_char *p, size_t ip_len, size_t total)
{
    size_t    len;
    uint32_t  sum;

    len = total - ip_len;
    sum = 0;

    if ((p[0] >> 4) == 6) {
        sum = naive(p + 8, 32, 0) + (uint32_t) len + 58;
    }

    return naive(p + ip_len, len, sum);
}


/* an IP header for total bytes; extra is the length of options */

static size_t
ip(u_char *p, size_t addr_len, u_char protocol, size_t extra, size_t total)
{
    uint16_t  sum;

    if (addr_len == 16) {
        memset(p, 0, 40 + extra);
        p[0] = 0x60;
        p[4] = (u_char) ((total - 40) >> 8);
        p[5] = (u_char) (total - 40);
        p[6] = protocol;
        p[7] = 9;
        memcpy(p + 8, v6_src, 16);
        memcpy(p + 24, v6_dst, 16);

        if (extra) {

            /* destination options, of nothing but padding */

            p[6] = 60;
            p[40] = protocol;
            p[41] = (u_char) (extra / 8 - 1);
            p[42] = 1;
            p[43] = (u_char) (extra - 4);
        }

        return 40 + extra;
    }

    memset(p, 0, 20);
    memset(p + 20, 1, extra);
    p[0] = (u_char) (0x45 + extra / 4);
    p[2] = (u_char) (total >> 8);
    p[3] = (u_char) total;
    p[4] = 0x12;
    p[5] = 0x34;
    p[8] = 9;
    p[9] = protocol;
    memcpy(p + 12, v4_src, 4);
    memcpy(p + 16, v4_dst, 4);

    sum = ~naive(p, 20 + extra, 0);
    p[10] = (u_char) (sum >> 8);
    p[11] = (u_char) sum;

    return 20 + extra;
}


/* an ICMP packet of len bytes after the IP headers, type and code are there */

static size_t
message(u_char *p, size_t addr_len, size_t extra, u_char *icmp, size_t len)
{
    size_t    n;
    uint16_t  sum;

    n = ip(p, addr_len, (addr_len == 4) ? 1 : 58, extra,
           ((addr_len == 4) ? 20 : 40) + extra + len);

    memmove(p + n, icmp, len);
    p[n + 2] = 0;
    p[n + 3] = 0;

    sum = (addr_len == 4) ? 0 : naive(p + 8, 32, (uint32_t) len + 58);
    sum = ~naive(p + n, len, sum);
    p[n + 2] = (u_char) (sum >> 8);
    p[n + 3] = (u_char) sum;

    return n + len;
}


static size_t
echo(u_char *p, size_t addr_len, size_t extra, size_t len, ngx_uint_t zero)
{
    size_t  i;
    u_char  icmp[8 + 1500];

    for (i = 0; i < len; i++) {
        icmp[i] = zero ? 0 : (u_char) random();
    }

    icmp[0] = (addr_len == 4) ? 8 : 128;
    icmp[1] = 0;

    return message(p, addr_len, extra, icmp, len);
}


static void
test_reply(size_t addr_len)
{
    size_t                  len, extra, total, ip_len;
    u_char                  buf[1600], copy[1600], *p;
    ngx_uint_t              zero, bad, n;
    ngx_tun_packet_t        pkt;
    ngx_tun_packet_icmp_t   icmp;

    ip_len = (addr_len == 4) ? 20 : 40;
    bad = 0;
    n = 0;

    for (len = 8; len < 1400; len += 1 + random() % 5) {
        extra = (random() % 4) * 8;
        zero = random() % 4 == 0;
        n++;

        total = echo(buf, addr_len, extra, len, zero);
        memcpy(copy, buf, total);

        if (ngx_tun_packet_parse(&pkt, buf, buf + total) != NGX_TUN_PACKET_OK
            || ngx_tun_packet_parse_icmp(&pkt, &icmp) != NGX_TUN_PACKET_OK
            || ngx_tun_packet_check_icmp(&pkt) != NGX_TUN_PACKET_OK
            || icmp.kind != NGX_TUN_PACKET_ICMP_REQUEST
            || icmp.id != (pkt.payload[4] << 8 | pkt.payload[5])
            || icmp.seq != (pkt.payload[6] << 8 | pkt.payload[7]))
        {
            bad++;
            continue;
        }

        ngx_tun_packet_echo_reply(&pkt);

        p = pkt.start;

        if ((size_t) (pkt.end - p) != ip_len + len
            || pkt.payload != p + ip_len
            || p[ip_len] != ((addr_len == 4) ? 0 : 129)
            || p[ip_len + 1] != 0
            || p[(addr_len == 4) ? 8 : 7] != 64
            || memcmp(p + ip_len + 4, copy + ip_len + extra + 4, len - 4)
            || memcmp(p + ip_len - addr_len, copy + ((addr_len == 4) ? 12 : 8),
                      addr_len)
            || memcmp(p + ip_len - addr_len * 2, copy
                      + ((addr_len == 4) ? 16 : 24), addr_len)
            || naive_icmp(p, ip_len, ip_len + len) != 0xffff
            || (addr_len == 4 && naive(p, 20, 0) != 0xffff)
            || (addr_len == 4 && memcmp(p + 4, "\x12\x34\0\0", 4)))
        {
            bad++;
            continue;
        }

        /* and what comes out is a valid packet */

        if (ngx_tun_packet_parse(&pkt, p, p + ip_len + len)
            != NGX_TUN_PACKET_OK
            || ngx_tun_packet_parse_icmp(&pkt, &icmp) != NGX_TUN_PACKET_OK
            || icmp.kind != NGX_TUN_PACKET_ICMP_REPLY)
        {
            bad++;
        }
    }

    ok(bad == 0 && n > 100, "%u replies, family %u", (unsigned) n,
       (unsigned) addr_len);
}


static void
test_malformed(size_t addr_len)
{
    size_t                  i, total, n;
    u_char                  buf[200], *p;
    ngx_uint_t              bad;
    ngx_tun_packet_t        pkt;
    ngx_tun_packet_icmp_t   icmp;

    n = (addr_len == 4) ? 20 : 40;

    total = echo(buf, addr_len, 0, 24, 0);
    bad = 0;

    for (i = n; i < total; i++) {
        buf[i] ^= 0x10;

        (void) ngx_tun_packet_parse(&pkt, buf, buf + total);
        bad += ngx_tun_packet_check_icmp(&pkt) != NGX_TUN_PACKET_CHECKSUM;

        buf[i] ^= 0x10;
    }

    ok(bad == 0, "a flipped bit is seen, family %u", (unsigned) addr_len);

    for (i = 0; i < 8; i++) {
        total = echo(buf, addr_len, 0, 8, 0);

        /* exactly as many bytes, so that a read beyond is seen */

        (void) ip(buf, addr_len, (addr_len == 4) ? 1 : 58, 0, n + i);

        p = malloc(n + i);
        memcpy(p, buf, n + i);

        ok(ngx_tun_packet_parse(&pkt, p, p + n + i) == NGX_TUN_PACKET_OK
           && ngx_tun_packet_parse_icmp(&pkt, &icmp) == NGX_TUN_PACKET_SHORT,
           "%u bytes, family %u", (unsigned) i, (unsigned) addr_len);

        ok(ngx_tun_packet_may_error(&pkt) == (i >= 2),
           "no error about %u bytes, family %u", (unsigned) i,
           (unsigned) addr_len);

        free(p);
    }

    /* the message of one family in a packet of the other */

    total = echo(buf, addr_len, 0, 24, 0);
    (void) ip(buf, addr_len, (addr_len == 4) ? 58 : 1, 0, total);

    ok(ngx_tun_packet_parse(&pkt, buf, buf + total) == NGX_TUN_PACKET_OK
       && ngx_tun_packet_parse_icmp(&pkt, &icmp) == NGX_TUN_PACKET_HEADER,
       "another family, %u", (unsigned) addr_len);
}


static void
test_kinds(void)
{
    size_t                  total;
    u_char                  buf[100], msg[8];
    ngx_uint_t              i, k, bad, may;
    ngx_tun_packet_t        pkt;
    ngx_tun_packet_icmp_t   icmp;

    static struct {
        size_t              addr_len;
        u_char              errors[256];
    } family[] = {

        /* all that is not known to be a query */

        { 4, { 0 } },
        { 16, { 0 } }
    };

    memset(family[0].errors, 1, 256);

    for (i = 0; i < 256; i++) {
        if (i == 0 || (i >= 8 && i <= 10) || (i >= 13 && i <= 18)) {
            family[0].errors[i] = 0;
        }

        family[1].errors[i] = (i < 128 || i == 137);
    }

    for (k = 0; k < 2; k++) {
        bad = 0;

        for (i = 0; i < 256; i++) {
            memset(msg, 0, 8);
            msg[0] = (u_char) i;

            total = message(buf, family[k].addr_len, 0, msg, 8);

            (void) ngx_tun_packet_parse(&pkt, buf, buf + total);
            (void) ngx_tun_packet_parse_icmp(&pkt, &icmp);

            may = ngx_tun_packet_may_error(&pkt);

            bad += (icmp.kind == NGX_TUN_PACKET_ICMP_ERROR)
                   != family[k].errors[i];
            bad += may != !family[k].errors[i];
        }

        ok(bad == 0, "types, family %u", (unsigned) family[k].addr_len);

        msg[0] = (k == 0) ? 8 : 128;
        msg[1] = 1;
        total = message(buf, family[k].addr_len, 0, msg, 8);
        (void) ngx_tun_packet_parse(&pkt, buf, buf + total);
        (void) ngx_tun_packet_parse_icmp(&pkt, &icmp);

        ok(icmp.kind == NGX_TUN_PACKET_ICMP_OTHER, "an echo with a code");
    }
}


/* about whom, and to whom, no error may be sent */

static void
test_refused(void)
{
    size_t             total;
    u_char             buf[100], *addr;
    uint16_t           sum;
    ngx_uint_t         i;
    ngx_tun_packet_t   pkt;

    static struct {
        const char        *name;
        size_t             addr_len;
        ngx_uint_t         dst;
        u_char             addr[16];
        ngx_uint_t         may;
    } cases[] = {
        { "an ordinary source", 4, 0, { 10, 0, 0, 5 }, 1 },
        { "an ordinary target", 4, 1, { 10, 0, 0, 5 }, 1 },
        { "from nobody", 4, 0, { 0, 0, 0, 0 }, 0 },
        { "from loopback", 4, 0, { 127, 0, 0, 1 }, 0 },
        { "from multicast", 4, 0, { 224, 0, 0, 1 }, 0 },
        { "from broadcast", 4, 0, { 255, 255, 255, 255 }, 0 },
        { "to nobody", 4, 1, { 0, 0, 0, 0 }, 0 },
        { "to multicast", 4, 1, { 239, 1, 2, 3 }, 0 },
        { "to broadcast", 4, 1, { 255, 255, 255, 255 }, 0 },
        { "an ordinary source", 16, 0, { 0xfd, 0, 1 }, 1 },
        { "from nobody", 16, 0, { 0 }, 0 },
        { "from loopback", 16, 0, { 0, 0, 0, 0, 0, 0, 0, 0,
                                    0, 0, 0, 0, 0, 0, 0, 1 }, 0 },
        { "from multicast", 16, 0, { 0xff, 2, 0, 1 }, 0 },
        { "to multicast", 16, 1, { 0xff, 2, 0, 1 }, 0 },
        { "to nobody", 16, 1, { 0 }, 0 }
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        total = ((cases[i].addr_len == 4) ? 20 : 40) + 8;

        (void) ip(buf, cases[i].addr_len, IPPROTO_UDP, 0, total);

        addr = buf + ((cases[i].addr_len == 4) ? 12 : 8)
               + (cases[i].dst ? cases[i].addr_len : 0);
        memcpy(addr, cases[i].addr, cases[i].addr_len);

        if (cases[i].addr_len == 4) {
            buf[10] = buf[11] = 0;
            sum = ~naive(buf, 20, 0);
            buf[10] = (u_char) (sum >> 8);
            buf[11] = (u_char) sum;
        }

        ok(ngx_tun_packet_parse(&pkt, buf, buf + total) == NGX_TUN_PACKET_OK
           && ngx_tun_packet_may_error(&pkt) == cases[i].may,
           "%s, family %u", cases[i].name, (unsigned) cases[i].addr_len);
    }

    pkt.fragment = 0;
    (void) ip(buf, 4, IPPROTO_UDP, 0, 28);
    (void) ngx_tun_packet_parse(&pkt, buf, buf + 28);
    pkt.fragment = 1;
    ok(!ngx_tun_packet_may_error(&pkt), "a fragment");
}


static void
test_errors(size_t addr_len)
{
    size_t                 i, total, len, ip_len, max, quoted;
    u_char                *p, *buf, *own, packet[2000];
    ngx_uint_t             e, bad;
    ngx_tun_packet_t       pkt, out;

    static const u_char    codes[][4] = {
        { 3, 3, 1, 4 }, { 3, 1, 1, 3 }, { 3, 13, 1, 1 }, { 11, 0, 3, 0 },
        { 3, 4, 2, 0 }
    };

    ip_len = (addr_len == 4) ? 20 : 40;
    max = (addr_len == 4) ? 576 : 1280;
    own = (addr_len == 4) ? v4_own : v6_own;

    for (e = NGX_TUN_ICMP_PORT_UNREACHABLE; e <= NGX_TUN_ICMP_TOO_BIG; e++) {
        bad = 0;

        for (total = ip_len + 8; total < 1900; total += 1 + random() % 40) {

            (void) ip(packet, addr_len, IPPROTO_UDP, 0, total);

            for (i = ip_len; i < total; i++) {
                packet[i] = (u_char) random();
            }

            (void) ngx_tun_packet_parse(&pkt, packet, packet + total);

            buf = malloc(max);
            len = ngx_tun_packet_build_icmp_error(buf, e, own, &pkt, 1400);
            quoted = ngx_min(total, max - ip_len - 8);
            p = buf + ip_len;

            if (len != ip_len + 8 + quoted
                || ngx_tun_packet_parse(&out, buf, buf + len)
                   != NGX_TUN_PACKET_OK
                || naive_icmp(buf, ip_len, len) != 0xffff
                || (addr_len == 4 && naive(buf, 20, 0) != 0xffff)
                || memcmp(out.src, own, addr_len)
                || memcmp(out.dst, pkt.src, addr_len)
                || ngx_tun_packet_ttl(&out) != 64
                || p[0] != codes[e][(addr_len == 4) ? 0 : 2]
                || p[1] != codes[e][(addr_len == 4) ? 1 : 3]
                || memcmp(p + 4, (e == NGX_TUN_ICMP_TOO_BIG) ? "\0\0\x05\x78"
                                                              : "\0\0\0\0", 4)
                || memcmp(p + 8, packet, quoted)
                || ngx_tun_packet_may_error(&out))
            {
                bad++;
            }

            free(buf);
        }

        ok(bad == 0, "error %u, family %u", (unsigned) e,
           (unsigned) addr_len);
    }
}


static void
test_quote(size_t addr_len)
{
    size_t             ip_len, len;
    u_char            *buf, *p, *own, error[1280];
    ngx_tun_packet_t   pkt, out;

    ip_len = (addr_len == 4) ? 20 : 40;
    own = (addr_len == 4) ? v4_own : v6_own;

    buf = malloc(ip_len + 8);

    ngx_tun_packet_quote_udp(&pkt, buf, (addr_len == 4) ? v4_src : v6_src,
                             (addr_len == 4) ? v4_dst : v6_dst, addr_len,
                             5353, 53, 1000);

    ok(ngx_tun_packet_may_error(&pkt), "about a datagram that is gone");

    len = ngx_tun_packet_build_icmp_error(error, NGX_TUN_ICMP_PORT_UNREACHABLE,
                                          own, &pkt, 0);

    p = error + ip_len + 8;

    ok(len == ip_len * 2 + 16
       && naive_icmp(error, ip_len, len) == 0xffff
       && ngx_tun_packet_parse(&out, error, error + len) == NGX_TUN_PACKET_OK
       && memcmp(out.dst, (addr_len == 4) ? v4_src : v6_src, addr_len) == 0,
       "an error about it");

    /* the lengths are of the datagram, so the quote itself is truncated */

    ok((addr_len == 4) ? (p[0] == 0x45 && p[2] == (1028 >> 8)
                          && p[3] == (1028 & 255) && p[9] == 17
                          && naive(p, 20, 0) == 0xffff)
                       : (p[0] == 0x60 && p[4] == (1008 >> 8)
                          && p[5] == (1008 & 255) && p[6] == 17),
       "quotes its IP header");

    p += ip_len;

    ok(p[0] == (5353 >> 8) && p[1] == (5353 & 255) && p[2] == 0 && p[3] == 53
       && p[4] == (1008 >> 8) && p[5] == (1008 & 255),
       "and its UDP header, family %u", (unsigned) addr_len);

    free(buf);
}


/* an error about a request of ours, as the client is to see it */

static void
test_requote(size_t addr_len, size_t extra)
{
    size_t                  ip_len, total, len, quoted;
    u_char                 *p, *own, *client, request[200], error[400];
    ngx_uint_t              i;
    ngx_tun_packet_t        pkt, out, quote;
    ngx_tun_packet_icmp_t   icmp;

    ip_len = (addr_len == 4) ? 20 : 40;
    own = (addr_len == 4) ? v4_own : v6_own;
    client = (addr_len == 4) ? v4_dst : v6_dst;

    total = echo(request, addr_len, extra, 64, 0);
    (void) ngx_tun_packet_parse(&pkt, request, request + total);

    len = ngx_tun_packet_build_icmp_error(error, NGX_TUN_ICMP_TIME_EXCEEDED,
                                          own, &pkt, 0);
    (void) ngx_tun_packet_parse(&out, error, error + len);

    ok(ngx_tun_packet_parse_quoted_echo(&out, &quote, &icmp)
       == NGX_TUN_PACKET_OK
       && icmp.id == (pkt.payload[4] << 8 | pkt.payload[5])
       && icmp.seq == (pkt.payload[6] << 8 | pkt.payload[7])
       && memcmp(quote.dst, pkt.dst, addr_len) == 0,
       "a quoted request, family %u", (unsigned) addr_len);

    ngx_tun_packet_requote_echo(&quote, client, 0xbeef);
    ngx_tun_packet_finish_icmp(&out, own, client, 33);

    p = out.start + ip_len + 8;
    quoted = out.end - p;

    ok(naive_icmp(out.start, ip_len, out.end - out.start) == 0xffff
       && ngx_tun_packet_ttl(&out) == 33
       && memcmp(p + ((addr_len == 4) ? 12 : 8), client, addr_len) == 0,
       "rewritten");

    ok(naive_icmp(p, ip_len + extra, quoted) == 0xffff
       && (addr_len == 16 || naive(p, 20 + extra, 0) == 0xffff)
       && p[ip_len + extra + 4] == 0xbe && p[ip_len + extra + 5] == 0xef,
       "the quote's checksums are right");

    /* cut anywhere, it is not read beyond */

    for (i = 0; i < 8 + ip_len + extra + 8; i++) {
        p = malloc(i ? i : 1);
        memcpy(p, out.payload, i);

        pkt = out;
        pkt.payload = p;
        pkt.end = p + i;

        if (ngx_tun_packet_parse_quoted_echo(&pkt, &quote, &icmp)
            == NGX_TUN_PACKET_OK)
        {
            ok(0, "cut at %u", (unsigned) i);
        }

        free(p);
    }

    pkt = out;
    pkt.payload[0] = (addr_len == 4) ? 5 : 137;
    ok(ngx_tun_packet_parse_quoted_echo(&pkt, &quote, &icmp)
       != NGX_TUN_PACKET_OK, "a redirect");

    pkt.payload[0] = 3;
    pkt.payload[8 + ip_len + extra] = (addr_len == 4) ? 0 : 129;
    ok(ngx_tun_packet_parse_quoted_echo(&pkt, &quote, &icmp)
       != NGX_TUN_PACKET_OK, "about a reply");

    pkt.payload[8 + ip_len + extra] = (addr_len == 4) ? 8 : 128;
    pkt.payload[8 + ((addr_len == 4) ? 9 : 6)] = 17;
    ok(ngx_tun_packet_parse_quoted_echo(&pkt, &quote, &icmp)
       != NGX_TUN_PACKET_OK, "about UDP");

    pkt.payload[8 + ((addr_len == 4) ? 9 : 6)] = pkt.protocol;
    pkt.payload[8] = (addr_len == 4) ? 0x44 : 0x40;
    ok(ngx_tun_packet_parse_quoted_echo(&pkt, &quote, &icmp)
       != NGX_TUN_PACKET_OK, "not a header");

    if (addr_len == 4) {
        pkt.payload[8] = (u_char) (0x45 + extra / 4);
        pkt.payload[8 + 7] = 1;
        ok(ngx_tun_packet_parse_quoted_echo(&pkt, &quote, &icmp)
           != NGX_TUN_PACKET_OK, "about a later fragment");
    }
}


int
main(void)
{
    size_t  i, addr_len;

    srandom(1);

    for (i = 0; i < 2; i++) {
        addr_len = (i == 0) ? 4 : 16;

        test_reply(addr_len);
        test_malformed(addr_len);
        test_errors(addr_len);
        test_quote(addr_len);
        test_requote(addr_len, 0);
    }

    test_requote(4, 8);
    test_kinds();
    test_refused();

    return done();
}
