
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_fragment_table.h>


/* datagrams dropped at once */
#define NGX_TUN_FRAGMENT_EXPIRE  256


static ngx_tun_fragment_source_t *ngx_tun_fragment_source(
    ngx_tun_fragments_t *frags, ngx_tun_packet_t *pkt);
static ngx_tun_fragment_source_t *ngx_tun_fragment_largest(
    ngx_tun_fragments_t *frags);
static void ngx_tun_fragment_release(ngx_tun_fragments_t *frags,
    ngx_tun_fragment_source_t *source);


ngx_tun_fragment_datagram_t *
ngx_tun_fragment_datagram(ngx_tun_fragments_t *frags, ngx_tun_packet_t *pkt,
    ngx_msec_t now)
{
    uint64_t                      hash;
    ngx_tun_flow_key_t            key;
    ngx_tun_fragment_source_t    *source;
    ngx_tun_fragment_datagram_t  *d;

    ngx_tun_flow_key(&key, pkt, (uint16_t) (pkt->frag_id >> 16),
                     (uint16_t) pkt->frag_id);

    if (pkt->addr_len != 4) {
        /* RFC 8200, 4.5: the next header may differ, the id is for all */
        key.protocol = 0;
    }

    hash = ngx_tun_flow_hash(&frags->table, &key, 0);
    d = (ngx_tun_fragment_datagram_t *)
            ngx_tun_flow_lookup(&frags->table, &key, hash);

    if (d != NULL) {

        if (now - d->created < frags->timeout) {
            return d;
        }

        frags->timed_out++;
        ngx_tun_fragment_delete(frags, d);
    }

    source = ngx_tun_fragment_source(frags, pkt);
    if (source == NULL) {
        return NULL;
    }

    d = ngx_calloc(sizeof(ngx_tun_fragment_datagram_t), frags->log);

    if (d == NULL) {
        ngx_tun_fragment_release(frags, source);
        return NULL;
    }

    d->flow.key = key;
    d->flow.hash = hash;
    d->source = source;
    d->created = now;

    ngx_queue_init(&d->pieces);
    ngx_queue_insert_tail(&frags->queue, &d->queue);
    ngx_queue_insert_tail(&source->datagrams, &d->source_queue);

    ngx_tun_flow_insert(&frags->table, &d->flow);
    ngx_tun_fragment_charge(frags, d, sizeof(ngx_tun_fragment_datagram_t), 1);

    return d;
}


/* of the address its first 8 bytes: all of IPv4, and a /64 */

static ngx_tun_fragment_source_t *
ngx_tun_fragment_source(ngx_tun_fragments_t *frags, ngx_tun_packet_t *pkt)
{
    uint64_t                    hash;
    ngx_tun_flow_key_t          key;
    ngx_tun_fragment_source_t  *source;

    ngx_memzero(&key, sizeof(ngx_tun_flow_key_t));
    ngx_memcpy(key.src, pkt->src, ngx_min(pkt->addr_len, 8));
    key.addr_len = (uint16_t) pkt->addr_len;

    hash = ngx_tun_flow_hash(&frags->sources, &key, 0);
    source = (ngx_tun_fragment_source_t *)
                 ngx_tun_flow_lookup(&frags->sources, &key, hash);

    if (source != NULL) {
        return source;
    }

    source = ngx_calloc(sizeof(ngx_tun_fragment_source_t), frags->log);
    if (source == NULL) {
        return NULL;
    }

    source->flow.key = key;
    source->flow.hash = hash;

    ngx_queue_init(&source->datagrams);
    ngx_queue_insert_tail(&frags->levels[0], &source->queue);

    ngx_tun_flow_insert(&frags->sources, &source->flow);

    return source;
}


ngx_msec_t
ngx_tun_fragment_expire(ngx_tun_fragments_t *frags, ngx_msec_t now)
{
    ngx_uint_t                    n;
    ngx_msec_t                    age;
    ngx_tun_fragment_datagram_t  *d;

    for (n = 0; frags->datagrams != 0; n++) {

        d = ngx_tun_fragment_oldest(frags, NULL);
        age = now - d->created;

        if (age < frags->timeout) {
            return frags->timeout - age;
        }

        if (n == NGX_TUN_FRAGMENT_EXPIRE) {
            return 1;
        }

        frags->timed_out++;
        ngx_tun_fragment_delete(frags, d);
    }

    return 0;
}


