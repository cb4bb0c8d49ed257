
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_nat_slot.h>

#include <sched.h>


#define NGX_TUN_NAT_DOMAIN     0x636c69656e74ull

#define NGX_TUN_NAT_SPINS      512       /* for the lock, then a yield */
#define NGX_TUN_NAT_YIELDS     64
#define NGX_TUN_NAT_BATCH      4096      /* slots swept with the lock held */
#define NGX_TUN_NAT_BEHIND     4         /* seconds swept at once, at most */


static ngx_int_t ngx_tun_nat_lock(ngx_tun_nat_t *nat);
static void ngx_tun_nat_unlock(ngx_tun_nat_t *nat);
static ngx_int_t ngx_tun_nat_insert_locked(ngx_tun_nat_t *nat,
    ngx_tun_flow_key_t *key, uint64_t hash, uint32_t isn, uint32_t now,
    ngx_tun_nat_entry_t *entry);
static ngx_int_t ngx_tun_nat_again(ngx_tun_nat_t *nat, uint32_t n,
    uint64_t word, uint32_t isn, uint32_t now, ngx_tun_nat_entry_t *entry);
static uint32_t ngx_tun_nat_place(ngx_tun_nat_t *nat, uint64_t hash,
    uint32_t now, uint64_t *word);
static uint32_t ngx_tun_nat_place_level(ngx_tun_nat_t *nat, ngx_uint_t level,
    uint64_t hash, uint32_t now, uint64_t *word);
static uint32_t ngx_tun_nat_evict(ngx_tun_nat_t *nat, uint64_t hash,
    uint32_t now, uint64_t *word);
static ngx_int_t ngx_tun_nat_take(ngx_tun_nat_t *nat, uint32_t n,
    uint64_t word, ngx_tun_flow_key_t *key, uint32_t isn, uint32_t now);
static uint32_t *ngx_tun_nat_client(ngx_tun_nat_t *nat,
    ngx_tun_flow_key_t *key);
static void ngx_tun_nat_forget(ngx_tun_nat_t *nat, ngx_tun_nat_slot_t *slot);
static void ngx_tun_nat_sweep_batch(ngx_tun_nat_t *nat, uint32_t count,
    uint32_t now);
static void ngx_tun_nat_sweep_slot(ngx_tun_nat_t *nat, uint32_t n,
    ngx_uint_t k, ngx_tun_nat_level_t *level, uint32_t now);


static ngx_int_t
ngx_tun_nat_lock(ngx_tun_nat_t *nat)
{
    uint64_t     owner, *lock;
    ngx_uint_t   i, k;

    lock = &nat->shared->lock;

    for (i = 0; i < NGX_TUN_NAT_YIELDS; i++) {

        for (k = 0; k < NGX_TUN_NAT_SPINS; k++) {

            owner = ngx_tun_nat_load(lock);

            if (owner == 0 && ngx_tun_nat_cas(lock, &owner, nat->pid)) {
                return NGX_OK;
            }

            ngx_cpu_pause();
        }

        /* one that was killed left the table right, and the lock */

        if (owner != 0 && kill((pid_t) owner, 0) == -1
            && ngx_errno == NGX_ESRCH
            && ngx_tun_nat_cas(lock, &owner, nat->pid))
        {
            return NGX_OK;
        }

        (void) sched_yield();
    }

    return NGX_BUSY;
}


static void
ngx_tun_nat_unlock(ngx_tun_nat_t *nat)
{
    ngx_tun_nat_store(&nat->shared->lock, 0);
}


ngx_int_t
ngx_tun_nat_insert(ngx_tun_nat_t *nat, ngx_tun_flow_key_t *key, uint32_t isn,
    uint32_t now, ngx_tun_nat_entry_t *entry)
{
    uint64_t    hash;
    ngx_int_t   rc;

    hash = ngx_tun_flow_hash(&nat->keyed, key, 0);

    if (ngx_tun_nat_lock(nat) != NGX_OK) {
        return NGX_BUSY;
    }

    /* who touches a slot in the meantime changes what is best */

    do {
        rc = ngx_tun_nat_insert_locked(nat, key, hash, isn, now, entry);
    } while (rc == NGX_AGAIN);

    ngx_tun_nat_unlock(nat);

    return rc;
}


