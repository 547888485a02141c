/*
 * All of a request but its contents. Sources: ai.google.dev/api/generate-content, "Method:
 * models.generateContent", "models.streamGenerateContent", "GenerationConfig";
 * ai.google.dev/api/caching, "Content", "Tool", "ToolConfig"; ai.google.dev/api/embeddings,
 * "Method: models.batchEmbedContents"; ai.google.dev/gemini-api/docs/openai, "Thinking",
 * "extra_content".
 *
 * Numbers, and whatever else Google judges itself, go on as they are: its own words about a wrong
 * one are the best. Schemas go into the members for JSON Schema, since those for OpenAPI's subset
 * refuse most of what tools are described with ($ref, additionalProperties, const). What cannot be
 * said there without changing the answer is refused, and its member named; what only shades it or
 * is for the caller's own books (user, metadata, store, service_tier, verbosity) is left out.
 */
#include "worker/provider/gemini.h"

#include <errno.h>
#include <string.h>

#include "common/json_read.h"
#include "worker/provider/address.h"
#include "worker/provider/member.h"

#define REJECTED WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED

/* Google's own bounds; it would refuse more in words that name none of OpenAI's members. */
enum { STOPS_MAX = 5, CANDIDATES_MAX = 8, INPUTS_MAX = 100 };

int gemini_refuse(struct outcome *outcome, const char *what)
{
    outcome_set(outcome, REJECTED, "unsupported", "this provider does not offer %s", what);
    return -EINVAL;
}

int gemini_reject(struct outcome *outcome, const char *what)
{
    outcome_set(outcome, REJECTED, "rejected", "%s", what);
    return -EINVAL;
}

int gemini_append(json_t *list, json_t *item)
{
    return json_array_append_new(list, item) < 0 ? -ENOMEM : 0;
}

/* ---- the address and the key ---- */

/* "models/NAME"; a name with a slash in it is whole already ("tunedModels/NAME"). */
static const char *model_folder(const char *model)
{
    return strchr(model, '/') == NULL ? "models/" : "";
}

static int gemini_write_path(const struct provider_request *request, struct bytes *out)
{
    const char *verb = request->stream ? ":streamGenerateContent?alt=sse" : ":generateContent";
    if (request->operation == OPERATION_COMPLETIONS || request->operation == OPERATION_RESPONSES) {
        return -ENOTSUP;
    }
    if (request->operation == OPERATION_EMBEDDINGS) {
        verb = ":batchEmbedContents";
    }
    int r = bytes_append_text(out, "/");
    r = r < 0 ? r : bytes_append_text(out, model_folder(request->model));
    r = r < 0 ? r : address_append_segments(out, request->model);
    return r < 0 ? r : bytes_append_text(out, verb);
}

static struct curl_slist *gemini_add_headers(struct curl_slist *headers, const char *api_key)
{
    return protocol_add_key(headers, "x-goog-api-key", api_key);
}

/* ---- tools ---- */

/* `$schema` names a draft, which Google does not ask for. NULL on a lack of memory. */
static json_t *schema_copy(json_t *schema)
{
    json_t *copy = json_copy(schema);
    (void)json_object_del(copy, "$schema"); /* there may be none */
    return copy;
}

static int tool_append(json_t *declarations, const json_t *tool, struct outcome *outcome)
{
    const json_t *function = json_object_get(tool, "function");
    json_t *description = json_object_get(function, "description");
    json_t *parameters = json_object_get(function, "parameters");
    if (!member_is(tool, "type", "function")) {
        return gemini_refuse(outcome, "tools of a type other than function");
    }
    json_t *declaration = json_pack("{s:s}", "name", member_text(function, "name"));
    int r = gemini_append(declarations, declaration);
    if (r == 0 && json_is_string(description)) {
        r = json_object_set(declaration, "description", description);
    }
    if (r == 0 && json_is_object(parameters)) {
        r = json_object_set_new(declaration, "parametersJsonSchema", schema_copy(parameters));
    }
    return r < 0 ? -ENOMEM : 0;
}

