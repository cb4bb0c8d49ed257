
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: stack/ngx_tun_fragment.c stack/ngx_tun_fragment_table.c stack/ngx_tun_flow.c stack/ngx_tun_packet.c stack/ngx_tun_packet_fragment.c */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_fragment.h>
#include <ngx_tun_packet_bytes.h>

#include "lib/tap.h"


#define TEST_MAX   200
#define TEST_SIZE  66000


/* pieces of one datagram, each in a block that ends where it ends */

typedef struct {
    ngx_uint_t            n;
    size_t                len[TEST_MAX];
    u_char               *p[TEST_MAX];
} test_pieces_t;


static ngx_log_t    test_log;
static ngx_uint_t   test_fail;
static u_char       test_data[TEST_SIZE];
static u_char       test_protocol = IPPROTO_UDP;


void *
ngx_alloc(size_t size, ngx_log_t *log)
{
    if (test_fail != 0 && --test_fail == 0) {
        return NULL;
    }

    return malloc(size);
}


void *
ngx_calloc(size_t size, ngx_log_t *log)
{
    void  *p;

    p = ngx_alloc(size, log);

    if (p != NULL) {
        ngx_memzero(p, size);
    }

    return p;
}


void
ngx_log_error_core(ngx_uint_t level, ngx_log_t *log, ngx_err_t err,
    const char *fmt, ...)
{
}


static void
init(ngx_tun_fragments_t *frags)
{
    ngx_memzero(frags, sizeof(ngx_tun_fragments_t));

    frags->max_datagrams = NGX_TUN_FRAGMENT_DATAGRAMS;
    frags->max_bytes = NGX_TUN_FRAGMENT_BYTES;
    frags->timeout = NGX_TUN_FRAGMENT_TIMEOUT;

    if (ngx_tun_fragments_init(frags, &test_log) != NGX_OK) {
        abort();
    }
}


static size_t
header(u_char *p, size_t addr_len, ngx_uint_t source, u_char protocol)
{
    static const u_char  src[16] = { 10, 1, 0, 0, 5 }, dst[16] = { 10, 2, 9 };

    if (addr_len == 4) {
        ngx_memzero(p, 20);
        p[0] = 0x45;
        p[8] = 64;
        p[9] = protocol;
        ngx_memcpy(p + 12, src, 4);
        ngx_memcpy(p + 16, dst, 4);
        p[14] = (u_char) (source >> 8);
        p[15] = (u_char) source;

        return 20;
    }

    ngx_memzero(p, 40);
    p[0] = 0x60;
    p[6] = protocol;
    p[7] = 64;
    ngx_memcpy(p + 8, src, 16);
    ngx_memcpy(p + 24, dst, 16);
    p[14] = (u_char) (source >> 8);
    p[15] = (u_char) source;

    return 40;
}


static void
release(test_pieces_t *pieces)
{
    while (pieces->n != 0) {
        free(pieces->p[--pieces->n]);
    }
}


/* cuts the first len bytes of test_data, of which some may be in the header */

static void
cut(test_pieces_t *pieces, size_t addr_len, size_t len, size_t mtu,
    uint32_t id, size_t more)
{
    size_t                      n;
    u_char                      h[100], *p;
    struct iovec                iov[4];
    ngx_tun_packet_fragment_t   f;

    ngx_memzero(&f, sizeof(ngx_tun_packet_fragment_t));

    n = header(h, addr_len, 0, IPPROTO_UDP);

    /* what is there already has no meaning */

    if (addr_len == 4) {
        h[2] = h[4] = h[6] = h[10] = 0xff;
    }

    more = ngx_min(more, len);
    ngx_memcpy(h + n, test_data, more);

    f.header = h;
    f.header_len = n + more;
    f.iov = iov;
    f.niov = 4;
    f.mtu = mtu;
    f.id = id;

    p = test_data + more;
    n = len - more;

    iov[0].iov_base = p;
    iov[0].iov_len = n / 3;
    iov[1].iov_base = p + n / 3;
    iov[1].iov_len = 0;
    iov[2].iov_base = p + n / 3;
    iov[2].iov_len = n - n / 3;
    iov[3].iov_base = p;
    iov[3].iov_len = 0;

    pieces->n = 0;

    while (pieces->n < TEST_MAX) {
        p = malloc(mtu);
        n = ngx_tun_packet_fragment(&f, p);

        if (n == 0) {
            free(p);
            break;
        }

        pieces->len[pieces->n] = n;
        pieces->p[pieces->n++] = realloc(p, n);
    }
}


static ngx_int_t
input(ngx_tun_fragments_t *frags, ngx_tun_packet_t *pkt, u_char *p, size_t len,
    ngx_msec_t now)
{
    if (ngx_tun_packet_parse(pkt, p, p + len) != NGX_TUN_PACKET_OK
        || !pkt->fragment)
    {
        return NGX_ERROR;
    }

    return ngx_tun_fragment_input(frags, pkt, now);
}


static ngx_int_t
input_piece(ngx_tun_fragments_t *frags, ngx_tun_packet_t *pkt,
    test_pieces_t *pieces, ngx_uint_t i)
{
    return input(frags, pkt, pieces->p[i], pieces->len[i], 1000);
}


/* the whole is the first len bytes of test_data */

