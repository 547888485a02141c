/*
 * One bad submission never costs its neighbours in the envelope anything: if its id can be read, it
 * is answered with Rejected, like every other refusal. An envelope is refused as a whole only when
 * its payloads cannot be told apart.
 */
#include "broker/clients.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "broker/broker.h"
#include "broker/delivery.h"
#include "broker/intake.h"
#include "broker/outbox.h"
#include "broker/selector.h"
#include "broker/text.h"
#include "common/arena.h"
#include "common/blob.h"
#include "common/config.h"
#include "common/link.h"

enum {
    CANONICAL_KEY_BYTES = 16,
    TRACE_PARENT_BYTES = 24,
    PRIORITY_MAX = 9,
    ATTEMPTS_MAX = 1000,
};
static const uint64_t SPAN_MS_MAX = UINT64_C(366) * 24 * 3600 * 1000;

/* ---- hello ---- */

void clients_forget(struct broker *broker, struct peer *peer)
{
    broker_step(broker, &(struct event){.kind = EVENT_CLIENT_GONE, .peer = peer->number});
    outbox_drop(broker->outboxes, peer);
    peers_remove(broker->peers, &peer);
}

/*
 * The number is new even on a known connection: whoever says hello has forgotten what was before.
 */
static int enter(const struct intake *intake, const Wire__ClientHello *hello,
                 struct peer **ret_peer)
{
    struct broker *broker = intake->broker;
    struct peer *before = peers_find(broker->peers, PEER_CLIENT, intake->id, intake->id_bytes);
    if (before != NULL) {
        clients_forget(broker, before);
    }
    if (peers_count(broker->peers, PEER_CLIENT) >= broker->config->broker.clients_max) {
        intake_refuse_for_now(
            intake, CONNECTIONS_RETRY_MS,
            "%zu clients are connected, as many as broker.clients_max allows; try again later",
            peers_count(broker->peers, PEER_CLIENT));
        return -EBUSY;
    }
    const int r = peers_add(broker->peers, PEER_CLIENT, intake->id, intake->id_bytes, hello->name,
                            broker_time(broker).now_ms, ret_peer);
    if (r < 0) {
        intake_refuse_for_now(intake, OUT_OF_MEMORY_RETRY_MS, "out of memory; try again later");
    }
    return r;
}

static struct peer *take_hello(const struct intake *intake, const Wire__ClientHello *hello)
{
    if (!text_is_good(hello->tenant, TEXT_BYTES_MAX) ||
        !text_is_good(hello->name, TEXT_BYTES_MAX)) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED,
                      "hello.tenant and hello.name must be UTF-8 of %d bytes at most",
                      TEXT_BYTES_MAX);
        return NULL;
    }
    struct peer *peer = NULL;
    if (enter(intake, hello, &peer) < 0) {
        return NULL;
    }
    const struct event event = {
        .kind = EVENT_CLIENT_HELLO,
        .peer = peer->number,
        .as.client_hello = {.tenant = hello->tenant, .name = hello->name},
    };
    broker_step(intake->broker, &event);
    return peer;
}

/* ---- submit ---- */

/* The field that is wrong, in words; NULL: none. */
static const char *submit_complaint(const Wire__Submit *submit)
{
    if (!text_is_good(submit->tier, TEXT_BYTES_MAX) ||
        !text_is_good(submit->route, TEXT_BYTES_MAX) ||
        !text_is_good(submit->pool, TEXT_BYTES_MAX)) {
        return "tier, route and pool must be UTF-8 of 255 bytes at most";
    }
    if (!text_is_good(submit->idempotency_key, TEXT_BYTES_MAX)) {
        return "idempotency_key must be UTF-8 of 255 bytes at most";
    }
    if (!text_is_good(submit->residency, TEXT_BYTES_MAX) ||
        !text_is_good(submit->task, TEXT_BYTES_MAX)) {
        return "residency and task must be UTF-8 of 255 bytes at most";
    }
    if (submit->priority > PRIORITY_MAX) {
        return "priority must be 0 (lowest) to 9";
    }
    if (submit->deadline_in_ms > SPAN_MS_MAX || submit->delay_ms > SPAN_MS_MAX) {
        return "deadline_in_ms and delay_ms must be 366 days at most";
    }
    if (submit->canonical_key.len != 0 && submit->canonical_key.len != CANONICAL_KEY_BYTES) {
        return "canonical_key must have 16 bytes, or none";
    }
    if (submit->trace_parent.len != 0 && submit->trace_parent.len != TRACE_PARENT_BYTES) {
        return "trace_parent must have 24 bytes, or none";
    }
    if (submit->attempts_max > ATTEMPTS_MAX) {
        return "attempts_max must be 1000 at most, or 0 for the tier's";
    }
    return submit->has_payload ? NULL : "has_payload must be set and the payload sent along";
}

