#include "common/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config_schema.h"

/* item_name() in the reader relies on it. */
_Static_assert(offsetof(struct config_tier, name) == 0 &&
                   offsetof(struct config_tenant, name) == 0 &&
                   offsetof(struct config_provider, name) == 0 &&
                   offsetof(struct config_model, name) == 0 &&
                   offsetof(struct config_route, name) == 0,
               "entries of lists begin with their name");

int config_locate(const char *argument, char **ret_path)
{
    const char *path = argument != NULL ? argument : getenv("TIERMQ_CONFIG");
    static const char *const usual[] = {"./tiermq.yaml", "/etc/tiermq/tiermq.yaml"};
    if (argument == NULL && path != NULL && path[0] == '\0') {
        path = NULL; /* an empty variable is as good as none */
    }
    for (size_t i = 0; i < ARRAY_LENGTH(usual) && path == NULL; i++) {
        path = access(usual[i], F_OK) == 0 ? usual[i] : NULL;
    }
    if (path == NULL) {
        *ret_path = NULL;
        return 0;
    }
    char *copy = strdup(path);
    if (copy == NULL) {
        return -ENOMEM;
    }
    *ret_path = copy;
    return 0;
}

void config_destroy(struct config **config)
{
    if (*config == NULL) {
        return;
    }
    config_object_finish(&config_schema, *config);
    free(*config);
    *config = NULL;
}

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
