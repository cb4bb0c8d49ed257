
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>

#include <sys/prctl.h>


/* what a worker keeps of its heap is twice of this */
#define NGX_STREAM_TUN_KEEP  (2 * 1024 * 1024)


static void *ngx_stream_tun_create_main_conf(ngx_conf_t *cf);
static void *ngx_stream_tun_create_srv_conf(ngx_conf_t *cf);
static char *ngx_stream_tun_merge_srv_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_stream_tun_postconfiguration(ngx_conf_t *cf);

static ngx_int_t ngx_stream_tun_init_module(ngx_cycle_t *cycle);
static ngx_int_t ngx_stream_tun_init_process(ngx_cycle_t *cycle);
static void ngx_stream_tun_keep_memory(void);
static void ngx_stream_tun_leave_with_master(void);
static void ngx_stream_tun_exit_process(ngx_cycle_t *cycle);
static void ngx_stream_tun_end_sessions(ngx_cycle_t *cycle,
    ngx_stream_tun_main_conf_t *tmcf);
static ngx_uint_t ngx_stream_tun_is_session(ngx_connection_t *c,
    ngx_stream_tun_main_conf_t *tmcf);
static ngx_stream_tun_main_conf_t *ngx_stream_tun_cycle_conf(
    ngx_cycle_t *cycle);


static ngx_conf_enum_t  ngx_stream_tun_icmps[] = {
    { ngx_string("reply"), NGX_TUN_ICMP_REPLY },
    { ngx_string("forward"), NGX_TUN_ICMP_FORWARD },
    { ngx_string("drop"), NGX_TUN_ICMP_DROP },
    { ngx_null_string, 0 }
};


static ngx_conf_enum_t  ngx_stream_tun_accepts[] = {
    { ngx_string("connected"), NGX_STREAM_TUN_CONNECTED },
    { ngx_string("early"), NGX_STREAM_TUN_EARLY },
    { ngx_null_string, 0 }
};


static ngx_conf_num_bounds_t  ngx_stream_tun_mtu_bounds = {
    ngx_conf_check_num_bounds, 576, 65535
};


static ngx_conf_num_bounds_t  ngx_stream_tun_number_bounds = {
    ngx_conf_check_num_bounds, 1, 1048576
};


static ngx_command_t  ngx_stream_tun_commands[] = {

    { ngx_string("tun"),
      NGX_STREAM_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_stream_tun_block,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tun_listen"),
      NGX_STREAM_SRV_CONF|NGX_CONF_1MORE,
      ngx_stream_tun_listen,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tun_accept"),
      NGX_STREAM_MAIN_CONF|NGX_STREAM_SRV_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_STREAM_SRV_CONF_OFFSET,
      offsetof(ngx_stream_tun_srv_conf_t, accept),
      &ngx_stream_tun_accepts },

    { ngx_string("tun_udp_relay"),
      NGX_STREAM_SRV_CONF|NGX_CONF_TAKE123,
      ngx_stream_tun_udp_relay,
      NGX_STREAM_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("address"),
      NGX_STREAM_TUN_CONF|NGX_CONF_1MORE,
      ngx_stream_tun_address,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("mtu"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.device.mtu),
      &ngx_stream_tun_mtu_bounds },

    { ngx_string("offload"),
      NGX_STREAM_TUN_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.device.offload),
      NULL },

    { ngx_string("stack"),
      NGX_STREAM_TUN_CONF|NGX_CONF_1MORE,
      ngx_stream_tun_stack,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("icmp"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.icmp),
      &ngx_stream_tun_icmps },

    { ngx_string("tun_socket"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE12,
      ngx_stream_tun_icmp_socket,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("queues"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_stream_tun_queues,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("netns"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.device.netns),
      NULL },

    { ngx_string("route"),
      NGX_STREAM_TUN_CONF|NGX_CONF_1MORE,
      ngx_stream_tun_route,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("bypass"),
      NGX_STREAM_TUN_CONF|NGX_CONF_1MORE,
      ngx_stream_tun_bypass,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("bypass_uid"),
      NGX_STREAM_TUN_CONF|NGX_CONF_1MORE,
      ngx_stream_tun_bypass_uid,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("bypass_mark"),
      NGX_STREAM_TUN_CONF|NGX_CONF_1MORE,
      ngx_stream_tun_bypass_mark,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("route_table"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_stream_tun_route_table,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("fail_closed"),
      NGX_STREAM_TUN_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.device.route.fail_closed),
      NULL },

    { ngx_string("max_flows"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.max_flows),
      NULL },

    { ngx_string("max_pending"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.max_pending),
      &ngx_stream_tun_number_bounds },

    { ngx_string("max_half_open"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.max_half_open),
      &ngx_stream_tun_number_bounds },

    { ngx_string("max_udp_flows"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE12,
      ngx_stream_tun_max_udp_flows,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("udp_timeout"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.udp_timeout),
      NULL },

    { ngx_string("fragments"),
      NGX_STREAM_TUN_CONF|NGX_CONF_1MORE,
      ngx_stream_tun_fragments,
      NGX_STREAM_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("max_memory"),
      NGX_STREAM_TUN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_STREAM_MAIN_CONF_OFFSET,
      offsetof(ngx_stream_tun_t, conf.max_memory),
      NULL },

      ngx_null_command
};


static ngx_stream_module_t  ngx_stream_tun_module_ctx = {
    ngx_stream_tun_add_variables,          /* preconfiguration */
    ngx_stream_tun_postconfiguration,      /* postconfiguration */

    ngx_stream_tun_create_main_conf,       /* create main configuration */
    NULL,                                  /* init main configuration */

    ngx_stream_tun_create_srv_conf,        /* create server configuration */
    ngx_stream_tun_merge_srv_conf          /* merge server configuration */
};


ngx_module_t  ngx_stream_tun_module = {
    NGX_MODULE_V1,
    &ngx_stream_tun_module_ctx,            /* module context */
    ngx_stream_tun_commands,               /* module directives */
    NGX_STREAM_MODULE,                     /* module type */
    NULL,                                  /* init master */
    ngx_stream_tun_init_module,            /* init module */
    ngx_stream_tun_init_process,           /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_stream_tun_exit_process,           /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static void *
ngx_stream_tun_create_main_conf(ngx_conf_t *cf)
{
    ngx_stream_tun_main_conf_t  *tmcf;

    tmcf = ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_main_conf_t));
    if (tmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&tmcf->tuns, cf->pool, 1, sizeof(ngx_stream_tun_t *))
        != NGX_OK)
    {
        return NULL;
    }

    if (ngx_array_init(&tmcf->listens, cf->pool, 4,
                       sizeof(ngx_stream_tun_listen_t *))
        != NGX_OK)
    {
        return NULL;
    }

    return tmcf;
}


