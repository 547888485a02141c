/*
 * A response as a chat's answer. Its output is a list of items: messages with texts and refusals
 * become the one message, function calls its tool calls, summaries of reasoning its
 * reasoning_content. Items of tools that the provider ran itself say nothing of their own.
 */
#include "worker/provider/responses.h"

#include <errno.h>
#include <string.h>

#include "common/json_read.h"
#include "worker/provider/member.h"
#include "worker/provider/openai.h"

/* ---- what both ways share ---- */

/* {"type":"error"} has its members in itself, or in `error`; response.failed in the response's. */
static const json_t *error_of(const json_t *event)
{
    const bool is_failed = member_is(event, "type", "response.failed");
    if (!is_failed && !member_is(event, "type", "error")) {
        const json_t *error = json_object_get(event, "error");
        return json_is_null(error) ? NULL : error;
    }
    const json_t *error =
        json_object_get(is_failed ? json_object_get(event, "response") : event, "error");
    return json_is_object(error) ? error : event;
}

static bool is_last(const json_t *event)
{
    return member_is(event, "type", "response.completed") ||
           member_is(event, "type", "response.incomplete");
}

/*
 * Gives: *ret_event, a reference; NULL for the mark that some servers put behind the last. The type
 * is the event's name, where a server says it there alone.
 * Errors: as of protocol.read_event.
 */
static int event_parse(const char *name, const char *data, size_t bytes, json_t **ret_event,
                       struct outcome *ret_outcome)
{
    *ret_event = NULL;
    if (strcmp(data, "[DONE]") == 0) {
        return 0;
    }
    json_t *event = json_read(data, bytes, JSON_REJECT_DUPLICATES, NULL);
    int r = json_is_object(event) ? 0 : -EBADMSG;
    if (r == 0 && json_object_get(event, "type") == NULL) {
        (void)json_object_set_new(event, "type", json_string(name));
    }
    if (r == 0 && error_of(event) != NULL) {
        outcome_from_error(error_of(event), ret_outcome);
        r = -ECONNABORTED;
    }
    if (r < 0) {
        json_decref(event);
        return r;
    }
    *ret_event = event;
    return 0;
}

int responses_read_verbatim(struct protocol_stream *stream, const char *name, const char *data,
                            size_t bytes, json_t **ret_event, struct outcome *ret_outcome)
{
    int r = event_parse(name, data, bytes, ret_event, ret_outcome);
    if (r == 0 && is_last(*ret_event)) {
        json_decref(stream->whole);
        stream->whole = json_incref(json_object_get(*ret_event, "response"));
        stream->is_ended = true;
    }
    return r;
}

/* NULL when there is none, as in json_pack's s:o*. */
static json_t *usage_translate(const json_t *usage)
{
    const json_int_t input = protocol_count(usage, "input_tokens");
    const json_int_t output = protocol_count(usage, "output_tokens");
    return !json_is_object(usage)
               ? NULL
               : json_pack("{s:I, s:I, s:I, s:{s:I}, s:{s:I}}", "prompt_tokens", input,
                           "completion_tokens", output, "total_tokens",
                           protocol_count(usage, "total_tokens"), "prompt_tokens_details",
                           "cached_tokens",
                           protocol_count(json_object_get(usage, "input_tokens_details"),
                                          "cached_tokens"),
                           "completion_tokens_details", "reasoning_tokens",
                           protocol_count(json_object_get(usage, "output_tokens_details"),
                                          "reasoning_tokens"));
}

static const char *finish_reason(const json_t *response, bool has_tool_calls)
{
    if (member_is(response, "status", "incomplete")) {
        return member_is(json_object_get(response, "incomplete_details"), "reason",
                         "content_filter")
                   ? "content_filter"
                   : "length";
    }
    return has_tool_calls ? "tool_calls" : "stop";
}

/* Some servers write fractions of a second. */
static json_int_t created_at(const json_t *response)
{
    const double at = json_number_value(json_object_get(response, "created_at"));
    return at > 0 && at < 1e15 ? (json_int_t)at : 0;
}

static json_t *head_of(const json_t *response, const char *object)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:O*}", "id", member_text(response, "id"), "object",
                     object, "created", created_at(response), "model",
                     member_text(response, "model"), "service_tier",
                     json_object_get(response, "service_tier"));
}

/* ---- a whole answer ---- */

struct parts {
    struct bytes text;
    struct bytes refusal;
    struct bytes reasoning;
    json_t *tool_calls;
    json_t *logprobs;
};

