
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_NAT_H_INCLUDED_
#define _NGX_TUN_NAT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_flow.h>


/*
 * The translations of the system stack, in memory that processes share: the
 * number of a slot is an address and a port of the device's network, so one
 * table serves both directions.  A slot keeps its key until another one needs
 * it after its time, hence a client's flow from the same address and port to
 * the same destination meets the same tuple, and the kernel its TIME-WAIT.
 *
 * Lookups take no lock.  What brings a new key does, and a process that dies
 * with it leaves a table that is right, and a lock that the next one breaks.
 *
 * Times are seconds of a clock that all processes have, as CLOCK_MONOTONIC.
 */


#define NGX_TUN_NAT_PORTS      65535     /* of an address: 1 to 65535 */
#define NGX_TUN_NAT_SKIP       8         /* addresses of others, at most */
#define NGX_TUN_NAT_LEVELS     17        /* 64K slots doubled to 4G */
#define NGX_TUN_NAT_CLIENTS    65536     /* counters, a power of 2 */

/* what was seen of a flow: these are its states */

#define NGX_TUN_NAT_FIN_C      0x01      /* from the client */
#define NGX_TUN_NAT_FIN_L      0x02      /* from the listener */
#define NGX_TUN_NAT_RST_C      0x04
#define NGX_TUN_NAT_RST_L      0x08
#define NGX_TUN_NAT_ACCEPTED   0x10      /* there is a session */
#define NGX_TUN_NAT_CLOSED     0x20      /* there was one */

/* and how long its tuple is kept from others then, after a last packet */

#define NGX_TUN_NAT_TTL_SYN    75        /* > all SYN|ACKs of the kernel */
#define NGX_TUN_NAT_TTL_OPEN   7440      /* RFC 5382, REQ-5 */
#define NGX_TUN_NAT_TTL_HALF   125       /* twice tcp_fin_timeout */
#define NGX_TUN_NAT_TTL_FIN    65        /* TIME-WAIT of the kernel */
#define NGX_TUN_NAT_TTL_RST    5         /* the kernel has forgotten it */

/* a SYN without a session gives way to another one after that */

#define NGX_TUN_NAT_EVICT      3


typedef struct {
    u_char                     network[16];  /* host part zero */
    size_t                     addr_len;     /* 4 or 16 */
    ngx_uint_t                 prefix;       /* bits */
    uint32_t                   skip[NGX_TUN_NAT_SKIP];
    ngx_uint_t                 nskip;        /* hosts, sorted: our own */
    uint32_t                   slots;        /* at most */
    uint32_t                   client;       /* of one client, at most */
} ngx_tun_nat_conf_t;


typedef struct {
    uint64_t                   word;         /* state: see ngx_tun_nat.c */
    uint16_t                   src_port;     /* host order */
    uint16_t                   dst_port;
    uint32_t                   isn;          /* of the client's SYN */
    u_char                     addr[];       /* source, then destination */
} ngx_tun_nat_slot_t;


/* at the head of the memory, the slots follow */

typedef struct {
    uint64_t                   ready;
    ngx_tun_nat_conf_t         conf;
    uint64_t                   secret[2];
    uint64_t                   offset;       /* of slot 0 in the tuples */
    uint64_t                   tuples;

    uint64_t                   lock;         /* the pid of its owner, or 0 */
    uint32_t                   opened;       /* levels in use */
    uint32_t                   swept;        /* second of the last sweep */
    uint32_t                   cursor;
    uint32_t                   used[NGX_TUN_NAT_LEVELS];

    uint32_t                   clients[NGX_TUN_NAT_CLIENTS];
} ngx_tun_nat_shared_t;


/* the view of one process */

typedef struct {
    ngx_tun_nat_shared_t      *shared;
    u_char                    *slots;
    size_t                     slot_size;
    size_t                     addr_len;
    uint32_t                   nslots;
    uint32_t                   hosts;        /* first to last, with ours */
    uint32_t                   used_hosts;   /* without them */
    uint64_t                   pid;
    ngx_tun_flow_table_t       keyed;        /* its secret alone */
} ngx_tun_nat_t;


