
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_fragment_table.h>
#include <ngx_tun_packet_bytes.h>


#define NGX_TUN_FRAGMENT_IPV6_LEN  40
#define NGX_TUN_FRAGMENT_MAX       65535
#define NGX_TUN_FRAGMENT_BUFFER                                               \
    (NGX_TUN_FRAGMENT_IPV6_LEN + NGX_TUN_FRAGMENT_MAX)

/* 65,535 bytes by an MTU of 576 are 119 */
#define NGX_TUN_FRAGMENT_PIECES    128


static ngx_int_t ngx_tun_fragment_check(ngx_tun_packet_t *pkt);
static ngx_int_t ngx_tun_fragment_check_first(ngx_tun_packet_t *pkt);
static ngx_int_t ngx_tun_fragment_place(ngx_tun_fragment_datagram_t *d,
    ngx_tun_packet_t *pkt, ngx_queue_t **after);
static ngx_uint_t ngx_tun_fragment_equal(ngx_tun_fragment_datagram_t *d,
    ngx_tun_fragment_piece_t *piece, ngx_tun_packet_t *pkt);
static ngx_int_t ngx_tun_fragment_beyond(ngx_tun_fragment_datagram_t *d,
    ngx_tun_packet_t *pkt);
static ngx_int_t ngx_tun_fragment_keep(ngx_tun_fragments_t *frags,
    ngx_tun_fragment_datagram_t *d, ngx_tun_packet_t *pkt,
    ngx_queue_t *after);
static void ngx_tun_fragment_copy_header(ngx_tun_packet_t *pkt, u_char *p);
static ngx_int_t ngx_tun_fragment_join(ngx_tun_fragments_t *frags,
    ngx_tun_fragment_datagram_t *d, ngx_tun_packet_t *pkt);
static void ngx_tun_fragment_finish(u_char *p, size_t header_len,
    size_t total);


ngx_int_t
ngx_tun_fragments_init(ngx_tun_fragments_t *frags, ngx_log_t *log)
{
    ngx_uint_t  i;

    frags->log = log;

    ngx_queue_init(&frags->queue);

    for (i = 0; i < NGX_TUN_FRAGMENT_LEVELS; i++) {
        ngx_queue_init(&frags->levels[i]);
    }

    if (ngx_tun_flow_table_init(&frags->table, log) != NGX_OK
        || ngx_tun_flow_table_init(&frags->sources, log) != NGX_OK)
    {
        return NGX_ERROR;
    }

    frags->buf = ngx_alloc(NGX_TUN_FRAGMENT_BUFFER, log);

    return (frags->buf != NULL) ? NGX_OK : NGX_ERROR;
}


void
ngx_tun_fragments_done(ngx_tun_fragments_t *frags)
{
    while (frags->datagrams != 0) {
        ngx_tun_fragment_delete(frags, ngx_tun_fragment_oldest(frags, NULL));
    }

    ngx_tun_flow_table_done(&frags->table);
    ngx_tun_flow_table_done(&frags->sources);

    ngx_free(frags->buf);
    frags->buf = NULL;
}


ngx_int_t
ngx_tun_fragment_input(ngx_tun_fragments_t *frags, ngx_tun_packet_t *pkt,
    ngx_msec_t now)
{
    ngx_int_t                     rc;
    ngx_queue_t                  *after;
    ngx_tun_fragment_datagram_t  *d;

    (void) ngx_tun_fragment_expire(frags, now);

    if (ngx_tun_fragment_check(pkt) != NGX_OK) {
        frags->invalid++;
        return NGX_DECLINED;
    }

    d = ngx_tun_fragment_datagram(frags, pkt, now);

    if (d == NULL) {
        frags->dropped++;
        return NGX_DECLINED;
    }

    if (d->dead) {
        return NGX_DECLINED;
    }

    rc = ngx_tun_fragment_place(d, pkt, &after);

    if (rc == NGX_DONE) {
        return NGX_AGAIN;
    }

    if (rc == NGX_ABORT) {
        frags->overlapping++;
        ngx_tun_fragment_kill(frags, d);
        return NGX_DECLINED;
    }

    if (ngx_tun_fragment_beyond(d, pkt) != NGX_OK) {
        frags->invalid++;
        return NGX_DECLINED;
    }

    if (ngx_tun_fragment_keep(frags, d, pkt, after) != NGX_OK) {
        frags->dropped++;
        ngx_tun_fragment_kill(frags, d);
        return NGX_DECLINED;
    }

    if (d->received == d->total) {
        return ngx_tun_fragment_join(frags, d, pkt);
    }

    return ngx_tun_fragment_trim(frags, d);
}


