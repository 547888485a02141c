/*
 * worker: a simulated worker: gives credit, runs attempts to every kind of end, keeps answers until
 * they are concluded, and breaks, dies, leaves, drains and comes back. Follows docs/protocol.md.
 */
#pragma once
#include "tests/simulation/simulation.h"

void sim_worker_init(struct simulation *simulation, uint32_t index);
void sim_worker_finish(struct sim_worker *worker);
/* Connects, says that it lives, or leaves. A wake of an older plan is void. */
void sim_worker_wake(struct simulation *simulation, struct sim_worker *worker, uint64_t generation);
void sim_worker_hear(struct simulation *simulation, struct sim_worker *worker,
                     const struct message *message);
/* A part of the answer, when the attempt still runs. */
/* It takes long: asks for a second call. */
void sim_worker_ask_hedge(struct simulation *simulation, struct sim_worker *worker,
                          const struct job_lease *lease);
void sim_worker_chunk(struct simulation *simulation, struct sim_worker *worker,
                      const struct message *chunk);
void sim_worker_end_attempt(struct simulation *simulation, struct sim_worker *worker,
                            const struct job_lease *lease);
/* Loses its connection, but not its work. */
void sim_worker_break(struct simulation *simulation, struct sim_worker *worker);
/* Dies with all that it holds and starts again later. Heard: its connection is closed for it. */
void sim_worker_kill(struct simulation *simulation, struct sim_worker *worker, bool is_heard);
/* The same, but it says goodbye: what it holds is no loss. */
void sim_worker_leave(struct simulation *simulation, struct sim_worker *worker);
/* Takes no more, and leaves when its attempts have ended. */
void sim_worker_drain(struct simulation *simulation, struct sim_worker *worker);

/* The bytes of an answer, and the job that they are for; NO_JOB: nobody's answer. */
/* The attempt whose answer it is, once it is known to be one. */
uint32_t sim_worker_attempt_of_answer(const struct blob *answer);
/* Some worker makes this new job, without a key of its tenant's. False: it is not there. */
bool sim_worker_submit(struct simulation *simulation, uint32_t job);
struct blob *sim_worker_answer(struct simulation *simulation, const struct job_lease *lease);
uint32_t sim_worker_job_of_answer(const struct simulation *simulation, const struct blob *answer);
