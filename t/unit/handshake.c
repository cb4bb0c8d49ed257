
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: ngx_tun_module/ngx_stream_tun_handshake_destination.c ngx_tun_module/ngx_stream_tun_handshake_socks5.c ngx_tun_module/ngx_stream_tun_handshake_http.c ngx_tun_module/ngx_stream_tun_handshake_proxy_v2.c */


#include <ngx_stream_tun_wire.h>

#include "lib/tap.h"


#define BYTES(s)  (u_char *) s, sizeof(s) - 1


typedef struct {
    const char   *text;
    ngx_int_t     rc;
    const char   *host;
    ngx_uint_t    port;
    ngx_uint_t    family;
} destination_t;


typedef struct {
    const char   *name;
    u_char       *bytes;
    size_t        len;
    size_t        need;     /* how many of them decide */
    size_t        used;
    ngx_int_t     rc;
    ngx_uint_t    code;
} answer_t;


static ngx_str_t
str(const char *text)
{
    ngx_str_t  s;

    s.data = (u_char *) text;
    s.len = strlen(text);

    return s;
}


static ngx_uint_t
same(u_char *start, u_char *end, u_char *bytes, size_t len)
{
    return (size_t) (end - start) == len && memcmp(start, bytes, len) == 0;
}


static void
test_destinations(void)
{
    size_t                         i;
    char                           name[300];
    ngx_int_t                      rc;
    ngx_str_t                      text;
    ngx_stream_tun_destination_t   dst;

    static destination_t  tests[] = {
        { "example.com:443", NGX_OK, "example.com", 443, 0 },
        { "192.0.2.1:80", NGX_OK, "192.0.2.1", 80, AF_INET },
        { "[2001:db8::1]:65535", NGX_OK, "2001:db8::1", 65535, AF_INET6 },
        { "[::ffff:192.0.2.1]:1", NGX_OK, "::ffff:192.0.2.1", 1, AF_INET6 },
        { "999.0.2.1:80", NGX_OK, "999.0.2.1", 80, 0 },
        { "a_b-c.:1", NGX_OK, "a_b-c.", 1, 0 },
        { "", NGX_ERROR, NULL, 0, 0 },
        { ":", NGX_ERROR, NULL, 0, 0 },
        { ":80", NGX_ERROR, NULL, 0, 0 },
        { "host", NGX_ERROR, NULL, 0, 0 },
        { "host:", NGX_ERROR, NULL, 0, 0 },
        { "host:0", NGX_ERROR, NULL, 0, 0 },
        { "host:65536", NGX_ERROR, NULL, 0, 0 },
        { "host:123456", NGX_ERROR, NULL, 0, 0 },
        { "host:8a", NGX_ERROR, NULL, 0, 0 },
        { "host:-1", NGX_ERROR, NULL, 0, 0 },
        { "2001:db8::1:80", NGX_ERROR, NULL, 0, 0 },
        { "[2001:db8::1]80", NGX_ERROR, NULL, 0, 0 },
        { "[2001:db8::1:80", NGX_ERROR, NULL, 0, 0 },
        { "[]:80", NGX_ERROR, NULL, 0, 0 },
        { "[192.0.2.1]:80", NGX_ERROR, NULL, 0, 0 },
        { "[name]:80", NGX_ERROR, NULL, 0, 0 },
        { "[fe80::1%lo]:80", NGX_ERROR, NULL, 0, 0 },
        { "ho st:80", NGX_ERROR, NULL, 0, 0 },
        { "host\r\nX: y:80", NGX_ERROR, NULL, 0, 0 },
        { "host\x7f:80", NGX_ERROR, NULL, 0, 0 },
        { "host/x:80", NGX_ERROR, NULL, 0, 0 },
        { "user@host:80", NGX_ERROR, NULL, 0, 0 },
    };

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        text = str(tests[i].text);
        rc = ngx_stream_tun_parse_destination(&text, &dst);

        ok(rc == tests[i].rc
           && (rc != NGX_OK
               || (dst.host.len == strlen(tests[i].host)
                   && memcmp(dst.host.data, tests[i].host, dst.host.len) == 0
                   && dst.port == tests[i].port
                   && dst.family == tests[i].family)),
           "destination %d", (int) i);
    }

    memset(name, 'n', sizeof(name));

    text.data = (u_char *) name;
    memcpy(name + 255, ":65535", 6);
    text.len = 261;

    ok(ngx_stream_tun_parse_destination(&text, &dst) == NGX_OK
       && dst.host.len == 255, "255 bytes");

    memset(name, 'n', sizeof(name));
    memcpy(name + 256, ":80", 3);
    text.len = 259;

    ok(ngx_stream_tun_parse_destination(&text, &dst) == NGX_ERROR,
       "256 bytes");
}


