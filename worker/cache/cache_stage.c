#include "worker/cache/cache_stage.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/canonical.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/log.h"
#include "common/loop.h"
#include "worker/attempt.h"
#include "worker/broker_link.h"
#include "worker/cache/cache.h"
#include "worker/cache/cache_checks.h"
#include "worker/cache/cache_counts.h"
#include "worker/cache/cache_rules.h"
#include "worker/cache/near_aside.h"
#include "worker/cache/near_index.h"
#include "worker/cache/near_policy.h"
#include "worker/cache/scope.h"
#include "worker/cache/text_embedder.h"
#include "worker/pipeline.h"
#include "worker/provider/assembly.h"
#include "worker/telemetry.h"

static_assert((int)CACHE_KEY_BYTES == (int)ATTEMPT_KEY_BYTES,
              "an entry's key is an attempt's canonical key");
static_assert((int)CACHE_KEY_BYTES == (int)CANONICAL_KEY_BYTES,
              "an entry's key is an attempt's canonical key");

/* ---- looking up ---- */

static const char *namespace_of(const struct attempt *attempt)
{
    return attempt->request->cache == NULL ? "" : attempt->request->cache->cache_namespace;
}

/* Texts leave this worker for an embedder that is asked. */
static bool may_be_embedded(const struct services *services, const struct attempt *attempt)
{
    const struct config_embedder *embedder = &services->config->cache.embedder;
    return services->text_embedder == NULL ||
           attempt_may_go_to(attempt, embedder->residency, embedder->residency_length);
}

/* Finds scope and text, if the request may have a near hit at all. */
static void set_scope(const struct services *services, struct attempt *attempt)
{
    const char *text = NULL;
    char *labels[ATTEMPT_LABELS_MAX];
    attempt->is_withheld = !may_be_embedded(services, attempt);
    if (scope_of(&services->key_secret, attempt->tenant, namespace_of(attempt), attempt->operation,
                 attempt->route, attempt->asked, attempt->scope, &text) == 0) {
        canonical_key_narrow(&services->key_secret, labels, attempt_labels(attempt, labels),
                             attempt->scope);
        attempt->near_text = strdup(text);
        attempt->has_scope = attempt->near_text != NULL;
    }
}

static struct cache_count *row_of(const struct services *services, const struct attempt *attempt)
{
    return cache_counts_row(services->cache_counts, attempt->tenant, attempt->tier, attempt->route,
                            namespace_of(attempt));
}

static enum stage_verdict missed(const struct services *services, struct attempt *attempt,
                                 Wire__CacheStatus status, const char *result, const char *why)
{
    struct cache_count *row = row_of(services, attempt);
    if (row != NULL && status == WIRE__CACHE_STATUS__CACHE_MISS) {
        row->miss++;
    } else if (row != NULL) {
        cache_count_bypass(row, why);
    }
    attempt->cache_status = status;
    attempt->cache_why = why;
    telemetry_cache(services->telemetry, result);
    return STAGE_NEXT;
}

static void lookup_done(void *context, struct cache_result *result)
{
    const struct stage_event event = {.kind = STAGE_EVENT_CACHE, .as.cache = result};
    pipeline_resume(context, &event);
}

static bool upstream_is_down(const struct attempt *attempt)
{
    return attempt->upstream_model != NULL &&
           (attempt->is_probe ||
            broker_link_upstream_open_ms(attempt->broker, attempt->upstream_provider,
                                         attempt->upstream_model, clock_monotonic_ms()) > 0);
}

