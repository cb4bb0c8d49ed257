
/*
 * Copyright (C) the nginx-tun authors
 */


/*
 * Runs those of lwIP's own tests, from its source, that are about what is
 * built into the module.
 */


#include <stdio.h>
#include <string.h>

#include "lwip_check.h"
#include "core/test_def.h"
#include "core/test_pbuf.h"
#include "tcp/test_tcp.h"
#include "tcp/test_tcp_oos.h"

#if __has_include("tcp/test_tcp_state.h")
#include "tcp/test_tcp_state.h"
#define SUITES_STATE  1
#endif

#include "lwip/init.h"
#include "lwip/memp.h"
#include "lwip/stats.h"


static unsigned  asserts;

u32_t            lwip_sys_now;


void
ngx_tun_lwip_assert(const char *message, const char *file, int line)
{
    /* the tests of pbufs misuse them */

    if (strstr(file, "/pbuf.c") != NULL) {
        return;
    }

    asserts++;

    printf("# %s, %s:%d\n", message, file, line);
}


u32_t
sys_now(void)
{
    return lwip_sys_now;
}


Suite *
create_suite(const char *name, testfunc *tests, size_t n, SFun setup,
    SFun teardown)
{
    size_t   i;
    Suite   *suite;
    TCase   *tcase;

    suite = suite_create(name);

    for (i = 0; i < n; i++) {
        tcase = tcase_create(name);

        if (setup != NULL || teardown != NULL) {
            tcase_add_checked_fixture(tcase, setup, teardown);
        }

        tcase_add_named_test(tcase, tests[i]);
        suite_add_tcase(suite, tcase);
    }

    return suite;
}


void
lwip_check_ensure_no_alloc(unsigned skip)
{
    int  i;

    if (!(skip & SKIP_HEAP)) {
        ck_assert(lwip_stats.mem.used == 0);
    }

    for (i = 0; i < MEMP_MAX; i++) {
        if (!(skip & SKIP_POOL(i))) {
            ck_assert(lwip_stats.memp[i]->used == 0);
        }
    }
}


int
main(void)
{
    int            i, n, failed;
    SRunner       *runner;
    TestResult   **results;

    lwip_init();

    runner = srunner_create(tcp_suite());

    srunner_add_suite(runner, tcp_oos_suite());
#if (SUITES_STATE)
    srunner_add_suite(runner, tcp_state_suite());
#endif
    srunner_add_suite(runner, pbuf_suite());
    srunner_add_suite(runner, def_suite());

    /* in one process, so that what one leaves behind is seen by the next */
    srunner_set_fork_status(runner, CK_NOFORK);

    srunner_run_all(runner, CK_SILENT);

    n = srunner_ntests_run(runner);
    results = srunner_results(runner);
    failed = 0;

    for (i = 0; i < n; i++) {

        if (tr_rtype(results[i]) == CK_PASS) {
            printf("ok %d - %s\n", i + 1, tr_tcname(results[i]));
            continue;
        }

        failed = 1;

        printf("not ok %d - %s, %s:%d: %s\n", i + 1, tr_tcname(results[i]),
               tr_lfile(results[i]), tr_lno(results[i]), tr_msg(results[i]));
    }

    printf("%sok %d - asserts, %u\n", asserts ? "not " : "", n + 1, asserts);
    printf("1..%d\n", n + 1);

    free(results);
    srunner_free(runner);

    return failed;
}
