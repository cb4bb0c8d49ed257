
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_dns_wire.h>


/* RFC 9460, 14.3.2 */

#define NGX_TUN_DNS_SVCB_MANDATORY  0
#define NGX_TUN_DNS_SVCB_IPV4HINT   4
#define NGX_TUN_DNS_SVCB_IPV6HINT   6

#define ngx_tun_dns_svcb_hint(key)                                            \
    ((key) == NGX_TUN_DNS_SVCB_IPV4HINT || (key) == NGX_TUN_DNS_SVCB_IPV6HINT)


static u_char *ngx_tun_dns_strip_mandatory(u_char *dst, u_char *p, size_t len);


/* what it makes is never longer than what it is made of */

u_char *
ngx_tun_dns_strip_svcb(u_char *dst, u_char *p, size_t size)
{
    size_t      len;
    u_char     *end;
    ngx_int_t   key, last;

    end = p + size;

    /* an alias, or another name than the one that was asked for */

    if (size < 3 || ngx_tun_dns_get16(p) == 0 || p[2] != 0) {
        return NULL;
    }

    dst = ngx_cpymem(dst, p, 3);
    p += 3;

    for (last = -1; p < end; last = key) {

        if (end - p < 4) {
            return NULL;
        }

        key = ngx_tun_dns_get16(p);
        len = ngx_tun_dns_get16(p + 2);

        if (key <= last || (size_t) (end - p - 4) < len) {
            return NULL;
        }

        p += 4;

        if (key == NGX_TUN_DNS_SVCB_MANDATORY) {
            dst = ngx_tun_dns_strip_mandatory(dst, p, len);

            if (dst == NULL) {
                return NULL;
            }

        } else if (!ngx_tun_dns_svcb_hint(key)) {
            dst = ngx_cpymem(dst, p - 4, 4 + len);
        }

        p += len;
    }

    return dst;
}


/* without the keys that are gone; an empty one would be malformed */

static u_char *
ngx_tun_dns_strip_mandatory(u_char *dst, u_char *p, size_t len)
{
    u_char      *start, *end;
    ngx_int_t    key, last;

    if (len == 0 || len % 2) {
        return NULL;
    }

    start = dst;
    dst += 4;

    end = p + len;

    for (last = 0; p < end; last = key, p += 2) {
        key = ngx_tun_dns_get16(p);

        if (key <= last) {
            return NULL;
        }

        if (!ngx_tun_dns_svcb_hint(key)) {
            dst = ngx_tun_dns_put16(dst, key);
        }
    }

    if (dst == start + 4) {
        return start;
    }

    (void) ngx_tun_dns_put16(start, NGX_TUN_DNS_SVCB_MANDATORY);
    (void) ngx_tun_dns_put16(start + 2, dst - start - 4);

    return dst;
}
