/*
 * Searching, "nearly exact": q's lists are read in the order of what they cost for what they weigh.
 * Entries of which nothing was read are out of reach once what is left of q weighs less than
 * cosine_min; among the others the best by what was read are compared exactly, until what was read
 * of the next, and half of what is left of q, is less than the worst hit (max-score's bound counts
 * on all of it).
 */
#include "worker/cache/lexical_index.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "worker/cache/accumulator.h"
#include "worker/cache/key_sort.h"
#include "worker/cache/lexical_scope.h"
#include "worker/cache/sparse_table.h"

enum {
    SWEEP_POSTINGS = 1536, /* with each change */
    WORK_STEPS = 4,
    /* Of a search. The first is what costs nothing worth saving; the second is some 300 µs, the
     * third lets it grow a little with a very large scope. */
    READ_MIN = 10000,
    READ_MAX = 150000,
    READ_MAX_SHARE = 4,
    PREFETCHED = 6,
    LISTS_AHEAD = 2,
    CLOCK_POSTINGS = 2048, /* some 6 µs: what is worth a look at the clock */
    CACHE_LINE_BYTES = 64,
};

/* Rounding of weights in postings, and items of long texts that have none. */
static const double READ_ERROR = 0.03;
/*
 * How much of what is left of q an entry is taken to have, of the most that it could. What is left
 * are q's most common items, and hardly an entry consists of nothing else: counting on half of it
 * loses one hit more in a thousand (none above a cosine of 0.7), and takes two fifths off the
 * slowest searches.
 */
static const double UNREAD_SHARE = 0.5;

struct lexical_index {
    struct lexical_index_options options;
    struct block_pool pool;
    struct id_table entries;
    struct id_table scopes;
    struct accumulator accumulator;
    size_t directory_bytes; /* of all scopes */
    uint64_t postings;
    uint64_t postings_lost;
    uint64_t slots_waiting;
    uint64_t searches_cut;
    uint32_t queue_first; /* scopes to be swept; 0: none */
    uint32_t queue_last;
};

_Static_assert((int)LEXICAL_KEY_BYTES == (int)ID_BYTES, "keys are ids");
_Static_assert((int)LEXICAL_SCOPE_BYTES == (int)ID_BYTES, "scopes are ids");
_Static_assert(sizeof(struct lexical_entry) + sizeof(uint32_t) * SPARSE_ITEMS_MAX +
                       LEXICAL_NOTE_BYTES_MAX <=
                   BLOCK_BYTES_MAX,
               "the largest entry is a block");

static struct lexical_entry *entry_at(const struct lexical_index *index, uint32_t block)
{
    return block_pool_at(&index->pool, block);
}

static struct lexical_scope *scope_at(const struct lexical_index *index, uint32_t block)
{
    return block_pool_at(&index->pool, block);
}

int lexical_index_create(const struct lexical_index_options *options,
                         struct lexical_index **ret_index)
{
    if (options->entries_max == 0 || options->entries_max > LEXICAL_ENTRIES_MAX) {
        return -EINVAL;
    }
    struct lexical_index *index = calloc(1, sizeof(*index));
    if (index == NULL) {
        return -ENOMEM;
    }
    index->options = *options;
    block_pool_init(&index->pool);
    id_table_init(&index->entries, &index->pool);
    id_table_init(&index->scopes, &index->pool);
    *ret_index = index;
    return 0;
}

static void abandon_scope(void *context, uint32_t block)
{
    lexical_scope_abandon(scope_at(context, block));
}

void lexical_index_destroy(struct lexical_index **index)
{
    struct lexical_index *old = TAKE(*index);
    if (old == NULL) {
        return;
    }
    id_table_visit(&old->scopes, abandon_scope, old);
    id_table_finish(&old->entries);
    id_table_finish(&old->scopes);
    accumulator_finish(&old->accumulator);
    block_pool_finish(&old->pool);
    free(old);
}

/* What a scope counts goes into the index's counts: out before a change, in after it. */
static void scope_uncount(struct lexical_index *index, const struct lexical_scope *scope)
{
    index->directory_bytes -= lexical_scope_directory_bytes(scope);
    index->postings -= scope->postings.length;
    index->postings_lost -= scope->postings_lost;
    index->slots_waiting -= scope->waiting.length + scope->sweeping.length;
}

