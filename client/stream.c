/*
 * Chunks on their way to the application, which may pause a stream. What is hard about it: a paused
 * stream holds up nothing else of its client, so what comes for it is taken off the connection and
 * kept here, up to the credit that its broker was given; and the answer, which does not wait for
 * its readers at the broker, is kept behind it.
 *
 * Credit is given back as chunks are read, once for each chunk that came, whoever of those that
 * wait for one job read it last. What is not wanted is read at once: a stream that nobody reads
 * must not hold its provider.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "client/client.h"

enum {
    CREDIT_STEP = CLIENT_STREAM_CHUNKS / 4, /* is given back at once */
    HELD_MAX = 2 * CLIENT_STREAM_CHUNKS,    /* a reconnect gives new credit beside what is kept */
    CREDITS_MERGED = 16,                    /* of the last ones, with those for the same job */
};

struct held_chunk {
    struct list_link link; /* pending.held */
    size_t bytes;
    bool is_last;
    bool owes_credit;
    unsigned char data[];
};

static struct held_chunk *first_held(const struct pending *pending)
{
    struct list_link *first = list_first(&pending->held);
    return first == NULL ? NULL : CONTAINER_OF(first, struct held_chunk, link);
}

static void drop_held(struct pending *pending)
{
    struct held_chunk *held = NULL;
    while ((held = first_held(pending)) != NULL) {
        list_remove(&pending->held, &held->link);
        pending->chunks_read += held->owes_credit ? 1 : 0;
        free(held);
    }
}

static bool is_reader(const struct pending *pending)
{
    return pending->callbacks.on_chunk != NULL && !pending->detach;
}

static void be_due(struct pending *pending)
{
    if (!pending->is_due) {
        list_append(&pending->shard->client->streams_due, &pending->due_link);
        pending->is_due = true;
    }
}

/* ---- credit ---- */

uint32_t stream_first_credit(const struct tiermq *client, const struct id *id)
{
    const struct pending *pending = pending_table_first(&client->pending, id);
    while (pending != NULL && !is_reader(pending)) {
        pending = pending_table_next(pending);
    }
    return pending == NULL ? 0 : CLIENT_STREAM_CHUNKS;
}

static int credit_add(struct shard *shard, const struct id *id, uint32_t chunks)
{
    struct credit_queue *queue = &shard->credits;
    for (size_t i = queue->length; i > 0 && queue->length - i < CREDITS_MERGED; i--) {
        if (id_equal(&queue->items[i - 1].job_id, id)) {
            queue->items[i - 1].chunks += chunks;
            return 0;
        }
    }
    if (queue->length == queue->capacity) {
        const size_t capacity = queue->capacity == 0 ? 16 : 2 * queue->capacity;
        struct stream_credit *items = reallocarray(queue->items, capacity, sizeof(*items));
        if (items == NULL) {
            return -ENOMEM;
        }
        queue->items = items;
        queue->capacity = capacity;
    }
    queue->items[queue->length++] = (struct stream_credit){.job_id = *id, .chunks = chunks};
    return 0;
}

/* The first of those that wait for this job at this broker, from `pending` on. */
static struct pending *at_shard(struct pending *pending, const struct shard *shard)
{
    while (pending != NULL && pending->shard != shard) {
        pending = pending_table_next(pending);
    }
    return pending;
}

static struct pending *first_at_shard(const struct shard *shard, const struct id *id)
{
    return at_shard(pending_table_first(&shard->client->pending, id), shard);
}

/*
 * Those that wait for one job have one credit together: were each to keep what is less than a step,
 * it might be all of it. Without memory it is given with the next chunk.
 */
static void give_back(struct shard *shard, const struct id *id)
{
    struct pending *first = first_at_shard(shard, id);
    struct pending *other = first;
    while ((other = at_shard(pending_table_next(other), shard)) != NULL) {
        first->chunks_read += other->chunks_read;
        other->chunks_read = 0;
    }
    if (first->chunks_read >= CREDIT_STEP && credit_add(shard, id, first->chunks_read) == 0) {
        first->chunks_read = 0;
    }
}

