
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: stack/ngx_tun_nat.c stack/ngx_tun_nat_insert.c stack/ngx_tun_nat_tuple.c stack/ngx_tun_flow.c */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_nat_slot.h>

#include <sys/mman.h>


#define MODEL_KEYS  6000


typedef struct {
    ngx_tun_flow_key_t   key;
    uint32_t             slot;
    uint32_t             generation;
    uint32_t             seen;
    ngx_uint_t           flags;
    ngx_uint_t           known;      /* there was a slot */
} model_t;


static ngx_uint_t  tests;


static void
ok(ngx_uint_t good, const char *what, ngx_uint_t n)
{
    printf("%sok %d - %s, %d\n", good ? "" : "not ", (int) ++tests, what,
           (int) n);
}


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


static void
conf_init(ngx_tun_nat_conf_t *conf, size_t addr_len, ngx_uint_t prefix,
    uint32_t slots)
{
    memset(conf, 0, sizeof(ngx_tun_nat_conf_t));

    conf->addr_len = addr_len;
    conf->prefix = (addr_len == 4) ? prefix : 96 + prefix;
    conf->slots = slots;
    conf->client = 0xffffffff;

    if (addr_len == 4) {
        memcpy(conf->network, "\306\012\0\0", 4);

    } else {
        memcpy(conf->network, "\375\0\0\144", 4);
    }

    conf->skip[0] = 1;
    conf->skip[1] = 3;
    conf->nskip = 2;
}


static void *
table_create(ngx_tun_nat_t *nat, ngx_tun_nat_conf_t *conf)
{
    void    *memory;
    size_t   i;
    u_char   bytes[24];

    memory = mmap(NULL, ngx_tun_nat_size(conf), PROT_READ|PROT_WRITE,
                  MAP_SHARED|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED) {
        printf("Bail out! mmap()\n");
        exit(1);
    }

    for (i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (u_char) random();
    }

    ngx_tun_nat_create(memory, conf, bytes);
    ngx_tun_nat_attach(nat, memory);

    return memory;
}


static void
table_free(ngx_tun_nat_t *nat, ngx_tun_nat_conf_t *conf)
{
    munmap(nat->shared, ngx_tun_nat_size(conf));
}


static void
make_key(ngx_tun_flow_key_t *key, size_t addr_len, uint32_t n)
{
    memset(key, 0, sizeof(ngx_tun_flow_key_t));

    key->addr_len = (uint16_t) addr_len;
    key->protocol = IPPROTO_TCP;
    key->src_port = (uint16_t) (1024 + n % 60000);
    key->dst_port = (uint16_t) (n % 3 ? 443 : 80);

    key->src[0] = (addr_len == 4) ? 10 : 0x20;
    key->src[addr_len - 1] = (u_char) (n / 60000 + 2);
    key->dst[0] = 203;
    key->dst[addr_len - 1] = (u_char) (n >> 3);
    key->dst[addr_len - 2] = (u_char) (n >> 11);
}


