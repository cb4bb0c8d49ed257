
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_fakeip_pool.h>


#define NGX_TUN_FAKEIP_PROBES  16
#define NGX_TUN_FAKEIP_TRIES   100
#define NGX_TUN_FAKEIP_SCAN    (1 << 18)


static ngx_int_t ngx_tun_fakeip_use(ngx_tun_fakeip_entry_t *entry,
    uint32_t seq, uint32_t now);
static void ngx_tun_fakeip_refresh(ngx_tun_fakeip_entry_t *entry,
    uint32_t now);
static ngx_int_t ngx_tun_fakeip_create_name(ngx_tun_fakeip_t *fip,
    u_char *name, size_t len, uint64_t hash, uint32_t *index);
static ngx_int_t ngx_tun_fakeip_allocate(ngx_tun_fakeip_t *fip, u_char *name,
    size_t len, uint64_t hash, uint32_t *index);
static ngx_int_t ngx_tun_fakeip_make_room(ngx_tun_fakeip_t *fip, size_t len,
    uint32_t now);
static uint32_t ngx_tun_fakeip_place(ngx_tun_fakeip_t *fip, uint64_t hash,
    uint32_t now);
static uint32_t ngx_tun_fakeip_scan(ngx_tun_fakeip_t *fip, uint32_t now,
    ngx_uint_t tail, uint32_t *busy);
static ngx_int_t ngx_tun_fakeip_read(ngx_tun_fakeip_t *fip,
    ngx_tun_fakeip_entry_t *entry, u_char *name, size_t *len);


ngx_int_t
ngx_tun_fakeip_assign(ngx_tun_fakeip_t *fip, u_char *name, size_t len,
    ngx_uint_t create, uint32_t *index)
{
    uint32_t   seq, version, now, i;
    uint64_t   hash;
    ngx_int_t  rc;

    if (ngx_tun_fakeip_check_name(name, len) != NGX_OK) {
        return create ? NGX_BUSY : NGX_DECLINED;
    }

    hash = ngx_tun_fakeip_hash(fip->conf.key, name, len);
    now = ngx_tun_fakeip_now(fip);

    version = ngx_tun_fakeip_get(&fip->header->seq);

    i = ngx_tun_fakeip_find(fip, name, len, (uint32_t) hash, &seq);

    if (i != NGX_TUN_FAKEIP_NONE
        && ngx_tun_fakeip_use(&fip->entries[i], seq, now) == NGX_OK)
    {
        *index = i;
        (void) ngx_atomic_fetch_add(&fip->stat->hits, 1);
        return NGX_OK;
    }

    if (!create && i == NGX_TUN_FAKEIP_NONE && (version & 1) == 0) {

        __atomic_thread_fence(__ATOMIC_ACQUIRE);

        if (ngx_tun_fakeip_get(&fip->header->seq) == version) {
            (void) ngx_atomic_fetch_add(&fip->stat->unknown, 1);
            return NGX_DECLINED;
        }
    }

    if (ngx_tun_fakeip_lock(fip) != NGX_OK) {
        return create ? NGX_BUSY : NGX_DECLINED;
    }

    i = ngx_tun_fakeip_find(fip, name, len, (uint32_t) hash, &seq);

    if (i != NGX_TUN_FAKEIP_NONE) {
        ngx_tun_fakeip_refresh(&fip->entries[i], now);
        *index = i;
        rc = NGX_OK;

        (void) ngx_atomic_fetch_add(&fip->stat->hits, 1);

    } else if (create) {
        rc = ngx_tun_fakeip_create_name(fip, name, len, hash, index);

    } else {
        rc = NGX_DECLINED;
        (void) ngx_atomic_fetch_add(&fip->stat->unknown, 1);
    }

    ngx_tun_fakeip_unlock(fip);

    return rc;
}


/*
 * Says that a name is used, before it is told to anybody; see
 * ngx_tun_fakeip_claim().  NGX_AGAIN: the name may have gone.
 */

static ngx_int_t
ngx_tun_fakeip_use(ngx_tun_fakeip_entry_t *entry, uint32_t seq, uint32_t now)
{
    ngx_tun_fakeip_refresh(entry, now);
    ngx_tun_fakeip_fence();

    return (ngx_tun_fakeip_get(&entry->seq) == seq) ? NGX_OK : NGX_AGAIN;
}


/* the clock of another worker may be ahead, and time does not go back */

