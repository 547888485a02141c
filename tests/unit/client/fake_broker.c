#include "tests/unit/client/fake_broker.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/blob.h"
#include "common/clock.h"
#include "common/frame.h"
#include "common/link.h"
#include "common/loop.h"

enum { PATIENCE_MS = 20000, SETTLE_TURNS = 40, HEARTBEAT_MS = 200 };

static void keep_id(const ProtobufCBinaryData *bytes, struct id *ids, size_t *length)
{
    cr_assert_lt(*length, FAKE_ITEMS_MAX);
    cr_assert_eq(id_from_bytes(bytes->data, bytes->len, &ids[(*length)++]), 0);
}

static void keep_submit(struct fake_broker *broker, const Wire__Submit *submit,
                        struct link_message *parts, size_t part)
{
    struct fake_submit *kept = &broker->submits[broker->submits_length++];
    *kept = (struct fake_submit){.deadline_in_ms = submit->deadline_in_ms,
                                 .stream = submit->stream,
                                 .stream_unread = submit->stream_unread,
                                 .stream_chunks = submit->stream_chunks,
                                 .has_canonical = submit->canonical_key.len == 16};
    cr_assert_eq(id_from_bytes(submit->job_id.data, submit->job_id.len, &kept->id), 0);
    snprintf(kept->tier, sizeof(kept->tier), "%s", submit->tier);
    snprintf(kept->route, sizeof(kept->route), "%s", submit->route);
    size_t bytes = 0;
    const void *payload = link_message_part(parts, part, &bytes);
    Wire__ModelRequest *request = wire__model_request__unpack(NULL, bytes, payload);
    cr_assert_not_null(request);
    snprintf(kept->body, sizeof(kept->body), "%.*s", (int)request->body.len,
             (const char *)request->body.data);
    wire__model_request__free_unpacked(request, NULL);
}

static void keep_invalidation(struct fake_broker *broker, const Wire__CacheInvalidate *invalidate)
{
    typeof(&broker->invalidations[0]) kept = &broker->invalidations[broker->invalidations_length++];
    cr_assert_not_null(invalidate->selector);
    kept->number = invalidate->number;
    kept->near_min = invalidate->selector->near_cosine_min;
    snprintf(kept->tenant, sizeof(kept->tenant), "%s", invalidate->selector->tenant);
    snprintf(kept->tag, sizeof(kept->tag), "%s", invalidate->selector->tag);
    snprintf(kept->reason, sizeof(kept->reason), "%s", invalidate->reason);
    if (invalidate->selector->key.len == sizeof(kept->key)) {
        memcpy(kept->key, invalidate->selector->key.data, sizeof(kept->key));
    }
}

static void keep_near_feedback(struct fake_broker *broker, const Wire__CacheFeedback *feedback)
{
    typeof(&broker->near_feedbacks[0]) kept = &broker->near_feedbacks[broker->near_feedbacks_length++];
    snprintf(kept->tier, sizeof(kept->tier), "%s", feedback->tier);
    snprintf(kept->embedder, sizeof(kept->embedder), "%s", feedback->embedder);
    cr_assert_eq(feedback->near_key.len, sizeof(kept->near_key));
    memcpy(kept->near_key, feedback->near_key.data, sizeof(kept->near_key));
    kept->near_score = feedback->near_score;
    kept->is_right = feedback->is_right;
}

static void keep_feedback(struct fake_broker *broker, const Wire__Feedback *feedback)
{
    typeof(&broker->feedbacks[0]) kept = &broker->feedbacks[broker->feedbacks_length++];
    cr_assert_eq(id_from_bytes(feedback->job_id.data, feedback->job_id.len, &kept->job_id), 0);
    snprintf(kept->comment, sizeof(kept->comment), "%s", feedback->comment);
    kept->score = feedback->score;
}

