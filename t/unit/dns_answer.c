
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: dns/ngx_tun_dns_wire.c dns/ngx_tun_dns_name.c dns/ngx_tun_dns_answer.c dns/ngx_tun_dns_svcb.c */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_dns_wire.h>

#include "lib/tap.h"


#define bytes(s)  (u_char *) s, sizeof(s) - 1

/* id 1, RD, RA; counts of questions and answers, authority, additional */

#define HEAD(rcode, an, ns, ar)                                               \
    "\0\1\x81" rcode "\0\1\0" an "\0" ns "\0" ar

#define OK      "\x80"
#define NAME    "\7example\3com\0"
#define A_IN    "\0\1\0\1"
#define Q(type) NAME "\0" type "\0\1"

/* a record with a pointer to the question's name */

#define RR(type, ttl, data)  "\xc0\x0c\0" type "\0\1\0\0\0" ttl data
#define A(ttl)  RR("\1", ttl, "\0\4\1\2\3\4")
#define SOA(ttl, min)                                                         \
    RR("\6", ttl, "\0\x16\0\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0" min)


typedef struct {
    const char  *what;
    ngx_int_t    rc;
    ngx_uint_t   rcode;
    uint32_t     ttl;
    ngx_uint_t   type;
    u_char      *data;
    size_t       len;
} reply_t;


