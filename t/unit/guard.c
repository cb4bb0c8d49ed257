
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: stack/ngx_tun_guard.c stack/ngx_tun_flow.c stack/ngx_tun_netlink.c */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_guard.h>

#include "lib/tap.h"

#include <sys/wait.h>


/* what belongs to nginx */

volatile ngx_time_t  *ngx_cached_time;
ngx_pid_t             ngx_pid;

static ngx_time_t     now;
static ngx_uint_t     lines;


void *
ngx_calloc(size_t size, ngx_log_t *log)
{
    return calloc(1, size);
}


size_t
ngx_inet_ntop(int family, void *addr, u_char *text, size_t len)
{
    return 0;
}


u_char * ngx_cdecl
ngx_snprintf(u_char *buf, size_t max, const char *fmt, ...)
{
    return buf;
}


void
ngx_log_error_core(ngx_uint_t level, ngx_log_t *log, ngx_err_t err,
    const char *fmt, ...)
{
    lines++;
}


static void key(ngx_tun_flow_key_t *key, ngx_uint_t protocol, ngx_uint_t src,
    ngx_uint_t dst);
static ngx_uint_t found(ngx_tun_guard_t *guard, ngx_tun_flow_key_t *key);
static void test_connected(ngx_tun_guard_t *guard);
static void test_bound(ngx_tun_guard_t *guard);
static void test_full(ngx_tun_guard_t *guard);
static void test_log(ngx_tun_guard_t *guard);
static void test_await(ngx_tun_guard_t *guard);


int
main(void)
{
    ngx_tun_guard_t          guard;
    ngx_tun_guard_shared_t  *shared;

    ngx_cached_time = &now;
    ngx_pid = getpid();
    now.sec = 1000;

    shared = mmap(NULL, NGX_TUN_GUARD_SIZE, PROT_READ|PROT_WRITE,
                  MAP_SHARED|MAP_ANONYMOUS, -1, 0);

    ok(shared != MAP_FAILED && ngx_tun_guard_init(shared) == NGX_OK, "init");

    ngx_tun_guard_attach(&guard, shared);

    test_connected(&guard);
    test_bound(&guard);
    test_full(&guard);
    test_log(&guard);
    test_await(&guard);

    return done();
}


/* from 127.0.0.1, which is the machine's own, to 192.0.2.1 */

static void
key(ngx_tun_flow_key_t *key, ngx_uint_t protocol, ngx_uint_t src,
    ngx_uint_t dst)
{
    memset(key, 0, sizeof(ngx_tun_flow_key_t));

    memcpy(key->src, "\x7f\0\0\1", 4);
    memcpy(key->dst, "\xc0\0\2\1", 4);

    key->src_port = (uint16_t) src;
    key->dst_port = (uint16_t) dst;
    key->protocol = (uint16_t) protocol;
    key->addr_len = 4;
}


static ngx_uint_t
found(ngx_tun_guard_t *guard, ngx_tun_flow_key_t *key)
{
    ngx_log_t  log;
    ngx_str_t  device = ngx_string("tun0");

    memset(&log, 0, sizeof(ngx_log_t));
    log.log_level = NGX_LOG_WARN;

    return ngx_tun_guard_find(guard, key, &device, &log);
}


static void
test_connected(ngx_tun_guard_t *guard)
{
    ngx_tun_flow_key_t     k, other;
    ngx_tun_guard_entry_t  entry;

    memset(&entry, 0, sizeof(ngx_tun_guard_entry_t));
    key(&k, IPPROTO_TCP, 40000, 443);

    ok(!found(guard, &k), "nothing at first");

    ngx_tun_guard_add(guard, &entry, &k);

    ok(!ngx_tun_guard_looped(&entry), "no loop yet");
    ok(found(guard, &k), "a socket");
    ok(ngx_tun_guard_looped(&entry), "knows of its loop");

    other = k;
    other.src_port++;
    ok(!found(guard, &other), "another port");

    other = k;
    other.dst_port++;
    ok(!found(guard, &other), "another destination port");

    other = k;
    other.src[3]++;
    ok(!found(guard, &other), "another address");

    other = k;
    other.dst[3]++;
    ok(!found(guard, &other), "another destination");

    other = k;
    other.protocol = IPPROTO_UDP;
    ok(!found(guard, &other), "another protocol");

    ngx_tun_guard_delete(&entry);
    ok(!found(guard, &k), "deleted");

    ngx_tun_guard_delete(&entry);
    ok(entry.slot == NULL, "deleted twice");
}


