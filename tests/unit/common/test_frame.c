#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "common/frame.h"

Test(frame, header_reads_back)
{
    for (int kind = FRAME_CLIENT_TO_BROKER; kind <= FRAME_EVENT; kind++) {
        uint8_t header[FRAME_HEADER_BYTES];
        frame_write_header((enum frame_kind)kind, header);
        enum frame_kind read_kind;
        uint8_t version = 0;
        cr_assert_eq(frame_read_header(header, sizeof(header), &read_kind, &version), 0);
        cr_assert_eq((int)read_kind, kind);
        cr_assert_eq(version, FRAME_VERSION);
    }
}

Test(frame, other_bytes_are_refused)
{
    const struct {
        const char *bytes;
        size_t length;
        int error;
    } cases[] = {
        {"", 0, -EBADMSG},         {"TQ\1", 3, -EBADMSG},           {"XQ\1\1", 4, -EBADMSG},
        {"TX\1\1", 4, -EBADMSG},   {"TQ\1\0", 4, -EBADMSG},         {"TQ\1\7", 4, -EBADMSG},
        {"TQ\1\xff", 4, -EBADMSG}, {"TQ\2\1", 4, -EPROTONOSUPPORT}, {"TQ\0\7", 4, -EPROTONOSUPPORT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum frame_kind kind;
        uint8_t version = 99;
        cr_assert_eq(frame_read_header(cases[i].bytes, cases[i].length, &kind, &version),
                     cases[i].error, "case %zu", i);
        if (cases[i].error == -EPROTONOSUPPORT) {
            cr_assert_eq(version, cases[i].bytes[2]);
        }
    }
}

static struct frame_chunk make_chunk(void)
{
    struct frame_chunk chunk = {
        .attempt = 7, .index = 0x01020304, .flags = FRAME_CHUNK_LAST, .reserved = 9};
    for (unsigned i = 0; i < ID_BYTES; i++) {
        chunk.job_id.bytes[i] = (uint8_t)(i + 1);
    }
    return chunk;
}

Test(frame, chunk_is_big_endian_and_reads_back)
{
    const struct frame_chunk chunk = make_chunk();
    uint8_t part[FRAME_CHUNK_BYTES];
    frame_write_chunk(&chunk, part);
    const uint8_t index[] = {1, 2, 3, 4};
    cr_assert_eq(memcmp(part + FRAME_HEADER_BYTES + ID_BYTES + 4, index, 4), 0);
    struct frame_chunk read = {0};
    cr_assert_eq(frame_read_chunk(part, sizeof(part), &read), 0);
    cr_assert(id_equal(&read.job_id, &chunk.job_id));
    cr_assert_eq(read.attempt, 7);
    cr_assert_eq(read.index, 0x01020304);
    cr_assert_eq(read.flags, FRAME_CHUNK_LAST);
    cr_assert_eq(read.reserved, 9);
}

Test(frame, chunk_of_another_size_or_without_id_is_refused)
{
    struct frame_chunk chunk = make_chunk();
    uint8_t part[FRAME_CHUNK_BYTES + 1] = {0};
    struct frame_chunk read;
    frame_write_chunk(&chunk, part);
    for (size_t bytes = 0; bytes <= sizeof(part); bytes++) {
        const int expected = bytes == FRAME_CHUNK_BYTES ? 0 : -EBADMSG;
        cr_assert_eq(frame_read_chunk(part, bytes, &read), expected);
    }
    memset(&chunk.job_id, 0, sizeof(chunk.job_id));
    frame_write_chunk(&chunk, part);
    cr_assert_eq(frame_read_chunk(part, FRAME_CHUNK_BYTES, &read), -EBADMSG);
}

/* Exactly sized heap copies, so that AddressSanitizer sees a read past the end. */
Test(frame, random_bytes_are_read_within_their_bounds)
{
    const unsigned seed = 20261124;
    srand(seed);
    for (int round = 0; round < 20000; round++) {
        const size_t bytes = (size_t)rand() % 48;
        uint8_t *data = malloc(bytes + (bytes == 0));
        for (size_t i = 0; i < bytes; i++) {
            data[i] = (uint8_t)(rand() % 4 == 0 ? rand() : "TQ\1\5"[i % 4]);
        }
        enum frame_kind kind;
        uint8_t version;
        struct frame_chunk chunk;
        if (frame_read_header(data, bytes, &kind, &version) == 0) {
            cr_assert_eq(data[0], 'T', "seed %u", seed);
            if (frame_read_chunk(data, bytes, &chunk) == 0) {
                uint8_t again[FRAME_CHUNK_BYTES];
                frame_write_chunk(&chunk, again);
                cr_assert_eq(memcmp(again + 4, data + 4, FRAME_CHUNK_BYTES - 4), 0, "seed %u",
                             seed);
            }
        }
        free(data);
    }
}
