
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_upstream.h>

#include <sys/syscall.h>


#if (NGX_HAVE_CAPABILITIES)
static ngx_int_t ngx_stream_tun_effective(uint32_t mask, uint32_t *saved);
#endif


ngx_int_t
ngx_stream_tun_set_socket(ngx_stream_tun_upstream_conf_t *tucf,
    ngx_socket_t fd, ngx_log_t *log)
{
    if (tucf->marked
        && setsockopt(fd, SOL_SOCKET, SO_MARK, &tucf->mark, sizeof(uint32_t))
           == -1)
    {
        ngx_log_error(NGX_LOG_ERR, log, ngx_socket_errno,
                      "setsockopt(SO_MARK, %uD) failed", tucf->mark);
        return NGX_ERROR;
    }

    if (tucf->device.len
        && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, tucf->device.data,
                      tucf->device.len)
           == -1)
    {
        ngx_log_error(NGX_LOG_ERR, log, ngx_socket_errno,
                      "setsockopt(SO_BINDTODEVICE, \"%V\") failed",
                      &tucf->device);
        return NGX_ERROR;
    }

    return NGX_OK;
}


/*
 * What the kernel lets a process do that has nothing but CAP_NET_RAW, which is
 * all that nginx leaves to its workers; Linux before 5.17 wants more for marks.
 */

char *
ngx_stream_tun_test_socket(ngx_conf_t *cf,
    ngx_stream_tun_upstream_conf_t *tucf)
{
    ngx_int_t         rc;
    ngx_uint_t        limited;
    ngx_socket_t      s;
    ngx_core_conf_t  *ccf;
#if (NGX_HAVE_CAPABILITIES)
    uint32_t          saved;
#endif

    if (ngx_process == NGX_PROCESS_SIGNALLER) {
        return NGX_CONF_OK;
    }

    ccf = (ngx_core_conf_t *) ngx_get_conf(cf->cycle->conf_ctx,
                                           ngx_core_module);

    limited = (geteuid() == 0 && ccf->user != 0);

    s = ngx_socket(AF_INET, SOCK_STREAM, 0);
    if (s == (ngx_socket_t) -1) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_socket_errno,
                           ngx_socket_n " failed");
        return NGX_CONF_ERROR;
    }

    rc = NGX_OK;

#if (NGX_HAVE_CAPABILITIES)

    if (limited) {
        rc = ngx_stream_tun_effective(1 << CAP_NET_RAW, &saved);
    }

#endif

    if (rc == NGX_OK) {
        rc = ngx_stream_tun_set_socket(tucf, s, cf->log);

        if (rc != NGX_OK && ngx_socket_errno == ENODEV) {
            /* the interface may come later */
            rc = NGX_OK;
        }

#if (NGX_HAVE_CAPABILITIES)

        if (limited
            && ngx_stream_tun_effective(saved, NULL) != NGX_OK)
        {
            rc = NGX_ERROR;
        }

#endif
    }

    ngx_close_socket(s);

    if (rc != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"tun_socket\" cannot be had by worker processes: "
                           "it takes CAP_NET_RAW, and Linux 5.17 for a mark");
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


#if (NGX_HAVE_CAPABILITIES)

/* changes the effective capabilities, for a moment; the others are kept */

static ngx_int_t
ngx_stream_tun_effective(uint32_t mask, uint32_t *saved)
{
    struct __user_cap_header_struct  header;
    struct __user_cap_data_struct    data[2];

    ngx_memzero(&header, sizeof(struct __user_cap_header_struct));
    ngx_memzero(data, sizeof(data));

    header.version = _LINUX_CAPABILITY_VERSION_3;

    if (syscall(SYS_capget, &header, data) == -1) {
        return NGX_ERROR;
    }

    if (saved != NULL) {
        *saved = data[0].effective;
    }

    data[0].effective = mask;

    return (syscall(SYS_capset, &header, data) == -1) ? NGX_ERROR : NGX_OK;
}

#endif
