/*
 * call_stage: the provider call of an attempt. Its stream goes to the client as it comes
 * (forward.h); the whole answer follows as the attempt's result.
 *
 * Right before the call, and again after each wait for a connection, the news of the broker is
 * looked at: an attempt whose upstream has failed since it was dispatched is given back (deferred,
 * "upstream_open"), unless it is the probe that is to find out. Probes do not wait for connections.
 *
 * A call that has sent no token and no answer for Dispatch.hedge_after_ms may have a second one
 * beside it (hedge.h): the broker is asked, once, and what it grants is begun at once or not at all.
 * When one of the two fails the other goes on; only what a provider refuses for its content ends both.
 * The first token of a stream, or the answer, ends the other; so what is forwarded is of one alone.
 */
#pragma once
#include "worker/services.h"
#include "worker/stage.h"

/* The broker's answer to what was asked; nothing happens when it comes too late. */
void call_stage_hedge(struct attempt *attempt, const Wire__HedgeGrant *grant);

struct stage call_stage(struct services *services);
