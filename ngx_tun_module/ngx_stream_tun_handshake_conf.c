
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun_upstream.h>


#define NGX_STREAM_TUN_FOR(protocol)  (1 << (protocol))

#define NGX_STREAM_TUN_FOR_USER                                               \
    (NGX_STREAM_TUN_FOR(NGX_STREAM_TUN_SOCKS5)                                \
     | NGX_STREAM_TUN_FOR(NGX_STREAM_TUN_HTTP))


typedef char *(*ngx_stream_tun_param_pt)(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value);


typedef struct {
    ngx_str_t                 name;
    ngx_uint_t                protocols;
    ngx_stream_tun_param_pt   handler;
} ngx_stream_tun_param_t;


static char *ngx_stream_tun_handshake_param(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value);
static char *ngx_stream_tun_handshake_defaults(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf);
static char *ngx_stream_tun_handshake_compile(ngx_conf_t *cf, ngx_str_t *text,
    ngx_uint_t spaces, ngx_stream_complex_value_t *cv);
static char *ngx_stream_tun_handshake_slot(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_complex_value_t **cvp);
static ngx_stream_tun_field_t *ngx_stream_tun_handshake_field(
    ngx_stream_tun_handshake_conf_t *thcf, ngx_uint_t type);

static char *ngx_stream_tun_set_user(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value);
static char *ngx_stream_tun_set_password(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value);
static char *ngx_stream_tun_set_destination(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value);
static char *ngx_stream_tun_set_timeout(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value);
static char *ngx_stream_tun_set_final(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value);
static char *ngx_stream_tun_set_header(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value);
static char *ngx_stream_tun_set_tlv(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value);
static char *ngx_stream_tun_set_authority(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value);


static const ngx_str_t  ngx_stream_tun_protocols[] = {
    ngx_string("socks5"),
    ngx_string("http"),
    ngx_string("proxy_v2")
};


static const ngx_stream_tun_param_t  ngx_stream_tun_params[] = {

    { ngx_string("user="), NGX_STREAM_TUN_FOR_USER, ngx_stream_tun_set_user },

    { ngx_string("password="), NGX_STREAM_TUN_FOR_USER,
      ngx_stream_tun_set_password },

    { ngx_string("final="), NGX_STREAM_TUN_FOR_USER,
      ngx_stream_tun_set_final },

    { ngx_string("destination="), (ngx_uint_t) -1,
      ngx_stream_tun_set_destination },

    { ngx_string("timeout="), (ngx_uint_t) -1, ngx_stream_tun_set_timeout },

    { ngx_string("header="), NGX_STREAM_TUN_FOR(NGX_STREAM_TUN_HTTP),
      ngx_stream_tun_set_header },

    { ngx_string("tlv="), NGX_STREAM_TUN_FOR(NGX_STREAM_TUN_PROXY_V2),
      ngx_stream_tun_set_tlv },

    { ngx_string("authority="), NGX_STREAM_TUN_FOR(NGX_STREAM_TUN_PROXY_V2),
      ngx_stream_tun_set_authority },

    { ngx_null_string, 0, NULL }
};


char *
ngx_stream_tun_handshake(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_stream_tun_upstream_conf_t *tucf = conf;

    char                             *rv;
    ngx_str_t                        *value;
    ngx_uint_t                        i, n;
    ngx_stream_tun_handshake_conf_t  *thcf;

    if (tucf->handshake != NULL) {
        return "is duplicate";
    }

    thcf = ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_handshake_conf_t));
    if (thcf == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_array_init(&thcf->fields, cf->pool, 1,
                       sizeof(ngx_stream_tun_field_t))
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    thcf->timeout = NGX_CONF_UNSET_MSEC;

    value = cf->args->elts;
    n = sizeof(ngx_stream_tun_protocols) / sizeof(ngx_str_t);

    for (i = 0; i < n; i++) {
        if (ngx_strcmp(value[1].data, ngx_stream_tun_protocols[i].data) == 0) {
            break;
        }
    }

    if (i == n) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "unknown handshake \"%V\", it must be \"socks5\", "
                           "\"http\" or \"proxy_v2\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    thcf->protocol = i;
    thcf->name = &ngx_stream_tun_protocols[i];

    for (i = 2; i < cf->args->nelts; i++) {
        rv = ngx_stream_tun_handshake_param(cf, thcf, &value[i]);
        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    tucf->handshake = thcf;

    return ngx_stream_tun_handshake_defaults(cf, thcf);
}


static char *
ngx_stream_tun_handshake_param(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value)
{
    ngx_str_t                      text;
    const ngx_stream_tun_param_t  *param;

    if (ngx_strcmp(value->data, "pipeline") == 0
        && thcf->protocol == NGX_STREAM_TUN_SOCKS5)
    {
        thcf->pipeline = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value->data, "no_udp") == 0
        && thcf->protocol == NGX_STREAM_TUN_SOCKS5)
    {
        thcf->no_udp = 1;
        return NGX_CONF_OK;
    }

    for (param = ngx_stream_tun_params; param->name.len; param++) {

        if (ngx_strncmp(value->data, param->name.data, param->name.len) != 0) {
            continue;
        }

        if ((param->protocols & NGX_STREAM_TUN_FOR(thcf->protocol)) == 0) {
            break;
        }

        text.data = value->data + param->name.len;
        text.len = value->len - param->name.len;

        return param->handler(cf, thcf, &text);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\" of the handshake \"%V\"",
                       value, thcf->name);

    return NGX_CONF_ERROR;
}


