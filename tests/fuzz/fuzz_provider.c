/*
 * What a provider replies. Byte 0 chooses protocol (bits 0, 4 and 5), operation and shape (whole or
 * streamed), byte 1 the size of the pieces in which it arrives; the rest is the reply. The order of
 * calls is that of worker/provider/provider.c.
 */
#include <errno.h>
#include <jansson.h>
#include <string.h>
#include "tests/fuzz/fuzz.h"
#include "worker/provider/assembly.h"
#include "worker/provider/delta.h"
#include "worker/provider/outcome.h"
#include "worker/provider/protocol.h"
#include "worker/provider/sse.h"

enum { ANSWER_BYTES_MAX = 1 << 16, STATUS_OK = 200 };

struct call {
    const struct protocol *protocol;
    enum operation operation;
    struct protocol_stream stream;
    struct assembly *assembly;
    struct delta delta;
};

static void check_outcome(const struct outcome *outcome)
{
    must_hold(outcome->kind != WIRE__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_NONE &&
              outcome->code != NULL);
    must_hold(outcome->retry_after_ms >= 0 &&
              outcome->retry_after_ms <= OUTCOME_RETRY_AFTER_MS_MAX);
    must_hold(outcome->kind == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED || outcome->text[0] != '\0');
}

static void judge(enum operation operation, const json_t *body)
{
    struct outcome outcome = {0};
    outcome_from_reply(STATUS_OK, operation, body, 0, &outcome);
    check_outcome(&outcome);
    outcome = (struct outcome){0};
    outcome_from_reply(429, operation, body, 0, &outcome);
    check_outcome(&outcome);
    must_hold(outcome.kind != WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED);
}

static void read_whole(const struct call *call, const char *data, size_t bytes)
{
    json_t *body = json_loadb(data, bytes, 0, NULL);
    json_t *answer = NULL;
    const json_t *error = json_object_get(body, "error");
    if (call->protocol->read_answer != NULL && json_is_object(body) &&
        (error == NULL || json_is_null(error))) {
        if (call->protocol->read_answer(body, &answer) == 0) {
            judge(call->operation, answer);
        }
    } else {
        judge(call->operation, body);
    }
    json_decref(answer);
    json_decref(body);
}

/* What is read without the parser is what the parser reads. */
static void check_delta(struct call *call, const json_t *chunk, const char *data, size_t bytes)
{
    if (call->protocol->read_answer != NULL || call->operation != OPERATION_CHAT) {
        return;
    }
    if (delta_read(&call->delta, data, bytes)) {
        const json_t *choice = json_array_get(json_object_get(chunk, "choices"), 0);
        const json_t *content = json_object_get(json_object_get(choice, "delta"), "content");
        must_hold(json_is_string(content));
        must_hold((size_t)json_integer_value(json_object_get(choice, "index")) ==
                  call->delta.choice);
        must_hold(json_string_length(content) == call->delta.text.length);
        must_hold(call->delta.text.length == 0 ||
                  memcmp(json_string_value(content), call->delta.text.data,
                         call->delta.text.length) == 0);
    }
    delta_learn(&call->delta, chunk, data, bytes);
}

static int event_arrived(void *context, const char *name, const char *data, size_t bytes)
{
    struct call *call = context;
    json_t *chunk = NULL;
    struct outcome outcome = {0};
    int r = call->protocol->read_event(&call->stream, name, data, bytes, &chunk, &outcome);
    if (r == -ECONNABORTED) {
        check_outcome(&outcome);
    }
    if (r == 0 && chunk != NULL) {
        check_delta(call, chunk, data, bytes);
    }
    if (r == 0 && chunk != NULL && call->operation != OPERATION_RESPONSES) {
        r = assembly_add(call->assembly, chunk);
    }
    json_decref(chunk);
    return r;
}

static void conclude_stream(const struct call *call)
{
    json_t *answer = NULL;
    if (call->operation == OPERATION_RESPONSES) {
        judge(call->operation, call->stream.whole);
    } else if ((call->stream.is_ended || assembly_is_complete(call->assembly)) &&
               assembly_answer(call->assembly, &answer) == 0) {
        judge(call->operation, answer);
        json_decref(answer);
    }
}

static void read_stream(struct call *call, const char *data, size_t bytes, size_t piece_bytes)
{
    struct sse sse;
    if (assembly_create(call->operation, ANSWER_BYTES_MAX, &call->assembly) < 0) {
        return;
    }
    sse_init(&sse, ANSWER_BYTES_MAX, event_arrived, call);
    int r = 0;
    for (size_t at = 0; at < bytes && r == 0; at += piece_bytes) {
        r = sse_feed(&sse, data + at, bytes - at < piece_bytes ? bytes - at : piece_bytes);
    }
    if (r == 0) {
        conclude_stream(call);
    }
    sse_finish(&sse);
    delta_finish(&call->delta);
    assembly_destroy(&call->assembly);
    protocol_stream_finish(&call->stream);
}

static const struct protocol *protocol_of(uint8_t choice)
{
    static const struct protocol *const protocols[] = {&protocol_openai, &protocol_anthropic,
                                                       &protocol_gemini, &protocol_responses,
                                                       &protocol_azure};
    return protocols[((choice & 1) | (choice >> 3 & 6)) % ARRAY_LENGTH(protocols)];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < 2) {
        return 0;
    }
    const enum operation operation = (enum operation)((data[0] >> 2 & 3) % OPERATIONS);
    struct call call = {
        .protocol = protocol_of(data[0]),
        .operation = operation,
        .stream.operation = operation,
        .delta.text.bytes_max = ANSWER_BYTES_MAX,
    };
    if (call.protocol->read_answer != NULL && operation == OPERATION_RESPONSES) {
        return 0; /* no call is made then */
    }
    const char *reply = (const char *)data + 2;
    if ((data[0] & 2) == 0) {
        read_whole(&call, reply, bytes - 2);
    } else {
        read_stream(&call, reply, bytes - 2, (size_t)data[1] + 1);
    }
    return 0;
}
