#include "broker/core/submit.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "broker/core/cache_log.h"
#include "broker/core/client.h"
#include "broker/core/conclude.h"
#include "broker/core/decision.h"
#include "broker/core/estimate.h"
#include "broker/core/gate.h"
#include "broker/core/keys.h"
#include "broker/core/lane.h"
#include "broker/core/result.h"

enum {
    STORE_RETRY_AFTER_MS = 1000,    /* the journal tries again about as often */
    DRAINING_RETRY_AFTER_MS = 5000, /* a restart, or an operator's patience */
    ALIASES_MAX = 65536,
    DRAINED_SHARE = 64, /* of a full queue: when that much has drained it is worth to try again */
};
#define DEADLINE_MOST_MS (INT64_C(1) << 40)

/* What a submission asks for, resolved. */
struct request {
    const struct event_submit *submit;
    uint64_t peer;
    struct tenant *tenant;
    struct tier *tier;
    struct name *route;
    struct pool *pool;
    int64_t deadline_in_ms;
    struct job_needs needs;
    uint8_t key[KEY_HASH_BYTES];
};

struct refusal {
    Wire__RejectReason reason;
    int64_t retry_after_ms;
    const char *text;
};

static const struct refusal ACCEPTABLE = {.reason = WIRE__REJECT_REASON__REJECT_NONE};

static struct refusal refuse(Wire__RejectReason reason, int64_t retry_after_ms, const char *text)
{
    return (struct refusal){.reason = reason, .retry_after_ms = retry_after_ms, .text = text};
}

static void send_rejected(struct core *core, uint64_t peer, const struct id *job_id,
                          struct tier *tier, const struct refusal *refusal)
{
    struct effect *effect = effects_add(core->effects, EFFECT_REJECTED, peer, 0);
    effect->as.rejected.job_id = *job_id;
    effect->as.rejected.reason = refusal->reason;
    effect->as.rejected.text = refusal->text;
    effect->as.rejected.retry_after_ms = refusal->retry_after_ms;
    effect->as.rejected.tier = tier == NULL ? UINT8_MAX : tier->index;
    if (tier != NULL) {
        tier->stats.rejected[refusal->reason]++;
    }
}

static void send_accepted(struct core *core, uint64_t peer, const struct id *job_id,
                          bool is_duplicate, const struct id *known_as, uint64_t batch)
{
    struct effect *effect = effects_add(core->effects, EFFECT_ACCEPTED, peer, batch);
    effect->as.accepted.job_id = *job_id;
    effect->as.accepted.duplicate = is_duplicate;
    effect->as.accepted.has_known_as = known_as != NULL;
    if (known_as != NULL) {
        effect->as.accepted.known_as = *known_as;
    }
}

/* ---- known already ---- */

static void send_conflict(struct core *core, const struct request *request, const char *text)
{
    const struct refusal refusal = refuse(WIRE__REJECT_REASON__REJECT_CONFLICT, 0, text);
    send_rejected(core, request->peer, &request->submit->job_id, request->tier, &refusal);
}

/*
 * A submission that turned out to be a job which is on its way to the disk, by its idempotency key:
 * should the disk fail, it is refused by the id that its client knows.
 */
struct alias {
    struct list_link link;
    struct id job_id, submitted_as;
    uint64_t peer, batch;
    bool is_only; /* the peer does not wait for the job by its own id as well */
};

/* Without memory, or beyond the bound, the refusal names the job by its own id. */
static void add_alias(struct core *core, const struct request *request, const struct job *job)
{
    struct alias *alias = core->aliases.length < ALIASES_MAX ? malloc(sizeof(*alias)) : NULL;
    if (alias != NULL) {
        *alias = (struct alias){
            .job_id = job->id,
            .submitted_as = request->submit->job_id,
            .peer = request->peer,
            .batch = job->at.accept_batch,
            .is_only = !waiter_is(job, request->peer),
        };
        list_append(&core->aliases, &alias->link);
    }
}

