/*
 * decode: the first two stages. `decode` takes the payload apart, checks it, and computes the
 * canonical key; a payload that is no ModelRequest, or whose body is no JSON object, is invalid and
 * never tried again. `deadline` lets nothing run past its use.
 */
#pragma once
#include "worker/services.h"
#include "worker/stage.h"

struct stage decode_stage(struct services *services);
struct stage deadline_stage(struct services *services);
