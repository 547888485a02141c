/*
 * A tokenizer.json, and behind a NUL a text for it: tokens have numbers below the bound, and the
 * same text has the same tokens. Without a NUL the file itself is the text.
 */
#include <string.h>
#include "tests/fuzz/fuzz.h"
#include "worker/cache/tokenizer.h"

enum { IDS_MAX = 64 };

static size_t encode(struct tokenizer *tokenizer, const char *text, size_t bytes, uint32_t *ids)
{
    size_t length = 0;
    if (tokenizer_encode(tokenizer, text, bytes, ids, IDS_MAX, &length) < 0) {
        return 0;
    }
    must_hold(length <= IDS_MAX);
    for (size_t i = 0; i < length; i++) {
        must_hold(ids[i] < tokenizer_ids(tokenizer));
    }
    return length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const uint8_t *end = bytes == 0 ? NULL : memchr(data, '\0', bytes);
    const size_t json_bytes = end == NULL ? bytes : (size_t)(end - data);
    const char *text = (const char *)(end == NULL ? data : end + 1);
    const size_t text_bytes = end == NULL ? bytes : bytes - json_bytes - 1;
    struct tokenizer *tokenizer = NULL;
    char error[REFUSAL_BYTES] = "";
    uint32_t ids[IDS_MAX];
    uint32_t again[IDS_MAX];
    if (tokenizer_read((const char *)data, json_bytes, &tokenizer, error) < 0) {
        must_hold(error[0] != '\0');
        return 0;
    }
    const size_t length = encode(tokenizer, text, text_bytes, ids);
    must_hold(encode(tokenizer, text, text_bytes, again) == length);
    must_hold(memcmp(ids, again, length * sizeof(ids[0])) == 0);
    tokenizer_destroy(&tokenizer);
    return 0;
}
