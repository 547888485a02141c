/*
 * protocol: the requests and replies of the simulated providers, as their API references give them.
 *
 * OpenAI:    POST /v1/chat/completions, /v1/completions, /v1/embeddings; GET /v1/models
 *            POST /v1/responses
 * Azure:     POST /openai/deployments/MODEL/chat/completions, …/completions, …/embeddings; /openai/v1/responses; all with
 *            ?api-version=
 * Anthropic: POST /v1/messages
 * Google:    POST /v1beta/models/MODEL:generateContent, :streamGenerateContent?alt=sse, :batchEmbedContents
 * Streams are server-sent events: OpenAI's end with `data: [DONE]`, those of responses and Anthropic's have named events, Google's end with the event
 * that says why.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "common/attributes.h"
#include "tests/modelsim/model.h"

enum api {
    API_CHAT,
    API_COMPLETIONS,
    API_EMBEDDINGS,
    API_MESSAGES,
    API_GENERATE,
    API_STREAM_GENERATE,
    API_BATCH_EMBED,
    API_RESPONSES,
    API_AZURE_CHAT,
    API_AZURE_COMPLETIONS,
    API_AZURE_EMBEDDINGS,
    API_AZURE_RESPONSES,
    API_MODELS,
    API_NONE
};
enum { API_COUNT = API_MODELS + 1 };
enum { PROMPT_MARKS_MAX = 4 }; /* Anthropic's bound; further ones are not looked at */

/* Whose API it is. */
enum maker { MAKER_OPENAI, MAKER_ANTHROPIC, MAKER_GOOGLE, MAKER_AZURE };

/* What is wrong with the vectors of a reply. */
enum embedding_flaw { FLAW_NONE, FLAW_DIMENSION, FLAW_NOT_A_NUMBER, FLAW_SHUFFLED, FLAW_DROPPED, FLAW_TWICE }; /* shuffled, twice: only where each vector has an index; dropped: the last of several */

struct model_request {
    enum api api;          /* of Azure's: the one that they are like */
    bool is_azure;
    json_t *document;      /* owned; the strings below point into it */
    const char *model;
    char *path_model;      /* owned: the model, where the path names it */
    char *prompt;          /* owned: all the text of the request, a line for each message */
    json_t *inputs;        /* embeddings: a string or a list of strings; owned */
    const char *function;  /* has to be called; NULL: none */
    uint32_t max_tokens;   /* 0: none */
    uint32_t input_tokens;
    uint32_t cached_tokens; /* of them: told as read from a prompt cache */
    uint32_t cache_write_tokens; /* of them: told as put there; Anthropic's alone */
    size_t marks[PROMPT_MARKS_MAX]; /* where a cache_control ends in the prompt, in bytes; ascending */
    size_t marks_length;
    size_t dimensions;
    bool stream, include_usage, base64;
};

const char *api_name(enum api api);
enum maker api_maker(enum api api);
bool api_embeds(enum api api);
enum api api_from_path(const char *method, const char *path);

/* `path` names the model of Google's, and of Azure's deployments. Errors: -EINVAL (ret_error, at least 200 bytes, says what a provider would say); -ENOMEM. */
MUST_USE int model_request_read(enum api api, const char *path, const char *body, size_t bytes,
                                struct model_request *ret_request, char *ret_error);
void model_request_finish(struct model_request *request);

/* What a reply is made of. */
struct reply {
    const struct model_request *request;
    const struct model_answer *answer;
    uint64_t id;
    bool is_filtered; /* a filter has cut the answer, and says so */
    int64_t sent_us;    /* written into OpenAI's chunks with a token, as "sent_us"; 0: not */
};
size_t reply_text_bytes(const struct reply *reply);

/* All below write to `out`, a memory stream. */
void reply_write_whole(const struct reply *reply, FILE *out);
void reply_write_embeddings(const struct model_request *request, uint64_t seed, enum embedding_flaw flaw, FILE *out);
void reply_write_models(const char *const *models, size_t length, FILE *out);
/* A stream: opening, then tokens [from, to) as often as wished, then closing. */
void reply_stream_open(const struct reply *reply, FILE *out);
void reply_stream_tokens(const struct reply *reply, uint32_t from, uint32_t to, FILE *out);
void reply_stream_close(const struct reply *reply, FILE *out);
/*
 * Content that is refused. Status 400: as Azure OpenAI (`content_filter`) or Anthropic says it. Google blocks the prompt in a 200,
 * of a stream in its only event.
 */
int reply_refusal_status(enum api api);
void reply_write_refusal(const struct model_request *request, FILE *out);
/* An error as the last event of a stream. */
void reply_stream_error(enum api api, FILE *out);
/* An error in the shape of the API. retry_after_ms > 0: the text names it ("try again in 1.5s"), or Google's RetryInfo. */
void reply_write_error(enum api api, int status, const char *text, int64_t retry_after_ms, FILE *out);
