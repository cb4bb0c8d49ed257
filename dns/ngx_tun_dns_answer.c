
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_dns_wire.h>


#define NGX_TUN_DNS_RR  10

#define NGX_TUN_DNS_ANSWER      0
#define NGX_TUN_DNS_AUTHORITY   1
#define NGX_TUN_DNS_ADDITIONAL  2


/* a message from another server, read record by record */

typedef struct {
    u_char                   *start;
    u_char                   *pos;
    u_char                   *end;
    ngx_uint_t                left[3];
    ngx_uint_t                section;
    ngx_uint_t                records;
    size_t                    expanded;

    /* of the record */
    ngx_uint_t                type;
    ngx_uint_t                class;
    uint32_t                  ttl;
    size_t                    owner_len;
    u_char                   *data;
    size_t                    len;
    u_char                    owner[NGX_TUN_DNS_NAME_MAX];
} ngx_tun_dns_reader_t;


/* names that another one may end with */

#define NGX_TUN_DNS_OFFSETS  32


typedef struct {
    ngx_tun_dns_answer_t      answer;
    ngx_uint_t                n;
    uint16_t                  offsets[NGX_TUN_DNS_OFFSETS];
} ngx_tun_dns_writer_t;


/* where names are in data; of other types there are none (RFC 3597, 4) */

typedef struct {
    u_char                    type;
    u_char                    skip;       /* bytes before them */
    u_char                    strings;    /* and character strings */
    u_char                    names;
    u_char                    compress;   /* by RFC 1035 */
} ngx_tun_dns_format_t;


static ngx_int_t ngx_tun_dns_read_header(ngx_tun_dns_reader_t *reader,
    u_char *p, u_char *end);
static ngx_int_t ngx_tun_dns_read_record(ngx_tun_dns_reader_t *reader);
static const ngx_tun_dns_format_t *ngx_tun_dns_format(ngx_uint_t type);
static u_char *ngx_tun_dns_skip_data(const ngx_tun_dns_format_t *format,
    u_char *p, u_char *end);
static ngx_int_t ngx_tun_dns_check_data(ngx_tun_dns_reader_t *reader);
static void ngx_tun_dns_reply_ttl(ngx_tun_dns_reply_t *reply,
    uint32_t answers, uint32_t negative, ngx_uint_t found);
static ngx_uint_t ngx_tun_dns_copied(ngx_tun_dns_rewrite_t *rw,
    ngx_tun_dns_reader_t *reader);
static ngx_int_t ngx_tun_dns_copy(ngx_tun_dns_writer_t *writer,
    ngx_tun_dns_reader_t *reader, ngx_tun_dns_rewrite_t *rw);
static u_char *ngx_tun_dns_copy_data(ngx_tun_dns_writer_t *writer,
    ngx_tun_dns_reader_t *reader, u_char *p);
static u_char *ngx_tun_dns_write_name(ngx_tun_dns_writer_t *writer, u_char *p,
    u_char *name, size_t len, ngx_uint_t compress);
static ngx_uint_t ngx_tun_dns_same_name(u_char *start, u_char *p,
    u_char *name);


