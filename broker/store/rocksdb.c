/*
 * rocksdb: the disk, by RocksDB's C interface (7.8). A column family for each family of records,
 * and the default one for the format version alone.
 *
 * Queue traffic is put and deleted soon after: most of it meets its deletion in the write buffer
 * and never reaches a table file, only the log. Buffers are small, because larger ones were
 * measured slower and cost their size in memory. The directory is locked by flock() on itself, for
 * as long as the store lives: RocksDB's own lock is let go at each reopening.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "broker/store/rocksdb.h"
#include "common/blob.h"
#include "common/config.h"

enum {
    FORMAT_VERSION = 1,
    BLOOM_BITS = 10,              /* a key, for one false positive in a hundred */
    MERGE_READ_BYTES = 128 << 10, /* at once, of each table that is merged; else block by block */
    SCANNED_TABLES_MERGED = 16,   /* instead of RocksDB's 4 */
    OPEN_FILES_MAX = 256,
    /*
     * One above the highest level. RocksDB writes to its log again after a write to it failed,
     * which an assertion forbids; Debian's library is built with assertions, so a full disk would
     * end the process.
     */
    INFO_LOG_NOTHING = 6,
    ARENA_BLOCK_BYTES = 256 << 10,    /* the least that a used family takes of memory */
    KEPT_WRITE_BATCH_BYTES = 4 << 20, /* a larger write batch is freed after use */
    /* To the next key that is asked for: a search for it costs several steps. */
    WALK_STEPS_MAX = 8,
    WALK_LOADS_MIN = 8,         /* fewer are not worth an iterator */
    WALKS_SKIPPED = 15,         /* after a walk that answered few: keys are scattered for now */
    WALK_READ_BYTES = 64 << 10, /* at once: a block holds three payloads of 1 KiB */
    WALK_DELETED_MAX = 256,     /* keys on the way, before the rest is searched for */
};

static const char format_key[] = "format";
const char *const disk_family_names[DISK_FAMILIES] = {
    [STORE_JOBS] = "jobs",         [STORE_PAYLOADS] = "payloads",   [STORE_LEASES] = "leases",
    [STORE_ATTEMPTS] = "attempts", [STORE_CONCLUDED] = "concluded", [STORE_RESULTS] = "results",
    [STORE_META] = "meta",         [STORE_FAMILIES] = "default",
};

/* --------------------------------------------------------------------------------------- errors */

/* The errno that RocksDB's words tell of. */
static int errno_of_text(const char *text)
{
    static const int known[] = {ENOSPC, EDQUOT, EROFS,  EACCES,  EPERM,  EFBIG,
                                EMFILE, ENFILE, ENOMEM, ENOTDIR, ENOENT, EIO};
    if (strstr(text, "LOCK") != NULL || strstr(text, "lock hold") != NULL) {
        return -EBUSY;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(known); i++) {
        if (strstr(text, strerrordesc_np(known[i])) != NULL) {
            return -known[i];
        }
    }
    return strncmp(text, "Corruption", 10) == 0 || strncmp(text, "Invalid argument", 16) == 0
               ? -EBADMSG
               : -EIO;
}

static const char *remedy(int error)
{
    switch (-error) {
    case EBUSY:
        return "another broker uses it: stop that one, or set broker.data_dir to another directory";
    case EACCES:
    case EPERM:
    case EROFS:
        return "give the broker's user the right to write there, or set broker.data_dir to another "
               "directory";
    case ENOENT:
        return "create the directory above it, or set broker.data_dir to another path";
    case ENOTDIR:
        return "set broker.data_dir to a directory";
    case ENOSPC:
    case EDQUOT:
        return "free space there, or set broker.data_dir to another disk";
    case EMFILE:
    case ENFILE:
        return "raise the limit of open files";
    case EBADMSG:
        return "it is damaged, or of a later version of tiermq: restore a copy, or start once with "
               "--salvage to keep what can be read";
    default:
        return "see the system's log for the disk's state";
    }
}

int disk_say(char *ret_why, const struct disk *disk, int error, const char *what)
{
    snprintf(ret_why, STORE_WHY_BYTES, "data directory %.100s: %.250s; %s", disk->data_dir, what,
             remedy(error));
    return error;
}

/* RocksDB names files by long paths: what they all begin with is said already. */
static void shorten(char *text, const char *directory)
{
    const size_t length = strlen(directory);
    for (char *found = text; (found = strstr(found, directory)) != NULL;) {
        const size_t cut = length + (found[length] == '/');
        memmove(found, found + cut, strlen(found + cut) + 1);
    }
}

