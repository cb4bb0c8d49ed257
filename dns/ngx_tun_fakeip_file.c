
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_fakeip_pool.h>

#include <sys/mman.h>


/*
 * The file is locked as long as somebody has it: over a reload it is the same
 * open file, workers have it from their parent, and so has a new binary.
 */

struct ngx_tun_fakeip_file_s {
    ngx_uint_t                   refs;       /* pools */
    int                          fd;
    int                          replaced;   /* what has the name still */
    void                        *memory;
    size_t                       size;
    u_char                      *name;
    u_char                      *temp;       /* its name before the commit */
};


static ngx_tun_fakeip_file_t *ngx_tun_fakeip_file_alloc(ngx_str_t *name,
    size_t size, ngx_log_t *log);
static void ngx_tun_fakeip_file_free(ngx_tun_fakeip_file_t *file);
static ngx_int_t ngx_tun_fakeip_file_start(ngx_tun_fakeip_t *fip,
    ngx_tun_fakeip_file_t *file, ngx_log_t *log);
static ngx_int_t ngx_tun_fakeip_file_map(ngx_tun_fakeip_file_t *file,
    u_char *name, ngx_log_t *log);
static ngx_int_t ngx_tun_fakeip_file_read(ngx_tun_fakeip_t *fip,
    ngx_tun_fakeip_file_t *file, ngx_log_t *log);
static ngx_int_t ngx_tun_fakeip_file_rescue(ngx_tun_fakeip_t *fip, int fd,
    ngx_tun_fakeip_header_t *header, ngx_tun_fakeip_conf_t *conf,
    u_char *name, ngx_log_t *log);
static ngx_int_t ngx_tun_fakeip_file_replace(ngx_tun_fakeip_t *fip,
    ngx_tun_fakeip_file_t *file, ngx_log_t *log);
static ngx_int_t ngx_tun_fakeip_file_succeed(ngx_tun_fakeip_t *fip,
    ngx_tun_fakeip_file_t *file, ngx_log_t *log);


ngx_int_t
ngx_tun_fakeip_file_open(ngx_tun_fakeip_t *fip, ngx_str_t *name, size_t size,
    ngx_tun_fakeip_t *old, ngx_log_t *log)
{
    ngx_int_t               rc;
    ngx_tun_fakeip_file_t  *file;

    if (old != NULL
        && (old->file == NULL
            || ngx_strcmp(old->file->name, name->data) != 0))
    {
        old = NULL;
    }

    if (old != NULL
        && old->file->size == size
        && ngx_tun_fakeip_attach(fip, old->file->memory, size) == NGX_OK)
    {
        fip->file = old->file;
        fip->file->refs++;

        return NGX_OK;
    }

    file = ngx_tun_fakeip_file_alloc(name, size, log);
    if (file == NULL) {
        return NGX_ERROR;
    }

    if (old != NULL) {
        rc = ngx_tun_fakeip_file_replace(fip, file, log);

        if (rc == NGX_OK) {
            ngx_tun_fakeip_import(fip, old);
        }

    } else {
        rc = ngx_tun_fakeip_file_start(fip, file, log);
    }

    if (rc != NGX_OK) {
        ngx_tun_fakeip_file_free(file);
        fip->header = NULL;
        return NGX_ERROR;
    }

    fip->file = file;

    if (fip->header->dropped != 0) {
        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "%uL damaged names of \"%s\" are lost",
                      fip->header->dropped, file->name);
    }

    return NGX_OK;
}


static ngx_tun_fakeip_file_t *
ngx_tun_fakeip_file_alloc(ngx_str_t *name, size_t size, ngx_log_t *log)
{
    size_t                  len;
    ngx_tun_fakeip_file_t  *file;

    /* it lives longer than a cycle */

    len = sizeof(ngx_tun_fakeip_file_t) + 2 * name->len + sizeof(".new") + 1;

    file = ngx_calloc(len, log);
    if (file == NULL) {
        return NULL;
    }

    file->refs = 1;
    file->fd = -1;
    file->replaced = -1;
    file->memory = MAP_FAILED;
    file->size = size;

    file->name = (u_char *) file + sizeof(ngx_tun_fakeip_file_t);
    ngx_memcpy(file->name, name->data, name->len);

    return file;
}


static void
ngx_tun_fakeip_file_free(ngx_tun_fakeip_file_t *file)
{
    if (file->temp != NULL) {
        (void) unlink((char *) file->temp);
    }

    if (file->memory != MAP_FAILED) {
        (void) munmap(file->memory, file->size);
    }

    if (file->fd != -1) {
        (void) close(file->fd);
    }

    if (file->replaced != -1) {
        (void) close(file->replaced);
    }

    ngx_free(file);
}


