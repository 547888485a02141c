#include "worker/cache/cache_stage.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/canonical.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/loop.h"
#include "worker/attempt.h"
#include "worker/broker_link.h"
#include "worker/cache/cache.h"
#include "worker/cache/scope.h"
#include "worker/pipeline.h"
#include "worker/provider/assembly.h"
#include "worker/telemetry.h"

static_assert((int)CACHE_KEY_BYTES == (int)ATTEMPT_KEY_BYTES,
              "an entry's key is an attempt's canonical key");
static_assert((int)CACHE_KEY_BYTES == (int)CANONICAL_KEY_BYTES,
              "an entry's key is an attempt's canonical key");

static int64_t ttl_ms(const struct services *services, const struct attempt *attempt)
{
    const struct config_tier *tier = config_find_tier(services->config, attempt->tier);
    return tier == NULL ? 0 : tier->cache_ttl_ms;
}

/* ---- looking up ---- */

/* Finds scope and text, if the request may have a near hit at all. */
static void set_scope(const struct services *services, struct attempt *attempt)
{
    const char *text = NULL;
    if (services->cache_mode != CACHE_NEAR) {
        return;
    }
    json_t *body =
        json_loadb((const char *)attempt->request->body.data, attempt->request->body.len, 0, NULL);
    if (json_is_object(body) &&
        scope_temperature_permille(body) <= services->config->cache.temperature_max_permille &&
        scope_of(attempt->tenant,
                 attempt->request->cache == NULL ? "" : attempt->request->cache->cache_namespace,
                 attempt->operation, attempt->route, body, attempt->scope, &text) == 0) {
        attempt->near_text = strdup(text);
        attempt->has_scope = attempt->near_text != NULL;
    }
    json_decref(body);
}

static enum stage_verdict missed(const struct services *services, struct attempt *attempt,
                                 Wire__CacheStatus status, const char *result)
{
    attempt->cache_status = status;
    telemetry_cache(services->telemetry, result);
    return STAGE_NEXT;
}

static void lookup_done(void *context, struct cache_result *result)
{
    const struct stage_event event = {.kind = STAGE_EVENT_CACHE, .as.cache = result};
    pipeline_resume(context, &event);
}

static enum stage_verdict cache_start(void *module, struct attempt *attempt)
{
    const struct services *services = module;
    struct cache_query query = {.text = NULL};
    if (services->cache == NULL || ttl_ms(services, attempt) <= 0) {
        return STAGE_NEXT;
    }
    set_scope(services, attempt);
    attempt->may_be_filled = true;
    memcpy(query.key, attempt->key, CACHE_KEY_BYTES);
    if (attempt->has_scope) {
        query.may_be_near = true;
        query.text = attempt->near_text;
        memcpy(query.scope, attempt->scope, CACHE_SCOPE_BYTES);
    }
    if (cache_start_lookup(services->cache, &query, lookup_done, attempt, &attempt->lookup) < 0) {
        return missed(services, attempt, WIRE__CACHE_STATUS__CACHE_NONE, "busy");
    }
    loop_timer_set(attempt->timer,
                   clock_monotonic_ms() + services->config->cache.lookup_timeout_ms);
    return STAGE_WAITS;
}

/* ---- answering ---- */

/*
 * The whole answer as one chunk, for a client that asked for a stream. Without memory it gets the
 * whole answer only.
 */
static void replay(struct attempt *attempt)
{
    json_t *answer = json_loadb(attempt->body.data, attempt->body.length, 0, NULL);
    json_t *chunk = NULL;
    char *text = NULL;
    if (answer != NULL && assembly_chunk_of(answer, attempt->operation, &chunk) == 0) {
        text = json_dumps(chunk, JSON_COMPACT);
    }
    attempt->chunks.bytes_max = SIZE_MAX / 2;
    if (text != NULL && bytes_append_text(&attempt->chunks, "data: ") == 0 &&
        bytes_append_text(&attempt->chunks, text) == 0 &&
        bytes_append_text(&attempt->chunks, "\n\n") == 0) {
        broker_link_send_chunk(attempt->broker, attempt, attempt->chunks_sent++, true,
                               attempt->chunks.data, attempt->chunks.length);
    }
    free(text);
    json_decref(chunk);
    json_decref(answer);
}