void submit_forget_aliases(struct core *core, uint64_t batch_min, uint64_t batch_max)
{
    struct list_link *link = core->aliases.head.next;
    while (link != &core->aliases.head) {
        struct alias *alias = CONTAINER_OF(link, struct alias, link);
        link = link->next;
        if (alias->batch >= batch_min && alias->batch <= batch_max) {
            list_remove(&core->aliases, &alias->link);
            free(alias);
        }
    }
}

/* Who reads the job's stream already goes on, also when this submission reads none of it. */
static void wait_for(struct core *core, struct job *job, const struct request *request)
{
    const bool reads = request->submit->stream && !request->submit->stream_unread;
    if (request->submit->stream_unread && waiter_streams(job, request->peer)) {
        return;
    }
    waiter_add(core, job, request->peer, reads, request->submit->stream_chunks);
}

/* The job that is pending under `job_id`: this client waits for it now. */
static void join_pending(struct core *core, const struct request *request, struct job *job,
                         const struct id *known_as)
{
    const uint64_t batch = job->place == PLACE_ACCEPTING ? job->at.accept_batch : 0;
    if (known_as != NULL && batch > 0) {
        add_alias(core, request, job);
    }
    wait_for(core, job, request);
    send_accepted(core, request->peer, &request->submit->job_id, true, known_as, batch);
    job_tier(job)->stats.duplicates++;
}

static void join_concluded(struct core *core, const struct request *request,
                           const struct id *job_id, const struct id *known_as)
{
    const struct client *client = client_find(core, request->peer);
    if (client == NULL) {
        return; /* nobody waits */
    }
    send_accepted(core, request->peer, &request->submit->job_id, true, known_as,
                  result_promised_batch(core, job_id));
    if (request->tier != NULL) {
        request->tier->stats.duplicates++;
    }
    result_send(core, client, job_id);
}

/* The same job again, by its id. */
static bool is_known_id(struct core *core, const struct request *request)
{
    const struct id *job_id = &request->submit->job_id;
    struct job *job = job_find(core, job_id);
    struct concluded_entry *entry = concluded_find(&core->concluded, job_id);
    const bool is_theirs =
        (job != NULL && job_tenant(job) != request->tenant) ||
        (job == NULL && entry != NULL && entry->tenant != request->tenant->name->index);
    if (is_theirs) {
        send_conflict(core, request,
                      "job_id: this id belongs to a job of another tenant; make a new one");
        return true;
    }
    if (job != NULL && job_is_pending(job)) {
        join_pending(core, request, job, NULL);
        return true;
    }
    if (job == NULL && entry != NULL && entry->is_shed) {
        result_reopen(core, entry);
        return false;
    }
    if (job != NULL || entry != NULL) {
        join_concluded(core, request, job_id, NULL);
        return true;
    }
    return false;
}

/* The same job again, by the tenant's own key. */
static bool is_known_key(struct core *core, struct request *request)
{
    if (request->submit->idempotency_key[0] == '\0') {
        return false;
    }
    key_make(request->tenant->name->text, request->submit->idempotency_key, request->key);
    const struct idempotency *key = key_find(core, request->tenant->name->index, request->key);
    if (key == NULL) {
        return false;
    }
    const struct id known_as = key->job_id;
    struct job *job = job_find(core, &known_as);
    struct concluded_entry *entry = concluded_find(&core->concluded, &known_as);
    if (job == NULL && entry != NULL && entry->is_shed) {
        result_release_key(core, entry);
        return false;
    }
    if (job != NULL && job_is_pending(job)) {
        join_pending(core, request, job, &known_as);
    } else {
        join_concluded(core, request, &known_as, &known_as);
    }
    return true;
}

/* ---- admissible? ---- */

