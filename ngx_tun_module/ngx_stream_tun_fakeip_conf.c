
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_stream_tun.h>
#include <ngx_stream_tun_fakeip.h>
#include <ngx_md5.h>


#define NGX_STREAM_TUN_FAKEIP_TTL       30
#define NGX_STREAM_TUN_FAKEIP_HOLD      3600
#define NGX_STREAM_TUN_FAKEIP_HOLD_MAX  (365 * 24 * 3600)


static ngx_stream_tun_fakeip_zone_t *ngx_stream_tun_fakeip_get_zone(
    ngx_conf_t *cf, ngx_str_t *name);
static char *ngx_stream_tun_fakeip_name_size(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_tun_fakeip_zone_t **zone);
static char *ngx_stream_tun_fakeip_param(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_tun_fakeip_zone_t *zone, ngx_str_t *key);
static char *ngx_stream_tun_fakeip_prefix(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_tun_fakeip_zone_t *zone);
static char *ngx_stream_tun_fakeip_check_zone(ngx_conf_t *cf,
    ngx_stream_tun_fakeip_zone_t *zone);
static void ngx_stream_tun_fakeip_key(ngx_conf_t *cf,
    ngx_stream_tun_fakeip_zone_t *zone, ngx_str_t *key);
static char *ngx_stream_tun_fakeip_add_zone(ngx_conf_t *cf,
    ngx_stream_tun_fakeip_zone_t *zone);
static ngx_tun_fakeip_t *ngx_stream_tun_fakeip_old(ngx_conf_t *cf,
    ngx_stream_tun_fakeip_zone_t *zone);
static ngx_int_t ngx_stream_tun_fakeip_check_pair(ngx_conf_t *cf,
    ngx_stream_tun_fakeip_zone_t *zone, ngx_stream_tun_fakeip_zone_t *other);
static ngx_int_t ngx_stream_tun_fakeip_check_hosts(ngx_conf_t *cf,
    ngx_stream_tun_fakeip_zone_t *zone, ngx_array_t *reserved);
static ngx_int_t ngx_stream_tun_fakeip_check_host(ngx_conf_t *cf,
    ngx_stream_tun_fakeip_zone_t *zone, ngx_stream_tun_fakeip_host_t *fh,
    ngx_array_t *reserved);


char *
ngx_stream_tun_fakeip_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                          *rv;
    ngx_str_t                     *value, key;
    ngx_uint_t                     i;
    ngx_stream_tun_fakeip_zone_t  *zone;

    value = cf->args->elts;

    rv = ngx_stream_tun_fakeip_name_size(cf, &value[1], &zone);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    zone->conf_file = cf->conf_file->file.name.data;
    zone->line = cf->conf_file->line;
    zone->fip.conf.ttl = NGX_STREAM_TUN_FAKEIP_TTL;
    zone->fip.conf.hold = NGX_STREAM_TUN_FAKEIP_HOLD;

    ngx_str_null(&key);

    for (i = 2; i < cf->args->nelts; i++) {
        rv = ngx_stream_tun_fakeip_param(cf, &value[i], zone, &key);
        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    rv = ngx_stream_tun_fakeip_check_zone(cf, zone);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    ngx_stream_tun_fakeip_key(cf, zone, &key);

    return ngx_stream_tun_fakeip_add_zone(cf, zone);
}


ngx_tun_fakeip_t *
ngx_stream_tun_fakeip_pool(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_stream_tun_fakeip_zone_t  *zone;

    zone = ngx_stream_tun_fakeip_get_zone(cf, name);

    return (zone != NULL) ? &zone->fip : NULL;
}


