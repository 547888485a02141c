/*
 * call_stage: the provider call of an attempt, and its stream on the way to the client.
 *
 * The first piece of a stream goes at once, later ones are gathered for up to CALL_GATHER_MS: fewer
 * messages through the broker for a delay that no reader sees. The last piece is marked; the whole
 * answer follows as the attempt's result.
 */
#pragma once
#include "worker/services.h"
#include "worker/stage.h"

enum { CALL_GATHER_MS = 5, CALL_GATHER_BYTES_MAX = 65536 };

struct stage call_stage(struct services *services);
