/*
 * cache_queries: what the benchmarks of the cache ask: texts of a file, changed as people change them, and times taken.
 *
 * What cannot be done ends the program, with a word on standard error.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include "common/attributes.h"

enum { QUERY_BYTES_MAX = 4096 };

struct queries {
    char **lines; /* of the file; the first `entries` are in the cache */
    size_t lines_length;
    size_t entries;
    uint64_t random;
};

_Noreturn void queries_die(const char *what, int r);
void queries_read(struct queries *queries, const char *path);
void queries_finish(struct queries *queries);

uint32_t queries_below(struct queries *queries, size_t limit);
/* Typos, words left out, added, swapped. */
void queries_vary(struct queries *queries, const char *line, char ret_text[QUERY_BYTES_MAX]);
/* A random entry's text, varied; one of four times a line that is not in the cache, as it is. */
void queries_some(struct queries *queries, char ret_text[QUERY_BYTES_MAX]);

int64_t time_ns(clockid_t clock);

struct times {
    size_t length;
    float *us;
};
struct times times_new(size_t capacity);
void times_add(struct times *times, int64_t ns);
/* Prints `, "NAME_p50_us": …` and so on, and frees them. */
void times_print(const char *name, struct times *times);
