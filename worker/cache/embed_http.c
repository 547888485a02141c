/*
 * An entry is a text by its hash: waiting to be asked for, asked for, or known with its vector. A
 * call waits for entries through its wants; when the last is fulfilled, or one fails, the call is
 * finished and is told so from a timer of the loop, never from within anything else.
 */
#include "worker/cache/embed_http.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/clock.h"
#include "common/list.h"
#include "common/log.h"
#include "common/loop.h"
#include "worker/bytes.h"
#include "worker/cache/embed_answer.h"
#include "worker/cache/embed_breaker.h"
#include "worker/provider/http.h"

enum { HASH_BYTES = 16, EMBED_HTTP_VERSION = 1, REQUEST_BYTES_MAX = 64 << 20 };

enum entry_state { ENTRY_WAITING, ENTRY_SENT, ENTRY_KNOWN };

struct entry {
    struct list_link link; /* of the waiting, or of the known ones; of none while it is sent */
    struct entry *next;    /* in its bucket */
    uint8_t hash[HASH_BYTES];
    enum entry_state state;
    bool is_alone;     /* goes in a request of its own */
    json_t *text;      /* until it is known */
    struct list wants; /* of the calls that wait for it */
    float *vector;     /* known */
};

/* A text of a call that is not there yet. */
struct want {
    struct list_link link; /* of the entry; next NULL: fulfilled */
    struct entry *entry;
    struct call *call;
};

struct call {
    struct text_embedder_call base;
    struct list_link link; /* of the calls that wait, or of those that are finished */
    text_embedder_fn *done;
    void *context;
    int result;
    bool is_finished;
    size_t length;
    size_t missing;
    float *vectors;
    struct want wants[]; /* length */
};

struct batch {
    struct list_link link;
    struct embed_http *embedder;
    struct http_call *http_call;
    char *body;
    struct bytes reply;
    size_t length;
    struct entry *entries[]; /* length */
};

/* Why a request failed, without what differs each time (milliseconds, say). */
struct failure {
    int result;
    CURLcode code;
    long status;
};

struct embed_http {
    struct text_embedder base;
    struct loop *loop;
    struct log *log;
    struct http *http;
    struct curl_slist *headers;
    char *url;
    char *model;
    bool asks_for_dim;
    uint32_t batch_max;
    int64_t wait_ms;
    int64_t timeout_ms;
    uint64_t vectors_max;
    uint8_t hash_key[crypto_generichash_KEYBYTES];
    struct entry **buckets;
    size_t buckets_length; /* a power of two */
    struct list waiting;   /* entries, the oldest first */
    size_t unknown;        /* entries that wait or are sent */
    struct list known;     /* entries, the least recently used first */
    struct list batches;
    struct list calls;
    struct list finished;
    struct loop_timer *send_timer;
    struct loop_timer *finish_timer;
    struct embed_breaker breaker;
    struct failure told; /* while the breaker is open */
    uint32_t refusals; /* of single texts, in a row */
    struct text_embedder_stats stats;
};

/* ---- entries ---- */

static struct entry **entry_place(const struct embed_http *embedder, const uint8_t *hash)
{
    uint64_t number;
    memcpy(&number, hash, sizeof(number));
    struct entry **place = &embedder->buckets[number & (embedder->buckets_length - 1)];
    while (*place != NULL && memcmp((*place)->hash, hash, HASH_BYTES) != 0) {
        place = &(*place)->next;
    }
    return place;
}

/* From its list as well, unless it is sent. */
static void entry_release(struct embed_http *embedder, struct entry *entry)
{
    struct entry **place = entry_place(embedder, entry->hash);
    assert(*place == entry);
    *place = entry->next;
    if (entry->state == ENTRY_WAITING) {
        list_remove(&embedder->waiting, &entry->link);
    } else if (entry->state == ENTRY_KNOWN) {
        list_remove(&embedder->known, &entry->link);
    }
    embedder->unknown -= entry->state == ENTRY_KNOWN ? 0 : 1;
    json_decref(entry->text);
    free(entry->vector);
    free(entry);
}

