/* Against a server of a thread's, with one connection after the other. */
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/loop.h"
#include "worker/provider/http.h"

enum { TIMEOUT_MS = 10000 };

/* Takes one request of a connection, and hangs up on the next. */
struct server {
    pthread_t thread;
    int listener;
    char url[64];
};

struct said {
    struct http_reply reply;
    char detail[CURL_ERROR_SIZE];
    bool is_done;
};

static struct server server;
static struct loop *loop;
static struct http *http;

/* Reads a request whose body ends with '}'. */
static bool takes_request(int peer)
{
    char bytes[4096];
    size_t length = 0;
    while (length < sizeof(bytes)) {
        const ssize_t n = recv(peer, bytes + length, sizeof(bytes) - length, 0);
        if (n <= 0) {
            return false;
        }
        length += (size_t)n;
        if (bytes[length - 1] == '}') {
            return true;
        }
    }
    return false;
}

static void *serve(void *context)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const struct server *own = context;
    int peer;
    while ((peer = accept(own->listener, NULL, NULL)) >= 0) {
        if (takes_request(peer) &&
            send(peer, answer, sizeof(answer) - 1, MSG_NOSIGNAL) == sizeof(answer) - 1) {
            (void)takes_request(peer);
        }
        (void)close(peer);
    }
    return NULL;
}

static void start(void)
{
    const struct http_options options = {.connections_max = 4, .connect_timeout_ms = TIMEOUT_MS};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(server.listener, 0);
    cr_assert_eq(bind(server.listener, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(listen(server.listener, 8), 0);
    cr_assert_eq(getsockname(server.listener, (struct sockaddr *)&address, &bytes), 0);
    (void)snprintf(server.url, sizeof(server.url), "http://127.0.0.1:%d/", ntohs(address.sin_port));
    cr_assert_eq(pthread_create(&server.thread, NULL, serve, &server), 0);
    cr_assert_eq(loop_create(&loop), 0);
    cr_assert_eq(http_create(loop, &options, &http), 0);
}

static void stop(void)
{
    http_destroy(&http);
    loop_destroy(&loop);
    (void)shutdown(server.listener, SHUT_RDWR);
    (void)pthread_join(server.thread, NULL);
    (void)close(server.listener);
}

TestSuite(http, .init = start, .fini = stop);

static int take_data(void *context, long status, const void *data, size_t bytes)
{
    (void)context;
    (void)status;
    (void)data;
    (void)bytes;
    return 0;
}

static void take_reply(void *context, const struct http_reply *reply)
{
    struct said *said = context;
    said->reply = *reply;
    (void)snprintf(said->detail, sizeof(said->detail), "%s", reply->detail);
    said->is_done = true;
}

static const struct http_handler handler = {.on_data = take_data, .on_done = take_reply};

static struct http_call *begin(struct said *said)
{
    static const char body[] = "{}";
    const struct http_request request = {
        .url = server.url, .body = body, .body_bytes = 2, .timeout_ms = TIMEOUT_MS};
    struct http_call *call = NULL;
    *said = (struct said){.is_done = false};
    cr_assert_eq(http_start(http, &request, &handler, said, &call), 0);
    return call;
}

static void finish(const struct said *said)
{
    const int64_t until_ms = clock_monotonic_ms() + TIMEOUT_MS;
    while (!said->is_done && clock_monotonic_ms() < until_ms) {
        cr_assert_eq(loop_turn(loop, 100), 0);
    }
    cr_assert(said->is_done);
}

/* libcurl tries such a call anew, but counts how often with its handle. */
Test(http, connections_that_died_are_forgotten_with_their_call)
{
    struct said said;
    for (int i = 0; i < 20; i++) {
        (void)begin(&said);
        finish(&said);
        cr_assert_eq(said.reply.code, CURLE_OK, "call %d: %s", i, said.detail);
        cr_assert_eq(said.reply.status, 200);
        cr_assert(said.reply.is_connected);
    }
}

Test(http, call_that_has_not_begun_has_nothing_of_the_one_before)
{
    struct said said;
    (void)begin(&said);
    finish(&said);
    struct http_call *call = begin(&said);
    http_fail(call, CURLE_OPERATION_TIMEDOUT);
    cr_assert(said.is_done);
    cr_assert_eq(said.reply.code, CURLE_OPERATION_TIMEDOUT);
    cr_assert_eq(said.reply.status, 0);
    cr_assert_not(said.reply.is_connected);
}
