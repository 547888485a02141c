/*
 * prefixes: the beginnings of prompts that the simulated provider keeps, and reads again for less.
 *
 * OpenAI: every prompt of 1024 tokens or more is kept, in steps of 128 tokens, by its model, API
 * key, prompt_cache_key and tools; nobody has to ask for it. Anthropic: what stands before a
 * cache_control is kept, from 1024 tokens on; nothing else is. What is kept can be read from the
 * moment in which its first answer began, until it was not read for so long. Source: OpenAI and
 * Anthropic, "Prompt caching". Simplified: a provider is one machine; it keeps PREFIXES_MAX at
 * most, of which one may push out another; at Anthropic only marked ends are compared, and all are
 * kept for the same time. Not simulated for Google.
 */
#pragma once
#include <stdint.h>
#include "common/attributes.h"
#include "tests/modelsim/protocol.h"

enum { PREFIXES_MAX = 1 << 18, PREFIX_TOKENS_MIN = 1024, PREFIX_TOKENS_STEP = 128 };

struct prefixes;

/* `keep_us`: how long what is not read is kept. Errors: -ENOMEM. */
MUST_USE int prefixes_create(int64_t keep_us, struct prefixes **ret_prefixes);
void prefixes_destroy(struct prefixes **prefixes);
/*
 * Sets the request's cached_tokens and cache_write_tokens (of which OpenAI tells none), and keeps
 * its prefixes from `answered_us`, when its answer begins. `key`: who pays; NULL: nobody is named.
 */
void prefixes_read(struct prefixes *prefixes, const char *key, int64_t now_us, int64_t answered_us,
                   struct model_request *request);
