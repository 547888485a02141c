/*
 * bootstrap: intervals of means, by drawing the sample from itself with replacement (percentile bootstrap; Efron, "Bootstrap
 * methods", 1979).
 *
 * BOOTSTRAP_RESAMPLES times, or as often as BOOTSTRAP_DRAWS_MAX numbers allow, at least BOOTSTRAP_RESAMPLES_MIN. The same seed gives the same
 * interval. Of paired differences: give the differences.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

enum { BOOTSTRAP_RESAMPLES = 2000, BOOTSTRAP_RESAMPLES_MIN = 100, BOOTSTRAP_DRAWS_MAX = 100000000 };

struct interval {
    double mean, low, high; /* 95 % */
};

/* `length` is not 0. Errors: -ENOMEM. */
MUST_USE int bootstrap_mean(const double *values, size_t length, uint64_t seed, struct interval *ret_interval);