static int set_tools(json_t *out, const json_t *body, struct outcome *outcome)
{
    const json_t *tools = json_object_get(body, "tools");
    if (json_array_size(tools) == 0) {
        return 0;
    }
    json_t *declarations = json_array();
    int r = declarations == NULL ? -ENOMEM : 0;
    size_t i;
    json_t *tool;
    json_array_foreach (tools, i, tool) {
        r = r < 0 ? r : tool_append(declarations, tool, outcome);
    }
    if (r == 0 &&
        json_object_set_new(out, "tools",
                            json_pack("[{s:O}]", "functionDeclarations", declarations)) < 0) {
        r = -ENOMEM;
    }
    json_decref(declarations);
    return r;
}

static int names_append(json_t *names, const json_t *tool)
{
    return gemini_append(names,
                         json_string(member_text(json_object_get(tool, "function"), "name")));
}

/* {"type":"function",…} one tool; {"type":"allowed_tools",…} any of some. Errors: -EINVAL, -ENOMEM.
 */
static int names_of_choice(json_t *names, const json_t *choice, struct outcome *outcome)
{
    const json_t *allowed = json_object_get(choice, "allowed_tools");
    if (member_is(choice, "type", "function")) {
        return names_append(names, choice);
    }
    if (!member_is(choice, "type", "allowed_tools") || !member_is(allowed, "mode", "required")) {
        return gemini_refuse(outcome,
                             "tool_choice of this kind: a function, or allowed_tools of mode "
                             "required, can be said");
    }
    int r = 0;
    size_t i;
    json_t *tool;
    json_array_foreach (json_object_get(allowed, "tools"), i, tool) {
        r = r < 0 ? r : names_append(names, tool);
    }
    return r < 0 || json_array_size(names) > 0
               ? r
               : gemini_reject(outcome, "tool_choice allows no tool");
}

/* Takes `names`; NULL: all. */
static int set_calling(json_t *out, const char *mode, json_t *names)
{
    json_t *config = json_pack("{s:{s:s, s:o*}}", "functionCallingConfig", "mode", mode,
                               "allowedFunctionNames", names);
    return json_object_set_new(out, "toolConfig", config) < 0 ? -ENOMEM : 0;
}

static int set_tool_choice(json_t *out, const json_t *body, struct outcome *outcome)
{
    static const struct {
        const char *word;
        const char *mode;
    } modes[] = {{"auto", "AUTO"}, {"required", "ANY"}, {"none", "NONE"}};
    const json_t *choice = json_object_get(body, "tool_choice");
    if (choice == NULL || json_is_null(choice) || json_object_get(out, "tools") == NULL) {
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(modes) && json_is_string(choice); i++) {
        if (strcmp(json_string_value(choice), modes[i].word) == 0) {
            return set_calling(out, modes[i].mode, NULL);
        }
    }
    json_t *names = json_array();
    int r = names == NULL ? -ENOMEM : names_of_choice(names, choice, outcome);
    if (r < 0) {
        json_decref(names);
        return r;
    }
    return set_calling(out, "ANY", names);
}

/* ---- how to answer ---- */

/* Said the same, under another name. Of two for one the later stands. */
static const struct {
    const char *name;
    const char *google_name;
} settings[] = {
    {"temperature", "temperature"},
    {"top_p", "topP"},
    {"n", "candidateCount"},
    {"seed", "seed"},
    {"presence_penalty", "presencePenalty"},
    {"frequency_penalty", "frequencyPenalty"},
    {"logprobs", "responseLogprobs"},
    {"top_logprobs", "logprobs"},
    {"max_tokens", "maxOutputTokens"},
    {"max_completion_tokens", "maxOutputTokens"},
};

