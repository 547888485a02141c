#include "broker/core/upstream.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/conclude.h"
#include "broker/core/gate.h"
#include "broker/core/job.h"
#include "broker/core/lane.h"
#include "broker/core/lease.h"
#include "broker/core/record.h"
#include "broker/core/worker.h"

enum {
    RECORD_KEY_BYTES = 8 + 16, /* "upstream", hash of its name */
    RECORD_LIMIT_MS = 5000,    /* a shorter "come back later" is not worth a record */
    HUNG_TIMES =
        4, /* a call given up after so many typical ones has found a provider that hangs … */
    HUNG_LEAST_MS = 1000, /* … and after that at least */
    TYPICAL_SMOOTHING = 16,
    LIMITED_MOST_MS = 24 * 3600 * 1000,
    PROBE_YIELD_MS = 250, /* who has failed before waits so much longer to be the probe */
    PROBE_LOOK_MS = 1000, /* and looks so often how the probe under way went */
};

/* ---- which there are ---- */

struct upstream *upstream_find(const struct core *core, const char *provider, const char *model)
{
    for (size_t i = 0; i < core->upstreams_length; i++) {
        struct upstream *upstream = core->upstreams[i];
        if (strcmp(upstream->model, model) == 0 && strcmp(upstream->provider, provider) == 0) {
            return upstream;
        }
    }
    return NULL;
}

static void free_upstream(struct upstream *upstream)
{
    free(upstream->provider);
    free(upstream->model);
    free(upstream->subject);
    free(upstream);
}

static struct provider_limits *limits_of(struct core *core, const char *name)
{
    for (size_t i = 0; i < core->providers_length; i++) {
        if (strcmp(core->providers[i]->name, name) == 0) {
            return core->providers[i];
        }
    }
    struct provider_limits **providers =
        reallocarray(core->providers, core->providers_length + 1, sizeof(*providers));
    if (providers == NULL) {
        return NULL;
    }
    core->providers = providers;
    struct provider_limits *limits = calloc(1, sizeof(*limits));
    if (limits == NULL || (limits->name = strdup(name)) == NULL) {
        free(limits);
        return NULL;
    }
    providers[core->providers_length++] = limits;
    return limits;
}

static struct upstream *add(struct core *core, const char *provider, const char *model)
{
    struct upstream **upstreams =
        reallocarray(core->upstreams, core->upstreams_length + 1, sizeof(*upstreams));
    if (upstreams == NULL) {
        return NULL;
    }
    core->upstreams = upstreams;
    struct upstream *upstream = calloc(1, sizeof(*upstream));
    if (upstream == NULL) {
        return NULL;
    }
    upstream->provider = strdup(provider);
    upstream->model = strdup(model);
    upstream->limits = limits_of(core, provider);
    upstream->answered_ms = INT64_MIN;
    pace_init(&upstream->pace);
    if (asprintf(&upstream->subject, "%s/%s", provider, model) < 0) {
        upstream->subject = NULL;
    }
    if (upstream->provider == NULL || upstream->model == NULL || upstream->limits == NULL ||
        upstream->subject == NULL) {
        free_upstream(upstream);
        return NULL;
    }
    upstream->index = core->upstreams_length;
    upstreams[core->upstreams_length++] = upstream;
    return upstream;
}

/* Bits by number of the label. Errors: -ENOMEM, -ENOBUFS. */
static int residencies_of(struct core *core, const struct config_provider *provider,
                          uint32_t *ret_residencies)
{
    *ret_residencies = 0;
    for (size_t i = 0; provider != NULL && i < provider->residency_length; i++) {
        struct name *name;
        int r = names_add(&core->residencies, provider->residency[i], &name);
        if (r < 0 || name->index >= CONFIG_RESIDENCIES_MAX) {
            return r < 0 ? r : -ENOBUFS;
        }
        name->is_configured = true;
        *ret_residencies |= UINT32_C(2) << name->index;
    }
    return 0;
}

/* What goes on from a response that is kept can be asked where Responses are spoken alone. */
static uint32_t abilities_of(const struct config_provider *provider,
                             const struct config_model *model)
{
    const bool has_responses = provider == NULL || (provider->type != PROVIDER_ANTHROPIC &&
                                                    provider->type != PROVIDER_GEMINI);
    return config_abilities(model) & ~(has_responses ? UINT32_C(0) : (uint32_t)ABILITY_STORED);
}

