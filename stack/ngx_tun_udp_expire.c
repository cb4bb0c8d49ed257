
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>
#include <ngx_tun_connection.h>
#include <ngx_tun_udp.h>

#include <malloc.h>


/* a flow that was used since does not give way */
#define NGX_TUN_UDP_IDLE       100       /* ms */

/* how long a port is not used again while an answer may come to it */
#define NGX_TUN_UDP_HOLD       10000     /* ms */
#define NGX_TUN_UDP_HOLD_MIN   5000      /* when there is no room */

#define NGX_TUN_UDP_TRIM       1000      /* flows */
#define NGX_TUN_UDP_LEAVE      5000      /* ms */

/* what others send to a flow that they still saw is not lost */
#define NGX_TUN_UDP_LINGER     200       /* ms */


/* a socket of an upstream that has not answered all */

typedef struct {
    ngx_tun_claim_t           claim;
    ngx_queue_t               queue;
    ngx_socket_t              fd;
    ngx_msec_t                since;
} ngx_tun_udp_held_t;


static void ngx_tun_udp_release(ngx_tun_t *tun, ngx_tun_udp_held_t *held);
static ngx_uint_t ngx_tun_udp_over(ngx_tun_udp_t *udp);
static void ngx_tun_udp_trim(ngx_tun_t *tun);


#define ngx_tun_udp_from_claim(c)                                             \
    ((ngx_tun_udp_t *) ((u_char *) (c) - offsetof(ngx_tun_udp_t, claim)))


ngx_int_t
ngx_tun_udp_make_room(ngx_tun_t *tun, ngx_tun_claim_t *oldest)
{
    ngx_uint_t           n;
    ngx_tun_udp_t       *udp;
    ngx_tun_udp_held_t  *held;

    if (oldest->held) {
        held = (ngx_tun_udp_held_t *) oldest;

        if (ngx_current_msec - held->since < NGX_TUN_UDP_HOLD_MIN) {
            return NGX_DECLINED;
        }

        ngx_tun_udp_release(tun, held);

        return NGX_OK;
    }

    udp = ngx_tun_udp_from_claim(oldest);

    if (ngx_current_msec - udp->used < NGX_TUN_UDP_IDLE) {
        return NGX_DECLINED;
    }

    n = tun->limits.udp_flows;

    ngx_tun_udp_end(udp);

    if (tun->limits.udp_flows == n) {
        return NGX_DECLINED;
    }

    (void) ngx_atomic_fetch_add(&tun->stat->udp_evicted, 1);

    return NGX_OK;
}


/* as nginx ends a session whose worker has no more time for it */

void
ngx_tun_udp_end(ngx_tun_udp_t *udp)
{
    ngx_event_t  *rev;

    rev = udp->connection->read;

    udp->connection->close = 1;
    rev->timedout = 1;

    rev->handler(rev);
}


void
ngx_tun_hold(ngx_connection_t *c, ngx_socket_t fd)
{
    ngx_tun_t           *tun;
    ngx_tun_udp_t       *udp;
    ngx_tun_udp_held_t  *held;

    udp = ngx_tun_connection_flow(c);
    tun = udp->tun;

    if (!ngx_tun_udp_outstanding(udp) || !udp->claim.udp) {
        return;
    }

    held = ngx_calloc(sizeof(ngx_tun_udp_held_t), tun->log);
    if (held == NULL) {
        return;
    }

    held->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (held->fd == (ngx_socket_t) -1) {
        ngx_free(held);
        return;
    }

    /* it takes the place of the flow, which is about to end */

    ngx_tun_limit_move(&held->claim, &udp->claim);

    held->claim.held = 1;
    held->since = ngx_current_msec;

    ngx_queue_insert_tail(&tun->udp.held, &held->queue);
    tun->udp.held_n++;
}


