/*
 * network: connections that delay, lose, duplicate and reorder. Something lost means that the
 * connection is breaking: its owner finds out within seconds and connects anew, as TCP has it;
 * until then later messages may still arrive.
 */
#pragma once
#include "tests/simulation/simulation.h"

/* The number of the new peer. Its broker is the one that runs now. */
uint64_t network_connect(struct simulation *simulation, bool is_worker, uint32_t owner);
/* True when the owner may notice that it has to connect anew. */
bool network_is_broken(const struct simulation *simulation, uint64_t peer);
void network_break(struct simulation *simulation, uint64_t peer);
/* Takes the message. */
void network_send(struct simulation *simulation, const struct message *message);
struct link *network_link(struct simulation *simulation, uint64_t peer);
