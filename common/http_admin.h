/*
 * http_admin: the admin HTTP server of a daemon, on its loop (libmicrohttpd with external epoll).
 *
 * Serves GET /healthz (200 while the loop turns), GET /readyz (200 or 503 by the ready function),
 * GET /metrics, and the routes added by the daemon under /v1/. Requests are bounded: 64 KiB of
 * body, 64 connections, 10 s until the head of a request is there and 10 s from there to the end of
 * its answer; what takes longer is disconnected. Routes that change something (`changes` true)
 * answer only on loopback addresses or a unix socket, with 403 elsewhere, and refuse requests that
 * carry an Origin header (a browser's), until keys exist.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/attributes.h"

struct loop;
struct metrics;
struct http_admin;
struct http_later;

struct http_request {
    const char *method;
    const char *path; /* without the query */
    const char *rest; /* what follows the route's prefix */
    const char *body; /* NUL-terminated, body_bytes long */
    size_t body_bytes;
    void *connection; /* for http_query() */
    void *arrival;    /* for http_later() */
};

struct http_response {
    int status; /* 200 unless set */
    char *body; /* malloc'ed; taken */
    size_t body_bytes;
    const char *content_type; /* application/json unless set; static */
};

typedef void http_fn(void *context, const struct http_request *request,
                     struct http_response *ret_response);

struct http_admin_options {
    const char *address;     /* "127.0.0.1:7710", "[::1]:0" (0: any free port), "unix:/path" */
    struct metrics *metrics; /* not owned */
    bool (*is_ready)(void *context, const char **ret_why_not); /* may be NULL: always ready */
    void (*before_metrics)(void *context); /* may be NULL: copies gauges before an exposition */
    void *context;
};

enum {
    HTTP_BODY_BYTES_MAX = 64 << 10,
    HTTP_CONNECTIONS_MAX = 64,
    HTTP_REQUEST_MS_MAX = 10 * 1000,
    HTTP_LATER_MS_MAX = 8 * 1000,
};

/*
 * A unix socket is made for its owner alone (mode 0600) and removed at the end; one that nobody
 * listens on any more is replaced. Errors: -EADDRINUSE, -EADDRNOTAVAIL, -EINVAL (address), -EACCES,
 * -ENOMEM, -errno.
 */
MUST_USE int http_admin_create(struct loop *loop, const struct http_admin_options *options,
                               struct http_admin **ret_http);
void http_admin_destroy(struct http_admin **http);
/*
 * A path that ends with '/' is a prefix; of several that fit, the longest is taken. Method e.g.
 * "GET", which serves HEAD too. Called on the loop. Errors: -EEXIST, -ENOMEM.
 */
MUST_USE int http_admin_route(struct http_admin *http, const char *method, const char *path,
                              bool changes, http_fn *handler, void *context);
/*
 * For a handler that cannot answer yet: the request waits, the loop goes on. Called within the handler, which then leaves
 * its response as it is. After HTTP_LATER_MS_MAX, and when the server is destroyed, the request is answered with 503, and the
 * answer that is given later goes nowhere. Errors: -ENOMEM.
 * Gives: *ret_later, which must be answered once, whatever became of its request.
 */
MUST_USE int http_later(struct http_admin *http, const struct http_request *request,
                        struct http_later **ret_later);
/* Takes: *later and the body. */
void http_later_answer(struct http_later **later, struct http_response *response);
/* Decoded value of a query parameter, NULL when absent; valid within the handler. */
const char *http_query(const struct http_request *request, const char *name);
/* Fills a JSON error body: {"error":{"message":…}}. */
void http_error(struct http_response *response, int status, const char *format, ...)
    PRINTF_LIKE(3, 4);
/* The address as bound, e.g. "127.0.0.1:38123" or "unix:/path". */
const char *http_admin_address(const struct http_admin *http);
