/*
 * configure: tiers, pools, tenants and routes as the configuration has them, at the start and after a reload.
 *
 * Tiers and pools are fixed while the broker runs; a tenant or route that is configured no more refuses what is new and keeps what it
 * has. core_reconfigure() and core_add_tenant() are here too.
 */
#pragma once
#include <stdbool.h>
#include "broker/core/state.h"

/* What the core relies on, though the reader of the file has checked it. */
bool configure_is_usable(const struct config *config);
/* Errors: -EINVAL a tier's name twice, or its pool is not configured; -ENOMEM. */
MUST_USE int configure_first(struct core *core, const struct config *config);
