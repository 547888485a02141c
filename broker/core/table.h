/*
 * table: a hash table whose links lie in the elements; it owns nothing.
 *
 * Linear hashing: each insertion splits at most one bucket, and buckets lie in segments that stay where they are, so no insertion
 * ever rehashes or moves ten million jobs. Keys are
 * compared by the caller, who walks the chain that table_first() gives.
 *
 * A million elements that come at once are added by table_insert_later() and table_settle(): buckets that are split while they
 * fill would cost each of them another walk through foreign memory.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/large_page.h"

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

enum { TABLE_SEGMENT_LENGTH = LARGE_PAGE_BYTES / sizeof(struct table_bucket) };

struct table {
    struct table_bucket **segments; /* the first one grows to TABLE_SEGMENT_LENGTH, the others begin with it */
    size_t segments_length;
    size_t capacity;  /* of all segments */
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

static inline struct table_bucket *table_bucket_at(const struct table *table, size_t index)
{
    return &table->segments[index / TABLE_SEGMENT_LENGTH][index % TABLE_SEGMENT_LENGTH];
}
static inline struct table_bucket *table_bucket(const struct table *table, uint64_t hash)
{
    const size_t wide = (size_t)hash & (table->low_mask * 2 + 1);
    return table_bucket_at(table, wide < table->buckets_length ? wide : wide & table->low_mask);
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
/* An element of this hash is looked up soon. */
static inline void table_fetch(const struct table *table, uint64_t hash)
{
    __builtin_prefetch(table_bucket(table, hash), 1);
}
