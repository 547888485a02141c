#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "client/client.h"
#include "common/clock.h"

/* Bounds of one message: large enough that a full one is cheap for each job, small enough that none
 * waits long behind it. */
enum {
    MESSAGE_SUBMITS_MAX = 256,
    MESSAGE_IDS_MAX = 1024,
    MESSAGE_BYTES_MAX = 4 << 20,
    MESSAGE_INVALIDATIONS_MAX = 16, /* each has up to 66 KB of texts, and an envelope its bound */
    MESSAGE_FEEDBACKS_MAX = 256,    /* of each kind */
};

/* The message being built. Its items point into the pending jobs; nothing is copied before packing.
 */
struct outbox {
    Wire__Submit submits[MESSAGE_SUBMITS_MAX], *submit_pointers[MESSAGE_SUBMITS_MAX];
    struct blob *payloads[MESSAGE_SUBMITS_MAX];
    Wire__Wait waits[MESSAGE_IDS_MAX], *wait_pointers[MESSAGE_IDS_MAX];
    Wire__Cancel cancels[MESSAGE_IDS_MAX], *cancel_pointers[MESSAGE_IDS_MAX];
    Wire__Collected collected[MESSAGE_IDS_MAX], *collected_pointers[MESSAGE_IDS_MAX];
    Wire__StreamCredit credits[MESSAGE_IDS_MAX], *credit_pointers[MESSAGE_IDS_MAX];
    Wire__CacheInvalidate *invalidations[MESSAGE_INVALIDATIONS_MAX];
    Wire__CacheFeedback *near_feedbacks[MESSAGE_FEEDBACKS_MAX];
    Wire__Feedback *feedbacks[MESSAGE_FEEDBACKS_MAX];
    size_t submits_length, waits_length, cancels_length, collected_length, invalidations_length,
        near_feedbacks_length, feedbacks_length, credits_length;
};

int outbox_create(struct outbox **ret_outbox)
{
    struct outbox *outbox = calloc(1, sizeof(*outbox));
    if (outbox == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < MESSAGE_SUBMITS_MAX; i++) {
        outbox->submit_pointers[i] = &outbox->submits[i];
    }
    for (size_t i = 0; i < MESSAGE_IDS_MAX; i++) {
        outbox->wait_pointers[i] = &outbox->waits[i];
        outbox->cancel_pointers[i] = &outbox->cancels[i];
        outbox->collected_pointers[i] = &outbox->collected[i];
        outbox->credit_pointers[i] = &outbox->credits[i];
    }
    *ret_outbox = outbox;
    return 0;
}

void outbox_destroy(struct outbox **outbox)
{
    free(*outbox);
    *outbox = NULL;
}

int id_queue_push(struct id_queue *queue, const struct id *id)
{
    if (queue->length >= CLIENT_CANCELS_MAX) {
        return -ENOBUFS;
    }
    if (queue->length == queue->capacity) {
        const size_t capacity = queue->capacity == 0 ? 64 : 2 * queue->capacity;
        struct id *ids = realloc(queue->ids, capacity * sizeof(*ids));
        if (ids == NULL) {
            return -ENOMEM;
        }
        queue->ids = ids;
        queue->capacity = capacity;
    }
    queue->ids[queue->length++] = *id;
    return 0;
}

static void id_queue_drop(struct id_queue *queue, size_t length)
{
    if (length == 0) {
        return;
    }
    queue->length -= length;
    memmove(queue->ids, queue->ids + length, queue->length * sizeof(*queue->ids));
}

static ProtobufCBinaryData bytes_of(const struct id *id)
{
    return (ProtobufCBinaryData){.len = ID_BYTES, .data = (uint8_t *)id->bytes};
}

/* Times travel as what remains of them, so that a resubmission asks for no more than the first did.
 */
static void write_times(const struct pending *pending, int64_t now_ms, Wire__Submit *submit)
{
    if (pending->deadline_at_ms != 0) {
        const int64_t remains_ms = pending->deadline_at_ms - now_ms;
        submit->deadline_in_ms = (uint64_t)(remains_ms > 0 ? remains_ms : 1);
    }
    const int64_t delay_ms = pending->request->delay_ms - (now_ms - pending->started_ns / 1000000);
    submit->delay_ms = (uint64_t)(delay_ms > 0 ? delay_ms : 0);
}

