/*
 * openai: the parts of OpenAI's form that other protocols share, since they say the same in another
 * place or with another head. The contracts are those of struct protocol.
 */
#pragma once
#include "worker/provider/protocol.h"

/* Errors: -EMSGSIZE, -ENOMEM. */
int openai_write_path(const struct provider_request *request, struct bytes *out);
int openai_write_body(const struct provider_request *request, struct bytes *out,
                      struct outcome *ret_outcome);
struct curl_slist *openai_add_headers(struct curl_slist *headers, const char *api_key);
int openai_read_event(struct protocol_stream *stream, const char *name, const char *data,
                      size_t bytes, json_t **ret_chunk, struct outcome *ret_outcome);
