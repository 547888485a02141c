/*
 * A result is worth money: what can be saved of one is saved. Texts of errors that are too long or
 * no UTF-8 are mended, not refused; a worker's envelope is refused only when leases or payloads
 * cannot be told apart.
 */
#include "broker/workers.h"
#include <errno.h>
#include <string.h>
#include "broker/broker.h"
#include "broker/clients.h"
#include "broker/core/upkeep.h"
#include "broker/delivery.h"
#include "broker/denials.h"
#include "broker/intake.h"
#include "broker/outbox.h"
#include "broker/survey.h"
#include "broker/text.h"
#include "common/arena.h"
#include "common/blob.h"
#include "common/config.h"
#include "common/link.h"
#include "common/threshold.h"

enum { SLOTS_MAX = 65536, CALLS_MAX = 64 };
static const uint64_t RETRY_AFTER_MS_MAX = UINT64_C(366) * 24 * 3600 * 1000;

/* ---- leases ---- */

/* Reads a list of leases into the arena. Errors: -EBADMSG, already answered. */
static int read_leases(const struct intake *intake, Wire__LeaseRef *const *refs, size_t length,
                       const char *field, const struct lease_ref **ret_leases)
{
    struct lease_ref *leases = arena_alloc(intake->broker->arena, (length + 1) * sizeof(*leases));
    if (leases == NULL) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_TOO_LARGE,
                      "%s names %zu leases, which is too many", field, length);
        return -EBADMSG;
    }
    for (size_t i = 0; i < length; i++) {
        const int r = intake_id(intake, &refs[i]->job_id, field, &leases[i].job_id);
        if (r < 0) {
            return r;
        }
        leases[i].attempt = refs[i]->attempt;
    }
    *ret_leases = leases;
    return 0;
}

/* ---- hello and goodbye ---- */

void workers_forget(struct broker *broker, struct peer *peer, bool said_goodbye)
{
    surveys_worker_gone(broker, peer);
    broker_step(broker, &(struct event){.kind = EVENT_WORKER_GONE,
                                        .peer = peer->number,
                                        .as.worker_gone.said_goodbye = said_goodbye});
    outbox_drop(broker->outboxes, peer);
    peers_remove(broker->peers, &peer);
}

/*
 * The same worker again keeps its leases: the core moves them to the new number. Another one ends
 * them.
 */
static void leave(struct broker *broker, struct peer *before, const char *name)
{
    if (strcmp(before->name, name) != 0) {
        workers_forget(broker, before, false);
        return;
    }
    surveys_worker_gone(broker, before);
    outbox_drop(broker->outboxes, before);
    peers_remove(broker->peers, &before);
}

static int enter(const struct intake *intake, const Wire__WorkerHello *hello,
                 struct peer **ret_peer)
{
    struct broker *broker = intake->broker;
    struct peer *before = peers_find(broker->peers, PEER_WORKER, intake->id, intake->id_bytes);
    if (before != NULL) {
        leave(broker, before, hello->name);
    }
    if (peers_count(broker->peers, PEER_WORKER) >= broker->config->broker.workers_max) {
        intake_refuse_for_now(intake, CONNECTIONS_RETRY_MS,
                              "%zu workers are connected, as many as broker.workers_max allows",
                              peers_count(broker->peers, PEER_WORKER));
        return -EBUSY;
    }
    const int r = peers_add(broker->peers, PEER_WORKER, intake->id, intake->id_bytes, hello->name,
                            broker_time(broker).now_ms, ret_peer);
    if (r < 0) {
        intake_refuse_for_now(intake, OUT_OF_MEMORY_RETRY_MS, "out of memory; try again later");
    }
    return r;
}

static bool hello_is_good(const struct intake *intake, const Wire__WorkerHello *hello)
{
    bool is_good = hello->name[0] != '\0' && text_is_good(hello->name, CONFIG_NAME_BYTES_MAX) &&
                   text_is_good(hello->version, TEXT_BYTES_MAX);
    for (size_t i = 0; i < hello->n_pools && is_good; i++) {
        is_good = text_is_good(hello->pools[i], CONFIG_NAME_BYTES_MAX);
    }
    if (!is_good) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED,
                      "worker.name, worker.pools and the version must be UTF-8, name and pools of "
                      "%d bytes at most, name not empty",
                      CONFIG_NAME_BYTES_MAX);
        return false;
    }
    if (hello->slots == 0 || hello->slots > SLOTS_MAX || hello->n_pools > CONFIG_POOLS_MAX) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED,
                      "worker.slots is %u, must be 1 to %d; worker.pools has %zu, must be %d at "
                      "most",
                      hello->slots, SLOTS_MAX, hello->n_pools, CONFIG_POOLS_MAX);
        return false;
    }
    if (hello->gpus > UPKEEP_GPUS_MAX || hello->brokers > UPKEEP_BROKERS_MAX) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED,
                      "worker.gpus is %u, must be %d at most; worker.brokers has %u, must be %d at "
                      "most",
                      hello->gpus, UPKEEP_GPUS_MAX, hello->brokers, UPKEEP_BROKERS_MAX);
        return false;
    }
    return true;
}

