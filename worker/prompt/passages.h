/*
 * passages: of the passages that were retrieved for a question, those that share least with it left
 * out, so that the others keep to a budget.
 *
 * A passage is what stands between <document> and </document>, <passage> and </passage> or <source>
 * and </source>, the tags with whatever attributes, in a message of the user or the system. They do
 * not nest. Between fences is none, nor where tags are spoken of: behind a backtick, with hardly
 * anything between them, or opened once more before they are closed. The question is the last
 * message of the user without its passages. A passage's worth is the words that it shares with the
 * question, rare ones more (by how many of the passages have them). The best are kept, as many as
 * fit, byte for byte and in their order; in any case the best of a message that has nothing else,
 * and the best of all other messages. The others go with their tags. Done twice it changes nothing
 * more. Without a question, or with words in common nowhere, all are kept.
 */
#pragma once
#include <jansson.h>
#include <stdint.h>
#include "common/attributes.h"

struct bpe;

enum { PASSAGES_MAX = 1024 }; /* with more, all are kept */

/* Gives: *ret_saved, tokens that are left out. Errors: -ENOMEM; the messages may be changed. */
MUST_USE int passages_trim(json_t *messages, uint64_t tokens_max, const struct bpe *bpe,
                           uint64_t *ret_saved);