static void keep(struct fake_broker *broker, const Wire__ClientMessage *message,
                 struct link_message *parts)
{
    broker->messages += message->n_submit > 0;
    for (size_t i = 0; i < message->n_submit; i++) {
        keep_submit(broker, message->submit[i], parts, i + 1);
    }
    for (size_t i = 0; i < message->n_wait; i++) {
        broker->waits_status_only[broker->waits_length] = message->wait[i]->status_only;
        broker->waits_stream[broker->waits_length] = message->wait[i]->stream;
        keep_id(&message->wait[i]->job_id, broker->waits, &broker->waits_length);
    }
    for (size_t i = 0; i < message->n_cancel; i++) {
        keep_id(&message->cancel[i]->job_id, broker->cancels, &broker->cancels_length);
    }
    for (size_t i = 0; i < message->n_stream_credit; i++) {
        broker->credit += message->stream_credit[i]->chunks;
    }
    for (size_t i = 0; i < message->n_collected; i++) {
        keep_id(&message->collected[i]->job_id, broker->collected, &broker->collected_length);
    }
    for (size_t i = 0; i < message->n_cache_invalidate; i++) {
        keep_invalidation(broker, message->cache_invalidate[i]);
    }
    for (size_t i = 0; i < message->n_cache_feedback; i++) {
        keep_near_feedback(broker, message->cache_feedback[i]);
    }
    for (size_t i = 0; i < message->n_feedback; i++) {
        keep_feedback(broker, message->feedback[i]);
    }
}

static void answer_error(struct fake_broker *broker, Wire__ProtocolError__Code code,
                         const char *text)
{
    Wire__ProtocolError error = WIRE__PROTOCOL_ERROR__INIT;
    error.code = code;
    error.retry_after_ms = broker->refuses_for_ms;
    error.text = (char *)text;
    Wire__BrokerToClient answer = WIRE__BROKER_TO_CLIENT__INIT;
    answer.error = &error;
    fake_send(broker, &answer, NULL, 0);
}

static void answer_hello(struct fake_broker *broker)
{
    broker->hellos++;
    if (broker->refuses) {
        answer_error(broker, WIRE__PROTOCOL_ERROR__CODE__ERROR_REFUSED,
                     "tenant: \"nobody\" is unknown");
        return;
    }
    broker->is_known = true;
    Wire__ClientWelcome welcome = WIRE__CLIENT_WELCOME__INIT;
    welcome.broker = (char *)"fake";
    welcome.incarnation = broker->incarnation;
    welcome.payload_bytes_max = 4096;
    welcome.heartbeat_ms = HEARTBEAT_MS;
    Wire__BrokerToClient answer = WIRE__BROKER_TO_CLIENT__INIT;
    answer.welcome = &welcome;
    fake_send(broker, &answer, NULL, 0);
}

static void receive(void *context, const void *peer, size_t peer_bytes, struct link_message *parts)
{
    struct fake_broker *broker = context;
    memcpy(broker->peer, peer, peer_bytes);
    broker->peer_bytes = peer_bytes;
    size_t bytes = 0;
    const uint8_t *head = link_message_part(parts, 0, &bytes);
    enum frame_kind kind = 0;
    uint8_t version = 0;
    cr_assert_eq(frame_read_header(head, bytes, &kind, &version), 0);
    cr_assert_eq(kind, FRAME_CLIENT_TO_BROKER);
    Wire__ClientMessage *message =
        wire__client_message__unpack(NULL, bytes - FRAME_HEADER_BYTES, head + FRAME_HEADER_BYTES);
    cr_assert_not_null(message);
    if (message->hello != NULL) {
        answer_hello(broker);
    } else if (!broker->is_known) {
        answer_error(broker, WIRE__PROTOCOL_ERROR__CODE__ERROR_HELLO_REQUIRED, "say hello");
    } else if (message->ping != 0) {
        Wire__BrokerToClient answer = WIRE__BROKER_TO_CLIENT__INIT;
        answer.pong = message->ping;
        fake_send(broker, &answer, NULL, 0);
    }
    if (broker->is_known) {
        keep(broker, message, parts);
    }
    wire__client_message__free_unpacked(message, NULL);
}

void fake_broker_start(struct fake_broker *broker)
{
    if (broker->loop == NULL) {
        snprintf(broker->endpoint, sizeof(broker->endpoint), "tcp://127.0.0.1:*");
        cr_assert_eq(loop_create(&broker->loop), 0);
    }
    broker->incarnation++;
    broker->is_known = false;
    char endpoint[FAKE_ENDPOINT_BYTES];
    snprintf(endpoint, sizeof(endpoint), "%s", broker->endpoint);
    const struct link_options options = {
        .kind = LINK_ROUTER, .endpoint = endpoint, .bind = true, .part_bytes_max = 1 << 20};
    const int r = link_create(broker->loop, &options, receive, broker, &broker->link);
    cr_assert_eq(r, 0, "cannot listen on %s: %s", endpoint, strerror(-r));
    snprintf(broker->endpoint, sizeof(broker->endpoint), "%s", link_endpoint(broker->link));
}

