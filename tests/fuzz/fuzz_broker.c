/*
 * Messages to a whole broker, whoever sends them: it lives on, and each answer is an envelope that
 * can be read and owns as many payloads as it says.
 *
 * The input is a list of messages: a byte of flags (side, sender, whether the right header is put
 * in front, whether answers can be sent, whether the turn ends), a byte with the number of parts,
 * then each part behind its length in two bytes. Links are the functions below instead of sockets.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "broker/broker.h"
#include "broker/clients.h"
#include "broker/workers.h"
#include "common/blob.h"
#include "common/config.h"
#include "common/frame.h"
#include "common/link.h"
#include "common/log.h"
#include "common/loop.h"
#include "tests/fuzz/fuzz.h"

enum {
    FLAG_WORKER = 1,
    FLAG_SENDER = 6, /* one of four */
    FLAG_HEADER = 8,
    FLAG_CHUNK = 16,
    FLAG_FULL = 32, /* answers cannot be sent */
    FLAG_TURN = 64,
    PARTS_MAX = 8,
};

/* ---- links ---- */

struct part {
    uint8_t *data;
    size_t bytes;
};

struct link_message {
    struct part parts[PARTS_MAX];
    size_t length;
};

struct link {
    enum link_kind kind;
};

static bool is_full;

int link_create(struct loop *loop, void *zmq_context, const struct link_options *options,
                link_fn *handler, void *context, struct link **ret_link)
{
    (void)loop, (void)zmq_context, (void)handler, (void)context;
    *ret_link = malloc(sizeof(**ret_link));
    must_hold(*ret_link != NULL);
    (*ret_link)->kind = options->kind;
    return 0;
}

void link_destroy(struct link **link)
{
    free(*link);
    *link = NULL;
}

const char *link_endpoint(const struct link *link)
{
    (void)link;
    return "";
}

size_t link_message_parts(const struct link_message *message)
{
    return message->length;
}

const void *link_message_part(const struct link_message *message, size_t index, size_t *ret_bytes)
{
    const bool is_there = index < message->length;
    *ret_bytes = is_there ? message->parts[index].bytes : 0;
    return is_there ? message->parts[index].data : NULL;
}

int link_take_blob(struct link_message *message, size_t index, struct blob **ret_blob)
{
    must_hold(index < message->length);
    return blob_create(message->parts[index].data, message->parts[index].bytes, ret_blob);
}

static size_t count_client_payloads(const uint8_t *data, size_t bytes)
{
    Wire__BrokerToClient *envelope = wire__broker_to_client__unpack(NULL, bytes, data);
    must_hold(envelope != NULL);
    size_t n = 0;
    for (size_t i = 0; i < envelope->n_result; i++) {
        n += envelope->result[i]->has_payload ? 1 : 0;
    }
    wire__broker_to_client__free_unpacked(envelope, NULL);
    return n;
}

static size_t count_worker_payloads(const uint8_t *data, size_t bytes)
{
    Wire__BrokerToWorker *envelope = wire__broker_to_worker__unpack(NULL, bytes, data);
    must_hold(envelope != NULL);
    size_t n = 0;
    for (size_t i = 0; i < envelope->n_dispatch; i++) {
        n += envelope->dispatch[i]->has_payload ? 1 : 0;
    }
    wire__broker_to_worker__free_unpacked(envelope, NULL);
    return n;
}

int link_send(struct link *link, const void *peer, size_t peer_bytes, const void *head,
              size_t head_bytes, struct blob *const *payloads, size_t payloads_length)
{
    (void)peer, (void)payloads;
    must_hold((link->kind == LINK_ROUTER) == (peer_bytes > 0));
    enum frame_kind kind;
    uint8_t version;
    must_hold(frame_read_header(head, head_bytes, &kind, &version) == 0);
    const uint8_t *envelope = (const uint8_t *)head + FRAME_HEADER_BYTES;
    const size_t bytes = head_bytes - FRAME_HEADER_BYTES;
    if (kind == FRAME_BROKER_TO_CLIENT) {
        must_hold(count_client_payloads(envelope, bytes) == payloads_length);
    } else if (kind == FRAME_BROKER_TO_WORKER) {
        must_hold(count_worker_payloads(envelope, bytes) == payloads_length);
    } else {
        must_hold(kind == FRAME_CHUNK || kind == FRAME_EVENT);
    }
    return is_full && kind != FRAME_EVENT ? -EAGAIN : 0;
}

