/*
 * Anthropic's Messages API, spoken for chat completions. Source:
 * docs.anthropic.com/en/api/messages, "Streaming messages".
 *
 * What cannot be said there without changing the answer (several choices, log probabilities, a
 * demanded JSON form) is refused with words; what only shades it (penalties, seed, logit_bias) is
 * left out. Temperature is bounded to 1.
 */
#include "worker/provider/protocol.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int anthropic_write_path(const struct provider_request *request, struct bytes *out)
{
    return request->operation == OPERATION_CHAT ? bytes_append_text(out, "/messages") : -ENOTSUP;
}

static struct curl_slist *anthropic_add_headers(struct curl_slist *headers, const char *api_key)
{
    struct curl_slist *longer = curl_slist_append(headers, "anthropic-version: 2023-06-01");
    char *line;
    if (longer == NULL || api_key[0] == '\0') {
        return longer;
    }
    if (asprintf(&line, "x-api-key: %s", api_key) < 0) {
        return NULL;
    }
    longer = curl_slist_append(longer, line);
    free(line);
    return longer;
}

/* ---- the request's parts ---- */

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

static bool text_is(const json_t *object, const char *name, const char *wanted)
{
    return strcmp(text_of(object, name), wanted) == 0;
}

/* {"type":"image_url","image_url":{"url":…}} → an image block; NULL when there is no address. */
static json_t *image_block(const json_t *part)
{
    static const char middle[] = ";base64,";
    const char *url = text_of(json_object_get(part, "image_url"), "url");
    const char *data = strstr(url, middle);
    if (strncmp(url, "data:", 5) == 0 && data != NULL) {
        return json_pack("{s:s, s:{s:s, s:s%, s:s}}", "type", "image", "source", "type", "base64",
                         "media_type", url + 5, (size_t)(data - url - 5), "data",
                         data + sizeof(middle) - 1);
    }
    return url[0] == '\0' ? NULL
                          : json_pack("{s:s, s:{s:s, s:s}}", "type", "image", "source", "type",
                                      "url", "url", url);
}

/* Empty text blocks are refused by the API. Errors: -ENOMEM. */
static int text_append(json_t *blocks, json_t *text)
{
    if (json_string_length(text) == 0) {
        return 0;
    }
    json_t *block = json_pack("{s:s, s:O}", "type", "text", "text", text);
    return json_array_append_new(blocks, block) < 0 ? -ENOMEM : 0;
}

/*
 * Appends the blocks of an OpenAI `content` (a text, or a list of parts). Errors: -EINVAL a part
 * that cannot be said; -ENOMEM.
 */
