
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_fakeip_pool.h>

#include <sys/file.h>


#define NGX_TUN_FAKEIP_OPEN_TRIES  10


static int ngx_tun_fakeip_file_try(u_char *name, ngx_uint_t *created,
    ngx_log_t *log);
static ngx_int_t ngx_tun_fakeip_file_check(int fd, u_char *name,
    ngx_log_t *log);
static int ngx_tun_fakeip_file_inherited(int fd);
static ngx_int_t ngx_tun_fakeip_file_test_dir(ngx_str_t *name,
    ngx_log_t *log);


ngx_int_t
ngx_tun_fakeip_file_get(u_char *name, int *fd, ngx_uint_t *inherited,
    ngx_log_t *log)
{
    ngx_uint_t       tries, created;
    ngx_file_info_t  here, there;

    for (tries = 0; tries < NGX_TUN_FAKEIP_OPEN_TRIES; tries++) {

        *fd = ngx_tun_fakeip_file_try(name, &created, log);

        if (*fd == -1) {
            return NGX_ERROR;
        }

        if (ngx_tun_fakeip_file_check(*fd, name, log) != NGX_OK
            || ngx_tun_fakeip_file_lock(fd, name, inherited, log) != NGX_OK)
        {
            return NGX_ERROR;
        }

        /* another process may have given the name to another file */

        if (fstat(*fd, &here) == 0
            && lstat((char *) name, &there) == 0
            && here.st_dev == there.st_dev
            && here.st_ino == there.st_ino)
        {
            return (created && here.st_size == 0) ? NGX_DONE : NGX_OK;
        }

        (void) close(*fd);
        *fd = -1;
    }

    ngx_log_error(NGX_LOG_EMERG, log, 0,
                  "\"%s\" is replaced again and again", name);

    return NGX_ERROR;
}


static int
ngx_tun_fakeip_file_try(u_char *name, ngx_uint_t *created, ngx_log_t *log)
{
    int         fd;
    ngx_err_t   err;
    ngx_uint_t  tries;

    /* without O_CLOEXEC: a new binary takes the lock along */

    for (tries = 0; tries < NGX_TUN_FAKEIP_OPEN_TRIES; tries++) {

        *created = 0;
        fd = open((char *) name, O_RDWR|O_NOFOLLOW|O_NONBLOCK);

        if (fd != -1) {
            return fd;
        }

        err = ngx_errno;

        if (err == NGX_ENOENT) {
            *created = 1;
            fd = open((char *) name,
                      O_RDWR|O_CREAT|O_EXCL|O_NOFOLLOW|O_NONBLOCK,
                      0600);

            if (fd != -1) {
                return fd;
            }

            err = ngx_errno;
        }

        if (err != NGX_EEXIST) {
            break;
        }
    }

    if (err == NGX_ELOOP) {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "\"%s\" is a symbolic link, which is not followed", name);

    } else {
        ngx_log_error(NGX_LOG_EMERG, log, err, "open() \"%s\" failed", name);
    }

    return -1;
}


static ngx_int_t
ngx_tun_fakeip_file_check(int fd, u_char *name, ngx_log_t *log)
{
    ngx_file_info_t  fi;

    if (fstat(fd, &fi) == -1) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "fstat() \"%s\" failed", name);
        return NGX_ERROR;
    }

    if (!S_ISREG(fi.st_mode) || fi.st_nlink > 1) {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "\"%s\" is not a regular file of one name", name);
        return NGX_ERROR;
    }

    if (fi.st_uid != geteuid()) {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "\"%s\" is owned by uid %d instead of %d",
                      name, (int) fi.st_uid, (int) geteuid());
        return NGX_ERROR;
    }

    if ((fi.st_mode & 07777) & ~0600) {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "\"%s\" is accessible to others, its mode must be 0600",
                      name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_int_t
ngx_tun_fakeip_file_lock(int *fd, u_char *name, ngx_uint_t *inherited,
    ngx_log_t *log)
{
    int        other;
    ngx_err_t  err;

    *inherited = 0;

    if (flock(*fd, LOCK_EX|LOCK_NB) == 0) {
        return NGX_OK;
    }

    err = ngx_errno;

    if (err != EWOULDBLOCK) {
        ngx_log_error(NGX_LOG_EMERG, log, err, "flock() \"%s\" failed", name);
        return NGX_ERROR;
    }

    /* the lock may be that of the process that this one replaces */

    other = ngx_tun_fakeip_file_inherited(*fd);

    if (other == -1) {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "\"%s\" is in use by another process", name);
        return NGX_ERROR;
    }

    (void) close(*fd);

    *fd = other;
    *inherited = 1;

    return NGX_OK;
}


