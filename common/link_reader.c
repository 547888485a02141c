#include "common/link_reader.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "common/frame.h"

enum {
    PARTS_FIRST = 8,
    PARTS_KEPT_MAX = 64, /* a longer list is given back after its message */
    KEPT_FIRST = 256,
};

static void forget_parts(struct link_message *message)
{
    for (size_t i = 0; i < message->length; i++) {
        blob_unref(&message->parts[i].blob);
    }
    message->length = 0;
}

void link_reader_init(struct link_reader *reader, size_t part_bytes_max)
{
    *reader = (struct link_reader){.part_bytes_max = part_bytes_max};
}

void link_reader_finish(struct link_reader *reader)
{
    forget_parts(&reader->message);
    free(reader->message.parts);
    free(reader->kept);
    blob_unref(&reader->large);
    link_reader_init(reader, reader->part_bytes_max);
}

/* ---- bytes ---- */

static void let_go_of_kept(struct link_reader *reader)
{
    free(reader->kept);
    reader->kept = NULL;
    reader->kept_length = reader->kept_capacity = 0;
}

static int reserve_kept(struct link_reader *reader, size_t bytes)
{
    size_t capacity = reader->kept_capacity == 0 ? KEPT_FIRST : reader->kept_capacity;
    while (capacity < bytes) {
        capacity *= 2;
    }
    if (capacity == reader->kept_capacity) {
        return 0;
    }
    uint8_t *kept = realloc(reader->kept, capacity);
    if (kept == NULL) {
        return -ENOMEM;
    }
    reader->kept = kept;
    reader->kept_capacity = capacity;
    return 0;
}

size_t link_reader_room(struct link_reader *reader, const struct iovec *shared,
                        struct iovec ret_segments[2])
{
    size_t length = 0;
    if (reader->large != NULL && reader->missing_bytes > 0) {
        ret_segments[length++] =
            (struct iovec){.iov_base = reader->large_at, .iov_len = reader->missing_bytes};
    }
    ret_segments[length++] = *shared;
    return length;
}

/* The first of `bytes` that belong to the part under way. */
static size_t take_missing(struct link_reader *reader, size_t bytes)
{
    const size_t taken = bytes < reader->missing_bytes ? bytes : (size_t)reader->missing_bytes;
    reader->missing_bytes -= taken;
    if (reader->large != NULL) {
        reader->large_at += taken;
    }
    return taken;
}

int link_reader_begin(struct link_reader *reader, const struct iovec *shared, size_t bytes)
{
    const bool is_filling = reader->large != NULL;
    const size_t taken = take_missing(reader, bytes);
    const uint8_t *data = shared->iov_base;
    data += is_filling ? 0 : taken; /* what is filled was not read into the shared buffer */
    bytes -= taken;
    if (reader->kept_length == 0) {
        reader->buffer = data;
        reader->buffer_length = bytes;
        return 0;
    }
    if (bytes > 0) {
        const int r = reserve_kept(reader, reader->kept_length + bytes);
        if (r < 0) {
            return r;
        }
        memcpy(reader->kept + reader->kept_length, data, bytes);
        reader->kept_length += bytes;
    }
    reader->buffer = reader->kept;
    reader->buffer_length = reader->kept_length;
    return 0;
}

/* ---- messages ---- */

/* What was handed over is done with. */
static void forget_whole(struct link_reader *reader)
{
    if (!reader->is_whole) {
        return;
    }
    struct link_message *message = &reader->message;
    forget_parts(message);
    message->bytes = 0;
    reader->command_bytes = 0;
    if (reader->parts_capacity > PARTS_KEPT_MAX) {
        free(message->parts);
        message->parts = NULL;
        reader->parts_capacity = 0;
    }
    reader->message_at = reader->at;
    reader->is_whole = reader->is_amid = reader->is_dropping = false;
}

int link_reader_keep(struct link_reader *reader)
{
    forget_whole(reader);
    const size_t bytes = reader->buffer_length - reader->message_at;
    if (bytes == 0) {
        let_go_of_kept(reader);
    } else if (reader->kept_length > 0) {
        memmove(reader->kept, reader->kept + reader->message_at, bytes);
    } else {
        const int r = reserve_kept(reader, bytes);
        if (r < 0) {
            return r;
        }
        memcpy(reader->kept, reader->buffer + reader->message_at, bytes);
    }
    reader->kept_length = bytes;
    reader->at -= reader->message_at;
    reader->message_at = 0;
    return 0;
}

static int reserve_part(struct link_reader *reader)
{
    struct link_message *message = &reader->message;
    if (message->length < reader->parts_capacity) {
        return 0;
    }
    const size_t capacity = reader->parts_capacity == 0 ? PARTS_FIRST : reader->parts_capacity * 2;
    struct link_part *parts = reallocarray(message->parts, capacity, sizeof(*parts));
    if (parts == NULL) {
        return -ENOMEM;
    }
    message->parts = parts;
    reader->parts_capacity = capacity;
    return 0;
}

/* The reader has passed all of the part that came; a message that is too long is let go of. */
static void pass(struct link_reader *reader, size_t at)
{
    reader->at = at;
    if (reader->is_dropping) {
        forget_parts(&reader->message);
        reader->message_at = at;
    }
}

static enum link_item end_part(struct link_reader *reader, bool is_last)
{
    if (!is_last) {
        return LINK_NOTHING;
    }
    reader->message.buffer = reader->buffer + reader->message_at;
    reader->is_whole = true;
    return LINK_MESSAGE;
}

