/*
 * connection: one broker, kept in touch with: hello, heartbeats, and a new start when it falls silent.
 *
 * A link reconnects by itself, but to a broker that need not know this connection, and it cannot say that a peer has
 * nothing to say. So the peer's words count: when none came for CONNECTION_SILENT_HEARTBEATS heartbeats, or hello stays without
 * an answer (the time to look its name up not counted), the socket is thrown away and made anew after a jittered backoff. Each welcome is reported through `opened`,
 * also on a connection that was open: the broker may have forgotten us, and whoever waits must ask again.
 *
 * Belongs to one thread. Has no timers: connection_tick() is called when connection_next_ms() is due.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/blob.h"
#include "common/frame.h"
#include "common/link.h"
#include "proto/wire.pb-c.h"

struct arena;
struct connection;
struct loop;

enum {
    CONNECTION_GREETING_MS = 3000,       /* for the answer to hello, once the broker's name is known */
    CONNECTION_LOOKUP_MS = 30000,        /* for that: beyond the patience of resolvers as they are set up */
    CONNECTION_PING_MS_MAX = 1000,       /* a broker that restarted is met again within so long */
    CONNECTION_SILENT_HEARTBEATS = 4,
    CONNECTION_SILENT_MS_MIN = 4000,
    CONNECTION_BACKOFF_FIRST_MS = 50,
    CONNECTION_BACKOFF_MAX_MS = 2000,
    CONNECTION_REFUSED_MS = 5000,        /* an operator may add the tenant */
    CONNECTION_REFUSED_MS_MAX = 60000,   /* of what a broker may ask for */
    CONNECTION_WHY_BYTES = 320,
};

/* Called from within a turn of the loop. What they are given is valid until they return. */
struct connection_handlers {
    void (*opened)(void *context);                      /* welcomed: repeat what is pending */
    /* Hello was refused: nothing will be served, until retry_after_ms if that is not 0. */
    void (*refused)(void *context, const char *reason, int64_t retry_after_ms);
    void (*message)(void *context, const Wire__BrokerToClient *message, struct link_message *parts);
    void (*chunk)(void *context, const struct frame_chunk *chunk, const void *data, size_t bytes);
    void *context;
};

struct connection_options {
    struct loop *loop;
    struct arena *arena; /* for decoding; reset after each message */
    const char *endpoint, *tenant, *name; /* live longer than the connection */
    struct connection_handlers handlers;
};

/* Opens the socket and says hello. Errors: -EINVAL the endpoint is malformed; -ENOMEM; -errno of the socket calls. */
MUST_USE int connection_create(const struct connection_options *options, int64_t now_ms,
                               struct connection **ret_connection);
void connection_destroy(struct connection **connection);

/* Never call it from a handler: it may close the socket. */
void connection_tick(struct connection *connection, int64_t now_ms);
int64_t connection_next_ms(const struct connection *connection);

/*
 * Sends a message and its payloads, all or nothing.
 * Errors: -ENOTCONN not open; -EAGAIN the queue to the broker is full; -ENOMEM.
 */
MUST_USE int connection_send(struct connection *connection, const Wire__ClientMessage *message,
                             struct blob *const *payloads, size_t payloads_length);

bool connection_is_open(const struct connection *connection);
bool connection_is_refused(const struct connection *connection);
/* Since when it is not open; INT64_MAX while it is. */
int64_t connection_closed_since_ms(const struct connection *connection);
/* Which of its lives the broker is in, as of the last welcome. */
uint64_t connection_incarnation(const struct connection *connection);
/* 0 before the first welcome. */
uint64_t connection_payload_bytes_max(const struct connection *connection);
/* That its name is being looked up, while it is; else the last trouble in words, "" if there was none. */
const char *connection_why(const struct connection *connection);