static int entry_add(struct embed_http *embedder, struct entry **place, const uint8_t *hash,
                     const struct text_view *text)
{
    if (embedder->unknown == EMBED_HTTP_WAITING_MAX) {
        return -EAGAIN;
    }
    struct entry *entry = calloc(1, sizeof(*entry));
    if (entry == NULL) {
        return -ENOMEM;
    }
    entry->text = json_stringn(text->text, text->bytes);
    if (entry->text == NULL) {
        free(entry);
        return -EINVAL;
    }
    memcpy(entry->hash, hash, HASH_BYTES);
    list_init(&entry->wants);
    list_append(&embedder->waiting, &entry->link);
    embedder->unknown++;
    *place = entry;
    return 0;
}

static void entry_touch(struct embed_http *embedder, struct entry *entry)
{
    list_remove(&embedder->known, &entry->link);
    list_append(&embedder->known, &entry->link);
}

/* ---- calls ---- */

static void call_finish(struct call *call, int result)
{
    struct embed_http *embedder = CONTAINER_OF(call->base.embedder, struct embed_http, base);
    for (size_t i = 0; i < call->length; i++) {
        if (call->wants[i].link.next != NULL) {
            list_remove(&call->wants[i].entry->wants, &call->wants[i].link);
        }
    }
    call->result = result;
    call->is_finished = true;
    list_remove(&embedder->calls, &call->link);
    list_append(&embedder->finished, &call->link);
    loop_timer_set(embedder->finish_timer, loop_now_ms(embedder->loop));
}

static void call_release(struct call *call)
{
    free(call->vectors);
    free(call);
}

static void http_embed_cancel(struct text_embedder_call *base)
{
    struct call *call = CONTAINER_OF(base, struct call, base);
    struct embed_http *embedder = CONTAINER_OF(base->embedder, struct embed_http, base);
    if (!call->is_finished) {
        call_finish(call, -ECANCELED);
    }
    list_remove(&embedder->finished, &call->link);
    call_release(call);
}

static void finish_due(void *context)
{
    struct embed_http *embedder = context;
    /* Those that `done` starts and that need nothing are told in the next turn. */
    for (size_t left = embedder->finished.length; left > 0 && !list_is_empty(&embedder->finished);
         left--) {
        struct call *call = CONTAINER_OF(list_first(&embedder->finished), struct call, link);
        list_remove(&embedder->finished, &call->link);
        call->done(call->context, call->result, call->result == 0 ? call->vectors : NULL);
        call_release(call);
    }
    if (!list_is_empty(&embedder->finished)) {
        loop_timer_set(embedder->finish_timer, loop_now_ms(embedder->loop));
    }
}

/* ---- what becomes of an entry ---- */

static void want_fulfil(struct embed_http *embedder, struct want *want, const float *vector)
{
    struct call *call = want->call;
    const size_t index = (size_t)(want - call->wants);
    list_remove(&want->entry->wants, &want->link);
    memcpy(call->vectors + index * embedder->base.dim, vector,
           embedder->base.dim * sizeof(*vector));
    if (--call->missing == 0) {
        call_finish(call, 0);
    }
}

static void entry_fail(struct embed_http *embedder, struct entry *entry, int result)
{
    while (!list_is_empty(&entry->wants)) {
        call_finish(CONTAINER_OF(list_first(&entry->wants), struct want, link)->call, result);
    }
    entry_release(embedder, entry);
}

