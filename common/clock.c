#include "common/clock.h"
#include <time.h>

enum { NS_PER_MS = 1000 * 1000, MS_PER_S = 1000 };

/* clock_gettime() cannot fail for these two clocks with a valid address. */
static struct timespec read_clock(clockid_t which)
{
    struct timespec now = {0};
    (void)clock_gettime(which, &now);
    return now;
}

int64_t clock_monotonic_ns(void)
{
    const struct timespec now = read_clock(CLOCK_MONOTONIC);
    return (int64_t)now.tv_sec * MS_PER_S * NS_PER_MS + now.tv_nsec;
}

int64_t clock_monotonic_ms(void)
{
    return clock_monotonic_ns() / NS_PER_MS;
}

int64_t clock_unix_ms(void)
{
    const struct timespec now = read_clock(CLOCK_REALTIME);
    return (int64_t)now.tv_sec * MS_PER_S + now.tv_nsec / NS_PER_MS;
}
