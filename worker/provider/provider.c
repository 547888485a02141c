/*
 * One call: the request as the protocol writes it → http → (a stream: sse → read_event → chunk
 * forwarded and assembled) or (a body gathered) → judged → on_done. What a stream finds wrong is
 * kept in `failure`, since libcurl only learns that the transfer shall stop.
 */
#include "worker/provider/provider.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/json_read.h"
#include "common/list.h"
#include "common/loop.h"
#include "worker/provider/address.h"
#include "worker/provider/assembly.h"
#include "worker/provider/delta.h"
#include "worker/provider/http.h"
#include "worker/provider/protocol.h"
#include "worker/provider/sse.h"

#define UNAVAILABLE WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE
#define REJECTED    WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED

enum { URL_BYTES_MAX = 4096, DELTA_BYTES_MAX = 4096 /* an event that is longer is parsed */ };

struct provider {
    struct loop *loop;
    const struct protocol *protocols[OPERATIONS];
    char *name;
    char *base_url;
    char *query;
    char *paths[OPERATIONS];    /* NULL: the protocol's */
    struct curl_slist *headers; /* of every call */
    int64_t timeout_ms;
    int64_t first_token_timeout_ms;
    int64_t idle_timeout_ms;
    size_t answer_bytes_max;
    struct http *http;
    struct list calls;
    size_t calls_max;
    struct list waiting;
    struct loop_timer *room_timer; /* calls up from the loop: a call may end within anything */
    bool must_call_up_all;
};

enum call_shape { SHAPE_UNKNOWN, SHAPE_WHOLE, SHAPE_STREAM };

struct provider_call {
    struct list_link link;
    struct provider *provider;
    const struct protocol *protocol;
    struct provider_handler handler;
    void *context;
    enum operation operation;
    bool wants_stream;
    int64_t deadline_ms; /* the job's */
    enum call_shape
        shape; /* of the answer: some servers answer whole although a stream was asked */
    struct http_call *http_call;
    struct curl_slist *headers;
    struct bytes url;
    struct bytes request;
    struct bytes body; /* what arrived whole */
    struct sse sse;
    struct protocol_stream stream;
    struct assembly *assembly;
    struct delta delta;       /* of a chat that is passed on as it comes */
    struct bytes event;       /* the piece being forwarded, or what waits for the first token */
    struct loop_timer *watch; /* of a stream; NULL: none */
    bool is_held;
    int64_t held_since_ms;
    int64_t held_ms;  /* in all, before that */
    int64_t heard_ms; /* when something came last, or it went on */
    bool has_failed;
    struct outcome failure; /* found in the stream; valid if has_failed */
    int64_t started_ms;
    int64_t first_token_ms;
};

static void call_release(struct provider_call *call)
{
    http_cancel(&call->http_call);
    loop_timer_destroy(&call->watch);
    curl_slist_free_all(call->headers);
    bytes_finish(&call->url);
    bytes_finish(&call->request);
    bytes_finish(&call->body);
    bytes_finish(&call->event);
    sse_finish(&call->sse);
    protocol_stream_finish(&call->stream);
    delta_finish(&call->delta);
    assembly_destroy(&call->assembly);
    list_remove(&call->provider->calls, &call->link);
    if (!list_is_empty(&call->provider->waiting)) {
        loop_timer_set(call->provider->room_timer, loop_now_ms(call->provider->loop));
    }
    free(call);
}

/* ---- the line ---- */

bool provider_is_full(const struct provider *provider)
{
    return provider->calls.length >= provider->calls_max;
}

size_t provider_answer_bytes_max(const struct provider *provider)
{
    return provider->answer_bytes_max;
}

void provider_wait(struct provider *provider, struct provider_wait *wait)
{
    list_append(&provider->waiting, &wait->link);
}

void provider_leave(struct provider *provider, struct provider_wait *wait)
{
    if (wait->link.next != NULL) {
        list_remove(&provider->waiting, &wait->link);
    }
}

