/*
 * disk_faults: a disk that fails on demand, put before the C library: linked into a test, or by
 * LD_PRELOAD into a daemon.
 *
 * While the file named by the environment variable TIERMQ_DISK_FAULTS exists, write(), pwrite(),
 * fallocate(), fsync() and fdatasync() on regular files fail with the errno that it contains as a
 * number (28: ENOSPC, 5: EIO). Sockets, pipes and reading go on.
 */
/*
 * The build sets it; with it the C library's header would rename pwrite() to pwrite64(), and both
 * are defined here.
 */
#undef _FILE_OFFSET_BITS
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The errno to fail with, 0: none. Kept free of stdio, which would call us. */
static int fault_now(void)
{
    const char *path = getenv("TIERMQ_DISK_FAULTS");
    int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    char text[8] = "";
    ssize_t bytes = read(fd, text, sizeof(text) - 1);
    close(fd);
    return bytes > 0 ? atoi(text) : 0;
}

static bool fails(int fd)
{
    int error_before = errno;
    struct stat status;
    int fault = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) ? fault_now() : 0;
    errno = fault != 0 ? fault : error_before;
    return fault != 0;
}

ssize_t write(int fd, const void *data, size_t bytes)
{
    return fails(fd) ? -1 : syscall(SYS_write, fd, data, bytes);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    return fails(fd) ? -1 : syscall(SYS_pwrite64, fd, data, bytes, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t offset)
{
    return fails(fd) ? -1 : syscall(SYS_pwrite64, fd, data, bytes, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    return fails(fd) ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t bytes)
{
    return fails(fd) ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
}

int fsync(int fd)
{
    return fails(fd) ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return fails(fd) ? -1 : (int)syscall(SYS_fdatasync, fd);
}
