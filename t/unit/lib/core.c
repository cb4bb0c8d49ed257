
/*
 * Copyright (C) the nginx-tun authors
 */


/* what nginx's core has for those who are linked without it */


#include <ngx_config.h>
#include <ngx_core.h>

#include "core.h"


static ngx_time_t  core_time;


volatile ngx_msec_t   ngx_current_msec;
volatile ngx_time_t  *ngx_cached_time = &core_time;
volatile ngx_cycle_t  *ngx_cycle;
ngx_uint_t            ngx_cacheline_size = 64;
ngx_uint_t            ngx_pagesize = 4096;

u_char  core_log[4096];


void
core_set_time(time_t sec, ngx_msec_t msec)
{
    core_time.sec = sec;
    ngx_current_msec = msec;
}


void *
ngx_alloc(size_t size, ngx_log_t *log)
{
    return malloc(size);
}


void *
ngx_calloc(size_t size, ngx_log_t *log)
{
    return calloc(1, size);
}


/* the format only: what is said is for tests with nginx */

void
ngx_log_error_core(ngx_uint_t level, ngx_log_t *log, ngx_err_t err,
    const char *fmt, ...)
{
    strncpy((char *) core_log, fmt, sizeof(core_log) - 1);
}