static void
test_values(void)
{
    u_char      byte;
    ngx_str_t   value;
    ngx_uint_t  i, good;

    value.data = &byte;
    value.len = 1;

    for (good = 1, i = 0; i < 256; i++) {
        byte = (u_char) i;

        good &= (ngx_stream_tun_check_value(&value, 0) == NGX_OK)
                == (i > ' ' && i != 0x7f);
        good &= (ngx_stream_tun_check_value(&value, 1) == NGX_OK)
                == (i >= ' ' && i != 0x7f);
    }

    ok(good, "each byte of a value");

    value.len = 0;
    ok(ngx_stream_tun_check_value(&value, 0) == NGX_OK, "an empty value");
}


/* "data" is behind the header of 192.0.2.1:258, or of a name */

static void
test_datagram(u_char *data, size_t len, ngx_int_t expected,
    ngx_uint_t family)
{
    u_char                        *p, buf[64];
    ngx_int_t                      rc;
    ngx_stream_tun_destination_t   src;

    memcpy(buf, data, len);

    p = buf;
    rc = ngx_stream_tun_socks5_parse_datagram(&p, buf + len, &src);

    ok(rc == expected, "a datagram");

    if (rc != NGX_OK) {
        ok(p == buf, "untouched");
        return;
    }

    ok(src.family == family && src.port == 258
       && buf + len - p == 4 && memcmp(p, "data", 4) == 0,
       "its header");
}


static void
test_socks5(void)
{
    u_char                        *p, buf[NGX_STREAM_TUN_SOCKS5_SIZE];
    u_char                         bytes[255];
    ngx_str_t                      user, password, text;
    ngx_stream_tun_destination_t   dst;

    p = ngx_stream_tun_socks5_methods(buf, NGX_STREAM_TUN_SOCKS5_NONE);
    ok(same(buf, p, BYTES("\5\1\0")), "no authentication");

    p = ngx_stream_tun_socks5_methods(buf, NGX_STREAM_TUN_SOCKS5_PASSWORD);
    ok(same(buf, p, BYTES("\5\1\2")), "authentication");

    user = str("alice");
    password = str("secret");
    p = ngx_stream_tun_socks5_password(buf, &user, &password);
    ok(same(buf, p, BYTES("\1\5alice\6secret")), "user and password");

    ngx_str_null(&password);
    p = ngx_stream_tun_socks5_password(buf, &user, &password);
    ok(same(buf, p, BYTES("\1\5alice\0")), "no password");

    memset(bytes, 'x', sizeof(bytes));
    user.data = bytes;
    user.len = sizeof(bytes);
    p = ngx_stream_tun_socks5_password(buf, &user, &user);
    ok(p == buf + 513 && buf[1] == 255 && buf[257] == 255, "255 bytes each");

    text = str("192.0.2.1:258");
    (void) ngx_stream_tun_parse_destination(&text, &dst);
    p = ngx_stream_tun_socks5_request(buf, 1, &dst);
    ok(same(buf, p, BYTES("\5\1\0\1\300\0\2\1\1\2")), "IPv4");

    text = str("[2001:db8::1]:258");
    (void) ngx_stream_tun_parse_destination(&text, &dst);
    p = ngx_stream_tun_socks5_request(buf, 1, &dst);
    ok(same(buf, p, BYTES("\5\1\0\4\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
                          "\1\2")),
       "IPv6");

    text = str("a.example:258");
    (void) ngx_stream_tun_parse_destination(&text, &dst);
    p = ngx_stream_tun_socks5_request(buf, 3, &dst);
    ok(same(buf, p, BYTES("\5\3\0\3\11a.example\1\2")), "a name");

    p = ngx_stream_tun_socks5_datagram(buf, &dst);
    ok(same(buf, p, BYTES("\0\0\0\3\11a.example\1\2")), "of a datagram");

    test_datagram(BYTES("\0\0\0\1\300\0\2\1\1\2data"), NGX_OK, AF_INET);
    test_datagram(BYTES("\0\0\0\3\1a\1\2data"), NGX_OK, 0);
    test_datagram(BYTES("\0\0\1\1\300\0\2\1\1\2data"), NGX_ERROR, 0);
    test_datagram(BYTES("\0\0\0\2\300\0\2\1\1\2data"), NGX_ERROR, 0);
    test_datagram(BYTES("\0\0\0\3\377a\1\2data"), NGX_ERROR, 0);
    test_datagram(BYTES("\0\0\0"), NGX_ERROR, 0);

    ok(strcmp(ngx_stream_tun_socks5_text(5), "connection refused") == 0
       && strcmp(ngx_stream_tun_socks5_text(200), "unassigned") == 0,
       "texts");
}


