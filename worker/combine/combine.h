/*
 * combine: attempts that share one call to a provider.
 *
 * The stage before the call. An attempt of a tier with `combine_linger` waits there for others that
 * ask the same of the same upstream for the same tenant; when enough have come, or the first has
 * waited long enough, one call is made for all (group.h), and each attempt goes on with its part of
 * the answer. Two things can be asked together: embeddings (inputs.h), and short chats whose jobs
 * are marked `batchable` (pack.h). Everything else passes, and so does what might fail because of
 * its company: streams, probes, jobs that a worker made, jobs under a budget, and jobs that have
 * failed twice. See docs/batching.md.
 */
#pragma once
#include "common/attributes.h"
#include "worker/stage.h"

struct combine;
struct services;

/* Keeps: the services. Errors: -ENOMEM. */
MUST_USE int combine_create(struct services *services, struct combine **ret_combine);
/* No attempt waits any more. */
void combine_destroy(struct combine **combine);
struct stage combine_stage(struct combine *combine);
