#include "common/link_wire.h"
#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include "common/link_address.h"

enum {
    SEGMENTS_MAX = 256,       /* of one write */
    IGNORED_READS_MAX = 1024, /* 4 MiB */
};

/* ---- opening and closing ---- */

static void on_event(void *context, uint32_t events);

void link_wire_init(struct link_wire *wire, struct loop *loop,
                    const struct link_wire_handler *handler, size_t part_bytes_max,
                    size_t queue_messages_max)
{
    *wire = (struct link_wire){.loop = loop, .handler = handler, .fd = -1};
    link_reader_init(&wire->reader, part_bytes_max);
    link_queue_init(&wire->queue, queue_messages_max);
}

void link_wire_finish(struct link_wire *wire)
{
    link_wire_close(wire);
    link_queue_finish(&wire->queue);
}

int link_wire_open(struct link_wire *wire, int fd)
{
    assert(wire->state == LINK_WIRE_CLOSED);
    const int r = loop_watch(wire->loop, fd, EPOLLIN, on_event, wire, &wire->source);
    if (r < 0) {
        link_socket_close(fd);
        return r;
    }
    link_socket_tune(fd);
    wire->fd = fd;
    wire->state = LINK_WIRE_GREETING;
    zmtp_write_greeting(wire->control);
    wire->control_bytes = ZMTP_GREETING_BYTES;
    return 0;
}

void link_wire_close(struct link_wire *wire)
{
    loop_source_destroy(&wire->source);
    link_socket_close(wire->fd);
    link_reader_finish(&wire->reader);
    link_queue_drop_begun(&wire->queue);
    wire->fd = -1;
    wire->state = LINK_WIRE_CLOSED;
    wire->greeting_bytes = wire->control_bytes = 0;
    wire->has_rest = wire->is_blocked = wire->is_mute = false;
}

/* ---- control ---- */

/* Where the next frame of control is to be written; NULL: the peer reads too little for that. */
static uint8_t *control_end(struct link_wire *wire)
{
    return wire->control_bytes + ZMTP_WRITTEN_BYTES_MAX <= sizeof(wire->control)
               ? wire->control + wire->control_bytes
               : NULL;
}

void link_wire_refuse(struct link_wire *wire, const char *reason)
{
    uint8_t *end = control_end(wire);
    if (wire->state == LINK_WIRE_GREETED && end != NULL) {
        wire->control_bytes += zmtp_write_error(reason, end);
        link_wire_flush(wire);
    }
    link_wire_close(wire);
}

void link_wire_ping(struct link_wire *wire, unsigned ttl_ms)
{
    uint8_t *end = control_end(wire);
    if (end != NULL) {
        wire->control_bytes += zmtp_write_ping(ttl_ms, end);
        link_wire_flush(wire);
    }
}

void link_wire_subscribe_all(struct link_wire *wire)
{
    uint8_t *end = control_end(wire);
    assert(end != NULL); /* behind nothing but READY */
    wire->control_bytes += zmtp_write_subscribe_all(wire->minor, end);
}

/* Goes when the reading ends. A peer that asks faster than that gets fewer answers. */
static void pong(struct link_wire *wire, const struct zmtp_command *ping)
{
    uint8_t *end = control_end(wire);
    if (end != NULL) {
        wire->control_bytes += zmtp_write_pong(ping->data, ping->data_bytes, end);
    }
}

/* ---- writing ---- */

/* Control goes between messages, so behind the rest of one that has gone in part. */
static size_t gather(struct link_wire *wire, struct iovec *ret_segments)
{
    const bool has_control = wire->control_bytes > 0;
    size_t length = 0;
    if (has_control && !link_queue_is_amid(&wire->queue)) {
        ret_segments[length++] =
            (struct iovec){.iov_base = wire->control, .iov_len = wire->control_bytes};
    }
    if (wire->state == LINK_WIRE_OPEN) {
        const size_t parcels_max = has_control && length == 0 ? 1 : SIZE_MAX;
        length += link_queue_peek(&wire->queue, parcels_max, ret_segments + length,
                                  SEGMENTS_MAX - length);
    }
    return length;
}

static void advance(struct link_wire *wire, size_t bytes)
{
    size_t of_control = 0;
    if (wire->control_bytes > 0 && !link_queue_is_amid(&wire->queue)) {
        of_control = bytes < wire->control_bytes ? bytes : wire->control_bytes;
        wire->control_bytes -= of_control;
        memmove(wire->control, wire->control + of_control, wire->control_bytes);
    }
    if (bytes > of_control) {
        link_queue_advance(&wire->queue, bytes - of_control);
    }
}

