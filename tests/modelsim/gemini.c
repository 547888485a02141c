#include "tests/modelsim/gemini.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static void write_parts(const json_t *content, FILE *out)
{
    size_t i;
    const json_t *part;
    json_array_foreach(json_object_get(content, "parts"), i, part)
    {
        const char *text = json_string_value(json_object_get(part, "text"));
        if (text != NULL) {
            fprintf(out, "%s\n", text);
        }
    }
}

/* Every content is a list of parts; an embedding's request has one content. */
bool gemini_write_prompt(const struct model_request *request, FILE *out, char *ret_error)
{
    const bool embeds = api_embeds(request->api);
    const json_t *list = json_object_get(request->document, embeds ? "requests" : "contents");
    bool is_complete = json_array_size(list) > 0;
    write_parts(json_object_get(request->document, "systemInstruction"), out);
    size_t i;
    const json_t *item;
    json_array_foreach(list, i, item)
    {
        const json_t *content = embeds ? json_object_get(item, "content") : item;
        is_complete = is_complete && json_array_size(json_object_get(content, "parts")) > 0;
        write_parts(content, out);
    }
    snprintf(ret_error, 200, "* %s: contents are not specified", embeds ? "BatchEmbedContentsRequest.requests" : "GenerateContentRequest.contents");
    return is_complete;
}

/* The texts to embed, and how long the vectors shall be. */
static int read_inputs(struct model_request *request, char *ret_error)
{
    request->inputs = json_array();
    size_t i;
    const json_t *item;
    json_array_foreach(json_object_get(request->document, "requests"), i, item)
    {
        const json_t *parts = json_object_get(json_object_get(item, "content"), "parts");
        json_t *text = json_object_get(json_array_get(parts, 0), "text");
        const char *model = json_string_value(json_object_get(item, "model"));
        if (model == NULL || strncmp(model, "models/", 7) != 0 || strcmp(model + 7, request->model) != 0) {
            snprintf(ret_error, 200, "* BatchEmbedContentsRequest.requests[%zu].model: must be that of the path", i);
            return -EINVAL;
        }
        if (!json_is_string(text)) {
            snprintf(ret_error, 200, "* BatchEmbedContentsRequest.requests[%zu].content: a text is required", i);
            return -EINVAL;
        }
        if (json_array_append(request->inputs, text) < 0) {
            return -ENOMEM;
        }
        const json_int_t dimensions = json_integer_value(json_object_get(item, "outputDimensionality"));
        if (dimensions > 0 && dimensions <= MODEL_EMBEDDING_DIMENSIONS_MAX) {
            request->dimensions = (size_t)dimensions;
        }
    }
    return request->inputs == NULL ? -ENOMEM : 0;
}

/* Mode ANY: one of the allowed functions has to be called, or of all: the first. NULL: none. */
static const char *function_to_call(const json_t *document)
{
    const json_t *config = json_object_get(json_object_get(document, "toolConfig"), "functionCallingConfig");
    const char *mode = json_string_value(json_object_get(config, "mode"));
    const json_t *tool = json_array_get(json_object_get(document, "tools"), 0);
    const json_t *declared = json_array_get(json_object_get(tool, "functionDeclarations"), 0);
    const char *allowed = json_string_value(json_array_get(json_object_get(config, "allowedFunctionNames"), 0));
    if (mode == NULL || strcmp(mode, "ANY") != 0) {
        return NULL;
    }
    return allowed != NULL ? allowed : json_string_value(json_object_get(declared, "name"));
}

int gemini_read_settings(struct model_request *request, char *ret_error)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.:";
    const json_t *config = json_object_get(request->document, "generationConfig");
    const json_int_t limit = json_integer_value(json_object_get(config, "maxOutputTokens"));
    request->max_tokens = limit > 0 && limit < 1 << 20 ? (uint32_t)limit : 0;
    request->stream = request->api == API_STREAM_GENERATE;
    request->function = function_to_call(request->document);
    if (request->function != NULL && request->function[strspn(request->function, letters)] != '\0') {
        snprintf(ret_error, 200, "* GenerateContentRequest.tools[0].function_declarations[0].name: Invalid function name");
        return -EINVAL;
    }
    return api_embeds(request->api) ? read_inputs(request, ret_error) : 0;
}

/* ---- replies ---- */

static void write_call(const struct reply *reply, FILE *out)
{
    fprintf(out, "{\"functionCall\":{\"name\":\"%s\",\"args\":{\"text\":\"%.*s\"}}}", reply->request->function,
            (int)reply_text_bytes(reply), reply->answer->text);
}