static int configure_one(struct core *core, const struct config *config, const char *provider,
                         const struct config_model *model)
{
    uint32_t residencies;
    struct upstream *upstream = upstream_find(core, provider, model->name);
    if (upstream == NULL) {
        upstream = add(core, provider, model->name);
    }
    if (upstream == NULL) {
        return -ENOMEM;
    }
    int r = residencies_of(core, config_find_provider(config, provider), &residencies);
    if (r < 0) {
        return r;
    }
    upstream->is_configured = true;
    upstream->price = price_of_model(model);
    upstream->max_tokens_default = model->max_tokens_default;
    upstream->traits = (struct choice_model){
        .abilities = abilities_of(config_find_provider(config, provider), model),
        .residencies = residencies,
        .context_tokens = model->context_tokens,
        .quality = model->quality,
        .input_nanousd_per_mtok = model->input_nanousd_per_mtok,
        .output_nanousd_per_mtok = model->output_nanousd_per_mtok,
        .request_nanousd = model->request_nanousd,
    };
    return 0;
}

static int configure_model(struct core *core, const struct config *config,
                           const struct config_model *model)
{
    int r = model->provider == NULL ? 0 : configure_one(core, config, model->provider, model);
    for (size_t i = 0; r == 0 && i < model->failover_length; i++) {
        r = configure_one(core, config, model->failover[i], model);
    }
    return r;
}

static int configure_limits(struct core *core, const struct config_provider *provider)
{
    struct provider_limits *limits = limits_of(core, provider->name);
    if (limits == NULL) {
        return -ENOMEM;
    }
    bucket_set(&limits->requests, provider->requests_per_min, core->now_ms);
    bucket_set(&limits->tokens, provider->tokens_per_min, core->now_ms);
    return 0;
}

/* ---- candidates ---- */

static bool has(const struct candidates *candidates, const struct upstream *upstream)
{
    for (size_t i = 0; i < candidates->length; i++) {
        if (candidates->items[i] == upstream) {
            return true;
        }
    }
    return false;
}

static void add_candidate(struct candidates *candidates, struct upstream *upstream)
{
    if (upstream != NULL && candidates->length < CANDIDATES_MAX && !has(candidates, upstream)) {
        candidates->items[candidates->length++] = upstream;
    }
}

static void add_providers_of(const struct core *core, const struct config_model *model,
                             struct candidates *candidates)
{
    if (model->provider == NULL) {
        return;
    }
    add_candidate(candidates, upstream_find(core, model->provider, model->name));
    for (size_t i = 0; i < model->failover_length; i++) {
        add_candidate(candidates, upstream_find(core, model->failover[i], model->name));
    }
}

static void find_candidates(const struct core *core, const struct config *config,
                            const struct name *route, const struct tier *tier,
                            struct candidates *candidates)
{
    const struct config_model *models[CANDIDATES_MAX];
    const size_t length =
        config_candidates(config, route->text, tier->name->text, tier->quality_min, models,
                          CANDIDATES_MAX, &candidates->is_scored);
    candidates->length = 0;
    for (size_t i = 0; i < length && route->is_configured; i++) {
        add_providers_of(core, models[i], candidates);
    }
}

static int configure_candidates(struct core *core, const struct config *config)
{
    const size_t length = core->routes.length;
    struct route *routes = reallocarray(core->route, length + 1, sizeof(*routes));
    if (routes == NULL) {
        return -ENOMEM;
    }
    core->route = routes;
    for (; core->route_length < length; core->route_length++) {
        routes[core->route_length] = (struct route){.budget = {.level = 0}};
        retry_budget_init(&routes[core->route_length].budget, &core->retries, core->now_ms);
    }
    for (size_t i = 0; i < length; i++) {
        for (size_t t = 0; t < core->tiers_length; t++) {
            find_candidates(core, config, core->routes.items[i], &core->tier[t],
                            &routes[i].by_tier[t]);
        }
    }
    return 0;
}

const struct candidates *upstream_candidates(const struct core *core, const struct queue *queue)
{
    static const struct candidates none = {.length = 0};
    return queue->route->index < core->route_length
               ? &core->route[queue->route->index].by_tier[queue->lane->tier->index]
               : &none;
}

int upstreams_configure(struct core *core, const struct config *config)
{
    for (size_t i = 0; i < core->upstreams_length; i++) {
        core->upstreams[i]->is_configured = false;
    }
    int r = 0;
    for (size_t i = 0; r == 0 && i < config->models_length; i++) {
        r = configure_model(core, config, &config->models[i]);
    }
    for (size_t i = 0; r == 0 && i < config->providers_length; i++) {
        r = configure_limits(core, &config->providers[i]);
    }
    return r < 0 ? r : configure_candidates(core, config);
}

void upstreams_destroy(struct core *core)
{
    for (size_t i = 0; i < core->upstreams_length; i++) {
        free_upstream(core->upstreams[i]);
    }
    for (size_t i = 0; i < core->providers_length; i++) {
        free(core->providers[i]->name);
        free(core->providers[i]);
    }
    free(core->upstreams);
    free(core->providers);
    free(core->route);
}

/* ---- records and announcements ---- */

static bool is_limited(const struct core *core, const struct upstream *upstream)
{
    return upstream->limited_until_ms > core->now_ms;
}

