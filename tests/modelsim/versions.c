#include "tests/modelsim/versions.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { NUMBER_MAX = 999999999 };

static int read_version(const json_t *item, struct version *ret_version)
{
    const char *text = json_string_value(json_object_get(item, "text"));
    const json_int_t number = json_integer_value(json_object_get(item, "version"));
    if (text == NULL || text[0] == '\0' || strlen(text) >= sizeof(ret_version->text) ||
        number < 0 || number > NUMBER_MAX) {
        return -EINVAL;
    }
    memcpy(ret_version->text, text, strlen(text) + 1);
    ret_version->number = (uint32_t)number;
    return 0;
}

int versions_read(struct versions *versions, const json_t *script, char *ret_error)
{
    const json_t *list = json_object_get(script, "versions");
    struct versions read = {.length = json_array_size(list)};
    if (!json_is_array(list) || read.length > VERSIONS_MAX) {
        snprintf(ret_error, 200, "versions must be a list of at most %d", VERSIONS_MAX);
        return -EINVAL;
    }
    for (size_t i = 0; i < read.length; i++) {
        if (read_version(json_array_get(list, i), &read.items[i]) < 0) {
            snprintf(ret_error, 200,
                     "versions[%zu]: text must have 1 to 63 bytes, version be 0 to %d", i,
                     NUMBER_MAX);
            return -EINVAL;
        }
    }
    *versions = read;
    return 0;
}

const struct version *versions_find(const struct versions *versions, const char *prompt)
{
    for (size_t i = 0; i < versions->length; i++) {
        if (strcasestr(prompt, versions->items[i].text) != NULL) {
            return &versions->items[i];
        }
    }
    return NULL;
}

json_t *versions_describe(const struct versions *versions)
{
    json_t *list = json_array();
    for (size_t i = 0; i < versions->length; i++) {
        const struct version *at = &versions->items[i];
        json_array_append_new(
            list, json_pack("{s:s, s:I}", "text", at->text, "version", (json_int_t)at->number));
    }
    return list;
}
