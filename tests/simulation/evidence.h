/*
 * evidence: watches the sums of what workers have counted of near hits
 * (broker/core/cache_evidence.h).
 *
 * - A sum is that of the deltas and the feedback that the core was told, each once, refused ones
 * not among them; an epoch begins when the one before is full.
 * - What is recorded is the sum. After a crash it is the one that was on the disk, and after a
 *   shutdown in good order the latest.
 * - Workers are told the sum, and in the end each of them knows it.
 */
#pragma once
#include "tests/simulation/simulation.h"

/* What a worker or a client says of the class message->number. */
struct evidence_words {
    const char *tenant, *tier, *embedder;
    uint8_t seed[THRESHOLD_SEED_BYTES];
    size_t seed_bytes;
    uint8_t key[16];
};
void evidence_fill(const struct simulation *simulation, const struct message *message,
                   struct evidence_words *ret_words);
/* Some lookups and labels of one epoch, as bytes. */
struct blob *evidence_delta(struct simulation *simulation, uint32_t which, uint64_t epoch,
                            bool is_of_another_scale);

/* What cannot be read. */
struct blob *evidence_spoilt(void);

void evidence_before_step(struct simulation *simulation, const struct message *message);
void evidence_after_step(struct simulation *simulation, const struct message *message);
void evidence_see_effect(struct simulation *simulation, const struct effect *effect);
void evidence_see_durable(struct simulation *simulation, const struct storage_change *change);
void evidence_fill_release(struct simulation *simulation, const struct effect *effect,
                           struct message *message);
void evidence_see_release(struct simulation *simulation, const struct message *message);
/* The broker is about to end in good order, with all of its batches. */
void evidence_see_shutdown(struct simulation *simulation);
void evidence_restart(struct simulation *simulation);
void evidence_check_end(struct simulation *simulation);
void evidence_finish(struct simulation *simulation);