void provider_call_up(struct provider *provider)
{
    provider->must_call_up_all = true;
    loop_timer_set(provider->room_timer, loop_now_ms(provider->loop));
}

/* Those who find no room join the line again at its end, in their old order. */
static void room_due(void *context)
{
    struct provider *provider = context;
    size_t left = provider->waiting.length;
    const bool is_all = provider->must_call_up_all;
    provider->must_call_up_all = false;
    while (left-- > 0 && !list_is_empty(&provider->waiting) &&
           (is_all || !provider_is_full(provider))) {
        struct provider_wait *wait =
            CONTAINER_OF(list_first(&provider->waiting), struct provider_wait, link);
        list_remove(&provider->waiting, &wait->link);
        wait->on_turn(wait->context);
    }
}

/* ---- a stream ---- */

/* Returns -ECONNABORTED, so that a caller can end with it. */
static int call_fail(struct provider_call *call, const char *code, const char *text)
{
    if (!call->has_failed) {
        outcome_set(&call->failure, UNAVAILABLE, code, "%s", text);
        call->has_failed = true;
    }
    return -ECONNABORTED;
}

/*
 * Appends to call->event. Verbatim when the provider speaks OpenAI's form itself; data of several
 * lines would not survive as one event. Only the events of a response have names.
 */
static int event_write(struct provider_call *call, const json_t *chunk, const char *name,
                       const char *data, size_t bytes)
{
    const bool is_verbatim =
        call->protocol->read_answer == NULL && memchr(data, '\n', bytes) == NULL;
    int r = 0;
    if (call->operation == OPERATION_RESPONSES && strcmp(name, "message") != 0) {
        r = bytes_append_text(&call->event, "event: ");
        r = r < 0 ? r : bytes_append_text(&call->event, name);
        r = r < 0 ? r : bytes_append(&call->event, "\n", 1);
    }
    r = r < 0 ? r : bytes_append_text(&call->event, "data: ");
    if (is_verbatim) {
        r = r < 0 ? r : bytes_append(&call->event, data, bytes);
    } else {
        char *text = json_dumps(chunk, JSON_COMPACT);
        r = r < 0 || text == NULL ? -ENOMEM : bytes_append_text(&call->event, text);
        free(text);
    }
    return r < 0 ? r : bytes_append(&call->event, "\n\n", 2);
}

static void note_first_token(struct provider_call *call)
{
    const int64_t passed_ms = clock_monotonic_ms() - call->started_ms;
    call->first_token_ms = passed_ms > 0 ? passed_ms : 1;
    loop_timer_set(call->watch, call->heard_ms + call->provider->idle_timeout_ms);
}

static int chunk_take(struct provider_call *call, const json_t *chunk, const char *name,
                      const char *data, size_t bytes)
{
    /* A response comes whole with its last event. */
    int r = call->operation == OPERATION_RESPONSES ? 0 : assembly_add(call->assembly, chunk);
    if (r == -EBADMSG) {
        return call_fail(call, "garbage", "an event of the stream is no chunk");
    }
    r = r < 0 ? r : event_write(call, chunk, name, data, bytes);
    if (r < 0) {
        return call_fail(call, "too_large", "the streamed answer is larger than an answer may be");
    }
    if (call->first_token_ms == 0 && !assembly_chunk_has_token(chunk)) {
        return 0;
    }
    if (call->first_token_ms == 0) {
        note_first_token(call);
    }
    call->handler.on_chunk(call->context, call->event.data, call->event.length);
    bytes_clear(&call->event);
    return 0;
}

/* Events of this call are passed on as they come, and those after the first token are mostly alike. */
static bool may_be_delta(const struct provider_call *call)
{
    return call->first_token_ms > 0 && call->protocol->read_answer == NULL &&
           call->operation == OPERATION_CHAT;
}

static int delta_take(struct provider_call *call, const char *name, const char *data, size_t bytes)
{
    const struct delta *delta = &call->delta;
    int r = assembly_add_content(call->assembly, delta->choice, delta->text.data,
                                 delta->text.length);
    r = r < 0 ? r : event_write(call, NULL, name, data, bytes);
    if (r < 0) {
        return call_fail(call, "too_large", "the streamed answer is larger than an answer may be");
    }
    call->handler.on_chunk(call->context, call->event.data, call->event.length);
    bytes_clear(&call->event);
    return 0;
}