static void
test_http(void)
{
    u_char                        *p, buf[1000];
    ngx_str_t                      headers, text;
    ngx_stream_tun_destination_t   dst;

    ngx_str_null(&headers);

    text = str("a.example:5");
    (void) ngx_stream_tun_parse_destination(&text, &dst);
    p = ngx_stream_tun_http_connect(buf, &dst, &headers);
    ok(same(buf, p, BYTES("CONNECT a.example:5 HTTP/1.1\r\n"
                          "Host: a.example:5\r\n\r\n")),
       "CONNECT");

    headers = str("A: b\r\n");
    text = str("[::1]:65535");
    (void) ngx_stream_tun_parse_destination(&text, &dst);
    p = ngx_stream_tun_http_connect(buf, &dst, &headers);
    ok(same(buf, p, BYTES("CONNECT [::1]:65535 HTTP/1.1\r\n"
                          "Host: [::1]:65535\r\nA: b\r\n\r\n"))
       && (size_t) (p - buf) <= ngx_stream_tun_http_size(&dst, &headers),
       "CONNECT, IPv6");

    text = str("10.0.0.1:8080");
    (void) ngx_stream_tun_parse_destination(&text, &dst);
    p = ngx_stream_tun_http_connect(buf, &dst, &headers);
    ok(same(buf, p, BYTES("CONNECT 10.0.0.1:8080 HTTP/1.1\r\n"
                          "Host: 10.0.0.1:8080\r\nA: b\r\n\r\n")),
       "CONNECT, IPv4");
}


static void
test_proxy_v2(void)
{
    u_char               *p, buf[1000];
    ngx_str_t             value;
    struct sockaddr_un    sun;
    struct sockaddr_in    src, dst;
    struct sockaddr_in6   src6, dst6;

    memset(&src, 0, sizeof(src));
    memset(&src6, 0, sizeof(src6));
    memset(&sun, 0, sizeof(sun));

    src.sin_family = AF_INET;
    src.sin_port = htons(258);
    src.sin_addr.s_addr = htonl(0x0a000001);
    dst = src;
    dst.sin_port = htons(443);
    dst.sin_addr.s_addr = htonl(0xc0000201);

    src6.sin6_family = AF_INET6;
    src6.sin6_port = htons(258);
    src6.sin6_addr.s6_addr[15] = 1;
    dst6 = src6;
    dst6.sin6_addr.s6_addr[15] = 2;

    sun.sun_family = AF_UNIX;

#define SIGNATURE  "\r\n\r\n\0\r\nQUIT\n\x21"

    p = ngx_stream_tun_proxy_v2_header(buf, SOCK_STREAM,
                                       (struct sockaddr *) &src,
                                       (struct sockaddr *) &dst);
    ok(same(buf, p, BYTES(SIGNATURE "\x11\0\x0c\x0a\0\0\1\300\0\2\1\1\2\1\273")),
       "PROXY, IPv4");

    value = str("a.example");
    p = ngx_stream_tun_proxy_v2_tlv(buf, p, 2, &value);
    ok(same(buf + 14, p, BYTES("\0\x18\x0a\0\0\1\300\0\2\1\1\2\1\273"
                               "\2\0\11a.example")),
       "authority");

    p = ngx_stream_tun_proxy_v2_tlv(buf, p, 0xe0, &value);
    ok(buf[15] == 36 && p == buf + 16 + 36, "and another TLV");

    p = ngx_stream_tun_proxy_v2_header(buf, SOCK_STREAM,
                                       (struct sockaddr *) &src6,
                                       (struct sockaddr *) &dst6);
    ok(p == buf + NGX_STREAM_TUN_PROXY_V2_SIZE && buf[13] == 0x21
       && buf[15] == 36 && buf[31] == 1 && buf[47] == 2 && buf[49] == 2,
       "PROXY, IPv6");

    p = ngx_stream_tun_proxy_v2_header(buf, SOCK_DGRAM,
                                       (struct sockaddr *) &src,
                                       (struct sockaddr *) &dst);
    ok(buf[13] == 0x12, "PROXY, UDP");

    p = ngx_stream_tun_proxy_v2_header(buf, SOCK_STREAM,
                                       (struct sockaddr *) &src,
                                       (struct sockaddr *) &dst6);
    ok(same(buf, p, BYTES(SIGNATURE "\0\0\0")), "PROXY, two families");

    p = ngx_stream_tun_proxy_v2_header(buf, SOCK_STREAM,
                                       (struct sockaddr *) &sun,
                                       (struct sockaddr *) &sun);
    ok(same(buf, p, BYTES(SIGNATURE "\0\0\0")), "PROXY, unix");
}


/* with all that comes, and with each smaller part, at the end of a block */

