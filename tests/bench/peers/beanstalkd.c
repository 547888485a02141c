/* bench-peer-beanstalkd: put, reserve, delete; each is answered. */
#include <stdio.h>
#include <string.h>
#include "tests/bench/peers/peer.h"
#include "tests/bench/peers/stream.h"

enum { WORKERS = 8, HEAD_BYTES_MAX = 64 };

static int port;

/* Jobs are confirmed in the order in which they were put. */
static void *confirm(void *producer)
{
    for (uint64_t job = 0;; job++) {
        const char *line = stream_read_line(producer);
        if (strncmp(line, "INSERTED ", 9) != 0) {
            peer_die("put", line);
        }
        peer_note_step(job);
    }
    return NULL;
}

static void *work(void *index)
{
    (void)index;
    static const char first[] = "reserve\r\n";
    struct stream *stream = stream_open(port);
    stream_write(stream, first, sizeof(first) - 1);
    for (;;) {
        const char *line = stream_read_line(stream);
        unsigned long long id;
        size_t bytes;
        if (sscanf(line, "RESERVED %llu %zu", &id, &bytes) != 2) {
            peer_die("reserve", line);
        }
        const uint64_t job = peer_job_of(stream_read(stream, bytes + 2), bytes);
        char request[HEAD_BYTES_MAX];
        const int length = snprintf(request, sizeof(request), "delete %llu\r\n%s", id, first);
        stream_write(stream, request, (size_t)length);
        line = stream_read_line(stream);
        if (strcmp(line, "DELETED") != 0) {
            peer_die("delete", line);
        }
        peer_note_step(job);
    }
    return NULL;
}

static size_t write_put(char *at)
{
    const size_t head = (size_t)sprintf(at, "put 0 0 60 %d\r\n", PEER_PAYLOAD_BYTES);
    (void)peer_make_job(at + head);
    memcpy(at + head + PEER_PAYLOAD_BYTES, "\r\n", 2);
    return head + PEER_PAYLOAD_BYTES + 2;
}

int main(int argc, char **argv)
{
    static char buffer[PEER_BATCH * (PEER_PAYLOAD_BYTES + HEAD_BYTES_MAX)];
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
            bytes += write_put(buffer + bytes);
        } while (++jobs < PEER_BATCH && peer_take_more_room());
        stream_write(producer, buffer, bytes);
    }
    peer_report();
}