static ngx_stream_tun_fakeip_zone_t *
ngx_stream_tun_fakeip_get_zone(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_uint_t                          i;
    ngx_stream_tun_fakeip_zone_t       *zone, **zonep;
    ngx_stream_tun_fakeip_main_conf_t  *fmcf;

    fmcf = ngx_stream_conf_get_module_main_conf(cf,
                                                ngx_stream_tun_fakeip_module);
    zonep = fmcf->zones.elts;

    for (i = 0; i < fmcf->zones.nelts; i++) {
        if (zonep[i]->name.len == name->len
            && ngx_strncmp(zonep[i]->name.data, name->data, name->len) == 0)
        {
            return zonep[i];
        }
    }

    zone = ngx_pcalloc(cf->pool, sizeof(ngx_stream_tun_fakeip_zone_t));
    if (zone == NULL) {
        return NULL;
    }

    zone->name = *name;
    zone->cycle = cf->cycle;

    /* here, for a single process has no init_process after a reload */

    ngx_queue_init(&zone->sessions);

    zone->lease.handler = ngx_stream_tun_fakeip_lease;
    zone->lease.data = zone;
    zone->lease.log = &cf->cycle->new_log;
    zone->lease.cancelable = 1;

    zone->conf_file = cf->conf_file->file.name.data;
    zone->line = cf->conf_file->line;

    if (ngx_array_init(&zone->hosts, cf->pool, 4,
                       sizeof(ngx_stream_tun_fakeip_host_t))
        != NGX_OK)
    {
        return NULL;
    }

    zonep = ngx_array_push(&fmcf->zones);
    if (zonep == NULL) {
        return NULL;
    }

    *zonep = zone;

    return zone;
}


static char *
ngx_stream_tun_fakeip_name_size(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_tun_fakeip_zone_t **zone)
{
    u_char     *colon;
    ssize_t     size;
    ngx_str_t   name, s;

    colon = ngx_strlchr(value->data, value->data + value->len, ':');

    if (colon == NULL || colon == value->data) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is not a name and a size, "
                           "such as \"names:16m\"", value);
        return NGX_CONF_ERROR;
    }

    name.data = value->data;
    name.len = colon - value->data;

    s.data = colon + 1;
    s.len = value->data + value->len - s.data;

    size = ngx_parse_size(&s);

    if (size == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid zone size \"%V\"", value);
        return NGX_CONF_ERROR;
    }

    *zone = ngx_stream_tun_fakeip_get_zone(cf, &name);
    if (*zone == NULL) {
        return NGX_CONF_ERROR;
    }

    if ((*zone)->shm_zone != NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate fake-IP zone \"%V\", the first is in "
                           "%s:%ui", &name, (*zone)->conf_file, (*zone)->line);
        return NGX_CONF_ERROR;
    }

    (*zone)->size = (size_t) size;

    return NGX_CONF_OK;
}


static char *
ngx_stream_tun_fakeip_param(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_tun_fakeip_zone_t *zone, ngx_str_t *key)
{
    time_t     *seconds;
    ngx_str_t   s;

    if (ngx_strncmp(value->data, "ttl=", 4) == 0
        || ngx_strncmp(value->data, "hold=", 5) == 0)
    {
        seconds = (value->data[0] == 't') ? &zone->fip.conf.ttl
                                          : &zone->fip.conf.hold;

        s.data = (u_char *) ngx_strchr(value->data, '=') + 1;
        s.len = value->data + value->len - s.data;

        *seconds = ngx_parse_time(&s, 1);

        if (*seconds == (time_t) NGX_ERROR
            || *seconds < 1
            || *seconds > NGX_STREAM_TUN_FAKEIP_HOLD_MAX)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid time \"%V\", it must be from 1s to "
                               "365d", value);
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    if (ngx_strncmp(value->data, "file=", 5) == 0 && value->len > 5) {
        zone->file.data = value->data + 5;
        zone->file.len = value->len - 5;

        return (ngx_conf_full_name(cf->cycle, &zone->file, 0) == NGX_OK)
               ? NGX_CONF_OK : NGX_CONF_ERROR;
    }

    if (ngx_strncmp(value->data, "key=", 4) == 0 && value->len > 4) {
        key->data = value->data + 4;
        key->len = value->len - 4;

        return NGX_CONF_OK;
    }

    return ngx_stream_tun_fakeip_prefix(cf, value, zone);
}


static char *
ngx_stream_tun_fakeip_prefix(ngx_conf_t *cf, ngx_str_t *value,
    ngx_stream_tun_fakeip_zone_t *zone)
{
    u_char                   *mask;
    size_t                    len;
    ngx_cidr_t                cidr;
    ngx_uint_t                bits;
    ngx_tun_fakeip_prefix_t  *prefix;

    if (ngx_strlchr(value->data, value->data + value->len, '/') == NULL
        || ngx_ptocidr(value, &cidr) != NGX_OK)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is neither a prefix nor a parameter",
                           value);
        return NGX_CONF_ERROR;
    }