static struct peer *take_hello(const struct intake *intake, const Wire__WorkerHello *hello)
{
    struct event event = {
        .kind = EVENT_WORKER_HELLO,
        .as.worker_hello = {.name = hello->name,
                            .pools = (const char *const *)hello->pools,
                            .pools_length = hello->n_pools,
                            .slots = hello->slots,
                            .gpus = hello->gpus,
                            .brokers = hello->brokers,
                            .held_length = hello->n_held,
                            .held_chunks =
                                hello->n_held_chunks == hello->n_held ? hello->held_chunks : NULL,
                            .answered_length = hello->n_answered,
                            .cache_epoch = hello->cache_epoch.len == CACHE_EPOCH_BYTES
                                               ? hello->cache_epoch.data
                                               : NULL,
                            .cache_sequence = hello->cache_epoch.len == CACHE_EPOCH_BYTES
                                                  ? hello->cache_sequence
                                                  : 0},
    };
    struct peer *peer = NULL;
    if (!hello_is_good(intake, hello) ||
        read_leases(intake, hello->held, hello->n_held, "hello.held", &event.as.worker_hello.held) <
            0 ||
        read_leases(intake, hello->answered, hello->n_answered, "hello.answered",
                    &event.as.worker_hello.answered) < 0 ||
        enter(intake, hello, &peer) < 0) {
        return NULL;
    }
    event.peer = peer->number;
    broker_step(intake->broker, &event);
    return peer;
}

/* ---- results ---- */

static void clean_usage(Wire__Usage *usage)
{
    text_clean(usage->provider, TEXT_BYTES_MAX);
    text_clean(usage->model, TEXT_BYTES_MAX);
    if (protobuf_c_enum_descriptor_get_value(&wire__cache_status__descriptor, (int)usage->cache) ==
        NULL) {
        usage->cache = WIRE__CACHE_STATUS__CACHE_NONE;
    }
}

static bool outcome_is_known(Wire__AttemptOutcome outcome)
{
    return outcome != WIRE__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_NONE &&
           protobuf_c_enum_descriptor_get_value(&wire__attempt_outcome__descriptor, (int)outcome) !=
               NULL;
}

/* What a worker says of its calls counts for breakers and limits: only what is whole. */
static void take_calls(const Wire__AttemptResult *result, struct event_attempt_result *attempt)
{
    if (result->n_calls > CALLS_MAX) {
        return;
    }
    for (size_t i = 0; i < result->n_calls; i++) {
        Wire__Call *call = result->calls[i];
        if (call->upstream == NULL || !text_is_good(call->upstream->provider, TEXT_BYTES_MAX) ||
            !text_is_good(call->upstream->model, TEXT_BYTES_MAX) ||
            !outcome_is_known(call->outcome)) {
            return;
        }
        text_clean(call->error_code, TEXT_BYTES_MAX);
        call->retry_after_ms =
            call->retry_after_ms < RETRY_AFTER_MS_MAX ? call->retry_after_ms : RETRY_AFTER_MS_MAX;
    }
    attempt->calls = (const Wire__Call *const *)result->calls;
    attempt->calls_length = result->n_calls;
}

static void take_result(const struct intake *intake, const struct peer *peer,
                        Wire__AttemptResult *result, size_t part)
{
    struct event event = {.kind = EVENT_ATTEMPT_RESULT, .peer = peer->number};
    struct event_attempt_result *attempt = &event.as.attempt_result;
    if (intake_id(intake, &result->job_id, "result.job_id", &attempt->lease.job_id) < 0) {
        return;
    }
    if (!outcome_is_known(result->outcome)) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED,
                      "result.outcome %d is not known here; use programs of one release",
                      (int)result->outcome);
        return;
    }
    CLEANUP(blob_unref) struct blob *payload = NULL;
    if (result->has_payload && link_take_blob(intake->message, part, &payload) < 0) {
        return; /* out of memory: the worker keeps its answer and sends it again */
    }
    text_clean(result->error_code, TEXT_BYTES_MAX);
    text_clean(result->error_text, TEXT_BYTES_MAX);
    if (result->usage != NULL) {
        clean_usage(result->usage);
    }
    attempt->lease.attempt = result->attempt;
    attempt->outcome = result->outcome;
    attempt->error_code = result->error_code;
    attempt->error_text = result->error_text;
    attempt->retry_after_ms =
        (int64_t)(result->retry_after_ms < RETRY_AFTER_MS_MAX ? result->retry_after_ms
                                                              : RETRY_AFTER_MS_MAX);
    attempt->usage = result->usage;
    attempt->payload = payload;
    attempt->key_mismatch = result->key_mismatch;
    attempt->tenant = result->tenant;
    attempt->tier = result->tier;
    attempt->made_by = result->made_by;
    attempt->calls_are_old = result->calls_are_old;
    attempt->run = result->run;
    take_calls(result, attempt);
    broker_step(intake->broker, &event);
}