static char *
ngx_stream_tun_handshake_defaults(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf)
{
    char                    *rv;
    ngx_str_t                target, name, codes;
    ngx_uint_t               i;
    ngx_stream_tun_field_t  *field;

    ngx_str_set(&target, "$tun_target");
    ngx_str_set(&name, "$tun_name");
    ngx_str_set(&codes, "4,5,6");

    ngx_conf_init_msec_value(thcf->timeout, 30000);

    if (thcf->password != NULL && thcf->user == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"password=\" without \"user=\"");
        return NGX_CONF_ERROR;
    }

    if (thcf->protocol == NGX_STREAM_TUN_PROXY_V2) {

        field = thcf->fields.elts;

        for (i = 0; i < thcf->fields.nelts; i++) {
            if (field[i].type == NGX_STREAM_TUN_PROXY_V2_AUTHORITY) {
                return NGX_CONF_OK;
            }
        }

        if (thcf->destination != NULL) {
            return NGX_CONF_OK;
        }

        field = ngx_stream_tun_handshake_field(thcf,
                                           NGX_STREAM_TUN_PROXY_V2_AUTHORITY);
        if (field == NULL) {
            return NGX_CONF_ERROR;
        }

        return ngx_stream_tun_handshake_compile(cf, &name, 0, &field->value);
    }

    if (thcf->destination == NULL) {
        rv = ngx_stream_tun_set_destination(cf, thcf, &target);
        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (thcf->final != NULL) {
        return NGX_CONF_OK;
    }

    if (thcf->protocol == NGX_STREAM_TUN_HTTP) {
        ngx_str_set(&codes, "403,502,504");
    }

    return ngx_stream_tun_set_final(cf, thcf, &codes);
}


