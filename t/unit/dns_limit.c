
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: dns/ngx_tun_dns_limit.c dns/ngx_tun_dns_near.c dns/ngx_tun_fakeip_name.c */


#include <ngx_config.h>
#include <ngx_core.h>

#include <sys/wait.h>

#include <ngx_tun_dns.h>

#include "lib/tap.h"


ngx_pid_t  ngx_pid;


static ngx_tun_dns_limit_t       *limit;
static ngx_tun_dns_limit_conf_t   conf;


static ngx_uint_t
queries(ngx_atomic_uint_t client, ngx_msec_t now, ngx_uint_t n)
{
    ngx_uint_t  good;

    for (good = 0; n; n--) {
        good += (ngx_tun_dns_limit_query(limit, &conf, client, now) == NGX_OK);
    }

    return good;
}


static ngx_uint_t
names(ngx_atomic_uint_t client, ngx_msec_t now, ngx_uint_t n)
{
    ngx_uint_t  good;

    for (good = 0; n; n--) {
        good += (ngx_tun_dns_limit_name(limit, &conf, client, now) == NGX_OK);
    }

    return good;
}


static ngx_atomic_uint_t
client(ngx_uint_t n)
{
    u_char  addr[4];

    addr[0] = 10;
    addr[1] = (u_char) (n >> 16);
    addr[2] = (u_char) (n >> 8);
    addr[3] = (u_char) n;

    return ngx_tun_dns_limit_client(limit, addr, 4);
}


static void
test_rates(void)
{
    ngx_uint_t  i, n;
    ngx_msec_t  now;

    now = 0xfffff000;

    conf.qps = 10;
    conf.burst = 20;
    conf.names = 5;

    ok(queries(client(1), now, 100) == 20, "burst");
    ok(queries(client(2), now, 100) == 20, "of another client");
    ok(queries(client(1), now + 100, 100) == 1, "a tenth of a second");

    /* the milliseconds of an entry have 32 bits */

    ok(queries(client(1), now + 5000, 100) == 20, "the clock wraps around");

    for (n = 0, i = 1; i <= 10000; i++) {
        n += queries(client(1), now + 5000 + i, 1);
    }

    ok(n >= 98 && n <= 101, "10 a second: %d in ten", (int) n);

    ok(names(client(1), now, 100) == 5, "names");
    ok(names(client(1), now + 11000, 100) == 0, "none after 11 seconds");
    ok(names(client(1), now + 13000, 100) == 1, "one after 12");

    conf.names = 1;
    ok(names(client(3), now, 10) == 1, "a name a minute");

    for (n = 0, i = 1; i <= 59; i++) {
        n += names(client(3), now + i * 1000, 1);
    }

    ok(n == 0, "none before it is over");
    ok(names(client(3), now + 61000, 10) == 1, "one after it");

    conf.qps = 0;
    conf.names = 0;
    ok(queries(client(1), now, 100000) == 100000, "no limit of queries");
    ok(names(client(1), now, 100000) == 100000, "no limit of names");

    conf.qps = 1000000;
    conf.burst = 1000000;
    ok(queries(client(4), now, 1500000) == 1000000, "the greatest limit");

    /* a clock that is a little behind gives nothing */

    ok(queries(client(4), now - 10, 10) == 0, "of a slower worker");
}


static void
test_clients(void)
{
    u_char       one[16], two[16];
    ngx_uint_t   i, n;

    memset(one, 1, 16);
    memset(two, 1, 16);
    two[15] = 2;

    ok(ngx_tun_dns_limit_client(limit, one, 16)
       == ngx_tun_dns_limit_client(limit, two, 16), "an IPv6 /64");

    two[7] = 2;
    ok(ngx_tun_dns_limit_client(limit, one, 16)
       != ngx_tun_dns_limit_client(limit, two, 16), "another");

    /* more than there is room for: the last ones are known */

    conf.qps = 1;
    conf.burst = 1;

    for (i = 0; i < 200000; i++) {
        (void) queries(client(i), 1000 + i, 1);
    }

    for (n = 0; i > 199000; i--) {
        n += (queries(client(i - 1), 201000, 1) == 0);
    }

    ok(n > 990, "a flood of clients: %d of 1000 are known", (int) n);
}


