/*
 * The connection is made anew for every try to join, so that no hello waits in a queue for a broker
 * that comes back much later, and so that the broker sees a new peer. Whether a broker lives is
 * told by what arrives: it answers heartbeats.
 */
#include "worker/broker_link.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/arena.h"
#include "common/blob.h"
#include "common/clock.h"
#include "common/frame.h"
#include "common/link.h"
#include "common/list.h"
#include "common/log.h"
#include "common/loop.h"
#include "worker/answers.h"
#include "worker/attempt.h"
#include "worker/cache_mail.h"
#include "worker/forward.h"
#include "worker/provider/hedge.h"
#include "worker/route/upstreams.h"
#include "worker/telemetry.h"

enum { ARENA_BYTES_MAX = 64 << 20, HEARTBEAT_DEFAULT_MS = 3000 };

struct broker_link {
    struct loop *loop;
    struct log *log;
    struct telemetry *telemetry;
    struct broker_link_options options;
    struct broker_handler handler;
    void *context;

    struct link *link;
    struct link *events;
    struct loop_timer *timer; /* the soonest of: heartbeat, silence, next try to join */
    struct arena *arena;      /* of the message in hand */

    bool is_joined;
    bool is_draining; /* this worker stops */
    bool is_drained;  /* an operator drains this worker at this broker */
    bool must_tell_draining;
    bool must_rejoin; /* at the end of the turn: a connection is not replaced within its own handler
                       */
    int64_t heard_ms; /* when the broker last said something */
    int64_t heartbeat_at_ms;
    int64_t join_at_ms;      /* not joined: the next try */
    bool is_looking_up;      /* as of the last try or look, for the broker's name, … */
    int64_t lookup_until_ms; /* … and is waited for until then */
    int64_t retry_ms;
    uint32_t heartbeat_ms;
    uint64_t incarnation;
    uint64_t event_sequence;
    uint64_t answer_bytes_max; /* that the broker takes; 0: not known */
    uint64_t credit_total;     /* since the welcome */
    uint64_t dispatched;       /* since the welcome */
    bool must_tell_credit;

    struct cache_mail mail;
    struct upstreams *upstreams;
    struct list held; /* attempts */
    size_t asking;    /* of them, those that must ask for a second call */
    struct answers answers;
    uint8_t *buffer; /* a message being packed */
    size_t buffer_bytes;
};

/* ---- sending ---- */

/* Packs `message` behind a header, in the link's buffer. NULL: out of memory. */
static const uint8_t *pack(struct broker_link *link, const Wire__WorkerMessage *message,
                           size_t *ret_bytes)
{
    const size_t bytes = FRAME_HEADER_BYTES + wire__worker_message__get_packed_size(message);
    if (bytes > link->buffer_bytes) {
        uint8_t *larger = realloc(link->buffer, bytes * 2);
        if (larger == NULL) {
            return NULL;
        }
        link->buffer = larger;
        link->buffer_bytes = bytes * 2;
    }
    frame_write_header(FRAME_WORKER_TO_BROKER, link->buffer);
    (void)wire__worker_message__pack(message, link->buffer + FRAME_HEADER_BYTES);
    *ret_bytes = bytes;
    return link->buffer;
}

static int send_message(struct broker_link *link, const Wire__WorkerMessage *message,
                        struct blob *const *payloads, size_t payloads_length)
{
    size_t bytes = 0;
    const uint8_t *head = link->link == NULL ? NULL : pack(link, message, &bytes);
    if (head == NULL) {
        return -EAGAIN;
    }
    return link_send(link->link, NULL, 0, head, bytes, payloads, payloads_length);
}

/* Lease references of a message, with the array of pointers that protobuf-c wants. */
struct lease_refs {
    Wire__LeaseRef *refs;
    Wire__LeaseRef **pointers;
    uint32_t *chunks; /* of each, that were sent of its stream */
    size_t length;
};

static void lease_refs_finish(struct lease_refs *refs)
{
    free(refs->refs);
    free(refs->pointers);
    free(refs->chunks);
}

/* Errors: -ENOMEM. */
static int lease_refs_init(struct lease_refs *refs, size_t capacity)
{
    const size_t length = capacity == 0 ? 1 : capacity;
    *refs = (struct lease_refs){
        .refs = calloc(length, sizeof(*refs->refs)),
        .pointers = calloc(length, sizeof(*refs->pointers)),
        .chunks = calloc(length, sizeof(*refs->chunks)),
    };
    return refs->refs == NULL || refs->pointers == NULL || refs->chunks == NULL ? -ENOMEM : 0;
}

static void lease_refs_add(struct lease_refs *refs, const struct id *job_id, uint32_t attempt,
                           uint32_t chunks)
{
    Wire__LeaseRef *ref = &refs->refs[refs->length];
    wire__lease_ref__init(ref);
    ref->job_id.data = (uint8_t *)job_id->bytes;
    ref->job_id.len = ID_BYTES;
    ref->attempt = attempt;
    refs->chunks[refs->length] = chunks;
    refs->pointers[refs->length++] = ref;
}

static int held_refs(const struct broker_link *link, struct lease_refs *refs)
{
    int r = lease_refs_init(refs, link->held.length);
    if (r == 0) {
        list_for_each (&link->held, at) {
            const struct attempt *attempt = CONTAINER_OF(at, struct attempt, link);
            lease_refs_add(refs, &attempt->job_id, attempt->number, attempt->chunks_sent);
        }
    }
    return r;
}

