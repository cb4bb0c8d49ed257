
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_PACKET_BYTES_H_INCLUDED_
#define _NGX_TUN_PACKET_BYTES_H_INCLUDED_


/* numbers in network order, at any address */

#define ngx_tun_packet_get16(p)                                               \
    ((uint16_t) ((p)[0] << 8 | (p)[1]))

#define ngx_tun_packet_get32(p)                                               \
    ((uint32_t) (p)[0] << 24 | (uint32_t) (p)[1] << 16                        \
     | (uint32_t) (p)[2] << 8 | (p)[3])

#define ngx_tun_packet_put16(p, v)                                            \
    (p)[0] = (u_char) ((v) >> 8);                                             \
    (p)[1] = (u_char) (v)

#define ngx_tun_packet_put32(p, v)                                            \
    (p)[0] = (u_char) ((v) >> 24);                                            \
    (p)[1] = (u_char) ((v) >> 16);                                            \
    (p)[2] = (u_char) ((v) >> 8);                                             \
    (p)[3] = (u_char) (v)


/* of an IP header without options or extension headers */

#define ngx_tun_packet_ip_len(addr_len)  ((addr_len) == 4 ? 20 : 40)


#endif /* _NGX_TUN_PACKET_BYTES_H_INCLUDED_ */