static ngx_int_t
ngx_tun_nat_insert_locked(ngx_tun_nat_t *nat, ngx_tun_flow_key_t *key,
    uint64_t hash, uint32_t isn, uint32_t now, ngx_tun_nat_entry_t *entry)
{
    uint32_t     n, old_isn;
    uint64_t     word;
    ngx_uint_t   evict;

    entry->key = *key;

    n = ngx_tun_nat_find(nat, key, hash, &word);

    if (n != NGX_TUN_NAT_NONE) {
        return ngx_tun_nat_again(nat, n, word, isn, now, entry);
    }

    if (ngx_tun_nat_load(ngx_tun_nat_client(nat, key))
        >= nat->shared->conf.client)
    {
        return NGX_DECLINED;
    }

    n = ngx_tun_nat_place(nat, hash, now, &word);
    evict = 0;

    if (n == NGX_TUN_NAT_NONE) {
        n = ngx_tun_nat_evict(nat, hash, now, &word);
        evict = 1;
    }

    if (n == NGX_TUN_NAT_NONE) {
        return NGX_ERROR;
    }

    old_isn = ngx_tun_nat_slot(nat, n)->isn;

    if (ngx_tun_nat_take(nat, n, word, key, isn, now) != NGX_OK) {
        return NGX_AGAIN;
    }

    ngx_tun_nat_entry(nat, n, ngx_tun_nat_slot(nat, n)->word, entry);

    entry->evicted = evict;
    entry->isn = old_isn;

    return NGX_OK;
}


/* another SYN of the same client, port and destination */

static ngx_int_t
ngx_tun_nat_again(ngx_tun_nat_t *nat, uint32_t n, uint64_t word, uint32_t isn,
    uint32_t now, ngx_tun_nat_entry_t *entry)
{
    uint64_t             new;
    uint32_t             generation, *client;
    ngx_uint_t           flags;
    ngx_tun_nat_slot_t  *slot;

    slot = ngx_tun_nat_slot(nat, n);
    flags = ngx_tun_nat_flags(word);

    if (ngx_tun_nat_state(word) == NGX_TUN_NAT_USED
        && (flags & NGX_TUN_NAT_ACCEPTED)
        && !(flags & (NGX_TUN_NAT_CLOSED|NGX_TUN_NAT_RST_L)))
    {
        if (ngx_tun_nat_touch(slot, &word, 0, 0, now) != NGX_OK) {
            return NGX_AGAIN;
        }

        ngx_tun_nat_entry(nat, n, word, entry);

        return NGX_DONE;
    }

    /* the kernel decides about what it may have, but a session that was ends */

    generation = ngx_tun_nat_generation(word) + 1;
    new = ngx_tun_nat_word(generation, NGX_TUN_NAT_USED, 0, now);

    client = (ngx_tun_nat_state(word) == NGX_TUN_NAT_OLD)
             ? ngx_tun_nat_client(nat, &entry->key) : NULL;

    if (client != NULL && *client >= nat->shared->conf.client) {
        return NGX_DECLINED;
    }

    if (!ngx_tun_nat_cas(&slot->word, &word, new)) {
        return NGX_AGAIN;
    }

    if (client != NULL) {
        ngx_tun_nat_store(client, *client + 1);
    }

    slot->isn = isn;

    ngx_tun_nat_entry(nat, n, new, entry);

    return NGX_OK;
}


static uint32_t
ngx_tun_nat_place(ngx_tun_nat_t *nat, uint64_t hash, uint32_t now,
    uint64_t *word)
{
    uint32_t               n, opened;
    ngx_uint_t             k, full;
    ngx_tun_nat_level_t    level;
    ngx_tun_nat_shared_t  *shared;

    shared = nat->shared;
    opened = shared->opened;

    for (full = 0; full < 2; full++) {

        for (k = 0; k < opened; k++) {

            (void) ngx_tun_nat_level(nat, k, &level);

            if (!full && shared->used[k] >= (uint64_t) level.size
                                            * NGX_TUN_NAT_LOAD / 100)
            {
                continue;
            }

            n = ngx_tun_nat_place_level(nat, k, hash, now, word);

            if (n != NGX_TUN_NAT_NONE) {
                return n;
            }
        }

        if (!full && ngx_tun_nat_level(nat, opened, &level)) {
            ngx_tun_nat_store(&shared->opened, opened + 1);
            return ngx_tun_nat_place_level(nat, opened, hash, now, word);
        }
    }

    return NGX_TUN_NAT_NONE;
}


/* the first slot from the key's home that nobody needs */

