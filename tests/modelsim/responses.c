#include "tests/modelsim/responses.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Events are numbered: four begin a stream, one tells each token, and the rest end it. */
enum { EVENTS_BEFORE = 4 };
static const long long created_unix_s = 1767225600;

static void write_texts(const json_t *content, FILE *out)
{
    size_t i;
    const json_t *part;
    if (json_is_string(content)) {
        fprintf(out, "%s\n", json_string_value(content));
    }
    json_array_foreach(content, i, part)
    {
        const char *text = json_string_value(json_object_get(part, "text"));
        if (text != NULL) {
            fprintf(out, "%s\n", text);
        }
    }
}

bool responses_write_prompt(const struct model_request *request, FILE *out, char *ret_error)
{
    const json_t *input = json_object_get(request->document, "input");
    size_t i;
    const json_t *item;
    write_texts(json_object_get(request->document, "instructions"), out);
    if (json_is_string(input)) {
        write_texts(input, out);
    }
    json_array_foreach(input, i, item)
    {
        write_texts(json_object_get(item, "content"), out);
        write_texts(json_object_get(item, "output"), out);
    }
    snprintf(ret_error, 200, "Missing required parameter: 'input'.");
    return json_is_string(input) || json_array_size(input) > 0;
}

int responses_read_settings(struct model_request *request, char *ret_error)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    const json_int_t limit = json_integer_value(json_object_get(request->document, "max_output_tokens"));
    request->max_tokens = limit > 0 && limit < 1 << 20 ? (uint32_t)limit : 0;
    request->stream = json_is_true(json_object_get(request->document, "stream"));
    request->function = json_string_value(json_object_get(json_object_get(request->document, "tool_choice"), "name"));
    if (json_object_get(request->document, "messages") != NULL) {
        snprintf(ret_error, 200, "Unsupported parameter: 'messages'. In the Responses API, this parameter has moved to 'input'.");
        return -EINVAL;
    }
    if (request->function != NULL && request->function[strspn(request->function, letters)] != '\0') {
        snprintf(ret_error, 200, "Invalid 'tool_choice.name': string does not match pattern.");
        return -EINVAL;
    }
    return 0;
}

/* ---- replies ---- */

static const char *status_of(const struct reply *reply)
{
    return reply->is_filtered || reply->answer->is_cut ? "incomplete" : "completed";
}

/* The only item; of a stream's begin it is empty. */
static void write_item(const struct reply *reply, const char *status, int text_bytes, FILE *out)
{
    if (reply->request->function != NULL) {
        fprintf(out, "{\"id\":\"fc_%016" PRIx64 "\",\"type\":\"function_call\",\"status\":\"%s\",\"call_id\":\"call_%016" PRIx64
                "\",\"name\":\"%s\",\"arguments\":\"", reply->id, status, reply->id, reply->request->function);
        if (text_bytes > 0) {
            fprintf(out, "{\\\"text\\\":\\\"%.*s\\\"}", text_bytes, reply->answer->text);
        }
        fprintf(out, "\"}");
        return;
    }
    fprintf(out, "{\"id\":\"msg_%016" PRIx64 "\",\"type\":\"message\",\"status\":\"%s\",\"role\":\"assistant\",\"content\":[", reply->id, status);
    if (text_bytes > 0) {
        fprintf(out, "{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[],\"text\":\"%.*s\"}", text_bytes, reply->answer->text);
    }
    fprintf(out, "]}");
}

static void write_response(const struct reply *reply, const char *status, FILE *out)
{
    const bool is_begun = strcmp(status, "in_progress") == 0;
    const uint32_t input = reply->request->input_tokens, output = reply->answer->tokens;
    fprintf(out, "{\"id\":\"resp_%016" PRIx64 "\",\"object\":\"response\",\"created_at\":%lld,\"status\":\"%s\",\"error\":null,\"model\":\"%s\",",
            reply->id, created_unix_s, status, reply->request->model);
    if (strcmp(status, "incomplete") == 0) {
        fprintf(out, "\"incomplete_details\":{\"reason\":\"%s\"},", reply->is_filtered ? "content_filter" : "max_output_tokens");
    } else {
        fprintf(out, "\"incomplete_details\":null,");
    }
    fprintf(out, "\"output\":[");
    if (!is_begun) {
        write_item(reply, status, (int)reply_text_bytes(reply), out);
    }
    fprintf(out, "],\"parallel_tool_calls\":true,\"previous_response_id\":null,\"store\":true,\"usage\":");
    if (is_begun) {
        fprintf(out, "null}");
        return;
    }
    fprintf(out, "{\"input_tokens\":%" PRIu32 ",\"input_tokens_details\":{\"cached_tokens\":%" PRIu32 "},\"output_tokens\":%" PRIu32
            ",\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":%" PRIu32 "}}", input, reply->request->cached_tokens, output, input + output);
}

