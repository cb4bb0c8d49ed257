
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: stack/ngx_tun_icmp_ping.c stack/ngx_tun_packet.c stack/ngx_tun_flow.c */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_icmp_ping.h>

#include "lib/tap.h"


volatile ngx_msec_t  ngx_current_msec = 5000;


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


static u_char  target[] = { 192, 0, 2, 1 };
static u_char  other[] = { 192, 0, 2, 2 };


static ngx_tun_ping_t *
sent(ngx_tun_pings_t *pings, ngx_uint_t client, uint16_t id, uint16_t seq)
{
    uint32_t                src;
    ngx_tun_packet_t        pkt;
    ngx_tun_packet_icmp_t   icmp;

    src = htonl(0x0a000000 + (uint32_t) client);

    memset(&pkt, 0, sizeof(ngx_tun_packet_t));

    pkt.src = (u_char *) &src;
    pkt.dst = target;
    pkt.addr_len = 4;
    pkt.protocol = IPPROTO_ICMP;

    icmp.kind = NGX_TUN_PACKET_ICMP_REQUEST;
    icmp.id = id;
    icmp.seq = seq;

    return ngx_tun_ping_sent(pings, &pkt, &icmp);
}


static ngx_tun_ping_t *
answer(ngx_tun_pings_t *pings, uint16_t id, uint16_t seq, u_char *addr)
{
    ngx_tun_packet_icmp_t  icmp;

    icmp.kind = NGX_TUN_PACKET_ICMP_REPLY;
    icmp.id = id;
    icmp.seq = seq;

    return ngx_tun_ping_lookup(pings, &icmp, addr, 4);
}


static void
open_pings(ngx_tun_pings_t *pings, ngx_uint_t part, ngx_uint_t parts)
{
    static ngx_log_t  log;

    memset(pings, 0, sizeof(ngx_tun_pings_t));

    if (ngx_tun_pings_init(pings, part, parts, &log) != NGX_OK) {
        ok(0, "no memory");
    }
}


static void
test_match(void)
{
    u_char            addr6[16];
    ngx_tun_ping_t   *ping, *two;
    ngx_tun_pings_t   pings;

    open_pings(&pings, 0, 1);

    ok(answer(&pings, 1, 1, target) == NULL, "nothing was sent");

    ping = sent(&pings, 1, 77, 10);
    two = sent(&pings, 2, 77, 10);

    ok(ping != two && ping->id != two->id, "two clients");
    ok(sent(&pings, 1, 77, 11) == ping, "the next of the first");
    ok(sent(&pings, 1, 78, 10) != ping, "another id");

    ok(answer(&pings, ping->id, 10, target) == ping, "answered");
    ok(answer(&pings, ping->id, 11, target) == ping, "the last one");
    ok(answer(&pings, ping->id, 12, target) == NULL, "not sent yet");
    ok(answer(&pings, ping->id, 9, target) == NULL, "before the first");
    ok(answer(&pings, ping->id, 10, other) == NULL, "another target");

    memset(addr6, 0, 16);
    memcpy(addr6, target, 4);

    ok(ngx_tun_ping_lookup(&pings, &(ngx_tun_packet_icmp_t) {
           NGX_TUN_PACKET_ICMP_REPLY, ping->id, 10 }, addr6, 16)
       == NULL, "another family");

    ngx_current_msec += NGX_TUN_PING_IDLE;
    ok(answer(&pings, ping->id, 11, target) == ping, "just in time");
    ngx_current_msec++;
    ok(answer(&pings, ping->id, 11, target) == NULL, "too late");

    ngx_tun_pings_done(&pings);
}


static void
test_window(void)
{
    ngx_uint_t        i, n;
    ngx_tun_ping_t   *ping;
    ngx_tun_pings_t   pings;

    open_pings(&pings, 0, 1);

    /* over the end of the numbers */

    for (i = 0; i < 3000; i++) {
        ping = sent(&pings, 1, 1, (uint16_t) (64000 + i));
    }

    for (i = 0, n = 0; i < 65536; i++) {
        n += answer(&pings, ping->id, (uint16_t) i, target) != NULL;
    }

    ok(n == NGX_TUN_PING_WINDOW, "numbers, %u", (unsigned) n);
    ok(answer(&pings, ping->id, (uint16_t) 66999, target) == ping
       && answer(&pings, ping->id, (uint16_t) (67000 - n), target) == ping,
       "the last ones");

    /* out of order, and from the start again */

    ping = sent(&pings, 2, 1, 100);
    (void) sent(&pings, 2, 1, 97);

    ok(answer(&pings, ping->id, 97, target) == ping
       && answer(&pings, ping->id, 100, target) == ping
       && answer(&pings, ping->id, 96, target) == NULL, "out of order");

    (void) sent(&pings, 2, 1, 30000);
    (void) sent(&pings, 2, 1, 1);

    ok(answer(&pings, ping->id, 1, target) == ping
       && answer(&pings, ping->id, 2, target) == NULL
       && answer(&pings, ping->id, 0, target) == NULL
       && answer(&pings, ping->id, 30000, target) == NULL, "started again");

    ngx_tun_pings_done(&pings);
}


/* no two have the same identifier, and none has what is another part's */

static void
test_ids(ngx_uint_t parts)
{
    u_char           *used;
    uint16_t          late;
    ngx_uint_t        i, n, part, max, bad, outside;
    ngx_tun_ping_t   *ping;
    ngx_tun_pings_t   pings;

    used = calloc(1, 65536);
    bad = 0;
    outside = 0;
    max = ngx_min(65536 / parts / 4, NGX_TUN_PING_MAX);

    for (part = 0; part < ngx_min(parts, 20); part++) {
        open_pings(&pings, part, parts);

        for (i = 0; i < max; i++) {
            ping = sent(&pings, i, 1, 1);
            bad += used[ping->id]++;
            bad += answer(&pings, ping->id, 1, target) != ping;
            outside += ping->id / (65536 / parts) != part;
        }

        ngx_tun_pings_done(&pings);
    }

    ok(bad == 0 && outside == 0, "identifiers of %u parts", (unsigned) parts);

    /* who gives way is the oldest, and its answer finds nobody else */

    open_pings(&pings, 0, parts);

    late = sent(&pings, 0, 1, 1)->id;

    for (i = 1; i < max; i++) {
        (void) sent(&pings, i, 1, 1);
    }

    ok(answer(&pings, late, 1, target) != NULL, "as many as there is room for");

    (void) sent(&pings, max, 1, 1);

    n = (65536 / parts) / max;
    bad = 0;

    for (i = 1; i <= 10 * max; i++) {

        /* not before all its identifiers had their turn */

        bad += i <= (n - 1) * max && answer(&pings, late, 1, target) != NULL;

        ping = sent(&pings, max + i, 1, 1);
        bad += answer(&pings, ping->id, 1, target) != ping;
    }

    ok(bad == 0 && pings.table.nflows == max, "all others, too");

    ngx_tun_pings_done(&pings);
    free(used);
}


int
main(void)
{
    test_match();
    test_window();
    test_ids(1);
    test_ids(2);
    test_ids(3);
    test_ids(16);
    test_ids(1000);

    return done();
}
