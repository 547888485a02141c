/*
 * prompt: the stage that makes a request cheaper before it is sent: fewer tokens, and prefixes that
 * a provider's own cache knows (worker/prompt/optimise.h).
 *
 * Stands between the cache, which has seen the request as it was asked (its key, its scope and what
 * it is filled with are the original's), and the router, which chooses by what is really sent. Each
 * tier says which levers may act. The request itself stays as the broker keeps it: what is sent
 * instead is in attempt->optimised_body, what was saved in attempt->optimised. A request that cannot
 * be optimised is sent as it came.
 */
#pragma once
#include "worker/services.h"
#include "worker/stage.h"

struct stage prompt_stage(struct services *services);
