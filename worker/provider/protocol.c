#include "worker/provider/protocol.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

void protocol_stream_finish(struct protocol_stream *stream)
{
    json_decref(stream->head);
    json_decref(stream->usage);
    json_decref(stream->items);
    json_decref(stream->whole);
    *stream = (struct protocol_stream){0};
}

struct curl_slist *protocol_add_key(struct curl_slist *headers, const char *name,
                                    const char *api_key)
{
    char *line;
    if (api_key[0] == '\0') {
        return headers;
    }
    const char *scheme = strcasecmp(name, "Authorization") == 0 ? "Bearer " : "";
    if (asprintf(&line, "%s: %s%s", name, scheme, api_key) < 0) {
        return NULL;
    }
    struct curl_slist *longer = curl_slist_append(headers, line);
    free(line);
    return longer;
}

json_t *protocol_bound(const json_t *body)
{
    json_t *bound = json_object_get(body, "max_completion_tokens");
    bound = json_is_integer(bound) ? bound : json_object_get(body, "max_tokens");
    return json_is_integer(bound) ? bound : NULL;
}

int protocol_set_tools(json_t *out, const json_t *body, protocol_tool_fn *translate)
{
    const json_t *tools = json_object_get(body, "tools");
    if (json_array_size(tools) == 0) {
        return 0;
    }
    json_t *list = json_array();
    size_t i;
    json_t *tool;
    json_array_foreach (tools, i, tool) {
        if (json_array_append_new(list, translate(tool)) < 0) {
            json_decref(list);
            return -ENOMEM;
        }
    }
    return json_object_set_new(out, "tools", list) < 0 ? -ENOMEM : 0;
}

json_int_t protocol_count(const json_t *usage, const char *name)
{
    const json_int_t count = json_integer_value(json_object_get(usage, name));
    return count > 0 ? count : 0;
}

json_t *protocol_chunk(const struct protocol_stream *stream, json_t *delta, const char *reason)
{
    json_t *chunk = stream->head == NULL ? json_object() : json_copy(stream->head);
    json_t *choice =
        json_pack("{s:i, s:o, s:s?}", "index", 0, "delta", delta, "finish_reason", reason);
    if (json_object_set_new(chunk, "choices", json_pack("[o]", choice)) < 0) {
        json_decref(chunk);
        return NULL;
    }
    return chunk;
}
