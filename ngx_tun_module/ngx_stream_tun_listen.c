
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>


static char *ngx_stream_tun_listen_param(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_tun_listen_t *stl);
static ngx_int_t ngx_stream_tun_listen_target(ngx_str_t *value,
    ngx_tun_listen_t *listen);
static ngx_int_t ngx_stream_tun_listen_prefix(u_char *p, u_char *last,
    ngx_tun_listen_t *listen);
static ngx_int_t ngx_stream_tun_listen_ports(u_char *p, u_char *last,
    ngx_tun_listen_t *listen);
static ngx_int_t ngx_stream_tun_listen_text(ngx_conf_t *cf,
    ngx_stream_tun_listen_t *stl);
static ngx_int_t ngx_stream_tun_check_accept(ngx_conf_t *cf,
    ngx_stream_tun_t *st, ngx_stream_tun_listen_t *stl);
static void ngx_stream_tun_init_listening(ngx_conf_t *cf,
    ngx_stream_tun_listen_t *stl);
static ngx_stream_tun_t *ngx_stream_tun_find(ngx_stream_tun_main_conf_t *tmcf,
    ngx_str_t *name);


char *
ngx_stream_tun_listen(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_main_conf_t *tmcf = conf;

    char                        *rv;
    ngx_str_t                   *value;
    ngx_uint_t                   i;
    ngx_stream_tun_listen_t     *stl, **stlp;
    ngx_stream_tun_srv_conf_t   *tscf;
    ngx_stream_core_srv_conf_t  *cscf;

    stl = ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_listen_t));
    if (stl == NULL) {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;

    stl->device = value[1];
    stl->ctx = cf->ctx;
    stl->file = cf->conf_file->file.name.data;
    stl->line = cf->conf_file->line;

    stl->listen.type = SOCK_STREAM;
    stl->listen.last = 65535;
    stl->listen.data = stl;

    for (i = 2; i < cf->args->nelts; i++) {
        rv = ngx_stream_tun_listen_param(cf, &value[i], stl);
        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (stl->ssl && stl->listen.type == SOCK_DGRAM) {
        return "has \"ssl\", which is incompatible with \"udp\"";
    }

    if (ngx_stream_tun_listen_text(cf, stl) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    stlp = ngx_array_push(&tmcf->listens);
    if (stlp == NULL) {
        return NGX_CONF_ERROR;
    }

    *stlp = stl;

    /* a server needs no "listen" then */

    cscf = ngx_stream_conf_get_module_srv_conf(cf, ngx_stream_core_module);
    cscf->listen = 1;

    tscf = ngx_stream_conf_get_module_srv_conf(cf, ngx_stream_tun_module);
    tscf->listen = 1;

    return NGX_CONF_OK;
}


static char *
ngx_stream_tun_listen_param(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_tun_listen_t *stl)
{
    if (ngx_strcmp(value->data, "tcp") == 0) {
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value->data, "ssl") == 0) {
        ngx_stream_tun_ssl_listen(cf, stl);
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value->data, "udp") == 0) {
        stl->listen.type = SOCK_DGRAM;
        return NGX_CONF_OK;
    }

    if (stl->text.len != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\"", value);
        return NGX_CONF_ERROR;
    }

    if (ngx_stream_tun_listen_target(value, &stl->listen) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid prefix or port \"%V\"", value);
        return NGX_CONF_ERROR;
    }

    stl->text = *value;

    return NGX_CONF_OK;
}


/* [prefix][:port[-port]], an IPv6 prefix before a port in brackets */

static ngx_int_t
ngx_stream_tun_listen_target(ngx_str_t *value, ngx_tun_listen_t *listen)
{
    u_char  *p, *last, *colon;

    p = value->data;
    last = p + value->len;

    if (p == last) {
        return NGX_ERROR;
    }

    if (*p == '[') {
        colon = ngx_strlchr(p, last, ']');

        if (colon == NULL
            || ngx_stream_tun_listen_prefix(p + 1, colon, listen) != NGX_OK
            || listen->addr_len != 16)
        {
            return NGX_ERROR;
        }

        colon++;

        if (colon == last) {
            return NGX_OK;
        }

        if (*colon != ':') {
            return NGX_ERROR;
        }

        return ngx_stream_tun_listen_ports(colon + 1, last, listen);
    }

    colon = ngx_strlchr(p, last, ':');

    if (colon == NULL || ngx_strlchr(colon + 1, last, ':') != NULL) {
        return ngx_stream_tun_listen_prefix(p, last, listen);
    }

    if (colon != p
        && (ngx_stream_tun_listen_prefix(p, colon, listen) != NGX_OK
            || listen->addr_len != 4))
    {
        return NGX_ERROR;
    }

    return ngx_stream_tun_listen_ports(colon + 1, last, listen);
}