static void scope_count(struct lexical_index *index, const struct lexical_scope *scope)
{
    index->directory_bytes += lexical_scope_directory_bytes(scope);
    index->postings += scope->postings.length;
    index->postings_lost += scope->postings_lost;
    index->slots_waiting += scope->waiting.length + scope->sweeping.length;
}

static uint32_t scope_find_or_add(struct lexical_index *index, const uint8_t *id)
{
    const uint32_t found = id_table_find(&index->scopes, id);
    if (found != 0) {
        return found;
    }
    const uint32_t block = lexical_scope_create(&index->pool, id);
    if (block != 0 && id_table_insert(&index->scopes, block) < 0) {
        lexical_scope_destroy(&index->pool, block);
        return 0;
    }
    return block;
}

static void scope_drop_if_empty(struct lexical_index *index, uint32_t block)
{
    struct lexical_scope *scope = scope_at(index, block);
    if (!lexical_scope_is_empty(scope) || scope->is_queued) {
        return;
    }
    scope_uncount(index, scope);
    id_table_remove(&index->scopes, block);
    lexical_scope_destroy(&index->pool, block);
}

/* Cleaning up */

static void queue_append(struct lexical_index *index, uint32_t block)
{
    struct lexical_scope *scope = scope_at(index, block);
    if (scope->is_queued || !lexical_scope_should_sweep(scope)) {
        return;
    }
    scope->is_queued = true;
    scope->queue_next = 0;
    if (index->queue_first == 0) {
        index->queue_first = block;
    } else {
        scope_at(index, index->queue_last)->queue_next = block;
    }
    index->queue_last = block;
}

static void sweep_step(struct lexical_index *index)
{
    const uint32_t block = index->queue_first;
    if (block == 0) {
        return;
    }
    struct lexical_scope *scope = scope_at(index, block);
    scope_uncount(index, scope);
    const bool is_done = lexical_scope_sweep(scope, SWEEP_POSTINGS);
    scope_count(index, scope);
    if (is_done) {
        index->queue_first = scope->queue_next;
        scope->is_queued = false;
        queue_append(index, block);
        scope_drop_if_empty(index, block);
    }
}

bool lexical_index_work(struct lexical_index *index)
{
    for (size_t i = 0; i < WORK_STEPS; i++) {
        sweep_step(index);
    }
    return index->queue_first != 0;
}

/* Entries */

static size_t bytes_used(const struct lexical_index *index)
{
    return sizeof(*index) + index->pool.bytes_used + index->directory_bytes +
           id_table_directory_bytes(&index->entries) + id_table_directory_bytes(&index->scopes) +
           accumulator_bytes(&index->accumulator);
}

static uint32_t entry_create(struct lexical_index *index, const uint8_t *key,
                             const struct sparse_vector *vector, const void *note,
                             size_t note_bytes)
{
    const size_t items_bytes = vector->length * sizeof(uint32_t);
    const uint32_t block =
        block_pool_alloc(&index->pool, sizeof(struct lexical_entry) + items_bytes + note_bytes);
    if (block == 0) {
        return 0;
    }
    struct lexical_entry *entry = entry_at(index, block);
    *entry = (struct lexical_entry){.norm_squared = vector->norm_squared,
                                    .length = vector->length,
                                    .note_bytes = (uint16_t)note_bytes};
    memcpy(entry->node.id, key, ID_BYTES);
    memcpy(entry->items, vector->items, items_bytes);
    if (note_bytes > 0) {
        memcpy(entry->items + vector->length, note, note_bytes);
    }
    return block;
}

static void entry_remove(struct lexical_index *index, uint32_t block)
{
    const uint32_t scope_block = entry_at(index, block)->scope;
    struct lexical_scope *scope = scope_at(index, scope_block);
    scope_uncount(index, scope);
    lexical_scope_remove(scope, block);
    scope_count(index, scope);
    id_table_remove(&index->entries, block);
    block_pool_free(&index->pool, block);
    queue_append(index, scope_block);
    scope_drop_if_empty(index, scope_block);
}