static void parts_finish(struct parts *parts)
{
    bytes_finish(&parts->text);
    bytes_finish(&parts->refusal);
    bytes_finish(&parts->reasoning);
    json_decref(parts->tool_calls);
    json_decref(parts->logprobs);
}

static int content_take(struct parts *parts, const json_t *content)
{
    size_t i;
    json_t *part;
    int r = 0;
    json_array_foreach (content, i, part) {
        if (r == 0 && member_is(part, "type", "output_text")) {
            r = bytes_append_text(&parts->text, member_text(part, "text"));
            (void)json_array_extend(parts->logprobs, json_object_get(part, "logprobs"));
        } else if (r == 0 && member_is(part, "type", "refusal")) {
            r = bytes_append_text(&parts->refusal, member_text(part, "refusal"));
        }
    }
    return r;
}

static int reasoning_take(struct parts *parts, const json_t *texts)
{
    size_t i;
    json_t *part;
    int r = 0;
    json_array_foreach (texts, i, part) {
        r = r < 0 ? r : bytes_append_text(&parts->reasoning, member_text(part, "text"));
    }
    return r;
}

static json_t *tool_call_translate(const json_t *item)
{
    return json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", member_text(item, "call_id"), "type",
                     "function", "function", "name", member_text(item, "name"), "arguments",
                     member_text(item, "arguments"));
}

static int item_take(struct parts *parts, const json_t *item)
{
    if (member_is(item, "type", "message")) {
        return content_take(parts, json_object_get(item, "content"));
    }
    if (member_is(item, "type", "function_call")) {
        return json_array_append_new(parts->tool_calls, tool_call_translate(item)) < 0 ? -ENOMEM
                                                                                       : 0;
    }
    if (member_is(item, "type", "reasoning")) {
        int r = reasoning_take(parts, json_object_get(item, "summary"));
        return r < 0 ? r : reasoning_take(parts, json_object_get(item, "content"));
    }
    return 0;
}

static json_t *message_of(const struct parts *parts)
{
    json_t *message =
        json_pack("{s:s, s:s?, s:s*, s:s*}", "role", "assistant", "content", parts->text.data,
                  "refusal", parts->refusal.data, "reasoning_content", parts->reasoning.data);
    if (json_array_size(parts->tool_calls) > 0) {
        (void)json_object_set(message, "tool_calls", parts->tool_calls);
    }
    return message;
}

static json_t *answer_of(const json_t *response, const struct parts *parts)
{
    json_t *answer = head_of(response, "chat.completion");
    const char *reason = finish_reason(response, json_array_size(parts->tool_calls) > 0);
    json_t *choice = json_pack("{s:i, s:o, s:s}", "index", 0, "message", message_of(parts),
                               "finish_reason", reason);
    json_t *usage = usage_translate(json_object_get(response, "usage"));
    if (json_array_size(parts->logprobs) > 0) {
        (void)json_object_set_new(choice, "logprobs",
                                  json_pack("{s:O}", "content", parts->logprobs));
    }
    if (usage != NULL) {
        (void)json_object_set_new(answer, "usage", usage);
    }
    if (json_object_set_new(answer, "choices", json_pack("[o]", choice)) < 0) {
        json_decref(answer);
        return NULL;
    }
    return answer;
}

static bool is_whole(const json_t *response)
{
    return json_is_array(json_object_get(response, "output")) &&
           (member_is(response, "status", "completed") ||
            member_is(response, "status", "incomplete"));
}

static int responses_read_answer(const json_t *reply, json_t **ret_answer)
{
    if (!is_whole(reply)) {
        return -EBADMSG;
    }
    struct parts parts = {
        .text.bytes_max = SIZE_MAX / 2,
        .refusal.bytes_max = SIZE_MAX / 2,
        .reasoning.bytes_max = SIZE_MAX / 2,
        .tool_calls = json_array(),
        .logprobs = json_array(),
    };
    int r = parts.tool_calls == NULL || parts.logprobs == NULL ? -ENOMEM : 0;
    size_t i;
    json_t *item;
    json_array_foreach (json_object_get(reply, "output"), i, item) {
        r = r < 0 ? r : item_take(&parts, item);
    }
    json_t *answer = r < 0 ? NULL : answer_of(reply, &parts);
    parts_finish(&parts);
    if (answer == NULL) {
        return -ENOMEM;
    }
    *ret_answer = answer;
    return 0;
}

