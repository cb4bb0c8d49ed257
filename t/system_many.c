
/*
 * Copyright (C) the nginx-tun authors
 */


/*
 * Clients of t/system_many.t: a process for each address of a server.
 *
 *   system_many hold port n address ...    n connections to each at once; when
 *                                          all are there, some bytes to each
 *   system_many pass port n address ...    n connections to each, some at once
 *
 * The server says who it thinks the client and itself are, and closes.  Prints
 * a line for every kind of answer, as "17 right" or "1 connection reset".
 */


#define _GNU_SOURCE

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>


#define MANY_FILES      20000
#define MANY_PROCESSES  64
#define MANY_WINDOW     64        /* with packets on their way, at most */
#define MANY_TEXT       128
#define MANY_ERRORS     256
#define MANY_TIMEOUT    180000    /* ms, that nothing happens at all */


typedef struct {
    unsigned            right;
    unsigned            wrong;
    unsigned            late;
    unsigned            errors[MANY_ERRORS];
} many_count_t;


typedef struct {
    unsigned            connected;
    unsigned            asked;
    unsigned            len;
    char                text[MANY_TEXT];
} many_connection_t;


/* one process */

typedef struct {
    int                 hold;
    int                 ep;
    unsigned            n;
    unsigned            opened;
    unsigned            connecting;
    unsigned            open;
    unsigned            asked;
    int                 next;         /* to be asked */
    struct sockaddr_in  sin;
    many_count_t       *count;
    many_connection_t  *connections;  /* by descriptor */
} many_t;


static void many_process(many_t *m, int ready, int go);
static void many_limit(void);
static void many_open(many_t *m);
static void many_wait(many_t *m);
static void many_event(many_t *m, int s);
static void many_read(many_t *m, int s);
static void many_done(many_t *m, int s, int error);
static int many_right(many_t *m, int s);
static void many_ask(many_t *m);
static int many_print(many_count_t *count);
static void many_fail(const char *what) __attribute__((noreturn));


int
main(int argc, char **argv)
{
    int            i, ready[2], go[2];
    char           c;
    many_t         m;
    many_count_t  *count;

    memset(&m, 0, sizeof(many_t));

    if (argc < 5 || argc > MANY_PROCESSES + 4) {
        fprintf(stderr, "usage: system_many hold|pass port n address ...\n");
        return 2;
    }

    m.hold = (strcmp(argv[1], "hold") == 0);
    m.n = (unsigned) atoi(argv[3]);

    count = mmap(NULL, sizeof(many_count_t), PROT_READ|PROT_WRITE,
                 MAP_SHARED|MAP_ANONYMOUS, -1, 0);

    if (count == MAP_FAILED || pipe(ready) == -1 || pipe(go) == -1) {
        many_fail("start");
    }

    m.count = count;
    m.sin.sin_family = AF_INET;
    m.sin.sin_port = htons((uint16_t) atoi(argv[2]));

    for (i = 4; i < argc; i++) {

        if (inet_pton(AF_INET, argv[i], &m.sin.sin_addr) != 1) {
            many_fail(argv[i]);
        }

        switch (fork()) {

        case -1:
            many_fail("fork");

        case 0:
            (void) close(ready[0]);
            (void) close(go[1]);
            many_process(&m, ready[1], go[0]);
            return 0;

        default:
            break;
        }
    }

    (void) close(ready[1]);

    /* the end of the pipe tells all of them that all are ready */

    for (i = 4; i < argc; i++) {
        if (read(ready[0], &c, 1) != 1) {
            break;
        }
    }

    (void) close(go[1]);

    while (wait(NULL) != -1) {
        /* void */
    }

    return many_print(count);
}


static void
many_process(many_t *m, int ready, int go)
{
    char  c;

    many_limit();

    m->connections = calloc(MANY_FILES, sizeof(many_connection_t));
    m->ep = epoll_create1(0);

    if (m->connections == NULL || m->ep == -1) {
        many_fail("process");
    }

    if (m->hold) {

        while (m->opened < m->n || m->connecting != 0) {
            many_open(m);
            many_wait(m);
        }

        if (write(ready, "", 1) != 1 || read(go, &c, 1) != 0) {
            many_fail("pipe");
        }

    }

    while (m->opened < m->n || m->open != 0) {

        if (m->hold) {
            many_ask(m);

        } else {
            many_open(m);
        }

        many_wait(m);
    }
}


static void
many_limit(void)
{
    struct rlimit  rlimit;

    if (getrlimit(RLIMIT_NOFILE, &rlimit) == -1) {
        many_fail("getrlimit");
    }

    if (rlimit.rlim_cur != RLIM_INFINITY && rlimit.rlim_cur < MANY_FILES) {
        rlimit.rlim_cur = MANY_FILES;

        if (rlimit.rlim_max < MANY_FILES) {
            rlimit.rlim_max = MANY_FILES;
        }

        if (setrlimit(RLIMIT_NOFILE, &rlimit) == -1) {
            many_fail("setrlimit");
        }
    }
}


