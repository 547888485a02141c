/*
 * outbox: what goes to the peers, gathered so that what one turn has for one peer is one message,
 * or few.
 *
 * An envelope is a sequence of protobuf fields, and fields may be joined by writing them one after
 * the other: so an item is packed once, when its effect is carried out, and a message is the items
 * behind a header. Payloads go along by reference.
 *
 * Most items leave at the end of the turn. Those that nobody waits for (lazy) may wait for company
 * up to OUTBOX_LAZY_MS: with one job at a time they ride with the next message and cost no wake-up
 * of their own. Belongs to the loop.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/core/event.h"
#include "broker/peers.h"
#include "common/attributes.h"
#include "common/blob.h"

enum {
    OUTBOX_LAZY_MS = 2,
    OUTBOX_ENVELOPE_BYTES_MAX = 1 << 20, /* a message above this leaves before the turn ends */
    OUTBOX_PAYLOAD_BYTES_MAX = 16 << 20,
    /*
     * Payloads in a message, so that a peer works on the first while the broker packs the next.
     * With a whole window of 256 in one message client, broker and worker took turns: 54 000 jobs/s
     * on two cores, against 77 000 with 64.
     */
    OUTBOX_PAYLOADS_MAX = 64,
    /*
     * Sent to a peer without a word from it. A link bounds what waits for a peer that does not read in messages
     * alone, and 10 000 of them may be large; who reads also speaks: it collects, answers or pings.
     */
    OUTBOX_UNREAD_BYTES_MAX = 64 << 20,
};

struct link;
struct outboxes;

/* One item on its way. */
struct parcel {
    const uint8_t *bytes; /* packed fields of the peer's envelope */
    size_t length;
    struct blob *payload;          /* NULL: none; borrowed */
    const struct lease_ref *lease; /* of a dispatch: named when it cannot be sent */
    bool is_lazy;
};

struct outbox_options {
    struct link *links[PEER_SIDES]; /* not owned */
    /*
     * A message could not be sent; `leases` are the dispatches in it. Called within a flush; must
     * not add parcels.
     */
    void (*on_failed)(void *context, struct peer *peer, int error, const struct lease_ref *leases,
                      size_t leases_length);
    void *context;
};

/* Errors: -ENOMEM. */
MUST_USE int outboxes_create(const struct outbox_options *options, struct outboxes **ret_outboxes);
void outboxes_destroy(struct outboxes **outboxes);

/*
 * Sends one message past the outbox (a chunk of a stream).
 * Errors: of link_send(); -EAGAIN also when the peer has too much unread.
 */
MUST_USE int outbox_send_at_once(struct link *link, struct peer *peer, const void *head, size_t head_bytes,
                                 struct blob *const *payloads, size_t payloads_length);

/* Errors: -ENOMEM; nothing was added. */
MUST_USE int outbox_add(struct outboxes *outboxes, struct peer *peer, const struct parcel *parcel,
                        int64_t now_ms);
/* Sends what waits for this peer now. */
void outbox_flush(struct outboxes *outboxes, struct peer *peer);
/* Forgets what waits for this peer. */
void outbox_drop(struct outboxes *outboxes, struct peer *peer);

/*
 * Sends all but lazy items that may still wait. Returns when the next of those is due; INT64_MAX:
 * none waits.
 */
int64_t outboxes_flush(struct outboxes *outboxes, int64_t now_ms);
/* Sends everything. */
void outboxes_flush_all(struct outboxes *outboxes);
uint64_t outboxes_messages(const struct outboxes *outboxes); /* sent so far */
