#include <criterion/criterion.h>

#include "common/decimals.h"

static const char *text(uint64_t number, unsigned decimals)
{
    static char text[DECIMALS_BYTES];
    return decimals_format(number, decimals, text);
}

Test(decimals, are_written_without_zeros_at_the_end)
{
    cr_assert_str_eq(text(50000000, 9), "0.05");
    cr_assert_str_eq(text(999, 9), "0.000000999");
    cr_assert_str_eq(text(120000000001, 9), "120.000000001");
    cr_assert_str_eq(text(2500, 3), "2.5");
}

Test(decimals, zeros_of_whole_numbers_stay)
{
    cr_assert_str_eq(text(0, 9), "0");
    cr_assert_str_eq(text(100000, 3), "100");
    cr_assert_str_eq(text(100, 0), "100");
    cr_assert_str_eq(text(UINT64_MAX, 0), "18446744073709551615");
    cr_assert_str_eq(text(UINT64_MAX, 19), "1.8446744073709551615");
}
