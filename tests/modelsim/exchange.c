#include "tests/modelsim/exchange.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <xxhash.h>
#include "common/clock.h"
#include "common/loop.h"
#include "tests/modelsim/combined.h"

enum { LOOK_MS = 100 }; /* how often it is looked whether a client that has to wait is still there */

struct exchange {
    struct shared *shared;
    struct list_link link;
    struct MHD_Connection *connection;
    const char *idempotency_key; /* the connection's */
    uint64_t call;               /* its number in shared->calls */
    char path[256];
    enum api api;
    bool is_control, is_get;
    char *body;
    size_t body_bytes, body_capacity;

    bool is_planned;   /* the request was read, fault and times are drawn */
    bool is_suspended;
    bool is_queued;    /* libmicrohttpd has the response */
    bool is_answered;  /* the whole answer went out */
    int status;        /* of the reply; 0: none was queued */
    struct rate_verdict rate;
    struct loop_timer *timer;
    int64_t wake_us;   /* what is waited for */
    bool is_left;      /* the client closed the connection meanwhile */
    struct fault fault; /* FAULT_NONE: all is well */
    struct latency_plan plan;
    int64_t began_us;
    struct model_request request;
    struct model_answer answer;
    struct reply reply;

    /* A stream: what is written and not yet taken by libmicrohttpd. */
    char *piece;
    size_t piece_bytes, piece_taken;
    uint32_t tokens_written;
    bool is_open, is_closed;
};

static int64_t now_us(void)
{
    return clock_monotonic_ns() / 1000;
}

/* Whatever the caller authorised itself with; NULL: nothing. */
static const char *credential_of(struct MHD_Connection *connection)
{
    static const char *const names[] = {"Authorization", "x-api-key", "x-goog-api-key", "api-key"};
    const char *value = NULL;
    for (size_t i = 0; i < ARRAY_LENGTH(names) && value == NULL; i++) {
        value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, names[i]);
    }
    return value;
}

int exchange_create(struct shared *shared, struct MHD_Connection *connection, const char *method, const char *path,
                    struct exchange **ret_exchange)
{
    struct exchange *exchange = calloc(1, sizeof(*exchange));
    if (exchange == NULL) {
        return -ENOMEM;
    }
    exchange->shared = shared;
    exchange->connection = connection;
    exchange->api = api_from_path(method, path);
    exchange->is_control = strncmp(path, "/control/", 9) == 0 || strcmp(path, "/healthz") == 0;
    exchange->is_get = strcmp(method, "GET") == 0;
    exchange->request.api = API_NONE;
    snprintf(exchange->path, sizeof(exchange->path), "%s", path);
    list_append(&shared->exchanges, &exchange->link);
    if (exchange->api != API_NONE) {
        exchange->idempotency_key = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Idempotency-Key");
        counters_begin(&shared->counters, exchange->api, exchange->idempotency_key);
        exchange->call = calls_began(shared->calls, exchange->idempotency_key, credential_of(connection));
    }
    *ret_exchange = exchange;
    return 0;
}

/* The caller hung up, or the stream broke off: what was done by then is charged. */
static void bill_cut(struct exchange *exchange)
{
    if (!exchange->is_answered && exchange->is_planned && (exchange->is_left || exchange->tokens_written > 0)) {
        bill_add(&exchange->shared->bill, &exchange->shared->options, &exchange->request, false, exchange->tokens_written);
    }
}

void exchange_destroy(struct exchange **exchange_pointer)
{
    struct exchange *exchange = TAKE(*exchange_pointer);
    if (exchange == NULL) {
        return;
    }
    if (exchange->api != API_NONE) {
        counters_end(&exchange->shared->counters, exchange->is_answered, exchange->status);
        if (!exchange->is_answered) {
            calls_ended(exchange->shared->calls, exchange->call, "unanswered", exchange->request.model,
                        fault_kind_name(exchange->fault.kind));
        }
    }
    if (exchange->request.model != NULL) {
        bill_cut(exchange);
    }
    list_remove(&exchange->shared->exchanges, &exchange->link);
    loop_timer_destroy(&exchange->timer);
    model_request_finish(&exchange->request);
    model_answer_finish(&exchange->answer);
    free(exchange->body);
    free(exchange->piece);
    free(exchange);
}

struct exchange *exchange_from_link(struct list_link *link)
{
    return CONTAINER_OF(link, struct exchange, link);
}