static reply_t  replies[] = {

    { "A", NGX_OK, 0, 60, 1, bytes(HEAD(OK, "\1", "\0", "\0") Q("\1")
      A("\x3c")) },
    { "two As, the shorter TTL", NGX_OK, 0, 20, 1,
      bytes(HEAD(OK, "\2", "\0", "\0") Q("\1") A("\x3c") A("\x14")) },
    { "TTL 0", NGX_OK, 0, 1, 1, bytes(HEAD(OK, "\1", "\0", "\0") Q("\1")
      A("\0")) },
    { "TTL with its sign bit", NGX_OK, 0, 1, 1,
      bytes(HEAD(OK, "\1", "\0", "\0") Q("\1")
            "\xc0\x0c\0\1\0\1\x80\0\0\1\0\4\1\2\3\4") },
    { "TTL of a year", NGX_OK, 0, 86400, 1,
      bytes(HEAD(OK, "\1", "\0", "\0") Q("\1")
            "\xc0\x0c\0\1\0\1\1\0\0\1\0\4\1\2\3\4") },
    { "alias of less", NGX_OK, 0, 10, 1,
      bytes(HEAD(OK, "\2", "\0", "\0") Q("\1")
            RR("\5", "\x0a", "\0\6\3www\xc0\x0c")
            "\xc0\x29\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4") },
    { "NXDOMAIN", NGX_OK, 3, 30, 1,
      bytes(HEAD("\x83", "\0", "\1", "\0") Q("\1") SOA("\x1e", "\x3c")) },
    { "NXDOMAIN, minimum", NGX_OK, 3, 40, 1,
      bytes(HEAD("\x83", "\0", "\1", "\0") Q("\1") SOA("\x3c", "\x28")) },
    { "NXDOMAIN without SOA", NGX_OK, 3, 0, 1,
      bytes(HEAD("\x83", "\0", "\0", "\0") Q("\1")) },
    { "NODATA", NGX_OK, 0, 30, 28,
      bytes(HEAD(OK, "\0", "\1", "\0") Q("\x1c") SOA("\x1e", "\x3c")) },
    { "NODATA behind an alias", NGX_OK, 0, 10, 28,
      bytes(HEAD(OK, "\1", "\1", "\0") Q("\x1c")
            RR("\5", "\x0a", "\0\6\3www\xc0\x0c") SOA("\x1e", "\x3c")) },
    { "referral", NGX_OK, 0, 0, 1,
      bytes(HEAD(OK, "\0", "\1", "\0") Q("\1")
            RR("\2", "\x3c", "\0\5\2ns\xc0\x0c")) },
    { "SERVFAIL", NGX_OK, 2, 5, 1,
      bytes(HEAD("\x82", "\0", "\0", "\0") Q("\1")) },
    { "REFUSED", NGX_OK, 5, 0, 1,
      bytes(HEAD("\x85", "\0", "\0", "\0") Q("\1")) },
    { "BADVERS", NGX_OK, 2, 5, 1,
      bytes(HEAD(OK, "\0", "\0", "\1") Q("\1")
            "\0\0\x29\4\xd0\1\0\0\0\0\0") },
    { "upper case", NGX_OK, 0, 60, 1, bytes(HEAD(OK, "\1", "\0", "\0")
      "\7EXAMPLE\3com\0" A_IN A("\x3c")) },
    { "address of ours", NGX_OK, 0, 0, 1, bytes(HEAD(OK, "\1", "\0", "\0")
      Q("\1") RR("\1", "\x3c", "\0\4\306\22\0\1")) },

    { "too short", NGX_DECLINED, 0, 0, 1, bytes("\0\1\x81\x80\0\1\0\0\0\0\0") },
    { "another id", NGX_DECLINED, 0, 0, 1,
      bytes("\0\2\x81\x80\0\1\0\1\0\0\0\0" Q("\1") A("\x3c")) },
    { "a query", NGX_DECLINED, 0, 0, 1,
      bytes("\0\1\1\0\0\1\0\0\0\0\0\0" Q("\1")) },
    { "another opcode", NGX_DECLINED, 0, 0, 1,
      bytes("\0\1\xa1\0\0\1\0\0\0\0\0\0" Q("\1")) },
    { "no question", NGX_DECLINED, 0, 0, 1,
      bytes("\0\1\x81\x80\0\0\0\0\0\0\0\0") },
    { "another name", NGX_DECLINED, 0, 0, 1,
      bytes(HEAD(OK, "\0", "\0", "\0") "\7example\3net\0" A_IN) },
    { "another type", NGX_DECLINED, 0, 0, 1,
      bytes(HEAD(OK, "\0", "\0", "\0") Q("\2")) },
    { "another class", NGX_DECLINED, 0, 0, 1,
      bytes(HEAD(OK, "\0", "\0", "\0") NAME "\0\1\0\3") },

    { "missing records", NGX_ERROR, 0, 0, 1,
      bytes(HEAD(OK, "\2", "\0", "\0") Q("\1") A("\x3c")) },
    { "half a record", NGX_ERROR, 0, 0, 1,
      bytes(HEAD(OK, "\1", "\0", "\0") Q("\1") "\xc0\x0c\0\1\0\1\0\0") },
    { "data beyond the end", NGX_ERROR, 0, 0, 1,
      bytes(HEAD(OK, "\1", "\0", "\0") Q("\1") RR("\1", "\1", "\0\5\1\2\3\4"))
    },
    { "A of three bytes", NGX_ERROR, 0, 0, 1,
      bytes(HEAD(OK, "\1", "\0", "\0") Q("\1") RR("\1", "\1", "\0\3\1\2\3")) },
    { "AAAA of four bytes", NGX_ERROR, 0, 0, 1,
      bytes(HEAD(OK, "\1", "\0", "\0") Q("\1") RR("\x1c", "\1",
      "\0\4\1\2\3\4")) },
    { "pointer to itself", NGX_ERROR, 0, 0, 1,
      bytes(HEAD(OK, "\1", "\0", "\0") Q("\1")
            "\xc0\x1d\0\1\0\1\0\0\0\1\0\4\1\2\3\4") },
    { "pointer forwards", NGX_ERROR, 0, 0, 1,
      bytes(HEAD(OK, "\1", "\0", "\0") Q("\1")
            "\xc0\x1f\0\1\0\1\0\0\0\1\0\4\1\2\3\4") },
    { "pointer into the header", NGX_ERROR, 0, 0, 1,
      bytes(HEAD(OK, "\1", "\0", "\0") Q("\1")
            "\xc0\4\0\1\0\1\0\0\0\1\0\4\1\2\3\4") },
    { "pointers in a ring", NGX_ERROR, 0, 0, 1,
      bytes(HEAD(OK, "\1", "\0", "\0") Q("\1")
            "\1a\xc0\x1d\0\1\0\1\0\0\0\1\0\4\1\2\3\4") },
    { "half a pointer", NGX_ERROR, 0, 0, 1,
      bytes(HEAD(OK, "\1", "\0", "\0") Q("\1") "\xc0") },
    { "alias out of its data", NGX_ERROR, 0, 0, 1,
      bytes(HEAD(OK, "\1", "\0", "\0") Q("\1") RR("\5", "\1", "\0\2\3w")) },
    { "short SOA", NGX_ERROR, 0, 0, 1,
      bytes(HEAD(OK, "\0", "\1", "\0") Q("\1") RR("\6", "\1", "\0\3\0\0\1")) },
};


typedef struct {
    const char  *what;
    u_char      *data;
    size_t       len;
    u_char      *expected;     /* NULL: nothing is left */
    size_t       expected_len;
} svcb_t;


