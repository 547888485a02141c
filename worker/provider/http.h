/*
 * http: HTTP calls on the loop, through libcurl's multi interface; one client for each provider.
 *
 * Connections are kept alive and bounded; HTTP/2 is spoken where the server offers it over TLS.
 * Redirects are not followed: a credential goes to the address that was configured and nowhere
 * else. Calls above the bound of connections would wait inside libcurl, on their own timeout, where
 * nobody sees them: the caller starts no more than that. Belongs to the loop's thread; nothing
 * blocks (names are resolved on libcurl's threads).
 */
#pragma once
#include <curl/curl.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/provider/limits.h"

struct loop;
struct http;
struct http_call;

/* Connections above the bound, for calls that are not to wait behind those of a server that hangs.
 */
enum { HTTP_PROBES_MAX = 8 };

struct http_options {
    uint32_t connections_max;
    int64_t connect_timeout_ms;
};

/* All but `body` is copied; the body must live until the call is done or cancelled. */
struct http_request {
    const char *url;
    const struct curl_slist *headers; /* must live as long as the body */
    const void *body;
    size_t body_bytes;
    int64_t timeout_ms;
};

struct http_reply {
    CURLcode code;               /* CURLE_OK: status is set and the body was whole */
    const char *detail;          /* of a failure, in libcurl's words; may be empty */
    long status;                 /* 0: no head arrived */
    bool is_connected;           /* the request could begin to go out */
    const struct limits *limits; /* what its head said */
};

struct http_handler {
    /*
     * A piece of the body, after `status` is known. Not 0: the call fails with CURLE_WRITE_ERROR.
     */
    int (*on_data)(void *context, long status, const void *data, size_t bytes);
    /*
     * Once, unless the call is cancelled; never from within http_start(). The call is gone when it
     * returns.
     */
    void (*on_done)(void *context, const struct http_reply *reply);
};

/* Errors: -ENOMEM. */
MUST_USE int http_create(struct loop *loop, const struct http_options *options,
                         struct http **ret_http);
/* Calls that still run are dropped without on_done. */
void http_destroy(struct http **http);

/* Errors: -ENOMEM; -EINVAL libcurl refuses the address or a header. */
MUST_USE int http_start(struct http *http, const struct http_request *request,
                        const struct http_handler *handler, void *context,
                        struct http_call **ret_call);
/* Not from within on_data. */
void http_cancel(struct http_call **call);
/*
 * Ends the call as one that failed with `code`: on_done is called within. Not from within on_data.
 */
void http_fail(struct http_call *call, CURLcode code);

/*
 * Takes nothing more from the connection, so that the server has to wait, until http_resume().
 * From within on_data too: the piece that is being handed over is the last one. What libcurl holds
 * by then is bounded (16 KiB, with HTTP/2 a stream's window). The call's timeout goes on.
 */
void http_pause(struct http_call *call);
/*
 * on_data may be called within. Not from within on_data.
 * Errors: -ECONNABORTED on_data failed: end the call with http_fail().
 */
MUST_USE int http_resume(struct http_call *call);
