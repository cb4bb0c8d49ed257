
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_LWIPOPTS_H_INCLUDED_
#define _NGX_TUN_LWIPOPTS_H_INCLUDED_


/* no threads, no timers of its own: ngx_tun_lwip_tick() drives both */

#define NO_SYS                          1
#define SYS_LIGHTWEIGHT_PROT            0
#define LWIP_TIMERS                     0
#define LWIP_SOCKET                     0
#define LWIP_NETCONN                    0
#define LWIP_NETIF_API                  0
#define LWIP_STATS                      0

#define MEM_ALIGNMENT                   8
#define MEM_LIBC_MALLOC                 1
#define MEMP_MEM_MALLOC                 1
#define MEMP_OVERFLOW_CHECK             0

/* only TCP enters lwIP, over both families */

#define LWIP_IPV4                       1
#define LWIP_IPV6                       1
#define LWIP_IPV6_SCOPES                0
#define LWIP_IPV6_MLD                   0
#define LWIP_IPV6_AUTOCONFIG            0
#define LWIP_IPV6_FRAG                  0
#define LWIP_IPV6_REASS                 0
#define LWIP_IPV6_SEND_ROUTER_SOLICIT   0
#define LWIP_IPV6_DUP_DETECT_ATTEMPTS   0
#define LWIP_ND6_QUEUEING               0
#define LWIP_ND6_TCP_REACHABILITY_HINTS 0
#define LWIP_ND6_ALLOW_RA_UPDATES       0
#define IP_REASSEMBLY                   0
#define IP_FRAG                         0
#define IP_FORWARD                      0
#define LWIP_ARP                        0
#define LWIP_ETHERNET                   0
#define LWIP_DHCP                       0
#define LWIP_ACD                        0
#define LWIP_DHCP_DOES_ACD_CHECK        0
#define LWIP_AUTOIP                     0
#define LWIP_IGMP                       0
#define LWIP_DNS                        0
#define LWIP_RAW                        0
#define LWIP_UDP                        0
#define LWIP_TCP                        1

/* not used, but IPv6 does not link without them */

#define LWIP_ICMP                       1
#define LWIP_ICMP6                      1

/* one netif per device; the hint leads an output packet to its pcb */

#define LWIP_SINGLE_NETIF               0
#define LWIP_HAVE_LOOPIF                0
#define LWIP_NETIF_LOOPBACK             0
#define LWIP_NETIF_HWADDRHINT           1

#define LWIP_CALLBACK_API               1
#define LWIP_TCP_PCB_NUM_EXT_ARGS       1
#define TCP_LISTEN_BACKLOG              0

/*
 * A segment is as large as an IPv6 packet can be, the device cuts it: the
 * MSS that peers see comes from the MTU.
 */

#ifndef TCP_MSS
#define TCP_MSS                         65475
#endif

#define TCP_CALCULATE_EFF_SEND_MSS      1
#define LWIP_DISABLE_TCP_SANITY_CHECKS  1

/* the ceilings; what a flow really gets is ngx_tun_lwip.c's decision */

#ifndef TCP_WND
#define LWIP_WND_SCALE                  1
#define TCP_RCV_SCALE                   7
#define TCP_WND                         (4 * 1024 * 1024)
#define TCP_SND_BUF                     (16 * 1024 * 1024)
#define TCP_SND_QUEUELEN                32768
#endif

#define TCP_SNDLOWAT                    65536
#define TCP_SNDQUEUELOWAT               16384

/* window updates are sent with the ACKs of a batch, by ngx_tun_lwip_flush() */

#define TCP_WND_UPDATE_THRESHOLD        (1024 * 1024 * 1024)

#define TCP_OVERSIZE                    0
#define TCP_QUEUE_OOSEQ                 1
#define TCP_OOSEQ_MAX_PBUFS             256
#define LWIP_TCP_SACK_OUT               1
#define LWIP_TCP_TIMESTAMPS             0
#define LWIP_TCP_KEEPALIVE              0

#ifndef TCP_TMR_INTERVAL
#define TCP_TMR_INTERVAL                50
#endif

#define TCP_MSL                         5000
#define LWIP_TCP_RTO_TIME               1000

#define PBUF_POOL_SIZE                  0
#define PBUF_POOL_BUFSIZE               256
#define PBUF_LINK_HLEN                  0
#define PBUF_LINK_ENCAPSULATION_HLEN    16
#define LWIP_SUPPORT_CUSTOM_PBUF        1

/* ngx_tun_packet.c and the kernel make and check the checksums */

#define LWIP_CHECKSUM_CTRL_PER_NETIF    0
#define LWIP_CHECKSUM_ON_COPY           0
#define CHECKSUM_GEN_IP                 0
#define CHECKSUM_GEN_TCP                0
#define CHECKSUM_GEN_UDP                0
#define CHECKSUM_GEN_ICMP               0
#define CHECKSUM_GEN_ICMP6              0
#define CHECKSUM_CHECK_IP               0
#define CHECKSUM_CHECK_TCP              0
#define CHECKSUM_CHECK_UDP              0
#define CHECKSUM_CHECK_ICMP             0
#define CHECKSUM_CHECK_ICMP6            0

#define LWIP_HOOK_FILENAME              "ngx_tun_lwip_hooks.h"
#define LWIP_HOOK_TCP_ISN               ngx_tun_lwip_isn


#endif /* _NGX_TUN_LWIPOPTS_H_INCLUDED_ */
