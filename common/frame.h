/*
 * frame: part 0 of every message between processes: a header of 4 bytes, then the envelope.
 *
 *   byte 0–1  'T' 'Q'
 *   byte 2    protocol version (FRAME_VERSION)
 *   byte 3    kind
 *
 * A chunk of a stream has no envelope: a fixed header of 32 bytes follows (frame_chunk), then the
 * bytes of the chunk are part 1, so that the broker forwards it without unpacking. See
 * proto/wire.proto, docs/protocol.md.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/id.h"

enum {
    FRAME_VERSION = 1,
    FRAME_HEADER_BYTES = 4,
    FRAME_CHUNK_BYTES = FRAME_HEADER_BYTES + 32,
    FRAME_PARTS_MAX = 4097, /* an envelope and its payloads */
    FRAME_ENVELOPE_BYTES_MAX = 4 << 20,
    FRAME_PAYLOAD_BYTES_DEFAULT_MAX = 8 << 20,
};

enum frame_kind {
    FRAME_CLIENT_TO_BROKER = 1,
    FRAME_BROKER_TO_CLIENT = 2,
    FRAME_WORKER_TO_BROKER = 3,
    FRAME_BROKER_TO_WORKER = 4,
    FRAME_CHUNK = 5,
    FRAME_EVENT = 6,
};

/* The first part of a chunk of a stream. Integers are big-endian on the wire. */
struct frame_chunk {
    struct id job_id;
    uint32_t attempt;
    uint32_t index; /* of the chunk in its attempt, from 0 */
    uint32_t flags; /* FRAME_CHUNK_LAST */
    uint32_t reserved;
};
enum { FRAME_CHUNK_LAST = 1 };

/* What a chunk counts beside its bytes, where a stream is bounded (StreamAllowance). */
enum { FRAME_CHUNK_COST = 64 };

void frame_write_header(enum frame_kind kind, uint8_t ret_header[FRAME_HEADER_BYTES]);

/*
 * Checks a header and names its kind.
 * Errors: -EBADMSG too short or not ours; -EPROTONOSUPPORT another version (*ret_version tells
 * which).
 */
MUST_USE int frame_read_header(const void *data, size_t bytes, enum frame_kind *ret_kind,
                               uint8_t *ret_version);

void frame_write_chunk(const struct frame_chunk *chunk, uint8_t ret_part[FRAME_CHUNK_BYTES]);
/* `data` is the whole part 0, its header already read. Errors: -EBADMSG wrong size or a zero id. */
MUST_USE int frame_read_chunk(const void *data, size_t bytes, struct frame_chunk *ret_chunk);
