/*
 * link: a ZeroMQ socket on the loop: messages of parts between processes, over ZMTP 3.1 (zmtp.h),
 * so that any ZeroMQ peer can be at the other end. It has no thread of its own.
 *
 * Sends never block: a peer that cannot take more is that peer's problem (-EAGAIN), a peer that is
 * gone is -EHOSTUNREACH. What is sent within a turn of the loop goes when the turn ends, together;
 * what is sent between two turns, with the next or with loop_settle().
 *
 * Messages are vectors of parts. Part data of a received message stays valid until the handler
 * returns; link_take_blob() moves a part out, mostly without copying it if it is large. A message
 * with more than FRAME_PARTS_MAX parts, or of more than LINK_MESSAGE_BYTES_MAX, is received to its
 * end and handed over empty (no parts), so that its sender can be answered.
 *
 * Connecting and reconnecting happen behind this: what is sent before the first connection, or
 * while there is none, waits in the queue. What has gone when a connection breaks, if only in part,
 * is not sent again: the peer may have refused it, and would for ever. The handler may send, and
 * may destroy the link. Belongs to the loop's thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/blob.h"
#include "common/link_end.h"

struct loop;
struct link;
struct link_message;

enum link_kind {
    LINK_ROUTER, /* refuses peers that are not there; a peer that comes again takes its name over */
    LINK_DEALER,
    LINK_PUB, /* sends to whoever listens; what a listener cannot take is lost to it */
    LINK_SUB, /* hears all that is published */
};

enum {
    LINK_PEER_BYTES_MAX = 255,
    LINK_MESSAGES_PER_TURN = 512,  /* and commands */
    LINK_BYTES_PER_TURN = 4 << 20, /* a round ends with the reading that reaches this */
    LINK_QUEUE_MESSAGES_DEFAULT_MAX = 10000,
    LINK_HELD_BYTES_DEFAULT_MAX = 1 << 30,
    LINK_LINGER_MS = 1000,
    LINK_HANDSHAKE_MS = 30000,  /* a connection that has not said what it is by then is closed */
    LINK_HANDSHAKES_MAX = 1024, /* at a time; beyond that the oldest is closed */
    /* Below those of the protocol: they find dead connections under idle sockets. */
    LINK_HEARTBEAT_MS = 5000, /* of silence; then it is asked for a sign of life */
    LINK_HEARTBEAT_TIMEOUT_MS = 20000,
};

struct link_options {
    enum link_kind kind;
    /*
     * tcp://host:port (port 0 or *: any free), ipc://path. A name or address in brackets is IPv6,
     * one without is IPv4; A host of * is every interface, both.
     */
    const char *endpoint;
    bool bind;              /* otherwise connect */
    size_t part_bytes_max;  /* larger parts close the connection */
    int queue_messages_max; /* that wait for a peer; 0: LINK_QUEUE_MESSAGES_DEFAULT_MAX */
    /*
     * Of what has come over all connections and is not handed over, messages under way above all;
     * beyond that the connection with most of it is closed. 0: LINK_HELD_BYTES_DEFAULT_MAX
     */
    size_t held_bytes_max;
    /*
     * Called with the handler's context when a connection has ended, whether its handshake was done
     * or not, and all that came over it was handed over; one that was opened from here is made anew
     * by itself. Not for one that could not be opened, nor from within link_destroy(); must not
     * send, nor destroy the link. May be NULL.
     */
    void (*on_disconnected)(void *context, const struct link_ending *ending);
};

/* ROUTER: `peer` names the sender. Otherwise peer_bytes is 0. */
typedef void link_fn(void *context, const void *peer, size_t peer_bytes,
                     struct link_message *message);

/* Errors: -EADDRINUSE, -EINVAL (endpoint), -ENOMEM, or -errno of the socket calls. */
MUST_USE int link_create(struct loop *loop, const struct link_options *options, link_fn *handler,
                         void *context, struct link **ret_link);
/* Blocks until what was sent has gone to every peer that takes it, LINK_LINGER_MS at most for all of them together. */
void link_destroy(struct link **link);
/* At the end nothing is waited for: nobody is there to take it. */
void link_forgo_linger(struct link *link);

/* The endpoint as bound, with the real port. Owned by the link. */
const char *link_endpoint(const struct link *link);

/*
 * One that connects: the name of its peer is being looked up, and there is no connection before that
 * has an answer. How long that may take only the machine's resolver knows: link_destroy() gives it up.
 */
bool link_is_looking_up(const struct link *link);

/* Of all messages that were received and sent since it was created. */
uint64_t link_bytes(const struct link *link);

/* Parts of a received message, without the peer. */
size_t link_message_parts(const struct link_message *message);
/* NULL and 0 bytes when there is no such part. */
const void *link_message_part(const struct link_message *message, size_t index, size_t *ret_bytes);
/* Moves part `index` into a blob; the part is empty afterwards. Errors: -ENOMEM, -EINVAL no such
 * part. */
MUST_USE int link_take_blob(struct link_message *message, size_t index, struct blob **ret_blob);

/*
 * Sends header-and-envelope `head` (copied) and then the payload blobs (referenced, not copied).
 * ROUTER: to `peer`. Either the whole message is taken or none of it. The blobs stay the caller's.
 * Errors: -EAGAIN the queue to this peer is full; -EHOSTUNREACH no such peer; -EMSGSIZE more than
 * FRAME_PARTS_MAX parts; -ENOMEM.
 */
MUST_USE int link_send(struct link *link, const void *peer, size_t peer_bytes, const void *head,
                       size_t head_bytes, struct blob *const *payloads, size_t payloads_length);
