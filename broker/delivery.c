#include "broker/delivery.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "broker/broker.h"
#include "broker/held.h"
#include "broker/outbox.h"
#include "broker/telemetry.h"
#include "common/config.h"
#include "common/frame.h"
#include "common/link.h"
#include "common/log.h"

enum { ROOM_BYTES = 2048 }; /* an item that needs more is packed into the effects' arena */

/* ---- sending ---- */

static void lose(struct broker *broker, struct peer *peer, int error)
{
    if (peer->is_lost) {
        return;
    }
    peer->is_lost = true;
    telemetry_peer_lost(broker->telemetry, peer, error);
    if (peer->side == PEER_CLIENT) {
        broker_step_later(broker, &(struct event){.kind = EVENT_CLIENT_GONE, .peer = peer->number});
    }
}

static void give_back(struct broker *broker, uint64_t peer, const struct lease_ref *lease)
{
    const struct event event = {
        .kind = EVENT_UNDELIVERABLE, .peer = peer, .as.undeliverable = {.lease = *lease}};
    broker_step_later(broker, &event);
}

void delivery_failed(void *context, struct peer *peer, int error, const struct lease_ref *leases,
                     size_t leases_length)
{
    struct broker *broker = context;
    lose(broker, peer, error);
    for (size_t i = 0; i < leases_length; i++) {
        give_back(broker, peer->number, &leases[i]);
    }
}

static void deliver(void *context, uint64_t number, const struct parcel *parcel)
{
    struct broker *broker = context;
    struct peer *peer = peers_by_number(broker->peers, number);
    if (peer != NULL && !peer->is_lost) {
        const int r = outbox_add(broker->outboxes, peer, parcel, broker_time(broker).now_ms);
        if (r == 0) {
            return;
        }
        lose(broker, peer, r);
    }
    if (parcel->lease != NULL) {
        give_back(broker, number, parcel->lease);
    }
}

void delivery_release(struct broker *broker, uint64_t durable)
{
    held_release(broker->held, durable, deliver, broker);
}

static void deliver_or_hold(struct broker *broker, const struct effect *effect,
                            const struct parcel *parcel)
{
    if (effect->batch <= broker->durable) {
        deliver(broker, effect->peer, parcel);
        return;
    }
    const bool is_accept = effect->kind == EFFECT_ACCEPTED;
    const int r = held_push(broker->held, effect->batch, effect->peer, is_accept, parcel);
    struct peer *peer = r < 0 ? peers_by_number(broker->peers, effect->peer) : NULL;
    if (peer != NULL) {
        lose(broker, peer, r); /* out of memory: it will ask again */
    }
}

/* Packs an envelope with one item and sends it; `parcel` says the rest. */
static void send_item(struct broker *broker, const struct effect *effect,
                      const ProtobufCMessage *envelope, struct parcel parcel)
{
    uint8_t room[ROOM_BYTES];
    const size_t bytes = protobuf_c_message_get_packed_size(envelope);
    uint8_t *packed = bytes <= sizeof(room) ? room : effects_alloc(broker->effects, bytes);
    parcel.length = protobuf_c_message_pack(envelope, packed);
    parcel.bytes = packed;
    deliver_or_hold(broker, effect, &parcel);
}

static ProtobufCBinaryData id_data(const struct id *id)
{
    return (ProtobufCBinaryData){.len = ID_BYTES, .data = (uint8_t *)id->bytes};
}

/* Not written to: protobuf-c has no const in its messages. */
static char *unconst(const char *text)
{
    return (char *)(text == NULL ? protobuf_c_empty_string : text);
}

static uint64_t not_negative(int64_t value)
{
    return value < 0 ? 0 : (uint64_t)value;
}

/* ---- to clients ---- */

static void send_to_client(struct broker *broker, const struct effect *effect,
                           const Wire__BrokerToClient *envelope, struct parcel parcel)
{
    send_item(broker, effect, &envelope->base, parcel);
}

