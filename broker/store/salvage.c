/*
 * salvage: a new database with everything that can be read of a damaged one, which is put aside
 * whole.
 *
 * RocksDB's own repair drops a table for one bad block, and its recovery drops what follows one bad
 * record. Here the log is replayed past what is damaged in it, and the tables are read key by key:
 * where reading fails, the smallest key behind the damage is searched by bisection. Records may be
 * left without others that were written with them; the broker copes with that (a job without its
 * payload becomes a dead letter, a job whose deletion is lost runs again).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "broker/store/rocksdb.h"
#include "common/config.h"

enum {
    RECOVER_ALL = 3,      /* wal_recovery_mode: skip what is damaged */
    COPY_BYTES = 4 << 20, /* written at once */
    ASIDE_MAX = 100,
    KEY_BITS = 8 * STORE_KEY_BYTES_MAX,
};

struct copy {
    struct disk *from, *to;
    rocksdb_writeoptions_t *unlogged;
    rocksdb_writebatch_t *batch;
    size_t batch_bytes;
    struct disk_whole whole; /* of the damaged one */
    struct store_salvage *report;
};

/* ---- over the damage ---- */

/* A key as a number of KEY_BITS, the first byte the highest. */
struct number {
    uint8_t bytes[STORE_KEY_BYTES_MAX];
};

static struct number number_of(const void *key, size_t key_bytes)
{
    struct number number = {0};
    memcpy(number.bytes, key, key_bytes < sizeof(number.bytes) ? key_bytes : sizeof(number.bytes));
    return number;
}

/* Adds 1 << bit; false when that is more than any key. */
static bool add_bit(struct number *number, int bit)
{
    int at = STORE_KEY_BYTES_MAX - 1 - bit / 8;
    unsigned carry = 1U << bit % 8;
    for (; at >= 0 && carry > 0; at--) {
        carry += number->bytes[at];
        number->bytes[at] = (uint8_t)carry;
        carry >>= 8;
    }
    return carry == 0;
}

static rocksdb_iterator_t *open_iterator(const struct copy *copy, size_t family)
{
    return rocksdb_create_iterator_cf(copy->from->db, copy->from->scanning,
                                      copy->from->families[family]);
}

/*
 * Whether the table can be read there, if only to find that nothing follows. With an iterator of
 * its own: one that met damage remembers it in ways that later seeks depend on.
 */
static bool is_readable(const struct copy *copy, size_t family, const struct number *key)
{
    char *error = NULL;
    rocksdb_iterator_t *at = open_iterator(copy, family);
    rocksdb_iter_seek(at, (const char *)key->bytes, sizeof(key->bytes));
    rocksdb_iter_get_error(at, &error);
    rocksdb_iter_destroy(at);
    const bool is_damaged = error != NULL;
    rocksdb_free(error);
    return !is_damaged;
}

/*
 * Moves `from`, behind which nothing can be read, to the first key from where it can. False: there
 * is none. Two passes over the bits: up to the first power of two that leads out of the damage,
 * then down, adding what stays in it.
 */
static bool skip_damage(const struct copy *copy, size_t family, struct number *from)
{
    int bit = 0;
    for (;; bit++) {
        struct number further = *from;
        if (bit == KEY_BITS || !add_bit(&further, bit)) {
            return false;
        }
        if (is_readable(copy, family, &further)) {
            break;
        }
    }
    for (int lower = bit - 1; lower >= 0; lower--) {
        struct number further = *from;
        if (add_bit(&further, lower) && !is_readable(copy, family, &further)) {
            *from = further;
        }
    }
    return add_bit(from, 0);
}

/* ---- copying ---- */

static int write_copies(struct copy *copy, char *ret_why)
{
    char *error = NULL;
    rocksdb_write(copy->to->db, copy->unlogged, copy->batch, &error);
    rocksdb_writebatch_clear(copy->batch);
    copy->batch_bytes = 0;
    return disk_take_error(copy->to, &error, ret_why);
}

