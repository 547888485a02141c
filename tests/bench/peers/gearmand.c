/*
 * bench-peer-gearmand: background jobs. The server confirms a submission (JOB_CREATED); it has no answer to WORK_COMPLETE, so a job
 * counts as removed when that was sent.
 */
#include <arpa/inet.h>
#include <string.h>
#include "tests/bench/peers/peer.h"
#include "tests/bench/peers/stream.h"

enum {
    CAN_DO = 1,
    PRE_SLEEP = 4,
    NOOP = 6,
    JOB_CREATED = 8,
    GRAB_JOB = 9,
    NO_JOB = 10,
    JOB_ASSIGN = 11,
    WORK_COMPLETE = 13,
    SUBMIT_JOB_BG = 18,
};
enum { WORKERS = 8, HEAD_BYTES = 12, PACKET_BYTES_MAX = PEER_PAYLOAD_BYTES + 64 };

static int port;

static size_t write_packet(char *at, uint32_t type, const void *data, uint32_t bytes)
{
    const uint32_t head[2] = {htonl(type), htonl(bytes)};
    memcpy(at, "\0REQ", 4);
    memcpy(at + 4, head, sizeof(head));
    if (bytes > 0) {
        memcpy(at + HEAD_BYTES, data, bytes);
    }
    return HEAD_BYTES + bytes;
}

static void send_packet(struct stream *stream, uint32_t type, const void *data, uint32_t bytes)
{
    char packet[PACKET_BYTES_MAX];
    stream_write(stream, packet, write_packet(packet, type, data, bytes));
}

static uint32_t read_packet(struct stream *stream, const char **ret_data, uint32_t *ret_bytes)
{
    uint32_t head[2];
    memcpy(head, stream_read(stream, HEAD_BYTES) + 4, sizeof(head));
    *ret_bytes = ntohl(head[1]);
    *ret_data = stream_read(stream, *ret_bytes);
    return ntohl(head[0]);
}

/* In the order of submission. */
static void *confirm(void *producer)
{
    const char *data;
    uint32_t bytes;
    for (uint64_t job = 0;; job++) {
        if (read_packet(producer, &data, &bytes) != JOB_CREATED) {
            peer_die("submit", "another answer than JOB_CREATED");
        }
        peer_note_step(job);
    }
    return NULL;
}

/* The data of a JOB_ASSIGN: handle, function, payload, each after a NUL. */
static void complete(struct stream *stream, const char *data, uint32_t bytes)
{
    char packet[PACKET_BYTES_MAX], answer[PACKET_BYTES_MAX];
    const size_t handle_bytes = strnlen(data, bytes) + 1;
    const size_t payload_at = handle_bytes + strnlen(data + handle_bytes, bytes - handle_bytes) + 1;
    const uint64_t job = peer_job_of(data + payload_at, bytes - payload_at);
    memcpy(answer, data, handle_bytes);
    memcpy(answer + handle_bytes, "ok", 2);
    size_t length = write_packet(packet, WORK_COMPLETE, answer, (uint32_t)handle_bytes + 2);
    length += write_packet(packet + length, GRAB_JOB, NULL, 0);
    stream_write(stream, packet, length);
    peer_note_step(job);
}

static void *work(void *index)
{
    (void)index;
    struct stream *stream = stream_open(port);
    send_packet(stream, CAN_DO, "q", 1);
    send_packet(stream, GRAB_JOB, NULL, 0);
    for (;;) {
        const char *data;
        uint32_t bytes;
        switch (read_packet(stream, &data, &bytes)) {
        case NO_JOB:
            send_packet(stream, PRE_SLEEP, NULL, 0);
            break;
        case NOOP:
            send_packet(stream, GRAB_JOB, NULL, 0);
            break;
        case JOB_ASSIGN:
            complete(stream, data, bytes);
            break;
        default:
            peer_die("work", "an answer that makes no sense");
        }
    }
    return NULL;
}

static size_t write_submission(char *at)
{
    char data[3 + PEER_PAYLOAD_BYTES] = "q\0"; /* function, no unique id, payload */
    (void)peer_make_job(data + 3);
    return write_packet(at, SUBMIT_JOB_BG, data, sizeof(data));
}

int main(int argc, char **argv)
{
    static char buffer[PEER_BATCH * PACKET_BYTES_MAX];
    const struct peer_options options = peer_read_options(argc, argv);
    port = options.port;
    struct stream *producer = stream_open(port);
    peer_begin(&options);
    peer_start_thread(confirm, producer);
    peer_start_workers(options.window == 1 ? 1 : WORKERS, work);
    while (peer_take_room()) {
        size_t bytes = 0;
        int jobs = 0;
        do {
            bytes += write_submission(buffer + bytes);
        } while (++jobs < PEER_BATCH && peer_take_more_room());
        stream_write(producer, buffer, bytes);
    }
    peer_report();
}
