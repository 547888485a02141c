#include "common/config_complete.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config_candidates.h"
#include "common/config_residency.h"

static void read_default(struct reader *reader, const char *name, struct config *config)
{
    const struct config_key *key = config_key_find(&config_schema, name);
    yaml_document_t *document = reader->defaults.document;
    reader->source = &reader->defaults;
    config_read_value(reader, key,
                      config_mapping_find(document, yaml_document_get_root_node(document), name),
                      config, name);
    reader->source = &reader->file;
}

static bool is_given(uint64_t given, const char *name)
{
    return (given >> (config_key_find(&config_schema, name) - config_schema.keys) & 1) != 0;
}

/* The default order by tier, for those tiers that there are. */
static void prune_tiers(const struct config *config, struct config_route *route)
{
    size_t kept = 0;
    for (size_t i = 0; i < route->tiers_length; i++) {
        if (config_find_tier(config, route->tiers[i].tier) != NULL) {
            route->tiers[kept++] = route->tiers[i];
        } else {
            free(route->tiers[i].tier);
            config_texts_free(&route->tiers[i].models, &route->tiers[i].models_length);
        }
    }
    route->tiers_length = kept;
}

static void add_auto_route(struct reader *reader, bool has_default_models, struct config *config)
{
    if (has_default_models) {
        read_default(reader, "routes", config);
        if (reader->r == 0) {
            prune_tiers(config, &config->routes[config->routes_length - 1]);
        }
        return;
    }
    struct config_route *route =
        config_items_append(reader, config_key_find(&config_schema, "routes"), config);
    if (route == NULL) {
        return;
    }
    route->name = strdup("auto");
    if (route->name == NULL) {
        reader->r = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < config->models_length && reader->r == 0; i++) {
        if (config->models[i].name != NULL) {
            reader->r =
                config_texts_append(&route->models, &route->models_length, config->models[i].name);
        }
    }
}

static void add_defaults(struct reader *reader, const yaml_node_t *root, uint64_t given,
                         struct config *config)
{
    const bool has_default_models = !is_given(given, "models");
    if (!is_given(given, "tiers")) {
        read_default(reader, "tiers", config);
    }
    if (!is_given(given, "tenants")) {
        read_default(reader, "tenants", config);
    }
    if (!is_given(given, "providers")) {
        read_default(reader, "providers", config);
    }
    if (has_default_models && is_given(given, "providers")) {
        config_complain(
            reader, config_mapping_find(reader->file.document, root, "providers")->start_mark,
            "models", NULL,
            "is missing, and the default models belong to the default provider; list what "
            "your providers serve");
        return;
    }
    if (has_default_models) {
        read_default(reader, "models", config);
    }
    if (reader->r == 0 && config_find_route(config, "auto") == NULL) {
        add_auto_route(reader, has_default_models, config);
    }
}

