/*
 * call_stage: the provider call of an attempt, and its stream on the way to the client.
 *
 * The first piece of a stream goes at once, later ones are gathered for up to CALL_GATHER_MS: fewer
 * messages through the broker for a delay that no reader sees. The last piece is marked; the whole
 * answer follows as the attempt's result.
 *
 * Right before the call, and again after each wait for a connection, the news of the broker is
 * looked at: an attempt whose upstream has failed since it was dispatched is given back (deferred,
 * "upstream_open"), unless it is the probe that is to find out. Probes do not wait for connections.
 */
#pragma once
#include "worker/services.h"
#include "worker/stage.h"

enum { CALL_GATHER_MS = 5, CALL_GATHER_BYTES_MAX = 65536 };

struct stage call_stage(struct services *services);
