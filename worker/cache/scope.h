/*
 * scope: what two requests must share so that the one's answer may serve the other, and the text in
 * which they may differ.
 *
 * The text is the last message, if it is a user's and of text alone without a NUL (chat), or the
 * prompt, if it is one such text (completions). Everything else (tenant, namespace, operation, route, model, system
 * prompt, tools, response format, sampling parameters, earlier turns) is the scope. Embeddings have
 * none: a vector of another text is never right.
 */
#pragma once
#include <jansson.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/operation.h"

enum { SCOPE_BYTES = 16 };

/*
 * `body` is changed for a moment and put back.
 * Gives: *ret_text, borrowed from body.
 * Errors: -ENOENT the request has no such text; -ENOMEM.
 */
MUST_USE int scope_of(const char *tenant, const char *cache_namespace, enum operation operation,
                      const char *route, json_t *body, uint8_t ret_scope[SCOPE_BYTES],
                      const char **ret_text);

/* temperature × 1000; 0 when none is named: who wants variety says so. */
uint32_t scope_temperature_permille(const json_t *body);