static void
test_tcp(void)
{
    int                       status;
    pid_t                     pid;
    ngx_uint_t                i;
    ngx_tun_dns_limit_tcp_t  *entry[8], *other;

    conf.tcp = 3;
    ngx_pid = getpid();

    for (i = 0; i < 3; i++) {
        ok(ngx_tun_dns_limit_open(limit, &conf, client(9), &entry[i])
           == NGX_OK && entry[i] != NULL, "connection %d", (int) i);
    }

    ok(ngx_tun_dns_limit_open(limit, &conf, client(9), &other) == NGX_BUSY,
       "one too many");
    ok(ngx_tun_dns_limit_open(limit, &conf, client(8), &other) == NGX_OK,
       "of another client");
    ngx_tun_dns_limit_close(other);

    ngx_tun_dns_limit_close(entry[0]);
    ok(ngx_tun_dns_limit_open(limit, &conf, client(9), &entry[0]) == NGX_OK,
       "after one has ended");

    for (i = 0; i < 3; i++) {
        ngx_tun_dns_limit_close(entry[i]);
    }

    /* what another process has, counts for as long as it lives */

    pid = fork();

    if (pid == 0) {
        ngx_pid = getpid();

        for (i = 0; i < 3; i++) {
            (void) ngx_tun_dns_limit_open(limit, &conf, client(9), &other);
        }

        raise(SIGSTOP);
        _exit(0);
    }

    waitpid(pid, &status, WUNTRACED);

    ok(ngx_tun_dns_limit_open(limit, &conf, client(9), &other) == NGX_BUSY,
       "connections of another process");

    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);

    ok(ngx_tun_dns_limit_open(limit, &conf, client(9), &other) == NGX_OK,
       "and of a dead one");

    conf.tcp = 0;
    ok(ngx_tun_dns_limit_open(limit, &conf, client(9), &other) == NGX_OK
       && other == NULL, "no limit of connections");
}


static void
test_near(void)
{
    u_char              *p;
    size_t               i, len;
    struct in6_addr      in6;
    struct sockaddr_in6  sin6;
    ngx_tun_dns_near_t   near;

    static struct {
        const char      *addr;
        int              family;
        ngx_uint_t       near;
    } addrs[] = {
        { "127.1.2.3", AF_INET, 1 },
        { "10.255.0.1", AF_INET, 1 },
        { "11.0.0.1", AF_INET, 0 },
        { "172.15.255.255", AF_INET, 0 },
        { "172.16.0.1", AF_INET, 1 },
        { "172.31.255.255", AF_INET, 1 },
        { "172.32.0.0", AF_INET, 0 },
        { "192.168.0.1", AF_INET, 1 },
        { "192.169.0.1", AF_INET, 0 },
        { "169.254.1.1", AF_INET, 1 },
        { "203.0.113.9", AF_INET, 0 },
        { "::1", AF_INET6, 1 },
        { "::2", AF_INET6, 0 },
        { "fc00::1", AF_INET6, 1 },
        { "fdff::1", AF_INET6, 1 },
        { "fe00::1", AF_INET6, 0 },
        { "fe80::1", AF_INET6, 1 },
        { "fec0::1", AF_INET6, 0 },
        { "2001:db8::1", AF_INET6, 0 },
    };

    /* as if interfaces had been read just now, and there were none */

    memset(&near, 0, sizeof(near));
    near.known = 1;

    for (i = 0; i < sizeof(addrs) / sizeof(addrs[0]); i++) {
        inet_pton(addrs[i].family, addrs[i].addr, &in6);

        ok(ngx_tun_dns_is_near(&near, (u_char *) &in6,
                               addrs[i].family == AF_INET ? 4 : 16, 1)
           == addrs[i].near, "%s", addrs[i].addr);
    }

    inet_pton(AF_INET6, "2001:db8:1::", near.prefixes[0].addr);
    near.prefixes[0].addr_len = 16;
    near.prefixes[0].bits = 47;
    near.n = 1;

    inet_pton(AF_INET6, "2001:db8:0:ffff::", &in6);
    ok(ngx_tun_dns_is_near(&near, (u_char *) &in6, 16, 1), "in a prefix");
    inet_pton(AF_INET6, "2001:db8:2::", &in6);
    ok(!ngx_tun_dns_is_near(&near, (u_char *) &in6, 16, 1), "not in it");

    memset(&sin6, 0, sizeof(sin6));
    sin6.sin6_family = AF_INET6;
    inet_pton(AF_INET6, "::ffff:192.0.2.1", &sin6.sin6_addr);

    p = ngx_tun_dns_address((struct sockaddr *) &sin6, &len);
    ok(len == 4 && memcmp(p, "\300\0\2\1", 4) == 0, "mapped IPv4");
}


int
main(void)
{
    limit = mmap(NULL, sizeof(ngx_tun_dns_limit_t), PROT_READ|PROT_WRITE,
                 MAP_SHARED|MAP_ANONYMOUS, -1, 0);

    memcpy(limit->key, "0123456789abcdef", 16);

    test_rates();
    test_clients();
    test_tcp();
    test_near();

    return done();
}
