
/*
 * Copyright (C) the nginx-tun authors
 */

/* lwip */
/* link: t/unit/lib/peer.c */


#include <malloc.h>

#include "lib/peer.h"
#include "lib/tap.h"


#define FIN  TH_FIN
#define SYN  TH_SYN
#define RST  TH_RST
#define ACK  TH_ACK

/* ticks of a second, and those after which a flow in TIME-WAIT is gone */
#define SECOND     (1000 / NGX_TUN_LWIP_TICK)
#define TIME_WAIT  (11 * SECOND)


static ngx_tun_lwip_t  *lwip;
static uint32_t         number;


static uint32_t
hot(void)
{
    uint32_t  time_wait;

    return ngx_tun_lwip_busy(&time_wait);
}


static uint32_t
time_wait(void)
{
    uint32_t  n;

    (void) ngx_tun_lwip_busy(&n);

    return n;
}


static void
start(peer_t *peer, uint32_t addr_len)
{
    peer_init(peer, lwip, number++, addr_len);

    if (peer_connect(peer) != 0) {
        ok(0, "a flow is established");
    }
}


/* no window; lwIP takes a smaller one with a new sequence number only */

static void
shut(peer_t *peer)
{
    peer->window = 0;

    peer_data(peer, 1);
    peer_ack(peer);
    peer_ticks(4);
}


/* the end of a test: no trace of it is left, and nothing was wrong */

static void
finish(peer_t *peer, const char *name)
{
    peer_done(peer);

    ok(peer->closed == 1 && peer->pieces == NULL, "%s: closed once", name);
    ok(peer->bad == 0, "%s: bytes and lengths", name);
    ok(hot() == 0 && time_wait() == 0, "%s: in no list", name);
    ok(ngx_tun_lwip_memory(lwip) == 0, "%s: no memory", name);
    ok(ngx_tun_lwip_asserts() == 0, "%s: no asserts", name);
}


static void
test_handshake(uint32_t addr_len)
{
    peer_t  peer;

    peer_init(&peer, lwip, number++, addr_len);

    ok(peer_open(&peer) == 0, "opened");
    ok(peer.packets == 1 && peer.last.flags == (SYN|ACK), "SYN|ACK");
    ok(peer.last.seq == peer.iss, "initial sequence number");
    ok(peer.last.ack == peer.isn + 1, "acknowledges the SYN");
    ok(peer.last.options[0] == 2 && peer.last.options[1] == 4
       && (peer.last.options[2] << 8 | peer.last.options[3])
          == ((addr_len == 4) ? 1460 : 1440), "MSS of the MTU");
    ok(peer.our_scale == 7, "window scale");
    ok(!peer.flow.established, "not established yet");
    ok(hot() == 1, "waits for a tick");

    peer_ack(&peer);

    ok(peer.flow.established && peer.packets == 1, "established in silence");
    ok(peer.flow.mss == ((addr_len == 4) ? 1460 : 1440), "MSS of a flow");

    peer_ticks(4);

    ok(hot() == 0, "idle, so in no list");
    ok(peer.packets == 1, "and nothing was sent");

    finish(&peer, "handshake");

    /* SYN|ACK is sent again, later and later, and then no more */

    peer_init(&peer, lwip, number++, addr_len);
    (void) peer_open(&peer);

    peer_ticks(2 * SECOND);
    ok(peer.packets >= 2 && peer.last.flags == (SYN|ACK)
       && peer.last.seq == peer.iss, "SYN|ACK again");

    peer_ticks(30 * SECOND);
    ok(peer.closed == 1 && peer.resets == 0, "given up silently");
    ok(peer.packets <= 8, "with backoff");

    finish(&peer, "no answer");

    /* the SYN comes again */

    peer_init(&peer, lwip, number++, addr_len);
    (void) peer_open(&peer);
    peer_segment(&peer, SYN, peer.isn, 0, 0);

    ok(peer.packets == 2 && peer.last.flags == (SYN|ACK)
       && peer.last.seq == peer.iss && peer.last.noptions != 0,
       "SYN|ACK to the same SYN");

    peer_segment(&peer, ACK, peer.seq, peer.ack + 100, 0);
    ok(peer.resets == 1 && peer.last.seq == peer.iss + 101,
       "RST for a wrong ACK");
    ok(peer.closed == 0, "that ends nothing");

    peer_ack(&peer);
    ok(peer.flow.established, "the right one establishes");

    finish(&peer, "SYN again");

    /* the peer changes its mind */

    peer_init(&peer, lwip, number++, addr_len);
    (void) peer_open(&peer);
    peer_segment(&peer, RST, peer.seq, 0, 0);

    ok(peer.closed == 1 && peer.packets == 1, "RST of the half-open");

    finish(&peer, "RST after SYN");

    /* we do */

    peer_init(&peer, lwip, number++, addr_len);
    (void) peer_open(&peer);
    ngx_tun_lwip_drop(&peer.flow);

    ok(peer.closed == 1 && peer.packets == 1, "dropped without a word");

    finish(&peer, "drop");

    peer_init(&peer, lwip, number++, addr_len);
    (void) peer_open(&peer);
    ngx_tun_lwip_close(&peer.flow);

    ok(peer.closed == 1 && peer.resets == 1, "closed early is RST");

    finish(&peer, "early close");
}


