#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "common/frame.h"
#include "common/link_queue.h"
#include "common/link_reader.h"

enum { PART_BYTES_MAX = 1 << 20, SHARED_BYTES = 64 << 10, STREAM_BYTES = 8 << 20 };

/* What a sender puts into the stream, and what a reader gets out of it. */
struct stream {
    uint8_t *bytes;
    size_t length, at;
    struct link_reader reader;
    struct iovec shared;
    size_t messages, parts, part_bytes, commands;
    size_t blobs; /* parts that came in one */
    uint64_t sum;
};

static void open_stream(struct stream *stream)
{
    *stream =
        (struct stream){.bytes = malloc(STREAM_BYTES),
                        .shared = {.iov_base = malloc(SHARED_BYTES), .iov_len = SHARED_BYTES}};
    link_reader_init(&stream->reader, PART_BYTES_MAX);
}

static void close_stream(struct stream *stream)
{
    link_reader_finish(&stream->reader);
    free(stream->bytes);
    free(stream->shared.iov_base);
}

/* The way out and the way in are checked against each other. */
static void write_message(struct stream *stream, const char *head, struct blob *const *payloads,
                          size_t length)
{
    struct link_parcel *parcel = NULL;
    struct link_queue queue;
    struct iovec segments[3];
    link_queue_init(&queue, 1);
    cr_assert_eq(link_parcel_create(head, strlen(head), payloads, length, &parcel), 0);
    cr_assert_eq(link_queue_reserve(&queue), 0);
    link_queue_push(&queue, parcel);
    link_parcel_unref(&parcel);
    while (!link_queue_is_empty(&queue)) {
        const size_t n = link_queue_peek(&queue, SIZE_MAX, segments, 3);
        for (size_t i = 0; i < n; i++) {
            /* Not all of it, as a kernel does. */
            const size_t bytes = (segments[i].iov_len + 1) / 2;
            memcpy(stream->bytes + stream->length, segments[i].iov_base, bytes);
            stream->length += bytes;
            link_queue_advance(&queue, bytes);
            if (bytes < segments[i].iov_len) {
                break;
            }
        }
    }
    link_queue_finish(&queue);
}

static void write_bytes(struct stream *stream, const void *data, size_t bytes)
{
    memcpy(stream->bytes + stream->length, data, bytes);
    stream->length += bytes;
}

static void take_message(struct stream *stream)
{
    const struct link_message *message = &stream->reader.message;
    stream->messages++;
    stream->parts = message->length;
    stream->part_bytes = 0;
    for (size_t i = 0; i < message->length; i++) {
        const struct link_part *part = &message->parts[i];
        const uint8_t *data =
            part->blob != NULL ? blob_data(part->blob) : message->buffer + part->at;
        stream->part_bytes += part->bytes;
        stream->blobs += part->blob != NULL;
        for (size_t k = 0; k < part->bytes; k++) {
            stream->sum = stream->sum * 31 + data[k];
        }
    }
}

static int take_items(struct stream *stream)
{
    enum link_item item = LINK_COMMAND;
    while (item != LINK_NOTHING) {
        struct iovec body;
        const char *reason;
        const int r = link_reader_next(&stream->reader, &item, &body, &reason);
        if (r < 0) {
            return r;
        }
        stream->commands += item == LINK_COMMAND;
        if (item == LINK_MESSAGE) {
            take_message(stream);
        }
    }
    return link_reader_keep(&stream->reader);
}

static int read_once(struct stream *stream, size_t bytes_max)
{
    struct iovec segments[2];
    const size_t n = link_reader_room(&stream->reader, &stream->shared, segments);
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        size_t some = stream->length - stream->at;
        some = some < segments[i].iov_len ? some : segments[i].iov_len;
        some = some < bytes_max - bytes ? some : bytes_max - bytes;
        memcpy(segments[i].iov_base, stream->bytes + stream->at, some);
        stream->at += some;
        bytes += some;
    }
    cr_assert_eq(link_reader_begin(&stream->reader, &stream->shared, bytes), 0);
    const int r = take_items(stream);
    memset(stream->shared.iov_base, 0xee, SHARED_BYTES); /* it is another's now */
    return r;
}

