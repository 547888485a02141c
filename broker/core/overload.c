#include "broker/core/overload.h"
#include "broker/core/conclude.h"
#include "broker/core/estimate.h"
#include "broker/core/lane.h"

enum { NOTE_EVERY_MS = 1000 };

static int64_t waits_since_ms(const struct job *job)
{
    const struct queue *queue = job->flow->queue;
    const struct lane *lane = queue->lane;
    int64_t since_ms = job->submitted_ms + job->ready_after_ms;
    since_ms = later_ms(since_ms, lane->pool->served_since_ms);
    since_ms = later_ms(since_ms, lane->tier->name->opened_ms);
    since_ms = later_ms(since_ms, queue->route->opened_ms);
    since_ms = later_ms(since_ms, job->flow->tenant->name->opened_ms);
    return later_ms(since_ms, queue->opened_ms);
}

/* Attempts take about run_ms: with less than half of that left it is not worth a try. */
static bool is_hopeless(const struct core *core, const struct job *job)
{
    const int64_t run_ms = job->flow->queue->run_ms;
    return run_ms > 0 && job->deadline_ms - core->now_ms < run_ms / 2;
}

static void shed(struct core *core, struct job *job, int64_t waited_ms)
{
    struct flow *flow = job->flow;
    struct tier *tier = job_tier(job);
    /* Until what waits is served, but for what may wait. */
    const int64_t wait_ms = estimate_drain_ms(core, tier, flow, flow->ready.length);
    const int64_t excess_ms = wait_ms < 0 ? -1 : later_ms(wait_ms - tier->shed_target_ms, 0);
    tier->stats.shed++;
    tier->shed_unnoted++;
    conclude(
        core, job,
        &(struct outcome){
            .state = WIRE__JOB_STATE__JOB_STATE_EXPIRED,
            .error_code = "shed",
            .error_text = effects_format(
                core->effects,
                "overload: it had waited %lld ms, and all before it longer than the %lld ms of "
                "tiers.shed_target; it was not run and may be submitted again",
                (long long)waited_ms, (long long)tier->shed_target_ms),
            .retry_after_ms = estimate_retry_after_ms(core, excess_ms),
        });
}

bool overload_sheds(struct core *core, struct job *job)
{
    const struct tier *tier = job_tier(job);
    if (tier->shed_target_ms == 0 || tier->is_durable || job->place != PLACE_READY ||
        job->attempt > 0) {
        return false;
    }
    const struct shed_look look = {
        .target_ms = tier->shed_target_ms,
        .now_ms = core->now_ms,
        .waited_ms = core->now_ms - waits_since_ms(job),
        .is_hopeless = is_hopeless(core, job),
        .is_last = job->flow->ready.length == 1,
    };
    if (!shed_judge(&job->flow->shed, &look)) {
        return false;
    }
    shed(core, job, look.waited_ms);
    return true;
}

void overload_tick(struct core *core)
{
    for (size_t i = 0; i < core->tiers_length; i++) {
        struct tier *tier = &core->tier[i];
        if (tier->shed_unnoted > 0 && core->now_ms >= tier->shed_noted_ms) {
            core_note(core, NOTE_SHED, NULL, tier->name->text,
                      effects_format(core->effects,
                                     "more comes than is served: waits stand above %lld ms",
                                     (long long)tier->shed_target_ms),
                      (int64_t)tier->shed_unnoted);
            tier->shed_unnoted = 0;
            tier->shed_noted_ms = core->now_ms + NOTE_EVERY_MS;
        }
    }
}
