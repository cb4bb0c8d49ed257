
/*
 * Copyright (C) the nginx-tun authors
 */


#include "ngx_tun_lwip.h"

#include "lwip/opt.h"
#include "lwip/init.h"
#include "lwip/ip.h"
#include "lwip/netif.h"
#include "lwip/pbuf.h"
#include "lwip/tcp.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/prot/tcp.h"


#define NGX_TUN_LWIP_IOVS      64
#define NGX_TUN_LWIP_BUFS      64           /* kept for reuse */
#define NGX_TUN_LWIP_COPY      16384        /* shorter segments are copied */
#define NGX_TUN_LWIP_SLACK     8            /* lwIP may look past options */

#define NGX_TUN_LWIP_MSS_MIN   48
#define NGX_TUN_LWIP_MSS_4     536          /* RFC 9293, 3.7.1 */
#define NGX_TUN_LWIP_MSS_6     1220

#define NGX_TUN_LWIP_RTO       3            /* slow ticks */

#define NGX_TUN_LWIP_CHALLENGE 500          /* ms between two of a flow */


struct ngx_tun_lwip_s {
    struct netif                netif;
    const ngx_tun_lwip_ops_t   *ops;
    void                       *data;
    ngx_tun_lwip_buf_t         *bufs;
    unsigned                    nbufs;
    size_t                      memory;
    uint32_t                    retransmits;
};


/* a copy of a short segment, as large as it is */

typedef struct {
    struct pbuf_custom          pbuf;
    ngx_tun_lwip_t             *lwip;
    size_t                      size;
    uint8_t                     data[];
} ngx_tun_lwip_copy_t;


/* lwIP's state is one per process, and so is what stands beside it */

typedef struct {
    struct tcp_pcb_listen      *listener;
    ngx_tun_lwip_flow_t        *opening;
    ngx_tun_lwip_flow_t        *input;      /* in tcp_input() */
    ngx_tun_lwip_flow_t         hot;        /* heads of the lists */
    ngx_tun_lwip_flow_t         time_wait;
    uint32_t                    nhot;
    uint32_t                    ntime_wait;
    uint32_t                    isn;
    uint32_t                    last;
    uint32_t                    asserts;
    uint8_t                     timer;      /* lwIP's own is static */
    uint8_t                     ticks;
    uint8_t                     id;
} ngx_tun_lwip_ctx_t;


static int ngx_tun_lwip_init(void);
static err_t ngx_tun_lwip_netif_init(struct netif *netif);
static err_t ngx_tun_lwip_output4(struct netif *netif, struct pbuf *p,
    const ip4_addr_t *addr);
static err_t ngx_tun_lwip_output6(struct netif *netif, struct pbuf *p,
    const ip6_addr_t *addr);
static err_t ngx_tun_lwip_output(struct netif *netif, struct pbuf *p);
static int ngx_tun_lwip_again(struct tcp_pcb *pcb, struct pbuf *p);
static int ngx_tun_lwip_hold_ack(ngx_tun_lwip_flow_t *flow, struct pbuf *p);

static err_t ngx_tun_lwip_passive_open_handler(u8_t id,
    struct tcp_pcb_listen *listener, struct tcp_pcb *pcb);
static void ngx_tun_lwip_destroy_handler(u8_t id, void *data);
static err_t ngx_tun_lwip_accept_handler(void *arg, struct tcp_pcb *pcb,
    err_t err);
static err_t ngx_tun_lwip_recv_handler(void *arg, struct tcp_pcb *pcb,
    struct pbuf *p, err_t err);
static void ngx_tun_lwip_error_handler(void *arg, err_t err);
static void ngx_tun_lwip_buf_handler(struct pbuf *p);
static void ngx_tun_lwip_copy_handler(struct pbuf *p);

static int ngx_tun_lwip_unacceptable(ngx_tun_lwip_flow_t *flow,
    ngx_tun_lwip_segment_t *seg);
static int ngx_tun_lwip_outside(struct tcp_pcb *pcb,
    ngx_tun_lwip_segment_t *seg);
static void ngx_tun_lwip_challenge(ngx_tun_lwip_flow_t *flow, uint32_t now);
static struct pbuf *ngx_tun_lwip_pbuf(ngx_tun_lwip_t *lwip,
    ngx_tun_lwip_segment_t *seg);
static void ngx_tun_lwip_addresses(ngx_tun_lwip_segment_t *seg,
    struct netif *netif);
static void ngx_tun_lwip_drop_rx(ngx_tun_lwip_flow_t *flow);
static void ngx_tun_lwip_fit(ngx_tun_lwip_flow_t *flow);
static err_t ngx_tun_lwip_split(struct tcp_pcb *pcb, uint32_t n);
static void ngx_tun_lwip_credit(ngx_tun_lwip_flow_t *flow, uint32_t n);
static void ngx_tun_lwip_release(ngx_tun_lwip_flow_t *flow);
static void ngx_tun_lwip_drain(ngx_tun_lwip_flow_t *flow);

static void ngx_tun_lwip_link(ngx_tun_lwip_flow_t *head,
    ngx_tun_lwip_flow_t *flow);
static void ngx_tun_lwip_unlink(ngx_tun_lwip_flow_t *flow);
static int ngx_tun_lwip_needs_tick(struct tcp_pcb *pcb);
static void ngx_tun_lwip_settle(ngx_tun_lwip_flow_t *flow);
static void ngx_tun_lwip_detach(void);
static void ngx_tun_lwip_fast_tick(void);
static void ngx_tun_lwip_slow_tick(void);
static void ngx_tun_lwip_reorder(struct tcp_pcb *pcb);
static void ngx_tun_lwip_persist(struct tcp_pcb *pcb);


static ngx_tun_lwip_ctx_t  ctx;


