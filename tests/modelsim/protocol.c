#include "tests/modelsim/protocol.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "tests/modelsim/azure.h"
#include "tests/modelsim/gemini.h"
#include "tests/modelsim/responses.h"

/* Replies carry a fixed time, so that equal requests get equal bytes. */
static const long long created_unix_s = 1767225600;

/* `verb`: the path is followed by a model's name, and this. `like`: whose form requests and replies have, if not its own. */
static const struct {
    const char *name, *method, *path, *verb;
    enum maker maker;
    enum api like;
} apis[API_COUNT] = {
    [API_CHAT] = {"chat.completions", "POST", "/v1/chat/completions", NULL, MAKER_OPENAI},
    [API_COMPLETIONS] = {"completions", "POST", "/v1/completions", NULL, MAKER_OPENAI},
    [API_EMBEDDINGS] = {"embeddings", "POST", "/v1/embeddings", NULL, MAKER_OPENAI},
    [API_MESSAGES] = {"messages", "POST", "/v1/messages", NULL, MAKER_ANTHROPIC},
    [API_GENERATE] = {"generateContent", "POST", "/v1beta/models/", ":generateContent", MAKER_GOOGLE},
    [API_STREAM_GENERATE] = {"streamGenerateContent", "POST", "/v1beta/models/", ":streamGenerateContent", MAKER_GOOGLE},
    [API_BATCH_EMBED] = {"batchEmbedContents", "POST", "/v1beta/models/", ":batchEmbedContents", MAKER_GOOGLE},
    [API_RESPONSES] = {"responses", "POST", "/v1/responses", NULL, MAKER_OPENAI},
    [API_AZURE_CHAT] = {"azure.chat.completions", "POST", "/openai/deployments/", "/chat/completions", MAKER_AZURE, API_CHAT},
    [API_AZURE_COMPLETIONS] = {"azure.completions", "POST", "/openai/deployments/", "/completions", MAKER_AZURE, API_COMPLETIONS},
    [API_AZURE_EMBEDDINGS] = {"azure.embeddings", "POST", "/openai/deployments/", "/embeddings", MAKER_AZURE, API_EMBEDDINGS},
    [API_AZURE_RESPONSES] = {"azure.responses", "POST", "/openai/v1/responses", NULL, MAKER_AZURE, API_RESPONSES},
    [API_MODELS] = {"models", "GET", "/v1/models", NULL, MAKER_OPENAI},
};

const char *api_name(enum api api)
{
    return apis[api].name;
}

enum maker api_maker(enum api api)
{
    return (int)api < (int)API_COUNT ? apis[api].maker : MAKER_OPENAI;
}

bool api_embeds(enum api api)
{
    return api == API_EMBEDDINGS || api == API_BATCH_EMBED || api == API_AZURE_EMBEDDINGS;
}

static bool path_is(enum api api, const char *path)
{
    const size_t bytes = strlen(apis[api].path);
    const char *verb = apis[api].verb;
    if (verb == NULL) {
        return strcmp(apis[api].path, path) == 0;
    }
    const size_t name_bytes = strncmp(apis[api].path, path, bytes) == 0 ? strcspn(path + bytes, ":/") : 0;
    return name_bytes > 0 && strcmp(path + bytes + name_bytes, verb) == 0;
}

enum api api_from_path(const char *method, const char *path)
{
    for (size_t i = 0; i < API_COUNT; i++) {
        if (strcmp(apis[i].method, method) == 0 && path_is((enum api)i, path)) {
            return (enum api)i;
        }
    }
    return API_NONE;
}

static void note_mark(const json_t *part, struct model_request *request, FILE *out)
{
    const long at = ftell(out);
    if (json_object_get(part, "cache_control") != NULL && at >= 0 && request->marks_length < PROMPT_MARKS_MAX) {
        request->marks[request->marks_length++] = (size_t)at;
    }
}