int64_t upstream_blocked_until_ms(const struct upstream *upstream)
{
    const int64_t breaker_ms = breaker_closed_until_ms(&upstream->breaker);
    return breaker_ms > upstream->limited_until_ms ? breaker_ms : upstream->limited_until_ms;
}

/* OPEN with its time over is as good as HALF_OPEN: nobody has looked since. */
Wire__UpstreamState__State upstream_state(const struct upstream *upstream, int64_t now_ms)
{
    const struct breaker *breaker = &upstream->breaker;
    if (upstream->limited_until_ms > now_ms ||
        (breaker->state == BREAKER_OPEN && breaker->open_until_ms > now_ms)) {
        return WIRE__UPSTREAM_STATE__STATE__UPSTREAM_OPEN;
    }
    if (breaker->state != BREAKER_CLOSED) {
        return WIRE__UPSTREAM_STATE__STATE__UPSTREAM_HALF_OPEN;
    }
    return upstream->pace.is_free ? WIRE__UPSTREAM_STATE__STATE__UPSTREAM_CLOSED
                                  : WIRE__UPSTREAM_STATE__STATE__UPSTREAM_SLOW_START;
}

static void write_key(const struct upstream *upstream, uint8_t ret_key[RECORD_KEY_BYTES])
{
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(upstream->subject, strlen(upstream->subject)));
    static const uint8_t prefix[8] = {'u', 'p', 's', 't', 'r', 'e', 'a', 'm'};
    memcpy(ret_key, prefix, sizeof(prefix));
    memcpy(ret_key + sizeof(prefix), hash.digest, sizeof(hash.digest));
}

/* Known to be down after a restart, too; what is short is not written. */
static void record(struct core *core, struct upstream *upstream)
{
    uint8_t key[RECORD_KEY_BYTES];
    write_key(upstream, key);
    const bool is_open = upstream->breaker.state != BREAKER_CLOSED;
    if (!is_open && upstream->limited_until_ms < core->now_ms + RECORD_LIMIT_MS) {
        if (upstream->is_recorded) {
            upstream->is_recorded = false;
            core_delete(core, STORE_META, key, sizeof(key));
        }
        return;
    }
    Record__UpstreamRecord message = RECORD__UPSTREAM_RECORD__INIT;
    message.provider = upstream->provider;
    message.model = upstream->model;
    message.opened_in_a_row = is_open ? upstream->breaker.opened_in_a_row : 0;
    message.open_until_unix_ms =
        is_open ? core->unix_ms + upstream->breaker.open_until_ms - core->now_ms : 0;
    message.limited_until_unix_ms =
        is_limited(core, upstream) ? core->unix_ms + upstream->limited_until_ms - core->now_ms : 0;
    message.error_code = upstream->error_code;
    upstream->is_recorded = true;
    core_put_record(core, STORE_META, key, sizeof(key), &message.base);
}

static void publish(struct core *core, const struct upstream *upstream)
{
    Wire__Upstream name = WIRE__UPSTREAM__INIT;
    name.provider = upstream->provider;
    name.model = upstream->model;
    Wire__UpstreamState state = WIRE__UPSTREAM_STATE__INIT;
    state.upstream = &name;
    state.state = upstream->announced;
    const int64_t for_ms = upstream_blocked_until_ms(upstream) - core->now_ms;
    state.for_ms = upstream->announced == WIRE__UPSTREAM_STATE__STATE__UPSTREAM_OPEN && for_ms > 0
                       ? (uint64_t)for_ms
                       : 0;
    const size_t bytes = wire__upstream_state__get_packed_size(&state);
    uint8_t *data = effects_alloc(core->effects, bytes);
    (void)wire__upstream_state__pack(&state, data);
    const char *text = effects_text(core->effects, upstream->error_code);
    struct effect *effect = effects_add(core->effects, EFFECT_PUBLISH, 0, 0);
    effect->as.publish.kind = WIRE__EVENT__KIND__EVENT_UPSTREAM;
    effect->as.publish.subject_kind = "upstream";
    effect->as.publish.subject = upstream->subject;
    effect->as.publish.text = text;
    effect->as.publish.data = data;
    effect->as.publish.data_bytes = bytes;
}

/* Whatever changed it ends with this. */
static void announce(struct core *core, struct upstream *upstream)
{
    const Wire__UpstreamState__State state = upstream_state(upstream, core->now_ms);
    if (state != upstream->announced) {
        upstream->announced = state;
        publish(core, upstream);
    }
}

static void refresh(struct core *core, struct upstream *upstream)
{
    breaker_tick(&upstream->breaker, core->now_ms);
    announce(core, upstream);
}

