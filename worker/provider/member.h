/* member: texts in foreign JSON, where what is missing or of another type is an empty one. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <string.h>

/* A member's text; "" when there is none. Borrowed. */
static inline const char *member_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

static inline bool member_is(const json_t *object, const char *name, const char *wanted)
{
    return strcmp(member_text(object, name), wanted) == 0;
}
