/*
 * faults: what goes wrong, how often and when: the simulator's fault script.
 *
 * A script is JSON, given at start (--faults FILE) or while it runs (POST /control/faults), which replaces the old one:
 *
 *   {"faults": [
 *     {"kind": "status", "status": 429, "rate": 0.2, "from_ms": 0, "until_ms": 5000,
 *      "retry_after_ms": 1500, "retry_after": "header"},
 *     {"kind": "hang", "rate": 0.01, "hang_ms": 30000, "model": "sim-large"}]}
 *
 * The first fault whose window, model, text and dice agree happens. Times count from the moment the script is set.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/attributes.h"

enum fault_kind {
    FAULT_NONE,
    FAULT_STATUS,      /* an HTTP error in the provider's own shape; `status` */
    FAULT_RESET,       /* the connection is reset */
    FAULT_HANG,        /* nothing comes for hang_ms, then the connection closes */
    FAULT_TRUNCATED,   /* half of the promised body, then the connection closes; a stream ends in the middle */
    FAULT_GARBAGE,     /* 200 with a body that is no JSON */
    FAULT_EMPTY,       /* 200 with no body */
    FAULT_ERROR_IN_200, /* 200 whose body is an error */
    FAULT_SLOW,        /* everything takes `factor` times as long */
    FAULT_STALL,       /* a stream stops in the middle for hang_ms, then goes on */
    FAULT_REFUSED,     /* the content is refused, in the provider's own words */
    FAULT_ERROR_IN_STREAM, /* a stream ends in the middle with an error event; else as FAULT_ERROR_IN_200 */
    FAULT_DIMENSION,   /* embeddings: the last vector lacks a number */
    FAULT_NOT_A_NUMBER, /* embeddings: the last vector ends with NaN */
    FAULT_SHUFFLED,    /* embeddings: the vectors come in another order, each with its index */
    FAULT_FILTERED,    /* a filter cuts the answer in half, and the answer says so */
    /* Of requests that ask several things at once; others are answered as if there were no fault. */
    FAULT_COMBINE_DROP,    /* the last is not answered */
    FAULT_COMBINE_SWAP,    /* the first two are confused: answer, seal and words of each stand under the other's tag */
    FAULT_COMBINE_SWAP_ANSWERS, /* likewise, but the words are those that belong to the tag */
    FAULT_COMBINE_SWAP_TEXTS, /* likewise, and the seal too: nothing in the reply tells */
    FAULT_COMBINE_MERGE,   /* the second is answered within the first's answer, or two vectors have one index */
    FAULT_COMBINE_MERGE_TEXTS, /* likewise, without its seals */
    FAULT_COMBINE_GARBAGE, /* questions: some words instead of JSON */
    FAULT_COMBINE_TRUNCATE, /* questions: the last third of the reply is cut off */
    FAULT_KINDS,
};

/* How a rate limit says when to come back. */
enum fault_retry_after { RETRY_AFTER_NONE, RETRY_AFTER_HEADER, RETRY_AFTER_DATE, RETRY_AFTER_MS_HEADER, RETRY_AFTER_BODY };

struct fault {
    enum fault_kind kind;
    double rate;             /* share of requests, 0 to 1 (default 1) */
    int64_t from_ms, until_ms; /* window; until_ms defaults to for ever */
    char model[64];          /* empty: every model */
    char text[64];           /* empty: every request; else only those with it in their text */
    int status;              /* FAULT_STATUS: 400 to 599 */
    enum fault_retry_after retry_after;
    int64_t retry_after_ms;
    int64_t hang_ms;         /* default 600 s */
    double factor;           /* default 10 */
};

enum { FAULTS_MAX = 64 };
struct faults {
    struct fault items[FAULTS_MAX];
    size_t length;
    int64_t set_at_ms;
    uint64_t random;         /* state of the dice */
    uint64_t happened[FAULT_KINDS];
};

const char *fault_kind_name(enum fault_kind kind);

enum { FAULTS_ERROR_BYTES = 640 };
/*
 * Reads a script; the old one stays on error.
 * Errors: -EINVAL (ret_error, of FAULTS_ERROR_BYTES, names the fault, the field and the remedy).
 */
MUST_USE int faults_read(struct faults *faults, const json_t *script, int64_t now_ms, char *ret_error);
/* The fault that befalls this request; NULL: none. Counts it. */
const struct fault *faults_draw(struct faults *faults, const char *model, const char *text, int64_t now_ms);
json_t *faults_describe(const struct faults *faults); /* NULL: out of memory */
