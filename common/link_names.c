#include "common/link_names.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

enum {
    BUCKETS_FIRST = 64,
    NEW_BYTES = 1 + sizeof(uint32_t),
};

static uint64_t hash_of(const struct link_names *names, const void *id, size_t bytes)
{
    return XXH3_64bits_withSeed(id, bytes, names->seed);
}

static struct link_name **bucket_of(const struct link_names *names, uint64_t hash)
{
    return &names->buckets[hash & (names->n_buckets - 1)];
}

int link_names_init(struct link_names *names)
{
    *names = (struct link_names){.n_buckets = BUCKETS_FIRST};
    if (getrandom(&names->seed, sizeof(names->seed), 0) != sizeof(names->seed) ||
        getrandom(&names->last_number, sizeof(names->last_number), 0) !=
            sizeof(names->last_number)) {
        return -EIO;
    }
    names->buckets = calloc(names->n_buckets, sizeof(struct link_name *));
    return names->buckets == NULL ? -ENOMEM : 0;
}

void link_names_finish(struct link_names *names)
{
    free(names->buckets);
    names->buckets = NULL;
}

struct link_name *link_names_find(const struct link_names *names, const void *id, size_t bytes)
{
    const uint64_t hash = hash_of(names, id, bytes);
    struct link_name *name = *bucket_of(names, hash);
    while (name != NULL &&
           (name->hash != hash || name->bytes != bytes || memcmp(name->id, id, bytes) != 0)) {
        name = name->next;
    }
    return name;
}

static void enter(struct link_names *names, struct link_name *name)
{
    struct link_name **bucket = bucket_of(names, name->hash);
    name->next = *bucket;
    *bucket = name;
}

/* Without memory for it the chains get longer, and nothing else. */
static void grow(struct link_names *names)
{
    const size_t n_before = names->n_buckets;
    struct link_name **before = names->buckets;
    struct link_name **buckets = calloc(n_before * 2, sizeof(struct link_name *));
    if (buckets == NULL) {
        return;
    }
    names->buckets = buckets;
    names->n_buckets = n_before * 2;
    for (size_t i = 0; i < n_before; i++) {
        while (before[i] != NULL) {
            struct link_name *name = before[i];
            before[i] = name->next;
            enter(names, name);
        }
    }
    free(before);
}

void link_names_add(struct link_names *names, struct link_name *name, const void *id, size_t bytes)
{
    assert(name->bytes == 0);
    assert(bytes > 0 && bytes <= sizeof(name->id));
    if (names->length >= names->n_buckets) {
        grow(names);
    }
    memcpy(name->id, id, bytes);
    name->bytes = bytes;
    name->hash = hash_of(names, id, bytes);
    names->length++;
    enter(names, name);
}

void link_names_add_new(struct link_names *names, struct link_name *name)
{
    uint8_t id[NEW_BYTES] = {0};
    do {
        names->last_number++;
        memcpy(id + 1, &names->last_number, sizeof(names->last_number));
    } while (link_names_find(names, id, sizeof(id)) != NULL);
    link_names_add(names, name, id, sizeof(id));
}

void link_names_remove(struct link_names *names, struct link_name *name)
{
    if (name->bytes == 0) {
        return;
    }
    struct link_name **place = bucket_of(names, name->hash);
    while (*place != name) {
        place = &(*place)->next;
    }
    *place = name->next;
    name->bytes = 0;
    names->length--;
}