static void set_blocked(struct link_wire *wire, bool is_blocked)
{
    if (wire->is_blocked != is_blocked &&
        loop_source_set_events(wire->source, is_blocked ? EPOLLIN | EPOLLOUT : EPOLLIN) == 0) {
        wire->is_blocked = is_blocked;
    }
}

/* What it has sent before it went is still to be read; the end of that is the end of the wire. */
static void fall_silent(struct link_wire *wire)
{
    wire->is_mute = true;
    (void)shutdown(wire->fd, SHUT_RDWR);
}

static size_t bytes_of(const struct iovec *segments, size_t length)
{
    size_t bytes = 0;
    for (size_t i = 0; i < length; i++) {
        bytes += segments[i].iov_len;
    }
    return bytes;
}

/* Returns whether the kernel has taken all of it. */
static bool write_some(struct link_wire *wire, struct iovec *segments, size_t length)
{
    const struct msghdr message = {.msg_iov = segments, .msg_iovlen = length};
    ssize_t bytes;
    do {
        bytes = sendmsg(wire->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (bytes < 0 && errno == EINTR);
    if (bytes < 0) {
        if (errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM) {
            fall_silent(wire);
        }
        return false;
    }
    const bool is_all = (size_t)bytes == bytes_of(segments, length);
    advance(wire, (size_t)bytes);
    return is_all;
}

void link_wire_flush(struct link_wire *wire)
{
    struct iovec segments[SEGMENTS_MAX];
    while (!wire->is_mute && wire->state != LINK_WIRE_CLOSED) {
        const size_t length = gather(wire, segments);
        if (length == 0) {
            set_blocked(wire, false);
            return;
        }
        if (!write_some(wire, segments, length)) {
            set_blocked(wire, !wire->is_mute);
            return;
        }
    }
}

/* What the kernel has not sent for want of room at the peer: it is lost if the peer speaks to a
 * socket that is closed. Of other sockets than TCP's nothing is known. */
static bool has_unsent_in_kernel(const struct link_wire *wire)
{
    int bytes = 0;
    return ioctl(wire->fd, SIOCOUTQNSD, &bytes) == 0 && bytes > 0;
}

bool link_wire_has_unsent(const struct link_wire *wire)
{
    if (wire->is_mute || wire->state == LINK_WIRE_CLOSED) {
        return false;
    }
    return !link_queue_is_empty(&wire->queue) || has_unsent_in_kernel(wire);
}

void link_wire_ignore(struct link_wire *wire)
{
    uint8_t room[4096];
    for (int i = 0; i < IGNORED_READS_MAX; i++) {
        if (recv(wire->fd, room, sizeof(room), MSG_DONTWAIT) <= 0) {
            return;
        }
    }
}

static void on_event(void *context, uint32_t events)
{
    struct link_wire *wire = context;
    if ((events & EPOLLOUT) != 0) {
        link_wire_flush(wire);
    }
    if ((events & ~(uint32_t)EPOLLOUT) != 0) {
        wire->handler->on_readable(wire->handler->context, wire);
    }
}

/* ---- reading ---- */

static int fail(const char *reason, int error, const char **ret_reason)
{
    *ret_reason = reason;
    return error;
}

/* Returns how much was read; 0: nothing is there. Errors: -EPIPE, -ECONNRESET. */
static ssize_t read_some(struct link_wire *wire, struct iovec *segments, size_t length,
                         const char **ret_reason)
{
    struct msghdr message = {.msg_iov = segments, .msg_iovlen = length};
    const ssize_t bytes = recvmsg(wire->fd, &message, MSG_DONTWAIT);
    if (bytes > 0) {
        return bytes;
    }
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) {
        return 0;
    }
    if (bytes == 0 && !wire->is_mute) {
        return fail("the peer has closed it", -EPIPE, ret_reason);
    }
    return fail(bytes < 0 && errno == ETIMEDOUT ? "the peer's machine does not answer"
                                                : "it was reset",
                -ECONNRESET, ret_reason);
}

static int read_greeting(struct link_wire *wire, const char **ret_reason)
{
    struct iovec rest = {.iov_base = wire->greeting + wire->greeting_bytes,
                         .iov_len = sizeof(wire->greeting) - wire->greeting_bytes};
    const ssize_t bytes = read_some(wire, &rest, 1, ret_reason);
    if (bytes <= 0) {
        return (int)bytes;
    }
    wire->greeting_bytes += (size_t)bytes;
    const int r =
        zmtp_read_greeting(wire->greeting, wire->greeting_bytes, &wire->minor, ret_reason);
    if (r < 0) {
        return r == -EAGAIN ? 0 : r;
    }
    wire->state = LINK_WIRE_GREETED;
    uint8_t *end = control_end(wire);
    assert(end != NULL); /* behind nothing but our greeting */
    wire->control_bytes += zmtp_write_ready(wire->handler->socket_type, end);
    link_wire_flush(wire);
    return 1;
}

static int take_ready(struct link_wire *wire, const struct zmtp_command *command,
                      const char **ret_reason)
{
    if (wire->state != LINK_WIRE_GREETED) {
        return fail("READY comes twice", -EPROTO, ret_reason);
    }
    const int r = wire->handler->on_ready(wire->handler->context, wire, command, ret_reason);
    if (r == 0) {
        wire->state = LINK_WIRE_OPEN;
        link_wire_flush(wire);
    }
    return r;
}

static int take_command(struct link_wire *wire, const struct iovec *body, const char **ret_reason)
{
    const struct link_wire_handler *handler = wire->handler;
    struct zmtp_command command;
    const int r = zmtp_read_command(body->iov_base, body->iov_len, &command, ret_reason);
    if (r < 0) {
        return r;
    }
    if (wire->state != LINK_WIRE_OPEN && command.kind != ZMTP_READY && command.kind != ZMTP_ERROR) {
        return fail("it speaks before READY", -EPROTO, ret_reason);
    }
    switch (command.kind) {
    case ZMTP_READY:
        return take_ready(wire, &command, ret_reason);
    case ZMTP_ERROR:
        return fail("it refuses this side", -EPROTO, ret_reason);
    case ZMTP_PING:
        pong(wire, &command);
        return 0;
    case ZMTP_SUBSCRIBE:
    case ZMTP_CANCEL:
        return handler->on_subscription(handler->context, wire, command.data, command.data_bytes,
                                        command.kind == ZMTP_CANCEL, ret_reason);
    case ZMTP_PONG:
    case ZMTP_UNKNOWN:
        return 0;
    }
    return 0;
}

static int take_message(struct link_wire *wire, const char **ret_reason)
{
    if (wire->state != LINK_WIRE_OPEN) {
        return fail("it speaks before READY", -EPROTO, ret_reason);
    }
    return wire->handler->on_message(wire->handler->context, wire, &wire->reader.message,
                                     ret_reason);
}

static int take_item(struct link_wire *wire, struct link_budget *budget, enum link_item *ret_item,
                     const char **ret_reason)
{
    struct iovec body = {0};
    const int r = link_reader_next(&wire->reader, ret_item, &body, ret_reason);
    if (r < 0) {
        return r;
    }
    switch (*ret_item) {
    case LINK_NOTHING:
        return 0;
    case LINK_COMMAND:
        budget->items--;
        return take_command(wire, &body, ret_reason);
    case LINK_MESSAGE:
        budget->items--;
        return take_message(wire, ret_reason);
    }
    return 0;
}

/* Hands over what the reader has and the turn has time for. */
static int take_items(struct link_wire *wire, struct link_budget *budget, const char **ret_reason)
{
    enum link_item item = LINK_COMMAND;
    bool is_spent = false;
    while (item != LINK_NOTHING && !is_spent) {
        const int r = take_item(wire, budget, &item, ret_reason);
        if (r < 0) {
            return r;
        }
        is_spent = budget->items == 0;
    }
    wire->has_rest = item != LINK_NOTHING;
    return link_reader_keep(&wire->reader);
}

static int read_frames(struct link_wire *wire, const struct iovec *shared,
                       struct link_budget *budget, const char **ret_reason)
{
    ssize_t bytes = 0;
    bool is_full = true;
    if (!wire->has_rest) {
        struct iovec segments[2];
        const size_t length = link_reader_room(&wire->reader, shared, segments);
        bytes = read_some(wire, segments, length, ret_reason);
        if (bytes <= 0) {
            return (int)bytes;
        }
        is_full = (size_t)bytes == bytes_of(segments, length);
        budget->bytes -= (size_t)bytes < budget->bytes ? (size_t)bytes : budget->bytes;
    }
    int r = link_reader_begin(&wire->reader, shared, (size_t)bytes);
    r = r < 0 ? r : take_items(wire, budget, ret_reason);
    if (r == -ENOMEM) {
        return fail("out of memory", r, ret_reason);
    }
    if (r < 0) {
        return r;
    }
    if (wire->control_bytes > 0 && !wire->is_blocked) {
        link_wire_flush(wire);
    }
    return wire->has_rest || is_full;
}

int link_wire_read(struct link_wire *wire, const struct iovec *shared, struct link_budget *budget,
                   const char **ret_reason)
{
    switch (wire->state) {
    case LINK_WIRE_CLOSED:
        return 0;
    case LINK_WIRE_GREETING:
        return read_greeting(wire, ret_reason);
    case LINK_WIRE_GREETED:
    case LINK_WIRE_OPEN:
        return read_frames(wire, shared, budget, ret_reason);
    }
    return 0;
}
