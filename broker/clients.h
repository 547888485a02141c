/*
 * clients: what clients say, as events. A link_fn of the clients' socket, with the broker as its
 * context.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "proto/wire.pb-c.h"

struct broker;
struct intake;
struct link_message;
struct peer;

void clients_receive(void *context, const void *id, size_t id_bytes, struct link_message *message);
/* Forgets a client: the core is told, what waits for it is dropped. */
void clients_forget(struct broker *broker, struct peer *peer);
/* A job of a client (its number; tenant NULL), or one that a worker made for a tenant (peer 0). Its payload is that part of the message. */
void clients_take_submit(const struct intake *intake, uint64_t peer, const char *tenant,
                         const Wire__Submit *submit, size_t part);
