#include "worker/cache/near_index.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS_FIRST = 256 };

/* Keys and vectors apart, so that looking for a key does not touch the vectors. */
struct scope {
    struct scope *next;
    uint8_t id[NEAR_SCOPE_BYTES];
    uint8_t (*keys)[NEAR_KEY_BYTES];
    struct vector *vectors;
    size_t length;
    size_t capacity;
};

struct near_index {
    struct scope **buckets; /* scope ids are hashes already: their first bytes choose the bucket */
    size_t buckets_length;
    size_t scopes_length;
    size_t vectors_length;
};

static size_t bucket_of(const struct near_index *index, const uint8_t *id)
{
    uint64_t prefix;
    memcpy(&prefix, id, sizeof(prefix));
    return (size_t)(prefix % index->buckets_length);
}

static struct scope **scope_place(const struct near_index *index, const uint8_t *id)
{
    struct scope **place = &index->buckets[bucket_of(index, id)];
    while (*place != NULL && memcmp((*place)->id, id, NEAR_SCOPE_BYTES) != 0) {
        place = &(*place)->next;
    }
    return place;
}

static void scope_release(struct scope *scope)
{
    free(scope->keys);
    free(scope->vectors);
    free(scope);
}

int near_index_create(struct near_index **ret_index)
{
    struct near_index *index = calloc(1, sizeof(*index));
    struct scope **buckets = calloc(BUCKETS_FIRST, sizeof(struct scope *));
    if (index == NULL || buckets == NULL) {
        free(index);
        free(buckets);
        return -ENOMEM;
    }
    index->buckets = buckets;
    index->buckets_length = BUCKETS_FIRST;
    *ret_index = index;
    return 0;
}

void near_index_destroy(struct near_index **index)
{
    struct near_index *old = TAKE(*index);
    if (old == NULL) {
        return;
    }
    for (size_t i = 0; i < old->buckets_length; i++) {
        while (old->buckets[i] != NULL) {
            struct scope *scope = old->buckets[i];
            old->buckets[i] = scope->next;
            scope_release(scope);
        }
    }
    free(old->buckets);
    free(old);
}

/* Twice the buckets; without memory for them the chains only get longer. */
static void index_widen(struct near_index *index)
{
    const size_t length = index->buckets_length * 2;
    struct scope **old = index->buckets;
    const size_t old_length = index->buckets_length;
    struct scope **wider = calloc(length, sizeof(struct scope *));
    if (wider == NULL) {
        return;
    }
    index->buckets = wider;
    index->buckets_length = length;
    for (size_t i = 0; i < old_length; i++) {
        while (old[i] != NULL) {
            struct scope *scope = old[i];
            old[i] = scope->next;
            struct scope **head = &wider[bucket_of(index, scope->id)];
            scope->next = *head;
            *head = scope;
        }
    }
    free(old);
}

static int scope_find_or_add(struct near_index *index, const uint8_t *id, struct scope **ret_scope)
{
    if (index->scopes_length > index->buckets_length) {
        index_widen(index);
    }
    struct scope **place = scope_place(index, id);
    if (*place == NULL) {
        struct scope *scope = calloc(1, sizeof(*scope));
        if (scope == NULL) {
            return -ENOMEM;
        }
        memcpy(scope->id, id, NEAR_SCOPE_BYTES);
        *place = scope;
        index->scopes_length++;
    }
    *ret_scope = *place;
    return 0;
}

static int scope_reserve(struct scope *scope)
{
    if (scope->length < scope->capacity) {
        return 0;
    }
    const size_t capacity = scope->capacity == 0 ? 1 : scope->capacity * 2;
    void *keys = realloc(scope->keys, capacity * sizeof(*scope->keys));
    if (keys == NULL) {
        return -ENOMEM;
    }
    scope->keys = keys;
    struct vector *vectors = realloc(scope->vectors, capacity * sizeof(*vectors));
    if (vectors == NULL) {
        return -ENOMEM;
    }
    scope->vectors = vectors;
    scope->capacity = capacity;
    return 0;
}

static bool scope_find(const struct scope *scope, const uint8_t *key, size_t *ret_index)
{
    for (size_t i = 0; i < scope->length; i++) {
        if (memcmp(scope->keys[i], key, NEAR_KEY_BYTES) == 0) {
            *ret_index = i;
            return true;
        }
    }
    return false;
}

int near_index_add(struct near_index *index, const uint8_t id[NEAR_SCOPE_BYTES],
                   const uint8_t key[NEAR_KEY_BYTES], const struct vector *vector)
{
    struct scope *scope = NULL;
    size_t at;
    int r = scope_find_or_add(index, id, &scope);
    if (r < 0) {
        return r;
    }
    if (scope_find(scope, key, &at)) {
        assert(scope->vectors != NULL);
        scope->vectors[at] = *vector;
        return 0;
    }
    r = scope_reserve(scope);
    if (r < 0) {
        return r;
    }
    memcpy(scope->keys[scope->length], key, NEAR_KEY_BYTES);
    scope->vectors[scope->length++] = *vector;
    index->vectors_length++;
    return 0;
}

void near_index_remove(struct near_index *index, const uint8_t id[NEAR_SCOPE_BYTES],
                       const uint8_t key[NEAR_KEY_BYTES])
{
    struct scope **place = scope_place(index, id);
    struct scope *scope = *place;
    size_t at;
    if (scope == NULL || !scope_find(scope, key, &at)) {
        return;
    }
    scope->length--;
    memcpy(scope->keys[at], scope->keys[scope->length], NEAR_KEY_BYTES);
    scope->vectors[at] = scope->vectors[scope->length];
    index->vectors_length--;
    if (scope->length == 0) {
        *place = scope->next;
        index->scopes_length--;
        scope_release(scope);
    }
}

int near_index_best(const struct near_index *index, const uint8_t id[NEAR_SCOPE_BYTES],
                    const struct vector *vector, uint8_t ret_key[NEAR_KEY_BYTES], double *ret_score)
{
    const struct scope *scope = *scope_place(index, id);
    size_t best = 0;
    double best_score = -2;
    if (scope == NULL || scope->length == 0) {
        return -ENOENT;
    }
    for (size_t i = 0; i < scope->length; i++) {
        const double score = vector_cosine(vector, &scope->vectors[i]);
        if (score > best_score) {
            best_score = score;
            best = i;
        }
    }
    memcpy(ret_key, scope->keys[best], NEAR_KEY_BYTES);
    *ret_score = best_score;
    return 0;
}

size_t near_index_bytes(const struct near_index *index)
{
    return index->vectors_length * (sizeof(struct vector) + NEAR_KEY_BYTES);
}