static void
test_options(void)
{
    size_t         n;
    peer_t         peer;
    const uint8_t *o;

    static const struct {
        const char  *name;
        uint8_t      len;
        uint8_t      options[8];
        uint16_t     mss;
    } cases[] = {
        { "none", 0, { 0 }, 536 },
        { "MSS 0", 4, { 2, 4, 0, 0 }, 536 },
        { "MSS 1", 4, { 2, 4, 0, 1 }, 48 },
        { "MSS 65535", 4, { 2, 4, 255, 255 }, 1460 },
        { "MSS cut", 4, { 1, 1, 2, 4 }, 536 },
        { "MSS at the end", 4, { 1, 1, 1, 2 }, 536 },
        { "scale at the end", 4, { 1, 1, 1, 3 }, 536 },
        { "SACK at the end", 4, { 1, 1, 1, 4 }, 536 },
        { "unknown at the end", 4, { 1, 1, 1, 99 }, 536 },
        { "length 0", 4, { 99, 0, 0, 0 }, 536 },
        { "length beyond", 4, { 99, 40, 0, 0 }, 536 },
        { "scale 200", 8, { 2, 4, 5, 180, 1, 3, 3, 200 }, 1460 }
    };

    for (n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
        peer_init(&peer, lwip, number++, 4);

        o = cases[n].options;

        memcpy(peer.options, o, 8);
        peer.noptions = cases[n].len;

        ok(peer_connect(&peer) == 0, "options, %s", cases[n].name);

        /* a malformed MSS is not the parser's, so the test says it is none */

        ok(peer.flow.mss == cases[n].mss
           || (o[0] == 1 && peer.flow.mss == 536), "and MSS %d",
           peer.flow.mss);

        finish(&peer, cases[n].name);
    }
}


/* a MSS is a word of a SYN; from an ACK it would change what we cut */

static void
test_late_mss(uint32_t addr_len)
{
    peer_t  peer;

    start(&peer, addr_len);

    shut(&peer);

    ok(peer_send(&peer, 60000) == 60000, "a segment waits");

    peer_options(&peer, 1, 255, 0);
    peer_ack(&peer);
    peer.noptions = 0;

    ok(peer_send(&peer, 60000) == 60000, "and more");

    peer.window = 65535;
    peer_ack(&peer);
    peer_ticks(10);
    peer_ack(&peer);
    peer_ack(&peer);

    ok(peer.packets < 20, "in large segments, %u", peer.packets);
    ok(peer.released == 120000, "all arrives, %u", peer.released);

    finish(&peer, "late MSS");
}


/* the largest window seen bounds a segment: it must not do so too late */

static void
test_late_window(uint32_t addr_len)
{
    peer_t    peer;
    unsigned  n;

    peer_init(&peer, lwip, number++, addr_len);
    peer_options(&peer, 1460, 255, 1);
    peer.window = 0;
    peer_connect(&peer);

    ok(peer_send(&peer, 65475) == 65475, "all the window there never was");

    peer.window = 100;
    peer_ack(&peer);

    ok(peer_send(&peer, 30000) == 30000, "more, with a small window");

    peer.window = 65535;

    for (n = 0; n < 100 && peer.released != 95475; n++) {
        peer_ack(&peer);
        peer_ticks(2);
    }

    ok(peer.released == 95475, "all arrives, %u", peer.released);

    finish(&peer, "late window");
}


static void
test_data(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  packets;

    start(&peer, addr_len);

    peer_data(&peer, 1000);

    ok(peer.flow.readable == 1000, "data");
    ok(peer_read(&peer, 300) == 300 && peer_read(&peer, 10000) == 700,
       "is read");
    ok(peer.packets == 1, "no ACK at once");

    ngx_tun_lwip_flush(&peer.flow);
    ok(peer.packets == 1, "nor with the flush of a batch");

    peer_ticks(1);
    ok(peer.packets == 2 && peer.last.flags == ACK
       && peer.last.ack == peer.seq, "but with the tick");

    peer_ticks(3);
    ok(hot() == 0, "then idle");

    packets = peer.packets;

    peer_data(&peer, 1460);
    peer_data(&peer, 1460);
    peer_data(&peer, 1460);
    ok(peer.packets == packets, "three segments of a batch");

    ngx_tun_lwip_flush(&peer.flow);
    ok(peer.packets == packets + 1 && peer.last.ack == peer.seq,
       "have one ACK");

    (void) peer_read(&peer, 65536);

    /* the other direction */

    packets = peer.packets;

    ok(peer_send(&peer, 10000) == 10000, "sent");
    ok(peer.packets == packets, "with the flush");
    ngx_tun_lwip_flush(&peer.flow);
    ok(peer.packets == packets + 1 && peer.last.len == 10000
       && peer.last.flags == (ACK|TH_PUSH), "in one piece");
    ok(hot() == 1, "waits for its ACK");

    peer_ack(&peer);
    ok(peer.released == 10000 && peer.pieces == NULL, "acknowledged");

    peer_ticks(3);
    ok(hot() == 0, "idle again");

    /* a segment that may still grow waits while others are on their way */

    packets = peer.packets;

    (void) peer_send(&peer, 30000);
    ngx_tun_lwip_flush_full(&peer.flow);
    ok(peer.packets == packets + 1, "nothing was on its way");
    (void) peer_send(&peer, 10000);
    ngx_tun_lwip_flush_full(&peer.flow);
    ok(peer.packets == packets + 1, "a short one waits");
    ngx_tun_lwip_flush(&peer.flow);
    ok(peer.packets == packets + 2 && peer.last.len == 10000,
       "for the flush");

    peer_ack(&peer);
    ok(peer.released == 50000, "acknowledged too");

    /* duplicates are acknowledged, and not read twice */

    packets = peer.packets;

    peer_segment(&peer, ACK, peer.seq - 1460, peer.ack, 1460);
    ok(peer.packets == packets + 1 && peer.last.ack == peer.seq
       && peer.flow.readable == 0, "a duplicate");

    peer_segment(&peer, ACK, peer.seq - 1460, peer.ack, 2000);
    peer.seq += 540;
    ok(peer.flow.readable == 540, "half a duplicate");
    (void) peer_read(&peer, 1000);

    finish(&peer, "data");
}


