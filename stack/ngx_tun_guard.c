
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include <ngx_tun_guard.h>
#include <ngx_tun_netlink.h>

#include <sys/random.h>


/* two cache lines */
#define NGX_TUN_GUARD_WAYS    8

/* some milliseconds, for a worker that is in a system call */
#define NGX_TUN_GUARD_SPIN    262144

#define NGX_TUN_GUARD_LOCAL_TIME  5      /* s */

#define NGX_TUN_GUARD_PID     0x7fffffff
#define NGX_TUN_GUARD_LOOPED  0x80000000


typedef struct {
    ngx_uint_t                device;    /* index, or 0 */
    ngx_uint_t                type;      /* RTN_* */
} ngx_tun_guard_route_t;


static ngx_atomic_uint_t ngx_tun_guard_tag(ngx_tun_guard_t *guard,
    ngx_tun_flow_key_t *key);
static ngx_tun_guard_slot_t *ngx_tun_guard_slots(ngx_tun_guard_t *guard,
    ngx_atomic_uint_t tag);
static ngx_tun_guard_slot_t *ngx_tun_guard_take(ngx_tun_guard_t *guard,
    ngx_atomic_uint_t tag);
static void ngx_tun_guard_sweep(ngx_tun_guard_t *guard,
    ngx_atomic_uint_t tag);
static void ngx_tun_guard_await(ngx_tun_guard_t *guard,
    ngx_tun_flow_key_t *key);
static ngx_uint_t ngx_tun_guard_lookup(ngx_tun_guard_t *guard,
    ngx_tun_flow_key_t *key);
static ngx_uint_t ngx_tun_guard_gone(ngx_tun_guard_slot_t *slot);
static void ngx_tun_guard_free(ngx_tun_guard_slot_t *slot,
    ngx_atomic_uint_t tag);
static ngx_uint_t ngx_tun_guard_local(ngx_tun_guard_t *guard,
    ngx_tun_flow_key_t *key);
static ngx_int_t ngx_tun_guard_route(ngx_tun_guard_route_t *route,
    ngx_tun_flow_key_t *key, u_char *addr, ngx_uint_t device);
static ngx_int_t ngx_tun_guard_route_handler(struct nlmsghdr *header,
    void *data);
static void ngx_tun_guard_port(ngx_tun_flow_key_t *key,
    ngx_tun_flow_key_t *port);
static void ngx_tun_guard_target(ngx_tun_flow_key_t *key,
    ngx_tun_flow_key_t *target);


ngx_int_t
ngx_tun_guard_init(ngx_tun_guard_shared_t *shared)
{
    return (getrandom(shared->secret, sizeof(shared->secret), 0)
            == sizeof(shared->secret)) ? NGX_OK : NGX_ERROR;
}


void
ngx_tun_guard_attach(ngx_tun_guard_t *guard, ngx_tun_guard_shared_t *shared)
{
    ngx_memzero(guard, sizeof(ngx_tun_guard_t));

    guard->shared = shared;
    guard->hash.secret[0] = shared->secret[0];
    guard->hash.secret[1] = shared->secret[1];
}


void
ngx_tun_guard_connecting(ngx_tun_guard_t *guard, ngx_uint_t worker,
    ngx_tun_flow_key_t *key)
{
    ngx_atomic_uint_t        n;
    ngx_tun_flow_key_t       target;
    ngx_tun_guard_shared_t  *shared;

    shared = guard->shared;

    if (shared == NULL) {
        return;
    }

    worker %= NGX_TUN_GUARD_WORKERS;

    if (key == NULL) {
        ngx_memory_barrier();
        shared->connecting[worker] = 0;
        return;
    }

    for (n = shared->workers; n <= worker; n = shared->workers) {
        (void) ngx_atomic_cmp_set(&shared->workers, n, worker + 1);
    }

    ngx_tun_guard_target(key, &target);

    shared->connecting[worker] = ngx_tun_guard_tag(guard, &target);
}