static svcb_t  svcbs[] = {
    { "no parameters", bytes("\0\1\0"), bytes("\0\1\0") },
    { "alpn", bytes("\0\1\0\0\1\0\3\2h3"), bytes("\0\1\0\0\1\0\3\2h3") },
    { "hints", bytes("\0\1\0\0\1\0\3\2h3\0\4\0\4\1\2\3\4\0\5\0\2ec"
      "\0\6\0\4abcd"), bytes("\0\1\0\0\1\0\3\2h3\0\5\0\2ec") },
    { "mandatory hint", bytes("\0\1\0\0\0\0\2\0\4\0\4\0\4\1\2\3\4"),
      bytes("\0\1\0") },
    { "mandatory alpn and hint",
      bytes("\0\1\0\0\0\0\4\0\1\0\4\0\1\0\3\2h3\0\4\0\4\1\2\3\4"),
      bytes("\0\1\0\0\0\0\2\0\1\0\1\0\3\2h3") },
    { "alias", bytes("\0\0\1a\0"), NULL, 0 },
    { "another target", bytes("\0\1\1a\0\0\1\0\3\2h3"), NULL, 0 },
    { "empty", bytes(""), NULL, 0 },
    { "half a parameter", bytes("\0\1\0\0\1\0"), NULL, 0 },
    { "value beyond the end", bytes("\0\1\0\0\1\0\3\2h"), NULL, 0 },
    { "keys out of order", bytes("\0\1\0\0\4\0\0\0\1\0\0"), NULL, 0 },
    { "a key twice", bytes("\0\1\0\0\1\0\0\0\1\0\0"), NULL, 0 },
    { "empty mandatory", bytes("\0\1\0\0\0\0\0"), NULL, 0 },
    { "odd mandatory", bytes("\0\1\0\0\0\0\1\1"), NULL, 0 },
    { "mandatory mandatory", bytes("\0\1\0\0\0\0\2\0\0"), NULL, 0 },
};


/* a block that ends where the bytes end, so that a read beyond is seen */

static u_char *
exact(u_char *p, size_t len)
{
    u_char  *block;

    block = malloc(len ? len : 1);
    memcpy(block, p, len);

    return block;
}


static ngx_uint_t
is_fake(void *data, u_char *addr, size_t addr_len)
{
    return addr_len == 4 && addr[0] == 198;
}


static void
ask(ngx_tun_dns_query_t *query, ngx_uint_t type, const char *name)
{
    static u_char  question[300];

    memset(query, 0, sizeof(ngx_tun_dns_query_t));

    query->id = 0x4711;
    query->flags = NGX_TUN_DNS_RD;
    query->type = type;
    query->class = 1;
    query->len = strlen(name) + 1;
    memcpy(query->name, name, query->len);
    ngx_tun_dns_lower_name(query->name, query->len);

    memcpy(question, name, query->len);
    memcpy(question + query->len, "\0\0\0\1", 4);
    question[query->len + 1] = (u_char) type;

    query->question = question;
    query->question_len = query->len + 4;
}


static void
test_check(void)
{
    size_t                i, n;
    u_char               *p;
    ngx_int_t             rc;
    reply_t              *test;
    ngx_tun_dns_query_t   query;
    ngx_tun_dns_reply_t   reply;

    for (i = 0; i < sizeof(replies) / sizeof(reply_t); i++) {
        test = &replies[i];

        ask(&query, test->type, "\7example\3com");
        p = exact(test->data, test->len);

        rc = ngx_tun_dns_check_reply(&reply, &query, 1, p, p + test->len,
                                     is_fake, NULL);

        ok(rc == test->rc && (rc != NGX_OK || (reply.rcode == test->rcode
                                               && reply.ttl == test->ttl)),
           "reply, %s: %d, %d, %d", test->what, (int) rc, (int) reply.rcode,
           (int) reply.ttl);
        free(p);

        for (n = 0; rc == NGX_OK && n < test->len; n++) {
            p = exact(test->data, n);

            if (ngx_tun_dns_check_reply(&reply, &query, 1, p, p + n, is_fake,
                                        NULL)
                == NGX_OK)
            {
                ok(0, "cut, %s, %d", test->what, (int) n);
            }

            free(p);
        }
    }
}


static void
test_truncated(void)
{
    u_char               data[] = "\0\1\x83\x80\0\1\0\7\0\0\0\0" Q("\1");
    ngx_int_t            rc;
    ngx_tun_dns_query_t  query;
    ngx_tun_dns_reply_t  reply;

    ask(&query, 1, "\7example\3com");

    rc = ngx_tun_dns_check_reply(&reply, &query, 1, data,
                                 data + sizeof(data) - 1, is_fake, NULL);
    ok(rc == NGX_OK && reply.truncated && reply.ttl == 0, "truncated");
}