enum MHD_Result exchange_take_body(struct exchange *exchange, const char *data, size_t bytes)
{
    if (exchange->body_bytes + bytes > SERVER_BODY_BYTES_MAX) {
        return MHD_NO;
    }
    if (exchange->body_bytes + bytes + 1 > exchange->body_capacity) {
        size_t capacity = (exchange->body_bytes + bytes + 1) * 2;
        char *body = realloc(exchange->body, capacity);
        if (body == NULL) {
            return MHD_NO;
        }
        exchange->body = body;
        exchange->body_capacity = capacity;
    }
    memcpy(exchange->body + exchange->body_bytes, data, bytes);
    exchange->body_bytes += bytes;
    exchange->body[exchange->body_bytes] = '\0';
    return MHD_YES;
}

/* ---------------------------------------------------------------------------------------------- waiting */

/* libmicrohttpd does not look at a suspended connection; so that a call that was given up is counted at once, we do. */
static bool has_left(const struct exchange *exchange)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(exchange->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct pollfd client = {.fd = info == NULL ? -1 : info->connect_fd, .events = POLLRDHUP};
    return poll(&client, 1, 0) > 0;
}

static void set_timer(struct exchange *exchange)
{
    const int64_t at_ms = (exchange->wake_us + 999) / 1000;
    const int64_t look_ms = clock_monotonic_ms() + LOOK_MS;
    loop_timer_set(exchange->timer, at_ms < look_ms ? at_ms : look_ms);
}

static void on_timer(void *context)
{
    struct exchange *exchange = context;
    exchange->is_left = has_left(exchange);
    if (!exchange->is_left && now_us() < exchange->wake_us) {
        set_timer(exchange);
        return;
    }
    exchange->is_suspended = false;
    MHD_resume_connection(exchange->connection);
}

/* Suspends the connection until `at_us`. */
static enum MHD_Result wait_until(struct exchange *exchange, int64_t at_us)
{
    if (exchange->timer == NULL && loop_timer_create(exchange->shared->loop, on_timer, exchange, &exchange->timer) < 0) {
        return MHD_NO;
    }
    exchange->is_suspended = true;
    MHD_suspend_connection(exchange->connection);
    exchange->wake_us = at_us;
    set_timer(exchange);
    return MHD_YES;
}

void exchange_abort(struct exchange *exchange)
{
    if (exchange->is_suspended) {
        exchange->is_suspended = false;
        MHD_resume_connection(exchange->connection);
    }
}

/* ---------------------------------------------------------------------------------------------- replies */

/* "12ms", "1.5s", "6m0s": as OpenAI writes times. */
static void write_duration(int64_t ms, char *ret_text, size_t bytes)
{
    if (ms < 1000) {
        snprintf(ret_text, bytes, "%" PRId64 "ms", ms);
    } else if (ms < 60000) {
        snprintf(ret_text, bytes, "%.4gs", (double)ms / 1000);
    } else {
        snprintf(ret_text, bytes, "%" PRId64 "m%gs", ms / 60000, (double)(ms % 60000) / 1000);
    }
}

static void add_openai_limit(struct MHD_Response *response, const char *what, const struct rate_state *state)
{
    char name[64], value[32];
    snprintf(name, sizeof(name), "x-ratelimit-limit-%s", what);
    snprintf(value, sizeof(value), "%.0f", state->per_min);
    MHD_add_response_header(response, name, value);
    snprintf(name, sizeof(name), "x-ratelimit-remaining-%s", what);
    snprintf(value, sizeof(value), "%" PRId64, state->left);
    MHD_add_response_header(response, name, value);
    snprintf(name, sizeof(name), "x-ratelimit-reset-%s", what);
    write_duration(state->reset_ms, value, sizeof(value));
    MHD_add_response_header(response, name, value);
}

static void add_anthropic_limit(struct MHD_Response *response, const char *what, const struct rate_state *state)
{
    char name[64], value[32];
    time_t at = (time_t)((clock_unix_ms() + state->reset_ms + 999) / 1000);
    struct tm parts;
    snprintf(name, sizeof(name), "anthropic-ratelimit-%s-limit", what);
    snprintf(value, sizeof(value), "%.0f", state->per_min);
    MHD_add_response_header(response, name, value);
    snprintf(name, sizeof(name), "anthropic-ratelimit-%s-remaining", what);
    snprintf(value, sizeof(value), "%" PRId64, state->left);
    MHD_add_response_header(response, name, value);
    snprintf(name, sizeof(name), "anthropic-ratelimit-%s-reset", what);
    if (strftime(value, sizeof(value), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&at, &parts)) > 0) {
        MHD_add_response_header(response, name, value);
    }
}

