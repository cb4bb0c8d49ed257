
/*
 * Copyright (C) the nginx-tun authors
 */


#ifndef _NGX_STREAM_TUN_WIRE_H_INCLUDED_
#define _NGX_STREAM_TUN_WIRE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * What is said to a proxy and what it answers, as bytes.  Nothing here holds
 * a connection, allocates or logs.
 *
 * A builder writes to p, where there must be as much room as its macro says,
 * and returns the end of what it has written.
 *
 * A parser looks at the bytes from *pos to last.  It returns NGX_AGAIN when
 * there must be more of them, NGX_ERROR when no proxy says so, and otherwise
 * moves *pos behind the answer and puts its number into *code: NGX_OK for a
 * proxy that agrees, NGX_DECLINED for one that does not.
 */


#define NGX_STREAM_TUN_VALUE_MAX    255


typedef struct {
    ngx_str_t                host;         /* without brackets */
    in_port_t                port;
    ngx_uint_t               family;       /* AF_INET, AF_INET6, 0: a name */
    u_char                   addr[16];
} ngx_stream_tun_destination_t;


typedef ngx_int_t (*ngx_stream_tun_parse_pt)(u_char **pos, u_char *last,
    ngx_uint_t *code);


/*
 * ngx_stream_tun_handshake_destination.c
 */

/*
 * "host:port", an IPv6 address in brackets; host points into the text.
 * NGX_ERROR when it is none, or when ngx_stream_tun_check_value() refuses the
 * host.
 */
ngx_int_t ngx_stream_tun_parse_destination(ngx_str_t *text,
    ngx_stream_tun_destination_t *dst);

/* NGX_ERROR for more than 255 bytes, for control bytes, and for spaces. */
ngx_int_t ngx_stream_tun_check_value(ngx_str_t *value, ngx_uint_t spaces);


/*
 * ngx_stream_tun_handshake_socks5.c, RFC 1928 and RFC 1929
 */

#define NGX_STREAM_TUN_SOCKS5_NONE      0
#define NGX_STREAM_TUN_SOCKS5_PASSWORD  2

#define NGX_STREAM_TUN_SOCKS5_CONNECT   1
#define NGX_STREAM_TUN_SOCKS5_ASSOCIATE 3

/* of all three messages */
#define NGX_STREAM_TUN_SOCKS5_SIZE      (3 + (3 + 255 + 255) + (4 + 256 + 2))

/* in front of each datagram */
#define NGX_STREAM_TUN_SOCKS5_HEADER    (3 + 1 + 256 + 2)

u_char *ngx_stream_tun_socks5_methods(u_char *p, ngx_uint_t method);
u_char *ngx_stream_tun_socks5_password(u_char *p, ngx_str_t *user,
    ngx_str_t *password);
u_char *ngx_stream_tun_socks5_request(u_char *p, ngx_uint_t command,
    ngx_stream_tun_destination_t *dst);

/* The header of a datagram, RFC 1928, 7. */
u_char *ngx_stream_tun_socks5_datagram(u_char *p,
    ngx_stream_tun_destination_t *dst);

/* the one method that was offered */
ngx_int_t ngx_stream_tun_socks5_parse_none(u_char **pos, u_char *last,
    ngx_uint_t *code);
ngx_int_t ngx_stream_tun_socks5_parse_method(u_char **pos, u_char *last,
    ngx_uint_t *code);

ngx_int_t ngx_stream_tun_socks5_parse_password(u_char **pos, u_char *last,
    ngx_uint_t *code);
ngx_int_t ngx_stream_tun_socks5_parse_reply(u_char **pos, u_char *last,
    ngx_uint_t *code);

/*
 * An address of a reply or a datagram, which begins at its type: NGX_OK,
 * NGX_AGAIN or NGX_ERROR.  A name's host points into the bytes.
 */
ngx_int_t ngx_stream_tun_socks5_parse_address(u_char **pos, u_char *last,
    ngx_stream_tun_destination_t *dst);

/*
 * Moves *pos behind the header of a datagram.  NGX_ERROR when it is none, or a
 * fragment.
 */
ngx_int_t ngx_stream_tun_socks5_parse_datagram(u_char **pos, u_char *last,
    ngx_stream_tun_destination_t *dst);

#define NGX_STREAM_TUN_SOCKS5_UNSUPPORTED  7      /* command */

/* what a reply's number says */
const char *ngx_stream_tun_socks5_text(ngx_uint_t code);


/*
 * ngx_stream_tun_handshake_http.c, RFC 9110, 9.3.6.  CONNECT
 */

#define ngx_stream_tun_http_size(dst, headers)                                \
    (sizeof("CONNECT []:65535 HTTP/1.1" CRLF "Host: []:65535" CRLF CRLF)      \
     + 2 * (dst)->host.len + (headers)->len)

/* headers: complete lines, or nothing */
u_char *ngx_stream_tun_http_connect(u_char *p,
    ngx_stream_tun_destination_t *dst, ngx_str_t *headers);

ngx_int_t ngx_stream_tun_http_parse(u_char **pos, u_char *last,
    ngx_uint_t *code);


/*
 * ngx_stream_tun_handshake_proxy_v2.c, the PROXY protocol, version 2
 */

#define NGX_STREAM_TUN_PROXY_V2_AUTHORITY   0x02

/* without its TLVs */
#define NGX_STREAM_TUN_PROXY_V2_SIZE    (16 + 36)

#define ngx_stream_tun_proxy_v2_tlv_size(value)  (3 + (value)->len)

/*
 * Addresses of two families, or of none that it knows, are left out: the
 * proxy takes those of the connection then.
 */
u_char *ngx_stream_tun_proxy_v2_header(u_char *p, ngx_uint_t type,
    struct sockaddr *src, struct sockaddr *dst);

/* Appends to the header that begins at start and ends at p. */
u_char *ngx_stream_tun_proxy_v2_tlv(u_char *start, u_char *p, ngx_uint_t type,
    ngx_str_t *value);


#endif /* _NGX_STREAM_TUN_WIRE_H_INCLUDED_ */