int upstream_restore(struct core *core, const void *value, size_t value_bytes)
{
    Record__UpstreamRecord *message;
    int r =
        record_read_upstream(value, value_bytes, arena_protobuf_allocator(core->arena), &message);
    if (r < 0) {
        return r;
    }
    struct upstream *upstream = upstream_find(core, message->provider, message->model);
    if (upstream == NULL) {
        return 0; /* configured no more */
    }
    const int64_t most_ms = core->now_ms + LIMITED_MOST_MS;
    const int64_t open_ms = core->now_ms + message->open_until_unix_ms - core->unix_ms;
    const int64_t limited_ms = core->now_ms + message->limited_until_unix_ms - core->unix_ms;
    if (message->open_until_unix_ms > 0) {
        const int64_t longest_ms = core->now_ms + core->breaker.open_max_ms;
        breaker_restore(&upstream->breaker, message->opened_in_a_row,
                        open_ms < longest_ms ? open_ms : longest_ms);
    }
    if (message->limited_until_unix_ms > 0) {
        upstream->limited_until_ms = limited_ms < most_ms ? limited_ms : most_ms;
    }
    (void)snprintf(upstream->error_code, sizeof(upstream->error_code), "%s", message->error_code);
    upstream->is_recorded = true;
    upstream->announced = upstream_state(upstream, core->now_ms);
    return 0;
}

/* ---- choosing ---- */

static double tokens_of(const struct job *job)
{
    return job->estimated_tokens > 0 ? job->estimated_tokens : job->payload_bytes / 4;
}

int64_t upstream_open_at_ms(struct core *core, struct upstream *upstream, const struct job *job)
{
    const int64_t now_ms = core->now_ms;
    const double tokens = tokens_of(job);
    refresh(core, upstream);
    const int64_t blocked_ms = upstream_blocked_until_ms(upstream);
    if (blocked_ms > now_ms) {
        return blocked_ms;
    }
    int64_t wait_ms = bucket_wait_ms(&upstream->limits->requests, 1.0, now_ms);
    wait_ms = later_ms(wait_ms, bucket_wait_ms(&upstream->limits->tokens, tokens, now_ms));
    wait_ms = later_ms(wait_ms, bucket_wait_ms(&upstream->requests, 1.0, now_ms));
    wait_ms = later_ms(wait_ms, bucket_wait_ms(&upstream->tokens, tokens, now_ms));
    if (upstream->breaker.state == BREAKER_CLOSED) {
        wait_ms = later_ms(wait_ms, pace_wait_ms(&upstream->pace, now_ms));
    }
    return now_ms + wait_ms;
}

double upstream_failing(const struct core *core, const struct upstream *upstream)
{
    return upstream->breaker.state == BREAKER_CLOSED
               ? breaker_failing(&upstream->breaker, &core->breaker, core->now_ms)
               : 0;
}

bool upstream_is_down(struct core *core, struct upstream *upstream)
{
    breaker_tick(&upstream->breaker, core->now_ms);
    return upstream->breaker.state != BREAKER_CLOSED || is_limited(core, upstream);
}

bool upstream_all_blocked(struct core *core, const struct queue *queue)
{
    const struct candidates *candidates = upstream_candidates(core, queue);
    for (size_t i = 0; i < candidates->length; i++) {
        if (!upstream_is_down(core, candidates->items[i])) {
            return false;
        }
    }
    return candidates->length > 0;
}

int64_t upstream_back_at_ms(struct core *core, const struct queue *queue)
{
    const struct candidates *candidates = upstream_candidates(core, queue);
    int64_t soonest_ms = candidates->length == 0 ? core->now_ms : INT64_MAX;
    for (size_t i = 0; i < candidates->length; i++) {
        breaker_tick(&candidates->items[i]->breaker, core->now_ms);
        const int64_t at_ms = upstream_blocked_until_ms(candidates->items[i]);
        soonest_ms = at_ms < soonest_ms ? at_ms : soonest_ms;
    }
    return soonest_ms;
}

/* Half open and probed, the probe decides within a call's time: it is looked at again. */
static int64_t second_probe_at_ms(const struct upstream *upstream, int64_t now_ms)
{
    const struct breaker *breaker = &upstream->breaker;
    if (breaker->state == BREAKER_CLOSED) {
        return upstream->limited_until_ms;
    }
    return later_ms(upstream->limited_until_ms, breaker->is_probing
                                                 ? now_ms + PROBE_LOOK_MS
                                                 : breaker->open_until_ms + PROBE_YIELD_MS);
}

int64_t upstream_back_for_failed_at_ms(struct core *core, const struct queue *queue)
{
    const struct candidates *candidates = upstream_candidates(core, queue);
    int64_t soonest_ms = candidates->length == 0 ? core->now_ms : INT64_MAX;
    for (size_t i = 0; i < candidates->length; i++) {
        breaker_tick(&candidates->items[i]->breaker, core->now_ms);
        const int64_t at_ms = second_probe_at_ms(candidates->items[i], core->now_ms);
        soonest_ms = at_ms < soonest_ms ? at_ms : soonest_ms;
    }
    const uint64_t spread_ms = (uint64_t)queue->lane->tier->backoff_first_ms;
    return soonest_ms > core->now_ms ? soonest_ms + (int64_t)core_random_below(core, spread_ms)
                                     : soonest_ms;
}

