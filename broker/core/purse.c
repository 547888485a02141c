#include "broker/core/purse.h"
#include <assert.h>
#include "common/price.h"

enum { MONTHS_A_YEAR = 12, PERMILLE = 1000, EPOCH_YEAR = 1970 };
static const int64_t DAY_MS = INT64_C(86400000);

/* ---- the calendar ---- */

int32_t purse_day_of(int64_t unix_ms)
{
    return unix_ms < 0 ? 0 : (int32_t)(unix_ms / DAY_MS);
}

int64_t purse_day_begins_unix_ms(int32_t day)
{
    return day * DAY_MS;
}

/* The days from 1970-01-01 to the first of a month (Hinnant, "chrono-Compatible Low-Level Date
 * Algorithms"). */
static int64_t days_to_month(int32_t month)
{
    const int64_t year_of_march = EPOCH_YEAR + (month - 2 + MONTHS_A_YEAR) / MONTHS_A_YEAR - 1;
    const int64_t from_march = (month - 2 + MONTHS_A_YEAR) % MONTHS_A_YEAR;
    const int64_t era = year_of_march / 400;
    const int64_t year_of_era = year_of_march - era * 400;
    const int64_t day_of_year = (153 * from_march + 2) / 5;
    const int64_t day_of_era =
        year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

int64_t purse_month_begins_unix_ms(int32_t month)
{
    return days_to_month(month) * DAY_MS;
}

int32_t purse_month_of(int64_t unix_ms)
{
    const int64_t day = purse_day_of(unix_ms);
    int32_t month =
        (int32_t)(day / 31); /* at most one too few in 31 days of 30.4: it only grows below */
    while (days_to_month(month + 1) <= day) {
        month++;
    }
    return month;
}

/* ---- the purse ---- */

void purse_init(struct purse *purse)
{
    *purse = (struct purse){.daily_max_nanousd = UINT64_MAX,
                            .monthly_max_nanousd = UINT64_MAX,
                            .soft_permille = PERMILLE};
}

bool purse_is_limited(const struct purse *purse)
{
    return purse->daily_max_nanousd != UINT64_MAX || purse->monthly_max_nanousd != UINT64_MAX;
}

void purse_roll(struct purse *purse, int64_t unix_ms)
{
    const int32_t day = purse_day_of(unix_ms);
    if (day <= purse->day) {
        return; /* the usual case: no month begins within a day */
    }
    const int32_t month = purse_month_of(unix_ms);
    purse->day = day;
    purse->day_nanousd = 0;
    if (month > purse->month) {
        purse->month = month;
        purse->month_nanousd = 0;
    }
}

void purse_spend(struct purse *purse, uint64_t nanousd, int64_t unix_ms)
{
    purse_roll(purse, unix_ms);
    purse->day_nanousd = price_add(purse->day_nanousd, nanousd);
    purse->month_nanousd = price_add(purse->month_nanousd, nanousd);
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

void purse_refund(struct purse *purse, uint64_t nanousd, int32_t day, int64_t unix_ms)
{
    purse_roll(purse, unix_ms);
    if (day == purse->day) {
        purse->day_nanousd = less(purse->day_nanousd, nanousd);
    }
    if (purse_month_of(purse_day_begins_unix_ms(day)) == purse->month) {
        purse->month_nanousd = less(purse->month_nanousd, nanousd);
    }
}

void purse_reserve(struct purse *purse, uint64_t nanousd)
{
    purse->reserved_nanousd = price_add(purse->reserved_nanousd, nanousd);
}

void purse_release(struct purse *purse, uint64_t nanousd)
{
    purse->reserved_nanousd = less(purse->reserved_nanousd, nanousd);
}

/* ---- what may be spent ---- */

static uint64_t left_of(uint64_t max, uint64_t spent)
{
    return max == UINT64_MAX ? UINT64_MAX : less(max, spent);
}

uint64_t purse_left_nanousd(struct purse *purse, int64_t unix_ms)
{
    purse_roll(purse, unix_ms);
    const uint64_t of_day = left_of(purse->daily_max_nanousd, purse->day_nanousd);
    const uint64_t of_month = left_of(purse->monthly_max_nanousd, purse->month_nanousd);
    return of_day < of_month ? of_day : of_month;
}

uint64_t purse_free_nanousd(struct purse *purse, int64_t unix_ms)
{
    const uint64_t left = purse_left_nanousd(purse, unix_ms);
    return left == UINT64_MAX ? left : less(left, purse->reserved_nanousd);
}

static bool is_past_share(uint64_t max, uint64_t spent, uint32_t permille)
{
    return max != UINT64_MAX &&
           (unsigned __int128)spent * PERMILLE >= (unsigned __int128)max * permille;
}

bool purse_spares(struct purse *purse, int64_t unix_ms)
{
    purse_roll(purse, unix_ms);
    const uint64_t reserved = purse->reserved_nanousd;
    return purse->soft_permille < PERMILLE &&
           (is_past_share(purse->daily_max_nanousd, price_add(purse->day_nanousd, reserved),
                          purse->soft_permille) ||
            is_past_share(purse->monthly_max_nanousd, price_add(purse->month_nanousd, reserved),
                          purse->soft_permille));
}

int64_t purse_refills_unix_ms(struct purse *purse, uint64_t nanousd, int64_t unix_ms)
{
    purse_roll(purse, unix_ms);
    if (nanousd > purse->daily_max_nanousd || nanousd > purse->monthly_max_nanousd) {
        return INT64_MAX;
    }
    if (nanousd > left_of(purse->monthly_max_nanousd, purse->month_nanousd)) {
        return purse_month_begins_unix_ms(purse->month + 1); /* a day begins there, too */
    }
    return nanousd > left_of(purse->daily_max_nanousd, purse->day_nanousd)
               ? purse_day_begins_unix_ms(purse->day + 1)
               : unix_ms;
}
