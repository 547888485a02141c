#include "worker/provider/call_stage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "common/clock.h"
#include "common/loop.h"
#include "worker/account/account_stage.h"
#include "worker/attempt.h"
#include "worker/broker_link.h"
#include "worker/forward.h"
#include "worker/pipeline.h"
#include "worker/provider/hedge.h"
#include "worker/provider/limits.h"
#include "worker/provider/provider.h"
#include "worker/route/router.h"
#include "worker/telemetry.h"

#define UNAVAILABLE WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE
#define ANSWERED    WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED
#define CANCELLED   WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED
#define REFUSED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_REFUSED

/* ---- two calls ---- */

/* The other one is quicker, or has been given an answer that holds for both. */
static void overtake(struct telemetry *telemetry, const struct attempt *attempt,
                     const char *provider, const char *model, struct provider_call **call,
                     struct call_report *report)
{
    report->outcome = CANCELLED;
    report->code = "overtaken";
    report->call_ms = provider_call_ms(*call);
    provider_cancel(call);
    telemetry_call(telemetry, attempt, provider, model, report);
}

static void overtake_other(struct telemetry *telemetry, struct attempt *attempt)
{
    struct hedge *hedge = attempt->hedge;
    if (hedge_is_running(attempt)) {
        overtake(telemetry, attempt, hedge->provider_name, hedge->model, &hedge->call,
                 &hedge->report);
    }
}

/* ---- the call ---- */

/* About a token each. */
static uint32_t count_pieces(const char *data, size_t bytes)
{
    static const char mark[] = "data: {";
    uint32_t pieces = 0;
    const char *at = data;
    const char *end = data + bytes;
    while ((at = memmem(at, (size_t)(end - at), mark, sizeof(mark) - 1)) != NULL) {
        at += sizeof(mark) - 1;
        pieces++;
    }
    return pieces;
}

static void chunk_arrived(void *context, const void *data, size_t bytes)
{
    struct attempt *attempt = context;
    overtake_other(attempt->telemetry, attempt);
    attempt->report.pieces += count_pieces(data, bytes);
    forward_piece(attempt, data, bytes);
}

/* Its first piece decides between the two: from then on the attempt is about this call. */
static void hedge_chunk_arrived(void *context, const void *data, size_t bytes)
{
    struct hedge *hedge = context;
    struct attempt *attempt = hedge->attempt;
    if (!hedge->has_changed_places) {
        hedge_change_places(attempt);
        overtake_other(attempt->telemetry, attempt);
    }
    attempt->report.pieces += count_pieces(data, bytes);
    forward_piece(attempt, data, bytes);
}

static void reply_arrived(void *context, struct provider_reply *reply)
{
    const struct stage_event event = {.kind = STAGE_EVENT_REPLY, .as.reply = reply};
    pipeline_resume(context, &event);
}

static void hedge_reply_arrived(void *context, struct provider_reply *reply)
{
    const struct hedge *hedge = context;
    const struct stage_event event = {.kind = STAGE_EVENT_HEDGE_REPLY, .as.reply = reply};
    pipeline_resume(hedge->attempt, &event);
}

struct provider *call_find_provider(const struct services *services, const char *name)
{
    for (size_t i = 0; i < services->providers_length; i++) {
        if (strcmp(provider_name(services->providers[i]), name) == 0) {
            return services->providers[i];
        }
    }
    return NULL;
}

void call_write_key(const struct id *job_id, const char *provider_name, const char *model,
                    uint64_t seed, char ret_key[CALL_KEY_BYTES])
{
    char job[ID_TEXT_BYTES];
    id_format(job_id, job);
    const XXH64_hash_t provider = XXH3_64bits_withSeed(provider_name, strlen(provider_name), seed);
    const XXH64_hash_t upstream = XXH3_64bits_withSeed(model, strlen(model), provider);
    (void)snprintf(ret_key, CALL_KEY_BYTES, "%s-%016" PRIx64, job, (uint64_t)upstream);
}

/* A prompt that was made shorter in another way, as after a reload, would be a conflict, too. */
static void write_own_key(const struct attempt *attempt, const char *provider_name,
                          const char *model, char ret_key[CALL_KEY_BYTES])
{
    const struct bytes *body = &attempt->optimised_body;
    const XXH64_hash_t sent =
        attempt->optimised.is_changed ? XXH3_64bits(body->data, body->length) : 0;
    call_write_key(&attempt->job_id, provider_name, model, sent, ret_key);
}

const char *call_prefix_key(const struct services *services, const struct attempt *attempt,
                            const char *provider_name)
{
    const struct config_provider *provider = config_find_provider(services->config, provider_name);
    return provider != NULL && provider->prompt_cache == SWITCH_ON &&
                   attempt->optimised.prefix_key[0] != '\0'
               ? attempt->optimised.prefix_key
               : NULL;
}

