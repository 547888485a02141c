/*
 * bench-cache-index: what the cache's index of the built-in embedder costs, and what it misses.
 *
 *   bench-cache-index TEXTS ENTRIES LOOKUPS EXACT COSINE_MIN
 *
 * The first ENTRIES lines of the file TEXTS become the entries of one scope, with their profiles as
 * notes. Queries are random entries' texts, changed as people change them (typos, words left out,
 * added, swapped), and a quarter of them lines that are not in the index. Times are the thread's
 * own CPU time: what else the machine does is not in them; times by the clock stand beside them.
 *
 * Lookups are timed first alone, then between fills (before each lookup an entry is added and the
 * oldest removed), the fill's time apart. EXACT of the queries are compared with a scan of all
 * entries: of the 8 best with a cosine of at least COSINE_MIN, how many were found. One line of
 * JSON.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/attributes.h"
#include "worker/cache/embed_builtin.h"
#include "worker/cache/lexical_index.h"
#include "worker/cache/profile.h"
#include "worker/cache/sparse_table.h"

enum { LINE_BYTES_MAX = 4096, HITS = 8, WORDS_MAX = 64, BYTES_MAX_GB = 8 };

struct text {
    char bytes[LINE_BYTES_MAX];
    size_t length;
};

struct bench {
    char **lines;
    size_t lines_length;
    size_t entries;
    double cosine_min;
    uint64_t random;
    struct lexical_index *index;
};

static const uint8_t scope[LEXICAL_SCOPE_BYTES] = {1};

static _Noreturn void die(const char *what, int r)
{
    fprintf(stderr, "bench-cache-index: %s: %s\n", what, strerror(-r));
    exit(1);
}

static int64_t time_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static uint32_t below(struct bench *bench, size_t limit)
{
    uint64_t x = bench->random += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(((x ^ (x >> 31)) >> 32) * limit >> 32);
}

static void read_lines(struct bench *bench, const char *path)
{
    FILE *file = fopen(path, "r");
    char line[LINE_BYTES_MAX];
    size_t capacity = 0;
    if (file == NULL) {
        die(path, -errno);
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (bench->lines_length == capacity) {
            capacity = capacity == 0 ? 4096 : capacity * 2;
            bench->lines = realloc(bench->lines, capacity * sizeof(char *));
        }
        if (bench->lines == NULL || (bench->lines[bench->lines_length++] = strdup(line)) == NULL) {
            die(path, -ENOMEM);
        }
    }
    fclose(file);
}

static bool embed(const char *text, union profile_buffer *ret_profile,
                  struct sparse_vector *ret_vector)
{
    const size_t words = profile_make(text, strlen(text), ret_profile);
    if (words == 0 || words > PROFILE_WORDS_MAX) {
        return false;
    }
    embed_builtin(&ret_profile->profile, ret_vector);
    return ret_vector->length > 0;
}

static void key_of(size_t line, uint8_t ret_key[LEXICAL_KEY_BYTES])
{
    const uint64_t halves[2] = {(line + 1) * UINT64_C(0x9e3779b97f4a7c15), line};
    memcpy(ret_key, halves, sizeof(halves));
}

static void fill(struct bench *bench, size_t line)
{
    union profile_buffer profile;
    struct sparse_vector vector;
    uint8_t key[LEXICAL_KEY_BYTES];
    if (!embed(bench->lines[line], &profile, &vector)) {
        return;
    }
    key_of(line, key);
    const int r = lexical_index_add(bench->index, scope, key, &vector, &profile.profile,
                                    profile.profile.bytes);
    if (r < 0) {
        die("adding an entry", r);
    }
}

/* Queries */

static void typo(struct bench *bench, char *word)
{
    const size_t length = strlen(word);
    const size_t at = length < 2 ? 0 : below(bench, length - 1);
    if (length < 4) {
        return;
    }
    switch (below(bench, 3)) {
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
        word[at] = (char)('a' + below(bench, 26));
    }
}

