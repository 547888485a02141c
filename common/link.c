/*
 * A link is a set of peers, each with a wire. What is hard here:
 * - Everybody gets a turn. Peers with something to read stand in a row; each is read once, and goes
 *   to the end of the row if there is more, until the turn's budget is spent.
 * - A handler may destroy the link from within a message: then everything waits until that returns.
 * - A peer is in one phase, each of which has its time: a handshake, then heartbeats. Those of a
 *   phase stand in the order in which they came into it, so that one timer does for all.
 */
#include "common/link.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include "common/clock.h"
#include "common/frame.h"
#include "common/link_connecter.h"
#include "common/link_listener.h"
#include "common/link_names.h"
#include "common/link_topics.h"
#include "common/link_wire.h"
#include "common/list.h"
#include "common/loop.h"

enum {
    SHARED_BYTES = 128 << 10,
    /* So much for one peer goes before the turn ends: it works on it while we pack the next. */
    FLUSH_BYTES = 64 << 10,
    LINGER_LOOK_MS = 1,
};

enum phase {
    PHASE_APART, /* no connection */
    PHASE_HANDSHAKE,
    PHASE_LIVELY,
    PHASE_ASKED, /* for a sign of life */
    PHASES
};

static const int64_t PHASE_MS[PHASES] = {
    [PHASE_APART] = INT64_MAX,
    [PHASE_HANDSHAKE] = LINK_HANDSHAKE_MS,
    [PHASE_LIVELY] = LINK_HEARTBEAT_MS,
    [PHASE_ASKED] = LINK_HEARTBEAT_TIMEOUT_MS,
};

struct peer {
    struct link *link;
    struct link_wire wire;
    enum phase phase;
    int64_t phase_since_ms;
    struct list_link phase_link;    /* in link->phases */
    bool is_done;                   /* at the link's end: nothing more goes there */
    struct list_link readable_link; /* in link->readable */
    bool is_readable;
    struct list_link unflushed_link; /* in link->unflushed */
    bool is_unflushed;
    size_t unflushed_bytes;
    size_t held_bytes;                     /* by the wire's reader, as link->held_bytes knows it */
    struct link_name name;                 /* ROUTER */
    struct link_topics topics;             /* PUB */
    char address[LINK_PEER_ADDRESS_BYTES]; /* kept: a socket that was reset does not say */
};

struct link {
    struct loop *loop;
    enum link_kind kind;
    size_t part_bytes_max;
    size_t queue_messages_max;
    size_t held_bytes, held_bytes_max; /* by all peers */
    link_fn *handler;
    void (*on_disconnected)(void *context, const struct link_ending *ending);
    void *context;
    struct link_wire_handler wire_handler;
    struct link_listener *listener;   /* NULL: it connects */
    struct link_connecter *connecter; /* NULL: it listens */
    struct peer *only;                /* the peer of one that connects */
    struct list phases[PHASES];       /* all peers */
    struct list readable;
    struct list unflushed;
    struct link_names names;
    struct loop_task *serving, *flushing;
    struct loop_timer *timer;
    int64_t timer_ms;    /* INT64_MAX: it is not set */
    uint64_t bytes;      /* received and sent */
    struct iovec shared; /* what is read goes here first */
    bool is_serving;     /* a destruction waits until it ends */
    bool is_destroyed;
    bool forgoes_linger;
    char endpoint[LINK_ENDPOINT_BYTES];
};

static struct peer *peer_of(struct link_wire *wire)
{
    return CONTAINER_OF(wire, struct peer, wire);
}

/* ---- phases ---- */

static void set_timer(struct link *link, int64_t at_ms)
{
    if (at_ms < link->timer_ms) {
        link->timer_ms = at_ms;
        loop_timer_set(link->timer, at_ms);
    }
}

