/*
 * libmicrohttpd keeps its connections in an epoll of its own, which the loop watches as one
 * descriptor; it is run when that is readable and when its own timeout has passed. Its timeout for
 * connections counts silence only, so one byte every few seconds would hold a place forever:
 * requests are timed here instead.
 */
#include "common/http_admin.h"
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <jansson.h>
#include <microhttpd.h>
#include "common/clock.h"
#include "common/http_listen.h"
#include "common/list.h"
#include "common/loop.h"
#include "common/metrics.h"

enum {
    BODY_FIRST_BYTES = 1024,
    /* A body that is too large is read on for so long, so that its sender gets to read the answer.
     */
    DISCARDED_BYTES_MAX = 1 << 20,
    ALLOWED_BYTES_MAX = 128,
};

struct route {
    struct list_link link;
    char *method, *path;
    bool is_prefix;
    bool changes;
    http_fn *handler;
    void *context;
};

/* A connection, for as long as it is open. */
struct visitor {
    struct list_link link; /* in http->visitors */
    int fd;                /* libmicrohttpd's */
    int64_t since_ms;
};

/* What has arrived of a request. */
struct arrival {
    char *body;
    size_t bytes, capacity;
    size_t discarded_bytes;
    struct http_later *later;    /* NULL: the answer is not owed, or there */
    struct http_response answer; /* that was given later */
    bool has_answer;
};

/* An answer that is owed. While it is, libmicrohttpd keeps its connection aside and does not look
 * at it. */
struct http_later {
    struct list_link link; /* in http->laters */
    struct http_admin *http;
    struct MHD_Connection *connection;
    struct arrival *arrival; /* NULL: it was answered without us */
    int64_t since_ms;
    bool is_suspended;
};

struct http_admin {
    struct loop *loop;
    struct http_admin_options options;
    struct MHD_Daemon *daemon;
    struct loop_source *source;
    struct loop_timer *timer;
    struct list routes;
    struct list visitors; /* by since_ms, the oldest first */
    struct list laters;   /* likewise */
    int listen_fd;        /* -1 once it is libmicrohttpd's */
    char address[HTTP_ADDRESS_BYTES_MAX];
};

/* ---- visitors and their time ---- */

static void watch_visitor(struct http_admin *http, struct visitor *visitor)
{
    if (visitor->link.next != NULL) {
        list_remove(&http->visitors, &visitor->link);
    }
    visitor->since_ms = clock_monotonic_ms();
    list_append(&http->visitors, &visitor->link);
}

/*
 * Shut down, not closed: the descriptor is libmicrohttpd's, which reads the end of it and cleans
 * up. Until it has, the visitor goes to the end of the list.
 */
static void disconnect_overdue(struct http_admin *http)
{
    const int64_t due_ms = clock_monotonic_ms() - HTTP_REQUEST_MS_MAX;
    while (http->visitors.length > 0) {
        struct visitor *oldest = CONTAINER_OF(list_first(&http->visitors), struct visitor, link);
        if (oldest->since_ms > due_ms) {
            return;
        }
        (void)shutdown(oldest->fd, SHUT_RDWR);
        watch_visitor(http, oldest);
    }
}

static void on_connection(void *context, struct MHD_Connection *connection, void **visitor_place,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http_admin *http = context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        struct visitor *visitor = calloc(1, sizeof(*visitor));
        if (visitor != NULL && info != NULL) {
            visitor->fd = info->connect_fd;
            watch_visitor(http, visitor);
        }
        *visitor_place = visitor;
        return;
    }
    struct visitor *visitor = *visitor_place;
    if (visitor != NULL && visitor->link.next != NULL) {
        list_remove(&http->visitors, &visitor->link);
    }
    free(visitor);
}

static void restart_time(struct http_admin *http, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct visitor *visitor = info == NULL ? NULL : info->socket_context;
    if (visitor != NULL && visitor->link.next != NULL) {
        watch_visitor(http, visitor);
    }
}

/* ---- running libmicrohttpd ---- */