static void
test_order(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  n, seq;

    start(&peer, addr_len);

    /* the hole is filled last, then there are more than 64 KB at once */

    seq = peer.seq;

    for (n = 150; n != 0; n--) {
        peer_segment(&peer, ACK, seq + n * 1000, peer.ack, 1000);
    }

    ok(peer.flow.readable == 0 && peer.last.ack == seq, "out of order");
    ok(peer.last.noptions != 0 && peer.last.options[2] == 5, "SACK");
    ok(ngx_tun_lwip_memory(lwip) > 150000, "memory is counted");
    ok(hot() == 1, "may be forgotten with time");

    peer_segment(&peer, ACK, seq, peer.ack, 1000);
    peer.seq = seq + 151000;

    ok(peer.flow.readable == 151000, "all is there at once");
    ok(peer_read(&peer, 200000) == 151000 && peer.bad == 0, "in order");
    ok(ngx_tun_lwip_memory(lwip) == 0, "memory is given back");

    /* overlaps, the end out of order */

    seq = peer.seq;

    peer_segment(&peer, ACK|FIN, seq + 3000, peer.ack, 1000);
    peer_segment(&peer, ACK, seq + 2500, peer.ack, 1000);
    peer_segment(&peer, ACK, seq + 500, peer.ack, 1500);
    ok(!peer.flow.eof, "FIN out of order");

    peer_segment(&peer, ACK, seq, peer.ack, 2600);
    peer.seq = seq + 4001;

    ok(peer.flow.readable == 4000 && peer.flow.eof, "then the end");
    ok(peer_read(&peer, 5000) == 4000, "is read");

    peer_ticks(4);
    ok(hot() == 0 && peer.last.ack == peer.seq, "idle after the end");

    finish(&peer, "order");

    /* old data out of order are dropped */

    start(&peer, addr_len);
    peer_segment(&peer, ACK, peer.seq + 1000, peer.ack, 1000);
    peer_ticks(10 * SECOND);
    ok(ngx_tun_lwip_memory(lwip) == 0 && hot() == 0, "forgotten");

    peer_data(&peer, 2000);
    ok(peer_read(&peer, 3000) == 2000, "and sent again");

    finish(&peer, "forgotten");
}


/* segments of the largest size, in buffers that the stack keeps */

static void
test_buffers(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  len, seq;

    start(&peer, addr_len);

    peer.bufs = 1;
    len = 65535 - 20 - 20 - ((addr_len == 4) ? 0 : 20);

    peer_data(&peer, len);
    ok(peer.flow.readable == len, "a segment of %u bytes", len);
    ok(ngx_tun_lwip_memory(lwip) == NGX_TUN_LWIP_BUF_SIZE, "is a buffer");

    peer_data(&peer, 16384 - 21);
    ok(ngx_tun_lwip_memory(lwip) < NGX_TUN_LWIP_BUF_SIZE + 17000,
       "a short one is a copy");

    seq = peer.seq;
    peer_segment(&peer, ACK, seq + 40000, peer.ack, 40000);
    peer_segment(&peer, ACK, seq + 40000, peer.ack, 40000);
    peer_segment(&peer, ACK, seq - 20000, peer.ack, 20000);
    peer_segment(&peer, ACK, seq - 20000, peer.ack, 60000);
    peer.seq = seq + 80000;

    len += 16384 - 21 + 80000;
    ok(peer.flow.readable == len, "order of buffers");
    ok(peer_read(&peer, 300000) == len, "and bytes");
    ok(ngx_tun_lwip_memory(lwip) == 0, "and memory");

    /* one that is dropped may be used again */

    peer_segment(&peer, ACK, peer.seq - 40000, peer.ack + 100000, 40000);
    ok(ngx_tun_lwip_memory(lwip) == 0, "unacceptable");

    finish(&peer, "buffers");

    /* what a flow that dies holds is given back */

    start(&peer, addr_len);
    peer.bufs = 1;
    peer_data(&peer, 30000);
    peer_segment(&peer, ACK, peer.seq + 30000, peer.ack, 30000);
    peer_segment(&peer, RST, peer.seq, 0, 0);

    ok(peer.closed == 1 && peer.flow.reset, "RST");
    ok(peer.flow.readable == 30000, "what was there before can be read");
    ok(peer_read(&peer, 10000) == 10000, "in part");

    finish(&peer, "RST with data");
}


static void
test_window(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  n, total, packets, window;

    start(&peer, addr_len);

    for (total = 0; total < NGX_TUN_LWIP_WINDOW; total += 32768) {
        peer_data(&peer, 32768);
        ngx_tun_lwip_flush(&peer.flow);
    }

    ok(peer.last.window == 0 && peer.last.ack == peer.seq,
       "the window closes");

    packets = peer.packets;
    peer_segment(&peer, ACK, peer.seq, peer.ack, 1);
    ok(peer.packets == packets + 1 && peer.last.ack == peer.seq
       && peer.last.window == 0, "a probe is answered");
    ok(peer.flow.readable == total, "and its byte not taken");

    packets = peer.packets;
    (void) peer_read(&peer, 100);
    ngx_tun_lwip_flush(&peer.flow);
    ok(peer.packets == packets, "no update for 100 bytes");

    (void) peer_read(&peer, 65536);
    ngx_tun_lwip_flush(&peer.flow);
    ok(peer.packets == packets + 1 && peer.last.window >= 65536 - 128,
       "an update for a quarter of the window");

    /* who reads all gets more */

    window = 0;

    for (n = 0; n < 1000; n++) {
        peer_data(&peer, 32768);
        ngx_tun_lwip_flush(&peer.flow);
        (void) peer_read(&peer, 1000000);
        ngx_tun_lwip_flush(&peer.flow);

        if (peer.last.window > window) {
            window = peer.last.window;
        }
    }

    ok(window > 4000000 && window <= 4 * 1024 * 1024,
       "the window has grown to %u", window);

    /* out of memory the window closes, and opens with the next read */

    peer_data(&peer, 1000);
    peer.full = 1;
    peer_segment(&peer, ACK, peer.seq, peer.ack, 1000);
    ok(peer.flow.starved && peer.last.window == 0
       && peer.flow.readable == 1000, "starved");

    packets = peer.packets;
    ngx_tun_lwip_flush(&peer.flow);
    ok(peer.packets == packets, "no update before a read");

    peer.full = 0;
    (void) peer_read(&peer, 1000);
    ngx_tun_lwip_flush(&peer.flow);
    ok(peer.last.window > 0, "open again");

    peer_data(&peer, 1000);
    ok(peer_read(&peer, 1000) == 1000, "and data comes");

    finish(&peer, "window");

    /* a peer without scaling */

    peer_init(&peer, lwip, number++, addr_len);
    peer_options(&peer, 1460, 255, 0);
    peer_connect(&peer);
    peer.our_scale = 0;

    for (n = 0; n < 100; n++) {
        peer_data(&peer, 30000);
        ngx_tun_lwip_flush(&peer.flow);
        (void) peer_read(&peer, 30000);
        ngx_tun_lwip_flush(&peer.flow);
    }

    ok(peer.received == 3000000 && peer.last.window == 65535,
       "without scaling 64 KB");

    finish(&peer, "no scaling");
}


