
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_device.h>
#include <ngx_tun_inherit.h>
#include <ngx_tun_link.h>
#include <ngx_tun_netlink.h>
#include <ngx_tun_route.h>
#include <ngx_tun_steering.h>

#include <net/if.h>
#include <sched.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>


#define NGX_TUN_DEVICE_PATH    "/dev/net/tun"
#define NGX_TUN_DEVICE_HOME    "/proc/self/ns/net"
#define NGX_TUN_DEVICE_NETNS   "/run/netns/"
#define NGX_TUN_DEVICE_MTU6    1280          /* RFC 8200, 5 */

/* since Linux 6.2 */
#ifndef TUN_F_USO4
#define TUN_F_USO4             0x20
#define TUN_F_USO6             0x40
#endif

/* packets that wait for us: of up to 64 KB, or of an MTU */
#define ngx_tun_device_txqlen(dev)  ((dev)->offload ? 1000 : 4000)


static ngx_int_t ngx_tun_device_dup(ngx_tun_device_t *dev,
    ngx_tun_device_t *old, ngx_log_t *log);
static ngx_int_t ngx_tun_device_attached(ngx_tun_device_t *dev,
    ngx_tun_device_t *old);
static ngx_uint_t ngx_tun_device_same_netns(ngx_tun_device_t *dev,
    ngx_socket_t fd);
static ngx_int_t ngx_tun_device_open_files(ngx_tun_device_t *dev,
    ngx_log_t *log);
static ngx_int_t ngx_tun_device_enter_netns(ngx_tun_device_t *dev, int *home,
    ngx_log_t *log);
static ngx_int_t ngx_tun_device_leave_netns(ngx_tun_device_t *dev, int home,
    ngx_log_t *log);
static void ngx_tun_device_netns_path(ngx_tun_device_t *dev, u_char *path);
static ngx_int_t ngx_tun_device_check_link(ngx_tun_device_t *dev,
    ngx_tun_link_t *link, ngx_log_t *log);
static ngx_int_t ngx_tun_device_attach(ngx_tun_device_t *dev,
    ngx_tun_link_t *link, ngx_log_t *log);
static ngx_int_t ngx_tun_device_attach_queue(ngx_tun_device_t *dev,
    ngx_tun_link_t *link, ngx_socket_t fd, ngx_log_t *log);
static void ngx_tun_device_attach_failed(ngx_tun_device_t *dev,
    ngx_tun_link_t *link, ngx_err_t err, ngx_log_t *log);
static ngx_int_t ngx_tun_device_configure(ngx_tun_device_t *dev,
    ngx_tun_link_t *link, ngx_log_t *log);
static void ngx_tun_device_set_offload(ngx_tun_device_t *dev);

static void ngx_tun_device_restore(ngx_tun_device_t *dev, ngx_log_t *log);


