#include "common/frame.h"
#include <endian.h>
#include <errno.h>
#include <string.h>

enum { MAGIC_0 = 'T', MAGIC_1 = 'Q' };

static void write_u32(uint8_t *at, uint32_t value)
{
    const uint32_t big = htobe32(value);
    memcpy(at, &big, sizeof(big));
}

static uint32_t read_u32(const uint8_t *at)
{
    uint32_t big;
    memcpy(&big, at, sizeof(big));
    return be32toh(big);
}

void frame_write_header(enum frame_kind kind, uint8_t ret_header[FRAME_HEADER_BYTES])
{
    ret_header[0] = MAGIC_0;
    ret_header[1] = MAGIC_1;
    ret_header[2] = FRAME_VERSION;
    ret_header[3] = (uint8_t)kind;
}

int frame_read_header(const void *data, size_t bytes, enum frame_kind *ret_kind,
                      uint8_t *ret_version)
{
    const uint8_t *header = data;
    if (bytes < FRAME_HEADER_BYTES || header[0] != MAGIC_0 || header[1] != MAGIC_1) {
        return -EBADMSG;
    }
    /* The version goes first: what a kind means is for that version to say. */
    if (header[2] != FRAME_VERSION) {
        *ret_version = header[2];
        return -EPROTONOSUPPORT;
    }
    if (header[3] < FRAME_CLIENT_TO_BROKER || header[3] > FRAME_EVENT) {
        return -EBADMSG;
    }
    *ret_kind = (enum frame_kind)header[3];
    *ret_version = header[2];
    return 0;
}

void frame_write_chunk(const struct frame_chunk *chunk, uint8_t ret_part[FRAME_CHUNK_BYTES])
{
    frame_write_header(FRAME_CHUNK, ret_part);
    uint8_t *at = ret_part + FRAME_HEADER_BYTES;
    memcpy(at, chunk->job_id.bytes, ID_BYTES);
    write_u32(at + ID_BYTES, chunk->attempt);
    write_u32(at + ID_BYTES + 4, chunk->index);
    write_u32(at + ID_BYTES + 8, chunk->flags);
    write_u32(at + ID_BYTES + 12, chunk->reserved);
}

int frame_read_chunk(const void *data, size_t bytes, struct frame_chunk *ret_chunk)
{
    if (bytes != FRAME_CHUNK_BYTES) {
        return -EBADMSG;
    }
    const uint8_t *at = (const uint8_t *)data + FRAME_HEADER_BYTES;
    struct frame_chunk chunk = {
        .attempt = read_u32(at + ID_BYTES),
        .index = read_u32(at + ID_BYTES + 4),
        .flags = read_u32(at + ID_BYTES + 8),
        .reserved = read_u32(at + ID_BYTES + 12),
    };
    if (id_from_bytes(at, ID_BYTES, &chunk.job_id) < 0) {
        return -EBADMSG;
    }
    *ret_chunk = chunk;
    return 0;
}
