
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_device.h>
#include <ngx_tun_link.h>
#include <ngx_tun_netlink.h>

#include <linux/if_addr.h>


/* which interfaces have an address */

typedef struct {
    ngx_tun_address_t        *addr;
    ngx_uint_t                own;         /* index of ours */
    ngx_uint_t                other;       /* index of another, or 0 */
    ngx_uint_t                found;       /* ours has it, prefix and all */
} ngx_tun_address_owner_t;


static ngx_int_t ngx_tun_address_add_one(ngx_tun_device_t *dev,
    ngx_tun_device_t *old, ngx_tun_address_t *addr, ngx_log_t *log);
static ngx_int_t ngx_tun_address_keep(ngx_tun_device_t *dev,
    ngx_tun_address_t *addr);
static ngx_int_t ngx_tun_address_find_owner(ngx_tun_device_t *dev,
    ngx_tun_address_owner_t *owner, ngx_log_t *log);
static ngx_int_t ngx_tun_address_owner_handler(struct nlmsghdr *header,
    void *data);
static ngx_int_t ngx_tun_address_change(ngx_tun_device_t *dev,
    ngx_tun_address_t *addr, ngx_uint_t type, ngx_log_t *log);
static void ngx_tun_address_taken(ngx_tun_device_t *dev,
    ngx_tun_address_owner_t *owner, ngx_log_t *log);
static ngx_uint_t ngx_tun_address_has(ngx_array_t *addresses,
    ngx_tun_address_t *addr, ngx_uint_t any_prefix);
static size_t ngx_tun_address_text(ngx_tun_address_t *addr, u_char *text);