/* As they were after this request was judged. */
static void add_limits(const struct exchange *exchange, struct MHD_Response *response)
{
    const struct rate_verdict *rate = &exchange->rate;
    if (exchange->shared->rates.options.without_headers || api_maker(exchange->api) == MAKER_GOOGLE) {
        return; /* Google tells nothing */
    }
    void (*const add)(struct MHD_Response *, const char *, const struct rate_state *) =
        exchange->api == API_MESSAGES ? add_anthropic_limit : add_openai_limit;
    if (rate->requests.per_min > 0) {
        add(response, "requests", &rate->requests);
    }
    if (rate->tokens.per_min > 0) {
        add(response, "tokens", &rate->tokens);
    }
}

/* Queues a response and lets it go. */
static enum MHD_Result queue(struct exchange *exchange, int status, struct MHD_Response *response)
{
    if (response == NULL) {
        return MHD_NO;
    }
    exchange->is_queued = true;
    exchange->status = status;
    exchange->shared->counters.statuses[status]++;
    add_limits(exchange, response);
    enum MHD_Result result = MHD_queue_response(exchange->connection, (unsigned int)status, response);
    MHD_destroy_response(response);
    return result;
}

static struct MHD_Response *json_response(char *text, size_t bytes)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(bytes, text, MHD_RESPMEM_MUST_FREE);
    if (response == NULL) {
        free(text);
        return NULL;
    }
    MHD_add_response_header(response, "Content-Type", "application/json");
    return response;
}

static enum MHD_Result queue_text(struct exchange *exchange, int status, const char *text)
{
    char *copy = strdup(text);
    return copy == NULL ? MHD_NO : queue(exchange, status, json_response(copy, strlen(copy)));
}

static void add_retry_after(const struct fault *fault, struct MHD_Response *response)
{
    char value[64];
    switch (fault->retry_after) {
    case RETRY_AFTER_HEADER:
        snprintf(value, sizeof(value), "%" PRId64, (fault->retry_after_ms + 999) / 1000);
        MHD_add_response_header(response, "Retry-After", value);
        break;
    case RETRY_AFTER_DATE: {
        time_t at = time(NULL) + (time_t)((fault->retry_after_ms + 999) / 1000);
        struct tm parts;
        if (strftime(value, sizeof(value), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&at, &parts)) > 0) {
            MHD_add_response_header(response, "Retry-After", value);
        }
        break;
    }
    case RETRY_AFTER_MS_HEADER:
        snprintf(value, sizeof(value), "%" PRId64, fault->retry_after_ms);
        MHD_add_response_header(response, "retry-after-ms", value);
        break;
    case RETRY_AFTER_NONE:
    case RETRY_AFTER_BODY:
        break;
    }
}

static enum MHD_Result queue_error(struct exchange *exchange, int status, const char *text)
{
    const struct fault *fault = &exchange->fault;
    char *body = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&body, &bytes);
    if (out == NULL) {
        return MHD_NO;
    }
    reply_write_error(exchange->api, status, text, fault->retry_after == RETRY_AFTER_BODY ? fault->retry_after_ms : 0, out);
    if (fclose(out) != 0) {
        free(body);
        return MHD_NO;
    }
    struct MHD_Response *response = json_response(body, bytes);
    if (response != NULL && fault->kind == FAULT_STATUS && fault->retry_after_ms > 0) {
        add_retry_after(fault, response);
    }
    return queue(exchange, status, response);
}

/* 429 with the wait in every place where a provider may put it; Google puts it into the body only. */
static enum MHD_Result queue_limited(struct exchange *exchange)
{
    const struct rate_verdict *rate = &exchange->rate;
    char text[200], value[32];
    char *body = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&body, &bytes);
    if (out == NULL) {
        return MHD_NO;
    }
    exchange->shared->counters.limited++;
    snprintf(text, sizeof(text), "Rate limit reached for %.64s on %s per min.", exchange->request.model, rate->what);
    reply_write_error(exchange->api, 429, text, rate->wait_ms, out);
    if (fclose(out) != 0) {
        free(body);
        return MHD_NO;
    }
    struct MHD_Response *response = json_response(body, bytes);
    if (response != NULL && api_maker(exchange->api) != MAKER_GOOGLE) {
        snprintf(value, sizeof(value), "%" PRId64, (rate->wait_ms + 999) / 1000);
        MHD_add_response_header(response, "Retry-After", value);
        snprintf(value, sizeof(value), "%" PRId64, rate->wait_ms);
        MHD_add_response_header(response, "retry-after-ms", value);
    }
    return queue(exchange, 429, response);
}

