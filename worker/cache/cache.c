/*
 * One mutex guards the two lists and the published figures; it is held for a few pointer moves,
 * never over a call into the store. A request belongs to the loop, then to the thread, then to the
 * loop again; `done` is only touched by the loop.
 */
#include "worker/cache/cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/list.h"
#include "common/log.h"
#include "common/loop.h"

/* What waits for the thread: a lookup or a fill. */
struct request {
    struct list_link link;
    bool is_fill;
};

struct cache_lookup {
    struct request request;
    struct cache_query query;
    char *text;
    cache_fn *done; /* NULL: forgotten. The loop's alone */
    void *context;
    struct cache_result result;
};

struct fill {
    struct request request;
    uint8_t key[CACHE_KEY_BYTES];
    Record__CacheEntry *entry;
    char *text;
};

struct cache {
    struct loop *loop;
    struct log *log;
    struct cache_store_options options;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct list
        waiting; /* to the thread, in the order of asking: a lookup sees the fills before it */
    size_t fills_waiting;
    struct list answered; /* lookups, to the loop */
    bool is_stopping;
    struct cache_stats stats;
    /* The thread's own. */
    struct cache_store *store;
    int64_t retry_at_ms;
};

static void lookup_release(struct cache_lookup *lookup)
{
    if (lookup->result.entry != NULL) {
        record__cache_entry__free_unpacked(lookup->result.entry, NULL);
    }
    free(lookup->text);
    free(lookup);
}

static void fill_release(struct fill *fill)
{
    if (fill->entry != NULL) {
        record__cache_entry__free_unpacked(fill->entry, NULL);
    }
    free(fill->text);
    free(fill);
}

/* ---- the thread ---- */

static void store_broke(struct cache *cache, const char *error)
{
    log_at(cache->log, LOG_ERROR, "cache is broken: every lookup is a miss until it opens again",
           log_text("path", cache->options.path), log_text("error", error),
           log_text("remedy",
                    "each worker needs a worker.data_dir of its own that it may write to; "
                    "a damaged cache may be deleted while the worker is stopped"),
           log_int("retry_ms", CACHE_RETRY_MS));
    cache_store_close(&cache->store);
    cache->retry_at_ms = clock_monotonic_ms() + CACHE_RETRY_MS;
}

/* Opens it when it is time to. False: it stays broken. */
static bool store_is_open(struct cache *cache)
{
    char error[CACHE_ERROR_BYTES] = "";
    if (cache->store != NULL) {
        return true;
    }
    if (clock_monotonic_ms() < cache->retry_at_ms) {
        return false;
    }
    int r = cache_store_open(&cache->options, &cache->store, error);
    if (r < 0) {
        store_broke(cache, error[0] != '\0' ? error : strerror(-r));
        return false;
    }
    log_at(cache->log, LOG_INFO, "cache is open", log_text("path", cache->options.path));
    return true;
}

static void thread_lookup(struct cache *cache, struct cache_lookup *lookup)
{
    char error[CACHE_ERROR_BYTES] = "";
    lookup->result = (struct cache_result){.answer = CACHE_ANSWER_BROKEN};
    if (!store_is_open(cache)) {
        return;
    }
    int r =
        cache_store_lookup(cache->store, &lookup->query, clock_unix_ms(), &lookup->result, error);
    if (r < 0) {
        lookup->result.answer = CACHE_ANSWER_BROKEN;
        store_broke(cache, error[0] != '\0' ? error : strerror(-r));
    }
}

static bool thread_fill(struct cache *cache, const struct fill *fill)
{
    char error[CACHE_ERROR_BYTES] = "";
    if (!store_is_open(cache)) {
        return false;
    }
    int r = cache_store_fill(cache->store, fill->key, fill->entry, fill->text, error);
    if (r == -EIO) {
        store_broke(cache, error);
    }
    return r == 0;
}