/* Texts of a `content`: a string, or a list of parts of which those of type text count. */
static void write_content(const json_t *content, struct model_request *request, FILE *out)
{
    if (json_is_string(content)) {
        fprintf(out, "%s\n", json_string_value(content));
        return;
    }
    size_t i;
    const json_t *part;
    json_array_foreach(content, i, part)
    {
        const char *text = json_string_value(json_object_get(part, "text"));
        if (text != NULL) {
            fprintf(out, "%s\n", text);
        }
        note_mark(part, request, out);
    }
}

static int read_prompt(struct model_request *request, char *ret_error)
{
    size_t bytes = 0;
    FILE *out = open_memstream(&request->prompt, &bytes);
    if (out == NULL) {
        return -ENOMEM;
    }
    const json_t *document = request->document;
    bool is_complete = true;
    if (api_maker(request->api) == MAKER_GOOGLE) {
        is_complete = gemini_write_prompt(request, out, ret_error);
    } else if (request->api == API_RESPONSES) {
        is_complete = responses_write_prompt(request, out, ret_error);
    } else if (request->api == API_CHAT || request->api == API_MESSAGES) {
        const json_t *messages = json_object_get(document, "messages");
        is_complete = json_is_array(messages) && json_array_size(messages) > 0;
        write_content(json_object_get(document, "system"), request, out);
        size_t i;
        const json_t *message;
        json_array_foreach(messages, i, message)
        {
            write_content(json_object_get(message, "content"), request, out);
        }
        snprintf(ret_error, 200, "messages: expected a list with at least one message");
    } else if (request->api == API_COMPLETIONS) {
        const json_t *prompt = json_object_get(document, "prompt");
        is_complete = json_is_string(prompt);
        write_content(prompt, request, out);
        snprintf(ret_error, 200, "prompt: expected a string");
    } else {
        request->inputs = json_incref(json_object_get(document, "input"));
        is_complete = json_is_string(request->inputs) || (json_is_array(request->inputs) && json_array_size(request->inputs) > 0);
        if (json_is_string(request->inputs)) {
            write_content(request->inputs, request, out);
        }
        size_t i;
        const json_t *input;
        json_array_foreach(request->inputs, i, input)
        {
            is_complete = is_complete && json_is_string(input);
            write_content(input, request, out);
        }
        snprintf(ret_error, 200, "input: expected a string or a list of strings");
    }
    if (fclose(out) != 0) {
        return -ENOMEM;
    }
    return is_complete ? 0 : -EINVAL;
}

/* The model's name: in the body, Google's and that of a deployment in the path. False: there is none. */
static bool read_model(struct model_request *request, enum api api, const char *path)
{
    if (apis[api].verb != NULL) {
        const char *name = path + strlen(apis[api].path);
        request->path_model = strndup(name, strcspn(name, ":/"));
        request->model = request->path_model;
    } else {
        request->model = json_string_value(json_object_get(request->document, "model"));
    }
    return request->model != NULL && request->model[0] != '\0';
}

/* What OpenAI's and Anthropic's requests have in common. */
static int read_settings(struct model_request *request, char *ret_error)
{
    const json_t *document = request->document;
    json_int_t limit = json_integer_value(json_object_get(document, "max_completion_tokens"));
    if (limit <= 0) {
        limit = json_integer_value(json_object_get(document, "max_tokens"));
    }
    if (request->api == API_MESSAGES && limit <= 0) {
        snprintf(ret_error, 200, "max_tokens: field required");
        return -EINVAL;
    }
    request->max_tokens = limit > 0 && limit < 1 << 20 ? (uint32_t)limit : 0;
    json_int_t dimensions = json_integer_value(json_object_get(document, "dimensions"));
    if (dimensions > 0 && dimensions <= MODEL_EMBEDDING_DIMENSIONS_MAX) {
        request->dimensions = (size_t)dimensions;
    }
    request->stream = json_is_true(json_object_get(document, "stream"));
    request->include_usage = json_is_true(json_object_get(json_object_get(document, "stream_options"), "include_usage"));
    const char *format = json_string_value(json_object_get(document, "encoding_format"));
    request->base64 = format != NULL && strcmp(format, "base64") == 0;
    return 0;
}