static void write_submit(const struct pending *pending, int64_t now_ms, Wire__Submit *ret_submit)
{
    const struct request *request = pending->request;
    Wire__Submit submit = WIRE__SUBMIT__INIT;
    submit.job_id = bytes_of(&pending->id);
    submit.tier = (char *)request->tier;
    submit.route = (char *)request->route;
    submit.pool = (char *)request->pool;
    submit.idempotency_key = (char *)request->idempotency_key;
    submit.priority = request->priority;
    submit.estimated_tokens = request->estimated_tokens;
    submit.max_tokens = request->max_tokens;
    submit.input_tokens = request->input_tokens;
    submit.prefix = request->prefix;
    submit.abilities = request->abilities;
    submit.complexity = request->complexity;
    submit.features =
        (ProtobufCBinaryData){sizeof(request->features), (uint8_t *)request->features};
    submit.residency = (char *)request->residency;
    submit.task = (char *)request->task;
    submit.stream = request->stream;
    submit.stream_chunks =
        request->stream ? stream_first_credit(pending->shard->client, &pending->wire_id) : 0;
    submit.stream_unread = request->stream && submit.stream_chunks == 0;
    submit.discard_result = request->discard_result;
    submit.has_payload = true;
    if (!request->is_distinct) {
        submit.canonical_key.data = (uint8_t *)request->canonical_key;
        submit.canonical_key.len = sizeof(request->canonical_key);
    }
    if (request->has_trace_parent) {
        submit.trace_parent.data = (uint8_t *)request->trace_parent;
        submit.trace_parent.len = sizeof(request->trace_parent);
    }
    write_times(pending, now_ms, &submit);
    *ret_submit = submit;
}

/* True when the job must not be sent: it is on its way to its end then. */
static bool end_instead(struct pending *pending)
{
    if (blob_bytes(pending->request->payload) >
        connection_payload_bytes_max(pending->shard->connection)) {
        jobs_end(pending, TIERMQ_REJECTED, "too_large",
                 "the payload is larger than the broker takes (broker.payload_bytes_max)");
        return true;
    }
    return false;
}

static void write_submits(struct outbox *outbox, struct shard *shard, int64_t now_ms)
{
    struct list *unsent = &shard->jobs[PENDING_UNSENT];
    size_t bytes = 0;
    struct list_link *next = NULL;
    outbox->submits_length = 0;
    for (struct list_link *link = unsent->head.next; link != &unsent->head; link = next) {
        struct pending *pending = CONTAINER_OF(link, struct pending, link);
        next = link->next;
        if (end_instead(pending)) {
            continue;
        }
        bytes += blob_bytes(pending->request->payload);
        const bool fits = outbox->submits_length < MESSAGE_SUBMITS_MAX &&
                          (bytes <= MESSAGE_BYTES_MAX || outbox->submits_length == 0);
        if (!fits) {
            return;
        }
        write_submit(pending, now_ms, &outbox->submits[outbox->submits_length]);
        outbox->payloads[outbox->submits_length++] = pending->request->payload;
    }
}

static void write_waits(struct outbox *outbox, const struct shard *shard)
{
    outbox->waits_length = 0;
    list_for_each (&shard->jobs[PENDING_ASKING], link) {
        if (outbox->waits_length == MESSAGE_IDS_MAX) {
            return;
        }
        const struct pending *pending = CONTAINER_OF(link, struct pending, link);
        Wire__Wait *wait = &outbox->waits[outbox->waits_length++];
        wire__wait__init(wait);
        wait->job_id = bytes_of(&pending->wire_id);
        wait->status_only = pending->on_status != NULL;
        /* To the broker there is one who waits here, whose last word counts. */
        wait->stream_chunks = stream_first_credit(shard->client, &pending->wire_id);
        wait->stream = wait->stream_chunks > 0;
    }
}

static size_t at_most(size_t length, size_t most)
{
    return length < most ? length : most;
}

static void write_ids(struct outbox *outbox, const struct shard *shard)
{
    outbox->cancels_length = at_most(shard->cancels.length, MESSAGE_IDS_MAX);
    for (size_t i = 0; i < outbox->cancels_length; i++) {
        wire__cancel__init(&outbox->cancels[i]);
        outbox->cancels[i].job_id = bytes_of(&shard->cancels.ids[i]);
    }
    outbox->collected_length = at_most(shard->collected.length, MESSAGE_IDS_MAX);
    for (size_t i = 0; i < outbox->collected_length; i++) {
        wire__collected__init(&outbox->collected[i]);
        outbox->collected[i].job_id = bytes_of(&shard->collected.ids[i]);
    }
    outbox->credits_length = at_most(shard->credits.length, MESSAGE_IDS_MAX);
    for (size_t i = 0; i < outbox->credits_length; i++) {
        wire__stream_credit__init(&outbox->credits[i]);
        outbox->credits[i].job_id = bytes_of(&shard->credits.items[i].job_id);
        outbox->credits[i].chunks = shard->credits.items[i].chunks;
    }
}

static void write_about_caches(struct outbox *outbox, const struct shard *shard)
{
    outbox->invalidations_length =
        invalidations_write(shard, outbox->invalidations, MESSAGE_INVALIDATIONS_MAX);
    outbox->near_feedbacks_length =
        near_feedbacks_write(shard, outbox->near_feedbacks, MESSAGE_FEEDBACKS_MAX);
}

