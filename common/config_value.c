/* Scalars of the configuration: from text to field and back, every refusal with its remedy. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/config_schema.h"

enum { TEXT_BYTES_MAX = 4096 };

struct unit {
    const char *name;
    int64_t factor;
};

/* Smallest first. */
static const struct unit duration_units[] = {{"ms", 1},      {"s", 1000},     {"m", 60000},
                                             {"h", 3600000}, {"d", 86400000}, {NULL, 0}};
static const struct unit size_units[] = {{"B", 1},
                                         {"KiB", INT64_C(1) << 10},
                                         {"MiB", INT64_C(1) << 20},
                                         {"GiB", INT64_C(1) << 30},
                                         {"TiB", INT64_C(1) << 40},
                                         {NULL, 0}};

PRINTF_LIKE(2, 3) static int refuse(char ret_why[CONFIG_WHY_BYTES], const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(ret_why, CONFIG_WHY_BYTES, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* ----------------------------------------------------------------------------------- numbers */

/*
 * Decimal digits, and after a point up to `decimals` more; the number is that times 10^decimals.
 * Gives the first byte behind it, or NULL when there is no such number or it does not fit.
 */
static const char *number_scan(const char *text, int decimals, int64_t *ret_number)
{
    int64_t number = 0;
    bool has_point = false;
    int decimals_left = decimals;
    const char *at = text;
    for (; is_digit(*at) || (*at == '.' && decimals > 0 && !has_point && at != text); at++) {
        if (*at == '.') {
            has_point = true;
            continue;
        }
        if (has_point && decimals_left-- == 0) {
            return NULL;
        }
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, *at - '0', &number)) {
            return NULL;
        }
    }
    if (at == text || at[-1] == '.') {
        return NULL;
    }
    for (; decimals_left > 0; decimals_left--) {
        if (__builtin_mul_overflow(number, 10, &number)) {
            return NULL;
        }
    }
    *ret_number = number;
    return at;
}

static const struct unit *unit_find(const struct unit *units, const char *name)
{
    for (; units->name != NULL; units++) {
        if (strcmp(units->name, name) == 0) {
            return units;
        }
    }
    return NULL;
}

static int duration_parse(const char *text, int64_t *ret_ms, char *ret_why)
{
    int64_t number = 0;
    const char *rest = number_scan(text, 0, &number);
    if (rest == NULL) {
        return refuse(ret_why,
                      "is not a duration; write a whole number with ms, s, m, h or d, such as 15s");
    }
    if (*rest == '\0') {
        return refuse(ret_why, "lacks a unit; write ms, s, m, h or d behind it, such as %ss", text);
    }
    const struct unit *unit = unit_find(duration_units, rest);
    if (unit == NULL) {
        return refuse(ret_why,
                      "is not a duration; write a whole number with ms, s, m, h or d, such as 15s");
    }
    if (__builtin_mul_overflow(number, unit->factor, &number)) {
        return refuse(ret_why, "is too long; write at most 365d");
    }
    *ret_ms = number;
    return 0;
}

static int size_parse(const char *text, int64_t *ret_bytes, char *ret_why)
{
    int64_t number = 0;
    const char *rest = number_scan(text, 0, &number);
    const struct unit *unit =
        rest == NULL ? NULL : unit_find(size_units, *rest == '\0' ? "B" : rest);
    if (unit == NULL) {
        return refuse(ret_why, "is not a size; write a whole number of bytes or with KiB, MiB, GiB "
                               "or TiB, such as 8MiB");
    }
    if (__builtin_mul_overflow(number, unit->factor, &number)) {
        return refuse(ret_why, "is too large; write at most 1024TiB");
    }
    *ret_bytes = number;
    return 0;
}

static int integer_parse(const char *text, int64_t *ret_number, char *ret_why)
{
    const char *rest = number_scan(text, 0, ret_number);
    if (rest == NULL || *rest != '\0') {
        return refuse(ret_why, "is not a whole number; write digits alone, such as 1000");
    }
    return 0;
}

