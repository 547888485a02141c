#include "tests/bench/cache_stream/vcache.h"

#include <math.h>
#include <string.h>

enum { LENGTH_MIN = 6, STEPS = 50 };
static const double SLOPE_MAX = 1000; /* separable observations have no finite slope */

static double logistic(double x)
{
    return 1 / (1 + exp(-x));
}

static double normal_quantile(double p)
{
    double low = -10, high = 10;
    for (int i = 0; i < 50; i++) {
        const double middle = (low + high) / 2;
        if (0.5 * erfc(-middle / M_SQRT2) < p) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* As published, for observations that one threshold separates: by their number. */
static double separable_variance(size_t n)
{
    static const struct {
        size_t n;
        double variance;
    } table[] = {{6, 0.035445},  {7, 0.028285},  {8, 0.026436},  {9, 0.021349},
                 {10, 0.019371}, {12, 0.011433}, {15, 0.009253}, {20, 0.013081},
                 {26, 0.00839},  {31, 0.00457},  {40, 0.005233}, {48, 0.01531}};
    double variance = table[0].variance;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]) && table[i].n <= n; i++) {
        variance = table[i].variance;
    }
    return variance;
}

static bool is_separable(const struct vcache_entry *entry)
{
    double least_right = 2, most_wrong = -1;
    for (size_t i = 0; i < entry->length; i++) {
        if (entry->right[i]) {
            least_right = fmin(least_right, (double)entry->scores[i]);
        } else {
            most_wrong = fmax(most_wrong, (double)entry->scores[i]);
        }
    }
    return least_right > most_wrong;
}

/* Newton's method for two parameters; the Hessian at the end gives the variance. */
static void fit(struct vcache_entry *entry)
{
    double bias = 0, slope = 1, h00 = 0, h01 = 0, h11 = 0;
    for (int step = 0; step < 60; step++) {
        double g0 = 0, g1 = 0;
        h00 = h01 = h11 = 1e-9;
        for (size_t i = 0; i < entry->length; i++) {
            const double s = (double)entry->scores[i];
            const double p = logistic(bias + slope * s), w = p * (1 - p);
            g0 += entry->right[i] - p;
            g1 += (entry->right[i] - p) * s;
            h00 += w;
            h01 += w * s;
            h11 += w * s * s;
        }
        const double determinant = h00 * h11 - h01 * h01;
        if (!(determinant > 1e-14) || fabs(slope) > SLOPE_MAX) {
            break;
        }
        bias += (h11 * g0 - h01 * g1) / determinant;
        slope += (h00 * g1 - h01 * g0) / determinant;
    }
    slope = fmin(fmax(slope, 1e-6), SLOPE_MAX);
    entry->slope = slope;
    entry->middle = fmin(fmax(-bias / slope, 0), 1);
    const double determinant = fmax(h00 * h11 - h01 * h01, 1e-12);
    const double d0 = -1 / slope, d1 = bias / (slope * slope);
    const double variance = is_separable(entry)
                                ? separable_variance(entry->length)
                                : (d0 * d0 * h11 - 2 * d0 * d1 * h01 + d1 * d1 * h00) / determinant;
    entry->deviation = sqrt(fmin(fmax(variance, 0), 1));
    entry->is_fitted = true;
}

void vcache_observe(struct vcache_entry *entry, double similarity, bool is_right)
{
    if (entry->length == 0) {
        entry->scores[0] = 0;
        entry->right[0] = false;
        entry->scores[1] = 1;
        entry->right[1] = true;
        entry->length = 2;
    }
    if (entry->length == VCACHE_OBSERVATIONS_MAX) { /* the oldest after the two seeds goes */
        memmove(entry->scores + 2, entry->scores + 3,
                (entry->length - 3) * sizeof(entry->scores[0]));
        memmove(entry->right + 2, entry->right + 3, (entry->length - 3) * sizeof(entry->right[0]));
        entry->length--;
    }
    entry->scores[entry->length] = (float)similarity;
    entry->right[entry->length++] = is_right;
    entry->is_fitted = false;
}

bool vcache_serves(struct vcache_entry *entry, double similarity, double max_error, double chance)
{
    if (entry->length < LENGTH_MIN) {
        return false;
    }
    if (!entry->is_fitted) {
        fit(entry);
    }
    double explore = 1;
    for (int i = 0; i < STEPS; i++) {
        const double epsilon = 1e-6 + (1 - 2e-6) * i / (STEPS - 1);
        const double middle =
            fmin(fmax(entry->middle + normal_quantile(1 - epsilon) * entry->deviation, 0), 1);
        const double right = (1 - epsilon) * logistic(entry->slope * (similarity - middle));
        explore = fmin(explore, 1 - max_error / (1 - right));
    }
    return chance > explore;
}
