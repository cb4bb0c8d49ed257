
/*
 * Copyright (C) the nginx-tun authors
 */

/* lwip */


/*
 * lwIP with its own lists against lwIP behind the seam, which keeps every pcb
 * out of them: the same random events must lead to the same packets, at the
 * same time, and to the same that an application sees.
 *
 * What the seam does on purpose is done on both sides by the same code, so it
 * does not count: the callbacks of an accepted flow (windows, MSS, RTO), the
 * checks before lwIP sees a segment, one ACK for a batch, and that with the
 * answer, the release of what was acknowledged, what the application calls.
 * What is compared is how a pcb is found, which of them a tick sees and when,
 * how TIME-WAIT is entered and left.  Three things are normalised:
 *
 *   IPv4 id     lwIP counts it over all flows, the caller of the seam sets it
 *   TIME-WAIT   starts with the FIN; lwIP leaves the time of an older segment
 *               where the application had closed before
 *   reuse       of a tuple in TIME-WAIT, which lwIP does not know
 */


#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ngx_tun_lwip.c"

#include "lib/tap.h"


#define FLOWS   64
#define EVENTS  30000
#define SEEDS   6
#define PORTS   3
#define BYTES   (1024 * 1024)
#define MAX     32000                       /* the largest segment */


typedef struct {
    ngx_tun_lwip_flow_t  lwip;              /* the first member */
    uint32_t             n;
    uint32_t             open;
    uint32_t             seq;               /* of the client */
    uint32_t             ack;
    uint32_t             written;
    uint64_t             digest;
} side_flow_t;


typedef struct {
    uint32_t             packets;
    uint32_t             bytes;
    uint32_t             repeated;
    uint32_t             established;
    uint32_t             closed;
    uint32_t             reset;
    uint32_t             time_wait;
    uint32_t             reused;
    uint32_t             read;
    uint32_t             acked;
    uint32_t             asserts;
    uint32_t             hot;               /* most flows with a tick */
    uint32_t             idle;              /* most flows without one */
} side_stat_t;


typedef struct {
    uint64_t             trace[EVENTS];
    uint8_t              flow[EVENTS];
    uint8_t              action[EVENTS];
    side_stat_t          stat;
    uint32_t             done;
} side_t;


static int side_output(ngx_tun_lwip_flow_t *lwip, struct iovec *iov,
    unsigned n, size_t len);
static void side_closed(ngx_tun_lwip_flow_t *lwip);
static err_t vanilla_passive_open(u8_t id, struct tcp_pcb_listen *listener,
    struct tcp_pcb *pcb);
static void vanilla_destroy(u8_t id, void *data);


static const ngx_tun_lwip_ops_t  side_ops = {
    side_output,
    side_closed
};

static const struct tcp_ext_arg_callbacks  vanilla_callbacks = {
    vanilla_destroy,
    vanilla_passive_open
};


static unsigned         vanilla;
static unsigned         unrepaired;         /* before a tick */
static ngx_tun_lwip_t  *lwip;
static side_t          *side;
static side_flow_t      flows[FLOWS];
static uint32_t         event;
static uint32_t         now = 1000;
static uint8_t          bytes[2 * BYTES];


/* the same numbers on both sides, whatever happens */

static uint32_t
side_random(void)
{
    static uint64_t  x = 88172645463325252ull;

    if (x == 88172645463325252ull) {
        x ^= (uint64_t) event << 32;
    }

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;

    return (uint32_t) (x >> 16);
}


static void
side_digest(side_flow_t *flow, const void *data, size_t len)
{
    uint64_t        h;
    const uint8_t  *p;

    h = flow->digest;

    for (p = data; len != 0; p++, len--) {
        h = (h ^ *p) * 0x100000001b3ull;
    }

    flow->digest = h;
}


static void
side_digest_word(side_flow_t *flow, uint32_t v)
{
    side_digest(flow, &v, sizeof(uint32_t));
}


