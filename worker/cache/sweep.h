/*
 * sweep: rounds through all that is stored, a few entries at a time: what is invalid or past all
 * use is removed, what is not in the index is put there, and hits are written down. The more
 * invalidations ask what is near a text, the fewer entries a step looks at: KEEPER_COMPARISONS_MAX.
 *
 * In a hurry (the index is being built, an invalidation is not swept yet) it goes on between
 * lookups and whenever there is nothing to do; else SWEEP_CALM entries a second. While a vector
 * that is wanted has no room it is not in a hurry for the index; what is left out is found by a
 * later round. Beside building, a round in SWEEP_SEEK_MS looks for entries that lack a vector.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

struct keeper;

enum {
    SWEEP_STEP = 32,
    SWEEP_CALM = 512,
    SWEEP_SERVED_STEP = 1, /* some 100 µs beside a million entries */
    SWEEP_SEEK_MS = 60000,
};

/* A new round from the first key on. */
void sweep_begin(struct keeper *keeper, bool is_building);
/* The latest invalidation needs none: what it fits is gone. */
void sweep_is_spared(struct keeper *keeper);
/* As keeper_step(). */
MUST_USE int sweep_step(struct keeper *keeper, int64_t now_unix_ms, char *ret_error);
/* A hit. Where more entries are hit than can be written down some hits are not counted. */
void sweep_note_served(struct keeper *keeper, const uint8_t *key, int64_t now_unix_ms);
/* Up to `most` entries' hits. */
MUST_USE int sweep_write_served(struct keeper *keeper, size_t most, char *ret_error);