void responses_write_whole(const struct reply *reply, FILE *out)
{
    write_response(reply, status_of(reply), out);
}

static void begin_event(const char *type, uint32_t number, FILE *out)
{
    fprintf(out, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%" PRIu32, type, type, number);
}

static void write_state(const struct reply *reply, const char *type, uint32_t number, const char *status, FILE *out)
{
    begin_event(type, number, out);
    fprintf(out, ",\"response\":");
    write_response(reply, status, out);
    fprintf(out, "}\n\n");
}

static void write_arguments(const struct reply *reply, uint32_t number, const char *text, int bytes, FILE *out)
{
    begin_event("response.function_call_arguments.delta", number, out);
    fprintf(out, ",\"item_id\":\"fc_%016" PRIx64 "\",\"output_index\":0,\"delta\":\"%.*s\"}\n\n", reply->id, bytes, text);
}

void responses_write_begin(const struct reply *reply, FILE *out)
{
    static const char opening[] = "{\\\"text\\\":\\\"";
    write_state(reply, "response.created", 0, "in_progress", out);
    write_state(reply, "response.in_progress", 1, "in_progress", out);
    begin_event("response.output_item.added", 2, out);
    fprintf(out, ",\"output_index\":0,\"item\":");
    write_item(reply, "in_progress", 0, out);
    fprintf(out, "}\n\n");
    if (reply->request->function != NULL) {
        write_arguments(reply, 3, opening, (int)sizeof(opening) - 1, out);
        return;
    }
    begin_event("response.content_part.added", 3, out);
    fprintf(out, ",\"item_id\":\"msg_%016" PRIx64 "\",\"output_index\":0,\"content_index\":0,\"part\":{\"type\":\"output_text\","
            "\"annotations\":[],\"text\":\"\"}}\n\n", reply->id);
}

void responses_write_tokens(const struct reply *reply, uint32_t from, uint32_t to, FILE *out)
{
    for (uint32_t i = from; i < to; i++) {
        const uint32_t begin = i == 0 ? 0 : reply->answer->token_ends[i - 1];
        const int bytes = (int)(reply->answer->token_ends[i] - begin);
        if (reply->request->function != NULL) {
            write_arguments(reply, EVENTS_BEFORE + i, reply->answer->text + begin, bytes, out);
            continue;
        }
        begin_event("response.output_text.delta", EVENTS_BEFORE + i, out);
        fprintf(out, ",\"item_id\":\"msg_%016" PRIx64 "\",\"output_index\":0,\"content_index\":0,\"delta\":\"%.*s\",\"logprobs\":[]}\n\n",
                reply->id, bytes, reply->answer->text + begin);
    }
}

void responses_write_end(const struct reply *reply, FILE *out)
{
    static const char closing[] = "\\\"}";
    const char *status = status_of(reply);
    const uint32_t number = EVENTS_BEFORE + reply->answer->tokens;
    if (reply->request->function != NULL) {
        write_arguments(reply, number, closing, (int)sizeof(closing) - 1, out);
    }
    begin_event("response.output_item.done", number + 1, out);
    fprintf(out, ",\"output_index\":0,\"item\":");
    write_item(reply, status, (int)reply_text_bytes(reply), out);
    fprintf(out, "}\n\n");
    write_state(reply, strcmp(status, "completed") == 0 ? "response.completed" : "response.incomplete", number + 2, status, out);
}

void responses_write_failure(FILE *out)
{
    static const char words[] = "\"code\":\"server_error\",\"message\":\"The server had an error while processing your request.\"";
    fprintf(out, "event: error\ndata: {\"type\":\"error\",%s,\"param\":null}\n\n"
            "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"object\":\"response\",\"status\":\"failed\","
            "\"error\":{%s},\"output\":[]}}\n\n", words, words);
}
