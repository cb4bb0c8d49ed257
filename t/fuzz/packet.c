
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: stack/ngx_tun_packet.c stack/ngx_tun_packet_icmp.c */


/*
 * libFuzzer: what the device may hand in.  The first byte says how the rest
 * is used: with sums made right, so that what is behind them is reached, and
 * how a segment of it is cut.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_packet.h>

#include "sums.h"


#define FUZZ_FIX_IP   0x01
#define FUZZ_FIX_SUM  0x02


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
fuzz_reset(ngx_tun_packet_t *pkt, ngx_tun_packet_tcp_t *tcp)
{
    size_t                len;
    u_char                buf[NGX_TUN_PACKET_TCP_MIN];
    ngx_tun_packet_t      reply;
    ngx_tun_packet_tcp_t  rst;

    len = ngx_tun_packet_build_reset(buf, pkt, tcp);

    check((len == 0) == ((tcp->flags & NGX_TUN_PACKET_TCP_RST) != 0));

    if (len == 0) {
        return;
    }

    check(len <= sizeof(buf));
    check(ngx_tun_packet_parse(&reply, buf, buf + len) == NGX_TUN_PACKET_OK);
    check(ngx_tun_packet_parse_tcp(&reply, &rst) == NGX_TUN_PACKET_OK);
    check(ngx_tun_packet_check_tcp(&reply) == NGX_TUN_PACKET_OK);
    check(ngx_tun_packet_build_reset(buf, &reply, &rst) == 0);
}


/* cuts it as if it were ours */

static void
fuzz_segment(ngx_tun_packet_t *pkt, ngx_tun_packet_tcp_t *tcp, size_t mss)
{
    size_t                     len, total, ip_len, n, packets;
    u_char                    *buf, *got;
    struct iovec               iov[3];
    ngx_tun_packet_t           cut;
    ngx_tun_packet_tcp_t       th;
    ngx_tun_packet_segment_t   seg;

    ip_len = pkt->payload - pkt->start;

    if (ip_len != ((pkt->addr_len == 4) ? 20 : 40)) {
        return;
    }

    total = pkt->end - tcp->data;

    ngx_memzero(&seg, sizeof(ngx_tun_packet_segment_t));

    seg.header = pkt->start;
    seg.header_len = tcp->data - pkt->start;
    seg.iov = iov;
    seg.niov = 3;
    seg.mss = mss;

    iov[0].iov_base = tcp->data;
    iov[0].iov_len = total / 3;
    iov[1].iov_base = tcp->data + total / 3;
    iov[1].iov_len = total / 2 - total / 3;
    iov[2].iov_base = tcp->data + total / 2;
    iov[2].iov_len = total - total / 2;

    buf = malloc(seg.header_len + mss);
    got = malloc(total + 1);

    if (buf == NULL || got == NULL) {
        free(buf);
        free(got);
        return;
    }

    n = 0;
    packets = 0;

    while ((len = ngx_tun_packet_segment(&seg, buf)) != 0) {
        check(ngx_tun_packet_parse(&cut, buf, buf + len) == NGX_TUN_PACKET_OK);
        check(cut.end == buf + len && !cut.fragment);
        check(ngx_tun_packet_parse_tcp(&cut, &th) == NGX_TUN_PACKET_OK);
        check(ngx_tun_packet_check_tcp(&cut) == NGX_TUN_PACKET_OK);
        check(th.seq == tcp->seq + (uint32_t) n);

        len = cut.end - th.data;

        check(len <= mss && n + len <= total);
        check(len == mss || n + len == total);

        ngx_memcpy(got + n, th.data, len);

        n += len;
        packets++;
    }

    check(n == total && ngx_memcmp(got, tcp->data, n) == 0);
    check(packets == (total + mss - 1) / mss || (total == 0 && packets == 1));

    free(buf);
    free(got);
}


static void
fuzz_error(ngx_tun_packet_t *pkt, ngx_tun_icmp_error_e error)
{
    u_char                 *buf;
    size_t                  len, max;
    ngx_tun_packet_t        out;
    ngx_tun_packet_icmp_t   icmp;

    if (!ngx_tun_packet_may_error(pkt)) {
        return;
    }

    check(!pkt->fragment);

    max = (pkt->addr_len == 4) ? NGX_TUN_PACKET_ICMP_ERROR_MAX
                               : NGX_TUN_PACKET_ICMP6_ERROR_MAX;
    buf = malloc(max);

    if (buf == NULL) {
        return;
    }

    len = ngx_tun_packet_build_icmp_error(buf, error, pkt->dst, pkt, 1280);

    check(len <= max);
    check(ngx_tun_packet_parse(&out, buf, buf + len) == NGX_TUN_PACKET_OK);
    check(out.end == buf + len);
    check(ngx_tun_packet_parse_icmp(&out, &icmp) == NGX_TUN_PACKET_OK);
    check(ngx_tun_packet_check_icmp(&out) == NGX_TUN_PACKET_OK);
    check(icmp.kind == NGX_TUN_PACKET_ICMP_ERROR);
    check(!ngx_tun_packet_may_error(&out));

    free(buf);
}


