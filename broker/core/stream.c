#include "broker/core/stream.h"
#include <stdlib.h>
#include "broker/core/client.h"
#include "broker/core/conclude.h"
#include "broker/core/flight.h"
#include "broker/core/lease.h"

enum {
    LOGS_BYTES_MAX = 64 << 20, /* of all streams */
    CHUNK_BYTES = 64,          /* what a chunk takes beside its data */
    CHUNKS_FIRST = 16,
    LATE_CHUNKS_PER_TICK = 1024,
    /*
     * One chunk is as many as its leader and those that follow it have clients. Those beyond come
     * from the log in later turns; without one, for whom the turn had no room the stream has ended.
     */
    FRESH_CHUNKS_PER_TURN = 16384,
};

struct logged_chunk {
    struct blob *data; /* NULL: none */
    uint32_t flags;
};

struct stream {
    struct list_link all;  /* in core.streams */
    int64_t unread_ms;     /* since when nobody waits for its job; 0: somebody does */
    struct list_link late; /* in core.streams_late, while is_late */
    bool is_late;
    bool is_cut; /* there is no log (any more) */
    struct lease *lease;
    uint32_t next;               /* the index that comes next */
    uint64_t bytes;              /* its part of core.stream_log_bytes */
    struct logged_chunk *chunks; /* 0 … next - 1, unless it is cut */
    size_t capacity;
};

/* ---- the log ---- */

static void drop_log(struct core *core, struct stream *stream)
{
    for (size_t i = 0; !stream->is_cut && i < stream->next; i++) {
        blob_unref(&stream->chunks[i].data);
    }
    core->stream_log_bytes -= stream->bytes;
    stream->bytes = 0;
    free(stream->chunks);
    stream->chunks = NULL;
    stream->capacity = 0;
    stream->is_cut = true;
}

static bool make_room(struct core *core, struct stream *stream, size_t bytes)
{
    if (stream->bytes + bytes > core->limits.stream_log_bytes_max ||
        core->stream_log_bytes + bytes > LOGS_BYTES_MAX) {
        return false;
    }
    if (stream->next < stream->capacity) {
        return true;
    }
    const size_t capacity = stream->capacity == 0 ? CHUNKS_FIRST : stream->capacity * 2;
    struct logged_chunk *chunks = reallocarray(stream->chunks, capacity, sizeof(*chunks));
    if (chunks == NULL) {
        return false;
    }
    stream->chunks = chunks;
    stream->capacity = capacity;
    return true;
}

static void keep(struct core *core, struct stream *stream, const struct event *event)
{
    struct blob *data = event->as.chunk.data;
    const size_t bytes = CHUNK_BYTES + (data == NULL ? 0 : blob_bytes(data));
    if (stream->is_cut || !make_room(core, stream, bytes)) {
        drop_log(core, stream);
        return;
    }
    stream->chunks[stream->next] = (struct logged_chunk){
        .data = data == NULL ? NULL : blob_ref(data), .flags = event->as.chunk.header.flags};
    stream->bytes += bytes;
    core->stream_log_bytes += bytes;
}

/* ---- sending ---- */

/* A waiter of one job, whose chunks bear this attempt number. */
static bool is_streaming(const struct core *core, const struct waiter *waiter)
{
    return waiter->streams && client_find(core, waiter->peer) != NULL;
}

static void turn_to(struct waiter *waiter, uint32_t attempt)
{
    if (waiter->attempt != attempt) {
        waiter->attempt = attempt;
        waiter->chunk_next = 0;
    }
}

static void send(struct core *core, const struct job *job, struct waiter *waiter, uint32_t flags,
                 struct blob *data)
{
    struct effect *effect = effects_add(core->effects, EFFECT_CHUNK, waiter->peer, 0);
    effect->as.chunk.header = (struct frame_chunk){
        .job_id = job->id, .attempt = job->attempt, .index = waiter->chunk_next++, .flags = flags};
    effect->as.chunk.data = data == NULL ? NULL : blob_ref(data);
    waiter->chunks_left -= waiter->chunks_left != CHUNKS_UNLIMITED;
}

static void be_late(struct core *core, struct stream *stream)
{
    if (!stream->is_cut && !stream->is_late) {
        list_append(&core->streams_late, &stream->late);
        stream->is_late = true;
    }
}

/* A fresh chunk, to those who have all before it. */
static void hand_on(struct core *core, struct job *job, const struct event *event)
{
    for (struct waiter *waiter = job->more_waiters; waiter != NULL; waiter = waiter->next) {
        if (!is_streaming(core, waiter)) {
            continue;
        }
        turn_to(waiter, job->attempt);
        if (waiter->chunk_next == event->as.chunk.header.index && waiter->chunks_left > 0 &&
            core->chunks_in_turn++ < FRESH_CHUNKS_PER_TURN) {
            send(core, job, waiter, event->as.chunk.header.flags, event->as.chunk.data);
        }
    }
}

/* Returns how many of `left` chunks may still be sent. */
static uint32_t catch_up(struct core *core, struct job *job, const struct stream *stream,
                         uint32_t left)
{
    for (struct waiter *waiter = job->more_waiters; waiter != NULL; waiter = waiter->next) {
        if (!is_streaming(core, waiter)) {
            continue;
        }
        turn_to(waiter, job->attempt);
        for (; left > 0 && waiter->chunk_next < stream->next && waiter->chunks_left > 0; left--) {
            const struct logged_chunk *chunk = &stream->chunks[waiter->chunk_next];
            send(core, job, waiter, chunk->flags, chunk->data);
        }
    }
    return left;
}

