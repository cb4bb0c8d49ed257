
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>


static void ngx_tun_count_gauges(ngx_tun_t *tun, ngx_uint_t pending,
    ngx_uint_t half_open, ngx_uint_t reassembling);
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

    ngx_tun_count_gauges(tun, tun->limits.pending, tun->limits.half_open,
                         tun->fragments.datagrams);
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

    ngx_tun_count_gauge(&stat->reassembling, &tun->gauge->reassembling,
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
    ngx_tun_count_gauges(tun, 0, 0, 0);
}


/* by differences, as a worker of an earlier cycle has the same counters */

static void
ngx_tun_count_gauges(ngx_tun_t *tun, ngx_uint_t pending, ngx_uint_t half_open,
    ngx_uint_t reassembling)
{
    ngx_tun_stat_t   *stat;
    ngx_tun_gauge_t  *gauge;

    stat = tun->stat;
    gauge = tun->gauge;

    ngx_tun_count_gauge(&stat->pending, &gauge->pending, pending);
    ngx_tun_count_gauge(&stat->half_open, &gauge->half_open, half_open);
    ngx_tun_count_gauge(&stat->reassembling, &gauge->reassembling,
                        reassembling);
}


static void
ngx_tun_count_gauge(ngx_atomic_t *value, ngx_uint_t *shown, ngx_uint_t now)
{
    if (now != *shown) {
        (void) ngx_atomic_fetch_add(value, now - *shown);
        *shown = now;
    }
}
