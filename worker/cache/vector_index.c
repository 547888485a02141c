#include "worker/cache/vector_index.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/id_table.h"
#include "worker/cache/vector_cell.h"

enum { CELLS_FIRST = 1, PREFETCHED = 4, CACHE_LINE_BYTES = 64 };

struct vector_scope {
    struct id_node node;
    uint32_t length; /* of entries */
    uint32_t *cells; /* blocks */
    uint32_t cells_length;
    uint32_t cells_capacity;
};

struct vector_index {
    struct vector_index_options options;
    struct block_pool pool;
    struct vector_space space;
    struct id_table entries;
    struct id_table scopes;
    uint64_t cells;
    size_t directory_bytes; /* of all scopes */
};

_Static_assert((int)VECTOR_KEY_BYTES == (int)ID_BYTES, "keys are ids");
_Static_assert((int)VECTOR_SCOPE_BYTES == (int)ID_BYTES, "scopes are ids");
_Static_assert(sizeof(struct vector_entry) + VECTOR_DIMENSIONS_MAX + VECTOR_NOTE_BYTES_MAX <=
                   BLOCK_BYTES_MAX,
               "the largest entry is a block");

static struct vector_scope *scope_at(const struct vector_index *index, uint32_t block)
{
    return block_pool_at(&index->pool, block);
}

int vector_index_create(const struct vector_index_options *options, struct vector_index **ret_index)
{
    if (options->dimensions == 0 || options->dimensions > VECTOR_DIMENSIONS_MAX ||
        options->entries_max == 0) {
        return -EINVAL;
    }
    struct vector_index *index = calloc(1, sizeof(*index));
    if (index == NULL) {
        return -ENOMEM;
    }
    index->options = *options;
    block_pool_init(&index->pool);
    id_table_init(&index->entries, &index->pool);
    id_table_init(&index->scopes, &index->pool);
    index->space = (struct vector_space){.pool = &index->pool,
                                         .padded = (options->dimensions + VECTOR_PAD - 1) /
                                                   VECTOR_PAD * VECTOR_PAD};
    *ret_index = index;
    return 0;
}

static void abandon_scope(void *context, uint32_t block)
{
    free(scope_at(context, block)->cells);
}

void vector_index_destroy(struct vector_index **index)
{
    struct vector_index *old = TAKE(*index);
    if (old == NULL) {
        return;
    }
    id_table_visit(&old->scopes, abandon_scope, old);
    id_table_finish(&old->entries);
    id_table_finish(&old->scopes);
    block_pool_finish(&old->pool);
    free(old);
}

/* Scopes and their cells */

static int cells_append(struct vector_index *index, struct vector_scope *scope, uint32_t cell)
{
    if (scope->cells_length == scope->cells_capacity) {
        const uint32_t capacity =
            scope->cells_capacity == 0 ? CELLS_FIRST : scope->cells_capacity * 2;
        uint32_t *cells = realloc(scope->cells, capacity * sizeof(*cells));
        if (cells == NULL) {
            return -ENOMEM;
        }
        index->directory_bytes += (capacity - scope->cells_capacity) * sizeof(*cells);
        scope->cells = cells;
        scope->cells_capacity = capacity;
    }
    vector_cell_at(&index->space, cell)->place = scope->cells_length;
    scope->cells[scope->cells_length++] = cell;
    index->cells++;
    return 0;
}

static void cells_remove(struct vector_index *index, struct vector_scope *scope, uint32_t cell)
{
    const uint32_t place = vector_cell_at(&index->space, cell)->place;
    const uint32_t last = scope->cells[--scope->cells_length];
    scope->cells[place] = last;
    vector_cell_at(&index->space, last)->place = place;
    vector_cell_destroy(&index->space, cell);
    index->cells--;
}

static void scope_destroy(struct vector_index *index, uint32_t block)
{
    struct vector_scope *scope = scope_at(index, block);
    while (scope->cells_length > 0) {
        cells_remove(index, scope, scope->cells[0]);
    }
    index->directory_bytes -= scope->cells_capacity * sizeof(*scope->cells);
    free(scope->cells);
    block_pool_free(&index->pool, block);
}

