
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_http_tun_status.h>


static void ngx_http_tun_html_object(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, ngx_stream_tun_object_t *object);
static void ngx_http_tun_html_name(ngx_http_tun_page_t *page,
    ngx_str_t *name);
static void ngx_http_tun_html_head(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, ngx_stream_tun_object_t *object);
static void ngx_http_tun_html_row(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, ngx_stream_tun_object_t *object,
    const ngx_stream_tun_metric_t *metric);
static void ngx_http_tun_html_value(ngx_http_tun_page_t *page,
    ngx_atomic_uint_t value);


/* with a script it refreshes in place, and else as a whole */

static const u_char  ngx_http_tun_html_begin[] =
    "<!DOCTYPE html>\n"
    "<html lang=\"en\">\n"
    "<head>\n"
    "<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\""
    " content=\"width=device-width, initial-scale=1\">\n"
    "<meta name=\"color-scheme\" content=\"light dark\">\n"
    "<link rel=\"icon\" href=\"data:,\">\n"
    "<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\n"
    "<title>nginx-tun</title>\n"
    "<style>\n"
    ":root { --fg: #1c2024; --dim: #70777f; --zero: #b4bac1;\n"
    "  --bg: #f5f6f8; --card: #fff; --line: #e4e7ea; --accent: #00873c }\n"
    "@media (prefers-color-scheme: dark) {\n"
    "  :root { --fg: #e2e6ea; --dim: #949ca4; --zero: #565d64;\n"
    "    --bg: #14171a; --card: #1d2125; --line: #2d3338;"
    " --accent: #3fcf7f }\n"
    "}\n"
    "* { box-sizing: border-box }\n"
    "body { margin: 0 auto; padding: 1.5rem; max-width: 76rem;\n"
    "  background: var(--bg); color: var(--fg);\n"
    "  font: 15px/1.45 system-ui, sans-serif }\n"
    "header { display: flex; align-items: baseline; gap: 1rem }\n"
    "h1 { margin: 0; font-size: 1.5rem; color: var(--accent) }\n"
    "h2 { margin: 0; padding: .8rem 1rem; font-size: 1.05rem }\n"
    "h2 small, header span { color: var(--dim); font-weight: normal;\n"
    "  font-size: .85rem }\n"
    "header span { margin-left: auto }\n"
    ".stale { color: #d14343 }\n"
    "section { margin: 1.2rem 0; background: var(--card); overflow-x: auto;\n"
    "  border: 1px solid var(--line); border-radius: 10px }\n"
    "table { width: 100%; border-collapse: collapse }\n"
    "th, td { padding: .22rem 1rem; text-align: left; font-weight: normal;\n"
    "  border-top: 1px solid var(--line); white-space: nowrap }\n"
    "thead th, td.help { color: var(--dim); font-size: .85rem }\n"
    "tbody th { font: .88rem ui-monospace, monospace }\n"
    "td.help { width: 60%; white-space: normal; min-width: 14rem }\n"
    "td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }\n"
    "td.n:nth-child(2) { font-weight: 600 }\n"
    "td.n.zero { color: var(--zero); font-weight: normal }\n"
    "tbody tr:hover { background: var(--bg) }\n"
    "@media (max-width: 52rem) {\n"
    "  body { padding: .8rem }\n"
    "  td.help { display: none }\n"
    "}\n"
    "</style>\n"
    "</head>\n"
    "<body>\n"
    "<header><h1>nginx-tun</h1><span id=\"state\"></span>"
    "</header>\n"
    "<main>\n";


static const u_char  ngx_http_tun_html_end[] =
    "</main>\n"
    "<script>\n"
    "'use strict';\n"
    "const state = document.getElementById('state');\n"
    "async function refresh() {\n"
    "  if (document.hidden) return;\n"
    "  try {\n"
    "    const answer = await fetch(location.href, { cache: 'no-store' });\n"
    "    if (!answer.ok) throw new Error(answer.status);\n"
    "    const page = new DOMParser().parseFromString(\n"
    "      await answer.text(), 'text/html');\n"
    "    document.querySelector('main').replaceWith(\n"
    "      page.querySelector('main'));\n"
    "    state.textContent = 'as of ' + new Date().toLocaleTimeString();\n"
    "    state.className = '';\n"
    "  } catch (e) {\n"
    "    state.textContent = 'no answer, ' + e.message;\n"
    "    state.className = 'stale';\n"
    "  }\n"
    "}\n"
    "setInterval(refresh, 2000);\n"
    "</script>\n"
    "</body>\n"
    "</html>\n";


