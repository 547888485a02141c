/*
 * Source: platform.claude.com/docs/en/api/messages, "Extended thinking", "Structured outputs".
 *
 * What cannot be said there without changing the answer (several choices, log probabilities) is
 * refused with words; what only shades it (penalties, seed, logit_bias) is left out. Temperature is
 * bounded to 1.
 *
 * A JSON form with a schema is asked for as `output_config.format`; one without has no word there,
 * so the model is made to call a tool that takes any object. Thinking excludes a forced tool and
 * demands that the turns of a tool's use bring back thinking blocks, which OpenAI's form has no
 * place for: there it is left out, since it shades the answer and does not make it.
 */
#include "worker/provider/anthropic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_read.h"
#include "worker/provider/member.h"

enum { THINKING_TOKENS_MIN = 1024 };
#define THINKING_TOP_P_MIN 0.95

static int anthropic_write_path(const struct provider_request *request, struct bytes *out)
{
    return request->operation == OPERATION_CHAT ? bytes_append_text(out, "/messages") : -ENOTSUP;
}

static struct curl_slist *anthropic_add_headers(struct curl_slist *headers, const char *api_key)
{
    struct curl_slist *longer = curl_slist_append(headers, "anthropic-version: 2023-06-01");
    return longer == NULL ? NULL : protocol_add_key(longer, "x-api-key", api_key);
}

/* ---- the request's parts ---- */

/* "data:MEDIA/TYPE;base64,DATA" → a source; NULL when it is none. */
static json_t *data_source(const char *url)
{
    static const char middle[] = ";base64,";
    const char *data = strncmp(url, "data:", 5) == 0 ? strstr(url, middle) : NULL;
    return data == NULL ? NULL
                        : json_pack("{s:s, s:s%, s:s}", "type", "base64", "media_type", url + 5,
                                    (size_t)(data - url - 5), "data", data + sizeof(middle) - 1);
}

/* Takes `source`, which may be NULL. */
static json_t *block_of(const char *type, json_t *source)
{
    return source == NULL ? NULL : json_pack("{s:s, s:o}", "type", type, "source", source);
}

/* {"type":"image_url","image_url":{"url":…}} → an image block; NULL when it cannot be said. */
static json_t *image_block(const json_t *part)
{
    const char *url = member_text(json_object_get(part, "image_url"), "url");
    const bool is_address = strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0;
    return block_of("image", is_address ? json_pack("{s:s, s:s}", "type", "url", "url", url)
                                        : data_source(url));
}

/* {"type":"file","file":{"file_data":"data:application/pdf;base64,…"}} → a document; or NULL. */
static json_t *document_block(const json_t *part)
{
    return block_of("document",
                    data_source(member_text(json_object_get(part, "file"), "file_data")));
}

/* What marks the end of a prefix to be cached is Anthropic's own, and passes through. */
static json_t *text_block(const json_t *part)
{
    json_t *text = json_object_get(part, "text");
    return json_is_string(text) ? json_pack("{s:s, s:O, s:O*}", "type", "text", "text", text,
                                            "cache_control", json_object_get(part, "cache_control"))
                                : NULL;
}

static json_t *part_block(const json_t *part)
{
    static const struct {
        const char *type;
        json_t *(*make)(const json_t *part);
    } kinds[] = {{"text", text_block}, {"image_url", image_block}, {"file", document_block}};
    for (size_t i = 0; i < ARRAY_LENGTH(kinds); i++) {
        if (member_is(part, "type", kinds[i].type)) {
            return kinds[i].make(part);
        }
    }
    return NULL;
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
        json_t *block = part_block(part);
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
        json_t *input = json_loads(member_text(function, "arguments"), 0, NULL);
        if (!json_is_object(input)) {
            json_decref(input);
            input = json_object();
        }
        json_t *block =
            json_pack("{s:s, s:s, s:s, s:o}", "type", "tool_use", "id", member_text(call, "id"),
                      "name", member_text(function, "name"), "input", input);
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
                                  member_text(message, "tool_call_id"), "content", inner);
        r = json_array_append_new(blocks, block) < 0 ? -ENOMEM : 0;
    }
    json_decref(inner);
    return r;
}

