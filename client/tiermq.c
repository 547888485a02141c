#include "client/tiermq.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "client/client.h"
#include "client/placement.h"
#include "common/arena.h"
#include "common/clock.h"
#include "common/loop.h"

enum {
    PENDING_MAX_DEFAULT = 100000,
    PENDING_BYTES_MAX_DEFAULT = 256 << 20,
    DECODED_BYTES_MAX = 64 << 20, /* of one message; an envelope has at most 4 MiB */
    ENDPOINT_BYTES_MAX = 255,
};

void client_complain(struct tiermq *client, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(client->error, sizeof(client->error), format, arguments);
    va_end(arguments);
}

void client_begin_call(struct tiermq *client)
{
    client->error[0] = '\0';
}

/* splitmix64: for spreading in time, nothing else. */
uint64_t client_random_below(struct tiermq *client, uint64_t bound)
{
    uint64_t z = client->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return (z ^ (z >> 31)) % bound;
}

/* -----------------------------------------------------------------------------------------------
 * opening */

/* Gives: the endpoints of a comma-separated list, each to be released with free(). Errors: -EINVAL,
 * -ENOMEM. */
static int split_endpoints(const char *list, char *ret_endpoints[CLIENT_SHARDS_MAX],
                           size_t *ret_length)
{
    const char *at = list;
    while (*at != '\0') {
        at += strspn(at, ", ");
        const size_t bytes = strcspn(at, ", ");
        if (bytes == 0) {
            break;
        }
        if (bytes > ENDPOINT_BYTES_MAX || *ret_length == CLIENT_SHARDS_MAX) {
            return -EINVAL;
        }
        ret_endpoints[*ret_length] = strndup(at, bytes);
        if (ret_endpoints[*ret_length] == NULL) {
            return -ENOMEM;
        }
        (*ret_length)++;
        at += bytes;
    }
    return *ret_length == 0 ? -EINVAL : 0;
}

static void shard_init(struct shard *shard, struct tiermq *client, char *endpoint, size_t index)
{
    shard->client = client;
    shard->endpoint = endpoint;
    shard->index = (uint32_t)index;
    for (size_t i = 0; i < PENDING_STATES; i++) {
        list_init(&shard->jobs[i]);
    }
    list_init(&shard->near_feedbacks);
}

static int shard_connect(struct shard *shard)
{
    struct tiermq *client = shard->client;
    const struct connection_options options = {
        .loop = client->loop,
        .arena = client->arena,
        .endpoint = shard->endpoint,
        .tenant = client->tenant,
        .name = client->name,
        .handlers = {.opened = jobs_opened,
                     .refused = jobs_refused,
                     .message = jobs_message,
                     .chunk = jobs_chunk,
                     .context = shard},
    };
    return connection_create(&options, clock_monotonic_ms(), &shard->connection);
}

/* Takes the endpoints in any case: what was made is released with the client. */
static int open_shards(struct tiermq *client, const char *brokers)
{
    char *endpoints[CLIENT_SHARDS_MAX] = {0};
    size_t length = 0;
    int r = split_endpoints(brokers, endpoints, &length);
    placement_sort(client->tenant, endpoints, length);
    for (size_t i = 0; i < length; i++) {
        shard_init(&client->shards[i], client, endpoints[i], i);
    }
    client->shards_length = length;
    for (size_t i = 0; r == 0 && i < length; i++) {
        r = shard_connect(&client->shards[i]);
    }
    return r;
}

static int open_loop(struct tiermq *client)
{
    int r = loop_create(&client->loop);
    if (r == 0) {
        r = arena_create(DECODED_BYTES_MAX, &client->arena);
    }
    if (r == 0) {
        r = outbox_create(&client->outbox);
    }
    return r;
}

static int init_tables(struct tiermq *client)
{
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed) ||
        getrandom(&client->random, sizeof(client->random), 0) != sizeof(client->random)) {
        return -EIO;
    }
    int r = id_source_init(&client->ids);
    if (r == 0) {
        r = pending_table_init(&client->pending, seed);
    }
    return r;
}

static const char *or_default(const char *text, const char *instead)
{
    return text == NULL || text[0] == '\0' ? instead : text;
}

static size_t or_number(size_t number, size_t instead)
{
    return number == 0 ? instead : number;
}

