/*
 * libcurl tells which descriptors to watch (socket_changed) and when to be called next
 * (timeout_changed); both become sources and a timer of the loop. What finished is read after every
 * curl_multi_socket_action, and reported from there, never from within a libcurl callback, where a
 * call may not be added or removed.
 */
#include "worker/provider/http.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/list.h"
#include "common/loop.h"

enum { HTTP_IDLE_HANDLES_MAX = 256 /* some 6 KB each */ };

struct http {
    struct loop *loop;
    CURLM *multi;
    struct loop_timer *timer;
    struct list calls;
    struct list sockets;
    CURL *idle[HTTP_IDLE_HANDLES_MAX]; /* for the next calls: what is the same for all is set */
    size_t idle_length;
    int64_t connect_timeout_ms;
};

struct http_call {
    struct list_link link;
    struct http *http;
    CURL *easy;
    struct http_handler handler;
    void *context;
    struct limits limits;
    bool is_paused;
    bool is_good;      /* it has ended well, with an answer to its first request */
    uint32_t requests; /* that began to go out: libcurl tries anew when a kept connection died */
    char detail[CURL_ERROR_SIZE];
};

/* A descriptor that libcurl wants watched. */
struct http_socket {
    struct list_link link;
    struct http *http;
    struct loop_source *source;
    curl_socket_t descriptor;
};

/* ---- finishing ---- */

/*
 * Only what was used without trouble is used again: a handle keeps count of the connections that
 * died under its calls, and gives up the sixth.
 */
static void call_release(struct http_call *call)
{
    struct http *http = call->http;
    (void)curl_multi_remove_handle(http->multi, call->easy);
    (void)curl_easy_setopt(call->easy, CURLOPT_ERRORBUFFER, NULL); /* it was the call's */
    if (call->is_good && http->idle_length < HTTP_IDLE_HANDLES_MAX) {
        http->idle[http->idle_length++] = call->easy;
    } else {
        curl_easy_cleanup(call->easy);
    }
    list_remove(&http->calls, &call->link);
    free(call);
}

static void call_done(struct http_call *call, CURLcode code)
{
    struct http_reply reply = {.code = code, .detail = call->detail, .limits = &call->limits};
    reply.is_connected = call->requests > 0;
    if (reply.is_connected) { /* until then the handle tells of the call before */
        (void)curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &reply.status);
    }
    call->is_good = code == CURLE_OK && call->requests == 1;
    call->handler.on_done(call->context, &reply);
    call_release(call);
}

static void http_read_finished(struct http *http)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(http->multi, &left)) != NULL) {
        if (message->msg != CURLMSG_DONE) {
            continue;
        }
        struct http_call *call = NULL;
        const CURLcode code = message->data.result;
        (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&call);
        call_done(call, code);
    }
}

static void http_act(struct http *http, curl_socket_t descriptor, int what)
{
    int running;
    (void)curl_multi_socket_action(http->multi, descriptor, what, &running);
    http_read_finished(http);
}

/* ---- libcurl and the loop ---- */

static void socket_ready(void *context, uint32_t events)
{
    struct http_socket *ready = context;
    int what = 0;
    what |= (events & EPOLLIN) != 0 ? CURL_CSELECT_IN : 0;
    what |= (events & EPOLLOUT) != 0 ? CURL_CSELECT_OUT : 0;
    what |= (events & (EPOLLERR | EPOLLHUP)) != 0 ? CURL_CSELECT_ERR : 0;
    http_act(ready->http, ready->descriptor, what);
}

static void timer_due(void *context)
{
    http_act(context, CURL_SOCKET_TIMEOUT, 0);
}

static void socket_forget(struct http *http, struct http_socket *old)
{
    loop_source_destroy(&old->source);
    list_remove(&http->sockets, &old->link);
    free(old);
}

static int socket_add(struct http *http, curl_socket_t descriptor, uint32_t events)
{
    struct http_socket *added = calloc(1, sizeof(*added));
    if (added == NULL) {
        return -1;
    }
    added->http = http;
    added->descriptor = descriptor;
    if (loop_watch(http->loop, descriptor, events, socket_ready, added, &added->source) < 0) {
        free(added);
        return -1;
    }
    list_append(&http->sockets, &added->link);
    (void)curl_multi_assign(http->multi, descriptor, added);
    return 0;
}

static int socket_changed(CURL *easy, curl_socket_t descriptor, int what, void *context,
                          void *socket_context)
{
    (void)easy;
    struct http *http = context;
    struct http_socket *known = socket_context;
    if (what == CURL_POLL_REMOVE) {
        if (known != NULL) {
            socket_forget(http, known);
        }
        return 0;
    }
    uint32_t events = 0;
    events |= (what & CURL_POLL_IN) != 0 ? EPOLLIN : 0;
    events |= (what & CURL_POLL_OUT) != 0 ? EPOLLOUT : 0;
    if (known == NULL) {
        return socket_add(http, descriptor, events);
    }
    return loop_source_set_events(known->source, events) < 0 ? -1 : 0;
}

static int timeout_changed(CURLM *multi, long timeout_ms, void *context)
{
    (void)multi;
    struct http *http = context;
    if (timeout_ms < 0) {
        loop_timer_stop(http->timer);
    } else {
        loop_timer_set(http->timer, loop_now_ms(http->loop) + timeout_ms);
    }
    return 0;
}

/* ---- a call's bytes ---- */