static int event_arrived(void *context, const char *name, const char *data, size_t bytes)
{
    struct provider_call *call = context;
    json_t *chunk = NULL;
    if (may_be_delta(call) && delta_read(&call->delta, data, bytes)) {
        return delta_take(call, name, data, bytes);
    }
    int r = call->protocol->read_event(&call->stream, name, data, bytes, &chunk, &call->failure);
    if (r == -ECONNABORTED) {
        call->has_failed = true;
        return r;
    }
    if (r < 0) {
        return call_fail(call, "garbage", "an event of the stream is no JSON object");
    }
    if (chunk != NULL) {
        r = chunk_take(call, chunk, name, data, bytes);
        if (may_be_delta(call)) {
            delta_learn(&call->delta, chunk, data, bytes);
        }
        json_decref(chunk);
    }
    return r;
}

static enum call_shape shape_of(const struct provider_call *call, long status, const char *data,
                                size_t bytes)
{
    if (!call->wants_stream || status < 200 || status >= 300) {
        return SHAPE_WHOLE;
    }
    for (size_t i = 0; i < bytes; i++) {
        if (strchr(" \t\r\n", data[i]) == NULL) {
            return data[i] == '{' ? SHAPE_WHOLE : SHAPE_STREAM;
        }
    }
    return SHAPE_UNKNOWN;
}

static int data_arrived(void *context, long status, const void *data, size_t bytes)
{
    struct provider_call *call = context;
    call->heard_ms = clock_monotonic_ms();
    if (call->shape == SHAPE_UNKNOWN) {
        call->shape = shape_of(call, status, data, bytes);
    }
    int r = 0;
    if (call->shape == SHAPE_STREAM) {
        r = sse_feed(&call->sse, data, bytes);
    } else if (call->shape == SHAPE_WHOLE) {
        r = bytes_append(&call->body, data, bytes);
    }
    if (r == -EBADMSG) {
        (void)call_fail(call, "provider_error", "the stream broke off with a bare JSON object");
    } else if (r < 0 && r != -ECONNABORTED) {
        (void)call_fail(call, "too_large", "the answer is larger than an answer may be");
    }
    return r;
}

/* ---- a stream that does not come ---- */

static bool waits_for_first_token(const struct provider_call *call)
{
    return call->first_token_ms == 0 && call->shape != SHAPE_WHOLE;
}

static int64_t silent_until_ms(const struct provider_call *call)
{
    return waits_for_first_token(call) ? call->started_ms + call->provider->first_token_timeout_ms
                                       : call->heard_ms + call->provider->idle_timeout_ms;
}

/* Set anew when it is due, and not with each token: those are many. */
static void watch_due(void *context)
{
    struct provider_call *call = context;
    const int64_t now_ms = clock_monotonic_ms();
    const int64_t until_ms =
        call->is_held ? now_ms + call->provider->idle_timeout_ms : silent_until_ms(call);
    if (now_ms < until_ms) {
        loop_timer_set(call->watch, until_ms);
        return;
    }
    if (waits_for_first_token(call)) {
        (void)call_fail(call, "first_token_timeout",
                        "no token came within the provider's first_token_timeout");
    } else {
        (void)call_fail(call, "idle_timeout",
                        "the stream brought nothing for the provider's idle_timeout");
    }
    http_fail(call->http_call, CURLE_OPERATION_TIMEDOUT);
}

static int watch_begin(struct provider_call *call)
{
    call->heard_ms = call->started_ms;
    int r = loop_timer_create(call->provider->loop, watch_due, call, &call->watch);
    if (r == 0) {
        loop_timer_set(call->watch, silent_until_ms(call));
    }
    return r;
}

/* ---- its end ---- */

