
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_fakeip_pool.h>


#define NGX_TUN_FAKEIP_V6_BITS    17     /* without IPv4: as many as a /15 */
#define NGX_TUN_FAKEIP_STAT_SIZE  128


typedef struct {
    uint64_t                     n;
    uint64_t                     nbuckets;
    uint64_t                     nchunks;
    uint64_t                     buckets;    /* offsets */
    uint64_t                     map;
    uint64_t                     entries;
    uint64_t                     chunks;
} ngx_tun_fakeip_layout_t;


typedef char  ngx_tun_fakeip_sizes_t
    [sizeof(ngx_tun_fakeip_entry_t) == 64
     && sizeof(ngx_tun_fakeip_chunk_t) == 32
     && sizeof(ngx_tun_fakeip_stat_t) <= NGX_TUN_FAKEIP_STAT_SIZE
     && sizeof(ngx_tun_fakeip_header_t) <= NGX_TUN_FAKEIP_HEADER ? 1 : -1];


static uint64_t ngx_tun_fakeip_entries(ngx_tun_fakeip_conf_t *conf);
static ngx_int_t ngx_tun_fakeip_layout(ngx_tun_fakeip_conf_t *conf,
    uint64_t size, ngx_tun_fakeip_layout_t *l);
static ngx_int_t ngx_tun_fakeip_init(ngx_tun_fakeip_t *fip, size_t size);
static void ngx_tun_fakeip_describe(ngx_tun_fakeip_t *fip, size_t size);
static uint64_t ngx_tun_fakeip_key_id(ngx_tun_fakeip_conf_t *conf);
static uint32_t ngx_tun_fakeip_header_crc(ngx_tun_fakeip_header_t *header);
static uint32_t ngx_tun_fakeip_same_index(ngx_tun_fakeip_t *fip,
    ngx_tun_fakeip_t *from, uint32_t index);
static ngx_int_t ngx_tun_fakeip_set_host(ngx_tun_fakeip_t *fip,
    ngx_tun_fakeip_host_t *host);
static ngx_int_t ngx_tun_fakeip_pin(ngx_tun_fakeip_t *fip, uint32_t index,
    ngx_tun_fakeip_host_t *host);


size_t
ngx_tun_fakeip_size(ngx_tun_fakeip_conf_t *conf)
{
    uint64_t                 n;
    ngx_tun_fakeip_layout_t  l;

    n = ngx_tun_fakeip_entries(conf);

    (void) ngx_tun_fakeip_layout(conf, 0, &l);

    /* a chunk for every fourth of the names */

    n = ngx_align(n / 4 + 32, 32);

    return l.map + ngx_align(n / 8, 64) + l.n * sizeof(ngx_tun_fakeip_entry_t)
           + n * sizeof(ngx_tun_fakeip_chunk_t);
}