void fake_broker_stop(struct fake_broker *broker)
{
    link_destroy(&broker->link);
}

void fake_broker_finish(struct fake_broker *broker)
{
    link_destroy(&broker->link);
    loop_destroy(&broker->loop);
}

static void turn(struct fake_broker *broker, struct tiermq *client)
{
    cr_assert_eq(tiermq_dispatch(client, 2), 0);
    cr_assert_eq(loop_turn(broker->loop, 2), 0);
}

void fake_broker_run(struct fake_broker *broker, struct tiermq *client, const size_t *at_least,
                     size_t count)
{
    const int64_t deadline_ms = clock_monotonic_ms() + PATIENCE_MS;
    while (*at_least < count) {
        turn(broker, client);
        cr_assert_lt(clock_monotonic_ms(), deadline_ms, "waited in vain for %zu; there are %zu; %s",
                     count, *at_least, tiermq_connection_error(client));
    }
}

void fake_broker_settle(struct fake_broker *broker, struct tiermq *client)
{
    for (int i = 0; i < SETTLE_TURNS; i++) {
        turn(broker, client);
    }
}

void fake_send(struct fake_broker *broker, const Wire__BrokerToClient *message, const void *payload,
               size_t payload_bytes)
{
    const size_t bytes = FRAME_HEADER_BYTES + wire__broker_to_client__get_packed_size(message);
    uint8_t *head = malloc(bytes);
    struct blob *blob = NULL;
    cr_assert_not_null(head);
    frame_write_header(FRAME_BROKER_TO_CLIENT, head);
    wire__broker_to_client__pack(message, head + FRAME_HEADER_BYTES);
    if (payload != NULL) {
        cr_assert_eq(blob_create(payload, payload_bytes, &blob), 0);
    }
    /* A client that has just connected anew is not at its old address any more; it will say hello
     * again. */
    const int r =
        link_send(broker->link, broker->peer, broker->peer_bytes, head, bytes, &blob, blob != NULL);
    cr_assert(r == 0 || r == -EHOSTUNREACH, "%d", r);
    loop_settle(broker->loop);
    blob_unref(&blob);
    free(head);
}

void fake_send_raw(struct fake_broker *broker, const void *data, size_t bytes)
{
    cr_assert_eq(link_send(broker->link, broker->peer, broker->peer_bytes, data, bytes, NULL, 0),
                 0);
    loop_settle(broker->loop);
}

static ProtobufCBinaryData bytes_of(const struct id *id)
{
    return (ProtobufCBinaryData){.len = ID_BYTES, .data = (uint8_t *)id->bytes};
}

void fake_accept(struct fake_broker *broker, const struct id *id, const struct id *known_as)
{
    Wire__Accepted accepted = WIRE__ACCEPTED__INIT, *list[] = {&accepted};
    accepted.job_id = bytes_of(id);
    accepted.duplicate = known_as != NULL;
    if (known_as != NULL) {
        accepted.known_as = bytes_of(known_as);
    }
    Wire__BrokerToClient message = WIRE__BROKER_TO_CLIENT__INIT;
    message.n_accepted = 1;
    message.accepted = list;
    fake_send(broker, &message, NULL, 0);
}

void fake_reject(struct fake_broker *broker, const struct id *id, Wire__RejectReason reason,
                 uint64_t retry_after_ms)
{
    Wire__Rejected rejected = WIRE__REJECTED__INIT, *list[] = {&rejected};
    rejected.job_id = bytes_of(id);
    rejected.reason = reason;
    rejected.text = (char *)"no room";
    rejected.retry_after_ms = retry_after_ms;
    Wire__BrokerToClient message = WIRE__BROKER_TO_CLIENT__INIT;
    message.n_rejected = 1;
    message.rejected = list;
    fake_send(broker, &message, NULL, 0);
}

void fake_shed(struct fake_broker *broker, const struct id *id, uint64_t retry_after_ms)
{
    Wire__Result result = WIRE__RESULT__INIT, *list[] = {&result};
    result.job_id = bytes_of(id);
    result.state = WIRE__JOB_STATE__JOB_STATE_EXPIRED;
    result.error_code = (char *)"shed";
    result.error_text = (char *)"overload";
    result.retry_after_ms = retry_after_ms;
    Wire__BrokerToClient message = WIRE__BROKER_TO_CLIENT__INIT;
    message.n_result = 1;
    message.result = list;
    fake_send(broker, &message, NULL, 0);
}

