#include "broker/core/pace.h"
#include <math.h>

enum {
    LOWER_EVERY_MS = 1000,
    GROWTH_DOUBLES_MS = 5000,
    LIMIT_FORGOTTEN_MS = 60000,
    HELD_BACK_LATE_MS =
        1000, /* after the time a call was told to wait for, it counts as held back so long */
    HELD_BACK_FORGOTTEN_MS = 5000,
    BURST_MS = 50, /* of the rate may go at once */
};
static const double GROWTH_FIRST = 0.01; /* a second, right after a limit */
static const double GROWTH_SLOW = 0.25;  /* a second, beyond what flowed before */
static const double LOWERED_TO = 0.97; /* of what was answered: what waits at the provider drains */
static const double LOWERED_LEAST = 0.7; /* of the rate, at one time */
static const double PER_S_LEAST = 0.2;
static const double PER_S_MOST = 1e6;

void pace_init(struct pace *pace)
{
    *pace = (struct pace){.is_free = true,
                          .limited_at_ms = INT64_MIN,
                          .lowered_at_ms = INT64_MIN,
                          .held_back_until_ms = INT64_MIN};
}

static bool is_within(int64_t at_ms, int64_t span_ms, int64_t now_ms)
{
    return at_ms != INT64_MIN && now_ms - at_ms < span_ms;
}

static double growth_per_s(const struct pace *pace, int64_t now_ms)
{
    const double most =
        pace->before_per_s > 0 && pace->per_s >= pace->before_per_s ? GROWTH_SLOW : 1.0;
    if (pace->limited_at_ms == INT64_MIN) {
        return most;
    }
    const double doublings = (double)(now_ms - pace->limited_at_ms) / GROWTH_DOUBLES_MS;
    const double growth = GROWTH_FIRST * exp2(doublings < 30 ? doublings : 30);
    return growth < most ? growth : most;
}

static double burst(const struct pace *pace)
{
    const double calls = pace->per_s * BURST_MS / 1000.0;
    return calls > 1.0 ? calls : 1.0;
}

static void advance(struct pace *pace, int64_t now_ms)
{
    if (pace->is_free || now_ms <= pace->at_ms) {
        return;
    }
    const double seconds = (double)(now_ms - pace->at_ms) / 1000.0;
    pace->level += pace->per_s * seconds;
    pace->level = pace->level > burst(pace) ? burst(pace) : pace->level;
    /* A rate that holds nothing back says nothing about what could be taken: it does not grow. */
    if (pace->held_back_until_ms != INT64_MIN &&
        now_ms - pace->held_back_until_ms < HELD_BACK_LATE_MS) {
        pace->per_s *= 1.0 + growth_per_s(pace, now_ms) * (seconds < 5.0 ? seconds : 5.0);
    }
    pace->per_s = pace->per_s < PER_S_MOST ? pace->per_s : PER_S_MOST;
    pace->at_ms = now_ms;
    const bool is_quiet = !is_within(pace->limited_at_ms, LIMIT_FORGOTTEN_MS, now_ms) &&
                          !is_within(pace->held_back_until_ms, HELD_BACK_FORGOTTEN_MS, now_ms) &&
                          !is_within(pace->began_at_ms, HELD_BACK_FORGOTTEN_MS, now_ms);
    pace->is_free = is_quiet;
}

static void begin(struct pace *pace, double per_s, int64_t now_ms)
{
    pace->is_free = false;
    pace->per_s = per_s > PER_S_LEAST ? per_s : PER_S_LEAST;
    pace->level = pace->level > 1.0 ? 1.0 : pace->level;
    pace->at_ms = now_ms;
    pace->began_at_ms = now_ms;
}

void pace_start_slowly(struct pace *pace, double per_s, int64_t now_ms)
{
    begin(pace, per_s, now_ms);
}

int64_t pace_wait_ms(struct pace *pace, int64_t now_ms)
{
    advance(pace, now_ms);
    if (pace->is_free || pace->level >= 1.0) {
        return 0;
    }
    const int64_t wait_ms = (int64_t)ceil((1.0 - pace->level) * 1000.0 / pace->per_s);
    pace->held_back_until_ms = now_ms + wait_ms;
    return wait_ms;
}

void pace_take(struct pace *pace, int calls, int64_t now_ms)
{
    advance(pace, now_ms);
    if (!pace->is_free) {
        pace->level -= calls;
    }
}

void pace_answered(struct pace *pace, int64_t now_ms)
{
    const int64_t number = now_ms / PACE_SLICE_MS;
    const int at = (int)(number % PACE_SLICES);
    if (pace->slices[at].number != number) {
        pace->slices[at].number = number;
        pace->slices[at].answered = 0;
    }
    pace->slices[at].answered++;
}

double pace_answered_per_s(const struct pace *pace, int64_t now_ms)
{
    const int64_t number = now_ms / PACE_SLICE_MS;
    const int64_t oldest = number - (PACE_SLICES - 1);
    uint64_t answered = 0;
    for (int i = 0; i < PACE_SLICES; i++) {
        answered += pace->slices[i].number >= oldest ? pace->slices[i].answered : 0;
    }
    const int64_t span_ms = now_ms - oldest * PACE_SLICE_MS + 1;
    return (double)answered * 1000.0 / (double)span_ms;
}

void pace_limited(struct pace *pace, double unknown_per_s, int64_t now_ms)
{
    advance(pace, now_ms);
    pace->limited_at_ms = now_ms;
    if (is_within(pace->lowered_at_ms, LOWER_EVERY_MS, now_ms)) {
        return; /* of the same moment: they were all called before the rate was lowered */
    }
    pace->lowered_at_ms = now_ms;
    const double answered = LOWERED_TO * pace_answered_per_s(pace, now_ms);
    if (pace->is_free) {
        begin(pace, answered > unknown_per_s ? answered : unknown_per_s, now_ms);
        return;
    }
    const double least = LOWERED_LEAST * pace->per_s;
    const double lower = answered > least ? answered : least;
    begin(pace, lower < pace->per_s ? lower : pace->per_s, now_ms);
}

void pace_stopped(struct pace *pace, int64_t now_ms)
{
    const double answered = pace_answered_per_s(pace, now_ms);
    pace->before_per_s = answered > pace->before_per_s ? answered : pace->before_per_s;
}
