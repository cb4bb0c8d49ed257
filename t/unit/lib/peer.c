
/*
 * Copyright (C) the nginx-tun authors
 */


#include "peer.h"


#define PEER_PACKET_MAX  65536

#define peer_from(f)     ((peer_t *) (f))
#define peer_bad(peer)   (peer)->bad++, (peer)->bad_line = __LINE__
#define peer_min(a, b)   ((a) < (b) ? (a) : (b))

/* of byte n of what the peer sends, and of what the flow sends */

#define peer_pattern(n)  ((uint8_t) ((n) * 7 + ((n) >> 8)))
#define peer_reply(n)    ((uint8_t) ((n) * 13 + ((n) >> 9) + 1))


static int peer_output(ngx_tun_lwip_flow_t *flow, struct iovec *iov,
    unsigned n, size_t len);
static void peer_closed(ngx_tun_lwip_flow_t *flow);
static void peer_build(peer_t *peer, ngx_tun_lwip_segment_t *seg, uint8_t *p,
    uint8_t flags, uint32_t seq, uint32_t ack, uint32_t len);
static size_t peer_ip_len(peer_t *peer);
static void peer_parse(peer_t *peer, uint8_t *p, size_t len);
static void peer_after(peer_t *peer);
static void peer_release(peer_t *peer, uint32_t n);


const ngx_tun_lwip_ops_t  peer_ops = {
    peer_output,
    peer_closed
};


static uint32_t  peer_now = 1000;


void
peer_init(peer_t *peer, ngx_tun_lwip_t *lwip, uint32_t n, uint32_t addr_len)
{
    static const uint8_t  src[16] = { 10, 0, 0, 0, 5 };
    static const uint8_t  dst[16] = { 93, 184, 216, 34, 6 };

    memset(peer, 0, sizeof(peer_t));

    memcpy(peer->src, src, addr_len);
    memcpy(peer->dst, dst, addr_len);

    peer->src[addr_len - 1] = (uint8_t) (1 + n / 50000);

    peer->lwip = lwip;
    peer->addr_len = addr_len;
    peer->src_port = (uint16_t) (1024 + n % 50000);
    peer->dst_port = (uint16_t) (443 + n % 3);

    peer->isn = PEER_ISN + n;
    peer->iss = PEER_ISS + n;
    peer->seq = peer->isn;
    peer->window = 65535;

    peer_options(peer, 1460, 7, 1);
}


void
peer_options(peer_t *peer, uint16_t mss, uint8_t scale, int sack)
{
    uint8_t  *p;

    p = peer->options;

    if (mss != 0) {
        *p++ = 2;
        *p++ = 4;
        *p++ = (uint8_t) (mss >> 8);
        *p++ = (uint8_t) mss;
    }

    if (sack) {
        *p++ = 4;
        *p++ = 2;
    }

    if (scale != 255) {
        *p++ = 3;
        *p++ = 3;
        *p++ = scale;
    }

    while ((p - peer->options) & 3) {
        *p++ = 0;
    }

    peer->noptions = (uint8_t) (p - peer->options);
}


int
peer_open(peer_t *peer)
{
    int                      rc;
    size_t                   size;
    uint8_t                 *p;
    ngx_tun_lwip_segment_t   seg;

    /* as exact as it is, so that a read beyond is seen */

    size = peer_ip_len(peer) + 20 + peer->noptions;

    p = malloc(size);
    if (p == NULL) {
        return -1;
    }

    peer_build(peer, &seg, p, TH_SYN, peer->isn, 0, 0);

    rc = ngx_tun_lwip_open(peer->lwip, &peer->flow, &seg, peer->iss);

    free(p);

    peer->seq = peer->isn + 1;
    peer->noptions = 0;

    return rc;
}


int
peer_connect(peer_t *peer)
{
    if (peer_open(peer) != 0) {
        return -1;
    }

    peer_ack(peer);

    return peer->flow.established ? 0 : -1;
}


void
peer_segment(peer_t *peer, uint8_t flags, uint32_t seq, uint32_t ack,
    uint32_t len)
{
    int                      kept;
    size_t                   size;
    uint8_t                 *p;
    ngx_tun_lwip_buf_t      *buf;
    ngx_tun_lwip_segment_t   seg;

    if (peer->flow.pcb == NULL) {
        return;
    }

    buf = NULL;

    if (peer->bufs) {
        buf = ngx_tun_lwip_buf_alloc(peer->lwip);
        if (buf == NULL) {
            return;
        }

        p = buf->data + NGX_TUN_LWIP_BUF_HEAD;

    } else {
        size = peer_ip_len(peer) + 20 + peer->noptions + len;

        p = malloc(size);
        if (p == NULL) {
            return;
        }
    }

    peer_build(peer, &seg, p, flags, seq, ack, len);
    seg.buf = buf;

    kept = ngx_tun_lwip_input(&peer->flow, &seg);

    if (buf == NULL) {
        if (kept) {
            peer_bad(peer);
        }

        free(p);

    } else if (!kept) {
        ngx_tun_lwip_buf_free(buf);
    }

    peer_after(peer);
}


