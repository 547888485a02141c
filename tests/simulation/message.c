#include "tests/simulation/message.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "tests/simulation/memory.h"

#define FORMAT(words) words " peer %" PRIu64 ", job %" PRIu64 ", attempt %" PRIu64
#define HEARS(words)  FORMAT("broker hears " words " of")
#define SAYS(words)   FORMAT("broker says " words " to")

static const char *const event_formats[] = {
    [EVENT_CLIENT_HELLO] = HEARS("client hello"),
    [EVENT_CLIENT_GONE] = HEARS("client gone"),
    [EVENT_SUBMIT] = HEARS("submit"),
    [EVENT_CANCEL] = HEARS("cancel"),
    [EVENT_WAIT] = HEARS("wait"),
    [EVENT_COLLECTED] = HEARS("collected"),
    [EVENT_WORKER_HELLO] = HEARS("worker hello"),
    [EVENT_WORKER_CREDIT] = HEARS("credit"),
    [EVENT_WORKER_HEARTBEAT] = HEARS("heartbeat"),
    [EVENT_WORKER_DRAINING] = HEARS("draining"),
    [EVENT_WORKER_GONE] = HEARS("worker gone"),
    [EVENT_ATTEMPT_RESULT] = HEARS("attempt result"),
    [EVENT_HEDGE_ASKED] = HEARS("hedge asked"),
    [EVENT_CHUNK] = HEARS("chunk"),
    [EVENT_STREAM_CREDIT] = HEARS("stream credit"),
    [EVENT_UNDELIVERABLE] = HEARS("undeliverable"),
    [EVENT_DURABLE] = HEARS("durable"),
    [EVENT_STORE_DOWN] = HEARS("store down"),
    [EVENT_STORE_UP] = HEARS("store up"),
    [EVENT_LOADED] = HEARS("loaded"),
    [EVENT_PAUSE] = HEARS("pause"),
    [EVENT_RESUME] = HEARS("resume"),
    [EVENT_UPSTREAM_RESET] = HEARS("upstream reset"),
    [EVENT_DEAD_ONE] = HEARS("dead letter command"),
    [EVENT_DEAD_SWEEP] = HEARS("dead letter sweep"),
    [EVENT_DEAD_STOP] = HEARS("dead letter stop"),
    [EVENT_CACHE_INVALIDATE] = HEARS("invalidation"),
    [EVENT_CACHE_EVIDENCE] = HEARS("evidence"),
    [EVENT_CACHE_FEEDBACK] = HEARS("near feedback"),
    [EVENT_FEEDBACK] = HEARS("feedback"),
    [EVENT_DRAIN] = HEARS("drain"),
    [EVENT_TICK] = HEARS("tick"),
};

static const char *const effect_formats[] = {
    [EFFECT_CLIENT_WELCOME] = SAYS("client welcome"),
    [EFFECT_CLIENT_ERROR] = SAYS("client error"),
    [EFFECT_ACCEPTED] = SAYS("accepted"),
    [EFFECT_REJECTED] = SAYS("rejected"),
    [EFFECT_RESULT] = SAYS("result"),
    [EFFECT_STATUS] = SAYS("status"),
    [EFFECT_CHUNK] = SAYS("chunk"),
    [EFFECT_WORKER_WELCOME] = SAYS("worker welcome"),
    [EFFECT_WORKER_ERROR] = SAYS("worker error"),
    [EFFECT_DISPATCH] = SAYS("dispatch"),
    [EFFECT_HEDGE] = SAYS("hedge granted"),
    [EFFECT_STREAM_ALLOWANCE] = SAYS("stream allowance"),
    [EFFECT_ATTEMPT_CONCLUDED] = SAYS("concluded"),
    [EFFECT_ATTEMPT_CANCEL] = SAYS("cancel attempt"),
    [EFFECT_WORKER_DRAIN] = SAYS("drain"),
    [EFFECT_CACHE_INVALIDATED] = SAYS("invalidated"),
    [EFFECT_FEEDBACK_TAKEN] = SAYS("feedback taken"),
    [EFFECT_CACHE_INVALIDATE] = SAYS("invalidation"),
    [EFFECT_CACHE_EVIDENCE] = SAYS("evidence"),
};

const char *message_format(const struct message *message)
{
    return message->to_broker ? event_formats[message->event] : effect_formats[message->effect];
}

void message_finish(struct message *message)
{
    blob_unref(&message->payload);
    free(message->leases);
    message->leases = NULL;
}

struct message message_copy(const struct message *message)
{
    struct message copy = *message;
    if (copy.payload != NULL) {
        copy.payload = blob_ref(copy.payload);
    }
    if (copy.leases != NULL) {
        copy.leases = must(malloc(sizeof(*copy.leases)));
        memcpy(copy.leases, message->leases, sizeof(*copy.leases));
    }
    return copy;
}