static void reject(const struct intake *intake, uint64_t peer, const struct id *job_id,
                   Wire__RejectReason reason, const char *text, int64_t retry_after_ms)
{
    const struct effect effect = {
        .kind = EFFECT_REJECTED,
        .peer = peer,
        .as.rejected = {.job_id = *job_id,
                        .reason = reason,
                        .text = text,
                        .retry_after_ms = retry_after_ms,
                        .tier = UINT8_MAX},
    };
    delivery_carry_out(intake->broker, &effect);
}

static void step_submit(const struct intake *intake, uint64_t peer, const char *tenant,
                        const Wire__Submit *submit, const struct id *job_id, struct blob *payload)
{
    const struct event event = {
        .kind = EVENT_SUBMIT,
        .peer = peer,
        .as.submit =
            {
                .job_id = *job_id,
                .tenant = tenant,
                .tier = submit->tier,
                .route = submit->route,
                .pool = submit->pool,
                .idempotency_key = submit->idempotency_key,
                .canonical_key = submit->canonical_key.len == 0 ? NULL : submit->canonical_key.data,
                .trace_parent = submit->trace_parent.len == 0 ? NULL : submit->trace_parent.data,
                .deadline_in_ms = (int64_t)submit->deadline_in_ms,
                .delay_ms = (int64_t)submit->delay_ms,
                .priority = submit->priority,
                .estimated_tokens = submit->estimated_tokens,
                .max_tokens = submit->max_tokens,
                .input_tokens = submit->input_tokens,
                .abilities = submit->abilities,
                .prefix = submit->prefix,
                .complexity = submit->complexity,
                .features = submit->features.data,
                .features_length = submit->features.len,
                .residency = submit->residency,
                .task = submit->task,
                .attempts_max = submit->attempts_max,
                .stream = submit->stream,
                .stream_chunks = submit->stream_chunks,
                .stream_unread = submit->stream_unread,
                .discard_result = submit->discard_result,
                .payload = payload,
            },
    };
    broker_step(intake->broker, &event);
}

void clients_take_submit(const struct intake *intake, uint64_t peer, const char *tenant,
                         const Wire__Submit *submit, size_t part)
{
    struct id job_id;
    if (intake_id(intake, &submit->job_id, "submit.job_id", &job_id) < 0) {
        return;
    }
    const char *complaint = submit_complaint(submit);
    if (complaint != NULL) {
        reject(intake, peer, &job_id, WIRE__REJECT_REASON__REJECT_INVALID, complaint, 0);
        return;
    }
    size_t bytes = 0;
    (void)link_message_part(intake->message, part, &bytes);
    if (bytes > intake->broker->config->broker.payload_bytes_max) {
        reject(intake, peer, &job_id, WIRE__REJECT_REASON__REJECT_TOO_LARGE,
               "the payload is larger than broker.payload_bytes_max; send less, or raise it", 0);
        return;
    }
    CLEANUP(blob_unref) struct blob *payload = NULL;
    if (link_take_blob(intake->message, part, &payload) < 0) {
        reject(intake, peer, &job_id, WIRE__REJECT_REASON__REJECT_QUEUE_FULL,
               "the broker is out of memory", intake_jittered(OUT_OF_MEMORY_RETRY_MS));
        return;
    }
    step_submit(intake, peer, tenant, submit, &job_id, payload);
}

static void take_submits(const struct intake *intake, const struct peer *peer,
                         const Wire__ClientMessage *message)
{
    size_t part = 1;
    for (size_t i = 0; i < message->n_submit; i++) {
        if (i + INTAKE_AHEAD < message->n_submit) {
            intake_expect(intake, &message->submit[i + INTAKE_AHEAD]->job_id);
        }
        clients_take_submit(intake, peer->number, NULL, message->submit[i], part);
        part += message->submit[i]->has_payload ? 1 : 0;
    }
}

/* ---- about jobs ---- */

