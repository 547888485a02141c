/*
 * crowd: jobs of one flow that wait for the same candidates of their queue, which others do not
 * need.
 *
 * A queue whose candidates are all busy is gated as a whole (gate.h). Where only some can answer a
 * job, and none of those may be called now, the job has to wait by itself; and there may be a
 * million like it. So they wait together, best first, and one of them at a time goes back into its
 * flow to try: when one of the candidates may be called, by what was known last; when one of them
 * has changed; at once when the one before it was dispatched, or will not be; and once a second in
 * any case. What all of them cost is one try of each crowd for each of these, not one of each job.
 *
 * Where payloads are on disk alone, the next few are read while their jobs wait, once a candidate may be called,
 * or may within a second. So a job tries with its payload in memory, and its tenant is charged only when it goes: a
 * try that has to wait for the disk comes too late, and tenants would be served as their payloads come. What is read ahead is
 * bounded for a lane, in number and bytes; beyond it a job tries without. Half of it is kept for jobs that are next.
 *
 * Which candidates those are is by position (upstream_bit()): a reload ends all crowds, and each of
 * their jobs tries anew.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "broker/core/job.h"
#include "broker/core/state.h"

struct flow;
struct upstream;

void crowd_init(struct core *core);
void crowd_finish(struct core *core); /* after the flows */

/*
 * The job, READY or LOADED, waits until one of the candidates `able` may be called, which will be
 * at `at_ms`. Without memory for that it waits by its own time, for a second at most. What it was charged is given back. Its
 * payload stays in memory as if read ahead, or is let go.
 */
void crowd_join(struct core *core, struct job *job, uint16_t able, int64_t at_ms);
/*
 * The READY job, whose payload is on disk alone, could go to one of these now: it waits while that is read, or others' that
 * were before it. False: nothing was done, since a bound was reached.
 */
bool crowd_read(struct core *core, struct job *job, uint16_t able);
/* Whether it is WAITING, and its payload was asked for and has not come. */
bool crowd_is_reading(const struct job *job);
/* That came, and is in memory. */
void crowd_payload_came(struct core *core, struct job *job);
/* For job_move(): in and out of WAITING; at.crowd is set. */
void crowd_push(struct core *core, struct job *job);
void crowd_remove(struct core *core, struct job *job);
/* A job, WAITING, goes as one of another priority from now on: flight_priority(). */
void crowd_raise(struct core *core, struct job *job);
/*
 * A job that can be answered by these is about to be dispatched: the next one of its flow tries, unless
 * another one already does. If that one's payload is being read, the flow keeps its turn for it.
 */
void crowd_follow(struct core *core, const struct job *job, uint16_t able);
/* Where a job is that tries: chosen or about to be. */
bool crowd_may_try_from(enum job_place place);
/* For job_move(): a job has left these places. If it was the one that tried, the next one does. */
void crowd_left(struct core *core, const struct job *job);
/* When the job, WAITING, may be dispatched at the earliest, by what was known last. */
int64_t crowd_opens_ms(const struct job *job);

/* The upstream may be called again, or less. */
void crowd_look(struct core *core, struct upstream *upstream);
/* All jobs of all crowds are READY. */
void crowd_dissolve_all(struct core *core);
/* Those whose time has come let one try. False: a bound was reached. */
bool crowd_tick(struct core *core);
int64_t crowd_next_deadline_ms(const struct core *core);

/* With its flow; its jobs are gone. */
void crowd_destroy_all(struct flow *flow);
