/*
 * blob: immutable bytes with an owner count; how payloads move through a process without being
 * copied.
 *
 * A blob may own malloc'ed bytes or wrap a foreign buffer with a release function. The count is
 * atomic: a blob may be handed to another thread (the journal). The bytes never change.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

struct blob;
typedef void blob_release_fn(void *context);

/* Copies `bytes` bytes. Errors: -ENOMEM. */
MUST_USE int blob_create(const void *data, size_t bytes, struct blob **ret_blob);

/*
 * Wraps `data`; `release(context)` is called once, from whichever thread drops the last reference.
 * Takes: the buffer behind data, only on success. Errors: -ENOMEM.
 */
MUST_USE int blob_wrap(const void *data, size_t bytes, blob_release_fn *release, void *context,
                       struct blob **ret_blob);

/*
 * A blob whose bytes the caller writes, before it is shared. Gives: *ret_bytes, room for `bytes`
 * bytes, owned by the blob. Errors: -ENOMEM.
 */
MUST_USE int blob_create_unwritten(size_t bytes, uint8_t **ret_bytes, struct blob **ret_blob);

struct blob *blob_ref(struct blob *blob);
void blob_unref(struct blob **blob); /* accepts a NULL blob */

const void *blob_data(const struct blob *blob);
size_t blob_bytes(const struct blob *blob);