static enum MHD_Result queue_refusal(struct exchange *exchange)
{
    char *body = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&body, &bytes);
    if (out == NULL) {
        return MHD_NO;
    }
    reply_write_refusal(&exchange->request, out);
    if (fclose(out) != 0) {
        free(body);
        return MHD_NO;
    }
    return queue(exchange, reply_refusal_status(exchange->api), json_response(body, bytes));
}

/*
 * Closes the connection at once. libmicrohttpd shuts a socket down before it closes it, which would be an orderly end;
 * connecting to no address makes Linux send a reset instead (tcp(7), tcp_disconnect).
 */
static enum MHD_Result cut_connection(struct exchange *exchange, bool with_reset)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(exchange->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (with_reset && info != NULL) {
        struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
        if (connect(info->connect_fd, &nowhere, sizeof(nowhere)) < 0) {
            return MHD_NO; /* closed without a reset: still a cut */
        }
    }
    return MHD_NO;
}

static ssize_t read_truncated(void *context, uint64_t position, char *buffer, size_t max)
{
    struct exchange *exchange = context;
    size_t half = exchange->piece_bytes / 2;
    if (position >= half) {
        return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    size_t bytes = half - position < max ? half - position : max;
    memcpy(buffer, exchange->piece + position, bytes);
    return (ssize_t)bytes;
}

static enum embedding_flaw flaw_of(enum fault_kind kind)
{
    return kind == FAULT_DIMENSION      ? FLAW_DIMENSION
           : kind == FAULT_NOT_A_NUMBER ? FLAW_NOT_A_NUMBER
           : kind == FAULT_SHUFFLED     ? FLAW_SHUFFLED
           : kind == FAULT_COMBINE_DROP ? FLAW_DROPPED
           : kind == FAULT_COMBINE_MERGE ? FLAW_TWICE
                                        : FLAW_NONE;
}

/* The whole answer, as JSON into *ret_text. Errors: -ENOMEM. */
static int write_whole(struct exchange *exchange, char **ret_text, size_t *ret_bytes)
{
    FILE *out = open_memstream(ret_text, ret_bytes);
    if (out == NULL) {
        return -ENOMEM;
    }
    if (api_embeds(exchange->api)) {
        reply_write_embeddings(&exchange->request, exchange->shared->options.seed, flaw_of(exchange->fault.kind), out);
    } else {
        reply_write_whole(&exchange->reply, out);
    }
    return fclose(out) == 0 ? 0 : -ENOMEM;
}

static void count_answer(struct exchange *exchange)
{
    struct counters *counters = &exchange->shared->counters;
    exchange->is_answered = true;
    bill_add(&exchange->shared->bill, &exchange->shared->options, &exchange->request, true, exchange->answer.tokens);
    counters->input_tokens += exchange->request.input_tokens;
    counters->output_tokens += exchange->answer.tokens;
    counters_answered(counters, exchange->idempotency_key);
    calls_ended(exchange->shared->calls, exchange->call, "answered", exchange->request.model, fault_kind_name(exchange->fault.kind));
}

static enum MHD_Result queue_whole(struct exchange *exchange)
{
    char *text = NULL;
    size_t bytes = 0;
    if (write_whole(exchange, &text, &bytes) < 0) {
        return MHD_NO;
    }
    if (exchange->fault.kind == FAULT_TRUNCATED) {
        exchange->piece = text;
        exchange->piece_bytes = bytes;
        struct MHD_Response *cut = MHD_create_response_from_callback(bytes, 1024, read_truncated, exchange, NULL);
        return queue(exchange, 200, cut);
    }
    count_answer(exchange);
    return queue(exchange, 200, json_response(text, bytes));
}

/* ---------------------------------------------------------------------------------------------- streams */

/* When token `index` is due. */
static int64_t token_due_us(const struct exchange *exchange, uint32_t index)
{
    int64_t due = exchange->began_us + exchange->plan.first_us + (int64_t)(exchange->plan.token_us * index);
    bool is_late = exchange->fault.kind == FAULT_STALL && index >= exchange->answer.tokens / 2;
    return is_late ? due + exchange->fault.hang_ms * 1000 : due;
}

/* Writes what is due into `piece`. Errors: -EAGAIN nothing is due; -EPIPE a fault ends the stream; -ENOMEM. */
static int write_due_piece(struct exchange *exchange)
{
    int64_t now = now_us();
    uint32_t to = exchange->tokens_written;
    while (to < exchange->answer.tokens && token_due_us(exchange, to) <= now) {
        to++;
    }
    if (exchange->fault.kind == FAULT_TRUNCATED && to >= exchange->answer.tokens / 2 && exchange->is_open) {
        return -EPIPE;
    }
    if (to == exchange->tokens_written && exchange->is_open && to < exchange->answer.tokens) {
        return -EAGAIN;
    }
    free(exchange->piece);
    exchange->piece = NULL;
    exchange->piece_taken = 0;
    FILE *out = open_memstream(&exchange->piece, &exchange->piece_bytes);
    if (out == NULL) {
        return -ENOMEM;
    }
    if (!exchange->is_open) {
        reply_stream_open(&exchange->reply, out);
        exchange->is_open = true;
    }
    exchange->reply.sent_us = exchange->shared->options.with_stamps ? now : 0;
    reply_stream_tokens(&exchange->reply, exchange->tokens_written, to, out);
    exchange->tokens_written = to;
    if (exchange->fault.kind == FAULT_ERROR_IN_STREAM && to >= exchange->answer.tokens / 2) {
        reply_stream_error(exchange->api, out);
        exchange->is_closed = true;
    } else if (to == exchange->answer.tokens && exchange->fault.kind != FAULT_TRUNCATED) {
        reply_stream_close(&exchange->reply, out);
        exchange->is_closed = true;
    }
    return fclose(out) == 0 ? 0 : -ENOMEM;
}

static ssize_t read_stream(void *context, uint64_t position, char *buffer, size_t max)
{
    (void)position;
    struct exchange *exchange = context;
    if (exchange->is_left) {
        return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    if (exchange->piece_taken == exchange->piece_bytes) {
        if (exchange->is_closed) {
            if (exchange->fault.kind != FAULT_ERROR_IN_STREAM) {
                count_answer(exchange);
            }
            return MHD_CONTENT_READER_END_OF_STREAM;
        }
        int r = write_due_piece(exchange);
        if (r == -EAGAIN) {
            r = wait_until(exchange, token_due_us(exchange, exchange->tokens_written)) == MHD_YES ? 0 : -ENOMEM;
            return r == 0 ? 0 : MHD_CONTENT_READER_END_WITH_ERROR;
        }
        if (r < 0) {
            return MHD_CONTENT_READER_END_WITH_ERROR;
        }
    }
    size_t bytes = exchange->piece_bytes - exchange->piece_taken;
    bytes = bytes < max ? bytes : max;
    memcpy(buffer, exchange->piece + exchange->piece_taken, bytes);
    exchange->piece_taken += bytes;
    return (ssize_t)bytes;
}

static enum MHD_Result queue_stream(struct exchange *exchange)
{
    exchange->shared->counters.streams++;
    struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, read_stream, exchange, NULL);
    if (response != NULL) {
        MHD_add_response_header(response, "Content-Type", "text/event-stream");
        MHD_add_response_header(response, "Cache-Control", "no-cache");
    }
    return queue(exchange, 200, response);
}

/* ---------------------------------------------------------------------------------------------- the request */

static bool is_served(const struct server_options *options, const char *model)
{
    for (size_t i = 0; i < options->models_length; i++) {
        if (strcmp(options->models[i], model) == 0) {
            return true;
        }
    }
    return false;
}

/* NULL: none was given. */
static const char *api_key_of(struct exchange *exchange)
{
    /* Azure takes keys from no other header. */
    const char *credential = api_maker(exchange->api) == MAKER_AZURE
                                 ? MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, "api-key")
                                 : credential_of(exchange->connection);
    return credential != NULL && strncmp(credential, "Bearer ", 7) == 0 ? credential + 7 : credential;
}

