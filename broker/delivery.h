/*
 * delivery: effects as messages. Answers go to the outbox of their peer, or are held until the
 * batch they promise is durable; chunks and events leave at once.
 *
 * A peer that cannot be reached or takes no more loses its connection here (struct peer, is_lost):
 * whatever it says next is answered with "hello required", and after its hello it asks again for
 * what it missed. A dispatch that could not be sent comes back to the core as EVENT_UNDELIVERABLE
 * in the next turn.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "broker/core/effects.h"
#include "broker/outbox.h"

struct broker;

/* Any effect but those for the store (journal.h). */
void delivery_carry_out(struct broker *broker, const struct effect *effect);
/* A question of an operator to one worker. */
void delivery_query(struct broker *broker, uint64_t peer, uint64_t number, const char *what, const char *argument);
/* What another worker has found wrong, to one worker. */
void delivery_denial(struct broker *broker, uint64_t peer, const Wire__CacheDenial *denial);
/* A client's invalidation that is not taken to the core. */
void delivery_invalidation_refused(struct broker *broker, const struct peer *peer, uint64_t number, const char *why);
/* A client's feedback that is not taken to the core. */
void delivery_feedback_refused(struct broker *broker, const struct peer *peer, const struct id *job_id, const char *why);
void delivery_pong(struct broker *broker, struct peer *peer, uint64_t ping);
void delivery_sign_of_life(struct broker *broker, struct peer *peer);
/* Lets go what waited for this batch. */
void delivery_release(struct broker *broker, uint64_t durable);
/* For outbox_options.on_failed, with the broker as context. */
void delivery_failed(void *context, struct peer *peer, int error, const struct lease_ref *leases,
                     size_t leases_length);
