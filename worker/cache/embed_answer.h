/*
 * embed_answer: the body of an answer of an embeddings endpoint, checked. Source: OpenAI's API
 * reference, "Create embeddings".
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/cache/refusal.h"

/* What an answer for so many vectors takes at most; more is none. */
size_t embed_answer_bytes_max(size_t length, uint32_t dim);

/*
 * Writes length × dim floats of unit length, in the order of their index.
 * Errors: -EINVAL (ret_error says what is wrong with it); -ENOMEM.
 */
MUST_USE int embed_answer_read(const char *body, size_t bytes, size_t length, uint32_t dim,
                               float *ret_vectors, char ret_error[REFUSAL_BYTES]);
