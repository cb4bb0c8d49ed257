
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_fakeip_pool.h>


static void ngx_tun_fakeip_change(uint32_t *seq);
static void ngx_tun_fakeip_clear(ngx_tun_fakeip_t *fip, uint32_t index);
static void ngx_tun_fakeip_link(ngx_tun_fakeip_t *fip, uint32_t index);
static void ngx_tun_fakeip_unlink(ngx_tun_fakeip_t *fip, uint32_t index);
static uint32_t ngx_tun_fakeip_chunk(ngx_tun_fakeip_t *fip);
static void ngx_tun_fakeip_free_chunks(ngx_tun_fakeip_t *fip, uint32_t chunk,
    size_t len);
static uint32_t ngx_tun_fakeip_crc(uint32_t index, uint32_t created,
    u_char *name, size_t len);
static ngx_int_t ngx_tun_fakeip_adopt(ngx_tun_fakeip_t *fip, uint32_t index,
    uint32_t now);
static ngx_int_t ngx_tun_fakeip_adopt_chunks(ngx_tun_fakeip_t *fip,
    ngx_tun_fakeip_entry_t *entry);


uint32_t
ngx_tun_fakeip_now(ngx_tun_fakeip_t *fip)
{
    return (uint32_t) (fip->header->clock + (int64_t) ngx_current_msec / 1000);
}


ngx_uint_t
ngx_tun_fakeip_equal(ngx_tun_fakeip_t *fip, ngx_tun_fakeip_entry_t *entry,
    u_char *name, size_t len)
{
    size_t    n;
    uint32_t  chunk;

    if (entry->len != len || len == 0) {
        return 0;
    }

    n = ngx_min(len, NGX_TUN_FAKEIP_INLINE);

    if (ngx_memcmp(entry->name, name, n) != 0) {
        return 0;
    }

    chunk = entry->tail;

    for (name += n, len -= n; len != 0; name += n, len -= n) {

        if (chunk >= fip->nchunks) {
            return 0;
        }

        n = ngx_min(len, NGX_TUN_FAKEIP_CHUNK);

        if (ngx_memcmp(fip->chunks[chunk].data, name, n) != 0) {
            return 0;
        }

        chunk = ngx_tun_fakeip_get(&fip->chunks[chunk].next);
    }

    return 1;
}


ngx_int_t
ngx_tun_fakeip_copy(ngx_tun_fakeip_t *fip, ngx_tun_fakeip_entry_t *entry,
    u_char *name, size_t *len)
{
    size_t    n, left;
    uint32_t  chunk;

    left = entry->len;

    if (left == 0) {
        return NGX_DECLINED;
    }

    *len = left;

    n = ngx_min(left, NGX_TUN_FAKEIP_INLINE);
    name = ngx_cpymem(name, entry->name, n);

    chunk = entry->tail;

    for (left -= n; left != 0; left -= n) {

        if (chunk >= fip->nchunks) {
            return NGX_DECLINED;
        }

        n = ngx_min(left, NGX_TUN_FAKEIP_CHUNK);
        name = ngx_cpymem(name, fip->chunks[chunk].data, n);

        chunk = ngx_tun_fakeip_get(&fip->chunks[chunk].next);
    }

    return NGX_OK;
}


uint32_t
ngx_tun_fakeip_find(ngx_tun_fakeip_t *fip, u_char *name, size_t len,
    uint32_t hash, uint32_t *seq)
{
    uint32_t                 at, steps;
    ngx_tun_fakeip_entry_t  *entry;

    at = ngx_tun_fakeip_get(&fip->buckets[hash & fip->mask]);

    /* an entry may move into another chain under a reader's feet */

    for (steps = 0; at != 0 && at <= fip->n && steps < fip->n; steps++) {

        entry = &fip->entries[at - 1];
        *seq = ngx_tun_fakeip_get(&entry->seq);

        if (entry->hash == hash
            && ngx_tun_fakeip_equal(fip, entry, name, len)
            && (*seq & 1) == 0)
        {
            __atomic_thread_fence(__ATOMIC_ACQUIRE);

            if (ngx_tun_fakeip_get(&entry->seq) == *seq) {
                return at - 1;
            }
        }

        at = ngx_tun_fakeip_get(&entry->next);
    }

    return NGX_TUN_FAKEIP_NONE;
}


