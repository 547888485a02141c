#include "worker/cache/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "worker/cache/cache_state.h"
#include "worker/message_copy.h"

void cache_release(struct cache *cache)
{
    cache_requests_release(&cache->waiting);
    cache_requests_release(&cache->answered);
    cache_requests_release(&cache->errands);
    cache_requests_release(&cache->sweeping);
    cache_requests_release(&cache->kept);
    invalidations_destroy(&cache->latest);
    (void)pthread_cond_destroy(&cache->wake);
    (void)pthread_cond_destroy(&cache->opened);
    (void)pthread_mutex_destroy(&cache->mutex);
    for (size_t i = 0; i < cache->positions_length; i++) {
        free(cache->positions[i].endpoint);
    }
    free((char *)cache->options.store.path);
    free(cache->static_folder);
    free(cache);
}

/* Releases the request, unless it is to come back. */
static void tell(struct cache *cache, struct request *request)
{
    switch (request->kind) {
    case REQUEST_LOOKUP: {
        struct cache_lookup *lookup = CONTAINER_OF(request, struct cache_lookup, request);
        if (lookup->done != NULL) {
            lookup->done(lookup->context, &lookup->result);
        }
        break;
    }
    case REQUEST_FILL: {
        const struct fill *fill = CONTAINER_OF(request, struct fill, request);
        if (fill->has_comparison) {
            cache->handler.on_compared(cache->context, &fill->comparison, fill->verdict);
        }
        break;
    }
    case REQUEST_INVALIDATE: {
        const struct invalidation *at = CONTAINER_OF(request, struct invalidation, request);
        cache->handler.on_applied(cache->context, at->endpoint, at->epoch, at->sequence,
                                  at->selector, at->entries, at->bytes);
        break;
    }
    case REQUEST_ASK: {
        const struct question *question = CONTAINER_OF(request, struct question, request);
        question->done(question->context, question->number, question->text, question->error);
        break;
    }
    case REQUEST_WANTED: {
        struct errand *errand = CONTAINER_OF(request, struct errand, request);
        list_append(&cache->errands, &request->link);
        cache->handler.on_wanted(cache->context, TAKE(errand->wanted));
        return;
    }
    case REQUEST_MODEL:
        cache->handler.on_model(cache->context, cache->model_name);
        break;
    case REQUEST_DENY:
    case REQUEST_BRING:
        break;
    }
    cache_request_release(request);
}

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
        tell(cache, CONTAINER_OF(link, struct request, link));
    }
}

static int copy_options(struct cache *cache, const struct cache_options *options)
{
    cache->options = options->keeper;
    cache->options.store.path = strdup(options->keeper.store.path);
    if (cache->options.store.path == NULL) {
        return -ENOMEM;
    }
    if (cache->options.embedder.name != NULL) {
        (void)snprintf(cache->model_name, sizeof(cache->model_name), "%s",
                       cache->options.embedder.name);
        cache->options.embedder.name = cache->model_name;
    }
    if (options->static_folder != NULL) {
        cache->static_folder = strdup(options->static_folder);
        cache->options.is_near = false; /* until it is read */
        if (cache->static_folder == NULL) {
            return -ENOMEM;
        }
    }
    for (size_t i = 0; i < options->endpoints_length && i < ENDPOINTS_MAX; i++) {
        cache->positions[i].endpoint = strdup(options->endpoints[i]);
        if (cache->positions[i].endpoint == NULL) {
            return -ENOMEM;
        }
        cache->positions_length++;
    }
    return 0;
}

