/*
 * pause: what an operator has stopped: a route, a tier, a tenant or a worker; kept over restarts.
 *
 * HOLD: admitted, not dispatched. DRAIN: refused at the door, the rest runs out; a worker is told to finish and take no more.
 */
#pragma once
#include "broker/core/state.h"

struct worker;

struct pause {
    struct list_link link; /* core.pauses */
    enum pause_subject subject;
    enum pause_mode mode;
    int64_t since_unix_ms;
    char *reason;
    char name[];
};

/* Events. A route, tier or tenant that is not known is passed over; a worker may come later. */
void pause_add(struct core *core, const struct event *event);
void pause_end(struct core *core, const struct event *event);
/* Why an operator has paused it; empty: no reason was given, or it is not paused. */
const char *pause_reason(const struct core *core, enum pause_subject subject, const char *name);
/* After a change of the configuration, and when all jobs are restored: names that came with either are paused yet. */
void pause_apply_to_names(struct core *core);
/* At a worker's hello, after its welcome. */
void pause_apply_to_worker(struct core *core, struct worker *worker);
/* From a record. Errors: -ENOMEM, -EBADMSG. */
MUST_USE int pause_restore(struct core *core, const void *value, size_t value_bytes);
void pause_destroy_all(struct core *core);
