
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: stack/ngx_tun_rewrite.c stack/ngx_tun_packet.c */


/*
 * libFuzzer: packets and ICMP errors that get other addresses.  The first
 * byte says which sums are made right and whether they are partial, the second
 * where the addresses are taken from.  What was right is right after it, what
 * was wrong is wrong, and the way back leads to the same bytes.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_rewrite.h>

#include "sums.h"


#define FUZZ_FIX_IP   0x01
#define FUZZ_FIX_SUM  0x02
#define FUZZ_PARTIAL  0x04


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static int
icmp_sum(ngx_tun_packet_t *pkt)
{
    size_t    len;
    uint32_t  sum;

    len = pkt->end - pkt->payload;
    sum = (pkt->addr_len == 4) ? 0 : ngx_tun_packet_pseudo_sum(pkt, len);

    return ngx_tun_packet_fold(ngx_tun_packet_sum(pkt->payload, len, sum))
           == 0xffff;
}


static void
fuzz_tcp(ngx_tun_packet_t *pkt, ngx_tun_rewrite_t *to, ngx_tun_rewrite_t *back,
    ngx_uint_t partial)
{
    ngx_tun_packet_e  good;
    ngx_tun_packet_t  again;

    good = ngx_tun_packet_check_tcp(pkt);

    ngx_tun_rewrite_tcp(pkt, to, partial);

    check(ngx_tun_packet_parse(&again, pkt->start, pkt->end)
          == NGX_TUN_PACKET_OK);
    check(again.payload == pkt->payload && again.end == pkt->end);

    if (!partial) {
        check(ngx_tun_packet_check_tcp(pkt) == good);
    }

    ngx_tun_rewrite_tcp(pkt, back, partial);
}


static void
fuzz_error(ngx_tun_packet_t *pkt, ngx_tun_rewrite_error_t *error,
    ngx_tun_rewrite_t *to)
{
    int  good;

    check(error->start > pkt->payload && error->tcp > error->start
          && error->tcp + 8 <= pkt->end
          && error->dst + pkt->addr_len <= error->tcp);

    good = icmp_sum(pkt);

    ngx_tun_rewrite_error(pkt, error, to);

    check(icmp_sum(pkt) == good);
    check(memcmp(pkt->src, to->dst, pkt->addr_len) == 0);
    check(memcmp(error->src, to->src, pkt->addr_len) == 0);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t                    i;
    u_char                   *p, *copy, bytes[36], old[32];
    ngx_tun_packet_t          pkt;
    ngx_tun_rewrite_t         to, back;
    ngx_tun_packet_tcp_t      tcp;
    ngx_tun_rewrite_error_t   error;

    if (size < 3) {
        return 0;
    }

    p = malloc(size - 2);
    copy = malloc(size - 2);

    if (p == NULL || copy == NULL) {
        goto done;
    }

    ngx_memcpy(p, data + 2, size - 2);

    for (i = 0; i < sizeof(bytes); i++) {
        bytes[i] = data[(data[1] + i * 7) % size];
    }

    to.src = bytes;
    to.dst = bytes + 16;
    to.src_port = (uint16_t) (bytes[32] << 8 | bytes[33]);
    to.dst_port = (uint16_t) (bytes[34] << 8 | bytes[35]);

    if (data[0] & FUZZ_FIX_IP) {
        fix_ip(p, size - 2);
    }

    if (ngx_tun_packet_parse(&pkt, p, p + size - 2) != NGX_TUN_PACKET_OK
        || pkt.fragment)
    {
        goto done;
    }

    if (data[0] & FUZZ_FIX_SUM) {
        fix_sum(&pkt);
    }

    ngx_memcpy(copy, p, size - 2);
    ngx_memcpy(old, pkt.src, pkt.addr_len);
    ngx_memcpy(old + 16, pkt.dst, pkt.addr_len);

    if (pkt.protocol == IPPROTO_TCP) {

        if (ngx_tun_packet_parse_tcp(&pkt, &tcp) != NGX_TUN_PACKET_OK) {
            goto done;
        }

        back.src = old;
        back.dst = old + 16;
        back.src_port = tcp.src_port;
        back.dst_port = tcp.dst_port;

        fuzz_tcp(&pkt, &to, &back, (data[0] & FUZZ_PARTIAL) != 0);

        /* of the two zeros of a sum either may come back */

        i = pkt.payload - p + 16;
        p[i] = copy[i];
        p[i + 1] = copy[i + 1];

        check(memcmp(p, copy, size - 2) == 0);

    } else if (ngx_tun_rewrite_parse_error(&pkt, &error) == NGX_TUN_PACKET_OK)
    {
        fuzz_error(&pkt, &error, &to);
    }

done:

    free(copy);
    free(p);

    return 0;
}