static void send_result(struct fake_broker *broker, const struct id *id, Wire__JobState state,
                        const char *body, uint32_t chunks)
{
    Wire__Usage usage = WIRE__USAGE__INIT;
    usage.input_tokens = 7;
    usage.cost_nanousd = 1500;
    usage.model = (char *)"sim-small";
    Wire__Result result = WIRE__RESULT__INIT, *list[] = {&result};
    result.job_id = bytes_of(id);
    result.state = state;
    result.attempts = 1;
    result.usage = &usage;
    result.has_payload = body != NULL;
    result.chunks = chunks;
    Wire__BrokerToClient message = WIRE__BROKER_TO_CLIENT__INIT;
    message.n_result = 1;
    message.result = list;
    Wire__ModelResponse response = WIRE__MODEL_RESPONSE__INIT;
    uint8_t packed[1024];
    size_t bytes = 0;
    if (body != NULL) {
        response.body = (ProtobufCBinaryData){.len = strlen(body), .data = (uint8_t *)body};
        cr_assert_lt(wire__model_response__get_packed_size(&response), sizeof(packed));
        bytes = wire__model_response__pack(&response, packed);
    }
    fake_send(broker, &message, body == NULL ? NULL : packed, bytes);
}

void fake_result(struct fake_broker *broker, const struct id *id, Wire__JobState state,
                 const char *body)
{
    send_result(broker, id, state, body, 0);
}

void fake_result_of_stream(struct fake_broker *broker, const struct id *id, const char *body,
                           uint32_t chunks)
{
    send_result(broker, id, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, body, chunks);
}

void fake_status(struct fake_broker *broker, const struct id *id, Wire__JobState state)
{
    Wire__JobStatus status = WIRE__JOB_STATUS__INIT, *list[] = {&status};
    status.job_id = bytes_of(id);
    status.state = state;
    status.attempts = 2;
    status.why = (char *)"route auto is paused";
    Wire__BrokerToClient message = WIRE__BROKER_TO_CLIENT__INIT;
    message.n_status = 1;
    message.status = list;
    fake_send(broker, &message, NULL, 0);
}

void fake_chunk(struct fake_broker *broker, const struct id *id, uint32_t attempt, uint32_t index,
                bool last, const char *text)
{
    const struct frame_chunk chunk = {
        .job_id = *id, .attempt = attempt, .index = index, .flags = last ? FRAME_CHUNK_LAST : 0};
    uint8_t head[FRAME_CHUNK_BYTES];
    struct blob *data = NULL;
    frame_write_chunk(&chunk, head);
    cr_assert_eq(blob_create(text, strlen(text), &data), 0);
    cr_assert_eq(
        link_send(broker->link, broker->peer, broker->peer_bytes, head, sizeof(head), &data, 1), 0);
    blob_unref(&data);
}

void fake_invalidated(struct fake_broker *broker, uint64_t number, const char *error)
{
    fake_invalidation_put_off(broker, number, error, 0);
}

void fake_invalidation_put_off(struct fake_broker *broker, uint64_t number, const char *error,
                               uint64_t retry_after_ms)
{
    Wire__CacheInvalidated invalidated = WIRE__CACHE_INVALIDATED__INIT;
    invalidated.number = number;
    invalidated.sequence = error == NULL ? 1 : 0;
    invalidated.error = (char *)(error == NULL ? "" : error);
    invalidated.retry_after_ms = retry_after_ms;
    Wire__CacheInvalidated *items[] = {&invalidated};
    Wire__BrokerToClient message = WIRE__BROKER_TO_CLIENT__INIT;
    message.n_cache_invalidated = 1;
    message.cache_invalidated = items;
    fake_send(broker, &message, NULL, 0);
}

void fake_feedback_taken(struct fake_broker *broker, const struct id *job_id,
                         Wire__FeedbackOutcome outcome, const char *error)
{
    Wire__FeedbackTaken taken = WIRE__FEEDBACK_TAKEN__INIT;
    taken.job_id = (ProtobufCBinaryData){ID_BYTES, (uint8_t *)job_id->bytes};
    taken.outcome = outcome;
    taken.error = (char *)error;
    Wire__FeedbackTaken *items[] = {&taken};
    Wire__BrokerToClient message = WIRE__BROKER_TO_CLIENT__INIT;
    message.n_feedback_taken = 1;
    message.feedback_taken = items;
    fake_send(broker, &message, NULL, 0);
}
