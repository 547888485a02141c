/*
 * feedback: what users say of answers: how good they were, from 0 to 1.
 *
 * A job is named by its id alone. Which model, route, tier, task and cache decision its answer came from is known here, from when it
 * was concluded (concluded.h), as long as the id is remembered: on a durable tier over a restart, too. It counts once: the same
 * again is taken and not counted, so that a client may repeat what it got no answer to; another score is refused. What is known of
 * other tenants' jobs is not told: they are unknown. FEEDBACK_BURST of a tenant's clients at once, one each FEEDBACK_EACH_MS in the
 * long run.
 *
 * Feedback on an answer of a durable tier is put off while the store is down, since its mark could not be kept.
 *
 * What is accepted goes to quality.h; a comment goes to the log, too.
 */
#pragma once
#include "broker/core/state.h"
#include "proto/records.pb-c.h"

enum {
    FEEDBACK_EACH_MS = 100,
    FEEDBACK_BURST = 200,
};

struct effect_result;

/* The event FEEDBACK. */
void feedback_take(struct core *core, const struct event *event);
/* What feedback on this conclusion will count for. */
void feedback_remember(struct core *core, struct concluded_entry *entry, const struct job *job,
                       const struct effect_result *result);
/* The same from and to its record. Names that are known no more are forgotten; a tier that is, counts as the first. */
void feedback_restore(struct core *core, struct concluded_entry *entry, const Record__ConcludedRecord *record);
void feedback_fill_record(const struct core *core, const struct concluded_entry *entry, Record__ConcludedRecord *record);
/* The mark of a conclusion that was judged; it follows it. Errors: -EBADMSG. */
MUST_USE int feedback_restore_mark(struct core *core, const void *key, const void *value, size_t value_bytes);
