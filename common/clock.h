/*
 * clock: the two times there are. Monotonic milliseconds inside a process; Unix milliseconds only
 * at the wire, in logs and in records. Cores never call these: they are given the time.
 */
#pragma once
#include <stdint.h>

int64_t clock_monotonic_ms(void);
int64_t clock_monotonic_ns(void);
int64_t clock_unix_ms(void);
