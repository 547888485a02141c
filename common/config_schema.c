/* The structs behind the schemas: presets in, everything out; and finding a key. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/config_schema.h"

int config_texts_append(char ***texts, size_t *length, const char *text)
{
    char **grown = reallocarray(*texts, *length + 1, sizeof(**texts));
    if (grown == NULL) {
        return -ENOMEM;
    }
    *texts = grown;
    char *copy = strdup(text);
    if (copy == NULL) {
        return -ENOMEM;
    }
    grown[(*length)++] = copy;
    return 0;
}

void config_texts_free(char ***texts, size_t *length)
{
    for (size_t i = 0; i < *length; i++) {
        free((*texts)[i]);
    }
    free(*texts);
    *texts = NULL;
    *length = 0;
}

/* The schemas are a tree of three levels, so the recursion below ends. */
/* NOLINTNEXTLINE(misc-no-recursion) */
static int preset(const struct config_key *key, void *object)
{
    if (key->kind == KIND_SECTION) {
        return config_object_init(key->schema, config_field(object, key));
    }
    if (key->preset == NULL) {
        if (key->kind == KIND_MONEY) {
            *(uint64_t *)config_field(object, key) = CONFIG_PRICE_UNKNOWN;
        }
        return 0;
    }
    if (key->kind == KIND_LIST) {
        return config_texts_append(config_field(object, key), config_list_length(object, key),
                                   key->preset);
    }
    char why[CONFIG_WHY_BYTES];
    const int r = config_value_set(key, key->preset, object, why);
    assert(r != -EINVAL); /* the table itself would be wrong */
    return r;
}

/* NOLINTNEXTLINE(misc-no-recursion) */
int config_object_init(const struct config_schema *schema, void *object)
{
    memset(object, 0, schema->bytes);
    for (size_t i = 0; i < schema->length; i++) {
        int r = preset(&schema->keys[i], object);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* NOLINTNEXTLINE(misc-no-recursion) */
static void items_finish(const struct config_key *key, void *object)
{
    char **items = config_field(object, key);
    for (size_t i = 0; i < *config_list_length(object, key); i++) {
        config_object_finish(key->schema, *items + i * key->schema->bytes);
    }
    free(*items);
}

static void tier_lists_finish(const struct config_key *key, void *object)
{
    struct config_route_tier **lists = config_field(object, key);
    for (size_t i = 0; i < *config_list_length(object, key); i++) {
        free((*lists)[i].tier);
        config_texts_free(&(*lists)[i].models, &(*lists)[i].models_length);
    }
    free(*lists);
}

/* NOLINTNEXTLINE(misc-no-recursion) */
void config_object_finish(const struct config_schema *schema, void *object)
{
    for (size_t i = 0; i < schema->length; i++) {
        const struct config_key *key = &schema->keys[i];
        if (key->kind == KIND_SECTION) {
            config_object_finish(key->schema, config_field(object, key));
        } else if (key->kind == KIND_ITEMS) {
            items_finish(key, object);
        } else if (key->kind == KIND_TIER_LISTS) {
            tier_lists_finish(key, object);
        } else if (key->kind == KIND_LIST) {
            config_texts_free(config_field(object, key), config_list_length(object, key));
        } else if (config_kind_is_text(key->kind)) {
            free(*(char **)config_field(object, key));
        }
    }
    memset(object, 0, schema->bytes);
}

const struct config_key *config_key_find(const struct config_schema *schema, const char *name)
{
    for (size_t i = 0; i < schema->length; i++) {
        if (strcmp(schema->keys[i].name, name) == 0) {
            return &schema->keys[i];
        }
    }
    return NULL;
}

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

const struct config_key *config_key_nearest(const struct config_schema *schema, const char *name)
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

enum { LONGER_BYTES = 128 };

struct elsewhere {
    const char *name;
    char longer[LONGER_BYTES]; /* with its section */
    size_t least;
    char *path;
    size_t bytes;
};

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the schemas, which are three levels */
static void look_elsewhere(struct elsewhere *elsewhere, const struct config_schema *schema,
                           const char *path)
{
    for (size_t i = 0; i < schema->length; i++) {
        const struct config_key *key = &schema->keys[i];
        char at[LONGER_BYTES];
        (void)snprintf(at, sizeof(at), "%s%s%s%s", path, path[0] == '\0' ? "" : ".", key->name,
                       key->kind == KIND_ITEMS ? "[]" : "");
        const size_t d = distance(elsewhere->name, key->name);
        const size_t longer = distance(elsewhere->longer, key->name);
        const size_t least = d < longer ? d : longer;
        if (least < elsewhere->least) {
            elsewhere->least = least;
            (void)snprintf(elsewhere->path, elsewhere->bytes, "%s", at);
        }
        if (key->schema != NULL) {
            look_elsewhere(elsewhere, key->schema, at);
        }
    }
}

bool config_key_elsewhere(const char *section, const char *name, char *ret_path, size_t bytes)
{
    /* Closer than in its own mapping: so many keys are near by chance. */
    const size_t limit = strlen(name) / 3 + 1;
    struct elsewhere elsewhere = {.name = name, .least = limit, .path = ret_path, .bytes = bytes};
    (void)snprintf(elsewhere.longer, sizeof(elsewhere.longer), "%s_%s", section, name);
    look_elsewhere(&elsewhere, &config_schema, "");
    return elsewhere.least < limit;
}
