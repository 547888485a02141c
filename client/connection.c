#include "client/connection.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "common/arena.h"
#include "common/clock.h"

enum {
    ANSWER_BYTES_MAX = 256 << 20, /* one part; embeddings of large inputs are large */
    HEARTBEAT_MS_MIN = 100,
    HEARTBEAT_MS_MAX = 60000,
    FAILURES_MAX = 16, /* counting further changes nothing */
};

enum connection_state {
    CONNECTION_WAITING,  /* no socket; starts at act_at_ms */
    CONNECTION_GREETING, /* hello is sent; starts anew at act_at_ms */
    CONNECTION_OPEN,     /* pings at act_at_ms */
    CONNECTION_REFUSED,  /* tries again at act_at_ms */
};

struct connection {
    struct connection_options options;
    enum connection_state state;
    struct link *link; /* NULL while waiting */
    int64_t act_at_ms;
    int64_t heard_at_ms;
    int64_t closed_since_ms; /* INT64_MAX while open */
    int64_t heartbeat_ms;
    uint64_t payload_bytes_max;
    uint64_t incarnation;
    uint64_t pings;
    uint32_t failures;  /* since the last welcome */
    bool is_broken;     /* the link has lost it; start over in the next tick */
    bool is_stranger;   /* greeting, and what came is no broker's word to a client: `why` says so */
    bool is_looking_up; /* greeting, and as of the last tick the link has no address to go to yet */
    uint8_t *packed;    /* grows to the largest message */
    size_t packed_capacity;
    char why[CONNECTION_WHY_BYTES];
    char looks_up[CONNECTION_WHY_BYTES]; /* what is said instead of it meanwhile */
};

static void complain(struct connection *connection, const char *format, ...) PRINTF_LIKE(2, 3);
static void complain(struct connection *connection, const char *format, ...)
{
    const int length = snprintf(connection->why, sizeof(connection->why),
                                "%.100s: ", connection->options.endpoint);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(connection->why + length, sizeof(connection->why) - (size_t)length, format,
              arguments);
    va_end(arguments);
}

/* 0 to `most`; `most` when there is no random number. */
static int64_t random_up_to(int64_t most)
{
    uint32_t random = 0;
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random)) {
        return most;
    }
    return random % (most + 1);
}

/* Full jitter, so that the clients of a broker that restarts do not come all at once. */
static int64_t backoff_ms(uint32_t failures)
{
    int64_t most = (int64_t)CONNECTION_BACKOFF_FIRST_MS << (failures < 8 ? failures : 8);
    if (most > CONNECTION_BACKOFF_MAX_MS) {
        most = CONNECTION_BACKOFF_MAX_MS;
    }
    return random_up_to(most);
}

static int64_t silent_ms_max(const struct connection *connection)
{
    const int64_t ms = CONNECTION_SILENT_HEARTBEATS * connection->heartbeat_ms;
    return ms > CONNECTION_SILENT_MS_MIN ? ms : CONNECTION_SILENT_MS_MIN;
}

static int64_t ping_ms(const struct connection *connection)
{
    return connection->heartbeat_ms < CONNECTION_PING_MS_MAX ? connection->heartbeat_ms
                                                             : CONNECTION_PING_MS_MAX;
}

static void leave_open(struct connection *connection, enum connection_state next, int64_t now_ms,
                       int64_t act_at_ms)
{
    if (connection->state == CONNECTION_OPEN) {
        connection->closed_since_ms = now_ms;
    }
    connection->state = next;
    connection->act_at_ms = act_at_ms;
}

/* Nobody is there, or nobody who answers: what the socket still holds reaches no one. */
static void drop_link(struct connection *connection)
{
    if (connection->link != NULL) {
        link_forgo_linger(connection->link);
    }
    link_destroy(&connection->link);
}

static void start_over(struct connection *connection, int64_t now_ms)
{
    drop_link(connection);
    connection->is_broken = connection->is_looking_up = false;
    leave_open(connection, CONNECTION_WAITING, now_ms, now_ms + backoff_ms(connection->failures));
    if (connection->failures < FAILURES_MAX) {
        connection->failures++;
    }
}

static int reserve_packed(struct connection *connection, size_t bytes)
{
    if (bytes <= connection->packed_capacity) {
        return 0;
    }
    uint8_t *packed = realloc(connection->packed, bytes * 2);
    if (packed == NULL) {
        return -ENOMEM;
    }
    connection->packed = packed;
    connection->packed_capacity = bytes * 2;
    return 0;
}