/* The candidate that may be called or probed first; NULL: there is none. */
static const struct upstream *first_back(const struct core *core, const struct queue *queue)
{
    const struct candidates *candidates = upstream_candidates(core, queue);
    const struct upstream *first = NULL;
    for (size_t i = 0; i < candidates->length; i++) {
        const struct upstream *upstream = candidates->items[i];
        if (first == NULL ||
            upstream_blocked_until_ms(upstream) < upstream_blocked_until_ms(first)) {
            first = upstream;
        }
    }
    return first;
}

bool upstream_is_outage(const struct core *core, const struct queue *queue, int64_t now_ms)
{
    const struct upstream *first = first_back(core, queue);
    return first != NULL && first->breaker.state != BREAKER_CLOSED &&
           first->limited_until_ms <= now_ms;
}

void upstream_why_blocked(const struct core *core, const struct queue *queue, int64_t now_ms,
                          char *ret_text, size_t bytes)
{
    const struct upstream *first = first_back(core, queue);
    ret_text[0] = '\0';
    if (first == NULL) {
        return;
    }
    const long long for_ms = (long long)later_ms(upstream_blocked_until_ms(first) - now_ms, 0);
    if (first->breaker.state == BREAKER_CLOSED && for_ms == 0) {
        return; /* that is over, and the next job to be ready will find it so */
    }
    if (first->breaker.state == BREAKER_CLOSED) {
        (void)snprintf(ret_text, bytes, "its route is paused: %.100s is rate limited for %lld ms",
                       first->subject, for_ms);
    } else if (first->breaker.state == BREAKER_OPEN && for_ms > 0) {
        (void)snprintf(ret_text, bytes,
                       "its route is paused: %.100s is down (%s) and is probed in %lld ms",
                       first->subject, first->error_code, for_ms);
    } else {
        (void)snprintf(ret_text, bytes,
                       "its route is paused: %.100s was down (%s) and is probed now",
                       first->subject, first->error_code);
    }
}

uint16_t upstream_bit(const struct core *core, const struct queue *queue,
                      const struct upstream *upstream)
{
    const struct candidates *candidates = upstream_candidates(core, queue);
    for (size_t i = 0; i < candidates->length; i++) {
        if (candidates->items[i] == upstream) {
            return (uint16_t)(1u << i);
        }
    }
    return 0;
}

/* ---- permits ---- */

/* There is room again: queues and jobs that wait for it need not wait for their time. */
static void wake(struct core *core, struct upstream *upstream)
{
    if (core->gates.length > 0 || !list_is_empty(&core->crowds)) {
        gate_look(core, upstream);
    }
}

/* `requests` and `tokens` below 0 are given back. */
static void take_of_limits(struct core *core, struct upstream *upstream, double requests,
                           double tokens)
{
    bucket_take(&upstream->limits->requests, requests, core->now_ms);
    bucket_take(&upstream->limits->tokens, tokens, core->now_ms);
    bucket_take(&upstream->requests, requests, core->now_ms);
    bucket_take(&upstream->tokens, tokens, core->now_ms);
}

struct permit upstream_take(struct core *core, struct upstream *upstream, const struct job *job)
{
    struct permit permit = {.upstream = upstream};
    if (upstream == NULL) {
        return permit;
    }
    permit.taken_ms = core->now_ms;
    permit.tokens = (uint32_t)tokens_of(job);
    permit.size = (uint8_t)latency_size_of(job_input_tokens(job));
    take_of_limits(core, upstream, 1.0, permit.tokens);
    upstream->limits->calls++;
    upstream->counts.dispatched++;
    if (upstream->breaker.state == BREAKER_CLOSED) {
        pace_take(&upstream->pace, 1, core->now_ms);
    } else {
        upstream->counts.probes++;
        permit.probe = breaker_probe(&upstream->breaker, &core->breaker, core->now_ms);
    }
    return permit;
}

/* The permit is out no more. Returns what it was for; NULL: it was none. */
static struct upstream *end_permit(struct permit *permit)
{
    struct upstream *upstream = TAKE(permit->upstream);
    if (upstream != NULL) {
        assert(upstream->limits->calls > 0);
        upstream->limits->calls--;
    }
    return upstream;
}

void upstream_give_back(struct core *core, struct permit *permit)
{
    struct upstream *upstream = end_permit(permit);
    if (upstream == NULL) {
        return;
    }
    take_of_limits(core, upstream, -1.0, -(double)permit->tokens);
    if (permit->probe != 0) {
        breaker_forget_probe(&upstream->breaker, permit->probe);
    } else {
        pace_take(&upstream->pace, -1, core->now_ms);
    }
    wake(core, upstream);
}