int disk_take_error(const struct disk *disk, char **error, char *ret_why)
{
    if (*error == NULL) {
        return 0;
    }
    char *text = TAKE(*error);
    int r = errno_of_text(text);
    shorten(text, disk->path);
    disk_say(ret_why, disk, r, text);
    rocksdb_free(text);
    return r;
}

/* ------------------------------------------------------------------------------------ directory */

int disk_sync_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return errno == EACCES ? 0 : -errno; /* may be searched, not read: somebody else's */
    }
    int r = fsync(fd) < 0 && errno != EINVAL ? -errno : 0; /* EINVAL: a kind that cannot */
    close(fd);
    return r;
}

/*
 * Like `mkdir -p`; what it makes may be read by the broker's user alone, since prompts are private.
 * The last one's name is made durable even if it was there: an earlier start may have been cut off
 * between the two.
 */
static int make_directories(const char *path)
{
    char partial[DISK_PATH_BYTES];
    char parent[DISK_PATH_BYTES] = ".";
    size_t length = strlen(path);
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0') {
            continue;
        }
        memcpy(partial, path, i);
        partial[i] = '\0';
        bool is_made = mkdir(partial, 0700) == 0;
        if (!is_made && errno != EEXIST) {
            return -errno;
        }
        int r = is_made || i == length ? disk_sync_directory(parent) : 0;
        if (r < 0) {
            return r;
        }
        memcpy(parent, partial, i + 1);
    }
    return 0;
}

static int lock_directory(struct disk *disk)
{
    disk->lock_fd = open(disk->data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (disk->lock_fd < 0) {
        return -errno;
    }
    if (flock(disk->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        return errno == EWOULDBLOCK ? -EBUSY : -errno;
    }
    return access(disk->data_dir, W_OK | X_OK) < 0 ? -errno : 0;
}

/* Directory, lock, and what only this process may then do in it. */
static int claim_directory(struct disk *disk, const char *data_dir, char *ret_why)
{
    snprintf(disk->data_dir, sizeof(disk->data_dir), "%s", data_dir);
    int length = snprintf(disk->path, sizeof(disk->path), "%s/rocksdb", data_dir);
    int r = length >= (int)sizeof(disk->path) ? -ENAMETOOLONG : make_directories(disk->data_dir);
    r = r < 0 ? r : lock_directory(disk);
    return r < 0 ? disk_say(ret_why, disk, r, strerrordesc_np(-r)) : 0;
}

/* -------------------------------------------------------------------------------------- opening */

static bool is_loaded(size_t family)
{
    return family == STORE_PAYLOADS || family == STORE_ATTEMPTS || family == STORE_RESULTS;
}

static void set_table_options(const struct disk *disk, rocksdb_options_t *options, bool has_filters)
{
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    if (has_filters) {
        rocksdb_block_based_options_set_filter_policy(
            table, rocksdb_filterpolicy_create_bloom_full(BLOOM_BITS));
    }
    rocksdb_block_based_options_set_block_cache(table, disk->cache);
    /* Indexes and filters live in the cache too, so its size bounds all reading memory. */
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1);
    rocksdb_options_set_block_based_table_factory(options, table);
    rocksdb_block_based_options_destroy(table);
}

/*
 * Of families that are read at start alone. Nothing searches them: they need no filters, and many
 * new tables may lie side by side before they are merged. That rewrites all that waits, since a new
 * table reaches from deletions of the oldest jobs to records of the newest.
 */
static rocksdb_options_t *scanned_options(const struct disk *disk)
{
    rocksdb_options_t *options = rocksdb_options_create_copy(disk->options);
    rocksdb_options_set_level0_file_num_compaction_trigger(options, SCANNED_TABLES_MERGED);
    rocksdb_options_set_level0_slowdown_writes_trigger(options, 2 * SCANNED_TABLES_MERGED);
    rocksdb_options_set_level0_stop_writes_trigger(options, 3 * SCANNED_TABLES_MERGED);
    set_table_options(disk, options, false);
    return options;
}

static void set_options(struct disk *disk, const struct config_broker *config)
{
    size_t buffer = config->rocksdb_write_buffer_bytes;
    rocksdb_options_t *options = disk->options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_create_missing_column_families(options, 1);

    rocksdb_options_set_write_buffer_size(options, buffer);
    rocksdb_options_set_max_write_buffer_number(options, 4);
    rocksdb_options_set_db_write_buffer_size(options, 2 * buffer); /* of all families together */
    rocksdb_options_set_arena_block_size(options, ARENA_BLOCK_BYTES);
    /* Seldom written families would keep old logs, and make a restart read them. */
    rocksdb_options_set_max_total_wal_size(options, 6 * buffer);

    rocksdb_options_set_compression(options, rocksdb_no_compression);
    rocksdb_options_set_target_file_size_base(options, 2 * buffer);
    rocksdb_options_set_max_bytes_for_level_base(options, 8 * buffer);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1);
    rocksdb_options_set_max_background_jobs(options, 2);
    rocksdb_options_compaction_readahead_size(options, MERGE_READ_BYTES);
    /*
     * Table files go to the disk as they grow: otherwise the log's fsync waits for all of them at
     * once.
     */
    rocksdb_options_set_bytes_per_sync(options, 1 << 20);

    rocksdb_options_set_max_open_files(options, OPEN_FILES_MAX);
    rocksdb_options_set_info_log_level(options, INFO_LOG_NOTHING);
    rocksdb_options_set_keep_log_file_num(options, 1);
    rocksdb_options_set_stats_dump_period_sec(options, 0);

    disk->cache = rocksdb_cache_create_lru(config->rocksdb_block_cache_bytes);
    set_table_options(disk, options, true);
    disk->scanned_options = scanned_options(disk);
    disk->synced = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(disk->synced, 1);
    disk->reading = rocksdb_readoptions_create();
    disk->walking = rocksdb_readoptions_create();
    rocksdb_readoptions_set_max_skippable_internal_keys(disk->walking, WALK_DELETED_MAX);
    rocksdb_readoptions_set_readahead_size(disk->walking, WALK_READ_BYTES);
    disk->scanning = rocksdb_readoptions_create();
    rocksdb_readoptions_set_fill_cache(disk->scanning, 0);
    disk->write_batch = rocksdb_writebatch_create();
}

