#include "tests/fuzz/links.h"
#include <errno.h>
#include <string.h>
#include "proto/wire.pb-c.h"
#include "tests/fuzz/fuzz.h"

struct link {
    enum link_kind kind;
    link_fn *handler;
    void *context;
};

static struct link *links[LINKS_MAX]; /* those that are open, in the order of their opening */
static size_t links_length;
static bool links_are_full;

/* ---- common/link.h ---- */

int link_create(struct loop *loop, const struct link_options *options, link_fn *handler,
                void *context, struct link **ret_link)
{
    (void)loop;
    must_hold(links_length < LINKS_MAX);
    struct link *link = malloc(sizeof(*link));
    must_hold(link != NULL);
    *link = (struct link){.kind = options->kind, .handler = handler, .context = context};
    links[links_length++] = link;
    *ret_link = link;
    return 0;
}

void link_destroy(struct link **link)
{
    size_t kept = 0;
    for (size_t i = 0; i < links_length; i++) {
        if (links[i] != *link) {
            links[kept++] = links[i];
        }
    }
    links_length = kept;
    free(*link);
    *link = NULL;
}

void link_forgo_linger(struct link *link)
{
    (void)link;
}

bool link_is_looking_up(const struct link *link)
{
    (void)link;
    return false;
}

uint64_t link_bytes(const struct link *link)
{
    (void)link;
    return 0;
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
    return index < message->length
               ? blob_create(message->parts[index].data, message->parts[index].bytes, ret_blob)
               : -EINVAL;
}

/* Each item of a kind of envelope that owns payloads, by the same few lines. */
#define COUNT_PAYLOADS(name, type, items)                                                          \
    static size_t name(const uint8_t *data, size_t bytes)                                          \
    {                                                                                              \
        type *envelope = (type *)protobuf_c_message_unpack(name##_descriptor, NULL, bytes, data);  \
        must_hold(envelope != NULL);                                                               \
        size_t n = 0;                                                                              \
        for (size_t i = 0; i < envelope->n_##items; i++) {                                         \
            n += envelope->items[i]->has_payload ? 1 : 0;                                          \
        }                                                                                          \
        protobuf_c_message_free_unpacked(&envelope->base, NULL);                                   \
        return n;                                                                                  \
    }

static const ProtobufCMessageDescriptor *const to_client_descriptor =
    &wire__broker_to_client__descriptor;
static const ProtobufCMessageDescriptor *const to_worker_descriptor =
    &wire__broker_to_worker__descriptor;
static const ProtobufCMessageDescriptor *const from_worker_descriptor =
    &wire__worker_message__descriptor;
COUNT_PAYLOADS(to_client, Wire__BrokerToClient, result)
COUNT_PAYLOADS(to_worker, Wire__BrokerToWorker, dispatch)
COUNT_PAYLOADS(from_worker, Wire__WorkerMessage, result)

/* Each submission has one. */
static size_t from_client(const uint8_t *data, size_t bytes)
{
    Wire__ClientMessage *envelope = wire__client_message__unpack(NULL, bytes, data);
    must_hold(envelope != NULL);
    const size_t n = envelope->n_submit;
    wire__client_message__free_unpacked(envelope, NULL);
    return n;
}

static void check_event(const uint8_t *data, size_t bytes)
{
    Wire__Event *event = wire__event__unpack(NULL, bytes, data);
    must_hold(event != NULL);
    wire__event__free_unpacked(event, NULL);
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
    switch (kind) {
    case FRAME_CLIENT_TO_BROKER:
        must_hold(from_client(envelope, bytes) == payloads_length);
        break;
    case FRAME_BROKER_TO_CLIENT:
        must_hold(to_client(envelope, bytes) == payloads_length);
        break;
    case FRAME_WORKER_TO_BROKER:
        must_hold(from_worker(envelope, bytes) == payloads_length);
        break;
    case FRAME_BROKER_TO_WORKER:
        must_hold(to_worker(envelope, bytes) == payloads_length);
        break;
    case FRAME_CHUNK:
        must_hold(payloads_length <= 1);
        break;
    case FRAME_EVENT:
        check_event(envelope, bytes);
        return 0;
    }
    return links_are_full ? -EAGAIN : 0;
}

/* ---- messages ---- */

uint8_t input_byte(struct input *input)
{
    if (input->bytes == 0) {
        return 0;
    }
    input->bytes--;
    return *input->data++;
}

static struct link_part take_part(struct input *input, const uint8_t *header, size_t header_bytes)
{
    size_t bytes = (size_t)input_byte(input) << 8;
    bytes |= input_byte(input);
    bytes = bytes < input->bytes ? bytes : input->bytes;
    struct link_part part = {.data = malloc(header_bytes + bytes), .bytes = header_bytes + bytes};
    must_hold(part.data != NULL);
    memcpy(part.data, header, header_bytes);
    if (bytes > 0) {
        memcpy(part.data + header_bytes, input->data, bytes);
    }
    input->data += bytes;
    input->bytes -= bytes;
    return part;
}

void links_take_message(struct input *input, enum frame_kind kind, bool has_header,
                        struct link_message *ret_message)
{
    uint8_t header[FRAME_HEADER_BYTES];
    frame_write_header(kind, header);
    ret_message->length = input_byte(input) % (LINKS_PARTS_MAX + 1);
    for (size_t i = 0; i < ret_message->length; i++) {
        ret_message->parts[i] =
            take_part(input, header, i == 0 && has_header ? sizeof(header) : 0);
    }
}

void links_message_finish(struct link_message *message)
{
    for (size_t i = 0; i < message->length; i++) {
        free(message->parts[i].data);
    }
    message->length = 0;
}

void links_deliver(enum link_kind kind, struct link_message *message)
{
    for (size_t i = links_length; i-- > 0;) {
        if (links[i]->kind == kind) {
            links[i]->handler(links[i]->context, "", 0, message);
            return;
        }
    }
}

void links_set_full(bool is_full)
{
    links_are_full = is_full;
}