static void append(struct text *text, const char *word)
{
    text->length += (size_t)snprintf(text->bytes + text->length, LINE_BYTES_MAX - text->length,
                                     text->length == 0 ? "%s" : " %s", word);
}

static void vary(struct bench *bench, const char *line, struct text *ret_text)
{
    static const char *const polite[] = {"please", "can you tell me", "hi,", "quick question:"};
    char copy[LINE_BYTES_MAX];
    char *words[WORDS_MAX];
    size_t n = 0;
    char *rest = NULL;
    snprintf(copy, sizeof(copy), "%s", line);
    for (char *word = strtok_r(copy, " ", &rest); word != NULL && n < WORDS_MAX;
         word = strtok_r(NULL, " ", &rest)) {
        words[n++] = word;
    }
    const uint32_t kind = below(bench, 6);
    const size_t at = below(bench, n);
    if (kind <= 1) {
        typo(bench, words[at]);
        typo(bench, words[below(bench, n)]);
    } else if (kind == 2 && at + 1 < n) {
        char *const word = words[at];
        words[at] = words[at + 1];
        words[at + 1] = word;
    }
    *ret_text = (struct text){.length = 0};
    if (kind == 3) {
        append(ret_text, polite[below(bench, ARRAY_LENGTH(polite))]);
    }
    for (size_t i = 0; i < n; i++) {
        if (kind != 4 || i != at) {
            append(ret_text, words[i]);
        }
        if (kind == 5 && i == at) {
            const char *other = strrchr(bench->lines[below(bench, bench->entries)], ' ');
            append(ret_text, other == NULL ? "really" : other + 1);
        }
    }
}

static void some_query(struct bench *bench, size_t first, size_t n,
                       struct sparse_vector *ret_vector)
{
    union profile_buffer profile;
    do {
        struct text text;
        if (below(bench, 4) == 0) {
            const size_t fresh = bench->lines_length - bench->entries;
            text.length = (size_t)snprintf(
                text.bytes, LINE_BYTES_MAX, "%s",
                bench->lines[fresh == 0 ? 0 : bench->entries + below(bench, fresh)]);
        } else {
            vary(bench, bench->lines[first + below(bench, n)], &text);
        }
        if (embed(text.bytes, &profile, ret_vector)) {
            return;
        }
    } while (true);
}

/* Timing */

struct times {
    size_t length;
    float *us;
};

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a;
    const float y = *(const float *)b;
    return (x > y) - (x < y);
}

static struct times times_new(size_t capacity)
{
    struct times times = {.us = calloc(capacity, sizeof(float))};
    if (times.us == NULL) {
        die("times", -ENOMEM);
    }
    return times;
}

static void print_times(const char *name, struct times *times)
{
    qsort(times->us, times->length, sizeof(float), by_size);
    printf(", \"%s_p50_us\": %.1f, \"%s_p99_us\": %.1f, \"%s_max_us\": %.1f", name,
           (double)times->us[times->length / 2], name, (double)times->us[times->length * 99 / 100],
           name, (double)times->us[times->length - 1]);
    free(times->us);
}

static void lookup(struct bench *bench, const struct sparse_vector *vector, struct times *cpu,
                   struct times *clock)
{
    struct lexical_hit hits[LEXICAL_HITS_MAX];
    size_t length;
    const int64_t began = time_ns(CLOCK_MONOTONIC);
    const int64_t cpu_began = time_ns(CLOCK_THREAD_CPUTIME_ID);
    const int r =
        lexical_index_best(bench->index, scope, vector, bench->cosine_min, HITS, hits, &length);
    cpu->us[cpu->length++] = (float)(time_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_began) / 1000;
    clock->us[clock->length++] = (float)(time_ns(CLOCK_MONOTONIC) - began) / 1000;
    if (r < 0) {
        die("lookup", r);
    }
}