static const struct tcp_ext_arg_callbacks  ngx_tun_lwip_callbacks = {
    ngx_tun_lwip_destroy_handler,
    ngx_tun_lwip_passive_open_handler
};


ngx_tun_lwip_t *
ngx_tun_lwip_create(const ngx_tun_lwip_ops_t *ops, void *data, uint32_t mtu)
{
    ngx_tun_lwip_t  *lwip;

    if (ngx_tun_lwip_init() != 0) {
        return NULL;
    }

    lwip = calloc(1, sizeof(ngx_tun_lwip_t));
    if (lwip == NULL) {
        return NULL;
    }

    lwip->ops = ops;
    lwip->data = data;

    if (netif_add(&lwip->netif, NULL, NULL, NULL, lwip,
                  ngx_tun_lwip_netif_init, NULL)
        == NULL)
    {
        free(lwip);
        return NULL;
    }

    /* netif_add() has cleared it */
    lwip->netif.mtu = (u16_t) mtu;

    return lwip;
}


void
ngx_tun_lwip_destroy(ngx_tun_lwip_t *lwip)
{
    ngx_tun_lwip_buf_t  *buf;

    netif_remove(&lwip->netif);

    while (lwip->bufs != NULL) {
        buf = lwip->bufs;
        lwip->bufs = buf->next;
        free(buf);
    }

    free(lwip);
}


void *
ngx_tun_lwip_data(ngx_tun_lwip_t *lwip)
{
    return lwip->data;
}


static int
ngx_tun_lwip_init(void)
{
    struct tcp_pcb  *pcb, *listener;

    if (ctx.listener != NULL) {
        return 0;
    }

    lwip_init();

    ctx.id = tcp_ext_arg_alloc_id();

    ctx.hot.prev = &ctx.hot;
    ctx.hot.next = &ctx.hot;
    ctx.time_wait.prev = &ctx.time_wait;
    ctx.time_wait.next = &ctx.time_wait;

    pcb = tcp_new_ip_type(IPADDR_TYPE_ANY);
    if (pcb == NULL) {
        return -1;
    }

    tcp_ext_arg_set_callbacks(pcb, ctx.id, &ngx_tun_lwip_callbacks);
    tcp_ext_arg_set(pcb, ctx.id, NULL);

    listener = (tcp_bind(pcb, IP_ANY_TYPE, 1) == ERR_OK) ? tcp_listen(pcb)
                                                         : NULL;
    if (listener == NULL) {
        tcp_close(pcb);
        return -1;
    }

    tcp_accept(listener, ngx_tun_lwip_accept_handler);

    ctx.listener = (struct tcp_pcb_listen *) listener;

    return 0;
}


static err_t
ngx_tun_lwip_netif_init(struct netif *netif)
{
    netif->output = ngx_tun_lwip_output4;
    netif->output_ip6 = ngx_tun_lwip_output6;

    return ERR_OK;
}


ngx_tun_lwip_buf_t *
ngx_tun_lwip_buf_alloc(ngx_tun_lwip_t *lwip)
{
    ngx_tun_lwip_buf_t  *buf;

    buf = lwip->bufs;

    if (buf != NULL) {
        lwip->bufs = buf->next;
        lwip->nbufs--;
        return buf;
    }

    buf = malloc(sizeof(ngx_tun_lwip_buf_t) + NGX_TUN_LWIP_BUF_SIZE);
    if (buf == NULL) {
        return NULL;
    }

    LWIP_ASSERT("pbuf_custom fits", sizeof(struct pbuf_custom)
                                    <= sizeof(buf->pbuf));

    buf->lwip = lwip;

    return buf;
}


void
ngx_tun_lwip_buf_free(ngx_tun_lwip_buf_t *buf)
{
    ngx_tun_lwip_t  *lwip;

    lwip = buf->lwip;

    if (lwip->nbufs == NGX_TUN_LWIP_BUFS) {
        free(buf);
        return;
    }

    buf->next = lwip->bufs;
    lwip->bufs = buf;
    lwip->nbufs++;
}


static void
ngx_tun_lwip_buf_handler(struct pbuf *p)
{
    ngx_tun_lwip_buf_t  *buf;

    buf = (ngx_tun_lwip_buf_t *) p;

    buf->lwip->memory -= NGX_TUN_LWIP_BUF_SIZE;

    ngx_tun_lwip_buf_free(buf);
}


int
ngx_tun_lwip_open(ngx_tun_lwip_t *lwip, ngx_tun_lwip_flow_t *flow,
    ngx_tun_lwip_segment_t *seg, uint32_t isn)
{
    uint16_t         len;
    struct pbuf     *p;
    struct tcp_hdr  *th;

    /* a SYN makes the pcb, its data would not be acknowledged anyway */

    len = (uint16_t) (seg->len - seg->data_len);

    p = pbuf_alloc(PBUF_RAW, len + NGX_TUN_LWIP_SLACK, PBUF_RAM);
    if (p == NULL) {
        return -1;
    }

    pbuf_realloc(p, len);

    th = p->payload;
    memcpy(th, seg->tcp, len);

    flow->lwip = lwip;
    flow->tx_base = isn + 1;

    flow->mss = seg->mss;

    if (flow->mss == 0) {
        flow->mss = (seg->addr_len == 4) ? NGX_TUN_LWIP_MSS_4
                                         : NGX_TUN_LWIP_MSS_6;
    }

    ctx.opening = flow;
    ctx.isn = isn;
    ctx.listener->local_port = lwip_ntohs(th->dest);
    ctx.listener->netif_idx = netif_get_index(&lwip->netif);

    ngx_tun_lwip_addresses(seg, &lwip->netif);

    tcp_input(p, &lwip->netif);

    ngx_tun_lwip_detach();

    ctx.opening = NULL;

    return (flow->pcb != NULL) ? 0 : -1;
}


