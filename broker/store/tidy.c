/*
 * tidy: the space of a backlog that has drained.
 *
 * RocksDB merges tables when new ones come, so the deletions of a large backlog free its space only
 * with later traffic, and that may be a week away. So a family of which half has gone since it was
 * last merged is flushed and its tables are marked for merging; that rewrites at most what is left,
 * once for each halving. Conclusions and results go by ranges of time: tables that lie in one are
 * dropped whole.
 */
#include <string.h>
#include "broker/store/rocksdb.h"

enum { TIDY_BYTES_MIN = 4 << 20 /* less is not worth the writing */ };

void disk_note_gone(struct disk *disk, enum store_family family, const void *to, size_t to_bytes)
{
    struct tidy *tidy = &disk->tidy[family];
    tidy->gone_bytes = (uint8_t)to_bytes;
    memcpy(tidy->gone, to, to_bytes);
}

static uint64_t property(struct disk *disk, size_t family, const char *name)
{
    uint64_t value = 0;
    return rocksdb_property_int_cf(disk->db, disk->families[family], name, &value) == 0 ? value : 0;
}

/*
 * Again each time: a table that is being merged is passed over. The newest level is, always, so a
 * few write buffers stay until the next merge.
 */
static void drop_tables(struct disk *disk, size_t family)
{
    const struct tidy *tidy = &disk->tidy[family];
    if (tidy->gone_bytes > 0) {
        char *error = NULL;
        rocksdb_delete_file_in_range_cf(disk->db, disk->families[family], "", 0,
                                        (const char *)tidy->gone, tidy->gone_bytes, &error);
        rocksdb_free(error); /* the keys are deleted in any case */
    }
}

static void start_flush(struct disk *disk, size_t family)
{
    char *error = NULL;
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(options, 0);
    rocksdb_flush_cf(disk->db, options, disk->families[family], &error);
    rocksdb_flushoptions_destroy(options);
    rocksdb_free(error); /* a disk that fails says so to the next commit */
}

static void start_merge(struct disk *disk, size_t family)
{
    char *error = NULL;
    rocksdb_suggest_compact_range_cf(disk->db, disk->families[family], NULL, 0, NULL, 0, &error);
    rocksdb_free(error);
}

static void tidy_family(struct disk *disk, size_t family)
{
    struct tidy *tidy = &disk->tidy[family];
    const uint64_t keys = property(disk, family, "rocksdb.estimate-num-keys");
    if (tidy->is_flushing) {
        if (property(disk, family, "rocksdb.num-immutable-mem-table") > 0) {
            return;
        }
        start_merge(disk, family);
        tidy->is_flushing = false;
        tidy->keys_most = keys;
    } else if (keys >= tidy->keys_most) {
        tidy->keys_most = keys;
    } else if (keys <= tidy->keys_most / 2 &&
               property(disk, family, "rocksdb.total-sst-files-size") >= TIDY_BYTES_MIN) {
        start_flush(disk, family);
        tidy->is_flushing = true;
    }
}

void disk_tidy(struct disk *disk)
{
    for (size_t i = 0; i < STORE_FAMILIES && !disk->is_damaged; i++) {
        drop_tables(disk, i);
        tidy_family(disk, i);
    }
}
