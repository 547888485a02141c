/*
 * keeper: the cache itself, as its thread runs it: answers lookups, takes fills, follows
 * invalidations, keeps bounds.
 *
 * An exact hit is the entry of the same key. A near hit is the best candidate of the scope whose
 * score reaches the threshold that the caller gives (common/threshold.h decides which): candidates
 * by near_index.h, scores by decision.h. One that is invalid or too old is passed over for the next
 * best; so is one from a prompt that was cut as the query does not allow (common/prompt_cut.h). Entries past their time are stale: served only to who takes them so. An invalidation holds
 * from the moment it is taken (invalidations.h); what it fits is removed by and by (sweep.h), and
 * so is what is past all use. Beyond entries_max or bytes_max what is worth least goes
 * (eviction.h). The index is built from the store after a start, while exact hits are served.
 *
 * Vectors are the built-in embedder's, or made here (static), or brought (http): then they are
 * stored with the embedder's name, and those that are missing, or are another's, are asked for by
 * and by (keeper_take_wanted()).
 *
 * Blocks on the disk, and on nothing else; belongs to the cache's thread.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/prompt_cut.h"
#include "proto/records.pb-c.h"
#include "proto/wire.pb-c.h"
#include "worker/cache/cache_store.h"
#include "worker/cache/invalidations.h"

struct keeper;
struct keeper_walk;
struct text_embedder;
struct wanted;

/* Whose vectors near hits are found by. */
struct keeper_embedder {
    const char *name;                /* id and version; NULL: the built-in one's */
    size_t dimensions;               /* unless built-in */
    struct text_embedder *immediate; /* makes them on the keeper's thread; NULL: they are brought */
    char *const *labels;             /* brought: of who makes them; an entry that needs another one has no vector */
    size_t labels_length;
};

struct keeper_options {
    struct cache_store_options store;
    bool is_near;              /* an index is kept */
    struct keeper_embedder embedder; /* what it names lives as long */
    uint64_t entries_max;
    uint64_t bytes_max;
    uint64_t memory_bytes_max; /* of the index */
};

/* Errors: as cache_store_open(). */
MUST_USE int keeper_open(const struct keeper_options *options, struct keeper **ret_keeper,
                         char ret_error[CACHE_ERROR_BYTES]);
void keeper_close(struct keeper **keeper);

/* ---- lookups ---- */

enum cache_answer {
    CACHE_ANSWER_MISS,
    CACHE_ANSWER_HIT,
    CACHE_ANSWER_NEAR_HIT,
    CACHE_ANSWER_BROKEN
};

struct cache_query {
    uint8_t key[CACHE_KEY_BYTES];
    bool may_be_near;
    bool is_near_only;    /* the entry of the key itself does not count */
    uint8_t scope[CACHE_SCOPE_BYTES];
    const char *text;     /* what may differ within the scope; NULL unless may_be_near */
    const int8_t *vector; /* of the text, if vectors are brought: a byte a dimension; NULL: exact alone */
    double threshold;     /* that a near hit's score must reach; INFINITY: none does */
    bool is_strict;       /* guards alone forbid */
    bool may_be_stale;    /* past its time, but not past all use */
    bool serves_nobody;   /* it counts as no hit of the entry */
    struct prompt_cut prompt_cut; /* that an entry may come from, to be served or compared */
};

struct cache_result {
    enum cache_answer answer;
    uint8_t key[CACHE_KEY_BYTES]; /* of the entry that answers, or of the best candidate */
    bool has_candidate;           /* near: the best one; a miss: it did not suffice, and is fresh */
    double score;                 /* of the candidate */
    bool is_stale;
    int64_t age_ms;
    const char *why;              /* of a miss, in a word; static */
    Record__CacheEntry *entry;    /* hit: owned; record__cache_entry__free_unpacked() */
};

/* Errors: -EIO, -EBADMSG, -ENOMEM; a damaged entry is a miss. */
MUST_USE int keeper_lookup(struct keeper *keeper, const struct cache_query *query, int64_t now_unix_ms,
                           struct cache_result *ret_result, char ret_error[CACHE_ERROR_BYTES]);

/* ---- fills ---- */

/*
 * Replaces. `born`: the latest invalidation when the attempt began. One that was invalidated since is dropped. `vector`: of its text,
 * if vectors are brought; NULL: it is wanted. Errors: likewise.
 */
MUST_USE int keeper_fill(struct keeper *keeper, const uint8_t key[CACHE_KEY_BYTES], Record__CacheEntry *entry,
                         const int8_t *vector, bool vector_follows, uint64_t born, int64_t now_unix_ms, char ret_error[CACHE_ERROR_BYTES]);
/* To an entry that was filled then and has none; nothing happens when it is another one by now. NULL: it is wanted. */
MUST_USE int keeper_add_vector(struct keeper *keeper, const uint8_t key[CACHE_KEY_BYTES], uint64_t filled_unix_ms, const int8_t *vector,
                               char ret_error[CACHE_ERROR_BYTES]);
/* An answer that was asked for when `born` was the latest invalidation is not worth keeping: one
 * that came since fits it. */