int
ngx_tun_lwip_input(ngx_tun_lwip_flow_t *flow, ngx_tun_lwip_segment_t *seg)
{
    int              kept;
    struct pbuf     *p;
    struct tcp_pcb  *pcb;

    if (ngx_tun_lwip_unacceptable(flow, seg)) {
        flow->dropped = 1;
        return 0;
    }

    p = ngx_tun_lwip_pbuf(flow->lwip, seg);
    if (p == NULL) {
        return 0;
    }

    kept = (p == (struct pbuf *) seg->buf);
    pcb = flow->pcb;

    if (flow->time_wait) {
        tcp_tw_pcbs = pcb;

    } else {
        tcp_active_pcbs = pcb;

        /* one ACK for a batch: see ngx_tun_lwip_flush() */
        tcp_clear_flags(pcb, TF_ACK_DELAY);
    }

    ngx_tun_lwip_addresses(seg, &flow->lwip->netif);

    ctx.input = flow;

    tcp_input(p, &flow->lwip->netif);

    ctx.input = NULL;

    ngx_tun_lwip_detach();

    if (flow->pcb == NULL) {
        return kept;
    }

    ngx_tun_lwip_release(flow);

    if (!flow->time_wait) {
        pcb = flow->pcb;

        /* lwIP takes the MSS from any segment, and never expects less */
        pcb->mss = TCP_MSS;
        pcb->cwnd = LWIP_MAX(pcb->cwnd, TCP_MSS);

        ngx_tun_lwip_reorder(pcb);

        if (pcb->rcv_nxt != flow->ack_sent) {
            tcp_set_flags(pcb, TF_ACK_DELAY);
        }

        if (flow->draining) {
            ngx_tun_lwip_drain(flow);
        }

        ngx_tun_lwip_settle(flow);
    }

    return kept;
}


/* what lwIP would take, or answer each time */

static int
ngx_tun_lwip_unacceptable(ngx_tun_lwip_flow_t *flow,
    ngx_tun_lwip_segment_t *seg)
{
    uint8_t          flags;
    uint32_t         left, right;
    struct tcp_pcb  *pcb;

    pcb = flow->pcb;

    flags = seg->flags & (TCP_ACK|TCP_SYN|TCP_RST);

    if (flow->time_wait || flags == 0) {
        return flags == 0;
    }

    /* an ACK that establishes the flow may have data, but no SYN */

    if (pcb->state == SYN_RCVD) {
        return flags == (TCP_ACK|TCP_SYN)
               || (flags == TCP_ACK && ngx_tun_lwip_outside(pcb, seg));
    }

    left = pcb->rcv_nxt;
    right = left + pcb->rcv_wnd;

    /* RFC 5961, 3.2 and 4.2; lwIP resets where the number is exact */

    if (flags & TCP_RST) {

        if (seg->seq == left) {
            return 0;
        }

        if (TCP_SEQ_GT(seg->seq, left) && TCP_SEQ_LT(seg->seq, right)) {
            ngx_tun_lwip_challenge(flow, seg->now);
        }

        return 1;
    }

    if (flags & TCP_SYN) {
        ngx_tun_lwip_challenge(flow, seg->now);
        return 1;
    }

    /* of bytes not sent, or from too long ago: RFC 5961, 5.2 */

    if (TCP_SEQ_GT(seg->ack, pcb->snd_nxt)
        || TCP_SEQ_LT(seg->ack, pcb->lastack - pcb->snd_wnd_max))
    {
        ngx_tun_lwip_challenge(flow, seg->now);
        return 1;
    }

    if (seg->full
        && seg->data_len != 0
        && (seg->seq != left || flow->readable != 0))
    {
        /* the window closes for what was not read, or is out of order */

        flow->starved = 1;
        flow->squeezed = 1;

        pcb->rcv_ann_wnd = 0;

        ngx_tun_lwip_challenge(flow, seg->now);
        return 1;
    }

    if (ngx_tun_lwip_outside(pcb, seg)) {
        ngx_tun_lwip_challenge(flow, seg->now);
        return 1;
    }

    return 0;
}


/* of the window, and no probe of it, or beyond a FIN */

static int
ngx_tun_lwip_outside(struct tcp_pcb *pcb, ngx_tun_lwip_segment_t *seg)
{
    uint32_t         left, right, end, fin;
    struct tcp_seg  *queued;

    left = pcb->rcv_nxt;
    end = seg->seq + seg->data_len;

    /* that of a SYN|ACK is not scaled */
    right = left + ((pcb->state == SYN_RCVD) ? 0xffff : pcb->rcv_wnd);

    /* lwIP would move the FIN to the end of what covers it */

    for (queued = pcb->ooseq; queued != NULL; queued = queued->next) {
        fin = queued->tcphdr->seqno + queued->len;

        if ((TCPH_FLAGS(queued->tcphdr) & TCP_FIN) && TCP_SEQ_GT(end, fin)) {
            return 1;
        }
    }

    if (seg->flags & TCP_FIN) {
        end++;
    }

    /* what is beyond it lwIP does not cut off a first one out of order */

    return (TCP_SEQ_GT(seg->seq, left) && TCP_SEQ_GT(end, right))
           || (end == seg->seq && TCP_SEQ_LT(seg->seq, left - 1));
}


static void
ngx_tun_lwip_challenge(ngx_tun_lwip_flow_t *flow, uint32_t now)
{
    struct tcp_pcb  *pcb;

    if (flow->challenged != 0
        && now - flow->challenged < NGX_TUN_LWIP_CHALLENGE)
    {
        return;
    }

    flow->challenged = now ? now : 1;

    pcb = flow->pcb;

    tcp_ack_now(pcb);
    tcp_output(pcb);

    ngx_tun_lwip_settle(flow);
}


