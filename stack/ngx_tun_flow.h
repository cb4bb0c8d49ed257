
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_FLOW_H_INCLUDED_
#define _NGX_TUN_FLOW_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_packet.h>


/* the key of a flow: compared as bytes, so it has no holes and is zeroed */

typedef struct {
    u_char                  src[16];     /* of the client */
    u_char                  dst[16];
    uint16_t                src_port;    /* host order */
    uint16_t                dst_port;
    uint16_t                protocol;
    uint16_t                addr_len;
} ngx_tun_flow_key_t;


typedef struct ngx_tun_flow_s  ngx_tun_flow_t;

/* the first member of every kind of flow */

struct ngx_tun_flow_s {
    ngx_tun_flow_t         *next;        /* in the bucket */
    uint64_t                hash;
    ngx_tun_flow_key_t      key;
};


typedef struct {
    ngx_tun_flow_t        **buckets;
    ngx_uint_t              nbuckets;    /* a power of 2 */
    ngx_uint_t              nflows;
    uint64_t                secret[2];   /* nobody can aim at a bucket */
    ngx_log_t              *log;
} ngx_tun_flow_table_t;


/* NGX_OK, or NGX_ERROR without memory or random bytes. */
ngx_int_t ngx_tun_flow_table_init(ngx_tun_flow_table_t *table, ngx_log_t *log);

/* Hashes as all tables with that secret, while there is no flow. */
#define ngx_tun_flow_table_share(table, from)                                 \
    ngx_memcpy((table)->secret, from, sizeof((table)->secret))

/* The flows themselves belong to the caller. */
void ngx_tun_flow_table_done(ngx_tun_flow_table_t *table);

void ngx_tun_flow_key(ngx_tun_flow_key_t *key, ngx_tun_packet_t *pkt,
    uint16_t src_port, uint16_t dst_port);

/* The key of the other direction. */
void ngx_tun_flow_reverse(ngx_tun_flow_key_t *key, ngx_tun_flow_key_t *to);

/* SipHash-2-4 of the key by the table's secret, or by another domain of it. */
uint64_t ngx_tun_flow_hash(ngx_tun_flow_table_t *table,
    ngx_tun_flow_key_t *key, uint64_t domain);

ngx_tun_flow_t *ngx_tun_flow_lookup(ngx_tun_flow_table_t *table,
    ngx_tun_flow_key_t *key, uint64_t hash);

/* flow->key and flow->hash are set, and the key is not in the table. */
void ngx_tun_flow_insert(ngx_tun_flow_table_t *table, ngx_tun_flow_t *flow);

/* flow is in the table. */
void ngx_tun_flow_delete(ngx_tun_flow_table_t *table, ngx_tun_flow_t *flow);


#endif /* _NGX_TUN_FLOW_H_INCLUDED_ */