static void
test_bound(ngx_tun_guard_t *guard)
{
    ngx_tun_flow_key_t     k, other;
    ngx_tun_guard_entry_t  entry;

    memset(&entry, 0, sizeof(ngx_tun_guard_entry_t));

    key(&k, IPPROTO_UDP, 40001, 0);
    memset(k.src, 0, 16);
    memset(k.dst, 0, 16);

    ngx_tun_guard_add(guard, &entry, &k);

    key(&other, IPPROTO_UDP, 40001, 53);
    ok(found(guard, &other), "to any destination");

    memcpy(other.src, "\xc0\0\2\7", 4);
    ok(!found(guard, &other), "not from another machine");

    key(&other, IPPROTO_UDP, 40002, 53);
    ok(!found(guard, &other), "not from another port");

    key(&other, IPPROTO_TCP, 40001, 53);
    ok(!found(guard, &other), "not of TCP");

    ngx_tun_guard_delete(&entry);
}


/* more than there is room for; then their worker is gone */

static void
test_full(ngx_tun_guard_t *guard)
{
    pid_t                   pid;
    ngx_uint_t              i, n, none;
    ngx_tun_flow_key_t      k;
    ngx_tun_guard_entry_t  *entries;

    n = 2 * NGX_TUN_GUARD_SLOTS;
    entries = calloc(n, sizeof(ngx_tun_guard_entry_t));

    pid = fork();

    if (pid == 0) {
        _exit(0);
    }

    waitpid(pid, NULL, 0);
    ngx_pid = pid;

    for (none = 0, i = 0; i < n; i++) {
        key(&k, IPPROTO_TCP, i % 60000, 1 + i / 60000);
        ngx_tun_guard_add(guard, &entries[i], &k);
        none += (entries[i].slot == NULL);
    }

    ok(none > 0, "no room for all");
    ok(none <= n - NGX_TUN_GUARD_SLOTS * 95 / 100, "but for most");

    ngx_pid = getpid();

    key(&k, IPPROTO_TCP, 0, 1);
    ok(!found(guard, &k), "of a worker that is gone");

    for (none = 0, i = 0; i < 10000; i++) {
        memset(&entries[i], 0, sizeof(ngx_tun_guard_entry_t));
        key(&k, IPPROTO_TCP, i, 443);
        ngx_tun_guard_add(guard, &entries[i], &k);
        none += (entries[i].slot == NULL || !found(guard, &k));
    }

    ok(none == 0, "what it had is free again");

    for (i = 0; i < 10000; i++) {
        ngx_tun_guard_delete(&entries[i]);
    }

    free(entries);
}


static void
test_log(ngx_tun_guard_t *guard)
{
    ngx_uint_t             i;
    ngx_tun_flow_key_t     k;
    ngx_tun_guard_entry_t  entry;

    memset(&entry, 0, sizeof(ngx_tun_guard_entry_t));
    key(&k, IPPROTO_TCP, 40003, 443);
    ngx_tun_guard_add(guard, &entry, &k);

    now.sec++;
    lines = 0;

    for (i = 0; i < 10; i++) {
        (void) found(guard, &k);
    }

    ok(lines == 1, "a line in a second");

    now.sec++;
    ok(ngx_tun_guard_log(guard) == 10, "the next one counts");
    ok(ngx_tun_guard_log(guard) == 0, "and is the only one");

    ngx_tun_guard_delete(&entry);
}


/* the packet is there before the worker is back from its connect() */

static void
test_await(ngx_tun_guard_t *guard)
{
    pid_t                  pid;
    ngx_uint_t             i, n;
    ngx_tun_flow_key_t     k;
    ngx_tun_guard_entry_t  entry;

    n = 0;

    for (i = 0; i < 20; i++) {
        key(&k, IPPROTO_TCP, 41000 + i, 443);
        ngx_tun_guard_connecting(guard, 3, &k);

        pid = fork();

        if (pid == 0) {
            usleep(500);

            memset(&entry, 0, sizeof(ngx_tun_guard_entry_t));
            ngx_tun_guard_add(guard, &entry, &k);
            ngx_tun_guard_connecting(guard, 3, NULL);

            pause();
        }

        n += found(guard, &k);

        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }

    ok(n >= 10, "waits for a worker that connects");

    key(&k, IPPROTO_TCP, 42000, 443);
    ngx_tun_guard_connecting(guard, 3, &k);
    ok(!found(guard, &k), "but not for ever");
    ngx_tun_guard_connecting(guard, 3, NULL);
}