static int
whole(ngx_tun_packet_t *pkt, size_t addr_len, size_t len)
{
    return !pkt->fragment
           && pkt->addr_len == addr_len
           && pkt->protocol == test_protocol
           && pkt->end - pkt->payload == (ssize_t) len
           && ngx_memcmp(pkt->payload, test_data, len) == 0;
}


/* one piece, made by hand */

static ngx_int_t
piece(ngx_tun_fragments_t *frags, ngx_tun_packet_t *pkt, size_t addr_len,
    ngx_uint_t source, uint32_t id, size_t start, size_t len, ngx_uint_t more,
    ngx_msec_t now)
{
    size_t      n;
    u_char     *p;
    uint16_t    sum;
    ngx_int_t   rc;

    p = malloc(48 + len);
    n = header(p, addr_len, source, test_protocol);

    if (addr_len == 4) {
        ngx_tun_packet_put16(p + 2, 20 + len);
        ngx_tun_packet_put16(p + 4, id);
        ngx_tun_packet_put16(p + 6, (start / 8 | (more ? 0x2000 : 0)));

        sum = ~ngx_tun_packet_fold(ngx_tun_packet_sum(p, 20, 0));
        ngx_memcpy(p + 10, &sum, 2);

    } else {
        p[n] = p[6];
        p[n + 1] = 0;
        p[6] = IPPROTO_FRAGMENT;
        ngx_tun_packet_put16(p + 4, 8 + len);
        ngx_tun_packet_put16(p + n + 2, (start | (more ? 1 : 0)));
        ngx_tun_packet_put32(p + n + 4, id);
        n += 8;
    }

    ngx_memcpy(p + n, test_data + start, len);

    rc = input(frags, pkt, p, n + len, now);

    free(p);

    return rc;
}


static void
test_order(size_t addr_len, size_t mtu)
{
    ngx_int_t            rc;
    ngx_uint_t           i, j, k, n, bad, order[TEST_MAX];
    test_pieces_t        pieces;
    ngx_tun_packet_t     pkt;
    ngx_tun_fragments_t  frags;

    init(&frags);

    cut(&pieces, addr_len, 20003, mtu, 7, 8);
    n = pieces.n;

    ok(n > 10, "IPv%d, MTU %d: %d pieces", addr_len == 4 ? 4 : 6, (int) mtu,
       (int) n);

    for (bad = 0, k = 0; k < 50; k++) {

        for (i = 0; i < n; i++) {
            order[i] = (k == 1) ? n - 1 - i : i;
        }

        for (i = 0; k > 1 && i < n; i++) {
            j = random() % n;
            rc = order[i];
            order[i] = order[j];
            order[j] = rc;
        }

        for (i = 0; i < n; i++) {
            rc = input_piece(&frags, &pkt, &pieces, order[i]);
            bad += (rc != ((i == n - 1) ? NGX_OK : NGX_AGAIN));

            /* what is there already changes nothing */

            if (i < n - 1) {
                j = order[random() % (i + 1)];
                rc = input_piece(&frags, &pkt, &pieces, j);
                bad += (rc != NGX_AGAIN);
            }
        }

        bad += !whole(&pkt, addr_len, 20003);
        bad += (frags.datagrams != 0 || frags.bytes != 0);
    }

    ok(bad == 0, "in any order, twice: %d", (int) bad);
    ok(frags.reassembled == 50, "counted");
    ok(frags.invalid + frags.overlapping + frags.dropped + frags.timed_out
       == 0, "nothing dropped");

    release(&pieces);
    ngx_tun_fragments_done(&frags);
}


static void
test_lengths(size_t addr_len, size_t mtu)
{
    size_t               n, len, max, want, room;
    ngx_int_t            rc;
    ngx_uint_t           i, bad, count;
    test_pieces_t        pieces;
    ngx_tun_packet_t     pkt;
    ngx_tun_fragments_t  frags;

    init(&frags);

    max = (addr_len == 4) ? 65515 : 65535;
    bad = 0;
    count = 0;

    for (len = 0; len <= max; len += (len < 5000) ? 1 : 1237) {

        if (len + 1237 > max && len != max) {
            len = max;
        }

        cut(&pieces, addr_len, len, mtu, (uint32_t) len, len % 60);
        count++;

        room = mtu - ((addr_len == 4) ? 20 : 48);
        want = 1;

        if (len > room + ((addr_len == 4) ? 0 : 8)) {
            for (n = len; n > room; n -= room & ~(size_t) 7) {
                want++;
            }
        }

        bad += (pieces.n != want);

        for (i = 0; i < pieces.n; i++) {

            if (pieces.n == 1) {
                bad += (ngx_tun_packet_parse(&pkt, pieces.p[0],
                                             pieces.p[0] + pieces.len[0])
                        != NGX_TUN_PACKET_OK);
                break;
            }

            bad += (pieces.len[i] > mtu);
            bad += (i < pieces.n - 1 && pieces.len[i] + 8 <= mtu);

            rc = input_piece(&frags, &pkt, &pieces, i);
            bad += (rc != ((i == pieces.n - 1) ? NGX_OK : NGX_AGAIN));
        }

        bad += !whole(&pkt, addr_len, len);

        release(&pieces);
    }

    ok(bad == 0, "IPv%d, MTU %d: %d lengths up to %d: %d",
       addr_len == 4 ? 4 : 6, (int) mtu, (int) count, (int) max, (int) bad);

    cut(&pieces, addr_len, max + 1, mtu, 1, 8);
    ok(pieces.n == 0, "not more than IP can carry");

    ngx_tun_fragments_done(&frags);
}