static void measure_lookups(struct bench *bench, size_t lookups)
{
    struct times cpu = times_new(lookups);
    struct times clock = times_new(lookups);
    for (size_t i = 0; i < lookups; i++) {
        struct sparse_vector vector;
        some_query(bench, 0, bench->entries, &vector);
        lookup(bench, &vector, &cpu, &clock);
    }
    print_times("lookup", &cpu);
    print_times("lookup_clock", &clock);
}

/* The entries' lines go round: the oldest leaves, comes back later. */
static void measure_beside_fills(struct bench *bench, size_t lookups)
{
    struct times cpu = times_new(lookups);
    struct times clock = times_new(lookups);
    struct times fills = times_new(lookups);
    for (size_t i = 0; i < lookups; i++) {
        struct sparse_vector vector;
        uint8_t key[LEXICAL_KEY_BYTES];
        const size_t line = i % bench->entries;
        some_query(bench, 0, bench->entries, &vector);
        key_of(line, key);
        const int64_t began = time_ns(CLOCK_THREAD_CPUTIME_ID);
        (void)lexical_index_remove(bench->index, key);
        fill(bench, line);
        fills.us[fills.length++] = (float)(time_ns(CLOCK_THREAD_CPUTIME_ID) - began) / 1000;
        lookup(bench, &vector, &cpu, &clock);
    }
    print_times("lookup_beside_fills", &cpu);
    print_times("lookup_beside_fills_clock", &clock);
    print_times("replacement", &fills);
}

static void measure_fills(struct bench *bench)
{
    struct times times = times_new(bench->entries);
    const int64_t began = time_ns(CLOCK_MONOTONIC);
    for (size_t i = 0; i < bench->entries; i++) {
        const int64_t cpu_began = time_ns(CLOCK_THREAD_CPUTIME_ID);
        fill(bench, i);
        times.us[times.length++] = (float)(time_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_began) / 1000;
    }
    printf(", \"all_fills_s\": %.2f", (double)(time_ns(CLOCK_MONOTONIC) - began) / 1e9);
    print_times("fill", &times);
}

static void measure_embedding(struct bench *bench)
{
    enum { TEXTS = 20000 };
    const size_t n = bench->lines_length < TEXTS ? bench->lines_length : TEXTS;
    size_t items = 0;
    size_t bytes = 0;
    const int64_t began = time_ns(CLOCK_THREAD_CPUTIME_ID);
    for (size_t i = 0; i < n; i++) {
        union profile_buffer profile;
        struct sparse_vector vector;
        items += embed(bench->lines[i], &profile, &vector) ? vector.length : 0;
    }
    const double us = (double)(time_ns(CLOCK_THREAD_CPUTIME_ID) - began) / 1000;
    for (size_t i = 0; i < n; i++) {
        bytes += strlen(bench->lines[i]);
    }
    printf(", \"embed_us\": %.2f, \"items_per_text\": %.0f, \"bytes_per_text\": %.0f",
           us / (double)n, (double)items / (double)n, (double)bytes / (double)n);
}

/* What a scan finds, by the entries' vectors made again. */

static size_t scan(const struct bench *bench, const struct sparse_vector *vectors,
                   const struct sparse_vector *query, double ret_cosines[HITS])
{
    struct sparse_table table;
    size_t length = 0;
    sparse_table_fill(&table, query);
    for (size_t i = 0; i < bench->entries; i++) {
        const struct sparse_vector *vector = &vectors[i];
        const double norms = sqrt((double)query->norm_squared * (double)vector->norm_squared);
        const double cosine =
            norms > 0 ? sparse_table_dot(&table, vector->items, vector->length) / norms : 0;
        if (cosine < bench->cosine_min || (length == HITS && cosine <= ret_cosines[HITS - 1])) {
            continue;
        }
        size_t at = length < HITS ? length++ : HITS - 1;
        for (; at > 0 && ret_cosines[at - 1] < cosine; at--) {
            ret_cosines[at] = ret_cosines[at - 1];
        }
        ret_cosines[at] = cosine;
    }
    return length;
}

static const double cuts[] = {0, 0.5, 0.7};

