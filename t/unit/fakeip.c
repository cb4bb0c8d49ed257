
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: t/unit/lib/core.c dns/ngx_tun_fakeip.c dns/ngx_tun_fakeip_entry.c dns/ngx_tun_fakeip_memory.c dns/ngx_tun_fakeip_name.c */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_fakeip_pool.h>

#include <sys/mman.h>
#include <sys/wait.h>

#include "lib/core.h"
#include "lib/tap.h"


#define DAY    86400
#define START  1700000000


typedef struct {
    ngx_tun_fakeip_t  fip;
    size_t            size;
    void             *memory;
} pool_t;


static ngx_msec_t  msec = 5000000;
static time_t      wall = START;


static void
at(time_t seconds)
{
    msec += seconds * 1000;
    wall += seconds;

    core_set_time(wall, msec);
}


static void
prefix(ngx_tun_fakeip_prefix_t *p, const char *addr, ngx_uint_t bits)
{
    p->prefix = bits;
    p->addr_len = strchr(addr, ':') ? 16 : 4;

    inet_pton(p->addr_len == 4 ? AF_INET : AF_INET6, addr, p->addr);
}


static void
conf(ngx_tun_fakeip_conf_t *c, const char *v4, ngx_uint_t bits4,
    const char *v6, ngx_uint_t bits6)
{
    memset(c, 0, sizeof(*c));

    if (v4) {
        prefix(&c->prefix[0], v4, bits4);
    }

    if (v6) {
        prefix(&c->prefix[1], v6, bits6);
    }

    c->ttl = 30;
    c->hold = 3600;
    memcpy(c->key, "0123456789abcdef", 16);
}


static void *
shared(size_t size)
{
    return mmap(NULL, size, PROT_READ|PROT_WRITE, MAP_ANON|MAP_SHARED, -1, 0);
}


static ngx_tun_fakeip_t *
make(pool_t *pool, size_t more)
{
    pool->size = ngx_tun_fakeip_size(&pool->fip.conf) + more;
    pool->memory = shared(pool->size);

    if (ngx_tun_fakeip_create(&pool->fip, pool->memory, pool->size)
        != NGX_OK)
    {
        ok(0, "create");
        exit(1);
    }

    return &pool->fip;
}


static void
unmake(pool_t *pool)
{
    munmap(pool->memory, pool->size);
}


/* "a.b" as a name of the wire */

static size_t
wire(u_char *name, const char *fmt, ...)
{
    char       text[512];
    size_t     len;
    va_list    args;
    ngx_str_t  s;

    va_start(args, fmt);
    s.len = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);

    s.data = (u_char *) text;

    if (ngx_tun_fakeip_wire(&s, name, &len) != NGX_OK) {
        fprintf(stderr, "no name: %s\n", text);
        abort();
    }

    return len;
}


static uint32_t
assign(ngx_tun_fakeip_t *fip, ngx_int_t want, const char *fmt, ...)
{
    char       text[300];
    size_t     len;
    u_char     name[255];
    va_list    args;
    uint32_t   index;
    ngx_int_t  rc;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);

    len = wire(name, "%s", text);
    index = NGX_TUN_FAKEIP_NONE;

    rc = ngx_tun_fakeip_assign(fip, name, len, 1, &index);

    if (rc != want) {
        ok(0, "%s: %ld instead of %ld", text, (long) rc, (long) want);
    }

    return index;
}


/* does the pool know this name at this index, both ways and both families? */

static int
is_at(ngx_tun_fakeip_t *fip, uint32_t index, const char *text)
{
    size_t    len, n;
    u_char    name[255], got[255], addr[16];
    uint32_t  i;
    unsigned  family;

    len = wire(name, "%s", text);

    if (ngx_tun_fakeip_assign(fip, name, len, 0, &i) != NGX_OK || i != index) {
        return 0;
    }

    for (family = 0; family < 2; family++) {

        if (fip->conf.prefix[family].addr_len == 0) {
            continue;
        }

        if (ngx_tun_fakeip_address(fip, index, family ? 16 : 4, addr)
            != NGX_OK
            || ngx_tun_fakeip_name(fip, addr, family ? 16 : 4, got, &n)
               != NGX_OK
            || n != len || memcmp(got, name, n) != 0)
        {
            return 0;
        }
    }

    return 1;
}


static ngx_tun_fakeip_stat_t
stat_of(ngx_tun_fakeip_t *fip)
{
    ngx_tun_fakeip_stat_t  stat;

    ngx_tun_fakeip_stat(fip, &stat);

    return stat;
}


static void
test_hash(void)
{
    u_char    key[16], data[64];
    unsigned  i;

    for (i = 0; i < 16; i++) {
        key[i] = i;
    }

    for (i = 0; i < 64; i++) {
        data[i] = i;
    }

    /* vectors of the authors, of little-endian bytes */

    ok(ngx_tun_fakeip_hash(key, data, 0) == 0x726fdb47dd0e0e31ull,
       "SipHash of nothing");
    ok(ngx_tun_fakeip_hash(key, data, 8) == 0x93f5f5799a932462ull,
       "SipHash of 8 bytes");
    ok(ngx_tun_fakeip_hash(key, data, 15) == 0xa129ca6149be45e5ull,
       "SipHash of 15 bytes");
    ok(ngx_tun_fakeip_hash(key, data, 63) == 0x958a324ceb064572ull,
       "SipHash of 63 bytes");

    ok(~ngx_tun_fakeip_crc32c(0xffffffff, (u_char *) "123456789", 9)
       == 0xe3069283, "CRC-32C");
}


