/*
 * lately: what was asked or told of an entry a short while ago, so that not every hit does it again.
 *
 * A table of LATELY_SLOTS: another entry in the same slot, or LATELY_MS, make it forget. Whoever asks twice must do no harm by it.
 * Pure; belongs to the loop.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LATELY_SLOTS = 4096, LATELY_MS = 60000, LATELY_KEY_BYTES = 16 };

struct lately {
    struct {
        uint8_t key[LATELY_KEY_BYTES];
        uint64_t what;
        int64_t until_ms; /* monotonic; 0: empty */
    } slots[LATELY_SLOTS];
};

/* Whether this was said of the entry within LATELY_MS. `what`: any number that tells apart what can
 * be said of it. */
bool lately_said(const struct lately *lately, const uint8_t key[LATELY_KEY_BYTES], uint64_t what,
                 int64_t now_ms);
/* Now it is: not before it was, so that what could not be said is said the next time. */
void lately_note(struct lately *lately, const uint8_t key[LATELY_KEY_BYTES], uint64_t what,
                 int64_t now_ms);
