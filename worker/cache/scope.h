/*
 * scope: what two requests must share so that the one's answer may serve the other, and the text in
 * which they may differ.
 *
 * The text is the last message, if it is a user's and of text alone without a NUL (chat), or the
 * prompt, if it is one such text (completions). Everything else (tenant, namespace, operation, route, model, system
 * prompt, tools, response format, sampling parameters, earlier turns) is the scope; so is the text's
 * script, if it is not Latin (script.h), and metadata.language, if it is named: no question is answered
 * by one in another writing, nor by one in what is said to be another language. Embeddings have
 * none: a vector of another text is never right.
 */
#pragma once
#include <jansson.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/canonical.h"
#include "worker/operation.h"

enum { SCOPE_BYTES = 16 };

/*
 * `secret` as in canonical_key(). `body` is changed for a moment and put back.
 * Gives: *ret_text, borrowed from body.
 * Errors: -ENOENT the request has no such text; -ENOMEM.
 */
MUST_USE int scope_of(const struct canonical_secret *secret, const char *tenant, const char *cache_namespace, enum operation operation,
                      const char *route, json_t *body, uint8_t ret_scope[SCOPE_BYTES],
                      const char **ret_text);

/*
 * temperature × 1000; 0 when none is named: a provider then samples at its default (1 at OpenAI), but who wants variety says so.
 * One of 1 that is named says so, though its key is that of the request without it.
 */
uint32_t scope_temperature_permille(const json_t *body);
