/* Breaker, bucket, pace and retry budget: machines without any knowledge of jobs. */
#include <criterion/criterion.h>
#include <math.h>
#include "broker/core/breaker.h"
#include "broker/core/bucket.h"
#include "broker/core/pace.h"
#include "broker/core/retry_budget.h"
#include "tests/unit/broker/core_world.h"

static uint64_t random_state;

static uint64_t random_below(uint64_t bound)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (random_state >> 33) % bound;
}

/* ---- bucket ---- */

/* Whatever is asked of it and when, no minute gets more than the limit. */
Test(core_bucket, no_minute_gets_more_than_the_limit)
{
    enum { TAKEN_MAX = 200000, MINUTE = 60000 };
    static int64_t taken[TAKEN_MAX];
    for (uint64_t seed = 1; seed <= 20; seed++) {
        random_state = seed;
        const uint64_t per_min = 1 + random_below(seed % 2 == 0 ? 10 : 3000);
        struct bucket bucket = {0};
        int64_t now_ms = 1000;
        size_t length = 0, first = 0;
        bucket_set(&bucket, per_min, now_ms);
        while (now_ms < 600000) {
            now_ms += (int64_t)random_below(random_below(10) == 0 ? 20000 : 30);
            while (bucket_wait_ms(&bucket, 1, now_ms) == 0 && length < TAKEN_MAX) {
                bucket_take(&bucket, 1, now_ms);
                taken[length++] = now_ms;
            }
            while (first < length && taken[first] <= now_ms - MINUTE) {
                first++;
            }
            cr_assert_leq(length - first, per_min, "seed %lu: %zu of %lu in a minute", seed,
                          length - first, per_min);
        }
        cr_assert_gt(length, 0);
    }
}

Test(core_bucket, gives_nearly_all_of_the_limit)
{
    struct bucket bucket = {0};
    bucket_set(&bucket, 600, 0);
    int taken = 0;
    for (int64_t now_ms = 0; now_ms < 600000; now_ms++) {
        while (bucket_wait_ms(&bucket, 1, now_ms) == 0) {
            bucket_take(&bucket, 1, now_ms);
            taken++;
        }
    }
    cr_assert_gt(taken, 5850);
    cr_assert_leq(taken, 6000);
}

Test(core_bucket, wait_is_exact)
{
    for (uint64_t per_min = 1; per_min < 5000; per_min = per_min * 3 + 1) {
        struct bucket bucket = {0};
        bucket_set(&bucket, per_min, 0);
        const int64_t wait_ms = bucket_wait_ms(&bucket, 1, 0);
        cr_assert_gt(wait_ms, 0);
        struct bucket early = bucket;
        cr_assert_gt(bucket_wait_ms(&early, 1, wait_ms - 1), 0);
        cr_assert_eq(bucket_wait_ms(&bucket, 1, wait_ms), 0, "limit %lu", per_min);
    }
}

Test(core_bucket, more_than_there_is_waits_no_longer_than_one_and_leaves_a_debt)
{
    struct bucket bucket = {0};
    bucket_set(&bucket, 6000, 0); /* 100 a second, 5 at once */
    const int64_t at_ms = bucket_wait_ms(&bucket, 1000, 0);
    cr_assert_eq(bucket_wait_ms(&bucket, 1, 0), at_ms);
    cr_assert_eq(bucket_wait_ms(&bucket, 1000, at_ms), 0);
    bucket_take(&bucket, 1000, at_ms);
    cr_assert_gt(bucket_wait_ms(&bucket, 1, at_ms), 9000);
}

/* Whatever was taken by mistake: after a minute it is not in the provider's minute any more. */
Test(core_bucket, no_debt_lasts_longer_than_a_minute)
{
    for (uint64_t per_min = 1; per_min < 100000; per_min = per_min * 7 + 3) {
        struct bucket bucket = {0};
        bucket_set(&bucket, per_min, 0);
        bucket_take(&bucket, 1e18, 0);
        const int64_t wait_ms = bucket_wait_ms(&bucket, 1, 0);
        cr_assert(wait_ms >= 60000 && wait_ms <= 125000, "limit %lu: %ld", per_min, wait_ms);
        bucket_set(&bucket, 1 + per_min / 100, 0);
        cr_assert_leq(bucket_wait_ms(&bucket, 1, 0), 125000);
    }
}

