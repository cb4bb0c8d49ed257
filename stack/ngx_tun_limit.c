
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_limit.h>


#define NGX_TUN_LIMIT_BUCKETS  8192

/* sessions that wait for one source */
#define NGX_TUN_LIMIT_SOURCE   64


static ngx_tun_source_t *ngx_tun_limit_source(ngx_tun_limits_t *limits,
    ngx_tun_flow_key_t *key, ngx_log_t *log);
static ngx_tun_source_t **ngx_tun_limit_bucket(ngx_tun_limits_t *limits,
    uint64_t addr);
static void ngx_tun_limit_put(ngx_tun_limits_t *limits,
    ngx_tun_source_t *source);
static void ngx_tun_limit_level(ngx_tun_limits_t *limits,
    ngx_tun_source_t *source, ngx_uint_t n);


static char  *ngx_tun_limit_reasons[] = {
    "max_flows reached",
    "max_pending reached",
    "max_half_open reached",
    "max_udp_flows reached",
    "max_memory reached",
    "worker_connections are not enough",
    "worker_rlimit_nofile is not enough",
    "no tuple for another connection"
};


ngx_int_t
ngx_tun_limits_init(ngx_tun_limits_t *limits, uint64_t secret, ngx_log_t *log)
{
    ngx_uint_t  i;

    limits->secret = secret;

    limits->buckets = ngx_calloc(NGX_TUN_LIMIT_BUCKETS
                                 * sizeof(ngx_tun_source_t *), log);
    if (limits->buckets == NULL) {
        return NGX_ERROR;
    }

    limits->levels = ngx_alloc((limits->max_half_open + 1)
                               * sizeof(ngx_queue_t), log);
    if (limits->levels == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i <= limits->max_half_open; i++) {
        ngx_queue_init(&limits->levels[i]);
    }

    ngx_queue_init(&limits->udp);

    return NGX_OK;
}


void
ngx_tun_limits_done(ngx_tun_limits_t *limits)
{
    ngx_uint_t         i;
    ngx_tun_source_t  *source;

    if (limits->buckets != NULL) {

        for (i = 0; i < NGX_TUN_LIMIT_BUCKETS; i++) {
            while (limits->buckets[i] != NULL) {
                source = limits->buckets[i];
                limits->buckets[i] = source->next;
                ngx_free(source);
            }
        }

        ngx_free(limits->buckets);
    }

    if (limits->levels != NULL) {
        ngx_free(limits->levels);
    }
}


ngx_int_t
ngx_tun_limit_pend(ngx_tun_limits_t *limits, ngx_tun_claim_t *claim,
    ngx_tun_flow_key_t *key, ngx_log_t *log)
{
    ngx_tun_source_t  *source;

    if (limits->pending >= limits->max_pending) {
        return NGX_DECLINED;
    }

    source = ngx_tun_limit_source(limits, key, log);

    if (source == NULL) {
        return NGX_DECLINED;
    }

    if (source->pending >= NGX_TUN_LIMIT_SOURCE) {
        return NGX_DECLINED;
    }

    limits->pending++;
    source->pending++;

    claim->source = source;
    claim->pending = 1;

    return NGX_OK;
}


ngx_int_t
ngx_tun_limit_half_open(ngx_tun_limits_t *limits, ngx_tun_claim_t *claim,
    ngx_tun_flow_key_t *key, ngx_log_t *log)
{
    ngx_tun_source_t  *source;

    if (limits->half_open >= limits->max_half_open) {
        return NGX_BUSY;
    }

    source = ngx_tun_limit_source(limits, key, log);

    if (source == NULL) {
        return NGX_ERROR;
    }

    claim->source = source;
    claim->half_open = 1;

    ngx_queue_insert_tail(&source->flows, &claim->queue);

    limits->half_open++;
    ngx_tun_limit_level(limits, source, source->half_open + 1);

    return NGX_OK;
}


ngx_tun_claim_t *
ngx_tun_limit_oldest(ngx_tun_limits_t *limits)
{
    ngx_queue_t       *q;
    ngx_tun_source_t  *source;

    q = ngx_queue_head(&limits->levels[limits->top]);
    source = ngx_queue_data(q, ngx_tun_source_t, queue);

    q = ngx_queue_head(&source->flows);

    return ngx_queue_data(q, ngx_tun_claim_t, queue);
}


ngx_int_t
ngx_tun_limit_udp(ngx_tun_limits_t *limits, ngx_tun_claim_t *claim,
    ngx_tun_flow_key_t *key, ngx_tun_claim_t **oldest, ngx_log_t *log)
{
    ngx_tun_source_t  *source;

    source = ngx_tun_limit_source(limits, key, log);

    if (source == NULL) {
        return NGX_ERROR;
    }

    if (source->udp_flows >= limits->max_udp_source_flows) {
        *oldest = ngx_queue_data(ngx_queue_head(&source->udp),
                                 ngx_tun_claim_t, queue);
        return NGX_BUSY;
    }

    if (limits->udp_flows >= limits->max_udp_flows) {
        ngx_tun_limit_put(limits, source);

        *oldest = ngx_queue_data(ngx_queue_head(&limits->udp),
                                 ngx_tun_claim_t, all);
        return NGX_BUSY;
    }

    claim->source = source;
    claim->udp = 1;

    ngx_queue_insert_tail(&source->udp, &claim->queue);
    ngx_queue_insert_tail(&limits->udp, &claim->all);

    limits->udp_flows++;
    source->udp_flows++;

    return NGX_OK;
}