static const ngx_tun_dns_format_t  ngx_tun_dns_formats[] = {
    { NGX_TUN_DNS_TYPE_NS, 0, 0, 1, 1 },
    { 3, 0, 0, 1, 1 },                              /* MD */
    { 4, 0, 0, 1, 1 },                              /* MF */
    { NGX_TUN_DNS_TYPE_CNAME, 0, 0, 1, 1 },
    { NGX_TUN_DNS_TYPE_SOA, 0, 0, 2, 1 },
    { 7, 0, 0, 1, 1 },                              /* MB */
    { 8, 0, 0, 1, 1 },                              /* MG */
    { 9, 0, 0, 1, 1 },                              /* MR */
    { NGX_TUN_DNS_TYPE_PTR, 0, 0, 1, 1 },
    { 14, 0, 0, 2, 1 },                             /* MINFO */
    { NGX_TUN_DNS_TYPE_MX, 2, 0, 1, 1 },
    { 17, 0, 0, 2, 0 },                             /* RP */
    { 18, 2, 0, 1, 0 },                             /* AFSDB */
    { 21, 2, 0, 1, 0 },                             /* RT */
    { NGX_TUN_DNS_TYPE_SIG, 18, 0, 1, 0 },
    { 26, 2, 0, 2, 0 },                             /* PX */
    { 30, 0, 0, 1, 0 },                             /* NXT */
    { NGX_TUN_DNS_TYPE_SRV, 6, 0, 1, 0 },
    { 35, 4, 3, 1, 0 },                             /* NAPTR */
    { 36, 2, 0, 1, 0 },                             /* KX */
    { NGX_TUN_DNS_TYPE_DNAME, 0, 0, 1, 0 },
    { NGX_TUN_DNS_TYPE_RRSIG, 18, 0, 1, 0 },
    { NGX_TUN_DNS_TYPE_NSEC, 0, 0, 1, 0 },
    { 0, 0, 0, 0, 0 }
};


size_t
ngx_tun_dns_build_query(ngx_tun_dns_query_t *query, u_char *buf,
    ngx_uint_t id, u_char *tag)
{
    u_char  *p;

    p = ngx_tun_dns_put16(buf, id);
    p = ngx_tun_dns_put16(p, NGX_TUN_DNS_RD
                             | (query->flags & NGX_TUN_DNS_CD));
    p = ngx_tun_dns_put16(p, 1);
    p = ngx_tun_dns_put32(p, 0);
    p = ngx_tun_dns_put16(p, 1);

    p = ngx_cpymem(p, query->name, query->len);
    p = ngx_tun_dns_put16(p, query->type);
    p = ngx_tun_dns_put16(p, NGX_TUN_DNS_CLASS_IN);

    *p++ = 0;
    p = ngx_tun_dns_put16(p, NGX_TUN_DNS_TYPE_OPT);
    p = ngx_tun_dns_put16(p, NGX_TUN_DNS_UDP_MAX);
    p = ngx_tun_dns_put16(p, 0);
    p = ngx_tun_dns_put16(p, query->dnssec_ok ? NGX_TUN_DNS_OPT_DO : 0);
    p = ngx_tun_dns_put16(p, 4 + NGX_TUN_DNS_TAG_LEN);

    p = ngx_tun_dns_put16(p, NGX_TUN_DNS_OPTION_TAG);
    p = ngx_tun_dns_put16(p, NGX_TUN_DNS_TAG_LEN);
    p = ngx_cpymem(p, tag, NGX_TUN_DNS_TAG_LEN);

    return p - buf;
}


