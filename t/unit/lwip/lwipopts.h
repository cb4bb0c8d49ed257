
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _LWIP_TEST_LWIPOPTS_H_INCLUDED_
#define _LWIP_TEST_LWIPOPTS_H_INCLUDED_


/*
 * The options of the module, but for the numbers that lwIP's tests are
 * written for, and with pools and statistics, by which they find leaks.
 */


#define TCP_MSS                  536
#define LWIP_WND_SCALE           1
#define TCP_RCV_SCALE            0
#define TCP_WND                  (10 * TCP_MSS)
#define TCP_SND_BUF              (12 * TCP_MSS)
#define TCP_SND_QUEUELEN         40
#define TCP_TMR_INTERVAL         250


#include "../../../stack/lwip_port/lwipopts.h"


#undef MEM_LIBC_MALLOC
#define MEM_LIBC_MALLOC          0
#undef MEMP_MEM_MALLOC
#define MEMP_MEM_MALLOC          0
#define MEM_SIZE                 8000000
#define MEMP_NUM_TCP_SEG         8192
#define MEMP_NUM_PBUF            8192

#undef PBUF_POOL_SIZE
#define PBUF_POOL_SIZE           400
#undef PBUF_POOL_BUFSIZE
#define PBUF_POOL_BUFSIZE        600
#undef PBUF_LINK_HLEN
#undef PBUF_LINK_ENCAPSULATION_HLEN

#undef TCP_SNDLOWAT
#undef TCP_SNDQUEUELOWAT
#undef TCP_WND_UPDATE_THRESHOLD
#undef TCP_OOSEQ_MAX_PBUFS
#undef TCP_MSL
#undef LWIP_TCP_RTO_TIME

#undef LWIP_STATS
#define LWIP_STATS               1
#define TCP_STATS                1
#define MEM_STATS                1
#define MEMP_STATS               1

#define LWIP_TESTMODE            1

#undef LWIP_TIMERS
#define LWIP_TIMERS              1

/* check reads lwip_stats.mem.illegal */
#define LWIP_MEM_ILLEGAL_FREE(msg)

#undef LWIP_HOOK_FILENAME
#undef LWIP_HOOK_TCP_ISN


#endif /* _LWIP_TEST_LWIPOPTS_H_INCLUDED_ */
