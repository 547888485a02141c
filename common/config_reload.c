/*
 * What a reload may change. Both functions walk the tables and stop at the keys that are live: one
 * names the others where they differ, the other leaves them as they run.
 */
#include <stdio.h>
#include <string.h>

#include "common/config.h"
#include "common/config_schema.h"

struct differences {
    size_t length;
    FILE *out;
};

static void differ(struct differences *differences, const char *path, const char *name)
{
    differences->length++;
    if (differences->out != NULL) {
        fprintf(differences->out, "%s%s%s\n", path, path[0] == '\0' ? "" : ".", name);
    }
}

static bool texts_are_equal(const struct config_key *key, const void *before, const void *after)
{
    const size_t length = config_list_length_const(before, key);
    char *const *a = *(char **const *)config_field_const(before, key);
    char *const *b = *(char **const *)config_field_const(after, key);
    if (length != config_list_length_const(after, key)) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if (strcmp(a[i], b[i]) != 0) {
            return false;
        }
    }
    return true;
}

static bool values_are_equal(const struct config_key *key, const void *before, const void *after)
{
    if (key->kind == KIND_LIST) {
        return texts_are_equal(key, before, after);
    }
    if (config_kind_is_text(key->kind)) {
        return strcmp(*(char *const *)config_field_const(before, key),
                      *(char *const *)config_field_const(after, key)) == 0;
    }
    return config_number(before, key) == config_number(after, key);
}

static void compare(const struct config_schema *schema, const void *before, const void *after,
                    const char *path, struct differences *differences);

/* Whether both lists have the same names in the same order. */
static bool sets_are_equal(const struct config_key *key, const void *before, const void *after)
{
    const size_t length = config_list_length_const(before, key);
    const char *a = *(char *const *)config_field_const(before, key);
    const char *b = *(char *const *)config_field_const(after, key);
    const size_t step = key->schema->bytes;
    bool are_equal = length == config_list_length_const(after, key);
    for (size_t i = 0; are_equal && i < length; i++) {
        are_equal = values_are_equal(&key->schema->keys[0], a + i * step, b + i * step);
    }
    return are_equal;
}

/* Entries are compared where both lists are the same set; otherwise the list itself differs. */
/* NOLINTNEXTLINE(misc-no-recursion): as deep as the schemas, which are three levels */
static void compare_items(const struct config_key *key, const void *before, const void *after,
                          struct differences *differences)
{
    if (!sets_are_equal(key, before, after)) {
        differ(differences, "", key->name);
        return;
    }
    const char *a = *(char *const *)config_field_const(before, key);
    const char *b = *(char *const *)config_field_const(after, key);
    const size_t step = key->schema->bytes;
    for (size_t i = 0; i < config_list_length_const(before, key); i++) {
        char path[CONFIG_NAME_BYTES_MAX * 2];
        snprintf(path, sizeof(path), "%.32s[%zu]", key->name, i);
        compare(key->schema, a + i * step, b + i * step, path, differences);
    }
}

/* NOLINTNEXTLINE(misc-no-recursion): see above */
static void compare(const struct config_schema *schema, const void *before, const void *after,
                    const char *path, struct differences *differences)
{
    for (size_t i = 0; i < schema->length; i++) {
        const struct config_key *key = &schema->keys[i];
        if (key->is_live) {
            continue;
        }
        if (key->kind == KIND_SECTION) {
            char section[CONFIG_NAME_BYTES_MAX * 2];
            snprintf(section, sizeof(section), "%.64s%s%.32s", path, path[0] == '\0' ? "" : ".",
                     key->name);
            compare(key->schema, config_field_const(before, key), config_field_const(after, key),
                    section, differences);
        } else if (key->kind == KIND_ITEMS) {
            compare_items(key, before, after, differences);
        } else if (!values_are_equal(key, before, after)) {
            differ(differences, path, key->name);
        }
    }
}

size_t config_diff_restart(const struct config *before, const struct config *after, FILE *out)
{
    struct differences differences = {.out = out};
    compare(&config_schema, before, after, "", &differences);
    return differences.length;
}

/* ---------------------------------------------------------------------------- carried over */

static void swap_bytes(void *a, void *b, size_t bytes)
{
    char *at_a = a;
    char *at_b = b;
    for (size_t i = 0; i < bytes; i++) {
        const char kept = at_a[i];
        at_a[i] = at_b[i];
        at_b[i] = kept;
    }
}

static void swap_values(const struct config_key *key, void *a, void *b)
{
    swap_bytes(config_field(a, key), config_field(b, key), key->bytes);
    if (key->kind == KIND_LIST || key->kind == KIND_ITEMS) {
        swap_bytes(config_list_length(a, key), config_list_length(b, key), sizeof(size_t));
    }
}

/* NOLINTNEXTLINE(misc-no-recursion): see above */
static void carry_over(const struct config_schema *schema, void *running, void *next)
{
    for (size_t i = 0; i < schema->length; i++) {
        const struct config_key *key = &schema->keys[i];
        if (key->is_live) {
            continue;
        }
        if (key->kind == KIND_SECTION) {
            carry_over(key->schema, config_field(running, key), config_field(next, key));
        } else if (key->kind == KIND_ITEMS && sets_are_equal(key, running, next)) {
            char *a = *(char **)config_field(running, key);
            char *b = *(char **)config_field(next, key);
            for (size_t j = 0; j < *config_list_length(running, key); j++) {
                carry_over(key->schema, a + j * key->schema->bytes, b + j * key->schema->bytes);
            }
        } else {
            swap_values(key, running, next);
        }
    }
}

void config_carry_over(struct config *running, struct config *next)
{
    carry_over(&config_schema, running, next);
}