ngx_int_t
ngx_tun_fakeip_usable(ngx_tun_fakeip_conf_t *conf, u_char *addr,
    size_t addr_len, uint32_t *index)
{
    ngx_tun_fakeip_t  fip;

    ngx_memzero(&fip, sizeof(ngx_tun_fakeip_t));

    fip.conf = *conf;
    fip.n = (uint32_t) ngx_tun_fakeip_entries(conf);

    if (ngx_tun_fakeip_index(&fip, addr, addr_len, index) != NGX_OK
        || *index == 0
        || *index >= fip.n - 1)
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static uint64_t
ngx_tun_fakeip_entries(ngx_tun_fakeip_conf_t *conf)
{
    ngx_uint_t  i, bits, rest;

    bits = conf->prefix[0].addr_len ? 32 : NGX_TUN_FAKEIP_V6_BITS;

    for (i = 0; i < 2; i++) {

        if (conf->prefix[i].addr_len == 0) {
            continue;
        }

        rest = conf->prefix[i].addr_len * 8 - conf->prefix[i].prefix;
        bits = ngx_min(bits, rest);
    }

    return (uint64_t) 1 << ngx_min(bits, NGX_TUN_FAKEIP_BITS_MAX);
}


static ngx_int_t
ngx_tun_fakeip_layout(ngx_tun_fakeip_conf_t *conf, uint64_t size,
    ngx_tun_fakeip_layout_t *l)
{
    uint64_t  fixed;

    l->n = ngx_tun_fakeip_entries(conf);
    l->nbuckets = l->n;
    l->nchunks = 0;

    l->buckets = NGX_TUN_FAKEIP_HEADER
                 + NGX_TUN_FAKEIP_STATS * NGX_TUN_FAKEIP_STAT_SIZE;
    l->map = ngx_align(l->buckets + l->nbuckets * sizeof(uint32_t), 64);

    fixed = l->map + l->n * sizeof(ngx_tun_fakeip_entry_t) + 64;

    if (size < fixed) {
        return NGX_DECLINED;
    }

    /* each with its bit; no more than the longest names need */

    l->nchunks = (size - fixed) * 8
                 / (sizeof(ngx_tun_fakeip_chunk_t) * 8 + 1) / 32 * 32;
    l->nchunks = ngx_min(l->nchunks, l->n * 8);

    if (l->nchunks < 32) {
        return NGX_DECLINED;
    }

    l->entries = ngx_align(l->map + l->nchunks / 8, 64);
    l->chunks = l->entries + l->n * sizeof(ngx_tun_fakeip_entry_t);

    return NGX_OK;
}


ngx_int_t
ngx_tun_fakeip_map(ngx_tun_fakeip_t *fip, void *memory, size_t size)
{
    u_char                   *p;
    ngx_tun_fakeip_layout_t   l;

    if (ngx_tun_fakeip_layout(&fip->conf, size, &l) != NGX_OK) {
        return NGX_DECLINED;
    }

    p = memory;

    fip->header = memory;
    fip->stat = (ngx_tun_fakeip_stat_t *) (p + NGX_TUN_FAKEIP_HEADER);
    fip->buckets = (uint32_t *) (p + l.buckets);
    fip->map = (uint32_t *) (p + l.map);
    fip->entries = (ngx_tun_fakeip_entry_t *) (p + l.entries);
    fip->chunks = (ngx_tun_fakeip_chunk_t *) (p + l.chunks);

    fip->n = (uint32_t) l.n;
    fip->mask = (uint32_t) l.nbuckets - 1;
    fip->nchunks = (uint32_t) l.nchunks;

    return NGX_OK;
}


ngx_int_t
ngx_tun_fakeip_create(ngx_tun_fakeip_t *fip, void *memory, size_t size)
{
    if (ngx_tun_fakeip_map(fip, memory, size) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_tun_fakeip_init(fip, size) != NGX_OK) {
        return NGX_ERROR;
    }

    /* as a rebuild would find it, but that takes the memory of all entries */

    fip->header->free_chunks = fip->nchunks;

    return NGX_OK;
}


ngx_int_t
ngx_tun_fakeip_attach(ngx_tun_fakeip_t *fip, void *memory, size_t size)
{
    ngx_tun_fakeip_header_t  *header;

    header = memory;

    if (!ngx_tun_fakeip_same(header, &fip->conf, size)
        || header->key_id != ngx_tun_fakeip_key_id(&fip->conf))
    {
        return NGX_DECLINED;
    }

    return ngx_tun_fakeip_map(fip, memory, size);
}


ngx_int_t
ngx_tun_fakeip_load(ngx_tun_fakeip_t *fip, void *memory, size_t size)
{
    uint32_t  i;

    if (ngx_tun_fakeip_map(fip, memory, size) != NGX_OK) {
        return NGX_ERROR;
    }

    for (i = 0; i < fip->n; i++) {
        fip->entries[i].flags = 0;
        fip->entries[i].seq &= ~(uint32_t) 1;
    }

    if (ngx_tun_fakeip_init(fip, size) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_tun_fakeip_rebuild(fip);

    return NGX_OK;
}


static ngx_int_t
ngx_tun_fakeip_init(ngx_tun_fakeip_t *fip, size_t size)
{
    uint32_t                  last;
    ngx_int_t                 rc;
    pthread_mutexattr_t       attr;
    ngx_tun_fakeip_header_t  *header;

    header = fip->header;

    /* of a file, the first part stays what it is at any moment */

    ngx_tun_fakeip_describe(fip, size);

    ngx_memzero(&header->seq, NGX_TUN_FAKEIP_HEADER
                              + NGX_TUN_FAKEIP_STATS * NGX_TUN_FAKEIP_STAT_SIZE
                              - offsetof(ngx_tun_fakeip_header_t, seq));

    header->clock = (int64_t) ngx_time() - (int64_t) (ngx_current_msec / 1000);

    if (pthread_mutexattr_init(&attr) != 0) {
        return NGX_ERROR;
    }

    rc = NGX_OK;

    if (pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) != 0
        || pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) != 0
        || pthread_mutex_init(&header->mutex, &attr) != 0)
    {
        rc = NGX_ERROR;
    }

    (void) pthread_mutexattr_destroy(&attr);

    /* the addresses of the network and of its broadcasts */

    last = fip->n - 1;

    fip->entries[0].flags = NGX_TUN_FAKEIP_PINNED;
    fip->entries[last].flags = NGX_TUN_FAKEIP_PINNED;
    fip->entries[0].len = 0;
    fip->entries[last].len = 0;

    header->fixed = 2;
    header->fixed_first = last;
    header->fixed_last = 0;

    return rc;
}


