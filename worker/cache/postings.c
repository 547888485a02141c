/*
 * The hash of a bucket is a permutation of 24 bits, so hashes never collide and a segment of depth
 * 17 can never be full. Segments are swept in the order of hashes, which splits and merges keep:
 * the sweep's place is a hash, not a pointer.
 */
#include "worker/cache/postings.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    HASH_BITS = 24,
    HASHES = 1 << HASH_BITS,
    SEGMENT_SLOTS = 255,
    SEGMENT_FULL = 212,   /* beyond this, probes get long */
    SEGMENT_MERGED = 120, /* two neighbours with no more than this become one */
    CHAIN_POSTINGS = 1020,
    ARRAY_BYTES_MAX = 4096,
    CHAIN_SHORT = 256, /* a single block of a chain with no more than this becomes an array */
    CACHE_LINE_BYTES = 64,
    PREFETCHED_BYTES = 1024, /* of a run; then the processor goes on by itself */
    SWEEP_LIST_COST = 16,    /* in postings: finding the next list */
};

enum list_kind { LIST_NONE, LIST_SINGLE, LIST_ARRAY, LIST_CHAIN };

struct list_slot {
    uint32_t key;   /* bucket << 8 | kind */
    uint32_t value; /* the posting, or a block */
};

struct segment {
    uint32_t depth;
    uint32_t used;
    struct list_slot slots[SEGMENT_SLOTS]; /* open addressing */
};
_Static_assert(sizeof(struct segment) == 2048, "a segment fills its block");

struct array {
    uint32_t length;
    uint32_t postings[];
};

struct chain {
    uint32_t next;   /* block; 0: the last */
    uint32_t length; /* in this block */
    uint32_t total;  /* of the whole list; kept in the first block only */
    uint32_t unused;
    uint32_t postings[CHAIN_POSTINGS];
};
_Static_assert(sizeof(struct chain) == ARRAY_BYTES_MAX, "a link of a chain fills its block");

static uint32_t hash_of(uint32_t bucket)
{
    return (bucket * 0x9e3779b1U) & (HASHES - 1);
}

static enum list_kind kind_of(const struct list_slot *slot)
{
    return (enum list_kind)(slot->key & 0xff);
}

static uint32_t slot_hash(const struct list_slot *slot)
{
    return hash_of(slot->key >> 8);
}

static struct segment *segment_at(const struct postings *postings, uint32_t directory_index)
{
    return block_pool_at(postings->pool, postings->directory[directory_index]);
}

static struct segment *segment_of(const struct postings *postings, uint32_t hash)
{
    return segment_at(postings, hash >> (HASH_BITS - postings->depth));
}

/* From the bits of the hash that the segments do not share. */
static size_t segment_home(const struct segment *segment, uint32_t hash)
{
    const uint32_t rest = (hash << segment->depth) & (HASHES - 1);
    return (size_t)((uint64_t)rest * SEGMENT_SLOTS >> HASH_BITS);
}

static size_t slot_after(size_t at)
{
    return at + 1 == SEGMENT_SLOTS ? 0 : at + 1;
}

/* The bucket's slot, or the empty one where it would be. */
static struct list_slot *segment_find(struct segment *segment, uint32_t bucket)
{
    size_t at = segment_home(segment, hash_of(bucket));
    while (segment->slots[at].key != 0 && segment->slots[at].key >> 8 != bucket) {
        at = slot_after(at);
    }
    return &segment->slots[at];
}

static void segment_put(struct segment *segment, struct list_slot slot)
{
    assert(segment->used < SEGMENT_SLOTS - 1);
    *segment_find(segment, slot.key >> 8) = slot;
    segment->used++;
}

/* Those behind it move up, so that no probe meets a gap before its slot. */
static void segment_remove(struct segment *segment, struct list_slot *slot)
{
    size_t gap = (size_t)(slot - segment->slots);
    size_t at = gap;
    for (;;) {
        at = slot_after(at);
        if (segment->slots[at].key == 0) {
            break;
        }
        const size_t home = segment_home(segment, slot_hash(&segment->slots[at]));
        const size_t from_home = (at + SEGMENT_SLOTS - home) % SEGMENT_SLOTS;
        const size_t from_gap = (at + SEGMENT_SLOTS - gap) % SEGMENT_SLOTS;
        if (from_home >= from_gap) {
            segment->slots[gap] = segment->slots[at];
            gap = at;
        }
    }
    segment->slots[gap] = (struct list_slot){.key = 0};
    segment->used--;
}

