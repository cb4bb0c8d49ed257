
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_fakeip.h>


typedef enum {
    NGX_STREAM_TUN_HOST = 0,
    NGX_STREAM_TUN_NAME,
    NGX_STREAM_TUN_PORT,
    NGX_STREAM_TUN_TARGET,
    NGX_STREAM_TUN_DEVICE,
    NGX_STREAM_TUN_STACK
} ngx_stream_tun_variable_e;


static ngx_int_t ngx_stream_tun_variable(ngx_stream_session_t *s,
    ngx_stream_variable_value_t *v, uintptr_t data);
static u_char *ngx_stream_tun_host(ngx_stream_session_t *s, u_char *p,
    ngx_str_t *name, ngx_uint_t brackets);


static ngx_stream_variable_t  ngx_stream_tun_vars[] = {

    { ngx_string("tun_host"), NULL, ngx_stream_tun_variable,
      NGX_STREAM_TUN_HOST, 0, 0 },

    { ngx_string("tun_name"), NULL, ngx_stream_tun_variable,
      NGX_STREAM_TUN_NAME, 0, 0 },

    { ngx_string("tun_port"), NULL, ngx_stream_tun_variable,
      NGX_STREAM_TUN_PORT, 0, 0 },

    { ngx_string("tun_target"), NULL, ngx_stream_tun_variable,
      NGX_STREAM_TUN_TARGET, 0, 0 },

    { ngx_string("tun_device"), NULL, ngx_stream_tun_variable,
      NGX_STREAM_TUN_DEVICE, 0, 0 },

    { ngx_string("tun_stack"), NULL, ngx_stream_tun_variable,
      NGX_STREAM_TUN_STACK, 0, 0 },

      ngx_stream_null_variable
};


ngx_int_t
ngx_stream_tun_add_variables(ngx_conf_t *cf)
{
    ngx_stream_variable_t  *var, *v;

    for (v = ngx_stream_tun_vars; v->name.len; v++) {
        var = ngx_stream_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return ngx_stream_tun_add_relay_variables(cf);
}


static ngx_int_t
ngx_stream_tun_variable(ngx_stream_session_t *s,
    ngx_stream_variable_value_t *v, uintptr_t data)
{
    u_char            *p;
    in_port_t          port;
    ngx_str_t         *name;
    ngx_tun_conf_t    *conf;

    if (!ngx_stream_tun_session(s)) {
        v->not_found = 1;
        return NGX_OK;
    }

    name = ngx_stream_tun_fakeip_name(s);

    p = ngx_pnalloc(s->connection->pool,
                    NGX_SOCKADDR_STRLEN + sizeof("[]:65535") - 1
                    + ((name != NULL) ? name->len : 0));
    if (p == NULL) {
        return NGX_ERROR;
    }

    v->data = p;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    conf = ngx_tun_connection_conf(s->connection);
    port = ngx_inet_get_port(s->connection->local_sockaddr);

    switch (data) {

    case NGX_STREAM_TUN_HOST:
        p = ngx_stream_tun_host(s, p, name, 0);
        break;

    case NGX_STREAM_TUN_PORT:
        p = ngx_sprintf(p, "%ui", (ngx_uint_t) port);
        break;

    case NGX_STREAM_TUN_TARGET:
        p = ngx_stream_tun_host(s, p, name, 1);

        if (p != v->data) {
            p = ngx_sprintf(p, ":%ui", (ngx_uint_t) port);
        }

        break;

    case NGX_STREAM_TUN_DEVICE:
        p = ngx_sprintf(p, "%V", &conf->device.name);
        break;

    case NGX_STREAM_TUN_STACK:
        p = ngx_sprintf(p, (conf->stack == NGX_TUN_STACK_SYSTEM) ? "system"
                                                                 : "lwip");
        break;

    default: /* NGX_STREAM_TUN_NAME */

        if (name != NULL) {
            p = ngx_cpymem(p, name->data, name->len);
        }

        break;
    }

    v->len = p - v->data;

    return NGX_OK;
}


/* a pool's address without a name is nowhere: it would come back to us */

static u_char *
ngx_stream_tun_host(ngx_stream_session_t *s, u_char *p, ngx_str_t *name,
    ngx_uint_t brackets)
{
    ngx_connection_t  *c;

    if (name != NULL) {
        return ngx_cpymem(p, name->data, name->len);
    }

    c = s->connection;

    brackets = brackets && c->local_sockaddr->sa_family == AF_INET6;

    if (brackets) {
        *p++ = '[';
    }

    p += ngx_sock_ntop(c->local_sockaddr, c->local_socklen, p,
                       NGX_SOCKADDR_STRLEN, 0);

    if (brackets) {
        *p++ = ']';
    }

    return p;
}