static int default_worker_name(struct config *config)
{
    char host[CONFIG_NAME_BYTES_MAX / 2 + 1] = "";
    if (gethostname(host, sizeof(host) - 1) < 0 && errno != ENAMETOOLONG) {
        snprintf(host, sizeof(host), "worker");
    }
    for (char *at = host; *at != '\0'; at++) {
        const bool is_plain =
            (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || (*at >= '0' && *at <= '9');
        *at = is_plain || *at == '.' ? *at : '-';
    }
    return asprintf(&config->worker.name, "%s-%ld", host, (long)getpid()) < 0 ? -ENOMEM : 0;
}

static int default_audit_tier(struct config *config)
{
    const bool has_background = config_find_tier(config, "background") != NULL;
    config->cache.audit_tier = strdup(has_background ? "background" : "none");
    return config->cache.audit_tier == NULL ? -ENOMEM : 0;
}

static int derive_query(struct config_provider *provider)
{
    if (provider->query == NULL) {
        provider->query = strdup(provider->type == PROVIDER_AZURE ? "api-version=2024-10-21" : "");
    }
    return provider->query == NULL ? -ENOMEM : 0;
}

/* A part of the price, rounded up; prices are bounded by the table of keys. */
static uint64_t part_of(uint64_t nanousd, uint64_t percent)
{
    return (nanousd * percent + 99) / 100;
}

/* Anthropic says what it wrote to its cache, and takes more for that; others do not. */
static void derive_prices(const struct config *config, struct config_model *model)
{
    const struct config_provider *provider =
        model->provider == NULL ? NULL : config_find_provider(config, model->provider);
    const bool is_dearer = provider != NULL && provider->type == PROVIDER_ANTHROPIC;
    const uint64_t input = model->input_nanousd_per_mtok;
    if (model->cached_input_nanousd_per_mtok == CONFIG_PRICE_UNKNOWN) {
        model->cached_input_nanousd_per_mtok = input;
    }
    if (model->cache_write_nanousd_per_mtok == CONFIG_PRICE_UNKNOWN) {
        model->cache_write_nanousd_per_mtok = is_dearer ? part_of(input, 125) : input;
    }
    if (model->cache_write_long_nanousd_per_mtok == CONFIG_PRICE_UNKNOWN) {
        model->cache_write_long_nanousd_per_mtok = is_dearer ? part_of(input, 200) : input;
    }
}

/* What stands in for values that have no preset of their own. */
static int derive(struct config *config)
{
    for (size_t i = 0; i < config->models_length; i++) {
        struct config_model *model = &config->models[i];
        if (model->provider_model == NULL &&
            (model->provider_model = strdup(model->name)) == NULL) {
            return -ENOMEM;
        }
        derive_prices(config, model);
    }
    int r = config->worker.name == NULL ? default_worker_name(config) : 0;
    for (size_t i = 0; r == 0 && i < config->providers_length; i++) {
        r = derive_query(&config->providers[i]);
    }
    return r == 0 && config->cache.audit_tier == NULL ? default_audit_tier(config) : r;
}

static bool has_tenant(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->tenants_length; i++) {
        if (strcmp(config->tenants[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_known(const struct config *config, enum config_names names, const char *name)
{
    switch (names) {
    case NAMES_ANY:
        return true;
    case NAMES_TIERS:
        return config_find_tier(config, name) != NULL;
    case NAMES_TIERS_OR_NONE:
        return strcmp(name, "none") == 0 || config_find_tier(config, name) != NULL;
    case NAMES_TENANTS:
        return has_tenant(config, name);
    case NAMES_POOLS:
        for (size_t i = 0; i < config->pools_length; i++) {
            if (strcmp(config->pools[i], name) == 0) {
                return true;
            }
        }
        return false;
    case NAMES_PROVIDERS:
        return config_find_provider(config, name) != NULL;
    case NAMES_MODELS:
        return config_find_model(config, name) != NULL;
    case NAMES_NOT_MODELS:
        return config_find_model(config, name) == NULL;
    case NAMES_ROUTES:
        return config_find_route(config, name) != NULL || config_find_model(config, name) != NULL;
    }
    return false;
}

static void check_references(struct reader *reader, const struct config *config)
{
    static const char *const whys[] = {
        [NAMES_TIERS] = "is not a tier; write the name of one in tiers",
        [NAMES_TIERS_OR_NONE] = "is not a tier; write the name of one in tiers, or none",
        [NAMES_TENANTS] = "is not a tenant; write the name of one in tenants",
        [NAMES_POOLS] = "is not a pool; add it to pools, or write one of those",
        [NAMES_PROVIDERS] = "is not a provider; write the name of one in providers",
        [NAMES_MODELS] = "is not a model; write the name of one in models",
        [NAMES_NOT_MODELS] = "is the name of a model, which is a route by itself; choose another",
        [NAMES_ROUTES] = "is not a route; write the name of one in routes or models",
    };
    for (size_t i = 0; i < reader->n_references; i++) {
        const struct reference *reference = &reader->references[i];
        if (reference->name[0] != '\0' && !is_known(config, reference->names, reference->name)) {
            config_complain(reader, reference->mark, reference->path, reference->name,
                            whys[reference->names]);
        }
    }
}

/* The pools that are meant where nothing is said must exist as well. */
static void check_preset_pools(struct reader *reader, const yaml_node_t *root,
                               const struct config *config)
{
    const char *missing = NULL;
    for (size_t i = 0; i < config->tiers_length; i++) {
        missing = is_known(config, NAMES_POOLS, config->tiers[i].pool) ? missing : "tiers[].pool";
    }
    for (size_t i = 0; i < config->worker.pools_length; i++) {
        missing = is_known(config, NAMES_POOLS, config->worker.pools[i]) ? missing : "worker.pools";
    }
    if (missing != NULL) {
        char why[CONFIG_WHY_BYTES];
        snprintf(why, sizeof(why),
                 "lacks \"default\", which is the default of %s; add it, or set %s", missing,
                 missing);
        config_complain(reader,
                        config_mapping_find(reader->file.document, root, "pools")->start_mark,
                        "pools", NULL, why);
    }
}

static size_t items_written(struct reader *reader, const yaml_node_t *root, const char *list)
{
    const yaml_node_t *node = config_mapping_find(reader->file.document, root, list);
    return node == NULL || node->type != YAML_SEQUENCE_NODE
               ? 0
               : (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
}

/* Of an entry that does not stand in the file: of the whole. */
static yaml_mark_t mark_of_item(struct reader *reader, const yaml_node_t *root, const char *list,
                                size_t at)
{
    if (at >= items_written(reader, root, list)) {
        return root->start_mark;
    }
    yaml_document_t *document = reader->file.document;
    const yaml_node_t *node = config_mapping_find(document, root, list);
    return yaml_document_get_node(document, node->data.sequence.items.start[at])->start_mark;
}

static void check_candidates(struct reader *reader, const yaml_node_t *root,
                             const struct config *config)
{
    struct config_candidates_fault fault;
    char why[CONFIG_WHY_BYTES];
    if (!config_candidates_check(config, items_written(reader, root, "routes"), &fault, why)) {
        config_complain(reader, mark_of_item(reader, root, fault.list, fault.at), fault.path,
                        fault.route, why);
    }
}

static void check_residencies(struct reader *reader, const yaml_node_t *root,
                              const struct config *config)
{
    for (size_t i = 0; i < config->tenants_length; i++) {
        const char *key;
        char why[CONFIG_WHY_BYTES], path[PATH_BYTES];
        if (!config_residency_check(config, &config->tenants[i], &key, why)) {
            (void)snprintf(path, sizeof(path), "tenants[%zu].%s", i, key);
            config_complain(reader, mark_of_item(reader, root, "tenants", i), path, NULL, why);
        }
    }
}

void config_complete(struct reader *reader, const yaml_node_t *root, uint64_t given,
                     struct config *config)
{
    add_defaults(reader, root, given, config);
    if (reader->r == 0) {
        check_references(reader, config);
    }
    if (reader->r == 0 && reader->errors->length == 0) {
        check_preset_pools(reader, root, config);
        check_candidates(reader, root, config);
        check_residencies(reader, root, config);
    }
    if (reader->r == 0 && reader->errors->length == 0) {
        reader->r = derive(config);
    }
}