int model_request_read(enum api api, const char *path, const char *body, size_t bytes,
                       struct model_request *ret_request, char *ret_error)
{
    json_error_t json_error;
    struct model_request request = {
        .api = api_maker(api) == MAKER_AZURE ? apis[api].like : api, .is_azure = api_maker(api) == MAKER_AZURE, .document = json_loadb(body, bytes, 0, &json_error), .dimensions = MODEL_EMBEDDING_DIMENSIONS};
    if (request.document == NULL || !json_is_object(request.document)) {
        snprintf(ret_error, 200, "the body is not a JSON object: %.120s", request.document == NULL ? json_error.text : "other type");
        model_request_finish(&request);
        return -EINVAL;
    }
    if (!read_model(&request, api, path)) {
        snprintf(ret_error, 200, "model: you must provide a model parameter");
        model_request_finish(&request);
        return -EINVAL;
    }
    int r = read_prompt(&request, ret_error);
    if (r == 0) {
        r = api_maker(api) == MAKER_GOOGLE     ? gemini_read_settings(&request, ret_error)
            : request.api == API_RESPONSES ? responses_read_settings(&request, ret_error)
                                           : read_settings(&request, ret_error);
    }
    if (r < 0) {
        model_request_finish(&request);
        return r;
    }
    request.input_tokens = model_count_tokens(request.prompt);
    *ret_request = request;
    return 0;
}

void model_request_finish(struct model_request *request)
{
    json_decref(request->document);
    json_decref(request->inputs);
    free(request->path_model);
    free(request->prompt);
    *request = (struct model_request){.api = API_NONE};
}

size_t reply_text_bytes(const struct reply *reply)
{
    return reply->answer->tokens == 0 ? 0 : reply->answer->token_ends[reply->answer->tokens - 1];
}

static void write_usage(const struct reply *reply, FILE *out)
{
    uint32_t input = reply->request->input_tokens, output = reply->answer->tokens;
    fprintf(out, "\"usage\":{\"prompt_tokens\":%" PRIu32 ",\"completion_tokens\":%" PRIu32 ",\"total_tokens\":%" PRIu32
            ",\"prompt_tokens_details\":{\"cached_tokens\":%" PRIu32 "},\"completion_tokens_details\":{\"reasoning_tokens\":0}}",
            input, output, input + output, reply->request->cached_tokens);
}

static const char *finish_reason(const struct reply *reply)
{
    if (reply->request->api == API_MESSAGES) {
        return reply->is_filtered ? "refusal" : reply->answer->is_cut ? "max_tokens" : "end_turn";
    }
    return reply->is_filtered ? "content_filter" : reply->answer->is_cut ? "length" : "stop";
}

/* Anthropic's counts exclude each other. */
static uint32_t uncached_tokens(const struct model_request *request)
{
    return request->input_tokens - request->cached_tokens - request->cache_write_tokens;
}

