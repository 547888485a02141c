/*
 * drain_rate: how fast a tier's queue drains, smoothed over seconds.
 *
 * Two rates: conclusions a second, for operators and retry-after; and dispatches a second while jobs were waiting,
 * for the wait that a new job can expect. A tier without a backlog is dispatched as fast as it is submitted, which says nothing
 * about what it could take: so the second is measured only while the queue does not run empty, and is forgotten soon.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct drain_rate {
    int64_t since_ms;         /* of the counts below */
    uint64_t conclusions;
    uint64_t dispatches;
    bool ran_empty;
    double conclusions_per_s;
    double dispatches_per_s;
    int64_t busy_at_ms;       /* when dispatches_per_s was last measured; INT64_MIN never */
};

void drain_rate_init(struct drain_rate *rate, int64_t now_ms);
/* Takes the counts into the rates when enough time has passed. Called once a turn. */
void drain_rate_update(struct drain_rate *rate, bool is_backlogged, int64_t now_ms);
/* Expected time until `jobs_ahead` jobs are dispatched; -1: not known. */
int64_t drain_rate_wait_ms(const struct drain_rate *rate, uint64_t jobs_ahead, int64_t now_ms);
