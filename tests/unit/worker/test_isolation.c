/*
 * Nothing crosses a scope: random requests over random tenants, namespaces, routes, residency labels, system prompts, tools, parameters
 * and histories.
 * Each field is varied singly, with the same text: no hit, exact or near, of the one may answer the other. The same generator without
 * that difference, its members in another order, meets its entry. TIERMQ_ISOLATION_TRIES sets how many (10,000).
 */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/canonical.h"
#include "worker/attempt.h"
#include "worker/cache/scope.h"

enum variation {
    SAME,
    TENANT,
    NAMESPACE,
    OPERATION,
    ROUTE,
    SYSTEM_PROMPT,
    TOOLS,
    RESPONSE_FORMAT,
    TEMPERATURE,
    MAX_TOKENS,
    SEED,
    TOP_P,
    CHOICES,
    PENALTY,
    STOP,
    TOOL_CHOICE,
    HISTORY,
    EARLIER_ANSWER,
    ATTACHMENT,
    OTHER_ATTACHMENT,
    LANGUAGE,
    MODEL,
    LABEL,
    TENANTS_LABEL,
    VARIATIONS,
};

static uint64_t state = 88172645463325252u;

/* xorshift64 */
static uint64_t random_next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static const char *pick(const char *const *words, size_t length)
{
    return words[random_next() % length];
}

struct request {
    char tenant[32], cache_namespace[32], route[32];
    char label[32], tenants_label[32]; /* residency; empty: none */
    json_t *body;
};

static json_t *message(const char *role, const char *text)
{
    return json_pack("{s:s, s:s}", "role", role, "content", text);
}

static const char *const TEXTS[] = {"How much does it cost?", "Which trains run at night?",
                                    "Summarise this in one line.", "Is it open on Sunday?"};

static struct request make(void)
{
    static const char *const systems[] = {"You are terse.", "You answer as a pirate.", "You are a clerk of the shop."};
    struct request request;
    (void)snprintf(request.tenant, sizeof(request.tenant), "tenant-%u", (unsigned)(random_next() % 50));
    request.cache_namespace[0] = '\0';
    if (random_next() % 2 != 0) {
        (void)snprintf(request.cache_namespace, sizeof(request.cache_namespace), "ns-%u", (unsigned)(random_next() % 9));
    }
    (void)snprintf(request.route, sizeof(request.route), "route-%u", (unsigned)(random_next() % 5));
    static const char *const labels[] = {"", "eu", "us"};
    (void)snprintf(request.label, sizeof(request.label), "%s", pick(labels, 3));
    (void)snprintf(request.tenants_label, sizeof(request.tenants_label), "%s", pick(labels, 3));
    json_t *messages = json_array();
    (void)json_array_append_new(messages, message("system", pick(systems, 3)));
    for (uint64_t i = random_next() % 3; i > 0; i--) {
        (void)json_array_append_new(messages, message("user", pick(TEXTS, 4)));
        (void)json_array_append_new(messages, message("assistant", "It depends."));
    }
    (void)json_array_append_new(messages, message("user", pick(TEXTS, 4)));
    request.body = json_pack("{s:s, s:o, s:f, s:i}", "model", "small", "messages", messages, "temperature",
                             (double)(random_next() % 5) / 10.0, "max_tokens", (int)(100 + random_next() % 3));
    return request;
}

static json_t *first_message(const struct request *request)
{
    return json_array_get(json_object_get(request->body, "messages"), 0);
}

static json_t *image(const char *url)
{
    return json_pack("{s:s, s:[{s:s, s:s}, {s:s, s:{s:s}}]}", "role", "user", "content", "type", "text", "text", "Look.",
                     "type", "image_url", "image_url", "url", url);
}

/* What is to be varied must be there before. */
static void prepare(struct request *request, enum variation variation)
{
    json_t *messages = json_object_get(request->body, "messages");
    if (variation == OTHER_ATTACHMENT) {
        json_array_insert_new(messages, 1, image("data:image/png;base64,AAAA"));
    } else if (variation == EARLIER_ANSWER) {
        json_array_insert_new(messages, 1, message("assistant", "It is open."));
    } else if (variation == LANGUAGE) {
        json_object_set_new(request->body, "language", json_string("en"));
    }
}

/* What may be said and changes nothing. */
static void say_defaults(json_t *body)
{
    json_object_set_new(body, "top_p", json_real(1.0));
    json_object_set_new(body, "n", json_integer(1));
    json_object_set_new(body, "presence_penalty", json_integer(0));
    json_object_set_new(body, "stop", json_null());
    json_object_set_new(body, "stream", json_true());
    json_object_set_new(body, "user", json_string("somebody"));
}

