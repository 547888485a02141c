#include "tests/bench/peers/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "tests/bench/peers/peer.h"

enum { BUFFER_BYTES = 256 << 10 };

struct stream {
    int fd;
    size_t from, to; /* what was received and not read */
    char buffer[BUFFER_BYTES];
};

struct stream *stream_open(int port)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int on = 1;
    if (stream == NULL) {
        peer_die("connection", "no memory");
    }
    stream->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (stream->fd < 0 || setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        connect(stream->fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        peer_die("connection", strerror(errno));
    }
    return stream;
}

void stream_write(struct stream *stream, const void *data, size_t bytes)
{
    const char *at = data;
    while (bytes > 0) {
        const ssize_t sent = send(stream->fd, at, bytes, MSG_NOSIGNAL);
        if (sent <= 0) {
            peer_die("send", strerror(errno));
        }
        at += sent;
        bytes -= (size_t)sent;
    }
}

static void receive_more(struct stream *stream)
{
    if (stream->from > 0) {
        memmove(stream->buffer, stream->buffer + stream->from, stream->to - stream->from);
        stream->to -= stream->from;
        stream->from = 0;
    }
    if (stream->to == BUFFER_BYTES) {
        peer_die("receive", "longer than the buffer");
    }
    const ssize_t received = recv(stream->fd, stream->buffer + stream->to, BUFFER_BYTES - stream->to, 0);
    if (received <= 0) {
        pthread_exit(NULL);
    }
    stream->to += (size_t)received;
}

char *stream_read(struct stream *stream, size_t bytes)
{
    while (stream->to - stream->from < bytes) {
        receive_more(stream);
    }
    char *data = stream->buffer + stream->from;
    stream->from += bytes;
    return data;
}

char *stream_read_line(struct stream *stream)
{
    size_t searched = 0;
    for (;;) {
        char *line = stream->buffer + stream->from;
        char *end = memmem(line + searched, stream->to - stream->from - searched, "\r\n", 2);
        if (end != NULL) {
            *end = '\0';
            stream->from += (size_t)(end - line) + 2;
            return line;
        }
        searched = stream->to - stream->from;
        searched -= searched > 0; /* its last byte may be the CR */
        receive_more(stream);
    }
}