static void
ngx_tun_fakeip_describe(ngx_tun_fakeip_t *fip, size_t size)
{
    ngx_uint_t               i;
    ngx_tun_fakeip_header_t  header;

    ngx_memzero(&header, sizeof(ngx_tun_fakeip_header_t));

    ngx_memcpy(header.magic, NGX_TUN_FAKEIP_MAGIC, 8);

    header.version = NGX_TUN_FAKEIP_VERSION;
    header.n = fip->n;
    header.nbuckets = fip->mask + 1;
    header.nchunks = fip->nchunks;
    header.size = size;
    header.key_id = ngx_tun_fakeip_key_id(&fip->conf);

    for (i = 0; i < 2; i++) {

        if (fip->conf.prefix[i].addr_len != 0) {
            header.prefix[i] = (uint32_t) fip->conf.prefix[i].prefix;
            ngx_memcpy(header.addr[i], fip->conf.prefix[i].addr, 16);
        }
    }

    header.crc = ngx_tun_fakeip_header_crc(&header);

    if (ngx_memcmp(fip->header, &header,
                   offsetof(ngx_tun_fakeip_header_t, seq))
        != 0)
    {
        ngx_memcpy(fip->header, &header,
                   offsetof(ngx_tun_fakeip_header_t, seq));
    }
}


/* the key itself is not written down */

static uint64_t
ngx_tun_fakeip_key_id(ngx_tun_fakeip_conf_t *conf)
{
    return ngx_tun_fakeip_hash(conf->key, (u_char *) "key", 3);
}


static uint32_t
ngx_tun_fakeip_header_crc(ngx_tun_fakeip_header_t *header)
{
    return ~ngx_tun_fakeip_crc32c(0xffffffff, (u_char *) header,
                                  offsetof(ngx_tun_fakeip_header_t, crc));
}


ngx_int_t
ngx_tun_fakeip_read_header(ngx_tun_fakeip_header_t *header,
    ngx_tun_fakeip_conf_t *conf)
{
    ngx_uint_t                i, k, bits, max;
    ngx_tun_fakeip_layout_t   l;
    ngx_tun_fakeip_prefix_t  *prefix;

    if (ngx_memcmp(header->magic, NGX_TUN_FAKEIP_MAGIC, 8) != 0
        || header->version != NGX_TUN_FAKEIP_VERSION
        || header->crc != ngx_tun_fakeip_header_crc(header))
    {
        return NGX_DECLINED;
    }

    for (i = 0; i < 2; i++) {
        prefix = &conf->prefix[i];
        bits = header->prefix[i];
        max = i ? 128 : 32;

        ngx_memzero(prefix, sizeof(ngx_tun_fakeip_prefix_t));

        if (bits == 0) {
            continue;
        }

        if (bits > max) {
            return NGX_DECLINED;
        }

        for (k = bits; k < max; k++) {
            if (header->addr[i][k / 8] & (0x80 >> (k % 8))) {
                return NGX_DECLINED;
            }
        }

        ngx_memcpy(prefix->addr, header->addr[i], 16);
        prefix->addr_len = max / 8;
        prefix->prefix = bits;
    }

    if ((conf->prefix[0].addr_len == 0 && conf->prefix[1].addr_len == 0)
        || ngx_tun_fakeip_layout(conf, header->size, &l) != NGX_OK
        || l.n != header->n
        || l.nbuckets != header->nbuckets
        || l.nchunks != header->nchunks)
    {
        return NGX_DECLINED;
    }

    /* no more than a pool has a use for */

    return (header->size <= l.chunks + l.n * 8 * 33 + 4096 * 1024)
           ? NGX_OK : NGX_DECLINED;
}