static void
test_headers(void)
{
    uint16_t             w;
    test_pieces_t        pieces;
    ngx_tun_packet_t     pkt;
    ngx_tun_fragments_t  frags;

    init(&frags);

    cut(&pieces, 4, 2000, 1500, 0x12345678, 8);

    ok(pieces.n == 2 && pieces.len[0] == 1500 && pieces.len[1] == 540,
       "IPv4: sizes");

    w = ngx_tun_packet_get16(pieces.p[0] + 6);
    ok(w == 0x2000, "more, no DF: %x", w);
    w = ngx_tun_packet_get16(pieces.p[1] + 6);
    ok(w == 185, "offset: %x", w);
    ok(ngx_tun_packet_get16(pieces.p[1] + 4) == 0x5678, "id");

    (void) input_piece(&frags, &pkt, &pieces, 1);
    ok(input_piece(&frags, &pkt, &pieces, 0) == NGX_OK, "whole");
    ok(ngx_tun_packet_get16(pkt.start + 2) == 2020
       && ngx_tun_packet_get16(pkt.start + 6) == 0, "header is made anew");

    release(&pieces);

    cut(&pieces, 16, 2000, 1500, 0x12345678, 8);

    ok(pieces.n == 2 && pieces.len[0] == 1496 && pieces.len[1] == 600,
       "IPv6: sizes");

    ok(pieces.p[0][6] == 44 && pieces.p[0][40] == IPPROTO_UDP
       && pieces.p[0][41] == 0, "IPv6: fragment header");
    w = ngx_tun_packet_get16(pieces.p[0] + 42);
    ok(w == 1, "more: %x", w);
    w = ngx_tun_packet_get16(pieces.p[1] + 42);
    ok(w == 1448, "offset: %x", w);
    ok(ngx_tun_packet_get32(pieces.p[1] + 44) == 0x12345678, "id");

    (void) input_piece(&frags, &pkt, &pieces, 1);
    ok(input_piece(&frags, &pkt, &pieces, 0) == NGX_OK, "whole");
    ok(ngx_tun_packet_get16(pkt.start + 4) == 2000
       && pkt.start[6] == IPPROTO_UDP && pkt.payload == pkt.start + 40,
       "header is made anew");

    release(&pieces);
    ngx_tun_fragments_done(&frags);
}


static void
test_overlap(size_t addr_len)
{
    ngx_uint_t           i, bad;
    ngx_tun_packet_t     pkt;
    ngx_tun_fragments_t  frags;

    /* 80..160 and 240..320 are there */

    static const struct {
        const char  *name;
        size_t       start;
        size_t       len;
        ngx_uint_t   more;
        ngx_uint_t   other;
    } cases[] = {
        { "other bytes", 80, 80, 1, 159 },
        { "other first byte", 240, 80, 1, 240 },
        { "the same, but the last one", 240, 80, 0, 0 },
        { "begins before", 72, 16, 1, 0 },
        { "ends behind", 152, 16, 1, 0 },
        { "contained", 88, 8, 1, 0 },
        { "contains", 72, 96, 1, 0 },
        { "the same start, shorter", 80, 72, 1, 0 },
        { "the same start, longer", 80, 88, 1, 0 },
        { "the same end, shorter", 88, 72, 1, 0 },
        { "the same end, longer", 72, 88, 1, 0 },
        { "two of them", 152, 96, 1, 0 },
        { "all", 0, 400, 1, 0 },
        { "the last one, within", 312, 4, 0, 0 },
        { "the last one, before", 152, 12, 0, 0 },
        { "from the start", 0, 88, 1, 0 }
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        init(&frags);

        bad = 0;
        bad += (piece(&frags, &pkt, addr_len, 1, 9, 80, 80, 1, 0) != NGX_AGAIN);
        bad += (piece(&frags, &pkt, addr_len, 1, 9, 240, 80, 1, 0)
                != NGX_AGAIN);

        test_data[cases[i].other] ^= (cases[i].other != 0);
        bad += (piece(&frags, &pkt, addr_len, 1, 9, cases[i].start,
                      cases[i].len, cases[i].more, 0) != NGX_DECLINED);
        test_data[cases[i].other] ^= (cases[i].other != 0);

        bad += (frags.overlapping != 1 || frags.invalid != 0);

        /* nothing of it is taken until its time is over */

        bad += (piece(&frags, &pkt, addr_len, 1, 9, 0, 80, 1, 14999)
                != NGX_DECLINED);
        bad += (frags.datagrams != 1 || frags.timed_out != 0);

        bad += (piece(&frags, &pkt, addr_len, 1, 9, 0, 80, 1, 15000)
                != NGX_AGAIN);
        bad += (piece(&frags, &pkt, addr_len, 1, 9, 80, 5, 0, 15000)
                != NGX_OK);
        bad += !whole(&pkt, addr_len, 85);
        bad += (frags.datagrams != 0 || frags.timed_out != 1);

        ok(bad == 0, "IPv%d, overlap: %s: %d", addr_len == 4 ? 4 : 6,
           cases[i].name, (int) bad);

        ngx_tun_fragments_done(&frags);
    }
}


