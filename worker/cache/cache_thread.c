/* What the cache's thread does: it owns the keeper, carries requests out in order, and sweeps
 * between them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "worker/cache/cache_state.h"
#include "worker/cache/embed_static.h"
#include "worker/message_copy.h"

/* ---- telling the loop ---- */

/* With the mutex held. */
static void answer_loop(struct cache *cache, struct request *request)
{
    list_append(&cache->answered, &request->link);
    if (!cache->is_abandoned) {
        loop_wake(cache->loop);
    }
}

static void tell_loop(struct cache *cache, struct request *request)
{
    (void)pthread_mutex_lock(&cache->mutex);
    answer_loop(cache, request);
    (void)pthread_mutex_unlock(&cache->mutex);
}

/* The thread's log_at(). */
#define thread_log(cache, level, message, ...)                                                     \
    do {                                                                                           \
        (void)pthread_mutex_lock(&(cache)->mutex);                                                 \
        if (!(cache)->is_abandoned) {                                                              \
            log_at((cache)->log, (level), (message), ##__VA_ARGS__);                               \
        }                                                                                          \
        (void)pthread_mutex_unlock(&(cache)->mutex);                                               \
    } while (0)

/* ---- the thread: the keeper ---- */

/* One that is damaged is told of when it is set aside. */
static void keeper_broke(struct cache *cache, int r, const char *error)
{
    if (r != -EBADMSG) {
        thread_log(
            cache, LOG_ERROR, "cache is broken: every lookup is a miss until it opens again",
            log_text("path", cache->options.store.path), log_text("error", error),
            log_text(
                "remedy",
                "each worker needs a worker.data_dir of its own that it may write to, with room"),
            log_int("retry_ms", CACHE_RETRY_MS));
    }
    keeper_close(&cache->keeper);
    cache->retry_at_ms = clock_monotonic_ms() + CACHE_RETRY_MS;
    (void)pthread_mutex_lock(&cache->mutex);
    cache->stats.broken++;
    (void)pthread_mutex_unlock(&cache->mutex);
}

static int is_aside(const struct dirent *entry)
{
    return strstr(entry->d_name, ".damaged-") != NULL;
}

static void remove_tree(const char *path)
{
    struct dirent **names = NULL;
    // cppcheck-suppress nullPointer // all of them, in any order
    const int length = scandir(path, &names, NULL, NULL);
    for (int i = 0; i < length; i++) {
        char file[4096];
        if (strcmp(names[i]->d_name, ".") != 0 && strcmp(names[i]->d_name, "..") != 0 &&
            snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name) < (int)sizeof(file)) {
            (void)unlink(file); /* a database has no folders */
        }
        free(names[i]);
    }
    free(names);
    (void)rmdir(path);
}

/* Of the damaged databases beside this one the newest are kept: their names sort by time. */
static void remove_old_ones(const char *path)
{
    char folder[4096], old[4096];
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    (void)snprintf(folder, sizeof(folder), "%.*s", slash == NULL ? 1 : (int)(slash - path),
                   slash == NULL ? "." : path);
    struct dirent **names = NULL;
    const int length = scandir(folder, &names, is_aside, alphasort);
    int left = 0;
    for (int i = length - 1; i >= 0; i--) {
        const bool is_ours = strncmp(names[i]->d_name, name, strlen(name)) == 0;
        left += is_ours ? 1 : 0;
        if (is_ours && left > CACHE_ASIDE_MAX &&
            snprintf(old, sizeof(old), "%s/%s", folder, names[i]->d_name) < (int)sizeof(old)) {
            remove_tree(old);
        }
        free(names[i]);
    }
    free(names);
}

/* Moved, never deleted: somebody may want to know what happened. */
static void set_aside(struct cache *cache, const char *error)
{
    const char *path = cache->options.store.path;
    char aside[4096];
    (void)snprintf(aside, sizeof(aside), "%s.damaged-%013lld", path, (long long)clock_unix_ms());
    const int r = rename(path, aside) < 0 ? -errno : 0;
    thread_log(cache, LOG_ERROR,
               r == 0 ? "cache is damaged: it is set aside, and a new one begun"
                      : "cache is damaged, and cannot be set aside",
               log_text("path", path), log_text("aside", aside), log_text("error", error),
               log_text("reason", r == 0 ? NULL : strerror(-r)));
    (void)pthread_mutex_lock(&cache->mutex);
    cache->stats.set_aside += r == 0 ? 1 : 0;
    (void)pthread_mutex_unlock(&cache->mutex);
    remove_old_ones(path);
}

