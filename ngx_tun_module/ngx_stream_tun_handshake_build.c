
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_upstream.h>


static ngx_int_t ngx_stream_tun_handshake_value(ngx_stream_tun_peer_t *tp,
    const char *what, ngx_stream_complex_value_t *cv, ngx_str_t *value,
    ngx_uint_t spaces);
static ngx_int_t ngx_stream_tun_handshake_target(ngx_stream_tun_peer_t *tp,
    ngx_stream_tun_destination_t *dst);
static ngx_int_t ngx_stream_tun_build_socks5(ngx_stream_tun_peer_t *tp);
static ngx_int_t ngx_stream_tun_socks5_command(ngx_stream_tun_peer_t *tp,
    ngx_uint_t *command, ngx_stream_tun_destination_t *dst);
static ngx_int_t ngx_stream_tun_build_http(ngx_stream_tun_peer_t *tp);
static ngx_int_t ngx_stream_tun_build_headers(ngx_stream_tun_peer_t *tp,
    ngx_str_t *headers);
static u_char *ngx_stream_tun_build_basic(ngx_stream_tun_peer_t *tp,
    u_char *p, ngx_str_t *user, ngx_str_t *password);
static ngx_int_t ngx_stream_tun_build_proxy_v2(ngx_stream_tun_peer_t *tp);
static ngx_int_t ngx_stream_tun_proxy_v2_destination(
    ngx_stream_tun_peer_t *tp, ngx_sockaddr_t *sa, ngx_str_t *name);


#define NGX_STREAM_TUN_HTTP_BASIC  "Proxy-Authorization: Basic "


ngx_int_t
ngx_stream_tun_build_handshake(ngx_stream_tun_peer_t *tp)
{
    switch (tp->conf->handshake->protocol) {

    case NGX_STREAM_TUN_SOCKS5:
        return ngx_stream_tun_build_socks5(tp);

    case NGX_STREAM_TUN_HTTP:
        return ngx_stream_tun_build_http(tp);

    default: /* NGX_STREAM_TUN_PROXY_V2 */
        return ngx_stream_tun_build_proxy_v2(tp);
    }
}


