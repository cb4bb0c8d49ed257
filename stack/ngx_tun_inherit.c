
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_inherit.h>

#include <net/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>


#define NGX_TUN_INHERIT_DEVICE  "/dev/net/tun"


static ngx_uint_t ngx_tun_inherit_is_queue(ngx_tun_inherit_t *inherit,
    ngx_socket_t fd);
static ngx_uint_t ngx_tun_inherit_is_box(ngx_socket_t fd);
static ngx_uint_t ngx_tun_inherit_is_fd(ngx_uint_t i);
static ngx_uint_t ngx_tun_inherit_n(ngx_tun_inherit_t *inherit);


ngx_tun_share_t *
ngx_tun_inherit_create(ngx_uint_t flows, ngx_log_t *log)
{
    ngx_tun_share_t          *share;
    ngx_tun_inherit_state_t  *state;

    share = ngx_tun_share_create(NGX_TUN_INHERIT_OWNERS
                                 + ngx_tun_owners_size(flows), log);
    if (share == NULL) {
        return NULL;
    }

    state = (ngx_tun_inherit_state_t *) share->memory;
    state->size = sizeof(ngx_tun_inherit_state_t);

    if (ngx_tun_owners_init(ngx_tun_inherit_owners(state), flows, log)
        != NGX_OK)
    {
        share->refs = 1;
        ngx_tun_share_release(share);
        return NULL;
    }

    return share;
}


ngx_uint_t
ngx_tun_inherit_valid(ngx_tun_share_t *share)
{
    ngx_tun_inherit_state_t  *state;

    state = (ngx_tun_inherit_state_t *) share->memory;

    return share->size > NGX_TUN_INHERIT_OWNERS + sizeof(ngx_tun_owners_t)
           && state->size == sizeof(ngx_tun_inherit_state_t)
           && ngx_tun_owners_valid(ngx_tun_inherit_owners(state),
                                   share->size - NGX_TUN_INHERIT_OWNERS);
}


ngx_int_t
ngx_tun_inherit_parse(u_char **p, ngx_tun_inherit_t *inherit)
{
    u_char      *last, *end;
    ngx_int_t    n;
    ngx_uint_t   i;

    if (**p == '\0') {
        return NGX_DONE;
    }

    inherit->name.data = *p;

    while (**p > ' ' && **p != ':') {
        (*p)++;
    }

    inherit->name.len = *p - inherit->name.data;

    if (**p != ':' || inherit->name.len == 0 || inherit->name.len >= IFNAMSIZ) {
        return NGX_ERROR;
    }

    for (last = *p; *last != '\0' && *last != ' '; last++) { /* void */ }

    for (i = 0; *p < last; i++) {

        (*p)++;

        for (end = *p; end < last && *end != ','; end++) { /* void */ }

        n = (end - *p == 2 && (*p)[0] == '-' && (*p)[1] == '1')
            ? -1 : ngx_atoi(*p, end - *p);

        if (i == NGX_TUN_INHERIT_MAX
            || (n == NGX_ERROR && **p != '-')
            || n > NGX_MAX_INT32_VALUE)
        {
            return NGX_ERROR;
        }

        inherit->numbers[i] = n;
        *p = end;
    }

    if (**p == ' ') {
        (*p)++;
    }

    return (i > NGX_TUN_INHERIT_N
            && inherit->numbers[NGX_TUN_INHERIT_QUEUE_N] > 0
            && inherit->numbers[NGX_TUN_INHERIT_QUEUE_N]
               <= NGX_TUN_INHERIT_QUEUES
            && inherit->numbers[NGX_TUN_INHERIT_BOX_N] >= 0
            && inherit->numbers[NGX_TUN_INHERIT_BOX_N] <= NGX_TUN_OWNER_BOXES
            && i == ngx_tun_inherit_n(inherit))
           ? NGX_OK : NGX_ERROR;
}


char *
ngx_tun_inherit_check(ngx_tun_inherit_t *inherit)
{
    int         fd;
    ngx_uint_t  i, k, n, queues;

    n = ngx_tun_inherit_n(inherit);
    queues = NGX_TUN_INHERIT_N + inherit->numbers[NGX_TUN_INHERIT_QUEUE_N];

    for (i = 0; i < n; i++) {

        fd = (int) inherit->numbers[i];

        if (!ngx_tun_inherit_is_fd(i) || fd == -1) {
            continue;
        }

        for (k = 0; k < i; k++) {
            if (ngx_tun_inherit_is_fd(k) && inherit->numbers[k] == fd) {
                return "is named twice";
            }
        }

        if (i < NGX_TUN_INHERIT_N) {

            if (fcntl(fd, F_GET_SEALS) == -1) {
                return "is no shared memory";
            }

        } else if (i < queues) {

            if (!ngx_tun_inherit_is_queue(inherit, fd)) {
                return "is no queue of the device";
            }

        } else if (!ngx_tun_inherit_is_box(fd)) {
            return "is no socket of a worker";
        }
    }

    for (i = NGX_TUN_INHERIT_N; i < n; i++) {
        if (inherit->numbers[i] == -1) {
            return "is missing";
        }
    }

    return (inherit->numbers[NGX_TUN_INHERIT_STATE] == -1) ? "is missing"
                                                           : NULL;
}


