/*
 * disk: records on this machine's disk, by blocking calls. rocksdb.c is the one there is; tests of
 * the journal bring a faulty one.
 *
 * disk_load() may run beside disk_write(); all other calls stand alone.
 */
#pragma once
#include <stddef.h>
#include "broker/store/batch.h"
#include "broker/store/store.h"

struct disk;

/* Errors, `ret_why`: as store_open(). */
MUST_USE int disk_open(const struct config_broker *config, struct disk **ret_disk, char *ret_why);
void disk_close(struct disk **disk);

/*
 * Closes and opens again, after a write failed: nothing else clears the error. The lock on the
 * directory is kept. On failure the disk is closed and may be reopened later. Errors: as
 * store_open().
 */
MUST_USE int disk_reopen(struct disk *disk, char *ret_why);

/*
 * Writes all batches as one, with one fsync. On failure any part of them may be on disk. Errors:
 * -ENOSPC, -EIO …
 */
MUST_USE int disk_write(struct disk *disk, const struct batch_list *batches, char *ret_why);

enum { DISK_LOADS_MAX = 64 };
struct disk_load {
    struct disk_load *next;
    uint64_t token;
    uint64_t after;     /* the batch that it must see */
    int result;         /* 0, -ENOENT, -EIO … */
    struct blob *value; /* owned; set when result is 0 */
    uint8_t family, key_bytes;
    uint8_t key[STORE_KEY_BYTES_MAX];
};
/*
 * Answers up to DISK_LOADS_MAX of the chain's loads, in place. `ret_why`, empty before, tells of one that
 * failed, if any did.
 */
void disk_load(struct disk *disk, struct disk_load *loads, char *ret_why);

MUST_USE int disk_scan(struct disk *disk, enum store_family family, store_visit_fn *visit,
                       void *context, char *ret_why);

/*
 * Gives back the space of what was deleted, when that is worth it. Starts work in the background and does not
 * wait for it; called about once a second after writes, until some time after the last one.
 */
void disk_tidy(struct disk *disk);

/* Fills disk_bytes and memory_bytes. */
void disk_measure(struct disk *disk, struct store_stats *stats);
