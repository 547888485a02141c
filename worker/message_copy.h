/*
 * message_copy: a protobuf message that outlives the one it was made from.
 */
#pragma once
#include <protobuf-c/protobuf-c.h>
#include <stdint.h>
#include <stdlib.h>
#include "common/attributes.h"

/* By its packed form: the one way to copy all of a message. To be freed with its free_unpacked(). NULL: no memory. */
MUST_USE static inline void *message_copy(const ProtobufCMessage *message)
{
    const size_t bytes = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = malloc(bytes + 1);
    if (packed == NULL) {
        return NULL;
    }
    (void)protobuf_c_message_pack(message, packed);
    ProtobufCMessage *copy = protobuf_c_message_unpack(message->descriptor, NULL, bytes, packed);
    free(packed);
    return copy;
}
