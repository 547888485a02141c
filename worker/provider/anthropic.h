/*
 * anthropic: Anthropic's Messages API, spoken for chat completions. Internal to protocol_anthropic:
 * requests are written by anthropic.c, replies and streams read by anthropic_reply.c.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include "worker/provider/protocol.h"

/*
 * The tool that a model is made to call when JSON without a schema is asked for: its input is the
 * answer's text. A tool of a client may not have this name.
 */
#define ANTHROPIC_JSON_TOOL "tiermq_json_object"

/* As in struct protocol. */
int anthropic_read_answer(const json_t *reply, json_t **ret_answer);
int anthropic_read_event(struct protocol_stream *stream, const char *name, const char *data,
                         size_t bytes, json_t **ret_chunk, struct outcome *ret_outcome);
