
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: stack/ngx_tun_icmp.c stack/ngx_tun_packet.c stack/ngx_tun_packet_icmp.c stack/ngx_tun_flow.c */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_icmp.h>
#include <ngx_tun_icmp_forward.h>

#include "lib/tap.h"


/* what belongs to nginx, and to a device */

volatile ngx_msec_t  ngx_current_msec = 5000;

static u_char        last[2000];
static size_t        last_len;
static ngx_uint_t    written;
static ngx_uint_t    broadcast;


void *
ngx_alloc(size_t size, ngx_log_t *log)
{
    return malloc(size);
}


void *
ngx_calloc(size_t size, ngx_log_t *log)
{
    return calloc(1, size);
}


void
ngx_log_error_core(ngx_uint_t level, ngx_log_t *log, ngx_err_t err,
    const char *fmt, ...)
{
}


ngx_int_t
ngx_tun_queue_write(ngx_tun_queue_t *queue, u_char *p, size_t len)
{
    memcpy(last, p, len);
    last_len = len;
    written++;

    return NGX_OK;
}


void
ngx_tun_post_flush(ngx_tun_t *tun)
{
}


ngx_uint_t
ngx_tun_broadcast(ngx_tun_t *tun, u_char *addr, size_t addr_len)
{
    return broadcast;
}


ngx_tun_icmp_forward_t *
ngx_tun_icmp_forward_open(ngx_tun_t *tun, ngx_tun_icmp_sockets_t *sockets,
    ngx_uint_t part, ngx_uint_t parts)
{
    return NULL;
}


void
ngx_tun_icmp_forward_close(ngx_tun_icmp_forward_t *fwd)
{
}


ngx_int_t
ngx_tun_icmp_forward_send(ngx_tun_icmp_forward_t *fwd, ngx_tun_packet_t *pkt,
    ngx_tun_packet_icmp_t *icmp, ngx_tun_icmp_error_e *error)
{
    return NGX_OK;
}


static void
setup(ngx_tun_t *tun, ngx_tun_address_t *addresses, ngx_uint_t n)
{
    static ngx_log_t       log;
    static ngx_tun_conf_t  conf;
    static ngx_tun_stat_t  stat;

    memset(tun, 0, sizeof(ngx_tun_t));
    memset(&conf, 0, sizeof(ngx_tun_conf_t));
    memset(&stat, 0, sizeof(ngx_tun_stat_t));

    conf.device.addresses.elts = addresses;
    conf.device.addresses.nelts = n;
    conf.device.mtu = 1500;

    tun->conf = &conf;
    tun->stat = &stat;
    tun->log = &log;

    broadcast = 0;

    ok(ngx_tun_flow_table_init(&tun->flows, &log) == NGX_OK
       && ngx_tun_icmp_open(tun, NULL) == NGX_OK, "open");
}


static void
end(ngx_tun_t *tun)
{
    ngx_tun_icmp_close(tun);
    ngx_tun_flow_table_done(&tun->flows);
}


static void
flow(ngx_tun_flow_key_t *key, ngx_uint_t addr_len, u_char net, u_char host)
{
    memset(key, 0, sizeof(ngx_tun_flow_key_t));

    key->addr_len = (uint16_t) addr_len;
    key->protocol = IPPROTO_UDP;
    key->src_port = 4000;
    key->dst_port = 53;

    key->src[0] = (addr_len == 4) ? 10 : 0xfd;
    key->src[addr_len == 4 ? 2 : 7] = net;
    key->src[addr_len - 1] = host;

    key->dst[0] = (addr_len == 4) ? 192 : 0x20;
    key->dst[addr_len - 1] = 9;
}


static ngx_uint_t
burst(ngx_tun_t *tun, ngx_tun_flow_key_t *key, ngx_uint_t n)
{
    ngx_uint_t  before;

    before = written;

    while (n--) {
        ngx_tun_icmp_error(tun, NGX_TUN_ICMP_PORT_UNREACHABLE, key, 100);
    }

    return written - before;
}


static void
test_limit(ngx_uint_t addr_len)
{
    ngx_tun_t           tun;
    ngx_uint_t          i, n;
    ngx_tun_flow_key_t  key;

    setup(&tun, NULL, 0);

    flow(&key, addr_len, 1, 1);

    ok(burst(&tun, &key, 1000) == 100, "a burst");
    ok(tun.stat->icmp_errors == 100 && tun.stat->limited_icmp == 900,
       "counted");

    ngx_current_msec += 250;
    ok(burst(&tun, &key, 1000) == 25, "what a quarter of a second gives");

    ngx_current_msec += 100000;
    ok(burst(&tun, &key, 1000) == 100, "no more than a burst");

    flow(&key, addr_len, 1, 2);
    ok(burst(&tun, &key, 1000) == (addr_len == 4 ? 100 : 0),
       "another host of the network");

    flow(&key, addr_len, 2, 1);
    ok(burst(&tun, &key, 1000) == 100, "another network");

    /* ten seconds of ten times as much */

    flow(&key, addr_len, 3, 1);

    for (i = 0, n = 0; i < 10000; i++) {
        ngx_current_msec++;
        n += burst(&tun, &key, 1);
    }

    ok(n >= 1095 && n <= 1105, "the rate, %u", (unsigned) n);

    /* the clock of nginx starts anywhere, and may pass its end */

    ngx_current_msec = (ngx_msec_t) -50;
    ngx_tun_icmp_close(&tun);
    (void) ngx_tun_icmp_open(&tun, NULL);

    n = burst(&tun, &key, 60);
    ngx_current_msec += 100;
    n += burst(&tun, &key, 1000);
    ok(n >= 105 && n <= 110, "the clock passes its end, %u", (unsigned) n);

    ngx_current_msec += ((ngx_msec_t) -1) / 2 + 5000;
    ok(burst(&tun, &key, 1000) == 100, "half its way");

    end(&tun);
}


