
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: stack/ngx_tun_owner.c */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_owner.h>

#include "lib/tap.h"

#include <sys/wait.h>


#define FLOWS  65536


/* what belongs to nginx */

ngx_pid_t  ngx_pid;


void
ngx_log_error_core(ngx_uint_t level, ngx_log_t *log, ngx_err_t err,
    const char *fmt, ...)
{
}


static ngx_tun_owners_t *create(ngx_uint_t flows);
static void open_as(ngx_tun_owner_t *owner, ngx_tun_owners_t *shared,
    ngx_pid_t pid);
static ngx_pid_t dead(void);
static uint64_t hash(ngx_uint_t n);
static void test_owner(void);
static void test_killed(void);
static void test_again(void);
static void test_many(void);
static void test_full(void);
static void test_next(void);
static void test_boxes(void);
static void test_valid(void);


int
main(void)
{
    test_owner();
    test_killed();
    test_again();
    test_many();
    test_full();
    test_next();
    test_boxes();
    test_valid();

    return done();
}


static ngx_tun_owners_t *
create(ngx_uint_t flows)
{
    ngx_tun_owners_t  *shared;

    shared = aligned_alloc(64, ngx_align(ngx_tun_owners_size(flows), 64));
    memset(shared, 0, ngx_tun_owners_size(flows));

    (void) ngx_tun_owners_init(shared, flows, NULL);

    return shared;
}


static void
open_as(ngx_tun_owner_t *owner, ngx_tun_owners_t *shared, ngx_pid_t pid)
{
    ngx_pid = pid;
    ngx_tun_owner_open(owner, shared, NGX_TUN_OWNER_BOXES);
}


/* the number of a process that there was */

static ngx_pid_t
dead(void)
{
    ngx_pid_t  pid;

    pid = fork();

    if (pid == 0) {
        _exit(0);
    }

    (void) waitpid(pid, NULL, 0);

    return pid;
}


/* splitmix64 */

static uint64_t
hash(ngx_uint_t n)
{
    uint64_t  h;

    h = (n + 1) * 0x9e3779b97f4a7c15;
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9;
    h = (h ^ (h >> 27)) * 0x94d049bb133111eb;

    return h ^ (h >> 31);
}


static void
test_owner(void)
{
    ngx_tun_owner_t    one, other;
    ngx_tun_owners_t  *shared;

    shared = create(0);

    open_as(&one, shared, getpid());
    open_as(&other, shared, getppid());

    ok(one.box != other.box && other.box != NGX_TUN_OWNER_NONE,
       "each has a box");

    ok(ngx_tun_owner_find(&other, hash(1)) == NGX_TUN_OWNER_NONE,
       "a flow that nobody has");

    ngx_tun_owner_insert(&one, hash(1));

    ok(ngx_tun_owner_find(&other, hash(1)) == one.box, "the other finds it");
    ok(ngx_tun_owner_find(&one, hash(1)) == NGX_TUN_OWNER_NONE,
       "one has it, and need not ask");
    ok(ngx_tun_owner_find(&other, hash(1) ^ 1) == NGX_TUN_OWNER_NONE
       && ngx_tun_owner_find(&other, hash(1) ^ ((uint64_t) 1 << 63))
          == NGX_TUN_OWNER_NONE,
       "another hash");

    ngx_tun_owner_delete(&other, hash(1));
    ok(ngx_tun_owner_find(&other, hash(1)) == one.box,
       "only who has it deletes it");

    ngx_tun_owner_delete(&one, hash(1));
    ok(ngx_tun_owner_find(&other, hash(1)) == NGX_TUN_OWNER_NONE, "deleted");

    ngx_tun_owner_delete(&one, hash(1));
    ngx_tun_owner_insert(&other, hash(1));
    ok(ngx_tun_owner_find(&one, hash(1)) == other.box, "it changes hands");

    ok(!ngx_tun_owner_others(&one), "nobody has flows");
    ngx_tun_owner_count(&other, 1);
    ok(ngx_tun_owner_others(&one) && !ngx_tun_owner_others(&other),
       "the other has one");
    ngx_tun_owner_count(&other, -1);
    ok(!ngx_tun_owner_others(&one), "and none again");

    free(shared);
}


static void
test_killed(void)
{
    ngx_tun_owner_t    one, killed;
    ngx_tun_owners_t  *shared;

    shared = create(0);

    open_as(&one, shared, getpid());
    open_as(&killed, shared, dead());

    ngx_tun_owner_insert(&killed, hash(1));
    ngx_tun_owner_ready(&killed, 7);
    ngx_tun_owner_count(&killed, 1);

    ok(ngx_tun_owner_find(&one, hash(1)) == NGX_TUN_OWNER_NONE,
       "a flow of a killed process");
    ok(ngx_tun_owner_next(&one, 1) == NGX_TUN_OWNER_NONE
       && !ngx_tun_owner_others(&one), "it is not waited for");

    free(shared);
}


/* another process gets the box of a killed one */

static void
test_again(void)
{
    ngx_uint_t         box;
    ngx_tun_owner_t    one, killed, next;
    ngx_tun_owners_t  *shared;

    shared = create(0);

    open_as(&one, shared, getpid());
    open_as(&killed, shared, dead());

    box = killed.box;
    ngx_tun_owner_insert(&killed, hash(1));

    open_as(&next, shared, getppid());

    ok(next.box == box, "the box of a killed process");
    ok(ngx_tun_owner_find(&one, hash(1)) == NGX_TUN_OWNER_NONE,
       "not its flow");

    ngx_tun_owner_insert(&next, hash(1));
    ok(ngx_tun_owner_find(&one, hash(1)) == box, "a flow of its own");

    ngx_pid = getppid();
    ngx_tun_owner_close(&next);

    ok(ngx_tun_owner_find(&one, hash(1)) == NGX_TUN_OWNER_NONE,
       "a process that left");
    ok(next.box == NGX_TUN_OWNER_NONE, "and has no box");

    ngx_tun_owner_insert(&next, hash(2));
    ok(ngx_tun_owner_find(&one, hash(2)) == NGX_TUN_OWNER_NONE,
       "without a box nothing is found");

    free(shared);
}


