
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_link.h>
#include <ngx_tun_netlink.h>
#include <ngx_tun_route.h>
#include <ngx_tun_route_plan.h>

#include <linux/fib_rules.h>
#include <linux/netconf.h>


/* of a line */
#define NGX_TUN_ROUTE_WARNING  512


static ngx_int_t ngx_tun_route_dump(ngx_tun_route_ctx_t *ctx);
static ngx_int_t ngx_tun_route_rule_handler(struct nlmsghdr *header,
    void *data);
static uint32_t ngx_tun_route_u32(struct nlmsghdr *header, size_t size,
    ngx_uint_t type, uint32_t value);
static ngx_int_t ngx_tun_route_entry_handler(struct nlmsghdr *header,
    void *data);
static ngx_uint_t ngx_tun_route_has(ngx_array_t *array, void *elt);
static ngx_int_t ngx_tun_route_change_rule(ngx_tun_route_ctx_t *ctx,
    ngx_tun_route_rule_t *rule, ngx_uint_t type);
static ngx_int_t ngx_tun_route_change_entry(ngx_tun_route_ctx_t *ctx,
    ngx_tun_route_entry_t *entry, ngx_uint_t type);
static ngx_int_t ngx_tun_route_talk(ngx_tun_route_ctx_t *ctx,
    ngx_tun_netlink_msg_t *msg, char *what);
static ngx_int_t ngx_tun_route_netconf_handler(struct nlmsghdr *header,
    void *data);
static void ngx_tun_route_netconf(ngx_tun_device_t *dev, int family,
    int index, int *values);


ngx_int_t
ngx_tun_route_add(ngx_tun_device_t *dev, ngx_log_t *log)
{
    ngx_int_t               rc;
    ngx_uint_t              i;
    ngx_pool_t             *pool;
    ngx_tun_route_ctx_t     wanted, found;
    ngx_tun_route_rule_t   *rule;
    ngx_tun_route_entry_t  *entry;

    if (dev->conf->route.mode == NGX_TUN_ROUTE_FAKEIP
        || dev->conf->route.mode == NGX_TUN_ROUTE_OFF)
    {
        return NGX_OK;
    }

    if (ngx_tun_route_grouped(dev->conf)
        && ngx_tun_link_set_group(dev, NGX_TUN_ROUTE_GROUP, log) != NGX_OK)
    {
        return NGX_ERROR;
    }

    pool = ngx_create_pool(4096, log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    rc = NGX_ERROR;

    if (ngx_tun_route_init(&wanted, dev, dev->conf, pool, log) != NGX_OK
        || ngx_tun_route_init(&found, dev, dev->conf, pool, log) != NGX_OK)
    {
        goto done;
    }

    ngx_tun_route_want(&wanted);

    if (wanted.failed || ngx_tun_route_dump(&found) != NGX_OK) {
        goto done;
    }

    if (found.foreign) {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "tun \"%V\": the routing table %ui leads to another "
                      "device, set \"route_table\"", &dev->conf->name,
                      dev->conf->route.table);
        goto done;
    }

    entry = wanted.routes.elts;

    for (i = 0; i < wanted.routes.nelts; i++) {
        if (!ngx_tun_route_has(&found.routes, &entry[i])
            && ngx_tun_route_change_entry(&wanted, &entry[i], RTM_NEWROUTE)
               != NGX_OK)
        {
            goto done;
        }
    }

    rule = wanted.rules.elts;

    for (i = 0; i < wanted.rules.nelts; i++) {
        if (!ngx_tun_route_has(&found.rules, &rule[i])
            && ngx_tun_route_change_rule(&wanted, &rule[i], RTM_NEWRULE)
               != NGX_OK)
        {
            goto done;
        }
    }

    rc = NGX_OK;

done:

    ngx_destroy_pool(pool);

    return rc;
}


