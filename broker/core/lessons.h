/*
 * lessons: what the core learns from feedback of how good its models are (learning.h), where routing.learn is on.
 *
 * Feedback teaches by the tenant of the job, its task and the model that answered; a job without a task teaches nothing, nor does an
 * answer that the cache took from another question (near), or that was too old (stale): neither is the model's doing. Of
 * the attempts of jobs with a task a share of routing.explore_share at most, drawn by the core's seed, tries the model of which least is known.
 *
 * Cells go to the store lazily, LESSONS_RECORD_MS after they changed and at drain, and come back with a restart: what a crash
 * loses is the feedback of a few seconds. While the store is down they wait. They are kept, and not used, while learning is off.
 */
#pragma once
#include "broker/core/learning.h"
#include "broker/core/state.h"

struct upstream;

enum { LESSONS_RECORD_MS = 10000, LESSONS_RECORDS_A_TICK = 256 };

MUST_USE int lessons_init(struct core *core, uint64_t seed); /* Errors: -ENOMEM */
void lessons_destroy(struct core *core);
/* An accepted feedback on this answer. */
void lessons_note(struct core *core, const struct concluded_entry *entry, double score);
/* What was learned of it for jobs like this. Nothing while learning is off, and for a job without a task. */
struct learned lessons_read(const struct core *core, const struct job *job, const struct upstream *upstream);
/* The next attempt of this job is to try the model of which least is known: as drawn, and never for more than the share. */
bool lessons_explore(const struct core *core, const struct job *job);
/* The attempt is made; `explores`: with another model than the best, since that was so. */
void lessons_dispatched(struct core *core, const struct job *job, bool explores);
/* False: the tick stopped at a bound. */
bool lessons_tick(struct core *core);
/* INT64_MAX: nothing is to be recorded. */
int64_t lessons_next_deadline_ms(const struct core *core);
/*
 * From a record "learn", hash of its names. After lessons_init() and the first configuration, and before any job or conclusion is restored
 * and any event: a tenant has room for so many tasks only, and those of which something is known keep theirs (a task beyond them is left
 * out, and its record stays); what is learned later must not be overwritten. Among themselves records may come in any order: it
 * becomes that of their use.
 * Errors: -EBADMSG, -ENOMEM.
 */
MUST_USE int lessons_restore(struct core *core, const void *value, size_t value_bytes);