void
ngx_tun_udp_release_held(ngx_tun_t *tun, ngx_msec_t age)
{
    ngx_queue_t         *q;
    ngx_tun_udp_held_t  *held;

    while (!ngx_queue_empty(&tun->udp.held)) {
        q = ngx_queue_head(&tun->udp.held);
        held = ngx_queue_data(q, ngx_tun_udp_held_t, queue);

        if (ngx_current_msec - held->since < age) {
            break;
        }

        ngx_tun_udp_release(tun, held);
    }
}


static void
ngx_tun_udp_release(ngx_tun_t *tun, ngx_tun_udp_held_t *held)
{
    ngx_queue_remove(&held->queue);
    tun->udp.held_n--;

    ngx_tun_limit_release(&tun->limits, &held->claim);

    (void) ngx_close_socket(held->fd);

    ngx_free(held);
}


/*
 * What is answered ends, the rest has some time for its answers; the next
 * datagram opens a flow elsewhere.  A relay keeps its port while it is used.
 */

void
ngx_tun_udp_retire(ngx_tun_t *tun)
{
    ngx_uint_t       i;
    ngx_tun_flow_t  *flow;

    for (i = 0; i < tun->udp.flows.nbuckets; i++) {
        for (flow = tun->udp.flows.buckets[i]; flow; flow = flow->next) {
            if (!((ngx_tun_udp_t *) flow)->relay) {
                ngx_tun_owner_delete(tun->owner, flow->hash);
            }
        }
    }

    tun->udp.retired = ngx_current_msec;
    tun->udp.leaving = 1;

    /* a session without a timer of its own ends before its worker */
    tun->udp.tick.cancelable = (tun->udp.sessions == 0);

    ngx_add_timer(&tun->udp.tick, NGX_TUN_UDP_LINGER + 1);
}


void
ngx_tun_udp_tick_handler(ngx_event_t *ev)
{
    ngx_tun_t         *tun;
    ngx_queue_t       *q, *next;
    ngx_tun_udp_t     *udp;
    ngx_connection_t  *c;
    ngx_tun_claim_t   *claim;

    c = ev->data;
    tun = c->data;

    ngx_tun_udp_release_held(tun, NGX_TUN_UDP_HOLD);

    for (q = ngx_queue_head(&tun->limits.udp);
         q != ngx_queue_sentinel(&tun->limits.udp);
         q = next)
    {
        next = ngx_queue_next(q);
        claim = ngx_queue_data(q, ngx_tun_claim_t, all);

        if (claim->held) {
            continue;
        }

        udp = ngx_tun_udp_from_claim(claim);

        if (!ngx_tun_udp_over(udp)) {

            if (tun->udp.leaving) {
                continue;
            }

            break;
        }

        ngx_tun_udp_end(udp);
    }

    ev->cancelable = !tun->udp.leaving || tun->udp.sessions == 0;

    if (tun->udp.sessions != 0 || tun->udp.held_n != 0) {
        ngx_add_timer(ev, NGX_TUN_UDP_TICK);
        return;
    }

    ngx_tun_udp_trim(tun);
}


static ngx_uint_t
ngx_tun_udp_over(ngx_tun_udp_t *udp)
{
    ngx_tun_t   *tun;
    ngx_msec_t   left;

    tun = udp->tun;

    if (tun->udp.leaving && (!udp->relay || tun->lost)) {
        left = ngx_current_msec - tun->udp.retired;

        if (left >= NGX_TUN_UDP_LEAVE
            || (left >= NGX_TUN_UDP_LINGER && !ngx_tun_udp_outstanding(udp)))
        {
            return 1;
        }
    }

    return ngx_current_msec - udp->used >= tun->conf->udp_timeout;
}


/* after a crowd its pools lie in pieces over all of the heap */

static void
ngx_tun_udp_trim(ngx_tun_t *tun)
{
    if (tun->udp.opened < NGX_TUN_UDP_TRIM) {
        return;
    }

    tun->udp.opened = 0;

#ifdef __GLIBC__
    (void) malloc_trim(0);
#endif
}