static void set_query(struct services *services, struct attempt *attempt,
                      struct cache_query *ret_query)
{
    const struct cache_rules *rules = &attempt->rules;
    *ret_query = (struct cache_query){.threshold = INFINITY,
                                      .is_strict = services->config->cache.is_strict == SWITCH_ON};
    memcpy(ret_query->key, attempt->key, CACHE_KEY_BYTES);
    ret_query->prompt_cut = rules->prompt_cut;
    attempt->may_serve_error = rules->stale_if_error_ms > 0 && upstream_is_down(attempt);
    ret_query->may_be_stale = rules->stale_while_revalidate_ms > 0 || attempt->may_serve_error;
    if (rules->may_be_near && attempt->has_scope && !attempt->is_withheld &&
        near_policy_is_on(services->near_policy, attempt->tenant, attempt->tier)) {
        ret_query->may_be_near = true;
        ret_query->text = attempt->near_text;
        memcpy(ret_query->scope, attempt->scope, CACHE_SCOPE_BYTES);
        ret_query->threshold =
            near_policy_threshold(services->near_policy, attempt->tenant, attempt->tier, NULL);
        attempt->near_threshold = ret_query->threshold;
    }
}

static enum stage_verdict look_up(struct services *services, struct attempt *attempt,
                                  const struct cache_query *query)
{
    const int64_t until_ms = clock_monotonic_ms() + services->config->cache.lookup_timeout_ms;
    if (cache_start_lookup(services->cache, query, until_ms, lookup_done, attempt,
                           &attempt->lookup) < 0) {
        return missed(services, attempt, WIRE__CACHE_STATUS__CACHE_NONE, "busy", "busy");
    }
    loop_timer_set(attempt->timer, until_ms);
    return STAGE_WAITS;
}

/*
 * All that the cache wants to know of the body, once. Scope and text are kept with the entry also
 * where there are exact hits alone: it is invalidated by them.
 */
static void see_body(const struct services *services, struct attempt *attempt)
{
    cache_rules_of(services, attempt, &attempt->rules);
    if (attempt->rules.bypass == NULL) {
        set_scope(services, attempt);
    }
}

static void forget_body(struct attempt *attempt)
{
    json_decref(attempt->asked);
    attempt->asked = NULL;
}

static enum stage_verdict cache_start(void *module, struct attempt *attempt)
{
    struct services *services = module;
    struct cache_query query;
    if (services->cache == NULL) {
        forget_body(attempt);
        return STAGE_NEXT;
    }
    see_body(services, attempt);
    forget_body(attempt);
    if (attempt->rules.bypass != NULL) {
        return missed(services, attempt, WIRE__CACHE_STATUS__CACHE_NONE, "bypass",
                      attempt->rules.bypass);
    }
    attempt->may_be_filled = true;
    attempt->born = cache_latest(services->cache);
    if (!attempt->rules.is_looked_up) {
        return missed(services, attempt, WIRE__CACHE_STATUS__CACHE_NONE, "bypass", "refresh");
    }
    set_query(services, attempt, &query);
    attempt->wants_vector = query.may_be_near && services->text_embedder != NULL;
    query.may_be_near = query.may_be_near && !attempt->wants_vector;
    return look_up(services, attempt, &query);
}

/* ---- the vector ---- */

static void vector_done(void *context, int result, const float *vectors)
{
    struct attempt *attempt = context;
    attempt->vector_call = NULL; /* ends with this event */
    const struct stage_event event = {.kind = STAGE_EVENT_VECTOR,
                                      .as.vector = result < 0 ? NULL : vectors};
    pipeline_resume(attempt, &event);
}

/* The class is closed: nobody waits for a vector. */
static enum stage_verdict learn_aside(struct services *services, struct attempt *attempt)
{
    struct cache_query query;
    set_query(services, attempt, &query);
    near_aside_start(services->near_asides, attempt, &query);
    return missed(services, attempt, WIRE__CACHE_STATUS__CACHE_MISS, "miss", "closed");
}

