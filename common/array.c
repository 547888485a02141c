#include "common/array.h"
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int array_reserve(void *items, size_t *capacity, size_t length, size_t item_bytes, size_t first)
{
    if (length <= *capacity) {
        return 0;
    }
    size_t wanted = *capacity <= SIZE_MAX / 2 ? *capacity * 2 : SIZE_MAX;
    wanted = wanted > first ? wanted : first;
    wanted = wanted > length ? wanted : length;
    size_t bytes;
    if (__builtin_mul_overflow(wanted, item_bytes, &bytes)) {
        return -ENOMEM;
    }
    void *old;
    memcpy(&old, items, sizeof(old)); /* of whatever type the pointer is */
    void *grown = realloc(old, bytes);
    if (grown == NULL) {
        return -ENOMEM;
    }
    memcpy(items, &grown, sizeof(grown));
    *capacity = wanted;
    return 0;
}
