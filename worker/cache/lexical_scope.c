#include "worker/cache/lexical_scope.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/accumulator.h"
#include "worker/cache/sparse_vector.h"

enum {
    SLOTS_PER_BLOCK = 1024,
    SCANNED_FIRST = 4,
    SCANNED_MOVED = 4, /* with each entry that is added to a larger scope */
    WAITING_MIN = 64,  /* slots for which a pass begins */
    WAITING_SHARE = 8, /* and at least one in so many of all */
};

static const uint32_t SLOT_IS_LINK = UINT32_C(1) << 31;
static const uint32_t NO_SLOT = POSTING_SLOTS_MAX;

static struct lexical_entry *entry_at(const struct lexical_scope *scope, uint32_t entry)
{
    return block_pool_at(scope->postings.pool, entry);
}

static uint32_t *slot_at(const struct lexical_scope *scope, uint32_t slot)
{
    uint32_t *slots =
        block_pool_at(scope->postings.pool, scope->slot_blocks[slot / SLOTS_PER_BLOCK]);
    return &slots[slot % SLOTS_PER_BLOCK];
}

static const struct slot_list no_slots = {.first = POSTING_SLOTS_MAX, .last = POSTING_SLOTS_MAX};

static void slots_append(const struct lexical_scope *scope, struct slot_list *list, uint32_t slot)
{
    *slot_at(scope, slot) = SLOT_IS_LINK | NO_SLOT;
    if (list->length++ == 0) {
        list->first = slot;
    } else {
        *slot_at(scope, list->last) = SLOT_IS_LINK | slot;
    }
    list->last = slot;
}

static uint32_t slots_take(const struct lexical_scope *scope, struct slot_list *list)
{
    const uint32_t slot = list->first;
    list->first = *slot_at(scope, slot) & ~SLOT_IS_LINK;
    list->length--;
    return slot;
}

static void slots_move_all(const struct lexical_scope *scope, struct slot_list *from,
                           struct slot_list *into)
{
    if (into->length == 0) {
        *into = *from;
    } else if (from->length > 0) {
        *slot_at(scope, into->last) = SLOT_IS_LINK | from->first;
        into->last = from->last;
        into->length += from->length;
    }
    *from = no_slots;
}

uint32_t lexical_scope_create(struct block_pool *pool, const uint8_t id[ID_BYTES])
{
    const uint32_t block = block_pool_alloc(pool, sizeof(struct lexical_scope));
    if (block == 0) {
        return 0;
    }
    struct lexical_scope *scope = block_pool_at(pool, block);
    *scope = (struct lexical_scope){.free = no_slots, .waiting = no_slots, .sweeping = no_slots};
    memcpy(scope->node.id, id, ID_BYTES);
    postings_init(&scope->postings, pool);
    return block;
}

void lexical_scope_destroy(struct block_pool *pool, uint32_t block)
{
    struct lexical_scope *scope = block_pool_at(pool, block);
    for (uint32_t i = 0; i * SLOTS_PER_BLOCK < scope->slots_length; i++) {
        block_pool_free(pool, scope->slot_blocks[i]);
    }
    if (scope->scanned != 0) {
        block_pool_free(pool, scope->scanned);
    }
    postings_finish(&scope->postings);
    lexical_scope_abandon(scope);
    block_pool_free(pool, block);
}

void lexical_scope_abandon(struct lexical_scope *scope)
{
    free(scope->slot_blocks);
    scope->slot_blocks = NULL;
    free(scope->postings.directory);
    scope->postings.directory = NULL;
}

/* Scanned entries */

const uint32_t *lexical_scope_scanned(const struct lexical_scope *scope)
{
    return scope->scanned == 0 ? NULL : block_pool_at(scope->postings.pool, scope->scanned);
}

static int scanned_reserve(struct lexical_scope *scope)
{
    struct block_pool *pool = scope->postings.pool;
    const size_t capacity =
        scope->scanned == 0 ? 0 : block_pool_capacity(pool, scope->scanned) / sizeof(uint32_t);
    if (scope->scanned_length < capacity) {
        return 0;
    }
    const size_t bytes = (capacity == 0 ? SCANNED_FIRST : capacity * 2) * sizeof(uint32_t);
    const uint32_t block = bytes > BLOCK_BYTES_MAX ? 0 : block_pool_alloc(pool, bytes);
    if (block == 0) {
        return -ENOMEM;
    }
    if (scope->scanned != 0) {
        memcpy(block_pool_at(pool, block), lexical_scope_scanned(scope),
               capacity * sizeof(uint32_t));
        block_pool_free(pool, scope->scanned);
    }
    scope->scanned = block;
    return 0;
}

static int scanned_add(struct lexical_scope *scope, uint32_t entry)
{
    const int r = scanned_reserve(scope);
    if (r < 0) {
        return r;
    }
    uint32_t *scanned = block_pool_at(scope->postings.pool, scope->scanned);
    entry_at(scope, entry)->place = LEXICAL_IS_SCANNED | scope->scanned_length;
    scanned[scope->scanned_length++] = entry;
    return 0;
}

static void scanned_remove(struct lexical_scope *scope, uint32_t place)
{
    uint32_t *scanned = block_pool_at(scope->postings.pool, scope->scanned);
    const uint32_t at = place & ~LEXICAL_IS_SCANNED;
    const uint32_t last = scanned[--scope->scanned_length];
    scanned[at] = last;
    entry_at(scope, last)->place = LEXICAL_IS_SCANNED | at;
}

/* Entries with slots */