static ngx_int_t
ngx_stream_tun_listen_prefix(u_char *p, u_char *last, ngx_tun_listen_t *listen)
{
    u_char      *mask;
    ngx_int_t    rc;
    ngx_str_t    text;
    ngx_cidr_t   cidr;

    text.data = p;
    text.len = last - p;

    /* bits after the prefix are a mistake */

    rc = ngx_ptocidr(&text, &cidr);

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

#if (NGX_HAVE_INET6)
    if (cidr.family == AF_INET6) {
        listen->addr_len = 16;
        mask = cidr.u.in6.mask.s6_addr;
        ngx_memcpy(listen->addr, cidr.u.in6.addr.s6_addr, 16);

    } else
#endif
    {
        listen->addr_len = 4;
        mask = (u_char *) &cidr.u.in.mask;
        ngx_memcpy(listen->addr, &cidr.u.in.addr, 4);
    }

    for (listen->prefix = 0;
         listen->prefix < listen->addr_len * 8
         && (mask[listen->prefix / 8] & (0x80 >> (listen->prefix % 8)));
         listen->prefix++)
    {
        /* void */
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_listen_ports(u_char *p, u_char *last, ngx_tun_listen_t *listen)
{
    u_char     *dash;
    ngx_int_t   first, end;

    dash = ngx_strlchr(p, last, '-');

    first = ngx_atoi(p, ((dash == NULL) ? last : dash) - p);
    end = (dash == NULL) ? first : ngx_atoi(dash + 1, last - dash - 1);

    if (first <= 0 || end < first || end > 65535) {
        return NGX_ERROR;
    }

    listen->first = (in_port_t) first;
    listen->last = (in_port_t) end;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_listen_text(ngx_conf_t *cf, ngx_stream_tun_listen_t *stl)
{
    u_char     *p;
    ngx_str_t  *text;

    text = &stl->text;

    p = ngx_pnalloc(cf->pool, stl->device.len + sizeof(" udp") + text->len
                              + 2);
    if (p == NULL) {
        return NGX_ERROR;
    }

    text->len = ngx_sprintf(p, text->len ? "%V%s %V" : "%V%s", &stl->device,
                            (stl->listen.type == SOCK_DGRAM) ? " udp" : "",
                            text)
                - p;
    text->data = p;

    return NGX_OK;
}


ngx_int_t
ngx_stream_tun_init_listens(ngx_conf_t *cf, ngx_stream_tun_main_conf_t *tmcf)
{
    ngx_uint_t                 i;
    ngx_stream_tun_t          *st, **stp;
    ngx_tun_listen_t          *listen, *one, *other;
    ngx_stream_tun_listen_t  **stlp, *stl, *first;

    stlp = tmcf->listens.elts;

    for (i = 0; i < tmcf->listens.nelts; i++) {
        stl = stlp[i];

        st = ngx_stream_tun_find(tmcf, &stl->device);

        if (st == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "unknown tun \"%V\" in %s:%ui",
                          &stl->device, stl->file, stl->line);
            return NGX_ERROR;
        }

        if (ngx_stream_tun_check_accept(cf, st, stl) != NGX_OK) {
            return NGX_ERROR;
        }

        ngx_stream_tun_init_listening(cf, stl);

        if (stl->listen.relay && stl->listen.type != SOCK_DGRAM) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"tun_udp_relay\" needs the \"udp\" parameter of "
                          "\"tun_listen\" in %s:%ui", stl->file, stl->line);
            return NGX_ERROR;
        }

        listen = ngx_array_push(&st->conf.listens);
        if (listen == NULL) {
            return NGX_ERROR;
        }

        *listen = stl->listen;
    }

    stp = tmcf->tuns.elts;

    for (i = 0; i < tmcf->tuns.nelts; i++) {

        if (ngx_tun_sort_listens(&stp[i]->conf.listens, &one, &other)
            == NGX_OK)
        {
            continue;
        }

        first = one->data;
        stl = other->data;

        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"tun_listen %V\" conflicts with \"tun_listen %V\" "
                      "in %s:%ui in %s:%ui", &stl->text, &first->text,
                      first->file, first->line, stl->file, stl->line);
        return NGX_ERROR;
    }

    return ngx_stream_tun_init_ssl(cf, tmcf);
}


