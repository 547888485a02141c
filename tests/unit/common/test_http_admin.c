#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <ifaddrs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "common/clock.h"
#include "common/http_admin.h"
#include "common/loop.h"
#include "common/metrics.h"

enum { ANSWER_BYTES_MAX = 64 << 10, PATIENCE_MS = 30000 };

struct bench {
    struct loop *loop;
    struct metrics *metrics;
    struct http_admin *http;
    bool is_ready;
    int changes;
    struct http_later *later; /* of the last request that is to be answered later */
    bool answers_at_once;
    size_t body_bytes;
};

static bool is_ready(void *context, const char **ret_why_not)
{
    *ret_why_not = "the store is loading";
    return ((struct bench *)context)->is_ready;
}

static void answer_text(struct http_response *response, const char *text)
{
    response->body = strdup(text);
    response->body_bytes = strlen(text);
}

static void show(void *context, const struct http_request *request, struct http_response *response)
{
    char text[512];
    const char *name = http_query(request, "name");
    (void)context;
    (void)snprintf(text, sizeof(text), "%s|%s|%s|%s", request->method, request->path, request->rest,
                   name != NULL ? name : "-");
    answer_text(response, text);
}

static void change(void *context, const struct http_request *request,
                   struct http_response *response)
{
    struct bench *bench = context;
    bench->changes++;
    bench->body_bytes = request->body_bytes;
    cr_assert_eq(strlen(request->body), request->body_bytes);
    answer_text(response, request->body_bytes < 100 ? request->body : "large");
}

static void give(struct bench *bench, const char *text)
{
    struct http_response response = {
        .status = 202, .body = strdup(text), .body_bytes = strlen(text)};
    http_later_answer(&bench->later, &response);
    cr_assert_null(bench->later);
    cr_assert_null(response.body);
}

static void owe(void *context, const struct http_request *request, struct http_response *response)
{
    struct bench *bench = context;
    (void)response;
    cr_assert_eq(http_later(bench->http, request, &bench->later), 0);
    if (bench->answers_at_once) {
        give(bench, "at once");
    }
}

static void open_bench(struct bench *bench, const char *address)
{
    *bench = (struct bench){.is_ready = true};
    cr_assert_eq(loop_create(&bench->loop), 0);
    cr_assert_eq(metrics_create(&bench->metrics), 0);
    const struct http_admin_options options = {
        .address = address, .metrics = bench->metrics, .is_ready = is_ready, .context = bench};
    cr_assert_eq(http_admin_create(bench->loop, &options, &bench->http), 0);
    cr_assert_eq(http_admin_route(bench->http, "GET", "/v1/things/", false, show, bench), 0);
    cr_assert_eq(http_admin_route(bench->http, "GET", "/v1/things/special", false, show, bench), 0);
    cr_assert_eq(http_admin_route(bench->http, "GET", "/v1/later", false, owe, bench), 0);
    cr_assert_eq(http_admin_route(bench->http, "POST", "/v1/change", true, change, bench), 0);
    cr_assert_eq(http_admin_route(bench->http, "POST", "/v1/change", true, change, bench), -EEXIST);
}

static void close_bench(struct bench *bench)
{
    http_admin_destroy(&bench->http);
    metrics_destroy(&bench->metrics);
    loop_destroy(&bench->loop);
}