static void segment_move_all(const struct segment *from, struct segment *into)
{
    for (size_t i = 0; i < SEGMENT_SLOTS; i++) {
        if (from->slots[i].key != 0) {
            segment_put(into, from->slots[i]);
        }
    }
}

/* The part of the directory that shows the segment with this prefix of `depth` bits. */
static void directory_set(struct postings *postings, uint32_t depth, uint32_t prefix,
                          uint32_t block)
{
    const uint32_t shift = postings->depth - depth;
    for (uint32_t i = prefix << shift; i < (prefix + 1) << shift; i++) {
        postings->directory[i] = block;
    }
}

static int directory_double(struct postings *postings)
{
    const size_t length = (size_t)1 << postings->depth;
    uint32_t *directory = malloc(2 * length * sizeof(*directory));
    if (directory == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < length; i++) {
        const uint32_t block = postings->directory[i]; // NOLINT: 2^depth of them are set
        directory[2 * i] = directory[2 * i + 1] = block;
    }
    free(postings->directory);
    postings->directory = directory;
    postings->depth++;
    return 0;
}

static int segment_split(struct postings *postings, uint32_t hash)
{
    const struct segment *segment = segment_of(postings, hash);
    const uint32_t depth = segment->depth + 1;
    if (segment->depth == postings->depth) {
        const int r = directory_double(postings);
        if (r < 0) {
            return r;
        }
    }
    uint32_t blocks[2] = {block_pool_alloc(postings->pool, sizeof(struct segment)), 0};
    blocks[1] = blocks[0] == 0 ? 0 : block_pool_alloc(postings->pool, sizeof(struct segment));
    if (blocks[1] == 0) {
        if (blocks[0] != 0) {
            block_pool_free(postings->pool, blocks[0]);
        }
        return -ENOMEM;
    }
    struct segment *halves[2];
    for (size_t i = 0; i < 2; i++) {
        halves[i] = block_pool_at(postings->pool, blocks[i]);
        *halves[i] = (struct segment){.depth = depth};
    }
    for (size_t i = 0; i < SEGMENT_SLOTS; i++) {
        if (segment->slots[i].key != 0) {
            const uint32_t bit = slot_hash(&segment->slots[i]) >> (HASH_BITS - depth) & 1;
            segment_put(halves[bit], segment->slots[i]);
        }
    }
    const uint32_t old = postings->directory[hash >> (HASH_BITS - postings->depth)];
    const uint32_t prefix = hash >> (HASH_BITS - depth) & ~1U;
    directory_set(postings, depth, prefix, blocks[0]);
    directory_set(postings, depth, prefix + 1, blocks[1]);
    block_pool_free(postings->pool, old);
    return 0;
}

/*
 * Joins the segment at this hash with the one before it, again and again, while both together are
 * few. Without memory they stay as they are.
 */
static void segments_merge(struct postings *postings, uint32_t hash)
{
    for (;;) {
        const struct segment *right = segment_of(postings, hash);
        const uint32_t depth = right->depth;
        const uint32_t prefix = depth == 0 ? 0 : hash >> (HASH_BITS - depth);
        if (prefix % 2 == 0) {
            return;
        }
        const uint32_t left_hash = (prefix - 1) << (HASH_BITS - depth);
        const struct segment *left = segment_of(postings, left_hash);
        if (left->depth != depth || left->used + right->used > SEGMENT_MERGED) {
            return;
        }
        const uint32_t block = block_pool_alloc(postings->pool, sizeof(struct segment));
        if (block == 0) {
            return;
        }
        struct segment *merged = block_pool_at(postings->pool, block);
        *merged = (struct segment){.depth = depth - 1};
        segment_move_all(left, merged);
        segment_move_all(right, merged);
        block_pool_free(postings->pool,
                        postings->directory[left_hash >> (HASH_BITS - postings->depth)]);
        block_pool_free(postings->pool, postings->directory[hash >> (HASH_BITS - postings->depth)]);
        directory_set(postings, depth - 1, prefix >> 1, block);
        hash = left_hash;
    }
}