/* what is beyond the window is not taken, in whatever order it comes */

static void
test_overrun(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  seq, len;

    start(&peer, addr_len);

    seq = peer.seq;
    peer_segment(&peer, ACK, seq + NGX_TUN_LWIP_WINDOW - 1, peer.ack, 60000);

    for (len = NGX_TUN_LWIP_WINDOW; len != 0; len -= 32768) {
        peer_data(&peer, 32768);
    }

    ngx_tun_lwip_flush(&peer.flow);

    ok(peer.flow.readable == NGX_TUN_LWIP_WINDOW, "one window, %u",
       peer.flow.readable);
    ok(peer.last.window == 0 && peer.last.ack == peer.seq, "is full, %u",
       peer.last.window);

    peer_data(&peer, 60000);
    peer.seq -= 60000;
    ok(peer.flow.readable == NGX_TUN_LWIP_WINDOW, "nothing more, %u",
       peer.flow.readable);

    finish(&peer, "overrun");

    /* a FIN has a place in it, too */

    start(&peer, addr_len);

    seq = peer.seq;

    peer_segment(&peer, ACK|FIN, seq + NGX_TUN_LWIP_WINDOW, peer.ack, 0);

    while (peer.seq != seq + NGX_TUN_LWIP_WINDOW) {
        peer_data(&peer, 32768);
    }

    ok(peer.flow.readable == NGX_TUN_LWIP_WINDOW && !peer.flow.eof,
       "no FIN in a full window");

    (void) peer_read(&peer, NGX_TUN_LWIP_WINDOW);
    peer_fin(&peer);
    ok(peer.flow.eof, "but in an open one");

    finish(&peer, "FIN overrun");
}


/* the ACK of a SYN|ACK may have data, but not beyond its window of 64 KB */

static void
test_overrun_open(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  seq;

    peer_init(&peer, lwip, number++, addr_len);
    peer.noptions = 0;

    (void) peer_open(&peer);
    seq = peer.seq;

    peer_segment(&peer, ACK, seq + 65000, peer.ack, 60000);
    ok(!peer.flow.established && hot() == 1, "not acceptable");

    peer_segment(&peer, ACK|FIN, seq + 65535, peer.ack, 0);
    ok(!peer.flow.established, "and no FIN after it");

    peer_segment(&peer, ACK|SYN, seq + 1000, peer.ack, 10);
    ok(!peer.flow.established, "nor a SYN in it");

    peer_segment(&peer, ACK, seq + 65000, peer.ack, 535);
    ok(peer.flow.established && peer.flow.readable == 0, "to its end");

    peer_data(&peer, 32500);
    peer_data(&peer, 32500);
    ok(peer.flow.readable == 65535, "one window, %u", peer.flow.readable);

    ngx_tun_lwip_flush(&peer.flow);
    ok(peer.last.window == 0 && peer.last.ack == seq + 65535, "is full, %u",
       peer.last.window);

    finish(&peer, "open overrun");
}


/* lwIP would move a FIN to the end of what covers it, beyond the window */

static void
test_after_fin(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  seq;

    start(&peer, addr_len);

    seq = peer.seq;
    peer_segment(&peer, ACK|FIN, seq + NGX_TUN_LWIP_WINDOW - 1001, peer.ack,
                 500);
    peer_segment(&peer, ACK, seq + NGX_TUN_LWIP_WINDOW - 2000, peer.ack, 2000);

    ok(peer.last.ack == seq && peer.last.flags == ACK, "is answered");

    while (peer.seq != seq + NGX_TUN_LWIP_WINDOW - 32768) {
        peer_data(&peer, 32768);
    }

    peer_data(&peer, 32768);
    peer.seq -= 32768;
    ok(!peer.flow.eof, "nor in order");

    peer_data(&peer, 32768 - 1001);
    ok(peer.flow.eof && peer.flow.readable == NGX_TUN_LWIP_WINDOW - 501,
       "FIN where it was sent, %u", peer.flow.readable);

    ngx_tun_lwip_flush(&peer.flow);
    ok(peer.last.ack == seq + NGX_TUN_LWIP_WINDOW - 500, "acknowledged");

    finish(&peer, "after FIN");
}


/* a super-segment that is acknowledged in part is sent again as a whole */

static void
test_partial(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  n, first;

    start(&peer, addr_len);

    first = peer.ack;

    peer.deaf = 1;
    ok(peer_send(&peer, 30000) == 30000, "a segment");
    ngx_tun_lwip_flush(&peer.flow);
    ok(peer.last.len == 30000, "is on its way");

    peer.ack = first + 14600;
    peer_ack(&peer);
    ok(peer.released == 0, "no byte of it is released");

    peer_ticks(2 * SECOND);
    ok(peer.last.seq == first && peer.last.len == 30000 && peer.bad == 0,
       "for it is sent again");

    peer.ack = first + 29999;
    peer_ack(&peer);
    ok(peer.released == 0, "but the last one");

    peer.ack = first + 30000;
    peer_ack(&peer);
    ok(peer.released == 30000, "all of it");

    /* three at once, fast retransmission */

    first = peer.ack;

    (void) peer_send(&peer, 32767);
    (void) peer_send(&peer, 32767);
    (void) peer_send(&peer, 32767);
    ngx_tun_lwip_flush(&peer.flow);

    peer.ack = first + 1000;
    peer_ack(&peer);
    peer_ack(&peer);
    peer_ack(&peer);
    n = peer.repeated;
    peer_ack(&peer);
    ok(peer.repeated == n + 1, "after 3 duplicates");
    ok(peer.released == 30000, "with all its bytes");

    peer.ack = first + 98301;
    peer_ack(&peer);
    peer.deaf = 0;
    peer_ack(&peer);
    peer_ticks(SECOND);
    peer_ack(&peer);
    ok(peer.released == 30000 + 98301, "all, %u", peer.released);

    /* a window that fits no segment: it is split */

    shut(&peer);
    (void) peer_send(&peer, 20000);
    ngx_tun_lwip_flush(&peer.flow);

    peer.window = 8;
    peer_ack(&peer);
    peer_ticks(2 * SECOND);
    ok(peer.last.len == 1024, "the first bytes of one, %u", peer.last.len);

    peer.window = 65535;
    peer_ack(&peer);
    peer_ticks(SECOND);
    peer_ack(&peer);
    ok(peer.released == 30000 + 98301 + 20000, "then the rest");

    finish(&peer, "partial");
}


