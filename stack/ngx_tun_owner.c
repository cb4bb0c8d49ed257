
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_owner.h>

#include <signal.h>
#include <sys/random.h>


/* flows that have room if none are given, and twice as many entries */
#define NGX_TUN_OWNER_FLOWS      65536
#define NGX_TUN_OWNER_FLOWS_MAX  (16 * 1024 * 1024)

#define NGX_TUN_OWNER_EPOCHS     256

/* the bits of an entry */
#define ngx_tun_owner_tag(entry)    ((entry) & ~(uint64_t) 0xffff)
#define ngx_tun_owner_epoch(entry)  (((entry) >> 8) & 0xff)
#define ngx_tun_owner_box(entry)    ((ngx_uint_t) (entry) & 0xff)

#define NGX_TUN_OWNER_HEAD                                                    \
    ngx_align(sizeof(ngx_tun_owners_t), 64)


static ngx_uint_t ngx_tun_owner_buckets(ngx_uint_t flows);
static ngx_atomic_t *ngx_tun_owner_bucket(ngx_tun_owner_t *owner,
    uint64_t hash, ngx_uint_t second);
static ngx_atomic_t *ngx_tun_owner_entry(ngx_tun_owner_t *owner,
    uint64_t hash, uint64_t mark);
static ngx_int_t ngx_tun_owner_put(ngx_atomic_t *bucket, uint64_t entry);
static void ngx_tun_owner_clean(ngx_tun_owner_t *owner, ngx_atomic_t *bucket);
static ngx_uint_t ngx_tun_owner_alive(ngx_tun_owner_t *owner, uint64_t entry);


static ngx_uint_t
ngx_tun_owner_buckets(ngx_uint_t flows)
{
    ngx_uint_t  n;

    flows = (flows != 0) ? ngx_min(flows, NGX_TUN_OWNER_FLOWS_MAX)
                         : NGX_TUN_OWNER_FLOWS;

    n = 1;

    while (n * NGX_TUN_OWNER_BUCKET < 2 * flows) {
        n *= 2;
    }

    return n;
}


size_t
ngx_tun_owners_size(ngx_uint_t flows)
{
    return NGX_TUN_OWNER_HEAD + ngx_tun_owner_buckets(flows)
                                * NGX_TUN_OWNER_BUCKET * sizeof(ngx_atomic_t);
}


ngx_int_t
ngx_tun_owners_init(ngx_tun_owners_t *shared, ngx_uint_t flows, ngx_log_t *log)
{
    if (getrandom(shared->secret, sizeof(shared->secret), GRND_NONBLOCK)
        != sizeof(shared->secret))
    {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno, "getrandom() failed");
        return NGX_ERROR;
    }

    shared->mask = ngx_tun_owner_buckets(flows) - 1;

    return NGX_OK;
}


ngx_uint_t
ngx_tun_owners_valid(ngx_tun_owners_t *shared, size_t size)
{
    return size > NGX_TUN_OWNER_HEAD
           && ((shared->mask + 1) & shared->mask) == 0
           && (size - NGX_TUN_OWNER_HEAD)
              / (NGX_TUN_OWNER_BUCKET * sizeof(ngx_atomic_t))
              > shared->mask;
}


ngx_uint_t
ngx_tun_owners_taken(ngx_tun_owners_t *shared, ngx_uint_t n)
{
    ngx_uint_t  i, taken;

    taken = 0;

    for (i = 0; i < n; i++) {
        taken += ngx_tun_process_alive(shared->boxes[i].pid);
    }

    return taken;
}


void
ngx_tun_owner_open(ngx_tun_owner_t *owner, ngx_tun_owners_t *shared,
    ngx_uint_t n)
{
    uint64_t              epoch;
    ngx_uint_t            i;
    ngx_atomic_uint_t     pid;
    ngx_tun_owner_box_t  *box;

    owner->shared = shared;
    owner->entries = (ngx_atomic_t *) ((u_char *) shared + NGX_TUN_OWNER_HEAD);
    owner->box = NGX_TUN_OWNER_NONE;
    owner->mark = 0;

    for (i = 0; i < n; i++) {
        box = &shared->boxes[i];
        pid = box->pid;

        if (!ngx_tun_process_alive(pid)
            && ngx_atomic_cmp_set(&box->pid, pid, (ngx_atomic_uint_t) ngx_pid))
        {
            break;
        }
    }

    if (i == n) {
        return;
    }

    /* 0 is the word of an entry that there is not */

    epoch = (box->epoch + 1) % NGX_TUN_OWNER_EPOCHS;
    epoch = ngx_max(epoch, 1);

    box->ready = 0;
    box->flows = 0;
    box->epoch = epoch;

    owner->box = i;
    owner->mark = epoch << 8 | i;
}


void
ngx_tun_owner_close(ngx_tun_owner_t *owner)
{
    ngx_tun_owner_box_t  *box;

    if (owner->box == NGX_TUN_OWNER_NONE) {
        return;
    }

    box = &owner->shared->boxes[owner->box];

    box->ready = 0;
    box->flows = 0;

    (void) ngx_atomic_cmp_set(&box->pid, (ngx_atomic_uint_t) ngx_pid, 0);

    owner->box = NGX_TUN_OWNER_NONE;
}


void
ngx_tun_owner_ready(ngx_tun_owner_t *owner, ngx_atomic_uint_t generation)
{
    if (owner->box != NGX_TUN_OWNER_NONE) {
        owner->shared->boxes[owner->box].ready = generation;
    }
}


/* the bits below the tag choose the first bucket, and some of it the second */