static bool has_its_payloads(const struct intake *intake, const Wire__WorkerMessage *message)
{
    size_t announced = 0;
    for (size_t i = 0; i < message->n_result; i++) {
        announced += message->result[i]->has_payload ? 1 : 0;
    }
    for (size_t i = 0; i < message->n_submit; i++) {
        const Wire__Submit *submit = message->submit[i]->submit;
        announced += submit != NULL && submit->has_payload ? 1 : 0;
    }
    const size_t sent = link_message_parts(intake->message) - 1;
    if (announced != sent) {
        intake_refuse(
            intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED,
            "%zu results and jobs say has_payload, %zu payloads follow; nothing of this message was taken",
            announced, sent);
    }
    return announced == sent;
}

/*
 * Whoever forgets to say what the job needs, as a worker of an older version does, gets none made: what is made of a text that has
 * to stay somewhere has to stay there, too.
 */
static void take_submit(const struct intake *intake, const Wire__WorkerSubmit *made, size_t part)
{
    Wire__Submit submit = *made->submit;
    if (made->needs == NULL) {
        return;
    }
    submit.complexity = made->needs->complexity;
    submit.abilities = made->needs->abilities;
    submit.input_tokens = made->needs->input_tokens;
    submit.residency = made->needs->residency;
    submit.features = (ProtobufCBinaryData){0, NULL};
    clients_take_submit(intake, 0, made->tenant, &submit, part);
}

/* Jobs that workers make. What is wrong with one concerns nobody but the counters. */
static void take_submits(const struct intake *intake, const Wire__WorkerMessage *message,
                         size_t part)
{
    for (size_t i = 0; i < message->n_submit; i++) {
        const Wire__WorkerSubmit *made = message->submit[i];
        if (made->submit != NULL) {
            take_submit(intake, made, part);
            part += made->submit->has_payload ? 1 : 0;
        }
    }
}

static void take_results(const struct intake *intake, const struct peer *peer,
                         const Wire__WorkerMessage *message)
{
    size_t part = 1;
    for (size_t i = 0; i < message->n_result; i++) {
        if (i + INTAKE_AHEAD < message->n_result) {
            intake_expect(intake, &message->result[i + INTAKE_AHEAD]->job_id);
        }
        take_result(intake, peer, message->result[i], part);
        part += message->result[i]->has_payload ? 1 : 0;
    }
    take_submits(intake, message, part);
}

/* ---- envelopes ---- */

/* Answered with an empty envelope: workers, too, want to know that the other side lives. */
static void take_heartbeat(const struct intake *intake, struct peer *peer,
                           const Wire__WorkerMessage *message)
{
    struct event event = {
        .kind = EVENT_WORKER_HEARTBEAT,
        .peer = peer->number,
        .as.worker_heartbeat = {.held_length = message->n_held},
    };
    if (read_leases(intake, message->held, message->n_held, "held",
                    &event.as.worker_heartbeat.held) == 0) {
        broker_step(intake->broker, &event);
        delivery_sign_of_life(intake->broker, peer);
    }
}

static void take_state(const struct intake *intake, struct peer *peer,
                       const Wire__WorkerMessage *message)
{
    struct broker *broker = intake->broker;
    if (message->heartbeat) {
        take_heartbeat(intake, peer, message);
    }
    if (message->credit_total != 0) {
        const struct event event = {
            .kind = EVENT_WORKER_CREDIT,
            .peer = peer->number,
            .as.worker_credit = {.total = message->credit_total},
        };
        broker_step(broker, &event);
    }
    if (message->draining) {
        broker_step(broker, &(struct event){.kind = EVENT_WORKER_DRAINING, .peer = peer->number});
    }
    if (message->goodbye) {
        workers_forget(broker, peer, true);
    }
}