static void
test_refused(ngx_uint_t addr_len)
{
    ngx_tun_t           tun;
    ngx_tun_flow_key_t  key;

    setup(&tun, NULL, 0);
    flow(&key, addr_len, 1, 1);

    tun.conf->icmp = NGX_TUN_ICMP_DROP;
    ok(burst(&tun, &key, 1) == 0, "drop");

    tun.conf->icmp = NGX_TUN_ICMP_FORWARD;
    ok(burst(&tun, &key, 1) == 1, "forward");

    broadcast = 1;
    ok(burst(&tun, &key, 1) == 0, "broadcast");

    broadcast = 0;
    key.dst[0] = (addr_len == 4) ? 224 : 0xff;
    ok(burst(&tun, &key, 1) == 0, "multicast");

    end(&tun);
}


/* from whom an error comes, and about what */

static void
test_source(void)
{
    u_char              *src, *quote;
    size_t               ip_len;
    ngx_tun_t            tun;
    ngx_uint_t           i, n;
    ngx_tun_flow_key_t   key;

    static struct {
        const char            *name;
        ngx_tun_icmp_error_e   error;
        ngx_tun_address_t      addr;
        u_char                 src;      /* its last byte */
    } cases[] = {
        { "a port", NGX_TUN_ICMP_PORT_UNREACHABLE,
          { { 198, 18, 0, 1 }, 4, 15 }, 9 },
        { "a host", NGX_TUN_ICMP_HOST_UNREACHABLE,
          { { 198, 18, 0, 1 }, 4, 15 }, 2 },
        { "a policy", NGX_TUN_ICMP_PROHIBITED,
          { { 198, 18, 0, 1 }, 4, 15 }, 2 },
        { "a size", NGX_TUN_ICMP_TOO_BIG,
          { { 198, 18, 0, 254 }, 4, 24 }, 253 },
        { "a TTL, /30", NGX_TUN_ICMP_TIME_EXCEEDED,
          { { 198, 18, 0, 1 }, 4, 30 }, 2 },
        { "a TTL, /30, the other one", NGX_TUN_ICMP_TIME_EXCEEDED,
          { { 198, 18, 0, 2 }, 4, 30 }, 1 },
        { "a TTL, /29", NGX_TUN_ICMP_TIME_EXCEEDED,
          { { 198, 18, 0, 14 }, 4, 29 }, 13 },
        { "a TTL, /31", NGX_TUN_ICMP_TIME_EXCEEDED,
          { { 198, 18, 0, 1 }, 4, 31 }, 9 },
        { "a TTL, /32", NGX_TUN_ICMP_TIME_EXCEEDED,
          { { 198, 18, 0, 1 }, 4, 32 }, 9 },
        { "a TTL, another family", NGX_TUN_ICMP_TIME_EXCEEDED,
          { { 0xfd, 0, 0, 1 }, 16, 64 }, 9 },
        { "a port", NGX_TUN_ICMP_PORT_UNREACHABLE,
          { { 0xfd, [15] = 1 }, 16, 64 }, 9 },
        { "a TTL", NGX_TUN_ICMP_TIME_EXCEEDED,
          { { 0xfd, [15] = 1 }, 16, 64 }, 2 },
        { "a TTL, /128", NGX_TUN_ICMP_TIME_EXCEEDED,
          { { 0xfd, [15] = 1 }, 16, 128 }, 9 }
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        setup(&tun, &cases[i].addr, 1);

        n = (cases[i].addr.addr_len == 4 || i == 9) ? 4 : 16;
        ip_len = (n == 4) ? 20 : 40;

        flow(&key, n, 1, 1);
        ngx_tun_icmp_error(&tun, cases[i].error, &key, 100);

        src = last + ip_len - n * 2;
        quote = last + ip_len + 8 + ip_len;

        ok(src[n - 1] == cases[i].src
           && src[0] == (cases[i].src == 9 ? key.dst : cases[i].addr.addr)[0]
           && memcmp(src + n, key.src, n) == 0
           && memcmp(quote - n * 2, key.src, n) == 0
           && memcmp(quote - n, key.dst, n) == 0
           && memcmp(quote, "\x0f\xa0\0\x35\0\x6c\0\0", 8) == 0
           && last_len == ip_len * 2 + 16,
           "about %s, family %u", cases[i].name, (unsigned) n);

        end(&tun);
    }
}


int
main(void)
{
    test_limit(4);
    test_limit(16);
    test_refused(4);
    test_refused(16);
    test_source();

    return done();
}
