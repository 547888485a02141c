/*
 * bench-relay: the least that can stand between a client and a model server: bytes in, the same bytes out.
 *
 *   bench-relay HOST:PORT        listens on a free port of 127.0.0.1 and says which: {"ready", "http"}
 *
 * Each connection of a client has one of its own to the server, made when it comes; nothing is parsed. What it adds to a call is what
 * two more sockets and one more process cost on this machine, and what any relay of HTTP has to be measured against.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/attributes.h"
#include "common/time_slice.h"

enum { PIECE_BYTES = 65536, EVENTS_MAX = 256 };

/* One direction: what can be read here is written there. */
struct side {
    int fd;
    struct side *other;
    bool is_closed;
    struct side *next_closed; /* freed after the events of a turn */
};

static struct side *closed;

static void die(const char *what)
{
    fprintf(stderr, "bench-relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(int poll, int fd, void *pointer)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = pointer};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) < 0) {
        die("epoll_ctl");
    }
}

static struct side *make_side(int poll, int fd)
{
    int on = 1;
    struct side *side = calloc(1, sizeof(*side));
    if (side == NULL || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0) {
        die("connection");
    }
    side->fd = fd;
    watch(poll, fd, side);
    return side;
}

static void take_client(int poll, int listener, const struct sockaddr_in *server)
{
    int client = accept(listener, NULL, NULL);
    int upstream = socket(AF_INET, SOCK_STREAM, 0);
    if (client < 0 || upstream < 0 || connect(upstream, (const struct sockaddr *)server, sizeof(*server)) < 0) {
        die("connect");
    }
    struct side *near = make_side(poll, client), *far = make_side(poll, upstream);
    near->other = far;
    far->other = near;
}

static void close_side(struct side *side)
{
    if (!side->is_closed) {
        side->is_closed = true;
        (void)close(side->fd);
        side->next_closed = closed;
        closed = side;
    }
}

/* Blocks where the other side takes nothing: requests and answers of these benchmarks fit into the sockets. */
static bool write_all(int fd, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t written = send(fd, data, bytes, MSG_NOSIGNAL);
        if (written <= 0) {
            return false;
        }
        data += written;
        bytes -= (size_t)written;
    }
    return true;
}

static void pass_on(struct side *side)
{
    static char piece[PIECE_BYTES];
    if (side->is_closed) {
        return;
    }
    ssize_t bytes = recv(side->fd, piece, sizeof(piece), 0);
    if (bytes <= 0 || !write_all(side->other->fd, piece, (size_t)bytes)) {
        struct side *other = side->other;
        close_side(side);
        close_side(other);
    }
}

static void free_closed(void)
{
    while (closed != NULL) {
        struct side *side = closed;
        closed = side->next_closed;
        free(side);
    }
}

static int listen_somewhere(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1024) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &bytes) < 0) {
        die("listen");
    }
    fprintf(stderr, "{\"message\":\"ready\",\"http\":\"http://127.0.0.1:%d\"}\n", ntohs(address.sin_port));
    return listener;
}

int main(int argc, char **argv)
{
    char host[64];
    unsigned int port = 0;
    struct sockaddr_in server = {.sin_family = AF_INET};
    if (argc != 2 || sscanf(argv[1], "%63[0-9.]:%u", host, &port) != 2 || inet_pton(AF_INET, host, &server.sin_addr) != 1) {
        fprintf(stderr, "usage: bench-relay HOST:PORT\n");
        return 2;
    }
    server.sin_port = htons((uint16_t)port);
    time_slice_shorten(); /* as broker and worker have them, which are measured beside it */
    int poll = epoll_create1(0), listener = listen_somewhere();
    if (poll < 0) {
        die("epoll_create1");
    }
    watch(poll, listener, NULL);
    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int ready = epoll_wait(poll, events, EVENTS_MAX, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr == NULL) {
                take_client(poll, listener, &server);
            } else {
                pass_on(events[i].data.ptr);
            }
        }
        free_closed();
    }
}
