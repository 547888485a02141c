/*
 * client: a simulated client: submits, repeats what is not answered, waits, cancels, collects, and
 * comes back after a loss with what it still wants to know. Follows docs/protocol.md.
 */
#pragma once
#include "tests/simulation/simulation.h"

void client_init(struct simulation *simulation, uint32_t index);
void client_finish(struct sim_client *client);
/* Makes a new job and submits it as soon as the client is welcome. */
void client_add_job(struct simulation *simulation, struct sim_client *client);
void client_tick(struct simulation *simulation, struct sim_client *client);
void client_hear(struct simulation *simulation, struct sim_client *client,
                 const struct message *message);
/* The connection breaks now. */
void client_break(struct simulation *simulation, struct sim_client *client);
/* The bytes that are submitted for a job. */
struct blob *client_payload(const struct simulation *simulation, uint32_t job);
