#include "broker/held.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct held_item {
    struct held_item *next;
    uint64_t batch;
    uint64_t peer;
    bool is_accept;
    bool is_lazy;
    bool has_lease;
    struct lease_ref lease;
    struct blob *payload;
    size_t length;
    uint8_t bytes[];
};

struct held {
    struct held_item *first;
    struct held_item **end; /* where the next one is linked in */
    size_t length;
};

int held_create(struct held **ret_held)
{
    struct held *held = calloc(1, sizeof(*held));
    if (held == NULL) {
        return -ENOMEM;
    }
    held->end = &held->first;
    *ret_held = held;
    return 0;
}

static void release(struct held_item *item)
{
    blob_unref(&item->payload);
    free(item);
}

static struct held_item *take_first(struct held *held)
{
    struct held_item *item = held->first;
    held->first = item->next;
    if (held->first == NULL) {
        held->end = &held->first;
    }
    held->length--;
    return item;
}

void held_destroy(struct held **held)
{
    struct held *gone = TAKE(*held);
    if (gone == NULL) {
        return;
    }
    while (gone->first != NULL) {
        release(take_first(gone));
    }
    free(gone);
}

int held_push(struct held *held, uint64_t batch, uint64_t peer, bool is_accept,
              const struct parcel *parcel)
{
    struct held_item *item = malloc(sizeof(*item) + parcel->length);
    if (item == NULL) {
        return -ENOMEM;
    }
    *item = (struct held_item){
        .batch = batch,
        .peer = peer,
        .is_accept = is_accept,
        .is_lazy = parcel->is_lazy,
        .has_lease = parcel->lease != NULL,
        .payload = parcel->payload == NULL ? NULL : blob_ref(parcel->payload),
        .length = parcel->length,
    };
    if (item->has_lease) {
        item->lease = *parcel->lease;
    }
    memcpy(item->bytes, parcel->bytes, parcel->length);
    *held->end = item;
    held->end = &item->next;
    held->length++;
    return 0;
}

void held_release(struct held *held, uint64_t batch,
                  void (*deliver)(void *context, uint64_t peer, const struct parcel *parcel),
                  void *context)
{
    while (held->first != NULL && held->first->batch <= batch) {
        struct held_item *item = take_first(held);
        const struct parcel parcel = {
            .bytes = item->bytes,
            .length = item->length,
            .payload = item->payload,
            .lease = item->has_lease ? &item->lease : NULL,
            .is_lazy = item->is_lazy,
        };
        deliver(context, item->peer, &parcel);
        release(item);
    }
}

void held_forget_accepts(struct held *held, uint64_t first_batch)
{
    struct held_item **place = &held->first;
    while (*place != NULL) {
        struct held_item *item = *place;
        if (item->is_accept && item->batch >= first_batch) {
            *place = item->next;
            held->length--;
            release(item);
        } else {
            place = &item->next;
        }
    }
    held->end = place;
}

size_t held_length(const struct held *held)
{
    return held->length;
}
