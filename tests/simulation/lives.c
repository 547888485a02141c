#include "tests/simulation/lives.h"
#include <inttypes.h>
#include <string.h>
#include "broker/core/core.h"
#include "tests/simulation/attempts.h"
#include "tests/simulation/broker.h"
#include "tests/simulation/client.h"
#include "tests/simulation/fairness.h"
#include "tests/simulation/network.h"

uint32_t lives_of_effect(const struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    return job->lives - (job->lives > 0 && job->life_turn == simulation->broker.turns);
}

static void begin_life(struct simulation *simulation, uint32_t index)
{
    struct sim_job *job = &simulation->jobs[index];
    const int64_t now_ms = sim_broker_ms(simulation);
    simulation_trace(simulation, "job %" PRIu64 " has life %" PRIu64 "", index, job->lives + 1, 0);
    simulation->tally.requeued++;
    job->lives++;
    job->life_turn = simulation->broker.turns;
    job->shown = job->current_conclusion = WIRE__JOB_STATE__JOB_STATE_UNKNOWN;
    job->failures = job->crashes = job->kills = 0;
    job->is_unsaid = false;
    job->is_retry = job->permit.is_open = job->hedge.is_open = false;
    job->stream.credit_peer = job->stream.waiter = 0;
    attempts_begin_life(simulation, index);
    job->not_before_ms = job->not_before_max_ms = now_ms;
    job->deadline_min_ms = job->deadline_max_ms =
        now_ms + simulation->scenario.tiers[job->tier].deadline_ms;
    job->first_incarnation = simulation->broker.incarnation;
    fairness_join(simulation, job);
    sim_client_wait_again(simulation, index);
}

static bool is_dead(const struct simulation *simulation, const struct sim_job *job)
{
    return job->current_conclusion == WIRE__JOB_STATE__JOB_STATE_DEAD ||
           (!job->is_durable && job->has_died == simulation->broker.incarnation);
}

void lives_look_at(struct simulation *simulation, uint32_t index)
{
    struct sim_job *job = &simulation->jobs[index];
    Wire__JobState state;
    const char *worker;
    if (is_dead(simulation, job) &&
        core_find_job(simulation->broker.core, &job->id, &state, &worker) == 0 &&
        state != WIRE__JOB_STATE__JOB_STATE_DEAD) {
        job->has_died = 0;
        begin_life(simulation, index);
    }
}

/* A life may be over in the turn in which it began: no model can answer the job any more, or no
 * budget can pay for it before its deadline. */
static bool ends_at_once(const struct effect *effect)
{
    return effect->kind == EFFECT_NOTE && (effect->as.note.note == NOTE_EXPIRED ||
                                           (effect->as.note.note == NOTE_DEAD_LETTER &&
                                            strcmp(effect->as.note.subject, "no_model") == 0));
}

void lives_see_effect(struct simulation *simulation, const struct effect *effect)
{
    if (!ends_at_once(effect)) {
        return;
    }
    const uint32_t index = simulation_job_of(simulation, &effect->as.note.job_id);
    if (index != NO_JOB && is_dead(simulation, &simulation->jobs[index])) {
        simulation->jobs[index].has_died = 0;
        begin_life(simulation, index);
    }
}

static void look_at_sweep(void *context, const struct core_sweep_view *view)
{
    bool *is_running = context;
    *is_running |= !view->is_over;
}

void lives_after_tick(struct simulation *simulation)
{
    struct sim_broker *broker = &simulation->broker;
    bool is_running = false;
    core_visit_sweeps(broker->core, look_at_sweep, &is_running);
    for (uint32_t i = 0; (is_running || broker->is_sweeping) && i < simulation->jobs_length; i++) {
        lives_look_at(simulation, i);
    }
    broker->is_sweeping = is_running;
}

static bool is_known(const struct simulation *simulation, uint64_t peer)
{
    return simulation->workers[network_link(simulation, peer)->owner].known_as == peer;
}

void lives_before_answer(struct simulation *simulation, const struct message *message)
{
    const struct sim_worker *worker =
        &simulation->workers[network_link(simulation, message->peer)->owner];
    const struct link *link = network_link(simulation, message->peer);
    Wire__JobState state;
    const char *holder;
    const bool is_over = core_find_job(simulation->broker.core, &simulation->jobs[message->job].id,
                                       &state, &holder) < 0 ||
                         state == WIRE__JOB_STATE__JOB_STATE_DEAD;
    const bool is_answer = message->event == EVENT_ATTEMPT_RESULT && !link->is_stranger &&
                           worker->known_as == message->peer &&
                           message->number == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED;
    simulation->broker.is_late = is_answer && is_over;
    simulation->broker.concludes = is_answer && !is_over;
}

static bool is_again(const struct sim_job *job, const struct message *message)
{
    return job->answered_attempt == message->attempt && message->attempt != 0;
}

/*
 * An answer to a job that is concluded has cost something for nothing: that is said, and how much.
 * Not so when it is the one that concluded the job, and its worker had not heard of that.
 */
void lives_after_answer(struct simulation *simulation, const struct message *message)
{
    struct effects *effects = simulation->broker.effects;
    const int64_t tokens =
        (int64_t)message->call.tokens + (message->other.is_made ? message->other.tokens : 0);
    const int64_t cost = tokens * SCENARIO_TOKEN_NANOUSD;
    bool is_noted = false;
    for (size_t i = simulation->broker.examined; i < effects_length(effects); i++) {
        const struct effect *effect = effects_at(effects, i);
        is_noted |= effect->kind == EFFECT_NOTE && effect->as.note.note == NOTE_LATE_RESULT &&
                    effect->as.note.number == cost &&
                    simulation_job_of(simulation, &effect->as.note.job_id) == message->job;
    }
    struct sim_job *job = &simulation->jobs[message->job];
    simulation->tally.late += is_noted;
    if (simulation->broker.concludes && is_known(simulation, message->peer)) {
        job->answered_attempt = message->attempt;
        job->answered_incarnation = simulation->broker.incarnation;
    }
    const bool is_remembered =
        job->answered_incarnation == simulation->broker.incarnation &&
        simulation->jobs_length <= simulation->scenario.config.broker.dedup_ids_max;
    const bool is_again_for_sure = is_again(job, message) && is_remembered;
    /*
     * Who was silent for long may be known until the tick; and what a restart, or a bound, may have
     * made the core forget of the first answer is no evidence either way.
     */
    const bool is_sure =
        is_known(simulation, message->peer) && is_again(job, message) == is_again_for_sure;
    if (is_noted != (simulation->broker.is_late && !is_again_for_sure) && is_sure) {
        simulation_violate(simulation,
                           "an answer to job %u that cost %" PRId64 " is %s counted as late",
                           message->job, cost, is_noted ? "wrongly" : "not");
    }
}
