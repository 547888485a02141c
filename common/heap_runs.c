#include "common/heap_runs.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/list.h"

enum {
    RUNS = 8,
    CHUNK_NODES = 252, /* with the head: a page */
    OFFSET_BITS = 8,   /* of a position: where in its chunk */
    SLOTS_FIRST = 16,
    SLOTS_MAX = 1 << 22,
    SPARSE = 8,          /* a chunk of which less than one in so many is left is given up */
    AHEAD = 4,           /* elements that are fetched before they are first */
    FETCHED_BYTES = 192, /* of each */
    CACHE_LINE_BYTES = 64,
};
/* Tells positions in runs from those in the tree. */
#define IN_RUNS (UINT32_C(1) << 31)

/* What is left lies between first and end, both of which are elements and no gaps. */
struct chunk {
    struct list_link link; /* in its run */
    uint32_t slot;
    uint16_t run;
    uint16_t first, end, left;
    struct heap_node nodes[CHUNK_NODES]; /* element NULL: a gap */
};

struct slot {
    struct chunk *chunk; /* NULL: vacant */
    uint32_t next_vacant;
};

struct run {
    struct list chunks;
    uint32_t left;
    uint64_t first_key, last_key; /* UINT64_MAX and 0 when it is empty */
};

struct heap_runs {
    struct run runs[RUNS];
    struct slot *slots;
    uint32_t slots_length, slots_capacity;
    uint32_t vacant; /* the first; slots_length: none */
};

static void run_init(struct run *run)
{
    *run = (struct run){.first_key = UINT64_MAX};
    list_init(&run->chunks);
}

struct heap_runs *heap_runs_create(void)
{
    struct heap_runs *runs = calloc(1, sizeof(*runs));
    for (size_t i = 0; runs != NULL && i < RUNS; i++) {
        run_init(&runs->runs[i]);
    }
    return runs;
}

void heap_runs_destroy(struct heap_runs **runs)
{
    struct heap_runs *gone = TAKE(*runs);
    if (gone == NULL) {
        return;
    }
    for (uint32_t i = 0; i < gone->slots_length; i++) {
        free(gone->slots[i].chunk);
    }
    free(gone->slots);
    free(gone);
}

/* ---- chunks ---- */

static bool grow_slots(struct heap_runs *runs)
{
    const uint32_t capacity = runs->slots_capacity == 0 ? SLOTS_FIRST : runs->slots_capacity * 2;
    if (capacity > SLOTS_MAX) {
        return false;
    }
    struct slot *slots = reallocarray(runs->slots, capacity, sizeof(*slots));
    if (slots == NULL) {
        return false;
    }
    runs->slots = slots;
    runs->slots_capacity = capacity;
    return true;
}

static bool take_slot(struct heap_runs *runs, struct chunk *chunk)
{
    if (runs->vacant == runs->slots_length) {
        if (runs->slots_length == runs->slots_capacity && !grow_slots(runs)) {
            return false;
        }
        runs->slots_length++;
        runs->slots[runs->vacant].next_vacant = runs->slots_length;
    }
    chunk->slot = runs->vacant;
    runs->vacant = runs->slots[chunk->slot].next_vacant;
    runs->slots[chunk->slot].chunk = chunk;
    return true;
}

static struct chunk *add_chunk(struct heap_runs *runs, struct run *run)
{
    struct chunk *chunk = malloc(sizeof(*chunk));
    if (chunk == NULL) {
        return NULL;
    }
    chunk->run = (uint16_t)(run - runs->runs);
    chunk->first = chunk->end = chunk->left = 0;
    if (!take_slot(runs, chunk)) {
        free(chunk);
        return NULL;
    }
    list_append(&run->chunks, &chunk->link);
    return chunk;
}

static struct chunk *first_chunk(const struct run *run)
{
    struct list_link *link = list_first(&run->chunks);
    return link == NULL ? NULL : CONTAINER_OF(link, struct chunk, link);
}

static struct chunk *last_chunk(const struct run *run)
{
    return list_is_empty(&run->chunks)
               ? NULL
               : CONTAINER_OF(run->chunks.head.previous, struct chunk, link);
}

static void note_ends(struct run *run)
{
    const struct chunk *first = first_chunk(run);
    const struct chunk *last = last_chunk(run);
    run->first_key = first == NULL ? UINT64_MAX : first->nodes[first->first].key;
    run->last_key = last == NULL ? 0 : last->nodes[last->end - 1].key;
}

static void drop_chunk(struct heap_runs *runs, struct chunk *chunk)
{
    runs->slots[chunk->slot] = (struct slot){.next_vacant = runs->vacant};
    runs->vacant = chunk->slot;
    list_remove(&runs->runs[chunk->run].chunks, &chunk->link);
    free(chunk);
}

/* ---- pushing ---- */

/* Of the runs that it may follow in, the one that it follows most closely: the others are for
 * smaller keys. */
static struct run *choose(struct heap_runs *runs, uint64_t key)
{
    struct run *best = NULL;
    for (size_t i = 0; i < RUNS; i++) {
        struct run *run = &runs->runs[i];
        if (run->last_key <= key && (best == NULL || run->last_key > best->last_key)) {
            best = run;
        }
    }
    return best;
}

