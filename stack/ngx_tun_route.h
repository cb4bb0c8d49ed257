
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_ROUTE_H_INCLUDED_
#define _NGX_TUN_ROUTE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_device.h>


/*
 * Policy rules and routes that lead into a device, by rtnetlink in the
 * namespace of the device.  A device has a table of its own, with the number
 * conf->table, and the preferences of rules from that number on; everything
 * carries NGX_TUN_ROUTE_PROTOCOL.  Only what has all that is ever removed, and
 * nothing is remembered: what a killed process has left is found again.
 *
 * The only caller is ngx_tun_device.c, in the process that opens devices.
 */


#define NGX_TUN_ROUTE_PROTOCOL     177
#define NGX_TUN_ROUTE_PREFERENCES  16


/*
 * Makes what the configuration wants and is not there: routes first, then
 * rules.  What is there already is not touched.  NGX_OK, or NGX_ERROR after a
 * line [emerg]; then ngx_tun_route_prune() with the former configuration
 * takes back what was made.
 */
ngx_int_t ngx_tun_route_add(ngx_tun_device_t *dev, ngx_log_t *log);

/*
 * Removes what conf does not want, everything if it is NULL: rules first,
 * then routes.  Failures are logged.
 */
void ngx_tun_route_prune(ngx_tun_device_t *dev, ngx_tun_device_conf_t *conf,
    ngx_log_t *log);

/* Names the kernel's settings that break conf in a line [warn]. */
void ngx_tun_route_warn(ngx_tun_device_t *dev, ngx_log_t *log);


#endif /* _NGX_TUN_ROUTE_H_INCLUDED_ */
