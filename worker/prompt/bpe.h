/*
 * bpe: how many tokens a text has by a model's own vocabulary (byte-level byte pair encoding).
 *
 * Reads two kinds of file. A ranks file as tiktoken has it: a line "BASE64 RANK" for each token;
 * the pattern by which texts are cut is not in it, and follows from the number of tokens (up to
 * 100,000: GPT-2's; up to 150,000: cl100k_base's; above: o200k_base's). A tokenizer.json of
 * github.com/huggingface/tokenizers whose model is a byte-level BPE; what it asks for and is not
 * known here is refused, never passed over, but for the normaliser NFC, which changes no count that
 * matters. Special tokens in a text are counted as the text that they are.
 *
 * Immutable once read: may be used from any thread. Takes about 25 bytes a token.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/cache/refusal.h"
#include "worker/prompt/bpe_splitter.h"

struct bpe;

enum {
    BPE_FILE_BYTES_MAX = 64 << 20,
    BPE_TOKENS_MAX = 1 << 20,
    BPE_MERGES_MAX = 4 << 20,
    BPE_TOKEN_BYTES_MAX = 1024,
    /* Merging is quadratic: a longer piece (a word without an end) is merged in such parts. */
    BPE_PIECE_BYTES_MAX = 256,
};

/* Errors: -EINVAL (ret_error says why); -ENOMEM. */
MUST_USE int bpe_read(const char *data, size_t bytes, struct bpe **ret_bpe,
                      char ret_error[REFUSAL_BYTES]);
/* The same from a file. Blocks. Errors: also those of open() and read(), in words too. */
MUST_USE int bpe_read_file(const char *path, struct bpe **ret_bpe, char ret_error[REFUSAL_BYTES]);
void bpe_destroy(struct bpe **bpe);

uint32_t bpe_tokens(const struct bpe *bpe); /* of the vocabulary */
enum bpe_pattern bpe_pattern_of(const struct bpe *bpe);

/* Tokens of a text. Text that the vocabulary has no byte for counts a token for each byte. */
uint64_t bpe_count(const struct bpe *bpe, const char *text, size_t bytes);
