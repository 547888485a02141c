/*
 * latency: quantiles of how long an upstream's calls take, by the size of the prompt.
 *
 * For each class of sizes a histogram of LATENCY_BUCKETS buckets, each a quarter longer than the
 * one before it, from 1 ms on (to about 40 minutes). When a histogram has counted LATENCY_MEMORY
 * calls all its counts are halved, so that what was seen long ago fades. Pure.
 */
#pragma once
#include <stdint.h>

enum { LATENCY_SIZES = 4, LATENCY_BUCKETS = 66, LATENCY_MEMORY = 512 };

struct latency {
    struct latency_size {
        uint16_t counts[LATENCY_BUCKETS];
        uint16_t sum;
    } sizes[LATENCY_SIZES];
};

/* The class of a prompt of so many tokens: below 256, 2,048, 16,384, or more. */
uint32_t latency_size_of(uint32_t input_tokens);
void latency_add(struct latency *latency, uint32_t size, uint32_t ms);
/*
 * The quantile, `share` of 1, in ms: the upper end of its bucket, from the nearest size that has
 * been called 8 times. 0: none has.
 */
double latency_quantile_ms(const struct latency *latency, uint32_t size, double share);