ngx_int_t
ngx_tun_address_add(ngx_tun_device_t *dev, ngx_tun_device_t *old,
    ngx_log_t *log)
{
    ngx_uint_t               i;
    ngx_tun_address_t       *addr;
    ngx_tun_address_owner_t  owner;

    addr = dev->conf->addresses.elts;

    for (i = 0; i < dev->conf->addresses.nelts; i++) {

        ngx_memzero(&owner, sizeof(ngx_tun_address_owner_t));

        owner.addr = &addr[i];
        owner.own = dev->index;

        if (ngx_tun_address_find_owner(dev, &owner, log) != NGX_OK) {
            return NGX_ERROR;
        }

        if (owner.found) {
            continue;
        }

        if (owner.other != 0) {
            ngx_tun_address_taken(dev, &owner, log);
            return NGX_ERROR;
        }

        if (ngx_tun_address_add_one(dev, old, &addr[i], log) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_tun_address_add_one(ngx_tun_device_t *dev, ngx_tun_device_t *old,
    ngx_tun_address_t *addr, ngx_log_t *log)
{
    size_t     len;
    u_char     text[NGX_INET6_ADDRSTRLEN];
    ngx_int_t  rc;

    rc = ngx_tun_address_change(dev, addr, RTM_NEWADDR, log);

    if (rc != NGX_DECLINED) {
        return (rc == NGX_OK) ? ngx_tun_address_keep(dev, addr) : rc;
    }

    /* the one of the previous cycle, which its prefix leaves at the commit */

    if (dev->reused
        && old != NULL
        && ngx_tun_address_has(&old->added, addr, 1))
    {
        return NGX_OK;
    }

    len = ngx_tun_address_text(addr, text);

    ngx_log_error(NGX_LOG_EMERG, log, 0,
                  "tun \"%V\": the interface has the address %*s already, "
                  "with another prefix than %ui", &dev->conf->name, len, text,
                  addr->prefix);

    return NGX_ERROR;
}


static ngx_int_t
ngx_tun_address_keep(ngx_tun_device_t *dev, ngx_tun_address_t *addr)
{
    ngx_tun_address_t  *added;

    if (ngx_tun_address_has(&dev->added, addr, 0)) {
        return NGX_OK;
    }

    added = ngx_array_push(&dev->added);
    if (added == NULL) {
        return NGX_ERROR;
    }

    *added = *addr;

    return NGX_OK;
}


static ngx_int_t
ngx_tun_address_find_owner(ngx_tun_device_t *dev,
    ngx_tun_address_owner_t *owner, ngx_log_t *log)
{
    struct ifaddrmsg      *ifa;
    ngx_tun_netlink_msg_t  msg;

    ifa = ngx_tun_netlink_init(&msg, RTM_GETADDR, NLM_F_DUMP,
                               sizeof(struct ifaddrmsg));
    ifa->ifa_family = (owner->addr->addr_len == 4) ? AF_INET : AF_INET6;

    if (ngx_tun_netlink_talk(dev->netlink, &msg, ngx_tun_address_owner_handler,
                             owner)
        == NGX_OK)
    {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                  "tun \"%V\": RTM_GETADDR failed", &dev->conf->name);

    return NGX_ERROR;
}


static ngx_int_t
ngx_tun_address_owner_handler(struct nlmsghdr *header, void *data)
{
    ngx_tun_address_owner_t *owner = data;

    struct rtattr     *rta;
    struct ifaddrmsg  *ifa;

    if (header->nlmsg_type != RTM_NEWADDR) {
        return NGX_OK;
    }

    ifa = NLMSG_DATA(header);

    rta = ngx_tun_netlink_attr(header, sizeof(struct ifaddrmsg), IFA_LOCAL);

    if (rta == NULL) {
        rta = ngx_tun_netlink_attr(header, sizeof(struct ifaddrmsg),
                                   IFA_ADDRESS);
    }

    if (rta == NULL
        || RTA_PAYLOAD(rta) != owner->addr->addr_len
        || ngx_memcmp(RTA_DATA(rta), owner->addr->addr, owner->addr->addr_len)
           != 0)
    {
        return NGX_OK;
    }

    if (ifa->ifa_index == owner->own) {
        owner->found |= (ifa->ifa_prefixlen == owner->addr->prefix);

    } else {
        owner->other = ifa->ifa_index;
    }

    return NGX_OK;
}


static void
ngx_tun_address_taken(ngx_tun_device_t *dev,
    ngx_tun_address_owner_t *owner, ngx_log_t *log)
{
    size_t          len;
    u_char          text[NGX_INET6_ADDRSTRLEN];
    ngx_tun_link_t  link;

    if (ngx_tun_link_get(dev, owner->other, &link, log) != NGX_OK) {
        return;
    }

    len = ngx_tun_address_text(owner->addr, text);

    ngx_log_error(NGX_LOG_EMERG, log, 0,
                  "tun \"%V\": the address %*s belongs to the interface "
                  "\"%s\"", &dev->conf->name, len, text, link.name);
}


static ngx_int_t
ngx_tun_address_change(ngx_tun_device_t *dev, ngx_tun_address_t *addr,
    ngx_uint_t type, ngx_log_t *log)
{
    char                  *reason;
    size_t                 len;
    u_char                 text[NGX_INET6_ADDRSTRLEN];
    ngx_err_t              err;
    ngx_uint_t             flags;
    struct ifaddrmsg      *ifa;
    ngx_tun_netlink_msg_t  msg;

    flags = (type == RTM_NEWADDR) ? NLM_F_CREATE|NLM_F_EXCL : 0;

    ifa = ngx_tun_netlink_init(&msg, type, flags, sizeof(struct ifaddrmsg));
    ifa->ifa_family = (addr->addr_len == 4) ? AF_INET : AF_INET6;
    ifa->ifa_prefixlen = (uint8_t) addr->prefix;
    ifa->ifa_index = (unsigned) dev->index;

    /* nobody else is on the link to ask */
    ifa->ifa_flags = (addr->addr_len == 4) ? 0 : IFA_F_NODAD;

    ngx_tun_netlink_add(&msg, IFA_LOCAL, addr->addr, addr->addr_len);
    ngx_tun_netlink_add(&msg, IFA_ADDRESS, addr->addr, addr->addr_len);

    if (dev->conf->route.mode == NGX_TUN_ROUTE_OFF) {
        ngx_tun_netlink_add_u32(&msg, IFA_FLAGS,
                                ifa->ifa_flags|IFA_F_NOPREFIXROUTE);
    }

    if (ngx_tun_netlink_talk(dev->netlink, &msg, NULL, NULL) == NGX_OK) {
        return NGX_OK;
    }

    err = ngx_errno;

    /* the address or the interface is gone, and so is what was to be done */

    if (type == RTM_DELADDR
        && (err == ENODEV || err == EADDRNOTAVAIL))
    {
        return NGX_OK;
    }

    if (type == RTM_NEWADDR && err == NGX_EEXIST) {
        return NGX_DECLINED;
    }

    if (msg.error[0] != '\0') {
        reason = ": ";

    } else if (addr->addr_len == 16 && err != NGX_EPERM) {
        reason = ", is IPv6 switched off there?";

    } else {
        reason = "";
    }

    len = ngx_tun_address_text(addr, text);

    ngx_log_error(NGX_LOG_EMERG, log, err,
                  "tun \"%V\": cannot %s the address %*s/%ui%s%s",
                  &dev->conf->name,
                  (type == RTM_NEWADDR) ? "add" : "remove",
                  len, text, addr->prefix, reason, msg.error);

    return NGX_ERROR;
}


void
ngx_tun_address_delete(ngx_tun_device_t *dev, ngx_log_t *log)
{
    ngx_uint_t          i;
    ngx_tun_address_t  *addr;

    addr = dev->added.elts;

    for (i = 0; i < dev->added.nelts; i++) {
        (void) ngx_tun_address_change(dev, &addr[i], RTM_DELADDR, log);
    }

    dev->added.nelts = 0;
}


/* what the previous cycle added is kept, or has had its day */

void
ngx_tun_address_take(ngx_tun_device_t *dev, ngx_tun_device_t *old,
    ngx_log_t *log)
{
    ngx_uint_t          i;
    ngx_tun_address_t  *addr;

    addr = old->added.elts;

    for (i = 0; i < old->added.nelts; i++) {

        if (ngx_tun_address_has(&dev->conf->addresses, &addr[i], 0)) {
            (void) ngx_tun_address_keep(dev, &addr[i]);

        } else {
            (void) ngx_tun_address_change(dev, &addr[i], RTM_DELADDR,
                                                 log);
        }
    }
}


static ngx_uint_t
ngx_tun_address_has(ngx_array_t *addresses, ngx_tun_address_t *addr,
    ngx_uint_t any_prefix)
{
    ngx_uint_t          i;
    ngx_tun_address_t  *a;

    a = addresses->elts;

    for (i = 0; i < addresses->nelts; i++) {
        if (a[i].addr_len == addr->addr_len
            && (any_prefix || a[i].prefix == addr->prefix)
            && ngx_memcmp(a[i].addr, addr->addr, addr->addr_len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


static size_t
ngx_tun_address_text(ngx_tun_address_t *addr, u_char *text)
{
    return ngx_inet_ntop((addr->addr_len == 4) ? AF_INET : AF_INET6,
                         addr->addr, text, NGX_INET6_ADDRSTRLEN);
}
