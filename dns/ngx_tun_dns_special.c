
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_dns_wire.h>


typedef struct {
    const char               *name;
    size_t                    len;
    ngx_uint_t                below;      /* names below it, too */
    ngx_uint_t                group;
    ngx_tun_dns_special_e     kind;
} ngx_tun_dns_special_name_t;


/* prefixes of which a resolver of the network may know names */

typedef struct {
    size_t                    addr_len;
    ngx_uint_t                bits;
    u_char                    addr[2];
} ngx_tun_dns_private_t;


#define ngx_tun_dns_special_name(name, below, group, kind)                    \
    { name, sizeof(name), below, NGX_TUN_DNS_SPECIAL_##group,                 \
      NGX_TUN_DNS_##kind }


static void ngx_tun_dns_special_addresses(ngx_tun_dns_special_t *special,
    ngx_tun_dns_query_t *query, ngx_uint_t nat64);
static ngx_uint_t ngx_tun_dns_private(u_char *addr, size_t addr_len,
    ngx_uint_t bits);


static const ngx_tun_dns_special_name_t  ngx_tun_dns_special_names[] = {

    /* RFC 6761 */
    ngx_tun_dns_special_name("\11localhost", 1, LOCALHOST, ADDRESS),
    ngx_tun_dns_special_name("\7invalid", 1, RESERVED, NOT_FOUND),
    ngx_tun_dns_special_name("\4test", 1, RESERVED, NOT_FOUND),

    /* RFC 7686, RFC 9476, RFC 6762: not for the DNS */
    ngx_tun_dns_special_name("\5onion", 1, RESERVED, NOT_FOUND),
    ngx_tun_dns_special_name("\3alt", 1, RESERVED, NOT_FOUND),
    ngx_tun_dns_special_name("\5local", 1, LOCAL, NOT_FOUND),

    /* RFC 8375, and what is common: the names of a network */
    ngx_tun_dns_special_name("\4home\4arpa", 1, HOME, FORWARD),
    ngx_tun_dns_special_name("\3lan", 1, HOME, FORWARD),

    /* RFC 8880: no NAT64 is to be found by a faked address */
    ngx_tun_dns_special_name("\10ipv4only\4arpa", 0, NAT64, ADDRESS),

    /* RFC 9462: clients are not led to another server, nor around it */
    ngx_tun_dns_special_name("\10resolver\4arpa", 1, DOH, NODATA),
    ngx_tun_dns_special_name("\23use-application-dns\3net", 1, DOH, NOT_FOUND),
    ngx_tun_dns_special_name("\4mask\6icloud\3com", 0, DOH, NOT_FOUND),
    ngx_tun_dns_special_name("\7mask-h2\6icloud\3com", 0, DOH, NOT_FOUND),

    { NULL, 0, 0, 0, NGX_TUN_DNS_ORDINARY }
};


static const ngx_tun_dns_private_t  ngx_tun_dns_privates[] = {
    { 4, 8, { 10 } },
    { 4, 8, { 127 } },
    { 4, 12, { 172, 16 } },
    { 4, 16, { 192, 168 } },
    { 4, 16, { 169, 254 } },
    { 16, 7, { 0xfc } },
    { 16, 10, { 0xfe, 0x80 } },
    { 0, 0, { 0 } }
};


ngx_uint_t
ngx_tun_dns_signing(ngx_uint_t type)
{
    switch (type) {

    case NGX_TUN_DNS_TYPE_DS:
    case NGX_TUN_DNS_TYPE_RRSIG:
    case NGX_TUN_DNS_TYPE_NSEC:
    case NGX_TUN_DNS_TYPE_DNSKEY:
    case NGX_TUN_DNS_TYPE_NSEC3:
    case NGX_TUN_DNS_TYPE_NSEC3PARAM:
    case NGX_TUN_DNS_TYPE_CDS:
    case NGX_TUN_DNS_TYPE_CDNSKEY:
        return 1;

    default:
        return 0;
    }
}


void
ngx_tun_dns_special(ngx_tun_dns_special_t *special,
    ngx_tun_dns_query_t *query, ngx_uint_t groups)
{
    u_char                             addr[16];
    size_t                             addr_len;
    ngx_uint_t                         bits;
    const ngx_tun_dns_special_name_t  *sn;

    special->kind = NGX_TUN_DNS_ORDINARY;
    special->naddrs = 0;

    for (sn = ngx_tun_dns_special_names; sn->name != NULL; sn++) {

        if ((sn->group & groups)
            && (sn->below || sn->len == query->len)
            && ngx_tun_dns_below(query->name, query->len,
                                 (const u_char *) sn->name, sn->len))
        {
            special->kind = sn->kind;

            if (sn->kind == NGX_TUN_DNS_ADDRESS) {
                ngx_tun_dns_special_addresses(special, query, !sn->below);
            }

            return;
        }
    }

    if (ngx_tun_dns_reverse(query->name, query->len, addr, &addr_len, &bits)
        == NGX_OK)
    {
        special->kind = ngx_tun_dns_private(addr, addr_len, bits)
                        ? NGX_TUN_DNS_REVERSE : NGX_TUN_DNS_FORWARD;
        return;
    }

    /* the names of machines here, the root, and what no proxy can be told */

    if (query->odd || query->labels == 0
        || (query->labels == 1 && (groups & NGX_TUN_DNS_SPECIAL_HOME)))
    {
        special->kind = NGX_TUN_DNS_FORWARD;
    }
}


static void
ngx_tun_dns_special_addresses(ngx_tun_dns_special_t *special,
    ngx_tun_dns_query_t *query, ngx_uint_t nat64)
{
    static const u_char  loopback[4] = { 127, 0, 0, 1 };
    static const u_char  ipv4only[2][4] = { { 192, 0, 0, 170 },
                                            { 192, 0, 0, 171 } };

    if (nat64) {

        if (query->type == NGX_TUN_DNS_TYPE_A) {
            special->naddrs = 2;
            special->addr_len = 4;
            ngx_memcpy(special->addrs[0], ipv4only[0], 4);
            ngx_memcpy(special->addrs[1], ipv4only[1], 4);
        }

        return;
    }

    if (query->type == NGX_TUN_DNS_TYPE_A) {
        special->naddrs = 1;
        special->addr_len = 4;
        ngx_memcpy(special->addrs[0], loopback, 4);

    } else if (query->type == NGX_TUN_DNS_TYPE_AAAA) {
        special->naddrs = 1;
        special->addr_len = 16;
        ngx_memzero(special->addrs[0], 15);
        special->addrs[0][15] = 1;
    }
}


static ngx_uint_t
ngx_tun_dns_private(u_char *addr, size_t addr_len, ngx_uint_t bits)
{
    u_char                        mask;
    ngx_uint_t                    i, n;
    const ngx_tun_dns_private_t  *dp;

    for (dp = ngx_tun_dns_privates; dp->addr_len; dp++) {

        if (dp->addr_len != addr_len || bits < dp->bits) {
            continue;
        }

        for (i = 0; i < 2; i++) {
            n = (dp->bits > i * 8) ? ngx_min(dp->bits - i * 8, 8) : 0;
            mask = (u_char) (0xff00 >> n);

            if ((addr[i] ^ dp->addr[i]) & mask) {
                break;
            }
        }

        if (i == 2) {
            return 1;
        }
    }

    return 0;
}
