#include "broker/core/gate.h"
#include <assert.h>
#include <string.h>
#include "broker/core/conclude.h"
#include "broker/core/crowd.h"
#include "broker/core/decision.h"
#include "broker/core/dispatch.h"
#include "broker/core/lane.h"
#include "broker/core/upstream.h"

enum { GATE_LEAST_MS = 1, WHY_BYTES = 256 };

/* ---- pausing ---- */

static const char *subject_of(struct core *core, const struct queue *queue)
{
    return effects_format(core->effects, "%s/%s/%s", queue->lane->tier->name->text,
                          queue->lane->pool->name->text, queue->route->text);
}

static void say_whether_blocked(struct core *core, const struct queue *queue)
{
    char why[WHY_BYTES] = "";
    const char *subject = subject_of(core, queue);
    if (queue->is_blocked) {
        upstream_why_blocked(core, queue, core->now_ms, why, sizeof(why));
    }
    core_note(core, queue->is_blocked ? NOTE_QUEUE_PAUSED : NOTE_QUEUE_RESUMED, NULL, subject, why,
              0);
    core_publish(core,
                 queue->is_blocked ? WIRE__EVENT__KIND__EVENT_QUEUE_PAUSED
                                   : WIRE__EVENT__KIND__EVENT_QUEUE_RESUMED,
                 "queue", subject, why);
}

/* Says so when nobody can serve the queue any more, or somebody can again. */
static void look_whether_blocked(struct core *core, struct queue *queue)
{
    const bool was_blocked = queue->is_blocked;
    if (core->effects == NULL) {
        return; /* a configuration: nothing can be said now, so the next look finds it changed */
    }
    queue->is_blocked = upstream_all_blocked(core, queue);
    queue->open_at_ms = queue->is_blocked ? upstream_back_at_ms(core, queue) : 0;
    if (queue->is_blocked != was_blocked) {
        queue->opened_ms = was_blocked ? core->now_ms : queue->opened_ms;
        say_whether_blocked(core, queue);
    }
}

/* ---- opening and closing ---- */

static void open_gate(struct core *core, struct queue *queue)
{
    heap_remove(&core->gates, queue);
    queue->gated_until_ms = 0;
    queue_refresh(queue);
    look_whether_blocked(core, queue);
}

/* Jobs that were chosen go back, so that those of other queues behind them may go. */
static void put_back_loaded(struct core *core, const struct queue *queue)
{
    struct list_link *link = queue->lane->loaded.head.next;
    while (link != &queue->lane->loaded.head) {
        struct job *job = CONTAINER_OF(link, struct job, link);
        link = link->next;
        if (job->flow->queue == queue) {
            job_move(core, job, PLACE_READY);
        }
    }
}

static void close_gate(struct core *core, struct queue *queue, int64_t until_ms)
{
    const int64_t least_ms = core->now_ms + GATE_LEAST_MS;
    queue->gated_until_ms = until_ms > least_ms ? until_ms : least_ms;
    const int r = heap_push(&core->gates, queue, heap_key_from_ms(queue->gated_until_ms));
    assert(r == 0); /* reserved at its making */
    queue_refresh(queue);
    put_back_loaded(core, queue);
    look_whether_blocked(core, queue);
}

int64_t gate_next_round_ms(struct core *core, const struct job *job)
{
    const int64_t back_at_ms = upstream_back_for_failed_at_ms(core, job->flow->queue);
    const int64_t at_ms =
        core->now_ms + 1 + (int64_t)core_random_below(core, job_tier(job)->backoff_first_ms);
    return later_ms(at_ms, back_at_ms);
}

/* Of those that it has not tried none may be called after all. */
static void end_round(struct core *core, struct job *job)
{
    job->tried = 0;
    job_release_payload(core, job);
    job_wait_until(core, job, gate_next_round_ms(core, job));
}

/* The configuration has changed since it was accepted: it may be given a new life with another one.
 */
static void give_up(struct core *core, struct job *job, const struct decision *decision)
{
    conclude(core, job,
             &(struct outcome){.state = WIRE__JOB_STATE__JOB_STATE_DEAD,
                               .error_code = "no_model",
                               .error_text = decision_complaint(core, decision)});
}

static void wait_for_one(struct core *core, struct job *job, const struct decision *decision)
{
    if (decision->is_hopeless) {
        give_up(core, job, decision);
    } else if (job->tried != 0) {
        end_round(core, job);
    } else if (decision->is_picky) {
        crowd_join(core, job, decision_able(decision),
                   later_ms(decision->at_ms, core->now_ms + GATE_LEAST_MS));
    } else {
        close_gate(core, job->flow->queue, decision->at_ms);
    }
}

bool gate_pass(struct core *core, struct job *job, struct decision *ret_decision)
{
    struct queue *queue = job->flow->queue;
    decision_make(core, job, ret_decision);
    if (ret_decision->chosen == NULL && (ret_decision->length > 0 || ret_decision->is_hopeless)) {
        wait_for_one(core, job, ret_decision);
        return false;
    }
    if (queue->is_blocked) {
        /* A time may have passed while nothing waited, or a configuration came. */
        look_whether_blocked(core, queue);
    }
    return budget_passes(core, job, ret_decision);
}

/* ---- when something changes ---- */

static bool may_call(const struct core *core, const struct queue *queue,
                     const struct upstream *upstream)
{
    return upstream == NULL || upstream_bit(core, queue, upstream) != 0;
}

void gate_look(struct core *core, struct upstream *upstream)
{
    if (upstream != NULL) {
        crowd_look(core, upstream);
    }
    for (size_t i = 0; i < core->queues_length; i++) {
        struct queue *queue = core->queues[i];
        if (!may_call(core, queue, upstream)) {
            continue;
        }
        if (queue_is_gated(queue)) {
            open_gate(core, queue); /* and closed again at the next job that may not pass */
        } else {
            look_whether_blocked(core, queue);
        }
    }
}

void gate_look_at(struct core *core, struct queue *queue)
{
    look_whether_blocked(core, queue);
}

void gate_tick(struct core *core)
{
    while (core->gates.length > 0 &&
           heap_peek_key(&core->gates) <= heap_key_from_ms(core->now_ms)) {
        open_gate(core, heap_peek(&core->gates));
    }
}

int64_t gate_next_deadline_ms(const struct core *core)
{
    return core->gates.length == 0 ? INT64_MAX : heap_ms_from_key(heap_peek_key(&core->gates));
}