static ngx_int_t
ngx_tun_fragment_check(ngx_tun_packet_t *pkt)
{
    size_t  len, header_len;

    len = pkt->end - pkt->payload;

    if (len == 0 || (pkt->frag_more && len % 8 != 0)) {
        return NGX_DECLINED;
    }

    header_len = pkt->frag_header - pkt->start;

    if (pkt->addr_len != 4) {
        header_len -= NGX_TUN_FRAGMENT_IPV6_LEN;
    }

    if (header_len + pkt->frag_offset + len > NGX_TUN_FRAGMENT_MAX) {
        return NGX_DECLINED;
    }

    return (pkt->frag_offset == 0) ? ngx_tun_fragment_check_first(pkt)
                                   : NGX_OK;
}


/* RFC 7112; the first 8 bytes are there in any case */

static ngx_int_t
ngx_tun_fragment_check_first(ngx_tun_packet_t *pkt)
{
    ngx_tun_packet_t      first;
    ngx_tun_packet_tcp_t  tcp;

    first = *pkt;

    if (ngx_tun_packet_parse_first(&first) != NGX_TUN_PACKET_OK
        || first.frag_header != pkt->frag_header)
    {
        return NGX_DECLINED;
    }

    if (first.addr_len == 4) {
        return NGX_OK;
    }

    switch (first.protocol) {

    case IPPROTO_TCP:
        return (ngx_tun_packet_parse_tcp(&first, &tcp) == NGX_TUN_PACKET_OK)
               ? NGX_OK : NGX_DECLINED;

    case IPPROTO_UDP:
    case IPPROTO_ICMPV6:
        return (first.end - first.payload >= 8) ? NGX_OK : NGX_DECLINED;

    default:
        return NGX_OK;
    }
}


/* NGX_OK, NGX_DONE: it is there already, or NGX_ABORT: it overlaps */

static ngx_int_t
ngx_tun_fragment_place(ngx_tun_fragment_datagram_t *d, ngx_tun_packet_t *pkt,
    ngx_queue_t **after)
{
    size_t                     start, end;
    ngx_queue_t               *q;
    ngx_tun_fragment_piece_t  *piece;

    start = pkt->frag_offset;
    end = start + (pkt->end - pkt->payload);

    /* from the last one on, as they come in order */

    for (q = ngx_queue_last(&d->pieces);
         q != ngx_queue_sentinel(&d->pieces);
         q = ngx_queue_prev(q))
    {
        piece = ngx_queue_data(q, ngx_tun_fragment_piece_t, queue);

        if (piece->start + piece->len <= start) {
            break;
        }

        if (piece->start < end) {
            return ngx_tun_fragment_equal(d, piece, pkt) ? NGX_DONE
                                                         : NGX_ABORT;
        }
    }

    *after = q;

    return NGX_OK;
}


static ngx_uint_t
ngx_tun_fragment_equal(ngx_tun_fragment_datagram_t *d,
    ngx_tun_fragment_piece_t *piece, ngx_tun_packet_t *pkt)
{
    size_t      len;
    ngx_uint_t  more;

    len = pkt->end - pkt->payload;
    more = (piece->start + piece->len != d->total);

    return piece->start == pkt->frag_offset
           && piece->len == len
           && pkt->frag_more == more
           && ngx_memcmp(piece->data + piece->header_len, pkt->payload, len)
              == 0;
}


/* is it behind the last one, or the last one but before another */

static ngx_int_t
ngx_tun_fragment_beyond(ngx_tun_fragment_datagram_t *d, ngx_tun_packet_t *pkt)
{
    size_t                     end;
    ngx_tun_fragment_piece_t  *piece;

    end = pkt->frag_offset + (pkt->end - pkt->payload);

    if (d->total != 0) {
        return (pkt->frag_more && end < d->total) ? NGX_OK : NGX_DECLINED;
    }

    if (pkt->frag_more || ngx_queue_empty(&d->pieces)) {
        return NGX_OK;
    }

    piece = ngx_queue_data(ngx_queue_last(&d->pieces),
                           ngx_tun_fragment_piece_t, queue);

    return (piece->start < end) ? NGX_OK : NGX_DECLINED;
}


