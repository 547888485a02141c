/*
 * account_stage: what the answer used and cost, from the provider's own counts and the price table.
 */
#pragma once
#include "worker/services.h"
#include "worker/stage.h"

struct attempt;
struct telemetry;

struct stage account_stage(struct services *services);
/*
 * Its calls are over and nobody gets an answer; their reports say how. What was cut off is estimated
 * (account_estimate_cut()), and charged; an error of the provider's own is not. An answer that had
 * come by then is charged as it says.
 */
void account_unanswered(struct telemetry *telemetry, struct attempt *attempt);
