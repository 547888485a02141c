#include "client/throttle.h"
#include <math.h>

static void fade(struct throttle *throttle, int64_t now_ms)
{
    const int64_t elapsed_ms = now_ms - throttle->at_ms;
    if (elapsed_ms > 0) {
        const double stays = exp(-(double)elapsed_ms / THROTTLE_FADE_MS);
        throttle->requests *= stays;
        throttle->accepts *= stays;
        throttle->at_ms = now_ms;
    }
}

void throttle_note_request(struct throttle *throttle, int64_t now_ms)
{
    fade(throttle, now_ms);
    throttle->requests += 1.0;
}

void throttle_note_accept(struct throttle *throttle, int64_t now_ms)
{
    fade(throttle, now_ms);
    throttle->accepts += 1.0;
}

uint32_t throttle_share(struct throttle *throttle, int64_t now_ms)
{
    fade(throttle, now_ms);
    const double beyond =
        throttle->requests - THROTTLE_ACCEPTS_FACTOR * throttle->accepts - THROTTLE_FREE;
    const double share = beyond / (throttle->requests + 1.0);
    return share > 0.0 ? (uint32_t)(share * THROTTLE_ALL) : 0;
}