static void entry_learn(struct embed_http *embedder, struct entry *entry, const float *vector)
{
    const size_t bytes = embedder->base.dim * sizeof(*vector);
    while (!list_is_empty(&entry->wants)) {
        want_fulfil(embedder, CONTAINER_OF(list_first(&entry->wants), struct want, link), vector);
    }
    entry->vector = embedder->vectors_max == 0 ? NULL : malloc(bytes);
    if (entry->vector == NULL) {
        entry_release(embedder, entry); /* it was told, and is not remembered */
        return;
    }
    memcpy(entry->vector, vector, bytes);
    json_decref(entry->text);
    entry->text = NULL;
    entry->state = ENTRY_KNOWN;
    embedder->unknown--;
    list_append(&embedder->known, &entry->link);
    if (embedder->known.length > embedder->vectors_max) {
        entry_release(embedder, CONTAINER_OF(list_first(&embedder->known), struct entry, link));
    }
}

/* ---- batches ---- */

static void batch_release(struct batch *batch)
{
    http_cancel(&batch->http_call);
    list_remove(&batch->embedder->batches, &batch->link);
    free(batch->body);
    bytes_finish(&batch->reply);
    free(batch);
}

static void batch_fail(struct batch *batch, int result)
{
    for (size_t i = 0; i < batch->length; i++) {
        entry_fail(batch->embedder, batch->entries[i], result);
    }
}

/* Back to the head of the queue, each for itself. */
static void batch_split(struct batch *batch)
{
    for (size_t i = batch->length; i > 0; i--) {
        struct entry *entry = batch->entries[i - 1];
        entry->state = ENTRY_WAITING;
        entry->is_alone = true;
        list_prepend(&batch->embedder->waiting, &entry->link);
    }
}

static double random_share(void)
{
    return (double)randombytes_uniform(1 << 20) / (double)(1 << 20);
}

static void count_failure(struct embed_http *embedder, int result, long status, const char *why)
{
    (void)snprintf(embedder->stats.error, sizeof(embedder->stats.error), "%s", why);
    embedder->stats.failures++;
    embedder->stats.failures_timeout += result == -ETIMEDOUT ? 1 : 0;
    embedder->stats.failures_invalid += result == -EBADMSG ? 1 : 0;
    embedder->stats.failures_status += status != 0 && status != 200 ? 1 : 0;
}

/* Once, and again when the reason is another one: whoever mends the first must not wait in the dark. */
static void say_it_fails(struct embed_http *embedder, bool was_open, int result,
                         const struct http_reply *reply, const char *why)
{
    const struct failure failure = {result, reply->code, reply->status};
    if (was_open && failure.result == embedder->told.result &&
        failure.code == embedder->told.code && failure.status == embedder->told.status) {
        return;
    }
    embedder->told = failure;
    log_at(embedder->log, LOG_WARN, "the embedder fails: exact answers only until it is back",
           log_text("url", embedder->url), log_text("error", why),
           log_int("retry_ms", embedder->breaker.open_until_ms - loop_now_ms(embedder->loop)));
}

/* Those that wait are not left waiting for a server that is down. */
static void fail_waiting(struct embed_http *embedder)
{
    while (!list_is_empty(&embedder->waiting)) {
        entry_fail(embedder, CONTAINER_OF(list_first(&embedder->waiting), struct entry, link),
                   -EHOSTDOWN);
    }
}

/* While the breaker is open the probe says nothing of its texts. */
static bool is_refusal_of_content(const struct embed_http *embedder, const struct http_reply *reply)
{
    const long status = reply->status;
    return reply->code == CURLE_OK && (status == 400 || status == 413 || status == 422) &&
           !embedder->breaker.is_open;
}

static void batch_failed(struct batch *batch, int result, const struct http_reply *reply,
                         const char *why)
{
    struct embed_http *embedder = batch->embedder;
    count_failure(embedder, result, reply->code == CURLE_OK ? reply->status : 0, why);
    const bool is_refusal = is_refusal_of_content(embedder, reply);
    if (is_refusal && batch->length > 1) {
        batch_split(batch);
        return;
    }
    if (is_refusal && embedder->refusals < EMBED_HTTP_REFUSALS_MAX) {
        embedder->refusals++;
        batch_fail(batch, -EINVAL);
        return;
    }
    const int64_t retry_after_ms = reply->limits == NULL ? 0 : reply->limits->retry_after_ms;
    const bool was_open = embedder->breaker.is_open;
    const bool is_opened = embed_breaker_fail(&embedder->breaker, loop_now_ms(embedder->loop),
                                              retry_after_ms, random_share());
    batch_fail(batch, result);
    if (is_opened) {
        say_it_fails(embedder, was_open, result, reply, why);
        fail_waiting(embedder);
    }
}

