
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_icmp_socket.h>

#include <netinet/icmp6.h>
#include <linux/filter.h>
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


/* what is too short for a load is not for us, either */

ngx_int_t
ngx_tun_icmp_socket_ids(ngx_socket_t s, int family, ngx_uint_t first,
    ngx_uint_t n)
{
    struct sock_fprog   prog;
    struct sock_filter  ids[] = {

        BPF_JUMP(BPF_JMP|BPF_JGE|BPF_K, first, 0, 2),
        BPF_JUMP(BPF_JMP|BPF_JGE|BPF_K, first + n, 1, 0),
        BPF_STMT(BPF_RET|BPF_K, 0xffffffff),
        BPF_STMT(BPF_RET|BPF_K, 0)
    };

    /* from the IP header on: X is where ICMP is, then where its quote is */

    struct sock_filter  ipv4[] = {
        BPF_STMT(BPF_LDX|BPF_B|BPF_MSH, 0),
        BPF_STMT(BPF_LD|BPF_B|BPF_IND, 0),
        BPF_JUMP(BPF_JMP|BPF_JEQ|BPF_K, ICMP_ECHOREPLY, 0, 2),
        BPF_STMT(BPF_LD|BPF_H|BPF_IND, 4),
        BPF_STMT(BPF_JMP|BPF_JA, 6),
        BPF_STMT(BPF_LD|BPF_B|BPF_IND, 8),
        BPF_STMT(BPF_ALU|BPF_AND|BPF_K, 0x0f),
        BPF_STMT(BPF_ALU|BPF_LSH|BPF_K, 2),
        BPF_STMT(BPF_ALU|BPF_ADD|BPF_X, 0),
        BPF_STMT(BPF_MISC|BPF_TAX, 0),
        BPF_STMT(BPF_LD|BPF_H|BPF_IND, 8 + 4),
        ids[0], ids[1], ids[2], ids[3]
    };

    /* from the ICMPv6 header on */

    struct sock_filter  ipv6[] = {
        BPF_STMT(BPF_LD|BPF_B|BPF_ABS, 0),
        BPF_JUMP(BPF_JMP|BPF_JEQ|BPF_K, ICMP6_ECHO_REPLY, 0, 2),
        BPF_STMT(BPF_LD|BPF_H|BPF_ABS, 4),
        BPF_STMT(BPF_JMP|BPF_JA, 1),
        BPF_STMT(BPF_LD|BPF_H|BPF_ABS, 8 + 40 + 4),
        ids[0], ids[1], ids[2], ids[3]
    };

    if (family == AF_INET) {
        prog.filter = ipv4;
        prog.len = sizeof(ipv4) / sizeof(struct sock_filter);

    } else {
        prog.filter = ipv6;
        prog.len = sizeof(ipv6) / sizeof(struct sock_filter);
    }

    return (setsockopt(s, SOL_SOCKET, SO_ATTACH_FILTER, &prog,
                       sizeof(struct sock_fprog))
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
