
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_FAKEIP_H_INCLUDED_
#define _NGX_TUN_FAKEIP_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * A pool of addresses, each of which stands for one name at a time.  An index
 * is one address of each family: prefix + index.  A name is in wire format,
 * in lower case, with the root's zero byte: up to 255 bytes.
 *
 * The memory of a pool is the caller's: a shared zone, or a file that all
 * processes have mapped.  Nothing in it is trusted when it comes from a file.
 * Lookups take no lock; giving an address to a new name takes one, which the
 * death of its holder does not leave locked.
 */


#define NGX_TUN_FAKEIP_NAME_MAX  255
#define NGX_TUN_FAKEIP_BITS_MAX  24      /* of an index */
#define NGX_TUN_FAKEIP_KEY_LEN   16


typedef struct {
    u_char                       addr[16];
    size_t                       addr_len;   /* 4, 16, or 0: none */
    ngx_uint_t                   prefix;     /* bits */
} ngx_tun_fakeip_prefix_t;


/* what a pool is made by, and lives by */

typedef struct {
    ngx_tun_fakeip_prefix_t      prefix[2];  /* IPv4 and IPv6 */
    u_char                       key[NGX_TUN_FAKEIP_KEY_LEN];
    time_t                       ttl;        /* seconds, of an answer */
    time_t                       hold;       /* more than that: no other name */
} ngx_tun_fakeip_conf_t;


/* an address that is the operator's: with a name, or kept free of names */

typedef struct {
    u_char                       addr[16];
    size_t                       addr_len;
    u_char                      *name;       /* NULL: reserved */
    size_t                       len;
} ngx_tun_fakeip_host_t;


/* what happened since the pool was made; in shared memory for each worker */

typedef struct {
    ngx_atomic_t                 hits;       /* names that had an address */
    ngx_atomic_t                 assigned;   /* names that got one */
    ngx_atomic_t                 evicted;    /* of these, by an idle name */
    ngx_atomic_t                 exhausted;  /* names that got none */
    ngx_atomic_t                 unknown;    /* asked for, not to be made */
    ngx_atomic_t                 found;      /* addresses that had a name */
    ngx_atomic_t                 missed;     /* addresses that had none */
    ngx_atomic_t                 dropped;    /* damaged entries */
    ngx_atomic_t                 recovered;  /* locks of the dead */
} ngx_tun_fakeip_stat_t;


#define NGX_TUN_FAKEIP_STATS  64


typedef struct ngx_tun_fakeip_header_s  ngx_tun_fakeip_header_t;
typedef struct ngx_tun_fakeip_entry_s   ngx_tun_fakeip_entry_t;
typedef struct ngx_tun_fakeip_chunk_s   ngx_tun_fakeip_chunk_t;
typedef struct ngx_tun_fakeip_file_s    ngx_tun_fakeip_file_t;


/* a pool as a process sees it; zeroed before its first use */

typedef struct {
    ngx_tun_fakeip_conf_t        conf;

    ngx_tun_fakeip_header_t     *header;     /* NULL: no memory yet */
    ngx_tun_fakeip_entry_t      *entries;    /* by index */
    uint32_t                    *buckets;    /* indexes + 1, by hash */
    uint32_t                    *map;        /* bits: chunks in use */
    ngx_tun_fakeip_chunk_t      *chunks;     /* the rest of long names */
    ngx_tun_fakeip_stat_t       *stat;       /* of this worker */

    uint32_t                     n;          /* entries */
    uint32_t                     mask;       /* of buckets */
    uint32_t                     nchunks;

    ngx_tun_fakeip_file_t       *file;       /* NULL: it is not kept */
} ngx_tun_fakeip_t;


/*
 * For the DNS server and for flows, in workers, at any time:
 */

/*
 * The index of a name.  NGX_OK; NGX_DECLINED: the name has none, and create is
 * not set; NGX_BUSY: nothing is free, now or for a name as long as this one.
 * The index is not given to another name for "hold" from now.
 */
ngx_int_t ngx_tun_fakeip_assign(ngx_tun_fakeip_t *fip, u_char *name,
    size_t len, ngx_uint_t create, uint32_t *index);

/* Address of an index.  NGX_DECLINED: the pool has none of that family. */
ngx_int_t ngx_tun_fakeip_address(ngx_tun_fakeip_t *fip, uint32_t index,
    size_t addr_len, u_char *addr);

/*
 * The name behind an address, which stays so for "hold" from now.  NGX_OK;
 * NGX_DECLINED: the address is not of the pool, or is reserved; NGX_ABORT: it
 * is, and has no name.
 */
ngx_int_t ngx_tun_fakeip_name(ngx_tun_fakeip_t *fip, u_char *addr,
    size_t addr_len, u_char *name, size_t *len);

