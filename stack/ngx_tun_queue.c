
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_packet.h>
#include <ngx_tun_queue.h>

#include <linux/virtio_net.h>


/* of the field in a header */
#define NGX_TUN_QUEUE_TCP_CSUM  16
#define NGX_TUN_QUEUE_UDP_CSUM  6

#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4  5
#endif


static ngx_int_t ngx_tun_queue_cut_tcp(ngx_tun_queue_t *queue,
    struct iovec *iov, ngx_uint_t n, size_t header_len, size_t mss);
static ngx_int_t ngx_tun_queue_cut(ngx_tun_queue_t *queue,
    struct iovec *iov, ngx_uint_t n, size_t header_len);
static ngx_int_t ngx_tun_queue_write_parts(ngx_tun_queue_t *queue,
    struct iovec *iov, ngx_uint_t n, size_t len);
static ngx_int_t ngx_tun_queue_writev(ngx_tun_queue_t *queue,
    struct virtio_net_hdr *vnet, struct iovec *iov, ngx_uint_t n, size_t len);


ssize_t
ngx_tun_queue_read(ngx_tun_queue_t *queue, u_char *buf, size_t size,
    ngx_tun_queue_info_t *info)
{
    u_char                 *p;
    ssize_t                 n;
    struct virtio_net_hdr   vnet;

    p = buf + NGX_TUN_QUEUE_HEAD - queue->vnet_len;

    do {
        n = read(queue->fd, p, queue->vnet_len + size);
    } while (n == -1 && ngx_errno == NGX_EINTR);

    if (n == -1) {
        return (ngx_errno == NGX_EAGAIN) ? NGX_AGAIN : NGX_ERROR;
    }

    info->trusted = 0;
    info->datagram = 0;

    if (queue->vnet_len == 0) {
        return n;
    }

    if ((size_t) n <= queue->vnet_len) {
        return 0;
    }

    ngx_memcpy(&vnet, p, sizeof(struct virtio_net_hdr));

    if (vnet.flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM|VIRTIO_NET_HDR_F_DATA_VALID))
    {
        info->trusted = 1;
    }

    if (vnet.gso_type == VIRTIO_NET_HDR_GSO_UDP_L4) {
        info->datagram = vnet.gso_size;
    }

    return n - queue->vnet_len;
}


ngx_int_t
ngx_tun_queue_write_tcp(ngx_tun_queue_t *queue, struct iovec *iov,
    ngx_uint_t n, size_t len, size_t mss)
{
    u_char                 *p;
    size_t                  ip_len, header_len;
    struct virtio_net_hdr   vnet;

    p = iov[1].iov_base;

    ip_len = ((p[0] >> 4) == 4) ? 20 : 40;
    header_len = ip_len + (p[ip_len + 12] >> 4) * 4;

    if (!queue->offload) {
        return ngx_tun_queue_cut_tcp(queue, iov, n, header_len, mss);
    }

    ngx_memzero(&vnet, sizeof(struct virtio_net_hdr));

    vnet.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    vnet.csum_start = (uint16_t) ip_len;
    vnet.csum_offset = NGX_TUN_QUEUE_TCP_CSUM;

    if (len - header_len > mss) {
        vnet.gso_type = (ip_len == 20) ? VIRTIO_NET_HDR_GSO_TCPV4
                                       : VIRTIO_NET_HDR_GSO_TCPV6;
        vnet.gso_size = (uint16_t) mss;
        vnet.hdr_len = (uint16_t) header_len;
    }

    return ngx_tun_queue_writev(queue, &vnet, iov, n, len);
}


static ngx_int_t
ngx_tun_queue_cut_tcp(ngx_tun_queue_t *queue, struct iovec *iov, ngx_uint_t n,
    size_t header_len, size_t mss)
{
    size_t                    len;
    ngx_tun_packet_segment_t  seg;

    ngx_memzero(&seg, sizeof(ngx_tun_packet_segment_t));

    seg.header = iov[1].iov_base;
    seg.header_len = header_len;
    seg.mss = mss;
    seg.iov = &iov[1];
    seg.niov = n - 1;

    iov[1].iov_base = (u_char *) iov[1].iov_base + header_len;
    iov[1].iov_len -= header_len;

    for ( ;; ) {
        len = ngx_tun_packet_segment(&seg, queue->packet);
        if (len == 0) {
            return NGX_OK;
        }

        if (ngx_tun_queue_write(queue, queue->packet, len) != NGX_OK) {
            return NGX_ERROR;
        }
    }
}


ngx_uint_t
ngx_tun_queue_partial(ngx_tun_queue_t *queue, u_char *buf)
{
    struct virtio_net_hdr   vnet;

    if (queue->vnet_len == 0) {
        return 0;
    }

    ngx_memcpy(&vnet, buf + NGX_TUN_QUEUE_HEAD - queue->vnet_len,
               sizeof(struct virtio_net_hdr));

    return vnet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
}