/* Gives: *ret_answer, a reference. Errors: -ENOMEM. */
static int stream_answer(const struct provider_call *call, json_t **ret_answer)
{
    if (call->operation != OPERATION_RESPONSES) {
        return assembly_answer(call->assembly, ret_answer);
    }
    *ret_answer = json_incref(call->stream.whole);
    return *ret_answer == NULL ? -ENOMEM : 0;
}

static bool stream_is_whole(const struct provider_call *call)
{
    return call->operation == OPERATION_RESPONSES
               ? call->stream.whole != NULL
               : call->stream.is_ended || assembly_is_complete(call->assembly);
}

/* The whole answer of a stream, judged; call->body holds its JSON. */
static json_t *stream_conclude(struct provider_call *call, long status, struct outcome *ret_outcome)
{
    json_t *answer = NULL;
    if (!stream_is_whole(call)) {
        outcome_set(ret_outcome, UNAVAILABLE, "truncated",
                    "the stream ended before the answer did");
        return NULL;
    }
    int r = stream_answer(call, &answer);
    char *text = r < 0 ? NULL : json_dumps(answer, JSON_COMPACT);
    bytes_clear(&call->body);
    r = text == NULL ? -ENOMEM : bytes_append_text(&call->body, text);
    free(text);
    if (r < 0) {
        outcome_set(ret_outcome, UNAVAILABLE, "too_large",
                    "the streamed answer could not be put together");
    } else {
        outcome_from_reply(status, call->operation, answer, 0, ret_outcome);
    }
    return answer;
}

/* Into OpenAI's form. Takes `reply`. NULL: it could not be translated, the outcome says so. */
static json_t *whole_translate(struct provider_call *call, json_t *reply,
                               struct outcome *ret_outcome)
{
    json_t *answer = NULL;
    int r = call->protocol->read_answer(reply, &answer);
    json_decref(reply);
    char *text = r < 0 ? NULL : json_dumps(answer, JSON_COMPACT);
    bytes_clear(&call->body);
    if (text == NULL || bytes_append_text(&call->body, text) < 0) {
        outcome_set(ret_outcome, UNAVAILABLE, "garbage",
                    "status 200, but the body is no answer of this provider");
        json_decref(answer);
        answer = NULL;
    }
    free(text);
    return answer;
}

static json_t *whole_conclude(struct provider_call *call, const struct http_reply *reply,
                              struct outcome *ret_outcome)
{
    json_t *body =
        call->body.length == 0 ? NULL : json_read(call->body.data, call->body.length, 0, NULL);
    const bool is_success = reply->status >= 200 && reply->status < 300;
    const json_t *error = json_object_get(body, "error");
    if (is_success && call->protocol->read_answer != NULL && json_is_object(body) &&
        (error == NULL || json_is_null(error))) {
        body = whole_translate(call, body, ret_outcome);
        if (body == NULL) {
            return NULL;
        }
    }
    outcome_from_reply(reply->status, call->operation, body, reply->limits->retry_after_ms,
                       ret_outcome);
    return body;
}

static void judge_transport(const struct provider_call *call, const struct http_reply *reply,
                            struct outcome *ret_outcome)
{
    /* A connection may time out long before. */
    const bool is_past_deadline = clock_monotonic_ms() >= call->deadline_ms;
    const bool is_unconnected =
        reply->code == CURLE_OPERATION_TIMEDOUT && !reply->is_connected && !is_past_deadline;
    outcome_from_transport(is_unconnected ? CURLE_COULDNT_CONNECT : reply->code, reply->detail,
                           is_past_deadline, ret_outcome);
}

static void transfer_done(void *context, const struct http_reply *reply)
{
    struct provider_call *call = context;
    struct provider_reply answer = {
        .http_status = reply->status,
        .limits = reply->limits,
        .call_ms = provider_call_ms(call),
        .first_token_ms = call->first_token_ms,
    };
    call->http_call = NULL; /* ends with this callback */
    if (call->has_failed) {
        answer.outcome = call->failure;
    } else if (reply->code != CURLE_OK) {
        judge_transport(call, reply, &answer.outcome);
    } else if (call->shape == SHAPE_STREAM) {
        answer.answer = stream_conclude(call, reply->status, &answer.outcome);
    } else {
        answer.answer = whole_conclude(call, reply, &answer.outcome);
    }
    if (answer.outcome.kind == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED) {
        answer.body = call->body;
        call->body = (struct bytes){0};
    }
    call->handler.on_done(call->context, &answer);
    json_decref(answer.answer);
    bytes_finish(&answer.body);
    call_release(call);
}

