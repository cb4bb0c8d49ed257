
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_TUN_DNS_WIRE_H_INCLUDED_
#define _NGX_TUN_DNS_WIRE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * DNS messages (RFC 1035, RFC 6891): a query in, an answer out.  Bytes only:
 * nothing here allocates, logs or knows a connection.  Names are in wire
 * format with the root's zero byte, at most 255 bytes.
 */


#define NGX_TUN_DNS_HEADER        12
#define NGX_TUN_DNS_NAME_MAX      255
#define NGX_TUN_DNS_LABEL_MAX     63

/* "\255" for each byte, and a dot for each label */
#define NGX_TUN_DNS_TEXT_MAX      1020

/* any answer that is made here, its question and OPT included */
#define NGX_TUN_DNS_ANSWER_MAX    640

#define NGX_TUN_DNS_UDP_MIN       512
#define NGX_TUN_DNS_UDP_MAX       1232

/* of messages that are read: queries, answers of other servers */
#define NGX_TUN_DNS_QUERY_MAX     4096
#define NGX_TUN_DNS_MESSAGE_MAX   65535


#define NGX_TUN_DNS_TYPE_A        1
#define NGX_TUN_DNS_TYPE_NS       2
#define NGX_TUN_DNS_TYPE_CNAME    5
#define NGX_TUN_DNS_TYPE_SOA      6
#define NGX_TUN_DNS_TYPE_PTR      12
#define NGX_TUN_DNS_TYPE_HINFO    13
#define NGX_TUN_DNS_TYPE_MX       15
#define NGX_TUN_DNS_TYPE_TXT      16
#define NGX_TUN_DNS_TYPE_SIG      24
#define NGX_TUN_DNS_TYPE_AAAA     28
#define NGX_TUN_DNS_TYPE_SRV      33
#define NGX_TUN_DNS_TYPE_DNAME    39
#define NGX_TUN_DNS_TYPE_OPT      41
#define NGX_TUN_DNS_TYPE_DS       43
#define NGX_TUN_DNS_TYPE_RRSIG    46
#define NGX_TUN_DNS_TYPE_NSEC     47
#define NGX_TUN_DNS_TYPE_DNSKEY   48
#define NGX_TUN_DNS_TYPE_NSEC3    50
#define NGX_TUN_DNS_TYPE_NSEC3PARAM  51
#define NGX_TUN_DNS_TYPE_CDS      59
#define NGX_TUN_DNS_TYPE_CDNSKEY  60
#define NGX_TUN_DNS_TYPE_SVCB     64
#define NGX_TUN_DNS_TYPE_HTTPS    65
#define NGX_TUN_DNS_TYPE_TSIG     250
#define NGX_TUN_DNS_TYPE_ANY      255

#define NGX_TUN_DNS_CLASS_IN      1
#define NGX_TUN_DNS_CLASS_CH      3

#define NGX_TUN_DNS_NOERROR       0
#define NGX_TUN_DNS_FORMERR       1
#define NGX_TUN_DNS_SERVFAIL      2
#define NGX_TUN_DNS_NXDOMAIN      3
#define NGX_TUN_DNS_NOTIMP        4
#define NGX_TUN_DNS_REFUSED       5
#define NGX_TUN_DNS_BADVERS       16

#define NGX_TUN_DNS_QR            0x8000
#define NGX_TUN_DNS_OPCODE        0x7800
#define NGX_TUN_DNS_AA            0x0400
#define NGX_TUN_DNS_TC            0x0200
#define NGX_TUN_DNS_RD            0x0100
#define NGX_TUN_DNS_RA            0x0080
#define NGX_TUN_DNS_AD            0x0020
#define NGX_TUN_DNS_CD            0x0010

#define NGX_TUN_DNS_OPT_DO        0x8000

/* an option for private use: tells a server its own queries */
#define NGX_TUN_DNS_OPTION_TAG    65001
#define NGX_TUN_DNS_TAG_LEN       8


/* numbers in network order, wherever they are */

#define ngx_tun_dns_get16(p)                                                  \
    ((ngx_uint_t) ((p)[0] << 8 | (p)[1]))
#define ngx_tun_dns_get32(p)                                                  \
    ((uint32_t) (p)[0] << 24 | (p)[1] << 16 | (p)[2] << 8 | (p)[3])

#define ngx_tun_dns_put16(p, v)                                               \
    ((p)[0] = (u_char) ((v) >> 8), (p)[1] = (u_char) (v), (p) + 2)
#define ngx_tun_dns_put32(p, v)                                               \
    ((p)[0] = (u_char) ((v) >> 24), (p)[1] = (u_char) ((v) >> 16),            \
     (p)[2] = (u_char) ((v) >> 8), (p)[3] = (u_char) (v), (p) + 4)


