#include "tests/bench/wire_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { ENVELOPE_BYTES_MAX = 1 << 20 };

void die(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, zmq_strerror(errno));
    exit(1);
}

void *socket_open(const char *endpoint)
{
    void *socket = zmq_socket(zmq_ctx_new(), ZMQ_DEALER);
    int unlimited = 0;
    if (socket == NULL || zmq_setsockopt(socket, ZMQ_SNDHWM, &unlimited, sizeof(unlimited)) != 0 ||
        zmq_setsockopt(socket, ZMQ_RCVHWM, &unlimited, sizeof(unlimited)) != 0 || zmq_connect(socket, endpoint) != 0) {
        die(endpoint);
    }
    return socket;
}

void socket_set_timeout(void *socket, int timeout_ms)
{
    if (zmq_setsockopt(socket, ZMQ_RCVTIMEO, &timeout_ms, sizeof(timeout_ms)) != 0) {
        die("timeout");
    }
}

void socket_send(void *socket, enum frame_kind kind, const ProtobufCMessage *envelope, bool more)
{
    static uint8_t buffer[ENVELOPE_BYTES_MAX];
    frame_write_header(kind, buffer);
    if (protobuf_c_message_get_packed_size(envelope) > sizeof(buffer) - FRAME_HEADER_BYTES) {
        errno = EMSGSIZE;
        die("envelope");
    }
    size_t bytes = FRAME_HEADER_BYTES + protobuf_c_message_pack(envelope, buffer + FRAME_HEADER_BYTES);
    if (zmq_send(socket, buffer, bytes, more ? ZMQ_SNDMORE : 0) < 0) {
        die("send");
    }
}

bool socket_receive(void *socket, int flags, struct received *ret_received)
{
    zmq_msg_init(&ret_received->head);
    ret_received->length = 0;
    if (zmq_msg_recv(&ret_received->head, socket, flags) < 0) {
        zmq_msg_close(&ret_received->head);
        return false;
    }
    bool more = zmq_msg_more(&ret_received->head);
    while (more) {
        if (ret_received->length == WIRE_ITEMS_MAX) {
            errno = EMSGSIZE;
            die("payloads");
        }
        zmq_msg_t *payload = &ret_received->payloads[ret_received->length++];
        zmq_msg_init(payload);
        zmq_msg_recv(payload, socket, 0);
        more = zmq_msg_more(payload);
    }
    return true;
}

void received_release(struct received *received)
{
    zmq_msg_close(&received->head);
    for (size_t i = 0; i < received->length; i++) {
        zmq_msg_close(&received->payloads[i]);
    }
}

const uint8_t *received_envelope(struct received *received, size_t *ret_bytes)
{
    *ret_bytes = zmq_msg_size(&received->head) - FRAME_HEADER_BYTES;
    return (const uint8_t *)zmq_msg_data(&received->head) + FRAME_HEADER_BYTES;
}