ngx_int_t
ngx_tun_device_open(ngx_tun_device_t *dev, ngx_tun_device_t *old,
    ngx_pool_t *pool, ngx_log_t *log)
{
    ngx_uint_t      i;
    ngx_tun_link_t  link;

    dev->netlink = (ngx_socket_t) -1;
    dev->steering = -1;
    dev->former = (old != NULL) ? old->conf : NULL;

    dev->fds = ngx_palloc(pool, dev->conf->queues * sizeof(ngx_socket_t));
    if (dev->fds == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < dev->conf->queues; i++) {
        dev->fds[i] = (ngx_socket_t) -1;
    }

    if (ngx_array_init(&dev->added, pool, 4, sizeof(ngx_tun_address_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (dev->conf->queues > 1) {
        dev->steering = ngx_tun_steering_open();
    }

    if (old != NULL
        && ngx_tun_device_attached(dev, old) == NGX_OK
        && ngx_tun_device_dup(dev, old, log) != NGX_OK)
    {
        goto failed;
    }

    if (ngx_tun_device_open_files(dev, log) != NGX_OK
        || ngx_tun_link_get(dev, 0, &link, log) != NGX_OK
        || ngx_tun_device_check_link(dev, &link, log) != NGX_OK)
    {
        goto failed;
    }

    if (!dev->reused) {
        dev->existed = (link.index != 0);
        dev->was_up = link.up;
        dev->mtu_found = link.mtu;
        dev->txqlen_found = link.txqlen;
        dev->group_found = link.group;
    }

    if (ngx_tun_device_attach(dev, &link, log) != NGX_OK
        || ngx_tun_link_get(dev, 0, &link, log) != NGX_OK
        || ngx_tun_device_configure(dev, &link, log) != NGX_OK
        || ngx_tun_address_add(dev, old, log) != NGX_OK
        || ngx_tun_route_add(dev, log) != NGX_OK)
    {
        goto failed;
    }

    return NGX_OK;

failed:

    ngx_tun_device_close(dev, 1, log);

    return NGX_ERROR;
}


void
ngx_tun_device_commit(ngx_tun_device_t *dev, ngx_tun_device_t *old,
    ngx_log_t *log)
{
    dev->committed = 1;
    dev->former = NULL;

    ngx_tun_route_prune(dev, dev->conf, log);
    ngx_tun_route_warn(dev, log);

    if (old == NULL) {
        return;
    }

    old->superseded = 1;

    if (!dev->reused) {
        return;
    }

    ngx_tun_address_take(dev, old, log);
    ngx_tun_device_set_offload(dev);

    (void) ngx_tun_link_set(dev, dev->conf->mtu, ngx_tun_device_txqlen(dev),
                            1, log);

    /* those with another prefix now, or that went with a removed primary */

    (void) ngx_tun_address_add(dev, NULL, log);

    /* a link that went down, and an address that went, took routes along */

    (void) ngx_tun_route_add(dev, log);
}


void
ngx_tun_device_close(ngx_tun_device_t *dev, ngx_uint_t restore, ngx_log_t *log)
{
    ngx_uint_t  i;

    if (restore) {
        ngx_tun_device_restore(dev, log);
    }

    for (i = 0; i < dev->conf->queues; i++) {
        if (dev->fds[i] != (ngx_socket_t) -1) {
            (void) close(dev->fds[i]);
            dev->fds[i] = (ngx_socket_t) -1;
        }
    }

    if (dev->netlink != (ngx_socket_t) -1) {
        (void) close(dev->netlink);
        dev->netlink = (ngx_socket_t) -1;
    }

    if (dev->steering != -1) {
        (void) close(dev->steering);
        dev->steering = -1;
    }
}


/* a device that we made vanishes with its last descriptor */

static void
ngx_tun_device_restore(ngx_tun_device_t *dev, ngx_log_t *log)
{
    ngx_uint_t      given_up;
    ngx_tun_link_t  link;

    given_up = dev->reused && !dev->committed;

    /* rules go before the routes that they lead to */

    if (dev->index != 0 && !dev->superseded
        && (dev->committed || !dev->inherited))
    {
        ngx_tun_route_prune(dev, dev->former, log);
    }

    if (dev->index == 0
        || dev->superseded
        || (!dev->existed && !given_up))
    {
        return;
    }

    /* someone may have deleted it, or moved it elsewhere */

    if (ngx_tun_link_get(dev, dev->index, &link, log) != NGX_OK
        || link.index == 0)
    {
        return;
    }

    ngx_tun_address_delete(dev, log);

    if (!given_up) {
        (void) ioctl(dev->fds[0], TUNSETOFFLOAD, 0);

        /* where nothing could be changed, there is nothing to be said twice */

        if (link.mtu != dev->mtu_found
            || link.txqlen != dev->txqlen_found
            || link.up != dev->was_up)
        {
            (void) ngx_tun_link_set(dev, dev->mtu_found,
                                           dev->txqlen_found, dev->was_up,
                                           log);
        }

        if (link.group != dev->group_found) {
            (void) ngx_tun_link_set_group(dev, dev->group_found, log);
        }

    } else if (dev->mtu_raised) {
        (void) ngx_tun_link_set(dev, dev->mtu_raised, link.txqlen,
                                       link.up, log);
    }
}


static ngx_int_t
ngx_tun_device_attached(ngx_tun_device_t *dev, ngx_tun_device_t *old)
{
    struct ifreq  ifr;

    ngx_memzero(&ifr, sizeof(struct ifreq));

    /* not, if the interface was deleted, renamed or moved in the meantime */

    if (ioctl(old->fds[0], TUNGETIFF, &ifr) == -1
        || ngx_strncmp(ifr.ifr_name, dev->conf->name.data, IFNAMSIZ) != 0
        || !ngx_tun_device_same_netns(dev, old->fds[0]))
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_tun_device_same_netns(ngx_tun_device_t *dev, ngx_socket_t fd)
{
    int              netns;
    u_char           path[NGX_MAX_PATH];
    ngx_uint_t       same;
    ngx_file_info_t  is, wanted;

    /* Linux 5.8, and CAP_NET_ADMIN */

    netns = ioctl(fd, TUNGETDEVNETNS);
    if (netns == -1) {
        return 1;
    }

    ngx_tun_device_netns_path(dev, path);

    same = (ngx_fd_info(netns, &is) != NGX_FILE_ERROR
            && ngx_file_info(path, &wanted) != NGX_FILE_ERROR
            && is.st_dev == wanted.st_dev
            && is.st_ino == wanted.st_ino);

    (void) close(netns);

    return same;
}


static ngx_int_t
ngx_tun_device_dup(ngx_tun_device_t *dev, ngx_tun_device_t *old,
    ngx_log_t *log)
{
    ngx_uint_t  i, n;

    n = ngx_min(dev->conf->queues, old->conf->queues);

    for (i = 0; i < n; i++) {
        dev->fds[i] = fcntl(old->fds[i], F_DUPFD_CLOEXEC, 0);

        if (dev->fds[i] == (ngx_socket_t) -1) {
            goto failed;
        }
    }

    if (old->netlink != (ngx_socket_t) -1) {
        dev->netlink = fcntl(old->netlink, F_DUPFD_CLOEXEC, 0);

        if (dev->netlink == (ngx_socket_t) -1) {
            goto failed;
        }
    }

    dev->reused = 1;
    dev->inherited = (old->netlink == (ngx_socket_t) -1);
    dev->existed = old->existed;
    dev->was_up = old->was_up;
    dev->mtu_found = old->mtu_found;
    dev->txqlen_found = old->txqlen_found;
    dev->group_found = old->group_found;
    dev->vnet_len = old->vnet_len;
    dev->offload = old->offload;
    dev->uso = old->uso;

    return NGX_OK;

failed:

    ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                  "tun \"%V\": fcntl(F_DUPFD_CLOEXEC) failed",
                  &dev->conf->name);

    return NGX_ERROR;
}


/*
 * A descriptor of the TUN driver and a netlink socket belong to the namespace
 * in which they were opened, whoever uses them later.
 */

static ngx_int_t
ngx_tun_device_open_files(ngx_tun_device_t *dev, ngx_log_t *log)
{
    int         home;
    ngx_int_t   rc;
    ngx_err_t   err;
    ngx_uint_t  i;

    home = -1;
    rc = NGX_ERROR;

    if (dev->conf->netns.len != 0
        && ngx_tun_device_enter_netns(dev, &home, log) != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < dev->conf->queues; i++) {

        if (dev->fds[i] != (ngx_socket_t) -1) {
            continue;
        }

        dev->fds[i] = open(NGX_TUN_DEVICE_PATH, O_RDWR|O_NONBLOCK|O_CLOEXEC);

        if (dev->fds[i] == (ngx_socket_t) -1) {
            err = ngx_errno;
            ngx_log_error(NGX_LOG_EMERG, log, err,
                          "tun \"%V\": open(\"%s\") failed%s",
                          &dev->conf->name, NGX_TUN_DEVICE_PATH,
                          (err == NGX_ENOENT || err == ENODEV || err == ENXIO)
                          ? ", is the kernel module \"tun\" there?" : "");
            goto done;
        }
    }

    if (dev->netlink == (ngx_socket_t) -1) {
        dev->netlink = ngx_tun_netlink_open();

        if (dev->netlink == (ngx_socket_t) -1) {
            ngx_log_error(NGX_LOG_EMERG, log, ngx_socket_errno,
                          "tun \"%V\": socket(AF_NETLINK) failed",
                          &dev->conf->name);
            goto done;
        }
    }

    rc = NGX_OK;

done:

    if (home != -1 && ngx_tun_device_leave_netns(dev, home, log) != NGX_OK) {
        return NGX_ERROR;
    }

    return rc;
}


ngx_socket_t
ngx_tun_device_socket(ngx_tun_device_t *dev, int family, int type,
    ngx_log_t *log)
{
    int           home;
    ngx_socket_t  s;

    home = -1;

    if (dev->conf->netns.len != 0
        && ngx_tun_device_enter_netns(dev, &home, log) != NGX_OK)
    {
        return (ngx_socket_t) -1;
    }

    s = socket(family, type|SOCK_NONBLOCK|SOCK_CLOEXEC, 0);

    if (s == (ngx_socket_t) -1) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_socket_errno,
                      "tun \"%V\": socket() failed", &dev->conf->name);
    }

    if (home != -1 && ngx_tun_device_leave_netns(dev, home, log) != NGX_OK
        && s != (ngx_socket_t) -1)
    {
        (void) ngx_close_socket(s);
        s = (ngx_socket_t) -1;
    }

    return s;
}


static ngx_int_t
ngx_tun_device_enter_netns(ngx_tun_device_t *dev, int *home, ngx_log_t *log)
{
    int     fd;
    u_char  path[NGX_MAX_PATH];

    ngx_tun_device_netns_path(dev, path);

    fd = open((char *) path, O_RDONLY|O_CLOEXEC);

    if (fd == -1) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "tun \"%V\": open(\"%s\") of the network namespace "
                      "failed", &dev->conf->name, path);
        return NGX_ERROR;
    }

    *home = open(NGX_TUN_DEVICE_HOME, O_RDONLY|O_CLOEXEC);

    if (*home == -1) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "tun \"%V\": open(\"%s\") failed",
                      &dev->conf->name, NGX_TUN_DEVICE_HOME);
        (void) close(fd);
        return NGX_ERROR;
    }

    if (setns(fd, CLONE_NEWNET) == -1) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "tun \"%V\": setns(\"%s\") to the network namespace "
                      "failed", &dev->conf->name, path);
        (void) close(fd);
        (void) close(*home);
        return NGX_ERROR;
    }

    (void) close(fd);

    return NGX_OK;
}