static void step_job(const struct intake *intake, const struct peer *peer, enum event_kind kind,
                     const ProtobufCBinaryData *id, const char *field)
{
    struct event event = {.kind = kind, .peer = peer->number};
    if (intake_id(intake, id, field, &event.as.job.job_id) == 0) {
        broker_step(intake->broker, &event);
    }
}

static void take_wait(const struct intake *intake, const struct peer *peer, const Wire__Wait *wait)
{
    struct event event = {
        .kind = EVENT_WAIT,
        .peer = peer->number,
        .as.job = {.status_only = wait->status_only,
                   .stream = wait->stream,
                   .stream_chunks = wait->stream_chunks},
    };
    if (intake_id(intake, &wait->job_id, "wait.job_id", &event.as.job.job_id) == 0) {
        broker_step(intake->broker, &event);
    }
}

static void take_stream_credit(const struct intake *intake, const struct peer *peer,
                               const Wire__StreamCredit *credit)
{
    struct event event = {
        .kind = EVENT_STREAM_CREDIT,
        .peer = peer->number,
        .as.stream_credit = {.chunks = credit->chunks},
    };
    if (intake_id(intake, &credit->job_id, "stream_credit.job_id",
                  &event.as.stream_credit.job_id) == 0) {
        broker_step(intake->broker, &event);
    }
}

static void take_about_jobs(const struct intake *intake, const struct peer *peer,
                            const Wire__ClientMessage *message)
{
    for (size_t i = 0; i < message->n_collected; i++) {
        step_job(intake, peer, EVENT_COLLECTED, &message->collected[i]->job_id, "collected.job_id");
    }
    for (size_t i = 0; i < message->n_cancel; i++) {
        step_job(intake, peer, EVENT_CANCEL, &message->cancel[i]->job_id, "cancel.job_id");
    }
    for (size_t i = 0; i < message->n_wait; i++) {
        take_wait(intake, peer, message->wait[i]);
    }
    for (size_t i = 0; i < message->n_stream_credit; i++) {
        take_stream_credit(intake, peer, message->stream_credit[i]);
    }
}

/* ---- about caches ---- */

/* False: it cannot be taken, and ret_why says why. */
static bool check_invalidate(const Wire__CacheInvalidate *invalidate,
                             char ret_why[SELECTOR_WHY_BYTES])
{
    const Wire__CacheSelector *selector = invalidate->selector;
    const char *lack = invalidate->number == 0 ? "number is 0; write another one"
                       : selector == NULL || !selector_is_restricted(selector)
                           ? "selector: nothing says what to invalidate; the tenant alone means "
                             "all of its entries"
                           : NULL;
    if (lack == NULL) {
        return selector_check(selector, invalidate->reason, ret_why);
    }
    (void)snprintf(ret_why, SELECTOR_WHY_BYTES, "%s", lack);
    return false;
}

static void take_invalidate(const struct intake *intake, const struct peer *peer,
                            const Wire__CacheInvalidate *invalidate)
{
    char why[SELECTOR_WHY_BYTES];
    Wire__CacheSelector *selector = invalidate->selector;
    if (selector != NULL && selector->near_cosine_min == 0) {
        selector->near_cosine_min = SELECTOR_NEAR_PRESET;
    }
    if (!check_invalidate(invalidate, why)) {
        delivery_invalidation_refused(intake->broker, peer, invalidate->number, why);
        return;
    }
    const struct event event = {
        .kind = EVENT_CACHE_INVALIDATE,
        .peer = peer->number,
        .as.cache_invalidate = {selector, invalidate->reason, invalidate->number},
    };
    broker_step(intake->broker, &event);
}

/* The field that is wrong, in words; NULL: none. */
static const char *near_feedback_complaint(const Wire__CacheFeedback *feedback)
{
    if (feedback->near_key.len != SELECTOR_KEY_BYTES) {
        return "near_key must have 16 bytes";
    }
    if (!text_is_good(feedback->tier, TEXT_BYTES_MAX) ||
        !text_is_good(feedback->embedder, TEXT_BYTES_MAX)) {
        return "tier and embedder must be UTF-8 of 255 bytes at most";
    }
    return isfinite(feedback->near_score) ? NULL : "near_score is no number";
}

