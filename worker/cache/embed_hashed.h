/*
 * embed_hashed: the built-in embedder (embedder.h) behind text_embedder: no model, no files, the
 * words alone. A text that is empty or too long for it is all zeros.
 */
#pragma once
#include "common/attributes.h"
#include "worker/cache/text_embedder.h"

/* Errors: -ENOMEM. */
MUST_USE int embed_hashed_create(struct text_embedder **ret_embedder);
