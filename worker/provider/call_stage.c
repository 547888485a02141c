#include "worker/provider/call_stage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "common/clock.h"
#include "common/loop.h"
#include "worker/attempt.h"
#include "worker/broker_link.h"
#include "worker/forward.h"
#include "worker/pipeline.h"
#include "worker/provider/limits.h"
#include "worker/provider/provider.h"
#include "worker/telemetry.h"

#define UNAVAILABLE WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE

enum { KEY_BYTES = ID_TEXT_BYTES + 17 };

/* ---- the call ---- */

static void chunk_arrived(void *context, const void *data, size_t bytes)
{
    forward_piece(context, data, bytes);
}

static void reply_arrived(void *context, struct provider_reply *reply)
{
    const struct stage_event event = {.kind = STAGE_EVENT_REPLY, .as.reply = reply};
    pipeline_resume(context, &event);
}

static struct provider *find_provider(const struct services *services, const char *name)
{
    for (size_t i = 0; i < services->providers_length; i++) {
        if (strcmp(provider_name(services->providers[i]), name) == 0) {
            return services->providers[i];
        }
    }
    return NULL;
}

/*
 * The same for every attempt of the job at this upstream, so that a provider that honours it does
 * the work once; another one elsewhere, also at the same account, since another model's answer
 * under the same key would be a conflict there.
 */
static void write_idempotency_key(const struct attempt *attempt, char ret_key[KEY_BYTES])
{
    char job[ID_TEXT_BYTES];
    id_format(&attempt->job_id, job);
    const XXH64_hash_t provider =
        XXH3_64bits(attempt->provider_name, strlen(attempt->provider_name));
    const XXH64_hash_t upstream =
        XXH3_64bits_withSeed(attempt->model, strlen(attempt->model), provider);
    (void)snprintf(ret_key, KEY_BYTES, "%s-%016" PRIx64, job, (uint64_t)upstream);
}

static enum stage_verdict call_send(const struct services *services, struct attempt *attempt)
{
    static const struct provider_handler handler = {.on_chunk = chunk_arrived,
                                                    .on_done = reply_arrived};
    char key[KEY_BYTES];
    write_idempotency_key(attempt, key);
    const struct provider_request request = {
        .operation = attempt->operation,
        .model = attempt->provider_model,
        .body = attempt->request->body.data,
        .body_bytes = attempt->request->body.len,
        .max_tokens_default = attempt->max_tokens_default,
        .stream = attempt->wants_stream,
        .idempotency_key = key,
        .deadline_ms = attempt->deadline_ms,
    };
    forward_begin(attempt, services->telemetry);
    int r = provider_start(attempt->provider, &request, &handler, attempt, &attempt->call,
                           &attempt->outcome);
    if (r == -EINVAL) {
        return STAGE_CONCLUDES;
    }
    if (r < 0) {
        outcome_set(&attempt->outcome, UNAVAILABLE, "memory", "the worker is out of memory");
        return STAGE_CONCLUDES;
    }
    attempt->report.is_made = true;
    return STAGE_WAITS;
}

/* ---- before the call ---- */

static void room_found(void *context)
{
    const struct stage_event event = {.kind = STAGE_EVENT_ROOM};
    pipeline_resume(context, &event);
}

/* In the provider's line, until the deadline. */
static enum stage_verdict wait_for_room(struct attempt *attempt)
{
    attempt->wait = (struct provider_wait){.on_turn = room_found, .context = attempt};
    provider_wait(attempt->provider, &attempt->wait);
    if (attempt->deadline_ms != INT64_MAX) {
        loop_timer_set(attempt->timer, attempt->deadline_ms);
    }
    return STAGE_WAITS;
}

static enum stage_verdict expire(struct attempt *attempt)
{
    outcome_set(&attempt->outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED, "deadline",
                "the deadline passed before the call");
    return STAGE_CONCLUDES;
}

static enum stage_verdict give_back(struct attempt *attempt, int64_t open_ms)
{
    outcome_set(&attempt->outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED, "upstream_open",
                "%s at %s has failed since this was dispatched", attempt->model,
                attempt->provider_name);
    attempt->outcome.retry_after_ms = open_ms;
    return STAGE_CONCLUDES;
}