int tiermq_connect(const struct tiermq_options *options, struct tiermq **ret_client)
{
    CLEANUP(tiermq_close) struct tiermq *client = calloc(1, sizeof(*client));
    if (client == NULL) {
        return -ENOMEM;
    }
    list_init(&client->detached);
    list_init(&client->streams_due);
    list_init(&client->invalidations);
    list_init(&client->feedbacks);
    heap_init(&client->overdue, offsetof(struct pending, overdue_position));
    heap_init(&client->deferred, offsetof(struct pending, deferred_position));
    client->retry_ms = options->retry_ms == 0 ? CLIENT_RETRY_MS : options->retry_ms;
    client->jobs_max = or_number(options->pending_max, PENDING_MAX_DEFAULT);
    client->bytes_max = or_number(options->pending_bytes_max, PENDING_BYTES_MAX_DEFAULT);
    client->tenant = strdup(or_default(options->tenant, "default"));
    client->name = strdup(or_default(options->name, program_invocation_short_name));
    if (client->tenant == NULL || client->name == NULL) {
        return -ENOMEM;
    }
    if (strlen(client->tenant) > REQUEST_NAME_BYTES_MAX ||
        strlen(client->name) > REQUEST_NAME_BYTES_MAX) {
        return -EINVAL;
    }
    int r = init_tables(client);
    if (r == 0) {
        r = open_loop(client);
    }
    if (r == 0) {
        r = open_shards(client, or_default(options->brokers, "tcp://127.0.0.1:7700"));
    }
    if (r < 0) {
        return r;
    }
    *ret_client = TAKE(client);
    return 0;
}

static void shard_finish(struct tiermq *client, struct shard *shard)
{
    for (size_t i = 0; i < PENDING_STATES; i++) {
        while (!list_is_empty(&shard->jobs[i])) {
            jobs_forget(client, CONTAINER_OF(list_first(&shard->jobs[i]), struct pending, link));
        }
    }
    connection_destroy(&shard->connection);
    near_feedbacks_drop(shard, shard->near_feedbacks.length);
    free(shard->cancels.ids);
    free(shard->collected.ids);
    free(shard->credits.items);
    free(shard->endpoint);
}

/* What was collected or cancelled last shall still reach the broker; the link lingers for it,
 * within bounds. */
static void say_last_words(struct tiermq *client)
{
    for (size_t i = 0; i < client->shards_length; i++) {
        if (client->shards[i].connection != NULL) {
            client->shards[i].collected_at_ms = 0;
            outbox_flush(&client->shards[i], clock_monotonic_ms());
        }
    }
}

void tiermq_close(struct tiermq **client_pointer)
{
    struct tiermq *client = client_pointer == NULL ? NULL : *client_pointer;
    if (client == NULL) {
        return;
    }
    *client_pointer = NULL;
    if (client->outbox != NULL) {
        say_last_words(client);
    }
    for (size_t i = 0; i < client->shards_length; i++) {
        shard_finish(client, &client->shards[i]);
    }
    invalidations_forget_all(client);
    feedbacks_forget_all(client);
    outbox_destroy(&client->outbox);
    arena_destroy(&client->arena);
    loop_destroy(&client->loop);
    if (client->pending.buckets != NULL) {
        pending_table_finish(&client->pending);
    }
    heap_finish(&client->overdue);
    heap_finish(&client->deferred);
    free(client->tenant);
    free(client->name);
    free(client);
}

const char *tiermq_last_error(const struct tiermq *client)
{
    return client->error;
}

/* ------------------------------------------------------------------------------------- from an
 * event loop */

/* Errors of the library come from the caller's own call; trouble with brokers is asked for. */
const char *tiermq_connection_error(const struct tiermq *client)
{
    for (size_t i = 0; i < client->shards_length; i++) {
        if (connection_why(client->shards[i].connection)[0] != '\0') {
            return connection_why(client->shards[i].connection);
        }
    }
    return "";
}

const char *tiermq_refusal(const struct tiermq *client, int64_t *ret_retry_after_ms)
{
    int64_t until_ms = 0;
    const char *why = retry_refusal_now(client, &until_ms);
    if (why[0] != '\0' && ret_retry_after_ms != NULL) {
        const int64_t ms = until_ms - clock_monotonic_ms();
        *ret_retry_after_ms = ms > 0 ? ms : 0;
    }
    return why;
}

