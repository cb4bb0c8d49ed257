
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_STREAM_TUN_H_INCLUDED_
#define _NGX_STREAM_TUN_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_stream.h>
#include <nginx.h>

#include <ngx_tun.h>
#include <ngx_tun_inherit.h>


#define NGX_STREAM_TUN_CONF  0x10000000


typedef struct ngx_stream_tun_table_s  ngx_stream_tun_table_t;
typedef struct ngx_stream_tun_upstream_conf_s  ngx_stream_tun_upstream_conf_t;


/* a binary in a line of upgrades, each with its own master process */

typedef struct {
    ngx_atomic_uint_t            number;
    ngx_atomic_uint_t            former;     /* that this one came from */
    ngx_pid_t                    parent;     /* its master */
} ngx_stream_tun_binary_t;


typedef struct ngx_stream_tun_old_s  ngx_stream_tun_old_t;


/* a `tun` block, and what runs by it in this cycle */

typedef struct {
    ngx_tun_conf_t               conf;
    ngx_int_t                    queues;     /* NGX_CONF_UNSET: auto */

    ngx_tun_device_t             device;
    ngx_tun_device_t            *old;        /* until the cycle is in force */
    ngx_tun_handoff_t            handoff;
    ngx_tun_icmp_sockets_t      *icmp;       /* one for each queue, or NULL */
    ngx_stream_tun_upstream_conf_t  *socket; /* options of these, or NULL */
    ngx_tun_stat_t              *stat;       /* one for each worker */
    ngx_tun_gauge_t             *gauges;     /* one for each process */
    ngx_tun_gauge_t             *gauge;      /* in a worker */
    ngx_tun_share_t             *share;      /* whose memory is state */
    ngx_tun_inherit_state_t     *state;
    ngx_tun_owner_t              owner;      /* in a worker */
    ngx_atomic_uint_t            generation; /* of this cycle */
    ngx_stream_tun_binary_t      binary;
    ngx_stream_tun_old_t        *inherited;  /* until the cycle is in force */
    ngx_tun_t                   *tun;        /* in a worker */

    ngx_uint_t                   stack;      /* conf.stack if it works */
    ngx_uint_t                   fallback;   /* unsigned  fallback:1; */
    ngx_tun_share_t             *tables[2];  /* of the system stack */
    ngx_tun_system_t            *system;     /* in a worker */

    ngx_cycle_t                 *cycle;
    u_char                      *file;
    ngx_uint_t                   line;
} ngx_stream_tun_t;


/* a `tun_listen` */

typedef struct {
    ngx_tun_listen_t             listen;
    ngx_str_t                    device;
    ngx_str_t                    text;       /* the rest of the directive */

    ngx_stream_conf_ctx_t       *ctx;        /* of the server */
    ngx_listening_t              ls[2];
    ngx_stream_port_t            ports[2];
    ngx_stream_in_addr_t         addr;
#if (NGX_HAVE_INET6)
    ngx_stream_in6_addr_t        addr6;
#endif

    u_char                      *file;
    ngx_uint_t                   line;
    ngx_uint_t                   ssl;        /* unsigned  ssl:1; */
} ngx_stream_tun_listen_t;


typedef struct ngx_stream_tun_batch_s  ngx_stream_tun_batch_t;


typedef struct {
    ngx_array_t                  tuns;       /* of ngx_stream_tun_t * */
    ngx_array_t                  listens;    /* ngx_stream_tun_listen_t * */
    ngx_stream_filter_pt         next_filter;
    BIO_METHOD                  *bio_method; /* TLS over our connections */
    ngx_stream_tun_batch_t      *batch;      /* of relays, in a worker */

    ngx_tun_guard_t              guard;      /* against loops */
    ngx_stream_session_t        *guarded;    /* that is about to connect */
    ngx_peer_connection_t       *peer;       /* or NULL: the session's */
    ngx_stream_tun_upstream_conf_t  *socket; /* its options, or NULL */
    ngx_int_t                  (*add_conn)(ngx_connection_t *c);
} ngx_stream_tun_main_conf_t;


#define NGX_STREAM_TUN_CONNECTED  0
#define NGX_STREAM_TUN_EARLY      1


/* "tun_udp_relay": whose datagrams come back to the client */

typedef enum {
    NGX_STREAM_TUN_RELAY_INDEPENDENT = 0,
    NGX_STREAM_TUN_RELAY_ADDRESS,
    NGX_STREAM_TUN_RELAY_PORT
} ngx_stream_tun_filtering_e;


typedef struct {
    ngx_uint_t                     accept;   /* NGX_STREAM_TUN_* */
    ngx_uint_t                     listen;   /* has a `tun_listen` */
    ngx_uint_t                     relay;    /* has "tun_udp_relay on" */
    ngx_stream_tun_filtering_e     filtering;
    ngx_stream_upstream_srv_conf_t  *proxy;  /* of the relay, or NULL */
    ngx_stream_content_handler_pt  content_handler;
} ngx_stream_tun_srv_conf_t;