void reply_write_whole(const struct reply *reply, FILE *out)
{
    const char *model = reply->request->model, *text = reply->answer->text;
    const int bytes = (int)reply_text_bytes(reply);
    if (api_maker(reply->request->api) == MAKER_GOOGLE) {
        gemini_write_whole(reply, out);
        return;
    }
    if (reply->request->api == API_MESSAGES) {
        fprintf(out, "{\"id\":\"msg_%016" PRIx64 "\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"%s\",\"content\":"
                "[{\"type\":\"text\",\"text\":\"%.*s\"}],\"stop_reason\":\"%s\",\"stop_sequence\":null,\"usage\":{\"input_tokens\":%" PRIu32
                ",\"output_tokens\":%" PRIu32 ",\"cache_creation_input_tokens\":%" PRIu32 ",\"cache_read_input_tokens\":%" PRIu32 "}}",
                reply->id, model, bytes, text, finish_reason(reply), uncached_tokens(reply->request),
                reply->answer->tokens, reply->request->cache_write_tokens, reply->request->cached_tokens);
        return;
    }
    if (reply->request->api == API_RESPONSES) {
        responses_write_whole(reply, out);
        return;
    }
    if (reply->request->api == API_CHAT) {
        fprintf(out, "{\"id\":\"chatcmpl-%016" PRIx64 "\",\"object\":\"chat.completion\",\"created\":%lld,\"model\":\"%s\",\"choices\":"
                "[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%.*s\",\"refusal\":null},\"logprobs\":null,"
                "\"finish_reason\":\"%s\"",
                reply->id, created_unix_s, model, bytes, text, finish_reason(reply));
    } else {
        fprintf(out, "{\"id\":\"cmpl-%016" PRIx64 "\",\"object\":\"text_completion\",\"created\":%lld,\"model\":\"%s\",\"choices\":"
                "[{\"index\":0,\"text\":\"%.*s\",\"logprobs\":null,\"finish_reason\":\"%s\"",
                reply->id, created_unix_s, model, bytes, text, finish_reason(reply));
    }
    if (reply->request->is_azure) {
        azure_write_choice_filter(reply, out);
    }
    fprintf(out, "}],");
    write_usage(reply, out);
    if (reply->request->is_azure) {
        azure_write_prompt_filter(out);
    }
    fputc('}', out);
}

static void write_embedding(const struct model_request *request, uint64_t seed, const char *text, size_t index,
                            enum embedding_flaw flaw, FILE *out)
{
    float vector[MODEL_EMBEDDING_DIMENSIONS_MAX];
    const size_t dimensions = request->dimensions - (flaw == FLAW_DIMENSION ? 1 : 0);
    model_embed(seed, text, request->dimensions, vector);
    if (api_maker(request->api) == MAKER_GOOGLE) {
        fprintf(out, "{\"values\":");
    } else {
        fprintf(out, "{\"object\":\"embedding\",\"index\":%zu,\"embedding\":", index);
    }
    if (request->base64) {
        char encoded[sodium_base64_ENCODED_LEN(sizeof(vector), sodium_base64_VARIANT_ORIGINAL)];
        sodium_bin2base64(encoded, sizeof(encoded), (const unsigned char *)vector, dimensions * sizeof(float),
                          sodium_base64_VARIANT_ORIGINAL);
        fprintf(out, "\"%s\"}", encoded);
        return;
    }
    for (size_t i = 0; i < dimensions; i++) {
        const bool is_none = flaw == FLAW_NOT_A_NUMBER && i + 1 == dimensions;
        fputc(i == 0 ? '[' : ',', out);
        fprintf(out, is_none ? "NaN" : "%.7g", (double)vector[i]);
    }
    fprintf(out, "%s]}", dimensions == 0 ? "[" : "");
}

void reply_write_embeddings(const struct model_request *request, uint64_t seed, enum embedding_flaw flaw, FILE *out)
{
    const size_t inputs = json_is_array(request->inputs) ? json_array_size(request->inputs) : 1;
    const size_t length = inputs - (flaw == FLAW_DROPPED && inputs > 1 ? 1 : 0);
    const bool is_google = api_maker(request->api) == MAKER_GOOGLE;
    fprintf(out, is_google ? "{\"embeddings\":[" : "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < length; i++) {
        const size_t index = flaw == FLAW_SHUFFLED && !is_google ? length - 1 - i : flaw == FLAW_TWICE ? i / 2 * 2 : i;
        const json_t *input = json_is_array(request->inputs) ? json_array_get(request->inputs, index) : request->inputs;
        fputs(i > 0 ? "," : "", out);
        write_embedding(request, seed, json_string_value(input), index, i + 1 == length ? flaw : FLAW_NONE, out);
    }
    if (is_google) {
        fprintf(out, "],\"usageMetadata\":{\"promptTokenCount\":%" PRIu32 "}}", request->input_tokens);
        return;
    }
    fprintf(out, "],\"model\":\"%s\",\"usage\":{\"prompt_tokens\":%" PRIu32 ",\"total_tokens\":%" PRIu32 "}}", request->model,
            request->input_tokens, request->input_tokens);
}