int
ngx_tun_lwip_shrink(ngx_tun_lwip_flow_t *flow, uint32_t seq, uint16_t mss)
{
    struct tcp_pcb  *pcb;

    pcb = flow->pcb;

    if (pcb == NULL
        || flow->time_wait
        || !flow->established
        || TCP_SEQ_LT(seq, pcb->lastack)
        || TCP_SEQ_GEQ(seq, pcb->snd_nxt))
    {
        return -1;
    }

    if (mss >= flow->mss) {
        return 0;
    }

    flow->mss = LWIP_MAX(mss, NGX_TUN_LWIP_MSS_MIN);

    /* the device cuts what is sent again anew: no need to wait */

    if (pcb->unacked != NULL && pcb->rtime >= 0) {
        pcb->rtime = pcb->rto;
    }

    return 0;
}


static struct pbuf *
ngx_tun_lwip_pbuf(ngx_tun_lwip_t *lwip, ngx_tun_lwip_segment_t *seg)
{
    uint16_t              len;
    struct pbuf_custom   *pc;
    ngx_tun_lwip_copy_t  *copy;

    len = (uint16_t) seg->len;

    if (seg->buf != NULL && seg->len >= NGX_TUN_LWIP_COPY) {
        pc = (struct pbuf_custom *) seg->buf->pbuf;
        pc->custom_free_function = ngx_tun_lwip_buf_handler;

        lwip->memory += NGX_TUN_LWIP_BUF_SIZE;

        return pbuf_alloced_custom(PBUF_RAW, len, PBUF_REF, pc, seg->tcp, len);
    }

    copy = malloc(sizeof(ngx_tun_lwip_copy_t) + len + NGX_TUN_LWIP_SLACK);
    if (copy == NULL) {
        return NULL;
    }

    copy->pbuf.custom_free_function = ngx_tun_lwip_copy_handler;
    copy->lwip = lwip;
    copy->size = sizeof(ngx_tun_lwip_copy_t) + len + NGX_TUN_LWIP_SLACK;

    lwip->memory += copy->size;

    memcpy(copy->data, seg->tcp, len);

    return pbuf_alloced_custom(PBUF_RAW, len, PBUF_REF, &copy->pbuf,
                               copy->data, len);
}


static void
ngx_tun_lwip_copy_handler(struct pbuf *p)
{
    ngx_tun_lwip_copy_t  *copy;

    copy = (ngx_tun_lwip_copy_t *) p;

    copy->lwip->memory -= copy->size;

    free(copy);
}


size_t
ngx_tun_lwip_memory(ngx_tun_lwip_t *lwip)
{
    return lwip->memory;
}


static void
ngx_tun_lwip_addresses(ngx_tun_lwip_segment_t *seg, struct netif *netif)
{
    int  v4;

    v4 = (seg->addr_len == 4);

    IP_SET_TYPE_VAL(ip_data.current_iphdr_src, v4 ? IPADDR_TYPE_V4
                                                  : IPADDR_TYPE_V6);
    IP_SET_TYPE_VAL(ip_data.current_iphdr_dest, v4 ? IPADDR_TYPE_V4
                                                   : IPADDR_TYPE_V6);

    memcpy(&ip_data.current_iphdr_src.u_addr, seg->src, seg->addr_len);
    memcpy(&ip_data.current_iphdr_dest.u_addr, seg->dst, seg->addr_len);

    ip_data.current_ip4_header = v4 ? (struct ip_hdr *) seg->ip : NULL;
    ip_data.current_ip6_header = v4 ? NULL : (struct ip6_hdr *) seg->ip;

    ip_data.current_netif = netif;
    ip_data.current_input_netif = netif;
    ip_data.current_ip_header_tot_len = (u16_t) (seg->tcp - seg->ip);
}


int
ngx_tun_lwip_reusable(ngx_tun_lwip_flow_t *flow, uint32_t seq)
{
    return flow->time_wait
           && TCP_SEQ_GT(seq, ((struct tcp_pcb *) flow->pcb)->rcv_nxt);
}


size_t
ngx_tun_lwip_recv(ngx_tun_lwip_flow_t *flow, uint8_t *buf, size_t size)
{
    size_t        n, total;
    struct pbuf  *p;

    total = 0;

    while (total < size && flow->rx != NULL) {
        p = flow->rx;

        n = LWIP_MIN(size - total, (size_t) (p->len - flow->rx_offset));

        memcpy(buf + total, (uint8_t *) p->payload + flow->rx_offset, n);

        total += n;
        flow->rx_offset += (uint32_t) n;

        if (flow->rx_offset == p->len) {
            flow->rx = p->next;
            flow->rx_offset = 0;

            p->next = NULL;
            pbuf_free(p);
        }
    }

    flow->readable -= (uint32_t) total;
    flow->squeezed = 0;

    ngx_tun_lwip_credit(flow, (uint32_t) total);

    return total;
}


static void
ngx_tun_lwip_credit(ngx_tun_lwip_flow_t *flow, uint32_t n)
{
    uint32_t         max, more;
    struct tcp_pcb  *pcb;

    pcb = flow->pcb;

    if (pcb == NULL || flow->time_wait) {
        return;
    }

    /* a reader that took a whole window could take a larger one */

    max = TCP_WND_MAX(pcb);
    flow->rx_grown += n;

    if (flow->rx_grown >= flow->rx_window && flow->rx_window < max) {
        more = LWIP_MIN(flow->rx_window, max - flow->rx_window);
        flow->rx_window += more;
        flow->rx_grown = 0;
        n += more;
    }

    while (n != 0) {
        more = LWIP_MIN(n, 0xffff);
        tcp_recved(pcb, (u16_t) more);
        n -= more;
    }
}