/* Takes what the entry says over into the attempt. Errors: -ENOMEM. */
static int take_entry(struct attempt *attempt, const struct cache_result *result)
{
    const Record__CacheEntry *entry = result->entry;
    attempt->body.bytes_max = entry->body.len;
    int r = bytes_append(&attempt->body, entry->body.data, entry->body.len);
    attempt->model = strdup(entry->model);
    if (r < 0 || attempt->model == NULL) {
        return -ENOMEM;
    }
    attempt->tokens = (struct token_counts){
        .input = entry->input_tokens,
        .cached_input = entry->cached_input_tokens,
        .output = entry->output_tokens,
        .reasoning = entry->reasoning_tokens,
    };
    attempt->saved_nanousd = entry->cost_nanousd;
    return 0;
}

static enum stage_verdict answered(struct services *services, struct attempt *attempt,
                                   const struct cache_result *result)
{
    const bool is_near = result->answer == CACHE_ANSWER_NEAR_HIT;
    if (take_entry(attempt, result) < 0) {
        outcome_set(&attempt->outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE, "memory",
                    "the worker is out of memory");
        return STAGE_CONCLUDES;
    }
    if (is_near) {
        hex_write(result->key, CACHE_KEY_BYTES, attempt->near_key);
        attempt->near_score = result->score;
    }
    attempt->cache_status =
        is_near ? WIRE__CACHE_STATUS__CACHE_NEAR_HIT : WIRE__CACHE_STATUS__CACHE_HIT;
    telemetry_cache(services->telemetry, is_near ? "near" : "exact");
    telemetry_saved(services->telemetry, attempt->saved_nanousd);
    outcome_set(&attempt->outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, "", "%s", "");
    if (attempt->wants_stream && attempt->operation != OPERATION_EMBEDDINGS) {
        replay(attempt);
    }
    return STAGE_CONCLUDES;
}

static enum stage_verdict cache_resume(void *module, struct attempt *attempt,
                                       const struct stage_event *event)
{
    struct services *services = module;
    if (event->kind != STAGE_EVENT_CACHE) {
        cache_forget(&attempt->lookup);
        return missed(services, attempt, WIRE__CACHE_STATUS__CACHE_NONE, "timeout");
    }
    attempt->lookup = NULL; /* ends with this event */
    loop_timer_stop(attempt->timer);
    switch (event->as.cache->answer) {
    case CACHE_ANSWER_MISS:
        return missed(services, attempt, WIRE__CACHE_STATUS__CACHE_MISS, "miss");
    case CACHE_ANSWER_BROKEN:
        return missed(services, attempt, WIRE__CACHE_STATUS__CACHE_NONE, "broken");
    case CACHE_ANSWER_HIT:
    case CACHE_ANSWER_NEAR_HIT:
        return answered(services, attempt, event->as.cache);
    }
    return STAGE_NEXT;
}

static void cache_abandon(void *module, struct attempt *attempt)
{
    (void)module;
    cache_forget(&attempt->lookup);
}

struct stage cache_stage(struct services *services)
{
    return (struct stage){
        .name = "cache",
        .module = services,
        .start = cache_start,
        .resume = cache_resume,
        .abandon = cache_abandon,
    };
}

/* ---- filling ---- */

static enum stage_verdict fill_start(void *module, struct attempt *attempt)
{
    const struct services *services = module;
    const int64_t now_unix_ms = clock_unix_ms();
    if (!attempt->may_be_filled) {
        return STAGE_NEXT;
    }
    Record__CacheEntry entry = RECORD__CACHE_ENTRY__INIT;
    entry.filled_unix_ms = (uint64_t)now_unix_ms;
    entry.expires_unix_ms = (uint64_t)(now_unix_ms + ttl_ms(services, attempt));
    entry.scope.data = attempt->scope;
    entry.scope.len = attempt->has_scope ? CACHE_SCOPE_BYTES : 0;
    entry.provider = attempt->provider_name;
    entry.model = attempt->model;
    entry.input_tokens = attempt->tokens.input;
    entry.cached_input_tokens = attempt->tokens.cached_input;
    entry.output_tokens = attempt->tokens.output;
    entry.reasoning_tokens = attempt->tokens.reasoning;
    entry.cost_nanousd = attempt->cost_nanousd;
    entry.body.data = (uint8_t *)attempt->body.data;
    entry.body.len = attempt->body.length;
    if (cache_start_fill(services->cache, attempt->key, &entry, attempt->near_text) < 0) {
        telemetry_fill_dropped(services->telemetry);
    }
    return STAGE_NEXT;
}

struct stage fill_stage(struct services *services)
{
    return (struct stage){.name = "fill", .module = services, .start = fill_start};
}
