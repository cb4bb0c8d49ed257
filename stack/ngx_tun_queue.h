
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_QUEUE_H_INCLUDED_
#define _NGX_TUN_QUEUE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * One queue of a device, in the process that serves it: a packet per read or
 * write, each with a virtio_net_hdr in front where the device has it.
 */


typedef struct {
    ngx_socket_t            fd;
    size_t                  vnet_len;    /* 0 or that of virtio_net_hdr */
    size_t                  mtu;
    unsigned                offload:1;   /* the kernel cuts and sums */
    unsigned                uso:1;       /* and takes datagrams together */

    u_char                 *packet;      /* mtu bytes to cut a segment into */
    uint32_t                id;          /* of the next datagram that is cut */

    ngx_uint_t              packets;     /* written since the last look */
    ngx_uint_t              bytes;
    ngx_uint_t              errors;
} ngx_tun_queue_t;


#define NGX_TUN_QUEUE_HEAD  16           /* bytes before a packet read */
#define NGX_TUN_QUEUE_MTU6  1280         /* that all paths have: RFC 8200, 5 */


/* what the kernel says of a packet */

typedef struct {
    ngx_uint_t              trusted;     /* made here, or checked by a NIC */
    size_t                  datagram;    /* UDP data of each, or 0: one */
} ngx_tun_queue_info_t;


/*
 * Reads a packet to buf[NGX_TUN_QUEUE_HEAD], of at most size bytes.  Returns
 * its length, 0 for one that cannot be used, NGX_AGAIN when there is none, or
 * NGX_ERROR with errno set.
 */
ssize_t ngx_tun_queue_read(ngx_tun_queue_t *queue, u_char *buf, size_t size,
    ngx_tun_queue_info_t *info);

/*
 * Writes a TCP packet: iov[1] to iov[n - 1], len bytes, the IP and TCP headers
 * together at the head of iov[1] as ngx_tun_packet_finish_tcp() leaves them;
 * iov[0] is used here.  What has more than mss bytes of payload is cut to that
 * size.  NGX_OK, or NGX_ERROR with errno set: nothing, or not all, was sent.
 */
ngx_int_t ngx_tun_queue_write_tcp(ngx_tun_queue_t *queue, struct iovec *iov,
    ngx_uint_t n, size_t len, size_t mss);

/* Does the packet read to buf have the sum of its pseudo header only? */
ngx_uint_t ngx_tun_queue_partial(ngx_tun_queue_t *queue, u_char *buf);

/* Writes a packet as it was read to buf, with its virtio_net_hdr. */
ngx_int_t ngx_tun_queue_forward(ngx_tun_queue_t *queue, u_char *buf,
    size_t len);

/*
 * Writes UDP: iov[1] is the header, header_len bytes as
 * ngx_tun_packet_build_udp() makes it, iov[2] to iov[n - 1] len bytes of data;
 * iov[0] is used here.  A datagram that is longer than the MTU, or than
 * NGX_TUN_QUEUE_MTU6 where the path is narrow, goes out in fragments; those of
 * IPv6, which no router cuts, fit all paths.  Where datagram is not 0, the
 * data is of several datagrams of that size, but for the last; then queue->uso
 * must be set.
 */
ngx_int_t ngx_tun_queue_write_udp(ngx_tun_queue_t *queue, struct iovec *iov,
    ngx_uint_t n, size_t header_len, size_t len, ngx_uint_t narrow,
    size_t datagram);

/*
 * Writes a packet with complete checksums; one without IP options or extension
 * headers may be longer than the MTU, and is fragmented then.
 */
ngx_int_t ngx_tun_queue_write(ngx_tun_queue_t *queue, u_char *p, size_t len);


#endif /* _NGX_TUN_QUEUE_H_INCLUDED_ */