/* Is the address one of the prefixes?  It has an index, or *index is n. */
ngx_int_t ngx_tun_fakeip_index(ngx_tun_fakeip_t *fip, u_char *addr,
    size_t addr_len, uint32_t *index);

/* A live flow holds the index: to be called more often than every "hold". */
void ngx_tun_fakeip_touch(ngx_tun_fakeip_t *fip, uint32_t index);

/* Seconds that an answer may be kept. */
time_t ngx_tun_fakeip_ttl(ngx_tun_fakeip_t *fip);

/* Sums of all workers.  A sum may be a little behind. */
void ngx_tun_fakeip_stat(ngx_tun_fakeip_t *fip, ngx_tun_fakeip_stat_t *sum);

/* Names that have an address now, and addresses that a name can have. */
uint32_t ngx_tun_fakeip_names(ngx_tun_fakeip_t *fip);
uint32_t ngx_tun_fakeip_capacity(ngx_tun_fakeip_t *fip);

/*
 * The text of a name: "www.example.com", of which every byte is a letter in
 * lower case, a digit, '-', '_' or '.'.  Others are escaped as RFC 1035, 5.1
 * says.  text has room for NGX_TUN_FAKEIP_TEXT_MAX; returns the end.
 */
#define NGX_TUN_FAKEIP_TEXT_MAX  1020
u_char *ngx_tun_fakeip_text(u_char *text, u_char *name, size_t len);

/* The wire format of a text.  NGX_ERROR: it is no name. */
ngx_int_t ngx_tun_fakeip_wire(ngx_str_t *text, u_char *name, size_t *len);

/* SipHash-2-4. */
uint64_t ngx_tun_fakeip_hash(u_char *key, u_char *data, size_t len);


/*
 * For the owner of the memory:
 */

/* Bytes that a pool needs at least; more is room for long names. */
size_t ngx_tun_fakeip_size(ngx_tun_fakeip_conf_t *conf);

/* NGX_OK: a name could have that address; or NGX_DECLINED. */
ngx_int_t ngx_tun_fakeip_usable(ngx_tun_fakeip_conf_t *conf, u_char *addr,
    size_t addr_len, uint32_t *index);

/*
 * Make a pool in zeroed memory; take one that other processes use, where
 * NGX_DECLINED says that it is another one; or take what a file had, where
 * the entries that are whole and right are kept.  fip->conf is set; memory
 * is aligned to 64 bytes.
 */
ngx_int_t ngx_tun_fakeip_create(ngx_tun_fakeip_t *fip, void *memory,
    size_t size);
ngx_int_t ngx_tun_fakeip_attach(ngx_tun_fakeip_t *fip, void *memory,
    size_t size);
ngx_int_t ngx_tun_fakeip_load(ngx_tun_fakeip_t *fip, void *memory,
    size_t size);

/*
 * The same with a file, by its name: that of the running pool "old", where it
 * has it open already, one that is there, or a new one.  A pool that differs
 * from what the file has gets a new file, which takes the name with the commit
 * only.  NGX_ERROR after a line in the log.
 */
ngx_int_t ngx_tun_fakeip_file_open(ngx_tun_fakeip_t *fip, ngx_str_t *name,
    size_t size, ngx_tun_fakeip_t *old, ngx_log_t *log);
void ngx_tun_fakeip_file_commit(ngx_tun_fakeip_t *fip, ngx_log_t *log);

/* The last pool that has it closes it, and removes it without a commit. */
void ngx_tun_fakeip_file_close(ngx_tun_fakeip_t *fip);

/* Could it be opened?  Nothing is changed, and nothing is locked. */
ngx_int_t ngx_tun_fakeip_file_test(ngx_str_t *name, ngx_log_t *log);

/* Lets the kernel begin to write it. */
void ngx_tun_fakeip_file_sync(ngx_tun_fakeip_t *fip);

/* Takes the names of another pool that have the same addresses here. */
void ngx_tun_fakeip_import(ngx_tun_fakeip_t *fip, ngx_tun_fakeip_t *from);

/*
 * What the operator says about addresses, instead of what was said before:
 * names that are in its way lose their address.  NGX_BUSY: no room for the
 * name of a host.
 */
ngx_int_t ngx_tun_fakeip_set_hosts(ngx_tun_fakeip_t *fip,
    ngx_tun_fakeip_host_t *hosts, ngx_uint_t n);

/* Lets a worker count in a place of its own. */
void ngx_tun_fakeip_init_worker(ngx_tun_fakeip_t *fip, ngx_uint_t worker);


#endif /* _NGX_TUN_FAKEIP_H_INCLUDED_ */