typedef struct {
    uint16_t                  id;
    uint16_t                  flags;
    uint16_t                  type;
    uint16_t                  class;

    u_char                   *question;     /* in the message, as it came */
    size_t                    question_len; /* 0: it could not be read */

    size_t                    len;          /* of the name */
    u_char                    name[NGX_TUN_DNS_NAME_MAX];  /* in lower case */

    uint16_t                  udp_size;     /* what the client takes */
    u_char                    tag[NGX_TUN_DNS_TAG_LEN];

    unsigned                  edns:1;
    unsigned                  dnssec_ok:1;
    unsigned                  tagged:1;
    unsigned                  odd:1;        /* not only letters, digits, -, _ */
    unsigned                  labels:8;
} ngx_tun_dns_query_t;


/* an answer in the making */

typedef struct {
    u_char                   *start;
    u_char                   *pos;
    u_char                   *end;
    ngx_tun_dns_query_t      *query;
    ngx_uint_t                rcode;
    ngx_uint_t                counts[3];    /* answer, authority, additional */
} ngx_tun_dns_answer_t;


/*
 * Reads a query.  NGX_OK; NGX_DECLINED: it must not be answered at all;
 * NGX_ERROR: it is to be answered by *rcode, with as much of a question as
 * could be read.  The query points into the message.
 */
ngx_int_t ngx_tun_dns_parse_query(ngx_tun_dns_query_t *query, u_char *p,
    u_char *end, ngx_uint_t *rcode);

/*
 * An answer: the header and the question come first, then records in their
 * order, then ngx_tun_dns_finish(), which returns its length.  The room that
 * it takes is within NGX_TUN_DNS_ANSWER_MAX for one record of each section.
 * All return NGX_ERROR, or 0, where the room does not suffice.
 */
ngx_int_t ngx_tun_dns_begin(ngx_tun_dns_answer_t *answer,
    ngx_tun_dns_query_t *query, u_char *buf, size_t size, ngx_uint_t rcode);
ngx_int_t ngx_tun_dns_add_address(ngx_tun_dns_answer_t *answer, u_char *addr,
    size_t addr_len, time_t ttl);
ngx_int_t ngx_tun_dns_add_name(ngx_tun_dns_answer_t *answer, ngx_uint_t type,
    u_char *name, size_t len, time_t ttl);

/* RFC 8482: what ANY gets */
ngx_int_t ngx_tun_dns_add_hinfo(ngx_tun_dns_answer_t *answer);

/* RFC 2308: how long there is no such data */
ngx_int_t ngx_tun_dns_add_soa(ngx_tun_dns_answer_t *answer, time_t ttl);

size_t ngx_tun_dns_finish(ngx_tun_dns_answer_t *answer);

/* A whole answer without data. */
size_t ngx_tun_dns_build_error(ngx_tun_dns_query_t *query, u_char *buf,
    size_t size, ngx_uint_t rcode);
size_t ngx_tun_dns_build_nodata(ngx_tun_dns_query_t *query, u_char *buf,
    size_t size, ngx_uint_t rcode, time_t ttl);

/* The longest answer over UDP that the client takes. */
size_t ngx_tun_dns_udp_limit(ngx_tun_dns_query_t *query);


/* ngx_tun_dns_name.c */

/*
 * Reads a name without compression into lower case.  Returns what is after
 * it, or NULL.
 */
u_char *ngx_tun_dns_read_name(u_char *p, u_char *end, u_char *name,
    size_t *len);

/* What is after a name that may end with a pointer, or NULL. */
u_char *ngx_tun_dns_skip_name(u_char *p, u_char *end);

/*
 * Expands a name of a message as it is written there.  Pointers go strictly
 * backwards.  Returns what is after it, or NULL.
 */
u_char *ngx_tun_dns_expand_name(u_char *start, u_char *p, u_char *end,
    u_char *name, size_t *len);

/* Turns letters into lower case. */
void ngx_tun_dns_lower_name(u_char *name, size_t len);

/*
 * "www.example.com" of a name in lower case, "." for the root.  Bytes other
 * than letters, digits, '-' and '_' are escaped as RFC 1035, 5.1 says.
 * Returns the end.
 */
u_char *ngx_tun_dns_name_text(u_char *text, u_char *name, size_t len);

/*
 * The address that a name of in-addr.arpa or ip6.arpa stands for, in *bits
 * of it.  NGX_DECLINED: none.
 */
ngx_int_t ngx_tun_dns_reverse(u_char *name, size_t len, u_char *addr,
    size_t *addr_len, ngx_uint_t *bits);

/* Is the name, in lower case, that one, or below it? */
ngx_uint_t ngx_tun_dns_below(u_char *name, size_t len, const u_char *suffix,
    size_t suffix_len);

/* "A", "HTTPS", or "TYPE4711"; returns the end, at most 9 bytes further. */
u_char *ngx_tun_dns_type_text(u_char *text, ngx_uint_t type);

/* "NOERROR", "NXDOMAIN", or "RCODE11"; at most 10 bytes. */
u_char *ngx_tun_dns_rcode_text(u_char *text, ngx_uint_t rcode);


