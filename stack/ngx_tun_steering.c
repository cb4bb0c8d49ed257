
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_steering.h>

#include <sys/syscall.h>
#include <linux/bpf.h>
#include <linux/if_tun.h>


int
ngx_tun_steering_open(void)
{
    union bpf_attr   attr;
    struct bpf_insn  insns[2];

    ngx_memzero(insns, sizeof(insns));

    insns[0].code = BPF_ALU64|BPF_MOV|BPF_K;    /* r0 = 0 */
    insns[1].code = BPF_JMP|BPF_EXIT;

    ngx_memzero(&attr, sizeof(union bpf_attr));

    attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
    attr.insns = (uintptr_t) insns;
    attr.insn_cnt = 2;
    attr.license = (uintptr_t) "BSD";

    return (int) syscall(SYS_bpf, BPF_PROG_LOAD, &attr,
                         sizeof(union bpf_attr));
}


ngx_int_t
ngx_tun_steering_set(ngx_socket_t fd, int program)
{
    return (ioctl(fd, TUNSETSTEERINGEBPF, &program) == 0) ? NGX_OK
                                                          : NGX_DECLINED;
}