static void
test_names(void)
{
    size_t               len;
    u_char               name[255], text[NGX_TUN_FAKEIP_TEXT_MAX], *end;
    unsigned             i;
    ngx_str_t            s;
    char                 labels[256];
    static const char   *bad[] = { "", ".", "a..b", ".a", "a b", "a\\.b",
                                   "caf\xc3\xa9", "a/b" };

    len = wire(name, "WWW.Example.com.");
    ok(len == 17 && memcmp(name, "\3www\7example\3com", 17) == 0, "wire");

    end = ngx_tun_fakeip_text(text, name, len);
    ok(end - text == 15 && memcmp(text, "www.example.com", 15) == 0, "text");

    end = ngx_tun_fakeip_text(text, (u_char *) "\5a.b\\\0\2\xff_", 10);
    if (!ok(end - text == 16
       && memcmp(text, "a\\.b\\\\\\000.\\255_", 16) == 0,
       "text, escapes")) {
        printf("# %.*s\n", (int) (end - text), text);
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        s.data = (u_char *) bad[i];
        s.len = strlen(bad[i]);
        ok(ngx_tun_fakeip_wire(&s, name, &len) == NGX_ERROR, "no name: %s",
           bad[i][0] == 'c' ? "8 bits" : bad[i]);
    }

    memset(labels, 'a', 255);
    labels[63] = labels[127] = labels[191] = '.';

    s.data = (u_char *) labels;
    s.len = 253;
    ok(ngx_tun_fakeip_wire(&s, name, &len) == NGX_OK && len == 255,
       "the longest name");

    s.len = 254;
    ok(ngx_tun_fakeip_wire(&s, name, &len) == NGX_ERROR, "a longer name");

    labels[63] = 'a';
    s.len = 100;
    ok(ngx_tun_fakeip_wire(&s, name, &len) == NGX_ERROR, "a longer label");

    ok(ngx_tun_fakeip_check_name((u_char *) "\3www", 5) == NGX_OK
       && ngx_tun_fakeip_check_name((u_char *) "\3www", 4) == NGX_ERROR
       && ngx_tun_fakeip_check_name((u_char *) "\4www", 5) == NGX_ERROR
       && ngx_tun_fakeip_check_name((u_char *) "\3wWw", 5) == NGX_ERROR
       && ngx_tun_fakeip_check_name((u_char *) "\3www\0a", 6) == NGX_ERROR
       && ngx_tun_fakeip_check_name((u_char *) "\300\14a", 4) == NGX_ERROR
       && ngx_tun_fakeip_check_name((u_char *) "", 1) == NGX_ERROR
       && ngx_tun_fakeip_check_name((u_char *) "", 0) == NGX_ERROR,
       "what a name is");
}


static void
test_addresses(void)
{
    pool_t             pool;
    u_char             addr[16];
    char               text[64];
    uint32_t           index;
    ngx_tun_fakeip_t  *fip;

    memset(&pool, 0, sizeof(pool));
    conf(&pool.fip.conf, "198.18.0.0", 15, "fd00:198:18::", 64);
    fip = make(&pool, 0);

    ok(fip->n == 131072, "a /15 has 131072 indexes");
    ok(ngx_tun_fakeip_capacity(fip) == 131070, "all but two are for names");

    ngx_tun_fakeip_address(fip, 0x1fffe, 4, addr);
    ok(strcmp(inet_ntop(AF_INET, addr, text, 64), "198.19.255.254") == 0,
       "IPv4 address");

    ngx_tun_fakeip_address(fip, 0x1fffe, 16, addr);
    ok(strcmp(inet_ntop(AF_INET6, addr, text, 64), "fd00:198:18::1:fffe") == 0,
       "IPv6 address");

    ok(ngx_tun_fakeip_index(fip, addr, 16, &index) == NGX_OK
       && index == 0x1fffe, "and its index");

    addr[13] = 0x02;
    ok(ngx_tun_fakeip_index(fip, addr, 16, &index) == NGX_OK
       && index == fip->n, "beyond the indexes");

    addr[13] = 0x01;
    addr[8] = 1;
    ok(ngx_tun_fakeip_index(fip, addr, 16, &index) == NGX_OK
       && index == fip->n, "far beyond the indexes");

    addr[7] = 1;
    ok(ngx_tun_fakeip_index(fip, addr, 16, &index) == NGX_DECLINED,
       "another prefix");

    ok(ngx_tun_fakeip_index(fip, (u_char *) "\306\22\1\2", 4, &index)
       == NGX_OK && index == 0x102, "IPv4 index");
    ok(ngx_tun_fakeip_index(fip, (u_char *) "\306\24\1\2", 4, &index)
       == NGX_DECLINED, "another IPv4 prefix");
    ok(ngx_tun_fakeip_address(fip, fip->n, 4, addr) == NGX_DECLINED,
       "no address of no index");

    unmake(&pool);

    conf(&pool.fip.conf, NULL, 0, "fd00::a0", 124);
    fip = make(&pool, 0);
    ok(fip->n == 16, "IPv6 only, a /124");
    ok(ngx_tun_fakeip_address(fip, 1, 4, addr) == NGX_DECLINED,
       "no IPv4 address");
    ok(ngx_tun_fakeip_address(fip, 5, 16, addr) == NGX_OK
       && addr[15] == 0xa5, "IPv6 address");
    unmake(&pool);

    conf(&pool.fip.conf, NULL, 0, "fd00::", 61);
    fip = make(&pool, 0);
    inet_pton(AF_INET6, "fd00:0:0:7::1", addr);
    ok(ngx_tun_fakeip_index(fip, addr, 16, &index) == NGX_OK
       && index == fip->n, "a prefix inside a byte");
    inet_pton(AF_INET6, "fd00:0:0:8::1", addr);
    ok(ngx_tun_fakeip_index(fip, addr, 16, &index) == NGX_DECLINED,
       "and beyond it");
    unmake(&pool);
}


