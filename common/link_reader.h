/*
 * link_reader: puts messages together from the bytes of one connection. Pure memory, no I/O.
 *
 * Most of what arrives is whole messages: their parts are handed over where they lie, in a buffer
 * that all connections of a link share. What is left of it when the reading ends, the beginning of
 * a message or those for which this turn has no time, is kept in memory of the connection's own. A
 * large part that is not there whole is read into its blob at once (link_reader_room()). So a
 * connection with nothing under way costs no buffer, and one with something under way not more than
 * twice what its peer has sent.
 *
 * A message of too many parts, or of too many bytes, is read to its end and comes without parts.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "common/attributes.h"
#include "common/blob.h"
#include "common/zmtp.h"

enum {
    /* Parts beyond this go into a blob if they are not there whole. */
    LINK_LARGE_BYTES = 4096,
    /* Of a message: far beyond what any sender of ours puts together. */
    LINK_MESSAGE_BYTES_MAX = 512 << 20,
    /* Of commands between the parts of one message, which are kept with it: thousands of PINGs. */
    LINK_COMMAND_BYTES_MAX = 64 << 10,
};

struct link_part {
    size_t at; /* in the message's buffer */
    size_t bytes;
    struct blob *blob; /* NULL: the bytes are in the buffer */
};

/* What link.h hands over: parts are in `buffer` or in blobs of their own. */
struct link_message {
    const uint8_t *buffer;
    struct link_part *parts;
    size_t length;
    size_t bytes; /* of all parts, those that were dropped too */
};

struct link_reader {
    size_t part_bytes_max;
    uint8_t *kept; /* bytes that came and are not done with */
    size_t kept_length, kept_capacity;
    const uint8_t *buffer; /* what is being decoded: `kept`, or some of the shared one */
    size_t buffer_length;
    size_t at;         /* in the buffer: the next frame */
    size_t message_at; /* in the buffer: the message under way, or the next frame */
    struct link_message message;
    size_t parts_capacity;
    size_t command_bytes; /* amid the message under way */
    bool is_amid;         /* a message is under way */
    bool is_dropping;     /* the rest of it */
    bool is_whole;        /* it was handed over, and is forgotten next */
    bool is_last;         /* what is missing ends the message */
    struct blob *large;   /* being filled */
    uint8_t *large_at;
    uint64_t missing_bytes; /* of `large`; without one: to be passed over */
};

enum link_item { LINK_NOTHING, LINK_COMMAND, LINK_MESSAGE };

void link_reader_init(struct link_reader *reader, size_t part_bytes_max);
void link_reader_finish(struct link_reader *reader); /* may be used again, for another connection */

/*
 * Where the next bytes go: up to two segments, the last of which is `shared`. Returns how many.
 */
size_t link_reader_room(struct link_reader *reader, const struct iovec *shared,
                        struct iovec ret_segments[2]);

/*
 * `bytes` were read into that room, which may be 0: goes on with what was kept. Then
 * link_reader_next() as long as wanted, and link_reader_keep(), before the shared buffer is used
 * again. Errors: -ENOMEM.
 */
MUST_USE int link_reader_begin(struct link_reader *reader, const struct iovec *shared,
                               size_t bytes);

/*
 * *ret_item: LINK_COMMAND with its body in *ret_body, LINK_MESSAGE with reader->message, both valid
 * until the next call, or LINK_NOTHING: more has to be read first.
 * Errors: -EPROTO, and -EMSGSIZE a part is too large, both for *ret_reason; -ENOMEM.
 */
MUST_USE int link_reader_next(struct link_reader *reader, enum link_item *ret_item,
                              struct iovec *ret_body, const char **ret_reason);
/* Errors: -ENOMEM. */
MUST_USE int link_reader_keep(struct link_reader *reader);

/*
 * The memory that what has come takes between readings, or more: small parts of a message under
 * way count twice. Of a large part counts what has come, not what was announced.
 */
size_t link_reader_held_bytes(const struct link_reader *reader);