/* Nobody holds these chunks. Of a job that nobody waits for here any more there may be others. */
static void note_read(struct shard *shard, const struct id *id, uint32_t chunks)
{
    struct pending *pending = first_at_shard(shard, id);
    if (pending == NULL) {
        /* Without memory its stream is held, at worst for good. */
        (void)credit_add(shard, id, chunks);
        return;
    }
    pending->chunks_read += chunks;
    give_back(shard, id);
}

/* What it owes is owed by whoever waits here for the same job: a status may be asked for beside it.
 */
static void hand_over_credit(const struct pending *pending)
{
    if (pending->chunks_read > 0 && first_at_shard(pending->shard, &pending->wire_id) != NULL) {
        note_read(pending->shard, &pending->wire_id, pending->chunks_read);
    }
}

void stream_finish(struct pending *pending)
{
    drop_held(pending);
    tiermq_answer_free(&pending->answer);
    if (pending->is_due) {
        list_remove(&pending->shard->client->streams_due, &pending->due_link);
        pending->is_due = false;
    }
    hand_over_credit(pending);
}

/* ---- reading ---- */

/*
 * Chunks of one attempt are handed on, in order and without a gap: what has been shown cannot be
 * taken back, and another attempt would word it anew. The answer is whole in any case.
 */
static bool take_in_order(struct pending *pending, const struct frame_chunk *chunk)
{
    if (pending->is_stream_over || chunk->attempt == 0) {
        return false;
    }
    if (pending->chunk_attempt == 0) {
        pending->chunk_attempt = chunk->attempt;
    }
    pending->has_others_chunks |= chunk->attempt != pending->chunk_attempt;
    if (chunk->attempt != pending->chunk_attempt || chunk->index < pending->chunk_index) {
        pending->is_stream_over = pending->answer != NULL; /* what follows is not ours */
        return false;
    }
    if (chunk->index > pending->chunk_index) {
        pending->is_stream_over = true;
        return false;
    }
    pending->chunk_index++;
    pending->is_stream_over = (chunk->flags & FRAME_CHUNK_LAST) != 0;
    return true;
}

/* Without memory, or beyond the bound, the stream ends here, and the answer has it all. */
static bool hold(struct pending *pending, const void *data, size_t bytes, bool owes_credit)
{
    struct held_chunk *held = NULL;
    if (pending->held.length < HELD_MAX) {
        held = malloc(sizeof(*held) + bytes);
    }
    if (held == NULL) {
        pending->is_stream_over = true;
        return false;
    }
    *held = (struct held_chunk){
        .bytes = bytes, .is_last = pending->is_stream_over, .owes_credit = owes_credit};
    if (bytes > 0) {
        memcpy(held->data, data, bytes);
    }
    list_append(&pending->held, &held->link);
    return true;
}

static void hand_on(const struct pending *pending, const void *data, size_t bytes, bool is_last)
{
    tiermq_id id = {{0}};
    memcpy(id.bytes, pending->id.bytes, sizeof(id.bytes));
    pending->callbacks.on_chunk(pending->callbacks.context, &id, data, bytes, is_last);
}

/* True when it is kept, and owes its credit. */
static bool take_one(struct pending *pending, const struct frame_chunk *chunk, const void *data,
                     size_t bytes, bool is_owed)
{
    if (!is_reader(pending)) {
        return false;
    }
    bool is_held = false;
    if (take_in_order(pending, chunk)) {
        if (pending->is_paused || !list_is_empty(&pending->held)) {
            is_held = hold(pending, data, bytes, !is_owed);
        } else {
            hand_on(pending, data, bytes, pending->is_stream_over);
        }
    }
    if (pending->answer != NULL) {
        be_due(pending);
    }
    return is_held;
}

