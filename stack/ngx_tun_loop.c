
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>


ngx_uint_t
ngx_tun_looped(ngx_tun_t *tun, ngx_tun_flow_key_t *key)
{
    if (tun->guard == NULL
        || !ngx_tun_guard_find(tun->guard, key, &tun->conf->device.name,
                               tun->log))
    {
        return 0;
    }

    (void) ngx_atomic_fetch_add(&tun->stat->looped, 1);

    return 1;
}


void
ngx_tun_returned(ngx_tun_t *tun, ngx_tun_flow_key_t *key)
{
    size_t      len;
    u_char      text[NGX_SOCKADDR_STRLEN];
    ngx_uint_t  n;

    (void) ngx_atomic_fetch_add(&tun->stat->looped, 1);

    n = (tun->guard != NULL) ? ngx_tun_guard_log(tun->guard) : 0;

    if (n == 0) {
        return;
    }

    len = ngx_inet_ntop((key->addr_len == 16) ? AF_INET6 : AF_INET, key->dst,
                        text, NGX_SOCKADDR_STRLEN);

    ngx_log_error(NGX_LOG_WARN, tun->log, 0,
                  "tun \"%V\": a loop, what was sent to the client %*s is "
                  "routed into the device; %ui since the last line",
                  &tun->conf->device.name, len, text, n);
}