/* ---- public ---- */

static const struct protocol *const protocols[] = {
    [PROVIDER_OPENAI] = &protocol_openai,
    [PROVIDER_ANTHROPIC] = &protocol_anthropic,
    [PROVIDER_GEMINI] = &protocol_gemini,
    [PROVIDER_AZURE] = &protocol_azure,
    [PROVIDER_OPENAI_RESPONSES] = &protocol_responses,
};

/* The Responses API is spoken for chats; all else is OpenAI's own form. */
static const struct protocol *protocol_of(enum config_provider_type type, enum operation operation)
{
    return type == PROVIDER_OPENAI_RESPONSES && operation != OPERATION_CHAT ? &protocol_openai
                                                                            : protocols[type];
}

static int headers_add(struct curl_slist **headers, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*headers, line);
    if (longer == NULL) {
        return -ENOMEM;
    }
    *headers = longer;
    return 0;
}

static int write_headers(struct provider *provider, const struct config_provider *config)
{
    const bool has_own_key = config->key_header[0] != '\0' && config->api_key[0] != '\0';
    int r = headers_add(&provider->headers, "Content-Type: application/json");
    /* No round trip before bodies above 1 MiB. */
    r = r < 0 ? r : headers_add(&provider->headers, "Expect:");
    if (r < 0) {
        return r;
    }
    struct curl_slist *longer = provider->protocols[OPERATION_CHAT]->add_headers(
        provider->headers, has_own_key ? "" : config->api_key);
    if (longer != NULL && has_own_key) { /* where the operator wants it */
        longer = protocol_add_key(longer, config->key_header, config->api_key);
    }
    if (longer == NULL) {
        return -ENOMEM;
    }
    provider->headers = longer;
    for (size_t i = 0; r == 0 && i < config->headers_length; i++) {
        r = headers_add(&provider->headers, config->headers[i]);
    }
    return r;
}

static int copy_address(struct provider *provider, const struct config_provider *config)
{
    const char *const paths[OPERATIONS] = {
        [OPERATION_CHAT] = config->paths.chat,
        [OPERATION_COMPLETIONS] = config->paths.completions,
        [OPERATION_EMBEDDINGS] = config->paths.embeddings,
        [OPERATION_RESPONSES] = config->paths.responses,
    };
    provider->name = strdup(config->name);
    provider->base_url = strdup(config->base_url);
    provider->query = strdup(config->query);
    bool is_whole = provider->name != NULL && provider->base_url != NULL && provider->query != NULL;
    for (size_t i = 0; i < OPERATIONS; i++) {
        if (paths[i][0] != '\0') {
            provider->paths[i] = strdup(paths[i]);
            is_whole = is_whole && provider->paths[i] != NULL;
        }
    }
    return is_whole ? 0 : -ENOMEM;
}