static int
side_output(ngx_tun_lwip_flow_t *f, struct iovec *iov, unsigned n, size_t len)
{
    size_t           ip_len, header_len;
    uint8_t         *p;
    uint32_t         i, seq, end;
    side_flow_t     *flow;
    struct tcp_hdr   th;

    flow = (side_flow_t *) f;

    p = iov[1].iov_base;
    ip_len = 40;

    if ((p[0] >> 4) == 4) {
        ip_len = 20;
        memset(p + 4, 0, 2);
    }

    memcpy(&th, p + ip_len, 20);
    header_len = ip_len + TCPH_HDRLEN_BYTES(&th);

    side_digest_word(flow, event);
    side_digest_word(flow, now);

    for (i = 1; i < n; i++) {
        side_digest(flow, iov[i].iov_base, iov[i].iov_len);
    }

    seq = lwip_ntohl(th.seqno);
    end = seq + (uint32_t) (len - header_len)
          + ((TCPH_FLAGS(&th) & (TCP_SYN|TCP_FIN)) ? 1 : 0);

    if (TCPH_FLAGS(&th) & TCP_SYN) {
        flow->ack = end;

    } else if (TCP_SEQ_GT(end, flow->ack)) {
        flow->ack = end;

    } else if (len != header_len) {
        side->stat.repeated++;
    }

    side->stat.packets++;
    side->stat.bytes += (uint32_t) len;
    side->stat.reset += (TCPH_FLAGS(&th) & TCP_RST) != 0;

    return 0;
}


static void
side_closed(ngx_tun_lwip_flow_t *f)
{
    side_flow_t  *flow;

    flow = (side_flow_t *) f;

    side_digest_word(flow, 0xdead);
    side_digest_word(flow, event);
    side_digest_word(flow, now);

    side->stat.closed++;
}


static err_t
vanilla_passive_open(u8_t id, struct tcp_pcb_listen *listener,
    struct tcp_pcb *pcb)
{
    err_t                 rc;
    ngx_tun_lwip_flow_t  *flow;

    flow = ctx.opening;

    rc = ngx_tun_lwip_passive_open_handler(id, listener, pcb);

    tcp_ext_arg_set_callbacks(pcb, id, &vanilla_callbacks);

    /* then the list of hot flows is not touched */
    flow->hot = 1;

    return rc;
}


static void
vanilla_destroy(u8_t id, void *data)
{
    ngx_tun_lwip_flow_t  *flow;

    flow = data;

    if (flow == NULL) {
        return;
    }

    flow->pcb = NULL;
    flow->hot = 0;
    flow->time_wait = 0;

    side_closed(flow);
}


static void
vanilla_listen(void)
{
    uint16_t         i;
    struct tcp_pcb  *pcb;

    for (i = 0; i < PORTS; i++) {
        pcb = tcp_new_ip_type(IPADDR_TYPE_ANY);

        tcp_ext_arg_set_callbacks(pcb, ctx.id, &vanilla_callbacks);
        tcp_ext_arg_set(pcb, ctx.id, NULL);

        tcp_bind(pcb, IP_ANY_TYPE, 80 + i);
        tcp_bind_netif(pcb, &lwip->netif);

        pcb = tcp_listen(pcb);
        tcp_accept(pcb, ngx_tun_lwip_accept_handler);
    }
}


static int
vanilla_open(ngx_tun_lwip_flow_t *flow, ngx_tun_lwip_segment_t *seg,
    uint32_t isn)
{
    struct pbuf  *p;

    flow->lwip = lwip;
    flow->tx_base = isn + 1;
    flow->mss = seg->mss;

    if (flow->mss == 0) {
        flow->mss = (seg->addr_len == 4) ? NGX_TUN_LWIP_MSS_4
                                         : NGX_TUN_LWIP_MSS_6;
    }

    ctx.opening = flow;
    ctx.isn = isn;

    p = ngx_tun_lwip_pbuf(lwip, seg);

    ngx_tun_lwip_addresses(seg, &lwip->netif);

    tcp_input(p, &lwip->netif);

    ctx.opening = NULL;

    return (flow->pcb != NULL) ? 0 : -1;
}