ngx_int_t
ngx_tun_fragment_trim(ngx_tun_fragments_t *frags,
    ngx_tun_fragment_datagram_t *d)
{
    ngx_tun_fragment_source_t    *source;
    ngx_tun_fragment_datagram_t  *oldest;

    for ( ;; ) {

        source = d->source;

        if (source->bytes <= frags->max_bytes
            && source->ndatagrams <= frags->max_datagrams)
        {
            if (frags->bytes <= frags->max_bytes * NGX_TUN_FRAGMENT_SOURCES
                && frags->datagrams
                   <= frags->max_datagrams * NGX_TUN_FRAGMENT_SOURCES)
            {
                return NGX_AGAIN;
            }

            source = ngx_tun_fragment_largest(frags);
        }

        oldest = ngx_tun_fragment_oldest(frags, source);

        frags->dropped++;

        if (oldest == d) {
            ngx_tun_fragment_delete(frags, d);
            return NGX_DECLINED;
        }

        ngx_tun_fragment_delete(frags, oldest);
    }
}


/* at least half as much as any other source holds */

static ngx_tun_fragment_source_t *
ngx_tun_fragment_largest(ngx_tun_fragments_t *frags)
{
    ngx_uint_t    i;
    ngx_queue_t  *q;

    i = NGX_TUN_FRAGMENT_LEVELS - 1;

    while (ngx_queue_empty(&frags->levels[i])) {
        i--;
    }

    q = ngx_queue_head(&frags->levels[i]);

    return ngx_queue_data(q, ngx_tun_fragment_source_t, queue);
}


ngx_tun_fragment_datagram_t *
ngx_tun_fragment_oldest(ngx_tun_fragments_t *frags,
    ngx_tun_fragment_source_t *source)
{
    ngx_queue_t  *q;

    if (source == NULL) {
        q = ngx_queue_head(&frags->queue);
        return ngx_queue_data(q, ngx_tun_fragment_datagram_t, queue);
    }

    q = ngx_queue_head(&source->datagrams);

    return ngx_queue_data(q, ngx_tun_fragment_datagram_t, source_queue);
}


void
ngx_tun_fragment_kill(ngx_tun_fragments_t *frags,
    ngx_tun_fragment_datagram_t *d)
{
    size_t                     freed;
    ngx_queue_t               *q;
    ngx_tun_fragment_piece_t  *piece;

    freed = 0;

    while (!ngx_queue_empty(&d->pieces)) {
        q = ngx_queue_head(&d->pieces);
        piece = ngx_queue_data(q, ngx_tun_fragment_piece_t, queue);

        freed += sizeof(ngx_tun_fragment_piece_t) + piece->header_len
                 + piece->len;

        ngx_queue_remove(q);
        ngx_free(piece);
    }

    d->dead = 1;

    ngx_tun_fragment_charge(frags, d, -(ssize_t) freed, 0);
}


void
ngx_tun_fragment_delete(ngx_tun_fragments_t *frags,
    ngx_tun_fragment_datagram_t *d)
{
    ngx_tun_fragment_source_t  *source;

    ngx_tun_fragment_kill(frags, d);
    ngx_tun_fragment_charge(frags, d,
                            -(ssize_t) sizeof(ngx_tun_fragment_datagram_t),
                            -1);

    ngx_tun_flow_delete(&frags->table, &d->flow);

    ngx_queue_remove(&d->queue);
    ngx_queue_remove(&d->source_queue);

    source = d->source;

    ngx_free(d);

    ngx_tun_fragment_release(frags, source);
}


static void
ngx_tun_fragment_release(ngx_tun_fragments_t *frags,
    ngx_tun_fragment_source_t *source)
{
    if (source->ndatagrams != 0) {
        return;
    }

    ngx_queue_remove(&source->queue);
    ngx_tun_flow_delete(&frags->sources, &source->flow);

    ngx_free(source);
}


void
ngx_tun_fragment_charge(ngx_tun_fragments_t *frags,
    ngx_tun_fragment_datagram_t *d, ssize_t bytes, ngx_int_t n)
{
    size_t                      weight;
    ngx_uint_t                  level;
    ngx_tun_fragment_source_t  *source;

    source = d->source;

    source->bytes += bytes;
    source->ndatagrams += n;

    frags->bytes += bytes;
    frags->datagrams += n;

    /* a datagram is as much as its part of the bytes */

    weight = source->bytes
             + source->ndatagrams * (frags->max_bytes / frags->max_datagrams);

    for (level = 0;
         weight > 1 && level < NGX_TUN_FRAGMENT_LEVELS - 1;
         level++)
    {
        weight >>= 1;
    }

    if (level != source->level) {
        ngx_queue_remove(&source->queue);
        ngx_queue_insert_tail(&frags->levels[level], &source->queue);
        source->level = level;
    }
}