static void
test_tuples(size_t addr_len)
{
    u_char              addr[16], *seen;
    uint16_t            port;
    uint32_t            n, low;
    ngx_uint_t          bad, twice;
    ngx_tun_nat_t       nat;
    ngx_tun_nat_conf_t  conf;

    conf_init(&conf, addr_len, 29, 0xffffffff);

    ok(ngx_tun_nat_tuples(&conf)
       == ((addr_len == 4) ? 4 : 5) * (uint64_t) NGX_TUN_NAT_PORTS,
       "tuples of 8 addresses without ours", addr_len);

    conf.slots = (uint32_t) ngx_tun_nat_tuples(&conf);

    table_create(&nat, &conf);

    seen = calloc(8, 65536);
    bad = 0;
    twice = 0;

    for (n = 0; n < conf.slots; n++) {
        ngx_tun_nat_tuple(&nat, n, addr, &port);

        memcpy(&low, addr + addr_len - 4, 4);
        memcpy(addr + addr_len - 4, conf.network + addr_len - 4, 4);
        low = ntohl(low) ^ ntohl(*(uint32_t *) (addr + addr_len - 4));

        bad += (memcmp(addr, conf.network, addr_len) != 0);
        bad += (low == 0 || low == 1 || low == 3 || low > 7 || port == 0);
        bad += (addr_len == 4 && low == 7);

        twice += seen[(low & 7) << 16 | port]++;

        ngx_tun_nat_tuple(&nat, n, addr, &port);
        bad += (ngx_tun_nat_number(&nat, addr, port) != n);
        bad += !ngx_tun_nat_address(&nat, addr);
    }

    ok(bad == 0, "every slot is a tuple and back", bad);
    ok(twice == 0, "and no other's", twice);

    memcpy(addr, conf.network, addr_len);
    bad = 0;

    for (n = 0; n < 10; n++) {
        addr[addr_len - 1] = (u_char) n;

        if (n == 0 || n == 1 || n == 3 || n > 7 || (addr_len == 4 && n == 7)) {
            bad += (ngx_tun_nat_number(&nat, addr, 1000) != NGX_TUN_NAT_NONE);
            bad += ngx_tun_nat_address(&nat, addr);
        }
    }

    addr[addr_len - 1] = 2;
    bad += (ngx_tun_nat_number(&nat, addr, 0) != NGX_TUN_NAT_NONE);

    addr[0]--;
    bad += (ngx_tun_nat_number(&nat, addr, 1000) != NGX_TUN_NAT_NONE);

    ok(bad == 0, "what is no tuple", bad);

    free(seen);
    table_free(&nat, &conf);

    conf_init(&conf, addr_len, 16, 4000000000u);

    conf.nskip = 1;

    ok(addr_len == 16 || ngx_tun_nat_tuples(&conf) == 4294705155u,
       "a /16 without another address", addr_len);

    table_create(&nat, &conf);

    for (bad = 0, n = 0; n < 3900000000u; n += 99991) {
        ngx_tun_nat_tuple(&nat, n, addr, &port);
        bad += (ngx_tun_nat_number(&nat, addr, port) != n);
    }

    ok(bad == 0, "every slot of a large one", bad);

    table_free(&nat, &conf);

    conf_init(&conf, addr_len, 31, 10);
    ok(ngx_tun_nat_tuples(&conf) == 0, "a network that is too small",
       addr_len);
}


static void
test_life(size_t addr_len)
{
    ngx_tun_nat_t        nat;
    ngx_tun_flow_key_t   key, other;
    ngx_tun_nat_conf_t   conf;
    ngx_tun_nat_entry_t  one, two, three;

    conf_init(&conf, addr_len, 16, 1000000);
    table_create(&nat, &conf);

    make_key(&key, addr_len, 1);
    make_key(&other, addr_len, 2);

    memset(&two, 0, sizeof(two));

    ok(ngx_tun_nat_lookup(&nat, &key, 0, 100, &one) == NGX_DECLINED,
       "not there", 0);
    ok(ngx_tun_nat_insert(&nat, &key, 7, 100, &one) == NGX_OK, "a SYN", 0);
    ok(ngx_tun_nat_lookup(&nat, &key, 0, 100, &two) == NGX_OK
       && two.slot == one.slot && two.port == one.port
       && memcmp(two.addr, one.addr, addr_len) == 0, "it is found", two.slot);
    ok(ngx_tun_nat_insert(&nat, &key, 7, 101, &two) == NGX_OK
       && two.slot == one.slot, "a second SYN", two.slot);
    ok(ngx_tun_nat_insert(&nat, &other, 7, 101, &three) == NGX_OK
       && three.slot != one.slot, "of another flow", three.slot);

    memset(&two, 0, sizeof(two));

    ok(ngx_tun_nat_reverse(&nat, one.addr, one.port, 0, 102, &two) == NGX_OK
       && memcmp(&two.key, &key, sizeof(key)) == 0, "the way back", two.slot);
    ok(ngx_tun_nat_accept(&nat, one.addr, one.port, 103, &two) == NGX_OK
       && memcmp(&two.key, &key, sizeof(key)) == 0
       && (two.flags & NGX_TUN_NAT_ACCEPTED), "accepted", two.slot);
    ok(ngx_tun_nat_insert(&nat, &key, 8, 104, &three) == NGX_DONE
       && three.slot == one.slot && three.generation == two.generation,
       "a SYN into a session", three.slot);

    (void) ngx_tun_nat_lookup(&nat, &key, NGX_TUN_NAT_FIN_C, 105, &three);
    ok(three.flags == (NGX_TUN_NAT_ACCEPTED|NGX_TUN_NAT_FIN_C), "FIN",
       three.flags);

    ngx_tun_nat_release(&nat, two.slot, two.generation - 1, 106);
    (void) ngx_tun_nat_lookup(&nat, &key, 0, 106, &three);
    ok(!(three.flags & NGX_TUN_NAT_CLOSED), "a release of an earlier session",
       three.flags);

    ngx_tun_nat_release(&nat, two.slot, two.generation, 107);
    (void) ngx_tun_nat_lookup(&nat, &key, 0, 107, &three);
    ok(three.flags & NGX_TUN_NAT_CLOSED, "a release", three.flags);

    ok(ngx_tun_nat_insert(&nat, &key, 9, 108, &three) == NGX_OK
       && three.slot == one.slot && three.flags == 0,
       "the same again gets the same", three.slot);

    (void) ngx_tun_nat_reverse(&nat, one.addr, one.port, NGX_TUN_NAT_RST_L,
                               109, &three);
    ok(three.flags == NGX_TUN_NAT_RST_L, "a reset", three.flags);
    (void) ngx_tun_nat_reverse(&nat, one.addr, one.port, 0, 109, &three);
    ok(three.flags == 0, "that was none", three.flags);

    ok(ngx_tun_nat_fits(nat.shared, &conf), "a reload", 0);
    conf.network[0]++;
    ok(!ngx_tun_nat_fits(nat.shared, &conf), "with another network", 0);
    conf.network[0]--;

    table_free(&nat, &conf);
}


