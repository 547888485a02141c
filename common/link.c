/*
 * The three things that are easily wrong with ZeroMQ on epoll, and where they are dealt with here:
 * - ZMQ_FD is edge-triggered, and a send may swallow the edge of a receive: every send and every
 * full receive round touches the loop's source, which then asks has_more() before it sleeps.
 * - Half a multipart message cannot be taken back: all parts are prepared before the first is sent.
 *   Under ROUTER only the first, the peer's name, can be refused; after it all parts go.
 * - A received message of less than 8 KiB refers to the 8 KiB buffer it was read into, so keeping
 * it keeps that: small parts are copied out, which costs less than the reference and pins nothing.
 */
#include "common/link.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>
#include "common/clock.h"
#include "common/frame.h"
#include "common/loop.h"

enum {
    COPY_BYTES_MAX = 4096,
    ENDPOINT_BYTES_MAX = 1024,
    BACKLOG = 1024,
    RECONNECT_FIRST_MS = 50,
    RECONNECT_MAX_MS = 2000,
    /* ZeroMQ's own, below those of the protocol: they find dead connections under idle sockets. */
    HEARTBEAT_INTERVAL_MS = 5000,
    HEARTBEAT_TIMEOUT_MS = 20000,
    KEEPALIVE_IDLE_S = 60,
};

/* 256 KiB for the largest message; memory that no message has touched costs nothing. */
struct link_message {
    zmq_msg_t *parts; /* FRAME_PARTS_MAX of them */
    size_t length;
};

struct link {
    void *socket;
    enum link_kind kind;
    struct loop_source *source;
    struct link *monitor; /* ZeroMQ's events; NULL: nobody wants to know of them */
    void (*on_disconnected)(void *context);
    link_fn *handler;
    void *context;
    struct link_message received;
    struct link_message outgoing;
    uint64_t bytes;    /* received and sent */
    bool is_receiving; /* a destruction waits until the round ends */
    bool is_destroyed;
    char endpoint[ENDPOINT_BYTES_MAX];
};

/* ---- opening ---- */

static int set_integer(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof(value)) < 0 ? -zmq_errno() : 0;
}

static int socket_type(enum link_kind kind)
{
    switch (kind) {
    case LINK_ROUTER:
        return ZMQ_ROUTER;
    case LINK_DEALER:
        return ZMQ_DEALER;
    case LINK_PUB:
        return ZMQ_PUB;
    case LINK_SUB:
        return ZMQ_SUB;
    case LINK_PAIR:
        return ZMQ_PAIR;
    }
    return -1;
}

static int set_kind_options(void *socket, enum link_kind kind)
{
    if (kind == LINK_SUB) {
        return zmq_setsockopt(socket, ZMQ_SUBSCRIBE, "", 0) < 0 ? -zmq_errno() : 0;
    }
    if (kind == LINK_ROUTER) {
        const int r = set_integer(socket, ZMQ_ROUTER_MANDATORY, 1);
        return r < 0 ? r : set_integer(socket, ZMQ_ROUTER_HANDOVER, 1);
    }
    return 0;
}

/*
 * With the option on, ZeroMQ takes a name's IPv6 address if it has one and tries no other, so
 * `localhost` would miss a broker on 127.0.0.1; and it shows IPv4 addresses as mapped ones. So
 * brackets ask for it, and all interfaces mean both.
 */
static bool wants_ipv6(const char *endpoint)
{
    return strchr(endpoint, '[') != NULL || strncmp(endpoint, "tcp://*", strlen("tcp://*")) == 0;
}

