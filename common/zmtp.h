/*
 * zmtp: the bytes of ZeroMQ's transport protocol, ZMTP 3.1 (https://rfc.zeromq.org/spec/37/) with
 * the mechanism NULL, and 3.0 of older peers. No I/O and no memory of its own.
 *
 * A connection is a greeting of 64 bytes from each side, a command READY from each side, and then
 * frames: parts of messages, and commands between them. What breaks a rule has a reason in words;
 * the connection it came over is closed.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

enum {
    ZMTP_GREETING_BYTES = 64,
    ZMTP_HEADER_BYTES_MAX = 9,
    ZMTP_COMMAND_BYTES_MAX = 4096, /* READY has a few properties, the others less */
    ZMTP_IDENTITY_BYTES_MAX = 255,
    ZMTP_CONTEXT_BYTES_MAX = 16, /* of a PING */
    /* What the writers below write at most, each with the header of its frame. */
    ZMTP_WRITTEN_BYTES_MAX = 64,
};

/* ---- greeting ---- */

void zmtp_write_greeting(uint8_t ret_greeting[ZMTP_GREETING_BYTES]);

/*
 * Reads as much of a greeting as is there. *ret_minor is the peer's minor version, as far as it
 * matters: 0, or 1 for all later ones.
 * Errors: -EAGAIN so far it is one; -EPROTO it is none, for *ret_reason.
 */
MUST_USE int zmtp_read_greeting(const uint8_t *data, size_t bytes, uint8_t *ret_minor,
                                const char **ret_reason);

/* ---- frames ---- */

struct zmtp_frame {
    uint64_t bytes; /* of its body */
    size_t header_bytes;
    bool has_more; /* parts of this message follow */
    bool is_command;
};

/*
 * Reads the header of a frame. A body is never larger than `part_bytes_max`, and that of a command
 * than ZMTP_COMMAND_BYTES_MAX. Errors: -EAGAIN it is not whole; -EMSGSIZE a body is larger than
 * part_bytes_max, -EPROTO something else is wrong, both for *ret_reason.
 */
MUST_USE int zmtp_read_header(const uint8_t *data, size_t bytes, size_t part_bytes_max,
                              struct zmtp_frame *ret_frame, const char **ret_reason);

static inline size_t zmtp_header_bytes(size_t body_bytes)
{
    return body_bytes <= UINT8_MAX ? 2 : ZMTP_HEADER_BYTES_MAX;
}
/* The header of a part; returns its length, zmtp_header_bytes(). */
size_t zmtp_write_header(size_t body_bytes, bool has_more, uint8_t *ret_header);

/* ---- commands ---- */

enum zmtp_command_kind {
    ZMTP_READY,
    ZMTP_ERROR,
    ZMTP_PING,
    ZMTP_PONG,
    ZMTP_SUBSCRIBE,
    ZMTP_CANCEL,
    ZMTP_UNKNOWN, /* to be ignored: a later version may have it */
};

/* Pointers are into the body that was read. */
struct zmtp_command {
    enum zmtp_command_kind kind;
    const uint8_t *data; /* ERROR: reason; PING, PONG: context; SUBSCRIBE, CANCEL: prefix */
    size_t data_bytes;
    const uint8_t *socket_type; /* READY; NULL: it says none */
    size_t socket_type_bytes;
    const uint8_t *identity; /* READY; NULL: it says none */
    size_t identity_bytes;
};

/* `body` is the whole body of a command frame. Errors: -EPROTO for *ret_reason. */
MUST_USE int zmtp_read_command(const uint8_t *body, size_t bytes, struct zmtp_command *ret_command,
                               const char **ret_reason);

/*
 * Each writes a whole frame of at most ZMTP_WRITTEN_BYTES_MAX and returns its length. `reason` is
 * cut to fit. READY has no identity: nobody of ours asks for a name.
 */
size_t zmtp_write_ready(const char *socket_type, uint8_t *ret_frame);
size_t zmtp_write_error(const char *reason, uint8_t *ret_frame);
size_t zmtp_write_ping(unsigned ttl_ms, uint8_t *ret_frame);
/* `bytes` is at most ZMTP_CONTEXT_BYTES_MAX. */
size_t zmtp_write_pong(const uint8_t *context, size_t bytes, uint8_t *ret_frame);
/* A subscription to everything; for a peer of version 3.0 as a message. */
size_t zmtp_write_subscribe_all(uint8_t minor, uint8_t *ret_frame);