static void
test_many(void)
{
    ngx_uint_t         i, n;
    ngx_tun_owner_t    one, other;
    ngx_tun_owners_t  *shared;

    shared = create(FLOWS);

    open_as(&one, shared, getpid());
    open_as(&other, shared, getppid());

    for (i = 0; i < FLOWS; i++) {
        ngx_tun_owner_insert(i % 2 ? &one : &other, hash(i));
    }

    n = 0;

    for (i = 0; i < FLOWS; i++) {
        n += (ngx_tun_owner_find(i % 2 ? &other : &one, hash(i))
              != (i % 2 ? one.box : other.box));
    }

    ok(n < FLOWS / 1000, "%lu of %d flows without room", (unsigned long) n,
       FLOWS);

    for (i = 0; i < FLOWS; i++) {
        ngx_tun_owner_delete(i % 2 ? &one : &other, hash(i));
    }

    n = 0;

    for (i = 0; i <= shared->mask; i++) {
        n += (one.entries[i * NGX_TUN_OWNER_BUCKET] != 0);
    }

    ok(n == 0, "an empty table");

    free(shared);
}


static void
test_full(void)
{
    ngx_uint_t         i, n;
    ngx_tun_owner_t    one, other, killed;
    ngx_tun_owners_t  *shared;

    shared = create(64);

    open_as(&killed, shared, dead());

    for (i = 0; i < 10000; i++) {
        ngx_tun_owner_insert(&killed, hash(i));
    }

    open_as(&one, shared, getpid());
    open_as(&other, shared, getppid());

    for (i = 0, n = 0; i < 64; i++) {
        ngx_tun_owner_insert(&one, hash(20000 + i));
        n += (ngx_tun_owner_find(&other, hash(20000 + i)) == one.box);
    }

    ok(n >= 60, "%lu of 64 in place of those of a killed process",
       (unsigned long) n);

    for (i = 0; i < 10000; i++) {
        ngx_tun_owner_insert(&one, hash(i));
    }

    ngx_tun_owner_insert(&other, hash(30000));
    ok(ngx_tun_owner_find(&one, hash(30000)) == NGX_TUN_OWNER_NONE,
       "a full table takes none away");

    free(shared);
}


static void
test_next(void)
{
    ngx_tun_owner_t    leaving, old, new;
    ngx_tun_owners_t  *shared;

    shared = create(0);

    open_as(&leaving, shared, getpid());
    open_as(&old, shared, getppid());
    open_as(&new, shared, 1);

    ok(ngx_tun_owner_next(&leaving, 5) == NGX_TUN_OWNER_NONE,
       "nobody is ready");

    ngx_tun_owner_ready(&leaving, 5);
    ngx_tun_owner_ready(&old, 5);

    ok(ngx_tun_owner_next(&leaving, 5) == NGX_TUN_OWNER_NONE,
       "nor of another generation");

    ngx_tun_owner_ready(&old, 3);
    ok(ngx_tun_owner_next(&leaving, 5) == old.box, "back to an older one");

    ngx_tun_owner_ready(&new, 6);
    ok(ngx_tun_owner_next(&leaving, 5) == new.box, "the latest");

    ngx_tun_owner_ready(&new, 0);
    ok(ngx_tun_owner_next(&leaving, 5) == old.box, "which leaves too");

    free(shared);
}


static void
test_boxes(void)
{
    ngx_uint_t         i;
    ngx_tun_owner_t    owner;
    ngx_tun_owners_t  *shared;

    shared = create(0);

    for (i = 0; i < 3; i++) {
        ngx_pid = getpid();
        ngx_tun_owner_open(&owner, shared, 3);
    }

    ok(owner.box == 2 && ngx_tun_owners_taken(shared, 3) == 3, "all taken");

    ngx_tun_owner_open(&owner, shared, 3);
    ok(owner.box == NGX_TUN_OWNER_NONE, "no box");

    shared->boxes[1].pid = dead();
    ok(ngx_tun_owners_taken(shared, 3) == 2, "one is free");

    for (i = 0; i < 600; i++) {
        ngx_tun_owner_open(&owner, shared, 3);
        shared->boxes[1].pid = 0;
    }

    ok(owner.box == 1 && (owner.mark & 0xff) == 1 && owner.mark >> 8 != 0
       && owner.mark >> 16 == 0, "epochs begin again");

    free(shared);
}


static void
test_valid(void)
{
    size_t             size;
    ngx_tun_owners_t  *shared;

    shared = create(100);
    size = ngx_tun_owners_size(100);

    ok(ngx_tun_owners_valid(shared, size), "valid");
    ok(!ngx_tun_owners_valid(shared, size - 8), "too short");
    ok(!ngx_tun_owners_valid(shared, 8), "much too short");

    shared->mask = 2;
    ok(!ngx_tun_owners_valid(shared, size), "not a power of 2");

    shared->mask = (ngx_uint_t) -1;
    ok(!ngx_tun_owners_valid(shared, size), "buckets beyond the end");

    free(shared);
}