ngx_int_t
ngx_tun_dns_check_reply(ngx_tun_dns_reply_t *reply,
    ngx_tun_dns_query_t *query, ngx_uint_t id, u_char *p, u_char *end,
    ngx_tun_dns_fake_pt fake, void *data)
{
    uint32_t              answers, negative, minimum;
    ngx_int_t             rc;
    ngx_uint_t            flags, found;
    ngx_tun_dns_reader_t  reader;

    ngx_memzero(reply, sizeof(ngx_tun_dns_reply_t));

    if (end - p < NGX_TUN_DNS_HEADER || ngx_tun_dns_get16(p) != id) {
        return NGX_DECLINED;
    }

    flags = ngx_tun_dns_get16(p + 2);

    if (!(flags & NGX_TUN_DNS_QR) || (flags & NGX_TUN_DNS_OPCODE)
        || ngx_tun_dns_read_header(&reader, p, end) != NGX_OK
        || reader.owner_len != query->len
        || ngx_memcmp(reader.owner, query->name, query->len) != 0
        || reader.type != query->type
        || reader.class != NGX_TUN_DNS_CLASS_IN)
    {
        return NGX_DECLINED;
    }

    reply->rcode = flags & 0x0f;

    if (flags & NGX_TUN_DNS_TC) {
        reply->truncated = 1;
        return NGX_OK;
    }

    answers = (uint32_t) -1;
    negative = (uint32_t) -1;
    found = 0;

    while ((rc = ngx_tun_dns_read_record(&reader)) == NGX_OK) {

        if (reader.type == NGX_TUN_DNS_TYPE_OPT) {
            reply->rcode |= (reader.ttl >> 24) << 4;
            continue;
        }

        if (ngx_tun_dns_check_data(&reader) != NGX_OK) {
            return NGX_ERROR;
        }

        if ((reader.type == NGX_TUN_DNS_TYPE_A
             || reader.type == NGX_TUN_DNS_TYPE_AAAA)
            && fake(data, reader.data, reader.len))
        {
            reply->fake = 1;
        }

        if (reader.section == NGX_TUN_DNS_ANSWER) {
            answers = ngx_min(answers, reader.ttl);

            if (reader.type == query->type
                || query->type == NGX_TUN_DNS_TYPE_ANY)
            {
                found = 1;
            }

        } else if (reader.section == NGX_TUN_DNS_AUTHORITY
                   && reader.type == NGX_TUN_DNS_TYPE_SOA)
        {
            minimum = ngx_tun_dns_get32(reader.data + reader.len - 4);
            negative = ngx_min(reader.ttl, minimum);
        }
    }

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    ngx_tun_dns_reply_ttl(reply, answers, negative, found);

    return NGX_OK;
}


/*
 * RFC 2308, 5: without records of the type, for as long as the SOA says, and
 * for no longer than the aliases that lead there.
 */

static void
ngx_tun_dns_reply_ttl(ngx_tun_dns_reply_t *reply, uint32_t answers,
    uint32_t negative, ngx_uint_t found)
{
    if (reply->rcode > 15) {
        reply->rcode = NGX_TUN_DNS_SERVFAIL;
    }

    if (reply->fake) {
        return;
    }

    switch (reply->rcode) {

    case NGX_TUN_DNS_SERVFAIL:
        reply->ttl = NGX_TUN_DNS_SERVFAIL_TTL;
        return;

    case NGX_TUN_DNS_NOERROR:
    case NGX_TUN_DNS_NXDOMAIN:
        break;

    default:
        return;
    }

    if (found) {
        reply->ttl = ngx_max(ngx_min(answers, NGX_TUN_DNS_TTL_MAX), 1);
        return;
    }

    if (negative != (uint32_t) -1) {
        reply->ttl = ngx_min(ngx_min(negative, answers),
                             NGX_TUN_DNS_NEGATIVE_MAX);
    }
}


/* the question goes into the place of a record */

static ngx_int_t
ngx_tun_dns_read_header(ngx_tun_dns_reader_t *reader, u_char *p, u_char *end)
{
    reader->start = p;
    reader->end = end;
    reader->left[0] = ngx_tun_dns_get16(p + 6);
    reader->left[1] = ngx_tun_dns_get16(p + 8);
    reader->left[2] = ngx_tun_dns_get16(p + 10);
    reader->section = NGX_TUN_DNS_ANSWER;
    reader->records = 0;
    reader->expanded = 0;

    if (ngx_tun_dns_get16(p + 4) != 1) {
        return NGX_ERROR;
    }

    p = ngx_tun_dns_read_name(p + NGX_TUN_DNS_HEADER, end, reader->owner,
                              &reader->owner_len);

    if (p == NULL || end - p < 4) {
        return NGX_ERROR;
    }

    reader->type = ngx_tun_dns_get16(p);
    reader->class = ngx_tun_dns_get16(p + 2);
    reader->pos = p + 4;

    return NGX_OK;
}


/* NGX_OK, NGX_DONE, NGX_ERROR */