static bool is_authorised(struct exchange *exchange)
{
    const char *wanted = exchange->shared->options.api_key;
    const char *key = api_key_of(exchange);
    return wanted == NULL || (key != NULL && strcmp(key, wanted) == 0);
}

/* Google's is a wrong argument, and told apart by a detail only. */
static enum MHD_Result queue_wrong_key(struct exchange *exchange)
{
    return api_maker(exchange->api) == MAKER_GOOGLE
               ? queue_text(exchange, 400, "{\"error\":{\"code\":400,\"message\":\"API key not valid. Please pass a valid API key.\","
                                           "\"status\":\"INVALID_ARGUMENT\",\"details\":[{\"@type\":"
                                           "\"type.googleapis.com/google.rpc.ErrorInfo\",\"reason\":\"API_KEY_INVALID\","
                                           "\"domain\":\"googleapis.com\"}]}}")
               : queue_error(exchange, 401, "Incorrect API key provided.");
}

/* Google's streams are a list in JSON otherwise. */
static bool wants_events(struct exchange *exchange)
{
    const char *alt = MHD_lookup_connection_value(exchange->connection, MHD_GET_ARGUMENT_KIND, "alt");
    return alt != NULL && strcmp(alt, "sse") == 0;
}

/* Half of the answer is left. */
static void filter_answer(struct exchange *exchange)
{
    exchange->answer.tokens = (exchange->answer.tokens + 1) / 2;
    exchange->reply.is_filtered = true;
}