Test(core_bucket, what_is_given_back_can_be_taken_again_and_no_more)
{
    struct bucket bucket = {0};
    bucket_set(&bucket, 60, 0);
    const int64_t now_ms = bucket_wait_ms(&bucket, 1, 0);
    bucket_take(&bucket, 1, now_ms);
    cr_assert_gt(bucket_wait_ms(&bucket, 1, now_ms), 0);
    bucket_take(&bucket, -1, now_ms);
    bucket_take(&bucket, -1, now_ms);
    cr_assert_eq(bucket_wait_ms(&bucket, 1, now_ms), 0);
    bucket_take(&bucket, 1, now_ms);
    cr_assert_gt(bucket_wait_ms(&bucket, 1, now_ms), 0);
}

Test(core_bucket, without_a_limit_everything_goes)
{
    struct bucket bucket = {0};
    bucket_take(&bucket, 1e9, 0);
    cr_assert_eq(bucket_wait_ms(&bucket, 1e9, 0), 0);
}

/* ---- breaker ---- */

static bool lets_through(const struct breaker *breaker, int64_t now_ms)
{
    return breaker_closed_until_ms(breaker) <= now_ms;
}

static bool report(struct breaker *breaker, enum breaker_sample sample, int64_t now_ms)
{
    breaker_tick(breaker, now_ms);
    return breaker_report(breaker, &world_breaker, sample, false, 0, now_ms);
}

static struct breaker opened(int64_t now_ms)
{
    struct breaker breaker = {0};
    for (int i = 0; i < 5; i++) {
        (void)report(&breaker, SAMPLE_FAILURE, now_ms);
    }
    cr_assert_eq(breaker.state, BREAKER_OPEN);
    return breaker;
}

Test(core_breaker, opens_on_failures_in_a_row)
{
    struct breaker breaker = {0};
    for (int i = 0; i < 4; i++) {
        cr_assert_not(report(&breaker, SAMPLE_FAILURE, 100));
    }
    cr_assert_not(report(&breaker, SAMPLE_SUCCESS, 100));
    for (int i = 0; i < 4; i++) {
        cr_assert_not(report(&breaker, SAMPLE_FAILURE, 100));
    }
    cr_assert(report(&breaker, SAMPLE_FAILURE, 100));
    cr_assert_not(lets_through(&breaker, 100));
    cr_assert_eq(breaker_closed_until_ms(&breaker), 1100);
}

Test(core_breaker, opens_on_a_share_only_with_enough_calls_in_the_window)
{
    struct breaker breaker = {0};
    for (int i = 0; i < 19; i++) {
        cr_assert_not(report(&breaker, i % 2 == 0 ? SAMPLE_SUCCESS : SAMPLE_FAILURE, 100 + i));
    }
    cr_assert_not(report(&breaker, SAMPLE_SUCCESS, 200)); /* 9 of 20 */
    cr_assert_not(report(&breaker, SAMPLE_FAILURE, 200)); /* 10 of 21 */
    cr_assert(report(&breaker, SAMPLE_FAILURE, 200));     /* 11 of 22 */
    breaker = (struct breaker){0};
    for (int i = 0; i < 100; i++) { /* one in a second: never 20 in ten */
        cr_assert_not(report(&breaker, i % 2 == 0 ? SAMPLE_SUCCESS : SAMPLE_FAILURE, 1000 * i));
    }
}

Test(core_breaker, opens_on_slow_calls)
{
    struct breaker breaker = {0};
    bool has_opened = false;
    for (int i = 0; i < 20; i++) {
        has_opened |= report(&breaker, i < 2 ? SAMPLE_SUCCESS : SAMPLE_SLOW, 100);
    }
    cr_assert(has_opened);
}

Test(core_breaker, lets_one_probe_through_when_its_time_is_over)
{
    struct breaker breaker = opened(0);
    breaker_tick(&breaker, 999);
    cr_assert_not(lets_through(&breaker, 999));
    breaker_tick(&breaker, 1000);
    cr_assert(lets_through(&breaker, 1000));
    breaker_probe(&breaker, &world_breaker, 1000);
    cr_assert_not(lets_through(&breaker, 1000));
    cr_assert(breaker_report(&breaker, &world_breaker, SAMPLE_SUCCESS, true, 0, 1500));
    cr_assert_eq(breaker.state, BREAKER_CLOSED);
    cr_assert(lets_through(&breaker, 1500));
}