static int postings_start(struct postings *postings)
{
    uint32_t *directory = malloc(sizeof(*directory));
    const uint32_t block = block_pool_alloc(postings->pool, sizeof(struct segment));
    if (directory == NULL || block == 0) {
        free(directory);
        if (block != 0) {
            block_pool_free(postings->pool, block);
        }
        return -ENOMEM;
    }
    memset(block_pool_at(postings->pool, block), 0, sizeof(struct segment));
    directory[0] = block;
    postings->directory = directory;
    return 0;
}

void postings_init(struct postings *postings, struct block_pool *pool)
{
    *postings = (struct postings){.pool = pool};
}

static void list_release(struct block_pool *pool, const struct list_slot *slot)
{
    uint32_t block = slot->value;
    if (kind_of(slot) == LIST_ARRAY) {
        block_pool_free(pool, block);
    } else if (kind_of(slot) == LIST_CHAIN) {
        while (block != 0) {
            const uint32_t next = ((const struct chain *)block_pool_at(pool, block))->next;
            block_pool_free(pool, block);
            block = next;
        }
    }
}

void postings_finish(struct postings *postings)
{
    const uint32_t length = postings->directory == NULL ? 0 : 1U << postings->depth;
    for (uint32_t i = 0; i < length;) {
        const struct segment *segment = segment_at(postings, i);
        const uint32_t same = 1U << (postings->depth - segment->depth);
        for (size_t at = 0; at < SEGMENT_SLOTS; at++) {
            list_release(postings->pool, &segment->slots[at]);
        }
        block_pool_free(postings->pool, postings->directory[i]);
        i += same;
    }
    free(postings->directory);
    postings_init(postings, postings->pool);
}

/* Adding */

static size_t array_room(const struct block_pool *pool, uint32_t block)
{
    return block_pool_capacity(pool, block) / sizeof(uint32_t) - 1;
}

/* A quarter more than is needed, as far as one block goes. */
static uint32_t array_alloc(struct block_pool *pool, size_t length)
{
    const size_t bytes = (1 + length + length / 4) * sizeof(uint32_t);
    return block_pool_alloc(pool, bytes < ARRAY_BYTES_MAX ? bytes : ARRAY_BYTES_MAX);
}

static int single_append(struct block_pool *pool, struct list_slot *slot, uint32_t posting)
{
    const uint32_t block = array_alloc(pool, 2);
    if (block == 0) {
        return -ENOMEM;
    }
    struct array *array = block_pool_at(pool, block);
    array->length = 2;
    array->postings[0] = slot->value;
    array->postings[1] = posting;
    *slot = (struct list_slot){.key = (slot->key & ~0xffU) | LIST_ARRAY, .value = block};
    return 0;
}

static int chain_append(struct block_pool *pool, struct list_slot *slot, uint32_t posting)
{
    struct chain *first = block_pool_at(pool, slot->value);
    if (first->length == CHAIN_POSTINGS) {
        const uint32_t block = block_pool_alloc(pool, sizeof(struct chain));
        if (block == 0) {
            return -ENOMEM;
        }
        const uint32_t total = first->total;
        first = block_pool_at(pool, block);
        *first = (struct chain){.next = slot->value, .total = total};
        slot->value = block;
    }
    first->postings[first->length++] = posting;
    first->total++;
    return 0;
}

static int array_become_chain(struct block_pool *pool, struct list_slot *slot)
{
    const struct array *array = block_pool_at(pool, slot->value);
    const uint32_t block = block_pool_alloc(pool, sizeof(struct chain));
    if (block == 0) {
        return -ENOMEM;
    }
    struct chain *chain = block_pool_at(pool, block);
    const uint32_t length = array->length < CHAIN_POSTINGS ? array->length : CHAIN_POSTINGS;
    chain->next = 0;
    chain->length = chain->total = length;
    memcpy(chain->postings, array->postings, length * sizeof(uint32_t));
    struct list_slot changed = {.key = (slot->key & ~0xffU) | LIST_CHAIN, .value = block};
    for (uint32_t i = length; i < array->length; i++) {
        if (chain_append(pool, &changed, array->postings[i]) < 0) {
            block_pool_free(pool, block);
            return -ENOMEM;
        }
    }
    block_pool_free(pool, slot->value);
    *slot = changed;
    return 0;
}

