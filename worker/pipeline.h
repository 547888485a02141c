/*
 * pipeline: carries attempts through the stages, in order, each at its own pace.
 *
 *   decode → deadline → cache → prompt → router → combine → call → account → fill
 *                                                             ↘ stand-in, if there is no answer
 *
 * Knows nothing of what a stage does. A stage that stands in is entered by attempts alone that one
 * before it has concluded without an answer; it may answer them, and concludes them. An attempt
 * concludes exactly once: by its last stage, by a stage that says so, or by pipeline_stop(). See
 * DESIGN.md, "The worker's pipeline".
 */
#pragma once
#include <stddef.h>
#include "common/attributes.h"
#include "worker/attempt.h"
#include "worker/stage.h"

enum { PIPELINE_STAGES_MAX = 12 };

struct pipeline;

/* Its outcome is set. The attempt lives until pipeline_release(). */
typedef void pipeline_fn(void *context, struct attempt *attempt);

/* The stages are copied; their modules are not owned. Errors: -ENOMEM; -EINVAL too many. */
MUST_USE int pipeline_create(const struct stage *stages, size_t stages_length,
                             pipeline_fn *concluded, void *context, struct pipeline **ret_pipeline);
void pipeline_destroy(struct pipeline **pipeline);

/* Takes: the attempt. May conclude it before it returns. */
void pipeline_start(struct pipeline *pipeline, struct attempt **attempt);
/* What the attempt's stage waited for. */
void pipeline_resume(struct attempt *attempt, const struct stage_event *event);
/* Gives up its stage and concludes it so; nothing happens when it is concluded. */
void pipeline_stop(struct attempt *attempt, Wire__AttemptOutcome outcome, const char *code,
                   const char *text);
/* Releases the concluded attempts. At the end of a turn, when no stage has one in its hands. */
void pipeline_release(struct pipeline *pipeline);
/* The name of the stage that an attempt is in, for logs. */
const char *pipeline_stage_name(const struct attempt *attempt);
