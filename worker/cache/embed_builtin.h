/*
 * embed_builtin: a text's sparse vector by its words alone: no model, about half a microsecond.
 *
 * Words, pairs of neighbours, and character grams within content words (sparse_vector.h), weighted
 * by how rare they are (lexicon.h). It finds rewording: case, typos, order, small changes; not
 * paraphrase. Pure; needs the profile alone, so vectors can be made again without the text.
 */
#pragma once
#include <stdint.h>
#include "worker/cache/profile.h"
#include "worker/cache/sparse_vector.h"

enum { EMBED_BUILTIN_VERSION = 1 /* raise it with every change here */ };

/* Of a profile's version and this code's: vectors of different ones are never compared. */
uint32_t embed_builtin_version(void);

void embed_builtin(const struct profile *profile, struct sparse_vector *ret_vector);
