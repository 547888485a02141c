/*
 * jansson reads; this writes. Its own writer sorts members by bytes and prints reals with 17
 * digits; RFC 8785 wants UTF-16 order and ECMAScript's shortest form. The containers being written
 * lie on a stack of our own, so that the depth of a body is no depth of calls.
 */
#include "common/canonical.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>
#include <sodium.h>
#include <utf8proc.h>
#include "common/json_read.h"

enum {
    TEXT_FIRST_BYTES = 1024,
    NUMBER_BYTES_MAX = 48,  /* -1.2345678901234567e+308 */
    DIGITS_MAX = 17,        /* that tell any double from any other */
    EXPONENT_FREE_MAX = 21, /* ECMAScript, Number::toString: larger numbers have an exponent */
    LEADING_ZEROS_MAX = 6,  /* and so do those below 1e-6 */
    MARKS_MAX = 30,         /* combining, in a row */
};

struct text {
    char *data;
    size_t length, capacity;
    bool is_failed; /* out of memory: asked once, at the end */
};

/* A container that is being written. */
struct level {
    json_t *value;
    const char **keys; /* of an object, sorted; NULL for an array */
    size_t length, next;
};

struct writer {
    struct text text;
    struct level levels[CANONICAL_DEPTH_MAX];
    size_t depth;
};

/* ---- text ---- */

static void append(struct text *text, const char *data, size_t bytes)
{
    if (text->is_failed) {
        return;
    }
    if (bytes >= text->capacity - text->length) { /* one is for the NUL */
        size_t capacity = text->capacity * 2;
        if (capacity < text->length + bytes + 1) {
            capacity = text->length + bytes + TEXT_FIRST_BYTES;
        }
        char *data_moved = realloc(text->data, capacity);
        if (data_moved == NULL) {
            text->is_failed = true;
            return;
        }
        text->data = data_moved;
        text->capacity = capacity;
    }
    memcpy(text->data + text->length, data, bytes);
    text->length += bytes;
    text->data[text->length] = '\0';
}

static void append_char(struct text *text, char c)
{
    append(text, &c, 1);
}

/* The letter of the short escapes, 0 for characters that have none. */
static char escape_letter(unsigned char c)
{
    switch (c) {
    case '"':
    case '\\':
        return (char)c;
    case '\b':
        return 'b';
    case '\t':
        return 't';
    case '\n':
        return 'n';
    case '\f':
        return 'f';
    case '\r':
        return 'r';
    default: /* characters, not an enum */
        return 0;
    }
}

static void append_escape(struct text *text, unsigned char c)
{
    static const char digits[] = "0123456789abcdef";
    const char letter = escape_letter(c);
    if (letter != 0) {
        append(text, (const char[]){'\\', letter}, 2);
    } else {
        append(text, (const char[]){'\\', 'u', '0', '0', digits[c >> 4], digits[c & 15]}, 6);
    }
}

static void append_string(struct text *text, const char *string, size_t bytes)
{
    append_char(text, '"');
    size_t plain = 0; /* where the run of characters that stay as they are began */
    for (size_t i = 0; i < bytes; i++) {
        const unsigned char c = (unsigned char)string[i];
        if (c < 0x20 || c == '"' || c == '\\') {
            append(text, string + plain, i - plain);
            append_escape(text, c);
            plain = i + 1;
        }
    }
    append(text, string + plain, bytes - plain);
    append_char(text, '"');
}

static bool is_ascii(const char *string, size_t bytes)
{
    size_t i = 0;
    while (i < bytes && (unsigned char)string[i] < 0x80) {
        i++;
    }
    return i == bytes;
}

/*
 * utf8proc orders marks by swapping neighbours. No language has so many of them in a row (UAX #15,
 * Stream-Safe Text Format): such a text is left as it is.
 */
static bool has_many_marks(const char *string, size_t bytes)
{
    utf8proc_int32_t character;
    int marks = 0;
    for (size_t i = 0; i < bytes && marks <= MARKS_MAX;) {
        const utf8proc_ssize_t taken = utf8proc_iterate((const utf8proc_uint8_t *)string + i,
                                                        (utf8proc_ssize_t)(bytes - i), &character);
        if (taken <= 0) {
            return true; /* jansson has checked it: never */
        }
        marks = utf8proc_get_property(character)->combining_class != 0 ? marks + 1 : 0;
        i += (size_t)taken;
    }
    return marks > MARKS_MAX;
}

