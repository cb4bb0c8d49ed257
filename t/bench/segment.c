
/*
 * Copyright (C) the nginx-tun authors
 */


/*
 * What a segment costs in lwIP behind its seam: usage: segment flows segments
 *
 * Opens the flows, then lets segments of 1,000 bytes arrive for them in a
 * random order, which is the same each time.  What is to be counted happens
 * in segment(): the segment enters, is read, and the flow is flushed.
 */


#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>

#include <ngx_tun_lwip.h>


#define SEGMENT_SIZE   1000
#define SEGMENT_PORTS  28000


typedef struct {
    ngx_tun_lwip_flow_t  lwip;
    uint32_t             seq;
    uint32_t             ack;
} segment_flow_t;


typedef struct {
    struct iphdr         ip;
    struct tcphdr        tcp;
    uint8_t              data[SEGMENT_SIZE];
} segment_packet_t;


static int segment_output(ngx_tun_lwip_flow_t *flow, struct iovec *iov,
    unsigned n, size_t len);
static void segment_closed(ngx_tun_lwip_flow_t *flow);
static void segment_build(ngx_tun_lwip_segment_t *seg, segment_packet_t *pkt,
    uint32_t n, segment_flow_t *flow, uint8_t flags, uint32_t len);
static uint32_t segment_random(void);
static void segment_fail(const char *what);
void segment(segment_flow_t *flow, ngx_tun_lwip_segment_t *seg);


static const ngx_tun_lwip_ops_t  segment_ops = {
    segment_output,
    segment_closed
};

static uint64_t  received;
static uint64_t  sent;


int
main(int argc, char **argv)
{
    uint32_t                 i, n, nflows, nsegments;
    ngx_tun_lwip_t          *lwip;
    segment_flow_t          *flows, *flow;
    segment_packet_t         pkt;
    ngx_tun_lwip_segment_t   seg;

    if (argc != 3) {
        fprintf(stderr, "usage: %s flows segments\n", argv[0]);
        return 2;
    }

    nflows = (uint32_t) atoi(argv[1]);
    nsegments = (uint32_t) atoi(argv[2]);

    lwip = ngx_tun_lwip_create(&segment_ops, NULL, 1500);
    flows = calloc(nflows, sizeof(segment_flow_t));

    if (lwip == NULL || flows == NULL) {
        segment_fail("no memory");
    }

    for (i = 0; i < nflows; i++) {
        flow = &flows[i];
        flow->seq = segment_random();
        flow->ack = segment_random();

        segment_build(&seg, &pkt, i, flow, TH_SYN, 0);

        if (ngx_tun_lwip_open(lwip, &flow->lwip, &seg, flow->ack) != 0) {
            segment_fail("a flow was not opened");
        }

        flow->seq++;
        flow->ack++;

        segment_build(&seg, &pkt, i, flow, TH_ACK, 0);
        (void) ngx_tun_lwip_input(&flow->lwip, &seg);

        if (!flow->lwip.established) {
            segment_fail("a flow was not established");
        }
    }

    sent = 0;

    for (i = 0; i < nsegments; i++) {
        n = (uint32_t) (((uint64_t) segment_random() * nflows) >> 32);
        flow = &flows[n];

        segment_build(&seg, &pkt, n, flow, TH_ACK|TH_PUSH, SEGMENT_SIZE);
        flow->seq += SEGMENT_SIZE;

        segment(flow, &seg);
    }

    if (received != (uint64_t) nsegments * SEGMENT_SIZE) {
        segment_fail("bytes are missing");
    }

    printf("%lu bytes in, %lu packets out\n", received, sent);

    return 0;
}


__attribute__((noinline)) void
segment(segment_flow_t *flow, ngx_tun_lwip_segment_t *seg)
{
    static uint8_t  buf[SEGMENT_SIZE];

    (void) ngx_tun_lwip_input(&flow->lwip, seg);

    received += ngx_tun_lwip_recv(&flow->lwip, buf, SEGMENT_SIZE);

    ngx_tun_lwip_flush(&flow->lwip);
}


static void
segment_build(ngx_tun_lwip_segment_t *seg, segment_packet_t *pkt, uint32_t n,
    segment_flow_t *flow, uint8_t flags, uint32_t len)
{
    memset(pkt, 0, sizeof(struct iphdr) + sizeof(struct tcphdr));
    memset(seg, 0, sizeof(ngx_tun_lwip_segment_t));

    pkt->ip.version = 4;
    pkt->ip.ihl = 5;
    pkt->ip.protocol = IPPROTO_TCP;
    pkt->ip.saddr = htonl(0x0a000001 + n / SEGMENT_PORTS);
    pkt->ip.daddr = htonl(0x0a800001);

    pkt->tcp.source = htons((uint16_t) (1024 + n % SEGMENT_PORTS));
    pkt->tcp.dest = htons(443);
    pkt->tcp.seq = htonl(flow->seq);
    pkt->tcp.ack_seq = (flags & TH_ACK) ? htonl(flow->ack) : 0;
    pkt->tcp.doff = 5;
    pkt->tcp.th_flags = flags;
    pkt->tcp.window = htons(65535);

    seg->src = (uint8_t *) &pkt->ip.saddr;
    seg->dst = (uint8_t *) &pkt->ip.daddr;
    seg->addr_len = 4;
    seg->ip = (uint8_t *) &pkt->ip;
    seg->tcp = (uint8_t *) &pkt->tcp;
    seg->len = (uint32_t) sizeof(struct tcphdr) + len;

    seg->seq = flow->seq;
    seg->ack = (flags & TH_ACK) ? flow->ack : 0;
    seg->data_len = len;
    seg->mss = (flags & TH_SYN) ? 1460 : 0;
    seg->flags = flags;
}


static int
segment_output(ngx_tun_lwip_flow_t *flow, struct iovec *iov, unsigned n,
    size_t len)
{
    sent++;

    return 0;
}


static void
segment_closed(ngx_tun_lwip_flow_t *flow)
{
    segment_fail("a flow was closed");
}


static uint32_t
segment_random(void)
{
    static uint32_t  x = 12345;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;

    return x;
}


static void
segment_fail(const char *what)
{
    fprintf(stderr, "segment: %s\n", what);
    exit(1);
}