static int connect_to(const char *address)
{
    int fd;
    if (strncmp(address, "unix:", 5) == 0) {
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        strncpy(name.sun_path, address + 5, sizeof(name.sun_path) - 1);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        cr_assert_eq(connect(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    } else {
        struct sockaddr_in name = {.sin_family = AF_INET};
        const char *colon = strrchr(address, ':');
        char host[64] = "";
        memcpy(host, address, (size_t)(colon - address));
        name.sin_port = htons((uint16_t)atoi(colon + 1));
        cr_assert_eq(inet_pton(AF_INET, host, &name.sin_addr), 1);
        fd = socket(AF_INET, SOCK_STREAM, 0);
        cr_assert_eq(connect(fd, (struct sockaddr *)&name, sizeof(name)), 0);
    }
    cr_assert_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* Reads until the server closes or `enough` is in the answer; the server's loop turns meanwhile. */
static void receive(struct bench *bench, int fd, char *answer, const char *enough)
{
    size_t length = 0;
    const int64_t give_up_ms = clock_monotonic_ms() + PATIENCE_MS;
    answer[0] = '\0';
    while (clock_monotonic_ms() < give_up_ms) {
        const ssize_t n = read(fd, answer + length, ANSWER_BYTES_MAX - 1 - length);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            return;
        }
        length += n > 0 ? (size_t)n : 0;
        answer[length] = '\0';
        if (enough != NULL && strstr(answer, enough) != NULL) {
            return;
        }
        cr_assert_eq(loop_turn(bench->loop, n > 0 ? 0 : 20), 0);
    }
    cr_assert_fail("no end of the answer");
}

static void put(struct bench *bench, int fd, const char *data, size_t bytes)
{
    for (size_t sent = 0; sent < bytes;) {
        const ssize_t n = send(fd, data + sent, bytes - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            return; /* the server has had enough; the caller looks at the answer */
        }
        sent += n > 0 ? (size_t)n : 0;
        cr_assert_eq(loop_turn(bench->loop, 0), 0);
    }
}

static char answer[ANSWER_BYTES_MAX];

/* One request on a connection of its own. */
static void ask(struct bench *bench, const char *request)
{
    const int fd = connect_to(http_admin_address(bench->http));
    put(bench, fd, request, strlen(request));
    receive(bench, fd, answer, NULL);
    cr_assert_eq(close(fd), 0);
}

static void check(struct bench *bench, const char *request, const char *status, const char *body)
{
    ask(bench, request);
    cr_assert(strncmp(answer, "HTTP/1.1 ", 9) == 0 && strncmp(answer + 9, status, 3) == 0,
              "%s\n-> %s", request, answer);
    const char *found = strstr(answer, "\r\n\r\n");
    cr_assert_not_null(found);
    cr_assert(body == NULL || strcmp(found + 4, body) == 0, "%s\n-> %s", request, answer);
}

Test(http_admin, serves_health_readiness_and_metrics, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, "127.0.0.1:0");
    struct metric_family *family = NULL;
    cr_assert_eq(metrics_register(bench.metrics, METRIC_GAUGE, "g", "G.", NULL, NULL, 0, &family),
                 0);
    check(&bench, "GET /healthz HTTP/1.0\r\n\r\n", "200", "{\"healthy\":true}");
    check(&bench, "GET /readyz HTTP/1.0\r\n\r\n", "200", "{\"ready\":true}");
    bench.is_ready = false;
    check(&bench, "GET /readyz HTTP/1.0\r\n\r\n", "503",
          "{\"ready\":false,\"reason\":\"the store is loading\"}");
    check(&bench, "GET /metrics HTTP/1.0\r\n\r\n", "200", "# HELP g G.\n# TYPE g gauge\ng 0\n");
    cr_assert_not_null(strstr(answer, "Content-Type: text/plain; version=0.0.4"));
    check(&bench, "HEAD /healthz HTTP/1.0\r\n\r\n", "200", "");
    close_bench(&bench);
}

Test(http_admin, routes_by_path_prefix_and_query, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, "127.0.0.1:0");
    check(&bench, "GET /v1/things/a/b?name=x%20y&z HTTP/1.0\r\n\r\n", "200",
          "GET|/v1/things/a/b|a/b|x y");
    check(&bench, "GET /v1/things/special HTTP/1.0\r\n\r\n", "200", "GET|/v1/things/special||-");
    check(&bench, "GET /nowhere HTTP/1.0\r\n\r\n", "404", NULL);
    check(&bench, "GET /healthz/x HTTP/1.0\r\n\r\n", "404", NULL);
    check(&bench, "DELETE /healthz HTTP/1.0\r\n\r\n", "405", NULL);
    cr_assert_not_null(strstr(answer, "Allow: GET"));
    close_bench(&bench);
}