void reply_write_models(const char *const *models, size_t length, FILE *out)
{
    fprintf(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < length; i++) {
        fprintf(out, "%s{\"id\":\"%s\",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"modelsim\"}", i > 0 ? "," : "", models[i],
                created_unix_s);
    }
    fprintf(out, "]}");
}

/* The head of an OpenAI chunk, up to its choices. */
static void write_chunk_head(const struct reply *reply, FILE *out)
{
    bool is_chat = reply->request->api == API_CHAT;
    fprintf(out, "data: {\"id\":\"%s-%016" PRIx64 "\",\"object\":\"%s\",\"created\":%lld,\"model\":\"%s\",\"choices\":",
            is_chat ? "chatcmpl" : "cmpl", reply->id, is_chat ? "chat.completion.chunk" : "text_completion", created_unix_s,
            reply->request->model);
}

void reply_stream_open(const struct reply *reply, FILE *out)
{
    if (reply->request->api == API_MESSAGES) {
        fprintf(out, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_%016" PRIx64
                "\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"%s\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,"
                "\"usage\":{\"input_tokens\":%" PRIu32 ",\"cache_creation_input_tokens\":%" PRIu32 ",\"cache_read_input_tokens\":%" PRIu32 ",\"output_tokens\":1}}}\n\n"
                "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":"
                "{\"type\":\"text\",\"text\":\"\"}}\n\n",
                reply->id, reply->request->model, uncached_tokens(reply->request), reply->request->cache_write_tokens,
                reply->request->cached_tokens);
    } else if (reply->request->api == API_RESPONSES) {
        responses_write_begin(reply, out);
    } else if (reply->request->api == API_CHAT) {
        if (reply->request->is_azure) {
            azure_write_begin(out);
        }
        write_chunk_head(reply, out);
        fprintf(out, "[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n");
    }
}

void reply_stream_tokens(const struct reply *reply, uint32_t from, uint32_t to, FILE *out)
{
    if (api_maker(reply->request->api) == MAKER_GOOGLE) {
        gemini_write_tokens(reply, from, to, out);
        return;
    }
    if (reply->request->api == API_RESPONSES) {
        responses_write_tokens(reply, from, to, out);
        return;
    }
    for (uint32_t i = from; i < to; i++) {
        uint32_t begin = i == 0 ? 0 : reply->answer->token_ends[i - 1];
        int bytes = (int)(reply->answer->token_ends[i] - begin);
        const char *text = reply->answer->text + begin;
        if (reply->request->api == API_MESSAGES) {
            fprintf(out, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":"
                    "{\"type\":\"text_delta\",\"text\":\"%.*s\"}}\n\n", bytes, text);
            continue;
        }
        write_chunk_head(reply, out);
        fprintf(out, reply->request->api == API_CHAT ? "[{\"index\":0,\"delta\":{\"content\":\"%.*s\"},\"finish_reason\":null}]"
                                                     : "[{\"index\":0,\"text\":\"%.*s\",\"finish_reason\":null}]",
                bytes, text);
        if (reply->sent_us > 0) {
            fprintf(out, ",\"sent_us\":%" PRId64, reply->sent_us);
        }
        fputs("}\n\n", out);
    }
}

void reply_stream_close(const struct reply *reply, FILE *out)
{
    if (api_maker(reply->request->api) == MAKER_GOOGLE) {
        gemini_write_end(reply, out);
        return;
    }
    if (reply->request->api == API_RESPONSES) {
        responses_write_end(reply, out);
        return;
    }
    if (reply->request->api == API_MESSAGES) {
        fprintf(out, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
                "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"%s\",\"stop_sequence\":null},"
                "\"usage\":{\"output_tokens\":%" PRIu32 "}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
                finish_reason(reply), reply->answer->tokens);
        return;
    }
    write_chunk_head(reply, out);
    fprintf(out, reply->request->api == API_CHAT ? "[{\"index\":0,\"delta\":{},\"finish_reason\":\"%s\""
                                                 : "[{\"index\":0,\"text\":\"\",\"finish_reason\":\"%s\"",
            finish_reason(reply));
    if (reply->request->is_azure) {
        azure_write_choice_filter(reply, out);
    }
    fprintf(out, "}]}\n\n");
    if (reply->request->include_usage) {
        write_chunk_head(reply, out);
        fprintf(out, "[],");
        write_usage(reply, out);
        fprintf(out, "}\n\n");
    }
    fprintf(out, "data: [DONE]\n\n");
}