static void set_timer(struct http_admin *http)
{
    const int64_t now_ms = clock_monotonic_ms();
    int64_t at_ms = INT64_MAX;
    if (http->visitors.length > 0) {
        at_ms = CONTAINER_OF(list_first(&http->visitors), struct visitor, link)->since_ms +
                HTTP_REQUEST_MS_MAX;
    }
    if (http->laters.length > 0) {
        const struct http_later *oldest =
            CONTAINER_OF(list_first(&http->laters), struct http_later, link);
        const int64_t due_ms = oldest->since_ms + HTTP_LATER_MS_MAX;
        at_ms = due_ms < at_ms ? due_ms : at_ms;
    }
    MHD_UNSIGNED_LONG_LONG wait_ms = 0;
    if (MHD_get_timeout(http->daemon, &wait_ms) == MHD_YES && wait_ms < HTTP_REQUEST_MS_MAX &&
        now_ms + (int64_t)wait_ms < at_ms) {
        at_ms = now_ms + (int64_t)wait_ms;
    }
    if (at_ms == INT64_MAX) {
        loop_timer_stop(http->timer);
    } else {
        loop_timer_set(http->timer, at_ms);
    }
}

static void answer_overdue(struct http_admin *http, int64_t due_ms);

static void run(void *context)
{
    struct http_admin *http = context;
    answer_overdue(http, clock_monotonic_ms() - HTTP_LATER_MS_MAX);
    disconnect_overdue(http);
    (void)MHD_run(http->daemon); /* fails only without a running daemon */
    set_timer(http);
}

static void on_readable(void *context, uint32_t events)
{
    (void)events;
    run(context);
}

/* ---- answering ---- */

void http_error(struct http_response *response, int status, const char *format, ...)
{
    char *message = NULL;
    va_list arguments;
    va_start(arguments, format);
    const int bytes = vasprintf(&message, format, arguments);
    va_end(arguments);
    /* A message that quotes bytes of a request may be no UTF-8, which JSON cannot hold. */
    json_t *body = bytes < 0 ? NULL : json_pack("{s{ss}}", "error", "message", message);
    if (body == NULL) {
        body = json_pack("{s{ss}}", "error", "message", "the request was refused");
    }
    free(response->body);
    response->status = status;
    response->content_type = NULL;
    response->body = body == NULL ? NULL : json_dumps(body, JSON_COMPACT);
    response->body_bytes = response->body == NULL ? 0 : strlen(response->body);
    json_decref(body);
    if (bytes >= 0) {
        free(message);
    }
}

