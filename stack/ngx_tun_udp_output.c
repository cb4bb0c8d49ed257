
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>
#include <ngx_tun_udp.h>


#define NGX_TUN_UDP_DATA_MAX   65507     /* what IPv4 carries */
#define NGX_TUN_UDP_BATCH_MAX  64        /* the kernel's UDP_MAX_SEGMENTS */

#define NGX_TUN_UDP_QUESTION   53        /* one question, one answer */


static void ngx_tun_udp_start_batch(ngx_tun_t *tun, ngx_tun_flow_key_t *key,
    struct iovec *iov, ngx_uint_t n, size_t len);
static ngx_int_t ngx_tun_udp_append(ngx_tun_t *tun, ngx_tun_flow_key_t *key,
    struct iovec *iov, ngx_uint_t n, size_t len);


void
ngx_tun_udp_output(ngx_tun_udp_t *udp, ngx_tun_flow_key_t *key,
    struct iovec *iov, ngx_uint_t n, size_t len)
{
    size_t                 mtu, header_len;
    u_char                 header[NGX_TUN_PACKET_UDP_MAX];
    ngx_tun_t             *tun;
    ngx_tun_packet_udp_t   uh;

    tun = udp->tun;

    udp->responses++;
    ngx_tun_udp_used(udp);

    (void) ngx_atomic_fetch_add(&tun->stat->datagrams_out, 1);

    if (udp->flow.key.dst_port == NGX_TUN_UDP_QUESTION
        && !ngx_tun_udp_outstanding(udp))
    {
        ngx_tun_udp_end_later(udp);
    }

    if (len > NGX_TUN_UDP_DATA_MAX) {
        (void) ngx_atomic_fetch_add(&tun->stat->udp_oversized, 1);
        return;
    }

    if (ngx_tun_udp_append(tun, key, iov, n, len) == NGX_OK) {
        return;
    }

    ngx_tun_udp_write_batch(tun);

    mtu = udp->narrow ? NGX_TUN_QUEUE_MTU6 : tun->queue.mtu;

    if (tun->queue.uso
        && len != 0
        && len + NGX_TUN_PACKET_UDP_MAX <= mtu)
    {
        ngx_tun_udp_start_batch(tun, key, iov, n, len);
        return;
    }

    uh.src_port = key->dst_port;
    uh.dst_port = key->src_port;

    header_len = ngx_tun_packet_build_udp(header, key->dst, key->src,
                                          key->addr_len, &uh, len,
                                          tun->udp.id++);

    iov[1].iov_base = header;
    iov[1].iov_len = header_len;

    (void) ngx_tun_queue_write_udp(&tun->queue, iov, n, header_len, len,
                                   udp->narrow, 0);
}


/* datagrams of a flow and of one size go to the kernel together */

static void
ngx_tun_udp_start_batch(ngx_tun_t *tun, ngx_tun_flow_key_t *key,
    struct iovec *iov, ngx_uint_t n, size_t len)
{
    ngx_tun_udp_batch_t  *batch;

    batch = &tun->udp.batch;

    batch->key = *key;
    batch->size = len;
    batch->len = 0;
    batch->n = 0;
    batch->open = 1;

    (void) ngx_tun_udp_append(tun, key, iov, n, len);

    ngx_tun_post_flush(tun);
}


static ngx_int_t
ngx_tun_udp_append(ngx_tun_t *tun, ngx_tun_flow_key_t *key, struct iovec *iov,
    ngx_uint_t n, size_t len)
{
    u_char               *p;
    ngx_uint_t            i;
    ngx_tun_udp_batch_t  *batch;

    batch = &tun->udp.batch;

    if (!batch->open
        || len == 0
        || len > batch->size
        || batch->len + len > NGX_TUN_UDP_BATCH
        || ngx_memcmp(&batch->key, key, sizeof(ngx_tun_flow_key_t)) != 0)
    {
        return NGX_DECLINED;
    }

    p = batch->data + batch->len;

    for (i = 2; i < n; i++) {
        p = ngx_cpymem(p, iov[i].iov_base, iov[i].iov_len);
    }

    batch->len += len;
    batch->n++;

    /* only the last one may be shorter */

    if (len != batch->size || batch->n == NGX_TUN_UDP_BATCH_MAX) {
        batch->open = 0;
    }

    return NGX_OK;
}


void
ngx_tun_udp_write_batch(ngx_tun_t *tun)
{
    size_t                 header_len;
    u_char                 header[NGX_TUN_PACKET_UDP_MAX];
    struct iovec           iov[3];
    ngx_tun_flow_key_t    *key;
    ngx_tun_udp_batch_t   *batch;
    ngx_tun_packet_udp_t   uh;

    batch = &tun->udp.batch;

    if (batch->n == 0) {
        return;
    }

    key = &batch->key;

    uh.src_port = key->dst_port;
    uh.dst_port = key->src_port;

    header_len = ngx_tun_packet_build_udp(header, key->dst, key->src,
                                          key->addr_len, &uh, batch->len,
                                          tun->udp.id);

    tun->udp.id += (uint16_t) batch->n;

    iov[1].iov_base = header;
    iov[1].iov_len = header_len;
    iov[2].iov_base = batch->data;
    iov[2].iov_len = batch->len;

    (void) ngx_tun_queue_write_udp(&tun->queue, iov, 3, header_len, batch->len,
                                   0, (batch->n > 1) ? batch->size : 0);

    batch->n = 0;
    batch->open = 0;
}
