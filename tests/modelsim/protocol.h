/*
 * protocol: the requests and replies of the simulated providers, as their API references give them.
 *
 * OpenAI:    POST /v1/chat/completions, /v1/completions, /v1/embeddings; GET /v1/models
 * Anthropic: POST /v1/messages
 * Streams are server-sent events: OpenAI's end with `data: [DONE]`, Anthropic's have named events.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "common/attributes.h"
#include "tests/modelsim/model.h"

enum api { API_CHAT, API_COMPLETIONS, API_EMBEDDINGS, API_MESSAGES, API_MODELS, API_NONE };
enum { API_COUNT = API_MODELS + 1 };

/* What is wrong with the vectors of a reply. */
enum embedding_flaw { FLAW_NONE, FLAW_DIMENSION, FLAW_NOT_A_NUMBER, FLAW_SHUFFLED };

struct model_request {
    enum api api;
    json_t *document;      /* owned; the strings below point into it */
    const char *model;
    char *prompt;          /* owned: all the text of the request, a line for each message */
    const json_t *inputs;  /* embeddings: a string or a list of strings */
    uint32_t max_tokens;   /* 0: none */
    uint32_t input_tokens;
    size_t dimensions;
    bool stream, include_usage, base64;
};

const char *api_name(enum api api);
enum api api_from_path(const char *method, const char *path);

/* Errors: -EINVAL (ret_error, at least 200 bytes, says what a provider would say); -ENOMEM. */
MUST_USE int model_request_read(enum api api, const char *body, size_t bytes, struct model_request *ret_request, char *ret_error);
void model_request_finish(struct model_request *request);

/* What a reply is made of. */
struct reply {
    const struct model_request *request;
    const struct model_answer *answer;
    uint64_t id;
};

/* All below write to `out`, a memory stream. */
void reply_write_whole(const struct reply *reply, FILE *out);
void reply_write_embeddings(const struct model_request *request, uint64_t seed, enum embedding_flaw flaw, FILE *out);
void reply_write_models(const char *const *models, size_t length, FILE *out);
/* A stream: opening, then tokens [from, to) as often as wished, then closing. */
void reply_stream_open(const struct reply *reply, FILE *out);
void reply_stream_tokens(const struct reply *reply, uint32_t from, uint32_t to, FILE *out);
void reply_stream_close(const struct reply *reply, FILE *out);
/* Content that is refused, with status 400: as Azure OpenAI (`content_filter`) or Anthropic says it. */
void reply_write_refusal(enum api api, FILE *out);
/* An error as the last event of a stream. */
void reply_stream_error(enum api api, FILE *out);
/* An error in the shape of the API. retry_after_ms > 0: the text names it ("try again in 1.5s"). */
void reply_write_error(enum api api, int status, const char *text, int64_t retry_after_ms, FILE *out);