static enum MHD_Result queue(struct MHD_Connection *connection, struct http_response *response,
                             const char *allowed)
{
    struct MHD_Response *answer = MHD_create_response_from_buffer(
        response->body == NULL ? 0 : response->body_bytes, response->body, MHD_RESPMEM_MUST_FREE);
    if (answer == NULL) {
        free(response->body);
        return MHD_NO;
    }
    const char *type = response->content_type != NULL ? response->content_type : "application/json";
    enum MHD_Result r = MHD_add_response_header(answer, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (r == MHD_YES) {
        r = MHD_add_response_header(answer, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    }
    if (r == MHD_YES && allowed[0] != '\0') {
        r = MHD_add_response_header(answer, MHD_HTTP_HEADER_ALLOW, allowed);
    }
    if (r == MHD_YES) {
        r = MHD_queue_response(connection, (unsigned)response->status, answer);
    }
    MHD_destroy_response(answer);
    return r;
}

/* ---- answering later ---- */

int http_later(struct http_admin *http, const struct http_request *request,
               struct http_later **ret_later)
{
    struct arrival *arrival = request->arrival;
    assert(arrival->later == NULL);
    assert(!arrival->has_answer);
    struct http_later *later = calloc(1, sizeof(*later));
    if (later == NULL) {
        return -ENOMEM;
    }
    later->http = http;
    later->connection = request->connection;
    later->arrival = arrival;
    later->since_ms = clock_monotonic_ms();
    list_append(&http->laters, &later->link);
    arrival->later = later;
    *ret_later = later;
    return 0;
}

/* Hands the answer over to the request, which is not owed one any more. */
static void give(struct http_later *later, struct http_response *response)
{
    struct arrival *arrival = TAKE(later->arrival);
    arrival->later = NULL;
    arrival->answer = *response;
    arrival->has_answer = true;
    *response = (struct http_response){0};
    list_remove(&later->http->laters, &later->link);
    if (later->is_suspended) {
        MHD_resume_connection(later->connection);
        loop_timer_set(later->http->timer, clock_monotonic_ms());
    }
}

void http_later_answer(struct http_later **later, struct http_response *response)
{
    struct http_later *gone = TAKE(*later);
    if (response->status == 0) {
        response->status = MHD_HTTP_OK;
    }
    if (gone->arrival != NULL) {
        give(gone, response);
    }
    free(response->body);
    response->body = NULL;
    free(gone);
}

/* Those that are owed since `due_ms` or longer; whoever has them may answer them yet, in vain. */
static void answer_overdue(struct http_admin *http, int64_t due_ms)
{
    while (http->laters.length > 0) {
        struct http_later *oldest =
            CONTAINER_OF(list_first(&http->laters), struct http_later, link);
        if (oldest->since_ms > due_ms) {
            return;
        }
        struct http_response response = {0};
        http_error(&response, MHD_HTTP_SERVICE_UNAVAILABLE,
                   "the answer was not there in time; try again later");
        give(oldest, &response);
    }
}

/* ---- routes ---- */

static bool fits_path(const struct route *route, const char *path)
{
    return route->is_prefix ? strncmp(path, route->path, strlen(route->path)) == 0
                            : strcmp(path, route->path) == 0;
}

static bool fits_method(const struct route *route, const char *method)
{
    return strcmp(route->method, strcmp(method, "HEAD") == 0 ? "GET" : method) == 0;
}

static void add_allowed(char *allowed, const char *method)
{
    const size_t used = strlen(allowed);
    (void)snprintf(allowed + used, ALLOWED_BYTES_MAX - used, "%s%s", used > 0 ? ", " : "", method);
}

/* NULL when there is none; `allowed` then names the methods that the path has. */
static const struct route *find_route(const struct http_admin *http, const char *method,
                                      const char *path, char *allowed)
{
    const struct route *best = NULL;
    list_for_each (&http->routes, link) {
        const struct route *route = CONTAINER_OF(link, struct route, link);
        if (!fits_path(route, path)) {
            continue;
        }
        if (!fits_method(route, method)) {
            add_allowed(allowed, route->method);
        } else if (best == NULL || strlen(route->path) > strlen(best->path)) {
            best = route;
        }
    }
    return best;
}

/* ---- who may change something ---- */

static bool is_loopback_v4(uint32_t address)
{
    return ntohl(address) >> 24 == IN_LOOPBACKNET;
}

static bool is_local(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (info == NULL || info->client_addr == NULL) {
        return false;
    }
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    switch (info->client_addr->sa_family) {
    case AF_UNIX:
        return true;
    case AF_INET:
        memcpy(&v4, info->client_addr, sizeof(v4));
        return is_loopback_v4(v4.sin_addr.s_addr);
    case AF_INET6:
        memcpy(&v6, info->client_addr, sizeof(v6));
        return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr) && v6.sin6_addr.s6_addr[12] == IN_LOOPBACKNET);
    default: /* address families are numbers, not an enum */
        return false;
    }
}

/* Browsers name the page that asks in `Origin`: a page from anywhere can reach a loopback address.
 */
static bool is_from_browser(struct MHD_Connection *connection)
{
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ORIGIN) != NULL;
}

/* ---- requests ---- */

static void answer(const struct http_admin *http, const struct http_request *request,
                   const struct arrival *arrival, char *allowed, struct http_response *response)
{
    const struct route *route = find_route(http, request->method, request->path, allowed);
    if (route == NULL && allowed[0] == '\0') {
        http_error(response, MHD_HTTP_NOT_FOUND, "there is no %s", request->path);
    } else if (route == NULL) {
        http_error(response, MHD_HTTP_METHOD_NOT_ALLOWED, "%s takes %s", request->path, allowed);
    } else if (arrival->discarded_bytes > 0) {
        http_error(response, MHD_HTTP_CONTENT_TOO_LARGE, "the body is larger than %d bytes",
                   HTTP_BODY_BYTES_MAX);
    } else if (route->changes && !is_local(request->connection)) {
        http_error(response, MHD_HTTP_FORBIDDEN,
                   "changes are taken, and texts shown, on loopback addresses and unix sockets only");
    } else if (route->changes && is_from_browser(request->connection)) {
        http_error(response, MHD_HTTP_FORBIDDEN, "changes are not taken from web pages");
    } else {
        struct http_request routed = *request;
        routed.rest = request->path + strlen(route->path);
        route->handler(route->context, &routed, response);
    }
    if (route != NULL) {
        allowed[0] = '\0';
    }
}