static int asking_refs(const struct broker_link *link, struct lease_refs *refs)
{
    int r = lease_refs_init(refs, link->asking);
    if (r == 0) {
        list_for_each (&link->held, at) {
            const struct attempt *attempt = CONTAINER_OF(at, struct attempt, link);
            if (attempt->must_ask) {
                lease_refs_add(refs, &attempt->job_id, attempt->number, 0);
            }
        }
    }
    return r;
}

static int answered_refs(const struct broker_link *link, struct lease_refs *refs)
{
    int r = lease_refs_init(refs, answers_length(&link->answers));
    const struct list *lists[] = {&link->answers.sent, &link->answers.unsent};
    for (size_t i = 0; r == 0 && i < ARRAY_LENGTH(lists); i++) {
        list_for_each (lists[i], at) {
            const struct answer *answer = CONTAINER_OF(at, struct answer, link);
            lease_refs_add(refs, &answer->job_id, answer->attempt, 0);
        }
    }
    return r;
}

static int send_hello(struct broker_link *link)
{
    CLEANUP(lease_refs_finish) struct lease_refs held = {.refs = NULL};
    CLEANUP(lease_refs_finish) struct lease_refs answered = {.refs = NULL};
    int r = held_refs(link, &held);
    r = r < 0 ? r : answered_refs(link, &answered);
    if (r < 0) {
        return r;
    }
    Wire__WorkerHello hello = WIRE__WORKER_HELLO__INIT;
    Wire__WorkerMessage message = WIRE__WORKER_MESSAGE__INIT;
    hello.name = (char *)link->options.worker_name;
    hello.pools = link->options.pools;
    hello.n_pools = link->options.pools_length;
    hello.slots = link->options.slots;
    hello.gpus = link->options.gpus;
    hello.brokers = link->options.brokers;
    hello.held = held.pointers;
    hello.n_held = hello.n_held_chunks = held.length;
    hello.held_chunks = held.chunks;
    hello.answered = answered.pointers;
    hello.n_answered = answered.length;
    hello.version = (char *)TIERMQ_VERSION;
    cache_mail_introduce(&link->mail, &hello);
    message.hello = &hello;
    message.draining = link->is_draining;
    return send_message(link, &message, NULL, 0);
}

/* ---- joining, leaving ---- */

static void message_arrived(void *context, const void *peer, size_t peer_bytes,
                            struct link_message *message);

/* Between a half and the whole of `ms`, so that workers do not come back all at once. */
static int64_t jittered(int64_t ms)
{
    uint32_t random = 0;
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != (ssize_t)sizeof(random)) {
        random = (uint32_t)clock_monotonic_ns();
    }
    return ms / 2 + (int64_t)(random % (uint64_t)(ms / 2 + 1));
}

static void timer_arm(struct broker_link *link)
{
    int64_t at_ms = link->join_at_ms;
    if (link->is_joined) {
        const int64_t silent_ms =
            link->heard_ms + (int64_t)link->heartbeat_ms * BROKER_LINK_SILENT_HEARTBEATS;
        at_ms = link->heartbeat_at_ms < silent_ms ? link->heartbeat_at_ms : silent_ms;
    }
    loop_timer_set(link->timer, at_ms);
}

/* Another one is sought behind this; what the log says of the broker itself is in leave(). */
static void note_end(struct broker_link *link, const char *name, const struct link_ending *ending)
{
    const char *end = link_end_name(ending->end);
    telemetry_disconnected(link->telemetry, name, end);
    log_at(link->log, link_end_level(ending->end), "a connection to a broker has ended",
           log_text("broker", link->options.endpoint), log_text("link", name),
           log_text("address", ending->address), log_text("end", end),
           log_text("reason", ending->reason),
           log_text("stage", ending->was_open ? "open" : "handshake"));
}

static void jobs_disconnected(void *context, const struct link_ending *ending)
{
    note_end(context, "jobs", ending);
}

static void events_disconnected(void *context, const struct link_ending *ending)
{
    note_end(context, "events", ending);
}

/* A new connection and a hello; tried again later unless a welcome comes. */
static void join(struct broker_link *link)
{
    const struct link_options options = {
        .kind = LINK_DEALER,
        .endpoint = link->options.endpoint,
        .part_bytes_max = link->options.part_bytes_max,
        .queue_messages_max = BROKER_LINK_QUEUE_MESSAGES_MAX,
        .on_disconnected = jobs_disconnected,
    };
    link->is_joined = false;
    link->must_rejoin = false;
    if (link->link != NULL) {
        link_forgo_linger(link->link); /* what matters of it is said again */
    }
    link_destroy(&link->link);
    int r = link_create(link->loop, &options, message_arrived, link, &link->link);
    r = r < 0 ? r : send_hello(link);
    if (r < 0) {
        log_at(link->log, LOG_ERROR, "cannot connect to the broker",
               log_text("broker", link->options.endpoint), log_text("error", strerror(-r)));
    }
    const int64_t now_ms = clock_monotonic_ms();
    link->is_looking_up = r == 0 && link_is_looking_up(link->link);
    link->lookup_until_ms = now_ms + BROKER_LINK_LOOKUP_MS;
    link->join_at_ms = now_ms + jittered(link->retry_ms);
    link->retry_ms = link->retry_ms * 2 < BROKER_LINK_RETRY_MAX_MS ? link->retry_ms * 2
                                                                   : BROKER_LINK_RETRY_MAX_MS;
    timer_arm(link);
}

/*
 * Whether the try that is over is given as long once more: its link would begin another lookup, and
 * know no more than this one. One that has just ended leaves the broker its time to answer.
 */
