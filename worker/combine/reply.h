/*
 * reply: the answer to a shared call, taken apart for those who shared it.
 *
 * Each gets an answer of the operation's own form, with its share of the usage, and of what else
 * the reply says only what holds for each; or a word that says why it has to be asked again, alone.
 * The shares add up to what the call used, whatever became of it.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "worker/account/account.h"
#include "worker/bytes.h"
#include "worker/combine/inputs.h"
#include "worker/combine/pack.h"
#include "worker/combine/share.h"
#include "worker/operation.h"

/* What is known of the call. Everything is borrowed. */
struct reply_call {
    bool are_questions; /* else inputs */
    const struct price *price;
    enum operation operation;
    size_t request_bytes;
    const struct bytes *body; /* the answer, in OpenAI's form */
    const json_t *answer;     /* the same, parsed; of inputs its usage alone is looked at */
};

/* What one of them had asked. */
struct reply_ask {
    struct inputs inputs;
    struct question question;
    size_t request_bytes; /* of its own request */
    bool is_present;      /* else it has left: its share goes to the others */
};

struct reply_part {
    const char *why;   /* static: it is not answered; NULL: it is */
    struct bytes body; /* its answer; owned by the caller */
    struct token_share share;
    uint64_t lone_nanousd; /* answered: what its own call would have cost, estimated; else unset */
};

/* Fills `length` parts, of SHARES_MAX at most. */
void reply_split(const struct reply_call *call, const struct reply_ask *asks, size_t length,
                 struct reply_part *ret_parts, struct token_counts *ret_total);
/* Likewise of a call that was cut off, and estimated: nobody has an answer, `body` and `answer` are
 * not looked at. */
void reply_share_cut(const struct reply_call *call, const struct reply_ask *asks, size_t length,
                     struct reply_part *ret_parts, struct token_counts *ret_total);
