
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_dns.h>


static ngx_int_t ngx_stream_tun_dns_check(ngx_stream_tun_dns_ctx_t *ctx,
    u_char *p, u_char *end, ngx_uint_t *rcode);
static ngx_int_t ngx_stream_tun_dns_next_question(
    ngx_stream_tun_dns_ctx_t *ctx);
static ngx_int_t ngx_stream_tun_dns_decide(ngx_stream_tun_dns_ctx_t *ctx,
    u_char **answer, size_t *len);
static ngx_int_t ngx_stream_tun_dns_pass(ngx_stream_tun_dns_ctx_t *ctx,
    ngx_uint_t faked, ngx_uint_t kind, u_char **answer, size_t *len);
static size_t ngx_stream_tun_dns_reverse(ngx_stream_tun_dns_ctx_t *ctx,
    u_char *buf);
static size_t ngx_stream_tun_dns_special(ngx_stream_tun_dns_ctx_t *ctx,
    ngx_tun_dns_special_t *special, u_char *buf);
static ngx_uint_t ngx_stream_tun_dns_faked(ngx_stream_tun_dns_ctx_t *ctx);
static size_t ngx_stream_tun_dns_fake(ngx_stream_tun_dns_ctx_t *ctx,
    u_char *buf);
static size_t ngx_stream_tun_dns_fake_address(ngx_stream_tun_dns_ctx_t *ctx,
    u_char *buf, size_t addr_len);


#define ngx_stream_tun_dns_error(ctx, buf, rcode)                             \
    ngx_tun_dns_build_error(&(ctx)->query, buf, NGX_TUN_DNS_ANSWER_MAX, rcode)

#define ngx_stream_tun_dns_nodata(ctx, buf, rcode)                            \
    ngx_tun_dns_build_nodata(&(ctx)->query, buf, NGX_TUN_DNS_ANSWER_MAX,      \
                             rcode, ngx_tun_fakeip_ttl((ctx)->zone->fip))


