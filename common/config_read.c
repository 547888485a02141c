/*
 * Walks a document along the schemas. What is wrong is noted and reading goes on, so that all
 * errors are found at once. The default lists are a document like the file, read by the same code.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/config_errors.h"
#include "common/config_expand.h"
#include "common/config_schema.h"
#include "common/config_yaml.h"

enum { PATH_BYTES = 256 };

/* A name that was read and must be one of others, which may stand further down. */
struct reference {
    enum config_names names;
    char *name;
    char path[PATH_BYTES];
    yaml_mark_t mark;
};

struct source {
    const char *name;
    yaml_document_t *document;
};

struct reader {
    struct source file, defaults;
    const struct source *source; /* the one that is being read */
    struct config_errors *errors;
    struct reference *references;
    size_t n_references;
    int r; /* -ENOMEM: give up; what is wrong with the file is in `errors` */
};

/* A list of texts to be filled. */
struct texts {
    enum config_kind kind;
    enum config_names refers;
    char ***texts;
    size_t *length;
};

static void complain(struct reader *reader, yaml_mark_t mark, const char *path, const char *value,
                     const char *why)
{
    const int r = config_errors_add(reader->errors, reader->source->name, mark.line + 1,
                                    mark.column + 1, path, value, why);
    if (r < 0) {
        reader->r = r;
    }
}

static void refer(struct reader *reader, enum config_names names, const char *name,
                  const char *path, yaml_mark_t mark)
{
    if (names == NAMES_ANY || reader->source == &reader->defaults) {
        return;
    }
    struct reference *grown =
        reallocarray(reader->references, reader->n_references + 1, sizeof(*grown));
    if (grown == NULL) {
        reader->r = -ENOMEM;
        return;
    }
    reader->references = grown;
    struct reference *reference = &grown[reader->n_references];
    *reference = (struct reference){.names = names, .name = strdup(name), .mark = mark};
    if (reference->name == NULL) {
        reader->r = -ENOMEM;
        return;
    }
    snprintf(reference->path, sizeof(reference->path), "%s", path);
    reader->n_references++;
}

/* ------------------------------------------------------------------------------------------------------
 * scalars */