ngx_uint_t
ngx_tun_fakeip_same(ngx_tun_fakeip_header_t *header,
    ngx_tun_fakeip_conf_t *conf, size_t size)
{
    ngx_uint_t             i;
    ngx_tun_fakeip_conf_t  other;

    if (size < NGX_TUN_FAKEIP_HEADER
        || ngx_tun_fakeip_read_header(header, &other) != NGX_OK
        || header->size != size)
    {
        return 0;
    }

    for (i = 0; i < 2; i++) {

        if (other.prefix[i].addr_len != conf->prefix[i].addr_len
            || other.prefix[i].prefix != conf->prefix[i].prefix
            || ngx_memcmp(other.prefix[i].addr, conf->prefix[i].addr,
                          conf->prefix[i].addr_len)
               != 0)
        {
            return 0;
        }
    }

    return 1;
}


void
ngx_tun_fakeip_import(ngx_tun_fakeip_t *fip, ngx_tun_fakeip_t *from)
{
    size_t                   len;
    u_char                   name[NGX_TUN_FAKEIP_NAME_MAX];
    int32_t                  age;
    uint32_t                 i, index, now, then, seq, hash;
    ngx_tun_fakeip_entry_t  *entry;

    if (ngx_tun_fakeip_lock(fip) != NGX_OK) {
        return;
    }

    now = ngx_tun_fakeip_now(fip);
    then = ngx_tun_fakeip_now(from);

    for (i = 0; i < from->n; i++) {
        entry = &from->entries[i];

        seq = ngx_tun_fakeip_get(&entry->seq);

        if (ngx_tun_fakeip_copy(from, entry, name, &len) != NGX_OK
            || ngx_tun_fakeip_check_name(name, len) != NGX_OK)
        {
            continue;
        }

        age = (int32_t) (then - entry->used);

        __atomic_thread_fence(__ATOMIC_ACQUIRE);

        if ((seq & 1) || ngx_tun_fakeip_get(&entry->seq) != seq) {
            continue;
        }

        index = ngx_tun_fakeip_same_index(fip, from, i);

        if (index == NGX_TUN_FAKEIP_NONE
            || fip->entries[index].len != 0
            || ngx_tun_fakeip_fixed(&fip->entries[index]))
        {
            continue;
        }

        hash = (uint32_t) ngx_tun_fakeip_hash(fip->conf.key, name, len);

        if (ngx_tun_fakeip_find(fip, name, len, hash, &seq)
            == NGX_TUN_FAKEIP_NONE)
        {
            (void) ngx_tun_fakeip_put(fip, index, name, len,
                                      now - ngx_max(age, 0), entry->created);
        }
    }

    ngx_tun_fakeip_unlock(fip);
}


/* an index stands for the same addresses in both, where both have a family */

static uint32_t
ngx_tun_fakeip_same_index(ngx_tun_fakeip_t *fip, ngx_tun_fakeip_t *from,
    uint32_t index)
{
    u_char      addr[16];
    size_t      len;
    uint32_t    i, same;
    ngx_uint_t  family;

    same = NGX_TUN_FAKEIP_NONE;

    for (family = 0; family < 2; family++) {
        len = family ? 16 : 4;

        if (fip->conf.prefix[family].addr_len == 0
            || ngx_tun_fakeip_address(from, index, len, addr) != NGX_OK)
        {
            continue;
        }

        if (ngx_tun_fakeip_index(fip, addr, len, &i) != NGX_OK
            || i == fip->n
            || (same != NGX_TUN_FAKEIP_NONE && same != i))
        {
            return NGX_TUN_FAKEIP_NONE;
        }

        same = i;
    }

    return same;
}


