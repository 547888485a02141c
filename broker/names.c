#include "broker/names.h"

const char *name_of_state(Wire__JobState state)
{
    switch (state) {
    case WIRE__JOB_STATE__JOB_STATE_UNKNOWN:
    case _WIRE__JOB_STATE_IS_INT_SIZE:
        return "unknown";
    case WIRE__JOB_STATE__JOB_STATE_QUEUED:
        return "queued";
    case WIRE__JOB_STATE__JOB_STATE_BACKING_OFF:
        return "backing_off";
    case WIRE__JOB_STATE__JOB_STATE_LOADING:
        return "loading";
    case WIRE__JOB_STATE__JOB_STATE_LEASED:
        return "leased";
    case WIRE__JOB_STATE__JOB_STATE_FOLLOWING:
        return "following";
    case WIRE__JOB_STATE__JOB_STATE_PARKED:
        return "parked";
    case WIRE__JOB_STATE__JOB_STATE_SUCCEEDED:
        return "succeeded";
    case WIRE__JOB_STATE__JOB_STATE_DEAD:
        return "dead";
    case WIRE__JOB_STATE__JOB_STATE_CANCELLED:
        return "cancelled";
    case WIRE__JOB_STATE__JOB_STATE_EXPIRED:
        return "expired";
    case WIRE__JOB_STATE__JOB_STATE_COLLECTED:
        return "collected";
    }
    return "unknown";
}

const char *name_of_reject_reason(Wire__RejectReason reason)
{
    switch (reason) {
    case WIRE__REJECT_REASON__REJECT_NONE:
    case _WIRE__REJECT_REASON_IS_INT_SIZE:
        return "none";
    case WIRE__REJECT_REASON__REJECT_INVALID:
        return "invalid";
    case WIRE__REJECT_REASON__REJECT_UNKNOWN_TIER:
        return "unknown_tier";
    case WIRE__REJECT_REASON__REJECT_UNKNOWN_TENANT:
        return "unknown_tenant";
    case WIRE__REJECT_REASON__REJECT_UNKNOWN_ROUTE:
        return "unknown_route";
    case WIRE__REJECT_REASON__REJECT_UNKNOWN_POOL:
        return "unknown_pool";
    case WIRE__REJECT_REASON__REJECT_TOO_LARGE:
        return "too_large";
    case WIRE__REJECT_REASON__REJECT_QUEUE_FULL:
        return "queue_full";
    case WIRE__REJECT_REASON__REJECT_DEADLINE:
        return "deadline";
    case WIRE__REJECT_REASON__REJECT_DRAINING:
        return "draining";
    case WIRE__REJECT_REASON__REJECT_STORAGE:
        return "storage";
    case WIRE__REJECT_REASON__REJECT_TOO_OLD:
        return "too_old";
    case WIRE__REJECT_REASON__REJECT_CONFLICT:
        return "conflict";
    case WIRE__REJECT_REASON__REJECT_BUDGET:
        return "budget";
    case WIRE__REJECT_REASON__REJECT_PAUSED:
        return "paused";
    }
    return "none";
}

const char *name_of_outcome(Wire__AttemptOutcome outcome)
{
    switch (outcome) {
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_NONE:
    case _WIRE__ATTEMPT_OUTCOME_IS_INT_SIZE:
        return "none";
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED:
        return "answered";
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED:
        return "rate_limited";
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE:
        return "unavailable";
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED:
        return "rejected";
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED:
        return "deferred";
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED:
        return "expired";
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED:
        return "cancelled";
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID:
        return "invalid";
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_REFUSED:
        return "refused";
    }
    return "none";
}

const char *name_of_protocol_error(Wire__ProtocolError__Code code)
{
    switch (code) {
    case WIRE__PROTOCOL_ERROR__CODE__ERROR_NONE:
    case _WIRE__PROTOCOL_ERROR__CODE_IS_INT_SIZE:
        return "none";
    case WIRE__PROTOCOL_ERROR__CODE__ERROR_VERSION:
        return "version";
    case WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED:
        return "malformed";
    case WIRE__PROTOCOL_ERROR__CODE__ERROR_HELLO_REQUIRED:
        return "hello_required";
    case WIRE__PROTOCOL_ERROR__CODE__ERROR_TOO_LARGE:
        return "too_large";
    case WIRE__PROTOCOL_ERROR__CODE__ERROR_REFUSED:
        return "refused";
    }
    return "none";
}

const char *name_of_feedback(Wire__FeedbackOutcome outcome)
{
    switch (outcome) {
    case WIRE__FEEDBACK_OUTCOME__FEEDBACK_OUTCOME_NONE:
    case _WIRE__FEEDBACK_OUTCOME_IS_INT_SIZE:
        return "none";
    case WIRE__FEEDBACK_OUTCOME__FEEDBACK_ACCEPTED:
        return "accepted";
    case WIRE__FEEDBACK_OUTCOME__FEEDBACK_REPEATED:
        return "repeated";
    case WIRE__FEEDBACK_OUTCOME__FEEDBACK_UNKNOWN:
        return "unknown";
    case WIRE__FEEDBACK_OUTCOME__FEEDBACK_REFUSED:
        return "refused";
    case WIRE__FEEDBACK_OUTCOME__FEEDBACK_PUT_OFF:
        return "put_off";
    }
    return "none";
}

const char *name_of_cache_status(Wire__CacheStatus status)
{
    switch (status) {
    case WIRE__CACHE_STATUS__CACHE_NONE:
    case _WIRE__CACHE_STATUS_IS_INT_SIZE:
        return "none";
    case WIRE__CACHE_STATUS__CACHE_MISS:
        return "miss";
    case WIRE__CACHE_STATUS__CACHE_HIT:
        return "hit";
    case WIRE__CACHE_STATUS__CACHE_NEAR_HIT:
        return "near_hit";
    case WIRE__CACHE_STATUS__CACHE_STALE_HIT:
        return "stale_hit";
    }
    return "none";
}
