/*
 * table: a hash table whose links lie in the elements; it owns nothing.
 *
 * Linear hashing: each insertion splits at most one bucket, so no insertion ever rehashes ten million jobs. Keys are
 * compared by the caller, who walks a bucket with table_first() and table_next().
 *
 * A million elements that come at once are added by table_insert_later() and table_settle(): buckets that are split while they
 * fill would cost each of them another walk through foreign memory.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

struct table_link {
    struct table_link *next;
};

/* The hash of an element, needed again when its bucket is split. */
typedef uint64_t table_hash_fn(const struct table_link *link, uint64_t seed);

struct table {
    struct table_link **buckets;
    size_t capacity;  /* of the array */
    size_t buckets_length;
    size_t low_mask;  /* buckets_length is between low_mask + 1 and twice that */
    size_t length;
    struct table_link *later; /* in no bucket yet, and not counted */
    size_t later_length;
    uint64_t seed;
    table_hash_fn *hash;
};

MUST_USE int table_init(struct table *table, uint64_t seed, table_hash_fn *hash); /* Errors: -ENOMEM */
void table_finish(struct table *table);
/* Never fails: without memory for more buckets the chains get longer. */
void table_insert(struct table *table, struct table_link *link);
void table_remove(struct table *table, struct table_link *link); /* asserts that it is in */
/* Not found before table_settle(), which alone may follow until then. */
void table_insert_later(struct table *table, struct table_link *link);
void table_settle(struct table *table); /* never fails either */

static inline size_t table_bucket(const struct table *table, uint64_t hash)
{
    const size_t wide = (size_t)hash & (table->low_mask * 2 + 1);
    return wide < table->buckets_length ? wide : wide & table->low_mask;
}
static inline struct table_link *table_first(const struct table *table, uint64_t hash)
{
    return table->buckets[table_bucket(table, hash)];
}