static int entry_place(struct lexical_index *index, const uint8_t *scope_id, uint32_t block)
{
    const uint32_t scope_block = scope_find_or_add(index, scope_id);
    if (scope_block == 0) {
        return -ENOMEM;
    }
    struct lexical_scope *scope = scope_at(index, scope_block);
    entry_at(index, block)->scope = scope_block;
    scope_uncount(index, scope);
    const int r = lexical_scope_add(scope, block);
    scope_count(index, scope);
    if (r < 0) {
        scope_drop_if_empty(index, scope_block);
    }
    return r;
}

int lexical_index_add(struct lexical_index *index, const uint8_t scope[LEXICAL_SCOPE_BYTES],
                      const uint8_t key[LEXICAL_KEY_BYTES], const struct sparse_vector *vector,
                      const void *note, size_t note_bytes)
{
    const uint32_t old = id_table_find(&index->entries, key);
    if (vector->length == 0 || !sparse_vector_is_valid(vector) ||
        note_bytes > LEXICAL_NOTE_BYTES_MAX) {
        return -EINVAL;
    }
    if (old == 0 && (index->entries.length >= index->options.entries_max ||
                     bytes_used(index) >= index->options.bytes_max)) {
        sweep_step(index);
        return -ENOBUFS;
    }
    const uint32_t block = entry_create(index, key, vector, note, note_bytes);
    if (block == 0) {
        return -ENOMEM;
    }
    int r = entry_place(index, scope, block);
    if (r == 0) {
        r = id_table_insert(&index->entries, block);
        if (r < 0) {
            /* Only the very first insertion can fail: there is no old one. */
            lexical_scope_remove(scope_at(index, entry_at(index, block)->scope), block);
            scope_drop_if_empty(index, entry_at(index, block)->scope);
        }
    }
    if (r < 0) {
        block_pool_free(&index->pool, block);
        return r;
    }
    if (old != 0) {
        entry_remove(index, old);
    }
    sweep_step(index);
    return 0;
}

bool lexical_index_remove(struct lexical_index *index, const uint8_t key[LEXICAL_KEY_BYTES])
{
    const uint32_t block = id_table_find(&index->entries, key);
    if (block != 0) {
        entry_remove(index, block);
    }
    sweep_step(index);
    return block != 0;
}

static struct lexical_hit hit_of(const struct lexical_entry *entry, double cosine)
{
    return (struct lexical_hit){.key = entry->node.id,
                                .cosine = cosine,
                                .note = entry->items + entry->length,
                                .note_bytes = entry->note_bytes};
}

bool lexical_index_find(const struct lexical_index *index, const uint8_t key[LEXICAL_KEY_BYTES],
                        struct lexical_hit *ret_hit)
{
    const uint32_t block = id_table_find(&index->entries, key);
    if (block == 0) {
        return false;
    }
    *ret_hit = hit_of(entry_at(index, block), 1);
    return true;
}

/* Searching */

struct search {
    const struct sparse_vector *vector;
    double cosine_min;
    size_t hits_max;
    struct lexical_hit *hits;
    size_t length;
    struct sparse_table table;
};

/* What a cosine must reach to become a hit. */
static double search_worst(const struct search *search)
{
    return search->length < search->hits_max ? search->cosine_min
                                             : search->hits[search->length - 1].cosine;
}

static void search_compare(struct search *search, const struct lexical_entry *entry)
{
    const uint32_t dot = sparse_table_dot(&search->table, entry->items, entry->length);
    const double cosine =
        dot / sqrt((double)search->vector->norm_squared * (double)entry->norm_squared);
    if (dot == 0 || cosine < search_worst(search)) {
        return;
    }
    if (search->length < search->hits_max) {
        search->length++;
    }
    size_t at = search->length - 1;
    while (at > 0 && search->hits[at - 1].cosine < cosine) {
        search->hits[at] = search->hits[at - 1];
        at--;
    }
    search->hits[at] = hit_of(entry, cosine);
}

static void entry_prefetch(const struct lexical_entry *entry)
{
    for (size_t line = 0; line < PREFETCHED; line++) {
        __builtin_prefetch((const char *)entry + line * CACHE_LINE_BYTES);
    }
}

