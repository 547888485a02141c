/*
 * gemini: Google's Generative Language API (v1beta), spoken for chat completions and embeddings.
 * Internal to protocol_gemini: requests are written by gemini.c, what is said in them by
 * gemini_contents.c; replies are read by gemini_reply.c.
 */
#pragma once
#include "worker/provider/protocol.h"

/* Sets systemInstruction and contents. Errors: -EINVAL (outcome); -ENOMEM. */
MUST_USE int gemini_set_contents(json_t *out, const json_t *body, struct outcome *outcome);

int gemini_read_answer(const json_t *reply, json_t **ret_answer);
int gemini_read_event(struct protocol_stream *stream, const char *name, const char *data,
                      size_t bytes, json_t **ret_chunk, struct outcome *ret_outcome);

/* -EINVAL, with `what` as what is not offered ("unsupported"), or as what is wrong ("rejected"). */
int gemini_refuse(struct outcome *outcome, const char *what);
int gemini_reject(struct outcome *outcome, const char *what);
/* Takes `item`, which may be NULL for a lack of memory. Errors: -ENOMEM. */
MUST_USE int gemini_append(json_t *list, json_t *item);
