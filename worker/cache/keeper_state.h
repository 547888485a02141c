/* keeper_state: what the files of the keeper share. Private to them. */
#pragma once
#include "worker/cache/keeper.h"
#include "worker/cache/likeness.h"
#include "worker/cache/near_index.h"

struct invalidations;
struct wanted;

enum {
    KEEPER_SERVED_MAX = 4096,
    KEEPER_SERVED_WAYS = 8,        /* places that a key may have */
    KEEPER_COMPARISONS_MAX = 1024, /* of texts, in a step */
};

/* Hits that are not written down yet. */
struct served {
    uint8_t key[CACHE_KEY_BYTES];
    uint64_t hits; /* 0: a free place */
    int64_t at_unix_ms;
};

struct keeper {
    struct keeper_options options;
    struct cache_store *store;
    struct near_index *index;    /* NULL: exact only */
    struct invalidations *invalidations;
    uint64_t run;                /* random: of this start */
    uint64_t random;             /* state of the generator for samples */

    /* the sweep: sweep.c */
    uint8_t cursor[CACHE_KEY_BYTES];
    uint64_t sweeping;           /* the latest invalidation when this round began */
    uint64_t swept;
    bool is_building;
    bool rebuilds_scope;         /* is_building, and only this one: */
    uint8_t scope[CACHE_SCOPE_BYTES];
    bool has_skipped;            /* entries without a vector, in this round: there was no room */
    bool is_seeking;             /* this round looks for entries that lack a vector */
    int64_t seek_at_unix_ms;     /* the next round that does, at the earliest */
    int64_t sweep_at_unix_ms;    /* the next step, when there is no hurry */

    struct wanted *wanted;       /* not given out yet; NULL: none */
    size_t wanted_out;           /* given out, and not brought back */
    uint64_t without_vector;     /* brought back without one, since the start */

    struct served served[KEEPER_SERVED_MAX]; /* by the first bytes of their keys */
    size_t served_length;
    size_t served_next; /* the place that is looked at next, to write it down */

    uint64_t removed_entries, removed_bytes; /* by invalidations, not reported yet */
    uint64_t evictions, expired, invalidated, dropped_fills;
};

/* A text with the vector that this keeper compares by, if it makes it. False: it cannot be compared. */
bool keeper_read_text(struct keeper *keeper, const char *text, struct near_text *ret_text);
double keeper_score(const struct keeper *keeper, const struct likeness *likeness);

/* Whether an invalidation that came after the entry was checked fits it. */
bool keeper_is_invalid(const struct keeper *keeper, const uint8_t *key, const Record__CacheAbout *about);
/*
 * Whether a step may look at one more entry: it has compared so many texts since `before`
 * (invalidations_compared()), however many invalidations ask what is near a text.
 */
bool keeper_may_compare(const struct keeper *keeper, uint64_t before);
/* As keeper_remove(), and counted as an invalidation's. */
MUST_USE int keeper_remove_invalid(struct keeper *keeper, const uint8_t *key,
                                   const Record__CacheAbout *about, char *ret_error);
/* Out of store and index. */
MUST_USE int keeper_remove(struct keeper *keeper, const uint8_t *key, char *ret_error);
/* Best effort: what does not fit in is not found as near. `vector`: if vectors are brought. */
void keeper_index(struct keeper *keeper, const uint8_t *key, const Record__CacheAbout *about, const int8_t *vector);
/* An entry that is not in the index: puts it there, or wants its vector. Errors: of the store. */
MUST_USE int keeper_index_again(struct keeper *keeper, const uint8_t *key, const Record__CacheAbout *about,
                                char *ret_error);
/* A new entry: `vector` is stored with it; without one it is wanted, if vectors are brought. */
MUST_USE int keeper_index_filled(struct keeper *keeper, const uint8_t *key, Record__CacheAbout *about,
                                 const int8_t *vector, char *ret_error);
bool keeper_vectors_are_brought(const struct keeper *keeper);
/* Its vector, or that it has none, is stored; or it needs none. */
bool keeper_has_vector(const struct keeper *keeper, const Record__CacheAbout *about);
bool keeper_has_room_for_wanted(const struct keeper *keeper, size_t length);
