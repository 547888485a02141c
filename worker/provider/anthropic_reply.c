/* Source: platform.claude.com/docs/en/api/messages, "Streaming messages", "Stop reasons". */
#include "common/json_read.h"
#include "worker/provider/anthropic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/provider/member.h"

/* ---- the answer ---- */

static const char *finish_reason(const char *stop_reason)
{
    static const struct {
        const char *theirs, *ours;
    } reasons[] = {{"max_tokens", "length"},
                   {"model_context_window_exceeded", "length"},
                   {"tool_use", "tool_calls"},
                   {"pause_turn", "length"}, /* it would go on, if it were asked to: not whole */
                   {"refusal", "content_filter"}};
    for (size_t i = 0; i < ARRAY_LENGTH(reasons); i++) {
        if (strcmp(stop_reason, reasons[i].theirs) == 0) {
            return reasons[i].ours;
        }
    }
    return "stop";
}

/*
 * There the input counts exclude what the prompt cache read or wrote; here they are parts of the
 * whole.
 */
static json_t *usage_translate(const json_t *usage)
{
    const json_int_t read = protocol_count(usage, "cache_read_input_tokens");
    const json_int_t written = protocol_count(usage, "cache_creation_input_tokens");
    const json_int_t input = protocol_count(usage, "input_tokens") + read + written;
    const json_int_t output = protocol_count(usage, "output_tokens");
    json_t *details = json_pack("{s:I}", "cached_tokens", read);
    if (written > 0) {
        (void)json_object_set_new(details, "cache_creation_input_tokens", json_integer(written));
        json_t *parts = json_object_get(usage, "cache_creation"); /* by how long they are kept */
        if (protocol_count(parts, "ephemeral_1h_input_tokens") > 0) {
            (void)json_object_set(details, "cache_creation", parts);
        }
    }
    json_t *counts =
        json_pack("{s:I, s:I, s:I, s:o}", "prompt_tokens", input, "completion_tokens", output,
                  "total_tokens", input + output, "prompt_tokens_details", details);
    const json_int_t thought =
        protocol_count(json_object_get(usage, "output_tokens_details"), "thinking_tokens");
    if (thought > 0) {
        (void)json_object_set_new(counts, "completion_tokens_details",
                                  json_pack("{s:I}", "reasoning_tokens", thought));
    }
    return counts;
}

static json_t *tool_call_translate(const json_t *block)
{
    char *arguments = json_dumps(json_object_get(block, "input"), JSON_COMPACT);
    json_t *call = json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", member_text(block, "id"), "type",
                             "function", "function", "name", member_text(block, "name"),
                             "arguments", arguments == NULL ? "{}" : arguments);
    free(arguments);
    return call;
}

/* "default" is what OpenAI calls the standard one. NULL: not said. */
static const char *service_tier(const json_t *usage)
{
    const char *tier = json_string_value(json_object_get(usage, "service_tier"));
    return tier != NULL && strcmp(tier, "standard") == 0 ? "default" : tier;
}

/* What the blocks of a reply come to. */
struct content {
    struct bytes text, thinking;
    json_t *tool_calls;
    bool is_json; /* the text is the input of the tool for JSON */
};

static void content_finish(struct content *content)
{
    bytes_finish(&content->text);
    bytes_finish(&content->thinking);
    json_decref(content->tool_calls);
}

/* The answer is the input alone, whatever the model said beside it. Errors: -ENOMEM. */
static int json_take(struct content *content, const json_t *block)
{
    char *input = json_dumps(json_object_get(block, "input"), JSON_COMPACT);
    bytes_clear(&content->text);
    content->is_json = true;
    int r = input == NULL ? -ENOMEM : bytes_append_text(&content->text, input);
    free(input);
    return r;
}

/* Blocks of other kinds (thinking that is encrypted, what a server's tool did) say nothing here. */
static int block_take(struct content *content, const json_t *block)
{
    if (member_is(block, "type", "thinking")) {
        return bytes_append_text(&content->thinking, member_text(block, "thinking"));
    }
    if (member_is(block, "type", "text")) {
        return content->is_json ? 0 : bytes_append_text(&content->text, member_text(block, "text"));
    }
    if (!member_is(block, "type", "tool_use")) {
        return 0;
    }
    return member_is(block, "name", ANTHROPIC_JSON_TOOL)
               ? json_take(content, block)
               : json_array_append_new(content->tool_calls, tool_call_translate(block));
}

