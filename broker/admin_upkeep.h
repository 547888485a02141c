/* admin_upkeep: what the cluster took whether jobs ran or not, at the prices that are configured
 * now. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct broker;

/*
 * Of days from `from_day` to `to_day`, both included: {"rows": […], "total": {…}}, a row for each
 * pool, and by day where `by_day`; docs/cost.md has their members. What the broker itself stores
 * and moves is a row of pool "". Gives: a new reference; NULL: no memory.
 */
json_t *admin_upkeep_describe(const struct broker *broker, int32_t from_day, int32_t to_day,
                              bool by_day);