static void batch_succeeded(struct batch *batch, const float *vectors)
{
    struct embed_http *embedder = batch->embedder;
    embedder->refusals = 0;
    if (embed_breaker_succeed(&embedder->breaker)) {
        log_at(embedder->log, LOG_INFO, "the embedder is back", log_text("url", embedder->url));
    }
    for (size_t i = 0; i < batch->length; i++) {
        entry_learn(embedder, batch->entries[i], vectors + i * embedder->base.dim);
    }
}

/* Gives: the vectors, or NULL with the reason in *ret_result and words. */
static float *batch_read(const struct batch *batch, const struct http_reply *reply, int *ret_result,
                         char *ret_why)
{
    if (reply->code != CURLE_OK) {
        *ret_result = reply->code == CURLE_OPERATION_TIMEDOUT ? -ETIMEDOUT
                      : reply->code == CURLE_WRITE_ERROR      ? -EBADMSG
                                                              : -EIO;
        (void)snprintf(ret_why, REFUSAL_BYTES, "%s",
                       reply->detail[0] != '\0' ? reply->detail : curl_easy_strerror(reply->code));
        return NULL;
    }
    if (reply->status != 200) {
        *ret_result = -EIO;
        (void)snprintf(ret_why, REFUSAL_BYTES, "status %ld%s", reply->status,
                       reply->status == 404 ? ": the server has no such address, or no such model"
                                            : "");
        return NULL;
    }
    const uint32_t dim = batch->embedder->base.dim;
    float *vectors = malloc(batch->length * dim * sizeof(*vectors));
    int r = vectors == NULL ? -ENOMEM
                            : embed_answer_read(batch->reply.data, batch->reply.length,
                                                batch->length, dim, vectors, ret_why);
    if (r < 0) {
        *ret_result = r == -EINVAL ? -EBADMSG : r;
        free(vectors);
        return NULL;
    }
    return vectors;
}

static int data_arrived(void *context, long status, const void *data, size_t bytes)
{
    struct batch *batch = context;
    /* Nothing is read of what an error says. */
    return status == 200 ? bytes_append(&batch->reply, data, bytes) : 0;
}

static void transfer_done(void *context, const struct http_reply *reply)
{
    struct batch *batch = context;
    struct embed_http *embedder = batch->embedder;
    char why[REFUSAL_BYTES] = "";
    int result = 0;
    batch->http_call = NULL; /* ends with this callback */
    float *vectors = batch_read(batch, reply, &result, why);
    if (vectors != NULL) {
        batch_succeeded(batch, vectors);
    } else {
        batch_failed(batch, result, reply, why);
    }
    free(vectors);
    batch_release(batch);
    if (!list_is_empty(&embedder->waiting)) {
        loop_timer_set(embedder->send_timer, loop_now_ms(embedder->loop));
    }
}

static char *batch_write_body(const struct batch *batch)
{
    const struct embed_http *embedder = batch->embedder;
    json_t *input = json_array();
    for (size_t i = 0; i < batch->length; i++) {
        (void)json_array_append(input, batch->entries[i]->text);
    }
    const size_t written = json_array_size(input);
    json_t *body = json_pack("{s:s, s:o, s:s}", "model", embedder->model, "input", input,
                             "encoding_format", "float");
    if (embedder->asks_for_dim) {
        (void)json_object_set_new(body, "dimensions", json_integer(embedder->base.dim));
    }
    char *text = body == NULL || written != batch->length ? NULL : json_dumps(body, JSON_COMPACT);
    json_decref(body);
    return text;
}

