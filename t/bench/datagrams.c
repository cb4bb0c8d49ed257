
/*
 * Copyright (C) the nginx-tun authors
 */


/*
 * The two ends of a benchmark of datagrams.
 *
 *   datagrams serve host port
 *   datagrams up host port size seconds rate     prints how many a second
 *   datagrams down host port size seconds rate   came, and how many were sent
 *   datagrams flows host port seconds processes  prints the questions of one
 *                                                datagram, each from a socket
 *                                                of its own, a second
 *   datagrams names host port seconds processes  the same of DNS
 *   datagrams answer host port                   answers DNS, as little as can
 *                                                be
 *   datagrams questions host port seconds n      prints how many questions of
 *                                                DNS were answered a second,
 *                                                8 under way of each of n
 *                                                sockets
 *
 * A rate of 0 is as fast as it goes.  The first byte of a datagram is: 'e' to
 * be sent back, 's' to be counted, 'z' to count anew, 'q' to be told how many,
 * 'd' to be sent some.
 */


#define _GNU_SOURCE

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <poll.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>


#define DATAGRAMS_MAX      65536
#define DATAGRAMS_BATCH    16
#define DATAGRAMS_BUFFER   (4 * 1024 * 1024)
#define DATAGRAMS_TRIES    50         /* of 100 ms, for a question */

#define DATAGRAMS_SOCKETS  64
#define DATAGRAMS_WINDOW   8


typedef struct {
    char                 what;
    uint32_t             size;
    uint32_t             ms;
    uint32_t             rate;
} __attribute__((packed)) datagrams_request_t;


static void datagrams_serve(const char *host, const char *port);
static void datagrams_up(int s, size_t size, double seconds, double rate);
static void datagrams_down(int s, size_t size, double seconds, double rate);
static void datagrams_flows(struct sockaddr_in *sin, double seconds,
    int processes, int dns);
static uint32_t datagrams_asked(struct sockaddr_in *sin, double seconds,
    int dns);
static void datagrams_answer(const char *host, const char *port);
static void datagrams_questions(struct sockaddr_in *sin, double seconds,
    int n);
static int datagrams_question(char *buf, uint16_t id);

static uint32_t datagrams_send(int s, struct sockaddr_in *sin, char what,
    size_t size, double seconds, double rate);
static uint32_t datagrams_ask(int s, char what);
static int datagrams_socket(struct sockaddr_in *sin, double timeout);
static struct sockaddr_in datagrams_address(const char *host,
    const char *port);
static double datagrams_now(void);
static void datagrams_fail(const char *what) __attribute__((noreturn));


int
main(int argc, char **argv)
{
    struct sockaddr_in  sin;

    if (argc == 4 && strcmp(argv[1], "serve") == 0) {
        datagrams_serve(argv[2], argv[3]);

    } else if (argc == 7 && strcmp(argv[1], "up") == 0) {
        sin = datagrams_address(argv[2], argv[3]);
        datagrams_up(datagrams_socket(&sin, 0.1), atoi(argv[4]),
                     atof(argv[5]), atof(argv[6]));

    } else if (argc == 7 && strcmp(argv[1], "down") == 0) {
        sin = datagrams_address(argv[2], argv[3]);
        datagrams_down(datagrams_socket(&sin, 1), atoi(argv[4]),
                       atof(argv[5]), atof(argv[6]));

    } else if (argc == 6 && strcmp(argv[1], "flows") == 0) {
        sin = datagrams_address(argv[2], argv[3]);
        datagrams_flows(&sin, atof(argv[4]), atoi(argv[5]), 0);

    } else if (argc == 6 && strcmp(argv[1], "names") == 0) {
        sin = datagrams_address(argv[2], argv[3]);
        datagrams_flows(&sin, atof(argv[4]), atoi(argv[5]), 1);

    } else if (argc == 4 && strcmp(argv[1], "answer") == 0) {
        datagrams_answer(argv[2], argv[3]);

    } else if (argc == 6 && strcmp(argv[1], "questions") == 0) {
        sin = datagrams_address(argv[2], argv[3]);
        datagrams_questions(&sin, atof(argv[4]), atoi(argv[5]));

    } else {
        fprintf(stderr, "usage: see the head of datagrams.c\n");
        return 2;
    }

    return 0;
}