static void
test_invalid(size_t addr_len)
{
    int                  v;
    ngx_uint_t           i;
    ngx_tun_packet_t     pkt;
    ngx_tun_fragments_t  frags;

    static const struct {
        const char  *name;
        size_t       start;
        size_t       len;
        ngx_uint_t   more;
    } cases[] = {
        { "not a multiple of 8", 400, 81, 1 },
        { "without bytes", 400, 0, 1 },
        { "the last one without bytes", 400, 0, 0 },
        { "beyond all that can be", 65528, 8, 1 },
        { "just beyond all that can be", 65528, 8, 0 }
    };

    v = (addr_len == 4) ? 4 : 6;

    init(&frags);

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ok(piece(&frags, &pkt, addr_len, 1, 9, cases[i].start, cases[i].len,
                 cases[i].more, 0) == NGX_DECLINED,
           "IPv%d, invalid: %s", v, cases[i].name);
    }

    ok(frags.invalid == i && frags.datagrams == 0, "counted");

    /* the header is a part of what IPv4 can carry */

    ok(piece(&frags, &pkt, addr_len, 1, 5, 65512, 4, 0, 0)
       == ((addr_len == 4) ? NGX_DECLINED : NGX_AGAIN), "the last bytes");
    ok(piece(&frags, &pkt, addr_len, 1, 5, 65504, 8, 1, 0) == NGX_AGAIN,
       "before the last bytes");

    ngx_tun_fragments_done(&frags);
    init(&frags);
    i = 0;

    /* a last piece of another length */

    (void) piece(&frags, &pkt, addr_len, 1, 9, 160, 40, 0, 0);

    ok(piece(&frags, &pkt, addr_len, 1, 9, 240, 40, 0, 0) == NGX_DECLINED,
       "IPv%d: another last one behind it", v);
    ok(piece(&frags, &pkt, addr_len, 1, 9, 240, 40, 1, 0) == NGX_DECLINED,
       "a piece behind the last one");
    ok(piece(&frags, &pkt, addr_len, 1, 9, 80, 40, 0, 0) == NGX_DECLINED,
       "a last one before it");
    ok(frags.invalid == i + 3 && frags.overlapping == 0, "counted");

    ok(piece(&frags, &pkt, addr_len, 1, 9, 0, 80, 1, 0) == NGX_AGAIN
       && piece(&frags, &pkt, addr_len, 1, 9, 80, 80, 1, 0) == NGX_OK
       && whole(&pkt, addr_len, 200), "the datagram is not harmed");

    (void) piece(&frags, &pkt, addr_len, 1, 9, 160, 40, 1, 0);

    ok(piece(&frags, &pkt, addr_len, 1, 9, 80, 40, 0, 0) == NGX_DECLINED
       && frags.invalid == i + 4,
       "a last one before another piece");

    /* what is of other datagrams is not mixed */

    ok(piece(&frags, &pkt, addr_len, 1, 8, 0, 80, 1, 0) == NGX_AGAIN
       && piece(&frags, &pkt, addr_len, 2, 8, 80, 80, 0, 0) == NGX_AGAIN
       && piece(&frags, &pkt, addr_len, 1, 9 + 256, 80, 80, 0, 0) == NGX_AGAIN
       && frags.datagrams == 4 && frags.reassembled == 1,
       "other source, other id");

    ngx_tun_fragments_done(&frags);
}


static void
test_pieces(size_t addr_len)
{
    ngx_uint_t           i, bad;
    ngx_tun_packet_t     pkt;
    ngx_tun_fragments_t  frags;

    init(&frags);

    for (bad = 0, i = 0; i < 128; i++) {
        bad += (piece(&frags, &pkt, addr_len, 1, 9, i * 16, 8, 1, 0)
                != NGX_AGAIN);
    }

    bad += (piece(&frags, &pkt, addr_len, 1, 9, i * 16, 8, 1, 0)
            != NGX_DECLINED);
    bad += (frags.dropped != 1);

    ok(bad == 0, "IPv%d: no more than 128 pieces: %d", addr_len == 4 ? 4 : 6,
       (int) bad);

    ngx_tun_fragments_done(&frags);
}