/* After an exact lookup that found nothing. */
static enum stage_verdict ask_for_vector(struct services *services, struct attempt *attempt)
{
    const struct config_embedder *embedder = &services->config->cache.embedder;
    const struct text_view text = {.text = attempt->near_text, .bytes = strlen(attempt->near_text)};
    attempt->wants_vector = false;
    if (!near_text_is_good(attempt->near_text)) {
        return missed(services, attempt, WIRE__CACHE_STATUS__CACHE_MISS, "miss", "long");
    }
    if (!isfinite(attempt->near_threshold)) {
        return learn_aside(services, attempt);
    }
    if (text_embedder_start(services->text_embedder, &text, 1, vector_done, attempt,
                            &attempt->vector_call) < 0) {
        return missed(services, attempt, WIRE__CACHE_STATUS__CACHE_MISS, "embedder", "embedder");
    }
    loop_timer_set(attempt->timer,
                   clock_monotonic_ms() + embedder->batch_wait_ms + embedder->timeout_ms);
    return STAGE_WAITS;
}

/* `vector` NULL: it failed, or was late; what was asked for still comes, for those who ask next. */
static enum stage_verdict vector_came(struct services *services, struct attempt *attempt,
                                      const float *vector)
{
    struct cache_query query;
    loop_timer_stop(attempt->timer);
    text_embedder_cancel(&attempt->vector_call);
    if (vector == NULL) {
        return missed(services, attempt, WIRE__CACHE_STATUS__CACHE_MISS, "embedder", "embedder");
    }
    attempt->vector = vector_quantised(vector, services->text_embedder->dim);
    if (attempt->vector ==
        NULL) { /* the embedder knows nothing of the text, or there is no memory */
        return missed(services, attempt, WIRE__CACHE_STATUS__CACHE_MISS, "miss", "unknown");
    }
    set_query(services, attempt, &query);
    query.vector = attempt->vector;
    return look_up(services, attempt, &query);
}

/* ---- answering ---- */

/*
 * The whole answer as one chunk, for a client that asked for a stream. Without memory it gets the
 * whole answer only.
 */
static void replay(struct services *services, struct attempt *attempt)
{
    json_t *answer = json_loadb(attempt->body.data, attempt->body.length, 0, NULL);
    json_t *chunk = NULL;
    char *text = NULL;
    if (answer != NULL && assembly_chunk_of(answer, attempt->operation, &chunk) == 0) {
        text = json_dumps(chunk, JSON_COMPACT);
    }
    attempt->chunks.bytes_max = SIZE_MAX / 2;
    const char *event = json_string_value(json_object_get(chunk, "type")); /* of a response alone */
    if (text == NULL ||
        (event != NULL && (bytes_append_text(&attempt->chunks, "event: ") < 0 ||
                           bytes_append_text(&attempt->chunks, event) < 0 ||
                           bytes_append_text(&attempt->chunks, "\n") < 0)) ||
        bytes_append_text(&attempt->chunks, "data: ") < 0 ||
        bytes_append_text(&attempt->chunks, text) < 0 ||
        bytes_append_text(&attempt->chunks, "\n\n") < 0 ||
        broker_link_send_chunk(attempt->broker, attempt, attempt->chunks_sent++, true,
                               attempt->chunks.data, attempt->chunks.length) < 0) {
        telemetry_chunk_dropped(services->telemetry);
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
    attempt->cached_model = strdup(entry->about->model);
    if (r < 0 || attempt->cached_model == NULL) {
        bytes_clear(&attempt->body);
        free(TAKE(attempt->cached_model));
        return -ENOMEM;
    }
    attempt->tokens = (struct token_counts){
        .input = entry->input_tokens,
        .cached_input = entry->cached_input_tokens,
        .output = entry->output_tokens,
        .reasoning = entry->reasoning_tokens,
    };
    attempt->saved_nanousd = entry->about->cost_nanousd;
    attempt->saved_ms = entry->about->run_ms;
    attempt->cut = (struct prompt_cut){.history_tokens = entry->about->cut_history_tokens,
                                       .passages_tokens = entry->about->cut_passages_tokens};
    attempt->cache_age_ms = result->age_ms;
    return 0;
}

static const char *result_word(const struct cache_result *result)
{
    return result->is_stale ? "stale" : result->answer == CACHE_ANSWER_NEAR_HIT ? "near" : "exact";
}

static void count_hit(const struct services *services, const struct attempt *attempt,
                      const struct cache_result *result)
{
    struct cache_count *row = row_of(services, attempt);
    if (row == NULL) {
        return;
    }
    row->stale += result->is_stale;
    row->near += !result->is_stale && result->answer == CACHE_ANSWER_NEAR_HIT;
    row->exact += !result->is_stale && result->answer == CACHE_ANSWER_HIT;
    row->saved_nanousd += result->entry->about->cost_nanousd;
    row->saved_ms += result->entry->about->run_ms;
    row->served_age_ms += (uint64_t)result->age_ms;
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
        attempt->embedder = services->embedder;
        near_policy_looked(services->near_policy, attempt->broker, attempt->tenant, attempt->tier,
                           result->score, true);
        if (!result->is_stale) { /* else it may differ because of its age */
            cache_checks_audit(services, attempt, result);
        }
    }
    if (result->is_stale && !attempt->may_serve_error) {
        cache_checks_refresh(services, attempt, result);
    }
    attempt->quality_lost = result->is_stale ? services->config->routing.stale_grades
                            : is_near        ? services->config->routing.near_grades
                                             : 0;
    attempt->cache_status = result->is_stale ? WIRE__CACHE_STATUS__CACHE_STALE_HIT
                            : is_near        ? WIRE__CACHE_STATUS__CACHE_NEAR_HIT
                                             : WIRE__CACHE_STATUS__CACHE_HIT;
    count_hit(services, attempt, result);
    telemetry_cache(services->telemetry, result_word(result));
    telemetry_saved(services->telemetry, attempt->saved_nanousd);
    outcome_set(&attempt->outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, "", "%s", "");
    if (attempt->wants_stream && attempt->operation != OPERATION_EMBEDDINGS) {
        replay(services, attempt);
    }
    return STAGE_CONCLUDES;
}