static void
ngx_tun_lwip_release(ngx_tun_lwip_flow_t *flow)
{
    uint32_t         base, seq;
    struct tcp_pcb  *pcb;

    pcb = flow->pcb;
    base = pcb->lastack;

    /* a segment acknowledged in part is kept, and may be sent again, whole */

    if (pcb->unacked != NULL) {
        seq = lwip_ntohl(pcb->unacked->tcphdr->seqno);
        base = TCP_SEQ_LT(seq, base) ? seq : base;
    }

    if (pcb->unsent != NULL) {
        seq = lwip_ntohl(pcb->unsent->tcphdr->seqno);
        base = TCP_SEQ_LT(seq, base) ? seq : base;
    }

    if (TCP_SEQ_GT(base, flow->tx_base)) {
        flow->acked += base - flow->tx_base;
        flow->tx_base = base;
    }
}


static void
ngx_tun_lwip_drop_rx(ngx_tun_lwip_flow_t *flow)
{
    if (flow->rx != NULL) {
        pbuf_free(flow->rx);
        flow->rx = NULL;
    }

    flow->rx_offset = 0;
    flow->readable = 0;
}


size_t
ngx_tun_lwip_send(ngx_tun_lwip_flow_t *flow, uint8_t *buf, size_t size)
{
    size_t           n, total;
    struct tcp_pcb  *pcb;

    pcb = flow->pcb;

    if (pcb == NULL || flow->time_wait || flow->fin) {
        return 0;
    }

    for (total = 0; total < size; total += n) {

        n = LWIP_MIN(size - total, TCP_MSS);
        n = LWIP_MIN(n, pcb->snd_buf);

        if (n == 0
            || tcp_write(pcb, buf + total, (u16_t) n, 0) != ERR_OK)
        {
            break;
        }
    }

    ngx_tun_lwip_settle(flow);

    return total;
}


size_t
ngx_tun_lwip_cwnd(ngx_tun_lwip_flow_t *flow)
{
    struct tcp_pcb  *pcb;

    pcb = flow->pcb;

    return (pcb == NULL) ? 0 : pcb->cwnd;
}


void
ngx_tun_lwip_flush(ngx_tun_lwip_flow_t *flow)
{
    uint32_t         edge;
    struct tcp_pcb  *pcb;

    pcb = flow->pcb;

    if (pcb == NULL || flow->time_wait) {
        return;
    }

    if (flow->established && !flow->eof && !flow->squeezed) {
        edge = pcb->rcv_nxt + pcb->rcv_wnd - pcb->rcv_ann_right_edge;

        /* lwIP would wait for a whole TCP_MSS, RFC 9293, 3.8.6.2.2 */

        if (edge >= flow->mss) {
            pcb->rcv_ann_wnd = pcb->rcv_wnd;
        }

        if (pcb->rcv_nxt - flow->ack_sent >= (uint32_t) 2 * flow->mss
            || edge >= flow->rx_window / 4)
        {
            tcp_ack_now(pcb);
        }
    }

    if (flow->ack_due) {
        tcp_ack_now(pcb);
    }

    tcp_output(pcb);

    ngx_tun_lwip_fit(flow);
    ngx_tun_lwip_settle(flow);
}


/*
 * A segment is large, the window may be less.  Where nothing on the way will
 * bring an ACK, or half of it fits, what fits is sent at once: a peer that
 * shows a segment of its own size does not tell of more, RFC 9293, 3.8.6.2.1.
 */

static void
ngx_tun_lwip_fit(ngx_tun_lwip_flow_t *flow)
{
    uint32_t         n, used;
    struct tcp_seg  *head;
    struct tcp_pcb  *pcb;

    pcb = flow->pcb;
    head = pcb->unsent;

    if (head == NULL || !flow->established || pcb->snd_wnd > pcb->cwnd) {
        return;
    }

    used = lwip_ntohl(head->tcphdr->seqno) - pcb->lastack;

    if (used >= pcb->snd_wnd) {
        return;
    }

    n = pcb->snd_wnd - used;
    n -= n % flow->mss;

    if (n == 0
        || n >= head->len
        || (pcb->unacked != NULL && n < head->len / 2)
        || ngx_tun_lwip_split(pcb, n) != ERR_OK)
    {
        return;
    }

    tcp_output(pcb);
}


static err_t
ngx_tun_lwip_split(struct tcp_pcb *pcb, uint32_t n)
{
    err_t  rc;

    if (n >= pcb->unsent->len) {
        return ERR_OK;
    }

    rc = tcp_split_unsent_seg(pcb, (u16_t) n);

    /* lwIP leaves a FIN in both halves, the first would end the flow */

    if (rc == ERR_OK) {
        TCPH_UNSET_FLAG(pcb->unsent->tcphdr, TCP_FIN);
    }

    return rc;
}


void
ngx_tun_lwip_flush_full(ngx_tun_lwip_flow_t *flow)
{
    struct tcp_pcb  *pcb;

    pcb = flow->pcb;

    if (pcb == NULL || flow->time_wait) {
        return;
    }

    tcp_nagle_enable(pcb);
    tcp_output(pcb);
    tcp_nagle_disable(pcb);

    ngx_tun_lwip_settle(flow);
}


void
ngx_tun_lwip_shutdown(ngx_tun_lwip_flow_t *flow)
{
    struct tcp_pcb  *pcb;

    pcb = flow->pcb;

    if (pcb == NULL || flow->time_wait || flow->fin) {
        return;
    }

    flow->fin = 1;

    /* out of memory the FIN waits for the next tick */
    (void) tcp_shutdown(pcb, 0, 1);

    ngx_tun_lwip_settle(flow);
}


void
ngx_tun_lwip_close(ngx_tun_lwip_flow_t *flow)
{
    uint32_t         n;
    struct tcp_pcb  *pcb;

    n = flow->readable;

    ngx_tun_lwip_drop_rx(flow);

    flow->draining = 1;

    pcb = flow->pcb;

    if (pcb == NULL || flow->time_wait) {
        return;
    }

    if (pcb->state == SYN_RCVD) {
        ngx_tun_lwip_abort(flow);
        return;
    }

    ngx_tun_lwip_credit(flow, n);
    ngx_tun_lwip_shutdown(flow);
    ngx_tun_lwip_drain(flow);
}


