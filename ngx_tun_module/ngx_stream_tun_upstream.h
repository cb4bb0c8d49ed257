
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_STREAM_TUN_UPSTREAM_H_INCLUDED_
#define _NGX_STREAM_TUN_UPSTREAM_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_stream.h>

#include <ngx_stream_tun.h>
#include <ngx_stream_tun_wire.h>


/*
 * upstream{} directives.  The balancer of an upstream stays what it is; its
 * peer.get is wrapped.  When it has chosen a peer, nginx connects, with the
 * options of `tun_socket`, and is told NGX_AGAIN, so that it waits with its
 * connect handler.  That handler is what a session goes on with:
 *
 *   handshake before the proxy   our handlers are in front of the connect
 *                                handler, which is called when the proxy
 *                                server has agreed
 *   handshake inside of TLS      (proxy_ssl) the connection is the proxy
 *                                module's; our filter holds what the client
 *                                says until the proxy server has agreed
 *   a peer fails                 the connect handler is called with a timeout:
 *                                the proxy module takes the next peer
 */


#define NGX_STREAM_TUN_SOCKS5       0
#define NGX_STREAM_TUN_HTTP         1
#define NGX_STREAM_TUN_PROXY_V2     2

#define NGX_STREAM_TUN_STEPS        3

#define NGX_STREAM_TUN_BUFFERED     0x20


/* a `header=` or `tlv=` */

typedef struct {
    ngx_uint_t                         type;
    ngx_str_t                          name;
    ngx_stream_complex_value_t         value;
} ngx_stream_tun_field_t;


typedef struct {
    ngx_uint_t                         protocol;
    const ngx_str_t                   *name;         /* of the protocol */
    ngx_stream_complex_value_t        *destination;
    ngx_stream_complex_value_t        *user;
    ngx_stream_complex_value_t        *password;
    ngx_array_t                        fields;       /* header, tlv */
    ngx_array_t                       *final;        /* ngx_uint_t, codes */
    ngx_msec_t                         timeout;
    unsigned                           pipeline:1;
    unsigned                           no_udp:1;
} ngx_stream_tun_handshake_conf_t;


typedef struct {
    ngx_stream_complex_value_t        *destination;
    ngx_array_t                       *allow;        /* ngx_cidr_t */
} ngx_stream_tun_direct_conf_t;


struct ngx_stream_tun_upstream_conf_s {
    ngx_stream_upstream_init_peer_pt   init;         /* of the balancer */
    ngx_stream_tun_handshake_conf_t   *handshake;
    ngx_stream_tun_direct_conf_t      *direct;
    ngx_str_t                          device;
    uint32_t                           mark;
    unsigned                           marked:1;
    unsigned                           socket:1;     /* `tun_socket` */

    /* of a server */
    ngx_stream_content_handler_pt      content_handler;
};


typedef struct {
    ngx_stream_filter_pt               next_filter;
    ngx_int_t                          ssl;          /* offset, or -1 */
    ngx_uint_t                         handshake;    /* is there any? */
} ngx_stream_tun_upstream_main_conf_t;


/* what is said, and who looks at the answer, NULL: nobody */

typedef struct {
    ngx_str_t                          out;
    ngx_stream_tun_parse_pt            parse;
} ngx_stream_tun_step_t;


/* a line of $tun_handshake_status and $tun_handshake_time */

typedef struct {
    u_char                             status[16];
    size_t                             len;          /* 0: not tried */
    ngx_msec_t                         time;
} ngx_stream_tun_try_t;


typedef enum {
    NGX_STREAM_TUN_HANDSHAKE_IDLE = 0,
    NGX_STREAM_TUN_HANDSHAKE_RUN,
    NGX_STREAM_TUN_HANDSHAKE_READY,      /* the filter has not seen it yet */
    NGX_STREAM_TUN_HANDSHAKE_DONE
} ngx_stream_tun_handshake_state_e;


typedef struct ngx_stream_tun_direct_s  ngx_stream_tun_direct_t;


/* the context of a session */

typedef struct {
    ngx_stream_session_t              *session;
    ngx_stream_tun_upstream_conf_t    *conf;

    ngx_event_get_peer_pt              get;          /* of the balancer */
    ngx_event_handler_pt               connect;      /* of the proxy module */
    ngx_msec_t                         timeout;      /* and its */
    ngx_event_t                        event;
    ngx_log_t                          quiet;
    ngx_array_t                        tries;        /* ..._try_t */

    ngx_stream_tun_direct_t           *direct;

    ngx_stream_tun_step_t              steps[NGX_STREAM_TUN_STEPS];
    ngx_uint_t                         nsteps;
    ngx_uint_t                         step;
    size_t                             sent;         /* of the step */
    ngx_buf_t                         *in;
    ngx_msec_t                         start;
    ngx_uint_t                         code;         /* of a refusal */
    ngx_stream_tun_handshake_state_e   state;

    ngx_recv_pt                        recv;         /* of the connection */
    ngx_event_handler_pt               read_handler;
    ngx_event_handler_pt               write_handler;
    ngx_chain_t                       *held;
    ngx_chain_t                      **last;

    unsigned                           ssl:1;        /* inside of TLS */
    unsigned                           immediate:1;  /* has connected */
    unsigned                           eof:1;        /* held a last_buf */
} ngx_stream_tun_peer_t;


