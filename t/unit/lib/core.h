
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _CORE_H_INCLUDED_
#define _CORE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/* the clock of the wall, and the one that only goes on */
void core_set_time(time_t sec, ngx_msec_t msec);

/* the format of the last line of the log */
extern u_char  core_log[];


#endif /* _CORE_H_INCLUDED_ */