typedef struct ngx_stream_tun_relay_s  ngx_stream_tun_relay_t;


/* of a session that comes through a device */

typedef struct {
    ngx_tun_guard_entry_t          entry;    /* of the upstream's socket */
    ngx_tun_guard_entry_t          bound;    /* of a relay's */
    ngx_event_get_peer_pt          get;      /* of the balancer */
    ngx_resolver_handler_pt        resolved; /* of the proxy module */
    ngx_event_handler_pt           connect;  /* and its */
    ngx_event_t                   *event;    /* another peer is tried */

    /* of a UDP flow */

    ngx_event_free_peer_pt         free;     /* of the balancer */
    ngx_event_handler_pt           upstream; /* of the proxy module */
    ngx_event_handler_pt           downstream; /* and its */
    ngx_stream_tun_relay_t        *relay;

    unsigned                       guarded:1;
    unsigned                       refused:1;
} ngx_stream_tun_ctx_t;


extern ngx_module_t  ngx_stream_tun_module;


/* ngx_stream_tun_block.c */

char *ngx_stream_tun_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_stream_tun_queues(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_stream_tun_max_udp_flows(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_stream_tun_fragments(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* ngx_stream_tun_zone.c */

/* The zone of a device, whose init handler opens it. */
ngx_int_t ngx_stream_tun_add_zone(ngx_conf_t *cf, ngx_stream_tun_t *st);

/* In a worker: its gauge, after those of dead ones were taken back. */
void ngx_stream_tun_claim_gauge(ngx_stream_tun_t *st);

/* ngx_stream_tun_upgrade.c */

/*
 * At the start of a new binary: the device of the one before, as if that were
 * an earlier cycle of this one; or NULL.
 */
ngx_stream_tun_t *ngx_stream_tun_inherit(ngx_stream_tun_t *st,
    ngx_log_t *log);

/* In the zone's init handler: the state, of old or new. */
ngx_int_t ngx_stream_tun_init_state(ngx_stream_tun_t *st,
    ngx_stream_tun_t *old, ngx_log_t *log);

/* The cycle is in force: this binary is, and the next one will get it. */
ngx_int_t ngx_stream_tun_announce(ngx_cycle_t *cycle,
    ngx_stream_tun_main_conf_t *tmcf);

/* In a worker: what it executes gets nothing. */
void ngx_stream_tun_withhold(ngx_stream_tun_t *st);

/* Has a later binary taken over, and is it there? */
ngx_uint_t ngx_stream_tun_passed_on(ngx_stream_tun_t *st);

/* When the master exits: the one that it was to replace goes on, if so. */
ngx_uint_t ngx_stream_tun_pass_back(ngx_stream_tun_t *st);

/* ngx_stream_tun_address.c */

char *ngx_stream_tun_address(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* ngx_stream_tun_listen.c */

char *ngx_stream_tun_listen(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* Gives the listens to their devices; a conflict is logged. */
ngx_int_t ngx_stream_tun_init_listens(ngx_conf_t *cf,
    ngx_stream_tun_main_conf_t *tmcf);

/* ngx_stream_tun_route.c: before the block is parsed, the block, after it */

ngx_int_t ngx_stream_tun_create_route(ngx_conf_t *cf, ngx_stream_tun_t *st);
char *ngx_stream_tun_route(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_stream_tun_bypass(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_stream_tun_bypass_uid(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_stream_tun_bypass_mark(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_stream_tun_route_table(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_stream_tun_init_route(ngx_conf_t *cf, ngx_stream_tun_t *st,
    ngx_stream_tun_main_conf_t *tmcf);

/* ngx_stream_tun_system.c */

char *ngx_stream_tun_stack(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* At the end of a block: where its listeners are. */
char *ngx_stream_tun_system_check(ngx_conf_t *cf, ngx_stream_tun_t *st);

/* At postconfiguration: listenings of all devices. */
ngx_int_t ngx_stream_tun_init_system(ngx_conf_t *cf,
    ngx_stream_tun_main_conf_t *tmcf);

/* What was chosen at the start stays: NGX_OK, or NGX_ERROR after a line. */
ngx_int_t ngx_stream_tun_system_reload(ngx_stream_tun_t *st,
    ngx_stream_tun_t *old, ngx_log_t *log);

/* After the device was opened: tables and sockets. */
ngx_int_t ngx_stream_tun_system_open(ngx_stream_tun_t *st,
    ngx_stream_tun_t *old, ngx_log_t *log);

/* At the first start: does it work? */
void ngx_stream_tun_system_test(ngx_stream_tun_t *st, ngx_log_t *log);

/* In each worker. */
ngx_int_t ngx_stream_tun_system_start(ngx_stream_tun_t *st,
    ngx_cycle_t *cycle);

/* ngx_stream_tun_listener.c: sockets of the system stack */

/* At postconfiguration: one for each worker. */
ngx_int_t ngx_stream_tun_listener_add(ngx_conf_t *cf, ngx_stream_tun_t *st,
    ngx_uint_t family);

/* A test of the configuration does not bind. */
void ngx_stream_tun_listener_ignore(ngx_stream_tun_t *st);

/* After the device was opened: those that there are not yet. */
ngx_int_t ngx_stream_tun_listeners_open(ngx_stream_tun_t *st, ngx_log_t *log);

/* ngx_stream_tun_session.c */

/* The handler of our listenings: a connection becomes a session. */
void ngx_stream_tun_init_connection(ngx_connection_t *c);

/* At postconfiguration: content handlers and the filter. */
void ngx_stream_tun_init_sessions(ngx_conf_t *cf,
    ngx_stream_tun_main_conf_t *tmcf);

/* After the phases are set up. */
void ngx_stream_tun_init_phases(ngx_cycle_t *cycle);

/* Did the kernel answer before there was a session? */
#define ngx_stream_tun_by_kernel(c)                                           \
    (ngx_tun_connection_conf(c)->stack == NGX_TUN_STACK_SYSTEM)

/* Does the session come through a device? */
#define ngx_stream_tun_session(s)                                             \
    ((s)->connection->listening->handler == ngx_stream_tun_init_connection)

#define ngx_stream_tun_next_filter(s, in, from_upstream)                      \
    ((ngx_stream_tun_main_conf_t *)                                           \
         ngx_stream_get_module_main_conf(s, ngx_stream_tun_module))           \
             ->next_filter(s, in, from_upstream)

/* The context of a session, or NULL without memory. */
ngx_stream_tun_ctx_t *ngx_stream_tun_get_ctx(ngx_stream_session_t *s);

/* Is it the connection that had the number, which handlers may have closed? */
#define ngx_stream_tun_alive(c, n)                                            \
    ((c)->fd != (ngx_socket_t) -1 && (c)->number == (n))

/* ngx_stream_tun_socket.c */

/* `tun_socket` in a `tun` block, and what it says to the sockets for pings. */
char *ngx_stream_tun_icmp_socket(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
ngx_int_t ngx_stream_tun_set_icmp_sockets(ngx_stream_tun_t *st,
    ngx_log_t *log);

/* ngx_stream_tun_guard_session.c */

/* At postconfiguration: the zone that tells of loops. */
ngx_int_t ngx_stream_tun_guard_init(ngx_conf_t *cf,
    ngx_stream_tun_main_conf_t *tmcf);

/* As ngx_event_connect_peer(), of no session, with options. */
ngx_int_t ngx_stream_tun_guard_connect_peer(ngx_peer_connection_t *pc,
    void *options);

/* Calls a content handler; what it connects to is watched from then on. */
void ngx_stream_tun_guard_handler(ngx_stream_session_t *s,
    ngx_stream_content_handler_pt handler);

/*
 * May a session of a device not be connected there, for the address stands
 * for a name?  A line in the log, one in a second, says so.
 */
ngx_uint_t ngx_stream_tun_guard_fake(ngx_stream_session_t *s,
    struct sockaddr *sockaddr, ngx_str_t *name);

/*
 * As ngx_event_connect_peer() of the upstream, with options, or, NULL, those of
 * the server; a session of a device is watched.
 */
ngx_int_t ngx_stream_tun_guard_connect(ngx_stream_session_t *s,
    ngx_stream_tun_upstream_conf_t *tucf);

/*
 * Gives the socket that a session sends datagrams from its options and its
 * port.  NGX_OK, or NGX_ERROR after a line in the log.
 */
ngx_int_t ngx_stream_tun_guard_bind(ngx_stream_session_t *s, ngx_socket_t fd,
    int family);

/* ngx_stream_tun_udp.c */

/* At postconfiguration. */
ngx_int_t ngx_stream_tun_init_udp(ngx_conf_t *cf);

/* The filter for sessions of datagrams, while an upstream is connected. */
ngx_int_t ngx_stream_tun_udp_filter(ngx_stream_session_t *s, ngx_chain_t *in,
    ngx_uint_t from_upstream);

/* ngx_stream_tun_relay.c */

char *ngx_stream_tun_udp_relay(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
ngx_int_t ngx_stream_tun_add_relay_variables(ngx_conf_t *cf);

/* ngx_stream_tun_ssl.c */

/* Lets the stream_ssl module make what `tun_listen ... ssl` needs. */
void ngx_stream_tun_ssl_listen(ngx_conf_t *cf, ngx_stream_tun_listen_t *stl);

/* At postconfiguration, where a `tun_listen` has "ssl". */
ngx_int_t ngx_stream_tun_init_ssl(ngx_conf_t *cf,
    ngx_stream_tun_main_conf_t *tmcf);

/* ngx_stream_tun_variables.c */

ngx_int_t ngx_stream_tun_add_variables(ngx_conf_t *cf);


#endif /* _NGX_STREAM_TUN_H_INCLUDED_ */
