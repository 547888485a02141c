#include "broker/core/table.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { BUCKETS_FIRST = 64 };

int table_init(struct table *table, uint64_t seed, table_hash_fn *hash)
{
    struct table_link **buckets = calloc(BUCKETS_FIRST, sizeof(struct table_link *));
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

/* Adds one bucket and moves to it what belongs there. */
static void split(struct table *table)
{
    if (table->buckets_length == table->capacity) {
        struct table_link **buckets =
            reallocarray(table->buckets, table->capacity, 2 * sizeof(struct table_link *));
        if (buckets == NULL) {
            return;
        }
        table->buckets = buckets;
        table->capacity *= 2;
    }
    const size_t added = table->buckets_length++;
    const size_t halved = added & table->low_mask;
    struct table_link *link = table->buckets[halved];
    struct table_link *stays = NULL;
    struct table_link *moves = NULL;
    while (link != NULL) {
        struct table_link *next = link->next;
        struct table_link **to =
            table_bucket(table, table->hash(link, table->seed)) == added ? &moves : &stays;
        link->next = *to;
        *to = link;
        link = next;
    }
    table->buckets[halved] = stays;
    table->buckets[added] = moves;
    if (table->buckets_length == (table->low_mask + 1) * 2) {
        table->low_mask = table->low_mask * 2 + 1;
    }
}

void table_insert(struct table *table, struct table_link *link)
{
    if (table->length >= table->buckets_length) {
        split(table);
    }
    struct table_link **bucket =
        &table->buckets[table_bucket(table, table->hash(link, table->seed))];
    link->next = *bucket;
    *bucket = link;
    table->length++;
}

void table_remove(struct table *table, struct table_link *link)
{
    struct table_link **at = &table->buckets[table_bucket(table, table->hash(link, table->seed))];
    while (*at != link) {
        assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = link->next;
    link->next = NULL;
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
    struct table_link **buckets = calloc(capacity, sizeof(struct table_link *));
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
