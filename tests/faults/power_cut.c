/*
 * power_cut: lets the end of a process be a power cut. Put before the C library by LD_PRELOAD, it
 * notes what of a directory tree the disk was made to keep; after a SIGKILL the harness (PowerCut
 * in tests/integration/harness.py) takes the rest away.
 *
 * Kept is: of a file, the length that it had when fsync() or fdatasync() returned, or a write to a
 * descriptor with O_SYNC or O_DSYNC; of a directory, what was created, renamed, unlinked and made
 * in it before an fsync() of the directory. sync_file_range() promises nothing (it flushes no
 * disk's cache and no metadata), so it keeps nothing. This is POSIX to the letter: most file
 * systems keep more.
 *
 * Files must grow at their end, as RocksDB's do. A write into what is kept, a rename between
 * directories, and more than the tables hold, are not modelled: they are counted, and the harness
 * then refuses to cut. Shared mappings that are written are not seen at all.
 *
 * Environment:
 * TIERMQ_POWER_CUT_ROOT   the directory, absolute; it may be made later. What is in it when the
 * state is new counts as kept. TIERMQ_POWER_CUT_STATE  the file with what was noted, for the
 * harness; beside the directory, on the same file system, since names that vanish are kept as
 * STATE.N by hard links. It outlives the process: one that ends without a cut is continued by the
 * next. TIERMQ_POWER_CUT_LIE    a disk that lies: fsync() and fdatasync() of files whose path ends
 * with this
 *                         (".log"; of all files and directories when it is empty) return 0 and keep
 *                         nothing. Not set: an honest disk.
 *
 * Before disk_faults in LD_PRELOAD, when both are used: it calls on, the other does not.
 */
/* As in disk_faults.c: both pwrite() and pwrite64() are defined here. */
#undef _FILE_OFFSET_BITS
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FILES_MAX = 16384, STEPS_MAX = 8192, NAME_BYTES = 240, MAGIC = 0x71747063 };
enum step_kind { STEP_CREATE = 1, STEP_RENAME, STEP_UNLINK, STEP_MKDIR };

/* PowerCut in harness.py reads these two and the head of `state` by their layout. */
struct file {
    uint64_t inode; /* 0: free */
    uint64_t kept_bytes;
};
struct step { /* a change of a directory; noted before it is made, so it may not have been */
    uint32_t kind;
    uint32_t is_kept;
    uint32_t has_saved; /* STATE.N, N the number of the step, is what the name meant before */
    uint32_t unused;
    uint64_t directory; /* inode */
    char from[NAME_BYTES], to[NAME_BYTES];
};
struct state {
    uint32_t magic;
    _Atomic uint32_t steps_length;
    _Atomic uint32_t unmodelled;
    uint32_t files_max;
    uint32_t rounds; /* how often all steps were kept and the numbers began anew */
    uint32_t unused;
    struct file files[FILES_MAX]; /* by inode, open addressing */
    struct step steps[STEPS_MAX];
};

static struct state *state;
static char root[PATH_MAX], state_path[PATH_MAX];
static const char *lie; /* NULL: honest */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define NEXT(name) ((__typeof__(&name))next_function(#name))

static void *next_function(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    if (function == NULL) {
        abort();
    }
    return function;
}

/* ---- files ---- */

/* The file's place; NULL when it has none and none is to be made. Lock held. */
static struct file *find_file(uint64_t inode, bool is_made)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        struct file *file = &state->files[(inode + i) % FILES_MAX];
        if (file->inode == inode) {
            return file;
        }
        if (file->inode == 0) {
            if (!is_made) {
                return NULL;
            }
            file->kept_bytes = 0;
            file->inode = inode;
            return file;
        }
    }
    state->unmodelled += is_made;
    return NULL;
}

static void note_kept(uint64_t inode, uint64_t bytes)
{
    struct file *file = find_file(inode, true);
    if (file != NULL) {
        file->kept_bytes = bytes;
    }
}

/* ---- names ---- */

static bool is_ours(const char *path)
{
    const size_t length = strlen(root);
    return state != NULL && strncmp(path, root, length) == 0 &&
           (path[length] == '/' || path[length] == '\0');
}

static uint64_t directory_of(const char *path)
{
    char parent[PATH_MAX];
    snprintf(parent, sizeof(parent), "%s", path);
    char *end = parent + strlen(parent);
    while (end > parent && end[-1] == '/') {
        *--end = '\0';
    }
    char *slash = strrchr(parent, '/');
    struct stat status;
    if (slash == NULL) {
        return 0;
    }
    slash[slash == parent] = '\0';
    return stat(parent, &status) == 0 ? status.st_ino : 0;
}