static void *
ngx_stream_tun_create_srv_conf(ngx_conf_t *cf)
{
    ngx_stream_tun_srv_conf_t  *tscf;

    tscf = ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_srv_conf_t));
    if (tscf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     tscf->listen = 0;
     *     tscf->relay = 0;
     *     tscf->filtering = NGX_STREAM_TUN_RELAY_INDEPENDENT;
     *     tscf->proxy = NULL;
     *     tscf->content_handler = NULL;
     */

    tscf->accept = NGX_CONF_UNSET_UINT;

    return tscf;
}


static char *
ngx_stream_tun_merge_srv_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_stream_tun_srv_conf_t *prev = parent;
    ngx_stream_tun_srv_conf_t *conf = child;

    /* unset is "connected" where that can be had */

    ngx_conf_merge_uint_value(conf->accept, prev->accept, NGX_CONF_UNSET_UINT);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_stream_tun_postconfiguration(ngx_conf_t *cf)
{
    ngx_stream_tun_main_conf_t  *tmcf;

    tmcf = ngx_stream_conf_get_module_main_conf(cf, ngx_stream_tun_module);

    if (ngx_stream_tun_init_system(cf, tmcf) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_stream_tun_init_sessions(cf, tmcf);

    if (tmcf->listens.nelts == 0) {
        return NGX_OK;
    }

    if (ngx_stream_tun_guard_init(cf, tmcf) != NGX_OK
        || ngx_stream_tun_init_udp(cf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_stream_tun_init_listens(cf, tmcf);
}


static ngx_int_t
ngx_stream_tun_init_module(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i;
    ngx_stream_tun_t            **stp;
    ngx_stream_tun_main_conf_t   *tmcf;

    tmcf = ngx_stream_tun_cycle_conf(cycle);

    if (tmcf == NULL || tmcf->tuns.nelts == 0 || ngx_test_config) {
        return NGX_OK;
    }

    stp = tmcf->tuns.elts;

    for (i = 0; i < tmcf->tuns.nelts; i++) {
        ngx_tun_device_commit(&stp[i]->device, stp[i]->old, cycle->log);

        if (stp[i]->old == NULL && stp[i]->stack == NGX_TUN_STACK_SYSTEM) {
            ngx_stream_tun_system_test(stp[i], cycle->log);
        }

        stp[i]->old = NULL;
    }

    if (ngx_stream_tun_announce(cycle, tmcf) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_stream_tun_init_phases(cycle);

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i;
    ngx_stream_tun_t            **stp, *st;
    ngx_core_conf_t              *ccf;
    ngx_tun_options_t             options;
    ngx_stream_tun_main_conf_t   *tmcf;

    tmcf = ngx_stream_tun_cycle_conf(cycle);

    if (tmcf == NULL
        || tmcf->tuns.nelts == 0
        || (ngx_process != NGX_PROCESS_WORKER
            && ngx_process != NGX_PROCESS_SINGLE))
    {
        return NGX_OK;
    }

    if ((ngx_event_flags & NGX_USE_CLEAR_EVENT) == 0) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "\"tun\" works with \"use epoll\" only");
        return NGX_ERROR;
    }

    ngx_stream_tun_leave_with_master();
    ngx_stream_tun_keep_memory();

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    /* queues are no more than workers */

    options.parts = tmcf->tuns.nelts * ccf->worker_processes;

    stp = tmcf->tuns.elts;

    for (i = 0; i < tmcf->tuns.nelts; i++) {
        st = stp[i];

        ngx_stream_tun_withhold(st);
        ngx_stream_tun_claim_gauge(st);

        if (st->gauge == NULL) {
            return NGX_ERROR;
        }

        ngx_tun_owner_open(&st->owner, ngx_tun_inherit_owners(st->state),
                           st->handoff.n);

        if (ngx_stream_tun_system_start(st, cycle) != NGX_OK) {
            return NGX_ERROR;
        }

        if (ngx_worker >= st->conf.device.queues) {
            continue;
        }

        options.conf = &st->conf;
        options.device = &st->device;
        options.queue = ngx_worker;
        options.owner = &st->owner;
        options.handoff = &st->handoff;
        options.stat = &st->stat[ngx_worker];
        options.gauge = st->gauge;
        options.state = st->state;
        options.cycle = st->generation;
        options.waits = ngx_stream_tun_passed_on(st);
        options.icmp = (st->icmp != NULL) ? &st->icmp[ngx_worker] : NULL;
        options.system = st->system;
        options.guard = (tmcf->guard.shared != NULL) ? &tmcf->guard : NULL;
        options.part = i * ccf->worker_processes + ngx_worker;

        st->tun = ngx_tun_open(&options, cycle);
        if (st->tun == NULL) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/*
 * Each flow takes and frees buffers, with which glibc would shrink the heap and
 * let it grow again.  It keeps twice of what it has freed in one piece.
 */

static void
ngx_stream_tun_keep_memory(void)
{
    void  *p;

    p = ngx_alloc(NGX_STREAM_TUN_KEEP, ngx_cycle->log);

    if (p != NULL) {
        ngx_free(p);
    }
}


/* a worker without a master would keep the device from the next one */

static void
ngx_stream_tun_leave_with_master(void)
{
    if (ngx_process != NGX_PROCESS_WORKER) {
        return;
    }

    (void) prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);

    if (getppid() != ngx_parent) {
        ngx_terminate = 1;
    }
}


static void
ngx_stream_tun_exit_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i;
    ngx_stream_tun_t            **stp;
    ngx_stream_tun_main_conf_t   *tmcf;

    tmcf = ngx_stream_tun_cycle_conf(cycle);

    if (tmcf == NULL) {
        return;
    }

    if (ngx_exiting) {
        ngx_stream_tun_end_sessions(cycle, tmcf);
    }

    stp = tmcf->tuns.elts;

    for (i = 0; i < tmcf->tuns.nelts; i++) {
        if (stp[i]->system != NULL) {
            ngx_tun_system_abort(stp[i]->system);
        }

        if (stp[i]->tun != NULL) {
            ngx_tun_close(stp[i]->tun);
            stp[i]->tun = NULL;
        }

        if (stp[i]->gauge != NULL) {
            stp[i]->gauge->pid = 0;
            ngx_tun_owner_close(&stp[i]->owner);
        }
    }
}


/* no time was left for them, which nginx would take for a leak */

static void
ngx_stream_tun_end_sessions(ngx_cycle_t *cycle,
    ngx_stream_tun_main_conf_t *tmcf)
{
    ngx_uint_t         i;
    ngx_connection_t  *c;

    for (i = 0; i < cycle->connection_n; i++) {
        c = &cycle->connections[i];

        if (c->fd == (ngx_socket_t) -1
            || c->listening == NULL
            || !ngx_stream_tun_is_session(c, tmcf))
        {
            continue;
        }

        c->close = 1;
        c->error = 1;

        c->read->handler(c->read);
    }
}


static ngx_uint_t
ngx_stream_tun_is_session(ngx_connection_t *c,
    ngx_stream_tun_main_conf_t *tmcf)
{
    ngx_uint_t                 i;
    ngx_stream_tun_listen_t  **stl;

    stl = tmcf->listens.elts;

    for (i = 0; i < tmcf->listens.nelts; i++) {
        if (c->listening == &stl[i]->ls[0] || c->listening == &stl[i]->ls[1]) {
            return 1;
        }
    }

    return 0;
}


static ngx_stream_tun_main_conf_t *
ngx_stream_tun_cycle_conf(ngx_cycle_t *cycle)
{
    if (cycle->conf_ctx == NULL
        || ngx_get_conf(cycle->conf_ctx, ngx_stream_module) == NULL)
    {
        return NULL;
    }

    return ngx_stream_cycle_get_module_main_conf(cycle, ngx_stream_tun_module);
}