static ngx_int_t
ngx_tun_fragment_keep(ngx_tun_fragments_t *frags,
    ngx_tun_fragment_datagram_t *d, ngx_tun_packet_t *pkt, ngx_queue_t *after)
{
    size_t                     len, size, header_len;
    ngx_tun_fragment_piece_t  *piece;

    if (d->npieces == NGX_TUN_FRAGMENT_PIECES) {
        return NGX_DECLINED;
    }

    len = pkt->end - pkt->payload;
    header_len = (pkt->frag_offset == 0) ? pkt->frag_header - pkt->start : 0;

    size = sizeof(ngx_tun_fragment_piece_t) + header_len + len;

    piece = ngx_alloc(size, frags->log);
    if (piece == NULL) {
        return NGX_ERROR;
    }

    piece->start = pkt->frag_offset;
    piece->len = len;
    piece->header_len = header_len;

    if (header_len != 0) {
        ngx_tun_fragment_copy_header(pkt, piece->data);
    }

    ngx_memcpy(piece->data + header_len, pkt->payload, len);

    ngx_queue_insert_after(after, &piece->queue);

    d->npieces++;
    d->received += len;

    if (!pkt->frag_more) {
        d->total = piece->start + len;
    }

    ngx_tun_fragment_charge(frags, d, size, 0);

    return NGX_OK;
}


static void
ngx_tun_fragment_copy_header(ngx_tun_packet_t *pkt, u_char *p)
{
    size_t   n;
    u_char  *next, *end;

    n = pkt->frag_header - pkt->start;

    ngx_memcpy(p, pkt->start, n);

    if (pkt->addr_len == 4) {
        return;
    }

    /* the last next header is to name what follows the fragment header */

    end = p + n;
    next = p + 6;
    p += NGX_TUN_FRAGMENT_IPV6_LEN;

    while (p < end) {
        n = (*next == IPPROTO_AH) ? (p[1] + 2) * 4
            : (*next == IPPROTO_FRAGMENT) ? 8 : (p[1] + 1) * 8;
        next = p;
        p += n;
    }

    *next = pkt->protocol;
}


static ngx_int_t
ngx_tun_fragment_join(ngx_tun_fragments_t *frags,
    ngx_tun_fragment_datagram_t *d, ngx_tun_packet_t *pkt)
{
    u_char                    *p;
    size_t                     header_len, max;
    ngx_queue_t               *q;
    ngx_tun_fragment_piece_t  *piece;

    q = ngx_queue_head(&d->pieces);
    piece = ngx_queue_data(q, ngx_tun_fragment_piece_t, queue);

    header_len = piece->header_len;
    max = (pkt->addr_len == 4) ? NGX_TUN_FRAGMENT_MAX
                               : NGX_TUN_FRAGMENT_BUFFER;

    if (header_len + d->total > max) {
        goto invalid;
    }

    p = frags->buf;

    for ( /* void */ ;
         q != ngx_queue_sentinel(&d->pieces);
         q = ngx_queue_next(q))
    {
        piece = ngx_queue_data(q, ngx_tun_fragment_piece_t, queue);
        p = ngx_cpymem(p, piece->data, piece->header_len + piece->len);
    }

    ngx_tun_fragment_finish(frags->buf, header_len, p - frags->buf);

    if (ngx_tun_packet_parse(pkt, frags->buf, p) != NGX_TUN_PACKET_OK) {
        goto invalid;
    }

    frags->reassembled++;
    ngx_tun_fragment_delete(frags, d);

    return NGX_OK;

invalid:

    frags->invalid++;
    ngx_tun_fragment_delete(frags, d);

    return NGX_DECLINED;
}


static void
ngx_tun_fragment_finish(u_char *p, size_t header_len, size_t total)
{
    uint16_t  sum;

    if ((p[0] >> 4) == 6) {
        total -= NGX_TUN_FRAGMENT_IPV6_LEN;
        ngx_tun_packet_put16(p + 4, total);
        return;
    }

    ngx_tun_packet_put16(p + 2, total);
    ngx_tun_packet_put16(p + 6, 0);
    ngx_tun_packet_put16(p + 10, 0);

    sum = ~ngx_tun_packet_fold(ngx_tun_packet_sum(p, header_len, 0));
    ngx_memcpy(p + 10, &sum, 2);
}
