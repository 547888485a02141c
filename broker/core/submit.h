/*
 * submit: admission. A job is known already, refused with a reason, or accepted; on a durable tier the last is said once
 * its record is durable, and only then may it be dispatched. See DESIGN.md, "A job's life", promises 1, 3, 4 and 5.
 */
#pragma once
#include "broker/core/state.h"

/* Events. */
void submit(struct core *core, const struct event *event);
void submit_durable(struct core *core, const struct event *event);
void submit_store_down(struct core *core, const struct event *event);
void submit_store_up(struct core *core);

/* Frees what was kept of submissions that joined a job by their key before it was durable in one of these batches. */
void submit_forget_aliases(struct core *core, uint64_t batch_min, uint64_t batch_max);