static void
test_datagrams(size_t addr_len)
{
    int                  v;
    ngx_uint_t           i, bad;
    ngx_tun_packet_t     pkt;
    ngx_tun_fragments_t  frags;

    v = (addr_len == 4) ? 4 : 6;

    init(&frags);

    frags.max_datagrams = 10;

    (void) piece(&frags, &pkt, addr_len, 99, 1, 0, 8, 1, 0);

    for (bad = 0, i = 0; i < 25; i++) {
        bad += (piece(&frags, &pkt, addr_len, 1, i, 0, 8, 1, i) != NGX_AGAIN);
    }

    ok(bad == 0 && frags.datagrams == 11 && frags.dropped == 15,
       "IPv%d: datagrams of a source are limited", v);

    /* the oldest have given way, the others are there, so is their source */

    bad += (piece(&frags, &pkt, addr_len, 1, 15, 8, 8, 0, i) != NGX_OK);
    bad += (piece(&frags, &pkt, addr_len, 1, 24, 8, 8, 0, i) != NGX_OK);
    bad += (piece(&frags, &pkt, addr_len, 1, 14, 8, 8, 0, i) != NGX_AGAIN);
    bad += (piece(&frags, &pkt, addr_len, 99, 1, 8, 8, 0, i) != NGX_OK);

    ok(bad == 0, "the oldest gave way: %d", (int) bad);

    /* of all: 160, the source that has most gives way */

    frags.max_bytes = 100000;

    for (bad = 0, i = 0; i < 150; i++) {
        bad += (piece(&frags, &pkt, addr_len, 1000 + i, 1, 0, 5000, 1, 100)
                != NGX_AGAIN);
    }

    for (i = 0; i < 10; i++) {
        (void) piece(&frags, &pkt, addr_len, 1, 100 + i, 0, 8, 1, 100);
    }

    ok(bad == 0 && frags.datagrams == 160, "all of the room is in use: %d",
       (int) bad);

    (void) piece(&frags, &pkt, addr_len, 2000, 1, 0, 8, 1, 100);

    for (i = 0; i < 150; i++) {
        bad += (piece(&frags, &pkt, addr_len, 1000 + i, 1, 5000, 8, 0, 100)
                != NGX_OK);
    }

    bad += (piece(&frags, &pkt, addr_len, 2000, 1, 8, 8, 0, 100) != NGX_OK);
    bad += (piece(&frags, &pkt, addr_len, 1, 101, 8, 8, 0, 100) != NGX_OK);

    ok(bad == 0 && frags.datagrams == 8, "who has most gave way: %d",
       (int) bad);

    ngx_tun_fragments_done(&frags);
}


static void
test_bytes(size_t addr_len)
{
    int                  v;
    size_t               most;
    ngx_int_t            rc;
    ngx_uint_t           i, bad, source;
    ngx_tun_packet_t     pkt;
    ngx_tun_fragments_t  frags;

    v = (addr_len == 4) ? 4 : 6;

    init(&frags);

    frags.max_bytes = 100000;
    most = 0;
    bad = 0;

    for (i = 0; i < 200; i++) {
        bad += (piece(&frags, &pkt, addr_len, 1, i, 8000, 1000, 1, i)
                != NGX_AGAIN);
        most = ngx_max(most, frags.bytes);
    }

    ok(bad == 0 && most <= 100000 && most > 98000,
       "IPv%d: bytes of a source are limited: %d", v, (int) most);

    ok(piece(&frags, &pkt, addr_len, 1, 199, 0, 8000, 1, 200) == NGX_AGAIN
       && piece(&frags, &pkt, addr_len, 1, 199, 9000, 8, 0, 200) == NGX_OK
       && whole(&pkt, addr_len, 9008), "the youngest is there");

    for (source = 2; source < 30; source++) {
        for (i = 0; i < 100; i++) {
            (void) piece(&frags, &pkt, addr_len, source, i, 8000, 1000, 1, 300);
            most = ngx_max(most, frags.bytes);
        }
    }

    ok(most <= 1600000 && most > 1590000,
       "bytes of all are limited: %d", (int) most);

    (void) ngx_tun_fragment_expire(&frags, 20000);
    (void) ngx_tun_fragment_expire(&frags, 20000);
    (void) ngx_tun_fragment_expire(&frags, 20000);
    (void) ngx_tun_fragment_expire(&frags, 20000);
    (void) ngx_tun_fragment_expire(&frags, 20000);
    (void) ngx_tun_fragment_expire(&frags, 20000);

    ok(ngx_tun_fragment_expire(&frags, 20000) == 0 && frags.bytes == 0
       && frags.datagrams == 0 && frags.sources.nflows == 0
       && frags.table.nflows == 0, "all is given back");

    /* one that is larger than the limit goes, and does not come whole */

    frags.max_bytes = 5000;

    for (bad = 0, i = 0; i < 20; i++) {
        rc = piece(&frags, &pkt, addr_len, 1, 1, i * 1000, 1000, i < 19, 20000);
        bad += (rc == NGX_OK || frags.bytes > 5000);
    }

    ok(bad == 0, "larger than the limit");

    ngx_tun_fragments_done(&frags);
}


