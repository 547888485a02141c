#include "broker/outbox.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "common/array.h"
#include "common/frame.h"
#include "common/link.h"
#include "common/list.h"

enum {
    SPARES_MAX = 16,
    SPARE_BYTES_MAX = 256 << 10, /* a larger outbox is not worth keeping */
    BYTES_FIRST = 1024,
    ITEMS_FIRST = 16,
};

_Static_assert((int)OUTBOX_PAYLOADS_MAX < (int)FRAME_PARTS_MAX,
               "a message has a part for the envelope too");

struct outbox {
    struct peer *peer;
    struct list_link link; /* in urgent, lazy, or spares */
    bool is_urgent;
    int64_t due_ms; /* of a lazy one */
    uint8_t *bytes; /* header and fields */
    size_t length, capacity;
    struct blob **payloads;
    size_t payloads_length, payloads_capacity;
    size_t payload_bytes;
    struct lease_ref *leases;
    size_t leases_length, leases_capacity;
};

struct outboxes {
    struct outbox_options options;
    struct list urgent;
    struct list lazy; /* by due_ms */
    struct list spares;
    uint64_t messages;
};

int outboxes_create(const struct outbox_options *options, struct outboxes **ret_outboxes)
{
    struct outboxes *outboxes = calloc(1, sizeof(*outboxes));
    if (outboxes == NULL) {
        return -ENOMEM;
    }
    outboxes->options = *options;
    list_init(&outboxes->urgent);
    list_init(&outboxes->lazy);
    list_init(&outboxes->spares);
    *ret_outboxes = outboxes;
    return 0;
}

static void release(struct outbox *outbox)
{
    free(outbox->bytes);
    free(outbox->payloads);
    free(outbox->leases);
    free(outbox);
}

static struct outbox *first_of(const struct list *list)
{
    struct list_link *link = list_first(list);
    return link == NULL ? NULL : CONTAINER_OF(link, struct outbox, link);
}

static bool make_room_for(struct outbox *outbox, const struct parcel *parcel)
{
    return array_reserve(&outbox->bytes, &outbox->capacity, outbox->length + parcel->length, 1,
                         BYTES_FIRST) == 0 &&
           array_reserve(&outbox->payloads, &outbox->payloads_capacity, outbox->payloads_length + 1,
                         sizeof(struct blob *), ITEMS_FIRST) == 0 &&
           array_reserve(&outbox->leases, &outbox->leases_capacity, outbox->leases_length + 1,
                         sizeof(*outbox->leases), ITEMS_FIRST) == 0;
}

/* Empties it and keeps it for the next peer, or frees it. */
static void put_away(struct outboxes *outboxes, struct outbox *outbox)
{
    for (size_t i = 0; i < outbox->payloads_length; i++) {
        blob_unref(&outbox->payloads[i]);
    }
    list_remove(outbox->is_urgent ? &outboxes->urgent : &outboxes->lazy, &outbox->link);
    outbox->peer->outbox = NULL;
    if (outboxes->spares.length == SPARES_MAX || outbox->capacity > SPARE_BYTES_MAX) {
        release(outbox);
        return;
    }
    outbox->length = outbox->payloads_length = outbox->payload_bytes = outbox->leases_length = 0;
    list_append(&outboxes->spares, &outbox->link);
}

void outboxes_destroy(struct outboxes **outboxes)
{
    struct outboxes *gone = TAKE(*outboxes);
    if (gone == NULL) {
        return;
    }
    struct list *lists[] = {&gone->urgent, &gone->lazy};
    for (size_t i = 0; i < ARRAY_LENGTH(lists); i++) {
        while (!list_is_empty(lists[i])) {
            put_away(gone, first_of(lists[i]));
        }
    }
    while (!list_is_empty(&gone->spares)) {
        struct outbox *outbox = first_of(&gone->spares);
        list_remove(&gone->spares, &outbox->link);
        release(outbox);
    }
    free(gone);
}

static enum frame_kind frame_for(enum peer_side side)
{
    return side == PEER_CLIENT ? FRAME_BROKER_TO_CLIENT : FRAME_BROKER_TO_WORKER;
}

static struct outbox *take_spare(struct outboxes *outboxes)
{
    struct outbox *outbox = first_of(&outboxes->spares);
    if (outbox != NULL) {
        list_remove(&outboxes->spares, &outbox->link);
        return outbox;
    }
    return calloc(1, sizeof(struct outbox));
}

