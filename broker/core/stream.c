#include "broker/core/stream.h"
#include <stdlib.h>
#include <string.h>
#include "broker/core/client.h"
#include "broker/core/conclude.h"
#include "broker/core/flight.h"
#include "broker/core/lease.h"
#include "broker/core/stream_rest.h"
#include "broker/core/worker.h"

enum {
    CHUNKS_FIRST = 16,
    LATE_CHUNKS_PER_TICK = 1024,
    /*
     * One chunk is as many as its leader and those that follow it have clients. Those beyond come
     * from the log in later turns; without one, for whom the turn had no room the stream has ended.
     */
    FRESH_CHUNKS_PER_TURN = 16384,
};

struct stream {
    struct list_link all;  /* in core.streams */
    int64_t unread_ms;     /* since when nobody waits for its job; 0: somebody does */
    struct list_link late; /* in core.streams_late, while is_late */
    bool is_late;
    bool is_cut; /* there is no log (any more) */
    struct lease *lease;
    uint32_t first;              /* the index of chunks[0]; above 0: the log has been trimmed */
    uint32_t next;               /* the index that comes next */
    uint64_t bytes;              /* its part of core.stream_log_bytes */
    uint64_t received;           /* what all chunks have counted */
    struct logged_chunk *chunks; /* first … next - 1, unless it is cut */
    size_t capacity;
};

/* ---- how far its readers are ---- */

/* A waiter of one job, whose chunks bear this attempt number. */
static bool is_streaming(const struct core *core, const struct waiter *waiter)
{
    return waiter->streams && client_find(core, waiter->peer) != NULL;
}

/* Indices: those before were sent to every reader, and to one of them. */
struct progress {
    uint32_t slowest, furthest;
};

/*
 * Who lacks what is not kept any more gets none of it, and counts like one who waits for the result
 * alone; so does one who is further than the stream, which its worker has begun anew.
 */
static void note_waiter(const struct stream *stream, const struct job *job,
                        const struct waiter *waiter, struct progress *progress)
{
    const uint32_t next = waiter->attempt == job->attempt ? waiter->chunk_next : 0;
    const bool is_read = waiter->streams && next >= stream->first && next <= stream->next;
    if (is_read && next < progress->slowest) {
        progress->slowest = next;
    }
    const uint32_t reached = is_read ? next : stream->next;
    if (reached > progress->furthest) {
        progress->furthest = reached;
    }
}

static size_t note_waiters(const struct core *core, const struct stream *stream,
                           const struct job *job, struct progress *progress)
{
    size_t waiters = 0;
    for (const struct waiter *waiter = job->more_waiters; waiter != NULL; waiter = waiter->next) {
        if (client_find(core, waiter->peer) != NULL) {
            note_waiter(stream, job, waiter, progress);
            waiters++;
        }
    }
    if (job->waiter != 0 && client_find(core, job->waiter) != NULL) {
        progress->furthest = stream->next;
    }
    return waiters;
}

static struct progress progress_of(const struct core *core, const struct stream *stream)
{
    const struct job *job = stream->lease->job;
    struct progress progress = {.slowest = stream->next, .furthest = stream->first};
    size_t readers = note_waiters(core, stream, job, &progress);
    size_t streaming = 0;
    struct list *followers = flight_streaming(core, job);
    if (followers != NULL) {
        list_for_each (followers, link) {
            readers += note_waiters(core, stream, CONTAINER_OF(link, struct job, link), &progress);
            streaming++;
        }
    }
    if (readers == 0 || flight_followers(core, job) > streaming) {
        progress.furthest = stream->next;
    }
    return progress;
}

/* ---- the log ---- */

static void drop_log(struct core *core, struct stream *stream)
{
    for (size_t i = 0; !stream->is_cut && i < stream->next - stream->first; i++) {
        blob_unref(&stream->chunks[i].data);
    }
    core->stream_log_bytes -= stream->bytes;
    stream->bytes = 0;
    free(stream->chunks);
    stream->chunks = NULL;
    stream->capacity = 0;
    stream->is_cut = true;
}

