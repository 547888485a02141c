/*
 * wanted_errand: fetches the vectors that the cache wants, one batch at a time, on the loop.
 *
 * Each text is a call of its own, so that one that is refused does not spoil the others; the
 * embedder sends them together. While it leaves its server alone (its breaker is open, or too much
 * waits) the batch waits, and is tried again every WANTED_AGAIN_MS, so that this is also what finds
 * out that the server is back. A text that the embedder will never take goes back as known, without
 * a vector; other failures as not answered. Belongs to the loop's thread.
 */
#pragma once
#include <stddef.h>
#include "common/attributes.h"

struct loop;
struct text_embedder;
struct wanted;
struct wanted_errands;

enum { WANTED_AGAIN_MS = 1000 };

/* Takes: what was wanted, answered or not. */
typedef void wanted_done_fn(void *context, struct wanted **wanted);

/* The embedder, which is not immediate, must outlive it. Errors: -ENOMEM. */
MUST_USE int wanted_errands_create(struct loop *loop, struct text_embedder *embedder,
                                   wanted_done_fn *done, void *context,
                                   struct wanted_errands **ret_errands);
/* What is under way is given up. */
void wanted_errands_destroy(struct wanted_errands **errands);
/* Takes. */
void wanted_errands_add(struct wanted_errands *errands, struct wanted **wanted);