static void add_part(struct link_reader *reader, const struct link_part *part)
{
    if (!reader->is_dropping) {
        assert(reader->message.length < reader->parts_capacity);
        assert(reader->message.parts != NULL);
        reader->message.parts[reader->message.length++] = *part;
    }
}

/* The part whose beginning is here and whose rest is not: what is missing goes where it stays. */
static int begin_large(struct link_reader *reader, const struct zmtp_frame *frame)
{
    const size_t body_at = reader->at + frame->header_bytes;
    const size_t here = reader->buffer_length - body_at;
    if (!reader->is_dropping) {
        uint8_t *room;
        const int r = blob_create_unwritten(frame->bytes, &room, &reader->large);
        if (r < 0) {
            return r;
        }
        memcpy(room, reader->buffer + body_at, here);
        reader->large_at = room + here;
    }
    reader->missing_bytes = frame->bytes - here;
    reader->is_last = !frame->has_more;
    pass(reader, reader->buffer_length);
    return 0;
}

/* Nothing is missing any more of the part that was. */
static enum link_item end_large(struct link_reader *reader)
{
    const bool is_last = reader->is_last;
    reader->is_last = false;
    if (reader->large != NULL) {
        const struct link_part part = {.bytes = blob_bytes(reader->large), .blob = reader->large};
        reader->large = NULL;
        add_part(reader, &part);
    }
    return end_part(reader, is_last);
}

/* The part of a frame whose header was read; *ret_waits: more has to come first. */
static int read_part(struct link_reader *reader, const struct zmtp_frame *frame, bool *ret_waits,
                     enum link_item *ret_item)
{
    struct link_message *message = &reader->message;
    const size_t body_at = reader->at + frame->header_bytes;
    const bool is_here = frame->bytes <= reader->buffer_length - body_at;
    *ret_waits = !is_here;
    if (!is_here && frame->bytes <= LINK_LARGE_BYTES) {
        return 0;
    }
    int r = reserve_part(reader);
    if (r < 0) {
        return r;
    }
    reader->is_amid = true;
    reader->is_dropping = reader->is_dropping || message->length == FRAME_PARTS_MAX ||
                          message->bytes + frame->bytes > LINK_MESSAGE_BYTES_MAX;
    message->bytes += frame->bytes;
    if (!is_here) {
        return begin_large(reader, frame);
    }
    add_part(reader,
             &(struct link_part){.at = body_at - reader->message_at, .bytes = frame->bytes});
    pass(reader, body_at + frame->bytes);
    *ret_item = end_part(reader, !frame->has_more);
    return 0;
}

/* As read_part(). */
static int read_command(struct link_reader *reader, const struct zmtp_frame *frame, bool *ret_waits,
                        enum link_item *ret_item, struct iovec *ret_body, const char **ret_reason)
{
    const size_t body_at = reader->at + frame->header_bytes;
    *ret_waits = frame->bytes > reader->buffer_length - body_at;
    if (*ret_waits) {
        return 0;
    }
    if (reader->is_amid) {
        reader->command_bytes += frame->header_bytes + frame->bytes;
    }
    if (reader->command_bytes > LINK_COMMAND_BYTES_MAX) {
        *ret_reason = "too many commands within a message";
        return -EPROTO;
    }
    *ret_body =
        (struct iovec){.iov_base = (uint8_t *)reader->buffer + body_at, .iov_len = frame->bytes};
    *ret_item = LINK_COMMAND;
    reader->at = body_at + frame->bytes;
    if (!reader->is_amid || reader->is_dropping) {
        reader->message_at = reader->at;
    }
    return 0;
}

/* Whether it needs to be called again, since a part alone is nothing to be handed over. */
static int read_frame(struct link_reader *reader, bool *ret_waits, enum link_item *ret_item,
                      struct iovec *ret_body, const char **ret_reason)
{
    struct zmtp_frame frame;
    const int r = zmtp_read_header(reader->buffer + reader->at, reader->buffer_length - reader->at,
                                   reader->part_bytes_max, &frame, ret_reason);
    if (r < 0) {
        *ret_waits = r == -EAGAIN;
        return r == -EAGAIN ? 0 : r;
    }
    if (!frame.is_command) {
        return read_part(reader, &frame, ret_waits, ret_item);
    }
    return read_command(reader, &frame, ret_waits, ret_item, ret_body, ret_reason);
}

int link_reader_next(struct link_reader *reader, enum link_item *ret_item, struct iovec *ret_body,
                     const char **ret_reason)
{
    forget_whole(reader);
    *ret_item = LINK_NOTHING;
    if (reader->missing_bytes > 0) {
        return 0;
    }
    if (reader->large != NULL || reader->is_last) {
        *ret_item = end_large(reader);
    }
    bool waits = false;
    while (*ret_item == LINK_NOTHING && !waits) {
        const int r = read_frame(reader, &waits, ret_item, ret_body, ret_reason);
        if (r < 0) {
            return r;
        }
        waits = waits || reader->missing_bytes > 0;
    }
    return 0;
}

size_t link_reader_held_bytes(const struct link_reader *reader)
{
    const size_t of_parts =
        reader->is_dropping ? 0 : reader->message.bytes - (size_t)reader->missing_bytes;
    return reader->kept_capacity + reader->parts_capacity * sizeof(struct link_part) + of_parts;
}
