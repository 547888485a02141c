#include "tests/modelsim/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "common/clock.h"
#include "common/loop.h"
#include "tests/modelsim/exchange.h"

struct server {
    struct shared shared;
    struct MHD_Daemon *daemon;
    struct loop_source *source;
    struct loop_timer *timer;
};

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *path, const char *method,
                                  const char *version, const char *data, size_t *data_bytes, void **exchange_pointer)
{
    (void)version;
    struct server *server = context;
    struct exchange *exchange = *exchange_pointer;
    if (exchange == NULL) {
        int r = exchange_create(&server->shared, connection, method, path, &exchange);
        *exchange_pointer = exchange;
        return r == 0 ? MHD_YES : MHD_NO;
    }
    if (*data_bytes > 0) {
        enum MHD_Result result = exchange_take_body(exchange, data, *data_bytes);
        *data_bytes = 0;
        return result;
    }
    return exchange_go_on(exchange);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **exchange_pointer,
                         enum MHD_RequestTerminationCode code)
{
    (void)context;
    (void)connection;
    (void)code;
    struct exchange *exchange = *exchange_pointer;
    exchange_destroy(&exchange);
    *exchange_pointer = NULL;
}

static void on_ready(void *context, uint32_t events)
{
    (void)context; /* the turn handler does the work */
    (void)events;
}

static void on_timer(void *context)
{
    (void)context;
}

/* libmicrohttpd takes what is ready, and says when it wants to be called again. */
static void on_turn(void *context)
{
    struct server *server = context;
    MHD_run(server->daemon);
    MHD_UNSIGNED_LONG_LONG timeout_ms = 0;
    if (MHD_get_timeout(server->daemon, &timeout_ms) != MHD_YES) {
        loop_timer_stop(server->timer);
    } else if (timeout_ms == 0) {
        loop_again(server->shared.loop);
    } else {
        loop_timer_set(server->timer, clock_monotonic_ms() + (int64_t)timeout_ms);
    }
}

static int start_daemon(struct server *server, const struct server_options *options)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(options->port)};
    if (inet_pton(AF_INET, options->host, &address.sin_addr) != 1) {
        return -EINVAL;
    }
    errno = 0;
    server->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, options->port, NULL, NULL, on_request, server,
                                      MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
                                      MHD_OPTION_CONNECTION_LIMIT, 20000u, MHD_OPTION_LISTEN_BACKLOG_SIZE, 4096u, MHD_OPTION_END);
    if (server->daemon == NULL) {
        return errno != 0 ? -errno : -EADDRINUSE;
    }
    return 0;
}

int server_create(struct loop *loop, const struct server_options *options, struct server **ret_server)
{
    CLEANUP(server_destroy) struct server *server = calloc(1, sizeof(*server));
    if (server == NULL) {
        return -ENOMEM;
    }
    server->shared.loop = loop;
    server->shared.options = *options;
    list_init(&server->shared.exchanges);
    rates_init(&server->shared.rates, &options->rates, clock_monotonic_ms());
    int r = counters_init(&server->shared.counters);
    if (r < 0) {
        return r;
    }
    if (options->calls_path != NULL) {
        r = calls_open(options->calls_path, &server->shared.calls);
        if (r < 0) {
            return r;
        }
    }
    r = options->prefix_cache_s > 0 ? prefixes_create((int64_t)(options->prefix_cache_s * 1e6), &server->shared.prefixes) : 0;
    if (r < 0) {
        return r;
    }
    r = start_daemon(server, options);
    if (r < 0) {
        return r;
    }
    int fd = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    r = loop_watch(loop, fd, EPOLLIN, on_ready, server, &server->source);
    if (r < 0) {
        return r;
    }
    r = loop_timer_create(loop, on_timer, server, &server->timer);
    if (r < 0) {
        return r;
    }
    r = loop_add_turn_handler(loop, on_turn, server);
    if (r < 0) {
        return r;
    }
    *ret_server = TAKE(server);
    return 0;
}

void server_destroy(struct server **server_pointer)
{
    struct server *server = TAKE(*server_pointer);
    if (server == NULL) {
        return;
    }
    loop_source_destroy(&server->source);
    loop_timer_destroy(&server->timer);
    if (server->daemon != NULL) {
        /* A daemon may not be stopped while connections are suspended. */
        list_for_each(&server->shared.exchanges, link)
        {
            exchange_abort(exchange_from_link(link));
        }
        MHD_stop_daemon(server->daemon);
    }
    counters_finish(&server->shared.counters);
    calls_close(&server->shared.calls);
    prefixes_destroy(&server->shared.prefixes);
    free(server);
}

uint16_t server_port(const struct server *server)
{
    return MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
}