static int money_parse(const char *text, int64_t *ret_nanousd, char *ret_why)
{
    const char *rest = number_scan(text, 9, ret_nanousd);
    if (rest == NULL || *rest != '\0') {
        return refuse(ret_why,
                      "is not an amount; write US dollars with up to nine decimals, such as 0.15");
    }
    return 0;
}

static int fraction_parse(const char *text, int64_t *ret_permille, char *ret_why)
{
    const char *rest = number_scan(text, 3, ret_permille);
    if (rest == NULL || *rest != '\0') {
        return refuse(ret_why, "is not a number; write up to three decimals, such as 0.92");
    }
    return 0;
}

static int enum_parse(const struct config_key *key, const char *text, int64_t *ret_number,
                      char *ret_why)
{
    char known[CONFIG_WHY_BYTES / 2] = "";
    for (size_t i = 0; key->words[i] != NULL; i++) {
        if (strcmp(key->words[i], text) == 0) {
            *ret_number = (int64_t)i;
            return 0;
        }
        const size_t length = strlen(known);
        snprintf(known + length, sizeof(known) - length, "%s%s", i == 0 ? "" : ", ", key->words[i]);
    }
    return refuse(ret_why, "is not one of its words; write one of %s", known);
}

static int number_parse(const struct config_key *key, const char *text, int64_t *ret_number,
                        char *ret_why)
{
    switch (key->kind) {
    case KIND_ENUM:
        return enum_parse(key, text, ret_number, ret_why);
    case KIND_INTEGER:
        return integer_parse(text, ret_number, ret_why);
    case KIND_DURATION:
        return duration_parse(text, ret_number, ret_why);
    case KIND_SIZE:
        return size_parse(text, ret_number, ret_why);
    case KIND_MONEY:
        return money_parse(text, ret_number, ret_why);
    case KIND_FRACTION:
        return fraction_parse(text, ret_number, ret_why);
    case KIND_TEXT:
    case KIND_NAME:
    case KIND_PATH:
    case KIND_BIND:
    case KIND_CONNECT:
    case KIND_HTTP_ADDRESS:
    case KIND_URL:
    case KIND_HEADER:
    case KIND_HEADER_NAME:
    case KIND_QUERY:
    case KIND_URL_PATH:
    case KIND_LIST:
    case KIND_SECTION:
    case KIND_ITEMS:
    case KIND_TIER_LISTS:
        break;
    }
    return refuse(ret_why, "is not a number");
}

static int number_set(const struct config_key *key, const char *text, void *object, char *ret_why)
{
    int64_t number = 0;
    int r = number_parse(key, text, &number, ret_why);
    if (r < 0) {
        return r;
    }
    const bool has_range = key->min != 0 || key->max != 0;
    if (has_range && (number < key->min || number > key->max)) {
        char min[CONFIG_NUMBER_BYTES];
        char max[CONFIG_NUMBER_BYTES];
        config_number_format(key, key->min, min);
        config_number_format(key, key->max, max);
        return refuse(ret_why, "is out of range; write a value from %s to %s", min, max);
    }
    if (key->bytes == sizeof(uint32_t)) {
        *(uint32_t *)config_field(object, key) = (uint32_t)number;
    } else {
        *(int64_t *)config_field(object, key) = number;
    }
    return 0;
}

int64_t config_number(const void *object, const struct config_key *key)
{
    return key->bytes == sizeof(uint32_t)
               ? (int64_t) * (const uint32_t *)config_field_const(object, key)
               : *(const int64_t *)config_field_const(object, key);
}

static void units_format(const struct unit *units, int64_t number,
                         char ret_text[CONFIG_NUMBER_BYTES])
{
    const struct unit *best = units;
    for (const struct unit *unit = units; unit->name != NULL; unit++) {
        if (number != 0 && number % unit->factor == 0) {
            best = unit;
        }
    }
    snprintf(ret_text, CONFIG_NUMBER_BYTES, "%" PRId64 "%s", number / best->factor, best->name);
}

