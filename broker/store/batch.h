/*
 * batch: record changes collected in one turn, as plain bytes that any engine can apply, in order.
 *
 * Filled on the loop's thread, then handed over whole; whoever holds it is the only one to touch
 * it. Its memory is used again: one allocation a change would cost more than the change.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/store/store.h"

enum change_kind { CHANGE_PUT, CHANGE_DELETE, CHANGE_DELETE_RANGE };

struct change {
    uint8_t kind;   /* enum change_kind */
    uint8_t family; /* enum store_family */
    uint8_t key_bytes;
    size_t offset;     /* in the batch's bytes: key, then the value's head or the range's end */
    size_t tail_bytes; /* of that head or end */
    struct blob *blob; /* the rest of the value; NULL: none. Referenced. */
};

struct store_batch {
    struct store *store;
    struct store_batch *next; /* in the list of whoever holds it */
    uint64_t number;
    size_t value_bytes; /* keys and values, blobs included */
    size_t changes_length, changes_capacity;
    struct change *changes;
    size_t bytes_length, bytes_capacity;
    uint8_t *bytes;
};

/* A chain of batches in the order of commit. */
struct batch_list {
    struct store_batch *first, *last;
    size_t length;
    size_t changes;
    size_t value_bytes;
};
void batch_list_append(struct batch_list *list, struct store_batch *batch);
struct store_batch *batch_list_pop(struct batch_list *list); /* NULL when empty */
/* Moves all of `from` to the end of `to`. */
void batch_list_move(struct batch_list *to, struct batch_list *from);

/* Batches that wait to be filled again. */
struct batch_pool {
    struct batch_list free;
};
void batch_pool_finish(struct batch_pool *pool);
/*
 * Empties the batch (its blobs are let go) and keeps it for later, or frees it when there are
 * enough or it is large.
 */
void batch_pool_give(struct batch_pool *pool, struct store_batch **batch);

static inline const uint8_t *change_key(const struct store_batch *batch,
                                        const struct change *change)
{
    return batch->bytes + change->offset;
}
static inline const uint8_t *change_tail(const struct store_batch *batch,
                                         const struct change *change)
{
    return batch->bytes + change->offset + change->key_bytes;
}
