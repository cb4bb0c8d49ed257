
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: stack/ngx_tun_fragment.c stack/ngx_tun_fragment_table.c stack/ngx_tun_flow.c stack/ngx_tun_packet.c stack/ngx_tun_packet_fragment.c */


/*
 * libFuzzer: fragments that the device may hand in.  The first byte says what
 * the rest is: pieces whose fate a simple model foretells, packets as they are
 * under small limits, or a datagram to be cut and put together in an order.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_fragment.h>
#include <ngx_tun_packet_bytes.h>

#include "sums.h"


#define FUZZ_KEYS    16
#define FUZZ_PIECES  128
#define FUZZ_STEP    6


typedef struct {
    size_t              start;
    size_t              len;
    ngx_uint_t          more;
    ngx_uint_t          salt;
} fuzz_piece_t;


typedef struct {
    ngx_uint_t          used;
    ngx_uint_t          dead;
    ngx_msec_t          created;
    ngx_uint_t          n;
    fuzz_piece_t        pieces[FUZZ_PIECES];
} fuzz_datagram_t;


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static ngx_log_t  fuzz_log;


void *
ngx_alloc(size_t size, ngx_log_t *log)
{
    return malloc(size);
}


void *
ngx_calloc(size_t size, ngx_log_t *log)
{
    return calloc(1, size);
}


void
ngx_log_error_core(ngx_uint_t level, ngx_log_t *log, ngx_err_t err,
    const char *fmt, ...)
{
}


static void
init(ngx_tun_fragments_t *frags, ngx_uint_t datagrams, size_t bytes)
{
    ngx_memzero(frags, sizeof(ngx_tun_fragments_t));

    frags->max_datagrams = datagrams;
    frags->max_bytes = bytes;
    frags->timeout = 15000;

    check(ngx_tun_fragments_init(frags, &fuzz_log) == NGX_OK);
}


static void
check_limits(ngx_tun_fragments_t *frags)
{
    check(frags->datagrams == frags->table.nflows);
    check(frags->datagrams <= frags->max_datagrams * 16);
    check(frags->bytes <= frags->max_bytes * 16);
    check((frags->datagrams == 0) == (frags->bytes == 0));
    check((frags->datagrams == 0) == (frags->sources.nflows == 0));
    check(frags->sources.nflows <= frags->datagrams);
}


static u_char
fuzz_byte(size_t offset, ngx_uint_t salt)
{
    return (u_char) (offset * 7 + (offset >> 8) + salt);
}


/* a key is a family, a source and an id */

static size_t
fuzz_header(u_char *p, ngx_uint_t key)
{
    ngx_memzero(p, 48);

    if (key & 1) {
        p[0] = 0x45;
        p[5] = (u_char) (key >> 2);
        p[9] = IPPROTO_UDP;
        p[12] = 10;
        p[15] = 1 + ((key >> 1) & 1);
        p[16] = 11;

        return 20;
    }

    p[0] = 0x60;
    p[6] = IPPROTO_UDP;
    p[8] = 0x20;
    p[15] = (key >> 1) & 1;
    p[24] = 0x20;

    return 40;
}


static ngx_int_t
fuzz_input(ngx_tun_fragments_t *frags, ngx_tun_packet_t *pkt, ngx_uint_t key,
    fuzz_piece_t *piece, ngx_msec_t now)
{
    size_t      i, n;
    u_char     *p;
    ngx_int_t   rc;

    p = malloc(48 + piece->len);
    check(p != NULL);

    n = fuzz_header(p, key);

    if (key & 1) {
        ngx_tun_packet_put16(p + 2, 20 + piece->len);
        ngx_tun_packet_put16(p + 6, (piece->start / 8 | piece->more << 13));
        fix_ip(p, 20);

    } else {
        p[40] = IPPROTO_UDP;
        p[6] = IPPROTO_FRAGMENT;
        ngx_tun_packet_put16(p + 4, 8 + piece->len);
        ngx_tun_packet_put16(p + 42, (piece->start | piece->more));
        p[47] = (u_char) (key >> 2);
        n += 8;
    }

    for (i = 0; i < piece->len; i++) {
        p[n + i] = fuzz_byte(piece->start + i, piece->salt);
    }

    check(ngx_tun_packet_parse(pkt, p, p + n + piece->len)
          == NGX_TUN_PACKET_OK);
    check(pkt->fragment && pkt->frag_offset == piece->start
          && pkt->frag_more == piece->more);

    rc = ngx_tun_fragment_input(frags, pkt, now);

    free(p);

    return rc;
}


/* what RFC 791, 5722 and 8200 want, as simple as can be */