/* Attempts that take long. */
static void take_hedges(const struct intake *intake, const struct peer *peer,
                        const Wire__WorkerMessage *message)
{
    const struct lease_ref *leases;
    if (message->n_hedge == 0 ||
        read_leases(intake, message->hedge, message->n_hedge, "hedge", &leases) < 0) {
        return;
    }
    for (size_t i = 0; i < message->n_hedge; i++) {
        const struct event event = {.kind = EVENT_HEDGE_ASKED,
                                    .peer = peer->number,
                                    .as.hedge_asked = {.lease = leases[i]}};
        broker_step(intake->broker, &event);
    }
}

static void take_evidence(const struct intake *intake, const struct peer *peer,
                          const Wire__CacheEvidence *evidence)
{
    if (!text_is_good(evidence->tenant, CONFIG_NAME_BYTES_MAX) ||
        !text_is_good(evidence->tier, CONFIG_NAME_BYTES_MAX) ||
        !text_is_good(evidence->embedder, TEXT_BYTES_MAX) ||
        evidence->counts.len > THRESHOLD_PACKED_BYTES_MAX) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED,
                      "evidence: tenant, tier and embedder must be UTF-8 of %d, %d and %d bytes at "
                      "most, counts of %d bytes",
                      CONFIG_NAME_BYTES_MAX, CONFIG_NAME_BYTES_MAX, TEXT_BYTES_MAX,
                      THRESHOLD_PACKED_BYTES_MAX);
        return;
    }
    const struct event event = {
        .kind = EVENT_CACHE_EVIDENCE,
        .peer = peer->number,
        .as.cache_evidence = {.tenant = evidence->tenant,
                              .tier = evidence->tier,
                              .embedder = evidence->embedder,
                              .counts = evidence->counts.data,
                              .counts_bytes = evidence->counts.len,
                              .seed = evidence->seed.data,
                              .seed_bytes = evidence->seed.len},
    };
    broker_step(intake->broker, &event);
}

static void take_cache(const struct intake *intake, const struct peer *peer,
                       const Wire__WorkerMessage *message)
{
    for (size_t i = 0; i < message->n_cache_applied; i++) {
        surveys_take_applied(intake->broker, peer, message->cache_applied[i]);
    }
    for (size_t i = 0; i < message->n_evidence; i++) {
        take_evidence(intake, peer, message->evidence[i]);
    }
    denials_take(intake->broker, peer, message->denial, message->n_denial);
    for (size_t i = 0; i < message->n_answer; i++) {
        surveys_take_answer(intake->broker, peer, message->answer[i]);
    }
}

static void take_envelope(const struct intake *intake)
{
    struct broker *broker = intake->broker;
    const Wire__WorkerMessage *message = wire__worker_message__unpack(
        arena_protobuf_allocator(broker->arena), intake->envelope_bytes, intake->envelope);
    if (message == NULL) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED,
                      "an envelope of %zu bytes is no WorkerMessage, or has too many items",
                      intake->envelope_bytes);
        return;
    }
    struct peer *peer =
        message->hello != NULL ? take_hello(intake, message->hello) : intake_peer(intake);
    if (peer == NULL || !has_its_payloads(intake, message)) {
        return;
    }
    take_results(intake, peer, message);
    take_hedges(intake, peer, message);
    take_cache(intake, peer, message);
    take_state(intake, peer, message);
}

/* Bytes of a stream: read by the fixed header and passed on as they are. */
static void take_chunk(const struct intake *intake)
{
    struct event event = {.kind = EVENT_CHUNK};
    if (link_message_parts(intake->message) != 2 ||
        frame_read_chunk(intake->envelope, intake->envelope_bytes, &event.as.chunk.header) < 0) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED,
                      "a chunk is a header of %d bytes and one part of data", FRAME_CHUNK_BYTES);
        return;
    }
    const struct peer *peer = intake_peer(intake);
    CLEANUP(blob_unref) struct blob *data = NULL;
    if (peer == NULL || link_take_blob(intake->message, 1, &data) < 0) {
        return; /* a chunk that is lost shows as a gap; the result is whole */
    }
    event.peer = peer->number;
    event.as.chunk.data = data;
    broker_step(intake->broker, &event);
}

void workers_receive(void *context, const void *id, size_t id_bytes, struct link_message *message)
{
    struct intake intake = {
        .broker = context,
        .side = PEER_WORKER,
        .id = id,
        .id_bytes = id_bytes,
        .message = message,
    };
    if (intake_open(&intake) < 0) {
        return;
    }
    if (intake.kind == FRAME_CHUNK) {
        take_chunk(&intake);
    } else if (intake.kind == FRAME_WORKER_TO_BROKER) {
        take_envelope(&intake);
        arena_reset(intake.broker->arena);
    } else {
        intake_refuse(
            &intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED,
            "a message of kind %d came to the workers' address; workers send kinds %d and %d",
            (int)intake.kind, (int)FRAME_WORKER_TO_BROKER, (int)FRAME_CHUNK);
    }
}
