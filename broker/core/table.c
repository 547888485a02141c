#include "broker/core/table.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { BUCKETS_FIRST = 64 };

int table_init(struct table *table, uint64_t seed, table_hash_fn *hash)
{
    struct table_bucket *buckets = calloc(BUCKETS_FIRST, sizeof(struct table_bucket));
    if (buckets == NULL) {
        return -ENOMEM;
    }
    *table = (struct table){.buckets = buckets,
                            .capacity = BUCKETS_FIRST,
                            .buckets_length = BUCKETS_FIRST,
                            .low_mask = BUCKETS_FIRST - 1,
                            .seed = seed,
                            .hash = hash};
    return 0;
}

void table_finish(struct table *table)
{
    free(table->buckets);
    *table = (struct table){0};
}

static void chain(struct table_bucket *bucket, struct table_link *link, uint64_t hash)
{
    link->next = bucket->first;
    bucket->first = link;
    bucket->marks |= table_mark(hash);
}

/* Adds one bucket and moves to it what belongs there. */
static void split(struct table *table)
{
    if (table->buckets_length == table->capacity) {
        struct table_bucket *buckets =
            reallocarray(table->buckets, table->capacity, 2 * sizeof(struct table_bucket));
        if (buckets == NULL) {
            return;
        }
        table->buckets = buckets;
        table->capacity *= 2;
    }
    const size_t added = table->buckets_length++;
    const size_t halved = added & table->low_mask;
    struct table_link *link = table->buckets[halved].first;
    table->buckets[halved] = table->buckets[added] = (struct table_bucket){0};
    while (link != NULL) {
        struct table_link *next = link->next;
        const uint64_t hash = table->hash(link, table->seed);
        chain(table_bucket(table, hash), link, hash);
        link = next;
    }
    if (table->buckets_length == (table->low_mask + 1) * 2) {
        table->low_mask = table->low_mask * 2 + 1;
    }
}

void table_insert(struct table *table, struct table_link *link)
{
    if (table->length >= table->buckets_length) {
        split(table);
    }
    const uint64_t hash = table->hash(link, table->seed);
    chain(table_bucket(table, hash), link, hash);
    table->length++;
}

void table_remove(struct table *table, struct table_link *link)
{
    struct table_bucket *bucket = table_bucket(table, table->hash(link, table->seed));
    struct table_link **at = &bucket->first;
    while (*at != link) {
        assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = link->next;
    link->next = NULL;
    bucket->marks = bucket->first == NULL ? 0 : bucket->marks;
    table->length--;
}

void table_insert_later(struct table *table, struct table_link *link)
{
    link->next = table->later;
    table->later = link;
    table->later_length++;
}

/* As many buckets as `length` elements want, in an empty table. Without memory it stays small. */
static void grow_empty(struct table *table, size_t length)
{
    size_t capacity = table->capacity;
    while (capacity < length) {
        capacity *= 2;
    }
    struct table_bucket *buckets = calloc(capacity, sizeof(struct table_bucket));
    if (buckets == NULL) {
        return;
    }
    free(table->buckets);
    table->buckets = buckets;
    table->capacity = capacity;
    table->buckets_length = capacity;
    table->low_mask = capacity - 1;
}

void table_settle(struct table *table)
{
    if (table->length == 0 && table->later_length > table->buckets_length) {
        grow_empty(table, table->later_length);
    }
    while (table->later != NULL) {
        struct table_link *link = table->later;
        table->later = link->next;
        table_insert(table, link);
    }
    table->later_length = 0;
}