static ngx_uint_t
ngx_tun_inherit_is_queue(ngx_tun_inherit_t *inherit, ngx_socket_t fd)
{
    int              size;
    short            flags;
    struct ifreq     ifr;
    ngx_file_info_t  is, wanted;

    if (ngx_fd_info(fd, &is) == NGX_FILE_ERROR
        || !S_ISCHR(is.st_mode)
        || ngx_file_info(NGX_TUN_INHERIT_DEVICE, &wanted) == NGX_FILE_ERROR
        || is.st_rdev != wanted.st_rdev)
    {
        return 0;
    }

    ngx_memzero(&ifr, sizeof(struct ifreq));

    /* the interface may have been deleted, or renamed */

    if (ioctl(fd, TUNGETIFF, &ifr) == -1
        || ngx_strnlen((u_char *) ifr.ifr_name, IFNAMSIZ) != inherit->name.len
        || ngx_memcmp(ifr.ifr_name, inherit->name.data, inherit->name.len)
           != 0)
    {
        return 0;
    }

    flags = ifr.ifr_flags & (IFF_TUN|IFF_TAP|IFF_NO_PI);

    if (flags != (IFF_TUN|IFF_NO_PI)) {
        return 0;
    }

    return (ifr.ifr_flags & IFF_VNET_HDR) == 0
           || (ioctl(fd, TUNGETVNETHDRSZ, &size) == 0
               && size == sizeof(struct virtio_net_hdr));
}


static ngx_uint_t
ngx_tun_inherit_is_box(ngx_socket_t fd)
{
    int        domain, type;
    socklen_t  len;

    len = sizeof(int);

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == -1
        || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == -1)
    {
        return 0;
    }

    return domain == AF_UNIX && type == SOCK_SEQPACKET;
}


static ngx_uint_t
ngx_tun_inherit_is_fd(ngx_uint_t i)
{
    return i >= NGX_TUN_INHERIT_N
           || i == NGX_TUN_INHERIT_STATE
           || i == NGX_TUN_INHERIT_TABLE
           || i == NGX_TUN_INHERIT_TABLE6;
}


static ngx_uint_t
ngx_tun_inherit_n(ngx_tun_inherit_t *inherit)
{
    return NGX_TUN_INHERIT_N + inherit->numbers[NGX_TUN_INHERIT_QUEUE_N]
           + 2 * inherit->numbers[NGX_TUN_INHERIT_BOX_N];
}


size_t
ngx_tun_inherit_len(ngx_tun_inherit_t *inherit)
{
    return inherit->name.len + 1
           + ngx_tun_inherit_n(inherit) * (NGX_INT32_LEN + 1);
}


u_char *
ngx_tun_inherit_print(u_char *p, ngx_tun_inherit_t *inherit)
{
    ngx_uint_t  i, n;

    p = ngx_sprintf(p, "%V", &inherit->name);
    n = ngx_tun_inherit_n(inherit);

    for (i = 0; i < n; i++) {
        p = ngx_sprintf(p, "%c%i", (i == 0) ? ':' : ',', inherit->numbers[i]);
    }

    *p++ = ' ';

    return p;
}


void
ngx_tun_inherit_keep(ngx_tun_inherit_t *inherit, ngx_uint_t keep)
{
    int         fd;
    ngx_uint_t  i, n;

    n = ngx_tun_inherit_n(inherit);

    for (i = 0; i < n; i++) {

        fd = (int) inherit->numbers[i];

        if (ngx_tun_inherit_is_fd(i) && fd != -1) {
            (void) fcntl(fd, F_SETFD, keep ? 0 : FD_CLOEXEC);
        }
    }
}


void
ngx_tun_inherit_close(ngx_tun_inherit_t *inherit)
{
    int         fd;
    ngx_uint_t  i, n;

    n = ngx_tun_inherit_n(inherit);

    for (i = 0; i < n; i++) {

        fd = (int) inherit->numbers[i];

        if (ngx_tun_inherit_is_fd(i) && fd != -1) {
            (void) close(fd);
            inherit->numbers[i] = -1;
        }
    }
}