static void take_near_feedback(const struct intake *intake, const struct peer *peer,
                               const Wire__CacheFeedback *feedback)
{
    const char *complaint = near_feedback_complaint(feedback);
    if (complaint != NULL) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED, "cache_feedback: %s",
                      complaint);
        return;
    }
    const struct event event = {
        .kind = EVENT_CACHE_FEEDBACK,
        .peer = peer->number,
        .as.cache_feedback = {.tier = feedback->tier,
                              .embedder = feedback->embedder,
                              .score = feedback->near_score,
                              .key = feedback->near_key.data,
                              .is_right = feedback->is_right},
    };
    broker_step(intake->broker, &event);
}

static void take_about_caches(const struct intake *intake, const struct peer *peer,
                              const Wire__ClientMessage *message)
{
    for (size_t i = 0; i < message->n_cache_invalidate; i++) {
        take_invalidate(intake, peer, message->cache_invalidate[i]);
    }
    for (size_t i = 0; i < message->n_cache_feedback; i++) {
        take_near_feedback(intake, peer, message->cache_feedback[i]);
    }
}

/* ---- feedback ---- */

/* The field that is wrong, in words; NULL: none. */
static const char *feedback_complaint(const Wire__Feedback *feedback)
{
    if (!(feedback->score >= 0 && feedback->score <= 1)) {
        return "score must be from 0 to 1";
    }
    return text_is_good(feedback->comment, CORE_COMMENT_BYTES_MAX)
               ? NULL
               : "comment must be UTF-8 of 512 bytes at most";
}

static void take_feedback(const struct intake *intake, const struct peer *peer,
                          const Wire__Feedback *feedback)
{
    struct event event = {
        .kind = EVENT_FEEDBACK,
        .peer = peer->number,
        .as.feedback = {.score = feedback->score, .comment = feedback->comment},
    };
    if (intake_id(intake, &feedback->job_id, "feedback.job_id", &event.as.feedback.job_id) < 0) {
        return;
    }
    const char *complaint = feedback_complaint(feedback);
    if (complaint != NULL) {
        delivery_feedback_refused(intake->broker, peer, &event.as.feedback.job_id, complaint);
        return;
    }
    broker_step(intake->broker, &event);
}

static void take_all_feedback(const struct intake *intake, const struct peer *peer,
                              const Wire__ClientMessage *message)
{
    for (size_t i = 0; i < message->n_feedback; i++) {
        take_feedback(intake, peer, message->feedback[i]);
    }
}

/* ---- envelopes ---- */

static bool has_its_payloads(const struct intake *intake, const Wire__ClientMessage *message)
{
    size_t announced = 0;
    for (size_t i = 0; i < message->n_submit; i++) {
        announced += message->submit[i]->has_payload ? 1 : 0;
    }
    const size_t sent = link_message_parts(intake->message) - 1;
    if (announced != sent) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED,
                      "%zu submissions say has_payload, %zu payloads follow; nothing of this "
                      "message was taken",
                      announced, sent);
    }
    return announced == sent;
}

static void take_envelope(const struct intake *intake)
{
    struct broker *broker = intake->broker;
    const Wire__ClientMessage *message = wire__client_message__unpack(
        arena_protobuf_allocator(broker->arena), intake->envelope_bytes, intake->envelope);
    if (message == NULL) {
        intake_refuse(intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED,
                      "an envelope of %zu bytes is no ClientMessage, or has too many items",
                      intake->envelope_bytes);
        return;
    }
    struct peer *peer =
        message->hello != NULL ? take_hello(intake, message->hello) : intake_peer(intake);
    if (peer == NULL || !has_its_payloads(intake, message)) {
        return;
    }
    take_about_caches(intake, peer, message);
    take_submits(intake, peer, message);
    take_about_jobs(intake, peer, message);
    take_all_feedback(intake, peer, message);
    if (message->ping != 0) {
        delivery_pong(broker, peer, message->ping);
    }
}

void clients_receive(void *context, const void *id, size_t id_bytes, struct link_message *message)
{
    struct intake intake = {
        .broker = context,
        .side = PEER_CLIENT,
        .id = id,
        .id_bytes = id_bytes,
        .message = message,
    };
    if (intake_open(&intake) < 0) {
        return;
    }
    if (intake.kind != FRAME_CLIENT_TO_BROKER) {
        intake_refuse(&intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_MALFORMED,
                      "a message of kind %d came to the clients' address; clients send kind %d",
                      (int)intake.kind, (int)FRAME_CLIENT_TO_BROKER);
        return;
    }
    take_envelope(&intake);
    arena_reset(intake.broker->arena);
}
