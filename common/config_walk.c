/*
 * Recursion follows the schemas, not the file: keys lead from one level to the next, and there are
 * three. A list's or mapping's faulty entry is left out and the rest still read, so that all errors
 * are found at once.
 */
#include "common/config_walk.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_expand.h"

/* A list of texts to be filled. */
struct texts {
    enum config_kind kind;
    enum config_names refers;
    bool is_secret;
    char ***texts;
    size_t *length;
};

void config_complain(struct reader *reader, yaml_mark_t mark, const char *path, const char *value,
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

/* ----------------------------------------------------------------------------------- scalars */

static const char *scalar(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

/* Nothing behind the colon. */
bool config_is_null(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (scalar(node)[0] == '\0' || strcmp(scalar(node), "~") == 0 ||
            strcmp(scalar(node), "null") == 0);
}

/* The text of a scalar with its variables replaced, to be freed, and the last of them that had a
 * value; NULL: there is none, and why was noted. */
static char *read_text(struct reader *reader, const yaml_node_t *node, const char *path,
                       bool is_secret, char ret_variable[CONFIG_VARIABLE_BYTES])
{
    if (node->type != YAML_SCALAR_NODE) {
        config_complain(reader, node->start_mark, path, NULL,
                        node->type == YAML_SEQUENCE_NODE ? "is a list; write one value"
                                                         : "is a mapping; write one value");
        return NULL;
    }
    if (config_is_null(node)) {
        config_complain(
            reader, node->start_mark, path, NULL,
            "has no value; write one (\"\" for an empty text), or leave the key out for its "
            "default");
        return NULL;
    }
    if (strlen(scalar(node)) != node->data.scalar.length) {
        config_complain(reader, node->start_mark, path, NULL,
                        "has a zero byte in it; leave it out");
        return NULL;
    }
    char why[CONFIG_WHY_BYTES];
    char *text = NULL;
    const int r = config_expand(scalar(node), &text, ret_variable, why);
    if (r == -EINVAL) {
        config_complain(reader, node->start_mark, path, is_secret ? "***" : scalar(node), why);
    } else if (r < 0) {
        reader->r = r;
    }
    return text;
}

/* The file's own text is shown with it, whose default may be good. */
static void name_variable(const char *variable, char why[CONFIG_WHY_BYTES])
{
    const size_t length = strlen(why);
    if (variable[0] != '\0') {
        (void)snprintf(why + length, CONFIG_WHY_BYTES - length,
                       "; it comes from the environment variable %s", variable);
    }
}

static void read_scalar(struct reader *reader, const struct config_key *key,
                        const yaml_node_t *node, void *object, const char *path)
{
    char variable[CONFIG_VARIABLE_BYTES];
    char *text = read_text(reader, node, path, key->is_secret, variable);
    if (text == NULL) {
        return;
    }
    char why[CONFIG_WHY_BYTES];
    const int r = config_value_set(key, text, object, why);
    if (r == -EINVAL) {
        name_variable(variable, why);
        config_complain(reader, node->start_mark, path, key->is_secret ? "***" : scalar(node), why);
    } else if (r < 0) {
        reader->r = r;
    } else {
        refer(reader, key->refers, text, path, node->start_mark);
    }
    free(text);
}

/* ------------------------------------------------------------------------------------- lists */

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
        config_complain(reader, node->start_mark, path,
                        node->type == YAML_SCALAR_NODE ? scalar(node) : NULL,
                        "is not a list; write [a, b] or one entry a line, each behind a dash");
        return false;
    }
    const int64_t length = (int64_t)node_length(node);
    if (length < min || length > max) {
        snprintf(why, sizeof(why),
                 "has %lld entries; write %lld to %lld, or leave the key out for its default",
                 (long long)length, (long long)min, (long long)max);
        config_complain(reader, node->start_mark, path, NULL, why);
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
    char variable[CONFIG_VARIABLE_BYTES];
    char *text = read_text(reader, node, path, list->is_secret, variable);
    if (text == NULL) {
        return;
    }
    const char *shown = list->is_secret ? "***" : scalar(node);
    char why[CONFIG_WHY_BYTES];
    if (config_text_check(list->kind, text, why) < 0) {
        name_variable(variable, why);
        config_complain(reader, node->start_mark, path, shown, why);
    } else if (has_text(list, text)) {
        config_complain(reader, node->start_mark, path, shown,
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
    char variable[CONFIG_VARIABLE_BYTES];
    char *tier = read_text(reader, name, path, false, variable);
    if (tier == NULL) {
        return;
    }
    const struct config_route_tier *lists = *(struct config_route_tier **)config_field(object, key);
    for (size_t i = 0; i < *config_list_length(object, key); i++) {
        if (strcmp(lists[i].tier, tier) == 0) {
            config_complain(reader, name->start_mark, path, tier, "is given twice; leave one out");
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
    const struct texts texts = {key->item_kind, key->refers, false, &list->models,
                                &list->models_length};
    read_list(reader, &models, &texts,
              yaml_document_get_node(reader->source->document, pair->value), list_path);
}

static void read_tier_lists(struct reader *reader, const struct config_key *key,
                            const yaml_node_t *node, void *object, const char *path)
{
    if (node->type != YAML_MAPPING_NODE) {
        config_complain(reader, node->start_mark, path, NULL,
                        "is not a mapping; write {TIER: [MODEL, ...], ...}");
        return;
    }
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top && reader->r == 0; pair++) {
        read_tier_list(reader, key, pair, object, path);
    }
}

/* ---------------------------------------------------------------------------------- mappings */

static void complain_of_key(struct reader *reader, const struct config_schema *schema,
                            const yaml_node_t *name, const char *path)
{
    char why[CONFIG_WHY_BYTES], elsewhere[PATH_BYTES / 2];
    const struct config_key *nearest = config_key_nearest(schema, scalar(name));
    if (nearest != NULL) {
        snprintf(why, sizeof(why), "is not a key; did you mean %s?", nearest->name);
    } else if (config_key_elsewhere(path, scalar(name), elsewhere, sizeof(elsewhere))) {
        snprintf(why, sizeof(why), "is not a key here; did you mean %s?", elsewhere);
    } else {
        snprintf(why, sizeof(why), "is not a key; `tiermq config reference` lists those there are");
    }
    config_complain(reader, name->start_mark, path, scalar(name), why);
}

const yaml_node_t *config_mapping_find(yaml_document_t *document, const yaml_node_t *mapping,
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
    const yaml_node_t *value = config_mapping_find(reader->source->document, node, complaint.key);
    char key_path[PATH_BYTES];
    snprintf(key_path, sizeof(key_path), "%.*s%s%s", PATH_BYTES - 64, path,
             path[0] == '\0' || complaint.key[0] == '\0' ? "" : ".", complaint.key);
    config_complain(reader, value == NULL ? node->start_mark : value->start_mark, key_path,
                    value != NULL && value->type == YAML_SCALAR_NODE ? scalar(value) : NULL,
                    complaint.text);
}

/* Reads the keys that stand in the node into the object; notes in `given` (a bit a key) which. */
/* NOLINTNEXTLINE(misc-no-recursion): as deep as the schemas, which are three levels */
void config_read_mapping(struct reader *reader, const struct config_schema *schema,
                         const yaml_node_t *node, void *object, const char *path, uint64_t *given)
{
    assert(schema->length <= CONFIG_KEYS_MAX);
    if (node->type != YAML_MAPPING_NODE) {
        config_complain(reader, node->start_mark, path,
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
            config_complain(reader, name->start_mark, path, NULL,
                            "has a key that is no word; write KEY: VALUE");
            continue;
        }
        const struct config_key *key = config_key_find(schema, scalar(name));
        if (key == NULL) {
            complain_of_key(reader, schema, name, path);
            continue;
        }
        char key_path[PATH_BYTES];
        snprintf(key_path, sizeof(key_path), "%.*s%s%s", PATH_BYTES - 64, path,
                 path[0] == '\0' ? "" : ".", key->name);
        const uint64_t bit = UINT64_C(1) << (key - schema->keys);
        if ((seen & bit) != 0) {
            config_complain(reader, name->start_mark, key_path, NULL,
                            "is given twice; leave one out");
            continue;
        }
        seen |= bit;
        config_read_value(reader, key,
                          yaml_document_get_node(reader->source->document, pair->value), object,
                          key_path);
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
            config_complain(reader, node->start_mark, path, NULL, why);
        }
    }
}

/* ------------------------------------------------------------------------- lists of mappings */

void *config_items_append(struct reader *reader, const struct config_key *key, void *object)
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
            const yaml_node_t *value = config_mapping_find(reader->source->document, node, "name");
            config_complain(reader, value == NULL ? node->start_mark : value->start_mark, name_path,
                            name, "is the name of an earlier entry; give each its own");
            return;
        }
    }
}

