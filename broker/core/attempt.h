/*
 * attempt: what a worker says of the job it runs, and what becomes of the job.
 *
 * The first answer concludes the job, whoever holds the lease by then; failures count only from the holder. What
 * comes after the conclusion is counted as spent for nothing. See DESIGN.md, "A job's life", promise 2.
 */
#pragma once
#include "broker/core/state.h"

/* Events. */
void attempt_result(struct core *core, const struct event *event);
void attempt_chunk(struct core *core, const struct event *event);
/* The time of a job that backs off is over: it is ready, unless it is a retry and the budget has none left. */
void attempt_try_again(struct core *core, struct job *job);