void
ngx_tun_limit_move(ngx_tun_claim_t *to, ngx_tun_claim_t *from)
{
    *to = *from;

    ngx_queue_insert_head(&from->queue, &to->queue);
    ngx_queue_remove(&from->queue);

    ngx_queue_insert_head(&from->all, &to->all);
    ngx_queue_remove(&from->all);

    ngx_memzero(from, sizeof(ngx_tun_claim_t));
}


void
ngx_tun_limit_udp_used(ngx_tun_limits_t *limits, ngx_tun_claim_t *claim)
{
    ngx_queue_remove(&claim->queue);
    ngx_queue_remove(&claim->all);

    ngx_queue_insert_tail(&claim->source->udp, &claim->queue);
    ngx_queue_insert_tail(&limits->udp, &claim->all);
}


void
ngx_tun_limit_release(ngx_tun_limits_t *limits, ngx_tun_claim_t *claim)
{
    ngx_tun_source_t  *source;

    source = claim->source;

    if (claim->pending) {
        limits->pending--;
        source->pending--;

    } else if (claim->half_open) {
        ngx_queue_remove(&claim->queue);

        limits->half_open--;
        ngx_tun_limit_level(limits, source, source->half_open - 1);

    } else if (claim->udp) {
        ngx_queue_remove(&claim->queue);
        ngx_queue_remove(&claim->all);

        limits->udp_flows--;
        source->udp_flows--;

    } else {
        return;
    }

    claim->pending = 0;
    claim->half_open = 0;
    claim->udp = 0;
    claim->source = NULL;

    ngx_tun_limit_put(limits, source);
}


void
ngx_tun_limit_log(ngx_tun_limits_t *limits, ngx_tun_limit_e reason,
    ngx_str_t *name, ngx_log_t *log)
{
    limits->unlogged[reason]++;

    if (limits->logged[reason] == ngx_time()) {
        return;
    }

    ngx_log_error(NGX_LOG_WARN, log, 0, "tun \"%V\": %s, %ui since the last "
                  "line", name, ngx_tun_limit_reasons[reason],
                  limits->unlogged[reason]);

    limits->logged[reason] = ngx_time();
    limits->unlogged[reason] = 0;
}


/* of the address its first 8 bytes: all of IPv4, and a /64 */

static ngx_tun_source_t *
ngx_tun_limit_source(ngx_tun_limits_t *limits, ngx_tun_flow_key_t *key,
    ngx_log_t *log)
{
    uint64_t            addr;
    ngx_tun_source_t   *source, **bucket;

    ngx_memcpy(&addr, key->src, sizeof(uint64_t));

    bucket = ngx_tun_limit_bucket(limits, addr);

    for (source = *bucket; source != NULL; source = source->next) {
        if (source->addr == addr) {
            return source;
        }
    }

    source = ngx_calloc(sizeof(ngx_tun_source_t), log);
    if (source == NULL) {
        return NULL;
    }

    source->addr = addr;
    source->next = *bucket;
    *bucket = source;

    ngx_queue_init(&source->flows);
    ngx_queue_init(&source->udp);

    return source;
}


static ngx_tun_source_t **
ngx_tun_limit_bucket(ngx_tun_limits_t *limits, uint64_t addr)
{
    /* multiplication by a secret, from the high bits: universal enough */

    addr = (addr ^ (addr >> 32)) * (limits->secret | 1);

    return &limits->buckets[(addr >> 40) % NGX_TUN_LIMIT_BUCKETS];
}


static void
ngx_tun_limit_put(ngx_tun_limits_t *limits, ngx_tun_source_t *source)
{
    ngx_tun_source_t  **p;

    if (source->pending != 0
        || source->half_open != 0
        || source->udp_flows != 0)
    {
        return;
    }

    p = ngx_tun_limit_bucket(limits, source->addr);

    while (*p != source) {
        p = &(*p)->next;
    }

    *p = source->next;

    ngx_free(source);
}


static void
ngx_tun_limit_level(ngx_tun_limits_t *limits, ngx_tun_source_t *source,
    ngx_uint_t n)
{
    if (source->half_open != 0) {
        ngx_queue_remove(&source->queue);
    }

    source->half_open = n;

    if (n != 0) {
        ngx_queue_insert_tail(&limits->levels[n], &source->queue);
    }

    if (n > limits->top) {
        limits->top = n;
    }

    while (limits->top != 0 && ngx_queue_empty(&limits->levels[limits->top])) {
        limits->top--;
    }
}