static int send_message(struct connection *connection, const Wire__ClientMessage *message,
                        struct blob *const *payloads, size_t payloads_length)
{
    const size_t bytes = FRAME_HEADER_BYTES + wire__client_message__get_packed_size(message);
    int r = reserve_packed(connection, bytes);
    if (r < 0) {
        return r;
    }
    frame_write_header(FRAME_CLIENT_TO_BROKER, connection->packed);
    wire__client_message__pack(message, connection->packed + FRAME_HEADER_BYTES);
    return link_send(connection->link, NULL, 0, connection->packed, bytes, payloads,
                     payloads_length);
}

static void say_hello(struct connection *connection, int64_t now_ms)
{
    Wire__ClientHello hello = WIRE__CLIENT_HELLO__INIT;
    hello.tenant = (char *)connection->options.tenant;
    hello.name = (char *)connection->options.name;
    Wire__ClientMessage message = WIRE__CLIENT_MESSAGE__INIT;
    message.hello = &hello;
    leave_open(connection, CONNECTION_GREETING, now_ms, now_ms + CONNECTION_GREETING_MS);
    int r = send_message(connection, &message, NULL, 0);
    if (r < 0) {
        complain(connection, "cannot send hello: %s", strerror(-r));
    }
}

static void take_welcome(struct connection *connection, const Wire__ClientWelcome *welcome,
                         int64_t now_ms)
{
    int64_t heartbeat_ms = welcome->heartbeat_ms;
    heartbeat_ms = heartbeat_ms < HEARTBEAT_MS_MIN ? HEARTBEAT_MS_MIN : heartbeat_ms;
    heartbeat_ms = heartbeat_ms > HEARTBEAT_MS_MAX ? HEARTBEAT_MS_MAX : heartbeat_ms;
    connection->heartbeat_ms = heartbeat_ms;
    connection->payload_bytes_max = welcome->payload_bytes_max;
    connection->incarnation = welcome->incarnation;
    connection->state = CONNECTION_OPEN;
    connection->closed_since_ms = INT64_MAX;
    connection->failures = 0;
    connection->act_at_ms = now_ms + ping_ms(connection);
    connection->why[0] = '\0';
    connection->options.handlers.opened(connection->options.handlers.context);
}

/* Not before the broker says, and spread over a quarter more. */
static int64_t refused_ms(int64_t retry_after_ms)
{
    if (retry_after_ms == 0) {
        return CONNECTION_REFUSED_MS;
    }
    return retry_after_ms + random_up_to(retry_after_ms / 4);
}

static void take_refusal(struct connection *connection, const Wire__ProtocolError *error,
                         int64_t now_ms)
{
    const int64_t retry_after_ms = error->retry_after_ms < CONNECTION_REFUSED_MS_MAX
                                       ? (int64_t)error->retry_after_ms
                                       : CONNECTION_REFUSED_MS_MAX;
    complain(connection, "%s", error->text);
    leave_open(connection, CONNECTION_REFUSED, now_ms, now_ms + refused_ms(retry_after_ms));
    connection->options.handlers.refused(connection->options.handlers.context, connection->why,
                                         retry_after_ms);
}

static void take_error(struct connection *connection, const Wire__ProtocolError *error,
                       int64_t now_ms)
{
    switch (error->code) {
    case WIRE__PROTOCOL_ERROR__CODE__ERROR_HELLO_REQUIRED:
        /* One for each message that was under way; the first is enough. */
        if (connection->state == CONNECTION_OPEN) {
            complain(connection, "the broker does not know this client any more");
            say_hello(connection, now_ms);
        }
        return;
    case WIRE__PROTOCOL_ERROR__CODE__ERROR_VERSION:
    case WIRE__PROTOCOL_ERROR__CODE__ERROR_REFUSED:
        take_refusal(connection, error, now_ms);
        return;
    case WIRE__PROTOCOL_ERROR__CODE__ERROR_NONE:
    case WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED:
    case WIRE__PROTOCOL_ERROR__CODE__ERROR_TOO_LARGE:
    case _WIRE__PROTOCOL_ERROR__CODE_IS_INT_SIZE:
        break;
    }
    complain(connection, "%s", error->text);
}

static void take_envelope(struct connection *connection, const uint8_t *data, size_t bytes,
                          struct link_message *parts, int64_t now_ms)
{
    Wire__BrokerToClient *message = wire__broker_to_client__unpack(
        arena_protobuf_allocator(connection->options.arena), bytes, data);
    if (message == NULL) {
        complain(connection, "a message of %zu bytes cannot be decoded", bytes);
    } else {
        if (message->error != NULL) {
            take_error(connection, message->error, now_ms);
        }
        if (message->welcome != NULL) {
            take_welcome(connection, message->welcome, now_ms);
        }
        connection->options.handlers.message(connection->options.handlers.context, message, parts);
    }
    arena_reset(connection->options.arena);
}

