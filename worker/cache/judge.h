/*
 * judge: whether two answers say the same.
 *
 * Each judge errs; how much is configured with it, and added to what is promised (common/threshold.h):
 *   equal      the texts are the same, but for case, spaces and punctuation. Never takes different answers for the same;
 *              takes many that say the same for different.
 *   json       the texts are JSON with the same content: numbers by value, members in any order; else as `equal`
 *   embedding  the built-in embedder's cosine of the texts reaches a bound, and no guard speaks (likeness.h)
 *              (texts without a word, or of more than PROFILE_WORDS_MAX, as `equal`)
 *   model      a model is asked, by a job of its own: JUDGE_UNKNOWN here, unless the texts are equal, or the answers call tools
 *
 * Bodies are OpenAI-format answers; compared is what the first choice says, tool calls included, but for their ids. Pure.
 */
#pragma once
#include <jansson.h>
#include <stddef.h>

enum judge_kind { JUDGE_EQUAL, JUDGE_JSON, JUDGE_EMBEDDING, JUDGE_MODEL };
enum judge_verdict { JUDGE_UNKNOWN, JUDGE_SAME, JUDGE_DIFFERENT };

enum { JUDGE_TEXT_BYTES = 32 };
/* Who judges, in a word, for the class of what is learned: another bound, model or prompt is another judge. */
void judge_describe(enum judge_kind kind, double cosine_min, const char *model, const char *prompt, char ret_text[JUDGE_TEXT_BYTES]);

/* What the first choice of an answer says in words, borrowed; NULL: nothing. */
const char *judge_text_of(const json_t *answer);

/* UNKNOWN: one of them cannot be read, or neither says anything; or a model is to be asked. */
enum judge_verdict judge(enum judge_kind kind, double cosine_min, const void *body, size_t body_bytes, const void *other,
                         size_t other_bytes);