#if (NGX_HAVE_INET6)
    if (cidr.family == AF_INET6) {
        prefix = &zone->fip.conf.prefix[1];
        len = 16;
        mask = cidr.u.in6.mask.s6_addr;
        ngx_memcpy(prefix->addr, cidr.u.in6.addr.s6_addr, 16);

    } else
#endif
    {
        prefix = &zone->fip.conf.prefix[0];
        len = 4;
        mask = (u_char *) &cidr.u.in.mask;
        ngx_memcpy(prefix->addr, &cidr.u.in.addr, 4);
    }

    if (prefix->addr_len != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is a second prefix of its family", value);
        return NGX_CONF_ERROR;
    }

    for (bits = 0;
         bits < len * 8 && (mask[bits / 8] & (0x80 >> (bits % 8)));
         bits++)
    {
        /* void */
    }

    if (bits < 8 || bits > len * 8 - 2) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the prefix \"%V\" must be from /8 to /%uz",
                           value, len * 8 - 2);
        return NGX_CONF_ERROR;
    }

    prefix->addr_len = len;
    prefix->prefix = bits;

    return NGX_CONF_OK;
}


static char *
ngx_stream_tun_fakeip_check_zone(ngx_conf_t *cf,
    ngx_stream_tun_fakeip_zone_t *zone)
{
    size_t                  need, overhead;
    ngx_tun_fakeip_conf_t  *fcf;

    fcf = &zone->fip.conf;

    if (fcf->prefix[0].addr_len == 0 && fcf->prefix[1].addr_len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no prefix of the fake-IP zone \"%V\"",
                           &zone->name);
        return NGX_CONF_ERROR;
    }

    if (fcf->prefix[0].addr_len != 0
        && fcf->prefix[1].addr_len != 0
        && 128 - fcf->prefix[1].prefix < 32 - fcf->prefix[0].prefix)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the IPv6 prefix of the fake-IP zone \"%V\" has "
                           "fewer addresses than the IPv4 one, it must be a "
                           "/%ui at most", &zone->name,
                           96 + fcf->prefix[0].prefix);
        return NGX_CONF_ERROR;
    }

    if (fcf->hold <= fcf->ttl) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"hold\" of the fake-IP zone \"%V\" must be "
                           "longer than \"ttl\": %T and %T seconds",
                           &zone->name, fcf->hold, fcf->ttl);
        return NGX_CONF_ERROR;
    }

    /* what nginx needs of a zone for itself */

    need = ngx_tun_fakeip_size(fcf);
    overhead = zone->size / 128 + 4 * ngx_pagesize;

    if (zone->size < need + need / 64 + 4 * ngx_pagesize) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the fake-IP zone \"%V\" is too small for its "
                           "prefixes, it needs %uzk", &zone->name,
                           (need + need / 64 + 4 * ngx_pagesize) / 1024 + 1);
        return NGX_CONF_ERROR;
    }

    zone->memory = (zone->size - overhead) / ngx_pagesize * ngx_pagesize;

    return NGX_CONF_OK;
}


/* from what stays the same over restarts, but is another one elsewhere */

static void
ngx_stream_tun_fakeip_key(ngx_conf_t *cf, ngx_stream_tun_fakeip_zone_t *zone,
    ngx_str_t *key)
{
    u_char      id[64];
    ssize_t     n;
    ngx_fd_t    fd;
    ngx_md5_t   md5;

    ngx_md5_init(&md5);

    if (key->len != 0) {
        ngx_md5_update(&md5, key->data, key->len);

    } else {
        n = 0;
        fd = ngx_open_file("/etc/machine-id", NGX_FILE_RDONLY, NGX_FILE_OPEN,
                           0);

        if (fd != NGX_INVALID_FILE) {
            n = ngx_read_fd(fd, id, sizeof(id));
            (void) ngx_close_file(fd);
        }

        if (n > 0) {
            ngx_md5_update(&md5, id, n);

        } else {
            ngx_md5_update(&md5, cf->cycle->hostname.data,
                           cf->cycle->hostname.len);
        }

        ngx_md5_update(&md5, zone->name.data, zone->name.len);
    }

    ngx_md5_final(zone->fip.conf.key, &md5);
}


