/*
 * wire_socket: the protocol of proto/wire.proto for benchmark clients and workers: a DEALER without bounds, envelopes, payloads.
 * Whatever goes wrong ends the process with a line on standard error: a benchmark has nothing to recover.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <protobuf-c/protobuf-c.h>
#include <zmq.h>
#include "common/frame.h"
#include "tests/bench/load.h"

enum { WIRE_ITEMS_MAX = LOAD_WINDOW_MAX };

/* A message: its envelope, and the payloads that follow. */
struct received {
    zmq_msg_t head;
    zmq_msg_t payloads[WIRE_ITEMS_MAX];
    size_t length;
};

_Noreturn void die(const char *what); /* with the text of errno */

void *socket_open(const char *endpoint);
void socket_set_timeout(void *socket, int timeout_ms); /* of socket_receive() */
/* `more`: payloads follow. */
void socket_send(void *socket, enum frame_kind kind, const ProtobufCMessage *envelope, bool more);
/* Returns false when there is no message: with ZMQ_DONTWAIT, or after the timeout. To be released with received_release(). */
bool socket_receive(void *socket, int flags, struct received *ret_received);
void received_release(struct received *received);
const uint8_t *received_envelope(struct received *received, size_t *ret_bytes);