/* Whoever finds it out: the cache's thread, or the timer here. */
static enum stage_verdict was_late(const struct services *services, struct attempt *attempt)
{
    return missed(services, attempt, WIRE__CACHE_STATUS__CACHE_NONE, "timeout", "late");
}

/* A candidate that did not suffice is compared when the fresh answer is there. */
static enum stage_verdict not_answered(struct services *services, struct attempt *attempt,
                                       const struct cache_result *result)
{
    if (result->has_candidate) {
        near_policy_looked(services->near_policy, attempt->broker, attempt->tenant, attempt->tier,
                           result->score, false);
        attempt->has_candidate = true;
        attempt->near_score = result->score;
        memcpy(attempt->candidate, result->key, CACHE_KEY_BYTES);
    }
    if (strcmp(result->why, "late") == 0) {
        return was_late(services, attempt);
    }
    return missed(services, attempt, WIRE__CACHE_STATUS__CACHE_MISS,
                  strcmp(result->why, "embedder") == 0 ? "embedder"
                  : strcmp(result->why, "memory") == 0 ? "memory"
                                                       : "miss",
                  attempt->is_withheld && strcmp(result->why, "unknown") == 0 ? "residency"
                                                                              : result->why);
}

/* Past its time an entry may be served for so long only, and some questions want a young one. */
static bool is_too_old(const struct attempt *attempt, const struct cache_result *result)
{
    const struct cache_rules *rules = &attempt->rules;
    const int64_t past_ms = clock_unix_ms() - (int64_t)result->entry->about->expires_unix_ms;
    const int64_t most_ms =
        attempt->may_serve_error && rules->stale_if_error_ms > rules->stale_while_revalidate_ms
            ? rules->stale_if_error_ms
            : rules->stale_while_revalidate_ms;
    return (result->is_stale && past_ms > most_ms) || result->age_ms > rules->age_ms_max;
}