static void take_chunk(struct connection *connection, const void *head, size_t head_bytes,
                       struct link_message *parts)
{
    struct frame_chunk chunk;
    if (link_message_parts(parts) != 2 || frame_read_chunk(head, head_bytes, &chunk) < 0) {
        complain(connection, "a malformed chunk was dropped");
        return;
    }
    size_t bytes = 0;
    const void *data = link_message_part(parts, 1, &bytes);
    connection->options.handlers.chunk(connection->options.handlers.context, &chunk, data, bytes);
}

/* Whoever answers there will not say welcome; that is told when the time for it is over. */
static void note_stranger(struct connection *connection, int r, enum frame_kind kind,
                          uint8_t version)
{
    connection->is_stranger = true;
    if (r == -EPROTONOSUPPORT) {
        complain(connection, "it speaks protocol version %u, this library %d", version,
                 FRAME_VERSION);
    } else if (r < 0) {
        complain(connection,
                 "it does not speak tiermq's protocol; is this the broker's client address?");
    } else {
        complain(connection,
                 "it is a broker's address for %s; clients connect to its broker.listen_clients",
                 kind == FRAME_EVENT ? "events" : "workers");
    }
}

static void receive(void *context, const void *peer, size_t peer_bytes, struct link_message *parts)
{
    (void)peer, (void)peer_bytes;
    struct connection *connection = context;
    const int64_t now_ms = clock_monotonic_ms();
    connection->heard_at_ms = now_ms;
    if (link_message_parts(parts) == 0) {
        complain(connection, "a message with too many parts was dropped");
        return;
    }
    size_t bytes = 0;
    const uint8_t *head = link_message_part(parts, 0, &bytes);
    enum frame_kind kind = 0;
    uint8_t version = 0;
    int r = frame_read_header(head, bytes, &kind, &version);
    if (r < 0 || kind == FRAME_BROKER_TO_WORKER || kind == FRAME_EVENT) {
        note_stranger(connection, r, kind, version);
    } else if (kind == FRAME_BROKER_TO_CLIENT) {
        take_envelope(connection, head + FRAME_HEADER_BYTES, bytes - FRAME_HEADER_BYTES, parts,
                      now_ms);
    } else if (kind == FRAME_CHUNK) {
        take_chunk(connection, head, bytes, parts);
    }
}

/*
 * A broker that is gone would otherwise be missed only after heartbeats. The link would connect
 * again by itself, but to a broker that does not know this connection, and without what was on its
 * way.
 */
static void note_broken(void *context, const struct link_ending *ending)
{
    struct connection *connection = context;
    connection->is_broken = true;
    if (connection->state == CONNECTION_OPEN) {
        complain(connection, "the connection was lost: %s", ending->reason);
    } else if (connection->state == CONNECTION_GREETING) {
        complain(connection, "the connection was lost before a broker had answered: %s",
                 ending->reason);
    }
}

/* A refusal stands, whatever becomes of the connection that brought it. */
static bool is_lost(const struct connection *connection)
{
    return connection->is_broken && connection->state != CONNECTION_REFUSED;
}

static int open_link(struct connection *connection)
{
    const struct link_options options = {
        .kind = LINK_DEALER,
        .endpoint = connection->options.endpoint,
        .part_bytes_max = ANSWER_BYTES_MAX,
        .on_disconnected = note_broken,
    };
    return link_create(connection->options.loop, &options, receive, connection, &connection->link);
}

/* The first hello of a link, whose peer may be known by name alone. */
static void begin_greeting(struct connection *connection, int64_t now_ms)
{
    connection->heard_at_ms = now_ms;
    connection->is_stranger = false;
    say_hello(connection, now_ms);
    connection->is_looking_up = link_is_looking_up(connection->link);
    if (connection->is_looking_up) {
        connection->act_at_ms = now_ms + CONNECTION_LOOKUP_MS;
    }
}

/* Only the first lookup of a link is waited for: one that has failed begins another by itself. */
static void note_looked_up(struct connection *connection, int64_t now_ms)
{
    if (connection->is_looking_up && !link_is_looking_up(connection->link)) {
        connection->is_looking_up = false;
        if (connection->state == CONNECTION_GREETING) {
            connection->act_at_ms = now_ms + CONNECTION_GREETING_MS;
        }
    }
}