static void search_scanned(struct search *search, const struct lexical_index *index,
                           const struct lexical_scope *scope)
{
    const uint32_t *scanned = lexical_scope_scanned(scope);
    for (uint32_t i = 0; i < scope->scanned_length; i++) {
        if (i + 1 < scope->scanned_length) {
            entry_prefetch(entry_at(index, scanned[i + 1]));
        }
        search_compare(search, entry_at(index, scanned[i]));
    }
}

struct query_list {
    struct posting_list list;
    uint32_t weight; /* of the item */
};

struct query_lists {
    size_t length;
    uint64_t mass; /* what all of them weigh, squared */
    struct query_list lists[SPARSE_ITEMS_MAX];
    uint64_t order[SPARSE_ITEMS_MAX]; /* their indices in the low half: those first that say most
                                         for their length */
};

/* A list's postings for what they weigh; floats that are not negative sort as their bits do. */
static uint64_t cost_of(const struct query_list *list)
{
    const float cost = (float)list->list.length / (float)(list->weight * list->weight);
    uint32_t bits;
    memcpy(&bits, &cost, sizeof(bits));
    return bits;
}

/* The lists of the vector's items. */
static void search_plan(const struct sparse_vector *vector, const struct postings *postings,
                        struct query_lists *ret_plan)
{
    uint64_t scratch[SPARSE_ITEMS_MAX];
    size_t n = 0;
    uint64_t mass = 0;
    for (enum postings_step step = POSTINGS_SEGMENT; step <= POSTINGS_LIST; step++) {
        for (size_t i = 0; i < vector->length; i++) {
            postings_prefetch(postings, sparse_bucket(vector->items[i]), step);
        }
    }
    for (size_t i = 0; i < vector->length; i++) {
        struct query_list *list = &ret_plan->lists[n];
        if (!postings_find(postings, sparse_bucket(vector->items[i]), &list->list)) {
            continue;
        }
        list->weight = sparse_weight(vector->items[i]);
        ret_plan->order[n] = cost_of(list) << 32 | n;
        mass += (uint64_t)list->weight * list->weight;
        n++;
    }
    key_sort(ret_plan->order, scratch, n);
    ret_plan->length = n;
    ret_plan->mass = mass;
}

/* How much of its lists a search has read. */
struct reading {
    int64_t began_ns;
    size_t read;     /* postings */
    size_t timed_at; /* how much when the clock was looked at last */
    size_t read_max;
    bool is_cut; /* by the clock */
};

static void reading_begin(struct reading *reading, const struct lexical_index *index,
                          const struct lexical_scope *scope)
{
    *reading = (struct reading){.read_max = READ_MAX + scope->slots_length / READ_MAX_SHARE};
    if (index->options.read_ns_max > 0) {
        reading->began_ns = clock_monotonic_ns();
    }
}

/* Whether the list may be read, too: a posting takes what those before it took. */
static bool reading_has_room(struct reading *reading, const struct lexical_index *index,
                             size_t length)
{
    const size_t read = reading->read + length;
    if (read > reading->read_max) {
        return false;
    }
    if (index->options.read_ns_max == 0 || reading->read < READ_MIN ||
        read - reading->timed_at < CLOCK_POSTINGS) {
        return true;
    }
    reading->timed_at = reading->read;
    const double took_ns = (double)(clock_monotonic_ns() - reading->began_ns);
    const double share = (double)read / (double)reading->read;
    if (took_ns * share <= (double)index->options.read_ns_max) {
        return true;
    }
    reading->is_cut = true;
    return false;
}