/*
 * The message that results of tools are added to: all of one turn have to be in the message that
 * follows it. NULL: the last one holds none.
 */
static json_t *open_results(const json_t *messages)
{
    json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    json_t *content = json_object_get(last, "content");
    const json_t *block = json_array_get(content, 0);
    return member_is(block, "type", "tool_result") ? content : NULL;
}

static int tool_message_translate(json_t *messages, const json_t *message)
{
    json_t *open = open_results(messages);
    if (open != NULL) {
        return tool_result_append(open, message);
    }
    json_t *blocks = json_array();
    int r = blocks == NULL ? -ENOMEM : tool_result_append(blocks, message);
    r = r < 0 ? r : message_append(messages, "user", blocks);
    json_decref(blocks);
    return r;
}

/* One OpenAI message into `system` or `messages`. Errors: -EINVAL, -ENOMEM. */
static int message_translate(json_t *system, json_t *messages, const json_t *message)
{
    json_t *content = json_object_get(message, "content");
    if (member_is(message, "role", "system") || member_is(message, "role", "developer")) {
        return content_append(system, content);
    }
    if (member_is(message, "role", "tool")) {
        return tool_message_translate(messages, message);
    }
    json_t *blocks = json_array();
    int r = blocks == NULL ? -ENOMEM : 0;
    if (member_is(message, "role", "assistant")) {
        r = r < 0 ? r : content_append(blocks, content);
        r = r < 0 ? r : tool_uses_append(blocks, json_object_get(message, "tool_calls"));
        r = r < 0 || json_array_size(blocks) == 0 ? r
                                                  : message_append(messages, "assistant", blocks);
    } else if (member_is(message, "role", "user")) {
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

static json_t *tool_translate(const json_t *tool)
{
    const json_t *function = json_object_get(tool, "function");
    json_t *schema = json_object_get(function, "parameters");
    json_t *translated = json_pack("{s:s, s:O*}", "name", member_text(function, "name"),
                                   "description", json_object_get(function, "description"));
    (void)json_object_set_new(translated, "input_schema",
                              schema != NULL ? json_incref(schema)
                                             : json_pack("{s:s}", "type", "object"));
    if (json_is_true(json_object_get(function, "strict"))) {
        (void)json_object_set_new(translated, "strict", json_true());
    }
    return translated;
}

static json_t *tool_choice_translate(const json_t *choice)
{
    if (json_is_object(choice)) {
        return json_pack("{s:s, s:s}", "type", "tool", "name",
                         member_text(json_object_get(choice, "function"), "name"));
    }
    const char *word = json_string_value(choice);
    const bool is_required = word != NULL && strcmp(word, "required") == 0;
    const bool is_none = word != NULL && strcmp(word, "none") == 0;
    return json_pack("{s:s}", "type", is_required ? "any" : is_none ? "none" : "auto");
}

static int set_tool_choice(json_t *out, const json_t *body)
{
    const json_t *choice = json_object_get(body, "tool_choice");
    const bool is_single = json_is_false(json_object_get(body, "parallel_tool_calls"));
    if ((choice == NULL && !is_single) || json_object_get(out, "tools") == NULL) {
        return 0;
    }
    json_t *translated = tool_choice_translate(choice);
    if (is_single && !member_is(translated, "type", "none")) {
        (void)json_object_set_new(translated, "disable_parallel_tool_use", json_true());
    }
    return json_object_set_new(out, "tool_choice", translated) < 0 ? -ENOMEM : 0;
}

/* Errors: -EINVAL a schema is named and not there; -ENOMEM. */
static int set_format(json_t *out, const json_t *body)
{
    const json_t *format = json_object_get(body, "response_format");
    json_t *schema = json_object_get(json_object_get(format, "json_schema"), "schema");
    int r = 0;
    if (member_is(format, "type", "json_schema")) {
        if (!json_is_object(schema)) {
            return -EINVAL;
        }
        r = json_object_set_new(
            out, "output_config",
            json_pack("{s:{s:s, s:O}}", "format", "type", "json_schema", "schema", schema));
    } else if (member_is(format, "type", "json_object")) {
        r = json_object_set_new(out, "tools",
                                json_pack("[{s:s, s:s, s:{s:s}}]", "name", ANTHROPIC_JSON_TOOL,
                                          "description", "Gives the answer, as a JSON object.",
                                          "input_schema", "type", "object"));
        r |= json_object_set_new(
            out, "tool_choice",
            json_pack("{s:s, s:s}", "type", "tool", "name", ANTHROPIC_JSON_TOOL));
    }
    return r < 0 ? -ENOMEM : 0;
}

/* Tokens to think with; 0: none are asked for. */
static json_int_t thinking_of(const json_t *body)
{
    static const struct {
        const char *effort;
        json_int_t tokens;
    } efforts[] = {{"low", 1024}, {"medium", 4096}, {"high", 16384}, {"xhigh", 32768}};
    for (size_t i = 0; i < ARRAY_LENGTH(efforts); i++) {
        if (member_is(body, "reasoning_effort", efforts[i].effort)) {
            return efforts[i].tokens;
        }
    }
    return 0;
}

static bool may_think(const json_t *out, const json_t *body)
{
    const json_t *choice = json_object_get(out, "tool_choice");
    const json_t *messages = json_object_get(body, "messages");
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    return !member_is(choice, "type", "tool") && !member_is(choice, "type", "any") &&
           !member_is(last, "role", "tool") && !member_is(last, "role", "assistant");
}

/*
 * There what is thought counts against max_tokens, as it does in OpenAI's form: of a bound that the
 * client set half is left for the answer; one that is ours grows by the thinking.
 */
static int set_thinking(json_t *out, const json_t *body, bool is_bound_by_client)
{
    const json_int_t max_tokens = json_integer_value(json_object_get(out, "max_tokens"));
    json_int_t budget = may_think(out, body) ? thinking_of(body) : 0;
    if (is_bound_by_client && budget > max_tokens / 2) {
        budget = max_tokens / 2;
    }
    if (budget < THINKING_TOKENS_MIN) {
        return 0;
    }
    int r = json_object_set_new(
        out, "thinking", json_pack("{s:s, s:I}", "type", "enabled", "budget_tokens", budget));
    if (!is_bound_by_client) {
        r |= json_object_set_new(out, "max_tokens", json_integer(max_tokens + budget));
    }
    return r < 0 ? -ENOMEM : 0;
}

static int set_service_tier(json_t *out, const json_t *body)
{
    const char *tier = member_text(body, "service_tier");
    const bool is_auto = strcmp(tier, "auto") == 0 || strcmp(tier, "priority") == 0;
    const bool is_standard = strcmp(tier, "default") == 0 || strcmp(tier, "standard_only") == 0;
    if (!is_auto && !is_standard) {
        return 0;
    }
    return json_object_set_new(out, "service_tier",
                               json_string(is_auto ? "auto" : "standard_only")) < 0
               ? -ENOMEM
               : 0;
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
    const bool thinks = json_object_get(out, "thinking") != NULL;
    int r = 0;
    if (json_is_number(temperature) && !thinks) {
        r = json_number_value(temperature) > 1.0
                ? json_object_set_new(out, "temperature", json_integer(1))
                : json_object_set(out, "temperature", temperature);
    }
    if (r == 0 && json_is_number(top_p) &&
        (!thinks || json_number_value(top_p) >= THINKING_TOP_P_MIN)) {
        r = json_object_set(out, "top_p", top_p);
    }
    return r < 0 ? -ENOMEM : 0;
}

static int set_head(json_t *out, const json_t *body, const struct provider_request *request)
{
    const json_t *bound = protocol_bound(body);
    const json_t *user = json_object_get(body, "user");
    const json_int_t max_tokens =
        bound != NULL ? json_integer_value(bound) : (json_int_t)request->max_tokens_default;
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

static bool has_tool(const json_t *body, const char *name)
{
    size_t i;
    json_t *tool;
    json_array_foreach (json_object_get(body, "tools"), i, tool) {
        if (member_is(json_object_get(tool, "function"), "name", name)) {
            return true;
        }
    }
    return false;
}

static const char *unsupported_format(const json_t *body)
{
    const json_t *format = json_object_get(body, "response_format");
    if (!json_is_object(format) || member_is(format, "type", "text") ||
        member_is(format, "type", "json_schema")) {
        return NULL;
    }
    if (!member_is(format, "type", "json_object")) {
        return "this type of response_format";
    }
    return json_array_size(json_object_get(body, "tools")) > 0
               ? "response_format json_object beside tools"
               : NULL;
}

/* What the Messages API cannot promise, in words; NULL when all can be said. */
static const char *unsupported(const json_t *body)
{
    const json_t *choices = json_object_get(body, "n");
    if (json_is_integer(choices) && json_integer_value(choices) != 1) {
        return "n above 1";
    }
    if (json_is_true(json_object_get(body, "logprobs"))) {
        return "logprobs";
    }
    if (has_tool(body, ANTHROPIC_JSON_TOOL)) {
        return "a tool named " ANTHROPIC_JSON_TOOL;
    }
    return unsupported_format(body);
}

static bool mark_last(json_t *blocks)
{
    json_t *last = json_array_get(blocks, json_array_size(blocks) - 1);
    return last == NULL ||
           json_object_set_new(last, "cache_control", json_pack("{s:s}", "type", "ephemeral")) == 0;
}

enum { MARKED_MESSAGES_MIN = 3 }; /* a conversation: its next turn begins with this one */

/*
 * Where a prefix ends that is to be kept: behind the system's messages, since tools come before
 * them there, and behind the conversation so far. Source: docs, "Prompt caching".
 */
static int set_cache_marks(json_t *out, const struct provider_request *request)
{
    json_t *messages = json_object_get(out, "messages");
    const size_t length = json_array_size(messages);
    json_t *system = json_object_get(out, "system");
    bool is_done = request->prefix_key == NULL;
    if (!is_done) {
        is_done = mark_last(system != NULL ? system : json_object_get(out, "tools"));
        is_done = is_done &&
                  (length < MARKED_MESSAGES_MIN ||
                   mark_last(json_object_get(json_array_get(messages, length - 1), "content")));
    }
    return is_done ? 0 : -ENOMEM;
}

static int body_translate(json_t *out, const json_t *body, const struct provider_request *request)
{
    int r = set_head(out, body, request);
    r = r < 0 ? r : set_messages(out, body);
    r = r < 0 ? r : protocol_set_tools(out, body, tool_translate);
    r = r < 0 ? r : set_tool_choice(out, body);
    r = r < 0 ? r : set_format(out, body);
    r = r < 0 ? r : set_thinking(out, body, protocol_bound(body) != NULL);
    r = r < 0 ? r : set_service_tier(out, body);
    r = r < 0 ? r : set_stop(out, body);
    r = r < 0 ? r : set_sampling(out, body);
    return r < 0 ? r : set_cache_marks(out, request);
}

static int anthropic_write_body(const struct provider_request *request, struct bytes *out,
                                struct outcome *ret_outcome)
{
    json_t *body = json_read(request->body, request->body_bytes, 0, NULL);
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
            outcome_set(
                ret_outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, "rejected",
                "a message has a role or a content part that this provider does not offer, or "
                "response_format has no schema");
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

const struct protocol protocol_anthropic = {
    .write_path = anthropic_write_path,
    .write_body = anthropic_write_body,
    .add_headers = anthropic_add_headers,
    .read_answer = anthropic_read_answer,
    .read_event = anthropic_read_event,
};
