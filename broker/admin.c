#include "broker/admin.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "broker/admin_cache.h"
#include "broker/admin_cost.h"
#include "broker/admin_dead.h"
#include "broker/admin_quality.h"
#include "broker/broker.h"
#include "broker/held.h"
#include "broker/inquiry.h"
#include "broker/names.h"
#include "broker/outbox.h"
#include "broker/store/store.h"
#include "broker/telemetry.h"
#include "broker/text.h"
#include "common/config.h"
#include "common/http_admin.h"
#include "common/log.h"

enum { UPSTREAMS_TEXT_BYTES = 1024 };

static const double NANOUSD = 1e-9;

/* ---- answering ---- */

void admin_answer(struct http_response *response, int status, json_t *value)
{
    char *text = value == NULL ? NULL : json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
    json_decref(value);
    if (text == NULL) {
        http_error(response, 500, "out of memory");
        return;
    }
    response->status = status;
    response->body = text;
    response->body_bytes = strlen(text);
}

int admin_read_body(const struct http_request *request, struct http_response *response,
                    json_t **ret_body)
{
    json_error_t error;
    json_t *body = request->body_bytes == 0
                       ? json_object()
                       : json_loadb(request->body, request->body_bytes, 0, &error);
    if (json_is_object(body)) {
        *ret_body = body;
        return 0;
    }
    http_error(response, 400, "the body is no JSON object%s%s", body == NULL ? ": " : "",
               body == NULL ? error.text : "");
    json_decref(body);
    return -EINVAL;
}

static json_int_t integer(uint64_t value)
{
    return (json_int_t)value;
}

/* ---- what there is ---- */

/* Counts by name, without those that are 0. */
static json_t *counts_of(const uint64_t *counts, size_t length, const char *(*name_of)(int value))
{
    json_t *object = json_object();
    for (size_t i = 1; i < length; i++) {
        if (counts[i] != 0) {
            json_object_set_new(object, name_of((int)i), json_integer(integer(counts[i])));
        }
    }
    return object;
}

static const char *state_word(int state)
{
    return name_of_state((Wire__JobState)state);
}

static const char *reason_word(int reason)
{
    return name_of_reject_reason((Wire__RejectReason)reason);
}

/* By step down: how many answers, and how many grades they lost together. */
static json_t *quality_object(const struct core_tier_stats *tier)
{
    json_t *object = json_object();
    for (size_t i = 0; i < CORE_STEPS; i++) {
        (void)json_object_set_new(object, core_step_name(i),
                                  json_pack("{s:I, s:I}", "jobs",
                                            integer(tier->quality_lost[i].jobs), "grades",
                                            integer(tier->quality_lost[i].grades)));
    }
    return object;
}

static json_t *flights_object(const struct core_tier_stats *tier)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "followers_joined", integer(tier->followers_joined),
                     "followers_concluded", integer(tier->followers_concluded),
                     "followers_promoted", integer(tier->followers_promoted), "split",
                     integer(tier->flights_split));
}

static json_t *tier_object(const struct core_tier_stats *tier)
{
    return json_pack(
        "{s:s, s:o, s:I, s:I, s:I, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:I, "
        "s:I, "
        "s:I, s:f, s:f, s:I, "
        "s:I, s:I, s:I, s:I, s:f, s:I, s:o, s:o}",
        "name", tier->name, "states", counts_of(tier->states, CORE_STATES, state_word), "submitted",
        integer(tier->submitted), "accepted", integer(tier->accepted), "duplicates",
        integer(tier->duplicates), "rejected",
        counts_of(tier->rejected, CORE_REJECT_REASONS, reason_word), "concluded",
        counts_of(tier->concluded, CORE_STATES, state_word), "dispatched",
        integer(tier->dispatched), "attempts_failed", integer(tier->attempts_failed), "leases_lost",
        integer(tier->leases_lost), "redelivered", integer(tier->redelivered), "late_results",
        integer(tier->late_results), "duplicate_results", integer(tier->duplicate_results),
        "late_cost_usd", (double)tier->late_cost_nanousd * NANOUSD, "payload_bytes",
        integer(tier->payload_bytes), "input_tokens", integer(tier->input_tokens), "output_tokens",
        integer(tier->output_tokens), "cost_usd", (double)tier->cost_nanousd * NANOUSD, "saved_usd",
        (double)tier->saved_nanousd * NANOUSD, "cache_hits", integer(tier->cache_hits),
        "cache_near_hits", integer(tier->cache_near_hits), "cache_stale_hits",
        integer(tier->cache_stale_hits), "cache_misses", integer(tier->cache_misses), "oldest_ms",
        (json_int_t)tier->oldest_ms, "drain_per_s", tier->drain_per_s, "shed", integer(tier->shed),
        "flights", flights_object(tier), "quality_lost", quality_object(tier));
}