/* What was invalidated since the start holds in a keeper that is opened again, too. */
static void invalidate_again(struct cache *cache)
{
    const struct list *lists[] = {&cache->kept, &cache->sweeping};
    for (size_t i = 0; i < ARRAY_LENGTH(lists); i++) {
        list_for_each (lists[i], link) {
            const struct invalidation *at = CONTAINER_OF(link, struct invalidation, request.link);
            keeper_invalidate(cache->keeper, at->is_all ? NULL : at->selector, at->at_unix_ms);
        }
    }
}

static int try_open(struct cache *cache, char *error)
{
    int r = keeper_open(&cache->options, &cache->keeper, error);
    if (r == -EBADMSG) {
        set_aside(cache, error);
        r = keeper_open(&cache->options, &cache->keeper, error);
    }
    return r;
}

/* Opens it when it is time to. False: it stays broken. */
static bool keeper_is_open(struct cache *cache)
{
    char error[CACHE_ERROR_BYTES] = "";
    if (cache->keeper != NULL) {
        return true;
    }
    if (clock_monotonic_ms() < cache->retry_at_ms) {
        return false;
    }
    int r = try_open(cache, error);
    if (r < 0) {
        keeper_broke(cache, -EIO, error[0] != '\0' ? error : strerror(-r));
        return false;
    }
    keeper_count_from(cache->keeper, cache->taken - cache->kept.length - cache->sweeping.length);
    invalidate_again(cache);
    thread_log(cache, LOG_INFO, "cache is open", log_text("path", cache->options.store.path));
    return true;
}

/* An error of the store, whatever was done. Without memory it is as good as before: the next call
 * may have some. */
static void store_failed(struct cache *cache, int r, const char *error)
{
    if (r == -ENOMEM) {
        return;
    }
    keeper_broke(cache, r, error[0] != '\0' ? error : strerror(-r));
    if (r == -EBADMSG) {
        set_aside(cache, error);
        cache->retry_at_ms = 0; /* a new one is begun at once */
    }
}

/* ---- the thread: the static model ---- */

static void model_failed(struct cache *cache, const char *error)
{
    const bool is_told = strcmp(cache->model_error, error) == 0;
    cache->model_at_ms = clock_monotonic_ms() + CACHE_RETRY_MS;
    (void)snprintf(cache->model_error, sizeof(cache->model_error), "%s", error);
    if (!is_told) {
        thread_log(cache, LOG_ERROR,
                   "the embedder's model cannot be read: exact hits only until it can",
                   log_text("path", cache->static_folder), log_text("error", error),
                   log_int("retry_ms", CACHE_RETRY_MS));
    }
}

/* Opened again, since another embedder means another index; the store says what is in it. */
static void use_model(struct cache *cache, struct request *news)
{
    cache->model_error[0] = '\0';
    text_embedder_name(cache->model, cache->model_name);
    cache->options.is_near = true;
    cache->options.embedder = (struct keeper_embedder){
        .name = cache->model_name, .dimensions = cache->model->dim, .immediate = cache->model};
    thread_log(cache, LOG_INFO, "the embedder's model is read", log_text("name", cache->model_name),
               log_int("dimensions", cache->model->dim));
    keeper_close(&cache->keeper);
    tell_loop(cache, news);
}

static void read_model(struct cache *cache)
{
    char error[TEXT_EMBEDDER_ERROR_BYTES] = "";
    if (cache->static_folder == NULL || cache->model != NULL ||
        clock_monotonic_ms() < cache->model_at_ms) {
        return;
    }
    struct request *news = calloc(1, sizeof(*news));
    int r =
        news == NULL ? -ENOMEM : embed_static_create(cache->static_folder, &cache->model, error);
    if (r < 0) {
        free(news);
        model_failed(cache, error[0] != '\0' ? error : strerror(-r));
        return;
    }
    news->kind = REQUEST_MODEL;
    use_model(cache, news);
}

/* ---- the thread: requests ---- */

