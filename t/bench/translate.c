
/*
 * Copyright (C) the nginx-tun authors
 */


/*
 * What the translation of a packet costs the system stack, without the system
 * calls that bring and take it: usage: translate address_length slots
 *
 * Fills half of the slots, then rewrites segments of flows in random order,
 * which were made before: prints the CPU time in ns for one from the client and
 * one to it, with the parsing of its headers, and for a new flow.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_nat_slot.h>
#include <ngx_tun_packet.h>
#include <ngx_tun_rewrite.h>

#include <sys/mman.h>
#include <time.h>


#define TRANSLATE_PACKETS  1000000
#define TRANSLATE_BATCH    256       /* as a worker reads them */
#define TRANSLATE_NOW      1000


typedef struct {
    size_t          addr_len;
    uint32_t       *slots;       /* of the flows */
    uint32_t        flows;
    uint64_t        random;
    ngx_tun_nat_t   nat;
    u_char          own[16];
} translate_t;


typedef struct {
    size_t          len;
    u_char          buf[NGX_TUN_PACKET_TCP_MIN];
} translate_packet_t;


static void translate_key(translate_t *t, ngx_tun_flow_key_t *key, uint32_t n);
static void translate_build(translate_t *t, translate_packet_t *p,
    u_char *src, u_char *dst, uint16_t src_port, uint16_t dst_port);
static void translate_packet(translate_t *t, translate_packet_t *p);
static double translate_run(translate_t *t, ngx_uint_t back);
static double translate_insert(translate_t *t);
static uint32_t translate_random(translate_t *t);
static double translate_now(void);
static void translate_fail(const char *what);


/* what the hash's file asks nginx for, and does not use here */

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


void ngx_cdecl
ngx_log_error_core(ngx_uint_t level, ngx_log_t *log, ngx_err_t err,
    const char *fmt, ...)
{
    abort();
}


int
main(int argc, char **argv)
{
    double               insert, forward, back;
    void                *memory;
    u_char               bytes[24];
    translate_t          t;
    ngx_tun_nat_conf_t   conf;

    if (argc != 3) {
        fprintf(stderr, "usage: translate address_length slots\n");
        return 2;
    }

    memset(&t, 0, sizeof(translate_t));
    memset(&conf, 0, sizeof(ngx_tun_nat_conf_t));
    memset(bytes, 7, sizeof(bytes));

    t.addr_len = (atoi(argv[1]) == 16) ? 16 : 4;
    t.random = 88172645463325252ull;

    conf.addr_len = t.addr_len;
    conf.prefix = t.addr_len * 8 - 16;
    conf.slots = (uint32_t) atoi(argv[2]);
    conf.client = 0xffffffff;
    conf.network[0] = (t.addr_len == 4) ? 198 : 0xfd;
    conf.skip[0] = 1;
    conf.nskip = 1;

    memcpy(t.own, conf.network, 16);
    t.own[t.addr_len - 1] = 1;
    t.flows = conf.slots / 2;

    memory = mmap(NULL, ngx_tun_nat_size(&conf), PROT_READ|PROT_WRITE,
                  MAP_SHARED|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0);

    t.slots = calloc(t.flows, sizeof(uint32_t));

    if (memory == MAP_FAILED || t.slots == NULL) {
        translate_fail("mmap");
    }

    ngx_tun_nat_create(memory, &conf, bytes);
    ngx_tun_nat_attach(&t.nat, memory);

    insert = translate_insert(&t);
    forward = translate_run(&t, 0);
    back = translate_run(&t, 1);

    printf("%.0f %.0f %.0f\n", forward, back, insert);

    return 0;
}


static void
translate_key(translate_t *t, ngx_tun_flow_key_t *key, uint32_t n)
{
    memset(key, 0, sizeof(ngx_tun_flow_key_t));

    key->addr_len = (uint16_t) t->addr_len;
    key->protocol = IPPROTO_TCP;
    key->src_port = (uint16_t) (1024 + n % 60000);
    key->dst_port = 443;

    key->src[0] = 10;
    key->src[t->addr_len - 1] = (u_char) (n / 60000 + 2);
    key->dst[0] = 203;
    key->dst[t->addr_len - 1] = (u_char) n;
}