static struct refusal resolve(struct core *core, struct request *request)
{
    const struct event_submit *submit = request->submit;
    struct name *tier = names_find(&core->tiers, submit->tier);
    if (tier == NULL || !tier->is_configured) {
        return refuse(WIRE__REJECT_REASON__REJECT_UNKNOWN_TIER, 0,
                      effects_format(core->effects,
                                     "tier: \"%.64s\" is not configured; add it under tiers",
                                     submit->tier));
    }
    request->tier = &core->tier[tier->index];
    if (!request->tenant->name->is_configured) { /* since its hello */
        return refuse(WIRE__REJECT_REASON__REJECT_UNKNOWN_TENANT, 0,
                      "this tenant is configured no more");
    }
    request->route = names_find(&core->routes, submit->route);
    if (request->route == NULL || !request->route->is_configured) {
        return refuse(
            WIRE__REJECT_REASON__REJECT_UNKNOWN_ROUTE, 0,
            effects_format(
                core->effects,
                "route: \"%.64s\" is no configured model or alias; add it under models or routes",
                submit->route));
    }
    const struct name *pool =
        submit->pool[0] == '\0' ? request->tier->pool : names_find(&core->pools, submit->pool);
    if (pool == NULL || !pool->is_configured) {
        return refuse(WIRE__REJECT_REASON__REJECT_UNKNOWN_POOL, 0,
                      effects_format(core->effects,
                                     "pool: \"%.64s\" is not configured; add it under pools",
                                     submit->pool));
    }
    request->pool = &core->pool[pool->index];
    return ACCEPTABLE;
}

/* 1 to 255; 0: nothing is known. The features of a newer client are cut off, those of an older one
 * are 0. */
static uint8_t complexity_of(const struct core *core, const struct event_submit *submit)
{
    uint8_t features[COMPLEXITY_FEATURES] = {0};
    bool says_something = false;
    if (submit->complexity > 0) {
        return (uint8_t)submit->complexity;
    }
    for (size_t i = 0; i < COMPLEXITY_FEATURES && i < submit->features_length; i++) {
        features[i] = submit->features[i];
        says_something = says_something || features[i] > 0;
    }
    const double score = complexity_score(features, &core->complexity);
    return says_something ? (uint8_t)(1 + score * (UINT8_MAX - 1)) : 0;
}

/* What its model has to be like. */
static struct refusal resolve_needs(struct core *core, struct request *request)
{
    const struct event_submit *submit = request->submit;
    const uint8_t residency = decision_residency(core, submit->residency);
    if (!decision_residency_is_somewhere(core, residency)) {
        return refuse(WIRE__REJECT_REASON__REJECT_INVALID, 0,
                      effects_format(core->effects,
                                     "residency: no provider has the label \"%.64s\"; add it under "
                                     "providers[].residency",
                                     submit->residency));
    }
    if ((submit->abilities & ~(uint32_t)ABILITIES_ALL) != 0) {
        return refuse(WIRE__REJECT_REASON__REJECT_INVALID, 0,
                      effects_format(core->effects,
                                     "abilities: 0x%x has unknown bits; this broker knows 0x%x",
                                     submit->abilities, (unsigned)ABILITIES_ALL));
    }
    if (submit->complexity > UINT8_MAX) {
        return refuse(WIRE__REJECT_REASON__REJECT_INVALID, 0, "complexity: must be at most 255");
    }
    request->needs = (struct job_needs){
        .complexity = complexity_of(core, submit),
        .abilities = (uint8_t)submit->abilities,
        .residency = residency,
        .input_size = job_input_size(submit->input_tokens),
    };
    return ACCEPTABLE;
}

static struct refusal check_fields(const struct core *core, const struct request *request)
{
    const struct event_submit *submit = request->submit;
    if (submit->priority > 9) {
        return refuse(WIRE__REJECT_REASON__REJECT_INVALID, 0, "priority: must be between 0 and 9");
    }
    if (submit->payload == NULL) {
        return refuse(WIRE__REJECT_REASON__REJECT_INVALID, 0, "payload: is missing");
    }
    if (blob_bytes(submit->payload) > core->limits.payload_bytes_max) {
        return refuse(WIRE__REJECT_REASON__REJECT_TOO_LARGE, 0,
                      "payload: is larger than broker.payload_bytes_max");
    }
    if (submit->attempts_max > UINT16_MAX) {
        return refuse(WIRE__REJECT_REASON__REJECT_INVALID, 0,
                      "attempts_max: must be at most 65535");
    }
    if (submit->delay_ms < 0 || submit->delay_ms > UINT32_MAX) {
        return refuse(WIRE__REJECT_REASON__REJECT_INVALID, 0,
                      "delay_ms: must be between 0 and 49 days");
    }
    if (!decision_task_is_good(submit->task)) {
        return refuse(WIRE__REJECT_REASON__REJECT_INVALID, 0, "task: must be at most 64 bytes");
    }
    return ACCEPTABLE;
}