static ngx_int_t
ngx_stream_tun_check_accept(ngx_conf_t *cf, ngx_stream_tun_t *st,
    ngx_stream_tun_listen_t *stl)
{
    ngx_stream_tun_srv_conf_t  *tscf;

    tscf = stl->ctx->srv_conf[ngx_stream_tun_module.ctx_index];

    if (st->stack != NGX_TUN_STACK_SYSTEM
        || stl->listen.type == SOCK_DGRAM
        || tscf->accept != NGX_STREAM_TUN_CONNECTED)
    {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "\"tun_accept connected\" cannot be had with "
                  "\"stack system\" of tun \"%V\", where the kernel answers "
                  "first, for \"tun_listen %V\" in %s:%ui",
                  &stl->device, &stl->text, stl->file, stl->line);

    return NGX_ERROR;
}


/* two, for with one address the stream module tells them by family */

static void
ngx_stream_tun_init_listening(ngx_conf_t *cf, ngx_stream_tun_listen_t *stl)
{
    ngx_uint_t                  i;
    ngx_listening_t            *ls;
    ngx_stream_addr_conf_t      conf;
    ngx_stream_tun_srv_conf_t  *tscf;

    tscf = stl->ctx->srv_conf[ngx_stream_tun_module.ctx_index];

    stl->listen.early = (tscf->accept == NGX_STREAM_TUN_EARLY);
    stl->listen.relay = tscf->relay;

    ngx_memzero(&conf, sizeof(ngx_stream_addr_conf_t));

#if (nginx_version >= 1025005)
    conf.default_server = stl->ctx->srv_conf[ngx_stream_core_module.ctx_index];
#else
    conf.ctx = stl->ctx;
    conf.addr_text = stl->text;
#endif

    conf.ssl = stl->ssl;

    stl->addr.conf = conf;
    stl->ports[0].addrs = &stl->addr;
    stl->ports[0].naddrs = 1;

#if (NGX_HAVE_INET6)
    stl->addr6.conf = conf;
    stl->ports[1].addrs = &stl->addr6;
    stl->ports[1].naddrs = 1;
#endif

    for (i = 0; i < 2; i++) {
        ls = &stl->ls[i];

        ls->fd = (ngx_socket_t) -1;
        ls->type = stl->listen.type;
        ls->handler = ngx_stream_tun_init_connection;
        ls->pool_size = 256;
        ls->addr_text = stl->text;
        ls->addr_text_max_len = NGX_SOCKADDR_STRLEN;
        ls->addr_ntop = 1;
        ls->wildcard = 1;
        ls->servers = &stl->ports[i];
        ls->logp = &cf->cycle->new_log;
        ls->log = cf->cycle->new_log;

        ngx_rbtree_init(&ls->rbtree, &ls->sentinel,
                        ngx_rbtree_insert_value);

        stl->listen.ls[i] = ls;
    }
}


static ngx_stream_tun_t *
ngx_stream_tun_find(ngx_stream_tun_main_conf_t *tmcf, ngx_str_t *name)
{
    ngx_str_t          *n;
    ngx_uint_t          i;
    ngx_stream_tun_t  **stp;

    stp = tmcf->tuns.elts;

    for (i = 0; i < tmcf->tuns.nelts; i++) {
        n = &stp[i]->conf.device.name;

        if (n->len == name->len
            && ngx_strncmp(n->data, name->data, name->len) == 0)
        {
            return stp[i];
        }
    }

    return NULL;
}
