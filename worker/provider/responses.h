/*
 * responses: OpenAI's Responses API, for those who pass it on as it is and for the protocol that
 * speaks it for chats (protocol_responses). Source:
 * platform.openai.com/docs/api-reference/responses and responses-streaming.
 */
#pragma once
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