static json_t *store_object(struct broker *broker)
{
    struct store_stats store;
    store_read_stats(broker->store, &store);
    return json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "up", !broker->is_store_down,
                     "commits", integer(store.commits), "records", integer(store.records), "bytes",
                     integer(store.bytes), "commit_us_last", integer(store.commit_us_last),
                     "pending_batches", integer(store.pending_batches), "failures",
                     integer(store.failures), "disk_bytes", integer(store.disk_bytes),
                     "memory_bytes", integer(store.memory_bytes));
}

static const char *const SUBJECTS[] = {
    [PAUSE_ROUTE] = "route",
    [PAUSE_TIER] = "tier",
    [PAUSE_TENANT] = "tenant",
    [PAUSE_WORKER] = "worker",
};

static void add_pause(void *context, const struct core_pause_view *view)
{
    json_array_append_new(context, json_pack("{s:s, s:s, s:s, s:s, s:I}", "kind",
                                             SUBJECTS[view->subject], "name", view->name, "mode",
                                             view->mode == PAUSE_HOLD ? "paused" : "draining",
                                             "reason", view->reason, "since_unix_ms",
                                             (json_int_t)view->since_unix_ms));
}

static json_t *pauses_of(const struct broker *broker)
{
    json_t *pauses = json_array();
    core_visit_pauses(broker->core, add_pause, pauses);
    return pauses;
}

static void get_stats(void *context, const struct http_request *request,
                      struct http_response *response)
{
    (void)request;
    struct broker *broker = context;
    struct core_stats stats;
    core_read_stats(broker->core, broker_time(broker), &stats);
    json_t *tiers = json_array();
    for (size_t i = 0; i < stats.tiers_length; i++) {
        json_array_append_new(tiers, tier_object(&stats.tiers[i]));
    }
    admin_answer(
        response, 200,
        json_pack(
            "{s:s, s:b, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}",
            "broker", broker->config->broker.name, "draining", stats.is_draining, "tiers", tiers,
            "jobs", integer(stats.jobs), "jobs_bytes", integer(stats.jobs_bytes),
            "payload_memory_bytes", integer(stats.payload_memory_bytes), "results",
            integer(stats.results), "results_bytes", integer(stats.results_bytes), "concluded_ids",
            integer(stats.concluded_ids), "dead_letters", integer(stats.dead_letters), "clients",
            integer(stats.clients), "workers", integer(stats.workers), "slots",
            integer(stats.slots), "slots_free", integer(stats.slots_free), "store",
            store_object(broker), "pauses", pauses_of(broker)));
}

struct queue_list {
    const struct core *core;
    json_t *queues;
};

static void add_queue(void *context, const struct core_queue_view *view)
{
    const struct queue_list *list = context;
    char upstreams[UPSTREAMS_TEXT_BYTES];
    json_array_append_new(
        list->queues,
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:b, s:I, s:s}", "tier", view->tier,
                  "pool", view->pool, "route", view->route, "ready", integer(view->ready),
                  "backing_off", integer(view->backing_off), "leased", integer(view->leased),
                  "tenants", integer(view->tenants), "paused", view->is_paused, "blocked",
                  view->is_blocked, "gated_ms", (json_int_t)view->gated_ms, "upstreams",
                  core_name_upstreams(list->core, view->queue, upstreams, sizeof(upstreams))));
}

static void get_queues(void *context, const struct http_request *request,
                       struct http_response *response)
{
    (void)request;
    const struct broker *broker = context;
    struct queue_list list = {broker->core, json_array()};
    core_visit_queues(broker->core, add_queue, &list);
    admin_answer(response, 200, json_pack("{s:o}", "queues", list.queues));
}

