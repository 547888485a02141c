#include <criterion/criterion.h>
#include <time.h>
#include "common/clock.h"

Test(clock, monotonic_time_never_goes_back)
{
    int64_t before_ns = clock_monotonic_ns();
    for (int i = 0; i < 100000; i++) {
        const int64_t now_ns = clock_monotonic_ns();
        cr_assert_geq(now_ns, before_ns);
        before_ns = now_ns;
    }
}

Test(clock, milliseconds_and_nanoseconds_agree)
{
    const int64_t before_ms = clock_monotonic_ns() / 1000000;
    const int64_t ms = clock_monotonic_ms();
    const int64_t after_ms = clock_monotonic_ns() / 1000000;
    cr_assert_geq(ms, before_ms);
    cr_assert_leq(ms, after_ms);
}

Test(clock, unix_time_is_that_of_the_system)
{
    const time_t before_s = time(NULL);
    const int64_t ms = clock_unix_ms();
    const time_t after_s = time(NULL);
    /* time() may lag by one tick of the kernel behind clock_gettime(). */
    cr_assert_geq(ms / 1000, (int64_t)before_s);
    cr_assert_leq(ms / 1000, (int64_t)after_s + 1);
}