/*
 * An id whose own time is not after the horizon may be that of a job which was concluded and
 * forgotten.
 */
static struct refusal check_age(const struct core *core, const struct request *request)
{
    if (id_unix_ms(&request->submit->job_id) <= core->concluded.horizon_unix_ms) {
        return refuse(WIRE__REJECT_REASON__REJECT_TOO_OLD, 0,
                      "job_id: its time is before the deduplication window; make a new one");
    }
    return ACCEPTABLE;
}

/* It passes, but no rate says when. */
static struct refusal refuse_for_now(struct core *core, Wire__RejectReason reason, int64_t wait_ms,
                                     const char *text)
{
    return refuse(reason, estimate_retry_after_ms(core, wait_ms), text);
}

static struct refusal check_open(struct core *core, const struct request *request)
{
    if (core->is_draining) {
        return refuse_for_now(core, WIRE__REJECT_REASON__REJECT_DRAINING, DRAINING_RETRY_AFTER_MS,
                              "the broker is shutting down");
    }
    if (!request->tenant->has_rules) { /* a worker's job: a client would have been refused */
        return refuse_for_now(core, WIRE__REJECT_REASON__REJECT_QUEUE_FULL, RETRY_AFTER_MOST_MS,
                              CLIENT_TENANT_HAS_NO_RULES);
    }
    if (request->route->is_refused) {
        return refuse_for_now(core, WIRE__REJECT_REASON__REJECT_PAUSED, DRAINING_RETRY_AFTER_MS,
                              "an operator drains this route");
    }
    if (request->tier->name->is_refused) {
        return refuse_for_now(core, WIRE__REJECT_REASON__REJECT_PAUSED, DRAINING_RETRY_AFTER_MS,
                              "an operator drains this tier");
    }
    if (request->tenant->name->is_refused) {
        return refuse_for_now(core, WIRE__REJECT_REASON__REJECT_PAUSED, DRAINING_RETRY_AFTER_MS,
                              "an operator drains this tenant");
    }
    if (core->store_is_down && request->tier->is_durable) {
        return refuse_for_now(core, WIRE__REJECT_REASON__REJECT_STORAGE, STORE_RETRY_AFTER_MS,
                              "the broker cannot write to its disk now");
    }
    return ACCEPTABLE;
}

/* Until a part of what is there has gone: of the tier, or of the flow's tenant. */
static struct refusal refuse_full(struct core *core, const struct request *request,
                                  const struct flow *flow, uint64_t jobs, const char *text)
{
    const int64_t wait_ms = estimate_drain_ms(core, request->tier, flow, jobs / DRAINED_SHARE + 1);
    return refuse_for_now(core, WIRE__REJECT_REASON__REJECT_QUEUE_FULL, wait_ms, text);
}

static struct refusal check_bounds(struct core *core, const struct request *request,
                                   const struct flow *flow)
{
    const struct tier *tier = request->tier;
    const struct tenant *tenant = request->tenant;
    const uint64_t bytes = blob_bytes(request->submit->payload);
    if (bytes > tier->bytes_max || bytes > tenant->bytes_max) {
        return refuse(WIRE__REJECT_REASON__REJECT_TOO_LARGE, 0,
                      bytes > tier->bytes_max ? "payload: is larger than tiers.bytes_max"
                                              : "payload: is larger than tenants.bytes_max");
    }
    if (tier->jobs >= tier->jobs_max) {
        return refuse_full(core, request, NULL, tier->jobs,
                           "the tier's queue is full: tiers.jobs_max");
    }
    if (tier->bytes + bytes > tier->bytes_max) {
        return refuse_full(core, request, NULL, tier->jobs,
                           "the tier's queue is full: tiers.bytes_max");
    }
    if (tenant->jobs >= tenant->jobs_max) {
        return refuse_full(core, request, flow, tenant->jobs,
                           "the tenant's queue is full: tenants.jobs_max");
    }
    if (tenant->bytes + bytes > tenant->bytes_max) {
        return refuse_full(core, request, flow, tenant->jobs,
                           "the tenant's queue is full: tenants.bytes_max");
    }
    return ACCEPTABLE;
}