static void add_worker(void *context, const struct core_worker_view *view)
{
    json_array_append_new(context,
                          json_pack("{s:s, s:i, s:i, s:i, s:b, s:b, s:I}", "name", view->name,
                                    "slots", (int)view->slots, "free", (int)view->free, "leases",
                                    (int)view->leases, "draining", view->is_draining, "set_aside",
                                    view->is_set_aside, "silent_ms", (json_int_t)view->silent_ms));
}

static void get_workers(void *context, const struct http_request *request,
                        struct http_response *response)
{
    (void)request;
    const struct broker *broker = context;
    json_t *workers = json_array();
    core_visit_workers(broker->core, broker_time(broker), add_worker, workers);
    admin_answer(response, 200, json_pack("{s:o}", "workers", workers));
}

static const char *upstream_word(Wire__UpstreamState__State state)
{
    switch (state) {
    case WIRE__UPSTREAM_STATE__STATE__UPSTREAM_CLOSED:
        return "closed";
    case WIRE__UPSTREAM_STATE__STATE__UPSTREAM_OPEN:
        return "open";
    case WIRE__UPSTREAM_STATE__STATE__UPSTREAM_HALF_OPEN:
        return "half_open";
    case WIRE__UPSTREAM_STATE__STATE__UPSTREAM_SLOW_START:
        return "slow_start";
    case _WIRE__UPSTREAM_STATE__STATE_IS_INT_SIZE:
        break;
    }
    return "";
}

static void add_upstream(void *context, const struct core_upstream_view *view)
{
    const struct core_upstream_counts *counts = &view->counts;
    json_array_append_new(
        context,
        json_pack(
            "{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I, "
            "s:I, s:f}",
            "provider", view->provider, "model", view->model, "state", upstream_word(view->state),
            "error", view->error_code, "blocked_ms", (json_int_t)view->blocked_ms,
            "requests_per_min", integer(view->requests_per_min), "tokens_per_min",
            integer(view->tokens_per_min), "pace_per_s", view->pace_per_s, "typical_ms",
            view->typical_ms, "answered_per_s", view->answered_per_s, "dispatched",
            integer(counts->dispatched), "answered", integer(counts->answered), "unavailable",
            integer(counts->failed), "rate_limited", integer(counts->rate_limited), "rejected",
            integer(counts->rejected), "probes", integer(counts->probes), "opened",
            integer(counts->opened), "cost_usd", (double)counts->cost_nanousd * NANOUSD));
}

static void get_upstreams(void *context, const struct http_request *request,
                          struct http_response *response)
{
    (void)request;
    const struct broker *broker = context;
    json_t *upstreams = json_array();
    core_visit_upstreams(broker->core, broker_time(broker), add_upstream, upstreams);
    admin_answer(response, 200, json_pack("{s:o}", "upstreams", upstreams));
}

/* ---- resetting upstreams ---- */

struct upstream_choice {
    const char *provider, *model; /* NULL: all */
    json_t *upstreams;            /* that fit, as GET shows them */
};

static void add_chosen(void *context, const struct core_upstream_view *view)
{
    struct upstream_choice *choice = context;
    if (choice->provider == NULL || (strcmp(view->provider, choice->provider) == 0 &&
                                     strcmp(view->model, choice->model) == 0)) {
        add_upstream(choice->upstreams, view);
    }
}

/* Errors: -EINVAL, already answered. */
static int read_choice(const json_t *body, struct http_response *response,
                       struct upstream_choice *ret_choice)
{
    json_error_t error;
    int all = 0;
    struct upstream_choice choice = {0};
    if (json_unpack_ex((json_t *)body, &error, 0, "{s?s, s?s, s?b}", "provider", &choice.provider,
                       "model", &choice.model, "all", &all) < 0) {
        http_error(response, 400, "%s", error.text);
        return -EINVAL;
    }
    const bool is_one = choice.provider != NULL && choice.model != NULL;
    const bool is_none = choice.provider == NULL && choice.model == NULL;
    if (all ? !is_none : !is_one) {
        http_error(response, 400,
                   "send {\"provider\": …, \"model\": …} for one upstream or {\"all\": true}");
        return -EINVAL;
    }
    *ret_choice = choice;
    return 0;
}

