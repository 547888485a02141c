/*
 * prefix: what a request has in common with others of its kind: its tools and the system messages
 * that it begins with. A provider that keeps the work done for a prefix reads it again for a tenth
 * of the price, if it stands first, unchanged, and is sent where it was sent before.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include "common/attributes.h"

struct bpe;

enum {
    PREFIX_KEY_BYTES = 33,
    /* No provider keeps a shorter prefix. Source: OpenAI and Anthropic, "Prompt caching". */
    PREFIX_TOKENS_MIN = 1024,
};

/*
 * A name for the prefix of `body`, the same for all requests of the tenant that share it: 32
 * hexadecimal digits. False: the prefix is too short, or the request marks its own (its
 * prompt_cache_key, or a cache_control within its messages or tools).
 */
bool prefix_key(const json_t *body, const char *tenant, const struct bpe *bpe,
                char ret_key[PREFIX_KEY_BYTES]);

/*
 * Puts tools into the order of their names, so that those who list them differently share a prefix.
 * False: they are in order, or one has no name, or a number in them would be written differently.
 */
bool prefix_sort_tools(json_t *tools);