static int array_append(struct block_pool *pool, struct list_slot *slot, uint32_t posting)
{
    struct array *array = block_pool_at(pool, slot->value);
    if (array->length == array_room(pool, slot->value)) {
        if (array->length >= CHAIN_POSTINGS) {
            const int r = array_become_chain(pool, slot);
            return r < 0 ? r : chain_append(pool, slot, posting);
        }
        const uint32_t block = array_alloc(pool, array->length + 1);
        if (block == 0) {
            return -ENOMEM;
        }
        struct array *larger = block_pool_at(pool, block);
        memcpy(larger, array, (1 + array->length) * sizeof(uint32_t));
        block_pool_free(pool, slot->value);
        slot->value = block;
        array = larger;
    }
    array->postings[array->length++] = posting;
    return 0;
}

static int list_append(struct block_pool *pool, struct list_slot *slot, uint32_t posting)
{
    switch (kind_of(slot)) {
    case LIST_SINGLE:
        return single_append(pool, slot, posting);
    case LIST_ARRAY:
        return array_append(pool, slot, posting);
    case LIST_CHAIN:
        return chain_append(pool, slot, posting);
    case LIST_NONE:
        break;
    }
    assert(false);
    return 0;
}

static int list_start(struct postings *postings, uint32_t bucket, uint32_t posting)
{
    const uint32_t hash = hash_of(bucket);
    while (segment_of(postings, hash)->used >= SEGMENT_FULL) {
        const int r = segment_split(postings, hash);
        if (r < 0) {
            return r;
        }
    }
    segment_put(segment_of(postings, hash),
                (struct list_slot){.key = bucket << 8 | LIST_SINGLE, .value = posting});
    postings->lists++;
    return 0;
}

int postings_add(struct postings *postings, uint32_t bucket, uint32_t posting)
{
    if (postings->directory == NULL) {
        const int r = postings_start(postings);
        if (r < 0) {
            return r;
        }
    }
    struct list_slot *slot = segment_find(segment_of(postings, hash_of(bucket)), bucket);
    const int r = slot->key == 0 ? list_start(postings, bucket, posting)
                                 : list_append(postings->pool, slot, posting);
    if (r == 0) {
        postings->length++;
    }
    return r;
}

/* Finding */

static const void *head_of(const struct postings *postings, const struct list_slot *slot)
{
    const bool is_block = kind_of(slot) == LIST_ARRAY || kind_of(slot) == LIST_CHAIN;
    return is_block ? block_pool_at(postings->pool, slot->value) : slot;
}

void postings_prefetch(const struct postings *postings, uint32_t bucket, enum postings_step step)
{
    if (postings->directory == NULL) {
        return;
    }
    struct segment *segment = segment_of(postings, hash_of(bucket));
    switch (step) {
    case POSTINGS_SEGMENT:
        __builtin_prefetch(segment);
        break;
    case POSTINGS_SLOT:
        __builtin_prefetch(&segment->slots[segment_home(segment, hash_of(bucket))]);
        break;
    case POSTINGS_LIST:
        __builtin_prefetch(head_of(postings, segment_find(segment, bucket)));
        break;
    }
}

bool postings_find(const struct postings *postings, uint32_t bucket, struct posting_list *ret_list)
{
    *ret_list = (struct posting_list){.length = 0};
    if (postings->directory == NULL) {
        return false;
    }
    const struct list_slot *slot = segment_find(segment_of(postings, hash_of(bucket)), bucket);
    switch (kind_of(slot)) {
    case LIST_NONE:
        return false;
    case LIST_SINGLE:
        *ret_list = (struct posting_list){.length = 1, .single = slot->value};
        return true;
    case LIST_ARRAY: {
        const struct array *array = block_pool_at(postings->pool, slot->value);
        *ret_list = (struct posting_list){.length = array->length, .block = slot->value};
        return true;
    }
    case LIST_CHAIN: {
        const struct chain *chain = block_pool_at(postings->pool, slot->value);
        *ret_list =
            (struct posting_list){.length = chain->total, .block = slot->value, .is_chain = true};
        return true;
    }
    }
    return false;
}

