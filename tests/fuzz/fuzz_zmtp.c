/*
 * What a connection may bring: a greeting, and frames put together to messages. However the bytes
 * are cut into reads, the same comes out: commands that can be read, messages within their bounds,
 * and the same reason at the end.
 */
#include <errno.h>
#include <string.h>
#include "common/frame.h"
#include "common/link_reader.h"
#include "tests/fuzz/fuzz.h"

enum { PART_BYTES_MAX = 20000 };

/* All that came out of a reader, as one number. */
struct digest {
    uint64_t sum;
    int result;
};

static void add(struct digest *digest, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < bytes; i++) {
        digest->sum = (digest->sum ^ at[i]) * UINT64_C(0x100000001b3);
    }
    digest->sum = (digest->sum ^ bytes) * UINT64_C(0x100000001b3);
}

static void add_message(struct digest *digest, const struct link_message *message)
{
    must_hold(message->length <= FRAME_PARTS_MAX);
    for (size_t i = 0; i < message->length; i++) {
        const struct link_part *part = &message->parts[i];
        must_hold(part->bytes <= PART_BYTES_MAX);
        add(digest, part->blob != NULL ? blob_data(part->blob) : message->buffer + part->at,
            part->bytes);
    }
    add(digest, &message->length, sizeof(message->length));
}

static void add_command(struct digest *digest, const struct iovec *body)
{
    struct zmtp_command command;
    const char *reason = NULL;
    must_hold(body->iov_len <= ZMTP_COMMAND_BYTES_MAX);
    if (zmtp_read_command(body->iov_base, body->iov_len, &command, &reason) < 0) {
        must_hold(reason != NULL);
        return;
    }
    add(digest, command.data, command.data_bytes);
    add(digest, command.socket_type, command.socket_type_bytes);
    add(digest, command.identity, command.identity_bytes);
    uint8_t frame[ZMTP_WRITTEN_BYTES_MAX];
    if (command.kind == ZMTP_PING) {
        must_hold(zmtp_write_pong(command.data, command.data_bytes, frame) <= sizeof(frame));
    }
}

static void take_items(struct link_reader *reader, struct digest *digest)
{
    enum link_item item = LINK_COMMAND;
    while (item != LINK_NOTHING) {
        struct iovec body;
        const char *reason = NULL;
        digest->result = link_reader_next(reader, &item, &body, &reason);
        if (digest->result < 0) {
            must_hold(reason != NULL);
            return;
        }
        if (item == LINK_COMMAND) {
            add_command(digest, &body);
        } else if (item == LINK_MESSAGE) {
            add_message(digest, &reader->message);
        }
    }
    digest->result = link_reader_keep(reader);
    must_hold(digest->result == 0);
}

/* As a socket would give them. Returns how many were taken. */
static size_t read_some(struct link_reader *reader, const uint8_t *data, size_t bytes,
                        struct digest *digest)
{
    uint8_t *room = malloc(bytes); /* so that a use after the read is seen */
    must_hold(room != NULL);
    const struct iovec shared = {.iov_base = room, .iov_len = bytes};
    struct iovec segments[2];
    const size_t length = link_reader_room(reader, &shared, segments);
    size_t taken = 0;
    for (size_t i = 0; i < length && taken < bytes; i++) {
        const size_t left = bytes - taken;
        const size_t n = segments[i].iov_len < left ? segments[i].iov_len : left;
        memcpy(segments[i].iov_base, data + taken, n);
        taken += n;
    }
    must_hold(link_reader_begin(reader, &shared, taken) == 0);
    take_items(reader, digest);
    free(room);
    return taken;
}

/* `step` decides where it is cut; 0: nowhere. */
static struct digest read_all(const uint8_t *data, size_t bytes, uint32_t step)
{
    struct digest digest = {0};
    struct link_reader reader;
    link_reader_init(&reader, PART_BYTES_MAX);
    while (bytes > 0 && digest.result == 0) {
        size_t some = bytes;
        if (step != 0) {
            step = step * 1664525U + 1013904223U;
            const size_t cut = 1 + (step >> 16) % ((step >> 8) % 16 == 0 ? 9000 : 40);
            some = cut < bytes ? cut : bytes;
        }
        some = read_some(&reader, data, some, &digest);
        data += some;
        bytes -= some;
    }
    link_reader_finish(&reader);
    return digest;
}

static void read_greeting(const uint8_t *data, size_t bytes)
{
    uint8_t minor = 0;
    const char *reason = NULL;
    const int r = zmtp_read_greeting(data, bytes, &minor, &reason);
    must_hold((r == -EPROTO) == (reason != NULL));
    must_hold(r != 0 || (bytes >= ZMTP_GREETING_BYTES && minor <= 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < 1) {
        return 0;
    }
    if (data[0] == 0xff) {
        read_greeting(data, bytes);
        return 0;
    }
    const uint32_t step = data[0];
    const struct digest whole = read_all(data + 1, bytes - 1, 0);
    const struct digest cut = read_all(data + 1, bytes - 1, step + 1);
    must_hold(whole.sum == cut.sum);
    must_hold(whole.result == cut.result);
    return 0;
}