static char *
ngx_stream_tun_handshake_compile(ngx_conf_t *cf, ngx_str_t *text,
    ngx_uint_t spaces, ngx_stream_complex_value_t *cv)
{
    ngx_str_t                            value;
    ngx_stream_compile_complex_value_t   ccv;

    value = *text;

    ngx_memzero(&ccv, sizeof(ngx_stream_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = &value;
    ccv.complex_value = cv;

    if (ngx_stream_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (cv->lengths == NULL
        && ngx_stream_tun_check_value(text, spaces) != NGX_OK)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "a value of %uz bytes, there may be %d of them, "
                           "without control bytes%s", text->len,
                           NGX_STREAM_TUN_VALUE_MAX,
                           spaces ? "" : " and spaces");
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_stream_tun_handshake_slot(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_complex_value_t **cvp)
{
    if (*cvp != NULL) {
        return "has a duplicate parameter";
    }

    if (value->len == 0) {
        return "has an empty value";
    }

    *cvp = ngx_palloc(cf->pool, sizeof(ngx_stream_complex_value_t));
    if (*cvp == NULL) {
        return NGX_CONF_ERROR;
    }

    return ngx_stream_tun_handshake_compile(cf, value, 0, *cvp);
}


static ngx_stream_tun_field_t *
ngx_stream_tun_handshake_field(ngx_stream_tun_handshake_conf_t *thcf,
    ngx_uint_t type)
{
    ngx_stream_tun_field_t  *field;

    field = ngx_array_push(&thcf->fields);
    if (field == NULL) {
        return NULL;
    }

    ngx_memzero(field, sizeof(ngx_stream_tun_field_t));
    field->type = type;

    return field;
}


static char *
ngx_stream_tun_set_user(ngx_conf_t *cf, ngx_stream_tun_handshake_conf_t *thcf,
    ngx_str_t *value)
{
    return ngx_stream_tun_handshake_slot(cf, value, &thcf->user);
}


static char *
ngx_stream_tun_set_password(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value)
{
    return ngx_stream_tun_handshake_slot(cf, value, &thcf->password);
}


static char *
ngx_stream_tun_set_destination(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value)
{
    ngx_stream_tun_destination_t  dst;

    if (thcf->destination != NULL) {
        return "has a duplicate parameter";
    }

    thcf->destination = ngx_stream_tun_compile_value(cf, value);

    if (thcf->destination == NULL) {
        return NGX_CONF_ERROR;
    }

    if (thcf->destination->lengths == NULL
        && ngx_stream_tun_parse_destination(value, &dst) != NGX_OK)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid destination \"%V\", it must be "
                           "\"host:port\"", value);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_stream_tun_set_timeout(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value)
{
    thcf->timeout = ngx_parse_time(value, 0);

    if (thcf->timeout == (ngx_msec_t) NGX_ERROR || thcf->timeout == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid timeout \"%V\"",
                           value);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* codes with commas between them, or "none" */

static char *
ngx_stream_tun_set_final(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value)
{
    u_char      *p, *last, *end;
    ngx_int_t    n;
    ngx_uint_t  *code;

    thcf->final = ngx_array_create(cf->pool, 4, sizeof(ngx_uint_t));
    if (thcf->final == NULL) {
        return NGX_CONF_ERROR;
    }

    if (value->len == 4 && ngx_strncmp(value->data, "none", 4) == 0) {
        return NGX_CONF_OK;
    }

    last = value->data + value->len;

    for (p = value->data; p <= last; p = end + 1) {

        end = ngx_strlchr(p, last, ',');
        if (end == NULL) {
            end = last;
        }

        n = ngx_atoi(p, end - p);

        if (n < 1 || n > ((thcf->protocol == NGX_STREAM_TUN_HTTP) ? 599 : 255))
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid codes \"%V\"",
                               value);
            return NGX_CONF_ERROR;
        }

        code = ngx_array_push(thcf->final);
        if (code == NULL) {
            return NGX_CONF_ERROR;
        }

        *code = n;
    }

    return NGX_CONF_OK;
}


/* "name: value"; the characters of a name are those of RFC 9110, 5.6.2 */

static char *
ngx_stream_tun_set_header(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value)
{
    u_char                  *p, *last;
    ngx_str_t                text;
    ngx_stream_tun_field_t  *field;

    last = value->data + value->len;

    for (p = value->data; p < last && *p != ':'; p++) {
        if (*p <= ' ' || *p >= 0x7f
            || ngx_strchr("\"(),/;<=>?@[\\]{}", *p) != NULL)
        {
            break;
        }
    }

    if (p == value->data || p == last || *p != ':') {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid header \"%V\", it must be "
                           "\"name: value\"", value);
        return NGX_CONF_ERROR;
    }

    field = ngx_stream_tun_handshake_field(thcf, 0);
    if (field == NULL) {
        return NGX_CONF_ERROR;
    }

    field->name.data = value->data;
    field->name.len = p - value->data;

    for (p++; p < last && *p == ' '; p++) { /* void */ }

    text.data = p;
    text.len = last - p;

    return ngx_stream_tun_handshake_compile(cf, &text, 1, &field->value);
}


/* "type:value", the type decimal or 0x and hexadecimal */

static char *
ngx_stream_tun_set_tlv(ngx_conf_t *cf, ngx_stream_tun_handshake_conf_t *thcf,
    ngx_str_t *value)
{
    u_char                  *p, *last;
    ngx_int_t                type;
    ngx_str_t                text;
    ngx_stream_tun_field_t  *field;

    last = value->data + value->len;
    p = ngx_strlchr(value->data, last, ':');
    type = NGX_ERROR;

    if (p != NULL && p - value->data > 2
        && ngx_strncmp(value->data, "0x", 2) == 0)
    {
        type = ngx_hextoi(value->data + 2, p - value->data - 2);

    } else if (p != NULL) {
        type = ngx_atoi(value->data, p - value->data);
    }

    if (type < 1 || type > 255) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid TLV \"%V\", it must be \"type:value\", "
                           "the type from 1 to 255", value);
        return NGX_CONF_ERROR;
    }

    field = ngx_stream_tun_handshake_field(thcf, type);
    if (field == NULL) {
        return NGX_CONF_ERROR;
    }

    text.data = p + 1;
    text.len = last - p - 1;

    return ngx_stream_tun_handshake_compile(cf, &text, 0, &field->value);
}


static char *
ngx_stream_tun_set_authority(ngx_conf_t *cf,
    ngx_stream_tun_handshake_conf_t *thcf, ngx_str_t *value)
{
    ngx_stream_tun_field_t  *field;

    field = ngx_stream_tun_handshake_field(thcf,
                                           NGX_STREAM_TUN_PROXY_V2_AUTHORITY);
    if (field == NULL) {
        return NGX_CONF_ERROR;
    }

    return ngx_stream_tun_handshake_compile(cf, value, 0, &field->value);
}
