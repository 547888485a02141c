/*
 * postings: for each bucket of sparse vectors, which entries of one scope have it, and how much of
 * it: the inverted lists of lexical_index.
 *
 * A posting is an entry's slot and a weight in 32 bits. A list is in no order; one of a single
 * posting lies in the table itself, a short one in one block, a long one in a chain of blocks. The
 * table is extendible hashing: it grows and shrinks a segment of 2 KiB at a time, so no step costs
 * more than a few thousand bytes' copy. What is removed is not looked for: postings_sweep() drops
 * postings of dead slots in small steps. All memory is the pool's, but for the directory.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/cache/block_pool.h"

enum { POSTING_SLOTS_MAX = 1 << 24 };

static inline uint32_t posting_of(uint32_t slot, uint32_t weight)
{
    return slot << 8 | weight;
}

static inline uint32_t posting_slot(uint32_t posting)
{
    return posting >> 8;
}

static inline uint32_t posting_weight(uint32_t posting)
{
    return posting & 0xff;
}

struct postings {
    struct block_pool *pool;
    uint32_t
        *directory; /* segments by the first `depth` bits of a bucket's hash; 2^depth of them */
    uint32_t depth;
    uint64_t length; /* postings in all lists */
    uint32_t lists;
    uint32_t swept_hash;  /* lists whose hash is less were swept in this pass */
    uint32_t swept_block; /* of a chain that is being swept: the last block kept; 0: none */
};

/* Takes no memory before the first posting. Keeps the pool. */
void postings_init(struct postings *postings, struct block_pool *pool);
/* Its blocks go back to the pool: as many steps as there are lists. */
void postings_finish(struct postings *postings);

/* The slot must not be in the bucket's list. Errors: -ENOMEM. */
MUST_USE int postings_add(struct postings *postings, uint32_t bucket, uint32_t posting);

/* A list as it is now: not to be kept over a change. */
struct posting_list {
    uint32_t length;
    uint32_t single; /* the posting, when length is 1 and block is 0 */
    uint32_t block;
    bool is_chain;
};

/* What postings_find() reads, one after the other; each says where the next one is. */
enum postings_step { POSTINGS_SEGMENT, POSTINGS_SLOT, POSTINGS_LIST };

/*
 * Soon postings_find() is asked for this bucket: what it reads in this step comes nearer meanwhile.
 * Of many buckets the first step of all, then the second of all, and so on.
 */
void postings_prefetch(const struct postings *postings, uint32_t bucket, enum postings_step step);
/* False, and a list of length 0: no entry has the bucket. */
bool postings_find(const struct postings *postings, uint32_t bucket, struct posting_list *ret_list);

/* Soon posting_list_take() is asked for the next run. */
void posting_list_prefetch(const struct block_pool *pool, const struct posting_list *list);
/* Takes the next run off the list: false when there is none. */
bool posting_list_take(const struct block_pool *pool, struct posting_list *list,
                       const uint32_t **ret_run, size_t *ret_length);

typedef bool postings_dead_fn(const void *context, uint32_t slot);

/*
 * Goes on with a pass over all lists and drops what is dead, about `budget` postings further.
 * Postings that are added behind it are not seen in this pass.
 * Returns whether the pass came to its end; the next call begins another.
 */
bool postings_sweep(struct postings *postings, size_t budget, postings_dead_fn *is_dead,
                    const void *context);

/* Memory of its own, outside the pool. */
size_t postings_directory_bytes(const struct postings *postings);
