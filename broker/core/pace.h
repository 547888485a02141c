/*
 * pace: how many calls a second an upstream is given while it is not known what it can take: after it has been down, and
 * when it says "too many".
 *
 * Additive increase, multiplicative decrease on the rate, with three changes: a limit that is met lowers the rate to what was
 * answered just before (as BBR estimates the bottleneck), not by half, and at most once a second; the increase starts at 1 % a
 * second and doubles every five seconds without another limit, so that a limit is met seldom and a lifted one is
 * found soon; and without any limit in memory the rate doubles each second (slow start) up to what it was before, then grows by a
 * quarter. Free again when for a while it held nothing back and nothing was refused. Pure.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { PACE_SLICES = 4, PACE_SLICE_MS = 500 };

struct pace {
    bool is_free;             /* calls are not counted out */
    double per_s;             /* not free: the rate now */
    double before_per_s;      /* what flowed before it was down */
    double level;             /* calls that may go now */
    int64_t at_ms;            /* level and per_s are of then */
    int64_t limited_at_ms;    /* the last time it said "too many"; INT64_MIN never */
    int64_t lowered_at_ms;
    int64_t held_back_until_ms; /* until when it kept a call waiting the last time; INT64_MIN never */
    int64_t began_at_ms;      /* not free since */
    struct {
        int64_t number;
        uint32_t answered;
    } slices[PACE_SLICES];
};

void pace_init(struct pace *pace);
/* It is back: begin at `per_s`. */
void pace_start_slowly(struct pace *pace, double per_s, int64_t now_ms);
/* Milliseconds until a call may go; 0: now. */
int64_t pace_wait_ms(struct pace *pace, int64_t now_ms);
/* One call goes, or (-1) did not go after all. */
void pace_take(struct pace *pace, int calls, int64_t now_ms);
void pace_answered(struct pace *pace, int64_t now_ms);
/* It said "too many". `unknown_per_s`: where to begin at least, since what was answered so far may be little. */
void pace_limited(struct pace *pace, double unknown_per_s, int64_t now_ms);
/* It is down: remembers what flowed. */
void pace_stopped(struct pace *pace, int64_t now_ms);
/* Answers a second, over the last two seconds. */
double pace_answered_per_s(const struct pace *pace, int64_t now_ms);
