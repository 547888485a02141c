/* A client's request body: its canonical form is a fixed point or refused for a large integer, and
 * a rewrite of the body stays JSON. */
#include <jansson.h>
#include <string.h>
#include "common/canonical.h"
#include "tests/fuzz/fuzz.h"
#include "worker/bytes.h"
#include "worker/provider/body.h"

enum { ERROR_BYTES = 160, REWRITTEN_BYTES_MAX = 1 << 22 };

static void check_fixed_point(const char *text, size_t bytes)
{
    char *again = NULL;
    size_t again_bytes = 0;
    char error[ERROR_BYTES] = "";
    /* 1e19 is written with all its digits (RFC 8785), and such an integer is refused in a request.
     */
    if (canonical_json(text, bytes, &again, &again_bytes, error) == 0) {
        must_hold(again_bytes == bytes && memcmp(again, text, bytes) == 0);
        free(again);
    } else {
        must_hold(strstr(error, "integer") != NULL);
    }
}

static void check_rewrite(const uint8_t *data, size_t bytes)
{
    static const struct body_member members[] = {{"model", "\"other\""}, {"stream", NULL}};
    struct bytes out = {.bytes_max = REWRITTEN_BYTES_MAX};
    if (body_rewrite(data, bytes, members, sizeof(members) / sizeof(members[0]), &out) == 0) {
        json_error_t error;
        json_t *read =
            json_loadb(out.data, out.length, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &error);
        must_hold(read != NULL || json_error_code(&error) == json_error_numeric_overflow);
        if (read != NULL) {
            const char *model = json_string_value(json_object_get(read, "model"));
            must_hold(model != NULL && strcmp(model, "other") == 0 &&
                      json_object_get(read, "stream") == NULL);
            json_decref(read);
        }
    }
    bytes_finish(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char *text = NULL;
    size_t text_bytes = 0;
    char error[ERROR_BYTES] = "";
    if (canonical_json(data, bytes, &text, &text_bytes, error) == 0) {
        must_hold(text[text_bytes] == '\0');
        check_fixed_point(text, text_bytes);
        check_rewrite(data, bytes);
        free(text);
    } else {
        must_hold(error[0] != '\0' && strnlen(error, sizeof(error)) < sizeof(error));
    }
    return 0;
}
