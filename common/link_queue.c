#include "common/link_queue.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "common/zmtp.h"

enum {
    CAPACITY_FIRST = 8,
    CAPACITY_KEPT_MAX = 256, /* a larger ring is given back when it is empty */
};

/* A blob that goes after the first `after` of the parcel's own bytes. */
struct insert {
    size_t after;
    struct blob *blob;
};

struct link_parcel {
    unsigned owners; /* all in one thread */
    size_t own_bytes;
    size_t bytes; /* with the blobs */
    size_t inserts_length;
    struct insert inserts[]; /* and then the own bytes */
};

/* ---- parcels ---- */

static uint8_t *own_bytes_of(const struct link_parcel *parcel)
{
    return (uint8_t *)(parcel->inserts + parcel->inserts_length);
}

static bool is_copied(const struct blob *blob)
{
    return blob_bytes(blob) <= LINK_COPY_BYTES_MAX;
}

static struct link_parcel *allocate(size_t head_bytes, struct blob *const *payloads,
                                    size_t payloads_length)
{
    size_t own_bytes = zmtp_header_bytes(head_bytes) + head_bytes;
    size_t inserts_length = 0;
    for (size_t i = 0; i < payloads_length; i++) {
        const size_t bytes = blob_bytes(payloads[i]);
        own_bytes += zmtp_header_bytes(bytes) + (is_copied(payloads[i]) ? bytes : 0);
        inserts_length += is_copied(payloads[i]) ? 0 : 1;
    }
    struct link_parcel *parcel =
        malloc(sizeof(*parcel) + inserts_length * sizeof(struct insert) + own_bytes);
    if (parcel != NULL) {
        parcel->owners = 1;
        parcel->own_bytes = parcel->bytes = own_bytes;
        parcel->inserts_length = inserts_length;
    }
    return parcel;
}

static uint8_t *write_copy(uint8_t *at, const void *data, size_t bytes, bool has_more)
{
    at += zmtp_write_header(bytes, has_more, at);
    if (bytes > 0) {
        memcpy(at, data, bytes);
    }
    return at + bytes;
}

int link_parcel_create(const void *head, size_t head_bytes, struct blob *const *payloads,
                       size_t payloads_length, struct link_parcel **ret_parcel)
{
    struct link_parcel *parcel = allocate(head_bytes, payloads, payloads_length);
    if (parcel == NULL) {
        return -ENOMEM;
    }
    uint8_t *const own = own_bytes_of(parcel);
    uint8_t *at = write_copy(own, head, head_bytes, payloads_length > 0);
    struct insert *insert = parcel->inserts;
    for (size_t i = 0; i < payloads_length; i++) {
        struct blob *payload = payloads[i];
        const size_t bytes = blob_bytes(payload);
        const bool has_more = i + 1 < payloads_length;
        if (is_copied(payload)) {
            at = write_copy(at, blob_data(payload), bytes, has_more);
            continue;
        }
        at += zmtp_write_header(bytes, has_more, at);
        *insert++ = (struct insert){.after = (size_t)(at - own), .blob = blob_ref(payload)};
        parcel->bytes += bytes;
    }
    assert(at == own + parcel->own_bytes);
    *ret_parcel = parcel;
    return 0;
}

void link_parcel_unref(struct link_parcel **parcel)
{
    struct link_parcel *dropped = TAKE(*parcel);
    if (dropped == NULL || --dropped->owners > 0) {
        return;
    }
    for (size_t i = 0; i < dropped->inserts_length; i++) {
        blob_unref(&dropped->inserts[i].blob);
    }
    free(dropped);
}

size_t link_parcel_bytes(const struct link_parcel *parcel)
{
    return parcel->bytes;
}

/* ---- segments ---- */

/* Where what is peeked at is put; the bytes to be left out are counted down first. */
struct view {
    struct iovec *segments;
    size_t length, length_max;
    size_t skipped_bytes;
};

static void show(struct view *view, const void *data, size_t bytes)
{
    if (view->skipped_bytes >= bytes) {
        view->skipped_bytes -= bytes;
        return;
    }
    if (view->length < view->length_max) {
        view->segments[view->length++] =
            (struct iovec){.iov_base = (uint8_t *)data + view->skipped_bytes,
                           .iov_len = bytes - view->skipped_bytes};
        view->skipped_bytes = 0;
    }
}

static void show_parcel(struct view *view, const struct link_parcel *parcel)
{
    const uint8_t *own = own_bytes_of(parcel);
    size_t shown = 0;
    for (size_t i = 0; i < parcel->inserts_length && view->length < view->length_max; i++) {
        const struct insert *insert = &parcel->inserts[i];
        show(view, own + shown, insert->after - shown);
        show(view, blob_data(insert->blob), blob_bytes(insert->blob));
        shown = insert->after;
    }
    show(view, own + shown, parcel->own_bytes - shown);
}

/* ---- queues ---- */

static struct link_parcel **item_at(const struct link_queue *queue, size_t index)
{
    return &queue->items[(queue->first + index) & (queue->capacity - 1)];
}

void link_queue_init(struct link_queue *queue, size_t length_max)
{
    *queue = (struct link_queue){.length_max = length_max};
}

void link_queue_finish(struct link_queue *queue)
{
    for (size_t i = 0; i < queue->length; i++) {
        link_parcel_unref(item_at(queue, i));
    }
    free(queue->items);
    link_queue_init(queue, queue->length_max);
}

int link_queue_reserve(struct link_queue *queue)
{
    if (queue->length >= queue->length_max) {
        return -EAGAIN;
    }
    if (queue->length < queue->capacity) {
        return 0;
    }
    const size_t capacity = queue->capacity == 0 ? CAPACITY_FIRST : queue->capacity * 2;
    struct link_parcel **items = reallocarray(NULL, capacity, sizeof(struct link_parcel *));
    if (items == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < queue->length; i++) {
        items[i] = *item_at(queue, i);
    }
    free(queue->items);
    queue->items = items;
    queue->capacity = capacity;
    queue->first = 0;
    return 0;
}

void link_queue_push(struct link_queue *queue, struct link_parcel *parcel)
{
    assert(queue->length < queue->capacity);
    parcel->owners++;
    queue->length++;
    *item_at(queue, queue->length - 1) = parcel;
}

size_t link_queue_peek(const struct link_queue *queue, size_t parcels_max,
                       struct iovec *ret_segments, size_t segments_max)
{
    struct view view = {
        .segments = ret_segments, .length_max = segments_max, .skipped_bytes = queue->sent_bytes};
    const size_t parcels = parcels_max < queue->length ? parcels_max : queue->length;
    for (size_t i = 0; i < parcels && view.length < view.length_max; i++) {
        show_parcel(&view, *item_at(queue, i));
    }
    return view.length;
}

void link_queue_advance(struct link_queue *queue, size_t bytes)
{
    queue->sent_bytes += bytes;
    while (queue->length > 0 && queue->sent_bytes >= (*item_at(queue, 0))->bytes) {
        struct link_parcel **first = item_at(queue, 0);
        queue->sent_bytes -= (*first)->bytes;
        link_parcel_unref(first);
        queue->first++;
        queue->length--;
    }
    if (queue->length == 0 && queue->capacity > CAPACITY_KEPT_MAX) {
        link_queue_finish(queue);
    }
}

void link_queue_drop_begun(struct link_queue *queue)
{
    if (link_queue_is_amid(queue)) {
        link_queue_advance(queue, (*item_at(queue, 0))->bytes - queue->sent_bytes);
    }
}