static const char *scalar(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

/* Nothing behind the colon. */
static bool is_null(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (scalar(node)[0] == '\0' || strcmp(scalar(node), "~") == 0 ||
            strcmp(scalar(node), "null") == 0);
}

/* The text of a scalar with its variables replaced, to be freed; NULL: there is none, and why was
 * noted. */
static char *read_text(struct reader *reader, const yaml_node_t *node, const char *path,
                       bool is_secret)
{
    if (node->type != YAML_SCALAR_NODE) {
        complain(reader, node->start_mark, path, NULL,
                 node->type == YAML_SEQUENCE_NODE ? "is a list; write one value"
                                                  : "is a mapping; write one value");
        return NULL;
    }
    if (is_null(node)) {
        complain(reader, node->start_mark, path, NULL,
                 "has no value; write one (\"\" for an empty text), or leave the key out for its "
                 "default");
        return NULL;
    }
    if (strlen(scalar(node)) != node->data.scalar.length) {
        complain(reader, node->start_mark, path, NULL, "has a zero byte in it; leave it out");
        return NULL;
    }
    char why[CONFIG_WHY_BYTES];
    char *text = NULL;
    const int r = config_expand(scalar(node), &text, why);
    if (r == -EINVAL) {
        complain(reader, node->start_mark, path, is_secret ? "***" : scalar(node), why);
    } else if (r < 0) {
        reader->r = r;
    }
    return text;
}

static void read_scalar(struct reader *reader, const struct config_key *key,
                        const yaml_node_t *node, void *object, const char *path)
{
    char *text = read_text(reader, node, path, key->is_secret);
    if (text == NULL) {
        return;
    }
    char why[CONFIG_WHY_BYTES];
    const int r = config_value_set(key, text, object, why);
    if (r == -EINVAL) {
        complain(reader, node->start_mark, path, key->is_secret ? "***" : scalar(node), why);
    } else if (r < 0) {
        reader->r = r;
    } else {
        refer(reader, key->refers, text, path, node->start_mark);
    }
    free(text);
}

/* --------------------------------------------------------------------------------------------------------
 * lists */

static size_t node_length(const yaml_node_t *sequence)
{
    return (size_t)(sequence->data.sequence.items.top - sequence->data.sequence.items.start);
}

static const yaml_node_t *node_item(struct reader *reader, const yaml_node_t *sequence, size_t i)
{
    return yaml_document_get_node(reader->source->document, sequence->data.sequence.items.start[i]);
}

/* Whether it is a list whose length is allowed; otherwise why not is noted. */
static bool check_list(struct reader *reader, const yaml_node_t *node, int64_t min, int64_t max,
                       const char *path)
{
    char why[CONFIG_WHY_BYTES];
    if (node->type != YAML_SEQUENCE_NODE) {
        complain(reader, node->start_mark, path,
                 node->type == YAML_SCALAR_NODE ? scalar(node) : NULL,
                 "is not a list; write [a, b] or one entry a line, each behind a dash");
        return false;
    }
    const int64_t length = (int64_t)node_length(node);
    if (length < min || length > max) {
        snprintf(why, sizeof(why),
                 "has %lld entries; write %lld to %lld, or leave the key out for its default",
                 (long long)length, (long long)min, (long long)max);
        complain(reader, node->start_mark, path, NULL, why);
        return false;
    }
    return true;
}

static bool has_text(const struct texts *list, const char *text)
{
    for (size_t i = 0; i < *list->length; i++) {
        if (strcmp((*list->texts)[i], text) == 0) {
            return true;
        }
    }
    return false;
}

static void read_list_item(struct reader *reader, const struct texts *list, const yaml_node_t *node,
                           const char *path)
{
    char *text = read_text(reader, node, path, false);
    if (text == NULL) {
        return;
    }
    char why[CONFIG_WHY_BYTES];
    if (config_text_check(list->kind, text, why) < 0) {
        complain(reader, node->start_mark, path, scalar(node), why);
    } else if (has_text(list, text)) {
        complain(reader, node->start_mark, path, scalar(node),
                 "stands in the list twice; leave one out");
    } else {
        const int r = config_texts_append(list->texts, list->length, text);
        if (r < 0) {
            reader->r = r;
        }
        refer(reader, list->refers, text, path, node->start_mark);
    }
    free(text);
}

/* What is given replaces what was preset. */
static void read_list(struct reader *reader, const struct config_key *key, const struct texts *list,
                      const yaml_node_t *node, const char *path)
{
    if (!check_list(reader, node, key->min, key->max, path)) {
        return;
    }
    config_texts_free(list->texts, list->length);
    for (size_t i = 0; i < node_length(node) && reader->r == 0; i++) {
        char item_path[PATH_BYTES];
        snprintf(item_path, sizeof(item_path), "%.*s[%zu]", PATH_BYTES - 32, path, i);
        read_list_item(reader, list, node_item(reader, node, i), item_path);
    }
}

/* routes[].tiers */
static struct config_route_tier *tier_list_append(struct reader *reader,
                                                  const struct config_key *key, void *object)
{
    struct config_route_tier **lists = config_field(object, key);
    size_t *length = config_list_length(object, key);
    struct config_route_tier *grown = reallocarray(*lists, *length + 1, sizeof(*grown));
    if (grown == NULL) {
        reader->r = -ENOMEM;
        return NULL;
    }
    *lists = grown;
    grown[*length] = (struct config_route_tier){.tier = NULL};
    return &grown[(*length)++];
}

static void read_tier_list(struct reader *reader, const struct config_key *key,
                           const yaml_node_pair_t *pair, void *object, const char *path)
{
    static const struct config_key models = {.kind = KIND_LIST, .min = 1, .max = 64};
    const yaml_node_t *name = yaml_document_get_node(reader->source->document, pair->key);
    char *tier = read_text(reader, name, path, false);
    if (tier == NULL) {
        return;
    }
    const struct config_route_tier *lists = *(struct config_route_tier **)config_field(object, key);
    for (size_t i = 0; i < *config_list_length(object, key); i++) {
        if (strcmp(lists[i].tier, tier) == 0) {
            complain(reader, name->start_mark, path, tier, "is given twice; leave one out");
            free(tier);
            return;
        }
    }
    struct config_route_tier *list = tier_list_append(reader, key, object);
    if (list == NULL) {
        free(tier);
        return;
    }
    list->tier = tier;
    refer(reader, NAMES_TIERS, tier, path, name->start_mark);
    char list_path[PATH_BYTES];
    snprintf(list_path, sizeof(list_path), "%.*s.%.*s", PATH_BYTES / 2, path, CONFIG_NAME_BYTES_MAX,
             tier);
    const struct texts texts = {key->item_kind, key->refers, &list->models, &list->models_length};
    read_list(reader, &models, &texts,
              yaml_document_get_node(reader->source->document, pair->value), list_path);
}

static void read_tier_lists(struct reader *reader, const struct config_key *key,
                            const yaml_node_t *node, void *object, const char *path)
{
    if (node->type != YAML_MAPPING_NODE) {
        complain(reader, node->start_mark, path, NULL,
                 "is not a mapping; write {TIER: [MODEL, ...], ...}");
        return;
    }
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top && reader->r == 0; pair++) {
        read_tier_list(reader, key, pair, object, path);
    }
}