/* ---- a stream ---- */

static json_t *response_created(struct protocol_stream *stream, const json_t *event)
{
    json_decref(stream->head);
    stream->head = head_of(json_object_get(event, "response"), "chat.completion.chunk");
    return protocol_chunk(stream, json_pack("{s:s, s:s}", "role", "assistant", "content", ""),
                          NULL);
}

static json_t *item_added(struct protocol_stream *stream, const json_t *event)
{
    const json_t *item = json_object_get(event, "item");
    if (!member_is(item, "type", "function_call")) {
        return NULL;
    }
    const json_int_t index = stream->tool_calls++;
    json_t *call = tool_call_translate(item);
    if (stream->items == NULL) {
        stream->items = json_object();
    }
    (void)json_object_set_new(stream->items, member_text(item, "id"), json_integer(index));
    (void)json_object_set_new(call, "index", json_integer(index));
    return protocol_chunk(stream, json_pack("{s:[o]}", "tool_calls", call), NULL);
}

/* Of the item that the event names; of the last one at servers that name none. */
static json_t *arguments_grew(struct protocol_stream *stream, const json_t *event)
{
    const json_t *known = json_object_get(stream->items, member_text(event, "item_id"));
    const json_int_t index = known == NULL ? stream->tool_calls - 1 : json_integer_value(known);
    if (index < 0) {
        return NULL;
    }
    json_t *call = json_pack("{s:I, s:{s:s}}", "index", index, "function", "arguments",
                             member_text(event, "delta"));
    return protocol_chunk(stream, json_pack("{s:[o]}", "tool_calls", call), NULL);
}

static json_t *text_grew(const struct protocol_stream *stream, const char *member,
                         const json_t *event)
{
    json_t *chunk =
        protocol_chunk(stream, json_pack("{s:s}", member, member_text(event, "delta")), NULL);
    json_t *logprobs = json_object_get(event, "logprobs");
    if (json_array_size(logprobs) > 0) {
        json_t *choice = json_array_get(json_object_get(chunk, "choices"), 0);
        (void)json_object_set_new(choice, "logprobs", json_pack("{s:O}", "content", logprobs));
    }
    return chunk;
}

static json_t *response_ended(struct protocol_stream *stream, const json_t *event)
{
    const json_t *response = json_object_get(event, "response");
    json_t *chunk =
        protocol_chunk(stream, json_object(), finish_reason(response, stream->tool_calls > 0));
    json_t *usage = usage_translate(json_object_get(response, "usage"));
    if (usage != NULL) {
        (void)json_object_set_new(chunk, "usage", usage);
    }
    stream->is_ended = true;
    return chunk;
}

/* Events with parts that have come before (…done), or that a chat does not tell, say nothing. */
static json_t *event_translate(struct protocol_stream *stream, const json_t *event)
{
    static const struct {
        const char *type, *member;
    } texts[] = {
        {"response.output_text.delta", "content"},
        {"response.refusal.delta", "refusal"},
        {"response.reasoning_summary_text.delta", "reasoning_content"},
        {"response.reasoning_text.delta", "reasoning_content"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        if (member_is(event, "type", texts[i].type)) {
            return text_grew(stream, texts[i].member, event);
        }
    }
    if (member_is(event, "type", "response.created")) {
        return response_created(stream, event);
    }
    if (member_is(event, "type", "response.output_item.added")) {
        return item_added(stream, event);
    }
    if (member_is(event, "type", "response.function_call_arguments.delta")) {
        return arguments_grew(stream, event);
    }
    return is_last(event) ? response_ended(stream, event) : NULL;
}

static int responses_read_event(struct protocol_stream *stream, const char *name, const char *data,
                                size_t bytes, json_t **ret_chunk, struct outcome *ret_outcome)
{
    json_t *event = NULL;
    *ret_chunk = NULL;
    int r = event_parse(name, data, bytes, &event, ret_outcome);
    if (r == 0) {
        *ret_chunk = event_translate(stream, event);
    }
    json_decref(event);
    return r;
}

/* ---- the protocol ---- */

static int responses_write_path(const struct provider_request *request, struct bytes *out)
{
    return request->operation == OPERATION_CHAT ? bytes_append_text(out, "/responses") : -ENOTSUP;
}

const struct protocol protocol_responses = {
    .write_path = responses_write_path,
    .write_body = responses_write_body,
    .add_headers = openai_add_headers,
    .read_answer = responses_read_answer,
    .read_event = responses_read_event,
};
