/*
 * whole: whether all that was acknowledged is there, before RocksDB recovers, drops and deletes.
 *
 * Gaps in the log are found in the log itself (wal.h). Its end cannot show what is missing behind
 * it, so the file "durable" in the data directory holds the number of the last change that was
 * durable. It is written after each commit and never fsynced: that would double the cost of a
 * commit. So it survives whatever ends the process, and after a power cut it may lag (the kernel
 * writes it within half a minute), which makes the check weaker, never wrong: the number was
 * durable when it was written.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "broker/store/rocksdb.h"

static void mark_path(const struct disk *disk, char *ret_path)
{
    snprintf(ret_path, DISK_PATH_BYTES, "%.4000s/durable", disk->data_dir);
}

/* The number, and its complement: a mark that was cut off is none. */
struct mark {
    uint64_t number, complement;
};

/* 0: none. */
static uint64_t read_mark(const struct disk *disk)
{
    char path[DISK_PATH_BYTES];
    mark_path(disk, path);
    struct mark mark = {0};
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    const ssize_t bytes = pread(fd, &mark, sizeof(mark), 0);
    close(fd);
    return bytes == sizeof(mark) && mark.number == ~mark.complement ? le64toh(mark.number) : 0;
}

void disk_mark(struct disk *disk)
{
    const uint64_t number = htole64(rocksdb_get_latest_sequence_number(disk->db));
    const struct mark mark = {.number = number, .complement = ~number};
    if (disk->mark_fd >= 0 && pwrite(disk->mark_fd, &mark, sizeof(mark), 0) < 0) {
        /* It still holds an earlier number. */
    }
}

void disk_begin_mark(struct disk *disk)
{
    char path[DISK_PATH_BYTES];
    if (disk->mark_fd >= 0) {
        return;
    }
    mark_path(disk, path);
    disk->mark_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    disk_mark(disk);
}

void disk_forget_mark(struct disk *disk)
{
    char path[DISK_PATH_BYTES];
    mark_path(disk, path);
    unlink(path);
}

/* What RocksDB would recover: the oldest log that it still needs, and the last change. */
static int look_inside(struct disk *disk, uint64_t *ret_log, uint64_t *ret_last, char *ret_why)
{
    *ret_log = *ret_last = 0;
    const int r = disk_open_reading(disk, ret_why);
    if (r == 0) {
        *ret_last = rocksdb_get_latest_sequence_number(disk->db);
        if (rocksdb_property_int(disk->db, "rocksdb.min-log-number-to-keep", ret_log) != 0) {
            *ret_log = 0;
        }
    }
    disk_close_database(disk);
    return r == -ENOENT ? 0 : r; /* no database: nothing is in it */
}

static int say_missing(const struct disk *disk, const struct disk_whole *whole, char *ret_why)
{
    char what[STORE_WHY_BYTES];
    snprintf(what, sizeof(what), "at least %llu acknowledged changes are missing (%s)",
             (unsigned long long)whole->missing, whole->place);
    return disk_say(ret_why, disk, -EBADMSG, what);
}

/*
 * A second look, at what RocksDB needs: logs whose changes are all in tables may have gone, in any
 * order, and the last change may be in a table. Errors: that RocksDB cannot look, for another
 * reason than the log.
 */
static int look_again(struct disk *disk, uint64_t mark, struct wal_report *log,
                      struct disk_whole *whole, char *ret_why)
{
    uint64_t last;
    const int inside = look_inside(disk, &whole->log_oldest, &last, ret_why);
    const int r = wal_check(disk->path, whole->log_oldest, log);
    if (r < 0) {
        return disk_say(ret_why, disk, r, strerrordesc_np(-r));
    }
    last = last > log->last ? last : log->last;
    whole->missing = log->missing + (last < mark ? mark - last : 0);
    return inside == -EBADMSG && log->missing > 0 ? 0 : inside;
}

int disk_check_whole(struct disk *disk, struct disk_whole *ret_whole, char *ret_why)
{
    struct wal_report log;
    const uint64_t mark = read_mark(disk);
    *ret_whole = (struct disk_whole){0};
    int r = wal_check(disk->path, 0, &log);
    if (r < 0) {
        return disk_say(ret_why, disk, r, strerrordesc_np(-r));
    }
    if (log.missing > 0 || log.last < mark) {
        r = look_again(disk, mark, &log, ret_whole, ret_why);
    }
    snprintf(ret_whole->place, sizeof(ret_whole->place), "%s",
             log.place[0] == '\0' ? "the log ends too early" : log.place);
    return r < 0 || ret_whole->missing == 0 ? r : say_missing(disk, ret_whole, ret_why);
}
