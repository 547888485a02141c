/*
 * Equal bytes are equal JSON, so nothing of the form is checked twice. What may differ is checked
 * to be a JSON string or number of its own. That `"content":` is the delta's is seen when the form
 * is learned: no string of JSON has it inside, for its quotes would be escaped there, it comes
 * once, and no other object of a form could have it.
 */
#include "worker/provider/delta.h"

#include <string.h>
#include <utf8proc.h>

static const char CONTENT[] = "\"content\":";
static const char OBFUSCATION[] = "\"obfuscation\":";

void delta_finish(struct delta *delta)
{
    bytes_finish(&delta->form);
    bytes_finish(&delta->text);
}

/* ---- learning ---- */

/* Beside `name`, an object has nothing but scalars. */
static bool has_scalars_beside(const json_t *object, const char *name)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)object, key, value) {
        if (strcmp(key, name) != 0 && (json_is_object(value) || json_is_array(value))) {
            return false;
        }
    }
    return true;
}

/* Beside its delta, it has nothing but its index and nulls. Where it ends is seen by the bracket.
 */
static bool choice_is_plain(const json_t *choice)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)choice, key, value) {
        const bool is_known = strcmp(key, "delta") == 0 || strcmp(key, "index") == 0;
        if (strchr(key, ']') != NULL || (!is_known && !json_is_null(value))) {
            return false;
        }
    }
    return true;
}

/* What stands behind a colon is taken for a value. */
static bool has_key_with_colon(const json_t *object)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)object, key, value) {
        if (strchr(key, ':') != NULL) {
            return true;
        }
    }
    return false;
}

/* Has the only thing that it says to be a text? */
static bool chunk_is_plain(const json_t *chunk)
{
    const json_t *choices = json_object_get(chunk, "choices");
    const json_t *choice = json_array_get(choices, 0);
    const json_t *delta = json_object_get(choice, "delta");
    return json_array_size(choices) == 1 && json_object_size(delta) == 1 &&
           json_is_string(json_object_get(delta, "content")) && choice_is_plain(choice) &&
           has_scalars_beside(chunk, "choices") && !has_key_with_colon(chunk) &&
           json_object_get(chunk, "content") == NULL;
}

/* Up to the opening quote, included; 0: there is none. */
static size_t find_text(const char *data, size_t bytes)
{
    const char *const end = data + bytes;
    const char *at = memmem(data, bytes, CONTENT, sizeof(CONTENT) - 1);
    if (at == NULL) {
        return 0;
    }
    at += sizeof(CONTENT) - 1;
    if (memmem(at, (size_t)(end - at), CONTENT, sizeof(CONTENT) - 1) != NULL) {
        return 0;
    }
    at += at < end && *at == ' ' ? 1 : 0;
    return at < end && *at == '"' ? (size_t)(at + 1 - data) : 0;
}

/* The closing quote of a string that is whole. */
static size_t find_close(const char *data, size_t at)
{
    while (data[at] != '"') {
        at += data[at] == '\\' ? 2 : 1;
    }
    return at;
}

void delta_learn(struct delta *delta, const json_t *chunk, const char *data, size_t bytes)
{
    bytes_clear(&delta->form);
    if (!chunk_is_plain(chunk)) {
        return;
    }
    const json_t *choice = json_array_get(json_object_get(chunk, "choices"), 0);
    const json_int_t index = json_integer_value(json_object_get(choice, "index"));
    const size_t before = find_text(data, bytes);
    delta->form.bytes_max = delta->text.bytes_max;
    if (before == 0 || index < 0 || memchr(data, '\n', bytes) != NULL ||
        bytes_append(&delta->form, data, bytes) < 0) {
        return; /* without a form every event is parsed */
    }
    delta->choice = (size_t)index;
    delta->before = before;
    delta->after = find_close(data, before);
}

/* ---- reading ---- */

/* What a backslash and this letter stand for; 0: the parser knows. */
static char unescaped(char letter)
{
    static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *at = letter == '\0' ? NULL : strchr(letters, letter);
    return at == NULL ? '\0' : values[at - letters];
}

/* Bytes that stand for themselves; 0 when there are none, or what is no UTF-8. */
static size_t plain_run(const char *data, size_t bytes)
{
    size_t at = 0;
    while (at < bytes && data[at] != '"' && data[at] != '\\' && (unsigned char)data[at] >= ' ') {
        utf8proc_int32_t point;
        utf8proc_ssize_t length = 1;
        if ((unsigned char)data[at] >= 0x80) {
            length = utf8proc_iterate((const utf8proc_uint8_t *)data + at,
                                      (utf8proc_ssize_t)(bytes - at), &point);
        }
        if (length < 1) {
            return 0;
        }
        at += (size_t)length;
    }
    return at;
}

