/* Part 0 of a message between processes: header, chunk header, and every envelope, decoded as
 * broker, worker and client do. */
#include <string.h>
#include "common/arena.h"
#include "common/frame.h"
#include "proto/wire.pb-c.h"
#include "tests/fuzz/fuzz.h"

enum { ARENA_BYTES_MAX = 32 << 20 };

static const ProtobufCMessageDescriptor *envelope_of(enum frame_kind kind)
{
    switch (kind) {
    case FRAME_CLIENT_TO_BROKER:
        return &wire__client_message__descriptor;
    case FRAME_BROKER_TO_CLIENT:
        return &wire__broker_to_client__descriptor;
    case FRAME_WORKER_TO_BROKER:
        return &wire__worker_message__descriptor;
    case FRAME_BROKER_TO_WORKER:
        return &wire__broker_to_worker__descriptor;
    case FRAME_EVENT:
        return &wire__event__descriptor;
    case FRAME_CHUNK:
        break;
    }
    return NULL;
}

/* What was understood can be said again, and is understood the same. */
static void read_twice(const ProtobufCMessageDescriptor *descriptor, struct arena *arena,
                       const uint8_t *data, size_t bytes)
{
    ProtobufCAllocator *allocator = arena_protobuf_allocator(arena);
    const ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, allocator, bytes, data);
    if (message == NULL) {
        return;
    }
    const size_t packed_bytes = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = malloc(packed_bytes + 1);
    must_hold(packed != NULL);
    must_hold(protobuf_c_message_pack(message, packed) == packed_bytes);
    const ProtobufCMessage *again =
        protobuf_c_message_unpack(descriptor, allocator, packed_bytes, packed);
    if (again != NULL) { /* NULL: the arena is full */
        must_hold(protobuf_c_message_get_packed_size(again) == packed_bytes);
    }
    free(packed);
}

static void read_chunk(const uint8_t *data, size_t bytes)
{
    struct frame_chunk chunk;
    uint8_t again[FRAME_CHUNK_BYTES];
    if (frame_read_chunk(data, bytes, &chunk) == 0) {
        frame_write_chunk(&chunk, again);
        must_hold(bytes == sizeof(again) && memcmp(again, data, sizeof(again)) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    enum frame_kind kind;
    uint8_t version;
    if (frame_read_header(data, bytes, &kind, &version) < 0) {
        return 0;
    }
    if (kind == FRAME_CHUNK) {
        read_chunk(data, bytes);
        return 0;
    }
    const ProtobufCMessageDescriptor *descriptor = envelope_of(kind);
    struct arena *arena;
    if (descriptor == NULL || arena_create(ARENA_BYTES_MAX, &arena) < 0) {
        return 0;
    }
    read_twice(descriptor, arena, data + FRAME_HEADER_BYTES, bytes - FRAME_HEADER_BYTES);
    arena_destroy(&arena);
    return 0;
}