/* ---- what calls came to ---- */

static void state_changed(struct core *core, struct upstream *upstream, bool is_probe)
{
    const bool is_open = upstream->breaker.state == BREAKER_OPEN;
    if (is_open) {
        upstream->counts.opened += !is_probe;
        pace_stopped(&upstream->pace, core->now_ms);
    } else {
        pace_start_slowly(&upstream->pace, core->breaker.slow_start_per_s, core->now_ms);
    }
    if (!is_probe || !is_open) { /* not each failed probe of a long outage */
        core_note(core, is_open ? NOTE_UPSTREAM_DOWN : NOTE_UPSTREAM_UP, NULL, upstream->subject,
                  is_open ? upstream->error_code : "",
                  is_open ? upstream->breaker.open_until_ms - core->now_ms : 0);
    }
    record(core, upstream);
}

static void sample(struct core *core, struct upstream *upstream, enum breaker_sample what,
                   bool is_probe)
{
    breaker_tick(&upstream->breaker, core->now_ms);
    const double jitter = (double)core_random_below(core, 1000) / 1000.0;
    if (breaker_report(&upstream->breaker, &core->breaker, what, is_probe, jitter, core->now_ms)) {
        state_changed(core, upstream, is_probe);
    }
}

static void answered(struct core *core, struct upstream *upstream, struct worker *worker,
                     const Wire__Call *call, bool is_probe)
{
    const bool is_slow =
        core->breaker.slow_call_ms > 0 && call->call_ms > core->breaker.slow_call_ms;
    upstream->counts.answered++;
    upstream->typical_ms += ((double)call->call_ms - upstream->typical_ms) /
                            (upstream->typical_ms > 0 ? TYPICAL_SMOOTHING : 1);
    upstream->answered_peer = worker->peer;
    upstream->answered_ms = core->now_ms;
    worker->failures_in_a_row = 0;
    pace_answered(&upstream->pace, core->now_ms);
    sample(core, upstream, is_slow ? SAMPLE_SLOW : SAMPLE_SUCCESS, is_probe);
}

static void set_error(struct upstream *upstream, const Wire__Call *call)
{
    (void)snprintf(upstream->error_code, sizeof(upstream->error_code), "%s", call->error_code);
}

static void limited(struct core *core, struct upstream *upstream, const Wire__Call *call,
                    bool is_probe)
{
    upstream->counts.rate_limited++;
    set_error(upstream, call);
    if (is_probe) {
        sample(core, upstream, SAMPLE_SUCCESS, true); /* it answers, if only "too many" */
    }
    pace_limited(&upstream->pace, core->breaker.slow_start_per_s, core->now_ms);
    if (call->retry_after_ms > 0) {
        const int64_t for_ms = call->retry_after_ms < LIMITED_MOST_MS
                                   ? (int64_t)call->retry_after_ms
                                   : LIMITED_MOST_MS;
        upstream->limited_until_ms = later_ms(upstream->limited_until_ms, core->now_ms + for_ms);
        record(core, upstream);
    }
}

/*
 * A worker whose calls fail while another's are answered, since after its first failure, is at
 * fault itself: its network, its credentials. It is set aside for a while, and the upstream is not
 * blamed.
 */
static bool is_workers_fault(struct core *core, const struct upstream *upstream,
                             struct worker *worker)
{
    if (worker->failures_in_a_row++ == 0 || worker->failing_at != upstream) {
        worker->failing_at = upstream;
        worker->failing_since_ms = core->now_ms;
    }
    if (worker->failures_in_a_row < core->breaker.failures ||
        upstream->answered_peer == worker->peer ||
        upstream->answered_ms <= worker->failing_since_ms ||
        core->now_ms - upstream->answered_ms > core->breaker.window_ms) {
        return false;
    }
    const uint32_t doublings = worker->failures_in_a_row - core->breaker.failures;
    int64_t for_ms = core->breaker.open_first_ms;
    for (uint32_t i = 0; i < doublings && for_ms < core->breaker.open_max_ms; i++) {
        for_ms *= 2;
    }
    worker_set_aside_for(core, worker,
                         for_ms < core->breaker.open_max_ms ? for_ms : core->breaker.open_max_ms);
    return true;
}

static void failed(struct core *core, struct upstream *upstream, struct worker *worker,
                   const Wire__Call *call, uint32_t probe)
{
    upstream->counts.failed++;
    set_error(upstream, call);
    if (!is_workers_fault(core, upstream, worker)) {
        sample(core, upstream, SAMPLE_FAILURE, probe != 0);
    } else if (probe != 0) {
        breaker_forget_probe(&upstream->breaker, probe);
    }
}

