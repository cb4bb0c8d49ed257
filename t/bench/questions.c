
/*
 * Copyright (C) the nginx-tun authors
 */


/*
 * Questions of one datagram.
 *
 *   questions flows host port seconds processes   prints how many were answered
 *                                                 a second, each from a port of
 *                                                 its own, and the share that
 *                                                 was lost
 *   questions names host port seconds processes   the same of DNS
 *   questions answer host port                    answers DNS, as little as can
 *                                                 be
 *   questions pipeline host port seconds sockets  prints how many of DNS were
 *                                                 answered a second, 8 under
 *                                                 way of each of the sockets
 *
 * Who answers "flows" is "datagrams serve".
 */


#define _GNU_SOURCE

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "common.h"


#define QUESTIONS_SIZE     512
#define QUESTIONS_FLOW     64
#define QUESTIONS_TIMEOUT  200        /* ms, then it is lost */

#define QUESTIONS_SOCKETS  64
#define QUESTIONS_WINDOW   8


static void questions_flows(struct sockaddr_in *sin, double seconds,
    int processes, int dns);
static void questions_ask(struct sockaddr_in *sin, double seconds, int dns,
    uint32_t *n);
static void questions_answer(struct sockaddr_in *local);
static void questions_pipeline(struct sockaddr_in *sin, double seconds, int n);
static int questions_dns(char *buf, uint16_t id);


int
main(int argc, char **argv)
{
    struct sockaddr_in  sin;

    if (argc < 4) {
        fprintf(stderr, "usage: see the head of questions.c\n");
        return 2;
    }

    sin = bench_address(argv[2], argv[3]);

    if (argc == 4 && strcmp(argv[1], "answer") == 0) {
        questions_answer(&sin);

    } else if (argc == 6 && strcmp(argv[1], "flows") == 0) {
        questions_flows(&sin, atof(argv[4]), atoi(argv[5]), 0);

    } else if (argc == 6 && strcmp(argv[1], "names") == 0) {
        questions_flows(&sin, atof(argv[4]), atoi(argv[5]), 1);

    } else if (argc == 6 && strcmp(argv[1], "pipeline") == 0) {
        questions_pipeline(&sin, atof(argv[4]), atoi(argv[5]));

    } else {
        fprintf(stderr, "usage: see the head of questions.c\n");
        return 2;
    }

    return 0;
}


static void
questions_flows(struct sockaddr_in *sin, double seconds, int processes,
    int dns)
{
    int       i, fd[2];
    double    start;
    uint32_t  n[2], all[2];

    if (pipe(fd) == -1) {
        bench_fail("pipe");
    }

    all[0] = 0;
    all[1] = 0;

    start = bench_now();

    for (i = 0; i < processes; i++) {

        switch (fork()) {

        case -1:
            bench_fail("fork");

        case 0:
            questions_ask(sin, seconds, dns, n);
            _exit(write(fd[1], n, sizeof(n)) == sizeof(n) ? 0 : 1);
        }
    }

    (void) close(fd[1]);

    while (read(fd[0], n, sizeof(n)) == sizeof(n)) {
        all[0] += n[0];
        all[1] += n[1];
        processes--;
    }

    while (wait(&i) != -1) {
        processes += (i != 0);
    }

    if (processes != 0 || all[1] == 0) {
        fprintf(stderr, "questions: a process failed\n");
        exit(1);
    }

    printf("%.1f %.6f\n", all[1] / (bench_now() - start),
           1 - (double) all[1] / all[0]);
}


/* those that were asked, and those that were answered */

static void
questions_ask(struct sockaddr_in *sin, double seconds, int dns, uint32_t *n)
{
    int     s, size;
    char    buf[QUESTIONS_SIZE];
    double  end;

    n[0] = 0;
    n[1] = 0;

    end = bench_now() + seconds;
    memset(buf, 'e', sizeof(buf));
    size = QUESTIONS_FLOW;

    while (bench_now() < end) {
        s = bench_socket(sin, QUESTIONS_TIMEOUT);

        if (dns) {
            size = questions_dns(buf, (uint16_t) n[0]);
        }

        n[0]++;

        if (send(s, buf, size, 0) == size
            && recv(s, buf, sizeof(buf), 0) >= size
            && (!dns || (buf[2] & 0x80)))
        {
            n[1]++;
        }

        (void) close(s);
    }
}


/* what any server of DNS has to do at least: read, and write */

static void
questions_answer(struct sockaddr_in *local)
{
    int                  s;
    char                 buf[QUESTIONS_SIZE];
    ssize_t              n;
    socklen_t            len;
    struct sockaddr_in   sin;

    s = bench_server(local);

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
questions_pipeline(struct sockaddr_in *sin, double seconds, int n)
{
    int             i, k, size;
    char            buf[QUESTIONS_SIZE];
    double          start;
    ssize_t         len;
    uint16_t        id;
    uint32_t        count;
    struct pollfd   fds[QUESTIONS_SOCKETS];

    if (n < 1 || n > QUESTIONS_SOCKETS) {
        errno = EINVAL;
        bench_fail("sockets");
    }

    id = 0;
    start = bench_now();

    for (i = 0; i < n; i++) {
        fds[i].fd = bench_socket(sin, 0);
        bench_buffer(fds[i].fd);
        fds[i].events = POLLIN;

        for (k = 0; k < QUESTIONS_WINDOW; k++) {
            size = questions_dns(buf, id++);
            (void) send(fds[i].fd, buf, size, 0);
        }
    }

    for (count = 0; bench_now() - start < seconds; /* void */ ) {

        if (poll(fds, n, 100) <= 0) {

            /* all that was under way is lost */

            for (i = 0; i < n; i++) {
                size = questions_dns(buf, id++);
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

                size = questions_dns(buf, id++);
                (void) send(fds[i].fd, buf, size, 0);
            }
        }
    }

    printf("%.1f\n", count / (bench_now() - start));
}


/* the address of www.example.com, and its length */

static int
questions_dns(char *buf, uint16_t id)
{
    static const char  question[] =
        "\1\0\0\1\0\0\0\0\0\0\3www\7example\3com\0\0\1\0\1";

    memcpy(buf, &id, 2);
    memcpy(buf + 2, question, sizeof(question) - 1);

    return 2 + sizeof(question) - 1;
}