static size_t body_arrived(char *data, size_t size, size_t count, void *context)
{
    struct http_call *call = context;
    if (call->is_paused) {
        return CURL_WRITEFUNC_PAUSE; /* libcurl keeps this piece, and brings it again */
    }
    long status = 0;
    (void)curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    return call->handler.on_data(call->context, status, data, size * count) == 0 ? size * count : 0;
}

static size_t header_arrived(char *data, size_t size, size_t count, void *context)
{
    struct http_call *call = context;
    limits_take_line(&call->limits, data, size * count, clock_unix_ms());
    return size * count;
}

static int request_begins(void *context, char *peer, char *own, int peer_port, int own_port)
{
    struct http_call *call = context;
    (void)peer;
    (void)own;
    (void)peer_port;
    (void)own_port;
    call->requests++;
    return CURL_PREREQFUNC_OK;
}

/* What holds for every call: libcurl keeps it with the handle. NULL: out of memory. */
static CURL *easy_create(const struct http *http)
{
    CURL *easy = curl_easy_init();
    if (easy == NULL) {
        return NULL;
    }
    CURLcode r = CURLE_OK;
    r |= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    r |= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    r |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    r |= curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
    r |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    r |= curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)http->connect_timeout_ms);
    r |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, body_arrived);
    r |= curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, header_arrived);
    r |= curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, request_begins);
    if (r != CURLE_OK) {
        curl_easy_cleanup(easy);
        return NULL;
    }
    return easy;
}

/* Everything that a call has of its own, so that nothing is left of the one before. Errors:
 * -EINVAL. */
static int call_set_options(struct http_call *call, const struct http_request *request)
{
    CURL *easy = call->easy;
    CURLcode r = CURLE_OK;
    r |= curl_easy_setopt(easy, CURLOPT_URL, request->url);
    r |= curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)request->timeout_ms);
    r |= curl_easy_setopt(easy, CURLOPT_HTTPHEADER, request->headers);
    r |= curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body);
    r |= curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_bytes);
    r |= curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
    r |= curl_easy_setopt(easy, CURLOPT_HEADERDATA, call);
    r |= curl_easy_setopt(easy, CURLOPT_PREREQDATA, call);
    r |= curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->detail);
    r |= curl_easy_setopt(easy, CURLOPT_PRIVATE, (char *)call);
    return r == CURLE_OK ? 0 : -EINVAL;
}

/* ---- public ---- */

int http_create(struct loop *loop, const struct http_options *options, struct http **ret_http)
{
    CLEANUP(http_destroy) struct http *http = calloc(1, sizeof(*http));
    if (http == NULL) {
        return -ENOMEM;
    }
    http->loop = loop;
    http->connect_timeout_ms = options->connect_timeout_ms;
    list_init(&http->calls);
    list_init(&http->sockets);
    http->multi = curl_multi_init();
    if (http->multi == NULL) {
        return -ENOMEM;
    }
    int r = loop_timer_create(loop, timer_due, http, &http->timer);
    if (r < 0) {
        return r;
    }
    CURLMcode set = CURLM_OK;
    set |= curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, socket_changed);
    set |= curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
    set |= curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, timeout_changed);
    set |= curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
    set |= curl_multi_setopt(http->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS,
                             (long)options->connections_max + HTTP_PROBES_MAX);
    set |= curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, (long)options->connections_max);
    if (set != CURLM_OK) {
        return -ENOMEM;
    }
    *ret_http = TAKE(http);
    return 0;
}

void http_destroy(struct http **http)
{
    struct http *old = TAKE(*http);
    if (old == NULL) {
        return;
    }
    while (!list_is_empty(&old->calls)) {
        call_release(CONTAINER_OF(list_first(&old->calls), struct http_call, link));
    }
    for (size_t i = 0; i < old->idle_length; i++) {
        curl_easy_cleanup(old->idle[i]);
    }
    if (old->multi != NULL) {
        (void)curl_multi_cleanup(old->multi);
    }
    while (!list_is_empty(&old->sockets)) {
        socket_forget(old, CONTAINER_OF(list_first(&old->sockets), struct http_socket, link));
    }
    loop_timer_destroy(&old->timer);
    free(old);
}

int http_start(struct http *http, const struct http_request *request,
               const struct http_handler *handler, void *context, struct http_call **ret_call)
{
    struct http_call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        return -ENOMEM;
    }
    call->http = http;
    call->handler = *handler;
    call->context = context;
    call->easy = http->idle_length > 0 ? http->idle[--http->idle_length] : easy_create(http);
    list_append(&http->calls, &call->link);
    if (call->easy == NULL) {
        list_remove(&http->calls, &call->link);
        free(call);
        return -ENOMEM;
    }
    int r = call_set_options(call, request);
    if (r == 0 && curl_multi_add_handle(http->multi, call->easy) != CURLM_OK) {
        r = -ENOMEM;
    }
    if (r < 0) {
        call_release(call);
        return r;
    }
    *ret_call = call;
    return 0;
}

void http_cancel(struct http_call **call)
{
    struct http_call *old = TAKE(*call);
    if (old != NULL) {
        call_release(old);
    }
}

void http_fail(struct http_call *call, CURLcode code)
{
    call_done(call, code);
}

void http_pause(struct http_call *call)
{
    call->is_paused = true;
}

int http_resume(struct http_call *call)
{
    if (!call->is_paused) {
        return 0;
    }
    call->is_paused = false;
    return curl_easy_pause(call->easy, CURLPAUSE_CONT) == CURLE_OK ? 0 : -ECONNABORTED;
}