static void reset_chosen(struct broker *broker, struct upstream_choice *choice,
                         struct http_response *response)
{
    const struct event event = {
        .kind = EVENT_UPSTREAM_RESET,
        .as.upstream = {.provider = choice->provider, .model = choice->model},
    };
    broker_step(broker, &event);
    choice->upstreams = json_array();
    core_visit_upstreams(broker->core, broker_time(broker), add_chosen, choice);
    if (choice->provider != NULL && json_array_size(choice->upstreams) == 0) {
        json_decref(choice->upstreams);
        http_error(response, 404, "there is no model \"%s\" at a provider \"%s\" here",
                   choice->model, choice->provider);
        return;
    }
    admin_answer(response, 200, json_pack("{s:o}", "upstreams", choice->upstreams));
}

static void reset_upstreams(void *context, const struct http_request *request,
                            struct http_response *response)
{
    json_error_t error;
    json_t *body =
        json_loadb(request->body == NULL ? "" : request->body, request->body_bytes, 0, &error);
    struct upstream_choice choice;
    if (body == NULL) {
        http_error(response, 400, "the body is no JSON: %s (line %d)", error.text, error.line);
    } else if (read_choice(body, response, &choice) == 0) {
        reset_chosen(context, &choice, response);
    }
    json_decref(body);
}

static void get_pauses(void *context, const struct http_request *request,
                       struct http_response *response)
{
    (void)request;
    const struct broker *broker = context;
    admin_answer(response, 200, json_pack("{s:o}", "pauses", pauses_of(broker)));
}

static void get_config(void *context, const struct http_request *request,
                       struct http_response *response)
{
    (void)request;
    const struct broker *broker = context;
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    const int r = out == NULL ? -ENOMEM : config_write(broker->config, out);
    if (out != NULL && fclose(out) == 0 && r == 0) {
        response->body = text;
        response->body_bytes = bytes;
        response->content_type = "application/yaml";
        return;
    }
    free(text);
    http_error(response, 500, "the configuration cannot be written: %s", strerror(-r));
}

/* ---- jobs ---- */

/* Reads the id of "{id}{rest}"; answers when it is none. Returns what follows it. */
static const char *read_id(const struct http_request *request, struct http_response *response,
                           struct id *ret_id)
{
    char text[ID_TEXT_BYTES];
    const size_t length = strcspn(request->rest, "/");
    (void)snprintf(text, sizeof(text), "%.*s", (int)(length < sizeof(text) ? length : 0),
                   request->rest);
    if (id_parse(text, ret_id) < 0) {
        http_error(response, 400, "\"%s\" is no job id; an id is a UUID of 36 characters", text);
        return NULL;
    }
    return request->rest + length;
}

/*
 * Finds the job that "{id}{rest}" names; answers when there is none. Returns what follows the id.
 */
static const char *find_job(const struct broker *broker, const struct http_request *request,
                            struct http_response *response, struct core_job_view *ret_view)
{
    struct id id;
    char text[ID_TEXT_BYTES];
    const char *rest = read_id(request, response, &id);
    const char *tenant = http_query(request, "tenant");
    if (rest == NULL) {
        return NULL;
    }
    id_format(&id, text);
    if (core_view_job(broker->core, &id, broker_time(broker), ret_view) < 0 ||
        (tenant != NULL && strcmp(ret_view->tenant, tenant) != 0)) {
        http_error(response, 404,
                   "job %s is not pending here; a kept result is collected with `tiermq wait %s`",
                   text, text);
        return NULL;
    }
    return rest;
}

/* It is pending, and not at a worker. */
static bool waits(const struct broker *broker, const struct id *id)
{
    Wire__JobState state = WIRE__JOB_STATE__JOB_STATE_UNKNOWN;
    const char *worker = "";
    return core_find_job(broker->core, id, &state, &worker) == 0 &&
           state >= WIRE__JOB_STATE__JOB_STATE_QUEUED &&
           state <= WIRE__JOB_STATE__JOB_STATE_PARKED && state != WIRE__JOB_STATE__JOB_STATE_LEASED;
}