static char *
ngx_stream_tun_fakeip_add_zone(ngx_conf_t *cf,
    ngx_stream_tun_fakeip_zone_t *zone)
{
    u_char     *p;
    uint64_t    id;
    ngx_str_t   name;

    p = ngx_pnalloc(cf->pool, sizeof("tun_fakeip::") + zone->name.len + 16);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    /* other prefixes are another zone: the old workers use theirs */

    id = ngx_tun_fakeip_hash(zone->fip.conf.key,
                             (u_char *) zone->fip.conf.prefix,
                             sizeof(zone->fip.conf.prefix));

    name.data = p;
    name.len = ngx_sprintf(p, "tun_fakeip:%V:%016xL%Z", &zone->name, id) - p
               - 1;

    zone->shm_zone = ngx_shared_memory_add(cf, &name, zone->size,
                                           &ngx_stream_tun_fakeip_module);
    if (zone->shm_zone == NULL) {
        return NGX_CONF_ERROR;
    }

    zone->shm_zone->init = ngx_stream_tun_fakeip_init_zone;
    zone->shm_zone->data = zone;

    zone->old = ngx_stream_tun_fakeip_old(cf, zone);

    return NGX_CONF_OK;
}


static ngx_tun_fakeip_t *
ngx_stream_tun_fakeip_old(ngx_conf_t *cf, ngx_stream_tun_fakeip_zone_t *zone)
{
    ngx_uint_t                     i;
    ngx_shm_zone_t                *shm_zone;
    ngx_list_part_t               *part;
    ngx_stream_tun_fakeip_zone_t  *old;

    if (cf->cycle->old_cycle == NULL) {
        return NULL;
    }

    part = &cf->cycle->old_cycle->shared_memory.part;

    for ( /* void */ ; part != NULL; part = part->next) {
        shm_zone = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (shm_zone[i].tag != &ngx_stream_tun_fakeip_module) {
                continue;
            }

            old = shm_zone[i].data;

            if (old->name.len == zone->name.len
                && ngx_strncmp(old->name.data, zone->name.data,
                               zone->name.len)
                   == 0)
            {
                return &old->fip;
            }
        }
    }

    return NULL;
}


