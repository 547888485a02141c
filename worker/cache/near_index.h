/*
 * near_index: the vectors of the cache in memory, by scope; finds the nearest within one scope by a
 * scan.
 *
 * A scan costs about 50 ns a vector. Nothing is ever compared across scopes. Belongs to the cache's
 * thread.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/cache/embedder.h"

enum { NEAR_KEY_BYTES = 16, NEAR_SCOPE_BYTES = 16 };

struct near_index;

MUST_USE int near_index_create(struct near_index **ret_index); /* Errors: -ENOMEM */
void near_index_destroy(struct near_index **index);
/* Replaces the vector of a key that is there already. Errors: -ENOMEM. */
MUST_USE int near_index_add(struct near_index *index, const uint8_t scope[NEAR_SCOPE_BYTES],
                            const uint8_t key[NEAR_KEY_BYTES], const struct vector *vector);
/* Nothing happens when it is not there. */
void near_index_remove(struct near_index *index, const uint8_t scope[NEAR_SCOPE_BYTES],
                       const uint8_t key[NEAR_KEY_BYTES]);
/* Errors: -ENOENT the scope is empty. */
MUST_USE int near_index_best(const struct near_index *index, const uint8_t scope[NEAR_SCOPE_BYTES],
                             const struct vector *vector, uint8_t ret_key[NEAR_KEY_BYTES],
                             double *ret_score);
size_t near_index_bytes(const struct near_index *index); /* memory for vectors and keys */
