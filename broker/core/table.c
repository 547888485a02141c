#include "broker/core/table.h"
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS_FIRST = 64 };

int table_init(struct table *table, uint64_t seed, table_hash_fn *hash)
{
    *table = (struct table){.segments = calloc(1, sizeof(struct table_bucket *)),
                            .buckets_length = BUCKETS_FIRST,
                            .low_mask = BUCKETS_FIRST - 1,
                            .seed = seed,
                            .hash = hash};
    if (table->segments != NULL) {
        table->segments[0] = calloc(BUCKETS_FIRST, sizeof(struct table_bucket));
    }
    if (table->segments == NULL || table->segments[0] == NULL) {
        table_finish(table);
        return -ENOMEM;
    }
    table->segments_length = 1;
    table->capacity = BUCKETS_FIRST;
    return 0;
}

void table_finish(struct table *table)
{
    for (size_t i = 0; i < table->segments_length; i++) {
        free(table->segments[i]);
    }
    free(table->segments);
    *table = (struct table){0};
}

/* Doubles the first segment. When it has its full length it moves to a large page: the last time
 * that buckets move. */
static bool grow_first_segment(struct table *table)
{
    assert(table->capacity > 0); /* the first segment comes with the table */
    const size_t capacity = table->capacity * 2;
    struct table_bucket *buckets = capacity == TABLE_SEGMENT_LENGTH
                                       ? large_page_alloc()
                                       : malloc(capacity * sizeof(struct table_bucket));
    if (buckets == NULL) {
        return false;
    }
    memcpy(buckets, table->segments[0], table->capacity * sizeof(struct table_bucket));
    free(table->segments[0]);
    table->segments[0] = buckets;
    table->capacity = capacity;
    return true;
}

static bool add_segment(struct table *table)
{
    struct table_bucket **segments =
        reallocarray(table->segments, table->segments_length + 1, sizeof(struct table_bucket *));
    if (segments == NULL) {
        return false;
    }
    table->segments = segments;
    segments[table->segments_length] = large_page_alloc();
    if (segments[table->segments_length] == NULL) {
        return false;
    }
    table->segments_length++;
    table->capacity += TABLE_SEGMENT_LENGTH;
    return true;
}

static bool has_room(struct table *table)
{
    return table->buckets_length < table->capacity ||
           (table->capacity < TABLE_SEGMENT_LENGTH ? grow_first_segment(table)
                                                   : add_segment(table));
}

/* One bucket more, empty. */
static void add_bucket(struct table *table)
{
    *table_bucket_at(table, table->buckets_length++) = (struct table_bucket){0};
}

static void note_length(struct table *table)
{
    if (table->buckets_length == (table->low_mask + 1) * 2) {
        table->low_mask = table->low_mask * 2 + 1;
    }
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
    if (!has_room(table)) {
        return;
    }
    struct table_bucket *halved = table_bucket_at(table, table->buckets_length & table->low_mask);
    struct table_link *link = halved->first;
    *halved = (struct table_bucket){0};
    add_bucket(table);
    while (link != NULL) {
        struct table_link *next = link->next;
        const uint64_t hash = table->hash(link, table->seed);
        chain(table_bucket(table, hash), link, hash);
        link = next;
    }
    note_length(table);
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

/* As many buckets as `length` elements want, in an empty table. Without memory it stays smaller. */
static void grow_empty(struct table *table, size_t length)
{
    while (table->buckets_length < length && has_room(table)) {
        add_bucket(table);
        note_length(table);
    }
}

void table_settle(struct table *table)
{
    if (table->length == 0) {
        grow_empty(table, table->later_length);
    }
    while (table->later != NULL) {
        struct table_link *link = table->later;
        table->later = link->next;
        table_insert(table, link);
    }
    table->later_length = 0;
}
