#include "tests/modelsim/latency.h"

static double dice(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* Knuth's MMIX */
    return (double)(*state >> 11) / 9007199254740992.0;
}

struct latency_plan latency_plan(struct latency *latency, uint64_t in_flight, double factor)
{
    double scale = factor;
    if (latency->jitter_percent > 0) {
        scale *= 1 + (2 * dice(&latency->random) - 1) * latency->jitter_percent / 100;
    }
    if (latency->slots > 0 && (double)in_flight > latency->slots) {
        scale *= (double)in_flight / latency->slots;
    }
    return (struct latency_plan){
        .first_us = (int64_t)(latency->first_token_ms * 1000 * scale),
        .token_us = latency->tokens_per_s > 0 ? 1e6 / latency->tokens_per_s * scale : 0,
    };
}
