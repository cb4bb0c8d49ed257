
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_fakeip.h>


static ngx_int_t ngx_stream_tun_fakeip_init_memory(
    ngx_stream_tun_fakeip_zone_t *zone, ngx_log_t *log);
static void ngx_stream_tun_fakeip_inherit(ngx_stream_tun_fakeip_zone_t *zone);
static void ngx_stream_tun_fakeip_cleanup(void *data);
static ngx_int_t ngx_stream_tun_fakeip_reserve_sockaddr(ngx_array_t *hosts,
    struct sockaddr *sa);
static ngx_int_t ngx_stream_tun_fakeip_reserve(ngx_array_t *hosts,
    u_char *addr, size_t addr_len);


ngx_int_t
ngx_stream_tun_fakeip_init_zone(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_log_t                     *log;
    ngx_pool_cleanup_t            *cln;
    ngx_stream_tun_fakeip_zone_t  *zone;

    zone = shm_zone->data;
    log = shm_zone->shm.log;

    if (ngx_test_config) {
        return (zone->file.len == 0) ? NGX_OK
                                     : ngx_tun_fakeip_file_test(&zone->file,
                                                                log);
    }

    if (zone->file.len == 0) {
        return ngx_stream_tun_fakeip_init_memory(zone, log);
    }

    cln = ngx_pool_cleanup_add(zone->cycle->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    if (ngx_tun_fakeip_file_open(&zone->fip, &zone->file, zone->memory,
                                 zone->old, log)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    cln->handler = ngx_stream_tun_fakeip_cleanup;
    cln->data = zone;

    ngx_stream_tun_fakeip_inherit(zone);

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_fakeip_init_memory(ngx_stream_tun_fakeip_zone_t *zone,
    ngx_log_t *log)
{
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) zone->shm_zone->shm.addr;

    /* the pool of the cycle before, which had no other prefixes or key */

    if (shpool->data != NULL) {

        if (ngx_tun_fakeip_attach(&zone->fip, shpool->data, zone->memory)
            == NGX_OK)
        {
            return NGX_OK;
        }

        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "fake-IP zone \"%V\" cannot be used further",
                      &zone->name);
        return NGX_ERROR;
    }

    shpool->data = ngx_slab_alloc(shpool, zone->memory);

    if (shpool->data == NULL) {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "fake-IP zone \"%V\" is too small", &zone->name);
        return NGX_ERROR;
    }

#if (NGX_DEBUG_MALLOC)
    ngx_memzero(shpool->data, zone->memory);
#endif

    if (ngx_tun_fakeip_create(&zone->fip, shpool->data, zone->memory)
        != NGX_OK)
    {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "fake-IP zone \"%V\" cannot be made", &zone->name);
        return NGX_ERROR;
    }

    ngx_stream_tun_fakeip_inherit(zone);

    return NGX_OK;
}


static void
ngx_stream_tun_fakeip_inherit(ngx_stream_tun_fakeip_zone_t *zone)
{
    if (zone->old != NULL
        && zone->old->header != NULL
        && zone->old->header != zone->fip.header)
    {
        ngx_tun_fakeip_import(&zone->fip, zone->old);
    }
}


static void
ngx_stream_tun_fakeip_cleanup(void *data)
{
    ngx_stream_tun_fakeip_zone_t *zone = data;

    ngx_tun_fakeip_file_close(&zone->fip);
}


void
ngx_stream_tun_fakeip_commit(ngx_stream_tun_fakeip_zone_t *zone)
{
    ngx_log_t                     *log;
    ngx_uint_t                     i;
    ngx_array_t                    all;
    ngx_tun_fakeip_host_t         *host;
    ngx_stream_tun_fakeip_host_t  *fh;

    log = zone->cycle->log;
    zone->old = NULL;

    ngx_tun_fakeip_file_commit(&zone->fip, log);

    if (ngx_array_init(&all, zone->cycle->pool, 8,
                       sizeof(ngx_tun_fakeip_host_t))
        != NGX_OK
        || ngx_stream_tun_fakeip_reserved(&all, zone->cycle) != NGX_OK)
    {
        return;
    }

    fh = zone->hosts.elts;

    for (i = 0; i < zone->hosts.nelts; i++) {
        host = ngx_array_push(&all);
        if (host == NULL) {
            return;
        }

        *host = fh[i].host;
    }

    if (ngx_tun_fakeip_set_hosts(&zone->fip, all.elts, all.nelts) != NGX_OK) {
        ngx_log_error(NGX_LOG_ALERT, log, 0,
                      "no room for all hosts of the fake-IP zone \"%V\"",
                      &zone->name);
    }
}


ngx_int_t
ngx_stream_tun_fakeip_reserved(ngx_array_t *hosts, ngx_cycle_t *cycle)
{
    ngx_uint_t                    i, k;
    ngx_listening_t              *ls;
    ngx_stream_tun_t            **stp;
    ngx_tun_listen_t             *listen;
    ngx_tun_address_t            *addr;
    ngx_stream_tun_listen_t     **stlp;
    ngx_stream_tun_main_conf_t   *tmcf;

    tmcf = ngx_stream_cycle_get_module_main_conf(cycle, ngx_stream_tun_module);
    stp = tmcf->tuns.elts;

    for (i = 0; i < tmcf->tuns.nelts; i++) {
        addr = stp[i]->conf.device.addresses.elts;

        for (k = 0; k < stp[i]->conf.device.addresses.nelts; k++) {
            if (ngx_stream_tun_fakeip_reserve(hosts, addr[k].addr,
                                              addr[k].addr_len)
                != NGX_OK)
            {
                return NGX_ERROR;
            }
        }

    }

    stlp = tmcf->listens.elts;

    for (i = 0; i < tmcf->listens.nelts; i++) {
        listen = &stlp[i]->listen;

        if (listen->addr_len != 0
            && listen->prefix == listen->addr_len * 8
            && ngx_stream_tun_fakeip_reserve(hosts, listen->addr,
                                             listen->addr_len)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    ls = cycle->listening.elts;

    for (i = 0; i < cycle->listening.nelts; i++) {
        if (ngx_stream_tun_fakeip_reserve_sockaddr(hosts, ls[i].sockaddr)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_fakeip_reserve_sockaddr(ngx_array_t *hosts,
    struct sockaddr *sa)
{
    switch (sa->sa_family) {

#if (NGX_HAVE_INET6)
    case AF_INET6:
        return ngx_stream_tun_fakeip_reserve(hosts,
                   ((struct sockaddr_in6 *) sa)->sin6_addr.s6_addr, 16);
#endif

    case AF_INET:
        return ngx_stream_tun_fakeip_reserve(hosts,
                   (u_char *) &((struct sockaddr_in *) sa)->sin_addr, 4);

    default:
        return NGX_OK;
    }
}


static ngx_int_t
ngx_stream_tun_fakeip_reserve(ngx_array_t *hosts, u_char *addr,
    size_t addr_len)
{
    ngx_tun_fakeip_host_t  *host;

    host = ngx_array_push(hosts);
    if (host == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(host, sizeof(ngx_tun_fakeip_host_t));
    ngx_memcpy(host->addr, addr, addr_len);
    host->addr_len = addr_len;

    return NGX_OK;
}
