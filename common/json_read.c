/*
 * Containers under way lie on a stack; each is owned by the one around it from its beginning, so
 * that letting go of the outermost releases all. A step that meets what it does not know returns
 * NULL or false, and the whole text goes to jansson.
 */
#include "common/json_read.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum {
    INTEGER_DIGITS_MAX = 18,  /* fit into 63 bits */
    REAL_DIGITS_MAX = 15,     /* fit into the 53 bits of a double, … */
    FRACTION_DIGITS_MAX = 22, /* … and such a power of ten does: one rounding, the right one */
    HEX_DIGITS = 4,
};

struct reader {
    const char *at, *end;
    bool rejects_duplicates;
    json_t *open[JSON_READ_DEPTH_MAX];
    size_t depth;
    char *room; /* of a text with escapes; as long as what is read */
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static void skip_space(struct reader *reader)
{
    while (reader->at < reader->end && (*reader->at == ' ' || *reader->at == '\n' ||
                                        *reader->at == '\r' || *reader->at == '\t')) {
        reader->at++;
    }
}

static bool take(struct reader *reader, char wanted)
{
    skip_space(reader);
    if (reader->at == reader->end || *reader->at != wanted) {
        return false;
    }
    reader->at++;
    return true;
}

/* ---- texts ---- */

/* Past bytes that stand for themselves. *ret_is_ascii: cleared by one that is none. */
static const char *skip_plain(const char *at, const char *end, bool *ret_is_ascii)
{
    unsigned char all = 0;
    while (at < end && *at != '"' && *at != '\\' && (unsigned char)*at >= ' ') {
        all |= (unsigned char)*at++;
    }
    *ret_is_ascii = *ret_is_ascii && all < 0x80;
    return at;
}

static int hex_value(char c)
{
    if (is_digit(c)) {
        return c - '0';
    }
    const char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* The four digits behind a backslash and u. No NUL, which a flag decides on, no half of a pair. */
static size_t read_character(struct reader *reader, char *out)
{
    utf8proc_int32_t character = 0;
    if (reader->end - reader->at < HEX_DIGITS) {
        return 0;
    }
    for (size_t i = 0; i < HEX_DIGITS; i++) {
        const int value = hex_value(*reader->at++);
        if (value < 0) {
            return 0;
        }
        character = character * 16 + value;
    }
    const bool is_half = character >= 0xd800 && character <= 0xdfff;
    return character == 0 || is_half
               ? 0
               : (size_t)utf8proc_encode_char(character, (utf8proc_uint8_t *)out);
}

/* The cursor at its backslash. Returns how many bytes it stands for, 0: unknown. */
static size_t read_escape(struct reader *reader, char *out)
{
    static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    if (reader->end - reader->at < 2) {
        return 0;
    }
    const char letter = reader->at[1];
    reader->at += 2;
    if (letter == 'u') {
        return read_character(reader, out);
    }
    const char *known = letter == '\0' ? NULL : strchr(letters, letter);
    if (known == NULL) {
        return 0;
    }
    *out = values[known - letters];
    return 1;
}

static json_t *text_create(const char *text, size_t bytes, bool is_ascii)
{
    return is_ascii ? json_stringn_nocheck(text, bytes) : json_stringn(text, bytes);
}

/* A text of whose `bytes` before the cursor none is escaped, and the next one is. */
static json_t *read_escaped(struct reader *reader, const char *start, bool is_ascii)
{
    if (reader->room == NULL) {
        reader->room =
            malloc((size_t)(reader->end - start)); /* an escape is longer than its value */
    }
    if (reader->room == NULL) {
        return NULL;
    }
    size_t length = 0;
    const char *run = start;
    while (reader->at < reader->end && *reader->at != '"') {
        memcpy(reader->room + length, run, (size_t)(reader->at - run));
        length += (size_t)(reader->at - run);
        const size_t bytes = *reader->at == '\\' ? read_escape(reader, reader->room + length) : 0;
        if (bytes == 0) {
            return NULL;
        }
        is_ascii = is_ascii && (unsigned char)reader->room[length] < 0x80;
        length += bytes;
        run = reader->at;
        reader->at = skip_plain(reader->at, reader->end, &is_ascii);
    }
    if (reader->at == reader->end) {
        return NULL;
    }
    memcpy(reader->room + length, run, (size_t)(reader->at - run));
    length += (size_t)(reader->at - run);
    reader->at++;
    return text_create(reader->room, length, is_ascii);
}

/* The cursor behind its opening quote. */
static json_t *read_text(struct reader *reader)
{
    bool is_ascii = true;
    const char *start = reader->at;
    reader->at = skip_plain(start, reader->end, &is_ascii);
    if (reader->at == reader->end) {
        return NULL;
    }
    if (*reader->at != '"') {
        return read_escaped(reader, start, is_ascii);
    }
    return text_create(start, (size_t)(reader->at++ - start), is_ascii);
}

/* With its colon, and a NUL. */
static bool read_name(struct reader *reader, char ret_name[JSON_READ_NAME_BYTES_MAX + 1])
{
    bool is_ascii = true;
    if (!take(reader, '"')) {
        return false;
    }
    const char *start = reader->at;
    reader->at = skip_plain(start, reader->end, &is_ascii);
    const size_t bytes = (size_t)(reader->at - start);
    if (!is_ascii || bytes > JSON_READ_NAME_BYTES_MAX || reader->at == reader->end ||
        *reader->at++ != '"') {
        return false;
    }
    memcpy(ret_name, start, bytes);
    ret_name[bytes] = '\0';
    return take(reader, ':');
}

/* ---- numbers and words ---- */

static size_t read_digits(struct reader *reader, uint64_t *value)
{
    const char *start = reader->at;
    while (reader->at < reader->end && is_digit(*reader->at) &&
           reader->at - start <= INTEGER_DIGITS_MAX) {
        *value = *value * 10 + (uint64_t)(*reader->at++ - '0');
    }
    return (size_t)(reader->at - start);
}

/* The cursor behind the point. `value` is of the `digits` before it. */
static json_t *read_real(struct reader *reader, bool is_negative, uint64_t value, size_t digits)
{
    static const double powers[FRACTION_DIGITS_MAX + 1] = {
        1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
        1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    uint64_t fraction = 0;
    const size_t fraction_digits = read_digits(reader, &fraction);
    if (fraction_digits == 0 || digits + fraction_digits > REAL_DIGITS_MAX) {
        return NULL;
    }
    for (size_t i = 0; i < fraction_digits; i++) {
        value *= 10;
    }
    const double real = (double)(value + fraction) / powers[fraction_digits];
    return json_real(is_negative ? -real : real);
}

static bool is_ended(const struct reader *reader)
{
    return reader->at == reader->end || (*reader->at != 'e' && *reader->at != 'E');
}

static json_t *read_number(struct reader *reader)
{
    const bool is_negative = *reader->at == '-';
    reader->at += is_negative ? 1 : 0;
    const char *start = reader->at;
    uint64_t value = 0;
    const size_t digits = read_digits(reader, &value);
    const bool is_padded = digits > 1 && *start == '0';
    if (digits == 0 || digits > INTEGER_DIGITS_MAX || is_padded) {
        return NULL;
    }
    if (reader->at < reader->end && *reader->at == '.') {
        reader->at++;
        return read_real(reader, is_negative, value, digits);
    }
    return json_integer(is_negative ? -(json_int_t)value : (json_int_t)value);
}

static bool take_word(struct reader *reader, const char *word, size_t bytes)
{
    if ((size_t)(reader->end - reader->at) < bytes || memcmp(reader->at, word, bytes) != 0) {
        return false;
    }
    reader->at += bytes;
    return true;
}

static json_t *read_word(struct reader *reader)
{
    return take_word(reader, "true", 4)    ? json_true()
           : take_word(reader, "false", 5) ? json_false()
           : take_word(reader, "null", 4)  ? json_null()
                                           : NULL;
}

/* ---- values ---- */

/* A container is given empty; what it holds comes next. */
static json_t *read_value(struct reader *reader)
{
    skip_space(reader);
    if (reader->at == reader->end) {
        return NULL;
    }
    const char first = *reader->at;
    if (first == '"') {
        reader->at++;
        return read_text(reader);
    }
    if (first == '{' || first == '[') {
        reader->at++;
        return first == '{' ? json_object() : json_array();
    }
    if (is_digit(first) || first == '-') {
        json_t *number = read_number(reader);
        if (number != NULL && !is_ended(reader)) {
            json_decref(number);
            return NULL;
        }
        return number;
    }
    return read_word(reader);
}

static bool is_container(const json_t *value)
{
    return json_is_object(value) || json_is_array(value);
}

/* Into the innermost container. Takes `value`, which may be NULL. */
static bool put(struct reader *reader, const char *name, json_t *value)
{
    json_t *inmost = reader->open[reader->depth - 1];
    if (name == NULL) {
        return json_array_append_new(inmost, value) == 0;
    }
    const size_t before = json_object_size(inmost);
    return json_object_set_new_nocheck(inmost, name, value) == 0 &&
           (!reader->rejects_duplicates || json_object_size(inmost) > before);
}

/* Behind a value: past the ends of containers, up to where the next value is to come. */
static bool close_containers(struct reader *reader)
{
    while (reader->depth > 0 &&
           take(reader, json_is_object(reader->open[reader->depth - 1]) ? '}' : ']')) {
        reader->depth--;
    }
    return reader->depth == 0 || take(reader, ',');
}

/* A value of the innermost container, and what follows it up to the next. */
static bool read_member(struct reader *reader)
{
    char name[JSON_READ_NAME_BYTES_MAX + 1];
    const bool has_name = json_is_object(reader->open[reader->depth - 1]);
    if (has_name && !read_name(reader, name)) {
        return false;
    }
    json_t *value = read_value(reader);
    if (!put(reader, has_name ? name : NULL, value)) {
        return false;
    }
    if (!is_container(value)) {
        return close_containers(reader);
    }
    if (take(reader, json_is_object(value) ? '}' : ']')) {
        return close_containers(reader);
    }
    if (reader->depth == JSON_READ_DEPTH_MAX) {
        return false;
    }
    reader->open[reader->depth++] = value;
    return true;
}

/* NULL: jansson is to be asked. */
static json_t *read_ordinary(struct reader *reader)
{
    json_t *root = read_value(reader);
    if (!is_container(root)) {
        json_decref(root);
        return NULL;
    }
    bool is_good = true;
    if (!take(reader, json_is_object(root) ? '}' : ']')) {
        reader->open[reader->depth++] = root;
    }
    while (is_good && reader->depth > 0) {
        is_good = read_member(reader);
    }
    skip_space(reader);
    if (!is_good || reader->at < reader->end) {
        json_decref(root);
        return NULL;
    }
    return root;
}

json_t *json_read(const void *data, size_t bytes, size_t flags, json_error_t *ret_error)
{
    json_t *root = NULL;
    if (data != NULL && (flags & ~(size_t)(JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL)) == 0) {
        struct reader reader = {
            .at = data,
            .end = (const char *)data + bytes,
            .rejects_duplicates = (flags & JSON_REJECT_DUPLICATES) != 0,
        };
        root = read_ordinary(&reader);
        free(reader.room);
    }
    return root != NULL ? root : json_loadb(data, bytes, flags, ret_error);
}
