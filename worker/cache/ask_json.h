/* ask_json: members of what operators ask, and entries as they are told, in JSON. See
 * docs/cache.md, "Commands". */
#pragma once
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "proto/wire.pb-c.h"
#include "worker/cache/cache_store.h"

#define ASK_NANOUSD 1e-9

/* `ret_text`: two digits a byte, and the end. */
void ask_write_hex(const uint8_t *bytes, size_t length, char *ret_text);
/* Errors: -EINVAL it is NULL, or has not two digits a byte. */
MUST_USE int ask_read_hex(const char *text, size_t length, uint8_t *ret_bytes);
/* NULL: it is not there, or no text. */
const char *ask_text_at(const json_t *argument, const char *name);
/* `limit`, from a number, or from digits in a text, as queries have them. */
size_t ask_limit_of(const json_t *argument, size_t usual, size_t most);
/* Of one that is not there: 0. Errors: -EINVAL it is no number, negative, or above `most`. */
MUST_USE int ask_number_at(const json_t *object, const char *name, double most, double *ret_number);
MUST_USE int ask_count_at(const json_t *object, const char *name, double most, uint64_t *ret_count);
/* Says so. Returns -EINVAL. */
MUST_USE int ask_wrong(char *ret_error, const char *text);
/* What it asks for, under the names that POST /v1/cache/invalidate knows. NULL, or one without
 * fields: everything. */
json_t *ask_selector_object(const Wire__CacheSelector *selector);
/* All but the answer. */
json_t *ask_entry_object(const uint8_t *key, const Record__CacheAbout *about, int64_t now_unix_ms);