static void
test_timeout(size_t addr_len)
{
    int                  v;
    ngx_msec_t           start;
    ngx_uint_t           i;
    ngx_tun_packet_t     pkt;
    ngx_tun_fragments_t  frags;

    v = (addr_len == 4) ? 4 : 6;

    init(&frags);

    /* also where the time overflows */

    start = (ngx_msec_t) -5000;

    ok(ngx_tun_fragment_expire(&frags, start) == 0, "IPv%d: no timer", v);

    (void) piece(&frags, &pkt, addr_len, 1, 1, 0, 8, 1, start);
    (void) piece(&frags, &pkt, addr_len, 1, 2, 0, 8, 1, start + 4000);
    (void) piece(&frags, &pkt, addr_len, 1, 1, 8, 8, 1, start + 9000);

    ok(ngx_tun_fragment_expire(&frags, start + 14999) == 1
       && frags.datagrams == 2, "not yet");
    ok(ngx_tun_fragment_expire(&frags, start + 15000) == 4000
       && frags.datagrams == 1 && frags.timed_out == 1, "one is too old");

    ok(piece(&frags, &pkt, addr_len, 1, 1, 16, 8, 0, start + 15001)
       == NGX_AGAIN, "a late piece makes no whole");

    ok(piece(&frags, &pkt, addr_len, 1, 2, 8, 8, 0, start + 18999) == NGX_OK,
       "in the last moment");
    ok(ngx_tun_fragment_expire(&frags, start + 30001) == 0
       && frags.timed_out == 2, "nothing left, no timer");

    /* what is too old takes nobody's place */

    frags.max_datagrams = 1;

    (void) piece(&frags, &pkt, addr_len, 1, 1, 0, 8, 1, 0);
    (void) piece(&frags, &pkt, addr_len, 1, 2, 0, 8, 1, 15000);

    ok(frags.dropped == 0 && frags.timed_out == 3
       && piece(&frags, &pkt, addr_len, 1, 2, 8, 8, 0, 15000) == NGX_OK,
       "the oldest is not over a limit, but too old");

    /* a bounded number at once */

    frags.max_datagrams = 1000;

    for (i = 0; i < 700; i++) {
        (void) piece(&frags, &pkt, addr_len, 1, i, 0, 8, 1, 0);
    }

    ok(ngx_tun_fragment_expire(&frags, 15000) == 1 && frags.datagrams == 444,
       "a part of them at once");

    ok(piece(&frags, &pkt, addr_len, 1, 650, 8, 8, 0, 15000) == NGX_AGAIN
       && frags.datagrams == 188, "what is too old is not used");

    ok(ngx_tun_fragment_expire(&frags, 15000) == 15000
       && frags.datagrams == 1 && frags.timed_out == 703, "all of them");

    ngx_tun_fragments_done(&frags);
}


/* every allocation fails once */

static void
test_memory(size_t addr_len)
{
    ngx_int_t            rc;
    ngx_uint_t           i, n, bad;
    test_pieces_t        pieces;
    ngx_tun_packet_t     pkt;
    ngx_tun_fragments_t  frags;

    cut(&pieces, addr_len, 5000, 1400, 3, 8);

    for (bad = 0, n = 1; n < 20; n++) {

        ngx_memzero(&frags, sizeof(ngx_tun_fragments_t));

        frags.max_datagrams = 10;
        frags.max_bytes = 100000;
        frags.timeout = 1000;

        test_fail = n;

        if (ngx_tun_fragments_init(&frags, &test_log) == NGX_OK) {

            for (rc = NGX_ERROR, i = 0; i < pieces.n; i++) {
                rc = input_piece(&frags, &pkt, &pieces, i);
                bad += (frags.datagrams != frags.table.nflows);
                bad += (frags.datagrams != frags.sources.nflows);
            }

            bad += ((rc == NGX_OK) != (test_fail != 0));
            bad += (frags.dropped != (test_fail == 0));

        } else {
            bad += (n > 3);
        }

        test_fail = 0;

        ngx_tun_fragments_done(&frags);
    }

    ok(bad == 0, "IPv%d: without memory: %d", addr_len == 4 ? 4 : 6,
       (int) bad);

    release(&pieces);
}


/* headers before and behind the fragment header */

static size_t
chain(u_char *p, const char *before, const char *behind, size_t start,
    ngx_uint_t more, size_t len)
{
    size_t       n, next;
    const char  *s;

    n = header(p, 16, 1, 0);
    next = 6;

    for (s = before; /* void */ ; s++) {

        if (*s == '\0') {
            if (s == before + strlen(before) && behind != NULL) {
                p[next] = IPPROTO_FRAGMENT;
                next = n;
                ngx_memzero(p + n, 8);
                ngx_tun_packet_put16(p + n + 2, (start | more));
                p[n + 7] = 42;
                n += 8;
            }

            break;
        }

        p[next] = (u_char) *s;
        next = n;
        ngx_memzero(p + n, 16);
        n += 8;

        if (*s == IPPROTO_AH) {
            p[n - 7] = 2;
            n += 8;

        } else if (*s == IPPROTO_FRAGMENT) {
            /* reserved */
            p[n - 7] = 1;
        }
    }

    for (s = behind; *s; s++) {
        p[next] = (u_char) *s;
        next = n;
        ngx_memzero(p + n, 16);
        n += 8;
    }

    p[next] = IPPROTO_UDP;

    ngx_memcpy(p + n, test_data + start, len);
    n += len;

    ngx_tun_packet_put16(p + 4, (n - 40));

    return n;
}


