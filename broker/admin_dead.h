/* admin_dead: dead letters in the admin interface: listed, shown, requeued, dropped. See docs/operating.md, "Dead letters". */
#pragma once
#include "common/attributes.h"

struct broker;

/* Adds the routes below /v1/dead. Errors: -ENOMEM. */
MUST_USE int admin_dead_add_routes(struct broker *broker);