static ngx_int_t
ngx_tun_dns_read_record(ngx_tun_dns_reader_t *reader)
{
    u_char  *p;

    while (reader->section <= NGX_TUN_DNS_ADDITIONAL
           && reader->left[reader->section] == 0)
    {
        reader->section++;
    }

    if (reader->section > NGX_TUN_DNS_ADDITIONAL) {
        return NGX_DONE;
    }

    reader->left[reader->section]--;

    p = ngx_tun_dns_expand_name(reader->start, reader->pos, reader->end,
                                reader->owner, &reader->owner_len);

    if (p == NULL || reader->end - p < NGX_TUN_DNS_RR) {
        return NGX_ERROR;
    }

    reader->type = ngx_tun_dns_get16(p);
    reader->class = ngx_tun_dns_get16(p + 2);
    reader->ttl = ngx_tun_dns_get32(p + 4);
    reader->len = ngx_tun_dns_get16(p + 8);

    p += NGX_TUN_DNS_RR;

    if ((size_t) (reader->end - p) < reader->len) {
        return NGX_ERROR;
    }

    reader->data = p;
    reader->pos = p + reader->len;

    reader->expanded += reader->owner_len + reader->len;

    if (++reader->records > NGX_TUN_DNS_RECORDS_MAX
        || reader->expanded > NGX_TUN_DNS_EXPANDED_MAX)
    {
        return NGX_ERROR;
    }

    /* RFC 2181, 8: a TTL has 31 bits */

    if ((reader->ttl & 0x80000000) && reader->type != NGX_TUN_DNS_TYPE_OPT) {
        reader->ttl = 0;
    }

    return NGX_OK;
}


static const ngx_tun_dns_format_t *
ngx_tun_dns_format(ngx_uint_t type)
{
    const ngx_tun_dns_format_t  *format;

    for (format = ngx_tun_dns_formats; format->type; format++) {

        if (format->type == type) {
            return format;
        }
    }

    return NULL;
}


static u_char *
ngx_tun_dns_skip_data(const ngx_tun_dns_format_t *format, u_char *p,
    u_char *end)
{
    ngx_uint_t  n;

    if (end - p < format->skip) {
        return NULL;
    }

    p += format->skip;

    for (n = format->strings; n; n--) {

        if (p == end || end - p < 1 + *p) {
            return NULL;
        }

        p += 1 + *p;
    }

    return p;
}


static ngx_int_t
ngx_tun_dns_check_data(ngx_tun_dns_reader_t *reader)
{
    u_char                      *p, *end, name[NGX_TUN_DNS_NAME_MAX];
    size_t                       len;
    ngx_uint_t                   n;
    const ngx_tun_dns_format_t  *format;

    if (reader->type == NGX_TUN_DNS_TYPE_A) {
        return (reader->len == 4) ? NGX_OK : NGX_ERROR;
    }

    if (reader->type == NGX_TUN_DNS_TYPE_AAAA) {
        return (reader->len == 16) ? NGX_OK : NGX_ERROR;
    }

    format = ngx_tun_dns_format(reader->type);

    if (format == NULL) {
        return NGX_OK;
    }

    end = reader->data + reader->len;
    p = ngx_tun_dns_skip_data(format, reader->data, end);

    for (n = format->names; n && p != NULL; n--) {
        p = ngx_tun_dns_expand_name(reader->start, p, end, name, &len);
        reader->expanded += len;
    }

    if (p == NULL || reader->expanded > NGX_TUN_DNS_EXPANDED_MAX) {
        return NGX_ERROR;
    }

    if (reader->type == NGX_TUN_DNS_TYPE_SOA && end - p != 20) {
        return NGX_ERROR;
    }

    return NGX_OK;
}


