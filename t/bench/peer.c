
/*
 * Copyright (C) the nginx-tun authors
 */


/*
 * The two ends of a benchmark of short exchanges.
 *
 *   peer serve port
 *   peer rate host port seconds processes    prints connections per second
 *   peer latency host port requests          prints the 50th and the 99th
 *                                            percentile in us
 *
 * What is sent comes back.  After a message that starts with 'c' the server
 * closes first, so that no port of a client stays in TIME-WAIT.
 */


#define _GNU_SOURCE

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>


#define PEER_REQUEST    100
#define PEER_WARM_UP    200
#define PEER_PROCESSES  64
#define PEER_TIMEOUT    5         /* seconds, of every call */


static void peer_serve(const char *port);
static void peer_accept(int ep, int ls);
static void peer_answer(int s);
static void peer_rate(const char *host, const char *port, double seconds,
    int processes);
static unsigned peer_connections(struct sockaddr_in *sin, double seconds);
static void peer_latency(const char *host, const char *port, unsigned n);
static int peer_exchange(int s, char *buf, size_t size);
static int peer_compare(const void *one, const void *two);

static struct sockaddr_in peer_address(const char *host, const char *port);
static int peer_connect(struct sockaddr_in *sin);
static double peer_now(void);
static void peer_fail(const char *what) __attribute__((noreturn));


int
main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "serve") == 0) {
        peer_serve(argv[2]);

    } else if (argc == 6 && strcmp(argv[1], "rate") == 0) {
        peer_rate(argv[2], argv[3], atof(argv[4]), atoi(argv[5]));

    } else if (argc == 5 && strcmp(argv[1], "latency") == 0) {
        peer_latency(argv[2], argv[3], (unsigned) atoi(argv[4]));

    } else {
        fprintf(stderr, "usage: peer serve port\n"
                        "       peer rate host port seconds processes\n"
                        "       peer latency host port requests\n");
        return 2;
    }

    return 0;
}


static void
peer_serve(const char *port)
{
    int                  i, n, ep, ls, on;
    struct rlimit        rlimit;
    struct sockaddr_in   sin;
    struct epoll_event   ev, events[64];

    rlimit.rlim_cur = 20000;
    rlimit.rlim_max = 20000;
    (void) setrlimit(RLIMIT_NOFILE, &rlimit);

    sin = peer_address("0.0.0.0", port);
    on = 1;

    ls = socket(AF_INET, SOCK_STREAM|SOCK_NONBLOCK, 0);

    if (ls == -1
        || setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(int)) == -1
        || bind(ls, (struct sockaddr *) &sin, sizeof(sin)) == -1
        || listen(ls, 4096) == -1)
    {
        peer_fail("listen");
    }

    ep = epoll_create1(0);

    ev.events = EPOLLIN;
    ev.data.fd = ls;

    if (ep == -1 || epoll_ctl(ep, EPOLL_CTL_ADD, ls, &ev) == -1) {
        peer_fail("epoll");
    }

    for ( ;; ) {
        n = epoll_wait(ep, events, 64, -1);

        for (i = 0; i < n; i++) {
            if (events[i].data.fd == ls) {
                peer_accept(ep, ls);

            } else {
                peer_answer(events[i].data.fd);
            }
        }
    }
}


static void
peer_accept(int ep, int ls)
{
    int                 s, on;
    struct epoll_event  ev;

    on = 1;

    while ((s = accept4(ls, NULL, NULL, SOCK_NONBLOCK)) != -1) {
        (void) setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(int));

        ev.events = EPOLLIN;
        ev.data.fd = s;
        (void) epoll_ctl(ep, EPOLL_CTL_ADD, s, &ev);
    }
}


static void
peer_answer(int s)
{
    char     buf[4096];
    ssize_t  n;

    n = read(s, buf, sizeof(buf));

    if (n == -1 && errno == EAGAIN) {
        return;
    }

    if (n <= 0 || write(s, buf, n) != n || buf[0] == 'c') {
        (void) close(s);
    }
}


