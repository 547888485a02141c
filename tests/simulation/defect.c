#include "tests/simulation/defect.h"
#include <string.h>
#include "tests/simulation/client.h"
#include "tests/simulation/memory.h"

static const uint32_t DEFECT_MARK = 0xfff00000; /* in place of a job's index */

struct id defect_id(const struct simulation *simulation, enum defect defect)
{
    return sim_client_make_id(defect == DEFECT_TOO_OLD ? 0 : simulation->now_ms,
                              DEFECT_MARK | (uint32_t)defect);
}

enum defect defect_of_id(const struct id *id)
{
    const uint32_t index = (uint32_t)id->bytes[12] << 24 | (uint32_t)id->bytes[13] << 16 |
                           (uint32_t)id->bytes[14] << 8 | id->bytes[15];
    return (index & DEFECT_MARK) == DEFECT_MARK && (index & ~DEFECT_MARK) < DEFECTS
               ? (enum defect)(index & ~DEFECT_MARK)
               : DEFECT_NONE;
}

enum defect defect_throw(struct simulation *simulation)
{
    const enum defect defect =
        (enum defect)dice_between(&simulation->dice, DEFECT_TIER, DEFECTS - 1);
    const bool is_sure = defect != DEFECT_TOO_OLD &&
                         (defect != DEFECT_OF_ITS_QUEUE ||
                          simulation->scenario.tiers[0].bytes_max < SCENARIO_PAYLOAD_LIMIT);
    return is_sure ? defect : DEFECT_TIER;
}

static struct blob *zeros(size_t bytes)
{
    void *data = must(calloc(1, bytes));
    struct blob *blob;
    if (blob_create(data, bytes, &blob) < 0) {
        (void)must(NULL);
    }
    free(data);
    return blob;
}

void defect_apply(const struct simulation *simulation, enum defect defect, struct event *event,
                  struct blob **ret_payload)
{
    struct event_submit *submit = &event->as.submit;
    submit->job_id = defect_id(simulation, defect);
    submit->idempotency_key = "";
    submit->abilities = submit->input_tokens = 0; /* it needs nothing, so that is not why */
    submit->residency = "";
    *ret_payload = NULL;
    switch (defect) {
    case DEFECT_NONE:
    case DEFECT_STRANGER:
    case DEFECT_TOO_OLD:
    case DEFECTS:
        break;
    case DEFECT_TIER:
        submit->tier = "overnight";
        break;
    case DEFECT_ROUTE:
        submit->route = "colossal";
        break;
    case DEFECT_POOL:
        submit->pool = "tpu";
        break;
    case DEFECT_PRIORITY:
        submit->priority = 10;
        break;
    case DEFECT_PAYLOAD:
        submit->payload = NULL;
        break;
    case DEFECT_TOO_LARGE:
        submit->payload = *ret_payload = zeros(SCENARIO_PAYLOAD_LIMIT + 1);
        break;
    case DEFECT_ATTEMPTS:
        submit->attempts_max = UINT16_MAX + 1;
        break;
    case DEFECT_DELAY:
        submit->delay_ms = INT64_C(1) << 40;
        break;
    case DEFECT_DEADLINE:
        submit->deadline_in_ms = -1;
        break;
    case DEFECT_LATE:
        submit->deadline_in_ms = submit->delay_ms = 1000;
        break;
    case DEFECT_OF_ITS_QUEUE:
        submit->tier = simulation->scenario.tiers[0].name;
        submit->payload = *ret_payload = zeros(SCENARIO_PAYLOAD_LIMIT);
        break;
    case DEFECT_ABILITIES:
        submit->abilities = UINT32_C(1) << MODELS_ABILITIES;
        break;
    case DEFECT_COMPLEXITY:
        submit->complexity = UINT8_MAX + 1;
        break;
    case DEFECT_RESIDENCY:
        submit->residency = models_label(MODELS_LABEL_OF_NONE);
        break;
    }
}

static Wire__RejectReason reason_of(enum defect defect)
{
    switch (defect) {
    case DEFECT_TIER:
        return WIRE__REJECT_REASON__REJECT_UNKNOWN_TIER;
    case DEFECT_ROUTE:
        return WIRE__REJECT_REASON__REJECT_UNKNOWN_ROUTE;
    case DEFECT_POOL:
        return WIRE__REJECT_REASON__REJECT_UNKNOWN_POOL;
    case DEFECT_PRIORITY:
    case DEFECT_PAYLOAD:
    case DEFECT_ATTEMPTS:
    case DEFECT_DELAY:
    case DEFECT_ABILITIES:
    case DEFECT_COMPLEXITY:
    case DEFECT_RESIDENCY:
        return WIRE__REJECT_REASON__REJECT_INVALID;
    case DEFECT_TOO_LARGE:
    case DEFECT_OF_ITS_QUEUE:
        return WIRE__REJECT_REASON__REJECT_TOO_LARGE;
    case DEFECT_DEADLINE:
    case DEFECT_LATE:
        return WIRE__REJECT_REASON__REJECT_DEADLINE;
    case DEFECT_TOO_OLD:
        return WIRE__REJECT_REASON__REJECT_TOO_OLD;
    case DEFECT_NONE:
    case DEFECT_STRANGER:
    case DEFECTS:
        break;
    }
    return WIRE__REJECT_REASON__REJECT_NONE;
}

/* What may be wrong besides, with the broker or with the job that it was made from. */
static bool is_other_reason(Wire__RejectReason reason)
{
    return reason == WIRE__REJECT_REASON__REJECT_DRAINING ||
           reason == WIRE__REJECT_REASON__REJECT_PAUSED ||
           reason == WIRE__REJECT_REASON__REJECT_STORAGE ||
           reason == WIRE__REJECT_REASON__REJECT_QUEUE_FULL ||
           reason == WIRE__REJECT_REASON__REJECT_TOO_OLD ||
           reason == WIRE__REJECT_REASON__REJECT_UNKNOWN_ROUTE ||
           reason == WIRE__REJECT_REASON__REJECT_UNKNOWN_TENANT;
}

void defect_see_answer(struct simulation *simulation, enum defect defect,
                       const struct message *message)
{
    const Wire__RejectReason reason = (Wire__RejectReason)message->number;
    if (message->effect == EFFECT_ACCEPTED || defect == DEFECT_STRANGER) {
        simulation_violate(simulation, "a submission with defect %d is taken for a job",
                           (int)defect);
    } else if (message->effect == EFFECT_REJECTED && reason != reason_of(defect) &&
               !is_other_reason(reason)) {
        simulation_violate(simulation, "a submission with defect %d is rejected (reason %d)",
                           (int)defect, (int)reason);
    }
}