/* Also of one that is concluded, as long as it is among the latest. */
static void explain_job(const struct broker *broker, const struct id *id,
                        struct http_response *response)
{
    char text[ID_TEXT_BYTES];
    uint32_t attempt = 0;
    const char *why = core_explain(broker->core, id, &attempt);
    id_format(id, text);
    if (why == NULL && waits(broker, id)) {
        http_error(response, 404,
                   "job %s waits and has not been dispatched, so no model was chosen yet; what it "
                   "waits for: tiermq status %s",
                   text, text);
        return;
    }
    if (why == NULL) {
        http_error(
            response, 404,
            "no decision about job %s is known here: it had no choice, or was not among the "
            "latest; its answer tells as `router_reason`, which whoever has collected it has, "
            "and until then gives: tiermq wait --json %s",
            text, text);
        return;
    }
    admin_answer(
        response, 200,
        json_pack("{s:s, s:I, s:s}", "id", text, "attempt", (json_int_t)attempt, "decision", why));
}

static void get_job(void *context, const struct http_request *request,
                    struct http_response *response)
{
    struct broker *broker = context;
    struct core_job_view view;
    struct id job_id;
    const char *rest = read_id(request, response, &job_id);
    if (rest != NULL && strcmp(rest, "/explain") == 0) {
        explain_job(broker, &job_id, response);
        return;
    }
    rest = rest == NULL ? NULL : find_job(broker, request, response, &view);
    if (rest == NULL) {
        return;
    }
    if (rest[0] != '\0') {
        http_error(response, 404, "there is no \"%s\" of a job", rest);
        return;
    }
    char id[ID_TEXT_BYTES];
    char leader[ID_TEXT_BYTES];
    id_format(&view.id, id);
    id_format(&view.led_by, leader);
    inquiry_answer(
        broker, request, response,
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s?, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:I, "
                  "s:o, s:s, s:s?, s:I}",
                  "id", id, "state", name_of_state(view.state), "tenant", view.tenant, "tier",
                  view.tier, "route", view.route, "pool", view.pool, "worker", view.worker,
                  "priority", (int)view.priority, "attempts", (int)view.attempts, "attempts_max",
                  (int)view.attempts_max, "age_ms", (json_int_t)view.age_ms, "waits_ms",
                  (json_int_t)view.waits_ms, "deadline_in_ms", (json_int_t)view.deadline_in_ms,
                  "payload_bytes", (json_int_t)view.payload_bytes, "position",
                  integer(view.position), "starts_in_ms",
                  view.has_estimate ? json_integer(view.starts_in_ms) : json_null(), "why",
                  view.why, "led_by", view.has_leader ? leader : NULL, "followers",
                  integer(view.followers)),
        &view.id, false);
}

static void cancel_job(void *context, const struct http_request *request,
                       struct http_response *response)
{
    struct broker *broker = context;
    struct core_job_view view;
    const char *rest = find_job(broker, request, response, &view);
    if (rest == NULL) {
        return;
    }
    if (strcmp(rest, "/cancel") != 0) {
        http_error(response, 404, "\"%s\" cannot be done to a job; POST /v1/jobs/{id}/cancel can",
                   rest);
        return;
    }
    char id[ID_TEXT_BYTES];
    id_format(&view.id, id);
    broker_step(broker, &(struct event){.kind = EVENT_CANCEL, .as.job = {.job_id = view.id}});
    admin_answer(response, 202, json_pack("{s:s}", "cancelling", id));
}

/* ---- pause, resume, drain ---- */

struct command {
    json_t *body; /* owns the strings */
    enum pause_subject subject;
    const char *name, *reason;
};

static void command_finish(struct command *command)
{
    json_decref(command->body);
}

static bool read_subject(const char *kind, enum pause_subject *ret_subject)
{
    for (size_t i = 0; i < ARRAY_LENGTH(SUBJECTS); i++) {
        if (strcmp(kind, SUBJECTS[i]) == 0) {
            *ret_subject = (enum pause_subject)i;
            return true;
        }
    }
    return false;
}

