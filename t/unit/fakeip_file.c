
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: t/unit/lib/core.c dns/ngx_tun_fakeip.c dns/ngx_tun_fakeip_entry.c dns/ngx_tun_fakeip_memory.c dns/ngx_tun_fakeip_name.c dns/ngx_tun_fakeip_file.c dns/ngx_tun_fakeip_open.c */


/* the file of a pool, while those who write to it are killed */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_fakeip_pool.h>

#include <sys/mman.h>
#include <sys/wait.h>

#include "lib/core.h"
#include "lib/tap.h"


#define NAMES    20000
#define WORKERS  3


static ngx_log_t  quiet;
static char       path[64];


static size_t
wire(u_char *name, unsigned n)
{
    char       text[128];
    size_t     len;
    ngx_str_t  s;

    s.data = (u_char *) text;
    s.len = sprintf(text, (n & 1) ? "n%u.example"
                    : "n%u.a-long-label-that-needs-more-than-an-entry.example",
                    n);

    if (ngx_tun_fakeip_wire(&s, name, &len) != NGX_OK) {
        abort();
    }

    return len;
}


static ngx_int_t
open_pool(ngx_tun_fakeip_t *fip)
{
    size_t     size;
    ngx_str_t  name;

    memset(fip, 0, sizeof(*fip));

    fip->conf.prefix[0].addr_len = 4;
    fip->conf.prefix[0].prefix = 16;
    memcpy(fip->conf.prefix[0].addr, "\306\22\0\0", 4);

    fip->conf.ttl = 30;
    fip->conf.hold = 3600;

    name.data = (u_char *) path;
    name.len = strlen(path);

    size = ngx_tun_fakeip_size(&fip->conf) + 1024 * 1024;

    return ngx_tun_fakeip_file_open(fip, &name, size, NULL, &quiet);
}


/* names that a worker has told to somebody: index + 1 by number */

static void
work(ngx_tun_fakeip_t *fip, uint32_t *told, unsigned seed)
{
    size_t     len;
    u_char     name[255];
    unsigned   n;
    uint32_t   index;

    srandom(seed);

    for ( ;; ) {
        n = random() % NAMES;
        len = wire(name, n);

        if (ngx_tun_fakeip_assign(fip, name, len, 1, &index) == NGX_OK) {
            told[n] = index + 1;
        }
    }
}


static void
test_kill(void)
{
    int                status;
    pid_t              pid[WORKERS];
    size_t             len;
    u_char             name[255];
    uint32_t          *told, index;
    unsigned           i, k, n, lost, moved, failed;
    uint64_t           dropped;
    ngx_tun_fakeip_t   fip;

    told = mmap(NULL, NAMES * sizeof(uint32_t), PROT_READ|PROT_WRITE,
                MAP_ANON|MAP_SHARED, -1, 0);

    for (lost = moved = failed = 0, dropped = 0, i = 0; i < 60; i++) {

        if (open_pool(&fip) != NGX_OK) {
            failed++;
            break;
        }

        dropped += fip.header->dropped;

        for (n = 0; n < NAMES; n++) {

            if (told[n] == 0) {
                continue;
            }

            len = wire(name, n);

            if (ngx_tun_fakeip_assign(&fip, name, len, 0, &index) != NGX_OK) {
                lost++;

            } else if (index + 1 != told[n]) {
                moved++;
            }
        }

        for (k = 0; k < WORKERS; k++) {
            pid[k] = fork();

            if (pid[k] == 0) {
                work(&fip, told, i * WORKERS + k);
            }
        }

        usleep(500 + random() % 3000);

        /* nobody is left who could put right what a dead one began */

        for (k = 0; k < WORKERS; k++) {
            kill(pid[k], SIGSTOP);
        }

        for (k = 0; k < WORKERS; k++) {
            kill(pid[k], SIGKILL);
            waitpid(pid[k], &status, 0);
        }

        ngx_tun_fakeip_file_close(&fip);
    }

    for (n = 0, k = 0; k < NAMES; k++) {
        n += told[k] != 0;
    }

    ok(failed == 0, "the file is opened again and again");
    ok(n > 1000, "names were told: %u", n);
    ok(lost == 0, "none of them is lost: %u", lost);
    ok(moved == 0, "nor has another address: %u", moved);
    ok(dropped < 60, "%u entries were begun only", (unsigned) dropped);

    munmap(told, NAMES * sizeof(uint32_t));
}


static void
test_lock(void)
{
    int                status;
    pid_t              pid;
    ngx_tun_fakeip_t   fip, other;

    ok(open_pool(&fip) == NGX_OK, "open");

    /* what is not inherited */

    pid = fork();

    if (pid == 0) {
        close_range(3, ~0U, 0);
        _exit(open_pool(&other) == NGX_OK ? 0 : 7);
    }

    waitpid(pid, &status, 0);
    ok(WIFEXITED(status) && WEXITSTATUS(status) == 7,
       "another process does not get it");
    ok(strstr((char *) core_log, "damaged") == NULL, "and there is no damage");

    /* what is: a new binary has the same open file */

    pid = fork();

    if (pid == 0) {
        status = open_pool(&other) == NGX_OK
                 && other.header != fip.header
                 && ngx_tun_fakeip_names(&other) == ngx_tun_fakeip_names(&fip);
        _exit(status ? 0 : 7);
    }

    waitpid(pid, &status, 0);
    ok(status == 0, "who inherits it does");

    ngx_tun_fakeip_file_close(&fip);
    ok(fip.file == NULL, "close");

    ok(open_pool(&fip) == NGX_OK, "open again");
    ngx_tun_fakeip_file_close(&fip);
}


int
main(void)
{
    char  dir[] = "/tmp/unit-fakeip-XXXXXX";

    core_set_time(1700000000, 5000000);

    if (mkdtemp(dir) == NULL) {
        return 1;
    }

    sprintf(path, "%s/names", dir);

    test_kill();
    test_lock();

    unlink(path);
    rmdir(dir);

    return done();
}