static ngx_int_t
ngx_tun_device_leave_netns(ngx_tun_device_t *dev, int home, ngx_log_t *log)
{
    ngx_int_t  rc;

    rc = NGX_OK;

    if (setns(home, CLONE_NEWNET) == -1) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "tun \"%V\": setns() back to the own network namespace "
                      "failed", &dev->conf->name);
        rc = NGX_ERROR;
    }

    (void) close(home);

    return rc;
}


static void
ngx_tun_device_netns_path(ngx_tun_device_t *dev, u_char *path)
{
    u_char     *last;
    ngx_str_t  *netns;

    netns = &dev->conf->netns;
    last = path + NGX_MAX_PATH - 1;

    if (netns->len == 0) {
        last = ngx_slprintf(path, last, "%s", NGX_TUN_DEVICE_HOME);

    } else if (ngx_strlchr(netns->data, netns->data + netns->len, '/')) {
        last = ngx_slprintf(path, last, "%V", netns);

    } else {
        last = ngx_slprintf(path, last, "%s%V", NGX_TUN_DEVICE_NETNS, netns);
    }

    *last = '\0';
}


static ngx_int_t
ngx_tun_device_check_link(ngx_tun_device_t *dev, ngx_tun_link_t *link,
    ngx_log_t *log)
{
    char  *reason;

    if (link->index == 0) {
        return NGX_OK;
    }

    if (link->tap) {
        reason = "is a TAP device";

    } else if (!link->tun) {
        reason = "is not a TUN device";

    } else if (!link->multi_queue && dev->conf->queues > 1) {
        reason = "has a single queue, several workers need \"multi_queue\"";

    } else if (link->in_use && !dev->reused) {

        /* the driver would share out the packets of a multi-queue device */
        reason = "is in use by another process";

    } else {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_EMERG, log, 0,
                  "tun \"%V\": an interface of that name exists and %s",
                  &dev->conf->name, reason);

    return NGX_ERROR;
}


