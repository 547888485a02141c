#include "worker/cache/ask_json.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ask_write_hex(const uint8_t *bytes, size_t length, char *ret_text)
{
    for (size_t i = 0; i < length; i++) {
        (void)snprintf(ret_text + 2 * i, 3, "%02x", bytes[i]);
    }
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int ask_read_hex(const char *text, size_t length, uint8_t *ret_bytes)
{
    if (text == NULL || strlen(text) != 2 * length) {
        return -EINVAL;
    }
    for (size_t i = 0; i < length; i++) {
        const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return -EINVAL;
        }
        ret_bytes[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}

const char *ask_text_at(const json_t *argument, const char *name)
{
    return json_string_value(json_object_get(argument, name));
}

size_t ask_limit_of(const json_t *argument, size_t usual, size_t most)
{
    const json_t *limit = json_object_get(argument, "limit");
    const long long number = json_is_integer(limit)  ? json_integer_value(limit)
                             : json_is_string(limit) ? atoll(json_string_value(limit))
                                                     : (long long)usual;
    return number < 1 ? 1 : number > (long long)most ? most : (size_t)number;
}

int ask_number_at(const json_t *object, const char *name, double most, double *ret_number)
{
    const json_t *member = json_object_get(object, name);
    const double number = json_number_value(member);
    if ((member != NULL && !json_is_number(member)) || number < 0 || number > most) {
        return -EINVAL;
    }
    *ret_number = number;
    return 0;
}

int ask_count_at(const json_t *object, const char *name, double most, uint64_t *ret_count)
{
    double number;
    int r = ask_number_at(object, name, most, &number);
    *ret_count = r < 0 ? *ret_count : (uint64_t)number;
    return r;
}

int ask_wrong(char *ret_error, const char *text)
{
    (void)snprintf(ret_error, CACHE_ERROR_BYTES, "%s", text);
    return -EINVAL;
}

static json_t *names_of(char *const *names, size_t length)
{
    json_t *list = json_array();
    for (size_t i = 0; i < length; i++) {
        (void)json_array_append_new(list, json_string(names[i]));
    }
    return list;
}

static void add_text(json_t *object, const char *name, const char *text)
{
    if (text[0] != '\0') {
        (void)json_object_set_new(object, name, json_string(text));
    }
}

static void add_hash(json_t *object, const char *name, const ProtobufCBinaryData *hash)
{
    char hex[2 * CACHE_KEY_BYTES + 1];
    static_assert((int)CACHE_SCOPE_BYTES == (int)CACHE_KEY_BYTES, "both fit");
    if (hash->len == CACHE_KEY_BYTES) {
        ask_write_hex(hash->data, CACHE_KEY_BYTES, hex);
        add_text(object, name, hex);
    }
}

static void add_selector(json_t *object, const Wire__CacheSelector *selector)
{
    add_hash(object, "key", &selector->key);
    add_hash(object, "scope", &selector->scope);
    add_text(object, "tenant", selector->tenant);
    if (selector->has_namespace) { /* the empty one, too */
        (void)json_object_set_new(object, "namespace", json_string(selector->cache_namespace));
    }
    add_text(object, "tag", selector->tag);
    add_text(object, "document", selector->document);
    add_text(object, "route", selector->route);
    add_text(object, "model", selector->model);
    add_text(object, "template_version", selector->template_version);
    if (selector->older_than_ms > 0) {
        (void)json_object_set_new(object, "older_than_ms",
                                  json_integer((json_int_t)selector->older_than_ms));
    }
    add_text(object, "text_prefix", selector->text_prefix);
    add_text(object, "near_text", selector->near_text);
    if (selector->near_text[0] != '\0') {
        (void)json_object_set_new(object, "near_cosine_min", json_real(selector->near_cosine_min));
    }
}

json_t *ask_selector_object(const Wire__CacheSelector *selector)
{
    json_t *object = json_object();
    if (selector != NULL) {
        add_selector(object, selector);
    }
    if (json_object_size(object) == 0) {
        (void)json_object_set_new(object, "all", json_true());
    }
    return object;
}

json_t *ask_entry_object(const uint8_t *key, const Record__CacheAbout *about, int64_t now_unix_ms)
{
    char hex[2 * CACHE_KEY_BYTES + 1], scope[2 * CACHE_SCOPE_BYTES + 1] = "";
    ask_write_hex(key, CACHE_KEY_BYTES, hex);
    if (about->scope.len == CACHE_SCOPE_BYTES) {
        ask_write_hex(about->scope.data, CACHE_SCOPE_BYTES, scope);
    }
    const int64_t served_ago =
        about->served_unix_ms > 0 ? now_unix_ms - (int64_t)about->served_unix_ms : -1;
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:I, s:f, s:f, s:I, s:I, s:I, "
        "s:I, "
        "s:I, s:b, s:I, s:I, s:o}",
        "key", hex, "scope", scope, "tenant", about->tenant, "namespace", about->cache_namespace,
        "route", about->route, "tier", about->tier, "model", about->model, "template_version",
        about->template_version, "text", about->text, "tags", names_of(about->tags, about->n_tags),
        "documents", names_of(about->documents, about->n_documents), "hits",
        (json_int_t)about->hits, "saved_usd",
        (double)about->hits * (double)about->cost_nanousd * ASK_NANOUSD, "cost_usd",
        (double)about->cost_nanousd * ASK_NANOUSD, "bytes", (json_int_t)about->bytes, "age_ms",
        (json_int_t)(now_unix_ms - (int64_t)about->filled_unix_ms), "expires_in_ms",
        (json_int_t)((int64_t)about->expires_unix_ms - now_unix_ms), "served_ms_ago",
        (json_int_t)served_ago, "run_ms", (json_int_t)about->run_ms, "denied", about->is_denied,
        "cut_history_tokens", (json_int_t)about->cut_history_tokens, "cut_passages_tokens",
        (json_int_t)about->cut_passages_tokens, "residency",
        names_of(about->residency, about->n_residency));
}
