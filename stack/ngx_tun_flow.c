
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_flow.h>

#include <sys/random.h>


#define NGX_TUN_FLOW_BUCKETS  1024


#define ngx_tun_flow_rotl(x, n)  (((x) << (n)) | ((x) >> (64 - (n))))

#define ngx_tun_flow_sip_round(v)                                             \
                                                                              \
    v[0] += v[1];                                                             \
    v[1] = ngx_tun_flow_rotl(v[1], 13) ^ v[0];                                \
    v[0] = ngx_tun_flow_rotl(v[0], 32);                                       \
    v[2] += v[3];                                                             \
    v[3] = ngx_tun_flow_rotl(v[3], 16) ^ v[2];                                \
    v[0] += v[3];                                                             \
    v[3] = ngx_tun_flow_rotl(v[3], 21) ^ v[0];                                \
    v[2] += v[1];                                                             \
    v[1] = ngx_tun_flow_rotl(v[1], 17) ^ v[2];                                \
    v[2] = ngx_tun_flow_rotl(v[2], 32)


static void ngx_tun_flow_grow(ngx_tun_flow_table_t *table);


ngx_int_t
ngx_tun_flow_table_init(ngx_tun_flow_table_t *table, ngx_log_t *log)
{
    if (getrandom(table->secret, sizeof(table->secret), GRND_NONBLOCK)
        != sizeof(table->secret))
    {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno, "getrandom() failed");
        return NGX_ERROR;
    }

    table->log = log;
    table->nflows = 0;
    table->nbuckets = NGX_TUN_FLOW_BUCKETS;

    table->buckets = ngx_calloc(table->nbuckets * sizeof(ngx_tun_flow_t *),
                                log);
    if (table->buckets == NULL) {
        return NGX_ERROR;
    }

    return NGX_OK;
}


void
ngx_tun_flow_table_done(ngx_tun_flow_table_t *table)
{
    ngx_free(table->buckets);
    table->buckets = NULL;
}


void
ngx_tun_flow_key(ngx_tun_flow_key_t *key, ngx_tun_packet_t *pkt,
    uint16_t src_port, uint16_t dst_port)
{
    ngx_memzero(key, sizeof(ngx_tun_flow_key_t));

    ngx_memcpy(key->src, pkt->src, pkt->addr_len);
    ngx_memcpy(key->dst, pkt->dst, pkt->addr_len);

    key->src_port = src_port;
    key->dst_port = dst_port;
    key->protocol = pkt->protocol;
    key->addr_len = (uint16_t) pkt->addr_len;
}


void
ngx_tun_flow_reverse(ngx_tun_flow_key_t *key, ngx_tun_flow_key_t *to)
{
    *to = *key;

    ngx_memcpy(to->src, key->dst, 16);
    ngx_memcpy(to->dst, key->src, 16);

    to->src_port = key->dst_port;
    to->dst_port = key->src_port;
}


uint64_t
ngx_tun_flow_hash(ngx_tun_flow_table_t *table, ngx_tun_flow_key_t *key,
    uint64_t domain)
{
    uint64_t    m, v[4];
    ngx_uint_t  i;

    v[0] = table->secret[0] ^ domain ^ 0x736f6d6570736575;
    v[1] = table->secret[1] ^ 0x646f72616e646f6d;
    v[2] = table->secret[0] ^ domain ^ 0x6c7967656e657261;
    v[3] = table->secret[1] ^ 0x7465646279746573;

    for (i = 0; i < sizeof(ngx_tun_flow_key_t); i += sizeof(uint64_t)) {
        ngx_memcpy(&m, (u_char *) key + i, sizeof(uint64_t));

        v[3] ^= m;
        ngx_tun_flow_sip_round(v);
        ngx_tun_flow_sip_round(v);
        v[0] ^= m;
    }

    m = (uint64_t) sizeof(ngx_tun_flow_key_t) << 56;

    v[3] ^= m;
    ngx_tun_flow_sip_round(v);
    ngx_tun_flow_sip_round(v);
    v[0] ^= m;

    v[2] ^= 0xff;

    for (i = 0; i < 4; i++) {
        ngx_tun_flow_sip_round(v);
    }

    return v[0] ^ v[1] ^ v[2] ^ v[3];
}


ngx_tun_flow_t *
ngx_tun_flow_lookup(ngx_tun_flow_table_t *table, ngx_tun_flow_key_t *key,
    uint64_t hash)
{
    ngx_tun_flow_t  *flow;

    flow = table->buckets[hash & (table->nbuckets - 1)];

    while (flow != NULL) {

        if (flow->hash == hash
            && ngx_memcmp(&flow->key, key, sizeof(ngx_tun_flow_key_t)) == 0)
        {
            return flow;
        }

        flow = flow->next;
    }

    return NULL;
}


void
ngx_tun_flow_insert(ngx_tun_flow_table_t *table, ngx_tun_flow_t *flow)
{
    ngx_tun_flow_t  **bucket;

    if (table->nflows == table->nbuckets) {
        ngx_tun_flow_grow(table);
    }

    bucket = &table->buckets[flow->hash & (table->nbuckets - 1)];

    flow->next = *bucket;
    *bucket = flow;

    table->nflows++;
}


void
ngx_tun_flow_delete(ngx_tun_flow_table_t *table, ngx_tun_flow_t *flow)
{
    ngx_tun_flow_t  **p;

    p = &table->buckets[flow->hash & (table->nbuckets - 1)];

    while (*p != flow) {
        p = &(*p)->next;
    }

    *p = flow->next;

    table->nflows--;
}


static void
ngx_tun_flow_grow(ngx_tun_flow_table_t *table)
{
    ngx_uint_t        i, n;
    ngx_tun_flow_t   *flow, *next, **buckets, **bucket;

    n = table->nbuckets * 2;

    buckets = ngx_calloc(n * sizeof(ngx_tun_flow_t *), table->log);
    if (buckets == NULL) {
        /* longer chains are better than no flow */
        return;
    }

    for (i = 0; i < table->nbuckets; i++) {
        for (flow = table->buckets[i]; flow != NULL; flow = next) {
            next = flow->next;
            bucket = &buckets[flow->hash & (n - 1)];
            flow->next = *bucket;
            *bucket = flow;
        }
    }

    ngx_free(table->buckets);

    table->buckets = buckets;
    table->nbuckets = n;
}