/* Errors: -EINVAL, already answered. */
static int read_command(const struct http_request *request, struct http_response *response,
                        struct command *ret_command)
{
    json_error_t error;
    ret_command->body =
        json_loadb(request->body == NULL ? "" : request->body, request->body_bytes, 0, &error);
    if (ret_command->body == NULL) {
        http_error(response, 400, "the body is no JSON: %s (line %d)", error.text, error.line);
        return -EINVAL;
    }
    const char *kind = NULL;
    ret_command->reason = "";
    if (json_unpack_ex(ret_command->body, &error, 0, "{s:s, s:s, s?s}", "kind", &kind, "name",
                       &ret_command->name, "reason", &ret_command->reason) < 0) {
        http_error(response, 400, "%s; send {\"kind\": …, \"name\": …, \"reason\": …} with strings",
                   error.text);
        return -EINVAL;
    }
    if (!read_subject(kind, &ret_command->subject)) {
        http_error(response, 400, "kind is \"%.64s\"; it must be route, tier, tenant or worker",
                   kind);
        return -EINVAL;
    }
    if (ret_command->name[0] == '\0' || strlen(ret_command->name) > CONFIG_NAME_BYTES_MAX ||
        strlen(ret_command->reason) > TEXT_BYTES_MAX) {
        http_error(response, 400, "name must have 1 to %d bytes, reason %d at most",
                   CONFIG_NAME_BYTES_MAX, TEXT_BYTES_MAX);
        return -EINVAL;
    }
    return 0;
}

enum { NAMES_SAID = 10 };

/* The names of a kind: whether one is among them, and the first few in words. */
struct roll {
    const char *wanted;
    bool has_wanted;
    size_t length;
    char said[NAMES_SAID * (CONFIG_NAME_BYTES_MAX + 2) + sizeof(", …")];
};

static void call_name(struct roll *roll, const char *name)
{
    const size_t at = strlen(roll->said);
    roll->has_wanted |= strcmp(name, roll->wanted) == 0;
    if (roll->length <= NAMES_SAID) {
        (void)snprintf(roll->said + at, sizeof(roll->said) - at, "%s%s",
                       roll->length == 0 ? "" : ", ", roll->length == NAMES_SAID ? "…" : name);
    }
    roll->length++;
}

static void call_worker(void *context, const struct core_worker_view *view)
{
    call_name(context, view->name);
}

/* A model's own name is a route, too. */
static void call_routes(const struct config *config, struct roll *roll)
{
    call_name(roll, "auto");
    for (size_t i = 0; i < config->models_length; i++) {
        call_name(roll, config->models[i].name);
    }
    for (size_t i = 0; i < config->routes_length; i++) {
        if (strcmp(config->routes[i].name, "auto") != 0) {
            call_name(roll, config->routes[i].name);
        }
    }
}

static void call_all(const struct broker *broker, enum pause_subject subject, struct roll *roll)
{
    const struct config *config = broker->config;
    switch (subject) {
    case PAUSE_ROUTE:
        call_routes(config, roll);
        break;
    case PAUSE_TIER:
        for (size_t i = 0; i < config->tiers_length; i++) {
            call_name(roll, config->tiers[i].name);
        }
        break;
    case PAUSE_TENANT:
        for (size_t i = 0; i < config->tenants_length; i++) {
            call_name(roll, config->tenants[i].name);
        }
        break;
    case PAUSE_WORKER:
        core_visit_workers(broker->core, broker_time(broker), call_worker, roll);
        break;
    }
}

bool admin_knows(const struct broker *broker, struct http_response *response, int status,
                 enum pause_subject subject, const char *name)
{
    struct roll roll = {.wanted = name};
    call_all(broker, subject, &roll);
    if (!roll.has_wanted) {
        http_error(response, status, "there is no %s \"%.*s\" here%s%s", SUBJECTS[subject],
                   CONFIG_NAME_BYTES_MAX, name, roll.length > 0 ? ", but " : "", roll.said);
    }
    return roll.has_wanted;
}