void
ngx_tun_route_prune(ngx_tun_device_t *dev, ngx_tun_device_conf_t *conf,
    ngx_log_t *log)
{
    ngx_uint_t              i;
    ngx_pool_t             *pool;
    ngx_tun_route_ctx_t     wanted, found;
    ngx_tun_route_rule_t   *rule;
    ngx_tun_route_entry_t  *entry;

    pool = ngx_create_pool(4096, log);
    if (pool == NULL) {
        return;
    }

    if (ngx_tun_route_init(&wanted, dev, conf, pool, log) != NGX_OK
        || ngx_tun_route_init(&found, dev, dev->conf, pool, log) != NGX_OK)
    {
        goto done;
    }

    ngx_tun_route_want(&wanted);

    if (wanted.failed
        || ngx_tun_route_dump(&found) != NGX_OK
        || found.foreign)
    {
        goto done;
    }

    rule = found.rules.elts;

    for (i = 0; i < found.rules.nelts; i++) {
        if (!ngx_tun_route_has(&wanted.rules, &rule[i])) {
            (void) ngx_tun_route_change_rule(&found, &rule[i], RTM_DELRULE);
        }
    }

    entry = found.routes.elts;

    for (i = 0; i < found.routes.nelts; i++) {
        if (!ngx_tun_route_has(&wanted.routes, &entry[i])) {
            (void) ngx_tun_route_change_entry(&found, &entry[i],
                                              RTM_DELROUTE);
        }
    }

done:

    ngx_destroy_pool(pool);
}


/* what is ours, by the tag and the numbers */

static ngx_int_t
ngx_tun_route_dump(ngx_tun_route_ctx_t *ctx)
{
    ngx_uint_t             i;
    struct rtmsg          *rtm;
    struct fib_rule_hdr   *frh;
    ngx_tun_netlink_msg_t  msg;

    static int  families[] = { AF_INET, AF_INET6 };

    for (i = 0; i < 2; i++) {

        frh = ngx_tun_netlink_init(&msg, RTM_GETRULE, NLM_F_DUMP,
                                   sizeof(struct fib_rule_hdr));
        frh->family = families[i];

        /* a kernel without IPv6 has no rules of it either */

        if (ngx_tun_netlink_talk(ctx->dev->netlink, &msg,
                                 ngx_tun_route_rule_handler, ctx)
            != NGX_OK
            && (ngx_errno != EOPNOTSUPP && ngx_errno != EAFNOSUPPORT))
        {
            goto failed;
        }

        rtm = ngx_tun_netlink_init(&msg, RTM_GETROUTE, NLM_F_DUMP,
                                   sizeof(struct rtmsg));
        rtm->rtm_family = families[i];

        if (ngx_tun_netlink_talk(ctx->dev->netlink, &msg,
                                 ngx_tun_route_entry_handler, ctx)
            != NGX_OK
            && (ngx_errno != EOPNOTSUPP && ngx_errno != EAFNOSUPPORT))
        {
            goto failed;
        }
    }

    return NGX_OK;

failed:

    ngx_log_error(NGX_LOG_EMERG, ctx->log, ngx_errno,
                  "tun \"%V\": rules and routes cannot be read",
                  &ctx->dev->conf->name);

    return NGX_ERROR;
}


