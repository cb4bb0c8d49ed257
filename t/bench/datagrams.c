
/*
 * Copyright (C) the nginx-tun authors
 */


/*
 * The two ends of a benchmark of datagrams.
 *
 *   datagrams serve file host port
 *   datagrams up file host port size seconds rate     prints how many came a
 *   datagrams down file host port size seconds rate   second, and the share
 *                                                     that was lost
 *
 * The first byte of a datagram is: 's' to be counted, 'd' to be sent some, 'e'
 * to be sent back.
 *
 * Both ends are on one machine and share a file, in which the sender sees how
 * far the receiver is: no more than a window is ever on the way, so what is
 * measured is the path and not who throws more away, and nothing but datagrams
 * passes it.  A rate of 0 is as fast as the window goes.
 */


#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "common.h"


#define DATAGRAMS_SIZE     2048
#define DATAGRAMS_BATCH    16
#define DATAGRAMS_WINDOW   64         /* fits into a socket's default buffer */
#define DATAGRAMS_LOST     0.02       /* seconds in which nothing comes */


/* by one sender and one receiver at a time */

typedef struct {
    uint32_t             run;         /* others are not counted */
    uint32_t             seen;        /* one more than the largest number */
    uint32_t             count;
    uint32_t             sent;        /* of the run that is done */
    uint32_t             done;
} datagrams_shared_t;


typedef struct {
    char                 what;
    uint32_t             run;
    uint32_t             number;
} __attribute__((packed)) datagrams_head_t;


typedef struct {
    char                 what;
    uint32_t             size;
    uint32_t             ms;
    uint32_t             rate;
} __attribute__((packed)) datagrams_request_t;


typedef struct {
    char                 data[DATAGRAMS_BATCH][DATAGRAMS_SIZE];
    struct iovec         iov[DATAGRAMS_BATCH];
    struct mmsghdr       msgs[DATAGRAMS_BATCH];
    struct sockaddr_in   from[DATAGRAMS_BATCH];
} datagrams_batch_t;


static void datagrams_serve(datagrams_shared_t *sh, struct sockaddr_in *sin);
static void datagrams_down(datagrams_shared_t *sh, int s,
    datagrams_request_t *r);
static void datagrams_result(datagrams_shared_t *sh, datagrams_request_t *r);

static void datagrams_send(datagrams_shared_t *sh, int s,
    struct sockaddr_in *sin, datagrams_request_t *r);
static void datagrams_wait(datagrams_shared_t *sh, uint32_t sent,
    uint32_t window);
static int datagrams_receive(int s, datagrams_batch_t *b);
static void datagrams_count(datagrams_shared_t *sh, char *data, size_t len);

static datagrams_batch_t *datagrams_batch(void);
static datagrams_shared_t *datagrams_share(const char *file);
static datagrams_request_t datagrams_request(char **argv);


int
main(int argc, char **argv)
{
    struct sockaddr_in   sin;
    datagrams_shared_t  *sh;
    datagrams_request_t  r;

    (void) prctl(PR_SET_TIMERSLACK, 1);

    if (argc < 5) {
        fprintf(stderr, "usage: see the head of datagrams.c\n");
        return 2;
    }

    sin = bench_address(argv[3], argv[4]);
    sh = datagrams_share(argv[2]);

    if (argc == 5 && strcmp(argv[1], "serve") == 0) {
        datagrams_serve(sh, &sin);

    } else if (argc == 8 && strcmp(argv[1], "up") == 0) {
        r = datagrams_request(argv + 5);
        datagrams_send(sh, bench_socket(&sin, 0), NULL, &r);
        datagrams_result(sh, &r);

    } else if (argc == 8 && strcmp(argv[1], "down") == 0) {
        r = datagrams_request(argv + 5);
        datagrams_down(sh, bench_socket(&sin, 10), &r);
        datagrams_result(sh, &r);

    } else {
        fprintf(stderr, "usage: see the head of datagrams.c\n");
        return 2;
    }

    return 0;
}


static void
datagrams_serve(datagrams_shared_t *sh, struct sockaddr_in *sin)
{
    int                   i, n, s;
    datagrams_batch_t    *b;
    datagrams_request_t   r;

    b = datagrams_batch();
    s = bench_server(sin);

    for ( ;; ) {
        n = datagrams_receive(s, b);

        for (i = 0; i < n; i++) {

            switch (b->data[i][0]) {

            case 's':
                datagrams_count(sh, b->data[i], b->msgs[i].msg_len);
                break;

            case 'd':
                memcpy(&r, b->data[i], sizeof(r));
                datagrams_send(sh, s, &b->from[i], &r);
                break;

            default:
                b->iov[i].iov_len = b->msgs[i].msg_len;
                (void) sendmsg(s, &b->msgs[i].msg_hdr, 0);
            }
        }
    }
}


static void
datagrams_down(datagrams_shared_t *sh, int s, datagrams_request_t *r)
{
    int                 i, n;
    double              end;
    uint32_t            done;
    datagrams_batch_t  *b;

    b = datagrams_batch();
    bench_buffer(s);

    done = __atomic_load_n(&sh->done, __ATOMIC_ACQUIRE);
    end = bench_now() + r->ms / 1e3 + 5;

    if (send(s, r, sizeof(*r), 0) == -1) {
        bench_fail("send");
    }

    while (__atomic_load_n(&sh->done, __ATOMIC_ACQUIRE) == done) {
        n = datagrams_receive(s, b);

        for (i = 0; i < n; i++) {
            datagrams_count(sh, b->data[i], b->msgs[i].msg_len);
        }

        if (bench_now() > end) {
            errno = ETIMEDOUT;
            bench_fail("down");
        }
    }
}


