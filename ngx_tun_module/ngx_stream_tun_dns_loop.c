
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_dns.h>
#include <ngx_stream_tun_upstream.h>


static ngx_int_t ngx_stream_tun_dns_check_server(ngx_cycle_t *cycle,
    ngx_stream_tun_dns_srv_conf_t *dscf);
static const char *ngx_stream_tun_dns_check_addr(ngx_cycle_t *cycle,
    ngx_stream_tun_dns_zone_t *zone, ngx_addr_t *addr);
static ngx_uint_t ngx_stream_tun_dns_in_zone(ngx_tun_fakeip_t *fip,
    u_char *addr, size_t addr_len);
static ngx_uint_t ngx_stream_tun_dns_is_own(ngx_listening_t *ls,
    u_char *addr, size_t addr_len);


/* a resolver that is behind this server would ask it for ever */

ngx_int_t
ngx_stream_tun_dns_check_loops(ngx_cycle_t *cycle,
    ngx_stream_tun_dns_zone_t *zone)
{
    ngx_uint_t                       i;
    ngx_stream_core_srv_conf_t     **cscfp;
    ngx_stream_core_main_conf_t     *cmcf;
    ngx_stream_tun_dns_srv_conf_t   *dscf;

    cmcf = ngx_stream_cycle_get_module_main_conf(cycle,
                                                 ngx_stream_core_module);
    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        dscf = cscfp[i]->ctx->srv_conf[ngx_stream_tun_dns_module.ctx_index];

        if (dscf->zone == zone && dscf->upstream != NULL
            && ngx_stream_tun_dns_check_server(cycle, dscf) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_dns_check_server(ngx_cycle_t *cycle,
    ngx_stream_tun_dns_srv_conf_t *dscf)
{
    ngx_uint_t                       i, n;
    const char                      *what;
    ngx_stream_upstream_server_t    *us;
    ngx_stream_tun_upstream_conf_t  *tucf;

    tucf = ngx_stream_tun_dns_upstream_conf(dscf);

    if (tucf != NULL && (tucf->handshake != NULL || tucf->direct != NULL)) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "the upstream of \"tun_dns_pass\" in %s:%ui has "
                      "\"%s\", which is not for it", dscf->file, dscf->line,
                      (tucf->direct != NULL) ? "tun_direct"
                                             : "tun_handshake");
        return NGX_ERROR;
    }

    if (dscf->upstream->servers == NULL) {
        return NGX_OK;
    }

    us = dscf->upstream->servers->elts;

    for (i = 0; i < dscf->upstream->servers->nelts; i++) {

        for (n = 0; n < us[i].naddrs; n++) {
            what = ngx_stream_tun_dns_check_addr(cycle, dscf->zone,
                                                 &us[i].addrs[n]);
            if (what == NULL) {
                continue;
            }

            ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                          "resolver %V of \"tun_dns_pass\" in %s:%ui %s",
                          &us[i].addrs[n].name, dscf->file, dscf->line, what);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static const char *
ngx_stream_tun_dns_check_addr(ngx_cycle_t *cycle,
    ngx_stream_tun_dns_zone_t *zone, ngx_addr_t *addr)
{
    size_t            len;
    u_char           *p;
    ngx_uint_t        i;
    ngx_listening_t  *ls;

    p = ngx_tun_dns_address(addr->sockaddr, &len);

    if (p == NULL) {
        return NULL;
    }

    if (ngx_stream_tun_dns_in_zone(zone->fip, p, len)) {
        return "is an address of the fake-IP zone";
    }

    ls = cycle->listening.elts;

    for (i = 0; i < cycle->listening.nelts; i++) {

        if (ls[i].handler == ngx_stream_init_connection
            && ls[i].sockaddr->sa_family == addr->sockaddr->sa_family
            && ngx_inet_get_port(ls[i].sockaddr)
               == ngx_inet_get_port(addr->sockaddr)
            && ngx_stream_tun_dns_is_own(&ls[i], p, len))
        {
            return "is this server itself";
        }
    }

    return NULL;
}


static ngx_uint_t
ngx_stream_tun_dns_in_zone(ngx_tun_fakeip_t *fip, u_char *addr,
    size_t addr_len)
{
    ngx_uint_t            i;
    ngx_tun_dns_prefix_t  prefix;

    for (i = 0; i < 2; i++) {
        prefix.addr_len = fip->conf.prefix[i].addr_len;
        prefix.bits = fip->conf.prefix[i].prefix;
        ngx_memcpy(prefix.addr, fip->conf.prefix[i].addr, 16);

        if (prefix.addr_len != 0
            && ngx_tun_dns_match(&prefix, 1, addr, addr_len))
        {
            return 1;
        }
    }

    return 0;
}


/* one of any address has that of the machine, which is not known here */

static ngx_uint_t
ngx_stream_tun_dns_is_own(ngx_listening_t *ls, u_char *addr, size_t addr_len)
{
    u_char                          *own;
    size_t                           len, size;
    ngx_uint_t                       i, any;
    ngx_stream_port_t               *port;
    ngx_stream_addr_conf_t          *addr_conf;
    ngx_stream_conf_ctx_t           *ctx;
    ngx_stream_tun_dns_srv_conf_t   *dscf;

    static const u_char  zero[16];

    port = ls->servers;
    len = (ls->sockaddr->sa_family == AF_INET) ? 4 : 16;

    size = (len == 4) ? sizeof(ngx_stream_in_addr_t)
                      : sizeof(ngx_stream_in6_addr_t);

    for (i = 0; i < port->naddrs; i++) {
        own = (u_char *) port->addrs + i * size;

        addr_conf = (len == 4) ? &((ngx_stream_in_addr_t *) own)->conf
                               : &((ngx_stream_in6_addr_t *) own)->conf;

        any = (ngx_memcmp(own, zero, len) == 0);

        if (len != addr_len
            || (any ? !ngx_tun_dns_is_loopback(addr, addr_len)
                    : ngx_memcmp(own, addr, len) != 0))
        {
            continue;
        }

        ctx = ngx_stream_tun_dns_conf_ctx(addr_conf);
        dscf = ctx->srv_conf[ngx_stream_tun_dns_module.ctx_index];

        if (dscf->zone != NULL) {
            return 1;
        }
    }

    return 0;
}
