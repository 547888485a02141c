/*
 * A chat's request as a response's: messages become items, what stands in objects of functions and
 * formats there stands flat here.
 *
 * What cannot be said without changing the answer (several choices, stop sequences, audio) is
 * refused with words; what only shades it (penalties, seed, logit_bias) is left out. Nothing is
 * stored at the provider unless the chat says so, as it is with chats.
 */
#include "common/json_read.h"
#include "worker/provider/responses.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/provider/member.h"

/* ---- messages ---- */

static json_t *image_translate(const json_t *part)
{
    const json_t *image = json_object_get(part, "image_url");
    const char *url = member_text(image, "url");
    return url[0] == '\0' ? NULL
                          : json_pack("{s:s, s:s, s:O*}", "type", "input_image", "image_url", url,
                                      "detail", json_object_get(image, "detail"));
}

static json_t *file_translate(const json_t *part)
{
    const json_t *file = json_object_get(part, "file");
    return json_pack("{s:s, s:O*, s:O*, s:O*}", "type", "input_file", "file_id",
                     json_object_get(file, "file_id"), "filename",
                     json_object_get(file, "filename"), "file_data",
                     json_object_get(file, "file_data"));
}

/* `text_type`: input_text, or output_text of what the model said. NULL: it cannot be said. */
static json_t *part_translate(const json_t *part, const char *text_type)
{
    if (member_is(part, "type", "text")) {
        return json_pack("{s:s, s:s}", "type", text_type, "text", member_text(part, "text"));
    }
    if (member_is(part, "type", "refusal")) {
        return json_pack("{s:s, s:s}", "type", "refusal", "refusal", member_text(part, "refusal"));
    }
    if (member_is(part, "type", "image_url")) {
        return image_translate(part);
    }
    return member_is(part, "type", "file") ? file_translate(part) : NULL;
}

/* A text stays one; of parts each is translated. Errors: -EINVAL it cannot be said; -ENOMEM. */
static int content_translate(json_t *content, const char *text_type, json_t **ret_content)
{
    if (json_is_string(content)) {
        *ret_content = json_incref(content);
        return 0;
    }
    json_t *list = json_is_array(content) ? json_array() : NULL;
    size_t i;
    json_t *part;
    json_array_foreach (content, i, part) {
        if (json_array_append_new(list, part_translate(part, text_type)) < 0) {
            json_decref(list);
            return -EINVAL;
        }
    }
    if (list == NULL) {
        return -EINVAL;
    }
    *ret_content = list;
    return 0;
}

static int item_append(json_t *input, json_t *item)
{
    return json_array_append_new(input, item) < 0 ? -ENOMEM : 0;
}

static int message_append(json_t *input, const char *role, json_t *content, const char *text_type)
{
    json_t *translated = NULL;
    int r = content_translate(content, text_type, &translated);
    return r < 0 ? r
                 : item_append(input, json_pack("{s:s, s:o}", "role", role, "content", translated));
}

