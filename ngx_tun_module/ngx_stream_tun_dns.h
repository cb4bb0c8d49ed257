
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_STREAM_TUN_DNS_H_INCLUDED_
#define _NGX_STREAM_TUN_DNS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_stream.h>
#include <nginx.h>

#include <ngx_stream_tun.h>
#include <ngx_stream_tun_fakeip.h>
#include <ngx_tun_dns.h>
#include <ngx_tun_dns_forward.h>


#define NGX_STREAM_TUN_DNS_EMPTY    0
#define NGX_STREAM_TUN_DNS_STRIP    1

#define NGX_STREAM_TUN_DNS_FORWARD  0
#define NGX_STREAM_TUN_DNS_NODATA   1

/* "tun_dns_special off": a mask that is set, and has nothing in it */

#define NGX_STREAM_TUN_DNS_NONE     0x1000

#define NGX_STREAM_TUN_DNS_WORKERS  64

/* questions that a server of one worker has under way */

#define NGX_STREAM_TUN_DNS_FORWARDS  4096


/* shared by all workers and all servers of a zone of names, over reloads */

typedef struct {
    u_char                       tag[NGX_TUN_DNS_TAG_LEN];
    ngx_atomic_t                 warned;     /* of a loop, in seconds */
    ngx_tun_dns_limit_t          limit;
    ngx_tun_dns_stat_t           stat[NGX_STREAM_TUN_DNS_WORKERS];
} ngx_stream_tun_dns_shared_t;


typedef struct {
    ngx_str_t                    name;       /* of the `tun_fakeip_zone` */
    ngx_tun_fakeip_t            *fip;
    ngx_cycle_t                 *cycle;
    ngx_shm_zone_t              *shm_zone;
    ngx_stream_tun_dns_shared_t *shared;
    ngx_tun_dns_stat_t          *stat;       /* of this worker */
} ngx_stream_tun_dns_zone_t;


typedef struct ngx_stream_tun_dns_batch_s  ngx_stream_tun_dns_batch_t;


typedef struct {
    ngx_array_t                  zones;  /* of ngx_stream_tun_dns_zone_t * */

    /* of this worker */

    ngx_tun_dns_near_t          *near;
    ngx_stream_tun_dns_batch_t  *batch;
    ngx_uint_t                   again;  /* unsigned  again:1; */
} ngx_stream_tun_dns_main_conf_t;


typedef struct {
    ngx_stream_tun_dns_zone_t   *zone;       /* NULL: no `tun_dns` */
    ngx_uint_t                   public;

    ngx_stream_complex_value_t  *fake;       /* NULL: every name */
    ngx_uint_t                   special;    /* NGX_TUN_DNS_SPECIAL_* */
    ngx_uint_t                   https;      /* NGX_STREAM_TUN_DNS_* */
    ngx_uint_t                   other;
    ngx_tun_dns_limit_conf_t     limit;

    ngx_stream_upstream_srv_conf_t  *upstream;  /* NULL: no `tun_dns_pass` */
    size_t                           cache;
    ngx_tun_dns_forwarder_t         *forwarder; /* of this worker */
    u_char                          *buffer;    /* a message, and its length */

    u_char                          *file;      /* of `tun_dns_pass` */
    ngx_uint_t                       line;
} ngx_stream_tun_dns_srv_conf_t;


typedef struct ngx_stream_tun_dns_out_s  ngx_stream_tun_dns_out_t;


/* a session: all questions of a TCP connection, or of a client's UDP port */

typedef struct {
    ngx_stream_session_t        *session;
    ngx_stream_tun_dns_zone_t   *zone;
    ngx_atomic_uint_t            client;     /* as the limits know it */

    ngx_tun_dns_query_t          query;      /* the last question */
    ngx_uint_t                   rcode;      /* and its answer */

    ngx_stream_variable_value_t *variables;  /* before the first question */
    ngx_uint_t                   questions;
    ngx_uint_t                   waiting;    /* of these, for a resolver */
    ngx_queue_t                  requests;
    ngx_socket_t                 fd;         /* for these, or -1 */

    /* TCP */

    ngx_tun_dns_limit_tcp_t     *limit;
    u_char                      *in;
    size_t                       in_len;
    ngx_stream_tun_dns_out_t    *out;
    ngx_stream_tun_dns_out_t   **out_last;
    ngx_uint_t                   nout;       /* answers that wait for it */

    unsigned                     asked:1;    /* query is set */
    unsigned                     answered:1; /* rcode is */
    unsigned                     eof:1;      /* no more questions */
    unsigned                     batch:1;    /* it cannot wait */
    unsigned                     again:1;    /* the question was counted */
} ngx_stream_tun_dns_ctx_t;


