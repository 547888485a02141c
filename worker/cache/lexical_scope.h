/*
 * lexical_scope: the entries of one scope of lexical_index: where they are, and their postings.
 *
 * An entry is placed in the scope's list of those that are scanned, or has a slot and postings. The
 * first LEXICAL_SCANNED are scanned; when there are more, some of them get slots with each new one.
 * A slot whose entry was removed waits until a pass over the postings that began later has ended:
 * before that its postings would be taken for another's.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/cache/id_table.h"
#include "worker/cache/postings.h"

enum {
    LEXICAL_SCANNED = 128,
    LEXICAL_POSTINGS = 96, /* of an entry: its heaviest items */
};

struct lexical_entry {
    struct id_node node; /* by key */
    uint32_t scope;      /* block */
    uint32_t place;      /* slot; or LEXICAL_IS_SCANNED and its index in the scope's list */
    uint32_t norm_squared;
    uint16_t length; /* of items; behind them is the note */
    uint16_t note_bytes;
    uint32_t items[];
};

static const uint32_t LEXICAL_IS_SCANNED = UINT32_C(1) << 31;

/* Lists of slots that hold no entry, linked through the slots. */
struct slot_list {
    uint32_t first;
    uint32_t last;
    uint32_t length;
};

struct lexical_scope {
    struct id_node node; /* by scope id */
    uint32_t live;       /* entries */
    uint32_t scanned;    /* block of entries' blocks; 0: none yet */
    uint32_t scanned_length;
    uint32_t slots_length; /* slots that were ever given out */
    uint32_t *slot_blocks; /* blocks of slots; a slot is an entry's block, or a link */
    uint32_t slot_blocks_capacity;
    struct slot_list free;
    struct slot_list waiting;  /* removed since the pass began */
    struct slot_list sweeping; /* removed before it */
    bool is_sweeping;
    bool is_queued;
    uint32_t queue_next; /* lexical_index's: scopes to be swept */
    uint64_t postings_lost;
    struct postings postings;
};

/* A scope without entries, in a block of the pool. 0: no memory. */
uint32_t lexical_scope_create(struct block_pool *pool, const uint8_t id[ID_BYTES]);
/* It has no entries. */
void lexical_scope_destroy(struct block_pool *pool, uint32_t scope);
/* Frees what the pool does not: before the pool goes as a whole. */
void lexical_scope_abandon(struct lexical_scope *scope);

/*
 * Places an entry, whose scope is set, and moves some that are scanned into slots. Postings for
 * which there is no memory are left out and counted.
 * Errors: -ENOMEM: it is not in the scope.
 */
MUST_USE int lexical_scope_add(struct lexical_scope *scope, uint32_t entry);
/* The entry's block stays. */
void lexical_scope_remove(struct lexical_scope *scope, uint32_t entry);

/* The entry in a slot; 0: none. */
uint32_t lexical_scope_entry(const struct lexical_scope *scope, uint32_t slot);
/* The blocks of entries that are to be scanned: scanned_length of them. */
const uint32_t *lexical_scope_scanned(const struct lexical_scope *scope);

bool lexical_scope_should_sweep(const struct lexical_scope *scope);
/* A step of a pass; returns whether it ended. */
bool lexical_scope_sweep(struct lexical_scope *scope, size_t postings);
/* Without an entry, and with nothing left of those it had. */
bool lexical_scope_is_empty(const struct lexical_scope *scope);
/* Memory outside the pool. */
size_t lexical_scope_directory_bytes(const struct lexical_scope *scope);
