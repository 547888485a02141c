/*
 * client: a simulated client: submits, repeats what is not answered, waits, cancels, collects, and
 * comes back after a loss with what it still wants to know. Follows docs/protocol.md.
 */
#pragma once
#include "tests/simulation/simulation.h"

void sim_client_init(struct simulation *simulation, uint32_t index);
void sim_client_finish(struct sim_client *client);
/* Makes a new job and submits it as soon as the client is welcome. */
void sim_client_add_job(struct simulation *simulation, struct sim_client *client);
/* Asks for what is due, or connects. A wake of an older plan is void. */
void sim_client_wake(struct simulation *simulation, struct sim_client *client, uint64_t generation);
/* Some client does what nobody expects of it, and some time later another one. */
void sim_client_meddle(struct simulation *simulation);
void sim_client_hear(struct simulation *simulation, struct sim_client *client,
                     const struct message *message);
/* The connection breaks now. */
void sim_client_break(struct simulation *simulation, struct sim_client *client);
/* The job has a new life: its client waits for it again. */
void sim_client_wait_again(struct simulation *simulation, uint32_t job);
/* The id of the run's nth job, made then. */
struct id sim_client_make_id(int64_t at_ms, uint32_t index);
/* The bytes that are submitted for a job. */
struct blob *sim_client_payload(const struct simulation *simulation, uint32_t job);