static int set_settings(json_t *config, const json_t *body)
{
    for (size_t i = 0; i < ARRAY_LENGTH(settings); i++) {
        json_t *value = json_object_get(body, settings[i].name);
        if (value != NULL && !json_is_null(value) &&
            json_object_set(config, settings[i].google_name, value) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static int set_stop(json_t *config, const json_t *body, struct outcome *outcome)
{
    json_t *stop = json_object_get(body, "stop");
    if (stop == NULL || json_is_null(stop)) {
        return 0;
    }
    if (json_array_size(stop) > STOPS_MAX) {
        return gemini_refuse(outcome, "stop with more than 5 texts");
    }
    json_t *list = json_is_array(stop) ? json_incref(stop) : json_pack("[O]", stop);
    return json_object_set_new(config, "stopSequences", list) < 0 ? -ENOMEM : 0;
}

static int set_format(json_t *config, const json_t *body, struct outcome *outcome)
{
    const json_t *format = json_object_get(body, "response_format");
    json_t *schema = json_object_get(json_object_get(format, "json_schema"), "schema");
    const bool has_schema = member_is(format, "type", "json_schema");
    if (!json_is_object(format) || member_is(format, "type", "text")) {
        return 0;
    }
    if (!has_schema && !member_is(format, "type", "json_object")) {
        return gemini_refuse(outcome,
                             "response_format other than text, json_object and json_schema");
    }
    int r = json_object_set_new(config, "responseMimeType", json_string("application/json"));
    if (r == 0 && has_schema && json_is_object(schema)) {
        r = json_object_set_new(config, "responseJsonSchema", schema_copy(schema));
    }
    return r < 0 ? -ENOMEM : 0;
}

/* The budgets that Google's own OpenAI form has for these words. */
static int set_thinking(json_t *config, const json_t *body, struct outcome *outcome)
{
    static const struct {
        const char *word;
        int budget_tokens;
    } efforts[] = {
        {"none", 0}, {"minimal", 1024}, {"low", 1024}, {"medium", 8192}, {"high", 24576}};
    const json_t *effort = json_object_get(body, "reasoning_effort");
    if (effort == NULL || json_is_null(effort)) {
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(efforts); i++) {
        if (member_is(body, "reasoning_effort", efforts[i].word)) {
            json_t *thinking = json_pack("{s:i}", "thinkingBudget", efforts[i].budget_tokens);
            return json_object_set_new(config, "thinkingConfig", thinking) < 0 ? -ENOMEM : 0;
        }
    }
    return gemini_refuse(outcome,
                         "reasoning_effort other than none, minimal, low, medium and high");
}

static int set_config(json_t *out, const json_t *body, struct outcome *outcome)
{
    json_t *config = json_object();
    int r = config == NULL ? -ENOMEM : set_settings(config, body);
    r = r < 0 ? r : set_stop(config, body, outcome);
    r = r < 0 ? r : set_format(config, body, outcome);
    r = r < 0 ? r : set_thinking(config, body, outcome);
    if (r == 0 && json_object_size(config) > 0 &&
        json_object_set(out, "generationConfig", config) < 0) {
        r = -ENOMEM;
    }
    json_decref(config);
    return r;
}

/* ---- the body ---- */

/* There, and neither null, false nor empty. */
static bool is_asked(const json_t *value)
{
    const bool is_empty = (json_is_object(value) && json_object_size(value) == 0) ||
                          (json_is_array(value) && json_array_size(value) == 0);
    return value != NULL && !json_is_null(value) && !json_is_false(value) && !is_empty;
}

static bool wants_only_text(const json_t *modalities)
{
    size_t i;
    json_t *one;
    json_array_foreach (modalities, i, one) {
        if (!json_is_string(one) || strcmp(json_string_value(one), "text") != 0) {
            return false;
        }
    }
    return true;
}

/* What there is no word for, by its member; NULL when all can be said. */
static const char *unsayable(const json_t *body)
{
    static const char *const members[] = {"logit_bias", "audio", "functions", "function_call",
                                          "web_search_options"};
    for (size_t i = 0; i < ARRAY_LENGTH(members); i++) {
        if (is_asked(json_object_get(body, members[i]))) {
            return members[i];
        }
    }
    if (json_integer_value(json_object_get(body, "n")) > CANDIDATES_MAX) {
        return "n above 8";
    }
    if (!wants_only_text(json_object_get(body, "modalities"))) {
        return "modalities other than text";
    }
    return json_is_false(json_object_get(body, "parallel_tool_calls"))
               ? "parallel_tool_calls that are false"
               : NULL;
}

static int chat_translate(json_t *out, const json_t *body, struct outcome *outcome)
{
    const char *missing = unsayable(body);
    int r =
        missing == NULL ? gemini_set_contents(out, body, outcome) : gemini_refuse(outcome, missing);
    r = r < 0 ? r : set_tools(out, body, outcome);
    r = r < 0 ? r : set_tool_choice(out, body, outcome);
    return r < 0 ? r : set_config(out, body, outcome);
}

static int input_append(json_t *requests, const char *model, const json_t *body, json_t *input,
                        struct outcome *outcome)
{
    json_t *dimensions = json_object_get(body, "dimensions");
    if (!json_is_string(input)) {
        return gemini_refuse(outcome, "input other than a text or a list of texts");
    }
    json_t *request =
        json_pack("{s:o, s:{s:[{s:O}]}}", "model", json_sprintf("%s%s", model_folder(model), model),
                  "content", "parts", "text", input);
    int r = gemini_append(requests, request);
    if (r == 0 && dimensions != NULL && !json_is_null(dimensions)) {
        r = json_object_set(request, "outputDimensionality", dimensions);
    }
    return r < 0 ? -ENOMEM : 0;
}

/* base64 is not offered: a reply is read without its request, so nobody would know of it. */
static int embeddings_translate(json_t *out, const char *model, const json_t *body,
                                struct outcome *outcome)
{
    json_t *input = json_object_get(body, "input");
    const json_t *format = json_object_get(body, "encoding_format");
    if (is_asked(format) && !member_is(body, "encoding_format", "float")) {
        return gemini_refuse(outcome, "encoding_format other than float");
    }
    if (json_array_size(input) > INPUTS_MAX) {
        return gemini_refuse(outcome, "input of more than 100 texts");
    }
    json_t *requests = json_array();
    int r = json_object_set_new(out, "requests", requests) < 0 ? -ENOMEM : 0;
    if (r == 0 && !json_is_array(input)) {
        return input_append(requests, model, body, input, outcome);
    }
    size_t i;
    json_t *one;
    json_array_foreach (input, i, one) {
        r = r < 0 ? r : input_append(requests, model, body, one, outcome);
    }
    return r < 0 || json_array_size(requests) > 0 ? r : gemini_reject(outcome, "input is empty");
}

/* Where a dump goes; jansson tells no more than that it failed. */
struct dump {
    struct bytes *out;
    int r;
};

static int dump_piece(const char *text, size_t bytes, void *context)
{
    struct dump *dump = context;
    dump->r = bytes_append(dump->out, text, bytes);
    return dump->r;
}

static int body_dump(const json_t *body, struct bytes *out)
{
    struct dump dump = {.out = out};
    if (json_dump_callback(body, dump_piece, &dump, JSON_COMPACT) == 0) {
        return 0;
    }
    return dump.r < 0 ? dump.r : -ENOMEM;
}

/* Gives: *ret_body, an object. Errors: -EINVAL it is none (ret_outcome); -ENOMEM. */
static int body_load(const struct provider_request *request, json_t **ret_body,
                     struct outcome *ret_outcome)
{
    json_error_t error;
    json_t *body = json_read(request->body, request->body_bytes, 0, &error);
    if (json_is_object(body)) {
        *ret_body = body;
        return 0;
    }
    const bool is_scarce = body == NULL && json_error_code(&error) == json_error_out_of_memory;
    json_decref(body);
    if (is_scarce) {
        return -ENOMEM;
    }
    outcome_set(ret_outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID, "invalid_body",
                "the request's body is not a JSON object");
    return -EINVAL;
}

static int gemini_write_body(const struct provider_request *request, struct bytes *out,
                             struct outcome *ret_outcome)
{
    json_t *body = NULL;
    json_t *translated = json_object();
    int r = translated == NULL ? -ENOMEM : body_load(request, &body, ret_outcome);
    if (r == 0) {
        r = request->operation == OPERATION_EMBEDDINGS
                ? embeddings_translate(translated, request->model, body, ret_outcome)
                : chat_translate(translated, body, ret_outcome);
    }
    r = r < 0 ? r : body_dump(translated, out);
    json_decref(body);
    json_decref(translated);
    return r;
}

const struct protocol protocol_gemini = {
    .write_path = gemini_write_path,
    .write_body = gemini_write_body,
    .add_headers = gemini_add_headers,
    .read_answer = gemini_read_answer,
    .read_event = gemini_read_event,
};