static struct refusal check_deadline(struct core *core, struct request *request,
                                     const struct flow *flow)
{
    const struct event_submit *submit = request->submit;
    if (submit->deadline_in_ms < 0) {
        return refuse(WIRE__REJECT_REASON__REJECT_DEADLINE, 0,
                      "deadline_in_ms: the deadline has passed");
    }
    request->deadline_in_ms =
        submit->deadline_in_ms > 0 ? submit->deadline_in_ms : request->tier->deadline_ms;
    if (request->deadline_in_ms > DEADLINE_MOST_MS) {
        request->deadline_in_ms = DEADLINE_MOST_MS;
    }
    if (submit->delay_ms > 0 && submit->delay_ms >= request->deadline_in_ms) {
        return refuse(WIRE__REJECT_REASON__REJECT_DEADLINE, 0,
                      "delay_ms: is not shorter than the deadline");
    }
    const int64_t wait_ms = queue_expected_wait_ms(flow, submit->priority, core->now_ms);
    if (wait_ms > request->deadline_in_ms) {
        return refuse_for_now(
            core, WIRE__REJECT_REASON__REJECT_DEADLINE, wait_ms - request->deadline_in_ms,
            effects_format(core->effects,
                           "the estimated wait is %lld ms, the deadline is in %lld ms",
                           (long long)wait_ms, (long long)request->deadline_in_ms));
    }
    return ACCEPTABLE;
}

static bool is_refusal(const struct refusal *refusal)
{
    return refusal->reason != WIRE__REJECT_REASON__REJECT_NONE;
}

static struct refusal check(struct core *core, struct request *request)
{
    struct refusal refusal = check_fields(core, request);
    if (!is_refusal(&refusal)) {
        refusal = check_age(core, request);
    }
    if (!is_refusal(&refusal)) {
        refusal = resolve_needs(core, request);
    }
    return is_refusal(&refusal) ? refusal : check_open(core, request);
}

/* ---- accepting ---- */

/* As struct job has it. */
static uint8_t prefix_of(const struct event_submit *submit)
{
    return submit->prefix == 0 ? 0 : (uint8_t)(1 + submit->prefix % JOB_PREFIXES);
}

static void fill(struct core *core, struct job *job, const struct request *request)
{
    const struct event_submit *submit = request->submit;
    job->submitted_ms = core->now_ms;
    job->deadline_ms = core->now_ms + request->deadline_in_ms;
    job->delay_ms = (uint32_t)submit->delay_ms;
    job->payload_bytes = (uint32_t)blob_bytes(submit->payload);
    job->estimated_tokens = submit->estimated_tokens;
    job->max_tokens =
        (submit->max_tokens < JOB_OUTPUT_TOKENS_MAX ? submit->max_tokens : JOB_OUTPUT_TOKENS_MAX) &
        JOB_OUTPUT_TOKENS_MAX;
    job->prefix = prefix_of(submit);
    job->attempts_max =
        (uint16_t)(submit->attempts_max > 0 ? submit->attempts_max : request->tier->attempts_max);
    job->needs = request->needs;
    job->priority = submit->priority & 0xf;
    job->flags = (uint16_t)((submit->stream ? JOB_STREAM : 0) |
                            (submit->discard_result ? JOB_DISCARD_RESULT : 0) |
                            (request->peer == 0 ? JOB_OF_WORKER : 0) |
                            (request->tier->is_durable ? JOB_DURABLE : 0) |
                            (submit->idempotency_key[0] != '\0' ? JOB_HAS_KEY : 0));
    if (submit->canonical_key != NULL) {
        memcpy(job->canonical_key, submit->canonical_key, sizeof(job->canonical_key));
        job->flags |= JOB_HAS_CANONICAL;
    }
    if (submit->trace_parent != NULL) {
        memcpy(job->trace_parent, submit->trace_parent, sizeof(job->trace_parent));
        job->flags |= JOB_HAS_TRACE;
    }
    job_keep_payload(core, job, submit->payload);
}