static void
test_assign(void)
{
    size_t                 len;
    pool_t                 pool;
    u_char                 name[255], addr[16];
    uint32_t               a, b, index;
    ngx_tun_fakeip_t      *fip;
    ngx_tun_fakeip_stat_t  stat;

    memset(&pool, 0, sizeof(pool));
    conf(&pool.fip.conf, "198.18.0.0", 16, "fd00::", 64);
    fip = make(&pool, 0);

    a = assign(fip, NGX_OK, "shop.example");
    b = assign(fip, NGX_OK, "mail.example");

    ok(a != b, "two names, two indexes");
    ok(assign(fip, NGX_OK, "SHOP.example.") == a, "the same name again");
    ok(is_at(fip, a, "shop.example") && is_at(fip, b, "mail.example"),
       "both ways");
    ok(ngx_tun_fakeip_names(fip) == 2, "names");
    ok(ngx_tun_fakeip_ttl(fip) == 30, "ttl");

    len = wire(name, "other.example");
    ok(ngx_tun_fakeip_assign(fip, name, len, 0, &index) == NGX_DECLINED,
       "not created");
    ok(ngx_tun_fakeip_assign(fip, (u_char *) "", 1, 1, &index) == NGX_BUSY,
       "the root has no address");

    ngx_tun_fakeip_address(fip, (a == 7) ? 8 : 7, 4, addr);
    ok(ngx_tun_fakeip_name(fip, addr, 4, name, &len) == NGX_ABORT,
       "an address without a name");

    ngx_tun_fakeip_address(fip, 0, 4, addr);
    ok(ngx_tun_fakeip_name(fip, addr, 4, name, &len) == NGX_ABORT,
       "the network has none");

    addr[0] = 10;
    ok(ngx_tun_fakeip_name(fip, addr, 4, name, &len) == NGX_DECLINED,
       "an address of others");

    stat = stat_of(fip);
    if (!ok(stat.assigned == 2 && stat.hits == 3 && stat.unknown == 1
       && stat.missed == 2 && stat.found == 4, "counters")) {
        printf("# %lu %lu %lu %lu %lu\n", stat.assigned, stat.hits,
                  stat.unknown, stat.missed, stat.found);
    }

    unmake(&pool);

    /* after all is lost, and with another key */

    fip = make(&pool, 0);
    ok(assign(fip, NGX_OK, "mail.example") == b
       && assign(fip, NGX_OK, "shop.example") == a, "the same place by hash");
    unmake(&pool);

    pool.fip.conf.key[3] ^= 1;
    fip = make(&pool, 0);
    ok(assign(fip, NGX_OK, "shop.example") != a
       || assign(fip, NGX_OK, "mail.example") != b, "another key");
    unmake(&pool);
}


/* names of each length, and room for some of them only */

static void
test_long(void)
{
    int                bad;
    char               text[256];
    pool_t             pool;
    uint32_t           chunks, index[256], i, n;
    ngx_tun_fakeip_t  *fip;

    memset(&pool, 0, sizeof(pool));
    conf(&pool.fip.conf, "198.18.0.0", 22, NULL, 0);
    fip = make(&pool, 64 * 1024);
    chunks = fip->header->free_chunks;

    for (i = 1; i <= 253; i++) {
        memset(text, 'a' + i % 26, i);
        text[i] = '\0';

        for (n = 50; n + 1 < i; n += 51) {
            text[n] = '.';
        }

        text[0] = (char) ('a' + i / 26);
        index[i] = assign(fip, NGX_OK, "%s", text);
    }

    for (bad = 0, i = 1; i <= 253; i++) {
        memset(text, 'a' + i % 26, i);
        text[i] = '\0';

        for (n = 50; n + 1 < i; n += 51) {
            text[n] = '.';
        }

        text[0] = (char) ('a' + i / 26);
        bad += !is_at(fip, index[i], text);
    }

    ok(bad == 0, "names of each length");
    ok(fip->header->free_chunks < chunks, "chunks in use");

    /* idle ones give way, and leave no chunk behind */

    at(2 * DAY);

    for (n = 0, i = 0; i < 5000; i++) {
        memset(text, 'x', 200);
        memset(text + 50, '.', 1);
        memset(text + 101, '.', 1);
        memset(text + 152, '.', 1);
        sprintf(text + 190, "%u", i);

        at(1);

        if (assign(fip, NGX_OK, "%s", text) != NGX_TUN_FAKEIP_NONE) {
            n++;
        }

        at(3700);
    }

    if (!ok(n == 5000, "long names come and go")) {
        printf("# %u\n", n);
    }

    /* and in a hurry some are refused, not mixed up */

    for (n = 0, i = 0; i < 1000; i++) {
        u_char    name[255];
        size_t    len;
        uint32_t  at_index;

        memset(text, 'y', 240);
        text[50] = text[101] = text[152] = text[203] = '.';
        sprintf(text + 230, "%u", i);
        len = wire(name, "%s", text);

        n += ngx_tun_fakeip_assign(fip, name, len, 1, &at_index) == NGX_OK;
    }

    if (!ok(n > 8 && n < 1000, "no room for more long names")) {
        printf("# %u\n", n);
    }
    ok(assign(fip, NGX_OK, "short.example") != NGX_TUN_FAKEIP_NONE,
       "room for a short one");

    at(4000);

    for (i = 0; i < fip->n; i++) {
        if (fip->entries[i].len) {
            ngx_tun_fakeip_drop(fip, i);
        }
    }

    ok(fip->header->free_chunks == chunks, "all chunks are free again");
    ok(fip->header->names == 0, "no name");

    unmake(&pool);
}