static enum MHD_Result queue_later(struct MHD_Connection *connection, struct arrival *arrival)
{
    struct http_response response = arrival->answer;
    arrival->answer = (struct http_response){0};
    return queue(connection, &response, "");
}

static enum MHD_Result finish(const struct http_admin *http, struct MHD_Connection *connection,
                              const char *path, const char *method, struct arrival *arrival)
{
    const struct http_request request = {
        .method = method,
        .path = path,
        .rest = "",
        .body = arrival->body != NULL ? arrival->body : "",
        .body_bytes = arrival->bytes,
        .connection = connection,
        .arrival = arrival,
    };
    struct http_response response = {.status = MHD_HTTP_OK};
    char allowed[ALLOWED_BYTES_MAX] = "";
    answer(http, &request, arrival, allowed, &response);
    if (arrival->later != NULL) {
        arrival->later->is_suspended = true;
        MHD_suspend_connection(connection);
        return MHD_YES;
    }
    if (arrival->has_answer) {
        return queue_later(connection, arrival);
    }
    return queue(connection, &response, allowed);
}

static enum MHD_Result take_body(struct arrival *arrival, const char *data, size_t bytes)
{
    if (arrival->discarded_bytes > 0 || bytes > HTTP_BODY_BYTES_MAX - arrival->bytes) {
        arrival->discarded_bytes += bytes;
        return arrival->discarded_bytes <= DISCARDED_BYTES_MAX ? MHD_YES : MHD_NO;
    }
    const size_t needed = arrival->bytes + bytes + 1;
    if (needed > arrival->capacity) {
        const size_t capacity = needed < BODY_FIRST_BYTES ? BODY_FIRST_BYTES : needed * 2;
        char *body = realloc(arrival->body, capacity);
        if (body == NULL) {
            return MHD_NO;
        }
        arrival->body = body;
        arrival->capacity = capacity;
    }
    memcpy(arrival->body + arrival->bytes, data, bytes);
    arrival->bytes += bytes;
    arrival->body[arrival->bytes] = '\0';
    return MHD_YES;
}

/* Called once with the head, then with each piece of the body, then with none; again when it was
 * set aside. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_bytes, void **arrival_place)
{
    struct http_admin *http = context;
    struct arrival *arrival = *arrival_place;
    (void)version;
    if (arrival == NULL) {
        restart_time(http, connection);
        *arrival_place = calloc(1, sizeof(*arrival));
        return *arrival_place != NULL ? MHD_YES : MHD_NO;
    }
    if (*data_bytes > 0) {
        const enum MHD_Result r = take_body(arrival, data, *data_bytes);
        *data_bytes = 0;
        return r;
    }
    return arrival->has_answer ? queue_later(connection, arrival)
                               : finish(http, connection, url, method, arrival);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **arrival_place,
                         enum MHD_RequestTerminationCode code)
{
    struct arrival *arrival = *arrival_place;
    *arrival_place = NULL;
    if (arrival != NULL) {
        free(arrival->answer.body);
        free(arrival->body);
        free(arrival);
    }
    if (code == MHD_REQUEST_TERMINATED_COMPLETED_OK) {
        restart_time(context, connection);
    }
}

/* ---- the routes of every daemon ---- */

static void set_json(struct http_response *response, json_t *body)
{
    response->body = body == NULL ? NULL : json_dumps(body, JSON_COMPACT);
    response->body_bytes = response->body == NULL ? 0 : strlen(response->body);
    json_decref(body);
}

static void serve_health(void *context, const struct http_request *request,
                         struct http_response *response)
{
    (void)context;
    (void)request;
    set_json(response, json_pack("{sb}", "healthy", true));
}

static void serve_readiness(void *context, const struct http_request *request,
                            struct http_response *response)
{
    const struct http_admin *http = context;
    const char *why_not = "not ready";
    (void)request;
    if (http->options.is_ready == NULL || http->options.is_ready(http->options.context, &why_not)) {
        set_json(response, json_pack("{sb}", "ready", true));
        return;
    }
    response->status = MHD_HTTP_SERVICE_UNAVAILABLE;
    set_json(response, json_pack("{sb ss}", "ready", false, "reason", why_not));
}