static bool waits_for_name(struct broker_link *link, int64_t now_ms)
{
    const bool was_looking_up = link->is_looking_up;
    link->is_looking_up = was_looking_up && link_is_looking_up(link->link);
    if (link->is_looking_up && now_ms >= link->lookup_until_ms) {
        log_at(link->log, LOG_WARN, "a broker's name could not be looked up in time",
               log_text("broker", link->options.endpoint),
               log_int("waited_ms", BROKER_LINK_LOOKUP_MS));
        return false;
    }
    return was_looking_up;
}

static void try_to_join(struct broker_link *link, int64_t now_ms)
{
    if (waits_for_name(link, now_ms)) {
        link->join_at_ms = now_ms + jittered(link->retry_ms);
    } else {
        join(link);
    }
}

/* The broker is gone, or does not know us. */
static void leave(struct broker_link *link, const char *reason)
{
    if (link->is_joined) {
        log_at(link->log, LOG_WARN, "broker lost", log_text("broker", link->options.endpoint),
               log_text("reason", reason), log_int("held", link->held.length),
               log_int("answers", answers_length(&link->answers)));
        link->retry_ms = BROKER_LINK_RETRY_FIRST_MS;
    }
    link->is_joined = false;
    link->must_rejoin = true;
    loop_again(link->loop);
}

/*
 * An event that changes a state, as it comes with a welcome or by itself. Of those that only
 * announce, nothing is kept.
 */
static void event_taken(struct broker_link *link, const Wire__Event *event)
{
    const struct upstream *upstream = NULL;
    bool is_changed = false;
    if (event->kind != WIRE__EVENT__KIND__EVENT_UPSTREAM) {
        return;
    }
    int r = upstreams_take(link->upstreams, event->data.data, event->data.len, clock_monotonic_ms(),
                           &upstream, &is_changed);
    if (r < 0) {
        telemetry_protocol_error(link->telemetry, r == -EBADMSG ? "malformed" : "upstreams");
        log_at(link->log, LOG_ERROR, "news of an upstream cannot be taken",
               log_text("broker", link->options.endpoint), log_text("upstream", event->subject),
               log_text("error", strerror(-r)));
        return;
    }
    if (is_changed) {
        telemetry_upstream(link->telemetry, upstream->provider, upstream->model,
                           upstream_state_name(upstream->state));
        log_at(link->log, LOG_INFO, "upstream changed", log_text("broker", link->options.endpoint),
               log_text("provider", upstream->provider), log_text("model", upstream->model),
               log_text("state", upstream_state_name(upstream->state)),
               log_text("reason", event->text));
    }
    link->handler.on_upstream(link->context, upstream);
}

static void snapshot_taken(struct broker_link *link, const Wire__WorkerWelcome *welcome)
{
    upstreams_forget(link->upstreams);
    for (size_t i = 0; i < welcome->n_snapshot; i++) {
        event_taken(link, welcome->snapshot[i]);
    }
}

static void invalidations_taken(struct broker_link *link, Wire__CacheInvalidation *const *items,
                                size_t length)
{
    for (size_t i = 0; i < length; i++) {
        link->handler.on_invalidation(link->context, link, items[i]);
    }
}

static void evidence_taken(struct broker_link *link, Wire__CacheEvidence *const *items,
                           size_t length)
{
    for (size_t i = 0; i < length; i++) {
        link->handler.on_evidence(link->context, link, items[i]);
    }
}

static void cache_welcomed(struct broker_link *link, const Wire__WorkerWelcome *welcome)
{
    if (welcome->cache_is_behind) {
        link->handler.on_cache_behind(
            link->context, link,
            welcome->cache_epoch.len == CACHE_MAIL_EPOCH_BYTES ? welcome->cache_epoch.data : NULL,
            welcome->cache_sequence);
    }
    invalidations_taken(link, welcome->invalidate, welcome->n_invalidate);
    evidence_taken(link, welcome->evidence, welcome->n_evidence);
}

static struct attempt *first_without_allowance(const struct broker_link *link)
{
    list_for_each (&link->held, at) {
        struct attempt *attempt = CONTAINER_OF(at, struct attempt, link);
        if (attempt->waits_for_allowance && attempt->call != NULL) {
            return attempt;
        }
    }
    return NULL;
}

/* A broker that has restarted knows nothing of what it allowed. */
static void allowances_end(struct broker_link *link)
{
    list_for_each (&link->held, at) {
        CONTAINER_OF(at, struct attempt, link)->chunk_bytes_max = 0;
    }
    struct attempt *attempt = NULL;
    while ((attempt = first_without_allowance(link)) != NULL) {
        forward_allow(attempt, 0);
    }
}

static void welcomed(struct broker_link *link, const Wire__WorkerWelcome *welcome)
{
    log_at(link->log, LOG_INFO, "joined a broker", log_text("broker", welcome->broker),
           log_text("endpoint", link->options.endpoint), log_int("held", link->held.length),
           log_int("answers", answers_length(&link->answers)));
    link->is_joined = true;
    link->is_drained = false; /* what holds now follows the welcome */
    const bool is_another = link->incarnation != welcome->incarnation;
    link->incarnation = welcome->incarnation;
    link->event_sequence = welcome->event_sequence;
    link->heartbeat_ms = welcome->heartbeat_ms > 0 ? welcome->heartbeat_ms : HEARTBEAT_DEFAULT_MS;
    link->heartbeat_at_ms = link->heard_ms + link->heartbeat_ms;
    link->retry_ms = BROKER_LINK_RETRY_FIRST_MS;
    link->answer_bytes_max = welcome->answer_bytes_max;
    link->credit_total = 0;
    link->dispatched = 0;
    link->must_tell_draining = link->is_draining;
    answers_unsend_all(&link->answers);
    if (is_another) {
        allowances_end(link); /* else they hold, and it says them again: some may not have come */
    }
    snapshot_taken(link, welcome);
    cache_welcomed(link, welcome);
}