bool heap_runs_push(struct heap_runs *runs, struct heap_node node, uint32_t *ret_position)
{
    struct run *run = choose(runs, node.key);
    if (run == NULL) {
        return false;
    }
    const bool is_full = list_is_empty(&run->chunks) || last_chunk(run)->end == CHUNK_NODES;
    struct chunk *chunk = is_full ? add_chunk(runs, run) : last_chunk(run);
    if (chunk == NULL) {
        return false;
    }
    *ret_position = IN_RUNS | chunk->slot << OFFSET_BITS | chunk->end;
    chunk->nodes[chunk->end++] = node;
    chunk->left++;
    run->left++;
    note_ends(run);
    return true;
}

/* ---- looking ---- */

const struct heap_node *heap_runs_first(const struct heap_runs *runs)
{
    const struct run *best = &runs->runs[0];
    for (size_t i = 1; i < RUNS; i++) {
        best = runs->runs[i].first_key < best->first_key ? &runs->runs[i] : best;
    }
    const struct chunk *chunk = first_chunk(best);
    return chunk == NULL ? NULL : &chunk->nodes[chunk->first];
}

static struct chunk *chunk_at(const struct heap_runs *runs, uint32_t position)
{
    const uint32_t slot = (position & ~IN_RUNS) >> OFFSET_BITS;
    return (position & IN_RUNS) == 0 || slot >= runs->slots_length ? NULL : runs->slots[slot].chunk;
}

static uint32_t offset_of(uint32_t position)
{
    return position & ((1U << OFFSET_BITS) - 1);
}

bool heap_runs_contain(const struct heap_runs *runs, uint32_t position, const void *element)
{
    const struct chunk *chunk = chunk_at(runs, position);
    const uint32_t offset = offset_of(position);
    return chunk != NULL && offset >= chunk->first && offset < chunk->end &&
           chunk->nodes[offset].element == element;
}

static uint32_t count_in_chunk(const struct chunk *chunk, uint64_t key)
{
    uint32_t below = 0;
    for (uint32_t i = chunk->first; i < chunk->end && chunk->nodes[i].key < key; i++) {
        below += chunk->nodes[i].element != NULL;
    }
    return below;
}

/* Of so many from this chunk on, as if their keys were spread evenly. */
static uint32_t share_below(const struct run *run, const struct chunk *from, uint64_t key,
                            uint32_t left)
{
    const uint64_t first_key = from->nodes[from->first].key;
    const double share = (double)(key - first_key) / (double)(run->last_key - first_key);
    return (uint32_t)((double)left * share);
}

static uint32_t count_in_run(const struct run *run, uint64_t key, uint32_t looked_at_max)
{
    if (run->last_key < key) {
        return run->left;
    }
    uint32_t below = 0;
    list_for_each (&run->chunks, link) {
        const struct chunk *chunk = CONTAINER_OF(link, struct chunk, link);
        if (chunk->nodes[chunk->end - 1].key >= key) {
            return below + count_in_chunk(chunk, key);
        }
        if (below >= looked_at_max) {
            return below + share_below(run, chunk, key, run->left - below);
        }
        below += chunk->left;
    }
    return below;
}

uint32_t heap_runs_count_below(const struct heap_runs *runs, uint64_t key, uint32_t looked_at_max)
{
    uint32_t below = 0;
    for (size_t i = 0; i < RUNS; i++) {
        below += count_in_run(&runs->runs[i], key, looked_at_max);
    }
    return below;
}

/* ---- removing ---- */

/* Who takes the first out wants the next ones soon; without a backlog they are in the cache anyway.
 */
static void fetch_ahead(const struct chunk *chunk)
{
    const uint32_t offset = chunk->first + AHEAD;
    const char *element = offset < chunk->end ? chunk->nodes[offset].element : NULL;
    for (size_t i = 0; element != NULL && i < FETCHED_BYTES; i += CACHE_LINE_BYTES) {
        __builtin_prefetch(element + i, 1);
    }
}

static void trim(struct chunk *chunk)
{
    while (chunk->nodes[chunk->first].element == NULL) {
        chunk->first++;
    }
    while (chunk->nodes[chunk->end - 1].element == NULL) {
        chunk->end--;
    }
}

static void give_up(struct heap_runs *runs, struct chunk *chunk,
                    void (*evict)(void *context, struct heap_node node), void *context)
{
    for (uint32_t i = chunk->first; i < chunk->end; i++) {
        if (chunk->nodes[i].element != NULL) {
            evict(context, chunk->nodes[i]);
        }
    }
    runs->runs[chunk->run].left -= chunk->left;
    drop_chunk(runs, chunk);
}

void heap_runs_remove(struct heap_runs *runs, uint32_t position,
                      void (*evict)(void *context, struct heap_node node), void *context)
{
    struct chunk *chunk = chunk_at(runs, position);
    assert(chunk != NULL);
    struct run *run = &runs->runs[chunk->run];
    chunk->nodes[offset_of(position)].element = NULL;
    chunk->left--;
    run->left--;
    if (chunk->left == 0) {
        drop_chunk(runs, chunk);
    } else {
        trim(chunk);
        fetch_ahead(chunk);
        if (chunk->left * SPARSE < chunk->end - chunk->first) {
            give_up(runs, chunk, evict, context);
        }
    }
    note_ends(run);
}