void disk_close_database(struct disk *disk)
{
    for (size_t i = 0; i < DISK_FAMILIES; i++) {
        if (disk->families[i] != NULL) {
            rocksdb_column_family_handle_destroy(TAKE(disk->families[i]));
        }
    }
    if (disk->db != NULL) {
        rocksdb_close(TAKE(disk->db));
    }
}

static void list_options(const struct disk *disk, const rocksdb_options_t **ret_options)
{
    for (size_t i = 0; i < DISK_FAMILIES; i++) {
        ret_options[i] = is_loaded(i) ? disk->options : disk->scanned_options;
    }
}

int disk_open_database(struct disk *disk, char *ret_why)
{
    const rocksdb_options_t *options[DISK_FAMILIES];
    list_options(disk, options);
    char *error = NULL;
    disk->db = rocksdb_open_column_families(disk->options, disk->path, DISK_FAMILIES,
                                            disk_family_names, options, disk->families, &error);
    return disk_take_error(disk, &error, ret_why);
}

int disk_open_reading(struct disk *disk, char *ret_why)
{
    const rocksdb_options_t *options[DISK_FAMILIES];
    list_options(disk, options);
    char *error = NULL;
    disk->db = rocksdb_open_for_read_only_column_families(disk->options, disk->path, DISK_FAMILIES,
                                                          disk_family_names, options,
                                                          disk->families, 0, &error);
    return disk_take_error(disk, &error, ret_why);
}

static int write_format(struct disk *disk, char *ret_why)
{
    const char version = FORMAT_VERSION;
    char *error = NULL;
    rocksdb_put_cf(disk->db, disk->synced, disk->families[STORE_FAMILIES], format_key,
                   sizeof(format_key) - 1, &version, sizeof(version), &error);
    return disk_take_error(disk, &error, ret_why);
}

/* A new database gets the version of this program; an older one would be migrated here. */
static int check_format(struct disk *disk, char *ret_why)
{
    char *error = NULL;
    size_t bytes = 0;
    char *version = rocksdb_get_cf(disk->db, disk->reading, disk->families[STORE_FAMILIES],
                                   format_key, sizeof(format_key) - 1, &bytes, &error);
    int r = disk_take_error(disk, &error, ret_why);
    if (r < 0) {
        return r;
    }
    if (version == NULL) {
        return write_format(disk, ret_why);
    }
    unsigned found = bytes == 1 ? (unsigned char)version[0] : 0;
    rocksdb_free(version);
    if (found == FORMAT_VERSION) {
        return 0;
    }
    snprintf(ret_why, STORE_WHY_BYTES,
             "data directory %.80s: its format is version %u, this program knows version %d; use "
             "the version of tiermq "
             "that wrote it, or set broker.data_dir to an empty directory",
             disk->data_dir, found, FORMAT_VERSION);
    return -EBADMSG;
}

