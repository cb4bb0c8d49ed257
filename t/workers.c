
/*
 * Copyright (C) the nginx-tun authors
 */


/*
 * The two ends of new connections, for t/workers.t.
 *
 *   workers serve port
 *   workers rate port seconds window address ...
 *
 * A client sends a byte, which comes back, and then the server closes, so that
 * no port of a client stays in TIME-WAIT.  To each address there are as many
 * connections at once as the window says: workers that have spent their time
 * must not hold up others.  Prints a line for each address, how many a second
 * were right, and what became of the others.
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
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>


#define WORKERS_FILES      20000
#define WORKERS_ADDRESSES  16
#define WORKERS_EVENTS     64
#define WORKERS_WARM_UP    0.3       /* seconds that are not counted */


typedef struct {
    union {
        struct sockaddr       sa;
        struct sockaddr_in    in;
        struct sockaddr_in6   in6;
    } u;

    socklen_t                 socklen;
    const char               *text;
    unsigned                  right;
    unsigned                  wrong;
    int                       error;
} workers_address_t;


/* by descriptor */

typedef struct {
    workers_address_t        *address;
    int                       sent;
    int                       answered;
} workers_connection_t;


static void workers_serve(const char *port);
static void workers_accept(int ep, int ls);
static void workers_echo(int s);
static void workers_rate(workers_address_t *addrs, int n, double seconds,
    int window);
static void workers_connect(int ep, workers_address_t *addr);
static int workers_event(int s);
static void workers_close(int s);
static void workers_parse(workers_address_t *addr, const char *text,
    const char *port);
static int workers_epoll(void);
static void workers_add(int ep, int s, uint32_t events);
static double workers_now(void);
static void workers_fail(const char *what) __attribute__((noreturn));


static workers_connection_t  connections[WORKERS_FILES];


int
main(int argc, char **argv)
{
    int                 i;
    struct rlimit       rlimit;
    workers_address_t   addrs[WORKERS_ADDRESSES];

    rlimit.rlim_cur = WORKERS_FILES;
    rlimit.rlim_max = WORKERS_FILES;

    if (setrlimit(RLIMIT_NOFILE, &rlimit) == -1) {
        workers_fail("setrlimit");
    }

    if (argc == 3 && strcmp(argv[1], "serve") == 0) {
        workers_serve(argv[2]);

    } else if (argc > 5 && argc - 5 <= WORKERS_ADDRESSES
               && strcmp(argv[1], "rate") == 0)
    {
        for (i = 5; i < argc; i++) {
            workers_parse(&addrs[i - 5], argv[i], argv[2]);
        }

        workers_rate(addrs, argc - 5, atof(argv[3]), atoi(argv[4]));

    } else {
        fprintf(stderr, "usage: workers serve port\n"
                        "       workers rate port seconds window address"
                        " ...\n");
        return 2;
    }

    return 0;
}


static void
workers_serve(const char *port)
{
    int                  i, n, ep, ls, on;
    workers_address_t    addr;
    struct epoll_event   events[WORKERS_EVENTS];

    workers_parse(&addr, "::", port);
    on = 1;

    ls = socket(AF_INET6, SOCK_STREAM|SOCK_NONBLOCK, 0);

    if (ls == -1
        || setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(int)) == -1
        || bind(ls, &addr.u.sa, addr.socklen) == -1
        || listen(ls, 4096) == -1)
    {
        workers_fail("listen");
    }

    ep = workers_epoll();
    workers_add(ep, ls, EPOLLIN);

    for ( ;; ) {
        n = epoll_wait(ep, events, WORKERS_EVENTS, -1);

        for (i = 0; i < n; i++) {
            if (events[i].data.fd == ls) {
                workers_accept(ep, ls);

            } else {
                workers_echo(events[i].data.fd);
            }
        }
    }
}


static void
workers_accept(int ep, int ls)
{
    int  s;

    while ((s = accept4(ls, NULL, NULL, SOCK_NONBLOCK)) != -1) {
        workers_add(ep, s, EPOLLIN);
    }
}


static void
workers_echo(int s)
{
    char     c;
    ssize_t  n;

    n = read(s, &c, 1);

    if (n == 1) {
        n = write(s, &c, 1);

    } else if (n == -1 && errno == EAGAIN) {
        return;
    }

    (void) close(s);
}