static void thread_lookup(struct cache *cache, struct cache_lookup *lookup)
{
    char error[CACHE_ERROR_BYTES] = "";
    lookup->result = (struct cache_result){.answer = CACHE_ANSWER_BROKEN, .why = "broken"};
    if (!keeper_is_open(cache)) {
        return;
    }
    if (clock_monotonic_ms() >= lookup->until_ms) {
        lookup->result = (struct cache_result){.answer = CACHE_ANSWER_MISS, .why = "late"};
        return;
    }
    int r = keeper_lookup(cache->keeper, &lookup->query, clock_unix_ms(), &lookup->result, error);
    if (r == -ENOMEM) {
        lookup->result = (struct cache_result){.answer = CACHE_ANSWER_MISS, .why = "memory"};
    } else if (r < 0) {
        lookup->result = (struct cache_result){.answer = CACHE_ANSWER_BROKEN, .why = "broken"};
        store_failed(cache, r, error);
    } else if (lookup->query.may_be_near && cache->static_folder != NULL && cache->model == NULL &&
               lookup->result.answer == CACHE_ANSWER_MISS) {
        lookup->result.why = "embedder";
    }
}

/* What was invalidated meanwhile, or is too old, differs for that reason: it says nothing. */
static int compare(struct cache *cache, struct fill *fill, char *error)
{
    Record__CacheEntry *candidate = NULL;
    if (keeper_is_overtaken(cache->keeper, fill->key, fill->entry->about, fill->born)) {
        return 0;
    }
    int r =
        keeper_get_fresh(cache->keeper, fill->comparison.key, clock_unix_ms(), &candidate, error);
    if (r == 0 && candidate != NULL) {
        fill->verdict =
            judge(fill->comparison.judge, fill->comparison.judge_cosine_min, candidate->body.data,
                  candidate->body.len, fill->entry->body.data, fill->entry->body.len);
        record__cache_entry__free_unpacked(candidate, NULL);
    }
    return r;
}

static bool thread_fill(struct cache *cache, struct fill *fill)
{
    char error[CACHE_ERROR_BYTES] = "";
    int r = 0;
    if (!keeper_is_open(cache)) {
        return false;
    }
    if (fill->has_comparison) {
        r = compare(cache, fill, error);
    }
    if (r == 0 && fill->keeping == CACHE_ADDS_VECTOR) {
        r = keeper_add_vector(cache->keeper, fill->key, fill->entry->about->filled_unix_ms,
                              fill->vector, error);
    } else if (r == 0 && fill->keeping != CACHE_COMPARES) {
        r = keeper_fill(cache->keeper, fill->key, fill->entry, fill->vector,
                        fill->keeping == CACHE_KEEPS_AND_VECTOR_FOLLOWS, fill->born,
                        clock_unix_ms(), error);
    }
    if (r < 0) {
        store_failed(cache, r, error);
    }
    return r == 0;
}

static void forget_first(struct cache *cache)
{
    struct invalidation *first =
        CONTAINER_OF(list_first(&cache->kept), struct invalidation, request.link);
    if (cache->keeper != NULL) {
        keeper_forget_invalidations(cache->keeper, first->number);
    }
    list_remove(&cache->kept, &first->request.link);
    cache_request_release(&first->request);
}

/* Too many wait: one less is known, and the next one takes everything, if the keeper has to hear of
 * it again. */
static void widen_first(struct cache *cache)
{
    struct invalidation *first =
        CONTAINER_OF(list_first(&cache->sweeping), struct invalidation, request.link);
    list_remove(&cache->sweeping, &first->request.link);
    cache_request_release(&first->request);
    CONTAINER_OF(list_first(&cache->sweeping), struct invalidation, request.link)->is_all = true;
}

/* Their numbers leave no gap: invalidate_again(). */
static void keep_invalidations_bounded(struct cache *cache)
{
    while (!list_is_empty(&cache->kept) &&
           cache->kept.length + cache->sweeping.length > INVALIDATIONS_MAX) {
        forget_first(cache);
    }
    while (cache->sweeping.length > INVALIDATIONS_MAX) {
        widen_first(cache);
    }
}

/* Takes the request, until it is swept and no attempt is as old. */
static void thread_invalidate(struct cache *cache, struct invalidation *invalidation)
{
    invalidation->number = ++cache->taken;
    invalidation->at_ms = clock_monotonic_ms();
    invalidation->at_unix_ms = clock_unix_ms();
    if (cache->keeper != NULL) {
        keeper_invalidate(cache->keeper, invalidation->is_all ? NULL : invalidation->selector,
                          invalidation->at_unix_ms);
    }
    list_append(&cache->sweeping, &invalidation->request.link);
    keep_invalidations_bounded(cache);
}

