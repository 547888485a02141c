#include "broker/core/drain_rate.h"
#include <math.h>

enum {
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

/* A mean over the time measured, or over SMOOTHING_MS once that is longer. */
static void measure_busy(struct drain_rate *rate, double sample_per_s, int64_t elapsed_ms,
                         int64_t now_ms)
{
    if (!is_busy_known(rate, now_ms - elapsed_ms)) {
        rate->busy_ms = 0;
    }
    rate->busy_ms += elapsed_ms;
    const double of_mean = (double)elapsed_ms / (double)rate->busy_ms;
    const double of_smoothing = 1.0 - exp(-(double)elapsed_ms / SMOOTHING_MS);
    const double share = of_mean > of_smoothing ? of_mean : of_smoothing; /* 1: nothing before */
    rate->dispatches_per_s += (sample_per_s - rate->dispatches_per_s) * share;
    rate->busy_at_ms = now_ms;
}

void drain_rate_update(struct drain_rate *rate, bool is_backlogged, int64_t now_ms)
{
    rate->ran_empty |= !is_backlogged;
    const int64_t elapsed_ms = now_ms - rate->since_ms;
    if (elapsed_ms < DRAIN_RATE_SAMPLE_MS) {
        return;
    }
    const double seconds = (double)elapsed_ms / 1000.0;
    const double share = 1.0 - exp(-(double)elapsed_ms / SMOOTHING_MS);
    rate->conclusions_per_s +=
        ((double)rate->conclusions / seconds - rate->conclusions_per_s) * share;
    if (!rate->ran_empty) {
        measure_busy(rate, (double)rate->dispatches / seconds, elapsed_ms, now_ms);
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