static enum stage_verdict cache_resume(void *module, struct attempt *attempt,
                                       const struct stage_event *event)
{
    struct services *services = module;
    if (event->kind == STAGE_EVENT_VECTOR || attempt->vector_call != NULL) {
        return vector_came(services, attempt,
                           event->kind == STAGE_EVENT_VECTOR ? event->as.vector : NULL);
    }
    if (event->kind != STAGE_EVENT_CACHE) {
        cache_forget(&attempt->lookup);
        return was_late(services, attempt);
    }
    attempt->lookup = NULL; /* ends with this event */
    loop_timer_stop(attempt->timer);
    switch (event->as.cache->answer) {
    case CACHE_ANSWER_MISS:
        return attempt->wants_vector && strcmp(event->as.cache->why, "late") != 0
                   ? ask_for_vector(services, attempt)
                   : not_answered(services, attempt, event->as.cache);
    case CACHE_ANSWER_BROKEN:
        return missed(services, attempt, WIRE__CACHE_STATUS__CACHE_NONE, "broken", "broken");
    case CACHE_ANSWER_HIT:
    case CACHE_ANSWER_NEAR_HIT:
        return is_too_old(attempt, event->as.cache)
                   ? missed(services, attempt, WIRE__CACHE_STATUS__CACHE_MISS, "miss", "stale")
                   : answered(services, attempt, event->as.cache);
    }
    return STAGE_NEXT;
}

static void cache_abandon(void *module, struct attempt *attempt)
{
    (void)module;
    cache_forget(&attempt->lookup);
    text_embedder_cancel(&attempt->vector_call);
}

/* ---- standing in ---- */

/* No other upstream would be called now, and the tier does not wait for this one. */
static bool would_wait(const struct attempt *attempt)
{
    const Wire__AttemptOutcome kind = attempt->outcome.kind;
    const bool is_sent_back = kind == WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE ||
                              kind == WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED ||
                              kind == WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED;
    return is_sent_back && attempt->is_last_choice && attempt->rules.is_stale_at_once;
}

/* It would become a dead letter, in any tier. */
static bool would_die(const struct attempt *attempt)
{
    return attempt->outcome.kind == WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE &&
           !outcome_is_unreached(&attempt->outcome) && attempt->is_last_attempt;
}

/*
 * The job would go without an answer, and nobody has seen a piece of one. A hit names no provider,
 * and could not be charged with its share of a call for several jobs.
 */
static bool may_stand_in(const struct services *services, const struct attempt *attempt)
{
    const struct cache_rules *rules = &attempt->rules;
    return services->cache != NULL && (would_wait(attempt) || would_die(attempt)) &&
           attempt->chunks_sent == 0 && attempt->shared.cost_nanousd == 0 &&
           rules->bypass == NULL && rules->is_looked_up && rules->stale_if_error_ms > 0;
}

/*
 * Looks up again rather than keeping what the first lookup met: that may have been invalidated
 * during the call.
 */
static enum stage_verdict stand_in_start(void *module, struct attempt *attempt)
{
    struct services *services = module;
    struct cache_query query;
    const int64_t until_ms = clock_monotonic_ms() + services->config->cache.lookup_timeout_ms;
    if (!may_stand_in(services, attempt)) {
        return STAGE_CONCLUDES;
    }
    set_query(services, attempt, &query);
    query.vector = attempt->vector;
    attempt->may_serve_error = query.may_be_stale = true;
    if (cache_start_lookup(services->cache, &query, until_ms, lookup_done, attempt,
                           &attempt->lookup) < 0) {
        return STAGE_CONCLUDES;
    }
    loop_timer_set(attempt->timer, until_ms);
    return STAGE_WAITS;
}

