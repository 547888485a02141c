/*
 * link_queue: messages on their way out of a link, as they go over the wire.
 *
 * A parcel is one message: the headers of its frames and its small parts lie together in the
 * parcel's own memory, large parts stay in their blobs. A parcel may be in several queues (PUB). A
 * queue is bounded, is emptied from the front in whatever pieces the kernel takes, and can give up
 * the rest of a message that has gone in part. Pure memory, no I/O.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "common/attributes.h"
#include "common/blob.h"

enum {
    /* Larger parts are referred to: below, copying costs less than a segment of its own. */
    LINK_COPY_BYTES_MAX = 2048,
};

struct link_parcel;

/* `head` and small payloads are copied, large ones referenced. Errors: -ENOMEM. */
MUST_USE int link_parcel_create(const void *head, size_t head_bytes, struct blob *const *payloads,
                                size_t payloads_length, struct link_parcel **ret_parcel);
void link_parcel_unref(struct link_parcel **parcel);        /* accepts a NULL parcel */
size_t link_parcel_bytes(const struct link_parcel *parcel); /* as it goes over the wire */

struct link_queue {
    struct link_parcel **items; /* a ring */
    size_t capacity;            /* a power of two, or 0 */
    size_t first, length;
    size_t length_max;
    size_t sent_bytes; /* of the first parcel */
};

void link_queue_init(struct link_queue *queue, size_t length_max);
void link_queue_finish(struct link_queue *queue);

static inline bool link_queue_is_empty(const struct link_queue *queue)
{
    return queue->length == 0;
}
/* A message that has gone in part: nothing else may be written before its rest. */
static inline bool link_queue_is_amid(const struct link_queue *queue)
{
    return queue->sent_bytes > 0;
}

/* Room for one more. Errors: -EAGAIN it is full; -ENOMEM. */
MUST_USE int link_queue_reserve(struct link_queue *queue);
/* Adds a reference of its own; there is room. */
void link_queue_push(struct link_queue *queue, struct link_parcel *parcel);

/* The first of what is to be written, of so many parcels at most; returns how many segments. */
size_t link_queue_peek(const struct link_queue *queue, size_t parcels_max,
                       struct iovec *ret_segments, size_t segments_max);
/* `bytes` of what was peeked at are written. */
void link_queue_advance(struct link_queue *queue, size_t bytes);
/* The first message, if it has gone in part: its rest is nothing to another connection. */
void link_queue_drop_begun(struct link_queue *queue);
