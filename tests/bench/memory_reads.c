#include "tests/bench/memory_reads.h"
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include "tests/bench/cache_queries.h"

enum { LINE_BYTES = 64, READS = 2000000 };

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

double memory_read_ns(size_t bytes)
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