static int set_options(void *socket, const struct link_options *options)
{
    const int queue_max = options->queue_messages_max > 0 ? options->queue_messages_max
                                                          : LINK_QUEUE_MESSAGES_DEFAULT_MAX;
    const struct {
        int option, value;
    } settings[] = {
        {ZMQ_SNDHWM, queue_max},
        {ZMQ_RCVHWM, queue_max},
        {ZMQ_LINGER, LINK_LINGER_MS},
        {ZMQ_IPV6, wants_ipv6(options->endpoint)},
        {ZMQ_BACKLOG, BACKLOG},
        {ZMQ_RECONNECT_IVL, RECONNECT_FIRST_MS},
        {ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS},
        {ZMQ_HEARTBEAT_IVL, HEARTBEAT_INTERVAL_MS},
        {ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS},
        {ZMQ_HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS},
        {ZMQ_TCP_KEEPALIVE, 1},
        {ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(settings); i++) {
        const int r = set_integer(socket, settings[i].option, settings[i].value);
        if (r < 0) {
            return r;
        }
    }
    const int64_t part_bytes_max = (int64_t)options->part_bytes_max;
    if (zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &part_bytes_max, sizeof(part_bytes_max)) < 0) {
        return -zmq_errno();
    }
    return set_kind_options(socket, options->kind);
}

/* What ZeroMQ says about an address that does not make sense has several names. */
static int endpoint_error(int error)
{
    return error == ENODEV || error == EPROTONOSUPPORT || error == ENOCOMPATPROTO ? -EINVAL
                                                                                  : -error;
}

/* ZeroMQ takes the lower 16 bits of a port and says nothing. */
static bool has_senseless_port(const char *endpoint)
{
    const char *colon = strrchr(endpoint, ':');
    if (strncmp(endpoint, "tcp://", strlen("tcp://")) != 0 || colon == NULL) {
        return false;
    }
    errno = 0;
    char *end;
    const unsigned long port = strtoul(colon + 1, &end, 10);
    return *end == '\0' && (errno != 0 || port > UINT16_MAX);
}

static int attach(struct link *link, const struct link_options *options)
{
    if (has_senseless_port(options->endpoint)) {
        return -EINVAL;
    }
    const int r = options->bind ? zmq_bind(link->socket, options->endpoint)
                                : zmq_connect(link->socket, options->endpoint);
    if (r < 0) {
        return endpoint_error(zmq_errno());
    }
    size_t bytes = sizeof(link->endpoint);
    return zmq_getsockopt(link->socket, ZMQ_LAST_ENDPOINT, link->endpoint, &bytes) < 0
               ? -zmq_errno()
               : 0;
}

/* ---- receiving ---- */

static void clear(struct link_message *message)
{
    for (size_t i = 0; i < message->length; i++) {
        (void)zmq_msg_close(&message->parts[i]); /* fails only on a message that is none */
    }
    message->length = 0;
}

/* Parts of a message arrive together: once there is one, the others are there. */
static int receive_part(struct link *link, zmq_msg_t *part)
{
    (void)zmq_msg_init(part); /* cannot fail */
    if (zmq_msg_recv(part, link->socket, ZMQ_DONTWAIT) < 0) {
        const int r = -zmq_errno();
        (void)zmq_msg_close(part);
        return r;
    }
    return 0;
}

static int drop_rest(struct link *link)
{
    for (bool more = true; more;) {
        zmq_msg_t part;
        const int r = receive_part(link, &part);
        if (r < 0) {
            return r;
        }
        more = zmq_msg_more(&part);
        (void)zmq_msg_close(&part);
    }
    return 0;
}

static int receive_parts(struct link *link)
{
    struct link_message *message = &link->received;
    for (bool more = true; more;) {
        if (message->length == FRAME_PARTS_MAX) {
            clear(message);
            return drop_rest(link);
        }
        zmq_msg_t *part = &message->parts[message->length];
        const int r = receive_part(link, part);
        if (r < 0) {
            return r;
        }
        message->length++;
        more = zmq_msg_more(part);
    }
    return 0;
}

static int receive(struct link *link, zmq_msg_t *peer)
{
    if (link->kind != LINK_ROUTER) {
        (void)zmq_msg_init(peer);
        return receive_parts(link);
    }
    const int r = receive_part(link, peer);
    if (r < 0) {
        (void)zmq_msg_init(peer);
        return r;
    }
    return zmq_msg_more(peer) ? receive_parts(link) : 0;
}

