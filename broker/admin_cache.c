#include "broker/admin_cache.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "broker/admin.h"
#include "broker/broker.h"
#include "broker/survey.h"
#include "broker/text.h"
#include "common/http_admin.h"

enum { KEY_BYTES = 16, SELECTOR_TEXT_BYTES_MAX = 8192, REASON_BYTES_MAX = 256 };
#define AGE_MS_MAX (INT64_C(1) << 40)
static const double NEAR_COSINE_PRESET = 0.8;

/* ---- what is to be invalidated ---- */

/* What the selector's fields point to. */
struct selector {
    Wire__CacheSelector wire;
    uint8_t key[KEY_BYTES], scope[KEY_BYTES];
    int dry_run, all;
    const char *reason;
};

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* NULL: absent. Errors: -EINVAL. */
static int read_hex(const char *text, uint8_t *bytes, ProtobufCBinaryData *ret_data)
{
    if (text == NULL) {
        return 0;
    }
    for (size_t i = 0; i < KEY_BYTES; i++) {
        const int high = text[0] == '\0' ? -1 : digit(text[2 * i]);
        const int low = high < 0 ? -1 : digit(text[2 * i + 1]);
        if (low < 0) {
            return -EINVAL;
        }
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    *ret_data = (ProtobufCBinaryData){KEY_BYTES, bytes};
    return text[(size_t)2 * KEY_BYTES] == '\0' ? 0 : -EINVAL;
}

static bool selects_something(const Wire__CacheSelector *selector)
{
    return selector->key.len > 0 || selector->scope.len > 0 || selector->tenant[0] != '\0' ||
           selector->has_namespace || selector->tag[0] != '\0' || selector->document[0] != '\0' ||
           selector->route[0] != '\0' || selector->model[0] != '\0' ||
           selector->template_version[0] != '\0' || selector->older_than_ms > 0 ||
           selector->text_prefix[0] != '\0' || selector->near_text[0] != '\0';
}

static bool texts_are_good(const Wire__CacheSelector *selector, const char *reason)
{
    const char *const texts[] = {
        selector->tenant,           selector->cache_namespace, selector->tag,
        selector->document,         selector->route,           selector->model,
        selector->template_version, selector->text_prefix,     selector->near_text};
    bool is_good = text_is_good(reason, REASON_BYTES_MAX);
    for (size_t i = 0; is_good && i < ARRAY_LENGTH(texts); i++) {
        is_good = text_is_good(texts[i], SELECTOR_TEXT_BYTES_MAX);
    }
    return is_good;
}

/* Absent fields stay as they are. Errors: -EINVAL, answered. The strings are the body's. */
static int unpack(json_t *body, struct http_response *response, struct selector *ret_selector)
{
    Wire__CacheSelector *wire = &ret_selector->wire;
    json_error_t error;
    const char *key = NULL, *scope = NULL, *cache_namespace = NULL;
    json_int_t older_than_ms = 0;
    wire->near_cosine_min = NEAR_COSINE_PRESET;
    if (json_unpack_ex(
            body, &error, JSON_STRICT,
            "{s?s, s?s, s?s, s?s, s?s, s?s, s?s, s?s, s?s, s?I, s?s, s?s, s?F, s?s, s?b, s?b}",
            "key", &key, "scope", &scope, "tenant", &wire->tenant, "namespace", &cache_namespace,
            "tag", &wire->tag, "document", &wire->document, "route", &wire->route, "model",
            &wire->model, "template_version", &wire->template_version, "older_than_ms",
            &older_than_ms, "text_prefix", &wire->text_prefix, "near_text", &wire->near_text,
            "near_cosine_min", &wire->near_cosine_min, "reason", &ret_selector->reason, "dry_run",
            &ret_selector->dry_run, "all", &ret_selector->all) < 0) {
        http_error(response, 400, "the selector cannot be read: %s", error.text);
        return -EINVAL;
    }
    if (read_hex(key, ret_selector->key, &wire->key) < 0 ||
        read_hex(scope, ret_selector->scope, &wire->scope) < 0) {
        http_error(response, 400,
                   "key and scope must be %d hexadecimal digits, as answers show them",
                   2 * KEY_BYTES);
        return -EINVAL;
    }
    if (older_than_ms < 0 || older_than_ms > AGE_MS_MAX) {
        http_error(response, 400, "older_than_ms must be from 0 to %lld", (long long)AGE_MS_MAX);
        return -EINVAL;
    }
    wire->older_than_ms = (uint64_t)older_than_ms;
    if (cache_namespace != NULL) {
        wire->has_namespace = true;
        wire->cache_namespace = (char *)cache_namespace;
    }
    return 0;
}

static int read_selector(json_t *body, struct http_response *response,
                         struct selector *ret_selector)
{
    *ret_selector = (struct selector){.reason = ""};
    wire__cache_selector__init(&ret_selector->wire);
    int r = unpack(body, response, ret_selector);
    if (r < 0) {
        return r;
    }
    const Wire__CacheSelector *wire = &ret_selector->wire;
    if (!texts_are_good(wire, ret_selector->reason)) {
        http_error(response, 400, "texts must be UTF-8, of %d bytes at most, the reason of %d",
                   SELECTOR_TEXT_BYTES_MAX, REASON_BYTES_MAX);
        return -EINVAL;
    }
    if (wire->near_cosine_min < 0.1 || wire->near_cosine_min > 1.0) {
        http_error(response, 400, "near_cosine_min is %g, must be from 0.1 to 1",
                   wire->near_cosine_min);
        return -EINVAL;
    }
    if (selects_something(wire) == (ret_selector->all != 0)) {
        http_error(
            response, 400,
            ret_selector->all
                ? "all goes with no other field; leave it out to invalidate what fits the others"
                : "nothing says what to invalidate; name a tag, a tenant …, or \"all\": true");
        return -EINVAL;
    }
    return 0;
}

/* ---- routes ---- */

static void invalidate(struct broker *broker, const struct http_request *request,
                       struct http_response *response, const struct selector *selector)
{
    uint8_t epoch[CACHE_EPOCH_BYTES];
    uint64_t before, after, told;
    core_cache_position(broker->core, epoch, &before, &told);
    broker_step(broker,
                &(struct event){.kind = EVENT_CACHE_INVALIDATE,
                                .as.cache_invalidate = {&selector->wire, selector->reason}});
    core_cache_position(broker->core, epoch, &after, &told);
    if (after == before) {
        http_error(response, 503, "the broker is out of memory; nothing was invalidated");
        return;
    }
    survey_applied(broker, request, response, after,
                   json_pack("{s:I}", "sequence", (json_int_t)after));
}

static void post_invalidate(void *context, const struct http_request *request,
                            struct http_response *response)
{
    struct broker *broker = context;
    struct selector selector;
    json_t *body = NULL;
    if (admin_read_body(request, response, &body) < 0) {
        return;
    }
    if (read_selector(body, response, &selector) == 0) {
        if (selector.dry_run) {
            json_object_del(body, "dry_run");
            json_object_del(body, "reason");
            survey_ask(broker, request, response, "cache.count", json_incref(body));
        } else {
            invalidate(broker, request, response, &selector);
        }
    }
    json_decref(body);
}

static const char *const PARAMETERS[] = {"key",       "limit", "by",    "a",      "b",
                                         "namespace", "scope", "route", "tenant", "tier"};

/* The workers know which parameters mean something. */
static json_t *parameters_of(const struct http_request *request)
{
    json_t *object = json_object();
    for (size_t i = 0; i < ARRAY_LENGTH(PARAMETERS); i++) {
        const char *value = http_query(request, PARAMETERS[i]);
        if (value != NULL) {
            json_object_set_new(object, PARAMETERS[i], json_string(value));
        }
    }
    return object;
}

static void get_cache(void *context, const struct http_request *request,
                      struct http_response *response)
{
    static const char *const questions[] = {"stats", "top", "get", "explain"};
    for (size_t i = 0; i < ARRAY_LENGTH(questions); i++) {
        char what[32];
        if (strcmp(request->rest, questions[i]) == 0) {
            (void)snprintf(what, sizeof(what), "cache.%s", questions[i]);
            survey_ask(context, request, response, what, parameters_of(request));
            return;
        }
    }
    http_error(response, 404,
               "there is no \"%s\" of the cache; there are stats, top, get and explain",
               request->rest);
}

static void post_rebuild(void *context, const struct http_request *request,
                         struct http_response *response)
{
    json_t *body = NULL;
    if (admin_read_body(request, response, &body) == 0) {
        survey_ask(context, request, response, "cache.rebuild", body);
    }
}

int admin_cache_add_routes(struct broker *broker)
{
    int r = http_admin_route(broker->admin, "POST", "/v1/cache/invalidate", true, post_invalidate,
                             broker);
    r = r < 0 ? r
              : http_admin_route(broker->admin, "POST", "/v1/cache/rebuild", true, post_rebuild,
                                 broker);
    return r < 0 ? r
                 : http_admin_route(broker->admin, "GET", "/v1/cache/", false, get_cache, broker);
}