/* -----------------------------------------------------------------------------------------------------
 * mappings */

static size_t min3(size_t a, size_t b, size_t c)
{
    const size_t least = a < b ? a : b;
    return least < c ? least : c;
}

/* Levenshtein's distance; texts longer than a key can be are far from everything. */
static size_t distance(const char *a, const char *b)
{
    enum { BYTES_MAX = 40 };
    const size_t b_bytes = strlen(b);
    if (strlen(a) > BYTES_MAX || b_bytes > BYTES_MAX) {
        return BYTES_MAX;
    }
    size_t row[BYTES_MAX + 1];
    for (size_t j = 0; j <= b_bytes; j++) {
        row[j] = j;
    }
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < b_bytes; j++) {
            const size_t above = row[j + 1];
            row[j + 1] = min3(above + 1, row[j] + 1, diagonal + (a[i] != b[j]));
            diagonal = above;
        }
    }
    return row[b_bytes];
}

static const struct config_key *key_nearest(const struct config_schema *schema, const char *name)
{
    const struct config_key *nearest = NULL;
    size_t least = strlen(name) / 3 + 2; /* what differs in more is another word */
    for (size_t i = 0; i < schema->length; i++) {
        const size_t d = distance(name, schema->keys[i].name);
        if (d < least) {
            least = d;
            nearest = &schema->keys[i];
        }
    }
    return nearest;
}

static void complain_of_key(struct reader *reader, const struct config_schema *schema,
                            const yaml_node_t *name, const char *path)
{
    char why[CONFIG_WHY_BYTES];
    const struct config_key *nearest = key_nearest(schema, scalar(name));
    if (nearest != NULL) {
        snprintf(why, sizeof(why), "is not a key; did you mean %s?", nearest->name);
    } else {
        snprintf(why, sizeof(why), "is not a key; `tiermq config reference` lists those there are");
    }
    complain(reader, name->start_mark, path, scalar(name), why);
}

static const struct config_key *key_find(const struct config_schema *schema, const char *name)
{
    for (size_t i = 0; i < schema->length; i++) {
        if (strcmp(schema->keys[i].name, name) == 0) {
            return &schema->keys[i];
        }
    }
    return NULL;
}

static const yaml_node_t *mapping_find(yaml_document_t *document, const yaml_node_t *mapping,
                                       const char *name)
{
    if (mapping == NULL || mapping->type != YAML_MAPPING_NODE) {
        return NULL;
    }
    for (const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
         pair < mapping->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(document, pair->key);
        if (key->type == YAML_SCALAR_NODE && strcmp(scalar(key), name) == 0) {
            return yaml_document_get_node(document, pair->value);
        }
    }
    return NULL;
}

static void check_mapping(struct reader *reader, const struct config_schema *schema,
                          const yaml_node_t *node, const void *object, const char *path)
{
    struct config_complaint complaint;
    if (schema->check == NULL || schema->check(object, &complaint)) {
        return;
    }
    const yaml_node_t *value = mapping_find(reader->source->document, node, complaint.key);
    char key_path[PATH_BYTES];
    snprintf(key_path, sizeof(key_path), "%.*s%s%s", PATH_BYTES - 64, path,
             path[0] == '\0' ? "" : ".", complaint.key);
    complain(reader, value == NULL ? node->start_mark : value->start_mark, key_path,
             value != NULL && value->type == YAML_SCALAR_NODE ? scalar(value) : NULL,
             complaint.text);
}

static void read_value(struct reader *reader, const struct config_key *key, const yaml_node_t *node,
                       void *object, const char *path);

