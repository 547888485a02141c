/*
 * charsmap: the replacements of characters that a SentencePiece model brings along, mostly NFKC
 * with exceptions ("Precompiled" in a tokenizer.json).
 *
 * 4 bytes: the trie's length in bytes (little endian); the trie, a double array of 32-bit units
 * (Darts-clone); then texts that end with NUL, into which the trie's values point. Source:
 * github.com/huggingface/spm_precompiled, github.com/google/sentencepiece (normalizer.cc).
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/bytes.h"
#include "worker/cache/refusal.h"

struct charsmap;

/* `base64` as the file has it. Errors: -EINVAL (ret_error); -ENOMEM. */
MUST_USE int charsmap_read(const char *base64, struct charsmap **ret_map,
                           char ret_error[REFUSAL_BYTES]);
void charsmap_destroy(struct charsmap **map);

/* `text` is UTF-8. Appends. Errors: -EMSGSIZE, -ENOMEM. */
MUST_USE int charsmap_apply(const struct charsmap *map, const char *text, size_t bytes,
                            struct bytes *out);
