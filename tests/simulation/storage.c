#include "tests/simulation/storage.h"
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "tests/simulation/memory.h"

enum { BUCKETS_MIN = 64 };

/* A key, and its value in each view; NULL: it is not in that one. */
struct stored {
    struct stored *next; /* in its bucket */
    uint8_t key[STORE_KEY_BYTES_MAX];
    size_t key_bytes;
    struct blob *values[STORAGE_VIEWS];
};

/* Hashed; sorted only when somebody visits it: a run changes its records far more often. */
struct family {
    struct stored **buckets;
    size_t buckets_length; /* a power of two; 0: there was never an element */
    size_t entries;
    size_t lengths[STORAGE_VIEWS];
};

struct batch {
    struct storage_change *changes;
    size_t length, capacity;
};

struct storage {
    struct family families[STORE_FAMILIES];
    struct batch filling;
    struct batch *pending; /* a queue: [first, last) of it */
    size_t first, last, capacity;
    uint64_t latest;
    storage_observe_fn *observe;
    void *context;
};

/* As RocksDB orders them. */
static int compare_keys(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    const size_t shared = a_bytes < b_bytes ? a_bytes : b_bytes;
    const int order = memcmp(a, b, shared);
    return order != 0 ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

/* The link to the element, or to where it belongs. */
static struct stored **family_place(const struct family *family, const void *key, size_t key_bytes)
{
    struct stored **link =
        &family->buckets[XXH3_64bits(key, key_bytes) & (family->buckets_length - 1)];
    while (*link != NULL &&
           ((*link)->key_bytes != key_bytes || memcmp((*link)->key, key, key_bytes) != 0)) {
        link = &(*link)->next;
    }
    return link;
}

static struct stored *family_find(const struct family *family, const void *key, size_t key_bytes)
{
    return family->buckets_length == 0 ? NULL : *family_place(family, key, key_bytes);
}

static void family_grow(struct family *family)
{
    const struct family old = *family;
    family->buckets_length = old.buckets_length == 0 ? BUCKETS_MIN : old.buckets_length * 2;
    family->buckets = must(calloc(family->buckets_length, sizeof(*family->buckets)));
    for (size_t i = 0; i < old.buckets_length; i++) {
        for (struct stored *entry = old.buckets[i], *next; entry != NULL; entry = next) {
            next = entry->next;
            entry->next = NULL;
            *family_place(family, entry->key, entry->key_bytes) = entry;
        }
    }
    free(old.buckets);
}

/* Takes the reference; NULL: none. */
static void set_value(struct family *family, struct stored *entry, enum storage_view view,
                      struct blob *value)
{
    family->lengths[view] -= entry->values[view] != NULL;
    family->lengths[view] += value != NULL;
    blob_unref(&entry->values[view]);
    entry->values[view] = value;
}

static void free_if_empty(struct family *family, struct stored **link)
{
    struct stored *entry = *link;
    if (entry->values[STORAGE_DURABLE] == NULL && entry->values[STORAGE_CURRENT] == NULL) {
        *link = entry->next;
        family->entries--;
        free(entry);
    }
}

static void family_delete(struct family *family, enum storage_view view, const void *key,
                          size_t key_bytes)
{
    if (family->buckets_length == 0) {
        return;
    }
    struct stored **link = family_place(family, key, key_bytes);
    if (*link != NULL) {
        set_value(family, *link, view, NULL);
        free_if_empty(family, link);
    }
}

static void family_put(struct family *family, enum storage_view view, const void *key,
                       size_t key_bytes, struct blob *value)
{
    if (family->entries == family->buckets_length) {
        family_grow(family);
    }
    struct stored **link = family_place(family, key, key_bytes);
    if (*link == NULL) {
        struct stored *entry = must(calloc(1, sizeof(*entry)));
        entry->key_bytes = key_bytes;
        memcpy(entry->key, key, key_bytes);
        *link = entry;
        family->entries++;
    }
    set_value(family, *link, view, blob_ref(value));
}

/* For each element; one may be freed by free_if_empty() on the way. */
typedef void change_fn(struct family *family, struct stored *entry, const void *context);

static void family_change(struct family *family, change_fn *change, const void *context)
{
    for (size_t i = 0; i < family->buckets_length; i++) {
        struct stored **link = &family->buckets[i];
        while (*link != NULL) {
            struct stored *entry = *link;
            change(family, entry, context);
            free_if_empty(family, link);
            link = *link == entry ? &entry->next : link;
        }
    }
}

struct range {
    enum storage_view view;
    const struct storage_change *change;
};

static void delete_in_range(struct family *family, struct stored *entry, const void *context)
{
    const struct range *range = context;
    const struct storage_change *change = range->change;
    if (compare_keys(entry->key, entry->key_bytes, change->key, change->key_bytes) >= 0 &&
        compare_keys(entry->key, entry->key_bytes, change->to, change->to_bytes) < 0) {
        set_value(family, entry, range->view, NULL);
    }
}

static void forget_pending(struct family *family, struct stored *entry, const void *context)
{
    (void)context;
    struct blob *durable = entry->values[STORAGE_DURABLE];
    set_value(family, entry, STORAGE_CURRENT, durable == NULL ? NULL : blob_ref(durable));
}

static void forget_all(struct family *family, struct stored *entry, const void *context)
{
    (void)context;
    set_value(family, entry, STORAGE_DURABLE, NULL);
    set_value(family, entry, STORAGE_CURRENT, NULL);
}

static void apply(struct storage *storage, enum storage_view view,
                  const struct storage_change *change)
{
    struct family *family = &storage->families[change->family];
    const struct range range = {view, change};
    switch (change->kind) {
    case STORAGE_PUT:
        family_put(family, view, change->key, change->key_bytes, change->value);
        break;
    case STORAGE_DELETE:
        family_delete(family, view, change->key, change->key_bytes);
        break;
    case STORAGE_DELETE_RANGE:
        family_change(family, delete_in_range, &range);
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
        family_change(&dead->families[i], forget_all, NULL);
        free(dead->families[i].buckets);
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
    apply(storage, STORAGE_CURRENT, change);
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
        apply(storage, STORAGE_DURABLE, &batch->changes[i]);
        storage->observe(storage->context, &batch->changes[i]);
    }
    storage->observe(storage->context, NULL);
    batch_finish(batch);
}

void storage_crash(struct storage *storage, uint64_t keep)
{
    for (uint64_t i = 0; i < keep; i++) {
        storage_sync_one(storage);
    }
    lose_pending(storage);
    for (size_t i = 0; i < STORE_FAMILIES; i++) {
        family_change(&storage->families[i], forget_pending, NULL);
    }
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
    const struct stored *entry = family_find(&storage->families[family], key, key_bytes);
    return entry == NULL ? NULL : entry->values[view];
}

size_t storage_length(const struct storage *storage, enum storage_view view,
                      enum store_family family)
{
    return storage->families[family].lengths[view];
}

static int compare_stored(const void *a, const void *b)
{
    const struct stored *left = *(struct stored *const *)a, *right = *(struct stored *const *)b;
    return compare_keys(left->key, left->key_bytes, right->key, right->key_bytes);
}

void storage_visit(const struct storage *storage, enum storage_view view, enum store_family family,
                   storage_visit_fn *visit, void *context)
{
    const struct family *from = &storage->families[family];
    struct stored **sorted = must(calloc(from->entries + 1, sizeof(struct stored *)));
    size_t length = 0;
    for (size_t i = 0; i < from->buckets_length; i++) {
        for (struct stored *entry = from->buckets[i]; entry != NULL; entry = entry->next) {
            sorted[length++] = entry;
        }
    }
    qsort(sorted, length, sizeof(struct stored *), compare_stored);
    for (size_t i = 0; i < length; i++) {
        if (sorted[i]->values[view] != NULL) {
            visit(context, sorted[i]->key, sorted[i]->key_bytes, sorted[i]->values[view]);
        }
    }
    free(sorted);
}
