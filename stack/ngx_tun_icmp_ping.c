
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_icmp_ping.h>


#define NGX_TUN_PING_IDS  4              /* for each ping, or more */


static ngx_tun_ping_t *ngx_tun_ping_new(ngx_tun_pings_t *pings);
static void ngx_tun_ping_window(ngx_tun_ping_t *ping, uint16_t seq);


ngx_int_t
ngx_tun_pings_init(ngx_tun_pings_t *pings, ngx_uint_t part, ngx_uint_t parts,
    ngx_log_t *log)
{
    ngx_queue_init(&pings->queue);

    pings->nids = ngx_max(65536 / parts, 1);
    pings->first = part * pings->nids;

    /* each has several, so that a late answer finds nobody else */

    pings->max = ngx_max(pings->nids / NGX_TUN_PING_IDS, 1);
    pings->max = ngx_min(pings->max, NGX_TUN_PING_MAX);

    if (ngx_tun_flow_table_init(&pings->table, log) != NGX_OK) {
        return NGX_ERROR;
    }

    pings->shift = pings->table.secret[0] % pings->max;

    pings->pings = ngx_alloc(pings->max * sizeof(ngx_tun_ping_t), log);

    return (pings->pings != NULL) ? NGX_OK : NGX_ERROR;
}


void
ngx_tun_pings_done(ngx_tun_pings_t *pings)
{
    if (pings->table.buckets != NULL) {
        ngx_tun_flow_table_done(&pings->table);
    }

    if (pings->pings != NULL) {
        ngx_free(pings->pings);
    }
}


ngx_tun_ping_t *
ngx_tun_ping_sent(ngx_tun_pings_t *pings, ngx_tun_packet_t *pkt,
    ngx_tun_packet_icmp_t *icmp)
{
    uint64_t             hash;
    ngx_tun_ping_t      *ping;
    ngx_tun_flow_key_t   key;

    ngx_tun_flow_key(&key, pkt, icmp->id, 0);
    hash = ngx_tun_flow_hash(&pings->table, &key, 0);

    ping = (ngx_tun_ping_t *) ngx_tun_flow_lookup(&pings->table, &key, hash);

    if (ping == NULL) {
        ping = ngx_tun_ping_new(pings);

        ping->flow.key = key;
        ping->flow.hash = hash;

        ngx_tun_flow_insert(&pings->table, &ping->flow);

    } else {
        ngx_queue_remove(&ping->queue);
    }

    ngx_queue_insert_tail(&pings->queue, &ping->queue);
    ping->used = ngx_current_msec;

    ngx_tun_ping_window(ping, icmp->seq);

    return ping;
}


/* one that was never used, or the oldest, which gets another identifier */

static ngx_tun_ping_t *
ngx_tun_ping_new(ngx_tun_pings_t *pings)
{
    ngx_uint_t       n, id;
    ngx_queue_t     *q;
    ngx_tun_ping_t  *ping;

    if (pings->npings < pings->max) {
        ping = &pings->pings[pings->npings++];
        id = (ngx_uint_t) ngx_random() % (pings->nids / pings->max);

    } else {
        q = ngx_queue_head(&pings->queue);
        ping = ngx_queue_data(q, ngx_tun_ping_t, queue);

        ngx_queue_remove(q);
        ngx_tun_flow_delete(&pings->table, &ping->flow);

        id = (ping->id - pings->first) / pings->max + 1;
    }

    n = (ping - pings->pings + pings->shift) % pings->max;
    id %= pings->nids / pings->max;

    ping->id = (uint16_t) (pings->first + id * pings->max + n);
    ping->window = 0;

    return ping;
}


static void
ngx_tun_ping_window(ngx_tun_ping_t *ping, uint16_t seq)
{
    ngx_int_t  ahead;

    ahead = (int16_t) (seq - ping->seq);

    if (ping->window == 0
        || ahead >= NGX_TUN_PING_WINDOW
        || -ahead >= NGX_TUN_PING_WINDOW)
    {
        ping->seq = seq;
        ping->window = 1;

    } else if (ahead > 0) {
        ping->seq = seq;
        ping->window = (uint16_t) ngx_min(ping->window + ahead,
                                          NGX_TUN_PING_WINDOW);

    } else if (-ahead >= ping->window) {
        ping->window = (uint16_t) (1 - ahead);
    }
}


ngx_tun_ping_t *
ngx_tun_ping_lookup(ngx_tun_pings_t *pings, ngx_tun_packet_icmp_t *icmp,
    u_char *target, size_t addr_len)
{
    ngx_uint_t       n;
    ngx_tun_ping_t  *ping;

    if (icmp->id < pings->first || icmp->id >= pings->first + pings->nids) {
        return NULL;
    }

    n = (icmp->id - pings->first + pings->max - pings->shift) % pings->max;

    if (n >= pings->npings) {
        return NULL;
    }

    ping = &pings->pings[n];

    if (ping->id != icmp->id
        || ping->flow.key.addr_len != addr_len
        || ngx_memcmp(ping->flow.key.dst, target, addr_len) != 0
        || (uint16_t) (ping->seq - icmp->seq) >= ping->window
        || ngx_current_msec - ping->used > NGX_TUN_PING_IDLE)
    {
        return NULL;
    }

    return ping;
}
