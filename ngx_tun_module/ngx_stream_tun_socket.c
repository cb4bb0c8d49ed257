
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_upstream.h>

#include <net/if.h>
#include <sys/syscall.h>


static char *ngx_stream_tun_socket_mark(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_tun_upstream_conf_t *tucf);
static char *ngx_stream_tun_test_socket(ngx_conf_t *cf,
    ngx_stream_tun_upstream_conf_t *tucf);
#if (NGX_HAVE_CAPABILITIES)
static ngx_int_t ngx_stream_tun_effective(uint32_t mask, uint32_t *saved);
#endif


char *
ngx_stream_tun_socket(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_upstream_conf_t *tucf = conf;

    char             *rv;
    ngx_str_t        *value;
    ngx_uint_t        i;
    ngx_core_conf_t  *ccf;

    if (tucf->socket) {
        return "is duplicate";
    }

    tucf->socket = 1;
    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "mark=", 5) == 0 && !tucf->marked) {
            rv = ngx_stream_tun_socket_mark(cf, &value[i], tucf);
            if (rv != NGX_CONF_OK) {
                return rv;
            }

            continue;
        }

        if (ngx_strncmp(value[i].data, "bind_device=", 12) == 0
            && tucf->device.len == 0)
        {
            tucf->device.data = value[i].data + 12;
            tucf->device.len = value[i].len - 12;

            if (tucf->device.len > 0 && tucf->device.len < IFNAMSIZ) {
                continue;
            }
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"",
                           &value[i]);
        return NGX_CONF_ERROR;
    }

    /* nginx leaves CAP_NET_RAW to its workers, as for "proxy_bind" */

    ccf = (ngx_core_conf_t *) ngx_get_conf(cf->cycle->conf_ctx,
                                           ngx_core_module);
    ccf->transparent = 1;

    return ngx_stream_tun_test_socket(cf, tucf);
}


/* of forwarded pings, in a "tun" block */

char *
ngx_stream_tun_icmp_socket(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_t *st = conf;

    if (st->socket == NULL) {
        st->socket = ngx_pcalloc(cf->pool,
                                 sizeof(ngx_stream_tun_upstream_conf_t));
        if (st->socket == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    return ngx_stream_tun_socket(cf, cmd, st->socket);
}


static char *
ngx_stream_tun_socket_mark(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_tun_upstream_conf_t *tucf)
{
    u_char     *p;
    size_t      len;
    ngx_int_t   n;

    p = value->data + 5;
    len = value->len - 5;

    if (len > 2 && ngx_strncmp(p, "0x", 2) == 0) {
        n = ngx_hextoi(p + 2, len - 2);

    } else {
        n = ngx_atoi(p, len);
    }

    if (n < 1 || (uint64_t) n > 0xffffffff) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid mark \"%V\", it must be a number from 1 "
                           "to 0xffffffff", value);
        return NGX_CONF_ERROR;
    }

    tucf->mark = (uint32_t) n;
    tucf->marked = 1;

    return NGX_CONF_OK;
}


ngx_stream_tun_upstream_conf_t *
ngx_stream_tun_socket_conf(ngx_stream_session_t *s)
{
    ngx_stream_tun_upstream_conf_t  *tucf;

    tucf = ngx_stream_get_module_srv_conf(s, ngx_stream_tun_upstream_module);

    return tucf->socket ? tucf : NULL;
}


ngx_int_t
ngx_stream_tun_set_icmp_sockets(ngx_stream_tun_t *st, ngx_log_t *log)
{
    ngx_uint_t  i, k;

    if (st->socket == NULL) {
        return NGX_OK;
    }

    for (i = 0; i < st->conf.device.queues; i++) {

        for (k = 0; k < 2; k++) {

            if (st->icmp[i].fds[k] == (ngx_socket_t) -1
                || ngx_stream_tun_set_socket(st->socket, st->icmp[i].fds[k],
                                             log)
                   == NGX_OK)
            {
                continue;
            }

            ngx_log_error(NGX_LOG_EMERG, log, 0,
                          "\"tun_socket\" of tun \"%V\" in %s:%ui cannot be "
                          "had", &st->conf.device.name, st->file, st->line);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


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

static char *
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
