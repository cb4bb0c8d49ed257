
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_nat_slot.h>


static ngx_uint_t ngx_tun_nat_equal(ngx_tun_nat_t *nat,
    ngx_tun_nat_slot_t *slot, ngx_tun_flow_key_t *key);
static ngx_int_t ngx_tun_nat_read(ngx_tun_nat_t *nat, uint32_t n,
    ngx_uint_t set, ngx_uint_t clear, uint32_t now,
    ngx_tun_nat_entry_t *entry);


static ngx_uint_t
ngx_tun_nat_equal(ngx_tun_nat_t *nat, ngx_tun_nat_slot_t *slot,
    ngx_tun_flow_key_t *key)
{
    return slot->src_port == key->src_port && slot->dst_port == key->dst_port
           && ngx_memcmp(slot->addr, key->src, nat->addr_len) == 0
           && ngx_memcmp(slot->addr + nat->addr_len, key->dst, nat->addr_len)
              == 0;
}


void
ngx_tun_nat_key(ngx_tun_nat_t *nat, ngx_tun_nat_slot_t *slot,
    ngx_tun_flow_key_t *key)
{
    ngx_memzero(key, sizeof(ngx_tun_flow_key_t));

    ngx_memcpy(key->src, slot->addr, nat->addr_len);
    ngx_memcpy(key->dst, slot->addr + nat->addr_len, nat->addr_len);

    key->src_port = slot->src_port;
    key->dst_port = slot->dst_port;
    key->protocol = IPPROTO_TCP;
    key->addr_len = (uint16_t) nat->addr_len;
}


/* the slot that has the key, used or old, and its word */

uint32_t
ngx_tun_nat_find(ngx_tun_nat_t *nat, ngx_tun_flow_key_t *key, uint64_t hash,
    uint64_t *word)
{
    uint32_t              i, n;
    uint64_t              w;
    ngx_uint_t            k;
    ngx_tun_nat_slot_t   *slot;
    ngx_tun_nat_level_t   level;

    /* the last level has most of them */

    for (k = ngx_tun_nat_load(&nat->shared->opened); k-- > 0; /* void */ ) {

        (void) ngx_tun_nat_level(nat, k, &level);

        n = ngx_tun_nat_home(&level, hash, k);

        for (i = 0; i < ngx_min(NGX_TUN_NAT_WINDOW, level.size); i++, n++) {

            if (n == level.size) {
                n = 0;
            }

            slot = ngx_tun_nat_slot(nat, level.start + n);

            w = ngx_tun_nat_load(&slot->word);

            if (ngx_tun_nat_state(w) == NGX_TUN_NAT_FREE) {
                break;
            }

            if (ngx_tun_nat_state(w) != NGX_TUN_NAT_FILLING
                && ngx_tun_nat_equal(nat, slot, key))
            {
                *word = w;
                return level.start + n;
            }
        }
    }

    return NGX_TUN_NAT_NONE;
}


/*
 * A packet has passed.  NGX_DECLINED when the slot is no more what it was:
 * nobody can have got it after NGX_OK, before its time is over again.
 */

ngx_int_t
ngx_tun_nat_touch(ngx_tun_nat_slot_t *slot, uint64_t *word, ngx_uint_t set,
    ngx_uint_t clear, uint32_t now)
{
    uint64_t    old, new;
    ngx_uint_t  flags;

    __atomic_thread_fence(__ATOMIC_ACQUIRE);

    old = *word;

    for ( ;; ) {
        flags = (ngx_tun_nat_flags(old) | set) & ~clear;

        new = ngx_tun_nat_word(ngx_tun_nat_generation(old), NGX_TUN_NAT_USED,
                               flags, now);

        if (new == old
            ? ngx_tun_nat_load(&slot->word) == old
            : ngx_tun_nat_cas(&slot->word, &old, new))
        {
            *word = new;
            return NGX_OK;
        }

        old = ngx_tun_nat_load(&slot->word);

        if (ngx_tun_nat_generation(old) != ngx_tun_nat_generation(*word)
            || ngx_tun_nat_state(old) != NGX_TUN_NAT_USED)
        {
            return NGX_DECLINED;
        }
    }
}


ngx_int_t
ngx_tun_nat_lookup(ngx_tun_nat_t *nat, ngx_tun_flow_key_t *key,
    ngx_uint_t flags, uint32_t now, ngx_tun_nat_entry_t *entry)
{
    uint32_t             n;
    uint64_t             hash, word;
    ngx_tun_nat_slot_t  *slot;

    hash = ngx_tun_flow_hash(&nat->keyed, key, 0);

    do {
        n = ngx_tun_nat_find(nat, key, hash, &word);

        if (n == NGX_TUN_NAT_NONE
            || ngx_tun_nat_state(word) != NGX_TUN_NAT_USED)
        {
            return NGX_DECLINED;
        }

        slot = ngx_tun_nat_slot(nat, n);

    } while (ngx_tun_nat_touch(slot, &word, flags, 0, now) != NGX_OK);

    entry->key = *key;

    ngx_tun_nat_entry(nat, n, word, entry);

    return NGX_OK;
}


ngx_int_t
ngx_tun_nat_reverse(ngx_tun_nat_t *nat, u_char *addr, uint16_t port,
    ngx_uint_t flags, uint32_t now, ngx_tun_nat_entry_t *entry)
{
    uint32_t    n;
    ngx_uint_t  clear;

    n = ngx_tun_nat_number(nat, addr, port);

    if (n == NGX_TUN_NAT_NONE) {
        return NGX_DECLINED;
    }

    clear = (flags & NGX_TUN_NAT_RST_L)
            ? 0 : NGX_TUN_NAT_RST_L|NGX_TUN_NAT_RST_C;

    return ngx_tun_nat_read(nat, n, flags, clear, now, entry);
}


