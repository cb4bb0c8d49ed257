
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_upstream.h>

static void *ngx_stream_tun_upstream_create_main_conf(ngx_conf_t *cf);
static void *ngx_stream_tun_upstream_create_conf(ngx_conf_t *cf);
static char *ngx_stream_tun_upstream_merge_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_stream_tun_upstream_init(ngx_conf_t *cf);
static void ngx_stream_tun_upstream_init_servers(ngx_conf_t *cf,
    ngx_stream_tun_upstream_main_conf_t *tumcf);
static ngx_int_t ngx_stream_tun_upstream_check_relays(ngx_conf_t *cf);
static ngx_int_t ngx_stream_tun_upstream_ssl(void);
static void ngx_stream_tun_upstream_content_handler(ngx_stream_session_t *s);

static ngx_int_t ngx_stream_tun_upstream_add_variables(ngx_conf_t *cf);
static ngx_int_t ngx_stream_tun_handshake_variable(ngx_stream_session_t *s,
    ngx_stream_variable_value_t *v, uintptr_t data);


static ngx_command_t  ngx_stream_tun_upstream_commands[] = {

    { ngx_string("tun_handshake"),
      NGX_STREAM_UPS_CONF|NGX_CONF_1MORE,
      ngx_stream_tun_handshake,
      NGX_STREAM_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tun_direct"),
      NGX_STREAM_UPS_CONF|NGX_CONF_ANY,
      ngx_stream_tun_direct,
      NGX_STREAM_SRV_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("tun_socket"),
      NGX_STREAM_MAIN_CONF|NGX_STREAM_SRV_CONF|NGX_STREAM_UPS_CONF
                          |NGX_CONF_TAKE12,
      ngx_stream_tun_socket,
      NGX_STREAM_SRV_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_stream_module_t  ngx_stream_tun_upstream_module_ctx = {
    ngx_stream_tun_upstream_add_variables, /* preconfiguration */
    ngx_stream_tun_upstream_init,          /* postconfiguration */

    ngx_stream_tun_upstream_create_main_conf, /* create main configuration */
    NULL,                                  /* init main configuration */

    ngx_stream_tun_upstream_create_conf,   /* create server configuration */
    ngx_stream_tun_upstream_merge_conf     /* merge server configuration */
};


ngx_module_t  ngx_stream_tun_upstream_module = {
    NGX_MODULE_V1,
    &ngx_stream_tun_upstream_module_ctx,   /* module context */
    ngx_stream_tun_upstream_commands,      /* module directives */
    NGX_STREAM_MODULE,                     /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_stream_variable_t  ngx_stream_tun_upstream_vars[] = {

    { ngx_string("tun_handshake_status"), NULL,
      ngx_stream_tun_handshake_variable, 0, NGX_STREAM_VAR_NOCACHEABLE, 0 },

    { ngx_string("tun_handshake_time"), NULL,
      ngx_stream_tun_handshake_variable, 1, NGX_STREAM_VAR_NOCACHEABLE, 0 },

      ngx_stream_null_variable
};


static void *
ngx_stream_tun_upstream_create_main_conf(ngx_conf_t *cf)
{
    ngx_stream_tun_upstream_main_conf_t  *tumcf;

    tumcf = ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_upstream_main_conf_t));
    if (tumcf == NULL) {
        return NULL;
    }

    tumcf->ssl = -1;

    return tumcf;
}


static void *
ngx_stream_tun_upstream_create_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_upstream_conf_t));
}


