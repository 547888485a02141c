/*
 * invalidations: watches what becomes of invalidations of the workers' caches
 * (broker/core/cache_log.h).
 *
 * - Whoever asks is answered once: refused, or with the next number, when it is durable. A client
 *   reaches its own tenant alone.
 * - What was answered survives every crash. Numbers have no holes and are not given twice.
 * - Each worker of the broker is told of each, as it was recorded, in order, once it is durable;
 *   in the turn in which it became so, and before any dispatch.
 * - One that comes back is told in its welcome of all that it has missed, or that it is behind;
 * that only when it came from elsewhere, or what it has missed is forgotten.
 * - Nobody is answered with what was dispatched, for an identical job, before an invalidation that
 *   was told before he asked (flights.h).
 */
#pragma once
#include "tests/simulation/simulation.h"

/* What a message asks for, its number of the asker taken for `salt`. */
struct invalidation_words {
    Wire__CacheSelector selector;
    const char *reason;
    char name[32];
    uint8_t key[16];
};
void invalidations_fill(const struct simulation *simulation, const struct message *message,
                        struct invalidation_words *ret_words);
/* A client asks for one: its number. */
uint64_t invalidations_ask(struct simulation *simulation, uint32_t client);

void invalidations_before_step(struct simulation *simulation, const struct message *message);
void invalidations_after_step(struct simulation *simulation, const struct message *message);
void invalidations_see_effect(struct simulation *simulation, const struct effect *effect);
void invalidations_see_durable(struct simulation *simulation, const struct storage_change *change);
/* Of an answer that goes out: what it says … */
void invalidations_fill_release(struct simulation *simulation, const struct effect *effect,
                                struct message *message);
/* … and whether it may. */
void invalidations_see_release(struct simulation *simulation, const struct message *message);
void invalidations_check_turn(struct simulation *simulation);
void invalidations_restart(struct simulation *simulation);
void invalidations_finish(struct simulation *simulation);

/* The latest that workers were told of that may be of this tenant's entries. */
uint64_t invalidations_told(const struct simulation *simulation, uint32_t tenant);
