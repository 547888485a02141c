/* Entries of a configuration by name: apart from reading one, so that the core needs no parser. */
#include <string.h>
#include "common/config.h"

static bool has_name(const char *entry_name, const char *name)
{
    return entry_name != NULL &&
           strcmp(entry_name, name) == 0; /* NULL: while a faulty file is read */
}

const struct config_model *config_find_model(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->models_length; i++) {
        if (has_name(config->models[i].name, name)) {
            return &config->models[i];
        }
    }
    return NULL;
}

const struct config_provider *config_find_provider(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->providers_length; i++) {
        if (has_name(config->providers[i].name, name)) {
            return &config->providers[i];
        }
    }
    return NULL;
}

const struct config_route *config_find_route(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->routes_length; i++) {
        if (has_name(config->routes[i].name, name)) {
            return &config->routes[i];
        }
    }
    return NULL;
}

const struct config_tier *config_find_tier(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->tiers_length; i++) {
        if (has_name(config->tiers[i].name, name)) {
            return &config->tiers[i];
        }
    }
    return NULL;
}
