/*
 * bytes: a growing run of bytes with a bound; what arrives piecemeal from a provider is gathered in
 * one.
 *
 * Embedded by its user; {.bytes_max = N} is an empty one. The first failure leaves what was
 * gathered untouched.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

struct bytes {
    char *data; /* NUL-terminated when not NULL; the NUL is not counted */
    size_t length;
    size_t capacity;
    size_t bytes_max; /* bound of length */
};

/* Errors: -EMSGSIZE above bytes_max; -ENOMEM. */
MUST_USE int bytes_append(struct bytes *bytes, const void *data, size_t length);
MUST_USE int bytes_append_text(struct bytes *bytes, const char *text);
void bytes_clear(struct bytes *bytes); /* keeps the memory */
void bytes_finish(struct bytes *bytes);