/* A text, composed: one form for what reads the same. */
static void append_text(struct text *text, const char *string, size_t bytes)
{
    utf8proc_uint8_t *composed = NULL;
    if (is_ascii(string, bytes) || has_many_marks(string, bytes)) {
        append_string(text, string, bytes);
        return;
    }
    const utf8proc_ssize_t length =
        utf8proc_map((const utf8proc_uint8_t *)string, (utf8proc_ssize_t)bytes, &composed,
                     UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (length >= 0) {
        append_string(text, (const char *)composed, (size_t)length);
    } else {
        text->is_failed = true; /* jansson has checked that it is UTF-8: no memory */
    }
    free(composed);
}

/* ---- numbers: ECMAScript's Number::toString ---- */

struct decimal {
    char digits[DIGITS_MAX + 1]; /* without trailing zeros */
    int length;
    int point; /* the value is 0.digits times ten to this */
};

/* The locale decides how the point looks in both directions, so it is stepped over, not looked for.
 */
static struct decimal shortest(double value)
{
    char formatted[NUMBER_BYTES_MAX];
    for (int precision = 0; precision < DIGITS_MAX; precision++) {
        (void)snprintf(formatted, sizeof(formatted), "%.*e", precision, value);
        if (strtod(formatted, NULL) == value) {
            break;
        }
    }
    struct decimal decimal = {.length = 0};
    const char *at = formatted;
    for (; *at != 'e' && *at != '\0'; at++) {
        if (*at >= '0' && *at <= '9' && decimal.length < DIGITS_MAX) {
            decimal.digits[decimal.length++] = *at;
        }
    }
    decimal.point = (int)strtol(at + 1, NULL, 10) + 1;
    while (decimal.length > 1 && decimal.digits[decimal.length - 1] == '0') {
        decimal.length--;
    }
    return decimal;
}

static void append_zeros(struct text *text, int zeros)
{
    for (int i = 0; i < zeros; i++) {
        append_char(text, '0');
    }
}

static void append_with_exponent(struct text *text, const struct decimal *decimal)
{
    char exponent[NUMBER_BYTES_MAX];
    append_char(text, decimal->digits[0]);
    if (decimal->length > 1) {
        append_char(text, '.');
        append(text, decimal->digits + 1, (size_t)decimal->length - 1);
    }
    const int bytes = snprintf(exponent, sizeof(exponent), "e%+d", decimal->point - 1);
    append(text, exponent, (size_t)bytes);
}

static void append_real(struct text *text, double value)
{
    if (value == 0) {
        append_char(text, '0'); /* also for -0 */
        return;
    }
    if (value < 0) {
        append_char(text, '-');
    }
    const struct decimal decimal = shortest(fabs(value));
    if (decimal.point > EXPONENT_FREE_MAX || decimal.point <= -LEADING_ZEROS_MAX) {
        append_with_exponent(text, &decimal);
    } else if (decimal.point <= 0) {
        append(text, "0.", 2);
        append_zeros(text, -decimal.point);
        append(text, decimal.digits, (size_t)decimal.length);
    } else if (decimal.point >= decimal.length) {
        append(text, decimal.digits, (size_t)decimal.length);
        append_zeros(text, decimal.point - decimal.length);
    } else {
        append(text, decimal.digits, (size_t)decimal.point);
        append_char(text, '.');
        append(text, decimal.digits + decimal.point, (size_t)(decimal.length - decimal.point));
    }
}

static void append_integer(struct text *text, json_int_t value)
{
    char formatted[NUMBER_BYTES_MAX];
    const int bytes = snprintf(formatted, sizeof(formatted), "%" JSON_INTEGER_FORMAT, value);
    append(text, formatted, (size_t)bytes);
}

/* ---- the order of members ---- */

/*
 * UTF-8 sorts by code point, UTF-16 with the surrogates of what lies past U+FFFF before U+E000. So
 * the lead bytes F0–F4 go before EE and EF; everything else is the same in both.
 */
static int utf16_rank(unsigned char byte)
{
    if (byte >= 0xf0) {
        return byte - 2;
    }
    return byte >= 0xee ? byte + 5 : byte;
}

static int compare_keys(const void *a, const void *b)
{
    const unsigned char *left = *(const unsigned char *const *)a;
    const unsigned char *right = *(const unsigned char *const *)b;
    while (*left == *right && *left != '\0') {
        left++;
        right++;
    }
    return utf16_rank(*left) - utf16_rank(*right);
}

/* What OpenAI's API takes where nothing is said. Servers of other makers may have other defaults;
 * few have for these. */
static bool is_default(const char *member, const json_t *value)
{
    static const struct {
        const char *member;
        double number;
    } defaults[] = {{"temperature", 1},
                    {"top_p", 1},
                    {"n", 1},
                    {"presence_penalty", 0},
                    {"frequency_penalty", 0}};
    if (json_is_null(value) || (json_is_false(value) && strcmp(member, "logprobs") == 0)) {
        return true;
    }
    for (size_t i = 0; json_is_number(value) && i < ARRAY_LENGTH(defaults); i++) {
        if (strcmp(member, defaults[i].member) == 0) {
            return json_number_value(value) == defaults[i].number;
        }
    }
    return false;
}

static bool changes_answers(const char *member, const json_t *value)
{
    static const char *const others[] = {"stream", "stream_options", "user", "metadata", "store"};
    for (size_t i = 0; i < ARRAY_LENGTH(others); i++) {
        if (strcmp(member, others[i]) == 0) {
            return false;
        }
    }
    return !is_default(member, value);
}

/* ---- writing ---- */

static int enter_object(struct writer *writer, json_t *value)
{
    const size_t size = json_object_size(value);
    struct level level = {.value = value};
    level.keys = calloc(size + 1, sizeof(*level.keys));
    if (level.keys == NULL) {
        return -ENOMEM;
    }
    const bool is_top = writer->depth == 0;
    const char *key;
    json_t *member;
    json_object_foreach (value, key, member) {
        if (!is_top || changes_answers(key, member)) {
            level.keys[level.length++] = key;
        }
    }
    qsort(level.keys, level.length, sizeof(*level.keys), compare_keys);
    writer->levels[writer->depth++] = level;
    append_char(&writer->text, '{');
    return 0;
}

static int enter(struct writer *writer, json_t *value, char *ret_error)
{
    if (writer->depth == CANONICAL_DEPTH_MAX) {
        (void)snprintf(ret_error, CANONICAL_ERROR_BYTES, "nested deeper than %d levels",
                       CANONICAL_DEPTH_MAX);
        return -EINVAL;
    }
    if (json_is_object(value)) {
        return enter_object(writer, value);
    }
    writer->levels[writer->depth++] =
        (struct level){.value = value, .length = json_array_size(value)};
    append_char(&writer->text, '[');
    return 0;
}

static void leave(struct writer *writer)
{
    struct level *level = &writer->levels[--writer->depth];
    append_char(&writer->text, level->keys != NULL ? '}' : ']');
    free(level->keys);
    level->keys = NULL;
}

static int write_value(struct writer *writer, json_t *value, char *ret_error)
{
    struct text *text = &writer->text;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
    case JSON_ARRAY:
        return enter(writer, value, ret_error);
    case JSON_STRING:
        append_text(text, json_string_value(value), json_string_length(value));
        return 0;
    case JSON_INTEGER:
        append_integer(text, json_integer_value(value));
        return 0;
    case JSON_REAL:
        append_real(text, json_real_value(value));
        return 0;
    case JSON_TRUE:
        append(text, "true", strlen("true"));
        return 0;
    case JSON_FALSE:
        append(text, "false", strlen("false"));
        return 0;
    case JSON_NULL:
        append(text, "null", strlen("null"));
        return 0;
    }
    return -EINVAL;
}