static struct provider_request request_of(const struct services *services,
                                          const struct attempt *attempt, const char *provider_name)
{
    size_t body_bytes;
    const void *body = attempt_body(attempt, &body_bytes);
    return (struct provider_request){
        .operation = attempt->operation,
        .model = attempt->provider_model,
        .body = body,
        .body_bytes = body_bytes,
        .prefix_key = call_prefix_key(services, attempt, provider_name),
        .max_tokens_default = attempt->max_tokens_default,
        .stream = attempt->wants_stream,
        .deadline_ms = attempt->deadline_ms,
    };
}

/* No token and no answer yet. */
static bool is_undecided(const struct attempt *attempt)
{
    return !attempt->is_concluded && attempt->call != NULL && !attempt->has_token;
}

static void time_to_ask(void *context)
{
    struct attempt *attempt = context;
    if (is_undecided(attempt)) {
        attempt->has_asked = true;
        broker_link_ask_hedge(attempt->broker, attempt);
    }
}

/* Without memory for its timer the first call remains the only one. */
static void wait_to_ask(const struct services *services, struct attempt *attempt)
{
    if (attempt->hedge_after_ms > 0 &&
        loop_timer_create(services->loop, time_to_ask, attempt, &attempt->ask_timer) == 0) {
        loop_timer_set(attempt->ask_timer, clock_monotonic_ms() + attempt->hedge_after_ms);
    }
}

static enum stage_verdict call_send(const struct services *services, struct attempt *attempt)
{
    static const struct provider_handler handler = {.on_chunk = chunk_arrived,
                                                    .on_done = reply_arrived};
    char key[CALL_KEY_BYTES];
    write_own_key(attempt, attempt->provider_name, attempt->model, key);
    struct provider_request request = request_of(services, attempt, attempt->provider_name);
    request.idempotency_key = key;
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
    wait_to_ask(services, attempt);
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
    if (attempt->shared.is_answered) {
        return STAGE_NEXT;
    }
    attempt->provider = call_find_provider(services, attempt->provider_name);
    if (attempt->provider == NULL) {
        outcome_set(&attempt->outcome, UNAVAILABLE, "no_provider",
                    "provider \"%s\" was added after this worker started: restart it",
                    attempt->provider_name);
        return STAGE_CONCLUDES;
    }
    return call_when_possible(services, attempt);
}

/* ---- the second call ---- */

/* The call is begun. Errors: -ENODEV, -EBUSY: not here, or not now; -EINVAL, -ENOMEM. */
static int hedge_begin(const struct services *services, struct hedge *hedge)
{
    static const struct provider_handler handler = {.on_chunk = hedge_chunk_arrived,
                                                    .on_done = hedge_reply_arrived};
    struct attempt *attempt = hedge->attempt;
    struct outcome outcome;
    char key[CALL_KEY_BYTES];
    hedge->token_ns = clock_monotonic_ns();
    hedge->provider = call_find_provider(services, hedge->provider_name);
    if (hedge->provider == NULL || hedge->provider == attempt->provider) {
        return -ENODEV;
    }
    if (provider_is_full(hedge->provider) ||
        broker_link_upstream_open_ms(attempt->broker, hedge->provider_name, hedge->model,
                                     clock_monotonic_ms()) > 0) {
        return -EBUSY;
    }
    write_own_key(attempt, hedge->provider_name, hedge->model, key);
    struct provider_request request = request_of(services, attempt, hedge->provider_name);
    request.model = hedge->provider_model;
    request.max_tokens_default = hedge->max_tokens_default;
    request.idempotency_key = key;
    return provider_start(hedge->provider, &request, &handler, hedge, &hedge->call, &outcome);
}

/* What cannot be begun, or must not from here, is left alone: the first call goes on. */
static enum stage_verdict hedge_start(const struct services *services, struct attempt *attempt,
                                      const Wire__HedgeGrant *grant)
{
    struct router_choice choice;
    CLEANUP(hedge_destroy) struct hedge *hedge = NULL;
    if (router_take(services->config, grant->upstream->provider, grant->upstream->model, false,
                    &choice) < 0 ||
        !attempt_may_go_to(attempt, choice.provider->residency,
                           choice.provider->residency_length) ||
        hedge_create(attempt, &choice, &hedge) < 0) {
        return STAGE_WAITS;
    }
    hedge->quality_lost = grant->quality_lost;
    hedge->is_stand_in = router_is_stand_in(services->config, attempt->route, choice.model);
    if (hedge_begin(services, hedge) == 0) {
        hedge->report.is_made = true;
        hedge_explain(attempt, hedge);
        attempt->hedge = TAKE(hedge);
    }
    return STAGE_WAITS;
}

