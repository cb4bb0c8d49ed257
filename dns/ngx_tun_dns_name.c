
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_dns_wire.h>


typedef struct {
    ngx_uint_t                value;
    const char               *text;
} ngx_tun_dns_text_t;


static ngx_int_t ngx_tun_dns_reverse_label(u_char *label, ngx_uint_t base,
    ngx_uint_t *value);
static u_char *ngx_tun_dns_text(u_char *text, const ngx_tun_dns_text_t *table,
    const char *other, ngx_uint_t value);


static const ngx_tun_dns_text_t  ngx_tun_dns_types[] = {
    { NGX_TUN_DNS_TYPE_A, "A" },
    { NGX_TUN_DNS_TYPE_AAAA, "AAAA" },
    { NGX_TUN_DNS_TYPE_HTTPS, "HTTPS" },
    { NGX_TUN_DNS_TYPE_SVCB, "SVCB" },
    { NGX_TUN_DNS_TYPE_PTR, "PTR" },
    { NGX_TUN_DNS_TYPE_CNAME, "CNAME" },
    { NGX_TUN_DNS_TYPE_MX, "MX" },
    { NGX_TUN_DNS_TYPE_NS, "NS" },
    { NGX_TUN_DNS_TYPE_SOA, "SOA" },
    { NGX_TUN_DNS_TYPE_SRV, "SRV" },
    { NGX_TUN_DNS_TYPE_TXT, "TXT" },
    { NGX_TUN_DNS_TYPE_ANY, "ANY" },
    { NGX_TUN_DNS_TYPE_DS, "DS" },
    { NGX_TUN_DNS_TYPE_DNSKEY, "DNSKEY" },
    { NGX_TUN_DNS_TYPE_DNAME, "DNAME" },
    { NGX_TUN_DNS_TYPE_HINFO, "HINFO" },
    { NGX_TUN_DNS_TYPE_NSEC, "NSEC" },
    { NGX_TUN_DNS_TYPE_NSEC3, "NSEC3" },
    { NGX_TUN_DNS_TYPE_RRSIG, "RRSIG" },
    { 35, "NAPTR" },
    { 251, "IXFR" },
    { 252, "AXFR" },
    { 256, "URI" },
    { 257, "CAA" },
    { 0, NULL }
};


static const ngx_tun_dns_text_t  ngx_tun_dns_rcodes[] = {
    { NGX_TUN_DNS_NOERROR, "NOERROR" },
    { NGX_TUN_DNS_FORMERR, "FORMERR" },
    { NGX_TUN_DNS_SERVFAIL, "SERVFAIL" },
    { NGX_TUN_DNS_NXDOMAIN, "NXDOMAIN" },
    { NGX_TUN_DNS_NOTIMP, "NOTIMP" },
    { NGX_TUN_DNS_REFUSED, "REFUSED" },
    { NGX_TUN_DNS_BADVERS, "BADVERS" },
    { 0, NULL }
};


u_char *
ngx_tun_dns_read_name(u_char *p, u_char *end, u_char *name, size_t *len)
{
    u_char  *dst, *last;
    size_t   n;

    dst = name;
    last = name + NGX_TUN_DNS_NAME_MAX;

    for ( ;; ) {

        if (p == end) {
            return NULL;
        }

        n = *p++;

        /* no pointer, and no extended label */

        if (n > NGX_TUN_DNS_LABEL_MAX || (size_t) (end - p) < n
            || (size_t) (last - dst) < n + 1)
        {
            return NULL;
        }

        *dst++ = (u_char) n;

        if (n == 0) {
            *len = dst - name;
            return p;
        }

        while (n--) {
            *dst++ = ngx_tolower(*p);
            p++;
        }
    }
}


u_char *
ngx_tun_dns_skip_name(u_char *p, u_char *end)
{
    size_t  n;

    for ( ;; ) {

        if (p == end) {
            return NULL;
        }

        n = *p++;

        if (n == 0) {
            return p;
        }

        if (n >= 0xc0) {
            return (p == end) ? NULL : p + 1;
        }

        if (n > NGX_TUN_DNS_LABEL_MAX || (size_t) (end - p) < n) {
            return NULL;
        }

        p += n;
    }
}


/* each pointer leads before the part of the name that it ends: no loops */

u_char *
ngx_tun_dns_expand_name(u_char *start, u_char *p, u_char *end, u_char *name,
    size_t *len)
{
    u_char  *dst, *last, *after, *part;
    size_t   n;

    dst = name;
    last = name + NGX_TUN_DNS_NAME_MAX;
    after = NULL;
    part = p;

    for ( ;; ) {

        if (p >= end) {
            return NULL;
        }

        n = *p++;

        if (n >= 0xc0) {

            if (p == end) {
                return NULL;
            }

            n = (n & 0x3f) << 8 | *p++;

            if (after == NULL) {
                after = p;
            }

            if (n < NGX_TUN_DNS_HEADER || n >= (size_t) (part - start)) {
                return NULL;
            }

            p = start + n;
            part = p;
            continue;
        }

        if (n > NGX_TUN_DNS_LABEL_MAX || (size_t) (end - p) < n
            || (size_t) (last - dst) < n + 1)
        {
            return NULL;
        }

        *dst++ = (u_char) n;

        if (n == 0) {
            *len = dst - name;
            return (after == NULL) ? p : after;
        }

        dst = ngx_cpymem(dst, p, n);
        p += n;
    }
}


