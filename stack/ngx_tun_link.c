
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_device.h>
#include <ngx_tun_link.h>
#include <ngx_tun_netlink.h>

#include <linux/if_link.h>
#include <linux/if_tun.h>


static ngx_int_t ngx_tun_link_handler(struct nlmsghdr *header,
    void *data);
static ngx_uint_t ngx_tun_link_info(struct rtattr *info, ngx_uint_t type,
    ngx_uint_t value);


ngx_int_t
ngx_tun_link_get(ngx_tun_device_t *dev, ngx_uint_t index,
    ngx_tun_link_t *link, ngx_log_t *log)
{
    struct ifinfomsg      *ifi;
    ngx_tun_netlink_msg_t  msg;

    ngx_memzero(link, sizeof(ngx_tun_link_t));
    link->owner = (ngx_uint_t) -1;

    ifi = ngx_tun_netlink_init(&msg, RTM_GETLINK, 0, sizeof(struct ifinfomsg));
    ifi->ifi_family = AF_UNSPEC;
    ifi->ifi_index = (int) index;

    if (index == 0) {
        ngx_tun_netlink_add(&msg, IFLA_IFNAME, dev->conf->name.data,
                            dev->conf->name.len + 1);
    }

    if (ngx_tun_netlink_talk(dev->netlink, &msg, ngx_tun_link_handler,
                             link)
        == NGX_OK
        || ngx_errno == ENODEV)
    {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                  "tun \"%V\": RTM_GETLINK failed", &dev->conf->name);

    return NGX_ERROR;
}


static ngx_int_t
ngx_tun_link_handler(struct nlmsghdr *header, void *data)
{
    ngx_tun_link_t *link = data;

    struct rtattr     *rta, *kind, *info;
    struct ifinfomsg  *ifi;

    if (header->nlmsg_type != RTM_NEWLINK) {
        return NGX_OK;
    }

    ifi = NLMSG_DATA(header);

    link->index = ifi->ifi_index;
    link->up = (ifi->ifi_flags & IFF_UP) != 0;

    rta = ngx_tun_netlink_attr(header, sizeof(struct ifinfomsg), IFLA_IFNAME);
    if (rta != NULL) {
        (void) ngx_cpystrn(link->name, RTA_DATA(rta),
                           ngx_min(RTA_PAYLOAD(rta), IFNAMSIZ));
    }

    rta = ngx_tun_netlink_attr(header, sizeof(struct ifinfomsg), IFLA_MTU);
    if (rta != NULL) {
        link->mtu = *(uint32_t *) RTA_DATA(rta);
    }

    rta = ngx_tun_netlink_attr(header, sizeof(struct ifinfomsg), IFLA_TXQLEN);
    if (rta != NULL) {
        link->txqlen = *(uint32_t *) RTA_DATA(rta);
    }

    rta = ngx_tun_netlink_attr(header, sizeof(struct ifinfomsg), IFLA_GROUP);
    if (rta != NULL) {
        link->group = *(uint32_t *) RTA_DATA(rta);
    }

    rta = ngx_tun_netlink_attr(header, sizeof(struct ifinfomsg),
                               IFLA_LINKINFO);
    if (rta == NULL) {
        return NGX_OK;
    }

    kind = ngx_tun_netlink_nested(rta, IFLA_INFO_KIND);
    info = ngx_tun_netlink_nested(rta, IFLA_INFO_DATA);

    if (kind == NULL || ngx_strncmp(RTA_DATA(kind), "tun", 4) != 0) {
        return NGX_OK;
    }

    link->tun = 1;

    if (info == NULL) {
        return NGX_OK;
    }

    link->tap = (ngx_tun_link_info(info, IFLA_TUN_TYPE, IFF_TUN)
                 == IFF_TAP);
    link->multi_queue = ngx_tun_link_info(info, IFLA_TUN_MULTI_QUEUE, 0);

    link->owner = ngx_tun_link_info(info, IFLA_TUN_OWNER, link->owner);

    /* without a process there are only persistent devices */

    link->in_use = !ngx_tun_link_info(info, IFLA_TUN_PERSIST, 1)
                   || ngx_tun_link_info(info, IFLA_TUN_NUM_QUEUES, 0) != 0;

    return NGX_OK;
}


/* an attribute of 1 or 4 bytes */

static ngx_uint_t
ngx_tun_link_info(struct rtattr *info, ngx_uint_t type, ngx_uint_t value)
{
    uint32_t        u32;
    struct rtattr  *rta;

    rta = ngx_tun_netlink_nested(info, type);

    if (rta == NULL) {
        return value;
    }

    if (RTA_PAYLOAD(rta) >= sizeof(uint32_t)) {
        ngx_memcpy(&u32, RTA_DATA(rta), sizeof(uint32_t));
        return u32;
    }

    return *(uint8_t *) RTA_DATA(rta);
}


ngx_int_t
ngx_tun_link_set(ngx_tun_device_t *dev, ngx_uint_t mtu,
    ngx_uint_t txqlen, ngx_uint_t up, ngx_log_t *log)
{
    struct ifinfomsg      *ifi;
    ngx_tun_netlink_msg_t  msg;

    ifi = ngx_tun_netlink_init(&msg, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
    ifi->ifi_family = AF_UNSPEC;
    ifi->ifi_index = (int) dev->index;
    ifi->ifi_change = IFF_UP;
    ifi->ifi_flags = up ? IFF_UP : 0;

    ngx_tun_netlink_add_u32(&msg, IFLA_MTU, (uint32_t) mtu);
    ngx_tun_netlink_add_u32(&msg, IFLA_TXQLEN, (uint32_t) txqlen);

    if (ngx_tun_netlink_talk(dev->netlink, &msg, NULL, NULL) == NGX_OK) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                  "tun \"%V\": cannot set the interface %s with mtu %ui%s%s",
                  &dev->conf->name, up ? "up" : "down", mtu,
                  (msg.error[0] == '\0') ? "" : ": ", msg.error);

    return NGX_ERROR;
}


ngx_int_t
ngx_tun_link_set_group(ngx_tun_device_t *dev, ngx_uint_t group, ngx_log_t *log)
{
    struct ifinfomsg      *ifi;
    ngx_tun_netlink_msg_t  msg;

    ifi = ngx_tun_netlink_init(&msg, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
    ifi->ifi_family = AF_UNSPEC;
    ifi->ifi_index = (int) dev->index;

    ngx_tun_netlink_add_u32(&msg, IFLA_GROUP, (uint32_t) group);

    if (ngx_tun_netlink_talk(dev->netlink, &msg, NULL, NULL) == NGX_OK) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                  "tun \"%V\": cannot set the group of the interface to %ui",
                  &dev->conf->name, group);

    return NGX_ERROR;
}