static size_t bytes_of(const struct link_message *message)
{
    size_t bytes = 0;
    for (size_t i = 0; i < message->length; i++) {
        bytes += zmq_msg_size(&message->parts[i]);
    }
    return bytes;
}

/* Adds the size of what came to *bytes. */
static bool receive_one(struct link *link, size_t *bytes)
{
    zmq_msg_t peer;
    const int r = receive(link, &peer);
    if (r == 0) {
        *bytes += bytes_of(&link->received);
        link->bytes += bytes_of(&link->received);
        link->handler(link->context, zmq_msg_data(&peer), zmq_msg_size(&peer), &link->received);
    }
    clear(&link->received);
    (void)zmq_msg_close(&peer);
    return r == 0 && !link->is_destroyed;
}

static void release(struct link *link)
{
    if (link->socket != NULL) {
        (void)zmq_close(link->socket); /* fails only on what is no socket */
    }
    free(link->received.parts);
    free(link->outgoing.parts);
    free(link);
}

static void on_readable(void *context, uint32_t events)
{
    struct link *link = context;
    (void)events;
    link->is_receiving = true;
    size_t n = 0, bytes = 0;
    while (n < LINK_MESSAGES_PER_TURN && bytes < LINK_BYTES_PER_TURN && receive_one(link, &bytes)) {
        n++;
    }
    link->is_receiving = false;
    if (link->is_destroyed) {
        release(link);
        return;
    }
    if (n == LINK_MESSAGES_PER_TURN || bytes >= LINK_BYTES_PER_TURN) {
        loop_source_touch(link->source);
    }
}

static bool can_receive(void *context)
{
    const struct link *link = context;
    int events = 0;
    size_t bytes = sizeof(events);
    return zmq_getsockopt(link->socket, ZMQ_EVENTS, &events, &bytes) == 0 &&
           (events & ZMQ_POLLIN) != 0;
}

/* ---- breaks ---- */

/* An event is its number (16 bits, as the machine has them) with a value, and then an address. */
static void on_event(void *context, const void *peer, size_t peer_bytes,
                     struct link_message *message)
{
    (void)peer, (void)peer_bytes;
    struct link *link = context;
    size_t bytes = 0;
    const void *head = link_message_part(message, 0, &bytes);
    uint16_t event = 0;
    if (bytes >= sizeof(event)) {
        memcpy(&event, head, sizeof(event));
    }
    if (event == ZMQ_EVENT_DISCONNECTED) {
        link->on_disconnected(link->context);
    }
}

/* The name is not used twice: ZeroMQ gives one up some time after its socket is closed. */
/* NOLINTNEXTLINE(misc-no-recursion): once: a monitor has none */
static int watch_breaks(struct link *link, struct loop *loop, void *zmq_context)
{
    char endpoint[64];
    snprintf(endpoint, sizeof(endpoint), "inproc://events-%p-%lld", (void *)link,
             (long long)clock_monotonic_ns());
    if (zmq_socket_monitor(link->socket, endpoint, ZMQ_EVENT_DISCONNECTED) < 0) {
        return -zmq_errno();
    }
    const struct link_options options = {
        .kind = LINK_PAIR, .endpoint = endpoint, .part_bytes_max = ENDPOINT_BYTES_MAX};
    return link_create(loop, zmq_context, &options, on_event, link, &link->monitor);
}

/* ---- the link ---- */

static int watch(struct link *link, struct loop *loop)
{
    int fd = -1;
    size_t bytes = sizeof(fd);
    if (zmq_getsockopt(link->socket, ZMQ_FD, &fd, &bytes) < 0) {
        return -zmq_errno();
    }
    const int r = loop_watch(loop, fd, EPOLLIN, on_readable, link, &link->source);
    if (r < 0) {
        return r;
    }
    loop_source_set_probe(link->source, can_receive);
    loop_source_touch(link->source); /* something may have come between opening and watching */
    return 0;
}

