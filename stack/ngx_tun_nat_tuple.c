
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_nat_slot.h>


#define NGX_TUN_NAT_READY      0x6e61743100000001ull


static uint32_t ngx_tun_nat_hosts(ngx_tun_nat_conf_t *conf);
static size_t ngx_tun_nat_slot_size(size_t addr_len);
static size_t ngx_tun_nat_head_size(void);
static uint32_t ngx_tun_nat_host(ngx_tun_nat_t *nat, u_char *addr);


static uint32_t
ngx_tun_nat_hosts(ngx_tun_nat_conf_t *conf)
{
    ngx_uint_t  bits;

    bits = conf->addr_len * 8 - conf->prefix;

    if (conf->addr_len == 4) {

        /* without the network's own address, and the one for all */

        return (bits < 2) ? 0 : (uint32_t) (((uint64_t) 1 << bits) - 2);
    }

    /* RFC 4291, 2.6.1: the first one is that of its routers */

    bits = ngx_min(bits, 24);

    return ((uint32_t) 1 << bits) - 1;
}


uint64_t
ngx_tun_nat_tuples(ngx_tun_nat_conf_t *conf)
{
    uint32_t    hosts;
    uint64_t    n;
    ngx_uint_t  i;

    hosts = ngx_tun_nat_hosts(conf);

    n = hosts;

    for (i = 0; i < conf->nskip; i++) {
        if (conf->skip[i] >= 1 && conf->skip[i] <= hosts) {
            n--;
        }
    }

    return n * NGX_TUN_NAT_PORTS;
}


static size_t
ngx_tun_nat_slot_size(size_t addr_len)
{
    return sizeof(ngx_tun_nat_slot_t) + addr_len * 2;
}


static size_t
ngx_tun_nat_head_size(void)
{
    return ngx_align(sizeof(ngx_tun_nat_shared_t), 4096);
}


size_t
ngx_tun_nat_size(ngx_tun_nat_conf_t *conf)
{
    return ngx_tun_nat_head_size()
           + conf->slots * ngx_tun_nat_slot_size(conf->addr_len);
}


void
ngx_tun_nat_create(void *memory, ngx_tun_nat_conf_t *conf, u_char *random)
{
    ngx_tun_nat_shared_t  *shared;

    shared = memory;

    shared->conf = *conf;
    shared->tuples = ngx_tun_nat_tuples(conf);

    shared->conf.slots = ngx_min(conf->slots, shared->tuples);

    ngx_memcpy(shared->secret, random, 16);
    ngx_memcpy(&shared->offset, random + 16, 8);

    shared->offset %= shared->tuples;
    shared->opened = 1;
    shared->ready = NGX_TUN_NAT_READY;
}


ngx_uint_t
ngx_tun_nat_fits(void *memory, ngx_tun_nat_conf_t *conf)
{
    ngx_tun_nat_conf_t    *old;
    ngx_tun_nat_shared_t  *shared;

    shared = memory;
    old = &shared->conf;

    return shared->ready == NGX_TUN_NAT_READY
           && old->addr_len == conf->addr_len
           && old->prefix == conf->prefix
           && ngx_memcmp(old->network, conf->network, conf->addr_len) == 0
           && old->nskip == conf->nskip
           && ngx_memcmp(old->skip, conf->skip,
                         conf->nskip * sizeof(uint32_t))
              == 0;
}


void
ngx_tun_nat_attach(ngx_tun_nat_t *nat, void *memory)
{
    ngx_memzero(nat, sizeof(ngx_tun_nat_t));

    nat->shared = memory;
    nat->slots = (u_char *) memory + ngx_tun_nat_head_size();
    nat->addr_len = nat->shared->conf.addr_len;
    nat->slot_size = ngx_tun_nat_slot_size(nat->addr_len);
    nat->nslots = nat->shared->conf.slots;
    nat->hosts = ngx_tun_nat_hosts(&nat->shared->conf);
    nat->used_hosts = (uint32_t) (nat->shared->tuples / NGX_TUN_NAT_PORTS);
    nat->pid = (uint64_t) getpid();

    nat->keyed.secret[0] = nat->shared->secret[0];
    nat->keyed.secret[1] = nat->shared->secret[1];
}