/* ngx_tun_dns_special.c */

typedef enum {
    NGX_TUN_DNS_ORDINARY = 0,
    NGX_TUN_DNS_FORWARD,              /* is never faked */
    NGX_TUN_DNS_ADDRESS,              /* of this machine, and the like */
    NGX_TUN_DNS_NODATA,
    NGX_TUN_DNS_NOT_FOUND,
    NGX_TUN_DNS_REVERSE,              /* of a private address */
} ngx_tun_dns_special_e;


/* of which names it is to be told */

#define NGX_TUN_DNS_SPECIAL_LOCALHOST  0x0001
#define NGX_TUN_DNS_SPECIAL_RESERVED   0x0002
#define NGX_TUN_DNS_SPECIAL_LOCAL      0x0004
#define NGX_TUN_DNS_SPECIAL_HOME       0x0008
#define NGX_TUN_DNS_SPECIAL_NAT64      0x0010
#define NGX_TUN_DNS_SPECIAL_DOH        0x0020
#define NGX_TUN_DNS_SPECIAL_ALL        0x003f


typedef struct {
    ngx_tun_dns_special_e     kind;
    ngx_uint_t                naddrs;     /* of the type that is asked for */
    size_t                    addr_len;
    u_char                    addrs[2][16];
} ngx_tun_dns_special_t;


/* Is it a type by which others prove that a zone is signed? */
ngx_uint_t ngx_tun_dns_signing(ngx_uint_t type);

/* What a name of the query means by itself (RFC 6761 and others). */
void ngx_tun_dns_special(ngx_tun_dns_special_t *special,
    ngx_tun_dns_query_t *query, ngx_uint_t groups);


/* ngx_tun_dns_answer.c */

/* what an answer of another server is worth */

typedef struct {
    ngx_uint_t                rcode;
    uint32_t                  ttl;        /* seconds to keep it; 0: none */
    unsigned                  truncated:1;
    unsigned                  fake:1;     /* an address of ours is in it */
} ngx_tun_dns_reply_t;


/* Is it one of ours? */
typedef ngx_uint_t (*ngx_tun_dns_fake_pt)(void *data, u_char *addr,
    size_t addr_len);


/* how an answer of another server becomes one to a client */

typedef struct {
    ngx_tun_dns_query_t      *query;      /* the client's */
    uint32_t                  age;        /* seconds since it came */
    size_t                    limit;      /* of its length */
    time_t                    ttl;        /* where nothing is left of it */
    ngx_uint_t                faked;      /* the name is */
    ngx_uint_t                strip;      /* addresses of HTTPS and SVCB */
} ngx_tun_dns_rewrite_t;


/* records that are read of one message, and bytes of their names */

#define NGX_TUN_DNS_RECORDS_MAX   256
#define NGX_TUN_DNS_EXPANDED_MAX  65536

#define NGX_TUN_DNS_TTL_MAX       86400
#define NGX_TUN_DNS_NEGATIVE_MAX  3600
#define NGX_TUN_DNS_SERVFAIL_TTL  5

/* of a question to another server */

#define NGX_TUN_DNS_UPSTREAM_MAX                                              \
    (NGX_TUN_DNS_HEADER + NGX_TUN_DNS_NAME_MAX + 4 + 11                       \
     + 4 + NGX_TUN_DNS_TAG_LEN)


/*
 * A question to another server, with a tag to know it again.  buf has room
 * for NGX_TUN_DNS_UPSTREAM_MAX; returns the length.
 */
size_t ngx_tun_dns_build_query(ngx_tun_dns_query_t *query, u_char *buf,
    ngx_uint_t id, u_char *tag);

/*
 * Reads an answer to it.  NGX_OK; NGX_DECLINED: it answers something else;
 * NGX_ERROR: it is malformed.  A truncated one is not looked into.
 */
ngx_int_t ngx_tun_dns_check_reply(ngx_tun_dns_reply_t *reply,
    ngx_tun_dns_query_t *query, ngx_uint_t id, u_char *p, u_char *end,
    ngx_tun_dns_fake_pt fake, void *data);

/*
 * What the client gets of it, where check_reply() said NGX_OK: the question
 * as it was asked, TTLs that are left, no addresses that were not asked for.
 * Where it is longer than the limit only TC is told.  Returns the length, or
 * 0: no room.
 */
size_t ngx_tun_dns_rewrite(ngx_tun_dns_rewrite_t *rw, u_char *p, u_char *end,
    u_char *buf, size_t size);


/* ngx_tun_dns_svcb.c */

/*
 * Copies the data of an HTTPS or SVCB record without addresses.  dst has room
 * for size; returns its end, or NULL: it leads elsewhere, or is malformed.
 */
u_char *ngx_tun_dns_strip_svcb(u_char *dst, u_char *p, size_t size);


#endif /* _NGX_TUN_DNS_WIRE_H_INCLUDED_ */
