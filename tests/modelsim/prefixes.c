#include "tests/modelsim/prefixes.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct prefix {
    uint64_t hash; /* 0: none is here */
    int64_t from_us, until_us;
};

struct prefixes {
    int64_t keep_us;
    struct prefix items[PREFIXES_MAX]; /* by the hash's last bits */
};

int prefixes_create(int64_t keep_us, struct prefixes **ret_prefixes)
{
    struct prefixes *prefixes = calloc(1, sizeof(*prefixes));
    if (prefixes == NULL) {
        return -ENOMEM;
    }
    prefixes->keep_us = keep_us;
    *ret_prefixes = prefixes;
    return 0;
}

void prefixes_destroy(struct prefixes **prefixes)
{
    free(*prefixes);
    *prefixes = NULL;
}

/* Whether it can be read. It is kept from now on, or on. */
static bool read_one(struct prefixes *prefixes, uint64_t hash, int64_t now_us, int64_t answered_us)
{
    struct prefix *prefix = &prefixes->items[hash % PREFIXES_MAX];
    const bool is_kept = prefix->hash == hash && prefix->until_us > now_us;
    const bool is_there = is_kept && prefix->from_us <= now_us;
    if (!is_kept) {
        *prefix = (struct prefix){.hash = hash, .from_us = answered_us};
    }
    prefix->until_us = answered_us + prefixes->keep_us;
    return is_there;
}

static uint64_t hash_text(const char *text, uint64_t seed)
{
    return text == NULL ? XXH3_64bits_withSeed("", 0, seed)
                        : XXH3_64bits_withSeed(text, strlen(text) + 1, seed);
}

/* What a prefix has in common beside its text. */
static uint64_t hash_of_circumstances(const struct model_request *request, const char *key)
{
    char *tools = json_dumps(json_object_get(request->document, "tools"), JSON_COMPACT);
    uint64_t hash = hash_text(key, hash_text(request->model, 0));
    hash =
        hash_text(json_string_value(json_object_get(request->document, "prompt_cache_key")), hash);
    hash = hash_text(tools, hash);
    free(tools);
    return hash;
}

static void read_steps(struct prefixes *prefixes, uint64_t seed, int64_t now_us,
                       int64_t answered_us, struct model_request *request)
{
    bool goes_on = true;
    size_t at = 0;
    for (uint32_t tokens = PREFIX_TOKENS_MIN; tokens <= request->input_tokens;
         tokens += PREFIX_TOKENS_STEP) {
        const size_t from = at;
        at += model_tokens_bytes(request->prompt + at, tokens == PREFIX_TOKENS_MIN
                                                           ? PREFIX_TOKENS_MIN
                                                           : PREFIX_TOKENS_STEP);
        seed = XXH3_64bits_withSeed(request->prompt + from, at - from, seed);
        goes_on = read_one(prefixes, seed, now_us, answered_us) && goes_on;
        request->cached_tokens = goes_on ? tokens : request->cached_tokens;
    }
}

static void read_marks(struct prefixes *prefixes, uint64_t seed, int64_t now_us,
                       int64_t answered_us, struct model_request *request)
{
    uint32_t tokens = 0;
    size_t from = 0;
    for (size_t i = 0; i < request->marks_length; from = request->marks[i], i++) {
        char *end = request->prompt + request->marks[i];
        const char next = *end;
        *end = '\0'; /* a mark ends a line, so no token is cut by it */
        tokens += model_count_tokens(request->prompt + from);
        *end = next;
        seed = XXH3_64bits_withSeed(request->prompt + from, request->marks[i] - from, seed);
        if (tokens < PREFIX_TOKENS_MIN) {
            continue;
        }
        const bool is_there = read_one(prefixes, seed, now_us, answered_us);
        request->cached_tokens = is_there ? tokens : request->cached_tokens;
        request->cache_write_tokens = tokens - request->cached_tokens;
    }
}

void prefixes_read(struct prefixes *prefixes, const char *key, int64_t now_us, int64_t answered_us,
                   struct model_request *request)
{
    const uint64_t seed = hash_of_circumstances(request, key);
    if (request->api == API_MESSAGES) {
        read_marks(prefixes, seed, now_us, answered_us, request);
    } else if (request->api == API_CHAT || request->api == API_COMPLETIONS ||
               request->api == API_RESPONSES) {
        read_steps(prefixes, seed, now_us, answered_us, request);
    }
}
