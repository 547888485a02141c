#include "broker/core/stream_rest.h"
#include <stdlib.h>
#include "broker/core/effects.h"
#include "broker/core/job.h"
#include "broker/core/stream.h"
#include "common/frame.h"

enum { RESTS_MAX = 2048, RESTS_BYTES_MAX = STREAM_LOGS_BYTES_MAX / 2 };

struct stream_rest {
    struct list_link link; /* core.stream_rests: those that are due go first */
    struct tenant *tenant; /* of its job */
    uint64_t peer;
    struct id job_id;
    uint32_t attempt;
    uint32_t first, next, end; /* indices: of chunks[0], to be sent next, behind the last */
    uint32_t chunks_left;
    bool is_due;
    struct logged_chunk chunks[];
};

uint64_t logged_chunk_cost(const struct blob *data)
{
    return FRAME_CHUNK_COST + (data == NULL ? 0 : blob_bytes(data));
}

uint32_t chunks_left_with(uint32_t before, uint32_t more)
{
    const uint32_t had = before == CHUNKS_UNLIMITED ? 0 : before;
    const uint32_t most = CHUNKS_UNLIMITED - 1 - had;
    return had + (more < most ? more : most);
}

static struct stream_rest *at_link(struct list_link *link)
{
    return CONTAINER_OF(link, struct stream_rest, link);
}

/* What is kept of its chunks has become so much more, or less. */
static void count_bytes(struct core *core, struct tenant *tenant, uint64_t more)
{
    core->stream_log_bytes += more;
    core->stream_rest_bytes += more;
    tenant->stream_rest_bytes += more;
}

static void rest_destroy(struct core *core, struct stream_rest *rest)
{
    list_remove(&core->stream_rests, &rest->link);
    rest->tenant->stream_rests--;
    for (uint32_t i = rest->next - rest->first; i < rest->end - rest->first; i++) {
        count_bytes(core, rest->tenant, 0 - logged_chunk_cost(rest->chunks[i].data));
        blob_unref(&rest->chunks[i].data);
    }
    free(rest);
}

static struct stream_rest *find(const struct core *core, uint64_t peer, const struct id *job_id)
{
    list_for_each (&core->stream_rests, link) {
        struct stream_rest *rest = at_link(link);
        if (rest->peer == peer && id_equal(&rest->job_id, job_id)) {
            return rest;
        }
    }
    return NULL;
}

static uint64_t cost_of(const struct logged_chunk *chunks, uint32_t length)
{
    uint64_t cost = 0;
    for (uint32_t i = 0; i < length; i++) {
        cost += logged_chunk_cost(chunks[i].data);
    }
    return cost;
}

static void be_due(struct core *core, struct stream_rest *rest, bool is_due)
{
    list_remove(&core->stream_rests, &rest->link);
    rest->is_due = is_due;
    if (is_due) {
        list_prepend(&core->stream_rests, &rest->link);
    } else {
        list_append(&core->stream_rests, &rest->link);
    }
}

/* No tenant has more than what is left for others then. */
static bool has_room(const struct core *core, const struct tenant *tenant, uint64_t bytes)
{
    return core->stream_rests.length + tenant->stream_rests < RESTS_MAX &&
           core->stream_rest_bytes + tenant->stream_rest_bytes + 2 * bytes <= RESTS_BYTES_MAX;
}

void stream_rest_keep(struct core *core, const struct job *job, const struct waiter *waiter,
                      const struct logged_chunk *chunks, uint32_t first, uint32_t next)
{
    const uint32_t length = next - waiter->chunk_next;
    const struct logged_chunk *from = &chunks[waiter->chunk_next - first];
    const uint64_t bytes = cost_of(from, length);
    struct tenant *tenant = job_tenant(job);
    if (!has_room(core, tenant, bytes)) {
        return;
    }
    struct stream_rest *rest = malloc(sizeof(*rest) + length * sizeof(rest->chunks[0]));
    if (rest == NULL) {
        return;
    }
    *rest = (struct stream_rest){.tenant = tenant,
                                 .peer = waiter->peer,
                                 .job_id = job->id,
                                 .attempt = waiter->attempt,
                                 .first = waiter->chunk_next,
                                 .next = waiter->chunk_next,
                                 .end = next,
                                 .chunks_left = waiter->chunks_left};
    for (uint32_t i = 0; i < length; i++) {
        rest->chunks[i] = from[i];
        if (from[i].data != NULL) {
            (void)blob_ref(from[i].data);
        }
    }
    tenant->stream_rests++;
    count_bytes(core, tenant, bytes);
    list_append(&core->stream_rests, &rest->link);
    be_due(core, rest, rest->chunks_left > 0);
}

uint32_t stream_rest_chunks(const struct core *core, uint64_t peer, const struct id *job_id)
{
    const struct stream_rest *rest = find(core, peer, job_id);
    return rest == NULL ? 0 : rest->end;
}

void stream_rest_credit(struct core *core, uint64_t peer, const struct id *job_id, uint32_t chunks)
{
    struct stream_rest *rest = find(core, peer, job_id);
    if (rest != NULL) {
        rest->chunks_left = chunks_left_with(rest->chunks_left, chunks);
        be_due(core, rest, rest->chunks_left > 0);
    }
}

/* The effect takes the reference that the rest had. */
static void send_next(struct core *core, struct stream_rest *rest)
{
    struct logged_chunk *chunk = &rest->chunks[rest->next - rest->first];
    const uint64_t cost = logged_chunk_cost(chunk->data);
    struct effect *effect = effects_add(core->effects, EFFECT_CHUNK, rest->peer, 0);
    effect->as.chunk.header = (struct frame_chunk){.job_id = rest->job_id,
                                                   .attempt = rest->attempt,
                                                   .index = rest->next++,
                                                   .flags = chunk->flags};
    effect->as.chunk.data = TAKE(chunk->data);
    rest->chunks_left--;
    count_bytes(core, rest->tenant, 0 - cost);
}

uint32_t stream_rest_tick(struct core *core, uint32_t left)
{
    struct list_link *first;
    while (left > 0 && (first = list_first(&core->stream_rests)) != NULL) {
        struct stream_rest *rest = at_link(first);
        if (!rest->is_due) {
            break;
        }
        for (; left > 0 && rest->chunks_left > 0 && rest->next < rest->end; left--) {
            send_next(core, rest);
        }
        if (rest->next == rest->end) {
            rest_destroy(core, rest);
        } else if (rest->chunks_left == 0) {
            be_due(core, rest, false);
        }
    }
    return left;
}

void stream_forget_reader(struct core *core, uint64_t peer)
{
    struct list_link *next = NULL;
    for (struct list_link *link = core->stream_rests.head.next; link != &core->stream_rests.head;
         link = next) {
        next = link->next;
        if (at_link(link)->peer == peer) {
            rest_destroy(core, at_link(link));
        }
    }
}

void stream_rest_destroy_all(struct core *core)
{
    struct list_link *link;
    while ((link = list_first(&core->stream_rests)) != NULL) {
        rest_destroy(core, at_link(link));
    }
}
