
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_NAT_SLOT_H_INCLUDED_
#define _NGX_TUN_NAT_SLOT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_nat.h>


/*
 * The word of a slot, which alone changes without the lock:
 *
 *     16 bits generation | 8 bits state | 8 bits flags | 32 bits last seen
 *
 * The key is written in the state FILLING only, with the lock held, and each
 * time with another generation: who reads the same generation and state
 * before and after the key has read it whole.
 */

#define NGX_TUN_NAT_FREE       0         /* no key is beyond it */
#define NGX_TUN_NAT_FILLING    1
#define NGX_TUN_NAT_USED       2
#define NGX_TUN_NAT_OLD        3         /* its key may come back */

#define ngx_tun_nat_word(generation, state, flags, seen)                      \
    ((uint64_t) ((generation) & 0xffff) << 48 | (uint64_t) (state) << 40      \
     | (uint64_t) (flags) << 32 | (seen))

#define ngx_tun_nat_generation(word)  ((uint32_t) ((word) >> 48))
#define ngx_tun_nat_state(word)       ((ngx_uint_t) ((word) >> 40 & 0xff))
#define ngx_tun_nat_flags(word)       ((ngx_uint_t) ((word) >> 32 & 0xff))
#define ngx_tun_nat_seen(word)        ((uint32_t) (word))

#define ngx_tun_nat_load(p)           __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define ngx_tun_nat_store(p, v)       __atomic_store_n(p, v, __ATOMIC_RELEASE)
#define ngx_tun_nat_cas(p, old, new)                                          \
    __atomic_compare_exchange_n(p, old, new, 0, __ATOMIC_ACQ_REL,             \
                                __ATOMIC_ACQUIRE)

#define NGX_TUN_NAT_FIRST      65536     /* slots of level 0 */
#define NGX_TUN_NAT_WINDOW     256       /* from where a key would be */
#define NGX_TUN_NAT_LOAD       70        /* %, then there is another level */
#define NGX_TUN_NAT_NONE       0xffffffff

#define ngx_tun_nat_slot(nat, n)                                              \
    ((ngx_tun_nat_slot_t *) ((nat)->slots + (size_t) (n) * (nat)->slot_size))


typedef struct {
    uint32_t  start;
    uint32_t  size;
} ngx_tun_nat_level_t;


ngx_uint_t ngx_tun_nat_level(ngx_tun_nat_t *nat, ngx_uint_t n,
    ngx_tun_nat_level_t *level);
uint32_t ngx_tun_nat_home(ngx_tun_nat_level_t *level, uint64_t hash,
    ngx_uint_t n);
void ngx_tun_nat_tuple(ngx_tun_nat_t *nat, uint32_t slot, u_char *addr,
    uint16_t *port);
uint32_t ngx_tun_nat_number(ngx_tun_nat_t *nat, u_char *addr,
    uint16_t port);
void ngx_tun_nat_key(ngx_tun_nat_t *nat, ngx_tun_nat_slot_t *slot,
    ngx_tun_flow_key_t *key);
uint32_t ngx_tun_nat_find(ngx_tun_nat_t *nat, ngx_tun_flow_key_t *key,
    uint64_t hash, uint64_t *word);
ngx_int_t ngx_tun_nat_touch(ngx_tun_nat_slot_t *slot, uint64_t *word,
    ngx_uint_t set, ngx_uint_t clear, uint32_t now);
void ngx_tun_nat_entry(ngx_tun_nat_t *nat, uint32_t slot,
    uint64_t word, ngx_tun_nat_entry_t *entry);
ngx_uint_t ngx_tun_nat_expired(uint64_t word, uint32_t now);


#endif /* _NGX_TUN_NAT_SLOT_H_INCLUDED_ */