/* ---- receiving ---- */

static void malformed(struct broker_link *link, const char *what)
{
    telemetry_protocol_error(link->telemetry, "malformed");
    log_at(link->log, LOG_ERROR, "malformed message from the broker",
           log_text("broker", link->options.endpoint), log_text("error", what));
}

static void dispatches_arrived(struct broker_link *link, const Wire__BrokerToWorker *envelope,
                               struct link_message *message)
{
    for (size_t i = 0; i < envelope->n_dispatch; i++) {
        const Wire__Dispatch *dispatch = envelope->dispatch[i];
        struct blob *payload = NULL;
        link->dispatched++;
        int r = dispatch->has_payload ? link_take_blob(message, i + 1, &payload) : -EINVAL;
        if (r < 0) {
            malformed(link, "a dispatch without its payload");
            continue;
        }
        link->handler.on_dispatch(link->context, link, dispatch, payload);
        blob_unref(&payload);
    }
}

static void concluded_arrived(struct broker_link *link, const Wire__BrokerToWorker *envelope)
{
    for (size_t i = 0; i < envelope->n_concluded; i++) {
        const Wire__LeaseRef *ref = envelope->concluded[i];
        struct id job_id;
        if (id_from_bytes(ref->job_id.data, ref->job_id.len, &job_id) < 0) {
            malformed(link, "concluded: the job id is not 16 bytes");
            continue;
        }
        (void)answers_conclude(&link->answers, &job_id,
                               ref->attempt); /* false: it was sent twice */
    }
}

static struct attempt *find_held(const struct broker_link *link, const Wire__LeaseRef *ref)
{
    list_for_each (&link->held, at) {
        struct attempt *attempt = CONTAINER_OF(at, struct attempt, link);
        if (attempt->number == ref->attempt && ref->job_id.len == ID_BYTES &&
            memcmp(attempt->job_id.bytes, ref->job_id.data, ID_BYTES) == 0) {
            return attempt;
        }
    }
    return NULL;
}

static void cancels_arrived(struct broker_link *link, const Wire__BrokerToWorker *envelope)
{
    for (size_t i = 0; i < envelope->n_cancel; i++) {
        const Wire__WorkerCancel *cancel = envelope->cancel[i];
        struct attempt *attempt = cancel->lease == NULL ? NULL : find_held(link, cancel->lease);
        if (attempt != NULL) {
            link->handler.on_cancel(link->context, attempt, cancel->reason);
        }
    }
}

static void hedges_arrived(struct broker_link *link, const Wire__BrokerToWorker *envelope)
{
    for (size_t i = 0; i < envelope->n_hedge; i++) {
        const Wire__HedgeGrant *grant = envelope->hedge[i];
        struct attempt *attempt = grant->lease == NULL ? NULL : find_held(link, grant->lease);
        if (grant->upstream == NULL) {
            malformed(link, "a second call without its upstream");
        } else if (attempt != NULL) {
            link->handler.on_hedge(link->context, attempt, grant);
        }
    }
}

static void allowances_arrived(struct broker_link *link, const Wire__BrokerToWorker *envelope)
{
    for (size_t i = 0; i < envelope->n_stream_allowance; i++) {
        const Wire__StreamAllowance *allowance = envelope->stream_allowance[i];
        struct attempt *attempt =
            allowance->lease == NULL ? NULL : find_held(link, allowance->lease);
        if (attempt != NULL) {
            forward_allow(attempt, allowance->bytes_total);
        }
    }
}

static void error_arrived(struct broker_link *link, const Wire__ProtocolError *error)
{
    const bool is_hello_wanted = error->code == WIRE__PROTOCOL_ERROR__CODE__ERROR_HELLO_REQUIRED;
    telemetry_protocol_error(link->telemetry, is_hello_wanted ? "hello_required" : "broker");
    if (is_hello_wanted) {
        if (link->is_joined) {
            leave(link, "the broker does not know this worker (one of the two has restarted)");
        }
        return;
    }
    log_at(link->log, LOG_ERROR, "the broker reports an error",
           log_text("broker", link->options.endpoint), log_int("code", error->code),
           log_text("error", error->text));
}

static void operator_spoke(struct broker_link *link, const Wire__BrokerToWorker *envelope)
{
    if (envelope->drain && !link->is_drained) {
        link->is_drained = true;
        log_at(link->log, LOG_INFO,
               "drained by an operator: no more jobs are taken from this broker",
               log_text("broker", link->options.endpoint));
    }
    if (envelope->resume && link->is_drained) {
        link->is_drained = false;
        log_at(link->log, LOG_INFO, "resumed by an operator",
               log_text("broker", link->options.endpoint));
    }
}

static void envelope_arrived(struct broker_link *link, const Wire__BrokerToWorker *envelope,
                             struct link_message *message)
{
    if (envelope->n_dispatch + 1 != link_message_parts(message)) {
        malformed(link, "its payloads are not as many as its dispatches");
        return;
    }
    if (envelope->welcome != NULL) {
        welcomed(link, envelope->welcome);
    }
    if (envelope->error != NULL) {
        error_arrived(link, envelope->error);
    }
    operator_spoke(link, envelope);
    concluded_arrived(link, envelope);
    cancels_arrived(link, envelope);
    hedges_arrived(link, envelope);
    allowances_arrived(link, envelope);
    invalidations_taken(link, envelope->invalidate, envelope->n_invalidate);
    evidence_taken(link, envelope->evidence, envelope->n_evidence);
    for (size_t i = 0; i < envelope->n_denial; i++) {
        link->handler.on_denial(link->context, envelope->denial[i]);
    }
    for (size_t i = 0; i < envelope->n_query; i++) {
        link->handler.on_query(link->context, link, envelope->query[i]);
    }
    dispatches_arrived(link, envelope, message);
}

