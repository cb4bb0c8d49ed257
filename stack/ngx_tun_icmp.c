
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_icmp.h>
#include <ngx_tun_icmp_forward.h>


#define NGX_TUN_ICMP_SOURCES  4096

/* what one costs of a source's second, ms */
#define NGX_TUN_ICMP_SECOND   1000
#define NGX_TUN_ICMP_ECHO     1
#define NGX_TUN_ICMP_ERROR    10

#define NGX_TUN_ICMP_DOMAIN   2          /* of the flow table's hash */


struct ngx_tun_icmp_s {

    /* until when a source has spent; those of one hash share it */

    ngx_msec_t              echo[NGX_TUN_ICMP_SOURCES];
    ngx_msec_t              error[NGX_TUN_ICMP_SOURCES];

    ngx_tun_icmp_forward_t *forward;
};


static ngx_uint_t ngx_tun_icmp_limited(ngx_tun_t *tun, ngx_msec_t *spent,
    u_char *src, size_t addr_len, ngx_msec_t cost);
static void ngx_tun_icmp_reply(ngx_tun_t *tun, ngx_tun_packet_t *pkt);
static void ngx_tun_icmp_send_error(ngx_tun_t *tun, ngx_tun_icmp_error_e error,
    ngx_tun_packet_t *pkt);
static void ngx_tun_icmp_source(ngx_tun_t *tun, ngx_tun_icmp_error_e error,
    ngx_tun_packet_t *pkt, u_char *src);
static ngx_int_t ngx_tun_icmp_neighbour(ngx_tun_address_t *addr,
    u_char *src);


ngx_int_t
ngx_tun_icmp_open(ngx_tun_t *tun, ngx_tun_options_t *options)
{
    tun->icmp = ngx_calloc(sizeof(ngx_tun_icmp_t), tun->log);
    if (tun->icmp == NULL) {
        return NGX_ERROR;
    }

    if (tun->conf->icmp != NGX_TUN_ICMP_FORWARD) {
        return NGX_OK;
    }

    tun->icmp->forward = ngx_tun_icmp_forward_open(tun, options->icmp,
                                                   options->part,
                                                   options->parts);

    return (tun->icmp->forward != NULL) ? NGX_OK : NGX_ERROR;
}


void
ngx_tun_icmp_retire(ngx_tun_t *tun)
{
    if (tun->icmp->forward != NULL) {
        ngx_tun_icmp_forward_close(tun->icmp->forward);
        tun->icmp->forward = NULL;
    }
}


void
ngx_tun_icmp_close(ngx_tun_t *tun)
{
    if (tun->icmp != NULL) {
        ngx_tun_icmp_retire(tun);

        ngx_free(tun->icmp);
        tun->icmp = NULL;
    }
}


void
ngx_tun_icmp_input(ngx_tun_t *tun, ngx_tun_packet_t *pkt)
{
    ngx_tun_packet_icmp_t  icmp;
    ngx_tun_icmp_error_e   error;

    if (ngx_tun_packet_parse_icmp(pkt, &icmp) != NGX_TUN_PACKET_OK) {
        (void) ngx_atomic_fetch_add(&tun->stat->invalid, 1);
        return;
    }

    if (icmp.kind != NGX_TUN_PACKET_ICMP_REQUEST
        || tun->conf->icmp == NGX_TUN_ICMP_DROP
        || ngx_tun_broadcast(tun, pkt->dst, pkt->addr_len))
    {
        (void) ngx_atomic_fetch_add(&tun->stat->unsupported, 1);
        return;
    }

    if (ngx_tun_packet_check_icmp(pkt) != NGX_TUN_PACKET_OK) {
        (void) ngx_atomic_fetch_add(&tun->stat->checksum, 1);
        return;
    }

    if (ngx_tun_icmp_limited(tun, tun->icmp->echo, pkt->src, pkt->addr_len,
                             NGX_TUN_ICMP_ECHO))
    {
        return;
    }

    if (tun->conf->icmp == NGX_TUN_ICMP_REPLY) {
        ngx_tun_icmp_reply(tun, pkt);

    } else if (tun->icmp->forward != NULL
               && ngx_tun_icmp_forward_send(tun->icmp->forward, pkt, &icmp,
                                            &error)
                  == NGX_DECLINED)
    {
        ngx_tun_icmp_error_about_packet(tun, error, pkt);
    }
}


/*
 * A token bucket of a second's worth that needs no refill: what is taken moves
 * the time until which the source has spent, and that is at most a second away.
 */

