/*
 * history: what happened in each of the last ten minutes' seconds, as the provider saw it, so that
 * a drill can plot attempts a second. Seconds of wall time; each is counted once it has begun.
 */
#pragma once
#include <jansson.h>
#include <stdint.h>

enum { HISTORY_SECONDS = 600 };

struct history_second {
    uint64_t requests;   /* that arrived */
    uint64_t answered;   /* that ended with their whole answer */
    uint64_t limited;    /* that ended with 429, 498 or 529 */
    uint64_t failed;     /* that ended in any other way */
    uint64_t concurrent; /* in flight at most */
};

struct history {
    struct history_second seconds[HISTORY_SECONDS]; /* a ring by Unix second */
    int64_t first_s, last_s;                        /* Unix seconds it holds; 0: none */
};

/* The second that it is; those that passed in silence are there too. */
struct history_second *history_at(struct history *history, int64_t now_unix_ms, uint64_t in_flight);
/* A list of {"t_ms": the second's beginning, …}, the oldest first. NULL: out of memory. */
json_t *history_describe(struct history *history, int64_t now_unix_ms, uint64_t in_flight);