static uint32_t
ngx_tun_nat_place_level(ngx_tun_nat_t *nat, ngx_uint_t k, uint64_t hash,
    uint32_t now, uint64_t *word)
{
    uint32_t              i, n;
    uint64_t              w;
    ngx_tun_nat_level_t   level;

    (void) ngx_tun_nat_level(nat, k, &level);

    n = ngx_tun_nat_home(&level, hash, k);

    for (i = 0; i < ngx_min(NGX_TUN_NAT_WINDOW, level.size); i++, n++) {

        if (n == level.size) {
            n = 0;
        }

        w = ngx_tun_nat_load(&ngx_tun_nat_slot(nat, level.start + n)->word);

        /* with the lock held one that is FILLING was left by the dead */

        if (ngx_tun_nat_state(w) != NGX_TUN_NAT_USED
            || ngx_tun_nat_expired(w, now))
        {
            *word = w;
            return level.start + n;
        }
    }

    return NGX_TUN_NAT_NONE;
}


/* the oldest SYN without a session: of a flood more likely than not */

static uint32_t
ngx_tun_nat_evict(ngx_tun_nat_t *nat, uint64_t hash, uint32_t now,
    uint64_t *word)
{
    int32_t               age, oldest;
    uint32_t              i, n, found;
    uint64_t              w;
    ngx_uint_t            k;
    ngx_tun_nat_level_t   level;

    found = NGX_TUN_NAT_NONE;
    oldest = NGX_TUN_NAT_EVICT - 1;

    for (k = 0; k < nat->shared->opened; k++) {

        (void) ngx_tun_nat_level(nat, k, &level);

        n = ngx_tun_nat_home(&level, hash, k);

        for (i = 0; i < ngx_min(NGX_TUN_NAT_WINDOW, level.size); i++, n++) {

            if (n == level.size) {
                n = 0;
            }

            w = ngx_tun_nat_load(&ngx_tun_nat_slot(nat, level.start + n)->word);

            age = (int32_t) (now - ngx_tun_nat_seen(w));

            if (age > oldest && !(ngx_tun_nat_flags(w) & NGX_TUN_NAT_ACCEPTED))
            {
                oldest = age;
                found = level.start + n;
                *word = w;
            }
        }
    }

    return found;
}


static ngx_int_t
ngx_tun_nat_take(ngx_tun_nat_t *nat, uint32_t n, uint64_t word,
    ngx_tun_flow_key_t *key, uint32_t isn, uint32_t now)
{
    uint32_t             generation, *client;
    uint64_t             filling;
    ngx_uint_t           level;
    ngx_tun_nat_slot_t  *slot;

    slot = ngx_tun_nat_slot(nat, n);

    generation = ngx_tun_nat_generation(word) + 1;
    filling = ngx_tun_nat_word(generation, NGX_TUN_NAT_FILLING, 0, now);

    if (!ngx_tun_nat_cas(&slot->word, &word, filling)) {
        return NGX_DECLINED;
    }

    /* nobody may see the key change before the word */

    __atomic_thread_fence(__ATOMIC_SEQ_CST);

    if (ngx_tun_nat_state(word) == NGX_TUN_NAT_USED) {
        ngx_tun_nat_forget(nat, slot);
    }

    if (ngx_tun_nat_state(word) == NGX_TUN_NAT_FREE) {

        for (level = 0; n >= (uint64_t) NGX_TUN_NAT_FIRST << level; level++) {
            /* void */
        }

        nat->shared->used[level]++;
    }

    slot->src_port = key->src_port;
    slot->dst_port = key->dst_port;
    slot->isn = isn;

    ngx_memcpy(slot->addr, key->src, nat->addr_len);
    ngx_memcpy(slot->addr + nat->addr_len, key->dst, nat->addr_len);

    client = ngx_tun_nat_client(nat, key);
    ngx_tun_nat_store(client, *client + 1);

    ngx_tun_nat_store(&slot->word,
                      ngx_tun_nat_word(generation, NGX_TUN_NAT_USED, 0, now));

    return NGX_OK;
}


/* of an IPv4 address, or an IPv6 /64; it may be shared, which does no harm */

static uint32_t *
ngx_tun_nat_client(ngx_tun_nat_t *nat, ngx_tun_flow_key_t *key)
{
    uint64_t            hash;
    ngx_tun_flow_key_t  source;

    ngx_memzero(&source, sizeof(ngx_tun_flow_key_t));
    ngx_memcpy(source.src, key->src, ngx_min(nat->addr_len, 8));

    hash = ngx_tun_flow_hash(&nat->keyed, &source, NGX_TUN_NAT_DOMAIN);

    return &nat->shared->clients[hash & (NGX_TUN_NAT_CLIENTS - 1)];
}


