
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _SUMS_H_INCLUDED_
#define _SUMS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_packet.h>


/* makes sums right, so that a fuzzer reaches what is behind them */


static inline void
check(int good)
{
    if (!good) {
        abort();
    }
}


static inline void
fix_ip(u_char *p, size_t len)
{
    size_t    n;
    uint16_t  sum;

    if (len < 20 || (p[0] >> 4) != 4) {
        return;
    }

    n = ngx_min((size_t) (p[0] & 15) * 4, len);

    p[10] = 0;
    p[11] = 0;

    sum = ~ngx_tun_packet_fold(ngx_tun_packet_sum(p, n, 0));
    ngx_memcpy(p + 10, &sum, 2);
}


/* the sum of TCP at 16, of ICMP at 2 */

static inline void
fix_sum(ngx_tun_packet_t *pkt)
{
    size_t    len, offset;
    uint32_t  sum;
    uint16_t  fold;

    len = pkt->end - pkt->payload;
    offset = (pkt->protocol == IPPROTO_TCP) ? 16 : 2;

    if (len < offset + 2) {
        return;
    }

    ngx_memzero(pkt->payload + offset, 2);

    sum = (pkt->protocol == IPPROTO_ICMP) ? 0
                                          : ngx_tun_packet_pseudo_sum(pkt, len);

    fold = ~ngx_tun_packet_fold(ngx_tun_packet_sum(pkt->payload, len, sum));
    ngx_memcpy(pkt->payload + offset, &fold, 2);
}


#endif /* _SUMS_H_INCLUDED_ */