static int batch_start(struct batch *batch)
{
    static const struct http_handler handler = {.on_data = data_arrived, .on_done = transfer_done};
    const struct embed_http *embedder = batch->embedder;
    batch->body = batch_write_body(batch);
    if (batch->body == NULL) {
        return -ENOMEM;
    }
    const struct http_request request = {
        .url = embedder->url,
        .headers = embedder->headers,
        .body = batch->body,
        .body_bytes = strlen(batch->body),
        .timeout_ms = embedder->timeout_ms,
    };
    return http_start(embedder->http, &request, &handler, batch, &batch->http_call);
}

/* Takes the next entries that wait. NULL: no memory. */
static struct batch *batch_take(struct embed_http *embedder)
{
    struct batch *batch =
        calloc(1, sizeof(*batch) + embedder->batch_max * sizeof(batch->entries[0]));
    if (batch == NULL) {
        return NULL;
    }
    batch->embedder = embedder;
    while (batch->length < embedder->batch_max && !list_is_empty(&embedder->waiting)) {
        struct entry *entry = CONTAINER_OF(list_first(&embedder->waiting), struct entry, link);
        if (batch->length > 0 && (entry->is_alone || batch->entries[0]->is_alone)) {
            break;
        }
        list_remove(&embedder->waiting, &entry->link);
        entry->state = ENTRY_SENT;
        batch->entries[batch->length++] = entry;
    }
    batch->reply.bytes_max = embed_answer_bytes_max(batch->length, embedder->base.dim);
    list_append(&embedder->batches, &batch->link);
    return batch;
}

static void send_due(void *context)
{
    struct embed_http *embedder = context;
    while (!list_is_empty(&embedder->waiting) &&
           embedder->batches.length < EMBED_HTTP_BATCHES_MAX &&
           embed_breaker_allows(&embedder->breaker, loop_now_ms(embedder->loop))) {
        struct batch *batch = batch_take(embedder);
        if (batch == NULL) {
            entry_fail(embedder, CONTAINER_OF(list_first(&embedder->waiting), struct entry, link),
                       -ENOMEM);
            continue;
        }
        int r = batch_start(batch);
        if (r < 0) {
            batch_fail(batch, r == -EINVAL ? -EIO : r);
            batch_release(batch);
            continue;
        }
        embed_breaker_send(&embedder->breaker);
        embedder->stats.requests++;
    }
}

static void plan_sending(struct embed_http *embedder, bool is_first)
{
    if (embedder->waiting.length >= embedder->batch_max) {
        loop_timer_set(embedder->send_timer, loop_now_ms(embedder->loop));
    } else if (is_first) {
        loop_timer_set(embedder->send_timer, loop_now_ms(embedder->loop) + embedder->wait_ms);
    }
}

/* ---- asking ---- */

/* Errors: -EHOSTDOWN, -EAGAIN, -EINVAL, -ENOMEM. */
static int call_add_text(struct embed_http *embedder, struct call *call, size_t index,
                         const struct text_view *text)
{
    uint8_t hash[HASH_BYTES];
    if (text->bytes == 0) {
        return 0; /* nothing is known of it, and servers refuse to be asked */
    }
    crypto_generichash(hash, sizeof(hash), (const unsigned char *)text->text, text->bytes,
                       embedder->hash_key, sizeof(embedder->hash_key));
    struct entry **place = entry_place(embedder, hash);
    if (*place != NULL && (*place)->state == ENTRY_KNOWN) {
        memcpy(call->vectors + index * embedder->base.dim, (*place)->vector,
               embedder->base.dim * sizeof(float));
        entry_touch(embedder, *place);
        embedder->stats.texts_cached++;
        return 0;
    }
    if (*place == NULL) {
        if (!embed_breaker_allows(&embedder->breaker, loop_now_ms(embedder->loop))) {
            return -EHOSTDOWN;
        }
        int r = entry_add(embedder, place, hash, text);
        if (r < 0) {
            return r;
        }
    }
    struct want *want = &call->wants[index];
    want->entry = *place;
    want->call = call;
    list_append(&(*place)->wants, &want->link);
    call->missing++;
    return 0;
}

