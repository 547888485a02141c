#include "worker/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES_FIRST = 256 };

static int bytes_grow(struct bytes *bytes, size_t wanted)
{
    size_t capacity = bytes->capacity < BYTES_FIRST ? BYTES_FIRST : bytes->capacity;
    while (capacity < wanted) {
        capacity += capacity / 2;
    }
    char *data = realloc(bytes->data, capacity);
    if (data == NULL) {
        return -ENOMEM;
    }
    bytes->data = data;
    bytes->capacity = capacity;
    return 0;
}

int bytes_append(struct bytes *bytes, const void *data, size_t length)
{
    if (length > bytes->bytes_max || bytes->length > bytes->bytes_max - length) {
        return -EMSGSIZE;
    }
    const size_t wanted = bytes->length + length + 1;
    if (wanted > bytes->capacity) {
        int r = bytes_grow(bytes, wanted);
        if (r < 0) {
            return r;
        }
    }
    if (length > 0) {
        memcpy(bytes->data + bytes->length, data, length);
    }
    bytes->length += length;
    bytes->data[bytes->length] = '\0';
    return 0;
}

int bytes_append_text(struct bytes *bytes, const char *text)
{
    return bytes_append(bytes, text, strlen(text));
}

void bytes_clear(struct bytes *bytes)
{
    bytes->length = 0;
}

void bytes_finish(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){.bytes_max = bytes->bytes_max};
}