static void
test_dry(void)
{
    pool_t             pool;
    uint32_t           index[14], i;
    unsigned           bad;
    char               text[64];
    ngx_tun_fakeip_t  *fip;

    memset(&pool, 0, sizeof(pool));
    conf(&pool.fip.conf, "198.18.0.16", 28, "fd00::", 64);
    fip = make(&pool, 0);

    ok(ngx_tun_fakeip_capacity(fip) == 14, "a /28 has 14 addresses");

    for (i = 0; i < 14; i++) {
        index[i] = assign(fip, NGX_OK, "n%u.example", i);
    }

    for (bad = 0, i = 0; i < 14; i++) {
        sprintf(text, "n%u.example", i);
        bad += !is_at(fip, index[i], text);
        bad += index[i] == 0 || index[i] == 15;
    }

    ok(bad == 0, "all in use");

    assign(fip, NGX_BUSY, "n14.example");
    ok(stat_of(fip).exhausted == 1, "no address is taken from a name");

    /* as nothing becomes older than it was, there is nothing to look for */

    i = fip->entries[7].used;
    fip->entries[7].used = i - DAY;
    assign(fip, NGX_BUSY, "n15.example");
    ok(fip->entries[7].len != 0, "nor is one looked for in vain again");
    fip->entries[7].used = i;

    at(3600);
    assign(fip, NGX_BUSY, "n14.example");
    ok(is_at(fip, index[3], "n3.example"), "nor after just \"hold\"");

    at(1);
    i = assign(fip, NGX_OK, "n14.example");
    ok(i != index[3], "one second later, but not the one that was asked for");
    ok(stat_of(fip).evicted == 1, "a name has gone");

    /* a live flow holds its own, whatever else comes */

    for (i = 0, bad = 0; i < 1000; i++) {
        at(30);
        ngx_tun_fakeip_touch(fip, index[3]);

        if (i % 50 == 0) {
            u_char    name[255];
            size_t    len;
            uint32_t  other;

            len = wire(name, "m%u.example", i);

            if (ngx_tun_fakeip_assign(fip, name, len, 1, &other) == NGX_OK) {
                bad += other == index[3];
            }
        }
    }

    ok(bad == 0 && is_at(fip, index[3], "n3.example"), "a lease");

    /* a step of the machine's clock is none of the pool's */

    wall += 10 * DAY;
    core_set_time(wall, msec);

    for (i = 0; i < 30; i++) {
        u_char    name[255];
        size_t    len;
        uint32_t  other;

        len = wire(name, "o%u.example", i);
        (void) ngx_tun_fakeip_assign(fip, name, len, 1, &other);
    }

    ok(is_at(fip, index[3], "n3.example"), "a step of the clock");

    unmake(&pool);
}


static void
test_hosts(void)
{
    pool_t                 pool;
    u_char                 name[2][255], got[255], addr[16];
    size_t                 len;
    uint32_t               i, n, old;
    unsigned               bad;
    ngx_tun_fakeip_t      *fip;
    ngx_tun_fakeip_host_t  hosts[3];

    memset(&pool, 0, sizeof(pool));
    conf(&pool.fip.conf, "198.18.0.16", 28, "fd00::", 64);
    fip = make(&pool, 0);

    memset(hosts, 0, sizeof(hosts));

    old = assign(fip, NGX_OK, "router.example");

    hosts[0].addr_len = 4;
    inet_pton(AF_INET, "198.18.0.17", hosts[0].addr);

    hosts[1].addr_len = 16;
    inet_pton(AF_INET6, "fd00::5", hosts[1].addr);
    hosts[1].name = name[0];
    hosts[1].len = wire(name[0], "router.example");

    hosts[2].addr_len = 4;
    inet_pton(AF_INET, "10.0.0.1", hosts[2].addr);

    ok(ngx_tun_fakeip_set_hosts(fip, hosts, 3) == NGX_OK, "hosts");
    ok(ngx_tun_fakeip_capacity(fip) == 12, "fewer are free");
    ok(is_at(fip, 5, "router.example"), "a name of the operator's");

    ngx_tun_fakeip_address(fip, old, 4, addr);
    ok(old == 5 || ngx_tun_fakeip_name(fip, addr, 4, got, &len) == NGX_ABORT,
       "its old address has no name");
    ok(ngx_tun_fakeip_name(fip, hosts[0].addr, 4, got, &len) == NGX_DECLINED,
       "a reserved address is not of the pool");

    for (n = 0, bad = 0, i = 0; i < 100; i++) {
        u_char    other[255];
        uint32_t  index;

        len = wire(other, "n%u.example", i);

        if (ngx_tun_fakeip_assign(fip, other, len, 1, &index) == NGX_OK) {
            n++;
            bad += index == 1 || index == 5 || index == 0 || index == 15;
        }

        at(i < 50 ? 0 : 4000);
    }

    if (!ok(n == 12 + 49 && bad == 0, "others get neither")) {
        printf("# %u %u\n", n, bad);
    }
    ok(is_at(fip, 5, "router.example"), "however old");

    /* another one there, and the first is like any other */

    hosts[1].name = name[1];
    hosts[1].len = wire(name[1], "printer.example");

    ok(ngx_tun_fakeip_set_hosts(fip, &hosts[1], 1) == NGX_OK, "other hosts");
    ok(ngx_tun_fakeip_capacity(fip) == 13, "one more is free");
    ok(is_at(fip, 5, "printer.example"), "another name");
    ok(ngx_tun_fakeip_name(fip, hosts[0].addr, 4, got, &len) == NGX_ABORT,
       "no longer reserved");

    at(4000);
    ok(ngx_tun_fakeip_set_hosts(fip, NULL, 0) == NGX_OK, "no hosts");

    for (i = 0; i < 13; i++) {
        assign(fip, NGX_OK, "q%u.example", i);
    }

    assign(fip, NGX_BUSY, "q13.example");
    ok(is_at(fip, 5, "printer.example"), "stays for now");
    at(4000);

    for (i = 0; i < 100; i++) {
        assign(fip, NGX_OK, "p%u.example", i);
        at(4000);
    }

    ngx_tun_fakeip_address(fip, 5, 4, addr);
    ok(!is_at(fip, 5, "printer.example"), "and goes in time");

    unmake(&pool);
}