static void
datagrams_serve(const char *host, const char *port)
{
    int                   s;
    char                  buf[DATAGRAMS_MAX];
    ssize_t               n;
    uint32_t              count;
    socklen_t             len;
    struct sockaddr_in    sin;
    datagrams_request_t   r;

    sin = datagrams_address(host, port);
    s = datagrams_socket(NULL, 0);

    if (bind(s, (struct sockaddr *) &sin, sizeof(sin)) == -1) {
        datagrams_fail("bind");
    }

    for (count = 0 ;; ) {
        len = sizeof(sin);
        n = recvfrom(s, buf, sizeof(buf), 0, (struct sockaddr *) &sin, &len);

        if (n <= 0) {
            continue;
        }

        switch (buf[0]) {

        case 's':
            count++;
            break;

        case 'z':
            count = 0;
            /* fall through */

        case 'q':
            memcpy(buf + 1, &count, sizeof(count));
            (void) sendto(s, buf, 1 + sizeof(count), 0,
                          (struct sockaddr *) &sin, len);
            break;

        case 'd':
            memcpy(&r, buf, sizeof(r));
            count = datagrams_send(s, &sin, 's', r.size, r.ms / 1e3, r.rate);
            break;

        default:
            (void) sendto(s, buf, n, 0, (struct sockaddr *) &sin, len);
        }
    }
}


static void
datagrams_up(int s, size_t size, double seconds, double rate)
{
    uint32_t  sent, count;

    (void) datagrams_ask(s, 'z');

    sent = datagrams_send(s, NULL, 's', size, seconds, rate);

    /* what is on the way */
    usleep(300000);

    count = datagrams_ask(s, 'q');

    printf("%.1f %.1f\n", count / seconds, sent / seconds);
}


static void
datagrams_down(int s, size_t size, double seconds, double rate)
{
    char                  buf[DATAGRAMS_MAX];
    double                end;
    ssize_t               n;
    uint32_t              count;
    datagrams_request_t   r;

    r.what = 'd';
    r.size = (uint32_t) size;
    r.ms = (uint32_t) (seconds * 1e3);
    r.rate = (uint32_t) rate;

    if (send(s, &r, sizeof(r), 0) == -1) {
        datagrams_fail("send");
    }

    end = datagrams_now() + seconds + 2;

    for (count = 0; datagrams_now() < end; /* void */ ) {
        n = recv(s, buf, sizeof(buf), 0);

        if (n > 0 && buf[0] == 's') {
            count++;

        } else if (n == -1 && count != 0) {
            break;
        }
    }

    printf("%.1f %.1f\n", count / seconds, datagrams_ask(s, 'q') / seconds);
}


static void
datagrams_flows(struct sockaddr_in *sin, double seconds, int processes,
    int dns)
{
    int       i, fd[2];
    double    start;
    uint32_t  n, total;

    if (pipe(fd) == -1) {
        datagrams_fail("pipe");
    }

    start = datagrams_now();

    for (i = 0; i < processes; i++) {

        switch (fork()) {

        case -1:
            datagrams_fail("fork");

        case 0:
            n = datagrams_asked(sin, seconds, dns);
            _exit(write(fd[1], &n, sizeof(n)) == sizeof(n) ? 0 : 1);
        }
    }

    (void) close(fd[1]);

    for (total = 0; read(fd[0], &n, sizeof(n)) == sizeof(n); total += n) {
        processes--;
    }

    while (wait(&i) != -1) {
        processes += (i != 0);
    }

    if (processes != 0) {
        fprintf(stderr, "datagrams: a process failed\n");
        exit(1);
    }

    printf("%.1f\n", total / (datagrams_now() - start));
}


/* those that were answered */

static uint32_t
datagrams_asked(struct sockaddr_in *sin, double seconds, int dns)
{
    int       s, size;
    char      buf[512];
    double    end;
    uint32_t  n;

    end = datagrams_now() + seconds;
    memset(buf, 'e', sizeof(buf));
    size = 64;

    for (n = 0; datagrams_now() < end; /* void */ ) {
        s = datagrams_socket(sin, 1);

        if (dns) {
            size = datagrams_question(buf, (uint16_t) n);
        }

        if (send(s, buf, size, 0) == size
            && recv(s, buf, sizeof(buf), 0) >= size
            && (!dns || (buf[2] & 0x80)))
        {
            n++;
        }

        (void) close(s);
    }

    return n;
}


/* what any server of DNS has to do at least: read, and write */

static void
datagrams_answer(const char *host, const char *port)
{
    int                  s;
    char                 buf[512];
    ssize_t              n;
    socklen_t            len;
    struct sockaddr_in   sin;

    sin = datagrams_address(host, port);
    s = datagrams_socket(NULL, 0);

    if (bind(s, (struct sockaddr *) &sin, sizeof(sin)) == -1) {
        datagrams_fail("bind");
    }

    for ( ;; ) {
        len = sizeof(sin);
        n = recvfrom(s, buf, sizeof(buf), 0, (struct sockaddr *) &sin, &len);

        if (n < 12) {
            continue;
        }

        buf[2] |= 0x80;
        (void) sendto(s, buf, n, 0, (struct sockaddr *) &sin, len);
    }
}