static ngx_int_t
ngx_tun_fakeip_file_start(ngx_tun_fakeip_t *fip, ngx_tun_fakeip_file_t *file,
    ngx_log_t *log)
{
    ngx_int_t   rc;
    ngx_uint_t  inherited;

    rc = ngx_tun_fakeip_file_get(file->name, &file->fd, &inherited, log);

    switch (rc) {

    case NGX_OK:
        return inherited ? ngx_tun_fakeip_file_succeed(fip, file, log)
                         : ngx_tun_fakeip_file_read(fip, file, log);

    case NGX_DONE: /* created */

        if (ngx_tun_fakeip_file_map(file, file->name, log) != NGX_OK) {
            (void) unlink((char *) file->name);
            return NGX_ERROR;
        }

        return ngx_tun_fakeip_create(fip, file->memory, file->size);

    default: /* NGX_ERROR */
        return NGX_ERROR;
    }
}


/* all of it, now: a page without a block would be SIGBUS some day */

static ngx_int_t
ngx_tun_fakeip_file_map(ngx_tun_fakeip_file_t *file, u_char *name,
    ngx_log_t *log)
{
    ngx_err_t  err;

    err = posix_fallocate(file->fd, 0, (off_t) file->size);

    if (err != 0) {
        ngx_log_error(NGX_LOG_EMERG, log, err,
                      "cannot allocate %uz bytes for \"%s\"",
                      file->size, name);
        return NGX_ERROR;
    }

    file->memory = mmap(NULL, file->size, PROT_READ|PROT_WRITE, MAP_SHARED,
                        file->fd, 0);

    if (file->memory == MAP_FAILED) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "mmap() \"%s\" failed", name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_tun_fakeip_file_read(ngx_tun_fakeip_t *fip, ngx_tun_fakeip_file_t *file,
    ngx_log_t *log)
{
    ssize_t                  n;
    ngx_file_info_t          fi;
    ngx_tun_fakeip_conf_t    conf;
    ngx_tun_fakeip_header_t  header;

    ngx_memzero(&header, sizeof(ngx_tun_fakeip_header_t));

    n = pread(file->fd, &header, sizeof(ngx_tun_fakeip_header_t), 0);

    if (n == -1 || fstat(file->fd, &fi) == -1) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "cannot read \"%s\"", file->name);
        return NGX_ERROR;
    }

    /* of a start that was not finished */

    if (ngx_tun_fakeip_file_is_empty(&header, n)) {

        if (ftruncate(file->fd, 0) == -1
            || ngx_tun_fakeip_file_map(file, file->name, log) != NGX_OK)
        {
            return NGX_ERROR;
        }

        return ngx_tun_fakeip_create(fip, file->memory, file->size);
    }

    if (n < 8 || ngx_memcmp(header.magic, NGX_TUN_FAKEIP_MAGIC, 8) != 0) {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "\"%s\" is not a file of fake-IP names", file->name);
        return NGX_ERROR;
    }

    if ((uint64_t) fi.st_size == file->size
        && ngx_tun_fakeip_same(&header, &fip->conf, file->size))
    {
        if (ngx_tun_fakeip_file_map(file, file->name, log) != NGX_OK) {
            return NGX_ERROR;
        }

        return ngx_tun_fakeip_load(fip, file->memory, file->size);
    }

    /* something else than what is wanted, and the names that fit */

    file->replaced = file->fd;
    file->fd = -1;

    if (ngx_tun_fakeip_file_replace(fip, file, log) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_tun_fakeip_read_header(&header, &conf) != NGX_OK) {
        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "the header of \"%s\" is damaged, "
                      "its names are lost", file->name);
        return NGX_OK;
    }

    if ((uint64_t) fi.st_size != header.size) {
        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "\"%s\" has %O bytes instead of %uL",
                      file->name, fi.st_size, header.size);
    }

    return ngx_tun_fakeip_file_rescue(fip, file->replaced, &header, &conf,
                                      file->name, log);
}


/* the names of a file, however much of it there is */

static ngx_int_t
ngx_tun_fakeip_file_rescue(ngx_tun_fakeip_t *fip, int fd,
    ngx_tun_fakeip_header_t *header, ngx_tun_fakeip_conf_t *conf,
    u_char *name, ngx_log_t *log)
{
    void              *memory;
    size_t             size;
    ssize_t            n;
    uint64_t           offset;
    ngx_tun_fakeip_t   from;

    size = (size_t) header->size;

    memory = mmap(NULL, size, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANON, -1,
                  0);

    if (memory == MAP_FAILED) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "mmap() of %uz bytes for \"%s\" failed", size, name);
        return NGX_ERROR;
    }

    for (offset = 0; offset < size; offset += n) {
        n = pread(fd, (u_char *) memory + offset, size - offset,
                  (off_t) offset);

        if (n <= 0) {
            break;
        }
    }

    ngx_memzero(&from, sizeof(ngx_tun_fakeip_t));

    from.conf = *conf;
    ngx_memcpy(from.conf.key, fip->conf.key, NGX_TUN_FAKEIP_KEY_LEN);

    if (ngx_tun_fakeip_load(&from, memory, size) == NGX_OK) {
        ngx_tun_fakeip_import(fip, &from);
        fip->header->dropped += from.header->dropped;
    }

    (void) munmap(memory, size);

    return NGX_OK;
}