static void
peer_build(peer_t *peer, ngx_tun_lwip_segment_t *seg, uint8_t *p,
    uint8_t flags, uint32_t seq, uint32_t ack, uint32_t len)
{
    size_t          ip_len;
    uint8_t        *data;
    uint32_t        i, n;
    struct tcphdr   th;

    memset(seg, 0, sizeof(ngx_tun_lwip_segment_t));
    memset(&th, 0, sizeof(struct tcphdr));

    ip_len = peer_ip_len(peer);

    memset(p, 0, ip_len);
    p[0] = (peer->addr_len == 4) ? 0x45 : 0x60;

    seg->ip = p;
    seg->src = p + ip_len - 2 * peer->addr_len;
    seg->dst = p + ip_len - peer->addr_len;
    seg->addr_len = peer->addr_len;

    memcpy(seg->src, peer->src, peer->addr_len);
    memcpy(seg->dst, peer->dst, peer->addr_len);

    th.source = htons(peer->src_port);
    th.dest = htons(peer->dst_port);
    th.seq = htonl(seq);
    th.ack_seq = htonl(ack);
    th.doff = 5 + peer->noptions / 4;
    th.th_flags = flags;
    th.window = htons(peer->window);

    seg->tcp = p + ip_len;
    seg->len = 20 + peer->noptions + len;

    memcpy(seg->tcp, &th, 20);
    memcpy(seg->tcp + 20, peer->options, peer->noptions);

    data = seg->tcp + 20 + peer->noptions;
    n = seq - peer->isn - 1;

    for (i = 0; i < len; i++) {
        data[i] = peer_pattern(n + i);
    }

    seg->seq = seq;
    seg->ack = ack;
    seg->data_len = len;
    seg->flags = flags;
    seg->full = peer->full;
    seg->now = peer_now;

    /* as the parser of options would say */

    if ((flags & TH_SYN) && peer->noptions != 0 && peer->options[0] == 2) {
        seg->mss = (uint16_t) (peer->options[2] << 8 | peer->options[3]);
    }

    if (flags & TH_SYN) {
        for (i = 0; i + 2 < peer->noptions; i++) {
            if (peer->options[i] == 3 && peer->options[i + 1] == 3) {
                peer->scale = peer->options[i + 2];
                break;
            }
        }
    }
}


static size_t
peer_ip_len(peer_t *peer)
{
    return (peer->addr_len == 4) ? 20 : 40;
}


void
peer_ack(peer_t *peer)
{
    peer_segment(peer, TH_ACK, peer->seq, peer->ack, 0);
}


void
peer_data(peer_t *peer, uint32_t len)
{
    uint32_t  seq;

    seq = peer->seq;
    peer->seq += len;

    peer_segment(peer, TH_ACK|TH_PUSH, seq, peer->ack, len);
}


void
peer_fin(peer_t *peer)
{
    uint32_t  seq;

    seq = peer->seq;
    peer->seq++;

    peer_segment(peer, TH_ACK|TH_FIN, seq, peer->ack, 0);
}


uint32_t
peer_read(peer_t *peer, uint32_t size)
{
    size_t    n, i;
    uint8_t  *buf;

    buf = malloc(size);
    if (buf == NULL) {
        return 0;
    }

    n = ngx_tun_lwip_recv(&peer->flow, buf, size);

    for (i = 0; i < n; i++) {
        if (buf[i] != peer_pattern(peer->received + (uint32_t) i)) {
            peer_bad(peer);
            break;
        }
    }

    free(buf);

    peer->received += (uint32_t) n;

    return (uint32_t) n;
}


uint32_t
peer_send(peer_t *peer, uint32_t size)
{
    uint32_t        i;
    peer_piece_t   *piece, **last;

    piece = malloc(sizeof(peer_piece_t));
    if (piece == NULL) {
        return 0;
    }

    piece->data = malloc(size);

    if (piece->data == NULL) {
        free(piece);
        return 0;
    }

    for (i = 0; i < size; i++) {
        piece->data[i] = peer_reply(peer->written + i);
    }

    piece->next = NULL;
    piece->released = 0;
    piece->len = (uint32_t) ngx_tun_lwip_send(&peer->flow, piece->data, size);

    peer->written += piece->len;
    i = piece->len;

    if (i == 0) {
        free(piece->data);
        free(piece);
        return 0;
    }

    for (last = &peer->pieces; *last != NULL; last = &(*last)->next) {
        /* void */
    }

    *last = piece;

    return i;
}


void
peer_done(peer_t *peer)
{
    ngx_tun_lwip_abort(&peer->flow);
    peer_release(peer, (uint32_t) -1);
}