static ngx_int_t
fuzz_model(fuzz_datagram_t *d, ngx_uint_t key, fuzz_piece_t *piece,
    ngx_msec_t now)
{
    size_t         end, top, total, got;
    ngx_uint_t     i;
    fuzz_piece_t  *p;

    end = piece->start + piece->len;

    if (piece->len == 0 || (piece->more && piece->len % 8)
        || end > 65535 - ((key & 1) ? 20 : 0))
    {
        return NGX_DECLINED;
    }

    if (!d->used || now - d->created >= 15000) {
        ngx_memzero(d, sizeof(fuzz_datagram_t));
        d->used = 1;
        d->created = now;
    }

    if (d->dead) {
        return NGX_DECLINED;
    }

    for (top = 0, total = 0, got = 0, i = 0; i < d->n; i++) {
        p = &d->pieces[i];

        if (p->start == piece->start && p->len == piece->len
            && p->more == piece->more && p->salt == piece->salt)
        {
            return NGX_AGAIN;
        }

        if (p->start < end && piece->start < p->start + p->len) {
            d->dead = 1;
            return NGX_DECLINED;
        }

        top = ngx_max(top, p->start + p->len);
        got += p->len;
        total = p->more ? total : p->start + p->len;
    }

    if ((total != 0 && (!piece->more || end > total))
        || (!piece->more && top > end))
    {
        return NGX_DECLINED;
    }

    if (d->n == FUZZ_PIECES) {
        d->dead = 1;
        return NGX_DECLINED;
    }

    d->pieces[d->n++] = *piece;
    total = piece->more ? total : end;

    return (got + piece->len == total) ? NGX_OK : NGX_AGAIN;
}


static void
fuzz_whole(fuzz_datagram_t *d, ngx_uint_t key, ngx_tun_packet_t *pkt)
{
    size_t         i, len, got;
    ngx_uint_t     k;
    fuzz_piece_t  *p;

    len = pkt->end - pkt->payload;

    check(!pkt->fragment && pkt->protocol == IPPROTO_UDP);
    check(pkt->addr_len == ((key & 1) ? 4 : 16));
    check(pkt->payload - pkt->start == ((key & 1) ? 20 : 40));

    for (got = 0, k = 0; k < d->n; k++) {
        p = &d->pieces[k];
        got += p->len;

        check(p->start + p->len <= len);

        for (i = p->start; i < p->start + p->len; i++) {
            check(pkt->payload[i] == fuzz_byte(i, p->salt));
        }
    }

    check(got == len);

    d->used = 0;
}


static void
fuzz_pieces(const uint8_t *data, size_t size)
{
    ngx_int_t             rc;
    ngx_msec_t            now;
    ngx_uint_t            key;
    fuzz_piece_t          piece;
    fuzz_datagram_t      *d;
    ngx_tun_packet_t      pkt;
    ngx_tun_fragments_t   frags;

    d = calloc(FUZZ_KEYS, sizeof(fuzz_datagram_t));
    check(d != NULL);

    init(&frags, 256, 1024 * 1024);

    for (now = -20000; size >= FUZZ_STEP; size -= FUZZ_STEP) {

        key = data[0] & 15;

        piece.more = (data[0] >> 4) & 1;
        piece.salt = (data[0] >> 5) & 1;
        piece.start = ((data[1] << 8 | data[2]) & 0x1fff) * 8;
        piece.len = data[3] * 8 + ((data[4] & 0x80) ? data[4] & 0x7f : 0);

        now += (data[0] & 0x40) ? data[5] * 100 : 0;
        data += FUZZ_STEP;

        if (piece.start == 0 && !piece.more) {
            continue;
        }

        rc = fuzz_model(&d[key], key, &piece, now);

        check(fuzz_input(&frags, &pkt, key, &piece, now) == rc);

        if (rc == NGX_OK) {
            fuzz_whole(&d[key], key, &pkt);
        }

        check_limits(&frags);
    }

    check(frags.datagrams <= FUZZ_KEYS);
    check((ngx_tun_fragment_expire(&frags, now) != 0)
          == (frags.datagrams != 0));
    check(ngx_tun_fragment_expire(&frags, now + 15000) == 0);

    check_limits(&frags);
    check(frags.datagrams == 0);

    ngx_tun_fragments_done(&frags);

    free(d);
}