/* Of the call that failed. Its report stays: the upstream is judged by it. */
static void forget_failure(const struct services *services, struct attempt *attempt)
{
    log_at(services->log, LOG_WARN, "the cache answers in place of a call that failed",
           log_job(&attempt->job_id), log_text("tenant", attempt->tenant),
           log_text("trace", attempt->trace_id), log_text("tier", attempt->tier),
           log_text("route", attempt->route), log_text("model", attempt->model),
           log_text("provider", attempt->provider_name), log_text("code", attempt->outcome.code),
           log_text("error", attempt->outcome.text));
    attempt->http_status = 0;
    attempt->first_token_ms = 0;
    attempt->cache_why = NULL;
    bytes_clear(&attempt->chunks);
}

static enum stage_verdict stand_in_resume(void *module, struct attempt *attempt,
                                          const struct stage_event *event)
{
    struct services *services = module;
    if (event->kind != STAGE_EVENT_CACHE) {
        cache_forget(&attempt->lookup);
        return STAGE_CONCLUDES;
    }
    attempt->lookup = NULL; /* ends with this event */
    loop_timer_stop(attempt->timer);
    const struct cache_result *result = event->as.cache;
    if (result->entry == NULL || is_too_old(attempt, result)) {
        return STAGE_CONCLUDES;
    }
    forget_failure(services, attempt);
    return answered(services, attempt, result);
}