/* Errors: -ENOMEM. */
static int content_translate(const json_t *blocks, struct content *content)
{
    size_t i;
    json_t *block;
    json_array_foreach (blocks, i, block) {
        if (block_take(content, block) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static const char *reason_of(const json_t *holder, bool is_json)
{
    const char *reason = member_text(holder, "stop_reason");
    return is_json && strcmp(reason, "tool_use") == 0 ? "stop" : finish_reason(reason);
}

static json_t *answer_translate(const json_t *reply, const struct content *content)
{
    const json_t *usage = json_object_get(reply, "usage");
    json_t *message = json_pack("{s:s, s:s?, s:s*}", "role", "assistant", "content",
                                content->text.data, "reasoning_content", content->thinking.data);
    if (json_array_size(content->tool_calls) > 0) {
        (void)json_object_set(message, "tool_calls", content->tool_calls);
    }
    return json_pack("{s:s, s:s, s:s, s:[{s:i, s:o, s:s}], s:o, s:s*}", "id",
                     member_text(reply, "id"), "object", "chat.completion", "model",
                     member_text(reply, "model"), "choices", "index", 0, "message", message,
                     "finish_reason", reason_of(reply, content->is_json), "usage",
                     usage_translate(usage), "service_tier", service_tier(usage));
}

int anthropic_read_answer(const json_t *reply, json_t **ret_answer)
{
    const json_t *blocks = json_object_get(reply, "content");
    if (!json_is_array(blocks) || !member_is(reply, "type", "message")) {
        return -EBADMSG;
    }
    struct content content = {.text = {.bytes_max = SIZE_MAX / 2},
                              .thinking = {.bytes_max = SIZE_MAX / 2},
                              .tool_calls = json_array()};
    int r = content.tool_calls == NULL ? -ENOMEM : content_translate(blocks, &content);
    json_t *answer = r < 0 ? NULL : answer_translate(reply, &content);
    content_finish(&content);
    if (answer == NULL) {
        return -ENOMEM;
    }
    *ret_answer = answer;
    return 0;
}

/* ---- the stream ---- */

static json_t *message_started(struct protocol_stream *stream, const json_t *event)
{
    const json_t *message = json_object_get(event, "message");
    json_decref(stream->head);
    stream->head = json_pack("{s:s, s:s, s:s}", "id", member_text(message, "id"), "object",
                             "chat.completion.chunk", "model", member_text(message, "model"));
    json_decref(stream->usage);
    stream->usage = json_deep_copy(json_object_get(message, "usage"));
    return protocol_chunk(stream, json_pack("{s:s, s:s}", "role", "assistant", "content", ""),
                          NULL);
}

static json_t *block_started(struct protocol_stream *stream, const json_t *event)
{
    const json_t *block = json_object_get(event, "content_block");
    const bool is_tool = member_is(block, "type", "tool_use");
    stream->is_in_json = is_tool && member_is(block, "name", ANTHROPIC_JSON_TOOL);
    stream->is_json = stream->is_json || stream->is_in_json;
    if (!is_tool || stream->is_in_json) {
        return NULL;
    }
    json_t *call = json_pack("{s:I, s:s, s:s, s:{s:s, s:s}}", "index", stream->tool_calls++, "id",
                             member_text(block, "id"), "type", "function", "function", "name",
                             member_text(block, "name"), "arguments", "");
    return protocol_chunk(stream, json_pack("{s:[o]}", "tool_calls", call), NULL);
}

static json_t *text_grew(struct protocol_stream *stream, const char *name, const char *text)
{
    return text[0] == '\0' ? NULL : protocol_chunk(stream, json_pack("{s:s}", name, text), NULL);
}

static json_t *input_grew(struct protocol_stream *stream, const char *text)
{
    if (stream->is_in_json) {
        return text_grew(stream, "content", text);
    }
    if (stream->tool_calls == 0) {
        return NULL;
    }
    json_t *call =
        json_pack("{s:I, s:{s:s}}", "index", stream->tool_calls - 1, "function", "arguments", text);
    return protocol_chunk(stream, json_pack("{s:[o]}", "tool_calls", call), NULL);
}

static json_t *block_grew(struct protocol_stream *stream, const json_t *event)
{
    const json_t *delta = json_object_get(event, "delta");
    if (member_is(delta, "type", "text_delta")) {
        return text_grew(stream, "content", member_text(delta, "text"));
    }
    if (member_is(delta, "type", "thinking_delta")) {
        return text_grew(stream, "reasoning_content", member_text(delta, "thinking"));
    }
    if (member_is(delta, "type", "input_json_delta")) {
        return input_grew(stream, member_text(delta, "partial_json"));
    }
    return NULL;
}

static json_t *message_grew(struct protocol_stream *stream, const json_t *event)
{
    const json_t *delta = json_object_get(event, "delta");
    const bool is_ended = json_is_string(json_object_get(delta, "stop_reason"));
    if (stream->usage == NULL) {
        stream->usage = json_object();
    }
    (void)json_object_update(stream->usage, json_object_get(event, "usage"));
    json_t *chunk =
        protocol_chunk(stream, json_object(), is_ended ? reason_of(delta, stream->is_json) : NULL);
    (void)json_object_set_new(chunk, "usage", usage_translate(stream->usage));
    return chunk;
}

int anthropic_read_event(struct protocol_stream *stream, const char *name, const char *data,
                         size_t bytes, json_t **ret_chunk, struct outcome *ret_outcome)
{
    (void)name; /* the data says the same in its `type` */
    *ret_chunk = NULL;
    json_t *event = json_read(data, bytes, JSON_REJECT_DUPLICATES, NULL);
    int r = json_is_object(event) ? 0 : -EBADMSG;
    if (member_is(event, "type", "error")) {
        outcome_from_error(json_object_get(event, "error"), ret_outcome);
        r = -ECONNABORTED;
    } else if (member_is(event, "type", "message_start")) {
        *ret_chunk = message_started(stream, event);
    } else if (member_is(event, "type", "content_block_start")) {
        *ret_chunk = block_started(stream, event);
    } else if (member_is(event, "type", "content_block_delta")) {
        *ret_chunk = block_grew(stream, event);
    } else if (member_is(event, "type", "message_delta")) {
        *ret_chunk = message_grew(stream, event);
    } else if (member_is(event, "type", "message_stop")) {
        stream->is_ended = true;
    }
    json_decref(event);
    return r;
}
