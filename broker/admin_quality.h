/*
 * admin_quality: what users say of answers, in the admin interface.
 *
 *   GET /v1/quality            {"feedback": how many were accepted, repeated …, "sums": by tier, route, model, cache decision and
 *                               task together, those used last first, "learned": what models have shown at tasks}
 *   GET /v1/quality/comments   the latest first; on the same machine only, since users wrote them
 *
 * Of what came since the broker started.
 */
#pragma once
#include "common/attributes.h"

struct broker;

/* Adds the routes. Errors: -ENOMEM. */
MUST_USE int admin_quality_add_routes(struct broker *broker);