ngx_int_t
ngx_stream_tun_dns_answer(ngx_stream_tun_dns_ctx_t *ctx, u_char *p,
    u_char *end, u_char *buf, u_char **answer, size_t *len)
{
    ngx_int_t   rc;
    ngx_uint_t  rcode;

    if (ngx_stream_tun_dns_next_question(ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    *answer = buf + 2;
    rcode = NGX_TUN_DNS_NOERROR;

    rc = ngx_stream_tun_dns_check(ctx, p, end, &rcode);

    if (rc == NGX_DECLINED) {
        return NGX_DECLINED;
    }

    if (rc == NGX_OK) {
        rc = ngx_stream_tun_dns_decide(ctx, answer, len);

        if (rc != NGX_OK) {
            return rc;
        }

    } else {
        *len = ngx_stream_tun_dns_error(ctx, *answer, rcode);
    }

    ctx->rcode = (rcode > 15) ? rcode : ((*answer)[3] & 0x0f);
    ctx->answered = 1;

    return NGX_OK;
}


/* NGX_ERROR: there is something wrong with it, which rcode tells */

static ngx_int_t
ngx_stream_tun_dns_check(ngx_stream_tun_dns_ctx_t *ctx, u_char *p,
    u_char *end, ngx_uint_t *rcode)
{
    ngx_int_t                       rc;
    ngx_atomic_uint_t               warned;
    ngx_tun_dns_stat_t             *stat;
    ngx_stream_tun_dns_srv_conf_t  *dscf;

    dscf = ngx_stream_get_module_srv_conf(ctx->session,
                                          ngx_stream_tun_dns_module);
    stat = ctx->zone->stat;

    if (!ctx->again) {
        ngx_tun_dns_count(stat, queries);

        if (ngx_tun_dns_limit_query(&ctx->zone->shared->limit, &dscf->limit,
                                    ctx->client, ngx_current_msec)
            != NGX_OK)
        {
            ngx_tun_dns_count(stat, limited_queries);
            return NGX_DECLINED;
        }
    }

    ctx->again = 0;

    rc = ngx_tun_dns_parse_query(&ctx->query, p, end, rcode);

    if (rc == NGX_DECLINED) {
        ngx_tun_dns_count(stat, dropped);
        return NGX_DECLINED;
    }

    ctx->asked = (ctx->query.question_len != 0);

    if (rc == NGX_ERROR) {

        if (*rcode == NGX_TUN_DNS_REFUSED) {
            ngx_tun_dns_count(stat, refused);

        } else {
            ngx_tun_dns_count(stat, malformed);
        }

        return NGX_ERROR;
    }

    if (ctx->query.tagged
        && ngx_memcmp(ctx->query.tag, ctx->zone->shared->tag,
                      NGX_TUN_DNS_TAG_LEN)
           == 0)
    {
        warned = ctx->zone->shared->warned;

        if (warned != (ngx_atomic_uint_t) ngx_time()
            && ngx_atomic_cmp_set(&ctx->zone->shared->warned, warned,
                                  ngx_time()))
        {
            ngx_log_error(NGX_LOG_WARN, ctx->session->connection->log, 0,
                          "a query to a resolver of \"tun_dns_pass\" "
                          "came back");
        }

        ngx_tun_dns_count(stat, looped);
        *rcode = NGX_TUN_DNS_SERVFAIL;
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* no variable keeps what it was for the question before */

static ngx_int_t
ngx_stream_tun_dns_next_question(ngx_stream_tun_dns_ctx_t *ctx)
{
    size_t                        size;
    ngx_uint_t                    i, n;
    ngx_stream_session_t         *s;
    ngx_stream_core_main_conf_t  *cmcf;

    s = ctx->session;
    cmcf = ngx_stream_get_module_main_conf(s, ngx_stream_core_module);

    n = cmcf->variables.nelts;
    size = n * sizeof(ngx_stream_variable_value_t);

    ctx->asked = 0;
    ctx->answered = 0;

    if (ctx->questions++ != 0) {

        if (ctx->variables == NULL) {
            ngx_memzero(s->variables, size);

        } else {
            ngx_memcpy(s->variables, ctx->variables, size);
        }

        return NGX_OK;
    }

    /* what is known so early is of the session, by "set" for one */

    for (i = 0; i < n; i++) {

        if (s->variables[i].valid || s->variables[i].not_found) {
            break;
        }
    }

    if (i == n) {
        return NGX_OK;
    }

    ctx->variables = ngx_palloc(s->connection->pool, size);
    if (ctx->variables == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(ctx->variables, s->variables, size);

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_dns_decide(ngx_stream_tun_dns_ctx_t *ctx, u_char **answer,
    size_t *len)
{
    ngx_tun_dns_special_t           special;
    ngx_stream_tun_dns_srv_conf_t  *dscf;

    dscf = ngx_stream_get_module_srv_conf(ctx->session,
                                          ngx_stream_tun_dns_module);

    *len = ngx_stream_tun_dns_reverse(ctx, *answer);

    if (*len != 0) {
        ngx_tun_dns_count(ctx->zone->stat, reverse);
        return NGX_OK;
    }

    ngx_tun_dns_special(&special, &ctx->query, dscf->special);

    *len = ngx_stream_tun_dns_special(ctx, &special, *answer);

    if (*len != 0) {
        ngx_tun_dns_count(ctx->zone->stat, special);
        return NGX_OK;
    }

    if (special.kind != NGX_TUN_DNS_ORDINARY || !ngx_stream_tun_dns_faked(ctx))
    {
        return ngx_stream_tun_dns_pass(ctx, 0, special.kind, answer, len);
    }

    *len = ngx_stream_tun_dns_fake(ctx, *answer);

    if (*len != 0) {
        return NGX_OK;
    }

    return ngx_stream_tun_dns_pass(ctx, 1, special.kind, answer, len);
}


/* what resolvers have to answer */

static ngx_int_t
ngx_stream_tun_dns_pass(ngx_stream_tun_dns_ctx_t *ctx, ngx_uint_t faked,
    ngx_uint_t kind, u_char **answer, size_t *len)
{
    ngx_int_t                       rc;
    ngx_tun_dns_query_t            *query;
    ngx_stream_tun_dns_srv_conf_t  *dscf;

    dscf = ngx_stream_get_module_srv_conf(ctx->session,
                                          ngx_stream_tun_dns_module);
    query = &ctx->query;

    if (dscf->upstream == NULL && (query->odd || kind == NGX_TUN_DNS_REVERSE))
    {
        ngx_tun_dns_count(ctx->zone->stat, refused);
        *len = ngx_stream_tun_dns_nodata(ctx, *answer, NGX_TUN_DNS_NXDOMAIN);
        return NGX_OK;
    }

    /* who does not ask for recursion, gets none */

    if (dscf->upstream == NULL || !(query->flags & NGX_TUN_DNS_RD)) {
        ngx_tun_dns_count(ctx->zone->stat, refused);
        *len = ngx_stream_tun_dns_error(ctx, *answer, NGX_TUN_DNS_REFUSED);
        return NGX_OK;
    }

    rc = ngx_stream_tun_dns_forward(ctx, faked,
                                    faked
                                    && (query->type == NGX_TUN_DNS_TYPE_HTTPS
                                        || query->type
                                           == NGX_TUN_DNS_TYPE_SVCB),
                                    answer, len);

    if (rc == NGX_ERROR) {
        ngx_tun_dns_count(ctx->zone->stat, failed);
        *len = ngx_stream_tun_dns_error(ctx, *answer, NGX_TUN_DNS_SERVFAIL);
        return NGX_OK;
    }

    return rc;
}


/* names of the pool's addresses are nobody else's */

static size_t
ngx_stream_tun_dns_reverse(ngx_stream_tun_dns_ctx_t *ctx, u_char *buf)
{
    u_char                 addr[16], name[NGX_TUN_DNS_NAME_MAX];
    size_t                 addr_len, len;
    uint32_t               index;
    ngx_int_t              rc;
    ngx_uint_t             bits;
    ngx_tun_fakeip_t      *fip;
    ngx_tun_dns_answer_t   answer;

    fip = ctx->zone->fip;

    if (ngx_tun_dns_reverse(ctx->query.name, ctx->query.len, addr, &addr_len,
                            &bits)
        != NGX_OK)
    {
        return 0;
    }

    rc = ngx_tun_fakeip_index(fip, addr, addr_len, &index);

    if (rc != NGX_OK || bits < fip->conf.prefix[addr_len == 16].prefix) {
        return 0;
    }

    if (bits < addr_len * 8) {
        return ngx_stream_tun_dns_nodata(ctx, buf, NGX_TUN_DNS_NOERROR);
    }

    if (ngx_tun_fakeip_name(fip, addr, addr_len, name, &len) != NGX_OK) {
        return ngx_stream_tun_dns_nodata(ctx, buf, NGX_TUN_DNS_NXDOMAIN);
    }

    if (ctx->query.type == NGX_TUN_DNS_TYPE_ANY) {
        (void) ngx_tun_dns_begin(&answer, &ctx->query, buf,
                                 NGX_TUN_DNS_ANSWER_MAX, NGX_TUN_DNS_NOERROR);
        (void) ngx_tun_dns_add_hinfo(&answer);
        return ngx_tun_dns_finish(&answer);
    }

    if (ctx->query.type != NGX_TUN_DNS_TYPE_PTR) {
        return ngx_stream_tun_dns_nodata(ctx, buf, NGX_TUN_DNS_NOERROR);
    }

    (void) ngx_tun_dns_begin(&answer, &ctx->query, buf, NGX_TUN_DNS_ANSWER_MAX,
                             NGX_TUN_DNS_NOERROR);
    (void) ngx_tun_dns_add_name(&answer, NGX_TUN_DNS_TYPE_PTR, name, len,
                                ngx_tun_fakeip_ttl(fip));

    return ngx_tun_dns_finish(&answer);
}


static size_t
ngx_stream_tun_dns_special(ngx_stream_tun_dns_ctx_t *ctx,
    ngx_tun_dns_special_t *special, u_char *buf)
{
    ngx_uint_t            i;
    ngx_tun_dns_answer_t  answer;

    switch (special->kind) {

    case NGX_TUN_DNS_NOT_FOUND:
        return ngx_stream_tun_dns_nodata(ctx, buf, NGX_TUN_DNS_NXDOMAIN);

    case NGX_TUN_DNS_NODATA:
        return ngx_stream_tun_dns_nodata(ctx, buf, NGX_TUN_DNS_NOERROR);

    case NGX_TUN_DNS_ADDRESS:

        if (special->naddrs == 0) {
            return ngx_stream_tun_dns_nodata(ctx, buf, NGX_TUN_DNS_NOERROR);
        }

        (void) ngx_tun_dns_begin(&answer, &ctx->query, buf,
                                 NGX_TUN_DNS_ANSWER_MAX, NGX_TUN_DNS_NOERROR);

        for (i = 0; i < special->naddrs; i++) {
            (void) ngx_tun_dns_add_address(&answer, special->addrs[i],
                                           special->addr_len,
                                           ngx_tun_fakeip_ttl(ctx->zone->fip));
        }

        return ngx_tun_dns_finish(&answer);

    default:
        return 0;
    }
}


/* the operator's policy */

static ngx_uint_t
ngx_stream_tun_dns_faked(ngx_stream_tun_dns_ctx_t *ctx)
{
    ngx_str_t                       value;
    ngx_stream_tun_dns_srv_conf_t  *dscf;

    dscf = ngx_stream_get_module_srv_conf(ctx->session,
                                          ngx_stream_tun_dns_module);

    if (dscf->fake == NULL) {
        return 1;
    }

    if (ngx_stream_complex_value(ctx->session, dscf->fake, &value) != NGX_OK) {
        return 0;
    }

    return value.len != 0 && (value.len != 1 || value.data[0] != '0');
}


static size_t
ngx_stream_tun_dns_fake(ngx_stream_tun_dns_ctx_t *ctx, u_char *buf)
{
    ngx_tun_dns_answer_t            answer;
    ngx_stream_tun_dns_srv_conf_t  *dscf;

    dscf = ngx_stream_get_module_srv_conf(ctx->session,
                                          ngx_stream_tun_dns_module);

    switch (ctx->query.type) {

    case NGX_TUN_DNS_TYPE_A:
        return ngx_stream_tun_dns_fake_address(ctx, buf, 4);

    case NGX_TUN_DNS_TYPE_AAAA:
        return ngx_stream_tun_dns_fake_address(ctx, buf, 16);

    case NGX_TUN_DNS_TYPE_ANY:
        (void) ngx_tun_dns_begin(&answer, &ctx->query, buf,
                                 NGX_TUN_DNS_ANSWER_MAX, NGX_TUN_DNS_NOERROR);
        (void) ngx_tun_dns_add_hinfo(&answer);
        ngx_tun_dns_count(ctx->zone->stat, empty);
        return ngx_tun_dns_finish(&answer);

    case NGX_TUN_DNS_TYPE_HTTPS:
    case NGX_TUN_DNS_TYPE_SVCB:

        if (dscf->https == NGX_STREAM_TUN_DNS_STRIP) {
            return 0;
        }

        break;

    default:

        /* such a name looks unsigned */

        if (dscf->other == NGX_STREAM_TUN_DNS_FORWARD
            && !ngx_tun_dns_signing(ctx->query.type))
        {
            return 0;
        }
    }

    ngx_tun_dns_count(ctx->zone->stat, empty);

    return ngx_stream_tun_dns_nodata(ctx, buf, NGX_TUN_DNS_NOERROR);
}


static size_t
ngx_stream_tun_dns_fake_address(ngx_stream_tun_dns_ctx_t *ctx, u_char *buf,
    size_t addr_len)
{
    u_char                          addr[16];
    uint32_t                        index;
    ngx_int_t                       rc;
    ngx_tun_fakeip_t               *fip;
    ngx_tun_dns_query_t            *query;
    ngx_tun_dns_answer_t            answer;
    ngx_stream_tun_dns_srv_conf_t  *dscf;

    fip = ctx->zone->fip;
    query = &ctx->query;

    /* no index is taken for an address that there is not */

    if (fip->conf.prefix[addr_len == 16].addr_len == 0) {
        ngx_tun_dns_count(ctx->zone->stat, empty);
        return ngx_stream_tun_dns_nodata(ctx, buf, NGX_TUN_DNS_NOERROR);
    }

    rc = ngx_tun_fakeip_assign(fip, query->name, query->len, 0, &index);

    if (rc == NGX_DECLINED) {
        dscf = ngx_stream_get_module_srv_conf(ctx->session,
                                              ngx_stream_tun_dns_module);

        if (ngx_tun_dns_limit_name(&ctx->zone->shared->limit, &dscf->limit,
                                   ctx->client, ngx_current_msec)
            != NGX_OK)
        {
            ngx_tun_dns_count(ctx->zone->stat, limited_names);
            return ngx_stream_tun_dns_error(ctx, buf, NGX_TUN_DNS_REFUSED);
        }

        rc = ngx_tun_fakeip_assign(fip, query->name, query->len, 1, &index);
    }

    if (rc != NGX_OK
        || ngx_tun_fakeip_address(fip, index, addr_len, addr) != NGX_OK)
    {
        ngx_tun_dns_count(ctx->zone->stat, exhausted);
        return ngx_stream_tun_dns_error(ctx, buf, NGX_TUN_DNS_SERVFAIL);
    }

    ngx_tun_dns_count(ctx->zone->stat, faked);

    (void) ngx_tun_dns_begin(&answer, query, buf, NGX_TUN_DNS_ANSWER_MAX,
                             NGX_TUN_DNS_NOERROR);
    (void) ngx_tun_dns_add_address(&answer, addr, addr_len,
                                   ngx_tun_fakeip_ttl(fip));

    return ngx_tun_dns_finish(&answer);
}