static ngx_int_t
ngx_stream_tun_handshake_value(ngx_stream_tun_peer_t *tp, const char *what,
    ngx_stream_complex_value_t *cv, ngx_str_t *value, ngx_uint_t spaces)
{
    if (cv == NULL) {
        ngx_str_null(value);
        return NGX_OK;
    }

    if (ngx_stream_complex_value(tp->session, cv, value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_stream_tun_check_value(value, spaces) != NGX_OK) {
        ngx_log_error(NGX_LOG_WARN, tp->session->connection->log, 0,
                      "the %s for the %V proxy has control bytes, %sor "
                      "more than 255 bytes", what, tp->conf->handshake->name,
                      spaces ? "" : "spaces ");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_handshake_target(ngx_stream_tun_peer_t *tp,
    ngx_stream_tun_destination_t *dst)
{
    ngx_str_t                         text;
    ngx_stream_tun_handshake_conf_t  *thcf;

    thcf = tp->conf->handshake;

    if (ngx_stream_complex_value(tp->session, thcf->destination, &text)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_stream_tun_parse_destination(&text, dst) == NGX_OK) {
        return NGX_OK;
    }

    if (ngx_stream_tun_check_value(&text, 0) != NGX_OK) {
        ngx_log_error(NGX_LOG_WARN, tp->session->connection->log, 0,
                      "the destination for the %V proxy has control bytes, "
                      "spaces or more than 255 bytes", thcf->name);

    } else {
        ngx_log_error(NGX_LOG_WARN, tp->session->connection->log, 0,
                      "the destination \"%V\" for the %V proxy is no "
                      "\"host:port\"", &text, thcf->name);
    }

    return NGX_ERROR;
}


static ngx_int_t
ngx_stream_tun_build_socks5(ngx_stream_tun_peer_t *tp)
{
    u_char                           *p;
    ngx_str_t                         user, password;
    ngx_uint_t                        i, method, command;
    ngx_stream_tun_step_t            *step;
    ngx_stream_tun_destination_t      dst;
    ngx_stream_tun_handshake_conf_t  *thcf;

    thcf = tp->conf->handshake;

    if (ngx_stream_tun_socks5_command(tp, &command, &dst) != NGX_OK
        || ngx_stream_tun_handshake_value(tp, "user", thcf->user, &user, 0)
           != NGX_OK
        || ngx_stream_tun_handshake_value(tp, "password", thcf->password,
                                          &password, 0)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    p = ngx_pnalloc(tp->session->connection->pool,
                    NGX_STREAM_TUN_SOCKS5_SIZE);
    if (p == NULL) {
        return NGX_ERROR;
    }

    method = user.len ? NGX_STREAM_TUN_SOCKS5_PASSWORD
                      : NGX_STREAM_TUN_SOCKS5_NONE;
    step = tp->steps;

    step->out.data = p;
    p = ngx_stream_tun_socks5_methods(p, method);
    step->out.len = p - step->out.data;
    step->parse = user.len ? ngx_stream_tun_socks5_parse_method
                           : ngx_stream_tun_socks5_parse_none;
    step++;

    if (user.len) {
        step->out.data = p;
        p = ngx_stream_tun_socks5_password(p, &user, &password);
        step->out.len = p - step->out.data;
        step->parse = ngx_stream_tun_socks5_parse_password;
        step++;
    }

    step->out.data = p;
    p = ngx_stream_tun_socks5_request(p, command, &dst);
    step->out.len = p - step->out.data;
    step->parse = ngx_stream_tun_socks5_parse_reply;
    step++;

    tp->nsteps = step - tp->steps;

    /* the messages lie one behind another */

    if (thcf->pipeline) {
        tp->steps[0].out.len = p - tp->steps[0].out.data;

        for (i = 1; i < tp->nsteps; i++) {
            tp->steps[i].out.len = 0;
        }
    }

    return NGX_OK;
}


/* datagrams: from where they will come is not known yet, RFC 1928, 4 */

static ngx_int_t
ngx_stream_tun_socks5_command(ngx_stream_tun_peer_t *tp, ngx_uint_t *command,
    ngx_stream_tun_destination_t *dst)
{
    if (tp->session->connection->type == SOCK_STREAM) {
        *command = NGX_STREAM_TUN_SOCKS5_CONNECT;
        return ngx_stream_tun_handshake_target(tp, dst);
    }

    *command = NGX_STREAM_TUN_SOCKS5_ASSOCIATE;

    ngx_memzero(dst, sizeof(ngx_stream_tun_destination_t));
    dst->family = AF_INET;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_build_http(ngx_stream_tun_peer_t *tp)
{
    u_char                        *p;
    ngx_str_t                      headers;
    ngx_stream_tun_destination_t   dst;

    if (ngx_stream_tun_handshake_target(tp, &dst) != NGX_OK
        || ngx_stream_tun_build_headers(tp, &headers) != NGX_OK)
    {
        return NGX_ERROR;
    }

    p = ngx_pnalloc(tp->session->connection->pool,
                    ngx_stream_tun_http_size(&dst, &headers));
    if (p == NULL) {
        return NGX_ERROR;
    }

    tp->steps[0].out.data = p;
    tp->steps[0].out.len = ngx_stream_tun_http_connect(p, &dst, &headers) - p;
    tp->steps[0].parse = ngx_stream_tun_http_parse;
    tp->nsteps = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_build_headers(ngx_stream_tun_peer_t *tp, ngx_str_t *headers)
{
    u_char                           *p;
    size_t                            len;
    ngx_str_t                         value, user, password;
    ngx_uint_t                        i;
    ngx_stream_tun_field_t           *field;
    ngx_stream_tun_handshake_conf_t  *thcf;

    thcf = tp->conf->handshake;

    if (ngx_stream_tun_handshake_value(tp, "user", thcf->user, &user, 0)
        != NGX_OK
        || ngx_stream_tun_handshake_value(tp, "password", thcf->password,
                                          &password, 0)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    field = thcf->fields.elts;

    len = sizeof(NGX_STREAM_TUN_HTTP_BASIC CRLF) + NGX_STREAM_TUN_VALUE_MAX * 4;

    for (i = 0; i < thcf->fields.nelts; i++) {
        len += field[i].name.len + sizeof(": " CRLF)
               + NGX_STREAM_TUN_VALUE_MAX;
    }

    p = ngx_pnalloc(tp->session->connection->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    headers->data = p;

    if (user.len) {
        p = ngx_stream_tun_build_basic(tp, p, &user, &password);
        if (p == NULL) {
            return NGX_ERROR;
        }
    }

    for (i = 0; i < thcf->fields.nelts; i++) {

        if (ngx_stream_tun_handshake_value(tp, "header", &field[i].value,
                                           &value, 1)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (value.len) {
            p = ngx_sprintf(p, "%V: %V" CRLF, &field[i].name, &value);
        }
    }

    headers->len = p - headers->data;

    return NGX_OK;
}


/* RFC 7617 */

static u_char *
ngx_stream_tun_build_basic(ngx_stream_tun_peer_t *tp, u_char *p,
    ngx_str_t *user, ngx_str_t *password)
{
    ngx_str_t  pair, base64;
    u_char     buf[2 * NGX_STREAM_TUN_VALUE_MAX + 1];

    if (ngx_strlchr(user->data, user->data + user->len, ':') != NULL) {
        ngx_log_error(NGX_LOG_WARN, tp->session->connection->log, 0,
                      "the user for the http proxy has a colon");
        return NULL;
    }

    pair.data = buf;
    pair.len = ngx_sprintf(buf, "%V:%V", user, password) - buf;

    p = ngx_cpymem(p, NGX_STREAM_TUN_HTTP_BASIC,
                   sizeof(NGX_STREAM_TUN_HTTP_BASIC) - 1);

    base64.data = p;
    ngx_encode_base64(&base64, &pair);
    p += base64.len;

    return ngx_cpymem(p, CRLF, sizeof(CRLF) - 1);
}


static ngx_int_t
ngx_stream_tun_build_proxy_v2(ngx_stream_tun_peer_t *tp)
{
    u_char                           *p, *start;
    ngx_str_t                         value, name;
    ngx_uint_t                        i;
    ngx_sockaddr_t                    sa;
    ngx_connection_t                 *c;
    ngx_stream_tun_field_t           *field;
    ngx_stream_tun_handshake_conf_t  *thcf;

    thcf = tp->conf->handshake;
    c = tp->session->connection;
    field = thcf->fields.elts;

    if (ngx_stream_tun_proxy_v2_destination(tp, &sa, &name) != NGX_OK) {
        return NGX_ERROR;
    }

    start = ngx_pnalloc(c->pool, NGX_STREAM_TUN_PROXY_V2_SIZE
                                 + (thcf->fields.nelts + 1)
                                   * (3 + NGX_STREAM_TUN_VALUE_MAX));
    if (start == NULL) {
        return NGX_ERROR;
    }

    p = ngx_stream_tun_proxy_v2_header(start, c->type, c->sockaddr,
                                       &sa.sockaddr);

    for (i = 0; i < thcf->fields.nelts; i++) {

        if (ngx_stream_tun_handshake_value(tp, "TLV", &field[i].value, &value,
                                           0)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (field[i].type == NGX_STREAM_TUN_PROXY_V2_AUTHORITY) {
            ngx_str_null(&name);
        }

        if (value.len) {
            p = ngx_stream_tun_proxy_v2_tlv(start, p, field[i].type, &value);
        }
    }

    if (name.len) {
        p = ngx_stream_tun_proxy_v2_tlv(start, p,
                                        NGX_STREAM_TUN_PROXY_V2_AUTHORITY,
                                        &name);
    }

    tp->steps[0].out.data = start;
    tp->steps[0].out.len = p - start;
    tp->steps[0].parse = NULL;
    tp->nsteps = 1;

    return NGX_OK;
}


/* the address that the client asked for, or that of "destination=" */

static ngx_int_t
ngx_stream_tun_proxy_v2_destination(ngx_stream_tun_peer_t *tp,
    ngx_sockaddr_t *sa, ngx_str_t *name)
{
    ngx_connection_t              *c;
    ngx_stream_tun_destination_t   dst;

    c = tp->session->connection;
    ngx_str_null(name);

    if (ngx_connection_local_sockaddr(c, NULL, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_memcpy(sa, c->local_sockaddr, ngx_min((size_t) c->local_socklen,
                                              sizeof(ngx_sockaddr_t)));

    if (tp->conf->handshake->destination == NULL) {
        return NGX_OK;
    }

    if (ngx_stream_tun_handshake_target(tp, &dst) != NGX_OK) {
        return NGX_ERROR;
    }

    switch (dst.family) {

    case AF_INET:
        ngx_memzero(sa, sizeof(struct sockaddr_in));
        sa->sockaddr_in.sin_family = AF_INET;
        ngx_memcpy(&sa->sockaddr_in.sin_addr, dst.addr, 4);
        break;

    case AF_INET6:
        ngx_memzero(sa, sizeof(struct sockaddr_in6));
        sa->sockaddr_in6.sin6_family = AF_INET6;
        ngx_memcpy(&sa->sockaddr_in6.sin6_addr, dst.addr, 16);
        break;

    default:
        *name = dst.host;
        break;
    }

    ngx_inet_set_port(&sa->sockaddr, dst.port);

    return NGX_OK;
}