static void
vanilla_input(ngx_tun_lwip_flow_t *flow, ngx_tun_lwip_segment_t *seg)
{
    struct pbuf     *p;
    struct tcp_pcb  *pcb;

    if (ngx_tun_lwip_unacceptable(flow, seg)) {
        return;
    }

    pcb = flow->pcb;
    p = ngx_tun_lwip_pbuf(lwip, seg);

    if (!flow->time_wait) {
        tcp_clear_flags(pcb, TF_ACK_DELAY);
    }

    ngx_tun_lwip_addresses(seg, &lwip->netif);

    ctx.input = flow;

    tcp_input(p, &lwip->netif);

    ctx.input = NULL;

    if (flow->pcb == NULL) {
        return;
    }

    ngx_tun_lwip_release(flow);

    if (pcb->state == TIME_WAIT) {

        if (!flow->time_wait) {
            flow->time_wait = 1;
            pcb->tmr = tcp_ticks;
            side->stat.time_wait++;
        }

        return;
    }

    pcb->mss = TCP_MSS;
    pcb->cwnd = LWIP_MAX(pcb->cwnd, TCP_MSS);

    ngx_tun_lwip_reorder(pcb);

    if (pcb->rcv_nxt != flow->ack_sent) {
        tcp_set_flags(pcb, TF_ACK_DELAY);
    }

    if (flow->draining) {
        ngx_tun_lwip_drain(flow);
    }
}


static void
side_input(side_flow_t *flow, uint8_t flags, uint32_t seq, uint32_t ack,
    uint32_t len, uint16_t window, uint32_t full)
{
    uint8_t                 *p, *src;
    uint32_t                 i, ip_len;
    struct tcp_hdr          *th;
    ngx_tun_lwip_segment_t   seg;

    static uint8_t        packet[40 + 40 + MAX];
    static const uint8_t  options[12] = { 2, 4, 5, 0xb4, 4, 2, 1, 1,
                                          3, 3, 7, 0 };

    memset(&seg, 0, sizeof(seg));
    memset(packet, 0, 80);

    seg.addr_len = (flow->n % 2) ? 16 : 4;
    ip_len = (flow->n % 2) ? 40 : 20;

    p = packet + ip_len;
    src = p - 2 * seg.addr_len;

    src[0] = 0x20;
    src[seg.addr_len - 1] = (uint8_t) (flow->n % 7 + 1);
    src[seg.addr_len] = 0x30;
    src[2 * seg.addr_len - 1] = (uint8_t) (flow->n % 5 + 1);

    th = (struct tcp_hdr *) p;
    i = (flags & TCP_SYN) ? (flow->n % 4) * 4 : 0;

    th->src = lwip_htons((uint16_t) (1000 + flow->n));
    th->dest = lwip_htons((uint16_t) (80 + flow->n % PORTS));
    th->seqno = lwip_htonl(seq);
    th->ackno = lwip_htonl(ack);
    TCPH_HDRLEN_FLAGS_SET(th, 5 + i / 4, flags);
    th->wnd = lwip_htons(window);

    memcpy(p + 20, options, i);
    memcpy(p + 20 + i, bytes + seq % BYTES, len);

    seg.src = src;
    seg.dst = src + seg.addr_len;
    seg.ip = packet;
    seg.tcp = p;
    seg.len = 20 + i + len;
    seg.seq = seq;
    seg.ack = ack;
    seg.data_len = len;
    seg.mss = (i != 0) ? 1460 : 0;
    seg.flags = flags;
    seg.now = now;
    seg.full = full;

    if (flow->lwip.pcb != NULL) {

        if (flags == TCP_SYN && ngx_tun_lwip_reusable(&flow->lwip, seq)) {
            ngx_tun_lwip_abort(&flow->lwip);
            side->stat.reused++;

        } else if (vanilla) {
            vanilla_input(&flow->lwip, &seg);
            return;

        } else {
            i = flow->lwip.time_wait;
            (void) ngx_tun_lwip_input(&flow->lwip, &seg);
            side->stat.time_wait += flow->lwip.time_wait - i;
            return;
        }
    }

    ngx_tun_lwip_drop_rx(&flow->lwip);
    memset(&flow->lwip, 0, sizeof(ngx_tun_lwip_flow_t));

    flow->seq = seq + 1;
    flow->open = 1;

    i = seq * 2654435761u;

    if (vanilla) {
        (void) vanilla_open(&flow->lwip, &seg, i);

    } else {
        (void) ngx_tun_lwip_open(lwip, &flow->lwip, &seg, i);
    }
}