ngx_int_t
ngx_tun_queue_forward(ngx_tun_queue_t *queue, u_char *buf, size_t len)
{
    struct iovec            iov[2];
    struct virtio_net_hdr   vnet;

    ngx_memcpy(&vnet, buf + NGX_TUN_QUEUE_HEAD - queue->vnet_len,
               queue->vnet_len);

    iov[1].iov_base = buf + NGX_TUN_QUEUE_HEAD;
    iov[1].iov_len = len;

    return ngx_tun_queue_writev(queue, &vnet, iov, 2, len);
}


ngx_int_t
ngx_tun_queue_write_udp(ngx_tun_queue_t *queue, struct iovec *iov,
    ngx_uint_t n, size_t header_len, size_t len, ngx_uint_t narrow,
    size_t datagram)
{
    size_t                 mtu, ip_len;
    struct virtio_net_hdr  vnet;

    ip_len = header_len - NGX_TUN_PACKET_UDP_LEN;
    mtu = narrow ? ngx_min(queue->mtu, NGX_TUN_QUEUE_MTU6) : queue->mtu;

    if (!queue->offload) {
        ngx_tun_packet_sum_udp(iov[1].iov_base, header_len, &iov[2], n - 2);

        return (header_len + len > mtu)
               ? ngx_tun_queue_cut(queue, iov, n, header_len)
               : ngx_tun_queue_write_parts(queue, iov, n, header_len + len);
    }

    ngx_memzero(&vnet, sizeof(struct virtio_net_hdr));

    vnet.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    vnet.csum_start = (uint16_t) ip_len;
    vnet.csum_offset = NGX_TUN_QUEUE_UDP_CSUM;
    vnet.hdr_len = (uint16_t) header_len;

    if (datagram != 0) {
        vnet.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4;
        vnet.gso_size = (uint16_t) datagram;

    } else if (header_len + len > mtu) {

        /* RFC 791, 3.2: in units of 8; with IPv6 there is one more header */

        vnet.gso_type = VIRTIO_NET_HDR_GSO_UDP;
        vnet.gso_size = (uint16_t) ((ip_len == 20)
                                    ? (queue->mtu - 20) & ~7
                                    : (ngx_min(queue->mtu, NGX_TUN_QUEUE_MTU6)
                                       - 40 - 8) & ~7);
    }

    return ngx_tun_queue_writev(queue, &vnet, iov, n, header_len + len);
}


static ngx_int_t
ngx_tun_queue_cut(ngx_tun_queue_t *queue, struct iovec *iov, ngx_uint_t n,
    size_t header_len)
{
    size_t                     len;
    ngx_tun_packet_fragment_t  frag;

    ngx_memzero(&frag, sizeof(ngx_tun_packet_fragment_t));

    frag.header = iov[1].iov_base;
    frag.header_len = header_len;
    frag.iov = &iov[2];
    frag.niov = n - 2;
    frag.mtu = (*frag.header >> 4 == 4) ? queue->mtu
               : ngx_min(queue->mtu, NGX_TUN_QUEUE_MTU6);
    frag.id = queue->id++;

    for ( ;; ) {
        len = ngx_tun_packet_fragment(&frag, queue->packet);
        if (len == 0) {
            return NGX_OK;
        }

        if (ngx_tun_queue_write(queue, queue->packet, len) != NGX_OK) {
            return NGX_ERROR;
        }
    }
}


static ngx_int_t
ngx_tun_queue_write_parts(ngx_tun_queue_t *queue, struct iovec *iov,
    ngx_uint_t n, size_t len)
{
    struct virtio_net_hdr  vnet;

    ngx_memzero(&vnet, sizeof(struct virtio_net_hdr));

    return ngx_tun_queue_writev(queue, &vnet, iov, n, len);
}


ngx_int_t
ngx_tun_queue_write(ngx_tun_queue_t *queue, u_char *p, size_t len)
{
    size_t        ip_len;
    struct iovec  iov[3];

    if (len > queue->mtu) {
        ip_len = ((p[0] >> 4) == 4) ? NGX_TUN_PACKET_IPV4_MIN
                                    : NGX_TUN_PACKET_IPV6_LEN;
        iov[1].iov_base = p;
        iov[2].iov_base = p + ip_len;
        iov[2].iov_len = len - ip_len;

        return ngx_tun_queue_cut(queue, iov, 3, ip_len);
    }

    iov[1].iov_base = p;
    iov[1].iov_len = len;

    return ngx_tun_queue_write_parts(queue, iov, 2, len);
}


static ngx_int_t
ngx_tun_queue_writev(ngx_tun_queue_t *queue, struct virtio_net_hdr *vnet,
    struct iovec *iov, ngx_uint_t n, size_t len)
{
    ssize_t  rc;

    iov[0].iov_base = (void *) vnet;
    iov[0].iov_len = queue->vnet_len;

    do {
        rc = writev(queue->fd, iov, (int) n);
    } while (rc == -1 && ngx_errno == NGX_EINTR);

    if (rc == -1) {
        queue->errors++;
        return NGX_ERROR;
    }

    queue->packets++;
    queue->bytes += len;

    return NGX_OK;
}
