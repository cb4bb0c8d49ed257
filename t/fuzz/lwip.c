
/*
 * Copyright (C) the nginx-tun authors
 */

/* lwip */
/* link: t/unit/lib/peer.c */


/*
 * libFuzzer: bytes as a sequence of segments of two flows, of what their
 * owner does, and of time.  The peers check every byte of both directions.
 */


#include <stdio.h>

#include "../unit/lib/peer.h"


#define FUZZ_FLOWS   2
#define FUZZ_STEPS   400
#define FUZZ_QUEUED  (4 * 1024 * 1024)


typedef struct {
    const uint8_t  *pos;
    const uint8_t  *end;
} fuzz_t;


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __wrap_ngx_tun_lwip_assert(const char *message, const char *file,
    int line);


static ngx_tun_lwip_t  *lwip;
static peer_t           peers[FUZZ_FLOWS];


static void
check(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "fuzz: %s\n", what);
        abort();
    }
}


/* linked in place of the one that counts */

void
__wrap_ngx_tun_lwip_assert(const char *message, const char *file, int line)
{
    check(0, message);
}


static uint32_t
get8(fuzz_t *in)
{
    return (in->pos < in->end) ? *in->pos++ : 0;
}


static uint32_t
get16(fuzz_t *in)
{
    uint32_t  v;

    v = get8(in) << 8;

    return v | get8(in);
}


/* around 0, and far away */

static uint32_t
get_delta(fuzz_t *in)
{
    uint32_t  v;

    v = get8(in);

    switch (v & 7) {

    case 0:
    case 1:
    case 2:
        return 0;

    case 3:
        return v >> 3;

    case 4:
        return (uint32_t) -(int32_t) (v >> 3);

    case 5:
        return get16(in);

    case 6:
        return (uint32_t) -(int32_t) get16(in);

    default:
        return get16(in) << 16 | get16(in);
    }
}


static void
get_options(fuzz_t *in, peer_t *peer)
{
    uint32_t  i;

    peer->noptions = (uint8_t) (get8(in) % 11 * 4);

    for (i = 0; i < peer->noptions; i++) {
        peer->options[i] = (uint8_t) get8(in);
    }
}


static void
fuzz_done(peer_t *peer)
{
    char  what[32];

    peer_done(peer);

    snprintf(what, sizeof(what), "peer.c:%u", peer->bad_line);
    check(peer->bad == 0, what);
    check(peer->pieces == NULL, "bytes are held");
    check(peer->closed == 1, "closed");
}


static void
fuzz_open(fuzz_t *in, peer_t *peer, uint32_t v)
{
    uint32_t  seq, n;

    n = (uint32_t) (peer - peers);

    if (peer->flow.pcb != NULL) {
        seq = peer->seq + 100000;

        if (!ngx_tun_lwip_reusable(&peer->flow, seq)) {
            get_options(in, peer);
            peer_segment(peer, TH_SYN, peer->seq + get_delta(in), 0, 0);
            peer->noptions = 0;
            return;
        }
    }

    fuzz_done(peer);
    peer_init(peer, lwip, n, n ? 16 : 4);

    if (v & 1) {
        get_options(in, peer);
    }

    if (v & 2) {
        peer->window = (uint16_t) get16(in);
    }

    if (peer_open(peer) == 0 && (v & 4)) {
        peer_ack(peer);
    }
}


static void
fuzz_segment(fuzz_t *in, peer_t *peer, uint32_t v)
{
    uint8_t   flags;
    uint32_t  len, seq, ack;

    flags = TH_ACK;
    seq = peer->seq;
    ack = peer->ack;

    if (v & 1) {
        flags = (uint8_t) get8(in);
    }

    if (v & 2) {
        seq += get_delta(in);
        ack += get_delta(in);
    }

    if (v & 4) {
        peer->window = (uint16_t) get16(in);
        get_options(in, peer);
    }

    len = get8(in);
    len = (len < 128) ? len * 11 : (len - 127) * 500;

    if (seq == peer->seq) {
        peer->seq += len + ((flags & TH_FIN) != 0);
    }

    peer_segment(peer, flags, seq, ack, len);
    peer->noptions = 0;
}


static void
fuzz_step(fuzz_t *in)
{
    peer_t    *peer;
    uint32_t   v;

    v = get8(in);
    peer = &peers[v & 1];
    v >>= 1;

    switch (v & 15) {

    case 0:
        peer_ticks(1 + (v >> 4));
        break;

    case 1:
        peer_ticks(get8(in));
        break;

    case 2:
        (void) peer_read(peer, 1 + get16(in));
        break;

    case 3:

        if (peer->flow.established
            && peer->written - peer->released < FUZZ_QUEUED)
        {
            (void) peer_send(peer, 1 + get16(in));
        }

        break;

    case 4:

        if (peer->flow.pcb != NULL) {
            (v & 16) ? ngx_tun_lwip_flush_full(&peer->flow)
                     : ngx_tun_lwip_flush(&peer->flow);
        }

        break;

    case 5:

        if (peer->flow.established) {
            ngx_tun_lwip_shutdown(&peer->flow);
        }

        break;

    case 6:
        ngx_tun_lwip_close(&peer->flow);
        break;

    case 7:
        (v & 16) ? ngx_tun_lwip_abort(&peer->flow)
                 : ngx_tun_lwip_drop(&peer->flow);
        break;

    case 8:
        (void) ngx_tun_lwip_shrink(&peer->flow, peer->ack - get16(in),
                                   (uint16_t) get16(in));
        break;

    case 9:
        v = get8(in);
        peer->full = v & 1;
        peer->refuse = (v >> 1) & 1;
        peer->deaf = (v >> 2) & 1;
        peer->bufs = (v >> 3) & 1;
        break;

    case 10:
        fuzz_open(in, peer, v >> 4);
        break;

    case 11:
        peer_ack(peer);
        break;

    default:
        fuzz_segment(in, peer, v >> 4);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_t     in;
    uint32_t   i, time_wait;

    if (lwip == NULL) {
        lwip = ngx_tun_lwip_create(&peer_ops, NULL, 1500);

        if (lwip == NULL) {
            abort();
        }
    }

    in.pos = data;
    in.end = data + size;

    for (i = 0; i < FUZZ_FLOWS; i++) {
        peer_init(&peers[i], lwip, i, i ? 16 : 4);
        (void) peer_connect(&peers[i]);
    }

    for (i = 0; in.pos < in.end && i < FUZZ_STEPS; i++) {
        fuzz_step(&in);
    }

    for (i = 0; i < FUZZ_FLOWS; i++) {
        fuzz_done(&peers[i]);
    }

    check(ngx_tun_lwip_busy(&time_wait) == 0 && time_wait == 0, "list");
    check(ngx_tun_lwip_memory(lwip) == 0, "memory");
    check(ngx_tun_lwip_asserts() == 0, "assert");

    return 0;
}