static void read_all(struct stream *stream, size_t bytes_max)
{
    while (stream->at < stream->length) {
        cr_assert_eq(read_once(stream, bytes_max), 0);
    }
}

static struct blob *make_blob(size_t bytes, int fill)
{
    uint8_t *data;
    struct blob *blob = NULL;
    cr_assert_eq(blob_create_unwritten(bytes, &data, &blob), 0);
    memset(data, fill, bytes);
    return blob;
}

static void write_mixture(struct stream *stream)
{
    const size_t sizes[] = {0, 1, 255, 256, LINK_COPY_BYTES_MAX + 1, 70000, 3, 5000};
    struct blob *payloads[8];
    for (size_t i = 0; i < 8; i++) {
        payloads[i] = make_blob(sizes[i], 'a' + (int)i);
    }
    write_message(stream, "alone", NULL, 0);
    write_message(stream, "all", payloads, 8);
    write_message(stream, "some", payloads, 3);
    for (size_t i = 0; i < 8; i++) {
        blob_unref(&payloads[i]);
    }
}

Test(link_reader, however_it_is_cut_the_same_comes_out)
{
    uint64_t sum = 0;
    const size_t cuts[] = {SIZE_MAX, 70001, 4096, 100, 7, 1};
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        struct stream stream;
        open_stream(&stream);
        write_mixture(&stream);
        read_all(&stream, cuts[i]);
        cr_assert_eq(stream.messages, 3, "cut at %zu", cuts[i]);
        cr_assert_eq(stream.parts, 4);
        cr_assert(i == 0 || stream.sum == sum);
        cr_assert_eq(stream.reader.kept_capacity, 0, "nothing is under way, so nothing is kept");
        sum = stream.sum;
        close_stream(&stream);
    }
}

Test(link_reader, large_parts_are_read_to_where_they_stay)
{
    struct stream stream;
    open_stream(&stream);
    struct blob *payload = make_blob(PART_BYTES_MAX, 'x');
    write_message(&stream, "head", &payload, 1);
    read_all(&stream, SIZE_MAX);
    cr_assert_eq(stream.messages, 1);
    cr_assert_eq(stream.blobs, 1);
    cr_assert_eq(stream.part_bytes, 4 + PART_BYTES_MAX);
    blob_unref(&payload);
    close_stream(&stream);
}

Test(link_reader, too_many_parts_are_a_message_without_parts)
{
    const size_t cuts[] = {SIZE_MAX, 33};
    for (size_t i = 0; i < 2; i++) {
        struct stream stream;
        open_stream(&stream);
        for (size_t k = 0; k <= FRAME_PARTS_MAX; k++) {
            write_bytes(&stream, "\1\2xx", 4);
        }
        /* The rest of it may be large, and is not kept either. */
        uint8_t header[ZMTP_HEADER_BYTES_MAX];
        write_bytes(&stream, header, zmtp_write_header(100000, false, header));
        memset(stream.bytes + stream.length, 'y', 100000);
        stream.length += 100000;
        write_message(&stream, "next", NULL, 0);
        read_all(&stream, cuts[i]);
        cr_assert_eq(stream.messages, 2);
        cr_assert_eq(stream.parts, 1);
        cr_assert_eq(stream.part_bytes, 4, "of the next alone");
        cr_assert_eq(stream.reader.parts_capacity <= 64, true);
        close_stream(&stream);
    }
}

Test(link_reader, commands_may_come_between_parts)
{
    struct stream stream;
    open_stream(&stream);
    write_bytes(&stream, "\1\1a\4\7\4PING\0\0\0\1b", 15);
    read_all(&stream, 4);
    cr_assert_eq(stream.commands, 1);
    cr_assert_eq(stream.messages, 1);
    cr_assert_eq(stream.parts, 2);
    cr_assert_eq(stream.sum, (uint64_t)'a' * 31 + 'b');
    close_stream(&stream);
}

