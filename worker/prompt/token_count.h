/*
 * token_count: tokens of a text, by the model's vocabulary where there is one, else estimated.
 *
 * The estimate cuts a text as o200k_base does and adds up what a piece of its kind and length has
 * on average over cl100k_base and o200k_base; for other scripts than Latin, by the character. How
 * far it is off is measured by tests/bench/prompt.c and told in docs/prompts.md. O(bytes), no
 * memory.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct bpe;

/* A longer text is estimated, whatever there is: a count takes about 60 ns a byte. */
enum { TOKEN_COUNT_EXACT_BYTES_MAX = 128 << 10 };

/* `bpe` NULL: estimated. */
uint64_t token_count(const struct bpe *bpe, const char *text, size_t bytes);
uint64_t token_count_estimate(const char *text, size_t bytes);
