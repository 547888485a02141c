/*
 * blob: immutable bytes with an owner count; how payloads move through a process without being
 * copied.
 *
 * A blob may own malloc'ed bytes or wrap a foreign buffer (a ZeroMQ message) with a release
 * function. The count is atomic: a blob may be handed to another thread (the journal). The bytes
 * never change.
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
 * An empty blob with `room_bytes` of its own memory for the owner of a foreign buffer, so that both
 * are one allocation. Fill the room (aligned for any type), then blob_point_at() the bytes, before
 * the blob is shared. `release(room)` is called once, as for blob_wrap(). Errors: -ENOMEM.
 */
MUST_USE int blob_create_with_room(size_t room_bytes, blob_release_fn *release, void **ret_room,
                                   struct blob **ret_blob);
void blob_point_at(struct blob *blob, const void *data, size_t bytes);
/* The room of a blob that was created with this release function, NULL for any other blob. */
void *blob_room(struct blob *blob, blob_release_fn *release);

struct blob *blob_ref(struct blob *blob);
void blob_unref(struct blob **blob); /* accepts a NULL blob */

const void *blob_data(const struct blob *blob);
size_t blob_bytes(const struct blob *blob);
