
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>


#if (nginx_version >= 1025005)

static ngx_int_t ngx_stream_tun_preread_phase(ngx_stream_session_t *s,
    ngx_stream_phase_handler_t *ph);

#endif


void
ngx_stream_tun_init_connection(ngx_connection_t *c)
{
    ngx_stream_init_connection(c);
}


ngx_int_t
ngx_stream_tun_init_phases(ngx_cycle_t *cycle)
{
#if (nginx_version >= 1025005)

    ngx_stream_phase_handler_t   *ph;
    ngx_stream_core_main_conf_t  *cmcf;

    cmcf = ngx_stream_cycle_get_module_main_conf(cycle,
                                                 ngx_stream_core_module);

    for (ph = cmcf->phase_engine.handlers; ph->checker != NULL; ph++) {
        if (ph->checker == ngx_stream_core_preread_phase) {
            ph->checker = ngx_stream_tun_preread_phase;
        }
    }

#endif

    return NGX_OK;
}


#if (nginx_version >= 1025005)

/* the preread phase peeks at c->fd, where ours has no data, when it may */

static ngx_int_t
ngx_stream_tun_preread_phase(ngx_stream_session_t *s,
    ngx_stream_phase_handler_t *ph)
{
    ngx_int_t   rc;
    ngx_uint_t  rdhup;

    if (!ngx_stream_tun_session(s)) {
        return ngx_stream_core_preread_phase(s, ph);
    }

    rdhup = ngx_use_epoll_rdhup;
    ngx_use_epoll_rdhup = 0;

    rc = ngx_stream_core_preread_phase(s, ph);

    ngx_use_epoll_rdhup = rdhup;

    return rc;
}

#endif