static void enter_phase(struct peer *peer, enum phase phase)
{
    struct link *link = peer->link;
    list_remove(&link->phases[peer->phase], &peer->phase_link);
    list_append(&link->phases[phase], &peer->phase_link);
    peer->phase = phase;
    peer->phase_since_ms = loop_now_ms(link->loop);
    if (phase != PHASE_APART) {
        set_timer(link, peer->phase_since_ms + PHASE_MS[phase]);
    }
}

static struct peer *first_in_phase(struct link *link, enum phase phase)
{
    struct list_link *first = list_first(&link->phases[phase]);
    return first == NULL ? NULL : CONTAINER_OF(first, struct peer, phase_link);
}

/* ---- peers ---- */

static void unlist(struct peer *peer)
{
    if (peer->is_readable) {
        list_remove(&peer->link->readable, &peer->readable_link);
    }
    if (peer->is_unflushed) {
        list_remove(&peer->link->unflushed, &peer->unflushed_link);
    }
    peer->is_readable = peer->is_unflushed = false;
}

static int peer_create(struct link *link, struct peer **ret_peer)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    if (peer == NULL) {
        return -ENOMEM;
    }
    peer->link = link;
    link_wire_init(&peer->wire, link->loop, &link->wire_handler, link->part_bytes_max,
                   link->queue_messages_max);
    list_append(&link->phases[PHASE_APART], &peer->phase_link);
    *ret_peer = peer;
    return 0;
}

static void note_held(struct peer *peer, size_t bytes)
{
    peer->link->held_bytes += bytes - peer->held_bytes;
    peer->held_bytes = bytes;
}

static void peer_destroy(struct peer *peer)
{
    struct link *link = peer->link;
    unlist(peer);
    note_held(peer, 0);
    list_remove(&link->phases[peer->phase], &peer->phase_link);
    link_names_remove(&link->names, &peer->name);
    link_topics_finish(&peer->topics);
    link_wire_finish(&peer->wire);
    free(peer);
}

/* Takes: fd. */
static int peer_open(struct peer *peer, int fd)
{
    link_address_of_peer(fd, peer->address);
    const int r = link_wire_open(&peer->wire, fd);
    if (r == 0) {
        enter_phase(peer, PHASE_HANDSHAKE);
        link_wire_flush(&peer->wire);
    }
    return r;
}

static void report_end(const struct peer *peer, enum link_end end, const char *reason)
{
    const struct link *link = peer->link;
    if (link->on_disconnected != NULL) {
        link->on_disconnected(
            link->context, &(struct link_ending){.end = end,
                                                 .reason = reason,
                                                 .address = peer->address,
                                                 .peer = peer->name.id,
                                                 .peer_bytes = peer->name.bytes,
                                                 .was_open = peer->wire.state == LINK_WIRE_OPEN});
    }
}

/* One that came is forgotten; to one that was sought the way is sought anew. */
static void peer_break(struct peer *peer, enum link_end end, const char *reason)
{
    struct link *link = peer->link;
    report_end(peer, end, reason);
    link_wire_refuse(&peer->wire, reason);
    note_held(peer, 0);
    if (peer != link->only) {
        peer_destroy(peer);
    } else {
        unlist(peer);
        enter_phase(peer, PHASE_APART);
        link_connecter_start_later(link->connecter);
    }
}

static void phase_is_over(struct peer *peer)
{
    switch (peer->phase) {
    case PHASE_APART:
        return;
    case PHASE_HANDSHAKE:
        peer_break(peer, LINK_END_SILENT, "the handshake takes too long");
        return;
    case PHASE_LIVELY:
        link_wire_ping(&peer->wire, LINK_HEARTBEAT_TIMEOUT_MS);
        enter_phase(peer, PHASE_ASKED);
        return;
    case PHASE_ASKED:
        if (peer->is_readable) { /* it has said something; nobody has had the time to hear it */
            enter_phase(peer, PHASE_LIVELY);
        } else {
            peer_break(peer, LINK_END_SILENT, "it is silent");
        }
        return;
    case PHASES:
        return;
    }
}