static int http_embed_start(struct text_embedder *base, const struct text_view *texts,
                            size_t length, text_embedder_fn *done, void *context,
                            struct text_embedder_call **ret_call)
{
    struct embed_http *embedder = CONTAINER_OF(base, struct embed_http, base);
    const bool was_idle = list_is_empty(&embedder->waiting);
    struct call *call = calloc(1, sizeof(*call) + length * sizeof(call->wants[0]));
    if (call == NULL) {
        return -ENOMEM;
    }
    call->base.embedder = base;
    call->done = done;
    call->context = context;
    call->length = length;
    call->vectors = calloc(length * base->dim + 1, sizeof(float));
    list_append(&embedder->calls, &call->link);
    int r = call->vectors == NULL ? -ENOMEM : 0;
    for (size_t i = 0; i < length && r == 0; i++) {
        r = call_add_text(embedder, call, i, &texts[i]);
    }
    embedder->stats.texts += length;
    plan_sending(embedder, was_idle && !list_is_empty(&embedder->waiting));
    if (r < 0) {
        embedder->stats.refused += r == -EHOSTDOWN ? length : 0;
        embedder->stats.dropped += r == -EAGAIN ? length : 0;
        http_embed_cancel(&call->base);
        return r;
    }
    if (call->missing == 0) {
        call_finish(call, 0);
    }
    *ret_call = &call->base;
    return 0;
}

static void http_embed_read_stats(const struct text_embedder *base,
                                  struct text_embedder_stats *ret_stats)
{
    const struct embed_http *embedder =
        CONTAINER_OF((struct text_embedder *)(uintptr_t)base, struct embed_http, base);
    *ret_stats = embedder->stats;
    ret_stats->texts_waiting = embedder->unknown;
    ret_stats->vectors = embedder->known.length;
    ret_stats->vector_bytes =
        embedder->known.length * (base->dim * sizeof(float) + sizeof(struct entry));
    ret_stats->is_open = embedder->breaker.is_open;
}

/* ---- beginning and end ---- */

static void http_embed_destroy(struct text_embedder *base)
{
    struct embed_http *embedder = CONTAINER_OF(base, struct embed_http, base);
    while (!list_is_empty(&embedder->calls)) {
        http_embed_cancel(&CONTAINER_OF(list_first(&embedder->calls), struct call, link)->base);
    }
    while (!list_is_empty(&embedder->finished)) {
        http_embed_cancel(&CONTAINER_OF(list_first(&embedder->finished), struct call, link)->base);
    }
    while (!list_is_empty(&embedder->batches)) {
        struct batch *batch = CONTAINER_OF(list_first(&embedder->batches), struct batch, link);
        batch_fail(batch, -ECANCELED);
        batch_release(batch);
    }
    for (size_t i = 0; i < embedder->buckets_length; i++) {
        while (embedder->buckets[i] != NULL) {
            entry_release(embedder, embedder->buckets[i]);
        }
    }
    http_destroy(&embedder->http);
    loop_timer_destroy(&embedder->send_timer);
    loop_timer_destroy(&embedder->finish_timer);
    curl_slist_free_all(embedder->headers);
    free(embedder->buckets);
    free(embedder->url);
    free(embedder->model);
    free(embedder);
}

static int add_header(struct embed_http *embedder, const char *name, const char *value)
{
    struct bytes line = {.bytes_max = 16384};
    int r = bytes_append_text(&line, name);
    r = r < 0 ? r : bytes_append_text(&line, value);
    struct curl_slist *longer = r < 0 ? NULL : curl_slist_append(embedder->headers, line.data);
    bytes_finish(&line);
    if (longer == NULL) {
        return -ENOMEM;
    }
    embedder->headers = longer;
    return 0;
}

