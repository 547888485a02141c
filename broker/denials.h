/*
 * denials: entries of the caches that were wrong for another text, as one worker has found; told to all the others.
 *
 * A word in passing: not numbered, not kept, not confirmed. A worker that is away does not hear it, and finds out by an audit of
 * its own; nothing here takes room from invalidations, which hold. Bounded: what is beyond DENIALS_A_SECOND is dropped and counted.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "proto/wire.pb-c.h"

struct broker;
struct peer;

enum { DENIALS_A_SECOND = 1000, DENIAL_KEY_BYTES = 16 };

struct denials {
    int64_t since_ms; /* the second's beginning */
    uint64_t in_second;
    uint64_t told, dropped; /* so far */
};

/* Those of a message of this worker. A key of another length is dropped. */
void denials_take(struct broker *broker, const struct peer *peer, Wire__CacheDenial *const *items, size_t length);