/* NOLINTNEXTLINE(misc-no-recursion): once: a monitor has none */
static int open_link(struct link *link, struct loop *loop, void *zmq_context,
                     const struct link_options *options)
{
    link->received.parts = malloc(FRAME_PARTS_MAX * sizeof(zmq_msg_t));
    link->outgoing.parts = malloc(FRAME_PARTS_MAX * sizeof(zmq_msg_t));
    if (link->received.parts == NULL || link->outgoing.parts == NULL) {
        return -ENOMEM;
    }
    link->socket = zmq_socket(zmq_context, socket_type(options->kind));
    if (link->socket == NULL) {
        return -zmq_errno();
    }
    int r = set_options(link->socket, options);
    if (r == 0 && options->on_disconnected != NULL) {
        r = watch_breaks(link, loop, zmq_context);
    }
    if (r == 0) {
        r = attach(link, options);
    }
    return r < 0 ? r : watch(link, loop);
}

/* NOLINTNEXTLINE(misc-no-recursion): once: a monitor has none */
int link_create(struct loop *loop, void *zmq_context, const struct link_options *options,
                link_fn *handler, void *context, struct link **ret_link)
{
    struct link *link = calloc(1, sizeof(*link));
    if (link == NULL) {
        return -ENOMEM;
    }
    link->kind = options->kind;
    link->handler = handler;
    link->context = context;
    link->on_disconnected = options->on_disconnected;
    const int r = open_link(link, loop, zmq_context, options);
    if (r < 0) {
        link_destroy(&link);
        return r;
    }
    *ret_link = link;
    return 0;
}

/* NOLINTNEXTLINE(misc-no-recursion): once: a monitor has none */
void link_destroy(struct link **link)
{
    struct link *gone = TAKE(*link);
    if (gone == NULL) {
        return;
    }
    if (gone->monitor != NULL) {
        (void)zmq_socket_monitor(gone->socket, NULL, 0); /* fails only on what is no socket */
        link_destroy(&gone->monitor);
    }
    loop_source_destroy(&gone->source);
    gone->is_destroyed = true;
    if (!gone->is_receiving) {
        release(gone);
    }
}

void link_forgo_linger(struct link *link)
{
    (void)set_integer(link->socket, ZMQ_LINGER, 0); /* fails only on what is no socket */
}

uint64_t link_bytes(const struct link *link)
{
    return link->bytes;
}

const char *link_endpoint(const struct link *link)
{
    return link->endpoint;
}

bool link_has_more(struct link *link)
{
    const bool has_more = can_receive(link);
    if (has_more) { /* the question has taken what would have woken the loop */
        loop_source_touch(link->source);
    }
    return has_more;
}

/* ---- messages ---- */

size_t link_message_parts(const struct link_message *message)
{
    return message->length;
}

const void *link_message_part(const struct link_message *message, size_t index, size_t *ret_bytes)
{
    if (index >= message->length) {
        *ret_bytes = 0;
        return NULL;
    }
    zmq_msg_t *part = &message->parts[index];
    *ret_bytes = zmq_msg_size(part);
    return zmq_msg_data(part);
}

static void close_message(void *room)
{
    (void)zmq_msg_close(room);
}

static int wrap_part(zmq_msg_t *part, struct blob **ret_blob)
{
    void *room;
    struct blob *blob;
    const int r = blob_create_with_room(sizeof(zmq_msg_t), close_message, &room, &blob);
    if (r < 0) {
        return r;
    }
    (void)zmq_msg_init(room);
    (void)zmq_msg_move(room, part); /* both are messages: cannot fail */
    blob_point_at(blob, zmq_msg_data(room), zmq_msg_size(room));
    *ret_blob = blob;
    return 0;
}

