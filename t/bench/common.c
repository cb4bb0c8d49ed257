
/*
 * Copyright (C) the nginx-tun authors
 */


#define _GNU_SOURCE

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "common.h"


#define BENCH_BUFFER  (4 * 1024 * 1024)


struct sockaddr_in
bench_address(const char *host, const char *port)
{
    struct sockaddr_in  sin;

    memset(&sin, 0, sizeof(sin));

    sin.sin_family = AF_INET;
    sin.sin_port = htons((uint16_t) atoi(port));

    if (inet_pton(AF_INET, host, &sin.sin_addr) != 1) {
        fprintf(stderr, "\"%s\" is not an address\n", host);
        exit(2);
    }

    return sin;
}


int
bench_socket(struct sockaddr_in *sin, int ms)
{
    int             s;
    struct timeval  tv;

    tv.tv_sec = ms / 1000;
    tv.tv_usec = ms % 1000 * 1000;

    s = socket(AF_INET, SOCK_DGRAM, 0);

    if (s == -1
        || setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == -1
        || (sin != NULL
            && connect(s, (struct sockaddr *) sin, sizeof(*sin)) == -1))
    {
        bench_fail("socket");
    }

    return s;
}


int
bench_server(struct sockaddr_in *sin)
{
    int  s;

    s = bench_socket(NULL, 0);
    bench_buffer(s);

    if (bind(s, (struct sockaddr *) sin, sizeof(*sin)) == -1) {
        bench_fail("bind");
    }

    return s;
}


void
bench_buffer(int s)
{
    int  size;

    size = BENCH_BUFFER;

    if (setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) == -1) {
        (void) setsockopt(s, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    }
}


double
bench_now(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec + ts.tv_nsec / 1e9;
}


void
bench_fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}
