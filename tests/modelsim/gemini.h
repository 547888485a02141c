/* gemini: what is special about Google's form of requests and replies. Internal to protocol.c. */
#pragma once
#include "tests/modelsim/protocol.h"

/* The request's texts, a line for each part. False: there are none (ret_error, at least 200 bytes). */
bool gemini_write_prompt(const struct model_request *request, FILE *out, char *ret_error);
/* Inputs, dimensions, bounds, and the function to be called. Errors: -EINVAL (ret_error); -ENOMEM. */
MUST_USE int gemini_read_settings(struct model_request *request, char *ret_error);

void gemini_write_whole(const struct reply *reply, FILE *out);
void gemini_write_tokens(const struct reply *reply, uint32_t from, uint32_t to, FILE *out);
/* The last event, which says how it ended. */
void gemini_write_end(const struct reply *reply, FILE *out);
void gemini_write_refusal(const struct model_request *request, FILE *out);
void gemini_write_error(int status, const char *quoted_text, int64_t retry_after_ms, FILE *out);
