/*
 * Byte 0 chooses. A chat's body, as the prompt optimisation takes it apart: what comes out is JSON,
 * shorter in its texts, and optimised again it changes nothing more. Or a vocabulary, and behind a
 * NUL a text: it is refused with words, or counts no more tokens than the text has bytes. Or a text
 * alone, whose protected parts stay.
 */
#include <jansson.h>
#include <string.h>
#include "tests/fuzz/fuzz.h"
#include "worker/prompt/bpe.h"
#include "worker/prompt/optimise.h"
#include "worker/prompt/space.h"
#include "worker/prompt/spans.h"
#include "worker/prompt/token_count.h"

enum { OUT_BYTES_MAX = 1 << 21 };

static void check_again(const struct optimise_rules *rules, const struct bytes *body)
{
    struct bytes out = {.bytes_max = OUT_BYTES_MAX};
    struct optimised done = {.is_changed = false};
    json_t *object = json_loadb(body->data, body->length, 0, NULL);
    must_hold(json_is_object(object));
    json_decref(object);
    must_hold(optimise_chat(rules, "t", NULL, body->data, body->length, &out, &done) == 0);
    must_hold(!done.is_changed);
    bytes_finish(&out);
}

static void optimise(uint8_t choice, const void *body, size_t bytes)
{
    const struct optimise_rules rules = {
        .space = (choice & 4) != 0,
        .repeats = (choice & 8) != 0,
        .prefix = true,
        .history_tokens_max = (choice & 16) != 0 ? 20 : 0,
        .passages_tokens_max = (choice & 32) != 0 ? 5 : 0,
    };
    struct bytes out = {.bytes_max = OUT_BYTES_MAX};
    struct optimised done = {.is_changed = false};
    json_t *object = json_loadb(body, bytes, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(object) && optimise_chat(&rules, "t", NULL, body, bytes, &out, &done) == 0 &&
        done.is_changed && out.length <= OPTIMISE_BYTES_MAX) {
        check_again(&rules, &out);
    }
    json_decref(object);
    bytes_finish(&out);
}

static void count(const char *file, size_t bytes)
{
    const char *end = memchr(file, '\0', bytes);
    const size_t file_bytes = end == NULL ? bytes : (size_t)(end - file);
    const size_t text_bytes = end == NULL ? bytes : bytes - file_bytes - 1;
    struct bpe *bpe = NULL;
    char error[REFUSAL_BYTES] = "";
    if (bpe_read(file, file_bytes, &bpe, error) < 0) {
        must_hold(error[0] != '\0');
        return;
    }
    must_hold(bpe_count(bpe, end == NULL ? file : end + 1, text_bytes) <= text_bytes);
    bpe_destroy(&bpe);
}

static void tidy(const char *text, size_t bytes)
{
    struct bytes out = {.bytes_max = OUT_BYTES_MAX};
    struct bytes again = {.bytes_max = OUT_BYTES_MAX};
    struct spans spans = {.items = NULL};
    size_t kept = 0;
    must_hold(spans_find(text, bytes, &spans) == 0);
    for (size_t i = 0; i < spans.length; i++) {
        must_hold(spans.items[i].from >= (i == 0 ? 0 : spans.items[i - 1].to));
        must_hold(spans.items[i].from < spans.items[i].to && spans.items[i].to <= bytes);
        kept += spans.items[i].to - spans.items[i].from;
    }
    must_hold(space_tidy(text, bytes, &out) == 0);
    must_hold(out.length >= kept && out.length <= bytes);
    for (size_t i = 0; i < spans.length; i++) {
        const struct span *span = &spans.items[i];
        must_hold(memmem(out.data, out.length, text + span->from, span->to - span->from) != NULL);
    }
    must_hold(space_tidy(out.data == NULL ? "" : out.data, out.length, &again) == 0);
    must_hold(again.length == out.length);
    (void)token_count_estimate(text, bytes);
    spans_finish(&spans);
    bytes_finish(&out);
    bytes_finish(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < 2) {
        return 0;
    }
    switch (data[0] & 3) {
    case 0:
    case 1:
        optimise(data[0], data + 1, bytes - 1);
        break;
    case 2:
        count((const char *)data + 1, bytes - 1);
        break;
    default:
        tidy((const char *)data + 1, bytes - 1);
        break;
    }
    return 0;
}
