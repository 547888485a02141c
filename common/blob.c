#include "common/blob.h"
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct blob {
    const void *data;
    size_t bytes;
    blob_release_fn *release; /* NULL: nothing beyond the blob itself is to be released */
    void *context;
    atomic_uint owners;
    uint8_t room[]; /* the bytes themselves, unless they are foreign */
};

static struct blob *blob_allocate(size_t room_bytes)
{
    if (room_bytes > SIZE_MAX - sizeof(struct blob)) {
        return NULL;
    }
    struct blob *blob = malloc(sizeof(*blob) + room_bytes);
    if (blob == NULL) {
        return NULL;
    }
    blob->data = blob->room;
    blob->bytes = room_bytes;
    blob->release = NULL;
    blob->context = NULL;
    atomic_init(&blob->owners, 1);
    return blob;
}

int blob_create_unwritten(size_t bytes, uint8_t **ret_bytes, struct blob **ret_blob)
{
    struct blob *blob = blob_allocate(bytes);
    if (blob == NULL) {
        return -ENOMEM;
    }
    *ret_bytes = blob->room;
    *ret_blob = blob;
    return 0;
}

int blob_create(const void *data, size_t bytes, struct blob **ret_blob)
{
    uint8_t *room;
    const int r = blob_create_unwritten(bytes, &room, ret_blob);
    if (r == 0 && bytes > 0) {
        memcpy(room, data, bytes);
    }
    return r;
}

int blob_wrap(const void *data, size_t bytes, blob_release_fn *release, void *context,
              struct blob **ret_blob)
{
    struct blob *blob = blob_allocate(0);
    if (blob == NULL) {
        return -ENOMEM;
    }
    blob->data = data;
    blob->bytes = bytes;
    blob->release = release;
    blob->context = context;
    *ret_blob = blob;
    return 0;
}

struct blob *blob_ref(struct blob *blob)
{
    const unsigned before = atomic_fetch_add_explicit(&blob->owners, 1, memory_order_relaxed);
    assert(before > 0);
    return blob;
}

void blob_unref(struct blob **blob)
{
    struct blob *dropped = TAKE(*blob);
    if (dropped == NULL) {
        return;
    }
    /* Release and acquire: whoever frees sees all that the other owners did with the bytes before.
     */
    if (atomic_fetch_sub_explicit(&dropped->owners, 1, memory_order_acq_rel) > 1) {
        return;
    }
    if (dropped->release != NULL) {
        dropped->release(dropped->context);
    }
    free(dropped);
}

const void *blob_data(const struct blob *blob)
{
    return blob->data;
}

size_t blob_bytes(const struct blob *blob)
{
    return blob->bytes;
}
