/*
 * cache_state: what cache.c, the loop's side, and cache_thread.c, the thread's, share; nobody else
 * includes it.
 *
 * One mutex guards the two lists, the published figures, and loop and log, of which the thread has
 * no more when it is abandoned. It is held for a few pointer moves or a line of the log, never over
 * a call into the keeper. A request belongs to the loop, then to the thread, then to the loop
 * again; `done` is only touched by the loop.
 */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/list.h"
#include "worker/cache/cache.h"
#include "worker/cache/text_embedder.h"
#include "worker/cache/wanted.h"

enum {
    ENDPOINTS_MAX = 64,
    REQUESTS_A_STEP = 16,    /* of a sweep in a hurry, beside lookups */
    ENDS_A_STEP = 64,        /* invalidations that are swept are told of */
    IDLE_MS = 1000,          /* how often the thread looks for something to sweep */
    LEISURE_MS = 5,          /* without a request: then it goes on with what is not urgent */
    FORGET_MS = 3600 * 1000, /* no attempt lasts as long */
};

/* WANTED goes to the loop and comes back as BRING; MODEL goes to the loop alone. */
enum request_kind {
    REQUEST_LOOKUP,
    REQUEST_FILL,
    REQUEST_INVALIDATE,
    REQUEST_ASK,
    REQUEST_DENY,
    REQUEST_WANTED,
    REQUEST_BRING,
    REQUEST_MODEL
};

struct request {
    struct list_link link;
    enum request_kind kind;
};

struct cache_lookup {
    struct request request;
    struct cache_query query;
    int64_t until_ms;
    char *text;
    int8_t *vector;
    cache_fn *done; /* NULL: forgotten. The loop's alone */
    void *context;
    struct cache_result result;
};

struct fill {
    struct request request;
    uint8_t key[CACHE_KEY_BYTES];
    Record__CacheEntry *entry;
    int8_t *vector;
    uint64_t born;
    enum cache_keeping keeping;
    bool has_comparison;
    struct cache_comparison comparison;
    enum judge_verdict verdict;
};

struct invalidation {
    struct request request;
    char *endpoint;
    uint8_t epoch[CACHE_EPOCH_BYTES];
    uint64_t sequence;
    bool is_all;
    Wire__CacheSelector *selector;
    uint64_t number; /* the keeper's */
    int64_t at_ms, at_unix_ms;
    uint64_t entries, bytes;
};

struct question {
    struct request request;
    char *what, *argument;
    cache_asked_fn *done;
    void *context;
    uint64_t number;
    struct keeper_walk *walk; /* it goes on; NULL: it does not, or has not begun */
    char *text;
    char error[CACHE_ERROR_BYTES];
};

struct denial {
    struct request request;
    uint8_t key[CACHE_KEY_BYTES];
};

struct errand {
    struct request request;
    struct wanted *wanted;
};

struct position {
    char *endpoint;
    uint8_t epoch[CACHE_EPOCH_BYTES];
    uint64_t sequence;
};

struct cache {
    struct loop *loop;
    struct log *log;
    struct cache_handler handler;
    void *context;
    struct keeper_options options;
    char *static_folder;
    struct position positions[ENDPOINTS_MAX];
    size_t positions_length;
    bool positions_are_known;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake, opened;
    struct list waiting; /* to the thread, in the order of asking */
    size_t fills_waiting;
    struct list answered; /* to the loop */
    bool is_stopping, has_tried_to_open;
    bool is_abandoned,
        has_ended; /* the thread: it hung when the cache was destroyed; it does nothing more */
    struct cache_stats stats;
    struct invalidations *latest; /* the loop's: their number is what attempts remember */
    struct list errands;          /* the loop's: whose texts are out */
    /* The thread's own. */
    struct text_embedder *model;               /* static; NULL: not wanted, or it cannot be read */
    char model_name[TEXT_EMBEDDER_NAME_BYTES]; /* options.embedder.name, unless that is NULL */
    char model_error[TEXT_EMBEDDER_ERROR_BYTES]; /* why it could not be read the last time: logged */
    int64_t model_at_ms;                       /* when it is tried */
    struct keeper *keeper;
    struct list sweeping; /* invalidations that are taken and not swept yet, by number */
    struct list kept;     /* swept ones, until no attempt is as old; and all that a keeper that is
                             opened again has to hear */
    uint64_t taken;
    int64_t retry_at_ms;
};

void cache_request_release(struct request *request);
void cache_requests_release(struct list *list);
/* All of it: nobody uses it any more. */
void cache_release(struct cache *cache);

/* The thread, until it is told to stop; the last one out releases (is_abandoned). `context`: the
 * cache. */
void *cache_thread_run(void *context);