static bool lacks_model(const struct cache *cache)
{
    return cache->static_folder != NULL && cache->model == NULL;
}

static int begin_to_answer(struct cache *cache, struct question *question, json_t **ret_answer)
{
    if (strcmp(question->what, "cache.explain") == 0 && lacks_model(cache)) {
        (void)snprintf(question->error, sizeof(question->error),
                       "the embedder's model cannot be read, so there are no near hits: %.180s",
                       cache->model_error);
        return -EINVAL;
    }
    if (strcmp(question->what, "cache.rebuild") == 0) {
        cache->model_at_ms = 0; /* a model that could not be read is tried at once */
    }
    json_t *argument = json_loads(question->argument, 0, NULL);
    int r = keeper_ask(cache->keeper, question->what, argument, clock_unix_ms(), ret_answer,
                       &question->walk, question->error);
    json_decref(argument);
    return r;
}

/* False: there is more to do, after whatever came since. */
static bool thread_ask(struct cache *cache, struct question *question)
{
    if (!keeper_is_open(cache)) {
        (void)snprintf(question->error, sizeof(question->error),
                       "the cache is broken: see the worker's log");
        return true;
    }
    json_t *answer = NULL;
    int r = question->walk == NULL ? begin_to_answer(cache, question, &answer)
                                   : keeper_walk_on(cache->keeper, &question->walk, clock_unix_ms(),
                                                    &answer, question->error);
    if (r < 0 && r != -EINVAL) {
        store_failed(cache, r, question->error);
    }
    if (question->walk != NULL) {
        return false;
    }
    question->text =
        answer == NULL ? NULL : json_dumps(answer, JSON_COMPACT | JSON_REAL_PRECISION(10));
    if (question->text == NULL && question->error[0] == '\0') {
        (void)snprintf(question->error, sizeof(question->error), "%s",
                       r < 0 ? strerror(-r) : "out of memory");
    }
    json_decref(answer);
    return true;
}

static void thread_deny(struct cache *cache, const struct denial *denial)
{
    char error[CACHE_ERROR_BYTES] = "";
    int r = keeper_is_open(cache) ? keeper_deny_near(cache->keeper, denial->key, error) : 0;
    if (r < 0) {
        store_failed(cache, r, error);
    }
}

static void thread_bring(struct cache *cache, const struct errand *errand)
{
    char error[CACHE_ERROR_BYTES] = "";
    int r = keeper_is_open(cache) ? keeper_bring(cache->keeper, errand->wanted, error) : 0;
    if (r < 0) {
        store_failed(cache, r, error);
    }
}

/* ---- the thread: sweeps ---- */

/* A copy of what is to be told; without memory it is told with the next one. */
static struct invalidation *report_of(const struct invalidation *from)
{
    struct invalidation *report = calloc(1, sizeof(*report));
    char *endpoint = strdup(from->endpoint);
    Wire__CacheSelector *selector = from->is_all ? NULL : message_copy(&from->selector->base);
    if (report == NULL || endpoint == NULL || (selector == NULL && !from->is_all)) {
        free(report);
        free(endpoint);
        if (selector != NULL) {
            wire__cache_selector__free_unpacked(selector, NULL);
        }
        return NULL;
    }
    *report = *from;
    report->endpoint = endpoint;
    report->selector = selector;
    return report;
}

static struct invalidation *first_swept(const struct cache *cache)
{
    struct invalidation *first =
        list_is_empty(&cache->sweeping)
            ? NULL
            : CONTAINER_OF(list_first(&cache->sweeping), struct invalidation, request.link);
    return first != NULL && first->number <= keeper_swept(cache->keeper) ? first : NULL;
}

/* One of the same broker is swept as well, and comes soon: its position holds for this one, and
 * each costs an fsync. */
static bool is_followed(const struct cache *cache, const struct invalidation *swept)
{
    const struct list_link *link = swept->request.link.next;
    for (size_t i = 0; i < ENDPOINTS_MAX && link != &cache->sweeping.head; i++, link = link->next) {
        const struct invalidation *later = CONTAINER_OF(link, struct invalidation, request.link);
        if (later->number <= keeper_swept(cache->keeper) &&
            memcmp(later->epoch, swept->epoch, CACHE_EPOCH_BYTES) == 0 &&
            strcmp(later->endpoint, swept->endpoint) == 0) {
            return true;
        }
    }
    return false;
}