Test(core_breaker, stays_open_longer_with_each_probe_that_fails_up_to_a_bound)
{
    struct breaker breaker = opened(0);
    int64_t now_ms = 0;
    const int64_t expected_ms[] = {1000, 2000, 4000, 8000, 10000};
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(breaker_closed_until_ms(&breaker) - now_ms, expected_ms[i]);
        now_ms = breaker_closed_until_ms(&breaker);
        breaker_tick(&breaker, now_ms);
        breaker_probe(&breaker, &world_breaker, now_ms);
        cr_assert(breaker_report(&breaker, &world_breaker, SAMPLE_FAILURE, true, 0, now_ms));
    }
}

Test(core_breaker, calls_from_before_it_opened_change_nothing)
{
    struct breaker breaker = opened(0);
    cr_assert_not(report(&breaker, SAMPLE_SUCCESS, 500));
    cr_assert_not(report(&breaker, SAMPLE_FAILURE, 500));
    cr_assert_eq(breaker.state, BREAKER_OPEN);
    cr_assert_eq(breaker_closed_until_ms(&breaker), 1000);
}

Test(core_breaker, a_probe_that_is_not_heard_of_is_given_up)
{
    struct breaker breaker = opened(0);
    breaker_tick(&breaker, 1000);
    breaker_probe(&breaker, &world_breaker, 1000);
    breaker_tick(&breaker, 10999);
    cr_assert_not(lets_through(&breaker, 10999));
    breaker_tick(&breaker, 11000);
    cr_assert(lets_through(&breaker, 11000));
}

Test(core_breaker, a_probe_that_was_given_up_does_not_end_a_later_one)
{
    struct breaker breaker = opened(0);
    breaker_tick(&breaker, 1000);
    const uint32_t first = breaker_probe(&breaker, &world_breaker, 1000);
    breaker_tick(&breaker, 11000);
    const uint32_t second = breaker_probe(&breaker, &world_breaker, 11000);
    breaker_forget_probe(&breaker, first);
    cr_assert_not(lets_through(&breaker, 11000));
    breaker_forget_probe(&breaker, second);
    cr_assert(lets_through(&breaker, 11000));
}

/* ---- pace ---- */

/* A provider that takes so many a second and keeps a second's worth: the share of what it allows
 * that is answered. */
static double goodput(double per_s, double offered_per_s, bool says_when, int *ret_refused)
{
    struct pace pace;
    pace_init(&pace);
    double level = per_s, demand = 0;
    int answered = 0, refused = 0;
    int64_t blocked_until_ms = 0;
    for (int64_t now_ms = 1000; now_ms < 121000; now_ms++) {
        level = fmin(level + per_s / 1000, per_s);
        demand = fmin(demand + offered_per_s / 1000, offered_per_s * 10);
        while (demand >= 1 && now_ms >= blocked_until_ms && pace_wait_ms(&pace, now_ms) == 0) {
            demand -= 1;
            pace_take(&pace, 1, now_ms);
            if (level >= 1) {
                level -= 1;
                answered++;
                pace_answered(&pace, now_ms);
            } else {
                refused++;
                pace_limited(&pace, 20, now_ms);
                blocked_until_ms = says_when ? now_ms + 1000 : 0;
            }
        }
    }
    *ret_refused = refused;
    return answered / (per_s * 120);
}

Test(core_pace, most_of_what_a_provider_allows_is_used_and_little_is_refused)
{
    for (int says_when = 0; says_when <= 1; says_when++) {
        const double rates[] = {5, 50, 500};
        for (int i = 0; i < 3; i++) {
            int refused;
            const double share = goodput(rates[i], 2 * rates[i], says_when == 1, &refused);
            cr_assert_geq(share, 0.95, "rate %.0f, says when %d: %.3f", rates[i], says_when, share);
            cr_assert_leq(refused, 0.08 * rates[i] * 120, "rate %.0f, says when %d: %d refused",
                          rates[i], says_when, refused);
        }
    }
}