/* With one empty cell. 0: no memory. */
static uint32_t scope_create(struct vector_index *index, const uint8_t *id)
{
    const uint32_t block = block_pool_alloc(&index->pool, sizeof(struct vector_scope));
    const uint32_t cell = block == 0 ? 0 : vector_cell_create(&index->space);
    if (cell == 0) {
        if (block != 0) {
            block_pool_free(&index->pool, block);
        }
        return 0;
    }
    struct vector_scope *scope = scope_at(index, block);
    *scope = (struct vector_scope){.length = 0};
    memcpy(scope->node.id, id, ID_BYTES);
    if (cells_append(index, scope, cell) < 0) {
        vector_cell_destroy(&index->space, cell);
        block_pool_free(&index->pool, block);
        return 0;
    }
    if (id_table_insert(&index->scopes, block) < 0) {
        scope_destroy(index, block);
        return 0;
    }
    return block;
}

static void scope_drop_if_empty(struct vector_index *index, uint32_t block)
{
    if (scope_at(index, block)->length == 0) {
        id_table_remove(&index->scopes, block);
        scope_destroy(index, block);
    }
}

static float centre_likeness(const struct vector_index *index, uint32_t cell_block,
                             const int8_t *padded_values)
{
    const struct vector_cell *cell = vector_cell_at(&index->space, cell_block);
    return (float)vector_dot(cell->centre, padded_values, index->space.padded) * cell->inverse_norm;
}

/* Another than `except`; 0: there is none. */
static uint32_t nearest_cell(const struct vector_index *index, const struct vector_scope *scope,
                             const int8_t *padded_values, uint32_t except)
{
    uint32_t nearest = 0;
    float most = -INFINITY;
    if (scope->cells_length == 1) {
        return scope->cells[0] == except ? 0 : scope->cells[0];
    }
    for (uint32_t i = 0; i < scope->cells_length; i++) {
        if (scope->cells[i] == except) {
            continue;
        }
        const float like = centre_likeness(index, scope->cells[i], padded_values);
        if (like > most) {
            most = like;
            nearest = scope->cells[i];
        }
    }
    return nearest;
}

/* Without memory the cell stays as it is, until there is one more entry. */
static void cell_split_if_full(struct vector_index *index, struct vector_scope *scope,
                               uint32_t cell)
{
    if (vector_cell_at(&index->space, cell)->length < CELL_SPLIT) {
        return;
    }
    const uint32_t right = vector_cell_split(&index->space, cell);
    if (right != 0 && cells_append(index, scope, right) < 0) {
        const int r = vector_cell_join(&index->space, right, cell);
        assert(r == 0); /* the list they come from has room still */
        (void)r;
        vector_cell_destroy(&index->space, right);
    }
}

static void cell_join_if_few(struct vector_index *index, struct vector_scope *scope, uint32_t block)
{
    const struct vector_cell *cell = vector_cell_at(&index->space, block);
    if (cell->length >= CELL_JOINED || scope->cells_length == 1) {
        return;
    }
    const uint32_t into = nearest_cell(index, scope, cell->centre, block);
    if (vector_cell_join(&index->space, block, into) == 0) {
        cells_remove(index, scope, block);
        cell_split_if_full(index, scope, into);
    }
}

/* Entries */

static uint32_t entry_create(struct vector_index *index, const uint8_t *key, const int8_t *values,
                             const void *note, size_t note_bytes)
{
    const size_t padded = index->space.padded;
    const uint32_t block =
        block_pool_alloc(&index->pool, sizeof(struct vector_entry) + padded + note_bytes);
    if (block == 0) {
        return 0;
    }
    struct vector_entry *entry = vector_entry_at(&index->space, block);
    *entry = (struct vector_entry){.note_bytes = (uint32_t)note_bytes};
    memcpy(entry->node.id, key, ID_BYTES);
    memset(entry->values, 0, padded);
    memcpy(entry->values, values, index->options.dimensions);
    if (note_bytes > 0) {
        memcpy(entry->values + padded, note, note_bytes);
    }
    entry->inverse_norm = 1 / sqrtf((float)vector_dot(entry->values, entry->values, padded));
    return block;
}