static void
translate_build(translate_t *t, translate_packet_t *p, u_char *src,
    u_char *dst, uint16_t src_port, uint16_t dst_port)
{
    ngx_tun_packet_tcp_t  th;

    memset(&th, 0, sizeof(ngx_tun_packet_tcp_t));

    th.src_port = src_port;
    th.dst_port = dst_port;
    th.flags = NGX_TUN_PACKET_TCP_ACK;

    p->len = ngx_tun_packet_build_tcp(p->buf, src, dst, t->addr_len, &th);
}


static void
translate_packet(translate_t *t, translate_packet_t *p)
{
    ngx_tun_packet_t       pkt;
    ngx_tun_rewrite_t      to;
    ngx_tun_flow_key_t     key;
    ngx_tun_nat_entry_t    entry;
    ngx_tun_packet_tcp_t   th;

    if (ngx_tun_packet_parse(&pkt, p->buf, p->buf + p->len)
        != NGX_TUN_PACKET_OK
        || ngx_tun_packet_parse_tcp(&pkt, &th) != NGX_TUN_PACKET_OK)
    {
        translate_fail("parse");
    }

    if (memcmp(pkt.src, t->own, t->addr_len) == 0) {

        if (ngx_tun_nat_reverse(&t->nat, pkt.dst, th.dst_port, 0,
                                TRANSLATE_NOW, &entry)
            != NGX_OK)
        {
            translate_fail("reverse");
        }

        to.src = entry.key.dst;
        to.dst = entry.key.src;
        to.src_port = entry.key.dst_port;
        to.dst_port = entry.key.src_port;

    } else {
        ngx_tun_flow_key(&key, &pkt, th.src_port, th.dst_port);

        if (ngx_tun_nat_lookup(&t->nat, &key, 0, TRANSLATE_NOW, &entry)
            != NGX_OK)
        {
            translate_fail("lookup");
        }

        to.src = entry.addr;
        to.dst = t->own;
        to.src_port = entry.port;
        to.dst_port = 1313;
    }

    ngx_tun_rewrite_tcp(&pkt, &to, 0);
}


/* ns for a packet, of many batches; the clock's own time is in it */

static double
translate_run(translate_t *t, ngx_uint_t back)
{
    double               start, total;
    uint32_t             i, k, n;
    ngx_tun_flow_key_t   key;
    ngx_tun_nat_entry_t  entry;
    translate_packet_t   packets[TRANSLATE_BATCH];

    total = 0;

    for (i = 0; i < TRANSLATE_PACKETS; i += TRANSLATE_BATCH) {

        for (k = 0; k < TRANSLATE_BATCH; k++) {
            n = translate_random(t) % t->flows;

            translate_key(t, &key, n);

            if (back) {
                ngx_tun_nat_tuple(&t->nat, t->slots[n], entry.addr,
                                  &entry.port);
                translate_build(t, &packets[k], t->own, entry.addr, 1313,
                                entry.port);

            } else {
                translate_build(t, &packets[k], key.src, key.dst,
                                key.src_port, key.dst_port);
            }
        }

        start = translate_now();

        for (k = 0; k < TRANSLATE_BATCH; k++) {
            translate_packet(t, &packets[k]);
        }

        total += translate_now() - start;
    }

    return total / i;
}


static double
translate_insert(translate_t *t)
{
    double                start;
    uint32_t              n;
    ngx_tun_flow_key_t    key;
    ngx_tun_nat_entry_t   entry;

    start = translate_now();

    for (n = 0; n < t->flows; n++) {
        translate_key(t, &key, n);

        if (ngx_tun_nat_insert(&t->nat, &key, n, TRANSLATE_NOW, &entry)
            != NGX_OK)
        {
            translate_fail("insert");
        }

        t->slots[n] = entry.slot;
    }

    return (translate_now() - start) / t->flows;
}


static uint32_t
translate_random(translate_t *t)
{
    t->random ^= t->random << 13;
    t->random ^= t->random >> 7;
    t->random ^= t->random << 17;

    return (uint32_t) (t->random >> 16);
}


static double
translate_now(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);

    return ts.tv_sec * 1e9 + ts.tv_nsec;
}


static void
translate_fail(const char *what)
{
    fprintf(stderr, "translate: %s\n", what);
    exit(1);
}