/* Reads the keys that stand in the node into the object; notes in `given` (a bit a key) which. */
/* NOLINTNEXTLINE(misc-no-recursion): as deep as the schemas, which are three levels */
static void read_mapping(struct reader *reader, const struct config_schema *schema,
                         const yaml_node_t *node, void *object, const char *path, uint64_t *given)
{
    assert(schema->length <= CONFIG_KEYS_MAX);
    if (node->type != YAML_MAPPING_NODE) {
        complain(reader, node->start_mark, path,
                 node->type == YAML_SCALAR_NODE ? scalar(node) : NULL,
                 "is not a mapping; write KEY: VALUE, one a line");
        return;
    }
    const size_t n_errors = reader->errors->length;
    uint64_t seen = 0;
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top && reader->r == 0; pair++) {
        const yaml_node_t *name = yaml_document_get_node(reader->source->document, pair->key);
        if (name->type != YAML_SCALAR_NODE) {
            complain(reader, name->start_mark, path, NULL,
                     "has a key that is no word; write KEY: VALUE");
            continue;
        }
        const struct config_key *key = key_find(schema, scalar(name));
        if (key == NULL) {
            complain_of_key(reader, schema, name, path);
            continue;
        }
        char key_path[PATH_BYTES];
        snprintf(key_path, sizeof(key_path), "%.*s%s%s", PATH_BYTES - 64, path,
                 path[0] == '\0' ? "" : ".", key->name);
        const uint64_t bit = UINT64_C(1) << (key - schema->keys);
        if ((seen & bit) != 0) {
            complain(reader, name->start_mark, key_path, NULL, "is given twice; leave one out");
            continue;
        }
        seen |= bit;
        read_value(reader, key, yaml_document_get_node(reader->source->document, pair->value),
                   object, key_path);
    }
    *given |= seen;
    if (reader->errors->length == n_errors) {
        check_mapping(reader, schema, node, object, path);
    }
}

static void check_required(struct reader *reader, const struct config_schema *schema,
                           const yaml_node_t *node, uint64_t given, const char *path)
{
    for (size_t i = 0; i < schema->length; i++) {
        const struct config_key *key = &schema->keys[i];
        if (key->preset == NULL && key->otherwise == NULL && (given >> i & 1) == 0) {
            char why[CONFIG_WHY_BYTES];
            snprintf(why, sizeof(why), "lacks the key %s, which has no default; add it", key->name);
            complain(reader, node->start_mark, path, NULL, why);
        }
    }
}

/* --------------------------------------------------------------------------------------------
 * lists of mappings */

static void *items_append(struct reader *reader, const struct config_key *key, void *object)
{
    char **items = config_field(object, key);
    size_t *length = config_list_length(object, key);
    char *grown = reallocarray(*items, *length + 1, key->schema->bytes);
    if (grown == NULL) {
        reader->r = -ENOMEM;
        return NULL;
    }
    *items = grown;
    void *item = grown + *length * key->schema->bytes;
    ++*length; /* also a half-built one is finished with the list */
    const int r = config_object_init(key->schema, item);
    if (r < 0) {
        reader->r = r;
        return NULL;
    }
    return item;
}

/* Every item begins with its name. */
static const char *item_name(const void *item)
{
    return *(char *const *)item;
}

static void check_name_is_new(struct reader *reader, const struct config_key *key,
                              const yaml_node_t *node, const void *object, const char *path)
{
    const char *items = *(char *const *)config_field_const(object, key);
    const size_t last = config_list_length_const(object, key) - 1;
    const char *name = item_name(items + last * key->schema->bytes);
    for (size_t i = 0; name != NULL && i < last; i++) {
        const char *other = item_name(items + i * key->schema->bytes);
        if (other != NULL && strcmp(name, other) == 0) {
            char name_path[PATH_BYTES];
            snprintf(name_path, sizeof(name_path), "%.*s.name", PATH_BYTES - 8, path);
            const yaml_node_t *value = mapping_find(reader->source->document, node, "name");
            complain(reader, value == NULL ? node->start_mark : value->start_mark, name_path, name,
                     "is the name of an earlier entry; give each its own");
            return;
        }
    }
}

/* The default entry of that list with the name that `node` has; NULL when there is none. */
static const yaml_node_t *default_item(struct reader *reader, const struct config_key *key,
                                       const yaml_node_t *node)
{
    const yaml_node_t *name = mapping_find(reader->source->document, node, "name");
    if (reader->source == &reader->defaults || name == NULL || name->type != YAML_SCALAR_NODE) {
        return NULL;
    }
    yaml_document_t *document = reader->defaults.document;
    const yaml_node_t *list =
        mapping_find(document, yaml_document_get_root_node(document), key->name);
    for (size_t i = 0; list != NULL && i < node_length(list); i++) {
        const yaml_node_t *item =
            yaml_document_get_node(document, list->data.sequence.items.start[i]);
        if (strcmp(scalar(mapping_find(document, item, "name")), scalar(name)) == 0) {
            return item;
        }
    }
    return NULL;
}