/* Reads lists until the rest cannot matter. Returns the norm of what was not read, of 1. */
static double search_read(const struct search *search, struct lexical_index *index,
                          const struct lexical_scope *scope)
{
    struct query_lists plan;
    search_plan(search->vector, &scope->postings, &plan);
    const size_t n = plan.length;
    uint64_t mass = plan.mass;
    const double whole = search->vector->norm_squared;
    const double scale = ACCUMULATOR_UNIT / sqrt(whole);
    const double enough = search->cosine_min * search->cosine_min * whole / 4;
    struct reading reading;
    reading_begin(&reading, index, scope);
    for (size_t i = 0; i < n && (reading.read < READ_MIN || (double)mass > enough); i++) {
        struct query_list *at = &plan.lists[(uint32_t)plan.order[i]];
        const uint32_t weight = (uint32_t)(at->weight * scale + 0.5);
        const uint32_t *run;
        size_t length;
        if (!reading_has_room(&reading, index, at->list.length)) {
            continue;
        }
        reading.read += at->list.length;
        mass -= (uint64_t)at->weight * at->weight;
        if (i + LISTS_AHEAD < n) {
            posting_list_prefetch(&index->pool,
                                  &plan.lists[(uint32_t)plan.order[i + LISTS_AHEAD]].list);
        }
        while (posting_list_take(&index->pool, &at->list, &run, &length)) {
            accumulator_add(&index->accumulator, run, length, weight == 0 ? 1 : weight);
        }
    }
    index->searches_cut += reading.is_cut;
    return sqrt((double)mass / whole);
}

static bool slot_is_live(const void *context, uint32_t slot)
{
    return lexical_scope_entry(context, slot) != 0;
}

static void search_indexed(struct search *search, struct lexical_index *index,
                           const struct lexical_scope *scope)
{
    const double unit = (double)ACCUMULATOR_UNIT * ACCUMULATOR_UNIT;
    struct accumulated best[ACCUMULATOR_BEST_MAX];
    uint32_t entries[ACCUMULATOR_BEST_MAX];
    const double unread = UNREAD_SHARE * search_read(search, index, scope) + READ_ERROR;
    const double sum_min = (search->cosine_min - unread) * unit;
    const struct accumulator_wanted wanted = {
        .sum_min = sum_min < 1 ? 1 : (uint32_t)sum_min,
        .best_max = ACCUMULATOR_BEST_MAX,
        .near = search->hits_max,
        .slack = (uint32_t)(unread * unit),
        .is_live = slot_is_live,
        .context = scope,
    };
    const size_t n = accumulator_take(&index->accumulator, scope->slots_length, &wanted, best);
    for (size_t i = 0; i < n; i++) {
        entries[i] = lexical_scope_entry(scope, best[i].slot);
    }
    for (size_t i = 0; i < n; i++) {
        if (best[i].sum / unit + unread < search_worst(search)) {
            break;
        }
        if (i + PREFETCHED < n && entries[i + PREFETCHED] != 0) {
            entry_prefetch(entry_at(index, entries[i + PREFETCHED]));
        }
        if (entries[i] != 0) {
            search_compare(search, entry_at(index, entries[i]));
        }
    }
}

int lexical_index_best(struct lexical_index *index, const uint8_t scope_id[LEXICAL_SCOPE_BYTES],
                       const struct sparse_vector *vector, double cosine_min, size_t hits_max,
                       struct lexical_hit ret_hits[LEXICAL_HITS_MAX], size_t *ret_length)
{
    const uint32_t block = id_table_find(&index->scopes, scope_id);
    assert(hits_max > 0);
    assert(hits_max <= LEXICAL_HITS_MAX);
    if (block == 0 || vector->length == 0) {
        *ret_length = 0;
        return 0;
    }
    const struct lexical_scope *scope = scope_at(index, block);
    const int r = accumulator_reserve(&index->accumulator, scope->slots_length);
    if (r < 0) {
        return r;
    }
    struct search search = {
        .vector = vector, .cosine_min = cosine_min, .hits_max = hits_max, .hits = ret_hits};
    sparse_table_fill(&search.table, vector);
    search_scanned(&search, index, scope);
    if (scope->slots_length > 0) {
        search_indexed(&search, index, scope);
    }
    *ret_length = search.length;
    return 0;
}

void lexical_index_read_stats(const struct lexical_index *index,
                              struct lexical_index_stats *ret_stats)
{
    *ret_stats = (struct lexical_index_stats){
        .entries = index->entries.length,
        .scopes = index->scopes.length,
        .postings = index->postings,
        .postings_lost = index->postings_lost,
        .slots_waiting = index->slots_waiting,
        .searches_cut = index->searches_cut,
        .bytes_used = bytes_used(index),
        .bytes = bytes_used(index) - index->pool.bytes_used + block_pool_bytes(&index->pool),
    };
}