void
peer_ticks(uint32_t n)
{
    while (n--) {
        peer_now += NGX_TUN_LWIP_TICK;
        ngx_tun_lwip_tick(peer_now);
    }
}


/* what happened to the flow, taken as its owner would */

static void
peer_after(peer_t *peer)
{
    uint32_t  n;

    n = peer->flow.acked;
    peer->flow.acked = 0;

    /* a FIN counts as one */

    if (n > peer->written - peer->released + 1) {
        peer_bad(peer);
    }

    peer_release(peer, n);
}


static void
peer_release(peer_t *peer, uint32_t n)
{
    uint32_t       k;
    peer_piece_t  *piece;

    while (peer->pieces != NULL && n != 0) {
        piece = peer->pieces;

        k = peer_min(n, piece->len - piece->released);

        /* whoever sends it again is seen */
        memset(piece->data + piece->released, 0xdd, k);

        n -= k;
        piece->released += k;
        peer->released += k;

        if (piece->released == piece->len) {
            peer->pieces = piece->next;

            free(piece->data);
            free(piece);
        }
    }
}


static int
peer_output(ngx_tun_lwip_flow_t *flow, struct iovec *iov, unsigned n,
    size_t len)
{
    size_t    total;
    uint8_t  *p;
    peer_t   *peer;
    unsigned  i;

    static uint8_t  packet[PEER_PACKET_MAX];

    peer = peer_from(flow);

    if (peer->refuse) {
        return -1;
    }

    if (len > PEER_PACKET_MAX - 1) {
        peer_bad(peer);
        return 0;
    }

    p = packet;
    total = 0;

    for (i = 1; i < n; i++) {
        total += iov[i].iov_len;

        if (iov[i].iov_len == 0 || total > len) {
            peer_bad(peer);
            return 0;
        }

        memcpy(p, iov[i].iov_base, iov[i].iov_len);
        p += iov[i].iov_len;
    }

    if (total != len || iov[1].iov_len < peer_ip_len(peer) + 20) {
        peer_bad(peer);
        return 0;
    }

    peer_parse(peer, packet, len);

    return 0;
}


static void
peer_parse(peer_t *peer, uint8_t *p, size_t len)
{
    size_t          ip_len, i, header_len;
    uint8_t        *addr;
    uint32_t        n, end;
    struct tcphdr   th;
    peer_packet_t  *last;

    ip_len = peer_ip_len(peer);
    addr = p + ip_len - 2 * peer->addr_len;

    memcpy(&th, p + ip_len, 20);

    if (memcmp(addr, peer->dst, peer->addr_len) != 0
        || memcmp(addr + peer->addr_len, peer->src, peer->addr_len) != 0
        || th.source != htons(peer->dst_port)
        || th.dest != htons(peer->src_port))
    {
        peer_bad(peer);
        return;
    }

    header_len = ip_len + th.doff * 4;

    last = &peer->last;

    last->seq = htonl(th.seq);
    last->ack = htonl(th.ack_seq);
    last->flags = th.th_flags;
    last->len = (uint32_t) (len - header_len);
    last->noptions = (uint32_t) (header_len - ip_len - 20);
    last->window = htons(th.window);

    memcpy(last->options, p + ip_len + 20, last->noptions);

    if (last->flags & TH_SYN) {
        for (i = 0; i + 2 < last->noptions; i++) {
            if (last->options[i] == 3 && last->options[i + 1] == 3) {
                peer->our_scale = last->options[i + 2];
                break;
            }
        }

    } else {
        last->window <<= peer->our_scale;
    }

    peer->packets++;
    peer->bytes += last->len;
    peer->resets += (last->flags & TH_RST) != 0;

    /* of each byte its place in the stream is known */

    n = last->seq - peer->iss - 1;

    for (i = 0; i < last->len; i++) {
        if (p[header_len + i] != peer_reply(n + (uint32_t) i)) {
            peer_bad(peer);
            break;
        }
    }

    end = last->seq + last->len + ((last->flags & (TH_SYN|TH_FIN)) != 0);

    if (last->flags & TH_SYN) {
        peer->ack = end;
        peer->high = end;
        return;
    }

    if (last->len != 0 && (int32_t) (last->seq - peer->high) < 0) {
        peer->repeated++;
    }

    if ((int32_t) (end - peer->high) > 0) {
        peer->high = end;
    }

    if (!peer->deaf
        && (int32_t) (last->seq - peer->ack) <= 0
        && (int32_t) (end - peer->ack) > 0)
    {
        peer->ack = end;
    }
}


static void
peer_closed(ngx_tun_lwip_flow_t *flow)
{
    peer_t  *peer;

    peer = peer_from(flow);

    peer->closed++;

    if (flow->pcb != NULL || peer->closed != 1) {
        peer_bad(peer);
    }

    /* nobody refers to what was sent */
    peer_release(peer, (uint32_t) -1);
}