/* what a file may have */

static void
test_load(void)
{
    char                  text[300];
    void                 *copy;
    pool_t                pool, other;
    u_char               *p;
    uint32_t              index[100], i, n, dropped;
    unsigned              bad, round;
    ngx_tun_fakeip_t     *fip;

    memset(&pool, 0, sizeof(pool));
    memset(&other, 0, sizeof(other));
    conf(&pool.fip.conf, "198.18.0.0", 24, "fd00::", 64);
    fip = make(&pool, 0);

    for (i = 0; i < 100; i++) {
        index[i] = assign(fip, NGX_OK, (i % 5) ? "n%u.example"
                          : "n%u.a-long-label-that-needs-more-than-an-entry"
                            ".example", i);
        at(60);
    }

    copy = shared(pool.size);

    /* as it is, and with other rubbish in what is made anew */

    for (round = 0; round < 3; round++) {
        memcpy(copy, pool.memory, pool.size);

        if (round) {
            fip = &pool.fip;
            p = (u_char *) copy + sizeof(ngx_tun_fakeip_header_t);
            memset(p, 0xa5, (u_char *) fip->entries - (u_char *) fip->header
                            - sizeof(ngx_tun_fakeip_header_t));
        }

        other.fip.conf = pool.fip.conf;

        if (round == 2) {
            other.fip.conf.key[0] ^= 1;
        }

        ok(ngx_tun_fakeip_load(&other.fip, copy, pool.size) == NGX_OK,
           "load %u", round);

        for (bad = 0, i = 0; i < 100; i++) {
            sprintf(text, (i % 5) ? "n%u.example"
                    : "n%u.a-long-label-that-needs-more-than-an-entry"
                      ".example", i);
            bad += !is_at(&other.fip, index[i], text);
        }

        ok(bad == 0 && ngx_tun_fakeip_names(&other.fip) == 100,
           "all names are there, %u", round);
        ok(other.fip.header->free_chunks == pool.fip.header->free_chunks,
           "and so are free chunks, %u", round);
    }

    /* the age is kept, and from the future it is now */

    memcpy(copy, pool.memory, pool.size);
    wall -= 10 * DAY;
    core_set_time(wall, msec);
    other.fip.conf = pool.fip.conf;
    ngx_tun_fakeip_load(&other.fip, copy, pool.size);
    ok(other.fip.entries[index[3]].used == wall, "used in the future");
    wall += 10 * DAY;
    core_set_time(wall, msec);

    memcpy(copy, pool.memory, pool.size);
    ngx_tun_fakeip_load(&other.fip, copy, pool.size);
    if (!ok(other.fip.entries[index[3]].used == wall - 97 * 60, "used long ago")) {
        printf("# %ld\n", (long) (wall - other.fip.entries[index[3]].used));
    }

    /* each byte of each entry */

    for (bad = 0, n = 0, dropped = 0; n < 64; n++) {
        memcpy(copy, pool.memory, pool.size);

        p = (u_char *) copy
            + ((u_char *) &pool.fip.entries[index[0]]
               - (u_char *) pool.memory);
        p[n] ^= 0x5a;

        ngx_tun_fakeip_load(&other.fip, copy, pool.size);
        dropped += stat_of(&other.fip).dropped;

        for (i = 1; i < 100; i++) {
            sprintf(text, (i % 5) ? "n%u.example"
                    : "n%u.a-long-label-that-needs-more-than-an-entry"
                      ".example", i);
            bad += !is_at(&other.fip, index[i], text);
        }
    }

    ok(bad == 0, "a damaged entry harms no other");
    if (!ok(dropped > 34 && dropped < 48, "and is dropped, if it matters")) {
        printf("# %u\n", dropped);
    }

    /* an entry in the place of another, and twice */

    memcpy(copy, pool.memory, pool.size);
    other.fip.header = NULL;
    ngx_tun_fakeip_load(&other.fip, copy, pool.size);
    i = (index[1] + 1) % 256;

    if (i == 0 || i == 255) {
        i = 100;
    }

    other.fip.entries[i] = other.fip.entries[index[1]];
    ngx_tun_fakeip_load(&other.fip, copy, pool.size);
    ok(stat_of(&other.fip).dropped == 1 && is_at(&other.fip, index[1],
                                                 "n1.example"),
       "an entry in a wrong place");

    /* two of the same tail, and a tail without an end */

    memcpy(copy, pool.memory, pool.size);
    ngx_tun_fakeip_load(&other.fip, copy, pool.size);
    other.fip.entries[index[5]].tail = other.fip.entries[index[10]].tail;
    ngx_tun_fakeip_load(&other.fip, copy, pool.size);
    ok(stat_of(&other.fip).dropped >= 1
       && ngx_tun_fakeip_names(&other.fip) < 100, "a tail of another");

    munmap(copy, pool.size);
    unmake(&pool);
}