/* RocksDB syncs what is in its directory, never the directory's own name. */
static int sync_name(struct disk *disk, char *ret_why)
{
    int r = disk_sync_directory(disk->data_dir);
    return r < 0 ? disk_say(ret_why, disk, r, strerrordesc_np(-r)) : 0;
}

int disk_reopen(struct disk *disk, char *ret_why)
{
    struct disk_whole whole;
    disk_close_database(disk);
    if (disk->is_damaged) {
        /* Merging meets the damage again and again, and ends all writing each time. */
        rocksdb_options_set_disable_auto_compactions(disk->options, 1);
        rocksdb_options_set_disable_auto_compactions(disk->scanned_options, 1);
    }
    int r = disk_check_whole(disk, &whole, ret_why);
    if (r == 0) {
        r = disk_open_database(disk, ret_why);
    }
    if (r == 0) {
        r = sync_name(disk, ret_why);
    }
    if (r == 0) {
        r = check_format(disk, ret_why);
    }
    if (r == 0) {
        r = disk_begin_mark(disk, ret_why);
    }
    if (r < 0) {
        disk_close_database(disk);
    }
    return r;
}

int disk_prepare(const struct config_broker *config, struct disk **ret_disk, char *ret_why)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    if (disk == NULL) {
        snprintf(ret_why, STORE_WHY_BYTES, "no memory for the store");
        return -ENOMEM;
    }
    disk->lock_fd = disk->mark_fd = -1;
    set_options(disk, config);
    *ret_disk = disk;
    return 0;
}

int disk_claim(const struct config_broker *config, struct disk **ret_disk, char *ret_why)
{
    CLEANUP(disk_close) struct disk *disk = NULL;
    int r = disk_prepare(config, &disk, ret_why);
    if (r == 0) {
        r = claim_directory(disk, config->data_dir, ret_why);
    }
    if (r < 0) {
        return r;
    }
    *ret_disk = TAKE(disk);
    return 0;
}

int disk_open(const struct config_broker *config, struct disk **ret_disk, char *ret_why)
{
    CLEANUP(disk_close) struct disk *disk = NULL;
    int r = disk_claim(config, &disk, ret_why);
    if (r == 0) {
        r = disk_reopen(disk, ret_why);
    }
    if (r < 0) {
        return r;
    }
    *ret_disk = TAKE(disk);
    return 0;
}

void disk_close(struct disk **disk)
{
    if (*disk == NULL) {
        return;
    }
    struct disk *closed = TAKE(*disk);
    disk_close_database(closed);
    if (closed->options != NULL) {
        rocksdb_writebatch_destroy(closed->write_batch);
        rocksdb_readoptions_destroy(closed->scanning);
        rocksdb_readoptions_destroy(closed->walking);
        rocksdb_readoptions_destroy(closed->reading);
        rocksdb_writeoptions_destroy(closed->synced);
        rocksdb_options_destroy(closed->scanned_options);
        rocksdb_options_destroy(closed->options);
        rocksdb_cache_destroy(closed->cache);
    }
    if (closed->mark_fd >= 0) {
        close(closed->mark_fd);
    }
    if (closed->lock_fd >= 0) {
        close(closed->lock_fd);
    }
    free(closed);
}

/* -------------------------------------------------------------------------------------- writing */

static void add_put(struct disk *disk, const struct store_batch *batch, const struct change *change)
{
    const char *key = (const char *)change_key(batch, change);
    const char *values[] = {(const char *)change_tail(batch, change),
                            change->blob == NULL ? NULL : blob_data(change->blob)};
    size_t sizes[] = {change->tail_bytes, change->blob == NULL ? 0 : blob_bytes(change->blob)};
    rocksdb_column_family_handle_t *family = disk->families[change->family];
    if (sizes[0] > 0 && sizes[1] > 0) {
        size_t key_bytes = change->key_bytes;
        rocksdb_writebatch_putv_cf(disk->write_batch, family, 1, &key, &key_bytes, 2, values,
                                   sizes);
    } else {
        size_t only = sizes[1] > 0;
        rocksdb_writebatch_put_cf(disk->write_batch, family, key, change->key_bytes, values[only],
                                  sizes[only]);
    }
}

