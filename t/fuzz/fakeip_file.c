
/*
 * Copyright (C) the nginx-tun authors
 */


/*
 * libFuzzer: the file of a pool, raw or a good one with changes.  The first
 * byte says how: with sums made right, so that what is behind them is
 * reached, cut short, or for a pool with other prefixes.  Whatever is taken of
 * it has to be a pool without a contradiction, in which names come and go.
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_fakeip_pool.h>

#include <sys/mman.h>

#include "../unit/lib/core.h"


#define FUZZ_RAW         0x01
#define FUZZ_FIX_HEADER  0x02
#define FUZZ_FIX_ENTRY   0x04
#define FUZZ_CUT         0x08
#define FUZZ_OTHER       0x10
#define FUZZ_SIZE        0x20


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);


static u_char    good[65536];
static size_t    good_size;
static char      path[64];
static ngx_log_t  null_log;


static void
check(int is_good)
{
    if (!is_good) {
        abort();
    }
}


static void
conf(ngx_tun_fakeip_conf_t *c, ngx_uint_t other)
{
    memset(c, 0, sizeof(*c));

    c->prefix[0].addr_len = 4;
    c->prefix[0].prefix = other ? 29 : 28;
    memcpy(c->prefix[0].addr, "\306\22\0\20", 4);

    c->prefix[1].addr_len = 16;
    c->prefix[1].prefix = 64;
    c->prefix[1].addr[0] = 0xfd;

    c->ttl = 30;
    c->hold = 3600;
    memcpy(c->key, "0123456789abcdef", 16);
}


static void
assign(ngx_tun_fakeip_t *fip, ngx_uint_t n)
{
    u_char            name[NGX_TUN_FAKEIP_NAME_MAX], addr[16], got[255];
    size_t            len, got_len;
    uint32_t          index;
    ngx_str_t         s;
    char              text[256];

    s.data = (u_char *) text;
    s.len = sprintf(text, (n % 3) ? "n%u.example"
                    : "n%u.a-label-that-is-longer-than-an-entry-takes"
                      ".and-another-one-that-is-rather-long-too.example",
                    (unsigned) n);

    check(ngx_tun_fakeip_wire(&s, name, &len) == NGX_OK);

    if (ngx_tun_fakeip_assign(fip, name, len, 1, &index) != NGX_OK) {
        return;
    }

    check(ngx_tun_fakeip_address(fip, index, 16, addr) == NGX_OK);
    check(ngx_tun_fakeip_name(fip, addr, 16, got, &got_len) == NGX_OK);
    check(got_len == len && memcmp(got, name, len) == 0);
}


static void
check_pool(ngx_tun_fakeip_t *fip)
{
    u_char    name[NGX_TUN_FAKEIP_NAME_MAX], text[NGX_TUN_FAKEIP_TEXT_MAX];
    size_t    len;
    uint32_t  i, n, seq, hash, chunks;

    chunks = fip->nchunks;

    for (i = 0, n = 0; i < fip->n; i++) {
        check((fip->entries[i].seq & 1) == 0);

        if (ngx_tun_fakeip_copy(fip, &fip->entries[i], name, &len) != NGX_OK) {
            continue;
        }

        n++;
        chunks -= (len > NGX_TUN_FAKEIP_INLINE)
                  ? (len - NGX_TUN_FAKEIP_INLINE + NGX_TUN_FAKEIP_CHUNK - 1)
                    / NGX_TUN_FAKEIP_CHUNK : 0;

        check(i != 0 && i != fip->n - 1);
        check(ngx_tun_fakeip_check_name(name, len) == NGX_OK);
        check(ngx_tun_fakeip_text(text, name, len) > text);

        hash = (uint32_t) ngx_tun_fakeip_hash(fip->conf.key, name, len);
        check(ngx_tun_fakeip_find(fip, name, len, hash, &seq) == i);
    }

    check(n == fip->header->names);
    check(chunks == fip->header->free_chunks);
}


static void
cleanup(void)
{
    unlink(path);
    *strrchr(path, '/') = '\0';
    rmdir(path);
}


int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char               dir[] = "/tmp/fuzz-fakeip-XXXXXX";
    u_char            *memory;
    ngx_uint_t         i;
    ngx_tun_fakeip_t   fip;

    core_set_time(1700000000, 5000000);

    check(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/names", dir);
    atexit(cleanup);

    memset(&fip, 0, sizeof(fip));
    conf(&fip.conf, 0);

    good_size = ngx_tun_fakeip_size(&fip.conf);
    check(good_size <= sizeof(good));

    /* aligned as memory of a mapping is */

    memory = aligned_alloc(4096, (good_size + 4095) / 4096 * 4096);

    memset(memory, 0, good_size);
    check(ngx_tun_fakeip_create(&fip, memory, good_size) == NGX_OK);

    for (i = 0; i < 10; i++) {
        assign(&fip, i);
    }

    check_pool(&fip);
    memcpy(good, memory, good_size);
    free(memory);

    return 0;
}


