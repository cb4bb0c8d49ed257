
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_http_tun_status.h>


static void ngx_http_tun_prometheus_group(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group);
static void ngx_http_tun_prometheus_info(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group);
static void ngx_http_tun_prometheus_head(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, const ngx_stream_tun_metric_t *metric);
static void ngx_http_tun_prometheus_workers(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, ngx_stream_tun_object_t *object,
    const ngx_stream_tun_metric_t *metric);
static void ngx_http_tun_prometheus_labels(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, ngx_stream_tun_object_t *object);


#define ngx_http_tun_prometheus_suffix(metric)                                \
    ((metric)->gauge ? "" : "_total")


/* the text format, version 0.0.4: lines of a metric stand together */

void
ngx_http_tun_status_prometheus(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *groups)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_TUN_STATUS_GROUPS; i++) {
        if (groups[i].objects.nelts != 0) {
            ngx_http_tun_prometheus_group(page, &groups[i]);
        }
    }
}


static void
ngx_http_tun_prometheus_group(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group)
{
    ngx_uint_t                      i, n;
    ngx_stream_tun_object_t        *object;
    const ngx_stream_tun_metric_t  *metric;

    object = group->objects.elts;

    if (object[0].stack != NULL) {
        ngx_http_tun_prometheus_info(page, group);
    }

    for (i = 0; i < group->nown; i++) {
        metric = &group->own[i];
        ngx_http_tun_prometheus_head(page, group, metric);

        for (n = 0; n < group->objects.nelts; n++) {
            ngx_http_tun_page(page, "%V%V%s", &group->prefix, &metric->name,
                              ngx_http_tun_prometheus_suffix(metric));
            ngx_http_tun_prometheus_labels(page, group, &object[n]);
            ngx_http_tun_page(page, "} %uA\n",
                              ngx_stream_tun_metric(object[n].own, metric));
        }
    }

    for (i = 0; i < group->nmetrics; i++) {
        metric = &group->metrics[i];
        ngx_http_tun_prometheus_head(page, group, metric);

        for (n = 0; n < group->objects.nelts; n++) {
            ngx_http_tun_prometheus_workers(page, group, &object[n], metric);
        }
    }
}


static void
ngx_http_tun_prometheus_info(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group)
{
    ngx_uint_t                i;
    ngx_stream_tun_object_t  *object;

    object = group->objects.elts;

    ngx_http_tun_page(page, "# HELP %Vinfo The stack of the device\n"
                            "# TYPE %Vinfo gauge\n",
                      &group->prefix, &group->prefix);

    for (i = 0; i < group->objects.nelts; i++) {
        ngx_http_tun_page(page, "%Vinfo", &group->prefix);
        ngx_http_tun_prometheus_labels(page, group, &object[i]);
        ngx_http_tun_page(page, ",stack=\"%s\"} 1\n", object[i].stack);
    }
}


static void
ngx_http_tun_prometheus_head(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, const ngx_stream_tun_metric_t *metric)
{
    const char  *suffix;

    suffix = ngx_http_tun_prometheus_suffix(metric);

    ngx_http_tun_page(page, "# HELP %V%V%s %s\n# TYPE %V%V%s %s\n",
                      &group->prefix, &metric->name, suffix, metric->help,
                      &group->prefix, &metric->name, suffix,
                      metric->gauge ? "gauge" : "counter");
}


static void
ngx_http_tun_prometheus_workers(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, ngx_stream_tun_object_t *object,
    const ngx_stream_tun_metric_t *metric)
{
    ngx_uint_t  i;

    for (i = 0; i < object->workers; i++) {
        ngx_http_tun_page(page, "%V%V%s", &group->prefix, &metric->name,
                          ngx_http_tun_prometheus_suffix(metric));
        ngx_http_tun_prometheus_labels(page, group, object);
        ngx_http_tun_page(page, ",worker=\"%ui\"} %uA\n", i,
                          ngx_stream_tun_metric(object->stats
                                                + i * group->size, metric));
    }
}


/* the format escapes these three in a value */

static void
ngx_http_tun_prometheus_labels(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, ngx_stream_tun_object_t *object)
{
    u_char      ch;
    ngx_uint_t  i;

    ngx_http_tun_page(page, "{%V=\"", &group->label);

    for (i = 0; i < object->name.len; i++) {
        ch = object->name.data[i];

        if (ch == '\\' || ch == '"') {
            ngx_http_tun_page(page, "\\%c", ch);

        } else if (ch == '\n') {
            ngx_http_tun_page(page, "\\n");

        } else {
            ngx_http_tun_page_add(page, &ch, 1);
        }
    }

    ngx_http_tun_page(page, "\"");
}
