/*
 * bench-http: how many chat requests a second the simulator serves, in all and for each second of a core it uses.
 *
 *   bench-http http://HOST:PORT SERVER_PID CONNECTIONS SECONDS
 *
 * Keep-alive connections with one request in flight each, on raw sockets: the load generator must not be the limit.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/attributes.h"
#include "common/clock.h"
#include "tests/bench/load.h"

enum { CONNECTIONS_MAX = 1024, REPLY_BYTES_MAX = 16384 };

struct connection {
    int fd;
    size_t bytes;
    char reply[REPLY_BYTES_MAX];
};

static void die(const char *what)
{
    fprintf(stderr, "bench-http: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void send_request(const struct connection *connection, uint64_t number)
{
    char body[256], request[512];
    int body_bytes = snprintf(body, sizeof(body), "{\"model\":\"sim-small\",\"messages\":[{\"role\":\"user\",\"content\":\"Question %llu?\"}]}",
                              (unsigned long long)number);
    int bytes = snprintf(request, sizeof(request), "POST /v1/chat/completions HTTP/1.1\r\nHost: sim\r\nContent-Type: application/json\r\n"
                         "Content-Length: %d\r\n\r\n%s", body_bytes, body);
    if (send(connection->fd, request, (size_t)bytes, MSG_NOSIGNAL) != bytes) {
        die("send");
    }
}

/* Whether a whole reply with status 200 is there; takes it. */
static bool take_reply(struct connection *connection)
{
    ssize_t got = recv(connection->fd, connection->reply + connection->bytes, REPLY_BYTES_MAX - 1 - connection->bytes, 0);
    if (got <= 0) {
        die("recv");
    }
    connection->bytes += (size_t)got;
    connection->reply[connection->bytes] = '\0';
    const char *end = strstr(connection->reply, "\r\n\r\n");
    const char *length = end != NULL ? strcasestr(connection->reply, "content-length: ") : NULL;
    if (length == NULL || connection->bytes < (size_t)(end + 4 - connection->reply) + strtoul(length + 16, NULL, 10)) {
        return false;
    }
    if (strncmp(connection->reply, "HTTP/1.1 200", 12) != 0) {
        fprintf(stderr, "bench-http: %.60s\n", connection->reply);
        exit(1);
    }
    connection->bytes = 0;
    return true;
}

int main(int argc, char **argv)
{
    char host[64];
    unsigned int port = 0;
    int connections = argc == 5 ? atoi(argv[3]) : 0;
    if (connections < 1 || connections > CONNECTIONS_MAX || sscanf(argv[1], "http://%63[0-9.]:%u", host, &port) != 2) {
        fprintf(stderr, "usage: bench-http http://HOST:PORT SERVER_PID CONNECTIONS SECONDS\n");
        return 2;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct connection *all = calloc((size_t)connections, sizeof(*all));
    int poll = epoll_create1(0);
    if (all == NULL || poll < 0 || inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        die("start");
    }
    pid_t server = (pid_t)atoi(argv[2]);
    double cpu_before_s = process_cpu_s(server);
    int64_t began_ns = clock_monotonic_ns(), ends_ns = began_ns + (int64_t)(atof(argv[4]) * 1e9);
    uint64_t done = 0;
    for (int i = 0; i < connections; i++) {
        int on = 1;
        all[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        if (all[i].fd < 0 || connect(all[i].fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
            setsockopt(all[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &event) < 0) {
            die("connect");
        }
        send_request(&all[i], (uint64_t)i);
    }
    while (clock_monotonic_ns() < ends_ns) {
        struct epoll_event events[CONNECTIONS_MAX];
        int ready = epoll_wait(poll, events, CONNECTIONS_MAX, 1000);
        for (int i = 0; i < ready; i++) {
            if (take_reply(events[i].data.ptr)) {
                send_request(events[i].data.ptr, done++);
            }
        }
    }
    double took_s = (double)(clock_monotonic_ns() - began_ns) / 1e9, cpu_s = process_cpu_s(server) - cpu_before_s;
    printf("{\"name\":\"modelsim\",\"requests\":%llu,\"requests_per_s\":%.0f,\"cpu_s\":%.2f,\"requests_per_core_s\":%.0f}\n",
           (unsigned long long)done, (double)done / took_s, cpu_s, cpu_s > 0 ? (double)done / cpu_s : 0);
    return 0;
}
