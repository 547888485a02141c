#include "worker/combine/caution.h"

#include <string.h>
#include <xxhash.h>

uint64_t caution_upstream(bool are_questions, const char *provider, const char *model)
{
    const uint64_t hash = XXH3_64bits_withSeed(provider, strlen(provider), are_questions);
    return XXH3_64bits_withSeed(model, strlen(model), hash) | 1;
}

/* CAUTION_UPSTREAMS: it has no entry. */
static size_t find(const struct caution *caution, uint64_t upstream)
{
    size_t i = 0;
    while (i < CAUTION_UPSTREAMS && caution->entries[i].upstream != upstream) {
        i++;
    }
    return i;
}

bool caution_forbids(const struct caution *caution, uint64_t upstream, int64_t now_ms)
{
    const size_t at = find(caution, upstream);
    return at < CAUTION_UPSTREAMS && now_ms < caution->entries[at].until_ms;
}

static size_t begin_entry(struct caution *caution, uint64_t upstream)
{
    const size_t at = caution->next;
    caution->next = (at + 1) % CAUTION_UPSTREAMS;
    memset(&caution->entries[at], 0, sizeof(caution->entries[at]));
    caution->entries[at].upstream = upstream;
    return at;
}

void caution_learn(struct caution *caution, uint64_t upstream, bool is_useful, int64_t now_ms)
{
    size_t at = find(caution, upstream);
    if (is_useful && at < CAUTION_UPSTREAMS) {
        caution->entries[at].upstream = 0;
        caution->entries[at].until_ms = 0;
    }
    if (is_useful) {
        return;
    }
    at = at < CAUTION_UPSTREAMS ? at : begin_entry(caution, upstream);
    caution->entries[at].failures++;
    if (caution->entries[at].failures >= CAUTION_FAILURES) {
        caution->entries[at].until_ms = now_ms + CAUTION_MS;
    }
}
