/*
 * canonical: the one canonical form of a JSON request body, and the keys made from it.
 *
 * Canonical JSON follows RFC 8785 (JCS): members in the order of their UTF-16 names, no spaces, one
 * form for each text and number, so 1, 1.0 and 10e-1 are all `1`. Beyond it, texts (not the names of
 * members) are composed (Unicode NFC), so that "é" is one text however it was typed; and, since seeds
 * may be long, integers written as such keep all their digits. Members of the top level that do not change
 * an answer (stream, stream_options, user, metadata, store) are left out; so are those that say what
 * holds without them: null, temperature, top_p and n of 1, penalties of 0, logprobs false. The key is BLAKE2b-128
 * over tenant, operation, route, the canonical body and the cache's namespace, with a secret if there is one: equal keys ask for
 * the same answer, and may share it.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

enum { CANONICAL_KEY_BYTES = 16, CANONICAL_SECRET_BYTES = 32, CANONICAL_DEPTH_MAX = 64, CANONICAL_ERROR_BYTES = 160 };

/*
 * For who looks into the body as well. Errors: -EINVAL, as of canonical_json() but for the depth. Memory that is missing shows as
 * -EINVAL too.
 */
MUST_USE int canonical_parse(const void *body, size_t bytes, json_t **ret_root, char *ret_error);
/* An object, not changed. Gives: as canonical_json(). Errors: -EINVAL it is nested too deeply; -ENOMEM. */
MUST_USE int canonical_of(json_t *root, char **ret_text, size_t *ret_bytes, char *ret_error);

/*
 * Both at once.
 * Gives: *ret_text, NUL-terminated, to be released with free().
 * Errors: -EINVAL not JSON, no object at the top, duplicate members, not UTF-8, an integer past 64
 * bits, a number past the range of a double, or nested deeper than CANONICAL_DEPTH_MAX (ret_error,
 * at least CANONICAL_ERROR_BYTES, says where); -ENOMEM.
 */
MUST_USE int canonical_json(const void *body, size_t bytes, char **ret_text, size_t *ret_bytes,
                            char *ret_error);

/* With which keys are made that nobody can make who does not have it. */
struct canonical_secret {
    bool is_set;
    uint8_t bytes[CANONICAL_SECRET_BYTES];
};

/* Of any text; of the empty one: none. */
void canonical_secret_of(const char *text, struct canonical_secret *ret_secret);

/*
 * `secret` NULL, or not set: such keys are what they were before there were secrets. An empty namespace is none, likewise.
 */
void canonical_key(const struct canonical_secret *secret, const char *tenant, const char *cache_namespace, const char *operation,
                   const char *route, const char *canonical, size_t canonical_bytes,
                   uint8_t ret_key[CANONICAL_KEY_BYTES]);
/*
 * Makes of it the key of the same request whose data may go only to who has these labels (`labels_length` of them): it shares no
 * answer with who asks without them, with others, or in another order. Of no labels the key stays what it is. `secret` as above.
 */
void canonical_key_narrow(const struct canonical_secret *secret, char *const *labels, size_t labels_length,
                          uint8_t key[CANONICAL_KEY_BYTES]);
