
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_http_tun_status.h>


static void ngx_http_tun_json_object(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, ngx_stream_tun_object_t *object);
static void ngx_http_tun_json_name(ngx_http_tun_page_t *page,
    ngx_str_t *name);
static void ngx_http_tun_json_workers(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, ngx_stream_tun_object_t *object);
static void ngx_http_tun_json_stat(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, void *stat);


void
ngx_http_tun_status_json(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *groups)
{
    ngx_uint_t                i, n;
    ngx_stream_tun_object_t  *object;

    for (i = 0; i < NGX_HTTP_TUN_STATUS_GROUPS; i++) {
        ngx_http_tun_page(page, "%s\"%V\":[", (i == 0) ? "{" : ",",
                          &groups[i].key);

        object = groups[i].objects.elts;

        for (n = 0; n < groups[i].objects.nelts; n++) {
            ngx_http_tun_page(page, (n == 0) ? "{" : ",{");
            ngx_http_tun_json_object(page, &groups[i], &object[n]);
            ngx_http_tun_page(page, "}");
        }

        ngx_http_tun_page(page, "]");
    }

    ngx_http_tun_page(page, "}" CRLF);
}


static void
ngx_http_tun_json_object(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, ngx_stream_tun_object_t *object)
{
    ngx_uint_t                      i;
    const ngx_stream_tun_metric_t  *metric;

    ngx_http_tun_json_name(page, &object->name);

    if (object->stack != NULL) {
        ngx_http_tun_page(page, ",\"stack\":\"%s\"", object->stack);
    }

    for (i = 0; i < group->nown; i++) {
        metric = &group->own[i];

        ngx_http_tun_page(page, ",\"%V\":%uA", &metric->name,
                          ngx_stream_tun_metric(object->own, metric));
    }

    if (group->nmetrics != 0) {
        ngx_http_tun_json_workers(page, group, object);
    }
}


static void
ngx_http_tun_json_name(ngx_http_tun_page_t *page, ngx_str_t *name)
{
    size_t   len;
    u_char  *p;

    len = name->len + ngx_escape_json(NULL, name->data, name->len);

    p = ngx_pnalloc(page->pool, len);
    if (p == NULL) {
        page->failed = 1;
        return;
    }

    (void) ngx_escape_json(p, name->data, name->len);

    ngx_http_tun_page(page, "\"name\":\"");
    ngx_http_tun_page_add(page, p, len);
    ngx_http_tun_page(page, "\"");
}


static void
ngx_http_tun_json_workers(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, ngx_stream_tun_object_t *object)
{
    ngx_uint_t  i;

    ngx_http_tun_page(page, ",\"total\":");
    ngx_http_tun_json_stat(page, group, object->total);
    ngx_http_tun_page(page, ",\"workers\":[");

    for (i = 0; i < object->workers; i++) {
        if (i != 0) {
            ngx_http_tun_page(page, ",");
        }

        ngx_http_tun_json_stat(page, group, object->stats + i * group->size);
    }

    ngx_http_tun_page(page, "]");
}


static void
ngx_http_tun_json_stat(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, void *stat)
{
    ngx_uint_t                      i;
    const ngx_stream_tun_metric_t  *metric;

    for (i = 0; i < group->nmetrics; i++) {
        metric = &group->metrics[i];

        ngx_http_tun_page(page, "%s\"%V\":%uA", (i == 0) ? "{" : ",",
                          &metric->name, ngx_stream_tun_metric(stat, metric));
    }

    ngx_http_tun_page(page, "}");
}
