#include "worker/worker.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/http_admin.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/metrics.h"
#include "common/time_slice.h"
#include "worker/account/account_stage.h"
#include "worker/attempt.h"
#include "worker/broker_link.h"
#include "worker/cache/cache.h"
#include "worker/cache/cache_stage.h"
#include "worker/cache/text_embedder.h"
#include "worker/cache_host.h"
#include "worker/combine/combine.h"
#include "worker/decode.h"
#include "worker/pipeline.h"
#include "worker/prompt/prompt.h"
#include "worker/prompt/vocabularies.h"
#include "worker/provider/call_stage.h"
#include "worker/provider/provider.h"
#include "worker/route/router_stage.h"
#include "worker/route/upstreams.h"
#include "worker/services.h"
#include "worker/telemetry.h"

enum { ENVELOPE_BYTES = 65536, NAME_BYTES_MAX = 255 };

struct worker {
    struct loop *loop;
    struct log *log;
    struct config
        *config; /* in force; links borrow texts that need a restart, which a reload carries over */
    char *config_path;
    char *name;
    struct services services;
    struct cache_host *cache; /* NULL: mode off */
    struct metrics *metrics;
    struct telemetry *telemetry;
    struct combine *combine;
    struct pipeline *pipeline;
    struct http_admin *admin;
    struct broker_link **brokers;
    size_t brokers_length;
    uint32_t slots;
    struct loop_timer *drain_timer;
    bool is_draining;
    bool is_stopped; /* goodbye is said; the loop ends */
};

/* ---- credit and jobs ---- */

static size_t jobs_running(const struct worker *worker)
{
    size_t running = 0;
    for (size_t i = 0; i < worker->brokers_length; i++) {
        running += broker_link_held(worker->brokers[i]);
    }
    return running;
}

/*
 * Hands free slots out as credit: to each broker up to an equal share of what is not running.
 * Credit cannot be taken back, so a broker that has not joined yet has its share kept: otherwise
 * the first to join gets every slot, and the others starve beside it while it is idle.
 */
static void grant_credit(struct worker *worker)
{
    uint64_t used = jobs_running(worker);
    size_t takers = 0;
    for (size_t i = 0; i < worker->brokers_length; i++) {
        const struct broker_link *broker = worker->brokers[i];
        used += broker_link_outstanding(broker);
        takers += broker_link_takes_credit(broker) || !broker_link_is_joined(broker) ? 1 : 0;
    }
    uint64_t free_slots = worker->slots > used ? worker->slots - used : 0;
    if (takers == 0 || free_slots == 0) {
        return;
    }
    const uint64_t idle = worker->slots - jobs_running(worker);
    const uint64_t share = (idle + takers - 1) / takers;
    for (size_t i = 0; i < worker->brokers_length && free_slots > 0; i++) {
        struct broker_link *broker = worker->brokers[i];
        const uint64_t outstanding = broker_link_outstanding(broker);
        if (broker_link_takes_credit(broker) && outstanding < share) {
            const uint64_t credit =
                share - outstanding < free_slots ? share - outstanding : free_slots;
            broker_link_grant(broker, credit);
            free_slots -= credit;
        }
    }
}

static void defer(struct worker *worker, struct broker_link *link, const Wire__Dispatch *dispatch,
                  const char *reason)
{
    if (broker_link_defer(link, dispatch, reason) < 0) {
        log_at(worker->log, LOG_ERROR, "a dispatch could not be deferred: its lease will run out",
               log_text("reason", reason));
    }
}

