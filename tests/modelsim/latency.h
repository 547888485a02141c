/*
 * latency: how long the simulated server takes: time to first token, tokens a second, jitter, and a slowdown when more
 * requests are in flight than it has slots for, as a server with one batch has.
 */
#pragma once
#include <stdint.h>

struct latency {
    double first_token_ms;   /* 0: at once */
    double tokens_per_s;     /* 0: all at once */
    double jitter_percent;   /* each request is faster or slower by up to so much, evenly */
    double slots;            /* 0: any number is served at full speed; else time grows as in_flight / slots */
    uint64_t random;         /* state of the dice */
};

/* The plan for one request: its first token comes after first_us, each further one after_us later. */
struct latency_plan {
    int64_t first_us;
    double token_us;
};

struct latency_plan latency_plan(struct latency *latency, uint64_t in_flight, double factor);
