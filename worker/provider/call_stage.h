/*
 * call_stage: the provider call of an attempt. Its stream goes to the client as it comes
 * (forward.h); the whole answer follows as the attempt's result.
 *
 * Right before the call, and again after each wait for a connection, the news of the broker is
 * looked at: an attempt whose upstream has failed since it was dispatched is given back (deferred,
 * "upstream_open"), unless it is the probe that is to find out. Probes do not wait for connections.
 */
#pragma once
#include "worker/services.h"
#include "worker/stage.h"

struct stage call_stage(struct services *services);