static void dispatched(void *context, struct broker_link *link, const Wire__Dispatch *dispatch,
                       struct blob *payload)
{
    struct worker *worker = context;
    struct attempt *attempt = NULL;
    if (broker_link_answer_again(link, dispatch)) {
        telemetry_answered_again(worker->telemetry);
        return;
    }
    if (broker_link_carry_on(link, dispatch)) {
        return;
    }
    if (worker->is_draining) {
        defer(worker, link, dispatch, "the worker is shutting down");
        return;
    }
    if (jobs_running(worker) >= worker->slots) {
        defer(worker, link, dispatch, "no slot is free");
        return;
    }
    int r = attempt_create(worker->loop, dispatch, payload, clock_monotonic_ms(), &attempt);
    if (r < 0) {
        telemetry_protocol_error(worker->telemetry, "dispatch");
        log_at(worker->log, LOG_ERROR, "dispatch refused",
               log_text("broker", broker_link_endpoint(link)),
               log_text("error", r == -EBADMSG ? "a field of it is malformed" : strerror(-r)));
        defer(worker, link, dispatch, "the dispatch could not be taken");
        return;
    }
    broker_link_hold(link, attempt);
    pipeline_start(worker->pipeline, &attempt);
}

static void cancelled(void *context, struct attempt *attempt, const char *reason)
{
    struct worker *worker = context;
    log_at(worker->log, LOG_INFO, "attempt cancelled", log_job(&attempt->job_id),
           log_text("tenant", attempt->tenant), log_text("trace", attempt->trace_id),
           log_text("stage", pipeline_stage_name(attempt)), log_text("reason", reason));
    pipeline_stop(attempt, WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED, "cancelled", reason);
}

static void hedge_granted(void *context, struct attempt *attempt, const Wire__HedgeGrant *grant)
{
    (void)context;
    call_stage_hedge(attempt, grant);
}

/* Those who wait for a connection to an upstream that has just failed need not wait. */
static void upstream_heard_of(void *context, const struct upstream *upstream)
{
    const struct worker *worker = context;
    for (size_t i = 0; i < worker->services.providers_length; i++) {
        struct provider *provider = worker->services.providers[i];
        if (upstream->state == WIRE__UPSTREAM_STATE__STATE__UPSTREAM_OPEN &&
            strcmp(provider_name(provider), upstream->provider) == 0) {
            provider_call_up(provider);
        }
    }
}

static void invalidation_heard_of(void *context, struct broker_link *link,
                                  const Wire__CacheInvalidation *invalidation)
{
    cache_host_invalidate(((struct worker *)context)->cache, link, invalidation);
}

static void cache_is_behind(void *context, struct broker_link *link, const uint8_t *epoch,
                            uint64_t sequence)
{
    cache_host_behind(((struct worker *)context)->cache, link, epoch, sequence);
}

static void evidence_heard_of(void *context, struct broker_link *link, const Wire__CacheEvidence *evidence)
{
    cache_host_evidence(((struct worker *)context)->cache, link, evidence);
}

static void denial_heard_of(void *context, const Wire__CacheDenial *denial)
{
    cache_host_denial(((struct worker *)context)->cache, denial);
}

static void asked(void *context, struct broker_link *link, const Wire__WorkerQuery *query)
{
    cache_host_query(((struct worker *)context)->cache, link, query);
}

static void log_outcome(struct worker *worker, const struct attempt *attempt)
{
    const bool is_good = attempt->outcome.kind == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED;
    const bool is_back = attempt->outcome.kind == WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED;
    const char *model = attempt->cached_model == NULL ? attempt->model : attempt->cached_model;
    log_at(worker->log, is_good || is_back ? LOG_DEBUG : LOG_WARN,
           is_good   ? "attempt answered"
           : is_back ? "attempt given back"
                     : "attempt failed",
           log_job(&attempt->job_id), log_int("attempt", attempt->number),
           log_text("tenant", attempt->tenant), log_text("trace", attempt->trace_id),
           log_text("tier", attempt->tier), log_text("route", attempt->route),
           log_text("model", model), log_text("provider", attempt->provider_name),
           log_text("code", attempt->outcome.code), log_text("error", attempt->outcome.text),
           log_int("cost_nanousd", attempt->cost_nanousd), log_int("call_ms", attempt->call_ms));
}