int link_take_blob(struct link_message *message, size_t index, struct blob **ret_blob)
{
    if (index >= message->length) {
        return -EINVAL;
    }
    zmq_msg_t *part = &message->parts[index];
    if (zmq_msg_size(part) > COPY_BYTES_MAX) {
        return wrap_part(part, ret_blob);
    }
    const int r = blob_create(zmq_msg_data(part), zmq_msg_size(part), ret_blob);
    if (r < 0) {
        return r;
    }
    (void)zmq_msg_close(part);
    (void)zmq_msg_init(part);
    return 0;
}

/* ---- sending ---- */

static int init_copy(zmq_msg_t *part, const void *data, size_t bytes)
{
    if (zmq_msg_init_size(part, bytes) < 0) {
        return -zmq_errno();
    }
    if (bytes > 0) {
        memcpy(zmq_msg_data(part), data, bytes);
    }
    return 0;
}

static void unref_payload(void *data, void *hint)
{
    struct blob *blob = hint;
    (void)data;
    blob_unref(&blob);
}

/* A payload that came in a message shares it; ZeroMQ has no const for bytes that it will not
 * change. */
static int init_reference(zmq_msg_t *part, struct blob *payload)
{
    zmq_msg_t *origin = blob_room(payload, close_message);
    if (origin != NULL) {
        (void)zmq_msg_init(part);
        return zmq_msg_copy(part, origin) < 0 ? -zmq_errno() : 0;
    }
    if (zmq_msg_init_data(part, (void *)blob_data(payload), blob_bytes(payload), unref_payload,
                          payload) < 0) {
        return -zmq_errno();
    }
    (void)blob_ref(payload);
    return 0;
}

static int prepare(struct link_message *outgoing, const void *head, size_t head_bytes,
                   struct blob *const *payloads, size_t payloads_length)
{
    int r = init_copy(&outgoing->parts[0], head, head_bytes);
    if (r < 0) {
        return r;
    }
    outgoing->length = 1;
    for (size_t i = 0; i < payloads_length; i++) {
        zmq_msg_t *part = &outgoing->parts[outgoing->length];
        r = blob_bytes(payloads[i]) > COPY_BYTES_MAX
                ? init_reference(part, payloads[i])
                : init_copy(part, blob_data(payloads[i]), blob_bytes(payloads[i]));
        if (r < 0) {
            return r;
        }
        outgoing->length++;
    }
    return 0;
}

/* A part that was sent is ZeroMQ's, and an empty message in its place; clear() closes both kinds
 * alike. */
static int send_parts(struct link *link, const void *peer, size_t peer_bytes)
{
    if (link->kind == LINK_ROUTER &&
        zmq_send(link->socket, peer, peer_bytes, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0) {
        return -zmq_errno();
    }
    for (size_t i = 0; i < link->outgoing.length; i++) {
        const int more = i + 1 < link->outgoing.length ? ZMQ_SNDMORE : 0;
        if (zmq_msg_send(&link->outgoing.parts[i], link->socket, ZMQ_DONTWAIT | more) < 0) {
            return -zmq_errno(); /* DEALER takes the earlier parts back when its peer goes meanwhile
                                  */
        }
    }
    return 0;
}

int link_send(struct link *link, const void *peer, size_t peer_bytes, const void *head,
              size_t head_bytes, struct blob *const *payloads, size_t payloads_length)
{
    assert(link->kind != LINK_SUB);
    if (payloads_length >= FRAME_PARTS_MAX) {
        return -EMSGSIZE;
    }
    int r = prepare(&link->outgoing, head, head_bytes, payloads, payloads_length);
    if (r == 0) {
        const size_t bytes = bytes_of(&link->outgoing);
        r = send_parts(link, peer, peer_bytes);
        link->bytes += r == 0 ? bytes : 0;
    }
    clear(&link->outgoing);
    if (!link->is_destroyed) {
        loop_source_touch(link->source);
    }
    return r;
}