Test(http_admin, a_connection_serves_several_requests, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, "127.0.0.1:0");
    const int fd = connect_to(http_admin_address(bench.http));
    for (int i = 0; i < 3; i++) {
        const char *request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        put(&bench, fd, request, strlen(request));
        receive(&bench, fd, answer, "{\"healthy\":true}");
        cr_assert_not_null(strstr(answer, "200 OK"));
    }
    cr_assert_eq(close(fd), 0);
    close_bench(&bench);
}

Test(http_admin, changes_are_taken_from_this_machine_but_not_from_web_pages, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, "127.0.0.1:0");
    check(&bench, "POST /v1/change HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", "200", "hello");
    check(&bench, "POST /v1/change HTTP/1.0\r\n\r\n", "200", "");
    cr_assert_eq(bench.changes, 2);
    check(
        &bench,
        "POST /v1/change HTTP/1.0\r\norigin: http://evil.example\r\nContent-Length: 5\r\n\r\nhello",
        "403", NULL);
    check(&bench, "POST /v1/change HTTP/1.0\r\nOrigin: null\r\n\r\n", "403", NULL);
    cr_assert_eq(bench.changes, 2);
    close_bench(&bench);
}

/* An address of this machine that is not loopback, as a peer from outside would have. */
static bool find_outside_address(char *ret_text)
{
    struct ifaddrs *all = NULL;
    bool is_found = false;
    cr_assert_eq(getifaddrs(&all), 0);
    for (const struct ifaddrs *at = all; at != NULL && !is_found; at = at->ifa_next) {
        if (at->ifa_addr != NULL && at->ifa_addr->sa_family == AF_INET &&
            (at->ifa_flags & (IFF_LOOPBACK | IFF_UP)) == IFF_UP) {
            const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)at->ifa_addr;
            is_found = inet_ntop(AF_INET, &v4->sin_addr, ret_text, INET_ADDRSTRLEN) != NULL;
        }
    }
    freeifaddrs(all);
    return is_found;
}

Test(http_admin, changes_from_other_addresses_are_refused, .timeout = 60)
{
    char outside[INET_ADDRSTRLEN], address[INET_ADDRSTRLEN + 8];
    if (!find_outside_address(outside)) {
        cr_skip_test("this machine has loopback addresses only");
    }
    (void)snprintf(address, sizeof(address), "%s:0", outside);
    struct bench bench;
    open_bench(&bench, address);
    check(&bench, "GET /healthz HTTP/1.0\r\n\r\n", "200", NULL);
    check(&bench, "POST /v1/change HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", "403", NULL);
    cr_assert_eq(bench.changes, 0);
    close_bench(&bench);
}

static char *make_post(const char *header, size_t body_bytes)
{
    char *request = malloc(256 + body_bytes);
    const int head = sprintf(request, "POST /v1/change HTTP/1.0\r\n%s\r\n\r\n", header);
    memset(request + head, 'x', body_bytes);
    request[(size_t)head + body_bytes] = '\0';
    return request;
}

Test(http_admin, bodies_are_bounded, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, "127.0.0.1:0");
    char header[64];
    (void)snprintf(header, sizeof(header), "Content-Length: %d", HTTP_BODY_BYTES_MAX);
    char *largest = make_post(header, HTTP_BODY_BYTES_MAX);
    check(&bench, largest, "200", "large");
    cr_assert_eq(bench.body_bytes, HTTP_BODY_BYTES_MAX);
    (void)snprintf(header, sizeof(header), "Content-Length: %d", HTTP_BODY_BYTES_MAX + 1);
    char *larger = make_post(header, HTTP_BODY_BYTES_MAX + 1);
    check(&bench, larger, "413", NULL);
    char *endless = make_post("Content-Length: 99999999", 3 << 20);
    ask(&bench, endless);
    cr_assert_null(strstr(answer, "200 OK"));
    cr_assert_eq(bench.changes, 1);
    free(largest);
    free(larger);
    free(endless);
    close_bench(&bench);
}

Test(http_admin, chunked_bodies_are_bounded_too, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, "127.0.0.1:0");
    check(&bench,
          "POST /v1/change HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: "
          "chunked\r\n\r\n"
          "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
          "200", "abcde");
    check(&bench,
          "POST /v1/change HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: "
          "chunked\r\n\r\n"
          "zzz\r\nabc\r\n",
          "400", NULL);
    cr_assert_eq(bench.changes, 1);
    close_bench(&bench);
}