/* how long is a tuple kept from others? */

static void
test_quarantine(size_t addr_len, ngx_uint_t flags, uint32_t ttl,
    const char *what)
{
    ngx_int_t             before, after;
    ngx_tun_nat_t         nat;
    ngx_tun_flow_key_t    key;
    ngx_tun_nat_conf_t    conf;
    ngx_tun_nat_entry_t   entry, other;

    conf_init(&conf, addr_len, 16, 1);
    table_create(&nat, &conf);

    make_key(&key, addr_len, 1);
    (void) ngx_tun_nat_insert(&nat, &key, 7, 999, &entry);

    if (flags & NGX_TUN_NAT_ACCEPTED) {
        (void) ngx_tun_nat_accept(&nat, entry.addr, entry.port, 999, &entry);
    }

    (void) ngx_tun_nat_lookup(&nat, &key, flags
                              & (NGX_TUN_NAT_FIN_C|NGX_TUN_NAT_RST_C), 1000,
                              &other);

    if (flags & (NGX_TUN_NAT_FIN_L|NGX_TUN_NAT_RST_L)) {
        (void) ngx_tun_nat_reverse(&nat, entry.addr, entry.port, flags
                                   & (NGX_TUN_NAT_FIN_L|NGX_TUN_NAT_RST_L),
                                   1000, &other);
    }

    if (flags & NGX_TUN_NAT_CLOSED) {
        ngx_tun_nat_release(&nat, entry.slot, entry.generation, 1000);
    }

    make_key(&key, addr_len, 2);

    ngx_tun_nat_sweep(&nat, 1000 + ttl - 1);
    before = ngx_tun_nat_insert(&nat, &key, 7, 1000 + ttl - 1, &other);
    ngx_tun_nat_sweep(&nat, 1000 + ttl);
    after = ngx_tun_nat_insert(&nat, &key, 7, 1000 + ttl, &other);

    /* but a SYN gives way before its time */

    if (flags & NGX_TUN_NAT_ACCEPTED) {
        ok(before == NGX_ERROR && after == NGX_OK, what, ttl);

    } else {
        ok(before == NGX_OK && nat.shared->used[0] == 1, what, ttl);
    }

    table_free(&nat, &conf);
}