static void
fix_entries(u_char *image)
{
    u_char             name[NGX_TUN_FAKEIP_NAME_MAX];
    size_t             len;
    uint32_t           i, crc;
    ngx_tun_fakeip_t   fip;

    memset(&fip, 0, sizeof(fip));
    conf(&fip.conf, 0);

    check(ngx_tun_fakeip_map(&fip, image, good_size) == NGX_OK);

    for (i = 0; i < fip.n; i++) {

        if (ngx_tun_fakeip_copy(&fip, &fip.entries[i], name, &len) != NGX_OK) {
            continue;
        }

        crc = ngx_tun_fakeip_crc32c(0xffffffff, (u_char *) &i, 4);
        crc = ngx_tun_fakeip_crc32c(crc, (u_char *) &fip.entries[i].created,
                                    4);
        fip.entries[i].crc = ~ngx_tun_fakeip_crc32c(crc, name, len);
    }
}


/*
 * Changes: where, of 16 bits, how many bytes, and which.  The upper two bits
 * say of what: of all, an entry, a chunk; or to copy an entry to another one.
 */

static size_t
change_at(ngx_tun_fakeip_t *fip, uint32_t where)
{
    u_char  *p;

    switch (where >> 14) {

    case 0:
        return where % good_size;

    case 1:
        p = (u_char *) &fip->entries[(where >> 6) % fip->n] + where % 64;
        break;

    default:
        p = (u_char *) &fip->chunks[(where >> 5) % fip->nchunks] + where % 32;
        break;
    }

    return p - (u_char *) fip->header;
}


static void
change(u_char *image, const uint8_t *data, size_t size)
{
    size_t            offset, n;
    uint32_t          where;
    ngx_tun_fakeip_t  fip;

    memset(&fip, 0, sizeof(fip));
    conf(&fip.conf, 0);

    check(ngx_tun_fakeip_map(&fip, image, good_size) == NGX_OK);

    while (size > 3) {
        where = data[0] << 8 | data[1];

        if (where >> 14 == 3) {
            fip.entries[where % 16] = fip.entries[where / 16 % 16];
            data += 2;
            size -= 2;
            continue;
        }

        offset = change_at(&fip, where);

        n = ngx_min((size_t) data[2] % 64 + 1, size - 3);
        n = ngx_min(n, good_size - offset);

        memcpy(image + offset, data + 3, n);

        data += 3 + n;
        size -= 3 + n;
    }
}


static void
write_file(const u_char *data, size_t size)
{
    int  fd;

    fd = open(path, O_WRONLY|O_CREAT|O_TRUNC, 0600);
    check(fd != -1 && write(fd, data, size) == (ssize_t) size);
    close(fd);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    u_char                   *image;
    uint8_t                   how;
    size_t                    len;
    ngx_str_t                 name;
    ngx_uint_t                i;
    ngx_tun_fakeip_t          fip;
    ngx_tun_fakeip_header_t  *header;

    if (size < 4) {
        return 0;
    }

    how = data[0];
    len = good_size;

    image = aligned_alloc(4096, (good_size + 4095) / 4096 * 4096);

    if (how & FUZZ_RAW) {
        write_file(data + 1, size - 1);

    } else {
        memcpy(image, good, good_size);

        if (how & FUZZ_CUT) {
            len = (data[1] << 8 | data[2]) % (good_size + 1);
        }

        change(image, data + 3, size - 3);

        if (how & FUZZ_FIX_ENTRY) {
            fix_entries(image);
        }

        if (how & FUZZ_FIX_HEADER) {
            header = (ngx_tun_fakeip_header_t *) image;
            header->crc = ~ngx_tun_fakeip_crc32c(0xffffffff, image,
                                  offsetof(ngx_tun_fakeip_header_t, crc));
        }

        write_file(image, len);
    }

    free(image);

    memset(&fip, 0, sizeof(fip));
    conf(&fip.conf, how & FUZZ_OTHER);

    name.data = (u_char *) path;
    name.len = strlen(path);

    (void) ngx_tun_fakeip_file_test(&name, &null_log);

    if (ngx_tun_fakeip_file_open(&fip, &name,
                                 good_size + ((how & FUZZ_SIZE) ? 4096 : 0),
                                 NULL, &null_log)
        != NGX_OK)
    {
        check(fip.header == NULL && fip.file == NULL);
        return 0;
    }

    check_pool(&fip);
    ngx_tun_fakeip_file_commit(&fip, &null_log);

    for (i = 0; i < 20; i++) {
        assign(&fip, i);
        core_set_time(1700000000, 5000000 + i * 600000);
    }

    check_pool(&fip);
    ngx_tun_fakeip_file_close(&fip);

    core_set_time(1700000000, 5000000);

    return 0;
}
