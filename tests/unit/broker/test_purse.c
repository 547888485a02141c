#include <criterion/criterion.h>

#include "broker/core/purse.h"

static const int64_t DAY_MS = INT64_C(86400000);
static const int64_t NOON = INT64_C(1769860800000); /* 2026-01-31 12:00 UTC */

static struct purse purse_with(uint64_t daily, uint64_t monthly)
{
    struct purse purse;
    purse_init(&purse);
    purse.daily_max_nanousd = daily;
    purse.monthly_max_nanousd = monthly;
    return purse;
}

Test(purse, months_and_days_are_those_of_the_calendar)
{
    cr_assert_eq(purse_month_of(0), 0);
    cr_assert_eq(purse_month_of(NOON), (2026 - 1970) * 12);
    cr_assert_eq(purse_month_of(NOON + DAY_MS), (2026 - 1970) * 12 + 1);
    cr_assert_eq(purse_month_begins_unix_ms((2024 - 1970) * 12 + 2), INT64_C(1709251200000),
                 "2024 has a 29 February");
    for (int32_t month = 0; month < 12 * 200; month++) {
        const int64_t begins = purse_month_begins_unix_ms(month);
        cr_assert_eq(purse_month_of(begins), month);
        cr_assert_eq(begins == 0 ? 0 : purse_month_of(begins - 1), month == 0 ? 0 : month - 1);
        cr_assert_eq(purse_day_begins_unix_ms(purse_day_of(begins)), begins);
    }
}

Test(purse, what_is_spent_counts_in_its_day_and_month)
{
    struct purse purse = purse_with(100, 150);
    purse_spend(&purse, 60, NOON);
    cr_assert_eq(purse_left_nanousd(&purse, NOON), 40);
    cr_assert_eq(purse_left_nanousd(&purse, NOON + DAY_MS), 100, "a new month begins there");
    purse_spend(&purse, 90, NOON + DAY_MS);
    cr_assert_eq(purse_left_nanousd(&purse, NOON + DAY_MS), 10);
    cr_assert_eq(purse_left_nanousd(&purse, NOON + 2 * DAY_MS), 60, "of the month");
}

Test(purse, no_change_of_windows_loses_what_is_reserved)
{
    struct purse purse = purse_with(100, UINT64_MAX);
    purse_spend(&purse, 30, NOON);
    purse_reserve(&purse, 50);
    cr_assert_eq(purse_free_nanousd(&purse, NOON), 20);
    cr_assert_eq(purse_free_nanousd(&purse, NOON + DAY_MS), 50);
    purse_release(&purse, 50);
    purse_spend(&purse, 45, NOON + DAY_MS);
    cr_assert_eq(purse_free_nanousd(&purse, NOON + DAY_MS), 55);
    cr_assert_eq(purse.month_nanousd, 45);
}

Test(purse, clock_that_is_set_back_opens_no_new_window)
{
    struct purse purse = purse_with(100, 100);
    purse_spend(&purse, 70, NOON);
    cr_assert_eq(purse_left_nanousd(&purse, NOON - 40 * DAY_MS), 30);
    purse_spend(&purse, 30, NOON - 40 * DAY_MS);
    cr_assert_eq(purse_left_nanousd(&purse, NOON), 0);
}

Test(purse, refund_reaches_only_the_windows_that_still_run)
{
    struct purse purse = purse_with(100, 1000);
    const int64_t earlier = NOON - 2 * DAY_MS;
    purse_spend(&purse, 40, earlier);
    purse_spend(&purse, 10, NOON);
    purse_refund(&purse, 40, purse_day_of(earlier), NOON);
    cr_assert_eq(purse.day_nanousd, 10);
    cr_assert_eq(purse.month_nanousd, 10);
    purse_refund(&purse, 40, purse_day_of(NOON), NOON);
    cr_assert_eq(purse.day_nanousd, 0, "never below nothing");
}

Test(purse, it_says_when_enough_will_be_left)
{
    struct purse purse = purse_with(100, 150);
    purse_spend(&purse, 80, NOON - DAY_MS);
    cr_assert_eq(purse_refills_unix_ms(&purse, 20, NOON - DAY_MS), NOON - DAY_MS, "now");
    cr_assert_eq(purse_refills_unix_ms(&purse, 50, NOON - DAY_MS), NOON - DAY_MS / 2, "midnight");
    purse_spend(&purse, 60, NOON);
    cr_assert_eq(purse_refills_unix_ms(&purse, 20, NOON), NOON + DAY_MS / 2, "the month's end");
    cr_assert_eq(purse_refills_unix_ms(&purse, 101, NOON), INT64_MAX, "never");
}

Test(purse, soft_share_counts_what_is_reserved)
{
    struct purse purse = purse_with(100, UINT64_MAX);
    purse.soft_permille = 800;
    purse_spend(&purse, 50, NOON);
    cr_assert_not(purse_spares(&purse, NOON));
    purse_reserve(&purse, 30);
    cr_assert(purse_spares(&purse, NOON));
    cr_assert_not(purse_spares(&purse, NOON + DAY_MS));
}
