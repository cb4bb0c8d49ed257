
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: dns/ngx_tun_dns_wire.c dns/ngx_tun_dns_name.c dns/ngx_tun_dns_special.c */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_dns_wire.h>

#include "lib/tap.h"


#define DROP  100
#define GOOD  101

#define bytes(s)  (u_char *) s, sizeof(s) - 1


/* id, flags, and counts of the sections */

#define HEADER  "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
#define ONE_AR  "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01"
#define TWO_AR  "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x02"
#define EXAMPLE "\7eXample\3com\0"
#define A_IN    "\0\1\0\1"
#define OPT     "\0\0\x29\x10\x00\0\0\0\0\0\0"
#define L63     "abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxyz-123456789"


typedef struct {
    const char  *what;
    ngx_uint_t   expected;     /* rcode, GOOD or DROP */
    u_char      *data;
    size_t       len;
} case_t;


static case_t  cases[] = {

    { "A", GOOD, bytes(HEADER EXAMPLE A_IN) },
    { "AAAA", GOOD, bytes(HEADER EXAMPLE "\0\x1c\0\1") },
    { "root", GOOD, bytes(HEADER "\0\0\1\0\1") },
    { "bytes after it", GOOD, bytes(HEADER EXAMPLE A_IN "trailing") },
    { "TYPE65280", GOOD, bytes(HEADER EXAMPLE "\xff\0\0\1") },
    { "ANY", GOOD, bytes(HEADER EXAMPLE "\0\xff\0\1") },
    { "EDNS", GOOD, bytes(ONE_AR EXAMPLE A_IN OPT) },
    { "EDNS and bytes", GOOD, bytes(ONE_AR EXAMPLE A_IN OPT "trailing") },
    { "EDNS with a cookie", GOOD, bytes(ONE_AR EXAMPLE A_IN
      "\0\0\x29\x10\0\0\0\0\0\0\x0c\0\x0a\0\x08" "12345678") },
    { "record and EDNS", GOOD, bytes(TWO_AR EXAMPLE A_IN
      "\xc0\x0c" A_IN "\0\0\0\0\0\4\1\2\3\4" OPT) },
    { "label of 63", GOOD, bytes(HEADER "\x3f" L63 "\0" A_IN) },
    { "name of 255", GOOD, bytes(HEADER "\x3f" L63 "\x3f" L63 "\x3f" L63
      "\x3d" "abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxyz-1234567"
      "\0" A_IN) },
    { "RD=0", GOOD, bytes("\0\0\0\0\0\1\0\0\0\0\0\0" EXAMPLE A_IN) },
    { "AD, CD, Z", GOOD, bytes("\0\0\1\x70\0\1\0\0\0\0\0\0" EXAMPLE A_IN) },

    { "nothing", DROP, bytes("") },
    { "11 bytes", DROP, bytes("\0\0\1\0\0\1\0\0\0\0\0") },
    { "an answer", DROP, bytes("\0\0\x81\0\0\1\0\0\0\0\0\0" EXAMPLE A_IN) },
    { "an answer of another opcode", DROP,
      bytes("\0\0\xa8\0\0\1\0\0\0\0\0\0" EXAMPLE A_IN) },

    { "opcode 1", NGX_TUN_DNS_NOTIMP,
      bytes("\0\0\x08\0\0\1\0\0\0\0\0\0" EXAMPLE A_IN) },
    { "NOTIFY", NGX_TUN_DNS_NOTIMP,
      bytes("\0\0\x20\0\0\1\0\1\0\0\0\0" EXAMPLE A_IN) },
    { "UPDATE", NGX_TUN_DNS_NOTIMP,
      bytes("\0\0\x28\0\0\1\0\0\0\1\0\0" EXAMPLE A_IN) },

    { "only a header", NGX_TUN_DNS_FORMERR, bytes(HEADER) },
    { "TC", NGX_TUN_DNS_FORMERR,
      bytes("\0\0\x03\0\0\1\0\0\0\0\0\0" EXAMPLE A_IN) },
    { "no question", NGX_TUN_DNS_FORMERR,
      bytes("\0\0\1\0\0\0\0\0\0\0\0\0" EXAMPLE A_IN) },
    { "two questions", NGX_TUN_DNS_FORMERR,
      bytes("\0\0\1\0\0\2\0\0\0\0\0\0" EXAMPLE A_IN EXAMPLE A_IN) },
    { "65535 questions", NGX_TUN_DNS_FORMERR,
      bytes("\0\0\1\0\xff\xff\0\0\0\0\0\0" EXAMPLE A_IN) },
    { "an answer in it", NGX_TUN_DNS_FORMERR,
      bytes("\0\0\1\0\0\1\0\1\0\0\0\0" EXAMPLE A_IN) },
    { "an authority in it", NGX_TUN_DNS_FORMERR,
      bytes("\0\0\1\0\0\1\0\0\0\1\0\0" EXAMPLE A_IN) },

    { "half a label", NGX_TUN_DNS_FORMERR, bytes(HEADER "\7exam") },
    { "no root", NGX_TUN_DNS_FORMERR, bytes(HEADER "\7example\3com") },
    { "no type", NGX_TUN_DNS_FORMERR, bytes(HEADER EXAMPLE) },
    { "no class", NGX_TUN_DNS_FORMERR, bytes(HEADER EXAMPLE "\0\1") },
    { "half a class", NGX_TUN_DNS_FORMERR, bytes(HEADER EXAMPLE "\0\1\0") },
    { "a pointer", NGX_TUN_DNS_FORMERR, bytes(HEADER "\xc0\x0c" A_IN) },
    { "a pointer in it", NGX_TUN_DNS_FORMERR,
      bytes(HEADER "\3www\xc0\x0c" A_IN) },
    { "label of 64", NGX_TUN_DNS_FORMERR,
      bytes(HEADER "\x40" L63 "x\0" A_IN) },
    { "label type 0x80", NGX_TUN_DNS_FORMERR,
      bytes(HEADER "\x80" "a\0" A_IN) },
    { "name of 256", NGX_TUN_DNS_FORMERR, bytes(HEADER
      "\x3f" L63 "\x3f" L63 "\x3f" L63
      "\x3e" "abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxyz-12345678"
      "\0" A_IN) },

    { "TYPE0", NGX_TUN_DNS_FORMERR, bytes(HEADER EXAMPLE "\0\0\0\1") },
    { "OPT as a type", NGX_TUN_DNS_FORMERR,
      bytes(HEADER EXAMPLE "\0\x29\0\1") },
    { "AXFR", NGX_TUN_DNS_REFUSED, bytes(HEADER EXAMPLE "\0\xfc\0\1") },
    { "IXFR", NGX_TUN_DNS_REFUSED, bytes(HEADER EXAMPLE "\0\xfb\0\1") },
    { "TSIG as a type", NGX_TUN_DNS_REFUSED,
      bytes(HEADER EXAMPLE "\0\xfa\0\1") },
    { "TKEY", NGX_TUN_DNS_REFUSED, bytes(HEADER EXAMPLE "\0\xf9\0\1") },
    { "MAILB", NGX_TUN_DNS_REFUSED, bytes(HEADER EXAMPLE "\0\xfd\0\1") },
    { "TYPE128", NGX_TUN_DNS_REFUSED, bytes(HEADER EXAMPLE "\0\x80\0\1") },
    { "class CH", NGX_TUN_DNS_REFUSED, bytes(HEADER EXAMPLE "\0\x10\0\3") },
    { "class HS", NGX_TUN_DNS_REFUSED, bytes(HEADER EXAMPLE "\0\1\0\4") },
    { "class ANY", NGX_TUN_DNS_REFUSED,
      bytes(HEADER EXAMPLE "\0\1\0\xff") },
    { "class 0", NGX_TUN_DNS_REFUSED, bytes(HEADER EXAMPLE "\0\1\0\0") },

    { "missing record", NGX_TUN_DNS_FORMERR, bytes(ONE_AR EXAMPLE A_IN) },
    { "65535 records", NGX_TUN_DNS_FORMERR,
      bytes("\0\0\1\0\0\1\0\0\0\0\xff\xff" EXAMPLE A_IN OPT) },
    { "half an OPT", NGX_TUN_DNS_FORMERR,
      bytes(ONE_AR EXAMPLE A_IN "\0\0\x29\x10\0\0\0") },
    { "OPT longer than the message", NGX_TUN_DNS_FORMERR,
      bytes(ONE_AR EXAMPLE A_IN "\0\0\x29\x10\0\0\0\0\0\0\1") },
    { "half an option", NGX_TUN_DNS_FORMERR,
      bytes(ONE_AR EXAMPLE A_IN "\0\0\x29\x10\0\0\0\0\0\0\3\0\x0a\0") },
    { "option longer than OPT", NGX_TUN_DNS_FORMERR,
      bytes(ONE_AR EXAMPLE A_IN "\0\0\x29\x10\0\0\0\0\0\0\5\0\x0a\0\2a") },
    { "OPT with a name", NGX_TUN_DNS_FORMERR,
      bytes(ONE_AR EXAMPLE A_IN "\1a\0\0\x29\x10\0\0\0\0\0\0\0") },
    { "two OPTs", NGX_TUN_DNS_FORMERR,
      bytes(TWO_AR EXAMPLE A_IN OPT OPT) },
    { "a pointer at the end", NGX_TUN_DNS_FORMERR,
      bytes(ONE_AR EXAMPLE A_IN "\xc0") },
    { "TSIG", NGX_TUN_DNS_REFUSED, bytes(ONE_AR EXAMPLE A_IN
      "\0\0\xfa\0\xff\0\0\0\0\0\0") },
    { "SIG(0)", NGX_TUN_DNS_REFUSED, bytes(ONE_AR EXAMPLE A_IN
      "\0\0\x18\0\xff\0\0\0\0\0\0") },
    { "EDNS 1", NGX_TUN_DNS_BADVERS, bytes(ONE_AR EXAMPLE A_IN
      "\0\0\x29\x10\0\0\1\0\0\0\0") },
    { "EDNS 1 and its options", NGX_TUN_DNS_BADVERS,
      bytes(ONE_AR EXAMPLE A_IN "\0\0\x29\x10\0\0\1\0\0\0\2ab") },
};