static void
side_tick(void)
{
    uint32_t         i, n, idle;
    struct tcp_pcb  *pcb;

    now += NGX_TUN_LWIP_TICK;

    if (vanilla) {
        ctx.last = now;

        /* as tcp_tmr() does */

        tcp_fasttmr();

        if (++ctx.ticks & 1) {
            for (pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next) {
                if (!unrepaired) {
                    ngx_tun_lwip_persist(pcb);
                }
            }

            tcp_slowtmr();
        }

        return;
    }

    ngx_tun_lwip_tick(now);

    n = ngx_tun_lwip_busy(&idle);
    idle = 0;

    for (i = 0; i < FLOWS; i++) {
        idle += (flows[i].lwip.pcb != NULL
                 && !flows[i].lwip.hot
                 && !flows[i].lwip.time_wait);
    }

    side->stat.hot = LWIP_MAX(side->stat.hot, n);
    side->stat.idle = LWIP_MAX(side->stat.idle, idle);
}


static void
side_read(side_flow_t *flow, uint32_t size)
{
    size_t          n;
    static uint8_t  buf[BYTES];

    n = ngx_tun_lwip_recv(&flow->lwip, buf, size);

    side_digest(flow, buf, n);
    side->stat.read += (uint32_t) n;
}


static void
side_send(side_flow_t *flow, uint32_t size)
{
    size_t  n;

    if (!flow->lwip.established) {
        return;
    }

    n = ngx_tun_lwip_send(&flow->lwip, bytes + flow->written % BYTES, size);

    flow->written += (uint32_t) n;
    side_digest_word(flow, (uint32_t) n);
}


static void
side_event(side_flow_t *flow, uint32_t action, uint32_t x, uint32_t y)
{
    uint32_t  len, i;
    uint16_t  window;

    window = (y % 8 == 0) ? 0 : (uint16_t) (1 + (y >> 3) % 3000);
    window = (y % 8 == 1) ? 65535 : window;

    len = (x % 16 == 0) ? 1 + (x >> 4) % MAX : 1 + (x >> 4) % 3000;

    if (flow->lwip.pcb == NULL) {
        side_input(flow, TCP_SYN, flow->seq + 100000 + x % 1000, 0, 0,
                   window, 0);
        return;
    }

    if (!flow->lwip.established) {

        /* most, not all, answer what they should */

        action = (action < 40) ? action % 20 : 48;
    }

    switch (action) {

    case 0:
    case 1:
        side_input(flow, TCP_ACK, flow->seq + len, flow->ack, len, window, 0);
        break;

    case 2:
        side_input(flow, TCP_ACK, flow->seq - len, flow->ack,
                   1 + x % (2 * len > MAX ? MAX : 2 * len), window, 0);
        break;

    case 3:
        side_input(flow, TCP_ACK|TCP_FIN, flow->seq++, flow->ack, 0, window,
                   0);
        break;

    case 4:
        if (x % 4 == 0) {
            side_input(flow, TCP_RST, flow->seq, 0, 0, 0, 0);
            break;
        }

        side_input(flow, TCP_RST, flow->seq + len, 0, 0, 0, 0);
        break;

    case 5:
        side_input(flow, TCP_SYN, (x % 2) ? flow->seq + 100000 : flow->seq - 1,
                   0, 0, window, 0);
        break;

    case 6:
    case 7:
        side_input(flow, TCP_ACK, flow->seq, flow->ack - x % 60000, 0, window,
                   0);
        break;

    case 8:
        for (i = 0; i < 5; i++) {
            side_input(flow, TCP_ACK, flow->seq, flow->ack - x % 90000, 0,
                       65535, 0);
        }

        break;

    case 9:
        side_input(flow, TCP_ACK, flow->seq, flow->ack + len, 0, window, 0);
        side_input(flow, 0, flow->seq, flow->ack, len, window, 0);
        side_input(flow, TCP_ACK, flow->seq + 1000000, flow->ack, 0, window,
                   0);
        break;

    case 10:
        side_input(flow, TCP_ACK, flow->seq + len, flow->ack, len, window, 1);
        break;

    case 11:
        ngx_tun_lwip_shutdown(&flow->lwip);
        break;

    case 12:
        ngx_tun_lwip_close(&flow->lwip);
        break;

    case 13:

        if (x % 4 == 0) {
            ngx_tun_lwip_abort(&flow->lwip);

        } else if (x % 4 == 1) {
            ngx_tun_lwip_drop(&flow->lwip);
        }

        break;

    case 14:
        (void) ngx_tun_lwip_shrink(&flow->lwip, flow->ack - 1 - x % 5000,
                                   (uint16_t) (y % 1500));
        break;

    case 15:
        ngx_tun_lwip_flush_full(&flow->lwip);
        break;

    case 16:
    case 17:
    case 18:
    case 19:
    case 20:
    case 21:
        side_send(flow, 1 + (x % 4 ? x % 5000 : x % 200000));
        break;

    case 22:
    case 23:
    case 24:
    case 25:
    case 26:
        side_read(flow, 1 + (x % 3 ? BYTES - 1 : x % 3000));
        break;

    case 27:
    case 28:
    case 29:
    case 30:
    case 31:
    case 32:
        ngx_tun_lwip_flush(&flow->lwip);
        break;

    case 33:
    case 34:
    case 35:
    case 36:
    case 37:
    case 38:
    case 39:
    case 40:
        side_input(flow, TCP_ACK|TCP_PSH, flow->seq, flow->ack, len, window,
                   0);
        flow->seq += len;
        break;

    default:
        side_input(flow, TCP_ACK, flow->seq, flow->ack, 0, window, 0);
    }
}