/* The text into delta->text, *at from behind its opening quote to its closing one. */
static bool take_text(struct delta *delta, const char *data, size_t bytes, size_t *at)
{
    bytes_clear(&delta->text);
    while (*at < bytes && data[*at] != '"') {
        const size_t run = plain_run(data + *at, bytes - *at);
        if (run > 0) {
            if (bytes_append(&delta->text, data + *at, run) < 0) {
                return false;
            }
            *at += run;
            continue;
        }
        const char letter = data[*at] == '\\' && *at + 1 < bytes ? unescaped(data[*at + 1]) : '\0';
        if (letter == '\0' || bytes_append(&delta->text, &letter, 1) < 0) {
            return false;
        }
        *at += 2;
    }
    return *at < bytes;
}

static bool is_digit(char letter)
{
    return letter >= '0' && letter <= '9';
}

/* The rest of the form and of the event, side by side. */
struct pair {
    const char *form, *form_end;
    const char *data, *data_end;
};

static size_t digits(const char *at, const char *end)
{
    size_t length = 0;
    while (at + length < end && is_digit(at[length])) {
        length++;
    }
    return length;
}

/* A number from 1 on: 0 says nothing, and might have been learned as that. */
static bool skip_numbers(struct pair *pair)
{
    const size_t ours = digits(pair->form, pair->form_end);
    const size_t theirs = digits(pair->data, pair->data_end);
    if (ours == 0 || theirs == 0 || pair->form[0] == '0' || pair->data[0] == '0' || theirs > 15) {
        return false;
    }
    pair->form += ours;
    pair->data += theirs;
    return true;
}

/* Two strings without escapes, up to their closing quotes. */
static bool skip_strings(struct pair *pair)
{
    const char *form = pair->form + 1, *data = pair->data + 1;
    form += plain_run(form, (size_t)(pair->form_end - form));
    data += plain_run(data, (size_t)(pair->data_end - data));
    if (form == pair->form_end || data == pair->data_end || *form != '"' || *data != '"') {
        return false;
    }
    pair->form = form;
    pair->data = data;
    return true;
}

static bool is_behind(const char *start, const char *at, const char *what, size_t bytes)
{
    return (size_t)(at - start) >= bytes && memcmp(at - bytes, what, bytes) == 0;
}

/* Behind the choices: equal, but for what tells nothing. */
static bool tails_are_alike(struct pair *pair)
{
    const char *const start = pair->form;
    while (pair->form < pair->form_end && pair->data < pair->data_end) {
        if (*pair->form != *pair->data && !(is_digit(*pair->form) && is_digit(*pair->data))) {
            return false;
        }
        const bool is_value = pair->form > start && pair->form[-1] == ':';
        if (is_value && is_digit(*pair->form) && skip_numbers(pair)) {
            continue;
        }
        if (is_value && *pair->form == '"' &&
            is_behind(start, pair->form, OBFUSCATION, sizeof(OBFUSCATION) - 1) &&
            skip_strings(pair)) {
            continue;
        }
        if (*pair->form != *pair->data) {
            return false;
        }
        pair->form++;
        pair->data++;
    }
    return pair->form == pair->form_end && pair->data == pair->data_end;
}

/* Up to the end of the choices all is equal; their end is the first bracket: choice_is_plain(). */
static bool rests_are_alike(const struct delta *delta, const char *data, size_t bytes)
{
    const char *form = delta->form.data + delta->after;
    const size_t form_bytes = delta->form.length - delta->after;
    const char *close = memchr(form, ']', form_bytes);
    const size_t same = close == NULL ? form_bytes : (size_t)(close - form);
    if (bytes < same || memcmp(form, data, same) != 0) {
        return false;
    }
    struct pair pair = {.form = form + same,
                        .form_end = form + form_bytes,
                        .data = data + same,
                        .data_end = data + bytes};
    return tails_are_alike(&pair);
}

bool delta_read(struct delta *delta, const char *data, size_t bytes)
{
    if (delta->form.length == 0 || bytes < delta->before ||
        memcmp(delta->form.data, data, delta->before) != 0) {
        return false;
    }
    size_t at = delta->before;
    return take_text(delta, data, bytes, &at) && rests_are_alike(delta, data + at, bytes - at);
}