void posting_list_prefetch(const struct block_pool *pool, const struct posting_list *list)
{
    const char *first = list->block == 0 ? NULL : block_pool_at(pool, list->block);
    const size_t bytes = list->length * sizeof(uint32_t);
    for (size_t at = 0; first != NULL && at < bytes && at < PREFETCHED_BYTES;
         at += CACHE_LINE_BYTES) {
        __builtin_prefetch(first + at);
    }
}

bool posting_list_take(const struct block_pool *pool, struct posting_list *list,
                       const uint32_t **ret_run, size_t *ret_length)
{
    if (list->length == 0) {
        return false;
    }
    if (list->block == 0) {
        *ret_run = &list->single;
        *ret_length = list->length;
    } else if (!list->is_chain) {
        const struct array *array = block_pool_at(pool, list->block);
        *ret_run = array->postings;
        *ret_length = array->length;
    } else {
        const struct chain *chain = block_pool_at(pool, list->block);
        *ret_run = chain->postings;
        *ret_length = chain->length;
        list->block = chain->next;
    }
    list->length -= (uint32_t)*ret_length;
    posting_list_prefetch(pool, list);
    return true;
}

/* Sweeping */

struct sweep {
    struct postings *postings;
    postings_dead_fn *is_dead;
    const void *context;
    size_t spent;
};

static uint32_t purge(struct sweep *sweep, uint32_t *run, uint32_t length)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < length; i++) {
        if (!sweep->is_dead(sweep->context, posting_slot(run[i]))) {
            run[kept++] = run[i];
        }
    }
    sweep->postings->length -= length - kept;
    sweep->spent += length;
    return kept;
}

/* An array that lost much moves into a smaller block, or into the table. */
static void array_shrink(struct block_pool *pool, struct list_slot *slot)
{
    const struct array *array = block_pool_at(pool, slot->value);
    if (array->length == 1) {
        const uint32_t posting = array->postings[0];
        block_pool_free(pool, slot->value);
        *slot = (struct list_slot){.key = (slot->key & ~0xffU) | LIST_SINGLE, .value = posting};
        return;
    }
    const size_t room = array_room(pool, slot->value);
    if (array->length + array->length / 4 + BLOCK_GRANULE_BYTES / sizeof(uint32_t) > room / 2) {
        return;
    }
    const uint32_t block = array_alloc(pool, array->length);
    if (block != 0) {
        memcpy(block_pool_at(pool, block), array, (1 + array->length) * sizeof(uint32_t));
        block_pool_free(pool, slot->value);
        slot->value = block;
    }
}

/* Goes one block further in a chain. Returns whether it was the last. */
static bool chain_sweep_block(struct sweep *sweep, struct list_slot *slot)
{
    struct postings *postings = sweep->postings;
    struct block_pool *pool = postings->pool;
    struct chain *first = block_pool_at(pool, slot->value);
    struct chain *before =
        postings->swept_block == 0 ? NULL : block_pool_at(pool, postings->swept_block);
    const uint32_t block = before == NULL ? slot->value : before->next;
    assert(block != 0);
    struct chain *chain = block_pool_at(pool, block);
    const uint32_t kept = purge(sweep, chain->postings, chain->length);
    const uint32_t next = chain->next;
    first->total -= chain->length - kept;
    chain->length = kept;
    if (before != NULL && before->length + kept <= CHAIN_POSTINGS) {
        memcpy(before->postings + before->length, chain->postings, kept * sizeof(uint32_t));
        before->length += kept;
        before->next = next;
        block_pool_free(pool, block);
    } else if (before == NULL && kept == 0 && next != 0) {
        ((struct chain *)block_pool_at(pool, next))->total = chain->total;
        slot->value = next;
        block_pool_free(pool, block);
    } else {
        postings->swept_block = block;
    }
    return next == 0;
}