static enum MHD_Result answer_models(struct exchange *exchange)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL) {
        return MHD_NO;
    }
    reply_write_models(exchange->shared->options.models, exchange->shared->options.models_length, out);
    if (fclose(out) != 0) {
        free(text);
        return MHD_NO;
    }
    exchange->is_answered = true;
    return queue(exchange, 200, json_response(text, bytes));
}

static int make_answer(const struct shared *shared, const struct model_request *request, enum fault_kind fault,
                       struct model_answer *ret_answer)
{
    const struct server_options *options = &shared->options;
    if (combined_is_asked(request)) {
        return combined_answer_create(options->seed, request, options->style, fault, ret_answer);
    }
    const struct version *version = versions_find(&options->versions, request->prompt);
    char first_word[16];
    if (version != NULL) {
        snprintf(first_word, sizeof(first_word), "v%u", version->number);
    }
    return model_answer_create(options->seed, request->model, request->prompt, options->style, request->max_tokens,
                               version == NULL ? NULL : first_word, ret_answer);
}

/* Reads the request, and draws its fault and its times. MHD_NO closes; otherwise is_queued tells whether it is over. */
static enum MHD_Result plan(struct exchange *exchange)
{
    struct shared *shared = exchange->shared;
    exchange->is_planned = true;
    exchange->began_us = now_us();
    if (!is_authorised(exchange)) {
        return queue_wrong_key(exchange);
    }
    if (exchange->api == API_STREAM_GENERATE && !wants_events(exchange)) {
        return queue_error(exchange, 400, "The simulated provider streams with ?alt=sse only.");
    }
    if (api_maker(exchange->api) == MAKER_AZURE &&
        MHD_lookup_connection_value(exchange->connection, MHD_GET_ARGUMENT_KIND, "api-version") == NULL) {
        return queue_text(exchange, 404, "{\"error\":{\"code\":\"404\",\"message\":\"Resource not found\"}}");
    }
    if (exchange->api == API_MODELS) {
        return answer_models(exchange);
    }
    char error[200];
    int r = model_request_read(exchange->api, exchange->path, exchange->body != NULL ? exchange->body : "", exchange->body_bytes,
                               &exchange->request, error);
    if (r < 0) {
        return queue_error(exchange, r == -EINVAL ? 400 : 500, error);
    }
    exchange->request.cached_tokens = (uint32_t)(exchange->request.input_tokens * shared->options.prompt_cache_percent / 100);
    const struct model_request *request = &exchange->request;
    if (!is_served(&shared->options, request->model)) {
        return queue_error(exchange, 404, "The model does not exist or you do not have access to it.");
    }
    if (!api_embeds(exchange->api) && make_answer(shared, request, FAULT_NONE, &exchange->answer) < 0) {
        return queue_error(exchange, 500, "out of memory");
    }
    exchange->reply = (struct reply){.request = request,
                                     .answer = &exchange->answer,
                                     .id = XXH3_64bits_withSeed(request->prompt, strlen(request->prompt), shared->options.seed)};
    exchange->rate = rates_take(&shared->rates, api_key_of(exchange),
                                (uint64_t)request->input_tokens + exchange->answer.tokens, clock_monotonic_ms());
    if (exchange->rate.is_refused) {
        return queue_limited(exchange);
    }
    const struct fault *fault = faults_draw(&shared->options.faults, request->model, request->prompt, clock_monotonic_ms());
    if (fault != NULL) {
        exchange->fault = *fault;
    }
    if (exchange->fault.kind >= FAULT_COMBINE_DROP && combined_is_asked(request)) {
        model_answer_finish(&exchange->answer);
        if (make_answer(shared, request, exchange->fault.kind, &exchange->answer) < 0) {
            return queue_error(exchange, 500, "out of memory");
        }
    }
    if (exchange->fault.kind == FAULT_FILTERED) {
        filter_answer(exchange);
    }
    exchange->plan = latency_plan(&shared->options.latency, shared->counters.in_flight,
                                  exchange->fault.kind == FAULT_SLOW ? exchange->fault.factor : 1);
    if (shared->prefixes != NULL) {
        prefixes_read(shared->prefixes, api_key_of(exchange), exchange->began_us, exchange->began_us + exchange->plan.first_us,
                      &exchange->request);
    }
    return MHD_YES;
}

