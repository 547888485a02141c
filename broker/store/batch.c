#include "broker/store/batch.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "broker/store/engine.h"

enum {
    POOL_BATCHES_MAX = 64,
    POOL_BATCH_BYTES_MAX = 256 * 1024, /* a batch that grew beyond is freed after use */
    BYTES_FIRST = 4096,
    CHANGES_FIRST = 64,
};

void batch_list_append(struct batch_list *list, struct store_batch *batch)
{
    batch->next = NULL;
    if (list->last == NULL) {
        list->first = batch;
    } else {
        list->last->next = batch;
    }
    list->last = batch;
    list->length++;
    list->changes += batch->changes_length;
    list->value_bytes += batch->value_bytes;
}

struct store_batch *batch_list_pop(struct batch_list *list)
{
    struct store_batch *batch = list->first;
    if (batch == NULL) {
        return NULL;
    }
    list->first = TAKE(batch->next);
    if (list->first == NULL) {
        list->last = NULL;
    }
    list->length--;
    list->changes -= batch->changes_length;
    list->value_bytes -= batch->value_bytes;
    return batch;
}

void batch_list_move(struct batch_list *to, struct batch_list *from)
{
    if (from->first == NULL) {
        return;
    }
    if (to->last == NULL) {
        to->first = from->first;
    } else {
        to->last->next = from->first;
    }
    to->last = from->last;
    to->length += from->length;
    to->changes += from->changes;
    to->value_bytes += from->value_bytes;
    *from = (struct batch_list){0};
}

static void batch_empty(struct store_batch *batch)
{
    for (size_t i = 0; i < batch->changes_length; i++) {
        blob_unref(&batch->changes[i].blob);
    }
    batch->changes_length = 0;
    batch->bytes_length = 0;
    batch->value_bytes = 0;
}

static void batch_free(struct store_batch *batch)
{
    batch_empty(batch);
    free(batch->changes);
    free(batch->bytes);
    free(batch);
}

void batch_pool_give(struct batch_pool *pool, struct store_batch **batch)
{
    struct store_batch *given = TAKE(*batch);
    size_t memory = given->bytes_capacity + given->changes_capacity * sizeof(struct change);
    if (pool->free.length == POOL_BATCHES_MAX || memory > POOL_BATCH_BYTES_MAX) {
        batch_free(given);
        return;
    }
    batch_empty(given);
    batch_list_append(&pool->free, given);
}

void batch_pool_finish(struct batch_pool *pool)
{
    struct store_batch *batch;
    while ((batch = batch_list_pop(&pool->free)) != NULL) {
        batch_free(batch);
    }
}

/* Room for `more` items of `size` in an array, at least doubling it. */
static int array_reserve(void **array, size_t length, size_t *capacity, size_t more, size_t size,
                         size_t first)
{
    size_t needed;
    if (__builtin_add_overflow(length, more, &needed) || needed > SIZE_MAX / 2 / size) {
        return -ENOMEM;
    }
    if (needed <= *capacity) {
        return 0;
    }
    size_t next = *capacity == 0 ? first : *capacity * 2;
    next = next < needed ? needed : next;
    void *grown = realloc(*array, next * size);
    if (grown == NULL) {
        return -ENOMEM;
    }
    *array = grown;
    *capacity = next;
    return 0;
}

static void bytes_append(struct store_batch *batch, const void *data, size_t bytes)
{
    if (bytes > 0) {
        memcpy(batch->bytes + batch->bytes_length, data, bytes);
        batch->bytes_length += bytes;
    }
}

static int batch_add(struct store_batch *batch, enum change_kind kind, enum store_family family,
                     const void *key, size_t key_bytes, const void *tail, size_t tail_bytes,
                     struct blob *blob)
{
    assert(family < STORE_FAMILIES);
    assert(key_bytes <= STORE_KEY_BYTES_MAX);
    size_t bytes;
    if (__builtin_add_overflow(key_bytes, tail_bytes, &bytes)) {
        return -ENOMEM;
    }
    int r = array_reserve((void **)&batch->bytes, batch->bytes_length, &batch->bytes_capacity,
                          bytes, 1, BYTES_FIRST);
    if (r < 0) {
        return r;
    }
    r = array_reserve((void **)&batch->changes, batch->changes_length, &batch->changes_capacity, 1,
                      sizeof(struct change), CHANGES_FIRST);
    if (r < 0) {
        return r;
    }

    batch->changes[batch->changes_length++] = (struct change){
        .kind = (uint8_t)kind,
        .family = (uint8_t)family,
        .key_bytes = (uint8_t)key_bytes,
        .offset = batch->bytes_length,
        .tail_bytes = tail_bytes,
        .blob = blob == NULL ? NULL : blob_ref(blob),
    };
    bytes_append(batch, key, key_bytes);
    bytes_append(batch, tail, tail_bytes);
    batch->value_bytes += bytes + (blob == NULL ? 0 : blob_bytes(blob));
    return 0;
}

int store_batch_create(struct store *store, struct store_batch **ret_batch)
{
    struct store_batch *batch = batch_list_pop(&store->pool.free);
    if (batch == NULL) {
        batch = calloc(1, sizeof(*batch));
        if (batch == NULL) {
            return -ENOMEM;
        }
        batch->store = store;
    }
    *ret_batch = batch;
    return 0;
}

void store_batch_destroy(struct store_batch **batch)
{
    if (*batch != NULL) {
        batch_pool_give(&(*batch)->store->pool, batch);
    }
}

int store_batch_put(struct store_batch *batch, enum store_family family, const void *key,
                    size_t key_bytes, const void *value, size_t value_bytes)
{
    return batch_add(batch, CHANGE_PUT, family, key, key_bytes, value, value_bytes, NULL);
}

int store_batch_put_blob(struct store_batch *batch, enum store_family family, const void *key,
                         size_t key_bytes, const void *head, size_t head_bytes, struct blob *value)
{
    return batch_add(batch, CHANGE_PUT, family, key, key_bytes, head, head_bytes, value);
}

int store_batch_delete(struct store_batch *batch, enum store_family family, const void *key,
                       size_t key_bytes)
{
    return batch_add(batch, CHANGE_DELETE, family, key, key_bytes, NULL, 0, NULL);
}

int store_batch_delete_range(struct store_batch *batch, enum store_family family, const void *from,
                             size_t from_bytes, const void *to, size_t to_bytes)
{
    assert(to_bytes <= STORE_KEY_BYTES_MAX);
    return batch_add(batch, CHANGE_DELETE_RANGE, family, from, from_bytes, to, to_bytes, NULL);
}

size_t store_batch_length(const struct store_batch *batch)
{
    return batch->changes_length;
}
