/*
 * OpenAI's own form, which every compatible server speaks. Source:
 * platform.openai.com/docs/api-reference.
 */
#include "worker/provider/openai.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_read.h"
#include "worker/provider/body.h"
#include "worker/provider/responses.h"

int openai_write_path(const struct provider_request *request, struct bytes *out)
{
    static const char *const paths[] = {
        [OPERATION_CHAT] = "/chat/completions",
        [OPERATION_COMPLETIONS] = "/completions",
        [OPERATION_EMBEDDINGS] = "/embeddings",
        [OPERATION_RESPONSES] = "/responses",
    };
    return bytes_append_text(out, paths[request->operation]);
}

/* Its value, as JSON text; hexadecimal digits need no escape. */
static const char *cache_key(const struct provider_request *request, char *room, size_t bytes)
{
    const bool is_named = request->prefix_key != NULL && request->operation == OPERATION_CHAT;
    return is_named && snprintf(room, bytes, "\"%s\"", request->prefix_key) < (int)bytes ? room
                                                                                         : NULL;
}

int openai_write_body(const struct provider_request *request, struct bytes *out,
                      struct outcome *ret_outcome)
{
    json_t *name = json_string(request->model);
    char *model = name == NULL ? NULL : json_dumps(name, JSON_ENCODE_ANY);
    json_decref(name);
    if (model == NULL) {
        return -ENOMEM;
    }
    char room[64];
    const char *key = cache_key(request, room, sizeof(room));
    const bool is_response = request->operation == OPERATION_RESPONSES;
    /* Those at the end are passed over where they do not belong, so that the client's own stay. */
    const struct body_member members[] = {
        {"model", model},
        {"stream", request->stream ? "true" : NULL},
        /* Without it a streamed answer ends without its token counts. A response has them. */
        {"stream_options", request->stream ? "{\"include_usage\":true}" : NULL},
        {"prompt_cache_key", key},
    };
    const size_t length = ARRAY_LENGTH(members) - (key == NULL ? 1 : 0) - (is_response ? 1 : 0);
    int r = body_rewrite(request->body, request->body_bytes, members, length, out);
    free(model);
    if (r == -EINVAL) {
        outcome_set(ret_outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID, "invalid_body",
                    "the request's body is not a JSON object");
    }
    return r;
}

struct curl_slist *openai_add_headers(struct curl_slist *headers, const char *api_key)
{
    return protocol_add_key(headers, "Authorization", api_key);
}

/* The error that an event is. vLLM: the event's own members, with object "error". NULL: none. */
static const json_t *error_of(const json_t *event)
{
    const json_t *error = json_object_get(event, "error");
    const char *object = json_string_value(json_object_get(event, "object"));
    if (object != NULL && strcmp(object, "error") == 0) {
        return event;
    }
    return json_is_null(error) ? NULL : error;
}

int openai_read_event(struct protocol_stream *stream, const char *name, const char *data,
                      size_t bytes, json_t **ret_chunk, struct outcome *ret_outcome)
{
    if (stream->operation == OPERATION_RESPONSES) {
        return responses_read_verbatim(stream, name, data, bytes, ret_chunk, ret_outcome);
    }
    *ret_chunk = NULL;
    if (strcmp(data, "[DONE]") == 0) {
        stream->is_ended = true;
        return 0;
    }
    json_t *chunk = json_read(data, bytes, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(chunk)) {
        json_decref(chunk);
        return -EBADMSG;
    }
    const json_t *error = error_of(chunk);
    if (error != NULL) {
        outcome_from_error(error, ret_outcome);
        json_decref(chunk);
        return -ECONNABORTED;
    }
    *ret_chunk = chunk;
    return 0;
}

const struct protocol protocol_openai = {
    .write_path = openai_write_path,
    .write_body = openai_write_body,
    .add_headers = openai_add_headers,
    .read_event = openai_read_event,
};