static void accept_durable(struct core *core, struct job *job, const struct request *request)
{
    job->at.accept_batch = effects_batch(core->effects);
    job_move(core, job, PLACE_ACCEPTING);
    conclude_write_new(core, job);
    send_accepted(core, request->peer, &job->id, false, NULL, job->at.accept_batch);
}

static void accept(struct core *core, struct job *job, const struct request *request)
{
    job->sequence = ++core->sequence;
    wait_for(core, job, request);
    request->tier->stats.accepted++;
    if (request->tier->is_durable) {
        accept_durable(core, job, request);
        return;
    }
    job_wait_until(core, job, core->now_ms + job->delay_ms);
    send_accepted(core, request->peer, &job->id, false, NULL, 0);
}

static struct refusal refuse_memory(struct core *core)
{
    return refuse_for_now(core, WIRE__REJECT_REASON__REJECT_QUEUE_FULL, RETRY_AFTER_UNKNOWN_MS,
                          "the broker is out of memory");
}

static struct refusal refuse_hopeless(struct core *core, const struct job *job)
{
    struct decision decision;
    decision_make(core, job, &decision);
    return refuse(WIRE__REJECT_REASON__REJECT_INVALID, 0, decision_complaint(core, &decision));
}

static struct refusal check_budget(struct core *core, const struct job *job)
{
    const char *text;
    int64_t wait_ms;
    return budget_admits(core, job, &text, &wait_ms)
               ? ACCEPTABLE
               : refuse(WIRE__REJECT_REASON__REJECT_BUDGET, wait_ms, text);
}

static struct refusal admit(struct core *core, struct request *request)
{
    assert(request->tier != NULL);
    struct refusal refusal = check(core, request);
    if (is_refusal(&refusal)) {
        return refusal;
    }
    struct lane *lane = lane_of(core, request->tier, request->pool);
    struct flow *flow = lane_flow(core, lane, request->route, request->tenant);
    if (flow == NULL || !effects_reserve(core->effects, 4)) {
        return refuse_memory(core);
    }
    refusal = check_bounds(core, request, flow);
    if (!is_refusal(&refusal)) {
        gate_look_at(core, flow->queue);
        refusal = check_deadline(core, request, flow);
    }
    if (is_refusal(&refusal)) {
        return refusal;
    }
    const bool has_key = request->submit->idempotency_key[0] != '\0';
    struct job *job = job_create(core, &request->submit->job_id, flow);
    if (job == NULL) {
        return refuse_memory(core);
    }
    fill(core, job, request);
    if (decision_is_hopeless(core, job)) {
        refusal = refuse_hopeless(core, job);
        job_destroy(core, &job);
        return refusal;
    }
    refusal = check_budget(core, job);
    if (is_refusal(&refusal)) {
        job_destroy(core, &job);
        return refusal;
    }
    if (has_key && key_add(core, request->tenant->name->index, request->key, &job->id) < 0) {
        job_destroy(core, &job);
        return refuse_memory(core);
    }
    /* What is refused registers nothing. */
    job->task = decision_task(core, request->tenant, request->submit->task);
    accept(core, job, request);
    return ACCEPTABLE;
}

/* NULL: a client that has not said hello, which is told; or no tenant of this name. */
static struct tenant *tenant_of(struct core *core, const struct event *event)
{
    if (event->peer != 0) {
        const struct client *client = client_expect(core, event->peer);
        return client == NULL ? NULL : client->tenant;
    }
    const struct name *name = names_find(&core->tenants, event->as.submit.tenant);
    return name == NULL ? NULL : core->tenant[name->index];
}

void submit(struct core *core, const struct event *event)
{
    struct tenant *tenant = tenant_of(core, event);
    if (tenant == NULL) {
        return;
    }
    struct request request = {.submit = &event->as.submit, .peer = event->peer, .tenant = tenant};
    struct refusal refusal = resolve(core, &request);
    if (request.tier != NULL) {
        request.tier->stats.submitted++;
    }
    if (is_known_id(core, &request) || is_known_key(core, &request)) {
        return;
    }
    if (!is_refusal(&refusal)) {
        refusal = admit(core, &request);
    }
    if (is_refusal(&refusal)) {
        send_rejected(core, event->peer, &request.submit->job_id, request.tier, &refusal);
    }
}

