#include "broker/core/latency.h"

#include <math.h>
#include <stdlib.h>

enum { SMALL_TOKENS = 256, SIZE_FACTOR = 8, KNOWN_FROM = 8 };
static const double GROWTH = 1.25;

uint32_t latency_size_of(uint32_t input_tokens)
{
    uint32_t size = 0;
    for (uint64_t end = SMALL_TOKENS; size + 1 < LATENCY_SIZES && input_tokens >= end; size++) {
        end *= SIZE_FACTOR;
    }
    return size;
}

static uint32_t bucket_of(uint32_t ms)
{
    if (ms <= 1) {
        return 0;
    }
    const double at = ceil(log((double)ms) / log(GROWTH));
    return at < LATENCY_BUCKETS - 1 ? (uint32_t)at : LATENCY_BUCKETS - 1;
}

static void fade(struct latency_size *size)
{
    size->sum = 0;
    for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
        size->counts[i] /= 2;
        size->sum = (uint16_t)(size->sum + size->counts[i]);
    }
}

void latency_add(struct latency *latency, uint32_t size, uint32_t ms)
{
    struct latency_size *of_size = &latency->sizes[size];
    of_size->counts[bucket_of(ms)]++;
    of_size->sum++;
    if (of_size->sum >= LATENCY_MEMORY) {
        fade(of_size);
    }
}

/* The nearest class that is known; NULL: none is. */
static const struct latency_size *known_near(const struct latency *latency, uint32_t size)
{
    for (uint32_t away = 0; away < LATENCY_SIZES; away++) {
        if (size >= away && latency->sizes[size - away].sum >= KNOWN_FROM) {
            return &latency->sizes[size - away];
        }
        if (size + away < LATENCY_SIZES && latency->sizes[size + away].sum >= KNOWN_FROM) {
            return &latency->sizes[size + away];
        }
    }
    return NULL;
}

double latency_quantile_ms(const struct latency *latency, uint32_t size, double share)
{
    const struct latency_size *known = known_near(latency, size);
    if (known == NULL) {
        return 0;
    }
    const double wanted = share * known->sum;
    double seen = 0;
    uint32_t i = 0;
    for (; i < LATENCY_BUCKETS - 1; i++) {
        seen += known->counts[i];
        if (seen >= wanted) {
            break;
        }
    }
    return pow(GROWTH, i);
}
