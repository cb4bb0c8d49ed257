
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_dns.h>


typedef enum {
    NGX_STREAM_TUN_DNS_NAME = 0,
    NGX_STREAM_TUN_DNS_TYPE,
    NGX_STREAM_TUN_DNS_RCODE
} ngx_stream_tun_dns_variable_e;


static ngx_int_t ngx_stream_tun_dns_variable(ngx_stream_session_t *s,
    ngx_stream_variable_value_t *v, uintptr_t data);


static ngx_stream_variable_t  ngx_stream_tun_dns_vars[] = {

    { ngx_string("tun_dns_name"), NULL, ngx_stream_tun_dns_variable,
      NGX_STREAM_TUN_DNS_NAME, NGX_STREAM_VAR_NOCACHEABLE, 0 },

    { ngx_string("tun_dns_type"), NULL, ngx_stream_tun_dns_variable,
      NGX_STREAM_TUN_DNS_TYPE, NGX_STREAM_VAR_NOCACHEABLE, 0 },

    { ngx_string("tun_dns_rcode"), NULL, ngx_stream_tun_dns_variable,
      NGX_STREAM_TUN_DNS_RCODE, NGX_STREAM_VAR_NOCACHEABLE, 0 },

      ngx_stream_null_variable
};


ngx_int_t
ngx_stream_tun_dns_add_variables(ngx_conf_t *cf)
{
    ngx_stream_variable_t  *var, *v;

    for (v = ngx_stream_tun_dns_vars; v->name.len; v++) {
        var = ngx_stream_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_dns_variable(ngx_stream_session_t *s,
    ngx_stream_variable_value_t *v, uintptr_t data)
{
    u_char                    *p, text[NGX_TUN_DNS_TEXT_MAX];
    ngx_stream_tun_dns_ctx_t  *ctx;

    ctx = ngx_stream_get_module_ctx(s, ngx_stream_tun_dns_module);

    if (ctx == NULL
        || (data == NGX_STREAM_TUN_DNS_RCODE ? !ctx->answered : !ctx->asked))
    {
        v->not_found = 1;
        return NGX_OK;
    }

    switch (data) {

    case NGX_STREAM_TUN_DNS_NAME:
        p = ngx_tun_dns_name_text(text, ctx->query.name, ctx->query.len);
        break;

    case NGX_STREAM_TUN_DNS_TYPE:
        p = ngx_tun_dns_type_text(text, ctx->query.type);
        break;

    default: /* NGX_STREAM_TUN_DNS_RCODE */
        p = ngx_tun_dns_rcode_text(text, ctx->rcode);
        break;
    }

    v->data = ngx_pnalloc(s->connection->pool, p - text);
    if (v->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(v->data, text, p - text);

    v->len = p - text;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}
