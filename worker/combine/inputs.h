/*
 * inputs: the inputs of several embeddings requests in one request, and its answer taken apart.
 *
 * OpenAI's form of /v1/embeddings: `input` is a text, an array of texts, the tokens of one text, or
 * an array of those; `data[].index` names the input that a vector is of. Vectors stay byte for byte
 * what the provider wrote.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/bytes.h"
#include "worker/combine/share.h"
#include "worker/provider/body.h"

enum {
    INPUTS_MAX = 96,               /* of one call: some providers take no more than 96 or 100 */
    INPUTS_REST_BYTES_MAX = 65536, /* of an answer besides its vectors: each request gets a copy */
};

/* The inputs of one request. */
struct inputs {
    struct body_slice text; /* as they stand in an array, without its brackets; borrowed */
    size_t length;
    bool are_tokens; /* else texts */
    uint64_t weight; /* estimated tokens */
};

/*
 * `body` is the JSON that `root` was read from. False: no inputs that can go with others': none, an
 * empty one, texts beside tokens, or more than INPUTS_MAX.
 */
bool inputs_read(const json_t *root, const void *body, size_t bytes, struct inputs *ret_inputs);
/*
 * The request `body`, with the inputs of all of them in their order.
 * Errors: -EINVAL `body` is no object; -EMSGSIZE, -ENOMEM of `out`.
 */
MUST_USE int inputs_write(const void *body, size_t bytes, const struct inputs *parts, size_t length,
                          struct bytes *out);

/*
 * An answer to such a request, taken apart. Opens: whether it has one vector for each of
 * `inputs_length` inputs, which is at most INPUTS_MAX, names each once, and has no more than
 * INPUTS_REST_BYTES_MAX besides. Borrows from `body`. Errors: -EBADMSG it has not.
 */
struct inputs_answer {
    struct body_slice body;
    struct body_slice vectors[INPUTS_MAX]; /* by index */
    size_t length;
};
MUST_USE int inputs_open(const void *body, size_t bytes, size_t inputs_length,
                         struct inputs_answer *ret_answer);
/*
 * The answer to one request: `length` vectors from `first`, numbered from 0, with this usage.
 * Errors: -EINVAL, -EMSGSIZE, -ENOMEM of `out`.
 */
MUST_USE int inputs_take(const struct inputs_answer *answer, size_t first, size_t length,
                         const struct token_share *share, struct bytes *out);
