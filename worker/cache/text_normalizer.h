/*
 * text_normalizer: the steps by which a tokenizer.json makes texts alike before it splits them.
 *
 * Known are BertNormalizer, Lowercase, StripAccents, NFC, NFD, NFKC, NFKD, Precompiled, Replace (of
 * a text; of the patterns `\s+`, `\s` and ` {2,}`), Strip, Prepend, and Sequences of them. Source:
 * the normalizers of github.com/huggingface/tokenizers. A file with another is refused: a vector of
 * a text that was made alike in another way is a wrong one.
 */
#pragma once
#include <jansson.h>
#include <stddef.h>
#include "common/attributes.h"
#include "worker/bytes.h"
#include "worker/cache/refusal.h"

struct text_normalizer;

enum { TEXT_NORMALIZER_STEPS_MAX = 128 };

/*
 * `value`: the "normalizer" of the file; null or NULL: none.
 * Errors: -EINVAL (ret_error says why); -ENOMEM.
 */
MUST_USE int text_normalizer_read(const json_t *value, struct text_normalizer **ret_normalizer,
                                  char ret_error[REFUSAL_BYTES]);
void text_normalizer_destroy(struct text_normalizer **normalizer);

/*
 * Into `out`, which is cleared first; `spare` is used on the way. Bytes that are no UTF-8 become
 * U+FFFD. Errors: -EMSGSIZE beyond the bound of one of the two; -ENOMEM.
 */
MUST_USE int text_normalizer_apply(const struct text_normalizer *normalizer, const char *text,
                                   size_t bytes, struct bytes *spare, struct bytes *out);