static void
datagrams_result(datagrams_shared_t *sh, datagrams_request_t *r)
{
    if (sh->count == 0) {
        errno = ETIMEDOUT;
        bench_fail("no datagram came");
    }

    printf("%.1f %.6f\n", sh->count / (r->ms / 1e3),
           1 - (double) sh->count / sh->sent);
}


static void
datagrams_send(datagrams_shared_t *sh, int s, struct sockaddr_in *sin,
    datagrams_request_t *r)
{
    int                 i, n;
    double              start, now;
    uint32_t            sent;
    datagrams_head_t    head;
    datagrams_batch_t  *b;

    b = datagrams_batch();

    for (i = 0; i < DATAGRAMS_BATCH; i++) {
        b->msgs[i].msg_hdr.msg_name = sin;
        b->msgs[i].msg_hdr.msg_namelen = (sin != NULL) ? sizeof(*sin) : 0;
        b->iov[i].iov_len = r->size;
    }

    head.what = 's';
    head.run = sh->run + 1;

    sh->seen = 0;
    sh->count = 0;
    __atomic_store_n(&sh->run, head.run, __ATOMIC_RELEASE);

    start = bench_now();
    sent = 0;

    for ( ;; ) {
        datagrams_wait(sh, sent, DATAGRAMS_WINDOW - DATAGRAMS_BATCH);
        now = bench_now() - start;

        if (now >= r->ms / 1e3) {
            break;
        }

        if (r->rate != 0 && sent > now * r->rate) {
            usleep(20);
            continue;
        }

        for (i = 0; i < DATAGRAMS_BATCH; i++) {
            head.number = sent + i;
            memcpy(b->data[i], &head, sizeof(head));
        }

        n = sendmmsg(s, b->msgs, DATAGRAMS_BATCH, 0);

        if (n > 0) {
            sent += n;
        }
    }

    datagrams_wait(sh, sent, 0);
    free(b);

    sh->sent = sent;
    __atomic_store_n(&sh->done, head.run, __ATOMIC_RELEASE);
}


/* until no more than a window is on the way, or the rest of it is lost */

static void
datagrams_wait(datagrams_shared_t *sh, uint32_t sent, uint32_t window)
{
    double    end;
    uint32_t  seen, last;

    last = 0;
    end = bench_now() + DATAGRAMS_LOST;

    for ( ;; ) {
        seen = __atomic_load_n(&sh->seen, __ATOMIC_ACQUIRE);

        if (sent - seen <= window) {
            return;
        }

        if (seen != last) {
            end = bench_now() + DATAGRAMS_LOST;
            last = seen;

        } else if (bench_now() > end) {
            return;
        }

        usleep(20);
    }
}


static int
datagrams_receive(int s, datagrams_batch_t *b)
{
    int  i;

    for (i = 0; i < DATAGRAMS_BATCH; i++) {
        b->msgs[i].msg_hdr.msg_name = &b->from[i];
        b->msgs[i].msg_hdr.msg_namelen = sizeof(b->from[i]);
        b->iov[i].iov_len = DATAGRAMS_SIZE;
    }

    return recvmmsg(s, b->msgs, DATAGRAMS_BATCH, MSG_WAITFORONE, NULL);
}


static void
datagrams_count(datagrams_shared_t *sh, char *data, size_t len)
{
    datagrams_head_t  head;

    if (len < sizeof(head)) {
        return;
    }

    memcpy(&head, data, sizeof(head));

    if (head.what != 's'
        || head.run != __atomic_load_n(&sh->run, __ATOMIC_ACQUIRE))
    {
        return;
    }

    sh->count++;

    if (head.number >= sh->seen) {
        __atomic_store_n(&sh->seen, head.number + 1, __ATOMIC_RELEASE);
    }
}


static datagrams_batch_t *
datagrams_batch(void)
{
    int                 i;
    datagrams_batch_t  *b;

    b = calloc(1, sizeof(datagrams_batch_t));
    if (b == NULL) {
        bench_fail("calloc");
    }

    for (i = 0; i < DATAGRAMS_BATCH; i++) {
        b->iov[i].iov_base = b->data[i];
        b->msgs[i].msg_hdr.msg_iov = &b->iov[i];
        b->msgs[i].msg_hdr.msg_iovlen = 1;
    }

    return b;
}


static datagrams_shared_t *
datagrams_share(const char *file)
{
    int    fd;
    void  *p;

    fd = open(file, O_RDWR|O_CREAT, 0600);

    if (fd == -1 || ftruncate(fd, sizeof(datagrams_shared_t)) == -1) {
        bench_fail(file);
    }

    p = mmap(NULL, sizeof(datagrams_shared_t), PROT_READ|PROT_WRITE,
             MAP_SHARED, fd, 0);

    if (p == MAP_FAILED) {
        bench_fail("mmap");
    }

    (void) close(fd);

    return p;
}


static datagrams_request_t
datagrams_request(char **argv)
{
    datagrams_request_t  r;

    r.what = 'd';
    r.size = (uint32_t) atoi(argv[0]);
    r.ms = (uint32_t) (atof(argv[1]) * 1e3);
    r.rate = (uint32_t) atoi(argv[2]);

    if (r.size < sizeof(datagrams_head_t) || r.size > DATAGRAMS_SIZE
        || r.ms == 0)
    {
        fprintf(stderr, "datagrams: invalid size or time\n");
        exit(2);
    }

    return r;
}