static void
test_header(void)
{
    pool_t                 pool;
    unsigned               i, bad;
    ngx_tun_fakeip_t      *fip, same;
    ngx_tun_fakeip_conf_t  found, changed;

    memset(&pool, 0, sizeof(pool));
    memset(&same, 0, sizeof(same));
    conf(&pool.fip.conf, "198.18.0.0", 24, "fd00::", 64);
    fip = make(&pool, 4096);

    ok(ngx_tun_fakeip_read_header(fip->header, &found) == NGX_OK
       && found.prefix[0].prefix == 24 && found.prefix[1].prefix == 64
       && found.prefix[0].addr_len == 4 && found.prefix[1].addr_len == 16
       && memcmp(found.prefix[0].addr, "\306\22\0\0", 4) == 0,
       "a header tells its prefixes");

    for (bad = 0, i = 0; i < offsetof(ngx_tun_fakeip_header_t, crc) + 4; i++) {
        ((u_char *) fip->header)[i] ^= 0x10;
        bad += ngx_tun_fakeip_read_header(fip->header, &found) == NGX_OK;
        ((u_char *) fip->header)[i] ^= 0x10;
    }

    ok(bad == 0, "a damaged one does not");

    same.conf = fip->conf;
    ok(ngx_tun_fakeip_attach(&same, pool.memory, pool.size) == NGX_OK,
       "the same pool");
    i = assign(fip, NGX_OK, "shop.example");
    ok(is_at(&same, i, "shop.example"), "and its names");

    ok(ngx_tun_fakeip_attach(&same, pool.memory, pool.size - 4096)
       == NGX_DECLINED, "another size");

    changed = same.conf;
    same.conf.key[0] ^= 1;
    ok(ngx_tun_fakeip_attach(&same, pool.memory, pool.size) == NGX_DECLINED,
       "another key");

    same.conf = changed;
    same.conf.prefix[1].addr[1] = 1;
    ok(ngx_tun_fakeip_attach(&same, pool.memory, pool.size) == NGX_DECLINED,
       "another prefix");

    same.conf = changed;
    same.conf.prefix[1].addr_len = 0;
    ok(ngx_tun_fakeip_attach(&same, pool.memory, pool.size) == NGX_DECLINED,
       "no IPv6");

    unmake(&pool);
}


static void
test_import(void)
{
    pool_t             from, to;
    uint32_t           a, i, n, kept;
    ngx_tun_fakeip_t  *old, *fip;

    memset(&from, 0, sizeof(from));
    conf(&from.fip.conf, "198.18.0.0", 24, "fd00::", 64);
    old = make(&from, 0);

    for (i = 0; i < 200; i++) {
        assign(old, NGX_OK, "n%u.example", i);
    }

    a = assign(old, NGX_OK, "shop.example");
    at(100);

    /* a greater pool */

    memset(&to, 0, sizeof(to));
    conf(&to.fip.conf, "198.18.0.0", 22, "fd00::", 64);
    to.fip.conf.key[0] ^= 1;
    fip = make(&to, 0);
    ngx_tun_fakeip_import(fip, old);
    ok(fip->entries[a].used == wall - 100, "names go on, of the same age");
    ok(ngx_tun_fakeip_names(fip) == 201 && is_at(fip, a, "shop.example"),
       "in a greater pool");
    unmake(&to);

    /* the upper half of it, where addresses stay and indexes do not */

    memset(&to, 0, sizeof(to));
    conf(&to.fip.conf, "198.18.0.128", 25, NULL, 0);
    fip = make(&to, 0);
    ngx_tun_fakeip_import(fip, old);

    for (n = 0, kept = 0, i = 0; i < 256; i++) {

        if (i >= 129 && i < 255 && old->entries[i].len) {
            n++;
            kept += fip->entries[i - 128].len == old->entries[i].len;
        }
    }

    if (!ok(n > 50 && kept == n && ngx_tun_fakeip_names(fip) == n,
       "names go on in a part of it")) {
        printf("# %u %u\n", n, kept);
    }
    unmake(&to);

    memset(&to, 0, sizeof(to));
    conf(&to.fip.conf, "198.18.0.128", 25, "fd00::", 64);
    fip = make(&to, 0);
    ngx_tun_fakeip_import(fip, old);
    ok(ngx_tun_fakeip_names(fip) == 0, "none where the two are not together");
    unmake(&to);

    memset(&to, 0, sizeof(to));
    conf(&to.fip.conf, "198.18.0.0", 24, "fd01::", 64);
    fip = make(&to, 0);
    ngx_tun_fakeip_import(fip, old);
    ok(ngx_tun_fakeip_names(fip) == 0, "none where another address is wrong");
    unmake(&to);

    unmake(&from);
}


/*
 * Several processes at once, some of which are killed wherever they are:
 * afterwards each name has one address, and each address one name.
 */

static void
churn(ngx_tun_fakeip_t *fip, unsigned seed)
{
    u_char    name[255], addr[4], got[255];
    size_t    len, n;
    uint32_t  index;

    srandom(seed);

    for ( ;; ) {
        len = wire(name, (random() & 1) ? "n%u.example"
                   : "n%u.a-long-label-that-needs-more-than-an-entry.example",
                   (unsigned) random() % 6000);

        if (ngx_tun_fakeip_assign(fip, name, len, 1, &index) != NGX_OK) {
            continue;
        }

        ngx_tun_fakeip_address(fip, index, 4, addr);

        /* hold is a day here: nobody may take it away */

        if (ngx_tun_fakeip_name(fip, addr, 4, got, &n) != NGX_OK
            || n != len || memcmp(got, name, n) != 0)
        {
            _exit(1);
        }
    }
}