ngx_int_t
ngx_tun_fakeip_lock(ngx_tun_fakeip_t *fip)
{
    int  rc;

    rc = pthread_mutex_lock(&fip->header->mutex);

    if (rc == 0) {
        return NGX_OK;
    }

    if (rc != EOWNERDEAD) {
        return NGX_ERROR;
    }

    ngx_tun_fakeip_rebuild(fip);

    fip->header->recovered++;

    (void) pthread_mutex_consistent(&fip->header->mutex);

    return NGX_OK;
}


void
ngx_tun_fakeip_unlock(ngx_tun_fakeip_t *fip)
{
    (void) pthread_mutex_unlock(&fip->header->mutex);
}


/*
 * A name may go if nobody used it for "hold".  Who uses it just now writes
 * that it is used, and then looks whether seq is what it was; here seq is
 * changed first, and used is looked at after.  So at least one sees the other.
 */

ngx_int_t
ngx_tun_fakeip_claim(ngx_tun_fakeip_t *fip, uint32_t index, uint32_t now)
{
    ngx_tun_fakeip_entry_t  *entry;

    entry = &fip->entries[index];

    if (ngx_tun_fakeip_fixed(entry)) {
        return NGX_DECLINED;
    }

    if (entry->len == 0) {
        return NGX_OK;
    }

    if ((int32_t) (now - ngx_tun_fakeip_get(&entry->used)) <= fip->conf.hold) {
        return NGX_DECLINED;
    }

    ngx_tun_fakeip_change(&entry->seq);

    if ((int32_t) (now - ngx_tun_fakeip_get(&entry->used)) <= fip->conf.hold) {
        ngx_tun_fakeip_change(&entry->seq);
        return NGX_DECLINED;
    }

    ngx_tun_fakeip_clear(fip, index);
    ngx_tun_fakeip_change(&entry->seq);

    (void) ngx_atomic_fetch_add(&fip->stat->evicted, 1);

    return NGX_OK;
}


ngx_int_t
ngx_tun_fakeip_put(ngx_tun_fakeip_t *fip, uint32_t index, u_char *name,
    size_t len, uint32_t used, uint32_t created)
{
    size_t                   n, left;
    uint32_t                *next, chunk;
    ngx_tun_fakeip_entry_t  *entry;

    left = (len > NGX_TUN_FAKEIP_INLINE) ? len - NGX_TUN_FAKEIP_INLINE : 0;

    if ((left + NGX_TUN_FAKEIP_CHUNK - 1) / NGX_TUN_FAKEIP_CHUNK
        > fip->header->free_chunks)
    {
        return NGX_BUSY;
    }

    entry = &fip->entries[index];

    ngx_tun_fakeip_change(&entry->seq);

    entry->hash = (uint32_t) ngx_tun_fakeip_hash(fip->conf.key, name, len);
    entry->crc = ngx_tun_fakeip_crc(index, created, name, len);
    entry->created = created;
    entry->used = used;

    n = len - left;
    ngx_memcpy(entry->name, name, n);

    next = &entry->tail;
    *next = NGX_TUN_FAKEIP_NONE;

    for (name += n; left != 0; name += n, left -= n) {
        chunk = ngx_tun_fakeip_chunk(fip);

        n = ngx_min(left, NGX_TUN_FAKEIP_CHUNK);
        ngx_memcpy(fip->chunks[chunk].data, name, n);

        ngx_tun_fakeip_set(next, chunk);
        next = &fip->chunks[chunk].next;
        *next = NGX_TUN_FAKEIP_NONE;
    }

    entry->len = (u_char) len;

    ngx_tun_fakeip_change(&fip->header->seq);
    ngx_tun_fakeip_link(fip, index);
    ngx_tun_fakeip_change(&fip->header->seq);

    ngx_tun_fakeip_change(&entry->seq);

    return NGX_OK;
}


void
ngx_tun_fakeip_drop(ngx_tun_fakeip_t *fip, uint32_t index)
{
    ngx_tun_fakeip_entry_t  *entry;

    entry = &fip->entries[index];

    ngx_tun_fakeip_change(&entry->seq);
    ngx_tun_fakeip_clear(fip, index);
    ngx_tun_fakeip_change(&entry->seq);
}


