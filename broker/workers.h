/*
 * workers: what workers say, as events. A link_fn of the workers' socket, with the broker as its
 * context.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct broker;
struct link_message;
struct peer;

void workers_receive(void *context, const void *id, size_t id_bytes, struct link_message *message);
/* Forgets a worker: the core is told, what it held goes back to the queue. */
void workers_forget(struct broker *broker, struct peer *peer, bool said_goodbye);