/* NOLINTNEXTLINE(misc-no-recursion): see read_mapping */
static void read_item(struct reader *reader, const struct config_key *key, const yaml_node_t *node,
                      void *object, const char *path)
{
    void *item = items_append(reader, key, object);
    if (item == NULL) {
        return;
    }
    uint64_t given = 0;
    const yaml_node_t *start = key->starts_from_default ? default_item(reader, key, node) : NULL;
    if (start != NULL) {
        reader->source = &reader->defaults;
        read_mapping(reader, key->schema, start, item, path, &given);
        reader->source = &reader->file;
    }
    read_mapping(reader, key->schema, node, item, path, &given);
    if (node->type == YAML_MAPPING_NODE) {
        check_required(reader, key->schema, node, given, path);
        check_name_is_new(reader, key, node, object, path);
    }
}

/* NOLINTNEXTLINE(misc-no-recursion): see read_mapping */
static void read_items(struct reader *reader, const struct config_key *key, const yaml_node_t *node,
                       void *object, const char *path)
{
    if (!check_list(reader, node, key->min, key->max, path)) {
        return;
    }
    for (size_t i = 0; i < node_length(node) && reader->r == 0; i++) {
        char item_path[PATH_BYTES];
        snprintf(item_path, sizeof(item_path), "%.*s[%zu]", PATH_BYTES - 32, path, i);
        read_item(reader, key, node_item(reader, node, i), object, item_path);
    }
}

/* NOLINTNEXTLINE(misc-no-recursion): see read_mapping */
static void read_value(struct reader *reader, const struct config_key *key, const yaml_node_t *node,
                       void *object, const char *path)
{
    uint64_t given = 0;
    if (key->kind == KIND_SECTION) {
        /* A section whose keys are all commented out is an empty one. */
        if (!is_null(node)) {
            read_mapping(reader, key->schema, node, config_field(object, key), path, &given);
        }
    } else if (key->kind == KIND_ITEMS) {
        read_items(reader, key, node, object, path);
    } else if (key->kind == KIND_TIER_LISTS) {
        read_tier_lists(reader, key, node, object, path);
    } else if (key->kind == KIND_LIST) {
        const struct texts list = {key->item_kind, key->refers, config_field(object, key),
                                   config_list_length(object, key)};
        read_list(reader, key, &list, node, path);
    } else {
        read_scalar(reader, key, node, object, path);
    }
}

/* -----------------------------------------------------------------------------------------
 * defaults and references */

static void read_default(struct reader *reader, const char *name, struct config *config)
{
    const struct config_key *key = key_find(&config_schema, name);
    yaml_document_t *document = reader->defaults.document;
    reader->source = &reader->defaults;
    read_value(reader, key, mapping_find(document, yaml_document_get_root_node(document), name),
               config, name);
    reader->source = &reader->file;
}

