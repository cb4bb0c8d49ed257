
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>

#include <sys/random.h>


#define NGX_STREAM_TUN_SYSTEM_PORT    1313
#define NGX_STREAM_TUN_SYSTEM_TUPLES  4194304


static char *ngx_stream_tun_stack_param(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_tun_t *st);
static ngx_int_t ngx_stream_tun_stack_number(ngx_str_t *value, size_t skip,
    uint32_t *n);
static ngx_int_t ngx_stream_tun_stack_listen(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_tun_t *st);
static ngx_int_t ngx_stream_tun_system_family(ngx_conf_t *cf,
    ngx_stream_tun_t *st, ngx_uint_t family);
static void ngx_stream_tun_system_network(ngx_stream_tun_t *st,
    ngx_uint_t family, ngx_tun_address_t *addr);
static ngx_int_t ngx_stream_tun_system_table(ngx_stream_tun_t *st,
    ngx_stream_tun_t *old, ngx_uint_t family, ngx_log_t *log);
static ngx_tun_share_t *ngx_stream_tun_system_create(
    ngx_tun_nat_conf_t *conf, ngx_log_t *log);
static void ngx_stream_tun_system_cleanup(void *data);


char *
ngx_stream_tun_stack(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_t *st = conf;

    char        *rv;
    ngx_str_t   *value;
    ngx_uint_t   i;

    if (st->conf.stack != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "lwip") == 0) {
        st->conf.stack = NGX_TUN_STACK_LWIP;

    } else if (ngx_strcmp(value[1].data, "system") == 0) {
        st->conf.stack = NGX_TUN_STACK_SYSTEM;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {

        rv = (st->conf.stack == NGX_TUN_STACK_SYSTEM)
             ? ngx_stream_tun_stack_param(cf, &value[i], st) : NGX_CONF_ERROR;

        if (rv != NGX_CONF_OK) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\"", &value[i]);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_stream_tun_stack_param(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_tun_t *st)
{
    ngx_int_t               rc;
    ngx_tun_system_conf_t  *sys;

    sys = st->conf.system;

    if (ngx_strncmp(value->data, "listen=", 7) == 0) {
        rc = ngx_stream_tun_stack_listen(cf, value, st);

    } else if (ngx_strncmp(value->data, "tuples=", 7) == 0) {
        rc = ngx_stream_tun_stack_number(value, 7, &sys[0].nat.slots);

    } else if (ngx_strncmp(value->data, "client=", 7) == 0) {
        rc = ngx_stream_tun_stack_number(value, 7, &sys[0].nat.client);

    } else if (ngx_strcmp(value->data, "fallback=lwip") == 0) {
        st->fallback = 1;
        rc = NGX_OK;

    } else {
        rc = NGX_ERROR;
    }

    return (rc == NGX_OK) ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static ngx_int_t
ngx_stream_tun_stack_number(ngx_str_t *value, size_t skip, uint32_t *n)
{
    off_t      size;
    ngx_str_t  s;

    s.data = value->data + skip;
    s.len = value->len - skip;

    size = ngx_parse_offset(&s);

    if (size <= 0 || size >= 0xffffffff || *n != 0) {
        return NGX_ERROR;
    }

    *n = (uint32_t) size;

    return NGX_OK;
}


/* listen=address:port, once for each family */

static ngx_int_t
ngx_stream_tun_stack_listen(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_tun_t *st)
{
    in_port_t               port;
    ngx_addr_t              addr;
    ngx_uint_t              family;
    struct sockaddr        *sa;
    ngx_tun_system_conf_t  *sys;

    if (ngx_parse_addr_port(cf->pool, &addr, value->data + 7, value->len - 7)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    sa = addr.sockaddr;
    family = (sa->sa_family != AF_INET);
    port = ngx_inet_get_port(sa);

    sys = &st->conf.system[family];

    if (port == 0 || sys->port != 0) {
        return NGX_ERROR;
    }

    sys->port = port;

#if (NGX_HAVE_INET6)
    if (family) {
        ngx_memcpy(sys->addr, &((struct sockaddr_in6 *) sa)->sin6_addr, 16);
        return NGX_OK;
    }
#endif

    ngx_memcpy(sys->addr, &((struct sockaddr_in *) sa)->sin_addr, 4);

    return NGX_OK;
}


char *
ngx_stream_tun_system_check(ngx_conf_t *cf, ngx_stream_tun_t *st)
{
    ngx_uint_t              i;
    ngx_tun_system_conf_t  *sys;

    st->stack = st->conf.stack;

    if (st->stack != NGX_TUN_STACK_SYSTEM) {
        return NGX_CONF_OK;
    }

    sys = st->conf.system;

    if (sys[0].nat.slots == 0) {
        sys[0].nat.slots = NGX_STREAM_TUN_SYSTEM_TUPLES;
    }

    if (sys[0].nat.client == 0) {
        sys[0].nat.client = (sys[0].nat.slots + 3) / 4;
    }

    for (i = 0; i < 2; i++) {
        sys[i].nat.slots = sys[0].nat.slots;
        sys[i].nat.client = sys[0].nat.client;
        sys[i].nat.addr_len = i ? 16 : 4;

        if (ngx_stream_tun_system_family(cf, st, i) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


/* the address that the listener has, and the network around it */

static ngx_int_t
ngx_stream_tun_system_family(ngx_conf_t *cf, ngx_stream_tun_t *st,
    ngx_uint_t family)
{
    ngx_uint_t              i, found;
    ngx_tun_address_t      *addr;
    ngx_tun_system_conf_t  *sys;

    sys = &st->conf.system[family];
    addr = st->conf.device.addresses.elts;
    found = 0;

    for (i = 0; i < st->conf.device.addresses.nelts; i++) {

        if (addr[i].addr_len != sys->nat.addr_len
            || (sys->port != 0
                && ngx_memcmp(addr[i].addr, sys->addr, addr[i].addr_len) != 0))
        {
            continue;
        }

        found = 1;

        ngx_stream_tun_system_network(st, family, &addr[i]);

        if (ngx_tun_nat_tuples(&sys->nat) == 0) {
            continue;
        }

        if (sys->nat.nskip > NGX_TUN_NAT_SKIP) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "tun \"%V\" has more than %d addresses in the "
                               "network of \"stack system\"",
                               &st->conf.device.name, NGX_TUN_NAT_SKIP);
            return NGX_ERROR;
        }

        ngx_memcpy(sys->addr, addr[i].addr, addr[i].addr_len);

        if (sys->port == 0) {
            sys->port = NGX_STREAM_TUN_SYSTEM_PORT;
        }

        return NGX_OK;
    }

    if (found) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no IPv%d \"address\" of tun \"%V\" has a network "
                           "that \"stack system\" can use",
                           family ? 6 : 4, &st->conf.device.name);
        return NGX_ERROR;
    }

    if (sys->port != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the listener of \"stack system\" is not at an "
                           "\"address\" of tun \"%V\"",
                           &st->conf.device.name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_stream_tun_system_network(ngx_stream_tun_t *st, ngx_uint_t family,
    ngx_tun_address_t *addr)
{
    size_t               len;
    u_char               mask;
    uint32_t             host, low, skip;
    ngx_uint_t           i, k, bits;
    ngx_tun_address_t   *own;
    ngx_tun_nat_conf_t  *nat;

    nat = &st->conf.system[family].nat;
    len = addr->addr_len;

    nat->prefix = addr->prefix;
    nat->nskip = 0;

    for (i = 0; i < len; i++) {
        bits = (addr->prefix > i * 8) ? addr->prefix - i * 8 : 0;
        mask = (bits >= 8) ? 0xff : (u_char) (0xff00 >> bits);
        nat->network[i] = addr->addr[i] & mask;
    }

    ngx_memcpy(&low, nat->network + len - 4, 4);

    own = st->conf.device.addresses.elts;

    for (i = 0; i < st->conf.device.addresses.nelts; i++) {

        if (own[i].addr_len != len
            || ngx_memcmp(own[i].addr, nat->network, len - 4) != 0)
        {
            continue;
        }

        ngx_memcpy(&host, own[i].addr + len - 4, 4);
        host = ntohl(host) - ntohl(low);

        bits = len * 8 - addr->prefix;

        if (bits < 32 && (host >> bits) != 0) {
            continue;
        }

        if (nat->nskip++ >= NGX_TUN_NAT_SKIP) {
            return;
        }

        for (k = nat->nskip - 1; k > 0 && nat->skip[k - 1] > host; k--) {
            skip = nat->skip[k - 1];
            nat->skip[k] = skip;
        }

        nat->skip[k] = host;
    }
}


ngx_int_t
ngx_stream_tun_init_system(ngx_conf_t *cf, ngx_stream_tun_main_conf_t *tmcf)
{
    ngx_uint_t         i, k;
    ngx_stream_tun_t **stp;

    stp = tmcf->tuns.elts;

    for (i = 0; i < tmcf->tuns.nelts; i++) {

        if (stp[i]->stack != NGX_TUN_STACK_SYSTEM) {
            continue;
        }

        for (k = 0; k < 2; k++) {

            if (stp[i]->conf.system[k].port != 0
                && ngx_stream_tun_listener_add(cf, stp[i], k) != NGX_OK)
            {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_stream_tun_system_reload(ngx_stream_tun_t *st, ngx_stream_tun_t *old,
    ngx_log_t *log)
{
    ngx_str_t  *one, *two;

    if (old == NULL) {
        return NGX_OK;
    }

    one = &st->conf.device.netns;
    two = &old->conf.device.netns;

    if (old->stack != st->stack
        || (st->stack == NGX_TUN_STACK_SYSTEM
            && (one->len != two->len
                || ngx_memcmp(one->data, two->data, one->len) != 0)))
    {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "tun \"%V\": another \"%s\" needs a restart",
                      &st->conf.device.name,
                      (old->stack != st->stack) ? "stack" : "netns");
        return NGX_ERROR;
    }

    st->conf.stack = old->conf.stack;

    return NGX_OK;
}


ngx_int_t
ngx_stream_tun_system_open(ngx_stream_tun_t *st, ngx_stream_tun_t *old,
    ngx_log_t *log)
{
    ngx_uint_t  i;

    if (st->stack != NGX_TUN_STACK_SYSTEM) {
        return NGX_OK;
    }

    for (i = 0; i < 2; i++) {
        if (st->conf.system[i].port != 0
            && ngx_stream_tun_system_table(st, old, i, log) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return ngx_stream_tun_listeners_open(st, log);
}


static ngx_int_t
ngx_stream_tun_system_table(ngx_stream_tun_t *st, ngx_stream_tun_t *old,
    ngx_uint_t family, ngx_log_t *log)
{
    ngx_tun_share_t     *table;
    ngx_pool_cleanup_t  *cln;
    ngx_tun_nat_conf_t  *conf;

    conf = &st->conf.system[family].nat;

    cln = ngx_pool_cleanup_add(st->cycle->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    if (old != NULL && old->tables[family] != NULL
        && old->tables[family]->size >= ngx_tun_nat_size(conf)
        && ngx_tun_nat_fits(old->tables[family]->memory, conf))
    {
        table = old->tables[family];

    } else {
        table = ngx_stream_tun_system_create(conf, log);
        if (table == NULL) {
            return NGX_ERROR;
        }
    }

    table->refs++;

    cln->handler = ngx_stream_tun_system_cleanup;
    cln->data = table;

    st->tables[family] = table;
    st->conf.system[family].memory = table->memory;

    return NGX_OK;
}


static ngx_tun_share_t *
ngx_stream_tun_system_create(ngx_tun_nat_conf_t *conf, ngx_log_t *log)
{
    u_char            random[24];
    ngx_tun_share_t  *table;

    if (getrandom(random, sizeof(random), GRND_NONBLOCK) != sizeof(random)) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno, "getrandom() failed");
        return NULL;
    }

    /* memory is taken for what is used */

    table = ngx_tun_share_create(ngx_tun_nat_size(conf), log);
    if (table == NULL) {
        return NULL;
    }

    ngx_tun_nat_create(table->memory, conf, random);

    return table;
}


static void
ngx_stream_tun_system_cleanup(void *data)
{
    ngx_tun_share_release(data);
}


void
ngx_stream_tun_system_test(ngx_stream_tun_t *st, ngx_log_t *log)
{
    ngx_uint_t  i;

    for (i = 0; i < 2; i++) {

        if (st->conf.system[i].port == 0
            || ngx_tun_system_test(&st->conf, &st->device, i, log) == NGX_OK)
        {
            continue;
        }

        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "tun \"%V\": the kernel does not answer IPv%d "
                      "connections that come out of the device: its firewall "
                      "has to let them in to port %d, and "
                      "net.ipv4.conf.%V.rp_filter to be 0 or 2%s",
                      &st->conf.device.name, i ? 6 : 4,
                      (int) st->conf.system[i].port, &st->conf.device.name,
                      st->fallback ? "; goes on with lwIP" : "");

        if (st->fallback) {
            st->conf.stack = NGX_TUN_STACK_LWIP;
            return;
        }
    }
}


ngx_int_t
ngx_stream_tun_system_start(ngx_stream_tun_t *st, ngx_cycle_t *cycle)
{
    if (st->conf.stack != NGX_TUN_STACK_SYSTEM) {
        return NGX_OK;
    }

    st->system = ngx_palloc(cycle->pool, sizeof(ngx_tun_system_t));
    if (st->system == NULL) {
        return NGX_ERROR;
    }

    ngx_tun_system_init(st->system, &st->conf, &st->stat[ngx_worker]);
    st->system->gauge = st->gauge;
    st->system->owner = &st->owner;

    return NGX_OK;
}