/* When the reply begins: a stream with its first token, a whole answer with its last. */
static int64_t reply_due_us(const struct exchange *exchange)
{
    int64_t at = exchange->began_us + exchange->plan.first_us;
    if (exchange->fault.kind == FAULT_HANG) {
        return exchange->began_us + exchange->fault.hang_ms * 1000;
    }
    if (exchange->fault.kind == FAULT_STATUS || exchange->fault.kind == FAULT_RESET ||
        exchange->fault.kind == FAULT_REFUSED) {
        return exchange->began_us;
    }
    return exchange->request.stream ? at : at + (int64_t)(exchange->plan.token_us * exchange->answer.tokens);
}

static enum MHD_Result queue_error_in_200(struct exchange *exchange)
{
    return queue_text(exchange, 200,
                      api_maker(exchange->api) == MAKER_GOOGLE
                          ? "{\"error\":{\"code\":500,\"message\":\"Internal error encountered.\",\"status\":\"INTERNAL\"}}"
                          : "{\"error\":{\"message\":\"Network connection lost.\",\"type\":\"server_error\"}}");
}

static enum MHD_Result reply_now(struct exchange *exchange)
{
    const bool is_stream = exchange->request.stream && !api_embeds(exchange->api);
    switch (exchange->fault.kind) {
    case FAULT_STATUS:
        return queue_error(exchange, exchange->fault.status, "The simulated provider refuses by its fault script.");
    case FAULT_RESET:
        return cut_connection(exchange, true);
    case FAULT_HANG:
        return cut_connection(exchange, false);
    case FAULT_GARBAGE:
        return queue_text(exchange, 200, "<html><body>Bad Gateway {\"choices\":[</body></html>");
    case FAULT_EMPTY:
        return queue_text(exchange, 200, "");
    case FAULT_REFUSED:
        return queue_refusal(exchange);
    case FAULT_ERROR_IN_STREAM:
        if (is_stream) {
            break;
        }
        /* fallthrough */
    case FAULT_ERROR_IN_200:
        return queue_error_in_200(exchange);
    case FAULT_NONE:
    case FAULT_TRUNCATED:
    case FAULT_SLOW:
    case FAULT_STALL:
    case FAULT_DIMENSION:
    case FAULT_NOT_A_NUMBER:
    case FAULT_SHUFFLED:
    case FAULT_FILTERED:
    case FAULT_COMBINE_DROP:
    case FAULT_COMBINE_SWAP:
    case FAULT_COMBINE_SWAP_ANSWERS:
    case FAULT_COMBINE_SWAP_TEXTS:
    case FAULT_COMBINE_MERGE:
    case FAULT_COMBINE_MERGE_TEXTS:
    case FAULT_COMBINE_GARBAGE:
    case FAULT_COMBINE_TRUNCATE:
    case FAULT_KINDS:
        break;
    }
    return is_stream ? queue_stream(exchange) : queue_whole(exchange);
}

/* ---------------------------------------------------------------------------------------------- control */

static double or_zero(const json_t *object, const char *key, double otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) && json_number_value(value) >= 0 ? json_number_value(value) : otherwise;
}

static enum MHD_Result queue_json(struct exchange *exchange, int status, json_t *document)
{
    char *text = document != NULL ? json_dumps(document, 0) : NULL;
    json_decref(document);
    return text == NULL ? MHD_NO : queue(exchange, status, json_response(text, strlen(text)));
}

