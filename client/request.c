#include "client/request.h"
#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/choice.h"
#include "common/json_read.h"
#include "proto/wire.pb-c.h"

/* What an answer is taken to cost in tokens when nobody bounds it: only fairness between tenants
 * hangs on it. */
enum { ANSWER_TOKENS_ASSUMED = 256, BYTES_PER_TOKEN = 4 };

enum operation {
    OPERATION_CHAT,
    OPERATION_COMPLETIONS,
    OPERATION_EMBEDDINGS,
    OPERATION_RESPONSES,
    OPERATIONS
};

static const char *const operation_names[OPERATIONS] = {
    [OPERATION_CHAT] = "chat.completions",
    [OPERATION_COMPLETIONS] = "completions",
    [OPERATION_EMBEDDINGS] = "embeddings",
    [OPERATION_RESPONSES] = "responses",
};

/* What is read from a body besides its canonical form. */
struct body_facts {
    char *model; /* owned; NULL: none is named */
    uint32_t max_tokens;
    uint32_t input_tokens;
    uint32_t prefix; /* common/complexity.h */
    uint32_t abilities;
    uint8_t features[COMPLEXITY_FEATURES];
    bool is_stored; /* at the provider, for whoever asks there: each of its own */
};

static int refuse(char *ret_error, const char *format, ...) PRINTF_LIKE(2, 3);
static int refuse(char *ret_error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(ret_error, REQUEST_ERROR_BYTES, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

static int refuse_memory(char *ret_error)
{
    snprintf(ret_error, REQUEST_ERROR_BYTES, "out of memory");
    return -ENOMEM;
}

static int check_name(const char *field, const char *value, char *ret_error)
{
    if (value == NULL) {
        return 0;
    }
    if (strnlen(value, REQUEST_NAME_BYTES_MAX + 1) > REQUEST_NAME_BYTES_MAX) {
        return refuse(ret_error, "%s: \"%.40s…\" is longer than %d bytes", field, value,
                      REQUEST_NAME_BYTES_MAX);
    }
    return 0;
}

/* ---- the cache ---- */

static bool is_utf8(const char *text)
{
    json_t *string = json_string(text);
    json_decref(string);
    return string != NULL;
}

static int check_cache_text(const char *field, const char *value, size_t bytes_max, char *ret_error)
{
    if (value == NULL) {
        return 0;
    }
    if (strnlen(value, bytes_max + 1) > bytes_max) {
        return refuse(ret_error, "%s: \"%.40s…\" is longer than %zu bytes", field, value,
                      bytes_max);
    }
    return is_utf8(value) ? 0 : refuse(ret_error, "%s: not UTF-8 text", field);
}

static int check_cache_list(const char *field, const char *const *values, size_t length,
                            size_t length_max, char *ret_error)
{
    if (length > length_max) {
        return refuse(ret_error, "%s: %zu are more than %zu", field, length, length_max);
    }
    for (size_t i = 0; i < length; i++) {
        if (values[i] == NULL || values[i][0] == '\0') {
            return refuse(ret_error, "%s: number %zu is empty", field, i + 1);
        }
        int r = check_cache_text(field, values[i], REQUEST_TAG_BYTES_MAX, ret_error);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int check_cache(const struct tiermq_cache_control *cache, char *ret_error)
{
    if ((unsigned)cache->use > TIERMQ_USE_EXACT) {
        return refuse(ret_error, "cache.use: %d is none of TIERMQ_USE_…", (int)cache->use);
    }
    if (cache->ttl_ms < 0 || cache->ttl_ms > REQUEST_TTL_MS_MAX) {
        return refuse(ret_error, "cache.ttl_ms: %lld is out of range; use 0 (the tier's) to %lld",
                      (long long)cache->ttl_ms, (long long)REQUEST_TTL_MS_MAX);
    }
    int r = check_cache_text("cache.cache_namespace", cache->cache_namespace, REQUEST_TAG_BYTES_MAX,
                             ret_error);
    if (r == 0) {
        r = check_cache_text("cache.template_version", cache->template_version,
                             REQUEST_TEMPLATE_BYTES_MAX, ret_error);
    }
    if (r == 0) {
        r = check_cache_list("cache.tags", cache->tags, cache->tags_length, REQUEST_TAGS_MAX,
                             ret_error);
    }
    return r < 0 ? r
                 : check_cache_list("cache.documents", cache->documents, cache->documents_length,
                                    REQUEST_DOCUMENTS_MAX, ret_error);
}

static bool says_something(const struct tiermq_cache_control *cache)
{
    return cache->use != TIERMQ_USE_DEFAULT || cache->cache_namespace != NULL ||
           cache->tags_length > 0 || cache->documents_length > 0 ||
           cache->template_version != NULL || cache->ttl_ms > 0 || cache->allow_variety;
}

static char *or_empty(const char *text)
{
    return (char *)(text == NULL ? ""
                                 : text); /* protobuf-c has no const, and does not write to it */
}

static void fill_cache(const struct tiermq_cache_control *cache, Wire__CacheControl *ret_control)
{
    wire__cache_control__init(ret_control);
    ret_control->use = (Wire__CacheControl__Use)cache->use;
    ret_control->cache_namespace = or_empty(cache->cache_namespace);
    ret_control->n_tags = cache->tags_length;
    ret_control->tags = (char **)cache->tags;
    ret_control->n_documents = cache->documents_length;
    ret_control->documents = (char **)cache->documents;
    ret_control->template_version = or_empty(cache->template_version);
    ret_control->ttl_ms = (uint64_t)cache->ttl_ms;
    ret_control->allow_variety = cache->allow_variety;
}

/* ---- the fields ---- */

static int check_fields(const struct tiermq_job *job, char *ret_error)
{
    const struct {
        const char *field, *value;
    } names[] = {{"tier", job->tier},
                 {"route", job->route},
                 {"pool", job->pool},
                 {"idempotency_key", job->idempotency_key},
                 {"residency", job->residency}};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        int r = check_name(names[i].field, names[i].value, ret_error);
        if (r < 0) {
            return r;
        }
    }
    if (job->task != NULL && strnlen(job->task, REQUEST_TASK_BYTES_MAX + 1) > REQUEST_TASK_BYTES_MAX) {
        return refuse(ret_error, "task: \"%.40s…\" is longer than %d bytes", job->task,
                      REQUEST_TASK_BYTES_MAX);
    }
    if (job->complexity > UINT8_MAX) {
        return refuse(ret_error, "complexity: %u is out of range; use 1 (simple) to 255, or 0",
                      job->complexity);
    }
    if (job->priority > REQUEST_PRIORITY_MAX) {
        return refuse(ret_error, "priority: %u is out of range; use 0 (last) to 9 (first)",
                      job->priority);
    }
    if (job->deadline_ms < 0) {
        return refuse(ret_error,
                      "deadline_ms: %lld has passed already; use 0 for the tier's default",
                      (long long)job->deadline_ms);
    }
    if (job->delay_ms < 0) {
        return refuse(ret_error, "delay_ms: %lld is negative; use 0 for at once",
                      (long long)job->delay_ms);
    }
    if (job->body == NULL && job->prompt == NULL) {
        return refuse(ret_error, "prompt: missing; give a prompt or a body");
    }
    if (job->body_bytes > REQUEST_BODY_BYTES_MAX) {
        return refuse(ret_error, "body: %zu bytes are more than %d", job->body_bytes,
                      REQUEST_BODY_BYTES_MAX);
    }
    return check_cache(&job->cache, ret_error);
}

static int find_operation(const char *name, enum operation *ret_operation, char *ret_error)
{
    if (name == NULL) {
        *ret_operation = OPERATION_CHAT;
        return 0;
    }
    for (size_t i = 0; i < OPERATIONS; i++) {
        if (strcmp(name, operation_names[i]) == 0) {
            *ret_operation = (enum operation)i;
            return 0;
        }
    }
    return refuse(ret_error,
                  "operation: \"%.60s\" is unknown; use chat.completions, completions, embeddings "
                  "or responses",
                  name);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_hex(const char *text, size_t bytes, uint8_t *ret_bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        const int high = hex_digit(text[2 * i]);
        const int low = high < 0 ? -1 : hex_digit(text[2 * i + 1]);
        if (low < 0) {
            return false;
        }
        ret_bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* W3C Trace Context: version "-" 32 hex digits "-" 16 hex digits "-" flags. */
static int read_trace_parent(const char *text, uint8_t *ret_bytes, char *ret_error)
{
    if (strlen(text) < 55 || text[2] != '-' || text[35] != '-' || text[52] != '-' ||
        !read_hex(text + 3, 16, ret_bytes) || !read_hex(text + 36, 8, ret_bytes + 16)) {
        return refuse(ret_error,
                      "trace_parent: \"%.60s\" is no W3C traceparent (00-<32 hex>-<16 hex>-01)",
                      text);
    }
    return 0;
}

/* Gives: *ret_body, a NUL-terminated JSON text to be released with free(). */
static int body_from_prompt(enum operation operation, const struct tiermq_job *job, char **ret_body,
                            char *ret_error)
{
    json_t *root = NULL;
    json_t *prompt = json_string(job->prompt);
    if (prompt == NULL) {
        return refuse(ret_error, "prompt: not UTF-8 text");
    }
    switch (operation) {
    case OPERATION_CHAT:
        root = json_pack("{s:[{s:s,s:o}]}", "messages", "role", "user", "content", prompt);
        break;
    case OPERATION_COMPLETIONS:
        root = json_pack("{s:o}", "prompt", prompt);
        break;
    case OPERATION_EMBEDDINGS:
    case OPERATION_RESPONSES:
        root = json_pack("{s:o}", "input", prompt);
        break;
    case OPERATIONS:
        break;
    }
    /* A bound that only the envelope names would bind nobody. */
    if (root != NULL && job->max_tokens > 0 && operation != OPERATION_EMBEDDINGS &&
        json_object_set_new(root,
                            operation == OPERATION_RESPONSES ? "max_output_tokens" : "max_tokens",
                            json_integer(job->max_tokens)) < 0) {
        json_decref(root);
        root = NULL;
    }
    char *body = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (body == NULL) {
        return refuse_memory(ret_error);
    }
    *ret_body = body;
    return 0;
}

static uint32_t read_max_tokens(const json_t *root)
{
    static const char *const names[] = {"max_completion_tokens", "max_tokens",
                                        "max_output_tokens"};
    const json_t *value = NULL;
    for (size_t i = 0; i < ARRAY_LENGTH(names) && !json_is_integer(value); i++) {
        value = json_object_get(root, names[i]);
    }
    const json_int_t tokens = json_integer_value(value);
    return tokens > 0 && tokens <= UINT32_MAX ? (uint32_t)tokens : 0;
}

/* The body is known to be a JSON object. What is to be embedded is no question. */
static int read_body_facts(enum operation operation, const char *body, size_t bytes,
                           struct body_facts *ret_facts)
{
    json_t *root = json_read(body, bytes, JSON_ALLOW_NUL, NULL);
    if (root == NULL) {
        return -ENOMEM;
    }
    const char *model = json_string_value(json_object_get(root, "model"));
    struct body_facts facts = {.max_tokens = read_max_tokens(root),
                               .abilities = complexity_abilities(root),
                               .is_stored = json_is_true(json_object_get(root, "store"))};
    if (operation != OPERATION_EMBEDDINGS) {
        facts.input_tokens = complexity_tokens(root);
        facts.prefix = complexity_prefix(root);
        complexity_features(root, facts.features);
    }
    if (model != NULL) {
        facts.model = strdup(model);
    }
    json_decref(root);
    if (model != NULL && facts.model == NULL) {
        return -ENOMEM;
    }
    *ret_facts = facts;
    return 0;
}

static int pack_payload(const struct tiermq_job *job, const char *operation, const char *route,
                        const char *body, size_t body_bytes,
                        struct blob **ret_payload)
{
    Wire__ModelRequest message = WIRE__MODEL_REQUEST__INIT;
    Wire__CacheControl control;
    fill_cache(&job->cache, &control);
    message.cache = says_something(&job->cache) ? &control : NULL;
    message.batchable = job->batchable;
    message.operation = (char *)operation;
    message.model = (char *)route;
    message.body.data = (uint8_t *)body;
    message.body.len = body_bytes;
    const size_t bytes = wire__model_request__get_packed_size(&message);
    uint8_t *packed = malloc(bytes);
    if (packed == NULL) {
        return -ENOMEM;
    }
    wire__model_request__pack(&message, packed);
    int r = blob_wrap(packed, bytes, free, packed, ret_payload);
    if (r < 0) {
        free(packed);
    }
    return r;
}

static const char *keep(char **at, const char *text)
{
    char *kept = *at;
    const size_t bytes = strlen(text) + 1;
    memcpy(kept, text, bytes);
    *at += bytes;
    return kept;
}

static const char *or_default(const char *text, const char *instead)
{
    return text == NULL || text[0] == '\0' ? instead : text;
}

static struct request *allocate(const struct tiermq_job *job, const char *route)
{
    const char *tier = or_default(job->tier, "standard");
    const char *pool = or_default(job->pool, "");
    const char *idempotency_key = or_default(job->idempotency_key, "");
    const char *residency = or_default(job->residency, "");
    const char *task = or_default(job->task, "");
    const size_t strings = strlen(tier) + strlen(route) + strlen(pool) + strlen(idempotency_key) +
                           strlen(residency) + strlen(task) + 6;
    struct request *request = calloc(1, sizeof(*request) + strings);
    if (request == NULL) {
        return NULL;
    }
    char *at = request->strings;
    request->tier = keep(&at, tier);
    request->route = keep(&at, route);
    request->pool = keep(&at, pool);
    request->idempotency_key = keep(&at, idempotency_key);
    request->residency = keep(&at, residency);
    request->task = keep(&at, task);
    request->complexity = job->complexity;
    request->stream = job->stream;
    /* An identical job may be answered from the cache, or be near another: not what this one wants.
     */
    request->is_distinct = job->distinct || job->cache.use != TIERMQ_USE_DEFAULT;
    request->discard_result = job->discard_result;
    request->priority = job->priority;
    request->deadline_ms = job->deadline_ms;
    request->delay_ms = job->delay_ms;
    return request;
}

static uint32_t estimate_tokens(enum operation operation, const struct request *request)
{
    if (operation == OPERATION_EMBEDDINGS) {
        return request->input_tokens;
    }
    const uint32_t bound = request->max_tokens;
    const bool is_bounded = bound > 0 && bound < ANSWER_TOKENS_ASSUMED;
    const uint32_t output = is_bounded ? bound : ANSWER_TOKENS_ASSUMED;
    return request->input_tokens > UINT32_MAX - output ? UINT32_MAX
                                                       : request->input_tokens + output;
}

/* What its text says of the model that it needs. Of embeddings, the input is all of the body. */
static void keep_facts(struct request *request, enum operation operation,
                       const struct body_facts *facts, size_t body_bytes)
{
    const uint32_t all = (uint32_t)(body_bytes / BYTES_PER_TOKEN) + 1;
    request->prefix = facts->prefix;
    request->input_tokens = operation == OPERATION_EMBEDDINGS ? all : facts->input_tokens;
    request->abilities = facts->abilities;
    memcpy(request->features, facts->features, sizeof(request->features));
}

static int create_from_body(const struct tiermq_job *job, const char *tenant,
                            enum operation operation, const char *body, size_t body_bytes,
                            struct request **ret_request, char *ret_error)
{
    char *canonical = NULL;
    size_t canonical_bytes = 0;
    char reason[REQUEST_ERROR_BYTES - 40] = "";
    int r = canonical_json(body, body_bytes, &canonical, &canonical_bytes, reason);
    if (r == -EINVAL) {
        return refuse(ret_error, "body: %s", reason);
    }
    struct body_facts facts = {0};
    if (r == 0) {
        r = read_body_facts(operation, body, body_bytes, &facts);
    }
    if (r == 0) {
        r = check_name("model", facts.model, ret_error);
    }
    struct request *request = NULL;
    if (r == 0) {
        request = allocate(job, or_default(job->route, or_default(facts.model, "auto")));
        r = request == NULL ? -ENOMEM : 0;
    }
    if (r == 0) {
        /* Who has not marked its job is not to get an answer that was made in company. */
        request->is_distinct = request->is_distinct || facts.is_stored ||
                               (facts.abilities & ABILITY_STORED) != 0 ||
                               (job->batchable && operation == OPERATION_CHAT);
        const char *name = operation_names[operation];
        canonical_key(NULL, tenant, or_empty(job->cache.cache_namespace), name, request->route, canonical,
                      canonical_bytes, request->canonical_key);
        request->max_tokens = job->max_tokens > 0 ? job->max_tokens : facts.max_tokens;
        keep_facts(request, operation, &facts, body_bytes);
        request->estimated_tokens = job->estimated_tokens > 0
                                        ? job->estimated_tokens
                                        : estimate_tokens(operation, request);
        r = pack_payload(job, name, request->route, body, body_bytes, &request->payload);
    }
    free(facts.model);
    free(canonical);
    if (r < 0) {
        request_destroy(&request);
        return r == -ENOMEM ? refuse_memory(ret_error) : r;
    }
    *ret_request = request;
    return 0;
}

static int create_from_prompt(const struct tiermq_job *job, const char *tenant,
                              enum operation operation, struct request **ret_request,
                              char *ret_error)
{
    char *body = NULL;
    int r = body_from_prompt(operation, job, &body, ret_error);
    if (r < 0) {
        return r;
    }
    assert(body != NULL); /* for the analyser: without one, the call above failed */
    r = create_from_body(job, tenant, operation, body, strlen(body), ret_request, ret_error);
    free(body);
    return r;
}

int request_create(const struct tiermq_job *job, const char *tenant, struct request **ret_request,
                   char *ret_error)
{
    enum operation operation = OPERATION_CHAT;
    int r = check_fields(job, ret_error);
    if (r == 0) {
        r = find_operation(job->operation, &operation, ret_error);
    }
    uint8_t trace_parent[REQUEST_TRACE_BYTES] = {0};
    if (r == 0 && job->trace_parent != NULL) {
        r = read_trace_parent(job->trace_parent, trace_parent, ret_error);
    }
    if (r == 0 && job->body != NULL) {
        r = create_from_body(job, tenant, operation, job->body, job->body_bytes, ret_request,
                             ret_error);
    } else if (r == 0) {
        r = create_from_prompt(job, tenant, operation, ret_request, ret_error);
    }
    if (r == 0 && job->trace_parent != NULL) {
        assert(*ret_request != NULL);
        memcpy((*ret_request)->trace_parent, trace_parent, sizeof(trace_parent));
        (*ret_request)->has_trace_parent = true;
    }
    return r;
}

void request_destroy(struct request **request)
{
    if (*request != NULL) {
        blob_unref(&(*request)->payload);
        free(*request);
        *request = NULL;
    }
}