static void saved_path(char *ret_path, size_t number)
{
    snprintf(ret_path, PATH_MAX, "%.4000s.%zu", state_path, number);
}

/* Notes a step that is about to be made; with `saved`, keeps what that name means now. */
static void note_step(enum step_kind kind, const char *from, const char *to, const char *saved)
{
    pthread_mutex_lock(&lock);
    const uint32_t number = state->steps_length;
    if (number == STEPS_MAX || strlen(from) >= NAME_BYTES || strlen(to) >= NAME_BYTES) {
        state->unmodelled++;
        pthread_mutex_unlock(&lock);
        return;
    }
    struct step *step = &state->steps[number];
    *step = (struct step){.kind = kind, .directory = directory_of(from)};
    memcpy(step->from, from, strlen(from) + 1);
    memcpy(step->to, to, strlen(to) + 1);
    state->unmodelled += to[0] != '\0' && directory_of(to) != step->directory;
    if (saved != NULL && access(saved, F_OK) == 0) {
        char path[PATH_MAX];
        saved_path(path, number);
        NEXT(unlink)(path);
        step->has_saved = link(saved, path) == 0;
        state->unmodelled += !step->has_saved;
    }
    state->steps_length = number + 1;
    pthread_mutex_unlock(&lock);
}

/*
 * The first `length` steps of a round, if they are in this directory, are there for good. Lock
 * held.
 */
static void keep_steps(uint64_t directory, uint32_t round, uint32_t length)
{
    if (round != state->rounds) {
        return;
    }
    bool are_all_kept = length == state->steps_length;
    for (uint32_t i = 0; i < length; i++) {
        struct step *step = &state->steps[i];
        if (!step->is_kept && step->directory == directory) {
            step->is_kept = 1;
            if (step->has_saved) {
                char path[PATH_MAX];
                saved_path(path, i);
                NEXT(unlink)(path);
            }
        }
        are_all_kept = are_all_kept && step->is_kept;
    }
    if (are_all_kept) {
        state->steps_length = 0;
        state->rounds++;
    }
}

/* ---- beginning ---- */

static int note_existing(const char *path, const struct stat *status, int kind, struct FTW *at)
{
    (void)path;
    (void)at;
    if (kind == FTW_F) {
        note_kept(status->st_ino, status->st_size);
    }
    return 0;
}

