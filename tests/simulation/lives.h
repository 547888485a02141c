/*
 * lives: dead letters that an operator requeues, and answers that come too late.
 *
 * A job has one conclusion in each life. Requeued it begins a new one: nothing that was promised of
 * the last one holds any more, and its client waits for it again. An answer that comes when the job
 * is concluded is noted with what it cost, and no other answer is: not the one that concluded it,
 * sent again.
 */
#pragma once
#include "broker/core/effects.h"
#include "tests/simulation/simulation.h"

/* Of what the core has just said of a job: what it says in the turn of a requeue is of the last
 * one. */
uint32_t lives_of_effect(const struct simulation *simulation, uint32_t job);
/* Whether the core requeued this one, or, by a sweep, any. */
void lives_look_at(struct simulation *simulation, uint32_t job);
/* Before others see it: a life that ends in the turn that it began in is known by its end alone. */
void lives_see_effect(struct simulation *simulation, const struct effect *effect);
void lives_after_tick(struct simulation *simulation);
/* The core is about to hear the end of an attempt, or has. */
void lives_before_answer(struct simulation *simulation, const struct message *message);
void lives_after_answer(struct simulation *simulation, const struct message *message);
