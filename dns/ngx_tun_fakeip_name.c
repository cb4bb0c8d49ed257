
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_fakeip_pool.h>


#define ngx_tun_fakeip_rotl(x, n)  (((x) << (n)) | ((x) >> (64 - (n))))


static void ngx_tun_fakeip_round(uint64_t *v);


/* the reflected polynomial 0x82f63b78, by four bits */

static const uint32_t  ngx_tun_fakeip_crc32c_table[] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
    0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
    0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75
};


u_char *
ngx_tun_fakeip_text(u_char *text, u_char *name, size_t len)
{
    u_char  *p, *last, *end;

    last = name + len;

    for (p = name; p < last && *p != 0; /* void */) {

        if (p != name) {
            *text++ = '.';
        }

        end = p + 1 + *p;

        for (p++; p < end && p < last; p++) {

            if ((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9')
                || *p == '-' || *p == '_')
            {
                *text++ = *p;

            } else if (*p == '.' || *p == '\\') {
                *text++ = '\\';
                *text++ = *p;

            } else {
                *text++ = '\\';
                *text++ = '0' + *p / 100;
                *text++ = '0' + *p / 10 % 10;
                *text++ = '0' + *p % 10;
            }
        }
    }

    return text;
}


/* no escapes: the operator has no name that needs them */

ngx_int_t
ngx_tun_fakeip_wire(ngx_str_t *text, u_char *name, size_t *len)
{
    u_char  *p, *last, *label, *out;

    p = text->data;
    last = p + text->len;

    if (text->len > 1 && last[-1] == '.') {
        last--;
    }

    if (p == last || last - p > NGX_TUN_FAKEIP_NAME_MAX - 2) {
        return NGX_ERROR;
    }

    label = name;
    out = name + 1;

    for ( ;; ) {

        if (p == last || *p == '.') {

            if (out - label < 2 || out - label > 64) {
                return NGX_ERROR;
            }

            *label = (u_char) (out - label - 1);
            label = out++;

            if (p == last) {
                break;
            }

            p++;
            continue;
        }

        *out = ngx_tolower(*p);

        if ((*out < 'a' || *out > 'z') && (*out < '0' || *out > '9')
            && *out != '-' && *out != '_')
        {
            return NGX_ERROR;
        }

        out++;
        p++;
    }

    *label = 0;
    *len = out - name;

    return NGX_OK;
}


uint64_t
ngx_tun_fakeip_hash(u_char *key, u_char *data, size_t len)
{
    u_char      last[8];
    uint64_t    m, k[2], v[4];
    ngx_uint_t  i;

    ngx_memcpy(k, key, sizeof(k));

    v[0] = k[0] ^ 0x736f6d6570736575;
    v[1] = k[1] ^ 0x646f72616e646f6d;
    v[2] = k[0] ^ 0x6c7967656e657261;
    v[3] = k[1] ^ 0x7465646279746573;

    ngx_memzero(last, sizeof(last));
    ngx_memcpy(last, data + len - len % 8, len % 8);
    last[7] = (u_char) len;

    for (i = 0; i <= len / 8; i++) {
        ngx_memcpy(&m, (i < len / 8) ? data + i * 8 : last, sizeof(m));

        v[3] ^= m;
        ngx_tun_fakeip_round(v);
        ngx_tun_fakeip_round(v);
        v[0] ^= m;
    }

    v[2] ^= 0xff;

    for (i = 0; i < 4; i++) {
        ngx_tun_fakeip_round(v);
    }

    return v[0] ^ v[1] ^ v[2] ^ v[3];
}


static void
ngx_tun_fakeip_round(uint64_t *v)
{
    v[0] += v[1];
    v[1] = ngx_tun_fakeip_rotl(v[1], 13) ^ v[0];
    v[0] = ngx_tun_fakeip_rotl(v[0], 32);
    v[2] += v[3];
    v[3] = ngx_tun_fakeip_rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = ngx_tun_fakeip_rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = ngx_tun_fakeip_rotl(v[1], 17) ^ v[2];
    v[2] = ngx_tun_fakeip_rotl(v[2], 32);
}


uint32_t
ngx_tun_fakeip_crc32c(uint32_t crc, u_char *p, size_t len)
{
    for ( /* void */ ; len != 0; p++, len--) {
        crc ^= *p;
        crc = ngx_tun_fakeip_crc32c_table[crc & 15] ^ (crc >> 4);
        crc = ngx_tun_fakeip_crc32c_table[crc & 15] ^ (crc >> 4);
    }

    return crc;
}
