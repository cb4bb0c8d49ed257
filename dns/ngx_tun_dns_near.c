
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ifaddrs.h>

#include <ngx_tun_dns.h>


/* seconds until the interfaces are looked at again */

#define NGX_TUN_DNS_NEAR_AGE  5


static void ngx_tun_dns_read_near(ngx_tun_dns_near_t *near);
static ngx_uint_t ngx_tun_dns_mask_bits(u_char *mask, size_t len);


/* those of loopback first */

static const ngx_tun_dns_prefix_t  ngx_tun_dns_private[] = {
    { { 127 }, 4, 8 },
    { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 }, 16, 128 },
    { { 10 }, 4, 8 },
    { { 172, 16 }, 4, 12 },
    { { 192, 168 }, 4, 16 },
    { { 169, 254 }, 4, 16 },
    { { 0xfc }, 16, 7 },
    { { 0xfe, 0x80 }, 16, 10 }
};


ngx_uint_t
ngx_tun_dns_is_near(ngx_tun_dns_near_t *near, u_char *addr, size_t addr_len,
    time_t now)
{
    if (ngx_tun_dns_match(ngx_tun_dns_private,
                          sizeof(ngx_tun_dns_private)
                          / sizeof(ngx_tun_dns_prefix_t), addr, addr_len)
        || ngx_tun_dns_match(near->prefixes, near->n, addr, addr_len))
    {
        return 1;
    }

    if (near->known && now - near->read < NGX_TUN_DNS_NEAR_AGE) {
        return 0;
    }

    ngx_tun_dns_read_near(near);
    near->known = 1;
    near->read = now;

    return ngx_tun_dns_match(near->prefixes, near->n, addr, addr_len);
}


ngx_uint_t
ngx_tun_dns_is_loopback(u_char *addr, size_t addr_len)
{
    return ngx_tun_dns_match(ngx_tun_dns_private, 2, addr, addr_len);
}


ngx_uint_t
ngx_tun_dns_match(const ngx_tun_dns_prefix_t *prefix, ngx_uint_t n,
    u_char *addr, size_t addr_len)
{
    size_t      bytes;
    ngx_uint_t  bits;

    for ( /* void */ ; n; n--, prefix++) {

        if (prefix->addr_len != addr_len) {
            continue;
        }

        bytes = prefix->bits / 8;
        bits = prefix->bits % 8;

        if (ngx_memcmp(prefix->addr, addr, bytes) != 0) {
            continue;
        }

        if (bits == 0
            || ((prefix->addr[bytes] ^ addr[bytes]) & (0xff00 >> bits) & 0xff)
               == 0)
        {
            return 1;
        }
    }

    return 0;
}


static void
ngx_tun_dns_read_near(ngx_tun_dns_near_t *near)
{
    u_char                *addr, *mask;
    size_t                 len;
    struct ifaddrs        *list, *ifa;
    ngx_tun_dns_prefix_t  *prefix;

    near->n = 0;

    if (getifaddrs(&list) == -1) {
        return;
    }

    for (ifa = list; ifa != NULL; ifa = ifa->ifa_next) {

        if (ifa->ifa_addr == NULL || ifa->ifa_netmask == NULL
            || near->n == NGX_TUN_DNS_PREFIXES)
        {
            continue;
        }

        addr = ngx_tun_dns_address(ifa->ifa_addr, &len);

        if (addr == NULL) {
            continue;
        }

        mask = (len == 4)
               ? (u_char *) &((struct sockaddr_in *) ifa->ifa_netmask)
                                ->sin_addr
               : (u_char *) &((struct sockaddr_in6 *) ifa->ifa_netmask)
                                ->sin6_addr;

        prefix = &near->prefixes[near->n];

        ngx_memcpy(prefix->addr, addr, len);
        prefix->addr_len = len;
        prefix->bits = ngx_tun_dns_mask_bits(mask, len);

        /* a network of one address, or of all */

        if (prefix->bits != 0) {
            near->n++;
        }
    }

    freeifaddrs(list);
}


static ngx_uint_t
ngx_tun_dns_mask_bits(u_char *mask, size_t len)
{
    ngx_uint_t  bits;

    for (bits = 0; bits < len * 8; bits++) {

        if (!(mask[bits / 8] & (0x80 >> (bits % 8)))) {
            break;
        }
    }

    return bits;
}


u_char *
ngx_tun_dns_address(struct sockaddr *sa, size_t *addr_len)
{
    struct sockaddr_in   *sin;
#if (NGX_HAVE_INET6)
    struct sockaddr_in6  *sin6;
#endif

    switch (sa->sa_family) {

    case AF_INET:
        sin = (struct sockaddr_in *) sa;
        *addr_len = 4;
        return (u_char *) &sin->sin_addr;

#if (NGX_HAVE_INET6)
    case AF_INET6:
        sin6 = (struct sockaddr_in6 *) sa;

        if (IN6_IS_ADDR_V4MAPPED(&sin6->sin6_addr)) {
            *addr_len = 4;
            return sin6->sin6_addr.s6_addr + 12;
        }

        *addr_len = 16;
        return sin6->sin6_addr.s6_addr;
#endif

    default:
        return NULL;
    }
}
