
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_route_plan.h>

#include <linux/rtnetlink.h>


#define NGX_TUN_ROUTE_METRIC   1024
#define NGX_TUN_ROUTE_LAST     0xffffffff   /* the metric after all others */


/* what follows the number of the table, in the order of the rules */

enum {
    NGX_TUN_ROUTE_PREF_BYPASS = 0,
    NGX_TUN_ROUTE_PREF_MAIN,
    NGX_TUN_ROUTE_PREF_DEVICE,
    NGX_TUN_ROUTE_PREF_OWN,
    NGX_TUN_ROUTE_PREF_CLOSED,
    NGX_TUN_ROUTE_PREF_BOUND,
    NGX_TUN_ROUTE_PREF_TABLE
};


static void ngx_tun_route_want_family(ngx_tun_route_ctx_t *ctx, int family,
    ngx_uint_t addresses);
static void ngx_tun_route_want_bypass(ngx_tun_route_ctx_t *ctx, int family);
static void ngx_tun_route_want_gateway(ngx_tun_route_ctx_t *ctx, int family);
static void ngx_tun_route_want_global(ngx_tun_route_ctx_t *ctx, int family);
static void ngx_tun_route_want_near(ngx_tun_route_ctx_t *ctx);
static void ngx_tun_route_want_bound6(ngx_tun_route_ctx_t *ctx);