static void give_greeting_up(struct connection *connection, int64_t now_ms)
{
    if (connection->is_looking_up) {
        complain(connection, "its name could not be looked up within %d ms", CONNECTION_LOOKUP_MS);
    } else if (!connection->is_stranger) {
        complain(connection, "no broker answered within %d ms", CONNECTION_GREETING_MS);
    }
    start_over(connection, now_ms);
}

static void start(struct connection *connection, int64_t now_ms)
{
    int r = open_link(connection);
    if (r < 0) {
        complain(connection, "cannot connect: %s", strerror(-r));
        start_over(connection, now_ms);
        return;
    }
    begin_greeting(connection, now_ms);
}

static void ping(struct connection *connection, int64_t now_ms)
{
    const int64_t silent_ms = now_ms - connection->heard_at_ms;
    if (silent_ms >= silent_ms_max(connection)) {
        complain(connection, "silent for %lld ms", (long long)silent_ms);
        start_over(connection, now_ms);
        return;
    }
    connection->act_at_ms = now_ms + ping_ms(connection);
    Wire__ClientMessage message = WIRE__CLIENT_MESSAGE__INIT;
    message.ping = ++connection->pings;
    int r = send_message(connection, &message, NULL, 0);
    if (r < 0) {
        complain(connection, "cannot send: %s", strerror(-r));
    }
}

int connection_create(const struct connection_options *options, int64_t now_ms,
                      struct connection **ret_connection)
{
    CLEANUP(connection_destroy) struct connection *connection = calloc(1, sizeof(*connection));
    if (connection == NULL) {
        return -ENOMEM;
    }
    connection->options = *options;
    connection->closed_since_ms = now_ms;
    connection->heartbeat_ms = CONNECTION_PING_MS_MAX;
    /* The socket is opened here, so that a malformed endpoint is the caller's error and not a
     * silent retry. */
    int r = open_link(connection);
    if (r < 0) {
        return r;
    }
    (void)snprintf(connection->looks_up, sizeof(connection->looks_up),
                   "%.100s: its name is being looked up", options->endpoint);
    begin_greeting(connection, now_ms);
    *ret_connection = TAKE(connection);
    return 0;
}

void connection_destroy(struct connection **connection)
{
    if (*connection != NULL) {
        if ((*connection)->state != CONNECTION_OPEN || (*connection)->is_broken) {
            drop_link(*connection);
        }
        link_destroy(&(*connection)->link);
        free((*connection)->packed);
        free(*connection);
        *connection = NULL;
    }
}

void connection_tick(struct connection *connection, int64_t now_ms)
{
    if (is_lost(connection)) {
        start_over(connection, now_ms); /* all that came before it broke was handed over */
        return;
    }
    note_looked_up(connection, now_ms);
    if (now_ms < connection->act_at_ms) {
        return;
    }
    switch (connection->state) {
    case CONNECTION_WAITING:
        start(connection, now_ms);
        return;
    case CONNECTION_GREETING:
        give_greeting_up(connection, now_ms);
        return;
    case CONNECTION_OPEN:
        ping(connection, now_ms);
        return;
    case CONNECTION_REFUSED:
        start_over(connection, now_ms);
        return;
    }
}

int64_t connection_next_ms(const struct connection *connection)
{
    return is_lost(connection) ? 0 : connection->act_at_ms;
}

int connection_send(struct connection *connection, const Wire__ClientMessage *message,
                    struct blob *const *payloads, size_t payloads_length)
{
    if (connection->state != CONNECTION_OPEN) {
        return -ENOTCONN;
    }
    int r = send_message(connection, message, payloads, payloads_length);
    return r == -EHOSTUNREACH ? -EAGAIN : r;
}

bool connection_is_open(const struct connection *connection)
{
    return connection->state == CONNECTION_OPEN;
}

bool connection_is_refused(const struct connection *connection)
{
    return connection->state == CONNECTION_REFUSED;
}

int64_t connection_closed_since_ms(const struct connection *connection)
{
    return connection->closed_since_ms;
}

uint64_t connection_incarnation(const struct connection *connection)
{
    return connection->incarnation;
}

uint64_t connection_payload_bytes_max(const struct connection *connection)
{
    return connection->payload_bytes_max;
}

const char *connection_why(const struct connection *connection)
{
    const bool looks_up = connection->state == CONNECTION_GREETING && connection->is_looking_up &&
                          link_is_looking_up(connection->link);
    return looks_up ? connection->looks_up : connection->why;
}
