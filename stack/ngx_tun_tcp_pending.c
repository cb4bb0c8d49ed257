
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_stack.h>
#include <ngx_tun_tcp.h>


static void ngx_tun_tcp_pending_syn(ngx_tun_tcp_t *tcp, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th);


/* the SYN waits until the session knows that there is something to answer */

ngx_int_t
ngx_tun_tcp_pending_open(ngx_tun_tcp_t *tcp, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th)
{
    ngx_connection_t  *c;

    tcp->syn_len = th->data - pkt->start;
    tcp->syn_tcp = pkt->payload - pkt->start;

    if (tcp->syn_len > NGX_TUN_TCP_SYN_MAX) {
        return NGX_DECLINED;
    }

    c = ngx_tun_tcp_connection(tcp);
    if (c == NULL) {
        return NGX_DECLINED;
    }

    /* lives as long as the session, and so as long as it may be pending */

    tcp->syn = ngx_pnalloc(c->pool, tcp->syn_len);
    if (tcp->syn == NULL) {
        ngx_tun_tcp_end(tcp);
        return NGX_OK;
    }

    ngx_memcpy(tcp->syn, pkt->start, tcp->syn_len);

    (void) ngx_atomic_fetch_add(&tcp->tun->stat->flows, 1);

    c->listening->handler(c);

    return NGX_OK;
}


void
ngx_tun_tcp_pending_input(ngx_tun_tcp_t *tcp, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th)
{
    ngx_connection_t  *c;

    c = tcp->connection;

    if (c == NULL || tcp->gone) {
        return;
    }

    if (ngx_tun_tcp_is_syn(th)) {

        /* the same client tries again, perhaps with other numbers */

        if ((size_t) (th->data - pkt->start) == tcp->syn_len) {
            ngx_memcpy(tcp->syn, pkt->start, tcp->syn_len);
        }

        return;
    }

    if ((th->flags & NGX_TUN_PACKET_TCP_RST) == 0) {
        return;
    }

    /* a session that is told of a timeout gives its upstream up at once */

    tcp->gone = 1;

    c->read->timedout = 1;
    ngx_tun_tcp_wake(c->read);
}


void
ngx_tun_tcp_pending_answer(ngx_tun_tcp_t *tcp)
{
    ngx_tun_packet_t      pkt;
    ngx_tun_packet_tcp_t  th;

    if (tcp->state != NGX_TUN_TCP_PENDING || tcp->gone) {
        return;
    }

    ngx_tun_tcp_pending_syn(tcp, &pkt, &th);

    if (ngx_tun_tcp_open(tcp, &pkt, &th) != NGX_OK) {
        tcp->gone = 1;
        ngx_tun_tcp_wake(tcp->connection->read);
    }
}


void
ngx_tun_tcp_pending_refuse(ngx_tun_tcp_t *tcp)
{
    ngx_tun_packet_t      pkt;
    ngx_tun_packet_tcp_t  th;

    ngx_tun_tcp_pending_syn(tcp, &pkt, &th);

    ngx_tun_tcp_refuse(tcp->tun, &pkt, &th);
}


static void
ngx_tun_tcp_pending_syn(ngx_tun_tcp_t *tcp, ngx_tun_packet_t *pkt,
    ngx_tun_packet_tcp_t *th)
{
    ngx_tun_flow_key_t  *key;

    key = &tcp->flow.key;

    pkt->start = tcp->syn;
    pkt->end = tcp->syn + tcp->syn_len;
    pkt->payload = tcp->syn + tcp->syn_tcp;
    pkt->src = key->src;
    pkt->dst = key->dst;
    pkt->addr_len = key->addr_len;
    pkt->protocol = IPPROTO_TCP;
    pkt->fragment = 0;

    (void) ngx_tun_packet_parse_tcp(pkt, th);
}