char *
ngx_stream_tun_fakeip_host(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    u_char                         name[NGX_TUN_FAKEIP_NAME_MAX];
    size_t                         len;
    ngx_str_t                     *value;
    struct in_addr                 in;
    ngx_tun_fakeip_host_t         *host;
    ngx_stream_tun_fakeip_host_t  *fh;
    ngx_stream_tun_fakeip_zone_t  *zone;

    value = cf->args->elts;

    zone = ngx_stream_tun_fakeip_get_zone(cf, &value[1]);
    if (zone == NULL) {
        return NGX_CONF_ERROR;
    }

    fh = ngx_array_push(&zone->hosts);
    if (fh == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(fh, sizeof(ngx_stream_tun_fakeip_host_t));

    fh->name = value[2];
    fh->address = value[3];
    fh->conf_file = cf->conf_file->file.name.data;
    fh->line = cf->conf_file->line;
    host = &fh->host;

    if (ngx_tun_fakeip_wire(&value[2], name, &len) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is not the name of a host", &value[2]);
        return NGX_CONF_ERROR;
    }

    host->name = ngx_pnalloc(cf->pool, len);
    if (host->name == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memcpy(host->name, name, len);
    host->len = len;

    in.s_addr = ngx_inet_addr(value[3].data, value[3].len);

    if (in.s_addr != INADDR_NONE) {
        host->addr_len = 4;
        ngx_memcpy(host->addr, &in, 4);

        return NGX_CONF_OK;
    }

#if (NGX_HAVE_INET6)
    if (ngx_inet6_addr(value[3].data, value[3].len, host->addr) == NGX_OK) {
        host->addr_len = 16;
        return NGX_CONF_OK;
    }
#endif

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"%V\" is not an address", &value[3]);

    return NGX_CONF_ERROR;
}


ngx_int_t
ngx_stream_tun_fakeip_check(ngx_conf_t *cf,
    ngx_stream_tun_fakeip_main_conf_t *fmcf)
{
    ngx_uint_t                      i, k;
    ngx_stream_tun_fakeip_zone_t  **zonep;

    zonep = fmcf->zones.elts;

    if (ngx_array_init(&fmcf->reserved, cf->pool, 8,
                       sizeof(ngx_tun_fakeip_host_t))
        != NGX_OK
        || ngx_stream_tun_fakeip_reserved(&fmcf->reserved, cf->cycle)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < fmcf->zones.nelts; i++) {

        if (zonep[i]->shm_zone == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "unknown fake-IP zone \"%V\" in %s:%ui",
                          &zonep[i]->name, zonep[i]->conf_file,
                          zonep[i]->line);
            return NGX_ERROR;
        }

        for (k = 0; k < i; k++) {
            if (ngx_stream_tun_fakeip_check_pair(cf, zonep[i], zonep[k])
                != NGX_OK)
            {
                return NGX_ERROR;
            }
        }

        if (ngx_stream_tun_fakeip_check_hosts(cf, zonep[i], &fmcf->reserved)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_fakeip_check_pair(ngx_conf_t *cf,
    ngx_stream_tun_fakeip_zone_t *zone, ngx_stream_tun_fakeip_zone_t *other)
{
    size_t                    len;
    uint32_t                  index;
    ngx_uint_t                i;
    ngx_tun_fakeip_prefix_t  *p, *q;

    if (zone->file.len != 0
        && zone->file.len == other->file.len
        && ngx_strncmp(zone->file.data, other->file.data, zone->file.len)
           == 0)
    {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "the file \"%V\" is that of two fake-IP zones, \"%V\" "
                      "and \"%V\" in %s:%ui", &zone->file, &other->name,
                      &zone->name, zone->conf_file, zone->line);
        return NGX_ERROR;
    }

    for (i = 0; i < 2; i++) {
        p = &zone->fip.conf.prefix[i];
        q = &other->fip.conf.prefix[i];
        len = i ? 16 : 4;

        if (p->addr_len == 0 || q->addr_len == 0
            || (ngx_tun_fakeip_index(&zone->fip, q->addr, len, &index)
                   != NGX_OK
                && ngx_tun_fakeip_index(&other->fip, p->addr, len, &index)
                   != NGX_OK))
        {
            continue;
        }

        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "the %s prefixes of the fake-IP zones \"%V\" and \"%V\" "
                      "overlap in %s:%ui", i ? "IPv6" : "IPv4", &other->name,
                      &zone->name, zone->conf_file, zone->line);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_fakeip_check_hosts(ngx_conf_t *cf,
    ngx_stream_tun_fakeip_zone_t *zone, ngx_array_t *reserved)
{
    ngx_uint_t                     i, k;
    ngx_stream_tun_fakeip_host_t  *fh;

    fh = zone->hosts.elts;

    for (i = 0; i < zone->hosts.nelts; i++) {

        if (ngx_stream_tun_fakeip_check_host(cf, zone, &fh[i], reserved)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        for (k = 0; k < i; k++) {

            if (fh[i].index != fh[k].index
                && (fh[i].host.len != fh[k].host.len
                    || ngx_memcmp(fh[i].host.name, fh[k].host.name,
                                  fh[i].host.len)
                       != 0))
            {
                continue;
            }

            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"tun_fakeip_host\" of \"%V\" %V conflicts with "
                          "that of \"%V\" %V in %s:%ui in %s:%ui",
                          &fh[i].name, &fh[i].address, &fh[k].name,
                          &fh[k].address, fh[k].conf_file, fh[k].line,
                          fh[i].conf_file, fh[i].line);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_stream_tun_fakeip_check_host(ngx_conf_t *cf,
    ngx_stream_tun_fakeip_zone_t *zone, ngx_stream_tun_fakeip_host_t *fh,
    ngx_array_t *reserved)
{
    uint32_t                index;
    ngx_uint_t              i;
    ngx_tun_fakeip_host_t  *host;

    if (ngx_tun_fakeip_usable(&zone->fip.conf, fh->host.addr,
                              fh->host.addr_len, &fh->index)
        != NGX_OK)
    {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "the address %V of \"%V\" is not one that the fake-IP "
                      "zone \"%V\" has for names in %s:%ui", &fh->address,
                      &fh->name, &zone->name, fh->conf_file, fh->line);
        return NGX_ERROR;
    }

    host = reserved->elts;

    for (i = 0; i < reserved->nelts; i++) {

        if (ngx_tun_fakeip_usable(&zone->fip.conf, host[i].addr,
                                  host[i].addr_len, &index)
            != NGX_OK
            || index != fh->index)
        {
            continue;
        }

        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "the address %V of \"%V\" belongs to a device, or to a "
                      "server that listens there, in %s:%ui", &fh->address,
                      &fh->name, fh->conf_file, fh->line);
        return NGX_ERROR;
    }

    return NGX_OK;
}
