/*
 * arena: memory that is released all at once, at the end of a turn. Backs protobuf-c's decoder, so
 * that an envelope of hundreds of items costs no malloc for each. Bounded: more than `bytes_max` in
 * one turn is refused.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <protobuf-c/protobuf-c.h>
#include "common/attributes.h"

struct arena;
MUST_USE int arena_create(size_t bytes_max, struct arena **ret_arena); /* Errors: -ENOMEM */
void arena_destroy(struct arena **arena);
void *arena_alloc(struct arena *arena,
                  size_t bytes);       /* 16-byte aligned; NULL when full or out of memory */
void arena_reset(struct arena *arena); /* keeps one block for the next turn */
/* Since the last reset memory ran out, within the bound: what was decoded in vain may be whole. */
bool arena_lacks_memory(const struct arena *arena);
/* An allocator for *__unpack(); its free does nothing. Valid as long as the arena. */
ProtobufCAllocator *arena_protobuf_allocator(struct arena *arena);
