#include "worker/provider/body.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <string.h>

/*
 * A cursor over JSON text; every step is bounded by `end`, so even text that is no JSON is only
 * refused.
 */
struct cursor {
    const char *at;
    const char *end;
};

static void cursor_skip_space(struct cursor *cursor)
{
    while (cursor->at < cursor->end && strchr(" \t\r\n", *cursor->at) != NULL &&
           *cursor->at != '\0') {
        cursor->at++;
    }
}

static bool cursor_take(struct cursor *cursor, char wanted)
{
    cursor_skip_space(cursor);
    if (cursor->at == cursor->end || *cursor->at != wanted) {
        return false;
    }
    cursor->at++;
    return true;
}

/* Past a string, whose opening quote is at the cursor. */
static bool cursor_skip_string(struct cursor *cursor)
{
    if (!cursor_take(cursor, '"')) {
        return false;
    }
    while (cursor->at < cursor->end) {
        const char c = *cursor->at++;
        if (c == '"') {
            return true;
        }
        if (c == '\\' && cursor->at < cursor->end) {
            cursor->at++;
        }
    }
    return false;
}

/* Past a value: up to the comma or bracket that ends it at this depth. */
static bool cursor_skip_value(struct cursor *cursor)
{
    size_t depth = 0;
    cursor_skip_space(cursor);
    while (cursor->at < cursor->end) {
        const char c = *cursor->at;
        if (c == '"') {
            if (!cursor_skip_string(cursor)) {
                return false;
            }
            continue;
        }
        if (depth == 0 && (c == ',' || c == '}' || c == ']')) {
            return true;
        }
        if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            depth--;
        }
        cursor->at++;
    }
    return false;
}

/*
 * `token` is a JSON string with its quotes. Escaped names are decoded, so that "mod\u0065l" does
 * not slip by.
 */
static bool name_is(const char *token, size_t bytes, const char *name)
{
    if (memchr(token, '\\', bytes) == NULL) {
        return strlen(name) == bytes - 2 && memcmp(token + 1, name, bytes - 2) == 0;
    }
    json_t *decoded = json_loadb(token, bytes, JSON_DECODE_ANY, NULL);
    const bool is_same = json_is_string(decoded) && strcmp(json_string_value(decoded), name) == 0;
    json_decref(decoded);
    return is_same;
}

static bool is_replaced(const char *token, size_t bytes, const struct body_member *members,
                        size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (name_is(token, bytes, members[i].name)) {
            return true;
        }
    }
    return false;
}

static int append_separator(struct bytes *out, bool *is_first)
{
    if (*is_first) {
        *is_first = false;
        return 0;
    }
    return bytes_append(out, ",", 1);
}

/* One member, at the cursor; copied unless it is replaced. */
static int copy_member(struct cursor *cursor, const struct body_member *members, size_t length,
                       struct bytes *out, bool *is_first)
{
    cursor_skip_space(cursor);
    const char *name = cursor->at;
    if (!cursor_skip_string(cursor)) {
        return -EINVAL;
    }
    const size_t name_bytes = (size_t)(cursor->at - name);
    if (!cursor_take(cursor, ':') || !cursor_skip_value(cursor)) {
        return -EINVAL;
    }
    if (is_replaced(name, name_bytes, members, length)) {
        return 0;
    }
    int r = append_separator(out, is_first);
    return r < 0 ? r : bytes_append(out, name, (size_t)(cursor->at - name));
}

static int append_member(const struct body_member *member, struct bytes *out, bool *is_first)
{
    int r = append_separator(out, is_first);
    r = r < 0 ? r : bytes_append(out, "\"", 1);
    r = r < 0 ? r : bytes_append_text(out, member->name);
    r = r < 0 ? r : bytes_append(out, "\":", 2);
    return r < 0 ? r : bytes_append_text(out, member->value);
}

int body_rewrite(const void *body, size_t bytes, const struct body_member *members,
                 size_t members_length, struct bytes *out)
{
    struct cursor cursor = {.at = body, .end = (const char *)body + bytes};
    bool is_first = true;
    if (!cursor_take(&cursor, '{')) {
        return -EINVAL;
    }
    int r = bytes_append(out, "{", 1);
    bool is_open = !cursor_take(&cursor, '}');
    while (r == 0 && is_open) {
        r = copy_member(&cursor, members, members_length, out, &is_first);
        if (r == 0 && !cursor_take(&cursor, ',')) {
            is_open = false;
            r = cursor_take(&cursor, '}') ? 0 : -EINVAL;
        }
    }
    for (size_t i = 0; r == 0 && i < members_length; i++) {
        r = members[i].value == NULL ? 0 : append_member(&members[i], out, &is_first);
    }
    return r < 0 ? r : bytes_append(out, "}", 1);
}

/* Past a member's name and its colon. */
static bool take_name(struct cursor *cursor, struct body_slice *ret_name)
{
    cursor_skip_space(cursor);
    ret_name->data = cursor->at;
    if (!cursor_skip_string(cursor)) {
        return false;
    }
    ret_name->bytes = (size_t)(cursor->at - ret_name->data);
    return cursor_take(cursor, ':');
}

int body_find(const void *body, size_t bytes, const char *name, struct body_slice *ret_value)
{
    struct cursor cursor = {.at = body, .end = (const char *)body + bytes};
    struct body_slice member;
    bool is_open = cursor_take(&cursor, '{');
    while (is_open && take_name(&cursor, &member)) {
        cursor_skip_space(&cursor);
        const char *value = cursor.at;
        is_open = cursor_skip_value(&cursor);
        if (name_is(member.data, member.bytes, name)) {
            *ret_value = (struct body_slice){value, (size_t)(cursor.at - value)};
            return 0;
        }
        is_open = is_open && cursor_take(&cursor, ',');
    }
    return -ENOENT;
}

int body_list(const struct body_slice *array, struct body_slice *ret_elements, size_t elements_max,
              size_t *ret_length, bool *ret_is_whole)
{
    struct cursor cursor = {.at = array->data, .end = array->data + array->bytes};
    size_t length = 0;
    if (!cursor_take(&cursor, '[')) {
        return -EINVAL;
    }
    bool is_ended = cursor_take(&cursor, ']');
    bool is_open = !is_ended;
    while (is_open) {
        cursor_skip_space(&cursor);
        const char *element = cursor.at;
        if (!cursor_skip_value(&cursor)) {
            break;
        }
        if (length == elements_max) {
            return -E2BIG;
        }
        ret_elements[length++] = (struct body_slice){element, (size_t)(cursor.at - element)};
        is_open = cursor_take(&cursor, ',');
        is_ended = !is_open && cursor_take(&cursor, ']');
    }
    *ret_length = length;
    *ret_is_whole = is_ended;
    return 0;
}