static ngx_uint_t
ngx_tun_icmp_limited(ngx_tun_t *tun, ngx_msec_t *spent, u_char *src,
    size_t addr_len, ngx_msec_t cost)
{
    uint64_t            hash;
    ngx_msec_int_t      ahead;
    ngx_tun_flow_key_t  key;

    ngx_memzero(&key, sizeof(ngx_tun_flow_key_t));
    ngx_memcpy(key.src, src, ngx_min(addr_len, 8));
    key.addr_len = (uint16_t) addr_len;

    hash = ngx_tun_flow_hash(&tun->flows, &key, NGX_TUN_ICMP_DOMAIN);
    spent += hash % NGX_TUN_ICMP_SOURCES;

    ahead = (ngx_msec_int_t) (*spent - ngx_current_msec);

    /* what is further away is of long ago */

    if (ahead < 0 || ahead > NGX_TUN_ICMP_SECOND) {
        ahead = 0;
    }

    if (ahead + cost > NGX_TUN_ICMP_SECOND) {
        (void) ngx_atomic_fetch_add(&tun->stat->limited_icmp, 1);
        return 1;
    }

    *spent = ngx_current_msec + ahead + cost;

    return 0;
}


static void
ngx_tun_icmp_reply(ngx_tun_t *tun, ngx_tun_packet_t *pkt)
{
    ngx_tun_packet_echo_reply(pkt);

    (void) ngx_tun_queue_write(&tun->queue, pkt->start, pkt->end - pkt->start);
    (void) ngx_atomic_fetch_add(&tun->stat->icmp_echo, 1);
}


void
ngx_tun_icmp_error(ngx_tun_t *tun, ngx_tun_icmp_error_e error,
    ngx_tun_flow_key_t *key, size_t len)
{
    u_char            buf[NGX_TUN_PACKET_QUOTE_MAX];
    ngx_tun_packet_t  pkt;

    ngx_tun_packet_quote_udp(&pkt, buf, key->src, key->dst, key->addr_len,
                             key->src_port, key->dst_port, len);

    ngx_tun_icmp_error_about_packet(tun, error, &pkt);
}


void
ngx_tun_icmp_looped(ngx_tun_t *tun, ngx_tun_flow_key_t *key, size_t len)
{
    u_char            buf[NGX_TUN_PACKET_QUOTE_MAX];
    ngx_tun_packet_t  pkt;

    ngx_tun_packet_quote_udp(&pkt, buf, key->src, key->dst, key->addr_len,
                             key->src_port, key->dst_port, len);

    ngx_tun_icmp_send_error(tun, NGX_TUN_ICMP_PORT_UNREACHABLE, &pkt);
}


void
ngx_tun_icmp_error_about_packet(ngx_tun_t *tun, ngx_tun_icmp_error_e error,
    ngx_tun_packet_t *pkt)
{
    if (tun->conf->icmp == NGX_TUN_ICMP_DROP
        || !ngx_tun_packet_may_error(pkt)
        || ngx_tun_broadcast(tun, pkt->dst, pkt->addr_len)
        || ngx_tun_broadcast(tun, pkt->src, pkt->addr_len))
    {
        return;
    }

    if (ngx_tun_icmp_limited(tun, tun->icmp->error, pkt->src, pkt->addr_len,
                             NGX_TUN_ICMP_ERROR))
    {
        return;
    }

    ngx_tun_icmp_send_error(tun, error, pkt);
}


static void
ngx_tun_icmp_send_error(ngx_tun_t *tun, ngx_tun_icmp_error_e error,
    ngx_tun_packet_t *pkt)
{
    size_t  len;
    u_char  src[16], buf[NGX_TUN_PACKET_ICMP6_ERROR_MAX];

    ngx_tun_icmp_source(tun, error, pkt, src);

    len = ngx_tun_packet_build_icmp_error(buf, error, src, pkt,
                                          tun->conf->device.mtu);

    (void) ngx_tun_queue_write(&tun->queue, buf, len);
    (void) ngx_atomic_fetch_add(&tun->stat->icmp_errors, 1);

    ngx_tun_post_flush(tun);
}


/*
 * A port is known to be closed by its host, all else is the word of a router.
 * The kernel at the other end would not believe its own address, so it is the
 * next one in the device's network.
 */

static void
ngx_tun_icmp_source(ngx_tun_t *tun, ngx_tun_icmp_error_e error,
    ngx_tun_packet_t *pkt, u_char *src)
{
    ngx_uint_t          i;
    ngx_tun_address_t  *addr;

    if (error != NGX_TUN_ICMP_PORT_UNREACHABLE) {
        addr = tun->conf->device.addresses.elts;

        for (i = 0; i < tun->conf->device.addresses.nelts; i++) {

            if (addr[i].addr_len == pkt->addr_len
                && ngx_tun_icmp_neighbour(&addr[i], src) == NGX_OK)
            {
                return;
            }
        }
    }

    ngx_memcpy(src, pkt->dst, pkt->addr_len);
}


static ngx_int_t
ngx_tun_icmp_neighbour(ngx_tun_address_t *addr, u_char *src)
{
    u_char      host, *last;
    ngx_uint_t  bits;

    bits = addr->addr_len * 8 - addr->prefix;

    /* with one bit or none there is nobody else, or one for all */

    if (bits < 2) {
        return NGX_DECLINED;
    }

    host = (bits < 8) ? (u_char) ((1 << bits) - 1) : 0xff;

    last = ngx_cpymem(src, addr->addr, addr->addr_len) - 1;

    /* what is all ones may be for all */

    *last = ((*last & host) + 1 < host) ? *last + 1 : *last - 1;

    return NGX_OK;
}