extern ngx_module_t  ngx_stream_tun_dns_module;


/* ngx_stream_tun_dns_session.c */

#if (nginx_version >= 1025005)
#define ngx_stream_tun_dns_conf_ctx(addr_conf)                                \
    (addr_conf)->default_server->ctx
#else
#define ngx_stream_tun_dns_conf_ctx(addr_conf)  (addr_conf)->ctx
#endif


/* Begins a session; NGX_DECLINED: its client may not ask. */
ngx_int_t ngx_stream_tun_dns_init_ctx(ngx_stream_tun_dns_ctx_t *ctx,
    ngx_stream_session_t *s);

/* The content handler of a server with `tun_dns`. */
void ngx_stream_tun_dns_handler(ngx_stream_session_t *s);

void ngx_stream_tun_dns_udp_send(ngx_stream_tun_dns_ctx_t *ctx, u_char *buf,
    size_t len);

/* After an answer that came later; the session may be no more. */
void ngx_stream_tun_dns_udp_done(ngx_stream_tun_dns_ctx_t *ctx);

/* ngx_stream_tun_dns_tcp.c */

/* Serves a connection until it ends. */
void ngx_stream_tun_dns_tcp(ngx_stream_tun_dns_ctx_t *ctx);

/* An answer of len bytes, before which there is room for two. */
ngx_int_t ngx_stream_tun_dns_tcp_send(ngx_stream_tun_dns_ctx_t *ctx,
    u_char *buf, size_t len);

/* Goes on with what the client has sent, when an answer came later. */
void ngx_stream_tun_dns_tcp_go_on(ngx_stream_tun_dns_ctx_t *ctx);

/* ngx_stream_tun_dns_answer.c */

/*
 * Answers a message.  NGX_OK, and *len bytes are at *answer, after two more;
 * they are in buf, of 2 + NGX_TUN_DNS_ANSWER_MAX, or live until the next
 * call; NGX_DECLINED: there is none to give; NGX_AGAIN: it comes later;
 * NGX_DONE: it would, but ctx->batch is set.
 */
ngx_int_t ngx_stream_tun_dns_answer(ngx_stream_tun_dns_ctx_t *ctx, u_char *p,
    u_char *end, u_char *buf, u_char **answer, size_t *len);

/* ngx_stream_tun_dns_forward.c */

/* The same for a question that resolvers have to answer. */
ngx_int_t ngx_stream_tun_dns_forward(ngx_stream_tun_dns_ctx_t *ctx,
    ngx_uint_t faked, ngx_uint_t strip, u_char **answer, size_t *len);

/* What our directives say in the upstream of `tun_dns_pass`, or NULL. */
ngx_stream_tun_upstream_conf_t *ngx_stream_tun_dns_upstream_conf(
    ngx_stream_tun_dns_srv_conf_t *dscf);

/* The `tun_socket` of the upstream, or of the server, or NULL. */
void *ngx_stream_tun_dns_options(ngx_stream_core_srv_conf_t *cscf,
    ngx_stream_tun_dns_srv_conf_t *dscf);

/* ngx_stream_tun_dns_batch.c */

/* At the start of a process: listening sockets that are read in batches. */
ngx_int_t ngx_stream_tun_dns_init_batches(ngx_cycle_t *cycle,
    ngx_stream_tun_dns_main_conf_t *dmcf);

/* ngx_stream_tun_dns_loop.c */

/* When all is known of a cycle: NGX_ERROR after a line in the log. */
ngx_int_t ngx_stream_tun_dns_check_loops(ngx_cycle_t *cycle,
    ngx_stream_tun_dns_zone_t *zone);

/* ngx_stream_tun_dns_variables.c */

ngx_int_t ngx_stream_tun_dns_add_variables(ngx_conf_t *cf);



#endif /* _NGX_STREAM_TUN_DNS_H_INCLUDED_ */