static void
test_full(size_t addr_len)
{
    uint32_t              n, left;
    ngx_uint_t            bad, evicted;
    ngx_tun_nat_t         nat;
    ngx_tun_flow_key_t    key;
    ngx_tun_nat_conf_t    conf;
    ngx_tun_nat_entry_t   entry, *entries;

    conf_init(&conf, addr_len, 16, 250);
    table_create(&nat, &conf);

    entries = calloc(250, sizeof(ngx_tun_nat_entry_t));

    for (bad = 0, n = 0; n < 250; n++) {
        make_key(&key, addr_len, n);
        bad += (ngx_tun_nat_insert(&nat, &key, n, 100, &entries[n]) != NGX_OK);
    }

    ok(bad == 0, "every slot is used", bad);

    make_key(&key, addr_len, 1000);
    ok(ngx_tun_nat_insert(&nat, &key, 1, 102, &entry) == NGX_ERROR, "full", 0);

    for (bad = 0, n = 0; n < 250; n++) {
        bad += (n % 10 != 0
                && ngx_tun_nat_accept(&nat, entries[n].addr, entries[n].port,
                                      102, &entries[n])
                   != NGX_OK);
    }

    for (evicted = 0, n = 0; n < 25; n++) {
        make_key(&key, addr_len, 1000 + n);

        bad += (ngx_tun_nat_insert(&nat, &key, 1, 103, &entry) != NGX_OK);
        bad += (entry.isn % 10 != 0 || entry.slot != entries[entry.isn].slot);

        evicted += entry.evicted;
    }

    ok(bad == 0 && evicted == 25, "SYNs give way", bad);

    make_key(&key, addr_len, 2000);
    ok(ngx_tun_nat_insert(&nat, &key, 1, 103, &entry) == NGX_ERROR,
       "full again", 0);

    for (bad = 0, n = 0; n < 250; n++) {
        make_key(&key, addr_len, n);

        bad += (n % 10 != 0
                && (ngx_tun_nat_lookup(&nat, &key, 0, 104, &entry) != NGX_OK
                    || entry.slot != entries[n].slot));
    }

    ok(bad == 0, "sessions do not", bad);

    /* all is over, and swept away in a minute */

    for (n = 104; n < 104 + NGX_TUN_NAT_TTL_OPEN; n++) {
        if (n > NGX_TUN_NAT_TTL_OPEN) {
            ngx_tun_nat_sweep(&nat, n);
        }
    }

    for ( /* void */ ; n < 104 + NGX_TUN_NAT_TTL_OPEN + 64; n++) {
        ngx_tun_nat_sweep(&nat, n);
    }

    for (left = 0, n = 0; n < 250; n++) {
        left += (ngx_tun_nat_state(ngx_tun_nat_slot(&nat, n)->word)
                 == NGX_TUN_NAT_USED);
    }

    ok(left == 0, "all slots are free in the end", left);

    for (bad = 0, n = 0; n < NGX_TUN_NAT_CLIENTS; n++) {
        bad += nat.shared->clients[n];
    }

    ok(bad == 0, "and no client has one", bad);

    free(entries);
    table_free(&nat, &conf);
}


static void
test_client(size_t addr_len)
{
    uint32_t              n;
    ngx_uint_t            good;
    ngx_tun_nat_t         nat;
    ngx_tun_flow_key_t    key;
    ngx_tun_nat_conf_t    conf;
    ngx_tun_nat_entry_t   entry;

    conf_init(&conf, addr_len, 16, 65536);
    conf.client = 100;
    table_create(&nat, &conf);

    for (good = 0, n = 0; n < 200; n++) {
        make_key(&key, addr_len, n);
        good += (ngx_tun_nat_insert(&nat, &key, n, 100, &entry) == NGX_OK);
    }

    ok(good == 100, "what one client gets", good);

    make_key(&key, addr_len, 1);
    key.src[1] = 77;

    ok(ngx_tun_nat_insert(&nat, &key, 1, 100, &entry) == NGX_OK, "and another",
       0);

    for (n = 0; n < 70; n++) {
        ngx_tun_nat_sweep(&nat, 100 + NGX_TUN_NAT_TTL_SYN + n);
    }

    for (good = 0, n = 200; n < 400; n++) {
        make_key(&key, addr_len, n);
        good += (ngx_tun_nat_insert(&nat, &key, n, 300, &entry) == NGX_OK);
    }

    ok(good == 100, "when those are over", good);

    table_free(&nat, &conf);
}