/* Whatever comes, the server lives on and answers the next request. */
Test(http_admin, garbage_hurts_nobody_else, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, "127.0.0.1:0");
    const unsigned seed = 5;
    srand(seed);
    for (int round = 0; round < 200; round++) {
        char garbage[300];
        const size_t bytes = 1 + (size_t)rand() % (sizeof(garbage) - 1);
        const char *start = round % 3 == 0   ? ""
                            : round % 3 == 1 ? "GET "
                                             : "POST /v1/change HTTP/1.1\r\n";
        for (size_t i = 0; i < bytes; i++) {
            garbage[i] = (char)(i < strlen(start) ? start[i] : rand() % 5 == 0 ? '\n' : rand());
        }
        const int fd = connect_to(http_admin_address(bench.http));
        put(&bench, fd, garbage, bytes);
        cr_assert_eq(loop_turn(bench.loop, 0), 0);
        cr_assert_eq(close(fd), 0);
    }
    check(&bench, "GET /healthz HTTP/1.0\r\n\r\n", "200", "{\"healthy\":true}");
    close_bench(&bench);
}

/*
 * As many slow clients as there are places, each sending a byte now and then so as never to be
 * silent: their time ends all the same, and then others are served.
 */
Test(http_admin, slow_clients_are_disconnected, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, "127.0.0.1:0");
    int fds[HTTP_CONNECTIONS_MAX];
    for (size_t i = 0; i < HTTP_CONNECTIONS_MAX; i++) {
        fds[i] = connect_to(http_admin_address(bench.http));
        put(&bench, fds[i], "GET /", 5);
    }
    const int64_t began_ms = clock_monotonic_ms();
    const int waiting = connect_to(http_admin_address(bench.http));
    const char *request = "GET /healthz HTTP/1.0\r\n\r\n";
    put(&bench, waiting, request, strlen(request));
    ssize_t n = -1;
    int64_t next_byte_ms = began_ms;
    while (n <= 0 && clock_monotonic_ms() - began_ms < 2 * HTTP_REQUEST_MS_MAX) {
        for (size_t i = 0; i < HTTP_CONNECTIONS_MAX && clock_monotonic_ms() >= next_byte_ms; i++) {
            (void)send(fds[i], "a", 1, MSG_NOSIGNAL);
            next_byte_ms += i + 1 == HTTP_CONNECTIONS_MAX ? 500 : 0;
        }
        cr_assert_eq(loop_turn(bench.loop, 100), 0);
        n = read(waiting, answer, sizeof(answer));
    }
    cr_assert_gt(n, 0, "the one who waited was never served");
    cr_assert_geq(clock_monotonic_ms() - began_ms, HTTP_REQUEST_MS_MAX - 1000);
    for (size_t i = 0; i < HTTP_CONNECTIONS_MAX; i++) {
        cr_assert_eq(close(fds[i]), 0);
    }
    cr_assert_eq(close(waiting), 0);
    close_bench(&bench);
}

Test(http_admin, a_unix_socket_is_for_its_owner_and_is_removed, .timeout = 60)
{
    char directory[] = "/tmp/tiermq-http-XXXXXX";
    cr_assert_not_null(mkdtemp(directory));
    char address[64];
    (void)snprintf(address, sizeof(address), "unix:%s/admin.sock", directory);
    struct bench bench;
    open_bench(&bench, address);
    struct stat status;
    cr_assert_eq(stat(address + 5, &status), 0);
    cr_assert_eq(status.st_mode & 0777, 0600);
    cr_assert_str_eq(http_admin_address(bench.http), address);
    check(&bench, "POST /v1/change HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi", "200", "hi");

    struct http_admin *second = NULL;
    const struct http_admin_options options = {.address = address, .metrics = bench.metrics};
    cr_assert_eq(http_admin_create(bench.loop, &options, &second), -EADDRINUSE, "it is in use");
    cr_assert_eq(stat(address + 5, &status), 0);
    close_bench(&bench);
    cr_assert_eq(stat(address + 5, &status), -1, "the file is gone");

    /* A file that a killed process left behind is no obstacle. */
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    strncpy(name.sun_path, address + 5, sizeof(name.sun_path) - 1);
    const int abandoned = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(bind(abandoned, (struct sockaddr *)&name, sizeof(name)), 0);
    cr_assert_eq(close(abandoned), 0);
    open_bench(&bench, address);
    check(&bench, "GET /healthz HTTP/1.0\r\n\r\n", "200", NULL);
    close_bench(&bench);
    cr_assert_eq(rmdir(directory), 0);
}