static enum MHD_Result control(struct exchange *exchange)
{
    struct server_options *options = &exchange->shared->options;
    struct latency *latency = &options->latency;
    const char *what = exchange->path + (strncmp(exchange->path, "/control/", 9) == 0 ? 9 : 0);
    json_t *body = exchange->is_get ? NULL : json_loadb(exchange->body != NULL ? exchange->body : "", exchange->body_bytes, 0, NULL);
    enum MHD_Result result = MHD_YES;
    if (strcmp(what, "/healthz") == 0) {
        result = queue_text(exchange, 200, "{\"status\":\"ok\"}");
    } else if (strcmp(what, "counters") == 0) {
        result = queue_json(exchange, 200, counters_describe(&exchange->shared->counters, &options->faults));
    } else if (strcmp(what, "bill") == 0) {
        result = queue_json(exchange, 200, bill_describe(&exchange->shared->bill, options));
    } else if (strcmp(what, "reset") == 0 && !exchange->is_get) {
        counters_reset(&exchange->shared->counters);
        exchange->shared->bill = (struct bill){0};
        memset(options->faults.happened, 0, sizeof(options->faults.happened));
        result = queue_text(exchange, 200, "{}");
    } else if (strcmp(what, "faults") == 0) {
        char error[FAULTS_ERROR_BYTES];
        int r = exchange->is_get ? 0 : faults_read(&options->faults, body, clock_monotonic_ms(), error);
        result = r < 0 ? queue_json(exchange, 400, json_pack("{s:s}", "error", error))
                       : queue_json(exchange, 200, json_pack("{s:o}", "faults", faults_describe(&options->faults)));
    } else if (strcmp(what, "versions") == 0) {
        char error[200];
        int r = exchange->is_get ? 0 : versions_read(&options->versions, body, error);
        result = r < 0 ? queue_json(exchange, 400, json_pack("{s:s}", "error", error))
                       : queue_json(exchange, 200, json_pack("{s:o}", "versions", versions_describe(&options->versions)));
    } else if (strcmp(what, "limits") == 0) {
        char error[200];
        struct rates *rates = &exchange->shared->rates;
        int r = exchange->is_get ? 0 : rates_read(rates, body, clock_monotonic_ms(), error);
        result = r < 0 ? queue_json(exchange, 400, json_pack("{s:s}", "error", error))
                       : queue_json(exchange, 200, rates_describe(rates));
    } else if (strcmp(what, "history") == 0) {
        struct counters *counters = &exchange->shared->counters;
        result = queue_json(exchange, 200, json_pack("{s:o}", "seconds",
                                                     history_describe(&counters->history, clock_unix_ms(),
                                                                      counters->in_flight)));
    } else if (strcmp(what, "latency") == 0) {
        latency->first_token_ms = or_zero(body, "first_token_ms", latency->first_token_ms);
        latency->tokens_per_s = or_zero(body, "tokens_per_s", latency->tokens_per_s);
        latency->jitter_percent = or_zero(body, "jitter_percent", latency->jitter_percent);
        latency->slots = or_zero(body, "slots", latency->slots);
        result = queue_json(exchange, 200,
                            json_pack("{s:f, s:f, s:f, s:f}", "first_token_ms", latency->first_token_ms, "tokens_per_s",
                                      latency->tokens_per_s, "jitter_percent", latency->jitter_percent, "slots", latency->slots));
    } else {
        result = queue_text(exchange, 404, "{\"error\":\"unknown path; see /control/bill, counters, faults, history, latency, limits, reset, versions\"}");
    }
    json_decref(body);
    return result;
}

enum MHD_Result exchange_go_on(struct exchange *exchange)
{
    if (exchange->is_queued) {
        return MHD_YES;
    }
    if (exchange->is_left) {
        return MHD_NO;
    }
    if (exchange->is_control) {
        return control(exchange);
    }
    if (exchange->api == API_NONE) {
        return queue_text(exchange, 404, "{\"error\":{\"message\":\"Unknown request URL.\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"unknown_url\"}}");
    }
    if (!exchange->is_planned) {
        enum MHD_Result result = plan(exchange);
        if (result != MHD_YES || exchange->is_queued) {
            return result;
        }
    }
    int64_t due_us = reply_due_us(exchange);
    return due_us > now_us() ? wait_until(exchange, due_us) : reply_now(exchange);
}