static void message_arrived(void *context, const void *peer, size_t peer_bytes,
                            struct link_message *message)
{
    (void)peer;
    (void)peer_bytes;
    struct broker_link *link = context;
    enum frame_kind kind;
    uint8_t version = 0;
    size_t bytes = 0;
    const uint8_t *head =
        link_message_parts(message) == 0 ? NULL : link_message_part(message, 0, &bytes);
    int r = head == NULL ? -EBADMSG : frame_read_header(head, bytes, &kind, &version);
    if (r < 0 || kind != FRAME_BROKER_TO_WORKER || bytes > FRAME_ENVELOPE_BYTES_MAX) {
        malformed(link, r == -EPROTONOSUPPORT ? "another protocol version"
                        : r == 0 && kind == FRAME_BROKER_TO_CLIENT
                            ? "this is its address for clients; worker.brokers names those of "
                              "broker.listen_workers"
                            : "no frame from a broker to a worker");
        return;
    }
    link->heard_ms = clock_monotonic_ms();
    arena_reset(link->arena);
    const Wire__BrokerToWorker *envelope =
        wire__broker_to_worker__unpack(arena_protobuf_allocator(link->arena),
                                       bytes - FRAME_HEADER_BYTES, head + FRAME_HEADER_BYTES);
    if (envelope == NULL) {
        malformed(link, "the envelope cannot be decoded");
        return;
    }
    envelope_arrived(link, envelope, message);
}

/*
 * Gaps are seen and counted, and nothing else: what may have been missed is the state of an
 * upstream, which ends by itself (upstreams.h). Saying hello again for it would give back whatever
 * the broker has dispatched meanwhile.
 */
static void event_arrived(void *context, const void *peer, size_t peer_bytes,
                          struct link_message *message)
{
    (void)peer;
    (void)peer_bytes;
    struct broker_link *link = context;
    enum frame_kind kind;
    uint8_t version = 0;
    size_t bytes = 0;
    const uint8_t *head =
        link_message_parts(message) == 0 ? NULL : link_message_part(message, 0, &bytes);
    if (head == NULL || frame_read_header(head, bytes, &kind, &version) < 0 ||
        kind != FRAME_EVENT) {
        malformed(link, "no event");
        return;
    }
    arena_reset(link->arena);
    const Wire__Event *event =
        wire__event__unpack(arena_protobuf_allocator(link->arena), bytes - FRAME_HEADER_BYTES,
                            head + FRAME_HEADER_BYTES);
    if (event == NULL) {
        malformed(link, "the event cannot be decoded");
        return;
    }
    if (link->is_joined && event->sequence > link->event_sequence + 1) {
        telemetry_protocol_error(link->telemetry, "event_gap");
    }
    if (event->sequence > link->event_sequence) {
        link->event_sequence =
            event->sequence; /* older ones are in the welcome's snapshot already */
        event_taken(link, event);
    }
    log_at(link->log, LOG_DEBUG, "event", log_int("kind", event->kind),
           log_text("subject", event->subject), log_text("text", event->text));
}

/* ---- the turn ---- */

/* A message of results: one part for each payload. */
struct results {
    Wire__AttemptResult items[BROKER_LINK_RESULTS_A_MESSAGE];
    Wire__AttemptResult *pointers[BROKER_LINK_RESULTS_A_MESSAGE];
    struct cache_letter letter;
    Wire__Upstream upstreams[BROKER_LINK_RESULTS_A_MESSAGE][ANSWER_CALLS_MAX];
    Wire__Call *calls[BROKER_LINK_RESULTS_A_MESSAGE][ANSWER_CALLS_MAX];
    struct blob *payloads[BROKER_LINK_RESULTS_A_MESSAGE + CACHE_MAIL_A_MESSAGE]; /* jobs' last */
    size_t length;
    size_t payloads_length;
    size_t bytes;
};

static void results_add_call(struct results *results, struct answer_call *call)
{
    Wire__AttemptResult *item = &results->items[results->length];
    Wire__Upstream *upstream = &results->upstreams[results->length][item->n_calls];
    wire__upstream__init(upstream);
    upstream->provider = call->provider;
    upstream->model = call->model;
    call->call.upstream = upstream;
    call->call.limits = call->has_limits ? &call->limits : NULL;
    item->calls = results->calls[results->length];
    item->calls[item->n_calls++] = &call->call;
}

static void results_add(struct results *results, struct answer *answer)
{
    Wire__AttemptResult *item = &results->items[results->length];
    wire__attempt_result__init(item);
    item->job_id.data = answer->job_id.bytes;
    item->job_id.len = ID_BYTES;
    item->attempt = answer->attempt;
    item->outcome = answer->outcome;
    item->error_code = (char *)answer->error_code;
    item->error_text = answer->error_text == NULL ? (char *)"" : answer->error_text;
    item->retry_after_ms = (uint64_t)answer->retry_after_ms;
    item->usage = answer->has_usage ? &answer->usage : NULL;
    item->has_payload = answer->payload != NULL;
    item->key_mismatch = answer->key_mismatch;
    item->tenant = answer->tenant == NULL ? (char *)"" : answer->tenant;
    item->tier = answer->tier == NULL ? (char *)"" : answer->tier;
    item->made_by = answer->made_by;
    item->calls_are_old = answer->calls_are_old;
    item->run = answer->run;
    for (size_t i = 0; i < answer->calls_length; i++) {
        results_add_call(results, &answer->calls[i]);
    }
    results->pointers[results->length++] = item;
    if (answer->payload != NULL) {
        results->payloads[results->payloads_length++] = answer->payload;
        results->bytes += blob_bytes(answer->payload);
    }
}

