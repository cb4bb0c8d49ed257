
/*
 * Copyright (C) the nginx-tun authors
 */


/*
 * libFuzzer: what another server may answer.  The first byte says how it is
 * rewritten; the question is the message's own, so that what is behind it is
 * reached.  What comes out must be read without a complaint.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_dns_wire.h>


#define FUZZ_EDNS   0x01
#define FUZZ_STRIP  0x02
#define FUZZ_FAKED  0x04
#define FUZZ_SHORT  0x08


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check(int good)
{
    if (!good) {
        abort();
    }
}


static ngx_uint_t
no_fake(void *data, u_char *addr, size_t addr_len)
{
    check(addr_len == 4 || addr_len == 16);

    return (addr[0] | addr[addr_len - 1]) == 0;
}


static void
fuzz_rewrite(ngx_tun_dns_query_t *query, ngx_uint_t how, u_char *p,
    u_char *end)
{
    size_t                  n, room;
    u_char                 *buf;
    ngx_tun_dns_reply_t     reply;
    ngx_tun_dns_rewrite_t   rw;

    rw.query = query;
    rw.age = how;
    rw.limit = (how & FUZZ_SHORT) ? 512 : 65535;
    rw.ttl = 30;
    rw.strip = (how & FUZZ_STRIP) != 0;
    rw.faked = (how & FUZZ_FAKED) != 0;

    query->edns = (how & FUZZ_EDNS);

    /* of a record by a pointer a name may become, and more than one */

    room = 512 + (end - p) * 2;
    buf = malloc(room);

    if (buf == NULL) {
        return;
    }

    ngx_memset(buf, 0xff, room);

    n = ngx_tun_dns_rewrite(&rw, p, end, buf, room);

    check(n != 0 && n <= room && n <= rw.limit);
    check(ngx_tun_dns_check_reply(&reply, query, query->id, buf, buf + n,
                                  no_fake, NULL)
          == NGX_OK);

    free(buf);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    u_char               *p, *end, *last;
    ngx_tun_dns_query_t   query;
    ngx_tun_dns_reply_t   reply;

    if (size < 1 + NGX_TUN_DNS_HEADER) {
        return 0;
    }

    p = malloc(size - 1);

    if (p == NULL) {
        return 0;
    }

    ngx_memcpy(p, data + 1, size - 1);
    end = p + size - 1;

    ngx_memzero(&query, sizeof(ngx_tun_dns_query_t));

    last = ngx_tun_dns_read_name(p + NGX_TUN_DNS_HEADER, end, query.name,
                                 &query.len);

    if (last != NULL && end - last >= 4) {
        query.id = ngx_tun_dns_get16(p);
        query.flags = NGX_TUN_DNS_RD;
        query.type = ngx_tun_dns_get16(last);
        query.class = ngx_tun_dns_get16(last + 2);
        query.question = p + NGX_TUN_DNS_HEADER;
        query.question_len = last + 4 - query.question;

        if (ngx_tun_dns_check_reply(&reply, &query, query.id, p, end, no_fake,
                                    NULL)
            == NGX_OK && !reply.truncated)
        {
            check(reply.ttl <= NGX_TUN_DNS_TTL_MAX && reply.rcode < 16);
            fuzz_rewrite(&query, data[0], p, end);
        }
    }

    free(p);

    return 0;
}
