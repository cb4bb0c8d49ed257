
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_TX_H_INCLUDED_
#define _NGX_TUN_TX_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * The send queue of a flow: bytes in chunks, where they stay until the client
 * has acknowledged them.  They are copied there once, or a chunk was lent to
 * who fills it and gives it back.  The queue holds memory only while it holds
 * bytes; chunks are reused by all flows of a device.
 */


#define NGX_TUN_TX_LENT  65536       /* bytes that a lent chunk has room for */


typedef struct ngx_tun_tx_chunk_s  ngx_tun_tx_chunk_t;


struct ngx_tun_tx_chunk_s {
    ngx_tun_tx_chunk_t       *next;
    ngx_uint_t                large;
    u_char                   *pos;       /* not acknowledged from here on */
    u_char                   *send;      /* not given to the stack */
    u_char                   *last;      /* not filled */
    u_char                   *end;
};


typedef struct {
    ngx_tun_tx_chunk_t       *free[2];   /* small and large ones */
    ngx_uint_t                nfree[2];
    size_t                    memory;    /* of the chunks in use */
    ngx_log_t                *log;
} ngx_tun_tx_pool_t;


typedef struct {
    ngx_tun_tx_chunk_t       *first;
    ngx_tun_tx_chunk_t       *last;
    ngx_tun_tx_chunk_t       *send;      /* the one to give next */
    size_t                    len;       /* bytes held */
    size_t                    total;     /* bytes ever appended */
    ngx_tun_tx_pool_t        *pool;
} ngx_tun_tx_t;


void ngx_tun_tx_pool_done(ngx_tun_tx_pool_t *pool);

/* Copies size bytes, or as many as there is memory for; returns how many. */
size_t ngx_tun_tx_append(ngx_tun_tx_t *tx, u_char *p, size_t size);

/*
 * A chunk that is in no queue, or NULL.  What it has room for begins at its
 * pos.
 */
ngx_tun_tx_chunk_t *ngx_tun_tx_lend(ngx_tun_tx_pool_t *pool);
void ngx_tun_tx_return(ngx_tun_tx_pool_t *pool, ngx_tun_tx_chunk_t *chunk);

/* Appends a lent chunk with size bytes in it, which belongs to tx then. */
void ngx_tun_tx_append_lent(ngx_tun_tx_t *tx, ngx_tun_tx_chunk_t *chunk,
    size_t size);

/* The bytes to give to the stack next, at *p; 0 when all are given. */
size_t ngx_tun_tx_next(ngx_tun_tx_t *tx, u_char **p);

/* n of the bytes that ngx_tun_tx_next() showed are given now. */
void ngx_tun_tx_given(ngx_tun_tx_t *tx, size_t n);

/* n given bytes are acknowledged and will not be sent again. */
void ngx_tun_tx_acked(ngx_tun_tx_t *tx, size_t n);

/* Frees all; nobody refers to the bytes any more. */
void ngx_tun_tx_free(ngx_tun_tx_t *tx);


#endif /* _NGX_TUN_TX_H_INCLUDED_ */