static int end_sweep(struct cache *cache, struct invalidation *swept, char *error)
{
    int r = is_followed(cache, swept) ? 0
                                      : keeper_put_position(cache->keeper, swept->endpoint,
                                                            swept->epoch, swept->sequence, error);
    if (r < 0) {
        return r;
    }
    list_remove(&cache->sweeping, &swept->request.link);
    list_append(&cache->kept, &swept->request.link);
    keeper_take_removed(cache->keeper, &swept->entries, &swept->bytes);
    struct invalidation *report = report_of(swept);
    if (report != NULL) {
        tell_loop(cache, &report->request);
    }
    return 0;
}

/* Returns 1: there are more. Errors: of the store. */
static int end_sweeps(struct cache *cache, char *error)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < ENDS_A_STEP && first_swept(cache) != NULL; i++) {
        r = end_sweep(cache, first_swept(cache), error);
    }
    return r < 0 ? r : first_swept(cache) != NULL ? 1 : 0;
}

static void forget_old(struct cache *cache)
{
    const int64_t before_ms = clock_monotonic_ms() - FORGET_MS;
    while (!list_is_empty(&cache->kept) &&
           CONTAINER_OF(list_first(&cache->kept), struct invalidation, request.link)->at_ms <=
               before_ms) {
        forget_first(cache);
    }
}

/* Without memory for the message they are found again in a later round. */
static void send_wanted(struct cache *cache)
{
    struct errand *errand = cache->handler.on_wanted == NULL ? NULL : calloc(1, sizeof(*errand));
    if (errand == NULL) {
        return;
    }
    errand->request.kind = REQUEST_WANTED;
    errand->wanted = keeper_take_wanted(cache->keeper);
    if (errand->wanted == NULL) {
        free(errand);
        return;
    }
    tell_loop(cache, &errand->request);
}

/* The keeper's, and what invalidations have left. */
static enum keeper_rest thread_step(struct cache *cache)
{
    char error[CACHE_ERROR_BYTES] = "";
    read_model(cache);
    if (!keeper_is_open(cache)) {
        return KEEPER_REST_NONE;
    }
    int r = keeper_step(cache->keeper, clock_unix_ms(), error);
    enum keeper_rest rest = r < 0 ? KEEPER_REST_NONE : (enum keeper_rest)r;
    r = r < 0 ? r : end_sweeps(cache, error);
    rest = r > 0 ? KEEPER_REST_AT_ONCE : rest;
    if (r < 0) {
        store_failed(cache, r, error);
        return KEEPER_REST_NONE;
    }
    forget_old(cache);
    send_wanted(cache);
    return rest;
}

/* ---- the thread ---- */

static void publish(struct cache *cache)
{
    cache->stats.is_broken = cache->keeper == NULL;
    cache->stats.lacks_model = lacks_model(cache);
    (void)snprintf(cache->stats.model_error, sizeof(cache->stats.model_error), "%s",
                   cache->model_error);
    cache->stats.invalidations_pending = cache->sweeping.length;
    if (cache->keeper != NULL) {
        keeper_read_stats(cache->keeper, &cache->stats.keeper);
    }
}

/* With the mutex held, given back held. Returns whether there is more to do at once because of it.
 */