static void
test_chain(void)
{
    size_t               n, before;
    u_char               p[3000];
    ngx_int_t            rc;
    ngx_uint_t           i;
    ngx_tun_packet_t     pkt;
    ngx_tun_fragments_t  frags;

    static const struct {
        const char  *before;
        const char  *behind;
        size_t       len;
        ngx_int_t    rc;
    } cases[] = {
        { "", "", 16, NGX_AGAIN },
        { "\x3c", "", 16, NGX_AGAIN },
        { "\x3c\x3c", "", 16, NGX_AGAIN },
        { "\x2c", "", 16, NGX_AGAIN },
        { "\x3c\x2c\x3c", "\x3c", 16, NGX_AGAIN },
        { "\x33\x3c", "", 16, NGX_AGAIN },
        { "\x2c\x3c", "", 16, NGX_AGAIN },
        { "", "\x3c", 16, NGX_AGAIN },
        { "", "\x3c\x3c", 8, NGX_AGAIN },
        { "", "\x3c\x3c", 0, NGX_DECLINED },
        { "", "\x3c\x3c\x3c\x3c\x3c\x3c\x3c\x3c\x3c", 16, NGX_DECLINED },
        { "", "\x2b", 16, NGX_DECLINED }
    };

    init(&frags);

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {

        n = chain(p, cases[i].before, cases[i].behind, 0, 1, cases[i].len);
        rc = input(&frags, &pkt, p, n, 0);

        ok(rc == cases[i].rc, "IPv6, first piece, chain %d: %d", (int) i,
           (int) rc);

        if (rc == NGX_DECLINED) {
            ok(frags.datagrams == 0, "not kept");
            continue;
        }

        /* the rest has one unfragmentable header less, or more */

        n = strlen(cases[i].behind) * 8;
        before = (strlen(cases[i].before) + (cases[i].before[0] == '\x33'))
                 * 8;

        rc = chain(p, "\x3c", "", cases[i].len, 0, 100);

        ngx_tun_packet_put16(p + 50, (cases[i].len + n));

        rc = input(&frags, &pkt, p, rc, 0);

        ok(rc == NGX_OK && whole(&pkt, 16, cases[i].len + 100)
           && pkt.payload == pkt.start + 40 + before + n,
           "whole");
    }

    ngx_tun_fragments_done(&frags);
}


/* of IPv6 the first piece is to hold the header, RFC 7112 */

static void
test_protocols(void)
{
    u_char               save;
    ngx_int_t            rc;
    ngx_uint_t           i;
    ngx_tun_packet_t     pkt;
    ngx_tun_fragments_t  frags;

    static const struct {
        const char  *name;
        size_t       addr_len;
        u_char       protocol;
        u_char       tcp;          /* the length of its header */
        size_t       len;
        ngx_int_t    rc;
    } cases[] = {
        { "UDP", 4, IPPROTO_UDP, 0, 8, NGX_AGAIN },
        { "ICMP", 4, IPPROTO_ICMP, 0, 8, NGX_AGAIN },
        { "TCP", 4, IPPROTO_TCP, 20, 8, NGX_AGAIN },
        { "UDP", 16, IPPROTO_UDP, 0, 8, NGX_AGAIN },
        { "ICMPv6", 16, IPPROTO_ICMPV6, 0, 8, NGX_AGAIN },
        { "SCTP", 16, 132, 0, 8, NGX_AGAIN },
        { "TCP", 16, IPPROTO_TCP, 20, 24, NGX_AGAIN },
        { "TCP and options", 16, IPPROTO_TCP, 40, 40, NGX_AGAIN },
        { "TCP, too short", 16, IPPROTO_TCP, 20, 16, NGX_DECLINED },
        { "TCP, options too short", 16, IPPROTO_TCP, 40, 32, NGX_DECLINED },
        { "TCP, invalid", 16, IPPROTO_TCP, 16, 40, NGX_DECLINED }
    };

    init(&frags);

    save = test_data[12];

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {

        test_protocol = cases[i].protocol;
        test_data[12] = (u_char) (cases[i].tcp / 4 << 4);

        rc = piece(&frags, &pkt, cases[i].addr_len, 1, 3, 0, cases[i].len, 1,
                   0);

        ok(rc == cases[i].rc, "IPv%d, first piece: %s",
           cases[i].addr_len == 4 ? 4 : 6, cases[i].name);

        if (rc != NGX_AGAIN) {
            continue;
        }

        rc = piece(&frags, &pkt, cases[i].addr_len, 1, 3, cases[i].len, 33, 0,
                   0);

        ok(rc == NGX_OK && whole(&pkt, cases[i].addr_len, cases[i].len + 33),
           "whole");
    }

    test_data[12] = save;

    /* another protocol is another datagram of IPv4, but not of IPv6 */

    test_protocol = IPPROTO_UDP;
    (void) piece(&frags, &pkt, 4, 1, 3, 0, 8, 1, 0);
    (void) piece(&frags, &pkt, 16, 1, 3, 0, 8, 1, 0);

    test_protocol = IPPROTO_ICMP;
    ok(piece(&frags, &pkt, 4, 1, 3, 8, 8, 0, 0) == NGX_AGAIN, "IPv4: apart");

    rc = piece(&frags, &pkt, 16, 1, 3, 8, 8, 0, 0);
    test_protocol = IPPROTO_UDP;
    ok(rc == NGX_OK && whole(&pkt, 16, 16), "IPv6: the first piece says what "
       "it is");

    ngx_tun_fragments_done(&frags);
}


/* options of IPv4 are of the first piece; so is what it leaves of 65,535 */

