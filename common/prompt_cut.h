/*
 * prompt_cut: what an answer's prompt lacked, and what may be lacking from one.
 *
 * Where a tier allows it, history or retrieved passages beyond so many tokens are left out before a
 * prompt is sent (worker/prompt/optimise.h). That can change the answer, so the answer says it, as
 * long as it is kept or handed on, and is given to nobody whose own prompt would have been left
 * longer.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* Of an answer: 0: nothing was left out of it. Of a tier: 0: nothing may be. */
struct prompt_cut {
    uint64_t history_tokens, passages_tokens;
};

static inline bool prompt_cut_suits_one(uint64_t made_with, uint64_t allowed)
{
    return made_with == 0 || (allowed != 0 && allowed <= made_with);
}

/* An answer from a prompt that was cut so may be given to who allows that. */
static inline bool prompt_cut_suits(const struct prompt_cut *made_with,
                                    const struct prompt_cut *allowed)
{
    return prompt_cut_suits_one(made_with->history_tokens, allowed->history_tokens) &&
           prompt_cut_suits_one(made_with->passages_tokens, allowed->passages_tokens);
}
