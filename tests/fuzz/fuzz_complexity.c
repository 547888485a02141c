/* A client's request body, or a text in one: features, score, abilities and tokens are within their
 * ranges, and the same again. */
#include <jansson.h>
#include <string.h>
#include "common/choice.h"
#include "common/complexity.h"
#include "tests/fuzz/fuzz.h"

static void check(const json_t *body)
{
    uint8_t features[COMPLEXITY_FEATURES];
    uint8_t again[COMPLEXITY_FEATURES];
    memset(features, 1, sizeof(features));
    memset(again, 2, sizeof(again));
    complexity_features(body, features);
    complexity_features(body, again);
    must_hold(memcmp(features, again, sizeof(features)) == 0);
    const double score = complexity_score(features, complexity_weights_builtin());
    must_hold(score > 0 && score < 1);
    must_hold((complexity_abilities(body) & ~(uint32_t)ABILITIES_ALL) == 0);
    must_hold(complexity_tokens(body) == complexity_tokens(body));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    json_t *body = json_loadb((const char *)data, bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (body != NULL) {
        check(body);
        json_decref(body);
    }
    /* Any bytes, also what jansson would not take for UTF-8; the text ends where the heap block
     * does. */
    json_t *text = json_stringn_nocheck((const char *)data, bytes);
    json_t *prompt = json_pack("{s:o}", "prompt", text);
    if (prompt != NULL) {
        check(prompt);
        json_decref(prompt);
    }
    return 0;
}