static void
ngx_tun_lwip_drain(ngx_tun_lwip_flow_t *flow)
{
    struct tcp_pcb  *pcb;

    pcb = flow->pcb;

    /*
     * Our FIN has arrived.  From now on lwIP gives the peer 20 seconds for
     * its own and answers data with RST.
     */

    if (pcb->state == FIN_WAIT_2 && !(pcb->flags & TF_RXCLOSED)) {
        tcp_set_flags(pcb, TF_RXCLOSED);
        pcb->tmr = tcp_ticks;
    }
}


void
ngx_tun_lwip_abort(ngx_tun_lwip_flow_t *flow)
{
    ngx_tun_lwip_drop_rx(flow);

    if (flow->pcb != NULL) {
        tcp_abort(flow->pcb);
    }
}


void
ngx_tun_lwip_drop(ngx_tun_lwip_flow_t *flow)
{
    ngx_tun_lwip_drop_rx(flow);

    if (flow->pcb != NULL) {
        /* an ACK that is due would be sent */
        tcp_clear_flags((struct tcp_pcb *) flow->pcb, TF_ACK_DELAY);
        tcp_abandon(flow->pcb, 0);
    }
}


void
ngx_tun_lwip_tick(uint32_t now)
{
    uint32_t  n;

    n = (now - ctx.last) / NGX_TUN_LWIP_TICK;
    if (n == 0) {
        return;
    }

    ctx.last += n * NGX_TUN_LWIP_TICK;

    /* no burst of ticks after a pause */

    for (n = LWIP_MIN(n, 2); n != 0; n--) {
        ngx_tun_lwip_fast_tick();

        if (++ctx.ticks & 1) {
            ngx_tun_lwip_slow_tick();
        }
    }
}


static void
ngx_tun_lwip_fast_tick(void)
{
    struct tcp_pcb       *pcb, *head;
    ngx_tun_lwip_flow_t  *flow;

    head = NULL;

    for (flow = ctx.hot.next; flow != &ctx.hot; flow = flow->next) {
        pcb = flow->pcb;

        if (pcb->flags & (TF_ACK_DELAY|TF_CLOSEPEND)) {
            pcb->next = head;
            pcb->last_timer = ctx.timer;
            head = pcb;
        }
    }

    tcp_active_pcbs = head;
    ctx.timer++;

    tcp_fasttmr();

    ngx_tun_lwip_detach();
}


static void
ngx_tun_lwip_slow_tick(void)
{
    struct tcp_pcb       *pcb, *head;
    ngx_tun_lwip_flow_t  *flow, *next;

    head = NULL;

    for (flow = ctx.hot.next; flow != &ctx.hot; flow = next) {
        next = flow->next;
        pcb = flow->pcb;

        ngx_tun_lwip_persist(pcb);

        if (!ngx_tun_lwip_needs_tick(pcb)) {
            ngx_tun_lwip_unlink(flow);
            flow->hot = 0;
            ctx.nhot--;
            continue;
        }

        pcb->next = head;
        pcb->last_timer = ctx.timer;
        head = pcb;
    }

    tcp_active_pcbs = head;
    ctx.timer++;

    tcp_slowtmr();

    ngx_tun_lwip_detach();

    /* first in, first out: the rest is younger */

    while (ctx.time_wait.next != &ctx.time_wait) {
        pcb = ctx.time_wait.next->pcb;

        if (tcp_ticks - pcb->tmr <= 2 * TCP_MSL / TCP_SLOW_INTERVAL) {
            break;
        }

        tcp_abort(pcb);
    }
}


/*
 * A fast retransmission that finds no window, or no room in the device, waits
 * for the timer with the others.  As the last one to be sent it would get what
 * is written next, or the FIN, and be put behind the others by the timer.
 */

static void
ngx_tun_lwip_reorder(struct tcp_pcb *pcb)
{
    uint32_t         seq;
    struct tcp_seg  *first, **last;

    if (pcb->unacked == NULL) {
        return;
    }

    seq = lwip_ntohl(pcb->unacked->tcphdr->seqno);
    first = pcb->unsent;
    last = &first;

    while (*last != NULL
           && TCP_SEQ_LT(lwip_ntohl((*last)->tcphdr->seqno), seq))
    {
        last = &(*last)->next;
    }

    pcb->unsent = *last;
    *last = pcb->unacked;
    pcb->unacked = first;
}


/*
 * Before lwIP cuts a segment to the size of the window, from its first byte:
 * of one acknowledged in part that would be what has arrived, is not within
 * the window any more, and would never be sent, nor what follows it.
 */

static void
ngx_tun_lwip_persist(struct tcp_pcb *pcb)
{
    uint32_t         n;
    struct tcp_seg  *head;

    if (pcb->persist_backoff == 0) {
        return;
    }

    head = pcb->unsent;

    /* a probe was acknowledged; or all fits, but lwIP counts in 16 bits */

    if (head == NULL || pcb->snd_wnd > 0xffff) {
        pcb->persist_backoff = 0;
        return;
    }

    n = pcb->lastack - lwip_ntohl(head->tcphdr->seqno);

    if (n >= head->len || pcb->snd_wnd == 0) {
        return;
    }

    /* what it would do itself */

    if (ngx_tun_lwip_split(pcb, n ? n : pcb->snd_wnd) != ERR_OK) {
        pcb->persist_cnt = 0;
        return;
    }

    if (n == 0) {
        return;
    }

    pcb->unsent = head->next;
    pcb->snd_buf += head->len;
    pcb->snd_queuelen -= pbuf_clen(head->p);

    tcp_seg_free(head);
}


