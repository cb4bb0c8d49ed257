
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_nat_slot.h>
#include <ngx_tun_system.h>

#include <poll.h>


#define NGX_TUN_SYSTEM_TEST_TRIES  4
#define NGX_TUN_SYSTEM_TEST_WAIT   250    /* ms, for each */
#define NGX_TUN_SYSTEM_TEST_READ   64     /* packets of others meanwhile */


typedef struct {
    ngx_tun_system_conf_t    *conf;
    ngx_tun_device_t         *dev;
    u_char                    addr[16];   /* of the tuple */
    ngx_tun_packet_tcp_t      th;
    u_char                   *buf;
} ngx_tun_system_test_t;


static ngx_int_t ngx_tun_system_test_send(ngx_tun_system_test_t *test);
static ngx_int_t ngx_tun_system_test_wait(ngx_tun_system_test_t *test);
static ngx_int_t ngx_tun_system_test_read(ngx_tun_system_test_t *test,
    ngx_socket_t fd);
static void ngx_tun_system_test_queue(ngx_tun_system_test_t *test,
    ngx_tun_queue_t *queue, ngx_socket_t fd);


ngx_int_t
ngx_tun_system_test(ngx_tun_conf_t *conf, ngx_tun_device_t *dev,
    ngx_uint_t family, ngx_log_t *log)
{
    ngx_int_t              rc;
    ngx_uint_t             i;
    ngx_tun_nat_t          nat;
    ngx_tun_system_test_t  test;

    ngx_memzero(&test, sizeof(ngx_tun_system_test_t));

    test.conf = &conf->system[family];
    test.dev = dev;

    test.buf = ngx_alloc(NGX_TUN_QUEUE_HEAD + 65536, log);
    if (test.buf == NULL) {
        return NGX_DECLINED;
    }

    ngx_tun_nat_attach(&nat, test.conf->memory);
    ngx_tun_nat_tuple(&nat, nat.nslots - 1, test.addr, &test.th.src_port);

    test.th.dst_port = test.conf->port;
    test.th.seq = (uint32_t) ngx_random();
    test.th.window = 65535;

    rc = NGX_AGAIN;

    for (i = 0; i < NGX_TUN_SYSTEM_TEST_TRIES && rc == NGX_AGAIN; i++) {

        test.th.flags = NGX_TUN_PACKET_TCP_SYN;

        if (ngx_tun_system_test_send(&test) == NGX_OK) {
            rc = ngx_tun_system_test_wait(&test);
        }
    }

    if (rc == NGX_OK) {
        test.th.seq++;
        test.th.flags = NGX_TUN_PACKET_TCP_RST;
        (void) ngx_tun_system_test_send(&test);
    }

    ngx_free(test.buf);

    return (rc == NGX_OK) ? NGX_OK : NGX_DECLINED;
}


static ngx_int_t
ngx_tun_system_test_send(ngx_tun_system_test_t *test)
{
    size_t           len;
    u_char           buf[NGX_TUN_PACKET_TCP_MIN];
    ngx_tun_queue_t  queue;

    ngx_tun_system_test_queue(test, &queue, test->dev->fds[0]);

    len = ngx_tun_packet_build_tcp(buf, test->addr, test->conf->addr,
                                   test->conf->nat.addr_len, &test->th);

    return ngx_tun_queue_write(&queue, buf, len);
}


/* NGX_OK, NGX_DECLINED after a reset, or NGX_AGAIN after some time */

static ngx_int_t
ngx_tun_system_test_wait(ngx_tun_system_test_t *test)
{
    int            left;
    ngx_int_t      rc;
    ngx_uint_t     i, n;
    struct pollfd  fds[256];

    n = ngx_min(test->dev->conf->queues, 256);

    for (i = 0; i < n; i++) {
        fds[i].fd = test->dev->fds[i];
        fds[i].events = POLLIN;
    }

    for (left = NGX_TUN_SYSTEM_TEST_READ; left > 0; left--) {

        if (poll(fds, n, NGX_TUN_SYSTEM_TEST_WAIT) <= 0) {
            return NGX_AGAIN;
        }

        for (i = 0; i < n; i++) {

            if (fds[i].revents == 0) {
                continue;
            }

            rc = ngx_tun_system_test_read(test, fds[i].fd);

            if (rc != NGX_AGAIN) {
                return rc;
            }
        }
    }

    return NGX_AGAIN;
}


static ngx_int_t
ngx_tun_system_test_read(ngx_tun_system_test_t *test, ngx_socket_t fd)
{
    u_char                *p;
    ssize_t                n;
    ngx_tun_queue_t        queue;
    ngx_tun_packet_t       pkt;
    ngx_tun_packet_tcp_t   th;
    ngx_tun_queue_info_t   info;

    ngx_tun_system_test_queue(test, &queue, fd);

    n = ngx_tun_queue_read(&queue, test->buf, 65535, &info);

    if (n <= 0) {
        return NGX_AGAIN;
    }

    p = test->buf + NGX_TUN_QUEUE_HEAD;

    if (ngx_tun_packet_parse(&pkt, p, p + n) != NGX_TUN_PACKET_OK
        || pkt.fragment
        || pkt.protocol != IPPROTO_TCP
        || pkt.addr_len != test->conf->nat.addr_len
        || ngx_memcmp(pkt.src, test->conf->addr, pkt.addr_len) != 0
        || ngx_memcmp(pkt.dst, test->addr, pkt.addr_len) != 0
        || ngx_tun_packet_parse_tcp(&pkt, &th) != NGX_TUN_PACKET_OK
        || th.src_port != test->th.dst_port
        || th.dst_port != test->th.src_port
        || th.ack != test->th.seq + 1)
    {
        return NGX_AGAIN;
    }

    return (th.flags & NGX_TUN_PACKET_TCP_SYN) ? NGX_OK : NGX_DECLINED;
}


static void
ngx_tun_system_test_queue(ngx_tun_system_test_t *test, ngx_tun_queue_t *queue,
    ngx_socket_t fd)
{
    ngx_memzero(queue, sizeof(ngx_tun_queue_t));

    queue->fd = fd;
    queue->mtu = 65535;
    queue->vnet_len = test->dev->vnet_len;
}
