/*
 * gate: queues that may not be dispatched now, because no upstream of theirs may be called.
 *
 * A gated queue has left the choice of its lane, so that it blocks no other, and comes back at the time when its first
 * candidate may be called. It is *paused*, and said to be, when every candidate is down or has said when to come back;
 * otherwise it only waits for its pace or its limits. A paused queue lets single probes through.
 */
#pragma once
#include "broker/core/state.h"

struct decision;
struct job;
struct queue;
struct upstream;

/*
 * Whether the job, READY or LOADED, may be dispatched now. Gives: *ret_decision; one without candidates when the route names
 * none, and a worker may choose. False: its queue is gated, or the job waits or is over; the choice begins anew.
 */
bool gate_pass(struct core *core, struct job *job, struct decision *ret_decision);
/*
 * When a job tries again whose round is over: of its candidates some have failed it, and the others may not be called, or cost
 * more than its budget has. As after a first failure, or when one comes back.
 */
int64_t gate_next_round_ms(struct core *core, const struct job *job);
/* It may be called again, or less: its queues are looked at again, and its crowds. NULL: all queues are. */
void gate_look(struct core *core, struct upstream *upstream);
/* A job comes to this queue: whether anybody can serve it may never have been asked. */
void gate_look_at(struct core *core, struct queue *queue);
/* Opens the gates whose time has come. */
void gate_tick(struct core *core);
int64_t gate_next_deadline_ms(const struct core *core);