static void attempt_concluded(void *context, struct attempt *attempt)
{
    struct worker *worker = context;
    telemetry_attempt(worker->telemetry, attempt);
    if (attempt->outcome.kind != WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED) {
        log_outcome(worker, attempt);
    }
    /* It goes at the end of this turn: the cache's handler, which may conclude it, comes first. */
    if (broker_link_answer(attempt->broker, attempt) < 0) {
        log_at(worker->log, LOG_ERROR, "answer lost for want of memory: its lease will run out",
               log_job(&attempt->job_id));
    }
}

/* ---- draining ---- */

static bool is_all_concluded(const struct worker *worker)
{
    uint64_t bytes;
    bool is_done = jobs_running(worker) == 0;
    for (size_t i = 0; i < worker->brokers_length; i++) {
        /* A broker that is gone cannot conclude; its jobs' leases run out and are run again. */
        is_done = is_done && (!broker_link_is_joined(worker->brokers[i]) ||
                              broker_link_answers(worker->brokers[i], &bytes) == 0);
    }
    return is_done;
}

static void stop_now(struct worker *worker)
{
    if (worker->is_stopped) {
        return;
    }
    worker->is_stopped = true;
    for (size_t i = 0; i < worker->brokers_length; i++) {
        broker_link_goodbye(worker->brokers[i]);
    }
    log_at(worker->log, LOG_INFO, "stopped", log_int("unfinished", jobs_running(worker)));
    loop_stop(worker->loop);
}

static void drain_is_over(void *context)
{
    struct worker *worker = context;
    log_at(worker->log, LOG_WARN,
           "worker.drain_timeout is over: what still runs goes back to the queue",
           log_int("running", jobs_running(worker)));
    stop_now(worker);
}

void worker_drain(struct worker *worker)
{
    if (worker->is_draining) {
        stop_now(worker);
        return;
    }
    worker->is_draining = true;
    log_at(worker->log, LOG_INFO, "draining", log_int("running", jobs_running(worker)));
    for (size_t i = 0; i < worker->brokers_length; i++) {
        broker_link_drain(worker->brokers[i]);
    }
    loop_timer_set(worker->drain_timer,
                   clock_monotonic_ms() + worker->config->worker.drain_timeout_ms);
}

/* The end of each turn: answers and new credit go, concluded attempts are released. */
static void turn(void *context)
{
    struct worker *worker = context;
    if (worker->is_stopped) {
        return;
    }
    grant_credit(worker);
    cache_host_turn(worker->cache);
    for (size_t i = 0; i < worker->brokers_length; i++) {
        broker_link_flush(worker->brokers[i]);
    }
    pipeline_release(worker->pipeline);
    if (worker->is_draining && is_all_concluded(worker)) {
        stop_now(worker);
    }
}

/* ---- admin ---- */

static size_t brokers_joined(const struct worker *worker)
{
    size_t joined = 0;
    for (size_t i = 0; i < worker->brokers_length; i++) {
        joined += broker_link_is_joined(worker->brokers[i]) ? 1 : 0;
    }
    return joined;
}

static bool is_ready(void *context, const char **ret_why_not)
{
    const struct worker *worker = context;
    *ret_why_not = worker->is_draining ? "draining" : "no broker has welcomed this worker";
    return !worker->is_draining && brokers_joined(worker) > 0;
}

static size_t upstreams_open(const struct broker_link *broker, int64_t now_ms)
{
    const struct upstream *items;
    const size_t length = broker_link_upstreams(broker, &items);
    size_t open = 0;
    for (size_t i = 0; i < length; i++) {
        open += broker_link_upstream_open_ms(broker, items[i].provider, items[i].model, now_ms) > 0;
    }
    return open;
}

