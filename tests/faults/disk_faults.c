/*
 * disk_faults: a disk that fails on demand, put before the C library: linked into a test, or by
 * LD_PRELOAD into a daemon.
 *
 * While the file named by the environment variable TIERMQ_DISK_FAULTS exists, calls on regular
 * files fail as it says: "ERRNO [CALLS [ENDING]]". ERRNO is a number (28: ENOSPC, 5: EIO); CALLS is
 * "write" for write(), pwrite() and fallocate(), "sync" for fsync() and fdatasync(), "read" for
 * pread(), or, when it is left out, "write" and "sync"; ENDING is how the file's path has to end.
 * Sockets and pipes go on.
 */
/*
 * The build sets it; with it the C library's header would rename pwrite() to pwrite64(), and both
 * are defined here.
 */
#undef _FILE_OFFSET_BITS
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What the file says. Kept free of stdio, which would call us. */
static bool read_faults(char *ret_text, size_t bytes)
{
    const char *path = getenv("TIERMQ_DISK_FAULTS");
    int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t length = read(fd, ret_text, bytes - 1);
    close(fd);
    ret_text[length > 0 ? length : 0] = '\0';
    return length > 0;
}

static bool ends_with(int fd, const char *ending)
{
    char link[64], path[4096];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof(path) - 1);
    size_t ending_bytes = strlen(ending);
    return length >= (ssize_t)ending_bytes &&
           memcmp(path + length - ending_bytes, ending, ending_bytes) == 0;
}

/* The errno to fail with, 0: none. */
static int fault_now(int fd, const char *call)
{
    char text[128];
    if (!read_faults(text, sizeof(text))) {
        return 0;
    }
    char *calls = strchr(text, ' ');
    if (calls == NULL) {
        return strcmp(call, "read") == 0 ? 0 : atoi(text);
    }
    *calls++ = '\0';
    char *ending = strchr(calls, ' ');
    if (ending != NULL) {
        *ending++ = '\0';
    }
    return strcmp(calls, call) == 0 && (ending == NULL || ends_with(fd, ending)) ? atoi(text) : 0;
}

static bool fails(int fd, const char *call)
{
    int error_before = errno;
    struct stat status;
    int fault = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) ? fault_now(fd, call) : 0;
    errno = fault != 0 ? fault : error_before;
    return fault != 0;
}

ssize_t pread(int fd, void *data, size_t bytes, off_t offset)
{
    return fails(fd, "read") ? -1 : syscall(SYS_pread64, fd, data, bytes, offset);
}

ssize_t pread64(int fd, void *data, size_t bytes, off64_t offset)
{
    return fails(fd, "read") ? -1 : syscall(SYS_pread64, fd, data, bytes, offset);
}

ssize_t write(int fd, const void *data, size_t bytes)
{
    return fails(fd, "write") ? -1 : syscall(SYS_write, fd, data, bytes);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    return fails(fd, "write") ? -1 : syscall(SYS_pwrite64, fd, data, bytes, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t offset)
{
    return fails(fd, "write") ? -1 : syscall(SYS_pwrite64, fd, data, bytes, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    return fails(fd, "write") ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t bytes)
{
    return fails(fd, "write") ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
}

int fsync(int fd)
{
    return fails(fd, "sync") ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return fails(fd, "sync") ? -1 : (int)syscall(SYS_fdatasync, fd);
}