static void
test_retransmission(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  packets;

    /* as long as the device refuses, nothing is lost */

    start(&peer, addr_len);

    peer.refuse = 1;
    (void) peer_send(&peer, 5000);
    ngx_tun_lwip_flush(&peer.flow);
    ok(peer.packets == 1, "the device is full");

    peer.refuse = 0;
    peer_ticks(2);
    ok(peer.last.len == 5000, "sent with a tick");
    peer_ack(&peer);

    /* nobody answers */

    (void) peer_send(&peer, 5000);
    ngx_tun_lwip_flush(&peer.flow);

    packets = peer.packets;
    peer_ticks(SECOND);
    ok(peer.packets >= packets + 1, "again within a second");

    peer_ticks(1000 * SECOND);
    ok(peer.closed == 1 && peer.flow.reset, "given up");
    ok(peer.packets - packets <= 13, "after %u attempts",
       peer.packets - packets);

    finish(&peer, "no ACK");

    /* the MTU of the path is smaller */

    start(&peer, addr_len);

    (void) peer_send(&peer, 5000);
    ngx_tun_lwip_flush(&peer.flow);

    packets = peer.packets;

    ok(ngx_tun_lwip_shrink(&peer.flow, peer.last.seq + 5000, 1000) != 0
       && ngx_tun_lwip_shrink(&peer.flow, peer.last.seq - 1, 1000) != 0
       && peer.flow.mss > 1400, "a packet that was not sent");
    ok(ngx_tun_lwip_shrink(&peer.flow, peer.last.seq + 1400, 1000) == 0
       && peer.flow.mss == 1000, "one that was");
    ok(ngx_tun_lwip_shrink(&peer.flow, peer.last.seq, 1200) == 0
       && peer.flow.mss == 1000, "never larger");

    peer_ticks(2);
    ok(peer.packets == packets + 1 && peer.last.len == 5000, "at once again");

    ok(ngx_tun_lwip_shrink(&peer.flow, peer.last.seq, 1) == 0
       && peer.flow.mss == 48, "not too small");

    finish(&peer, "MTU");
}


static void
test_checks(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  packets;

    start(&peer, addr_len);

    packets = peer.packets;

    /* RFC 5961: one challenge, then none for a while */

    peer_segment(&peer, RST, peer.seq + 1000, 0, 0);
    ok(peer.closed == 0 && peer.packets == packets + 1
       && peer.last.flags == ACK && peer.last.ack == peer.seq,
       "RST in the window is challenged");

    peer_segment(&peer, SYN, peer.seq + 1000, 0, 0);
    peer_segment(&peer, RST, peer.seq + 2000, 0, 0);
    ok(peer.packets == packets + 1, "not twice");

    peer_ticks(SECOND);
    peer_segment(&peer, SYN, peer.seq, 0, 0);
    ok(peer.packets == packets + 2 && peer.last.flags == ACK, "SYN");

    peer_ticks(SECOND);
    peer_segment(&peer, RST, peer.seq - 1, 0, 0);
    peer_segment(&peer, RST, peer.seq + NGX_TUN_LWIP_WINDOW, 0, 0);
    ok(peer.closed == 0 && peer.packets == packets + 2,
       "RST outside of it is not");

    peer_segment(&peer, 0, peer.seq, 0, 100);
    ok(peer.flow.readable == 0 && peer.packets == packets + 2, "no ACK");

    peer_segment(&peer, ACK, peer.seq, peer.ack + 1, 100);
    ok(peer.flow.readable == 0 && peer.packets == packets + 3,
       "ACK of what was not sent");

    peer_ticks(SECOND);
    peer_segment(&peer, ACK, peer.seq, peer.ack - 10000000, 100);
    ok(peer.flow.readable == 0 && peer.packets == packets + 4, "old ACK");

    peer_ticks(SECOND);
    peer_segment(&peer, ACK, peer.seq - 1, peer.ack, 0);
    ok(peer.packets == packets + 5 && peer.last.ack == peer.seq,
       "keepalive");

    peer_segment(&peer, ACK, peer.seq + 10, peer.ack, 10);
    peer_segment(&peer, RST, peer.seq, 0, 0);
    ok(peer.closed == 1 && peer.flow.reset, "RST with the exact number");

    finish(&peer, "checks");
}