static void read_gauges(const struct worker *worker, struct telemetry_gauges *gauges)
{
    struct cache_stats cache = {.is_broken = false};
    struct text_embedder_stats embedder;
    bool embedder_is_down;
    if (worker->services.cache != NULL) {
        cache_read_stats(worker->services.cache, &cache);
    }
    cache_host_read_embedder(worker->cache, &embedder, &embedder_is_down);
    *gauges = (struct telemetry_gauges){
        .slots = worker->slots,
        .in_flight = jobs_running(worker),
        .brokers_joined = brokers_joined(worker),
        .cache_entries = cache.keeper.store.entries,
        .cache_bytes = cache.keeper.store.bytes,
        .cache_memory_bytes = cache.keeper.memory_bytes,
        .cache_evictions = cache.keeper.evictions,
        .cache_fills = cache.fills,
        .cache_fills_failed = cache.fills_failed,
        .cache_is_broken = cache.is_broken ? 1 : 0,
        .cache_is_building = cache.keeper.is_building ? 1 : 0,
        .cache_set_aside = cache.set_aside,
        .cache_damaged = cache.keeper.store.damaged,
        .cache_indexed = cache.keeper.indexed,
        .cache_searches_cut = cache.keeper.searches_cut,
        .cache_wanted = cache.keeper.wanted,
        .embedder_is_down = embedder_is_down ? 1 : 0,
        .embedder_texts = embedder.texts,
        .embedder_texts_cached = embedder.texts_cached,
        .embedder_requests = embedder.requests,
        .embedder_failures = embedder.failures,
    };
    for (size_t i = 0; i < worker->brokers_length; i++) {
        uint64_t bytes;
        gauges->answers += broker_link_answers(worker->brokers[i], &bytes);
        gauges->answers_bytes += bytes;
        gauges->upstreams_open += upstreams_open(worker->brokers[i], clock_monotonic_ms());
    }
}

static void before_metrics(void *context)
{
    const struct worker *worker = context;
    struct telemetry_gauges gauges;
    read_gauges(worker, &gauges);
    telemetry_set_gauges(worker->telemetry, &gauges);
}

static json_t *upstreams_to_json(const struct broker_link *broker)
{
    const struct upstream *items;
    const size_t length = broker_link_upstreams(broker, &items);
    const int64_t now_ms = clock_monotonic_ms();
    json_t *list = json_array();
    for (size_t i = 0; i < length; i++) {
        const int64_t left_ms = items[i].until_ms > now_ms ? items[i].until_ms - now_ms : 0;
        (void)json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I}", "provider",
                                                    items[i].provider, "model", items[i].model,
                                                    "state", upstream_state_name(items[i].state),
                                                    "for_ms", (json_int_t)left_ms));
    }
    return list;
}

static json_t *brokers_to_json(const struct worker *worker)
{
    json_t *list = json_array();
    for (size_t i = 0; i < worker->brokers_length; i++) {
        const struct broker_link *broker = worker->brokers[i];
        uint64_t bytes;
        const size_t answers = broker_link_answers(broker, &bytes);
        (void)json_array_append_new(
            list, json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:o}", "endpoint",
                            broker_link_endpoint(broker), "joined", broker_link_is_joined(broker),
                            "running", (json_int_t)broker_link_held(broker), "credit",
                            (json_int_t)broker_link_outstanding(broker), "answers_kept",
                            (json_int_t)answers, "answers_kept_bytes", (json_int_t)bytes,
                            "upstreams", upstreams_to_json(broker)));
    }
    return list;
}