static void serve_metrics(void *context, const struct http_request *request,
                          struct http_response *response)
{
    const struct http_admin *http = context;
    (void)request;
    if (http->options.before_metrics != NULL) {
        http->options.before_metrics(http->options.context);
    }
    if (metrics_write(http->options.metrics, &response->body, &response->body_bytes) < 0) {
        http_error(response, MHD_HTTP_SERVICE_UNAVAILABLE, "out of memory");
        return;
    }
    response->content_type = "text/plain; version=0.0.4; charset=utf-8";
}

static int add_own_routes(struct http_admin *http)
{
    int r = http_admin_route(http, "GET", "/healthz", false, serve_health, http);
    if (r == 0) {
        r = http_admin_route(http, "GET", "/readyz", false, serve_readiness, http);
    }
    if (r == 0 && http->options.metrics != NULL) {
        r = http_admin_route(http, "GET", "/metrics", false, serve_metrics, http);
    }
    return r;
}

/* ---- the server ---- */

static int start(struct http_admin *http)
{
    http->daemon =
        MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, http,
                         MHD_OPTION_LISTEN_SOCKET, http->listen_fd, MHD_OPTION_CONNECTION_LIMIT,
                         (unsigned)HTTP_CONNECTIONS_MAX, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
                         http, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_END);
    if (http->daemon == NULL) {
        return -ENOMEM;
    }
    http->listen_fd = -1;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL || info->epoll_fd < 0) {
        return -ENOTSUP;
    }
    const int r = loop_timer_create(http->loop, run, http, &http->timer);
    return r < 0
               ? r
               : loop_watch(http->loop, info->epoll_fd, EPOLLIN, on_readable, http, &http->source);
}

int http_admin_create(struct loop *loop, const struct http_admin_options *options,
                      struct http_admin **ret_http)
{
    CLEANUP(http_admin_destroy) struct http_admin *http = calloc(1, sizeof(*http));
    if (http == NULL) {
        return -ENOMEM;
    }
    http->loop = loop;
    http->options = *options;
    http->options.address = NULL; /* the caller's; http->address is ours */
    http->listen_fd = -1;
    list_init(&http->routes);
    list_init(&http->visitors);
    list_init(&http->laters);
    int r = http_listen(options->address, &http->listen_fd, http->address);
    if (r == 0) {
        r = start(http);
    }
    if (r == 0) {
        r = add_own_routes(http);
    }
    if (r < 0) {
        return r;
    }
    *ret_http = TAKE(http);
    return 0;
}

static void route_destroy(struct route **route)
{
    struct route *gone = TAKE(*route);
    if (gone == NULL) {
        return;
    }
    free(gone->method);
    free(gone->path);
    free(gone);
}

void http_admin_destroy(struct http_admin **http)
{
    struct http_admin *gone = TAKE(*http);
    if (gone == NULL) {
        return;
    }
    if (gone->daemon != NULL) {
        answer_overdue(gone, INT64_MAX);
        (void)MHD_run(gone->daemon); /* it must not be stopped with connections set aside */
    }
    loop_source_destroy(&gone->source);
    loop_timer_destroy(&gone->timer);
    if (gone->daemon != NULL) {
        MHD_stop_daemon(gone->daemon);
    }
    http_listen_close(gone->listen_fd, gone->address);
    while (gone->routes.length > 0) {
        struct list_link *first = list_first(&gone->routes);
        list_remove(&gone->routes, first);
        struct route *route = CONTAINER_OF(first, struct route, link);
        route_destroy(&route);
    }
    free(gone);
}

int http_admin_route(struct http_admin *http, const char *method, const char *path, bool changes,
                     http_fn *handler, void *context)
{
    assert(path[0] == '/');
    list_for_each (&http->routes, link) {
        const struct route *other = CONTAINER_OF(link, struct route, link);
        if (strcmp(other->method, method) == 0 && strcmp(other->path, path) == 0) {
            return -EEXIST;
        }
    }
    CLEANUP(route_destroy) struct route *route = calloc(1, sizeof(*route));
    if (route == NULL) {
        return -ENOMEM;
    }
    route->method = strdup(method);
    route->path = strdup(path);
    if (route->method == NULL || route->path == NULL) {
        return -ENOMEM;
    }
    route->is_prefix = path[strlen(path) - 1] == '/';
    route->changes = changes;
    route->handler = handler;
    route->context = context;
    list_append(&http->routes, &route->link);
    (void)TAKE(route); /* the list's now */
    return 0;
}

const char *http_query(const struct http_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}

const char *http_admin_address(const struct http_admin *http)
{
    return http->address;
}
