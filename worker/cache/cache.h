/*
 * cache: answers that were paid for once. The loop's side of the keeper.
 *
 * All goes to one thread through a bounded queue, in order: a lookup sees the fills and the invalidations that were handed over
 * before it. What comes back is told in a turn of the loop. The thread can be given up on: a lookup that waits past its time is a
 * miss, with a full queue lookups are misses and fills are dropped at once. A database that breaks is closed, and tried again every
 * CACHE_RETRY_MS; one that is damaged is moved aside, and a new one begun. Meanwhile every lookup is "broken", and no job fails
 * for it. A static model is read by the thread as well; while it cannot be read near hits are off, and it is tried again as often.
 * Belongs to the loop's thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/cache/judge.h"
#include "worker/cache/keeper.h"
#include "worker/cache/text_embedder.h"

struct broker_link;
struct loop;
struct log;
struct cache;
struct cache_lookup;

enum {
    CACHE_REQUESTS_MAX = 4096,
    CACHE_FILLS_MAX = 512, /* of them: lookups wait behind these, about 50 µs for each */
    CACHE_RETRY_MS = 30000,
    CACHE_OPEN_MS = 5000,  /* that the start waits for it */
    CACHE_STOP_MS = 5000,
    CACHE_ASIDE_MAX = 2,   /* damaged databases that are kept */
};

/* A near candidate that was not served: is it what a fresh answer says? */
struct cache_comparison {
    char *tenant, *tier;  /* of the class that the evidence is for */
    struct broker_link *broker; /* that sent the job */
    double score;
    uint8_t key[CACHE_KEY_BYTES]; /* of the candidate */
    enum judge_kind judge;
    double judge_cosine_min;
};

struct cache_handler {
    /* All that this invalidation (and those before) fits is gone. Selector NULL: everything. */
    void (*on_applied)(void *context, const char *endpoint, const uint8_t epoch[CACHE_EPOCH_BYTES],
                       uint64_t sequence, const Wire__CacheSelector *selector, uint64_t entries,
                       uint64_t bytes);
    /* JUDGE_UNKNOWN: it cannot be said, as when the candidate is too old or invalid by now. */
    void (*on_compared)(void *context, const struct cache_comparison *comparison, enum judge_verdict verdict);
    /* The static model is read: what its vectors are kept under. May come from within cache_create(). */
    void (*on_model)(void *context, const char *name);
    /* Texts whose vectors are to be brought: gives; cache_bring() takes them back. NULL: vectors are not brought. */
    void (*on_wanted)(void *context, struct wanted *wanted);
};

struct cache_options {
    struct keeper_options keeper;
    const char *static_folder;    /* near hits by this model, whatever keeper.embedder says; NULL: as that says */
    const char *const *endpoints; /* of brokers, whose invalidations are followed */
    size_t endpoints_length;
};

/*
 * Waits CACHE_OPEN_MS at most until the database is open, so that positions are known. Strings are copied. Errors: -ENOMEM, -errno of
 * pthread_create.
 */
MUST_USE int cache_create(struct loop *loop, struct log *log, const struct cache_options *options,
                          const struct cache_handler *handler, void *context, struct cache **ret_cache);
/* Writes the fills that wait, within CACHE_STOP_MS: a thread that hangs is left to itself. Lookups
 * that wait get no answer. */
void cache_destroy(struct cache **cache);

/*
 * How far the invalidations of the i-th endpoint were followed before this start. False: not at all, or it is not known, and
 * nothing may be served that was filled before.
 */
bool cache_position(const struct cache *cache, size_t i, uint8_t ret_epoch[CACHE_EPOCH_BYTES], uint64_t *ret_sequence);

/* Once for each lookup that is not forgotten, from a turn of the loop. The result's entry may be taken. */
typedef void cache_fn(void *context, struct cache_result *result);

/* Copies the query. After `until_ms` (monotonic) it is a miss. Errors: -EAGAIN the queue is full; -ENOMEM. */
MUST_USE int cache_start_lookup(struct cache *cache, const struct cache_query *query, int64_t until_ms, cache_fn *done,
                                void *context, struct cache_lookup **ret_lookup);
/* Gives up on it: done() will not be called. */
void cache_forget(struct cache_lookup **lookup);

enum cache_keeping {
    CACHE_KEEPS,
    CACHE_KEEPS_AND_VECTOR_FOLLOWS, /* until then it has exact hits alone, and nobody is asked for its vector */
    CACHE_ADDS_VECTOR,              /* … to what was kept so, unless it is another answer by now; NULL: it is wanted */
    CACHE_COMPARES,                 /* only */
};

/*
 * Copies the entry, and the vector (keeper_fill()). `born`: cache_latest() when the attempt began. `comparison`: copied, NULL none; on_compared() tells of it.
 * Errors: -EAGAIN the queue is full; -ENOMEM.
 */
MUST_USE int cache_start_fill(struct cache *cache, const uint8_t key[CACHE_KEY_BYTES], const Record__CacheEntry *entry,
                              const int8_t *vector, uint64_t born, enum cache_keeping keeping,
                              const struct cache_comparison *comparison);
/* Takes: what on_wanted() gave. */
void cache_bring(struct cache *cache, struct wanted **wanted);

/* The number of the latest invalidation, for attempts that begin now. */
uint64_t cache_latest(const struct cache *cache);
/*
 * Holds for every lookup that is started from now on. Selector NULL: everything. on_applied() tells when what it fits is gone.
 * Without memory everything is invalidated.
 */
void cache_invalidate(struct cache *cache, const char *endpoint, const uint8_t epoch[CACHE_EPOCH_BYTES], uint64_t sequence,
                      const Wire__CacheSelector *selector);

/* Whether an entry that was served then may have been invalidated since. Beyond INVALIDATIONS_MAX
 * it may. */
bool cache_has_invalidated(const struct cache *cache, const uint8_t key[CACHE_KEY_BYTES],
                           const Record__CacheAbout *about, int64_t served_unix_ms);

/* What an operator asks: keeper_ask(). `text` is JSON, NULL with an error. */
typedef void cache_asked_fn(void *context, uint64_t number, const char *text, const char *error);
MUST_USE int cache_ask(struct cache *cache, const char *what, const char *argument, cache_asked_fn *done, void *context,
                       uint64_t number);

/* This entry was wrong for another text: it answers its own alone from now on. Errors: -ENOMEM. */
MUST_USE int cache_deny_near(struct cache *cache, const uint8_t key[CACHE_KEY_BYTES]);

struct cache_stats {
    struct keeper_stats keeper;
    bool is_broken;
    uint64_t broken;        /* how often it was found broken */
    uint64_t set_aside;     /* damaged databases */
    uint64_t fills;
    uint64_t fills_failed;
    uint64_t late;          /* lookups that waited too long */
    uint64_t requests_waiting;
    uint64_t invalidations_pending; /* they hold, and are not swept yet */
    bool lacks_model;       /* the static model cannot be read */
    char model_error[TEXT_EMBEDDER_ERROR_BYTES]; /* why it could not be the last time; empty: it could */
};
void cache_read_stats(struct cache *cache, struct cache_stats *ret_stats);
