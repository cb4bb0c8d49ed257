
/*
 * Copyright (C) the nginx-tun authors
 */

/* link: ngx_tun_module/ngx_stream_tun_handshake_destination.c ngx_tun_module/ngx_stream_tun_handshake_socks5.c ngx_tun_module/ngx_stream_tun_handshake_http.c */


/*
 * libFuzzer: what proxies may answer, and what a destination may be.  The
 * first byte says which.  A verdict does not depend on how the bytes are cut.
 */


#include <ngx_stream_tun_wire.h>


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check(int good)
{
    if (!good) {
        abort();
    }
}


static ngx_int_t
parse(ngx_stream_tun_parse_pt parser, const uint8_t *data, size_t size,
    size_t *used, ngx_uint_t *code)
{
    u_char     *p, *block;
    ngx_int_t   rc;

    /* a block of its own, so that a read beyond its end is seen */

    block = malloc(size ? size : 1);
    check(block != NULL);

    if (size) {
        memcpy(block, data, size);
    }

    p = block;
    *code = 0;

    rc = parser(&p, block + size, code);

    check(p >= block && p <= block + size);
    check(p == block || rc == NGX_OK || rc == NGX_DECLINED);

    *used = p - block;

    free(block);

    return rc;
}


static void
fuzz_answer(ngx_stream_tun_parse_pt parser, const uint8_t *data, size_t size)
{
    size_t      len, used, all_used;
    ngx_int_t   rc, all;
    ngx_uint_t  code, all_code;

    all = parse(parser, data, size, &all_used, &all_code);

    for (len = 0; len < size; len++) {
        rc = parse(parser, data, len, &used, &code);

        if (rc == NGX_AGAIN) {
            continue;
        }

        check(rc == all);
        check(rc == NGX_ERROR || code == all_code);
        check(rc != NGX_OK || used == all_used);

        break;
    }
}


static void
fuzz_destination(const uint8_t *data, size_t size)
{
    u_char                        *p, *buf;
    size_t                         i, len;
    ngx_str_t                      text, headers;
    ngx_stream_tun_destination_t   dst;

    text.len = size;
    text.data = malloc(size ? size : 1);
    check(text.data != NULL);

    if (size) {
        memcpy(text.data, data, size);
    }

    if (ngx_stream_tun_parse_destination(&text, &dst) == NGX_OK) {

        check(dst.host.len > 0 && dst.host.len <= 255 && dst.port > 0);

        for (i = 0; i < dst.host.len; i++) {
            check(dst.host.data[i] > ' ' && dst.host.data[i] != 0x7f);
        }

        ngx_str_null(&headers);

        len = ngx_stream_tun_http_size(&dst, &headers);
        buf = malloc(len);
        check(buf != NULL);

        p = ngx_stream_tun_http_connect(buf, &dst, &headers);
        check((size_t) (p - buf) <= len);

        free(buf);

        buf = malloc(NGX_STREAM_TUN_SOCKS5_SIZE);
        check(buf != NULL);

        p = ngx_stream_tun_socks5_request(buf, 1, &dst);
        check(p - buf <= 4 + 256 + 2);

        free(buf);
    }

    free(text.data);
}


/* what was taken for a header is what would be written, but for RSV */

static void
fuzz_datagram(const uint8_t *data, size_t size)
{
    u_char                        *p, *end, *block;
    u_char                         header[NGX_STREAM_TUN_SOCKS5_HEADER];
    ngx_stream_tun_destination_t   src;

    block = malloc(size ? size : 1);
    check(block != NULL);

    if (size) {
        memcpy(block, data, size);
    }

    p = block;

    if (ngx_stream_tun_socks5_parse_datagram(&p, block + size, &src)
        == NGX_OK)
    {
        end = ngx_stream_tun_socks5_datagram(header, &src);

        check(p - block == end - header);
        check(memcmp(block + 2, header + 2, p - block - 2) == 0);

    } else {
        check(p == block);
    }

    free(block);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static ngx_stream_tun_parse_pt  parsers[] = {
        ngx_stream_tun_socks5_parse_none,
        ngx_stream_tun_socks5_parse_method,
        ngx_stream_tun_socks5_parse_password,
        ngx_stream_tun_socks5_parse_reply,
        ngx_stream_tun_http_parse
    };

    if (size == 0) {
        return 0;
    }

    switch (data[0] % 7) {

    case 5:
        fuzz_destination(data + 1, size - 1);
        break;

    case 6:
        fuzz_datagram(data + 1, size - 1);
        break;

    default:
        fuzz_answer(parsers[data[0] % 7], data + 1, size - 1);
    }

    return 0;
}