static enum stage_verdict call_when_possible(const struct services *services,
                                             struct attempt *attempt)
{
    const int64_t now_ms = clock_monotonic_ms();
    if (now_ms >= attempt->deadline_ms) {
        return expire(attempt);
    }
    const int64_t open_ms =
        attempt->is_probe ? 0
                          : broker_link_upstream_open_ms(attempt->broker, attempt->provider_name,
                                                         attempt->model, now_ms);
    if (open_ms > 0) {
        return give_back(attempt, open_ms);
    }
    if (provider_is_full(attempt->provider) && !attempt->is_probe) {
        return wait_for_room(attempt);
    }
    return call_send(services, attempt);
}

static enum stage_verdict call_start(void *module, struct attempt *attempt)
{
    const struct services *services = module;
    attempt->provider = find_provider(services, attempt->provider_name);
    if (attempt->provider == NULL) {
        outcome_set(&attempt->outcome, UNAVAILABLE, "no_provider",
                    "provider \"%s\" was added after this worker started: restart it",
                    attempt->provider_name);
        return STAGE_CONCLUDES;
    }
    return call_when_possible(services, attempt);
}

/* ---- after the call ---- */

static void report_reply(struct attempt *attempt, const struct provider_reply *reply)
{
    struct call_report *report = &attempt->report;
    report->outcome = reply->outcome.kind;
    report->code = reply->outcome.code;
    report->retry_after_ms = reply->outcome.retry_after_ms;
    report->http_status = (uint32_t)reply->http_status;
    report->call_ms = reply->call_ms;
    report->has_limits = limits_summarise(reply->limits, &report->limits);
}

static enum stage_verdict end_stream(struct attempt *attempt)
{
    attempt->is_answer_read = !forward_end(attempt);
    return attempt->is_answer_read ? STAGE_WAITS : STAGE_NEXT;
}

static enum stage_verdict call_replied(struct services *services, struct attempt *attempt,
                                       struct provider_reply *reply)
{
    attempt->call = NULL; /* ends with this event */
    attempt->outcome = reply->outcome;
    attempt->http_status = reply->http_status;
    attempt->call_ms = reply->call_ms;
    attempt->first_token_ms = reply->first_token_ms;
    report_reply(attempt, reply);
    telemetry_call(services->telemetry, attempt);
    if (reply->outcome.kind != WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED) {
        return STAGE_CONCLUDES;
    }
    attempt->body = reply->body;
    reply->body = (struct bytes){0};
    attempt->answer = json_incref(reply->answer);
    attempt->may_be_filled = attempt->may_be_filled && !outcome_is_filtered(reply->answer);
    return end_stream(attempt);
}

static enum stage_verdict call_resume(void *module, struct attempt *attempt,
                                      const struct stage_event *event)
{
    if (event->kind == STAGE_EVENT_REPLY) {
        return call_replied(module, attempt, event->as.reply);
    }
    if (event->kind == STAGE_EVENT_ROOM) {
        loop_timer_stop(attempt->timer);
        return call_when_possible(module, attempt);
    }
    if (attempt->is_answer_read) {
        return end_stream(attempt);
    }
    if (attempt->call == NULL) {
        provider_leave(attempt->provider, &attempt->wait);
        return expire(attempt);
    }
    forward_due(attempt);
    return STAGE_WAITS;
}

/* A call that was begun may have used the provider's limits, and money: it is reported. */
static void call_abandon(void *module, struct attempt *attempt)
{
    const struct services *services = module;
    if (attempt->call == NULL) {
        provider_leave(attempt->provider, &attempt->wait);
        return;
    }
    attempt->report.outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED;
    attempt->report.code = "cancelled";
    attempt->report.call_ms = attempt->call_ms = provider_call_ms(attempt->call);
    provider_cancel(&attempt->call);
    telemetry_call(services->telemetry, attempt);
}

struct stage call_stage(struct services *services)
{
    return (struct stage){
        .name = "call",
        .module = services,
        .start = call_start,
        .resume = call_resume,
        .abandon = call_abandon,
    };
}