typedef struct {
    uint32_t                   slot;
    uint32_t                   generation;   /* of what is in it */
    ngx_tun_flow_key_t         key;          /* client to destination */
    u_char                     addr[16];     /* what the kernel sees */
    uint16_t                   port;
    uint8_t                    flags;        /* NGX_TUN_NAT_* */

    /* with ngx_tun_nat_insert(): a SYN gave way, the kernel may have it */
    unsigned                   evicted:1;
    uint32_t                   isn;          /* of that one */
} ngx_tun_nat_entry_t;


/*
 * The tuples that a network has for this, 0 if it is too small, and the
 * memory for conf->slots of them.
 */
uint64_t ngx_tun_nat_tuples(ngx_tun_nat_conf_t *conf);
size_t ngx_tun_nat_size(ngx_tun_nat_conf_t *conf);

/*
 * Makes a table in zeroed memory of ngx_tun_nat_size() bytes.  The 24 random
 * bytes are its secret and where it begins: so a restart does not meet what
 * the kernel still has of the tuples before.
 */
void ngx_tun_nat_create(void *memory, ngx_tun_nat_conf_t *conf,
    u_char *random);

/* Has a table the tuples of another configuration, if not as many? */
ngx_uint_t ngx_tun_nat_fits(void *memory, ngx_tun_nat_conf_t *conf);

/* In every process that uses a table. */
void ngx_tun_nat_attach(ngx_tun_nat_t *nat, void *memory);

/*
 * The slot of a client's SYN: its old one, or a new one.  NGX_OK; NGX_DONE
 * with an entry that has a session already, which the kernel may know better;
 * NGX_DECLINED at the client's limit, NGX_ERROR when the table is full,
 * NGX_BUSY when the lock cannot be had for too long.
 */
ngx_int_t ngx_tun_nat_insert(ngx_tun_nat_t *nat, ngx_tun_flow_key_t *key,
    uint32_t isn, uint32_t now, ngx_tun_nat_entry_t *entry);

/* Of what comes from the client: NGX_OK or NGX_DECLINED. */
ngx_int_t ngx_tun_nat_lookup(ngx_tun_nat_t *nat, ngx_tun_flow_key_t *key,
    ngx_uint_t flags, uint32_t now, ngx_tun_nat_entry_t *entry);

/*
 * Of what goes to a tuple: NGX_OK, or NGX_DECLINED.  flags, FIN_L and RST_L,
 * are noted; other packets than RST tell that there is no reset.
 */
ngx_int_t ngx_tun_nat_reverse(ngx_tun_nat_t *nat, u_char *addr, uint16_t port,
    ngx_uint_t flags, uint32_t now, ngx_tun_nat_entry_t *entry);

/* The same, with nothing noted. */
ngx_int_t ngx_tun_nat_peek(ngx_tun_nat_t *nat, u_char *addr, uint16_t port,
    ngx_tun_nat_entry_t *entry);

/* Is the address one of the tuples? */
ngx_uint_t ngx_tun_nat_address(ngx_tun_nat_t *nat, u_char *addr);

/*
 * The kernel accepted a connection from a tuple: NGX_OK with its entry, or
 * NGX_DECLINED.  Until the release, with the slot and generation of the entry,
 * nobody else gets the tuple.
 */
ngx_int_t ngx_tun_nat_accept(ngx_tun_nat_t *nat, u_char *addr, uint16_t port,
    uint32_t now, ngx_tun_nat_entry_t *entry);
void ngx_tun_nat_release(ngx_tun_nat_t *nat, uint32_t slot,
    uint32_t generation, uint32_t now);

/*
 * Frees slots whose time is over, a 64th of all in a second whoever calls.
 * To be called about every second.
 */
void ngx_tun_nat_sweep(ngx_tun_nat_t *nat, uint32_t now);


#endif /* _NGX_TUN_NAT_H_INCLUDED_ */