static void welcome_client(struct broker *broker, const struct effect *effect)
{
    const struct config *config = broker->config;
    char *tiers[CONFIG_TIERS_MAX];
    for (size_t i = 0; i < config->tiers_length; i++) {
        tiers[i] = config->tiers[i].name;
    }
    Wire__ClientWelcome welcome = WIRE__CLIENT_WELCOME__INIT;
    welcome.broker = config->broker.name;
    welcome.incarnation = broker->incarnation;
    welcome.payload_bytes_max = config->broker.payload_bytes_max;
    welcome.heartbeat_ms = (uint32_t)config->broker.heartbeat_ms;
    welcome.tiers = tiers;
    welcome.n_tiers = config->tiers_length;
    Wire__BrokerToClient envelope = WIRE__BROKER_TO_CLIENT__INIT;
    envelope.welcome = &welcome;
    send_to_client(broker, effect, &envelope, (struct parcel){0});
}

static void send_accepted(struct broker *broker, const struct effect *effect)
{
    Wire__Accepted accepted = WIRE__ACCEPTED__INIT;
    accepted.job_id = id_data(&effect->as.accepted.job_id);
    accepted.duplicate = effect->as.accepted.duplicate;
    if (effect->as.accepted.has_known_as) {
        accepted.known_as = id_data(&effect->as.accepted.known_as);
    }
    Wire__BrokerToClient envelope = WIRE__BROKER_TO_CLIENT__INIT;
    envelope.accepted = (Wire__Accepted *[]){&accepted};
    envelope.n_accepted = 1;
    /* Without a promise to wait for, its result is soon behind it, and carries it. */
    send_to_client(broker, effect, &envelope, (struct parcel){.is_lazy = effect->batch == 0});
}

static void send_rejected(struct broker *broker, const struct effect *effect)
{
    Wire__Rejected rejected = WIRE__REJECTED__INIT;
    rejected.job_id = id_data(&effect->as.rejected.job_id);
    rejected.reason = effect->as.rejected.reason;
    rejected.text = unconst(effect->as.rejected.text);
    rejected.retry_after_ms = not_negative(effect->as.rejected.retry_after_ms);
    Wire__BrokerToClient envelope = WIRE__BROKER_TO_CLIENT__INIT;
    envelope.rejected = (Wire__Rejected *[]){&rejected};
    envelope.n_rejected = 1;
    telemetry_rejected(broker->telemetry, effect->as.rejected.tier, effect->as.rejected.reason);
    send_to_client(broker, effect, &envelope, (struct parcel){0});
}