Test(core_pace, a_burst_that_is_refused_at_once_does_not_choke_it)
{
    struct pace pace;
    pace_init(&pace);
    double level = 30;
    int answered = 0;
    for (int64_t now_ms = 1000; now_ms < 31000; now_ms++) {
        level = fmin(level + 0.03, 30);
        /* The refusals of the first burst come before its answers. */
        for (int i = 0; now_ms == 1000 && i < 30; i++) {
            pace_limited(&pace, 20, now_ms);
        }
        while (pace_wait_ms(&pace, now_ms) == 0) {
            pace_take(&pace, 1, now_ms);
            if (level >= 1) {
                level -= 1;
                answered++;
                pace_answered(&pace, now_ms);
            } else {
                pace_limited(&pace, 20, now_ms);
            }
        }
    }
    cr_assert_geq(answered, 0.85 * 900, "%d of 900", answered);
}

Test(core_pace, grows_from_the_lowest_rate_too)
{
    struct pace pace;
    pace_init(&pace);
    pace_limited(&pace, 0, 1000);
    cr_assert_lt(pace.per_s, 1);
    int64_t now_ms = 1000;
    int taken = 0;
    while (now_ms < 91000 && pace.per_s < 100) { /* looked at when it said so, and no sooner */
        const int64_t wait_ms = pace_wait_ms(&pace, now_ms);
        now_ms += wait_ms;
        if (wait_ms == 0) {
            pace_take(&pace, 1, now_ms);
            pace_answered(&pace, now_ms);
            taken++;
        }
    }
    cr_assert_gt(pace.per_s, 50, "%.2f after 90 s, %d taken", pace.per_s, taken);
}

Test(core_pace, free_without_limits)
{
    struct pace pace;
    pace_init(&pace);
    for (int64_t now_ms = 0; now_ms < 1000; now_ms++) {
        cr_assert_eq(pace_wait_ms(&pace, now_ms), 0);
        pace_take(&pace, 1, now_ms);
    }
}

Test(core_pace, starts_slowly_doubles_each_second_and_is_free_in_the_end)
{
    struct pace pace;
    pace_init(&pace);
    pace_start_slowly(&pace, 20, 0);
    int taken[5] = {0};
    for (int64_t now_ms = 0; now_ms < 5000; now_ms++) {
        while (pace_wait_ms(&pace, now_ms) == 0) {
            pace_take(&pace, 1, now_ms);
            taken[now_ms / 1000]++;
        }
    }
    cr_assert(taken[0] >= 20 && taken[0] <= 45, "%d", taken[0]);
    cr_assert(taken[3] > taken[2] && taken[2] > taken[1] && taken[1] > taken[0]);
    cr_assert_gt(taken[4], 300);
    for (int64_t now_ms = 5000; now_ms < 20000; now_ms += 100) {
        (void)pace_wait_ms(&pace, now_ms); /* little is asked of it: nothing is held back */
        pace_take(&pace, 1, now_ms);
    }
    cr_assert(pace.is_free);
}

/* ---- retry budget ---- */

Test(core_retry_budget, retries_stay_a_share_of_first_attempts)
{
    const struct config_retries config = {.share_permille = 100, .least_per_min = 60, .burst = 20};
    for (uint64_t seed = 1; seed <= 10; seed++) {
        random_state = seed;
        struct retry_budget budget;
        retry_budget_init(&budget, &config, 0);
        int64_t now_ms = 0;
        uint64_t firsts = 0, retries = 0;
        for (int i = 0; i < 20000; i++) {
            now_ms += (int64_t)random_below(20);
            if (random_below(3) == 0) {
                retry_budget_credit(&budget, &config, now_ms);
                firsts++;
            }
            retries += retry_budget_take(&budget, &config, now_ms);
            const double most = 0.1 * (double)firsts + (double)now_ms / 1000 + 20;
            cr_assert_leq((double)retries, most + 1e-6);
        }
        cr_assert_gt(retries, firsts / 10);
    }
}

Test(core_retry_budget, nothing_is_saved_beyond_the_burst)
{
    const struct config_retries config = {.share_permille = 100, .least_per_min = 60, .burst = 5};
    struct retry_budget budget;
    retry_budget_init(&budget, &config, 0);
    int granted = 0;
    while (retry_budget_take(&budget, &config, 3600000)) {
        granted++;
    }
    cr_assert_eq(granted, 5);
}
