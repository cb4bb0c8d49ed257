
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>
#include <ngx_tun_icmp.h>
#include <ngx_tun_steering.h>

#include <net/if.h>
#include <linux/if_tun.h>


#define NGX_TUN_LINGER         200          /* ms */

/* times of NGX_TUN_LINGER: a worker that died is there again before */
#define NGX_TUN_ORPHANED       2
#define NGX_TUN_UNCLAIMED      25

/* more turns are not in what waits in a queue */
#define NGX_TUN_REST           100


static void ngx_tun_abandon_queue(ngx_tun_t *tun);
static void ngx_tun_linger(ngx_tun_t *tun, ngx_uint_t cancelable);
static void ngx_tun_resume(ngx_tun_t *tun);


void
ngx_tun_retire(ngx_tun_t *tun)
{
    ngx_event_t  *rev;

    if (tun->retired) {
        return;
    }

    /* nobody else reads a queue that the latest generation does not have */

    if (tun->number >= tun->state->queues
        && ngx_tun_owner_next(tun->owner, tun->own_cycle)
           == NGX_TUN_OWNER_NONE)
    {
        ngx_tun_linger(tun, 0);
        return;
    }

    rev = tun->connection->read;

    if (rev->active) {
        ngx_del_event(rev, NGX_READ_EVENT, 0);
    }

    tun->retired = 1;

    ngx_tun_icmp_retire(tun);
    ngx_tun_udp_retire(tun);
    ngx_tun_tcp_retire(tun);

    if (tun->number >= tun->state->queues) {
        ngx_tun_abandon_queue(tun);
    }

    ngx_tun_linger(tun, 1);
}


/* the kernel puts nothing into it any more, what is in it is not lost */

static void
ngx_tun_abandon_queue(ngx_tun_t *tun)
{
    ngx_uint_t    i;
    struct ifreq  ifr;

    ngx_memzero(&ifr, sizeof(struct ifreq));

    ifr.ifr_flags = IFF_DETACH_QUEUE;

    if (tun->device->steering != -1) {
        (void) ngx_tun_steering_set(tun->queue.fd, tun->device->steering);
    }

    for (i = 0; i < NGX_TUN_REST; i++) {
        if (ngx_tun_read(tun) == NGX_OK) {
            break;
        }
    }

    if (ioctl(tun->queue.fd, TUNSETQUEUE, &ifr) == -1) {
        ngx_log_error(NGX_LOG_ERR, tun->log, ngx_errno,
                      "tun \"%V\": ioctl(TUNSETQUEUE) of queue %ui failed",
                      &tun->conf->device.name, tun->number);
    }

    if (tun->device->steering != -1) {
        (void) ngx_tun_steering_set(tun->queue.fd, -1);
    }
}


void
ngx_tun_leave(ngx_tun_t *tun)
{
    ngx_tun_owner_ready(tun->owner, 0);

    /* whoever stays gets all new flows */

    if (tun->retired
        || ngx_tun_owner_next(tun->owner, tun->own_cycle)
           != NGX_TUN_OWNER_NONE)
    {
        ngx_tun_udp_retire(tun);
    }

    ngx_tun_linger_handler(&tun->linger);
}


static void
ngx_tun_linger(ngx_tun_t *tun, ngx_uint_t cancelable)
{
    tun->linger.cancelable = cancelable;

    ngx_add_timer(&tun->linger, NGX_TUN_LINGER);
}


void
ngx_tun_linger_handler(ngx_event_t *ev)
{
    ngx_tun_t         *tun;
    ngx_connection_t  *c;

    c = ev->data;
    tun = c->data;

    if (tun->lost) {
        return;
    }

    if (!c->read->active) {

        if (ngx_exiting) {
            return;
        }

        ngx_tun_resume(tun);

        if (!c->read->active) {
            ngx_tun_linger(tun, 1);
        }

        return;
    }

    if (tun->state->generation != tun->own_generation) {
        ngx_tun_retire(tun);
        return;
    }

    /* without this process nobody would read for those that stay */

    if (ngx_exiting
        && ngx_tun_owner_others(tun->owner)
        && ngx_tun_owner_next(tun->owner, tun->own_cycle)
           == NGX_TUN_OWNER_NONE)
    {
        ngx_tun_linger(tun, 0);
    }
}


/* a binary that had taken over has died, or was asked to leave */

static void
ngx_tun_resume(ngx_tun_t *tun)
{
    ngx_uint_t          wait;
    ngx_atomic_t       *reader;
    ngx_atomic_uint_t   pid;

    if (tun->number >= tun->state->queues) {
        return;
    }

    reader = &tun->state->reader[tun->number];
    pid = *reader;
    wait = NGX_TUN_ORPHANED;

    if (pid == (ngx_atomic_uint_t) ngx_pid) {
        /* whoever wants it has not started yet */
        wait = NGX_TUN_UNCLAIMED;

    } else if (ngx_tun_process_alive(pid)) {
        tun->orphaned = 0;
        return;
    }

    if (++tun->orphaned < wait
        || !ngx_atomic_cmp_set(reader, pid, (ngx_atomic_uint_t) ngx_pid))
    {
        return;
    }

    tun->orphaned = 0;
    tun->own_generation = tun->state->generation;
    tun->udp.leaving = 0;
    tun->retired = 0;

    ngx_log_error(NGX_LOG_NOTICE, tun->log, 0,
                  "tun \"%V\": queue %ui is served by this process again",
                  &tun->conf->device.name, tun->number);

    if (ngx_add_event(tun->connection->read, NGX_READ_EVENT, NGX_CLEAR_EVENT)
        != NGX_OK)
    {
        *reader = 0;
    }
}
