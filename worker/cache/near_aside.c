#include "worker/cache/near_aside.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/list.h"
#include "worker/attempt.h"
#include "worker/cache/cache.h"
#include "worker/cache/cache_checks.h"
#include "worker/cache/near_policy.h"
#include "worker/cache/text_embedder.h"
#include "worker/cache/vector_index.h"
#include "worker/message_copy.h"
#include "worker/services.h"

struct near_aside {
    struct list_link link;
    struct near_asides *asides;
    struct attempt *attempt;   /* NULL: it has gone */
    Record__CacheEntry *entry; /* its answer, then: kept without its vector */
    struct attempt *gone;      /* then, too: what a model is asked by, if it judges; NULL */
    struct broker_link *broker;
    char *tenant, *tier, *text;
    uint64_t born;
    struct cache_query query;
    int8_t *vector;
    struct text_embedder_call *call; /* NULL: it has come */
    struct cache_lookup *lookup;     /* likewise */
};

struct near_asides {
    struct services *services;
    struct list list;
    size_t bytes; /* of the answers that wait */
};

int near_asides_create(struct services *services, struct near_asides **ret_asides)
{
    struct near_asides *asides = calloc(1, sizeof(*asides));
    if (asides == NULL) {
        return -ENOMEM;
    }
    asides->services = services;
    list_init(&asides->list);
    *ret_asides = asides;
    return 0;
}

static void forget_gone(struct attempt **gone)
{
    struct attempt *old = TAKE(*gone);
    if (old != NULL) {
        free(old->pool);
        free(old->residency);
    }
    free(old);
}

static void release(struct near_aside *aside)
{
    list_remove(&aside->asides->list, &aside->link);
    text_embedder_cancel(&aside->call);
    cache_forget(&aside->lookup);
    if (aside->attempt != NULL) {
        aside->attempt->aside = NULL;
    }
    if (aside->entry != NULL) {
        aside->asides->bytes -= aside->entry->body.len;
        record__cache_entry__free_unpacked(aside->entry, NULL);
    }
    forget_gone(&aside->gone);
    free(aside->vector);
    free(aside->tenant);
    free(aside->tier);
    free(aside->text);
    free(aside);
}

void near_asides_destroy(struct near_asides **asides)
{
    struct near_asides *old = TAKE(*asides);
    while (old != NULL && !list_is_empty(&old->list)) {
        release(CONTAINER_OF(list_first(&old->list), struct near_aside, link));
    }
    free(old);
}

/* ---- what comes ---- */

/* The answer has waited for it: it is kept once more, with its vector (NULL: it could not be had).
 */
static void keep(struct near_aside *aside, const struct cache_result *result)
{
    const struct services *services = aside->asides->services;
    struct cache_comparison comparison = {.tenant = aside->tenant,
                                          .tier = aside->tier,
                                          .broker = aside->broker,
                                          .judge = services->judge,
                                          .judge_cosine_min = services->judge_cosine_min};
    const bool compares = result != NULL && result->has_candidate && services->judge != JUDGE_MODEL;
    if (compares) {
        comparison.score = result->score;
        memcpy(comparison.key, result->key, CACHE_KEY_BYTES);
    }
    (void)!cache_start_fill(services->cache, aside->query.key, aside->entry, aside->vector,
                            aside->born, CACHE_ADDS_VECTOR, compares ? &comparison : NULL);
}

/* ---- a model that judges ---- */

static void candidate_came(void *context, struct cache_result *result)
{
    struct near_aside *aside = context;
    aside->lookup = NULL;
    if (result->entry != NULL) {
        cache_checks_judge_miss(aside->asides->services, aside->gone, result->entry);
    }
    release(aside);
}

/* It is asked as if the attempt were still there. False: it is not. */
static bool asks_judge(struct near_aside *aside, const struct cache_result *result)
{
    struct services *services = aside->asides->services;
    struct attempt *gone = aside->gone;
    if (gone == NULL || result == NULL || !result->has_candidate) {
        return false;
    }
    gone->has_candidate = true;
    gone->near_score = result->score;
    memcpy(gone->candidate, result->key, CACHE_KEY_BYTES);
    gone->body.data = (char *)aside->entry->body.data;
    gone->body.length = aside->entry->body.len;
    struct cache_query query = {
        .threshold = INFINITY, .prompt_cut = aside->query.prompt_cut, .serves_nobody = true};
    memcpy(query.key, gone->candidate, CACHE_KEY_BYTES);
    const int64_t until_ms = clock_monotonic_ms() + services->config->cache.lookup_timeout_ms;
    return cache_checks_judges_miss(services, gone) &&
           cache_start_lookup(services->cache, &query, until_ms, candidate_came, aside,
                              &aside->lookup) == 0;
}