void
ngx_tun_guard_add(ngx_tun_guard_t *guard, ngx_tun_guard_entry_t *entry,
    ngx_tun_flow_key_t *key)
{
    ngx_atomic_uint_t      tag;
    ngx_tun_flow_key_t     port;
    ngx_tun_guard_slot_t  *slot;

    if (key->dst_port == 0) {
        ngx_tun_guard_port(key, &port);
        key = &port;
    }

    tag = ngx_tun_guard_tag(guard, key);
    slot = ngx_tun_guard_take(guard, tag);

    if (slot == NULL) {
        ngx_tun_guard_sweep(guard, tag);
        slot = ngx_tun_guard_take(guard, tag);
    }

    entry->slot = slot;
    entry->tag = tag;
}


void
ngx_tun_guard_delete(ngx_tun_guard_entry_t *entry)
{
    if (entry->slot != NULL) {
        ngx_tun_guard_free(entry->slot, entry->tag);
        entry->slot = NULL;
    }
}


ngx_uint_t
ngx_tun_guard_looped(ngx_tun_guard_entry_t *entry)
{
    return entry->slot != NULL
           && (entry->slot->owner & NGX_TUN_GUARD_LOOPED) != 0;
}


ngx_uint_t
ngx_tun_guard_find(ngx_tun_guard_t *guard, ngx_tun_flow_key_t *key,
    ngx_str_t *device, ngx_log_t *log)
{
    u_char              src[NGX_SOCKADDR_STRLEN], dst[NGX_SOCKADDR_STRLEN];
    size_t              src_len, dst_len;
    ngx_int_t           family;
    ngx_uint_t          n;
    ngx_tun_flow_key_t  port;

    ngx_tun_guard_await(guard, key);

    if (!ngx_tun_guard_lookup(guard, key)) {

        if (key->protocol != IPPROTO_UDP) {
            return 0;
        }

        ngx_tun_guard_port(key, &port);

        if (!ngx_tun_guard_lookup(guard, &port)
            || !ngx_tun_guard_local(guard, key))
        {
            return 0;
        }
    }

    n = ngx_tun_guard_log(guard);

    if (n != 0) {
        family = (key->addr_len == 16) ? AF_INET6 : AF_INET;

        src_len = ngx_inet_ntop(family, key->src, src, NGX_SOCKADDR_STRLEN);
        dst_len = ngx_inet_ntop(family, key->dst, dst, NGX_SOCKADDR_STRLEN);

        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "tun \"%V\": a loop, what was sent to %*s port %uD for "
                      "a session came back, from %*s port %uD; "
                      "%ui since the last line", device,
                      dst_len, dst, (uint32_t) key->dst_port,
                      src_len, src, (uint32_t) key->src_port, n);
    }

    return 1;
}


ngx_uint_t
ngx_tun_guard_log(ngx_tun_guard_t *guard)
{
    ngx_uint_t               n;
    ngx_atomic_uint_t        logged;
    ngx_tun_guard_shared_t  *shared;

    shared = guard->shared;

    (void) ngx_atomic_fetch_add(&shared->unlogged, 1);

    logged = shared->logged;

    if (logged == (ngx_atomic_uint_t) ngx_time()
        || !ngx_atomic_cmp_set(&shared->logged, logged, ngx_time()))
    {
        return 0;
    }

    n = shared->unlogged;
    (void) ngx_atomic_fetch_add(&shared->unlogged, -(ngx_atomic_int_t) n);

    return n;
}


static ngx_atomic_uint_t
ngx_tun_guard_tag(ngx_tun_guard_t *guard, ngx_tun_flow_key_t *key)
{
    ngx_atomic_uint_t  tag;

    tag = (ngx_atomic_uint_t) ngx_tun_flow_hash(&guard->hash, key, 0);

    return tag ? tag : 1;
}


static ngx_tun_guard_slot_t *
ngx_tun_guard_slots(ngx_tun_guard_t *guard, ngx_atomic_uint_t tag)
{
    return &guard->shared->slots[tag % NGX_TUN_GUARD_SLOTS
                                 / NGX_TUN_GUARD_WAYS * NGX_TUN_GUARD_WAYS];
}


