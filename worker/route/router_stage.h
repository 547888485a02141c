/*
 * router_stage: asks the router for the attempt's model and keeps the answer, so that a reload
 * cannot change it midway.
 */
#pragma once
#include "worker/services.h"
#include "worker/stage.h"

struct stage router_stage(struct services *services);