uint32_t
ngx_tun_lwip_retransmits(ngx_tun_lwip_t *lwip)
{
    uint32_t  n;

    n = lwip->retransmits;
    lwip->retransmits = 0;

    return n;
}


uint32_t
ngx_tun_lwip_busy(uint32_t *time_wait)
{
    *time_wait = ctx.ntime_wait;

    return ctx.nhot;
}


uint32_t
ngx_tun_lwip_asserts(void)
{
    return ctx.asserts;
}


void
ngx_tun_lwip_assert(const char *message, const char *file, int line)
{
    ctx.asserts++;
}


u32_t
ngx_tun_lwip_isn(const ip_addr_t *local_ip, u16_t local_port,
    const ip_addr_t *remote_ip, u16_t remote_port)
{
    return ctx.isn;
}


u32_t
sys_now(void)
{
    return ctx.last;
}


static err_t
ngx_tun_lwip_output4(struct netif *netif, struct pbuf *p,
    const ip4_addr_t *addr)
{
    return ngx_tun_lwip_output(netif, p);
}


static err_t
ngx_tun_lwip_output6(struct netif *netif, struct pbuf *p,
    const ip6_addr_t *addr)
{
    return ngx_tun_lwip_output(netif, p);
}


static err_t
ngx_tun_lwip_output(struct netif *netif, struct pbuf *p)
{
    size_t                len;
    unsigned              n;
    ngx_tun_lwip_t       *lwip;
    struct iovec          iov[NGX_TUN_LWIP_IOVS];
    struct tcp_pcb       *pcb;
    ngx_tun_lwip_flow_t  *flow;

    if (netif->hints == NULL) {
        return ERR_RTE;
    }

    pcb = (struct tcp_pcb *) ((uint8_t *) netif->hints
                              - offsetof(struct tcp_pcb, netif_hints));
    flow = tcp_ext_arg_get(pcb, ctx.id);

    if (flow == NULL) {
        return ERR_RTE;
    }

    if (flow == ctx.input && ngx_tun_lwip_hold_ack(flow, p)) {
        return ERR_OK;
    }

    lwip = netif->state;
    lwip->retransmits += ngx_tun_lwip_again(pcb, p);

    len = p->tot_len;

    for (n = 1; p != NULL; p = p->next) {

        if (p->len == 0) {
            continue;
        }

        if (n == NGX_TUN_LWIP_IOVS) {
            return ERR_BUF;
        }

        iov[n].iov_base = p->payload;
        iov[n].iov_len = p->len;
        n++;
    }

    if (lwip->ops->output(flow, iov, n, len) != 0) {
        return ERR_BUF;
    }

    flow->ack_sent = pcb->rcv_nxt;
    flow->ack_due = 0;

    return ERR_OK;
}


/* lwIP moves snd_nxt only after the segment: what is before it was sent */

static int
ngx_tun_lwip_again(struct tcp_pcb *pcb, struct pbuf *p)
{
    uint8_t         *ip;
    uint32_t         len;
    struct tcp_hdr  *th;

    ip = p->payload;
    len = ((ip[0] >> 4) == 4) ? IP_HLEN : IP6_HLEN;
    th = (struct tcp_hdr *) (ip + len);

    if (p->tot_len == len + TCPH_HDRLEN_BYTES(th)
        && !(TCPH_FLAGS(th) & (TCP_SYN|TCP_FIN)))
    {
        return 0;
    }

    return (int32_t) (lwip_ntohl(th->seqno) - pcb->snd_nxt) < 0;
}


/*
 * An ACK of what came in order, such as a FIN, can go with what the session
 * says to it.  A duplicate one says that something is missing, and cannot.
 */

static int
ngx_tun_lwip_hold_ack(ngx_tun_lwip_flow_t *flow, struct pbuf *p)
{
    uint8_t         *ip;
    uint32_t         len;
    struct tcp_hdr  *th;
    struct tcp_pcb  *pcb;

    pcb = flow->pcb;

    if (pcb->rcv_nxt == flow->ack_sent
        || (pcb->state != ESTABLISHED && pcb->state != CLOSE_WAIT))
    {
        return 0;
    }

    ip = p->payload;
    len = ((ip[0] >> 4) == 4) ? IP_HLEN : IP6_HLEN;
    th = (struct tcp_hdr *) (ip + len);

    if (TCPH_FLAGS(th) != TCP_ACK
        || p->tot_len != len + TCPH_HDRLEN_BYTES(th))
    {
        return 0;
    }

    flow->ack_due = 1;

    return 1;
}


static err_t
ngx_tun_lwip_passive_open_handler(u8_t id, struct tcp_pcb_listen *listener,
    struct tcp_pcb *pcb)
{
    ngx_tun_lwip_flow_t  *flow;

    flow = ctx.opening;

    if (flow == NULL) {
        return ERR_VAL;
    }

    tcp_ext_arg_set_callbacks(pcb, id, &ngx_tun_lwip_callbacks);
    tcp_ext_arg_set(pcb, id, flow);

    /* lwIP 2.1.3 would wait for 3 seconds */
    pcb->sv = LWIP_TCP_RTO_TIME / TCP_SLOW_INTERVAL;
    pcb->rto = LWIP_TCP_RTO_TIME / TCP_SLOW_INTERVAL;

    flow->pcb = pcb;

    return ERR_OK;
}


static void
ngx_tun_lwip_destroy_handler(u8_t id, void *data)
{
    ngx_tun_lwip_flow_t  *flow;

    flow = data;

    if (flow == NULL) {
        return;
    }

    if (flow->hot) {
        ngx_tun_lwip_unlink(flow);
        flow->hot = 0;
        ctx.nhot--;
    }

    if (flow->time_wait) {
        ngx_tun_lwip_unlink(flow);
        flow->time_wait = 0;
        ctx.ntime_wait--;
    }

    flow->pcb = NULL;

    flow->lwip->ops->closed(flow);
}


