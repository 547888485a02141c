#include "worker/provider/call_stage.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/loop.h"
#include "worker/attempt.h"
#include "worker/broker_link.h"
#include "worker/pipeline.h"
#include "worker/provider/provider.h"
#include "worker/telemetry.h"

#define UNAVAILABLE WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE

/* ---- the stream ---- */

/*
 * A chunk that the broker cannot take is lost to the stream, not to the job: the whole answer
 * follows.
 */
static void chunks_send(struct attempt *attempt, bool is_last)
{
    loop_timer_stop(attempt->timer);
    attempt->is_chunk_timer_set = false;
    if (attempt->chunks.length > 0 || is_last) {
        broker_link_send_chunk(attempt->broker, attempt, attempt->chunks_sent++, is_last,
                               attempt->chunks.data, attempt->chunks.length);
        bytes_clear(&attempt->chunks);
    }
}

static void chunk_arrived(void *context, const void *data, size_t bytes)
{
    struct attempt *attempt = context;
    attempt->chunks.bytes_max =
        SIZE_MAX / 2; /* each piece is bounded by the provider, their number by the bound below */
    if (bytes_append(&attempt->chunks, data, bytes) < 0) {
        return;
    }
    if (attempt->chunks_sent == 0 || attempt->chunks.length >= CALL_GATHER_BYTES_MAX) {
        chunks_send(attempt, false);
    } else if (!attempt->is_chunk_timer_set) {
        attempt->is_chunk_timer_set = true;
        loop_timer_set(attempt->timer, clock_monotonic_ms() + CALL_GATHER_MS);
    }
}

/* ---- the call ---- */

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

static enum stage_verdict call_send(struct provider *provider, struct attempt *attempt)
{
    static const struct provider_handler handler = {.on_chunk = chunk_arrived,
                                                    .on_done = reply_arrived};
    char key[ID_TEXT_BYTES];
    id_format(&attempt->job_id, key);
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
    int r =
        provider_start(provider, &request, &handler, attempt, &attempt->call, &attempt->outcome);
    if (r == -EINVAL) {
        return STAGE_CONCLUDES;
    }
    if (r < 0) {
        outcome_set(&attempt->outcome, UNAVAILABLE, "memory", "the worker is out of memory");
        return STAGE_CONCLUDES;
    }
    return STAGE_WAITS;
}

static enum stage_verdict call_start(void *module, struct attempt *attempt)
{
    const struct services *services = module;
    struct provider *provider = find_provider(services, attempt->provider_name);
    if (provider == NULL) {
        outcome_set(&attempt->outcome, UNAVAILABLE, "no_provider",
                    "provider \"%s\" was added after this worker started: restart it",
                    attempt->provider_name);
        return STAGE_CONCLUDES;
    }
    if (clock_monotonic_ms() >= attempt->deadline_ms) {
        outcome_set(&attempt->outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED, "deadline",
                    "the deadline passed before the call");
        return STAGE_CONCLUDES;
    }
    return call_send(provider, attempt);
}

static enum stage_verdict call_replied(struct services *services, struct attempt *attempt,
                                       struct provider_reply *reply)
{
    attempt->call = NULL; /* ends with this event */
    attempt->outcome = reply->outcome;
    attempt->http_status = reply->http_status;
    attempt->call_ms = reply->call_ms;
    attempt->first_token_ms = reply->first_token_ms;
    telemetry_call(services->telemetry, attempt);
    if (reply->outcome.kind != WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED) {
        return STAGE_CONCLUDES;
    }
    if (attempt->chunks_sent > 0) {
        chunks_send(attempt, true);
    }
    attempt->body = reply->body;
    reply->body = (struct bytes){0};
    attempt->answer = json_incref(reply->answer);
    return STAGE_NEXT;
}

static enum stage_verdict call_resume(void *module, struct attempt *attempt,
                                      const struct stage_event *event)
{
    if (event->kind == STAGE_EVENT_REPLY) {
        return call_replied(module, attempt, event->as.reply);
    }
    chunks_send(attempt, false);
    return STAGE_WAITS;
}

static void call_abandon(void *module, struct attempt *attempt)
{
    (void)module;
    provider_cancel(&attempt->call);
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