static void
test_growth(size_t addr_len)
{
    uint32_t              n, count, *slots;
    ngx_uint_t            bad, moved;
    ngx_tun_nat_t         nat;
    ngx_tun_flow_key_t    key;
    ngx_tun_nat_conf_t    conf;
    ngx_tun_nat_entry_t   entry;

    count = 180000;

    conf_init(&conf, addr_len, 16, 1 << 20);
    table_create(&nat, &conf);

    slots = calloc(count, sizeof(uint32_t));

    ok(nat.shared->opened == 1, "one level", nat.shared->opened);

    for (bad = 0, n = 0; n < count; n++) {
        make_key(&key, addr_len, n);
        bad += (ngx_tun_nat_insert(&nat, &key, n, 100, &entry) != NGX_OK);
        slots[n] = entry.slot;
    }

    ok(bad == 0, "more than it holds", bad);
    ok(nat.shared->opened == 3, "levels", nat.shared->opened);

    for (moved = 0, n = 0; n < count; n++) {
        make_key(&key, addr_len, n);
        moved += (ngx_tun_nat_lookup(&nat, &key, 0, 100, &entry) != NGX_OK
                  || entry.slot != slots[n]);
    }

    ok(moved == 0, "all have their tuples", moved);

    for (n = 100 + NGX_TUN_NAT_TTL_SYN; n < 300; n++) {
        ngx_tun_nat_sweep(&nat, n);
    }

    ok(nat.shared->used[0] + nat.shared->used[1] + nat.shared->used[2] < 1000,
       "swept", nat.shared->used[0]);

    make_key(&key, addr_len, 3);
    (void) ngx_tun_nat_insert(&nat, &key, 0, 300, &entry);
    ok(entry.slot < 65536, "the first level is the first", entry.slot);

    free(slots);
    table_free(&nat, &conf);
}


/* is another flow that may still be in the kernel on this slot? */

static ngx_uint_t
shared(model_t *model, model_t *m, uint32_t now, uint32_t syn)
{
    uint32_t     ttl;
    ngx_uint_t   i, n;

    for (n = 0, i = 0; i < MODEL_KEYS; i++) {

        if (!model[i].known || &model[i] == m || model[i].slot != m->slot) {
            continue;
        }

        ttl = !(model[i].flags & NGX_TUN_NAT_ACCEPTED) ? syn
              : !(model[i].flags & NGX_TUN_NAT_CLOSED) ? NGX_TUN_NAT_TTL_OPEN
              : (model[i].flags & NGX_TUN_NAT_FIN_C) ? NGX_TUN_NAT_TTL_FIN
              : NGX_TUN_NAT_TTL_HALF;

        if (now - model[i].seen < ttl) {
            n++;
        }

        /* it is the other's now */

        model[i].known = 0;
    }

    return n;
}


