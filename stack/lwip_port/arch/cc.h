
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_LWIP_CC_H_INCLUDED_
#define _NGX_TUN_LWIP_CC_H_INCLUDED_


#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <endian.h>


#define LWIP_ERRNO_INCLUDE  <errno.h>

#ifndef BYTE_ORDER
#define BYTE_ORDER          __BYTE_ORDER
#endif

#if (__BYTE_ORDER == __LITTLE_ENDIAN)
#define LWIP_DONT_PROVIDE_BYTEORDER_FUNCTIONS  1
#define lwip_htons(x)       __builtin_bswap16(x)
#define lwip_htonl(x)       __builtin_bswap32(x)
#endif

#define LWIP_RAND()         ((u32_t) random())

#define LWIP_PLATFORM_DIAG(x)

/* a peer can trip an assert of lwIP: it is counted and never stops a worker */

void ngx_tun_lwip_assert(const char *message, const char *file, int line);

#define LWIP_PLATFORM_ASSERT(x)  ngx_tun_lwip_assert(x, __FILE__, __LINE__)

#if !(NGX_TUN_LWIP_ASSERT) && !defined LWIP_NOASSERT
#define LWIP_NOASSERT
#endif

#define LWIP_ERROR(message, expression, handler)                              \
    do {                                                                      \
        if (!(expression)) {                                                  \
            LWIP_PLATFORM_ASSERT(message);                                    \
            handler;                                                          \
        }                                                                     \
    } while (0)


#endif /* _NGX_TUN_LWIP_CC_H_INCLUDED_ */
