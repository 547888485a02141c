#include "worker/route/router.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void explain(struct router_choice *choice, const char *format, ...) PRINTF_LIKE(2, 3);

static void explain(struct router_choice *choice, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(choice->reason, sizeof(choice->reason), format, arguments);
    va_end(arguments);
}

/* A name may be configured without its provider: then the choice cannot be carried out here. */
static int choose_model(const struct config *config, const char *name, struct router_choice *choice)
{
    choice->model = config_find_model(config, name);
    if (choice->model == NULL) {
        explain(choice, "model \"%s\" is not configured at this worker", name);
        return -ENOENT;
    }
    choice->provider = config_find_provider(config, choice->model->provider);
    if (choice->provider == NULL) {
        explain(choice, "provider \"%s\" of model \"%s\" is not configured",
                choice->model->provider, name);
        return -ENOENT;
    }
    return 0;
}

static const struct config_route_tier *tier_of(const struct config_route *route, const char *tier)
{
    for (size_t i = 0; i < route->tiers_length; i++) {
        if (strcmp(route->tiers[i].tier, tier) == 0) {
            return &route->tiers[i];
        }
    }
    return NULL;
}

static int choose_by_alias(const struct config *config, const struct config_route *route,
                           const char *tier, struct router_choice *choice)
{
    const struct config_route_tier *own = tier_of(route, tier);
    const bool is_own = own != NULL && own->models_length > 0;
    if (!is_own && route->models_length == 0) {
        explain(choice, "route \"%s\" names no model for tier %s", route->name, tier);
        return -ENOENT;
    }
    int r = choose_model(config, is_own ? own->models[0] : route->models[0], choice);
    if (r == 0) {
        explain(choice, "route \"%s\": first of %zu for %s%s", route->name,
                is_own ? own->models_length : route->models_length, is_own ? "tier " : "all tiers",
                is_own ? tier : "");
    }
    return r;
}

int router_choose(const struct config *config, const char *tier, const char *route,
                  struct router_choice *ret_choice)
{
    *ret_choice = (struct router_choice){.model = NULL};
    if (config_find_model(config, route) != NULL) {
        int r = choose_model(config, route, ret_choice);
        if (r == 0) {
            explain(ret_choice, "model named by the job");
        }
        return r;
    }
    const struct config_route *alias = config_find_route(config, route);
    if (alias != NULL) {
        return choose_by_alias(config, alias, tier, ret_choice);
    }
    if (strcmp(route, "auto") == 0 && config->models_length > 0) {
        int r = choose_model(config, config->models[0].name, ret_choice);
        if (r == 0) {
            explain(ret_choice, "route \"auto\": first of all %zu models", config->models_length);
        }
        return r;
    }
    explain(ret_choice, "route \"%s\" is not configured at this worker", route);
    return -ENOENT;
}

static bool is_provider_of(const struct config_model *model, const char *provider)
{
    bool is_one = strcmp(model->provider, provider) == 0;
    for (size_t i = 0; i < model->failover_length; i++) {
        is_one = is_one || strcmp(model->failover[i], provider) == 0;
    }
    return is_one;
}

int router_take(const struct config *config, const char *provider, const char *model, bool is_probe,
                struct router_choice *ret_choice)
{
    *ret_choice = (struct router_choice){.model = config_find_model(config, model)};
    if (ret_choice->model == NULL) {
        explain(ret_choice, "model \"%s\", named by the broker, is not configured at this worker",
                model);
        return -ENOENT;
    }
    ret_choice->provider = config_find_provider(config, provider);
    if (ret_choice->provider == NULL || !is_provider_of(ret_choice->model, provider)) {
        explain(ret_choice,
                "provider \"%s\", named by the broker, is not configured for model \"%s\" at this "
                "worker",
                provider, model);
        return -ENODEV;
    }
    explain(ret_choice, "named by the broker%s: %s/%s", is_probe ? " as a probe" : "", provider,
            model);
    return 0;
}

bool router_is_stand_in(const struct config *config, const char *route,
                        const struct config_model *model)
{
    return config_find_model(config, route) != NULL && strcmp(model->name, route) != 0;
}

const char *router_provider_model(const struct config_model *model)
{
    return model->provider_model == NULL ? model->name : model->provider_model;
}