size_t
ngx_tun_dns_rewrite(ngx_tun_dns_rewrite_t *rw, u_char *p, u_char *end,
    u_char *buf, size_t size)
{
    size_t                len;
    ngx_int_t             rc;
    ngx_uint_t            rcode;
    ngx_tun_dns_reader_t  reader;
    ngx_tun_dns_writer_t  writer;

    rcode = p[3] & 0x0f;

    /* RFC 8020: to deny the name would deny its address, too */

    if (rw->faked && rcode == NGX_TUN_DNS_NXDOMAIN) {
        return ngx_tun_dns_build_nodata(rw->query, buf, size,
                                        NGX_TUN_DNS_NOERROR, rw->ttl);
    }

    if (ngx_tun_dns_read_header(&reader, p, end) != NGX_OK
        || ngx_tun_dns_begin(&writer.answer, rw->query, buf,
                             ngx_min(size, rw->limit), rcode)
           != NGX_OK)
    {
        return 0;
    }

    writer.n = 1;
    writer.offsets[0] = NGX_TUN_DNS_HEADER;

    while ((rc = ngx_tun_dns_read_record(&reader)) == NGX_OK) {

        if (!ngx_tun_dns_copied(rw, &reader)) {
            continue;
        }

        rc = ngx_tun_dns_copy(&writer, &reader, rw);

        if (rc == NGX_ERROR) {
            break;
        }
    }

    if (rc == NGX_DONE && rw->strip
        && writer.answer.counts[NGX_TUN_DNS_ANSWER] == 0)
    {
        return ngx_tun_dns_build_nodata(rw->query, buf, size, rcode, rw->ttl);
    }

    len = (rc == NGX_DONE) ? ngx_tun_dns_finish(&writer.answer) : 0;

    if (len != 0) {
        return len;
    }

    /* too long: to be asked for over TCP */

    len = ngx_tun_dns_build_error(rw->query, buf, size, rcode);

    if (len != 0) {
        buf[2] |= NGX_TUN_DNS_TC >> 8;
    }

    return len;
}


/* what was not asked for may be an address of a name that is faked */

static ngx_uint_t
ngx_tun_dns_copied(ngx_tun_dns_rewrite_t *rw, ngx_tun_dns_reader_t *reader)
{
    if (reader->class != NGX_TUN_DNS_CLASS_IN
        || reader->type == NGX_TUN_DNS_TYPE_OPT
        || reader->type == NGX_TUN_DNS_TYPE_TSIG)
    {
        return 0;
    }

    if (rw->strip) {
        ngx_tun_dns_lower_name(reader->owner, reader->owner_len);

        return reader->section == NGX_TUN_DNS_ANSWER
               && reader->type == rw->query->type
               && reader->owner_len == rw->query->len
               && ngx_memcmp(reader->owner, rw->query->name, rw->query->len)
                  == 0;
    }

    return reader->section == NGX_TUN_DNS_ANSWER
           || (reader->type != NGX_TUN_DNS_TYPE_A
               && reader->type != NGX_TUN_DNS_TYPE_AAAA
               && reader->type != NGX_TUN_DNS_TYPE_HTTPS
               && reader->type != NGX_TUN_DNS_TYPE_SVCB);
}


/* NGX_DECLINED: of this record nothing is left */

