#include "common/config_residency.h"

#include <stdio.h>
#include <string.h>

enum { LABELS_BYTES = 80 }; /* of those that there are, as far as they have room */

static bool has_label(const struct config_provider *provider, const char *label)
{
    for (size_t i = 0; i < provider->residency_length; i++) {
        if (strcmp(provider->residency[i], label) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_provider_there(const struct config *config, const char *name, const char *label)
{
    const struct config_provider *provider = config_find_provider(config, name);
    return provider != NULL && has_label(provider, label);
}

static bool is_model_there(const struct config *config, const struct config_model *model,
                           const char *label)
{
    if (model->provider != NULL && is_provider_there(config, model->provider, label)) {
        return true;
    }
    for (size_t i = 0; i < model->failover_length; i++) {
        if (is_provider_there(config, model->failover[i], label)) {
            return true;
        }
    }
    return false;
}

static bool is_any_model_there(const struct config *config, const struct config_tenant *tenant)
{
    for (size_t i = 0; i < tenant->models_length; i++) {
        const struct config_model *model = config_find_model(config, tenant->models[i]);
        if (model != NULL && is_model_there(config, model, tenant->residency)) {
            return true;
        }
    }
    return false;
}

static bool is_any_provider_there(const struct config *config, const char *label)
{
    for (size_t i = 0; i < config->providers_length; i++) {
        if (has_label(&config->providers[i], label)) {
            return true;
        }
    }
    return false;
}

/* Whether one of the providers before this one has it. */
static bool is_named_before(const struct config *config, size_t at, const char *label)
{
    for (size_t i = 0; i < at; i++) {
        if (has_label(&config->providers[i], label)) {
            return true;
        }
    }
    return false;
}

/* False: there is no room for it. */
static bool name_label(const char *label, char names[LABELS_BYTES])
{
    const size_t at = strlen(names);
    const int bytes = snprintf(names + at, LABELS_BYTES - at, "%s%s", at == 0 ? "" : ", ", label);
    if (bytes >= 0 && (size_t)bytes < LABELS_BYTES - at) {
        return true;
    }
    names[at] = '\0';
    return false;
}

static void name_labels(const struct config *config, char ret_names[LABELS_BYTES])
{
    ret_names[0] = '\0';
    for (size_t i = 0; i < config->providers_length; i++) {
        const struct config_provider *provider = &config->providers[i];
        for (size_t j = 0; j < provider->residency_length; j++) {
            if (!is_named_before(config, i, provider->residency[j]) &&
                !name_label(provider->residency[j], ret_names)) {
                return;
            }
        }
    }
}

bool config_residency_check(const struct config *config, const struct config_tenant *tenant,
                            const char **ret_key, char ret_why[CONFIG_WHY_BYTES])
{
    const char *label = tenant->residency;
    if (label == NULL || label[0] == '\0') {
        return true;
    }
    if (!is_any_provider_there(config, label)) {
        char names[LABELS_BYTES];
        name_labels(config, names);
        *ret_key = "residency";
        (void)snprintf(
            ret_why, CONFIG_WHY_BYTES,
            "no provider has the label \"%.48s\"; add it under providers[].residency%s%s", label,
            names[0] == '\0' ? "" : ", or write one of those there: ", names);
        return false;
    }
    if (tenant->models_length > 0 && !is_any_model_there(config, tenant)) {
        *ret_key = "models";
        (void)snprintf(ret_why, CONFIG_WHY_BYTES,
                       "none of them is at a provider with the tenant's residency label \"%.48s\"; "
                       "add one that is",
                       label);
        return false;
    }
    return true;
}