static void measure_recall(struct bench *bench, size_t queries)
{
    uint64_t wanted[ARRAY_LENGTH(cuts)] = {0};
    uint64_t found[ARRAY_LENGTH(cuts)] = {0};
    struct sparse_vector *vectors = calloc(bench->entries, sizeof(*vectors));
    if (vectors == NULL) {
        die("vectors", -ENOMEM);
    }
    for (size_t i = 0; i < bench->entries; i++) {
        union profile_buffer profile;
        if (!embed(bench->lines[i], &profile, &vectors[i])) {
            vectors[i].length = 0;
            vectors[i].norm_squared = 0;
        }
    }
    for (size_t i = 0; i < queries; i++) {
        struct lexical_hit hits[LEXICAL_HITS_MAX];
        double cosines[HITS];
        size_t length = 0;
        struct sparse_vector query;
        some_query(bench, 0, bench->entries, &query);
        const size_t scanned = scan(bench, vectors, &query, cosines);
        const int r =
            lexical_index_best(bench->index, scope, &query, bench->cosine_min, HITS, hits, &length);
        if (r < 0) {
            die("lookup", r);
        }
        for (size_t cut = 0; cut < ARRAY_LENGTH(cuts); cut++) {
            for (size_t at = 0; at < scanned; at++) {
                wanted[cut] += cosines[at] >= cuts[cut];
            }
            /* Of equal cosines any will do. */
            for (size_t at = 0; at < length; at++) {
                found[cut] +=
                    hits[at].cosine >= cuts[cut] && hits[at].cosine >= cosines[scanned - 1] - 1e-9;
            }
        }
    }
    free(vectors);
    for (size_t cut = 0; cut < ARRAY_LENGTH(cuts); cut++) {
        printf(", \"wanted_%.1f\": %llu, \"recall_%.1f\": %.4f", cuts[cut],
               (unsigned long long)wanted[cut], cuts[cut],
               wanted[cut] == 0 ? 1 : (double)found[cut] / (double)wanted[cut]);
    }
}

static void print_memory(const struct bench *bench)
{
    struct lexical_index_stats stats;
    lexical_index_read_stats(bench->index, &stats);
    printf(", \"entries\": %llu, \"postings_per_entry\": %.0f, \"bytes_per_entry\": %.0f, "
           "\"bytes_used_per_entry\": %.0f",
           (unsigned long long)stats.entries, (double)stats.postings / (double)stats.entries,
           (double)stats.bytes / (double)stats.entries,
           (double)stats.bytes_used / (double)stats.entries);
}

int main(int argc, char **argv)
{
    struct bench bench = {.random = 1};
    if (argc != 6) {
        fputs("usage: bench-cache-index TEXTS ENTRIES LOOKUPS EXACT COSINE_MIN\n", stderr);
        return 2;
    }
    read_lines(&bench, argv[1]);
    bench.entries = strtoul(argv[2], NULL, 10);
    bench.cosine_min = strtod(argv[5], NULL);
    const size_t lookups = strtoul(argv[3], NULL, 10);
    if (bench.entries == 0 || bench.entries > bench.lines_length || lookups == 0) {
        die("ENTRIES or LOOKUPS", -EINVAL);
    }
    const struct lexical_index_options options = {.entries_max = LEXICAL_ENTRIES_MAX,
                                                  .bytes_max = (size_t)BYTES_MAX_GB << 30};
    const int r = lexical_index_create(&options, &bench.index);
    if (r < 0) {
        die("index", r);
    }
    printf("{\"asked\": %zu", bench.entries);
    measure_embedding(&bench);
    measure_fills(&bench);
    print_memory(&bench);
    measure_lookups(&bench, lookups);
    measure_recall(&bench, strtoul(argv[4], NULL, 10));
    measure_beside_fills(&bench, lookups);
    printf("}\n");
    lexical_index_destroy(&bench.index);
    for (size_t i = 0; i < bench.lines_length; i++) {
        free(bench.lines[i]);
    }
    free(bench.lines);
    return 0;
}