/* a slot is no more its client's */

static void
ngx_tun_nat_forget(ngx_tun_nat_t *nat, ngx_tun_nat_slot_t *slot)
{
    uint32_t            *client;
    ngx_tun_flow_key_t   key;

    ngx_tun_nat_key(nat, slot, &key);

    client = ngx_tun_nat_client(nat, &key);

    /* a process that died in between may have left it too low */

    if (*client != 0) {
        ngx_tun_nat_store(client, *client - 1);
    }
}


void
ngx_tun_nat_sweep(ngx_tun_nat_t *nat, uint32_t now)
{
    uint32_t               n, total, swept;
    int32_t                seconds;
    ngx_tun_nat_level_t    level;
    ngx_tun_nat_shared_t  *shared;

    shared = nat->shared;

    swept = ngx_tun_nat_load(&shared->swept);
    seconds = (int32_t) (now - swept);

    if (seconds == 0 || !ngx_tun_nat_cas(&shared->swept, &swept, now)) {
        return;
    }

    if (seconds < 0 || seconds > NGX_TUN_NAT_BEHIND) {
        seconds = NGX_TUN_NAT_BEHIND;
    }

    (void) ngx_tun_nat_level(nat, shared->opened - 1, &level);

    total = (level.start + level.size) / 64 + 1;
    total *= seconds;

    while (total != 0) {
        n = ngx_min(total, NGX_TUN_NAT_BATCH);

        if (ngx_tun_nat_lock(nat) != NGX_OK) {
            return;
        }

        ngx_tun_nat_sweep_batch(nat, n, now);

        ngx_tun_nat_unlock(nat);

        total -= n;
    }
}


/* downwards, as a slot before a free one may be freed itself */

static void
ngx_tun_nat_sweep_batch(ngx_tun_nat_t *nat, uint32_t count, uint32_t now)
{
    uint32_t               n;
    ngx_uint_t             k;
    ngx_tun_nat_level_t    level;
    ngx_tun_nat_shared_t  *shared;

    shared = nat->shared;

    n = shared->cursor;
    k = shared->opened - 1;

    (void) ngx_tun_nat_level(nat, k, &level);

    while (count-- != 0) {

        if (n == 0) {
            k = shared->opened - 1;
            (void) ngx_tun_nat_level(nat, k, &level);

            n = level.start + level.size;
        }

        n--;

        while (n < level.start) {
            (void) ngx_tun_nat_level(nat, --k, &level);
        }

        ngx_tun_nat_sweep_slot(nat, n, k, &level, now);
    }

    shared->cursor = n;
}


static void
ngx_tun_nat_sweep_slot(ngx_tun_nat_t *nat, uint32_t n, ngx_uint_t k,
    ngx_tun_nat_level_t *level, uint32_t now)
{
    uint32_t             next;
    uint64_t             word, old;
    ngx_tun_nat_slot_t  *slot;

    slot = ngx_tun_nat_slot(nat, n);

    word = ngx_tun_nat_load(&slot->word);

    if (ngx_tun_nat_state(word) == NGX_TUN_NAT_FREE) {
        return;
    }

    if (ngx_tun_nat_state(word) == NGX_TUN_NAT_USED) {

        if (!ngx_tun_nat_expired(word, now)) {
            return;
        }

        old = ngx_tun_nat_word(ngx_tun_nat_generation(word), NGX_TUN_NAT_OLD,
                               ngx_tun_nat_flags(word),
                               ngx_tun_nat_seen(word));

        if (!ngx_tun_nat_cas(&slot->word, &word, old)) {
            return;
        }

        ngx_tun_nat_forget(nat, slot);
        word = old;
    }

    next = (n == level->start + level->size - 1) ? level->start : n + 1;

    if (ngx_tun_nat_state(ngx_tun_nat_slot(nat, next)->word)
        != NGX_TUN_NAT_FREE)
    {
        return;
    }

    /* the generation stays, for those that are reading the key */

    ngx_tun_nat_store(&slot->word,
                      ngx_tun_nat_word(ngx_tun_nat_generation(word),
                                       NGX_TUN_NAT_FREE, 0, 0));

    if (nat->shared->used[k] != 0) {
        nat->shared->used[k]--;
    }
}