/* Drops the chunks before this index, of those that are kept. */
static void trim(struct core *core, struct stream *stream, uint32_t until)
{
    const size_t length = stream->next - stream->first;
    const size_t drop = until - stream->first;
    for (size_t i = 0; i < drop; i++) {
        const uint64_t cost = logged_chunk_cost(stream->chunks[i].data);
        stream->bytes -= cost;
        core->stream_log_bytes -= cost;
        blob_unref(&stream->chunks[i].data);
    }
    if (drop > 0) {
        memmove(stream->chunks, stream->chunks + drop, (length - drop) * sizeof(*stream->chunks));
        stream->first = until;
    }
}

static bool has_room(const struct core *core, const struct stream *stream, uint64_t more)
{
    return stream->bytes + more <= core->limits.stream_log_bytes_max;
}

/* All logs together have. */
static bool have_room(const struct core *core, uint64_t more)
{
    return core->stream_log_bytes + more <= STREAM_LOGS_BYTES_MAX;
}

static bool has_slot(struct stream *stream)
{
    if (stream->next - stream->first < stream->capacity) {
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

/*
 * A worker that has not used up its allowance may go beyond it with one chunk, and with the last
 * one: so what somebody lacks is kept as long as the log was within its bound before it.
 */
static bool make_room(struct core *core, struct stream *stream, uint64_t cost)
{
    if (!has_room(core, stream, cost) || !have_room(core, cost)) {
        const struct progress progress = progress_of(core, stream);
        trim(core, stream, progress.slowest);
        if (!has_room(core, stream, cost) || !have_room(core, cost)) {
            trim(core, stream, progress.furthest);
        }
    }
    return have_room(core, cost) && has_slot(stream) &&
           has_room(core, stream, stream->lease->stream_bytes > 0 ? 0 : cost);
}

static void keep(struct core *core, struct stream *stream, const struct event *event)
{
    struct blob *data = event->as.chunk.data;
    const uint64_t cost = logged_chunk_cost(data);
    stream->received += cost;
    if (stream->is_cut || !make_room(core, stream, cost)) {
        drop_log(core, stream);
        return;
    }
    stream->chunks[stream->next - stream->first] =
        (struct logged_chunk){.data = data == NULL ? NULL : blob_ref(data),
                              .end = stream->received,
                              .flags = event->as.chunk.header.flags};
    stream->bytes += cost;
    core->stream_log_bytes += cost;
}

/* ---- sending ---- */

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
        if (waiter->chunk_next < stream->first) {
            continue;
        }
        for (; left > 0 && waiter->chunk_next < stream->next && waiter->chunks_left > 0; left--) {
            const struct logged_chunk *chunk = &stream->chunks[waiter->chunk_next - stream->first];
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

/* ---- what the worker may send ---- */

uint64_t stream_allowance(const struct core *core)
{
    return core->limits.stream_log_bytes_max;
}

static void allow(struct core *core, struct lease *lease, uint64_t bytes_total)
{
    lease->stream_bytes = bytes_total;
    if (lease->worker == NULL) {
        return;
    }
    struct effect *effect =
        effects_add(core->effects, EFFECT_STREAM_ALLOWANCE, lease->worker->peer, 0);
    effect->as.stream_allowance.lease =
        (struct lease_ref){.job_id = lease->job->id, .attempt = lease->attempt};
    effect->as.stream_allowance.bytes_total = bytes_total;
}

/* What the chunks before this index, which is kept or comes next, have counted. */
static uint64_t counted_until(const struct stream *stream, uint32_t index)
{
    return index == stream->first ? stream->received - stream->bytes
                                  : stream->chunks[index - stream->first - 1].end;
}

/*
 * In steps of half of it, so that few streams are ever spoken of. Without a log nobody can be
 * helped by holding it.
 */
static void allow_more(struct core *core, struct stream *stream)
{
    struct lease *lease = stream->lease;
    const uint64_t allowed = lease->stream_bytes;
    if (allowed == 0) {
        return;
    }
    if (stream->is_cut) {
        allow(core, lease, 0);
        return;
    }
    const uint64_t window = stream_allowance(core);
    if (allowed > stream->received && allowed - stream->received > window / 2) {
        return;
    }
    const uint32_t furthest = progress_of(core, stream).furthest;
    const uint64_t bytes_total = counted_until(stream, furthest) + window;
    if (window == 0 || bytes_total >= allowed + window / 4) {
        allow(core, lease, window == 0 ? 0 : bytes_total);
    }
}

bool stream_is_held(const struct lease *lease)
{
    return lease->stream != NULL && lease->stream_bytes > 0 &&
           lease->stream->received >= lease->stream_bytes;
}

size_t stream_count_held(const struct core *core)
{
    size_t held = 0;
    list_for_each (&core->streams, link) {
        held += stream_is_held(CONTAINER_OF(link, struct stream, all)->lease);
    }
    return held;
}

bool stream_is_asked_for(const struct core *core, const struct job *job)
{
    return (job->flags & JOB_STREAM) != 0 || flight_streaming(core, job) != NULL;
}

/* Of which chunks went with its connection, nobody goes on: its worker need not wait, either. */
void stream_handed_over(struct core *core, struct lease *lease, uint32_t chunks)
{
    struct stream *stream = lease->stream;
    if (chunks > (stream == NULL ? 0 : stream->next)) {
        lease->stream_bytes = 0;
        if (stream != NULL) {
            drop_log(core, stream);
        }
    }
    if (lease->stream_bytes > 0 || stream_is_asked_for(core, lease->job)) {
        allow(core, lease, lease->stream_bytes);
    }
}

/* ---- beginning, ending ---- */

/*
 * Chunks of an attempt whose lease was lost and reclaimed, or that ran before a restart, begin in
 * its middle: who has the others of it goes on, and nobody else gets any.
 */
static struct stream *begin(struct core *core, struct job *job, uint32_t index)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    if (stream == NULL) {
        return NULL;
    }
    stream->lease = job->at.lease;
    stream->first = stream->next = index;
    stream->is_cut = index > 0;
    if (list_is_empty(&core->streams)) {
        core->streams_watch_ms = core->now_ms + core->limits.heartbeat_ms;
    }
    list_append(&core->streams, &stream->all);
    job->at.lease->stream = stream;
    if (!stream->is_cut && job->at.lease->stream_bytes == 0 && stream_allowance(core) > 0) {
        allow(core, job->at.lease, stream_allowance(core)); /* its worker came back with it */
    }
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
    if (!stream->is_cut && stream->first > 0) {
        trim(core, stream,
             progress_of(core, stream).slowest); /* nobody can join it late any more */
    }
    allow_more(core, stream);
}

static void keep_rests(struct core *core, const struct stream *stream, const struct job *job)
{
    for (const struct waiter *waiter = job->more_waiters; waiter != NULL; waiter = waiter->next) {
        const bool lacks_some = is_streaming(core, waiter) && waiter->attempt == job->attempt &&
                                waiter->chunks_left != CHUNKS_UNLIMITED &&
                                waiter->chunk_next >= stream->first &&
                                waiter->chunk_next < stream->next;
        if (lacks_some) {
            stream_rest_keep(core, job, waiter, stream->chunks, stream->first, stream->next);
        }
    }
}

void stream_conclude(struct core *core, const struct job *job, const struct outcome *outcome)
{
    const struct lease *lease = job->place == PLACE_LEASED ? job->at.lease : NULL;
    const bool is_its_answer = lease != NULL && lease->stream != NULL && !lease->stream->is_cut &&
                               outcome->state == WIRE__JOB_STATE__JOB_STATE_SUCCEEDED &&
                               outcome->attempt == lease->attempt;
    if (!is_its_answer) {
        return;
    }
    keep_rests(core, lease->stream, job);
    struct list *followers = flight_streaming(core, job);
    if (followers != NULL) {
        list_for_each (followers, link) {
            keep_rests(core, lease->stream, CONTAINER_OF(link, struct job, link));
        }
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

/* It may be a follower's reader who wanted chunks: then the job itself was not asked for as a
 * stream. May end the stream. */
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
        allow_more(core, CONTAINER_OF(first, struct stream, all)); /* a reader may have gone */
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
    uint32_t left = stream_rest_tick(core, LATE_CHUNKS_PER_TICK);
    core->chunks_in_turn = 0;
    struct list_link *first;
    while ((first = list_first(&core->streams_late)) != NULL) {
        struct stream *stream = CONTAINER_OF(first, struct stream, late);
        if (!stream->is_cut) {
            left = catch_up_all(core, stream, left);
            allow_more(core, stream);
        }
        if (left == 0) {
            return false;
        }
        be_not_late(core, stream);
    }
    return left > 0;
}
