/*
 * intake: what every message has to pass before its envelope is read, and the answer to those that
 * do not.
 *
 * A refused message costs its sender an error that names field, value and remedy, is counted
 * (tiermq_protocol_errors_total) and logged; it never costs anybody else anything.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "broker/peers.h"
#include "common/attributes.h"
#include "common/frame.h"
#include "common/id.h"
#include "proto/wire.pb-c.h"

enum { OUT_OF_MEMORY_RETRY_MS = 1000, CONNECTIONS_RETRY_MS = 5000 };

struct broker;
struct link_message;

/* A message from outside, and who sent it. */
struct intake {
    struct broker *broker;
    enum peer_side side;
    const void *id; /* its name at the link */
    size_t id_bytes;
    struct link_message *message;
    enum frame_kind kind;
    const uint8_t *envelope; /* after the header; of a chunk, the whole part */
    size_t envelope_bytes;
};

/* Checks the header. Errors: -EBADMSG, already answered. */
MUST_USE int intake_open(struct intake *intake);

/* Answers with a ProtocolError, counts and logs it. */
void intake_refuse(const struct intake *intake, Wire__ProtocolError__Code code, const char *format,
                   ...) PRINTF_LIKE(3, 4);

/* Refuses a hello for a reason that passes; `retry_after_ms` is told with jitter. */
void intake_refuse_for_now(const struct intake *intake, int64_t retry_after_ms, const char *format,
                           ...) PRINTF_LIKE(3, 4);
/* Later by up to a quarter, so that those who were refused together do not come back together. */
int64_t intake_jittered(int64_t retry_after_ms);

/* The sender, now heard of; NULL when it has not said hello: already answered. */
struct peer *intake_peer(const struct intake *intake);

/* Reads an id. Errors: -EBADMSG, already answered with `field`'s name. */
MUST_USE int intake_id(const struct intake *intake, const ProtobufCBinaryData *data,
                       const char *field, struct id *ret_id);

/* So many items before its turn an item's job is announced to the core: about as long as a look into memory takes. */
enum { INTAKE_AHEAD = 8 };
void intake_expect(const struct intake *intake, const ProtobufCBinaryData *job_id);