static int tool_calls_append(json_t *input, const json_t *tool_calls)
{
    size_t i;
    json_t *call;
    json_array_foreach (tool_calls, i, call) {
        const json_t *function = json_object_get(call, "function");
        if (!json_is_object(function)) {
            return -EINVAL;
        }
        int r = item_append(input, json_pack("{s:s, s:s, s:s, s:s}", "type", "function_call",
                                             "call_id", member_text(call, "id"), "name",
                                             member_text(function, "name"), "arguments",
                                             member_text(function, "arguments")));
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int assistant_append(json_t *input, const json_t *message)
{
    json_t *content = json_object_get(message, "content");
    const char *refusal = member_text(message, "refusal");
    const bool says_something = json_is_array(content) || json_string_length(content) > 0;
    int r = says_something ? message_append(input, "assistant", content, "output_text") : 0;
    if (r == 0 && refusal[0] != '\0') {
        r = item_append(input, json_pack("{s:s, s:[{s:s, s:s}]}", "role", "assistant", "content",
                                         "type", "refusal", "refusal", refusal));
    }
    return r < 0 ? r : tool_calls_append(input, json_object_get(message, "tool_calls"));
}

static int tool_result_append(json_t *input, const json_t *message)
{
    json_t *output = NULL;
    int r = content_translate(json_object_get(message, "content"), "input_text", &output);
    return r < 0 ? r
                 : item_append(input, json_pack("{s:s, s:s, s:o}", "type", "function_call_output",
                                                "call_id", member_text(message, "tool_call_id"),
                                                "output", output));
}

/* Errors: -EINVAL other than texts; -EMSGSIZE, -ENOMEM. */
static int instructions_append(struct bytes *instructions, const json_t *content)
{
    size_t i;
    json_t *part;
    int r = instructions->length > 0 ? bytes_append_text(instructions, "\n\n") : 0;
    if (json_is_string(content)) {
        return r < 0 ? r : bytes_append_text(instructions, json_string_value(content));
    }
    json_array_foreach (content, i, part) {
        if (!member_is(part, "type", "text")) {
            return -EINVAL;
        }
        r = r < 0 ? r : bytes_append_text(instructions, member_text(part, "text"));
    }
    return json_is_array(content) ? r : -EINVAL;
}

/* What the operator says first are the instructions; later on it is a message like others. */
static int message_translate(json_t *input, struct bytes *instructions, const json_t *message)
{
    json_t *content = json_object_get(message, "content");
    const char *role = member_text(message, "role");
    const bool is_operator = strcmp(role, "system") == 0 || strcmp(role, "developer") == 0;
    if (is_operator && json_array_size(input) == 0) {
        return instructions_append(instructions, content);
    }
    if (is_operator || strcmp(role, "user") == 0) {
        return message_append(input, role, content, "input_text");
    }
    if (strcmp(role, "assistant") == 0) {
        return assistant_append(input, message);
    }
    return strcmp(role, "tool") == 0 ? tool_result_append(input, message) : -EINVAL;
}

/* Input is required, so instructions alone stand there. */
static int set_texts(json_t *out, json_t *input, const struct bytes *instructions)
{
    const char *text = instructions->data == NULL ? "" : instructions->data;
    int r = 0;
    if (json_array_size(input) == 0) {
        r = text[0] == '\0'
                ? -EINVAL
                : item_append(input, json_pack("{s:s, s:s}", "role", "system", "content", text));
    } else if (text[0] != '\0') {
        r = json_object_set_new(out, "instructions", json_string(text)) < 0 ? -ENOMEM : 0;
    }
    return r < 0 ? r : json_object_set(out, "input", input) < 0 ? -ENOMEM : 0;
}

static int set_messages(json_t *out, const json_t *body, size_t bytes_max)
{
    struct bytes instructions = {.bytes_max = bytes_max};
    json_t *input = json_array();
    int r = input == NULL ? -ENOMEM : 0;
    size_t i;
    json_t *message;
    json_array_foreach (json_object_get(body, "messages"), i, message) {
        r = r < 0 ? r : message_translate(input, &instructions, message);
    }
    r = r < 0 ? r : set_texts(out, input, &instructions);
    json_decref(input);
    bytes_finish(&instructions);
    return r;
}

/* ---- tools and forms ---- */

/* Functions are strict there unless they say no, and here only if they say so. */
static json_t *tool_translate(const json_t *tool)
{
    const json_t *function = json_object_get(tool, "function");
    json_t *parameters = json_object_get(function, "parameters");
    json_t *translated = json_pack("{s:s, s:s, s:O*, s:b}", "type", "function", "name",
                                   member_text(function, "name"), "description",
                                   json_object_get(function, "description"), "strict",
                                   json_is_true(json_object_get(function, "strict")));
    json_t *schema = json_is_object(parameters)
                         ? json_incref(parameters)
                         : json_pack("{s:s, s:{}}", "type", "object", "properties");
    if (json_object_set_new(translated, "parameters", schema) < 0) {
        json_decref(translated);
        return NULL;
    }
    return translated;
}

static int set_tool_choice(json_t *out, const json_t *body)
{
    json_t *choice = json_object_get(body, "tool_choice");
    if (choice == NULL || json_is_null(choice)) {
        return 0;
    }
    json_t *translated = json_is_object(choice)
                             ? json_pack("{s:s, s:s}", "type", "function", "name",
                                         member_text(json_object_get(choice, "function"), "name"))
                             : json_incref(choice);
    return json_object_set_new(out, "tool_choice", translated) < 0 ? -ENOMEM : 0;
}

/* {"type":"json_schema","json_schema":{…}} → the same members, flat. */
static json_t *format_translate(json_t *format)
{
    json_t *schema = json_object_get(format, "json_schema");
    if (!json_is_object(schema)) {
        return json_incref(format);
    }
    json_t *flat = json_copy(schema);
    if (json_object_set_new(flat, "type", json_string("json_schema")) < 0) {
        json_decref(flat);
        return NULL;
    }
    return flat;
}

static int set_text(json_t *out, const json_t *body)
{
    json_t *format = json_object_get(body, "response_format");
    json_t *verbosity = json_object_get(body, "verbosity");
    json_t *text = json_object();
    int r = text == NULL ? -ENOMEM : 0;
    if (r == 0 && json_is_object(format)) {
        r = json_object_set_new(text, "format", format_translate(format));
    }
    if (r == 0 && json_is_string(verbosity)) {
        r = json_object_set(text, "verbosity", verbosity);
    }
    if (r == 0 && json_object_size(text) > 0) {
        r = json_object_set(out, "text", text);
    }
    json_decref(text);
    return r < 0 ? -ENOMEM : 0;
}

/* ---- the rest ---- */

static int set_alike(json_t *out, const json_t *body)
{
    static const char *const names[] = {"temperature",
                                        "top_p",
                                        "top_logprobs",
                                        "user",
                                        "metadata",
                                        "service_tier",
                                        "parallel_tool_calls",
                                        "prompt_cache_key",
                                        "prompt_cache_retention",
                                        "safety_identifier"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        json_t *value = json_object_get(body, names[i]);
        if (value != NULL && !json_is_null(value) && json_object_set(out, names[i], value) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static int set_head(json_t *out, const json_t *body, const struct provider_request *request)
{
    json_t *bound = protocol_bound(body);
    json_t *effort = json_object_get(body, "reasoning_effort");
    int r = json_object_set_new(out, "model", json_string(request->model));
    r |= json_object_set_new(out, "store",
                             json_boolean(json_is_true(json_object_get(body, "store"))));
    if (request->stream) {
        r |= json_object_set_new(out, "stream", json_true());
    }
    if (bound != NULL) {
        r |= json_object_set(out, "max_output_tokens", bound);
    }
    if (json_is_string(effort)) {
        r |= json_object_set_new(out, "reasoning", json_pack("{s:O}", "effort", effort));
    }
    if (json_is_true(json_object_get(body, "logprobs"))) {
        r |= json_object_set_new(out, "include", json_pack("[s]", "message.output_text.logprobs"));
    }
    return r < 0 ? -ENOMEM : 0;
}

static bool is_given(const json_t *body, const char *name)
{
    const json_t *value = json_object_get(body, name);
    return value != NULL && !json_is_null(value);
}

static bool has_other_tools(const json_t *body)
{
    const json_t *choice = json_object_get(body, "tool_choice");
    bool is_found = json_is_object(choice) && !member_is(choice, "type", "function");
    size_t i;
    json_t *tool;
    json_array_foreach (json_object_get(body, "tools"), i, tool) {
        is_found = is_found || !member_is(tool, "type", "function");
    }
    return is_found;
}

static bool has_modality(const json_t *body, const char *wanted)
{
    size_t i;
    json_t *modality;
    json_array_foreach (json_object_get(body, "modalities"), i, modality) {
        if (json_is_string(modality) && strcmp(json_string_value(modality), wanted) == 0) {
            return true;
        }
    }
    return false;
}

/* What a response cannot promise, in words; NULL when all can be said. */
static const char *unsupported(const json_t *body)
{
    const json_t *choices = json_object_get(body, "n");
    if (json_is_integer(choices) && json_integer_value(choices) != 1) {
        return "n above 1";
    }
    if (is_given(body, "stop")) {
        return "stop sequences";
    }
    if (is_given(body, "audio") || has_modality(body, "audio")) {
        return "answers in audio";
    }
    if (is_given(body, "functions") || is_given(body, "function_call")) {
        return "functions; say them as tools";
    }
    if (is_given(body, "web_search_options")) {
        return "web_search_options; submit a job of the operation responses";
    }
    return has_other_tools(body) ? "tools other than functions" : NULL;
}

static int body_translate(json_t *out, const json_t *body, const struct provider_request *request)
{
    int r = set_head(out, body, request);
    r = r < 0 ? r : set_messages(out, body, request->body_bytes * 2 + 2);
    r = r < 0 ? r : protocol_set_tools(out, body, tool_translate);
    r = r < 0 ? r : set_tool_choice(out, body);
    r = r < 0 ? r : set_text(out, body);
    return r < 0 ? r : set_alike(out, body);
}

/* Errors: -EINVAL, with *ret_outcome. */
static int check(const json_t *body, struct outcome *ret_outcome)
{
    const char *missing = unsupported(body);
    if (!json_is_object(body)) {
        outcome_set(ret_outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID, "invalid_body",
                    "the request's body is not a JSON object");
        return -EINVAL;
    }
    if (missing != NULL) {
        outcome_set(ret_outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, "unsupported",
                    "the Responses API does not offer %s", missing);
        return -EINVAL;
    }
    return 0;
}

int responses_write_body(const struct provider_request *request, struct bytes *out,
                         struct outcome *ret_outcome)
{
    json_t *body = json_read(request->body, request->body_bytes, 0, NULL);
    json_t *translated = json_object();
    int r = translated == NULL ? -ENOMEM : check(body, ret_outcome);
    if (r == 0) {
        r = body_translate(translated, body, request);
        if (r == -EINVAL) {
            outcome_set(ret_outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED, "rejected",
                        "a message has a role or a content part that the Responses API does not "
                        "offer");
        }
    }
    if (r == 0) {
        char *text = json_dumps(translated, JSON_COMPACT | JSON_REAL_PRECISION(15));
        r = text == NULL ? -ENOMEM : bytes_append_text(out, text);
        free(text);
    }
    json_decref(body);
    json_decref(translated);
    return r;
}
