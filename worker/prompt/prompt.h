/*
 * prompt: makes a request cheaper without changing what it asks: fewer tokens, prefixes that a
 * provider's own cache knows.
 *
 * Stands between the cache, which has seen the request as it was asked, and the router, which
 * chooses by what is really sent. It does not change anything yet: every request is sent as it
 * came.
 */
#pragma once
#include "worker/services.h"
#include "worker/stage.h"

struct stage prompt_stage(struct services *services);