static char *
ngx_stream_tun_upstream_merge_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_stream_tun_upstream_conf_t *prev = parent;
    ngx_stream_tun_upstream_conf_t *conf = child;

    if (!conf->socket) {
        conf->socket = prev->socket;
        conf->marked = prev->marked;
        conf->mark = prev->mark;
        conf->device = prev->device;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_stream_tun_upstream_init(ngx_conf_t *cf)
{
    char                                  *rv;
    ngx_uint_t                             i;
    ngx_stream_tun_upstream_conf_t        *tucf;
    ngx_stream_upstream_srv_conf_t       **uscfp;
    ngx_stream_upstream_main_conf_t       *umcf;
    ngx_stream_tun_upstream_main_conf_t   *tumcf;

    umcf = ngx_stream_conf_get_module_main_conf(cf, ngx_stream_upstream_module);
    tumcf = ngx_stream_conf_get_module_main_conf(cf,
                                              ngx_stream_tun_upstream_module);

    uscfp = umcf->upstreams.elts;

    for (i = 0; i < umcf->upstreams.nelts; i++) {

        /* a `proxy_pass host:port` has no directives */

        if (uscfp[i]->srv_conf == NULL) {
            continue;
        }

        tucf = ngx_stream_conf_upstream_srv_conf(uscfp[i],
                                              ngx_stream_tun_upstream_module);

        if (tucf->handshake == NULL && tucf->direct == NULL && !tucf->socket) {
            continue;
        }

        rv = ngx_stream_tun_check_direct(cf, uscfp[i], tucf);
        if (rv != NGX_CONF_OK) {
            return NGX_ERROR;
        }

        if (tucf->handshake != NULL) {
            tumcf->handshake = 1;
        }

        tucf->init = uscfp[i]->peer.init;
        uscfp[i]->peer.init = ngx_stream_tun_init_peer;
    }

    if (ngx_stream_tun_upstream_check_relays(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    tumcf->ssl = ngx_stream_tun_upstream_ssl();

    if (tumcf->handshake) {
        ngx_stream_tun_upstream_init_servers(cf, tumcf);

        tumcf->next_filter = ngx_stream_top_filter;
        ngx_stream_top_filter = ngx_stream_tun_upstream_filter;
    }

    return NGX_OK;
}


/* datagrams go through SOCKS5 only */

static ngx_int_t
ngx_stream_tun_upstream_check_relays(ngx_conf_t *cf)
{
    ngx_uint_t                        i;
    ngx_stream_core_srv_conf_t      **cscfp;
    ngx_stream_core_main_conf_t      *cmcf;
    ngx_stream_tun_srv_conf_t        *tscf;
    ngx_stream_tun_upstream_conf_t   *tucf;

    cmcf = ngx_stream_conf_get_module_main_conf(cf, ngx_stream_core_module);
    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {

        tscf = cscfp[i]->ctx->srv_conf[ngx_stream_tun_module.ctx_index];

        if (tscf->proxy == NULL) {
            continue;
        }

        tucf = (tscf->proxy->srv_conf == NULL) ? NULL
               : ngx_stream_conf_upstream_srv_conf(tscf->proxy,
                                              ngx_stream_tun_upstream_module);

        if (tucf == NULL
            || tucf->handshake == NULL
            || tucf->handshake->protocol != NGX_STREAM_TUN_SOCKS5)
        {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"tun_udp_relay\" in %s:%ui needs an upstream "
                          "with \"tun_handshake socks5\", \"%V\" is none",
                          cscfp[i]->file_name, cscfp[i]->line,
                          &tscf->proxy->host);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/*
 * A handshake inside of TLS begins in a filter, which the proxy module calls
 * when there are bytes of the client, if only an empty buffer.
 */

static void
ngx_stream_tun_upstream_init_servers(ngx_conf_t *cf,
    ngx_stream_tun_upstream_main_conf_t *tumcf)
{
    u_char                           *pscf;
    ngx_uint_t                        i;
    ngx_stream_core_srv_conf_t      **cscfp;
    ngx_stream_core_main_conf_t      *cmcf;
    ngx_stream_tun_upstream_conf_t   *tucf;

    cmcf = ngx_stream_conf_get_module_main_conf(cf, ngx_stream_core_module);
    cscfp = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {

        pscf = cscfp[i]->ctx->srv_conf[ngx_stream_proxy_module.ctx_index];

        if (cscfp[i]->handler == NULL
            || tumcf->ssl == -1
            || *(ngx_flag_t *) (pscf + tumcf->ssl) != 1)
        {
            continue;
        }

        tucf = cscfp[i]->ctx->srv_conf[ngx_stream_tun_upstream_module.
                                                                   ctx_index];

        tucf->content_handler = cscfp[i]->handler;
        cscfp[i]->handler = ngx_stream_tun_upstream_content_handler;
    }
}


/* where the proxy module keeps "proxy_ssl" is in the table of directives */

static ngx_int_t
ngx_stream_tun_upstream_ssl(void)
{
    ngx_command_t  *cmd;

    for (cmd = ngx_stream_proxy_module.commands; cmd->name.len; cmd++) {
        if (ngx_strcmp(cmd->name.data, "proxy_ssl") == 0) {
            return cmd->offset;
        }
    }

    return -1;
}


static void
ngx_stream_tun_upstream_content_handler(ngx_stream_session_t *s)
{
    ngx_connection_t                *c;
    ngx_stream_tun_upstream_conf_t  *tucf;

    tucf = ngx_stream_get_module_srv_conf(s, ngx_stream_tun_upstream_module);
    c = s->connection;

    if (c->type == SOCK_STREAM && c->buffer == NULL) {
        c->buffer = ngx_create_temp_buf(c->pool, 1);

        if (c->buffer == NULL) {
            ngx_stream_finalize_session(s, NGX_STREAM_INTERNAL_SERVER_ERROR);
            return;
        }
    }

    tucf->content_handler(s);
}


ngx_stream_complex_value_t *
ngx_stream_tun_compile_value(ngx_conf_t *cf, ngx_str_t *text)
{
    ngx_stream_complex_value_t          *cv;
    ngx_stream_compile_complex_value_t   ccv;

    cv = ngx_palloc(cf->pool, sizeof(ngx_stream_complex_value_t));
    if (cv == NULL) {
        return NULL;
    }

    ngx_memzero(&ccv, sizeof(ngx_stream_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = text;
    ccv.complex_value = cv;

    return (ngx_stream_compile_complex_value(&ccv) == NGX_OK) ? cv : NULL;
}


static ngx_int_t
ngx_stream_tun_upstream_add_variables(ngx_conf_t *cf)
{
    ngx_stream_variable_t  *var, *v;

    for (v = ngx_stream_tun_upstream_vars; v->name.len; v++) {
        var = ngx_stream_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


/* one for each peer, as in $upstream_addr; with data the times */

static ngx_int_t
ngx_stream_tun_handshake_variable(ngx_stream_session_t *s,
    ngx_stream_variable_value_t *v, uintptr_t data)
{
    u_char                 *p;
    ngx_uint_t              i;
    ngx_stream_tun_try_t   *try;
    ngx_stream_tun_peer_t  *tp;

    tp = ngx_stream_tun_peer(s);

    if (tp == NULL || tp->conf->handshake == NULL || tp->tries.nelts == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    p = ngx_pnalloc(s->connection->pool,
                    tp->tries.nelts * (NGX_TIME_T_LEN + sizeof(try->status)));
    if (p == NULL) {
        return NGX_ERROR;
    }

    v->data = p;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    try = tp->tries.elts;

    for (i = 0; i < tp->tries.nelts; i++) {

        if (i > 0) {
            *p++ = ',';
            *p++ = ' ';
        }

        if (try[i].len == 0) {
            *p++ = '-';

        } else if (data) {
            p = ngx_sprintf(p, "%T.%03M", (time_t) try[i].time / 1000,
                            try[i].time % 1000);

        } else {
            p = ngx_cpymem(p, try[i].status, try[i].len);
        }
    }

    v->len = p - v->data;

    return NGX_OK;
}
