
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_dns_forward.h>


/* an answer that is kept */

typedef struct {
    ngx_queue_t                queue;      /* in a bucket */
    ngx_queue_t                lru;
    uint64_t                   hash;
    ngx_tun_dns_query_t        query;
    ngx_msec_t                 stored;
    uint32_t                   ttl;
    size_t                     len;
    u_char                     data[];
} ngx_tun_dns_kept_t;


static ngx_tun_dns_kept_t *ngx_tun_dns_find_kept(ngx_tun_dns_forwarder_t *fwd,
    ngx_tun_dns_query_t *query, uint64_t hash);
static void ngx_tun_dns_forget(ngx_tun_dns_forwarder_t *fwd,
    ngx_tun_dns_kept_t *kept);


#define ngx_tun_dns_kept_age(kept)                                            \
    (uint32_t) ((ngx_msec_t) (ngx_current_msec - (kept)->stored) / 1000)


uint64_t
ngx_tun_dns_hash(ngx_tun_dns_forwarder_t *fwd, ngx_tun_dns_query_t *query)
{
    u_char  *p, data[NGX_TUN_DNS_NAME_MAX + 4];

    p = ngx_cpymem(data, query->name, query->len);
    p = ngx_tun_dns_put16(p, query->type);
    *p++ = (u_char) (query->flags & NGX_TUN_DNS_CD);
    *p++ = (u_char) query->dnssec_ok;

    return ngx_tun_fakeip_hash(fwd->key, data, p - data);
}


ngx_uint_t
ngx_tun_dns_same(ngx_tun_dns_query_t *one, ngx_tun_dns_query_t *two)
{
    return one->len == two->len
           && one->type == two->type
           && one->dnssec_ok == two->dnssec_ok
           && ((one->flags ^ two->flags) & NGX_TUN_DNS_CD) == 0
           && ngx_memcmp(one->name, two->name, one->len) == 0;
}


ngx_int_t
ngx_tun_dns_recall(ngx_tun_dns_forwarder_t *fwd, ngx_tun_dns_query_t *query,
    u_char **p, size_t *len, uint32_t *age)
{
    ngx_tun_dns_kept_t  *kept;

    if (fwd->max_size == 0) {
        return NGX_DECLINED;
    }

    kept = ngx_tun_dns_find_kept(fwd, query, ngx_tun_dns_hash(fwd, query));

    if (kept == NULL) {
        return NGX_DECLINED;
    }

    *age = ngx_tun_dns_kept_age(kept);

    if (*age >= kept->ttl) {
        ngx_tun_dns_forget(fwd, kept);
        return NGX_DECLINED;
    }

    ngx_queue_remove(&kept->lru);
    ngx_queue_insert_head(&fwd->lru, &kept->lru);

    *p = kept->data;
    *len = kept->len;

    return NGX_OK;
}


static ngx_tun_dns_kept_t *
ngx_tun_dns_find_kept(ngx_tun_dns_forwarder_t *fwd, ngx_tun_dns_query_t *query,
    uint64_t hash)
{
    ngx_queue_t         *q, *bucket;
    ngx_tun_dns_kept_t  *kept;

    bucket = &fwd->kept[hash % NGX_TUN_DNS_BUCKETS];

    for (q = ngx_queue_head(bucket);
         q != ngx_queue_sentinel(bucket);
         q = ngx_queue_next(q))
    {
        kept = ngx_queue_data(q, ngx_tun_dns_kept_t, queue);

        if (kept->hash == hash && ngx_tun_dns_same(&kept->query, query)) {
            return kept;
        }
    }

    return NULL;
}


void
ngx_tun_dns_keep(ngx_tun_dns_forwarder_t *fwd, ngx_tun_dns_query_t *query,
    u_char *p, size_t len, uint32_t ttl)
{
    size_t               size;
    uint64_t             hash;
    ngx_queue_t         *q;
    ngx_tun_dns_kept_t  *kept;

    size = sizeof(ngx_tun_dns_kept_t) + len;

    /* none that would drive out most of the others */

    if (ttl == 0 || size > fwd->max_size / 8) {
        return;
    }

    hash = ngx_tun_dns_hash(fwd, query);
    kept = ngx_tun_dns_find_kept(fwd, query, hash);

    if (kept != NULL) {
        ngx_tun_dns_forget(fwd, kept);
    }

    while (fwd->size + size > fwd->max_size) {
        q = ngx_queue_last(&fwd->lru);
        kept = ngx_queue_data(q, ngx_tun_dns_kept_t, lru);
        ngx_tun_dns_forget(fwd, kept);
    }

    kept = ngx_alloc(size, fwd->log);
    if (kept == NULL) {
        return;
    }

    kept->hash = hash;
    kept->query = *query;
    kept->stored = ngx_current_msec;
    kept->ttl = ttl;
    kept->len = len;
    ngx_memcpy(kept->data, p, len);

    fwd->size += size;

    ngx_queue_insert_head(&fwd->kept[hash % NGX_TUN_DNS_BUCKETS],
                          &kept->queue);
    ngx_queue_insert_head(&fwd->lru, &kept->lru);
}


static void
ngx_tun_dns_forget(ngx_tun_dns_forwarder_t *fwd, ngx_tun_dns_kept_t *kept)
{
    ngx_queue_remove(&kept->queue);
    ngx_queue_remove(&kept->lru);

    fwd->size -= sizeof(ngx_tun_dns_kept_t) + kept->len;

    ngx_free(kept);
}