static size_t put_varint(uint8_t *bytes, uint64_t value)
{
    size_t n = 0;
    while (value >= 0x80) {
        bytes[n++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    bytes[n++] = (uint8_t)value;
    return n;
}

/*
 * A Result as it was stored: the field's tag and length, then those bytes. has_payload is said once
 * more behind them, and the last one counts, because the payload may have gone since.
 */
static void send_stored_result(struct broker *broker, const struct effect *effect)
{
    enum { RESULT_TAG = 4 << 3 | 2, HAS_PAYLOAD_TAG = 10 << 3, TAGS_BYTES = 16 };
    const struct effect_result *result = &effect->as.result;
    const size_t bytes = result->packed_bytes + TAGS_BYTES;
    uint8_t room[ROOM_BYTES];
    uint8_t *packed = bytes <= sizeof(room) ? room : effects_alloc(broker->effects, bytes);
    size_t length = 0;
    packed[length++] = RESULT_TAG;
    length += put_varint(packed + length, result->packed_bytes + 2);
    memcpy(packed + length, result->packed, result->packed_bytes);
    length += result->packed_bytes;
    packed[length++] = HAS_PAYLOAD_TAG;
    packed[length++] = result->payload != NULL;
    deliver_or_hold(
        broker, effect,
        &(struct parcel){.bytes = packed, .length = length, .payload = result->payload});
}

static void send_result(struct broker *broker, const struct effect *effect)
{
    const struct effect_result *from = &effect->as.result;
    if (from->packed != NULL) {
        send_stored_result(broker, effect);
        return;
    }
    Wire__Result result = WIRE__RESULT__INIT;
    result.job_id = id_data(&from->job_id);
    result.state = from->state;
    result.error_code = unconst(from->error_code);
    result.error_text = unconst(from->error_text);
    result.attempts = from->attempts;
    result.queue_ms = not_negative(from->queue_ms);
    result.run_ms = not_negative(from->run_ms);
    result.complexity = from->complexity;
    result.abilities = from->abilities;
    result.chunks = from->chunks;
    result.usage = (Wire__Usage *)from->usage;
    result.worker = unconst(from->worker);
    result.has_payload = from->payload != NULL;
    result.retry_after_ms = not_negative(from->retry_after_ms);
    if (from->has_leader) {
        result.led_by = id_data(&from->led_by);
    }
    Wire__BrokerToClient envelope = WIRE__BROKER_TO_CLIENT__INIT;
    envelope.result = (Wire__Result *[]){&result};
    envelope.n_result = 1;
    send_to_client(broker, effect, &envelope, (struct parcel){.payload = from->payload});
}

static void send_status(struct broker *broker, const struct effect *effect)
{
    Wire__JobStatus status = WIRE__JOB_STATUS__INIT;
    status.job_id = id_data(&effect->as.status.job_id);
    status.state = effect->as.status.state;
    status.attempts = effect->as.status.attempts;
    status.waits_ms = not_negative(effect->as.status.waits_ms);
    status.position = effect->as.status.position;
    status.why = unconst(effect->as.status.why);
    status.has_estimate = effect->as.status.has_estimate;
    status.starts_in_ms = not_negative(effect->as.status.starts_in_ms);
    Wire__BrokerToClient envelope = WIRE__BROKER_TO_CLIENT__INIT;
    envelope.status = (Wire__JobStatus *[]){&status};
    envelope.n_status = 1;
    send_to_client(broker, effect, &envelope, (struct parcel){0});
}

static void send_invalidated(struct broker *broker, const struct effect *effect)
{
    Wire__CacheInvalidated invalidated = WIRE__CACHE_INVALIDATED__INIT;
    invalidated.number = effect->as.cache_invalidated.number;
    invalidated.sequence = effect->as.cache_invalidated.sequence;
    invalidated.error = unconst(effect->as.cache_invalidated.error);
    invalidated.retry_after_ms = not_negative(effect->as.cache_invalidated.retry_after_ms);
    Wire__BrokerToClient envelope = WIRE__BROKER_TO_CLIENT__INIT;
    envelope.cache_invalidated = (Wire__CacheInvalidated *[]){&invalidated};
    envelope.n_cache_invalidated = 1;
    send_to_client(broker, effect, &envelope, (struct parcel){0});
}

static void send_feedback_taken(struct broker *broker, const struct effect *effect)
{
    Wire__FeedbackTaken taken = WIRE__FEEDBACK_TAKEN__INIT;
    taken.job_id = id_data(&effect->as.feedback_taken.job_id);
    taken.outcome = effect->as.feedback_taken.outcome;
    taken.error = unconst(effect->as.feedback_taken.error);
    taken.retry_after_ms = not_negative(effect->as.feedback_taken.retry_after_ms);
    Wire__BrokerToClient envelope = WIRE__BROKER_TO_CLIENT__INIT;
    envelope.feedback_taken = (Wire__FeedbackTaken *[]){&taken};
    envelope.n_feedback_taken = 1;
    send_to_client(broker, effect, &envelope, (struct parcel){0});
}

static void send_chunk(struct broker *broker, const struct effect *effect)
{
    struct peer *peer = peers_by_number(broker->peers, effect->peer);
    if (peer == NULL || peer->is_lost) {
        return;
    }
    uint8_t head[FRAME_CHUNK_BYTES];
    frame_write_chunk(&effect->as.chunk.header, head);
    struct blob *data = effect->as.chunk.data;
    const int r = outbox_send_at_once(broker->clients, peer, head, sizeof(head), &data, 1);
    if (r < 0) {
        lose(broker, peer, r);
    }
}

void delivery_invalidation_refused(struct broker *broker, const struct peer *peer, uint64_t number,
                                   const char *why)
{
    send_invalidated(broker,
                     &(struct effect){.kind = EFFECT_CACHE_INVALIDATED,
                                      .peer = peer->number,
                                      .as.cache_invalidated = {.number = number, .error = why}});
}

void delivery_feedback_refused(struct broker *broker, const struct peer *peer,
                               const struct id *job_id, const char *why)
{
    send_feedback_taken(broker,
                        &(struct effect){.kind = EFFECT_FEEDBACK_TAKEN,
                                         .peer = peer->number,
                                         .as.feedback_taken = {
                                             .job_id = *job_id,
                                             .outcome = WIRE__FEEDBACK_OUTCOME__FEEDBACK_REFUSED,
                                             .error = why,
                                         }});
}

void delivery_pong(struct broker *broker, struct peer *peer, uint64_t ping)
{
    Wire__BrokerToClient envelope = WIRE__BROKER_TO_CLIENT__INIT;
    envelope.pong = ping;
    send_to_client(broker, &(struct effect){.peer = peer->number}, &envelope, (struct parcel){0});
}

/* ---- to workers ---- */

static void send_to_worker(struct broker *broker, const struct effect *effect,
                           const Wire__BrokerToWorker *envelope, struct parcel parcel)
{
    send_item(broker, effect, &envelope->base, parcel);
}

static const char *subject_word(enum pause_subject subject)
{
    switch (subject) {
    case PAUSE_ROUTE:
        return "route";
    case PAUSE_TIER:
        return "tier";
    case PAUSE_TENANT:
        return "tenant";
    case PAUSE_WORKER:
        return "worker";
    }
    return "";
}

/* What events have changed so far, for a worker that comes now. */
struct snapshot {
    struct effects *effects;
    uint64_t sequence;
    Wire__Event **events;
    size_t length, capacity;
};

static void count_pause(void *context, const struct core_pause_view *view)
{
    (void)view;
    ((struct snapshot *)context)->capacity++;
}

static void note_pause(void *context, const struct core_pause_view *view)
{
    struct snapshot *snapshot = context;
    Wire__Event *event = effects_alloc(snapshot->effects, sizeof(*event));
    wire__event__init(event);
    event->sequence = snapshot->sequence;
    event->kind = WIRE__EVENT__KIND__EVENT_PAUSED;
    event->subject_kind = unconst(subject_word(view->subject));
    event->subject = unconst(view->name);
    event->text = unconst(view->reason);
    snapshot->events[snapshot->length++] = event;
}

static void count_upstream(void *context, const struct core_upstream_view *view)
{
    (void)view;
    ((struct snapshot *)context)->capacity++;
}

static void note_upstream(void *context, const struct core_upstream_view *view)
{
    struct snapshot *snapshot = context;
    if (view->state == WIRE__UPSTREAM_STATE__STATE__UPSTREAM_CLOSED) {
        return;
    }
    Wire__Upstream name = WIRE__UPSTREAM__INIT;
    name.provider = unconst(view->provider);
    name.model = unconst(view->model);
    Wire__UpstreamState state = WIRE__UPSTREAM_STATE__INIT;
    state.upstream = &name;
    state.state = view->state;
    state.for_ms = not_negative(view->blocked_ms);
    Wire__Event *event = effects_alloc(snapshot->effects, sizeof(*event));
    wire__event__init(event);
    event->sequence = snapshot->sequence;
    event->kind = WIRE__EVENT__KIND__EVENT_UPSTREAM;
    event->subject_kind = unconst("upstream");
    event->subject =
        unconst(effects_format(snapshot->effects, "%s/%s", view->provider, view->model));
    event->text = unconst(view->error_code);
    event->data.len = wire__upstream_state__get_packed_size(&state);
    event->data.data = effects_alloc(snapshot->effects, event->data.len);
    (void)wire__upstream_state__pack(&state, event->data.data);
    snapshot->events[snapshot->length++] = event;
}

/* Invalidations of caches that a worker has missed, each as old as it is by now. */
struct missed {
    struct effects *effects;
    int64_t now_unix_ms;
    Wire__CacheInvalidation **items;
    size_t length, capacity;
};

static void count_missed(void *context, const struct core_invalidation_view *view)
{
    (void)view;
    ((struct missed *)context)->capacity++;
}

static void note_missed(void *context, const struct core_invalidation_view *view)
{
    struct missed *missed = context;
    Wire__CacheInvalidation *invalidation = wire__cache_invalidation__unpack(
        effects_allocator(missed->effects), view->bytes, view->packed);
    if (invalidation == NULL || invalidation->selector == NULL) {
        return; /* without memory: the worker finds a gap, and is behind */
    }
    if (invalidation->selector->older_than_ms > 0) {
        invalidation->selector->older_than_ms +=
            not_negative(missed->now_unix_ms - view->at_unix_ms);
    }
    missed->items[missed->length++] = invalidation;
}

static void welcome_cache(struct broker *broker, const struct effect *effect,
                          Wire__WorkerWelcome *welcome)
{
    struct missed missed = {.effects = broker->effects, .now_unix_ms = broker_time(broker).unix_ms};
    const uint8_t *epoch = effect->as.worker_welcome.cache_epoch;
    const uint64_t sequence = effect->as.worker_welcome.cache_sequence;
    welcome->cache_is_behind =
        !core_visit_invalidations(broker->core, epoch, sequence, count_missed, &missed);
    missed.items =
        effects_alloc(broker->effects, (missed.capacity + 1) * sizeof(Wire__CacheInvalidation *));
    (void)core_visit_invalidations(broker->core, epoch, sequence, note_missed, &missed);
    welcome->cache_is_behind |= missed.length < missed.capacity;
    welcome->invalidate = missed.items;
    welcome->n_invalidate = welcome->cache_is_behind ? 0 : missed.length;
    uint64_t latest;
    welcome->cache_epoch.data = effects_alloc(broker->effects, CACHE_EPOCH_BYTES);
    core_cache_position(broker->core, welcome->cache_epoch.data, &latest, &welcome->cache_sequence);
    welcome->cache_epoch.len = welcome->cache_sequence > 0 ? CACHE_EPOCH_BYTES : 0;
}

static void welcome_worker(struct broker *broker, const struct effect *effect)
{
    struct snapshot snapshot = {.effects = broker->effects, .sequence = broker->event_sequence};
    const struct core_time now = broker_time(broker);
    core_visit_pauses(broker->core, count_pause, &snapshot);
    core_visit_upstreams(broker->core, now, count_upstream, &snapshot);
    snapshot.events =
        effects_alloc(broker->effects, (snapshot.capacity + 1) * sizeof(Wire__Event *));
    core_visit_pauses(broker->core, note_pause, &snapshot);
    core_visit_upstreams(broker->core, now, note_upstream, &snapshot);

    Wire__WorkerWelcome welcome = WIRE__WORKER_WELCOME__INIT;
    welcome.answer_bytes_max = broker_part_bytes_max(&broker->config->broker);
    welcome.broker = broker->config->broker.name;
    welcome.incarnation = broker->incarnation;
    welcome.lease_ms = effect->as.worker_welcome.lease_ms;
    welcome.heartbeat_ms = (uint32_t)broker->config->broker.heartbeat_ms;
    welcome.event_sequence = broker->event_sequence;
    welcome.snapshot = snapshot.events;
    welcome.n_snapshot = snapshot.length;
    welcome_cache(broker, effect, &welcome);
    Wire__BrokerToWorker envelope = WIRE__BROKER_TO_WORKER__INIT;
    envelope.welcome = &welcome;
    send_to_worker(broker, effect, &envelope, (struct parcel){0});
}

static void send_invalidation(struct broker *broker, const struct effect *effect)
{
    enum { INVALIDATE_TAG = 8 << 3 | 2, TAGS_BYTES = 16 };
    const size_t bytes = effect->as.cache_invalidate.bytes;
    uint8_t *packed = effects_alloc(broker->effects, bytes + TAGS_BYTES);
    size_t length = 0;
    packed[length++] = INVALIDATE_TAG;
    length += put_varint(packed + length, bytes);
    memcpy(packed + length, effect->as.cache_invalidate.packed, bytes);
    deliver_or_hold(broker, effect, &(struct parcel){.bytes = packed, .length = length + bytes});
}

/* Without memory it is dropped: sums are told again when they change. */
static void send_evidence(struct broker *broker, const struct effect *effect)
{
    enum { EVIDENCE_TAG = 9 << 3 | 2, TAGS_BYTES = 16 };
    const struct blob *sum = effect->as.cache_evidence.packed;
    uint8_t *packed = malloc(blob_bytes(sum) + TAGS_BYTES);
    if (packed == NULL) {
        return;
    }
    size_t length = 0;
    packed[length++] = EVIDENCE_TAG;
    length += put_varint(packed + length, blob_bytes(sum));
    memcpy(packed + length, blob_data(sum), blob_bytes(sum));
    deliver_or_hold(broker, effect,
                    &(struct parcel){.bytes = packed, .length = length + blob_bytes(sum)});
    free(packed);
}

void delivery_query(struct broker *broker, uint64_t peer, uint64_t number, const char *what,
                    const char *argument)
{
    Wire__WorkerQuery query = WIRE__WORKER_QUERY__INIT;
    query.number = number;
    query.what = unconst(what);
    query.argument = unconst(argument);
    Wire__BrokerToWorker envelope = WIRE__BROKER_TO_WORKER__INIT;
    envelope.query = (Wire__WorkerQuery *[]){&query};
    envelope.n_query = 1;
    send_to_worker(broker, &(struct effect){.peer = peer}, &envelope, (struct parcel){0});
}

void delivery_denial(struct broker *broker, uint64_t peer, const Wire__CacheDenial *denial)
{
    Wire__BrokerToWorker envelope = WIRE__BROKER_TO_WORKER__INIT;
    envelope.denial = (Wire__CacheDenial *[]){(Wire__CacheDenial *)denial};
    envelope.n_denial = 1;
    send_to_worker(broker, &(struct effect){.peer = peer}, &envelope, (struct parcel){0});
}

static void send_dispatch(struct broker *broker, const struct effect *effect)
{
    enum { CANONICAL_KEY_BYTES = 16, TRACE_PARENT_BYTES = 24 };
    const struct effect_dispatch *from = &effect->as.dispatch;
    Wire__Dispatch dispatch = WIRE__DISPATCH__INIT;
    dispatch.job_id = id_data(&from->lease.job_id);
    dispatch.attempt = from->lease.attempt;
    dispatch.tenant = unconst(from->tenant);
    dispatch.route = unconst(from->route);
    dispatch.tier = unconst(from->tier);
    dispatch.deadline_in_ms = not_negative(from->deadline_in_ms);
    dispatch.queue_ms = not_negative(from->queue_ms);
    dispatch.stream = from->stream;
    dispatch.stream_bytes = from->stream_bytes;
    dispatch.estimated_tokens = from->estimated_tokens;
    dispatch.max_tokens = from->max_tokens;
    dispatch.has_payload = true;
    dispatch.is_probe = from->is_probe;
    dispatch.pool = unconst(from->pool);
    dispatch.is_of_worker = from->is_of_worker;
    dispatch.route_reason = unconst(from->reason);
    dispatch.quality_lost = from->quality_lost;
    Wire__JobNeeds needs = WIRE__JOB_NEEDS__INIT;
    needs.complexity = from->complexity;
    needs.abilities = from->abilities;
    needs.input_tokens = from->input_tokens;
    needs.residency = unconst(from->residency);
    dispatch.needs = &needs;
    dispatch.tenant_residency = unconst(from->tenant_residency);
    dispatch.is_last_choice = from->is_last_choice;
    dispatch.is_last_attempt = from->is_last_attempt;
    dispatch.is_budgeted = from->is_budgeted;
    dispatch.hedge_after_ms = not_negative(from->hedge_after_ms);
    Wire__Upstream upstream = WIRE__UPSTREAM__INIT;
    if (from->provider != NULL) {
        upstream.provider = unconst(from->provider);
        upstream.model = unconst(from->model);
        dispatch.upstream = &upstream;
    }
    if (from->canonical_key != NULL) {
        dispatch.canonical_key =
            (ProtobufCBinaryData){CANONICAL_KEY_BYTES, (uint8_t *)from->canonical_key};
    }
    if (from->trace_parent != NULL) {
        dispatch.trace_parent =
            (ProtobufCBinaryData){TRACE_PARENT_BYTES, (uint8_t *)from->trace_parent};
    }
    Wire__BrokerToWorker envelope = WIRE__BROKER_TO_WORKER__INIT;
    envelope.dispatch = (Wire__Dispatch *[]){&dispatch};
    envelope.n_dispatch = 1;
    telemetry_dispatched(broker->telemetry, from->tier_index, from->queue_ms);
    send_to_worker(broker, effect, &envelope,
                   (struct parcel){.payload = from->payload, .lease = &from->lease});
}

static void fill_lease(const struct lease_ref *from, Wire__LeaseRef *ret_lease)
{
    wire__lease_ref__init(ret_lease);
    ret_lease->job_id = id_data(&from->job_id);
    ret_lease->attempt = from->attempt;
}

static void send_hedge(struct broker *broker, const struct effect *effect)
{
    Wire__LeaseRef lease;
    fill_lease(&effect->as.hedge.lease, &lease);
    Wire__Upstream upstream = WIRE__UPSTREAM__INIT;
    upstream.provider = unconst(effect->as.hedge.provider);
    upstream.model = unconst(effect->as.hedge.model);
    Wire__HedgeGrant grant = WIRE__HEDGE_GRANT__INIT;
    grant.lease = &lease;
    grant.upstream = &upstream;
    grant.quality_lost = effect->as.hedge.quality_lost;
    Wire__BrokerToWorker envelope = WIRE__BROKER_TO_WORKER__INIT;
    envelope.hedge = (Wire__HedgeGrant *[]){&grant};
    envelope.n_hedge = 1;
    send_to_worker(broker, effect, &envelope, (struct parcel){0});
}

static void send_stream_allowance(struct broker *broker, const struct effect *effect)
{
    Wire__LeaseRef lease;
    fill_lease(&effect->as.stream_allowance.lease, &lease);
    Wire__StreamAllowance allowance = WIRE__STREAM_ALLOWANCE__INIT;
    allowance.lease = &lease;
    allowance.bytes_total = effect->as.stream_allowance.bytes_total;
    Wire__BrokerToWorker envelope = WIRE__BROKER_TO_WORKER__INIT;
    envelope.stream_allowance = (Wire__StreamAllowance *[]){&allowance};
    envelope.n_stream_allowance = 1;
    send_to_worker(broker, effect, &envelope, (struct parcel){0});
}

static void send_concluded(struct broker *broker, const struct effect *effect)
{
    Wire__LeaseRef lease;
    fill_lease(&effect->as.attempt.lease, &lease);
    Wire__BrokerToWorker envelope = WIRE__BROKER_TO_WORKER__INIT;
    envelope.concluded = (Wire__LeaseRef *[]){&lease};
    envelope.n_concluded = 1;
    send_to_worker(broker, effect, &envelope, (struct parcel){.is_lazy = true});
}

static void send_cancel(struct broker *broker, const struct effect *effect)
{
    Wire__LeaseRef lease;
    fill_lease(&effect->as.attempt.lease, &lease);
    Wire__WorkerCancel cancel = WIRE__WORKER_CANCEL__INIT;
    cancel.lease = &lease;
    cancel.reason = unconst(effect->as.attempt.reason);
    Wire__BrokerToWorker envelope = WIRE__BROKER_TO_WORKER__INIT;
    envelope.cancel = (Wire__WorkerCancel *[]){&cancel};
    envelope.n_cancel = 1;
    send_to_worker(broker, effect, &envelope, (struct parcel){0});
}

static void send_drain(struct broker *broker, const struct effect *effect)
{
    Wire__BrokerToWorker envelope = WIRE__BROKER_TO_WORKER__INIT;
    envelope.drain = effect->as.worker_drain.drain;
    envelope.resume = !effect->as.worker_drain.drain;
    send_to_worker(broker, effect, &envelope, (struct parcel){0});
}

void delivery_sign_of_life(struct broker *broker, struct peer *peer)
{
    const Wire__BrokerToWorker nothing = WIRE__BROKER_TO_WORKER__INIT;
    send_to_worker(broker, &(struct effect){.peer = peer->number}, &nothing, (struct parcel){0});
}

/* ---- to both, and to whoever listens ---- */

/* An envelope has room for one error, so it leaves before there is a second. */
static void send_error(struct broker *broker, const struct effect *effect)
{
    Wire__ProtocolError error = WIRE__PROTOCOL_ERROR__INIT;
    error.code = effect->as.error.code;
    error.text = unconst(effect->as.error.text);
    error.retry_after_ms = not_negative(effect->as.error.retry_after_ms);
    struct peer *peer = peers_by_number(broker->peers, effect->peer);
    if (peer == NULL) {
        return;
    }
    telemetry_protocol_error(broker->telemetry, peer->side, error.code, error.text);
    if (effect->kind == EFFECT_CLIENT_ERROR) {
        Wire__BrokerToClient envelope = WIRE__BROKER_TO_CLIENT__INIT;
        envelope.error = &error;
        send_to_client(broker, effect, &envelope, (struct parcel){0});
    } else {
        Wire__BrokerToWorker envelope = WIRE__BROKER_TO_WORKER__INIT;
        envelope.error = &error;
        send_to_worker(broker, effect, &envelope, (struct parcel){0});
    }
    outbox_flush(broker->outboxes, peer);
    if (error.code == WIRE__PROTOCOL_ERROR__CODE__ERROR_REFUSED) {
        lose(broker, peer, -EACCES);
    }
}

static void publish(struct broker *broker, const struct effect *effect)
{
    Wire__Event event = WIRE__EVENT__INIT;
    event.sequence = ++broker->event_sequence;
    event.kind = effect->as.publish.kind;
    event.subject_kind = unconst(effect->as.publish.subject_kind);
    event.subject = unconst(effect->as.publish.subject);
    event.text = unconst(effect->as.publish.text);
    event.data =
        (ProtobufCBinaryData){effect->as.publish.data_bytes, (uint8_t *)effect->as.publish.data};
    const size_t bytes = FRAME_HEADER_BYTES + wire__event__get_packed_size(&event);
    uint8_t *packed = effects_alloc(broker->effects, bytes);
    frame_write_header(FRAME_EVENT, packed);
    wire__event__pack(&event, packed + FRAME_HEADER_BYTES);
    const int r = link_send(broker->events, NULL, 0, packed, bytes, NULL, 0);
    if (r < 0) {
        log_at(broker->log, LOG_WARN, "an event was not published",
               log_text("reason", strerror(-r)));
    }
}

void delivery_carry_out(struct broker *broker, const struct effect *effect)
{
    switch (effect->kind) {
    case EFFECT_CLIENT_WELCOME:
        welcome_client(broker, effect);
        return;
    case EFFECT_CLIENT_ERROR:
    case EFFECT_WORKER_ERROR:
        send_error(broker, effect);
        return;
    case EFFECT_ACCEPTED:
        send_accepted(broker, effect);
        return;
    case EFFECT_REJECTED:
        send_rejected(broker, effect);
        return;
    case EFFECT_RESULT:
        send_result(broker, effect);
        return;
    case EFFECT_STATUS:
        send_status(broker, effect);
        return;
    case EFFECT_CHUNK:
        send_chunk(broker, effect);
        return;
    case EFFECT_WORKER_WELCOME:
        welcome_worker(broker, effect);
        return;
    case EFFECT_DISPATCH:
        send_dispatch(broker, effect);
        return;
    case EFFECT_HEDGE:
        send_hedge(broker, effect);
        return;
    case EFFECT_STREAM_ALLOWANCE:
        send_stream_allowance(broker, effect);
        return;
    case EFFECT_ATTEMPT_CONCLUDED:
        send_concluded(broker, effect);
        return;
    case EFFECT_ATTEMPT_CANCEL:
        send_cancel(broker, effect);
        return;
    case EFFECT_WORKER_DRAIN:
        send_drain(broker, effect);
        return;
    case EFFECT_CACHE_INVALIDATE:
        send_invalidation(broker, effect);
        return;
    case EFFECT_CACHE_EVIDENCE:
        send_evidence(broker, effect);
        return;
    case EFFECT_CACHE_INVALIDATED:
        send_invalidated(broker, effect);
        return;
    case EFFECT_FEEDBACK_TAKEN:
        send_feedback_taken(broker, effect);
        return;
    case EFFECT_PUBLISH:
        publish(broker, effect);
        return;
    case EFFECT_NOTE:
        telemetry_note(broker->telemetry, effect);
        return;
    case EFFECT_PUT:
    case EFFECT_DELETE:
    case EFFECT_DELETE_RANGE:
    case EFFECT_LOAD:
        return; /* the journal's */
    }
}