/* How it ended, up to the reply's end; counts are in the last event only, those of a real one grow. */
static void write_tail(const struct reply *reply, FILE *out)
{
    const uint32_t input = reply->request->input_tokens, output = reply->answer->tokens;
    fprintf(out, "\"finishReason\":\"%s\",\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":%" PRIu32
            ",\"candidatesTokenCount\":%" PRIu32 ",\"totalTokenCount\":%" PRIu32 ",\"promptTokensDetails\":[{\"modality\":\"TEXT\","
            "\"tokenCount\":%" PRIu32 "}]},\"modelVersion\":\"%s\",\"responseId\":\"%016" PRIx64 "\"}",
            reply->is_filtered ? "SAFETY" : reply->answer->is_cut ? "MAX_TOKENS" : "STOP", input, output, input + output, input,
            reply->request->model, reply->id);
}

void gemini_write_whole(const struct reply *reply, FILE *out)
{
    fprintf(out, "{\"candidates\":[{\"content\":{\"parts\":[");
    if (reply->request->function != NULL) {
        write_call(reply, out);
    } else {
        fprintf(out, "{\"text\":\"%.*s\"}", (int)reply_text_bytes(reply), reply->answer->text);
    }
    fprintf(out, "],\"role\":\"model\"},");
    write_tail(reply, out);
}

void gemini_write_tokens(const struct reply *reply, uint32_t from, uint32_t to, FILE *out)
{
    for (uint32_t i = from; i < to && reply->request->function == NULL; i++) {
        const uint32_t begin = i == 0 ? 0 : reply->answer->token_ends[i - 1];
        fprintf(out, "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"%.*s\"}],\"role\":\"model\"},\"index\":0}],"
                "\"usageMetadata\":{\"promptTokenCount\":%" PRIu32 ",\"totalTokenCount\":%" PRIu32 "},\"modelVersion\":\"%s\","
                "\"responseId\":\"%016" PRIx64 "\"}\n\n",
                (int)(reply->answer->token_ends[i] - begin), reply->answer->text + begin, reply->request->input_tokens,
                reply->request->input_tokens, reply->request->model, reply->id);
    }
}

void gemini_write_end(const struct reply *reply, FILE *out)
{
    fprintf(out, "data: {\"candidates\":[{\"content\":{\"parts\":[");
    if (reply->request->function != NULL) {
        write_call(reply, out);
    } else {
        fprintf(out, "{\"text\":\"\"}");
    }
    fprintf(out, "],\"role\":\"model\"},");
    write_tail(reply, out);
    fprintf(out, "\n\n");
}

void gemini_write_refusal(const struct model_request *request, FILE *out)
{
    fprintf(out, "%s{\"promptFeedback\":{\"blockReason\":\"SAFETY\",\"safetyRatings\":[{\"category\":"
            "\"HARM_CATEGORY_DANGEROUS_CONTENT\",\"probability\":\"HIGH\"}]},\"usageMetadata\":{\"promptTokenCount\":%" PRIu32
            ",\"totalTokenCount\":%" PRIu32 "},\"modelVersion\":\"%s\"}%s",
            request->stream ? "data: " : "", request->input_tokens, request->input_tokens, request->model,
            request->stream ? "\n\n" : "");
}

static const char *status_word(int status)
{
    static const struct {
        int status;
        const char *word;
    } words[] = {{400, "INVALID_ARGUMENT"}, {401, "UNAUTHENTICATED"},     {403, "PERMISSION_DENIED"}, {404, "NOT_FOUND"},
                 {409, "ABORTED"},          {429, "RESOURCE_EXHAUSTED"},  {499, "CANCELLED"},         {500, "INTERNAL"},
                 {501, "UNIMPLEMENTED"},    {503, "UNAVAILABLE"},         {504, "DEADLINE_EXCEEDED"}};
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
        if (words[i].status == status) {
            return words[i].word;
        }
    }
    return "UNKNOWN";
}

void gemini_write_error(int status, const char *quoted_text, int64_t retry_after_ms, FILE *out)
{
    fprintf(out, "{\"error\":{\"code\":%d,\"message\":%s,\"status\":\"%s\"", status, quoted_text, status_word(status));
    if (retry_after_ms > 0) {
        fprintf(out, ",\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":\"%.9gs\"}]",
                (double)retry_after_ms / 1000);
    }
    fprintf(out, "}}");
}
