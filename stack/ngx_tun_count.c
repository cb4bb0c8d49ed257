
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>


static void ngx_tun_count_gauges(ngx_tun_t *tun, ngx_tun_gauges_t *gauges);
static void ngx_tun_count_gauge(ngx_atomic_t *value, ngx_uint_t *shown,
    ngx_uint_t now);


void
ngx_tun_count_read(ngx_tun_t *tun, ngx_uint_t packets, size_t bytes)
{
    ngx_uint_t  i;

    static const ngx_uint_t  least[NGX_TUN_READS] = { 1, 2, 8, 32, 64 };

    i = NGX_TUN_READS - 1;

    while (i > 0 && packets < least[i]) {
        i--;
    }

    (void) ngx_atomic_fetch_add(&tun->stat->packets_in, packets);
    (void) ngx_atomic_fetch_add(&tun->stat->bytes_in, bytes);
    (void) ngx_atomic_fetch_add(&tun->stat->reads[i], 1);
}


void
ngx_tun_count(ngx_tun_t *tun)
{
    uint32_t           n;
    ngx_tun_queue_t   *queue;
    ngx_tun_gauges_t   gauges;

    ngx_tun_count_fragments(tun);

    queue = &tun->queue;

    if (queue->packets != 0) {
        (void) ngx_atomic_fetch_add(&tun->stat->packets_out, queue->packets);
        (void) ngx_atomic_fetch_add(&tun->stat->bytes_out, queue->bytes);

        queue->packets = 0;
        queue->bytes = 0;
    }

    if (queue->errors != 0) {
        (void) ngx_atomic_fetch_add(&tun->stat->write_errors, queue->errors);
        queue->errors = 0;
    }

    n = ngx_tun_lwip_retransmits(tun->lwip);

    if (n != 0) {
        (void) ngx_atomic_fetch_add(&tun->stat->retransmits, n);
    }

    gauges.pending = tun->limits.pending;
    gauges.half_open = tun->limits.half_open;
    gauges.reassembling = tun->fragments.datagrams;

    ngx_tun_count_gauges(tun, &gauges);
}


void
ngx_tun_count_fragments(ngx_tun_t *tun)
{
    ngx_uint_t             i, *n[NGX_TUN_FRAGMENT_DROP_N];
    ngx_tun_stat_t        *stat;
    ngx_tun_fragments_t   *frags;

    stat = tun->stat;
    frags = &tun->fragments;

    if (frags->reassembled != 0) {
        (void) ngx_atomic_fetch_add(&stat->reassembled, frags->reassembled);
        frags->reassembled = 0;
    }

    ngx_tun_count_gauge(&stat->reassembling, &tun->shown.reassembling,
                        frags->datagrams);

    n[NGX_TUN_FRAGMENT_DROP_LIMIT] = &frags->dropped;
    n[NGX_TUN_FRAGMENT_DROP_TIMEOUT] = &frags->timed_out;
    n[NGX_TUN_FRAGMENT_DROP_OVERLAP] = &frags->overlapping;
    n[NGX_TUN_FRAGMENT_DROP_INVALID] = &frags->invalid;

    for (i = 0; i < NGX_TUN_FRAGMENT_DROP_N; i++) {
        if (*n[i] != 0) {
            (void) ngx_atomic_fetch_add(&stat->fragments[i], *n[i]);
            *n[i] = 0;
        }
    }
}


void
ngx_tun_count_done(ngx_tun_t *tun)
{
    ngx_tun_gauges_t  gauges;

    ngx_memzero(&gauges, sizeof(ngx_tun_gauges_t));

    ngx_tun_count_gauges(tun, &gauges);
}


/* by differences, as a worker of an earlier cycle has the same counters */

static void
ngx_tun_count_gauges(ngx_tun_t *tun, ngx_tun_gauges_t *gauges)
{
    ngx_tun_stat_t    *stat;
    ngx_tun_gauges_t  *shown;

    stat = tun->stat;
    shown = &tun->shown;

    ngx_tun_count_gauge(&stat->pending, &shown->pending, gauges->pending);
    ngx_tun_count_gauge(&stat->half_open, &shown->half_open,
                        gauges->half_open);
    ngx_tun_count_gauge(&stat->reassembling, &shown->reassembling,
                        gauges->reassembling);
}


static void
ngx_tun_count_gauge(ngx_atomic_t *value, ngx_uint_t *shown, ngx_uint_t now)
{
    if (now != *shown) {
        (void) ngx_atomic_fetch_add(value, now - *shown);
        *shown = now;
    }
}
