#include "common/histogram.h"

/*
 * The first 32 buckets hold one value each; after them every power of two has 32 buckets of equal
 * width, so the width of a bucket is at most 1/32 of the values in it.
 */
enum { SUB_BITS = 5, SUB_BUCKETS = 1 << SUB_BITS };

static unsigned bucket_of(uint64_t value)
{
    if (value < SUB_BUCKETS) {
        return (unsigned)value;
    }
    const unsigned exponent = 63U - (unsigned)__builtin_clzll(value);
    const unsigned shift = exponent - SUB_BITS;
    const unsigned bucket = (shift + 1) * SUB_BUCKETS + (unsigned)(value >> shift) - SUB_BUCKETS;
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

static uint64_t upper_edge(unsigned bucket)
{
    if (bucket < SUB_BUCKETS) {
        return bucket;
    }
    const unsigned shift = bucket / SUB_BUCKETS - 1;
    return ((uint64_t)(bucket % SUB_BUCKETS + SUB_BUCKETS + 1) << shift) - 1;
}

void histogram_init(struct histogram *histogram)
{
    *histogram = (struct histogram){0};
}

void histogram_record(struct histogram *histogram, uint64_t value)
{
    histogram->count++;
    histogram->sum += value;
    if (value > histogram->max) {
        histogram->max = value;
    }
    histogram->buckets[bucket_of(value)]++;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    into->count += from->count;
    into->sum += from->sum;
    if (from->max > into->max) {
        into->max = from->max;
    }
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        into->buckets[i] += from->buckets[i];
    }
}

/* How many values lie at or below quantile `q`: at least one, at most all. */
static uint64_t rank_of(uint64_t count, double q)
{
    if (!(q > 0)) {
        return 1;
    }
    if (q >= 1) {
        return count;
    }
    /* A little less, since 0.804 of 20000 is 16080.000000000002 in binary. */
    const double exact = q * (double)count * (1 - 1e-12);
    const uint64_t floor = (uint64_t)exact;
    const uint64_t rank = (double)floor < exact ? floor + 1 : floor;
    return rank == 0 ? 1 : rank < count ? rank : count;
}

uint64_t histogram_quantile(const struct histogram *histogram, double q)
{
    if (histogram->count == 0) {
        return 0;
    }
    const uint64_t rank = rank_of(histogram->count, q);
    uint64_t seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
        seen += histogram->buckets[i];
        if (seen >= rank) {
            const uint64_t edge = upper_edge(i);
            return edge < histogram->max ? edge : histogram->max;
        }
    }
    return histogram->max; /* the last bucket has no upper edge */
}
