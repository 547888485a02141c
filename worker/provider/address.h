/*
 * address: the parts of an HTTP address that come from names: a model's stands in a path, and must
 * not lead out of it.
 */
#pragma once
#include "common/attributes.h"
#include "worker/bytes.h"

/*
 * Appends `text`, percent-encoded but for RFC 3986's unreserved characters. Errors: -EMSGSIZE,
 * -ENOMEM.
 */
MUST_USE int address_append_encoded(struct bytes *out, const char *text);
/* The same, but slashes stay. */
MUST_USE int address_append_segments(struct bytes *out, const char *text);

/* Appends `path`, in which each {model} stands for the model's name, encoded. Errors as above. */
MUST_USE int address_append_path(struct bytes *out, const char *path, const char *model);