/* GET /v1/stats */
static void stats_asked(void *context, const struct http_request *request,
                        struct http_response *ret_response)
{
    (void)request;
    const struct worker *worker = context;
    struct telemetry_gauges gauges;
    read_gauges(worker, &gauges);
    json_t *stats = json_pack(
        "{s:s, s:I, s:I, s:b, s:o, s:{s:b, s:b, s:I, s:I, s:I, s:I, s:I}}", "name", worker->name,
        "slots", (json_int_t)gauges.slots, "running", (json_int_t)gauges.in_flight, "draining",
        worker->is_draining, "brokers", brokers_to_json(worker), "cache", "on",
        worker->services.cache != NULL, "broken", gauges.cache_is_broken != 0, "entries",
        (json_int_t)gauges.cache_entries, "bytes", (json_int_t)gauges.cache_bytes, "memory_bytes",
        (json_int_t)gauges.cache_memory_bytes, "evictions", (json_int_t)gauges.cache_evictions,
        "fills", (json_int_t)gauges.cache_fills);
    ret_response->body = stats == NULL ? NULL : json_dumps(stats, JSON_COMPACT);
    json_decref(stats);
    if (ret_response->body == NULL) {
        http_error(ret_response, 500, "out of memory");
        return;
    }
    ret_response->body_bytes = strlen(ret_response->body);
}

/* GET /v1/config */
static void config_asked(void *context, const struct http_request *request,
                         struct http_response *ret_response)
{
    (void)request;
    const struct worker *worker = context;
    FILE *out = open_memstream(&ret_response->body, &ret_response->body_bytes);
    if (out == NULL || config_write(worker->config, out) < 0 || fclose(out) != 0) {
        http_error(ret_response, 500, "out of memory");
        return;
    }
    ret_response->content_type = "application/yaml";
}

/* ---- creation ---- */

static int fail(char *ret_error, int error, const char *what, const char *value)
{
    (void)snprintf(ret_error, WORKER_ERROR_BYTES, "%s%s%s: %s", what, value == NULL ? "" : " ",
                   value == NULL ? "" : value, strerror(-error));
    return error;
}

/* Unique in the cluster: the host and the process, unless configured. */
static int set_name(struct worker *worker)
{
    char host[NAME_BYTES_MAX - 20] = "worker";
    const char *configured = worker->config->worker.name;
    if (configured != NULL && configured[0] != '\0') {
        worker->name = strdup(configured);
        return worker->name == NULL ? -ENOMEM : 0;
    }
    if (gethostname(host, sizeof(host) - 1) < 0) {
        host[0] = '\0';
    }
    return asprintf(&worker->name, "%s-%d", host[0] == '\0' ? "worker" : host, (int)getpid()) < 0
               ? -ENOMEM
               : 0;
}

static size_t answer_bytes_max(const struct config *config)
{
    const uint64_t payload = config->broker.payload_bytes_max;
    return payload > 2 * ENVELOPE_BYTES ? payload - ENVELOPE_BYTES : payload / 2;
}

static int open_providers(struct worker *worker, char *ret_error)
{
    const struct config *config = worker->config;
    worker->services.providers = calloc(config->providers_length + 1, sizeof(struct provider *));
    if (worker->services.providers == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < config->providers_length; i++) {
        int r = provider_create(worker->loop, &config->providers[i], answer_bytes_max(config),
                                &worker->services.providers[i]);
        if (r < 0) {
            return fail(ret_error, r, "provider", config->providers[i].name);
        }
        worker->services.providers_length++;
    }
    return 0;
}

static int open_pipeline(struct worker *worker)
{
    struct services *services = &worker->services;
    const struct stage stages[] = {
        decode_stage(services),   deadline_stage(services), cache_stage(services),
        prompt_stage(services),   router_stage(services),   combine_stage(worker->combine),
        call_stage(services),     stand_in_stage(services), account_stage(services),
        fill_stage(services),
    };
    return pipeline_create(stages, ARRAY_LENGTH(stages), attempt_concluded, worker,
                           &worker->pipeline);
}

static int open_admin(struct worker *worker, char *ret_error)
{
    const struct http_admin_options options = {
        .address = worker->config->worker.admin,
        .metrics = worker->metrics,
        .is_ready = is_ready,
        .before_metrics = before_metrics,
        .context = worker,
    };
    int r = http_admin_create(worker->loop, &options, &worker->admin);
    if (r == -EADDRINUSE) {
        (void)snprintf(ret_error, WORKER_ERROR_BYTES,
                       "worker.admin %s: %s; is another worker running? set worker.admin, or "
                       "TIERMQ_WORKER_ADMIN where the file uses it",
                       options.address, strerror(-r));
        return r;
    }
    if (r < 0) {
        return fail(ret_error, r, "worker.admin", options.address);
    }
    r = http_admin_route(worker->admin, "GET", "/v1/stats", false, stats_asked, worker);
    return r < 0
               ? r
               : http_admin_route(worker->admin, "GET", "/v1/config", false, config_asked, worker);
}