typedef struct {
    const char             *text;
    ngx_tun_dns_special_e   kind;
} special_t;


static special_t  specials[] = {
    { "\7example\3com", NGX_TUN_DNS_ORDINARY },
    { "\11localhost", NGX_TUN_DNS_ADDRESS },
    { "\10abcdefgh\11localhost", NGX_TUN_DNS_ADDRESS },
    { "\12xlocalhost", NGX_TUN_DNS_FORWARD },
    { "\3foo\12xlocalhost", NGX_TUN_DNS_ORDINARY },
    { "\3foo\7invalid", NGX_TUN_DNS_NOT_FOUND },
    { "\4test", NGX_TUN_DNS_NOT_FOUND },
    { "\3foo\4test", NGX_TUN_DNS_NOT_FOUND },
    { "\7printer\5local", NGX_TUN_DNS_NOT_FOUND },
    { "\3foo\5onion", NGX_TUN_DNS_NOT_FOUND },
    { "\3foo\3alt", NGX_TUN_DNS_NOT_FOUND },
    { "\3nas\4home\4arpa", NGX_TUN_DNS_FORWARD },
    { "\3nas\3lan", NGX_TUN_DNS_FORWARD },
    { "\3nas", NGX_TUN_DNS_FORWARD },
    { "", NGX_TUN_DNS_FORWARD },
    { "\10ipv4only\4arpa", NGX_TUN_DNS_ADDRESS },
    { "\3www\10ipv4only\4arpa", NGX_TUN_DNS_ORDINARY },
    { "\4_dns\10resolver\4arpa", NGX_TUN_DNS_NODATA },
    { "\23use-application-dns\3net", NGX_TUN_DNS_NOT_FOUND },
    { "\4mask\6icloud\3com", NGX_TUN_DNS_NOT_FOUND },
    { "\7mask-h2\6icloud\3com", NGX_TUN_DNS_NOT_FOUND },
    { "\3www\6icloud\3com", NGX_TUN_DNS_ORDINARY },
    { "\1\61\1\60\1\60\2\61\60\7in-addr\4arpa", NGX_TUN_DNS_REVERSE },
    { "\1\61\1\60\2\63\61\3\61\67\62\7in-addr\4arpa", NGX_TUN_DNS_REVERSE },
    { "\1\61\1\60\2\63\62\3\61\67\62\7in-addr\4arpa", NGX_TUN_DNS_FORWARD },
    { "\3\61\66\70\3\61\71\62\7in-addr\4arpa", NGX_TUN_DNS_REVERSE },
    { "\3\61\71\62\7in-addr\4arpa", NGX_TUN_DNS_FORWARD },
    { "\1\70\1\70\1\70\1\70\7in-addr\4arpa", NGX_TUN_DNS_FORWARD },
    { "\1\60\1\60\1d\1f\3ip6\4arpa", NGX_TUN_DNS_REVERSE },
    { "\1\70\1e\1f\3ip6\4arpa", NGX_TUN_DNS_REVERSE },
    { "\1\60\1\60\1\62\3ip6\4arpa", NGX_TUN_DNS_FORWARD },
    { "\3a b\3com", NGX_TUN_DNS_FORWARD },
    { "\3a.b\3com", NGX_TUN_DNS_FORWARD },
    { "\3\303\274b\3com", NGX_TUN_DNS_FORWARD },
    { "\4_srv\6x-n__1\3com", NGX_TUN_DNS_ORDINARY },
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
parse(ngx_tun_dns_query_t *query, u_char *data, size_t len)
{
    ngx_int_t   rc;
    ngx_uint_t  rcode;

    rc = ngx_tun_dns_parse_query(query, data, data + len, &rcode);

    return (rc == NGX_OK) ? GOOD : (rc == NGX_DECLINED) ? DROP : rcode;
}


static void
test_parse(void)
{
    u_char               *data, buf[NGX_TUN_DNS_ANSWER_MAX];
    size_t                n, len, i;
    case_t               *test;
    ngx_uint_t            got;
    ngx_tun_dns_query_t   query;

    for (i = 0; i < sizeof(cases) / sizeof(case_t); i++) {
        test = &cases[i];

        data = exact(test->data, test->len);
        got = parse(&query, data, test->len);

        ok(got == test->expected, "query, %s: %d", test->what, (int) got);

        if (got != DROP) {
            n = ngx_tun_dns_build_error(&query, buf, sizeof(buf),
                                        (got == GOOD) ? 0 : got);

            len = 12 + query.question_len + (query.edns ? 11 : 0);

            ok(n == len && memcmp(buf, data, 2) == 0
               && (buf[2] & 0xf9) == (0x80 | (data[2] & 0x79))
               && (buf[3] & 0x10) == (data[3] & 0x10)
               && (buf[3] & 0xe0) == 0x80
               && (buf[3] & 0x0f) == ((got == GOOD) ? 0 : (got & 15))
               && memcmp(buf + 12, data + 12, query.question_len) == 0,
               "answer, %s", test->what);
        }

        free(data);

        /* cut anywhere it is malformed, or dropped, but never good */

        for (n = 0; n < test->len; n++) {
            data = exact(test->data, n);
            got = parse(&query, data, n);

            if (got == GOOD && n < 12 + query.question_len) {
                ok(0, "cut, %s, %d", test->what, (int) n);
            }

            free(data);
        }
    }
}


static void
test_answer(void)
{
    u_char                buf[NGX_TUN_DNS_ANSWER_MAX], *p;
    u_char                data[] = ONE_AR EXAMPLE A_IN OPT;
    size_t                n, size;
    ngx_int_t             rc;
    ngx_tun_dns_query_t   query;
    ngx_tun_dns_answer_t  answer;

    ok(parse(&query, data, sizeof(data) - 1) == GOOD, "a query");
    ok(query.len == 13 && memcmp(query.name, "\7example\3com\0", 13) == 0,
       "name in lower case");
    ok(query.labels == 2 && !query.odd, "labels");
    ok(query.edns && query.udp_size == 4096, "EDNS");
    ok(ngx_tun_dns_udp_limit(&query) == 1232, "limit of UDP");

    query.udp_size = 100;
    ok(ngx_tun_dns_udp_limit(&query) == 512, "lowest limit of UDP");
    query.udp_size = 1000;
    ok(ngx_tun_dns_udp_limit(&query) == 1000, "client's limit of UDP");

    (void) ngx_tun_dns_begin(&answer, &query, buf, sizeof(buf), 0);
    (void) ngx_tun_dns_add_address(&answer, (u_char *) "\1\2\3\4", 4, 30);
    n = ngx_tun_dns_finish(&answer);

    ok(n == 12 + 17 + 16 + 11, "length of A");
    ok(memcmp(buf, "\x12\x34\x81\x80\0\1\0\1\0\0\0\1", 12) == 0, "header");
    ok(memcmp(buf + 12, EXAMPLE A_IN, 17) == 0, "question, its case");
    ok(memcmp(buf + 29, "\xc0\x0c\0\1\0\1\0\0\0\x1e\0\4\1\2\3\4", 16) == 0,
       "record");
    ok(memcmp(buf + 45, "\0\0\x29\4\xd0\0\0\0\0\0\0", 11) == 0, "OPT");

    n = ngx_tun_dns_build_error(&query, buf, sizeof(buf),
                                NGX_TUN_DNS_BADVERS);
    ok((buf[3] & 15) == 0 && buf[n - 6] == 1, "BADVERS");

    n = ngx_tun_dns_build_nodata(&query, buf, sizeof(buf), 3, 30);
    ok((buf[3] & 15) == 3 && memcmp(buf + 6, "\0\0\0\1\0\1", 6) == 0,
       "NXDOMAIN and SOA");
    p = buf + 29;
    ok(memcmp(p, "\xc0\x0c\0\6\0\1\0\0\0\x1e\0\x16\0\0", 14) == 0
       && ngx_tun_dns_get32(p + 30) == 30, "SOA");

    (void) ngx_tun_dns_begin(&answer, &query, buf, sizeof(buf), 0);
    (void) ngx_tun_dns_add_hinfo(&answer);
    n = ngx_tun_dns_finish(&answer);
    ok(memcmp(buf + 29, "\xc0\x0c\0\x0d\0\1\0\0\x0e\x10\0\x09\7RFC8482", 21)
       == 0 && n == 12 + 17 + 21 + 11, "HINFO");

    for (size = 0; size < 12 + 17 + 34 + 11; size++) {
        p = malloc(size ? size : 1);

        n = ngx_tun_dns_build_nodata(&query, p, size, 0, 30);

        if (n != 0) {
            ok(0, "no room, %d", (int) size);
        }

        free(p);
    }

    rc = ngx_tun_dns_begin(&answer, &query, buf, 28, 0);
    ok(rc == NGX_ERROR, "no room for a question");
}


static void
test_special(void)
{
    size_t                  i, n;
    u_char                  data[300];
    ngx_tun_dns_query_t     query;
    ngx_tun_dns_special_t   special;

    for (i = 0; i < sizeof(specials) / sizeof(special_t); i++) {
        n = strlen(specials[i].text) + 1;

        memcpy(data, HEADER, 12);
        memcpy(data + 12, specials[i].text, n);
        memcpy(data + 12 + n, "\0\1\0\1", 4);

        if (parse(&query, data, 12 + n + 4) != GOOD) {
            ok(0, "special %d is no query", (int) i);
            continue;
        }

        ngx_tun_dns_special(&special, &query, NGX_TUN_DNS_SPECIAL_ALL);
        ok(special.kind == specials[i].kind, "special %d: %d", (int) i,
           special.kind);
    }

    for (i = 0; i < sizeof(specials) / sizeof(special_t); i++) {
        n = strlen(specials[i].text) + 1;

        memcpy(data, HEADER, 12);
        memcpy(data + 12, specials[i].text, n);
        memcpy(data + 12 + n, "\0\1\0\1", 4);

        (void) parse(&query, data, 12 + n + 4);
        ngx_tun_dns_special(&special, &query, 0);

        ok((special.kind == NGX_TUN_DNS_ORDINARY
            || special.kind == NGX_TUN_DNS_FORWARD
            || special.kind == NGX_TUN_DNS_REVERSE)
           && (special.kind == NGX_TUN_DNS_ORDINARY || query.odd
               || query.labels == 0
               || ngx_tun_dns_below(query.name, query.len,
                                    (u_char *) "\4arpa", 6)),
           "special %d, off: %d", (int) i, special.kind);
    }

    memcpy(data, HEADER "\3foo\11Localhost\0" "\0\x1c\0\1", 31);
    (void) parse(&query, data, 31);
    ngx_tun_dns_special(&special, &query, NGX_TUN_DNS_SPECIAL_ALL);
    ok(special.naddrs == 1 && special.addr_len == 16
       && special.addrs[0][15] == 1, "localhost, AAAA");

    memcpy(data, HEADER "\10ipv4only\4ARPA\0" A_IN, 31);
    (void) parse(&query, data, 31);
    ngx_tun_dns_special(&special, &query, NGX_TUN_DNS_SPECIAL_ALL);
    ok(special.naddrs == 2 && special.addr_len == 4
       && memcmp(special.addrs[1], "\300\0\0\253", 4) == 0, "ipv4only.arpa");

    query.type = NGX_TUN_DNS_TYPE_AAAA;
    ngx_tun_dns_special(&special, &query, NGX_TUN_DNS_SPECIAL_ALL);
    ok(special.naddrs == 0 && special.kind == NGX_TUN_DNS_ADDRESS,
       "ipv4only.arpa, AAAA");
}


static void
test_text(void)
{
    u_char      text[NGX_TUN_DNS_TEXT_MAX], name[] = "\3www\7example\3com";
    u_char      odd[] = "\4a.\\\1\3com", addr[16], *p;
    u_char      r4[] = "\1\64\1\63\1\62\3\61\71\70\7in-addr\4arpa";
    u_char      r6[] = "\1\61\1\60\1c\1f\3ip6\4arpa";
    u_char      bad4[] = "\3\62\65\66\7in-addr\4arpa";
    u_char      zero4[] = "\2\60\61\7in-addr\4arpa";
    u_char      bad6[] = "\1g\3ip6\4arpa";
    u_char      many[] = "\1\61\1\61\1\61\1\61\1\61\7in-addr\4arpa";
    u_char      inside[] = "\5x\3com\3org";
    size_t      len;
    ngx_uint_t  bits;

    p = ngx_tun_dns_name_text(text, name, sizeof(name));
    ok(p - text == 15 && memcmp(text, "www.example.com", 15) == 0, "text");

    p = ngx_tun_dns_name_text(text, (u_char *) "", 1);
    ok(p - text == 1 && *text == '.', "text of the root");

    p = ngx_tun_dns_name_text(text, odd, sizeof(odd));
    ok(p - text == 13 && memcmp(text, "a\\.\\\\\\001.com", 13) == 0,
       "text of odd bytes");

    ok(ngx_tun_dns_reverse(r4, sizeof(r4), addr, &len, &bits) == NGX_OK
       && len == 4 && bits == 32 && memcmp(addr, "\306\2\3\4", 4) == 0,
       "reverse IPv4");
    ok(ngx_tun_dns_reverse(r6, sizeof(r6), addr, &len, &bits) == NGX_OK
       && len == 16 && bits == 16 && memcmp(addr, "\xfc\1\0", 3) == 0,
       "reverse IPv6");
    ok(ngx_tun_dns_reverse(bad4, sizeof(bad4), addr, &len, &bits)
       == NGX_DECLINED, "reverse, 256");
    ok(ngx_tun_dns_reverse(zero4, sizeof(zero4), addr, &len, &bits)
       == NGX_DECLINED, "reverse, 01");
    ok(ngx_tun_dns_reverse(bad6, sizeof(bad6), addr, &len, &bits)
       == NGX_DECLINED, "reverse, no digit");
    ok(ngx_tun_dns_reverse(many, sizeof(many), addr, &len, &bits)
       == NGX_DECLINED, "reverse, five bytes");
    ok(ngx_tun_dns_reverse(name, sizeof(name), addr, &len, &bits)
       == NGX_DECLINED, "no reverse");

    ok(ngx_tun_dns_below(name, sizeof(name), (u_char *) "\3com", 5), "below");
    ok(!ngx_tun_dns_below(inside, sizeof(inside), (u_char *) "\3com\3org", 9),
       "not below, inside a label");

    p = ngx_tun_dns_type_text(text, 65);
    ok(p - text == 5 && memcmp(text, "HTTPS", 5) == 0, "type");
    p = ngx_tun_dns_type_text(text, 65535);
    ok(p - text == 9 && memcmp(text, "TYPE65535", 9) == 0, "another type");
    p = ngx_tun_dns_rcode_text(text, 11);
    ok(p - text == 7 && memcmp(text, "RCODE11", 7) == 0, "another rcode");
    p = ngx_tun_dns_type_text(text, 0);
    ok(p - text == 5 && memcmp(text, "TYPE0", 5) == 0, "type 0");
}


static void
test_random(void)
{
    u_char                  *p, buf[NGX_TUN_DNS_ANSWER_MAX];
    u_char                   text[NGX_TUN_DNS_TEXT_MAX];
    size_t                   len;
    case_t                  *test;
    ngx_uint_t               i, n, good;
    ngx_tun_dns_query_t      query;
    ngx_tun_dns_special_t    special;

    good = 0;

    for (i = 0; i < 200000; i++) {
        test = &cases[random() % (sizeof(cases) / sizeof(case_t))];
        len = test->len ? test->len - random() % 2 * (random() % test->len)
                        : 0;
        p = exact(test->data, len);

        for (n = random() % 4; n && len; n--) {
            p[random() % len] = (u_char) random();
        }

        if (parse(&query, p, len) == GOOD) {
            ngx_tun_dns_special(&special, &query, NGX_TUN_DNS_SPECIAL_ALL);
            (void) ngx_tun_dns_name_text(text, query.name, query.len);
            good += ngx_tun_dns_build_nodata(&query, buf, sizeof(buf), 0, 1)
                    != 0;
        }

        free(p);
    }

    ok(good > 10000, "anything, %d good", (int) good);
}


int
main(void)
{
    srandom(1);

    test_parse();
    test_answer();
    test_special();
    test_text();
    test_random();

    return done();
}
