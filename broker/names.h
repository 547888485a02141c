/*
 * names: the words for enum values in metrics, logs and the admin API: those of wire.proto in lower
 * case, without prefix.
 */
#pragma once
#include "proto/wire.pb-c.h"

const char *name_of_state(Wire__JobState state);
const char *name_of_reject_reason(Wire__RejectReason reason);
const char *name_of_outcome(Wire__AttemptOutcome outcome);
const char *name_of_feedback(Wire__FeedbackOutcome outcome);
const char *name_of_cache_status(Wire__CacheStatus status);
const char *name_of_protocol_error(Wire__ProtocolError__Code code);