static int open_broker(struct worker *worker, size_t index)
{
    const struct config_worker *config = &worker->config->worker;
    static const struct broker_handler handler = {
        .on_dispatch = dispatched,
        .on_cancel = cancelled,
        .on_hedge = hedge_granted,
        .on_upstream = upstream_heard_of,
        .on_invalidation = invalidation_heard_of,
        .on_cache_behind = cache_is_behind,
        .on_evidence = evidence_heard_of,
        .on_denial = denial_heard_of,
        .on_query = asked,
    };
    struct broker_link_options options = {
        .endpoint = config->brokers[index],
        .events = index < config->events_length ? config->events[index] : NULL,
        .worker_name = worker->name,
        .pools = config->pools,
        .pools_length = config->pools_length,
        .slots = config->slots,
        .gpus = config->gpus,
        .brokers = (uint32_t)config->brokers_length,
        .part_bytes_max = worker->config->broker.payload_bytes_max + ENVELOPE_BYTES,
        .answers_bytes_max = config->answers_bytes_max / config->brokers_length,
        .answers_ttl_ms = config->answers_ttl_ms,
    };
    cache_host_position(worker->cache, index, options.cache_epoch, &options.cache_sequence);
    int r = broker_link_create(worker->loop, worker->log, worker->telemetry,
                               &options, &handler, worker, &worker->brokers[index]);
    if (r == 0) {
        cache_host_add(worker->cache, worker->brokers[index]);
    }
    return r;
}

static int open_brokers(struct worker *worker, char *ret_error)
{
    const struct config_worker *config = &worker->config->worker;
    time_slice_shorten(); /* not those of the cache, which have begun */
    worker->brokers = calloc(config->brokers_length + 1, sizeof(struct broker_link *));
    if (worker->brokers == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < config->brokers_length; i++) {
        int r = open_broker(worker, i);
        if (r < 0) {
            return fail(ret_error, r, "worker.brokers", config->brokers[i]);
        }
        worker->brokers_length++;
    }
    return 0;
}

/* The order matters: the cache's turn comes before the worker's, which sends what it brought. */
static int open_parts(struct worker *worker, char *ret_error)
{
    int r = set_name(worker);
    r = r < 0 ? r : metrics_create(&worker->metrics);
    r = r < 0 ? r : telemetry_create(worker->metrics, &worker->telemetry);
    worker->services.telemetry = worker->telemetry;
    r = r < 0 ? r : open_admin(worker, ret_error);
    r = r < 0 ? r : cache_host_open(&worker->services, &worker->cache);
    r = r < 0 ? r
              : vocabularies_create(worker->config, worker->log, &worker->services.vocabularies);
    r = r < 0 ? r : open_providers(worker, ret_error);
    r = r < 0 ? r : combine_create(&worker->services, &worker->combine);
    r = r < 0 ? r : open_pipeline(worker);
    r = r < 0 ? r : loop_timer_create(worker->loop, drain_is_over, worker, &worker->drain_timer);
    r = r < 0 ? r : loop_add_turn_handler(worker->loop, turn, worker);
    return r < 0 ? r : open_brokers(worker, ret_error);
}

