/*
 * bpe_splitter: a text in the pieces within which byte pairs are merged.
 *
 * The patterns of the vocabularies in use, each written out as code, since the C library's regular
 * expressions know no Unicode classes. Sources: `pat_str` of the encodings r50k_base (GPT-2),
 * cl100k_base and o200k_base in github.com/openai/tiktoken; QWEN is cl100k_base with single digits,
 * as in Qwen's tokenizer.json. No state, no memory.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/attributes.h"

enum bpe_pattern { BPE_GPT2, BPE_CL100K, BPE_O200K, BPE_QWEN };

/* The pattern as a tokenizer.json or an encoding writes it. False: not one of these. */
bool bpe_pattern_parse(const char *text, enum bpe_pattern *ret_pattern);

/*
 * Bytes of the first piece of `text`; 1 to `bytes`, which is not 0. A byte that is no UTF-8 counts
 * as a sign of its own.
 */
size_t bpe_splitter_next(enum bpe_pattern pattern, const char *text, size_t bytes);