static void
many_open(many_t *m)
{
    int                  s;
    struct epoll_event   ev;

    while (m->opened < m->n
           && (m->hold ? m->connecting : m->open) < MANY_WINDOW)
    {
        s = socket(AF_INET, SOCK_STREAM|SOCK_NONBLOCK, 0);

        if (s == -1 || s >= MANY_FILES) {
            many_fail("socket");
        }

        m->opened++;
        m->connecting++;
        m->open++;

        memset(&m->connections[s], 0, sizeof(many_connection_t));

        ev.events = EPOLLIN|EPOLLOUT|EPOLLET;
        ev.data.fd = s;

        if (epoll_ctl(m->ep, EPOLL_CTL_ADD, s, &ev) == -1) {
            many_fail("epoll_ctl");
        }

        if (connect(s, (struct sockaddr *) &m->sin, sizeof(m->sin)) == -1
            && errno != EINPROGRESS)
        {
            many_done(m, s, errno);
        }
    }
}


static void
many_wait(many_t *m)
{
    int                 i, n;
    struct epoll_event  events[MANY_WINDOW];

    if (m->open == 0) {
        return;
    }

    n = epoll_wait(m->ep, events, MANY_WINDOW, MANY_TIMEOUT);

    if (n == 0) {
        __atomic_fetch_add(&m->count->late, m->open, __ATOMIC_RELAXED);
        exit(1);
    }

    for (i = 0; i < n; i++) {
        many_event(m, events[i].data.fd);
    }
}


static void
many_event(many_t *m, int s)
{
    int        error;
    socklen_t  len;

    if (!m->connections[s].connected) {

        len = sizeof(int);

        if (getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &len) == -1) {
            error = errno;
        }

        if (error != 0) {
            many_done(m, s, error);
            return;
        }

        m->connections[s].connected = 1;
        m->connecting--;
    }

    many_read(m, s);
}


static void
many_read(many_t *m, int s)
{
    ssize_t             n;
    many_connection_t  *c;

    c = &m->connections[s];

    for ( ;; ) {
        n = read(s, c->text + c->len, MANY_TEXT - 1 - c->len);

        if (n <= 0) {
            break;
        }

        c->len += n;
    }

    if (n == 0) {
        many_done(m, s, 0);

    } else if (errno != EAGAIN) {
        many_done(m, s, errno);
    }
}


static void
many_done(many_t *m, int s, int error)
{
    unsigned  *n;

    n = error != 0 ? &m->count->errors[error % MANY_ERRORS]
        : many_right(m, s) ? &m->count->right : &m->count->wrong;

    __atomic_fetch_add(n, 1, __ATOMIC_RELAXED);

    if (!m->connections[s].connected) {
        m->connecting--;
    }

    if (m->connections[s].asked) {
        m->asked--;
    }

    m->connections[s].connected = 0;
    m->open--;

    (void) close(s);
}


static int
many_right(many_t *m, int s)
{
    char                to[INET_ADDRSTRLEN], own[INET_ADDRSTRLEN];
    char                text[MANY_TEXT];
    socklen_t           len;
    struct sockaddr_in  sin;

    len = sizeof(sin);

    if (getsockname(s, (struct sockaddr *) &sin, &len) == -1) {
        many_fail("getsockname");
    }

    (void) inet_ntop(AF_INET, &sin.sin_addr, own, sizeof(own));
    (void) inet_ntop(AF_INET, &m->sin.sin_addr, to, sizeof(to));

    (void) snprintf(text, sizeof(text), "%s %u %s %u", own,
                    ntohs(sin.sin_port), to, ntohs(m->sin.sin_port));

    return strcmp(m->connections[s].text, text) == 0;
}


/* more at once would be more than the queue of a device */

static void
many_ask(many_t *m)
{
    int                 s;
    many_connection_t  *c;

    while (m->asked < MANY_WINDOW && m->next < MANY_FILES) {

        s = m->next++;
        c = &m->connections[s];

        if (!c->connected) {
            continue;
        }

        c->asked = 1;
        m->asked++;

        if (send(s, "xxxxxxxxxx", 10, MSG_NOSIGNAL) == -1) {
            many_done(m, s, errno);
        }
    }
}


static int
many_print(many_count_t *count)
{
    unsigned  i;

    printf("%u right\n", count->right);

    if (count->wrong) {
        printf("%u wrong\n", count->wrong);
    }

    if (count->late) {
        printf("%u without an end\n", count->late);
    }

    for (i = 0; i < MANY_ERRORS; i++) {
        if (count->errors[i]) {
            printf("%u %s\n", count->errors[i], strerror(i));
        }
    }

    return 0;
}


static void
many_fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}