/* It would close the connection, and again after each welcome. */
static void give_up_if_too_large(struct broker_link *link, struct answer *answer)
{
    if (answer->payload == NULL || link->answer_bytes_max == 0 ||
        blob_bytes(answer->payload) <= link->answer_bytes_max) {
        return;
    }
    char text[160];
    (void)snprintf(text, sizeof(text),
                   "the answer has %zu bytes and its broker takes %" PRIu64
                   "; raise broker.payload_bytes_max, or ask for less",
                   blob_bytes(answer->payload), link->answer_bytes_max);
    log_at(link->log, LOG_ERROR, "an answer is given up",
           log_text("broker", link->options.endpoint), log_text("error", text));
    telemetry_protocol_error(link->telemetry, "answer_too_large");
    answers_fail(&link->answers, answer, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED,
                 "answer_too_large", text);
}

/* As many unsent answers as one message takes. They stay where they are until it is sent. */
static void results_gather(struct broker_link *link, struct results *results)
{
    results->length = results->payloads_length = results->bytes = 0;
    list_for_each (&link->answers.unsent, at) {
        if (results->length == BROKER_LINK_RESULTS_A_MESSAGE ||
            results->bytes >= BROKER_LINK_BYTES_A_MESSAGE) {
            return;
        }
        struct answer *answer = CONTAINER_OF(at, struct answer, link);
        give_up_if_too_large(link, answer);
        results_add(results, answer);
    }
}

static void results_were_sent(struct broker_link *link, const struct results *results)
{
    for (size_t i = 0; i < results->length; i++) {
        answers_sent(&link->answers, answers_next_unsent(&link->answers));
    }
}

static void hedges_were_asked(struct broker_link *link)
{
    list_for_each (&link->held, at) {
        if (link->asking == 0) {
            return;
        }
        struct attempt *attempt = CONTAINER_OF(at, struct attempt, link);
        link->asking -= attempt->must_ask;
        attempt->must_ask = false;
    }
}

static bool has_news(const struct broker_link *link)
{
    return link->must_tell_credit || link->must_tell_draining || link->asking > 0 ||
           !cache_mail_is_empty(&link->mail);
}

/*
 * One message with all that there is to say. False: nothing more, or the broker takes no more now.
 */
static bool flush_once(struct broker_link *link, bool is_heartbeat)
{
    struct results results;
    CLEANUP(lease_refs_finish) struct lease_refs held = {.refs = NULL};
    CLEANUP(lease_refs_finish) struct lease_refs asking = {.refs = NULL};
    Wire__WorkerMessage message = WIRE__WORKER_MESSAGE__INIT;
    results_gather(link, &results);
    if (results.length == 0 && !is_heartbeat && !has_news(link)) {
        return false;
    }
    if ((is_heartbeat && held_refs(link, &held) < 0) ||
        (link->asking > 0 && asking_refs(link, &asking) < 0)) {
        return false;
    }
    message.hedge = asking.pointers;
    message.n_hedge = asking.length;
    message.credit_total = link->must_tell_credit ? link->credit_total : 0;
    message.result = results.pointers;
    message.n_result = results.length;
    message.heartbeat = is_heartbeat;
    message.held = held.pointers;
    message.n_held = held.length;
    message.draining = link->is_draining;
    cache_mail_write(&link->mail, &results.letter, &message);
    memcpy(results.payloads + results.payloads_length, results.letter.payloads,
           results.letter.jobs_length * sizeof(struct blob *));
    results.payloads_length += results.letter.jobs_length;
    if (send_message(link, &message, results.payloads, results.payloads_length) < 0) {
        return false; /* the next heartbeat tries again */
    }
    results_were_sent(link, &results);
    hedges_were_asked(link);
    cache_mail_sent(&link->mail, &results.letter);
    link->must_tell_credit = false;
    link->must_tell_draining = false;
    return !list_is_empty(&link->answers.unsent) || !cache_mail_is_empty(&link->mail);
}

void broker_link_flush(struct broker_link *link)
{
    if (link->must_rejoin) {
        join(link);
        return;
    }
    while (link->is_joined && flush_once(link, false)) {
    }
    timer_arm(link);
}

static void heartbeat(struct broker_link *link, int64_t now_ms)
{
    const size_t dropped =
        answers_drop_older(&link->answers, now_ms - link->options.answers_ttl_ms);
    if (dropped > 0) {
        telemetry_answers_dropped(link->telemetry, dropped);
        log_at(link->log, LOG_WARN,
               "answers dropped: the broker did not conclude them in worker.answers_ttl",
               log_text("broker", link->options.endpoint), log_int("answers", dropped));
    }
    (void)flush_once(link, true);
    link->heartbeat_at_ms = now_ms + link->heartbeat_ms;
}

static void timer_due(void *context)
{
    struct broker_link *link = context;
    const int64_t now_ms = clock_monotonic_ms();
    if (!link->is_joined) {
        if (now_ms >= link->join_at_ms) {
            try_to_join(link, now_ms);
        }
    } else if (now_ms >=
               link->heard_ms + (int64_t)link->heartbeat_ms * BROKER_LINK_SILENT_HEARTBEATS) {
        leave(link, "silent for four heartbeats");
    } else if (now_ms >= link->heartbeat_at_ms) {
        heartbeat(link, now_ms);
    }
    timer_arm(link);
}

/* ---- public ---- */