static ngx_tun_guard_slot_t *
ngx_tun_guard_take(ngx_tun_guard_t *guard, ngx_atomic_uint_t tag)
{
    ngx_uint_t             i;
    ngx_tun_guard_slot_t  *slot;

    slot = ngx_tun_guard_slots(guard, tag);

    for (i = 0; i < NGX_TUN_GUARD_WAYS; i++, slot++) {

        if (slot->tag == 0 && ngx_atomic_cmp_set(&slot->tag, 0, tag)) {
            (void) ngx_atomic_fetch_add(&slot->owner, ngx_pid);
            return slot;
        }
    }

    return NULL;
}


static void
ngx_tun_guard_sweep(ngx_tun_guard_t *guard, ngx_atomic_uint_t tag)
{
    ngx_uint_t             i;
    ngx_tun_guard_slot_t  *slot;

    slot = ngx_tun_guard_slots(guard, tag);

    for (i = 0; i < NGX_TUN_GUARD_WAYS; i++, slot++) {
        tag = slot->tag;

        if (tag != 0 && ngx_tun_guard_gone(slot)) {
            ngx_tun_guard_free(slot, tag);
        }
    }
}


/*
 * A packet may be here before the worker that has sent it is back from its
 * connect().
 */

static void
ngx_tun_guard_await(ngx_tun_guard_t *guard, ngx_tun_flow_key_t *key)
{
    ngx_uint_t               i, n;
    ngx_atomic_uint_t        tag;
    ngx_tun_flow_key_t       target;
    ngx_tun_guard_shared_t  *shared;

    shared = guard->shared;

    ngx_tun_guard_target(key, &target);
    tag = ngx_tun_guard_tag(guard, &target);

    for (i = 0; i < shared->workers; i++) {

        if (shared->connecting[i] != tag || !ngx_tun_guard_local(guard, key)) {
            continue;
        }

        for (n = 0; n < NGX_TUN_GUARD_SPIN; n++) {

            if (shared->connecting[i] != tag) {
                break;
            }

            ngx_cpu_pause();

            if (n % 64 == 63) {
                ngx_sched_yield();
            }
        }
    }

    /* the socket is added before the worker says that it has connected */

    ngx_memory_barrier();
}


static ngx_uint_t
ngx_tun_guard_lookup(ngx_tun_guard_t *guard, ngx_tun_flow_key_t *key)
{
    ngx_uint_t             i;
    ngx_atomic_uint_t      tag, owner;
    ngx_tun_guard_slot_t  *slot;

    tag = ngx_tun_guard_tag(guard, key);
    slot = ngx_tun_guard_slots(guard, tag);

    for (i = 0; i < NGX_TUN_GUARD_WAYS; i++, slot++) {

        if (slot->tag != tag) {
            continue;
        }

        if (ngx_tun_guard_gone(slot)) {
            ngx_tun_guard_free(slot, tag);
            return 0;
        }

        owner = slot->owner;

        (void) ngx_atomic_cmp_set(&slot->owner, owner,
                                  owner | NGX_TUN_GUARD_LOOPED);

        return 1;
    }

    return 0;
}


/* a worker that has crashed leaves what it had */

static ngx_uint_t
ngx_tun_guard_gone(ngx_tun_guard_slot_t *slot)
{
    ngx_pid_t  pid;

    pid = (ngx_pid_t) (slot->owner & NGX_TUN_GUARD_PID);

    return pid != 0 && pid != ngx_pid
           && kill(pid, 0) == -1 && ngx_errno == NGX_ESRCH;
}


static void
ngx_tun_guard_free(ngx_tun_guard_slot_t *slot, ngx_atomic_uint_t tag)
{
    slot->owner = 0;

    ngx_memory_barrier();

    (void) ngx_atomic_cmp_set(&slot->tag, tag, 0);
}


