/*
 * fake_broker: the broker's end of the wire, for tests of the client library: says what the test tells it to.
 *
 * It welcomes, answers pings, asks strangers for hello, and keeps what else it was sent. It has a loop of its own, in the
 * same thread: fake_broker_run() turns both until a condition holds.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "client/tiermq.h"
#include "common/id.h"
#include "proto/wire.pb-c.h"

enum { FAKE_ITEMS_MAX = 4096, FAKE_ENDPOINT_BYTES = 256 };

struct fake_submit {
    struct id id;
    char tier[64], route[64], body[256];
    uint64_t deadline_in_ms;
    bool stream, stream_unread, has_canonical;
    uint32_t stream_chunks;
};

struct fake_broker {
    struct loop *loop;
    struct link *link;
    char endpoint[FAKE_ENDPOINT_BYTES];
    uint64_t incarnation;
    bool is_known;            /* somebody said hello since the start */
    bool refuses;             /* hello is answered with ERROR_REFUSED */
    uint64_t refuses_for_ms;  /* and with this retry_after_ms */
    uint8_t peer[256];
    size_t peer_bytes;
    size_t hellos, messages;  /* messages: those with submits */
    struct fake_submit submits[FAKE_ITEMS_MAX];
    struct id waits[FAKE_ITEMS_MAX], cancels[FAKE_ITEMS_MAX], collected[FAKE_ITEMS_MAX];
    struct {
        uint64_t number;
        char tenant[32], tag[32], reason[64];
        uint8_t key[16];
        double near_min;
    } invalidations[FAKE_ITEMS_MAX];
    struct {
        char tier[32], embedder[32];
        uint8_t near_key[16];
        double near_score;
        bool is_right;
    } near_feedbacks[FAKE_ITEMS_MAX];
    struct {
        struct id job_id;
        double score;
        char comment[64];
    } feedbacks[FAKE_ITEMS_MAX];
    bool waits_status_only[FAKE_ITEMS_MAX], waits_stream[FAKE_ITEMS_MAX];
    size_t submits_length, waits_length, cancels_length, collected_length, invalidations_length, near_feedbacks_length,
        feedbacks_length;
    size_t credit; /* chunks, of all jobs, beside what submits and waits gave */
};

/* Listens on a free port, or where it did before. */
void fake_broker_start(struct fake_broker *broker);
/* Forgets every peer, as a killed process does. */
void fake_broker_stop(struct fake_broker *broker);
void fake_broker_finish(struct fake_broker *broker);

/* Turns the client and the broker until `*at_least` reaches `count`; fails the test after 20 s. */
void fake_broker_run(struct fake_broker *broker, struct tiermq *client, const size_t *at_least, size_t count);
/* Turns both for so long that what is under way arrives. */
void fake_broker_settle(struct fake_broker *broker, struct tiermq *client);

void fake_accept(struct fake_broker *broker, const struct id *id, const struct id *known_as);
void fake_reject(struct fake_broker *broker, const struct id *id, Wire__RejectReason reason, uint64_t retry_after_ms);
/* EXPIRED, "shed". */
void fake_shed(struct fake_broker *broker, const struct id *id, uint64_t retry_after_ms);
void fake_result(struct fake_broker *broker, const struct id *id, Wire__JobState state, const char *body);
/* Succeeded; says that its stream has so many chunks. */
void fake_result_of_stream(struct fake_broker *broker, const struct id *id, const char *body, uint32_t chunks);
void fake_status(struct fake_broker *broker, const struct id *id, Wire__JobState state);
void fake_chunk(struct fake_broker *broker, const struct id *id, uint32_t attempt, uint32_t index, bool last,
                const char *text);
void fake_invalidated(struct fake_broker *broker, uint64_t number, const char *error);
/* Refused for now. */
void fake_invalidation_put_off(struct fake_broker *broker, uint64_t number, const char *error, uint64_t retry_after_ms);
void fake_feedback_taken(struct fake_broker *broker, const struct id *job_id, Wire__FeedbackOutcome outcome,
                         const char *error);
void fake_send(struct fake_broker *broker, const Wire__BrokerToClient *message, const void *payload, size_t payload_bytes);
void fake_send_raw(struct fake_broker *broker, const void *data, size_t bytes);
