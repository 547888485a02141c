/*
 * needs: watches which model a job is given to, and by what it needs (broker/core/decision.h).
 *
 * What a job needs follows from the seed and its number: complexity or the features of its prompt,
 * abilities, tokens of its input, a residency label, a task, how its prompt begins.
 * - No dispatch goes to an upstream that cannot answer the job: its model lacks an ability, or is
 *   too small, its provider has not the label of the job or of its tenant, or the tenant may not
 *   use it. As configured then, and after any restart; nothing of a tenant that the configuration
 *   has not named since. To no upstream in particular, which lets the worker choose, only for a job
 *   that neither a label nor its tenant's list binds.
 *   A second call beside a slow one goes to none either.
 * - Each dispatch says what the job needs.
 * - Jobs that differ in label or abilities do not answer each other (flights.h).
 * - A submission is refused for that when no candidate can answer it, and only then; a job that was
 *   accepted ends as "no_model" when a change of the configuration has made it so, and only then.
 * - What one provider has no words for goes to another one that can answer it, if there is one.
 * - The grades that a dispatch is said to lose are those that it is below what would be chosen if
 *   all went well: exactly of a list, and where nothing but the grade counts; elsewhere at most.
 *   What answers are said to have lost adds up in the tiers' statistics.
 * - Each dispatch that had a choice says why, and the latest can be asked for. Models are tried to
 *   know more of them with jobs that have a task alone.
 * - Records of jobs say what was submitted.
 *
 * That a job which has to wait for the only one that can answer it keeps nobody else of its queue
 * waiting follows from fairness.h: no queue waits while one of its upstreams is free.
 */
#pragma once
#include "broker/core/core.h"
#include "common/complexity.h"
#include "tests/simulation/simulation.h"

enum { NEEDS_TASK_BYTES = 16, NEEDS_FEATURES = COMPLEXITY_FEATURES + 4 };

/* What a submission refers to. */
struct needs_words {
    char task[NEEDS_TASK_BYTES];
    uint8_t features[NEEDS_FEATURES];
};
/* Keeps *ret_words for it. */
void needs_fill(const struct simulation *simulation, uint32_t job, struct event_submit *submit,
                struct needs_words *ret_words);
/* A provider that rejects something without a call has no words for it. */
void needs_tell(const struct simulation *simulation, struct call *call);
/* As a worker tells of its answer. */
void needs_fill_usage(const struct call *call, Wire__Usage *usage);

/* Some of its candidates cannot answer it: it may have to wait where others need not. */
bool needs_are_picky(const struct simulation *simulation, uint32_t job);
/* In what binds the choice of a model: residency label and abilities. */
bool needs_are_alike(const struct simulation *simulation, uint32_t a, uint32_t b);
/* A core has started, or taken a configuration, as the scenario has it. */
void needs_restart(struct simulation *simulation);
void needs_see_config(struct simulation *simulation);
void needs_before_step(struct simulation *simulation, const struct message *message);
void needs_after_step(struct simulation *simulation, const struct message *message);
void needs_see_effect(struct simulation *simulation, const struct effect *effect);
void needs_see_change(struct simulation *simulation, const struct storage_change *change);
void needs_check_turn(struct simulation *simulation);