/* ---- the store ---- */

static struct job *first_accepting(const struct core *core)
{
    struct list_link *link = list_first(&core->accepting);
    return link == NULL ? NULL : CONTAINER_OF(link, struct job, link);
}

/*
 * Durable now: it may be dispatched. When much is waiting in memory already, its payload stays on
 * disk only.
 */
static void become_ready(struct core *core, struct job *job)
{
    job->flags |= JOB_ON_DISK;
    if (core->payload_memory_bytes > core->limits.memory_payload_bytes_max) {
        job_drop_payload(core, job);
    }
    job_wait_until(core, job, job->submitted_ms + job->delay_ms);
}

void submit_durable(struct core *core, const struct event *event)
{
    const uint64_t batch = event->as.durable.batch;
    core->batch_durable = batch > core->batch_durable ? batch : core->batch_durable;
    struct job *job;
    while ((job = first_accepting(core)) != NULL && job->at.accept_batch <= batch) {
        become_ready(core, job);
    }
    submit_forget_aliases(core, 0, batch);
    cache_log_durable(core);
}

static void send_storage_rejected(struct core *core, uint64_t peer, const struct job *job,
                                  const struct id *job_id)
{
    const struct refusal refusal =
        refuse_for_now(core, WIRE__REJECT_REASON__REJECT_STORAGE, STORE_RETRY_AFTER_MS,
                       "the broker could not write it to its disk");
    send_rejected(core, peer, job_id, job_tier(job), &refusal);
}

static void reject_waiter(struct core *core, uint64_t peer, bool streams, const void *context)
{
    (void)streams;
    const struct job *job = context;
    bool is_by_alias = false;
    for (struct list_link *link = core->aliases.head.next; link != &core->aliases.head;
         link = link->next) {
        const struct alias *alias = CONTAINER_OF(link, struct alias, link);
        if (alias->peer == peer && id_equal(&alias->job_id, &job->id)) {
            send_storage_rejected(core, peer, job, &alias->submitted_as);
            is_by_alias |= alias->is_only;
        }
    }
    if (!is_by_alias) {
        send_storage_rejected(core, peer, job, &job->id);
    }
}

/* It may be on the disk or get there yet, when the store tries again: the next batch deletes it. */
static void take_back(struct core *core, struct job *job)
{
    waiters_visit(core, job, reject_waiter, job);
    job_tier(job)->stats.accepted--;
    core_delete(core, STORE_JOBS, job->id.bytes, ID_BYTES);
    core_delete(core, STORE_PAYLOADS, job->id.bytes, ID_BYTES);
    key_forget(core, &job->id);
    job_destroy(core, &job);
}

void submit_store_down(struct core *core, const struct event *event)
{
    const char *why = effects_text(
        core->effects, event->as.store_down.why == NULL ? "" : event->as.store_down.why);
    core->store_is_down = true;
    /* The shell forgets those that it holds; of this turn it holds none yet. */
    effects_forget_accepted(core->effects, event->as.store_down.first_batch);
    struct list_link *link = core->accepting.head.next;
    while (link != &core->accepting.head) {
        struct job *job = CONTAINER_OF(link, struct job, link);
        link = link->next;
        if (job->at.accept_batch >= event->as.store_down.first_batch) {
            take_back(core, job);
        }
    }
    submit_forget_aliases(core, event->as.store_down.first_batch, UINT64_MAX);
    core_note(core, NOTE_STORE_DOWN, NULL, "store", why, (int64_t)event->as.store_down.first_batch);
    core_publish(core, WIRE__EVENT__KIND__EVENT_STORE_DOWN, "store", "store", why);
}

void submit_store_up(struct core *core)
{
    core->store_is_down = false;
    core_note(core, NOTE_STORE_UP, NULL, "store", "", 0);
    core_publish(core, WIRE__EVENT__KIND__EVENT_STORE_UP, "store", "store", "");
}
