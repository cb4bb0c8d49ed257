
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>


/* a device of the binary before, and what else has to be given back */

struct ngx_stream_tun_old_s {
    ngx_stream_tun_t             st;
    ngx_tun_inherit_t            inherit;
};


static ngx_int_t ngx_stream_tun_find(ngx_str_t *name,
    ngx_tun_inherit_t *inherit);
static ngx_int_t ngx_stream_tun_inherit_old(ngx_stream_tun_old_t *old,
    ngx_stream_tun_t *st, ngx_log_t *log);
static void ngx_stream_tun_inherit_release(void *data);
static void ngx_stream_tun_state_release(void *data);
static void ngx_stream_tun_take_over(ngx_stream_tun_t *st);
static void ngx_stream_tun_inherit_rest(ngx_stream_tun_main_conf_t *tmcf,
    ngx_log_t *log);
static void ngx_stream_tun_describe(ngx_stream_tun_t *st,
    ngx_tun_inherit_t *inherit);


ngx_stream_tun_t *
ngx_stream_tun_inherit(ngx_stream_tun_t *st, ngx_log_t *log)
{
    char                  *wrong;
    ngx_pool_cleanup_t    *cln;
    ngx_stream_tun_old_t  *old;

    if (!ngx_is_init_cycle(ngx_cycle)) {
        return NULL;
    }

    cln = ngx_pool_cleanup_add(st->cycle->pool, sizeof(ngx_stream_tun_old_t));
    if (cln == NULL) {
        return NULL;
    }

    old = cln->data;
    ngx_memzero(old, sizeof(ngx_stream_tun_old_t));

    if (ngx_stream_tun_find(&st->conf.device.name, &old->inherit) != NGX_OK) {
        return NULL;
    }

    wrong = ngx_tun_inherit_check(&old->inherit);

    if (wrong != NULL) {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "tun \"%V\": a descriptor in the environment variable "
                      "%s %s, nothing is inherited", &st->conf.device.name,
                      NGX_TUN_INHERIT_VAR, wrong);
        return NULL;
    }

    if (ngx_stream_tun_inherit_old(old, st, log) != NGX_OK) {
        ngx_stream_tun_inherit_release(old);
        return NULL;
    }

    cln->handler = ngx_stream_tun_inherit_release;
    st->inherited = old;

    return &old->st;
}


