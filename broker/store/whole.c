/*
 * whole: whether all that was acknowledged is there, before RocksDB recovers, drops and deletes.
 *
 * Gaps in the log are found in the log itself (wal.h). What it cannot show is in the file "durable"
 * in the data directory:
 *
 * - which log was the first of the last opening. Opening puts all that earlier logs hold into
 * tables, so they count no more, whether they are deleted yet or not: the torn end of one, from a
 * write that failed, is followed by the next, and would look like a gap. Synced with each opening.
 * - the number of the last change that was durable, since a log that ends too early looks whole.
 * Written after each commit and never synced: that would double the cost of a commit. So it
 * survives whatever ends the process, and after a power cut it may lag (the kernel writes it within
 * half a minute), which makes the check weaker, never wrong: the number was durable when it was
 * written.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "broker/store/rocksdb.h"

static void mark_path(const struct disk *disk, const char *ending, char *ret_path)
{
    snprintf(ret_path, DISK_PATH_BYTES, "%.4000s/durable%s", disk->data_dir, ending);
}

/* A number and its complement: one that was cut off is none. */
struct mark_number {
    uint64_t number, complement;
};
/* The file. */
struct mark {
    struct mark_number log_oldest;
    struct mark_number last;
};

static struct mark_number write_number(uint64_t number)
{
    return (struct mark_number){.number = htole64(number), .complement = htole64(~number)};
}

/* 0: none. */
static uint64_t read_number(const struct mark_number *number)
{
    return number->number == ~number->complement ? le64toh(number->number) : 0;
}

static void read_mark(const struct disk *disk, uint64_t *ret_log_oldest, uint64_t *ret_last)
{
    char path[DISK_PATH_BYTES];
    struct mark mark = {0};
    mark_path(disk, "", path);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        /* What is not there stays 0, and that is no number and its complement. */
        if (pread(fd, &mark, sizeof(mark), 0) < 0) {
            mark = (struct mark){0};
        }
        close(fd);
    }
    *ret_log_oldest = read_number(&mark.log_oldest);
    *ret_last = read_number(&mark.last);
}

void disk_mark(struct disk *disk)
{
    const struct mark_number last = write_number(rocksdb_get_latest_sequence_number(disk->db));
    if (pwrite(disk->mark_fd, &last, sizeof(last), offsetof(struct mark, last)) < 0) {
        /* It still holds an earlier number. */
    }
}

/* Written aside: what the old one says holds until the new one is there. */
static int replace_mark(struct disk *disk, uint64_t log_oldest)
{
    char path[DISK_PATH_BYTES], path_new[DISK_PATH_BYTES];
    const struct mark_number oldest = write_number(log_oldest);
    mark_path(disk, "", path);
    mark_path(disk, ".new", path_new);
    if (disk->mark_fd >= 0) {
        close(disk->mark_fd);
    }
    disk->mark_fd = open(path_new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (disk->mark_fd < 0 || pwrite(disk->mark_fd, &oldest, sizeof(oldest), 0) < 0 ||
        fdatasync(disk->mark_fd) < 0) {
        return -errno;
    }
    disk_mark(disk);
    return rename(path_new, path) < 0 ? -errno : disk_sync_directory(disk->data_dir);
}

int disk_begin_mark(struct disk *disk, char *ret_why)
{
    uint64_t log_newest;
    int r = wal_newest(disk->path, &log_newest);
    r = r < 0 ? r : replace_mark(disk, log_newest);
    return r < 0 ? disk_say(ret_why, disk, r, strerrordesc_np(-r)) : 0;
}

void disk_forget_mark(struct disk *disk)
{
    char path[DISK_PATH_BYTES];
    mark_path(disk, "", path);
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
    if (whole->missing > 0) {
        snprintf(what, sizeof(what), "at least %" PRIu64 " acknowledged changes are missing (%s)",
                 whole->missing, whole->place);
    } else {
        snprintf(what, sizeof(what), "RocksDB would drop %" PRIu64 " acknowledged changes (%s)",
                 whole->dropped, whole->place);
    }
    return disk_say(ret_why, disk, -EBADMSG, what);
}

static uint64_t how_much_less(uint64_t is, uint64_t should_be)
{
    return is < should_be ? should_be - is : 0;
}

/*
 * A second look, at what RocksDB would make of it: logs whose changes are all in tables may have
 * gone, in any order, and the last change may be in a table. Errors: that RocksDB cannot look, for
 * another reason than the log.
 */
static int look_again(struct disk *disk, uint64_t mark, struct disk_whole *whole, char *ret_why)
{
    uint64_t log_oldest, recovered;
    struct wal_report log;
    const int inside = look_inside(disk, &log_oldest, &recovered, ret_why);
    whole->log_oldest = log_oldest > whole->log_oldest ? log_oldest : whole->log_oldest;
    const int r = wal_check(disk->path, whole->log_oldest, &log);
    if (r < 0) {
        return disk_say(ret_why, disk, r, strerrordesc_np(-r));
    }
    const uint64_t last = recovered > log.last ? recovered : log.last;
    whole->missing = log.missing + how_much_less(last, mark);
    whole->dropped = how_much_less(recovered, last);
    if (log.place[0] != '\0') {
        snprintf(whole->place, sizeof(whole->place), "%s", log.place);
    }
    return inside == -EBADMSG && log.missing > 0 ? 0 : inside;
}

int disk_check_whole(struct disk *disk, struct disk_whole *ret_whole, char *ret_why)
{
    struct wal_report log;
    uint64_t mark;
    *ret_whole = (struct disk_whole){0};
    read_mark(disk, &ret_whole->log_oldest, &mark);
    int r = wal_check(disk->path, 0, &log);
    if (r < 0) {
        return disk_say(ret_why, disk, r, strerrordesc_np(-r));
    }
    const bool is_whole = log.place[0] == '\0' && log.last >= mark;
    snprintf(ret_whole->place, sizeof(ret_whole->place), "%s",
             log.place[0] == '\0' ? "the log ends too early" : log.place);
    if (!is_whole) {
        r = look_again(disk, mark, ret_whole, ret_why);
    }
    if (r < 0 || (ret_whole->missing == 0 && ret_whole->dropped == 0)) {
        return r;
    }
    return say_missing(disk, ret_whole, ret_why);
}
