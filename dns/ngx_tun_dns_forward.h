
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_DNS_FORWARD_H_INCLUDED_
#define _NGX_TUN_DNS_FORWARD_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>

#include <ngx_tun_dns.h>


/*
 * Questions to other servers, of one process.  Equal ones that are under way
 * are one; answers are kept for as long as they may be, within a bound.
 */


typedef struct ngx_tun_dns_forwarder_s  ngx_tun_dns_forwarder_t;
typedef struct ngx_tun_dns_exchange_s   ngx_tun_dns_exchange_t;
typedef struct ngx_tun_dns_waiter_s     ngx_tun_dns_waiter_t;

/*
 * Sets ex->peer, from ex->pool, with all that ngx_event_connect_peer() needs
 * but its log and type.  Called at once, and once.
 */
typedef ngx_int_t (*ngx_tun_dns_peer_pt)(ngx_tun_dns_exchange_t *ex,
    void *data);

/* The answer of another server, or NULL: there was none. */
typedef void (*ngx_tun_dns_waiter_pt)(ngx_tun_dns_waiter_t *waiter, u_char *p,
    size_t len);


#define NGX_TUN_DNS_BUCKETS    1024

/* of one question: servers that are asked, and bad messages that are read */

#define NGX_TUN_DNS_TRIES      3
#define NGX_TUN_DNS_INVALID    32

#define NGX_TUN_DNS_FIRST_TIMEOUT  1000
#define NGX_TUN_DNS_NEXT_TIMEOUT   2000
#define NGX_TUN_DNS_TCP_TIMEOUT    3000


/* As ngx_event_connect_peer(), with what the caller has for it. */
typedef ngx_int_t (*ngx_tun_dns_connect_pt)(ngx_peer_connection_t *pc,
    void *options);


struct ngx_tun_dns_forwarder_s {
    ngx_tun_dns_connect_pt         connect;
    void                          *options;
    ngx_tun_fakeip_t              *fip;      /* whose addresses are not kept */
    ngx_tun_dns_stat_t            *stat;
    u_char                        *tag;
    u_char                         key[NGX_TUN_FAKEIP_KEY_LEN];
    ngx_log_t                     *log;

    ngx_uint_t                     n;        /* questions under way */
    ngx_uint_t                     max;
    ngx_queue_t                   *asked;    /* NGX_TUN_DNS_BUCKETS */

    size_t                         size;     /* bytes that are kept */
    size_t                         max_size;
    ngx_queue_t                   *kept;     /* NGX_TUN_DNS_BUCKETS */
    ngx_queue_t                    lru;

    u_char                        *random;   /* bytes for ids */
    ngx_uint_t                     nrandom;
    time_t                         warned;
};


struct ngx_tun_dns_waiter_s {
    ngx_queue_t                    queue;
    ngx_tun_dns_waiter_pt          handler;
};


/* a question under way */

struct ngx_tun_dns_exchange_s {
    ngx_queue_t                    queue;    /* in a bucket */
    uint64_t                       hash;
    ngx_tun_dns_forwarder_t       *fwd;
    ngx_tun_dns_query_t            query;
    ngx_queue_t                    waiters;

    ngx_pool_t                    *pool;     /* it lives here */
    ngx_log_t                      log;
    ngx_peer_connection_t         *peer;
    ngx_sockaddr_t                 sockaddr; /* of the last server */
    socklen_t                      socklen;

    ngx_uint_t                     id;
    ngx_connection_t              *late[NGX_TUN_DNS_TRIES];
    ngx_uint_t                     late_ids[NGX_TUN_DNS_TRIES];
    ngx_uint_t                     nlate;    /* that may answer yet */

    ngx_uint_t                     tries;
    ngx_uint_t                     invalid;

    u_char                        *answer;   /* an error, the best so far */
    size_t                         answer_len;

    /* TCP */

    u_char                        *out;
    size_t                         out_len;
    u_char                        *in;
    size_t                         in_len;
    u_char                         prefix[2];
};


/* At the start of a process. */
ngx_int_t ngx_tun_dns_init_forwarder(ngx_tun_dns_forwarder_t *fwd,
    ngx_pool_t *pool);

/*
 * NGX_OK: it was kept, *p and *len until the next call, *age in seconds;
 * NGX_DECLINED: it is not.
 */
ngx_int_t ngx_tun_dns_recall(ngx_tun_dns_forwarder_t *fwd,
    ngx_tun_dns_query_t *query, u_char **p, size_t *len, uint32_t *age);

/*
 * NGX_OK: the waiter's handler is called later, not in this call, unless
 * ngx_tun_dns_leave() comes before; NGX_BUSY, NGX_ERROR: it is not.
 */
ngx_int_t ngx_tun_dns_forward(ngx_tun_dns_forwarder_t *fwd,
    ngx_tun_dns_query_t *query, ngx_tun_dns_waiter_t *waiter,
    ngx_tun_dns_peer_pt init, void *data);
void ngx_tun_dns_leave(ngx_tun_dns_waiter_t *waiter);


/* Of a question under way, for the file of the other protocol. */

/* NGX_OK: the exchange may be no more; NGX_DECLINED: it was no answer. */
ngx_int_t ngx_tun_dns_answered(ngx_tun_dns_exchange_t *ex,
    ngx_connection_t *c, u_char *p, size_t len);

/* Gives the server back, and asks another one. */
void ngx_tun_dns_next(ngx_tun_dns_exchange_t *ex, ngx_uint_t state);
void ngx_tun_dns_close(ngx_tun_dns_exchange_t *ex);

/* ngx_tun_dns_forward_tcp.c */

/* NGX_ERROR: it cannot be asked. */
ngx_int_t ngx_tun_dns_ask_tcp(ngx_tun_dns_exchange_t *ex);

/* ngx_tun_dns_cache.c */

/* What tells a question from others. */
uint64_t ngx_tun_dns_hash(ngx_tun_dns_forwarder_t *fwd,
    ngx_tun_dns_query_t *query);
ngx_uint_t ngx_tun_dns_same(ngx_tun_dns_query_t *one,
    ngx_tun_dns_query_t *two);

/* Keeps an answer for ttl seconds. */
void ngx_tun_dns_keep(ngx_tun_dns_forwarder_t *fwd,
    ngx_tun_dns_query_t *query, u_char *p, size_t len, uint32_t ttl);


#endif /* _NGX_TUN_DNS_FORWARD_H_INCLUDED_ */