static uint32_t catch_up_all(struct core *core, struct stream *stream, uint32_t left)
{
    struct job *job = stream->lease->job;
    left = catch_up(core, job, stream, left);
    struct list *followers = flight_streaming(core, job);
    if (followers != NULL) {
        list_for_each (followers, link) {
            left = catch_up(core, CONTAINER_OF(link, struct job, link), stream, left);
        }
    }
    return left;
}

/* ---- beginning, ending ---- */

/*
 * Chunks of an attempt whose lease was lost and reclaimed, or that ran before a restart, begin in its
 * middle: who has the others of it goes on, and nobody else gets any.
 */
static struct stream *begin(struct core *core, struct job *job, uint32_t index)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL) {
        return NULL;
    }
    stream->lease = job->at.lease;
    stream->next = index;
    stream->is_cut = index > 0;
    if (list_is_empty(&core->streams)) {
        core->streams_watch_ms = core->now_ms + core->limits.heartbeat_ms;
    }
    list_append(&core->streams, &stream->all);
    job->at.lease->stream = stream;
    flight_begin_stream(core, job);
    return stream;
}

static void be_not_late(struct core *core, struct stream *stream)
{
    if (stream->is_late) {
        list_remove(&core->streams_late, &stream->late);
        stream->is_late = false;
    }
}

void stream_end(struct core *core, struct lease *lease)
{
    struct stream *stream = TAKE(lease->stream);
    if (stream != NULL) {
        be_not_late(core, stream);
        list_remove(&core->streams, &stream->all);
        drop_log(core, stream);
        free(stream);
    }
}

/* ---- events ---- */

void stream_chunk(struct core *core, struct job *job, const struct event *event)
{
    const uint32_t index = event->as.chunk.header.index;
    struct stream *stream = job->at.lease->stream;
    if (stream == NULL) {
        stream = begin(core, job, index);
    }
    if (stream == NULL || index < stream->next || index == UINT32_MAX) {
        return; /* no memory, or a repetition */
    }
    if (index > stream->next) {
        drop_log(core, stream); /* a gap: nobody can go on after it */
        stream->next = index;
    }
    keep(core, stream, event);
    stream->next++;
    hand_on(core, job, event);
    struct list *followers = flight_streaming(core, job);
    if (followers != NULL) {
        list_for_each (followers, link) {
            hand_on(core, CONTAINER_OF(link, struct job, link), event);
        }
    }
    if (core->chunks_in_turn > FRESH_CHUNKS_PER_TURN) {
        be_late(core, stream);
    }
}

bool stream_is_wanted(const struct job *job)
{
    const struct waiter *waiter = job->more_waiters;
    while (waiter != NULL && !waiter->streams) {
        waiter = waiter->next;
    }
    return waiter != NULL;
}

void stream_wanted(struct core *core, struct job *job)
{
    if (job->place == PLACE_FOLLOWING) {
        flight_stream(job);
    }
    const struct job *leader = job->place == PLACE_FOLLOWING ? flight_leader(job) : job;
    struct stream *stream =
        leader != NULL && leader->place == PLACE_LEASED && leader->at.lease != NULL
            ? leader->at.lease->stream
            : NULL;
    if (stream != NULL) {
        be_late(core, stream);
    }
}

/* ---- who still reads ---- */

static bool is_waited_for(const struct core *core, const struct job *job)
{
    if (flight_followers(core, job) > 0 ||
        (job->waiter != 0 && client_find(core, job->waiter) != NULL)) {
        return true;
    }
    const struct waiter *waiter = job->more_waiters;
    while (waiter != NULL && client_find(core, waiter->peer) == NULL) {
        waiter = waiter->next;
    }
    return waiter != NULL;
}

/* It may be a follower's reader who wanted chunks: then the job itself was not asked for as a stream. May end the stream. */
static void cancel_if_unread(struct core *core, struct stream *stream)
{
    struct job *job = stream->lease->job;
    if (job_tier(job)->is_durable || !stream_is_wanted(job) || is_waited_for(core, job)) {
        stream->unread_ms = 0;
        return;
    }
    stream->unread_ms = stream->unread_ms == 0 ? core->now_ms : stream->unread_ms;
    if (core->now_ms - stream->unread_ms >= STREAM_UNREAD_HEARTBEATS * core->limits.heartbeat_ms) {
        conclude(core, job,
                 &(struct outcome){.state = WIRE__JOB_STATE__JOB_STATE_CANCELLED,
                                   .error_code = "abandoned",
                                   .error_text = "nobody reads its stream any more"});
    }
}

/* All of them, which are no more than leases, once a heartbeat. */
static void watch_readers(struct core *core)
{
    if (list_is_empty(&core->streams) || core->now_ms < core->streams_watch_ms) {
        return;
    }
    core->streams_watch_ms = core->now_ms + core->limits.heartbeat_ms;
    for (size_t left = core->streams.length; left > 0 && !list_is_empty(&core->streams); left--) {
        struct list_link *first = list_first(&core->streams);
        list_remove(&core->streams, first); /* to the end: it may go meanwhile */
        list_append(&core->streams, first);
        cancel_if_unread(core, CONTAINER_OF(first, struct stream, all));
    }
}

int64_t stream_next_deadline_ms(const struct core *core)
{
    return list_is_empty(&core->streams) ? INT64_MAX : core->streams_watch_ms;
}

bool stream_tick(struct core *core)
{
    watch_readers(core);
    uint32_t left = LATE_CHUNKS_PER_TICK;
    core->chunks_in_turn = 0;
    struct list_link *first;
    while ((first = list_first(&core->streams_late)) != NULL) {
        struct stream *stream = CONTAINER_OF(first, struct stream, late);
        if (!stream->is_cut) {
            left = catch_up_all(core, stream, left);
        }
        if (left == 0) {
            return false;
        }
        be_not_late(core, stream);
    }
    return true;
}
