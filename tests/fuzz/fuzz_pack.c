/* What a model writes for several questions: an answer that is taken has its own marks and nobody else's. */
#include <string.h>
#include "tests/fuzz/fuzz.h"
#include "worker/combine/pack.h"

static struct question questions[] = {
    {.text = "What is a queue?", .tag = "00000001", .seal = "aaaaaa"},
    {.text = "What is a stack?", .tag = "00000002", .seal = "bbbbbb"},
    {.text = "Why?", .tag = "00000003", .seal = "cccccc"},
};
enum { LENGTH = sizeof(questions) / sizeof(questions[0]) };

/* Every mark of it is there, in its place. */
static void check_text(const char *content, size_t bytes, const struct pack_result *result, size_t index)
{
    must_hold(result->text != NULL && result->text_bytes > 0);
    must_hold(memmem(content, bytes, questions[index].tag, 8) != NULL || memchr(content, '\\', bytes) != NULL);
    for (size_t i = 0; i < LENGTH; i++) {
        must_hold(memmem(result->text, result->text_bytes, questions[i].seal, 6) == NULL);
        must_hold(memmem(result->text, result->text_bytes, questions[i].tag, 8) == NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct pack_result results[LENGTH];
    size_t good = 0;
    size_t missing = 0;
    char *content = malloc(bytes + 1);
    if (content == NULL) {
        return 0;
    }
    memcpy(content, data, bytes);
    content[bytes] = '\0';
    const int r = pack_split(content, bytes, questions, LENGTH, results);
    for (size_t i = 0; r == 0 && i < LENGTH; i++) {
        good += results[i].verdict == PACK_GOOD;
        missing += results[i].verdict == PACK_MISSING;
        must_hold(pack_verdict_name(results[i].verdict) != NULL);
        if (results[i].verdict == PACK_GOOD) {
            check_text(content, bytes, &results[i], i);
        }
        free(results[i].text);
    }
    must_hold(missing == 0 || good == 0);
    free(content);
    return 0;
}