bool keeper_is_overtaken(const struct keeper *keeper, const uint8_t key[CACHE_KEY_BYTES],
                         const Record__CacheAbout *about, uint64_t born);
/* It answers its own text alone from now on. */
MUST_USE int keeper_deny_near(struct keeper *keeper, const uint8_t key[CACHE_KEY_BYTES], char ret_error[CACHE_ERROR_BYTES]);
/* Gives: *ret_entry; NULL: it is not there, is past its time, or invalid. */
MUST_USE int keeper_get_fresh(struct keeper *keeper, const uint8_t key[CACHE_KEY_BYTES],
                              int64_t now_unix_ms, Record__CacheEntry **ret_entry,
                              char ret_error[CACHE_ERROR_BYTES]);

/* ---- vectors that are brought ---- */

/* Texts that lack a vector of this embedder, to be given back by keeper_bring(), before which there are no others; NULL: none. Gives. */
struct wanted *keeper_take_wanted(struct keeper *keeper);
/* What was not answered is wanted again in a later round. */
MUST_USE int keeper_bring(struct keeper *keeper, const struct wanted *wanted, char ret_error[CACHE_ERROR_BYTES]);

/* ---- invalidations ---- */

/* For invalidations and counts, whatever the embedder: cosine by the words of both texts. */
extern const struct nearness keeper_nearness;
/* NULL: everything. Holds at once; an entry that is named by its key is removed at once, too. */
void keeper_invalidate(struct keeper *keeper, const Wire__CacheSelector *selector, int64_t now_unix_ms);
/* Of a keeper that is opened again: the numbers go on from here, and all up to it was swept. Before the first invalidation. */
void keeper_count_from(struct keeper *keeper, uint64_t number);
/* The latest invalidation; what attempts remember when they begin. */
uint64_t keeper_latest(const struct keeper *keeper);
/* Up to which invalidation all that is stored was swept. */
uint64_t keeper_swept(const struct keeper *keeper);
/* What was removed since this was last asked. */
void keeper_take_removed(struct keeper *keeper, uint64_t *ret_entries, uint64_t *ret_bytes);
/* Swept ones up to this: an attempt that began before fills nothing any more. */
void keeper_forget_invalidations(struct keeper *keeper, uint64_t number);
MUST_USE int keeper_get_position(struct keeper *keeper, const char *endpoint, uint8_t ret_epoch[CACHE_EPOCH_BYTES],
                                 uint64_t *ret_sequence, char ret_error[CACHE_ERROR_BYTES]);
MUST_USE int keeper_put_position(struct keeper *keeper, const char *endpoint, const uint8_t epoch[CACHE_EPOCH_BYTES],
                                 uint64_t sequence, char ret_error[CACHE_ERROR_BYTES]);

/* ---- by and by ---- */

/* What is to be done yet: nothing; something, while nobody looks anything up; something at once. */
enum keeper_rest { KEEPER_REST_NONE, KEEPER_REST_AT_LEISURE, KEEPER_REST_AT_ONCE };

/* A step of what is to be done between lookups, for some hundred microseconds. Returns the rest. Errors: -EIO … */
MUST_USE int keeper_step(struct keeper *keeper, int64_t now_unix_ms, char ret_error[CACHE_ERROR_BYTES]);
/* The index is made anew from the store: of one scope, whose other entries stay where they are, or all of it (NULL). */
void keeper_rebuild(struct keeper *keeper, const uint8_t *scope);

/*
 * An operator's question: cache.top, get, explain, count, export, import or rebuild.
 * Gives:  *ret_answer, a new reference; or *ret_walk, the way to it. The other one is NULL, and
 * with an error both are. Errors: -EINVAL it is not known, or the argument is wrong (ret_error says
 * it); -ENOMEM; of the store.
 */
MUST_USE int keeper_ask(struct keeper *keeper, const char *what, const json_t *argument,
                        int64_t now_unix_ms, json_t **ret_answer, struct keeper_walk **ret_walk,
                        char ret_error[CACHE_ERROR_BYTES]);
/*
 * A step on the way, for some hundred microseconds. The keeper may have been opened again since the
 * last one. Gives:  *ret_answer, a new reference, and *walk is NULL; as long as there is more to go
 * the other way round. Errors: -ENOMEM; of the store. Both are NULL then.
 */
MUST_USE int keeper_walk_on(struct keeper *keeper, struct keeper_walk **walk, int64_t now_unix_ms,
                            json_t **ret_answer, char ret_error[CACHE_ERROR_BYTES]);
void keeper_walk_destroy(struct keeper_walk **walk);

struct keeper_stats {
    struct cache_store_stats store;
    uint64_t memory_bytes;
    uint64_t indexed;       /* entries */
    uint64_t searches_cut;  /* near_index_stats.searches_cut */
    uint64_t wanted;        /* texts whose vectors are waited for */
    uint64_t texts;         /* that were embedded here */
    uint64_t
        without_vector; /* entries that have none, since the embedder gives none for their text */
    bool is_building;
    uint64_t evictions, expired, invalidated, dropped_fills;
};
void keeper_read_stats(const struct keeper *keeper, struct keeper_stats *ret_stats);
