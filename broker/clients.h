/*
 * clients: what clients say, as events. A link_fn of the clients' socket, with the broker as its
 * context.
 */
#pragma once
#include <stddef.h>

struct broker;
struct link_message;
struct peer;

void clients_receive(void *context, const void *id, size_t id_bytes, struct link_message *message);
/* Forgets a client: the core is told, what waits for it is dropped. */
void clients_forget(struct broker *broker, struct peer *peer);
