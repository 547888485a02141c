#include "worker/pipeline.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/loop.h"

struct pipeline {
    struct stage stages[PIPELINE_STAGES_MAX];
    size_t stages_length;
    pipeline_fn *concluded;
    void *context;
    struct list done; /* concluded attempts, until the turn ends */
};

int pipeline_create(const struct stage *stages, size_t stages_length, pipeline_fn *concluded,
                    void *context, struct pipeline **ret_pipeline)
{
    if (stages_length > PIPELINE_STAGES_MAX) {
        return -EINVAL;
    }
    struct pipeline *pipeline = calloc(1, sizeof(*pipeline));
    if (pipeline == NULL) {
        return -ENOMEM;
    }
    memcpy(pipeline->stages, stages, stages_length * sizeof(*stages));
    pipeline->stages_length = stages_length;
    pipeline->concluded = concluded;
    pipeline->context = context;
    list_init(&pipeline->done);
    *ret_pipeline = pipeline;
    return 0;
}

void pipeline_destroy(struct pipeline **pipeline)
{
    struct pipeline *old = TAKE(*pipeline);
    if (old != NULL) {
        pipeline_release(old);
        free(old);
    }
}

static void attempt_conclude(struct pipeline *pipeline, struct attempt *attempt)
{
    assert(!attempt->is_concluded);
    attempt->is_concluded = true;
    loop_timer_stop(attempt->timer);
    pipeline->concluded(pipeline->context, attempt); /* takes it off its broker_link's list */
    list_append(&pipeline->done, &attempt->link);
}

/* Where it goes from its stage; stages_length: nowhere. */
static size_t next_stage(const struct pipeline *pipeline, const struct attempt *attempt,
                         enum stage_verdict verdict)
{
    const bool is_answered = attempt->outcome.kind == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED;
    size_t next = attempt->stage + 1;
    if (verdict == STAGE_CONCLUDES && is_answered) {
        return pipeline->stages_length;
    }
    while (next < pipeline->stages_length &&
           pipeline->stages[next].stands_in != (verdict == STAGE_CONCLUDES)) {
        next++;
    }
    return next;
}

/* Follows a verdict through the stages until one waits. */
static void attempt_go_on(struct pipeline *pipeline, struct attempt *attempt,
                          enum stage_verdict verdict)
{
    size_t next;
    while (verdict != STAGE_WAITS &&
           (next = next_stage(pipeline, attempt, verdict)) < pipeline->stages_length) {
        const struct stage *stage = &pipeline->stages[attempt->stage = next];
        verdict = stage->start(stage->module, attempt);
    }
    if (verdict != STAGE_WAITS) {
        attempt_conclude(pipeline, attempt);
    }
}

void pipeline_start(struct pipeline *pipeline, struct attempt **attempt)
{
    struct attempt *started = TAKE(*attempt);
    started->pipeline = pipeline;
    started->stage = 0;
    const struct stage *first = &pipeline->stages[0];
    attempt_go_on(pipeline, started, first->start(first->module, started));
}

void pipeline_resume(struct attempt *attempt, const struct stage_event *event)
{
    struct pipeline *pipeline = attempt->pipeline;
    if (attempt->is_concluded) {
        return;
    }
    const struct stage *stage = &pipeline->stages[attempt->stage];
    attempt_go_on(pipeline, attempt, stage->resume(stage->module, attempt, event));
}

void pipeline_stop(struct attempt *attempt, Wire__AttemptOutcome outcome, const char *code,
                   const char *text)
{
    struct pipeline *pipeline = attempt->pipeline;
    if (attempt->is_concluded) {
        return;
    }
    const struct stage *stage = &pipeline->stages[attempt->stage];
    stage->abandon(stage->module, attempt);
    outcome_set(&attempt->outcome, outcome, code, "%s", text);
    attempt_conclude(pipeline, attempt);
}

void pipeline_release(struct pipeline *pipeline)
{
    while (!list_is_empty(&pipeline->done)) {
        struct attempt *attempt = CONTAINER_OF(list_first(&pipeline->done), struct attempt, link);
        list_remove(&pipeline->done, &attempt->link);
        attempt_destroy(&attempt);
    }
}

const char *pipeline_stage_name(const struct attempt *attempt)
{
    const struct pipeline *pipeline = attempt->pipeline;
    return attempt->stage < pipeline->stages_length ? pipeline->stages[attempt->stage].name
                                                    : "done";
}