static ngx_int_t
ngx_tun_dns_copy(ngx_tun_dns_writer_t *writer, ngx_tun_dns_reader_t *reader,
    ngx_tun_dns_rewrite_t *rw)
{
    u_char                *p, *fixed;
    ngx_uint_t             n;
    ngx_tun_dns_answer_t  *answer;

    answer = &writer->answer;
    n = writer->n;

    p = ngx_tun_dns_write_name(writer, answer->pos, reader->owner,
                               reader->owner_len, 1);

    if (p == NULL || answer->end - p < NGX_TUN_DNS_RR) {
        return NGX_ERROR;
    }

    fixed = p;
    p += NGX_TUN_DNS_RR;

    if (rw->strip) {

        if ((size_t) (answer->end - p) < reader->len) {
            return NGX_ERROR;
        }

        p = ngx_tun_dns_strip_svcb(p, reader->data, reader->len);

        if (p == NULL) {
            writer->n = n;
            return NGX_DECLINED;
        }

    } else {
        p = ngx_tun_dns_copy_data(writer, reader, p);

        if (p == NULL) {
            return NGX_ERROR;
        }
    }

    answer->counts[reader->section]++;
    answer->pos = p;

    n = p - fixed - NGX_TUN_DNS_RR;

    fixed = ngx_tun_dns_put16(fixed, reader->type);
    fixed = ngx_tun_dns_put16(fixed, reader->class);
    fixed = ngx_tun_dns_put32(fixed, (reader->ttl > rw->age)
                                     ? reader->ttl - rw->age : 0);
    (void) ngx_tun_dns_put16(fixed, n);

    return NGX_OK;
}


static u_char *
ngx_tun_dns_copy_data(ngx_tun_dns_writer_t *writer,
    ngx_tun_dns_reader_t *reader, u_char *p)
{
    u_char                      *src, *end, *last;
    u_char                       name[NGX_TUN_DNS_NAME_MAX];
    size_t                       len;
    ngx_uint_t                   n;
    const ngx_tun_dns_format_t  *format;

    last = writer->answer.end;
    src = reader->data;
    end = src + reader->len;

    format = ngx_tun_dns_format(reader->type);

    if (format != NULL) {
        src = ngx_tun_dns_skip_data(format, src, end);

        if (src == NULL || last - p < src - reader->data) {
            return NULL;
        }

        p = ngx_cpymem(p, reader->data, src - reader->data);

        for (n = format->names; n; n--) {
            src = ngx_tun_dns_expand_name(reader->start, src, end, name, &len);

            if (src == NULL) {
                return NULL;
            }

            p = ngx_tun_dns_write_name(writer, p, name, len, format->compress);

            if (p == NULL) {
                return NULL;
            }
        }
    }

    if (last - p < end - src) {
        return NULL;
    }

    return ngx_cpymem(p, src, end - src);
}


/* the longest end of the name that is in the message already is pointed to */

static u_char *
ngx_tun_dns_write_name(ngx_tun_dns_writer_t *writer, u_char *p, u_char *name,
    size_t len, ngx_uint_t compress)
{
    size_t      offset;
    u_char     *start, *last;
    ngx_uint_t  i, n;

    start = writer->answer.start;
    last = writer->answer.end;

    /* this one is not whole yet */

    n = compress ? writer->n : 0;

    while (*name != 0) {

        for (i = 0; i < n; i++) {
            offset = writer->offsets[i];

            if (ngx_tun_dns_same_name(start, start + offset, name)) {
                return (last - p < 2) ? NULL
                                      : ngx_tun_dns_put16(p, 0xc000 | offset);
            }
        }

        if (last - p < 1 + *name) {
            return NULL;
        }

        offset = p - start;

        if (compress && writer->n < NGX_TUN_DNS_OFFSETS && offset < 0x4000) {
            writer->offsets[writer->n++] = (uint16_t) offset;
        }

        p = ngx_cpymem(p, name, 1 + *name);
        name += 1 + *name;
    }

    if (p == last) {
        return NULL;
    }

    *p++ = 0;

    return p;
}


/* of a message of ours, whose names are whole */

static ngx_uint_t
ngx_tun_dns_same_name(u_char *start, u_char *p, u_char *name)
{
    size_t  n;

    for ( ;; ) {

        while (*p >= 0xc0) {
            p = start + ((p[0] & 0x3f) << 8 | p[1]);
        }

        if (*p != *name) {
            return 0;
        }

        if (*p == 0) {
            return 1;
        }

        for (n = *p++, name++; n; n--, p++, name++) {

            if (ngx_tolower(*p) != ngx_tolower(*name)) {
                return 0;
            }
        }
    }
}