void jobs_chunk(void *context, const struct frame_chunk *chunk, const void *data, size_t bytes)
{
    struct shard *shard = context;
    struct pending *pending = NULL;
    bool is_owed = false;
    shard->client->round++;
    while ((pending = jobs_first_unseen(shard->client, &chunk->job_id)) != NULL) {
        is_owed |= take_one(pending, chunk, data, bytes, is_owed);
    }
    if (!is_owed) {
        note_read(shard, &chunk->job_id, 1);
    }
}

/* ---- the answer ---- */

static bool is_read(const struct pending *pending)
{
    return list_is_empty(&pending->held) &&
           (pending->is_stream_over || pending->chunk_index >= pending->chunks_total);
}

bool stream_keep_answer(struct pending *pending, const struct tiermq_answer *answer,
                        uint32_t chunks)
{
    pending->chunks_total = chunks;
    pending->is_stream_over |= pending->has_others_chunks;
    if (!is_reader(pending) || answer->state != TIERMQ_SUCCEEDED || is_read(pending)) {
        return false;
    }
    if (answer_copy(answer, &pending->answer) < 0) {
        return false; /* it is worth more than its stream */
    }
    jobs_move(pending, PENDING_READING);
    return true;
}

void stream_end(struct pending *pending)
{
    drop_held(pending);
    pending->is_stream_over = true;
    be_due(pending);
}

void streams_closed(struct shard *shard)
{
    list_for_each (&shard->jobs[PENDING_READING], link) {
        struct pending *pending = CONTAINER_OF(link, struct pending, link);
        if (!pending->is_stream_over) {
            pending->is_stream_over = true;
            be_due(pending);
        }
    }
}

void streams_opened(struct shard *shard)
{
    shard->credits.length = 0;
    streams_closed(shard); /* maybe in one turn with it */
    for (size_t i = 0; i < PENDING_STATES; i++) {
        list_for_each (&shard->jobs[i], link) {
            struct pending *pending = CONTAINER_OF(link, struct pending, link);
            pending->chunks_read = 0;
            list_for_each (&pending->held, at) {
                CONTAINER_OF(at, struct held_chunk, link)->owes_credit = false;
            }
        }
    }
}

/* ---- going on ---- */

/* Callbacks may pause it again, or cancel it; it stays until it is concluded. */
static void go_on(struct tiermq *client, struct pending *pending)
{
    struct held_chunk *held = NULL;
    while (!pending->is_paused && (held = first_held(pending)) != NULL) {
        list_remove(&pending->held, &held->link);
        pending->chunks_read += held->owes_credit ? 1 : 0;
        hand_on(pending, held->data, held->bytes, held->is_last);
        free(held);
    }
    give_back(pending->shard, &pending->wire_id);
    if (pending->answer != NULL && is_read(pending)) {
        jobs_conclude_read(client, pending);
    }
}

void streams_tick(struct tiermq *client)
{
    for (size_t n = client->streams_due.length; n > 0 && !list_is_empty(&client->streams_due);
         n--) {
        struct pending *pending =
            CONTAINER_OF(list_first(&client->streams_due), struct pending, due_link);
        list_remove(&client->streams_due, &pending->due_link);
        pending->is_due = false;
        go_on(client, pending);
    }
}

static int set_paused(struct tiermq *client, const tiermq_id *id, bool is_paused)
{
    struct id job_id;
    client_begin_call(client);
    int r = client_read_job_id(client, id, &job_id);
    if (r < 0) {
        return r;
    }
    bool is_found = false;
    struct pending *pending = pending_table_first(&client->pending, &job_id);
    for (; pending != NULL; pending = pending_table_next(pending)) {
        if (is_reader(pending)) {
            pending->is_paused = is_paused;
            is_found = true;
            be_due(pending);
        }
    }
    if (!is_found) {
        client_complain(client, "no stream of that id is waited for here");
    }
    return is_found ? 0 : -ENOENT;
}

int tiermq_stream_pause(struct tiermq *client, const tiermq_id *id)
{
    return set_paused(client, id, true);
}

int tiermq_stream_resume(struct tiermq *client, const tiermq_id *id)
{
    return set_paused(client, id, false);
}
