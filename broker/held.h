/*
 * held: answers that wait until the batch they promise is durable, in the order in which they were
 * given.
 *
 * An answer that depends on an earlier batch than its predecessor waits for that one too: the order
 * is kept, at most one commit later. Belongs to the loop.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "broker/outbox.h"
#include "common/attributes.h"

struct held;

MUST_USE int held_create(struct held **ret_held); /* Errors: -ENOMEM */
void held_destroy(struct held **held);

/*
 * Copies the parcel (its payload is referenced). `is_accept`: see held_forget_accepts(). Errors:
 * -ENOMEM.
 */
MUST_USE int held_push(struct held *held, uint64_t batch, uint64_t peer, bool is_accept,
                       const struct parcel *parcel);
/* Gives each parcel that depends on no later batch than `batch` to `deliver`, and forgets it. */
void held_release(struct held *held, uint64_t batch,
                  void (*deliver)(void *context, uint64_t peer, const struct parcel *parcel),
                  void *context);
/* The store failed: acceptances of this batch and later ones are not given after all. */
void held_forget_accepts(struct held *held, uint64_t first_batch);
size_t held_length(const struct held *held);
