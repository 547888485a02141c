#include "tests/bench/machine.h"
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include "tests/bench/cache_queries.h"

enum { LINE_BYTES = 64, READS = 2000000, SPINS = 20000, TRIES = 50, TRY_STEPS = 10000 };

union line {
    uint32_t next;
    char bytes[LINE_BYTES];
};

/* One cycle through all lines (Sattolo's shuffle). */
static void chain(union line *lines, size_t length)
{
    struct queries random = {.random = 1};
    for (size_t i = 0; i < length; i++) {
        lines[i].next = (uint32_t)i;
    }
    for (size_t i = length - 1; i > 0; i--) {
        const size_t other = queries_below(&random, i);
        const uint32_t kept = lines[i].next;
        lines[i].next = lines[other].next;
        lines[other].next = kept;
    }
}

double machine_read_ns(size_t bytes)
{
    const size_t length = bytes / LINE_BYTES;
    union line *lines = aligned_alloc(LINE_BYTES, bytes);
    if (lines == NULL) {
        queries_die("memory to read", -ENOMEM);
    }
    chain(lines, length);
    uint32_t at = 0;
    const int64_t began_ns = time_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < READS; i++) {
        at = *(volatile uint32_t *)&lines[at].next;
    }
    const double ns = (double)(time_ns(CLOCK_MONOTONIC) - began_ns) / READS;
    free(lines);
    return ns;
}

/* Each step needs the one before it. */
static int64_t spin_ns(int64_t steps)
{
    const int64_t began_ns = time_ns(CLOCK_MONOTONIC);
    uint64_t value = 1;
    for (int64_t i = 0; i < steps; i++) {
        value = value * 6364136223846793005u + 1442695040888963407u; /* Knuth's, MMIX */
    }
    const volatile uint64_t sum = value; /* or nothing would be computed */
    (void)sum;
    return time_ns(CLOCK_MONOTONIC) - began_ns;
}

static int by_length(const void *left, const void *right)
{
    const int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return a < b ? -1 : a > b;
}

double machine_spin_p99_ns(int64_t ns)
{
    static int64_t spins[SPINS];
    int64_t least_ns = INT64_MAX;
    for (int i = 0; i < TRIES; i++) {
        const int64_t took_ns = spin_ns(TRY_STEPS);
        least_ns = took_ns > 0 && took_ns < least_ns ? took_ns : least_ns;
    }
    for (int i = 0; i < SPINS; i++) {
        spins[i] = spin_ns(ns * TRY_STEPS / least_ns);
    }
    qsort(spins, SPINS, sizeof(*spins), by_length);
    return (double)spins[SPINS * 99 / 100];
}
