
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_dns.h>


/* a query is 1000 drops */

#define NGX_TUN_DNS_DROP  1000

#define ngx_tun_dns_bucket(time, level)                                       \
    ((ngx_atomic_uint_t) (uint32_t) (time) << 32 | (uint32_t) (level))


static ngx_tun_dns_limit_client_t *ngx_tun_dns_limit_find(
    ngx_tun_dns_limit_t *limit, ngx_atomic_uint_t client, ngx_msec_t now);
static ngx_int_t ngx_tun_dns_limit_pour(ngx_atomic_t *bucket, ngx_msec_t now,
    uint64_t rate, uint64_t period, uint64_t size);
static ngx_uint_t ngx_tun_dns_limit_dead(ngx_tun_dns_limit_tcp_t *entry);


ngx_atomic_uint_t
ngx_tun_dns_limit_client(ngx_tun_dns_limit_t *limit, u_char *addr,
    size_t addr_len)
{
    return ngx_tun_fakeip_hash(limit->key, addr, ngx_min(addr_len, 8)) | 1;
}


ngx_int_t
ngx_tun_dns_limit_query(ngx_tun_dns_limit_t *limit,
    ngx_tun_dns_limit_conf_t *conf, ngx_atomic_uint_t client, ngx_msec_t now)
{
    ngx_tun_dns_limit_client_t  *lc;

    if (conf->qps == 0) {
        return NGX_OK;
    }

    lc = ngx_tun_dns_limit_find(limit, client, now);

    return ngx_tun_dns_limit_pour(&lc->queries, now, conf->qps, 1000,
                                  ngx_max(conf->burst, 1));
}


ngx_int_t
ngx_tun_dns_limit_name(ngx_tun_dns_limit_t *limit,
    ngx_tun_dns_limit_conf_t *conf, ngx_atomic_uint_t client, ngx_msec_t now)
{
    ngx_tun_dns_limit_client_t  *lc;

    if (conf->names == 0) {
        return NGX_OK;
    }

    lc = ngx_tun_dns_limit_find(limit, client, now);

    return ngx_tun_dns_limit_pour(&lc->names, now, conf->names, 60000,
                                  conf->names);
}


/*
 * Without locks: two that take the same entry at the same moment share it
 * for a while.  The one that was used the longest ago gives way.
 */

static ngx_tun_dns_limit_client_t *
ngx_tun_dns_limit_find(ngx_tun_dns_limit_t *limit, ngx_atomic_uint_t client,
    ngx_msec_t now)
{
    uint32_t                     age, oldest;
    ngx_uint_t                   i;
    ngx_tun_dns_limit_client_t  *lc, *victim;

    lc = &limit->clients[(client >> 32) % (NGX_TUN_DNS_LIMIT_CLIENTS
                                           / NGX_TUN_DNS_LIMIT_WAYS)
                         * NGX_TUN_DNS_LIMIT_WAYS];
    victim = lc;
    oldest = 0;

    for (i = 0; i < NGX_TUN_DNS_LIMIT_WAYS; i++) {

        if (lc[i].client == client) {
            return &lc[i];
        }

        age = (lc[i].client == 0)
              ? (uint32_t) -1
              : (uint32_t) now - (uint32_t) (lc[i].queries >> 32);

        if (age > oldest) {
            oldest = age;
            victim = &lc[i];
        }
    }

    victim->client = client;
    victim->queries = ngx_tun_dns_bucket(now, 0);
    victim->names = ngx_tun_dns_bucket(now, 0);

    return victim;
}


static ngx_int_t
ngx_tun_dns_limit_pour(ngx_atomic_t *bucket, ngx_msec_t now, uint64_t rate,
    uint64_t period, uint64_t size)
{
    int32_t            elapsed;
    uint64_t           level, drained;
    ngx_uint_t         i;
    ngx_atomic_uint_t  old;

    for (i = 0; i < 8; i++) {
        old = *bucket;

        level = (uint32_t) old;
        elapsed = (int32_t) ((uint32_t) now - (uint32_t) (old >> 32));

        /* clocks of workers differ a little; a long time empties it anyway */

        if (elapsed < -1000) {
            elapsed = 0x7fffffff;

        } else if (elapsed < 0) {
            elapsed = 0;
        }

        drained = elapsed * rate * NGX_TUN_DNS_DROP / period;
        level = (level > drained) ? level - drained : 0;

        level += NGX_TUN_DNS_DROP;

        if (level > size * NGX_TUN_DNS_DROP) {
            return NGX_BUSY;
        }

        /* less than a drop is not lost, it drains later */

        if (drained == 0) {
            now = (ngx_msec_t) (old >> 32);
        }

        if (ngx_atomic_cmp_set(bucket, old, ngx_tun_dns_bucket(now, level))) {
            return NGX_OK;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_tun_dns_limit_open(ngx_tun_dns_limit_t *limit,
    ngx_tun_dns_limit_conf_t *conf, ngx_atomic_uint_t client,
    ngx_tun_dns_limit_tcp_t **entry)
{
    ngx_uint_t                i, n, alive;
    ngx_tun_dns_limit_tcp_t  *lt, *mine;

    *entry = NULL;

    if (conf->tcp == 0) {
        return NGX_OK;
    }

    lt = &limit->tcp[(client >> 32) % (NGX_TUN_DNS_LIMIT_TCP
                                       / NGX_TUN_DNS_LIMIT_WAYS)
                     * NGX_TUN_DNS_LIMIT_WAYS];
    mine = NULL;
    n = 0;

    for (i = 0; i < NGX_TUN_DNS_LIMIT_WAYS; i++) {

        if (lt[i].client == client) {
            n += lt[i].n;

            if (lt[i].pid == (ngx_atomic_uint_t) ngx_pid) {
                mine = &lt[i];
            }
        }
    }

    if (n >= conf->tcp || mine == NULL) {

        /* time to look after the dead */

        n = 0;

        for (i = 0; i < NGX_TUN_DNS_LIMIT_WAYS; i++) {
            alive = lt[i].n && !ngx_tun_dns_limit_dead(&lt[i]);

            if (alive && lt[i].client == client) {
                n += lt[i].n;
            }

            if (!alive && mine == NULL
                && ngx_atomic_cmp_set(&lt[i].pid, lt[i].pid, ngx_pid))
            {
                mine = &lt[i];
                mine->client = client;
                mine->n = 0;
            }
        }

        if (n >= conf->tcp) {
            return NGX_BUSY;
        }
    }

    if (mine != NULL) {
        mine->n++;
        *entry = mine;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_tun_dns_limit_dead(ngx_tun_dns_limit_tcp_t *entry)
{
    return kill((ngx_pid_t) entry->pid, 0) == -1 && ngx_errno == ESRCH;
}


void
ngx_tun_dns_limit_close(ngx_tun_dns_limit_tcp_t *entry)
{
    entry->n--;
}