/* ---- the end ---- */

/* `result` NULL: there was no lookup. */
static void end(struct near_aside *aside, const struct cache_result *result)
{
    struct attempt *attempt = aside->attempt;
    const bool has_candidate = result != NULL && result->has_candidate;
    if (has_candidate) {
        near_policy_looked(aside->asides->services->near_policy, aside->broker, aside->tenant,
                           aside->tier, result->score, false);
    }
    if (attempt == NULL) {
        keep(aside, result);
    } else {
        attempt->vector = TAKE(aside->vector);
        attempt->has_candidate = has_candidate;
    }
    if (attempt != NULL && has_candidate) {
        attempt->near_score = result->score;
        memcpy(attempt->candidate, result->key, CACHE_KEY_BYTES);
    }
    if (!asks_judge(aside, result)) {
        release(aside);
    }
}

static void found(void *context, struct cache_result *result)
{
    struct near_aside *aside = context;
    aside->lookup = NULL;
    end(aside, result);
}

static void vector_came(void *context, int result, const float *vector)
{
    struct near_aside *aside = context;
    const struct services *services = aside->asides->services;
    aside->call = NULL;
    aside->vector = result < 0 ? NULL : vector_quantised(vector, services->text_embedder->dim);
    aside->query.vector = aside->vector;
    const int64_t until_ms = clock_monotonic_ms() + services->config->cache.lookup_timeout_ms;
    if (aside->vector == NULL || cache_start_lookup(services->cache, &aside->query, until_ms, found,
                                                    aside, &aside->lookup) < 0) {
        end(aside, NULL);
    }
}

/* ---- what goes ---- */

static int copy_texts(struct near_aside *aside, const struct attempt *attempt)
{
    aside->tenant = strdup(attempt->tenant);
    aside->tier = strdup(attempt->tier);
    aside->text = strdup(attempt->near_text);
    aside->query.text = aside->text;
    aside->query.is_near_only = true; /* the answer may be kept before */
    return aside->tenant == NULL || aside->tier == NULL || aside->text == NULL ? -ENOMEM : 0;
}

void near_aside_start(struct near_asides *asides, struct attempt *attempt,
                      const struct cache_query *query)
{
    struct near_aside *aside =
        asides->list.length < NEAR_ASIDES_MAX ? calloc(1, sizeof(*aside)) : NULL;
    if (aside == NULL) {
        return;
    }
    *aside = (struct near_aside){
        .asides = asides, .broker = attempt->broker, .born = attempt->born, .query = *query};
    list_append(&asides->list, &aside->link);
    const struct text_view text = {.text = attempt->near_text, .bytes = strlen(attempt->near_text)};
    if (copy_texts(aside, attempt) < 0 ||
        text_embedder_start(asides->services->text_embedder, &text, 1, vector_came, aside,
                            &aside->call) < 0) {
        release(aside);
        return;
    }
    aside->attempt = attempt;
    attempt->aside = aside;
}

/* What cache_checks.h looks at; tenant and tier are those of `aside`. NULL: no memory. */
static struct attempt *gone_of(const struct near_aside *aside, const struct attempt *attempt)
{
    struct attempt *gone = calloc(1, sizeof(*gone));
    if (gone == NULL) {
        return NULL;
    }
    gone->broker = attempt->broker;
    gone->tenant = aside->tenant;
    gone->tier = aside->tier;
    gone->pool = strdup(attempt->pool);
    gone->residency = strdup(attempt->residency);
    gone->has_needs = attempt->has_needs;
    gone->started_ms = attempt->started_ms;
    gone->queue_ms = attempt->queue_ms;
    if (gone->pool == NULL || gone->residency == NULL) {
        forget_gone(&gone);
    }
    return gone;
}

void near_aside_answered(struct near_aside **aside, const Record__CacheEntry *entry)
{
    struct near_aside *old = TAKE(*aside);
    if (old == NULL) {
        return;
    }
    if (old->asides->services->judge == JUDGE_MODEL) { /* without memory it is one label less */
        old->gone = gone_of(old, old->attempt);
    }
    old->attempt = NULL;
    const size_t bytes = entry->body.len;
    const bool has_room = bytes <= NEAR_ASIDE_BYTES_MAX - old->asides->bytes;
    old->entry = has_room ? message_copy(&entry->base) : NULL;
    if (old->entry == NULL) { /* its vector is found wanting by and by */
        release(old);
        return;
    }
    old->asides->bytes += bytes;
}

void near_aside_destroy(struct near_aside **aside)
{
    struct near_aside *old = TAKE(*aside);
    if (old != NULL) {
        old->attempt = NULL;
        release(old);
    }
}
