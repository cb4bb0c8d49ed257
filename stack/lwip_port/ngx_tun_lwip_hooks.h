
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_LWIP_HOOKS_H_INCLUDED_
#define _NGX_TUN_LWIP_HOOKS_H_INCLUDED_


#include "lwip/arch.h"
#include "lwip/ip_addr.h"


u32_t ngx_tun_lwip_isn(const ip_addr_t *local_ip, u16_t local_port,
    const ip_addr_t *remote_ip, u16_t remote_port);


#endif /* _NGX_TUN_LWIP_HOOKS_H_INCLUDED_ */