static void add_change(struct disk *disk, const struct store_batch *batch,
                       const struct change *change)
{
    const char *key = (const char *)change_key(batch, change);
    rocksdb_column_family_handle_t *family = disk->families[change->family];
    switch ((enum change_kind)change->kind) {
    case CHANGE_PUT:
        add_put(disk, batch, change);
        return;
    case CHANGE_DELETE:
        rocksdb_writebatch_delete_cf(disk->write_batch, family, key, change->key_bytes);
        return;
    case CHANGE_DELETE_RANGE:
        rocksdb_writebatch_delete_range_cf(disk->write_batch, family, key, change->key_bytes,
                                           (const char *)change_tail(batch, change),
                                           change->tail_bytes);
        disk_note_gone(disk, change->family, change_tail(batch, change), change->tail_bytes);
        return;
    }
}

int disk_write(struct disk *disk, const struct batch_list *batches, char *ret_why)
{
    for (const struct store_batch *batch = batches->first; batch != NULL; batch = batch->next) {
        for (size_t i = 0; i < batch->changes_length; i++) {
            add_change(disk, batch, &batch->changes[i]);
        }
    }
    char *error = NULL;
    rocksdb_write(disk->db, disk->synced, disk->write_batch, &error);
    if (batches->value_bytes <= KEPT_WRITE_BATCH_BYTES) {
        rocksdb_writebatch_clear(disk->write_batch);
    } else {
        rocksdb_writebatch_destroy(disk->write_batch);
        disk->write_batch = rocksdb_writebatch_create();
    }
    int r = disk_take_error(disk, &error, ret_why);
    disk->is_damaged |= r == -EBADMSG;
    if (r == 0) {
        disk_mark(disk);
    }
    return r;
}

/* -------------------------------------------------------------------------------------- reading */

/* The order that RocksDB keeps. */
static int compare_keys(const void *left, size_t left_bytes, const void *right, size_t right_bytes)
{
    const int order = memcmp(left, right, left_bytes < right_bytes ? left_bytes : right_bytes);
    return order != 0 ? order : (left_bytes > right_bytes) - (left_bytes < right_bytes);
}

static int compare_loads(const void *left, const void *right)
{
    const struct disk_load *const *loads[] = {left, right};
    return compare_keys((*loads[0])->key, (*loads[0])->key_bytes, (*loads[1])->key,
                        (*loads[1])->key_bytes);
}

/* A copy: the slice would keep the whole block that it lies in. */
static void answer_load(const struct disk *disk, struct disk_load *load,
                        rocksdb_pinnableslice_t *slice, char *error, char *ret_why)
{
    load->result = disk_take_error(disk, &error, ret_why);
    if (load->result < 0) {
        return;
    }
    if (slice == NULL) {
        load->result = -ENOENT;
        return;
    }
    size_t bytes;
    const char *value = rocksdb_pinnableslice_value(slice, &bytes);
    load->result = blob_create(value, bytes, &load->value);
    rocksdb_pinnableslice_destroy(slice);
}

/* A copy: what the iterator stands on goes with its next step. */
static void answer_found(struct disk_load *load, const rocksdb_iterator_t *at)
{
    size_t bytes;
    const char *value = rocksdb_iter_value(at, &bytes);
    load->result = blob_create(value, bytes, &load->value);
}

/*
 * Steps on to the load's key. Returns whether the load is answered: found, or not there. Otherwise
 * the key is far, or the iterator met damage or too many deleted keys.
 */
static bool walk_to(rocksdb_iterator_t *at, struct disk_load *load)
{
    for (int steps = 0; steps < WALK_STEPS_MAX && rocksdb_iter_valid(at); steps++) {
        size_t key_bytes;
        const char *key = rocksdb_iter_key(at, &key_bytes);
        const int order = compare_keys(key, key_bytes, load->key, load->key_bytes);
        if (order > 0) {
            load->result = -ENOENT;
            return true;
        }
        if (order == 0) {
            answer_found(load, at);
            return true;
        }
        rocksdb_iter_next(at);
    }
    return false;
}

/*
 * Jobs are dispatched in about the order in which they came, which is that of their keys: what is
 * asked for lies side by side, and the next key costs a step of an iterator instead of a search
 * through buffers and tables. Returns how many loads, from the first, were answered.
 */