static void phases_are_over(void *context)
{
    struct link *link = context;
    const int64_t now_ms = loop_now_ms(link->loop);
    int64_t next_ms = INT64_MAX;
    link->timer_ms = INT64_MAX;
    for (enum phase phase = PHASE_HANDSHAKE; phase < PHASES; phase++) {
        struct peer *peer = first_in_phase(link, phase);
        while (peer != NULL && peer->phase_since_ms + PHASE_MS[phase] <= now_ms) {
            phase_is_over(peer);
            peer = first_in_phase(link, phase);
        }
        if (peer != NULL && peer->phase_since_ms + PHASE_MS[phase] < next_ms) {
            next_ms = peer->phase_since_ms + PHASE_MS[phase];
        }
    }
    if (next_ms != INT64_MAX) {
        set_timer(link, next_ms);
    }
}

/* ---- connections ---- */

static void accepted(void *context, int fd)
{
    struct link *link = context;
    struct peer *peer;
    if (link->phases[PHASE_HANDSHAKE].length >= LINK_HANDSHAKES_MAX) {
        peer_break(first_in_phase(link, PHASE_HANDSHAKE), LINK_END_CROWDED, "too many others come");
    }
    if (peer_create(link, &peer) < 0) {
        link_socket_close(fd);
    } else if (peer_open(peer, fd) < 0) {
        peer_destroy(peer);
    }
}

static void connected(void *context, int fd)
{
    struct link *link = context;
    if (peer_open(link->only, fd) < 0) {
        link_connecter_start_later(link->connecter);
    }
}

/* ---- handshakes ---- */

static const char *socket_type(enum link_kind kind)
{
    switch (kind) {
    case LINK_ROUTER:
        return "ROUTER";
    case LINK_DEALER:
        return "DEALER";
    case LINK_PUB:
        return "PUB";
    case LINK_SUB:
        return "SUB";
    }
    return "";
}

/*
 * Whom each may speak with. Not DEALER with DEALER: that may be the link itself, which a connection
 * to a port that nobody holds can reach.
 */
