#include "common/config_candidates.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    NAMES_BYTES = 72, /* of those that are left out, as far as they have room */
    MODELS_MAX = 65,  /* of a list, and the one that is named itself */
};

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

/* Of a route, or of a model that is named itself. */
static void count_all(struct count *count, const struct config *config, const char *route,
                      const struct config_tier *tier)
{
    const struct config_model *models[MODELS_MAX];
    bool is_scored;
    const size_t length = config_candidates(config, route, tier->name, tier->quality_min, models,
                                            MODELS_MAX, &is_scored);
    for (size_t i = 0; i < length; i++) {
        count_providers(count, models[i]);
    }
}

/* ---- of a route ---- */

/* NULL: the list names none. */
static const struct config_model *best_of(const struct config *config,
                                          const struct config_route_list *list)
{
    const struct config_model *best = NULL;
    for (size_t i = 0; i < list->length; i++) {
        const struct config_model *model = config_find_model(config, list->models[i]);
        if (model != NULL && (best == NULL || model->quality > best->quality)) {
            best = model;
        }
    }
    return best;
}

static bool is_below_floor(const struct config *config, const struct config_route *route,
                           const struct config_tier *tier, bool is_written,
                           char ret_why[CONFIG_WHY_BYTES])
{
    const struct config_route_list list = config_route_list(route, tier->name);
    const struct config_model *best = best_of(config, &list);
    if (best == NULL || best->quality >= tier->quality_min) {
        return false;
    }
    (void)snprintf(ret_why, CONFIG_WHY_BYTES,
                   "has no model that meets the floor of tier %.32s, quality_min %" PRIu32
                   ": its best is %.48s, of grade %" PRIu32 "; lower the floor, or %s%s",
                   tier->name, tier->quality_min, best->name, best->quality,
                   is_written ? "list a better one" : "write a route `auto` with a better one",
                   list.is_of_tier || !is_written ? "" : ", for that tier under tiers");
    return true;
}

/* ---- all ---- */

static bool are_too_many(const struct count *count, const char *tier, const char *remedy,
                         char ret_why[CONFIG_WHY_BYTES])
{
    if (count->length <= CONFIG_CANDIDATES_MAX) {
        return false;
    }
    (void)snprintf(ret_why, CONFIG_WHY_BYTES,
                   "has %zu models at providers in tier %.32s, and %d at most are compared: %s%s "
                   "would never be called; %s",
                   count->length, tier, CONFIG_CANDIDATES_MAX, count->left_out,
                   count->is_cut ? " and others" : "", remedy);
    return true;
}

static bool check_route(const struct config *config, size_t at, size_t tier_at, bool is_written,
                        struct config_candidates_fault *ret_fault, char ret_why[CONFIG_WHY_BYTES])
{
    const struct config_route *route = &config->routes[at];
    const struct config_tier *tier = &config->tiers[tier_at];
    struct count count = {.length = 0};
    count_all(&count, config, route->name, tier);
    if (are_too_many(&count, tier->name,
                     is_written ? "list fewer" : "write a route `auto` with those it is to have",
                     ret_why)) {
        *ret_fault = (struct config_candidates_fault){
            "routes[].models", route->name, is_written ? "routes" : "models", is_written ? at : 0};
        return false;
    }
    if (is_below_floor(config, route, tier, is_written, ret_why)) {
        *ret_fault = (struct config_candidates_fault){
            config_route_list(route, tier->name).is_of_tier ? "routes[].tiers" : "routes[].models",
            route->name, is_written ? "routes" : "tiers", is_written ? at : tier_at};
        return false;
    }
    return true;
}

static bool check_model(const struct config *config, size_t at, size_t tier_at,
                        struct config_candidates_fault *ret_fault, char ret_why[CONFIG_WHY_BYTES])
{
    struct count count = {.length = 0};
    count_all(&count, config, config->models[at].name, &config->tiers[tier_at]);
    if (are_too_many(&count, config->tiers[tier_at].name, "list fewer", ret_why)) {
        *ret_fault = (struct config_candidates_fault){"models[].fallback", config->models[at].name,
                                                      "models", at};
        return false;
    }
    return true;
}

bool config_candidates_check(const struct config *config, size_t routes_written,
                             struct config_candidates_fault *ret_fault,
                             char ret_why[CONFIG_WHY_BYTES])
{
    for (size_t t = 0; t < config->tiers_length; t++) {
        for (size_t i = 0; i < config->routes_length; i++) {
            if (!check_route(config, i, t, i < routes_written, ret_fault, ret_why)) {
                return false;
            }
        }
        for (size_t i = 0; i < config->models_length; i++) {
            if (!check_model(config, i, t, ret_fault, ret_why)) {
                return false;
            }
        }
    }
    return true;
}