static int copy_record(struct copy *copy, size_t family, rocksdb_iterator_t *at, char *ret_why)
{
    size_t key_bytes, value_bytes;
    const char *key = rocksdb_iter_key(at, &key_bytes);
    const char *value = rocksdb_iter_value(at, &value_bytes);
    rocksdb_writebatch_put_cf(copy->batch, copy->to->families[family], key, key_bytes, value,
                              value_bytes);
    copy->batch_bytes += key_bytes + value_bytes;
    copy->report->records++;
    return copy->batch_bytes >= COPY_BYTES ? write_copies(copy, ret_why) : 0;
}

static void count_damage(struct copy *copy, size_t family, const char *why)
{
    copy->report->ranges++;
    if (copy->report->first_range[0] == '\0') {
        snprintf(copy->report->first_range, STORE_WHY_BYTES, "%s: %.400s",
                 disk_family_names[family], why);
    }
}

/*
 * Copies from the key on until the end or damage, of which it says what RocksDB does; *from is then
 * the last key that could be read.
 */
static int copy_range(struct copy *copy, size_t family, struct number *from, char *ret_damage,
                      char *ret_why)
{
    rocksdb_iterator_t *at = open_iterator(copy, family);
    char *error = NULL;
    int r = 0;
    rocksdb_iter_seek(at, (const char *)from->bytes, sizeof(from->bytes));
    for (; r == 0 && rocksdb_iter_valid(at); rocksdb_iter_next(at)) {
        size_t key_bytes;
        const char *key = rocksdb_iter_key(at, &key_bytes);
        *from = number_of(key, key_bytes);
        r = copy_record(copy, family, at, ret_why);
    }
    rocksdb_iter_get_error(at, &error);
    rocksdb_iter_destroy(at);
    if (disk_take_error(copy->from, &error, ret_damage) == 0) {
        ret_damage[0] = '\0';
    }
    return r;
}

static int copy_family(struct copy *copy, size_t family, char *ret_why)
{
    struct number from = {0};
    for (;;) {
        char damage[STORE_WHY_BYTES];
        const int r = copy_range(copy, family, &from, damage, ret_why);
        if (r < 0 || damage[0] == '\0') {
            return r;
        }
        count_damage(copy, family, damage);
        if (!skip_damage(copy, family, &from)) {
            return 0;
        }
    }
}

/* ---- the log behind its damage ---- */

static int apply_record(void *context, uint64_t first, const void *record, size_t bytes)
{
    (void)first;
    struct copy *copy = context;
    char why[STORE_WHY_BYTES];
    char *error = NULL;
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create_from(record, bytes);
    rocksdb_write(copy->to->db, copy->unlogged, batch, &error);
    rocksdb_writebatch_destroy(batch);
    copy->report->replayed++;
    return disk_take_error(copy->to, &error, why);
}

/*
 * RocksDB skips from damage to the end of the block of 32 KiB, and takes a length that is wrong for
 * the log's end. What is whole behind the first damage is written once more, in order: a change
 * twice is a change. The records name families by number, and these are the same: both databases
 * made them in the order of disk_family_names.
 */
static int apply_log(struct copy *copy, char *ret_why)
{
    struct wal_report log;
    const int r = wal_visit(copy->from->path, copy->whole.log_oldest, apply_record, copy, &log);
    return r < 0 ? disk_say(ret_why, copy->from, r, "its log cannot be applied") : 0;
}

static int flush_family(struct copy *copy, size_t family, char *ret_why)
{
    char *error = NULL;
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    rocksdb_flush_cf(copy->to->db, options, copy->to->families[family], &error);
    rocksdb_flushoptions_destroy(options);
    return disk_take_error(copy->to, &error, ret_why);
}

static int flush_all(struct copy *copy, char *ret_why)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < DISK_FAMILIES; i++) {
        r = flush_family(copy, i, ret_why);
    }
    return r;
}

