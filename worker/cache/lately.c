#include "worker/cache/lately.h"

#include <string.h>

static size_t slot_of(const uint8_t key[LATELY_KEY_BYTES], uint64_t what)
{
    uint64_t mixed;
    memcpy(&mixed, key, sizeof(mixed)); /* keys are hashes */
    return (size_t)((mixed ^ what) % LATELY_SLOTS);
}

bool lately_said(const struct lately *lately, const uint8_t key[LATELY_KEY_BYTES], uint64_t what,
                 int64_t now_ms)
{
    const size_t slot = slot_of(key, what);
    return lately->slots[slot].until_ms > now_ms && lately->slots[slot].what == what &&
           memcmp(lately->slots[slot].key, key, LATELY_KEY_BYTES) == 0;
}

void lately_note(struct lately *lately, const uint8_t key[LATELY_KEY_BYTES], uint64_t what,
                 int64_t now_ms)
{
    const size_t slot = slot_of(key, what);
    memcpy(lately->slots[slot].key, key, LATELY_KEY_BYTES);
    lately->slots[slot].what = what;
    lately->slots[slot].until_ms = now_ms + LATELY_MS;
}
