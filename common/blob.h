/*
 * blob: immutable bytes with an owner count; how payloads move through a process without being copied.
 *
 * A blob may own malloc'ed bytes or wrap a foreign buffer (a ZeroMQ message) with a release function.
 * The count is atomic: a blob may be handed to another thread (the journal). The bytes never change.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

struct blob;

/* Copies `bytes` bytes. Errors: -ENOMEM. */
MUST_USE int blob_create(const void *data, size_t bytes, struct blob **ret_blob);

/*
 * Wraps `data`; `release(context)` is called once, from whichever thread drops the last reference.
 * Takes: the buffer behind data, only on success. Errors: -ENOMEM.
 */
MUST_USE int blob_wrap(const void *data, size_t bytes, void (*release)(void *context),
                       void *context, struct blob **ret_blob);

struct blob *blob_ref(struct blob *blob);
void blob_unref(struct blob **blob);

const void *blob_data(const struct blob *blob);
size_t blob_bytes(const struct blob *blob);
