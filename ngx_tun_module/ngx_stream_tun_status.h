
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_STREAM_TUN_STATUS_H_INCLUDED_
#define _NGX_STREAM_TUN_STATUS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * What `tun_status` shows: groups of objects, which are devices or zones.  The
 * tables of metrics are all that its formats know, so none leaves one out.
 */


typedef struct {
    ngx_str_t                          name;
    const char                        *help;    /* without a final period */
    size_t                             offset;  /* of an ngx_atomic_t */
    ngx_uint_t                         gauge;   /* it may fall */
} ngx_stream_tun_metric_t;


#define ngx_stream_tun_counter(type, name, help)                              \
    { ngx_string(#name), help, offsetof(type, name), 0 }

#define ngx_stream_tun_gauge(type, name, help)                                \
    { ngx_string(#name), help, offsetof(type, name), 1 }

#define ngx_stream_tun_element(type, name, array, n, help)                    \
    { ngx_string(#name), help,                                                \
      offsetof(type, array) + (n) * sizeof(ngx_atomic_t), 0 }

#define ngx_stream_tun_metric(stat, metric)                                   \
    (*(ngx_atomic_t *) ((u_char *) (stat) + (metric)->offset))


typedef struct {
    ngx_str_t                          name;
    const char                        *stack;   /* of a device, or NULL */
    void                              *own;     /* values of it as a whole */
    ngx_uint_t                         workers;
    u_char                            *stats;   /* a copy, of each worker */
    void                              *total;   /* their sum */
} ngx_stream_tun_object_t;


typedef struct {
    ngx_str_t                          key;     /* in JSON */
    ngx_str_t                          prefix;  /* of Prometheus */
    ngx_str_t                          label;
    const char                        *title;

    const ngx_stream_tun_metric_t     *own;     /* metrics of objects */
    ngx_uint_t                         nown;
    const ngx_stream_tun_metric_t     *metrics; /* metrics of workers */
    ngx_uint_t                         nmetrics;
    size_t                             size;    /* of what these are in */

    ngx_array_t                        objects;
} ngx_stream_tun_group_t;


/*
 * Copies the counters of an object's workers, max of them at most: those that
 * are, and those that were before a reload made them less.  Each is read once,
 * so that the total is the sum of what is shown.
 */
ngx_int_t ngx_stream_tun_status_copy(ngx_stream_tun_group_t *group,
    ngx_stream_tun_object_t *object, void *stats, ngx_uint_t max,
    ngx_pool_t *pool);

/* They fill a group from the configuration of the cycle. */
ngx_int_t ngx_stream_tun_status(ngx_stream_tun_group_t *group,
    ngx_pool_t *pool);
ngx_int_t ngx_stream_tun_fakeip_status(ngx_stream_tun_group_t *group,
    ngx_pool_t *pool);
ngx_int_t ngx_stream_tun_dns_status(ngx_stream_tun_group_t *group,
    ngx_pool_t *pool);


#endif /* _NGX_STREAM_TUN_STATUS_H_INCLUDED_ */