static void
test_close(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  packets;

    /* we first, with bytes on their way */

    start(&peer, addr_len);

    peer.deaf = 1;
    (void) peer_send(&peer, 5000);
    ngx_tun_lwip_flush(&peer.flow);
    (void) peer_send(&peer, 100);
    ngx_tun_lwip_close(&peer.flow);
    ngx_tun_lwip_flush(&peer.flow);

    ok(peer.last.flags & FIN, "FIN with the last bytes");
    ok(peer.closed == 0, "not closed before they have arrived");
    ok(peer_send(&peer, 1) == 0, "nothing may follow");

    peer_data(&peer, 1000);
    ok(peer.flow.readable == 0, "what comes is not kept");

    peer.deaf = 0;
    peer.ack += 5101;
    peer_ack(&peer);
    ok(peer.released == 5100 && peer.closed == 0, "acknowledged");

    peer_fin(&peer);
    ok(time_wait() == 1 && hot() == 0, "TIME-WAIT");
    ok(peer.last.ack == peer.seq, "the FIN is acknowledged");

    packets = peer.packets;
    peer_ticks(SECOND);
    peer_segment(&peer, ACK|FIN, peer.seq - 1, peer.ack, 0);
    ok(peer.packets == packets + 1, "and once more");

    peer_segment(&peer, RST, peer.seq, 0, 0);
    ok(peer.closed == 0, "RFC 1337");

    peer_ticks(TIME_WAIT);
    ok(peer.closed == 1 && time_wait() == 0, "gone after 2 MSL");
    ok(peer.resets == 0, "in order");

    finish(&peer, "close");

    /* the peer first */

    start(&peer, addr_len);

    packets = peer.packets;

    peer_data(&peer, 100);
    peer_fin(&peer);
    ok(peer.flow.eof && peer.flow.readable == 100, "end of the peer");

    (void) peer_send(&peer, 5000);
    ngx_tun_lwip_flush(&peer.flow);
    ok(peer.packets == packets + 1 && peer.last.ack == peer.seq,
       "its ACK goes with the answer");
    peer_ack(&peer);
    ok(peer.released == 5000, "half closed");
    ok(peer_read(&peer, 1000) == 100, "its last bytes are read");

    ngx_tun_lwip_shutdown(&peer.flow);
    ok(peer.last.flags & FIN, "our end");

    peer_ack(&peer);
    ok(peer.closed == 1 && !peer.flow.reset, "that is no reset");

    finish(&peer, "passive close");

    /* half closed by us */

    start(&peer, addr_len);

    ngx_tun_lwip_shutdown(&peer.flow);
    ngx_tun_lwip_shutdown(&peer.flow);
    peer_ack(&peer);
    peer_ticks(60 * SECOND);
    ok(peer.closed == 0, "half closed for a minute");

    peer_data(&peer, 1000);
    ok(peer_read(&peer, 2000) == 1000, "and data still comes");

    peer_ticks(60 * SECOND);
    ngx_tun_lwip_close(&peer.flow);
    peer_ticks(5 * SECOND);
    ok(peer.closed == 0, "closed, the peer has time to end");

    peer_data(&peer, 1000);
    ok(peer.closed == 1 && peer.resets == 1, "but not to go on");

    finish(&peer, "half close");

    /* it never ends */

    start(&peer, addr_len);

    ngx_tun_lwip_close(&peer.flow);
    peer_ack(&peer);
    peer_ticks(25 * SECOND);
    ok(peer.closed == 1, "not waited for longer than 20 seconds");

    finish(&peer, "no end");

    /* both at once */

    start(&peer, addr_len);

    ngx_tun_lwip_close(&peer.flow);
    peer_segment(&peer, ACK|FIN, peer.seq, peer.ack - 1, 0);
    peer.seq++;
    ok(peer.closed == 0 && time_wait() == 0, "CLOSING");
    peer_ack(&peer);
    ok(time_wait() == 1, "TIME-WAIT of both");
    peer_ticks(TIME_WAIT);

    finish(&peer, "simultaneous");

    /* with bytes that were not read */

    start(&peer, addr_len);

    peer_data(&peer, 1000);
    ngx_tun_lwip_close(&peer.flow);
    ok((peer.last.flags & FIN) && peer.resets == 0, "unread");
    peer_ack(&peer);
    peer_fin(&peer);
    ok(time_wait() == 1, "TIME-WAIT");
    peer_ticks(TIME_WAIT);

    finish(&peer, "unread");

    /* abort */

    start(&peer, addr_len);

    (void) peer_send(&peer, 1000);
    ngx_tun_lwip_flush(&peer.flow);
    packets = peer.packets;
    ngx_tun_lwip_abort(&peer.flow);
    ok(peer.closed == 1 && peer.packets == packets + 1
       && peer.last.flags == (RST|ACK) && peer.last.seq == peer.ack,
       "RST");

    finish(&peer, "abort");

    /* and a word that was due is not said when dropped */

    start(&peer, addr_len);

    peer_data(&peer, 1000);
    packets = peer.packets;
    ngx_tun_lwip_drop(&peer.flow);
    ok(peer.closed == 1 && peer.packets == packets, "dropped");

    finish(&peer, "drop with ACK due");
}


/* RFC 6191: a SYN with a later number opens the tuple again */

static void
test_reuse(uint32_t addr_len)
{
    peer_t    peer, again;
    uint32_t  n;

    start(&peer, addr_len);
    n = number - 1;

    ok(!ngx_tun_lwip_reusable(&peer.flow, peer.seq + 1), "established");

    ngx_tun_lwip_close(&peer.flow);
    peer_ack(&peer);
    peer_fin(&peer);

    ok(time_wait() == 1, "TIME-WAIT");
    ok(!ngx_tun_lwip_reusable(&peer.flow, peer.seq)
       && !ngx_tun_lwip_reusable(&peer.flow, peer.seq - 100), "too old");
    ok(ngx_tun_lwip_reusable(&peer.flow, peer.seq + 1), "later");

    ngx_tun_lwip_abort(&peer.flow);
    ok(peer.closed == 1 && peer.resets == 0 && time_wait() == 0,
       "gives way silently");

    peer_init(&again, lwip, n, addr_len);
    again.isn = peer.seq + 1;
    again.seq = again.isn;
    again.iss = peer.iss + 100000;
    ok(peer_connect(&again) == 0, "established again");

    peer_data(&again, 100);
    ok(peer_read(&again, 100) == 100, "with data");

    peer_done(&again);
    finish(&peer, "reuse");
    finish(&again, "reused");
}


/* a probe acknowledged by a window that stays closed, with no more to send */

static void
test_zero_window(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  packets;

    start(&peer, addr_len);

    shut(&peer);

    (void) peer_send(&peer, 1);
    ngx_tun_lwip_flush(&peer.flow);
    ok(peer.bytes == 0 && hot() == 1, "the window is closed");

    peer_ticks(SECOND);
    ok(peer.bytes != 0 && peer.last.len == 1, "probed");

    peer_ack(&peer);
    ok(peer.released == 1, "the byte has arrived");

    packets = peer.packets;
    peer_ticks(60 * SECOND);
    ok(peer.packets == packets, "no probes without data");
    ok(ngx_tun_lwip_asserts() == 0, "no assert fails, %u",
       ngx_tun_lwip_asserts());
    ok(hot() == 0, "idle");

    /* a long time with a window that does not open */

    (void) peer_send(&peer, 10000);
    ngx_tun_lwip_flush(&peer.flow);

    packets = 200 * SECOND;

    while (packets--) {
        peer_ticks(1);
        peer_ack(&peer);
    }

    ok(peer.closed == 0, "the flow lives");
    ok(peer.released == 1, "nothing is taken");

    peer.window = 65535;
    peer_ack(&peer);
    ngx_tun_lwip_flush(&peer.flow);
    peer_ack(&peer);
    ok(peer.released == 10001, "all arrives");

    finish(&peer, "zero window");
}