static bool is_given(uint64_t given, const char *name)
{
    return (given >> (key_find(&config_schema, name) - config_schema.keys) & 1) != 0;
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
    struct config_route *route = items_append(reader, key_find(&config_schema, "routes"), config);
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
        complain(reader, mapping_find(reader->file.document, root, "providers")->start_mark,
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

/* What stands in for values that have no preset of their own. */
static int derive(struct config *config)
{
    for (size_t i = 0; i < config->models_length; i++) {
        struct config_model *model = &config->models[i];
        if (model->provider_model == NULL &&
            (model->provider_model = strdup(model->name)) == NULL) {
            return -ENOMEM;
        }
        if (model->cached_input_nanousd_per_mtok == CONFIG_PRICE_UNKNOWN) {
            model->cached_input_nanousd_per_mtok = model->input_nanousd_per_mtok;
        }
    }
    return config->worker.name == NULL ? default_worker_name(config) : 0;
}

static bool is_known(const struct config *config, enum config_names names, const char *name)
{
    switch (names) {
    case NAMES_ANY:
        return true;
    case NAMES_TIERS:
        return config_find_tier(config, name) != NULL;
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
    }
    return false;
}

static void check_references(struct reader *reader, const struct config *config)
{
    static const char *const whys[] = {
        [NAMES_TIERS] = "is not a tier; write the name of one in tiers",
        [NAMES_POOLS] = "is not a pool; add it to pools, or write one of those",
        [NAMES_PROVIDERS] = "is not a provider; write the name of one in providers",
        [NAMES_MODELS] = "is not a model; write the name of one in models",
        [NAMES_NOT_MODELS] = "is the name of a model, which is a route by itself; choose another",
    };
    for (size_t i = 0; i < reader->n_references; i++) {
        const struct reference *reference = &reader->references[i];
        if (!is_known(config, reference->names, reference->name)) {
            complain(reader, reference->mark, reference->path, reference->name,
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
        complain(reader, mapping_find(reader->file.document, root, "pools")->start_mark, "pools",
                 NULL, why);
    }
}

/* --------------------------------------------------------------------------------------------------------
 * a file */

static void read_root(struct reader *reader, struct config *config)
{
    uint64_t given = 0;
    const yaml_node_t *root = yaml_document_get_root_node(reader->file.document);
    if (root != NULL && !is_null(root)) {
        read_mapping(reader, &config_schema, root, config, "", &given);
    }
    if (reader->r == 0) {
        add_defaults(reader, root, given, config);
    }
    if (reader->r == 0) {
        check_references(reader, config);
    }
    if (reader->r == 0 && reader->errors->length == 0) {
        check_preset_pools(reader, root, config);
    }
    if (reader->r == 0 && reader->errors->length == 0) {
        reader->r = derive(config);
    }
}

static int read_document(yaml_document_t *document, const char *name, struct config *config,
                         struct config_errors *errors)
{
    yaml_document_t defaults;
    int r = config_yaml_load(config_default_lists, strlen(config_default_lists), "defaults",
                             &defaults, errors);
    if (r < 0) {
        return r;
    }
    struct reader reader = {.file = {name, document},
                            .defaults = {"defaults", &defaults},
                            .source = &reader.file,
                            .errors = errors};
    reader.r = config_object_init(&config_schema, config);
    if (reader.r == 0) {
        read_root(&reader, config);
    }
    for (size_t i = 0; i < reader.n_references; i++) {
        free(reader.references[i].name);
    }
    free(reader.references);
    yaml_document_delete(&defaults);
    config_errors_sort(errors);
    return reader.r < 0 ? reader.r : errors->length > 0 ? -EINVAL : 0;
}

int config_read_text(const char *text, size_t bytes, const char *name, struct config **ret_config,
                     struct config_errors *ret_errors)
{
    *ret_errors = (struct config_errors){.items = NULL};
    CLEANUP(config_destroy) struct config *config = calloc(1, sizeof(*config));
    if (config == NULL) {
        return -ENOMEM;
    }
    yaml_document_t document;
    int r = config_yaml_load(text, bytes, name, &document, ret_errors);
    if (r < 0) {
        return r;
    }
    r = read_document(&document, name, config, ret_errors);
    yaml_document_delete(&document);
    if (r < 0) {
        return r;
    }
    *ret_config = TAKE(config);
    return 0;
}

/* One byte more than a configuration may have, so that a longer one is seen to be longer. */
static int read_all(const char *path, char **ret_text, size_t *ret_bytes)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    char *text = malloc(CONFIG_FILE_BYTES_MAX + 1);
    size_t bytes = 0;
    int r = text == NULL ? -ENOMEM : 0;
    while (r == 0 && bytes <= CONFIG_FILE_BYTES_MAX) {
        const ssize_t n = read(fd, text + bytes, CONFIG_FILE_BYTES_MAX + 1 - bytes);
        if (n == 0) {
            break;
        }
        if (n > 0) {
            bytes += (size_t)n;
        } else if (errno != EINTR) {
            r = -errno;
        }
    }
    close(fd);
    if (r < 0) {
        free(text);
        return r;
    }
    *ret_text = text;
    *ret_bytes = bytes;
    return 0;
}

int config_read(const char *path, struct config **ret_config, struct config_errors *ret_errors)
{
    *ret_errors = (struct config_errors){.items = NULL};
    if (path == NULL) {
        return config_read_text("", 0, "defaults", ret_config, ret_errors);
    }
    char *text = NULL;
    size_t bytes = 0;
    int r = read_all(path, &text, &bytes);
    if (r < 0) {
        char why[CONFIG_WHY_BYTES];
        snprintf(why, sizeof(why), "cannot be read: %s", strerror(-r));
        const int added = config_errors_add(ret_errors, path, 0, 0, "", NULL, why);
        return added < 0 ? added : r;
    }
    r = config_read_text(text, bytes, path, ret_config, ret_errors);
    free(text);
    return r;
}