static void
test_answers(ngx_stream_tun_parse_pt parse, answer_t *tests, size_t n)
{
    size_t      i, len;
    u_char     *p, *block;
    ngx_int_t   rc;
    ngx_uint_t  code, good;

    for (i = 0; i < n; i++) {

        for (good = 1, len = 0; len <= tests[i].len; len++) {

            block = malloc(len ? len : 1);
            memcpy(block, tests[i].bytes, len);

            p = block;
            code = 0;
            rc = parse(&p, block + len, &code);

            if (len < tests[i].need) {
                good &= (rc == NGX_AGAIN && p == block);

            } else {
                good &= (rc == tests[i].rc);
                good &= (rc != NGX_OK || p == block + tests[i].used);
                good &= (rc == NGX_ERROR || rc == NGX_AGAIN
                         || code == tests[i].code);
            }

            free(block);
        }

        ok(good, "answer: %s", tests[i].name);
    }
}


static void
test_parsers(void)
{
    static answer_t  pair[] = {
        { "none", BYTES("\5\0more"), 2, 2, NGX_OK, 0 },
        { "another one", BYTES("\5\2"), 2, 2, NGX_DECLINED, 2 },
        { "no method", BYTES("\5\xff"), 2, 2, NGX_DECLINED, 255 },
        { "SOCKS4", BYTES("\4\0"), 1, 0, NGX_ERROR, 0 },
    };

    static answer_t  password[] = {
        { "accepted", BYTES("\1\0"), 2, 2, NGX_OK, 0 },
        { "not accepted", BYTES("\1\1"), 2, 2, NGX_DECLINED, 1 },
        { "not by its version", BYTES("\5\0"), 1, 0, NGX_ERROR, 0 },
    };

    static answer_t  reply[] = {
        { "IPv4", BYTES("\5\0\0\1aaaappMORE"), 10, 10, NGX_OK, 0 },
        { "IPv6", BYTES("\5\0\0\4aaaaaaaaaaaaaaaappMORE"), 22, 22, NGX_OK, 0 },
        { "name", BYTES("\5\0\0\3\4nameppM"), 11, 11, NGX_OK, 0 },
        { "no name", BYTES("\5\0\0\3\0ppM"), 7, 7, NGX_OK, 0 },
        { "type", BYTES("\5\0\0\2aaaapp"), 5, 0, NGX_ERROR, 0 },
        { "refused", BYTES("\5\5\0\1aaaapp"), 2, 0, NGX_DECLINED, 5 },
        { "refused, short", BYTES("\5\4"), 2, 0, NGX_DECLINED, 4 },
        { "SOCKS4", BYTES("\0\132"), 1, 0, NGX_ERROR, 0 },
    };

    static answer_t  http[] = {
        { "200", BYTES("HTTP/1.1 200 OK\r\n\r\nMORE"), 19, 19, NGX_OK, 200 },
        { "no text", BYTES("HTTP/1.0 200\r\n\r\n\n"), 16, 16, NGX_OK, 200 },
        { "bare LF", BYTES("HTTP/1.1 204 \nA: b\n\nX"), 20, 20, NGX_OK, 204 },
        { "407", BYTES("HTTP/1.1 407 No\r\nA: b\r\n\r\n"), 25, 0,
          NGX_DECLINED, 407 },
        { "101", BYTES("HTTP/1.1 101 S\r\n\r\n"), 18, 0, NGX_DECLINED, 101 },
        { "interim", BYTES("HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\n\r\nM"),
          37, 37, NGX_OK, 200 },
        { "garbage", BYTES("SSH-2.0"), 1, 0, NGX_ERROR, 0 },
        { "HTTP/2", BYTES("HTTP/2 200\r\n"), 6, 0, NGX_ERROR, 0 },
        { "two digits", BYTES("HTTP/1.1 20 OK\r\n"), 13, 0, NGX_ERROR, 0 },
        { "four digits", BYTES("HTTP/1.1 2000\r\n"), 13, 0, NGX_ERROR, 0 },
        { "600", BYTES("HTTP/1.1 600 \r\n"), 13, 0, NGX_ERROR, 0 },
        { "open end", BYTES("HTTP/1.1 200 OK\r\nA: b\r\n"), 1000, 0,
          NGX_AGAIN, 0 },
    };

#define ANSWERS(parse, tests)                                                 \
    test_answers(parse, tests, sizeof(tests) / sizeof(tests[0]))

    ANSWERS(ngx_stream_tun_socks5_parse_none, pair);
    ANSWERS(ngx_stream_tun_socks5_parse_password, password);
    ANSWERS(ngx_stream_tun_socks5_parse_reply, reply);
    ANSWERS(ngx_stream_tun_http_parse, http);
}


int
main(void)
{
    test_destinations();
    test_values();
    test_socks5();
    test_http();
    test_proxy_v2();
    test_parsers();

    return done();
}