static ngx_int_t
ngx_tun_device_attach(ngx_tun_device_t *dev, ngx_tun_link_t *link,
    ngx_log_t *log)
{
    ngx_uint_t    i;
    struct ifreq  ifr;

    for (i = 0; i < dev->conf->queues; i++) {

        ngx_memzero(&ifr, sizeof(struct ifreq));

        if (ioctl(dev->fds[i], TUNGETIFF, &ifr) == 0) {

            if (ifr.ifr_flags & IFF_DETACH_QUEUE) {
                /* a binary with fewer of them has come and gone */
                ifr.ifr_flags = IFF_ATTACH_QUEUE;
                (void) ioctl(dev->fds[i], TUNSETQUEUE, &ifr);
            }

            continue;
        }

        if (ngx_tun_device_attach_queue(dev, link, dev->fds[i], log)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_tun_device_attach_queue(ngx_tun_device_t *dev, ngx_tun_link_t *link,
    ngx_socket_t fd, ngx_log_t *log)
{
    int           size;
    unsigned      features;
    struct ifreq  ifr;

    features = 0;
    (void) ioctl(fd, TUNGETFEATURES, &features);

    ngx_memzero(&ifr, sizeof(struct ifreq));

    (void) ngx_cpystrn((u_char *) ifr.ifr_name, dev->conf->name.data,
                       ngx_min(dev->conf->name.len + 1, IFNAMSIZ));

    ifr.ifr_flags = IFF_TUN|IFF_NO_PI;

    if (features & IFF_VNET_HDR) {
        ifr.ifr_flags |= IFF_VNET_HDR;
        dev->vnet_len = sizeof(struct virtio_net_hdr);
    }

    /* a device of ours may get more queues at a reload */

    if ((features & IFF_MULTI_QUEUE)
        && (link->index == 0 || link->multi_queue))
    {
        ifr.ifr_flags |= IFF_MULTI_QUEUE;
    }

    if (ioctl(fd, TUNSETIFF, &ifr) == -1) {
        ngx_tun_device_attach_failed(dev, link, ngx_errno, log);
        return NGX_ERROR;
    }

    size = (int) dev->vnet_len;

    if (size != 0 && ioctl(fd, TUNSETVNETHDRSZ, &size) == -1) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "tun \"%V\": ioctl(TUNSETVNETHDRSZ) failed",
                      &dev->conf->name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_tun_device_attach_failed(ngx_tun_device_t *dev,
    ngx_tun_link_t *link, ngx_err_t err, ngx_log_t *log)
{
    char  *reason;

    switch (err) {

    case NGX_EPERM:

        if (link->owner != (ngx_uint_t) -1
            && link->owner != (ngx_uint_t) geteuid())
        {
            ngx_log_error(NGX_LOG_EMERG, log, err,
                          "tun \"%V\": ioctl(TUNSETIFF) failed, "
                          "CAP_NET_ADMIN is needed, the device belongs to "
                          "user %ui", &dev->conf->name, link->owner);
            return;
        }

        reason = ", CAP_NET_ADMIN is needed, or a device of this user";
        break;

    case NGX_EBUSY:
        reason = ", it is in use by another process";
        break;

    case NGX_EINVAL:
        reason = ", it exists with other flags";
        break;

    default:
        reason = "";
    }

    ngx_log_error(NGX_LOG_EMERG, log, err,
                  "tun \"%V\": ioctl(TUNSETIFF) failed%s",
                  &dev->conf->name, reason);
}


static ngx_int_t
ngx_tun_device_configure(ngx_tun_device_t *dev, ngx_tun_link_t *link,
    ngx_log_t *log)
{
    if (link->index == 0) {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "tun \"%V\": the interface is not there any more",
                      &dev->conf->name);
        return NGX_ERROR;
    }

    dev->index = link->index;

    if (!dev->reused) {
        ngx_tun_device_set_offload(dev);

    } else if (link->mtu < NGX_TUN_DEVICE_MTU6
               && dev->conf->mtu >= NGX_TUN_DEVICE_MTU6)
    {
        /* the MTU of a reload waits for its commit, but IPv6 cannot */
        dev->mtu_raised = link->mtu;

    } else {
        return NGX_OK;
    }

    return ngx_tun_link_set(dev, dev->conf->mtu, ngx_tun_device_txqlen(dev),
                            1, log);
}


static void
ngx_tun_device_set_offload(ngx_tun_device_t *dev)
{
    unsigned  flags;

    flags = TUN_F_CSUM|TUN_F_TSO4|TUN_F_TSO6;

    dev->offload = 0;
    dev->uso = 0;

    if (dev->conf->offload && dev->vnet_len != 0) {

        if (ioctl(dev->fds[0], TUNSETOFFLOAD, flags|TUN_F_TSO_ECN|TUN_F_USO4
                                              |TUN_F_USO6)
            == 0)
        {
            dev->offload = 1;
            dev->uso = 1;
            return;
        }

        if (ioctl(dev->fds[0], TUNSETOFFLOAD, flags|TUN_F_TSO_ECN) == 0
            || ioctl(dev->fds[0], TUNSETOFFLOAD, flags) == 0)
        {
            dev->offload = 1;
            return;
        }
    }

    (void) ioctl(dev->fds[0], TUNSETOFFLOAD, 0);
}
