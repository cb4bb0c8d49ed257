
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_packet.h>
#include <ngx_tun_packet_bytes.h>


#define NGX_TUN_PACKET_FRAG_LEN  8
#define NGX_TUN_PACKET_MAX       65535

#define NGX_TUN_PACKET_IPV4_MF   0x2000
#define NGX_TUN_PACKET_IPV6_MF   0x0001


static size_t ngx_tun_packet_fragment_left(ngx_tun_packet_fragment_t *f,
    size_t ip_len);
static u_char *ngx_tun_packet_fragment_copy(ngx_tun_packet_fragment_t *f,
    u_char *p, size_t n);
static void ngx_tun_packet_fragment_ipv4(ngx_tun_packet_fragment_t *f,
    u_char *p, size_t len, size_t offset, ngx_uint_t more);
static void ngx_tun_packet_fragment_ipv6(ngx_tun_packet_fragment_t *f,
    u_char *p, size_t len, size_t offset, ngx_uint_t more);


size_t
ngx_tun_packet_fragment(ngx_tun_packet_fragment_t *f, u_char *buf)
{
    size_t       len, left, room, offset, ip_len;
    u_char      *p;
    ngx_uint_t   v6;

    v6 = ((f->header[0] >> 4) == 6);
    ip_len = v6 ? NGX_TUN_PACKET_IPV6_LEN : NGX_TUN_PACKET_IPV4_MIN;

    left = ngx_tun_packet_fragment_left(f, ip_len);

    if ((left == 0 && f->cut)
        || left + f->offset > NGX_TUN_PACKET_MAX - (v6 ? 0 : ip_len))
    {
        return 0;
    }

    p = ngx_cpymem(buf, f->header, ip_len);
    room = f->mtu - ip_len;

    if (v6 && (f->offset != 0 || left > room)) {
        p += NGX_TUN_PACKET_FRAG_LEN;
        room -= NGX_TUN_PACKET_FRAG_LEN;
    }

    offset = f->offset;
    len = (left <= room) ? left : (room & ~(size_t) 7);

    if (!f->cut) {
        p = ngx_cpymem(p, f->header + ip_len, f->header_len - ip_len);
        f->offset = f->header_len - ip_len;
    }

    f->cut = 1;

    p = ngx_tun_packet_fragment_copy(f, p, offset + len - f->offset);

    if (v6) {
        ngx_tun_packet_fragment_ipv6(f, buf, p - buf, offset, len != left);

    } else {
        ngx_tun_packet_fragment_ipv4(f, buf, p - buf, offset, len != left);
    }

    return p - buf;
}


/* the payload that is not cut yet */

static size_t
ngx_tun_packet_fragment_left(ngx_tun_packet_fragment_t *f, size_t ip_len)
{
    size_t      left;
    ngx_uint_t  i;

    left = f->cut ? 0 : f->header_len - ip_len;

    for (i = 0; i < f->niov; i++) {
        left += f->iov[i].iov_len;
    }

    return left - f->iov_offset;
}


static u_char *
ngx_tun_packet_fragment_copy(ngx_tun_packet_fragment_t *f, u_char *p, size_t n)
{
    size_t  size;

    f->offset += n;

    while (f->niov != 0) {

        size = ngx_min(n, f->iov->iov_len - f->iov_offset);

        p = ngx_cpymem(p, (u_char *) f->iov->iov_base + f->iov_offset, size);

        n -= size;
        f->iov_offset += size;

        if (f->iov_offset != f->iov->iov_len) {
            break;
        }

        f->iov++;
        f->niov--;
        f->iov_offset = 0;
    }

    return p;
}


static void
ngx_tun_packet_fragment_ipv4(ngx_tun_packet_fragment_t *f, u_char *p,
    size_t len, size_t offset, ngx_uint_t more)
{
    uint16_t  sum;

    offset = offset / 8 | (more ? NGX_TUN_PACKET_IPV4_MF : 0);

    ngx_tun_packet_put16(p + 2, len);
    ngx_tun_packet_put16(p + 4, f->id);
    ngx_tun_packet_put16(p + 6, offset);
    ngx_tun_packet_put16(p + 10, 0);

    sum = ~ngx_tun_packet_fold(ngx_tun_packet_sum(p, NGX_TUN_PACKET_IPV4_MIN,
                                                  0));
    ngx_memcpy(p + 10, &sum, 2);
}


static void
ngx_tun_packet_fragment_ipv6(ngx_tun_packet_fragment_t *f, u_char *p,
    size_t len, size_t offset, ngx_uint_t more)
{
    u_char  *header;

    len -= NGX_TUN_PACKET_IPV6_LEN;
    ngx_tun_packet_put16(p + 4, len);

    if (offset == 0 && !more) {
        return;
    }

    header = p + NGX_TUN_PACKET_IPV6_LEN;
    offset |= more ? NGX_TUN_PACKET_IPV6_MF : 0;

    header[0] = p[6];
    header[1] = 0;
    ngx_tun_packet_put16(header + 2, offset);
    ngx_tun_packet_put32(header + 4, f->id);

    p[6] = IPPROTO_FRAGMENT;
}