ngx_int_t
ngx_tun_fakeip_set_hosts(ngx_tun_fakeip_t *fip, ngx_tun_fakeip_host_t *hosts,
    ngx_uint_t n)
{
    uint32_t                 i, now, first, last;
    ngx_int_t                rc;
    ngx_uint_t               k;
    ngx_tun_fakeip_entry_t  *entry;

    if (ngx_tun_fakeip_lock(fip) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = NGX_OK;
    now = ngx_tun_fakeip_now(fip);

    for (k = 0; k < n; k++) {
        if (ngx_tun_fakeip_set_host(fip, &hosts[k]) != NGX_OK) {
            rc = NGX_BUSY;
        }
    }

    fip->header->fixed = 2;
    fip->header->busy = 0;
    fip->header->busy_tail = 0;

    /* no more is looked at than there may be, for each look takes a page */

    first = fip->n - 1;
    last = 0;

    for (i = fip->header->fixed_first; i <= fip->header->fixed_last; i++) {
        entry = &fip->entries[i];

        if (!ngx_tun_fakeip_fixed(entry) || i == 0 || i == fip->n - 1) {
            continue;
        }

        if (entry->flags & NGX_TUN_FAKEIP_MARK) {
            entry->flags &= ~NGX_TUN_FAKEIP_MARK;

            first = ngx_min(first, i);
            last = i;

            fip->header->fixed++;

        } else {
            /* what is no longer pinned was used until now */
            ngx_tun_fakeip_set(&entry->used, now);
            entry->flags = 0;
        }
    }

    fip->header->fixed_first = first;
    fip->header->fixed_last = last;

    ngx_tun_fakeip_unlock(fip);

    return rc;
}


static ngx_int_t
ngx_tun_fakeip_set_host(ngx_tun_fakeip_t *fip, ngx_tun_fakeip_host_t *host)
{
    uint32_t                 index;
    ngx_tun_fakeip_entry_t  *entry;

    if (ngx_tun_fakeip_index(fip, host->addr, host->addr_len, &index)
        != NGX_OK)
    {
        return NGX_OK;
    }

    /* the network, its broadcasts, and what no index stands for */

    if (index == 0 || index >= fip->n - 1) {
        return NGX_OK;
    }

    fip->header->fixed_first = ngx_min(fip->header->fixed_first, index);
    fip->header->fixed_last = ngx_max(fip->header->fixed_last, index);

    entry = &fip->entries[index];

    if (host->name != NULL) {
        return ngx_tun_fakeip_pin(fip, index, host);
    }

    if (entry->len != 0) {
        ngx_tun_fakeip_drop(fip, index);
    }

    entry->flags = NGX_TUN_FAKEIP_RESERVED|NGX_TUN_FAKEIP_MARK;

    return NGX_OK;
}


static ngx_int_t
ngx_tun_fakeip_pin(ngx_tun_fakeip_t *fip, uint32_t index,
    ngx_tun_fakeip_host_t *host)
{
    uint32_t                 now, other, seq, hash;
    ngx_tun_fakeip_entry_t  *entry;

    entry = &fip->entries[index];
    now = ngx_tun_fakeip_now(fip);

    entry->flags = NGX_TUN_FAKEIP_PINNED|NGX_TUN_FAKEIP_MARK;

    hash = (uint32_t) ngx_tun_fakeip_hash(fip->conf.key, host->name,
                                          host->len);

    other = ngx_tun_fakeip_find(fip, host->name, host->len, hash, &seq);

    if (other == index) {
        return NGX_OK;
    }

    if (other != NGX_TUN_FAKEIP_NONE) {
        ngx_tun_fakeip_drop(fip, other);
    }

    if (entry->len != 0) {
        ngx_tun_fakeip_drop(fip, index);
    }

    return ngx_tun_fakeip_put(fip, index, host->name, host->len, now, now);
}


void
ngx_tun_fakeip_init_worker(ngx_tun_fakeip_t *fip, ngx_uint_t worker)
{
    u_char  *p;

    p = (u_char *) fip->header + NGX_TUN_FAKEIP_HEADER;

    fip->stat = (ngx_tun_fakeip_stat_t *)
                    (p + worker % NGX_TUN_FAKEIP_STATS
                         * NGX_TUN_FAKEIP_STAT_SIZE);
}


void
ngx_tun_fakeip_stat(ngx_tun_fakeip_t *fip, ngx_tun_fakeip_stat_t *sum)
{
    u_char        *p;
    ngx_uint_t     i, k;
    ngx_atomic_t  *from, *to;

    ngx_memzero(sum, sizeof(ngx_tun_fakeip_stat_t));

    p = (u_char *) fip->header + NGX_TUN_FAKEIP_HEADER;
    to = (ngx_atomic_t *) sum;

    for (i = 0; i < NGX_TUN_FAKEIP_STATS; i++) {
        from = (ngx_atomic_t *) (p + i * NGX_TUN_FAKEIP_STAT_SIZE);

        for (k = 0; k < sizeof(*sum) / sizeof(ngx_atomic_t); k++) {
            to[k] += from[k];
        }
    }

    sum->dropped = fip->header->dropped;
    sum->recovered = fip->header->recovered;
}
