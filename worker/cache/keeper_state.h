/* keeper_state: what the files of the keeper share. Private to them. */
#pragma once
#include "worker/cache/keeper.h"
#include "worker/cache/lexical_index.h"
#include "worker/cache/profile.h"
#include "worker/cache/sparse_vector.h"

struct invalidations;

enum { KEEPER_SERVED_MAX = 4096 };

/* Hits that are not written down yet. */
struct served {
    uint8_t key[CACHE_KEY_BYTES];
    uint64_t hits;
    int64_t at_unix_ms;
};

struct keeper {
    struct keeper_options options;
    struct cache_store *store;
    struct lexical_index *index; /* NULL: exact only */
    struct invalidations *invalidations;
    uint64_t run;                /* random: of this start */
    uint64_t random;             /* state of the generator for samples */

    /* the sweep: sweep.c */
    uint8_t cursor[CACHE_KEY_BYTES];
    uint64_t sweeping;           /* the latest invalidation when this round began */
    uint64_t swept;
    bool is_building;
    int64_t sweep_at_unix_ms;    /* the next step, when there is no hurry */

    struct served served[KEEPER_SERVED_MAX];
    size_t served_length;
    int64_t served_at_unix_ms;

    uint64_t removed_entries, removed_bytes; /* by invalidations, not reported yet */
    uint64_t evictions, expired, invalidated, dropped_fills;
};

/* A text as it is compared. */
struct reading {
    struct sparse_vector vector;
    union profile_buffer profile; /* last: its size varies */
};
/* False: it cannot be compared with others: no words, or too many. */
bool keeper_read_text(const char *text, struct reading *ret_reading);

/* Whether an invalidation that came after the entry was checked fits it. */
bool keeper_is_invalid(const struct keeper *keeper, const uint8_t *key, const Record__CacheAbout *about);
/* Out of store and index. */
MUST_USE int keeper_remove(struct keeper *keeper, const uint8_t *key, char *ret_error);
/* Best effort: what does not fit in is not found as near. */
void keeper_index(struct keeper *keeper, const uint8_t *key, const Record__CacheAbout *about);