/* what the application sees after each event */

static void
side_look(side_flow_t *flow)
{
    ngx_tun_lwip_flow_t  *f;

    f = &flow->lwip;

    /* the client knows what was taken of what it sent */

    if (f->pcb != NULL && f->established && !f->eof) {
        flow->seq = ((struct tcp_pcb *) f->pcb)->rcv_nxt;
    }

    side_digest_word(flow, f->readable);
    side_digest_word(flow, f->acked);
    side_digest_word(flow, f->rx_window);
    side_digest_word(flow, f->mss);
    side_digest_word(flow, (f->pcb != NULL) | f->established << 1
                           | f->eof << 2 | f->reset << 3 | f->time_wait << 4
                           | f->starved << 5 | f->squeezed << 6);

    side->stat.acked += f->acked;
    side->stat.established += (flow->open && f->established);

    if (f->established) {
        flow->open = 0;
    }

    f->acked = 0;
    f->starved = 0;
}


static void
side_run(uint32_t seed)
{
    uint32_t      i, focus, r[5];
    side_flow_t  *flow;

    event = seed;
    (void) side_random();

    for (i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t) (i * 7 + (i >> 8));
    }

    for (i = 0; i < FLOWS; i++) {
        flows[i].n = i;
        flows[i].seq = side_random();
    }

    lwip = ngx_tun_lwip_create(&side_ops, NULL, 1500);
    ctx.last = now;

    if (vanilla) {
        vanilla_listen();
    }

    focus = 0;

    for (event = 0; event < EVENTS; event++) {

        for (i = 0; i < 5; i++) {
            r[i] = side_random();
        }

        /* some are busy for a while, the rest is idle */

        if (event % 300 == 0) {
            focus = r[4];
        }

        flow = &flows[(focus + r[0] % ((r[0] & 0xf0000) ? 6 : FLOWS)) % FLOWS];

        side_event(flow, r[1] % 48, r[2], r[3]);
        side_look(flow);

        if (r[4] % 16 == 0) {
            side_tick();
        }

        /* for retransmissions, and TIME-WAIT */

        if (r[4] % 512 == 1) {
            for (i = (r[4] >> 9) % 400; i != 0; i--) {
                side_tick();
            }
        }

        side->trace[event] = flow->digest;
        side->flow[event] = (uint8_t) flow->n;
        side->action[event] = (uint8_t) (r[1] % 48);
    }

    for (i = 0; i < FLOWS; i++) {
        side_look(&flows[i]);
        side->trace[0] ^= flows[i].digest;
        ngx_tun_lwip_abort(&flows[i].lwip);
    }

    side->stat.asserts = ngx_tun_lwip_asserts();
    side->done = (lwip->memory == 0);
}


/*
 * The peer closes its window, one byte waits, and the ACK of the probe, which
 * is that byte, does not open the window: lwIP asserts that there is something
 * to send at each tick.  That is counted, and the flow lives; behind the seam
 * the timer does not run any more.
 */