ngx_uint_t
ngx_tun_guard_returns(ngx_tun_flow_key_t *key, ngx_uint_t device)
{
    ngx_tun_guard_route_t  route;

    return ngx_tun_guard_route(&route, key, key->dst, device) == NGX_OK
           && route.type == RTN_UNICAST
           && route.device == device;
}


/* the kernel knows which addresses are its own; they change rarely */

static ngx_uint_t
ngx_tun_guard_local(ngx_tun_guard_t *guard, ngx_tun_flow_key_t *key)
{
    ngx_uint_t              i, n;
    ngx_tun_guard_local_t  *local;
    ngx_tun_guard_route_t   route;

    for (n = 0, i = 0; i < 16; i++) {
        n = n * 31 + key->src[i];
    }

    local = &guard->local[n % NGX_TUN_GUARD_LOCAL];

    if (local->until <= ngx_time()
        || ngx_memcmp(local->addr, key->src, 16) != 0)
    {
        ngx_memcpy(local->addr, key->src, 16);

        local->until = ngx_time() + NGX_TUN_GUARD_LOCAL_TIME;
        local->yes = (ngx_tun_guard_route(&route, key, key->src, 0) == NGX_OK
                      && route.type == RTN_LOCAL);
    }

    return local->yes;
}


/* where a packet to addr goes, of this machine or that came by a device */

static ngx_int_t
ngx_tun_guard_route(ngx_tun_guard_route_t *route, ngx_tun_flow_key_t *key,
    u_char *addr, ngx_uint_t device)
{
    ngx_int_t               rc;
    ngx_socket_t            s;
    struct rtmsg           *rtm;
    ngx_tun_netlink_msg_t   msg;

    s = ngx_tun_netlink_open();
    if (s == (ngx_socket_t) -1) {
        return NGX_ERROR;
    }

    rtm = ngx_tun_netlink_init(&msg, RTM_GETROUTE, 0, sizeof(struct rtmsg));

    rtm->rtm_family = (key->addr_len == 16) ? AF_INET6 : AF_INET;
    rtm->rtm_dst_len = (u_char) (key->addr_len * 8);

    ngx_tun_netlink_add(&msg, RTA_DST, addr, key->addr_len);

    if (device != 0) {
        rtm->rtm_src_len = rtm->rtm_dst_len;

        ngx_tun_netlink_add(&msg, RTA_SRC, key->src, key->addr_len);
        ngx_tun_netlink_add_u32(&msg, RTA_IIF, (uint32_t) device);
    }

    ngx_memzero(route, sizeof(ngx_tun_guard_route_t));

    rc = ngx_tun_netlink_talk(s, &msg, ngx_tun_guard_route_handler, route);

    (void) ngx_close_socket(s);

    return rc;
}


static ngx_int_t
ngx_tun_guard_route_handler(struct nlmsghdr *header, void *data)
{
    ngx_tun_guard_route_t *route = data;

    uint32_t        oif;
    struct rtmsg   *rtm;
    struct rtattr  *rta;

    if (header->nlmsg_type != RTM_NEWROUTE) {
        return NGX_OK;
    }

    rtm = NLMSG_DATA(header);
    route->type = rtm->rtm_type;

    rta = ngx_tun_netlink_attr(header, sizeof(struct rtmsg), RTA_OIF);

    if (rta != NULL && RTA_PAYLOAD(rta) == sizeof(uint32_t)) {
        ngx_memcpy(&oif, RTA_DATA(rta), sizeof(uint32_t));
        route->device = oif;
    }

    return NGX_OK;
}


static void
ngx_tun_guard_port(ngx_tun_flow_key_t *key, ngx_tun_flow_key_t *port)
{
    ngx_memzero(port, sizeof(ngx_tun_flow_key_t));

    port->src_port = key->src_port;
    port->protocol = key->protocol;
    port->addr_len = key->addr_len;
}


static void
ngx_tun_guard_target(ngx_tun_flow_key_t *key, ngx_tun_flow_key_t *target)
{
    *target = *key;

    target->src_port = 0;
    ngx_memzero(target->src, 16);
}