static void entry_remove(struct vector_index *index, uint32_t block)
{
    const uint32_t scope_block = vector_entry_at(&index->space, block)->scope;
    const uint32_t cell = vector_entry_at(&index->space, block)->cell;
    struct vector_scope *scope = scope_at(index, scope_block);
    id_table_remove(&index->entries, block);
    vector_cell_remove(&index->space, block);
    block_pool_free(&index->pool, block);
    scope->length--;
    cell_join_if_few(index, scope, cell);
    scope_drop_if_empty(index, scope_block);
}

static int entry_place(struct vector_index *index, const uint8_t *scope_id, uint32_t block)
{
    const uint32_t found = id_table_find(&index->scopes, scope_id);
    const uint32_t scope_block = found != 0 ? found : scope_create(index, scope_id);
    if (scope_block == 0) {
        return -ENOMEM;
    }
    struct vector_scope *scope = scope_at(index, scope_block);
    struct vector_entry *entry = vector_entry_at(&index->space, block);
    const uint32_t cell = nearest_cell(index, scope, entry->values, 0);
    entry->scope = scope_block;
    int r = id_table_insert(&index->entries, block);
    if (r == 0) {
        r = vector_cell_add(&index->space, cell, block);
        if (r < 0) {
            id_table_remove(&index->entries, block);
        }
    }
    if (r < 0) {
        scope_drop_if_empty(index, scope_block);
        return r;
    }
    scope->length++;
    cell_split_if_full(index, scope, cell);
    return 0;
}

static size_t bytes_used(const struct vector_index *index)
{
    return sizeof(*index) + index->pool.bytes_used + index->directory_bytes +
           id_table_directory_bytes(&index->entries) + id_table_directory_bytes(&index->scopes);
}

static bool is_zero(const int8_t *values, size_t dimensions)
{
    for (size_t i = 0; i < dimensions; i++) {
        if (values[i] != 0) {
            return false;
        }
    }
    return true;
}

int vector_index_add(struct vector_index *index, const uint8_t scope[VECTOR_SCOPE_BYTES],
                     const uint8_t key[VECTOR_KEY_BYTES], const int8_t *values, const void *note,
                     size_t note_bytes)
{
    const uint32_t old = id_table_find(&index->entries, key);
    if (note_bytes > VECTOR_NOTE_BYTES_MAX || is_zero(values, index->options.dimensions)) {
        return -EINVAL;
    }
    if (old == 0 && (index->entries.length >= index->options.entries_max ||
                     bytes_used(index) >= index->options.bytes_max)) {
        return -ENOBUFS;
    }
    const uint32_t block = entry_create(index, key, values, note, note_bytes);
    if (block == 0) {
        return -ENOMEM;
    }
    const int r = entry_place(index, scope, block);
    if (r < 0) {
        block_pool_free(&index->pool, block);
        return r;
    }
    if (old != 0) {
        entry_remove(index, old);
    }
    return 0;
}

bool vector_index_remove(struct vector_index *index, const uint8_t key[VECTOR_KEY_BYTES])
{
    const uint32_t block = id_table_find(&index->entries, key);
    if (block != 0) {
        entry_remove(index, block);
    }
    return block != 0;
}

bool vector_index_has(const struct vector_index *index, const uint8_t key[VECTOR_KEY_BYTES])
{
    return id_table_find(&index->entries, key) != 0;
}

/* Searching */

struct search {
    const struct vector_index *index;
    int8_t values[VECTOR_DIMENSIONS_MAX]; /* padded */
    float inverse_norm;
    double cosine_min;
    size_t hits_max;
    struct vector_hit *hits;
    size_t length;
};

static void search_offer(struct search *search, const struct vector_entry *entry, double cosine)
{
    if (search->length < search->hits_max) {
        search->length++;
    }
    size_t at = search->length - 1;
    while (at > 0 && search->hits[at - 1].cosine < cosine) {
        search->hits[at] = search->hits[at - 1];
        at--;
    }
    search->hits[at] = (struct vector_hit){.key = entry->node.id,
                                           .cosine = cosine,
                                           .note = entry->values + search->index->space.padded,
                                           .note_bytes = entry->note_bytes};
}

static void prefetch(const struct vector_entry *entry, size_t padded)
{
    for (size_t at = 0; at < sizeof(*entry) + padded; at += CACHE_LINE_BYTES) {
        __builtin_prefetch((const char *)entry + at);
    }
}