static void chain_shrink(struct block_pool *pool, struct list_slot *slot)
{
    const struct chain *chain = block_pool_at(pool, slot->value);
    if (chain->next != 0 || chain->length > CHAIN_SHORT || chain->length == 0) {
        return;
    }
    const uint32_t block = array_alloc(pool, chain->length);
    if (block == 0) {
        return;
    }
    struct array *array = block_pool_at(pool, block);
    array->length = chain->length;
    memcpy(array->postings, chain->postings, chain->length * sizeof(uint32_t));
    block_pool_free(pool, slot->value);
    *slot = (struct list_slot){.key = (slot->key & ~0xffU) | LIST_ARRAY, .value = block};
    array_shrink(pool, slot);
}

/* Returns whether the whole list was swept; *ret_length is what is left of it then. */
static bool list_sweep(struct sweep *sweep, struct list_slot *slot, uint32_t *ret_length)
{
    struct block_pool *pool = sweep->postings->pool;
    switch (kind_of(slot)) {
    case LIST_SINGLE:
        *ret_length = purge(sweep, &slot->value, 1);
        return true;
    case LIST_ARRAY: {
        struct array *array = block_pool_at(pool, slot->value);
        *ret_length = array->length = purge(sweep, array->postings, array->length);
        if (array->length > 0) {
            array_shrink(pool, slot);
        }
        return true;
    }
    case LIST_CHAIN:
        if (!chain_sweep_block(sweep, slot)) {
            return false;
        }
        *ret_length = ((const struct chain *)block_pool_at(pool, slot->value))->total;
        chain_shrink(pool, slot);
        return true;
    case LIST_NONE:
        break;
    }
    assert(false);
    return true;
}

/* The list with the least hash that is not swept yet; NULL: none in this segment. */
static struct list_slot *segment_next(struct segment *segment, uint32_t from_hash)
{
    struct list_slot *next = NULL;
    uint32_t least = HASHES;
    for (size_t i = 0; i < SEGMENT_SLOTS; i++) {
        const uint32_t hash = slot_hash(&segment->slots[i]);
        if (segment->slots[i].key != 0 && hash >= from_hash && hash < least) {
            least = hash;
            next = &segment->slots[i];
        }
    }
    return next;
}

static void sweep_list(struct sweep *sweep, struct segment *segment, struct list_slot *slot)
{
    struct postings *postings = sweep->postings;
    uint32_t length = 0;
    /* A new list may come before this one while its chain is being swept: it is not looked at. */
    postings->swept_hash = slot_hash(slot);
    if (!list_sweep(sweep, slot, &length)) {
        return;
    }
    postings->swept_hash++;
    postings->swept_block = 0;
    if (length == 0) {
        list_release(postings->pool, slot);
        segment_remove(segment, slot);
        postings->lists--;
    }
}

bool postings_sweep(struct postings *postings, size_t budget, postings_dead_fn *is_dead,
                    const void *context)
{
    struct sweep sweep = {.postings = postings, .is_dead = is_dead, .context = context};
    if (postings->directory == NULL) {
        return true;
    }
    while (sweep.spent < budget) {
        struct segment *segment = segment_of(postings, postings->swept_hash);
        struct list_slot *slot = segment_next(segment, postings->swept_hash);
        sweep.spent += SWEEP_LIST_COST;
        if (slot != NULL) {
            sweep_list(&sweep, segment, slot);
        }
        if (slot == NULL || postings->swept_hash >= HASHES) {
            const uint32_t depth = segment->depth;
            const uint32_t at = slot == NULL ? postings->swept_hash : HASHES - 1;
            const uint32_t prefix = at >> (HASH_BITS - depth);
            segments_merge(postings, at);
            postings->swept_hash = (prefix + 1) << (HASH_BITS - depth);
        }
        if (postings->swept_hash >= HASHES) {
            postings->swept_hash = 0;
            return true;
        }
    }
    return false;
}

size_t postings_directory_bytes(const struct postings *postings)
{
    return postings->directory == NULL ? 0 : sizeof(uint32_t) << postings->depth;
}