struct stage stand_in_stage(struct services *services)
{
    return (struct stage){
        .name = "stand-in",
        .module = services,
        .start = stand_in_start,
        .resume = stand_in_resume,
        .abandon = cache_abandon,
        .stands_in = true,
    };
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

static void set_about(struct attempt *attempt, Record__CacheAbout *about)
{
    static char *const none[] = {NULL};
    const int64_t now_unix_ms = clock_unix_ms();
    const Wire__CacheControl *control = attempt->request->cache;
    const struct cache_rules *rules = &attempt->rules;
    const int64_t stale_ms = rules->stale_if_error_ms > rules->stale_while_revalidate_ms
                                 ? rules->stale_if_error_ms
                                 : rules->stale_while_revalidate_ms;
    about->tenant = attempt->tenant;
    about->route = attempt->route;
    about->tier = (char *)rules->tier;
    about->model = attempt->model;
    about->cache_namespace = (char *)namespace_of(attempt);
    about->template_version = control == NULL ? about->template_version : control->template_version;
    about->tags = control == NULL ? (char **)none : control->tags;
    about->n_tags = control == NULL ? 0 : control->n_tags;
    about->documents = control == NULL ? (char **)none : control->documents;
    about->n_documents = control == NULL ? 0 : control->n_documents;
    about->scope =
        (ProtobufCBinaryData){attempt->has_scope ? CACHE_SCOPE_BYTES : 0, attempt->scope};
    about->text = attempt->near_text == NULL ? about->text : attempt->near_text;
    about->filled_unix_ms = (uint64_t)now_unix_ms;
    about->expires_unix_ms = (uint64_t)(now_unix_ms + rules->ttl_ms);
    about->stale_until_unix_ms = (uint64_t)(now_unix_ms + rules->ttl_ms + stale_ms);
    about->cost_nanousd = attempt->cost_nanousd;
    about->cut_history_tokens = attempt->cut.history_tokens;
    about->cut_passages_tokens = attempt->cut.passages_tokens;
    about->run_ms = attempt->call_ms > 0 ? (uint64_t)attempt->call_ms : 0;
}

/* What a job that the cache made has cost, at the tier of the job that it was made for. */
static void count_cost_of_check(const struct services *services, const struct attempt *attempt)
{
    const Wire__CacheCheck *check = attempt->request->check;
    if (check == NULL || attempt->cost_nanousd == 0) {
        return;
    }
    struct cache_count *row = cache_counts_row(services->cache_counts, attempt->tenant, check->tier,
                                               attempt->route, namespace_of(attempt));
    if (row != NULL) {
        row->checks_nanousd += attempt->cost_nanousd;
    }
    telemetry_cache_check_cost(services->telemetry, cache_checks_name(check->why),
                               attempt->cost_nanousd);
}

static void fill(const struct services *services, struct attempt *attempt, bool keeps,
                 const struct cache_comparison *comparison)
{
    Record__CacheAbout about = RECORD__CACHE_ABOUT__INIT;
    Record__CacheEntry entry = RECORD__CACHE_ENTRY__INIT;
    char *labels[ATTEMPT_LABELS_MAX];
    set_about(attempt, &about);
    about.residency = labels;
    about.n_residency = attempt_labels(attempt, labels);
    entry.about = &about;
    entry.provider = attempt->provider_name;
    entry.input_tokens = attempt->tokens.input;
    entry.cached_input_tokens = attempt->tokens.cached_input;
    entry.output_tokens = attempt->tokens.output;
    entry.reasoning_tokens = attempt->tokens.reasoning;
    entry.body = (ProtobufCBinaryData){attempt->body.length, (uint8_t *)attempt->body.data};
    const enum cache_keeping keeping = !keeps                   ? CACHE_COMPARES
                                       : attempt->aside != NULL ? CACHE_KEEPS_AND_VECTOR_FOLLOWS
                                                                : CACHE_KEEPS;
    if (cache_start_fill(services->cache, attempt->key, &entry, attempt->vector, attempt->born,
                         keeping, comparison) < 0) {
        telemetry_fill_dropped(services->telemetry);
    }
    if (keeping == CACHE_KEEPS_AND_VECTOR_FOLLOWS) {
        near_aside_answered(&attempt->aside, &entry);
    }
}

/* It was found by its score alone. The answer waits for it: no longer than for a lookup. */
static enum stage_verdict look_at_candidate(struct services *services, struct attempt *attempt)
{
    struct cache_query query = {.threshold = INFINITY,
                                .prompt_cut = attempt->rules.prompt_cut,
                                .serves_nobody = true};
    const int64_t until_ms = clock_monotonic_ms() + services->config->cache.lookup_timeout_ms;
    memcpy(query.key, attempt->candidate, CACHE_KEY_BYTES);
    if (cache_start_lookup(services->cache, &query, until_ms, lookup_done, attempt,
                           &attempt->lookup) < 0) {
        return STAGE_NEXT; /* one of a sample may be lost */
    }
    loop_timer_set(attempt->timer, until_ms);
    return STAGE_WAITS;
}

static enum stage_verdict fill_start(void *module, struct attempt *attempt)
{
    struct services *services = module;
    struct cache_comparison comparison;
    if (services->cache == NULL) {
        return STAGE_NEXT;
    }
    count_cost_of_check(services, attempt);
    cache_checks_judged(services, attempt);
    /* An audit was paid for its verdict: it is given whether or not the answer may be kept. */
    const bool keeps = cache_checks_audited(services, attempt) && attempt->may_be_filled;
    const bool compares = cache_checks_comparison(services, attempt, &comparison);
    if (keeps || compares) {
        fill(services, attempt, keeps, compares ? &comparison : NULL);
    }
    return cache_checks_judges_miss(services, attempt) ? look_at_candidate(services, attempt)
                                                       : STAGE_NEXT;
}

static enum stage_verdict fill_resume(void *module, struct attempt *attempt,
                                      const struct stage_event *event)
{
    if (event->kind != STAGE_EVENT_CACHE) {
        cache_forget(&attempt->lookup);
        return STAGE_NEXT;
    }
    attempt->lookup = NULL; /* ends with this event */
    loop_timer_stop(attempt->timer);
    if (event->as.cache->entry != NULL) {
        cache_checks_judge_miss(module, attempt, event->as.cache->entry);
    }
    return STAGE_NEXT;
}

struct stage fill_stage(struct services *services)
{
    return (struct stage){.name = "fill",
                          .module = services,
                          .start = fill_start,
                          .resume = fill_resume,
                          .abandon = cache_abandon};
}
