/*
 * history: the oldest turns of a conversation left out, so that what is sent keeps to a budget.
 *
 * A turn is a message of the user and all that follows it up to the next one: the model's answers,
 * its tool calls and their results, so no pair of them is torn. Kept whatever the budget: all
 * system and developer messages, and the latest HISTORY_TURNS_KEPT turns. Turns go in groups of
 * HISTORY_TURNS_STEP where there are as many: what is sent then begins alike from one turn to the
 * next, and a provider's prompt cache still knows it.
 */
#pragma once
#include <jansson.h>
#include <stdint.h>
#include "common/attributes.h"

struct bpe;

enum { HISTORY_TURNS_KEPT = 2, HISTORY_TURNS_STEP = 4 };

/* Gives: *ret_saved, tokens that are left out. Errors: -ENOMEM; the messages are untouched. */
MUST_USE int history_trim(json_t *messages, uint64_t tokens_max, const struct bpe *bpe,
                          uint64_t *ret_saved);
