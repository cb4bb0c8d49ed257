
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_STREAM_TUN_FAKEIP_H_INCLUDED_
#define _NGX_STREAM_TUN_FAKEIP_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_stream.h>

#include <ngx_tun_fakeip.h>


/* a `tun_fakeip_zone`, or a name that awaits one */

typedef struct {
    ngx_tun_fakeip_t             fip;
    ngx_str_t                    name;
    size_t                       size;       /* of the zone */
    size_t                       memory;     /* of the pool in it */
    ngx_str_t                    file;
    ngx_array_t                  hosts;      /* ngx_stream_tun_fakeip_host_t */

    ngx_shm_zone_t              *shm_zone;   /* NULL: not defined yet */
    ngx_tun_fakeip_t            *old;        /* of the cycle before */
    ngx_cycle_t                 *cycle;

    ngx_queue_t                  sessions;   /* of this worker */
    ngx_event_t                  lease;
    ngx_event_t                  sync;

    u_char                      *conf_file;
    ngx_uint_t                   line;
} ngx_stream_tun_fakeip_zone_t;


/* a `tun_fakeip_host` */

typedef struct {
    ngx_tun_fakeip_host_t        host;
    ngx_str_t                    name;
    ngx_str_t                    address;
    uint32_t                     index;

    u_char                      *conf_file;
    ngx_uint_t                   line;
} ngx_stream_tun_fakeip_host_t;


typedef struct {
    ngx_array_t                  zones;  /* ngx_stream_tun_fakeip_zone_t * */
    ngx_array_t                  reserved;   /* ngx_tun_fakeip_host_t */
} ngx_stream_tun_fakeip_main_conf_t;


#define NGX_STREAM_TUN_FAKEIP_REFUSE  0
#define NGX_STREAM_TUN_FAKEIP_SNIFF   1


typedef struct {
    ngx_uint_t                   miss;   /* NGX_STREAM_TUN_FAKEIP_* */
} ngx_stream_tun_fakeip_srv_conf_t;


extern ngx_module_t  ngx_stream_tun_fakeip_module;


/*
 * The pool of a `tun_fakeip_zone`, which may come later in the configuration;
 * one that does not come is an error that names the line of cf.  The pool is
 * usable from the start of the workers.  Returns NULL after a log line.
 */
ngx_tun_fakeip_t *ngx_stream_tun_fakeip_pool(ngx_conf_t *cf, ngx_str_t *name);

/*
 * The name that the client of a session asked for, as it was at the start of
 * the session.  Empty: a pool's address without a name; NULL: not of a pool.
 */
ngx_str_t *ngx_stream_tun_fakeip_name(ngx_stream_session_t *s);


/*
 * The name behind an address: NGX_OK, its text in the session's pool and where
 * it is leased; NGX_DECLINED: not of a pool; NGX_ABORT: it has none; NGX_ERROR.
 */
ngx_int_t ngx_stream_tun_fakeip_find(ngx_stream_session_t *s, u_char *addr,
    size_t addr_len, ngx_str_t *name, ngx_tun_fakeip_t **fip, uint32_t *index);

/* Is it an address of a pool that may stand for a name? */
ngx_uint_t ngx_stream_tun_fakeip_is_fake(ngx_stream_session_t *s,
    struct sockaddr *sa);

/* ngx_stream_tun_fakeip_conf.c */

char *ngx_stream_tun_fakeip_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_stream_tun_fakeip_host(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* Zones and hosts together, when all is known. */
ngx_int_t ngx_stream_tun_fakeip_check(ngx_conf_t *cf,
    ngx_stream_tun_fakeip_main_conf_t *fmcf);

/* ngx_stream_tun_fakeip_zone.c */

/* The memory of a zone, or its file. */
ngx_int_t ngx_stream_tun_fakeip_init_zone(ngx_shm_zone_t *shm_zone,
    void *data);

/* The cycle is in force. */
void ngx_stream_tun_fakeip_commit(ngx_stream_tun_fakeip_zone_t *zone);

/* Addresses that no name gets: of devices, of `tun_listen`, of `listen`. */
ngx_int_t ngx_stream_tun_fakeip_reserved(ngx_array_t *hosts,
    ngx_cycle_t *cycle);

/* ngx_stream_tun_fakeip_session.c */

/* A phase handler: finds the name of a session. */
ngx_int_t ngx_stream_tun_fakeip_handler(ngx_stream_session_t *s);

/* Holds the addresses of sessions. */
void ngx_stream_tun_fakeip_lease(ngx_event_t *ev);


#endif /* _NGX_STREAM_TUN_FAKEIP_H_INCLUDED_ */