/* of an entry, or of all chains: from even to odd before, and back after */

static void
ngx_tun_fakeip_change(uint32_t *seq)
{
    ngx_tun_fakeip_set(seq, *seq + 1);
    ngx_tun_fakeip_fence();
}


static void
ngx_tun_fakeip_clear(ngx_tun_fakeip_t *fip, uint32_t index)
{
    ngx_tun_fakeip_entry_t  *entry;

    entry = &fip->entries[index];

    ngx_tun_fakeip_change(&fip->header->seq);
    ngx_tun_fakeip_unlink(fip, index);
    ngx_tun_fakeip_change(&fip->header->seq);

    ngx_tun_fakeip_free_chunks(fip, entry->tail, entry->len);

    entry->len = 0;
    entry->crc = 0;
    entry->tail = NGX_TUN_FAKEIP_NONE;

    /* it was free for nobody before */
    fip->header->busy = 0;
    fip->header->busy_tail = 0;
}


static void
ngx_tun_fakeip_link(ngx_tun_fakeip_t *fip, uint32_t index)
{
    uint32_t                *bucket;
    ngx_tun_fakeip_entry_t  *entry;

    entry = &fip->entries[index];
    bucket = &fip->buckets[entry->hash & fip->mask];

    ngx_tun_fakeip_set(&entry->next, *bucket);
    ngx_tun_fakeip_set(bucket, index + 1);

    fip->header->names++;
}


static void
ngx_tun_fakeip_unlink(ngx_tun_fakeip_t *fip, uint32_t index)
{
    uint32_t                *at, steps;
    ngx_tun_fakeip_entry_t  *entry;

    entry = &fip->entries[index];
    at = &fip->buckets[entry->hash & fip->mask];

    for (steps = 0; *at != 0 && *at <= fip->n && steps < fip->n; steps++) {

        if (*at == index + 1) {
            ngx_tun_fakeip_set(at, entry->next);
            break;
        }

        at = &fip->entries[*at - 1].next;
    }

    fip->header->names--;
}


/* there is one */

static uint32_t
ngx_tun_fakeip_chunk(ngx_tun_fakeip_t *fip)
{
    uint32_t  word, bit;

    word = fip->header->chunk;

    while (fip->map[word] == 0xffffffff) {
        word = (word + 1) % (fip->nchunks / 32);
    }

    bit = __builtin_ctz(~fip->map[word]);

    fip->map[word] |= (uint32_t) 1 << bit;
    fip->header->chunk = word;
    fip->header->free_chunks--;

    return word * 32 + bit;
}


static void
ngx_tun_fakeip_free_chunks(ngx_tun_fakeip_t *fip, uint32_t chunk, size_t len)
{
    size_t  left;

    left = (len > NGX_TUN_FAKEIP_INLINE) ? len - NGX_TUN_FAKEIP_INLINE : 0;

    while (left != 0 && chunk < fip->nchunks) {
        fip->map[chunk / 32] &= ~((uint32_t) 1 << (chunk % 32));
        fip->header->free_chunks++;

        chunk = fip->chunks[chunk].next;
        left -= ngx_min(left, NGX_TUN_FAKEIP_CHUNK);
    }
}


static uint32_t
ngx_tun_fakeip_crc(uint32_t index, uint32_t created, u_char *name, size_t len)
{
    uint32_t  crc;

    crc = ngx_tun_fakeip_crc32c(0xffffffff, (u_char *) &index,
                                sizeof(uint32_t));
    crc = ngx_tun_fakeip_crc32c(crc, (u_char *) &created, sizeof(uint32_t));

    return ~ngx_tun_fakeip_crc32c(crc, name, len);
}