ngx_int_t
ngx_tun_nat_peek(ngx_tun_nat_t *nat, u_char *addr, uint16_t port,
    ngx_tun_nat_entry_t *entry)
{
    uint32_t             n;
    uint64_t             word;
    ngx_tun_nat_slot_t  *slot;

    n = ngx_tun_nat_number(nat, addr, port);

    if (n == NGX_TUN_NAT_NONE) {
        return NGX_DECLINED;
    }

    slot = ngx_tun_nat_slot(nat, n);

    word = ngx_tun_nat_load(&slot->word);

    return ngx_tun_nat_read(nat, n, 0, 0, ngx_tun_nat_seen(word), entry);
}


static ngx_int_t
ngx_tun_nat_read(ngx_tun_nat_t *nat, uint32_t n, ngx_uint_t set,
    ngx_uint_t clear, uint32_t now, ngx_tun_nat_entry_t *entry)
{
    uint64_t             word;
    ngx_tun_nat_slot_t  *slot;

    slot = ngx_tun_nat_slot(nat, n);

    do {
        word = ngx_tun_nat_load(&slot->word);

        if (ngx_tun_nat_state(word) != NGX_TUN_NAT_USED) {
            return NGX_DECLINED;
        }

        ngx_tun_nat_key(nat, slot, &entry->key);

        /* another generation may have the same key */

    } while (ngx_tun_nat_touch(slot, &word, set, clear, now) != NGX_OK);

    ngx_tun_nat_entry(nat, n, word, entry);

    return NGX_OK;
}


void
ngx_tun_nat_entry(ngx_tun_nat_t *nat, uint32_t slot, uint64_t word,
    ngx_tun_nat_entry_t *entry)
{
    entry->slot = slot;
    entry->generation = ngx_tun_nat_generation(word);
    entry->flags = (uint8_t) ngx_tun_nat_flags(word);
    entry->evicted = 0;
    entry->isn = 0;

    ngx_tun_nat_tuple(nat, slot, entry->addr, &entry->port);
}


/* is the kernel's socket gone for sure? */

ngx_uint_t
ngx_tun_nat_expired(uint64_t word, uint32_t now)
{
    int32_t     age, ttl;
    ngx_uint_t  flags;

    flags = ngx_tun_nat_flags(word);

    if (!(flags & NGX_TUN_NAT_ACCEPTED)) {
        ttl = NGX_TUN_NAT_TTL_SYN;

    } else if (flags & NGX_TUN_NAT_RST_L) {
        ttl = NGX_TUN_NAT_TTL_RST;

    } else if ((flags & (NGX_TUN_NAT_FIN_C|NGX_TUN_NAT_FIN_L))
               == (NGX_TUN_NAT_FIN_C|NGX_TUN_NAT_FIN_L))
    {
        ttl = NGX_TUN_NAT_TTL_FIN;

    } else if (!(flags & NGX_TUN_NAT_CLOSED)) {
        ttl = NGX_TUN_NAT_TTL_OPEN;

    } else if (flags & NGX_TUN_NAT_RST_C) {
        ttl = NGX_TUN_NAT_TTL_FIN;

    } else {
        ttl = NGX_TUN_NAT_TTL_HALF;
    }

    age = (int32_t) (now - ngx_tun_nat_seen(word));

    return age >= ttl;
}


ngx_int_t
ngx_tun_nat_accept(ngx_tun_nat_t *nat, u_char *addr, uint16_t port,
    uint32_t now, ngx_tun_nat_entry_t *entry)
{
    uint32_t             n;
    uint64_t             old, new;
    ngx_uint_t           flags;
    ngx_tun_nat_slot_t  *slot;

    n = ngx_tun_nat_number(nat, addr, port);

    if (n == NGX_TUN_NAT_NONE) {
        return NGX_DECLINED;
    }

    slot = ngx_tun_nat_slot(nat, n);

    for ( ;; ) {
        old = ngx_tun_nat_load(&slot->word);

        if (ngx_tun_nat_state(old) != NGX_TUN_NAT_USED) {
            return NGX_DECLINED;
        }

        ngx_tun_nat_key(nat, slot, &entry->key);

        __atomic_thread_fence(__ATOMIC_ACQUIRE);

        /* of an earlier flow on the tuple nothing is true any more */

        flags = ngx_tun_nat_flags(old);

        flags = NGX_TUN_NAT_ACCEPTED
                | ((flags & NGX_TUN_NAT_ACCEPTED) ? 0 : flags);

        new = ngx_tun_nat_word(ngx_tun_nat_generation(old) + 1,
                               NGX_TUN_NAT_USED, flags, now);

        if (ngx_tun_nat_cas(&slot->word, &old, new)) {
            ngx_tun_nat_entry(nat, n, new, entry);
            return NGX_OK;
        }
    }
}


void
ngx_tun_nat_release(ngx_tun_nat_t *nat, uint32_t slot, uint32_t generation,
    uint32_t now)
{
    uint64_t             word;
    ngx_tun_nat_slot_t  *s;

    s = ngx_tun_nat_slot(nat, slot);

    word = ngx_tun_nat_load(&s->word);

    if (ngx_tun_nat_generation(word) == generation
        && ngx_tun_nat_state(word) == NGX_TUN_NAT_USED)
    {
        (void) ngx_tun_nat_touch(s, &word, NGX_TUN_NAT_CLOSED, 0, now);
    }
}
