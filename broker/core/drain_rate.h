/*
 * drain_rate: how fast a tier, or one of its queues, drains, smoothed over seconds.
 *
 * Two rates: conclusions a second, for operators and retry-after; and dispatches a second while jobs were waiting,
 * for the wait that a new job can expect. A queue without a backlog is dispatched as fast as it is submitted, which says nothing
 * about what it could take: so the second is measured only while the queue does not run empty and may be dispatched, and is
 * forgotten soon. Until it has been measured for as long as it is smoothed over it is the plain mean, so that what the first
 * sample happened to be does not stay in it for seconds.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { DRAIN_RATE_SAMPLE_MS = 250 };

struct drain_rate {
    int64_t since_ms;         /* of the counts below */
    uint64_t conclusions;
    uint64_t dispatches;
    bool ran_empty;           /* or could not be dispatched, since then */
    double conclusions_per_s;
    double dispatches_per_s;
    int64_t busy_at_ms;       /* when dispatches_per_s was last measured; INT64_MIN never */
    int64_t busy_ms;          /* for how long it has been measured without a break */
};

void drain_rate_init(struct drain_rate *rate, int64_t now_ms);
/* Takes the counts into the rates when enough time has passed. Called once a turn, or every DRAIN_RATE_SAMPLE_MS. */
void drain_rate_update(struct drain_rate *rate, bool is_backlogged, int64_t now_ms);
/* Expected time until `jobs_ahead` jobs are dispatched; -1: not known. */
int64_t drain_rate_wait_ms(const struct drain_rate *rate, uint64_t jobs_ahead, int64_t now_ms);
