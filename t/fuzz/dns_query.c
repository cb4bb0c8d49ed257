
/*
 * Copyright (C) the nginx-tun authors
 */


/*
 * libFuzzer: what a client may ask.  Every answer to it must be a message that
 * is whole, and never longer than it may be.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_dns_wire.h>


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check(int good)
{
    if (!good) {
        abort();
    }
}


/* an answer ends where its records end */

static void
check_answer(u_char *buf, size_t len)
{
    u_char      *p, *end, name[NGX_TUN_DNS_NAME_MAX];
    size_t       n;
    ngx_uint_t   records;

    check(len >= NGX_TUN_DNS_HEADER && len <= NGX_TUN_DNS_ANSWER_MAX);

    p = buf + NGX_TUN_DNS_HEADER;
    end = buf + len;

    if (ngx_tun_dns_get16(buf + 4)) {
        p = ngx_tun_dns_expand_name(buf, p, end, name, &n);
        check(p != NULL && end - p >= 4);
        p += 4;
    }

    records = ngx_tun_dns_get16(buf + 6) + ngx_tun_dns_get16(buf + 8)
              + ngx_tun_dns_get16(buf + 10);

    for ( /* void */ ; records; records--) {
        p = ngx_tun_dns_expand_name(buf, p, end, name, &n);
        check(p != NULL && end - p >= 10);
        n = ngx_tun_dns_get16(p + 8);
        check((size_t) (end - p) >= 10 + n);
        p += 10 + n;
    }

    check(p == end);
}


static void
fuzz_answers(ngx_tun_dns_query_t *query)
{
    u_char                 buf[NGX_TUN_DNS_ANSWER_MAX], addr[16];
    size_t                 len;
    ngx_uint_t             bits;
    ngx_tun_dns_answer_t   answer;
    ngx_tun_dns_special_t  special;

    ngx_tun_dns_special(&special, query, NGX_TUN_DNS_SPECIAL_ALL);
    check(special.naddrs <= 2);

    len = ngx_tun_dns_build_nodata(query, buf, sizeof(buf), 3, 30);
    check_answer(buf, len);

    check(ngx_tun_dns_begin(&answer, query, buf, sizeof(buf), 0) == NGX_OK);
    check(ngx_tun_dns_add_name(&answer, NGX_TUN_DNS_TYPE_PTR, query->name,
                               query->len, 30) == NGX_OK);
    check_answer(buf, ngx_tun_dns_finish(&answer));

    check(ngx_tun_dns_begin(&answer, query, buf, sizeof(buf), 0) == NGX_OK);
    check(ngx_tun_dns_add_hinfo(&answer) == NGX_OK);
    check_answer(buf, ngx_tun_dns_finish(&answer));

    if (ngx_tun_dns_reverse(query->name, query->len, addr, &len, &bits)
        == NGX_OK)
    {
        check((len == 4 || len == 16) && bits <= len * 8);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    u_char               *p, buf[NGX_TUN_DNS_ANSWER_MAX];
    u_char                text[NGX_TUN_DNS_TEXT_MAX + 20];
    ngx_int_t             rc;
    ngx_uint_t            rcode;
    ngx_tun_dns_query_t   query;

    p = malloc(size ? size : 1);

    if (p == NULL) {
        return 0;
    }

    ngx_memcpy(p, data, size);

    rc = ngx_tun_dns_parse_query(&query, p, p + size, &rcode);

    if (rc == NGX_DECLINED) {
        free(p);
        return 0;
    }

    if (rc == NGX_OK) {
        check(query.len >= 1 && query.len <= NGX_TUN_DNS_NAME_MAX);
        check(ngx_tun_dns_name_text(text, query.name, query.len)
              <= text + NGX_TUN_DNS_TEXT_MAX);

        fuzz_answers(&query);
        rcode = NGX_TUN_DNS_NOERROR;
    }

    check_answer(buf, ngx_tun_dns_build_error(&query, buf, sizeof(buf),
                                              rcode));
    free(p);

    return 0;
}