/* a window shrinks to less than what is missing of a segment */

static void
test_shrunk_window(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  i;

    start(&peer, addr_len);

    peer.deaf = 1;
    (void) peer_send(&peer, 50000);
    ngx_tun_lwip_flush(&peer.flow);

    /* half of it is there, and there is little room for more */

    peer.window = 3840 >> 7;
    peer.ack += 25000;
    peer_ack(&peer);
    peer.deaf = 0;

    for (i = 0; i < 60 && peer.released != 50000; i++) {
        peer_ticks(SECOND);
        peer_ack(&peer);
    }

    ok(peer.ack == peer.iss + 1 + 50000, "all arrives, %u",
       peer.ack - peer.iss - 1);
    ok(peer.released == 50000, "and is released, %u", peer.released);
    ok(peer.high == peer.ack, "nothing else was sent");

    ngx_tun_lwip_shutdown(&peer.flow);
    peer_ack(&peer);
    ok(peer.ack == peer.iss + 2 + 50000, "and the FIN");

    finish(&peer, "shrunk window");
}


/* segments are larger than the window is now: no timer is needed, nor used */

static void
test_small_window(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  i;

    start(&peer, addr_len);

    /* a window is taken from what acknowledges more only */

    (void) peer_send(&peer, 100);
    ngx_tun_lwip_flush(&peer.flow);
    peer.window = 10240 >> 7;
    peer_ack(&peer);

    (void) peer_send(&peer, 100000);
    ngx_tun_lwip_shutdown(&peer.flow);
    ngx_tun_lwip_flush(&peer.flow);

    ok(peer.bytes > 8192 && peer.bytes <= 100 + 10240,
       "as much as the window takes, %u", peer.bytes);

    for (i = 0; i < 100 && peer.released != 100100; i++) {
        ok(peer.ack == peer.iss + 2 + 100100
           || (peer.last.flags & TH_FIN) == 0,
           "no FIN before the end");
        peer_ack(&peer);
        ngx_tun_lwip_flush(&peer.flow);
    }

    ok(peer.released == 100100, "all of it, without a tick, %u",
       peer.released);
    ok(i <= 16, "in as many windows, %u", i);
    ok(peer.ack == peer.iss + 2 + 100100, "and the FIN");

    finish(&peer, "small window");
}


/* the same by the timer, where less than a segment of the peer's size fits */

static void
test_tiny_window(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  i;

    start(&peer, addr_len);

    /* a window is taken from what acknowledges more only */

    (void) peer_send(&peer, 100);
    ngx_tun_lwip_flush(&peer.flow);
    peer.window = 512 >> 7;
    peer_ack(&peer);

    (void) peer_send(&peer, 2000);
    ngx_tun_lwip_shutdown(&peer.flow);
    ngx_tun_lwip_flush(&peer.flow);

    for (i = 0; i < 100 && peer.released != 2100; i++) {
        peer_ticks(SECOND);
        ok(peer.ack == peer.iss + 2 + 2100
           || (peer.last.flags & TH_FIN) == 0,
           "no FIN before the end");
        peer_ack(&peer);
    }

    ok(peer.released == 2100, "all of it, %u", peer.released);
    ok(peer.ack == peer.iss + 2 + 2100, "and the FIN");

    finish(&peer, "tiny window");
}


/*
 * A peer that says an MSS too late makes the congestion window less than a
 * segment, and opens its own to a multiple of 64 KB.
 */

static void
test_wide_window(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  i;

    start(&peer, addr_len);

    peer.deaf = 1;
    (void) peer_send(&peer, 1000);
    ngx_tun_lwip_flush(&peer.flow);

    peer.window = 1024 >> 7;
    peer_data(&peer, 1);

    for (i = 0; i < 4; i++) {
        peer_options(&peer, 48, 255, 0);
        peer_ack(&peer);
        peer.noptions = 0;
    }

    /* that made it small; there is more, for which is no room */

    (void) peer_send(&peer, 60000);
    peer.window = 128 >> 7;
    peer.ack += 1000;
    peer_options(&peer, 48, 255, 0);
    peer_ack(&peer);
    peer.noptions = 0;

    peer.deaf = 0;
    peer.window = 65536 >> 7;
    peer_ack(&peer);
    peer_ticks(SECOND);
    peer_ack(&peer);
    ok(peer.ack == peer.iss + 1 + 61000, "all arrives, %u",
       peer.ack - peer.iss - 1);

    finish(&peer, "wide window");
}


/*
 * A fast retransmission finds no window, and then all is sent again: in order,
 * as of a segment acknowledged in part the first bytes are sent with the rest.
 */

static void
test_closed_repeat(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  i;

    start(&peer, addr_len);

    peer.deaf = 1;

    for (i = 0; i < 2; i++) {
        (void) peer_send(&peer, 20000);
        ngx_tun_lwip_flush(&peer.flow);
    }

    shut(&peer);

    for (i = 0; i < 4; i++) {
        peer_ack(&peer);
    }

    peer_ticks(3 * SECOND);
    peer.ack += 1000;
    peer_ack(&peer);

    peer.deaf = 0;
    peer.window = 65535;
    peer.repeated = 0;
    peer_ack(&peer);
    ok(peer.bad == 0, "the bytes are those of before");
    ok(peer.repeated != 0 && peer.ack == peer.iss + 1 + 40000,
       "all arrives, %u", peer.ack - peer.iss - 1);

    peer_ack(&peer);
    ok(peer.released == 40000, "and is released, %u", peer.released);

    finish(&peer, "closed repeat");
}