static void
ngx_tun_fakeip_refresh(ngx_tun_fakeip_entry_t *entry, uint32_t now)
{
    uint32_t  used;

    used = ngx_tun_fakeip_get(&entry->used);

    while ((int32_t) (now - used) >= 1) {

        if (__atomic_compare_exchange_n(&entry->used, &used, now, 0,
                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        {
            break;
        }
    }
}


static ngx_int_t
ngx_tun_fakeip_create_name(ngx_tun_fakeip_t *fip, u_char *name, size_t len,
    uint64_t hash, uint32_t *index)
{
    ngx_int_t  rc;

    rc = ngx_tun_fakeip_allocate(fip, name, len, hash, index);

    (void) ngx_atomic_fetch_add(rc == NGX_OK ? &fip->stat->assigned
                                             : &fip->stat->exhausted, 1);

    return rc;
}


static ngx_int_t
ngx_tun_fakeip_allocate(ngx_tun_fakeip_t *fip, u_char *name, size_t len,
    uint64_t hash, uint32_t *index)
{
    uint32_t  now, i;

    now = ngx_tun_fakeip_now(fip);

    /* no search for what is known not to be there */

    if ((int32_t) (fip->header->busy - now) > 0 && fip->header->busy != 0) {
        return NGX_BUSY;
    }

    if (ngx_tun_fakeip_make_room(fip, len, now) != NGX_OK) {
        return NGX_BUSY;
    }

    i = ngx_tun_fakeip_place(fip, hash, now);

    if (i == NGX_TUN_FAKEIP_NONE) {
        i = ngx_tun_fakeip_scan(fip, now, 0, &fip->header->busy);
    }

    if (i == NGX_TUN_FAKEIP_NONE) {
        return NGX_BUSY;
    }

    *index = i;

    return ngx_tun_fakeip_put(fip, i, name, len, now, now);
}


/* chunks for a long name, by idle long names where all are in use */

static ngx_int_t
ngx_tun_fakeip_make_room(ngx_tun_fakeip_t *fip, size_t len, uint32_t now)
{
    uint32_t                  n;
    ngx_tun_fakeip_header_t  *header;

    if (len <= NGX_TUN_FAKEIP_INLINE) {
        return NGX_OK;
    }

    header = fip->header;

    n = (len - NGX_TUN_FAKEIP_INLINE + NGX_TUN_FAKEIP_CHUNK - 1)
        / NGX_TUN_FAKEIP_CHUNK;

    while (header->free_chunks < n) {

        if ((int32_t) (header->busy_tail - now) > 0 && header->busy_tail != 0)
        {
            return NGX_BUSY;
        }

        if (ngx_tun_fakeip_scan(fip, now, 1, &header->busy_tail)
            == NGX_TUN_FAKEIP_NONE)
        {
            return NGX_BUSY;
        }
    }

    return NGX_OK;
}


/*
 * By its hash a name has the same place after all was lost, as most names do
 * while the pool is not full.  What nobody has is better than what is idle.
 */

static uint32_t
ngx_tun_fakeip_place(ngx_tun_fakeip_t *fip, uint64_t hash, uint32_t now)
{
    uint32_t                 i, at, first;
    ngx_tun_fakeip_entry_t  *entry;

    first = (uint32_t) (((hash >> 32) * fip->n) >> 32);

    for (i = 0; i < NGX_TUN_FAKEIP_PROBES && i < fip->n; i++) {
        at = (first + i) % fip->n;
        entry = &fip->entries[at];

        if (entry->len == 0
            && ngx_tun_fakeip_claim(fip, at, now) == NGX_OK)
        {
            return at;
        }
    }

    for (i = 0; i < NGX_TUN_FAKEIP_PROBES && i < fip->n; i++) {
        at = (first + i) % fip->n;

        if (ngx_tun_fakeip_claim(fip, at, now) == NGX_OK) {
            return at;
        }
    }

    return NGX_TUN_FAKEIP_NONE;
}


/*
 * The next entry that is free, or idle; with tail, only an idle one that has
 * chunks.  When there is none, *busy is the time before which none will be.
 */

static uint32_t
ngx_tun_fakeip_scan(ngx_tun_fakeip_t *fip, uint32_t now, ngx_uint_t tail,
    uint32_t *busy)
{
    int32_t                  left, least;
    uint32_t                 i, at;
    ngx_tun_fakeip_entry_t  *entry;

    least = (int32_t) fip->conf.hold + 1;

    for (i = 0; i < ngx_min(fip->n, NGX_TUN_FAKEIP_SCAN); i++) {
        at = fip->header->hand;
        fip->header->hand = (at + 1) % fip->n;

        entry = &fip->entries[at];

        if (ngx_tun_fakeip_fixed(entry)
            || (tail && entry->len <= NGX_TUN_FAKEIP_INLINE))
        {
            continue;
        }

        if (ngx_tun_fakeip_claim(fip, at, now) == NGX_OK) {
            return at;
        }

        left = (int32_t) (ngx_tun_fakeip_get(&entry->used) - now)
               + (int32_t) fip->conf.hold + 1;

        least = ngx_min(least, left);
    }

    /* of a part of a great pool nothing follows for the rest */

    if (i == fip->n) {
        *busy = now + ngx_max(least, 1);
    }

    return NGX_TUN_FAKEIP_NONE;
}


ngx_int_t
ngx_tun_fakeip_address(ngx_tun_fakeip_t *fip, uint32_t index, size_t addr_len,
    u_char *addr)
{
    u_char                   *p;
    ngx_tun_fakeip_prefix_t  *prefix;

    prefix = &fip->conf.prefix[addr_len == 16];

    if (prefix->addr_len != addr_len || index >= fip->n) {
        return NGX_DECLINED;
    }

    ngx_memcpy(addr, prefix->addr, addr_len);

    p = &addr[addr_len - 4];

    p[0] |= (u_char) (index >> 24);
    p[1] |= (u_char) (index >> 16);
    p[2] |= (u_char) (index >> 8);
    p[3] |= (u_char) index;

    return NGX_OK;
}


ngx_int_t
ngx_tun_fakeip_index(ngx_tun_fakeip_t *fip, u_char *addr, size_t addr_len,
    uint32_t *index)
{
    u_char                   *p;
    uint32_t                  i;
    ngx_uint_t                n, bits;
    ngx_tun_fakeip_prefix_t  *prefix;

    prefix = &fip->conf.prefix[addr_len == 16];

    if (prefix->addr_len != addr_len || addr_len == 0) {
        return NGX_DECLINED;
    }

    n = prefix->prefix / 8;
    bits = prefix->prefix % 8;

    if (ngx_memcmp(addr, prefix->addr, n) != 0
        || (bits != 0 && ((addr[n] ^ prefix->addr[n]) >> (8 - bits)) != 0))
    {
        return NGX_DECLINED;
    }

    n = addr_len * 8 - prefix->prefix;
    p = &addr[addr_len - 4];

    i = (uint32_t) p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];

    if (n < 32) {
        i &= ((uint32_t) 1 << n) - 1;
    }

    /* a long prefix has more addresses than there are indexes */

    if (ngx_memcmp(addr, prefix->addr, addr_len - 4) != 0) {
        i = fip->n;
    }

    *index = ngx_min(i, fip->n);

    return NGX_OK;
}


ngx_int_t
ngx_tun_fakeip_name(ngx_tun_fakeip_t *fip, u_char *addr, size_t addr_len,
    u_char *name, size_t *len)
{
    uint32_t   index;
    ngx_int_t  rc;

    if (ngx_tun_fakeip_index(fip, addr, addr_len, &index) != NGX_OK) {
        return NGX_DECLINED;
    }

    rc = NGX_ABORT;

    if (index < fip->n) {

        if (fip->entries[index].flags & NGX_TUN_FAKEIP_RESERVED) {
            return NGX_DECLINED;
        }

        rc = ngx_tun_fakeip_read(fip, &fip->entries[index], name, len);
    }

    (void) ngx_atomic_fetch_add(rc == NGX_OK ? &fip->stat->found
                                             : &fip->stat->missed, 1);

    return rc;
}


static ngx_int_t
ngx_tun_fakeip_read(ngx_tun_fakeip_t *fip, ngx_tun_fakeip_entry_t *entry,
    u_char *name, size_t *len)
{
    uint32_t    seq, now;
    ngx_int_t   rc;
    ngx_uint_t  tries;

    now = ngx_tun_fakeip_now(fip);

    for (tries = 0; tries < NGX_TUN_FAKEIP_TRIES; tries++) {

        seq = ngx_tun_fakeip_get(&entry->seq);

        if (seq & 1) {
            ngx_cpu_pause();
            continue;
        }

        rc = ngx_tun_fakeip_copy(fip, entry, name, len);

        __atomic_thread_fence(__ATOMIC_ACQUIRE);

        if (ngx_tun_fakeip_get(&entry->seq) != seq) {
            continue;
        }

        if (rc != NGX_OK) {
            return NGX_ABORT;
        }

        if (ngx_tun_fakeip_use(entry, seq, now) == NGX_OK) {
            return NGX_OK;
        }
    }

    /* whoever changes it is slow, or dead */

    if (ngx_tun_fakeip_lock(fip) != NGX_OK) {
        return NGX_ABORT;
    }

    rc = ngx_tun_fakeip_copy(fip, entry, name, len);

    if (rc == NGX_OK) {
        ngx_tun_fakeip_refresh(entry, now);
    }

    ngx_tun_fakeip_unlock(fip);

    return (rc == NGX_OK) ? NGX_OK : NGX_ABORT;
}


void
ngx_tun_fakeip_touch(ngx_tun_fakeip_t *fip, uint32_t index)
{
    if (index < fip->n) {
        ngx_tun_fakeip_refresh(&fip->entries[index],
                               ngx_tun_fakeip_now(fip));
    }
}


time_t
ngx_tun_fakeip_ttl(ngx_tun_fakeip_t *fip)
{
    return fip->conf.ttl;
}


uint32_t
ngx_tun_fakeip_names(ngx_tun_fakeip_t *fip)
{
    return ngx_tun_fakeip_get(&fip->header->names);
}


uint32_t
ngx_tun_fakeip_capacity(ngx_tun_fakeip_t *fip)
{
    return fip->n - ngx_tun_fakeip_get(&fip->header->fixed);
}