/* a new file beside the old one, whose lock is ours */

static ngx_int_t
ngx_tun_fakeip_file_replace(ngx_tun_fakeip_t *fip,
    ngx_tun_fakeip_file_t *file, ngx_log_t *log)
{
    u_char      *temp;
    ngx_uint_t   inherited;

    temp = file->name + ngx_strlen(file->name) + 1;
    ngx_memcpy(ngx_cpymem(temp, file->name, ngx_strlen(file->name)), ".new",
               sizeof(".new"));

    if (unlink((char *) temp) == -1 && ngx_errno != NGX_ENOENT) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "unlink() \"%s\" failed", temp);
        return NGX_ERROR;
    }

    file->fd = open((char *) temp, O_RDWR|O_CREAT|O_EXCL|O_NOFOLLOW, 0600);

    if (file->fd == -1) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "open() \"%s\" failed", temp);
        return NGX_ERROR;
    }

    file->temp = temp;

    if (ngx_tun_fakeip_file_lock(&file->fd, temp, &inherited, log) != NGX_OK
        || ngx_tun_fakeip_file_map(file, temp, log) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_tun_fakeip_create(fip, file->memory, file->size);
}


/* the file of the binary before, which may be running yet */

static ngx_int_t
ngx_tun_fakeip_file_succeed(ngx_tun_fakeip_t *fip,
    ngx_tun_fakeip_file_t *file, ngx_log_t *log)
{
    void                   *memory;
    size_t                  size;
    ngx_int_t               rc;
    ngx_file_info_t         fi;
    ngx_tun_fakeip_t        from;
    ngx_tun_fakeip_conf_t   conf;

    if (fstat(file->fd, &fi) == -1 || fi.st_size < NGX_TUN_FAKEIP_HEADER) {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "\"%s\" is in use by another process", file->name);
        return NGX_ERROR;
    }

    size = (size_t) fi.st_size;
    memory = mmap(NULL, size, PROT_READ|PROT_WRITE, MAP_SHARED, file->fd, 0);

    if (memory == MAP_FAILED) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "mmap() \"%s\" failed", file->name);
        return NGX_ERROR;
    }

    if (size == file->size
        && ngx_tun_fakeip_attach(fip, memory, size) == NGX_OK)
    {
        file->memory = memory;
        return NGX_OK;
    }

    file->replaced = file->fd;
    file->fd = -1;

    rc = ngx_tun_fakeip_file_replace(fip, file, log);

    ngx_memzero(&from, sizeof(ngx_tun_fakeip_t));

    if (rc == NGX_OK
        && ngx_tun_fakeip_read_header(memory, &conf) == NGX_OK)
    {
        from.conf = conf;

        if (ngx_tun_fakeip_map(&from, memory, size) == NGX_OK) {
            ngx_tun_fakeip_import(fip, &from);
        }
    }

    (void) munmap(memory, size);

    return rc;
}


void
ngx_tun_fakeip_file_commit(ngx_tun_fakeip_t *fip, ngx_log_t *log)
{
    ngx_tun_fakeip_file_t  *file;

    file = fip->file;

    if (file == NULL || file->temp == NULL) {
        return;
    }

    if (rename((char *) file->temp, (char *) file->name) == -1) {
        ngx_log_error(NGX_LOG_ALERT, log, ngx_errno,
                      "rename() \"%s\" to \"%s\" failed",
                      file->temp, file->name);
        return;
    }

    file->temp = NULL;

    if (file->replaced != -1) {
        (void) close(file->replaced);
        file->replaced = -1;
    }
}


void
ngx_tun_fakeip_file_close(ngx_tun_fakeip_t *fip)
{
    if (fip->file != NULL && --fip->file->refs == 0) {
        ngx_tun_fakeip_file_free(fip->file);
    }

    fip->file = NULL;
}


void
ngx_tun_fakeip_file_sync(ngx_tun_fakeip_t *fip)
{
    if (fip->file != NULL) {
        (void) msync(fip->file->memory, fip->file->size, MS_ASYNC);
    }
}