static void vary(struct request *request, enum variation variation)
{
    json_t *body = request->body;
    switch (variation) {
    case TENANT:
        strcat(request->tenant, "x");
        break;
    case NAMESPACE:
        strcat(request->cache_namespace, "x");
        break;
    case ROUTE:
        strcat(request->route, "x");
        break;
    case SYSTEM_PROMPT:
        json_object_set_new(first_message(request), "content", json_string("You are terse!"));
        break;
    case TOOLS:
        json_object_set_new(body, "tools", json_pack("[{s:s, s:{s:s}}]", "type", "function", "function", "name", "buy"));
        break;
    case RESPONSE_FORMAT:
        json_object_set_new(body, "response_format", json_pack("{s:s}", "type", "json_object"));
        break;
    case TEMPERATURE:
        json_object_set_new(body, "temperature", json_real(0.95));
        break;
    case MAX_TOKENS:
        json_object_set_new(body, "max_tokens", json_integer(7));
        break;
    case SEED:
        json_object_set_new(body, "seed", json_integer(12345));
        break;
    case TOP_P:
        json_object_set_new(body, "top_p", json_real(0.5));
        break;
    case CHOICES:
        json_object_set_new(body, "n", json_integer(2));
        break;
    case PENALTY:
        json_object_set_new(body, "frequency_penalty", json_real(0.5));
        break;
    case STOP:
        json_object_set_new(body, "stop", json_string("."));
        break;
    case TOOL_CHOICE:
        json_object_set_new(body, "tool_choice", json_string("required"));
        break;
    case EARLIER_ANSWER:
        json_object_set_new(json_array_get(json_object_get(body, "messages"), 1), "content", json_string("It is closed."));
        break;
    case OTHER_ATTACHMENT:
        json_array_set_new(json_object_get(body, "messages"), 1, image("data:image/png;base64,AAAB"));
        break;
    case LANGUAGE:
        json_object_set_new(body, "language", json_string("de"));
        break;
    case HISTORY:
        json_array_insert_new(json_object_get(body, "messages"), 1, message("user", "Earlier I asked for something else."));
        break;
    case ATTACHMENT:
        json_array_insert_new(json_object_get(body, "messages"), 1,
                              image("data:image/png;base64,AAAA"));
        break;
    case MODEL:
        json_object_set_new(body, "model", json_string("large"));
        break;
    case LABEL:
        strcat(request->label, "x");
        break;
    case TENANTS_LABEL:
        strcat(request->tenants_label, "x");
        break;
    case SAME:
        say_defaults(body);
        break;
    case OPERATION: /* by who computes the scope */
    case VARIATIONS:
        break;
    }
}

struct identity {
    uint8_t scope[SCOPE_BYTES], key[CANONICAL_KEY_BYTES];
};

static struct identity identify(const struct request *request, const char *operation, size_t flags)
{
    struct identity identity;
    const char *text = NULL;
    char *canonical = NULL, error[CANONICAL_ERROR_BYTES];
    size_t bytes;
    char *packed = json_dumps(request->body, flags);
    json_t *body = json_loads(packed, 0, NULL);
    cr_assert_eq(scope_of(NULL, request->tenant, request->cache_namespace, OPERATION_CHAT, request->route, body, identity.scope,
                          &text),
                 0);
    cr_assert_eq(canonical_json(packed, strlen(packed), &canonical, &bytes, error), 0, "%s", error);
    canonical_key(NULL, request->tenant, request->cache_namespace, operation, request->route, canonical, bytes, identity.key);
    char *labels[ATTEMPT_LABELS_MAX];
    const struct attempt attempt = {.residency = (char *)request->label, .tenant_residency = (char *)request->tenants_label};
    const size_t length = attempt_labels(&attempt, labels);
    canonical_key_narrow(NULL, labels, length, identity.key);
    canonical_key_narrow(NULL, labels, length, identity.scope);
    json_decref(body);
    free(packed);
    free(canonical);
    return identity;
}

static long tries(void)
{
    const char *text = getenv("TIERMQ_ISOLATION_TRIES");
    return text == NULL ? 10000 : atol(text);
}

Test(isolation, nothing_crosses_a_scope, .timeout = 600)
{
    for (long i = 0; i < tries(); i++) {
        const enum variation variation = (enum variation)(random_next() % VARIATIONS);
        struct request request = make();
        prepare(&request, variation);
        const struct identity before = identify(&request, "chat.completions", JSON_COMPACT);
        vary(&request, variation);
        const struct identity after =
            identify(&request, variation == OPERATION ? "completions" : "chat.completions", JSON_INDENT(2) | JSON_SORT_KEYS);
        const bool same_key = memcmp(before.key, after.key, sizeof(before.key)) == 0;
        const bool same_scope = memcmp(before.scope, after.scope, sizeof(before.scope)) == 0;
        cr_assert_eq(same_key, variation == SAME, "key, variation %d, try %ld", (int)variation, i);
        cr_assert_eq(same_scope, variation == SAME || variation == OPERATION, "scope, variation %d, try %ld",
                     (int)variation, i);
        json_decref(request.body);
    }
}
