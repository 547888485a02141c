#include "worker/prompt/prefix.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "worker/prompt/json_exact.h"
#include "worker/prompt/messages.h"
#include "worker/prompt/token_count.h"
#include "worker/provider/member.h"

static bool has_mark_in(const json_t *list)
{
    size_t i;
    json_t *item;
    json_array_foreach (list, i, item) {
        size_t j;
        json_t *part;
        if (json_object_get(item, "cache_control") != NULL) {
            return true;
        }
        json_array_foreach (json_object_get(item, "content"), j, part) {
            if (json_object_get(part, "cache_control") != NULL) {
                return true;
            }
        }
    }
    return false;
}

/* Chained: the tools' text, then each system message's. */
static bool add_json(const json_t *value, const struct bpe *bpe, XXH3_state_t *state,
                     uint64_t *tokens)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
    if (text == NULL) {
        return false;
    }
    const size_t bytes = strlen(text);
    (void)XXH3_128bits_update(state, text, bytes + 1);
    *tokens += token_count(bpe, text, bytes);
    free(text);
    return true;
}

static bool hash_prefix(const json_t *body, const struct bpe *bpe, XXH3_state_t *state,
                        uint64_t *tokens)
{
    const json_t *tools = json_object_get(body, "tools");
    size_t i;
    json_t *message;
    bool is_whole = tools == NULL || add_json(tools, bpe, state, tokens);
    json_array_foreach (json_object_get(body, "messages"), i, message) {
        if (!message_is_system(message)) {
            break;
        }
        is_whole = is_whole && add_json(message, bpe, state, tokens);
    }
    return is_whole;
}

bool prefix_key(const json_t *body, const char *tenant, const struct bpe *bpe,
                char ret_key[PREFIX_KEY_BYTES])
{
    if (json_object_get(body, "prompt_cache_key") != NULL ||
        has_mark_in(json_object_get(body, "messages")) ||
        has_mark_in(json_object_get(body, "tools"))) {
        return false;
    }
    XXH3_state_t *state = XXH3_createState();
    uint64_t tokens = 0;
    if (state == NULL) {
        return false;
    }
    (void)XXH3_128bits_reset(state);
    (void)XXH3_128bits_update(state, tenant, strlen(tenant) + 1);
    const bool is_whole = hash_prefix(body, bpe, state, &tokens);
    const XXH128_hash_t hash = XXH3_128bits_digest(state);
    (void)XXH3_freeState(state);
    (void)snprintf(ret_key, PREFIX_KEY_BYTES, "%016llx%016llx", (unsigned long long)hash.high64,
                   (unsigned long long)hash.low64);
    return is_whole && tokens >= PREFIX_TOKENS_MIN;
}

static const char *tool_name(const json_t *tool)
{
    return member_text(json_object_get(tool, "function"), "name");
}

static int by_name(const void *left, const void *right)
{
    return strcmp(tool_name(*(json_t *const *)left), tool_name(*(json_t *const *)right));
}

enum { TOOLS_MAX = 512 };

bool prefix_sort_tools(json_t *tools)
{
    json_t *sorted[TOOLS_MAX];
    const size_t length = json_array_size(tools);
    bool is_sorted = true;
    if (length > TOOLS_MAX || !json_is_exact(tools)) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        sorted[i] = json_array_get(tools, i);
        if (tool_name(sorted[i])[0] == '\0') {
            return false;
        }
        is_sorted = is_sorted && (i == 0 || by_name(&sorted[i - 1], &sorted[i]) <= 0);
    }
    if (is_sorted) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        json_incref(sorted[i]);
    }
    qsort(sorted, length, sizeof(sorted[0]),
          by_name); /* names are the only order that is asked for */
    for (size_t i = 0; i < length; i++) {
        (void)json_array_set_new(tools, i, sorted[i]);
    }
    return true;
}