void
ngx_tun_fakeip_rebuild(ngx_tun_fakeip_t *fip)
{
    uint32_t                  i, now;
    ngx_tun_fakeip_entry_t   *entry;
    ngx_tun_fakeip_header_t  *header;

    header = fip->header;
    now = ngx_tun_fakeip_now(fip);

    if ((header->seq & 1) == 0) {
        ngx_tun_fakeip_change(&header->seq);
    }

    for (i = 0; i <= fip->mask; i++) {
        ngx_tun_fakeip_set(&fip->buckets[i], 0);
    }

    ngx_memzero(fip->map, fip->nchunks / 8);

    header->names = 0;
    header->hand = 0;
    header->busy = 0;
    header->busy_tail = 0;
    header->chunk = 0;
    header->free_chunks = fip->nchunks;

    for (i = 0; i < fip->n; i++) {
        entry = &fip->entries[i];

        if (entry->len == 0) {

            if (entry->seq & 1) {
                ngx_tun_fakeip_change(&entry->seq);
            }

            continue;
        }

        if ((entry->seq & 1) == 0) {
            ngx_tun_fakeip_change(&entry->seq);
        }

        if (ngx_tun_fakeip_adopt(fip, i, now) != NGX_OK) {
            entry->len = 0;
            entry->crc = 0;
            entry->tail = NGX_TUN_FAKEIP_NONE;
            header->dropped++;
        }

        ngx_tun_fakeip_change(&entry->seq);
    }

    ngx_tun_fakeip_change(&header->seq);
}


/* an entry of which nothing is known to be right */

static ngx_int_t
ngx_tun_fakeip_adopt(ngx_tun_fakeip_t *fip, uint32_t index, uint32_t now)
{
    size_t                   len;
    u_char                   name[NGX_TUN_FAKEIP_NAME_MAX];
    uint32_t                 seq;
    ngx_tun_fakeip_entry_t  *entry;

    entry = &fip->entries[index];

    if (entry->flags & NGX_TUN_FAKEIP_RESERVED) {
        return NGX_DECLINED;
    }

    if (ngx_tun_fakeip_copy(fip, entry, name, &len) != NGX_OK
        || ngx_tun_fakeip_check_name(name, len) != NGX_OK
        || ngx_tun_fakeip_crc(index, entry->created, name, len) != entry->crc)
    {
        return NGX_DECLINED;
    }

    entry->hash = (uint32_t) ngx_tun_fakeip_hash(fip->conf.key, name, len);

    if (ngx_tun_fakeip_find(fip, name, len, entry->hash, &seq)
        != NGX_TUN_FAKEIP_NONE)
    {
        return NGX_DECLINED;
    }

    if (ngx_tun_fakeip_adopt_chunks(fip, entry) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (entry->used > now) {
        entry->used = now;
    }

    ngx_tun_fakeip_link(fip, index);

    return NGX_OK;
}


static ngx_int_t
ngx_tun_fakeip_adopt_chunks(ngx_tun_fakeip_t *fip,
    ngx_tun_fakeip_entry_t *entry)
{
    size_t    left, len;
    uint32_t  chunk, bit;

    len = entry->len;
    left = (len > NGX_TUN_FAKEIP_INLINE) ? len - NGX_TUN_FAKEIP_INLINE : 0;

    len = NGX_TUN_FAKEIP_INLINE;

    for (chunk = entry->tail; left != 0; chunk = fip->chunks[chunk].next) {
        bit = (uint32_t) 1 << (chunk % 32);

        if (fip->map[chunk / 32] & bit) {
            ngx_tun_fakeip_free_chunks(fip, entry->tail, len);
            return NGX_DECLINED;
        }

        fip->map[chunk / 32] |= bit;
        fip->header->free_chunks--;

        len += ngx_min(left, NGX_TUN_FAKEIP_CHUNK);
        left -= ngx_min(left, NGX_TUN_FAKEIP_CHUNK);
    }

    return NGX_OK;
}


ngx_int_t
ngx_tun_fakeip_check_name(u_char *name, size_t len)
{
    u_char  *p, *last, *label;

    p = name;
    last = name + len;

    while (p < last && *p != 0) {

        if (*p > 63 || (size_t) (last - p) <= *p) {
            return NGX_ERROR;
        }

        for (label = p + 1; label <= p + *p; label++) {
            if (*label >= 'A' && *label <= 'Z') {
                return NGX_ERROR;
            }
        }

        p = label;
    }

    /* the root itself is nothing that has an address */

    return (p == last - 1 && len > 1) ? NGX_OK : NGX_ERROR;
}