static int events_open(struct broker_link *link)
{
    const struct link_options options = {
        .kind = LINK_SUB,
        .endpoint = link->options.events,
        .part_bytes_max = FRAME_ENVELOPE_BYTES_MAX,
        .on_disconnected = events_disconnected,
    };
    return link->options.events == NULL
               ? 0
               : link_create(link->loop, &options, event_arrived, link, &link->events);
}

int broker_link_create(struct loop *loop, struct log *log, struct telemetry *telemetry,
                       const struct broker_link_options *options,
                       const struct broker_handler *handler, void *context,
                       struct broker_link **ret_link)
{
    CLEANUP(broker_link_destroy) struct broker_link *link = calloc(1, sizeof(*link));
    if (link == NULL) {
        return -ENOMEM;
    }
    link->loop = loop;
    link->log = log;
    link->telemetry = telemetry;
    link->options = *options;
    link->handler = *handler;
    link->context = context;
    link->heartbeat_ms = HEARTBEAT_DEFAULT_MS;
    link->retry_ms = BROKER_LINK_RETRY_FIRST_MS;
    list_init(&link->held);
    answers_init(&link->answers);
    cache_mail_init(&link->mail);
    memcpy(link->mail.epoch, options->cache_epoch, sizeof(link->mail.epoch));
    link->mail.sequence = options->cache_sequence;
    int r = upstreams_create(&link->upstreams);
    r = r < 0 ? r : arena_create(ARENA_BYTES_MAX, &link->arena);
    r = r < 0 ? r : loop_timer_create(loop, timer_due, link, &link->timer);
    r = r < 0 ? r : events_open(link);
    if (r < 0) {
        return r;
    }
    join(link);
    if (link->link == NULL) {
        return -EINVAL;
    }
    *ret_link = TAKE(link);
    return 0;
}

void broker_link_destroy(struct broker_link **link)
{
    struct broker_link *old = TAKE(*link);
    if (old == NULL) {
        return;
    }
    assert(list_is_empty(&old->held));
    link_destroy(&old->link);
    link_destroy(&old->events);
    loop_timer_destroy(&old->timer);
    arena_destroy(&old->arena);
    upstreams_destroy(&old->upstreams);
    answers_finish(&old->answers);
    cache_mail_finish(&old->mail);
    free(old->buffer);
    free(old);
}

void broker_link_hold(struct broker_link *link, struct attempt *attempt)
{
    attempt->broker = link;
    list_append(&link->held, &attempt->link);
}

/* Its strings copied, since the attempt goes. Errors: -ENOMEM. */
static int answer_copy_usage(struct answer *answer, const struct attempt *attempt)
{
    attempt_usage(attempt, &answer->usage);
    answer->usage.provider = strdup(answer->usage.provider);
    answer->usage.model = strdup(answer->usage.model);
    answer->has_usage = true;
    return answer->usage.provider == NULL || answer->usage.model == NULL ? -ENOMEM : 0;
}

/* Errors: -ENOMEM. */
static int answer_copy_call(struct answer *answer, const char *provider, const char *model,
                            const struct call_report *report)
{
    struct answer_call *call = &answer->calls[answer->calls_length];
    if (!report->is_made) {
        return 0;
    }
    answer->calls_length++;
    call->provider = strdup(provider);
    call->model = strdup(model);
    call->has_limits = report->has_limits;
    call->limits = report->limits;
    call_report_write(report, &call->call);
    return call->provider == NULL || call->model == NULL ? -ENOMEM : 0;
}

/* The one that counts is the last. Errors: -ENOMEM. */
static int answer_copy_calls(struct answer *answer, const struct attempt *attempt)
{
    const struct hedge *hedge = attempt->hedge;
    int r = answer_copy_call(answer, attempt->provider_name, attempt->model,
                             &attempt->shared.report); /* who has shared one has no hedge */
    r = r < 0 || hedge == NULL
            ? r
            : answer_copy_call(answer, hedge->provider_name, hedge->model, &hedge->report);
    return r < 0
               ? r
               : answer_copy_call(answer, attempt->provider_name, attempt->model, &attempt->report);
}

static int answer_fill(struct answer *answer, const struct attempt *attempt)
{
    const struct outcome *outcome = &attempt->outcome;
    answer->job_id = attempt->job_id;
    answer->attempt = attempt->number;
    answer->made_by = attempt->made_by;
    answer->run = attempt->run;
    answer->made_ms = clock_monotonic_ms();
    answer->outcome = outcome->kind;
    answer->error_code = outcome->code;
    answer->retry_after_ms = outcome->retry_after_ms;
    if (outcome->text[0] != '\0') {
        answer->error_text = strdup(outcome->text);
    }
    answer->key_mismatch = attempt->key_mismatch;
    answer->tenant = strdup(attempt->tenant);
    answer->tier = strdup(attempt->tier);
    if (answer->tenant == NULL || answer->tier == NULL) {
        return -ENOMEM;
    }
    int r = answer_copy_calls(answer, attempt);
    r = r < 0 ? r : answer_copy_usage(answer, attempt);
    if (r == 0 && outcome->kind == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED) {
        r = attempt_pack_response(attempt, &answer->payload);
    }
    return r;
}

int broker_link_answer(struct broker_link *link, struct attempt *attempt)
{
    list_remove(&link->held, &attempt->link);
    link->asking -= attempt->must_ask;
    CLEANUP(answer_destroy) struct answer *answer = calloc(1, sizeof(*answer));
    int r = answer == NULL ? -ENOMEM : answer_fill(answer, attempt);
    if (r == 0) {
        answers_add(&link->answers, &answer);
    }
    return r;
}

