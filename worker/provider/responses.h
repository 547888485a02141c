/*
 * responses: OpenAI's Responses API, for those who pass it on as it is and for the protocol that
 * speaks it for chats (protocol_responses). Source:
 * platform.openai.com/docs/api-reference/responses and responses-streaming.
 */
#pragma once
#include <string.h>
#include "worker/provider/protocol.h"

/*
 * One event of a stream that is forwarded as it is: the event that completes the response leaves
 * its whole in stream->whole. The contract is that of protocol.read_event.
 */
int responses_read_verbatim(struct protocol_stream *stream, const char *name, const char *data,
                            size_t bytes, json_t **ret_event, struct outcome *ret_outcome);

/* A chat's body as a response's. The contract is that of protocol.write_body. */
int responses_write_body(const struct provider_request *request, struct bytes *out,
                         struct outcome *ret_outcome);

/* ---- for its two files ---- */

/* "" when there is no such text. */
static inline const char *responses_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

static inline bool responses_is(const json_t *object, const char *name, const char *wanted)
{
    return strcmp(responses_text(object, name), wanted) == 0;
}