static int slots_reserve(struct lexical_scope *scope)
{
    if (scope->slots_length % SLOTS_PER_BLOCK != 0) {
        return 0;
    }
    const uint32_t blocks = scope->slots_length / SLOTS_PER_BLOCK;
    if (blocks == scope->slot_blocks_capacity) {
        const uint32_t capacity = blocks == 0 ? 1 : blocks * 2;
        uint32_t *slot_blocks = realloc(scope->slot_blocks, capacity * sizeof(*slot_blocks));
        if (slot_blocks == NULL) {
            return -ENOMEM;
        }
        scope->slot_blocks = slot_blocks;
        scope->slot_blocks_capacity = capacity;
    }
    const uint32_t block =
        block_pool_alloc(scope->postings.pool, SLOTS_PER_BLOCK * sizeof(uint32_t));
    if (block == 0) {
        return -ENOMEM;
    }
    scope->slot_blocks[blocks] = block;
    return 0;
}

static int slot_give(struct lexical_scope *scope, uint32_t entry)
{
    uint32_t slot;
    if (scope->free.length > 0) {
        slot = slots_take(scope, &scope->free);
    } else {
        const int r = scope->slots_length == POSTING_SLOTS_MAX ? -ENOMEM : slots_reserve(scope);
        if (r < 0) {
            return r;
        }
        slot = scope->slots_length++;
    }
    *slot_at(scope, slot) = entry;
    entry_at(scope, entry)->place = slot;
    return 0;
}

/*
 * The least weight of the items that get postings, and how many of just that weight do: the
 * heaviest LEXICAL_POSTINGS. The others are in most entries and would make the longest lists.
 */
static uint32_t least_weight(const struct lexical_entry *entry, uint32_t *ret_ties)
{
    uint16_t counts[SPARSE_WEIGHT_MAX + 1] = {0};
    for (uint32_t i = 0; i < entry->length; i++) {
        counts[sparse_weight(entry->items[i])]++;
    }
    uint32_t left = LEXICAL_POSTINGS;
    uint32_t weight = SPARSE_WEIGHT_MAX;
    while (weight > 1 && counts[weight] < left) {
        left -= counts[weight--];
    }
    *ret_ties = left;
    return weight;
}

static void entry_post(struct lexical_scope *scope, const struct lexical_entry *entry)
{
    const float scale = (float)ACCUMULATOR_UNIT / sqrtf((float)entry->norm_squared);
    uint32_t ties;
    const uint32_t least = least_weight(entry, &ties);
    for (uint32_t i = 0; i < entry->length; i++) {
        const uint32_t weight = sparse_weight(entry->items[i]);
        if (weight < least || (weight == least && ties == 0)) {
            continue;
        }
        ties -= weight == least;
        const uint32_t scaled = (uint32_t)((float)weight * scale + 0.5F);
        if (postings_add(&scope->postings, sparse_bucket(entry->items[i]),
                         posting_of(entry->place, scaled == 0 ? 1 : scaled)) < 0) {
            scope->postings_lost++;
        }
    }
}

static void scanned_move(struct lexical_scope *scope)
{
    for (size_t i = 0; i < SCANNED_MOVED && scope->scanned_length > 0; i++) {
        const uint32_t entry = lexical_scope_scanned(scope)[scope->scanned_length - 1];
        if (slot_give(scope, entry) < 0) {
            return;
        }
        scope->scanned_length--;
        entry_post(scope, entry_at(scope, entry));
    }
}

int lexical_scope_add(struct lexical_scope *scope, uint32_t entry)
{
    if (scope->live >= LEXICAL_SCANNED && slot_give(scope, entry) == 0) {
        entry_post(scope, entry_at(scope, entry));
    } else {
        const int r = scanned_add(scope, entry);
        if (r < 0) {
            return r;
        }
    }
    scope->live++;
    if (scope->live > LEXICAL_SCANNED) {
        scanned_move(scope);
    }
    return 0;
}

void lexical_scope_remove(struct lexical_scope *scope, uint32_t entry)
{
    const uint32_t place = entry_at(scope, entry)->place;
    if ((place & LEXICAL_IS_SCANNED) != 0) {
        scanned_remove(scope, place);
    } else {
        slots_append(scope, &scope->waiting, place);
    }
    scope->live--;
}

uint32_t lexical_scope_entry(const struct lexical_scope *scope, uint32_t slot)
{
    const uint32_t value = *slot_at(scope, slot);
    return (value & SLOT_IS_LINK) != 0 ? 0 : value;
}

/* Sweeping */

bool lexical_scope_should_sweep(const struct lexical_scope *scope)
{
    if (scope->live == 0) {
        return !lexical_scope_is_empty(scope);
    }
    const uint32_t waiting = scope->waiting.length;
    return scope->is_sweeping ||
           (waiting >= WAITING_MIN &&
            waiting >= (scope->slots_length - scope->free.length) / WAITING_SHARE);
}

static bool slot_is_dead(const void *context, uint32_t slot)
{
    return lexical_scope_entry(context, slot) == 0;
}

bool lexical_scope_sweep(struct lexical_scope *scope, size_t postings)
{
    if (!scope->is_sweeping) {
        slots_move_all(scope, &scope->waiting, &scope->sweeping);
        scope->is_sweeping = true;
    }
    if (!postings_sweep(&scope->postings, postings, slot_is_dead, scope)) {
        return false;
    }
    slots_move_all(scope, &scope->sweeping, &scope->free);
    scope->is_sweeping = false;
    return true;
}

bool lexical_scope_is_empty(const struct lexical_scope *scope)
{
    return scope->live == 0 && scope->waiting.length == 0 && scope->sweeping.length == 0;
}

size_t lexical_scope_directory_bytes(const struct lexical_scope *scope)
{
    return scope->slot_blocks_capacity * sizeof(uint32_t) +
           postings_directory_bytes(&scope->postings);
}
