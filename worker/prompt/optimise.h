/*
 * optimise: a chat request with fewer tokens, and what each lever saved.
 *
 * In this order: history, passages, space, repeats; again until none finds more
 * (OPTIMISE_ROUNDS_MAX at most); then tools are put in order and the prefix gets its name. So what
 * one leaves out, the next does not look at, and a repeat refers to something that is still there.
 * Nothing is added but the notes of repeats; images stay, and tool calls and their results stay or
 * go together. Where no lever finds anything the body is the client's, byte for byte; else its
 * other members are. Done twice it changes nothing more. CPU alone: about 80 ns a byte, on the
 * caller's thread; a body above OPTIMISE_BYTES_MAX is left as it is.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/prompt_cut.h"
#include "worker/bytes.h"
#include "worker/prompt/prefix.h"

struct bpe;

enum { OPTIMISE_BYTES_MAX = 256 << 10, OPTIMISE_ROUNDS_MAX = 4 };

enum lever { LEVER_HISTORY, LEVER_PASSAGES, LEVER_SPACE, LEVER_REPEATS };
enum { LEVERS = LEVER_REPEATS + 1 };
const char *lever_name(enum lever lever); /* "history" … */

/* Which levers may act. All zero: none. */
struct optimise_rules {
    bool space, repeats, prefix;
    uint64_t history_tokens_max;  /* 0: all is kept */
    uint64_t passages_tokens_max; /* 0: all are kept */
};
bool optimise_rules_are_off(const struct optimise_rules *rules);

/* What was done. */
struct optimised {
    uint64_t saved_tokens[LEVERS];
    struct prompt_cut cut;             /* what the answer will have to say */
    bool is_changed;                   /* `out` is what to send; else the body as it came */
    char prefix_key[PREFIX_KEY_BYTES]; /* empty: none */
};

/* By all levers. */
uint64_t optimised_tokens(const struct optimised *optimised);

/*
 * `body`: a chat's. `bpe` NULL: tokens are estimated. `out` is cleared first.
 * Errors: -EINVAL it is no JSON object with messages; -EMSGSIZE it is too large; -ENOMEM. On error
 * the body is to be sent as it came.
 */
MUST_USE int optimise_chat(const struct optimise_rules *rules, const char *tenant,
                           const struct bpe *bpe, const void *body, size_t bytes, struct bytes *out,
                           struct optimised *ret_optimised);
