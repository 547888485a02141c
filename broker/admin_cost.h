/* admin_cost: the ledger and the budgets in the admin interface. See docs/cost.md. */
#pragma once
#include <stdint.h>
#include "common/attributes.h"

struct broker;

enum { ADMIN_DAY_BYTES = 16 };

/* Adds GET /v1/cost. Errors: -ENOMEM. */
MUST_USE int admin_cost_add_routes(struct broker *broker);

/* "2026-01-31", in ret_text. */
const char *admin_day_text(int32_t day, char ret_text[ADMIN_DAY_BYTES]);