static void
workers_rate(workers_address_t *addrs, int n, double seconds, int window)
{
    int                  i, k, ep, counted, timeout;
    double               start, now;
    workers_address_t   *addr;
    struct epoll_event   events[WORKERS_EVENTS];

    ep = workers_epoll();
    counted = 0;
    start = workers_now() + WORKERS_WARM_UP;

    for (i = 0; i < window * n; i++) {
        workers_connect(ep, &addrs[i % n]);
    }

    for ( ;; ) {
        now = workers_now();

        if (!counted && now >= start) {
            counted = 1;
            start = now;

            for (i = 0; i < n; i++) {
                addrs[i].right = 0;
            }
        }

        timeout = (int) ((start + (counted ? seconds : 0) - now) * 1000) + 1;

        if (timeout <= 0) {
            break;
        }

        k = epoll_wait(ep, events, WORKERS_EVENTS, timeout);

        for (i = 0; i < k; i++) {
            addr = connections[events[i].data.fd].address;

            if (workers_event(events[i].data.fd)) {
                workers_connect(ep, addr);
            }
        }
    }

    for (i = 0; i < n; i++) {
        printf("%s %.1f %u %s\n", addrs[i].text,
               addrs[i].right / (now - start), addrs[i].wrong,
               addrs[i].error ? strerror(addrs[i].error) : "-");
    }
}


static void
workers_connect(int ep, workers_address_t *addr)
{
    int                    s;
    workers_connection_t  *c;

    s = socket(addr->u.sa.sa_family, SOCK_STREAM|SOCK_NONBLOCK, 0);

    if (s == -1 || s >= WORKERS_FILES) {
        workers_fail("socket");
    }

    c = &connections[s];
    memset(c, 0, sizeof(workers_connection_t));
    c->address = addr;

    if (connect(s, &addr->u.sa, addr->socklen) == -1 && errno != EINPROGRESS) {
        workers_fail("connect");
    }

    workers_add(ep, s, EPOLLIN|EPOLLOUT|EPOLLET);
}


/* whether it has ended */

static int
workers_event(int s)
{
    char                   c;
    ssize_t                n;
    workers_connection_t  *conn;

    conn = &connections[s];

    if (!conn->sent) {
        n = send(s, "c", 1, MSG_NOSIGNAL);

        if (n == 1) {
            conn->sent = 1;

        } else if (errno != EAGAIN) {
            workers_close(s);
            return 1;
        }
    }

    while ((n = recv(s, &c, 1, 0)) == 1) {
        conn->answered += (c == 'c') ? 1 : 2;
    }

    if (n == -1 && errno == EAGAIN) {
        return 0;
    }

    if (n == 0) {
        errno = 0;
    }

    workers_close(s);

    return 1;
}


static void
workers_close(int s)
{
    int                    error;
    workers_address_t     *addr;

    error = errno;
    addr = connections[s].address;

    if (error == 0 && connections[s].answered == 1) {
        addr->right++;

    } else {
        addr->wrong++;
        addr->error = error;
    }

    (void) close(s);
}


static void
workers_parse(workers_address_t *addr, const char *text, const char *port)
{
    memset(addr, 0, sizeof(workers_address_t));

    addr->text = text;

    if (inet_pton(AF_INET, text, &addr->u.in.sin_addr) == 1) {
        addr->u.in.sin_family = AF_INET;
        addr->u.in.sin_port = htons((uint16_t) atoi(port));
        addr->socklen = sizeof(struct sockaddr_in);

    } else if (inet_pton(AF_INET6, text, &addr->u.in6.sin6_addr) == 1) {
        addr->u.in6.sin6_family = AF_INET6;
        addr->u.in6.sin6_port = htons((uint16_t) atoi(port));
        addr->socklen = sizeof(struct sockaddr_in6);

    } else {
        errno = EINVAL;
        workers_fail(text);
    }
}


static int
workers_epoll(void)
{
    int  ep;

    ep = epoll_create1(0);

    if (ep == -1) {
        workers_fail("epoll_create1");
    }

    return ep;
}


static void
workers_add(int ep, int s, uint32_t events)
{
    struct epoll_event  ev;

    ev.events = events;
    ev.data.fd = s;

    if (epoll_ctl(ep, EPOLL_CTL_ADD, s, &ev) == -1) {
        workers_fail("epoll_ctl");
    }
}


static double
workers_now(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec + ts.tv_nsec / 1e9;
}


static void
workers_fail(const char *what)
{
    fprintf(stderr, "workers: %s: %s\n", what, strerror(errno));
    exit(1);
}
