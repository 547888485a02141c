#include "worker/cache/cache_rules.h"

#include <string.h>

#include "common/config.h"
#include "worker/attempt.h"
#include "worker/cache/scope.h"
#include "worker/cache/time_words.h"

static Wire__CacheControl__Use use_of(const struct attempt *attempt)
{
    return attempt->request->cache == NULL ? WIRE__CACHE_CONTROL__USE__USE_DEFAULT
                                           : attempt->request->cache->use;
}

/* A response has items for messages. */
static const json_t *last_message(const struct attempt *attempt)
{
    const json_t *messages = json_object_get(
        attempt->asked, attempt->operation == OPERATION_RESPONSES ? "input" : "messages");
    const size_t length = json_array_size(messages);
    return length == 0 ? NULL : json_array_get(messages, length - 1);
}

static bool has_time_words(const json_t *text)
{
    return json_is_string(text) && time_words_are_in(json_string_value(text));
}

/* In what is asked: the last message, of whatever parts, or the prompt. */
static bool asks_for_now(const struct attempt *attempt)
{
    const json_t *content = json_object_get(last_message(attempt), "content");
    size_t i;
    const json_t *part;
    const char *text = attempt->operation == OPERATION_RESPONSES ? "input" : "prompt";
    bool is_found = has_time_words(content) || has_time_words(json_object_get(attempt->asked, text));
    json_array_foreach (content, i, part) {
        is_found = is_found || has_time_words(json_object_get(part, "text"));
    }
    return is_found;
}

static void heed_time_words(const struct services *services, const struct attempt *attempt, struct cache_rules *rules)
{
    const Wire__CacheControl *control = attempt->request->cache;
    const int64_t most_ms = services->config->cache.time_words_ttl_ms;
    rules->age_ms_max = INT64_MAX;
    if (most_ms > 0 && (control == NULL || control->ttl_ms == 0) && asks_for_now(attempt)) {
        rules->age_ms_max = most_ms;
        rules->ttl_ms = rules->ttl_ms < most_ms ? rules->ttl_ms : most_ms;
        rules->stale_while_revalidate_ms = rules->stale_if_error_ms = 0;
    }
}

/* Its answer depends on what the provider keeps, looks up or does besides, or shall be kept there. */
static bool is_stateful(const json_t *asked)
{
    static const char *const names[] = {"previous_response_id", "conversation", "prompt"};
    bool is_found = json_is_true(json_object_get(asked, "store"));
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        const json_t *value = json_object_get(asked, names[i]);
        is_found = is_found || (value != NULL && !json_is_null(value));
    }
    size_t i;
    const json_t *tool;
    json_array_foreach (json_object_get(asked, "tools"), i, tool) {
        const char *type = json_string_value(json_object_get(tool, "type"));
        is_found = is_found || type == NULL ||
                   (strcmp(type, "function") != 0 && strcmp(type, "custom") != 0);
    }
    return is_found;
}

static bool is_tool_result(const json_t *message)
{
    static const char *const words[] = {"tool", "function", "function_call_output",
                                        "custom_tool_call_output"};
    const char *role = json_string_value(json_object_get(message, "role"));
    const char *type = json_string_value(json_object_get(message, "type"));
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
        if ((role != NULL && strcmp(role, words[i]) == 0) ||
            (type != NULL && strcmp(type, words[i]) == 0)) {
            return true;
        }
    }
    return false;
}

/* What only the body tells. NULL: nothing speaks against it. */
static const char *complaint_of_body(const struct services *services, const struct attempt *attempt)
{
    const Wire__CacheControl *control = attempt->request->cache;
    if (is_tool_result(last_message(attempt))) {
        return "tool_result";
    }
    if (attempt->operation == OPERATION_RESPONSES && is_stateful(attempt->asked)) {
        return "stateful";
    }
    if (scope_temperature_permille(attempt->asked) > services->config->cache.temperature_max_permille &&
               (control == NULL || !control->allow_variety)) {
        return "variety";
    }
    return NULL;
}

void cache_rules_of(const struct services *services, const struct attempt *attempt, struct cache_rules *ret_rules)
{
    const Wire__CacheCheck *check = attempt->request->check;
    const Wire__CacheControl *control = attempt->request->cache;
    const Wire__CacheControl__Use use = use_of(attempt);
    const Wire__CacheCheck__Why why = check == NULL ? WIRE__CACHE_CHECK__WHY__WHY_NONE : check->why;
    struct cache_rules rules = {.is_looked_up = true,
                                .may_be_near = services->cache_mode == CACHE_NEAR,
                                .tier = check == NULL ? attempt->tier : check->tier};
    const struct config_tier *tier = config_find_tier(services->config, rules.tier);
    rules.ttl_ms = tier == NULL ? 0 : tier->cache_ttl_ms;
    if (tier != NULL) {
        rules.stale_while_revalidate_ms = tier->cache_stale_while_revalidate_ms;
        rules.stale_if_error_ms = tier->cache_stale_if_error_ms;
        rules.is_stale_at_once = tier->cache_stale_at_once == SWITCH_ON;
        rules.prompt_cut = (struct prompt_cut){.history_tokens = tier->prompt_history_tokens_max,
                                               .passages_tokens = tier->prompt_passages_tokens_max};
    }
    if (rules.ttl_ms > 0 && control != NULL && control->ttl_ms > 0) {
        rules.ttl_ms = control->ttl_ms < INT64_MAX / 4 ? (int64_t)control->ttl_ms : rules.ttl_ms;
    }
    if (rules.ttl_ms <= 0) {
        rules.bypass = "off";
    } else if (use == WIRE__CACHE_CONTROL__USE__USE_OFF) {
        rules.bypass = "opted_out";
    } else if (why == WIRE__CACHE_CHECK__WHY__WHY_JUDGE) {
        rules.bypass = "check";
    } else {
        rules.bypass = complaint_of_body(services, attempt);
    }
    heed_time_words(services, attempt, &rules);
    rules.is_looked_up = use != WIRE__CACHE_CONTROL__USE__USE_REFRESH && why == WIRE__CACHE_CHECK__WHY__WHY_NONE;
    rules.may_be_near = rules.may_be_near && use != WIRE__CACHE_CONTROL__USE__USE_EXACT;
    *ret_rules = rules;
}