static void
test_model(size_t addr_len)
{
    model_t              *model, *m;
    uint32_t              now, inserted, sharing, wrong, full;
    ngx_int_t             rc;
    ngx_uint_t            i;
    ngx_tun_nat_t         nat;
    ngx_tun_nat_conf_t    conf;
    ngx_tun_nat_entry_t   entry;

    /* fewer slots than keys, so they are fought for */

    conf_init(&conf, addr_len, 16, MODEL_KEYS / 8);
    table_create(&nat, &conf);

    model = calloc(MODEL_KEYS, sizeof(model_t));

    for (i = 0; i < MODEL_KEYS; i++) {
        make_key(&model[i].key, addr_len, i);
    }

    now = 5000;
    inserted = sharing = wrong = full = 0;

    for (i = 0; i < 600000; i++) {
        m = &model[random() % MODEL_KEYS];

        if (i % 1500 == 0) {
            ngx_tun_nat_sweep(&nat, ++now);
        }

        switch (random() % 8) {

        case 0:
        case 1:
            rc = ngx_tun_nat_insert(&nat, &m->key, 1, now, &entry);

            if (rc == NGX_ERROR) {
                full++;
                break;
            }

            if (rc == NGX_OK) {
                wrong += (m->known && entry.slot != m->slot);

                m->slot = entry.slot;
                m->known = 1;
                m->flags = 0;

                sharing += shared(model, m, now,
                                  entry.evicted ? NGX_TUN_NAT_EVICT
                                                : NGX_TUN_NAT_TTL_SYN);
                inserted++;
            }

            m->seen = now;
            break;

        case 2:
        case 3:
            if (m->known && m->flags == 0
                && ngx_tun_nat_reverse(&nat, entry.addr, entry.port, 0, now,
                                       &entry)
                   == NGX_OK
                && entry.slot == m->slot
                && ngx_tun_nat_accept(&nat, entry.addr, entry.port, now,
                                      &entry)
                   == NGX_OK)
            {
                wrong += (memcmp(&entry.key, &m->key, sizeof(entry.key)) != 0);

                m->flags = NGX_TUN_NAT_ACCEPTED;
                m->generation = entry.generation;
                m->seen = now;
            }

            break;

        case 4:
        case 5:
            if (m->known && (m->flags & NGX_TUN_NAT_ACCEPTED)
                && !(m->flags & NGX_TUN_NAT_CLOSED))
            {
                ngx_tun_nat_release(&nat, m->slot, m->generation, now);

                m->flags |= NGX_TUN_NAT_CLOSED;
                m->seen = now;
            }

            break;

        default:
            rc = ngx_tun_nat_lookup(&nat, &m->key, NGX_TUN_NAT_FIN_C, now,
                                    &entry);

            if (rc != NGX_OK) {
                break;
            }

            wrong += (!m->known || entry.slot != m->slot);

            rc = ngx_tun_nat_reverse(&nat, entry.addr, entry.port,
                                     NGX_TUN_NAT_FIN_L, now, &entry);

            wrong += (rc != NGX_OK
                      || memcmp(&entry.key, &m->key, sizeof(entry.key)) != 0);

            m->flags |= NGX_TUN_NAT_FIN_C;
            m->seen = now;
        }
    }

    ok(inserted > 10000 && full != 0, "flows", inserted);
    ok(sharing == 0, "never two of them have a tuple", sharing);
    ok(wrong == 0, "none has another's", wrong);

    free(model);
    table_free(&nat, &conf);
}


/* the same and other keys, by several processes at once */

static void
test_processes(size_t addr_len)
{
    int                   status;
    pid_t                 pids[3];
    uint32_t              n, count, *slots, *one, *two;
    ngx_uint_t            p, differ, twice;
    ngx_tun_nat_t         nat;
    ngx_tun_flow_key_t    key;
    ngx_tun_nat_conf_t    conf;
    ngx_tun_nat_entry_t   entry;

    count = 60000;

    conf_init(&conf, addr_len, 16, 1 << 18);
    table_create(&nat, &conf);

    slots = mmap(NULL, 3 * count * sizeof(uint32_t), PROT_READ|PROT_WRITE,
                 MAP_SHARED|MAP_ANONYMOUS, -1, 0);

    fflush(stdout);

    for (p = 0; p < 3; p++) {
        pids[p] = fork();

        if (pids[p] == 0) {
            ngx_tun_nat_attach(&nat, nat.shared);

            for (n = 0; n < count; n++) {
                make_key(&key, addr_len, n);

                while (ngx_tun_nat_insert(&nat, &key, n, 100, &entry)
                       == NGX_BUSY)
                {
                    /* void */
                }

                slots[p * count + n] = entry.slot + 1;

                if (ngx_tun_nat_reverse(&nat, entry.addr, entry.port, 0, 100,
                                        &entry)
                    != NGX_OK
                    || memcmp(&entry.key, &key, sizeof(key)) != 0)
                {
                    slots[p * count + n] = 0;
                }

                ngx_tun_nat_sweep(&nat, 100 + n / 1000);
            }

            _exit(0);
        }
    }

    for (p = 0; p < 3; p++) {
        (void) waitpid(pids[p], &status, 0);
    }

    one = calloc(conf.slots + 1, sizeof(uint32_t));
    differ = 0;
    twice = 0;

    for (n = 0; n < count; n++) {
        two = &slots[n];
        differ += (two[0] == 0 || two[0] != two[count]
                   || two[0] != two[2 * count]);
        twice += one[two[0]]++;
    }

    ok(differ == 0, "three processes agree", differ);
    ok(twice == 0, "and share nothing", twice);

    free(one);
    munmap(slots, 3 * count * sizeof(uint32_t));
    table_free(&nat, &conf);
}


