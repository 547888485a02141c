/*
 * slow_name: a host name that takes its time to be looked up, and a clock that can be set forward.
 *
 * For one source of a test program, which is linked with --wrap=getaddrinfo and
 * --wrap=clock_monotonic_ms. All other names are looked up as usual.
 */
#pragma once
#include <netdb.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

static const char NAME[] = "broker.slow.test"; /* is 127.0.0.1 */

static atomic_int lookups, lookup_ms; /* begun of it; what each takes */
static atomic_llong ahead_ms;         /* of the real clock */

int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **ret_info);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **ret_info);
int64_t __real_clock_monotonic_ms(void);
int64_t __wrap_clock_monotonic_ms(void);

/* In a thread of the resolver's. */
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **ret_info)
{
    const bool is_number = (hints->ai_flags & AI_NUMERICHOST) != 0; /* or asked whether it is one */
    if (is_number || strcmp(host, NAME) != 0) {
        return __real_getaddrinfo(host, port, hints, ret_info);
    }
    lookups++;
    const int ms = lookup_ms;
    (void)nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
    return __real_getaddrinfo("127.0.0.1", port, hints, ret_info);
}

int64_t __wrap_clock_monotonic_ms(void)
{
    return __real_clock_monotonic_ms() + ahead_ms;
}
