
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_FAKEIP_POOL_H_INCLUDED_
#define _NGX_TUN_FAKEIP_POOL_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <pthread.h>

#include <ngx_tun_fakeip.h>


/*
 * The memory of a pool, in this order:
 *
 *   header     what it is, the lock, and where searches go on
 *   stat       for each worker
 *   buckets    heads of chains of entries, by the hash of their names
 *   map        a bit for each chunk that is in use
 *   entries    by index: a name, or none
 *   chunks     what a name has more than fits into its entry
 *
 * An entry is read without a lock: its seq is odd while it is changed, and
 * another one afterwards.  header->seq does the same for the chains: a name
 * that is not found while they changed is looked for again, with the lock.
 *
 * Of a file only entries and chunks are read, and they prove themselves by
 * their CRC; all else is made anew.  So it is when a process dies with the
 * lock.
 */


#define NGX_TUN_FAKEIP_INLINE    34
#define NGX_TUN_FAKEIP_CHUNK     28

#define NGX_TUN_FAKEIP_PINNED    0x01    /* the name is the operator's */
#define NGX_TUN_FAKEIP_RESERVED  0x02    /* never a name */
#define NGX_TUN_FAKEIP_MARK      0x04

#define NGX_TUN_FAKEIP_NONE      ((uint32_t) -1)

#define NGX_TUN_FAKEIP_HEADER    1024
#define NGX_TUN_FAKEIP_MAGIC     "tun\r\nfip"
#define NGX_TUN_FAKEIP_VERSION   1


struct ngx_tun_fakeip_entry_s {
    uint32_t                     seq;
    uint32_t                     crc;        /* of index, created and name */
    uint32_t                     hash;
    uint32_t                     next;       /* in the chain: index + 1 */
    uint32_t                     used;       /* seconds of the pool's clock */
    uint32_t                     created;
    uint32_t                     tail;       /* the first chunk */
    u_char                       flags;
    u_char                       len;        /* 0: no name */
    u_char                       name[NGX_TUN_FAKEIP_INLINE];
};


struct ngx_tun_fakeip_chunk_s {
    uint32_t                     next;
    u_char                       data[NGX_TUN_FAKEIP_CHUNK];
};


struct ngx_tun_fakeip_header_s {
    u_char                       magic[8];
    uint32_t                     version;
    uint32_t                     n;
    uint32_t                     nbuckets;
    uint32_t                     nchunks;
    uint64_t                     size;
    uint64_t                     key_id;
    u_char                       addr[2][16];
    uint32_t                     prefix[2];  /* 0: no pool of that family */
    uint32_t                     crc;        /* of all before */

    uint32_t                     seq;
    int64_t                      clock;      /* monotonic to that of the pool */
    uint32_t                     names;
    uint32_t                     fixed;      /* indexes without a choice */
    uint32_t                     hand;
    uint32_t                     busy;       /* nothing is free before */
    uint32_t                     busy_tail;
    uint32_t                     free_chunks;
    uint32_t                     chunk;      /* where to look for a free one */
    uint32_t                     fixed_first;
    uint32_t                     fixed_last;
    uint32_t                     unused;
    uint64_t                     dropped;
    uint64_t                     recovered;
    pthread_mutex_t              mutex;
};


#define ngx_tun_fakeip_get(p)     __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define ngx_tun_fakeip_set(p, v)  __atomic_store_n(p, v, __ATOMIC_RELEASE)
#define ngx_tun_fakeip_fence()    __atomic_thread_fence(__ATOMIC_SEQ_CST)


/* what is free of names, whoever says so */
#define ngx_tun_fakeip_fixed(e)                                               \
    ((e)->flags & (NGX_TUN_FAKEIP_PINNED|NGX_TUN_FAKEIP_RESERVED))


/* ngx_tun_fakeip_entry.c, all with the lock, but the first four */