int provider_create(struct loop *loop, const struct config_provider *config,
                    size_t answer_bytes_max, struct provider **ret_provider)
{
    CLEANUP(provider_destroy) struct provider *provider = calloc(1, sizeof(*provider));
    if (provider == NULL) {
        return -ENOMEM;
    }
    list_init(&provider->calls);
    list_init(&provider->waiting);
    provider->calls_max = config->connections_max;
    provider->loop = loop;
    for (size_t i = 0; i < OPERATIONS; i++) {
        provider->protocols[i] = protocol_of(config->type, (enum operation)i);
    }
    provider->timeout_ms = config->timeout_ms;
    provider->first_token_timeout_ms = config->first_token_timeout_ms;
    provider->idle_timeout_ms = config->idle_timeout_ms;
    provider->answer_bytes_max = answer_bytes_max;
    int r = copy_address(provider, config);
    r = r < 0 ? r : write_headers(provider, config);
    if (r < 0) {
        return r;
    }
    for (size_t end = strlen(provider->base_url); end > 0 && provider->base_url[end - 1] == '/';
         end--) {
        provider->base_url[end - 1] = '\0';
    }
    const struct http_options options = {
        .connections_max = config->connections_max,
        .connect_timeout_ms = config->connect_timeout_ms,
    };
    r = http_create(loop, &options, &provider->http);
    r = r < 0 ? r : loop_timer_create(loop, room_due, provider, &provider->room_timer);
    if (r < 0) {
        return r;
    }
    *ret_provider = TAKE(provider);
    return 0;
}

void provider_destroy(struct provider **provider)
{
    struct provider *old = TAKE(*provider);
    if (old == NULL) {
        return;
    }
    while (!list_is_empty(&old->calls)) {
        call_release(CONTAINER_OF(list_first(&old->calls), struct provider_call, link));
    }
    http_destroy(&old->http);
    loop_timer_destroy(&old->room_timer);
    free(old->name);
    free(old->base_url);
    free(old->query);
    for (size_t i = 0; i < OPERATIONS; i++) {
        free(old->paths[i]);
    }
    curl_slist_free_all(old->headers);
    free(old);
}

const char *provider_name(const struct provider *provider)
{
    return provider->name;
}

static int call_write_headers(struct provider_call *call, const char *idempotency_key)
{
    struct bytes line = {.bytes_max = 512};
    int r = bytes_append_text(&line, "Idempotency-Key: ");
    r = r < 0 ? r : bytes_append_text(&line, idempotency_key);
    r = r < 0 ? r : headers_add(&call->headers, line.data);
    bytes_finish(&line);
    for (const struct curl_slist *at = call->provider->headers; r == 0 && at != NULL;
         at = at->next) {
        r = headers_add(&call->headers, at->data);
    }
    return r;
}

/* A path may have a query of its own, and a value there goes before that of the same name here. */
static int query_append(const struct provider *provider, struct bytes *url)
{
    const char *query = strchr(url->data, '?');
    const size_t name_bytes = strcspn(provider->query, "=");
    if (provider->query[0] == '\0' ||
        (query != NULL && memmem(query, strlen(query), provider->query, name_bytes) != NULL)) {
        return 0;
    }
    int r = bytes_append_text(url, query == NULL ? "?" : "&");
    return r < 0 ? r : bytes_append_text(url, provider->query);
}

static int call_write_url(struct provider_call *call, const struct provider_request *request,
                          struct outcome *ret_outcome)
{
    const struct provider *provider = call->provider;
    const char *path = provider->paths[request->operation];
    int r = bytes_append_text(&call->url, provider->base_url);
    r = r < 0 ? r : call->protocol->write_path(request, &call->url);
    if (r == 0 && path != NULL) {
        bytes_clear(&call->url);
        r = bytes_append_text(&call->url, provider->base_url);
        r = r < 0 ? r : address_append_path(&call->url, path, request->model);
    }
    if (r == -ENOTSUP) {
        outcome_set(ret_outcome, REJECTED, "unsupported", "provider \"%s\" does not offer %s; %s",
                    provider->name, operation_name(request->operation),
                    request->operation == OPERATION_RESPONSES
                        ? "name a model of a provider of type openai or azure, or submit a chat"
                        : "name a model of another provider");
        return -EINVAL;
    }
    return r < 0 ? r : query_append(provider, &call->url);
}