extern ngx_module_t  ngx_stream_proxy_module;
extern ngx_module_t  ngx_stream_tun_upstream_module;


#define ngx_stream_tun_peer(s)                                                \
    ((ngx_stream_tun_peer_t *)                                                \
         ngx_stream_get_module_ctx(s, ngx_stream_tun_upstream_module))


/* ngx_stream_tun_upstream_module.c */

/* A text with variables, or NULL after a line in the log. */
ngx_stream_complex_value_t *ngx_stream_tun_compile_value(ngx_conf_t *cf,
    ngx_str_t *text);

/* ngx_stream_tun_peer.c */

/* In place of peer.init: the balancer's, and our peer.get around its own. */
ngx_int_t ngx_stream_tun_init_peer(ngx_stream_session_t *s,
    ngx_stream_upstream_srv_conf_t *uscf);

/*
 * The context of a session with an upstream{} of ours; NULL: no memory, or a
 * value that cannot be said, after a line in the log.
 */
ngx_stream_tun_peer_t *ngx_stream_tun_create_peer(ngx_stream_session_t *s,
    ngx_stream_tun_upstream_conf_t *tucf);

/* A line of $tun_handshake_status for the peer that is tried next. */
ngx_int_t ngx_stream_tun_next_try(ngx_stream_tun_peer_t *tp);

/*
 * Connects as the proxy module does, to the peer that the balancer gives;
 * returns what ngx_event_connect_peer() does.
 */
ngx_int_t ngx_stream_tun_connect_peer(ngx_stream_tun_peer_t *tp);

/*
 * Gives up the peer, or with final the session: with status 502, and nothing
 * held against the peer.  To be called from the top of the event loop only;
 * the session may be no more then.
 */
void ngx_stream_tun_fail_peer(ngx_stream_tun_peer_t *tp, ngx_uint_t final);

/* ngx_stream_tun_socket.c */

/* Sets the options of `tun_socket`; NGX_ERROR after a line in the log. */
ngx_int_t ngx_stream_tun_set_socket(ngx_stream_tun_upstream_conf_t *tucf,
    ngx_socket_t fd, ngx_log_t *log);

/* The options of the session's server, or NULL. */
ngx_stream_tun_upstream_conf_t *ngx_stream_tun_socket_conf(
    ngx_stream_session_t *s);

/*
 * `tun_socket` of an upstream or a server.  What a worker may not do is an
 * error here, at the start, as root.
 */
char *ngx_stream_tun_socket(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* ngx_stream_tun_handshake_conf.c */

char *ngx_stream_tun_handshake(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* ngx_stream_tun_handshake_build.c */

/*
 * All that will be said to any peer, of the session's values.  NGX_ERROR
 * after a line in the log: a value that cannot be said.
 */
ngx_int_t ngx_stream_tun_build_handshake(ngx_stream_tun_peer_t *tp);

/* ngx_stream_tun_handshake.c */

/* Puts the handshake in front of the proxy module's connect handler. */
void ngx_stream_tun_start_handshake(ngx_stream_tun_peer_t *tp);

ngx_int_t ngx_stream_tun_upstream_filter(ngx_stream_session_t *s,
    ngx_chain_t *in, ngx_uint_t from_upstream);

/* ngx_stream_tun_direct.c */

char *ngx_stream_tun_direct(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* Is there nothing in the upstream{} that cannot be with `tun_direct`? */
char *ngx_stream_tun_check_direct(ngx_conf_t *cf,
    ngx_stream_upstream_srv_conf_t *uscf,
    ngx_stream_tun_upstream_conf_t *tucf);

/* Goes on when the session's connection is taken by the proxy module. */
void ngx_stream_tun_direct_taken(ngx_stream_tun_peer_t *tp);

/* A connection that stands for one while a name is looked up? */
ngx_uint_t ngx_stream_tun_direct_waits(ngx_stream_tun_peer_t *tp);

/* ngx_stream_tun_guard.c */

/*
 * May `tun_direct` not go there?  A line in the log says why: addresses that
 * a client must not reach through the gateway, where "allow=" has them not.
 */
ngx_uint_t ngx_stream_tun_guarded(ngx_stream_tun_upstream_conf_t *tucf,
    ngx_addr_t *addr, ngx_log_t *log);


#endif /* _NGX_STREAM_TUN_UPSTREAM_H_INCLUDED_ */