static int
ngx_tun_fakeip_file_inherited(int fd)
{
    int              other, found;
    DIR             *dir;
    struct dirent   *de;
    ngx_file_info_t  fi, here;

    if (fstat(fd, &here) == -1) {
        return -1;
    }

    dir = opendir("/proc/self/fd");
    if (dir == NULL) {
        return -1;
    }

    found = -1;

    while (found == -1 && (de = readdir(dir)) != NULL) {

        if (de->d_name[0] == '.') {
            continue;
        }

        other = atoi(de->d_name);

        if (other == fd || other == dirfd(dir)) {
            continue;
        }

        /* with the lock in it this does not fail, and takes none */

        if (fstat(other, &fi) == 0
            && fi.st_dev == here.st_dev
            && fi.st_ino == here.st_ino
            && flock(other, LOCK_EX|LOCK_NB) == 0)
        {
            found = other;
        }
    }

    (void) closedir(dir);

    return found;
}


ngx_uint_t
ngx_tun_fakeip_file_is_empty(ngx_tun_fakeip_header_t *header, ssize_t n)
{
    u_char   *p;
    ssize_t   i;

    p = (u_char *) header;

    for (i = 0; i < n; i++) {
        if (p[i] != 0) {
            return 0;
        }
    }

    return 1;
}


ngx_int_t
ngx_tun_fakeip_file_test(ngx_str_t *name, ngx_log_t *log)
{
    int                      fd;
    ssize_t                  n;
    ngx_err_t                err;
    ngx_int_t                rc;
    ngx_tun_fakeip_header_t  header;

    fd = open((char *) name->data, O_RDONLY|O_NOFOLLOW|O_NONBLOCK|O_CLOEXEC);

    if (fd != -1) {
        ngx_memzero(&header, sizeof(ngx_tun_fakeip_header_t));

        rc = ngx_tun_fakeip_file_check(fd, name->data, log);
        n = pread(fd, &header, sizeof(ngx_tun_fakeip_header_t), 0);

        if (rc == NGX_OK
            && !ngx_tun_fakeip_file_is_empty(&header, n)
            && ngx_memcmp(header.magic, NGX_TUN_FAKEIP_MAGIC, 8) != 0)
        {
            ngx_log_error(NGX_LOG_EMERG, log, 0,
                          "\"%s\" is not a file of fake-IP names", name->data);
            rc = NGX_ERROR;
        }

        (void) close(fd);

        return rc;
    }

    err = ngx_errno;

    if (err == NGX_ELOOP) {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "\"%s\" is a symbolic link, which is not followed",
                      name->data);
        return NGX_ERROR;
    }

    if (err != NGX_ENOENT) {
        ngx_log_error(NGX_LOG_EMERG, log, err,
                      "open() \"%s\" failed", name->data);
        return NGX_ERROR;
    }

    return ngx_tun_fakeip_file_test_dir(name, log);
}


/* where it would be made */

static ngx_int_t
ngx_tun_fakeip_file_test_dir(ngx_str_t *name, ngx_log_t *log)
{
    u_char     *p, *dir;
    ngx_int_t   rc;

    dir = ngx_alloc(name->len + 1, log);
    if (dir == NULL) {
        return NGX_ERROR;
    }

    rc = NGX_OK;
    ngx_memcpy(dir, name->data, name->len + 1);

    p = dir + name->len;

    while (p > dir && *p != '/') {
        p--;
    }

    p[p == dir] = '\0';

    if (access((char *) dir, W_OK|X_OK) == -1) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "\"%s\" cannot be made in \"%s\"", name->data, dir);
        rc = NGX_ERROR;
    }

    ngx_free(dir);

    return rc;
}