static void search_cell(struct search *search, uint32_t cell_block)
{
    const struct vector_space *space = &search->index->space;
    const struct vector_cell *cell = vector_cell_at(space, cell_block);
    const uint32_t *entries = vector_cell_entries(space, cell);
    for (uint32_t i = 0; i < cell->length; i++) {
        if (i + PREFETCHED < cell->length) {
            prefetch(vector_entry_at(space, entries[i + PREFETCHED]), space->padded);
        }
        const struct vector_entry *entry = vector_entry_at(space, entries[i]);
        const double cosine = (double)vector_dot(entry->values, search->values, space->padded) *
                              (double)entry->inverse_norm * (double)search->inverse_norm;
        const double worst = search->length < search->hits_max
                                 ? search->cosine_min
                                 : search->hits[search->length - 1].cosine;
        if (cosine > worst || (cosine >= worst && search->length < search->hits_max)) {
            search_offer(search, entry, cosine);
        }
    }
}

struct near_cell {
    float likeness;
    uint32_t cell;
};

static void sift_down(struct near_cell *heap, size_t length, size_t at)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= length) {
            return;
        }
        child += child + 1 < length && heap[child + 1].likeness > heap[child].likeness;
        if (heap[at].likeness >= heap[child].likeness) {
            return;
        }
        const struct near_cell moved = heap[at];
        heap[at] = heap[child];
        heap[child] = moved;
        at = child;
    }
}

/* The nearest cells first, from a heap, since most are never asked for. */
static int search_nearest(struct search *search, const struct vector_scope *scope)
{
    const struct vector_space *space = &search->index->space;
    const size_t share = scope->length / VECTOR_SCANNED_SHARE;
    const size_t wanted = share < VECTOR_SCANNED_MIN ? VECTOR_SCANNED_MIN : share;
    size_t length = scope->cells_length;
    struct near_cell *heap = calloc(length, sizeof(*heap));
    if (heap == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < length; i++) {
        heap[i] = (struct near_cell){
            .likeness = centre_likeness(search->index, scope->cells[i], search->values),
            .cell = scope->cells[i]};
    }
    for (size_t i = length / 2; i-- > 0;) {
        sift_down(heap, length, i);
    }
    for (size_t scanned = 0; scanned < wanted && length > 0;) {
        search_cell(search, heap[0].cell);
        scanned += vector_cell_at(space, heap[0].cell)->length;
        heap[0] = heap[--length];
        sift_down(heap, length, 0);
    }
    free(heap);
    return 0;
}

static void search_all(struct search *search, const struct vector_scope *scope)
{
    for (uint32_t i = 0; i < scope->cells_length; i++) {
        search_cell(search, scope->cells[i]);
    }
}

int vector_index_best(const struct vector_index *index, const uint8_t scope_id[VECTOR_SCOPE_BYTES],
                      const int8_t *values, double cosine_min, size_t hits_max,
                      struct vector_hit ret_hits[VECTOR_HITS_MAX], size_t *ret_length)
{
    const uint32_t block = id_table_find(&index->scopes, scope_id);
    struct search search = {
        .index = index, .cosine_min = cosine_min, .hits_max = hits_max, .hits = ret_hits};
    assert(hits_max > 0);
    assert(hits_max <= VECTOR_HITS_MAX);
    if (block == 0 || is_zero(values, index->options.dimensions)) {
        *ret_length = 0;
        return 0;
    }
    memcpy(search.values, values, index->options.dimensions);
    search.inverse_norm =
        1 / sqrtf((float)vector_dot(search.values, search.values, index->space.padded));
    const struct vector_scope *scope = scope_at(index, block);
    if (scope->length > VECTOR_SCANNED_MIN) {
        const int r = search_nearest(&search, scope);
        if (r < 0) {
            return r;
        }
    } else {
        search_all(&search, scope);
    }
    *ret_length = search.length;
    return 0;
}

void vector_index_read_stats(const struct vector_index *index, struct vector_index_stats *ret_stats)
{
    *ret_stats = (struct vector_index_stats){
        .entries = index->entries.length,
        .scopes = index->scopes.length,
        .cells = index->cells,
        .bytes_used = bytes_used(index),
        .bytes = bytes_used(index) - index->pool.bytes_used + block_pool_bytes(&index->pool),
    };
}