static bool thread_take_one(struct cache *cache)
{
    struct request *request = CONTAINER_OF(list_first(&cache->waiting), struct request, link);
    struct fill *fill = CONTAINER_OF(request, struct fill, request);
    struct cache_lookup *lookup = CONTAINER_OF(request, struct cache_lookup, request);
    list_remove(&cache->waiting, &request->link);
    cache->fills_waiting -= request->kind == REQUEST_FILL ? 1 : 0;
    (void)pthread_mutex_unlock(&cache->mutex);
    bool is_done = true, is_answer = true;
    const bool has_more = request->kind == REQUEST_BRING || request->kind == REQUEST_INVALIDATE;
    switch (request->kind) {
    case REQUEST_LOOKUP:
        thread_lookup(cache, lookup);
        break;
    case REQUEST_FILL:
        is_done = thread_fill(cache, fill);
        break;
    case REQUEST_INVALIDATE:
        thread_invalidate(cache, CONTAINER_OF(request, struct invalidation, request));
        is_answer = false;
        break;
    case REQUEST_ASK:
        is_answer = thread_ask(cache, CONTAINER_OF(request, struct question, request));
        break;
    case REQUEST_DENY:
        thread_deny(cache, CONTAINER_OF(request, struct denial, request));
        is_answer = false;
        break;
    case REQUEST_BRING:
        thread_bring(cache, CONTAINER_OF(request, struct errand, request));
        is_answer = false;
        break;
    case REQUEST_WANTED:
    case REQUEST_MODEL:
        break;
    }
    (void)pthread_mutex_lock(&cache->mutex);
    publish(cache);
    if (request->kind == REQUEST_FILL &&
        (fill->keeping == CACHE_KEEPS || fill->keeping == CACHE_KEEPS_AND_VECTOR_FOLLOWS)) {
        cache->stats.fills += is_done ? 1 : 0;
        cache->stats.fills_failed += is_done ? 0 : 1;
    }
    cache->stats.late += request->kind == REQUEST_LOOKUP && lookup->result.why != NULL &&
                                 strcmp(lookup->result.why, "late") == 0
                             ? 1
                             : 0;
    if (request->kind == REQUEST_DENY || request->kind == REQUEST_BRING) {
        cache_request_release(request);
    } else if (request->kind == REQUEST_ASK && !is_answer && !cache->is_stopping) {
        list_append(&cache->waiting, &request->link);
    } else if (is_answer || request->kind == REQUEST_ASK) {
        answer_loop(cache, request);
    }
    return has_more;
}

static void wait_for_work(struct cache *cache, int64_t most_ms)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += most_ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (list_is_empty(&cache->waiting) && !cache->is_stopping &&
           pthread_cond_timedwait(&cache->wake, &cache->mutex, &until) == 0) {
    }
}

static void read_positions(struct cache *cache)
{
    char error[CACHE_ERROR_BYTES] = "";
    cache->positions_are_known = cache->keeper != NULL;
    for (size_t i = 0; i < cache->positions_length && cache->positions_are_known; i++) {
        struct position *position = &cache->positions[i];
        cache->positions_are_known =
            keeper_get_position(cache->keeper, position->endpoint, position->epoch,
                                &position->sequence, error) == 0;
    }
}

void *cache_thread_run(void *context)
{
    struct cache *cache = context;
    (void)keeper_is_open(cache);
    read_positions(cache);
    (void)pthread_mutex_lock(&cache->mutex);
    publish(cache);
    cache->has_tried_to_open = true;
    (void)pthread_cond_signal(&cache->opened);
    (void)pthread_mutex_unlock(&cache->mutex);
    read_model(cache); /* may take longer than the start waits for positions */
    enum keeper_rest rest = keeper_is_open(cache) ? KEEPER_REST_AT_ONCE : KEEPER_REST_NONE;
    (void)pthread_mutex_lock(&cache->mutex);
    publish(cache);
    for (size_t taken = 0;; taken++) {
        if (rest != KEEPER_REST_AT_ONCE) {
            wait_for_work(cache, rest == KEEPER_REST_AT_LEISURE ? LEISURE_MS : IDLE_MS);
        }
        if (list_is_empty(&cache->waiting) && cache->is_stopping) {
            break;
        }
        const bool is_idle = list_is_empty(&cache->waiting);
        if (!is_idle) {
            rest = thread_take_one(cache) ? KEEPER_REST_AT_ONCE : rest;
        }
        if (is_idle || taken % REQUESTS_A_STEP == 0) {
            (void)pthread_mutex_unlock(&cache->mutex);
            rest = thread_step(cache);
            (void)pthread_mutex_lock(&cache->mutex);
            publish(cache);
        }
        rest = cache->keeper == NULL ? KEEPER_REST_NONE : rest;
    }
    (void)pthread_mutex_unlock(&cache->mutex);
    keeper_close(&cache->keeper);
    text_embedder_destroy(&cache->model);
    (void)pthread_mutex_lock(&cache->mutex);
    cache->has_ended = true;
    const bool is_abandoned = cache->is_abandoned;
    (void)pthread_mutex_unlock(&cache->mutex);
    if (is_abandoned) {
        cache_release(cache);
    }
    return NULL;
}
