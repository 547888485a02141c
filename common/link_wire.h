/*
 * link_wire: one connection of a link, from its greeting to its end: a stream socket on the loop.
 *
 * Reading and writing are asked for by the link: it says when there is time to read, and lets
 * everything that was queued within a turn go at once. Only when the kernel takes no more does the
 * wire wait for the socket by itself. The queue outlives the socket, so that what has not gone
 * waits for the next one. Nothing here blocks. Belongs to the loop's thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/link_queue.h"
#include "common/link_reader.h"
#include "common/loop.h"
#include "common/zmtp.h"

enum link_wire_state {
    LINK_WIRE_CLOSED,   /* no socket */
    LINK_WIRE_GREETING, /* the peer's greeting is not there */
    LINK_WIRE_GREETED,  /* its READY is not there */
    LINK_WIRE_OPEN,     /* messages may go */
};

enum { LINK_CONTROL_BYTES = 256 };

struct link_wire;

struct link_wire_handler {
    const char *socket_type; /* of ours */
    /* There is something to read, perhaps only an end: link_wire_read() in this turn. */
    void (*on_readable)(void *context, struct link_wire *wire);
    /* Errors: -EPROTO for *ret_reason, -ENOMEM: the wire is closed. */
    int (*on_ready)(void *context, struct link_wire *wire, const struct zmtp_command *ready,
                    const char **ret_reason);
    /* SUBSCRIBE, CANCEL; as on_ready. */
    int (*on_subscription)(void *context, struct link_wire *wire, const void *prefix, size_t bytes,
                           bool is_cancelled, const char **ret_reason);
    /* As on_ready; -ECANCELED the link has been destroyed, and nothing more is to be read for it.
     */
    int (*on_message)(void *context, struct link_wire *wire, struct link_message *message,
                      const char **ret_reason);
    void *context;
};

/*
 * What a link may take in a turn. Bytes count as they are read, so that what never becomes a
 * message counts, too.
 */
struct link_budget {
    size_t items; /* messages and commands */
    size_t bytes; /* the reading that reaches it is the last */
};

struct link_wire {
    struct loop *loop;
    const struct link_wire_handler *handler;
    enum link_wire_state state;
    int fd; /* -1 while closed */
    struct loop_source *source;
    uint8_t greeting[ZMTP_GREETING_BYTES]; /* the peer's */
    size_t greeting_bytes;
    uint8_t minor; /* of the peer's version */
    struct link_reader reader;
    bool has_rest; /* the reader has messages for which there was no time */
    struct link_queue queue;
    uint8_t control[LINK_CONTROL_BYTES]; /* frames that go before the next message */
    size_t control_bytes;
    bool is_blocked; /* the kernel takes no more; EPOLLOUT will tell */
    bool is_mute;    /* it never will again: what comes is read to its end */
};

/* Closed, with an empty queue. `handler` lives longer. */
void link_wire_init(struct link_wire *wire, struct loop *loop,
                    const struct link_wire_handler *handler, size_t part_bytes_max,
                    size_t queue_messages_max);
void link_wire_finish(struct link_wire *wire);

/* Takes: `fd`, connected, also on error. Errors: -ENOMEM, -errno of epoll_ctl: it is closed. */
MUST_USE int link_wire_open(struct link_wire *wire, int fd);
/* The queue stays, without a message that has gone in part: it may be what has ended the wire. */
void link_wire_close(struct link_wire *wire);
/* Tells the peer why, if it will hear, and closes. */
void link_wire_refuse(struct link_wire *wire, const char *reason);

/*
 * Reads once and hands over what is there, into and from `shared`, memory that nobody needs
 * afterwards. Returns 1 when there may be more; 0 when there is not.
 * Errors: -EPIPE the peer has closed it; -ECONNRESET it was cut; -EMSGSIZE a part is too large;
 * -EPROTO, -ENOMEM; of the handler. With any of them it is to be closed, for *ret_reason.
 */
MUST_USE int link_wire_read(struct link_wire *wire, const struct iovec *shared,
                            struct link_budget *budget, const char **ret_reason);

/* Writes what the kernel takes. */
void link_wire_flush(struct link_wire *wire);
/* Something is left that may still go, here or in the kernel. */
bool link_wire_has_unsent(const struct link_wire *wire);
/* Takes what came and drops it: closing a socket that holds some makes the peer lose what was sent.
 */
void link_wire_ignore(struct link_wire *wire);

void link_wire_ping(struct link_wire *wire, unsigned ttl_ms);
void link_wire_subscribe_all(struct link_wire *wire);