static int call_prepare(struct provider_call *call, const struct provider_request *request,
                        struct outcome *ret_outcome)
{
    const struct provider *provider = call->provider;
    struct provider_request asked = *request;
    asked.stream = call->wants_stream;
    int r = call_write_url(call, &asked, ret_outcome);
    r = r < 0 ? r : call->protocol->write_body(&asked, &call->request, ret_outcome);
    r = r < 0 ? r : call_write_headers(call, request->idempotency_key);
    if (r == 0 && call->wants_stream) {
        sse_init(&call->sse, provider->answer_bytes_max, event_arrived, call);
        r = request->operation == OPERATION_RESPONSES
                ? 0
                : assembly_create(request->operation, provider->answer_bytes_max, &call->assembly);
        r = r < 0 ? r : watch_begin(call);
    }
    if (r == -EMSGSIZE) {
        outcome_set(ret_outcome, REJECTED, "too_large",
                    "the request is too large in the form of provider \"%s\"", provider->name);
        return -EINVAL;
    }
    return r;
}

static int call_send(struct provider_call *call, int64_t deadline_ms)
{
    static const struct http_handler handler = {.on_data = data_arrived, .on_done = transfer_done};
    struct provider *provider = call->provider;
    int64_t left_ms = deadline_ms - call->started_ms;
    left_ms = left_ms < 1 ? 1 : left_ms;
    call->deadline_ms = deadline_ms;
    const struct http_request send = {
        .url = call->url.data,
        .headers = call->headers,
        .body = call->request.data,
        .body_bytes = call->request.length,
        .timeout_ms = left_ms < provider->timeout_ms ? left_ms : provider->timeout_ms,
    };
    return http_start(provider->http, &send, &handler, call, &call->http_call);
}

int provider_start(struct provider *provider, const struct provider_request *request,
                   const struct provider_handler *handler, void *context,
                   struct provider_call **ret_call, struct outcome *ret_outcome)
{
    struct provider_call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        return -ENOMEM;
    }
    call->provider = provider;
    call->handler = *handler;
    call->context = context;
    call->operation = request->operation;
    call->stream.operation = request->operation;
    call->protocol = provider->protocols[request->operation];
    call->wants_stream = request->stream && request->operation != OPERATION_EMBEDDINGS;
    call->url.bytes_max = URL_BYTES_MAX;
    call->request.bytes_max =
        request->body_bytes * 2 + 65536; /* a translation may be longer than its source */
    call->body.bytes_max = provider->answer_bytes_max * (request->answers < 2 ? 1
                                                         : request->answers < PROVIDER_ANSWERS_MAX
                                                             ? request->answers
                                                             : PROVIDER_ANSWERS_MAX);
    call->event.bytes_max = provider->answer_bytes_max + 64;
    call->delta.text.bytes_max = DELTA_BYTES_MAX;
    call->started_ms = clock_monotonic_ms();
    list_append(&provider->calls, &call->link);

    int r = call_prepare(call, request, ret_outcome);
    if (r == 0) {
        r = call_send(call, request->deadline_ms);
        if (r == -EINVAL) {
            outcome_set(ret_outcome, UNAVAILABLE, "config", "the address \"%s\" is not usable",
                        provider->base_url);
        }
    }
    if (r < 0) {
        call_release(call);
        return r;
    }
    *ret_call = call;
    return 0;
}

void provider_hold(struct provider_call *call)
{
    if (!call->is_held) {
        call->is_held = true;
        call->held_since_ms = clock_monotonic_ms();
    }
    http_pause(call->http_call);
}

void provider_go_on(struct provider_call *call)
{
    if (!call->is_held) {
        return;
    }
    call->is_held = false;
    call->heard_ms = clock_monotonic_ms();
    call->held_ms += call->heard_ms - call->held_since_ms;
    if (http_resume(call->http_call) < 0) {
        http_fail(call->http_call, CURLE_WRITE_ERROR);
    }
}

void provider_cancel(struct provider_call **call)
{
    struct provider_call *old = TAKE(*call);
    if (old != NULL) {
        call_release(old);
    }
}

int64_t provider_call_ms(const struct provider_call *call)
{
    const int64_t until_ms = call->is_held ? call->held_since_ms : clock_monotonic_ms();
    return until_ms - call->started_ms - call->held_ms;
}

int64_t provider_call_ends_ms(const struct provider_call *call)
{
    return call->started_ms + call->provider->timeout_ms;
}