static void init_sync(struct cache *cache)
{
    pthread_condattr_t attributes;
    (void)pthread_mutex_init(&cache->mutex, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&cache->wake, &attributes);
    (void)pthread_cond_init(&cache->opened, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

static void wait_until_open(struct cache *cache)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += CACHE_OPEN_MS / 1000;
    (void)pthread_mutex_lock(&cache->mutex);
    while (!cache->has_tried_to_open &&
           pthread_cond_timedwait(&cache->opened, &cache->mutex, &until) == 0) {
    }
    (void)pthread_mutex_unlock(&cache->mutex);
}

int cache_create(struct loop *loop, struct log *log, const struct cache_options *options,
                 const struct cache_handler *handler, void *context, struct cache **ret_cache)
{
    CLEANUP(cache_destroy) struct cache *cache = calloc(1, sizeof(*cache));
    if (cache == NULL) {
        return -ENOMEM;
    }
    cache->loop = loop;
    cache->log = log;
    cache->handler = *handler;
    cache->context = context;
    list_init(&cache->waiting);
    list_init(&cache->answered);
    list_init(&cache->errands);
    list_init(&cache->sweeping);
    list_init(&cache->kept);
    init_sync(cache);
    int r = copy_options(cache, options);
    r = r < 0 ? r : invalidations_create(&keeper_nearness, &cache->latest);
    r = r < 0 ? r : loop_add_turn_handler(loop, cache_turn, cache);
    if (r < 0) {
        return r;
    }
    r = pthread_create(&cache->thread, NULL, cache_thread_run, cache);
    if (r != 0) {
        return -r;
    }
    cache->has_thread = true;
    wait_until_open(cache);
    cache_turn(cache); /* what the start has to tell */
    *ret_cache = TAKE(cache);
    return 0;
}

/* False: the thread hangs in the disk. The cache is its own then, without loop and log. */
static bool thread_stop(struct cache *cache)
{
    struct timespec until;
    (void)pthread_mutex_lock(&cache->mutex);
    cache->is_stopping = true;
    (void)pthread_cond_signal(&cache->wake);
    (void)pthread_mutex_unlock(&cache->mutex);
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += CACHE_STOP_MS / 1000;
    if (pthread_timedjoin_np(cache->thread, NULL, &until) == 0) {
        return true;
    }
    const pthread_t thread = cache->thread;
    (void)pthread_mutex_lock(&cache->mutex);
    const bool has_ended = cache->has_ended;
    cache->is_abandoned = !has_ended;
    (void)pthread_mutex_unlock(&cache->mutex);
    (void)(has_ended ? pthread_join(thread, NULL) : pthread_detach(thread));
    return has_ended;
}

void cache_destroy(struct cache **cache)
{
    struct cache *old = TAKE(*cache);
    if (old != NULL && (!old->has_thread || thread_stop(old))) {
        cache_release(old);
    }
}

bool cache_position(const struct cache *cache, size_t i, uint8_t ret_epoch[CACHE_EPOCH_BYTES],
                    uint64_t *ret_sequence)
{
    struct cache *mutable_cache = (struct cache *)cache;
    bool is_known = false;
    (void)pthread_mutex_lock(&mutable_cache->mutex);
    if (cache->has_tried_to_open && cache->positions_are_known && i < cache->positions_length) {
        memcpy(ret_epoch, cache->positions[i].epoch, CACHE_EPOCH_BYTES);
        *ret_sequence = cache->positions[i].sequence;
        is_known = true;
    }
    (void)pthread_mutex_unlock(&mutable_cache->mutex);
    return is_known;
}

/* Errors: -EAGAIN. What is not to be lost (`must`) always goes. */
static int hand_over(struct cache *cache, struct request *request, bool must)
{
    int r = -EAGAIN;
    const bool is_fill = request->kind == REQUEST_FILL;
    (void)pthread_mutex_lock(&cache->mutex);
    if (must || (cache->waiting.length < CACHE_REQUESTS_MAX &&
                 (!is_fill || cache->fills_waiting < CACHE_FILLS_MAX))) {
        list_append(&cache->waiting, &request->link);
        cache->fills_waiting += is_fill ? 1 : 0;
        (void)pthread_cond_signal(&cache->wake);
        r = 0;
    }
    (void)pthread_mutex_unlock(&cache->mutex);
    return r;
}

/* NULL: no memory, or there is none. */
static int8_t *copy_vector(const struct cache *cache, const int8_t *vector)
{
    int8_t *copy = vector == NULL ? NULL : malloc(cache->options.embedder.dimensions);
    if (copy != NULL) {
        memcpy(copy, vector, cache->options.embedder.dimensions);
    }
    return copy;
}

int cache_start_lookup(struct cache *cache, const struct cache_query *query, int64_t until_ms,
                       cache_fn *done, void *context, struct cache_lookup **ret_lookup)
{
    struct cache_lookup *lookup = calloc(1, sizeof(*lookup));
    if (lookup == NULL) {
        return -ENOMEM;
    }
    lookup->request.kind = REQUEST_LOOKUP;
    lookup->query = *query;
    lookup->until_ms = until_ms;
    lookup->done = done;
    lookup->context = context;
    if (query->may_be_near) {
        lookup->text = strdup(query->text);
        lookup->query.text = lookup->text;
        lookup->query.may_be_near = lookup->text != NULL;
    }
    if (query->may_be_near && query->vector != NULL) {
        lookup->vector = copy_vector(cache, query->vector);
        lookup->query.vector = lookup->vector;
    }
    int r = hand_over(cache, &lookup->request, false);
    if (r < 0) {
        cache_request_release(&lookup->request);
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

static bool copy_comparison(struct fill *fill, const struct cache_comparison *comparison)
{
    if (comparison == NULL) {
        return true;
    }
    fill->has_comparison = true;
    fill->comparison = *comparison;
    fill->comparison.tenant = strdup(comparison->tenant);
    fill->comparison.tier = strdup(comparison->tier);
    return fill->comparison.tenant != NULL && fill->comparison.tier != NULL;
}

int cache_start_fill(struct cache *cache, const uint8_t key[CACHE_KEY_BYTES],
                     const Record__CacheEntry *entry, const int8_t *vector, uint64_t born,
                     enum cache_keeping keeping, const struct cache_comparison *comparison)
{
    struct fill *fill = calloc(1, sizeof(*fill));
    if (fill == NULL) {
        return -ENOMEM;
    }
    fill->request.kind = REQUEST_FILL;
    fill->born = born;
    fill->keeping = keeping;
    memcpy(fill->key, key, CACHE_KEY_BYTES);
    fill->entry = message_copy(&entry->base);
    fill->vector = copy_vector(cache, vector); /* without memory it is wanted later */
    int r = fill->entry == NULL || !copy_comparison(fill, comparison)
                ? -ENOMEM
                : hand_over(cache, &fill->request, false);
    if (r < 0) {
        cache_request_release(&fill->request);
    }
    return r;
}

uint64_t cache_latest(const struct cache *cache)
{
    return invalidations_latest(cache->latest);
}

bool cache_has_invalidated(const struct cache *cache, const uint8_t key[CACHE_KEY_BYTES],
                           const Record__CacheAbout *about, int64_t served_unix_ms)
{
    const uint64_t born = invalidations_before(cache->latest, served_unix_ms);
    return born < invalidations_forgotten(cache->latest) ||
           invalidations_fit(cache->latest, key, about, born);
}

void cache_invalidate(struct cache *cache, const char *endpoint,
                      const uint8_t epoch[CACHE_EPOCH_BYTES], uint64_t sequence,
                      const Wire__CacheSelector *selector)
{
    struct invalidation *invalidation = calloc(1, sizeof(*invalidation));
    char *name = strdup(endpoint);
    if (invalidation == NULL || name == NULL) {
        free(invalidation);
        free(name);
        log_at(cache->log, LOG_ERROR,
               "out of memory for an invalidation; the process ends, so that nothing invalid is "
               "served");
        abort();
    }
    invalidation->request.kind = REQUEST_INVALIDATE;
    invalidation->endpoint = name;
    invalidation->sequence = sequence;
    memcpy(invalidation->epoch, epoch, CACHE_EPOCH_BYTES);
    invalidation->selector = selector == NULL ? NULL : message_copy(&selector->base);
    invalidation->is_all = invalidation->selector == NULL;
    const uint64_t swept = invalidations_latest(cache->latest); /* beyond the bound it forgets */
    (void)!invalidations_add(cache->latest, invalidation->selector, swept, clock_unix_ms());
    (void)hand_over(cache, &invalidation->request, true);
}

int cache_ask(struct cache *cache, const char *what, const char *argument, cache_asked_fn *done,
              void *context, uint64_t number)
{
    struct question *question = calloc(1, sizeof(*question));
    if (question == NULL) {
        return -ENOMEM;
    }
    question->request.kind = REQUEST_ASK;
    question->what = strdup(what);
    question->argument = strdup(argument);
    question->done = done;
    question->context = context;
    question->number = number;
    int r = question->what == NULL || question->argument == NULL
                ? -ENOMEM
                : hand_over(cache, &question->request, false);
    if (r < 0) {
        cache_request_release(&question->request);
    }
    return r;
}

int cache_deny_near(struct cache *cache, const uint8_t key[CACHE_KEY_BYTES])
{
    struct denial *denial = calloc(1, sizeof(*denial));
    if (denial == NULL) {
        return -ENOMEM;
    }
    denial->request.kind = REQUEST_DENY;
    memcpy(denial->key, key, CACHE_KEY_BYTES);
    return hand_over(cache, &denial->request, true);
}

void cache_bring(struct cache *cache, struct wanted **wanted)
{
    struct errand *errand = CONTAINER_OF(list_first(&cache->errands), struct errand, request.link);
    list_remove(&cache->errands, &errand->request.link);
    errand->request.kind = REQUEST_BRING;
    errand->wanted = TAKE(*wanted);
    (void)hand_over(cache, &errand->request, true);
}

void cache_read_stats(struct cache *cache, struct cache_stats *ret_stats)
{
    (void)pthread_mutex_lock(&cache->mutex);
    *ret_stats = cache->stats;
    ret_stats->requests_waiting = cache->waiting.length;
    (void)pthread_mutex_unlock(&cache->mutex);
}