static bool fits(enum link_kind kind, const struct zmtp_command *ready)
{
    static const char *const fitting[][3] = {
        [LINK_ROUTER] = {"DEALER", "REQ", "ROUTER"},
        [LINK_DEALER] = {"ROUTER", "REP"},
        [LINK_PUB] = {"SUB", "XSUB"},
        [LINK_SUB] = {"PUB", "XPUB"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(fitting[kind]); i++) {
        const char *type = fitting[kind][i];
        if (type != NULL && ready->socket_type_bytes == strlen(type) &&
            memcmp(ready->socket_type, type, ready->socket_type_bytes) == 0) {
            return true;
        }
    }
    return false;
}

static void name_peer(struct link *link, struct peer *peer, const struct zmtp_command *ready)
{
    if (ready->identity_bytes == 0) {
        link_names_add_new(&link->names, &peer->name);
        return;
    }
    struct link_name *before =
        link_names_find(&link->names, ready->identity, ready->identity_bytes);
    if (before != NULL) {
        struct peer *gone = CONTAINER_OF(before, struct peer, name);
        report_end(gone, LINK_END_REPLACED, "another one has come under its name");
        peer_destroy(gone);
    }
    link_names_add(&link->names, &peer->name, ready->identity, ready->identity_bytes);
}

static int on_ready(void *context, struct link_wire *wire, const struct zmtp_command *ready,
                    const char **ret_reason)
{
    struct link *link = context;
    if (!fits(link->kind, ready)) {
        *ret_reason = "its socket type does not fit this one";
        return -EPROTO;
    }
    switch (link->kind) {
    case LINK_ROUTER:
        name_peer(link, peer_of(wire), ready);
        break;
    case LINK_SUB:
        link_wire_subscribe_all(wire);
        break;
    case LINK_DEALER:
    case LINK_PUB:
        break;
    }
    if (link->connecter != NULL) {
        link_connecter_succeeded(link->connecter);
    }
    return 0;
}

static int on_subscription(void *context, struct link_wire *wire, const void *prefix, size_t bytes,
                           bool is_cancelled, const char **ret_reason)
{
    const struct link *link = context;
    struct link_topics *topics = &peer_of(wire)->topics;
    if (link->kind != LINK_PUB) {
        return 0;
    }
    if (is_cancelled) {
        link_topics_cancel(topics, prefix, bytes);
        return 0;
    }
    return link_topics_add(topics, prefix, bytes, ret_reason);
}

/* ---- receiving ---- */

/* ZMTP 3.0 has no commands for it: 1 or 0, and the prefix. Other messages are nobody's. */
static int take_subscription(struct link *link, struct link_wire *wire,
                             const struct link_message *message, const char **ret_reason)
{
    size_t bytes;
    const uint8_t *data = link_message_part(message, 0, &bytes);
    if (bytes == 0 || data[0] > 1) {
        return 0;
    }
    return on_subscription(link, wire, data + 1, bytes - 1, data[0] == 0, ret_reason);
}

static int on_message(void *context, struct link_wire *wire, struct link_message *message,
                      const char **ret_reason)
{
    struct link *link = context;
    link->bytes += message->bytes;
    if (link->kind == LINK_PUB) {
        return take_subscription(link, wire, message, ret_reason);
    }
    if (!link->is_destroyed) {
        const struct link_name *name = &peer_of(wire)->name;
        link->handler(link->context, name->id, name->bytes, message);
    }
    return link->is_destroyed ? -ECANCELED : 0;
}

static void stand_in_row(struct peer *peer)
{
    if (!peer->is_readable) {
        peer->is_readable = true;
        list_append(&peer->link->readable, &peer->readable_link);
    }
}

static void on_readable(void *context, struct link_wire *wire)
{
    struct link *link = context;
    stand_in_row(peer_of(wire));
    loop_task_ask(link->serving);
}

static struct peer *who_holds_most(struct link *link)
{
    struct peer *most = NULL;
    for (enum phase phase = PHASE_HANDSHAKE; phase < PHASES; phase++) {
        list_for_each (&link->phases[phase], at) {
            struct peer *peer = CONTAINER_OF(at, struct peer, phase_link);
            most = most == NULL || peer->held_bytes > most->held_bytes ? peer : most;
        }
    }
    return most;
}

/* Not whoever came last: one that holds much would keep all others out. */
static void bound_held(struct link *link)
{
    while (link->held_bytes > link->held_bytes_max) {
        struct peer *peer = who_holds_most(link);
        assert(peer != NULL);
        peer_break(peer, LINK_END_CROWDED, "too much of its messages is under way");
    }
}

static void serve_first(struct link *link, struct link_budget *budget)
{
    struct peer *peer = CONTAINER_OF(list_first(&link->readable), struct peer, readable_link);
    list_remove(&link->readable, &peer->readable_link);
    peer->is_readable = false;
    const char *reason = "";
    const int r = link_wire_read(&peer->wire, &link->shared, budget, &reason);
    if (link->is_destroyed) {
        return;
    }
    if (r < 0) {
        peer_break(peer, link_end_of_error(r), reason);
        return;
    }
    if (peer->wire.state == LINK_WIRE_OPEN) {
        enter_phase(peer, PHASE_LIVELY);
    }
    if (r > 0) {
        stand_in_row(peer);
    }
    note_held(peer, link_reader_held_bytes(&peer->wire.reader));
    bound_held(link);
}

static void release(struct link *link);

static void serve(void *context)
{
    struct link *link = context;
    struct link_budget budget = {.items = LINK_MESSAGES_PER_TURN, .bytes = LINK_BYTES_PER_TURN};
    link->is_serving = true;
    while (!list_is_empty(&link->readable) && budget.items > 0 && budget.bytes > 0 &&
           !link->is_destroyed) {
        serve_first(link, &budget);
    }
    link->is_serving = false;
    if (link->is_destroyed) {
        release(link);
    } else if (!list_is_empty(&link->readable)) {
        loop_task_ask(link->serving);
    }
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
    const struct link_part *part = &message->parts[index];
    *ret_bytes = part->bytes;
    return part->blob != NULL ? blob_data(part->blob) : message->buffer + part->at;
}

int link_take_blob(struct link_message *message, size_t index, struct blob **ret_blob)
{
    if (index >= message->length) {
        return -EINVAL;
    }
    struct link_part *part = &message->parts[index];
    if (part->blob != NULL) {
        *ret_blob = TAKE(part->blob);
    } else {
        const int r = blob_create(message->buffer + part->at, part->bytes, ret_blob);
        if (r < 0) {
            return r;
        }
    }
    part->bytes = 0;
    return 0;
}

/* ---- sending ---- */

static void flush_peer(struct peer *peer)
{
    if (peer->is_unflushed) {
        list_remove(&peer->link->unflushed, &peer->unflushed_link);
        peer->is_unflushed = false;
    }
    peer->unflushed_bytes = 0;
    link_wire_flush(&peer->wire);
}

static void flush(void *context)
{
    struct link *link = context;
    while (!list_is_empty(&link->unflushed)) {
        flush_peer(CONTAINER_OF(list_first(&link->unflushed), struct peer, unflushed_link));
    }
}

static bool can_write(const struct peer *peer)
{
    return peer->wire.state == LINK_WIRE_OPEN && !peer->wire.is_blocked && !peer->wire.is_mute;
}

/* One that is full may only have had no turn to be written in. */
static int reserve(struct peer *peer)
{
    int r = link_queue_reserve(&peer->wire.queue);
    if (r == -EAGAIN && can_write(peer)) {
        flush_peer(peer);
        r = link_queue_reserve(&peer->wire.queue);
    }
    return r;
}

static void push(struct peer *peer, struct link_parcel *parcel, size_t bytes)
{
    link_queue_push(&peer->wire.queue, parcel);
    peer->link->bytes += bytes;
    if (!can_write(peer)) {
        return; /* what stands in the way says when it has gone */
    }
    peer->unflushed_bytes += bytes;
    if (peer->unflushed_bytes >= FLUSH_BYTES) {
        flush_peer(peer);
    } else if (!peer->is_unflushed) {
        peer->is_unflushed = true;
        list_append(&peer->link->unflushed, &peer->unflushed_link);
        loop_task_ask(peer->link->flushing);
    }
}

/* NULL: there is none. */
static struct peer *find_peer(struct link *link, const void *id, size_t bytes)
{
    if (link->kind == LINK_DEALER) {
        return link->only;
    }
    struct link_name *name = link_names_find(&link->names, id, bytes);
    struct peer *peer = name == NULL ? NULL : CONTAINER_OF(name, struct peer, name);
    return peer != NULL && !peer->wire.is_mute ? peer : NULL;
}

static int send_to(struct peer *peer, struct link_parcel *parcel, size_t bytes)
{
    const int r = reserve(peer);
    if (r == 0) {
        push(peer, parcel, bytes);
    }
    return r;
}

static void publish(struct link *link, struct link_parcel *parcel, size_t bytes, const void *head,
                    size_t head_bytes)
{
    for (enum phase phase = PHASE_LIVELY; phase < PHASES; phase++) {
        list_for_each (&link->phases[phase], at) {
            struct peer *peer = CONTAINER_OF(at, struct peer, phase_link);
            if (link_topics_match(&peer->topics, head, head_bytes)) {
                (void)!send_to(peer, parcel, bytes); /* it loses this one */
            }
        }
    }
}

int link_send(struct link *link, const void *peer_id, size_t peer_bytes, const void *head,
              size_t head_bytes, struct blob *const *payloads, size_t payloads_length)
{
    assert(link->kind != LINK_SUB);
    if (payloads_length >= FRAME_PARTS_MAX) {
        return -EMSGSIZE;
    }
    struct peer *peer = link->kind == LINK_PUB ? NULL : find_peer(link, peer_id, peer_bytes);
    if (peer == NULL && link->kind != LINK_PUB) {
        return -EHOSTUNREACH;
    }
    CLEANUP(link_parcel_unref) struct link_parcel *parcel = NULL;
    const int r = link_parcel_create(head, head_bytes, payloads, payloads_length, &parcel);
    if (r < 0) {
        return r;
    }
    const size_t bytes = link_parcel_bytes(parcel);
    if (peer != NULL) {
        return send_to(peer, parcel, bytes);
    }
    publish(link, parcel, bytes, head, head_bytes);
    return 0;
}

/* ---- the link ---- */

static int listen_at(struct link *link, const struct link_address *address)
{
    const int r = link_listener_create(link->loop, address, accepted, link, &link->listener);
    if (r == 0) {
        memcpy(link->endpoint, link_listener_endpoint(link->listener), sizeof(link->endpoint));
    }
    return r;
}

static int connect_to(struct link *link, const struct link_address *address, const char *endpoint)
{
    memcpy(link->endpoint, endpoint, strlen(endpoint) + 1); /* parsing has looked at its length */
    int r = peer_create(link, &link->only);
    r = r < 0 ? r : link_connecter_create(link->loop, address, connected, link, &link->connecter);
    if (r == 0) {
        link_connecter_start(link->connecter);
    }
    return r;
}

static void init_lists(struct link *link)
{
    for (size_t phase = 0; phase < PHASES; phase++) {
        list_init(&link->phases[phase]);
    }
    list_init(&link->readable);
    list_init(&link->unflushed);
}

static int open_link(struct link *link, const struct link_options *options)
{
    link->shared = (struct iovec){.iov_base = malloc(SHARED_BYTES), .iov_len = SHARED_BYTES};
    if (link->shared.iov_base == NULL) {
        return -ENOMEM;
    }
    struct link_address address;
    int r = link_address_parse(options->endpoint, options->bind, &address);
    r = r < 0 ? r : link_names_init(&link->names);
    r = r < 0 ? r : loop_task_create(link->loop, LOOP_AFTER_EVENTS, serve, link, &link->serving);
    r = r < 0 ? r : loop_task_create(link->loop, LOOP_BEFORE_SLEEP, flush, link, &link->flushing);
    r = r < 0 ? r : loop_timer_create(link->loop, phases_are_over, link, &link->timer);
    if (r < 0) {
        return r;
    }
    return options->bind ? listen_at(link, &address)
                         : connect_to(link, &address, options->endpoint);
}

int link_create(struct loop *loop, const struct link_options *options, link_fn *handler,
                void *context, struct link **ret_link)
{
    struct link *link = calloc(1, sizeof(*link));
    if (link == NULL) {
        return -ENOMEM;
    }
    *link = (struct link){
        .loop = loop,
        .kind = options->kind,
        .part_bytes_max = options->part_bytes_max,
        .queue_messages_max = options->queue_messages_max > 0 ? (size_t)options->queue_messages_max
                                                              : LINK_QUEUE_MESSAGES_DEFAULT_MAX,
        .held_bytes_max =
            options->held_bytes_max > 0 ? options->held_bytes_max : LINK_HELD_BYTES_DEFAULT_MAX,
        .handler = handler,
        .on_disconnected = options->on_disconnected,
        .context = context,
        .wire_handler = {.socket_type = socket_type(options->kind),
                         .on_readable = on_readable,
                         .on_ready = on_ready,
                         .on_subscription = on_subscription,
                         .on_message = on_message,
                         .context = link},
        .timer_ms = INT64_MAX,
    };
    init_lists(link);
    const int r = open_link(link, options);
    if (r < 0) {
        link_destroy(&link);
        return r;
    }
    *ret_link = link;
    return 0;
}

/* ---- the end ---- */

/* Does what one wire can do at once: a handshake is brought to its end, too. False: nothing more
 * goes there. */
static bool linger_once(struct link *link, struct link_wire *wire)
{
    const bool is_open = wire->state == LINK_WIRE_OPEN;
    const char *reason;
    struct link_budget budget = {.items = 1, .bytes = 1};
    struct pollfd item = {.fd = wire->fd, .events = POLLIN};
    if (!is_open && poll(&item, 1, 0) == 1 &&
        link_wire_read(wire, &link->shared, &budget, &reason) < 0 &&
        wire->state != LINK_WIRE_OPEN) {
        return false;
    }
    link_wire_flush(wire);
    return link_wire_has_unsent(wire);
}

static int left_ms(int64_t until_ms)
{
    const int64_t now_ms = clock_monotonic_ms();
    return now_ms < until_ms ? (int)(until_ms - now_ms) : 0;
}

static void linger_for_connection(struct link *link, int64_t until_ms)
{
    struct peer *peer = link->only;
    while (peer != NULL && peer->wire.state == LINK_WIRE_CLOSED &&
           !link_queue_is_empty(&peer->wire.queue) && left_ms(until_ms) > 0 &&
           link_connecter_wait(link->connecter, left_ms(until_ms))) {
    }
}

/* One look at every peer, so that none that reads nothing keeps the others from what is theirs.
 * True: something may still go. */
static bool linger_round(struct link *link)
{
    bool is_waiting = false;
    for (enum phase phase = PHASE_APART; phase < PHASES; phase++) {
        list_for_each (&link->phases[phase], at) {
            struct peer *peer = CONTAINER_OF(at, struct peer, phase_link);
            peer->is_done = peer->is_done || !linger_once(link, &peer->wire);
            is_waiting = is_waiting || !peer->is_done;
        }
    }
    return is_waiting;
}

static void linger(struct link *link, int64_t until_ms)
{
    linger_for_connection(link, until_ms);
    while (linger_round(link) && left_ms(until_ms) > 0) {
        (void)poll(NULL, 0,
                   LINGER_LOOK_MS); /* nothing tells when the kernel has sent the last of it */
    }
}

static void release_peers(struct link *link)
{
    linger(link, link->forgoes_linger ? 0 : clock_monotonic_ms() + LINK_LINGER_MS);
    for (enum phase phase = PHASE_APART; phase < PHASES; phase++) {
        for (struct peer *peer = first_in_phase(link, phase); peer != NULL;
             peer = first_in_phase(link, phase)) {
            link_wire_ignore(&peer->wire);
            peer_destroy(peer);
        }
    }
}

static void release(struct link *link)
{
    link_listener_destroy(&link->listener);
    release_peers(link);
    link_connecter_destroy(&link->connecter);
    loop_task_destroy(&link->serving);
    loop_task_destroy(&link->flushing);
    loop_timer_destroy(&link->timer);
    link_names_finish(&link->names);
    free(link->shared.iov_base);
    free(link);
}

void link_destroy(struct link **link)
{
    struct link *gone = TAKE(*link);
    if (gone == NULL) {
        return;
    }
    gone->is_destroyed = true;
    gone->on_disconnected = NULL;
    if (!gone->is_serving) {
        release(gone);
    }
}

void link_forgo_linger(struct link *link)
{
    link->forgoes_linger = true;
}

bool link_is_looking_up(const struct link *link)
{
    return link->connecter != NULL && link_connecter_is_looking_up(link->connecter);
}

uint64_t link_bytes(const struct link *link)
{
    return link->bytes;
}

const char *link_endpoint(const struct link *link)
{
    return link->endpoint;
}
