
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_icmp_socket.h>

#include <netinet/icmp6.h>
#include <linux/icmp.h>


static ngx_socket_t ngx_tun_icmp_socket(int family, int protocol);
static ngx_int_t ngx_tun_icmp_socket_filter(ngx_socket_t s);
static ngx_int_t ngx_tun_icmp_socket_filter6(ngx_socket_t s);


ngx_tun_icmp_sockets_t *
ngx_tun_icmp_sockets_open(ngx_uint_t n, ngx_pool_t *pool, ngx_log_t *log)
{
    ngx_uint_t               i, k;
    ngx_socket_t            *fds;
    ngx_tun_icmp_sockets_t  *sockets;

    sockets = ngx_palloc(pool, n * sizeof(ngx_tun_icmp_sockets_t));
    if (sockets == NULL) {
        return NULL;
    }

    for (i = 0; i < n; i++) {
        sockets[i].fds[0] = (ngx_socket_t) -1;
        sockets[i].fds[1] = (ngx_socket_t) -1;
    }

    for (i = 0; i < n; i++) {
        fds = sockets[i].fds;

        for (k = 0; k < 2; k++) {

            fds[k] = (k == 0) ? ngx_tun_icmp_socket(AF_INET, IPPROTO_ICMP)
                              : ngx_tun_icmp_socket(AF_INET6, IPPROTO_ICMPV6);

            if (fds[k] == (ngx_socket_t) -1) {

                if (ngx_socket_errno == EAFNOSUPPORT) {
                    continue;
                }

                goto failed;
            }

            if (((k == 0) ? ngx_tun_icmp_socket_filter(fds[k])
                          : ngx_tun_icmp_socket_filter6(fds[k]))
                != NGX_OK)
            {
                goto failed;
            }
        }
    }

    return sockets;

failed:

    ngx_log_error(NGX_LOG_EMERG, log, ngx_socket_errno,
                  "a raw socket for \"icmp forward\" cannot be opened");

    ngx_tun_icmp_sockets_close(sockets, n);

    return NULL;
}


static ngx_socket_t
ngx_tun_icmp_socket(int family, int protocol)
{
    return socket(family, SOCK_RAW|SOCK_NONBLOCK|SOCK_CLOEXEC, protocol);
}


/* answers, and errors that may be about what we sent */

static ngx_int_t
ngx_tun_icmp_socket_filter(ngx_socket_t s)
{
    struct icmp_filter  filter;

    filter.data = ~(1U << ICMP_ECHOREPLY
                    | 1U << ICMP_DEST_UNREACH
                    | 1U << ICMP_TIME_EXCEEDED
                    | 1U << ICMP_PARAMETERPROB);

    return (setsockopt(s, SOL_RAW, ICMP_FILTER, &filter,
                       sizeof(struct icmp_filter))
            == 0) ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_tun_icmp_socket_filter6(ngx_socket_t s)
{
    int                  on;
    struct icmp6_filter  filter;

    ICMP6_FILTER_SETBLOCKALL(&filter);
    ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter);
    ICMP6_FILTER_SETPASS(ICMP6_DST_UNREACH, &filter);
    ICMP6_FILTER_SETPASS(ICMP6_PACKET_TOO_BIG, &filter);
    ICMP6_FILTER_SETPASS(ICMP6_TIME_EXCEEDED, &filter);
    ICMP6_FILTER_SETPASS(ICMP6_PARAM_PROB, &filter);

    if (setsockopt(s, IPPROTO_ICMPV6, ICMP6_FILTER, &filter,
                   sizeof(struct icmp6_filter))
        != 0)
    {
        return NGX_ERROR;
    }

    /* the headers of IPv6 are not there to be read */

    on = 1;

    return (setsockopt(s, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &on, sizeof(int))
            == 0) ? NGX_OK : NGX_ERROR;
}


void
ngx_tun_icmp_sockets_close(ngx_tun_icmp_sockets_t *sockets, ngx_uint_t n)
{
    ngx_uint_t  i, k;

    for (i = 0; i < n; i++) {
        for (k = 0; k < 2; k++) {
            if (sockets[i].fds[k] != (ngx_socket_t) -1) {
                (void) ngx_close_socket(sockets[i].fds[k]);
            }
        }
    }
}