/* one for which the device had no room is not mixed with what is written */

static void
test_refused_repeat(uint32_t addr_len)
{
    peer_t    peer;
    uint32_t  i, n;

    for (n = 0; n <= 5000; n += 5000) {
        start(&peer, addr_len);

        peer.deaf = 1;

        for (i = 0; i < 2; i++) {
            (void) peer_send(&peer, 1000);
            ngx_tun_lwip_flush(&peer.flow);
        }

        peer.refuse = 1;

        for (i = 0; i < 3; i++) {
            peer_ack(&peer);
        }

        peer.refuse = 0;
        peer.deaf = 0;

        if (n != 0) {
            (void) peer_send(&peer, n);
            ngx_tun_lwip_flush(&peer.flow);
        }

        ngx_tun_lwip_shutdown(&peer.flow);

        for (i = 0; i < 4; i++) {
            peer_ticks(SECOND);
            peer_ack(&peer);
        }

        ok(peer.bad == 0 && peer.high == peer.iss + 2 + 2000 + n,
           "each byte in its place, %u", peer.high - peer.iss - 2);
        ok(peer.ack == peer.high, "all arrives, %u",
           peer.ack - peer.iss - 2);
        ok(peer.released >= 2000 + n, "and is released, %u", peer.released);

        finish(&peer, "refused repeat");
    }
}


/* what lwIP asserts is counted, and nothing stops */

static void
test_assert(void)
{
    uint32_t  n;

    void ngx_tun_lwip_assert(const char *message, const char *file, int line);

    n = ngx_tun_lwip_asserts();

    ngx_tun_lwip_assert("test", __FILE__, __LINE__);

    ok(ngx_tun_lwip_asserts() == n + 1, "asserts are counted");
}


/* a segment of some pieces in places of their own */

static void
test_pieces(uint32_t addr_len)
{
    peer_t    peer;
    unsigned  n;

    start(&peer, addr_len);

    for (n = 0; n < 60; n++) {
        if (peer_send(&peer, 10) != 10) {
            break;
        }
    }

    n = 100;

    while (n-- && peer.released != peer.written) {
        ngx_tun_lwip_flush(&peer.flow);
        peer_ticks(1);
        peer_ack(&peer);
    }

    ok(peer.released == peer.written, "pieces arrive, %u of %u",
       peer.released, peer.written);

    finish(&peer, "pieces");
}


static void
test_many(uint32_t addr_len)
{
    size_t    before, after;
    peer_t   *peers, *peer;
    unsigned  n, round, bad;

    peers = calloc(1000, sizeof(peer_t));

    before = mallinfo2().uordblks;

    for (round = 0; round < 2; round++) {
        bad = 0;

        for (n = 0; n < 1000; n++) {
            peer_init(&peers[n], lwip, 100000 + n, addr_len);
            bad += (peer_connect(&peers[n]) != 0);
        }

        ok(bad == 0, "1000 flows");

        peer_ticks(4);
        ok(hot() == 0, "all idle");

        for (n = 0; n < 1000; n++) {
            peer = &peers[(n * 617) % 1000];

            peer_data(peer, 1 + n);
            bad += (peer_read(peer, 2000) != 1 + n);

            bad += (peer_send(peer, 3 * n + 1) != 3 * n + 1);
            ngx_tun_lwip_flush(&peer->flow);
            peer_ack(peer);
            bad += (peer->released != 3 * n + 1);
        }

        ok(bad == 0, "each with data");

        for (n = 0; n < 1000; n++) {
            peer = &peers[n];

            switch (n % 4) {

            case 0:
                ngx_tun_lwip_abort(&peer->flow);
                break;

            case 1:
                peer_segment(peer, RST, peer->seq, 0, 0);
                break;

            case 2:
                peer_fin(peer);
                ngx_tun_lwip_close(&peer->flow);
                peer_ack(peer);
                break;

            default:
                ngx_tun_lwip_close(&peer->flow);
                peer_ack(peer);
                peer_fin(peer);
            }
        }

        ok(time_wait() == 250 && hot() == 0, "a quarter in TIME-WAIT");

        peer_ticks(TIME_WAIT);

        for (n = 0; n < 1000; n++) {
            peer_done(&peers[n]);
            bad += peers[n].bad + (peers[n].closed != 1);
        }

        ok(bad == 0, "all closed");

        after = mallinfo2().uordblks;

        if (round == 0) {
            before = after;
        }
    }

    ok(after <= before, "memory is back, %zu of %zu bytes", after, before);

    free(peers);
}


int
main(void)
{
    uint32_t         addr_len;
    ngx_tun_lwip_t  *other;

    lwip = ngx_tun_lwip_create(&peer_ops, NULL, 1500);

    ok(lwip != NULL, "lwIP");

    peer_ticks(1);

    for (addr_len = 4; addr_len <= 16; addr_len += 12) {
        test_handshake(addr_len);
        test_data(addr_len);
        test_order(addr_len);
        test_buffers(addr_len);
        test_window(addr_len);
        test_overrun(addr_len);
        test_overrun_open(addr_len);
        test_after_fin(addr_len);
        test_partial(addr_len);
        test_retransmission(addr_len);
        test_checks(addr_len);
        test_close(addr_len);
        test_reuse(addr_len);
        test_zero_window(addr_len);
        test_shrunk_window(addr_len);
        test_small_window(addr_len);
        test_tiny_window(addr_len);
        test_wide_window(addr_len);
        test_closed_repeat(addr_len);
        test_refused_repeat(addr_len);
        test_pieces(addr_len);
        test_many(addr_len);
        test_late_mss(addr_len);
        test_late_window(addr_len);
    }

    test_options();
    test_assert();

    /* two lives at once */

    other = ngx_tun_lwip_create(&peer_ops, &number, 9000);
    ok(other != NULL && ngx_tun_lwip_data(other) == &number, "another one");

    ngx_tun_lwip_destroy(lwip);
    lwip = other;

    ok(ngx_tun_lwip_data(lwip) == &number, "which stays");

    ngx_tun_lwip_destroy(lwip);

    return done();
}
