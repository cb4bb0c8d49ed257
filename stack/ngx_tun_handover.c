
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>


static void ngx_tun_box_handler(ngx_event_t *rev);


ngx_int_t
ngx_tun_open_box(ngx_tun_t *tun)
{
    ngx_connection_t  *c;

    if (tun->owner->box == NGX_TUN_OWNER_NONE) {
        ngx_log_error(NGX_LOG_WARN, tun->log, 0,
                      "tun \"%V\": so many workers are there that this one "
                      "gets no packets from the others",
                      &tun->conf->device.name);
        return NGX_OK;
    }

    c = ngx_get_connection(tun->handoff->pairs[tun->owner->box].read,
                           tun->log);
    if (c == NULL) {
        return NGX_ERROR;
    }

    tun->box = c;

    c->data = tun;
    c->log = tun->log;
    c->read->log = tun->log;
    c->write->log = tun->log;
    c->read->handler = ngx_tun_box_handler;
    c->read->channel = 1;

    return ngx_add_event(c->read, NGX_READ_EVENT, NGX_CLEAR_EVENT);
}


ngx_int_t
ngx_tun_hand_over(ngx_tun_t *tun, uint64_t hash, ngx_uint_t opens)
{
    ngx_uint_t               box;
    ngx_tun_packet_t        *pkt;
    ngx_tun_handoff_info_t   info;

    /* one hop: who had the flow knows best that there is none */

    if (tun->handed) {
        return NGX_DECLINED;
    }

    box = ngx_tun_owner_find(tun->owner, hash);

    if (box == NGX_TUN_OWNER_NONE
        && opens
        && (ngx_exiting || tun->retired))
    {
        box = ngx_tun_owner_next(tun->owner, tun->own_cycle);
    }

    if (box == NGX_TUN_OWNER_NONE) {
        return NGX_DECLINED;
    }

    pkt = tun->packet;

    info.trusted = tun->info->trusted;
    info.datagram = tun->info->datagram;

    return ngx_tun_handoff_send(tun->handoff, box, pkt->start,
                                pkt->end - pkt->start, &info);
}


static void
ngx_tun_box_handler(ngx_event_t *rev)
{
    ssize_t                  n;
    ngx_uint_t               packets;
    ngx_tun_t               *tun;
    ngx_connection_t        *c;
    ngx_tun_queue_info_t     info;
    ngx_tun_handoff_info_t   told;

    c = rev->data;
    tun = c->data;

    if (tun->state->generation != tun->own_generation
        && tun->own_generation != 0)
    {
        ngx_tun_retire(tun);
    }

    tun->handed = 1;

    for (packets = 0; packets < NGX_TUN_READ_PACKETS; packets++) {

        if (ngx_tun_get_buf(tun) != NGX_OK) {
            break;
        }

        n = ngx_tun_handoff_recv(tun->handoff, tun->owner->box,
                                 tun->buf->data + NGX_TUN_QUEUE_HEAD,
                                 NGX_TUN_LWIP_BUF_MAX, &told);

        if (n == NGX_AGAIN || n == NGX_ERROR) {
            break;
        }

        /* with it went what the kernel had said of it */

        ngx_memzero(tun->buf->data, NGX_TUN_QUEUE_HEAD);

        info.trusted = told.trusted;
        info.datagram = told.datagram;

        if (ngx_tun_input(tun, tun->buf, n, &info) == NGX_DONE) {
            tun->buf = NULL;
        }
    }

    tun->handed = 0;

    if (packets == NGX_TUN_READ_PACKETS || tun->buf == NULL) {
        ngx_post_event(rev, &ngx_posted_next_events);
    }

    ngx_tun_post_flush(tun);
}