static ngx_int_t
ngx_tun_route_rule_handler(struct nlmsghdr *header, void *data)
{
    ngx_tun_route_ctx_t *ctx = data;

    size_t                 size;
    uint32_t               preference, first;
    struct rtattr         *rta;
    struct fib_rule_hdr   *frh;
    ngx_tun_route_rule_t  *rule;

    size = sizeof(struct fib_rule_hdr);
    frh = NLMSG_DATA(header);
    rta = ngx_tun_netlink_attr(header, size, FRA_PROTOCOL);
    preference = ngx_tun_route_u32(header, size, FRA_PRIORITY, 0);
    first = (uint32_t) ctx->conf->route.table;

    if (rta == NULL
        || *(u_char *) RTA_DATA(rta) != NGX_TUN_ROUTE_PROTOCOL
        || preference < first
        || preference >= first + NGX_TUN_ROUTE_PREFERENCES)
    {
        return NGX_OK;
    }

    rule = ngx_tun_route_rule(ctx, frh->family, preference - first,
                              ngx_tun_route_u32(header, size, FRA_TABLE,
                                                frh->table), NULL);
    if (rule == NULL) {
        return NGX_ERROR;
    }

    /* another instance, with a number near to ours */

    if (rule->table != RT_TABLE_MAIN && rule->table != first) {
        ctx->foreign = 1;
    }

    rule->invert = (frh->flags & FIB_RULE_INVERT) ? 1 : 0;
    rule->prefix = frh->src_len;
    rule->suppress = ngx_tun_route_u32(header, size, FRA_SUPPRESS_PREFIXLEN,
                                       (uint32_t) -1);
    rule->group = ngx_tun_route_u32(header, size, FRA_SUPPRESS_IFGROUP,
                                    (uint32_t) -1);
    rule->mark.first = ngx_tun_route_u32(header, size, FRA_FWMARK, 0);
    rule->mark.second = ngx_tun_route_u32(header, size, FRA_FWMASK, 0);

    rta = ngx_tun_netlink_attr(header, size, FRA_UID_RANGE);
    if (rta != NULL) {
        ngx_memcpy(&rule->uid, RTA_DATA(rta), sizeof(ngx_tun_route_pair_t));
    }

    rta = ngx_tun_netlink_attr(header, size, FRA_SRC);
    if (rta != NULL) {
        ngx_memcpy(rule->src, RTA_DATA(rta), ngx_min(RTA_PAYLOAD(rta), 16));
    }

    rta = ngx_tun_netlink_attr(header, size, FRA_IIFNAME);
    if (rta != NULL) {
        (void) ngx_cpystrn(rule->iif, RTA_DATA(rta), IFNAMSIZ);
    }

    return NGX_OK;
}


static uint32_t
ngx_tun_route_u32(struct nlmsghdr *header, size_t size, ngx_uint_t type,
    uint32_t value)
{
    struct rtattr  *rta;

    rta = ngx_tun_netlink_attr(header, size, type);

    if (rta != NULL && RTA_PAYLOAD(rta) >= sizeof(uint32_t)) {
        ngx_memcpy(&value, RTA_DATA(rta), sizeof(uint32_t));
    }

    return value;
}


