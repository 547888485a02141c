/* responses: what is special about the form of OpenAI's Responses API. Internal to protocol.c. */
#pragma once
#include "tests/modelsim/protocol.h"

/* The request's texts, a line for each. False: there are none (ret_error, at least 200 bytes). */
bool responses_write_prompt(const struct model_request *request, FILE *out, char *ret_error);
/* The function that tool_choice names has to be called. Errors: -EINVAL (ret_error). */
MUST_USE int responses_read_settings(struct model_request *request, char *ret_error);

void responses_write_whole(const struct reply *reply, FILE *out);
void responses_write_begin(const struct reply *reply, FILE *out);
void responses_write_tokens(const struct reply *reply, uint32_t from, uint32_t to, FILE *out);
void responses_write_end(const struct reply *reply, FILE *out);
/* Both events of a failure. */
void responses_write_failure(FILE *out);