Test(http_admin, addresses_in_use_or_senseless_are_refused)
{
    struct bench bench;
    open_bench(&bench, "127.0.0.1:0");
    struct http_admin *http = NULL;
    struct http_admin_options options = {.address = http_admin_address(bench.http),
                                         .metrics = bench.metrics};
    cr_assert_eq(http_admin_create(bench.loop, &options, &http), -EADDRINUSE);
    const char *senseless[] = {"",
                               "7710",
                               ":7710",
                               "127.0.0.1:",
                               "127.0.0.1:port",
                               "127.0.0.1:123456",
                               "::1:80",
                               "127.0.0.1:99999",
                               "unix:",
                               "[::1]"};
    for (size_t i = 0; i < sizeof(senseless) / sizeof(senseless[0]); i++) {
        options.address = senseless[i];
        cr_assert_eq(http_admin_create(bench.loop, &options, &http), -EINVAL, "%s", senseless[i]);
    }
    cr_assert_null(http);
    close_bench(&bench);
}

static int ask_later(struct bench *bench, const char *request)
{
    const int fd = connect_to(http_admin_address(bench->http));
    put(bench, fd, request, strlen(request));
    while (bench->later == NULL) {
        cr_assert_eq(loop_turn(bench->loop, 20), 0);
    }
    return fd;
}

Test(http_admin, answers_later_and_serves_others_meanwhile, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, "127.0.0.1:0");
    const int fd = ask_later(&bench, "GET /v1/later HTTP/1.1\r\nHost: x\r\n\r\n");
    check(&bench, "GET /healthz HTTP/1.0\r\n\r\n", "200", NULL);
    char byte;
    cr_assert_eq(read(fd, &byte, 1), -1);
    give(&bench, "here it is");
    receive(&bench, fd, answer, "here it is");
    cr_assert_not_null(strstr(answer, "202 Accepted"));
    const char *request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    put(&bench, fd, request, strlen(request)); /* the connection goes on */
    receive(&bench, fd, answer, "{\"healthy\":true}");
    cr_assert_eq(close(fd), 0);
    bench.answers_at_once = true;
    check(&bench, "GET /v1/later HTTP/1.0\r\n\r\n", "202", "at once");
    close_bench(&bench);
}

Test(http_admin, later_answer_to_a_client_that_left_goes_nowhere, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, "127.0.0.1:0");
    cr_assert_eq(close(ask_later(&bench, "GET /v1/later HTTP/1.0\r\n\r\n")), 0);
    cr_assert_eq(loop_turn(bench.loop, 0), 0);
    give(&bench, "too late");
    check(&bench, "GET /healthz HTTP/1.0\r\n\r\n", "200", NULL);
    close_bench(&bench);
}

Test(http_admin, what_is_owed_too_long_is_answered_without, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, "127.0.0.1:0");
    const int fd = ask_later(&bench, "GET /v1/later HTTP/1.0\r\n\r\n");
    receive(&bench, fd, answer, NULL);
    cr_assert_not_null(strstr(answer, "503 Service Unavailable"));
    cr_assert_not_null(strstr(answer, "in time"));
    cr_assert_eq(close(fd), 0);
    give(&bench, "in vain");
    close_bench(&bench);
}

Test(http_admin, what_is_owed_outlives_the_server, .timeout = 60)
{
    struct bench bench;
    open_bench(&bench, "127.0.0.1:0");
    const int fd = ask_later(&bench, "GET /v1/later HTTP/1.0\r\n\r\n");
    close_bench(&bench);
    give(&bench, "in vain");
    cr_assert_eq(close(fd), 0);
}
