/*
 * hedge: a second call at another provider, for a job whose first one takes longer than 95 of 100 of its upstream.
 *
 * The dispatch says after how long its worker may ask for one; the worker asks, and is granted it when the tier's share of calls and
 * of cost has it (hedge_budget.h), the deadline leaves time for it, and an upstream of another provider that can answer
 * the job may be called now. The lease then has a second permit (upstream.h). Of the two calls the first to answer counts; both
 * are reported with the attempt's result. What is not granted is not answered.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "broker/core/state.h"

struct decision;
struct event;
struct event_attempt_result;
struct lease;

/*
 * After how long the worker may ask, for a job that is given to the upstream decided on: its 95th percentile for prompts of this size, to
 * the answer, or to the first token of a stream. 0: never.
 */
int64_t hedge_after_ms(const struct core *core, const struct job *job, const struct decision *decision, bool is_stream);
/* The event HEDGE_ASKED. */
void hedge_asked(struct core *core, const struct event *event);
/*
 * The lease's attempt has ended and says what it called: the tier earns by its first call, and pays for its second. Before its permits
 * are settled.
 */
void hedge_settle(const struct lease *lease, const struct event_attempt_result *result);
/* A tier's calls have cost so much. */
void hedge_earn_cost(struct tier *tier, uint64_t cost_nanousd);
