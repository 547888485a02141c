/*
 * wal: whether RocksDB's write-ahead log holds together, read before RocksDB does.
 *
 * RocksDB recovers up to the first record that is damaged and says nothing about what came after
 * it, and skips what was zeroed. But every record begins with the number of its first change, and
 * numbers leave no gap: a record that does not begin where the one before it ended proves that
 * something between them is gone, whatever happened to it. A torn end proves nothing: a write that
 * was cut off looks like that; the store's own mark (rocksdb.c) tells whether it was acknowledged.
 *
 * Format: https://github.com/facebook/rocksdb/wiki/Write-Ahead-Log-File-Format
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

enum { WAL_PLACE_BYTES = 96 };

struct wal_report {
    uint64_t files;
    uint64_t records; /* whole ones; a record is a batch of changes */
    uint64_t last;    /* number of the last change in them; 0: there is none */
    uint64_t missing; /* changes in gaps between them, at least */
    uint64_t gapless; /* number of the last change before the first gap; 0: there is none */
    /* The first thing that does not hold together, in words; empty when all does. */
    char place[WAL_PLACE_BYTES];
};

/*
 * Reads every log in RocksDB's directory with this file number or a higher one. Blocks. A directory
 * that does not exist has none. Errors: -EIO and others of reading; -ENOMEM.
 */
MUST_USE int wal_check(const char *directory, uint64_t number_min, struct wal_report *ret_report);

/*
 * The same, and visits every whole record behind what RocksDB recovers by itself: its changes have
 * numbers from `first` on, its bytes are a write batch (rocksdb_writebatch_create_from()). Errors:
 * that of the visitor too.
 */
typedef int wal_visit_fn(void *context, uint64_t first, const void *record, size_t bytes);
MUST_USE int wal_visit(const char *directory, uint64_t number_min, wal_visit_fn *visit,
                       void *context, struct wal_report *ret_report);

/* The highest file number of a log; 0: there is none. Errors: -ENOMEM and those of reading. */
MUST_USE int wal_newest(const char *directory, uint64_t *ret_number);