/* Given up by us: it says something only when an answer was long overdue. */
static void given_up(struct core *core, struct upstream *upstream, struct worker *worker,
                     const Wire__Call *call, uint32_t probe)
{
    const double overdue_ms = upstream->typical_ms * HUNG_TIMES;
    if (call->call_ms > HUNG_LEAST_MS && (double)call->call_ms > overdue_ms) {
        failed(core, upstream, worker, call, probe);
    } else if (probe != 0) {
        breaker_forget_probe(&upstream->breaker, probe);
    }
}

static void learn_limits(struct core *core, struct upstream *upstream,
                         const Wire__RateLimits *limits)
{
    if (limits == NULL) {
        return;
    }
    if (limits->requests_per_min > 0) {
        bucket_set(&upstream->requests, limits->requests_per_min, core->now_ms);
    }
    if (limits->tokens_per_min > 0) {
        bucket_set(&upstream->tokens, limits->tokens_per_min, core->now_ms);
    }
    if (limits->has_requests_left && upstream->requests.per_min > 0) {
        bucket_lower(&upstream->requests, (double)limits->requests_left, core->now_ms);
    }
    if (limits->has_tokens_left && upstream->tokens.per_min > 0) {
        bucket_lower(&upstream->tokens, (double)limits->tokens_left, core->now_ms);
    }
}

/* `probe` 0: it was none. One that was given up meanwhile counts as any other: a newer one decides.
 */
static void report(struct core *core, struct worker *worker, struct upstream *upstream,
                   const Wire__Call *call, uint32_t probe)
{
    const bool was_down = upstream_is_down(core, upstream);
    probe = breaker_awaits_probe(&upstream->breaker, probe) ? probe : 0;
    upstream->counts.cost_nanousd += call->cost_nanousd;
    learn_limits(core, upstream, call->limits);
    switch (call->outcome) {
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED:
        answered(core, upstream, worker, call, probe != 0);
        break;
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED:
        limited(core, upstream, call, probe != 0);
        break;
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE:
        failed(core, upstream, worker, call, probe);
        break;
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED:
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_REFUSED:
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID:
        upstream->counts.rejected++;
        sample(core, upstream, SAMPLE_SUCCESS, probe != 0);
        break;
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED:
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED:
        given_up(core, upstream, worker, call, probe);
        break;
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_NONE:
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED:
    case _WIRE__ATTEMPT_OUTCOME_IS_INT_SIZE:
        breaker_forget_probe(&upstream->breaker, probe);
        break;
    }
    announce(core, upstream);
    if (probe != 0 || was_down != upstream_is_down(core, upstream)) {
        gate_look(core, upstream);
    }
}

static bool is_named(const struct upstream *upstream, const Wire__Upstream *name)
{
    return strcmp(upstream->model, name->model) == 0 &&
           strcmp(upstream->provider, name->provider) == 0;
}

/*
 * A call that was ended would have taken its time at least, which says something where most take
 * less: otherwise a model that hangs would look quick, by the few that it answers.
 */
static void learn_ended(struct upstream *upstream, uint32_t size, int64_t ms)
{
    const double typical_ms = latency_quantile_ms(&upstream->latency, size, 0.5);
    if (ms > 0 && (double)ms >= (typical_ms > 0 ? typical_ms : HUNG_LEAST_MS)) {
        latency_add(&upstream->latency, size, ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX);
    }
}

/* What is known of how long its calls take, in all and to the first token. */
static void learn_latency(struct upstream *upstream, uint32_t size, const Wire__Call *call)
{
    const bool is_timeout = call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE &&
                            strstr(call->error_code, "timeout") != NULL;
    if (call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED) {
        latency_add(&upstream->latency, size, call->call_ms);
        if (call->first_token_ms > 0) {
            latency_add(&upstream->first_token, size, call->first_token_ms);
        }
    } else if (is_timeout || call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED ||
               call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED) {
        learn_ended(upstream, size, call->call_ms);
    }
}

/*
 * A stream that was ended since a second one was quicker would have taken longer than it has to its
 * first token: without it the slow ones would be forgotten, and what is thought to be slow would
 * become ever quicker.
 */
static void learn_overtaken(struct upstream *upstream, uint32_t size, const Wire__Call *call,
                            const struct event_attempt_result *result)
{
    if (result->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED &&
        call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED && result->usage != NULL &&
        result->usage->first_token_ms > 0) {
        latency_add(&upstream->first_token, size, call->call_ms);
    }
}

/* The permit was for one request, and so many tokens; what was done beyond it is taken besides. */
static void settle_call(struct core *core, struct worker *worker, struct permit *permit,
                        const Wire__Call *call, bool is_another)
{
    struct upstream *upstream = permit->upstream;
    learn_latency(upstream, permit->size, call);
    if (call->tokens > 0) {
        take_of_limits(core, upstream, 0.0, (double)call->tokens - permit->tokens);
        permit->tokens = 0;
        wake(core, upstream);
    }
    if (is_another) {
        take_of_limits(core, upstream, 1.0, 0.0);
    }
    report(core, worker, upstream, call, permit->probe);
}

