/*
 * throttle: what somebody may ask for at a rate, and a burst of it at once.
 *
 * One number: until when what was taken will have been paid for (the generic cell rate algorithm,
 * ITU-T I.371). Zeros: all of the burst is there. Pure; times in monotonic milliseconds.
 */
#pragma once
#include <stdint.h>

struct throttle {
    int64_t paid_until_ms;
};

/* Takes one, if there is one: 0. Otherwise for how long there will be none. */
static inline int64_t throttle_take(struct throttle *throttle, int64_t each_ms, int64_t burst,
                                    int64_t now_ms)
{
    const int64_t from_ms = throttle->paid_until_ms > now_ms ? throttle->paid_until_ms : now_ms;
    const int64_t wait_ms = from_ms + each_ms - (now_ms + burst * each_ms);
    if (wait_ms > 0) {
        return wait_ms;
    }
    throttle->paid_until_ms = from_ms + each_ms;
    return 0;
}