static void publish(struct cache *cache, bool is_fill, bool is_done)
{
    cache->stats.is_broken = cache->store == NULL;
    if (cache->store != NULL) {
        cache_store_read_stats(cache->store, &cache->stats.store);
    }
    cache->stats.fills += is_fill && is_done ? 1 : 0;
    cache->stats.fills_failed += is_fill && !is_done ? 1 : 0;
}

/* With the mutex held, given back held. */
static void thread_take_one(struct cache *cache)
{
    struct request *request = CONTAINER_OF(list_first(&cache->waiting), struct request, link);
    list_remove(&cache->waiting, &request->link);
    cache->fills_waiting -= request->is_fill ? 1 : 0;
    (void)pthread_mutex_unlock(&cache->mutex);

    const bool is_fill = request->is_fill;
    bool is_done = true;
    if (is_fill) {
        struct fill *fill = CONTAINER_OF(request, struct fill, request);
        is_done = thread_fill(cache, fill);
        fill_release(fill);
    } else {
        thread_lookup(cache, CONTAINER_OF(request, struct cache_lookup, request));
    }

    (void)pthread_mutex_lock(&cache->mutex);
    publish(cache, is_fill, is_done);
    if (!is_fill) {
        list_append(&cache->answered, &request->link);
        loop_wake(cache->loop);
    }
}

static void *thread_run(void *context)
{
    struct cache *cache = context;
    (void)store_is_open(cache);
    (void)pthread_mutex_lock(&cache->mutex);
    publish(cache, false, true);
    for (;;) {
        while (list_is_empty(&cache->waiting) && !cache->is_stopping) {
            (void)pthread_cond_wait(&cache->wake, &cache->mutex);
        }
        if (list_is_empty(&cache->waiting)) {
            break;
        }
        thread_take_one(cache);
    }
    (void)pthread_mutex_unlock(&cache->mutex);
    cache_store_close(&cache->store);
    return NULL;
}

/* ---- the loop ---- */

static void cache_turn(void *context)
{
    struct cache *cache = context;
    for (;;) {
        (void)pthread_mutex_lock(&cache->mutex);
        struct list_link *link = list_first(&cache->answered);
        if (link != NULL) {
            list_remove(&cache->answered, link);
        }
        (void)pthread_mutex_unlock(&cache->mutex);
        if (link == NULL) {
            return;
        }
        struct cache_lookup *lookup = CONTAINER_OF(link, struct cache_lookup, request.link);
        if (lookup->done != NULL) {
            lookup->done(lookup->context, &lookup->result);
        }
        lookup_release(lookup);
    }
}

int cache_create(struct loop *loop, struct log *log, const struct cache_store_options *options,
                 struct cache **ret_cache)
{
    CLEANUP(cache_destroy) struct cache *cache = calloc(1, sizeof(*cache));
    if (cache == NULL) {
        return -ENOMEM;
    }
    cache->loop = loop;
    cache->log = log;
    cache->options = *options;
    list_init(&cache->waiting);
    list_init(&cache->answered);
    (void)pthread_mutex_init(&cache->mutex, NULL);
    (void)pthread_cond_init(&cache->wake, NULL);
    cache->options.path = strdup(options->path);
    if (cache->options.path == NULL) {
        return -ENOMEM;
    }
    int r = loop_add_turn_handler(loop, cache_turn, cache);
    if (r < 0) {
        return r;
    }
    r = pthread_create(&cache->thread, NULL, thread_run, cache);
    if (r != 0) {
        return -r;
    }
    cache->has_thread = true;
    *ret_cache = TAKE(cache);
    return 0;
}

static void lists_release(struct cache *cache)
{
    struct list *lists[] = {&cache->waiting, &cache->answered};
    for (size_t i = 0; i < ARRAY_LENGTH(lists); i++) {
        while (!list_is_empty(lists[i])) {
            struct request *request = CONTAINER_OF(list_first(lists[i]), struct request, link);
            list_remove(lists[i], &request->link);
            if (request->is_fill) {
                fill_release(CONTAINER_OF(request, struct fill, request));
            } else {
                lookup_release(CONTAINER_OF(request, struct cache_lookup, request));
            }
        }
    }
}