static bool is_for(const struct permit *permit, const Wire__Call *call)
{
    return permit->upstream != NULL && is_named(permit->upstream, call->upstream);
}

static void end_or_give_back(struct core *core, struct permit *permit, bool is_used)
{
    if (is_used) {
        (void)end_permit(permit);
    } else {
        upstream_give_back(core, permit);
    }
}

const Wire__Call *upstream_call_in(const struct upstream *upstream,
                                   const struct event_attempt_result *result)
{
    for (size_t i = 0; i < result->calls_length; i++) {
        if (is_named(upstream, result->calls[i]->upstream)) {
            return result->calls[i];
        }
    }
    return NULL;
}

struct upstream *upstream_settle(struct core *core, struct worker *worker, struct permit *permit,
                                 struct permit *hedge, const struct event_attempt_result *result)
{
    struct upstream *called = permit->upstream;
    bool is_used = false, is_hedge_used = false;
    for (size_t i = 0; i < result->calls_length; i++) {
        const Wire__Call *call = result->calls[i];
        if (is_for(permit, call)) {
            called = permit->upstream;
            learn_overtaken(called, permit->size, call, result);
            settle_call(core, worker, permit, call, is_used);
            is_used = true;
        } else if (is_for(hedge, call)) {
            called = hedge->upstream;
            settle_call(core, worker, hedge, call, is_hedge_used);
            is_hedge_used = true;
        } else {
            struct upstream *other =
                upstream_find(core, call->upstream->provider, call->upstream->model);
            if (other != NULL) {
                called = other;
                report(core, worker, other, call, 0);
            }
        }
    }
    end_or_give_back(core, permit, is_used);
    end_or_give_back(core, hedge, is_hedge_used);
    return called;
}

void upstream_settle_silent(struct core *core, struct permit *permit, bool is_expired)
{
    struct upstream *upstream = end_permit(permit);
    if (upstream != NULL && is_expired) {
        learn_ended(upstream, permit->size, core->now_ms - permit->taken_ms);
    }
    if (upstream == NULL || !breaker_awaits_probe(&upstream->breaker, permit->probe)) {
        return;
    }
    if (is_expired) {
        sample(core, upstream, SAMPLE_FAILURE, true);
    } else {
        breaker_forget_probe(&upstream->breaker, permit->probe);
    }
    announce(core, upstream);
    wake(core, upstream);
}

/* ---- an operator's hand ---- */

/* Waiting for an upstream, and not for what its submission asked for: it has been dispatched. */
static bool backs_off_from(const struct core *core, const struct job *job,
                           const struct upstream *upstream)
{
    return job->place == PLACE_BACKING_OFF && job->attempt > 0 &&
           upstream_bit(core, job->flow->queue, upstream) != 0;
}

/* Its record is written again when there is room: otherwise a restart lets it wait as before. */
static void call_back(struct core *core, struct job *job)
{
    const int64_t at_ms =
        core->now_ms + 1 + (int64_t)core_random_below(core, job_tier(job)->backoff_first_ms);
    if (at_ms >= job->at.not_before_ms) {
        return;
    }
    job->at.not_before_ms = at_ms;
    job_rearm(core, job);
    if (effects_reserve(core->effects, 1)) {
        conclude_update_record(core, job);
    }
}

static void call_jobs_back(struct core *core, const struct upstream *upstream)
{
    for (size_t i = 0; i < core->jobs.buckets_length; i++) {
        struct table_link *link = table_bucket_at(&core->jobs, i)->first;
        for (; link != NULL; link = link->next) {
            struct job *job = CONTAINER_OF(link, struct job, by_id);
            if (backs_off_from(core, job, upstream)) {
                call_back(core, job);
            }
        }
    }
}

static void reset(struct core *core, struct upstream *upstream)
{
    if (!upstream_is_down(core, upstream)) {
        return;
    }
    const int64_t blocked_ms = later_ms(upstream_blocked_until_ms(upstream) - core->now_ms, 0);
    upstream->limited_until_ms = 0;
    breaker_probe_now(&upstream->breaker, core->now_ms);
    core_note(core, NOTE_UPSTREAM_RESET, NULL, upstream->subject, upstream->error_code, blocked_ms);
    record(core, upstream);
    effects_set_urgent(core->effects);
    announce(core, upstream);
    call_jobs_back(core, upstream);
    gate_look(core, upstream);
}

void upstream_reset(struct core *core, const struct event *event)
{
    for (size_t i = 0; i < core->upstreams_length; i++) {
        struct upstream *upstream = core->upstreams[i];
        const bool is_meant = event->as.upstream.provider == NULL ||
                              (strcmp(upstream->provider, event->as.upstream.provider) == 0 &&
                               strcmp(upstream->model, event->as.upstream.model) == 0);
        if (is_meant) {
            reset(core, upstream);
        }
    }
}
