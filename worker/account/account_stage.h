/*
 * account_stage: what the answer used and cost, from the provider's own counts and the price table.
 */
#pragma once
#include "worker/services.h"
#include "worker/stage.h"

struct stage account_stage(struct services *services);
