
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_STREAM_TUN_FAKEIP_H_INCLUDED_
#define _NGX_STREAM_TUN_FAKEIP_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_stream.h>

#include <ngx_tun_fakeip.h>


extern ngx_module_t  ngx_stream_tun_fakeip_module;


/*
 * The pool of a `tun_fakeip_zone`, which may come later in the configuration;
 * one that does not come is an error that names the line of cf.  The pool is
 * usable from the start of the workers.  Returns NULL after a log line.
 */
ngx_tun_fakeip_t *ngx_stream_tun_fakeip_zone(ngx_conf_t *cf, ngx_str_t *name);


#endif /* _NGX_STREAM_TUN_FAKEIP_H_INCLUDED_ */
