/*
 * fairness: watches who is served while others wait (DESIGN: "A job's life, and what is promised",
 * 6).
 *
 * From outside: it knows what was accepted, what was chosen (EFFECT_LOAD, unless the job waits by
 * itself meanwhile, or EFFECT_DISPATCH; one that is put back before it goes is not any more) and
 * what the core says of single jobs. A flow (a tenant's part of a queue) or a lane (a tier's part
 * of a pool) counts as backlogged as long as some job of it is seen to wait, its witness; when one
 * witness goes, another that waited beside it takes its place. What cannot be seen ends an
 * interval: too few are measured rather than too many. Pauses by operators end all of them.
 *
 * Tenants of one queue. Over any interval in which both A and B are backlogged, the tokens served,
 * divided by their weights, differ by at most
 *     3 Q + C/w(A) + C/w(B),   Q: QUANTUM_TOKENS, C: the dearest job.
 * Each visit of the ring grants Q w and ends with a balance in (-C, Qw]; between two visits of one
 * there is exactly one of the other. So visits differ by at most 1, which is Q; and each balance
 * changes by less than Q w + C.
 *
 * A job that some of its candidates cannot answer (needs.h) is no witness of that.
 *
 * Tiers of one pool. Over any interval in which both i and j are backlogged and nothing is being
 * loaded, dispatches divided by weights differ by at most
 *     (O + 2) (1/w(i) + 1/w(j)),   O: DISPATCHES_OWED_MAX.
 * Stride scheduling keeps the passes of two that compete within one stride of each other, but for
 * the O strides that one is owed at the start. Where i has slots of its own (realtime), it may be
 * ahead without bound, but never further behind.
 *
 * Order. No job of a flow is chosen while another one of it that has waited all the turn has a
 * higher priority; jobs that others may follow are not compared.
 *
 * Slots of its own. A worker's slots that are reserved for a tier, and that it does not use, are
 * given to no other.
 *
 * No starvation. At the end of a turn no job waits that may go, while a worker of its pool has a
 * slot that its tier may use; unless a payload of its lane is being loaded: then not longer than a
 * load takes.
 */
#pragma once
#include "tests/simulation/simulation.h"

void fairness_init(struct simulation *simulation);
/* A core has started from records, or ended. */
void fairness_restart(struct simulation *simulation);
void fairness_stop(struct simulation *simulation);
/* The job may wait for a worker from now on, or does so no more. */
void fairness_join(struct simulation *simulation, struct sim_job *job);
void fairness_leave(struct simulation *simulation, struct sim_job *job);
/* The core chose it. */
void fairness_see_load(struct simulation *simulation, struct sim_job *job);
void fairness_see_loaded(struct simulation *simulation, struct sim_job *job, bool has_failed);
void fairness_see_dispatch(struct simulation *simulation, struct sim_job *job, uint64_t peer);
/* An operator paused something: what was loaded for it is put back. */
void fairness_see_pause(struct simulation *simulation);
void fairness_before_tick(struct simulation *simulation);
void fairness_after_tick(struct simulation *simulation);