static void
test_query(void)
{
    u_char               buf[NGX_TUN_DNS_UPSTREAM_MAX];
    size_t               n;
    ngx_int_t            rc;
    ngx_uint_t           rcode;
    ngx_tun_dns_query_t  query, again;

    ask(&query, 15, "\7Example\3COM");
    query.dnssec_ok = 1;

    n = ngx_tun_dns_build_query(&query, buf, 77, (u_char *) "12345678");
    rc = ngx_tun_dns_parse_query(&again, buf, buf + n, &rcode);

    ok(rc == NGX_OK && again.id == 77 && again.type == 15 && again.len == 13
       && memcmp(again.name, query.name, 13) == 0 && again.dnssec_ok
       && again.udp_size == 1232, "query to another server");
    ok(again.tagged && memcmp(again.tag, "12345678", 8) == 0, "its tag");
}


static size_t
rewrite(ngx_tun_dns_rewrite_t *rw, ngx_tun_dns_query_t *query, u_char *data,
    size_t len, u_char *buf)
{
    size_t   n;
    u_char  *p;

    rw->query = query;

    if (rw->limit == 0) {
        rw->limit = 1232;
    }

    p = exact(data, len);
    n = ngx_tun_dns_rewrite(rw, p, p + len, buf, 4096);
    free(p);

    return n;
}


static void
test_rewrite(void)
{
    u_char                 buf[4096];
    size_t                 n;
    ngx_tun_dns_query_t    query;
    ngx_tun_dns_rewrite_t  rw;

    static u_char  a[] = HEAD(OK, "\2", "\0", "\1") Q("\1") A("\x3c") A("\x14")
        "\0\0\x29\4\xd0\0\0\0\0\0\0";
    static u_char  mx[] = HEAD(OK, "\1", "\1", "\2") Q("\x0f")
        RR("\x0f", "\x3c", "\0\x09\0\x0a\4mail\xc0\x0c")
        RR("\2", "\x3c", "\0\5\2ns\xc0\x0c")
        "\xc0\x2b\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4"
        "\xc0\x2b\0\x1c\0\1\0\0\0\x3c\0\x10" "0123456789abcdef";
    static u_char  https[] = HEAD(OK, "\3", "\0", "\0") Q("\x41")
        RR("\x41", "\x3c", "\0\x0b\0\0\1a\0\1x\1y\1z")
        RR("\x41", "\x3c", "\0\x12\0\1\0\0\1\0\3\2h3\0\4\0\4\1\2\3\4")
        RR("\x2e", "\x3c", "\0\x14" "012345678901234567\0s");
    static u_char  alias[] = HEAD(OK, "\1", "\0", "\0") Q("\x41")
        RR("\5", "\x0a", "\0\6\3www\xc0\x0c");
    static u_char  nxdomain[] = HEAD("\x83", "\0", "\0", "\0") Q("\x10");

    memset(&rw, 0, sizeof(rw));
    ask(&query, 1, "\7eXample\3COM");
    rw.age = 25;

    n = rewrite(&rw, &query, a, sizeof(a) - 1, buf);
    ok(n == 12 + 17 + 32 && memcmp(buf, "\x47\x11\x81\x80\0\1\0\2\0\0\0\0", 12)
       == 0, "header, no OPT");
    ok(memcmp(buf + 12, "\7eXample\3COM\0\0\1\0\1", 17) == 0, "question");
    ok(memcmp(buf + 29, A("\x23") A("\0"), 32) == 0, "TTLs that are left");

    query.edns = 1;
    n = rewrite(&rw, &query, a, sizeof(a) - 1, buf);
    ok(n == 12 + 17 + 32 + 11 && buf[11] == 1 && buf[63] == 41, "OPT of ours");

    rw.limit = 12 + 17 + 32 + 10;
    n = rewrite(&rw, &query, a, sizeof(a) - 1, buf);
    ok(n == 12 + 17 + 11 && (buf[2] & 2) && buf[7] == 0, "TC");

    memset(&rw, 0, sizeof(rw));
    ask(&query, 15, "\7example\3com");
    n = rewrite(&rw, &query, mx, sizeof(mx) - 1, buf);
    ok(n == sizeof(mx) - 1 - 16 - 28 && buf[11] == 0
       && memcmp(buf + 12, mx + 12, n - 12) == 0,
       "MX as short as it was, no addresses");

    ask(&query, 65, "\7example\3com");
    n = rewrite(&rw, &query, https, sizeof(https) - 1, buf);
    ok(n == sizeof(https) - 1, "HTTPS as it was, %d", (int) n);

    rw.strip = 1;
    rw.faked = 1;
    rw.ttl = 30;
    n = rewrite(&rw, &query, https, sizeof(https) - 1, buf);
    ok(n == 12 + 17 + 12 + 10 && buf[7] == 1
       && memcmp(buf + 29, RR("\x41", "\x3c", "\0\x0a\0\1\0\0\1\0\3\2h3"), 22)
          == 0, "HTTPS without addresses");

    n = rewrite(&rw, &query, alias, sizeof(alias) - 1, buf);
    ok(n == 12 + 17 + 34 && buf[7] == 0 && buf[9] == 1, "nothing is left");

    ask(&query, 16, "\7example\3com");
    rw.strip = 0;
    n = rewrite(&rw, &query, nxdomain, sizeof(nxdomain) - 1, buf);
    ok(n == 12 + 17 + 34 && (buf[3] & 15) == 0, "a faked name is there");

    rw.faked = 0;
    n = rewrite(&rw, &query, nxdomain, sizeof(nxdomain) - 1, buf);
    ok(n == 12 + 17 && (buf[3] & 15) == 3, "another is not");
}