static int copy_all(struct copy *copy, char *ret_why)
{
    int r = 0;
    copy->unlogged = rocksdb_writeoptions_create();
    copy->batch = rocksdb_writebatch_create();
    rocksdb_writeoptions_disable_WAL(copy->unlogged, 1);
    for (size_t i = 0; r == 0 && i < DISK_FAMILIES; i++) {
        r = copy_family(copy, i, ret_why);
    }
    r = r < 0 ? r : write_copies(copy, ret_why);
    r = r < 0 ? r : apply_log(copy, ret_why);
    r = r < 0 ? r : flush_all(copy, ret_why);
    rocksdb_writebatch_destroy(copy->batch);
    rocksdb_writeoptions_destroy(copy->unlogged);
    return r;
}

/* ---- the two databases ---- */

/* The damaged one opens as far as it can be made to. */
static int open_damaged(struct disk *disk, struct disk_whole *ret_whole, char *ret_why)
{
    const int r = disk_check_whole(disk, ret_whole, ret_why);
    if (r < 0 && r != -EBADMSG) {
        return r;
    }
    rocksdb_options_set_wal_recovery_mode(disk->options, RECOVER_ALL);
    return disk_open_reading(disk, ret_why);
}

static int open_new(struct disk *disk, char *ret_why)
{
    char *error = NULL;
    rocksdb_destroy_db(disk->options, disk->path, &error); /* of a salvage that was cut off */
    const int r = disk_take_error(disk, &error, ret_why);
    return r < 0 ? r : disk_open_database(disk, ret_why);
}

/* A name that is free: a second salvage must not replace the first one's original. */
static int choose_aside(const struct disk *disk, struct store_salvage *report)
{
    for (int i = 1; i <= ASIDE_MAX; i++) {
        snprintf(report->aside, sizeof(report->aside), "%.4000s/rocksdb.damaged-%d", disk->data_dir,
                 i);
        if (access(report->aside, F_OK) < 0 && errno == ENOENT) {
            return 0;
        }
    }
    return -EEXIST;
}

/* There is a database under the name at every instant. */
static int exchange(const struct disk *disk, const char *path_new, struct store_salvage *report)
{
    int r = choose_aside(disk, report);
    if (r == 0 && renameat2(AT_FDCWD, path_new, AT_FDCWD, disk->path, RENAME_EXCHANGE) < 0) {
        r = -errno;
    }
    if (r == 0 && rename(path_new, report->aside) < 0) {
        r = -errno;
    }
    return r < 0 ? r : disk_sync_directory(disk->data_dir);
}

static int salvage_into(struct disk *from, struct disk *to, struct store_salvage *report,
                        char *ret_why)
{
    struct copy copy = {.from = from, .to = to, .report = report};
    int r = open_damaged(from, &copy.whole, ret_why);
    report->changes = copy.whole.missing;
    if (copy.whole.missing > 0) {
        snprintf(report->first_change, sizeof(report->first_change), "%s", copy.whole.place);
    }
    if (r == 0) {
        r = open_new(to, ret_why);
    }
    if (r == 0) {
        r = copy_all(&copy, ret_why);
    }
    disk_close_database(from);
    disk_close_database(to);
    if (r < 0) {
        return r;
    }
    r = exchange(from, to->path, report);
    if (r < 0) {
        return disk_say(ret_why, from, r, strerrordesc_np(-r));
    }
    disk_forget_mark(from);
    return 0;
}

int store_salvage(const struct config_broker *config, struct store_salvage *ret_report,
                  char *ret_why)
{
    CLEANUP(disk_close) struct disk *from = NULL;
    CLEANUP(disk_close) struct disk *to = NULL;
    *ret_report = (struct store_salvage){0};
    int r = disk_claim(config, &from, ret_why);
    if (r < 0) {
        return r;
    }
    r = disk_prepare(config, &to, ret_why); /* under the lock of the other */
    if (r < 0) {
        return r;
    }
    snprintf(to->data_dir, sizeof(to->data_dir), "%s", from->data_dir);
    snprintf(to->path, sizeof(to->path), "%.4000s/rocksdb.new", from->data_dir);
    return salvage_into(from, to, ret_report, ret_why);
}
