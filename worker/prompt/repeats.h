/*
 * repeats: what a request says twice, said once.
 *
 * Messages: a system message that is word for word the system message before it, and a message of
 * the user that is word for word the one after it (sent again without an answer in between).
 * Blocks: a paragraph of REPEAT_BYTES_MIN bytes or more that has stood before, in a message of the
 * system, or, for one of the user, in any of theirs. The first stays; in the place of a later one,
 * or of several in a row, comes a line that says so and how the first begins. A block with code or
 * data in it (worker/prompt/spans.h) is left alone; quotations and numbers in a repeated block
 * remain where it stands first.
 */
#pragma once
#include <jansson.h>
#include <stdint.h>
#include "common/attributes.h"

struct bpe;

enum { REPEAT_BYTES_MIN = 256, REPEAT_BLOCKS_MAX = 16384 };

/* Gives: *ret_saved, tokens that are left out. Errors: -ENOMEM; the messages may be changed. */
MUST_USE int repeats_drop(json_t *messages, const struct bpe *bpe, uint64_t *ret_saved);
