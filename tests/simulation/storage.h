/*
 * storage: a store in virtual time, by the contract of broker/store/store.h, whose crashes can be
 * chosen.
 *
 * Batches become durable in order; a crash keeps the durable ones and a prefix of the pending ones.
 * Reads see either what is durable or what was handed over. Memory that runs out ends the program:
 * it is a test.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/store/store.h"

struct storage;

enum storage_view {
    STORAGE_DURABLE, /* survives a crash */
    STORAGE_CURRENT, /* with the batches that are pending */
    STORAGE_VIEWS,
};

enum storage_change_kind { STORAGE_PUT, STORAGE_DELETE, STORAGE_DELETE_RANGE };

struct storage_change {
    enum storage_change_kind kind;
    enum store_family family;
    uint8_t key_bytes, to_bytes;
    uint8_t key[STORE_KEY_BYTES_MAX], to[STORE_KEY_BYTES_MAX]; /* `to` of a range: not included */
    struct blob *value;                                        /* PUT: referenced */
};

/* Told of each change when it becomes durable; NULL: that was all of the batch. */
typedef void storage_observe_fn(void *context, const struct storage_change *change);

struct storage *storage_create(storage_observe_fn *observe, void *context);
void storage_destroy(struct storage **storage);

/* Adds to the batch that is being filled. Takes *change's value. */
void storage_add(struct storage *storage, struct storage_change *change);
/* Closes it; its number is one above the last one, beginning with 1 after a crash. */
void storage_commit(struct storage *storage);
/* Numbers of the oldest batch that is pending and of the latest one; equal to the latest + 1 when
 * none is. */
uint64_t storage_first_pending(const struct storage *storage);
uint64_t storage_latest(const struct storage *storage);
/* Writes the oldest pending batch. */
void storage_sync_one(struct storage *storage);
/* Writes `keep` of the pending batches, loses the others, and begins to count anew. */
void storage_crash(struct storage *storage, uint64_t keep);

/* Loses the oldest pending batch as if it were written: for a planted mistake. */
void storage_lose_one(struct storage *storage);

/* NULL: none. Borrowed. */
struct blob *storage_find(const struct storage *storage, enum storage_view view,
                          enum store_family family, const void *key, size_t key_bytes);
size_t storage_length(const struct storage *storage, enum storage_view view,
                      enum store_family family);
typedef void storage_visit_fn(void *context, const void *key, size_t key_bytes, struct blob *value);
/* In the order of keys. */
void storage_visit(const struct storage *storage, enum storage_view view, enum store_family family,
                   storage_visit_fn *visit, void *context);