/* False: the thread hangs in the disk; what it uses is left to it. */
static bool thread_stop(struct cache *cache)
{
    struct timespec until;
    (void)pthread_mutex_lock(&cache->mutex);
    cache->is_stopping = true;
    (void)pthread_cond_signal(&cache->wake);
    (void)pthread_mutex_unlock(&cache->mutex);
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += CACHE_STOP_MS / 1000;
    return pthread_timedjoin_np(cache->thread, NULL, &until) == 0;
}

void cache_destroy(struct cache **cache)
{
    struct cache *old = TAKE(*cache);
    if (old == NULL || (old->has_thread && !thread_stop(old))) {
        return;
    }
    lists_release(old);
    (void)pthread_cond_destroy(&old->wake);
    (void)pthread_mutex_destroy(&old->mutex);
    free((char *)old->options.path);
    free(old);
}

/* Errors: -EAGAIN. */
static int hand_over(struct cache *cache, struct request *request)
{
    int r = -EAGAIN;
    (void)pthread_mutex_lock(&cache->mutex);
    if (cache->waiting.length < CACHE_REQUESTS_MAX &&
        (!request->is_fill || cache->fills_waiting < CACHE_FILLS_MAX)) {
        list_append(&cache->waiting, &request->link);
        cache->fills_waiting += request->is_fill ? 1 : 0;
        (void)pthread_cond_signal(&cache->wake);
        r = 0;
    }
    (void)pthread_mutex_unlock(&cache->mutex);
    return r;
}

int cache_start_lookup(struct cache *cache, const struct cache_query *query, cache_fn *done,
                       void *context, struct cache_lookup **ret_lookup)
{
    struct cache_lookup *lookup = calloc(1, sizeof(*lookup));
    if (lookup == NULL) {
        return -ENOMEM;
    }
    lookup->query = *query;
    lookup->done = done;
    lookup->context = context;
    if (query->may_be_near) {
        lookup->text = strdup(query->text);
        lookup->query.text = lookup->text;
        lookup->query.may_be_near = lookup->text != NULL;
    }
    int r = hand_over(cache, &lookup->request);
    if (r < 0) {
        lookup_release(lookup);
        return r;
    }
    *ret_lookup = lookup;
    return 0;
}

void cache_forget(struct cache_lookup **lookup)
{
    struct cache_lookup *old = TAKE(*lookup);
    if (old != NULL) {
        old->done = NULL;
    }
}

/* By its packed form: the one way to copy all of it. */
static Record__CacheEntry *entry_copy(const Record__CacheEntry *entry)
{
    const size_t bytes = record__cache_entry__get_packed_size(entry);
    uint8_t *packed = malloc(bytes == 0 ? 1 : bytes);
    if (packed == NULL) {
        return NULL;
    }
    (void)record__cache_entry__pack(entry, packed);
    Record__CacheEntry *copy = record__cache_entry__unpack(NULL, bytes, packed);
    free(packed);
    return copy;
}

int cache_start_fill(struct cache *cache, const uint8_t key[CACHE_KEY_BYTES],
                     const Record__CacheEntry *entry, const char *text)
{
    struct fill *fill = calloc(1, sizeof(*fill));
    if (fill == NULL) {
        return -ENOMEM;
    }
    fill->request.is_fill = true;
    memcpy(fill->key, key, CACHE_KEY_BYTES);
    fill->entry = entry_copy(entry);
    fill->text = text == NULL ? NULL : strdup(text);
    int r = fill->entry == NULL ? -ENOMEM : hand_over(cache, &fill->request);
    if (r < 0) {
        fill_release(fill);
    }
    return r;
}

void cache_read_stats(struct cache *cache, struct cache_stats *ret_stats)
{
    (void)pthread_mutex_lock(&cache->mutex);
    *ret_stats = cache->stats;
    ret_stats->requests_waiting = cache->waiting.length;
    (void)pthread_mutex_unlock(&cache->mutex);
}