/* The default entry of that list with the name that `node` has; NULL when there is none. */
static const yaml_node_t *default_item(struct reader *reader, const struct config_key *key,
                                       const yaml_node_t *node)
{
    const yaml_node_t *name = config_mapping_find(reader->source->document, node, "name");
    if (reader->source == &reader->defaults || name == NULL || name->type != YAML_SCALAR_NODE) {
        return NULL;
    }
    yaml_document_t *document = reader->defaults.document;
    const yaml_node_t *list =
        config_mapping_find(document, yaml_document_get_root_node(document), key->name);
    for (size_t i = 0; list != NULL && i < node_length(list); i++) {
        const yaml_node_t *item =
            yaml_document_get_node(document, list->data.sequence.items.start[i]);
        if (strcmp(scalar(config_mapping_find(document, item, "name")), scalar(name)) == 0) {
            return item;
        }
    }
    return NULL;
}

/* NOLINTNEXTLINE(misc-no-recursion): see config_read_mapping */
static void read_item(struct reader *reader, const struct config_key *key, const yaml_node_t *node,
                      void *object, const char *path)
{
    void *item = config_items_append(reader, key, object);
    if (item == NULL) {
        return;
    }
    uint64_t given = 0;
    const yaml_node_t *start = key->starts_from_default ? default_item(reader, key, node) : NULL;
    if (start != NULL) {
        reader->source = &reader->defaults;
        config_read_mapping(reader, key->schema, start, item, path, &given);
        reader->source = &reader->file;
    }
    config_read_mapping(reader, key->schema, node, item, path, &given);
    if (node->type == YAML_MAPPING_NODE) {
        check_required(reader, key->schema, node, given, path);
        check_name_is_new(reader, key, node, object, path);
    }
}

/* NOLINTNEXTLINE(misc-no-recursion): see config_read_mapping */
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

/* NOLINTNEXTLINE(misc-no-recursion): see config_read_mapping */
void config_read_value(struct reader *reader, const struct config_key *key, const yaml_node_t *node,
                       void *object, const char *path)
{
    uint64_t given = 0;
    if (key->kind == KIND_SECTION) {
        /* A section whose keys are all commented out is an empty one. */
        if (!config_is_null(node)) {
            config_read_mapping(reader, key->schema, node, config_field(object, key), path, &given);
        }
    } else if (key->kind == KIND_ITEMS) {
        read_items(reader, key, node, object, path);
    } else if (key->kind == KIND_TIER_LISTS) {
        read_tier_lists(reader, key, node, object, path);
    } else if (key->kind == KIND_LIST) {
        const struct texts list = {key->item_kind, key->refers, key->is_secret,
                                   config_field(object, key), config_list_length(object, key)};
        read_list(reader, key, &list, node, path);
    } else {
        read_scalar(reader, key, node, object, path);
    }
}