static ngx_int_t
ngx_tun_route_entry_handler(struct nlmsghdr *header, void *data)
{
    ngx_tun_route_ctx_t *ctx = data;

    size_t                  size;
    uint32_t                oif;
    struct rtmsg           *rtm;
    struct rtattr          *rta;
    ngx_tun_route_entry_t  *entry;

    size = sizeof(struct rtmsg);
    rtm = NLMSG_DATA(header);

    if (rtm->rtm_protocol != NGX_TUN_ROUTE_PROTOCOL
        || ngx_tun_route_u32(header, size, RTA_TABLE, rtm->rtm_table)
           != (uint32_t) ctx->conf->route.table)
    {
        return NGX_OK;
    }

    oif = 0;

    if (rtm->rtm_type == RTN_UNICAST) {
        oif = ngx_tun_route_u32(header, size, RTA_OIF, 0);

        if (oif != (uint32_t) ctx->dev->index) {
            ctx->foreign = 1;
            return NGX_OK;
        }
    }

    entry = ngx_tun_route_entry(ctx, rtm->rtm_family, rtm->rtm_type,
                                ngx_tun_route_u32(header, size, RTA_PRIORITY,
                                                  0));
    if (entry == NULL) {
        return NGX_ERROR;
    }

    entry->oif = oif;
    entry->prefix = rtm->rtm_dst_len;

    rta = ngx_tun_netlink_attr(header, size, RTA_DST);
    if (rta != NULL) {
        ngx_memcpy(entry->dst, RTA_DATA(rta), ngx_min(RTA_PAYLOAD(rta), 16));
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_tun_route_has(ngx_array_t *array, void *elt)
{
    u_char      *p;
    ngx_uint_t   i;

    p = array->elts;

    for (i = 0; i < array->nelts; i++) {
        if (ngx_memcmp(p + i * array->size, elt, array->size) == 0) {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ngx_tun_route_change_rule(ngx_tun_route_ctx_t *ctx,
    ngx_tun_route_rule_t *rule, ngx_uint_t type)
{
    u_char                 protocol;
    ngx_uint_t             flags;
    struct fib_rule_hdr   *frh;
    ngx_tun_netlink_msg_t  msg;

    flags = (type == RTM_NEWRULE) ? NLM_F_CREATE|NLM_F_EXCL : 0;
    protocol = NGX_TUN_ROUTE_PROTOCOL;

    frh = ngx_tun_netlink_init(&msg, type, flags,
                               sizeof(struct fib_rule_hdr));
    frh->family = (uint8_t) rule->family;
    frh->src_len = (uint8_t) rule->prefix;
    frh->action = FR_ACT_TO_TBL;
    frh->flags = rule->invert ? FIB_RULE_INVERT : 0;

    ngx_tun_netlink_add(&msg, FRA_PROTOCOL, &protocol, 1);
    ngx_tun_netlink_add_u32(&msg, FRA_PRIORITY, rule->preference);
    ngx_tun_netlink_add_u32(&msg, FRA_TABLE, rule->table);

    if (rule->suppress != (uint32_t) -1) {
        ngx_tun_netlink_add_u32(&msg, FRA_SUPPRESS_PREFIXLEN, rule->suppress);
    }

    if (rule->group != (uint32_t) -1) {
        ngx_tun_netlink_add_u32(&msg, FRA_SUPPRESS_IFGROUP, rule->group);
    }

    if (rule->mark.first != 0) {
        ngx_tun_netlink_add_u32(&msg, FRA_FWMARK, rule->mark.first);
        ngx_tun_netlink_add_u32(&msg, FRA_FWMASK, rule->mark.second);
    }

    if (rule->uid.first != NGX_TUN_ROUTE_NO_UID) {
        ngx_tun_netlink_add(&msg, FRA_UID_RANGE, &rule->uid,
                            sizeof(ngx_tun_route_pair_t));
    }

    if (rule->prefix != 0) {
        ngx_tun_netlink_add(&msg, FRA_SRC, rule->src,
                            (rule->family == AF_INET) ? 4 : 16);
    }

    if (rule->iif[0] != '\0') {
        ngx_tun_netlink_add(&msg, FRA_IIFNAME, rule->iif,
                            ngx_strlen(rule->iif) + 1);
    }

    return ngx_tun_route_talk(ctx, &msg, "rule");
}


static ngx_int_t
ngx_tun_route_change_entry(ngx_tun_route_ctx_t *ctx,
    ngx_tun_route_entry_t *entry, ngx_uint_t type)
{
    ngx_uint_t             flags;
    struct rtmsg          *rtm;
    ngx_tun_netlink_msg_t  msg;

    flags = (type == RTM_NEWROUTE) ? NLM_F_CREATE|NLM_F_EXCL : 0;

    rtm = ngx_tun_netlink_init(&msg, type, flags, sizeof(struct rtmsg));
    rtm->rtm_family = (u_char) entry->family;
    rtm->rtm_dst_len = (u_char) entry->prefix;
    rtm->rtm_protocol = NGX_TUN_ROUTE_PROTOCOL;
    rtm->rtm_type = (u_char) entry->type;
    rtm->rtm_scope = (entry->type == RTN_UNICAST && entry->family == AF_INET)
                     ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;

    ngx_tun_netlink_add_u32(&msg, RTA_TABLE,
                            (uint32_t) ctx->conf->route.table);
    ngx_tun_netlink_add_u32(&msg, RTA_PRIORITY, entry->metric);

    if (entry->prefix != 0) {
        ngx_tun_netlink_add(&msg, RTA_DST, entry->dst,
                            (entry->family == AF_INET) ? 4 : 16);
    }

    if (entry->oif != 0) {
        ngx_tun_netlink_add_u32(&msg, RTA_OIF, entry->oif);
    }

    return ngx_tun_route_talk(ctx, &msg, "route");
}


static ngx_int_t
ngx_tun_route_talk(ngx_tun_route_ctx_t *ctx, ngx_tun_netlink_msg_t *msg,
    char *what)
{
    ngx_err_t   err;
    ngx_uint_t  remove;

    if (ngx_tun_netlink_talk(ctx->dev->netlink, msg, NULL, NULL) == NGX_OK) {
        return NGX_OK;
    }

    err = ngx_errno;
    remove = (msg->u.header.nlmsg_type == RTM_DELRULE
              || msg->u.header.nlmsg_type == RTM_DELROUTE);

    /* what is to be had or gone, is */

    if (remove ? (err == NGX_ENOENT || err == ESRCH || err == ENODEV)
               : err == NGX_EEXIST)
    {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_EMERG, ctx->log, err,
                  "tun \"%V\": cannot %s a %s of table %ui%s%s",
                  &ctx->dev->conf->name, remove ? "remove" : "add", what,
                  ctx->conf->route.table, msg->error[0] ? ": " : "",
                  msg->error);

    return NGX_ERROR;
}


/*
 * The rules of "gateway" and "global" are by interface, and the kernel looks
 * for the way back of a packet by the interface that it leaves by: it is the
 * device.  Rules by mark, which are made by others, do not know the way back.
 */

void
ngx_tun_route_warn(ngx_tun_device_t *dev, ngx_log_t *log)
{
    int                 all[2], own[2];
    u_char             *p, *last, text[NGX_TUN_ROUTE_WARNING];
    ngx_uint_t          i, gateway, inet, inet6;
    ngx_tun_address_t  *addr;

    gateway = (dev->conf->route.mode == NGX_TUN_ROUTE_GATEWAY);

    if (!gateway && dev->conf->route.mode != NGX_TUN_ROUTE_OFF) {
        return;
    }

    inet = 0;
    inet6 = 0;
    addr = dev->conf->addresses.elts;

    for (i = 0; i < dev->conf->addresses.nelts; i++) {
        inet |= (addr[i].addr_len == 4);
        inet6 |= (addr[i].addr_len == 16);
    }

    p = text;
    last = text + NGX_TUN_ROUTE_WARNING;

    if (inet) {
        ngx_tun_route_netconf(dev, AF_INET, NETCONFA_IFINDEX_ALL, all);
        ngx_tun_route_netconf(dev, AF_INET, (int) dev->index, own);

        /* the greater one counts */

        if (ngx_max(all[0], own[0]) == 1) {
            p = ngx_slprintf(p, last, ", net.ipv4.conf.%V.rp_filter is 1, and "
                             "drops what goes back to those that other rules "
                             "send here, 2 is needed for them",
                             &dev->conf->name);
        }

        if (gateway && all[1] == 0) {
            p = ngx_slprintf(p, last, ", net.ipv4.ip_forward is 0, and "
                             "nothing is forwarded");
        }
    }

    if (inet6 && gateway) {
        ngx_tun_route_netconf(dev, AF_INET6, NETCONFA_IFINDEX_ALL, all);

        if (all[1] == 0) {
            p = ngx_slprintf(p, last, ", net.ipv6.conf.all.forwarding is 0, "
                             "and nothing is forwarded");
        }
    }

    if (p != text) {
        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "tun \"%V\": the system is not set for \"route %s\"%*s",
                      &dev->conf->name, gateway ? "gateway" : "off",
                      (size_t) (p - text), text);
    }
}


static void
ngx_tun_route_netconf(ngx_tun_device_t *dev, int family, int index,
    int *values)
{
    struct netconfmsg      *ncm;
    ngx_tun_netlink_msg_t   msg;

    values[0] = -1;
    values[1] = -1;

    ncm = ngx_tun_netlink_init(&msg, RTM_GETNETCONF, 0,
                               sizeof(struct netconfmsg));
    ncm->ncm_family = (uint8_t) family;

    ngx_tun_netlink_add_u32(&msg, NETCONFA_IFINDEX, (uint32_t) index);

    /* where it cannot be known, nothing is said */

    (void) ngx_tun_netlink_talk(dev->netlink, &msg,
                                ngx_tun_route_netconf_handler, values);
}


static ngx_int_t
ngx_tun_route_netconf_handler(struct nlmsghdr *header, void *data)
{
    int *values = data;

    size_t  size;

    size = sizeof(struct netconfmsg);

    values[0] = (int) ngx_tun_route_u32(header, size, NETCONFA_RP_FILTER,
                                        (uint32_t) -1);
    values[1] = (int) ngx_tun_route_u32(header, size, NETCONFA_FORWARDING,
                                        (uint32_t) -1);

    return NGX_OK;
}