static int write_next(struct writer *writer, char *ret_error)
{
    struct level *level = &writer->levels[writer->depth - 1];
    if (level->next == level->length) {
        leave(writer);
        return 0;
    }
    const size_t index = level->next++;
    if (index > 0) {
        append_char(&writer->text, ',');
    }
    if (level->keys == NULL) {
        return write_value(writer, json_array_get(level->value, index), ret_error);
    }
    append_string(&writer->text, level->keys[index], strlen(level->keys[index]));
    append_char(&writer->text, ':');
    return write_value(writer, json_object_get(level->value, level->keys[index]), ret_error);
}

static int write_all(struct writer *writer, json_t *root, char *ret_error)
{
    int r = enter(writer, root, ret_error);
    while (r == 0 && writer->depth > 0) {
        r = write_next(writer, ret_error);
    }
    while (writer->depth > 0) {
        leave(writer);
    }
    return r < 0 ? r : writer->text.is_failed ? -ENOMEM : 0;
}

int canonical_parse(const void *body, size_t bytes, json_t **ret_root, char *ret_error)
{
    json_error_t error;
    json_t *root = json_read(body, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (root == NULL) {
        (void)snprintf(ret_error, CANONICAL_ERROR_BYTES, "line %d, column %d: %.100s", error.line,
                       error.column, error.text);
    } else if (!json_is_object(root)) {
        (void)snprintf(ret_error, CANONICAL_ERROR_BYTES, "the body is no JSON object");
        json_decref(root);
        root = NULL;
    }
    if (root == NULL) {
        return -EINVAL;
    }
    *ret_root = root;
    return 0;
}

int canonical_json(const void *body, size_t bytes, char **ret_text, size_t *ret_bytes,
                   char *ret_error)
{
    json_t *root;
    int r = canonical_parse(body, bytes, &root, ret_error);
    if (r < 0) {
        return r;
    }
    r = canonical_of(root, ret_text, ret_bytes, ret_error);
    json_decref(root);
    return r;
}

int canonical_of(json_t *root, char **ret_text, size_t *ret_bytes, char *ret_error)
{
    struct writer writer = {.depth = 0};
    const int r = write_all(&writer, root, ret_error);
    if (r < 0) {
        free(writer.text.data);
        return r;
    }
    *ret_text = writer.text.data;
    *ret_bytes = writer.text.length;
    return 0;
}

/* With its length before it, so that no two lists of fields are the same bytes. */
static void hash_field(crypto_generichash_state *state, const void *data, size_t bytes)
{
    uint8_t length[8];
    for (size_t i = 0; i < sizeof(length); i++) {
        length[i] = (uint8_t)((uint64_t)bytes >> (8 * i));
    }
    (void)crypto_generichash_update(state, length, sizeof(length)); /* cannot fail */
    (void)crypto_generichash_update(state, data, bytes);
}

void canonical_secret_of(const char *text, struct canonical_secret *ret_secret)
{
    *ret_secret = (struct canonical_secret){.is_set = text[0] != '\0'};
    if (ret_secret->is_set) {
        (void)crypto_generichash(ret_secret->bytes, CANONICAL_SECRET_BYTES,
                                 (const unsigned char *)text, strlen(text), NULL, 0);
    }
}

static void hash_start(crypto_generichash_state *state, const struct canonical_secret *secret)
{
    const bool is_keyed = secret != NULL && secret->is_set;
    (void)crypto_generichash_init(state, is_keyed ? secret->bytes : NULL,
                                  is_keyed ? CANONICAL_SECRET_BYTES : 0,
                                  CANONICAL_KEY_BYTES); /* 16 and 32 are valid lengths */
}

void canonical_key(const struct canonical_secret *secret, const char *tenant,
                   const char *cache_namespace, const char *operation, const char *route,
                   const char *canonical, size_t canonical_bytes,
                   uint8_t ret_key[CANONICAL_KEY_BYTES])
{
    crypto_generichash_state state;
    hash_start(&state, secret);
    hash_field(&state, tenant, strlen(tenant));
    hash_field(&state, operation, strlen(operation));
    hash_field(&state, route, strlen(route));
    hash_field(&state, canonical, canonical_bytes);
    if (cache_namespace[0] != '\0') {
        hash_field(&state, cache_namespace, strlen(cache_namespace));
    }
    (void)crypto_generichash_final(&state, ret_key, CANONICAL_KEY_BYTES);
}

/* The key stands where a request has its operation, a word: what is hashed here is no request's. */
void canonical_key_narrow(const struct canonical_secret *secret, char *const *labels,
                          size_t labels_length, uint8_t key[CANONICAL_KEY_BYTES])
{
    crypto_generichash_state state;
    if (labels_length == 0) {
        return;
    }
    hash_start(&state, secret);
    hash_field(&state, "residency", strlen("residency"));
    hash_field(&state, (const char *)key, CANONICAL_KEY_BYTES);
    for (size_t i = 0; i < labels_length; i++) {
        hash_field(&state, labels[i], strlen(labels[i]));
    }
    (void)crypto_generichash_final(&state, key, CANONICAL_KEY_BYTES);
}
