#include "client/cli/bootstrap.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

static const double TAIL = 0.025;

/* splitmix64. */
static uint64_t next(uint64_t *random)
{
    uint64_t z = *random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static size_t below(uint64_t *random, size_t bound)
{
    return (size_t)((unsigned __int128)next(random) * bound >> 64);
}

static double mean_of(const double *values, size_t length)
{
    double sum = 0;
    for (size_t i = 0; i < length; i++) {
        sum += values[i];
    }
    return sum / (double)length;
}

static double mean_of_draw(const double *values, size_t length, uint64_t *random)
{
    double sum = 0;
    for (size_t i = 0; i < length; i++) {
        sum += values[below(random, length)];
    }
    return sum / (double)length;
}

static size_t resamples_for(size_t length)
{
    const size_t possible = BOOTSTRAP_DRAWS_MAX / length;
    return possible < BOOTSTRAP_RESAMPLES_MIN ? BOOTSTRAP_RESAMPLES_MIN
           : possible < BOOTSTRAP_RESAMPLES   ? possible
                                              : BOOTSTRAP_RESAMPLES;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int bootstrap_mean(const double *values, size_t length, uint64_t seed,
                   struct interval *ret_interval)
{
    assert(length > 0);
    const size_t resamples = resamples_for(length);
    double *means = calloc(resamples, sizeof(*means));
    if (means == NULL) {
        return -ENOMEM;
    }
    uint64_t random = seed;
    for (size_t i = 0; i < resamples; i++) {
        means[i] = mean_of_draw(values, length, &random);
    }
    qsort(means, resamples, sizeof(*means), compare);
    const size_t tail = (size_t)((double)resamples * TAIL);
    *ret_interval = (struct interval){
        .mean = mean_of(values, length), .low = means[tail], .high = means[resamples - 1 - tail]};
    free(means);
    return 0;
}
