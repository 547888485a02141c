#include "worker/cache/lately.h"

#include <string.h>

bool lately_said(struct lately *lately, const uint8_t key[LATELY_KEY_BYTES], uint64_t what, int64_t now_ms)
{
    uint64_t mixed;
    memcpy(&mixed, key, sizeof(mixed)); /* keys are hashes */
    const size_t slot = (size_t)((mixed ^ what) % LATELY_SLOTS);
    if (lately->slots[slot].until_ms > now_ms && lately->slots[slot].what == what &&
        memcmp(lately->slots[slot].key, key, LATELY_KEY_BYTES) == 0) {
        return true;
    }
    memcpy(lately->slots[slot].key, key, LATELY_KEY_BYTES);
    lately->slots[slot].what = what;
    lately->slots[slot].until_ms = now_ms + LATELY_MS;
    return false;
}