void config_number_format(const struct config_key *key, int64_t number,
                          char ret_text[CONFIG_NUMBER_BYTES])
{
    if (key->kind == KIND_DURATION) {
        units_format(duration_units, number, ret_text);
    } else if (key->kind == KIND_SIZE) {
        units_format(size_units, number, ret_text);
    } else if (key->kind == KIND_MONEY) {
        (void)decimals_format((uint64_t)number, 9, ret_text);
    } else if (key->kind == KIND_FRACTION) {
        (void)decimals_format((uint64_t)number, 3, ret_text);
    } else {
        snprintf(ret_text, CONFIG_NUMBER_BYTES, "%" PRId64, number);
    }
}

/* ------------------------------------------------------------------------------------- texts */

static int name_check(const char *text, char *ret_why)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/@-";
    if (text[0] == '\0') {
        return refuse(ret_why, "is empty; write a name");
    }
    if (strlen(text) > CONFIG_NAME_BYTES_MAX) {
        return refuse(ret_why, "is too long for a name; write at most %d characters",
                      CONFIG_NAME_BYTES_MAX);
    }
    if (text[strspn(text, allowed)] != '\0') {
        return refuse(ret_why, "is not a name; write letters, digits and . _ : / @ - alone");
    }
    return 0;
}

/* What stands behind the host: ":7700", or ":*" where a free port may be taken. */
static bool is_port(const char *text, bool may_be_any)
{
    if (*text != ':') {
        return false;
    }
    if (may_be_any && strcmp(text, ":*") == 0) {
        return true;
    }
    int64_t port;
    const char *rest = number_scan(text + 1, 0, &port);
    return rest != NULL && *rest == '\0' && port <= 65535 && (port > 0 || may_be_any);
}

static bool is_host_port(const char *text, bool may_be_any)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon == text || !is_port(colon, may_be_any)) {
        return false;
    }
    const size_t bytes = (size_t)(colon - text);
    if (text[0] == '[') {
        return bytes > 2 && colon[-1] == ']' &&
               strspn(text + 1, "0123456789abcdefABCDEF:.%") == bytes - 2;
    }
    if (bytes == 1 && text[0] == '*') {
        return may_be_any;
    }
    return strcspn(text, " /?#@:[]*") == bytes;
}

static int endpoint_check(const char *text, bool is_bind, char *ret_why)
{
    if (strncmp(text, "tcp://", 6) == 0 && is_host_port(text + 6, is_bind)) {
        return 0;
    }
    if (strncmp(text, "ipc://", 6) == 0 && text[6] != '\0') {
        return 0;
    }
    return refuse(
        ret_why,
        "is not an endpoint; write tcp://HOST:PORT or ipc://PATH, such as tcp://127.0.0.1:7700");
}

static int http_address_check(const char *text, char *ret_why)
{
    if (is_host_port(text, true) || strncmp(text, "unix:/", 6) == 0) {
        return 0;
    }
    return refuse(ret_why,
                  "is not an address; write HOST:PORT or unix:/PATH, such as 127.0.0.1:7710");
}

/* What follows "http://" or "https://"; "" for anything else. */
static const char *after_scheme(const char *text)
{
    if (strncmp(text, "http://", 7) == 0) {
        return text + 7;
    }
    return strncmp(text, "https://", 8) == 0 ? text + 8 : "";
}

static int url_check(const char *text, char *ret_why)
{
    if (strcspn(after_scheme(text), "/?#") == 0 || strpbrk(text, " \"<>") != NULL) {
        return refuse(ret_why,
                      "is not a URL; write http:// or https://, such as https://api.openai.com/v1");
    }
    return 0;
}

/* RFC 9110, 5.6.2: token. */
static size_t token_bytes(const char *text)
{
    return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                        "!#$%&'*+-.^_`|~");
}

/* Control characters were refused before. A value that is empty would take the header away. */
static int header_check(const char *text, char *ret_why)
{
    const size_t bytes = token_bytes(text);
    const char *value = text + bytes + (text[bytes] == ':');
    value += strspn(value, " ");
    if (bytes == 0 || text[bytes] != ':' || *value == '\0') {
        return refuse(ret_why,
                      "is not a header; write \"NAME: VALUE\", such as \"X-Title: tests\"");
    }
    return 0;
}