static ngx_atomic_t *
ngx_tun_owner_bucket(ngx_tun_owner_t *owner, uint64_t hash, ngx_uint_t second)
{
    ngx_uint_t  i;

    i = (ngx_uint_t) hash;

    if (second) {
        i ^= (ngx_uint_t) (hash >> 32) | 1;
    }

    return owner->entries + (i & owner->shared->mask) * NGX_TUN_OWNER_BUCKET;
}


/* the entry of the flow with that mark, or with any if it is 0 */

static ngx_atomic_t *
ngx_tun_owner_entry(ngx_tun_owner_t *owner, uint64_t hash, uint64_t mark)
{
    uint64_t       entry;
    ngx_uint_t     i, k;
    ngx_atomic_t  *bucket;

    for (k = 0; k < 2; k++) {
        bucket = ngx_tun_owner_bucket(owner, hash, k);

        for (i = 0; i < NGX_TUN_OWNER_BUCKET; i++) {
            entry = bucket[i];

            if (entry != 0
                && ngx_tun_owner_tag(entry) == ngx_tun_owner_tag(hash)
                && (mark == 0 || entry - ngx_tun_owner_tag(entry) == mark))
            {
                return &bucket[i];
            }
        }
    }

    return NULL;
}


void
ngx_tun_owner_insert(ngx_tun_owner_t *owner, uint64_t hash)
{
    uint64_t       entry;
    ngx_uint_t     k;
    ngx_atomic_t  *bucket;

    if (owner->box == NGX_TUN_OWNER_NONE) {
        return;
    }

    entry = ngx_tun_owner_tag(hash) | owner->mark;

    for (k = 0; k < 2; k++) {
        bucket = ngx_tun_owner_bucket(owner, hash, k);

        if (ngx_tun_owner_put(bucket, entry) == NGX_OK) {
            return;
        }
    }

    for (k = 0; k < 2; k++) {
        bucket = ngx_tun_owner_bucket(owner, hash, k);

        ngx_tun_owner_clean(owner, bucket);

        if (ngx_tun_owner_put(bucket, entry) == NGX_OK) {
            return;
        }
    }
}


static ngx_int_t
ngx_tun_owner_put(ngx_atomic_t *bucket, uint64_t entry)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_TUN_OWNER_BUCKET; i++) {
        if (bucket[i] == 0 && ngx_atomic_cmp_set(&bucket[i], 0, entry)) {
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


static void
ngx_tun_owner_clean(ngx_tun_owner_t *owner, ngx_atomic_t *bucket)
{
    uint64_t    entry;
    ngx_uint_t  i;

    for (i = 0; i < NGX_TUN_OWNER_BUCKET; i++) {
        entry = bucket[i];

        if (entry != 0 && !ngx_tun_owner_alive(owner, entry)) {
            (void) ngx_atomic_cmp_set(&bucket[i], entry, 0);
        }
    }
}


void
ngx_tun_owner_delete(ngx_tun_owner_t *owner, uint64_t hash)
{
    ngx_atomic_t  *p;

    if (owner->box == NGX_TUN_OWNER_NONE) {
        return;
    }

    p = ngx_tun_owner_entry(owner, hash, owner->mark);

    if (p != NULL) {
        *p = 0;
    }
}


ngx_uint_t
ngx_tun_owner_find(ngx_tun_owner_t *owner, uint64_t hash)
{
    uint64_t       entry;
    ngx_atomic_t  *p;

    p = ngx_tun_owner_entry(owner, hash, 0);

    if (p == NULL) {
        return NGX_TUN_OWNER_NONE;
    }

    entry = *p;

    if (entry == 0 || ngx_tun_owner_box(entry) == owner->box) {
        return NGX_TUN_OWNER_NONE;
    }

    if (!ngx_tun_owner_alive(owner, entry)) {
        (void) ngx_atomic_cmp_set(p, entry, 0);
        return NGX_TUN_OWNER_NONE;
    }

    return ngx_tun_owner_box(entry);
}


static ngx_uint_t
ngx_tun_owner_alive(ngx_tun_owner_t *owner, uint64_t entry)
{
    ngx_tun_owner_box_t  *box;

    box = &owner->shared->boxes[ngx_tun_owner_box(entry)];

    return box->epoch == ngx_tun_owner_epoch(entry)
           && ngx_tun_process_alive(box->pid);
}


ngx_uint_t
ngx_tun_owner_next(ngx_tun_owner_t *owner, ngx_atomic_uint_t generation)
{
    ngx_uint_t            i, next;
    ngx_atomic_uint_t     ready, latest;
    ngx_tun_owner_box_t  *box;

    latest = 0;
    next = NGX_TUN_OWNER_NONE;

    for (i = 0; i < NGX_TUN_OWNER_BOXES; i++) {
        box = &owner->shared->boxes[i];
        ready = box->ready;

        if (ready > latest
            && ready != generation
            && i != owner->box
            && ngx_tun_process_alive(box->pid))
        {
            latest = ready;
            next = i;
        }
    }

    return next;
}


ngx_uint_t
ngx_tun_owner_others(ngx_tun_owner_t *owner)
{
    ngx_uint_t            i;
    ngx_tun_owner_box_t  *box;

    for (i = 0; i < NGX_TUN_OWNER_BOXES; i++) {
        box = &owner->shared->boxes[i];

        if (box->flows != 0
            && i != owner->box
            && ngx_tun_process_alive(box->pid))
        {
            return 1;
        }
    }

    return 0;
}


ngx_uint_t
ngx_tun_process_alive(ngx_atomic_uint_t pid)
{
    if (pid == 0) {
        return 0;
    }

    return kill((ngx_pid_t) pid, 0) == 0 || ngx_errno == NGX_EPERM;
}
