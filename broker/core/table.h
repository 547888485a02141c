/*
 * table: a hash table whose links lie in the elements; it owns nothing.
 *
 * Linear hashing: each insertion splits at most one bucket, so no insertion ever rehashes ten million jobs. Keys are
 * compared by the caller, who walks the chain that table_first() gives.
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

/*
 * The head of a chain, and one bit for the hash of each element in it. Most that is looked up is not there (a new job's id), and
 * then the bits say so: elements lie somewhere in memory, and with a million of them each look is a cache miss. Removal leaves
 * bits behind until the chain is empty, or split.
 */
struct table_bucket {
    struct table_link *first;
    uint64_t marks;
};

/* The hash of an element, needed again when its bucket is split. */
typedef uint64_t table_hash_fn(const struct table_link *link, uint64_t seed);

struct table {
    struct table_bucket *buckets;
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

static inline struct table_bucket *table_bucket(const struct table *table, uint64_t hash)
{
    const size_t wide = (size_t)hash & (table->low_mask * 2 + 1);
    return &table->buckets[wide < table->buckets_length ? wide : wide & table->low_mask];
}
/* Of bits that choose no bucket. */
static inline uint64_t table_mark(uint64_t hash)
{
    return UINT64_C(1) << (hash >> 58);
}
/* The chain that an element of this hash is in, if there is one: NULL, or to be walked by `next`. */
static inline struct table_link *table_first(const struct table *table, uint64_t hash)
{
    const struct table_bucket *bucket = table_bucket(table, hash);
    return (bucket->marks & table_mark(hash)) != 0 ? bucket->first : NULL;
}