static int content_append(json_t *blocks, json_t *content)
{
    if (json_is_string(content)) {
        return text_append(blocks, content);
    }
    size_t i;
    json_t *part;
    json_array_foreach (content, i, part) {
        json_t *block = NULL;
        if (text_is(part, "type", "text") && json_is_string(json_object_get(part, "text"))) {
            block = json_pack("{s:s, s:O}", "type", "text", "text", json_object_get(part, "text"));
        } else if (text_is(part, "type", "image_url")) {
            block = image_block(part);
        }
        if (block == NULL) {
            return -EINVAL;
        }
        if (json_array_append_new(blocks, block) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

/*
 * Arguments are JSON text there and JSON here. Text that is none becomes an empty object: the model
 * wrote it, not the client.
 */
static int tool_uses_append(json_t *blocks, const json_t *tool_calls)
{
    size_t i;
    json_t *call;
    json_array_foreach (tool_calls, i, call) {
        const json_t *function = json_object_get(call, "function");
        json_t *input = json_loads(text_of(function, "arguments"), 0, NULL);
        if (!json_is_object(input)) {
            json_decref(input);
            input = json_object();
        }
        json_t *block =
            json_pack("{s:s, s:s, s:s, s:o}", "type", "tool_use", "id", text_of(call, "id"), "name",
                      text_of(function, "name"), "input", input);
        if (json_array_append_new(blocks, block) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static int message_append(json_t *messages, const char *role, json_t *blocks)
{
    json_t *message = json_pack("{s:s, s:O}", "role", role, "content", blocks);
    return json_array_append_new(messages, message) < 0 ? -ENOMEM : 0;
}

static int tool_result_append(json_t *blocks, const json_t *message)
{
    json_t *inner = json_array();
    int r = inner == NULL ? -ENOMEM : content_append(inner, json_object_get(message, "content"));
    if (r == 0) {
        json_t *block = json_pack("{s:s, s:s, s:O}", "type", "tool_result", "tool_use_id",
                                  text_of(message, "tool_call_id"), "content", inner);
        r = json_array_append_new(blocks, block) < 0 ? -ENOMEM : 0;
    }
    json_decref(inner);
    return r;
}

/* One OpenAI message into `system` or `messages`. Errors: -EINVAL, -ENOMEM. */
static int message_translate(json_t *system, json_t *messages, const json_t *message)
{
    json_t *content = json_object_get(message, "content");
    if (text_is(message, "role", "system") || text_is(message, "role", "developer")) {
        return content_append(system, content);
    }
    json_t *blocks = json_array();
    int r = blocks == NULL ? -ENOMEM : 0;
    if (text_is(message, "role", "tool")) {
        r = r < 0 ? r : tool_result_append(blocks, message);
        r = r < 0 ? r : message_append(messages, "user", blocks);
    } else if (text_is(message, "role", "assistant")) {
        r = r < 0 ? r : content_append(blocks, content);
        r = r < 0 ? r : tool_uses_append(blocks, json_object_get(message, "tool_calls"));
        r = r < 0 || json_array_size(blocks) == 0 ? r
                                                  : message_append(messages, "assistant", blocks);
    } else if (text_is(message, "role", "user")) {
        r = r < 0 ? r : content_append(blocks, content);
        r = r < 0 ? r : message_append(messages, "user", blocks);
    } else {
        r = -EINVAL;
    }
    json_decref(blocks);
    return r;
}

static int set_messages(json_t *out, const json_t *body)
{
    json_t *system = json_array();
    json_t *messages = json_array();
    int r = system == NULL || messages == NULL ? -ENOMEM : 0;
    size_t i;
    json_t *message;
    json_array_foreach (json_object_get(body, "messages"), i, message) {
        r = r < 0 ? r : message_translate(system, messages, message);
    }
    if (r == 0 && json_array_size(messages) == 0) {
        r = -EINVAL;
    }
    if (r == 0 && json_array_size(system) > 0) {
        r = json_object_set(out, "system", system) < 0 ? -ENOMEM : 0;
    }
    if (r == 0) {
        r = json_object_set(out, "messages", messages) < 0 ? -ENOMEM : 0;
    }
    json_decref(system);
    json_decref(messages);
    return r;
}

static int set_tools(json_t *out, const json_t *body)
{
    const json_t *tools = json_object_get(body, "tools");
    if (json_array_size(tools) == 0) {
        return 0;
    }
    json_t *list = json_array();
    size_t i;
    json_t *tool;
    json_array_foreach (tools, i, tool) {
        const json_t *function = json_object_get(tool, "function");
        json_t *schema = json_object_get(function, "parameters");
        json_t *translated = json_pack("{s:s, s:O*}", "name", text_of(function, "name"),
                                       "description", json_object_get(function, "description"));
        (void)json_object_set_new(translated, "input_schema",
                                  schema != NULL ? json_incref(schema)
                                                 : json_pack("{s:s}", "type", "object"));
        if (json_array_append_new(list, translated) < 0) {
            json_decref(list);
            return -ENOMEM;
        }
    }
    return json_object_set_new(out, "tools", list) < 0 ? -ENOMEM : 0;
}

static int set_tool_choice(json_t *out, const json_t *body)
{
    const json_t *choice = json_object_get(body, "tool_choice");
    json_t *translated = NULL;
    if (choice == NULL || json_object_get(out, "tools") == NULL) {
        return 0;
    }
    if (json_is_object(choice)) {
        translated = json_pack("{s:s, s:s}", "type", "tool", "name",
                               text_of(json_object_get(choice, "function"), "name"));
    } else {
        const char *word = json_string_value(choice);
        const bool is_required = word != NULL && strcmp(word, "required") == 0;
        const bool is_none = word != NULL && strcmp(word, "none") == 0;
        translated = json_pack("{s:s}", "type", is_required ? "any" : is_none ? "none" : "auto");
    }
    return json_object_set_new(out, "tool_choice", translated) < 0 ? -ENOMEM : 0;
}

static int set_stop(json_t *out, const json_t *body)
{
    json_t *stop = json_object_get(body, "stop");
    if (stop == NULL || json_is_null(stop)) {
        return 0;
    }
    json_t *list = json_is_array(stop) ? json_incref(stop) : json_pack("[O]", stop);
    return json_object_set_new(out, "stop_sequences", list) < 0 ? -ENOMEM : 0;
}

static int set_sampling(json_t *out, const json_t *body)
{
    json_t *temperature = json_object_get(body, "temperature");
    json_t *top_p = json_object_get(body, "top_p");
    int r = 0;
    if (json_is_number(temperature)) {
        r = json_number_value(temperature) > 1.0
                ? json_object_set_new(out, "temperature", json_integer(1))
                : json_object_set(out, "temperature", temperature);
    }
    if (r == 0 && json_is_number(top_p)) {
        r = json_object_set(out, "top_p", top_p);
    }
    return r < 0 ? -ENOMEM : 0;
}

static int set_head(json_t *out, const json_t *body, const struct provider_request *request)
{
    const json_t *bound = json_object_get(body, "max_completion_tokens");
    const json_t *user = json_object_get(body, "user");
    if (!json_is_integer(bound)) {
        bound = json_object_get(body, "max_tokens");
    }
    const json_int_t max_tokens = json_is_integer(bound) ? json_integer_value(bound)
                                                         : (json_int_t)request->max_tokens_default;
    int r = json_object_set_new(out, "model", json_string(request->model));
    r |= json_object_set_new(out, "max_tokens", json_integer(max_tokens));
    if (request->stream) {
        r |= json_object_set_new(out, "stream", json_true());
    }
    if (json_is_string(user)) {
        r |= json_object_set_new(out, "metadata", json_pack("{s:O}", "user_id", user));
    }
    return r < 0 ? -ENOMEM : 0;
}

/* What the Messages API cannot promise, in words; NULL when all can be said. */
static const char *unsupported(const json_t *body)
{
    const json_t *format = json_object_get(body, "response_format");
    const json_t *choices = json_object_get(body, "n");
    if (json_is_integer(choices) && json_integer_value(choices) != 1) {
        return "n above 1";
    }
    if (json_is_true(json_object_get(body, "logprobs"))) {
        return "logprobs";
    }
    if (json_is_object(format) && !text_is(format, "type", "text")) {
        return "response_format other than text";
    }
    return NULL;
}

static int body_translate(json_t *out, const json_t *body, const struct provider_request *request)
{
    int r = set_head(out, body, request);
    r = r < 0 ? r : set_messages(out, body);
    r = r < 0 ? r : set_tools(out, body);
    r = r < 0 ? r : set_tool_choice(out, body);
    r = r < 0 ? r : set_stop(out, body);
    return r < 0 ? r : set_sampling(out, body);
}

static int anthropic_write_body(const struct provider_request *request, struct bytes *out,
                                struct outcome *ret_outcome)
{
    json_t *body = json_loadb(request->body, request->body_bytes, 0, NULL);
    json_t *translated = json_object();
    const char *missing = unsupported(body);
    int r = translated == NULL ? -ENOMEM : 0;
    if (missing != NULL) {
        outcome_set(ret_outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, "unsupported",
                    "this provider does not offer %s", missing);
        r = -EINVAL;
    } else if (r == 0) {
        r = body_translate(translated, body, request);
        if (r == -EINVAL) {
            outcome_set(ret_outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, "rejected",
                        "a message has a role or a content part that this provider does not offer");
        }
    }
    if (r == 0) {
        char *text = json_dumps(translated, JSON_COMPACT);
        r = text == NULL ? -ENOMEM : bytes_append_text(out, text);
        free(text);
    }
    json_decref(body);
    json_decref(translated);
    return r;
}

/* ---- the answer ---- */

static const char *finish_reason(const char *stop_reason)
{
    static const struct {
        const char *theirs, *ours;
    } reasons[] = {{"max_tokens", "length"},
                   {"model_context_window_exceeded", "length"},
                   {"tool_use", "tool_calls"},
                   {"refusal", "content_filter"}};
    for (size_t i = 0; i < ARRAY_LENGTH(reasons); i++) {
        if (strcmp(stop_reason, reasons[i].theirs) == 0) {
            return reasons[i].ours;
        }
    }
    return "stop";
}

static json_int_t count_of(const json_t *usage, const char *name)
{
    const json_int_t count = json_integer_value(json_object_get(usage, name));
    return count > 0 ? count : 0;
}

/*
 * There the input counts exclude what the prompt cache read or wrote; here they are parts of the
 * whole.
 */
static json_t *usage_translate(const json_t *usage)
{
    const json_int_t read = count_of(usage, "cache_read_input_tokens");
    const json_int_t input =
        count_of(usage, "input_tokens") + read + count_of(usage, "cache_creation_input_tokens");
    const json_int_t output = count_of(usage, "output_tokens");
    return json_pack("{s:I, s:I, s:I, s:{s:I}}", "prompt_tokens", input, "completion_tokens",
                     output, "total_tokens", input + output, "prompt_tokens_details",
                     "cached_tokens", read);
}

static json_t *tool_call_translate(const json_t *block)
{
    char *arguments = json_dumps(json_object_get(block, "input"), JSON_COMPACT);
    json_t *call = json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", text_of(block, "id"), "type",
                             "function", "function", "name", text_of(block, "name"), "arguments",
                             arguments == NULL ? "{}" : arguments);
    free(arguments);
    return call;
}

/* Errors: -ENOMEM. */
static int content_translate(const json_t *content, struct bytes *text, json_t *tool_calls)
{
    size_t i;
    json_t *block;
    json_array_foreach (content, i, block) {
        int r = 0;
        if (text_is(block, "type", "text")) {
            r = bytes_append_text(text, text_of(block, "text"));
        } else if (text_is(block, "type", "tool_use")) {
            r = json_array_append_new(tool_calls, tool_call_translate(block));
        }
        if (r < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static json_t *answer_translate(const json_t *reply, const struct bytes *text, json_t *tool_calls)
{
    json_t *message = json_pack("{s:s, s:s?}", "role", "assistant", "content", text->data);
    if (json_array_size(tool_calls) > 0) {
        (void)json_object_set(message, "tool_calls", tool_calls);
    }
    return json_pack("{s:s, s:s, s:s, s:[{s:i, s:o, s:s}], s:o}", "id", text_of(reply, "id"),
                     "object", "chat.completion", "model", text_of(reply, "model"), "choices",
                     "index", 0, "message", message, "finish_reason",
                     finish_reason(text_of(reply, "stop_reason")), "usage",
                     usage_translate(json_object_get(reply, "usage")));
}

static int anthropic_read_answer(const json_t *reply, json_t **ret_answer)
{
    const json_t *content = json_object_get(reply, "content");
    if (!json_is_array(content) || !text_is(reply, "type", "message")) {
        return -EBADMSG;
    }
    struct bytes text = {.bytes_max = SIZE_MAX / 2};
    json_t *tool_calls = json_array();
    int r = tool_calls == NULL ? -ENOMEM : content_translate(content, &text, tool_calls);
    json_t *answer = r < 0 ? NULL : answer_translate(reply, &text, tool_calls);
    json_decref(tool_calls);
    bytes_finish(&text);
    if (answer == NULL) {
        return -ENOMEM;
    }
    *ret_answer = answer;
    return 0;
}

/* ---- the stream ---- */

/* A chunk with one choice; takes `delta`. `reason` NULL: not ended. */
static json_t *chunk_make(const struct protocol_stream *stream, json_t *delta, const char *reason)
{
    json_t *chunk = stream->head == NULL ? json_object() : json_copy(stream->head);
    json_t *choice =
        json_pack("{s:i, s:o, s:s?}", "index", 0, "delta", delta, "finish_reason", reason);
    if (chunk == NULL || json_object_set_new(chunk, "choices", json_pack("[o]", choice)) < 0) {
        json_decref(chunk);
        return NULL;
    }
    return chunk;
}

static json_t *message_started(struct protocol_stream *stream, const json_t *event)
{
    const json_t *message = json_object_get(event, "message");
    json_decref(stream->head);
    stream->head = json_pack("{s:s, s:s, s:s}", "id", text_of(message, "id"), "object",
                             "chat.completion.chunk", "model", text_of(message, "model"));
    json_decref(stream->usage);
    stream->usage = json_deep_copy(json_object_get(message, "usage"));
    return chunk_make(stream, json_pack("{s:s, s:s}", "role", "assistant", "content", ""), NULL);
}

static json_t *block_started(struct protocol_stream *stream, const json_t *event)
{
    const json_t *block = json_object_get(event, "content_block");
    if (!text_is(block, "type", "tool_use")) {
        return NULL;
    }
    json_t *call = json_pack("{s:I, s:s, s:s, s:{s:s, s:s}}", "index", stream->tool_calls++, "id",
                             text_of(block, "id"), "type", "function", "function", "name",
                             text_of(block, "name"), "arguments", "");
    return chunk_make(stream, json_pack("{s:[o]}", "tool_calls", call), NULL);
}

static json_t *block_grew(struct protocol_stream *stream, const json_t *event)
{
    const json_t *delta = json_object_get(event, "delta");
    if (text_is(delta, "type", "text_delta")) {
        return chunk_make(stream, json_pack("{s:s}", "content", text_of(delta, "text")), NULL);
    }
    if (text_is(delta, "type", "input_json_delta") && stream->tool_calls > 0) {
        json_t *call = json_pack("{s:I, s:{s:s}}", "index", stream->tool_calls - 1, "function",
                                 "arguments", text_of(delta, "partial_json"));
        return chunk_make(stream, json_pack("{s:[o]}", "tool_calls", call), NULL);
    }
    return NULL;
}

static json_t *message_grew(struct protocol_stream *stream, const json_t *event)
{
    const char *reason =
        json_string_value(json_object_get(json_object_get(event, "delta"), "stop_reason"));
    if (stream->usage == NULL) {
        stream->usage = json_object();
    }
    (void)json_object_update(stream->usage, json_object_get(event, "usage"));
    json_t *chunk =
        chunk_make(stream, json_object(), reason == NULL ? NULL : finish_reason(reason));
    (void)json_object_set_new(chunk, "usage", usage_translate(stream->usage));
    return chunk;
}

static int anthropic_read_event(struct protocol_stream *stream, const char *name, const char *data,
                                size_t bytes, json_t **ret_chunk, struct outcome *ret_outcome)
{
    (void)name; /* the data says the same in its `type` */
    *ret_chunk = NULL;
    json_t *event = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, NULL);
    int r = json_is_object(event) ? 0 : -EBADMSG;
    if (text_is(event, "type", "error")) {
        outcome_from_error(json_object_get(event, "error"), ret_outcome);
        r = -ECONNABORTED;
    } else if (text_is(event, "type", "message_start")) {
        *ret_chunk = message_started(stream, event);
    } else if (text_is(event, "type", "content_block_start")) {
        *ret_chunk = block_started(stream, event);
    } else if (text_is(event, "type", "content_block_delta")) {
        *ret_chunk = block_grew(stream, event);
    } else if (text_is(event, "type", "message_delta")) {
        *ret_chunk = message_grew(stream, event);
    } else if (text_is(event, "type", "message_stop")) {
        stream->is_ended = true;
    }
    json_decref(event);
    return r;
}

const struct protocol protocol_anthropic = {
    .write_path = anthropic_write_path,
    .write_body = anthropic_write_body,
    .add_headers = anthropic_add_headers,
    .read_answer = anthropic_read_answer,
    .read_event = anthropic_read_event,
};
