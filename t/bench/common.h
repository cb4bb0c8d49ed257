
/*
 * Copyright (C) the nginx-tun authors
 */


/*
 * What the programs of the benchmark that send datagrams have in common.  Each
 * function ends the program when it fails, and says why.
 */


#ifndef _BENCH_COMMON_H_INCLUDED_
#define _BENCH_COMMON_H_INCLUDED_


#include <netinet/in.h>


/* of IPv4; what is no address is a wrong argument */

struct sockaddr_in bench_address(const char *host, const char *port);

/*
 * A socket of datagrams, whose reads end after ms milliseconds (0: never), and
 * which is connected if there is an address.
 */

int bench_socket(struct sockaddr_in *sin, int ms);

/* bound instead, with a buffer in which nothing gets lost */

int bench_server(struct sockaddr_in *sin);
void bench_buffer(int s);

/* monotonic, in seconds */

double bench_now(void);

void bench_fail(const char *what) __attribute__((noreturn));


#endif /* _BENCH_COMMON_H_INCLUDED_ */
