/* Entries of a configuration by name, and what serves a route: apart from reading one, so that the
 * core needs no parser. */
#include <string.h>
#include "common/choice.h"
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

uint32_t config_abilities(const struct config_model *model)
{
    uint32_t abilities = 0;
    for (size_t i = 0; i < model->abilities_length; i++) {
        abilities |= choice_ability_find(model->abilities[i]);
    }
    return model->abilities_length == 0 ? ABILITIES_ALL : abilities;
}

/* ---- candidates ---- */

struct config_route_list config_route_list(const struct config_route *route, const char *tier)
{
    for (size_t i = 0; i < route->tiers_length; i++) {
        const struct config_route_tier *own = &route->tiers[i];
        if (own->models_length > 0 && strcmp(own->tier, tier) == 0) {
            return (struct config_route_list){own->models, own->models_length, true};
        }
    }
    return (struct config_route_list){route->models, route->models_length, false};
}

struct found {
    const struct config_model **models;
    size_t length, max;
    uint32_t quality_min;
};

static void add(struct found *found, const struct config_model *model)
{
    for (size_t i = 0; i < found->length; i++) {
        if (found->models[i] == model) {
            return;
        }
    }
    if (found->length < found->max) {
        found->models[found->length++] = model;
    }
}

static void add_models(const struct config *config, char *const *names, size_t length,
                       bool is_asked_for, struct found *found)
{
    for (size_t i = 0; i < length; i++) {
        const struct config_model *model = config_find_model(config, names[i]);
        if (model != NULL && ((is_asked_for && i == 0) || model->quality >= found->quality_min)) {
            add(found, model);
        }
    }
}

static void add_list(const struct config *config, const struct config_route_list *list,
                     bool is_scored, struct found *found)
{
    add_models(config, list->models, list->length, !is_scored, found);
    if (found->length == 0) {
        add_models(config, list->models, list->length, true, found);
    }
}

size_t config_candidates(const struct config *config, const char *route, const char *tier,
                         uint32_t quality_min, const struct config_model **ret_models,
                         size_t models_max, bool *ret_is_scored)
{
    const struct config_model *model = config_find_model(config, route);
    const struct config_route *alias = config_find_route(config, route);
    struct found found = {.models = ret_models, .max = models_max, .quality_min = quality_min};
    *ret_is_scored = alias != NULL && alias->choice == CHOICE_SCORED;
    if (model != NULL) {
        add(&found, model);
        add_models(config, model->fallback, model->fallback_length, false, &found);
    } else if (alias != NULL) { /* `auto` always is one */
        const struct config_route_list list = config_route_list(alias, tier);
        add_list(config, &list, *ret_is_scored, &found);
    }
    return found.length;
}
