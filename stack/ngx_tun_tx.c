
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_tx.h>


/* a flow that has sent so little stays with small chunks */
#define NGX_TUN_TX_SMALL_TOTAL  8192


static const size_t      ngx_tun_tx_sizes[] = {
    4096,
    sizeof(ngx_tun_tx_chunk_t) + NGX_TUN_TX_LENT
};

/* how many are kept for reuse: 1 MB and 4 MB */
static const ngx_uint_t  ngx_tun_tx_keep[] = { 256, 64 };


static ngx_tun_tx_chunk_t *ngx_tun_tx_add_chunk(ngx_tun_tx_t *tx, size_t size);
static void ngx_tun_tx_add(ngx_tun_tx_t *tx, ngx_tun_tx_chunk_t *chunk);
static ngx_tun_tx_chunk_t *ngx_tun_tx_alloc_chunk(ngx_tun_tx_pool_t *pool,
    ngx_uint_t large);
static void ngx_tun_tx_free_chunk(ngx_tun_tx_pool_t *pool,
    ngx_tun_tx_chunk_t *chunk);


void
ngx_tun_tx_pool_done(ngx_tun_tx_pool_t *pool)
{
    ngx_uint_t           i;
    ngx_tun_tx_chunk_t  *chunk;

    for (i = 0; i < 2; i++) {
        while (pool->free[i] != NULL) {
            chunk = pool->free[i];
            pool->free[i] = chunk->next;
            ngx_free(chunk);
        }
    }
}


size_t
ngx_tun_tx_append(ngx_tun_tx_t *tx, u_char *p, size_t size)
{
    size_t               n, left;
    ngx_tun_tx_chunk_t  *chunk;

    for (left = size; left != 0; left -= n) {

        chunk = tx->last;

        if (chunk == NULL || chunk->last == chunk->end) {
            chunk = ngx_tun_tx_add_chunk(tx, left);
            if (chunk == NULL) {
                break;
            }
        }

        n = ngx_min(left, (size_t) (chunk->end - chunk->last));

        chunk->last = ngx_cpymem(chunk->last, p, n);
        p += n;
    }

    size -= left;

    tx->len += size;
    tx->total += size;

    return size;
}


ngx_tun_tx_chunk_t *
ngx_tun_tx_lend(ngx_tun_tx_pool_t *pool)
{
    return ngx_tun_tx_alloc_chunk(pool, 1);
}


void
ngx_tun_tx_return(ngx_tun_tx_pool_t *pool, ngx_tun_tx_chunk_t *chunk)
{
    ngx_tun_tx_free_chunk(pool, chunk);
}


void
ngx_tun_tx_append_lent(ngx_tun_tx_t *tx, ngx_tun_tx_chunk_t *chunk,
    size_t size)
{
    chunk->last = chunk->pos + size;

    ngx_tun_tx_add(tx, chunk);

    tx->len += size;
    tx->total += size;
}


size_t
ngx_tun_tx_next(ngx_tun_tx_t *tx, u_char **p)
{
    ngx_tun_tx_chunk_t  *chunk;

    chunk = tx->send;

    if (chunk == NULL) {
        return 0;
    }

    if (chunk->send == chunk->last && chunk->next != NULL) {
        chunk = chunk->next;
        tx->send = chunk;
    }

    *p = chunk->send;

    return chunk->last - chunk->send;
}


void
ngx_tun_tx_given(ngx_tun_tx_t *tx, size_t n)
{
    tx->send->send += n;
}


void
ngx_tun_tx_acked(ngx_tun_tx_t *tx, size_t n)
{
    size_t               k;
    ngx_tun_tx_chunk_t  *chunk;

    /* a FIN has a sequence number too */
    n = ngx_min(n, tx->len);

    tx->len -= n;

    if (tx->len == 0) {
        ngx_tun_tx_free(tx);
        return;
    }

    while (n != 0) {
        chunk = tx->first;

        k = ngx_min(n, (size_t) (chunk->send - chunk->pos));
        chunk->pos += k;
        n -= k;

        if (chunk->pos != chunk->last || chunk->next == NULL) {
            break;
        }

        if (tx->send == chunk) {
            tx->send = chunk->next;
        }

        tx->first = chunk->next;
        ngx_tun_tx_free_chunk(tx->pool, chunk);
    }
}


void
ngx_tun_tx_free(ngx_tun_tx_t *tx)
{
    ngx_tun_tx_chunk_t  *chunk;

    while (tx->first != NULL) {
        chunk = tx->first;
        tx->first = chunk->next;
        ngx_tun_tx_free_chunk(tx->pool, chunk);
    }

    tx->last = NULL;
    tx->send = NULL;
    tx->len = 0;
}


static ngx_tun_tx_chunk_t *
ngx_tun_tx_add_chunk(ngx_tun_tx_t *tx, size_t size)
{
    ngx_tun_tx_chunk_t  *chunk;

    chunk = ngx_tun_tx_alloc_chunk(tx->pool,
                                   tx->total + size > NGX_TUN_TX_SMALL_TOTAL);

    if (chunk != NULL) {
        ngx_tun_tx_add(tx, chunk);
    }

    return chunk;
}


static void
ngx_tun_tx_add(ngx_tun_tx_t *tx, ngx_tun_tx_chunk_t *chunk)
{
    if (tx->last == NULL) {
        tx->first = chunk;
        tx->send = chunk;

    } else {
        tx->last->next = chunk;
    }

    tx->last = chunk;
}


static ngx_tun_tx_chunk_t *
ngx_tun_tx_alloc_chunk(ngx_tun_tx_pool_t *pool, ngx_uint_t large)
{
    ngx_tun_tx_chunk_t  *chunk;

    chunk = pool->free[large];

    if (chunk != NULL) {
        pool->free[large] = chunk->next;
        pool->nfree[large]--;

    } else {
        chunk = ngx_alloc(ngx_tun_tx_sizes[large], pool->log);
        if (chunk == NULL) {
            return NULL;
        }
    }

    pool->memory += ngx_tun_tx_sizes[large];

    chunk->next = NULL;
    chunk->large = large;
    chunk->pos = (u_char *) chunk + sizeof(ngx_tun_tx_chunk_t);
    chunk->send = chunk->pos;
    chunk->last = chunk->pos;
    chunk->end = (u_char *) chunk + ngx_tun_tx_sizes[large];

    return chunk;
}


static void
ngx_tun_tx_free_chunk(ngx_tun_tx_pool_t *pool, ngx_tun_tx_chunk_t *chunk)
{
    ngx_uint_t  large;

    large = chunk->large;

    pool->memory -= ngx_tun_tx_sizes[large];

    if (pool->nfree[large] == ngx_tun_tx_keep[large]) {
        ngx_free(chunk);
        return;
    }

    chunk->next = pool->free[large];
    pool->free[large] = chunk;
    pool->nfree[large]++;
}
