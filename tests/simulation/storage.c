#include "tests/simulation/storage.h"
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include "tests/simulation/memory.h"

/* An element of a libc tree; ordered by its key's bytes, as RocksDB does. */
struct stored {
    uint8_t key[STORE_KEY_BYTES_MAX];
    size_t key_bytes;
    struct blob *value;
};

struct family {
    void *root;
    size_t length;
};

struct batch {
    struct storage_change *changes;
    size_t length, capacity;
};

struct storage {
    struct family views[2][STORE_FAMILIES];
    struct batch filling;
    struct batch *pending; /* a queue: [first, last) of it */
    size_t first, last, capacity;
    uint64_t latest;
    storage_observe_fn *observe;
    void *context;
};

static int compare_keys(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    const size_t shared = a_bytes < b_bytes ? a_bytes : b_bytes;
    const int order = memcmp(a, b, shared);
    return order != 0 ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static int compare_stored(const void *a, const void *b)
{
    const struct stored *left = a, *right = b;
    return compare_keys(left->key, left->key_bytes, right->key, right->key_bytes);
}

static struct stored stored_of_key(const void *key, size_t key_bytes)
{
    struct stored entry = {.key_bytes = key_bytes};
    memcpy(entry.key, key, key_bytes);
    return entry;
}

static struct stored *family_find(const struct family *family, const void *key, size_t key_bytes)
{
    const struct stored wanted = stored_of_key(key, key_bytes);
    void *node = tfind(&wanted, &family->root, compare_stored);
    return node == NULL ? NULL : *(struct stored **)node;
}

static void free_stored(void *pointer)
{
    struct stored *entry = pointer;
    blob_unref(&entry->value);
    free(entry);
}

static void family_delete(struct family *family, const void *key, size_t key_bytes)
{
    struct stored *entry = family_find(family, key, key_bytes);
    if (entry != NULL) {
        (void)tdelete(entry, &family->root, compare_stored);
        free_stored(entry);
        family->length--;
    }
}

static void family_put(struct family *family, const void *key, size_t key_bytes, struct blob *value)
{
    struct stored *entry = family_find(family, key, key_bytes);
    if (entry == NULL) {
        entry = must(calloc(1, sizeof(*entry)));
        *entry = stored_of_key(key, key_bytes);
        (void)must(tsearch(entry, &family->root, compare_stored));
        family->length++;
    }
    struct blob *old = entry->value;
    entry->value = blob_ref(value);
    blob_unref(&old);
}

static void family_clear(struct family *family)
{
    tdestroy(family->root, free_stored);
    *family = (struct family){0};
}

/* Collects entries in order, since a tree may not change while it is walked. */
struct walk {
    const struct stored **entries;
    size_t length;
};

static void collect(const void *node, VISIT which, void *closure)
{
    struct walk *walk = closure;
    if (which == postorder || which == leaf) {
        walk->entries[walk->length++] = *(struct stored *const *)node;
    }
}

static struct walk family_walk(const struct family *family)
{
    struct walk walk = {.entries = must(calloc(family->length + 1, sizeof(*walk.entries)))};
    twalk_r(family->root, collect, &walk);
    return walk;
}

static void family_delete_range(struct family *family, const struct storage_change *change)
{
    struct walk walk = family_walk(family);
    for (size_t i = 0; i < walk.length; i++) {
        const struct stored *entry = walk.entries[i];
        if (compare_keys(entry->key, entry->key_bytes, change->key, change->key_bytes) >= 0 &&
            compare_keys(entry->key, entry->key_bytes, change->to, change->to_bytes) < 0) {
            family_delete(family, entry->key, entry->key_bytes);
        }
    }
    free(walk.entries);
}

static void apply(struct family views[STORE_FAMILIES], const struct storage_change *change)
{
    struct family *family = &views[change->family];
    switch (change->kind) {
    case STORAGE_PUT:
        family_put(family, change->key, change->key_bytes, change->value);
        break;
    case STORAGE_DELETE:
        family_delete(family, change->key, change->key_bytes);
        break;
    case STORAGE_DELETE_RANGE:
        family_delete_range(family, change);
        break;
    }
}

static void batch_finish(struct batch *batch)
{
    for (size_t i = 0; i < batch->length; i++) {
        blob_unref(&batch->changes[i].value);
    }
    free(batch->changes);
    *batch = (struct batch){0};
}

struct storage *storage_create(storage_observe_fn *observe, void *context)
{
    struct storage *storage = must(calloc(1, sizeof(*storage)));
    storage->observe = observe;
    storage->context = context;
    return storage;
}

static void lose_pending(struct storage *storage)
{
    batch_finish(&storage->filling);
    while (storage->first < storage->last) {
        batch_finish(&storage->pending[storage->first++]);
    }
    storage->first = storage->last = 0;
    storage->latest = 0;
}

void storage_destroy(struct storage **storage)
{
    struct storage *dead = TAKE(*storage);
    if (dead == NULL) {
        return;
    }
    lose_pending(dead);
    for (size_t i = 0; i < STORE_FAMILIES; i++) {
        family_clear(&dead->views[STORAGE_DURABLE][i]);
        family_clear(&dead->views[STORAGE_CURRENT][i]);
    }
    free(dead->pending);
    free(dead);
}

void storage_add(struct storage *storage, struct storage_change *change)
{
    struct batch *batch = &storage->filling;
    if (batch->length == batch->capacity) {
        batch->capacity = batch->capacity * 2 + 8;
        batch->changes =
            must(reallocarray(batch->changes, batch->capacity, sizeof(*batch->changes)));
    }
    batch->changes[batch->length++] = *change;
    apply(storage->views[STORAGE_CURRENT], change);
    change->value = NULL;
}

void storage_commit(struct storage *storage)
{
    if (storage->first == storage->last) {
        storage->first = storage->last = 0;
    }
    if (storage->last == storage->capacity) {
        storage->capacity = storage->capacity * 2 + 64;
        storage->pending =
            must(reallocarray(storage->pending, storage->capacity, sizeof(*storage->pending)));
    }
    storage->pending[storage->last++] = storage->filling;
    storage->filling = (struct batch){0};
    storage->latest++;
}

uint64_t storage_first_pending(const struct storage *storage)
{
    return storage->latest + 1 - (storage->last - storage->first);
}

uint64_t storage_latest(const struct storage *storage)
{
    return storage->latest;
}

void storage_sync_one(struct storage *storage)
{
    if (storage->first == storage->last) {
        return;
    }
    struct batch *batch = &storage->pending[storage->first++];
    for (size_t i = 0; i < batch->length; i++) {
        apply(storage->views[STORAGE_DURABLE], &batch->changes[i]);
        storage->observe(storage->context, &batch->changes[i]);
    }
    storage->observe(storage->context, NULL);
    batch_finish(batch);
}

static void copy_durable(struct storage *storage)
{
    for (size_t i = 0; i < STORE_FAMILIES; i++) {
        struct family *current = &storage->views[STORAGE_CURRENT][i];
        family_clear(current);
        struct walk walk = family_walk(&storage->views[STORAGE_DURABLE][i]);
        for (size_t k = 0; k < walk.length; k++) {
            family_put(current, walk.entries[k]->key, walk.entries[k]->key_bytes,
                       walk.entries[k]->value);
        }
        free(walk.entries);
    }
}

void storage_crash(struct storage *storage, uint64_t keep)
{
    for (uint64_t i = 0; i < keep; i++) {
        storage_sync_one(storage);
    }
    lose_pending(storage);
    copy_durable(storage);
}

void storage_lose_one(struct storage *storage)
{
    if (storage->first < storage->last) {
        batch_finish(&storage->pending[storage->first++]);
    }
}

struct blob *storage_find(const struct storage *storage, enum storage_view view,
                          enum store_family family, const void *key, size_t key_bytes)
{
    const struct stored *entry = family_find(&storage->views[view][family], key, key_bytes);
    return entry == NULL ? NULL : entry->value;
}

size_t storage_length(const struct storage *storage, enum storage_view view,
                      enum store_family family)
{
    return storage->views[view][family].length;
}

void storage_visit(const struct storage *storage, enum storage_view view, enum store_family family,
                   storage_visit_fn *visit, void *context)
{
    struct walk walk = family_walk(&storage->views[view][family]);
    for (size_t i = 0; i < walk.length; i++) {
        visit(context, walk.entries[i]->key, walk.entries[i]->key_bytes, walk.entries[i]->value);
    }
    free(walk.entries);
}