/* a writer is killed wherever it is, again and again */

static void
test_kill(size_t addr_len)
{
    int                   status;
    pid_t                 pid;
    u_char               *found;
    uint32_t              n, count;
    ngx_uint_t            i, bad, twice, filling, held;
    ngx_tun_nat_t         nat;
    ngx_tun_flow_key_t    key;
    ngx_tun_nat_conf_t    conf;
    ngx_tun_nat_slot_t   *slot;
    ngx_tun_nat_entry_t   entry;

    conf_init(&conf, addr_len, 16, 1 << 17);
    table_create(&nat, &conf);

    bad = 0;
    held = 0;

    fflush(stdout);

    for (i = 0; i < 200; i++) {
        pid = fork();

        if (pid == 0) {
            ngx_tun_nat_attach(&nat, nat.shared);

            for (n = i * 50; /* void */ ; n++) {
                make_key(&key, addr_len, n % 50000);
                (void) ngx_tun_nat_insert(&nat, &key, n, 100 + i * 80, &entry);
            }
        }

        usleep(1000 + random() % 2000);

        (void) kill(pid, SIGKILL);
        (void) waitpid(pid, &status, 0);

        held += (nat.shared->lock != 0);

        make_key(&key, addr_len, 100000 + i);
        bad += (ngx_tun_nat_insert(&nat, &key, 1, 100 + i * 80, &entry)
                != NGX_OK);
    }

    ok(bad == 0, "after a kill the next one goes on", bad);
    printf("# %d times the lock was held\n", (int) held);

    /* as if it had been killed while it wrote the key */

    make_key(&key, addr_len, 200000);
    (void) ngx_tun_nat_insert(&nat, &key, 1, 20000, &entry);

    slot = ngx_tun_nat_slot(&nat, entry.slot);
    slot->word = ngx_tun_nat_word(entry.generation, NGX_TUN_NAT_FILLING, 0,
                                  20000);
    nat.shared->lock = pid;

    ok(ngx_tun_nat_lookup(&nat, &key, 0, 20001, &entry) == NGX_DECLINED
       && ngx_tun_nat_reverse(&nat, entry.addr, entry.port, 0, 20001, &entry)
          == NGX_DECLINED, "a slot half filled is none", entry.slot);
    n = entry.slot;
    ok(ngx_tun_nat_insert(&nat, &key, 1, 20001, &entry) == NGX_OK
       && entry.slot == n, "but for the next one", entry.slot);

    /* what there is must be right */

    found = calloc(1, 300000);
    twice = 0;
    filling = 0;

    for (n = 0; n < conf.slots; n++) {
        slot = ngx_tun_nat_slot(&nat, n);

        if (ngx_tun_nat_state(slot->word) == NGX_TUN_NAT_FILLING) {
            filling++;
        }

        if (ngx_tun_nat_state(slot->word) == NGX_TUN_NAT_FREE
            || ngx_tun_nat_state(slot->word) == NGX_TUN_NAT_FILLING)
        {
            continue;
        }

        for (count = 0; count < 2; count++) {
            ngx_tun_nat_key(&nat, slot, &key);
        }

        count = slot->src_port - 1024 + (key.src[addr_len - 1] - 2) * 60000;
        twice += found[count]++;
    }

    ok(twice == 0, "no key is there twice", twice);
    printf("# %d slots were left half filled\n", (int) filling);

    free(found);

    /* an owner that lives is not robbed */

    nat.shared->lock = getppid();
    make_key(&key, addr_len, 250000);
    ok(ngx_tun_nat_insert(&nat, &key, 1, 20002, &entry) == NGX_BUSY,
       "a lock that is held", 0);

    table_free(&nat, &conf);
}


static double
now_ns(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec * 1e9 + ts.tv_nsec;
}