static int open_outbox(struct outboxes *outboxes, struct peer *peer, int64_t now_ms)
{
    struct outbox *outbox = take_spare(outboxes);
    if (outbox == NULL ||
        array_reserve(&outbox->bytes, &outbox->capacity, FRAME_HEADER_BYTES, 1, BYTES_FIRST) < 0) {
        free(outbox);
        return -ENOMEM;
    }
    frame_write_header(frame_for(peer->side), outbox->bytes);
    outbox->length = FRAME_HEADER_BYTES;
    outbox->peer = peer;
    outbox->is_urgent = false;
    outbox->due_ms = now_ms + OUTBOX_LAZY_MS;
    list_append(&outboxes->lazy, &outbox->link);
    peer->outbox = outbox;
    return 0;
}

static void make_urgent(struct outboxes *outboxes, struct outbox *outbox)
{
    if (!outbox->is_urgent) {
        list_remove(&outboxes->lazy, &outbox->link);
        outbox->is_urgent = true;
        list_append(&outboxes->urgent, &outbox->link);
    }
}

static bool is_full(const struct outbox *outbox)
{
    return outbox->length >= OUTBOX_ENVELOPE_BYTES_MAX ||
           outbox->payload_bytes >= OUTBOX_PAYLOAD_BYTES_MAX ||
           outbox->payloads_length == OUTBOX_PAYLOADS_MAX;
}

int outbox_add(struct outboxes *outboxes, struct peer *peer, const struct parcel *parcel,
               int64_t now_ms)
{
    if (peer->outbox != NULL && is_full(peer->outbox)) {
        outbox_flush(outboxes, peer);
    }
    if (peer->outbox == NULL) {
        const int r = open_outbox(outboxes, peer, now_ms);
        if (r < 0) {
            return r;
        }
    }
    struct outbox *outbox = peer->outbox;
    if (!make_room_for(outbox, parcel)) {
        return -ENOMEM;
    }
    if (parcel->length > 0) { /* an empty one is a sign of life */
        memcpy(outbox->bytes + outbox->length, parcel->bytes, parcel->length);
        outbox->length += parcel->length;
    }
    if (parcel->payload != NULL) {
        outbox->payloads[outbox->payloads_length++] = blob_ref(parcel->payload);
        outbox->payload_bytes += blob_bytes(parcel->payload);
    }
    if (parcel->lease != NULL) {
        outbox->leases[outbox->leases_length++] = *parcel->lease;
    }
    if (!parcel->is_lazy) {
        make_urgent(outboxes, outbox);
    }
    return 0;
}

int outbox_send_at_once(struct link *link, struct peer *peer, const void *head, size_t head_bytes,
                        struct blob *const *payloads, size_t payloads_length)
{
    uint64_t bytes = head_bytes;
    for (size_t i = 0; i < payloads_length; i++) {
        bytes += blob_bytes(payloads[i]);
    }
    /* The first message may be of any size, or a large one would never go. */
    if (peer->unread_bytes > 0 && peer->unread_bytes + bytes > OUTBOX_UNREAD_BYTES_MAX) {
        return -EAGAIN;
    }
    const int r =
        link_send(link, peer->id, peer->id_bytes, head, head_bytes, payloads, payloads_length);
    if (r == 0) {
        peer->unread_bytes += bytes;
    }
    return r;
}

void outbox_flush(struct outboxes *outboxes, struct peer *peer)
{
    struct outbox *outbox = peer->outbox;
    if (outbox == NULL) {
        return;
    }
    const int r =
        outbox_send_at_once(outboxes->options.links[peer->side], peer, outbox->bytes, outbox->length,
                            outbox->payloads, outbox->payloads_length);
    if (r < 0) {
        outboxes->options.on_failed(outboxes->options.context, peer, r, outbox->leases,
                                    outbox->leases_length);
    } else {
        outboxes->messages++;
    }
    put_away(outboxes, outbox);
}

void outbox_drop(struct outboxes *outboxes, struct peer *peer)
{
    if (peer->outbox != NULL) {
        put_away(outboxes, peer->outbox);
    }
}

int64_t outboxes_flush(struct outboxes *outboxes, int64_t now_ms)
{
    while (!list_is_empty(&outboxes->urgent)) {
        outbox_flush(outboxes, first_of(&outboxes->urgent)->peer);
    }
    while (!list_is_empty(&outboxes->lazy) && first_of(&outboxes->lazy)->due_ms <= now_ms) {
        outbox_flush(outboxes, first_of(&outboxes->lazy)->peer);
    }
    const struct outbox *next = first_of(&outboxes->lazy);
    return next == NULL ? INT64_MAX : next->due_ms;
}

void outboxes_flush_all(struct outboxes *outboxes)
{
    (void)outboxes_flush(outboxes, INT64_MAX);
}

uint64_t outboxes_messages(const struct outboxes *outboxes)
{
    return outboxes->messages;
}