/* Seconds of the pool's clock: no step of the machine's clock moves it. */
uint32_t ngx_tun_fakeip_now(ngx_tun_fakeip_t *fip);

/* Does the entry have this name?  Of use if its seq is the same after it. */
ngx_uint_t ngx_tun_fakeip_equal(ngx_tun_fakeip_t *fip,
    ngx_tun_fakeip_entry_t *entry, u_char *name, size_t len);

/* Copies a name, as the one above; NGX_DECLINED: there is none. */
ngx_int_t ngx_tun_fakeip_copy(ngx_tun_fakeip_t *fip,
    ngx_tun_fakeip_entry_t *entry, u_char *name, size_t *len);

/* The index of a name, or NGX_TUN_FAKEIP_NONE; seq is that of the entry. */
uint32_t ngx_tun_fakeip_find(ngx_tun_fakeip_t *fip, u_char *name, size_t len,
    uint32_t hash, uint32_t *seq);

/* NGX_OK, and what a dead holder has left is put right. */
ngx_int_t ngx_tun_fakeip_lock(ngx_tun_fakeip_t *fip);
void ngx_tun_fakeip_unlock(ngx_tun_fakeip_t *fip);

/* Begins to change an entry without a name, or with one that may go. */
ngx_int_t ngx_tun_fakeip_claim(ngx_tun_fakeip_t *fip, uint32_t index,
    uint32_t now);

/* Gives an entry, free and of an even seq, its name.  NGX_BUSY: no room. */
ngx_int_t ngx_tun_fakeip_put(ngx_tun_fakeip_t *fip, uint32_t index,
    u_char *name, size_t len, uint32_t used, uint32_t created);

/* Takes the name of an entry. */
void ngx_tun_fakeip_drop(ngx_tun_fakeip_t *fip, uint32_t index);

/* Makes all but entries and chunks anew; entries that are wrong are dropped. */
void ngx_tun_fakeip_rebuild(ngx_tun_fakeip_t *fip);

/* NGX_OK, or NGX_ERROR: not a name in wire format and lower case. */
ngx_int_t ngx_tun_fakeip_check_name(u_char *name, size_t len);

/* ngx_tun_fakeip_name.c */

/* Goes on with a sum that begins with, and ends by inverting, all ones. */
uint32_t ngx_tun_fakeip_crc32c(uint32_t crc, u_char *p, size_t len);

/* ngx_tun_fakeip_memory.c */

/* Only looks at the memory: for a pool that is imported from. */
ngx_int_t ngx_tun_fakeip_map(ngx_tun_fakeip_t *fip, void *memory, size_t size);

/* NGX_OK: the header of a pool, whose prefixes it tells; else NGX_DECLINED. */
ngx_int_t ngx_tun_fakeip_read_header(ngx_tun_fakeip_header_t *header,
    ngx_tun_fakeip_conf_t *conf);

/* Is it a pool with these prefixes, in as much memory? */
ngx_uint_t ngx_tun_fakeip_same(ngx_tun_fakeip_header_t *header,
    ngx_tun_fakeip_conf_t *conf, size_t size);
/* ngx_tun_fakeip_open.c */

/*
 * Opens a file and locks it; both are inherited where this process replaces
 * another one.  NGX_OK; NGX_DONE: the file is new, and empty.
 */
ngx_int_t ngx_tun_fakeip_file_get(u_char *name, int *fd,
    ngx_uint_t *inherited, ngx_log_t *log);

/* May give another fd for the same file. */
ngx_int_t ngx_tun_fakeip_file_lock(int *fd, u_char *name,
    ngx_uint_t *inherited, ngx_log_t *log);

/* Is there nothing in what was read?  A start was not finished then. */
ngx_uint_t ngx_tun_fakeip_file_is_empty(ngx_tun_fakeip_header_t *header,
    ssize_t n);


#endif /* _NGX_TUN_FAKEIP_POOL_H_INCLUDED_ */