static err_t
ngx_tun_lwip_accept_handler(void *arg, struct tcp_pcb *pcb, err_t err)
{
    uint32_t              mss;
    struct netif         *netif;
    ngx_tun_lwip_flow_t  *flow;

    if (pcb == NULL) {
        return ERR_VAL;
    }

    flow = tcp_ext_arg_get(pcb, ctx.id);
    netif = &flow->lwip->netif;

    /* a segment to the peer, cut by the device out of those of TCP_MSS */

    mss = netif->mtu - (IP_IS_V6_VAL(pcb->remote_ip) ? 40 : 20) - 20;
    mss = LWIP_MIN(mss, flow->mss);
    flow->mss = (uint16_t) LWIP_MAX(mss, NGX_TUN_LWIP_MSS_MIN);

    pcb->mss = TCP_MSS;

    /* half of it bounds a segment, 0 does not: later ones would be less */
    pcb->snd_wnd_max = LWIP_MAX(pcb->snd_wnd_max, 2 * NGX_TUN_LWIP_MSS_4);

    /* the first samples would decay from 3 seconds */

    pcb->sa = 0;
    pcb->sv = NGX_TUN_LWIP_RTO;
    pcb->rto = NGX_TUN_LWIP_RTO;

    flow->rx_window = LWIP_MIN(NGX_TUN_LWIP_WINDOW, TCP_WND_MAX(pcb));

    pcb->rcv_wnd = flow->rx_window;
    pcb->rcv_ann_wnd = flow->rx_window;
    pcb->rcv_ann_right_edge = pcb->rcv_nxt + flow->rx_window;

    tcp_nagle_disable(pcb);

    tcp_arg(pcb, flow);
    tcp_recv(pcb, ngx_tun_lwip_recv_handler);
    tcp_err(pcb, ngx_tun_lwip_error_handler);

    flow->established = 1;

    return ERR_OK;
}


static err_t
ngx_tun_lwip_recv_handler(void *arg, struct tcp_pcb *pcb, struct pbuf *p,
    err_t err)
{
    struct pbuf          *last;
    ngx_tun_lwip_flow_t  *flow;

    flow = arg;

    if (p == NULL) {
        flow->eof = 1;
        return ERR_OK;
    }

    if (flow->draining) {
        tcp_recved(pcb, p->tot_len);
        pbuf_free(p);
        return ERR_OK;
    }

    flow->readable += p->tot_len;

    if (flow->rx == NULL) {
        flow->rx = p;

    } else {
        last = flow->rx_last;
        last->next = p;
    }

    while (p->next != NULL) {
        p = p->next;
    }

    flow->rx_last = p;

    return ERR_OK;
}


static void
ngx_tun_lwip_error_handler(void *arg, err_t err)
{
    ngx_tun_lwip_flow_t  *flow;

    flow = arg;

    /* not an orderly end */
    if (err != ERR_CLSD) {
        flow->reset = 1;
    }
}


static void
ngx_tun_lwip_link(ngx_tun_lwip_flow_t *head, ngx_tun_lwip_flow_t *flow)
{
    flow->prev = head->prev;
    flow->next = head;
    head->prev->next = flow;
    head->prev = flow;
}


static void
ngx_tun_lwip_unlink(ngx_tun_lwip_flow_t *flow)
{
    flow->prev->next = flow->next;
    flow->next->prev = flow->prev;
}


static int
ngx_tun_lwip_needs_tick(struct tcp_pcb *pcb)
{
    if (pcb->state != ESTABLISHED && pcb->state != CLOSE_WAIT) {
        return 1;
    }

    return pcb->unsent != NULL
           || pcb->unacked != NULL
           || pcb->ooseq != NULL
           || pcb->persist_backoff != 0
           || (pcb->flags & (TF_ACK_DELAY|TF_ACK_NOW|TF_CLOSEPEND)) != 0;
}


static void
ngx_tun_lwip_settle(ngx_tun_lwip_flow_t *flow)
{
    struct tcp_pcb  *pcb;

    pcb = flow->pcb;

    if (pcb == NULL || flow->hot || flow->time_wait) {
        return;
    }

    if (ngx_tun_lwip_needs_tick(pcb)) {
        pcb->last_timer = ctx.timer;
        ngx_tun_lwip_link(&ctx.hot, flow);
        flow->hot = 1;
        ctx.nhot++;
    }
}


static void
ngx_tun_lwip_detach(void)
{
    struct tcp_pcb       *pcb;
    ngx_tun_lwip_flow_t  *flow;

    while (tcp_active_pcbs != NULL) {
        pcb = tcp_active_pcbs;
        tcp_active_pcbs = pcb->next;
        pcb->next = NULL;

        ngx_tun_lwip_settle(tcp_ext_arg_get(pcb, ctx.id));
    }

    while (tcp_tw_pcbs != NULL) {
        pcb = tcp_tw_pcbs;
        tcp_tw_pcbs = pcb->next;
        pcb->next = NULL;

        flow = tcp_ext_arg_get(pcb, ctx.id);

        if (flow->hot) {
            ngx_tun_lwip_unlink(flow);
            flow->hot = 0;
            ctx.nhot--;
        }

        if (!flow->time_wait) {
            flow->time_wait = 1;
            ctx.ntime_wait++;

            /* lwIP may have started 2MSL with an older time */
            pcb->tmr = tcp_ticks;
            ngx_tun_lwip_link(&ctx.time_wait, flow);

        } else if (pcb->tmr == tcp_ticks) {
            ngx_tun_lwip_unlink(flow);
            ngx_tun_lwip_link(&ctx.time_wait, flow);
        }
    }
}