static size_t load_neighbours(struct disk *disk, struct disk_load *const *loads, size_t length)
{
    if (length < WALK_LOADS_MIN || disk->walks_skipped > 0) {
        disk->walks_skipped -= disk->walks_skipped > 0;
        return 0;
    }
    rocksdb_iterator_t *at =
        rocksdb_create_iterator_cf(disk->db, disk->walking, disk->families[loads[0]->family]);
    rocksdb_iter_seek(at, (const char *)loads[0]->key, loads[0]->key_bytes);
    size_t answered = 0;
    while (answered < length && walk_to(at, loads[answered])) {
        answered++;
    }
    rocksdb_iter_destroy(at);
    if (answered < length / 2) {
        disk->walks_skipped = WALKS_SKIPPED;
    }
    return answered;
}

/* By search, all in one call: those that lie in one block find it with one look. */
static void load_scattered(struct disk *disk, struct disk_load *const *loads, size_t length,
                           char *ret_why)
{
    const char *keys[DISK_LOADS_MAX] = {NULL};
    size_t key_sizes[DISK_LOADS_MAX] = {0};
    rocksdb_pinnableslice_t *slices[DISK_LOADS_MAX] = {NULL};
    char *errors[DISK_LOADS_MAX] = {NULL};
    for (size_t i = 0; i < length; i++) {
        keys[i] = (const char *)loads[i]->key;
        key_sizes[i] = loads[i]->key_bytes;
    }
    rocksdb_batched_multi_get_cf(disk->db, disk->reading, disk->families[loads[0]->family], length,
                                 keys, key_sizes, slices, errors, true);
    for (size_t i = 0; i < length; i++) {
        answer_load(disk, loads[i], slices[i], errors[i], ret_why);
    }
}

/* Loads of one family. Returns the first load that is not answered. */
static struct disk_load *load_family(struct disk *disk, struct disk_load *first, size_t most,
                                     char *ret_why)
{
    struct disk_load *loads[DISK_LOADS_MAX];
    struct disk_load *load = first;
    size_t length = 0;
    for (; load != NULL && length < most && load->family == first->family; load = load->next) {
        loads[length++] = load;
    }
    // cppcheck-suppress uninitvar // the first `length` are set
    qsort(loads, length, sizeof(loads[0]), compare_loads);
    const size_t answered = load_neighbours(disk, loads, length);
    if (answered < length) {
        load_scattered(disk, loads + answered, length - answered, ret_why);
    }
    return load;
}

void disk_load(struct disk *disk, struct disk_load *loads, char *ret_why)
{
    size_t left = DISK_LOADS_MAX;
    while (loads != NULL && left > 0) {
        struct disk_load *rest = load_family(disk, loads, left, ret_why);
        for (; loads != rest; loads = loads->next) {
            left--;
        }
    }
}

int disk_scan(struct disk *disk, enum store_family family, store_visit_fn *visit, void *context,
              char *ret_why)
{
    rocksdb_iterator_t *at =
        rocksdb_create_iterator_cf(disk->db, disk->scanning, disk->families[family]);
    int r = 0;
    for (rocksdb_iter_seek_to_first(at); r == 0 && rocksdb_iter_valid(at); rocksdb_iter_next(at)) {
        size_t key_bytes, value_bytes;
        const char *key = rocksdb_iter_key(at, &key_bytes);
        const char *value = rocksdb_iter_value(at, &value_bytes);
        r = visit(context, key, key_bytes, value, value_bytes);
    }
    char *error = NULL;
    rocksdb_iter_get_error(at, &error);
    rocksdb_iter_destroy(at);
    int error_read = disk_take_error(disk, &error, ret_why);
    return error_read < 0 ? error_read : r;
}

static uint64_t sum_property(struct disk *disk, const char *property)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < DISK_FAMILIES; i++) {
        uint64_t value = 0;
        if (rocksdb_property_int_cf(disk->db, disk->families[i], property, &value) == 0) {
            sum += value;
        }
    }
    return sum;
}

void disk_measure(struct disk *disk, struct store_stats *stats)
{
    uint64_t buffers = sum_property(disk, "rocksdb.size-all-mem-tables");
    stats->disk_bytes = sum_property(disk, "rocksdb.total-sst-files-size") +
                        buffers; /* the log holds what they do */
    stats->memory_bytes = buffers + rocksdb_cache_get_usage(disk->cache);
}