/* Returns what the last reading did. */
static int read_commands_amid(struct stream *stream, size_t commands)
{
    int r = 0;
    for (size_t i = 0; i < commands; i++) {
        write_bytes(stream, "\4\7\4PING\0\0", 9);
    }
    while (r == 0 && stream->at < stream->length) {
        r = read_once(stream, 8192);
    }
    return r;
}

Test(link_reader, commands_within_a_message_are_bounded_as_what_is_kept_is)
{
    enum { COMMANDS_MAX = LINK_COMMAND_BYTES_MAX / 9 };
    struct stream stream;
    open_stream(&stream);
    for (int i = 0; i < 2; i++) { /* each message anew */
        write_bytes(&stream, "\1\0", 2);
        cr_assert_eq(read_commands_amid(&stream, COMMANDS_MAX), 0);
        cr_assert_leq(stream.reader.kept_capacity, 2 * LINK_COMMAND_BYTES_MAX);
        write_bytes(&stream, "\0\0", 2);
        read_all(&stream, SIZE_MAX);
    }
    cr_assert_eq(stream.messages, 2);
    cr_assert_eq(read_commands_amid(&stream, 2 * COMMANDS_MAX), 0,
                 "between messages they are free");
    write_bytes(&stream, "\1\0", 2);
    cr_assert_eq(read_commands_amid(&stream, 2 * COMMANDS_MAX), -EPROTO);
    cr_assert_leq(stream.reader.kept_capacity, 2 * LINK_COMMAND_BYTES_MAX);
    close_stream(&stream);
}

Test(link_reader, commands_within_a_message_that_is_dropped_are_not_kept)
{
    struct stream stream;
    open_stream(&stream);
    for (size_t i = 0; i <= FRAME_PARTS_MAX; i++) {
        write_bytes(&stream, "\1\0", 2);
    }
    cr_assert_eq(read_commands_amid(&stream, 7000), 0);
    cr_assert_eq(stream.reader.kept_capacity, 0);
    close_stream(&stream);
}

Test(link_reader, sizes_are_looked_at_before_anything_is_allocated)
{
    struct stream stream;
    open_stream(&stream);
    uint8_t header[ZMTP_HEADER_BYTES_MAX];
    write_bytes(&stream, header, zmtp_write_header(PART_BYTES_MAX + 1, false, header));
    cr_assert_eq(read_once(&stream, SIZE_MAX), -EMSGSIZE);
    close_stream(&stream);
}

Test(link_queue, a_bounded_number_waits_and_one_that_has_begun_can_be_dropped)
{
    struct link_queue queue;
    struct link_parcel *parcel = NULL;
    struct iovec segment;
    link_queue_init(&queue, 20);
    cr_assert_eq(link_parcel_create("text", 4, NULL, 0, &parcel), 0);
    cr_assert_eq(link_parcel_bytes(parcel), 6);
    for (size_t i = 0; i < 20; i++) {
        cr_assert_eq(link_queue_reserve(&queue), 0);
        link_queue_push(&queue, parcel);
    }
    cr_assert_eq(link_queue_reserve(&queue), -EAGAIN);
    link_queue_advance(&queue, 6 + 3);
    cr_assert_eq(queue.length, 19);
    cr_assert(link_queue_is_amid(&queue));
    cr_assert_eq(link_queue_peek(&queue, 1, &segment, 1), 1);
    cr_assert_eq(segment.iov_len, 3);
    link_queue_drop_begun(&queue);
    link_queue_drop_begun(&queue);
    cr_assert_eq(queue.length, 18);
    cr_assert_eq(link_queue_peek(&queue, 1, &segment, 1), 1);
    cr_assert_eq(segment.iov_len, 6);
    cr_assert_eq(link_queue_reserve(&queue), 0);
    link_parcel_unref(&parcel);
    link_queue_finish(&queue);
}
