#include "tests/bench/cache_queries.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORDS_MAX = 64 };

struct text {
    char *bytes; /* QUERY_BYTES_MAX */
    size_t length;
};

_Noreturn void queries_die(const char *what, int r)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(-r));
    exit(1);
}

int64_t time_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

uint32_t queries_below(struct queries *queries, size_t limit)
{
    uint64_t x = queries->random += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(((x ^ (x >> 31)) >> 32) * limit >> 32);
}

void queries_read(struct queries *queries, const char *path)
{
    FILE *file = fopen(path, "r");
    char line[QUERY_BYTES_MAX];
    size_t capacity = 0;
    if (file == NULL) {
        queries_die(path, -errno);
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (queries->lines_length == capacity) {
            capacity = capacity == 0 ? 4096 : capacity * 2;
            queries->lines = realloc(queries->lines, capacity * sizeof(char *));
        }
        if (queries->lines == NULL ||
            (queries->lines[queries->lines_length++] = strdup(line)) == NULL) {
            queries_die(path, -ENOMEM);
        }
    }
    fclose(file);
}

void queries_finish(struct queries *queries)
{
    for (size_t i = 0; i < queries->lines_length; i++) {
        free(queries->lines[i]);
    }
    free(queries->lines);
}

static void typo(struct queries *queries, char *word)
{
    const size_t length = strlen(word);
    const size_t at = length < 2 ? 0 : queries_below(queries, length - 1);
    if (length < 4) {
        return;
    }
    switch (queries_below(queries, 3)) {
    case 0: /* a letter is missing */
        memmove(word + at, word + at + 1, length - at);
        break;
    case 1: { /* two are swapped */
        const char letter = word[at];
        word[at] = word[at + 1];
        word[at + 1] = letter;
        break;
    }
    default: /* another letter */
        word[at] = (char)('a' + queries_below(queries, 26));
    }
}

static void append(struct text *text, const char *word)
{
    text->length += (size_t)snprintf(text->bytes + text->length, QUERY_BYTES_MAX - text->length,
                                     text->length == 0 ? "%s" : " %s", word);
}

void queries_vary(struct queries *queries, const char *line, char ret_text[QUERY_BYTES_MAX])
{
    static const char *const polite[] = {"please", "can you tell me", "hi,", "quick question:"};
    char copy[QUERY_BYTES_MAX];
    char *words[WORDS_MAX];
    size_t n = 0;
    char *rest = NULL;
    snprintf(copy, sizeof(copy), "%s", line);
    for (char *word = strtok_r(copy, " ", &rest); word != NULL && n < WORDS_MAX;
         word = strtok_r(NULL, " ", &rest)) {
        words[n++] = word;
    }
    const uint32_t kind = queries_below(queries, 6);
    const size_t at = queries_below(queries, n);
    if (kind <= 1) {
        typo(queries, words[at]);
        typo(queries, words[queries_below(queries, n)]);
    } else if (kind == 2 && at + 1 < n) {
        char *const word = words[at];
        words[at] = words[at + 1];
        words[at + 1] = word;
    }
    struct text text = {.bytes = ret_text};
    ret_text[0] = '\0';
    if (kind == 3) {
        append(&text, polite[queries_below(queries, ARRAY_LENGTH(polite))]);
    }
    for (size_t i = 0; i < n; i++) {
        if (kind != 4 || i != at) {
            append(&text, words[i]);
        }
        if (kind == 5 && i == at) {
            const char *other =
                strrchr(queries->lines[queries_below(queries, queries->entries)], ' ');
            append(&text, other == NULL ? "really" : other + 1);
        }
    }
}

void queries_some(struct queries *queries, char ret_text[QUERY_BYTES_MAX])
{
    const size_t fresh = queries->lines_length - queries->entries;
    if (fresh > 0 && queries_below(queries, 4) == 0) {
        const char *line = queries->lines[queries->entries + queries_below(queries, fresh)];
        snprintf(ret_text, QUERY_BYTES_MAX, "%s", line);
    } else {
        queries_vary(queries, queries->lines[queries_below(queries, queries->entries)], ret_text);
    }
}

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a;
    const float y = *(const float *)b;
    return (x > y) - (x < y);
}

struct times times_new(size_t capacity)
{
    struct times times = {.us = calloc(capacity, sizeof(float))};
    if (times.us == NULL) {
        queries_die("times", -ENOMEM);
    }
    return times;
}

void times_add(struct times *times, int64_t ns)
{
    times->us[times->length++] = (float)ns / 1000;
}

void times_print(const char *name, struct times *times)
{
    qsort(times->us, times->length, sizeof(float), by_size);
    printf(", \"%s_p50_us\": %.1f, \"%s_p99_us\": %.1f, \"%s_max_us\": %.1f", name,
           (double)times->us[times->length / 2], name, (double)times->us[times->length * 99 / 100],
           name, (double)times->us[times->length - 1]);
    free(times->us);
}
