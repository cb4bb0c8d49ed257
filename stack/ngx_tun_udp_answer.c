
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>
#include <ngx_tun_udp.h>


/* an answer that is routed into the device is back before this */
#define NGX_TUN_UDP_GONE_TIME  1000      /* ms */


static ngx_uint_t ngx_tun_udp_returns(ngx_tun_t *tun, ngx_tun_flow_key_t *key);
static ngx_uint_t ngx_tun_udp_was(ngx_tun_t *tun, ngx_tun_flow_key_t *key);


ngx_uint_t
ngx_tun_udp_is_answer(ngx_tun_t *tun, ngx_tun_flow_key_t *key)
{
    ngx_tun_flow_key_t  asked;

    ngx_tun_flow_reverse(key, &asked);

    if (!ngx_tun_udp_was(tun, &asked)) {
        ngx_tun_udp_source_key(&asked);

        if (!ngx_tun_udp_was(tun, &asked)) {
            return 0;
        }
    }

    /* or it is one that another host has sent of its own accord */

    return ngx_tun_udp_returns(tun, key);
}


/* the routes of another namespace are not to be seen from here */

static ngx_uint_t
ngx_tun_udp_returns(ngx_tun_t *tun, ngx_tun_flow_key_t *key)
{
    ngx_tun_udp_returns_t  *returns;

    if (tun->conf->device.netns.len != 0) {
        return 0;
    }

    returns = &tun->udp.returns;

    if (returns->time != ngx_time()
        || ngx_memcmp(returns->addr, key->dst, 16) != 0)
    {
        returns->time = ngx_time();
        ngx_memcpy(returns->addr, key->dst, 16);

        returns->yes = ngx_tun_guard_returns(key, tun->device->index);
    }

    return returns->yes;
}


static ngx_uint_t
ngx_tun_udp_was(ngx_tun_t *tun, ngx_tun_flow_key_t *key)
{
    uint64_t             hash;
    ngx_tun_udp_gone_t  *gone;

    hash = ngx_tun_flow_hash(&tun->udp.flows, key, 0);

    if (ngx_tun_flow_lookup(&tun->udp.flows, key, hash) != NULL) {
        return 1;
    }

    gone = &tun->udp.gone[hash % NGX_TUN_UDP_GONE];

    return gone->hash == hash
           && ngx_current_msec - gone->time < NGX_TUN_UDP_GONE_TIME;
}


void
ngx_tun_udp_gone(ngx_tun_udp_t *udp)
{
    ngx_tun_udp_gone_t  *gone;

    gone = &udp->tun->udp.gone[udp->flow.hash % NGX_TUN_UDP_GONE];

    gone->hash = udp->flow.hash;
    gone->time = ngx_current_msec;
}