/* names that look alike while they are being written */

static void
test_compress(void)
{
    size_t                 n;
    u_char                 buf[4096], name[NGX_TUN_DNS_NAME_MAX], *p;
    ngx_tun_dns_query_t    query;
    ngx_tun_dns_reply_t    reply;
    ngx_tun_dns_rewrite_t  rw;

    static u_char  data[] = HEAD(OK, "\3", "\0", "\0") Q("\2")
        RR("\2", "\x3c", "\0\x09\1a\1a\1a\1a\0")
        RR("\2", "\x3c", "\0\x09\1a\1A\1a\1a\0")
        RR("\2", "\x3c", "\0\7\1b\1a\1a\0");

    memset(&rw, 0, sizeof(rw));
    memset(buf, 0xff, sizeof(buf));

    ask(&query, 2, "\7example\3com");
    n = rewrite(&rw, &query, data, sizeof(data) - 1, buf);

    ok(n == 12 + 17 + 12 + 9 + 12 + 2 + 12 + 4, "names end with others");
    p = ngx_tun_dns_expand_name(buf, buf + n - 4, buf + n, name, &n);
    ok(p != NULL && n == 7 && memcmp(name, "\1b\1a\1a\0", 7) == 0,
       "and are the same");

    query.id = 0x4711;
    ok(ngx_tun_dns_check_reply(&reply, &query, 0x4711, buf, p, is_fake, NULL)
       == NGX_OK, "and can be read");
}


static void
test_svcb(void)
{
    size_t   i;
    svcb_t  *test;
    u_char  *p, *src, *dst;

    for (i = 0; i < sizeof(svcbs) / sizeof(svcb_t); i++) {
        test = &svcbs[i];

        src = exact(test->data, test->len);
        dst = malloc(test->len ? test->len : 1);

        p = ngx_tun_dns_strip_svcb(dst, src, test->len);

        ok((test->expected == NULL && p == NULL)
           || (p != NULL && (size_t) (p - dst) == test->expected_len
               && memcmp(dst, test->expected, test->expected_len) == 0),
           "SVCB, %s", test->what);

        free(src);
        free(dst);
    }
}


static void
test_records(void)
{
    size_t                i, len;
    u_char               *p, *dst;
    ngx_int_t             rc;
    ngx_tun_dns_query_t   query;
    ngx_tun_dns_reply_t   reply;

    len = 29 + 300 * 16;
    p = malloc(len);
    dst = p;

    memcpy(dst, HEAD(OK, "\0", "\0", "\0") Q("\1"), 29);
    dst += 29;

    for (i = 0; i < 300; i++) {
        memcpy(dst, A("\x3c"), 16);
        dst += 16;
    }

    ask(&query, 1, "\7example\3com");

    (void) ngx_tun_dns_put16(p + 6, 256);
    rc = ngx_tun_dns_check_reply(&reply, &query, 1, p, p + len, is_fake, NULL);
    ok(rc == NGX_OK, "256 records");

    (void) ngx_tun_dns_put16(p + 6, 257);
    rc = ngx_tun_dns_check_reply(&reply, &query, 1, p, p + len, is_fake, NULL);
    ok(rc == NGX_ERROR, "257 records");

    free(p);
}


int
main(void)
{
    test_check();
    test_truncated();
    test_query();
    test_rewrite();
    test_compress();
    test_svcb();
    test_records();

    return done();
}
