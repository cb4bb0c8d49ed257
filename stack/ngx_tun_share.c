
/*
 * Copyright (C) the nginx-tun authors
 */


#include <ngx_config.h>
#include <ngx_core.h>

#include <ngx_tun_share.h>

#include <sys/mman.h>


/* nobody who has the descriptor can cut off what others read */
#define NGX_TUN_SHARE_SEALS  (F_SEAL_SEAL|F_SEAL_SHRINK|F_SEAL_GROW)


static ngx_tun_share_t *ngx_tun_share_map(ngx_socket_t fd, size_t size,
    ngx_log_t *log);


ngx_tun_share_t *
ngx_tun_share_create(size_t size, ngx_log_t *log)
{
    ngx_socket_t      fd;
    ngx_tun_share_t  *share;

    fd = memfd_create("nginx-tun", MFD_CLOEXEC|MFD_ALLOW_SEALING);

    if (fd == (ngx_socket_t) -1) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno, "memfd_create() failed");
        return NULL;
    }

    if (ftruncate(fd, size) == -1
        || fcntl(fd, F_ADD_SEALS, NGX_TUN_SHARE_SEALS) == -1)
    {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "%uz bytes of shared memory cannot be had", size);
        (void) close(fd);
        return NULL;
    }

    share = ngx_tun_share_map(fd, size, log);
    if (share == NULL) {
        (void) close(fd);
    }

    return share;
}


ngx_tun_share_t *
ngx_tun_share_attach(ngx_socket_t fd, ngx_log_t *log)
{
    ngx_socket_t      own;
    ngx_file_info_t   fi;
    ngx_tun_share_t  *share;

    /* an ordinary file has no seals that could be set */

    if (fcntl(fd, F_GET_SEALS) != NGX_TUN_SHARE_SEALS
        || ngx_fd_info(fd, &fi) == NGX_FILE_ERROR
        || fi.st_uid != geteuid()
        || fi.st_size == 0)
    {
        return NULL;
    }

    own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (own == (ngx_socket_t) -1) {
        return NULL;
    }

    share = ngx_tun_share_map(own, (size_t) fi.st_size, log);
    if (share == NULL) {
        (void) close(own);
    }

    return share;
}


static ngx_tun_share_t *
ngx_tun_share_map(ngx_socket_t fd, size_t size, ngx_log_t *log)
{
    ngx_tun_share_t  *share;

    share = ngx_alloc(sizeof(ngx_tun_share_t), log);
    if (share == NULL) {
        return NULL;
    }

    share->fd = fd;
    share->size = size;
    share->refs = 0;

    share->memory = mmap(NULL, size, PROT_READ|PROT_WRITE,
                         MAP_SHARED|MAP_NORESERVE, fd, 0);

    if (share->memory == MAP_FAILED) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno, "mmap(%uz) failed", size);
        ngx_free(share);
        return NULL;
    }

    return share;
}


void
ngx_tun_share_release(ngx_tun_share_t *share)
{
    if (--share->refs != 0) {
        return;
    }

    (void) munmap(share->memory, share->size);
    (void) close(share->fd);

    ngx_free(share);
}
