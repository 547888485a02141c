#include "broker/core/drain_rate.h"
#include <math.h>

enum {
    SAMPLE_MS = 250,
    SMOOTHING_MS = 5000,
    BUSY_FRESH_MS = 2000, /* an older measurement was made with other workers */
};

void drain_rate_init(struct drain_rate *rate, int64_t now_ms)
{
    *rate = (struct drain_rate){.since_ms = now_ms, .ran_empty = true, .busy_at_ms = INT64_MIN};
}

static bool is_busy_known(const struct drain_rate *rate, int64_t now_ms)
{
    return rate->busy_at_ms != INT64_MIN && now_ms - rate->busy_at_ms <= BUSY_FRESH_MS;
}

void drain_rate_update(struct drain_rate *rate, bool is_backlogged, int64_t now_ms)
{
    rate->ran_empty |= !is_backlogged;
    const int64_t elapsed_ms = now_ms - rate->since_ms;
    if (elapsed_ms < SAMPLE_MS) {
        return;
    }
    const double seconds = (double)elapsed_ms / 1000.0;
    const double share = 1.0 - exp(-(double)elapsed_ms / SMOOTHING_MS);
    rate->conclusions_per_s +=
        ((double)rate->conclusions / seconds - rate->conclusions_per_s) * share;
    if (!rate->ran_empty) {
        const double sample = (double)rate->dispatches / seconds;
        rate->dispatches_per_s =
            is_busy_known(rate, now_ms - elapsed_ms)
                ? rate->dispatches_per_s + (sample - rate->dispatches_per_s) * share
                : sample;
        rate->busy_at_ms = now_ms;
    }
    rate->since_ms = now_ms;
    rate->conclusions = 0;
    rate->dispatches = 0;
    rate->ran_empty = !is_backlogged;
}

int64_t drain_rate_wait_ms(const struct drain_rate *rate, uint64_t jobs_ahead, int64_t now_ms)
{
    if (!is_busy_known(rate, now_ms) || rate->dispatches_per_s <= 0.0) {
        return -1;
    }
    const double wait_ms = (double)jobs_ahead * 1000.0 / rate->dispatches_per_s;
    return wait_ms > 1e12 ? INT64_C(1000000000000) : (int64_t)wait_ms;
}
