/*
 * text_embedder: texts as vectors, whoever makes them: in process or over HTTP, behind one face.
 *
 * Immediate ones (`class->embed`) compute on the caller's thread, which is the cache's; others
 * (`class->start`) ask somebody and answer later, on the loop. Vectors are `dim` floats of unit
 * length, so that a dot product is their cosine; all zeros stand for a text of which the embedder
 * knows nothing, and are never to be compared.
 *
 * `id` and `version` tell whose a vector is: vectors of two embedders, or of two versions of one,
 * are never compared; thresholds and coefficients belong to them as well. A new one is written as
 * an object whose first field is struct text_embedder, with a class of its own.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

struct config_embedder;
struct log;
struct loop;
struct text_embedder;
struct text_embedder_call;

enum {
    TEXT_EMBEDDER_ID_BYTES = 128,
    TEXT_EMBEDDER_NAME_BYTES = TEXT_EMBEDDER_ID_BYTES + 17, /* and "/", version */
    TEXT_EMBEDDER_DIM_MAX = 3072,         /* what vector_index takes */
    TEXT_EMBEDDER_TEXTS_MAX = 256,        /* of one call */
    TEXT_EMBEDDER_TEXT_BYTES_MAX = 32768, /* a longer text is no question asked twice */
    TEXT_EMBEDDER_ERROR_BYTES = 256,
};

struct text_view {
    const char *text; /* UTF-8, not terminated */
    size_t bytes;
};

/*
 * `result`: 0, and `vectors` holds one for each text, in their order; or the reason why there are
 * none: -ETIMEDOUT, -EHOSTDOWN (an embedder that fails is left alone for a while), -EBADMSG (an
 * answer that cannot be right), -EINVAL (it is well, and will never take this text), -EIO (any
 * other failure), -ENOMEM.
 */
typedef void text_embedder_fn(void *context, int result, const float *vectors);

struct text_embedder_stats {
    uint64_t texts;        /* asked for */
    uint64_t texts_cached; /* of them: answered from memory */
    uint64_t requests;     /* sent to somebody */
    uint64_t failures;     /* of them, by kind: */
    uint64_t failures_timeout;
    uint64_t failures_status;  /* an HTTP status other than 200 */
    uint64_t failures_invalid; /* no JSON, another dimension, numbers that are none */
    uint64_t refused;          /* texts that were not asked for, since the breaker was open */
    uint64_t dropped;          /* texts for which there was no room in the queue */
    uint64_t texts_waiting;
    uint64_t vectors; /* in memory */
    uint64_t vector_bytes;
    bool is_open; /* the breaker: exact answers only */
    char error[TEXT_EMBEDDER_ERROR_BYTES]; /* of the latest failure; empty: none yet */
};

struct text_embedder_class {
    /* One of these two is NULL. */
    int (*embed)(struct text_embedder *embedder, const struct text_view *texts, size_t length,
                 float *ret_vectors);
    int (*start)(struct text_embedder *embedder, const struct text_view *texts, size_t length,
                 text_embedder_fn *done, void *context, struct text_embedder_call **ret_call);
    void (*cancel)(struct text_embedder_call *call);
    void (*read_stats)(const struct text_embedder *embedder, struct text_embedder_stats *ret_stats);
    void (*destroy)(struct text_embedder *embedder);
};

struct text_embedder {
    const struct text_embedder_class *class;
    char id[TEXT_EMBEDDER_ID_BYTES]; /* "static:potion-base-8M" */
    uint64_t version;                /* of what makes the vectors: code, model, weights */
    uint32_t dim;
};

/*
 * The one that the configuration names. `static` reads its files here, which blocks (about 0.1 s
 * for 30 MB). `loop` and `log` must outlive it.
 * Errors: -ENOTSUP `builtin`, which has no dense vectors: the caller uses embed_builtin() and
 * lexical_index; -EINVAL the model's files (ret_error says what is wrong with them and what to do); -errno
 * of opening them (ret_error as well); -ENOMEM.
 */
MUST_USE int text_embedder_create(const struct config_embedder *config, struct loop *loop,
                                  struct log *log, struct text_embedder **ret_embedder,
                                  char ret_error[TEXT_EMBEDDER_ERROR_BYTES]);
/* Calls that still run are dropped without an answer. */
void text_embedder_destroy(struct text_embedder **embedder);

/* Id and version, as vectors are kept under: "static:potion-base-8M/0123456789abcdef". */
void text_embedder_name(const struct text_embedder *embedder, char ret_name[TEXT_EMBEDDER_NAME_BYTES]);

/* Whether text_embedder_embed() is to be used, on one thread at a time; else text_embedder_start()
 * on the loop's. */
bool text_embedder_is_immediate(const struct text_embedder *embedder);

/*
 * Writes length × dim floats. Only for immediate ones.
 * Errors: -E2BIG more than TEXT_EMBEDDER_TEXTS_MAX, or one longer than
 * TEXT_EMBEDDER_TEXT_BYTES_MAX; -ENOMEM.
 */
MUST_USE int text_embedder_embed(struct text_embedder *embedder, const struct text_view *texts,
                                 size_t length, float *ret_vectors);

/*
 * Copies what it needs of the texts. `done` is called once, from the loop, never from within; the
 * call is gone when it returns. Only for those that are not immediate.
 * Errors: -E2BIG as above; -EINVAL a text is no UTF-8; -EHOSTDOWN it failed a short time ago, and
 * is left alone; -EAGAIN too much waits already; -ENOMEM.
 */
MUST_USE int text_embedder_start(struct text_embedder *embedder, const struct text_view *texts,
                                 size_t length, text_embedder_fn *done, void *context,
                                 struct text_embedder_call **ret_call);
/* `done` will not be called. What was asked for it still comes, for those who ask next. */
void text_embedder_cancel(struct text_embedder_call **call);

void text_embedder_read_stats(const struct text_embedder *embedder,
                              struct text_embedder_stats *ret_stats);

/* ---- for those who make embedders ---- */

/* What every call begins with. */
struct text_embedder_call {
    struct text_embedder *embedder;
};
