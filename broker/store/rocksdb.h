/*
 * rocksdb: what the files about RocksDB share: the open database (rocksdb.c), its mark and whether
 * it is whole (whole.c), how to get out of it what can be read (salvage.c), and how its space is
 * given back (tidy.c). For those alone.
 */
#pragma once
#include <rocksdb/c.h>
#include <stdbool.h>
#include <stdint.h>
#include "broker/store/disk.h"
#include "broker/store/wal.h"

enum {
    DISK_FAMILIES = STORE_FAMILIES + 1, /* and the default one, the last */
    DISK_PATH_BYTES = 4096,
};
extern const char *const disk_family_names[DISK_FAMILIES];

/* Of a family: what tidy.c remembers. */
struct tidy {
    uint64_t keys_most; /* since it was last merged */
    bool is_flushing;   /* its deletions are on their way to tables, to be merged next */
    uint8_t gone_bytes; /* length of: all keys before this one were deleted; 0: none */
    uint8_t gone[STORE_KEY_BYTES_MAX];
};

struct disk {
    char data_dir[DISK_PATH_BYTES];
    char path[DISK_PATH_BYTES]; /* RocksDB's own directory, in it */
    int lock_fd;
    int mark_fd;                        /* -1: none */
    bool is_damaged;                    /* found while it ran: nothing is merged any more */
    rocksdb_options_t *options;         /* of the database, and of families that are loaded from */
    rocksdb_options_t *scanned_options; /* of those that are scanned at start alone */
    rocksdb_cache_t *cache;
    rocksdb_writeoptions_t *synced;
    rocksdb_readoptions_t *reading;
    rocksdb_readoptions_t *walking;
    rocksdb_readoptions_t *scanning;
    unsigned walks_skipped; /* how many more times the loads are not looked for side by side */
    rocksdb_writebatch_t *write_batch;
    struct tidy tidy[DISK_FAMILIES];
    rocksdb_t *db; /* NULL: closed after a failure */
    rocksdb_column_family_handle_t *families[DISK_FAMILIES];
};

/* ---- rocksdb.c ---- */

/* Options alone; no directory and no database yet. Gives: *ret_disk. Errors: -ENOMEM. */
MUST_USE int disk_prepare(const struct config_broker *config, struct disk **ret_disk,
                          char *ret_why);
/* And the directory, locked. Errors: as store_open(). */
MUST_USE int disk_claim(const struct config_broker *config, struct disk **ret_disk, char *ret_why);
/* Writes "data directory …: WHAT; REMEDY" into ret_why. Returns the error. */
int disk_say(char *ret_why, const struct disk *disk, int error, const char *what);
/* Takes RocksDB's text, if there is one, and says it. Returns 0 or the error that it tells of. */
MUST_USE int disk_take_error(const struct disk *disk, char **error, char *ret_why);
/* Opens the database in `path` without writing anything, and shows what it recovers. */
MUST_USE int disk_open_reading(struct disk *disk, char *ret_why);
/* Opens or makes the one in `path`. */
MUST_USE int disk_open_database(struct disk *disk, char *ret_why);
void disk_close_database(struct disk *disk);
/* Makes the names in a directory survive a power cut. */
MUST_USE int disk_sync_directory(const char *path);

/* ---- whole.c ---- */

/* What was acknowledged and is not there. */
struct disk_whole {
    uint64_t missing;    /* changes that are nowhere, at least */
    uint64_t dropped;    /* changes that are whole in the log, where RocksDB would drop them */
    uint64_t log_oldest; /* file number of the oldest log that counts */
    char place[WAL_PLACE_BYTES];
};
/*
 * Whether everything that was acknowledged is in the database that is not open yet. Errors:
 * -EBADMSG something is missing; others of reading.
 */
MUST_USE int disk_check_whole(struct disk *disk, struct disk_whole *ret_whole, char *ret_why);
/* Begins a new mark, at what the database holds now that it is open. Errors: of the disk. */
MUST_USE int disk_begin_mark(struct disk *disk, char *ret_why);
/* Everything up to now is durable, and will be acknowledged. */
void disk_mark(struct disk *disk);
void disk_forget_mark(struct disk *disk);

/* ---- tidy.c ---- */

/* A range up to this key was deleted. */
void disk_note_gone(struct disk *disk, enum store_family family, const void *to, size_t to_bytes);