static int set_target(struct embed_http *embedder, const struct embed_http_options *options)
{
    size_t end = strlen(options->base_url);
    while (end > 0 && options->base_url[end - 1] == '/') {
        end--;
    }
    if (asprintf(&embedder->url, "%.*s/embeddings", (int)end, options->base_url) < 0) {
        embedder->url = NULL;
    }
    embedder->model = strdup(options->model);
    if (embedder->url == NULL || embedder->model == NULL) {
        return -ENOMEM;
    }
    int r = add_header(embedder, "Content-Type: ", "application/json");
    r = r < 0 ? r : add_header(embedder, "Expect:", "");
    if (r == 0 && options->api_key != NULL && options->api_key[0] != '\0') {
        r = add_header(embedder, "Authorization: Bearer ", options->api_key);
    }
    return r;
}

/* Another server, model or dimension makes other vectors. */
static uint64_t version_of(const struct embed_http *embedder)
{
    const uint64_t seed =
        XXH3_64bits_withSeed(embedder->url, strlen(embedder->url) + 1, EMBED_HTTP_VERSION);
    return XXH3_64bits_withSeed(embedder->model, strlen(embedder->model),
                                seed + embedder->base.dim);
}

static int make_room(struct embed_http *embedder)
{
    const struct http_options options = {.connections_max = EMBED_HTTP_BATCHES_MAX,
                                         .connect_timeout_ms = embedder->timeout_ms};
    size_t buckets = 1024;
    while (buckets < embedder->vectors_max + EMBED_HTTP_WAITING_MAX) {
        buckets *= 2;
    }
    embedder->buckets = calloc(buckets, sizeof(struct entry *));
    if (embedder->buckets == NULL) {
        return -ENOMEM;
    }
    embedder->buckets_length = buckets;
    int r = http_create(embedder->loop, &options, &embedder->http);
    r = r < 0 ? r : loop_timer_create(embedder->loop, send_due, embedder, &embedder->send_timer);
    return r < 0 ? r
                 : loop_timer_create(embedder->loop, finish_due, embedder, &embedder->finish_timer);
}

static void http_embed_free(struct embed_http **embedder)
{
    if (*embedder != NULL) {
        http_embed_destroy(&(*embedder)->base);
    }
}

int embed_http_create(const struct embed_http_options *options, struct loop *loop, struct log *log,
                      struct text_embedder **ret_embedder)
{
    static const struct text_embedder_class class = {.start = http_embed_start,
                                                     .cancel = http_embed_cancel,
                                                     .read_stats = http_embed_read_stats,
                                                     .destroy = http_embed_destroy};
    CLEANUP(http_embed_free) struct embed_http *embedder = calloc(1, sizeof(*embedder));
    if (embedder == NULL) {
        return -ENOMEM;
    }
    list_init(&embedder->waiting);
    list_init(&embedder->known);
    list_init(&embedder->batches);
    list_init(&embedder->calls);
    list_init(&embedder->finished);
    embedder->base.class = &class;
    embedder->base.dim = options->dim;
    embedder->loop = loop;
    embedder->log = log;
    embedder->asks_for_dim = options->asks_for_dim;
    embedder->batch_max = options->batch_max;
    embedder->wait_ms = options->wait_ms;
    embedder->timeout_ms = options->timeout_ms;
    embedder->vectors_max = options->vectors_max;
    randombytes_buf(embedder->hash_key, sizeof(embedder->hash_key));
    int r = set_target(embedder, options);
    r = r < 0 ? r : make_room(embedder);
    if (r < 0) {
        return r;
    }
    (void)snprintf(embedder->base.id, sizeof(embedder->base.id), "http:%s", embedder->model);
    embedder->base.version = version_of(embedder);
    struct embed_http *created = TAKE(embedder);
    *ret_embedder = &created->base;
    return 0;
}