void call_stage_hedge(struct attempt *attempt, const Wire__HedgeGrant *grant)
{
    const struct stage_event event = {.kind = STAGE_EVENT_HEDGE, .as.hedge = grant};
    if (attempt->has_asked && is_undecided(attempt) && attempt->hedge == NULL) {
        pipeline_resume(attempt, &event);
    }
}

/* ---- after the call ---- */

void call_report_reply(struct call_report *report, const struct provider_reply *reply)
{
    report->outcome = reply->outcome.kind;
    report->code = reply->outcome.code;
    report->retry_after_ms = reply->outcome.retry_after_ms;
    report->http_status = (uint32_t)reply->http_status;
    report->call_ms = reply->call_ms;
    report->first_token_ms = reply->first_token_ms;
    report->has_limits = limits_summarise(reply->limits, &report->limits);
}

/* It says nothing that the other call could not say better. */
static bool is_left_to_other(const struct provider_reply *reply)
{
    return reply->outcome.kind != ANSWERED && reply->outcome.kind != REFUSED;
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
    call_report_reply(&attempt->report, reply);
    telemetry_call(services->telemetry, attempt, attempt->provider_name, attempt->model,
                   &attempt->report);
    if (hedge_is_running(attempt) && is_left_to_other(reply)) {
        return STAGE_WAITS;
    }
    overtake_other(services->telemetry, attempt);
    if (reply->outcome.kind != ANSWERED) {
        account_unanswered(services->telemetry, attempt);
        return STAGE_CONCLUDES;
    }
    attempt->body = reply->body;
    reply->body = (struct bytes){0};
    attempt->answer = json_incref(reply->answer);
    attempt->may_be_filled = attempt->may_be_filled && !outcome_is_filtered(reply->answer);
    return end_stream(attempt);
}

static enum stage_verdict hedge_replied(struct services *services, struct attempt *attempt,
                                        struct provider_reply *reply)
{
    struct hedge *hedge = attempt->hedge;
    if (hedge->has_changed_places) {
        return call_replied(services, attempt, reply);
    }
    hedge->call = NULL; /* ends with this event */
    if (attempt->call != NULL && is_left_to_other(reply)) {
        call_report_reply(&hedge->report, reply);
        telemetry_call(services->telemetry, attempt, hedge->provider_name, hedge->model,
                       &hedge->report);
        return STAGE_WAITS;
    }
    hedge_change_places(attempt);
    return call_replied(services, attempt, reply);
}

static enum stage_verdict timer_came(struct attempt *attempt)
{
    if (attempt->is_answer_read) {
        return end_stream(attempt);
    }
    if (attempt->call == NULL && !hedge_is_running(attempt)) {
        provider_leave(attempt->provider, &attempt->wait);
        return expire(attempt);
    }
    forward_due(attempt);
    return STAGE_WAITS;
}

static enum stage_verdict call_resume(void *module, struct attempt *attempt,
                                      const struct stage_event *event)
{
    switch (event->kind) {
    case STAGE_EVENT_REPLY:
        return call_replied(module, attempt, event->as.reply);
    case STAGE_EVENT_HEDGE_REPLY:
        return hedge_replied(module, attempt, event->as.reply);
    case STAGE_EVENT_HEDGE:
        return hedge_start(module, attempt, event->as.hedge);
    case STAGE_EVENT_ROOM:
        loop_timer_stop(attempt->timer);
        return call_when_possible(module, attempt);
    case STAGE_EVENT_TIMER:
        return timer_came(attempt);
    case STAGE_EVENT_CACHE:
    case STAGE_EVENT_VECTOR:
    case STAGE_EVENT_COMBINED:
        break; /* another stage's */
    }
    return STAGE_WAITS;
}

static void cancel(const struct services *services, const struct attempt *attempt,
                   const char *provider, const char *model, struct provider_call **call,
                   struct call_report *report)
{
    report->outcome = CANCELLED;
    report->code = "cancelled";
    report->call_ms = provider_call_ms(*call);
    provider_cancel(call);
    telemetry_call(services->telemetry, attempt, provider, model, report);
}

/* A call that was begun may have used the provider's limits, and money: it is reported. */
static void call_abandon(void *module, struct attempt *attempt)
{
    const struct services *services = module;
    struct hedge *hedge = attempt->hedge;
    if (attempt->call == NULL && !hedge_is_running(attempt)) {
        provider_leave(attempt->provider, &attempt->wait);
    }
    if (hedge_is_running(attempt)) {
        cancel(services, attempt, hedge->provider_name, hedge->model, &hedge->call, &hedge->report);
    }
    if (attempt->call != NULL) {
        cancel(services, attempt, attempt->provider_name, attempt->model, &attempt->call,
               &attempt->report);
    }
    attempt->call_ms = attempt->report.call_ms;
    account_unanswered(services->telemetry, attempt);
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
