#include "broker/core/bucket.h"
#include <math.h>

static const double MINUTE_MS = 60000.0;
static const double BURST_S = 0.05; /* of the rate at once: as even as can be, with loops of milliseconds */

/* A debt is over after a minute: what was taken is not in the provider's minute any more. */
static double within(const struct bucket *bucket, double level)
{
    const double least = -(double)bucket->per_min;
    return level > bucket->capacity ? bucket->capacity : level < least ? least : level;
}

static void refill(struct bucket *bucket, int64_t now_ms)
{
    if (now_ms > bucket->at_ms) {
        const double more = (double)(now_ms - bucket->at_ms) * bucket->per_ms;
        bucket->level = within(bucket, bucket->level + more);
        bucket->at_ms = now_ms;
    }
}

void bucket_set(struct bucket *bucket, uint64_t per_min, int64_t now_ms)
{
    if (per_min == bucket->per_min) {
        return;
    }
    const double share = bucket->per_min == 0 ? 0.0 : bucket->level / bucket->capacity;
    const double burst = (double)per_min / 60.0 * BURST_S;
    bucket->per_min = per_min;
    bucket->capacity = burst > 1.0 ? burst : 1.0;
    /* Counts are whole, so that a little less than one above the limit is within it. */
    bucket->per_ms = ((double)per_min + 0.999 - bucket->capacity) / MINUTE_MS;
    bucket->level = within(bucket, share * bucket->capacity);
    bucket->at_ms = now_ms;
}

int64_t bucket_wait_ms(struct bucket *bucket, double amount, int64_t now_ms)
{
    if (bucket->per_min == 0) {
        return 0;
    }
    refill(bucket, now_ms);
    /* Not all of a large amount: small ones would take what it waits for as it comes. */
    const double needed = amount < 1.0 ? amount : 1.0;
    return bucket->level >= needed ? 0 : (int64_t)ceil((needed - bucket->level) / bucket->per_ms);
}

void bucket_take(struct bucket *bucket, double amount, int64_t now_ms)
{
    if (bucket->per_min == 0) {
        return;
    }
    refill(bucket, now_ms);
    bucket->level = within(bucket, bucket->level - amount);
}

void bucket_lower(struct bucket *bucket, double left, int64_t now_ms)
{
    refill(bucket, now_ms);
    bucket->level = bucket->level > left ? left : bucket->level;
}