/* as a ping that is answered here, and as the answer to one of ours */

static void
fuzz_icmp(ngx_tun_packet_t *pkt)
{
    u_char                  src[16];
    ngx_tun_packet_t        quote;
    ngx_tun_packet_icmp_t   icmp;

    if (ngx_tun_packet_parse_icmp(pkt, &icmp) != NGX_TUN_PACKET_OK) {
        return;
    }

    if (icmp.kind == NGX_TUN_PACKET_ICMP_ERROR
        && ngx_tun_packet_parse_quoted_echo(pkt, &quote, &icmp)
           == NGX_TUN_PACKET_OK)
    {
        check(quote.dst + pkt->addr_len <= quote.payload
              && quote.payload + 8 <= pkt->end);

        ngx_memset(src, 7, 16);

        ngx_tun_packet_requote_echo(&quote, src, 4711);
        ngx_tun_packet_finish_icmp(pkt, pkt->src, src, 9);

        check(ngx_tun_packet_parse(&quote, pkt->start, pkt->end)
              == NGX_TUN_PACKET_OK);
        check(ngx_tun_packet_check_icmp(&quote) == NGX_TUN_PACKET_OK);
        check(ngx_tun_packet_parse_quoted_echo(&quote, pkt, &icmp)
              == NGX_TUN_PACKET_OK && icmp.id == 4711);

        return;
    }

    if (icmp.kind != NGX_TUN_PACKET_ICMP_REQUEST
        || ngx_tun_packet_check_icmp(pkt) != NGX_TUN_PACKET_OK)
    {
        return;
    }

    ngx_tun_packet_echo_reply(pkt);

    check(ngx_tun_packet_parse(&quote, pkt->start, pkt->end)
          == NGX_TUN_PACKET_OK && quote.end == pkt->end);
    check(ngx_tun_packet_check_icmp(&quote) == NGX_TUN_PACKET_OK);
    check(ngx_tun_packet_parse_icmp(&quote, &icmp) == NGX_TUN_PACKET_OK
          && icmp.kind == NGX_TUN_PACKET_ICMP_REPLY);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t                     mss;
    u_char                    *p, *end;
    ngx_uint_t                 how;
    ngx_tun_packet_t           pkt;
    ngx_tun_packet_tcp_t       tcp;
    ngx_tun_packet_udp_t      udp;
    ngx_tun_packet_too_big_t   big;

    if (size < 2) {
        return 0;
    }

    how = data[0];
    mss = 1 + data[1] * 6;

    /* a block of its own, so that a read beyond its end is seen */

    size -= 2;
    p = malloc(size ? size : 1);

    if (p == NULL) {
        return 0;
    }

    ngx_memcpy(p, data + 2, size);
    end = p + size;

    if (how & FUZZ_FIX_IP) {
        fix_ip(p, size);
    }

    if (ngx_tun_packet_parse(&pkt, p, end) != NGX_TUN_PACKET_OK) {
        goto done;
    }

    check(pkt.start == p && pkt.payload >= p && pkt.payload <= pkt.end
          && pkt.end <= end);
    check(pkt.addr_len == 4 || pkt.addr_len == 16);

    (void) ngx_tun_packet_check_addresses(&pkt);

    fuzz_error(&pkt, mss % (NGX_TUN_ICMP_TOO_BIG + 1));

    if (pkt.fragment) {
        goto done;
    }

    if (how & FUZZ_FIX_SUM) {
        fix_sum(&pkt);
    }

    switch (pkt.protocol) {

    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:

        if (ngx_tun_packet_parse_too_big(&pkt, &big) == NGX_TUN_PACKET_OK) {
            check(big.src >= pkt.payload && big.dst > big.src
                  && big.dst + pkt.addr_len <= pkt.end);
            check(big.mss > 0 && big.mss <= 65535);
        }

        fuzz_icmp(&pkt);

        break;

    case IPPROTO_UDP:

        if (ngx_tun_packet_parse_udp(&pkt, &udp) == NGX_TUN_PACKET_OK) {
            check(udp.data == pkt.payload + 8 && udp.data <= udp.end
                  && udp.end <= pkt.end);
            (void) ngx_tun_packet_check_udp(&pkt, &udp);
        }

        break;

    case IPPROTO_TCP:

        if (ngx_tun_packet_parse_tcp(&pkt, &tcp) != NGX_TUN_PACKET_OK) {
            break;
        }

        check(tcp.data >= pkt.payload + 20 && tcp.data <= pkt.end);

        if ((how & FUZZ_FIX_SUM) && tcp.data) {
            check(ngx_tun_packet_check_tcp(&pkt) == NGX_TUN_PACKET_OK);
        }

        fuzz_reset(&pkt, &tcp);
        fuzz_segment(&pkt, &tcp, mss);
    }

done:

    free(p);

    return 0;
}
