/*
 * network: connections that delay, lose, duplicate and reorder. Something lost means that the
 * connection is breaking: its owner finds out within seconds and connects anew, as TCP has it;
 * until then later messages may still arrive. What a partition cuts off loses everything.
 */
#pragma once
#include "tests/simulation/simulation.h"

/* The number of the new peer. Its broker is the one that runs now. */
uint64_t network_connect(struct simulation *simulation, bool is_worker, uint32_t owner);
/* Something was lost on it: its owner notices soon (TASK_LINK_BROKEN) and connects anew. */
void network_break(struct simulation *simulation, uint64_t peer);
/* Takes the message. */
void network_send(struct simulation *simulation, const struct message *message);
struct link *network_link(const struct simulation *simulation, uint64_t peer);