/* ---- messages ---- */

struct input {
    const uint8_t *data;
    size_t bytes;
};

static uint8_t take_byte(struct input *input)
{
    if (input->bytes == 0) {
        return 0;
    }
    input->bytes--;
    return *input->data++;
}

/* A part of its own allocation, so that a read beyond its end is seen. */
static struct part take_part(struct input *input, const uint8_t *header, size_t header_bytes)
{
    size_t bytes = (size_t)take_byte(input) << 8;
    bytes |= take_byte(input);
    bytes = bytes < input->bytes ? bytes : input->bytes;
    struct part part = {.data = malloc(header_bytes + bytes), .bytes = header_bytes + bytes};
    must_hold(part.data != NULL);
    memcpy(part.data, header, header_bytes);
    memcpy(part.data + header_bytes, input->data, bytes);
    input->data += bytes;
    input->bytes -= bytes;
    return part;
}

static void take_parts(struct input *input, uint8_t flags, struct link_message *ret_message)
{
    uint8_t header[FRAME_HEADER_BYTES];
    frame_write_header((flags & FLAG_CHUNK) != 0    ? FRAME_CHUNK
                       : (flags & FLAG_WORKER) != 0 ? FRAME_WORKER_TO_BROKER
                                                    : FRAME_CLIENT_TO_BROKER,
                       header);
    const size_t header_bytes = (flags & FLAG_HEADER) != 0 ? sizeof(header) : 0;
    ret_message->length = take_byte(input) % (PARTS_MAX + 1);
    for (size_t i = 0; i < ret_message->length; i++) {
        ret_message->parts[i] = take_part(input, header, i == 0 ? header_bytes : 0);
    }
}

static void send_one(struct broker *broker, struct input *input)
{
    const uint8_t flags = take_byte(input);
    const uint8_t sender = flags & FLAG_SENDER;
    struct link_message message;
    take_parts(input, flags, &message);
    is_full = (flags & FLAG_FULL) != 0;
    if ((flags & FLAG_WORKER) != 0) {
        workers_receive(broker, &sender, 1, &message);
    } else {
        clients_receive(broker, &sender, 1, &message);
    }
    for (size_t i = 0; i < message.length; i++) {
        free(message.parts[i].data);
    }
    if ((flags & FLAG_TURN) != 0) {
        must_hold(loop_turn(broker->loop, 0) == 0);
    }
}

/* ---- the broker ---- */

static struct config *read_config(void)
{
    static const char text[] = "broker: {store: memory, admin: \"127.0.0.1:0\"}";
    struct config *config = NULL;
    struct config_errors errors = {0};
    must_hold(config_read_text(text, sizeof(text) - 1, "fuzz", &config, &errors) == 0);
    config_errors_finish(&errors);
    return config;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct config *config = read_config();
    struct log *log = NULL;
    struct broker *broker = NULL;
    const int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
    must_hold(log_create("fuzz", LOG_DEBUG, quiet, &log) == 0);
    must_hold(broker_create(&config, NULL, false, log, &broker) == EXIT_OK);
    struct input input = {.data = data, .bytes = bytes};
    while (input.bytes > 0) {
        send_one(broker, &input);
    }
    is_full = false;
    must_hold(loop_turn(broker->loop, 0) == 0);
    must_hold(loop_turn(broker->loop, 0) == 0);
    broker_destroy(&broker);
    log_destroy(&log);
    (void)close(quiet);
    return 0;
}