int broker_link_defer(struct broker_link *link, const Wire__Dispatch *dispatch, const char *reason)
{
    CLEANUP(answer_destroy) struct answer *answer = calloc(1, sizeof(*answer));
    if (answer == NULL) {
        return -ENOMEM;
    }
    int r = id_from_bytes(dispatch->job_id.data, dispatch->job_id.len, &answer->job_id);
    if (r < 0) {
        return r;
    }
    answer->attempt = dispatch->attempt;
    answer->made_ms = clock_monotonic_ms();
    answer->outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED;
    answer->error_code = "deferred";
    answer->error_text = strdup(reason);
    answers_add(&link->answers, &answer);
    return 0;
}

void broker_link_ask_hedge(struct broker_link *link, struct attempt *attempt)
{
    attempt->must_ask = true;
    link->asking++;
    loop_again(link->loop);
}

bool broker_link_answer_again(struct broker_link *link, const Wire__Dispatch *dispatch)
{
    struct id job_id;
    return id_from_bytes(dispatch->job_id.data, dispatch->job_id.len, &job_id) == 0 &&
           answers_renew(&link->answers, &job_id, dispatch->attempt);
}

static bool is_same_upstream(const struct attempt *attempt, const Wire__Upstream *upstream)
{
    if (upstream == NULL || attempt->upstream_model == NULL) {
        return upstream == NULL && attempt->upstream_model == NULL;
    }
    return strcmp(upstream->provider, attempt->upstream_provider) == 0 &&
           strcmp(upstream->model, attempt->upstream_model) == 0;
}

bool broker_link_carry_on(struct broker_link *link, const Wire__Dispatch *dispatch)
{
    if (dispatch->attempt < 2 || dispatch->is_probe || dispatch->job_id.len != ID_BYTES) {
        return false; /* the usual case, without a look at all that run */
    }
    list_for_each (&link->held, at) {
        struct attempt *attempt = CONTAINER_OF(at, struct attempt, link);
        if (attempt->number < dispatch->attempt && attempt->chunks_sent == 0 &&
            is_same_upstream(attempt, dispatch->upstream) &&
            memcmp(attempt->job_id.bytes, dispatch->job_id.data, ID_BYTES) == 0) {
            log_at(link->log, LOG_INFO, "attempt carried on as a later one",
                   log_job(&attempt->job_id), log_int("attempt", dispatch->attempt));
            attempt->made_by = attempt->made_by == 0 ? attempt->number : attempt->made_by;
            attempt->number = dispatch->attempt;
            return true;
        }
    }
    return false;
}

int64_t broker_link_upstream_open_ms(const struct broker_link *link, const char *provider,
                                     const char *model, int64_t now_ms)
{
    return upstreams_open_ms(link->upstreams, provider, model, now_ms);
}

size_t broker_link_upstreams(const struct broker_link *link, const struct upstream **ret_items)
{
    return upstreams_list(link->upstreams, ret_items);
}

int broker_link_send_chunk(struct broker_link *link, const struct attempt *attempt, uint32_t index,
                           bool is_last, const void *data, size_t bytes)
{
    if (!link->is_joined) {
        return -EAGAIN;
    }
    if (link->answer_bytes_max > 0 && bytes > link->answer_bytes_max) {
        return -EMSGSIZE; /* it would close the connection */
    }
    uint8_t head[FRAME_CHUNK_BYTES];
    CLEANUP(blob_unref) struct blob *blob = NULL;
    const struct frame_chunk chunk = {
        .job_id = attempt->job_id,
        .attempt = attempt->number,
        .index = index,
        .flags = is_last ? FRAME_CHUNK_LAST : 0,
    };
    frame_write_chunk(&chunk, head);
    int r = blob_create(data == NULL ? "" : data, bytes, &blob);
    return r < 0 ? r : link_send(link->link, NULL, 0, head, sizeof(head), &blob, 1);
}

bool broker_link_takes_credit(const struct broker_link *link)
{
    return link->is_joined && !link->is_draining && !link->is_drained &&
           link->answers.bytes < link->options.answers_bytes_max;
}

uint64_t broker_link_outstanding(const struct broker_link *link)
{
    return link->is_joined && link->credit_total > link->dispatched
               ? link->credit_total - link->dispatched
               : 0;
}

void broker_link_grant(struct broker_link *link, uint64_t credit)
{
    link->credit_total += credit;
    link->must_tell_credit = true;
}

void broker_link_drain(struct broker_link *link)
{
    link->is_draining = true;
    link->must_tell_draining = true;
}

void broker_link_goodbye(struct broker_link *link)
{
    Wire__WorkerMessage message = WIRE__WORKER_MESSAGE__INIT;
    message.goodbye = true;
    if (link->is_joined && send_message(link, &message, NULL, 0) < 0) {
        log_at(link->log, LOG_WARN, "the broker could not be told goodbye",
               log_text("broker", link->options.endpoint));
    }
}

struct cache_mail *broker_link_mail(struct broker_link *link)
{
    return &link->mail;
}

bool broker_link_is_joined(const struct broker_link *link)
{
    return link->is_joined;
}

const char *broker_link_endpoint(const struct broker_link *link)
{
    return link->options.endpoint;
}

size_t broker_link_answers(const struct broker_link *link, uint64_t *ret_bytes)
{
    *ret_bytes = link->answers.bytes;
    return answers_length(&link->answers);
}

size_t broker_link_held(const struct broker_link *link)
{
    return link->held.length;
}

void broker_link_stop_all(struct broker_link *link, const char *reason)
{
    while (!list_is_empty(&link->held)) {
        link->handler.on_cancel(
            link->context, CONTAINER_OF(list_first(&link->held), struct attempt, link), reason);
    }
}
