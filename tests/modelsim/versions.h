/*
 * versions: of the data that answers are made from. An answer to a prompt with a listed text in it, in any case, begins with
 * "v" and its number, as it was when the call began: so a test sees from an answer alone how old it is.
 */
#pragma once
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

enum { VERSIONS_MAX = 256 };

struct version {
    char text[64];
    uint32_t number;
};

struct versions {
    struct version items[VERSIONS_MAX];
    size_t length;
};

/*
 * Reads {"versions": [{"text", "version"}]}; the old ones stay on error.
 * Errors: -EINVAL (ret_error, at least 200 bytes, says what is wrong).
 */
MUST_USE int versions_read(struct versions *versions, const json_t *script, char *ret_error);
/* Of the first text that the prompt has; NULL: none. */
const struct version *versions_find(const struct versions *versions, const char *prompt);
json_t *versions_describe(const struct versions *versions); /* NULL: out of memory */