/* the length of a label is below 'A' */

void
ngx_tun_dns_lower_name(u_char *name, size_t len)
{
    for ( /* void */ ; len; len--, name++) {
        *name = ngx_tolower(*name);
    }
}


u_char *
ngx_tun_dns_name_text(u_char *text, u_char *name, size_t len)
{
    u_char  *p, *last;
    size_t   n;

    p = name;
    last = name + len - 1;

    if (p == last) {
        *text++ = '.';
        return text;
    }

    while (p < last) {

        if (p != name) {
            *text++ = '.';
        }

        for (n = *p++; n; n--, p++) {

            if ((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9')
                || *p == '-' || *p == '_')
            {
                *text++ = *p;

            } else if (*p == '.' || *p == '\\') {
                *text++ = '\\';
                *text++ = *p;

            } else {
                *text++ = '\\';
                *text++ = (u_char) ('0' + *p / 100);
                *text++ = (u_char) ('0' + *p / 10 % 10);
                *text++ = (u_char) ('0' + *p % 10);
            }
        }
    }

    return text;
}


ngx_int_t
ngx_tun_dns_reverse(u_char *name, size_t len, u_char *addr, size_t *addr_len,
    ngx_uint_t *bits)
{
    u_char      *p, *last, *labels[32];
    ngx_uint_t   i, n, max, base, value;

    static const u_char  arpa4[] = "\7in-addr\4arpa";
    static const u_char  arpa6[] = "\3ip6\4arpa";

    if (ngx_tun_dns_below(name, len, arpa4, sizeof(arpa4))) {
        last = name + len - sizeof(arpa4);
        max = 4;
        base = 10;
        *addr_len = 4;

    } else if (ngx_tun_dns_below(name, len, arpa6, sizeof(arpa6))) {
        last = name + len - sizeof(arpa6);
        max = 32;
        base = 16;
        *addr_len = 16;

    } else {
        return NGX_DECLINED;
    }

    ngx_memzero(addr, 16);
    n = 0;

    for (p = name; p < last; p += 1 + *p) {

        if (n == max) {
            return NGX_DECLINED;
        }

        labels[n++] = p;
    }

    for (i = 0; i < n; i++) {

        if (ngx_tun_dns_reverse_label(labels[n - 1 - i], base, &value)
            != NGX_OK)
        {
            return NGX_DECLINED;
        }

        if (max == 4) {
            addr[i] = (u_char) value;

        } else {
            addr[i / 2] |= (u_char) (value << ((i & 1) ? 0 : 4));
        }
    }

    *bits = n * ((max == 4) ? 8 : 4);

    return NGX_OK;
}


/* a byte in decimal, or a hexadecimal digit */

static ngx_int_t
ngx_tun_dns_reverse_label(u_char *label, ngx_uint_t base, ngx_uint_t *value)
{
    size_t  len;
    u_char  c;

    len = *label++;

    if (len > ((base == 10) ? 3 : 1) || (len > 1 && *label == '0')) {
        return NGX_ERROR;
    }

    for (*value = 0; len; len--) {
        c = *label++;

        if (c >= '0' && c <= '9') {
            *value = *value * base + (c - '0');

        } else if (base == 16 && c >= 'a' && c <= 'f') {
            *value = c - 'a' + 10;

        } else {
            return NGX_ERROR;
        }
    }

    return (*value > 255) ? NGX_ERROR : NGX_OK;
}


ngx_uint_t
ngx_tun_dns_below(u_char *name, size_t len, const u_char *suffix,
    size_t suffix_len)
{
    u_char  *p, *last;

    if (len < suffix_len) {
        return 0;
    }

    last = name + len - suffix_len;

    if (ngx_memcmp(last, suffix, suffix_len) != 0) {
        return 0;
    }

    /* bytes inside a label may look the same */

    for (p = name; p < last; p += 1 + *p) { /* void */ }

    return p == last;
}


u_char *
ngx_tun_dns_type_text(u_char *text, ngx_uint_t type)
{
    return ngx_tun_dns_text(text, ngx_tun_dns_types, "TYPE", type);
}


u_char *
ngx_tun_dns_rcode_text(u_char *text, ngx_uint_t rcode)
{
    return ngx_tun_dns_text(text, ngx_tun_dns_rcodes, "RCODE", rcode);
}


static u_char *
ngx_tun_dns_text(u_char *text, const ngx_tun_dns_text_t *table,
    const char *other, ngx_uint_t value)
{
    u_char  *p, digits[5];

    for ( /* void */ ; table->text != NULL; table++) {

        if (table->value == value) {
            return ngx_cpymem(text, table->text, ngx_strlen(table->text));
        }
    }

    p = digits + sizeof(digits);

    do {
        *--p = (u_char) ('0' + value % 10);
        value = (value % 100000) / 10;
    } while (value && p > digits);

    text = ngx_cpymem(text, other, ngx_strlen(other));

    return ngx_cpymem(text, p, digits + sizeof(digits) - p);
}