static void
datagrams_questions(struct sockaddr_in *sin, double seconds, int n)
{
    int             i, k, size;
    char            buf[512];
    double          start;
    ssize_t         len;
    uint16_t        id;
    uint32_t        count;
    struct pollfd   fds[DATAGRAMS_SOCKETS];

    if (n < 1 || n > DATAGRAMS_SOCKETS) {
        datagrams_fail("questions");
    }

    id = 0;
    start = datagrams_now();

    for (i = 0; i < n; i++) {
        fds[i].fd = datagrams_socket(sin, 1);
        fds[i].events = POLLIN;

        for (k = 0; k < DATAGRAMS_WINDOW; k++) {
            size = datagrams_question(buf, id++);
            (void) send(fds[i].fd, buf, size, 0);
        }
    }

    for (count = 0; datagrams_now() - start < seconds; /* void */ ) {

        if (poll(fds, n, 100) <= 0) {

            /* all that was under way is lost */

            for (i = 0; i < n; i++) {
                size = datagrams_question(buf, id++);
                (void) send(fds[i].fd, buf, size, 0);
            }

            continue;
        }

        for (i = 0; i < n; i++) {

            while ((fds[i].revents & POLLIN)
                   && (len = recv(fds[i].fd, buf, sizeof(buf), MSG_DONTWAIT))
                      > 0)
            {
                count += (len >= 12 && (buf[2] & 0x80));

                size = datagrams_question(buf, id++);
                (void) send(fds[i].fd, buf, size, 0);
            }
        }
    }

    printf("%.1f\n", count / (datagrams_now() - start));
}


/* the address of www.example.com, and its length */

static int
datagrams_question(char *buf, uint16_t id)
{
    static const char  question[] =
        "\1\0\0\1\0\0\0\0\0\0\3www\7example\3com\0\0\1\0\1";

    memcpy(buf, &id, 2);
    memcpy(buf + 2, question, sizeof(question) - 1);

    return 2 + sizeof(question) - 1;
}


/* at the rate, in steps that are as long as the clock allows */

static uint32_t
datagrams_send(int s, struct sockaddr_in *sin, char what, size_t size,
    double seconds, double rate)
{
    char             data[DATAGRAMS_MAX];
    int              i, n;
    double           start, now;
    uint32_t         sent;
    struct iovec     iov;
    struct mmsghdr   msgs[DATAGRAMS_BATCH];

    memset(data, what, size);
    memset(msgs, 0, sizeof(msgs));

    iov.iov_base = data;
    iov.iov_len = size;

    for (i = 0; i < DATAGRAMS_BATCH; i++) {
        msgs[i].msg_hdr.msg_name = sin;
        msgs[i].msg_hdr.msg_namelen = sin ? sizeof(*sin) : 0;
        msgs[i].msg_hdr.msg_iov = &iov;
        msgs[i].msg_hdr.msg_iovlen = 1;
    }

    start = datagrams_now();

    for (sent = 0; (now = datagrams_now() - start) < seconds; /* void */ ) {

        if (rate != 0 && sent > now * rate) {
            usleep(50);
            continue;
        }

        n = sendmmsg(s, msgs, DATAGRAMS_BATCH, 0);

        if (n > 0) {
            sent += n;
        }
    }

    return sent;
}


static uint32_t
datagrams_ask(int s, char what)
{
    char      buf[DATAGRAMS_MAX];
    int       i;
    ssize_t   n;
    uint32_t  count;

    for (i = 0; i < DATAGRAMS_TRIES; i++) {

        if (send(s, &what, 1, 0) == -1) {
            continue;
        }

        do {
            n = recv(s, buf, sizeof(buf), 0);
        } while (n > 0 && buf[0] != what);

        if (n == 1 + sizeof(count)) {
            memcpy(&count, buf + 1, sizeof(count));
            return count;
        }
    }

    datagrams_fail("no answer");
}


static int
datagrams_socket(struct sockaddr_in *sin, double timeout)
{
    int             s, size;
    struct timeval  tv;

    size = DATAGRAMS_BUFFER;
    tv.tv_sec = (time_t) timeout;
    tv.tv_usec = (suseconds_t) ((timeout - tv.tv_sec) * 1e6);

    s = socket(AF_INET, SOCK_DGRAM, 0);

    if (s == -1
        || setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == -1
        || (sin != NULL
            && connect(s, (struct sockaddr *) sin, sizeof(*sin)) == -1))
    {
        datagrams_fail("socket");
    }

    if (setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) == -1) {
        (void) setsockopt(s, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    }

    return s;
}


static struct sockaddr_in
datagrams_address(const char *host, const char *port)
{
    struct sockaddr_in  sin;

    memset(&sin, 0, sizeof(sin));

    sin.sin_family = AF_INET;
    sin.sin_port = htons((uint16_t) atoi(port));

    if (inet_pton(AF_INET, host, &sin.sin_addr) != 1) {
        fprintf(stderr, "datagrams: \"%s\" is not an address\n", host);
        exit(2);
    }

    return sin;
}


static double
datagrams_now(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec + ts.tv_nsec / 1e9;
}


static void
datagrams_fail(const char *what)
{
    fprintf(stderr, "datagrams: %s: %s\n", what, strerror(errno));
    exit(1);
}