static unsigned
inconsistent(ngx_tun_fakeip_t *fip)
{
    u_char    name[255];
    size_t    len;
    uint32_t  i, n, seq, chunks;
    unsigned  bad;

    if (ngx_tun_fakeip_lock(fip) != NGX_OK) {
        return 1000000;
    }

    chunks = fip->nchunks;

    for (bad = 0, n = 0, i = 0; i < fip->n; i++) {

        bad += fip->entries[i].seq & 1;

        if (ngx_tun_fakeip_copy(fip, &fip->entries[i], name, &len) != NGX_OK) {
            continue;
        }

        n++;
        chunks -= (len > 34) ? (len - 34 + 27) / 28 : 0;

        bad += ngx_tun_fakeip_find(fip, name, len, fip->entries[i].hash, &seq)
               != i;
    }

    bad += fip->header->names != n;
    bad += fip->header->free_chunks != chunks;
    bad += fip->header->seq & 1;

    ngx_tun_fakeip_unlock(fip);

    return bad;
}


static void
test_kill(void)
{
    int                status;
    pid_t              pid[3];
    pool_t             pool;
    unsigned           i, k, bad, wrong;
    ngx_tun_fakeip_t  *fip;

    memset(&pool, 0, sizeof(pool));
    conf(&pool.fip.conf, "198.18.0.0", 19, "fd00::", 64);
    pool.fip.conf.hold = DAY;
    fip = make(&pool, 256 * 1024);

    for (bad = 0, wrong = 0, i = 0; i < 200; i++) {

        for (k = 0; k < 3; k++) {
            pid[k] = fork();

            if (pid[k] == 0) {
                ngx_tun_fakeip_init_worker(fip, k);
                churn(fip, i * 3 + k);
            }
        }

        usleep(1000 + random() % 3000);

        for (k = 0; k < 3; k++) {
            kill(pid[k], SIGKILL);
            usleep(random() % 200);
        }

        for (k = 0; k < 3; k++) {
            waitpid(pid[k], &status, 0);
            wrong += !WIFSIGNALED(status);
        }

        bad += inconsistent(fip);

        /* all are old then, and others come */

        at(2 * DAY);

        if (i % 10 == 0) {
            for (k = 0; k < fip->n; k++) {
                if (fip->entries[k].len) {
                    ngx_tun_fakeip_drop(fip, k);
                }
            }
        }
    }

    if (!ok(wrong == 0, "a name keeps its address among processes")) {
        printf("# %u\n", wrong);
    }
    if (!ok(bad == 0, "nothing is broken by a kill")) {
        printf("# %u\n", bad);
    }
    if (!ok(stat_of(fip).recovered > 5, "processes were killed in the middle")) {
        printf("# %lu\n", stat_of(fip).recovered);
    }
    ok(stat_of(fip).assigned > 1000, "of assigning");

    printf("# %lu assigned, %lu evicted, %lu recovered, %lu dropped\n",
           stat_of(fip).assigned, stat_of(fip).evicted,
           stat_of(fip).recovered, stat_of(fip).dropped);

    unmake(&pool);
}


/* processes that fight for 13 addresses: an idle name must not be both */

static void
test_race(void)
{
    int                status;
    pid_t              pid[3];
    pool_t             pool;
    unsigned           i, k, wrong;
    ngx_tun_fakeip_t  *fip;

    memset(&pool, 0, sizeof(pool));
    conf(&pool.fip.conf, "198.18.0.0", 26, "fd00::", 64);
    pool.fip.conf.hold = 2;
    fip = make(&pool, 0);

    for (wrong = 0, k = 0; k < 3; k++) {
        pid[k] = fork();

        if (pid[k] == 0) {
            u_char    name[255], addr[4], got[255];
            size_t    len, n;
            uint32_t  index;

            srandom(k);

            for (i = 0; i < 300000; i++) {

                /* three seconds pass at the same moment for all */

                core_set_time(wall, msec + fip->stat->dropped);

                if (i % 20 == 0) {
                    (void) ngx_atomic_fetch_add(&fip->stat->dropped, 3000);
                }

                core_set_time(wall, msec + fip->stat->dropped);
                len = wire(name, "n%u.example", (unsigned) random() % 80);

                if (ngx_tun_fakeip_assign(fip, name, len, 1, &index)
                    != NGX_OK)
                {
                    continue;
                }

                n = fip->stat->dropped;

                ngx_tun_fakeip_address(fip, index, 4, addr);

                if (ngx_tun_fakeip_name(fip, addr, 4, got, &n) == NGX_OK
                    && (n != len || memcmp(got, name, n) != 0)
                    && msec + fip->stat->dropped == ngx_current_msec)
                {
                    _exit(1);
                }
            }

            _exit(0);
        }
    }

    for (k = 0; k < 3; k++) {
        waitpid(pid[k], &status, 0);
        wrong += status != 0;
    }

    ok(wrong == 0, "no address of two names");
    if (!ok(stat_of(fip).evicted > 1000, "while names come and go")) {
        printf("# %lu\n", stat_of(fip).evicted);
    }
    ok(inconsistent(fip) == 0, "and nothing is broken");

    unmake(&pool);
}


static double
seconds(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec + ts.tv_nsec / 1e9;
}


/*
 * The same moment for who takes an idle address away, and who uses it: only
 * one of them may have it.
 */