ngx_int_t
ngx_tun_route_init(ngx_tun_route_ctx_t *ctx, ngx_tun_device_t *dev,
    ngx_tun_device_conf_t *conf, ngx_pool_t *pool, ngx_log_t *log)
{
    ngx_memzero(ctx, sizeof(ngx_tun_route_ctx_t));

    ctx->dev = dev;
    ctx->conf = conf;
    ctx->pool = pool;
    ctx->log = log;

    if (ngx_array_init(&ctx->rules, pool, 16, sizeof(ngx_tun_route_rule_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_array_init(&ctx->routes, pool, 8,
                          sizeof(ngx_tun_route_entry_t));
}


void
ngx_tun_route_want(ngx_tun_route_ctx_t *ctx)
{
    ngx_uint_t          i, inet, inet6;
    ngx_tun_address_t  *addr;

    if (ctx->conf == NULL
        || ctx->conf->route.mode == NGX_TUN_ROUTE_FAKEIP
        || ctx->conf->route.mode == NGX_TUN_ROUTE_OFF)
    {
        return;
    }

    inet = 0;
    inet6 = 0;
    addr = ctx->conf->addresses.elts;

    for (i = 0; i < ctx->conf->addresses.nelts; i++) {
        if (addr[i].addr_len == 4) {
            inet++;

        } else {
            inet6++;
        }
    }

    ngx_tun_route_want_family(ctx, AF_INET, inet);
    ngx_tun_route_want_family(ctx, AF_INET6, inet6);
}


static void
ngx_tun_route_want_family(ngx_tun_route_ctx_t *ctx, int family,
    ngx_uint_t addresses)
{
    ngx_tun_route_entry_t  *entry;

    if (addresses == 0 && !ctx->conf->route.fail_closed) {
        return;
    }

    if (addresses != 0) {
        entry = ngx_tun_route_entry(ctx, family, RTN_UNICAST,
                                    NGX_TUN_ROUTE_METRIC);
        if (entry == NULL) {
            return;
        }

        entry->oif = (uint32_t) ctx->dev->index;
    }

    if (ctx->conf->route.fail_closed
        && ngx_tun_route_entry(ctx, family, RTN_UNREACHABLE,
                               NGX_TUN_ROUTE_LAST)
           == NULL)
    {
        return;
    }

    ngx_tun_route_want_bypass(ctx, family);

    if (ctx->conf->route.mode == NGX_TUN_ROUTE_GATEWAY) {
        ngx_tun_route_want_gateway(ctx, family);

    } else {
        ngx_tun_route_want_global(ctx, family);
    }
}


static void
ngx_tun_route_want_bypass(ngx_tun_route_ctx_t *ctx, int family)
{
    size_t                  len;
    ngx_uint_t              i;
    ngx_tun_address_t      *addr;
    ngx_tun_route_conf_t   *rcf;
    ngx_tun_route_pair_t   *pair;
    ngx_tun_route_rule_t   *rule;
    ngx_tun_route_entry_t  *entry;

    rcf = &ctx->conf->route;
    len = (family == AF_INET) ? 4 : 16;
    addr = rcf->bypass.elts;

    for (i = 0; i < rcf->bypass.nelts; i++) {

        if (addr[i].addr_len != len) {
            continue;
        }

        entry = ngx_tun_route_entry(ctx, family, RTN_THROW,
                                    NGX_TUN_ROUTE_METRIC);
        if (entry == NULL) {
            return;
        }

        entry->prefix = (uint32_t) addr[i].prefix;
        ngx_memcpy(entry->dst, addr[i].addr, len);

        /* the whole of a family: before the default route */

        if (entry->prefix == 0) {
            entry->metric--;
        }
    }

    pair = rcf->marks.elts;

    for (i = 0; i < rcf->marks.nelts; i++) {
        rule = ngx_tun_route_rule(ctx, family, NGX_TUN_ROUTE_PREF_BYPASS,
                                  RT_TABLE_MAIN, NULL);
        if (rule == NULL) {
            return;
        }

        rule->mark = pair[i];
    }

    pair = rcf->uids.elts;

    for (i = 0; i < rcf->uids.nelts; i++) {
        rule = ngx_tun_route_rule(ctx, family, NGX_TUN_ROUTE_PREF_BYPASS,
                                  RT_TABLE_MAIN, NULL);
        if (rule == NULL) {
            return;
        }

        rule->uid = pair[i];
    }
}


static void
ngx_tun_route_want_gateway(ngx_tun_route_ctx_t *ctx, int family)
{
    ngx_str_t             *name;
    ngx_uint_t             i;
    ngx_tun_route_conf_t  *rcf;
    ngx_tun_route_rule_t  *rule;

    rcf = &ctx->conf->route;
    name = rcf->interfaces.elts;

    for (i = 0; i < rcf->interfaces.nelts; i++) {

        /* all of main but its default route */

        rule = ngx_tun_route_rule(ctx, family, NGX_TUN_ROUTE_PREF_MAIN,
                                  RT_TABLE_MAIN, (char *) name[i].data);
        if (rule == NULL) {
            return;
        }

        rule->suppress = 0;

        (void) ngx_tun_route_rule(ctx, family, NGX_TUN_ROUTE_PREF_TABLE,
                                  rcf->table, (char *) name[i].data);
    }
}


/*
 * A socket that is bound to an address of the machine answers from there, and
 * so does an inbound service: those take the ordinary routes, without a list
 * of addresses to be kept.  IPv4 sees 0.0.0.0 in a socket that is not bound;
 * in IPv6 a rule with a source, however wide, does not match it.
 */

static void
ngx_tun_route_want_global(ngx_tun_route_ctx_t *ctx, int family)
{
    ngx_uint_t             i, table;
    ngx_tun_address_t     *addr;
    ngx_tun_route_rule_t  *rule;

    table = ctx->conf->route.table;
    addr = ctx->conf->addresses.elts;

    rule = ngx_tun_route_rule(ctx, family, NGX_TUN_ROUTE_PREF_MAIN,
                              RT_TABLE_MAIN, NULL);
    if (rule == NULL) {
        return;
    }

    rule->suppress = 0;

    /* what comes out of the device does not go back */

    (void) ngx_tun_route_rule(ctx, family, NGX_TUN_ROUTE_PREF_DEVICE,
                              RT_TABLE_MAIN, (char *) ctx->conf->name.data);

    for (i = 0; i < ctx->conf->addresses.nelts; i++) {

        if ((addr[i].addr_len == 4) != (family == AF_INET)) {
            continue;
        }

        rule = ngx_tun_route_rule(ctx, family, NGX_TUN_ROUTE_PREF_OWN, table,
                                  "lo");
        if (rule == NULL) {
            return;
        }

        rule->prefix = (uint32_t) addr[i].addr_len * 8;
        ngx_memcpy(rule->src, addr[i].addr, addr[i].addr_len);
    }

    if (family == AF_INET) {
        ngx_tun_route_want_near(ctx);

        rule = ngx_tun_route_rule(ctx, family, NGX_TUN_ROUTE_PREF_BOUND,
                                  table, "lo");
        if (rule == NULL) {
            return;
        }

        rule->prefix = 32;

        rule = ngx_tun_route_rule(ctx, family, NGX_TUN_ROUTE_PREF_TABLE,
                                  table, "lo");
        if (rule != NULL) {
            rule->invert = 1;
        }

        return;
    }

    ngx_tun_route_want_bound6(ctx);

    (void) ngx_tun_route_rule(ctx, family, NGX_TUN_ROUTE_PREF_TABLE, table,
                              NULL);
}


/*
 * What no router passes on.  The kernel routes it as anything else in IPv4, and
 * does so by its table "local" and by interfaces in IPv6.
 */

static void
ngx_tun_route_want_near(ngx_tun_route_ctx_t *ctx)
{
    ngx_uint_t              i;
    ngx_tun_route_entry_t  *entry;

    static struct {
        u_char    dst[4];
        uint32_t  prefix;
    } near[] = {
        { { 169, 254, 0, 0 }, 16 },
        { { 224, 0, 0, 0 }, 4 },
        { { 255, 255, 255, 255 }, 32 }
    };

    for (i = 0; i < sizeof(near) / sizeof(near[0]); i++) {
        entry = ngx_tun_route_entry(ctx, AF_INET, RTN_THROW,
                                    NGX_TUN_ROUTE_METRIC);
        if (entry == NULL) {
            return;
        }

        entry->prefix = near[i].prefix;
        ngx_memcpy(entry->dst, near[i].dst, 4);
    }
}


/*
 * A result of "unreachable" is looked up again, with a source, and would find
 * its way out as if it were bound.  So what is bound has to pass the table
 * too, and the route of a device that is there is not taken, by its group.
 */

static void
ngx_tun_route_want_bound6(ngx_tun_route_ctx_t *ctx)
{
    ngx_uint_t             i, closed;
    ngx_tun_route_rule_t  *rule;

    closed = ctx->conf->route.fail_closed;

    if (closed && !ngx_tun_route_grouped(ctx->conf)) {
        return;
    }

    for (i = 0; i < 2; i++) {

        if (closed) {
            rule = ngx_tun_route_rule(ctx, AF_INET6,
                                      NGX_TUN_ROUTE_PREF_CLOSED,
                                      ctx->conf->route.table, "lo");
            if (rule == NULL) {
                return;
            }

            rule->group = NGX_TUN_ROUTE_GROUP;
            rule->prefix = 1;
            rule->src[0] = i ? 0x80 : 0;
        }

        rule = ngx_tun_route_rule(ctx, AF_INET6, NGX_TUN_ROUTE_PREF_BOUND,
                                  RT_TABLE_MAIN, "lo");
        if (rule == NULL) {
            return;
        }

        rule->prefix = 1;
        rule->src[0] = i ? 0x80 : 0;
    }
}


ngx_uint_t
ngx_tun_route_grouped(ngx_tun_device_conf_t *conf)
{
    ngx_uint_t          i;
    ngx_tun_address_t  *addr;

    if (conf->route.mode != NGX_TUN_ROUTE_GLOBAL || !conf->route.fail_closed) {
        return 0;
    }

    addr = conf->addresses.elts;

    for (i = 0; i < conf->addresses.nelts; i++) {
        if (addr[i].addr_len == 16) {
            return 1;
        }
    }

    return 0;
}


ngx_tun_route_rule_t *
ngx_tun_route_rule(ngx_tun_route_ctx_t *ctx, int family,
    ngx_uint_t preference, ngx_uint_t table, char *iif)
{
    ngx_tun_route_rule_t  *rule;

    rule = ngx_array_push(&ctx->rules);
    if (rule == NULL) {
        ctx->failed = 1;
        return NULL;
    }

    ngx_memzero(rule, sizeof(ngx_tun_route_rule_t));

    rule->family = family;
    rule->preference = (uint32_t) (ctx->conf->route.table + preference);
    rule->table = (uint32_t) table;
    rule->suppress = (uint32_t) -1;
    rule->group = (uint32_t) -1;
    rule->uid.first = NGX_TUN_ROUTE_NO_UID;

    if (iif != NULL) {
        (void) ngx_cpystrn(rule->iif, (u_char *) iif, IFNAMSIZ);
    }

    return rule;
}


ngx_tun_route_entry_t *
ngx_tun_route_entry(ngx_tun_route_ctx_t *ctx, int family, ngx_uint_t type,
    ngx_uint_t metric)
{
    ngx_tun_route_entry_t  *entry;

    entry = ngx_array_push(&ctx->routes);
    if (entry == NULL) {
        ctx->failed = 1;
        return NULL;
    }

    ngx_memzero(entry, sizeof(ngx_tun_route_entry_t));

    entry->family = family;
    entry->type = (uint32_t) type;
    entry->metric = (uint32_t) metric;

    return entry;
}
