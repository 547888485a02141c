/*
 * config_residency: whether any provider may be asked for a tenant's jobs.
 *
 * A tenant's label that no provider has, or that none has which serves a model of the tenant's
 * list, leaves its jobs to nobody: those that wait would become dead letters with a reload.
 */
#pragma once
#include <stdbool.h>
#include "common/config.h"
#include "common/config_schema.h"

/*
 * The models and providers that are named exist. False: gives the key of the tenant that is wrong,
 * static, and what is wrong and can be done in words.
 */
bool config_residency_check(const struct config *config, const struct config_tenant *tenant,
                            const char **ret_key, char ret_why[CONFIG_WHY_BYTES]);