static void
fuzz_packets(const uint8_t *data, size_t size)
{
    size_t                n;
    u_char               *p;
    ngx_msec_t            now;
    ngx_tun_packet_t      pkt;
    ngx_tun_fragments_t   frags;

    init(&frags, 3, 2000);

    for (now = 0; size >= 2; size -= n, data += n) {

        n = ngx_min(data[0] * 8, size - 2);
        now += data[1];

        data += 2;
        size -= 2;

        p = malloc(n ? n : 1);
        check(p != NULL);

        ngx_memcpy(p, data, n);
        fix_ip(p, n);

        if (ngx_tun_packet_parse(&pkt, p, p + n) != NGX_TUN_PACKET_OK
            || !pkt.fragment)
        {
            free(p);
            continue;
        }

        check(pkt.frag_header >= p && pkt.frag_header <= pkt.payload);
        check(pkt.frag_offset != 0 || pkt.frag_more);

        if (ngx_tun_fragment_input(&frags, &pkt, now) == NGX_OK) {
            free(p);

            /* all of it is read, none of it from the packet */

            (void) ngx_tun_packet_sum(pkt.start, pkt.end - pkt.start, 0);
            check(!pkt.fragment && pkt.start == frags.buf);

        } else {
            free(p);
        }

        check_limits(&frags);
    }

    ngx_tun_fragments_done(&frags);
}


static void
fuzz_cut(const uint8_t *data, size_t size)
{
    size_t                     n, len, mtu;
    u_char                    *bytes, *buf, h[48], *p[FUZZ_PIECES];
    ngx_int_t                  rc;
    ngx_uint_t                 i, k;
    struct iovec               iov[2];
    ngx_tun_packet_t           pkt;
    ngx_tun_fragments_t        frags;
    ngx_tun_packet_fragment_t  f;

    if (size < 6) {
        return;
    }

    init(&frags, 3, 200000);

    ngx_memzero(&f, sizeof(ngx_tun_packet_fragment_t));

    len = data[1] << 8 | data[2];
    mtu = ((data[0] & 1) ? 576 : 1280) + (data[3] << 8 | data[4]) % 10000;

    bytes = malloc(len + 1);
    buf = malloc(mtu);
    check(bytes != NULL && buf != NULL);

    for (n = 0; n < len; n++) {
        bytes[n] = fuzz_byte(n, data[5]);
    }

    f.header = h;
    f.header_len = fuzz_header(h, data[0] & 15);
    f.iov = iov;
    f.niov = 2;
    f.mtu = mtu;
    f.id = data[5];

    iov[0].iov_base = bytes;
    iov[0].iov_len = len / (data[5] + 1);
    iov[1].iov_base = bytes + iov[0].iov_len;
    iov[1].iov_len = len - iov[0].iov_len;

    for (k = 0; (n = ngx_tun_packet_fragment(&f, buf)) != 0; k++) {
        check(k < FUZZ_PIECES && n <= mtu);

        p[k] = malloc(n);
        check(p[k] != NULL);
        ngx_memcpy(p[k], buf, n);
    }

    check((k == 0) == ((data[0] & 1) && len > 65515));

    if (k == 1) {
        check(ngx_tun_packet_parse(&pkt, p[0], p[0] + f.header_len + len)
              == NGX_TUN_PACKET_OK);
        check(!pkt.fragment && (size_t) (pkt.end - pkt.payload) == len
              && ngx_memcmp(pkt.payload, bytes, len) == 0);
        free(p[0]);
        k = 0;
    }

    /* what is left of data is the order */

    for (data += 6, size -= 6; k != 0; k--) {
        i = 0;

        if (size != 0) {
            i = *data++ % k;
            size--;
        }

        n = ((p[i][0] >> 4) == 4) ? (size_t) ngx_tun_packet_get16(p[i] + 2)
                                  : (size_t) ngx_tun_packet_get16(p[i] + 4)
                                    + 40;

        check(ngx_tun_packet_parse(&pkt, p[i], p[i] + n) == NGX_TUN_PACKET_OK);
        check(pkt.fragment);

        rc = ngx_tun_fragment_input(&frags, &pkt, 0);
        check(rc == ((k == 1) ? NGX_OK : NGX_AGAIN));

        free(p[i]);
        p[i] = p[k - 1];

        if (rc == NGX_OK) {
            check((size_t) (pkt.end - pkt.payload) == len
                  && ngx_memcmp(pkt.payload, bytes, len) == 0);
        }
    }

    check_limits(&frags);
    check(frags.datagrams == 0);

    ngx_tun_fragments_done(&frags);

    free(bytes);
    free(buf);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }

    switch (data[0] % 3) {

    case 0:
        fuzz_pieces(data + 1, size - 1);
        break;

    case 1:
        fuzz_packets(data + 1, size - 1);
        break;

    default:
        fuzz_cut(data + 1, size - 1);
        break;
    }

    return 0;
}