static ngx_int_t
ngx_stream_tun_find(ngx_str_t *name, ngx_tun_inherit_t *inherit)
{
    u_char  *p;

    p = (u_char *) getenv(NGX_TUN_INHERIT_VAR);

    if (p == NULL
        || ngx_strncmp(p, NGX_TUN_INHERIT_VERSION,
                       sizeof(NGX_TUN_INHERIT_VERSION) - 1)
           != 0)
    {
        return NGX_DECLINED;
    }

    p += sizeof(NGX_TUN_INHERIT_VERSION) - 1;

    while (ngx_tun_inherit_parse(&p, inherit) == NGX_OK) {
        if (inherit->name.len == name->len
            && ngx_memcmp(inherit->name.data, name->data, name->len) == 0)
        {
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_stream_tun_inherit_old(ngx_stream_tun_old_t *old, ngx_stream_tun_t *st,
    ngx_log_t *log)
{
    int          fd;
    ngx_int_t   *n;
    ngx_uint_t   i;

    n = old->inherit.numbers;

    old->st.conf.device = st->conf.device;
    old->st.device.conf = &old->st.conf.device;

    if (ngx_tun_device_inherit(&old->st.device, &old->inherit,
                               st->cycle->pool)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    old->st.stack = n[NGX_TUN_INHERIT_STACK];
    old->st.conf.stack = n[NGX_TUN_INHERIT_STACK_IN_FORCE];

    ngx_tun_handoff_inherit(&old->st.handoff, &old->inherit);

    old->st.share = ngx_tun_share_attach(n[NGX_TUN_INHERIT_STATE], log);

    if (old->st.share == NULL) {
        return NGX_ERROR;
    }

    old->st.share->refs++;
    old->st.state = (ngx_tun_inherit_state_t *) old->st.share->memory;

    if (!ngx_tun_inherit_valid(old->st.share)) {
        return NGX_ERROR;
    }

    for (i = 0; i < 2; i++) {
        fd = (int) n[NGX_TUN_INHERIT_TABLE + i];

        if (fd != -1) {
            old->st.tables[i] = ngx_tun_share_attach(fd, log);

            if (old->st.tables[i] == NULL) {
                return NGX_ERROR;
            }

            old->st.tables[i]->refs++;
        }
    }

    return NGX_OK;
}


static void
ngx_stream_tun_inherit_release(void *data)
{
    ngx_stream_tun_old_t *old = data;

    ngx_uint_t  i;

    if (old->st.share != NULL) {
        ngx_tun_share_release(old->st.share);
        old->st.share = NULL;
    }

    for (i = 0; i < 2; i++) {
        if (old->st.tables[i] != NULL) {
            ngx_tun_share_release(old->st.tables[i]);
            old->st.tables[i] = NULL;
        }
    }

    if (old->inherit.name.len != 0) {
        ngx_tun_inherit_close(&old->inherit);
        old->inherit.name.len = 0;
    }
}


ngx_int_t
ngx_stream_tun_init_state(ngx_stream_tun_t *st, ngx_stream_tun_t *old,
    ngx_log_t *log)
{
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(st->cycle->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    st->share = (old != NULL) ? old->share
                : ngx_tun_inherit_create(st->conf.max_flows, log);

    if (st->share == NULL) {
        return NGX_ERROR;
    }

    st->share->refs++;
    st->state = (ngx_tun_inherit_state_t *) st->share->memory;

    cln->handler = ngx_stream_tun_state_release;
    cln->data = st->share;

    if (old != NULL && st->inherited == NULL) {
        st->binary = old->binary;
        return NGX_OK;
    }

    if (st->inherited != NULL) {
        st->binary.former = st->state->master;
        st->binary.parent = getppid();
    }

    st->binary.number = ngx_atomic_fetch_add(&st->state->masters, 1) + 1;

    return NGX_OK;
}


static void
ngx_stream_tun_state_release(void *data)
{
    ngx_tun_share_release(data);
}


ngx_int_t
ngx_stream_tun_announce(ngx_cycle_t *cycle, ngx_stream_tun_main_conf_t *tmcf)
{
    u_char             *p;
    size_t              len;
    ngx_str_t          *var;
    ngx_uint_t          i;
    ngx_core_conf_t    *ccf;
    ngx_stream_tun_t  **stp;
    ngx_tun_inherit_t   inherit;

    ngx_stream_tun_inherit_rest(tmcf, cycle->log);

    ccf = (ngx_core_conf_t *) ngx_get_conf(cycle->conf_ctx, ngx_core_module);

    stp = tmcf->tuns.elts;
    len = sizeof(NGX_TUN_INHERIT_VAR "=" NGX_TUN_INHERIT_VERSION);

    for (i = 0; i < tmcf->tuns.nelts; i++) {
        ngx_stream_tun_take_over(stp[i]);

        ngx_stream_tun_describe(stp[i], &inherit);
        ngx_tun_inherit_keep(&inherit, ccf->master);

        len += ngx_tun_inherit_len(&inherit);
    }

    /* nginx takes a variable as it is if "=" follows the name in its memory */

    var = ngx_array_push(&ccf->env);
    if (var == NULL) {
        return NGX_ERROR;
    }

    var->len = sizeof(NGX_TUN_INHERIT_VAR) - 1;
    var->data = ngx_pnalloc(cycle->pool, len);
    if (var->data == NULL) {
        ccf->env.nelts--;
        return NGX_ERROR;
    }

    p = ngx_sprintf(var->data, "%s=%s", NGX_TUN_INHERIT_VAR,
                    NGX_TUN_INHERIT_VERSION);

    for (i = 0; i < tmcf->tuns.nelts; i++) {
        ngx_stream_tun_describe(stp[i], &inherit);
        p = ngx_tun_inherit_print(p, &inherit);
    }

    *p = '\0';

    return NGX_OK;
}


static void
ngx_stream_tun_take_over(ngx_stream_tun_t *st)
{
    if (st->inherited != NULL) {
        ngx_stream_tun_inherit_release(st->inherited);
        st->inherited = NULL;
    }

    st->state->master = st->binary.number;
    st->state->pid = ngx_pid;
    st->state->queues = st->conf.device.queues;

    /* the workers of the previous cycle stop to read */
    st->generation = ngx_atomic_fetch_add(&st->state->generation, 1) + 1;
}


/* devices that the configuration does not have any more */

static void
ngx_stream_tun_inherit_rest(ngx_stream_tun_main_conf_t *tmcf, ngx_log_t *log)
{
    u_char             *p;
    ngx_int_t           rc;
    ngx_uint_t          i;
    ngx_stream_tun_t  **stp;
    ngx_tun_inherit_t   inherit;

    p = (u_char *) getenv(NGX_TUN_INHERIT_VAR);

    if (p == NULL || !ngx_is_init_cycle(ngx_cycle)) {
        return;
    }

    rc = NGX_ERROR;

    if (ngx_strncmp(p, NGX_TUN_INHERIT_VERSION,
                    sizeof(NGX_TUN_INHERIT_VERSION) - 1)
        == 0)
    {
        p += sizeof(NGX_TUN_INHERIT_VERSION) - 1;
        stp = tmcf->tuns.elts;

        while ((rc = ngx_tun_inherit_parse(&p, &inherit)) == NGX_OK) {

            for (i = 0; i < tmcf->tuns.nelts; i++) {
                if (stp[i]->conf.device.name.len == inherit.name.len
                    && ngx_memcmp(stp[i]->conf.device.name.data,
                                  inherit.name.data, inherit.name.len)
                       == 0)
                {
                    break;
                }
            }

            if (i == tmcf->tuns.nelts
                && ngx_tun_inherit_check(&inherit) == NULL)
            {
                ngx_tun_inherit_close(&inherit);
            }
        }
    }

    if (rc == NGX_ERROR) {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "the environment variable %s is not of a binary that "
                      "this one could replace, it is ignored",
                      NGX_TUN_INHERIT_VAR);
    }

    (void) unsetenv(NGX_TUN_INHERIT_VAR);
}


static void
ngx_stream_tun_describe(ngx_stream_tun_t *st, ngx_tun_inherit_t *inherit)
{
    ngx_int_t   *n;
    ngx_uint_t   i;

    ngx_tun_device_describe(&st->device, inherit);
    ngx_tun_handoff_describe(&st->handoff, inherit);

    n = inherit->numbers;

    for (i = 0; i < 2; i++) {
        n[NGX_TUN_INHERIT_TABLE + i] = (st->tables[i] != NULL)
                                       ? st->tables[i]->fd : -1;
    }

    n[NGX_TUN_INHERIT_STATE] = st->share->fd;
    n[NGX_TUN_INHERIT_STACK] = st->stack;
    n[NGX_TUN_INHERIT_STACK_IN_FORCE] = st->conf.stack;
}


void
ngx_stream_tun_withhold(ngx_stream_tun_t *st)
{
    ngx_tun_inherit_t  inherit;

    ngx_stream_tun_describe(st, &inherit);
    ngx_tun_inherit_keep(&inherit, 0);
}


ngx_uint_t
ngx_stream_tun_passed_on(ngx_stream_tun_t *st)
{
    if (!st->device.committed
        || st->state->master == st->binary.number)
    {
        return 0;
    }

    return kill((ngx_pid_t) st->state->pid, 0) == 0 || ngx_errno == NGX_EPERM;
}


ngx_uint_t
ngx_stream_tun_pass_back(ngx_stream_tun_t *st)
{
    if (!st->device.committed
        || st->device.superseded
        || st->state->master != st->binary.number
        || st->binary.parent == 0
        || getppid() != st->binary.parent)
    {
        return 0;
    }

    st->state->master = st->binary.former;
    st->state->pid = getppid();

    return 1;
}
