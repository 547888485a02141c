/*
 * retry_budget: how many retries a route may make: a share of its first attempts, and a few a minute besides.
 *
 * A token bucket that first attempts and time fill (as Finagle's RetryBudget): over any time retries are at most
 * share × first attempts + least × minutes + burst. Retries are dispatches after an attempt that counted: those that a rate limit or
 * an outage sent back are held by the pause and the pace instead. Pure.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/config.h"

struct retry_budget {
    double level;
    int64_t at_ms;
};

void retry_budget_init(struct retry_budget *budget, const struct config_retries *config, int64_t now_ms);
/* A first attempt is made. */
void retry_budget_credit(struct retry_budget *budget, const struct config_retries *config, int64_t now_ms);
/* False: the job has to wait. */
bool retry_budget_take(struct retry_budget *budget, const struct config_retries *config, int64_t now_ms);