static void
test_duel(void)
{
    pid_t               pid;
    pool_t              pool;
    u_char              name[255];
    size_t              len;
    double              end;
    uint32_t            index, other, now;
    unsigned            both, taken, used;
    ngx_int_t           rc;
    ngx_tun_fakeip_t   *fip;

    struct {
        uint32_t        round;   /* even: the taker's */
        uint32_t        done;
        uint32_t        got;
    } volatile  *turn;

    memset(&pool, 0, sizeof(pool));
    conf(&pool.fip.conf, "198.18.0.0", 26, NULL, 0);
    fip = make(&pool, 0);
    turn = shared(4096);

    index = assign(fip, NGX_OK, "shop.example");
    len = wire(name, "shop.example");
    now = ngx_tun_fakeip_now(fip);

    pid = fork();

    if (pid == 0) {
        uint32_t  round;

        for (round = 1; /* void */; round++) {

            while (turn->round != round) {
                if (turn->round == (uint32_t) -1) {
                    _exit(0);
                }
            }

            turn->got = ngx_tun_fakeip_assign(fip, name, len, 0, &other)
                        == NGX_OK;
            __atomic_store_n(&turn->done, round, __ATOMIC_SEQ_CST);
        }
    }

    end = seconds() + 1.5;

    for (both = 0, taken = 0, used = 0; seconds() < end; /* void */) {
        fip->entries[index].used = now - 10000;
        fip->header->busy = 0;

        __atomic_store_n(&turn->round, turn->round + 1, __ATOMIC_SEQ_CST);

        for (other = random() % 100; other; other--) {
            ngx_cpu_pause();
        }

        (void) ngx_tun_fakeip_lock(fip);
        rc = ngx_tun_fakeip_claim(fip, index, now);
        ngx_tun_fakeip_unlock(fip);

        while (turn->done != turn->round) {
            if (seconds() > end + 5) {
                break;
            }
        }

        both += rc == NGX_OK && turn->got;
        taken += rc == NGX_OK && !turn->got;
        used += rc != NGX_OK && turn->got;

        if (rc == NGX_OK) {
            (void) ngx_tun_fakeip_lock(fip);
            (void) ngx_tun_fakeip_put(fip, index, name, len, now, now);
            ngx_tun_fakeip_unlock(fip);
        }
    }

    __atomic_store_n(&turn->round, (uint32_t) -1, __ATOMIC_SEQ_CST);
    waitpid(pid, NULL, 0);

    ok(both == 0, "an address is taken or used, not both: %u", both);
    ok(taken > 10 && used > 10, "each was first: %u taken, %u used", taken,
       used);

    /* the clock of a slower worker */

    fip->entries[index].used = now + 3;
    assign(fip, NGX_OK, "shop.example");
    ngx_tun_fakeip_touch(fip, index);
    ok(fip->entries[index].used == now + 3, "the time of use goes on only");

    munmap((void *) turn, 4096);
    unmake(&pool);
}


static size_t
resident(pool_t *pool)
{
    size_t    i, n, pages;
    u_char   *vec;

    pages = (pool->size + 4095) / 4096;
    vec = malloc(pages);

    if (mincore(pool->memory, pool->size, vec) != 0) {
        free(vec);
        return 0;
    }

    for (n = 0, i = 0; i < pages; i++) {
        n += vec[i] & 1;
    }

    free(vec);

    return n * 4096;
}


static void
test_many(void)
{
    char               text[64];
    double             start, made, found;
    pool_t             pool;
    size_t             bytes, names;
    uint32_t          *index, i;
    unsigned           bad, moved;
    ngx_tun_fakeip_t  *fip;

    memset(&pool, 0, sizeof(pool));
    conf(&pool.fip.conf, "198.18.0.0", 15, "fd00::", 64);
    fip = make(&pool, 0);
    index = malloc(100000 * sizeof(uint32_t));

    ngx_tun_fakeip_set_hosts(fip, NULL, 0);
    ok(resident(&pool) < 64 * 1024, "an empty pool takes no memory");

    start = seconds();

    for (names = 0, i = 0; i < 100000; i++) {
        names += sprintf(text, "host%u.some-domain.example", i) + 2;
        index[i] = assign(fip, NGX_OK, "%s", text);
    }

    made = seconds() - start;
    start = seconds();

    for (bad = 0, i = 0; i < 100000; i++) {
        sprintf(text, "host%u.some-domain.example", i);
        bad += !is_at(fip, index[i], text);
    }

    found = seconds() - start;
    bytes = resident(&pool);

    ok(bad == 0, "100,000 names in a /15");
    ok(made < 5 && found < 5, "in time");
    ok(bytes != 0 && bytes - names <= 80 * 100000,
       "80 bytes for each and the name");

    printf("# %.0f ns to make one, %.0f ns to find it by 3 lookups, "
           "%.1f bytes and %.1f of name\n", made * 1e4, found * 1e4,
           (double) (bytes - names) / 100000, (double) names / 100000);

    /* the state is lost, and the names come in another order */

    unmake(&pool);
    fip = make(&pool, 0);

    for (moved = 0, i = 0; i < 100000; i++) {
        moved += assign(fip, NGX_OK, "host%u.some-domain.example",
                        (i * 77773) % 100000)
                 != index[(i * 77773) % 100000];
    }

    ok(moved < 50000, "most have the same address after a loss");
    printf("# %u of 100,000 moved\n", moved);

    unmake(&pool);
    fip = make(&pool, 0);

    for (i = 0; i < 5000; i++) {
        index[i] = assign(fip, NGX_OK, "n%u.example", i);
    }

    unmake(&pool);
    fip = make(&pool, 0);

    for (moved = 0, i = 5000; i-- > 0; /* void */) {
        moved += assign(fip, NGX_OK, "n%u.example", i) != index[i];
    }

    ok(moved < 250, "and of 5,000 nearly all");
    printf("# %u of 5,000 moved\n", moved);

    free(index);
    unmake(&pool);
}


int
main(void)
{
    at(0);

    test_hash();
    test_names();
    test_addresses();
    test_assign();
    test_long();
    test_dry();
    test_hosts();
    test_load();
    test_header();
    test_import();
    test_kill();
    test_race();
    test_duel();
    test_many();

    return done();
}
