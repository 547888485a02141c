/*
 * Embeddings of several requests: whatever is asked goes into the request whole, and whatever is
 * answered is taken apart into vectors of the right number, or not at all.
 */
#include <jansson.h>
#include <string.h>
#include "tests/fuzz/fuzz.h"
#include "worker/combine/inputs.h"

enum { INPUTS = 5, FIRST = 2 /* of the first request; the rest is of the second */ };

static void check_part(const struct inputs_answer *answer, size_t first, size_t length)
{
    const struct token_share share = {.tokens = {.input = 7}};
    struct bytes out = {.bytes_max = 1 << 20};
    if (inputs_take(answer, first, length, &share, &out) == 0) {
        json_t *body = json_loadb(out.data, out.length, 0, NULL);
        const json_t *data = json_object_get(body, "data");
        must_hold(body == NULL || json_array_size(data) == length);
        for (size_t i = 0; i < json_array_size(data); i++) {
            must_hold(json_integer_value(json_object_get(json_array_get(data, i), "index")) ==
                      (json_int_t)i);
        }
        json_decref(body);
    }
    bytes_finish(&out);
}

static void check_answer(const char *data, size_t bytes)
{
    struct inputs_answer answer;
    if (inputs_open(data, bytes, INPUTS, &answer) == 0) {
        check_part(&answer, 0, FIRST);
        check_part(&answer, FIRST, INPUTS - FIRST);
    }
}

static void check_request(const char *data, size_t bytes)
{
    struct inputs part;
    struct bytes out = {.bytes_max = 1 << 20};
    json_t *root = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, NULL);
    if (root != NULL && json_is_object(root) && inputs_read(root, data, bytes, &part)) {
        const struct inputs parts[] = {part, part};
        must_hold(part.length > 0 && part.length <= INPUTS_MAX);
        must_hold(inputs_write(data, bytes, parts, 2, &out) == 0);
        json_t *body = json_loadb(out.data, out.length, 0, NULL);
        must_hold(json_array_size(json_object_get(body, "input")) == 2 * part.length);
        json_decref(body);
    }
    json_decref(root);
    bytes_finish(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    check_answer((const char *)data, bytes);
    check_request((const char *)data, bytes);
    return 0;
}
