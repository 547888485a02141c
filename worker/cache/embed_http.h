/*
 * embed_http: vectors from an embeddings endpoint (OpenAI's POST /embeddings), asked for on the
 * loop.
 *
 * Texts wait up to `wait_ms` for others, so that one request asks for up to `batch_max`; a text
 * that is already asked for is not asked for twice. Vectors are kept by the text's hash (keyed, 128
 * bits), the least recently used go first. An answer is taken only if it has one vector for each
 * text, by index, of the right dimension, of finite numbers.
 *
 * When it fails, a breaker (embed_breaker.h) opens, and nothing is sent for a while. Meanwhile who
 * asks for what is not in memory is told so at once, and has exact answers only. A batch that is
 * refused as a whole (400, 413, 422) is asked for text by text, so that one text cannot spoil it
 * for the others; one that is refused alone is none to ask for again, and no failure, unless
 * EMBED_HTTP_REFUSALS_MAX in a row show that the server refuses whatever it is asked. Belongs to
 * the loop's thread.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/cache/text_embedder.h"

enum {
    EMBED_HTTP_BATCHES_MAX = 4,    /* requests at once */
    EMBED_HTTP_WAITING_MAX = 4096, /* texts that wait or are asked for */
    EMBED_HTTP_REFUSALS_MAX = 8,
};

struct embed_http_options {
    const char *base_url; /* up to and with the version */
    const char *model;
    const char *api_key; /* empty: none is sent */
    uint32_t dim;
    bool asks_for_dim; /* sends `dimensions`: for models that can shorten their vectors */
    uint32_t batch_max;
    int64_t wait_ms;
    int64_t timeout_ms; /* of a request */
    uint64_t vectors_max;
};

/* Options are copied. Errors: -ENOMEM. */
MUST_USE int embed_http_create(const struct embed_http_options *options, struct loop *loop,
                               struct log *log, struct text_embedder **ret_embedder);