__attribute__((constructor)) static void begin(void)
{
    const char *root_wanted = getenv("TIERMQ_POWER_CUT_ROOT");
    const char *path = getenv("TIERMQ_POWER_CUT_STATE");
    if (root_wanted == NULL || path == NULL) {
        return;
    }
    lie = getenv("TIERMQ_POWER_CUT_LIE");
    snprintf(root, sizeof(root), "%s", root_wanted);
    snprintf(state_path, sizeof(state_path), "%s", path);
    const int fd = NEXT(open)(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || NEXT(ftruncate)(fd, sizeof(*state)) < 0) {
        abort();
    }
    state = mmap(NULL, sizeof(*state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (state == MAP_FAILED) {
        abort();
    }
    if (state->magic != MAGIC) {
        nftw(root, note_existing, 8, FTW_PHYS);
        state->files_max = FILES_MAX;
        state->magic = MAGIC;
    }
}

/* ---- opening ---- */

typedef int open_function(const char *path, int flags, ...);

static int open_noted(open_function *open_next, const char *path, int flags, mode_t mode)
{
    struct stat status;
    if (!is_ours(path) || (flags & (O_CREAT | O_TRUNC)) == 0) {
        return open_next(path, flags, mode);
    }
    const bool is_new = (flags & O_CREAT) != 0 && stat(path, &status) < 0;
    if (is_new) {
        note_step(STEP_CREATE, path, "", NULL);
    }
    const int fd = open_next(path, flags, mode);
    const int error = errno;
    if (fd >= 0 && (is_new || (flags & O_TRUNC) != 0) && fstat(fd, &status) == 0) {
        pthread_mutex_lock(&lock);
        note_kept(status.st_ino, 0);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return fd;
}

static mode_t mode_of(int flags, va_list *arguments)
{
    return (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(*arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_of(flags, &arguments);
    va_end(arguments);
    return open_noted(NEXT(open), path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_of(flags, &arguments);
    va_end(arguments);
    return open_noted(NEXT(open64), path, flags, mode);
}

/* ---- writing ---- */

/* `written` bytes were put at `offset`, or before the descriptor's place when that is negative. */
static void note_written(int fd, ssize_t written, off64_t offset)
{
    const int error = errno;
    struct stat status;
    if (state == NULL || written <= 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode)) {
        errno = error;
        return;
    }
    pthread_mutex_lock(&lock);
    struct file *file = find_file(status.st_ino, false);
    if (file != NULL) {
        const int64_t at = offset >= 0 ? offset : lseek64(fd, 0, SEEK_CUR) - written;
        state->unmodelled += at < (int64_t)file->kept_bytes;
        if ((fcntl(fd, F_GETFL) & O_DSYNC) != 0 && lie == NULL) {
            file->kept_bytes = status.st_size;
        }
    }
    pthread_mutex_unlock(&lock);
    errno = error;
}

ssize_t write(int fd, const void *data, size_t bytes)
{
    const ssize_t written = NEXT(write)(fd, data, bytes);
    note_written(fd, written, -1);
    return written;
}

ssize_t writev(int fd, const struct iovec *parts, int length)
{
    const ssize_t written = NEXT(writev)(fd, parts, length);
    note_written(fd, written, -1);
    return written;
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    const ssize_t written = NEXT(pwrite)(fd, data, bytes, offset);
    note_written(fd, written, offset);
    return written;
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t offset)
{
    const ssize_t written = NEXT(pwrite64)(fd, data, bytes, offset);
    note_written(fd, written, offset);
    return written;
}

/* A file that was cut short stays so. */
static void note_truncated(int fd, int result, off64_t bytes)
{
    struct stat status;
    if (state == NULL || result < 0 || fstat(fd, &status) < 0) {
        return;
    }
    pthread_mutex_lock(&lock);
    struct file *file = find_file(status.st_ino, false);
    if (file != NULL && file->kept_bytes > (uint64_t)bytes) {
        file->kept_bytes = bytes;
    }
    pthread_mutex_unlock(&lock);
}

int ftruncate(int fd, off_t bytes)
{
    const int r = NEXT(ftruncate)(fd, bytes);
    note_truncated(fd, r, bytes);
    return r;
}

int ftruncate64(int fd, off64_t bytes)
{
    const int r = NEXT(ftruncate64)(fd, bytes);
    note_truncated(fd, r, bytes);
    return r;
}

/* ---- keeping ---- */

static bool is_lied_about(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    const ssize_t length = readlink(link, path, sizeof(path) - 1);
    if (lie == NULL || length < 0) {
        return false;
    }
    path[length] = '\0';
    const size_t ending = strlen(lie);
    return is_ours(path) && (size_t)length >= ending && strcmp(path + length - ending, lie) == 0;
}

static int sync_noted(int (*sync_next)(int fd), int fd)
{
    struct stat status;
    if (state == NULL || fstat(fd, &status) < 0) {
        return sync_next(fd);
    }
    if (is_lied_about(fd)) {
        return 0;
    }
    /* Only what was there before the call is sure to be kept. */
    pthread_mutex_lock(&lock);
    const uint32_t round = state->rounds, steps = state->steps_length;
    pthread_mutex_unlock(&lock);
    const int r = sync_next(fd);
    const int error = errno;
    if (r == 0) {
        pthread_mutex_lock(&lock);
        struct file *file = find_file(status.st_ino, false);
        if (S_ISDIR(status.st_mode)) {
            keep_steps(status.st_ino, round, steps);
        } else if (file != NULL && file->kept_bytes < (uint64_t)status.st_size) {
            file->kept_bytes = status.st_size;
        }
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return r;
}

int fsync(int fd)
{
    return sync_noted(NEXT(fsync), fd);
}

int fdatasync(int fd)
{
    return sync_noted(NEXT(fdatasync), fd);
}

/* ---- directories ---- */

int rename(const char *from, const char *to)
{
    if (is_ours(from) || is_ours(to)) {
        note_step(STEP_RENAME, from, to, to);
    }
    return NEXT(rename)(from, to);
}

int unlink(const char *path)
{
    if (is_ours(path)) {
        note_step(STEP_UNLINK, path, "", path);
    }
    return NEXT(unlink)(path);
}

int mkdir(const char *path, mode_t mode)
{
    struct stat status;
    if (is_ours(path) && stat(path, &status) < 0) {
        note_step(STEP_MKDIR, path, "", NULL);
    }
    return NEXT(mkdir)(path, mode);
}
