#include "broker/admin_cache.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "broker/admin.h"
#include "broker/broker.h"
#include "broker/evidence.h"
#include "broker/selector.h"
#include "broker/survey.h"
#include "broker/text.h"
#include "common/config.h"
#include "common/http_admin.h"

enum { KEY_BYTES = SELECTOR_KEY_BYTES, LIMIT_MAX = 1000 };

enum { SHOWN_BYTES = 64 };

/* Says what is wrong with a member: its value, and what to write instead. */
static void refuse_value(struct http_response *response, const char *name, const json_t *value,
                         const char *remedy)
{
    char *shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    if (shown != NULL) {
        text_clean(shown, SHOWN_BYTES);
    }
    http_error(response, 400, "%s is %s; write %s", name, shown == NULL ? "wrong" : shown, remedy);
    free(shown);
}

/* ---- what is to be invalidated ---- */

/* What the selector's fields point to. */
struct selector {
    Wire__CacheSelector wire;
    uint8_t key[KEY_BYTES], scope[KEY_BYTES];
    bool dry_run, all;
    char *reason;
};

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Errors: -EINVAL. */
static int read_hex(const char *text, uint8_t *bytes)
{
    for (size_t i = 0; i < KEY_BYTES; i++) {
        const int high = text[0] == '\0' ? -1 : digit(text[2 * i]);
        const int low = high < 0 ? -1 : digit(text[2 * i + 1]);
        if (low < 0) {
            return -EINVAL;
        }
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return text[(size_t)2 * KEY_BYTES] == '\0' ? 0 : -EINVAL;
}

/* False: it is no such value. The strings are the body's. */
typedef bool read_fn(const json_t *value, struct selector *selector, size_t offset);

static bool read_text(const json_t *value, struct selector *selector, size_t offset)
{
    char *text = (char *)json_string_value(value);
    memcpy((char *)selector + offset, &text, sizeof(text));
    return text != NULL;
}

static bool read_namespace(const json_t *value, struct selector *selector, size_t offset)
{
    selector->wire.has_namespace = true;
    return read_text(value, selector, offset);
}

static bool read_bytes(const char *text, uint8_t *bytes, ProtobufCBinaryData *data)
{
    *data = (ProtobufCBinaryData){KEY_BYTES, bytes};
    return text != NULL && read_hex(text, bytes) == 0;
}

static bool read_key(const json_t *value, struct selector *selector, size_t offset)
{
    (void)offset;
    return read_bytes(json_string_value(value), selector->key, &selector->wire.key);
}

static bool read_scope(const json_t *value, struct selector *selector, size_t offset)
{
    (void)offset;
    return read_bytes(json_string_value(value), selector->scope, &selector->wire.scope);
}

static bool read_age(const json_t *value, struct selector *selector, size_t offset)
{
    (void)offset;
    selector->wire.older_than_ms = (uint64_t)json_integer_value(value);
    return json_is_integer(value) && json_integer_value(value) >= 0;
}

static bool read_nearness(const json_t *value, struct selector *selector, size_t offset)
{
    (void)offset;
    selector->wire.near_cosine_min = json_number_value(value);
    return json_is_number(value);
}

static bool read_switch(const json_t *value, struct selector *selector, size_t offset)
{
    const bool is_on = json_is_true(value);
    memcpy((char *)selector + offset, &is_on, sizeof(is_on));
    return json_is_boolean(value);
}

#define A_TEXT   "a text in quotes"
#define A_KEY    "32 hexadecimal digits in quotes, as top shows them"
#define A_SWITCH "true or false"

static const struct field {
    const char *name;
    read_fn *read;
    size_t offset; /* in struct selector */
    const char *remedy;
} fields[] = {
    {"key", read_key, 0, A_KEY},
    {"scope", read_scope, 0, A_KEY},
    {"tenant", read_text, offsetof(struct selector, wire.tenant), A_TEXT},
    {"namespace", read_namespace, offsetof(struct selector, wire.cache_namespace), A_TEXT},
    {"tag", read_text, offsetof(struct selector, wire.tag), A_TEXT},
    {"document", read_text, offsetof(struct selector, wire.document), A_TEXT},
    {"route", read_text, offsetof(struct selector, wire.route), A_TEXT},
    {"model", read_text, offsetof(struct selector, wire.model), A_TEXT},
    {"template_version", read_text, offsetof(struct selector, wire.template_version), A_TEXT},
    {"older_than_ms", read_age, 0, "a whole number of milliseconds, from 0"},
    {"text_prefix", read_text, offsetof(struct selector, wire.text_prefix), A_TEXT},
    {"near_text", read_text, offsetof(struct selector, wire.near_text), A_TEXT},
    {"near_cosine_min", read_nearness, 0, "a number from 0.1 to 1"},
    {"reason", read_text, offsetof(struct selector, reason), A_TEXT},
    {"dry_run", read_switch, offsetof(struct selector, dry_run), A_SWITCH},
    {"all", read_switch, offsetof(struct selector, all), A_SWITCH},
};

static const struct field *find_field(const char *name)
{
    for (size_t i = 0; i < ARRAY_LENGTH(fields); i++) {
        if (strcmp(name, fields[i].name) == 0) {
            return &fields[i];
        }
    }
    return NULL;
}

/* Absent fields stay as they are. Errors: -EINVAL, answered. */
static int unpack(json_t *body, struct http_response *response, struct selector *selector)
{
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach (body, name, value) {
        const struct field *field = find_field(name);
        if (field == NULL) {
            http_error(response, 400,
                       "%s is no field of a selector; write one of key, scope, tenant, namespace, "
                       "tag, document, route, model, template_version, older_than_ms, text_prefix, "
                       "near_text, near_cosine_min, all, beside them dry_run, reason",
                       name);
            return -EINVAL;
        }
        if (!field->read(value, selector, field->offset)) {
            refuse_value(response, name, value, field->remedy);
            return -EINVAL;
        }
    }
    return 0;
}

static int read_selector(json_t *body, struct http_response *response,
                         struct selector *ret_selector)
{
    char why[SELECTOR_WHY_BYTES];
    *ret_selector = (struct selector){.reason = (char *)""};
    wire__cache_selector__init(&ret_selector->wire);
    ret_selector->wire.near_cosine_min = SELECTOR_NEAR_PRESET;
    int r = unpack(body, response, ret_selector);
    if (r < 0) {
        return r;
    }
    const Wire__CacheSelector *wire = &ret_selector->wire;
    if (!selector_check(wire, ret_selector->reason, why)) {
        http_error(response, 400, "%s", why);
        return -EINVAL;
    }
    if (selector_is_restricted(wire) == ret_selector->all) {
        http_error(
            response, 400,
            ret_selector->all
                ? "all is true beside other fields; leave it out to invalidate what fits "
                  "the others"
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
    struct survey *survey = survey_promise(broker, request, response);
    if (survey == NULL) {
        return;
    }
    core_cache_position(broker->core, epoch, &before, &told);
    const struct event event = {
        .kind = EVENT_CACHE_INVALIDATE,
        .as.cache_invalidate = {.selector = &selector->wire, .reason = selector->reason}};
    broker_step(broker, &event);
    core_cache_position(broker->core, epoch, &after, &told);
    if (after == before) {
        survey_fail(survey, 503, "the broker is out of memory; nothing was invalidated");
        return;
    }
    survey_await_applied(broker, survey, after);
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

/* ---- what is asked ---- */

static bool is_key(const char *text)
{
    uint8_t bytes[KEY_BYTES];
    return read_hex(text, bytes) == 0;
}

static bool is_rank(const char *text)
{
    return strcmp(text, "saved") == 0 || strcmp(text, "hits") == 0 || strcmp(text, "bytes") == 0;
}

static bool is_text(const char *text)
{
    return text[0] != '\0';
}

/* An argument that the workers would refuse, each in its own answer. */
static const struct argument {
    const char *what, *name;
    bool is_needed;
    bool (*is_good)(const char *text);
    const char *remedy;
} arguments[] = {
    {"cache.get", "key", true, is_key, "32 hexadecimal digits, as top shows them"},
    {"cache.explain", "a", true, is_text, "the one question"},
    {"cache.explain", "b", true, is_text, "the other question"},
    {"cache.export", "from", false, is_key, "32 hexadecimal digits, as next was in the last page"},
    {"cache.rebuild", "scope", false, is_key, "32 hexadecimal digits, as top shows them"},
    {"cache.top", "by", false, is_rank, "saved, hits or bytes"},
};

/* Errors: -EINVAL, answered. */
static int check_arguments(const char *what, const json_t *object, struct http_response *response)
{
    for (size_t i = 0; i < ARRAY_LENGTH(arguments); i++) {
        const struct argument *argument = &arguments[i];
        const json_t *value = json_object_get(object, argument->name);
        const char *text = json_string_value(value);
        if (strcmp(what, argument->what) != 0 ||
            (value == NULL ? !argument->is_needed : text != NULL && argument->is_good(text))) {
            continue;
        }
        if (value == NULL) {
            http_error(response, 400, "%s is missing; write %s", argument->name, argument->remedy);
        } else {
            refuse_value(response, argument->name, value, argument->remedy);
        }
        return -EINVAL;
    }
    return 0;
}

static const char *const PARAMETERS[] = {"key",       "from",  "by",    "a",      "b",
                                         "namespace", "scope", "route", "tenant", "tier"};

/* Errors: -EINVAL, answered. */
static int read_limit(const struct http_request *request, struct http_response *response,
                      json_t *object)
{
    const char *text = http_query(request, "limit");
    if (text == NULL) {
        return 0;
    }
    char *end = NULL;
    const long limit = strtol(text, &end, 10);
    if (*end != '\0' || limit < 1 || limit > LIMIT_MAX) {
        http_error(response, 400, "limit is \"%.32s\", must be from 1 to %d", text, LIMIT_MAX);
        return -EINVAL;
    }
    json_object_set_new(object, "limit", json_integer(limit));
    return 0;
}

/* The workers know which parameters mean something. */
static void ask_with_parameters(struct broker *broker, const struct http_request *request,
                                struct http_response *response, const char *what)
{
    json_t *object = json_object();
    for (size_t i = 0; i < ARRAY_LENGTH(PARAMETERS); i++) {
        const char *value = http_query(request, PARAMETERS[i]);
        if (value != NULL && json_object_set_new(object, PARAMETERS[i], json_string(value)) < 0) {
            http_error(response, 400, "%s is not UTF-8", PARAMETERS[i]);
            json_decref(object);
            return;
        }
    }
    if (read_limit(request, response, object) < 0 || check_arguments(what, object, response) < 0) {
        json_decref(object);
        return;
    }
    survey_ask(broker, request, response, what, object);
}

/* Workers read the same tiers; tenants are known here alone. False: answered. */
static bool class_is_known(const struct broker *broker, const struct http_request *request,
                           struct http_response *response)
{
    const char *tier = http_query(request, "tier"), *tenant = http_query(request, "tenant");
    return (tier == NULL || admin_knows(broker, response, 400, PAUSE_TIER, tier)) &&
           (tenant == NULL || admin_knows(broker, response, 400, PAUSE_TENANT, tenant));
}

static void get_explanation(void *context, const struct http_request *request,
                            struct http_response *response)
{
    if (class_is_known(context, request, response)) {
        ask_with_parameters(context, request, response, "cache.explain");
    }
}

static void get_stats(void *context, const struct http_request *request,
                      struct http_response *response)
{
    ask_with_parameters(context, request, response, "cache.stats");
}

static void refuse_question(void *context, const struct http_request *request,
                            struct http_response *response)
{
    (void)context;
    http_error(response, 404,
               "there is no \"%s\" of the cache; there are stats, top, get, explain and export",
               request->rest);
}

/* What tenants asked and were answered: for the same machine alone, like requests of dead letters.
 */
static void get_top(void *context, const struct http_request *request,
                    struct http_response *response)
{
    ask_with_parameters(context, request, response, "cache.top");
}

static void get_entry(void *context, const struct http_request *request,
                      struct http_response *response)
{
    ask_with_parameters(context, request, response, "cache.get");
}

static void get_export(void *context, const struct http_request *request,
                       struct http_response *response)
{
    ask_with_parameters(context, request, response, "cache.export");
}

static void post_import(void *context, const struct http_request *request,
                        struct http_response *response)
{
    json_t *body = NULL;
    if (admin_read_body(request, response, &body) < 0) {
        return;
    }
    if (json_array_size(json_object_get(body, "entries")) == 0) {
        http_error(response, 400, "entries: missing; it must be a list of exported entries");
        json_decref(body);
        return;
    }
    survey_ask(context, request, response, "cache.import", body);
}

/* A scope by another name would be all of them. Errors: -EINVAL, answered. */
static int check_rebuild(json_t *body, struct http_response *response)
{
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach (body, name, value) {
        if (strcmp(name, "scope") != 0) {
            http_error(response, 400,
                       "%s is no field of a rebuild; write scope, or nothing for all of them",
                       name);
            return -EINVAL;
        }
    }
    return check_arguments("cache.rebuild", body, response);
}

static void post_rebuild(void *context, const struct http_request *request,
                         struct http_response *response)
{
    json_t *body = NULL;
    if (admin_read_body(request, response, &body) < 0) {
        return;
    }
    if (check_rebuild(body, response) < 0) {
        json_decref(body);
        return;
    }
    survey_ask(context, request, response, "cache.rebuild", body);
}

int admin_cache_add_routes(struct broker *broker)
{
    static const struct {
        const char *method, *path;
        bool is_local; /* it changes something, or shows what tenants asked */
        http_fn *handler;
    } routes[] = {
        {"POST", "/v1/cache/invalidate", true, post_invalidate},
        {"POST", "/v1/cache/rebuild", true, post_rebuild},
        {"POST", "/v1/cache/import", true, post_import},
        {"GET", "/v1/cache/evidence", false, evidence_show},
        {"GET", "/v1/cache/export", true, get_export},
        {"GET", "/v1/cache/get", true, get_entry},
        {"GET", "/v1/cache/top", true, get_top},
        {"GET", "/v1/cache/explain", false, get_explanation},
        {"GET", "/v1/cache/stats", false, get_stats},
        {"GET", "/v1/cache/", false, refuse_question},
    };
    int r = 0;
    for (size_t i = 0; r == 0 && i < ARRAY_LENGTH(routes); i++) {
        r = http_admin_route(broker->admin, routes[i].method, routes[i].path, routes[i].is_local,
                             routes[i].handler, broker);
    }
    return r;
}
