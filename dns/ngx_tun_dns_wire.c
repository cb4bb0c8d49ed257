
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_dns_wire.h>


/* the fixed part of a record, after its name */

#define NGX_TUN_DNS_RR  10


static ngx_int_t ngx_tun_dns_parse_question(ngx_tun_dns_query_t *query,
    u_char **pos, u_char *end);
static ngx_int_t ngx_tun_dns_parse_additional(ngx_tun_dns_query_t *query,
    u_char *p, u_char *end, ngx_uint_t n, ngx_uint_t *rcode);
static ngx_int_t ngx_tun_dns_parse_options(ngx_tun_dns_query_t *query,
    u_char *p, u_char *end);
static ngx_int_t ngx_tun_dns_check_type(ngx_tun_dns_query_t *query,
    ngx_uint_t *rcode);
static u_char *ngx_tun_dns_add_record(ngx_tun_dns_answer_t *answer,
    ngx_uint_t section, ngx_uint_t type, time_t ttl, size_t len);


ngx_int_t
ngx_tun_dns_parse_query(ngx_tun_dns_query_t *query, u_char *p, u_char *end,
    ngx_uint_t *rcode)
{
    ngx_int_t   rc;
    ngx_uint_t  qdcount, ancount, nscount, arcount;

    /* the name needs no zeroes, and is most of it */

    ngx_memzero(query, offsetof(ngx_tun_dns_query_t, name));
    query->udp_size = 0;
    query->edns = 0;
    query->dnssec_ok = 0;
    query->tagged = 0;
    query->odd = 0;
    query->labels = 0;

    if (end - p < NGX_TUN_DNS_HEADER) {
        return NGX_DECLINED;
    }

    query->id = ngx_tun_dns_get16(p);
    query->flags = ngx_tun_dns_get16(p + 2);

    qdcount = ngx_tun_dns_get16(p + 4);
    ancount = ngx_tun_dns_get16(p + 6);
    nscount = ngx_tun_dns_get16(p + 8);
    arcount = ngx_tun_dns_get16(p + 10);

    /* to answer an answer would make a loop */

    if (query->flags & NGX_TUN_DNS_QR) {
        return NGX_DECLINED;
    }

    if (query->flags & NGX_TUN_DNS_OPCODE) {
        *rcode = NGX_TUN_DNS_NOTIMP;
        return NGX_ERROR;
    }

    *rcode = NGX_TUN_DNS_FORMERR;

    /* RFC 9619: one question */

    if ((query->flags & NGX_TUN_DNS_TC)
        || qdcount != 1 || ancount != 0 || nscount != 0)
    {
        return NGX_ERROR;
    }

    p += NGX_TUN_DNS_HEADER;

    if (ngx_tun_dns_parse_question(query, &p, end) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_tun_dns_parse_additional(query, p, end, arcount, rcode);

    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_tun_dns_check_type(query, rcode);
}


static ngx_int_t
ngx_tun_dns_parse_question(ngx_tun_dns_query_t *query, u_char **pos,
    u_char *end)
{
    u_char      *p, *last;
    ngx_uint_t   n;

    p = ngx_tun_dns_read_name(*pos, end, query->name, &query->len);

    if (p == NULL || end - p < 4) {
        return NGX_ERROR;
    }

    query->type = ngx_tun_dns_get16(p);
    query->class = ngx_tun_dns_get16(p + 2);

    p += 4;

    query->question = *pos;
    query->question_len = p - *pos;

    *pos = p;

    p = query->name;
    last = p + query->len - 1;

    while (p < last) {
        query->labels++;

        for (n = *p++; n; n--, p++) {

            if ((*p < 'a' || *p > 'z') && (*p < '0' || *p > '9')
                && *p != '-' && *p != '_')
            {
                query->odd = 1;
            }
        }
    }

    return NGX_OK;
}


/* bytes after the last record are nothing to us */

static ngx_int_t
ngx_tun_dns_parse_additional(ngx_tun_dns_query_t *query, u_char *p,
    u_char *end, ngx_uint_t n, ngx_uint_t *rcode)
{
    u_char      *name;
    size_t       len;
    ngx_uint_t   type, version, is_signed;

    version = 0;
    is_signed = 0;

    for ( /* void */ ; n; n--) {
        name = p;
        p = ngx_tun_dns_skip_name(p, end);

        if (p == NULL || end - p < NGX_TUN_DNS_RR) {
            return NGX_ERROR;
        }

        type = ngx_tun_dns_get16(p);
        len = ngx_tun_dns_get16(p + 8);

        if ((size_t) (end - p - NGX_TUN_DNS_RR) < len) {
            return NGX_ERROR;
        }

        if (type == NGX_TUN_DNS_TYPE_OPT) {

            if (query->edns || *name != 0) {
                return NGX_ERROR;
            }

            query->edns = 1;
            query->udp_size = ngx_tun_dns_get16(p + 2);
            version = p[5];
            query->dnssec_ok = (p[6] >> 7);

            if (version == 0
                && ngx_tun_dns_parse_options(query, p + NGX_TUN_DNS_RR,
                                             p + NGX_TUN_DNS_RR + len)
                   != NGX_OK)
            {
                return NGX_ERROR;
            }
        }

        if (type == NGX_TUN_DNS_TYPE_TSIG || type == NGX_TUN_DNS_TYPE_SIG) {
            is_signed = 1;
        }

        p += NGX_TUN_DNS_RR + len;
    }

    if (is_signed) {
        *rcode = NGX_TUN_DNS_REFUSED;
        return NGX_ERROR;
    }

    if (version != 0) {
        *rcode = NGX_TUN_DNS_BADVERS;
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_tun_dns_parse_options(ngx_tun_dns_query_t *query, u_char *p, u_char *end)
{
    size_t      len;
    ngx_uint_t  code;

    while (p < end) {

        if (end - p < 4) {
            return NGX_ERROR;
        }

        code = ngx_tun_dns_get16(p);
        len = ngx_tun_dns_get16(p + 2);
        p += 4;

        if ((size_t) (end - p) < len) {
            return NGX_ERROR;
        }

        if (code == NGX_TUN_DNS_OPTION_TAG && len == NGX_TUN_DNS_TAG_LEN) {
            query->tagged = 1;
            ngx_memcpy(query->tag, p, NGX_TUN_DNS_TAG_LEN);
        }

        p += len;
    }

    return NGX_OK;
}


/* RFC 6895, 3.1: 128 to 255 are no types of data */

static ngx_int_t
ngx_tun_dns_check_type(ngx_tun_dns_query_t *query, ngx_uint_t *rcode)
{
    if (query->type == 0 || query->type == NGX_TUN_DNS_TYPE_OPT) {
        *rcode = NGX_TUN_DNS_FORMERR;
        return NGX_ERROR;
    }

    if (query->class != NGX_TUN_DNS_CLASS_IN
        || (query->type >= 128 && query->type < NGX_TUN_DNS_TYPE_ANY))
    {
        *rcode = NGX_TUN_DNS_REFUSED;
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_int_t
ngx_tun_dns_begin(ngx_tun_dns_answer_t *answer, ngx_tun_dns_query_t *query,
    u_char *buf, size_t size, ngx_uint_t rcode)
{
    u_char      *p;
    ngx_uint_t   flags;

    ngx_memzero(answer, sizeof(ngx_tun_dns_answer_t));

    if (size < NGX_TUN_DNS_HEADER + query->question_len) {
        return NGX_ERROR;
    }

    answer->start = buf;
    answer->end = buf + size;
    answer->query = query;
    answer->rcode = rcode;

    flags = NGX_TUN_DNS_QR | NGX_TUN_DNS_RA | (rcode & 0x0f)
            | (query->flags & (NGX_TUN_DNS_OPCODE|NGX_TUN_DNS_RD
                               |NGX_TUN_DNS_CD));

    p = ngx_tun_dns_put16(buf, query->id);
    p = ngx_tun_dns_put16(p, flags);
    p = ngx_tun_dns_put16(p, (query->question_len != 0));

    ngx_memzero(p, 6);
    p += 6;

    if (query->question_len) {
        p = ngx_cpymem(p, query->question, query->question_len);
    }

    answer->pos = p;

    return NGX_OK;
}


/* the owner is the question's name, which keeps its case */

static u_char *
ngx_tun_dns_add_record(ngx_tun_dns_answer_t *answer, ngx_uint_t section,
    ngx_uint_t type, time_t ttl, size_t len)
{
    u_char  *p;

    p = answer->pos;

    if ((size_t) (answer->end - p) < 2 + NGX_TUN_DNS_RR + len) {
        return NULL;
    }

    answer->counts[section]++;
    answer->pos = p + 2 + NGX_TUN_DNS_RR + len;

    p = ngx_tun_dns_put16(p, 0xc000 | NGX_TUN_DNS_HEADER);
    p = ngx_tun_dns_put16(p, type);
    p = ngx_tun_dns_put16(p, NGX_TUN_DNS_CLASS_IN);
    p = ngx_tun_dns_put32(p, (uint32_t) ttl);
    p = ngx_tun_dns_put16(p, len);

    return p;
}


ngx_int_t
ngx_tun_dns_add_address(ngx_tun_dns_answer_t *answer, u_char *addr,
    size_t addr_len, time_t ttl)
{
    u_char  *p;

    p = ngx_tun_dns_add_record(answer, 0, (addr_len == 4)
                                          ? NGX_TUN_DNS_TYPE_A
                                          : NGX_TUN_DNS_TYPE_AAAA,
                               ttl, addr_len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, addr, addr_len);

    return NGX_OK;
}


ngx_int_t
ngx_tun_dns_add_name(ngx_tun_dns_answer_t *answer, ngx_uint_t type,
    u_char *name, size_t len, time_t ttl)
{
    u_char  *p;

    p = ngx_tun_dns_add_record(answer, 0, type, ttl, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, name, len);

    return NGX_OK;
}


ngx_int_t
ngx_tun_dns_add_hinfo(ngx_tun_dns_answer_t *answer)
{
    u_char  *p;

    static const u_char  hinfo[] = "\x07" "RFC8482";

    p = ngx_tun_dns_add_record(answer, 0, NGX_TUN_DNS_TYPE_HINFO, 3600,
                               sizeof(hinfo));
    if (p == NULL) {
        return NGX_ERROR;
    }

    /* the zero that ends it is an empty string, too */

    ngx_memcpy(p, hinfo, sizeof(hinfo));

    return NGX_OK;
}


ngx_int_t
ngx_tun_dns_add_soa(ngx_tun_dns_answer_t *answer, time_t ttl)
{
    u_char  *p;

    p = ngx_tun_dns_add_record(answer, 1, NGX_TUN_DNS_TYPE_SOA, ttl, 22);
    if (p == NULL) {
        return NGX_ERROR;
    }

    *p++ = 0;
    *p++ = 0;

    p = ngx_tun_dns_put32(p, 1);
    p = ngx_tun_dns_put32(p, 3600);
    p = ngx_tun_dns_put32(p, 600);
    p = ngx_tun_dns_put32(p, 86400);
    (void) ngx_tun_dns_put32(p, (uint32_t) ttl);

    return NGX_OK;
}


size_t
ngx_tun_dns_finish(ngx_tun_dns_answer_t *answer)
{
    u_char      *p;
    ngx_uint_t   i;

    if (answer->query->edns) {
        p = answer->pos;

        if (answer->end - p < 1 + NGX_TUN_DNS_RR) {
            return 0;
        }

        answer->counts[2]++;

        *p++ = 0;
        p = ngx_tun_dns_put16(p, NGX_TUN_DNS_TYPE_OPT);
        p = ngx_tun_dns_put16(p, NGX_TUN_DNS_UDP_MAX);
        *p++ = (u_char) (answer->rcode >> 4);
        *p++ = 0;
        p = ngx_tun_dns_put16(p, answer->query->dnssec_ok
                                 ? NGX_TUN_DNS_OPT_DO : 0);
        p = ngx_tun_dns_put16(p, 0);

        answer->pos = p;
    }

    for (i = 0; i < 3; i++) {
        (void) ngx_tun_dns_put16(answer->start + 6 + i * 2, answer->counts[i]);
    }

    return answer->pos - answer->start;
}


size_t
ngx_tun_dns_build_error(ngx_tun_dns_query_t *query, u_char *buf, size_t size,
    ngx_uint_t rcode)
{
    ngx_tun_dns_answer_t  answer;

    if (ngx_tun_dns_begin(&answer, query, buf, size, rcode) != NGX_OK) {
        return 0;
    }

    return ngx_tun_dns_finish(&answer);
}


size_t
ngx_tun_dns_build_nodata(ngx_tun_dns_query_t *query, u_char *buf, size_t size,
    ngx_uint_t rcode, time_t ttl)
{
    ngx_tun_dns_answer_t  answer;

    if (ngx_tun_dns_begin(&answer, query, buf, size, rcode) != NGX_OK
        || ngx_tun_dns_add_soa(&answer, ttl) != NGX_OK)
    {
        return 0;
    }

    return ngx_tun_dns_finish(&answer);
}


size_t
ngx_tun_dns_udp_limit(ngx_tun_dns_query_t *query)
{
    if (!query->edns || query->udp_size < NGX_TUN_DNS_UDP_MIN) {
        return NGX_TUN_DNS_UDP_MIN;
    }

    return ngx_min(query->udp_size, NGX_TUN_DNS_UDP_MAX);
}
