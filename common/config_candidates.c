#include "common/config_candidates.h"

#include <stdio.h>
#include <string.h>

enum { NAMES_BYTES = 96 }; /* of those that are left out, as far as they have room */

/* While the candidates of one route and tier are counted. No list has a name twice. */
struct count {
    size_t length;
    bool is_cut; /* more are left out than are named */
    char left_out[NAMES_BYTES];
};

static void name_left_out(struct count *count, const char *provider, const char *model)
{
    const size_t at = strlen(count->left_out);
    if (count->is_cut) {
        return;
    }
    const int bytes = snprintf(count->left_out + at, sizeof(count->left_out) - at, "%s%s/%s",
                               at == 0 ? "" : ", ", provider, model);
    if (bytes < 0 || (size_t)bytes >= sizeof(count->left_out) - at) {
        count->left_out[at] = '\0';
        count->is_cut = true;
    }
}

static void count_one(struct count *count, const char *provider, const char *model)
{
    if (++count->length > CONFIG_CANDIDATES_MAX) {
        name_left_out(count, provider, model);
    }
}

static void count_providers(struct count *count, const struct config_model *model)
{
    if (model->provider == NULL) {
        return;
    }
    count_one(count, model->provider, model->name);
    for (size_t i = 0; i < model->failover_length; i++) {
        if (strcmp(model->failover[i], model->provider) != 0) {
            count_one(count, model->failover[i], model->name);
        }
    }
}

/* `first`: counts whatever the floor is, unless it is NULL. */
static void count_models(struct count *count, const struct config *config, char *const *models,
                         size_t length, uint32_t quality_min, const char *first)
{
    for (size_t i = 0; i < length; i++) {
        const struct config_model *model = config_find_model(config, models[i]);
        const bool is_first = first != NULL && strcmp(models[i], first) == 0;
        if (model != NULL && (is_first || model->quality >= quality_min)) {
            count_providers(count, model);
        }
    }
}

/* As the broker has it: of a list the first may be below the floor, of what is scored all where all
 * are. */
static void count_list(struct count *count, const struct config *config, char *const *models,
                       size_t length, uint32_t quality_min, bool is_scored)
{
    count_models(count, config, models, length, quality_min,
                 is_scored || length == 0 ? NULL : models[0]);
    if (count->length == 0) {
        count_models(count, config, models, length, 0, NULL);
    }
}

static void count_route(struct count *count, const struct config *config,
                        const struct config_route *route, const struct config_tier *tier)
{
    const bool is_scored = route->choice == CHOICE_SCORED;
    for (size_t i = 0; i < route->tiers_length; i++) {
        const struct config_route_tier *own = &route->tiers[i];
        if (own->models_length > 0 && strcmp(own->tier, tier->name) == 0) {
            count_list(count, config, own->models, own->models_length, tier->quality_min,
                       is_scored);
            return;
        }
    }
    count_list(count, config, route->models, route->models_length, tier->quality_min, is_scored);
}

static void count_model(struct count *count, const struct config *config,
                        const struct config_model *model, const struct config_tier *tier)
{
    count_providers(count, model);
    count_models(count, config, model->fallback, model->fallback_length, tier->quality_min, NULL);
}

static bool complain(const struct count *count, const char *tier, char ret_why[CONFIG_WHY_BYTES])
{
    if (count->length <= CONFIG_CANDIDATES_MAX) {
        return false;
    }
    (void)snprintf(ret_why, CONFIG_WHY_BYTES,
                   "has %zu models at providers in tier %.32s, and %d at most are compared: %s%s "
                   "would never be called; list fewer",
                   count->length, tier, CONFIG_CANDIDATES_MAX, count->left_out,
                   count->is_cut ? " and others" : "");
    return true;
}

bool config_candidates_are_too_many(const struct config *config, const char **ret_path,
                                    const char **ret_route, char ret_why[CONFIG_WHY_BYTES])
{
    for (size_t t = 0; t < config->tiers_length; t++) {
        const struct config_tier *tier = &config->tiers[t];
        for (size_t i = 0; i < config->routes_length; i++) {
            struct count count = {.length = 0};
            count_route(&count, config, &config->routes[i], tier);
            if (complain(&count, tier->name, ret_why)) {
                *ret_path = "routes[].models";
                *ret_route = config->routes[i].name;
                return true;
            }
        }
        for (size_t i = 0; i < config->models_length; i++) {
            struct count count = {.length = 0};
            count_model(&count, config, &config->models[i], tier);
            if (complain(&count, tier->name, ret_why)) {
                *ret_path = "models[].fallback";
                *ret_route = config->models[i].name;
                return true;
            }
        }
    }
    return false;
}
