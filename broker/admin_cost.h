/* admin_cost: the ledger and the budgets in the admin interface. See docs/cost.md. */
#pragma once
#include "common/attributes.h"

struct broker;

/* Adds GET /v1/cost. Errors: -ENOMEM. */
MUST_USE int admin_cost_add_routes(struct broker *broker);