static int header_name_check(const char *text, char *ret_why)
{
    if (text[token_bytes(text)] != '\0') {
        return refuse(ret_why, "is not the name of a header; write one such as api-key");
    }
    return 0;
}

/* RFC 3986, 3.3 and 3.4: a path with a query. In a template {model} stands for a name. */
static bool is_encoded(const char *text, bool is_template)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "-._~!$&'()*+,;=:@/?";
    static const char hexadecimal[] = "0123456789abcdefABCDEF";
    static const char model[] = "{model}";
    for (const char *at = text; *at != '\0';) {
        if (*at == '%' && strspn(at + 1, hexadecimal) >= 2) {
            at += 3;
        } else if (is_template && strncmp(at, model, sizeof(model) - 1) == 0) {
            at += sizeof(model) - 1;
        } else if (strchr(allowed, *at) != NULL) {
            at++;
        } else {
            return false;
        }
    }
    return true;
}

static int query_check(const char *text, char *ret_why)
{
    if (!is_encoded(text, false) || text[0] == '?' || text[0] == '&') {
        return refuse(ret_why, "is not a query; write NAME=VALUE&…, encoded, such as "
                               "api-version=2024-10-21");
    }
    return 0;
}

static int url_path_check(const char *text, char *ret_why)
{
    if ((text[0] != '/' && text[0] != '\0') || !is_encoded(text, true)) {
        return refuse(ret_why, "is not a path; begin with /, encode what is special, and write "
                               "{model} for the model's name");
    }
    return 0;
}

int config_text_check(enum config_kind kind, const char *text, char ret_why[CONFIG_WHY_BYTES])
{
    if (strlen(text) > TEXT_BYTES_MAX) {
        return refuse(ret_why, "is too long; write at most %d bytes", TEXT_BYTES_MAX);
    }
    for (const char *at = text; *at != '\0'; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7F) {
            return refuse(ret_why,
                          "has a line break or control character in it; write it on one line");
        }
    }
    switch (kind) {
    case KIND_NAME:
        return name_check(text, ret_why);
    case KIND_PATH:
        return text[0] == '\0' ? refuse(ret_why, "is empty; write a path") : 0;
    case KIND_BIND:
        return endpoint_check(text, true, ret_why);
    case KIND_CONNECT:
        return endpoint_check(text, false, ret_why);
    case KIND_HTTP_ADDRESS:
        return http_address_check(text, ret_why);
    case KIND_URL:
        return url_check(text, ret_why);
    case KIND_HEADER:
        return header_check(text, ret_why);
    case KIND_HEADER_NAME:
        return header_name_check(text, ret_why);
    case KIND_QUERY:
        return query_check(text, ret_why);
    case KIND_URL_PATH:
        return url_path_check(text, ret_why);
    case KIND_TEXT:
    case KIND_ENUM:
    case KIND_INTEGER:
    case KIND_DURATION:
    case KIND_SIZE:
    case KIND_MONEY:
    case KIND_FRACTION:
    case KIND_LIST:
    case KIND_SECTION:
    case KIND_ITEMS:
    case KIND_TIER_LISTS:
        break;
    }
    return 0;
}

bool config_kind_is_text(enum config_kind kind)
{
    return kind <= KIND_URL_PATH;
}

int config_value_set(const struct config_key *key, const char *text, void *object,
                     char ret_why[CONFIG_WHY_BYTES])
{
    if (!config_kind_is_text(key->kind)) {
        return number_set(key, text, object, ret_why);
    }
    int r = config_text_check(key->kind, text, ret_why);
    if (r < 0) {
        return r;
    }
    char *copy = strdup(text);
    if (copy == NULL) {
        return -ENOMEM;
    }
    char **field = config_field(object, key);
    free(*field);
    *field = copy;
    return 0;
}
