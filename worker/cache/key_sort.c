#include "worker/cache/key_sort.h"

#include <string.h>

enum { BYTE_VALUES = 256, KEY_BITS = 64 };

/* Where the keys of each value of the byte begin. */
static void find_places(const uint64_t *keys, size_t length, unsigned int shift,
                        uint32_t ret_places[BYTE_VALUES])
{
    memset(ret_places, 0, BYTE_VALUES * sizeof(*ret_places));
    for (size_t i = 0; i < length; i++) {
        ret_places[keys[i] >> shift & 0xFF]++;
    }
    uint32_t before = 0;
    for (size_t value = 0; value < BYTE_VALUES; value++) {
        const uint32_t count = ret_places[value];
        ret_places[value] = before;
        before += count;
    }
}

void key_sort(uint64_t *keys, uint64_t *scratch, size_t length)
{
    uint32_t places[BYTE_VALUES];
    uint64_t differing = 0;
    for (size_t i = 1; i < length; i++) {
        differing |= keys[i] ^ keys[0];
    }
    uint64_t *from = keys;
    uint64_t *into = scratch;
    for (unsigned int shift = 0; shift < KEY_BITS; shift += 8) {
        if ((differing >> shift & 0xFF) == 0) {
            continue;
        }
        find_places(from, length, shift, places);
        for (size_t i = 0; i < length; i++) {
            into[places[from[i] >> shift & 0xFF]++] = from[i];
        }
        uint64_t *const swapped = from;
        from = into;
        into = swapped;
    }
    if (from != keys && length > 0) {
        memcpy(keys, from, length * sizeof(*keys));
    }
}