int tiermq_submit_async(struct tiermq *client, const struct tiermq_job *job,
                        const struct tiermq_callbacks *callbacks, tiermq_id *ret_id)
{
    struct pending *pending = NULL;
    client_begin_call(client);
    int r = jobs_submit(client, job, callbacks, &pending);
    if (r == 0 && ret_id != NULL) {
        memcpy(ret_id->bytes, pending->id.bytes, sizeof(ret_id->bytes));
    }
    return r;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool client_read_hex(const char *text, size_t bytes, uint8_t *ret_bytes)
{
    if (strnlen(text, 2 * bytes + 1) != 2 * bytes) {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) {
        const int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        ret_bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

int client_read_id(struct tiermq *client, const tiermq_id *id, struct id *ret_id)
{
    int r = id_from_bytes(id->bytes, sizeof(id->bytes), ret_id);
    if (r < 0) {
        client_complain(client, "id: all zero names no job");
    }
    return r;
}

/* The id that brokers know a job of ours by that was handed in under this one. */
static struct id known_as(const struct tiermq *client, const struct id *id)
{
    for (size_t i = 0; i < client->shards_length; i++) {
        for (size_t state = 0; state < PENDING_STATES; state++) {
            list_for_each (&client->shards[i].jobs[state], link) {
                const struct pending *pending = CONTAINER_OF(link, struct pending, link);
                if (id_equal(&pending->id, id)) {
                    return pending->wire_id;
                }
            }
        }
    }
    return *id;
}

int client_read_job_id(struct tiermq *client, const tiermq_id *id, struct id *ret_id)
{
    struct id job_id;
    int r = client_read_id(client, id, &job_id);
    if (r == 0) {
        const bool is_known = pending_table_first(&client->pending, &job_id) != NULL;
        *ret_id = is_known ? job_id : known_as(client, &job_id);
    }
    return r;
}

int tiermq_wait_async(struct tiermq *client, const tiermq_id *id,
                      const struct tiermq_callbacks *callbacks)
{
    struct id job_id;
    struct pending *pending = NULL;
    client_begin_call(client);
    int r = client_read_id(client, id, &job_id);
    return r < 0 ? r : jobs_wait(client, &job_id, callbacks, NULL, &pending);
}

/* Whether a broker may have it, from this submission or an earlier one under the same id, or is
 * being asked for it. */
static bool was_sent(const struct tiermq *client, const struct id *id)
{
    const struct pending *pending = pending_table_first(&client->pending, id);
    while (pending != NULL && !pending->was_sent) {
        pending = pending_table_next(pending);
    }
    return pending != NULL;
}

/* A job of ours is cancelled where it is; another one can be at any broker, and those that do not
 * know it ignore it. */
int tiermq_cancel(struct tiermq *client, const tiermq_id *id)
{
    struct id job_id;
    client_begin_call(client);
    int r = client_read_job_id(client, id, &job_id);
    if (r < 0) {
        return r;
    }
    const bool is_sent = was_sent(client, &job_id);
    bool is_ours = false;
    struct pending *pending = pending_table_first(&client->pending, &job_id);
    for (; r == 0 && pending != NULL; pending = pending_table_next(pending)) {
        if (pending->request == NULL || pending->state == PENDING_ENDING) {
            continue;
        }
        is_ours = true;
        if (pending->state == PENDING_READING) {
            stream_end(pending);
            continue;
        }
        pending->is_cancel_wanted = true;
        if (!is_sent) {
            jobs_end(pending, TIERMQ_CANCELLED, "cancelled",
                     pending->refusals > 0 ? "cancelled while it was refused for now"
                                           : "cancelled before a broker had it");
        } else if (pending->was_sent) { /* otherwise it follows the submission */
            r = id_queue_push(&pending->shard->cancels, &job_id);
        }
    }
    for (size_t i = 0; !is_ours && r == 0 && i < client->shards_length; i++) {
        r = id_queue_push(&client->shards[i].cancels, &job_id);
    }
    if (r < 0) {
        client_complain(client, "too many cancellations are waiting to be sent");
    }
    return r;
}

int tiermq_fd(const struct tiermq *client)
{
    return loop_fd(client->loop);
}

int tiermq_timeout_ms(const struct tiermq *client)
{
    const int64_t next_ms = jobs_next_ms(client);
    if (next_ms == INT64_MAX) {
        return -1;
    }
    const int64_t remains_ms = next_ms - clock_monotonic_ms();
    if (remains_ms <= 0) {
        return 0;
    }
    return remains_ms < INT32_MAX ? (int)remains_ms : INT32_MAX;
}

static void flush(struct tiermq *client)
{
    const int64_t now_ms = clock_monotonic_ms();
    for (size_t i = 0; i < client->shards_length; i++) {
        outbox_flush(&client->shards[i], now_ms);
    }
}

int tiermq_dispatch(struct tiermq *client, int timeout_ms)
{
    client_begin_call(client);
    if (client->is_dispatching) {
        client_complain(client, "a callback may not dispatch or block");
        return -EDEADLK;
    }
    client->is_dispatching = true;
    flush(client);
    const int own_ms = tiermq_timeout_ms(client);
    const bool is_ours_sooner = own_ms >= 0 && (timeout_ms < 0 || own_ms < timeout_ms);
    int r = loop_turn(client->loop, is_ours_sooner ? own_ms : timeout_ms);
    jobs_tick(client, clock_monotonic_ms());
    flush(client);
    loop_settle(client->loop);
    client->is_dispatching = false;
    return r == -EINTR ? 0 : r;
}

size_t tiermq_pending(const struct tiermq *client)
{
    return client->pending.length - client->detached.length;
}

bool tiermq_is_connected(const struct tiermq *client)
{
    for (size_t i = 0; i < client->shards_length; i++) {
        if (connection_is_open(client->shards[i].connection)) {
            return true;
        }
    }
    return false;
}

void tiermq_id_format(const tiermq_id *id, char ret_text[TIERMQ_ID_TEXT])
{
    struct id job_id;
    memcpy(job_id.bytes, id->bytes, sizeof(job_id.bytes));
    id_format(&job_id, ret_text);
}

int tiermq_id_parse(const char *text, tiermq_id *ret_id)
{
    struct id job_id;
    int r = id_parse(text, &job_id);
    if (r == 0) {
        memcpy(ret_id->bytes, job_id.bytes, sizeof(ret_id->bytes));
    }
    return r;
}
