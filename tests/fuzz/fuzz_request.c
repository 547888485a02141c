/*
 * What a client asks, as each protocol writes it. Byte 0 chooses protocol, operation and whether it
 * is streamed; the rest is the body. The broker lets nothing but a JSON object pass, and a body
 * that is none has to be survived nevertheless.
 */
#include <errno.h>
#include <jansson.h>
#include <string.h>
#include "tests/fuzz/fuzz.h"
#include "worker/provider/protocol.h"

enum { BODY_BYTES_MAX = 1 << 20 };

static const struct protocol *const protocols[] = {&protocol_openai, &protocol_anthropic,
                                                   &protocol_gemini, &protocol_responses,
                                                   &protocol_azure};

/* What is written is a JSON object; what is not has its reason. */
static void check_body(int r, const struct provider_request *request, const struct bytes *out,
                       const struct outcome *outcome)
{
    if (r == -EINVAL) {
        must_hold(outcome->kind == WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED ||
                  outcome->kind == WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID);
        must_hold(outcome->code != NULL && outcome->code[0] != '\0' && outcome->text[0] != '\0');
        return;
    }
    must_hold(r == 0 || r == -EMSGSIZE);
    json_t *body = json_loadb(request->body, request->body_bytes, 0, NULL);
    if (r == 0 && json_is_object(body)) {
        json_t *written = json_loadb(out->data, out->length, 0, NULL);
        must_hold(json_is_object(written));
        json_decref(written);
    }
    json_decref(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < 1) {
        return 0;
    }
    const size_t choice = (data[0] & 3) | (data[0] >> 2 & 4);
    const struct protocol *protocol = protocols[choice % ARRAY_LENGTH(protocols)];
    const struct provider_request request = {
        .operation = (enum operation)(((data[0] >> 2) & 3) % OPERATIONS),
        .model = "model",
        .body = data + 1,
        .body_bytes = bytes - 1,
        .max_tokens_default = 100,
        .stream = (data[0] & 0x80) != 0,
        .prefix_key = (data[0] & 0x20) != 0 ? "0123456789abcdef" : NULL,
    };
    struct bytes out = {.bytes_max = BODY_BYTES_MAX};
    struct outcome outcome = {.code = NULL};
    if (protocol->write_path(&request, &out) == 0) {
        bytes_clear(&out);
        check_body(protocol->write_body(&request, &out, &outcome), &request, &out, &outcome);
    }
    bytes_finish(&out);
    return 0;
}