int worker_create(struct loop *loop, struct log *log, struct config **config,
                  const char *config_path, struct worker **ret_worker,
                  char ret_error[WORKER_ERROR_BYTES])
{
    CLEANUP(worker_destroy) struct worker *worker = calloc(1, sizeof(*worker));
    if (worker == NULL) {
        return fail(ret_error, -ENOMEM, "worker", NULL);
    }
    ret_error[0] = '\0';
    worker->loop = loop;
    worker->log = log;
    worker->config = TAKE(*config);
    worker->slots = worker->config->worker.slots;
    worker->config_path = config_path == NULL ? NULL : strdup(config_path);
    worker->services = (struct services){.loop = loop, .log = log, .config = worker->config};
    canonical_secret_of(worker->config->cache.key_secret, &worker->services.key_secret);
    int r = open_parts(worker, ret_error);
    if (r < 0) {
        return ret_error[0] != '\0' ? r : fail(ret_error, r, "worker", NULL);
    }
    *ret_worker = TAKE(worker);
    return 0;
}

void worker_destroy(struct worker **worker)
{
    struct worker *old = TAKE(*worker);
    if (old == NULL) {
        return;
    }
    for (size_t i = 0; i < old->brokers_length; i++) {
        broker_link_stop_all(old->brokers[i], "the worker has stopped");
        broker_link_destroy(&old->brokers[i]);
    }
    free(old->brokers);
    pipeline_destroy(&old->pipeline);
    combine_destroy(&old->combine);
    for (size_t i = 0; i < old->services.providers_length; i++) {
        provider_destroy(&old->services.providers[i]);
    }
    free(old->services.providers);
    vocabularies_destroy(&old->services.vocabularies);
    cache_host_close(&old->cache);
    http_admin_destroy(&old->admin);
    telemetry_destroy(&old->telemetry);
    metrics_destroy(&old->metrics);
    loop_timer_destroy(&old->drain_timer);
    config_destroy(&old->config);
    free(old->config_path);
    free(old->name);
    free(old);
}

void worker_announce(const struct worker *worker)
{
    log_at(worker->log, LOG_INFO, "ready", log_text("name", worker->name),
           log_text("admin", http_admin_address(worker->admin)),
           log_text("brokers",
                    worker->brokers_length > 0 ? broker_link_endpoint(worker->brokers[0]) : NULL),
           log_int("slots", worker->slots));
}

/* ---- reload ---- */

static void log_needs_restart(struct worker *worker, const struct config *next)
{
    char *keys = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&keys, &bytes);
    if (out == NULL) {
        return;
    }
    (void)config_diff_restart(worker->config, next, out);
    if (fclose(out) == 0) {
        char *rest = keys;
        for (const char *key; (key = strsep(&rest, "\n")) != NULL;) {
            if (key[0] != '\0') {
                log_at(worker->log, LOG_WARN, "a change takes effect at the next start",
                       log_text("key", key));
            }
        }
    }
    free(keys);
}

static void replace_config(struct worker *worker, struct config **next)
{
    log_set_level(worker->log, (enum log_level)(*next)->log.level);
    log_needs_restart(worker, *next);
    config_carry_over(worker->config, *next);
    config_destroy(&worker->config);
    worker->config = TAKE(*next);
    worker->services.config = worker->config;
    cache_host_reconfigure(worker->cache);
    if (vocabularies_follow(worker->services.vocabularies, worker->config, worker->log) < 0) {
        log_at(worker->log, LOG_ERROR, "no memory for vocabularies: those before stay");
    }
}

void worker_reload(struct worker *worker)
{
    CLEANUP(config_destroy) struct config *next = NULL;
    CLEANUP(config_errors_finish) struct config_errors errors = {.items = NULL};
    int r = config_read(worker->config_path, &next, &errors);
    for (size_t i = 0; i < errors.length; i++) {
        log_at(worker->log, LOG_ERROR, "configuration error",
               log_text("error", errors.items[i].text));
    }
    if (r < 0) {
        log_at(worker->log, LOG_ERROR, "configuration not reloaded: the old one stays",
               log_text("error", strerror(-r)));
        return;
    }
    replace_config(worker, &next);
    log_at(worker->log, LOG_INFO, "configuration reloaded", log_text("path", worker->config_path));
}
