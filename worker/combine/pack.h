/*
 * pack: several short questions in one prompt, and its answer taken apart again.
 *
 * The prompt is the system prompt that all have, as it was, and one message: the rules, then a line
 * of JSON for each question. Each has a tag, which names it, and a seal, which is to stand around
 * its answer; both are random, so that no text has them by chance and no question knows those of
 * another. The reply is one JSON object with an element for each question: the words that the
 * question begins and ends with, its tag, and its answer between two seals.
 *
 * An answer is taken only when every sign says that it is of its question (pack_verdict). Where a
 * question has got no answer at all, though the list is whole or a later one has got its own, none
 * is taken: it may be part of another's. docs/batching.md says what this cannot find out.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/bytes.h"

enum {
    PACK_QUESTIONS_MAX = 256,
    PACK_QUESTION_BYTES_MAX = 2048,
    PACK_SYSTEM_BYTES_MAX = 16384,
    PACK_TOKENS_MAX = 4096,      /* of the answer; older models write no more */
    PACK_TOKENS_A_QUESTION = 64, /* of an element, besides the answer in it */
    PACK_TAG_BYTES = 9,          /* 8 hexadecimal digits and NUL */
    PACK_SEAL_BYTES = 7,
};

struct question {
    const char *system;      /* NULL: there is no such message; borrowed from the request */
    const char *system_role; /* "system" or "developer"; borrowed */
    const char *text;        /* borrowed */
    size_t text_bytes;
    const char *bound;   /* the member that bounds the answer: static; NULL: none does */
    uint32_t tokens_max; /* its value; 0 */
    char tag[PACK_TAG_BYTES], seal[PACK_SEAL_BYTES];
};

/*
 * False: `root`, a chat's body, has something that would mean another thing for all than for one,
 * or that nobody here knows: then it is asked alone.
 */
bool pack_read(const json_t *root, struct question *ret_question);
/* Draws tags and seals, each different from all others. Errors: -errno of getrandom. */
MUST_USE int pack_mark(struct question *questions, size_t length);
/*
 * The request `body`, which is that of one of them, with the questions of all.
 * Errors: -EINVAL `body` is no object; -EMSGSIZE, -ENOMEM of `out`.
 */
MUST_USE int pack_write(const void *body, size_t bytes, const struct question *questions,
                        size_t length, struct bytes *out);

/* What became of one question. */
enum pack_verdict {
    PACK_GOOD,
    PACK_NOT_JSON,    /* the reply is none, or has no list of answers */
    PACK_MISSING,     /* it has none, so that none of the others is taken */
    PACK_CUT,         /* the list ended before it and all behind it, without its bracket */
    PACK_TWICE,       /* its tag is there more than once */
    PACK_MALFORMED,   /* a member is missing, or no text, or the answer comes before the words */
    PACK_WRONG_WORDS, /* the question's words are not this one's */
    PACK_WRONG_SEAL,  /* the seal around the answer is not its own */
    PACK_MERGED,      /* a mark of another question, or its own again, is in the answer */
    PACK_EMPTY,
};
const char *pack_verdict_name(enum pack_verdict verdict); /* for metrics: "wrong_seal" … */

struct pack_result {
    enum pack_verdict verdict;
    char *text; /* PACK_GOOD: the answer alone; released with free() */
    size_t text_bytes;
};

/*
 * `content`: what the model wrote. Whether it was cut shows in its list, which then has no end: a
 * provider may name a bound that was met behind it. Fills `length` results. Errors: -ENOMEM.
 */
MUST_USE int pack_split(const char *content, size_t bytes, const struct question *questions,
                        size_t length, struct pack_result *ret_results);