static void
test_speed(size_t addr_len)
{
    double                t0, t1, t2, t3;
    uint32_t              i, n, count, slots, rounds;
    ngx_uint_t            bad;
    ngx_tun_nat_t         nat;
    ngx_tun_flow_key_t    key;
    ngx_tun_nat_conf_t    conf;
    ngx_tun_nat_entry_t   entry, *entries;

    slots = 1 << 20;
    count = slots / 2;
    rounds = 1 << 20;

    conf_init(&conf, addr_len, 16, slots);
    table_create(&nat, &conf);

    entries = malloc(1024 * sizeof(ngx_tun_nat_entry_t));
    bad = 0;

    t0 = now_ns();

    for (n = 0; n < count; n++) {
        make_key(&key, addr_len, n);
        bad += (ngx_tun_nat_insert(&nat, &key, n, 100, &entries[n & 1023])
                != NGX_OK);
    }

    t1 = now_ns();

    for (i = 0; i < rounds; i++) {
        n = (uint32_t) (i * 2654435761u) % count;
        make_key(&key, addr_len, n);
        bad += (ngx_tun_nat_lookup(&nat, &key, 0, 100, &entry) != NGX_OK);
    }

    t2 = now_ns();

    for (i = 0; i < rounds; i++) {
        n = (uint32_t) (i * 2654435761u) % slots;
        ngx_tun_nat_tuple(&nat, n, entry.addr, &entry.port);
        (void) ngx_tun_nat_reverse(&nat, entry.addr, entry.port, 0, 100,
                                   &entry);
    }

    t3 = now_ns();

    ok(bad == 0, "half a million flows", bad);
    printf("# ns each: insert %.0f, lookup %.0f, reverse %.0f\n",
           (t1 - t0) / count, (t2 - t1) / rounds, (t3 - t2) / rounds);

    free(entries);
    table_free(&nat, &conf);
}


int
main(void)
{
    size_t  len;

    srandom(7);

    for (len = 4; len <= 16; len += 12) {
        test_tuples(len);
        test_life(len);

        test_quarantine(len, 0, NGX_TUN_NAT_TTL_SYN, "a SYN only");
        test_quarantine(len, NGX_TUN_NAT_ACCEPTED, NGX_TUN_NAT_TTL_OPEN,
                        "an idle session");
        test_quarantine(len, NGX_TUN_NAT_ACCEPTED|NGX_TUN_NAT_FIN_C
                             |NGX_TUN_NAT_FIN_L, NGX_TUN_NAT_TTL_FIN,
                        "a process that died with it");
        test_quarantine(len, NGX_TUN_NAT_ACCEPTED|NGX_TUN_NAT_CLOSED,
                        NGX_TUN_NAT_TTL_HALF, "closed by us");
        test_quarantine(len, NGX_TUN_NAT_ACCEPTED|NGX_TUN_NAT_CLOSED
                             |NGX_TUN_NAT_FIN_C, NGX_TUN_NAT_TTL_HALF,
                        "closed by the client");
        test_quarantine(len, NGX_TUN_NAT_ACCEPTED|NGX_TUN_NAT_CLOSED
                             |NGX_TUN_NAT_FIN_C|NGX_TUN_NAT_FIN_L,
                        NGX_TUN_NAT_TTL_FIN, "closed by both");
        test_quarantine(len, NGX_TUN_NAT_ACCEPTED|NGX_TUN_NAT_CLOSED
                             |NGX_TUN_NAT_RST_C, NGX_TUN_NAT_TTL_FIN,
                        "reset by the client");
        test_quarantine(len, NGX_TUN_NAT_ACCEPTED|NGX_TUN_NAT_RST_C,
                        NGX_TUN_NAT_TTL_OPEN, "a reset that was not believed");
        test_quarantine(len, NGX_TUN_NAT_ACCEPTED|NGX_TUN_NAT_RST_L,
                        NGX_TUN_NAT_TTL_RST, "reset by us");

        test_full(len);
        test_client(len);
        test_growth(len);
        test_model(len);
        test_processes(len);
        test_kill(len);
        test_speed(len);
    }

    printf("1..%d\n", (int) tests);

    return 0;
}
