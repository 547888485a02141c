/*
 * near_rules: what the configuration says of the near hits of a tenant in a tier, for brokers and workers alike.
 */
#pragma once
#include "common/config.h"
#include "common/threshold.h"

/* The tighter max_error of tier and tenant; 0: near hits are off. */
void near_rules(const struct config *config, const char *tenant, const char *tier, struct threshold_policy *ret_policy);