void
ngx_http_tun_status_html(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *groups)
{
    ngx_uint_t                i, n, found;
    ngx_stream_tun_object_t  *object;

    ngx_http_tun_page_add(page, ngx_http_tun_html_begin,
                          sizeof(ngx_http_tun_html_begin) - 1);

    found = 0;

    for (i = 0; i < NGX_HTTP_TUN_STATUS_GROUPS; i++) {
        object = groups[i].objects.elts;

        for (n = 0; n < groups[i].objects.nelts; n++) {
            ngx_http_tun_html_object(page, &groups[i], &object[n]);
            found = 1;
        }
    }

    if (!found) {
        ngx_http_tun_page(page, "<section><h2>There is no device.</h2>"
                                "</section>\n");
    }

    ngx_http_tun_page_add(page, ngx_http_tun_html_end,
                          sizeof(ngx_http_tun_html_end) - 1);
}


static void
ngx_http_tun_html_object(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, ngx_stream_tun_object_t *object)
{
    ngx_uint_t  i;

    ngx_http_tun_page(page, "<section data-group=\"%V\">\n<h2>%s ",
                      &group->key, group->title);
    ngx_http_tun_html_name(page, &object->name);

    if (object->stack != NULL) {
        ngx_http_tun_page(page, " <small>%s stack</small>", object->stack);
    }

    ngx_http_tun_page(page, "</h2>\n<table>\n");
    ngx_http_tun_html_head(page, group, object);
    ngx_http_tun_page(page, "<tbody>\n");

    for (i = 0; i < group->nown; i++) {
        ngx_http_tun_page(page, "<tr><th>%V</th>", &group->own[i].name);
        ngx_http_tun_html_value(page, ngx_stream_tun_metric(object->own,
                                                         &group->own[i]));

        if (object->workers > 1) {
            ngx_http_tun_page(page, "<td colspan=\"%ui\"></td>",
                              object->workers);
        }

        ngx_http_tun_page(page, "<td class=\"help\">%s</td></tr>\n",
                          group->own[i].help);
    }

    for (i = 0; i < group->nmetrics; i++) {
        ngx_http_tun_html_row(page, group, object, &group->metrics[i]);
    }

    ngx_http_tun_page(page, "</tbody>\n</table>\n</section>\n");
}


static void
ngx_http_tun_html_name(ngx_http_tun_page_t *page, ngx_str_t *name)
{
    u_char  *p, *last;

    p = ngx_pnalloc(page->pool, 6 * name->len);
    if (p == NULL) {
        page->failed = 1;
        return;
    }

    last = (u_char *) ngx_escape_html(p, name->data, name->len);

    ngx_http_tun_page_add(page, p, last - p);
}


static void
ngx_http_tun_html_head(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, ngx_stream_tun_object_t *object)
{
    ngx_uint_t  i;

    if (object->workers < 2) {
        return;
    }

    ngx_http_tun_page(page, "<thead><tr><th></th><th class=\"n\">total</th>");

    for (i = 0; i < object->workers; i++) {
        ngx_http_tun_page(page, "<th class=\"n\">worker %ui</th>", i);
    }

    ngx_http_tun_page(page, "<th></th></tr></thead>\n");
}


static void
ngx_http_tun_html_row(ngx_http_tun_page_t *page,
    ngx_stream_tun_group_t *group, ngx_stream_tun_object_t *object,
    const ngx_stream_tun_metric_t *metric)
{
    ngx_uint_t  i;

    ngx_http_tun_page(page, "<tr><th>%V</th>", &metric->name);
    ngx_http_tun_html_value(page,
                            ngx_stream_tun_metric(object->total, metric));

    if (object->workers > 1) {
        for (i = 0; i < object->workers; i++) {
            ngx_http_tun_html_value(page,
                ngx_stream_tun_metric(object->stats + i * group->size,
                                      metric));
        }
    }

    ngx_http_tun_page(page, "<td class=\"help\">%s</td></tr>\n",
                      metric->help);
}


static void
ngx_http_tun_html_value(ngx_http_tun_page_t *page, ngx_atomic_uint_t value)
{
    ngx_http_tun_page(page, "<td class=\"n%s\">%uA</td>",
                      (value == 0) ? " zero" : "", value);
}