static void carry_out(struct broker *broker, const struct http_request *request,
                      struct http_response *response, enum event_kind kind, enum pause_mode mode,
                      const char *done)
{
    CLEANUP(command_finish) struct command command = {0};
    if (read_command(request, response, &command) < 0) {
        return;
    }
    const char *subject = SUBJECTS[command.subject];
    /* A worker that has left can still be resumed, so that it is welcome when it returns. */
    const bool may_be_unknown = kind == EVENT_RESUME && command.subject == PAUSE_WORKER;
    if (!may_be_unknown && !admin_knows(broker, response, 404, command.subject, command.name)) {
        return;
    }
    const struct event event = {
        .kind = kind,
        .as.pause = {.subject = command.subject,
                     .mode = mode,
                     .name = command.name,
                     .reason = command.reason},
    };
    broker_step(broker, &event);
    admin_answer(
        response, 200,
        json_pack("{s:s, s:s, s:s}", "kind", subject, "name", command.name, "state", done));
}

static void post_pause(void *context, const struct http_request *request,
                       struct http_response *response)
{
    carry_out(context, request, response, EVENT_PAUSE, PAUSE_HOLD, "paused");
}

static void post_drain(void *context, const struct http_request *request,
                       struct http_response *response)
{
    carry_out(context, request, response, EVENT_PAUSE, PAUSE_DRAIN, "draining");
}

static void post_resume(void *context, const struct http_request *request,
                        struct http_response *response)
{
    carry_out(context, request, response, EVENT_RESUME, PAUSE_HOLD, "running");
}

/* ---- opening ---- */

static bool is_ready(void *context, const char **ret_why_not)
{
    const struct broker *broker = context;
    if (broker->is_draining) {
        *ret_why_not = "the broker is shutting down";
    } else if (broker->is_store_down) {
        *ret_why_not = "the store cannot write";
    }
    return !broker->is_draining && !broker->is_store_down;
}

static void before_metrics(void *context)
{
    struct broker *broker = context;
    struct telemetry_sources sources = {
        .queue = broker->core,
        .denials = &broker->denials,
        .config = broker->config,
        .now = broker_time(broker),
        .messages_sent = outboxes_messages(broker->outboxes),
        .answers_held = held_length(broker->held),
        .salvage_lost = broker->salvage_lost,
    };
    core_read_stats(broker->core, broker_time(broker), &sources.core);
    store_read_stats(broker->store, &sources.store);
    telemetry_collect(broker->telemetry, &sources);
}

static int add_routes(struct broker *broker)
{
    static const struct {
        const char *method, *path;
        bool changes;
        http_fn *handler;
    } routes[] = {
        {"GET", "/v1/stats", false, get_stats},
        {"GET", "/v1/queues", false, get_queues},
        {"GET", "/v1/workers", false, get_workers},
        {"GET", "/v1/pauses", false, get_pauses},
        {"GET", "/v1/upstreams", false, get_upstreams},
        {"GET", "/v1/config", false, get_config},
        {"GET", "/v1/jobs/", false, get_job},
        {"POST", "/v1/jobs/", true, cancel_job},
        {"POST", "/v1/pause", true, post_pause},
        {"POST", "/v1/resume", true, post_resume},
        {"POST", "/v1/drain", true, post_drain},
        {"POST", "/v1/upstreams/reset", true, reset_upstreams},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(routes); i++) {
        const int r = http_admin_route(broker->admin, routes[i].method, routes[i].path,
                                       routes[i].changes, routes[i].handler, broker);
        if (r < 0) {
            return r;
        }
    }
    int r = admin_dead_add_routes(broker);
    r = r < 0 ? r : admin_quality_add_routes(broker);
    r = r < 0 ? r : admin_cost_add_routes(broker);
    return r < 0 ? r : admin_cache_add_routes(broker);
}

enum exit_code admin_open(struct broker *broker)
{
    const struct http_admin_options options = {
        .address = broker->config->broker.admin,
        .metrics = telemetry_metrics(broker->telemetry),
        .is_ready = is_ready,
        .before_metrics = before_metrics,
        .context = broker,
    };
    int r = http_admin_create(broker->loop, &options, &broker->admin);
    if (r == 0) {
        r = add_routes(broker);
    }
    if (r < 0) {
        log_at(broker->log, LOG_ERROR, "broker.admin cannot be bound; is another broker running?",
               log_text("address", broker->config->broker.admin), log_text("error", strerror(-r)));
        return EXIT_ADDRESS;
    }
    return EXIT_OK;
}