/* 64K slots, as many again, and then always twice as many; 0: no such level */

ngx_uint_t
ngx_tun_nat_level(ngx_tun_nat_t *nat, ngx_uint_t n, ngx_tun_nat_level_t *level)
{
    uint64_t  start, end;

    start = (n == 0) ? 0 : (uint64_t) NGX_TUN_NAT_FIRST << (n - 1);
    end = (uint64_t) NGX_TUN_NAT_FIRST << n;

    if (n >= NGX_TUN_NAT_LEVELS || start >= nat->nslots) {
        return 0;
    }

    level->start = (uint32_t) start;
    level->size = (uint32_t) (ngx_min(end, nat->nslots) - start);

    return 1;
}


uint32_t
ngx_tun_nat_home(ngx_tun_nat_level_t *level, uint64_t hash, ngx_uint_t n)
{
    /* keys that crowd in one level do not in another */

    hash *= 2 * n + 1;
    hash ^= hash >> 32;

    return (uint32_t) ((hash & 0xffffffff) * level->size >> 32);
}


void
ngx_tun_nat_tuple(ngx_tun_nat_t *nat, uint32_t slot, u_char *addr,
    uint16_t *port)
{
    uint32_t             low, host;
    uint64_t             n;
    ngx_uint_t           i;
    ngx_tun_nat_conf_t  *conf;

    conf = &nat->shared->conf;

    n = nat->shared->offset + slot;

    if (n >= nat->shared->tuples) {
        n -= nat->shared->tuples;
    }

    /*
     * Slots beside each other are different hosts: what the kernel learns of
     * one, a path MTU and metrics of TCP, is of few flows then.
     */

    *port = (uint16_t) (1 + n / nat->used_hosts);
    host = (uint32_t) (1 + n % nat->used_hosts);

    for (i = 0; i < conf->nskip && conf->skip[i] <= host; i++) {
        host++;
    }

    ngx_memcpy(addr, conf->network, nat->addr_len);
    ngx_memcpy(&low, addr + nat->addr_len - 4, 4);

    low |= htonl(host);

    ngx_memcpy(addr + nat->addr_len - 4, &low, 4);
}


/* the number of a host in the network, 0 if it is not one of ours */

static uint32_t
ngx_tun_nat_host(ngx_tun_nat_t *nat, u_char *addr)
{
    size_t               len;
    uint32_t             low, network;
    ngx_uint_t           i;
    ngx_tun_nat_conf_t  *conf;

    conf = &nat->shared->conf;
    len = nat->addr_len - 4;

    ngx_memcpy(&low, addr + len, 4);
    ngx_memcpy(&network, conf->network + len, 4);

    /* what is below the network wraps around */

    low = ntohl(low) - ntohl(network);

    if (low > nat->hosts || ngx_memcmp(addr, conf->network, len) != 0) {
        return 0;
    }

    for (i = 0; i < conf->nskip; i++) {
        if (conf->skip[i] == low) {
            return 0;
        }
    }

    return low;
}


ngx_uint_t
ngx_tun_nat_address(ngx_tun_nat_t *nat, u_char *addr)
{
    return ngx_tun_nat_host(nat, addr) != 0;
}


uint32_t
ngx_tun_nat_number(ngx_tun_nat_t *nat, u_char *addr, uint16_t port)
{
    uint32_t             host, before;
    uint64_t             n;
    ngx_uint_t           i;
    ngx_tun_nat_conf_t  *conf;

    host = ngx_tun_nat_host(nat, addr);

    if (host == 0 || port == 0) {
        return NGX_TUN_NAT_NONE;
    }

    conf = &nat->shared->conf;
    before = 0;

    for (i = 0; i < conf->nskip && conf->skip[i] < host; i++) {
        before++;
    }

    n = (uint64_t) (port - 1) * nat->used_hosts + host - 1 - before;
    n += nat->shared->tuples - nat->shared->offset;

    if (n >= nat->shared->tuples) {
        n -= nat->shared->tuples;
    }

    return (n < nat->nslots) ? (uint32_t) n : NGX_TUN_NAT_NONE;
}