void
ngx_tun_handoff_describe(ngx_tun_handoff_t *handoff,
    ngx_tun_inherit_t *inherit)
{
    ngx_int_t   *n;
    ngx_uint_t   i;

    inherit->numbers[NGX_TUN_INHERIT_BOX_N] = handoff->n;

    n = inherit->numbers + NGX_TUN_INHERIT_N
        + inherit->numbers[NGX_TUN_INHERIT_QUEUE_N];

    for (i = 0; i < handoff->n; i++) {
        *n++ = handoff->pairs[i].read;
        *n++ = handoff->pairs[i].write;
    }
}


void
ngx_tun_handoff_inherit(ngx_tun_handoff_t *handoff,
    ngx_tun_inherit_t *inherit)
{
    ngx_int_t   *n;
    ngx_uint_t   i;

    handoff->n = inherit->numbers[NGX_TUN_INHERIT_BOX_N];

    n = inherit->numbers + NGX_TUN_INHERIT_N
        + inherit->numbers[NGX_TUN_INHERIT_QUEUE_N];

    for (i = 0; i < handoff->n; i++) {
        handoff->pairs[i].read = (ngx_socket_t) *n++;
        handoff->pairs[i].write = (ngx_socket_t) *n++;
    }
}


void
ngx_tun_device_describe(ngx_tun_device_t *dev, ngx_tun_inherit_t *inherit)
{
    ngx_int_t   *n;
    ngx_uint_t   i, flags;

    flags = (dev->existed ? NGX_TUN_INHERIT_EXISTED : 0)
            | (dev->was_up ? NGX_TUN_INHERIT_WAS_UP : 0)
            | (dev->offload ? NGX_TUN_INHERIT_OFFLOAD : 0)
            | (dev->uso ? NGX_TUN_INHERIT_USO : 0);

    if (dev->added.nelts == dev->conf->addresses.nelts) {
        flags |= NGX_TUN_INHERIT_ADDED;
    }

    inherit->name = dev->conf->name;

    n = inherit->numbers;

    n[NGX_TUN_INHERIT_QUEUE_N] = dev->conf->queues;
    n[NGX_TUN_INHERIT_FLAGS] = flags;
    n[NGX_TUN_INHERIT_MTU_FOUND] = dev->mtu_found;
    n[NGX_TUN_INHERIT_TXQLEN_FOUND] = dev->txqlen_found;

    for (i = 0; i < dev->conf->queues; i++) {
        n[NGX_TUN_INHERIT_N + i] = dev->fds[i];
    }
}


ngx_int_t
ngx_tun_device_inherit(ngx_tun_device_t *dev, ngx_tun_inherit_t *inherit,
    ngx_pool_t *pool)
{
    ngx_int_t     *n;
    ngx_uint_t     i, flags;
    struct ifreq   ifr;

    n = inherit->numbers;
    flags = n[NGX_TUN_INHERIT_FLAGS];

    dev->conf->queues = n[NGX_TUN_INHERIT_QUEUE_N];

    dev->fds = ngx_palloc(pool, dev->conf->queues * sizeof(ngx_socket_t));
    if (dev->fds == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < dev->conf->queues; i++) {
        dev->fds[i] = (ngx_socket_t) n[NGX_TUN_INHERIT_N + i];
    }

    ngx_memzero(&ifr, sizeof(struct ifreq));

    if (ioctl(dev->fds[0], TUNGETIFF, &ifr) == -1) {
        return NGX_ERROR;
    }

    if (ifr.ifr_flags & IFF_VNET_HDR) {
        dev->vnet_len = sizeof(struct virtio_net_hdr);
    }

    dev->netlink = (ngx_socket_t) -1;
    dev->existed = (flags & NGX_TUN_INHERIT_EXISTED) != 0;
    dev->was_up = (flags & NGX_TUN_INHERIT_WAS_UP) != 0;
    dev->offload = (flags & NGX_TUN_INHERIT_OFFLOAD) != 0;
    dev->uso = (flags & NGX_TUN_INHERIT_USO) != 0;
    dev->mtu_found = n[NGX_TUN_INHERIT_MTU_FOUND];
    dev->txqlen_found = n[NGX_TUN_INHERIT_TXQLEN_FOUND];

    /* those of the other binary, if it had no others */

    if ((flags & NGX_TUN_INHERIT_ADDED) == 0) {
        return ngx_array_init(&dev->added, pool, 1, sizeof(ngx_tun_address_t));
    }

    dev->added = dev->conf->addresses;

    return NGX_OK;
}