static int send_written(struct outbox *outbox, struct shard *shard)
{
    Wire__ClientMessage message = WIRE__CLIENT_MESSAGE__INIT;
    message.n_submit = outbox->submits_length;
    message.submit = outbox->submit_pointers;
    message.n_wait = outbox->waits_length;
    message.wait = outbox->wait_pointers;
    message.n_cancel = outbox->cancels_length;
    message.cancel = outbox->cancel_pointers;
    message.n_collected = outbox->collected_length;
    message.collected = outbox->collected_pointers;
    message.n_stream_credit = outbox->credits_length;
    message.stream_credit = outbox->credit_pointers;
    message.n_cache_invalidate = outbox->invalidations_length;
    message.cache_invalidate = outbox->invalidations;
    message.n_cache_feedback = outbox->near_feedbacks_length;
    message.cache_feedback = outbox->near_feedbacks;
    message.n_feedback = outbox->feedbacks_length;
    message.feedback = outbox->feedbacks;
    return connection_send(shard->connection, &message, outbox->payloads, outbox->submits_length);
}

static void credits_drop(struct credit_queue *queue, size_t length)
{
    if (length > 0) {
        queue->length -= length;
        memmove(queue->items, queue->items + length, queue->length * sizeof(*queue->items));
    }
}

static void move_first(struct list *from, size_t length, enum pending_state next, int64_t now_ms)
{
    for (size_t i = 0; i < length; i++) {
        struct pending *pending = CONTAINER_OF(list_first(from), struct pending, link);
        pending->was_sent = true;
        pending->word_at_ms = now_ms;
        if (next == PENDING_SENT) {
            retry_note_sent(pending, now_ms);
        }
        jobs_move(pending, next);
        /* A broker that was restarted has not heard of a cancellation that came before the job. */
        if (next == PENDING_SENT && pending->is_cancel_wanted &&
            id_queue_push(&pending->shard->cancels, &pending->wire_id) < 0) {
            client_complain(pending->shard->client,
                            "a cancellation could not be sent: out of memory");
        }
    }
}

static void note_sent(struct outbox *outbox, struct shard *shard, int64_t now_ms)
{
    id_queue_drop(&shard->cancels, outbox->cancels_length);
    id_queue_drop(&shard->collected, outbox->collected_length);
    credits_drop(&shard->credits, outbox->credits_length);
    invalidations_note_sent(shard, outbox->invalidations_length, now_ms);
    near_feedbacks_drop(shard, outbox->near_feedbacks_length);
    feedbacks_note_sent(shard, outbox->feedbacks_length, now_ms);
    move_first(&shard->jobs[PENDING_UNSENT], outbox->submits_length, PENDING_SENT, now_ms);
    move_first(&shard->jobs[PENDING_ASKING], outbox->waits_length, PENDING_WAITING, now_ms);
}

static bool has_more_than_collected(const struct shard *shard)
{
    return !list_is_empty(&shard->jobs[PENDING_UNSENT]) ||
           !list_is_empty(&shard->jobs[PENDING_ASKING]) || shard->cancels.length > 0 ||
           shard->credits.length > 0 || !list_is_empty(&shard->near_feedbacks) ||
           feedbacks_are_due(shard) || invalidations_are_due(shard);
}

static bool has_something(const struct shard *shard)
{
    return shard->collected.length > 0 || has_more_than_collected(shard);
}

/*
 * Nobody waits for the word that a result was collected, and by itself it wakes the broker as much
 * as a job does: it goes with the next message. Only while there are jobs: who waits for none may
 * not call again, and the broker would keep the result.
 */
static int64_t due_ms(const struct shard *shard)
{
    if (has_more_than_collected(shard)) {
        return 0;
    }
    if (shard->collected.length == 0) {
        return INT64_MAX;
    }
    const bool is_last = tiermq_pending(shard->client) == 0;
    return is_last || shard->collected.length >= CLIENT_COLLECTED_MAX ? 0 : shard->collected_at_ms;
}

void outbox_flush(struct shard *shard, int64_t now_ms)
{
    struct outbox *outbox = shard->client->outbox;
    while (outbox_due_ms(shard) <= now_ms) {
        write_submits(outbox, shard, now_ms);
        write_waits(outbox, shard);
        write_ids(outbox, shard);
        write_about_caches(outbox, shard);
        outbox->feedbacks_length = feedbacks_write(shard, outbox->feedbacks, MESSAGE_FEEDBACKS_MAX);
        if (!has_something(shard)) {
            return; /* what there was has ended instead */
        }
        int r = send_written(outbox, shard);
        if (r < 0) {
            shard->blocked_until_ms = now_ms + CLIENT_BLOCKED_MS;
            return;
        }
        note_sent(outbox, shard, now_ms);
    }
}

int64_t outbox_due_ms(const struct shard *shard)
{
    const int64_t at_ms = connection_is_open(shard->connection) ? due_ms(shard) : INT64_MAX;
    return at_ms > shard->blocked_until_ms ? at_ms : shard->blocked_until_ms;
}

void outbox_collected(struct shard *shard, const struct id *id)
{
    if (shard->collected.length == 0) {
        shard->collected_at_ms = clock_monotonic_ms() + CLIENT_COLLECTED_MS;
    }
    /* Best effort: what is not collected is dropped by the broker after its result_ttl. */
    if (id_queue_push(&shard->collected, id) < 0) {
        client_complain(shard->client, "a result could not be marked as collected: out of memory");
    }
}