static void
test_options(void)
{
    size_t               n, len;
    u_char               p[140];
    uint16_t             sum;
    ngx_int_t            rc;
    ngx_uint_t           i;
    ngx_tun_packet_t     pkt;
    ngx_tun_fragments_t  frags;

    static const size_t  lens[] = { 180, 65475, 65483 };

    init(&frags);

    for (i = 0; i < 3; i++) {
        len = lens[i];

        (void) header(p, 4, 1, IPPROTO_UDP);

        ngx_memset(p + 20, 1, 40);
        ngx_memcpy(p + 60, test_data, 80);

        p[0] = 0x4f;
        ngx_tun_packet_put16(p + 2, 140);
        ngx_tun_packet_put16(p + 6, 0x2000);

        sum = ~ngx_tun_packet_fold(ngx_tun_packet_sum(p, 60, 0));
        ngx_memcpy(p + 10, &sum, 2);

        rc = input(&frags, &pkt, p, 140, 0);
        ok(rc == NGX_AGAIN, "IPv4, options: %d", (int) rc);

        for (n = 80; n + 8000 < len; n += 8000) {
            (void) piece(&frags, &pkt, 4, 1, 0, n, 8000, 1, 0);
        }

        rc = piece(&frags, &pkt, 4, 1, 0, n, len - n, 0, 0);

        /* the last piece of the last one could be valid, but not the whole */

        if (len == 65483) {
            ok(rc == NGX_DECLINED && frags.invalid == 1
               && frags.datagrams == 0, "too large");
            continue;
        }

        ok(rc == NGX_OK && whole(&pkt, 4, len)
           && pkt.payload - pkt.start == 60
           && ngx_tun_packet_get16(pkt.start + 2) == (int) (60 + len), "whole: %d",
           (int) len);
    }

    ngx_tun_fragments_done(&frags);
}


static void
test_chain_long(void)
{
    size_t               n;
    u_char               p[300];
    ngx_int_t            rc;
    ngx_uint_t           i;
    ngx_tun_packet_t     pkt;
    ngx_tun_fragments_t  frags;

    init(&frags);

    /* each part is short enough, the whole is not */

    n = chain(p, "\x3c\x3c\x3c\x3c\x3c", "\x3c\x3c\x3c\x3c\x3c", 0, 1, 8);
    rc = input(&frags, &pkt, p, n, 0);
    ok(rc == NGX_AGAIN, "IPv6, a long chain: %d", (int) rc);

    n = chain(p, "", "", 8, 0, 9);
    ngx_tun_packet_put16(p + 42, 48);
    rc = input(&frags, &pkt, p, n, 0);
    ok(rc == NGX_DECLINED && frags.invalid == 1 && frags.datagrams == 0,
       "the whole is invalid: %d", (int) rc);

    /* what precedes the first fragment header is a part of the whole */

    n = chain(p, "\x3c", "", 0, 1, 80);
    rc = input(&frags, &pkt, p, n, 0);
    ok(rc == NGX_AGAIN, "IPv6, another header: %d", (int) rc);

    for (i = 80; i < 64080; i += 8000) {
        (void) piece(&frags, &pkt, 16, 1, 42, i, 8000, 1, 0);
    }

    rc = piece(&frags, &pkt, 16, 1, 42, i, 65528 - i, 0, 0);
    ok(rc == NGX_DECLINED && frags.invalid == 2 && frags.datagrams == 0,
       "too large: %d", (int) rc);

    /* a fragment in a fragment */

    n = chain(p, "", "\x2c", 0, 1, 8);
    ngx_tun_packet_put16(p + 50, 1);
    rc = input(&frags, &pkt, p, n, 0);
    ok(rc == NGX_DECLINED && frags.invalid == 3, "nested: %d", (int) rc);

    ngx_tun_fragments_done(&frags);
}


/* a /64 is one source, whatever is in the rest of the address */

static void
test_network(void)
{
    u_char               p[100];
    ngx_uint_t           i;
    ngx_tun_packet_t     pkt;
    ngx_tun_fragments_t  frags;

    init(&frags);

    frags.max_datagrams = 5;

    for (i = 0; i < 20; i++) {
        (void) header(p, 16, 1, IPPROTO_FRAGMENT);

        p[5] = 16;
        p[16 + i % 8] = (u_char) (i + 1);

        ngx_memzero(p + 40, 16);
        p[40] = IPPROTO_UDP;
        p[43] = 1;

        (void) input(&frags, &pkt, p, 56, 0);
    }

    ok(frags.datagrams == 5 && frags.dropped == 15, "a /64 is one source");

    ngx_tun_fragments_done(&frags);
}


static void
test_both(size_t addr_len)
{
    test_overlap(addr_len);
    test_invalid(addr_len);
    test_pieces(addr_len);
    test_datagrams(addr_len);
    test_bytes(addr_len);
    test_timeout(addr_len);
    test_memory(addr_len);
}


int
main(void)
{
    size_t  i;

    test_log.log_level = 0;

    srandom(1);

    for (i = 0; i < TEST_SIZE; i++) {
        test_data[i] = (u_char) random();
    }

    test_order(4, 576);
    test_order(4, 1500);
    test_order(16, 1280);
    test_order(16, 1500);

    test_lengths(4, 576);
    test_lengths(4, 1500);
    test_lengths(16, 1280);
    test_lengths(16, 9000);

    test_headers();
    test_chain();
    test_chain_long();
    test_protocols();
    test_options();
    test_network();

    test_both(4);
    test_both(16);

    return done();
}
