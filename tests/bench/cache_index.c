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
#include "common/attributes.h"
#include "tests/bench/cache_queries.h"
#include "worker/cache/embed_builtin.h"
#include "worker/cache/lexical_index.h"
#include "worker/cache/profile.h"
#include "worker/cache/sparse_table.h"

enum { HITS = 8, BYTES_MAX_GB = 8 };

struct bench {
    struct queries queries;
    double cosine_min;
    struct lexical_index *index;
};

static const uint8_t scope[LEXICAL_SCOPE_BYTES] = {1};

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
    if (!embed(bench->queries.lines[line], &profile, &vector)) {
        return;
    }
    key_of(line, key);
    const int r = lexical_index_add(bench->index, scope, key, &vector, &profile.profile,
                                    profile.profile.bytes);
    if (r < 0) {
        queries_die("adding an entry", r);
    }
}

static void some_query(struct bench *bench, struct sparse_vector *ret_vector)
{
    union profile_buffer profile;
    char text[QUERY_BYTES_MAX];
    do {
        queries_some(&bench->queries, text);
    } while (!embed(text, &profile, ret_vector));
}

/* Timing */

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
        queries_die("lookup", r);
    }
}

static void measure_lookups(struct bench *bench, size_t lookups)
{
    struct times cpu = times_new(lookups);
    struct times clock = times_new(lookups);
    for (size_t i = 0; i < lookups; i++) {
        struct sparse_vector vector;
        some_query(bench, &vector);
        lookup(bench, &vector, &cpu, &clock);
    }
    times_print("lookup", &cpu);
    times_print("lookup_clock", &clock);
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
        const size_t line = i % bench->queries.entries;
        some_query(bench, &vector);
        key_of(line, key);
        const int64_t began = time_ns(CLOCK_THREAD_CPUTIME_ID);
        (void)lexical_index_remove(bench->index, key);
        fill(bench, line);
        fills.us[fills.length++] = (float)(time_ns(CLOCK_THREAD_CPUTIME_ID) - began) / 1000;
        lookup(bench, &vector, &cpu, &clock);
    }
    times_print("lookup_beside_fills", &cpu);
    times_print("lookup_beside_fills_clock", &clock);
    times_print("replacement", &fills);
}

static void measure_fills(struct bench *bench)
{
    struct times times = times_new(bench->queries.entries);
    const int64_t began = time_ns(CLOCK_MONOTONIC);
    for (size_t i = 0; i < bench->queries.entries; i++) {
        const int64_t cpu_began = time_ns(CLOCK_THREAD_CPUTIME_ID);
        fill(bench, i);
        times.us[times.length++] = (float)(time_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_began) / 1000;
    }
    printf(", \"all_fills_s\": %.2f", (double)(time_ns(CLOCK_MONOTONIC) - began) / 1e9);
    times_print("fill", &times);
}

static void measure_embedding(struct bench *bench)
{
    enum { TEXTS = 20000 };
    const size_t n = bench->queries.lines_length < TEXTS ? bench->queries.lines_length : TEXTS;
    size_t items = 0;
    size_t bytes = 0;
    const int64_t began = time_ns(CLOCK_THREAD_CPUTIME_ID);
    for (size_t i = 0; i < n; i++) {
        union profile_buffer profile;
        struct sparse_vector vector;
        items += embed(bench->queries.lines[i], &profile, &vector) ? vector.length : 0;
    }
    const double us = (double)(time_ns(CLOCK_THREAD_CPUTIME_ID) - began) / 1000;
    for (size_t i = 0; i < n; i++) {
        bytes += strlen(bench->queries.lines[i]);
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
    for (size_t i = 0; i < bench->queries.entries; i++) {
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
    struct sparse_vector *vectors = calloc(bench->queries.entries, sizeof(*vectors));
    if (vectors == NULL) {
        queries_die("vectors", -ENOMEM);
    }
    for (size_t i = 0; i < bench->queries.entries; i++) {
        union profile_buffer profile;
        if (!embed(bench->queries.lines[i], &profile, &vectors[i])) {
            vectors[i].length = 0;
            vectors[i].norm_squared = 0;
        }
    }
    for (size_t i = 0; i < queries; i++) {
        struct lexical_hit hits[LEXICAL_HITS_MAX];
        double cosines[HITS];
        size_t length = 0;
        struct sparse_vector query;
        some_query(bench, &query);
        const size_t scanned = scan(bench, vectors, &query, cosines);
        const int r =
            lexical_index_best(bench->index, scope, &query, bench->cosine_min, HITS, hits, &length);
        if (r < 0) {
            queries_die("lookup", r);
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
    struct bench bench = {.queries.random = 1};
    if (argc != 6) {
        fputs("usage: bench-cache-index TEXTS ENTRIES LOOKUPS EXACT COSINE_MIN\n", stderr);
        return 2;
    }
    queries_read(&bench.queries, argv[1]);
    bench.queries.entries = strtoul(argv[2], NULL, 10);
    bench.cosine_min = strtod(argv[5], NULL);
    const size_t lookups = strtoul(argv[3], NULL, 10);
    if (bench.queries.entries == 0 || bench.queries.entries > bench.queries.lines_length ||
        lookups == 0) {
        queries_die("ENTRIES or LOOKUPS", -EINVAL);
    }
    const struct lexical_index_options options = {.entries_max = LEXICAL_ENTRIES_MAX,
                                                  .bytes_max = (size_t)BYTES_MAX_GB << 30};
    const int r = lexical_index_create(&options, &bench.index);
    if (r < 0) {
        queries_die("index", r);
    }
    printf("{\"asked\": %zu", bench.queries.entries);
    measure_embedding(&bench);
    measure_fills(&bench);
    print_memory(&bench);
    measure_lookups(&bench, lookups);
    measure_recall(&bench, strtoul(argv[4], NULL, 10));
    measure_beside_fills(&bench, lookups);
    printf("}\n");
    lexical_index_destroy(&bench.index);
    queries_finish(&bench.queries);
    return 0;
}