static void
peer_rate(const char *host, const char *port, double seconds, int processes)
{
    int                 i, fd[2];
    double              start;
    unsigned            n, total;
    struct sockaddr_in  sin;

    if (processes < 1 || processes > PEER_PROCESSES || pipe(fd) == -1) {
        peer_fail("rate");
    }

    sin = peer_address(host, port);
    start = peer_now();

    for (i = 0; i < processes; i++) {

        switch (fork()) {

        case -1:
            peer_fail("fork");

        case 0:
            n = peer_connections(&sin, seconds);
            _exit(write(fd[1], &n, sizeof(n)) == sizeof(n) ? 0 : 1);
        }
    }

    (void) close(fd[1]);

    total = 0;

    while (read(fd[0], &n, sizeof(n)) == sizeof(n)) {
        total += n;
        processes--;
    }

    while (wait(&i) != -1) {
        processes += (i != 0);
    }

    if (processes != 0) {
        fprintf(stderr, "peer: a process failed\n");
        exit(1);
    }

    printf("%.1f\n", total / (peer_now() - start));
}


static unsigned
peer_connections(struct sockaddr_in *sin, double seconds)
{
    int       s;
    char      c;
    double    end;
    unsigned  n;

    end = peer_now() + seconds;

    for (n = 0; peer_now() < end; n++) {
        s = peer_connect(sin);
        c = 'c';

        if (peer_exchange(s, &c, 1) != 0 || read(s, &c, 1) != 0) {
            peer_fail("a connection");
        }

        (void) close(s);
    }

    return n;
}


static void
peer_latency(const char *host, const char *port, unsigned n)
{
    int                 s;
    char                buf[PEER_REQUEST];
    double             *us, start;
    unsigned            i;
    struct sockaddr_in  sin;

    us = calloc(n + 1, sizeof(double));
    if (us == NULL) {
        peer_fail("calloc");
    }

    sin = peer_address(host, port);
    s = peer_connect(&sin);

    memset(buf, 'k', PEER_REQUEST);

    for (i = 0; i < PEER_WARM_UP; i++) {
        if (peer_exchange(s, buf, PEER_REQUEST) != 0) {
            peer_fail("a request");
        }
    }

    for (i = 0; i < n; i++) {
        start = peer_now();

        if (peer_exchange(s, buf, PEER_REQUEST) != 0) {
            peer_fail("a request");
        }

        us[i] = (peer_now() - start) * 1e6;
    }

    (void) close(s);

    qsort(us, n, sizeof(double), peer_compare);

    printf("%.1f %.1f\n", us[n / 2], us[n * 99ul / 100]);
}


static int
peer_exchange(int s, char *buf, size_t size)
{
    size_t   len;
    ssize_t  n;

    if (write(s, buf, size) != (ssize_t) size) {
        return -1;
    }

    for (len = 0; len < size; len += n) {
        n = read(s, buf + len, size - len);

        if (n <= 0) {
            return -1;
        }
    }

    return 0;
}


static int
peer_compare(const void *one, const void *two)
{
    double  a, b;

    a = *(const double *) one;
    b = *(const double *) two;

    return (a > b) - (a < b);
}


static struct sockaddr_in
peer_address(const char *host, const char *port)
{
    struct sockaddr_in  sin;

    memset(&sin, 0, sizeof(sin));

    sin.sin_family = AF_INET;
    sin.sin_port = htons((uint16_t) atoi(port));

    if (inet_pton(AF_INET, host, &sin.sin_addr) != 1) {
        fprintf(stderr, "peer: \"%s\" is not an address\n", host);
        exit(2);
    }

    return sin;
}


static int
peer_connect(struct sockaddr_in *sin)
{
    int             s, on;
    struct timeval  tv;

    on = 1;
    tv.tv_sec = PEER_TIMEOUT;
    tv.tv_usec = 0;

    s = socket(AF_INET, SOCK_STREAM, 0);

    if (s == -1
        || setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == -1
        || setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) == -1
        || setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(int)) == -1
        || connect(s, (struct sockaddr *) sin, sizeof(*sin)) == -1)
    {
        peer_fail("connect");
    }

    return s;
}


static double
peer_now(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec + ts.tv_nsec / 1e9;
}


static void
peer_fail(const char *what)
{
    fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
    exit(1);
}
