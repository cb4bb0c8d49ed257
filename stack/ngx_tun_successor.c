
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>
#include <ngx_tun_icmp.h>


#define NGX_TUN_LINGER         200          /* ms */

/* times of NGX_TUN_LINGER: a worker that died is there again before */
#define NGX_TUN_ORPHANED       2
#define NGX_TUN_UNCLAIMED      25


static void ngx_tun_resume(ngx_tun_t *tun);
static ngx_uint_t ngx_tun_process_alive(ngx_atomic_uint_t pid);
static void ngx_tun_handoff_handler(ngx_event_t *rev);


ngx_int_t
ngx_tun_open_handoff(ngx_tun_t *tun)
{
    ngx_connection_t  *c;

    if (tun->reader->cycle == tun->own_cycle
        && ngx_tun_process_alive(tun->reader->pid))
    {
        /* an upgrade was undone: the worker before has flows, and the socket */

        if (!tun->borrowed) {
            tun->borrowed = 1;
            return ngx_tun_handoff_own(tun->handoff, 1);
        }

        return NGX_OK;
    }

    if (tun->borrowed) {
        tun->borrowed = 0;
        (void) ngx_tun_handoff_own(tun->handoff, 0);
    }

    tun->reader->cycle = tun->own_cycle;
    tun->reader->pid = ngx_pid;

    c = ngx_get_connection(tun->handoff->read, tun->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    tun->successor = c;

    c->data = tun;
    c->log = tun->log;
    c->read->log = tun->log;
    c->write->log = tun->log;
    c->read->handler = ngx_tun_handoff_handler;
    c->read->channel = 1;

    return ngx_add_event(c->read, NGX_READ_EVENT, NGX_CLEAR_EVENT);
}


void
ngx_tun_disown(ngx_tun_t *tun)
{
    ngx_atomic_uint_t  pid;

    pid = ngx_pid;

    (void) ngx_atomic_cmp_set(&tun->state->owner[tun->number], pid, 0);
    (void) ngx_atomic_cmp_set(&tun->reader->pid, pid, 0);
}


/* the queue belongs to a worker of a later cycle now */

void
ngx_tun_retire(ngx_tun_t *tun)
{
    ngx_event_t  *rev;

    rev = tun->connection->read;

    if (rev->active) {
        ngx_del_event(rev, NGX_READ_EVENT, 0);
    }

    if (!tun->retired) {
        tun->retired = 1;
        ngx_tun_icmp_retire(tun);
        ngx_tun_linger_handler(&tun->linger);
        ngx_tun_udp_retire(tun);
    }
}


void
ngx_tun_linger_handler(ngx_event_t *ev)
{
    ngx_uint_t         again;
    ngx_tun_t         *tun;
    ngx_connection_t  *c;

    c = ev->data;
    tun = c->data;

    again = 0;
    ev->cancelable = 1;

    if (tun->successor == NULL) {
        (void) ngx_tun_open_handoff(tun);
        again = (tun->successor == NULL);
    }

    if (!c->read->active && !ngx_exiting && !tun->lost) {
        ngx_tun_resume(tun);
        again |= !c->read->active;
    }

    /* without this worker its predecessor would not get what it waits for */

    if (!c->read->active && ngx_tun_handoff_alive(tun->handoff)) {
        ev->cancelable = 0;
        again = 1;
    }

    if (again) {
        ngx_add_timer(ev, NGX_TUN_LINGER);
    }
}


/* a binary that had taken over has died, or was asked to leave */

static void
ngx_tun_resume(ngx_tun_t *tun)
{
    ngx_uint_t          wait;
    ngx_atomic_t       *owner;
    ngx_atomic_uint_t   pid;

    owner = &tun->state->owner[tun->number];
    pid = *owner;
    wait = NGX_TUN_ORPHANED;

    if (pid == (ngx_atomic_uint_t) ngx_pid) {
        /* whoever wants it has not started yet */
        wait = NGX_TUN_UNCLAIMED;

    } else if (ngx_tun_process_alive(pid)) {
        tun->orphaned = 0;
        return;
    }

    if (++tun->orphaned < wait
        || !ngx_atomic_cmp_set(owner, pid, (ngx_atomic_uint_t) ngx_pid))
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
        *owner = 0;
    }
}


static ngx_uint_t
ngx_tun_process_alive(ngx_atomic_uint_t pid)
{
    if (pid == 0) {
        return 0;
    }

    return kill((ngx_pid_t) pid, 0) == 0 || ngx_errno == NGX_EPERM;
}


static void
ngx_tun_handoff_handler(ngx_event_t *rev)
{
    ssize_t                n;
    ngx_uint_t             packets;
    ngx_tun_t             *tun;
    ngx_connection_t      *c;
    ngx_tun_queue_info_t   info;

    c = rev->data;
    tun = c->data;

    ngx_tun_retire(tun);

    for (packets = 0; packets < NGX_TUN_READ_PACKETS; packets++) {

        if (ngx_tun_get_buf(tun) != NGX_OK) {
            break;
        }

        n = ngx_tun_handoff_recv(tun->handoff,
                                 tun->buf->data + NGX_TUN_QUEUE_HEAD, 65535,
                                 &info.trusted);
        info.datagram = 0;

        if (n == NGX_AGAIN) {
            break;
        }

        if (n == NGX_ERROR) {

            /* nobody hands over any more */
            ngx_del_event(rev, NGX_READ_EVENT, 0);
            return;
        }

        /* datagrams come back from a binary that leaves before this one */

        if (!ngx_exiting) {
            tun->udp.leaving = 0;
        }

        if (ngx_tun_input(tun, tun->buf, n, &info) == NGX_DONE) {
            tun->buf = NULL;
        }
    }

    if (packets == NGX_TUN_READ_PACKETS) {
        ngx_post_event(rev, &ngx_posted_next_events);
    }

    ngx_tun_post_flush(tun);
}
