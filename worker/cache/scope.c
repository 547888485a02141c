#include "worker/cache/scope.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/script.h"

/*
 * The member that holds the text: of the last message, or of the body itself. NULL: there is none.
 */
static json_t *text_owner(enum operation operation, json_t *body, const char **ret_member)
{
    if (operation == OPERATION_COMPLETIONS) {
        *ret_member = "prompt";
        return body;
    }
    const json_t *messages = json_object_get(body, "messages");
    const size_t length = json_array_size(messages);
    json_t *last = length == 0 ? NULL : json_array_get(messages, length - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    *ret_member = "content";
    return role != NULL && strcmp(role, "user") == 0 ? last : NULL;
}

static int scope_hash(const struct canonical_secret *secret, const char *tenant, const char *cache_namespace, enum operation operation,
                      const char *route, json_t *body, uint8_t *ret_scope)
{
    char error[CANONICAL_ERROR_BYTES];
    char *canonical = NULL;
    size_t canonical_bytes = 0;
    int r = canonical_of(body, &canonical, &canonical_bytes, error);
    if (r == 0) {
        /* The body lacks its text, so no scope equals an exact key. */
        canonical_key(secret, tenant, cache_namespace, operation_name(operation), route, canonical,
                      canonical_bytes, ret_scope);
    }
    free(canonical);
    return r;
}

/* What stands for the text: as much of it as has to be the same. No request has an object there. */
static json_t *language_of(const json_t *body, const char *text)
{
    const char *script = script_of(text);
    const json_t *named = json_object_get(json_object_get(body, "metadata"), "language");
    if (strcmp(script, "latin") == 0 && !json_is_string(named)) {
        return json_null();
    }
    return json_pack("{s:s, s:O?}", "script", script, "language", named);
}

int scope_of(const struct canonical_secret *secret, const char *tenant, const char *cache_namespace, enum operation operation,
             const char *route, json_t *body, uint8_t ret_scope[SCOPE_BYTES], const char **ret_text)
{
    const char *member;
    if (operation == OPERATION_EMBEDDINGS || operation == OPERATION_RESPONSES) {
        return -ENOENT;
    }
    json_t *owner = text_owner(operation, body, &member);
    json_t *text = json_object_get(owner, member);
    if (!json_is_string(text) || strlen(json_string_value(text)) != json_string_length(text)) {
        return -ENOENT; /* a text that ends at a NUL within it would be another one */
    }
    json_incref(text);
    int r = json_object_set_new(owner, member, language_of(body, json_string_value(text))) < 0 ? -ENOMEM : 0;
    r = r < 0 ? r : scope_hash(secret, tenant, cache_namespace, operation, route, body, ret_scope);
    if (json_object_set(owner, member, text) < 0) {
        r = -ENOMEM;
    }
    *ret_text = json_string_value(text);
    json_decref(text);
    return r;
}

uint32_t scope_temperature_permille(const json_t *body)
{
    const json_t *temperature = json_object_get(body, "temperature");
    const double permille =
        json_is_number(temperature) ? json_number_value(temperature) * 1000.0 : 0.0;
    return permille <= 0 ? 0 : permille >= 1e6 ? 1000000 : (uint32_t)(permille + 0.5);
}