static const char *error_type(enum api api, int status)
{
    bool is_messages = api == API_MESSAGES;
    switch (status) {
    case 400:
        return "invalid_request_error";
    case 401:
        return is_messages ? "authentication_error" : "invalid_api_key";
    case 404:
        return is_messages ? "not_found_error" : "model_not_found";
    case 429:
        return is_messages ? "rate_limit_error" : "rate_limit_exceeded";
    case 498:
        return "capacity_exceeded";
    case 529:
        return "overloaded_error";
    default:
        return is_messages ? "api_error" : "server_error";
    }
}

void reply_write_error(enum api api, int status, const char *text, int64_t retry_after_ms, FILE *out)
{
    char again[64] = "";
    if (retry_after_ms > 0 && api_maker(api) == MAKER_AZURE) {
        snprintf(again, sizeof(again), " Please retry after %" PRId64 " seconds.", (retry_after_ms + 999) / 1000);
    } else if (retry_after_ms > 0 && api_maker(api) != MAKER_GOOGLE) {
        snprintf(again, sizeof(again), " Please try again in %.3gs.", (double)retry_after_ms / 1000);
    }
    json_t *message = json_sprintf("%s%s", text, again);
    char *quoted = message != NULL ? json_dumps(message, JSON_ENCODE_ANY) : NULL;
    json_decref(message);
    const char *shown = quoted != NULL ? quoted : "\"out of memory\"";
    if (api_maker(api) == MAKER_GOOGLE) {
        gemini_write_error(status, shown, retry_after_ms, out);
    } else if (api_maker(api) == MAKER_AZURE) {
        azure_write_error(status, shown, out);
    } else if (api == API_MESSAGES) {
        fprintf(out, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":%s}}", error_type(api, status), shown);
    } else {
        fprintf(out, "{\"error\":{\"message\":%s,\"type\":\"%s\",\"param\":null,\"code\":\"%s\"}}", shown,
                status >= 500 ? "server_error" : "requests", error_type(api, status));
    }
    free(quoted);
}

int reply_refusal_status(enum api api)
{
    return api_maker(api) == MAKER_GOOGLE ? 200 : 400;
}

void reply_write_refusal(const struct model_request *request, FILE *out)
{
    if (api_maker(request->api) == MAKER_GOOGLE) {
        gemini_write_refusal(request, out);
        return;
    }
    fputs(request->api == API_MESSAGES
              ? "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\","
                "\"message\":\"Output blocked by content filtering policy\"}}"
              : "{\"error\":{\"message\":\"The response was filtered due to the prompt triggering the "
                "content management policy.\",\"type\":null,\"param\":\"prompt\","
                "\"code\":\"content_filter\",\"status\":400,"
                "\"innererror\":{\"code\":\"ResponsibleAIPolicyViolation\"}}}",
          out);
}

void reply_stream_error(enum api api, FILE *out)
{
    if (api_maker(api) == MAKER_GOOGLE) {
        fprintf(out, "data: ");
        gemini_write_error(503, "\"The model is overloaded. Please try again later.\"", 0, out);
        fprintf(out, "\n\n");
        return;
    }
    if (api == API_RESPONSES || api == API_AZURE_RESPONSES) {
        responses_write_failure(out);
        return;
    }
    fputs(api == API_MESSAGES
              ? "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\","
                "\"message\":\"Overloaded\"}}\n\n"
              : "data: {\"error\":{\"message\":\"The server had an error while processing your "
                "request.\",\"type\":\"server_error\",\"code\":null}}\n\n",
          out);
}
