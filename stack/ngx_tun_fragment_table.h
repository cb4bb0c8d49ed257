
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_FRAGMENT_TABLE_H_INCLUDED_
#define _NGX_TUN_FRAGMENT_TABLE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_fragment.h>


/* what waits: for ngx_tun_fragment.c only */

typedef struct {
    ngx_tun_flow_t                 flow;
    ngx_queue_t                    datagrams;    /* oldest first */
    ngx_queue_t                    queue;        /* in the level */
    ngx_uint_t                     level;
    ngx_uint_t                     ndatagrams;
    size_t                         bytes;
} ngx_tun_fragment_source_t;


typedef struct {
    ngx_queue_t                    queue;
    size_t                         start;        /* in the datagram */
    size_t                         len;
    size_t                         header_len;   /* of the first piece only */
    u_char                         data[];       /* header, then the piece */
} ngx_tun_fragment_piece_t;


typedef struct {
    ngx_tun_flow_t                 flow;
    ngx_tun_fragment_source_t     *source;
    ngx_queue_t                    queue;
    ngx_queue_t                    source_queue;
    ngx_queue_t                    pieces;       /* by their start */
    ngx_uint_t                     npieces;
    size_t                         received;
    size_t                         total;        /* or 0, not known yet */
    ngx_msec_t                     created;
    unsigned                       dead:1;       /* later pieces are too */
} ngx_tun_fragment_datagram_t;


/*
 * The datagram that the piece belongs to, a new one if there is none that is
 * not too old, or NULL without memory.
 */
ngx_tun_fragment_datagram_t *ngx_tun_fragment_datagram(
    ngx_tun_fragments_t *frags, ngx_tun_packet_t *pkt, ngx_msec_t now);

/*
 * Makes the oldest give way until all limits hold, d has just grown.
 * NGX_AGAIN, or NGX_DECLINED: it was d itself that had to go.
 */
ngx_int_t ngx_tun_fragment_trim(ngx_tun_fragments_t *frags,
    ngx_tun_fragment_datagram_t *d);

/* Of the source, or of all if that is NULL; there is one. */
ngx_tun_fragment_datagram_t *ngx_tun_fragment_oldest(
    ngx_tun_fragments_t *frags, ngx_tun_fragment_source_t *source);

/* Frees the pieces; what is left of it keeps later ones away. */
void ngx_tun_fragment_kill(ngx_tun_fragments_t *frags,
    ngx_tun_fragment_datagram_t *d);

/* Frees all of it, and its source with the last one. */
void ngx_tun_fragment_delete(ngx_tun_fragments_t *frags,
    ngx_tun_fragment_datagram_t *d);

/* Adds bytes, and n datagrams, to what the source of d and all hold. */
void ngx_tun_fragment_charge(ngx_tun_fragments_t *frags,
    ngx_tun_fragment_datagram_t *d, ssize_t bytes, ngx_int_t n);


#endif /* _NGX_TUN_FRAGMENT_TABLE_H_INCLUDED_ */