static void
zero_window(side_t *sides)
{
    int           status;
    pid_t         pid;
    uint32_t      i;
    side_flow_t  *flow;

    memset(sides, 0, 2 * sizeof(side_t));

    for (vanilla = 0; vanilla < 2; vanilla++) {
        side = &sides[vanilla];

        pid = fork();

        if (pid == 0) {
            unrepaired = 1;
            flow = &flows[0];

            lwip = ngx_tun_lwip_create(&side_ops, NULL, 1500);
            ctx.last = now;

            if (vanilla) {
                vanilla_listen();
            }

            side_input(flow, TCP_SYN, 1000, 0, 0, 1000, 0);
            side_input(flow, TCP_ACK, 1001, flow->ack, 0, 0, 0);
            side_send(flow, 1);
            ngx_tun_lwip_flush(&flow->lwip);

            for (i = 0; i < 20; i++) {
                side_tick();
            }

            side_input(flow, TCP_ACK, 1001, flow->ack, 0, 0, 0);

            for (i = 0; i < 20; i++) {
                side_tick();
            }

            side->stat.acked = flow->lwip.acked;
            side->stat.asserts = ngx_tun_lwip_asserts();

            side_send(flow, 1000);
            side_input(flow, TCP_ACK, 1001, flow->ack, 0, 1000, 0);
            ngx_tun_lwip_flush(&flow->lwip);
            side_input(flow, TCP_ACK, 1001, flow->ack, 0, 1000, 0);

            side->done = (flow->lwip.acked == 1001);
            _exit(0);
        }

        waitpid(pid, &status, 0);

        ok(status == 0 && side->done, "%s, the flow lives",
           vanilla ? "vanilla" : "seam");
        ok(side->stat.acked == 1, "a probe was taken");
        ok(vanilla ? side->stat.asserts > 0 : side->stat.asserts == 0,
           "%u asserts", side->stat.asserts);
    }
}


static void
compare(uint32_t seed, side_t *sides)
{
    int           status;
    pid_t         pid;
    uint32_t      i;
    side_stat_t  *stat;

    memset(sides, 0, 2 * sizeof(side_t));

    for (vanilla = 0; vanilla < 2; vanilla++) {
        side = &sides[vanilla];

        pid = fork();

        if (pid == 0) {
            side_run(seed);
            _exit(0);
        }

        waitpid(pid, &status, 0);

        ok(status == 0 && side->done, "%s, seed %u",
           vanilla ? "vanilla" : "seam", seed);
    }

    for (i = 1; i < EVENTS; i++) {
        if (sides[0].trace[i] != sides[1].trace[i]) {
            break;
        }
    }

    ok(i == EVENTS && sides[0].trace[0] == sides[1].trace[0],
       "%u events, flow %u and action %u", i, sides[0].flow[i % EVENTS],
       sides[0].action[i % EVENTS]);

    stat = &sides[0].stat;

    ok(stat->packets > EVENTS / 4 && stat->established > 200
       && stat->closed > 200 && stat->time_wait > 20 && stat->reused > 3
       && stat->read > 1000000 && stat->acked > 500000
       && stat->repeated > 100 && stat->hot > 8 && stat->idle > 4,
       "%u packets, %u bytes, %u repeated, %u established, %u closed, "
       "%u reset, %u in TIME-WAIT, %u reused, %u read, %u acknowledged, "
       "%u hot, %u idle", stat->packets, stat->bytes, stat->repeated,
       stat->established, stat->closed, stat->reset, stat->time_wait,
       stat->reused, stat->read, stat->acked, stat->hot, stat->idle);

    ok(sides[0].stat.asserts == sides[1].stat.asserts, "asserts, %u and %u",
       sides[0].stat.asserts, sides[1].stat.asserts);
}


int
main(int argc, char **argv)
{
    side_t    *sides;
    uint32_t   seed, last;

    sides = mmap(NULL, 2 * sizeof(side_t), PROT_READ|PROT_WRITE,
                 MAP_SHARED|MAP_ANONYMOUS, -1, 0);

    if (sides == MAP_FAILED) {
        return 1;
    }

    setvbuf(stdout, NULL, _IOLBF, 0);

    zero_window(sides);

    seed = (argc > 1) ? (uint32_t) atoi(argv[1]) : 1;
    last = (argc > 2) ? (uint32_t) atoi(argv[2]) : SEEDS;

    for ( /* void */ ; seed <= last; seed++) {
        compare(seed, sides);
    }

    return done();
}
